"""The sampler of normalizing flows: normal noise, and the flow backwards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from citygrain.errors import ConfigError
from citygrain.protocols import Invertible, InvertsLayouts, Noise, require
from citygrain.samplers.base import HandleSampler
from citygrain.samplers.diffusion import observed
from citygrain.spec import Conditions, LayoutSpec

UNKNOWN = 1e3
"""Noise that tells nothing: what is left to `observed` is that the base distribution has unit variance."""


@dataclass(frozen=True)
class Base(HandleSampler[Invertible]):
    """Draw from the flow's base distribution, and bring what is drawn through the flow.

    Parameters
    ----------
    temperature
        Factor on the noise: below 1 more typical, above 1 more diverse; 0 is the middle of the base distribution.
    tolerance
        Error that a request is taken to have, in standard deviations of the condition over the training windows: the
        noise is moved to where the layout that becomes of it measures what is asked for, by the smallest steps that do
        it (see `citygrain.samplers.diffusion.observed`). Infinite trusts the flow alone, and is faster.
    rounds
        Such steps; layouts are no linear function of the noise, so that one is not enough.
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
            seen = _Seen(require(model, InvertsLayouts, "A finite tolerance", ["normalizing_flow"]), conditions)
            for _ in range(self.rounds):
                z = observed(seen, z, UNKNOWN, conditions, self.tolerance)
        return model.inverse(z, conditions)


@dataclass(frozen=True)
class _Seen:
    """A flow whose noise is seen as the layouts that become of it."""

    model: InvertsLayouts
    conditions: Conditions

    @property
    def spec(self) -> LayoutSpec:
        return self.model.spec

    def to_layout(self, z: Tensor) -> Tensor:
        conditions = self.conditions.repeat(1)  # a copy: what comes out of inference mode is no use to gradients
        return self.model.to_layout(self.model.inverse(z, conditions))
