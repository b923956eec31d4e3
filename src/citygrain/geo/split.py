"""Cut a place into blocks and deal them out to train, validation and test.

Windows drawn at random from one map overlap; tiles drawn at random touch. Either way a model has seen the next street
of what it is judged on. Here whole blocks are held out, and train windows keep a buffer's distance from them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray

from citygrain.errors import DataError
from citygrain.geo.rasterize import Grid

SPLITS = ("train", "val", "test")
WHOLE = "all"
"""Name of a split that is the whole place, with nothing held out: for comparing places."""

BLOCK_M = 2000.0
BUFFER_M = 128.0
"""About one street block beyond the edge of a held-out block: no building or street corner is shared."""

FEWEST_BLOCKS = 12
"""A place that is too small for this many blocks of the wanted size gets smaller blocks."""

GROUP = 10
"""Of this many neighbouring blocks that are built up alike, one is held out for validation and one for the test."""

USABLE_VALID, USABLE_BUILT = 0.5, 0.005
"""A block is worth holding out when half of it has data and this share of that is building or street."""

BUFFER_SHARE = 1 / 8
"""The buffer is at most this share of a block's edge."""

SMALLEST_BLOCK_CELLS = 8


@dataclass(frozen=True)
class Split:
    """Blocks with their split.

    Parameters
    ----------
    blocks
        Columns `geometry` (squares, or nearly so, in the grid's CRS), `split`, `valid` (share of cells with data).
    block_m
        Edge of a block in metres, about.
    buffer_m
        Distance from held-out blocks that train windows keep, in metres.
    """

    blocks: gpd.GeoDataFrame
    block_m: float
    buffer_m: float


def split_blocks(
    valid: NDArray[np.floating],
    built: NDArray[np.floating],
    grid: Grid,
    block_m: float = BLOCK_M,
    buffer_m: float = BUFFER_M,
    seed: int = 0,
    source: str = "",
) -> Split:
    """Cut a grid into blocks and deal them out, about 80 % train, 10 % val, 10 % test.

    Blocks are rectangles of whole cells, as near to squares of `block_m` as divides the grid evenly. Where that gives
    fewer than 12 usable blocks (half of it has data, and some of that is built), blocks shrink until there are 12; the
    buffer shrinks to an eighth of a block. Usable blocks are ordered by how built up they are (three classes), within a
    class along a Z-order curve through the place, and cut into groups of about ten; in each group, chance picks one for
    `val` and one for `test`. So the splits see the same mix of dense and open, all over the place. Blocks that are not
    usable are `train`; blocks without any data are left out.

    Parameters
    ----------
    valid
        `(H, W)` share of each cell of the grid that has data, in [0, 1].
    built
        `(H, W)` share of each cell that is building or street, 0 where there is no data.
    grid
        The coarsest grid that windows are cut from: edges of blocks and buffers are edges of its cells.
    block_m, buffer_m
        Wanted edge and buffer in metres.
    seed
        Decides which blocks are held out.
    source
        Where the place's features came from, in words, for the error.

    Raises
    ------
    DataError
        When sizes are no sizes, or the place has no three usable blocks however small.
    """
    if not (block_m > 0 and buffer_m >= 0):
        raise DataError(
            "Blocks and buffers are lengths in metres.",
            expected="raster.block_m > 0 and raster.buffer_m >= 0",
            got=f"block_m={block_m:g}, buffer_m={buffer_m:g}",
        )
    edge = max(block_m / grid.resolution_m, SMALLEST_BLOCK_CELLS)
    while True:
        rows, cols = (_cut_evenly(n, edge) for n in (grid.height, grid.width))
        cells = np.outer(np.diff(rows), np.diff(cols))
        v = _sum_blocks(valid, rows, cols)
        density = _sum_blocks(built, rows, cols) / np.maximum(v, 1e-9)
        usable = (v >= USABLE_VALID * cells) & (density >= USABLE_BUILT)
        if usable.sum() >= FEWEST_BLOCKS or edge <= SMALLEST_BLOCK_CELLS:
            break
        edge = max(edge * 0.9, SMALLEST_BLOCK_CELLS)
    if usable.sum() < len(SPLITS):
        raise DataError(
            "This place is too small, or too empty, to be split into train, val and test.",
            expected=f"at least {len(SPLITS)} blocks of {SMALLEST_BLOCK_CELLS} × {SMALLEST_BLOCK_CELLS} cells of "
            f"{grid.resolution_m:g} m, half covered by the source's data and with some street or building in it",
            got=f"{int(usable.sum())} such blocks{f' in {source}' if source else ''}",
            remedy="take a larger place, a finer resolution, or a source that covers it",
        )
    names = _deal_blocks(usable, density, np.random.default_rng(seed))
    i, j = np.nonzero(v > 0)
    r = grid.resolution_m
    table = gpd.GeoDataFrame(
        {"split": names[i, j], "valid": (v / cells)[i, j]},
        geometry=shapely.box(
            grid.left + cols[j] * r, grid.top - rows[i + 1] * r, grid.left + cols[j + 1] * r, grid.top - rows[i] * r
        ),
        crs=grid.crs,
    )
    edge_m = math.sqrt(float(cells.mean())) * r
    buffer = min(buffer_m, edge_m * BUFFER_SHARE)
    return Split(table, round(edge_m, 1), math.ceil(buffer / r - 1e-9) * r)


