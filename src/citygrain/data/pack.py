"""Prepared places, made small enough to travel: the verb `pack`."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from citygrain.errors import DataError
from citygrain.geo import cityraster
from citygrain.geo.cityraster import CityRaster
from citygrain.geo.geotiff import TILE, GeoTiffWriter
from citygrain.geo.raster_folder import draft_folder, lock_folder, recover_folder, write_manifest
from citygrain.geo.rasterize import Grid
from citygrain.geo.sources import ATTRIBUTION
from citygrain.geo.split import SPLITS, find_block_cells
from citygrain.support.files import sha256

MB = 1_000_000


@dataclass(frozen=True)
class Place:
    """A place to be packed.

    Attributes
    ----------
    raster
        As it was prepared.
    bytes
        About what each of its blocks takes when it is packed.
    rank
        Where each of its blocks stands in line, from 0 to 1, those of every split evenly.
    """

    raster: CityRaster
    bytes: NDArray[np.int64]
    rank: NDArray[np.float64]


def estimated(raster: CityRaster, resolution_m: float, step: int, seed: int) -> Place:
    """Compress each block by itself, and put the blocks of each split in line by chance."""
    level, blocks = raster.level(resolution_m), raster.blocks
    grid = _grid(raster, resolution_m)
    sizes = [
        sum(len(zlib.compress(_stepped(band[window], step).tobytes(), 6)) for band in level.array)
        for window in find_block_cells(blocks, grid)
    ]
    chance = np.random.default_rng(seed)
    rank = np.zeros(len(blocks))
    for split in SPLITS:
        (of,) = np.nonzero(blocks["split"].to_numpy() == split)
        rank[chance.permutation(of)] = np.arange(len(of)) / max(1, len(of))
    return Place(raster, np.array(sizes, np.int64), rank)


def share_within(places: Sequence[Place], budget: float) -> float:
    """Return the rank up to which all places' blocks take less than so many bytes.

    Raises
    ------
    DataError
        When even the first blocks take more.
    """
    ranks = np.concatenate([place.rank for place in places])
    order = np.argsort(ranks, kind="stable")
    taken = np.cumsum(np.concatenate([place.bytes for place in places])[order])
    fitting = int(np.searchsorted(taken, budget, side="right"))
    within = ranks[order][:fitting]
    # Blocks of the same rank go together or not at all: no place is to be left out for its name.
    if fitting < len(order):
        within = within[within < ranks[order][fitting]]
    if not len(within):
        raise DataError(
            "Not a single block of each place fits.",
            expected=f"more than {taken[np.count_nonzero(ranks == 0) - 1] / MB:.1f} MB",
            got=f"{budget / MB:.1f} MB",
            remedy="a larger limit_mb, fewer places, a coarser resolution_m or a larger step",
        )
    return float(within.max())


def pack(
    raster: CityRaster, folder: Path, resolution_m: float, step: int, kept: NDArray[np.bool_] | None = None
) -> CityRaster:
    """Write a place again at one of its coarser resolutions; what is there is replaced when the new one is whole.

    Parameters
    ----------
    raster
        The place.
    folder
        Where to; a folder of the same contract.
    resolution_m
        One of `raster.resolutions`.
    step
        Coverage is rounded to multiples of it, of 255.
    kept
        Which of its blocks; the others are as if the source had no data there. None keeps all.
    """
    level, grid, blocks = raster.level(resolution_m), _grid(raster, resolution_m), raster.blocks.copy()
    kept = np.ones(len(blocks), bool) if kept is None else kept
    valid = np.zeros((grid.height, grid.width), bool)
    height, width = level.valid.shape
    for window, keep in zip(find_block_cells(blocks, grid), kept, strict=True):
        valid[window] |= keep
    valid[:height, :width] &= level.valid
    blocks.loc[~kept, "valid"] = 0.0
    folder.parent.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder):
        recover_folder(folder)
        with draft_folder(folder) as draft:
            layout = draft / cityraster.LAYOUT
            owners = raster.provenance.get("attribution", ATTRIBUTION)
            with GeoTiffWriter(layout, grid, raster.channels, cityraster.LEVELS, owners) as writer:
                for top in range(0, grid.height, TILE):
                    rows = slice(top, min(top + TILE, grid.height))
                    strip = np.zeros((len(raster.channels), rows.stop - top, grid.width), np.uint8)
                    part = level.array[:, rows]
                    strip[:, : part.shape[1], :width] = _stepped(part, step)
                    writer.write(strip * valid[rows], valid[rows])
            blocks.to_parquet(draft / cityraster.BLOCKS)
            manifest = {
                **raster.provenance,
                "resolution_m": resolution_m,
                "grid": {"left_top": [grid.left, grid.top], "width_height": [grid.width, grid.height]},
                "valid_km2": round(float(valid.sum()) * resolution_m**2 / 1e6, 3),
                "layout": {"bytes": layout.stat().st_size, "sha256": sha256(layout)},
                "packed": {
                    "resolution_m": raster.resolution_m,
                    "sha256": raster.provenance["layout"]["sha256"],
                    "step": step,
                    "blocks": int(kept.sum()),
                    "of": len(kept),
                },
            }
            manifest.pop("request", None)  # prepare is not to take it for its own
            write_manifest(draft, manifest)
    return CityRaster.open(folder)


def _grid(raster: CityRaster, resolution_m: float) -> Grid:
    """Cells of a level, with as many more to the east and south as overviews take."""
    level = raster.level(resolution_m)
    most = max(cityraster.LEVELS)
    height, width = (-(-n // most) * most for n in level.valid.shape)
    return Grid(raster.crs, raster.grid.left, raster.grid.top, resolution_m, width, height)


def _stepped(coverage: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Round to multiples of a step."""
    stepped: NDArray[np.uint8] = ((coverage.astype(np.uint16) + step // 2) // step * step).astype(np.uint8)
    return stepped
