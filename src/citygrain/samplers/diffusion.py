"""Samplers of diffusion models: they follow the probability flow through noise levels that fall to zero.

Each sampler is a frozen dataclass that holds its settings. It integrates dx/dσ = (x − D(x, σ)) / σ (Karras et al. 2022,
eq. 1 and 4) from σ_max to 0, where D is the model's `denoise`. The samplers differ in the order of their error (Euler
1, Heun and DPM-Solver 2) and in the number of evaluations of D per step (Heun 2, the others 1). `Ancestral` also adds
noise on the way. Models of flow matching use the same samplers: x = xₜ / (1 − t) at σ = t / (1 − t) follows the same
equation.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from citygrain.errors import ConfigError
from citygrain.protocols import Denoiser, DenoisesLayouts, Known, Noise, ReadsLayouts, require
from citygrain.samplers.base import DIFFUSION, HandleSampler
from citygrain.samplers.feedback import move_to_maps, move_to_request
from citygrain.spec import Conditions

Clean = Callable[[Tensor, float], Tensor]
"""Estimates the clean data: D(x, σ), after guidance and after the move towards the request."""

KEEPING = "Keeping parts of a layout"

ROUNDS = 4
"""How often each step is repeated when a part of the layout is known."""

PULL = 0.5
"""Factor on the pull of the known part on the rest of the layout, see `denoise_with_known`.

