"""The sampler of energy-based models: a walk over noisy tensors, then a jump to a clean one."""

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
from citygrain.samplers.diffusion import correct_estimate
from citygrain.spec import Conditions


@dataclass(frozen=True)
class Langevin(HandleSampler[EnergyModel]):
    """Unadjusted Langevin dynamics over noisy tensors, then a jump to the clean tensor that is expected behind them.

    The energy E is that of clean tensors plus noise of standard deviation σ. So the clean tensor that is expected
    behind x is x − σ² ∇E(x) (walk–jump sampling, Saremi & Hyvärinen 2019). Each step goes a part of the way to it, and
    adds noise: x ← x − η σ² ∇E(x) + σ √(2 η T) ε. The chains converge to exp(−E / T), up to an error that grows with η:
    a normal distribution of variance v comes out with the variance T v / (1 − η σ² / 2v).

    Parameters
    ----------
    steps
        Number of steps of the walk.
    step
        η, the part of the way to the expected clean tensor that each step goes.
    temperature
        T: below 1 more typical, above 1 more diverse; 0 only goes downhill.
    guidance
        Weight w in the energy E(absent) + w · (E(asked) − E(absent)). 1 follows the conditions as learned; a larger
        number exaggerates them and costs diversity.
    tolerance
        Error that a request may have, in standard deviations of the condition over the training windows. At every step
        the expected layout is measured and moved towards the request, see
        `citygrain.samplers.feedback.move_to_request`. Infinity leaves the request to the energy alone, and is faster.
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
        """Draw clean `(B, *latent_shape)`. The walk begins with standard normal noise."""
        return self._draw(model, conditions, noise, None)

    def complete(self, model: EnergyModel, known: Known, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw clean `(B, *latent_shape)` around the known parts: elements that stand for known cells only are kept."""
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
        """Move noisy `(B, *latent_shape)` by all steps. `normal` draws standard normal numbers of this shape."""
        shake = model.smoothing * math.sqrt(2 * self.step * self.temperature)
        for _ in range(self.steps):
            x = torch.lerp(x, self.jump(model, x, conditions, known), self.step) + shake * normal()
        return x

    def jump(self, model: EnergyModel, x: Tensor, conditions: Conditions, known: Known | None = None) -> Tensor:
        """Return the clean `(B, *latent_shape)` that are expected behind noisy ones."""
        clean = x - model.smoothing**2 * compute_energy_gradient(model, x, conditions, self.guidance)
        return correct_estimate(model, clean, model.smoothing, conditions, self.tolerance, known)


def compute_energy_gradient(
    model: EnergyModel, x: Tensor, conditions: Conditions, weight: float = 1.0, *, train: bool = False
) -> Tensor:
    """Return the gradient of E(absent) + w · (E(asked) − E(absent)) in `x`, also where gradients are switched off.

    Parameters
    ----------
    model
        Has the energy E.
    x
        Noisy `(B, *latent_shape)`.
    conditions
        What is asked for.
    weight
        w.
    train
        Whether the result can be differentiated again.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = x.clone().requires_grad_()
        asked = conditions.repeat(1)  # a copy: tensors of inference mode cannot be saved for the backward pass
        energy = model.energy(x, asked) if weight else model.energy(x, asked.absent())
        if weight not in {0, 1}:
            energy = torch.lerp(model.energy(x, asked.absent()), energy, weight)
        return torch.autograd.grad(energy.sum(), x, create_graph=train)[0]
