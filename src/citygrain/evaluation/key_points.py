"""What the literature of generated road networks measures, beside our own measures of urban form.

Key points are the nodes of a network: junctions, dead ends, and the points where the edge of the layout cuts a way.
Lane graphs have been compared by how many ways meet at a key point (*connectivity*), how many key points there are
(*density*), how many others can be reached from one (*reach*), and over how many ways the shortest path between two of
them leads (*convenience*): by the Fréchet distance of each, taken to be normally distributed, over all layouts (Rowe et
al. 2025, after Mi et al. 2021). Road layouts of cities were first compared in this way (Chu et al. 2019). There
convenience is the length of the path over the distance in a straight line, here `detour`; and reach is a length, which
is `citygrain.evaluation.networks.measure_reach`.

A network that was drawn may miss itself by a few metres. What Rowe et al. measure where one lane goes on in another,
the *endpoint gap*, is measured here where a way ends: how far it is from there to the nearest other way. A cul-de-sac
ends amid a block, and a street that should have met another one ends beside it.

References
----------
Chu, H. et al. (2019). Neural Turtle Graphics for modeling city road layouts. ICCV.

Mi, L. et al. (2021). HDMapGen: A hierarchical graph generative model of high definition maps. CVPR.

Rowe, L. et al. (2025). Scenario Dreamer: Vectorized latent diffusion for generating driving simulation environments.
CVPR.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import shapely
from numpy.typing import NDArray

from citygrain.evaluation.distribution import frechet
from citygrain.evaluation.form import DRIVE, Form, FormMeasure, median, share
from citygrain.evaluation.gather import Cells, grid_of
from citygrain.evaluation.morphology import measure_form
from citygrain.evaluation.networks import find_distances
from citygrain.geo.vectorize import Ways, vectorize

MISSED_M = 24.0
"""A way that ends within this distance of another one seems to have missed it: three cells of 8 m."""

_CHU, _ROWE = "Chu et al. (2019)", "Rowe et al. (2025)"

KEY_POINTS: Mapping[str, FormMeasure] = MappingProxyType(
    {
        name: FormMeasure(name, label, unit, formula, source, DRIVE, "key points")
        for name, label, unit, formula, source in (
            (
                "endpoint_gap",
                "endpoint gap",
                "m",
                "median over the dead ends of the distance to the nearest way that does not meet the one that ends",
                f"after the endpoint distance of {_ROWE}",
            ),
            (
                "missed",
                "ends that miss a way",
                "–",
                f"share of the dead ends whose gap is less than {MISSED_M:g} m",
                f"after the endpoint distance of {_ROWE}",
            ),
            ("connectivity", "connectivity", "–", "mean number of ways at a key point", _ROWE),
            ("density", "key points", "–", "number of key points", _ROWE),
            ("reach", "key points within reach", "–", "mean number of key points that have a path to one", _ROWE),
            (
                "convenience",
                "ways on a path",
                "–",
                "mean number of ways on the shortest path between two key points that have one",
                _ROWE,
            ),
            ("detour", "detour", "–", "Σ length of the shortest paths / Σ distance of the same two key points", _CHU),
        )
    }
)
"""Every measure of this module by name; that of the drive network has `drive_` before its name."""

COMPARED = ("connectivity", "density", "reach", "convenience")
"""What is compared by Fréchet distances. Rowe et al. print ten times the first and the last."""


def measure_key_points(ways: Ways, network: str = "drive") -> Form:
    """Measure the key points of one network.

    Returns
    -------
    Form
        `KEY_POINTS`, and the samples that they come from, all with the name of the network before their own: a
        `…_endpoint_gap` for each dead end that has another way to miss, a `…_connectivity` and a `…_reach` for each key
        point, one `…_density`, and a `…_convenience` for each two key points that have a path.
    """
    count = len(ways.nodes)
    gap = find_gaps(ways)
    degree = ways.street_count
    every = np.arange(count)
    steps = find_distances(ways.ends, np.ones(len(ways.lines)), count, every)
    paths = find_distances(ways.ends, shapely.length(ways.lines), count, every)
    first, second = np.nonzero(np.triu(np.isfinite(steps), 1))
    reach = np.isfinite(steps).sum(1) - 1
    convenience = steps[first, second]
    straight = np.hypot(*(ways.nodes[first] - ways.nodes[second]).T)
    values = {
        "endpoint_gap": median(gap),
        "missed": share(int((gap < MISSED_M).sum()), len(gap)),
        "connectivity": share(float(degree.sum()), count),
        "density": float(count),
        "reach": share(float(reach.sum()), count),
        "convenience": float(convenience.mean()) if len(convenience) else math.nan,
        "detour": share(float(paths[first, second].sum()), float(straight.sum())),
    }
    samples: dict[str, NDArray[np.float64]] = {
        "endpoint_gap": gap,
        "connectivity": degree.astype(float),
        "density": np.array([count], float),
        "reach": reach.astype(float),
        "convenience": convenience,
    }
    return Form(
        {f"{network}_{name}": value for name, value in values.items()},
        {f"{network}_{name}": sample for name, sample in samples.items()},
    )


def find_gaps(ways: Ways) -> NDArray[np.float64]:
    """Find how far it is from each dead end to the nearest way that does not meet the way that ends there, in metres.

    A way that the edge of the layout cuts does not end. Where there is no other way, an end has no gap.
    """
    loose = np.flatnonzero((ways.street_count == 1) & ~ways.at_edge)
    way_at = np.zeros(len(ways.nodes), np.int64)
    way_at[ways.ends.T] = np.arange(len(ways.lines))
    own = ways.ends[way_at[loose]]  # (E, 2): the nodes of the way that ends
    meets = (ways.ends[None, :, :, None] == own[:, None, None, :]).any((2, 3))
    distance = shapely.distance(shapely.points(ways.nodes[loose])[:, None], ways.lines[None])
    gap: NDArray[np.float64] = np.where(meets, np.inf, distance).min(1, initial=np.inf)
    return gap[np.isfinite(gap)]


def compare_key_points(
    made: Mapping[str, NDArray[np.float64]], real: Mapping[str, NDArray[np.float64]], network: str = "drive"
) -> dict[str, float]:
    """Return the Fréchet distances of two sets of layouts: name in `COMPARED` → distance.

    Parameters
    ----------
    made, real
        Samples of `measure_key_points`, those of all layouts of a set joined.
    network
        Which one.

    Returns
    -------
    dict
        Square roots of Fréchet distances, as Rowe et al. have them: for a shift of a whole distribution, the shift. NaN
        where there are fewer than two values.
    """
    found = {}
    for name in COMPARED:
        one, other = (samples.get(f"{network}_{name}", np.empty(0))[:, None] for samples in (made, real))
        found[name] = math.sqrt(frechet(one, other)) if min(len(one), len(other)) > 1 else math.nan
    return found


def measure_ways(layout: Cells, *, channels: Sequence[str], resolution_m: float, service: bool = False) -> Form:
    """Measure the form of one layout of ways, and the key points of its drive network.

    Parameters
    ----------
    layout
        `(C, H, W)`, coverage 0–255.
    channels
        Names of the C channels; those of the drive network are among them.
    resolution_m
        Edge of a cell in metres.
    service
        Whether service roads belong to the drive network.
    """
    grid = grid_of(layout, resolution_m)
    vectors = vectorize(layout, channels, grid, service=service)
    form = measure_form(layout, channels, grid, vectors=vectors)
    points = measure_key_points(vectors.ways["drive"])
    return Form({**form.values, **points.values}, {**form.samples, **points.samples})
