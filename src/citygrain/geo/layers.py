r"""The one table that says which tags make which channel, and how wide a line is drawn.

A layout has eleven channels, in this order. A channel holds, for every cell, the fraction that is covered.

========  ====================================================================================  ================
channel   drawn from (OpenStreetMap)                                                            width
========  ====================================================================================  ================
building  ``building=*`` that stands; garages mapped as ``parking=multi-storey`` alone          footprint
arterial  ``highway=`` motorway, trunk, primary, secondary and their links                      14 m
street    ``highway=`` tertiary, unclassified, residential, living_street, road, busway         8 m
service   ``highway=service``: service roads, alleys, driveways, parking aisles                 5 m
cycle     ``highway=cycleway``; paths, footways and tracks with ``bicycle=designated``;         4 m
          tracks and lanes tagged on a street; cycle streets
walk      ``highway=`` footway, pedestrian, path, steps; cycle ways that one may walk on;       3 m
          sidewalks tagged on a street
square    pedestrian areas: ``highway=`` pedestrian, footway, path, steps with ``area=yes`` or  footprint
          as a multipolygon; ``place=square``; ``amenity=marketplace`` without a building
rail      ``railway=`` rail, light_rail, tram, subway, narrow_gauge, funicular, monorail,       4 m
          preserved
parking   ``amenity=parking`` and ``parking_space`` on the surface                              footprint
green     parks, gardens, forest, grass, meadow, scrub, orchards, allotments, cemeteries,       footprint
          pitches, playgrounds, recreation grounds, golf courses
water     lakes, rivers, basins; the sea; waterways by class (river 15, canal 10, stream 3,     footprint, class
          ditch and drain 2 m)
========  ====================================================================================  ================

Why so:

- **One width per network channel**, whatever the road's true width, so that length density is linear in area share:
  km/km² = share / width × 1000. So a channel whose measure is a length holds lines only: squares are a channel of their
  own, and the surface of a road (``area=yes``, ``area:highway``) is drawn nowhere, since its line is.
- **Service roads are no streets.** How many driveways and alleys are mapped depends on who mapped; osmnx's drive
  network and Boeing (2019) leave them out. So arterial + street is the drive network of the literature.
- **Mode by use, not by tag.** The same way measures the same whoever mapped it:

  - Cycle tracks and lanes (``cycleway`` = track, lane, opposite_track, opposite_lane) and sidewalks (``sidewalk``, and
    ``footway`` as it was used before, = both, left, right; ``sidewalk=yes`` means both) tagged on a road become lines
    beside the carriageway, one for each tagged side, where a separately mapped one would be; the road stays in its
    channel. Cycle ways may have sidewalks, too, and a sidewalk with ``sidewalk:left:bicycle=designated`` is a cycle
    track as well. ``separate`` says that they are mapped on their own. A tag of a side (``:left``, ``:right``) says
    more than ``:both``, and that more than a tag without a side.
  - A plain ``cycleway=lane`` means both sides, and of a one-way street the side that traffic keeps to: the right one,
    the left one where people drive on the left (`citygrain.geo.driving_side`), seen along the traffic, which
    ``oneway=-1`` turns about. Roundabouts and motorways are one-way unless they say otherwise.
  - What is tagged **and** mapped beside is one: a tagged line goes where a mapped one of its channel runs along it on
    the same side of the road, at most 8 m from it.
  - A way that both may use is in `cycle` and in `walk`: cycle ways with ``foot`` = yes, designated, permissive or a
    ``segregated`` tag; paths, footways, pedestrian streets, tracks and bridleways with ``bicycle=designated`` (or
    ``official``), unless ``foot=no``. Tracks and bridleways with ``foot=designated`` are in `walk`.
  - Shared lanes (``shared_lane``, ``share_busway``) are paint on a car lane and do not count. Cycle streets
    (``bicycle_road``, ``cyclestreet``) are drawn on the street's own line.
- **Underground is what says so**: ``tunnel``, ``location`` = underground or indoor, ``indoor``,
  ``parking=underground``, and a ``level`` below 0 of ways, rails, squares and parking. ``layer`` below 0 alone says
  what crosses above, no more: cuttings, gardens under a bridge. Parking aisles are the exception, since nothing else
  takes them below: with ``layer`` below 0 they lie in a garage, as they and parking do on a ``level`` above 0.
  ``tunnel=no`` is heard: then neither level nor layer counts. A passage through a building is a way on the ground and
  stays; so does a house with parking below it.
- **Not there**: what is planned, under construction, in ruins, collapsed or demolished. Roofs, canopies and carports
  cover no ground either; what is parked or sold below them is `parking` or `square`.
- **Dry basins** (``basin`` = detention or infiltration; basins that are ``intermittent``) hold no water. Covered
  reservoirs show none.
- **Parks and pitches but no nature reserves**: a reserve is a boundary, and often covers open sea.
- **Swimming pools** are not water: only some countries map them, by the hundred thousand.
- **The sea** is no polygon in OpenStreetMap; the helper layer `COASTLINE` holds the lines it is built from.
- **What is decided against** stands in `DECIDED_AGAINST`, with its reason; whatever neither it nor a rule knows is
  counted by tag (`citygrain.geo.sorting.remainder`), so that nothing vanishes silently.
- **Access** is not looked at: a private street is a street of the city's form.

A feature is drawn once by the first rule of a layer that matches it: on its own line, or else once on each side. It may
be in several layers: a street with tagged lanes is in `street` and in `cycle`.

Vector tiles in the OpenMapTiles schema hold the same in fewer words; `TILE_RULES` maps them. They do not know parking
surfaces, and keep only cycle ways and footways that are mapped on their own. Some (tilemaker's) hold pedestrian areas
as the lines around them: a closed line of the class `pedestrian` is a square, as 99 of 100 closed ways with
``highway=pedestrian`` are (1,389 of 1,410 in Porto, Munich, London, Vienna, Copenhagen and Monaco).

References
----------
Boeing, G. (2019). Urban spatial order: street network orientation, configuration, and entropy. *Applied Network
Science* 4. https://wiki.openstreetmap.org/wiki/Map_features for what tags mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray

Shape = Literal["line", "area"]
Side = Literal["left", "right"]


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

RASTER_FORMAT = 2
"""Version of what channels hold, and of the folders that hold them. In format 1, `street` held service roads and `walk`
squares."""

PARTED: Mapping[str, Mapping[str, float]] = {
    "street": {"street": 1.0, "service": WIDTHS["street"] / WIDTHS["service"]},
    "walk": {"walk": 1.0, "square": 1.0},
}
"""Channel of format 1 → the channels that hold today what it held, and by how much their coverage counts: service
roads were drawn as wide as streets."""

PARTS = frozenset(part for parts in PARTED.values() for part in parts) - frozenset(PARTED)
"""Channels that format 1 did not have."""

ANY = ("*",)
"""Any value of a tag except `no`."""

BELOW = ("<0",)
"""Numbers of a tag (levels, layers) that are all below 0, unless the feature says `tunnel=no`."""

AWAY = ("!0",)
"""Numbers of a tag of which none is 0, and that do not lie on both sides of it, unless the feature says `tunnel=no`."""

ARTERIAL = tuple(f"{c}{link}" for c in ("motorway", "trunk", "primary", "secondary") for link in ("", "_link"))
STREET = (
    *("tertiary", "tertiary_link", "unclassified", "residential", "living_street", "road"),
    *("busway", "bus_guideway"),
)
ROAD = (*ARTERIAL, *STREET, "service")
FOOTWAYS = ("pedestrian", "footway", "path", "steps")
RAIL = ("rail", "light_rail", "tram", "subway", "narrow_gauge", "funicular", "monorail", "preserved")
GREEN_LANDUSE = (
    *("forest", "grass", "meadow", "allotments", "cemetery", "recreation_ground", "village_green", "orchard"),
    *("vineyard", "flowerbed", "greenery"),
)
GREEN_LEISURE = ("park", "garden", "pitch", "playground", "golf_course", "dog_park", "common", "recreation_ground")
GREEN_NATURAL = ("wood", "grassland", "scrub", "heath", "tree_group", "shrubbery")

NOT_THERE = (
    *("proposed", "planned", "construction", "ruins", "collapsed", "demolished", "razed", "destroyed", "removed"),
    *("dismantled",),
)
ROOF = ("roof", "canopy", "carport")
NO_COVER = (*ROOF, *(value for value in NOT_THERE if value != "construction"))
PARKING = ("parking", "parking_space")
GARAGE = ("multi-storey", "garage", "garages", "garage_boxes")
GARAGE_ITSELF = ("yes", "garage", "garages", "parking", "underground")

TRACK = ("track", "lane", "opposite_track", "opposite_lane")
DESIGNATED = ("designated", "official")
ON_FOOT = (*DESIGNATED, "yes", "permissive", "destination")
NOT_ON_FOOT = ("no", "use_sidepath")

DRY = ("detention", "infiltration")
NOW_AND_THEN: Mapping[str, tuple[str, ...]] = {"intermittent": ("yes",)}

ONEWAY = ("yes", "1", "true")
AGAINST_LINE = ("-1", "reverse")

TUNNEL: Mapping[str, tuple[str, ...]] = {
    "tunnel": ("yes", "culvert", "covered", "flooded", "avalanche_protector", "cave"),
    "location": ("underground", "indoor"),
}
INDOORS: Mapping[str, tuple[str, ...]] = {**TUNNEL, "indoor": ANY}
UNDERGROUND: Mapping[str, tuple[str, ...]] = {**INDOORS, "level": BELOW}
YES = ("yes", "true", "1")
NO_LINE: Mapping[str, tuple[str, ...]] = {**UNDERGROUND, "area": YES}


COVERED: Mapping[str, tuple[str, ...]] = {
    **TUNNEL,
    "covered": YES,
    "man_made": ("reservoir_covered",),
    "leisure": ("swimming_pool",),
}
WATERWAYS = (
    (("river",), 15.0),
    (("canal",), 10.0),
    (("stream", "tidal_channel"), 3.0),
    (("ditch", "drain"), 2.0),
)
"""Values of `waterway`, and the width in metres that their lines are drawn with."""


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
        Draw beside the carriageway instead of on the line: on this side of the line's direction, or on the side that
        traffic keeps to (`near`) or the other one (`far`).
    plain
        Tag of which `tag:left`, `tag:right` or `tag:both`, where there is one for the side and this rule does not ask
        for it, says more than this rule.
    """

    layer: str
    shape: Shape
    when: Mapping[str, tuple[str, ...]]
    unless: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    width_m: float | None = None
    side: Literal["left", "right", "near", "far"] | None = None
    plain: str | None = None


