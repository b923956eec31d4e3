"""What half precision saves in sampling, and what it changes: seconds a layout in single and half precision, in turns.

    python benchmarks/precision.py reference/cities_64

Each batch is asked for the place of held-out windows and their coverage, and drawn in both precisions, one after the
other. Reported: the median seconds a layout; their ratio; the mean error of coverage in standard deviations over the
training windows; and how far the layouts of one precision are from those of the other, as a share of how far layouts of
different windows are from each other.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import rich

from citygrain.checkpoint import list_references, load
from citygrain.data.trained_on import TrainedOn
from citygrain.evaluation.sets import request
from citygrain.generation.windows import draw
from citygrain.support.console import make_table
from citygrain.support.devices import MIXED, SINGLE, choose_device

HEADINGS = ("model", "single", "half", "times faster", "error, single", "error, half", "moved")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", default=list_references(), help="those that ship, by default")
    parser.add_argument("--data", default="data/cities", help="folder of prepared places")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3, help="after one that is left out")
    args = parser.parse_args()
    table = make_table(f"seconds a layout, {args.rounds} batches of {args.batch}", *HEADINGS)
    n = args.batch * (args.rounds + 1)
    for checkpoint in args.checkpoints:
        generator = load(checkpoint, device=choose_device("auto"))
        spec = generator.spec
        data = TrainedOn.of(generator).data(args.data, test_windows=n)
        seconds: dict[str, list[float]] = {SINGLE: [], MIXED: []}
        errors: dict[str, list[float]] = {SINGLE: [], MIXED: []}
        moved, apart = [], []
        for start in range(0, n, args.batch):
            positions = range(start, start + args.batch)
            windows = data.batch("test", positions)
            coverage = windows.conditions.scalars[:, spec.scalars.index("coverage")]
            asked = request(spec, windows, {"coverage": coverage}, place=True)
            made = {}
            for precision in (SINGLE, MIXED):
                started = time.perf_counter()
                made[precision] = draw(generator, asked, positions, precision=precision, batch_size=args.batch)
                seconds[precision].append((time.perf_counter() - started) / args.batch)
                off = np.abs(made[precision].measured["coverage"] - made[precision].requested["coverage"])
                errors[precision].append(float(off.mean()) / spec.spread("coverage"))
            whole, half = made[SINGLE].shares, made[MIXED].shares
            moved.append(float(np.abs(whole - half).mean()))
            apart.append(float(np.abs(whole - np.roll(whole, 1, 0)).mean()))
        single, mixed = (statistics.median(seconds[precision][1:]) for precision in (SINGLE, MIXED))
        table.add_row(
            checkpoint, f"{single:.3f}", f"{mixed:.3f}", f"{single / mixed:.2f}",
            *(f"{np.mean(errors[precision]):.3f}" for precision in (SINGLE, MIXED)),
            f"{np.mean(moved) / np.mean(apart):.1%}",
        )  # fmt: skip
    rich.print(table)


if __name__ == "__main__":
    main()
