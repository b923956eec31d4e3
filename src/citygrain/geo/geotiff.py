"""Write a GeoTIFF of coverage with its mask and overviews in one pass, from the top, in little memory.

Each strip is averaged and compressed while the next one is drawn. Averages are exact at every level (of the cells that
are valid, rounded without bias), empty tiles take no room, and a full disk is an `OSError` at once. The file is an
ordinary tiled GeoTIFF, a BigTIFF only beyond 4 GB, and its bytes depend on no version of GDAL.

GDAL writes such a file in three passes (cells, mask, overviews), in 1.6 times the time. It rounds halves up,
and where the disk fills in the last pass it may raise no error (`benchmarks/geotiff.py`).

References
----------
TIFF 6.0 (Adobe, 1992); OGC GeoTIFF 1.1 (19-008r4); the GDAL manual on internal masks and sparse files.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from citygrain.geo.rasterize import STRIP_ROWS, Grid

TILE = STRIP_ROWS

SHORT, LONG, ASCII, DOUBLE, LONG8 = 3, 4, 2, 12, 16
FORMAT = {SHORT: "H", LONG: "I", DOUBLE: "d", LONG8: "Q"}

CLASSIC_LIMIT = 2**32 - 2**24
"""Where the tiles of a classic TIFF, with 32-bit offsets, must end; the rest is for its directories."""

HEADER_BYTES = 16

_Place = tuple[NDArray[np.uint64], tuple[int, int, int]]

Tags = dict[int, tuple[int, Sequence[int] | Sequence[float] | bytes]]


class GeoTiffWriter:
    """Write a grid of coverage strip by strip; a context manager.

    Parameters
    ----------
    path
        The file.
    grid
        The cells.
    channels
        Names of the bands: words without `<`, `>` or `&`.
    factors
        1 and the overviews: powers of two that divide the grid's edges.
    notice
        Copyright, kept in the file.
    workers
        Threads that average and compress. The file does not depend on it.
    """

    def __init__(
        self, path: Path, grid: Grid, channels: Sequence[str], factors: Sequence[int], notice: str, workers: int = 1
    ) -> None:
        self.path, self.channels, self.notice, self.workers = path, tuple(channels), notice, workers
        self.levels = [_Level(grid.coarser(f), f, len(self.channels)) for f in factors]
        self.pending: deque[tuple[_Place, Future[bytes]]] = deque()

    def __enter__(self) -> Self:
        self.file = self.path.open("wb")
        self.file.write(bytes(HEADER_BYTES))  # written last
        self.pool = ThreadPoolExecutor(self.workers)
        return self

    def write(self, strip: NDArray[np.uint8], valid: NDArray[np.bool_]) -> None:
        """Append coverage `(C, h, W)`, 0 where not `valid`, `(h, W)`; every strip but the last has `TILE` rows.

        The arrays must not be changed afterwards.

        Raises
        ------
        OSError
            When the disk is full.
        """
        ready = len(self.pending)  # compressed while this strip was drawn
        for level in self.levels:
            for place, cells in level.append(strip, valid, self.pool):
                self.pending.append((place, self.pool.submit(_compress, cells)))
        self._store(ready)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None:
                self._store(len(self.pending))
                self._finish()
        finally:
            self.pool.shutdown(cancel_futures=True)
            self.file.close()

    def _store(self, count: int) -> None:
        """Write this many of the compressed tiles, in the order in which they were cut."""
        for _ in range(count):
            (directory, index), job = self.pending.popleft()
            data = job.result()
            if data:
                directory[0][index], directory[1][index] = self.file.tell(), len(data)
                self.file.write(data)

    def _finish(self) -> None:
        """Write the directories, levels before masks, then the header."""
        big = self.file.tell() > CLASSIC_LIMIT
        link = 8 if big else 4  # where the place of the next directory is noted
        for tags in [
            *(level.image_tags(self.channels, self.notice, big) for level in self.levels),
            *(level.mask_tags(big) for level in self.levels),
        ]:
            link = self._directory(tags, link, big)
        self.file.seek(0)
        self.file.write(struct.pack("<2s3H", b"II", 43, 8, 0) if big else struct.pack("<2sH", b"II", 42))

    def _directory(self, tags: Tags, link: int, big: bool) -> int:
        """Append a directory and point `link` to it; return where its own link to the next one is."""
        word, word_bytes = ("Q", 8) if big else ("I", 4)
        entries = b""
        for tag, (kind, values) in sorted(tags.items()):
            data = values if isinstance(values, bytes) else struct.pack(f"<{len(values)}{FORMAT[kind]}", *values)
            if len(data) > word_bytes:
                data = struct.pack(f"<{word}", self._append(data))
            entries += struct.pack(f"<HH{word}", tag, kind, len(values)) + data.ljust(word_bytes, b"\0")
        body = struct.pack("<Q" if big else "<H", len(tags)) + entries
        start = self._append(body + bytes(word_bytes))
        self.file.seek(link)
        self.file.write(struct.pack(f"<{word}", start))
        self.file.seek(0, os.SEEK_END)
        return start + len(body)

    def _append(self, data: bytes) -> int:
        """Write at the next multiple of eight bytes; return where that is."""
        self.file.write(bytes(-self.file.tell() % 8))
        position = self.file.tell()
        self.file.write(data)
        return position


class _Level:
    """One resolution of the file: the rows that wait for a full row of tiles, and where the tiles went.

    The valid cells travel as one more band.
    """

    def __init__(self, grid: Grid, factor: int, bands: int) -> None:
        self.grid, self.factor, self.bands = grid, factor, bands
        self.across, self.down = (-(-n // TILE) for n in (grid.width, grid.height))
        self.image, self.mask = (np.zeros((2, n, self.down, self.across), np.uint64) for n in (bands, 1))
        self.rows = 0
        self._clear()

    def _clear(self) -> None:
        self.waiting = np.zeros((self.bands + 1, TILE, self.across * TILE), np.uint8)  # zeros at the right and bottom

    def append(
        self, strip: NDArray[np.uint8], valid: NDArray[np.bool_], pool: ThreadPoolExecutor
    ) -> Iterator[tuple[_Place, NDArray[np.uint8]]]:
        """Average a strip into this level; yield the tiles that it completes."""
        f, row = self.factor, self.rows % TILE
        rows = slice(row, row + strip.shape[1] // f)
        target = self.waiting[:, rows, : self.grid.width]
        count = None if valid.all() else _sum_squares(valid, f)
        for mean, out in zip(pool.map(lambda band: _average(band, f, count), strip), target[:-1], strict=True):
            out[:] = mean
        target[-1] = 1 if count is None else 2 * count >= f * f
        self.rows += strip.shape[1] // f
        if rows.stop < TILE and self.rows < self.grid.height:
            return
        down, cells = (self.rows - 1) // TILE, self.waiting
        self._clear()
        for across in range(self.across):
            columns = slice(across * TILE, (across + 1) * TILE)
            for band in range(self.bands):
                yield (self.image, (band, down, across)), cells[band, :, columns]
            yield (self.mask, (0, down, across)), np.packbits(cells[-1, :, columns], axis=1)

    def image_tags(self, channels: Sequence[str], notice: str, big: bool) -> Tags:
        """Return the directory of the coverage."""
        n = self.bands
        tags = self._tags(self.image, reduced=self.factor > 1, big=big) | {
            258: (SHORT, [8] * n),
            262: (SHORT, [1]),  # zero is black
            277: (SHORT, [n]),
            284: (SHORT, [2]),  # a band after the other: a window reads the channels it needs
            338: (SHORT, [0] * (n - 1)),  # the bands beyond the first have no colour
            339: (SHORT, [1] * n),  # unsigned
        }
        if n == 1:
            del tags[338]
        if self.factor > 1:
            return tags
        names = "".join(
            f'<Item name="DESCRIPTION" sample="{i}" role="description">{c}</Item>' for i, c in enumerate(channels)
        )
        grid, r = self.grid, self.grid.resolution_m
        keys = [(1024, 0, 1, 1), (1025, 0, 1, 1), (3072, 0, 1, int(grid.crs.removeprefix("EPSG:"))), (3076, 0, 1, 9001)]
        return tags | {
            33432: (ASCII, notice.encode() + b"\0"),
            33550: (DOUBLE, [r, r, 0.0]),
            33922: (DOUBLE, [0.0, 0.0, 0.0, grid.left, grid.top, 0.0]),
            34735: (SHORT, [1, 1, 0, len(keys), *(v for key in keys for v in key)]),  # projected, area, EPSG, metres
            42112: (ASCII, f"<GDALMetadata>{names}</GDALMetadata>".encode() + b"\0"),
        }

    def mask_tags(self, big: bool) -> Tags:
        """Return the directory of the valid cells, a bit each."""
        return self._tags(self.mask, reduced=self.factor > 1, big=big, mask=True) | {
            258: (SHORT, [1]),
            262: (SHORT, [4]),
            277: (SHORT, [1]),
            284: (SHORT, [1]),
        }

    def _tags(self, tiles: NDArray[np.uint64], *, reduced: bool, big: bool, mask: bool = False) -> Tags:
        word = LONG8 if big else LONG
        return {
            254: (LONG, [reduced + 4 * mask]),
            256: (LONG, [self.grid.width]),
            257: (LONG, [self.grid.height]),
            259: (SHORT, [8]),  # deflate
            322: (LONG, [TILE]),
            323: (LONG, [TILE]),
            324: (word, tiles[0].ravel().tolist()),
            325: (word, tiles[1].ravel().tolist()),
        }


def _sum_squares(cells: NDArray[Any], factor: int) -> NDArray[np.uint16]:
    """Sum squares of factor × factor cells, whole rows first: ten times faster than reducing a reshaped view."""
    rows = cells[::factor].astype(np.uint16)
    for i in range(1, factor):
        rows += cells[i::factor]
    sums = rows[:, ::factor].copy()
    for i in range(1, factor):
        sums += rows[:, i::factor]
    return sums


def _average(band: NDArray[np.uint8], factor: int, count: NDArray[np.uint16] | None) -> NDArray[np.uint8]:
    """Average the valid cells of every square, halves to the even neighbour; `count` of them, None for all."""
    if factor == 1 or not band.any():
        return band[::factor, ::factor]
    sums = _sum_squares(band, factor)
    if count is not None:
        half = 2 * count.astype(np.uint32) >= factor**2
        return np.where(half, np.rint(sums / np.maximum(count, 1)), 0).astype(np.uint8)
    bits = (factor * factor).bit_length() - 1
    sums += (sums >> bits & 1) + np.uint16((1 << bits) // 2 - 1)
    return (sums >> bits).astype(np.uint8)


def _compress(cells: NDArray[np.uint8]) -> bytes:
    """Deflate a tile; nothing for an empty one.

    Coverage is runs of 0 and 255 with a few values between: matching runs alone is faster than level 1 and smaller than
    level 6.
    """
    if not cells.any():
        return b""
    packer = zlib.compressobj(level=1, strategy=zlib.Z_RLE)
    return packer.compress(cells.tobytes()) + packer.flush()
