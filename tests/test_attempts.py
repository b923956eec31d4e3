"""Layouts that miss what they were asked for are drawn again with a corrected request, and the nearest is kept."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import families
from citygrain.errors import ConfigError
from citygrain.generation.windows import NEAR, check_attempts, draw
from citygrain.protocols import Noise
from citygrain.spec import Conditions
from citygrain.support.config import load_config
from citygrain.verbs.sample import run

SPEC = families.spec()
SPREAD = SPEC.spread("coverage")


@dataclass
class Linear:
    """Even layouts whose coverage is a straight line of what is asked for, and some of the seed; green stays 0.3."""

    slope: float
    intercept: float = 0.0
    noise: float = 0.0
    drawn: list[int] = field(default_factory=list)
    spec = SPEC

    def parameters(self):
        return iter([torch.zeros(1)])

    def buffers(self):
        return iter([])

    def sample(self, conditions, *, noise: Noise, sampler=None):
        self.drawn += noise.seeds
        coverage = self.intercept + self.slope * conditions.scalars[:, 0] + self.noise * noise.normal()
        layout = torch.zeros(len(conditions), *SPEC.shape)
        layout[:, 2] = 0.3
        layout[:, 0] = coverage.clamp(0, 1)[:, None, None]
        return layout


def asked(*coverages: float) -> Conditions:
    return Conditions.request(SPEC, len(coverages), {"coverage": torch.tensor(coverages)})


def off(samples):
    return abs(samples.measured["coverage"] - samples.requested["coverage"])


@pytest.mark.parametrize("attempts", [2, 3, 5])
def test_what_remains_shrinks_by_what_the_model_leaves_out(attempts):
    """A model that does the k-th part of what is asked for more leaves (1 − k)ⁿ of the error after n attempts."""
    samples = draw(Linear(0.6, 0.08), asked(0.4, 0.5, 0.6), range(3), attempts=attempts)
    first = torch.tensor([0.4, 0.5, 0.6]) - (0.08 + 0.6 * torch.tensor([0.4, 0.5, 0.6]))
    left = (first.abs() * 0.4 ** (attempts - 1)).numpy()
    assert off(samples) == pytest.approx(left, abs=NEAR * SPREAD + 2 / 255)


@given(st.floats(-3, 5), st.floats(-0.5, 0.5), st.floats(0, 0.2), st.integers(1, 6))
def test_more_attempts_are_never_farther_off(slope, intercept, noise, attempts):
    def drawn(times):
        return draw(Linear(slope, intercept, noise), asked(0.1, 0.45, 0.8), [3, 4, 5], attempts=times)

    assert (off(drawn(attempts + 1)) <= off(drawn(attempts))).all()


def test_a_model_that_exaggerates_is_brought_to_it_by_shorter_steps():
    samples = draw(Linear(2.6, -0.6), asked(0.3, 0.5, 0.45), range(3), attempts=8)
    assert (off(samples) < 0.02).all()


def test_requests_are_corrected_within_what_training_windows_are():
    """Not even a deaf model is asked for less than nothing."""
    seen = []

    class Deaf(Linear):
        def sample(self, conditions, *, noise, sampler=None):
            seen.append(conditions.scalars[:, 0])
            return super().sample(conditions, noise=noise)

    draw(Deaf(0.0, 0.5), asked(0.05, 0.95), range(2), attempts=6)
    values = torch.cat(seen)
    assert values.min() >= 0
    assert values.max() <= 1


def test_only_what_missed_its_request_is_drawn_again():
    generator = Linear(0.5, 0.25)  # right at 0.5
    draw(generator, asked(0.5, 0.2, 0.5), [10, 11, 12], attempts=3)
    assert sorted(generator.drawn) == [10, 11, 11, 11, 12]
    generator = Linear(0.5, 0.25)
    draw(generator, Conditions.empty(SPEC, 4), range(4), attempts=9)
    assert generator.drawn == [0, 1, 2, 3]


def test_what_is_not_asked_for_does_not_matter():
    """Green is far from the zero that stands where it is not asked for."""
    generator = Linear(1.0)
    draw(generator, asked(0.4), [0], attempts=4)
    assert generator.drawn == [0]


def test_what_given_channels_settle_is_no_reason_to_draw_again():
    class Given(Linear):
        spec = replace(SPEC, given=("building",))

    generator = Given(0.0, 0.5)  # says nothing to its coverage
    conditions = Conditions.request(Given.spec, 1, {"coverage": 0.2}, {"building": torch.full((1, 16, 16), 0.5)})
    draw(generator, conditions, [7], attempts=4)
    assert generator.drawn == [7]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("masked_transformer in vector_quantized", marks=pytest.mark.slow),
        *("pix2pix", "diffusion", "style_gan"),
    ],
)
def test_a_layout_depends_on_its_own_request_alone(name):
    model = families.make(name).eval()
    conditions = families.requests(3, model.spec, coverage=0.4, green=0.2)
    with torch.no_grad():
        together = draw(model, conditions, [5, 6, 7], attempts=3)
        alone = draw(model, conditions, [5, 6, 7], attempts=3, batch_size=1)
        once = draw(model, conditions, [5, 6, 7])
    assert together.shares == pytest.approx(alone.shares, abs=1.01 / 255)
    for condition, wanted in once.requested.items():
        assert together.requested[condition] == pytest.approx(wanted)  # not what it was corrected to


@pytest.mark.slow
def test_the_command_hits_closer_with_more_attempts(tmp_path):
    def errors(attempts):
        config = load_config(
            "sample",
            [
                "checkpoint=reference/cities_64", "n=4", "conditions.coverage=0.3", "sampler.steps=2",
                "sampler.tolerance=inf", f"attempts={attempts}", f"out={tmp_path / str(attempts)}",
            ],
        )  # fmt: skip
        with np.load(run(config) / "layouts.npz") as written:
            assert written["requested_coverage"] == pytest.approx(0.3)
            return abs(written["measured_coverage"] - 0.3)

    once, thrice = errors(1), errors(3)
    assert (thrice <= once).all()
    assert thrice.mean() < 0.5 * once.mean()


@pytest.mark.parametrize("attempts", [0, -1, 1.5, "two", None])
def test_a_number_of_attempts_that_is_none_is_refused(attempts):
    with pytest.raises(ConfigError, match="attempts"):
        check_attempts(attempts)
