"""A band of cells to lines: thinned to one cell, taken apart into chains, centred and smoothed."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.morphology import skeletonize

SMOOTHED = 2
"""Neighbours on either side over which the vertices of a chain are averaged."""


def thin_band(band: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Thin a band; Zhang & Suen (1984), scikit-image's usual way, eats up diagonal bands from their ends."""
    thin: NDArray[np.bool_] = skeletonize(band, method="lee") > 0
    return thin


def trace_chains(thin: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Take a skeleton apart into chains of cells from one junction or end to the next, both included.

    Cells that touch at a corner are linked unless a third cell links them already. Junction cells that touch are one
    junction, at their mean.

    Returns
    -------
    xy, sizes
        `(N, 2)` columns and rows of the cells, chain after chain, and `(K,)` how many each chain has.
    """
    thin[[0, -1]] = thin[:, [0, -1]] = False  # far outside the window; so that no cell's neighbours are a row further
    rows, columns = np.nonzero(thin)
    across = thin.shape[1]
    flat = rows * across + columns
    n = len(flat)
    starts, ends = [], []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        there = flat + down * across + right
        linked = thin[rows + down, columns + right]
        if down and right:
            linked = linked & ~thin[rows, columns + right] & ~thin[rows + 1, columns]
        starts.append(np.flatnonzero(linked))
        ends.append(np.searchsorted(flat, there[linked]))
    start, end = np.concatenate(starts), np.concatenate(ends)
    links = coo_array((np.ones(2 * len(start), np.int8), (np.r_[start, end], np.r_[end, start])), shape=(n, n)).tocsr()
    degree = np.diff(links.indptr)
    inner = (degree[start] > 2) & (degree[end] > 2)
    among = coo_array((np.ones(inner.sum(), np.int8), (start[inner], end[inner])), shape=(n, n))
    _, junction = connected_components(among, directed=False)
    paths = _follow_links(links.indptr.tolist(), links.indices.tolist(), degree.tolist(), junction.tolist())
    cells = np.stack([columns, rows], 1).astype(float)
    members = np.bincount(junction)
    centre = np.stack([np.bincount(junction, cells[:, i]) / members for i in (0, 1)], 1)[junction]
    sizes = np.array([len(path) for path in paths], np.int64)
    order = np.array([cell for path in paths for cell in path], np.int64)
    last = np.cumsum(sizes) - 1
    xy = cells[order]
    for tip in (last - sizes + 1, last):
        xy[tip] = centre[order[tip]]
    return xy, sizes


def _follow_links(first: list[int], neighbours: list[int], degree: list[int], junction: list[int]) -> list[list[int]]:
    """Follow linked cells from junction or end to the next, then around the rings that have none."""
    paths: list[list[int]] = []
    seen = [False] * len(degree)
    done: set[tuple[int, int]] = set()

    def follow(here: int, there: int) -> None:
        path = [here, there]
        while degree[there] == 2 and there != path[0]:
            seen[there] = True
            one, other = neighbours[first[there] : first[there + 1]]
            here, there = there, other if one == here else one
            path.append(there)
        done.add((path[-1], path[-2]))
        paths.append(path)

    for cell, links in enumerate(degree):
        if links != 2:
            for neighbour in neighbours[first[cell] : first[cell + 1]]:
                if junction[cell] != junction[neighbour] and (cell, neighbour) not in done:
                    follow(cell, neighbour)
    for cell, links in enumerate(degree):
        if links == 2 and not seen[cell]:
            seen[cell] = True
            follow(cell, neighbours[first[cell]])
    return paths


def centre_chains(
    xy: NDArray[np.float64], covered: NDArray[np.float32], width: float, most: float
) -> NDArray[np.float64]:
    """Draw the cells of chains, by at most `most`, to the centre of what is covered around them."""
    reach = math.ceil(width / 2) + 1
    steps = np.arange(-reach, reach + 1)
    column, row = xy.round().astype(int).T
    rows = np.clip(row[:, None] + steps, 0, covered.shape[0] - 1)
    columns = np.clip(column[:, None] + steps, 0, covered.shape[1] - 1)
    around = covered[rows[:, :, None], columns[:, None, :]]
    mass = around.sum((1, 2)) + 1e-6
    shift = np.stack([around.sum(1) @ steps, around.sum(2) @ steps], 1) / mass[:, None]
    return xy + np.clip(shift, -most, most)


def smooth_chains(xy: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Average the vertices of chains with their neighbours, ends in place."""
    first = np.repeat(np.cumsum(sizes) - sizes, sizes)
    i = np.arange(len(xy))
    reach = np.minimum(np.minimum(i - first, first + np.repeat(sizes, sizes) - 1 - i), SMOOTHED)
    total = np.concatenate([np.zeros((1, 2)), np.cumsum(xy, axis=0)])
    return (total[i + reach + 1] - total[i - reach]) / (2 * reach + 1)[:, None]
