import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from citygrain.data.cityraster import CityRaster
from citygrain.data.dataset import CityWindows, _hash, _mixed, collate_whole
from citygrain.data.rules import Allowed, Augmentation, Rules, _box_sums, list_common_channels
from citygrain.data.transforms import cut_out, to_batch, turn
from citygrain.errors import DataError
from citygrain.geo.layers import CHANNEL_NAMES
from citygrain.spec import LayoutSpec

RULES = Rules(32, 8.0)
VARIED = Augmentation(zoom=1.3, rotation=20.0, noise=0.1)


@pytest.fixture(scope="module")
def rasters(cities):
    return [CityRaster.open(cities / name) for name in ("squareville", "wideham")]


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize(("size_px", "resolution_m"), [(32, 8.0), (30, 4.0), (50, 2.0), (128, 2.0)])
def test_windows_lie_wholly_in_their_split_with_data_and_built(rasters, split, size_px, resolution_m):
    raster = rasters[0]
    rules = Rules(size_px, resolution_m, min_valid=0.9, min_built=0.1)
    windows = CityWindows([raster], split, rules)
    mask, level = raster.split_mask(resolution_m, split), raster.level(resolution_m)
    bands = [raster.channels.index(name) for name in ("building", "arterial", "street")]
    slack = 2 * 8 / (size_px * resolution_m)  # judged for the smallest square of 8 m cells that holds the window
    _, rows, cols, _ = windows.locate(range(min(len(windows), 300)))
    for row, col in zip(rows, cols, strict=True):
        at = np.s_[row : row + size_px, col : col + size_px]
        assert mask[at].shape == (size_px, size_px)
        assert mask[at].all()
        assert level.valid[at].mean() >= 0.9 - slack
        assert level.array[(bands, *at)].sum() / 255 / size_px**2 >= 0.1 - slack


def test_bytes_are_those_of_the_raster_turned(rasters):
    windows = CityWindows(rasters, "train", RULES)
    raw = windows.__getitems__(range(64))
    assert raw.layout.dtype == torch.uint8
    assert raw.layout.shape == (64, len(windows.channels), 32, 32)
    assert set(raw.symmetry.tolist()) == set(range(8))
    assert set(raw.place.tolist()) == {0, 1}
    assert raw.extent.eq(1).all()
    assert raw.angle.eq(0).all()
    assert raw.noise.numel() == 0
    for layout, place, row, col, symmetry in zip(*raw[:5], strict=True):
        raster = rasters[place]
        bands = [raster.channels.index(c) for c in windows.channels]
        expected = torch.from_numpy(raster.read(int(row), int(col), 32, 8.0)[bands])
        assert torch.equal(layout, turn(expected, int(symmetry)))


def test_windows_for_a_model_of_format_1_hold_what_was_parted(rasters):
    today = CityWindows(rasters, "train", RULES)
    before = CityWindows(rasters, "train", RULES, raster_format=1)
    assert before.channels == tuple(name for name in today.channels if name not in {"service", "square"})
    now, then = (windows.__getitems__(range(40)).layout.int() for windows in (today, before))
    band = {name: now[:, i] for i, name in enumerate(today.channels)}
    assert band["square"].any()
    for i, name in enumerate(before.channels):
        parts = {"walk": band["walk"] + band["square"], "street": band["street"] + 1.6 * band["service"]}
        assert torch.equal(then[:, i], parts.get(name, band[name]).clamp(max=255).round().int()), name
    with pytest.raises(DataError, match="square"):
        CityWindows(rasters, "train", RULES, channels=["building", "square"], raster_format=1)
    blind = [replace(raster, unknown={**raster.unknown, "square": "nobody looked"}) for raster in rasters]
    assert "walk" in CityWindows(blind, "train", RULES).channels
    assert "walk" not in CityWindows(blind, "train", RULES, raster_format=1).channels, "half of it is not known"


@settings(max_examples=20, deadline=None)
@given(
    indices=st.lists(st.integers(0, 2**40), min_size=1, max_size=9),
    seed=st.integers(-(2**70), 2**70),
    augmentation=st.sampled_from([Augmentation(), VARIED]),
)
def test_a_window_depends_on_seed_and_index_alone(rasters, indices, seed, augmentation):
    together = CityWindows(rasters, "train", RULES, augmentation=augmentation, seed=seed).__getitems__(indices)
    other = CityWindows(rasters, "train", RULES, augmentation=augmentation, seed=seed)
    for i, index in enumerate(indices):
        for whole, single in zip(together, other[index], strict=True):
            assert torch.equal(whole[i], single[0])


