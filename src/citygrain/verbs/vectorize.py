"""`citygrain vectorize`: layouts on GeoTIFFs to buildings, open spaces and street graphs that a GIS opens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rich
from rich.table import Table

from citygrain.geo.vector_files import collect_layers, vectorize_layouts
from citygrain.geo.vectorize import AREAS, NETWORKS, Vectors
from citygrain.plot import make_vector_sheet, save_figure
from citygrain.support.console import make_table
from citygrain.support.options import parse

SHOWN = 8
"""Layouts in the picture at most."""


@dataclass(frozen=True)
class Options:
    """`conf/vectorize.yaml`."""

    layouts: Path
    out: Path
    formats: tuple[str, ...]
    bounds: tuple[float, ...] | None
    service: bool
    smallest_m2: dict[str, float]
    workers: int | None


def run(config: Mapping[str, Any]) -> dict[str, Vectors]:
    """Vectorise what the configuration names, write it, draw it in `vectors.png` and tell of it."""
    asked = parse(Options, config)
    vectors = vectorize_layouts(
        asked.layouts,
        asked.out,
        formats=asked.formats,
        bounds=asked.bounds,
        service=asked.service,
        smallest_m2=asked.smallest_m2,
        workers=asked.workers,
    )
    shown = dict(list(vectors.items())[:SHOWN])
    save_figure(make_vector_sheet(list(shown.values()), titles=list(shown)), asked.out / "vectors.png")
    rich.print(_summary_table(collect_layers(vectors), len(vectors)))
    crs = next(iter(vectors.values())).grid.crs
    rich.print(f"{', '.join(asked.formats)} and a picture: {asked.out}  [dim](in {crs})[/]")
    return vectors


def _summary_table(layers: Mapping[str, gpd.GeoDataFrame], n: int) -> Table:
    """Return the features of all layouts for the screen, one row a layer."""
    shown = make_table(f"{n} layout{'s' if n > 1 else ''}", "layer", "features", "in all")
    for name, layer in layers.items():
        if name in AREAS:
            total = f"{layer['area_m2'].sum() / 1e4:,.1f} ha"
        elif name in NETWORKS:
            total = f"{layer['length_m'].sum() / 1e3:,.1f} km"
        else:
            total = f"{int(np.sum(layer['street_count'] > 2)):,} junctions"
        shown.add_row(name, f"{len(layer):,}", total)
    return shown
