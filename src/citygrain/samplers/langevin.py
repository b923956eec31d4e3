"""The sampler of energy-based models: a walk over noisy tensors that ends with a jump to a clean one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from citygrain.errors import ConfigError
from citygrain.protocols import EnergyModel, Known, Noise, ReadsLayouts, require
from citygrain.samplers.base import HandleSampler
from citygrain.samplers.diffusion import corrected
from citygrain.spec import Conditions


@dataclass(frozen=True)
class Langevin(HandleSampler[EnergyModel]):
    """Unadjusted Langevin dynamics over noisy tensors, then the clean tensor that is expected where they end.

    The energy is that of clean tensors with noise of standard deviation σ in them, so that x − σ² ∇E(x) is what the
    clean tensor is expected to be (walk–jump sampling, Saremi & Hyvärinen 2019). A step goes some of the way there and
    shakes: x ← x − η σ² ∇E(x) + σ √(2 η T) ε. Chains settle at exp(−E / T) but for an error that grows with η: of a
    normal distribution of variance v they make one of variance T v / (1 − η σ² / 2v).

    Parameters
    ----------
    steps
        Length of the walk.
    step
        η, the share of the way to the expected clean tensor that each step goes.
    temperature
        T: below 1 more typical, above 1 more diverse; 0 rolls downhill.
    guidance
        Weight w of the energy E(absent) + w · (E(asked) − E(absent)): 1 follows the conditions as learned, more
        exaggerates them at the cost of diversity.
    tolerance
        Error that a request is taken to have, in standard deviations of the condition over the training windows: at
        every step the expected layout is measured and moved towards the request, see
        `citygrain.samplers.diffusion.observed`. Infinite trusts the energy alone, and is faster.
    """

    needs: ClassVar[type] = EnergyModel

    steps: int = 60
    step: float = 0.5
    temperature: float = 1.0
    guidance: float = 1.0
    tolerance: float = math.inf

    def __post_init__(self) -> None:
        if self.steps < 0 or not 0 < self.step <= 1 or not self.temperature >= 0 or not self.tolerance > 0:
            raise ConfigError(
                "These sampler settings cannot work.",
                expected="steps ≥ 0, 0 < step ≤ 1, temperature ≥ 0, tolerance > 0",
                got=f"steps={self.steps}, step={self.step}, temperature={self.temperature}, tolerance={self.tolerance}",
            )

    def draw(self, model: EnergyModel, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw clean `(B, *latent_shape)`, from standard normal beginnings."""
        return self._draw(model, conditions, noise, None)

    def complete(self, model: EnergyModel, known: Known, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw clean `(B, *latent_shape)` that are what is known where they stand for nothing else."""
        require(model, ReadsLayouts, "Keeping parts of a layout", ["energy_based"])
        return self._draw(model, conditions, noise, known)

    def _draw(self, model: EnergyModel, conditions: Conditions, noise: Noise, known: Known | None) -> Tensor:
        shape = model.latent_shape
        x = self.walk(model, noise.normal(*shape), conditions, lambda: noise.normal(*shape), known)
        return self.jump(model, x, conditions, known)

    def walk(
        self,
        model: EnergyModel,
        x: Tensor,
        conditions: Conditions,
        normal: Callable[[], Tensor],
        known: Known | None = None,
    ) -> Tensor:
        """Move noisy `(B, *latent_shape)` by all steps; `normal` draws standard normal numbers of that shape."""
        shake = model.smoothing * math.sqrt(2 * self.step * self.temperature)
        for _ in range(self.steps):
            x = torch.lerp(x, self.jump(model, x, conditions, known), self.step) + shake * normal()
        return x

    def jump(self, model: EnergyModel, x: Tensor, conditions: Conditions, known: Known | None = None) -> Tensor:
        """Clean `(B, *latent_shape)` that are expected behind noisy ones."""
        clean = x - model.smoothing**2 * slope(model, x, conditions, self.guidance)
        return corrected(model, clean, model.smoothing, conditions, self.tolerance, known)


def slope(model: EnergyModel, x: Tensor, conditions: Conditions, weight: float = 1.0, *, train: bool = False) -> Tensor:
    """Gradient in `x` of E(absent) + w · (E(asked) − E(absent)), whatever is switched off outside.

    Parameters
    ----------
    model, x, conditions, weight
        E, `(B, *latent_shape)`, what is asked, and w.
    train
        Whether the gradient is itself to be differentiated.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = x.clone().requires_grad_()
        asked = conditions.repeat(1)  # a copy: what comes out of inference mode cannot be saved for the way back
        energy = model.energy(x, asked) if weight else model.energy(x, asked.absent())
        if weight not in {0, 1}:
            energy = torch.lerp(model.energy(x, asked.absent()), energy, weight)
        return torch.autograd.grad(energy.sum(), x, create_graph=train)[0]
