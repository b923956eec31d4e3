"""Schedules and samplers against the same ones in the diffusers package."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch

from citygrain.models.schedules import Edm, FlowMatching
from citygrain.samplers.diffusion import Ancestral, DpmSolver, Euler

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own imports
    from diffusers import (
        EDMDPMSolverMultistepScheduler,
        EDMEulerScheduler,
        EulerAncestralDiscreteScheduler,
        FlowMatchEulerDiscreteScheduler,
    )

KNOBS = {"sigma_min": 0.01, "sigma_max": 20.0, "rho": 7.0}
EDM = {**KNOBS, "sigma_data": 1.0, "sigma_schedule": "karras"}
STEPS = 12
SINGLE = 3e-6
"""Theirs compute in single precision on the way."""

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of theirs


def network(x, noise):
    """Anything smooth that depends on both."""
    return torch.tanh(x * (1 + 0.3 * noise) + 0.2 * x.flip(-1)) - 0.1 * x


def estimate(schedule):
    """The clean data as a model of this schedule sees them."""

    def clean(x, sigma):
        scaling = schedule.scaling(torch.tensor(sigma, dtype=x.dtype))
        return scaling.skip * x + scaling.out * network(scaling.into * x, scaling.noise)

    return clean


class Recorded:
    """Noise that diffusers has drawn, in its order."""

    def __init__(self, values):
        self.values = list(values)

    def normal(self, *_):
        return self.values.pop(0)


@pytest.fixture
def start():
    return torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_noise_levels_are_those_of_karras():
    theirs = EDMEulerScheduler(**EDM)
    theirs.set_timesteps(STEPS)
    assert torch.allclose(Euler(STEPS, **KNOBS).sigmas().float(), theirs.sigmas, rtol=1e-5)


@pytest.mark.parametrize("sigma", [0.02, 0.7, 15.0])
def test_the_preconditioning_is_edm(sigma, start):
    theirs = EDMEulerScheduler(**EDM)
    level = torch.tensor(sigma, dtype=torch.float64)
    scaling = Edm().scaling(level)
    assert torch.allclose(scaling.into * start, theirs.precondition_inputs(start, level))
    assert torch.allclose(scaling.noise, theirs.precondition_noise(level))
    said = network(start, scaling.noise)
    assert torch.allclose(scaling.skip * start + scaling.out * said, theirs.precondition_outputs(start, said, level))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Euler, EDMEulerScheduler(**EDM)),
        (DpmSolver, EDMDPMSolverMultistepScheduler(**EDM, algorithm_type="dpmsolver++", solver_order=2)),
    ],
    ids=["Euler", "DPM-Solver++(2M)"],
)
def test_edm_samplers_end_where_theirs_do(ours, theirs, start):
    sampler = ours(STEPS, **KNOBS)
    levels = sampler.sigmas()
    made = sampler.walk(estimate(Edm()), start * levels[0], levels.tolist(), None)
    theirs.set_timesteps(STEPS)
    theirs.sigmas = levels  # theirs are rounded to single precision
    x = start * levels[0]
    for step, time in enumerate(theirs.timesteps):
        scaling = Edm().scaling(levels[step])
        x = theirs.step(network(scaling.into * x, scaling.noise), time, x).prev_sample.double()
    assert torch.allclose(made, x, rtol=SINGLE, atol=SINGLE)


def test_the_ancestral_sampler_ends_where_theirs_does(start):
    sampler = Ancestral(STEPS, **KNOBS)
    theirs = EulerAncestralDiscreteScheduler()
    theirs.set_timesteps(STEPS)
    levels = sampler.sigmas()
    theirs.sigmas = levels
    theirs.is_scale_input_called = True  # ours is scaled where it is used
    generator = torch.Generator().manual_seed(4)
    noise = [torch.randn(start.shape, generator=generator, dtype=start.dtype) for _ in range(STEPS)]
    made = sampler.walk(estimate(Edm()), start * levels[0], levels.tolist(), Recorded(noise))
    generator = torch.Generator().manual_seed(4)
    x = start * levels[0]
    for level, time in zip(levels[:-1].tolist(), theirs.timesteps, strict=True):
        epsilon = (x - estimate(Edm())(x, level)) / level
        x = theirs.step(epsilon, time, x, generator=generator).prev_sample.double()
    assert torch.allclose(made, x, rtol=SINGLE, atol=SINGLE)


def test_euler_walks_the_straight_lines_of_flow_matching(start):
    sampler = Euler(STEPS, **KNOBS)
    sigmas = sampler.sigmas()
    times = sigmas / (1 + sigmas)
    made = sampler.walk(estimate(FlowMatching()), start * sigmas[0], sigmas.tolist(), None)
    theirs = FlowMatchEulerDiscreteScheduler()
    theirs.set_timesteps(STEPS)
    theirs.sigmas = times
    x = start * sigmas[0] / (1 + sigmas[0])
    for step, time in enumerate(theirs.timesteps):
        x = theirs.step(network(x, sigmas[step].log() / 4), time, x).prev_sample.double()
    assert torch.allclose(made, x, rtol=SINGLE, atol=SINGLE)


def test_without_new_noise_the_ancestral_sampler_is_eulers(start):
    euler = Euler(STEPS, **KNOBS)
    levels = euler.sigmas().tolist()
    still = Ancestral(STEPS, **KNOBS, churn=0.0)
    clean = estimate(Edm())
    assert torch.equal(still.walk(clean, start, levels, None), euler.walk(clean, start, levels, None))
    moved = replace(still, churn=0.5).walk(clean, start, levels, Recorded([torch.ones_like(start)] * STEPS))
    assert not torch.allclose(moved, euler.walk(clean, start, levels, None))


@pytest.mark.parametrize("schedule", [Edm(), FlowMatching()], ids=lambda s: type(s).__name__)
def test_the_weighted_error_is_the_error_of_what_the_network_says(schedule, start):
    clean, noise = start, start.flip(0)
    for sigma in (0.05, 1.0, 12.0):
        level = torch.tensor(sigma, dtype=start.dtype)
        scaling = schedule.scaling(level)
        x = clean + sigma * noise
        said = network(scaling.into * x, scaling.noise)
        target = (clean - scaling.skip * x) / scaling.out
        error = (scaling.skip * x + scaling.out * said - clean) ** 2
        assert torch.allclose(schedule.weight(level) * error, (said - target) ** 2)
        if isinstance(schedule, FlowMatching):
            assert torch.allclose(target, noise - clean)
