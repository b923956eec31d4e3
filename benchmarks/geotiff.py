"""What our writer of city rasters saves: the same cells, mask and overviews by it and by rasterio, in turns.

    python benchmarks/geotiff.py copenhagen.mbtiles --place copenhagen

Draws the middle of the place once and keeps the strips. Then both writers get the same strips, one after the other and
several times: ours in one pass, and rasterio with strips, an internal mask and averaged overviews. Prints a table of
medians and writes JSON. The bias is the mean difference of an overview from the exact average, in 1/255.

Then both write a small file onto a disk that is too small for it, in twenty sizes (a limit on the size of files stands
for it, Linux and macOS): how often no error is raised although the file cannot be read.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rich
import shapely
import yaml
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.windows import Window
from rich.table import Table

from citygrain.geo.geotiff import GeoTiffWriter
from citygrain.geo.layers import CHANNEL_NAMES
from citygrain.geo.place import Place
from citygrain.geo.raster_files import LEVELS, OVERVIEWS
from citygrain.geo.rasterize import STRIP_ROWS, Grid, rasterize, rasterize_area
from citygrain.geo.sources import Source, read_features
from citygrain.geo.sources.osmfile import OsmFile
from citygrain.geo.sources.vectortiles import VectorTiles

Strips = Sequence[tuple[NDArray[np.uint8], NDArray[np.bool_]]]

CONF = Path(__file__).resolve().parents[1] / "conf" / "place"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help=".mbtiles or .osm.pbf")
    parser.add_argument("--place", required=True, help="a place of conf/place")
    parser.add_argument("--resolution", type=float, default=2.0, help="metres")
    parser.add_argument("--km", type=float, default=12.0, help="edge of the part that is written")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1, help="threads of either writer")
    parser.add_argument("--json", type=Path, default=None, help="where to write the figures")
    parser.add_argument("--full", nargs=2, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.full:
        name, limit = args.full
        print(json.dumps(write_small(name, int(limit))))
        return
    place = Place.from_bbox(args.place, yaml.safe_load((CONF / f"{args.place}.yaml").read_text())["bbox"])
    source: Source = (VectorTiles if args.source.suffix == ".mbtiles" else OsmFile)(args.source)
    grid, strips, drawing = drawn(place, source, args.resolution, args.km)
    writers: dict[str, Callable[[Path], None]] = {
        "ours": lambda path: ours(path, grid, strips, args.workers),
        "rasterio": lambda path: plain(path, grid, strips, args.workers),
    }
    figures: dict[str, dict[str, Any]] = {name: {"seconds": [], "seconds of cores": []} for name in writers}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.rounds):
            for name, write in writers.items():
                path = Path(folder) / f"{name}.tif"
                path.unlink(missing_ok=True)
                cpu, start = time.process_time(), time.perf_counter()
                write(path)
                figures[name]["seconds"].append(time.perf_counter() - start)
                figures[name]["seconds of cores"].append(time.process_time() - cpu)
        for name in writers:
            path = Path(folder) / f"{name}.tif"
            figures[name] = {key: float(np.median(values)) for key, values in figures[name].items()}
            figures[name]["MB"] = path.stat().st_size / 1e6
            figures[name] |= {f"bias of ×{factor}": bias(path, strips, factor) for factor in OVERVIEWS}
    for name in writers:
        figures[name]["full disks unnoticed"] = float(unnoticed(name, args))
    whole = {
        "km2": grid.width * grid.height * grid.resolution_m**2 / 1e6,
        "drawing, seconds of cores": drawing,
        "writers": figures,
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
    }
    table = Table(title=f"{whole['km2']:,.0f} km² of {args.place}, drawn in {drawing:.1f} s of cores")
    table.add_column("writer")
    for key in figures["ours"]:
        table.add_column(key, justify="right")
    for name, row in figures.items():
        table.add_row(name, *(f"{value:,.4g}" for value in row.values()))
    rich.print(table)
    if args.json:
        args.json.write_text(json.dumps(whole, indent=1) + "\n")


def drawn(place: Place, source: Source, resolution_m: float, km: float) -> tuple[Grid, Strips, float]:
    """Draw the middle of a place, within a circle; return its grid, its strips and the seconds that it took."""
    found = read_features(place, source)
    centre, half = place.utm.centroid, km * 500
    grid = Grid.covering((centre.x - half, centre.y - half, centre.x + half, centre.y + half), place.crs, resolution_m)
    left, bottom, right, top = grid.bounds
    layers = {name: layer.cx[left:right, bottom:top] for name, layer in found.items()}
    circle = shapely.Point(centre.x, centre.y).buffer(1.2 * half)
    start = time.process_time()
    strips = []
    for strip, inside in zip(rasterize(layers, grid), rasterize_area(circle, grid), strict=True):
        valid = inside > 127
        strips.append((strip * valid, valid))
    return grid, strips, time.process_time() - start


def ours(path: Path, grid: Grid, strips: Strips, workers: int) -> None:
    """Write in one pass."""
    with GeoTiffWriter(path, grid, CHANNEL_NAMES, LEVELS, "© nobody", workers) as writer:
        for strip, valid in strips:
            writer.write(strip, valid)


def plain(path: Path, grid: Grid, strips: Strips, workers: int) -> None:
    """Write the cells and the mask, then let GDAL average."""
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True, GDAL_NUM_THREADS=workers),
        rasterio.open(
            path, "w", driver="GTiff", dtype="uint8", count=len(CHANNEL_NAMES), width=grid.width, height=grid.height,
            crs=grid.crs, transform=grid.transform, photometric="minisblack", tiled=True, blockxsize=STRIP_ROWS,
            blockysize=STRIP_ROWS, interleave="band", compress="deflate", zlevel=1, sparse_ok=True,
            num_threads=workers,
        ) as tif,
    ):  # fmt: skip
        row = 0
        for strip, valid in strips:
            window = Window(0, row, grid.width, len(valid))
            tif.write(strip, window=window)
            tif.write_mask(valid, window=window)
            row += len(valid)
        tif.descriptions = CHANNEL_NAMES
        tif.build_overviews(OVERVIEWS, Resampling.average)


def bias(path: Path, strips: Strips, factor: int) -> float:
    """Mean difference of an overview from the exact average, in 1/255, where all cells under it are valid."""
    with rasterio.open(path, overview_level=OVERVIEWS.index(factor)) as tif:
        overview = tif.read()
    total, count, row = 0.0, 0, 0
    for strip, valid in strips:
        shape = (len(valid) // factor, factor, -1, factor)
        exact = strip.reshape(len(strip), *shape).mean((2, 4), dtype=np.float32)
        partial = valid.reshape(shape).all((1, 3)) & (exact > 0) & (exact < 255)
        total += float((overview[:, row : row + shape[0]] - exact)[partial].sum())
        count += int(partial.sum())
        row += shape[0]
    return total / count


def unnoticed(name: str, args: argparse.Namespace) -> int:
    """Count the disks that are too small and on which a writer raises no error: a process each."""

    def write(limit: int) -> dict[str, Any]:
        command = [sys.executable, __file__, str(args.source), "--place", args.place, "--full", name, str(limit)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        return found

    size = write(2**40)["bytes"]
    tried = [write(round(share * size)) for share in np.linspace(0.05, 0.999, 20)]
    return sum(not found["raised"] and not found["readable"] for found in tried)


def write_small(name: str, limit: int) -> dict[str, Any]:
    """Return whether writing noise beyond a limit raises an error, and whether the file can be read."""
    cells = np.random.default_rng(0).integers(1, 255, (len(CHANNEL_NAMES), 2048, 2048), dtype=np.uint8)
    valid = np.ones((2048, 2048), bool)
    valid[:100] = False
    strips = [
        (cells[:, rows] * valid[rows], valid[rows])
        for rows in (slice(top, top + STRIP_ROWS) for top in range(0, 2048, STRIP_ROWS))
    ]
    grid = Grid("EPSG:32633", 500_000.0, 6_000_000.0, 2.0, 2048, 2048)
    raised, readable = False, True
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.tif"
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            (ours if name == "ours" else plain)(path, grid, strips, 1)
        except Exception:  # noqa: BLE001  (rasterio raises errors of GDAL that it does not hand out)
            raised = True
        try:
            for level in (None, *range(len(OVERVIEWS))):
                with rasterio.open(path, **({} if level is None else {"overview_level": level})) as tif:
                    tif.read()
                    tif.dataset_mask()
        except rasterio.errors.RasterioError:
            readable = False
        return {"raised": raised, "readable": readable, "bytes": path.stat().st_size}


if __name__ == "__main__":
    main()
