"""The sampler of normalizing flows: it draws normal noise, and runs the flow backwards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from citygrain.errors import ConfigError
from citygrain.protocols import Invertible, InvertsLayouts, Noise, require
from citygrain.samplers.base import HandleSampler
from citygrain.samplers.feedback import move_to_request
from citygrain.spec import Conditions, LayoutSpec

UNKNOWN = 1e3
"""A noise level so high that `move_to_request` works with the variance of the base distribution, which is 1."""


@dataclass(frozen=True)
class Base(HandleSampler[Invertible]):
    """Draw noise from the flow's base distribution, and bring it through the flow.

    Parameters
    ----------
    temperature
        Factor on the noise: below 1 more typical, above 1 more diverse; 0 is the middle of the base distribution.
    tolerance
        Error that a request may have, in standard deviations of the condition over the training windows. The noise is
        moved, as little as possible, until its layout measures what is asked for (see
        `citygrain.samplers.feedback.move_to_request`). Infinity leaves the request to the flow alone, and is faster.
    rounds
        Number of these moves. One is not enough, because layouts are not a linear function of the noise.
    """

    needs: ClassVar[type] = Invertible

    temperature: float = 1.0
    tolerance: float = math.inf
    rounds: int = 4

    def __post_init__(self) -> None:
        if not self.temperature >= 0 or not self.tolerance > 0 or self.rounds < 1:
            raise ConfigError(
                "These sampler settings cannot work.",
                expected="temperature ≥ 0, tolerance > 0, rounds ≥ 1",
                got=f"temperature={self.temperature}, tolerance={self.tolerance}, rounds={self.rounds}",
            )

    def draw(self, model: Invertible, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw clean `(B, *latent_shape)`."""
        z = self.temperature * noise.normal(*model.latent_shape)
        if self.tolerance < math.inf:
            seen = _NoiseAsLayouts(
                require(model, InvertsLayouts, "A finite tolerance", ["normalizing_flow"]), conditions
            )
            for _ in range(self.rounds):
                z = move_to_request(seen, z, UNKNOWN, conditions, self.tolerance)
        return model.inverse(z, conditions)


@dataclass(frozen=True)
class _NoiseAsLayouts:
    """A flow as `move_to_request` takes it: its clean tensors are noise, which is seen as the layouts of the noise."""

    model: InvertsLayouts
    conditions: Conditions

    @property
    def spec(self) -> LayoutSpec:
        return self.model.spec

    def to_layout(self, z: Tensor) -> Tensor:
        conditions = self.conditions.repeat(1)  # a copy: tensors of inference mode take no part in gradients
        return self.model.to_layout(self.model.inverse(z, conditions))
