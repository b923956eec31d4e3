"""Samplers of diffusion models: noise levels falling to zero, and the probability flow between them.

Each is a frozen value that holds its knobs and integrates dx/dσ = (x − D(x, σ)) / σ (Karras et al. 2022, eq. 1 and 4)
from σ_max to 0, where D is the model's `denoise`. They differ in the order of their error: Euler 1, Heun 2.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from citygrain.errors import ConfigError
from citygrain.protocols import Denoiser, Noise, require
from citygrain.spec import Conditions


@dataclass(frozen=True)
class _ProbabilityFlow(ABC):
    """Knobs shared by the samplers of the probability flow.

    Parameters
    ----------
    steps
        Number of noise levels above zero.
    guidance
        Weight w of classifier-free guidance (Ho & Salimans 2022), D = D(absent) + w · (D(asked) − D(absent)): 1 follows
        the conditions as learned, more exaggerates them at the cost of diversity, 0 ignores them.
    sigma_min, sigma_max
        Smallest and largest noise level, in units of the standardised data.
    rho
        Bends the levels towards small noise (Karras et al. 2022, eq. 5); 7 is theirs.
    """

    steps: int = 24
    guidance: float = 1.0
    sigma_min: float = 0.005
    sigma_max: float = 40.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.sigma_min < self.sigma_max or self.rho <= 0:
            raise ConfigError(
                "These sampler settings cannot work.",
                expected="steps ≥ 1, 0 < sigma_min < sigma_max, rho > 0",
                got=f"steps={self.steps}, sigma_min={self.sigma_min}, sigma_max={self.sigma_max}, rho={self.rho}",
            )

    def sigmas(self) -> Tensor:
        """Noise levels `(steps + 1,)`, falling to exactly 0."""
        ramp = torch.linspace(0, 1, self.steps, dtype=torch.float64)
        high, low = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        levels = (high + ramp * (low - high)) ** self.rho
        return torch.cat([levels, levels.new_zeros(1)])

    def __call__(self, model: Denoiser, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw `(B, *latent_shape)`; all randomness is the starting noise."""
        require(model, Denoiser, type(self).__name__, ["Normal"])
        sigmas = self.sigmas().tolist()
        x = noise.normal(*model.latent_shape) * sigmas[0]
        for high, low in pairwise(sigmas):
            x = self.step(model, x, high, low, conditions)
        return x

    @abstractmethod
    def step(self, model: Denoiser, x: Tensor, high: float, low: float, conditions: Conditions) -> Tensor:
        """Move `x` from noise level `high` to `low`."""

    def slope(self, model: Denoiser, x: Tensor, sigma: float, conditions: Conditions) -> Tensor:
        """dx/dσ under guidance."""
        return (x - guided(model, x, sigma, conditions, self.guidance)) / sigma


@dataclass(frozen=True)
class Euler(_ProbabilityFlow):
    """Euler's method: one evaluation a step, error of first order."""

    def step(self, model: Denoiser, x: Tensor, high: float, low: float, conditions: Conditions) -> Tensor:
        """Move `x` along the slope at `high`."""
        return x + (low - high) * self.slope(model, x, high, conditions)


@dataclass(frozen=True)
class Heun(_ProbabilityFlow):
    """Heun's method (Karras et al. 2022, algorithm 1 without churn): two evaluations a step, error of second order."""

    def step(self, model: Denoiser, x: Tensor, high: float, low: float, conditions: Conditions) -> Tensor:
        """Move `x` along the mean of the slopes at `high` and, after an Euler step, at `low`."""
        start = self.slope(model, x, high, conditions)
        guess = x + (low - high) * start
        if low == 0:
            return guess
        return x + (low - high) * 0.5 * (start + self.slope(model, guess, low, conditions))


def guided(model: Denoiser, x: Tensor, sigma: float, conditions: Conditions, weight: float) -> Tensor:
    """Denoise `(B, …)` at one noise level under classifier-free guidance; both halves run as one batch."""
    level = x.new_full((len(x),), sigma)
    if weight == 1:
        return model.denoise(x, level, conditions)
    if weight == 0:
        return model.denoise(x, level, conditions.absent())
    both = Conditions.cat([conditions, conditions.absent()])
    asked, absent = model.denoise(x.repeat(2, 1, 1, 1), level.repeat(2), both).chunk(2)
    return torch.lerp(absent, asked, weight)
