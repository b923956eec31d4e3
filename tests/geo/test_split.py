"""Blocks are dealt out fairly, and no train window comes near a held-out one."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from citygrain.errors import DataError
from citygrain.geo.rasterize import Grid
from citygrain.geo.split import FEWEST_BLOCKS, SPLITS, mask_split, split_blocks

CRS = "EPSG:32633"


def a_place(height, width, seed=0, sea=0.0):
    """A coarse grid of 8 m, what is valid and what is built on it; a share of its east is sea without data."""
    grid = Grid(CRS, 8000.0, 64000.0, 8.0, width, height)
    rng = np.random.default_rng(seed)
    valid = np.ones((height, width), np.float32)
    valid[:, round(width * (1 - sea)) :] = 0
    return valid, rng.uniform(0, 0.4, (height, width)).astype(np.float32) * valid, grid


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(8, 60), st.integers(8, 60)),
    block_m=st.floats(100, 3000),
    buffer_m=st.floats(0, 300),
    seed=st.integers(0, 1000),
    finer=st.sampled_from([1, 2, 4]),
    window=st.integers(1, 40),
    data=st.data(),
)
def test_no_train_window_touches_a_held_out_block(size, block_m, buffer_m, seed, finer, window, data):
    """Whatever its size and place, at every resolution: nor does it come nearer than the buffer."""
    valid, built, coarse = a_place(size[0] * 8, size[1] * 8, seed)
    split = split_blocks(valid, built, coarse, block_m, buffer_m, seed)
    grid = Grid(CRS, coarse.left, coarse.top, 8.0 / finer, coarse.width * finer, coarse.height * finer)
    mask = mask_split(split.blocks, grid, "train", split.buffer_m)
    assume(min(mask.shape) >= window)
    sums = np.pad(np.cumsum(np.cumsum(mask, 0), 1), ((1, 0), (1, 0)))
    inside = sums[window:, window:] - sums[:-window, window:] - sums[window:, :-window] + sums[:-window, :-window]
    rows, cols = np.nonzero(inside == window * window)
    assume(len(rows))
    k = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=20))
    r = grid.resolution_m
    left, top = grid.left + cols[k] * r, grid.top - rows[k] * r
    windows = shapely.box(left, top - window * r, left + window * r, top)
    held_out = shapely.union_all(split.blocks[split.blocks["split"] != "train"].geometry)
    assert shapely.distance(windows, held_out).min() >= split.buffer_m - 1e-6
    assert not shapely.intersects(windows, held_out).any() or split.buffer_m == 0
    assert shapely.area(shapely.intersection(windows, held_out)).max() == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(8, 80), st.integers(8, 80), st.floats(100, 3000), st.integers(0, 99))
def test_blocks_tile_the_place_and_every_split_has_some(height, width, block_m, seed):
    valid, built, grid = a_place(height * 8, width * 8, seed)
    split = split_blocks(valid, built, grid, block_m, 100, seed)
    assert split.blocks.geometry.area.sum() == pytest.approx(grid.width * grid.height * 64)
    assert shapely.union_all(split.blocks.geometry).area == pytest.approx(grid.width * grid.height * 64)
    counts = split.blocks["split"].value_counts()
    assert set(counts.index) == set(SPLITS)
    assert counts["val"] == counts["test"]
    if len(split.blocks) >= 10:
        assert 0.06 <= counts["val"] / len(split.blocks) <= 0.14


def test_large_places_have_blocks_of_two_kilometres_and_small_ones_at_least_twelve():
    large = split_blocks(*a_place(2000, 2000))
    assert large.block_m == pytest.approx(2000)
    assert large.buffer_m == 128
    assert len(large.blocks) == 64
    small = split_blocks(*a_place(150, 150))
    assert len(small.blocks) >= FEWEST_BLOCKS
    assert small.block_m < 400
    assert small.buffer_m <= small.block_m / 8 + 8


def test_blocks_without_data_are_left_out_and_empty_ones_not_held_out():
    valid, built, grid = a_place(2000, 2000, sea=0.4)
    built[1000:] = 0  # fields
    split = split_blocks(valid, built, grid)
    assert split.blocks.geometry.bounds["minx"].max() < 8000 + 0.6 * 16000
    held_out = split.blocks[split.blocks["split"] != "train"]
    assert len(held_out) >= 2
    assert (held_out.geometry.bounds["maxy"] > 64000 - 8000).all()
    assert (held_out["valid"] >= 0.5).all()
    everywhere = sum(mask_split(split.blocks, grid, name, 0.0).astype(int) for name in SPLITS)
    assert everywhere.max() == 1
    assert not everywhere[:, 1500:].any()


def test_splits_see_the_same_mix_of_dense_and_open():
    valid, built, grid = a_place(4000, 4000)
    built *= np.linspace(0.1, 1, 4000, dtype=np.float32)  # denser towards the east
    split = split_blocks(valid, built, grid)
    density = [built[r0 : r0 + 250, c0 : c0 + 250].mean() for r0, c0 in _corners(split.blocks, grid)]
    terciles = np.searchsorted(np.quantile(density, [1 / 3, 2 / 3]), density)
    for name in ("val", "test"):
        held = np.bincount(terciles[(split.blocks["split"] == name).to_numpy()], minlength=3)
        assert held.min() >= 0.6 * held.sum() / 3


def _corners(blocks, grid):
    bounds = blocks.geometry.bounds
    return zip(
        ((grid.top - bounds["maxy"]) / 8).round().astype(int),
        ((bounds["minx"] - grid.left) / 8).round().astype(int),
        strict=True,
    )


def test_the_deal_depends_on_the_seed_alone():
    first, again, other = (split_blocks(*a_place(2000, 2000), seed=s).blocks for s in (1, 1, 2))
    assert first.equals(again)
    assert not first["split"].equals(other["split"])


def test_what_cannot_be_split_says_so():
    with pytest.raises(DataError, match=r"too small, or too empty"):
        split_blocks(*a_place(8, 16))
    valid, built, grid = a_place(800, 800)
    with pytest.raises(DataError, match=r"too small, or too empty"):
        split_blocks(valid, built * 0, grid)
    with pytest.raises(DataError, match=r"block_m > 0"):
        split_blocks(valid, built, grid, block_m=0)
    blocks = split_blocks(valid, built, grid).blocks
    with pytest.raises(DataError, match="did you mean: train"):
        mask_split(blocks, grid, "trian", 0.0)
