"""Whether the edges in a reconstruction lie where the real edges lie. Thin ways are judged by this.

A mean error hardly sees a cycle track, which covers a hundredth of a window; but its edge is as long as a boulevard's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from citygrain.geo.centrelines import LEVEL
from citygrain.geo.layers import WIDTHS


@dataclass(frozen=True)
class BoundaryScore:
    """How many cells of one channel's edges were met.

    Attributes
    ----------
    precision
        Share of the edges that were made which lie near a real one; NaN where none was made.
    recall
        Share of the real edges that lie near one that was made; NaN where there is none.
    """

    precision: float
    recall: float

    @property
    def f(self) -> float:
        """Harmonic mean of the two: 0 where only one side has edges, NaN where neither has."""
        if np.isnan(self.precision) or np.isnan(self.recall):
            return float("nan") if np.isnan(self.precision) and np.isnan(self.recall) else 0.0
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def score_boundaries(
    made: ArrayLike, real: ArrayLike, channels: Sequence[str], resolution_m: float, tolerance_px: float = 1.0
) -> dict[str, BoundaryScore]:
    """Return the boundary F-score of each channel, over all edges of all layouts together.

    A cell counts as covered when a little less than half of it is covered; in channels whose ways are narrower than a
    cell, when it is covered as far as such a way covers it. The edge is made of the covered cells that have a neighbour
    which is not covered. The border of the window is no edge.

    Parameters
    ----------
    made, real
        `(N, C, H, W)` in [0, 1].
    channels
        Names of the C channels, in order.
    resolution_m
        Edge of a cell in metres.
    tolerance_px
        Distance in cells, from middle to middle, within which an edge counts as met.

    References
    ----------
    Csurka, G., Larlus, D., & Perronnin, F. (2013). What is a good evaluation measure for semantic segmentation? BMVC.
    """
    made, real = np.asarray(made), np.asarray(real)
    scores = {}
    for i, name in enumerate(channels):
        level = LEVEL * min(1.0, WIDTHS.get(name, resolution_m) / resolution_m)
        pairs = [
            (_edge(ours >= level), _edge(theirs >= level)) for ours, theirs in zip(made[:, i], real[:, i], strict=True)
        ]
        scores[name] = BoundaryScore(
            precision=_share_near(pairs, tolerance_px),
            recall=_share_near([(theirs, ours) for ours, theirs in pairs], tolerance_px),
        )
    return scores


def _edge(covered: NDArray[np.bool_]) -> NDArray[np.bool_]:
    edge: NDArray[np.bool_] = covered & ~ndimage.binary_erosion(covered, border_value=1)
    return edge


def _share_near(pairs: Sequence[tuple[NDArray[np.bool_], NDArray[np.bool_]]], tolerance_px: float) -> float:
    """Return the share of the first edges' cells that lie near a cell of the second edges; NaN for no cells."""
    count = sum(int(edge.sum()) for edge, _ in pairs)
    if not count:
        return float("nan")
    near = sum(
        int((ndimage.distance_transform_edt(~other)[edge] <= tolerance_px).sum())
        for edge, other in pairs
        if other.any()
    )
    return near / count
