"""Opening layouts: GeoTIFFs, folders that `Layouts.save` wrote, and prepared places."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from citygrain.errors import DataError
from citygrain.geo.drawn_ways import read_ways
from citygrain.geo.layout_files import find_layouts, name_layout, read_layout
from citygrain.geo.raster_files import LAYOUT, read_manifest
from citygrain.geo.rasterize import Grid
from citygrain.layouts import ARRAYS, TABLE, Layouts
from citygrain.measures import TOLERANCE


def open_layout(path: str | Path, *, bounds: Sequence[float] | None = None) -> Layouts:
    """Open layouts: a GeoTIFF of coverage with named bands, a folder that `Layouts.save` wrote, or a prepared place.

    Parameters
    ----------
    path
        The file or folder. From a folder of layouts, seeds and requested values are read, too.
    bounds
        `(left, bottom, right, top)` in the CRS of the file: only this part is read.

    Raises
    ------
    DataError
        When there is no layout, or it has no square grid in metres, no names of bands, or too many cells; or when
        layouts differ in size.

    Examples
    --------
    >>> citygrain.open_layout("out/sample/layouts/layout_0000.tif").graph("drive")  # doctest: +SKIP
    """
    path = Path(path)
    files = _order(find_layouts(path), path / TABLE)
    found = [_known_channels(file, *read_layout(file, bounds)) for file in files]
    kinds = {(channels, cells.shape, grid.resolution_m) for cells, channels, grid in found}
    if len(kinds) > 1:
        raise DataError(
            f"The layouts in {path} are of several kinds.",
            expected="one size, one resolution, the same channels",
            got="; ".join(f"{shape} at {cell:g} m: {', '.join(names)}" for names, shape, cell in sorted(kinds)),
            remedy="open them one by one",
        )
    channels, _, resolution_m = kinds.pop()
    names = tuple(map(name_layout, files))
    ways = [read_ways(file.parent, name, grid) for file, name, (_, _, grid) in zip(files, names, found, strict=True)]
    layouts = Layouts(
        np.stack([_as_bytes(file, cells) for file, (cells, _, _) in zip(files, found, strict=True)]),
        channels,
        resolution_m,
        tuple(grid for _, _, grid in found),
        names,
        ways=tuple(ways) if any(ways) else (),
    )
    return replace(layouts, **_asked(path / ARRAYS, layouts)) if path.is_dir() else layouts


def _known_channels(
    file: Path, cells: NDArray[Any], channels: tuple[str, ...], grid: Grid
) -> tuple[NDArray[Any], tuple[str, ...], Grid]:
    """Leave out channels that the source of a prepared place cannot know; their 0 does not mean "nothing is there"."""
    manifest = read_manifest(file.parent) if file.name == LAYOUT else None
    known = [i for i, name in enumerate(channels) if manifest is None or name not in manifest["unknown"]]
    return cells[known], tuple(channels[i] for i in known), grid


def _order(files: list[Path], table: Path) -> list[Path]:
    """Return GeoTIFFs in the order in which they were saved, which stands in the table beside them."""
    try:
        with table.open(encoding="utf-8", newline="") as text:
            saved = [row[0] for row in csv.reader(text) if row][1:]
    except (OSError, ValueError, csv.Error):
        return files
    return sorted(files, key=lambda file: saved.index(file.stem)) if {f.stem for f in files} == {*saved} else files


def _as_bytes(file: Path, cells: NDArray[Any]) -> NDArray[np.uint8]:
    """Return coverage as bytes, from bytes or from shares in [0, 1].

    Raises
    ------
    DataError
        For other values.
    """
    if cells.dtype == np.uint8:
        return cells
    low, high = float(np.min(cells)), float(np.max(cells))  # NaN, where one of them is
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
        raise DataError(
            f"The values in {file} are no coverage.",
            expected="0 to 255 in uint8, or shares from 0 to 1",
            got=f"{low:g} to {high:g} in {cells.dtype}",
        )
    whole: NDArray[np.uint8] = (np.clip(cells, 0, 1).astype(float) * 255).round().astype(np.uint8)
    return whole


def _asked(path: Path, layouts: Layouts) -> dict[str, Any]:
    """Read seeds, requests and format from the file beside GeoTIFFs; nothing if the file is of other layouts."""
    try:
        with np.load(path) as file:
            if not np.array_equal(file["layouts"], layouts.cells):
                return {}
            requested = {
                name.removeprefix("requested_"): file[name] for name in file.files if name.startswith("requested_")
            }
            seeds = tuple(map(int, file["seeds"]))
            raster_format = int(file["raster_format"]) if "raster_format" in file else 1
            return {"seeds": seeds, "requested": requested, "raster_format": raster_format}
    except (OSError, KeyError, ValueError, BadZipFile):
        return {}
