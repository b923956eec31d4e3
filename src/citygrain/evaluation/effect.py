"""How well a measure separates places: effect sizes of ranks, which no outlier and no unit moves.

References
----------
Cliff, N. (1993). Dominance statistics: ordinal analyses to answer ordinal questions. *Psychological Bulletin* 114(3).

Tomczak, M. & Tomczak, E. (2014). The need to report effect size estimates revisited. *Trends in Sport Sciences* 21(1).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kruskal, mannwhitneyu


def separation(samples: Sequence[NDArray[np.float64]]) -> float:
    """Share of the ranks' variance that lies between the places: η² of Kruskal and Wallis, 0 to 1.

    (H − k + 1) / (n − k) of n values in k samples (Tomczak & Tomczak 2014), 0 where it comes out below.
    """
    n, k = sum(map(len, samples)), len(samples)
    joined = np.concatenate(samples)
    if n <= k or (joined == joined[0]).all():
        return 0.0
    return float(max((kruskal(*samples).statistic - k + 1) / (n - k), 0.0))


def cliffs_delta(one: NDArray[np.float64], two: NDArray[np.float64]) -> float:
    """How much more often a value of the second place is the larger of two than the smaller, −1 to 1 (Cliff 1993)."""
    return float(2 * mannwhitneyu(two, one).statistic / (len(one) * len(two)) - 1)
