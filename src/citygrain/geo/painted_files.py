"""Files of painted maps: grey pictures, polygons, and what is said of maps that lie elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyproj
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from citygrain.errors import DataError
from citygrain.geo.rasterize import Grid

LEVELS = {"uint8": 255, "uint16": 65535}
"""Type of the cells of a raster → its level of white."""

COLOURED = 24
"""Red, green and blue of a grey pixel differ by this many levels of 255 at most: JPEG keeps greys nearly."""

MOST_DEGREES = 360
"""No longitude or latitude is larger."""


def read_picture(path: Path) -> NDArray[np.float64]:
    """Return the grey levels of a picture, `(h, w)` from 0 to 1; NaN where it is transparent."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):  # 16 bits
                return np.asarray(image, np.float64) / LEVELS["uint16"]
            rgba = np.asarray(image.convert("RGBA"), np.float64)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a picture.", expected="a grey PNG or JPEG", got=error) from error
    colours, seen = rgba[..., :3], rgba[..., 3] >= 128
    coloured = seen & (np.ptp(colours, axis=2) > COLOURED)
    if coloured.any():
        raise DataError(
            f"{path.name} is coloured, and colours have no order.",
            expected="greys: black is the least, white the most",
            got=f"{coloured.mean():.0%} of its pixels are coloured",
            remedy="turn it into greys in the program that painted it",
        )
    grey: NDArray[np.float64] = np.where(seen, colours.mean(2) / LEVELS["uint8"], np.nan)
    return grey


def read_polygons(path: Path, layer: str | None, column: str) -> gpd.GeoDataFrame:
    """Read the layer of a file that has a column; of a file with one layer, that one."""
    import pyogrio  # noqa: PLC0415  (its own copy of GDAL takes 27 MB, which drawing does not need)

    if not path.exists():
        raise DataError(f"There is no file {path}.", expected="a file of polygons")
    try:
        if path.suffix.lower() in {".parquet", ".geoparquet"}:
            return gpd.read_parquet(path)
        layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
        if layer is None and len(layers) > 1:
            having = [name for name in layers if column in pyogrio.read_info(path, layer=name)["fields"]]
            if len(having) != 1:
                raise DataError(
                    f"{path.name} has several layers.",
                    expected=f"one with a column {column}",
                    got=f"{len(having)} such layers",
                    choices=having or layers,
                    remedy="name one: layer=…",
                )
            layer = having[0]
        if layer is not None and layer not in layers:
            raise DataError(f"{path.name} has no such layer.", got=layer, choices=layers)
        return gpd.read_file(path, layer=layer or layers[0])
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, ValueError, IndexError) as error:
        raise DataError(
            f"{path} cannot be read as a file of polygons.", expected="GeoPackage, GeoJSON, Shapefile", got=error
        ) from error


def refuse_elsewhere(what: object, bounds: Sequence[float], crs: str, grid: Grid) -> None:
    """Raise the error of a map that does not meet an area; say so if its CRS seems to be wrong.

    Raises
    ------
    DataError
        Always.
    """
    left, bottom, right, top = grid.bounds
    fits = bounds[0] < right and bounds[2] > left and bounds[1] < top and bounds[3] > bottom
    known = pyproj.CRS.from_user_input(crs)
    degrees = known.is_geographic and max(map(abs, bounds)) > MOST_DEGREES
    remedy = None
    if fits:
        remedy = f"its CRS seems to be wrong: its numbers fit {grid.crs}. Assign it, without moving the map"
    elif degrees:
        remedy = "its CRS seems to be wrong: these are no degrees. Assign the CRS that it was painted in"
    raise DataError(
        f"{what} holds nothing of the area.",
        expected=f"values within {[round(v) for v in grid.bounds]} in {grid.crs}",
        got=f"{[round(float(v), 6) for v in bounds]} in {crs}",
        remedy=remedy,
    )
