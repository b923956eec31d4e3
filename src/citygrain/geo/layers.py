r"""The one table that says which tags make which channel, and how wide a line is drawn.

A layout has nine channels, in this order. A channel holds, for every cell, the fraction that is covered.

========  ===================================================================================  ================
channel   drawn from (OpenStreetMap)                                                            width
========  ===================================================================================  ================
building  ``building=*``                                                                        footprint
arterial  ``highway=`` motorway, trunk, primary, secondary and their links                      14 m
street    ``highway=`` tertiary, unclassified, residential, living_street, road, service        8 m
cycle     ``highway=cycleway``; path or footway with ``bicycle=designated``; tracks and         4 m
          lanes tagged on a street; cycle streets
walk      ``highway=`` footway, pedestrian, path, steps; pedestrian areas                       3 m, footprint
rail      ``railway=`` rail, light_rail, tram, subway, narrow_gauge, funicular, monorail        4 m
parking   ``amenity=parking`` on the surface, ``parking_space``; parking aisles                 footprint, 6 m
green     parks, gardens, forest, grass, meadow, scrub, orchards, allotments, cemeteries,       footprint
          pitches, playgrounds, golf courses
water     lakes, rivers, basins; the sea; waterways by class (river 15, canal 10, stream 3,     footprint, class
          ditch and drain 2 m)
========  ===================================================================================  ================

Why so:

- **One width per network channel**, whatever the road's true width, so that length density is linear in area share:
  km/km² = share / width × 1000.
- **Not drawn**: what is not there (``proposed``, ``construction``, ``razed``, ``abandoned``, …: only the values listed
  are drawn) and what is not on the ground (tunnels and culverts, rails and parking below ``layer=0``, indoor ways). A
  passage through a building is a way on the ground and stays. Farm tracks, bridleways and raceways are no city network.
- **Cycle tracks and lanes tagged on a street** (``cycleway``, ``cycleway:left``, ``:right``, ``:both`` = track, lane,
  opposite_track, opposite_lane) become cycle lines of their own beside the carriageway, one for each tagged side, where
  a separately mapped track would be; the street stays in its channel. Otherwise a model learns how a country maps, not
  how it cycles. A plain ``cycleway=lane`` means both sides, and one side of a one-way street. Shared lanes
  (``shared_lane``, ``share_busway``) are paint on a car lane and do not count. Cycle streets (``bicycle_road``,
  ``cyclestreet``) are drawn on the street's own line.
- **Parks and pitches but no nature reserves**: a reserve is a boundary, and often covers open sea.
- **Swimming pools** are not water: only some countries map them, by the hundred thousand.
- **The sea** is no polygon in OpenStreetMap; the helper layer `COASTLINE` holds the lines it is built from.

A feature is drawn once by the first rule of a layer that matches it, or once on each side for tagged cycle lanes. It
may be in several layers: a street with tagged lanes is in `street` and in `cycle`.

Vector tiles in the OpenMapTiles schema hold the same in fewer words; `TILE_RULES` maps them. They do not know parking
surfaces, and keep only separately mapped cycle ways.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray


@dataclass(frozen=True)
class Channel:
    """One band of a layout.

    Parameters
    ----------
    name
        Its name.
    width_m
        Drawn width of its lines in metres; None where it is made of areas, or of lines with widths of their own.
    colour
        `#rrggbb` on maps.
    description
        One line for people.
    """

    name: str
    width_m: float | None
    colour: str
    description: str


CHANNELS: tuple[Channel, ...] = (
    Channel("building", None, "#5d5a66", "building footprints"),
    Channel("arterial", 14.0, "#e4572e", "motorways, trunk, primary and secondary roads"),
    Channel("street", 8.0, "#f2b950", "tertiary and residential streets, busways"),
    Channel("service", 5.0, "#f6dfa8", "service roads, alleys, driveways, parking aisles"),
    Channel("cycle", 4.0, "#b5179e", "cycle tracks, lanes and streets"),
    Channel("walk", 3.0, "#d8a48f", "footways, sidewalks, paths, steps"),
    Channel("square", None, "#ecd5c4", "squares and pedestrian areas"),
    Channel("rail", 4.0, "#1d2733", "rails, trams and light rail above ground"),
    Channel("parking", None, "#b8bfd0", "parking surfaces"),
    Channel("green", None, "#a9cf8f", "parks, woods, grass, gardens, pitches"),
    Channel("water", None, "#86bfe0", "sea, lakes, rivers and canals"),
)

CHANNEL_NAMES: tuple[str, ...] = tuple(c.name for c in CHANNELS)

COASTLINE = "coastline"
"""Helper layer of `layers_from_osm`: lines with the land on their left, from which the sea is built."""

SCHEMA = ("geometry", "kind", "width_m")
"""Columns that every layer has: `kind` is the value of the tag that made it, `width_m` is NaN for areas."""

WIDTHS = {c.name: c.width_m for c in CHANNELS if c.width_m}

ANY = ("*",)
"""Any value of a tag except `no`."""

ARTERIAL = tuple(f"{c}{link}" for c in ("motorway", "trunk", "primary", "secondary") for link in ("", "_link"))
STREET = ("tertiary", "tertiary_link", "unclassified", "residential", "living_street", "road")
PEDESTRIAN = ("footway", "pedestrian")
RAIL = ("rail", "light_rail", "tram", "subway", "narrow_gauge", "funicular", "monorail")
GREEN_LANDUSE = (
    *("forest", "grass", "meadow", "allotments", "cemetery", "recreation_ground", "village_green", "orchard"),
    *("vineyard", "flowerbed", "greenery"),
)
GREEN_LEISURE = ("park", "garden", "pitch", "playground", "golf_course", "dog_park", "common")
GREEN_NATURAL = ("wood", "grassland", "scrub", "heath", "tree_group", "shrubbery")
TRACK = ("track", "lane", "opposite_track", "opposite_lane")
ONEWAY = ("yes", "1", "true", "-1")

BELOW = tuple(str(-i) for i in range(1, 11))
TUNNEL: Mapping[str, tuple[str, ...]] = {
    "tunnel": ("yes", "culvert", "covered", "flooded", "avalanche_protector"),
    "location": ("underground",),
}
UNDERGROUND: Mapping[str, tuple[str, ...]] = {**TUNNEL, "layer": BELOW}
NO_LINE: Mapping[str, tuple[str, ...]] = {**TUNNEL, "area": ("yes",), "indoor": ANY}


@dataclass(frozen=True)
class Rule:
    """One row of the table: features of this shape with these tags belong to this layer.

    Parameters
    ----------
    layer
        The layer it feeds.
    shape
        Whether it draws lines or areas; a feature of the other shape does not match.
    when
        Tag key to the values allowed; all keys must match. The value of the first becomes the feature's `kind`.
    unless
        Tag key to the values that exclude a feature; any one is enough.
    width_m
        Drawn width of the lines in metres; the channel's own when None.
    side
        Draw beside the carriageway, on this side of the line's direction, instead of on the line.
    """

    layer: str
    shape: Literal["line", "area"]
    when: Mapping[str, tuple[str, ...]]
    unless: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    width_m: float | None = None
    side: Literal["left", "right"] | None = None


ON_STREET = {"highway": ARTERIAL + STREET}

OSM_RULES: tuple[Rule, ...] = (
    Rule(
        "building",
        "area",
        {"building": ANY},
        {**UNDERGROUND, "building": ("proposed", "construction", "razed", "demolished")},
    ),
    Rule("arterial", "line", {"highway": ARTERIAL}, NO_LINE),
    Rule("street", "line", {"highway": STREET}, NO_LINE),
    Rule("service", "line", {"highway": ("service",)}, NO_LINE),
    Rule("cycle", "line", {"highway": ("cycleway",)}, NO_LINE),
    Rule("cycle", "line", {"highway": ("path", "footway"), "bicycle": ("designated",)}, NO_LINE),
    Rule("cycle", "line", {"bicycle_road": ("yes",), **ON_STREET}, NO_LINE),
    Rule("cycle", "line", {"cyclestreet": ("yes",), **ON_STREET}, NO_LINE),
    Rule("cycle", "line", {"cycleway:right": TRACK, **ON_STREET}, NO_LINE, side="right"),
    Rule("cycle", "line", {"cycleway:both": TRACK, **ON_STREET}, NO_LINE, side="right"),
    Rule("cycle", "line", {"cycleway": ("track", "lane"), **ON_STREET}, NO_LINE, side="right"),
    Rule("cycle", "line", {"cycleway:left": TRACK, **ON_STREET}, NO_LINE, side="left"),
    Rule("cycle", "line", {"cycleway:both": TRACK, **ON_STREET}, NO_LINE, side="left"),
    Rule("cycle", "line", {"cycleway": ("track", "lane"), **ON_STREET}, {**NO_LINE, "oneway": ONEWAY}, side="left"),
    Rule("cycle", "line", {"cycleway": ("opposite_track", "opposite_lane"), **ON_STREET}, NO_LINE, side="left"),
    Rule("walk", "line", {"highway": ("pedestrian", "steps")}, NO_LINE),
    Rule("walk", "line", {"highway": ("path", "footway")}, {**NO_LINE, "bicycle": ("designated",)}),
    Rule("square", "area", {"highway": PEDESTRIAN, "area": ("yes",)}, {**TUNNEL, "indoor": ANY}),
    Rule("square", "area", {"highway": PEDESTRIAN, "element": ("relation",)}, {**TUNNEL, "indoor": ANY}),
    Rule("rail", "line", {"railway": RAIL}, {**UNDERGROUND, "area": ("yes",)}),
    Rule(
        "parking",
        "area",
        {"amenity": ("parking", "parking_space")},
        {**UNDERGROUND, "building": ANY, "parking": ("underground", "multi-storey", "rooftop")},
    ),
    Rule("green", "area", {"leisure": GREEN_LEISURE}, UNDERGROUND),
    Rule("green", "area", {"landuse": GREEN_LANDUSE}, UNDERGROUND),
    Rule("green", "area", {"natural": GREEN_NATURAL}, UNDERGROUND),
    Rule("green", "area", {"amenity": ("grave_yard",)}, UNDERGROUND),
    Rule("water", "area", {"natural": ("water",)}, TUNNEL),
    Rule("water", "area", {"waterway": ("riverbank", "dock")}, TUNNEL),
    Rule("water", "area", {"landuse": ("reservoir", "basin")}, TUNNEL),
    Rule("water", "line", {"waterway": ("river",)}, TUNNEL, width_m=15.0),
    Rule("water", "line", {"waterway": ("canal",)}, TUNNEL, width_m=10.0),
    Rule("water", "line", {"waterway": ("stream", "tidal_channel")}, TUNNEL, width_m=3.0),
    Rule("water", "line", {"waterway": ("ditch", "drain")}, TUNNEL, width_m=2.0),
    Rule(COASTLINE, "line", {"natural": ("coastline",)}),
)
"""OpenStreetMap tags → layers."""

OSM_SELECTORS = ("building", "highway", "railway", "amenity", "leisure", "landuse", "natural", "waterway")
"""Keys of which a feature must have at least one to be drawn at all."""

OSM_QUERY: dict[str, bool | list[str]] = {
    key: True if ANY in (values := [r.when[key] for r in OSM_RULES if key in r.when]) else sorted(set().union(*values))
    for key in OSM_SELECTORS
}
"""What to ask a server for: key → values, or True for all; the form that osmnx takes as `tags`."""

OSM_KEYS: tuple[str, ...] = tuple(
    sorted({key for rule in OSM_RULES for key in (*rule.when, *rule.unless)} - {"element"})
)
"""Every tag key that the rules look at; a source needs to keep no others."""

TILE_UNDERGROUND: Mapping[str, tuple[str, ...]] = {"brunnel": ("tunnel",)}
TILE_CYCLE: Mapping[str, tuple[str, ...]] = {"subclass": ("cycleway",)}
TILE_WALK = ("path", "pedestrian", "footway", "steps")

TILE_RULES: dict[str, tuple[Rule, ...]] = {
    "building": (Rule("building", "area", {}),),
    "transportation": (
        Rule("arterial", "line", {"class": ("motorway", "trunk", "primary", "secondary")}, TILE_UNDERGROUND),
        Rule("street", "line", {"class": ("tertiary", "minor")}, TILE_UNDERGROUND),
        Rule("service", "line", {"class": ("service",)}, TILE_UNDERGROUND),
        Rule("cycle", "line", {**TILE_CYCLE, "class": ("path", "track")}, TILE_UNDERGROUND),
        Rule("cycle", "line", {"class": ("path",), "bicycle": ("designated",)}, TILE_UNDERGROUND),
        Rule(
            "walk",
            "line",
            {"class": TILE_WALK},
            {
                **TILE_UNDERGROUND,
                "subclass": ("cycleway", "bridleway", "platform", "corridor"),
                "bicycle": ("designated",),
            },
        ),
        Rule("square", "area", {"class": TILE_WALK}, {**TILE_UNDERGROUND, "subclass": ("platform", "corridor")}),
        Rule("rail", "line", {"class": (*RAIL, "transit")}, TILE_UNDERGROUND),
    ),
    "landcover": (
        Rule("green", "area", {"class": ("wood", "grass")}),
        Rule("green", "area", {"subclass": ("orchard", "vineyard", "scrub", "heath")}),
    ),
    "landuse": (Rule("green", "area", {"class": ("cemetery", "pitch", "playground")}),),
    "park": (Rule("green", "area", {"class": ("park", "public_park", "garden")}),),
    "water": (Rule("water", "area", {}, {**TILE_UNDERGROUND, "class": ("swimming_pool",)}),),
    "waterway": (
        Rule("water", "line", {"class": ("river",)}, TILE_UNDERGROUND, width_m=15.0),
        Rule("water", "line", {"class": ("canal",)}, TILE_UNDERGROUND, width_m=10.0),
        Rule("water", "line", {"class": ("stream",)}, TILE_UNDERGROUND, width_m=3.0),
        Rule("water", "line", {"class": ("ditch", "drain")}, TILE_UNDERGROUND, width_m=2.0),
    ),
    "transportation_name": (Rule("cycle", "line", {**TILE_CYCLE, "class": ("path", "track")}),),
}
"""Layers of OpenMapTiles tiles → their features' class and subclass → layers. `transportation_name` is read only where
`transportation` does not know the subclass, and its tunnels are taken out by where they lie."""

TILE_COLUMNS: dict[str, tuple[str, ...]] = {
    name: tuple(sorted({key for rule in rules for key in (*rule.when, *rule.unless)}))
    for name, rules in TILE_RULES.items()
}
"""Fields that the rules look at in each layer of the tiles."""


def empty_layer(crs: object) -> gpd.GeoDataFrame:
    """Return a layer without features in the schema of all layers."""
    return gpd.GeoDataFrame(
        {"kind": pd.Series(dtype="str"), "width_m": pd.Series(dtype="float64")},
        geometry=gpd.GeoSeries([], crs=crs),
        crs=crs,
    )


def layers_from_osm(frame: gpd.GeoDataFrame) -> dict[str, gpd.GeoDataFrame]:
    """Sort OpenStreetMap features into layers.

    Parameters
    ----------
    frame
        Features in a projected CRS (metres), one column per tag key in `OSM_KEYS` (missing values are None or NaN,
        missing columns are missing tags). A column `element` (`"node"`, `"way"`, `"relation"`) tells areas made of
        relations, a column `osmid` is handed on. A closed way that is both a line and an area comes twice.

    Returns
    -------
    dict
        Channel name, and `COASTLINE`, to its features.

    Raises
    ------
    ValueError
        When the frame is in degrees: cycle lanes are moved beside their street in metres.
    """
    if frame.crs is None or frame.crs.is_geographic:
        raise ValueError(f"layers_from_osm needs a frame in metres (a projected CRS), got {frame.crs}")
    return _sort(frame, OSM_RULES, (*CHANNEL_NAMES, COASTLINE))


def layers_from_openmaptiles(frames: Mapping[str, gpd.GeoDataFrame]) -> dict[str, gpd.GeoDataFrame]:
    """Sort features of vector tiles into layers.

    Parameters
    ----------
    frames
        Name of the tiles' layer to its features in a projected CRS, with the columns of `TILE_COLUMNS` that the tiles
        have. `transportation_name` is needed only where `transportation` has no column `subclass`.

    Returns
    -------
    dict
        Channel name to its features.
    """
    roads = frames["transportation"]
    found: dict[str, list[gpd.GeoDataFrame]] = {name: [] for name in CHANNEL_NAMES}
    for tile_layer, rules in TILE_RULES.items():
        if tile_layer not in frames or (tile_layer == "transportation_name" and "subclass" in roads):
            continue
        for name, layer in _sort(frames[tile_layer], rules, {rule.layer for rule in rules}).items():
            found[name].append(_without_tunnels(layer, roads) if tile_layer == "transportation_name" else layer)
    return {
        name: pd.concat(parts, ignore_index=True) if parts else empty_layer(roads.crs) for name, parts in found.items()
    }


def _without_tunnels(lines: gpd.GeoDataFrame, roads: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Take from `lines` what `roads`, which hold the same lines, know to be in a tunnel."""
    tunnels = roads.geometry[_matches(roads, "brunnel", ("tunnel",)) & _matches(roads, "class", ("path", "track"))]
    geometry = lines.geometry.to_numpy(copy=True)
    near = lines.sindex.query(tunnels.to_numpy(), predicate="intersects")[1]
    near = np.unique(near)
    geometry[near] = shapely.difference(geometry[near], shapely.union_all(tunnels.to_numpy()))
    lines = lines.set_geometry(gpd.GeoSeries(geometry, index=lines.index, crs=lines.crs))
    return lines[~lines.is_empty]