SIDES: tuple[Side, ...] = ("right", "left")


def _beside_roads(
    layer: str, tag: str, values: tuple[str, ...], suffix: str = "", roads: tuple[str, ...] = ROAD
) -> tuple[Rule, ...]:
    """Rows of what is tagged on a road by `tag:left`, `:right` and `:both`, each with a further suffix."""
    return tuple(
        Rule(
            layer,
            "line",
            {f"{tag}:{where}{suffix}": values, "highway": roads},
            NO_LINE,
            side=side,
            plain=tag if where == "both" and not suffix else None,
        )
        for side in SIDES
        for where in (side, "both")
    )


WITH_SIDEWALK = (*ROAD, "cycleway")

OSM_RULES: tuple[Rule, ...] = (
    Rule(
        "building",
        "area",
        {"building": ANY},
        {**TUNNEL, "building": (*NOT_THERE, *ROOF), "ruins": YES, "amenity": PARKING},
    ),
    Rule(
        "building",
        "area",
        {"building": ANY, "amenity": PARKING},
        {**UNDERGROUND, "building": (*NOT_THERE, *ROOF), "ruins": YES, "parking": ("underground",)},
    ),
    Rule(
        "building",
        "area",
        {"building": ANY, "amenity": PARKING, "parking": ("underground",)},
        {**TUNNEL, "building": (*NOT_THERE, *ROOF, *GARAGE_ITSELF), "ruins": YES},
    ),
    Rule("building", "area", {"parking": GARAGE, "amenity": PARKING}, {**UNDERGROUND, "building": (*NOT_THERE, *ROOF)}),
    Rule("arterial", "line", {"highway": ARTERIAL}, NO_LINE),
    Rule("street", "line", {"highway": STREET}, NO_LINE),
    Rule("service", "line", {"highway": ("service",)}, {**NO_LINE, "service": ("parking_aisle",)}),
    Rule(
        "service",
        "line",
        {"service": ("parking_aisle",), "highway": ("service",)},
        {**NO_LINE, "layer": BELOW, "level": AWAY, "parking": ("underground",)},
    ),
    Rule("cycle", "line", {"highway": ("cycleway",)}, NO_LINE),
    Rule(
        "cycle",
        "line",
        {"highway": ("path", "footway", "pedestrian", "track", "bridleway"), "bicycle": DESIGNATED},
        NO_LINE,
    ),
    Rule("cycle", "line", {"bicycle_road": ("yes",), "highway": (*ROAD, "track")}, NO_LINE),
    Rule("cycle", "line", {"cyclestreet": ("yes",), "highway": (*ROAD, "track")}, NO_LINE),
    *_beside_roads("cycle", "cycleway", TRACK),
    *_beside_roads("cycle", "sidewalk", DESIGNATED, ":bicycle"),
    Rule("cycle", "line", {"cycleway": ("track", "lane"), "highway": ROAD}, NO_LINE, side="near", plain="cycleway"),
    Rule(
        "cycle",
        "line",
        {"cycleway": ("track", "lane"), "highway": ROAD},
        {**NO_LINE, "one-way": ("with", "against")},
        side="far",
        plain="cycleway",
    ),
    Rule(
        "cycle",
        "line",
        {"cycleway": ("opposite_track", "opposite_lane"), "highway": ROAD},
        NO_LINE,
        side="far",
        plain="cycleway",
    ),
    Rule("walk", "line", {"highway": FOOTWAYS}, {**NO_LINE, "foot": NOT_ON_FOOT, "place": ("square",)}),
    Rule("walk", "line", {"highway": ("cycleway",), "foot": ON_FOOT}, NO_LINE),
    Rule("walk", "line", {"highway": ("cycleway",), "segregated": ("yes", "no")}, {**NO_LINE, "foot": NOT_ON_FOOT}),
    Rule("walk", "line", {"highway": ("track", "bridleway"), "foot": DESIGNATED}, NO_LINE),
    Rule("walk", "line", {"highway": ("track", "bridleway"), "bicycle": DESIGNATED}, {**NO_LINE, "foot": NOT_ON_FOOT}),
    *_beside_roads("walk", "sidewalk", ("yes",), roads=WITH_SIDEWALK),
    *(
        Rule("walk", "line", {tag: (side, "both", *also), "highway": WITH_SIDEWALK}, NO_LINE, side=side, plain=tag)
        for tag, also in (("sidewalk", ("yes",)), ("footway", ()))
        for side in SIDES
    ),
    Rule("square", "area", {"highway": FOOTWAYS, "area": YES}, UNDERGROUND),
    Rule("square", "area", {"highway": FOOTWAYS, "element": ("relation",)}, UNDERGROUND),
    Rule("square", "area", {"place": ("square",)}, UNDERGROUND),
    Rule("square", "area", {"amenity": ("marketplace",)}, {**UNDERGROUND, "building": ANY}),
    Rule("square", "area", {"amenity": ("marketplace",), "building": NO_COVER}, UNDERGROUND),
    Rule("rail", "line", {"railway": RAIL}, NO_LINE),
    Rule(
        "parking",
        "area",
        {"amenity": PARKING},
        {**INDOORS, "level": AWAY, "building": ANY, "parking": ("underground", "rooftop", *GARAGE)},
    ),
    Rule(
        "parking",
        "area",
        {"amenity": PARKING, "building": NO_COVER},
        {**INDOORS, "level": AWAY, "parking": ("underground", "rooftop", *GARAGE)},
    ),
    Rule("green", "area", {"leisure": GREEN_LEISURE}, INDOORS),
    Rule("green", "area", {"landuse": GREEN_LANDUSE}, INDOORS),
    Rule("green", "area", {"natural": GREEN_NATURAL}, INDOORS),
    Rule("green", "area", {"amenity": ("grave_yard",)}, INDOORS),
    Rule("water", "area", {"natural": ("water",)}, {**COVERED, "basin": DRY, "water": ("basin",)}),
    Rule("water", "area", {"water": ("basin",), "natural": ("water",)}, {**COVERED, "basin": DRY, **NOW_AND_THEN}),
    Rule("water", "area", {"landuse": ("basin",)}, {**COVERED, "basin": DRY, **NOW_AND_THEN}),
    Rule("water", "area", {"landuse": ("reservoir",)}, COVERED),
    Rule("water", "area", {"waterway": ("riverbank", "dock")}, COVERED),
    *(
        rule
        for values, width_m in WATERWAYS
        for rule in (
            Rule(
                "water", "line", {"waterway": values}, {**TUNNEL, "area": YES, "natural": ("water",)}, width_m=width_m
            ),
            Rule("water", "area", {"waterway": values, "area": YES}, COVERED),
            Rule("water", "area", {"waterway": values, "element": ("relation",)}, COVERED),
        )
    ),
    Rule(COASTLINE, "line", {"natural": ("coastline",)}),
)
"""OpenStreetMap tags → layers. `element` and `one-way` are no tags: what the feature is made of, and which way its
traffic runs along the line."""

