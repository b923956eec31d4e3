"""The sampler of flows against a linear one, of which all is known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from citygrain.errors import CapabilityError, ConfigError
from citygrain.protocols import Noise
from citygrain.samplers.flow import Base
from citygrain.samplers.langevin import Langevin
from citygrain.spec import Conditions, LayoutSpec

SPEC = LayoutSpec(
    ("building",), 2, 8.0, scalars=("coverage",), statistics={"coverage": {"all": tuple(i / 100 for i in range(101))}}
)


class LinearFlow:
    """x = 2 z + 1, whose layouts cover 0.5 + 0.05 x."""

    latent_shape = (1, 2, 2)
    spec = SPEC

    def inverse(self, z, conditions):
        return 2 * z + 1

    def to_layout(self, clean):
        return 0.5 + 0.05 * clean


def asked(batch, value):
    return Conditions.request(SPEC, batch, {"coverage": value})


def test_noise_goes_through_the_flow_times_the_temperature():
    noise = Noise(range(3)).normal(1, 2, 2)
    for temperature in (0.0, 0.7, 1.0):
        drawn = Base(temperature)(LinearFlow(), asked(3, 0.5), Noise(range(3)))
        assert torch.equal(drawn, 2 * (temperature * noise) + 1)


def test_a_tolerance_moves_noise_to_what_is_asked_by_the_smallest_step():
    model, conditions = LinearFlow(), asked(3, 0.62)
    free, held = ((Base(tolerance=t)(model, conditions, Noise(range(3))) - 1) / 2 for t in (math.inf, 1e-3))
    coverage = model.to_layout(2 * held + 1).mean((1, 2, 3))
    assert torch.allclose(coverage, torch.full((3,), 0.62), atol=1e-4)
    moved = (held - free).flatten(1)
    assert torch.allclose(moved, moved.mean(1, keepdim=True).expand_as(moved), atol=1e-6)


def test_what_is_not_asked_for_moves_nothing_and_gradients_may_be_off():
    conditions = asked(2, 0.9)
    conditions.present[1] = False
    free = Base()(LinearFlow(), conditions, Noise(range(2)))
    with torch.inference_mode():
        held = Base(tolerance=0.01)(LinearFlow(), conditions, Noise(range(2)))
    assert not torch.allclose(held[0], free[0], atol=1e-2)
    assert torch.equal(held[1], free[1])


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"temperature": math.nan}, {"tolerance": 0.0}, {"rounds": 0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match="cannot work"):
        replace(Base(), **wrong)


def test_a_sampler_of_another_family_is_refused_with_the_right_one_named():
    with pytest.raises(CapabilityError, match="Base"):
        Langevin()(LinearFlow(), asked(1, 0.5), Noise([0]))
