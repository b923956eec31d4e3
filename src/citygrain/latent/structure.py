"""How codes lie in code space: maps, groups, neighbours, and which place a classifier reads off a code."""

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
"""How many principal components of a code maps, groups and classifiers use, at most."""

How = Literal["pca", "umap", "som"]


@dataclass(frozen=True)
class Projection:
    """A map of codes in two dimensions.

    Attributes
    ----------
    points
        Points of the codes on the map, `(N, 2)`. On a self-organising map, column and row of the cell of each code.
    label
        The method in words; for principal components with the share of the variance that the map shows.
    transform
        Takes other codes `(M, *code_shape)`, and returns their points on the map, `(M, 2)`.
    """

    points: NDArray[np.float64]
    label: str
    transform: Callable[[ArrayLike], NDArray[np.float64]] = field(repr=False)


def fit_components(count: int, codes: Codes, seed: int = 0) -> PCA:
    """Fit the first `count` principal components of codes, or all of them if the codes have fewer."""
    if len(codes) < 3:
        raise DataError("There are too few codes for principal components.", expected="3 or more", got=len(codes))
    return PCA(min(count, len(codes) - 1, codes.flat.shape[1]), random_state=seed).fit(codes.flat)


def project_codes(codes: Codes, how: How = "pca", *, seed: int = 0) -> Projection:
    """Lay codes out on a map in two dimensions.

    Parameters
    ----------
    codes
        At least three codes.
    how
        `pca`: the first two principal components; distances on the map can be trusted. `umap`: neighbours stay
        neighbours, but distances and densities mean little (McInnes et al. 2018). `som`, a self-organising map: a grid
        of cells; codes in the same cell are alike, and so are codes in neighbouring cells (Kohonen 1982). UMAP and SOM
        start from the first `COMPONENTS` principal components.
    seed
        Seed of the random numbers.

    Raises
    ------
    DataError
        For fewer than three codes.
    ConfigError
        For another method.
    CapabilityError
        When the library of the method is not installed.
    """
    if how not in {"pca", "umap", "som"}:
        raise ConfigError("Codes cannot be laid out like this.", got=how, choices=("pca", "umap", "som"))
    pca = fit_components(2 if how == "pca" else COMPONENTS, codes, seed)

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
    umap = _import_library("umap", "umap-learn")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that a seed allows one thread only, and numba of its own future
        fitted = umap.UMAP(n_neighbors=min(15, len(points) - 1), random_state=seed).fit(points)

    def transform(of: ArrayLike) -> NDArray[np.float64]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(fitted.transform(components(of)), float)

    return Projection(np.asarray(fitted.embedding_, float), "UMAP", transform)


def _som(points: NDArray[np.float64], components: Callable[..., Any], seed: int) -> Projection:
    library = _import_library("minisom", "minisom")
    edge = int(np.ceil(np.sqrt(5 * np.sqrt(len(points)))))  # 5 √N cells, the usual choice (Vesanto & Alhoniemi 2000)
    som = library.MiniSom(edge, edge, points.shape[1], sigma=edge / 4, learning_rate=0.5, random_seed=seed)
    som.pca_weights_init(points)
    som.train(points, 20 * len(points), random_order=True)

    def transform(of: ArrayLike) -> NDArray[np.float64]:
        return np.array([som.winner(point) for point in components(of)], float)

    return Projection(
        np.array([som.winner(point) for point in points], float), f"self-organising map, {edge} × {edge}", transform
    )


def _import_library(name: str, package: str) -> Any:
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


def cluster_codes(
    codes: Codes, groups: int, how: Literal["kmeans", "mixture"] = "kmeans", *, seed: int = 0
) -> NDArray[np.int64]:
    """Group codes by their first `COMPONENTS` principal components.

    Parameters
    ----------
    codes
        At least as many codes as groups.
    groups
        How many groups.
    how
        `kmeans`: round groups of similar size. `mixture`: normal distributions, each with its own variance along every
        component.
    seed
        Seed of the first centres.

    Returns
    -------
    numpy.ndarray
        `(N,)`, the number of the group of each code.

    Raises
    ------
    ConfigError
        For another method, or more groups than codes.
    """
    if how not in {"kmeans", "mixture"}:
        raise ConfigError("Codes cannot be grouped like this.", got=how, choices=("kmeans", "mixture"))
    if not 1 <= groups <= len(codes):
        raise ConfigError("Codes cannot be put into this number of groups.", expected=f"1 … {len(codes)}", got=groups)
    points = fit_components(COMPONENTS, codes, seed).transform(codes.flat)
    grouping: KMeans | GaussianMixture = (
        KMeans(groups, n_init=10, random_state=seed)
        if how == "kmeans"
        else GaussianMixture(groups, covariance_type="diag", n_init=3, random_state=seed)
    )
    return np.asarray(grouping.fit_predict(points), np.int64)


