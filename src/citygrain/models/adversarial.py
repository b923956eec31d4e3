"""What generative adversarial networks share: the game, as one loss for both players.

Each player's loss reaches its own weights only: the generator is judged by a critic whose weights are held still, the
critic sees layouts that are cut off from the generator. So one backward pass of their sum gives both gradients, both
players move at once (Mescheder et al. 2018 show that this settles, given the gradient penalty), and the game trains
like everything else here: any optimiser, clipping, accumulation, several processes.
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
from citygrain.measures import measure_unchecked
from citygrain.networks.conditioner import ConditionEmbedding, ConditionPlanes
from citygrain.spec import Conditions, LayoutSpec


class GanLoss(Protocol):
    """What the players of a game lose."""

    def critic(self, real: Tensor, made: Tensor) -> Tensor:
        """Loss of a critic that gave these logits to real and made layouts."""
        ...

    def generator(self, made: Tensor) -> Tensor:
        """Loss of a generator whose layouts were given these logits."""
        ...


@dataclass(frozen=True)
class NonSaturating:
    """Cross-entropy for the critic; the generator wants to be taken for real (Goodfellow et al. 2014).

    Parameters
    ----------
    smoothing
        The critic is to be sure of real layouts only to 1 − smoothing (one-sided, Salimans et al. 2016).
    """

    smoothing: float = 0.0

    def __post_init__(self) -> None:
        _check_smoothing(self.smoothing)

    def critic(self, real: Tensor, made: Tensor) -> Tensor:
        """Cross-entropy of logits of real and made layouts."""
        sure = F.softplus(-real) * (1 - self.smoothing) + F.softplus(real) * self.smoothing
        return sure.mean() + F.softplus(made).mean()

    def generator(self, made: Tensor) -> Tensor:
        """Cross-entropy of made layouts with being real."""
        return F.softplus(-made).mean()


@dataclass(frozen=True)
class Hinge:
    """Margins for the critic, the plain logit for the generator (Lim & Ye 2017)."""

    def critic(self, real: Tensor, made: Tensor) -> Tensor:
        """How far logits fall short of margins of 1 either way."""
        return F.relu(1 - real).mean() + F.relu(1 + made).mean()

    def generator(self, made: Tensor) -> Tensor:
        """Negative logit."""
        return -made.mean()


@dataclass(frozen=True)
class LeastSquares:
    """Squared distance from 1 for real and 0 for made (Mao et al. 2017).

    Parameters
    ----------
    smoothing
        The critic is to give real layouts 1 − smoothing.
    """

    smoothing: float = 0.0

    def __post_init__(self) -> None:
        _check_smoothing(self.smoothing)

    def critic(self, real: Tensor, made: Tensor) -> Tensor:
        """Squared distances of logits from 1 − smoothing and 0."""
        return (real - 1 + self.smoothing).square().mean() + made.square().mean()

    def generator(self, made: Tensor) -> Tensor:
        """Squared distance of logits from 1."""
        return (made - 1).square().mean()


def _check_smoothing(smoothing: float) -> None:
    if not 0 <= smoothing < 0.5:
        raise ConfigError("Labels are smoothed by less than a half.", expected="0 ≤ smoothing < 0.5", got=smoothing)


class Game(nn.Module):
    """A critic with its own view of the conditions, and the losses of both players.

    The critic sees layouts standardised channel by channel: otherwise it would not look at cycle tracks.

    Parameters
    ----------
    spec
        Layouts and conditions.
    critic
        Makes the critic from `in_channels` and `embedding`.
    objective
        What the players lose.
    r1
        Weight γ of the penalty on the gradient of each of the critic's verdicts at real, standardised layouts,
        γ/2 · ‖∇D‖² (Mescheder et al. 2018), on a quarter of each batch.
    obedience
        Weight, for the generator, of the squared distance between what its layouts measure and what was asked for, in
        standard deviations over the training windows. The measures are differentiable, so that the critic need not
        find out about them.
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
        """Set how channels are standardised from training layouts `(N, C, H, W)`."""
        self.shift.copy_(layouts.mean((0, 2, 3))[:, None, None])
        self.scale.copy_(layouts.std((0, 2, 3))[:, None, None].clamp_min(0.05))

    def judge(self, seen: Tensor, conditions: Conditions) -> Tensor:
        """Logits of standardised layouts `(B, C, H, W)`: the larger, the more real and the more as asked for."""
        return self.critic(torch.cat([seen, self.planes(conditions, seen.shape[-1])], 1), self.conditioner(conditions))

    def forward(self, layout: Tensor, conditions: Conditions) -> Tensor:
        """Logits of layouts `(B, C, H, W)`."""
        return self.judge((layout - self.shift) / self.scale, conditions)

    def losses(self, real: Tensor, made: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Losses of both players, for real layouts and made ones `(B, C, H, W)` under the same conditions."""
        still = {name: weight.detach() for name, weight in self.named_parameters()}
        generator = self.objective.generator(functional_call(self, still, (made, conditions)))
        critic = self.objective.critic(self(real, conditions), self(made.detach(), conditions))
        losses = {"loss": generator + critic, "generator": generator, "critic": critic}
        if self.r1 and self.training:
            part = slice(0, max(1, len(real) // 4))
            losses["r1"] = self.r1 / 2 * self._gradient(real[part], conditions[part])
            losses["loss"] = losses["loss"] + losses["r1"]
        if self.obedience:
            losses["disobedience"] = self.disobedience(made, conditions)
            losses["loss"] = losses["loss"] + self.obedience * losses["disobedience"]
        return losses

    def _gradient(self, real: Tensor, conditions: Conditions) -> Tensor:
        """Mean squared length of the gradient of each of the critic's verdicts at real layouts, in single precision.

        The gradient of their sum is taken once; as if no two verdicts of a layout saw the same cells, its squared
        length is the sum of theirs. The gradient of their mean would get shorter, the more patches a layout has.
        """
        with torch.autocast(real.device.type, enabled=False):
            seen = ((real.detach().float() - self.shift) / self.scale).requires_grad_()
            logits = self.judge(seen, conditions)
            (gradient,) = torch.autograd.grad(logits.sum(), seen, create_graph=True)
        return gradient.square().sum() / logits.numel()

    def disobedience(self, made: Tensor, conditions: Conditions) -> Tensor:
        """Mean squared distance between measured and asked, over what is asked for; 0 where nothing is."""
        spec = self.spec
        if not spec.scalars:
            return made.new_zeros(())
        spreads = [spec.spread(name) if name in spec.statistics else 1.0 for name in spec.scalars]
        unit = made.new_tensor([spread or 1.0 for spread in spreads])
        values = measure_unchecked(made.float(), spec.channels, spec.resolution_m, spec.scalars)
        measured = torch.stack([values[name] for name in spec.scalars], 1)
        missing = (measured - conditions.scalars) / unit * conditions.present
        # A layout that is far off pulls no harder than one that is a few standard deviations off.
        return F.huber_loss(
            missing, torch.zeros_like(missing), delta=1.0, reduction="sum"
        ) / conditions.present.sum().clamp_min(1)