def test_another_seed_gives_other_windows(rasters):
    first, second = (CityWindows(rasters, "train", RULES, seed=s).locate(range(50)) for s in (0, 1))
    assert not np.array_equal(first[1], second[1])
    assert not np.array_equal(first[0], second[0])


def test_hashed_words_are_even_and_unlike_each_other():
    words = [_hash(3, np.arange(50_000, dtype=np.uint64), stream) / 2.0**64 for stream in range(8)]
    for word in words:
        counts = np.histogram(word, 50, (0, 1))[0]
        assert ((counts - 1000) ** 2 / 1000).sum() < 100  # chi-squared with 49 degrees of freedom: p < .0001
        assert abs(np.corrcoef(word[:-1], word[1:])[0, 1]) < 0.02
    correlated = np.corrcoef(words)
    assert np.abs(correlated - np.eye(8)).max() < 0.02


def test_without_symmetries_windows_are_the_same_ones_as_they_are(rasters):
    turned = CityWindows(rasters, "train", RULES).__getitems__(range(50))
    upright = CityWindows(rasters, "train", RULES, augmentation=Augmentation(symmetries=False)).__getitems__(range(50))
    assert not upright.symmetry.any()
    for there, here, symmetry in zip(turned.layout, upright.layout, turned.symmetry, strict=True):
        assert torch.equal(there, turn(here, int(symmetry)))


def test_extents_and_angles_are_even_between_their_limits(rasters):
    windows = CityWindows(rasters, "train", RULES, augmentation=replace(VARIED, noise=0.0))
    extent, angle, _ = (torch.from_numpy(drawn) for drawn in windows._drawn(range(20_000)))
    for drawn, limit in (((extent * windows.reach / 32).log(), math.log(1.3)), (angle, math.radians(20))):
        assert drawn.abs().max() <= limit * (1 + 1e-5)
        assert torch.histc(drawn, 20, -limit, limit) == pytest.approx(torch.full((20,), 1000.0), abs=130)
    assert abs(torch.corrcoef(torch.stack([extent.log(), angle]))[0, 1]) < 0.03


@given(size=st.integers(1, 40), zoom=st.floats(1, 4), rotation=st.floats(0, 45))
@settings(max_examples=50, deadline=None)
def test_the_square_around_a_window_holds_all_that_it_is_made_of(size, zoom, rotation):
    reach = Augmentation(zoom=zoom, rotation=rotation).reach(size)
    extent, angle = torch.tensor([zoom * size / reach]), torch.tensor([math.radians(rotation)])
    ones = torch.ones(1, 1, reach, reach)
    for turned in (angle, -angle):
        assert cut_out(ones, size, extent, turned) == pytest.approx(1, abs=1e-4)  # beyond the square there is nothing


@pytest.mark.slow
def test_no_varied_window_shows_anything_of_a_held_out_block_or_its_buffer(rasters):
    raster = rasters[0]
    windows = CityWindows([raster], "train", RULES, augmentation=Augmentation(zoom=1.3, rotation=45.0))
    level = raster.level(4.0)
    painted = np.broadcast_to(raster.split_mask(4.0, "train") * np.uint8(255), level.array.shape)
    windows._levels = [replace(level, array=painted)]
    layout = to_batch(windows.__getitems__(range(200)), LayoutSpec(windows.channels, 32, 8.0)).layout
    assert layout == pytest.approx(1, abs=1e-5)


def test_varied_windows_hold_as_much_of_each_channel_as_the_city_does(rasters):
    raster = rasters[0]
    channels = ("street", "cycle", "green")
    windows = CityWindows(
        [raster], "train", RULES, channels=channels, augmentation=Augmentation(zoom=1.5, rotation=30.0)
    )
    level = raster.level(4.0)
    painted = np.zeros_like(level.array)
    street, cycle, green = (painted[raster.channels.index(name)] for name in channels)
    street[:, ::11] = street[:, 1::11] = 255
    cycle[::31] = 127  # so thin that it covers half of each cell that it crosses
    green[np.random.default_rng(0).random(green.shape) < 0.3] = 255
    windows._levels = [replace(level, array=painted)]
    shares = to_batch(windows.__getitems__(range(600)), LayoutSpec(channels, 32, 8.0)).layout.mean((2, 3))
    error = shares.std(0) / len(shares) ** 0.5
    assert (error / shares.mean(0) < 0.02).all()
    for name, mean, sigma, share in zip(
        channels, shares.mean(0), error, (2 / 11, 127 / 255 / 31, float(green.mean()) / 255), strict=True
    ):
        assert mean == pytest.approx(share, abs=4 * float(sigma)), name


