"""Samplers of diffusion models: noise levels falling to zero, and the probability flow between them.

Each is a frozen value that holds its knobs and integrates dx/dσ = (x − D(x, σ)) / σ (Karras et al. 2022, eq. 1 and 4)
from σ_max to 0, where D is the model's `denoise`. They differ in the order of their error (Euler 1, Heun and DPM-Solver
2) and in the evaluations of D a step (Heun 2, the others 1); `Ancestral` adds noise on the way. Models of flow matching
are walked the same way: x = xₜ / (1 − t) at σ = t / (1 − t) follows this very equation.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from citygrain.errors import ConfigError
from citygrain.measures import measure_unchecked
from citygrain.protocols import (
    Denoiser,
    DenoisesLayouts,
    Known,
    Noise,
    ReadsLayouts,
    ShowsLayouts,
    TellsVariance,
    require,
)
from citygrain.samplers.base import HandleSampler
from citygrain.spec import Conditions

Clean = Callable[[Tensor, float], Tensor]
"""The estimate D(x, σ) of the clean data, with guidance and observation in it."""

KEEPING = "Keeping parts of a layout"

DIFFUSION = ("diffusion", "cell_diffusion")
"""Families that denoise."""

ROUNDS = 4
"""How often each step is gone beside something known."""

PULL = 0.5
"""Share of what an estimate misses of what is known that moves the rest. Of correlated normal data that are half known
it brings, with the rounds, means to a tenth of a standard deviation of the truth and the covariance to 0.04; without
this pull 0.35 and 0.1, with all of it and one round 1.1 and 0.03."""


@dataclass(frozen=True)
class DiffusionSampler(HandleSampler[Denoiser]):
    """Knobs shared by the samplers of diffusion models.

    Parameters
    ----------
    steps
        Number of noise levels above zero.
    guidance
        Weight w of classifier-free guidance (Ho & Salimans 2022), D = D(absent) + w · (D(asked) − D(absent)): 1 follows
        the conditions as learned, more exaggerates them at the cost of diversity, 0 keeps them from the network.
    tolerance
        Error that a request is taken to have, in standard deviations of the condition over the training windows: the
        smaller, the harder the pull. At every noise level the estimated layout is measured and moved towards the
        request (see `observed`). Infinite trusts the network alone, and is faster.
    slack
        Variance that an estimate has at least when it is moved towards a request, of standardised data whose variance
        is 1. At 0 it is what the noise leaves open: exact where the denoiser is, but few steps of a real one end beside
        the request, when no noise is left to mend it with (`benchmarks/README.md` has figures). A model that tells the
        variance itself needs none.
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
        """Draw `(B, *latent_shape)` that is what is known where it stands for nothing else.

        See `completed`.
        """
        readable = require(model, ReadsLayouts, KEEPING, DIFFUSION)
        sigmas = self.sigmas().tolist()
        clean = torch.where(readable.settled(known.keep), readable.read(known.layout * known.keep), 0)
        start = clean + noise.normal(*model.latent_shape) * sigmas[0]
        return self.rounds(partial(self.estimate, model, conditions, known=known), start, sigmas, noise)

    def rounds(self, clean: Clean, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:
        """Walk as Euler does, each step several times, with noise on what came of it in between.

        What is drawn beside something known has to settle with it (Lugmayr et al. 2022). That mends the errors of a
        step as well, so that steps of a higher order would cost more and gain nothing.
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
        """Return the clean `(B, …)` expected behind `x`: guided, and in agreement with requests and what is known."""
        if known is None:
            clean = guided(model, x, sigma, conditions, self.guidance)
        else:
            readable = require(model, DenoisesLayouts, KEEPING, DIFFUSION)
            clean = completed(readable, x, sigma, conditions, self.guidance, known)
        return corrected(model, clean, sigma, conditions, self.tolerance, known, self.slack)

    @abstractmethod
    def walk(self, clean: Clean, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:
        """Bring `x` from the first of the noise levels to the last, which is 0."""


@dataclass(frozen=True)
class Euler(DiffusionSampler):
    """Euler's method (DDIM, Song et al. 2021): one evaluation a step, error of first order."""

    def walk(self, clean: Clean, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:  # noqa: ARG002
        """Move along the slope at each level to the next."""
        for high, low in pairwise(sigmas):
            x = torch.lerp(clean(x, high), x, low / high)
        return x


@dataclass(frozen=True)
class Heun(DiffusionSampler):
    """Heun's method (Karras et al. 2022, algorithm 1 without churn): two evaluations a step, error of second order."""

    def walk(self, clean: Clean, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:  # noqa: ARG002
        """Move along the mean of the slopes at each level and, after an Euler step, at the next."""
        for high, low in pairwise(sigmas):
            start = (x - clean(x, high)) / high
            guess = x + (low - high) * start
            x = guess if low == 0 else x + (low - high) * 0.5 * (start + (guess - clean(guess, low)) / low)
        return x


@dataclass(frozen=True)
class DpmSolver(DiffusionSampler):
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): one evaluation a step, error of second order.

    The estimate of the step before is kept, and the line through both is followed in −ln σ.
    """

    def walk(self, clean: Clean, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:  # noqa: ARG002
        """Follow a line of estimates from level to level; the first and the last step have one estimate to go by."""
        before: tuple[Tensor, float] | None = None
        for high, low in pairwise(sigmas):
            estimate = clean(x, high)
            towards = estimate
            if before is not None and low > 0:
                last, higher = before
                ratio = math.log(high / low) / math.log(higher / high)
                towards = estimate + 0.5 * ratio * (estimate - last)
            x = torch.lerp(towards, x, low / high)
            before = estimate, high
        return x


@dataclass(frozen=True)
class Ancestral(DiffusionSampler):
    """Euler steps that go further down and are noised up again (Song et al. 2021, eq. 16): draws, not a flow.

    Parameters
    ----------
    churn
        Share of the noise that is drawn anew: 1 is the ancestral sampler of DDPM, 0 is Euler. New noise forgets the
        errors of earlier steps, and takes more steps to settle.
    """

    churn: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.churn <= 1:
            raise ConfigError("A churn is a share.", expected="0 to 1", got=self.churn)

    def walk(self, clean: Clean, x: Tensor, sigmas: list[float], noise: Noise) -> Tensor:
        """Go down past each level, and up to it on new noise of every sample's own."""
        for high, low in pairwise(sigmas):
            up = self.churn * low * math.sqrt(1 - (low / high) ** 2)
            down = math.sqrt(low**2 - up**2)
            x = torch.lerp(clean(x, high), x, down / high)
            if up > 0:
                x = x + up * noise.normal(*x.shape[1:])
        return x


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


def completed(
    model: DenoisesLayouts, x: Tensor, sigma: float, conditions: Conditions, weight: float, known: Known
) -> Tensor:
    """Denoise `(B, …)` at one noise level, as `guided` does, with an eye on what is known of the layouts.

    What stands for nothing else will be replaced by what is known. That alone leaves the rest little reason to fit. So
    what the estimate misses of what is known, v, moves the rest by `PULL` (1 + σ²) Jᵀ v, with J the Jacobian of the
    denoiser, which knows what goes with what (Song et al. 2023, ΠGDM; Chung et al. 2022 do both). It costs a pass back
    through the network.
    """
    with torch.inference_mode(False), torch.enable_grad():
        noisy = x.clone().requires_grad_()
        clean = guided(model, noisy, sigma, conditions.repeat(1), weight)
        missed = agreeing(model, clean.detach(), known) - clean.detach()
        (pull,) = torch.autograd.grad(clean, noisy, missed)
    return clean.detach() + PULL * (1 + sigma**2) * pull


def agreeing(model: ReadsLayouts, clean: Tensor, known: Known) -> Tensor:
    """Draw what is known over the layouts that clean `(B, …)` stand for, and read them again.

    The clean tensor is moved by what that changes, so that what the way to layouts and back loses is not lost here;
    where it stands for nothing that is free, it becomes what was read.
    """
    with torch.no_grad():
        seen = model.to_layout(clean)
        read = model.read(torch.where(known.keep, known.layout, seen))
        return torch.where(model.settled(known.keep), read, clean + read - model.read(seen))


def corrected(
    model: object,
    clean: Tensor,
    sigma: float,
    conditions: Conditions,
    tolerance: float,
    known: Known | None,
    slack: float = 0.0,
) -> Tensor:
    """Bring estimates `(B, …)` of the clean data to what is asked for, as far as it must be, and to what is known."""
    if tolerance < math.inf:
        clean = observed(model, clean, sigma, conditions, tolerance, known, slack)
    if known is None:
        return clean
    return agreeing(require(model, ReadsLayouts, KEEPING, DIFFUSION), clean, known)


def observed(
    model: object,
    clean: Tensor,
    sigma: float,
    conditions: Conditions,
    tolerance: float,
    known: Known | None = None,
    slack: float = 0.0,
) -> Tensor:
    """Move estimates `(B, …)` of the clean data to where they measure what is asked for (Song et al. 2023, ΠGDM).

    A request is taken for an observation, with an error of `tolerance`, of a clean x₀ that is normal around its
    estimate with variance R = σ² / (1 + σ²), or what the model itself says that its estimate leaves open, + `slack`.
    With J the Jacobian of the measures, which goes through the codec but not through the denoiser, the mean of x₀ moves
    by R Jᵀ (J R Jᵀ + tolerance²)⁻¹ (asked − measured): the smallest change of the layout that does it, less where it
    would have to be violent. Without slack it is exact for data of unit covariance and linear measures. Place and maps
    are left to the network. Each condition that is asked for costs a pass back through the codec.
    """
    visible = require(model, ShowsLayouts, "A finite tolerance", DIFFUSION)
    spec = visible.spec
    asked = conditions.present.any(0).tolist()
    # What was the same in every training window is nothing that the model could change.
    spreads = {i: spread for i, name in enumerate(spec.scalars) if asked[i] and (spread := spec.spread(name)) > 0}
    if not spreads:
        return clean
    columns = list(spreads)
    names = [spec.scalars[i] for i in columns]
    with torch.inference_mode(False), torch.enable_grad():
        unit = torch.tensor(list(spreads.values())).to(clean)
        x = clean.clone().requires_grad_()
        layout = visible.to_layout(x)
        if known is not None:
            layout = torch.where(known.keep, known.layout, layout)
        values = measure_unchecked(layout, spec.channels, spec.resolution_m, names)
        measured = torch.stack([values[name] for name in names], 1) / unit
        slopes = [torch.autograd.grad(column.sum(), x, retain_graph=True)[0] for column in measured.unbind(1)]
    here = conditions.present[:, columns]
    missing = (conditions.scalars[:, columns] / unit - measured.detach()) * here
    jacobian = torch.stack(slopes, 1).flatten(2) * here[..., None]
    variance: Any = sigma**2 / (1 + sigma**2)
    if isinstance(model, TellsVariance):
        variance = model.variance(clean).flatten(1)[:, None]
    moves = (variance + slack) * jacobian
    # Of a layout that is known but for a part, a window's measure is as exact as the part's is asked to be.
    error = tolerance * (torch.ones(1) if known is None else (~known.keep.all(1)).float().mean((1, 2))).to(unit)
    scatter = moves @ jacobian.mT + torch.diag_embed(error[:, None].square().expand(-1, len(names)))
    weights = torch.linalg.solve(scatter, missing)
    return clean + torch.einsum("bk,bkn->bn", weights, moves).view_as(clean)
