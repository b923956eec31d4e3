"""A place: a named area of the Earth and the UTM zone in which it is measured.

Everything downstream is in metres. UTM keeps lengths within 0.1 % across a city, which Web Mercator does not: one of
its zoom-16 tiles is 531 m wide in Houston and 345 m in Copenhagen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from citygrain.errors import PlaceError
from citygrain.geo.driving_side import find_driving_side
from citygrain.geo.osmnx_session import borrow_osmnx

WGS84 = "EPSG:4326"

MAX_SPAN_DEG = 6.0
"""Widest place: one UTM zone. Beyond it the projection's scale error exceeds that of the data."""

TOUCH_DEG = 1e-6
"""An area that reaches no farther than this across the 180th meridian only touches it: rounding moves its edge."""

UTM_SOUTH, UTM_NORTH = -80.0, 84.0

GEOCODER_TIMEOUT_S = 30.0

EDGE_DEG = 0.005
"""The parallels of a bbox are curves in UTM: points this far apart follow them within a centimetre."""

BBOX_ORDER = "[west, south, east, north] in degrees: longitudes −180…180, latitudes −80…84, west < east, south < north"


Shapes = TypeVar("Shapes", BaseGeometry, NDArray[np.object_])


@dataclass(frozen=True)
class Place:
    """A named area and the UTM CRS it projects to.

    Parameters
    ----------
    name
        Letters, digits, `_`, `-` and `.`: it becomes the name of a folder.
    area
        Polygon or MultiPolygon in longitude, latitude (EPSG:4326).
    crs
        The projected CRS, `"EPSG:326xx"` or `"EPSG:327xx"`; found from the area's centroid when left empty.

    Raises
    ------
    PlaceError
        For names that are no folder names and areas that are no area on this Earth.

    Examples
    --------
    >>> place = Place.from_bbox("houston", (-95.45, 29.69, -95.39, 29.75))
    >>> place.crs, round(place.area_km2, 1)
    ('EPSG:32615', 38.6)
    """

    name: str
    area: Polygon | MultiPolygon
    crs: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise PlaceError(
                "The name of a place becomes the name of a folder, and this one cannot.",
                expected="letters, digits, _, - and ., beginning with a letter or digit",
                got=repr(self.name),
                remedy=f"place.name={make_slug(self.name)}",
            )
        if not isinstance(self.area, (Polygon, MultiPolygon)) or self.area.is_empty or self.area.area == 0:
            raise PlaceError(
                f"Place {self.name} has no area.",
                expected="a polygon or multipolygon",
                got=getattr(self.area, "geom_type", type(self.area).__name__),
            )
        object.__setattr__(self, "area", _move_to_one_side(self.area, self.name))
        _check_bbox(self.area.bounds, self.name)
        if not self.crs:
            centre = self.area.centroid
            object.__setattr__(self, "crs", find_utm_crs(centre.x, centre.y))

    @classmethod
    def from_bbox(cls, name: str, bbox: Sequence[float]) -> Place:
        """Make a place from `(west, south, east, north)` in degrees.

        Raises
        ------
        PlaceError
            When these are not four numbers in that order and range; says so when latitude and longitude look swapped.
        """
        return cls(name, shapely.box(*_check_bbox(bbox, name)))

    @classmethod
    def from_name(cls, query: str, name: str | None = None) -> Place:
        """Make a place from a name such as "Houston, Texas", looked up in OpenStreetMap's Nominatim (needs a network).

        Raises
        ------
        PlaceError
            When the name is unknown, means no area, or the geocoder does not answer.
        """
        import osmnx  # noqa: PLC0415  (it takes a second to import and is needed only here)

        bbox_remedy = "give the place a bbox: place.name=… place.bbox=[west,south,east,north]"
        try:
            with borrow_osmnx(requests_timeout=GEOCODER_TIMEOUT_S):
                found = osmnx.geocode_to_gdf(query)
        except (TypeError, osmnx._errors.InsufficientResponseError) as error:  # noqa: SLF001
            raise PlaceError(
                f"OpenStreetMap's geocoder knows no area named {query!r}.",
                got=error,
                remedy=f"write it as 'city, region, country', or {bbox_remedy}",
            ) from error
        except (OSError, osmnx._errors.ResponseStatusCodeError) as error:  # noqa: SLF001
            raise PlaceError(
                f"The geocoder did not answer, so {query!r} could not be looked up.",
                got=error,
                remedy=f"try again later, or {bbox_remedy}",
            ) from error
        return cls(name or make_slug(query.split(",", maxsplit=1)[0]), found.geometry.iloc[0])

    @classmethod
    def from_file(cls, path: str | Path, name: str | None = None) -> Place:
        """Make a place from the polygons of a file in any vector format of GDAL (GeoJSON, GeoPackage, Shapefile, …).

        Raises
        ------
        PlaceError
            When the file is missing, unreadable, without CRS, or holds no polygon.
        """
        import pyogrio  # noqa: PLC0415  (its own copy of GDAL takes 27 MB, which drawing does not need)

        path = Path(path)
        if not path.exists():
            raise PlaceError("The file with the place's polygon does not exist.", got=path)
        try:
            frame = gpd.read_file(path)
        except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, ValueError) as error:
            raise PlaceError(
                f"{path} cannot be read as a polygon file.",
                expected="GeoJSON, GeoPackage, Shapefile or another vector format of GDAL",
                got=error,
            ) from error
        if "geometry" in frame:
            frame = frame[frame.geom_type.isin(["Polygon", "MultiPolygon"])]
        if "geometry" not in frame or frame.empty:
            raise PlaceError(
                f"{path} holds no polygon.",
                expected="at least one Polygon or MultiPolygon",
                got="none among its features",
            )
        if frame.crs is None:
            raise PlaceError(
                f"{path} does not say in which CRS its coordinates are.",
                remedy="save it with its CRS (a .prj beside a Shapefile), or as GeoJSON in longitude, latitude",
            )
        area = shapely.make_valid(frame.geometry.to_crs(WGS84).union_all())
        if area.geom_type == "GeometryCollection":
            area = shapely.union_all([g for g in area.geoms if g.geom_type in ("Polygon", "MultiPolygon")])
        return cls(name or make_slug(path.stem), shapely.force_2d(area))

    @property
    def bbox(self) -> tuple[float, float, float, float]:
        """`(west, south, east, north)` in degrees."""
        west, south, east, north = self.area.bounds
        return west, south, east, north

    @cached_property
    def driving_side(self) -> Literal["left", "right"]:
        """The side of the road that traffic keeps to, at the middle of the area."""
        middle = self.area.representative_point()
        return find_driving_side(middle.x, middle.y)

    @cached_property
    def utm(self) -> BaseGeometry:
        """The area in `crs`, metres."""
        return self.project(shapely.segmentize(self.area, EDGE_DEG))

    @property
    def bounds_utm(self) -> tuple[float, float, float, float]:
        """`(left, bottom, right, top)` in metres."""
        left, bottom, right, top = self.utm.bounds
        return left, bottom, right, top

    @property
    def area_km2(self) -> float:
        """Area in km²."""
        return float(self.utm.area / 1e6)

    def project(self, geometry: Shapes, source_crs: str = WGS84) -> Shapes:
        """Project a geometry or an array of them from `source_crs` to the place's `crs`, in one vectorised call."""
        transformer = Transformer.from_crs(source_crs, self.crs, always_xy=True)
        return shapely.transform(geometry, lambda xy: np.column_stack(transformer.transform(xy[:, 0], xy[:, 1])))

    def to_degrees(self, geometry: BaseGeometry) -> BaseGeometry:
        """Return a geometry in `crs` in longitude, latitude (EPSG:4326), without what is beyond the 180th meridian."""
        transformer = Transformer.from_crs(self.crs, WGS84, always_xy=True)
        middle = self.area.centroid.x

        def turned(xy: NDArray[np.float64]) -> NDArray[np.float64]:
            lon, lat = transformer.transform(xy[:, 0], xy[:, 1])
            return np.column_stack([lon - 360.0 * np.round((lon - middle) / 360.0), lat])

        degrees = shapely.transform(geometry, turned)
        west, _, east, _ = degrees.bounds
        return degrees if west >= -180.0 and east <= 180.0 else degrees.intersection(shapely.box(-180, -90, 180, 90))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON: name, bbox in degrees, CRS, area in km², and the area as WKT in degrees."""
        return {
            "name": self.name,
            "bbox": list(self.bbox),
            "crs": self.crs,
            "area_km2": round(self.area_km2, 3),
            "area": shapely.to_wkt(self.area, rounding_precision=7),
        }


def make_slug(text: str) -> str:
    """Turn any text into a valid place name: lower case, everything odd becomes `_`.

    >>> make_slug("Los Angeles")
    'los_angeles'
    """
    return re.sub(r"\W+", "_", text.lower()).strip("_") or "place"


def find_utm_crs(lon: float, lat: float) -> str:
    """EPSG code of the UTM zone of a point in degrees.

    >>> find_utm_crs(12.57, 55.68), find_utm_crs(174.8, -36.9)
    ('EPSG:32633', 'EPSG:32760')
    """
    zone = min(int((lon + 180) // 6) + 1, 60)
    return f"EPSG:{32600 + zone if lat >= 0 else 32700 + zone}"


def _check_bbox(bbox: Sequence[float], name: str) -> tuple[float, float, float, float]:
    """Return the bbox as four floats, or say what is wrong with it."""
    try:
        west, south, east, north = (float(v) for v in bbox)
    except (TypeError, ValueError):
        raise PlaceError(f"The bbox of {name} is not four numbers.", expected=BBOX_ORDER, got=bbox) from None
    if not all(map(math.isfinite, (west, south, east, north))):
        raise PlaceError(f"The bbox of {name} is not four numbers.", expected=BBOX_ORDER, got=bbox)
    box = (west, south, east, north)
    if not _is_on_earth(box):
        swapped = (south, west, north, east)
        hint = f"latitude and longitude look swapped: try {list(swapped)}"
        raise PlaceError(
            f"The bbox of {name} is not on the Earth, or beyond the reach of UTM.",
            expected=BBOX_ORDER,
            got=list(box),
            remedy=hint if _is_on_earth(swapped) else _suggest_boxes(_split_at_meridian(box)),
        )
    if west >= east and _split_at_meridian(box):
        raise PlaceError(
            f"The bbox of {name} meets or crosses the 180th meridian, where longitudes jump.",
            expected=BBOX_ORDER,
            got=list(box),
            remedy=_suggest_boxes(_split_at_meridian(box)),
        )
    if west >= east or south >= north:
        ordered = (min(west, east), min(south, north), max(west, east), max(south, north))
        raise PlaceError(
            f"The bbox of {name} is empty: its corners are not in order.",
            expected=BBOX_ORDER,
            got=list(box),
            remedy=f"try {list(ordered)}",
        )
    if max(east - west, north - south) > MAX_SPAN_DEG:
        across = _suggest_boxes(_split_at_meridian((east, south, west, north))) if east - west > 180.0 else None
        raise PlaceError(
            f"The bbox of {name} is larger than a UTM zone, so it cannot be drawn in metres without distortion.",
            expected=f"at most {MAX_SPAN_DEG:g} degrees in each direction",
            got=list(box),
            remedy="prepare the region city by city"
            + (f"; or, if it is meant to be small, {across}" if across else ""),
        )
    return box


def _move_to_one_side(area: Polygon | MultiPolygon, name: str) -> Polygon | MultiPolygon:
    """Return an area that touches the 180th meridian with longitudes of one sign.

    Raises
    ------
    PlaceError
        When it crosses the meridian: has parts on both sides, or is drawn the long way round.
    """
    west, south, east, north = area.bounds
    if east - west <= 180.0:
        return area
    round_it = shapely.transform(area, lambda xy: np.column_stack([xy[:, 0] % 360.0, xy[:, 1]]))
    left, _, right, _ = round_it.bounds
    if right <= 180.0 + TOUCH_DEG:
        return shapely.transform(round_it, lambda xy: np.minimum(xy, [180.0, 90.0]))
    if left >= 180.0 - TOUCH_DEG:
        return shapely.transform(round_it, lambda xy: np.maximum(xy, [180.0, -90.0]) - [360.0, 0.0])
    sides = _split_at_meridian((left, south, right, north))
    if right - left > 90.0 or not sides:
        return area  # a continent: too large on either side
    raise PlaceError(
        f"{name} lies on both sides of the 180th meridian, where longitudes jump.",
        expected="a place on one side of it",
        got=[west, south, east, north],
        remedy=_suggest_boxes(sides),
    )


def _split_at_meridian(box: tuple[float, float, float, float]) -> list[list[float]]:
    """Boxes of a box that is written across the 180th meridian: west > east, or longitudes beyond ±180.

    Empty when it cannot be meant that way, and one box when it lies on one side after all.

    >>> _split_at_meridian((179.5, -17.0, -179.5, -16.0))
    [[179.5, -17.0, 180.0, -16.0], [-180.0, -17.0, -179.5, -16.0]]
    >>> _split_at_meridian((190.0, 50.0, 191.0, 51.0))
    [[-170.0, 50.0, -169.0, 51.0]]
    """
    west, south, east, north = box
    width = east - west if east > west else east - west + 360.0
    if not 0.0 < width < 180.0 or not UTM_SOUTH <= south < north <= UTM_NORTH:
        return []
    west = (west + 180.0) % 360.0 - 180.0
    east = west + width
    if east > 180.0 + TOUCH_DEG:
        sides = [(west, south, 180.0, north), (-180.0, south, east - 360.0, north)]
    else:
        sides = [(west, south, min(east, 180.0), north)]
    return [[round(v, 7) for v in side] for side in sides]


def _suggest_boxes(sides: list[list[float]]) -> str | None:
    """Return a remedy that says which bboxes to take; None for none."""
    if not sides:
        return None
    if len(sides) == 1:
        return f"try {sides[0]}"
    return "cut it in two at the 180th meridian, each a place of its own: " + " and ".join(
        f"place.bbox=[{','.join(map(str, side))}]" for side in sides
    )


def _is_on_earth(box: tuple[float, float, float, float]) -> bool:
    """Tell whether all longitudes and latitudes are in range."""
    west, south, east, north = box
    return max(abs(west), abs(east)) <= 180 and min(south, north) >= UTM_SOUTH and max(south, north) <= UTM_NORTH