def test_windows_that_are_resampled_are_read_twice_as_fine_where_all_places_can(rasters):
    for places, resolution_m, finer in ((rasters, 8.0, 2), (rasters, 4.0, 1), (rasters[:1], 4.0, 2)):
        rules = Rules(32, resolution_m)
        windows = CityWindows(places, "train", rules, augmentation=Augmentation(rotation=10.0, symmetries=False))
        raw = windows[7]
        assert raw.layout.shape[-1] == windows.reach * finer
        raster, row, col = places[int(raw.place)], int(raw.row), int(raw.col)
        bands = [raster.channels.index(c) for c in windows.channels]
        read = raster.read(row * finer, col * finer, windows.reach * finer, resolution_m / finer)
        assert torch.equal(raw.layout[0], torch.from_numpy(read[bands]))


def test_noise_is_as_strong_as_asked_for_and_new_for_every_window(rasters):
    noise = CityWindows(rasters, "train", RULES, augmentation=Augmentation(noise=0.1)).__getitems__(range(20)).noise
    assert noise.std() == pytest.approx(0.1, rel=0.02)
    assert abs(noise.mean()) < 0.001
    assert torch.corrcoef(noise.flatten(1)).fill_diagonal_(0).abs().max() < 0.1


@pytest.mark.parametrize("split", ["val", "test"])
def test_held_out_windows_are_never_varied(rasters, split):
    varied = CityWindows(rasters, split, RULES, augmentation=VARIED)
    as_they_are = CityWindows(rasters, split, RULES)
    assert len(varied) == len(as_they_are)
    for got, expected in zip(varied.__getitems__(range(9)), as_they_are.__getitems__(range(9)), strict=True):
        assert torch.equal(got, expected)


def test_train_windows_go_everywhere_they_may(rasters):
    windows = CityWindows([rasters[0]], "train", RULES)
    free = windows._allowed[0].free
    _, row, col, _ = windows.locate(range(20_000))
    assert free[row, col].all()
    seen = np.zeros_like(free)
    seen[row, col] = True
    expected = 1 - (1 - 1 / free.sum()) ** 20_000
    assert seen.sum() / free.sum() == pytest.approx(expected, rel=0.05)


def test_at_fine_resolutions_windows_begin_at_any_cell(rasters):
    windows = CityWindows([rasters[0]], "train", Rules(64, 2.0))
    _, row, col, _ = windows.locate(range(2000))
    for at in (row, col):
        assert (np.bincount(at % 4, minlength=4) > 300).all()


def test_a_window_as_large_as_its_blocks_still_has_a_place(rasters):
    """Moving a window off the coarse cells is only allowed where it stays in the split."""
    raster = rasters[0]
    mask = raster.split_mask(8.0, "train")
    size = max(n for n in range(8, min(mask.shape)) if (_box_sums(mask, n) == n**2).any())
    windows = CityWindows([raster], "train", Rules(4 * size, 2.0, 0.0, 0.0))
    fine = raster.split_mask(2.0, "train")
    for row, col in zip(*windows.locate(range(200))[1:3], strict=True):
        assert fine[row : row + 4 * size, col : col + 4 * size].all()


def ragged(seed, factor, cells):
    """Where windows may begin, when they may anywhere in some ragged region."""
    allowed = object.__new__(Allowed)
    mask = np.kron(np.random.default_rng(seed).random((6, 7)) < 0.8, np.ones((5, 5), bool))
    allowed.mask, allowed.factor, allowed.cells = mask, factor, cells
    allowed.inside = allowed.free = _box_sums(mask, cells) == cells**2
    allowed._starts = np.flatnonzero(allowed.free)
    return allowed


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), factor=st.sampled_from([1, 2, 4]), cells=st.integers(1, 6))
def test_in_a_ragged_region_windows_stay_inside_and_grids_do_not_overlap(seed, factor, cells):
    allowed = ragged(seed, factor, cells)
    fine = np.kron(allowed.mask, np.ones((factor, factor), bool))
    size = factor * cells
    if len(allowed):
        words = np.random.default_rng(seed).integers(0, 2**63, (3, 500), dtype=np.uint64)
        for row, col in zip(*allowed.draw(*words), strict=True):
            window = fine[row : row + size, col : col + size]
            assert window.shape == (size, size)
            assert window.all()
    covered = np.zeros(fine.shape, int)
    for row, col in allowed.grid():
        covered[row : row + size, col : col + size] += 1
    assert covered.max() <= 1
    assert not covered[~fine].any()
    assert len(allowed.grid()) > 0 or not len(allowed)


