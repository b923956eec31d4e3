"""Laws of the channel table: a city raster holds what was counted without it, and rules say what the table says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from citygrain.geo.place import Place
from citygrain.geo.rasterize import Grid, rasterize, rasterize_area
from citygrain.geo.sorting import layers_from_osm
from citygrain.geo.sources import read_features
from citygrain.geo.sources.osmfile import OsmFile
from geo.independent_count import (
    WIDTHS,
    BBox,
    Count,
    channels_of_area,
    channels_of_line,
    count,
    sides_of_road,
    sorted_copy,
)

RESOLUTION_M = 2.0

OFF, LINES_OFF = 0.02, 0.005
"""Shares by which cells, and lines before they are drawn, may be off the count, beside"""

NEXT_TO_NOTHING = 0.02
"""so many kilometres or hectares."""

UTM = "EPSG:32632"


@dataclass(frozen=True)
class Where:
    """An extract, and what of it is compared; `"sample"` is the one that ships."""

    file: str
    bbox: BBox
    drive_on: str = "right"


PLACES = {
    "helsinki_sample": Where("sample", (24.9352, 60.1642, 24.9534, 60.1791)),
    "helsinki": Where("registry/helsinki_centre.osm.pbf", (24.9352, 60.1642, 24.9534, 60.1791)),
    "porto": Where("porto/porto_vh.osm.pbf", (-8.615, 41.14, -8.597, 41.155)),
    "liechtenstein": Where("liechtenstein/liechtenstein_vh.osm.pbf", (9.50, 47.13, 9.54, 47.18)),
    "reisterstown": Where("reisterstown_md/reisterstown_r5.osm.pbf", (-76.80, 39.40, -76.76, 39.43)),
    "lauf": Where("lauf/lauf_gh.osm.pbf", (11.265, 49.50, 11.295, 49.525)),
    "monaco": Where("registry/quackosm_monaco.osm.pbf", (7.4105, 43.7253, 7.4388, 43.7511)),
    "munich": Where("munich_centre/munchen.osm.pbf", (11.5657, 48.1315, 11.5861, 48.1433)),
    "london": Where("london_clerkenwell/london.osm.pbf", (-0.1141, 51.5108, -0.0932, 51.5232), drive_on="left"),
    "vienna": Where("vienna_innere_stadt/osm_bbox.osm.xml.gz", (16.3626, 48.2034, 16.3786, 48.2134)),
}
SLOW = ("monaco", "helsinki", "liechtenstein", "reisterstown", "porto", "lauf", "munich", "london", "vienna")


@dataclass(frozen=True)
class Compared:
    """A place as the product holds it, and as it was counted.

    Attributes
    ----------
    length_km
        Channel of lines → length of its lines within the place.
    drawn
        Channel → area of its cells: in hectares, or divided by the width of its lines in kilometres.
    sea_ha
        Area of the sea, which `water` holds as well.
    """

    count: Count
    km2: float
    length_km: dict[str, float]
    drawn: dict[str, float]
    sea_ha: float


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in PLACES]
)
def compared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """Each of the places, prepared and counted."""
    where = PLACES[request.param]
    if where.file == "sample":
        path: Path = request.getfixturevalue("sample_pbf")
    else:
        path = sorted_copy(request.getfixturevalue("shared_osm") / where.file, tmp_path_factory.mktemp("extract"))
    place = Place.from_bbox("place", where.bbox)
    found = read_features(place, OsmFile(path))
    area = shapely.intersection(place.utm, found.valid)
    grid = Grid.covering(place.bounds_utm, place.crs, RESOLUTION_M)
    cells: NDArray[np.float64] = np.zeros(len(found))
    for strip, inside in zip(rasterize(found, grid), rasterize_area(area, grid), strict=True):
        cells += (strip.astype(np.float64) / 255 * (inside / 255)).sum(axis=(1, 2))
    drawn_m2 = dict(zip(found, cells * RESOLUTION_M**2, strict=True))
    lengths = {name: found[name].intersection(area).length.sum() / 1e3 for name in WIDTHS}
    sea = found["water"][found["water"]["kind"] == "sea"]
    return Compared(
        count(path, where.bbox, drive_on=where.drive_on),
        area.area / 1e6,
        lengths,
        {name: m2 / (WIDTHS[name] * 1e3 if name in WIDTHS else 1e4) for name, m2 in drawn_m2.items()},
        sea.intersection(area).area.sum() / 1e4,
    )


def off(product: dict[str, float], counted: dict[str, float], share: float = OFF) -> dict[str, tuple[float, float]]:
    """Channel → what the product holds and what was counted, where they differ."""
    return {
        name: (product[name], counted[name])
        for name in counted
        if abs(product[name] - counted[name]) > share * counted[name] + NEXT_TO_NOTHING
    }


def test_the_place_is_the_same(compared: Compared) -> None:
    assert compared.km2 == pytest.approx(compared.count.km2, rel=1e-4)


def test_lines_are_as_long_as_counted(compared: Compared) -> None:
    assert not off(compared.length_km, compared.count.length_km, LINES_OFF)


def test_cells_cover_what_was_counted(compared: Compared) -> None:
    counted = compared.count.flat()
    counted["water"] += counted.pop("sea")
    assert not off(compared.drawn, counted)


def test_the_sea_is_where_it_was_counted(compared: Compared) -> None:
    assert not off({"sea": compared.sea_ha}, {"sea": compared.count.area_ha["sea"]})


SIDED = ("no", "yes", "track", "lane", "opposite_track", "opposite_lane", "separate", "shared_lane", "opposite")
SIDEWALK = ("both", "left", "right", "yes", "no", "none", "separate")
ON_LINES: dict[str, tuple[str, ...]] = {
    "highway": (
        *("motorway", "trunk_link", "primary", "secondary", "tertiary", "residential", "living_street", "unclassified"),
        *("service", "service", "busway", "cycleway", "footway", "path", "pedestrian", "steps", "track", "bridleway"),
        *("construction", "proposed", "platform", "corridor"),
    ),
    "railway": ("rail", "subway", "tram", "preserved", "abandoned", "construction", "platform"),
    "waterway": ("river", "canal", "stream", "ditch", "dam", "riverbank"),
    "service": ("parking_aisle", "driveway", "alley"),
    "area": ("yes", "no", "true"),
    "tunnel": ("yes", "culvert", "building_passage", "no", "no", "cave"),
    "location": ("underground", "overground", "indoor"),
    "indoor": ("yes", "no"),
    "layer": ("-1", "1", "-2;-1"),
    "level": ("-1", "0", "-1;0", "-2;-1", "-1.5", "2", "0;1", "1-3"),
    "parking": ("underground", "surface"),
    "bicycle": ("designated", "yes", "no", "official"),
    "foot": ("yes", "no", "designated", "permissive", "use_sidepath"),
    "segregated": ("yes", "no"),
    "bicycle_road": ("yes",),
    "cyclestreet": ("yes",),
    "oneway": ("yes", "no", "-1", "1", "reverse"),
    "place": ("square", "locality"),
    "junction": ("roundabout", "circular", "spui"),
    **dict.fromkeys(("cycleway", "cycleway:left", "cycleway:right", "cycleway:both"), SIDED),
    "sidewalk": SIDEWALK,
    **dict.fromkeys(("sidewalk:left", "sidewalk:right", "sidewalk:both"), ("yes", "no", "separate")),
    "sidewalk:left:bicycle": ("designated", "yes"),
    "sidewalk:both:bicycle": ("designated", "no"),
}
ON_AREAS: dict[str, tuple[str, ...]] = {
    "building": ("yes", "house", "roof", "construction", "ruins", "collapsed", "no", "garage", "carport"),
    "ruins": ("yes", "no"),
    "amenity": ("parking", "parking", "parking_space", "grave_yard", "fountain", "marketplace"),
    "parking": ("surface", "multi-storey", "underground", "rooftop", "garage", "street_side", "carports"),
    "highway": ("pedestrian", "footway", "service", "residential", "path", "platform"),
    "place": ("square", "suburb"),
    "area": ("yes", "no"),
    "leisure": ("park", "garden", "pitch", "nature_reserve", "swimming_pool", "playground", "marina"),
    "landuse": ("forest", "grass", "basin", "reservoir", "residential", "meadow", "farmland", "cemetery"),
    "natural": ("water", "water", "wood", "scrub", "wetland", "bare_rock"),
    "water": ("basin", "pond", "lake"),
    "waterway": ("riverbank", "dock", "river"),
    "basin": ("detention", "infiltration", "retention", "retention;detention"),
    "covered": ("yes", "no"),
    "man_made": ("reservoir_covered", "pier"),
    "intermittent": ("yes", "no"),
    **{key: ON_LINES[key] for key in ("tunnel", "location", "indoor", "layer", "level")},
}


def drawn_with(
    tags: dict[str, tuple[str, ...]], shape: shapely.Geometry, drive_on: str
) -> list[tuple[dict[str, str], set[str]]]:
    """Return features with random tags, and where the product draws each: channel, and the side where it is beside."""
    rng = np.random.default_rng(7)
    of_each = [
        {
            key: str(rng.choice(values))
            for key, values in tags.items()
            if rng.random() < (0.9 if key == "highway" else 0.2)
        }
        for _ in range(4000)
    ]
    x_m = 200.0 * np.arange(len(of_each))
    shapes = [shapely.affinity.translate(shape, x) for x in x_m]
    rows = [{"osmid": str(i), "element": "relation" if i % 5 == 0 else "way", **some} for i, some in enumerate(of_each)]
    layers = layers_from_osm(gpd.GeoDataFrame(rows, geometry=shapes, crs=UTM), driving_side=drive_on)  # type: ignore[arg-type]
    found: list[set[str]] = [set() for _ in rows]
    for name, layer in layers.items():
        middle = layer.geometry.centroid.y if len(layer) else []
        for i, y in zip(layer["osmid"] if len(layer) else [], middle, strict=True):
            found[int(i)].add(name if abs(y) < 1 else f"{name} {'left' if y > 0 else 'right'}")
    return list(zip(rows, found, strict=True))


@pytest.mark.parametrize("drive_on", ["right", "left"])
def test_rules_say_of_any_line_what_the_table_says(drive_on: str) -> None:
    wrong = []
    for tags, found in drawn_with(ON_LINES, shapely.LineString([(0, 0), (100, 0)]), drive_on):
        on_line = channels_of_line(tags)
        sides = {f"{name} {side}" for name, side in sides_of_road(tags, drive_on) if name not in on_line}
        if (on_line | sides) != found - {"water"}:
            wrong.append((tags, found, on_line | sides))
    assert not wrong, (len(wrong), wrong[:5])


def test_rules_say_of_any_area_what_the_table_says() -> None:
    square = shapely.box(0, -50, 100, 50)
    wrong = [
        (tags, found, told)
        for tags, found in drawn_with(ON_AREAS, square, "right")
        if found != (told := channels_of_area(tags, tags["element"] == "relation"))
    ]
    assert not wrong, (len(wrong), wrong[:5])
