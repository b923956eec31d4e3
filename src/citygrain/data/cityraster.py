"""The city raster: a prepared place, which one opens, reads and cuts layouts out of.

Its files: `citygrain.geo.raster_files`. How they are written, whole or not at all: `citygrain.data.raster_folder`.
"""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.windows import Window

from citygrain.errors import DataError
from citygrain.geo import split as splitting
from citygrain.geo.raster_files import (
    BLOCKS,
    CACHE,
    LAYOUT,
    LEVELS,
    MANIFEST,
    OVERVIEWS,
    damaged_error,
    open_level,
    read_manifest,
    read_strips,
)
from citygrain.geo.rasterize import Grid
from citygrain.layouts import Layouts


@dataclass(frozen=True)
class Level:
    """A city raster at one resolution, decoded.

    Parameters
    ----------
    array
        `(C, H, W)` uint8 coverage, mapped from disk: nothing is read before it is used. 0 where not valid.
    valid
        `(H, W)` bool: the source has data here, and the place reaches here.
    transform
        Column, row → metres.
    resolution_m
        Edge of a cell in metres.
    """

    array: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    transform: Affine
    resolution_m: float


@dataclass(frozen=True)
class CityRaster:
    """A prepared place.

    Open one with `CityRaster.open(folder)`; make one with `citygrain.data.prepare.prepare`.

    Parameters
    ----------
    path
        Its folder.
    name
        Name of the place.
    grid
        The cells of the finest level.
    channels
        Names of the bands, in order.
    unknown
        Channel → why the source cannot know it; its band is 0 and that means nothing.
    partial
        Channel → what part of it the source does not see.
    buffer_m
        Distance that train windows keep from held-out blocks.
    provenance
        All of `place.json`.
    """

    path: Path
    name: str
    grid: Grid
    channels: tuple[str, ...]
    unknown: Mapping[str, str]
    partial: Mapping[str, str]
    buffer_m: float
    provenance: Mapping[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> CityRaster:
        """Open a prepared place.

        Raises
        ------
        DataError
            When the folder is missing, not whole, or not what its `place.json` says.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        if manifest is None:
            raise DataError(
                f"{folder} is not a city raster.",
                expected=f"a folder with {LAYOUT}, {BLOCKS} and {MANIFEST}",
                got=_list_folder(folder),
                remedy=f"make it: citygrain prepare place={folder.name} source=…",
            )
        try:
            (left, top), (width, height) = manifest["grid"]["left_top"], manifest["grid"]["width_height"]
            grid = Grid(manifest["crs"], left, top, manifest["resolution_m"], width, height)
            raster = cls(
                folder,
                manifest["place"]["name"],
                grid,
                tuple(manifest["channels"]),
                manifest["unknown"],
                manifest["partial"],
                float(manifest["split"]["buffer_m"]),
                manifest,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise damaged_error(folder / MANIFEST, f"{type(error).__name__}: {error}") from error
        raster._check()
        return raster

    def _check(self) -> None:
        """Compare the raster with what `place.json` says of it."""
        expected = self.provenance["layout"]["bytes"]
        got = (self.path / LAYOUT).stat().st_size if (self.path / LAYOUT).is_file() else "no file"
        if got != expected:
            raise damaged_error(self.path / LAYOUT, f"{got} bytes", f"{expected} bytes")
        with open_level(self.path / LAYOUT) as tif:
            found = (tuple(tif.descriptions), tif.width, tif.height, tuple(tif.overviews(1)))
            promised = (self.channels, self.grid.width, self.grid.height, OVERVIEWS)
            if found != promised:
                raise damaged_error(self.path / LAYOUT, found, f"{promised} (bands, width, height, overviews)")
        if not (self.path / BLOCKS).is_file():
            raise damaged_error(self.path / BLOCKS, "no file")

    @property
    def crs(self) -> str:
        """The UTM zone, `"EPSG:326xx"`."""
        return self.grid.crs

    @property
    def transform(self) -> Affine:
        """Column, row of the finest level → metres."""
        return self.grid.transform

    @property
    def resolution_m(self) -> float:
        """Edge of a cell of the finest level in metres."""
        return self.grid.resolution_m

    @property
    def shape(self) -> tuple[int, int]:
        """`(H, W)` of the finest level."""
        return self.grid.height, self.grid.width

    @property
    def resolutions(self) -> tuple[float, ...]:
        """Resolutions in metres at which it can be read."""
        return tuple(self.resolution_m * f for f in LEVELS)

    @cached_property
    def blocks(self) -> gpd.GeoDataFrame:
        """The blocks: `geometry` in `crs`, `split`, `valid` share of cells, and the measured conditions.

        Raises
        ------
        DataError
            When the table is damaged.
        """
        try:
            return gpd.read_parquet(self.path / BLOCKS)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise damaged_error(self.path / BLOCKS, error) from error

    def level(self, resolution_m: float) -> Level:
        """Return the raster at one of its `resolutions`, decoded once into `.cache/` and mapped from there.

        Several processes may do this at once. Where the folder is read-only the level is decoded into memory.

        Raises
        ------
        DataError
            When there is no such level or the GeoTIFF is damaged.
        """
        factor = self._factor(resolution_m)
        grid = self.grid.coarser(factor)
        stamp = (self.path / LAYOUT).stat()
        key = f"{resolution_m:g}m-{stamp.st_size:x}-{stamp.st_mtime_ns:x}.npy"
        files = self.path / CACHE / f"valid-{key}", self.path / CACHE / f"layout-{key}"
        arrays = self._mapped(files)
        if arrays is None:
            try:
                self._decode(factor, files)
            except OSError as error:
                warnings.warn(
                    f"{self.path / CACHE} cannot be written ({error}); the level is decoded into memory every time",
                    stacklevel=2,
                )
                arrays = self._decoded(factor)
            else:
                arrays = self._mapped(files)
        if arrays is None:
            raise damaged_error(files[1], "no array")
        valid, array = arrays
        return Level(array, valid, grid.transform, grid.resolution_m)

    def split_mask(self, resolution_m: float, split: str) -> NDArray[np.bool_]:
        """Return the cells on which windows of a split may lie: `(H, W)` at a resolution.

        A window is allowed when all its cells are; `train` keeps `buffer_m` away from every held-out block.

        Raises
        ------
        DataError
            When there is no such level or split.
        """
        grid = self.grid.coarser(self._factor(resolution_m))
        return splitting.mask_split(self.blocks, grid, split, self.buffer_m)

    def read(self, row: int, col: int, size: int, resolution_m: float) -> NDArray[np.uint8]:
        """Read one window straight from the GeoTIFF: `(C, size, size)` uint8, rows and columns of that level.

        Raises
        ------
        DataError
            When the window reaches out of the raster, there is no such level, or the GeoTIFF is damaged.
        """
        factor = self._factor(resolution_m)
        grid = self.grid.coarser(factor)
        if min(row, col) < 0 or row + size > grid.height or col + size > grid.width:
            raise DataError(
                f"The window reaches out of {self.name}.",
                expected=f"rows 0…{grid.height}, columns 0…{grid.width}",
                got=f"rows {row}…{row + size}, columns {col}…{col + size}",
            )
        with open_level(self.path / LAYOUT, factor) as tif:
            window: NDArray[np.uint8] = tif.read(window=Window(col, row, size, size))
        return window

    def window(
        self,
        at: Sequence[float] | None = None,
        *,
        size_m: float = 512.0,
        bounds: Sequence[float] | None = None,
        resolution_m: float | None = None,
    ) -> Layouts:
        """Cut a layout out of the place, in the channels that its source knows.

        Parameters
        ----------
        at, size_m
            Longitude and latitude in degrees of the middle of a square, and its edge in metres.
        bounds
            Or `(left, bottom, right, top)` in metres in the raster's CRS. Both are taken to whole cells.
        resolution_m
            One of `resolutions`; the finest by default.

        Raises
        ------
        DataError
            When it is said in no way or in two, reaches out of the raster, holds no data, there is no such level, or
            the GeoTIFF is damaged.

        Examples
        --------
        >>> raster.window((24.9414, 60.1735), size_m=512, resolution_m=4.0)  # doctest: +SKIP
        """
        cell = self.resolution_m if resolution_m is None else resolution_m
        factor = self._factor(cell)
        grid = self.grid.coarser(factor)
        rows, columns = self._spans(at, size_m, bounds, grid)
        width, height = columns.stop - columns.start, rows.stop - rows.start
        with open_level(self.path / LAYOUT, factor) as tif:
            part = Window(columns.start, rows.start, width, height)
            cells: NDArray[np.uint8] = tif.read(window=part)
            valid = tif.dataset_mask(window=part) > 0
        if not valid.any():
            raise DataError(f"There is no data of {self.name} there.", got=f"at={at}, bounds={bounds}")
        known = [i for i, name in enumerate(self.channels) if name not in self.unknown]
        left, top = grid.left + columns.start * cell, grid.top - rows.start * cell
        return Layouts(
            cells[known][None],
            tuple(self.channels[i] for i in known),
            cell,
            (Grid(self.crs, left, top, cell, width, height),),
            (self.name,),
            source=f"a part of {self.name}",
        )

    def _spans(
        self, at: Sequence[float] | None, size_m: float, bounds: Sequence[float] | None, grid: Grid
    ) -> tuple[slice, slice]:
        """Return rows and columns of a level that a square or bounds stand for."""
        if (at is None) == (bounds is None):
            raise DataError(
                "Which part of the place is it?",
                expected="at=(longitude, latitude), or bounds=(left, bottom, right, top)",
                got={"at": at, "bounds": bounds},
            )
        if bounds is None:
            to_metres = Transformer.from_crs("EPSG:4326", self.crs, always_xy=True)
            longitude, latitude = at or ()
            x, y = to_metres.transform(longitude, latitude)
            # Moved to whole cells, a square keeps its size.
            edge = round(size_m / grid.resolution_m)
            x0 = round((x - grid.left) / grid.resolution_m - edge / 2)
            y0 = round((grid.top - y) / grid.resolution_m - edge / 2)
            x1, y1 = x0 + edge, y0 + edge
        else:
            left, bottom, right, top = bounds
            x0, x1 = (round((x - grid.left) / grid.resolution_m) for x in (left, right))
            y0, y1 = (round((grid.top - y) / grid.resolution_m) for y in (top, bottom))
        if not (0 <= x0 < x1 <= grid.width and 0 <= y0 < y1 <= grid.height):
            raise DataError(
                f"The window reaches out of {self.name}.",
                expected=f"within {[round(v) for v in self.grid.bounds]} in {self.crs}",
                got=f"columns {x0} to {x1} of {grid.width}, rows {y0} to {y1} of {grid.height}",
            )
        return slice(y0, y1), slice(x0, x1)

    def _factor(self, resolution_m: float) -> int:
        for factor, resolution in zip(LEVELS, self.resolutions, strict=True):
            if abs(resolution - resolution_m) < 1e-6 * resolution:
                return factor
        raise DataError(
            f"The city raster of {self.name} has no level of this resolution.",
            got=f"{resolution_m:g}",
            choices=[f"{r:g}" for r in self.resolutions],
            remedy=f"prepare it at {resolution_m:g} m: raster.resolution_m={resolution_m:g} in another folder",
        )

    def _mapped(self, files: tuple[Path, Path]) -> tuple[NDArray[np.bool_], NDArray[np.uint8]] | None:
        """Map the cached arrays; None when they are not there, or not whole."""
        try:
            valid, array = (np.load(file, mmap_mode="r", allow_pickle=False) for file in files)
        except (OSError, ValueError, EOFError):
            return None
        return valid, array

    def _decoded(self, factor: int) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
        _, valid, array = zip(*read_strips(self.path / LAYOUT, factor), strict=True)
        return np.concatenate(valid), np.concatenate(array, axis=1)

    def _decode(self, factor: int, files: tuple[Path, Path]) -> None:
        """Decode a level into the cache: under other names, renamed when complete, whoever else does the same."""
        cache = self.path / CACHE
        cache.mkdir(exist_ok=True)
        grid = self.grid.coarser(factor)
        shapes = (grid.height, grid.width), (len(self.channels), grid.height, grid.width)
        drafts = [file.with_name(f".{uuid.uuid4().hex}.{file.name}") for file in files]
        try:
            valid, array = (
                np.lib.format.open_memmap(draft, "w+", dtype, shape)
                for draft, dtype, shape in zip(drafts, (np.bool_, np.uint8), shapes, strict=True)
            )
            for rows, strip_valid, strip in read_strips(self.path / LAYOUT, factor):
                valid[rows], array[:, rows] = strip_valid, strip
            del valid, array  # flushes
            for draft, file in zip(drafts, files, strict=True):
                draft.replace(file)
        finally:
            for draft in drafts:
                draft.unlink(missing_ok=True)
        current = files[0].name.split("m-", 1)[1]
        for old in cache.glob("*.npy"):
            if not old.name.startswith(".") and not old.name.endswith(current):
                old.unlink(missing_ok=True)


def _list_folder(folder: Path) -> str:
    if not folder.exists():
        return "nothing"
    if not folder.is_dir():
        return "a file"
    return ", ".join(sorted(p.name for p in folder.iterdir())) or "an empty folder"
