"""The table of tags, row by row, on tags made by hand."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely

from citygrain.geo import layers
from citygrain.geo.layers import (
    CHANNEL_NAMES,
    CHANNELS,
    COASTLINE,
    OSM_KEYS,
    OSM_QUERY,
    OSM_RULES,
    OSM_SELECTORS,
    SCHEMA,
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
        ({"highway": "service", "service": "driveway"}, {"street": 8.0}),
        ({"highway": "service", "service": "parking_aisle"}, {"parking": 6.0}),
        ({"highway": "residential", "tunnel": "building_passage"}, {"street": 8.0}),
        ({"highway": "residential", "tunnel": "yes"}, {}),
        ({"highway": "residential", "layer": "-1"}, {"street": 8.0}),
        ({"highway": "construction", "construction": "primary"}, {}),
        ({"highway": "proposed"}, {}),
        ({"highway": "razed"}, {}),
        ({"highway": "track"}, {}),
        ({"highway": "cycleway"}, {"cycle": 4.0}),
        ({"highway": "path", "bicycle": "designated"}, {"cycle": 4.0}),
        ({"highway": "footway", "bicycle": "designated"}, {"cycle": 4.0}),
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
        ({"railway": "rail", "layer": "-2"}, {}),
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
        ({"building": "yes", "layer": "-1"}, None),
        ({"highway": "pedestrian", "area": "yes"}, "walk"),
        ({"highway": "pedestrian", "element": "relation"}, "walk"),
        ({"highway": "pedestrian", "element": "way"}, None),
        ({"highway": "residential", "area": "yes"}, None),
        ({"amenity": "parking", "parking": "surface"}, "parking"),
        ({"amenity": "parking", "building": "no"}, "parking"),
        ({"amenity": "parking", "parking": "underground"}, None),
        ({"amenity": "parking", "parking": "multi-storey"}, None),
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


def test_a_lane_on_something_that_is_no_street_is_none() -> None:
    assert drawn({"highway": "footway", "cycleway:both": "lane"}, EAST) == {"walk": 1}


def test_a_street_too_crooked_to_go_beside_keeps_its_lane_on_the_street() -> None:
    tiny = shapely.LineString([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)])
    cycle = layers_from_osm(frame(({"highway": "residential", "cycleway:left": "lane"}, tiny)))["cycle"]
    assert len(cycle) == 1
    assert cycle.length.iloc[0] > 0


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
        assert {*rule.when, *rule.unless} - {"element"} <= set(OSM_KEYS)


def test_the_documentation_names_every_channel_with_its_width() -> None:
    rows = {line.split()[0]: line for line in (layers.__doc__ or "").splitlines() if line and line[0].isalpha()}
    for channel in CHANNELS:
        assert channel.name in rows
    widths = {"arterial": "14 m", "street": "8 m", "cycle": "4 m", "walk": "3 m", "rail": "4 m"}
    for channel in CHANNELS:
        if channel.width_m:
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
        ("transportation", {"class": "service", "service": "parking_aisle"}, EAST, None),
        ("transportation", {"class": "minor_construction"}, EAST, None),
        ("transportation", {"class": "path"}, EAST, "walk"),
        ("transportation", {"class": "path", "subclass": "cycleway"}, EAST, "cycle"),
        ("transportation", {"class": "path", "subclass": "footway", "bicycle": "designated"}, EAST, "cycle"),
        ("transportation", {"class": "path", "subclass": "pedestrian"}, SQUARE, "walk"),
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
