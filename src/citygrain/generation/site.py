"""Find where a site lies, and read the site and its real surroundings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import geopandas as gpd
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

Ground: TypeAlias = str | Path | BaseGeometry | gpd.GeoDataFrame | gpd.GeoSeries
"""The outline of a site: a file with a polygon, a polygon in degrees, or a table of polygons in any CRS."""


@dataclass(frozen=True, eq=False)
class Site:
    """The ground that is to be redrawn, and its surroundings.

    Attributes
    ----------
    layout
        `(C, H, W)` uint8: the real layout of the site and its surroundings, with the channels of the model.
    free
        `(H, W)` bool: the cells of the site.
    grid
        Where the layout lies.
    """

    layout: NDArray[np.uint8]
    free: NDArray[np.bool_]
    grid: Grid


def locate_site(
    crs: str,
    *,
    at: Sequence[float] | None = None,
    size_m: float = 200.0,
    site: Ground | None = None,
) -> BaseGeometry:
    """Return the outline of a site in a CRS in metres.

    Parameters
    ----------
    crs
        The CRS of the outline.
    at, size_m
        A square site: longitude and latitude of its middle, and its edge in metres.
    site
        Instead of `at`: a file with the polygon of the site, a polygon in degrees, or a table of polygons in any CRS.

    Raises
    ------
    ConfigError
        When both `at` and `site` are given or neither is, when numbers are not a point on Earth and an edge, or when an
        outline holds no ground.
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
        area = _read_outline(site)
        projected = shapely.transform(area, lambda xy: np.column_stack(to_metres.transform(*xy.T)))
        if not np.isfinite(projected.bounds).all() or not (projected := shapely.make_valid(projected)).area > 0:
            raise ConfigError(
                "The outline of the site holds no ground.",
                expected="a polygon in degrees, (longitude, latitude)",
                got=f"{area.geom_type}, from {area.bounds}",
            )
        return projected
    try:
        longitude, latitude = map(float, () if at is None else at)
        x, y = to_metres.transform(longitude, latitude)
    except (TypeError, ValueError):
        x = y = math.inf
    if not math.isfinite(x + y + size_m) or not size_m > 0:
        raise ConfigError(
            "This is no site.",
            expected="at=[longitude,latitude] in degrees, size_m > 0",
            got=f"at={list(at) if isinstance(at, Sequence) else at}, size_m={size_m}",
        )
    half = size_m / 2
    return shapely.box(x - half, y - half, x + half, y + half)


def _read_outline(site: Ground) -> BaseGeometry:
    """Return an outline in degrees."""
    if isinstance(site, BaseGeometry):
        return site
    if not isinstance(site, gpd.GeoDataFrame | gpd.GeoSeries):
        return Place.from_file(site).area
    if site.crs is None:
        raise ConfigError(
            "The outline of the site does not say where it lies.",
            expected="a table with a CRS",
            remedy="site.set_crs(…)",
        )
    outline: BaseGeometry = site.geometry.to_crs("EPSG:4326").union_all()
    return outline


def read_site(
    raster: CityRaster, spec: LayoutSpec, site: BaseGeometry, context_m: float, *, one_window: bool = False
) -> Site:
    """Read a site and its surroundings from a prepared place.

    Parameters
    ----------
    raster
        The prepared place.
    spec
        Channels, resolution and size of the windows. The area that is read is at least one window.
    site
        Outline of the site, in the CRS of the raster. Cells whose middle lies inside it are redrawn.
    context_m
        How many metres around the site are read, at least; less if the place ends before.
    one_window
        Whether exactly one window is read, for models that cannot draw larger areas.

    Raises
    ------
    ConfigError
        For a `context_m` that is not from 0 on.
    DataError
        When the site is not in the place, has no data, is smaller than a cell, or the place lacks a channel.
    CapabilityError
        When the site does not fit into one window, and `one_window` is set.
    """
    if not 0 <= context_m < math.inf:
        raise ConfigError("The surroundings of a site are some metres.", expected="context_m ≥ 0", got=context_m)
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
            remedy="a point is its longitude, then its latitude; or prepare a larger place",
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
    """Return the range of cells from `low` to `high` and around them: at least a window, and inside `length`."""
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
        For a channel that the model does not draw, or if all channels are kept.
    """
    names = [names] if isinstance(names, str) else names
    for name in names:
        if name not in spec.channels:
            raise ConfigError("The layouts have no such channel to keep.", got=name, choices=spec.channels)
    if len(set(names)) == len(spec.channels):
        raise ConfigError("All channels are kept, so that nothing is redrawn.", got=", ".join(names))
    return np.array([name in names for name in spec.channels])
