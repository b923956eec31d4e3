"""The form of networks: how long and straight ways are, how they meet, where they point, how far they reach.

References
----------
Miller, G. (1955). Note on the bias of information estimates. *Information Theory in Psychology*.
"""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, dijkstra

from citygrain.evaluation.form import BINS, JUNCTION_M, REACHES_M, Form, ground_km2, median, share
from citygrain.geo.rasterize import Grid
from citygrain.geo.vectorize import Ways

LEAST_M = 1e-3
"""Ways whose ends are no farther apart than this are rings, which have no bearing."""


def measure_network(ways: Ways, network: str, grid: Grid) -> Form:
    """Measure one network: `drive`, `cycle` or `walk`."""
    length = shapely.length(ways.lines).astype(float)
    inside = ~ways.at_edge
    degree = ways.street_count[inside]
    whole = inside[ways.ends].all(1)
    step = ways.nodes[ways.ends[:, 1]] - ways.nodes[ways.ends[:, 0]]
    straight = np.hypot(*step.T)
    open_ended = straight > LEAST_M  # a ring has no bearing
    bearing = np.degrees(np.arctan2(step[open_ended, 0], step[open_ended, 1])) % 360
    entropy = orientation_entropy(bearing, length[open_ended])
    junctions = shapely.buffer(shapely.points(ways.nodes[inside][degree >= 3]), JUNCTION_M)
    values = {
        "length_density": float(length.sum()) / 1e3 / ground_km2(grid),
        "intersection_density": len(shapely.get_parts(shapely.union_all(junctions))) / ground_km2(grid),
        "segment_length": median(length[whole]),
        "circuity": share(float(length.sum()), float(straight.sum())),
        "mean_degree": float(degree.mean()) if len(degree) else math.nan,
        "dead_ends": share(int((degree == 1).sum()), len(degree)),
        "three_way": share(int((degree == 3).sum()), len(degree)),
        "four_way": share(int((degree >= 4).sum()), len(degree)),
        "orientation_entropy": entropy,
        "orientation_order": orientation_order(entropy),
        "betweenness_gini": _betweenness_gini(ways, length),
        "largest_component": _largest_component(ways, length),
    }
    samples = {
        "segment_length": length[whole],
        "bearing": bearing,
        "bearing_length": length[open_ended],
        "bearing_straight": straight[open_ended],
        "degree": degree.astype(float),
    }
    return Form(
        {f"{network}_{name}": value for name, value in values.items()},
        {f"{network}_{name}": sample for name, sample in samples.items()},
    )


def orientation_entropy(bearings: ArrayLike, weights: ArrayLike | None = None, *, corrected: bool = False) -> float:
    """Return the entropy of bearings in nat, each way counted in both directions; NaN where there are none.

    Parameters
    ----------
    bearings
        `(N,)` in degrees.
    weights
        `(N,)`, such as lengths; all alike by default.
    corrected
        Whether to correct for few ways, which have too small an entropy: of evenly spread bearings, 20 ways have a φ of
        .40, and 500 ways one of .016. Added is (K − 1) / 2N, with K bins of the half circle that hold any of the N ways
        (Miller 1955); for unequal weights N is (Σw)² / Σw².
    """
    degrees = np.asarray(bearings, float)
    weight = np.ones(len(degrees)) if weights is None else np.asarray(weights, float)
    if not weight.sum() > 0:
        return math.nan
    # A bearing and its opposite fall into opposite bins: half the circle tells all.
    half = np.floor((degrees % 180 + 180 / BINS) / (360 / BINS)).astype(int) % (BINS // 2)
    parts = np.bincount(half, weight) / weight.sum()
    parts = parts[parts > 0]
    entropy = math.log(2) - float((parts * np.log(parts)).sum())
    if corrected:
        entropy += (len(parts) - 1) * float((weight**2).sum() / weight.sum() ** 2) / 2
    return min(entropy, math.log(BINS))


def orientation_order(entropy: float) -> float:
    """Return φ: 1 for a grid with four directions, 0 for streets in all directions alike (Boeing 2019)."""
    grid, most = math.log(4), math.log(BINS)
    return 1 - ((entropy - grid) / (most - grid)) ** 2


def gini(values: ArrayLike) -> float:
    """Return the Gini coefficient of values ≥ 0: 0 where all are alike; NaN where there are none or all are 0."""
    ordered = np.sort(np.asarray(values, float))
    n, total = len(ordered), float(ordered.sum())
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered) / (n * total) if total > 0 else math.nan


def _betweenness_gini(ways: Ways, length: NDArray[np.float64]) -> float:
    graph = nx.Graph()
    graph.add_nodes_from(range(len(ways.nodes)))
    for (u, v), metres in zip(ways.ends.tolist(), length.tolist(), strict=True):
        if u != v and metres < graph.get_edge_data(u, v, {"length": math.inf})["length"]:
            graph.add_edge(u, v, length=metres)
    return gini(list(nx.betweenness_centrality(graph, weight="length").values()))


def _largest_component(ways: Ways, length: NDArray[np.float64]) -> float:
    if not len(length):
        return math.nan
    n = len(ways.nodes)
    _, of = connected_components(coo_array((length, (ways.ends[:, 0], ways.ends[:, 1])), (n, n)), directed=False)
    return float(np.bincount(of[ways.ends[:, 0]], length).max() / length.sum())


def measure_reach(ways: Ways) -> Form:
    """Measure how far one gets on foot, from the mean junction of streets and footways together."""
    names = [f"reach_{metres:g}" for metres in REACHES_M]
    junctions = np.flatnonzero(ways.street_count >= 3)
    if not len(junctions):
        return Form(dict.fromkeys(names, math.nan), {})
    length = shapely.length(ways.lines)
    distance = find_distances(ways.ends, length, len(ways.nodes), junctions, limit=max(REACHES_M))
    from_u, from_v = distance[:, ways.ends[:, 0]], distance[:, ways.ends[:, 1]]
    values = {}
    for name, metres in zip(names, REACHES_M, strict=True):
        walked = np.maximum(metres - from_u, 0) + np.maximum(metres - from_v, 0)
        values[name] = float(np.minimum(walked, length).sum(1).mean()) / 1e3
    return Form(values, {})


def find_distances(
    ends: NDArray[np.int64],
    length: NDArray[np.float64],
    n: int,
    sources: NDArray[np.int64],
    *,
    limit: float = math.inf,
) -> NDArray[np.float64]:
    """Find how far it is along the ways from each source to each node, `(S, n)`; ∞ where it is farther than `limit`.

    Parameters
    ----------
    ends
        `(M, 2)` the nodes at which each way begins and ends.
    length
        `(M,)` of each way.
    n
        How many nodes there are.
    sources
        `(S,)` nodes.
    limit
        In the unit of the lengths.
    """
    pair = np.sort(ends, 1)
    order = np.lexsort((length, pair[:, 1], pair[:, 0]))  # of parallel ways, the shortest comes first
    _, first = np.unique(pair[order], axis=0, return_index=True)
    keep = order[first]
    graph = coo_array((length[keep], (pair[keep, 0], pair[keep, 1])), (n, n)).tocsr()
    distance: NDArray[np.float64] = dijkstra(graph, directed=False, indices=sources, limit=limit)
    return distance
