"""The fitted prior is what the mathematics of normal distributions says it is."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import families
from citygrain.errors import ConfigError, DataError
from citygrain.models.latent_prior import LatentPrior
from citygrain.protocols import Noise
from citygrain.samplers.prior import FittedMixture
from citygrain.spec import Conditions

SHAPE = (2, 2, 2)
SPEC = replace(families.spec(), maps=(), map_px=0)


def measured(scalars, place=None):
    conditions = Conditions.empty(SPEC, len(scalars))
    conditions.scalars = scalars
    conditions.present.fill_(True)
    conditions.place = torch.zeros(len(scalars), dtype=torch.int64) if place is None else place
    return conditions


def correlated(n, seed=0):
    """Codes that follow both conditions linearly, with noise: everything about them is known."""
    generator = torch.Generator().manual_seed(seed)
    scalars = torch.rand(n, 2, generator=generator)
    prior = LatentPrior(SPEC, SHAPE, components=1, dimensions=8)
    causes = prior.scalars(scalars)
    mixing = torch.randn(2, 8, generator=generator)
    noise = 0.3 * torch.randn(n, 8, generator=generator)
    return prior, scalars, causes, mixing, (causes @ mixing + noise).unflatten(1, SHAPE)


def drawn(prior, conditions, n):
    class Handle:
        code_shape = SHAPE
        mixture = staticmethod(prior.mixture)
        code_at = staticmethod(prior.code_at)

    return FittedMixture()(Handle(), conditions, Noise(range(n))).flatten(1)


def test_a_single_normal_distribution_is_conditioned_as_regression_does():
    prior, scalars, causes, _, code = correlated(4000)
    prior.fit(code, measured(scalars))
    asked = torch.tensor([[0.8, 0.3]]).expand(3000, 2)
    made = drawn(prior, measured(asked, torch.full((3000,), -1)), 3000)
    design = torch.cat([causes, torch.ones(len(causes), 1)], 1)
    weights = torch.linalg.lstsq(design, code.flatten(1)).solution
    expected = torch.cat([prior.scalars(asked[:1]), torch.ones(1, 1)], 1) @ weights
    assert torch.allclose(made.mean(0), expected[0], atol=0.05)
    assert torch.allclose(made.std(0), torch.full((8,), 0.3), atol=0.06)


def test_what_is_not_asked_for_keeps_its_spread():
    prior, scalars, causes, mixing, code = correlated(4000)
    prior.fit(code, measured(scalars))
    asked = measured(torch.full((3000, 2), 0.5), torch.full((3000,), -1))
    nothing = drawn(prior, asked.absent(), 3000)
    assert torch.allclose(nothing.mean(0), code.flatten(1).mean(0), atol=0.1)
    assert torch.allclose(nothing.T.cov(), code.flatten(1).T.cov(), atol=0.25)
    one = replace(asked, present=torch.tensor([[True, False]]).expand(3000, 2))
    left = drawn(prior, one, 3000).T.cov().diagonal()
    second = causes[:, 1].var() * mixing[1].square() + 0.09  # the first cause is known, the second is not
    assert torch.allclose(left, second, rtol=0.15, atol=0.05)


def test_a_place_chooses_its_components():
    generator = torch.Generator().manual_seed(0)
    place = torch.arange(2000) % 2
    code = (6.0 * place[:, None] + torch.randn(2000, 8, generator=generator)).unflatten(1, SHAPE)
    prior = LatentPrior(SPEC, SHAPE, components=12, dimensions=2)
    prior.fit(code, measured(torch.rand(2000, 2, generator=generator), place))
    for index, mean in ((0, 0.0), (1, 6.0)):
        asked = replace(Conditions.empty(SPEC, 400), place=torch.full((400,), index))
        assert drawn(prior, asked, 400).mean().item() == pytest.approx(mean, abs=0.3)
    both = drawn(prior, Conditions.empty(SPEC, 400), 400).mean(1)
    assert 0.4 < (both > 3).float().mean() < 0.6


def test_what_the_main_directions_leave_out_is_drawn_as_noise_of_the_right_size():
    generator = torch.Generator().manual_seed(0)
    spreads = torch.tensor([4.0, 3.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
    code = (spreads * torch.randn(3000, 8, generator=generator)).unflatten(1, SHAPE)
    prior = LatentPrior(SPEC, SHAPE, components=1, dimensions=2)
    prior.fit(code, measured(torch.rand(3000, 2, generator=generator)))
    made = drawn(prior, Conditions.empty(SPEC, 3000), 3000)
    assert torch.allclose(made.std(0), spreads, rtol=0.1)
    assert math.isclose(float(prior.rest), 0.5, rel_tol=0.05)


def test_too_few_codes_are_refused():
    with pytest.raises(DataError, match="at least 24"):
        LatentPrior(SPEC, SHAPE).fit(torch.zeros(3, *SHAPE), measured(torch.rand(3, 2)))


@pytest.mark.parametrize(("components", "dimensions"), [(1, 1), (1, 8), (5, 3), (3, 5), (2, 80)])
def test_a_prior_is_fitted_to_as_many_codes_as_it_asks_for_and_to_no_fewer(components, dimensions):
    """Whatever it does not refuse it can be fitted to, even where all codes are one and the same."""
    prior = LatentPrior(SPEC, SHAPE, components=components, dimensions=dimensions)
    fewest = max(components, min(dimensions, 8), 2)
    codes = torch.rand(fewest, *SHAPE, generator=torch.Generator().manual_seed(0))
    for code in (codes, codes[:1].expand(fewest, -1, -1, -1)):
        prior.check_enough(fewest)
        prior.fit(code, measured(torch.rand(fewest, 2)))
        assert drawn(prior, Conditions.empty(SPEC, 3), 3).isfinite().all()
    for refuse in (
        lambda: prior.check_enough(fewest - 1),
        lambda: prior.fit(codes[1:], measured(torch.rand(fewest - 1, 2))),
    ):
        with pytest.raises(DataError, match=rf"at least {fewest}, .*(\n.*)*codes={fewest}"):
            refuse()


@pytest.mark.parametrize("wrong", [{"components": 0}, {"dimensions": 0}, {"dimensions": -3}])
def test_a_prior_of_nothing_is_refused_when_it_is_made(wrong):
    with pytest.raises(ConfigError, match="dimensions ≥ 1"):
        LatentPrior(SPEC, SHAPE, **wrong)
