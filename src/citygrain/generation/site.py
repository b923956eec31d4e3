"""Find where a site lies, and read the site and its real surroundings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import geopandas as gpd
import numpy as np
import shapely
import torch
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.features import geometry_mask, shapes
from scipy import ndimage
from shapely.geometry.base import BaseGeometry

from citygrain.data.cityraster import CityRaster
from citygrain.data.rules import list_common_channels
from citygrain.data.ways import CityStrokes
from citygrain.errors import CapabilityError, ConditionError, ConfigError, DataError
from citygrain.geo.drawn_ways import DrawnWays
from citygrain.geo.layers import RASTER_FORMAT, find_parts, select_channels
from citygrain.geo.place import Place
from citygrain.geo.raster_files import COMPLETE, WAYS
from citygrain.geo.rasterize import Grid
from citygrain.geo.stroke_code import FRAMED, KINDS
from citygrain.measures import MEASURES
from citygrain.networks.frame import FRAME, find_condition, find_frames, to_bearing
from citygrain.protocols import Denoiser, Sampler, Trained
from citygrain.samplers.areas import keeps_parts
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
    unknown
        The channels that the place does not know. They are empty, and are not drawn.
    ways
        The ways of the place as lines, with those of the site; None where only cells are known.
    """

    layout: NDArray[np.uint8]
    free: NDArray[np.bool_]
    grid: Grid
    unknown: tuple[str, ...] = ()
    ways: DrawnWays | None = None

    def list_known_ways(self, kept: Sequence[str]) -> DrawnWays | None:
        """Return the lines around the site, and the whole lines of kept channels."""
        if self.ways is None:
            return None
        cells = shapes(self.free.astype(np.uint8), self.free)
        outline = shapely.union_all([shapely.geometry.shape(part) for part, _ in cells])
        ground = shapely.transform(outline, lambda xy: xy * self.grid.resolution_m)
        stays = np.isin(self.ways.kind, kept)
        lines = np.where(stays, self.ways.lines, shapely.difference(self.ways.lines, ground))
        parts, of = shapely.get_parts(lines, return_index=True)
        some = shapely.length(parts) > 0
        return DrawnWays(self.ways.kind[of[some]], parts[some], self.ways.apart[of[some]])


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


def find_bearing(raster: CityRaster, spec: LayoutSpec, site: BaseGeometry) -> float:
    """Return the bearing of the streets of a prepared place in the window of a model around the middle of a site."""
    level, size = raster.level(spec.resolution_m), spec.size_px
    height, width = level.valid.shape
    x, y = ~level.transform @ (site.centroid.x, site.centroid.y)
    column, row = (min(max(0, round(at - size / 2)), n - size) for at, n in ((x, width), (y, height)))
    bands = [raster.channels.index(name) for name in FRAMED]
    cells = level.array[bands, row : row + size, column : column + size].sum(0, dtype=np.float32) / COMPLETE
    angle, _ = find_frames(torch.from_numpy(cells)[None].clamp(max=1))
    return float(to_bearing(angle))


