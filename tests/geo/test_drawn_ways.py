"""Laws of ways that were drawn as lines: their network is theirs, as long as the cells are theirs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import shapely

import citygrain
from citygrain.errors import DataError
from citygrain.geo.drawn_ways import DRAWN, DrawnWays, find_vectors
from citygrain.geo.rasterize import Grid
from citygrain.geo.vector_files import vectorize_layouts
from citygrain.layouts import Layouts

GRID = Grid("EPSG:32633", 386000.0, 6672000.0, 2.0, 128, 128)
CHANNELS = ("building", "street", "walk")


def lines(*coordinates):
    return np.array([shapely.LineString(xy) for xy in coordinates], object)


TOWN = DrawnWays(
    np.array(["street", "street", "street", "street", "walk"]),
    lines(
        [[0, 100], [256, 100]],  # through the window
        [[60, 0], [60, 256]],  # crosses it
        [[160.3, 100], [160.3, 200]],  # meets it, and stops
        [[20, 20], [200, 220]],  # a bridge: crosses both
        [[30, 180], [90, 240]],  # of another network
    ),
    np.array([False, False, False, True, False]),
)


def town(cells=0):
    layout = np.full((3, 128, 128), cells, np.uint8)
    return Layouts(layout[None], CHANNELS, 2.0, (GRID,), ways=(TOWN.drawn_as(layout),))


def nodes(graph):
    """The nodes of a graph, in metres from the upper left corner: (x, y) → how many ways meet there."""
    return {
        (round(d["x"] - GRID.left, 1), round(GRID.top - d["y"], 1)): d["street_count"]
        for _, d in graph.nodes(data=True)
    }


def test_streets_meet_where_they_cross_and_a_bridge_does_not():
    assert nodes(town().graph()) == {
        (0, 100): 1, (256, 100): 1, (60, 0): 1, (60, 256): 1, (160.3, 200): 1, (20, 20): 1, (200, 220): 1,
        (60, 100): 4, (160.3, 100): 3,
    }  # fmt: skip
    assert nodes(town().graph("walk")) == {(30, 180): 1, (90, 240): 1}


def test_no_length_is_lost_and_ends_at_the_edge_are_known():
    vectors = town().vectors()
    assert vectors["drive"].length.sum() == pytest.approx(shapely.length(TOWN.lines[:4]).sum(), abs=0.01)
    assert vectors["walk"].length.sum() == pytest.approx(shapely.length(TOWN.lines[4]), abs=0.01)
    assert vectors["drive_nodes"]["at_edge"].sum() == 4
    assert len(vectors["drive"]) == 7
    assert set(vectors["drive"]["kind"]) == {"street"}
    assert len(vectors["building"]) == 0


def test_the_network_of_a_turned_layout_lies_turned_and_knows_its_edge():
    layouts = replace(town(), grids=(GRID.turned(30.0),))
    upright, turned = (of.features()[0].ways["drive"] for of in (town(), layouts))
    assert sorted(turned.street_count) == sorted(upright.street_count)
    assert turned.at_edge.sum() == 4
    there = layouts.grids[0].to_cells(turned.nodes) * 2
    here = GRID.to_cells(upright.nodes) * 2
    assert np.allclose(there[np.lexsort(there.round(1).T)], here[np.lexsort(here.round(1).T)], atol=0.01)


def test_a_bridge_meets_others_at_ends():
    ways = DrawnWays(
        np.array(["street"] * 4),
        lines([[50, 10], [50, 200]], [[50, 100.3], [200, 100.3]], [[120, 0], [120, 256]], [[150, 100.3], [150, 180]]),
        np.array([False, True, False, False]),
    )
    found = ways.node(CHANNELS, GRID)["drive"]
    at = {(round(x - GRID.left, 1), round(GRID.top - y, 1)) for x, y in found.nodes[found.street_count == 3]}
    assert at == {(50, 100.3), (150, 100.3)}
    assert found.street_count.max() == 3, "the bridge does not meet the street below it"
    assert shapely.length(found.lines).sum() == pytest.approx(shapely.length(ways.lines).sum(), abs=0.01)


def test_a_bridge_stays_apart_where_networks_are_joined():
    over = DrawnWays(
        np.array(["street", "street", "walk", "walk", "walk"]),
        lines(
            [[0, 100], [256, 100]],
            [[60, 0], [60, 256]],  # a bridge: over the street and the path
            [[10, 150], [200, 150]],
            [[200, 40], [200, 150]],  # crosses the street, and meets the path
            [[30, 60], [57, 60]],  # ends beside the bridge, and is led onto it
        ),
        np.array([False, True, False, False, False]),
    )
    layouts = replace(town(), ways=(over.drawn_as(town().cells[0]),))
    found = nodes(layouts.graph("all"))
    assert {at: count for at, count in found.items() if count > 1} == {(200, 100): 4, (60, 60): 3}
    assert found.keys() >= {(0, 100), (256, 100), (60, 0), (60, 256), (10, 150), (200, 40), (30, 60)}
    assert (60, 100) not in found
    assert layouts.features()[0].together().apart.sum() == 2, "the two pieces of the bridge"
    assert sum(d["length"] for *_, d in layouts.graph("all").edges(data=True)) / 2 == pytest.approx(
        shapely.length(over.lines).sum() + 3, abs=0.01
    )


def test_other_cells_are_traced():
    layouts = town()
    assert layouts.features()[0].ways["drive"].lines.size == 7
    changed = layouts.cells.copy()
    changed[0, 1, 30:34] = 255
    traced = replace(layouts, cells=changed).features()[0].ways["drive"]
    assert len(traced.lines) == 1
    assert shapely.length(traced.lines[0]) == pytest.approx(256, abs=1)
    assert find_vectors(changed[0], CHANNELS, GRID, None).ways["drive"].lines.size == 1


def test_ways_stay_with_their_layouts():
    one, other = town(), replace(town(7), names=("other",))
    plain = replace(town(9), ways=(), names=("plain",))
    joined = one + plain + other
    assert [ways is None for ways in joined.ways] == [False, True, False]
    assert joined[[2, 0]].ways == (joined.ways[2], joined.ways[0])
    assert joined[1].features()[0].ways["drive"].lines.size == 0
    assert len(joined[2].graph()) == len(one.graph())
    assert (plain + plain).ways == ()
    with pytest.raises(DataError, match="one of the ways"):
        replace(joined, ways=joined.ways[:2])


@pytest.mark.parametrize("bearing", [0.0, 30.0])
def test_ways_are_written_with_the_layouts_and_belong_to_them_when_they_are_read(tmp_path, bearing):
    layouts = replace(town(), grids=(GRID.turned(bearing),)) + replace(town(9), ways=(), names=("plain",))
    layouts.save(tmp_path)
    read = citygrain.open_layout(tmp_path)
    assert nodes(read[0].graph()) == nodes(layouts[0].graph())
    assert read.ways[1] is None
    found = vectorize_layouts(tmp_path, tmp_path / "vectors", formats=["gpkg"], workers=1)
    assert len(found["layout_0000"].ways["drive"].lines) == 7
    part = citygrain.open_layout(tmp_path / "layouts" / "layout_0000.tif", bounds=(386000, 6671800, 386200, 6672000))
    assert len(part.features()[0].ways["drive"].lines) == 0, "a part is traced"
    replace(layouts, ways=()).save(tmp_path)
    assert not (tmp_path / "layouts" / DRAWN).exists()
    (tmp_path / "layouts" / DRAWN).write_text("no")
    with pytest.raises(DataError, match=r"damaged[\s\S]*remove it"):
        citygrain.open_layout(tmp_path)


def area_of(*coordinates, kinds=None, apart=None):
    count = len(coordinates)
    kind = np.array(kinds or ["street"] * count)
    return DrawnWays(kind, lines(*coordinates), np.zeros(count, bool) if apart is None else np.array(apart))


def window_of(*coordinates, given, **of):
    return replace(area_of(*coordinates, **of), given=np.array(given))


def test_the_ways_of_a_window_are_those_of_the_area_cut_at_its_edge():
    window = TOWN.cut(20, 110, 120)
    marks = zip(window.kind.tolist(), window.apart.tolist(), strict=True)
    assert sorted(marks) == [("street", False), ("street", True), ("walk", False)]
    assert shapely.length(window.lines[window.kind == "walk"]) == pytest.approx(50 * 2**0.5)
    assert shapely.total_bounds(window.lines) == pytest.approx([10, 0, 120, 120])
    twice = TOWN.cut(10, 60, 180).cut(10, 50, 120)
    for one, other in zip(window.lines, twice.lines, strict=True):
        assert shapely.hausdorff_distance(one, other) < 1e-9


def test_an_area_keeps_its_lines_and_has_those_that_a_window_adds():
    given, fresh = TOWN.cut(20, 110, 120), [[70, 10], [90, 30]]
    window = DrawnWays(
        np.append(given.kind, "walk"), np.append(given.lines, lines(fresh)), np.append(given.apart, True),
        given=np.array([True, True, True, False]),
    )  # fmt: skip
    more = TOWN.extend(window, 20, 110)
    assert len(more.lines) == len(TOWN.lines) + 1
    assert shapely.length(more.lines).sum() == pytest.approx(shapely.length(TOWN.lines).sum() + 20 * 2**0.5)
    (added,) = more.lines[(more.kind == "walk") & more.apart]
    assert list(added.coords) == [(90, 120), (110, 140)]
    assert TOWN.extend(DrawnWays.none(), 0, 0).apart.sum() == 1
    assert len(DrawnWays.none().extend(given, 20, 110).lines) == 3


def test_a_line_that_goes_on_is_one_line_though_the_window_saw_it_a_little_beside():
    street = area_of([[0, 50], [100, 50]])
    seen, fresh = [[0, 51], [98, 52]], [[98, 52], [200, 60]]  # rounded to positions of another frame
    window = window_of(seen, fresh, given=[True, False])
    (joined,) = street.extend(window, 0, 0).lines
    assert sorted(joined.coords) == [(0, 50), (100, 50), (200, 60)]
    walk = window_of(seen, fresh, given=[True, False], kinds=["street", "walk"])
    assert sorted(shapely.length(street.extend(walk, 0, 0).lines)) == pytest.approx([100, 100.5], abs=0.1)


def test_an_end_on_a_given_line_is_on_the_line_of_the_area_and_other_ends_stay():
    street = area_of([[0, 50], [100, 50]])
    window = window_of([[0, 53], [100, 53]], [[40, 53], [40, 200]], [[60, 57], [60, 200]], given=[True, False, False])
    more = street.extend(window, 0, 0)
    starts = sorted(min(line.coords, key=lambda p: p[1]) for line in more.lines)
    assert starts == [(0, 50), (40, 50), (60, 57)]


def test_where_three_lines_meet_each_stays_one():
    street = area_of([[0, 50], [100, 50]])
    window = window_of([[0, 50], [100, 50]], [[100, 50], [150, 20]], [[100, 50], [150, 80]], given=[True, False, False])
    assert len(street.extend(window, 0, 0).lines) == 3
