"""The sampler of models that turn noise into layouts in a single pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from citygrain.errors import ConfigError
from citygrain.protocols import ImplicitGenerator, Noise
from citygrain.samplers.base import HandleSampler
from citygrain.spec import Conditions


@dataclass(frozen=True)
class Truncated(HandleSampler[ImplicitGenerator]):
    """Draw layouts from noise, with the truncation trick if wanted (Brock et al. 2019).

    Parameters
    ----------
    truncation
        Factor on the distance from the middle of the distribution: 1 draws as in training; a smaller number gives more
        typical and less diverse layouts.
    """

    needs: ClassVar[type] = ImplicitGenerator

    truncation: float = 1.0

    def __post_init__(self) -> None:
        if self.truncation < 0:
            raise ConfigError("A truncation is not negative.", got=self.truncation)

    def draw(self, model: ImplicitGenerator, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw layouts `(B, C, H, W)`."""
        return model.generate(conditions, noise, self.truncation)
