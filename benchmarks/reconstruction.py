"""What a codec keeps of real windows: variance and edges of every channel, and the form of what is decoded.

    python benchmarks/reconstruction.py reference/cities_64 copenhagen los_angeles --windows 40
    python benchmarks/reconstruction.py strokes copenhagen los_angeles --windows 60

The first test windows of prepared places go through the code of a model and back. A mean error says little about
thin streets, edges say more (F-score within a cell, see citygrain.evaluation.boundary), and a drive network that falls
to pieces in its own codec cannot come out whole of a model that draws codes.

With `strokes`, the codec is the one that is computed: ways as strokes on a grid. They come from the lines of the place,
or are traced on its cells of 2 m. Each row of a table is the mean over the windows, measured on cells of 8 m; below it
stands how many windows a second one core writes and reads.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from citygrain.checkpoint import load
from citygrain.data.cityraster import CityRaster
from citygrain.data.dataset import CityWindows, find_place
from citygrain.data.rules import Rules
from citygrain.data.ways import CityStrokes
from citygrain.evaluation.boundary import score_boundaries
from citygrain.evaluation.form import FORM
from citygrain.evaluation.morphology import measure_form
from citygrain.geo.layers import WIDTHS
from citygrain.geo.rasterize import Grid
from citygrain.geo.stroke_code import KINDS, StrokeCode
from citygrain.geo.stroke_drawing import draw_strokes, trace_strokes
from citygrain.latent import find_codec

SHOWN = (
    "building_count", "drive_length_density", "drive_intersection_density", "drive_dead_ends", "drive_four_way",
    "drive_largest_component", "cycle_largest_component",
)  # fmt: skip

SHOWN_OF_WAYS = (
    "drive_largest_component", "drive_dead_ends", "drive_four_way", "drive_orientation_order", "drive_segment_length",
    "block_perimeter",
)  # fmt: skip

CODES = {
    f"{grid:g} m, {tolerance:g} m": StrokeCode(grid_m=grid, tolerance_m=tolerance)
    for grid, tolerance in ((4.0, 2.5), (4.0, 1.5), (2.0, 2.5), (2.0, 1.5))
}
"""Grid and tolerance of the codes that are compared."""

SIZE_PX, CELL_M, FINE_M = 64, 8.0, 2.0

GRID = Grid("EPSG:32632", 500_000, 6_000_000, CELL_M, SIZE_PX, SIZE_PX)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("places", nargs="+")
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--data", type=Path, default=Path("data/cities"))
    args = parser.parse_args()
    if args.checkpoint == "strokes":
        for place in args.places:
            compare_codes(CityRaster.open(find_place(args.data, place)), args.windows)
    else:
        judge_codec(args)


def judge_codec(args: argparse.Namespace) -> None:
    """Print what the codec of a checkpoint keeps."""
    codec = find_codec(load(args.checkpoint))
    spec = codec.spec
    rules = Rules(spec.size_px, spec.resolution_m)
    folders = [find_place(args.data, place) for place in args.places]
    windows = CityWindows(folders, "test", rules, channels=spec.channels, raster_format=spec.raster_format)
    real = windows.__getitems__(range(min(args.windows, len(windows)))).layout.float() / 255
    with torch.no_grad():
        decoded = codec.decode(codec.encode(real))
    edges = score_boundaries(decoded, real, spec.channels, spec.resolution_m)
    for i, name in enumerate(spec.channels):
        rest = (decoded[:, i] - real[:, i]).square().mean() / real[:, i].var()
        print(f"{name:30} variance explained {1 - float(rest):6.2f}  edges met {edges[name].f:6.2f}")
    grid = Grid("EPSG:32632", 500_000, 6_000_000, spec.resolution_m, spec.size_px, spec.size_px)
    forms = [
        [
            measure_form((layout.numpy() * 255).round().astype(np.uint8), spec.channels, grid).values
            for layout in layouts
        ]
        for layouts in (real, decoded)
    ]
    for name in SHOWN:
        before, after = (np.nanmean([values[name] for values in form]) for form in forms)
        print(f"{FORM[name].label:30} real {before:8.2f}  decoded {after:8.2f}  {FORM[name].unit}")


def compare_codes(raster: CityRaster, count: int) -> None:
    """Print what is left of the ways of a place's test windows in each code, from its lines and from its cells."""
    kinds = [kind for kind in KINDS if kind in raster.channels and kind not in raster.unknown]
    bands = [raster.channels.index(kind) for kind in kinds]
    city = CityStrokes(raster, kinds)
    codes = {name: StrokeCode(tuple(kinds), grid_m=c.grid_m, tolerance_m=c.tolerance_m) for name, c in CODES.items()}
    windows = CityWindows([raster], "test", Rules(SIZE_PX, CELL_M), channels=kinds)
    _, rows, columns, _ = windows.locate(range(min(count, len(windows))))
    fine, fine_px = raster.level(FINE_M).array, round(SIZE_PX * CELL_M / FINE_M)
    seconds: dict[str, float] = defaultdict(float)
    measured: dict[str, list[list[float]]] = defaultdict(list)
    vertices: dict[str, int] = defaultdict(int)

    @contextmanager
    def timed(what: str) -> Iterator[None]:
        start = time.process_time()
        yield
        seconds[what] += time.process_time() - start

    for row, col in zip(rows.tolist(), columns.tolist(), strict=True):
        measured["real"].append(measure_ways(raster.read(row, col, SIZE_PX, CELL_M)[bands], kinds))
        with timed("cut"):
            cut = city.cut(raster.grid.left + col * CELL_M, raster.grid.top - row * CELL_M, SIZE_PX * CELL_M)
        top, left = round(row * CELL_M / FINE_M), round(col * CELL_M / FINE_M)
        cells = np.array(fine[bands, top : top + fine_px, left : left + fine_px])
        with timed("trace"):
            traced = trace_strokes(cells, kinds, FINE_M, kinds)
        for source, strokes in (("lines", cut), ("cells", traced)):
            drawn = draw_strokes(strokes, kinds, kinds, SIZE_PX, CELL_M)
            measured[f"{source}, not written"].append(measure_ways(drawn, kinds))
            for name, code in codes.items():
                with timed(f"write ({source})"):
                    written = code.to_code(code.write(strokes))
                with timed("read"):
                    back = code.read(code.from_code(written))
                with timed("draw"):
                    drawn = draw_strokes(back, kinds, kinds, SIZE_PX, CELL_M)
                measured[f"{source}, {name}"].append(measure_ways(drawn, kinds))
                vertices[f"{source}, {name}"] += int((written[1:, 0] >= 0).sum())
    print(f"\n{raster.name}, {len(rows)} windows")
    heads = (*kinds, *(name.split("_", 1)[1][-10:] for name in SHOWN_OF_WAYS), "vertices")
    print(f"{'':24}" + "".join(f"{head:>11}" for head in heads))
    for name, values in measured.items():
        numbers = (*np.nanmean(values, 0), vertices[name] / len(rows))
        print(f"{name:24}" + "".join(f"{number:11.3f}" for number in numbers))
    times = {"cut": 1, "trace": 1, "read": 2 * len(codes), "draw": 2 * len(codes)}
    rates = {what: len(rows) * times.get(what, len(codes)) / spent for what, spent in seconds.items()}
    print("windows a second:", ", ".join(f"{what} {rate:.0f}" for what, rate in rates.items()))


def measure_ways(cells: np.ndarray, kinds: Sequence[str]) -> list[float]:
    """Return the length densities in km/km² of each kind, and the form of the drive network."""
    lengths = cells.mean((1, 2)) / 255 / [WIDTHS[kind] for kind in kinds] * 1000
    form = measure_form(cells, kinds, GRID).values
    return [*lengths.tolist(), *(form[name] for name in SHOWN_OF_WAYS)]


if __name__ == "__main__":
    main()
