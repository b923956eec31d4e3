"""Where layouts lie on Earth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pyproj import CRS
from pyproj.exceptions import CRSError

from citygrain.errors import ConfigError
from citygrain.geo.rasterize import Grid
from citygrain.layouts import COLUMNS
from citygrain.protocols import Trained
from citygrain.spec import LayoutSpec

GAP_CELLS = 8
"""Cells between neighbouring layouts where they lie side by side on the map."""


def grids_of(
    generator: Trained, n: int, georeference: Mapping[str, Any], asked_place: str | None, columns: int = COLUMNS
) -> list[Grid]:
    """Return where `n` layouts lie: side by side, from the corner that `georeference` names or that of a place.

    Parameters
    ----------
    generator
        From `citygrain.load`.
    n
        How many.
    georeference
        As in `conf/sample.yaml`: `place`, `crs` and `origin`, each of which may be None.
    asked_place
        The place that the layouts were asked to be like; they lie there unless told otherwise.
    columns
        How many lie in a row from west to east.

    Raises
    ------
    ConfigError
        For a place on Earth that cannot be.
    """
    spec: LayoutSpec = generator.spec
    corner = corner_of(generator.provenance["data"]["places"], georeference, asked_place)
    return list(lay_side_by_side(spec.shape[1:], spec.resolution_m, n, corner, columns))


def corner_of(
    places: Mapping[str, Any], georeference: Mapping[str, Any], asked_place: str | None
) -> tuple[str, float, float]:
    """CRS, easting and northing of the first layout's north-west corner."""
    crs, origin = georeference["crs"], georeference["origin"]
    if (crs is None) != (origin is None) or (crs is not None and georeference["place"] is not None):
        raise ConfigError(
            "Where the layouts lie is not clear.",
            expected="georeference.place, or both georeference.crs and georeference.origin, or none",
            got={k: v for k, v in georeference.items() if v is not None},
        )
    if crs is not None:
        try:
            east, north = map(float, origin)
        except (TypeError, ValueError):
            east = north = math.nan
        if not math.isfinite(east + north):
            raise ConfigError("An origin is an easting and a northing in metres.", expected="[x,y]", got=origin)
        try:
            known = CRS.from_user_input(crs)
        except CRSError as error:
            raise ConfigError(
                "This is no coordinate reference system.", got=crs, expected="such as EPSG:32633"
            ) from error
        if not known.is_projected or any(axis.unit_conversion_factor != 1 for axis in known.axis_info[:2]):
            raise ConfigError(
                "Layouts are laid out in metres.", got=crs, expected="a projected CRS in metres, such as EPSG:32633"
            )
        return known.to_string(), east, north
    name = georeference["place"] or asked_place or next(iter(places), "")
    if name not in places:
        raise ConfigError("The checkpoint knows no such place to put the layouts at.", got=name, choices=places)
    left, top = places[name]["grid"]["left_top"]
    return str(places[name]["crs"]), float(left), float(top)


def lay_side_by_side(
    shape: tuple[int, int], cell: float, n: int, corner: tuple[str, float, float], columns: int = COLUMNS
) -> Iterator[Grid]:
    """Places for layouts from a north-west corner to the east and, row by row, to the south, as on the sheet."""
    (height, width), (crs, left, top) = shape, corner
    for i in range(n):
        row, column = divmod(i, columns)
        east, south = column * (width + GAP_CELLS) * cell, row * (height + GAP_CELLS) * cell
        yield Grid(crs, left + east, top - south, cell, width, height)
