"""Samplers against analytic denoisers: on Gaussian data everything is known in closed form."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from citygrain.errors import CapabilityError, ConfigError
from citygrain.protocols import Noise
from citygrain.samplers.diffusion import Ancestral, DpmSolver, Euler, Heun
from citygrain.samplers.feedback import move_to_request
from citygrain.samplers.prior import Normal
from citygrain.spec import Conditions, LayoutSpec

SAMPLERS = [Euler(), Heun(), DpmSolver(), Ancestral()]
FLOWS = SAMPLERS[:3]
SPEC = LayoutSpec(("building",), 2, 8.0, scalars=("coverage",))


class GaussianDenoiser:
    """The exact denoiser of N(mean, covariance) over 4 numbers; conditions shift the mean."""

    latent_shape = (1, 2, 2)

    def __init__(self) -> None:
        root = torch.tensor(
            [[1.0, 0.0, 0.0, 0.0], [0.6, 0.5, 0.0, 0.0], [-0.3, 0.2, 0.9, 0.0], [0.1, -0.4, 0.3, 0.7]],
            dtype=torch.float64,
        )
        self.mean = torch.tensor([1.0, -0.5, 0.0, 2.0], dtype=torch.float64)
        self.covariance = root @ root.T

    def denoise(self, x, sigma, conditions):
        flat = x.flatten(1).double()
        shift = torch.where(conditions.present, conditions.scalars, 0.0).double()
        mean = self.mean + shift
        noisy = self.covariance + sigma[0].double() ** 2 * torch.eye(4, dtype=torch.float64)
        gain = self.covariance @ torch.linalg.inv(noisy)
        return (mean + (flat - mean) @ gain.T).reshape(x.shape)

    def exact(self, noise, sampler):
        """Where the probability flow ends: each principal axis shrinks by √(λ / (λ + σ²))."""
        values, axes = torch.linalg.eigh(self.covariance)
        start = noise.flatten(1).double() * sampler.sigma_max
        along = (start - self.mean) @ axes
        return self.mean + (along * (values / (values + sampler.sigma_max**2)).sqrt()) @ axes.T


class VisibleDenoiser:
    """The exact denoiser of N(0, I) over 4 numbers, which ignores what is asked; their layouts cover 0.5 + 0.05 x."""

    latent_shape = (1, 2, 2)
    spec = replace(SPEC, statistics={"coverage": {"all": tuple(i / 100 for i in range(101))}})

    def denoise(self, x, sigma, conditions):
        return x / (1 + sigma[0].double() ** 2)

    def to_layout(self, clean):
        return 0.5 + 0.05 * clean


def conditions(batch):
    return Conditions.empty(SPEC, batch)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_samples_have_the_mean_and_covariance_of_the_data(sampler):
    model = GaussianDenoiser()
    fine = replace(sampler, steps=200 if isinstance(sampler, Euler | Ancestral) else 60)
    n = 20000
    noise = _Normal(n, seed=0)
    x = fine(model, conditions(n), noise).flatten(1)
    standard_error = 4 * model.covariance.diagonal().sqrt() / n**0.5
    assert ((x.mean(0) - model.mean).abs() < standard_error + 0.02).all()
    assert torch.allclose(x.T.cov(), model.covariance, atol=0.06)


@pytest.mark.parametrize(("sampler", "order"), list(zip(FLOWS, (1, 2, 2), strict=True)), ids=lambda s: type(s).__name__)
def test_the_error_falls_with_the_order_that_theory_says(sampler, order):
    model = GaussianDenoiser()
    start = torch.randn(64, 1, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    errors = []
    for steps in (64, 128, 256):
        run = replace(sampler, steps=steps, sigma_max=20.0, sigma_min=1e-4)
        end = run(model, conditions(64), _Fixed(start)).flatten(1)
        errors.append((end - model.exact(start, run)).square().mean().sqrt().item())
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(2**order, rel=0.2)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5])
def test_guidance_moves_the_mean_in_proportion(sampler, guidance):
    model = GaussianDenoiser()
    asked = Conditions.request(SPEC, 8, {"coverage": 0.8})
    start = torch.randn(8, 1, 2, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    run = replace(sampler, steps=32, guidance=guidance)
    plain = replace(run, guidance=1.0)(model, asked.absent(), _Fixed(start))
    moved = run(model, asked, _Fixed(start))
    # The denoiser is linear in the mean, and so is the flow: all of the shift arrives, times the weight.
    full = replace(run, guidance=1.0)(model, asked, _Fixed(start)) - plain
    assert torch.allclose(moved - plain, guidance * full, atol=1e-9)
    if guidance == 1.0:
        assert (full > 0).any()


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_what_is_observed_conditions_gaussian_data_exactly(sampler):
    model, n, tolerance = VisibleDenoiser(), 20000, 0.05
    fine = replace(sampler, steps=300 if isinstance(sampler, Euler | Ancestral) else 100, tolerance=tolerance)
    x = fine(model, Conditions.request(model.spec, n, {"coverage": 0.53}), _Normal(n, seed=0)).flatten(1)
    # Bayes: x ~ N(0, I), and (0.05 mean(x) − 0.03) / spread was seen to be 0 with an error of `tolerance`.
    slope = torch.full((4,), 0.05 / 4 / model.spec.spread("coverage"), dtype=torch.float64)
    gain = slope / (slope @ slope + tolerance**2)
    assert torch.allclose(x.mean(0), gain * 0.03 / model.spec.spread("coverage"), atol=0.04)
    assert torch.allclose(x.T.cov(), torch.eye(4, dtype=torch.float64) - torch.outer(gain, slope), atol=0.05)


def test_only_what_was_asked_for_is_observed():
    model = VisibleDenoiser()
    noise = _Fixed(torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
    asked = Conditions.request(model.spec, 3, {"coverage": 0.9})
    asked.present[1] = False
    free = Heun(8)(model, asked, noise)
    moved = (Heun(8, tolerance=0.1)(model, asked, noise) - free).abs().sum((1, 2, 3))
    assert moved[1] == 0
    assert (moved[[0, 2]] > 0.1).all()
    nothing = Heun(8, tolerance=0.1)(model, asked.absent(), noise)
    assert torch.equal(nothing, free)


def test_what_an_estimate_leaves_open_is_what_a_request_moves():
    class Sure(VisibleDenoiser):
        def variance(self, clean):
            return torch.tensor([0.0, 0.1, 0.2, 0.7], dtype=torch.float64).reshape(1, 2, 2).expand_as(clean)

    model, tolerance, asked = Sure(), 0.05, 0.53
    clean = torch.zeros(3, 1, 2, 2, dtype=torch.float64)
    request = Conditions.request(model.spec, 3, {"coverage": asked})
    moved = move_to_request(model, clean, 1e-9, request, tolerance)
    slope = 0.05 / 4 / model.spec.spread("coverage")
    # Bayes, with independent elements of these variances.
    expected = model.variance(clean) * slope / (slope**2 + tolerance**2) * 0.03 / model.spec.spread("coverage")
    assert torch.allclose(moved, expected, rtol=1e-5)


@pytest.mark.parametrize("slack", [0.0, 0.1, 1.0])
def test_slack_lets_a_request_be_met_when_no_noise_is_left(slack):
    model, tolerance, asked = VisibleDenoiser(), 0.05, 0.53
    clean = torch.zeros(3, 1, 2, 2, dtype=torch.float64)
    moved = move_to_request(
        model, clean, 1e-9, Conditions.request(model.spec, 3, {"coverage": asked}), tolerance, slack=slack
    )
    slope = 0.05 / 4 / model.spec.spread("coverage")
    left = tolerance**2 / (slack * 4 * slope**2 + tolerance**2)
    missing = asked - model.to_layout(moved).mean((1, 2, 3))
    assert torch.allclose(missing, torch.full_like(missing, left * 0.03), rtol=1e-4)


def test_observing_works_where_gradients_are_switched_off():
    model = VisibleDenoiser()
    start = torch.randn(2, 1, 2, 2, dtype=torch.float64)
    asked = Conditions.request(model.spec, 2, {"coverage": 0.6})
    there = Heun(8, tolerance=0.1)(model, asked, _Fixed(start))
    with torch.inference_mode():
        here = Heun(8, tolerance=0.1)(model, asked, _Fixed(start))
    assert torch.equal(here, there)
    assert not there.requires_grad


def test_a_model_that_cannot_show_its_layouts_is_refused_a_tolerance():
    with pytest.raises(CapabilityError, match="tolerance"):
        Heun(tolerance=0.1)(GaussianDenoiser(), Conditions.request(SPEC, 1, {"coverage": 0.5}), Noise([0]))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_noise_levels_fall_to_exactly_zero(sampler):
    sigmas = sampler.sigmas()
    assert len(sigmas) == sampler.steps + 1
    assert (sigmas.diff() < 0).all()
    assert sigmas[-1] == 0
    assert sigmas[0] == pytest.approx(sampler.sigma_max)
    assert sigmas[-2] == pytest.approx(sampler.sigma_min)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"sigma_min": 0.0},
        {"sigma_min": 3.0, "sigma_max": 2.0},
        {"rho": -1.0},
        {"tolerance": 0.0},
        {"slack": -0.1},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match="cannot work"):
        Heun(**wrong)


class NormalPrior:
    """Has the handle of `Normal`, and no other."""

    code_shape = (1, 2, 2)

    def prior(self, asked):
        return torch.zeros(len(asked), *self.code_shape), torch.ones(len(asked), *self.code_shape)


def test_a_sampler_of_another_family_is_refused_with_the_right_ones_named():
    with pytest.raises(CapabilityError, match="Heun"):
        Normal()(GaussianDenoiser(), conditions(1), Noise([0]))
    with pytest.raises(CapabilityError, match="choices:  Normal\n"):
        Heun()(NormalPrior(), conditions(1), Noise([0]))


class _Normal:
    """Noise of a whole batch from one generator, in double precision: new at every call."""

    def __init__(self, n, seed):
        self.n, self.generator = n, torch.Generator().manual_seed(seed)

    def normal(self, *shape):
        return torch.randn(self.n, *shape, generator=self.generator, dtype=torch.float64)


class _Fixed:
    """Noise that was drawn beforehand, in double precision."""

    def __init__(self, values) -> None:
        self.values = values

    def normal(self, *shape):
        assert self.values.shape[1:] == shape
        return self.values
