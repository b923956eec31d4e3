"""Laws of the way back: what is drawn is found again, in place, whole at the edges, and other tools take it."""

import geopandas as gpd
import momepy
import networkx as nx
import numpy as np
import osmnx as ox
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from citygrain.data.cityraster import CityRaster
from citygrain.errors import DataError
from citygrain.geo import centrelines
from citygrain.geo.layers import CHANNEL_NAMES, WIDTHS
from citygrain.geo.place import Place
from citygrain.geo.rasterize import Grid, rasterize
from citygrain.geo.sources import read_features
from citygrain.geo.sources.osmfile import OsmFile
from citygrain.geo.vectorize import AREAS, NETWORKS, node_features, vectorize

CRS = "EPSG:32633"
pytestmark = pytest.mark.filterwarnings("ignore:.*:FutureWarning:momepy", "ignore:.*:FutureWarning:libpysal")


def grid_of(size=128, resolution_m=2.0):
    return Grid(CRS, 500_000.0, 6_000_000.0 + size * resolution_m, resolution_m, size, size)


def layer(shapes, kind, crs=CRS):
    shapes = np.asarray(shapes, object)
    width = np.where(shapely.get_dimensions(shapes) == 1, WIDTHS.get(kind, np.nan), np.nan)
    return gpd.GeoDataFrame({"kind": kind, "width_m": width}, geometry=list(shapes), crs=crs)


def drawn(grid, **shapes):
    """A layout of these shapes, given in metres from the grid's south-west corner."""
    left, bottom, _, _ = grid.bounds
    layers = {
        name: layer(shapely.transform(np.asarray(s, object), lambda xy: xy + np.array([left, bottom])), name)
        for name, s in shapes.items()
    }
    return np.concatenate(list(rasterize(layers, grid)), 1)


def seen(grid, **shapes):
    return vectorize(drawn(grid, **shapes), CHANNEL_NAMES, grid)


# Networks


