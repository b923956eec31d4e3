"""Windows a second from coverage to polygons and graphs, and what the way there and back costs in accuracy.

    python benchmarks/vectorize.py data/cities/copenhagen data/cities/los_angeles
    python benchmarks/vectorize.py data/cities/copenhagen --source copenhagen.mbtiles

Windows of 512 m are taken at random from prepared places, all channels, and vectorised in `--workers` processes. Beside
it, in the same processes, what a script would do: cells above a half, outlined along their edges by
`rasterio.features.shapes`, and a graph of skeleton cells, thinned by scikit-image and linked by networkx.

With `--source`, the tiles that a place was made of, the same windows are also measured on the source's own lines,
noded, and on its buildings: how long the street network is, how many junctions it has (osmnx, those within 10 m are
one), how its orientations spread (entropy in nat, weighted by length), and how well the coverage of buildings is met
when the polygons are drawn again (intersection over union).

With `--picture`, features of two windows of each place are drawn: those at the 75th and the 95th percentile of what
buildings and streets cover.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import geopandas as gpd
import networkx as nx
import numpy as np
import osmnx as ox
import rasterio.features
import shapely
from affine import Affine
from numpy.typing import NDArray
from skimage.morphology import skeletonize

from citygrain.geo.cityraster import CityRaster
from citygrain.geo.place import Place
from citygrain.geo.rasterize import Grid, rasterize
from citygrain.geo.sources import features
from citygrain.geo.sources.vectortiles import VectorTiles
from citygrain.geo.vectorize import AREAS, NETWORKS, Vectors, noded, vectorize
from citygrain.plot import vector_sheet

SIDE_M = 512.0

Window = tuple[NDArray[np.uint8], tuple[str, ...], Grid]


def windows(folder: Path, count: int, seed: int, resolution_m: float | None = None) -> Iterator[Window]:
    """Windows of a prepared place at random, wholly within it, in its own resolution or another that it has."""
    raster = CityRaster.open(folder)
    level = raster.level(resolution_m or raster.resolution_m)
    side = round(SIDE_M / level.resolution_m)
    rng = np.random.default_rng(seed)
    while count:
        row, column = (int(rng.integers(0, n - side)) for n in level.valid.shape)
        part = np.s_[row : row + side, column : column + side]
        if level.valid[part].all():
            count -= 1
            left, top = level.transform.c + column * level.resolution_m, level.transform.f - row * level.resolution_m
            grid = Grid(raster.grid.crs, left, top, level.resolution_m, side, side)
            yield np.ascontiguousarray(level.array[(slice(None), *part)]), raster.channels, grid


def built(window: Window) -> float:
    """Return how much of a window buildings and streets cover."""
    cells, channels, _ = window
    return float(cells[[channels.index(name) for name in ("building", "arterial", "street")]].mean())


def ours(window: Window) -> int:
    vectors = vectorize(*window)
    return sum(map(len, vectors.areas.values())) + sum(len(ways.lines) for ways in vectors.ways.values())


def naive(window: Window) -> int:
    cells, channels, _ = window
    found = 0
    for name in AREAS:
        mask = cells[channels.index(name)] >= 128
        shapes = rasterio.features.shapes(mask.astype(np.uint8), mask, transform=Affine.identity())
        found += len([shapely.geometry.shape(shape) for shape, _ in shapes])
    for kinds in NETWORKS.values():
        thin = skeletonize(cells[[channels.index(k) for k in kinds]].max(0) >= 128)
        on = set(map(tuple, np.argwhere(thin).tolist()))
        steps = ((0, 1), (1, 0), (1, 1), (1, -1))
        graph = nx.Graph(((r, c), (r + i, c + j)) for r, c in on for i, j in steps if (r + i, c + j) in on)
        found += graph.number_of_edges()
    return found


def rate(work: Callable[[Window], int], jobs: list[Window], pool: ProcessPoolExecutor, workers: int) -> float:
    """Windows a second, once every process has started."""
    list(pool.map(work, jobs[: 2 * workers]))
    started = time.perf_counter()
    list(pool.map(work, jobs, chunksize=4))
    return len(jobs) / (time.perf_counter() - started)


def measured(vectors: Vectors) -> tuple[nx.MultiGraph, NDArray[np.float64]] | None:
    """Return the street graph with its bearings, and its length and number of junctions."""
    if not len(vectors.ways["drive"].lines):
        return None
    graph = vectors.graph("drive")
    stats = ox.basic_stats(graph, area=SIDE_M**2, clean_int_tol=10)
    bearings = ox.bearing.add_edge_bearings(ox.project_graph(graph, to_latlong=True))
    length, junctions = stats["street_length_total"], stats["clean_intersection_count"]
    return ox.convert.to_undirected(bearings), np.array([length, junctions], float)


def accuracy(folder: Path, source: Path, jobs: list[Window]) -> dict[str, float]:
    """Compare windows with the source that they were drawn from."""
    bounds = np.array([grid.bounds for *_, grid in jobs])
    area = shapely.box(*bounds[:, :2].min(0) - 50, *bounds[:, 2:].max(0) + 50)
    crs = jobs[0][2].crs
    degrees = gpd.GeoSeries([area], crs=crs).to_crs("EPSG:4326").iloc[0]
    found = features(Place(folder.name, degrees, crs), VectorTiles(source))
    lines = np.concatenate([np.asarray(found[kind].geometry, object) for kind in NETWORKS["drive"]])
    lines = lines[shapely.get_dimensions(lines) == 1]
    tree = shapely.STRtree(lines)
    graphs: dict[str, list[nx.MultiGraph]] = {"ours": [], "source": []}
    totals = {name: np.zeros(2) for name in graphs}
    both = either = 0.0
    for cells, channels, grid in jobs:
        made = vectorize(cells, channels, grid)
        near = lines[tree.query(shapely.box(*grid.bounds))]
        for name, vectors in (("ours", made), ("source", noded({"street": near}, grid))):
            result = measured(vectors)
            if result:
                graphs[name].append(result[0])
                totals[name] += result[1]
        layer = made.layers()["building"].assign(width_m=np.nan)
        back = np.concatenate(list(rasterize({"building": layer}, grid, ("building",))), 1)[0]
        drawn = cells[channels.index("building")]
        both, either = both + np.minimum(back, drawn).sum(), either + np.maximum(back, drawn).sum()
    entropy = {
        name: ox.bearing.orientation_entropy(nx.disjoint_union_all(found), weight="length")
        for name, found in graphs.items()
    }
    length, junctions = totals["ours"] / totals["source"]
    return {
        "length": length, "junctions": junctions, "entropy": entropy["ours"] - entropy["source"], "IoU": both / either,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="+", type=Path, help="folders of prepared places, at 2 m")
    parser.add_argument("--windows", type=int, default=200, help="of each place")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--source", nargs="*", type=Path, default=[], help="the .mbtiles of each place, in order")
    parser.add_argument("--picture", type=Path, help="PNG to write")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with ProcessPoolExecutor(args.workers, multiprocessing.get_context("spawn")) as pool:
        for folder in args.places:
            jobs = list(windows(folder, args.windows, args.seed))
            rates: dict[str, float] = {}
            for name, work in (("citygrain", ours), ("naive", naive)):
                rates[name] = rate(work, jobs, pool, args.workers)
            text = "  ".join(f"{name} {value:.1f} windows/s" for name, value in rates.items())
            print(f"{folder.name}: {text}  ({rates['citygrain'] / rates['naive']:.2f} ×, {args.workers} processes)")
    if args.picture:
        shown = {}
        for folder in args.places:
            jobs = sorted(windows(folder, args.windows, args.seed), key=built)
            for share in (0.75, 0.95):
                shown[f"{folder.name}, {share:.0%}"] = vectorize(*jobs[int(share * len(jobs))])
        vector_sheet(list(shown.values()), args.picture, titles=list(shown))
    for folder, source in zip(args.places, args.source, strict=False):
        made: dict[str, Any] = accuracy(folder, source, list(windows(folder, args.windows, args.seed)))
        print(f"{folder.name}: " + "  ".join(f"{name} {value:.3f}" for name, value in made.items()))


if __name__ == "__main__":
    main()
