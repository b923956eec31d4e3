"""Layouts as files: GeoTIFFs of coverage with named bands, found, read and written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from citygrain.errors import DataError
from citygrain.geo.raster_files import LAYOUT, read_manifest
from citygrain.geo.rasterize import ANGLE_DIGITS, Grid
from citygrain.geo.sources import ATTRIBUTION


def write_geotiff(path: Path, layout: NDArray[np.uint8], channels: Sequence[str], grid: Grid) -> None:
    """Write coverage 0–255, one named band a channel."""
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint8", count=len(layout), width=grid.width, height=grid.height,
        crs=grid.crs, transform=grid.transform, compress="deflate", photometric="minisblack",
    ) as tif:  # fmt: skip
        tif.write(layout)
        tif.descriptions = tuple(channels)
        tif.update_tags(TIFFTAG_COPYRIGHT=ATTRIBUTION)


LARGEST_CELLS = 4096**2
"""More cells than this at once would take more than some gigabytes."""


EXACT = 1e-6
"""Share by which cells may differ from squares, and units from metres: what rounding leaves."""


TRUE_M = 0.05
"""Share by which a metre of the CRS may differ from one on the ground. In Web Mercator, it is a factor of two in
Hamburg."""


def find_layouts(path: Path) -> list[Path]:
    """Return the GeoTIFFs at a path: a file, a folder of `citygrain sample`, a prepared place, or any folder of them.

    Raises
    ------
    DataError
        When there are none.
    """
    for folder in (path.parent, path):
        read_manifest(folder)  # refuses a prepared place of an earlier format, whose ways held something else
    if path.is_file():
        return [path]
    if (path / LAYOUT).is_file():
        return [path / LAYOUT]
    found = sorted((path / "layouts").glob("*.tif")) or sorted(path.glob("*.tif"))
    if not found:
        raise DataError(
            f"There are no layouts at {path}.",
            expected="a GeoTIFF, a folder that `citygrain sample` wrote, or a prepared place",
            got="nothing there" if not path.exists() else "a folder without *.tif",
        )
    return found


def name_layout(path: Path) -> str:
    """Return the name of the layout in a GeoTIFF: that of the file, or of the folder of a prepared place."""
    return path.parent.name if path.name == LAYOUT else path.stem


def read_layout(path: Path, bounds: Sequence[float] | None = None) -> tuple[NDArray[Any], tuple[str, ...], Grid]:
    """Read a GeoTIFF of coverage with named bands.

    Parameters
    ----------
    path
        The file: uint8, 255 = covered, or floats in [0, 1].
    bounds
        `(left, bottom, right, top)` in its CRS: only this part; None for all. Of a turned grid, the smallest part that
        holds all of it.

    Returns
    -------
    cells, channels, grid
        `(C, H, W)` as they are in the file, the names of the bands, and where the cells lie.

    Raises
    ------
    DataError
        When it cannot be read, does not lie on a square grid in metres, has no names of channels, or too many cells.
    """
    try:
        with rasterio.open(path) as tif:
            whole = find_grid(tif, str(path))
            window = Window(0, 0, tif.width, tif.height)
            if bounds is not None:
                window = _cut_window(whole, bounds)
            if window.width * window.height > LARGEST_CELLS:
                raise DataError(
                    f"{path} is too large to be read at once.",
                    expected=f"at most {LARGEST_CELLS:,} cells",
                    got=f"{window.width} by {window.height}",
                    remedy="name a part, in the file's CRS: bounds=[left,bottom,right,top]",
                )
            cells: NDArray[Any] = tif.read(window=window)
            grid = whole.part(int(window.col_off), int(window.row_off), int(window.width), int(window.height))
            channels = tuple(name or "" for name in tif.descriptions)
    except RasterioError as error:
        raise DataError(f"{path} cannot be read as a GeoTIFF.", got=error) from error
    if not all(channels):
        raise DataError(
            f"The bands of {path} have no names, so that nobody knows what they are.",
            expected="a description for each band, as `citygrain sample` and `prepare` write",
        )
    return cells, channels, grid


def find_grid(tif: rasterio.DatasetReader, name: str) -> Grid:
    """Return where the cells of an open file lie. The grid may be turned.

    Parameters
    ----------
    tif
        The file.
    name
        What messages call it.

    Raises
    ------
    DataError
        When its cells are no squares in rows from north to south, in metres on the ground.
    """
    a, b, _, d, e, _ = tif.transform[:6]
    width, height = math.hypot(a, d), math.hypot(b, e)
    wrong = None
    if tif.crs is None:
        wrong = "no CRS"
    elif not tif.crs.is_projected:
        wrong = f"{tif.crs.to_string()}, which is not projected"
    elif abs(tif.crs.linear_units_factor[1] - 1) > EXACT:
        unit, metres = tif.crs.linear_units_factor
        wrong = f"{tif.crs.to_string()}, in units ({unit}) of {metres:g} m"
    elif not (width > 0 and height > 0) or abs(a * b + d * e) > EXACT * width * height:
        wrong = "a grid that is sheared"
    elif not a * e - b * d < 0 or (abs(d) <= EXACT * width and a < 0):
        wrong = "a grid with rows from south to north, or columns from east to west"
    elif abs(width - height) > EXACT * width:
        wrong = f"cells of {width:g} by {height:g} m"
    elif not 1 - TRUE_M < (scale := _find_scale(tif)) < 1 + TRUE_M:
        wrong = f"{tif.crs.to_string()}, in which a metre on the ground is {scale:.3g} m"
    if wrong:
        raise DataError(
            f"{name} does not lie on a square grid in metres.",
            expected="a projected CRS in metres, such as EPSG:32633, square cells, rows from north to south",
            got=wrong,
            remedy="gdalwarp -t_srs EPSG:32633 -tr 2 2 -r average IN.tif OUT.tif, with the UTM zone of the place",
        )
    where = Grid(tif.crs.to_string(), tif.transform.c, tif.transform.f, a, tif.width, tif.height)
    if max(abs(b), abs(d)) <= EXACT * a:
        return where
    # Rounding takes off what sines and cosines have added, so that a layout lies exactly where it was written.
    return replace(where, resolution_m=round(width, 9), angle=round(math.degrees(math.atan2(-d, a)), ANGLE_DIGITS))


def _find_scale(tif: rasterio.DatasetReader) -> float:
    """Return how long a metre on the ground is on the map, in the middle of a file; 1 where nobody knows."""
    crs = pyproj.CRS.from_user_input(tif.crs)
    x, y = tif.transform @ (tif.width / 2, tif.height / 2)
    projection = pyproj.Proj(crs)
    longitude, latitude = projection(x, y, inverse=True)
    scale = math.sqrt(abs(projection.get_factors(longitude, latitude).areal_scale))
    return scale if math.isfinite(scale) else 1.0


def _cut_window(whole: Grid, bounds: Sequence[float]) -> Window:
    """Return the window of a file that lies within bounds, to whole cells."""
    try:
        left, bottom, right, top = map(float, bounds)
    except (TypeError, ValueError):
        left = bottom = right = top = math.nan
    if left < right and bottom < top and math.isfinite(left + bottom + right + top):
        corners = whole.to_cells(np.array([(left, bottom), (left, top), (right, bottom), (right, top)]))
        ends = np.stack([corners.min(0), corners.max(0)]).round()
        (x0, y0), (x1, y1) = np.clip(ends, 0, (whole.width, whole.height)).astype(int).tolist()
        if x0 < x1 and y0 < y1:
            return Window(x0, y0, x1 - x0, y1 - y0)
    raise DataError(
        "Nothing of the file lies within these bounds.",
        expected=f"bounds=[left,bottom,right,top] that meet {[round(b) for b in whole.bounds]}",
        got=f"bounds={bounds}",
    )
