"""Image-to-image translation: some channels of a layout are given, and the others are generated to fit them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from citygrain.models.adversarial import Game, GanLoss, NonSaturating
from citygrain.models.given_channels import WAYS, find_given, join_channels, name_given, require_given
from citygrain.models.reconstruction import ReconstructionLoss
from citygrain.networks.conditioner import ConditionEmbedding, ConditionPlanes
from citygrain.protocols import Noise, Sampler
from citygrain.samplers.implicit import Truncated
from citygrain.spec import Conditions, LayoutSpec

NETWORKS = (*WAYS, "water")
"""Channels that are given by default: all networks of movement, and water."""


class Pix2Pix(nn.Module):
    """Generate channels from given ones, by an adversarial game and a reconstruction (Isola et al. 2017).

    Parameters
    ----------
    spec
        Layouts and conditions.
    network
        Makes the generator from `in_channels`, `out_channels` and `embedding`.
    critic
        Makes the critic from `in_channels` and `embedding`; a `PatchCritic`, as a rule.
    given
        Channels that are given. None takes those of `NETWORKS` that the layouts have.
    objective
        The losses of both players; `NonSaturating` by default.
    r1
        Weight of the penalty on the gradient of the critic, see `Game`.
    fidelity
        Weight of the reconstruction, which pulls generated channels to those of the real layout. The smaller it is, the
        more the results differ from noise to noise.
    warmup
        Number of batches in which the generator learns alone, by cross-entropy, before the game begins. On large
        layouts, the critic would otherwise win before the generator draws anything useful.
    reconstruction, balance
        Errors of the reconstruction, and how much weight rare channels get, see `citygrain.models.reconstruction`. The
        cross-entropy of a cell has no upper limit. A house at a slightly wrong place costs so much that the generator
        only draws the mean of all possible houses. The squared error of a cell is at most 1.
    obedience
        Weight of the distance between measured and asked conditions, see `Game`.
    noise_channels
        Planes of noise that the generator sees. So one street plan can get many different layouts.
    sampler
        Used by `sample` unless another is given; `Truncated` by default.
    embedding
        Size of the embedding of the conditions.
    """

    batches: Tensor

    def __init__(
        self,
        spec: LayoutSpec,
        *,
        network: Callable[..., nn.Module],
        critic: Callable[..., nn.Module],
        given: Sequence[str] | None = None,
        objective: GanLoss | None = None,
        r1: float = 0.1,
        fidelity: float = 5.0,
        warmup: int = 0,
        reconstruction: Mapping[str, float] | None = None,
        balance: float = 0.5,
        obedience: float = 1.0,
        noise_channels: int = 4,
        sampler: Sampler | None = None,
        embedding: int = 128,
    ) -> None:
        super().__init__()
        names = tuple(c for c in NETWORKS if c in spec.channels) if given is None else tuple(given)
        self.spec = name_given(spec, names)
        self.sampler = sampler or Truncated()
        self.fidelity, self.warmup, self.noise_channels = fidelity, warmup, noise_channels
        self.given, self.made = find_given(self.spec)
        self.conditioner = ConditionEmbedding(spec, embedding)
        self.planes = ConditionPlanes(spec)
        self.network = network(
            in_channels=len(names) + self.planes.channels + noise_channels,
            out_channels=len(self.made),
            embedding=embedding,
        )
        self.reconstruction = ReconstructionLoss(len(self.made), reconstruction or {"bce": 1.0}, balance)
        self.beginning = ReconstructionLoss(len(self.made), {"bce": 1.0}, balance)
        self.game = Game(
            spec,
            critic=critic,
            objective=objective or NonSaturating(),
            r1=r1,
            obedience=obedience,
            embedding=embedding,
        )
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    @property
    def rests(self) -> bool:
        """Whether there are batches in which the critic takes no part."""
        return self.warmup > 0

    def measure_data(self, layouts: Tensor) -> None:
        """Measure the weights of generated channels, and the critic's standardisation, on layouts `(N, C, H, W)`."""
        self.reconstruction.measure_data(layouts[:, self.made])
        self.beginning.measure_data(layouts[:, self.made])
        self.game.measure_data(layouts)

    def logits(self, given: Tensor, conditions: Conditions, noise: Tensor) -> Tensor:
        """Return logits `(B, made, H, W)` of the generated channels, for noise `(B, noise_channels, H, W)`."""
        planes = self.planes(conditions, given.shape[-1])
        return self.network(torch.cat([given * 2 - 1, planes, noise], 1), self.conditioner(conditions))

    def loss(self, layout: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the losses of both players; in the warm-up, only those of the generator."""
        given = layout[:, self.given]
        noise = torch.randn(len(layout), self.noise_channels, *layout.shape[2:], device=layout.device)
        logits = self.logits(given, conditions, noise)
        made = join_channels(given, logits.sigmoid(), self.spec)
        alone = self.training and bool(self.batches < self.warmup)
        losses = self._judge_alone(made, conditions) if alone else self.game.compute_losses(layout, made, conditions)
        reconstruction = self.beginning if alone else self.reconstruction
        losses["reconstruction"] = reconstruction(logits, layout[:, self.made])
        losses["loss"] = losses["loss"] + self.fidelity * losses["reconstruction"]
        if self.training:
            self.batches += 1
        return losses

    def _judge_alone(self, made: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the losses of a generator without a critic, except for the reconstruction."""
        disobedience = self.game.measure_disobedience(made, conditions)
        return {"loss": self.game.obedience * disobedience, "disobedience": disobedience}

    def generate(self, conditions: Conditions, noise: Noise, truncation: float) -> Tensor:
        """Generate layouts `(B, C, H, W)` in [0, 1]. The given channels stay as they are.

        Raises
        ------
        ConditionError
            When no channels are given.
        """
        given = require_given(conditions, self.spec)
        drawn = truncation * noise.normal(self.noise_channels, self.spec.size_px, self.spec.size_px)
        return join_channels(given, self.logits(given, conditions, drawn).sigmoid(), self.spec)

    @torch.no_grad()
    def sample(self, conditions: Conditions, *, noise: Noise, sampler: Sampler | None = None) -> Tensor:
        """Draw layouts `(B, C, H, W)` in [0, 1]."""
        return (sampler or self.sampler)(self, conditions, noise)
