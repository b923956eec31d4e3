"""Where layouts lie on Earth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError

from citygrain.data.trained_on import TrainedOn
from citygrain.errors import ConfigError
from citygrain.geo.rasterize import Grid
from citygrain.layouts import COLUMNS
from citygrain.networks.frame import BEARING
from citygrain.protocols import Trained
from citygrain.spec import Conditions, LayoutSpec

GAP_CELLS = 8
"""How many cells lie between neighbouring layouts on the map."""


@dataclass(frozen=True)
class Georeference:
    """Where layouts lie: side by side, from a north-west corner to the east and to the south.

    Give `place`, or give `crs` and `origin`, or nothing.

    Parameters
    ----------
    place
        The training place whose north-west corner is that of the first layout. By default the place that layouts are
        asked to resemble, or else the first training place.
    crs
        A projected CRS in metres.
    origin
        Easting and northing of the first layout's north-west corner in this CRS.
    """

    place: str | None = None
    crs: str | None = None
    origin: tuple[float, float] | None = None

    @property
    def said(self) -> dict[str, Any]:
        """The fields that are not None."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def lay_grids(
    generator: Trained,
    n: int,
    georeference: Georeference = Georeference(),
    *,
    place: str | None = None,
    columns: int = COLUMNS,
    shape: tuple[int, int] | None = None,
    bearings: Sequence[float] = (),
) -> tuple[Grid, ...]:
    """Return the grids of `n` layouts, which lie side by side.

    Parameters
    ----------
    generator
        From `citygrain.load`.
    n
        How many layouts there are.
    georeference
        Where the first layout lies.
    place
        The place that layouts are asked to resemble. They lie there if `georeference` says nothing.
    columns
        How many layouts lie in a row from west to east.
    shape
        Height and width of a layout in cells; a window by default.
    bearings
        `n` bearings that the layouts lie at, in degrees; by default they lie upright.

    Raises
    ------
    ConfigError
        For a georeference that does not say where the layouts lie.
    """
    spec = generator.spec
    corner = find_corner(generator, georeference, place)
    return tuple(lay_side_by_side(shape or spec.shape[1:], spec.resolution_m, n, corner, columns, bearings))


def read_bearings(spec: LayoutSpec, conditions: Conditions) -> NDArray[np.float64]:
    """Return the bearing `(B,)` that each layout is to lie at: the requested one, or 0."""
    if BEARING not in spec.scalars:
        return np.zeros(len(conditions))
    column = spec.scalars.index(BEARING)
    return np.where(conditions.present[:, column], conditions.scalars[:, column].double(), 0.0)


def find_corner(generator: Trained, georeference: Georeference, asked_place: str | None) -> tuple[str, float, float]:
    """Return CRS, easting and northing of the first layout's north-west corner."""
    crs, origin = georeference.crs, georeference.origin
    if (crs is None) != (origin is None) or (crs is not None and georeference.place is not None):
        raise ConfigError(
            "Where the layouts lie is not clear.",
            expected="georeference.place, or both georeference.crs and georeference.origin, or none",
            got=georeference.said,
        )
    if crs is not None:
        try:
            east, north = map(float, () if origin is None else origin)
        except (TypeError, ValueError):
            east = north = math.nan
        if not math.isfinite(east + north):
            raise ConfigError(
                "An origin is an easting and a northing in metres.",
                expected="[x,y]",
                got=list(origin) if isinstance(origin, Sequence) else origin,
            )
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
    grids = TrainedOn.of(generator).grids
    name = georeference.place or asked_place or next(iter(grids), "")
    if not isinstance(name, str) or name not in grids:
        raise ConfigError("The checkpoint knows no such place to put the layouts at.", got=name, choices=grids)
    return grids[name].crs, grids[name].left, grids[name].top


def lay_side_by_side(
    shape: tuple[int, int],
    cell: float,
    n: int,
    corner: tuple[str, float, float],
    columns: int = COLUMNS,
    bearings: Sequence[float] = (),
) -> Iterator[Grid]:
    """Yield grids of layouts, from a north-west corner to the east and, row by row, to the south, as on the sheet.

    Each is turned to its bearing about its middle, if there are bearings. Then all have as much room as the widest
    takes.
    """
    (height, width), (crs, left, top) = shape, corner
    bearings = bearings or [0.0] * n
    room = [Grid(crs, 0.0, 0.0, cell, width, height).turned(bearing).bounds for bearing in bearings]
    wide = max([width, *(math.ceil((b[2] - b[0]) / cell - 1e-6) for b in room)])
    high = max([height, *(math.ceil((b[3] - b[1]) / cell - 1e-6) for b in room)])
    for i, bearing in enumerate(bearings):
        row, column = divmod(i, columns)
        east, south = column * (wide + GAP_CELLS) * cell, row * (high + GAP_CELLS) * cell
        yield Grid(crs, left + east, top - south, cell, width, height).turned(bearing)
