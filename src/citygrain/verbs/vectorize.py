"""`citygrain vectorize`: layouts on GeoTIFFs to buildings, open spaces and street graphs that a GIS opens."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rich
from rich.table import Table

from citygrain.errors import ConfigError
from citygrain.geo.cityraster import LAYOUT
from citygrain.geo.layout_files import collected, layouts_in, read, write_graphs, write_layers
from citygrain.geo.vectorize import AREAS, NETWORKS, Vectors
from citygrain.plot import vector_sheet
from citygrain.support.console import progress_bar

FORMATS = ("gpkg", "geojson", "parquet", "graphml")


FEW = 8
"""Processes take seconds to start: so many layouts are done before that."""

SHOWN = 8


def run(config: Mapping[str, Any]) -> Path:
    """Vectorise what the configuration names, and write it.

    Parameters
    ----------
    config
        `conf/vectorize.yaml`, composed and plain.

    Returns
    -------
    Path
        The folder, with a file or a folder for each format and `vectors.png`.

    Raises
    ------
    ConfigError
        For an unknown format.
    DataError
        When there are no layouts, or one of them is no layout.
    """
    formats = config["formats"]
    for name in formats:
        if name not in FORMATS:
            raise ConfigError("There is no such format.", got=name, choices=FORMATS)
    if not formats:
        raise ConfigError("Nothing would be written.", got="formats=[]", choices=FORMATS)
    files = layouts_in(Path(config["layouts"]))
    out = Path(config["out"])
    work = partial(read, bounds=config["bounds"], smallest_m2=config["smallest_m2"], service=config["service"])
    named: dict[str, Vectors] = {}
    with progress_bar("vectorising layouts", len(files)) as advance:
        for file, vectors in zip(files, _worked(work, files, config["workers"]), strict=True):
            named[file.stem if file.name != LAYOUT else file.parent.name] = vectors
            advance(1)
    layers = collected(named)
    for name in formats:
        if name == "graphml":
            write_graphs(named, out / "graphs")
        else:
            write_layers(layers, name, out)
    vector_sheet(list(named.values())[:SHOWN], out / "vectors.png", titles=list(named)[:SHOWN])
    rich.print(_table(layers, len(named)))
    rich.print(f"{', '.join(formats)} and a picture: {out}  [dim](in {next(iter(named.values())).grid.crs})[/]")
    return out


def _worked(work: Any, files: Sequence[Path], workers: int | None) -> Iterator[Vectors]:
    """Do it in order, in several processes where that is worth while."""
    workers = min(workers or os.cpu_count() or 1, len(files))
    if workers < 2 or len(files) <= FEW:
        yield from map(work, files)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(work, files, chunksize=max(1, min(8, len(files) // workers)))


def _table(layers: Mapping[str, gpd.GeoDataFrame], n: int) -> Table:
    shown = Table(title=f"{n} layout{'s' if n > 1 else ''}")
    for heading in ("layer", "features", "in all"):
        shown.add_column(heading, justify="left" if heading == "layer" else "right")
    for name, layer in layers.items():
        if name in AREAS:
            total = f"{layer['area_m2'].sum() / 1e4:,.1f} ha"
        elif name in NETWORKS:
            total = f"{layer['length_m'].sum() / 1e3:,.1f} km"
        else:
            total = f"{int(np.sum(layer['street_count'] > 2)):,} junctions"
        shown.add_row(name, f"{len(layer):,}", total)
    return shown
