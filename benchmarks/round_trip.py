"""What the way from a source's vectors to cells and back to vectors does to every measure of urban form.

    python benchmarks/round_trip.py data/cities/copenhagen data/cities/los_angeles \
        --source copenhagen.mbtiles los_angeles.mbtiles

Windows of 512 m are taken at random from prepared places, at each of their resolutions. Their form is measured twice:
on what `citygrain.geo.vectorize` makes of them, and on the source's own lines and polygons, noded. The mean difference
of each measure, in its unit, goes to `src/citygrain/evaluation/round_trip.json`: reports print it beside the measure.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray

from citygrain.data.cityraster import CityRaster
from citygrain.evaluation.form import FORM
from citygrain.evaluation.morphology import measure_vectors
from citygrain.geo.place import Place
from citygrain.geo.sources import read_features
from citygrain.geo.sources.vectortiles import VectorTiles
from citygrain.geo.vectorize import AREAS, node_features, vectorize
from citygrain.support.files import write_text
from vectorize import Window, windows

SHIPPED = Path(__file__).resolve().parents[1] / "src" / "citygrain" / "evaluation" / "round_trip.json"

Shapes = dict[str, NDArray[np.object_]]


def shapes_of(folder: Path, source: Path, jobs: list[Window]) -> Shapes:
    """Return channel → all the source's lines, or polygons, about the windows."""
    bounds = np.array([grid.bounds for *_, grid in jobs])
    area = shapely.box(*bounds[:, :2].min(0) - 50, *bounds[:, 2:].max(0) + 50)
    crs = jobs[0][2].crs
    degrees = gpd.GeoSeries([area], crs=crs).to_crs("EPSG:4326").iloc[0]
    found = {}
    for channel, layer in read_features(Place(folder.name, degrees, crs), VectorTiles(source)).items():
        shapes = np.asarray(layer.geometry, object)
        found[channel] = shapes[shapely.get_dimensions(shapes) == (2 if channel in AREAS else 1)]
    return found


def both(job: tuple[Window, Shapes]) -> list[dict[str, float]]:
    """Measure a window on its cells' vectors and on the source's."""
    (cells, channels, grid), near = job
    return [
        measure_vectors(vectors).values for vectors in (vectorize(cells, channels, grid), node_features(near, grid))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="+", type=Path, help="folders of prepared places")
    parser.add_argument("--source", nargs="+", type=Path, required=True, help="the .mbtiles of each place, in order")
    parser.add_argument("--windows", type=int, default=30, help="of each place and resolution")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=SHIPPED)
    args = parser.parse_args()
    differences: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with ProcessPoolExecutor(args.workers, multiprocessing.get_context("spawn")) as pool:
        for folder, source in zip(args.places, args.source, strict=True):
            raster = CityRaster.open(folder)
            known = [name for name in raster.channels if name not in raster.unknown]
            shapes: Shapes = {}
            for resolution_m in raster.resolutions:
                jobs = [
                    (np.ascontiguousarray(cells[[channels.index(name) for name in known]]), tuple(known), grid)
                    for cells, channels, grid in windows(folder, args.windows, args.seed, resolution_m)
                ]
                shapes = shapes or shapes_of(folder, source, jobs)
                trees = {name: shapely.STRtree(of) for name, of in shapes.items() if name in known}
                work = [
                    (job, {name: shapes[name][tree.query(shapely.box(*job[2].bounds))] for name, tree in trees.items()})
                    for job in jobs
                ]
                for cells_form, source_form in pool.map(both, work, chunksize=4):
                    for name in FORM:
                        difference = cells_form.get(name, np.nan) - source_form.get(name, np.nan)
                        if np.isfinite(difference):
                            differences[f"{resolution_m:g}"][name].append(difference)
                            values[f"{resolution_m:g}"][name].append(source_form[name])
    report: dict[str, Any] = {
        "places": [folder.name for folder in args.places],
        "windows": args.windows,
        "seed": args.seed,
        "bias": {
            resolution: {name: round(float(np.mean(d)), 6) for name, d in by.items()}
            for resolution, by in differences.items()
        },
    }
    write_text(args.out, json.dumps(report, indent=1) + "\n")
    print(f"{'':32}" + "".join(f"{resolution + ' m':>22}" for resolution in report["bias"]))
    for name, about in FORM.items():
        cells = [
            f"{np.mean(values[r][name]):10.4g} {by.get(name, np.nan):+11.3g}" if values[r][name] else f"{'–':>22}"
            for r, by in report["bias"].items()
        ]
        print(f"{about.name:32}" + "".join(cells) + f"  {about.unit}")


if __name__ == "__main__":
    main()
