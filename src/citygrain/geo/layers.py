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

The reasons:

- **One width per network channel**, whatever the road's true width, so that length density is linear in area share:
  km/km² = share / width × 1000. So a channel whose measure is a length holds lines only: squares are a channel of their
  own, and the surface of a road (``area=yes``, ``area:highway``) is not drawn, since its line is.
- **Service roads are no streets.** How many driveways and alleys are mapped depends on who mapped; osmnx's drive
  network and Boeing (2019) leave them out. So arterial + street is the drive network of the literature.
- **Mode by use, not by tag.** The same way measures the same whoever mapped it:

  - Cycle tracks and lanes (``cycleway`` = track, lane, opposite_track, opposite_lane) and sidewalks (``sidewalk``, and
    ``footway`` as it was used before, = both, left, right; ``sidewalk=yes`` means both) tagged on a road become lines
    beside the carriageway, one for each tagged side, where a separately mapped one would be; the road stays in its
    channel. Cycle ways may have sidewalks, too, and a sidewalk with ``sidewalk:left:bicycle=designated`` is a cycle
    track as well. ``separate`` says that they are mapped on their own. A tag with a side (``:left``, ``:right``) counts
    before ``:both``, and ``:both`` before a tag without a side.
  - A plain ``cycleway=lane`` means both sides, and of a one-way street the side that traffic keeps to: the right one,
    the left one where people drive on the left (`citygrain.geo.driving_side`), seen along the traffic, which
    ``oneway=-1`` turns about. Roundabouts and motorways are one-way unless they say otherwise.
  - What is tagged **and** mapped beside the road is drawn once: a tagged line is left out where a mapped line of its
    channel runs along it on the same side of the road, at most 8 m from it.
  - A way that both may use is in `cycle` and in `walk`: cycle ways with ``foot`` = yes, designated, permissive or a
    ``segregated`` tag; paths, footways, pedestrian streets, tracks and bridleways with ``bicycle=designated`` (or
    ``official``), unless ``foot=no``. Tracks and bridleways with ``foot=designated`` are in `walk`.
  - Shared lanes (``shared_lane``, ``share_busway``) are paint on a car lane and do not count. Cycle streets
    (``bicycle_road``, ``cyclestreet``) are drawn on the street's own line.
- **Underground is what a tag says to be underground**: ``tunnel``, ``location`` = underground or indoor, ``indoor``,
  ``parking=underground``, and a ``level`` below 0 of ways, rails, squares and parking. A ``layer`` below 0 alone only
  says that something crosses above: of a cutting, of a garden under a bridge. Parking aisles are the exception, since
  mappers give them no other tag: with a ``layer`` below 0 they lie in a garage. So do parking aisles and parking on a
  ``level`` above 0. With ``tunnel=no`` neither level nor layer counts. A passage through a building is a way on the
  ground and stays; so does a house with parking below it.
- **Not there** is what is planned, under construction, in ruins, collapsed or demolished. Roofs, canopies and carports
  cover no ground either; the parking or the market below them is in `parking` or `square`.
- **Dry basins** (``basin`` = detention or infiltration; basins that are ``intermittent``) hold no water. Covered
  reservoirs show no water.
- **Parks and pitches but no nature reserves**: a reserve is a boundary, and often covers open sea.
- **Swimming pools** are not water: only some countries map them, by the hundred thousand.
- **The sea** is no polygon in OpenStreetMap; the helper layer `COASTLINE` holds the lines it is built from.
- **What is left out on purpose** stands in `citygrain.geo.osm_rules.DECIDED_AGAINST`, with the reason. What neither it
  nor a rule knows is counted by tag (`citygrain.geo.sorting.count_remainder`), so that nothing vanishes silently.
- **Access** is not looked at: a private street is a street of the city's form.

A feature is drawn once by the first rule of a layer that matches it: on its own line, or else once on each side. It may
be in several layers: a street with tagged lanes is in `street` and in `cycle`.

Vector tiles in the OpenMapTiles schema hold the same in fewer words (`citygrain.geo.tile_rules`). They do not know
parking surfaces, and keep only cycle ways and footways that are mapped on their own. Some (tilemaker's) hold pedestrian
areas as the lines around them: a closed line of the class `pedestrian` is a square, as 99 of 100 closed ways with
``highway=pedestrian`` are (1,389 of 1,410 in Porto, Munich, London, Vienna, Copenhagen and Monaco).

References
----------
Boeing, G. (2019). Urban spatial order: street network orientation, configuration, and entropy. *Applied Network
Science* 4. https://wiki.openstreetmap.org/wiki/Map_features for what tags mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import pandas as pd
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
"""Channel of lines → the width in metres that all its lines are drawn with."""

BUILT = ("building", "arterial", "street")
"""Channels that make ground a city: their summed share is the built share of a window or a block."""

RASTER_FORMAT = 2
"""Version of what channels hold, and of the folders that hold them. In format 1, `street` held service roads too, and
`walk` held squares too."""

PARTED: Mapping[str, Mapping[str, float]] = {
    "street": {"street": 1.0, "service": WIDTHS["street"] / WIDTHS["service"]},
    "walk": {"walk": 1.0, "square": 1.0},
}
"""Channel of format 1 → the channels that it has been parted into, and the factor of the coverage of each: service
roads were drawn as wide as streets."""

PARTS = frozenset(part for parts in PARTED.values() for part in parts) - frozenset(PARTED)
"""Channels that format 1 did not have."""


def find_parts(channel: str, raster_format: int = RASTER_FORMAT) -> Mapping[str, float]:
    """Return the channels of today that a channel of a format is made of, each with the factor of its coverage.

    >>> find_parts("street"), find_parts("street", 1)
    ({'street': 1.0}, {'street': 1.0, 'service': 1.6})
    """
    return PARTED.get(channel, {channel: 1.0}) if raster_format == 1 else {channel: 1.0}


def list_earlier_channels(channels: Sequence[str], raster_format: int) -> tuple[str, ...]:
    """Return the channels of an earlier format that channels of today can be added up to, in order.

    >>> list_earlier_channels(("building", "street", "service", "walk"), 1)
    ('building', 'street')
    """
    new = PARTS if raster_format == 1 else ()
    return tuple(name for name in channels if name not in new and set(find_parts(name, raster_format)) <= set(channels))


def select_channels(
    cells: NDArray[np.uint8], channels: Sequence[str], wanted: Sequence[str], raster_format: int = RASTER_FORMAT
) -> NDArray[np.uint8]:
    """Return bands of a layout as models of a format know them: channels that have been parted are added up again.

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
        parts = [
            (cells[list(channels).index(p)], w) for p, w in find_parts(name, raster_format).items() if p in channels
        ]
        band = parts[0][0]
        if len(parts) > 1:
            total = sum(weight * part.astype(np.float32) for part, weight in parts)
            band = np.minimum(np.rint(total), 255).astype(np.uint8)
        bands.append(band)
    return np.stack(bands)


def make_empty_layer(crs: object) -> gpd.GeoDataFrame:
    """Return a layer without features in the schema of all layers."""
    return gpd.GeoDataFrame(
        {"kind": pd.Series(dtype="str"), "width_m": pd.Series(dtype="float64")},
        geometry=gpd.GeoSeries([], crs=crs),
        crs=crs,
    )
