"""Samplers of models with a code: draw a code from a prior, decode it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from citygrain.errors import ConfigError
from citygrain.protocols import CodePrior, Noise, require
from citygrain.spec import Conditions


@dataclass(frozen=True)
class Normal:
    """Draw codes from the model's normal prior given the conditions.

    Parameters
    ----------
    temperature
        Factor on the prior's standard deviation: below 1 more typical, above 1 more diverse.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ConfigError("A temperature is not negative.", got=self.temperature)

    def __call__(self, model: CodePrior, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw codes `(B, *code_shape)`."""
        require(model, CodePrior, type(self).__name__, ["Heun", "Euler"])
        mean, spread = model.prior(conditions)
        return mean + self.temperature * spread * noise.normal(*model.code_shape)
