"""How a city's streets are ordered, in the columns of Boeing (2019): one row for all of its windows together.

A window of half a kilometre has few streets, and few streets look ordered. So streets are pooled over windows, as
Boeing's are over a city. There every street counts once, however long it is.

References
----------
Boeing, G. (2019). Urban spatial order: street network orientation, configuration, and entropy. *Applied Network
Science* 4:67.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from citygrain.evaluation.form import median, share
from citygrain.evaluation.networks import orientation_entropy, orientation_order

LEAST_SEGMENTS = 500
"""Fewer streets say too little of a city."""


@dataclass(frozen=True)
class SpatialOrder:
    """How the streets of some windows are ordered.

    Attributes
    ----------
    segments
        How many streets there are: ways between two nodes, or between a node and the edge of a window.
    order
        φ: 1 for a grid, 0 where all directions are alike.
    entropy
        H_o of the bearings, in nat.
    segment_length
        Median over the streets that no edge cuts, in metres.
    circuity
        Σ length / Σ distance between a street's ends; rings do not count.
    mean_degree
        Mean number of streets that meet at a node.
    dead_ends, four_way
        Share of the nodes with one street, and with four or more.
    """

    segments: int
    order: float
    entropy: float
    segment_length: float
    circuity: float
    mean_degree: float
    dead_ends: float
    four_way: float


def pool_order(samples: Mapping[str, NDArray[np.float64]], network: str = "drive") -> SpatialOrder:
    """Return how the streets of some windows are ordered.

    Parameters
    ----------
    samples
        Those of `citygrain.evaluation.form.Form`, of all windows joined.
    network
        Which one.
    """
    bearing, length, straight, whole, degree = (
        samples[f"{network}_{name}"]
        for name in ("bearing", "bearing_length", "bearing_straight", "segment_length", "degree")
    )
    entropy = orientation_entropy(bearing)
    return SpatialOrder(
        segments=len(bearing),
        order=orientation_order(entropy),
        entropy=entropy,
        segment_length=median(whole),
        circuity=share(float(length.sum()), float(straight.sum())),
        mean_degree=float(degree.mean()) if len(degree) else math.nan,
        dead_ends=share(int((degree == 1).sum()), len(degree)),
        four_way=share(int((degree >= 4).sum()), len(degree)),
    )
