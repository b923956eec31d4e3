"""Urban form of one layout: buildings, blocks, streets and how they meet, measured on its vectors.

Beside the conditions (`citygrain.measures.MEASURES`), which are read off the raster, these are measures of features:
they are taken on what `citygrain.geo.vectorize` makes of a layout, by the same code for real and for generated ones.

A layout is a cut-out, so its edge cuts buildings, blocks and streets in two:

- shapes (compactness, the length of a segment, the area of a block) are those of features that the edge does not touch;
- counts take a feature that touches *k* sides of the layout for 2⁻ᵏ features, the mean of the four unbiased counting
  frames (Gundersen 1977);
- where a street meets the edge is no node of it: neither a dead end nor a crossing.

What a layout has none of has no shape: such a measure is NaN, never 0. Densities and shares of ground are 0 then. A
measure whose channels are not known is left out.

References
----------
Alexander, C. et al. (1977). *A Pattern Language*.

Araldi, A. & Fusco, G. (2019). From the street to the metropolitan region: Pedestrian perspective in urban fabric
analysis. *Environment and Planning B* 46(7).

Boeing, G. (2019). Urban spatial order: street network orientation, configuration, and entropy. *Applied Network
Science* 4:67. — (2017). OSMnx. *Computers, Environment and Urban Systems* 65.

Crucitti, P., Latora, V. & Porta, S. (2006). Centrality measures in spatial networks of urban streets. *Physical Review
E* 73, 036125.

Fleischmann, M. (2019). momepy: Urban Morphology Measuring Toolkit. *Journal of Open Source Software* 4(43).

Gundersen, H. J. G. (1977). Notes on the estimation of the numerical density of arbitrary profiles: the edge effect.
*Journal of Microscopy* 111(2).

Louf, R. & Barthelemy, M. (2014). A typology of street patterns. *Journal of the Royal Society Interface* 11.

Miller, G. (1955). Note on the bias of information estimates. *Information Theory in Psychology*.

Peponis, J., Bafna, S. & Zhang, Z. (2008). The connectivity of streets: reach and directional distance. *Environment
and Planning B* 35(5).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from types import MappingProxyType

import geopandas as gpd
import momepy
import networkx as nx
import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, dijkstra

from citygrain.geo.layers import WIDTHS
from citygrain.geo.rasterize import Grid
from citygrain.geo.vectorize import NETWORKS, Vectors, Ways, vectorize
from citygrain.measures import measure

BINS = 36
"""Bins of bearings, 10° each, the first one about north (Boeing 2019)."""

ISLAND_M2 = 500.0
"""Smaller faces of the street network are traffic islands and the ground between carriageways, no blocks."""

JUNCTION_M = 10.0
"""Junctions are one where circles of this radius about them meet, as osmnx consolidates them."""

SIGHT_M = 25.0
"""How far to either side of a street a front is looked for."""

LOOK_EVERY_M = 10.0
"""Along a street, from its middle line."""

REACHES_M = (400.0, 800.0)
"""Five and ten minutes on foot."""

_WHOLE = 1e-3  # metres from the edge


@dataclass(frozen=True)
class FormMeasure:
    """One measure of urban form: what it is called, what it means, where it comes from.

    Parameters
    ----------
    name
        The key in `Form.values`.
    label
        For axes and tables.
    unit
        `"–"` for pure numbers.
    formula
        In words or symbols.
    source
        Where the measure comes from.
    channels
        The channels it needs; it is left out where one of them is not known.
    group
        What it is about: buildings, blocks, drive, cycle, walk, street edge, open space, reach.
    """

    name: str
    label: str
    unit: str
    formula: str
    source: str
    channels: tuple[str, ...]
    group: str


@dataclass(frozen=True)
class Form:
    """The urban form of a layout.

    Attributes
    ----------
    values
        Measure → value in its unit; NaN where the layout has nothing to measure. Conditions are among them.
    samples
        What lies behind the medians, to be pooled over layouts: `footprint_area`, `compactness`, `elongation`,
        `nearest_building`, `setback`, `block_area`, `block_shape`; and for each network its `…_segment_length`, and
        `…_bearing` with `…_bearing_length`, in degrees from the grid's north and metres.
    """

    values: dict[str, float]
    samples: dict[str, NDArray[np.float64]] = field(repr=False)


_DRIVE = NETWORKS["drive"]
_MOMEPY = "momepy, Fleischmann (2019)"
_OSMNX = "osmnx, Boeing (2017)"
_BOEING = "Boeing (2019)"


def _of_network(network: str) -> tuple[FormMeasure, ...]:
    rows = (
        ("length_density", "length density", "km/km²", "length / ground", _OSMNX),
        (
            "intersection_density",
            "junction density",
            "1/km²",
            f"nodes where three or more ways meet, those within {2 * JUNCTION_M:g} m of each other one, / ground",
            _OSMNX,
        ),
        ("segment_length", "segment length", "m", "median length of a way between two nodes", _OSMNX),
        ("circuity", "circuity", "–", "Σ length / Σ distance between a way's ends", _OSMNX),
        ("mean_degree", "ways at a node", "–", "mean number of ways that meet at a node", _OSMNX),
        ("dead_ends", "dead ends", "–", "share of nodes with one way", _BOEING),
        ("three_way", "three-way junctions", "–", "share of nodes with three ways", _BOEING),
        ("four_way", "four-way junctions", "–", "share of nodes with four or more ways", _BOEING),
        (
            "orientation_entropy",
            "orientation entropy",
            "nat",
            f"H_o = −Σ p ln p over {BINS} bins of bearings, each way both ways, weighted by length",
            _BOEING,
        ),
        ("orientation_order", "orientation order", "–", "φ = 1 − ((H_o − ln 4) / (ln 36 − ln 4))²", _BOEING),
        (
            "betweenness_gini",
            "betweenness concentration",
            "–",
            "Gini coefficient of the nodes' betweenness, shortest paths by length",
            "Crucitti, Latora & Porta (2006)",
        ),
        ("largest_component", "in the largest component", "–", "share of the length", "networkx"),
    )
    channels = NETWORKS[network]
    return tuple(
        FormMeasure(f"{network}_{name}", f"{label}, {network}", unit, formula, source, channels, network)
        for name, label, unit, formula, source in rows
    )


FORM: Mapping[str, FormMeasure] = MappingProxyType(
    {
        m.name: m
        for m in (
            *(
                FormMeasure(*row, ("building",), "buildings")
                for row in (
                    ("building_count", "buildings", "1/ha", "buildings / ground", _MOMEPY),
                    ("footprint_area", "footprint", "m²", "median area of a building", _MOMEPY),
                    (
                        "compactness",
                        "compactness",
                        "–",
                        "median of area / area of the smallest circle around the building",
                        f"circular compactness, {_MOMEPY}",
                    ),
                    (
                        "elongation",
                        "elongation",
                        "–",
                        "median of width / length of the smallest rectangle around the building; 1 is a square",
                        _MOMEPY,
                    ),
                    (
                        "nearest_building",
                        "distance to the nearest building",
                        "m",
                        "median over the buildings",
                        f"neighbour distance, {_MOMEPY}",
                    ),
                    (
                        "courtyard_share",
                        "courtyards",
                        "–",
                        "Σ area of courtyards / Σ area of buildings with their courtyards",
                        f"courtyard area, {_MOMEPY}",
                    ),
                )
            ),
            *(
                FormMeasure(*row, _DRIVE, "blocks")
                for row in (
                    (
                        "block_count",
                        "blocks",
                        "1/km²",
                        f"faces of the street network of at least {ISLAND_M2:g} m² / ground",
                        "Louf & Barthelemy (2014)",
                    ),
                    ("block_area", "block area", "m²", "median", "Louf & Barthelemy (2014)"),
                    ("block_perimeter", "block perimeter", "m", "median", "Louf & Barthelemy (2014)"),
                    (
                        "block_shape",
                        "block shape",
                        "–",
                        "median of area / area of the smallest circle around the block",
                        "Φ, Louf & Barthelemy (2014)",
                    ),
                )
            ),
            *(m for network in ("drive", "cycle", "walk") for m in _of_network(network)),
            *(
                FormMeasure(*row, ("building", *_DRIVE), "street edge")
                for row in (
                    (
                        "setback",
                        "setback",
                        "m",
                        "median over the buildings of the distance to the nearest carriageway's edge",
                        "Alexander et al. (1977), pattern 122 Building Fronts",
                    ),
                    (
                        "street_width",
                        "width between fronts",
                        "m",
                        f"mean along the streets of how far one sees to both sides, up to {SIGHT_M:g} m each, added",
                        "street profile, Araldi & Fusco (2019)",
                    ),
                    (
                        "openness",
                        "openness of streets",
                        "–",
                        f"share of the streets' sides that have no building within {SIGHT_M:g} m",
                        "street profile, Araldi & Fusco (2019)",
                    ),
                )
            ),
            FormMeasure(
                "open_patch",
                "largest open patch",
                "ha",
                "area of the largest connected patch of cells that green and water cover by half or more",
                "Alexander et al. (1977), pattern 60 Accessible Green",
                ("green", "water"),
                "open space",
            ),
            *(
                FormMeasure(
                    f"reach_{metres:g}",
                    f"reach on foot within {metres:g} m",
                    "km",
                    "mean over the junctions of the length of streets and footways within that way, inside the layout",
                    "metric reach, Peponis, Bafna & Zhang (2008)",
                    (*_DRIVE, *NETWORKS["walk"]),
                    "reach",
                )
                for metres in REACHES_M
            ),
        )
    }
)
"""Every measure of form by name, in the order in which they are listed; the conditions come before them."""


@cache
def round_trip() -> dict[str, dict[str, float]]:
    """Return what vectorising does to each measure on average, in its unit: resolution (`"2"`) → measure → bias.

    Measured on real windows against the source's own vectors, by `benchmarks/round_trip.py`.
    """
    text = files("citygrain.evaluation").joinpath("round_trip.json").read_text(encoding="utf-8")
    bias: dict[str, dict[str, float]] = json.loads(text)["bias"]
    return bias


def bias(name: str, resolution_m: float) -> float | None:
    """Return what vectorising adds to a measure on average, in its unit; None where that has not been measured."""
    return round_trip().get(f"{resolution_m:g}", {}).get(name)


def morphology(
    layout: ArrayLike,
    channels: Sequence[str],
    grid: Grid,
    *,
    vectors: Vectors | None = None,
    service: bool = False,
) -> Form:
    """Measure the urban form of a layout: the conditions, and all of `FORM` whose channels are there.

    Parameters
    ----------
    layout
        `(C, H, W)`, coverage in [0, 1], or 0–255 as uint8.
    channels
        Names of the C channels, in order.
    grid
        Where the cells lie, in a CRS in metres.
    vectors
        What `citygrain.geo.vectorize` made of it, where that has been done.
    service
        Whether service roads belong to the drive network, which the literature measures without them.

    Raises
    ------
    DataError
        For another shape, values that are no coverage, or channels of which nothing is known.
    """
    vectors = vectors or vectorize(layout, channels, grid, service=service)
    cells = np.asarray(layout)
    cells = cells.astype(np.float32) / np.float32(255 if cells.dtype == np.uint8 else 1)
    form = vector_form(vectors)
    conditions = {name: float(value) for name, value in measure(cells, channels, grid.resolution_m).items()}
    values = {**conditions, **form.values}
    if {"green", "water"} <= set(channels):
        open_ground = cells[[channels.index("green"), channels.index("water")]].sum(0) >= 0.5
        values["open_patch"] = _largest_patch(open_ground) * grid.resolution_m**2 / 1e4
    ordered = [*conditions, *(name for name in FORM if name in values)]
    return Form({name: values[name] for name in ordered}, form.samples)


def vector_form(vectors: Vectors) -> Form:
    """Measure all of `FORM` that features tell, so that a source's own can be measured beside a layout's."""
    values: dict[str, float] = {}
    samples: dict[str, NDArray[np.float64]] = {}

    def add(part: Form) -> None:
        values.update(part.values)
        samples.update(part.samples)

    buildings = vectors.areas.get("building")
    streets = vectors.ways.get("drive")
    if buildings is not None:
        add(_buildings(buildings, vectors.grid))
    if streets is not None and set(_DRIVE) <= set(vectors.channels):
        add(_blocks(streets, vectors.grid))
        if buildings is not None:
            add(_street_edge(buildings, streets, vectors.grid))
        if "walk" in vectors.ways:
            add(_reach(vectors.together(("drive", "walk"))))
    for network in ("drive", "cycle", "walk"):
        if network in vectors.ways and set(NETWORKS[network]) <= set(vectors.channels):
            add(_ways(vectors.ways[network], network, vectors.grid))
    return Form({name: values[name] for name in FORM if name in values}, samples)


def _ground_km2(grid: Grid) -> float:
    return grid.width * grid.height * grid.resolution_m**2 / 1e6


def _sides_touched(shapes: NDArray[np.object_], grid: Grid) -> NDArray[np.int64]:
    """How many sides of the layout each shape touches."""
    outer = np.array(grid.bounds) + np.array([1, 1, -1, -1]) * _WHOLE
    bounds = shapely.bounds(shapes)
    touched: NDArray[np.int64] = (bounds[:, :2] < outer[:2]).sum(1) + (bounds[:, 2:] > outer[2:]).sum(1)
    return touched


def _median(values: NDArray[np.float64]) -> float:
    return float(np.median(values)) if len(values) else math.nan


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan


def _buildings(shapes: NDArray[np.object_], grid: Grid) -> Form:
    sides = _sides_touched(shapes, grid)
    whole = gpd.GeoSeries(shapes[sides == 0], crs=grid.crs)
    near = np.empty(0)
    if len(shapes) > 1 and len(whole):
        _, near = shapely.STRtree(shapes).query_nearest(
            whole.to_numpy(), exclusive=True, return_distance=True, all_matches=False
        )
    samples = {
        "footprint_area": shapely.area(whole.to_numpy()),
        "compactness": momepy.circular_compactness(whole).to_numpy(),
        "elongation": momepy.elongation(whole).to_numpy(),
        "nearest_building": near,
    }
    everything = gpd.GeoSeries(shapes, crs=grid.crs)
    yards = float(momepy.courtyard_area(everything).sum())
    values = {name: _median(sample) for name, sample in samples.items()}
    values["building_count"] = float((0.5**sides).sum()) / _ground_km2(grid) / 100
    values["courtyard_share"] = _share(yards, yards + float(everything.area.sum()))
    return Form(values, samples)


def _blocks(streets: Ways, grid: Grid) -> Form:
    frame = shapely.boundary(shapely.box(*grid.bounds))
    noded = shapely.union_all([*streets.lines, frame], grid_size=_WHOLE)
    faces = shapely.get_parts(shapely.polygonize([noded]))
    faces = faces[shapely.area(faces) >= ISLAND_M2]
    sides = _sides_touched(faces, grid)
    whole = gpd.GeoSeries(faces[sides == 0], crs=grid.crs)
    samples = {
        "block_area": whole.area.to_numpy(),
        "block_perimeter": whole.length.to_numpy(),
        "block_shape": momepy.circular_compactness(whole).to_numpy(),
    }
    values = {name: _median(sample) for name, sample in samples.items()}
    values["block_count"] = float((0.5**sides).sum()) / _ground_km2(grid)
    return Form(values, samples)


def _street_edge(buildings: NDArray[np.object_], streets: Ways, grid: Grid) -> Form:
    names = ("setback", "street_width", "openness")
    whole = buildings[_sides_touched(buildings, grid) == 0]
    if not len(streets.lines):
        return Form(dict.fromkeys(names, math.nan), {"setback": np.empty(0)})
    setback = np.empty(0)
    if len(whole):
        (_, nearest), distance = shapely.STRtree(streets.lines).query_nearest(
            whole, return_distance=True, all_matches=False
        )
        half = np.array([WIDTHS[kind] / 2 for kind in streets.kind])
        setback = np.maximum(distance - half[nearest], 0)
    free = _sight(streets.lines, buildings)
    width, openness = float(free.sum(1).mean()), float((free == SIGHT_M).mean())
    return Form(dict(zip(names, (_median(setback), width, openness), strict=True)), {"setback": setback})


def _sight(lines: NDArray[np.object_], buildings: NDArray[np.object_]) -> NDArray[np.float64]:
    """How far one sees to the left and to the right of ways, `(N, 2)` in metres, until a building or `SIGHT_M`.

    `momepy.street_profile` looks from a way's two ends as well, where it sees nothing and takes them for open.
    """
    length = shapely.length(lines)
    count = np.maximum(1, np.round(length / LOOK_EVERY_M)).astype(int)
    of = np.repeat(np.arange(len(lines)), count)
    along = (np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count) + 0.5) / count[of]
    eye, before, after = (
        shapely.get_coordinates(
            shapely.line_interpolate_point(lines[of], np.clip(along + step / length[of], 0, 1), normalized=True)
        )
        for step in (0, -0.5, 0.5)
    )
    ahead = (after - before) / np.maximum(np.hypot(*(after - before).T), 1e-9)[:, None]
    aside = np.stack([ahead[:, ::-1] * (-1, 1), ahead[:, ::-1] * (1, -1)], 1)
    rays = shapely.linestrings(np.stack([np.repeat(eye[:, None], 2, 1), eye[:, None] + SIGHT_M * aside], 2)).ravel()
    free = np.full(len(rays), SIGHT_M)
    ray, building = shapely.STRtree(buildings).query(rays, predicate="intersects")
    hit = shapely.distance(shapely.points(eye[ray // 2]), shapely.intersection(rays[ray], buildings[building]))
    np.minimum.at(free, ray, hit)
    return free.reshape(-1, 2)


def _ways(ways: Ways, network: str, grid: Grid) -> Form:
    length = shapely.length(ways.lines).astype(float)
    inside = ~ways.at_edge
    degree = ways.street_count[inside]
    whole = inside[ways.ends].all(1)
    step = ways.nodes[ways.ends[:, 1]] - ways.nodes[ways.ends[:, 0]]
    straight = np.hypot(*step.T)
    open_ended = straight > _WHOLE  # a ring has no bearing
    bearing = np.degrees(np.arctan2(step[open_ended, 0], step[open_ended, 1])) % 360
    entropy = orientation_entropy(bearing, length[open_ended])
    junctions = shapely.buffer(shapely.points(ways.nodes[inside][degree >= 3]), JUNCTION_M)
    values = {
        "length_density": float(length.sum()) / 1e3 / _ground_km2(grid),
        "intersection_density": len(shapely.get_parts(shapely.union_all(junctions))) / _ground_km2(grid),
        "segment_length": _median(length[whole]),
        "circuity": _share(float(length.sum()), float(straight.sum())),
        "mean_degree": float(degree.mean()) if len(degree) else math.nan,
        "dead_ends": _share(int((degree == 1).sum()), len(degree)),
        "three_way": _share(int((degree == 3).sum()), len(degree)),
        "four_way": _share(int((degree >= 4).sum()), len(degree)),
        "orientation_entropy": entropy,
        "orientation_order": orientation_order(entropy),
        "betweenness_gini": _betweenness_gini(ways, length),
        "largest_component": _largest_component(ways, length),
    }
    samples = {"segment_length": length[whole], "bearing": bearing, "bearing_length": length[open_ended]}
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
        Add what few ways take off the entropy on average, (K − 1) / 2N, with K bins that are taken of the half circle
        and N ways (Miller 1955); for unequal weights N is (Σw)² / Σw². 36 bins of evenly spread bearings look ordered
        where there are few: φ is .40 with 20 ways and .016 with 500 without it.
    """
    degrees = np.asarray(bearings, float)
    weight = np.ones(len(degrees)) if weights is None else np.asarray(weights, float)
    if not weight.sum() > 0:
        return math.nan
    # A bearing and its opposite fall into opposite bins: half the circle tells all.
    half = np.floor((degrees % 180 + 180 / BINS) / (360 / BINS)).astype(int) % (BINS // 2)
    share = np.bincount(half, weight) / weight.sum()
    share = share[share > 0]
    entropy = math.log(2) - float((share * np.log(share)).sum())
    if corrected:
        entropy += (len(share) - 1) * float((weight**2).sum() / weight.sum() ** 2) / 2
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


def _reach(ways: Ways) -> Form:
    names = [f"reach_{metres:g}" for metres in REACHES_M]
    junctions = np.flatnonzero(ways.street_count >= 3)
    if not len(junctions):
        return Form(dict.fromkeys(names, math.nan), {})
    length = shapely.length(ways.lines)
    distance = _distances(ways.ends, length, len(ways.nodes), junctions)
    from_u, from_v = distance[:, ways.ends[:, 0]], distance[:, ways.ends[:, 1]]
    values = {}
    for name, metres in zip(names, REACHES_M, strict=True):
        walked = np.maximum(metres - from_u, 0) + np.maximum(metres - from_v, 0)
        values[name] = float(np.minimum(walked, length).sum(1).mean()) / 1e3
    return Form(values, {})


def _distances(
    ends: NDArray[np.int64], length: NDArray[np.float64], n: int, sources: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Metres along the ways from each source to each node, `(S, n)`; ∞ beyond the farthest reach."""
    pair = np.sort(ends, 1)
    order = np.lexsort((length, pair[:, 1], pair[:, 0]))  # of parallel ways, the shortest comes first
    _, first = np.unique(pair[order], axis=0, return_index=True)
    keep = order[first]
    graph = coo_array((length[keep], (pair[keep, 0], pair[keep, 1])), (n, n)).tocsr()
    metres: NDArray[np.float64] = dijkstra(graph, directed=False, indices=sources, limit=max(REACHES_M))
    return metres


def _largest_patch(mask: NDArray[np.bool_]) -> int:
    labels, count = ndimage.label(mask)
    return int(np.bincount(labels.ravel())[1:].max()) if count else 0
