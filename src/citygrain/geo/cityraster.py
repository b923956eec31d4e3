"""The city raster: a place as one GeoTIFF of coverage, its blocks and its provenance, in one folder.

================  ==================================================================================================
`layout.tif`      uint8 coverage, 255 = the cell is fully covered; a band a channel; UTM; tiles of 512; DEFLATE;
                  overviews ×2 and ×4 by average; a mask: 0 outside the place and where the source has no data
`blocks.parquet`  GeoParquet, the blocks of the split in UTM: split, share of valid cells, measured conditions
`place.json`      where it came from and how it was drawn; written last, so that a folder without it is not whole
`.cache/`         levels decoded into plain arrays for training; may be deleted at any time
================  ==================================================================================================

How the folder is written, whole or not at all: `citygrain.geo.raster_folder`.
"""

from __future__ import annotations

import json
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from citygrain.errors import DataError
from citygrain.geo import split as splitting
from citygrain.geo.layers import RASTER_FORMAT
from citygrain.geo.rasterize import STRIP_ROWS, Grid

LAYOUT, BLOCKS, MANIFEST, CACHE = "layout.tif", "blocks.parquet", "place.json", ".cache"

OVERVIEWS = (2, 4)
LEVELS = (1, *OVERVIEWS)

COMPLETE = 255
"""Value of a fully covered cell."""


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
            raise _damaged_error(folder / MANIFEST, f"{type(error).__name__}: {error}") from error
        raster._check()
        return raster

    def _check(self) -> None:
        """Compare the raster with what `place.json` says of it."""
        expected = self.provenance["layout"]["bytes"]
        got = (self.path / LAYOUT).stat().st_size if (self.path / LAYOUT).is_file() else "no file"
        if got != expected:
            raise _damaged_error(self.path / LAYOUT, f"{got} bytes", f"{expected} bytes")
        with open_level(self.path / LAYOUT) as tif:
            found = (tuple(tif.descriptions), tif.width, tif.height, tuple(tif.overviews(1)))
            promised = (self.channels, self.grid.width, self.grid.height, OVERVIEWS)
            if found != promised:
                raise _damaged_error(self.path / LAYOUT, found, f"{promised} (bands, width, height, overviews)")
        if not (self.path / BLOCKS).is_file():
            raise _damaged_error(self.path / BLOCKS, "no file")

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
            raise _damaged_error(self.path / BLOCKS, error) from error

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
            raise _damaged_error(files[1], "no array")
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


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the folder's `place.json`, None when there is none and so no whole city raster.

    Raises
    ------
    DataError
        When it is there and damaged.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise _damaged_error(folder / MANIFEST, error) from error
    form = manifest.get("format") if isinstance(manifest, dict) else None
    if isinstance(form, int) and form > RASTER_FORMAT:
        raise DataError(
            f"{folder} was prepared by a later citygrain.",
            expected=f"format {RASTER_FORMAT}",
            got=f"format {form}",
            remedy=f"prepare the place again: citygrain prepare place={folder.name} … raster.replace=true; "
            "or use that version",
        )
    if form in range(1, RASTER_FORMAT):
        raise DataError(
            f"{folder} was prepared by an earlier citygrain, and must be prepared again: its channels hold something "
            "else.",
            expected=f"format {RASTER_FORMAT}: squares and service roads in channels of their own",
            got=f"format {form}",
            remedy=f"prepare the place again: citygrain prepare place={folder.name} … raster.replace=true",
        )
    if not isinstance(manifest, dict) or manifest.get("format") != RASTER_FORMAT:
        got = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise _damaged_error(folder / MANIFEST, f"format {got}", f"format {RASTER_FORMAT}")
    return manifest


def read_strips(path: Path, factor: int = 1) -> Iterator[tuple[slice, NDArray[np.bool_], NDArray[np.uint8]]]:
    """Read a `layout.tif` from the top: yields rows, valid cells `(h, W)` and coverage `(C, h, W)`, 0 where not valid.

    Raises
    ------
    DataError
        When the file is damaged.
    """
    with open_level(path, factor) as tif:
        for row in range(0, tif.height, STRIP_ROWS):
            window = Window(0, row, tif.width, min(STRIP_ROWS, tif.height - row))
            valid = tif.dataset_mask(window=window) > 0
            yield slice(row, row + len(valid)), valid, tif.read(window=window)


@contextmanager
def open_level(path: Path, factor: int = 1) -> Iterator[rasterio.DatasetReader]:
    """Open a level of a GeoTIFF for reading.

    Raises
    ------
    DataError
        When it cannot be read, now or in the `with` block.
    """
    options = {"overview_level": OVERVIEWS.index(factor)} if factor != 1 else {}
    try:
        with rasterio.open(path, **options) as tif:
            yield tif
    except RasterioError as error:
        raise _damaged_error(path, error.__cause__ or error) from error


def _list_folder(folder: Path) -> str:
    if not folder.exists():
        return "nothing"
    if not folder.is_dir():
        return "a file"
    return ", ".join(sorted(p.name for p in folder.iterdir())) or "an empty folder"


def _damaged_error(path: Path, got: object, expected: object = None) -> DataError:
    return DataError(
        f"{path} is damaged.",
        expected=expected,
        got=got,
        remedy=f"prepare the place again: citygrain prepare place={path.parent.name} raster.replace=true …",
    )
