"""Which tags of OpenStreetMap make which layer: the rules behind the table of `citygrain.geo.layers`.

`OSM_RULES` draws features, `DECIDED_AGAINST` leaves others out, each with a reason. From both follows what a server is
asked for (`OSM_QUERY`) and which keys of a feature are kept (`OSM_KEYS`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from citygrain.geo.layers import COASTLINE

Shape = Literal["line", "area"]
Side = Literal["left", "right"]

ANY = ("*",)
"""Any value of a tag except `no`."""

BELOW = ("<0",)
"""Numbers of a tag (levels, layers) that are all below 0, unless the feature says `tunnel=no`."""

OFF_GROUND = ("!0",)
"""Numbers of a tag that are all below 0 or all above 0, unless the feature says `tunnel=no`."""

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
        A tag without a side. Where the feature has the same tag with the side (`tag:left`, `tag:right`) or `tag:both`,
        and the rule does not ask for that one, the rule does not count.
    """

    layer: str
    shape: Shape
    when: Mapping[str, tuple[str, ...]]
    unless: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    width_m: float | None = None
    side: Literal["left", "right", "near", "far"] | None = None
    plain: str | None = None


SIDES: tuple[Side, ...] = ("right", "left")


def _make_side_rules(
    layer: str, tag: str, values: tuple[str, ...], suffix: str = "", roads: tuple[str, ...] = ROAD
) -> tuple[Rule, ...]:
    """Return rows for what is tagged on a road by `tag:left`, `tag:right` and `tag:both`, each with a suffix."""
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
        {**NO_LINE, "layer": BELOW, "level": OFF_GROUND, "parking": ("underground",)},
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
    *_make_side_rules("cycle", "cycleway", TRACK),
    *_make_side_rules("cycle", "sidewalk", DESIGNATED, ":bicycle"),
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
    *_make_side_rules("walk", "sidewalk", ("yes",), roads=WITH_SIDEWALK),
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
        {**INDOORS, "level": OFF_GROUND, "building": ANY, "parking": ("underground", "rooftop", *GARAGE)},
    ),
    Rule(
        "parking",
        "area",
        {"amenity": PARKING, "building": NO_COVER},
        {**INDOORS, "level": OFF_GROUND, "parking": ("underground", "rooftop", *GARAGE)},
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
"""OpenStreetMap tags → layers. Two keys are no tags: `element` is what the feature is made of, `one-way` which way its
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
"""Tag key → reason → values that are not drawn, on purpose."""

_LINE_KEYS = ("highway", "railway", "waterway")
_AREA_KEYS = ("building", "leisure", "landuse", "natural")
_LISTED_KEYS = ("amenity", "place")  # most of their values are points of interest or settlements

OSM_SELECTORS = (*_LINE_KEYS, "building", "leisure", "landuse", "natural", *_LISTED_KEYS)
"""Keys of which a feature must have at least one to be drawn at all."""


def _find_ruled(shape: Shape) -> dict[str, frozenset[str]]:
    """Return the values that some rule draws in this shape, by tag key."""
    found: dict[str, frozenset[str]] = {}
    for rule in OSM_RULES:
        for key in OSM_SELECTORS:
            if rule.shape == shape and key in rule.when:
                found[key] = found.get(key, frozenset()) | frozenset(rule.when[key])
    return found


RULED: Mapping[Shape, Mapping[str, frozenset[str]]] = {"line": _find_ruled("line"), "area": _find_ruled("area")}
"""Shape → tag key → values that some rule draws in this shape."""

COUNTED: Mapping[Shape, tuple[str, ...]] = {"line": _LINE_KEYS, "area": _AREA_KEYS}
"""Shape → tag keys whose unknown values are counted."""

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
"""What a server is asked for: key → values, or True for all of them; the form that osmnx takes as `tags`."""

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
