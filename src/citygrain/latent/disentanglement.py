"""Whether each measure has a part of the code to itself: mutual information, and the gap between first and second."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.feature_selection import mutual_info_regression

from citygrain.latent.codes import Codes
from citygrain.latent.directions import LEAST
from citygrain.latent.structure import reduced

BINS = 20
"""Bins of equal count that a measure is cut into, as is usual for this score (Locatello et al. 2019)."""


@dataclass(frozen=True)
class Information:
    """What the components of codes tell about measures.

    Attributes
    ----------
    bits
        Measures × components: mutual information in bit.
    entropy
        Of each measure, cut into bins, in bit: the most that can be told.
    gap
        Mutual information gap of each measure, 0 to 1: how much more the best component tells than the second best,
        as a share of the entropy.
    """

    bits: pd.DataFrame
    entropy: pd.Series
    gap: pd.Series


def disentanglement(codes: Codes, components: int = 16, *, seed: int = 0) -> Information:
    """Estimate the mutual information between principal components of codes and measures (Chen et al. 2018).

    A measure is cut into `BINS` bins of equal count, fewer where many windows have one value; a component stays
    continuous (nearest neighbours, Ross 2014). Measures that are the same in all windows, or undefined in most, are
    left out. Where there is nothing to tell, the estimate scatters about 0 by some hundredths of a bit, cut off there.

    Parameters
    ----------
    codes
        Some hundreds at least.
    components
        How many principal components, those of most variance first.
    seed
        Of the noise that parts equal values.

    References
    ----------
    Chen, R. T. Q. et al. (2018). Isolating sources of disentanglement in variational autoencoders. NeurIPS.

    Locatello, F. et al. (2019). Challenging common assumptions in the unsupervised learning of disentangled
    representations. ICML.

    Ross, B. C. (2014). Mutual information between discrete and continuous data sets. *PLoS ONE* 9(2).
    """
    points = reduced(components, codes, seed).transform(codes.flat)
    rows, entropies = {}, {}
    for name, values in codes.measured.items():
        known = np.isfinite(values)
        if known.sum() < max(LEAST, len(values) / 2):
            continue
        binned = _binned(values[known])
        share = np.bincount(binned) / len(binned)
        share = share[share > 0]
        if len(share) < 2:
            continue
        entropies[name] = float(-(share * np.log2(share)).sum())
        rows[name] = [
            mutual_info_regression(binned[:, None], column, discrete_features=True, random_state=seed)[0] / np.log(2)
            for column in points[known].T
        ]
    bits = pd.DataFrame.from_dict(rows, orient="index", columns=[f"{i + 1}" for i in range(points.shape[1])])
    entropy = pd.Series(entropies)
    ordered = -np.sort(-bits.to_numpy(float), axis=1)
    second = ordered[:, 1] if ordered.shape[1] > 1 else 0.0
    return Information(bits, entropy, pd.Series((ordered[:, 0] - second) / entropy.to_numpy(), index=bits.index))


def _binned(values: NDArray[np.float64]) -> NDArray[np.int64]:
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
    return np.searchsorted(edges, values, side="left").astype(np.int64)
