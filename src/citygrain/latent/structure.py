"""How codes lie: maps of them, groups, neighbours, and which place a window is taken for."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, confusion_matrix, recall_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from citygrain.errors import CapabilityError, ConfigError, DataError
from citygrain.latent.codes import Codes

COMPONENTS = 64
"""Principal components that maps, groups and classifiers see of a code, where it has so many."""

How = Literal["pca", "umap", "som"]


@dataclass(frozen=True)
class Projection:
    """A map of codes in two dimensions.

    Attributes
    ----------
    points
        `(N, 2)`. Of a self-organising map, column and row of the cell that each code fell into.
    how
        The method, with the share of the variance that it shows where that can be told.
    place_on
        From other codes `(M, *code_shape)` to where they lie on the map, `(M, 2)`.
    """

    points: NDArray[np.float64]
    how: str
    place_on: Callable[[ArrayLike], NDArray[np.float64]] = field(repr=False)


def reduced(count: int, codes: Codes, seed: int = 0) -> PCA:
    """Fit the first principal components of codes; fewer than `count` where the codes have no more."""
    if len(codes) < 3:
        raise DataError("Too few codes say nothing.", expected="3 or more", got=len(codes))
    return PCA(min(count, len(codes) - 1, codes.flat.shape[1]), random_state=seed).fit(codes.flat)


def project(codes: Codes, how: How = "pca", *, seed: int = 0) -> Projection:
    """Lay codes out in two dimensions.

    Parameters
    ----------
    codes
        Three or more.
    how
        `pca`: the two directions of most variance; distances mean what they say. `umap`: neighbours stay neighbours,
        distances and densities mean little (McInnes et al. 2018). `som`: a grid of cells, each with codes that are
        alike, and neighbouring cells too (Kohonen 1982). The latter two see the first `COMPONENTS` components.
    seed
        Of what is drawn at random.

    Raises
    ------
    ConfigError
        For another method.
    CapabilityError
        Where the method's library is not installed.
    """
    if how not in {"pca", "umap", "som"}:
        raise ConfigError("Codes cannot be laid out like this.", got=how, choices=("pca", "umap", "som"))
    pca = reduced(2 if how == "pca" else COMPONENTS, codes, seed)

    def components(of: ArrayLike) -> NDArray[np.float64]:
        values = np.asarray(of, np.float32)
        return np.asarray(pca.transform(values.reshape(len(values), -1)), float)

    if how == "pca":
        shares = " + ".join(f"{share:.0%}" for share in pca.explained_variance_ratio_)
        return Projection(components(codes.codes), f"principal components ({shares} of the variance)", components)
    if how == "umap":
        return _umap(components(codes.codes), components, seed)
    return _som(components(codes.codes), components, seed)


def _umap(points: NDArray[np.float64], components: Callable[..., Any], seed: int) -> Projection:
    umap = _library("umap", "umap-learn")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a seed costs threads, and what numba is going to drop
        fitted = umap.UMAP(n_neighbors=min(15, len(points) - 1), random_state=seed).fit(points)

    def place_on(of: ArrayLike) -> NDArray[np.float64]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(fitted.transform(components(of)), float)

    return Projection(np.asarray(fitted.embedding_, float), "UMAP", place_on)


def _som(points: NDArray[np.float64], components: Callable[..., Any], seed: int) -> Projection:
    library = _library("minisom", "minisom")
    edge = int(np.ceil(np.sqrt(5 * np.sqrt(len(points)))))  # 5 √N cells, the usual choice (Vesanto & Alhoniemi 2000)
    som = library.MiniSom(edge, edge, points.shape[1], sigma=edge / 4, learning_rate=0.5, random_seed=seed)
    som.pca_weights_init(points)
    som.train(points, 20 * len(points), random_order=True)

    def place_on(of: ArrayLike) -> NDArray[np.float64]:
        return np.array([som.winner(point) for point in components(of)], float)

    return Projection(
        np.array([som.winner(point) for point in points], float), f"self-organising map, {edge} × {edge}", place_on
    )


def _library(name: str, package: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(name)
    except ImportError as error:
        raise CapabilityError(
            f"This map of codes needs {package}, which is not installed.",
            got=error,
            remedy='pip install "citygrain[explore]"; or how="pca", which needs nothing',
        ) from error


def cluster(
    codes: Codes, groups: int, how: Literal["kmeans", "mixture"] = "kmeans", *, seed: int = 0
) -> NDArray[np.int64]:
    """Group codes by their first `COMPONENTS` principal components.

    Parameters
    ----------
    codes
        At least as many as groups.
    groups
        How many groups.
    how
        `kmeans`: round groups of like size; `mixture`: normal distributions with axes of their own.
    seed
        Of the first centres.

    Returns
    -------
    numpy.ndarray
        `(N,)`, the group of each.
    """
    if how not in {"kmeans", "mixture"}:
        raise ConfigError("Codes cannot be grouped like this.", got=how, choices=("kmeans", "mixture"))
    if not 1 <= groups <= len(codes):
        raise ConfigError("There cannot be so many groups.", expected=f"1 … {len(codes)}", got=groups)
    points = reduced(COMPONENTS, codes, seed).transform(codes.flat)
    grouping: KMeans | GaussianMixture = (
        KMeans(groups, n_init=10, random_state=seed)
        if how == "kmeans"
        else GaussianMixture(groups, covariance_type="diag", n_init=3, random_state=seed)
    )
    return np.asarray(grouping.fit_predict(points), np.int64)


def neighbours(codes: Codes, of: ArrayLike, count: int = 8) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the nearest codes, `(M, count)` indices, and their Euclidean distances, nearest first.

    Parameters
    ----------
    codes
        Among which they are looked for; a code that is among them is its own nearest.
    of
        `(M, *code_shape)`.
    count
        How many for each; all where there are fewer.
    """
    asked = np.asarray(of, np.float32)
    distance, index = (
        NearestNeighbors(n_neighbors=min(count, len(codes))).fit(codes.flat).kneighbors(asked.reshape(len(asked), -1))
    )
    return index, np.asarray(distance, float)