def find_neighbours(codes: Codes, of: ArrayLike, count: int = 8) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find the nearest codes of each code: return their indices and Euclidean distances, `(M, count)` each.

    Parameters
    ----------
    codes
        The codes that are searched. If a code is among them, its nearest neighbour is the code itself.
    of
        The codes whose neighbours are wanted, `(M, *code_shape)`.
    count
        How many neighbours each code gets, nearest first; all codes if there are fewer.
    """
    asked = np.asarray(of, np.float32)
    distance, index = (
        NearestNeighbors(n_neighbors=min(count, len(codes))).fit(codes.flat).kneighbors(asked.reshape(len(asked), -1))
    )
    return index, np.asarray(distance, float)


@dataclass(frozen=True)
class Classification:
    """How well a linear classifier reads the place of a window off its code.

    Attributes
    ----------
    accuracy
        Share of the held-out windows that are given their own place.
    balanced_accuracy
        The same share, computed for each place and averaged over the places; by chance 1 / number of places.
    chance
        The accuracy if all windows were given the place with the most held-out windows.
    confusion
        Numbers of held-out windows: the place they are of (rows), the place they are given (columns).
    """

    accuracy: float
    balanced_accuracy: float
    chance: float
    confusion: pd.DataFrame


def classify_places(train: Codes, held_out: Codes, *, components: int = COMPONENTS) -> Classification:
    """Classify held-out windows by place: logistic regression on standardised principal components of the codes.

    Parameters
    ----------
    train, held_out
        Codes of the windows that the classifier is fitted to, and of the windows that are classified.
    components
        How many principal components the classifier uses, at most.

    Raises
    ------
    DataError
        For fewer than two places, or if train and held-out windows have different places.
    """
    names = train.spec.places
    if held_out.spec.places != names or len(np.unique(train.place)) < 2:
        raise DataError(
            "There are no two places to tell apart.",
            expected="two places or more, the same in both",
            got=f"{', '.join(names)} and {', '.join(held_out.spec.places)}",
        )
    predicted = _fit_classifier(train, components).predict(held_out.flat)
    counts = confusion_matrix(held_out.place, predicted, labels=np.arange(len(names)))
    return Classification(
        float(accuracy_score(held_out.place, predicted)),
        float(recall_score(held_out.place, predicted, labels=np.unique(held_out.place), average="macro")),
        float(np.bincount(held_out.place).max() / len(held_out)),
        pd.DataFrame(counts, index=names, columns=names),
    )


def classify_unseen_places(codes: Codes, *, components: int = COMPONENTS) -> pd.DataFrame:
    """Classify the windows of each place with a classifier that knows only the other places.

    Parameters
    ----------
    codes
        Codes of windows of at least three places.
    components
        How many principal components the classifier uses, at most.

    Returns
    -------
    pandas.DataFrame
        Rows: the place that was left out. Columns: the place that its windows are given. Values: the share of its
        windows; NaN for the place itself.

    Raises
    ------
    DataError
        For fewer than three places.
    """
    names, here = codes.spec.places, np.unique(codes.place)
    if len(here) < 3:
        raise DataError(
            "A left-out place is compared with two other places or more.",
            expected="codes of three places or more",
            got=", ".join(names[i] for i in here),
            remedy="encode_places(model, places=[…]), which also takes places that the model never saw",
        )
    table = pd.DataFrame(np.nan, index=[names[i] for i in here], columns=[names[i] for i in here])
    for out in here:
        left = codes.place == out
        predicted = _fit_classifier(codes.select(~left), components).predict(codes.flat[left])
        for other in here[here != out]:
            table.loc[names[out], names[other]] = (predicted == other).mean()
    return table


def _fit_classifier(codes: Codes, components: int) -> Any:
    """Fit a classifier of places. All places have the same weight, whatever the number of their windows."""
    pca = fit_components(components, codes)
    return make_pipeline(pca, StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000)).fit(
        codes.flat, codes.place
    )
