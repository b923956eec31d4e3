"""Conditional translation: some channels of a layout are given, the others are made to fit them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from citygrain.errors import ConditionError, ConfigError
from citygrain.models.adversarial import Game, GanLoss, NonSaturating
from citygrain.models.reconstruction import ReconstructionLoss
from citygrain.networks.conditioner import ConditionEmbedding, ConditionPlanes
from citygrain.protocols import Noise, Sampler
from citygrain.samplers.implicit import Truncated
from citygrain.spec import Conditions, LayoutSpec

NETWORKS = ("arterial", "street", "service", "cycle", "walk", "rail", "water")
"""What is given unless something else is said: what moves through a city. Buildings, green and parking follow."""


class Pix2Pix(nn.Module):
    """Given channels to the others, by an adversarial game beside a reconstruction (Isola et al. 2017).

    Parameters
    ----------
    spec
        Layouts and conditions.
    network
        Makes the generator from `in_channels`, `out_channels` and `embedding`.
    critic
        Makes the critic from `in_channels` and `embedding`; a `PatchCritic`, as a rule.
    given
        Channels that are given; None: those of `NETWORKS` that the layouts have.
    objective
        What the players of the game lose; `NonSaturating` by default.
    r1
        Weight of the penalty on the gradient of the critic's verdicts.
    fidelity
        Weight of the reconstruction: how far what is made has to be what was there. The smaller, the more it may differ
        from noise to noise.
    warmup
        Batches in which the generator learns alone, by cross-entropy, before the game begins: on large layouts the
        critic would win before there is anything to judge.
    reconstruction, balance
        Errors of the reconstruction and how far rare channels are raised, see `citygrain.models.reconstruction`.
        Cross-entropy punishes a house that stands a little aside without limit, so that none are drawn but their
        mean; the squared error at most by one.
    obedience
        Weight of the distance between measured and asked conditions, see `Game`.
    noise_channels
        Planes of noise that the generator sees, so that one street plan can be built up in many ways.
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
        unknown = [name for name in names if name not in spec.channels]
        if unknown or not 0 < len(set(names)) < len(spec.channels):
            raise ConfigError(
                "These channels cannot be given.",
                expected="at least one channel that the layouts have, and not all of them",
                got=", ".join(unknown or names) or "none",
                choices=spec.channels,
            )
        self.spec = replace(spec, given=names)
        self.sampler = sampler or Truncated()
        self.fidelity, self.warmup, self.noise_channels = fidelity, warmup, noise_channels
        self.given = [spec.channels.index(name) for name in names]
        self.made = [i for i in range(len(spec.channels)) if i not in self.given]
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
        """Whether there are batches in which the critic has no part."""
        return self.warmup > 0

    def measure_data(self, layouts: Tensor) -> None:
        """Set the weight of each made channel, and what the critic sees, from training layouts `(N, C, H, W)`."""
        self.reconstruction.measure_data(layouts[:, self.made])
        self.beginning.measure_data(layouts[:, self.made])
        self.game.measure_data(layouts)

    def logits(self, given: Tensor, conditions: Conditions, noise: Tensor) -> Tensor:
        """Logits `(B, made, H, W)` of the channels that are not given, for noise `(B, noise_channels, H, W)`."""
        planes = self.planes(conditions, given.shape[-1])
        return self.network(torch.cat([given * 2 - 1, planes, noise], 1), self.conditioner(conditions))

    def loss(self, layout: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the losses of both players, or of a generator that is alone; channels are given from `layout`."""
        given = layout[:, self.given]
        noise = torch.randn(len(layout), self.noise_channels, *layout.shape[2:], device=layout.device)
        logits = self.logits(given, conditions, noise)
        made = self._joined(given, logits.sigmoid())
        alone = self.training and bool(self.batches < self.warmup)
        losses = self._alone(made, conditions) if alone else self.game.losses(layout, made, conditions)
        reconstruction = self.beginning if alone else self.reconstruction
        losses["reconstruction"] = reconstruction(logits, layout[:, self.made])
        losses["loss"] = losses["loss"] + self.fidelity * losses["reconstruction"]
        if self.training:
            self.batches += 1
        return losses

    def _alone(self, made: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """What a generator without a critic loses, beside the reconstruction."""
        disobedience = self.game.disobedience(made, conditions)
        return {"loss": self.game.obedience * disobedience, "disobedience": disobedience}

    def generate(self, conditions: Conditions, noise: Noise, truncation: float) -> Tensor:
        """Layouts `(B, C, H, W)` in [0, 1] with the given channels as they are.

        Raises
        ------
        ConditionError
            When nothing is given.
        """
        if not bool(conditions.given_present.all()):
            raise ConditionError(
                "This model makes some channels for others, and none are given.",
                expected=f"given channels: {', '.join(self.spec.given)}",
                remedy="citygrain sample takes them from a prepared place (given.place=…); in Python, "
                "Conditions.request(spec, n, asked, given={…})",
            )
        drawn = truncation * noise.normal(self.noise_channels, self.spec.size_px, self.spec.size_px)
        return self._joined(conditions.given, self.logits(conditions.given, conditions, drawn).sigmoid())

    @torch.no_grad()
    def sample(self, conditions: Conditions, *, noise: Noise, sampler: Sampler | None = None) -> Tensor:
        """Draw layouts `(B, C, H, W)` in [0, 1]."""
        return (sampler or self.sampler)(self, conditions, noise)

    def _joined(self, given: Tensor, made: Tensor) -> Tensor:
        order = torch.argsort(torch.tensor(self.given + self.made, device=made.device))
        return torch.cat([given.to(made.dtype), made], 1)[:, order]
