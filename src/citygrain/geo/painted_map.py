"""Maps that a person has painted: what is asked for on each cell of an area, from a file, an array or polygons.

Everything is averaged by area. A cell gets the mean of what is painted on it, so that the mean of a map is kept
whatever the sizes of its cells and of those of the area.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import reproject
from scipy import sparse

from citygrain.errors import ConditionError, DataError
from citygrain.geo.painted_files import LEVELS, read_picture, read_polygons, refuse_elsewhere
from citygrain.geo.rasterize import Grid, rasterize_area

RASTERS = (".tif", ".tiff", ".vrt", ".asc", ".img")
"""Endings of georeferenced rasters."""

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
"""Endings of pictures, which are stretched over the area."""

POLYGONS = (".gpkg", ".geojson", ".json", ".shp", ".fgb", ".parquet", ".geoparquet")
"""Endings of files of polygons."""

SHARE = "–"
"""The unit of shares, which are from 0 to 1."""

MOST_PAINTED = 0.5
"""A cell counts as painted where this share of it is."""

TOLERANCE = 1e-4
"""How far outside of its range rounding may carry a value."""

Source: TypeAlias = str | Path | NDArray[Any] | gpd.GeoDataFrame
"""A file, an array, or a table of polygons."""


@dataclass(frozen=True, eq=False)
class PaintedMap:
    """A map of what is asked for, such as coverage or green.

    Parameters
    ----------
    source
        What was painted:

        - the path of a georeferenced raster; its cells are values in the unit of the measure;
        - the path of a grey picture (PNG, JPEG, …), which is stretched over the area, north up. Black is 0 and white is
          1, unless `black` and `white` say otherwise. Nothing is asked for where it is transparent;
        - the path of a file of polygons, or a table of polygons, with a column of the name of the measure;
        - an array `(h, w)` of values in the unit of the measure, which is stretched over the area, its first row in the
          north. Nothing is asked for where it is NaN.
    black, white
        The values of black and of white, in the unit of the measure. They go with pictures, and with rasters and arrays
        of 8 or 16 bits.
    elsewhere
        The value where nothing is painted; None asks for nothing there.
    column, layer
        Of polygons: the column of the values, and the layer of the file.
    band
        Of rasters: the number of the band, from 1 on.

    Examples
    --------
    >>> model.sample(4, coverage=PaintedMap("paint.png", black=0.1, white=0.5))  # doctest: +SKIP
    """

    source: Source
    black: float | None = None
    white: float | None = None
    elsewhere: float | None = None
    column: str | None = None
    layer: str | None = None
    band: int = 1

    def __str__(self) -> str:
        """Return the name of the file, or what the map is."""
        if isinstance(self.source, str | Path):
            return Path(self.source).name
        return "the table of polygons" if isinstance(self.source, gpd.GeoDataFrame) else "the array"

    @property
    def stretched(self) -> bool:
        """Whether the map is stretched over the area; other maps lie at a place on Earth."""
        if isinstance(self.source, str | Path):
            return Path(self.source).suffix.lower() in PICTURES
        return not isinstance(self.source, gpd.GeoDataFrame)

    def read(self, measure: str, unit: str, grid: Grid, free: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """Return the value of each cell of an area, `(H, W)` in the unit; NaN where nothing is asked for.

        Parameters
        ----------
        measure, unit
            What the map is of. Shares have the unit `"–"`.
        grid
            The area.
        free
            `(H, W)`: the cells of a site. Pictures and arrays are stretched over the box of these cells, and nothing is
            asked for outside of it. Maps that lie on Earth lie where they do.

        Raises
        ------
        DataError
            For a file that cannot be read or does not say where it lies, and a map that does not meet the area.
        ConditionError
            For values that the measure cannot have, or settings that do not belong to this kind of map.
        """
        if free is not None and self.stretched:
            filled = (np.flatnonzero(free.any(axis)) for axis in (1, 0))
            rows, columns = (slice(int(of[0]), int(of[-1]) + 1) for of in filled)
            box = grid.part(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
            whole = np.full(free.shape, np.nan, np.float32)
            whole[rows, columns] = self.read(measure, unit, box)
            return whole
        self._check_settings(measure)
        values = self._read_values(measure, unit, grid)
        if not np.isfinite(values).any():
            raise DataError(f"{self} has nothing painted.", expected=f"values of {measure}", got="no value")
        if self.elsewhere is not None:
            values = np.where(np.isfinite(values), values, self.elsewhere)
        self._check_range(measure, unit, values)
        return values.astype(np.float32)

    def _read_values(self, measure: str, unit: str, grid: Grid) -> NDArray[np.floating[Any]]:
        """Return what is painted on each cell, whatever the source is."""
        if isinstance(self.source, gpd.GeoDataFrame):
            return self._draw_polygons(self.source, measure, grid)
        if self.stretched:
            painted = isinstance(self.source, str | Path)
            levels = read_picture(Path(self.source)) if painted else np.asarray(self.source)  # type: ignore[arg-type]
            return stretch(self._scale(levels, measure, unit), grid.height, grid.width)
        path = Path(self.source)  # type: ignore[arg-type]  # what is no path is stretched
        if path.suffix.lower() in POLYGONS:
            return self._draw_polygons(read_polygons(path, self.layer, self.column or measure), measure, grid)
        return self._warp(path, measure, unit, grid)

    def _check_settings(self, measure: str) -> None:
        """Check that numbers are numbers, and that black and white come together."""
        for name in ("black", "white", "elsewhere"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float | np.number) and math.isfinite(value)):
                raise ConditionError(f"{name} is a value of {measure}.", expected="a number", got=value)
        if (self.black is None) != (self.white is None):
            raise ConditionError(
                f"What do black and white stand for in {self}?",
                expected="both values, such as black=0, white=0.6",
                got=f"black={self.black}, white={self.white}",
            )

    def _scale(self, levels: NDArray[Any], measure: str, unit: str) -> NDArray[np.float64]:
        """Turn the levels of a picture, or the cells of an array or a raster, into values of the measure."""
        kind = levels.dtype.name
        if levels.ndim != 2 or not levels.size or not np.issubdtype(levels.dtype, np.number):
            raise DataError("This is no map.", expected="numbers in rows and columns", got=f"{levels.shape} {kind}")
        values = np.ma.filled(levels.astype(np.float64), np.nan)
        values[~np.isfinite(values)] = np.nan
        picture = isinstance(self.source, str | Path) and self.stretched
        if self.black is None or self.white is None:
            if picture and unit != SHARE:
                raise ConditionError(
                    f"What do black and white stand for in {self}?",
                    expected=f"two values of {measure}, in {unit}",
                    remedy=f"'conditions.{measure}={{map:{self},black:0,white:…}}'",
                )
            return values
        if not picture and kind not in LEVELS:
            raise ConditionError(
                f"{self} has no levels from black to white.",
                expected="cells of 8 or 16 bits",
                got=kind,
                remedy="leave out black and white: its cells are values of the measure",
            )
        scaled: NDArray[np.float64] = self.black + values / LEVELS.get(kind, 1) * (self.white - self.black)
        return scaled

    def _warp(self, path: Path, measure: str, unit: str, grid: Grid) -> NDArray[np.float32]:
        """Average a band of a georeferenced raster over the cells of a grid."""
        values = np.full((grid.height, grid.width), np.nan, np.float32)
        try:
            with rasterio.open(path) as painted:
                if painted.crs is None:
                    raise DataError(
                        f"{path} does not say where it lies.",
                        expected="a georeferenced raster",
                        got="no CRS",
                        remedy="assign its CRS in a GIS; or save it as PNG, which is stretched over the area",
                    )
                if self.band not in painted.indexes:
                    raise DataError(f"{path} has no such band.", got=self.band, choices=painted.indexes)
                band = self._scale(painted.read(self.band, masked=True), measure, unit).astype(np.float32)
                bounds, crs = painted.bounds, painted.crs
                reproject(
                    band, values, src_transform=painted.transform, src_crs=crs, src_nodata=np.nan,
                    dst_transform=grid.transform, dst_crs=grid.crs, dst_nodata=np.nan, resampling=Resampling.average,
                )  # fmt: skip
        except (RasterioError, CRSError) as error:
            raise DataError(
                f"{path} cannot be read as a raster of values.",
                expected="a number, a percentile such as p90, {from, to, towards}, or the path of a GeoTIFF",
                got=error,
            ) from error
        if np.isfinite(band).any() and not np.isfinite(values).any():
            refuse_elsewhere(path, bounds, crs.to_string(), grid)
        return values

    def _draw_polygons(self, frame: gpd.GeoDataFrame, measure: str, grid: Grid) -> NDArray[np.float64]:
        """Average the values of polygons over the cells of a grid, weighted by area."""
        if self.black is not None:
            raise ConditionError(
                f"{self} has no levels from black to white.",
                expected=f"a column with values of {measure}",
                remedy="leave out black and white",
            )
        column = self.column or measure
        choices = [name for name in frame.columns if name != frame.geometry.name]
        if column not in frame.columns:
            raise DataError(
                f"{self} has no column of values of {measure}.",
                expected=column,
                choices=choices,
                remedy="name the column after the measure, or name it: column=…",
            )
        if not pd.api.types.is_numeric_dtype(frame[column]) or pd.api.types.is_bool_dtype(frame[column]):
            raise DataError(f"The column {column} of {self} has no numbers.", got=str(frame[column].dtype))
        frame = frame[frame[column].notna() & ~frame.geometry.isna()]
        strange = set(frame.geom_type) - {"Polygon", "MultiPolygon"}
        if strange or frame.empty:
            raise DataError(
                f"{self} has other things than polygons with values of {measure}.",
                expected="Polygon, MultiPolygon",
                got=", ".join(sorted(strange)) or "no polygon with a value",
            )
        if frame.crs is None:
            raise DataError(
                f"{self} does not say in which CRS its coordinates are.",
                remedy="save it with its CRS, or as GeoJSON in longitude, latitude",
            )
        shapes = np.asarray(frame.geometry.to_crs(grid.crs))
        known = np.isfinite(shapely.bounds(shapes)).all(1)
        shapes, of_each = shapely.make_valid(shapes[known]), frame[column].to_numpy(float)[known]
        here = shapely.intersects(shapes, grid.outline)
        if not here.any():
            refuse_elsewhere(self, frame.total_bounds.tolist(), frame.crs.to_string(), grid)
        painted, total = np.zeros((2, grid.height, grid.width))
        for shape, value in zip(shapes[here], of_each[here], strict=True):
            rows, columns = _find_cells(shape, grid)
            part = grid.part(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
            share = np.concatenate([*rasterize_area(shape, part)]) / 255
            painted[rows, columns] += share
            total[rows, columns] += share * value
        return np.where(painted >= MOST_PAINTED, total / np.maximum(painted, MOST_PAINTED), np.nan)

    def _check_range(self, measure: str, unit: str, values: NDArray[Any]) -> None:
        """Refuse values that the measure cannot have."""
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        if low >= -TOLERANCE and (unit != SHARE or high <= 1 + TOLERANCE):
            return
        remedy = None
        if unit == SHARE and 1 < high <= 255 and low >= -TOLERANCE:
            levels = self.black is None and not self.stretched and isinstance(self.source, str | Path)
            grey = f"{{map: {self}, black: 0, white: 1}} for cells of 8 bits" if levels else "divide them by 255"
            cent = "per cent? Divide them by 100; or " if high <= 100 else ""
            remedy = f"did you mean {cent}grey levels from 0 to 255? Then {grey}"
        raise ConditionError(
            f"{self} holds values that {measure} cannot have.",
            expected="shares from 0 to 1" if unit == SHARE else f"{unit}, from 0 on",
            got=f"{low:.4g} to {high:.4g}",
            remedy=remedy,
        )


def is_painted(value: Any) -> bool:
    """Return whether a requested value is a painted map, or the path of one."""
    if isinstance(value, PaintedMap):
        return True
    return isinstance(value, str | Path) and Path(value).suffix.lower() in {*RASTERS, *PICTURES, *POLYGONS}


def stretch(values: NDArray[Any], height: int, width: int) -> NDArray[np.float64]:
    """Average a map `(h, w)` over the cells `(height, width)` of the same extent; NaN is nothing painted.

    The map is taken to be constant on each of its own cells. So its mean stays, exactly.
    """
    down, across = _share_cells(values.shape[0], height), _share_cells(values.shape[1], width)
    there = np.isfinite(values)
    painted = down @ (across @ there.T.astype(float)).T
    total = down @ (across @ np.where(there, values, 0).T).T
    found: NDArray[np.float64] = np.where(
        painted >= MOST_PAINTED - TOLERANCE, total / np.maximum(painted, MOST_PAINTED / 2), np.nan
    )
    return found


def _share_cells(n: int, m: int) -> sparse.csr_array:
    """Return which shares of each of `m` cells lie in each of `n` cells along the same length, `(m, n)`."""
    cuts = np.union1d(np.arange(n + 1) / n, np.arange(m + 1) / m)
    middle, length = (cuts[1:] + cuts[:-1]) / 2, np.diff(cuts)
    return sparse.csr_array((length * m, ((middle * m).astype(int), (middle * n).astype(int))), (m, n))


def _find_cells(shape: shapely.Geometry, grid: Grid) -> tuple[slice, slice]:
    """Return the rows and columns of a grid that a shape may meet, at least one of each."""
    left, top, right, bottom = shapely.bounds(shapely.transform(shape, grid.to_cells)).tolist()

    def span(low: float, high: float, length: int) -> slice:
        start = min(max(0, math.floor(low)), length - 1)
        return slice(start, max(start + 1, min(length, math.ceil(high))))

    return span(top, bottom, grid.height), span(left, right, grid.width)
