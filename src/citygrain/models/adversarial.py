"""The game of generative adversarial networks: one loss for both players, the generator and the critic.

The loss of a player only reaches the weights of that player. For the generator's loss, the critic's weights are held
fixed; for the critic's loss, the layouts are detached from the generator. So one backward pass of the sum gives both
gradients, and both players move at once (Mescheder et al. 2018 show that this converges with the gradient penalty).
The game therefore trains like every other family: with any optimiser, clipping, accumulation and several processes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from citygrain.errors import ConfigError
from citygrain.networks.conditioner import ConditionEmbedding, ConditionPlanes
from citygrain.networks.frame import list_drawn, measure_conditions
from citygrain.spec import Conditions, LayoutSpec


class GanLoss(Protocol):
    """The losses of the two players."""

    def critic(self, real: Tensor, made: Tensor) -> Tensor:
        """Return the loss of a critic that gave these logits to real and generated layouts."""
        ...

    def generator(self, made: Tensor) -> Tensor:
        """Return the loss of a generator whose layouts got these logits."""
        ...


@dataclass(frozen=True)
class NonSaturating:
    """Cross-entropy for the critic. The generator maximises the odds of being called real (Goodfellow et al. 2014).

    Parameters
    ----------
    smoothing
        The target of the critic for real layouts is 1 − smoothing (one-sided, Salimans et al. 2016).
    """

    smoothing: float = 0.0

    def __post_init__(self) -> None:
        _check_smoothing(self.smoothing)

    def critic(self, real: Tensor, made: Tensor) -> Tensor:
        """Return the cross-entropy of the logits of real and generated layouts."""
        sure = F.softplus(-real) * (1 - self.smoothing) + F.softplus(real) * self.smoothing
        return sure.mean() + F.softplus(made).mean()

    def generator(self, made: Tensor) -> Tensor:
        """Return the cross-entropy of generated layouts with the label "real"."""
        return F.softplus(-made).mean()


@dataclass(frozen=True)
class Hinge:
    """Margins for the critic, and the plain logit for the generator (Lim & Ye 2017)."""

    def critic(self, real: Tensor, made: Tensor) -> Tensor:
        """Return by how much logits miss the margins: 1 for real layouts, −1 for generated ones."""
        return F.relu(1 - real).mean() + F.relu(1 + made).mean()

    def generator(self, made: Tensor) -> Tensor:
        """Return the negative mean logit."""
        return -made.mean()


@dataclass(frozen=True)
class LeastSquares:
    """Squared distance from 1 for real layouts and from 0 for generated ones (Mao et al. 2017).

    Parameters
    ----------
    smoothing
        The target of the critic for real layouts is 1 − smoothing.
    """

    smoothing: float = 0.0

    def __post_init__(self) -> None:
        _check_smoothing(self.smoothing)

    def critic(self, real: Tensor, made: Tensor) -> Tensor:
        """Return the squared distances of logits from 1 − smoothing and from 0."""
        return (real - 1 + self.smoothing).square().mean() + made.square().mean()

    def generator(self, made: Tensor) -> Tensor:
        """Return the squared distance of logits from 1."""
        return (made - 1).square().mean()


def _check_smoothing(smoothing: float) -> None:
    if not 0 <= smoothing < 0.5:
        raise ConfigError("Labels are smoothed by less than a half.", expected="0 ≤ smoothing < 0.5", got=smoothing)


class Game(nn.Module):
    """A critic with its own embedding of the conditions, and the losses of both players.

    The critic sees layouts standardised channel by channel. Otherwise it would ignore rare channels like cycle tracks.

    Parameters
    ----------
    spec
        Layouts and conditions.
    critic
        Makes the critic from `in_channels` and `embedding`.
    objective
        The losses of the players.
    r1
        Weight γ of the gradient penalty γ/2 · ‖∇D‖² (Mescheder et al. 2018), for each verdict of the critic at real,
        standardised layouts. It is computed on a quarter of each batch.
    obedience
        Weight, for the generator, of the squared distance between what its layouts measure and what was asked for, in
        standard deviations over the training windows. The measures are differentiable, so the critic does not have to
        learn them.
    embedding
        Size of the critic's embedding of the conditions.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        spec: LayoutSpec,
        *,
        critic: Callable[..., nn.Module],
        objective: GanLoss,
        r1: float,
        obedience: float,
        embedding: int,
    ) -> None:
        super().__init__()
        if r1 < 0 or obedience < 0:
            raise ConfigError("Weights are not negative.", got=f"r1={r1}, obedience={obedience}")
        self.spec = spec
        self.objective, self.r1, self.obedience = objective, r1, obedience
        self.conditioner = ConditionEmbedding(spec, embedding)
        self.planes = ConditionPlanes(spec)
        self.critic = critic(in_channels=len(spec.channels) + self.planes.channels, embedding=embedding)
        self.register_buffer("shift", torch.full((len(spec.channels), 1, 1), 0.5))
        self.register_buffer("scale", torch.full((len(spec.channels), 1, 1), 0.5))

    @torch.no_grad()
    def measure_data(self, layouts: Tensor) -> None:
        """Measure shift and scale of each channel on training layouts `(N, C, H, W)`."""
        self.shift.copy_(layouts.mean((0, 2, 3))[:, None, None])
        self.scale.copy_(layouts.std((0, 2, 3))[:, None, None].clamp_min(0.05))

    def judge(self, seen: Tensor, conditions: Conditions) -> Tensor:
        """Return the logits of standardised layouts `(B, C, H, W)`: larger for more real and more obedient ones."""
        return self.critic(torch.cat([seen, self.planes(conditions, seen.shape[-1])], 1), self.conditioner(conditions))

    def forward(self, layout: Tensor, conditions: Conditions) -> Tensor:
        """Return the logits of layouts `(B, C, H, W)`."""
        return self.judge((layout - self.shift) / self.scale, conditions)

    def compute_losses(self, real: Tensor, made: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the losses of both players for real and generated layouts `(B, C, H, W)` under the same conditions."""
        still = {name: weight.detach() for name, weight in self.named_parameters()}
        generator = self.objective.generator(functional_call(self, still, (made, conditions)))
        critic = self.objective.critic(self(real, conditions), self(made.detach(), conditions))
        losses = {"loss": generator + critic, "generator": generator, "critic": critic}
        if self.r1 and self.training:
            part = slice(0, max(1, len(real) // 4))
            losses["r1"] = self.r1 / 2 * self._measure_gradient(real[part], conditions[part])
            losses["loss"] = losses["loss"] + losses["r1"]
        if self.obedience:
            losses["disobedience"] = self.measure_disobedience(made, conditions)
            losses["loss"] = losses["loss"] + self.obedience * losses["disobedience"]
        return losses

    def _measure_gradient(self, real: Tensor, conditions: Conditions) -> Tensor:
        """Return the mean squared length of the gradient of a verdict at real layouts, in single precision.

        The gradient of the sum of all verdicts is computed once. Its squared length equals the sum of the squared
        lengths of the single gradients if no two verdicts of a layout see the same cells; this is taken as true. (The
        gradient of the mean would get shorter with the number of patches in a layout.)
        """
        with torch.autocast(real.device.type, enabled=False):
            seen = ((real.detach().float() - self.shift) / self.scale).requires_grad_()
            logits = self.judge(seen, conditions)
            (gradient,) = torch.autograd.grad(logits.sum(), seen, create_graph=True)
        return gradient.square().sum() / logits.numel()

    def measure_disobedience(self, made: Tensor, conditions: Conditions) -> Tensor:
        """Return the mean Huber distance of measured from requested scalars; 0 where none is requested."""
        spec = self.spec
        names = list_drawn(spec.scalars)
        if not names:
            return made.new_zeros(())
        spreads = [spec.spread(name) if name in spec.statistics else 1.0 for name in names]
        unit = made.new_tensor([spread or 1.0 for spread in spreads])
        values = measure_conditions(made.float(), spec.channels, spec.resolution_m, names)
        measured = torch.stack([values[name] for name in names], 1)
        columns = [spec.scalars.index(name) for name in names]
        present = conditions.present[:, columns]
        missing = (measured - conditions.scalars[:, columns]) / unit * present
        # Beyond one standard deviation the loss grows linearly, so a layout that is far off does not dominate.
        return F.huber_loss(missing, torch.zeros_like(missing), delta=1.0, reduction="sum") / present.sum().clamp_min(1)
