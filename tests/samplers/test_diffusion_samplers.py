"""Samplers against analytic denoisers: on Gaussian data everything is known in closed form."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from citygrain.errors import CapabilityError, ConfigError
from citygrain.protocols import Noise
from citygrain.samplers.diffusion import Euler, Heun
from citygrain.samplers.prior import Normal
from citygrain.spec import Conditions, LayoutSpec

SAMPLERS = [Euler(), Heun()]
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


def conditions(batch):
    return Conditions.empty(SPEC, batch)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_samples_have_the_mean_and_covariance_of_the_data(sampler):
    model = GaussianDenoiser()
    fine = replace(sampler, steps=200 if isinstance(sampler, Euler) else 60)
    n = 20000
    generator = torch.Generator().manual_seed(0)
    noise = _Fixed(torch.randn(n, 1, 2, 2, generator=generator, dtype=torch.float64))
    x = fine(model, conditions(n), noise).flatten(1)
    standard_error = 4 * model.covariance.diagonal().sqrt() / n**0.5
    assert ((x.mean(0) - model.mean).abs() < standard_error + 0.02).all()
    assert torch.allclose(x.T.cov(), model.covariance, atol=0.06)


@pytest.mark.parametrize(("sampler", "order"), [(Euler(rho=7.0), 1), (Heun(rho=7.0), 2)], ids=["Euler", "Heun"])
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


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_noise_levels_fall_to_exactly_zero(sampler):
    sigmas = sampler.sigmas()
    assert len(sigmas) == sampler.steps + 1
    assert (sigmas.diff() < 0).all()
    assert sigmas[-1] == 0
    assert sigmas[0] == pytest.approx(sampler.sigma_max)
    assert sigmas[-2] == pytest.approx(sampler.sigma_min)


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"sigma_min": 0.0}, {"sigma_min": 3.0, "sigma_max": 2.0}, {"rho": -1.0}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match="cannot work"):
        Heun(**wrong)


def test_a_sampler_of_another_family_is_refused_with_the_right_ones_named():
    with pytest.raises(CapabilityError, match="Heun"):
        Normal()(GaussianDenoiser(), conditions(1), Noise([0]))
    with pytest.raises(CapabilityError, match="Normal"):
        Heun()(object(), conditions(1), Noise([0]))


class _Fixed:
    """Noise that was drawn beforehand, in double precision."""

    def __init__(self, values) -> None:
        self.values = values

    def normal(self, *shape):
        assert self.values.shape[1:] == shape
        return self.values
