"""The energy-based model, in cells or in the code of a codec: layouts lie where the energy is low."""

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

    The noise (`smoothing`) keeps the energy from becoming steeper than a chain can follow, and there is a way out of
    it: x − σ² ∇E(x) is the clean tensor that is expected behind x (walk–jump sampling, Saremi & Hyvärinen 2019). The
    energy is learned from three sides:

    - *contrast*: it falls at data and rises where its own chains go, so that there is no low ground but at data
      (contrastive divergence with a pool of chains, Tieleman 2008; Du & Mordatch 2019; Nijkamp et al. 2020);
    - *denoising*: from data with noise of any size up to their own, its slope leads back to them (multiscale denoising
      score matching, Li et al. 2019). Alone it leaves low ground where no data are; without it the contrast runs away
      as soon as the chains cannot follow;
    - *matching*: data have less energy under their own conditions than under those of another layout, as Bayes' rule
      has it. The contrast alone takes long to see what was asked, when what is there can be seen.

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
        Weight of the squares of the energies a dimension, which keeps them from drifting.
    walk
        Steps that each chain takes between two steps of training.
    capacity, restart
        Of the pool of chains, see `citygrain.models.replay.Replay`; they begin with normal noise.
    embedding
        Size of the embedding of the conditions.

    Raises
    ------
    ConfigError
        For a smoothing that is none, or drowns the data.
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
        """Energy `(B,)` of noisy tensors: what is learned, on top of that of a standard normal distribution."""
        planes = self.planes(conditions, x.shape[-1])
        learned = self.landscape(torch.cat([x, planes], 1), self.conditioner(conditions))
        return learned + 0.5 * (x**2).sum((1, 2, 3))

    def code_loss(self, code: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the losses of codes `(B, *latent_shape)`; contrast, denoising error and energies are a dimension's.

        The contrast is E(data) − E(chains): about zero when chains go where data are, so no measure of how good they
        are; the denoising error is one. Outside training the chains are new, and leave no trace.
        """
        clean = self.standardised(code)
        size = math.prod(self.latent_shape)
        walked, theirs = self._walked(torch.randn_like(clean), conditions)
        noisy = clean + self.smoothing * torch.randn_like(clean)
        low, high = self.energy(noisy, conditions), self.energy(walked, theirs)
        others = conditions[torch.arange(len(clean), device=clean.device).roll(1)]
        losses = {
            "contrast": (low - high).mean() / size,
            "denoising": self._denoising(clean, conditions),
            "matching": F.softplus(low - self.energy(noisy, others)).mean(),
            "flatness": (low**2 + high**2).mean() / size**2,
        }
        return {"loss": torch.stack([self.weights[name] * loss for name, loss in losses.items()]).sum(), **losses}

    def _denoising(self, clean: Tensor, conditions: Conditions) -> Tensor:
        level = self.smoothing ** torch.rand(len(clean), 1, 1, 1, device=clean.device)
        noisy = clean + level * torch.randn_like(clean)
        expected = noisy - self.smoothing**2 * compute_energy_gradient(self, noisy, conditions, train=self.training)
        return (((expected - clean) / level) ** 2).mean()

    def _walked(self, fresh: Tensor, conditions: Conditions) -> tuple[Tensor, Conditions]:
        """Return chains that have walked, and the conditions that each is under."""
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