@pytest.mark.parametrize("resolution_m", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("kind", ["arterial", "street", "service", "cycle", "walk", "rail"])
def test_a_lattice_of_ways_is_found_again(kind, resolution_m):
    grid = grid_of(int(512 / resolution_m), resolution_m)
    across = [110.3, 241.7, 400.9]
    lines = [shapely.LineString([(x, 40), (x, 472)]) for x in across]
    lines += [shapely.LineString([(40, y), (472, y)]) for y in across]
    vectors = seen(grid, **{kind: lines})
    network = next(name for name, kinds in NETWORKS.items() if kind in kinds)
    layers = vectors.layers()
    ways, nodes = layers[network], layers[f"{network}_nodes"]
    assert set(ways.kind) == {kind}
    assert sorted(nodes.street_count) == [1] * 12 + [4] * 9
    assert ways.length_m.sum() == pytest.approx(6 * 432, rel=0.022)
    crossings = shapely.get_coordinates(nodes[nodes.street_count == 4].geometry) - grid.bounds[:2]
    wanted = np.array([(x, y) for x in across for y in across])
    gap = np.linalg.norm(crossings[:, None] - wanted, axis=2)
    assert gap.min(0).max() < 1.2 * resolution_m


@settings(deadline=None, max_examples=40)
@example(angle=2.375, kind="arterial", aside=1.0)  # whose ends fork
@given(
    angle=st.floats(0, np.pi), kind=st.sampled_from(["arterial", "street", "cycle", "walk"]), aside=st.floats(-20, 20)
)
def test_a_straight_way_keeps_its_length_and_course(angle, kind, aside):
    grid = grid_of()
    middle = np.array([128.0, 128.0]) + aside * np.array([-np.sin(angle), np.cos(angle)])
    half = 80 * np.array([np.cos(angle), np.sin(angle)])
    way = shapely.LineString([middle - half, middle + half])
    vectors = seen(grid, **{kind: [way]})
    (found,) = vectors.ways["drive" if kind in NETWORKS["drive"] else kind].lines
    there = shapely.transform(way, lambda xy: xy + grid.bounds[:2])
    assert found.length == pytest.approx(160, abs=1.5 * grid.resolution_m)
    assert shapely.hausdorff_distance(there, found) < grid.resolution_m
    straight = shapely.LineString([found.coords[0], found.coords[-1]])
    assert found.length <= 1.02 * straight.length
    assert straight.hausdorff_distance(found) < max(1.2 * grid.resolution_m, 0.3 * WIDTHS[kind])  # a wide end may hook


@pytest.mark.parametrize("resolution_m", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("kind", ["arterial", "street", "service", "cycle", "walk", "rail"])
@pytest.mark.parametrize("turn", [0, 12, 31, 45])
def test_dead_ends_lie_where_they_are_drawn(kind, resolution_m, turn):
    """Of a side way as well, and of an arc."""
    grid = grid_of(int(256 / resolution_m), resolution_m)
    bow = np.radians(np.linspace(10, 80, 30))
    shapes = [
        shapely.LineString([(30, 60), (226, 60)]),
        shapely.LineString([(128.6, 60), (128.6, 60 + 2.5 * max(WIDTHS[kind], 2 * resolution_m))]),
        shapely.LineString(np.stack([60 + 70 * np.cos(bow), 130 + 70 * np.sin(bow)], 1)),
    ]
    shapes = [shapely.affinity.rotate(shape, turn, (128, 128)) for shape in shapes]
    tips = np.array([shapes[0].coords[0], shapes[2].coords[0], *(shape.coords[-1] for shape in shapes)])
    ways = seen(grid, **{kind: shapes}).ways[next(name for name, kinds in NETWORKS.items() if kind in kinds)]
    assert sorted(ways.street_count) == [1] * 5 + [3]
    ends = ways.nodes[ways.street_count == 1] - grid.bounds[:2]
    gap = np.hypot(*(ends[:, None] - tips).transpose(2, 0, 1))
    assert gap.min(1).max() < max(0.75 * resolution_m, 0.08 * WIDTHS[kind])


def test_a_way_that_leaves_the_window_reaches_its_edge():
    grid = grid_of()
    vectors = seen(
        grid, street=[shapely.LineString([(-50, 60), (300, 150)])], walk=[shapely.LineString([(100, -9), (100, 300)])]
    )
    left, bottom, right, top = grid.bounds
    west, south, east, north = shapely.total_bounds(vectors.ways["drive"].lines)
    assert (west, east) == pytest.approx((left, right))
    assert shapely.total_bounds(vectors.ways["walk"].lines)[1::2] == pytest.approx((bottom, top))
    assert vectors.ways["drive"].at_edge.all()
    assert vectors.ways["walk"].at_edge.all()
    assert south > bottom
    assert north < top


@pytest.mark.parametrize("resolution_m", [2.0, 8.0])
def test_a_way_goes_on_where_it_pales_but_nothing_pale_is_a_way(resolution_m):
    grid = grid_of(int(512 / resolution_m), resolution_m)
    whole, pale = shapely.LineString([(0, 203), (512, 203)]), shapely.LineString([(60, 400), (460, 400)])
    layout = drawn(grid, street=[whole, pale]) / np.float32(255)
    layout[:, : grid.height // 2] *= 0.4
    layout[:, grid.height // 2 :, grid.width // 3 : grid.width // 2] *= 0.4
    found = vectorize(layout, CHANNEL_NAMES, grid).ways["drive"]
    assert len(found.lines) == 1
    assert found.lines[0].length == pytest.approx(512, rel=0.01)
    assert found.at_edge.all()


@pytest.mark.parametrize(("gap", "ways"), [(0, 1), (9, 2), (20, 2), (40, 2)])
def test_carriageways_that_overlap_are_told_apart_by_their_common_width(gap, ways):
    grid = grid_of(256)
    lines = [shapely.LineString([(-20, 250 + side * gap / 2), (540, 250 + side * gap / 2)]) for side in (-1, 1)]
    found = seen(grid, arterial=lines).ways["drive"]
    assert shapely.length(found.lines).sum() == pytest.approx(ways * 512, rel=0.04)


def topology(ways):
    """Share of the length that hangs together, and how many ways meet at each node that the edge did not make."""
    length, n = shapely.length(ways.lines), len(ways.nodes)
    _, part = connected_components(coo_array((length, (ways.ends[:, 0], ways.ends[:, 1])), (n, n)), directed=False)
    whole = np.bincount(part[ways.ends[:, 0]], length).max() / length.sum()
    return whole, sorted(ways.street_count[~ways.at_edge].tolist())


def divided_road(kind, cross, gap, angle, *, ends=False, turn=0.0, middle=256.0):
    """Two carriageways, and a way that crosses both, or ends at the farther one."""
    ahead = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    start = np.array([middle, middle]) - ahead * (gap / 2 / ahead[1] if ends else 400)
    ways = {kind: [], cross: []}
    for side in (-1, 1):
        ways[kind].append(shapely.LineString([(-300, middle + side * gap / 2), (900, middle + side * gap / 2)]))
    ways[cross].append(shapely.LineString([start, np.array([middle, middle]) + ahead * 400]))
    return {name: [shapely.affinity.rotate(w, turn, origin=(middle, middle)) for w in w_] for name, w_ in ways.items()}


@pytest.mark.parametrize(
    "angle", [90, pytest.param(75, marks=pytest.mark.slow), pytest.param(60, marks=pytest.mark.slow), 45]
)
@pytest.mark.parametrize("turn", [0.0, 5.0, 33.0])
@pytest.mark.parametrize(
    ("kind", "cross", "gaps"),
    [
        ("arterial", "street", (4, 7, 10, 13, 16)),
        ("arterial", "arterial", (4, 7, 10, 13, 16)),
        ("street", "street", (4, 6, 8, 10)),
        ("street", "arterial", (4, 6, 8, 10)),
    ],
)
def test_a_way_that_crosses_a_divided_road_connects_its_carriageways(kind, cross, gaps, turn, angle):
    for gap in gaps:
        for ends in (False, True):
            ways = seen(grid_of(256), **divided_road(kind, cross, gap, angle, ends=ends, turn=turn)).ways["drive"]
            whole, degrees = topology(ways)
            assert whole == pytest.approx(1), (gap, ends)
            assert degrees in ([[3], [3, 4]] if ends else [[4], [4, 4]]), (gap, ends)


@pytest.mark.parametrize("angle", [90, 80, 70])
@pytest.mark.parametrize("turn", [0.0, 6.0, 33.0])
@pytest.mark.parametrize(
    ("kind", "gaps", "ends"),
    [("arterial", (10, 12, 14), False), ("street", (7, 9), False), ("arterial", (10, 12, 14), True)],
)
def test_two_divided_roads_of_one_kind_meet_in_four_junctions(kind, gaps, ends, turn, angle):
    """Two of them of three ways, where one of the roads ends at the far carriageway of the other."""
    for gap in gaps:
        low, high = 256 - gap / 2, 256 + gap / 2
        start = low - 0.01 if ends else -300
        lean = np.array([[1, 0], [1 / np.tan(np.radians(angle)), 1]])
        road = [shapely.LineString([(-300, y), (900, y)]) for y in (low, high)]
        other = [shapely.LineString((np.array([(x, start), (x, 900)]) - 256) @ lean + 256) for x in (low, high)]
        road, other = ([shapely.affinity.rotate(way, turn, (256, 256)) for way in ways] for ways in (road, other))
        grid = grid_of(256)
        ways = seen(grid, **{kind: road + other}).ways["drive"]
        whole, degrees = topology(ways)
        assert whole == pytest.approx(1), gap
        assert degrees == ([3, 3, 4, 4] if ends else [4, 4, 4, 4]), gap
        wanted = shapely.get_coordinates([shapely.intersection(one, way) for one in road for way in other])
        nodes = ways.nodes[~ways.at_edge] - grid.bounds[:2]
        assert np.hypot(*(nodes[:, None] - wanted).transpose(2, 0, 1)).min(0).max() < 4.0, gap


@pytest.mark.parametrize("gap", [17, 20, 25, 30])
@pytest.mark.parametrize("kind", ["arterial", "street"])
def test_carriageways_far_apart_are_crossed_too(kind, gap):
    for angle in (90, 75):
        ways = seen(grid_of(256), **divided_road(kind, "street", gap, angle, turn=5)).ways["drive"]
        assert topology(ways) == (pytest.approx(1), [4, 4])


@pytest.mark.parametrize("gap", [9, 12, 15])
def test_a_street_that_ends_at_the_near_carriageway_does_not_cross(gap):
    ways = divided_road("arterial", "street", gap, 90)
    ways["street"] = [shapely.LineString([(256, 256 + gap / 2), (256, 600)])]
    whole, degrees = topology(seen(grid_of(256), **ways).ways["drive"])
    assert degrees == [3]
    assert whole < 0.7


@pytest.mark.parametrize("gap", [6, 10, 14])
def test_a_street_that_stops_at_the_edge_of_a_divided_road_crosses_it(gap):
    """Models draw no street below an arterial."""
    grid = grid_of(256)
    layout = drawn(grid, **divided_road("arterial", "street", gap, 80))
    arterial, street = CHANNEL_NAMES.index("arterial"), CHANNEL_NAMES.index("street")
    layout[street][layout[arterial] > 0] = 0
    assert topology(vectorize(layout, CHANNEL_NAMES, grid).ways["drive"]) == (pytest.approx(1), [4, 4])


@pytest.mark.parametrize("gap", [6, 10, 14])
def test_carriageways_lie_where_they_are_drawn_where_another_way_joins_as_well(gap):
    grid = grid_of(256)
    shapes = divided_road("arterial", "arterial", gap, 70, turn=12)
    found = seen(grid, **shapes).ways["drive"].lines
    window = shapely.box(*grid.bounds).buffer(-20)
    for line in shapes["arterial"]:
        there = shapely.transform(line, lambda xy: xy + grid.bounds[:2]).intersection(window)
        points = shapely.line_interpolate_point(there, np.arange(0, there.length, 2.0))
        assert shapely.distance(points, shapely.union_all(found)).max() < 2.5


@pytest.mark.parametrize("kind", ["arterial", "street"])
@pytest.mark.parametrize("angle", [50, 60, 70, 90])
def test_two_ways_that_cross_at_a_low_angle_meet_once(kind, angle):
    lines = [
        shapely.affinity.rotate(shapely.LineString([(-200, 256), (712, 256)]), a, origin=(256, 256)) for a in (8, angle)
    ]
    network = "drive" if kind in NETWORKS["drive"] else kind
    ways = seen(grid_of(256), **{kind: lines}).ways[network]
    assert topology(ways) == (pytest.approx(1), [4])
    middle = ways.nodes[ways.street_count == 4][0] - grid_of(256).bounds[:2]
    assert np.hypot(*(middle - 256)) < 2.5


def roundabout(radius, arms, turn, *, middle=(256.7, 255.2)):
    ring = shapely.LineString(shapely.Point(middle).buffer(radius, 32).exterior.coords)
    angles = turn + np.arange(arms) * 2 * np.pi / arms
    return ring, [
        shapely.LineString([np.add(middle, r * np.array([np.cos(a), np.sin(a)])) for r in (radius, 500)])
        for a in angles
    ]


@pytest.mark.parametrize("radius", [10, 12, 15, 20, 27])
@pytest.mark.parametrize(("kind", "arm"), [("street", "street"), ("arterial", "arterial"), ("arterial", "street")])
def test_the_nodes_of_a_roundabout_lie_on_its_ring(kind, arm, radius):
    if radius < WIDTHS[kind] / 2 + 6:
        pytest.skip("its island is too small to be seen")
    for arms in (3, 4, 5):
        for turn in (0.0, 0.4):
            ring, ways = roundabout(radius, arms, turn)
            if 2 * np.pi * radius / arms < WIDTHS[arm] + 3:
                continue  # the arms touch
            shapes = {kind: [ring, *ways]} if kind == arm else {kind: [ring], arm: ways}
            found = seen(grid_of(256), **shapes).ways["drive"]
            assert topology(found) == (pytest.approx(1), [3] * arms)
            nodes = found.nodes[~found.at_edge] - grid_of(256).bounds[:2] - (256.7, 255.2)
            assert np.abs(np.hypot(*nodes.T) - radius).max() < 2.0


@pytest.mark.parametrize("radius", [5, 6, 7])
def test_a_small_roundabout_is_one_junction(radius):
    for turn in (0.0, 0.4):
        ring, ways = roundabout(radius, 4, turn)
        found = seen(grid_of(256), street=[ring, *ways]).ways["drive"]
        assert topology(found) == (pytest.approx(1), [4])
        (node,) = found.nodes[~found.at_edge] - grid_of(256).bounds[:2]
        assert np.hypot(*(node - (256.7, 255.2))) < 2.5


@settings(deadline=None, max_examples=60)
@given(
    angle=st.one_of(st.floats(22, 68), st.just(90), st.floats(112, 158)),
    at=st.floats(60, 450),
    kind=st.sampled_from(["arterial", "street", "walk"]),
    turns=st.integers(0, 3),
)
def test_a_way_leaves_the_window_once_and_in_its_own_direction(angle, at, kind, turns):
    ahead = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    line = shapely.LineString([np.array([at, 0]) - 200 * ahead, np.array([at, 0]) + 1500 * ahead])
    line = shapely.affinity.rotate(line, 90 * turns, origin=(256, 256))
    window = shapely.box(0, 0, 512, 512)
    source = line.intersection(window)
    if min(source.length, *(shapely.Point(c).distance(shapely.Point(p)) for c in window.exterior.coords
           for p in source.boundary.geoms)) < 40:  # fmt: skip
        return  # it leaves through a corner
    grid = grid_of(256)
    ways = seen(grid, **{kind: [line]}).ways["drive" if kind in NETWORKS["drive"] else kind]
    assert topology(ways) == (pytest.approx(1), [])
    exits = shapely.transform(source.boundary, lambda xy: xy + grid.bounds[:2])
    tips = shapely.points(ways.nodes[ways.at_edge])
    assert shapely.distance(tips, exits).max() < WIDTHS[kind] + 3


def test_a_way_along_the_edge_is_kept_inside_and_left_out_outside():
    for inside, length in ((6, 512), (3, 512), (-2, 0)):
        found = seen(grid_of(256), street=[shapely.LineString([(-50, inside), (600, inside)])]).ways["drive"]
        assert shapely.length(found.lines).sum() == pytest.approx(length, abs=8)
        assert topology(found)[1] == [] if length else not len(found.lines)


def test_the_kind_of_a_way_is_that_which_covers_it():
    grid = grid_of()
    vectors = seen(
        grid,
        arterial=[shapely.LineString([(20, 128), (236, 128)])],
        street=[shapely.LineString([(128, 20), (128, 236)])],
    )
    ways = vectors.layers()["drive"]
    assert sorted(ways.kind) == ["arterial", "arterial", "street", "street"]
    assert set(ways[ways.kind == "arterial"].highway) == {"primary"}
    flat = ways[ways.kind == "arterial"].total_bounds
    assert flat[3] - flat[1] < 8


def test_a_ring_without_a_junction_is_one_closed_way():
    ring = shapely.Point(128, 128).buffer(60).exterior
    ways = seen(grid_of(), street=[shapely.LineString(ring.coords)]).layers()["drive"]
    assert len(ways) == 1
    assert ways.u[0] == ways.v[0]
    assert ways.length_m[0] == pytest.approx(ring.length, rel=0.02)


def test_other_tools_take_the_graph_as_it_is(tmp_path):
    grid = grid_of(256)
    lines = [shapely.LineString([(x, -10), (x, 522)]) for x in (100, 250, 400)]
    lines += [shapely.LineString([(-10, y), (522, y)]) for y in (100, 250, 400)]
    graph = seen(grid, street=lines).graph("drive")
    stats = ox.basic_stats(graph, area=512**2)
    assert stats["street_length_total"] == pytest.approx(6 * 512, rel=0.01)
    assert stats["intersection_count"] == 9
    assert stats["circuity_avg"] == pytest.approx(1, abs=0.005)
    corners = ox.distance.nearest_nodes(graph, *np.array([[500_100, 500_400], [6_000_100, 6_000_400]]))
    path = ox.routing.shortest_path(graph, *corners, weight="length")
    assert nx.path_weight(graph, path, "length") == pytest.approx(600, rel=0.02)
    bearings = ox.bearing.add_edge_bearings(ox.project_graph(graph, to_latlong=True))
    assert ox.bearing.orientation_entropy(ox.convert.to_undirected(bearings)) < 1.5
    nodes, edges = momepy.nx_to_gdf(momepy.node_degree(ox.convert.to_undirected(graph)))
    assert nodes.degree.max() == 4
    assert len(edges) == 24
    ox.save_graphml(graph, tmp_path / "g.graphml")
    again = ox.load_graphml(tmp_path / "g.graphml")
    assert nx.utils.graphs_equal(nx.Graph(again.edges()), nx.Graph(graph.edges()))
    assert again.graph["crs"] == graph.graph["crs"]


def test_streets_cycle_tracks_and_footways_are_one_graph_too():
    """A footway that crosses a street meets it; one that ends at its edge leads onto it; one far off does not."""
    vectors = seen(
        grid_of(),
        street=[shapely.LineString([(0, 128), (256, 128)])],
        walk=[
            shapely.LineString([(60, 30), (60, 226)]),
            shapely.LineString([(130, 30), (130, 120)]),
            shapely.LineString([(170, 30), (170, 105)]),
        ],
        cycle=[shapely.LineString([(200, 30), (200, 226)])],
    )
    graph = vectors.graph("all")
    degree = sorted(count for _, count in graph.nodes(data="street_count"))
    assert degree == [1] * 9 + [3, 4, 4]
    assert {kind for *_, kind in graph.edges(data="highway")} == {"residential", "footway", "cycleway"}
    start, end = ox.distance.nearest_nodes(graph, *np.array([[500_130, 500_256], [6_000_030, 6_000_128]]))
    route = ox.routing.shortest_path(graph, start, end, weight="length")
    assert nx.path_weight(graph, route, "length") == pytest.approx(98 + 126, rel=0.03)
    assert {n for n, count in graph.nodes(data="street_count") if count == 1} >= {start, end}
    apart = sum(shapely.length(vectors.ways[name].lines).sum() for name in ("drive", "cycle", "walk"))
    assert shapely.length(vectors.together().lines).sum() == pytest.approx(apart + 8, abs=4)


def test_ways_lead_on_to_other_networks_and_keep_their_kind():
    """An avenue's end stays an avenue's; a track that leaves the window ends there, near a street or not."""
    vectors = seen(
        grid_of(),
        street=[shapely.LineString([(20, 40), (20, 246)])],
        cycle=[shapely.LineString([(60, 200), (28, 200)]), shapely.LineString([(30, 256), (60, 225)])],
        walk=[shapely.LineString([(68, 200), (120, 200)])],
    )
    ways = vectors.together()
    on_track = [line.length for line, kind in zip(ways.lines, ways.kind, strict=True) if kind == "cycle"]
    assert len(ways.lines) == 4, "the street in two, the track with the footway, and the other track"
    assert min(on_track) == pytest.approx(np.hypot(30, 31), abs=4)
    avenue = seen(
        grid_of(),
        street=[shapely.LineString([(20, 20), (60, 20)])],
        arterial=[shapely.LineString([(100, 30), (100, 180)])],
        walk=[shapely.LineString([(70, 184), (130, 184)])],
    ).together(("walk", "drive"))
    assert sorted(avenue.street_count) == [1, 1, 1, 1, 1, 3]
    length = {kind: shapely.length(avenue.lines[avenue.kind == kind]).sum() for kind in set(avenue.kind)}
    assert length == pytest.approx({"street": 40, "arterial": 154, "walk": 60}, abs=9)
    with pytest.raises(DataError, match="choices:"):
        vectors.together(("drvie",))


def service_yard():
    """A street, a service road that leaves it, and a driveway at the end of that."""
    return {
        "street": [shapely.LineString([(20, 60), (236, 60)])],
        "service": [shapely.LineString([(128, 60), (128, 200)]), shapely.LineString([(128, 160), (200, 160)])],
    }


def test_service_roads_are_a_network_of_their_own_or_part_of_the_drive_network():
    grid = grid_of()
    layout = drawn(grid, **service_yard())
    apart, joined = (vectorize(layout, CHANNEL_NAMES, grid, service=service) for service in (False, True))
    assert set(apart.ways["drive"].kind) == {"street"}
    assert sorted(apart.ways["service"].street_count) == [1, 1, 1, 3]
    assert set(apart.layers()["service"].highway) == {"service"}
    assert sorted(apart.together().street_count) == [1, 1, 1, 1, 3, 3]
    assert "service" not in joined.ways
    assert sorted(joined.ways["drive"].street_count) == [1, 1, 1, 1, 3, 3]
    length = {k: joined.layers()["drive"].groupby("kind").length_m.sum()[k] for k in ("street", "service")}
    assert length == pytest.approx({"street": 216, "service": 212}, abs=10)
    assert {kind for *_, kind in joined.graph().edges(data="highway")} == {"residential", "service"}
    source = {
        name: shapely.transform(np.array(lines, object), lambda xy: xy + grid.bounds[:2])
        for name, lines in service_yard().items()
    }
    assert sorted(node_features(source, grid, service=True).ways["drive"].street_count) == [1, 1, 1, 1, 3, 3]
    assert set(node_features(source, grid).ways) == {"drive", "service"}


def test_layouts_without_service_roads_and_squares_are_as_they_were():
    grid = grid_of()
    old = [name for name in CHANNEL_NAMES if name not in {"service", "square"}]
    layout = drawn(grid, **service_yard(), building=[shapely.box(40, 80, 60, 100)])
    kept = [CHANNEL_NAMES.index(name) for name in old]
    less, more = vectorize(layout[kept], old, grid), vectorize(layout, CHANNEL_NAMES, grid)
    assert {"service", "square"}.isdisjoint(less.layers())
    for service in (False, True):
        assert set(vectorize(layout[kept], old, grid, service=service).layers()) == set(less.layers())
    assert (less.ways["drive"].lines == more.ways["drive"].lines).all()
    assert (less.areas["building"] == more.areas["building"]).all()


# Areas


@settings(deadline=None, max_examples=60)
@given(st.floats(0, np.pi / 2), st.floats(10, 60), st.floats(10, 60), st.floats(0, 2), st.floats(0, 2))
def test_a_house_comes_back_with_its_right_angles(angle, long, deep, east, north):
    box = shapely.affinity.rotate(shapely.box(-long / 2, -deep / 2, long / 2, deep / 2), angle, use_radians=True)
    house = shapely.affinity.translate(box, 128 + east, 128 + north)
    grid = grid_of()
    (found,) = seen(grid, building=[house]).areas["building"]
    there = shapely.affinity.translate(house, *grid.bounds[:2])
    assert found.intersection(there).area / found.union(there).area > 0.86
    assert found.area == pytest.approx(there.area, rel=0.12)
    corners = shapely.get_coordinates(found)
    edges = np.diff(corners, axis=0)
    turns = np.degrees(np.arctan2(edges[:, 1], edges[:, 0])) % 90
    off = np.minimum(np.abs(turns - turns[0]), 90 - np.abs(turns - turns[0]))
    assert (off < 1e-6).all() or off.max() > 5  # square, or left as it is: never nearly square


def ellipse(long, deep):
    return shapely.affinity.scale(shapely.Point(0, 0).buffer(1, quad_segs=32), long / 2, deep / 2)


def polygon_of(sides, radius):
    turn = 2 * np.pi * np.arange(sides) / sides
    return shapely.Polygon(radius * np.stack([np.cos(turn), np.sin(turn)], 1))


RIGHT = {
    "house": shapely.box(0, 0, 20, 12),
    "slab": shapely.box(0, 0, 60, 11),
    "L": (shapely.box(0, 0, 24, 10) | shapely.box(0, 0, 10, 30)).simplify(0),
    "T": (shapely.box(0, 0, 30, 10) | shapely.box(10, 10, 20, 24)).simplify(0),
    "courtyard": shapely.box(0, 0, 40, 30) - shapely.box(10, 10, 30, 20),
}
"""Buildings of right angles, in metres."""

ROUND = {
    "tower": ellipse(20, 20),
    "gasometer": ellipse(40, 40),
    "ring": ellipse(48, 48) - ellipse(24, 24),
    "hexagon": polygon_of(6, 14),
    "octagon": polygon_of(8, 12),
    "triangle": polygon_of(3, 20),
}
"""Buildings that no right angle is near to."""

SKEWED = {
    "oval": ellipse(48, 20),
    "rhomboid": shapely.Polygon([(0, 0), (28, 0), (36, 15), (8, 15)]),
}
"""Buildings with long straight sides, and no right angle."""


def found_again(building, turn, tries=12):
    """Draw a building at some places between cells of 2 m, and yield what it is and what comes back, in cells."""
    grid, generator = grid_of(64), np.random.default_rng(turn)
    there = shapely.affinity.rotate(building, turn, origin=(0, 0))
    middle = np.array(there.envelope.centroid.coords[0])
    for _ in range(tries):
        moved = shapely.affinity.translate(there, *(64 - middle + generator.uniform(0, 2, 2)))
        (found,) = seen(grid, building=[moved]).areas["building"]
        to_cells = shapely.transform([shapely.affinity.translate(moved, *grid.bounds[:2]), found], grid.to_cells)
        yield to_cells[0], to_cells[1]


def count_right_angles(shape):
    """Count right angles to a thousandth of a degree: no outline has them by chance."""
    turns = []
    for ring in (shape.exterior, *shape.interiors):
        edge = np.diff(shapely.get_coordinates(ring), axis=0) @ (1, 1j)
        turns += np.angle(edge / np.roll(edge, 1), deg=True).tolist()
    return int((np.abs(np.abs(turns) - 90) < 1e-3).sum())


def bearing_of(shape):
    """Return the direction, in degrees from 0 to 90, that the edges of a shape agree on most."""
    edge = np.diff(shapely.get_coordinates(shape.exterior), axis=0) @ (1, 1j)
    return np.angle((edge**4 / np.abs(edge) ** 2).sum(), deg=True) / 4


TURNS = [0, 7, 20, 30, 45, 71]


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("name", [*RIGHT, *ROUND, *SKEWED])
def test_whatever_its_form_a_building_comes_back_in_place(name, turn):
    for there, found in found_again({**RIGHT, **ROUND, **SKEWED}[name], turn):
        assert found.area == pytest.approx(there.area, rel=0.06)
        assert len(found.interiors) == len(there.interiors)
        assert shapely.hausdorff_distance(found.boundary, there.boundary, densify=0.1) < 1.5


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("name", RIGHT)
def test_a_building_of_right_angles_keeps_its_bearing(name, turn):
    for there, found in found_again(RIGHT[name], turn):
        off = (bearing_of(found) - bearing_of(there) + 45) % 90 - 45
        assert abs(off) < 2


@pytest.mark.parametrize("name", RIGHT)
def test_a_building_of_right_angles_has_them(name):
    """A corner may stay cut where it lies unluckily between the cells."""
    corners = len(shapely.get_coordinates(RIGHT[name])) - 1 - len(RIGHT[name].interiors)
    right = [count_right_angles(found) for turn in TURNS for _, found in found_again(RIGHT[name], turn)]
    assert np.mean(right) > 0.9 * corners


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("name", ROUND)
def test_right_angles_are_not_made_where_there_are_none(name, turn):
    for _, found in found_again(ROUND[name], turn):
        assert count_right_angles(found) == 0


@pytest.mark.parametrize("name", SKEWED)
def test_slanted_walls_are_no_steps(name):
    found = [shape for turn in TURNS for _, shape in found_again(SKEWED[name], turn)]
    assert sum(map(count_right_angles, found)) < 0.2 * len(found)


def test_a_yard_is_a_hole_and_noise_is_left_out():
    block = shapely.box(40, 40, 120, 120) - shapely.box(60, 60, 100, 100)
    speck = shapely.box(200, 200, 202, 202)
    (found,) = seen(grid_of(), building=[block, speck]).areas["building"]
    assert len(found.interiors) == 1
    assert found.area == pytest.approx(80**2 - 40**2, rel=0.02)
    filled = vectorize(
        drawn(grid_of(), building=[block]), CHANNEL_NAMES, grid_of(), smallest_m2={"building": 2000}
    ).areas["building"]
    assert not filled[0].interiors


def test_a_square_is_an_area():
    vectors = seen(grid_of(), square=[shapely.box(60, 60, 160, 160), shapely.box(200, 200, 205, 205)])
    (found,) = vectors.areas["square"]
    assert found.area == pytest.approx(100**2, rel=0.02)
    assert not len(vectors.ways["walk"].lines)


def test_areas_that_the_window_cuts_end_at_its_edge():
    grid = grid_of()
    shapes = {"building": [shapely.box(-30, 20, 50, 60)], "water": [shapely.box(100, 150, 400, 400)]}
    areas = seen(grid, **shapes).areas
    assert shapely.total_bounds(areas["building"])[0] == pytest.approx(grid.bounds[0])
    assert tuple(shapely.total_bounds(areas["water"])[2:]) == pytest.approx(grid.bounds[2:])
    assert shapely.area(areas["building"]).sum() == pytest.approx(50 * 40, rel=0.03)
    assert shapely.area(areas["water"]).sum() == pytest.approx(156 * 106, rel=0.01)


# Real cities


@pytest.mark.slow
def test_buildings_survive_the_round_trip(city):
    _, windows = city
    both = either = 0.0
    for grid, layout in windows:
        vectors = vectorize(layout, CHANNEL_NAMES, grid)
        for name in AREAS:
            shapes = vectors.areas[name]
            assert shapely.is_valid(shapes).all()
            one, other = shapely.STRtree(shapes).query(shapes, predicate="overlaps")
            assert shapely.area(shapely.intersection(shapes[one], shapes[other])).sum() < 1e-6
        back = np.concatenate(
            list(rasterize({"building": layer(vectors.areas["building"], "building", grid.crs)}, grid)), 1
        )
        both += np.minimum(back[0], layout[0]).sum()
        either += np.maximum(back[0], layout[0]).sum()
    assert both / either >= 0.9


@pytest.mark.slow
def test_street_graphs_measure_as_the_source_does(city):
    """Length within 10 %, junctions within 20 %, orientation entropy, weighted by length, within 0.12 nat."""
    found, windows = city
    lines = np.concatenate([found[k].geometry.to_numpy() for k in NETWORKS["drive"]])
    lines = lines[shapely.get_dimensions(lines) == 1]
    totals = {"ours": np.zeros(2), "source": np.zeros(2)}
    graphs = {"ours": [], "source": []}
    for grid, layout in windows:
        for name, vectors in (
            ("ours", vectorize(layout, CHANNEL_NAMES, grid)),
            ("source", node_features({"street": lines}, grid)),
        ):
            graph = vectors.graph("drive")
            stats = ox.basic_stats(graph, area=512**2, clean_int_tol=10)
            totals[name] += stats["street_length_total"], stats["clean_intersection_count"]
            graphs[name].append(
                ox.convert.to_undirected(ox.bearing.add_edge_bearings(ox.project_graph(graph, to_latlong=True)))
            )
    length, junctions = totals["ours"] / totals["source"]
    entropy = {
        name: ox.bearing.orientation_entropy(nx.disjoint_union_all(g), weight="length") for name, g in graphs.items()
    }
    assert length == pytest.approx(1, abs=0.1)
    assert junctions == pytest.approx(1, abs=0.2)
    assert entropy["ours"] == pytest.approx(entropy["source"], abs=0.12)


@pytest.mark.slow
def test_what_is_drawn_from_a_map_does_not_pale(city, monkeypatch):
    _, windows = city
    lengths = []
    for pale in (centrelines.PALE, 1.0):
        monkeypatch.setattr(centrelines, "PALE", pale)
        drives = [vectorize(layout, CHANNEL_NAMES, grid).ways["drive"] for grid, layout in windows]
        lengths.append(sum(shapely.length(ways.lines).sum() for ways in drives))
    assert lengths[0] == pytest.approx(lengths[1], rel=0.002)


@pytest.mark.parametrize(
    ("case", "degrees"), [("dual_crossing", [4, 4]), ("g_dual20_cross", [4, 4]), ("roundabout", [3, 3, 3, 3])]
)
def test_hand_drawn_cases_are_read_right(shared_osm, case, degrees):
    file = shared_osm.parent / "cases" / f"{case}.osm"
    if not file.is_file():
        pytest.skip(f"{case}.osm is not at hand")
    source = OsmFile(str(file))
    place = Place.from_bbox(case, source.extent())
    grid = Grid.covering(place.bounds_utm, place.crs, 2.0)
    layout = np.concatenate(list(rasterize(read_features(place, source), grid)), 1)
    ways = vectorize(layout, CHANNEL_NAMES, grid).ways["drive"]
    whole, found = topology(ways)
    assert whole == pytest.approx(1)
    assert [d for d in found if d > 1] == degrees
    if case == "roundabout":
        nodes = ways.nodes[ways.street_count == 3]
        assert np.hypot(*(nodes - nodes.mean(0)).T) == pytest.approx(12, abs=1.5)


@pytest.mark.slow
def test_networks_hang_together_as_the_source_s_do(cities, sample_pbf):
    """Means of windows of Helsinki's centre: the largest part, four-way junctions, dead ends, and reach in 400 m."""
    source = OsmFile(str(sample_pbf))
    found = read_features(Place.from_bbox("helsinki", source.extent()), source)
    lines = {k: found[k].geometry.to_numpy() for k in NETWORKS["drive"]}
    lines = {k: shapes[shapely.get_dimensions(shapes) == 1] for k, shapes in lines.items()}
    raster = CityRaster.open(cities / "helsinki")
    level = raster.level(2.0)
    kinds = [raster.channels.index(k) for k in NETWORKS["drive"]]
    measured = []
    for row in range(0, level.valid.shape[0] - 256, 48):
        for column in range(0, level.valid.shape[1] - 256, 48):
            part = np.s_[row : row + 256, column : column + 256]
            if level.valid[part].all():
                grid = Grid(raster.crs, raster.grid.left + 2 * column, raster.grid.top - 2 * row, 2.0, 256, 256)
                window = level.array[(slice(None), *part)][kinds]
                made = vectorize(window, NETWORKS["drive"], grid), node_features(lines, grid)
                measured.append([network_topology(vectors.ways["drive"]) for vectors in made])
    ours, sources = np.mean(measured, 0)
    assert len(measured) > 30
    assert ours[[0, 3]] == pytest.approx(sources[[0, 3]], rel=0.05)
    assert ours[[1, 2]] == pytest.approx(sources[[1, 2]], rel=0.14)  # of one square kilometre: few junctions


def network_topology(ways):
    """Share of the largest part, of junctions of four and of dead ends, and metres within 400 m of junctions."""
    degrees = np.array(topology(ways)[1])
    length, n = shapely.length(ways.lines), len(ways.nodes)
    graph = nx.Graph()
    for (u, v), metres in zip(ways.ends.tolist(), length.tolist(), strict=True):
        if metres < graph.get_edge_data(u, v, {"length": np.inf})["length"]:
            graph.add_edge(u, v, length=metres)
    reached = []
    for junction in np.flatnonzero(ways.street_count > 2).tolist():
        far = nx.single_source_dijkstra_path_length(graph, junction, 400, weight="length")
        left = 400 - np.array([far.get(node, np.inf) for node in range(n)])
        reached.append(np.minimum(length, np.maximum(left[ways.ends], 0).sum(1)).sum())
    return topology(ways)[0], (degrees > 3).mean(), (degrees == 1).mean(), np.mean(reached)


def test_generated_sizes_are_taken_as_well(cities):
    """8 m cells, in which a track is half a cell wide, and unnamed channels left out."""
    raster = CityRaster.open(cities / "helsinki")
    level = raster.level(8.0)
    channels = [c for c in raster.channels if c != "parking"]
    window = level.array[[raster.channels.index(c) for c in channels], 40:104, 20:84]
    grid = Grid(raster.crs, 0.0, 512.0, 8.0, 64, 64)
    vectors = vectorize(window, channels, grid)
    assert "parking" not in vectors.areas
    assert ox.basic_stats(vectors.graph("drive"))["intersection_count"] > 5
    assert len(vectors.areas["building"]) > 5


# What is no layout


def test_an_empty_layout_has_no_features_and_says_so_of_its_graph():
    grid = grid_of()
    vectors = vectorize(np.zeros((len(CHANNEL_NAMES), 128, 128)), CHANNEL_NAMES, grid)
    layers = vectors.layers()
    assert {*AREAS, *NETWORKS} < set(layers)
    assert all(len(layer) == 0 and layer.crs == CRS for layer in layers.values())
    with pytest.raises(DataError, match="no ways of the network cycle"):
        vectors.graph("cycle")
    with pytest.raises(DataError, match="choices:"):
        vectors.graph("fly")
    with pytest.raises(DataError, match="no ways of the network all"):
        vectors.graph("all")
    assert "all" not in vectorize(np.zeros((2, 128, 128)), ["building", "rail"], grid).networks


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@example(seed=18670617, size=9, resolution_m=1.0, levels=tuple(np.linspace(0, 1, 9)), blocks=1)  # a hole that touches
@example(seed=1, size=12, resolution_m=2.0, levels=tuple(np.linspace(0, 1, 9)), blocks=1)  # edges in one line
@example(seed=1, size=4, resolution_m=1.0, levels=tuple(np.linspace(0, 1, 9)), blocks=1)  # a way that would leave it
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 24),
    resolution_m=st.sampled_from([1.0, 2.0, 8.0]),
    levels=st.sampled_from([(0, 1), (0.5,), (1,), (0, 0.5, 1), (0.45, 0.55), tuple(np.linspace(0, 1, 9))]),
    blocks=st.integers(1, 6),
)
def test_no_coverage_is_too_wild(seed, size, resolution_m, levels, blocks):
    """Specks, checkers, plateaus, floods: features are valid, within the window, and meet in their nodes."""
    grid = grid_of(size, resolution_m)
    coarse = np.random.default_rng(seed).choice(levels, (len(CHANNEL_NAMES), -(-size // blocks), -(-size // blocks)))
    vectors = vectorize(coarse.repeat(blocks, 1).repeat(blocks, 2)[:, :size, :size], CHANNEL_NAMES, grid)
    window = shapely.box(*grid.bounds).buffer(1e-3)
    for shapes in vectors.areas.values():
        assert shapely.is_valid(shapes).all()
        assert shapely.covers(window, shapes).all()
    for ways in vectors.ways.values():
        assert shapely.covers(window, ways.lines).all()
        for i, end in enumerate((0, -1)):
            tips = shapely.get_coordinates(shapely.get_point(ways.lines, end))
            assert np.allclose(tips, ways.nodes[ways.ends[:, i]])


@pytest.mark.parametrize(
    ("cells", "channels", "words"),
    [
        (np.full((1, 128, 128), np.nan), ["building"], "are no coverage"),
        (np.full((1, 128, 128), 2.0), ["building"], "0 to 2"),
        (np.zeros((1, 64, 128)), ["building"], "shape"),
        (np.zeros((2, 128, 128)), ["building"], "shape"),
        (np.zeros((1, 128, 128)), ["castle"], "castle"),
    ],
)
def test_what_is_no_layout_is_refused(cells, channels, words):
    with pytest.raises(DataError, match=words):
        vectorize(cells, channels, grid_of())
