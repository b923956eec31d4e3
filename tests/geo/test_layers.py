"""The table of tags, row by row, on tags made by hand."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely

from citygrain.geo import layers
from citygrain.geo.layers import CHANNEL_NAMES, CHANNELS, COASTLINE, SCHEMA, select_channels
from citygrain.geo.osm_rules import DECIDED_AGAINST, OSM_KEYS, OSM_QUERY, OSM_RULES, OSM_SELECTORS
from citygrain.geo.sorting import (
    Remainder,
    count_remainder,
    count_tile_remainder,
    is_of_interest,
    layers_from_openmaptiles,
    layers_from_osm,
)

UTM = "EPSG:32633"
EAST = shapely.LineString([(500_000, 6_000_000), (500_100, 6_000_000)])
SQUARE = shapely.box(500_000, 6_000_000, 500_100, 6_000_100)


def frame(*features: tuple[dict[str, str], Any]) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame([t for t, _ in features], geometry=[g for _, g in features], crs=UTM)


def drawn(tags: dict[str, str], geometry: Any) -> dict[str, int]:
    return {name: len(layer) for name, layer in layers_from_osm(frame((tags, geometry))).items() if len(layer)}


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"highway": "motorway_link"}, {"arterial": 14.0}),
        ({"highway": "secondary", "tunnel": "no"}, {"arterial": 14.0}),
        ({"highway": "tertiary"}, {"street": 8.0}),
        ({"highway": "living_street"}, {"street": 8.0}),
        ({"highway": "busway"}, {"street": 8.0}),
        ({"highway": "bus_guideway"}, {"street": 8.0}),
        ({"highway": "service"}, {"service": 5.0}),
        ({"highway": "service", "service": "driveway"}, {"service": 5.0}),
        ({"highway": "service", "layer": "-1"}, {"service": 5.0}),
        ({"highway": "service", "service": "parking_aisle"}, {"service": 5.0}),
        ({"highway": "service", "service": "parking_aisle", "layer": "-2"}, {}),
        ({"highway": "service", "service": "parking_aisle", "layer": "-1", "tunnel": "no"}, {"service": 5.0}),
        ({"highway": "service", "service": "parking_aisle", "level": "-1"}, {}),
        ({"highway": "service", "service": "parking_aisle", "indoor": "yes"}, {}),
        ({"highway": "service", "service": "parking_aisle", "level": "2"}, {}),
        ({"highway": "service", "service": "parking_aisle", "level": "0;1"}, {"service": 5.0}),
        ({"highway": "footway", "level": "1"}, {"walk": 3.0}),
        ({"highway": "footway", "location": "indoor"}, {}),
        ({"highway": "pedestrian", "place": "square"}, {}),
        ({"waterway": "canal", "area": "yes"}, {}),
        ({"waterway": "canal", "natural": "water"}, {}),
        ({"waterway": "river", "tunnel": "cave"}, {}),
        ({"highway": "residential", "tunnel": "building_passage"}, {"street": 8.0}),
        ({"highway": "residential", "tunnel": "yes"}, {}),
        ({"highway": "residential", "layer": "-1"}, {"street": 8.0}),
        ({"highway": "construction", "construction": "primary"}, {}),
        ({"highway": "proposed"}, {}),
        ({"highway": "razed"}, {}),
        ({"highway": "track"}, {}),
        ({"highway": "cycleway"}, {"cycle": 4.0}),
        ({"highway": "cycleway", "foot": "no"}, {"cycle": 4.0}),
        ({"highway": "cycleway", "foot": "designated"}, {"cycle": 4.0, "walk": 3.0}),
        ({"highway": "cycleway", "foot": "yes"}, {"cycle": 4.0, "walk": 3.0}),
        ({"highway": "cycleway", "segregated": "no"}, {"cycle": 4.0, "walk": 3.0}),
        ({"highway": "cycleway", "segregated": "yes", "foot": "no"}, {"cycle": 4.0}),
        ({"highway": "path", "bicycle": "designated"}, {"cycle": 4.0, "walk": 3.0}),
        ({"highway": "path", "bicycle": "designated", "foot": "designated"}, {"cycle": 4.0, "walk": 3.0}),
        ({"highway": "path", "bicycle": "designated", "foot": "no"}, {"cycle": 4.0}),
        ({"highway": "footway", "footway": "sidewalk", "bicycle": "designated"}, {"cycle": 4.0, "walk": 3.0}),
        ({"highway": "pedestrian", "bicycle": "designated"}, {"cycle": 4.0, "walk": 3.0}),
        ({"highway": "track", "bicycle": "designated"}, {"cycle": 4.0, "walk": 3.0}),
        ({"highway": "track", "bicycle": "designated", "foot": "no"}, {"cycle": 4.0}),
        ({"highway": "track", "bicycle": "designated", "foot": "designated"}, {"cycle": 4.0, "walk": 3.0}),
        ({"highway": "track", "foot": "yes"}, {}),
        ({"highway": "bridleway"}, {}),
        ({"highway": "track", "bicycle_road": "yes"}, {"cycle": 4.0}),
        ({"highway": "footway", "level": "-1"}, {}),
        ({"highway": "steps", "level": "-1;0"}, {"walk": 3.0}),
        ({"highway": "steps", "level": "-2;-1"}, {}),
        ({"highway": "corridor"}, {}),
        ({"highway": "path", "bicycle": "yes"}, {"walk": 3.0}),
        ({"highway": "footway"}, {"walk": 3.0}),
        ({"highway": "steps"}, {"walk": 3.0}),
        ({"highway": "pedestrian"}, {"walk": 3.0}),
        ({"highway": "footway", "indoor": "yes"}, {}),
        ({"highway": "footway", "tunnel": "yes"}, {}),
        ({"highway": "residential", "bicycle_road": "yes"}, {"street": 8.0, "cycle": 4.0}),
        ({"highway": "residential", "cyclestreet": "yes"}, {"street": 8.0, "cycle": 4.0}),
        ({"railway": "tram"}, {"rail": 4.0}),
        ({"railway": "subway"}, {"rail": 4.0}),
        ({"railway": "subway", "tunnel": "yes"}, {}),
        ({"railway": "rail", "layer": "-2"}, {"rail": 4.0}),
        ({"railway": "rail", "layer": "-2", "tunnel": "no"}, {"rail": 4.0}),
        ({"railway": "subway", "level": "-2"}, {}),
        ({"railway": "subway", "level": "-2", "tunnel": "no"}, {"rail": 4.0}),
        ({"railway": "subway", "location": "underground"}, {}),
        ({"railway": "rail", "layer": "1"}, {"rail": 4.0}),
        ({"railway": "abandoned"}, {}),
        ({"railway": "construction"}, {}),
        ({"waterway": "river"}, {"water": 15.0}),
        ({"waterway": "canal"}, {"water": 10.0}),
        ({"waterway": "stream"}, {"water": 3.0}),
        ({"waterway": "ditch"}, {"water": 2.0}),
        ({"waterway": "stream", "tunnel": "culvert"}, {}),
        ({"waterway": "weir"}, {}),
        ({"natural": "coastline"}, {COASTLINE: None}),
        ({"building": "yes"}, {}),
        ({"amenity": "parking"}, {}),
        ({"highway": "residential", "railway": "tram"}, {"street": 8.0, "rail": 4.0}),
    ],
)
def test_lines(tags: dict[str, str], expected: dict[str, float | None]) -> None:
    found = {name: layer for name, layer in layers_from_osm(frame((tags, EAST))).items() if len(layer)}
    assert set(found) == set(expected)
    for name, width in expected.items():
        assert len(found[name]) == 1
        assert width is None or found[name].width_m.tolist() == [width]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"building": "yes"}, "building"),
        ({"building": "apartments", "amenity": "parking"}, "building"),
        ({"building": "no"}, None),
        ({"building": "construction"}, None),
        ({"building": "yes", "location": "underground"}, None),
        ({"building": "yes", "layer": "-1"}, "building"),
        *(({"building": value}, None) for value in ("roof", "ruins", "planned", "collapsed", "demolished", "proposed")),
        ({"building": "yes", "ruins": "yes"}, None),
        ({"building": "yes", "parking": "underground", "amenity": "parking"}, None),
        ({"building": "apartments", "parking": "underground", "amenity": "parking"}, "building"),
        ({"building": "apartments", "parking": "underground"}, "building"),
        ({"building": "parking", "amenity": "parking", "level": "-1"}, None),
        ({"building": "carport"}, None),
        ({"building": "carport", "amenity": "parking"}, "parking"),
        ({"building": "demolished", "amenity": "parking"}, "parking"),
        ({"building": "construction", "amenity": "parking"}, None),
        ({"building": "roof", "amenity": "marketplace"}, "square"),
        ({"amenity": "parking", "parking": "multi-storey", "level": "-1"}, None),
        ({"amenity": "parking_space", "level": "2"}, None),
        ({"waterway": "canal", "area": "yes"}, "water"),
        ({"waterway": "river", "element": "relation"}, "water"),
        ({"waterway": "stream"}, None),
        ({"landuse": "reservoir", "man_made": "reservoir_covered"}, None),
        ({"natural": "water", "covered": "yes"}, None),
        ({"natural": "water", "leisure": "swimming_pool"}, None),
        ({"landuse": "basin", "basin": "detention;infiltration"}, None),
        ({"highway": "pedestrian", "area": "true"}, "square"),
        ({"amenity": "parking", "parking": "multi-storey"}, "building"),
        ({"amenity": "parking", "parking": "multi-storey", "building": "parking"}, "building"),
        ({"amenity": "parking", "parking": "multi-storey", "building": "construction"}, None),
        ({"amenity": "parking", "parking": "multi-storey", "location": "underground"}, None),
        ({"amenity": "parking", "building": "roof"}, "parking"),
        ({"amenity": "parking", "layer": "-1"}, "parking"),
        ({"amenity": "parking", "level": "-1"}, None),
        ({"highway": "pedestrian", "area": "yes"}, "square"),
        ({"highway": "footway", "area": "yes"}, "square"),
        ({"highway": "pedestrian", "element": "relation"}, "square"),
        ({"highway": "pedestrian", "area": "yes", "level": "-1"}, None),
        ({"place": "square"}, "square"),
        ({"amenity": "marketplace"}, "square"),
        ({"amenity": "marketplace", "building": "retail"}, "building"),
        ({"leisure": "recreation_ground"}, "green"),
        ({"place": "suburb"}, None),
        ({"highway": "pedestrian", "element": "way"}, None),
        ({"highway": "residential", "area": "yes"}, None),
        ({"amenity": "parking", "parking": "surface"}, "parking"),
        ({"amenity": "parking", "building": "no"}, "parking"),
        ({"amenity": "parking", "parking": "underground"}, None),
        ({"amenity": "parking_space"}, "parking"),
        ({"amenity": "bicycle_parking"}, None),
        *(({"leisure": value}, "green") for value in ("park", "garden", "pitch", "playground", "golf_course")),
        *(({"landuse": v}, "green") for v in ("forest", "grass", "meadow", "allotments", "cemetery", "orchard")),
        *(({"natural": value}, "green") for value in ("wood", "grassland", "scrub", "heath")),
        ({"amenity": "grave_yard"}, "green"),
        ({"leisure": "nature_reserve"}, None),
        ({"leisure": "swimming_pool"}, None),
        ({"landuse": "residential"}, None),
        ({"natural": "water", "water": "lake"}, "water"),
        ({"leisure": "garden", "layer": "-1"}, "green"),
        ({"landuse": "grass", "tunnel": "yes"}, None),
        ({"leisure": "pitch", "indoor": "yes"}, None),
        ({"landuse": "basin"}, "water"),
        ({"landuse": "basin", "basin": "retention"}, "water"),
        ({"landuse": "basin", "basin": "detention"}, None),
        ({"landuse": "basin", "basin": "infiltration"}, None),
        ({"landuse": "basin", "intermittent": "yes"}, None),
        ({"natural": "water", "water": "basin", "basin": "detention"}, None),
        ({"natural": "water", "water": "basin", "intermittent": "yes"}, None),
        ({"natural": "water", "basin": "infiltration"}, None),
        ({"natural": "water", "water": "lake", "intermittent": "yes"}, "water"),
        ({"waterway": "riverbank"}, "water"),
        ({"landuse": "reservoir"}, "water"),
        ({"natural": "water", "location": "underground"}, None),
        ({"natural": "coastline"}, None),
    ],
)
def test_areas(tags: dict[str, str], expected: str | None) -> None:
    assert drawn(tags, SQUARE) == ({expected: 1} if expected else {})
    if expected:
        assert layers_from_osm(frame((tags, SQUARE)))[expected].width_m.isna().all()


@pytest.mark.parametrize(
    ("tags", "sides"),
    [
        ({"cycleway:left": "track"}, {"left"}),
        ({"cycleway:right": "lane"}, {"right"}),
        ({"cycleway:right": "track", "cycleway:left": "lane"}, {"left", "right"}),
        ({"cycleway:both": "lane"}, {"left", "right"}),
        ({"cycleway": "track"}, {"left", "right"}),
        ({"cycleway": "lane", "oneway": "yes"}, {"right"}),
        ({"cycleway": "lane", "cycleway:both": "lane"}, {"left", "right"}),
        ({"cycleway": "opposite_lane", "oneway": "yes"}, {"left"}),
        ({"cycleway": "lane", "oneway": "-1"}, {"left"}),
        ({"cycleway": "lane", "oneway": "no"}, {"left", "right"}),
        ({"cycleway": "opposite_lane", "oneway": "-1"}, {"right"}),
        ({"cycleway": "lane", "junction": "roundabout"}, {"right"}),
        ({"cycleway": "lane", "junction": "circular"}, {"right"}),
        ({"cycleway": "lane", "junction": "roundabout", "oneway": "no"}, {"left", "right"}),
        ({"cycleway": "lane", "cycleway:left": "no"}, {"right"}),
        ({"cycleway": "track", "cycleway:right": "separate"}, {"left"}),
        ({"cycleway": "track", "cycleway:both": "separate"}, set()),
        ({"cycleway:left": "lane", "oneway": "-1"}, {"left"}),
        ({"sidewalk:right:bicycle": "designated"}, {"right"}),
        ({"cycleway:left": "opposite_track"}, {"left"}),
        ({"cycleway": "no"}, set()),
        ({"cycleway": "shared_lane"}, set()),
        ({"cycleway:both": "separate"}, set()),
        ({"cycleway": "opposite", "oneway": "yes"}, set()),
        ({"cycleway:right": "track", "tunnel": "yes"}, set()),
    ],
)
@pytest.mark.parametrize(("highway", "beside_m"), [("residential", 6.0), ("primary", 9.0)])
def test_tagged_cycle_lanes_lie_beside_their_street(
    tags: dict[str, str], sides: set[str], highway: str, beside_m: float
) -> None:
    found = layers_from_osm(frame(({"highway": highway, **tags}, EAST)))
    north_m = found["cycle"].geometry.centroid.y.to_numpy() - 6_000_000
    assert sorted(north_m) == sorted({"left": beside_m, "right": -beside_m}[side] for side in sides)
    assert found["cycle"].length.tolist() == pytest.approx([100.0] * len(sides))
    if "tunnel" not in tags:
        assert found["street"].length.sum() + found["arterial"].length.sum() == 100.0


@pytest.mark.parametrize(
    ("tags", "sides"),
    [
        ({"sidewalk": "both"}, {"left", "right"}),
        ({"sidewalk": "yes"}, {"left", "right"}),
        ({"sidewalk": "right"}, {"right"}),
        ({"sidewalk": "left", "oneway": "-1"}, {"left"}),
        ({"sidewalk:both": "yes"}, {"left", "right"}),
        ({"sidewalk:left": "yes"}, {"left"}),
        ({"sidewalk": "left;right"}, {"left", "right"}),
        ({"sidewalk": "both", "sidewalk:left": "separate"}, {"right"}),
        ({"sidewalk": "both", "sidewalk:both": "separate"}, set()),
        ({"sidewalk:both": "yes", "sidewalk:left": "separate"}, {"right"}),
        ({"sidewalk:both": "separate", "sidewalk:left": "yes"}, {"left"}),
        ({"sidewalk": "separate"}, set()),
        ({"sidewalk": "no"}, set()),
        ({"sidewalk": "none"}, set()),
        ({"footway": "both"}, {"left", "right"}),
    ],
)
@pytest.mark.parametrize(
    ("highway", "beside_m"), [("residential", 5.5), ("primary", 8.5), ("service", 4.0), ("cycleway", 3.5)]
)
def test_tagged_sidewalks_lie_where_mapped_ones_would(
    tags: dict[str, str], sides: set[str], highway: str, beside_m: float
) -> None:
    walk = layers_from_osm(frame(({"highway": highway, **tags}, EAST)))["walk"]
    north_m = walk.geometry.centroid.y.to_numpy() - 6_000_000
    assert sorted(north_m) == sorted({"left": beside_m, "right": -beside_m}[side] for side in sides)


@pytest.mark.parametrize("tag", ["cycleway", "sidewalk"])
@pytest.mark.parametrize("gap_m", [-4.0, -2.0, 0.0, 3.0, 5.0, 7.0])
def test_what_is_tagged_and_mapped_beside_is_one(tag: str, gap_m: float) -> None:
    """A street of 300 m with both sides tagged; on the left side one is mapped, along 200 m of it."""
    road = shapely.LineString([(500_000, 6_000_000), (500_300, 6_000_000)])
    channel, mapped, value, beside_m = {
        "cycleway": ("cycle", {"highway": "cycleway"}, "track", 6.0),
        "sidewalk": ("walk", {"highway": "footway", "footway": "sidewalk"}, "both", 5.5),
    }[tag]
    north = 6_000_000 + beside_m + gap_m
    track = shapely.LineString([(500_050, north), (500_250, north)])
    found = layers_from_osm(frame(({"highway": "residential", tag: value}, road), (mapped, track)))[channel]
    assert found.length.sum() == pytest.approx(600, abs=20)
    south = found[found.geometry.centroid.y < 6_000_000]
    assert south.length.sum() == pytest.approx(300)


@pytest.mark.parametrize("degrees", [90, 45, 24])
def test_a_footway_across_takes_nothing_from_a_sidewalk(degrees: float) -> None:
    dx, dy = 100 * np.cos(np.radians(degrees)), 100 * np.sin(np.radians(degrees))
    across = shapely.LineString([(500_050 - dx, 6_000_000 - dy), (500_050 + dx, 6_000_000 + dy)])
    walk = layers_from_osm(frame(({"highway": "residential", "sidewalk": "both"}, EAST), ({"highway": "path"}, across)))
    assert walk["walk"].length.sum() == pytest.approx(400)


@pytest.mark.parametrize("mapped_m", [2.0, 4.0, 5.5, 9.0, 13.0])
@pytest.mark.parametrize("highway", ["residential", "service", "primary"])
def test_what_is_mapped_on_the_other_side_takes_nothing(highway: str, mapped_m: float) -> None:
    other = shapely.affinity.translate(EAST, 0, -mapped_m)
    walk = layers_from_osm(frame(({"highway": highway, "sidewalk": "left"}, EAST), ({"highway": "footway"}, other)))
    assert walk["walk"].length.sum() == pytest.approx(200)


def test_where_people_drive_on_the_left_everything_is_mirrored() -> None:
    for tags, north_m in (
        ({"cycleway": "lane", "oneway": "yes"}, 6.0),
        ({"cycleway": "lane", "oneway": "-1"}, -6.0),
        ({"cycleway": "opposite_lane", "oneway": "yes"}, -6.0),
        ({"cycleway": "lane", "junction": "roundabout"}, 6.0),
        ({"cycleway:left": "lane", "oneway": "yes"}, 6.0),
    ):
        lane = layers_from_osm(frame(({"highway": "residential", **tags}, EAST)), driving_side="left")["cycle"]
        assert lane.geometry.centroid.y.tolist() == [6_000_000 + north_m]


@pytest.mark.parametrize(("turn", "driving_side"), [(1, "right"), (-1, "left")])
def test_the_lane_of_a_roundabout_is_a_closed_ring_on_its_outer_side(turn: int, driving_side: Any) -> None:
    """Traffic runs anticlockwise where people keep to the right, clockwise where they keep to the left."""
    rings = []
    for radius, corners in ((40, 73), (20, 37)):
        angle = turn * np.linspace(0, 2 * np.pi, corners)
        xy = radius * np.stack([np.cos(angle), np.sin(angle)], 1)
        rings.append(shapely.LineString([*xy[:-1], xy[0]]))
    tags = {"highway": "residential", "junction": "roundabout", "cycleway": "lane"}
    lane = layers_from_osm(frame(*((tags, ring) for ring in rings)), driving_side=driving_side)["cycle"].geometry
    assert lane.is_closed.all()
    assert lane.length.tolist() == pytest.approx([2 * np.pi * 46, 2 * np.pi * 26], rel=0.005)


def test_what_neither_a_rule_nor_a_decision_knows_is_counted_by_tag() -> None:
    place = shapely.box(500_000, 5_999_000, 500_050, 6_000_050)
    features = frame(
        ({"highway": "hoverway"}, EAST),
        ({"highway": "hoverway"}, shapely.affinity.translate(EAST, 0, -10)),
        ({"highway": "hoverway", "cyclestreet": "yes", "railway": "tram"}, EAST),  # drawn as rail
        ({"landuse": "moss"}, SQUARE),
        ({"highway": "track"}, EAST),
        ({"highway": "residential", "tunnel": "yes"}, EAST),
        ({"building": "whatever"}, SQUARE),
        ({"amenity": "bench"}, SQUARE),
        ({"natural": "cliff"}, EAST),
    )
    assert count_remainder(features, place) == {
        "highway=hoverway": Remainder(2, km=0.1, ha=0.0),
        "landuse=moss": Remainder(1, km=0.0, ha=0.25),
    }
    assert count_remainder(features[:0], place) == {}


def test_lines_of_tiles_that_no_rule_takes_are_counted() -> None:
    roads = frame(
        ({"class": "hoverway"}, EAST), ({"class": "track"}, EAST), ({"class": "minor", "brunnel": "tunnel"}, EAST)
    )
    found = count_tile_remainder(
        {"transportation": roads, "waterway": frame(({"class": "brook"}, EAST))}, EAST.buffer(9)
    )
    assert found == {
        "transportation.class=hoverway": Remainder(1, km=0.1, ha=0.0),
        "waterway.class=brook": Remainder(1, km=0.1, ha=0.0),
    }


def test_a_source_keeps_what_is_drawn_or_unknown_and_nothing_that_was_decided_against() -> None:
    for tags, shape, kept in (
        ({"highway": "residential"}, "line", True),
        ({"highway": "hoverway"}, "line", True),
        ({"highway": "raceway"}, "line", False),
        ({"highway": "residential"}, "area", False),
        ({"landuse": "moss"}, "area", True),
        ({"landuse": "residential"}, "area", False),
        ({"building": "shed"}, "area", True),
        ({"amenity": "bench"}, "area", False),
        ({"natural": "cliff"}, "line", False),
        ({"place": "square"}, "area", True),
    ):
        assert is_of_interest(tags, shape) is kept, tags


def test_every_decision_has_its_reason_and_contradicts_no_rule() -> None:
    for key, by_reason in DECIDED_AGAINST.items():
        values = [value for values in by_reason.values() for value in values]
        assert len(set(values)) == len(values), key
        assert all(len(reason) > 5 for reason in by_reason)
    alone = {"track", "bridleway"}  # drawn where they are designated
    ruled = {v for rule in OSM_RULES for v in rule.when.get("highway", ())}
    against = {v for values in DECIDED_AGAINST["highway"].values() for v in values}
    assert ruled & against == alone


def test_models_of_format_1_get_back_what_was_parted() -> None:
    cells = np.zeros((len(CHANNEL_NAMES), 1, 3), np.uint8)
    cells[CHANNEL_NAMES.index("street")] = [[100, 255, 0]]
    cells[CHANNEL_NAMES.index("service")] = [[50, 50, 50]]
    cells[CHANNEL_NAMES.index("square")] = [[7, 0, 0]]
    street, walk, building = select_channels(cells, CHANNEL_NAMES, ("street", "walk", "building"), 1)[:, 0]
    assert street.tolist() == [180, 255, 80]  # as wide as streets are drawn
    assert walk.tolist() == [7, 0, 0]
    assert building.tolist() == [0, 0, 0]
    assert select_channels(cells, CHANNEL_NAMES, ("street",))[0, 0].tolist() == [100, 255, 0]
    old = cells[[CHANNEL_NAMES.index("street")]]
    assert select_channels(old, ("street",), ("street",), 1).tolist() == old.tolist()


def test_a_lane_on_something_that_is_no_street_is_none() -> None:
    assert drawn({"highway": "footway", "cycleway:both": "lane"}, EAST) == {"walk": 1}


def test_a_street_too_crooked_to_go_beside_keeps_its_lane_on_the_street() -> None:
    tiny = shapely.LineString([(0, 0), (1, 0), (1, 1), (0, 1)])
    cycle = layers_from_osm(frame(({"highway": "residential", "cycleway:left": "lane"}, tiny)))["cycle"]
    assert cycle.length.tolist() == [3.0]


def test_within_a_ring_that_leaves_no_room_there_is_no_lane() -> None:
    tiny = shapely.LineString(shapely.Point(0, 0).buffer(4).exterior)  # clockwise: its left lies outside
    cycle = layers_from_osm(frame(({"highway": "residential", "cycleway:both": "lane"}, tiny)))["cycle"]
    assert cycle.length.tolist() == pytest.approx([2 * np.pi * 10], rel=0.02)


def test_every_layer_is_there_in_one_schema_even_from_nothing() -> None:
    for nothing in (frame(({"shop": "bakery"}, EAST)), frame(({"highway": "residential"}, EAST))[:0]):
        found = layers_from_osm(nothing)
        assert set(found) == {*CHANNEL_NAMES, COASTLINE}
        assert all(set(SCHEMA) <= set(layer) and layer.crs == UTM for layer in found.values())


def test_missing_values_are_missing_tags() -> None:
    both = frame(({"highway": "residential", "tunnel": "yes"}, EAST), ({"highway": "residential"}, EAST))
    both["layer"] = [None, np.nan]
    assert len(layers_from_osm(both)["street"]) == 1


def test_degrees_are_refused() -> None:
    with pytest.raises(ValueError, match="metres"):
        layers_from_osm(frame(({"highway": "residential"}, EAST)).to_crs("EPSG:4326"))


def test_what_is_asked_of_a_server_is_what_the_rules_draw() -> None:
    for rule in OSM_RULES:
        keys = [key for key in rule.when if key in OSM_SELECTORS]
        assert keys, rule
        for key in keys:
            assert OSM_QUERY[key] is True or set(rule.when[key]) <= set(OSM_QUERY[key])  # type: ignore[arg-type]
        assert {*rule.when, *rule.unless} - {"element", "one-way"} <= set(OSM_KEYS)


def test_the_documentation_names_every_channel_with_its_width() -> None:
    rows = {line.split()[0]: line for line in (layers.__doc__ or "").splitlines() if line and line[0].isalpha()}
    for channel in CHANNELS:
        assert channel.name in rows
    widths = {"arterial": "14 m", "street": "8 m", "service": "5 m", "cycle": "4 m", "walk": "3 m", "rail": "4 m"}
    lines, areas = ({rule.layer for rule in OSM_RULES if rule.shape == shape} for shape in ("line", "area"))
    for channel in CHANNELS:
        if channel.width_m:
            assert channel.name in lines - areas, "a channel whose measure is a length holds no areas"
            assert widths[channel.name] == f"{channel.width_m:g} m"
            assert widths[channel.name] in rows[channel.name]


TILE = {"class": None, "brunnel": None, "service": None}


@pytest.mark.parametrize(
    ("layer", "tags", "geometry", "expected"),
    [
        ("building", {}, SQUARE, "building"),
        ("transportation", {"class": "trunk"}, EAST, "arterial"),
        ("transportation", {"class": "trunk", "brunnel": "tunnel"}, EAST, None),
        ("transportation", {"class": "minor", "brunnel": "bridge"}, EAST, "street"),
        ("transportation", {"class": "service", "service": "parking_aisle"}, EAST, "service"),
        ("transportation", {"class": "service", "indoor": "1"}, EAST, None),
        ("transportation", {"class": "path", "level": "-1"}, EAST, None),
        ("transportation", {"class": "busway"}, EAST, "street"),
        ("transportation", {"class": "minor_construction"}, EAST, None),
        ("transportation", {"class": "path"}, EAST, "walk"),
        ("transportation", {"class": "path", "subclass": "cycleway"}, EAST, "cycle"),
        ("transportation", {"class": "path", "subclass": "pedestrian"}, SQUARE, "square"),
        ("transportation", {"class": "track"}, EAST, None),
        ("transportation", {"class": "light_rail"}, EAST, "rail"),
        ("transportation", {"class": "transit", "brunnel": "tunnel"}, EAST, None),
        ("transportation", {"class": "pier"}, SQUARE, None),
        ("transportation_name", {"class": "track", "subclass": "cycleway"}, EAST, "cycle"),
        ("transportation_name", {"class": "track", "subclass": "bridleway"}, EAST, None),
        ("transportation_name", {"class": "minor", "subclass": "residential"}, EAST, None),
        ("landcover", {"class": "grass", "subclass": "park"}, SQUARE, "green"),
        ("landcover", {"class": "farmland", "subclass": "orchard"}, SQUARE, "green"),
        ("landcover", {"class": "farmland", "subclass": "farmland"}, SQUARE, None),
        ("landuse", {"class": "cemetery"}, SQUARE, "green"),
        ("landuse", {"class": "residential"}, SQUARE, None),
        ("park", {"class": "nature_reserve"}, SQUARE, None),
        ("water", {"class": "ocean"}, SQUARE, "water"),
        ("water", {"class": "swimming_pool"}, SQUARE, None),
        ("waterway", {"class": "river"}, EAST, "water"),
        ("waterway", {"class": "stream", "brunnel": "tunnel"}, EAST, None),
    ],
)
def test_tiles(layer: str, tags: dict[str, str], geometry: Any, expected: str | None) -> None:
    frames = {"transportation": frame((TILE, EAST)), layer: frame(({**tags}, geometry))}
    found = layers_from_openmaptiles(frames)
    assert {name for name, features in found.items() if len(features)} == ({expected} if expected else set())


def test_the_line_around_a_square_of_tiles_is_a_square() -> None:
    ring = shapely.LineString(SQUARE.exterior)
    spike = shapely.LineString([*SQUARE.exterior.coords[:-1], (500_100, 6_000_300), SQUARE.exterior.coords[0]])
    roads = frame(
        ({"class": "pedestrian"}, shapely.MultiLineString([ring, EAST])),
        ({"class": "path"}, ring),
        ({"class": "pedestrian"}, shapely.LineString([(0, 0), (9, 0), (5, 0), (0, 0)])),  # around nothing
    )
    found = layers_from_openmaptiles({"transportation": roads})
    assert set(found["square"].geom_type) == {"Polygon"}
    spiked = layers_from_openmaptiles({"transportation": frame(({"class": "pedestrian"}, spike))})["square"]
    assert set(spiked.geom_type) <= {"Polygon", "MultiPolygon"}
    assert found["square"].area.tolist() == [10_000.0]
    assert sorted(found["walk"].length) == [100.0, 400.0]


def test_a_shared_way_of_tiles_is_in_both() -> None:
    for tags in (
        {"class": "path", "subclass": "footway", "bicycle": "designated"},
        {"class": "path", "subclass": "cycleway", "foot": "designated"},
    ):
        found = layers_from_openmaptiles({"transportation": frame((tags, EAST))})
        assert {name for name, layer in found.items() if len(layer)} == {"cycle", "walk"}


def test_a_cycle_way_in_a_tunnel_is_cut_out_of_its_line() -> None:
    half = shapely.LineString([(500_000, 6_000_000), (500_050, 6_000_000)])
    rest = shapely.LineString([(500_050, 6_000_000), (500_100, 6_000_000)])
    roads = frame(({"class": "track", "brunnel": "tunnel"}, half), ({"class": "track", "brunnel": ""}, rest))
    names = frame(({"class": "track", "subclass": "cycleway"}, shapely.MultiLineString([half, rest])))
    cycle = layers_from_openmaptiles({"transportation": roads, "transportation_name": names})["cycle"]
    assert shapely.equals(cycle.union_all(), rest)


def test_tiles_that_know_the_subclass_draw_a_cycle_way_once() -> None:
    roads = frame(({"class": "path", "subclass": "cycleway"}, EAST))
    names = frame(({"class": "path", "subclass": "cycleway"}, EAST))
    assert len(layers_from_openmaptiles({"transportation": roads, "transportation_name": names})["cycle"]) == 1