def read_site(
    raster: CityRaster,
    spec: LayoutSpec,
    site: BaseGeometry,
    context_m: float,
    *,
    one_window: bool = False,
    bearing: float = 0.0,
    allow_unknown: bool = False,
    with_ways: bool = False,
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
    bearing
        The bearing in degrees that the layout lies at. Of a turned layout, cells are interpolated from the raster, as
        those of windows in training, and what lies beyond the place is empty.
    allow_unknown
        Whether the place may not know some of the channels. They are empty then.
    with_ways
        Whether the ways are read as lines, too, if the place holds them.

    Raises
    ------
    ConfigError
        For a `context_m` that is not from 0 on.
    DataError
        When the site is not in the place, has no data, is smaller than a cell, or the place lacks a channel. If
        `allow_unknown` is set: when it knows none of the channels.
    CapabilityError
        When the site does not fit into one window, and `one_window` is set.
    """
    if not 0 <= context_m < math.inf:
        raise ConfigError("The surroundings of a site are some metres.", expected="context_m ≥ 0", got=context_m)
    unknown = tuple(
        name for name in spec.channels if any(part in raster.unknown for part in find_parts(name, spec.raster_format))
    )
    some_known = len(unknown) < len(spec.channels)
    channels, _ = list_common_channels(
        [raster], spec.channels, spec.raster_format, allow_unknown=allow_unknown and some_known
    )
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
    whole = Grid(raster.crs, west, north, cell, width, height)
    if angle := whole.turned(bearing).angle:
        whole = replace(whole, left=site.centroid.x, top=site.centroid.y, angle=angle)
        x0, y0, x1, y1 = (v * cell for v in shapely.transform(site, whole.to_cells).bounds)
    rows, columns = (
        _span(low / cell, high / cell, context_m / cell, spec.size_px, None if angle else length, one_window=one_window)
        for low, high, length in ((y0, y1, height), (x0, x1, width))
    )
    grid = whole.part(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
    free: NDArray[np.bool_] = geometry_mask([site], (grid.height, grid.width), grid.transform, invert=True)
    if not free.any():
        raise DataError(
            "The site holds the middle of no cell.", expected=f"more than {cell:g} m across", got=f"{site.area:.3g} m²"
        )
    if angle:
        there, valid = _read_turned(raster, grid)
    else:
        there, valid = level.array[:, rows, columns], level.valid[rows, columns]
    if not valid[free].any():
        raise DataError(f"The source of {raster.name} has no data at this site.", got=[round(v) for v in site.bounds])
    layout = select_channels(there, raster.channels, channels, spec.raster_format)
    layout[[channels.index(name) for name in unknown]] = 0
    return Site(layout, free, grid, unknown, _read_ways(raster, spec, grid) if with_ways else None)


def _read_ways(raster: CityRaster, spec: LayoutSpec, grid: Grid) -> DrawnWays | None:
    """Return the lines that touch a grid; None where a place holds none, or where channels are of another format."""
    if not (raster.path / WAYS).is_file() or spec.raster_format != RASTER_FORMAT:
        return None
    kinds = [name for name in KINDS if name in spec.channels]
    city = CityStrokes(raster, kinds)
    near = shapely.intersects(city.lines, grid.outline)
    lines = shapely.transform(city.lines[near], lambda xy: grid.to_cells(xy) * grid.resolution_m)
    return DrawnWays(np.array(kinds)[city.kind[near]], lines, city.apart[near])


def _read_turned(raster: CityRaster, grid: Grid) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the cells `(C, H, W)` of a turned grid, and which of them have data `(H, W)`.

    A cell is the mean of points between the cells of the raster, which are taken half as large where there are such.
    """
    finer = raster.resolution_m < grid.resolution_m
    level, points = (raster.level(grid.resolution_m / 2), 3) if finer else (raster.level(grid.resolution_m), 1)
    dense = replace(
        grid, resolution_m=grid.resolution_m / points, width=grid.width * points, height=grid.height * points
    )  # fmt: skip
    at = np.stack(np.meshgrid(np.arange(dense.width) + 0.5, np.arange(dense.height) + 0.5), -1).reshape(-1, 2)
    height, width = level.valid.shape
    whole = Grid(raster.crs, level.transform.c, level.transform.f, level.resolution_m, width, height)
    columns, rows = whole.to_cells(dense.to_metres(at)).T - 0.5
    top, left = (max(0, math.floor(of.min())) for of in (rows, columns))
    there = (slice(top, math.ceil(rows.max()) + 1), slice(left, math.ceil(columns.max()) + 1))
    shape = (grid.height, points, grid.width, points)

    def read(cells: NDArray[Any], order: int) -> NDArray[np.float32]:
        found = ndimage.map_coordinates(cells, (rows - top, columns - left), np.float32, order, mode="grid-constant")
        means: NDArray[np.float32] = found.reshape(shape).mean((1, 3))
        return means

    cells = np.stack([read(band[there], 1) for band in level.array])
    return cells.round().astype(np.uint8), read(level.valid[there].astype(np.uint8), 0) >= 0.5


def _span(low: float, high: float, around: float, size: int, length: int | None, *, one_window: bool) -> slice:
    """Return the range of cells from `low` to `high` and around them: at least a window, and inside `length`."""
    if length is not None and length < size:
        raise DataError("The place is smaller than a window of this model.", expected=f"{size} cells", got=length)
    wanted = math.ceil(high) - math.floor(low) + 2 * around
    if one_window and high - low > size:
        raise CapabilityError(
            "The site is larger than a window, and this family draws windows only.",
            expected=f"at most {size} cells",
            got=math.ceil(high - low),
            remedy="choose a diffusion model, or a smaller site",
        )
    count = size if one_window else max(size, math.ceil(wanted))
    if length is None:
        start = round((low + high - count) / 2)
    else:
        count = min(count, length)
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


def check_requests(names: Iterable[str], unknown: Sequence[str]) -> None:
    """Check that nothing is requested of channels that the place does not know.

    Raises
    ------
    ConditionError
        For the name of a condition that needs one of the unknown channels.
    """
    for name in set(names) & {*MEASURES, *FRAME}:
        if lacking := [channel for channel in find_condition(name).channels if channel in unknown]:
            raise ConditionError(
                f"The place does not know what {name} is measured on, and it is not drawn there.",
                expected="conditions of channels that the place knows",
                got=f"{name}, of {', '.join(lacking)}",
            )


def takes_one_window(generator: Trained, sampler: Sampler, outline: BaseGeometry) -> bool:
    """Tell whether a site is redrawn in one window: families that draw in turn draw as few windows as they can."""
    if isinstance(generator, Denoiser):
        return False
    left, bottom, right, top = outline.bounds
    fits = max(right - left, top - bottom) <= generator.spec.extent_m
    return fits or not keeps_parts(generator, sampler)