@pytest.mark.parametrize("split", ["val", "test"])
def test_fixed_grids_do_not_overlap_and_do_not_change(rasters, split):
    windows, again = (CityWindows(rasters, split, RULES, seed=seed) for seed in (0, 1))
    located = windows.locate(range(len(windows)))
    np.testing.assert_array_equal(located, again.locate(range(len(windows))))
    place, row, col, symmetry = located
    assert not symmetry.any()
    for p in (0, 1):
        seen = np.zeros(rasters[p].split_mask(8.0, split).shape, int)
        for r, c in zip(row[place == p], col[place == p], strict=True):
            seen[r : r + 32, c : c + 32] += 1
        assert seen.max() == 1


def test_splits_share_no_cell_and_train_keeps_its_distance(rasters):
    raster = rasters[0]
    covered = {}
    for split in ("train", "val", "test"):
        windows = CityWindows([raster], split, RULES)
        seen = covered[split] = np.zeros(raster.split_mask(8.0, split).shape, bool)
        _, row, col, _ = windows.locate(range(3000 if split == "train" else len(windows)))
        for r, c in zip(row, col, strict=True):
            seen[r : r + 32, c : c + 32] = True
    assert not (covered["val"] & covered["test"]).any()
    held_out = np.argwhere(covered["val"] | covered["test"])
    trained = np.argwhere(covered["train"])
    gap = min(np.abs(trained - cell).max(1).min() for cell in held_out[::7]) - 1
    assert gap * 8.0 >= raster.buffer_m


def test_places_are_balanced_as_asked(rasters):
    free = [CityWindows([r], "train", RULES)._allowed[0].free.sum() for r in rasters]
    room = [n * max(r.resolutions) ** 2 for n, r in zip(free, rasters, strict=True)]  # in square metres
    assert room[1] > 1.5 * room[0]
    for balance, expected in (("places", 0.5), ("area", room[1] / sum(room))):
        place = CityWindows(rasters, "train", RULES, balance=balance).locate(range(20_000))[0]
        assert place.mean() == pytest.approx(expected, abs=0.015)


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    limit=st.integers(1, 60),
    balance=st.sampled_from(["places", "area"]),
)
def test_a_limit_takes_evenly_from_places_and_from_within_them(counts, limit, balance):
    grids = [np.stack([np.arange(n), np.zeros(n, int)], 1) for n in counts]
    chosen = _mixed(grids, balance, limit)
    assert len(chosen) == min(limit, sum(counts))
    assert len({tuple(c) for c in chosen.tolist()}) == len(chosen)
    taken = np.bincount(chosen[:, 0], minlength=len(counts))
    if balance == "places":  # nobody gives more than one more than another who still has some
        assert all(
            taken[i] <= taken[j] + 1 or taken[j] == counts[j] for i in range(len(counts)) for j in range(len(counts))
        )
    for p, n in enumerate(counts):
        if taken[p] > 1:
            assert np.diff(chosen[chosen[:, 0] == p, 1]).max() <= np.ceil(n / taken[p])


def test_the_first_windows_of_a_fixed_grid_come_from_all_places(rasters):
    windows = CityWindows(rasters, "val", RULES, limit=8)
    assert len(windows) == 8
    assert set(windows.locate(range(2))[0].tolist()) == {0, 1}


def test_indices_beyond_a_grid_or_below_zero_are_refused(rasters):
    windows = CityWindows(rasters, "val", RULES)
    for index in (len(windows), -1):
        with pytest.raises(IndexError):
            windows[index]
    with pytest.raises(IndexError):
        CityWindows(rasters, "train", RULES)[-1]