DECIDED_AGAINST: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "highway": {
        "proposed or gone": (*NOT_THERE, "abandoned", "disused", "no"),
        "farm and forest tracks and bridle paths, unless designated, are no city network": ("track", "bridleway"),
        "race tracks, climbing routes and runaway lanes lead nowhere": ("raceway", "via_ferrata", "escape", "ladder"),
        "inside buildings": ("corridor", "elevator", "escalator"),
        "stops and stations beside the way": ("platform", "bus_stop", "rest_area", "services", "emergency_bay"),
    },
    "railway": {
        "proposed or gone": (*NOT_THERE, "abandoned", "disused", "no"),
        "stations and yards beside the track": (
            *("platform", "platform_edge", "station", "halt", "stop", "subway_entrance", "yard", "roundhouse", "site"),
            *("depot", "workshop", "wash", "facility", "crossing", "level_crossing", "signal_box", "ventilation_shaft"),
        ),
        "too short for a line": ("turntable", "traverser", "buffer_stop", "switch"),
        "toy trains": ("miniature",),
    },
    "waterway": {
        "structures across the water": ("dam", "weir", "lock_gate", "waterfall", "rapids", "sluice_gate"),
        "yards and pipes beside it": ("boatyard", "fuel", "water_point", "fish_pass", "pressurised"),
        "gone, or dry but for storms": (*NOT_THERE, "abandoned", "disused", "wadi", "no"),
    },
    "building": {"says that there is none": ("no",)},
    "leisure": {
        "a boundary, which often covers open sea": ("nature_reserve",),
        "only some countries map them": ("swimming_pool", "swimming_area"),
        "sports grounds as a whole: their pitches and greens are drawn": (
            *("sports_centre", "stadium", "track", "horse_riding", "water_park", "miniature_golf", "disc_golf_course"),
            *("resort", "summer_camp", "beach_resort", "marina", "ice_rink", "slipway"),
        ),
        "inside buildings, or furniture": (
            *("fitness_centre", "sports_hall", "dance", "bowling_alley", "adult_gaming_centre", "amusement_arcade"),
            *("sauna", "hackerspace", "escape_game", "bandstand", "outdoor_seating", "fitness_station", "picnic_table"),
            *("firepit", "bleachers", "bird_hide", "fishing", "schoolyard", "no"),
        ),
    },
    "landuse": {
        "what the ground is used for, not what covers it": (
            *("residential", "commercial", "retail", "industrial", "railway", "military", "religious", "education"),
            *("institutional", "civic", "civic_admin", "civil", "garages", "port", "depot", "churchyard", "highway"),
            *("farmyard", "landfill", "quarry", "fairground", "winter_sports", "healthcare", "governmental"),
        ),
        "building sites and waste land": ("construction", "brownfield", "greenfield", "proposed", "no"),
        "fields and nurseries are no city green": (
            *("farmland", "farm", "plant_nursery", "greenhouse_horticulture", "animal_keeping", "aquaculture"),
            *("salt_pond", "conservation"),
        ),
        "strips of a road": ("traffic_island",),
    },
    "natural": {
        "lines of relief and trees": (
            "cliff",
            "ridge",
            "arete",
            "earth_bank",
            "valley",
            "tree_row",
            "gully",
            "couloir",
        ),
        "bare ground": ("scree", "bare_rock", "sand", "shingle", "beach", "mud", "rock", "stone", "dune", "shoal"),
        "alpine and wet ground is no city green": ("fell", "tundra", "wetland", "glacier", "moor", "reef"),
        "names of regions": (
            *("bay", "strait", "cape", "peninsula", "isthmus", "mountain_range", "land", "island", "peak", "hill"),
            *("saddle", "massif", "plateau", "spring", "tree", "cave_entrance", "sinkhole", "hot_spring", "coastline"),
        ),
    },
}
"""Tag key → why → values that are drawn nowhere on purpose."""

