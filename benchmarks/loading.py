"""Windows a second: gathered from the decoded level, against read through rasterio, the same windows in the same run.

    python benchmarks/loading.py data/cities/copenhagen [data/cities/los_angeles …] [--resolution 8] [--windows 4096]

One core, one thread; core time is what a window costs where other programs want the core too. A window costs its random
place, position and symmetry, its bytes and their turn, and its part of the batch tensor. "with conditions" adds what a
training step also needs: floats, and every measure. Pages of the decoded level are in memory after a first pass, as
they are in training after the first epoch. All bands are read, known or not, so that the figures are those of nine
channels.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from citygrain.data.cityraster import CityRaster
from citygrain.data.dataset import CityWindows
from citygrain.data.rules import Rules
from citygrain.data.transforms import to_batch, turn
from citygrain.measures import measurable
from citygrain.spec import Batch, LayoutSpec

WANTED = 5000.0
BATCH = 128


class EveryBand(CityWindows):
    """Windows with all bands of the rasters."""

    def __init__(self, rasters: Sequence[CityRaster], rules: Rules) -> None:
        super().__init__(rasters, "train", rules)
        self.channels = self.rasters[0].channels
        self._bands = [slice(0, len(self.channels)) for _ in self.rasters]


def rate(windows: int, work: Callable[[range], object], repeats: int = 3) -> tuple[float, float]:
    """Windows a second, by the clock and by the core's own time, the best of some repeats."""
    best = [np.inf, np.inf]
    for _ in range(repeats):
        clock, core = time.perf_counter(), time.thread_time()
        for start in range(0, windows, BATCH):
            work(range(start, min(start + BATCH, windows)))
        best = [min(best[0], time.perf_counter() - clock), min(best[1], time.thread_time() - core)]
    return windows / best[0], windows / best[1]


def through_rasterio(data: CityWindows, indices: Sequence[int]) -> torch.Tensor:
    rules = data.rules
    where = zip(*(part.tolist() for part in data.locate(indices)), strict=True)
    read = [turn(data.rasters[p].read(r, c, rules.size_px, rules.resolution_m), s) for p, r, c, s in where]
    return torch.from_numpy(np.stack(read))


def with_conditions(data: CityWindows, spec: LayoutSpec, indices: Sequence[int]) -> Batch:
    return to_batch(data.__getitems__(indices), spec)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="+", type=Path, help="folders of city rasters")
    parser.add_argument("--resolution", type=float, default=8.0, help="metres a cell")
    parser.add_argument("--windows", type=int, default=4096, help="windows of 64 px; a sixteenth as many of 256 px")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rasters = [CityRaster.open(place) for place in arguments.places]
    table = Table("window", "way", "windows/s", "windows/s of core time", "MB/s", title="one core, one thread")
    for size in (64, 256):
        windows = arguments.windows if size == 64 else max(BATCH, arguments.windows // 16)
        data = EveryBand(rasters, Rules(size, arguments.resolution))
        channels = data.channels
        spec = LayoutSpec(
            channels, size, arguments.resolution, measurable(channels), places=tuple(r.name for r in rasters)
        )
        few = range(16)
        if not torch.equal(through_rasterio(data, few), data.__getitems__(few).layout):
            raise SystemExit("the two ways do not give the same windows")
        rates = {
            "gathered": rate(windows, data.__getitems__),
            "gathered, with conditions": rate(windows, partial(with_conditions, data, spec)),
            "rasterio": rate(max(BATCH, windows // 16), partial(through_rasterio, data), repeats=2),
        }
        for way, (clock, core) in rates.items():
            mb = clock * len(channels) * size**2 / 1e6
            table.add_row(f"{size} px × {len(channels)}", way, f"{clock:,.0f}", f"{core:,.0f}", f"{mb:,.0f}")
        if size == 64:
            kept, times = rates["gathered"][1] >= WANTED, rates["gathered"][1] / rates["rasterio"][1]
            verdict = (
                f"{'at least' if kept else 'LESS THAN'} {WANTED:,.0f} windows/s of a core; {times:,.0f} × rasterio"
            )
    console = Console()
    console.print(table)
    console.print(verdict)


if __name__ == "__main__":
    main()
