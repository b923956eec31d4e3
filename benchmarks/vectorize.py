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

With `--topology`, files that places were made of (in order; OpenStreetMap extracts or tiles), how the networks of
arterials and streets hang together is measured on the same windows, on the vectors and on the source's own lines,
noded: means over windows of the share of the largest part, of junctions of four ways, of dead ends, and of the network
within 400 m of junctions. Nodes that the window's edge makes do not count, nor do stubs shorter than a street is wide,
on either side. With another checkout's `src` first on PYTHONPATH, it is that build which is measured. `--split val
test` takes windows of held-out blocks, or any where a place's are smaller than a window.

With `--picture`, features of two windows of each place are drawn: those at the 75th and the 95th percentile of what
buildings and streets cover.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
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
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, dijkstra
from skimage.morphology import skeletonize

from citygrain.data.cityraster import CityRaster
from citygrain.geo.layers import WIDTHS
from citygrain.geo.noding import Ways
from citygrain.geo.place import Place
from citygrain.geo.rasterize import Grid, rasterize
from citygrain.geo.sources import read_features
from citygrain.geo.sources.osmfile import OsmFile
from citygrain.geo.sources.vectortiles import VectorTiles
from citygrain.geo.vectorize import AREAS, NETWORKS, Vectors, node_features, vectorize
from citygrain.plot import make_vector_sheet, save_figure

SIDE_M = 512.0

Window = tuple[NDArray[np.uint8], tuple[str, ...], Grid]


def windows(
    folder: Path, count: int, seed: int, resolution_m: float | None = None, splits: Sequence[str] = ("all",)
) -> Iterator[Window]:
    """Windows of a prepared place at random, wholly within it, in its own resolution or another that it has.

    They lie within the blocks of `splits`, or anywhere where those hold no window.
    """
    raster = CityRaster.open(folder)
    level = raster.level(resolution_m or raster.resolution_m)
    side = round(SIDE_M / level.resolution_m)
    rng = np.random.default_rng(seed)
    within = level.valid & np.any([raster.split_mask(level.resolution_m, split) for split in splits], 0)
    total = np.pad(within.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    fits = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side] == side**2
    if not fits.any():
        within = level.valid
    while count:
        row, column = (int(rng.integers(0, n - side)) for n in level.valid.shape)
        part = np.s_[row : row + side, column : column + side]
        if within[part].all():
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
    found = read_features(Place(folder.name, degrees, crs), VectorTiles(source))
    lines = np.concatenate([np.asarray(found[kind].geometry, object) for kind in NETWORKS["drive"]])
    lines = lines[shapely.get_dimensions(lines) == 1]
    tree = shapely.STRtree(lines)
    graphs: dict[str, list[nx.MultiGraph]] = {"ours": [], "source": []}
    totals = {name: np.zeros(2) for name in graphs}
    both = either = 0.0
    for cells, channels, grid in jobs:
        made = vectorize(cells, channels, grid)
        near = lines[tree.query(shapely.box(*grid.bounds))]
        for name, vectors in (("ours", made), ("source", node_features({"street": near}, grid))):
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


TOPOLOGY = ("largest part", "four-way", "dead ends", "reach 400 m")


def topology(ways: Ways) -> tuple[float, ...] | None:
    """Return the `TOPOLOGY` of a network: shares, and kilometres; None where it has no junctions."""
    length, ends = shapely.length(ways.lines), ways.ends
    count = ways.street_count
    stub = ((count[ends] == 1) & ~ways.at_edge[ends]).any(1) & (length < WIDTHS["street"])
    length, ends = length[~stub], ends[~stub]
    n = len(ways.nodes)
    count = np.bincount(ends.ravel(), minlength=n)
    junctions = np.flatnonzero(count > 2)
    if not len(junctions):
        return None
    inner = count[~ways.at_edge]
    inner = inner[(inner > 0) & (inner != 2)]  # where a stub was, a way goes on
    pair = np.sort(ends, 1)
    order = np.lexsort((length, pair[:, 1], pair[:, 0]))  # of parallel ways, the shortest comes first
    _, first = np.unique(pair[order], axis=0, return_index=True)
    keep = order[first]
    graph = coo_array((length[keep], (pair[keep, 0], pair[keep, 1])), shape=(n, n)).tocsr()
    _, part = connected_components(graph, directed=False)
    distance = dijkstra(graph, directed=False, indices=junctions, limit=400.0)
    walked = np.maximum(400 - distance[:, ends], 0).sum(2)
    return (
        float(np.bincount(part[ends[:, 0]], length).max() / length.sum()),
        float((inner > 3).mean()) if len(inner) else 0.0,
        float((inner == 1).mean()) if len(inner) else 0.0,
        float(np.minimum(walked, length).sum(1).mean()) / 1e3,
    )


def hold_together(folder: Path, source: Path, jobs: list[Window]) -> NDArray[np.float64]:
    """Return the `TOPOLOGY` of windows with streets, `(W, 2, 4)`: of the vectors and of the source."""
    bounds = np.array([grid.bounds for *_, grid in jobs])
    area = shapely.box(*bounds[:, :2].min(0) - 50, *bounds[:, 2:].max(0) + 50)
    crs = jobs[0][2].crs
    degrees = gpd.GeoSeries([area], crs=crs).to_crs("EPSG:4326").iloc[0]
    reader = VectorTiles(source) if source.suffix == ".mbtiles" else OsmFile(str(source))
    found = read_features(Place(folder.name, degrees, crs), reader)
    lines = {kind: np.asarray(found[kind].geometry, object) for kind in NETWORKS["drive"]}
    lines = {kind: shapes[shapely.get_dimensions(shapes) == 1] for kind, shapes in lines.items()}
    trees = {kind: shapely.STRtree(shapes) for kind, shapes in lines.items()}
    rows = []
    for cells, channels, grid in jobs:
        drive = [channels.index(kind) for kind in NETWORKS["drive"]]
        near = {kind: lines[kind][tree.query(shapely.box(*grid.bounds))] for kind, tree in trees.items()}
        made = vectorize(cells[drive], NETWORKS["drive"], grid), node_features(near, grid)
        both = [topology(vectors.ways["drive"]) for vectors in made]
        if None not in both:
            rows.append(both)
    return np.array(rows, float).reshape(-1, 2, len(TOPOLOGY))


def compared(name: str, rows: NDArray[np.float64]) -> str:
    ours, source = rows.mean(0)
    shown = (f"{what} {a:.3f} / {b:.3f} ({a / b - 1:+.1%})" for what, a, b in zip(TOPOLOGY, ours, source, strict=True))
    return f"{name:20} {len(rows):4} windows  " + "  ".join(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="+", type=Path, help="folders of prepared places, at 2 m")
    parser.add_argument("--windows", type=int, default=200, help="of each place")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--source", nargs="*", type=Path, default=[], help="the .mbtiles of each place, in order")
    parser.add_argument("--topology", nargs="*", type=Path, default=[], help="the source of each place, in order")
    parser.add_argument("--split", nargs="+", default=["all"], help="blocks that --topology takes its windows from")
    parser.add_argument("--no-speed", action="store_true", help="leave the windows a second out")
    parser.add_argument("--picture", type=Path, help="PNG to write")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with ProcessPoolExecutor(args.workers, multiprocessing.get_context("spawn")) as pool:
        for folder in args.places if not args.no_speed else ():
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
        save_figure(make_vector_sheet(list(shown.values()), titles=list(shown)), args.picture)
    for folder, source in zip(args.places, args.source, strict=False):
        made: dict[str, Any] = accuracy(folder, source, list(windows(folder, args.windows, args.seed)))
        print(f"{folder.name}: " + "  ".join(f"{name} {value:.3f}" for name, value in made.items()))
    rows = []
    for folder, source in zip(args.places, args.topology, strict=False):
        rows.append(hold_together(folder, source, list(windows(folder, args.windows, args.seed, splits=args.split))))
        print(compared(folder.name, rows[-1]), flush=True)
    if len(rows) > 1:
        print(compared("all", np.concatenate(rows)))


if __name__ == "__main__":
    main()