@dataclass(frozen=True)
class Classified:
    """How well a linear classifier tells places by their codes.

    Attributes
    ----------
    accuracy
        Share of held-out windows that are told rightly.
    balanced
        The mean of that share over the places, however many windows each has; by chance 1 / places.
    chance
        Accuracy of always telling the place that has most held-out windows.
    confusion
        Windows, place (rows) × told (columns).
    """

    accuracy: float
    balanced: float
    chance: float
    confusion: pd.DataFrame


def classify_places(train: Codes, held_out: Codes, *, components: int = COMPONENTS) -> Classified:
    """Tell the place of held-out windows by logistic regression on standardised principal components of train codes.

    Raises
    ------
    DataError
        For fewer than two places, or others than those that were held out.
    """
    names = train.spec.places
    if held_out.spec.places != names or len(np.unique(train.place)) < 2:
        raise DataError(
            "There is nothing to tell apart.",
            expected="two places or more, the same in both",
            got=f"{', '.join(names)} and {', '.join(held_out.spec.places)}",
        )
    told = _classifier(train, components).predict(held_out.flat)
    counts = confusion_matrix(held_out.place, told, labels=np.arange(len(names)))
    return Classified(
        float(accuracy_score(held_out.place, told)),
        float(recall_score(held_out.place, told, labels=np.unique(held_out.place), average="macro")),
        float(np.bincount(held_out.place).max() / len(held_out)),
        pd.DataFrame(counts, index=names, columns=names),
    )


def taken_for(codes: Codes, *, components: int = COMPONENTS) -> pd.DataFrame:
    """Which of the other places the windows of a place are taken for, by a classifier that never saw that place.

    Returns
    -------
    pandas.DataFrame
        Shares of its windows, place left out (rows) × taken for (columns); NaN for itself.

    Raises
    ------
    DataError
        For fewer than three places.
    """
    names, here = codes.spec.places, np.unique(codes.place)
    if len(here) < 3:
        raise DataError(
            "A place can only be taken for one of several others.",
            expected="codes of three places or more",
            got=", ".join(names[i] for i in here),
            remedy="encode_places(model, places=[…]) takes places that the model never saw, too",
        )
    table = pd.DataFrame(np.nan, index=[names[i] for i in here], columns=[names[i] for i in here])
    for out in here:
        left = codes.place == out
        told = _classifier(codes.chosen(~left), components).predict(codes.flat[left])
        for other in here[here != out]:
            table.loc[names[out], names[other]] = (told == other).mean()
    return table


def _classifier(codes: Codes, components: int) -> Any:
    """Places weigh alike, however many windows each has."""
    pca = reduced(components, codes)
    return make_pipeline(pca, StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000)).fit(
        codes.flat, codes.place
    )
