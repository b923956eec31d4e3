"""Urban form of one layout: buildings, blocks, streets and how they meet, measured on its vectors.

Conditions (`citygrain.measures.MEASURES`) are read off the cells. Measures of form (`citygrain.evaluation.form.FORM`)
are taken on the features that `citygrain.geo.vectorize` makes of the cells, by the same code for real and for generated
layouts.

The edge of a layout cuts buildings, blocks and streets in two. Therefore:

- a shape (compactness, the length of a segment, the area of a block) is measured on features that the edge does not
  touch;
- in counts, a feature that touches *k* sides of the layout counts as 2⁻ᵏ features: the mean of the four unbiased
  counting frames (Gundersen 1977);
- the point where a street meets the edge is no node: it counts neither as a dead end nor as a crossing.

A layout without any building has no shape of buildings: such a measure is NaN, never 0. Densities and shares of ground
are 0 then. A measure whose channels are not known is left out.

References
----------
Gundersen, H. J. G. (1977). Notes on the estimation of the numerical density of arbitrary profiles: the edge effect.
*Journal of Microscopy* 111(2).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from citygrain.evaluation.form import DRIVE, FORM, ISLAND_M2, SIGHT_M, Form, ground_km2, median, share
from citygrain.evaluation.networks import measure_network, measure_reach
from citygrain.geo.layers import WIDTHS
from citygrain.geo.noding import Ways
from citygrain.geo.rasterize import Grid
from citygrain.geo.vectorize import NETWORKS, Vectors, vectorize
from citygrain.measures import measure

with warnings.catch_warnings():
    # It has progress bars, which in a notebook without ipywidgets warn already when they are imported.
    warnings.filterwarnings("ignore", "IProgress not found")
    import momepy

LOOK_EVERY_M = 10.0
"""Distance along a street's middle line between the points from which fronts are looked for."""

TOUCH_M = 1e-3
"""What comes this near to the layout's edge touches it."""


def measure_form(
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
        What `citygrain.geo.vectorize` made of the layout, where that has been done.
    service
        Whether service roads belong to the drive network, which the literature measures without them.

    Raises
    ------
    DataError
        For another shape, values that are no coverage, or unknown channels.
    """
    vectors = vectors or vectorize(layout, channels, grid, service=service)
    cells = np.asarray(layout)
    cells = cells.astype(np.float32) / np.float32(255 if cells.dtype == np.uint8 else 1)
    form = measure_vectors(vectors)
    conditions = {name: float(value) for name, value in measure(cells, channels, grid.resolution_m).items()}
    values = {**conditions, **form.values}
    if {"green", "water"} <= set(channels):
        open_ground = cells[[channels.index("green"), channels.index("water")]].sum(0) >= 0.5
        values["open_patch"] = _largest_patch(open_ground) * grid.resolution_m**2 / 1e4
    ordered = [*conditions, *(name for name in FORM if name in values)]
    return Form({name: values[name] for name in ordered}, form.samples)


def measure_vectors(vectors: Vectors) -> Form:
    """Measure all of `FORM` that features tell. The features of a source can be measured in the same way.

    A turned layout is measured as if it were upright, so that its bearings are counted from the top of its grid.
    """
    vectors = vectors.turn_upright()
    values: dict[str, float] = {}
    samples: dict[str, NDArray[np.float64]] = {}

    def add(part: Form) -> None:
        values.update(part.values)
        samples.update(part.samples)

    buildings = vectors.areas.get("building")
    streets = vectors.ways.get("drive")
    if buildings is not None:
        add(_measure_buildings(buildings, vectors.grid))
    if streets is not None and set(DRIVE) <= set(vectors.channels):
        add(_measure_blocks(streets, vectors.grid))
        if buildings is not None:
            add(_measure_street_edge(buildings, streets, vectors.grid))
        if "walk" in vectors.ways:
            add(measure_reach(vectors.together(("drive", "walk"))))
    for network in ("drive", "cycle", "walk"):
        if network in vectors.ways and set(NETWORKS[network]) <= set(vectors.channels):
            add(measure_network(vectors.ways[network], network, vectors.grid))
    return Form({name: values[name] for name in FORM if name in values}, samples)


def _sides_touched(shapes: NDArray[np.object_], grid: Grid) -> NDArray[np.int64]:
    """Count the sides of the layout that each shape touches."""
    outer = np.array(grid.bounds) + np.array([1, 1, -1, -1]) * TOUCH_M
    bounds = shapely.bounds(shapes)
    touched: NDArray[np.int64] = (bounds[:, :2] < outer[:2]).sum(1) + (bounds[:, 2:] > outer[2:]).sum(1)
    return touched


def _measure_buildings(shapes: NDArray[np.object_], grid: Grid) -> Form:
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
    values = {name: median(sample) for name, sample in samples.items()}
    values["building_count"] = float((0.5**sides).sum()) / ground_km2(grid) / 100
    values["courtyard_share"] = share(yards, yards + float(everything.area.sum()))
    return Form(values, samples)


def _measure_blocks(streets: Ways, grid: Grid) -> Form:
    frame = shapely.boundary(shapely.box(*grid.bounds))
    noded = shapely.union_all([*streets.lines, frame], grid_size=TOUCH_M)
    faces = shapely.get_parts(shapely.polygonize([noded]))
    faces = faces[shapely.area(faces) >= ISLAND_M2]
    sides = _sides_touched(faces, grid)
    whole = gpd.GeoSeries(faces[sides == 0], crs=grid.crs)
    samples = {
        "block_area": whole.area.to_numpy(),
        "block_perimeter": whole.length.to_numpy(),
        "block_shape": momepy.circular_compactness(whole).to_numpy(),
    }
    values = {name: median(sample) for name, sample in samples.items()}
    values["block_count"] = float((0.5**sides).sum()) / ground_km2(grid)
    return Form(values, samples)


def _measure_street_edge(buildings: NDArray[np.object_], streets: Ways, grid: Grid) -> Form:
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
    free = _look_aside(streets.lines, buildings)
    width, openness = float(free.sum(1).mean()), float((free == SIGHT_M).mean())
    return Form(dict(zip(names, (median(setback), width, openness), strict=True)), {"setback": setback})


def _look_aside(lines: NDArray[np.object_], buildings: NDArray[np.object_]) -> NDArray[np.float64]:
    """Measure how far one sees to the left and right of ways, `(N, 2)` in metres: to a building, or `SIGHT_M`.

    `momepy.street_profile` looks from the two ends of a way as well; it sees nothing there, and takes them for open.
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


def _largest_patch(mask: NDArray[np.bool_]) -> int:
    labels, count = ndimage.label(mask)
    return int(np.bincount(labels.ravel())[1:].max()) if count else 0