Measured on correlated normal data of which one half is known: with this factor and `ROUNDS`, means are within 0.1
standard deviations of the truth, and the covariance within 0.04. Without the pull, these figures are 0.35 and 0.1; with
a factor of 1 and one round, they are 1.1 and 0.03."""


@dataclass(frozen=True)
class DiffusionSampler(HandleSampler[Denoiser]):
    """Settings that all samplers of diffusion models share.

    Parameters
    ----------
    steps
        Number of noise levels above zero.
    guidance
        Weight w of classifier-free guidance (Ho & Salimans 2022), D = D(absent) + w · (D(asked) − D(absent)). 1 follows
        the conditions as learned; a larger number exaggerates them and costs diversity; 0 ignores them.
    tolerance
        Error that a request may have, in standard deviations of the condition over the training windows. The smaller
        it is, the harder the pull towards the request: at every noise level, the estimated layout is measured and
        moved (see `citygrain.samplers.feedback`). Infinity leaves the request to the network alone, and is faster.
    slack
        Variance that is added to that of an estimate before it is moved towards a request, in units of standardised
        data, whose variance is 1. Without slack, the move is exact if the denoiser is exact. A real denoiser with few
        steps ends beside the request, because in the last steps there is no noise left that could correct it
        (`benchmarks/README.md` has figures). A model that tells the variance of its estimates (`TellsVariance`) needs
        no slack.
    sigma_min, sigma_max
        Smallest and largest noise level, in units of the standardised data.
    rho
        Bends the levels towards small noise (Karras et al. 2022, eq. 5); 7 is theirs.
    """

    needs: ClassVar[type] = Denoiser

    steps: int = 24
    guidance: float = 1.0
    tolerance: float = math.inf
    slack: float = 0.0
    sigma_min: float = 0.005
    sigma_max: float = 40.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        levels = self.steps >= 1 and 0 < self.sigma_min < self.sigma_max and self.rho > 0
        if not levels or not self.tolerance > 0 or not self.slack >= 0:
            raise ConfigError(
                "These sampler settings cannot work.",
                expected="steps ≥ 1, 0 < sigma_min < sigma_max, rho > 0, tolerance > 0, slack ≥ 0",
                got=f"steps={self.steps}, sigma_min={self.sigma_min}, sigma_max={self.sigma_max}, rho={self.rho}, "
                f"tolerance={self.tolerance}, slack={self.slack}",
            )

    def sigmas(self) -> Tensor:
        """Noise levels `(steps + 1,)`, falling to exactly 0."""
        ramp = torch.linspace(0, 1, self.steps, dtype=torch.float64)
        high, low = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        levels = (high + ramp * (low - high)) ** self.rho
        return torch.cat([levels, levels.new_zeros(1)])

    def draw(self, model: Denoiser, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw `(B, *latent_shape)`."""
        sigmas = self.sigmas().tolist()
        start = noise.normal(*model.latent_shape) * sigmas[0]
        return self.walk(partial(self.estimate, model, conditions), start, sigmas, noise)

    def complete(self, model: Denoiser, known: Known, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw `(B, *latent_shape)` around the known parts: elements that stand for known cells only are kept.

        See `denoise_with_known`.
        """
        readable = require(model, ReadsLayouts, KEEPING, DIFFUSION)
        sigmas = self.sigmas().tolist()
        clean = torch.where(readable.settled(known.keep), readable.read(known.layout * known.keep), 0)
        start = clean + noise.normal(*model.latent_shape) * sigmas[0]
        return self.walk_in_rounds(partial(self.estimate, model, conditions, known=known), start, sigmas, noise)

    def walk_in_rounds(self, clean: Clean, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:
        """Walk as `Euler` does, but take each step `ROUNDS` times; noise goes back up between two of them.

        The repetitions bring the drawn part into harmony with the known part (RePaint, Lugmayr et al. 2022). They also
        correct the errors of a step, so steps of a higher order would cost more and gain nothing.
        """
        for high, low in pairwise(sigmas):
            again = x
            for turn in range(ROUNDS if low else 1):
                if turn:
                    again = x + math.sqrt(high**2 - low**2) * noise.normal(*x.shape[1:])
                x = torch.lerp(clean(again, high), again, low / high)
        return x

    def estimate(
        self, model: Denoiser, conditions: Conditions, x: Tensor, sigma: float, known: Known | None = None
    ) -> Tensor:
        """Estimate the clean `(B, …)` behind `x`: guided, and in agreement with the request and the known part."""
        if known is None:
            clean = denoise_guided(model, x, sigma, conditions, self.guidance)
        else:
            readable = require(model, DenoisesLayouts, KEEPING, DIFFUSION)
            clean = denoise_with_known(readable, x, sigma, conditions, self.guidance, known)
        return correct_estimate(model, clean, sigma, conditions, self.tolerance, known, self.slack)

    @abstractmethod
    def walk(self, clean: Clean, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:
        """Bring `x` from the first noise level to the last, which is 0."""


@dataclass(frozen=True)
class Euler(DiffusionSampler):
    """Euler's method (DDIM, Song et al. 2021): one evaluation per step, an error of first order."""

    def walk(self, clean: Clean, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:  # noqa: ARG002
        """Move from each level to the next along the slope at the first of the two."""
        for high, low in pairwise(sigmas):
            x = torch.lerp(clean(x, high), x, low / high)
        return x


@dataclass(frozen=True)
class Heun(DiffusionSampler):
    """Heun's method (Karras et al. 2022, algorithm 1 without churn): two evaluations a step, error of second order."""

    def walk(self, clean: Clean, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:  # noqa: ARG002
        """Move along the mean of two slopes: at this level, and after an Euler step at the next level."""
        for high, low in pairwise(sigmas):
            start = (x - clean(x, high)) / high
            guess = x + (low - high) * start
            x = guess if low == 0 else x + (low - high) * 0.5 * (start + (guess - clean(guess, low)) / low)
        return x


@dataclass(frozen=True)
class DpmSolver(DiffusionSampler):
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): one evaluation per step, error of second order.

    It keeps the estimate of the step before, and follows the line through both estimates in −ln σ.
    """

    def walk(self, clean: Clean, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:  # noqa: ARG002
        """Follow the line through two estimates from level to level. The first and the last step use one estimate."""
        before: tuple[Tensor, float] | None = None
        for high, low in pairwise(sigmas):
            estimate = clean(x, high)
            # No name holds what x is moved towards: over a large area, that would be one copy of it more.
            x = torch.lerp(self._follow(before, estimate, high, low), x, low / high)
            before = estimate, high
        return x

    def _follow(self, before: tuple[Tensor, float] | None, estimate: Tensor, high: float, low: float) -> Tensor:
        """Return where the line through two estimates leads to; the estimate itself if it is the first or the last."""
        if before is None or not low > 0:
            return estimate
        last, higher = before
        ratio = math.log(high / low) / math.log(higher / high)
        return (estimate - last).mul_(0.5 * ratio).add_(estimate)


@dataclass(frozen=True)
class Ancestral(DiffusionSampler):
    """Euler steps that go below the next level, and then add new noise up to it (Song et al. 2021, eq. 16).

    So the first noise alone does not fix the result, as it does for the other samplers.

    Parameters
    ----------
    churn
        Share of the noise that is drawn anew: 1 is the ancestral sampler of DDPM, 0 is `Euler`. New noise removes the
        errors of earlier steps, but needs more steps to converge.
    """

    churn: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.churn <= 1:
            raise ConfigError("A churn is a share.", expected="0 to 1", got=self.churn)

    def walk(self, clean: Clean, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:
        """Go below each level, and back up to it by new noise from each sample's own random stream."""
        for high, low in pairwise(sigmas):
            up = self.churn * low * math.sqrt(1 - (low / high) ** 2)
            down = math.sqrt(low**2 - up**2)
            x = torch.lerp(clean(x, high), x, down / high)
            if up > 0:
                x = x + up * noise.normal(*x.shape[1:])
        return x


def denoise_guided(model: Denoiser, x: Tensor, sigma: float, conditions: Conditions, weight: float) -> Tensor:
    """Denoise `(B, …)` at one noise level, with classifier-free guidance of a weight."""
    level = x.new_full((len(x),), sigma)
    if weight == 1:
        return model.denoise(x, level, conditions)
    if weight == 0:
        return model.denoise(x, level, conditions.absent())
    both = Conditions.cat([conditions, conditions.absent()])
    asked, absent = model.denoise(x.repeat(2, 1, 1, 1), level.repeat(2), both).chunk(2)
    return torch.lerp(absent, asked, weight)


def denoise_with_known(
    model: DenoisesLayouts, x: Tensor, sigma: float, conditions: Conditions, weight: float, known: Known
) -> Tensor:
    """Denoise `(B, …)` at one noise level as `denoise_guided` does, and pull the estimate towards the known part.

    `impose_known` will replace the elements that stand for known cells only. The replacement alone hardly makes the
    rest of the layout fit the known part. So the error v of the estimate on the known part also moves the rest, by
    `PULL` (1 + σ²) Jᵀ v. J is the Jacobian of the denoiser, which has learned what goes together in a layout (ΠGDM,
    Song et al. 2023; Chung et al. 2022 combine both). This costs one backward pass through the network.
    """
    with torch.inference_mode(False), torch.enable_grad():
        noisy = x.clone().requires_grad_()
        clean = denoise_guided(model, noisy, sigma, conditions.repeat(1), weight)
        missed = impose_known(model, clean.detach(), known) - clean.detach()
        (pull,) = torch.autograd.grad(clean, noisy, missed)
    return clean.detach() + PULL * (1 + sigma**2) * pull


def impose_known(model: ReadsLayouts, clean: Tensor, known: Known) -> Tensor:
    """Bring clean `(B, …)` into agreement with the known part of the layouts.

    The tensor is turned into layouts, the known part is copied over them, and the result is read back. The tensor then
    moves by the difference that the copying makes, so that it keeps details that a codec would lose on the way there
    and back. Elements that stand for known cells only become what was read.
    """
    with torch.no_grad():
        seen = model.to_layout(clean)
        read = model.read(torch.where(known.keep, known.layout, seen))
        return torch.where(model.settled(known.keep), read, clean + read - model.read(seen))


def correct_estimate(
    model: object,
    clean: Tensor,
    sigma: float,
    conditions: Conditions,
    tolerance: float,
    known: Known | None,
    slack: float = 0.0,
) -> Tensor:
    """Move estimates `(B, …)` of the clean data to the request with a tolerance, and impose the known part."""
    if tolerance < math.inf:
        clean = move_to_maps(model, clean, sigma, conditions, tolerance, known, slack)
        clean = move_to_request(model, clean, sigma, conditions, tolerance, known, slack)
    if known is None:
        return clean
    return impose_known(require(model, ReadsLayouts, KEEPING, DIFFUSION), clean, known)
