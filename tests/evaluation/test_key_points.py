"""What the literature of generated road networks measures, against a ruler, networkx and closed forms."""

import math

import networkx as nx
import numpy as np
import pytest
import shapely

from citygrain.evaluation.gather import gather, measure_window
from citygrain.evaluation.key_points import COMPARED, KEY_POINTS, compare_key_points, measure_key_points, measure_ways
from citygrain.evaluation.networks import measure_network
from citygrain.evaluation.spatial_order import pool_order
from citygrain.geo.rasterize import Grid
from citygrain.geo.vectorize import node_features

SIDE = 400
GRID = Grid("EPSG:32633", 500_000.0, 6_000_000.0, 2.0, SIDE // 2, SIDE // 2)


def ways_of(*lines):
    """The drive network of lines that are given in metres from the grid's south-west corner."""
    left, bottom, _, _ = GRID.bounds
    shapes = [shapely.LineString(np.add(line, (left, bottom))) for line in lines]
    return node_features({"arterial": [], "street": shapes}, GRID).ways["drive"]


def points_of(*lines):
    return measure_key_points(ways_of(*lines)).values


CROSS = ([(200, 0), (200, SIDE)], [(0, 200), (SIDE, 200)])
STREET = [(0, 200), (SIDE, 200)]


def test_a_crossing_is_what_a_ruler_says():
    """Five key points: four pairs are one way apart, and six are two."""
    got = points_of(*CROSS)
    assert got["drive_density"] == 5
    assert got["drive_connectivity"] == pytest.approx(8 / 5)
    assert got["drive_reach"] == 4
    assert got["drive_convenience"] == pytest.approx((4 * 1 + 6 * 2) / 10)
    straight = 4 * 200 + 2 * 400 + 4 * 200 * math.sqrt(2)
    assert got["drive_detour"] == pytest.approx((4 * 200 + 6 * 400) / straight)
    assert math.isnan(got["drive_endpoint_gap"]), "what the edge cuts does not end"


def test_what_hangs_apart_is_beyond_reach():
    got = points_of(STREET, [(0, 100), (SIDE, 100)])
    assert (got["drive_density"], got["drive_reach"], got["drive_convenience"]) == (4, 1, 1)


@pytest.mark.parametrize("seed", range(3))
def test_networkx_finds_the_same_paths(seed):
    rng = np.random.default_rng(seed)
    ways = ways_of(*(rng.uniform(20, 380, (3, 2)) for _ in range(9)))
    graph = nx.MultiGraph()
    graph.add_nodes_from(range(len(ways.nodes)))
    for (u, v), line in zip(ways.ends.tolist(), ways.lines, strict=True):
        graph.add_edge(u, v, length=line.length)
    steps = {u: dict(found) for u, found in nx.all_pairs_shortest_path_length(graph)}
    metres = {u: dict(found) for u, found in nx.all_pairs_dijkstra_path_length(graph, weight="length")}
    pairs = [(u, v) for u in steps for v in steps[u] if u < v]
    got = measure_key_points(ways)
    assert sorted(got.samples["drive_convenience"]) == sorted(steps[u][v] for u, v in pairs)
    assert sorted(got.samples["drive_reach"]) == sorted(len(found) - 1 for found in steps.values())
    straight = sum(math.dist(ways.nodes[u], ways.nodes[v]) for u, v in pairs)
    assert got.values["drive_detour"] == pytest.approx(sum(metres[u][v] for u, v in pairs) / straight)


@pytest.mark.parametrize("missing", [10, 60])
def test_a_gap_is_what_an_end_lacks_to_the_next_street(missing):
    got = points_of(STREET, [(100, 0), (100, 200 - missing)])
    assert got["drive_endpoint_gap"] == pytest.approx(missing)
    assert got["drive_missed"] == (missing < 24)


def test_a_cul_de_sac_is_not_near_the_street_that_it_leaves():
    """It ends 10 m from its own street, which is no gap, and 90 m from the next one."""
    assert points_of(STREET, [(200, 200), (200, 210)], [(0, 300), (SIDE, 300)])["drive_endpoint_gap"] == 90


def test_an_end_that_can_miss_nothing_has_no_gap():
    got = measure_key_points(ways_of(STREET, [(200, 200), (200, 240)]))
    assert len(got.samples["drive_endpoint_gap"]) == 0
    assert math.isnan(got.values["drive_missed"])


def test_no_network_has_no_key_points_and_no_warning():
    got = points_of()
    assert got.pop("drive_density") == 0
    assert all(map(math.isnan, got.values()))


def test_the_frechet_distance_is_that_of_two_normal_distributions():
    rng = np.random.default_rng(0)
    values = {f"drive_{name}": rng.normal(size=400) for name in COMPARED}
    shifted = {name: value + 3 for name, value in values.items()}
    spread = {name: value * 2 for name, value in values.items()}
    for name, found in compare_key_points(shifted, values).items():
        assert found == pytest.approx(3), name
    for name, found in compare_key_points(spread, values).items():
        value = values[f"drive_{name}"]
        assert found == pytest.approx(math.hypot(value.mean(), value.std(ddof=1))), name
    assert all(map(math.isnan, compare_key_points({}, values).values()))


def test_every_measure_is_taken_and_says_what_it_is():
    assert {f"drive_{name}" for name in KEY_POINTS} == set(points_of(*CROSS))
    assert all(m.formula and m.source for m in KEY_POINTS.values())


def test_ways_have_their_form_and_their_key_points(tmp_path):
    """A layout with a crossing of streets and a service road; the latter belongs to the network where one says so."""
    channels = ("arterial", "street", "service")
    layout = np.zeros((3, 64, 64), np.uint8)
    layout[1, 32, :] = layout[1, :, 32] = layout[2, 10, :] = 255
    without, including = (measure_ways(layout, channels=channels, resolution_m=8.0, service=s) for s in (False, True))
    assert (without.values["drive_density"], including.values["drive_density"]) == (5, 8)
    form = measure_window(layout, channels=channels, resolution_m=8.0)
    assert form.values.items() <= without.values.items()
    found = gather(
        "ways", 2, lambda positions: layout[None].repeat(len(positions), 0), tmp_path, channels=channels,
        resolution_m=8.0, service=True, measure_one=measure_ways,
    )  # fmt: skip
    assert found.values["drive_density"].tolist() == [8, 8]


def test_streets_of_all_windows_are_ordered_together():
    """Two directions in one window and two others in the next are four directions in all, however long the streets."""
    windows = [ways_of(*CROSS), ways_of([(100, 100), (200, 200)], [(150, 150), (100, 200)])]
    forms = [measure_network(ways, "drive", GRID) for ways in windows]
    joined = {name: np.concatenate([form.samples[name] for form in forms]) for name in forms[0].samples}
    got = pool_order(joined)
    assert got.segments == 4 + 3
    parts = np.array([2, 2, 2, 1]) / 7  # north and south, east and west, and the two diagonals
    entropy = math.log(2) - float((parts * np.log(parts)).sum())
    assert got.entropy == pytest.approx(entropy)
    assert got.order == pytest.approx(1 - ((entropy - math.log(4)) / math.log(9)) ** 2)
    assert got.circuity == pytest.approx(1)
    assert got.segment_length == pytest.approx(50 * math.sqrt(2)), "streets that the edge cuts have no length"
    assert got.mean_degree == pytest.approx((4 + 3 + 1 + 1 + 1) / 5)
    assert (got.dead_ends, got.four_way) == (pytest.approx(3 / 5), pytest.approx(1 / 5))


def test_a_detour_shows_in_what_is_pooled():
    ways = ways_of([(100, 100), (100, 200), (200, 200)])
    form = measure_network(ways, "drive", GRID)
    assert pool_order(form.samples).circuity == pytest.approx(200 / math.hypot(100, 100))
