"""Urban form against what a ruler says, against osmnx on the same graph, and on layouts that have none of it."""

import math

import momepy
import networkx as nx
import numpy as np
import osmnx as ox
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from citygrain.errors import DataError
from citygrain.evaluation.form import FORM
from citygrain.evaluation.morphology import measure_form, measure_vectors
from citygrain.evaluation.networks import gini, orientation_entropy, orientation_order
from citygrain.geo.layers import CHANNEL_NAMES
from citygrain.geo.rasterize import Grid
from citygrain.geo.vectorize import node_features
from citygrain.measures import measurable

SIDE = 400
GRID = Grid("EPSG:32633", 500_000.0, 6_000_000.0, 2.0, SIDE // 2, SIDE // 2)
KM2 = (SIDE / 1000) ** 2


def placed(shapes):
    """Shapes given in metres from the grid's south-west corner."""
    left, bottom, _, _ = GRID.bounds
    return shapely.transform(np.asarray(shapes, object), lambda xy: xy + np.array([left, bottom]))


def form(**features):
    return measure_vectors(node_features({name: placed(shapes) for name, shapes in features.items()}, GRID))


def streets(*lines, **others):
    """The form of these ways, none of them arterial."""
    return form(arterial=[], street=[shapely.LineString(line) for line in lines], **others).values


def lattice():
    at = (100, 200, 300)
    return [*([(x, 0), (x, SIDE)] for x in at), *([(0, y), (SIDE, y)] for y in at)]


# Streets


def test_a_lattice_is_what_a_ruler_says():
    got = streets(*lattice())
    assert got["drive_length_density"] == pytest.approx(6 * 0.4 / KM2)
    assert got["drive_intersection_density"] == pytest.approx(9 / KM2)
    assert got["drive_segment_length"] == pytest.approx(100)
    assert got["drive_circuity"] == pytest.approx(1)
    assert got["drive_mean_degree"] == 4
    assert (got["drive_dead_ends"], got["drive_three_way"], got["drive_four_way"]) == (0, 0, 1)
    assert got["drive_orientation_entropy"] == pytest.approx(math.log(4))
    assert got["drive_orientation_order"] == pytest.approx(1)
    assert got["drive_largest_component"] == pytest.approx(1)


def test_blocks_of_a_lattice_are_counted_as_if_it_went_on():
    got = streets(*lattice())
    assert got["block_count"] == pytest.approx(9 / KM2), "a block for each junction"
    assert got["block_area"] == pytest.approx(100 * 100)
    assert got["block_perimeter"] == pytest.approx(400)
    assert got["block_shape"] == pytest.approx(2 / math.pi)


def test_an_island_between_carriageways_is_no_block():
    ring = [(100, 100), (120, 100), (120, 110), (100, 110), (100, 100)]
    assert math.isnan(streets(ring)["block_area"])


def test_three_arms_have_all_their_betweenness_in_the_middle():
    got = streets([(200, 200), (200, 300)], [(200, 200), (300, 200)], [(200, 200), (100, 150)])
    assert got["drive_betweenness_gini"] == pytest.approx(3 / 4)
    assert got["drive_mean_degree"] == pytest.approx(6 / 4)
    assert (got["drive_dead_ends"], got["drive_three_way"]) == (3 / 4, 1 / 4)
    assert got["drive_intersection_density"] == pytest.approx(1 / KM2)


def test_a_street_that_ends_on_an_arterial_makes_a_junction():
    main, side = shapely.LineString([(50, 200), (350, 200)]), shapely.LineString([(200, 200), (200, 300)])
    got = form(arterial=[main], street=[side]).values
    assert got["drive_intersection_density"] == pytest.approx(1 / KM2)
    assert (got["drive_three_way"], got["drive_dead_ends"]) == (1 / 4, 3 / 4)


def test_a_detour_is_circuity():
    assert streets([(100, 100), (100, 200), (200, 200)])["drive_circuity"] == pytest.approx(math.sqrt(2))


def test_the_smaller_part_of_a_broken_network_is_not_in_its_largest_component():
    got = streets([(100, 100), (200, 100)], [(100, 300), (100, 350), (350, 350)])
    assert got["drive_largest_component"] == pytest.approx(300 / 400)


def test_junctions_of_two_carriageways_are_one():
    got = streets([(50, 100), (350, 100)], [(50, 112), (350, 112)], [(200, 50), (200, 350)])
    assert got["drive_intersection_density"] == pytest.approx(1 / KM2)


def test_where_a_way_is_cut_off_it_does_not_end():
    got = streets([(0, 100), (SIDE, 100)])
    assert got["drive_length_density"] == pytest.approx(0.4 / KM2)
    assert math.isnan(got["drive_dead_ends"])
    assert math.isnan(got["drive_segment_length"])


@pytest.mark.parametrize(("network", "channel"), [("cycle", "cycle"), ("walk", "walk")])
def test_every_network_is_measured_alike(network, channel):
    lines = [shapely.LineString(line) for line in lattice()]
    got, drive = form(**{channel: lines}).values, streets(*lattice())
    measures = [name.removeprefix("drive_") for name in drive if name.startswith("drive_")]
    assert measures
    for name in measures:
        assert got[f"{network}_{name}"] == pytest.approx(drive[f"drive_{name}"])


@pytest.mark.parametrize("seed", range(4))
def test_osmnx_says_the_same_of_the_same_graph(seed):
    rng = np.random.default_rng(seed)
    vectors = node_features(
        {"street": placed([shapely.LineString(rng.uniform(20, 380, (3, 2))) for _ in range(8)]), "arterial": []}, GRID
    )
    got = measure_vectors(vectors).values
    graph = vectors.graph("drive")
    stats = ox.basic_stats(graph, area=SIDE**2, clean_int_tol=10)
    assert got["drive_length_density"] == pytest.approx(stats["street_density_km"] / 1000)
    assert got["drive_mean_degree"] == pytest.approx(stats["streets_per_node_avg"])
    assert got["drive_circuity"] == pytest.approx(stats["circuity_avg"])
    assert got["drive_intersection_density"] == pytest.approx(stats["clean_intersection_density_km"])
    shares = stats["streets_per_node_proportions"]
    assert got["drive_dead_ends"] == pytest.approx(shares[1])
    assert got["drive_three_way"] == pytest.approx(shares[3])
    assert got["drive_four_way"] == pytest.approx(sum(shares[k] for k in shares if k >= 4))
    between = nx.betweenness_centrality(ox.convert.to_digraph(graph, weight="length"), weight="length")
    assert got["drive_betweenness_gini"] == pytest.approx(gini(list(between.values())))


# Orientation


@given(
    bearings=st.lists(st.floats(0, 359.99), min_size=1, max_size=50),
    weights=st.none() | st.lists(st.floats(0.1, 500), min_size=50, max_size=50),
)
@settings(deadline=None)
def test_orientation_entropy_is_that_of_osmnx(bearings, weights):
    # Within a rounding error of a bin's edge the two may disagree about the bin.
    bearings = [b for b in bearings if abs((b + 5) % 10) > 1e-6 and abs((b + 5) % 10 - 10) > 1e-6] or [3.0]
    weights = weights and weights[: len(bearings)]
    graph = nx.MultiGraph(crs="EPSG:4326")
    for i, bearing in enumerate(bearings):
        graph.add_edge(2 * i, 2 * i + 1, bearing=bearing, length=weights[i] if weights else 1.0)
    expected = ox.bearing.orientation_entropy(graph, weight="length" if weights else None)
    assert orientation_entropy(bearings, weights) == pytest.approx(expected, abs=1e-9)


def test_few_ways_look_ordered_and_are_corrected():
    rng = np.random.default_rng(0)

    def order(n, *, corrected):
        draws = rng.uniform(0, 360, (400, n))
        return np.mean([orientation_order(orientation_entropy(draw, corrected=corrected)) for draw in draws])

    for n, phi in ((20, 0.40), (500, 0.016)):  # what the docstring says
        assert order(n, corrected=False) == pytest.approx(phi, rel=0.1)
    for n in (20, 50, 100):
        assert order(n, corrected=True) < order(n, corrected=False) / 2


def test_weights_that_are_alike_are_as_good_as_none():
    bearings = np.random.default_rng(1).uniform(0, 360, 30)
    for corrected in (False, True):
        alike = orientation_entropy(bearings, np.full(30, 7.0), corrected=corrected)
        assert alike == pytest.approx(orientation_entropy(bearings, corrected=corrected))


def test_concentration_of_what_is_alike_is_none():
    assert gini([2, 2, 2]) == pytest.approx(0)
    assert gini([0, 0, 0, 5]) == pytest.approx(3 / 4)
    assert math.isnan(gini([]))


# Buildings


def test_buildings_are_what_a_ruler_says():
    got = form(building=[shapely.box(100, 100, 120, 110), shapely.box(125, 100, 135, 110)]).values
    assert got["building_count"] == pytest.approx(2 / 16)
    assert got["footprint_area"] == pytest.approx((200 + 100) / 2)
    assert got["compactness"] == pytest.approx((200 / (math.pi * 125) + 2 / math.pi) / 2)
    assert got["elongation"] == pytest.approx((0.5 + 1) / 2)
    assert got["nearest_building"] == pytest.approx(5)
    assert got["courtyard_share"] == 0


def test_a_courtyard_is_a_share_of_what_surrounds_it():
    yard = shapely.difference(shapely.box(100, 100, 140, 140), shapely.box(110, 110, 130, 130))
    assert form(building=[yard]).values["courtyard_share"] == pytest.approx(400 / 1600)


def test_a_building_at_the_edge_is_half_a_building_and_has_no_shape():
    got = form(building=[shapely.box(-10, 100, 10, 110), shapely.box(-10, -10, 10, 10)]).values
    assert got["building_count"] == pytest.approx((1 / 2 + 1 / 4) / 16)
    assert math.isnan(got["footprint_area"])


# The street's edge


def test_setback_is_from_the_carriageway():
    got = streets([(50, 200), (350, 200)], building=[shapely.box(100, 210, 120, 230)])
    assert got["setback"] == pytest.approx(10 - 8 / 2)


def test_a_street_with_a_wall_on_one_side_is_half_open():
    got = streets([(50, 200), (350, 200)], building=[shapely.box(0, 210, SIDE, 230)])
    assert got["openness"] == pytest.approx(0.5)
    assert got["street_width"] == pytest.approx(25 + 10)
    both = streets([(50, 200), (350, 200)], building=[shapely.box(0, y, SIDE, y + 20) for y in (210, 170)])
    assert both["openness"] == 0
    assert both["street_width"] == pytest.approx(20)


@pytest.mark.slow
def test_momepy_sees_as_far_along_the_streets_middle():
    """Its own ends of streets apart, which it takes for open: the streets are long."""
    rng = np.random.default_rng(0)
    lines = placed([shapely.LineString([(20, y), (380, y + 15)]) for y in (90, 200, 310)])
    boxes = [shapely.box(x, y, x + 14, y + 9) for x, y in rng.uniform(20, 370, (150, 2))]
    vectors = node_features({"arterial": [], "street": lines, "building": placed(boxes)}, GRID)
    got = measure_vectors(vectors).values
    tables = vectors.layers()
    profile = momepy.street_profile(tables["drive"], tables["building"], distance=1)
    assert got["openness"] == pytest.approx(profile["openness"].mean(), abs=0.05)
    assert 0.2 < got["openness"] < 0.8


def test_a_street_without_buildings_is_open():
    got = streets([(0, 200), (SIDE, 200)], building=[])
    assert (got["openness"], got["street_width"]) == (1, 50)


# On foot


@pytest.mark.parametrize(("arm", "within_400"), [(100, 0.4), (190, 0.76)])
def test_reach_of_a_crossing_is_its_arms(arm, within_400):
    cross = [[(200, 200), (200 + x * arm, 200 + y * arm)] for x, y in ((0, 1), (1, 0), (0, -1), (-1, 0))]
    assert streets(*cross, walk=[])["reach_400"] == pytest.approx(within_400)


def test_reach_ends_after_so_many_metres():
    zigzag = [(10 + 20 * i, 10 + 300 * (i % 2)) for i in range(15)]
    stub = [zigzag[0], (5, 5)]
    other = [zigzag[0], (15, 5)]
    got = streets(zigzag, stub, other, walk=[])
    stubs = 2 * math.hypot(5, 5) / 1000
    assert got["reach_400"] == pytest.approx(0.4 + stubs)
    assert got["reach_800"] == pytest.approx(0.8 + stubs)


def test_a_footway_leads_onto_the_street_that_it_ends_at():
    street, footway = [(50, 200), (350, 200)], [(200, 210), (200, 350)]
    joined = streets(street, walk=[shapely.LineString(footway)])
    assert joined["reach_400"] == pytest.approx((300 + 150) / 1000)
    apart = streets(street, walk=[shapely.LineString([(200, 230), (200, 350)])])
    assert math.isnan(apart["reach_400"]), "there is no junction"


# Whole layouts


def symmetries():
    """Of the square, in metres from the grid's south-west corner."""
    for quarter in range(4):
        turn = np.array([[0, -1], [1, 0]])
        matrix = np.linalg.matrix_power(turn, quarter)
        for mirror in (1, -1):
            yield matrix @ np.diag([mirror, 1])


@pytest.mark.parametrize("seed", range(3))
def test_form_does_not_depend_on_how_a_layout_is_turned(seed):
    rng = np.random.default_rng(seed)
    shapes = {
        "arterial": [shapely.LineString(rng.uniform(-50, 450, (2, 2))) for _ in range(3)],
        "street": [shapely.LineString(rng.uniform(-50, 450, (3, 2))) for _ in range(8)],
        "cycle": [shapely.LineString(rng.uniform(-50, 450, (3, 2))) for _ in range(4)],
        "walk": [shapely.LineString(rng.uniform(-50, 450, (3, 2))) for _ in range(6)],
        "building": [
            shapely.box(x, y, x + w, y + h) for x, y, w, h in rng.uniform(10, 350, (30, 4)) * [1, 1, 0.1, 0.1]
        ],
    }
    first = form(**shapes).values
    middle = SIDE / 2
    for matrix in symmetries():
        turned = form(
            **{
                name: shapely.transform(np.asarray(s, object), lambda xy, m=matrix: (xy - middle) @ m.T + middle)
                for name, s in shapes.items()
            }
        ).values
        assert turned == pytest.approx(first, rel=1e-4, abs=1e-6, nan_ok=True)


def test_an_empty_layout_has_no_shape_and_no_warning():
    empty = measure_form(np.zeros((len(CHANNEL_NAMES), 64, 64)), CHANNEL_NAMES, Grid("EPSG:32633", 0, 0, 2.0, 64, 64))
    assert set(FORM) <= set(empty.values)
    for name in ("coverage", "building_count", "drive_length_density", "walk_intersection_density", "open_patch"):
        assert empty.values[name] == 0
    for name in ("footprint_area", "drive_circuity", "drive_orientation_entropy", "setback", "reach_400", "block_area"):
        assert math.isnan(empty.values[name])


def test_what_is_not_known_is_not_measured():
    channels = ("building", "street", "walk")
    got = measure_form(np.zeros((3, 64, 64)), channels, Grid("EPSG:32633", 0, 0, 2.0, 64, 64)).values
    assert "building_count" in got
    assert "walk_length_density" in got
    assert not [name for name in got if name.startswith(("drive", "cycle", "block", "reach", "open_patch", "setback"))]
    assert [name for name in got if name not in FORM] == list(measurable(channels))


def test_the_largest_open_patch_is_of_green_and_water():
    layout = np.zeros((len(CHANNEL_NAMES), 64, 64))
    layout[CHANNEL_NAMES.index("green"), 10:20, 10:20] = 1
    layout[CHANNEL_NAMES.index("water"), 10:20, 20:30] = 1
    layout[CHANNEL_NAMES.index("green"), 40:42, 40:42] = 1
    got = measure_form(layout, CHANNEL_NAMES, Grid("EPSG:32633", 0, 0, 2.0, 64, 64)).values
    assert got["open_patch"] == pytest.approx(200 * 4 / 1e4)


def test_service_roads_are_no_part_of_the_drive_network_unless_asked_for():
    layout = np.zeros((len(CHANNEL_NAMES), 128, 128))
    layout[CHANNEL_NAMES.index("street"), :, 62:66] = 1
    layout[CHANNEL_NAMES.index("service"), 63:65, 64:] = 1
    grid = Grid("EPSG:32633", 0, 0, 2.0, 128, 128)
    without = measure_form(layout, CHANNEL_NAMES, grid).values
    with_them = measure_form(layout, CHANNEL_NAMES, grid, service=True).values
    assert without["drive_length_density"] == pytest.approx(256 / 256**2 * 1000, rel=0.02)
    assert with_them["drive_length_density"] == pytest.approx((256 + 128) / 256**2 * 1000, rel=0.02)
    assert math.isnan(without["drive_three_way"])
    assert with_them["drive_three_way"] == 1
    assert without["street_density"] == with_them["street_density"]


@pytest.mark.parametrize("value", [math.nan, 1.5])
def test_no_coverage_is_an_error(value):
    layout = np.zeros((len(CHANNEL_NAMES), 16, 16))
    layout[0, 3, 3] = value
    with pytest.raises(DataError, match="coverage"):
        measure_form(layout, CHANNEL_NAMES, Grid("EPSG:32633", 0, 0, 2.0, 16, 16))


def test_every_measure_says_what_it_is():
    for name, measure in FORM.items():
        assert measure.name == name
        assert all((measure.label, measure.unit, measure.formula, measure.source, measure.channels, measure.group))
