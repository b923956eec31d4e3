"""Langevin dynamics on quadratic energies, where its mean, its variance and its error are known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from citygrain.errors import CapabilityError, ConfigError
from citygrain.protocols import Noise
from citygrain.samplers.base import HandleSampler
from citygrain.samplers.langevin import Langevin, compute_energy_gradient
from citygrain.spec import Conditions, LayoutSpec

SPEC = LayoutSpec(
    ("building",), 2, 8.0, scalars=("coverage",), statistics={"coverage": {"all": tuple(i / 100 for i in range(101))}}
)


class Quadratic:
    """E = (x − μ)² / 2v of each number, with μ what is asked for, else 0.5; layouts cover 0.5 + 0.05 x."""

    latent_shape = (1, 2, 2)
    spec = SPEC
    smoothing = 0.5
    variance = 0.4

    def energy(self, x, conditions):
        mean = torch.where(conditions.present, conditions.scalars, 0.5)[:, :, None, None]
        return ((x - mean) ** 2).sum((1, 2, 3)) / (2 * self.variance)

    def to_layout(self, clean):
        return 0.5 + 0.05 * clean


def asked(batch, value):
    return Conditions.request(SPEC, batch, {"coverage": value})


def walked(sampler, conditions, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (len(conditions), *Quadratic.latent_shape)
    begin = torch.randn(shape, generator=generator)
    return sampler.walk(Quadratic(), begin, conditions, lambda: torch.randn(shape, generator=generator))


@pytest.mark.parametrize("step", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_chains_settle_at_the_mean_and_at_the_variance_with_the_error_that_theory_says(step, temperature):
    conditions = asked(5000, 0.8)
    x = walked(Langevin(steps=120, step=step, temperature=temperature), conditions)
    model = Quadratic()
    biased = temperature * model.variance / (1 - step * model.smoothing**2 / (2 * model.variance))
    assert x.mean().item() == pytest.approx(0.8, abs=0.02)
    assert x.var().item() == pytest.approx(biased, rel=0.04)


def test_without_temperature_chains_roll_to_the_bottom():
    x = walked(Langevin(steps=100, temperature=0.0), asked(4, 0.7))
    assert torch.allclose(x, torch.full_like(x, 0.7), atol=1e-6)


def test_the_jump_is_to_the_clean_tensor_expected_behind_a_noisy_one():
    """Clean N(μ, v − σ²) with noise of σ is N(μ, v), and Bayes expects μ + (1 − σ² / v) (x − μ) behind x."""
    x, model = torch.randn(3, 1, 2, 2), Quadratic()
    expected = 0.8 + (1 - model.smoothing**2 / model.variance) * (x - 0.8)
    assert torch.allclose(Langevin().jump(model, x, asked(3, 0.8)), expected, atol=1e-6)


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5])
def test_guidance_goes_past_what_is_asked_in_proportion(guidance):
    x = walked(Langevin(steps=100, temperature=0.0, guidance=guidance), asked(2, 0.9))
    assert torch.allclose(x, torch.full_like(x, 0.5 + guidance * 0.4), atol=1e-5)


def test_a_tolerance_brings_layouts_to_what_is_asked():
    conditions = asked(8, 0.62)
    layouts = [
        Quadratic().to_layout(Langevin(tolerance=t)(Quadratic(), conditions, Noise(range(8)))).mean((1, 2, 3))
        for t in (math.inf, 0.001)
    ]
    free, held = ((coverage - 0.62).abs().max() for coverage in layouts)
    assert free > 0.05
    assert held < 0.005


def test_each_sample_has_its_own_noise():
    conditions = asked(4, 0.6)
    together = Langevin(20)(Quadratic(), conditions, Noise(range(4)))
    assert torch.allclose(together[2:3], Langevin(20)(Quadratic(), conditions[2:3], Noise([2])), atol=1e-6)
    assert not torch.allclose(together[2], together[1], atol=1e-3)


def test_slopes_are_known_where_gradients_are_switched_off():
    x, conditions = torch.randn(2, 1, 2, 2), asked(2, 0.6)
    there = compute_energy_gradient(Quadratic(), x, conditions)
    assert torch.allclose(there, (x - 0.6) / Quadratic.variance)
    with torch.inference_mode():
        # What comes out of inference mode is a tensor of its own kind.
        here = compute_energy_gradient(Quadratic(), x * 1, conditions.repeat(1))
    assert torch.equal(here, there)
    assert not here.requires_grad


@pytest.mark.parametrize(
    "wrong", [{"steps": -1}, {"step": 0.0}, {"step": 1.5}, {"temperature": -1.0}, {"tolerance": 0.0}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match="cannot work"):
        replace(Langevin(), **wrong)


def test_a_model_without_an_energy_is_refused():
    assert issubclass(Langevin, HandleSampler)
    with pytest.raises(CapabilityError, match="EnergyModel"):
        Langevin()(object(), asked(1, 0.5), Noise([0]))
