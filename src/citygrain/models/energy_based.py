"""The energy-based model, in cells or in the code of a codec: likely layouts have a low energy."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from citygrain.errors import ConfigError
from citygrain.models.code_space import CodeSpace
from citygrain.models.replay import Replay
from citygrain.networks.conditioner import ConditionEmbedding, ConditionPlanes
from citygrain.protocols import Noise, Sampler
from citygrain.samplers.langevin import Langevin, compute_energy_gradient
from citygrain.spec import Conditions, LayoutSpec


class EnergyBased(CodeSpace):
    """A density p(x | c) ∝ exp(−E(x, c)) of layouts, or of their codes, with a little noise in them.

    The noise (`smoothing`) limits the slope of the energy, so that chains can follow it. At the end it is removed: the
    clean tensor that is expected behind x is x − σ² ∇E(x) (walk–jump sampling, Saremi & Hyvärinen 2019). Three losses
    teach the energy:

    - *contrast*: the energy falls at data, and rises where its own chains go. So only data keep a low energy
      (contrastive divergence with a pool of chains, Tieleman 2008; Du & Mordatch 2019; Nijkamp et al. 2020).
    - *denoising*: at data with noise up to the size of `smoothing`, the gradient leads back to the data (multiscale
      denoising score matching, Li et al. 2019). This loss alone would leave low energies far from data. Without it, the
      contrast diverges as soon as the chains cannot follow.
    - *matching*: data have a lower energy under their own conditions than under those of another layout, after Bayes'
      rule. The contrast alone learns the conditions slowly, because a layout can look real under any of them.

    Parameters
    ----------
    spec
        Layouts and conditions.
    landscape
        Makes the network of the energy from `in_channels` and `embedding`, as
        `citygrain.networks.energy.EnergyNetwork`.
    sampler
        Used by `sample` unless another is given; `Langevin` by default.
    codec
        A model with a code of such layouts, see `CodeSpace`. None works in cells.
    smoothing
        σ, the standard deviation of the noise in standardised tensors.
    contrast, matching
        Weights of these losses against denoising.
    flatness
        Weight of the squared energies per dimension. It keeps the energies near zero.
    walk
        Number of steps of each chain in one training step.
    capacity, restart
        Settings of the pool of chains, see `citygrain.models.replay.Replay`. Chains begin with normal noise.
    embedding
        Size of the embedding of the conditions.

    Raises
    ------
    ConfigError
        When the smoothing is not above 0, or above 1, where the noise would drown the data.
    """

    def __init__(
        self,
        spec: LayoutSpec,
        *,
        landscape: Callable[..., nn.Module],
        sampler: Sampler | None = None,
        codec: nn.Module | None = None,
        smoothing: float = 0.3,
        contrast: float = 0.3,
        matching: float = 0.03,
        flatness: float = 0.03,
        walk: int = 8,
        capacity: int = 1024,
        restart: float = 0.05,
        embedding: int = 128,
    ) -> None:
        super().__init__(spec, codec)
        if not 0 < smoothing <= 1:
            raise ConfigError("The energy is that of noisy layouts.", expected="0 < smoothing ≤ 1", got=smoothing)
        self.sampler = sampler or Langevin()
        self.chain = Langevin(steps=walk)
        self.replay = Replay(capacity, restart)
        self.smoothing = smoothing
        self.weights = {"contrast": contrast, "denoising": 1.0, "matching": matching, "flatness": flatness}
        self.conditioner = ConditionEmbedding(spec, embedding)
        self.planes = ConditionPlanes(spec)
        self.landscape = landscape(in_channels=self.latent_shape[0] + self.planes.channels, embedding=embedding)

    def energy(self, x: Tensor, conditions: Conditions) -> Tensor:
        """Return the energy `(B,)` of noisy tensors: that of a standard normal distribution plus a learned term."""
        planes = self.planes(conditions, x.shape[-1])
        learned = self.landscape(torch.cat([x, planes], 1), self.conditioner(conditions))
        return learned + 0.5 * (x**2).sum((1, 2, 3))

    def code_loss(self, code: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the losses of codes `(B, *latent_shape)`. Contrast, denoising error and flatness are per dimension.

        The contrast is E(data) − E(chains). It is about zero when the chains go where the data are, so it does not tell
        how good the model is; the denoising error does. Outside training, the chains are new and are not stored.
        """
        clean = self.standardise(code)
        size = math.prod(self.latent_shape)
        walked, theirs = self._walk_chains(torch.randn_like(clean), conditions)
        noisy = clean + self.smoothing * torch.randn_like(clean)
        low, high = self.energy(noisy, conditions), self.energy(walked, theirs)
        others = conditions[torch.arange(len(clean), device=clean.device).roll(1)]
        losses = {
            "contrast": (low - high).mean() / size,
            "denoising": self._measure_denoising(clean, conditions),
            "matching": F.softplus(low - self.energy(noisy, others)).mean(),
            "flatness": (low**2 + high**2).mean() / size**2,
        }
        return {"loss": torch.stack([self.weights[name] * loss for name, loss in losses.items()]).sum(), **losses}

    def _measure_denoising(self, clean: Tensor, conditions: Conditions) -> Tensor:
        level = self.smoothing ** torch.rand(len(clean), 1, 1, 1, device=clean.device)
        noisy = clean + level * torch.randn_like(clean)
        expected = noisy - self.smoothing**2 * compute_energy_gradient(self, noisy, conditions, train=self.training)
        return (((expected - clean) / level) ** 2).mean()

    def _walk_chains(self, fresh: Tensor, conditions: Conditions) -> tuple[Tensor, Conditions]:
        """Return chains after their walk, and the conditions of each chain."""
        if not self.training:
            return self.chain.walk(self, fresh, conditions, lambda: torch.randn_like(fresh)), conditions
        slots, begun, theirs = self.replay.draw(fresh, conditions)
        walked = self.chain.walk(self, begun, theirs, lambda: torch.randn_like(fresh)).detach()
        self.replay.keep(slots, walked, theirs)
        return walked, theirs

    def loss(self, layout: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the losses of layouts `(B, C, H, W)`, see `code_loss`."""
        return self.code_loss(self.to_code(layout), conditions)

    @torch.no_grad()
    def sample(self, conditions: Conditions, *, noise: Noise, sampler: Sampler | None = None) -> Tensor:
        """Draw layouts `(B, C, H, W)` in [0, 1]."""
        return self.to_layout((sampler or self.sampler)(self, conditions, noise))
