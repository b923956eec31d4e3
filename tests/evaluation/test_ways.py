"""Ways of layouts beside real windows: what is compared, and figures of sets whose figures are known."""

import math

import numpy as np
import pytest

from citygrain.evaluation.gather import gather
from citygrain.evaluation.key_points import measure_ways
from citygrain.evaluation.ways import (
    DRAWN,
    OTHER,
    REAL,
    SETS,
    Figure,
    WaySets,
    contrast_places,
    find_median,
    judge_ways,
    list_times_floor,
)

CHANNELS = ("arterial", "street", "cycle")
N, SIZE = 6, 32


def lattices(every, gap=0, seed=0):
    """Layouts with a street at `every` cells both ways, moved a little each; `gap` cells are missing between two."""
    rng = np.random.default_rng(seed)
    cells = np.zeros((N, len(CHANNELS), SIZE, SIZE), np.uint8)
    for layout in cells:
        first = rng.integers(2, 6)
        layout[1, first::every, :] = layout[1, :, first::every] = 255
        layout[1, first + every + 3 : first + every + 3 + gap] = 0
        layout[0, first] = 255 - layout[1, first]
        layout[2, :, rng.integers(2, SIZE)] = 255
    return cells


def sets_of(folder, name="somewhere", **cells):
    measured = {
        which: gather(
            which, N, lambda at, part=part: part[at.start : at.stop], folder / name, channels=CHANNELS,
            resolution_m=8.0, measure_one=measure_ways,
        )
        for which, part in cells.items()
    }  # fmt: skip
    searched = np.random.default_rng(9).uniform(size=(40, len(CHANNELS), 16, 16)).astype(np.float32)
    return WaySets.of(name, CHANNELS, cells, measured, searched)


def no_classifier(made, real):
    """Say how many channels were shown."""
    assert len(made) == len(real)
    return float(made.shape[1])


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ways")
    return sets_of(folder, real=lattices(8), other=lattices(8, seed=1), drawn=lattices(8, gap=2, seed=2))


def test_what_is_drawn_is_measured_against_what_is_real(sets):
    figures = judge_ways(sets, no_classifier)
    component = figures["in the largest component, drive [–]"]
    assert (component.real, component.other) == (1, 1)
    assert component.share == component.drawn < 0.9
    ends = figures["dead ends, drive [–]"]
    assert ends.real == 0 < ends.drawn
    assert math.isnan(ends.share), "nothing is no multiple of nothing"
    assert figures["ends that miss a way [–]"].drawn == 1, "16 m are missing"
    assert math.isnan(figures["ends that miss a way [–]"].real)
    assert figures["Fréchet distance of reach"].drawn > figures["Fréchet distance of reach"].other


def test_each_classifier_is_shown_its_channels(sets):
    figures = judge_ways(sets, no_classifier)
    assert figures["told apart, arterial and street"].drawn == 2
    assert figures["told apart, all ways"].other == 3


def test_a_set_that_is_twice_as_far_is_twice_the_floor(sets):
    real = {"drive_dead_ends": np.arange(9.0), "drive_four_way": np.zeros(9), "nothing": np.arange(9.0)}
    moved = {which: {name: v + by for name, v in real.items()} for which, by in ((REAL, 0), (OTHER, 1), (DRAWN, 2))}
    changed = WaySets(sets.name, sets.channels, sets.cells, moved, sets.samples, sets.searched)
    assert list_times_floor(changed) == {"drive_dead_ends": pytest.approx(2)}


def test_copies_are_found(sets):
    copied = judge_ways(sets, no_classifier)["nearer to a training window than 1 % of real ones"]
    assert copied.drawn == 0
    searched = sets.cells[DRAWN].reshape(N, len(CHANNELS), 16, 2, 16, 2).mean((3, 5)).astype(np.float32) / 255
    known = WaySets(sets.name, sets.channels, sets.cells, sets.values, sets.samples, searched)
    figures = judge_ways(known, no_classifier)
    assert figures["nearer to a training window than 1 % of real ones"].drawn == 1
    assert figures["distance of the nearest training window"].drawn == pytest.approx(0, abs=1e-3)


def test_places_are_joined_in_what_all_of_them_know(sets, tmp_path):
    other = sets_of(tmp_path, real=lattices(9), other=lattices(9, seed=1), drawn=lattices(9, seed=2))
    streets = WaySets(
        "streets", ("street", "arterial"), {which: other.cells[which][:, [1, 0]] for which in SETS},
        {which: {k: v for k, v in other.values[which].items() if "cycle" not in k} for which in SETS},
        other.samples, other.searched[:, [1, 0]],
    )  # fmt: skip
    both = WaySets.join("both", [sets, streets])
    assert both.channels == ("arterial", "street")
    assert (both.cells[DRAWN][N:] == lattices(9, seed=2)[:, :2]).all()
    assert both.searched.shape == (80, 2, 16, 16)
    assert not [name for name in both.values[REAL] if "cycle" in name]
    assert len(both.values[REAL]["drive_dead_ends"]) == 2 * N
    assert len(both.samples[REAL]["drive_density"]) == 2 * N


def test_a_share_is_of_the_real_figure():
    assert Figure(4.0, 5.0, 3.0).share == 0.75
    assert math.isnan(Figure(math.nan, 1.0, 3.0).share)


def test_a_median_is_of_the_layouts_that_have_something_to_measure():
    assert find_median(np.array([1.0, math.nan, 2.0, 9.0])) == 2
    assert math.isnan(find_median(np.full(3, math.nan)))


def test_a_contrast_of_places_is_large_where_real_ones_differ_and_tells_whether_layouts_differ_alike(tmp_path):
    """Streets lie twice as dense in the second place; its layouts are like those of the first."""
    wide, narrow = lattices(12), lattices(6, seed=1)
    first = sets_of(tmp_path, "first", real=wide, other=wide, drawn=wide)
    second = sets_of(tmp_path, "second", real=narrow, other=narrow, drawn=wide)
    found = contrast_places(first, second)
    by_label = {one.label: one for one in found}
    density = by_label["length density, drive"]
    assert (density.real, density.drawn) == (1.0, 0.0)
    assert by_label["block perimeter"].real == -1.0
    assert [abs(one.real) for one in found] == sorted((abs(one.real) for one in found), reverse=True)
    turned = {one.label: one.real for one in contrast_places(second, first)}
    assert turned == pytest.approx({one.label: -one.real for one in found})