def _sort(frame: gpd.GeoDataFrame, rules: Iterable[Rule], names: Iterable[str]) -> dict[str, gpd.GeoDataFrame]:
    """Apply the rules in order: on each side, a feature is drawn once in a layer, by the first rule that matches."""
    dimension = shapely.get_dimensions(frame.geometry.to_numpy())
    of_shape = {"line": dimension == 1, "area": dimension == 2}
    drawn: dict[tuple[str, str | None], NDArray[np.bool_]] = {}
    parts: dict[str, list[gpd.GeoDataFrame]] = {name: [] for name in names}
    for rule in rules:
        seen = drawn.setdefault((rule.layer, rule.side), np.zeros(len(frame), dtype=bool))
        hit = of_shape[rule.shape] & ~seen
        for key, values in rule.when.items():
            hit &= _matches(frame, key, values)
        for key, values in rule.unless.items():
            hit &= ~_matches(frame, key, values)
        seen |= hit
        if hit.any():
            parts[rule.layer].append(_drawn(frame[hit], rule))
    return {
        name: pd.concat(found, ignore_index=True) if found else empty_layer(frame.crs) for name, found in parts.items()
    }


def _matches(frame: gpd.GeoDataFrame, key: str, values: tuple[str, ...]) -> NDArray[np.bool_]:
    """Mask of the features whose tag has one of the values, `(N,)`."""
    if key not in frame:
        return np.zeros(len(frame), dtype=bool)
    column = frame[key]
    hit = column.notna() & (column != "no") if values == ANY else column.isin(values)
    return hit.to_numpy(dtype=bool)