_LINE_KEYS = ("highway", "railway", "waterway")
_AREA_KEYS = ("building", "leisure", "landuse", "natural")
_LISTED_KEYS = ("amenity", "place")  # most of their values are points of interest or settlements

OSM_SELECTORS = (*_LINE_KEYS, "building", "leisure", "landuse", "natural", *_LISTED_KEYS)
"""Keys of which a feature must have at least one to be drawn at all."""


def _ruled(shape: Shape) -> dict[str, frozenset[str]]:
    """Tag key → values that some rule draws in this shape."""
    found: dict[str, frozenset[str]] = {}
    for rule in OSM_RULES:
        for key in OSM_SELECTORS:
            if rule.shape == shape and key in rule.when:
                found[key] = found.get(key, frozenset()) | frozenset(rule.when[key])
    return found


RULED: Mapping[Shape, Mapping[str, frozenset[str]]] = {"line": _ruled("line"), "area": _ruled("area")}
COUNTED: Mapping[Shape, tuple[str, ...]] = {"line": _LINE_KEYS, "area": _AREA_KEYS}
KNOWN: Mapping[str, frozenset[str]] = {
    key: frozenset(value for values in by.values() for value in values)
    | RULED["line"].get(key, frozenset())
    | RULED["area"].get(key, frozenset())
    for key, by in DECIDED_AGAINST.items()
}
"""Tag key → values that some rule or some decision knows."""