def mask_split(blocks: gpd.GeoDataFrame, grid: Grid, split: str, buffer_m: float) -> NDArray[np.bool_]:
    """Return the cells on which a window of a split may lie, `(H, W)`.

    A window is allowed when all its cells are. For `train` these are the train blocks without the cells nearer than
    `buffer_m`, along either axis, to a block of another split; for `val` and `test` the blocks themselves; for `all`
    every cell.

    Raises
    ------
    DataError
        When the split is unknown.
    """
    if split == WHOLE:
        return np.ones((grid.height, grid.width), bool)
    if split not in SPLITS:
        raise DataError("There is no such split.", got=split, choices=(*SPLITS, WHOLE))
    mask = np.zeros((grid.height, grid.width), bool)
    for window in find_block_cells(blocks[blocks["split"] == split], grid):
        mask[window] = True
    if split == "train":
        for window in find_block_cells(blocks[blocks["split"] != split], grid, buffer_m):
            mask[window] = False
    return mask


def find_block_cells(blocks: gpd.GeoDataFrame, grid: Grid, buffer_m: float = 0.0) -> list[tuple[slice, slice]]:
    """Return the rows and columns of each block, grown by the buffer, rounded outwards."""
    left, bottom, right, top = (v.to_numpy() for _, v in blocks.geometry.bounds.items())
    r, slack = grid.resolution_m, 1e-6
    first_row = np.floor((grid.top - top - buffer_m) / r + slack).astype(int)
    last_row = np.ceil((grid.top - bottom + buffer_m) / r - slack).astype(int)
    first_col = np.floor((left - buffer_m - grid.left) / r + slack).astype(int)
    last_col = np.ceil((right + buffer_m - grid.left) / r - slack).astype(int)
    return [
        (slice(max(a, 0), b), slice(max(c, 0), d))
        for a, b, c, d in zip(first_row, last_row, first_col, last_col, strict=True)
    ]


def _cut_evenly(cells: int, edge: float) -> NDArray[np.int64]:
    """Where to cut this many cells into equal pieces of about `edge`."""
    pieces = max(1, round(cells / edge))
    return np.linspace(0, cells, pieces + 1).round().astype(np.int64)


def _sum_blocks(values: NDArray[np.floating], rows: NDArray[np.int64], cols: NDArray[np.int64]) -> NDArray[np.float64]:
    sums = np.add.reduceat(values, rows[:-1], axis=0, dtype=np.float64)
    return np.add.reduceat(sums, cols[:-1], axis=1)


def _deal_blocks(
    usable: NDArray[np.bool_], density: NDArray[np.float64], chance: np.random.Generator
) -> NDArray[np.object_]:
    names = np.full(usable.shape, "train", object)
    i, j = np.nonzero(usable)
    classes = np.searchsorted(np.quantile(density[i, j], [1 / 3, 2 / 3]), density[i, j])
    order = np.lexsort((_order_along_curve(i, j), classes))
    for group in np.array_split(order, max(1, round(len(order) / GROUP))):
        val, test = chance.choice(group, 2, replace=False)
        names[i[val], j[val]] = "val"
        names[i[test], j[test]] = "test"
    return names


def _order_along_curve(i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.int64]:
    """Interleave the bits of row and column: cells near each other get numbers near each other."""
    key = np.zeros_like(i)
    for bit in range(16):
        key |= ((i >> bit) & 1) << (2 * bit + 1) | ((j >> bit) & 1) << (2 * bit)
    return key
