"""Measures have known answers on layouts drawn by hand, and the same answer whatever way a layout is held."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from citygrain import measures
from citygrain.data.transforms import SYMMETRIES, turn
from citygrain.errors import ConditionError, DataError
from citygrain.geo.layers import CHANNEL_NAMES, WIDTHS
from citygrain.measures import DECAY_M, MEASURES, mappable, measurable, measure, measure_maps

CHANNELS = CHANNEL_NAMES
HECTARES = 2 * math.pi * DECAY_M**2 / 1e4  # what people can reach where everything is built


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small tensors: threads only wait for each other
    yield
    torch.set_num_threads(threads)


def empty(size=64, dtype=np.float64):
    return np.zeros((len(CHANNELS), size, size), dtype)


def drawn(size=64, **cells):
    """A layout whose channels are covered where the given slices say."""
    layout = empty(size)
    for channel, where in cells.items():
        layout[CHANNELS.index(channel)][where] = 1
    return layout


def shares(values, name):
    return float(values[name])


layouts = arrays.arrays(
    np.float64, st.tuples(st.just(len(CHANNELS)), st.just(16), st.just(16)), elements=st.floats(0, 1, width=16)
)


def test_every_measure_says_what_it_is():
    for name, m in MEASURES.items():
        assert name == m.name
        assert m.unit in {"–", "km/km²", "ha"}
        assert all((m.label, m.formula, m.source))
        assert set(m.channels) <= set(CHANNELS)
        assert set(m.weights) | set(m.per) <= set(m.channels)
        assert set(m.also) <= set(CHANNELS) - set(m.channels)
    assert list(MEASURES)[:13] == [
        "coverage", "street_density", "frontage", "arterial", "service", "parking", "cycle", "walk", "square", "rail",
        "people_flow", "green", "water",
    ]  # fmt: skip


def test_a_half_built_square_covers_half():
    values = measure(drawn(building=np.s_[:, :32]), CHANNELS, 8.0)
    assert values["coverage"] == 0.5


@pytest.mark.parametrize(("channel", "name"), [(c, c) for c in ("arterial", "cycle", "walk", "rail")])
@pytest.mark.parametrize("resolution_m", [2.0, 8.0])
def test_one_straight_line_has_the_length_of_the_window(channel, name, resolution_m):
    layout = empty()
    layout[CHANNELS.index(channel), 20] = WIDTHS[channel] / resolution_m / 8  # a line that fills part of eight rows
    layout[CHANNELS.index(channel), 21:28] = WIDTHS[channel] / resolution_m / 8
    edge_km = 64 * resolution_m / 1000
    assert measure(layout, CHANNELS, resolution_m)[name] == pytest.approx(edge_km / edge_km**2)


def test_a_manhattan_grid_has_two_edges_to_a_block():
    layout = drawn(street=np.s_[::16])  # 8 m streets at 8 m, every 128 m, both ways
    layout[CHANNELS.index("street")][:, ::16] = 1
    crossings = 4 * 4 * 1 / 64**2  # drawn once, though both streets pass
    expected = 2 / 0.128 - crossings / 8 * 1000
    values = measure(layout, CHANNELS, 8.0)
    assert values["street_density"] == pytest.approx(expected)
    assert values["car_share"] == pytest.approx(1, abs=1e-6)


def test_arterials_count_as_streets_by_their_own_width():
    layout = drawn(arterial=np.s_[:7], street=np.s_[32:36])
    values = measure(layout, CHANNELS, 2.0)
    assert values["arterial"] == pytest.approx(1 / 0.128)
    assert values["street_density"] == pytest.approx(2 / 0.128)


def test_modal_shares_are_shares_of_length():
    layout = drawn(street=np.s_[:4], cycle=np.s_[10:12], walk=np.s_[20:23], rail=np.s_[30:32])
    values = measure(layout, CHANNELS, 2.0)  # one line each, walk drawn twice as wide: two lines
    assert [shares(values, f"{m}_share") for m in ("car", "cycle", "walk", "rail")] == pytest.approx(
        [0.2, 0.2, 0.4, 0.2], abs=1e-6
    )


@pytest.mark.parametrize("size", [4, 37, 64])
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_empty_and_full_layouts_measure_something_finite(size, fill):
    values = measure(np.full_like(empty(size), fill), CHANNELS, 8.0)
    assert all(np.isfinite(v) for v in values.values())
    if fill == 0:
        assert {name: float(v) for name, v in values.items()} == dict.fromkeys(MEASURES, 0.0)


@pytest.mark.parametrize("resolution_m", [2.0, 4.0, 8.0])
@pytest.mark.parametrize("way", ["arterial", "street", "walk", "square"])
def test_a_building_hugged_by_a_public_way_is_all_frontage(resolution_m, way):
    inside = np.zeros((64, 64), bool)
    inside[24:40, 24:40] = True
    layout = drawn(building=inside, **{way: ~inside})
    assert measure(layout, CHANNELS, resolution_m)["frontage"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("resolution_m", [2.0, 4.0, 8.0])
def test_a_building_far_from_any_way_has_no_frontage(resolution_m):
    cells = math.ceil(10 / resolution_m) + 1
    layout = drawn(building=np.s_[24:40, 24:40], street=np.s_[40 + cells :])
    assert measure(layout, CHANNELS, resolution_m)["frontage"] == 0


@pytest.mark.parametrize("resolution_m", [2.0, 4.0, 8.0])
def test_a_row_of_houses_fronts_its_street_with_one_side_of_two(resolution_m):
    layout = drawn(building=np.s_[24:40, :], street=np.s_[40:42])
    for symmetry in range(SYMMETRIES):
        values = measure(turn(layout, symmetry), CHANNELS, resolution_m)
        assert values["frontage"] == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("resolution_m", [2.0, 8.0])
def test_frontage_of_separate_houses_does_not_depend_on_how_they_are_turned(resolution_m):
    layout = drawn(building=np.s_[20:30, 24:52], street=np.s_[:, 53])
    layout[CHANNELS.index("walk"), 10:19, 20:40] = 0.3
    expected = measure(layout, CHANNELS, resolution_m)["frontage"]
    assert 0.1 < expected < 0.9
    for symmetry in range(SYMMETRIES):
        assert measure(turn(layout, symmetry), CHANNELS, resolution_m)["frontage"] == pytest.approx(expected)


@pytest.mark.parametrize(("gap_m", "expected"), [(8, 1.0), (10, 1.0), (12, 0.0)])
def test_frontage_ends_at_ten_metres(gap_m, expected):
    gap = gap_m // 2
    layout = drawn(building=np.s_[:32, :], street=np.s_[32 + gap :])
    assert measure(layout, CHANNELS, 2.0)["frontage"] == pytest.approx(expected, abs=1e-3)


def test_a_footway_that_straddles_two_cells_is_still_a_way():
    layout = drawn(building=np.s_[:32])
    layout[CHANNELS.index("walk"), 32:34] = 3 / 2 / 8
    assert measure(layout, CHANNELS, 8.0)["frontage"] == pytest.approx(1, abs=1e-3)


def test_without_buildings_there_is_no_frontage_however_many_streets():
    layout = drawn(street=np.s_[:])
    assert measure(layout, CHANNELS, 8.0)["frontage"] == 0
    assert measure(layout.astype(np.float32), CHANNELS, 8.0)["frontage"] == 0


def test_cycleways_rails_and_service_roads_are_no_frontage():
    layout = drawn(building=np.s_[:32], cycle=np.s_[32:], rail=np.s_[32:], service=np.s_[32:])
    assert measure(layout, CHANNELS, 8.0)["frontage"] == 0


@pytest.mark.parametrize(("size", "resolution_m"), [(64, 8.0), (256, 2.0), (37, 8.0), (100, 4.0)])
@pytest.mark.parametrize("built", [0.25, 1.0])
def test_people_flow_of_even_building_is_its_share_of_what_can_be_reached(size, resolution_m, built):
    layout = drawn(size, street=np.s_[5:9, :])
    layout[CHANNELS.index("building")] = built
    assert measure(layout, CHANNELS, resolution_m)["people_flow"] == pytest.approx(built * HECTARES, rel=1e-6)


def test_people_flow_counts_what_is_near_for_more():
    near = drawn(building=np.s_[:16], street=np.s_[16])
    far = drawn(building=np.s_[:16], street=np.s_[63])
    ratio = measure(near, CHANNELS, 8.0)["people_flow"] / measure(far, CHANNELS, 8.0)["people_flow"]
    assert ratio > 2


def test_people_flow_agrees_with_the_sum_written_out():
    rng = np.random.default_rng(0)
    layout = rng.random((len(CHANNELS), 24, 24))
    by_name = dict(zip(CHANNELS, layout, strict=True))
    at = np.stack(np.meshgrid(*[np.arange(24) * 32.0] * 2, indexing="ij"), -1).reshape(-1, 2)
    square = ((at[:, None] - at) ** 2).sum(-1) + 32.0**2 / 3
    kernel = np.exp(-np.sqrt(square) / DECAY_M)
    reached = kernel @ by_name["building"].ravel() / kernel.sum(1)
    walkable = (by_name["street"] + by_name["walk"] + by_name["square"]).ravel()
    expected = HECTARES * (walkable @ reached) / walkable.sum()
    assert measure(layout, CHANNELS, 32.0)["people_flow"] == pytest.approx(expected, rel=1e-6)


def test_where_squares_are_not_known_a_city_is_measured_without_them():
    layout = np.random.default_rng(0).random((len(CHANNELS), 16, 16))
    known = [name for name in CHANNELS if name != "square"]
    layout[CHANNELS.index("square")] = 0
    without = measure(layout[[CHANNELS.index(name) for name in known]], known, 8.0)
    for name, value in measure(layout, CHANNELS, 8.0).items():
        if name != "square":
            assert without[name] == pytest.approx(value), name


def test_a_square_is_no_length_and_a_service_road_no_street():
    values = measure(drawn(square=np.s_[:, :16], service=np.s_[:, :8]), CHANNELS, 2.0)
    assert values["walk"] == values["street_density"] == values["walk_share"] == 0
    assert values["square"] == 0.25
    assert values["service"] == pytest.approx(0.125 / 5 * 1000)


def test_people_flow_over_coarse_cells_is_that_over_fine_ones(monkeypatch):
    rng = np.random.default_rng(0)
    layout = empty(128)
    layout[CHANNELS.index("building")] = np.kron(rng.random((16, 16)) > 0.6, np.ones((8, 8)))
    layout[CHANNELS.index("street")] = np.kron(rng.random((32, 32)) > 0.8, np.ones((4, 4)))
    coarse = measure(layout, CHANNELS, 4.0)["people_flow"]
    monkeypatch.setattr(measures, "REACH_CELL_M", 4.0)
    assert coarse == pytest.approx(measure(layout, CHANNELS, 4.0)["people_flow"], rel=2e-3)


@settings(max_examples=25, deadline=None)
@given(layouts)
def test_arrays_and_tensors_measure_the_same(layout):
    array, tensor = (measure(x, CHANNELS, 8.0) for x in (layout, torch.from_numpy(layout)))
    assert array.keys() == tensor.keys() == MEASURES.keys()
    for name, value in array.items():
        assert isinstance(value, np.ndarray)
        assert value.shape == ()
        assert isinstance(tensor[name], torch.Tensor)
        np.testing.assert_array_equal(value, tensor[name].numpy())


@settings(max_examples=25, deadline=None)
@given(layouts, st.integers(1, SYMMETRIES - 1))
def test_no_measure_depends_on_how_a_layout_is_turned(layout, symmetry):
    before, after = measure(layout, CHANNELS, 8.0), measure(turn(layout, symmetry), CHANNELS, 8.0)
    for name, value in before.items():
        np.testing.assert_allclose(after[name], value, rtol=1e-9, atol=1e-9, err_msg=name)


@settings(max_examples=25, deadline=None)
@given(layouts)
def test_averaging_cells_keeps_the_linear_measures_and_their_ratios(layout):
    fine = measure(layout, CHANNELS, 2.0)
    for factor in (2, 4):
        coarse = layout.reshape(len(CHANNELS), 16 // factor, factor, 16 // factor, factor).mean((2, 4))
        values = measure(coarse, CHANNELS, 2.0 * factor)
        for name, m in MEASURES.items():
            if m.of is None:
                np.testing.assert_allclose(values[name], fine[name], rtol=1e-9, atol=1e-9, err_msg=name)


@settings(max_examples=25, deadline=None)
@given(layouts)
def test_shares_stay_shares(layout):
    values = measure(layout, CHANNELS, 8.0)
    for name, m in MEASURES.items():
        low, high = float(values[name]), {"–": 1.0, "ha": HECTARES, "km/km²": math.inf}[m.unit]
        assert 0 <= low <= high * (1 + 1e-9)


@pytest.mark.parametrize("size", [64, 150])
def test_a_batch_measures_what_its_layouts_do(size):
    torch.manual_seed(0)
    batch = torch.rand(40, len(CHANNELS), size, size, dtype=torch.float64)
    together = measure(batch, CHANNELS, 8.0)
    for i in (0, 7, 31, 39):
        for name, value in measure(batch[i], CHANNELS, 8.0).items():
            assert together[name][i].item() == pytest.approx(value.item(), rel=1e-9), name
    assert measure(batch[:0], CHANNELS, 8.0)["people_flow"].shape == (0,)


def test_single_precision_agrees_with_double():
    torch.manual_seed(0)
    layout = torch.rand(2, len(CHANNELS), 64, 64, dtype=torch.float64)
    single = measure(layout.float(), CHANNELS, 8.0)
    for name, value in measure(layout, CHANNELS, 8.0).items():
        assert single[name].dtype == torch.float32
        torch.testing.assert_close(single[name].double(), value, rtol=1e-5, atol=1e-5)


def test_autocast_does_not_round_the_measures():
    torch.manual_seed(0)
    layout = torch.rand(2, len(CHANNELS), 64, 64)
    plain = {**measure(layout, CHANNELS, 8.0), **measure_maps(layout, CHANNELS, 8.0, 8)}
    with torch.autocast("cpu", torch.bfloat16):
        cast = {**measure(layout, CHANNELS, 8.0), **measure_maps(layout, CHANNELS, 8.0, 8)}
    for name, value in plain.items():
        assert torch.equal(cast[name], value), name


@pytest.mark.parametrize("name", MEASURES)
def test_gradients_are_finite_and_not_zero(name):
    torch.manual_seed(0)
    layout = (0.1 * torch.rand(2, len(CHANNELS), 32, 32)).requires_grad_()
    measure(layout, CHANNELS, 2.0)[name].sum().backward()
    assert layout.grad.isfinite().all()
    for channel in MEASURES[name].channels:
        assert layout.grad[:, CHANNELS.index(channel)].abs().sum() > 0, channel


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_gradients_are_finite_where_nothing_changes(fill):
    layout = torch.full((1, len(CHANNELS), 32, 32), fill, requires_grad=True)
    sum(v.sum() for v in measure(layout, CHANNELS, 8.0).values()).backward()
    assert layout.grad.isfinite().all()


def test_measuring_in_inference_mode_does_not_spoil_training():
    measures._kernel.cache_clear()
    layout = torch.rand(1, len(CHANNELS), 16, 16)
    with torch.inference_mode():
        measure(layout, CHANNELS, 8.0)
    layout = layout.requires_grad_()
    measure(layout, CHANNELS, 8.0)["people_flow"].sum().backward()
    assert layout.grad.abs().sum() > 0


def test_maps_average_to_the_measure_and_see_where_it_is():
    torch.manual_seed(0)
    layout = torch.rand(3, len(CHANNELS), 32, 32, dtype=torch.float64)
    maps, values = measure_maps(layout, CHANNELS, 8.0, 4), measure(layout, CHANNELS, 8.0)
    assert tuple(maps) == mappable(CHANNELS)
    for name, value in maps.items():
        assert value.shape == (3, 4, 4)
        torch.testing.assert_close(value.mean((1, 2)), values[name])
    corner = measure_maps(drawn(32, building=np.s_[:8, 8:16]), CHANNELS, 8.0, 4)["coverage"]
    assert corner[0, 1] == 1
    assert corner.sum() == 1
    assert "frontage" not in maps
    assert "car_share" not in maps


def test_measures_of_unknown_channels_are_absent():
    known = tuple(c for c in CHANNELS if c not in {"parking", "building"})
    values = measure(np.zeros((len(known), 16, 16)), known, 8.0)
    assert tuple(values) == measurable(known)
    assert {"parking", "coverage", "frontage", "people_flow"}.isdisjoint(values)
    assert {"street_density", "cycle", "car_share"} <= values.keys()


def test_the_order_of_channels_does_not_matter_and_strangers_are_fine():
    rng = np.random.default_rng(0)
    layout = rng.random((len(CHANNELS), 16, 16))
    names = (*reversed(CHANNELS), "moss")
    other = measure(np.concatenate([layout[::-1], layout[:1]]), names, 8.0)
    for name, value in measure(layout, CHANNELS, 8.0).items():
        np.testing.assert_allclose(other[name], value, rtol=1e-12)


def spoiled(value):
    layout = empty(8)
    layout[0, 3, 3] = value
    return layout


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (spoiled(np.nan), "finite"),
        (spoiled(np.inf), "finite"),
        (spoiled(-0.01), "-0.01"),
        (spoiled(1.01), "1.01"),
        (spoiled(200).astype(np.uint8), "divide coverage bytes by 255"),
        (np.zeros((3, 8, 8)), "(11, H, W)"),
        (np.zeros((8, 8)), "shape"),
        (np.zeros((9, 0, 8)), "shape"),
        (np.zeros((1, 1, 9, 8, 8)), "shape"),
        (np.full((9, 8, 8), "house"), "numbers"),
    ],
)
def test_what_is_no_layout_is_refused(layout, words):
    with pytest.raises(DataError) as error:
        measure(layout, CHANNELS, 8.0)
    assert words in str(error.value)


@pytest.mark.parametrize("resolution_m", [0.0, -2.0, math.nan, math.inf])
def test_what_is_no_resolution_is_refused(resolution_m):
    with pytest.raises(ConditionError, match="edge of a cell"):
        measure(empty(8), CHANNELS, resolution_m)


def test_channels_named_twice_and_maps_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="twice"):
        measure(np.zeros((2, 8, 8)), ("street", "street"), 8.0)
    with pytest.raises(ConditionError, match="divisor of 8"):
        measure_maps(empty(8), CHANNELS, 8.0, 3)


def test_rounding_errors_and_booleans_pass():
    layout = empty(8)
    layout[0] = 1 + 1e-6
    assert measure(layout, CHANNELS, 8.0)["coverage"] == pytest.approx(1)
    assert measure(layout > 0, CHANNELS, 8.0)["coverage"] == 1
