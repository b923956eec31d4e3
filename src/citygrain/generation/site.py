"""Sites inside their real surroundings: where they lie, and what is there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.features import geometry_mask
from shapely.geometry.base import BaseGeometry

from citygrain.data.cityraster import CityRaster
from citygrain.data.rules import list_common_channels
from citygrain.errors import CapabilityError, ConfigError, DataError
from citygrain.geo.layers import select_channels
from citygrain.geo.place import Place
from citygrain.geo.rasterize import Grid
from citygrain.spec import LayoutSpec


@dataclass(frozen=True)
class Site:
    """What is to be redrawn, and what is around it.

    Attributes
    ----------
    layout
        `(C, H, W)` uint8: the real layout, with the channels of the model.
    free
        `(H, W)` bool: the cells of the site.
    grid
        Where it lies.
    """

    layout: NDArray[np.uint8]
    free: NDArray[np.bool_]
    grid: Grid


def locate_site(
    crs: str,
    *,
    at: Sequence[float] | None = None,
    size_m: float = 200.0,
    site: str | Path | BaseGeometry | None = None,
) -> BaseGeometry:
    """Return the outline of a site in a CRS in metres.

    Parameters
    ----------
    crs
        The CRS.
    at, size_m
        Longitude and latitude of the middle of a square site, and its edge in metres.
    site
        Or a file with its polygon, or a polygon in degrees.

    Raises
    ------
    ConfigError
        When the site is said in no way or in two, or is no place on Earth.
    PlaceError
        For a file without a polygon.
    """
    if (at is None) == (site is None):
        raise ConfigError(
            "Where is the site?",
            expected="at=[longitude,latitude], or site=<file with a polygon>",
            got={"at": at, "site": site},
        )
    to_metres = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    if site is not None:
        area = site if isinstance(site, BaseGeometry) else Place.from_file(site).area
        projected: BaseGeometry = shapely.transform(area, lambda xy: np.column_stack(to_metres.transform(*xy.T)))
        return projected
    try:
        longitude, latitude = map(float, at or ())
        x, y = to_metres.transform(longitude, latitude)
    except (TypeError, ValueError):
        x = y = math.inf
    if not math.isfinite(x + y) or not size_m > 0:
        raise ConfigError(
            "This is no site.",
            expected="at=[longitude,latitude] in degrees, size_m > 0",
            got=f"at={at if at is None else list(at)}, size_m={size_m}",
        )
    half = size_m / 2
    return shapely.box(x - half, y - half, x + half, y + half)


def read_site(
    raster: CityRaster, spec: LayoutSpec, site: BaseGeometry, context_m: float, *, one_window: bool = False
) -> Site:
    """Read a site and what is around it from a prepared place.

    Parameters
    ----------
    raster
        The place.
    spec
        Channels, resolution, and size of the windows: the area is at least one window.
    site
        In the raster's CRS. Cells whose middle is in it are redrawn.
    context_m
        How far around the site the area goes at least, where the place goes that far.
    one_window
        Read just a window, for models that draw nothing larger.

    Raises
    ------
    DataError
        When the site is not in the place, has no data, is smaller than a cell, or the place lacks a channel.
    CapabilityError
        When it should fit into one window and does not.
    """
    channels, _ = list_common_channels([raster], spec.channels, spec.raster_format)
    level = raster.level(spec.resolution_m)
    cell, (height, width) = spec.resolution_m, level.valid.shape
    left, bottom, right, top = site.bounds
    west, north = level.transform.c, level.transform.f
    x0, y0, x1, y1 = left - west, north - top, right - west, north - bottom
    if not (x0 >= 0 and y0 >= 0 and x1 <= width * cell and y1 <= height * cell):
        raise DataError(
            f"The site does not lie in {raster.name}.",
            expected=f"within {[round(v) for v in raster.grid.bounds]} in {raster.crs}",
            got=[round(v) for v in site.bounds],
        )
    rows, columns = (
        _span(low / cell, high / cell, context_m / cell, spec.size_px, length, one_window=one_window)
        for low, high, length in ((y0, y1, height), (x0, x1, width))
    )
    grid = Grid(
        raster.crs, west + columns.start * cell, north - rows.start * cell, cell,
        columns.stop - columns.start, rows.stop - rows.start,
    )  # fmt: skip
    free: NDArray[np.bool_] = geometry_mask([site], (grid.height, grid.width), grid.transform, invert=True)
    if not free.any():
        raise DataError(
            "The site holds the middle of no cell.", expected=f"more than {cell:g} m across", got=f"{site.area:.3g} m²"
        )
    if not level.valid[rows, columns][free].any():
        raise DataError(f"The source of {raster.name} has no data at this site.", got=[round(v) for v in site.bounds])
    there = level.array[:, rows, columns]
    return Site(select_channels(there, raster.channels, channels, spec.raster_format), free, grid)


def _span(low: float, high: float, around: float, size: int, length: int, *, one_window: bool) -> slice:
    """Return the cells from `low` to `high` and around them: a window or more, within `length`."""
    if length < size:
        raise DataError("The place is smaller than a window of this model.", expected=f"{size} cells", got=length)
    wanted = math.ceil(high) - math.floor(low) + 2 * around
    if one_window and high - low > size:
        raise CapabilityError(
            "The site is larger than a window, and this family draws windows only.",
            expected=f"at most {size} cells",
            got=math.ceil(high - low),
            remedy="choose a diffusion model, or a smaller site",
        )
    count = size if one_window else min(max(size, math.ceil(wanted)), length)
    start = min(max(0, round((low + high - count) / 2)), length - count)
    return slice(start, start + count)


def mark_kept_channels(spec: LayoutSpec, names: Sequence[str]) -> NDArray[np.bool_]:
    """Return which channels are kept, `(C,)` bool.

    Raises
    ------
    ConfigError
        For a channel that the model does not draw.
    """
    for name in names:
        if name not in spec.channels:
            raise ConfigError("The layouts have no such channel to keep.", got=name, choices=spec.channels)
    if len(set(names)) == len(spec.channels):
        raise ConfigError("All channels are kept, so that nothing is redrawn.", got=", ".join(names))
    return np.array([name in names for name in spec.channels])