def _drawn(frame: gpd.GeoDataFrame, rule: Rule) -> gpd.GeoDataFrame:
    """Return features that matched a rule in the schema of a layer."""
    geometry = frame.geometry.to_numpy()
    if rule.side is not None:
        arterial = frame["highway"].isin(ARTERIAL).to_numpy()
        geometry = _beside(geometry, np.where(arterial, WIDTHS["arterial"], WIDTHS["street"]), rule.side)
    width = np.nan if rule.shape == "area" else rule.width_m or WIDTHS.get(rule.layer, np.nan)
    kind = frame[next(iter(rule.when))].astype("str") if rule.when else rule.layer
    columns = {"kind": kind, "width_m": width}
    if "osmid" in frame:
        columns["osmid"] = frame["osmid"].astype("str")
    return gpd.GeoDataFrame(pd.DataFrame(columns, index=frame.index), geometry=geometry, crs=frame.crs)


def _beside(
    lines: NDArray[np.object_], street_width_m: NDArray[np.float64], side: Literal["left", "right"]
) -> NDArray[np.object_]:
    """Move lines to the edge of their carriageway plus half a cycle track; a line too crooked for it stays."""
    distance = (street_width_m + WIDTHS["cycle"]) / 2
    moved = shapely.offset_curve(lines, distance if side == "left" else -distance, join_style="mitre", mitre_limit=2)
    return np.where(shapely.is_empty(moved), lines, moved)
