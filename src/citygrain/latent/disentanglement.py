"""Whether each measure has a component of the code to itself, judged by mutual information."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.feature_selection import mutual_info_regression

from citygrain.latent.codes import Codes
from citygrain.latent.directions import LEAST
from citygrain.latent.structure import fit_components

BINS = 20
"""Bins that the values of a measure are sorted into, as is usual for this score (Locatello et al. 2019)."""


@dataclass(frozen=True)
class Disentanglement:
    """How much the components of codes tell about measures.

    Attributes
    ----------
    bits
        Mutual information of each measure (rows) and each component (columns), in bits.
    entropy
        Entropy of each measure, in bits, once its values are sorted into bins. Mutual information cannot be larger.
    gap
        Mutual information gap of each measure, from 0 to 1: the mutual information with the best component, minus that
        with the second best, divided by the entropy.
    """

    bits: pd.DataFrame
    entropy: pd.Series
    gap: pd.Series


def measure_disentanglement(codes: Codes, components: int = 16, *, seed: int = 0) -> Disentanglement:
    """Estimate the mutual information between principal components of codes and measures (Chen et al. 2018).

    The values of a measure are sorted into `BINS` bins that hold equally many windows; there are fewer bins if many
    windows have the same value. Components stay continuous (nearest neighbours, Ross 2014). A measure is left out if it
    is the same in all windows, or has no value in most windows. Where measure and component are independent, the
    estimate varies around 0 by some hundredths of a bit; negative estimates are set to 0.

    Parameters
    ----------
    codes
        At least some hundred codes.
    components
        How many principal components are examined; those with the largest variance come first.
    seed
        Seed of the principal components, and of the noise that separates equal values.

    References
    ----------
    Chen, R. T. Q. et al. (2018). Isolating sources of disentanglement in variational autoencoders. NeurIPS.

    Locatello, F. et al. (2019). Challenging common assumptions in the unsupervised learning of disentangled
    representations. ICML.

    Ross, B. C. (2014). Mutual information between discrete and continuous data sets. *PLoS ONE* 9(2).
    """
    points = fit_components(components, codes, seed).transform(codes.flat)
    rows, entropies = {}, {}
    for name, values in codes.measured.items():
        known = np.isfinite(values)
        if known.sum() < max(LEAST, len(values) / 2):
            continue
        binned = _sort_into_bins(values[known])
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
    return Disentanglement(bits, entropy, pd.Series((ordered[:, 0] - second) / entropy.to_numpy(), index=bits.index))


def _sort_into_bins(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the number of the bin that each value lies in."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
    return np.searchsorted(edges, values, side="left").astype(np.int64)
