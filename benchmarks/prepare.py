"""How long a city takes, in how much memory, and how that compares with the naive way of drawing windows.

    python benchmarks/prepare.py copenhagen.mbtiles --place copenhagen

Prepares the whole place, reading included, in a process of its own (so that its peak memory is its own), then draws the
same cells of a part of it in both ways: ours, and for every window of 512 m a spatial index, four times finer cells
with rasterio, averaged. Prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio.features
import rich
import shapely
import yaml
from affine import Affine
from numpy.typing import NDArray
from rich.table import Table

from citygrain.data.prepare import prepare
from citygrain.geo.layers import CHANNEL_NAMES
from citygrain.geo.place import Place
from citygrain.geo.rasterize import Grid, rasterize
from citygrain.geo.sources import Source, read_features
from citygrain.geo.sources.osmfile import OsmFile
from citygrain.geo.sources.vectortiles import VectorTiles

WINDOW_M = 512
FINER = 4

CONF = Path(__file__).resolve().parents[1] / "conf" / "place"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help=".mbtiles or .osm.pbf")
    parser.add_argument("--place", required=True, help="a place of conf/place")
    parser.add_argument("--resolution", type=float, default=2.0, help="metres")
    parser.add_argument("--windows", type=int, default=12, help="edge in windows of the part drawn in both ways")
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--json", type=Path, default=None, help="where to write the figures")
    parser.add_argument("--only", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    bbox = yaml.safe_load((CONF / f"{args.place}.yaml").read_text())["bbox"]
    place = Place.from_bbox(args.place, bbox)
    source: Source = (VectorTiles if args.source.suffix == ".mbtiles" else OsmFile)(args.source)
    if args.only:
        print(json.dumps(whole(place, source, args.resolution, args.workers)))
        return

    child = [sys.executable, __file__, str(args.source), "--place", args.place, "--resolution", str(args.resolution)]
    child += ["--only"] if args.workers is None else ["--only", "--workers", str(args.workers)]
    figures = json.loads(subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
    figures |= against_naive(place, source, args.resolution, args.windows)
    figures |= {"cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0], "machine": platform.machine()}
    table = Table(title=f"prepare {args.place}, {figures['area_km2']:,.0f} km² at {args.resolution:g} m")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.4g}" if isinstance(value, float) else str(value))
    rich.print(table)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


def whole(place: Place, source: Source, resolution_m: float, workers: int | None) -> dict[str, Any]:
    """Prepare the place from beginning to end."""
    marks: list[tuple[float, float]] = []
    cpu, start = time.process_time(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        raster = prepare(
            place,
            source,
            folder,
            resolution_m=resolution_m,
            workers=workers,
            progress=lambda done, _what: marks.append((done, time.perf_counter() - start)),
        )
        seconds = time.perf_counter() - start
        megabytes = raster.provenance["layout"]["bytes"] / 1e6
    reading = max((t for done, t in marks if done <= 0.5), default=math.nan)
    return {
        "area_km2": raster.provenance["valid_km2"],
        "seconds": seconds,
        "seconds of reading": reading,
        "seconds of cores": time.process_time() - cpu,
        "peak memory GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "layout MB": megabytes,
        "cells a second": math.prod(raster.shape) / seconds,
    }


def against_naive(place: Place, source: Source, resolution_m: float, windows: int) -> dict[str, Any]:
    """Draw the middle of the place in both ways, from the same features in memory."""
    found = read_features(place, source)
    centre = place.utm.centroid
    half = windows * WINDOW_M / 2
    grid = Grid.covering((centre.x - half, centre.y - half, centre.x + half, centre.y + half), place.crs, resolution_m)
    cells = round(WINDOW_M / resolution_m)
    grid = Grid(grid.crs, grid.left, grid.top, resolution_m, windows * cells, windows * cells)

    start = time.perf_counter()
    part = {
        name: layer.cx[grid.bounds[0] : grid.bounds[2], grid.bounds[1] : grid.bounds[3]]
        for name, layer in found.items()
    }
    ours = np.concatenate(list(rasterize(part, grid)), axis=1)
    seconds = time.perf_counter() - start

    start = time.perf_counter()
    theirs = np.empty_like(ours)
    for band, name in zip(theirs, CHANNEL_NAMES, strict=True):
        naive(found[name], grid, cells, band)
    naive_seconds = time.perf_counter() - start

    difference = (ours.astype(float) - theirs) / 255
    partial = (theirs > 0) & (theirs < 255)
    shares = {
        n: (float(a.mean() / 255), float(b.mean() / 255)) for n, a, b in zip(CHANNEL_NAMES, ours, theirs, strict=True)
    }
    return {
        "part km2": (windows * WINDOW_M / 1000) ** 2,
        "ours, seconds": seconds,
        "naive, seconds": naive_seconds,
        "times faster": naive_seconds / seconds,
        "mean absolute difference": float(np.abs(difference).mean()),
        "of partly covered cells": float(np.abs(difference[partial]).mean()),
        **{f"share of {n}, ours / naive": f"{a:.5f} / {b:.5f}  {a / b - 1:+.2%}" for n, (a, b) in shares.items() if b},
    }


def naive(layer: gpd.GeoDataFrame, grid: Grid, cells: int, out: NDArray[np.uint8]) -> None:
    """Draw a layer window by window: select by index, give lines their width, draw finer, average."""
    geometries, widths = layer.geometry.to_numpy(), layer["width_m"].to_numpy()
    reach = np.nanmax(widths, initial=0.0) / 2
    tree = shapely.STRtree(geometries)
    r = grid.resolution_m
    for row in range(0, grid.height, cells):
        for col in range(0, grid.width, cells):
            left, top = grid.left + col * r, grid.top - row * r
            box = shapely.box(left - reach, top - cells * r - reach, left + cells * r + reach, top + reach)
            chosen = tree.query(box)
            shapes = geometries[chosen]
            lines = widths[chosen] > 0
            shapes[lines] = shapely.buffer(shapes[lines], widths[chosen][lines] / 2)
            shapes = shapes[~shapely.is_empty(shapes)]
            if not len(shapes):
                out[row : row + cells, col : col + cells] = 0
                continue
            fine = rasterio.features.rasterize(
                shapes, (cells * FINER, cells * FINER), transform=Affine(r / FINER, 0, left, 0, -r / FINER, top)
            )
            share = fine.reshape(cells, FINER, cells, FINER).mean((1, 3))
            out[row : row + cells, col : col + cells] = np.rint(share * 255)


if __name__ == "__main__":
    main()