OSM_QUERY: dict[str, bool | list[str]] = {
    key: True
    if key in {"building", "highway", "railway", "waterway"}
    else sorted({value for shape in RULED.values() for value in shape.get(key, ())})
    for key in OSM_SELECTORS
}
"""What to ask a server for: key → values, or True for all; the form that osmnx takes as `tags`."""

OSM_KEYS: tuple[str, ...] = tuple(
    sorted(
        {
            *(key for rule in OSM_RULES for key in (*rule.when, *rule.unless)),
            *(f"{tag}:{side}" for tag in ("cycleway", "sidewalk") for side in ("left", "right", "both")),
            *("oneway", "junction"),
        }
        - {"element", "one-way"}
    )
)
"""Every tag key that the rules look at; a source needs to keep no others."""


TILE_UNDERGROUND: Mapping[str, tuple[str, ...]] = {"brunnel": ("tunnel",), "indoor": ANY, "level": BELOW}
TILE_CYCLE: Mapping[str, tuple[str, ...]] = {"subclass": ("cycleway",)}
TILE_WALK = ("path", "pedestrian", "footway", "steps")
TILE_NOT_WALK = ("bridleway", "platform", "corridor")

TILE_RULES: dict[str, tuple[Rule, ...]] = {
    "building": (Rule("building", "area", {}),),
    "transportation": (
        Rule("arterial", "line", {"class": ("motorway", "trunk", "primary", "secondary")}, TILE_UNDERGROUND),
        Rule("street", "line", {"class": ("tertiary", "minor", *STREET[-2:])}, TILE_UNDERGROUND),
        Rule("service", "line", {"class": ("service",)}, TILE_UNDERGROUND),
        Rule("cycle", "line", {**TILE_CYCLE, "class": ("path", "track")}, TILE_UNDERGROUND),
        Rule("cycle", "line", {"class": ("path", "track"), "bicycle": DESIGNATED}, TILE_UNDERGROUND),
        Rule(
            "walk",
            "line",
            {"class": TILE_WALK},
            {**TILE_UNDERGROUND, "subclass": ("cycleway", *TILE_NOT_WALK), "foot": NOT_ON_FOOT},
        ),
        Rule("walk", "line", {**TILE_CYCLE, "class": ("path", "track"), "foot": ON_FOOT}, TILE_UNDERGROUND),
        Rule("square", "area", {"class": TILE_WALK}, {**TILE_UNDERGROUND, "subclass": TILE_NOT_WALK}),
        Rule("rail", "line", {"class": (*RAIL, "transit")}, TILE_UNDERGROUND),
    ),
    "landcover": (
        Rule("green", "area", {"class": ("wood", "grass")}),
        Rule("green", "area", {"subclass": ("orchard", "vineyard", "scrub", "heath")}),
    ),
    "landuse": (Rule("green", "area", {"class": ("cemetery", "pitch", "playground")}),),
    "park": (Rule("green", "area", {"class": ("park", "public_park", "garden")}),),
    "water": (Rule("water", "area", {}, {"brunnel": ("tunnel",), "class": ("swimming_pool",)}),),
    "waterway": (
        Rule("water", "line", {"class": ("river",)}, {"brunnel": ("tunnel",)}, width_m=15.0),
        Rule("water", "line", {"class": ("canal",)}, {"brunnel": ("tunnel",)}, width_m=10.0),
        Rule("water", "line", {"class": ("stream",)}, {"brunnel": ("tunnel",)}, width_m=3.0),
        Rule("water", "line", {"class": ("ditch", "drain")}, {"brunnel": ("tunnel",)}, width_m=2.0),
    ),
    "transportation_name": (Rule("cycle", "line", {**TILE_CYCLE, "class": ("path", "track")}),),
}
"""Layers of OpenMapTiles tiles → their features' class and subclass → layers. `transportation_name` is read only where
`transportation` does not know the subclass, and its tunnels are taken out by where they lie."""

