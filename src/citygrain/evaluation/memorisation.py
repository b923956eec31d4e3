"""Whether layouts are copies: how near each comes to any window that the model was trained on, however it is turned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from citygrain.data.datamodule import CityDataModule
from citygrain.data.transforms import INVERSE, SYMMETRIES, turn
from citygrain.evaluation.gather import PART, Gathered, coarsen
from citygrain.evaluation.view import View
from citygrain.support.console import show_progress_bar

COPY_PERCENTILE = 1.0
"""Percentage of the held-out windows that may be nearer to a training window than a layout which is suspected."""


@dataclass(frozen=True)
class Nearest:
    """The nearest training window of each layout.

    Attributes
    ----------
    distance
        `(N,)` root mean square difference, each channel in standard deviations over the training windows.
    index
        `(N,)` which training window it is.
    symmetry
        `(N,)` how the layout has to be turned to come that near.
    """

    distance: NDArray[np.float32]
    index: NDArray[np.int64]
    symmetry: NDArray[np.int64]


@dataclass(frozen=True)
class Copies:
    """Whether a model copies its training windows.

    Attributes
    ----------
    training_windows
        How many were searched.
    limit
        Distance that all but `COPY_PERCENTILE` % of the held-out windows keep from every training window.
    share_closer
        Share of generated layouts that are nearer than the limit.
    expected
        That share of held-out windows.
    median_distance
        Of `generated` layouts and of `real` held-out windows to their nearest training window.
    n
        Generated layouts.
    """

    training_windows: int
    limit: float
    share_closer: float
    expected: float
    median_distance: Mapping[str, float]
    n: int


def find_nearest(layouts: NDArray[np.float32], training: Iterable[NDArray[np.float32]]) -> Nearest:
    """Find the nearest training window of each layout, over the 8 symmetries of the square.

    Parameters
    ----------
    layouts
        Coarse pictures `(N, C, h, h)` of generated or held-out layouts: coarse, so that a copy that is off by a cell
        is found.
    training
        Coarse pictures of training windows, in parts `(M, C, h, h)`, which need not fit into memory together. The
        standard deviations are those of the first part.
    """
    n = len(layouts)
    best = torch.full((n,), torch.inf)
    index, symmetry = (torch.zeros(n, dtype=torch.int64) for _ in range(2))
    queries = torch.from_numpy(layouts).flatten(1)
    spread: Tensor | None = None
    seen = 0
    for part in training:
        coarse = torch.from_numpy(part)
        if spread is None:
            spread = coarse.std((0, 2, 3), keepdim=True).clamp_min(0.02)
            queries = (torch.from_numpy(layouts) / spread).flatten(1)
        # The few windows of a part are turned back, instead of turning the many layouts.
        turned = torch.cat([turn(coarse / spread, INVERSE[s]) for s in range(SYMMETRIES)])
        least, where = torch.cdist(queries, turned.flatten(1)).min(1)
        closer = least < best
        best = torch.where(closer, least, best)
        index = torch.where(closer, where % len(part) + seen, index)
        symmetry = torch.where(closer, where // len(part), symmetry)
        seen += len(part)
    cells = queries.shape[1]
    return Nearest((best / cells**0.5).numpy(), index.numpy(), symmetry.numpy())


def search_training(sets: Sequence[Gathered], training: CityDataModule, view: View, count: int) -> list[Nearest]:
    """Find the nearest training window of each layout of some sets, among the first `count` that the model saw.

    All are seen in the same view.
    """
    windows = training.windows("train")

    def parts() -> Iterator[NDArray[np.float32]]:
        with show_progress_bar("looking for copies", count) as advance:
            for start in range(0, count, PART):
                positions = range(start, min(start + PART, count))
                shares = np.divide(view.show_cells(windows.read_cells(positions)), 255, dtype=np.float32)
                yield coarsen(torch.from_numpy(shares))
                advance(len(positions))

    found = find_nearest(np.concatenate([of.coarse for of in sets]), parts())
    ends = np.cumsum([len(of) for of in sets])[:-1]
    return [Nearest(*part) for part in zip(*(np.split(values, ends) for values in vars(found).values()), strict=True)]


def judge_copies(generated: Nearest, real: Nearest, training_windows: int) -> Copies:
    """Return how many generated layouts are as near to training windows as held-out windows hardly ever are."""
    limit = float(np.percentile(real.distance, COPY_PERCENTILE))
    closer = generated.distance < limit
    return Copies(
        training_windows=training_windows,
        limit=limit,
        share_closer=float(closer.mean()),
        expected=COPY_PERCENTILE / 100,
        median_distance={
            name: float(np.median(found.distance)) for name, found in (("generated", generated), ("real", real))
        },
        n=len(closer),
    )
