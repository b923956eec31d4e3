"""Layouts to files of vectors that a GIS or osmnx opens: GeoPackage, GeoJSON, GeoParquet, GraphML."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import geopandas as gpd
import pandas as pd

from citygrain.errors import ConfigError, DataError
from citygrain.geo.drawn_ways import find_vectors, read_ways
from citygrain.geo.layout_files import find_layouts, name_layout, read_layout
from citygrain.geo.osmnx_session import borrow_osmnx
from citygrain.geo.vectorize import AREAS, NETWORKS, SMALLEST_M2, Vectors
from citygrain.support.console import show_progress_bar
from citygrain.support.files import write_atomically

FORMATS = ("gpkg", "geojson", "parquet", "graphml")

FEW = 8
"""Processes take seconds to start: this many layouts are done before that."""


def vectorize_layouts(
    layouts: str | Path,
    out: str | Path,
    *,
    formats: Sequence[str] = ("gpkg",),
    bounds: Sequence[float] | None = None,
    service: bool = False,
    smallest_m2: Mapping[str, float] = SMALLEST_M2,
    workers: int | None = None,
) -> dict[str, Vectors]:
    """Turn the layouts of GeoTIFFs into buildings, open spaces and ways, and write them.

    Parameters
    ----------
    layouts
        A GeoTIFF of coverage with named bands, a folder of such files, a folder that `citygrain sample` wrote, or a
        prepared place.
    out
        The folder for the files: `layouts.gpkg`, the folders `geojson`, `parquet` and `graphs`.
    formats
        Which of `FORMATS` are written. GeoJSON is in degrees, all others are in the CRS of the layouts.
    bounds
        `(left, bottom, right, top)` in the CRS of the GeoTIFF: only this part of it; None for all.
    service, smallest_m2
        See `citygrain.geo.vectorize.vectorize`.
    workers
        Processes; all cores when None. A few layouts are done in one.

    Returns
    -------
    dict
        Name of a layout → its vectors.

    Raises
    ------
    ConfigError
        For an unknown format, or none.
    DataError
        When there are no layouts, or one of them is no layout.
    """
    for name in formats:
        if name not in FORMATS:
            raise ConfigError("There is no such format.", got=name, choices=FORMATS)
    if not formats:
        raise ConfigError("Nothing would be written.", got="formats=[]", choices=FORMATS)
    files, folder = find_layouts(Path(layouts)), Path(out)
    vectorize_one = partial(_vectorize_file, bounds=bounds, service=service, smallest_m2=smallest_m2)
    vectors: dict[str, Vectors] = {}
    with show_progress_bar("vectorising layouts", len(files)) as advance:
        for file, found in zip(files, _map(vectorize_one, files, workers), strict=True):
            vectors[name_layout(file)] = found
            advance(1)
    layers = collect_layers(vectors)
    for name in formats:
        if name == "graphml":
            write_graphs(vectors, folder / "graphs")
        else:
            write_layers(layers, name, folder)
    return vectors


def _vectorize_file(
    path: Path, *, bounds: Sequence[float] | None, service: bool, smallest_m2: Mapping[str, float]
) -> Vectors:
    cells, channels, grid = read_layout(path, bounds)
    ways = read_ways(path.parent, name_layout(path), grid)
    return find_vectors(cells, channels, grid, ways, smallest_m2=smallest_m2, service=service)


def _map(work: Callable[[Path], Vectors], files: Sequence[Path], workers: int | None) -> Iterator[Vectors]:
    """Do the work on all files, in order, in several processes where that is worth while."""
    workers = min(workers or os.cpu_count() or 1, len(files))
    if workers < 2 or len(files) <= FEW:
        yield from map(work, files)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(work, files, chunksize=max(1, min(8, len(files) // workers)))


def collect_layers(vectors: Mapping[str, Vectors]) -> dict[str, gpd.GeoDataFrame]:
    """Put the features of all layouts together: `Vectors.layers`, with the name of their `layout`."""
    layers: dict[str, list[gpd.GeoDataFrame]] = {}
    for layout, found in vectors.items():
        for name, part in found.layers().items():
            layers.setdefault(name, []).append(part.assign(layout=layout))
    return {
        name: gpd.GeoDataFrame(pd.concat(parts, ignore_index=True), crs=parts[0].crs) for name, parts in layers.items()
    }


def write_layers(layers: Mapping[str, gpd.GeoDataFrame], file_format: str, folder: Path) -> None:
    """Write tables as `layouts.gpkg`, or as one file a layer in a folder that is named like the format.

    A layer without features has the types of its columns and, in a GeoPackage, of its geometry all the same.
    """
    if file_format == "gpkg":
        with write_atomically(folder / "layouts.gpkg") as temporary:
            for name, layer in layers.items():
                kind = "Polygon" if name in AREAS else "LineString" if name in NETWORKS else "Point"
                layer.to_file(temporary, layer=name, driver="GPKG", geometry_type=kind)
        return
    for name, layer in layers.items():
        with write_atomically(folder / file_format / f"{name}.{file_format}") as temporary:
            if file_format == "parquet":
                layer.to_parquet(temporary)
            else:  # RFC 7946: GeoJSON is in degrees
                layer.to_crs("EPSG:4326").to_file(temporary, driver="GeoJSON", layer=name)


def write_graphs(vectors: Mapping[str, Vectors], folder: Path) -> None:
    """Write a GraphML file for each layout and network that has ways, and for all but rail as one."""
    with borrow_osmnx() as ox:
        for layout, found in vectors.items():
            for network in found.networks:
                path = folder / f"{layout}_{network}.graphml"
                try:
                    graph = found.graph(network)
                except DataError:  # there are no such ways
                    path.unlink(missing_ok=True)  # of a layout that this one replaces
                else:
                    with write_atomically(path) as temporary:
                        ox.save_graphml(graph, temporary)