TILE_DECIDED_AGAINST: Mapping[str, frozenset[str]] = {
    "transportation": frozenset(
        (
            *(value for key in ("highway", "railway") for values in DECIDED_AGAINST[key].values() for value in values),
            *(f"{road}_construction" for road in (*ARTERIAL[::2], "tertiary", "minor", "service", "path", "track")),
            *("raceway_construction", "bridge", "pier", "ferry", "aerialway", "cable_car", "gondola"),
        )
    ),
    "waterway": frozenset(value for values in DECIDED_AGAINST["waterway"].values() for value in values),
}
"""Layers of the tiles → classes of their lines that are drawn nowhere, as in `DECIDED_AGAINST`; piers and ferries are
no ways of the ground. Areas are not counted: whoever made the tiles has chosen among them already."""

TILE_COLUMNS: dict[str, tuple[str, ...]] = {
    name: tuple(sorted({key for rule in rules for key in (*rule.when, *rule.unless)}))
    for name, rules in TILE_RULES.items()
}
"""Fields that the rules look at in each layer of the tiles."""


def parts_of(channel: str, raster_format: int = RASTER_FORMAT) -> Mapping[str, float]:
    """Return the channels of today that a channel of a format is made of, and by how much the coverage of each counts.

    >>> parts_of("street"), parts_of("street", 1)
    ({'street': 1.0}, {'street': 1.0, 'service': 1.6})
    """
    return PARTED.get(channel, {channel: 1.0}) if raster_format == 1 else {channel: 1.0}


def select_channels(
    cells: NDArray[np.uint8], channels: Sequence[str], wanted: Sequence[str], raster_format: int = RASTER_FORMAT
) -> NDArray[np.uint8]:
    """Return bands of a layout as models of a format know them: what has been parted since is added up again.

    Parameters
    ----------
    cells
        `(C, H, W)` uint8 coverage.
    channels
        Names of the C bands; a part that is not among them adds nothing.
    wanted
        Names of the bands to return, in order.
    raster_format
        The format whose bands are wanted.
    """
    bands = []
    for name in wanted:
        parts = [(cells[list(channels).index(p)], w) for p, w in parts_of(name, raster_format).items() if p in channels]
        band = parts[0][0]
        if len(parts) > 1:
            total = sum(weight * part.astype(np.float32) for part, weight in parts)
            band = np.minimum(np.rint(total), 255).astype(np.uint8)
        bands.append(band)
    return np.stack(bands)


def empty_layer(crs: object) -> gpd.GeoDataFrame:
    """Return a layer without features in the schema of all layers."""
    return gpd.GeoDataFrame(
        {"kind": pd.Series(dtype="str"), "width_m": pd.Series(dtype="float64")},
        geometry=gpd.GeoSeries([], crs=crs),
        crs=crs,
    )