def test_channels_that_a_place_does_not_know_are_left_out_and_named(rasters):
    channels, left_out = list_common_channels(rasters)
    assert channels == tuple(c for c in CHANNEL_NAMES if c not in {"parking", "rail"})
    assert left_out == {"parking": "squareville: nobody looked", "rail": "wideham: no rails were drawn"}
    windows = CityWindows(rasters, "train", RULES)
    assert windows.channels == channels
    assert windows.left_out == left_out


def test_channels_come_in_the_order_asked_for(rasters):
    asked = ("street", "building", "green")
    windows = CityWindows(rasters, "train", RULES, channels=asked)
    everything = CityWindows(rasters, "train", RULES)
    order = [everything.channels.index(c) for c in asked]
    assert torch.equal(windows[5].layout, everything[5].layout[:, order])
    with pytest.raises(DataError, match="squareville: nobody looked"):
        CityWindows(rasters, "train", RULES, channels=("parking",))
    with pytest.raises(DataError, match="did you mean: street"):
        CityWindows(rasters, "train", RULES, channels=("streets",))


def test_a_split_without_windows_says_which_rule_left_none(rasters):
    with pytest.raises(DataError, match=r"no train window.*\n.*\n.*[1-9]\d* with data, less than 99.0% built") as error:
        CityWindows(rasters, "train", Rules(32, 8.0, min_built=0.99))
    assert "size_px" in str(error.value)
    with pytest.raises(DataError, match="not wholly in val blocks"):
        CityWindows(rasters, "val", Rules(128, 8.0))
    with pytest.raises(DataError, match="smaller than a window"):
        CityWindows(rasters, "test", Rules(4096, 8.0))


def test_varied_windows_that_fit_nowhere_say_how_far_they_reach(rasters):
    with pytest.raises(DataError, match=r"64 px, which zoomed and turned takes \d+ px at 8 m") as error:
        CityWindows(rasters, "train", Rules(64, 8.0), augmentation=Augmentation(zoom=4.0, rotation=45.0))
    assert "smaller size_px, zoom or rotation" in str(error.value)


@pytest.mark.parametrize("wrong", [{"zoom": 0.5}, {"rotation": 50.0}, {"rotation": -1.0}, {"noise": -0.1}])
def test_augmentation_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(DataError, match=f"such a {next(iter(wrong))}"):
        Augmentation(**wrong)


def test_a_resolution_that_one_place_lacks_is_refused_by_name(rasters):
    with pytest.raises(DataError, match="wideham has no level"):
        CityWindows(rasters, "train", Rules(32, 2.0))


@pytest.mark.parametrize(
    "wrong",
    [
        {"size_px": 0, "resolution_m": 8.0},
        {"size_px": 8, "resolution_m": 0.0},
        {"size_px": 8, "resolution_m": 8.0, "min_valid": 2.0},
        {"size_px": 8, "resolution_m": 8.0, "min_built": -0.1},
    ],
)
def test_rules_that_make_no_sense_are_refused(wrong):
    with pytest.raises(DataError):
        Rules(**wrong)


def test_other_arguments_that_make_no_sense_are_refused(rasters):
    with pytest.raises(DataError, match="at least one"):
        CityWindows([], "train", RULES)
    with pytest.raises(DataError, match="did you mean: area"):
        CityWindows(rasters, "train", RULES, balance="areas")
    with pytest.raises(DataError, match="no such split"):
        CityWindows(rasters, "training", RULES)


def test_a_pickle_holds_no_pixels(rasters):
    windows = CityWindows(rasters, "val", RULES)
    expected = windows[0]
    pickled = pickle.dumps(windows)
    assert len(pickled) < 200_000
    assert torch.equal(pickle.loads(pickled)[0].layout, expected.layout)


def test_a_loader_gives_whole_batches(rasters):
    windows = CityWindows(rasters, "val", RULES)
    loader = DataLoader(windows, 3, sampler=range(7), collate_fn=collate_whole)
    batches = list(loader)
    assert [len(b.layout) for b in batches] == [3, 3, 1]
    assert torch.equal(batches[1].layout, windows.__getitems__([3, 4, 5]).layout)


@given(size=st.integers(1, 7), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_box_sums_are_sums_of_boxes_even_when_the_table_wraps(size, seed):
    values = np.random.default_rng(seed).integers(0, 2**29, (9, 7), dtype=np.uint32) // size**2
    sums = _box_sums(values, size)
    assert sums.shape == (10 - size, 8 - size)
    for i, j in np.ndindex(*sums.shape):
        assert sums[i, j] == values[i : i + size, j : j + size].sum(dtype=np.uint64)
