"""How much memory an area takes that is far larger than a window.

    python benchmarks/area_memory.py reference/cities_64 --sides 2 4 8

Areas of so many by so many windows are drawn, each in a process of its own, and the peak of its resident memory is
reported beside that of a single window and beside the layout itself. A few steps are enough: none needs more memory
than another.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import numpy as np

from citygrain.checkpoint import load
from citygrain.generation.area import draw_area
from citygrain.generation.requests import choose_sampler

BATCH = 16


def draw(checkpoint: str, side: int, steps: int) -> None:
    """Draw an area in this process and print its seconds, the bytes of its layout, and the peak memory."""
    generator = load(checkpoint)
    edge, began = side * generator.spec.size_px, time.perf_counter()
    sampler = choose_sampler(generator, {"steps": steps, "tolerance": np.inf})
    made = draw_area(generator, (edge, edge), {}, seed=0, sampler=sampler, batch_size=BATCH)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(time.perf_counter() - began, made.nbytes, peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--sides", type=int, nargs="+", default=[2, 4, 8], help="windows a side")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one is not None:
        draw(args.checkpoint, args.one, args.steps)
        return
    extent_m = load(args.checkpoint).spec.extent_m
    print(f"{'km²':>8} {'seconds':>8} {'layout MiB':>11} {'peak MiB':>9} {'above one window':>17}")
    first = None
    for side in (1, *args.sides):
        command = [sys.executable, __file__, args.checkpoint, "--one", str(side), "--steps", str(args.steps)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, layout, peak = map(float, done.stdout.split())
        first = peak if first is None else first
        area = (side * extent_m / 1000) ** 2
        print(f"{area:8.2f} {seconds:8.1f} {layout / 2**20:11.2f} {peak / 2**20:9.0f} {(peak - first) / 2**20:17.0f}")


if __name__ == "__main__":
    main()
