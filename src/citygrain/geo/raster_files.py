"""The files of a city raster: their names, and how they are read.

================  ==================================================================================================
`layout.tif`      uint8 coverage, 255 = the cell is fully covered; a band a channel; UTM; tiles of 512; DEFLATE;
                  overviews ×2 and ×4 by average; a mask: 0 outside the place and where the source has no data
`blocks.parquet`  GeoParquet, the blocks of the split in UTM: split, share of valid cells, measured conditions
`ways.parquet`    GeoParquet, the lines that the channels of ways were drawn from, in UTM: `channel`; packs do not have
                  it, nor rasters that an earlier citygrain prepared
`place.json`      where it came from and how it was drawn; written last, so that a folder without it is not whole
`.cache/`         levels decoded into plain arrays for training, ways merged into strokes; may be deleted at any time
================  ==================================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from citygrain.errors import DataError
from citygrain.geo.layers import RASTER_FORMAT
from citygrain.geo.rasterize import STRIP_ROWS

LAYOUT, BLOCKS, WAYS, MANIFEST, CACHE = "layout.tif", "blocks.parquet", "ways.parquet", "place.json", ".cache"

OVERVIEWS = (2, 4)

LEVELS = (1, *OVERVIEWS)

COMPLETE = 255
"""Value of a fully covered cell."""


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
        raise damaged_error(folder / MANIFEST, error) from error
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
        raise damaged_error(folder / MANIFEST, f"format {got}", f"format {RASTER_FORMAT}")
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
        raise damaged_error(path, error.__cause__ or error) from error


def damaged_error(path: Path, got: object, expected: object = None) -> DataError:
    """Return the error of a file that is not what it should be."""
    return DataError(
        f"{path} is damaged.",
        expected=expected,
        got=got,
        remedy=f"prepare the place again: citygrain prepare place={path.parent.name} raster.replace=true …",
    )
