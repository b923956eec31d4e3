"""Keeping parts, and areas of any extent: against what is known in closed form of correlated normal data."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from citygrain.errors import CapabilityError, ConfigError
from citygrain.protocols import Known, Noise
from citygrain.samplers.areas import Area, Inpaint, Tiling
from citygrain.samplers.diffusion import Ancestral, DpmSolver, Euler, Heun
from citygrain.samplers.prior import Normal
from citygrain.spec import Conditions, LayoutSpec

SIDE = 4
SPEC = LayoutSpec(("building",), SIDE, 8.0, scalars=("coverage",))


class CorrelatedDenoiser:
    """The exact denoiser of normal data over 16 cells whose correlation falls with their distance in reading order."""

    latent_shape = (1, SIDE, SIDE)
    spec = SPEC

    def __init__(self):
        i = torch.arange(16.0, dtype=torch.float64)
        self.covariance = torch.exp(-(i[:, None] - i).abs() / 5)

    def denoise(self, x, sigma, conditions):
        noisy = self.covariance + sigma[0].double() ** 2 * torch.eye(16, dtype=torch.float64)
        gain = self.covariance @ torch.linalg.inv(noisy)
        return (x.flatten(1).double() @ gain.T).view(x.shape)

    def to_layout(self, clean):
        return clean

    def read(self, layout):
        return layout

    def settled(self, keep):
        return keep


class CellwiseDenoiser(CorrelatedDenoiser):
    """The exact denoiser of cells that know nothing of each other."""

    def denoise(self, x, sigma, conditions):
        return (x - 0.3) / (1 + sigma[0] ** 2) + 0.3


class Normals(Noise):
    """Many samples of one stream."""

    def __init__(self, n):
        self.n, self.generator = n, torch.Generator().manual_seed(1)

    def __len__(self):
        return self.n

    def normal(self, *shape):
        return torch.randn(self.n, *shape, generator=self.generator, dtype=torch.float64)


def half_known(n):
    keep = torch.zeros(n, 1, SIDE, SIDE, dtype=torch.bool)
    keep[:, :, :2] = True
    keep[:, :, 3, 3] = True
    covariance = CorrelatedDenoiser().covariance
    start = torch.randn(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truth = torch.linalg.cholesky(covariance) @ start
    return Known(truth.view(1, 1, SIDE, SIDE).repeat(n, 1, 1, 1), keep)


@pytest.mark.parametrize("sampler", [Heun(30), DpmSolver(30), Euler(40), Ancestral(40)], ids=lambda s: type(s).__name__)
def test_the_rest_is_drawn_as_what_is_known_has_it(sampler):
    n = 3000
    known = half_known(n)
    drawn = Inpaint(sampler, known)(CorrelatedDenoiser(), Conditions.empty(SPEC, n), Normals(n))
    assert torch.equal(drawn[known.keep], known.layout[known.keep])
    there = known.keep[0].flatten()
    covariance = CorrelatedDenoiser().covariance
    gain = covariance[~there][:, there] @ torch.linalg.inv(covariance[there][:, there])
    rest = drawn.flatten(1)[:, ~there]
    spread = covariance[~there][:, ~there] - gain @ covariance[there][:, ~there]
    assert (rest.mean(0) - gain @ known.layout[0].flatten()[there]).abs().max() < 0.17
    assert (rest.T.cov() - spread).abs().max() < 0.15


def test_a_model_that_draws_whole_layouts_only_is_refused_with_those_that_can():
    with pytest.raises(CapabilityError, match="masked_transformer"):
        Inpaint(Normal(), half_known(1))(CorrelatedDenoiser(), Conditions.empty(SPEC, 1), Noise([0]))


@settings(deadline=None)
@given(
    height=st.integers(4, 40), width=st.integers(4, 40), size=st.integers(1, 12), overlap=st.floats(0, 0.9),
    batch=st.integers(1, 5),
)  # fmt: skip
def test_windows_cover_an_area_and_put_together_are_it_again(height, width, size, overlap, batch):
    size = min(size, height, width)
    tiling = Tiling.cover(height, width, size, overlap)
    assert (tiling.height, tiling.width) == (height, width)
    for beginnings in (tiling.rows, tiling.columns):
        shared = [before + size - after for before, after in pairwise(beginnings)]
        assert all(n >= int(size * overlap) for n in shared)
    area = torch.rand(1, 2, height, width, generator=torch.Generator().manual_seed(0))
    asked = []

    def windows(numbers):
        asked.extend(numbers)
        return tiling.cut(area, numbers)

    joined = torch.cat(list(tiling.blend(windows, batch)), 2)
    assert torch.allclose(joined, area, atol=1e-5)
    assert asked == list(range(len(tiling)))
    finer = tiling.refine(3)
    assert (finer.height, finer.width, len(finer)) == (3 * height, 3 * width, len(tiling))


@pytest.mark.parametrize("sampler", [Heun(6), DpmSolver(6), Euler(6)], ids=lambda s: type(s).__name__)
def test_of_cells_that_know_nothing_of_each_other_an_area_is_one_large_window(sampler):
    model, tiling = CellwiseDenoiser(), Tiling.cover(9, 14, SIDE)
    conditions = Conditions.empty(SPEC, len(tiling))
    drawn = Area(sampler, tiling)(model, conditions, Noise([5]))
    sigmas = sampler.sigmas().tolist()
    start = Noise([5]).normal(1, 9, 14) * sigmas[0]
    whole = sampler.walk(lambda x, sigma: model.denoise(x, torch.tensor([sigma]), None), start, sigmas, Noise([5]))
    assert torch.allclose(drawn, whole, atol=1e-4)


def source():
    layout = torch.rand(1, 1, 8, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return Known(layout, torch.zeros_like(layout, dtype=torch.bool))


def changed(**how):
    tiling = Tiling.cover(8, 12, SIDE)
    area = Area(Heun(48), tiling, source(), **how)
    drawn = area(CorrelatedDenoiser(), Conditions.empty(SPEC, len(tiling)), Noise([0]))
    return (drawn - source().layout).square().mean().sqrt().item()


def test_the_weaker_the_change_the_nearer_it_stays_and_an_inversion_comes_back():
    strong, middling, weak = (changed(strength=s) for s in (1.0, 0.5, 0.2))
    assert weak < 0.3 * strong
    assert weak < middling < strong
    assert changed(strength=0.9, begin="inversion") < 0.1 * changed(strength=0.9)


def test_what_is_kept_of_an_area_is_exactly_what_it_was():
    known = source()
    known.keep[:, :, 2:6, 3:9] = True
    tiling = Tiling.cover(8, 12, SIDE)
    drawn = Area(Heun(6), tiling, known)(CorrelatedDenoiser(), Conditions.empty(SPEC, len(tiling)), Noise([0]))
    assert torch.allclose(drawn[known.keep], known.layout[known.keep], atol=1e-9)
    assert (drawn != known.layout)[~known.keep].all()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"strength": 0.0}, "0 < strength"),
        ({"strength": 1.5}, "0 < strength"),
        ({"begin": "nowhere"}, "inversion"),
        ({"strength": 0.5, "known": None}, "no layout to begin from"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong, words):
    with pytest.raises(ConfigError, match=words):
        replace(Area(Heun(6), Tiling.cover(8, 12, SIDE), source()), **wrong)


def test_windows_larger_than_their_area_are_refused():
    with pytest.raises(ConfigError, match="8 × 8 cells or more"):
        Tiling.cover(7, 20, 8)
