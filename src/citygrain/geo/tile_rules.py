"""Which classes of OpenMapTiles vector tiles make which layer: the rules of `osm_rules` in fewer words."""

from __future__ import annotations

from collections.abc import Mapping

from citygrain.geo.osm_rules import (
    ANY,
    ARTERIAL,
    BELOW,
    DECIDED_AGAINST,
    DESIGNATED,
    NOT_ON_FOOT,
    ON_FOOT,
    RAIL,
    STREET,
    Rule,
)

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
"""Layers of OpenMapTiles tiles → rules by class and subclass. `transportation_name` is read only where `transportation`
has no subclass; it knows no tunnels, so lines that lie on the tunnels of `transportation` are taken out."""

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
"""Layers of the tiles → classes of their lines that are not drawn, on purpose: those of `DECIDED_AGAINST`, piers and
ferries. Unknown areas are not counted: whoever made the tiles has chosen among them already."""

TILE_COLUMNS: dict[str, tuple[str, ...]] = {
    name: tuple(sorted({key for rule in rules for key in (*rule.when, *rule.unless)}))
    for name, rules in TILE_RULES.items()
}
"""Layers of the tiles → fields that the rules look at."""
