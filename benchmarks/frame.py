"""How well the frame of a window is found: off its cells, against off the lines that the source has of its streets.

    python benchmarks/frame.py data/cities/copenhagen data/cities/los_angeles

Both are of the same circle in the middle of the same windows. *Bearing* is how far the two differ, in degrees: the
median, and what nine of ten windows stay below. *Left* is how far the streets of the turned window are still off its
rows and columns, as `bearing` is measured on it. *Order* is the correlation of the two orders. The last row but one
looks at the whole square instead of the circle: so much the choice of the ground matters.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from citygrain.data.cityraster import CityRaster
from citygrain.data.dataset import CityWindows
from citygrain.data.rules import Augmentation, Rules
from citygrain.data.transforms import cut_windows
from citygrain.data.ways import CityStrokes
from citygrain.geo.stroke_code import FRAMED
from citygrain.geo.window_strokes import Strokes
from citygrain.networks.frame import measure_conditions

STEP_M = 2.0
"""Lines are looked at in pieces of this length."""

Frames = NDArray[np.float64]
"""`(N, 2)`: bearing in degrees, and order."""


def find_line_frame(strokes: Strokes, radius_m: float) -> tuple[float, float]:
    """Return ¼ arg Σ length · e^{4iφ} in degrees, and |Σ length · e^{4iφ}| / Σ length, over pieces within a circle."""
    step = np.diff(strokes.xy, axis=0)
    length = np.hypot(*step.T) * (strokes.stroke[1:] == strokes.stroke[:-1])
    count = np.ceil(length / STEP_M).astype(int)
    of = np.repeat(np.arange(len(count)), count)
    along = (np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count) + 0.5) / np.maximum(count[of], 1)
    middle = strokes.xy[of] + step[of] * along[:, None]
    weight = length[of] / np.maximum(count[of], 1) * (np.hypot(*middle.T) <= radius_m)
    total = (weight * np.exp(4j * np.arctan2(step[of, 1], step[of, 0]))).sum() / max(weight.sum(), 1e-9)
    return math.degrees(np.angle(total)) / 4, abs(total)


def differ(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return by how many degrees bearings differ, from 0 to 45."""
    return np.abs((one - other + 45) % 90 - 45)


def tell(name: str, off: NDArray[np.float64], order: float = math.nan, left: NDArray[np.float64] | None = None) -> None:
    """Print a row of the table."""
    cells = [f"{np.median(off):.2f}", f"{np.quantile(off, 0.9):.2f}"]
    cells += ["–"] if left is None else [f"{np.median(left):.2f}, {np.quantile(left, 0.9):.2f}"]
    print(f"| {name} | {' | '.join(cells)} | {'–' if math.isnan(order) else f'{order:.2f}'} |")


def main() -> None:
    """Compare the frames of train windows of places."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("places", nargs="+", type=Path, help="folders of prepared places")
    parser.add_argument("--windows", type=int, default=400, help="of each place")
    parser.add_argument("--size", type=int, default=64, help="edge of a window in cells")
    parser.add_argument("--resolution", type=float, default=8.0, help="edge of a cell in metres")
    args = parser.parse_args()
    print("| | bearing: median | 90 % | left | order |\n|---|---|---|---|---|")
    rules = Rules(args.size, args.resolution)
    for place in args.places:
        raster = CityRaster.open(place)
        lines = CityStrokes(raster, FRAMED)
        windows = CityWindows(
            [raster], "train", rules, augmentation=Augmentation(symmetries=False), frame="streets", channels=FRAMED
        )
        index = range(args.windows)
        began = time.process_time()
        raw = windows.__getitems__(index)
        took = time.process_time() - began
        seen = measure_conditions(cut_windows(raw, args.size), FRAMED, args.resolution, ["bearing", "order"])
        edge, extent_m = (windows.reach - args.size) / 2, args.size * args.resolution
        circle, square = np.empty((args.windows, 2)), np.empty((args.windows, 2))
        for i, (row, column) in enumerate(zip(raw.row.tolist(), raw.col.tolist(), strict=True)):
            left = raster.grid.left + (column + edge) * args.resolution
            strokes = lines.cut(left, raster.grid.top - (row + edge) * args.resolution, extent_m)
            circle[i], square[i] = find_line_frame(strokes, extent_m / 2), find_line_frame(strokes, extent_m)
        bearing = raw.angle.rad2deg().double().numpy()
        there = circle[:, 1] > 0
        correlation = float(np.corrcoef(seen["order"].numpy()[there], circle[there, 1])[0, 1])
        off, rest = differ(bearing, circle[:, 0])[there], seen["bearing"].abs().double().numpy()[there]
        tell(f"{raster.name}: cells against lines", off, correlation, rest)
        firm = circle[there, 1] > 0.3
        tell(f"… where lines have an order above 0.3 ({firm.mean():.0%})", off[firm], left=rest[firm])
        tell("… lines in the square against lines in the circle", differ(square[:, 0], circle[:, 0])[there])
        tell("… upright windows against north", differ(circle[:, 0], np.zeros(1))[there])
        print(f"\n{raster.name}: {args.windows / took:.0f} windows a second are gathered, with their frames\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
