"""Prepared places, made small enough to travel."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rich
from numpy.typing import NDArray

from citygrain.data.cityraster import CityRaster
from citygrain.data.dataset import find_place
from citygrain.data.raster_folder import draft_folder, lock_folder, recover_folder, write_manifest
from citygrain.errors import ConfigError, DataError
from citygrain.geo import raster_files
from citygrain.geo.geotiff import TILE, GeoTiffWriter
from citygrain.geo.raster_files import COMPLETE
from citygrain.geo.rasterize import Grid
from citygrain.geo.sources import ATTRIBUTION
from citygrain.geo.split import SPLITS, find_block_cells
from citygrain.support.console import show_progress_bar
from citygrain.support.files import hash_file

MB = 1_000_000

TRIES = 4
"""How often places are written, at most, until they are within the limit."""


@dataclass(frozen=True)
class _Candidate:
    """A place that is to be packed, as a whole or in part.

    Attributes
    ----------
    raster
        The prepared place.
    bytes
        `(N,)`, about how many bytes each of its blocks takes when it is packed.
    rank
        `(N,)`, where each of its blocks stands in line, from 0 to 1. The blocks of every split are spread evenly.
    """

    raster: CityRaster
    bytes: NDArray[np.int64]
    rank: NDArray[np.float64]

    @classmethod
    def whole(cls, raster: CityRaster) -> _Candidate:
        """Put all blocks first."""
        return cls(raster, np.zeros(len(raster.blocks), np.int64), np.zeros(len(raster.blocks)))

    @classmethod
    def estimated(cls, raster: CityRaster, resolution_m: float, step: int, seed: int) -> _Candidate:
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
        return cls(raster, np.array(sizes, np.int64), rank)


def pack(
    places: Sequence[str] | None = None,
    *,
    resolution_m: float = 4.0,
    step: int = 15,
    limit_mb: float | None = None,
    seed: int = 0,
    out: str | Path = "out/packed",
    data: str | Path = "data/cities",
) -> list[CityRaster]:
    """Write places again, smaller: with coarser cells, fewer steps of coverage and, if need be, fewer blocks.

    `out` becomes a folder of prepared places like `data`, and can be used in its place. A bar shows the progress.

    Parameters
    ----------
    places
        Names of prepared places under `data`, or folders; None for all places in `data`.
    resolution_m
        Edge of a cell in metres: what a place was prepared at, or twice or four times that.
    step
        Coverage, 0 to 255, is rounded to multiples of it; it divides 255. With 1 coverage stays as it is.
    limit_mb
        Megabytes (of 10⁶ bytes) that all places together may take: as many blocks of every place and split are kept as
        fit. None keeps all blocks.
    seed
        Decides which blocks are kept.
    out
        Folder of the packed places. A place that is there is replaced when the new one is whole.
    data
        Folder of the prepared places.

    Returns
    -------
    list of CityRaster
        The packed places.

    Raises
    ------
    ConfigError
        For a step that does not divide 255, a limit that is not above 0, or an `out` that is `data`.
    DataError
        When there is no place, one is not prepared or has no such resolution, or not a single block fits the limit.
    """
    data, out = Path(data), Path(out)
    if COMPLETE % step if step > 0 else True:
        raise ConfigError("Steps of coverage divide 255.", expected="1, 3, 5, 15, 17, 51, 85", got=step)
    if limit_mb is not None and not (isinstance(limit_mb, int | float) and limit_mb > 0):
        raise ConfigError("A limit is a number of megabytes.", expected="above 0, or null", got=limit_mb)
    if out.resolve() == data.resolve():
        raise ConfigError("A pack is another folder than that of the places.", got=out, remedy="another out=…")
    names = places or sorted(path.parent.name for path in data.glob(f"*/{raster_files.MANIFEST}"))
    rasters = [CityRaster.open(find_place(data, name)) for name in names]
    if not rasters:
        raise DataError("There is nothing to pack.", got=f"no prepared place in {data}", remedy="citygrain prepare")
    if limit_mb is None:
        return _write([_Candidate.whole(raster) for raster in rasters], 1.0, out, resolution_m, step)
    with show_progress_bar("estimating sizes", len(rasters)) as advance:
        candidates = []
        for raster in rasters:
            candidates.append(_Candidate.estimated(raster, resolution_m, step, seed))
            advance(1)
    budget = limit_mb * MB
    for _ in range(TRIES):
        packed = _write(candidates, _share_within(candidates, budget), out, resolution_m, step)
        total = count_bytes(packed)
        if total <= limit_mb * MB:
            return packed
        budget *= 0.98 * limit_mb * MB / total
    rich.print(f"[yellow]over the limit[/]: {total / MB:.1f} MB after {TRIES} tries; a lower limit_mb comes below it")
    return packed


def count_bytes(rasters: Iterable[CityRaster]) -> int:
    """Return how many bytes the GeoTIFFs of city rasters take."""
    return sum(raster.provenance["layout"]["bytes"] for raster in rasters)


def _write(
    candidates: Sequence[_Candidate], share: float, out: Path, resolution_m: float, step: int
) -> list[CityRaster]:
    """Pack the blocks of every place whose rank is at most `share`."""
    with show_progress_bar("packing", len(candidates)) as advance:
        packed = []
        for one in candidates:
            packed.append(pack_place(one.raster, out / one.raster.name, resolution_m, step, one.rank <= share))
            advance(1)
    return packed


def _share_within(candidates: Sequence[_Candidate], budget: float) -> float:
    """Return the rank up to which the blocks of all places together take at most `budget` bytes.

    Raises
    ------
    DataError
        When even the first blocks take more.
    """
    ranks = np.concatenate([one.rank for one in candidates])
    order = np.argsort(ranks, kind="stable")
    taken = np.cumsum(np.concatenate([one.bytes for one in candidates])[order])
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


def pack_place(
    raster: CityRaster, folder: Path, resolution_m: float, step: int, kept: NDArray[np.bool_] | None = None
) -> CityRaster:
    """Write one place again at one of its coarser resolutions; what is there is replaced when the new one is whole.

    Parameters
    ----------
    raster
        The place.
    folder
        The folder of the new city raster.
    resolution_m
        One of `raster.resolutions`.
    step
        Coverage is rounded to multiples of it, of 255.
    kept
        `(N,)`, which of its blocks are kept; the others become cells without data. None keeps all.
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
            layout = draft / raster_files.LAYOUT
            owners = raster.provenance.get("attribution", ATTRIBUTION)
            with GeoTiffWriter(layout, grid, raster.channels, raster_files.LEVELS, owners) as writer:
                for top in range(0, grid.height, TILE):
                    rows = slice(top, min(top + TILE, grid.height))
                    strip = np.zeros((len(raster.channels), rows.stop - top, grid.width), np.uint8)
                    part = level.array[:, rows]
                    strip[:, : part.shape[1], :width] = _stepped(part, step)
                    writer.write(strip * valid[rows], valid[rows])
            blocks.to_parquet(draft / raster_files.BLOCKS)
            manifest = {
                **raster.provenance,
                "resolution_m": resolution_m,
                "grid": {"left_top": [grid.left, grid.top], "width_height": [grid.width, grid.height]},
                "valid_km2": round(float(valid.sum()) * resolution_m**2 / 1e6, 3),
                "layout": {"bytes": layout.stat().st_size, "sha256": hash_file(layout)},
                "packed": {
                    "resolution_m": raster.resolution_m,
                    "sha256": raster.provenance["layout"]["sha256"],
                    "step": step,
                    "blocks": int(kept.sum()),
                    "of": len(kept),
                },
            }
            manifest.pop("request", None)  # prepare must not take it for a raster that it has made
            write_manifest(draft, manifest)
    return CityRaster.open(folder)


def _grid(raster: CityRaster, resolution_m: float) -> Grid:
    """Return the cells of a level, with those to the east and south that its overviews need."""
    level = raster.level(resolution_m)
    most = max(raster_files.LEVELS)
    height, width = (-(-n // most) * most for n in level.valid.shape)
    return Grid(raster.crs, raster.grid.left, raster.grid.top, resolution_m, width, height)


def _stepped(coverage: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Round to multiples of a step."""
    stepped: NDArray[np.uint8] = ((coverage.astype(np.uint16) + step // 2) // step * step).astype(np.uint8)
    return stepped
