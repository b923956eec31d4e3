"""Many layouts, made and measured part by part: memory does not limit their number, and an interruption loses one part.

A part is a file in the folder of the evaluation. It holds layouts, their measures, their points in the embedding, and a
coarse picture of each. A part that is there is not made again.
"""

from __future__ import annotations

import math
import multiprocessing
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from citygrain.evaluation.embedding import LayoutEmbedding
from citygrain.evaluation.form import Form
from citygrain.evaluation.morphology import measure_form
from citygrain.geo.rasterize import Grid
from citygrain.support.console import show_progress_bar
from citygrain.support.files import write_atomically

PART = 256
"""Layouts of a part."""

COARSE_PX = 16
"""Cells a side of a coarse picture."""

_MEASURED, _SAMPLE = "measured_", "sample_"

SOMEWHERE = "EPSG:32631"
"""Form does not depend on where a layout lies; its features need some CRS in metres."""

Cells = NDArray[np.uint8]
"""`(N, C, H, W)`, coverage 0–255."""

Arrays = dict[str, Any]
"""Arrays by name, as a `.npz` holds them."""


@dataclass(frozen=True)
class Gathered:
    """What is known of N layouts.

    Attributes
    ----------
    values
        Measure → `(N,)` in its unit; NaN where there is nothing to measure.
    samples
        What the medians are medians of, all layouts together, see `citygrain.evaluation.form.Form`.
    points
        `(N, D)` in the embedding; D is 0 without one.
    coarse
        `(N, C, h, w)` in [0, 1].
    parts
        The files, in order, which hold the layouts.
    """

    values: dict[str, NDArray[np.float64]]
    samples: dict[str, NDArray[np.float64]]
    points: NDArray[np.float32]
    coarse: NDArray[np.float32]
    parts: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.points)

    def layouts(self, count: int | None = None) -> Cells:
        """Return the first layouts, `(n, C, H, W)`, 0–255; all by default."""
        needed = math.ceil((len(self) if count is None else count) / PART)
        return np.concatenate([_layouts(path) for path in self.parts[:needed]])[:count]

    def chosen(self, index: Sequence[int]) -> Cells:
        """Return some layouts, `(n, C, H, W)`, 0–255."""
        part, position = np.divmod(np.asarray(index), PART)
        layouts = np.empty((len(part), *_layouts(self.parts[0]).shape[1:]), np.uint8)
        for which in np.unique(part):
            layouts[part == which] = _layouts(self.parts[which])[position[part == which]]
        return layouts


def _layouts(path: Path) -> Cells:
    with np.load(path) as file:
        layouts: Cells = file["layouts"]
        return layouts


def coarsen(layouts: Tensor) -> NDArray[np.float32]:
    """Average layouts `(N, C, H, W)` to `COARSE_PX` cells a side."""
    coarse: NDArray[np.float32] = F.adaptive_avg_pool2d(layouts, COARSE_PX).numpy()
    return coarse


def measure_window(layout: Cells, *, channels: Sequence[str], resolution_m: float, service: bool = False) -> Form:
    """Measure one layout `(C, H, W)`."""
    return measure_form(layout, channels, grid_of(layout, resolution_m), service=service)


def grid_of(layout: Cells, resolution_m: float) -> Grid:
    """Return a grid for a layout `(C, H, W)` that has no place on Earth."""
    return Grid(SOMEWHERE, 500_000.0, 0.0, resolution_m, layout.shape[2], layout.shape[1])


@contextmanager
def start_processes(workers: int) -> Iterator[Callable[..., Iterator[Form]]]:
    """Hand out a `map` that works in `workers` processes; with one worker, in the present process."""
    if workers < 2:
        yield map
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield partial(pool.map, chunksize=8)


def gather(
    name: str,
    count: int,
    layouts_of: Callable[[range], Cells],
    folder: Path,
    *,
    channels: Sequence[str],
    resolution_m: float,
    embedding: LayoutEmbedding | None = None,
    mapped: Callable[..., Iterator[Form]] = map,
    service: bool = False,
    measure_one: Callable[..., Form] | None = None,
) -> Gathered:
    """Make layouts part by part, measure them and keep each part; a part that is there is read.

    Parameters
    ----------
    name
        Of the set: the parts' file names begin with it.
    count
        How many layouts.
    layouts_of
        Makes the layouts at some positions; the same ones at every call.
    folder
        Where the parts are kept. All parts in it have to be of the same `layouts_of`.
    channels, resolution_m
        Of the layouts.
    embedding
        Gives the layouts their points; None gives none.
    mapped
        A `map`, such as `start_processes` hands out.
    service
        Whether service roads belong to the drive network.
    measure_one
        Measures one layout; takes what `measure_window` takes, which None stands for.
    """
    measured = partial(
        measure_one or measure_window, channels=tuple(channels), resolution_m=resolution_m, service=service
    )

    def known_of(positions: range) -> Arrays:
        layouts = layouts_of(positions)
        forms = list(mapped(measured, layouts))
        shares = np.divide(layouts, 255, dtype=np.float32)
        return {
            "layouts": layouts,
            "points": np.empty((len(shares), 0), np.float32) if embedding is None else embedding.points(shares),
            "coarse": coarsen(torch.from_numpy(shares)),
            **{_MEASURED + k: np.array([form.values[k] for form in forms]) for k in forms[0].values},
            **{_SAMPLE + k: np.concatenate([form.samples[k] for form in forms]) for k in forms[0].samples},
        }

    found: list[Arrays] = []
    paths = []
    with show_progress_bar(f"{name} layouts", count) as advance:
        for start in range(0, count, PART):
            positions = range(start, min(start + PART, count))
            paths.append(folder / f"{name}_{positions.start:06d}_{len(positions)}.npz")
            part = keep_arrays(paths[-1], partial(known_of, positions))
            found.append({key: array for key, array in part.items() if key != "layouts"})
            advance(len(positions))
    joined = {key: np.concatenate([part[key] for part in found]) for key in found[0]}
    values, samples = (
        {key.removeprefix(prefix): array for key, array in joined.items() if key.startswith(prefix)}
        for prefix in (_MEASURED, _SAMPLE)
    )
    return Gathered(values, samples, joined["points"], joined["coarse"], tuple(paths))


def keep_arrays(path: Path, make: Callable[[], Arrays]) -> Arrays:
    """Read the arrays of a file; where there is no file, or half of one, make the arrays and keep them there."""
    try:
        with path.open("rb") as stream, np.load(stream) as file:  # numpy leaves open what it cannot read
            return dict(file)
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error):
        pass
    arrays = make()
    with write_atomically(path) as temporary:
        np.savez_compressed(temporary, **arrays)
    return arrays
