"""Samplers of models with a code: they draw a code from a prior, and the model decodes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from citygrain.errors import ConfigError
from citygrain.protocols import CodePrior, MixturePrior, Noise
from citygrain.samplers.base import Handle, HandleSampler
from citygrain.spec import Conditions


@dataclass(frozen=True)
class _PriorSampler(HandleSampler[Handle]):
    """The setting that both samplers of a prior share.

    Parameters
    ----------
    temperature
        Factor on the prior's standard deviation: below 1 more typical, above 1 more diverse.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ConfigError("A temperature is not negative.", got=self.temperature)


@dataclass(frozen=True)
class Normal(_PriorSampler[CodePrior]):
    """Draw codes from the model's prior, a normal distribution given the conditions."""

    needs: ClassVar[type] = CodePrior

    def draw(self, model: CodePrior, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw codes `(B, *code_shape)`."""
        mean, spread = model.prior(conditions)
        return mean + self.temperature * spread * noise.normal(*model.code_shape)


@dataclass(frozen=True)
class FittedMixture(_PriorSampler[MixturePrior]):
    """Draw codes, given the conditions, from the mixture that was fitted to the codes of the training windows.

    Parameters
    ----------
    rest
        Factor on the independent noise in all directions of the code that the mixture does not cover; 0 adds none.
    """

    needs: ClassVar[type] = MixturePrior

    rest: float = 1.0

    def draw(self, model: MixturePrior, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw codes `(B, *code_shape)`."""
        mixture = model.mixture(conditions)
        below = noise.uniform(1) < mixture.weights.cumsum(1)
        chosen = below.float().argmax(1)  # the first component whose cumulated weight exceeds the number
        each = torch.arange(len(chosen), device=chosen.device)
        steps = noise.normal(mixture.means.shape[-1])
        moved = torch.einsum("bij,bj->bi", mixture.factors[each, chosen], steps)
        point = mixture.means[each, chosen] + self.temperature * moved
        return model.code_at(point, self.temperature * self.rest * noise.normal(*model.code_shape))
