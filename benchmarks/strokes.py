"""How fast a transformer of strokes draws windows, and how many streets go on where it draws beside what is there.

    python benchmarks/strokes.py runs/mine --place copenhagen --sites 16 --areas 12

Speed: windows a second by the clock, and a second of computing (the sum over all threads), for each number of threads;
they are asked for the place alone. Streets: sites of a prepared place, at random, each redrawn twice;
`citygrain.generation.continuity.count_street_ends` counts the streets at their edge, and those of the real layout.
Areas: one and a half windows across, asked for the place alone. Each window but the first is drawn beside others:
the streets that go on in it, and the length of all ways on its own ground, beside that of the first windows.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import rich
import shapely
import torch
from pyproj import Transformer

from citygrain.checkpoint import load
from citygrain.data.cityraster import CityRaster
from citygrain.data.dataset import find_place
from citygrain.errors import DataError
from citygrain.generation.area import draw_area
from citygrain.generation.continuity import count_street_ends
from citygrain.generation.edits import edit
from citygrain.geo.layers import WIDTHS
from citygrain.protocols import DrawsWays, Noise, Trained, require
from citygrain.samplers.areas import Tiling
from citygrain.spec import Conditions
from citygrain.support.console import make_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--place", default="copenhagen")
    parser.add_argument("--data", default="data/cities", help="folder of prepared places")
    parser.add_argument("--n", type=int, default=64, help="windows of one batch")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--sites", type=int, default=0)
    parser.add_argument("--size", type=float, default=200.0, help="edge of a site in metres")
    parser.add_argument("--areas", type=int, default=0)
    args = parser.parse_args()
    generator = load(args.checkpoint)
    table = make_table(
        f"{args.n} windows at once", "threads", "windows/s", "windows/s of computing", "vertices a window"
    )
    for threads in args.threads:
        torch.set_num_threads(threads)
        table.add_row(str(threads), *measure_speed(generator, args.place, args.n))
    if args.threads:
        rich.print(table)
    if args.sites:
        real, drawn = count_ends(
            generator, CityRaster.open(find_place(Path(args.data), args.place)), args.sites, args.size
        )
        rich.print(f"streets that go on across the edge of {args.sites} sites of {args.size:g} m:")
        rich.print(f"real {real[0]} of {real[1]} ({real[0] / real[1]:.1%}), drawn {drawn[0]} of {drawn[1]}", end=" ")
        rich.print(f"({drawn[0] / drawn[1]:.1%})")
    if args.areas:
        going_on, ends, first, later = measure_areas(generator, args.place, args.areas)
        rich.print(f"streets that go on across the seams of {args.areas} areas: {going_on} of {ends}", end=" ")
        rich.print(f"({going_on / ends:.1%}); ways {first:.1f} km/km² in first windows, {later:.1f} beside them")


def measure_areas(generator: Trained, place: str, areas: int) -> tuple[int, int, float, float]:
    """Return streets that go on across seams, of how many, and the length density in first and in later windows."""
    spec = generator.spec
    edge = 3 * spec.size_px // 2
    tiling = Tiling.cover(edge, edge, spec.size_px)
    widths = np.array([WIDTHS[name] for name in spec.channels])
    going_on = ends = 0
    lengths: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(areas):
        layout = draw_area(generator, (edge, edge), {}, place=place, seed=seed).numpy() / 255
        known = np.zeros((edge, edge), bool)
        for rows, columns in map(tiling.__getitem__, range(len(tiling))):
            free = np.zeros_like(known)
            free[rows, columns] = ~known[rows, columns]
            lengths[bool(known.any())].append(float((layout[:, free].mean(1) / widths).sum() * 1000))
            found = count_street_ends(np.where(known | free, layout, 0), free, spec.channels)
            going_on, ends = going_on + found[0], ends + found[1]
            known |= free
    return going_on, ends, float(np.mean(lengths[False])), float(np.mean(lengths[True]))


def measure_speed(generator: Trained, place: str, count: int) -> list[str]:
    drawing = require(generator, DrawsWays, "This benchmark", ["stroke_transformer"])
    asked = Conditions.request(generator.spec, count, {"place": place})
    drawing.sample_with_ways(asked[:2], noise=Noise(range(2)))
    clock, computing = time.perf_counter(), time.process_time()
    _, ways = drawing.sample_with_ways(asked, noise=Noise(range(count)))
    seconds = time.perf_counter() - clock, time.process_time() - computing
    vertices = sum(shapely.get_num_coordinates(one.lines).sum() for one in ways) / count
    return [f"{count / seconds[0]:.1f}", f"{count / seconds[1]:.1f}", f"{vertices:.0f}"]


def count_ends(generator: Trained, raster: CityRaster, sites: int, size_m: float) -> tuple[list[int], list[int]]:
    """Return how many streets go on, of how many: of the real layouts, and of those that are drawn."""
    random = np.random.default_rng(0)
    left, bottom, right, top = raster.grid.bounds
    to_degrees = Transformer.from_crs(raster.crs, "EPSG:4326", always_xy=True)
    real, drawn, done = [0, 0], [0, 0], 0
    while done < sites:
        at = to_degrees.transform(random.uniform(left, right), random.uniform(bottom, top))
        try:
            edited = edit(generator, raster, conditions={"place": raster.name}, at=at, size_m=size_m, n=2, seed=done)
        except DataError:  # outside the place, or without data
            continue
        counts = [
            count_street_ends(layout, edited.site.free, edited.layouts.channels) for layout in edited.layouts.shares
        ]
        if not counts[0][1]:
            continue
        done += 1
        for way in counts[1:]:
            real = [a + b for a, b in zip(real, counts[0], strict=True)]
            drawn = [a + b for a, b in zip(drawn, way, strict=True)]
    return real, drawn


if __name__ == "__main__":
    main()
