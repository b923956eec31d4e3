"""Held-out windows, and layouts that were asked for all that was measured on them: one above the other.

    python benchmarks/side_by_side.py reference/cities_64 --places copenhagen los_angeles tokyo --columns 8

The windows come from test blocks, which training never saw. Each generated layout is asked for the scalars and the
place of the window above it, and has no other hint of it but the channels that its model is given. Each scalar costs a
pass back through the codec at every step of a sampler with feedback: for 14 of them, a second and a half a layout on
two CPU cores.
"""

from __future__ import annotations

import argparse
from itertools import chain
from pathlib import Path

import numpy as np

from citygrain.checkpoint import load
from citygrain.data.datamodule import CityDataModule
from citygrain.evaluation.sets import request
from citygrain.generation.windows import draw
from citygrain.plot import make_sheet, save_figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--data", default="data/cities", help="folder of prepared places")
    parser.add_argument("--places", nargs="+", help="some of the model's; all by default")
    parser.add_argument("--columns", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--attempts", type=int, default=1, help="at each layout, as `citygrain sample` makes them")
    parser.add_argument("--out", type=Path, default=Path("out/side_by_side.png"))
    args = parser.parse_args()

    generator = load(args.checkpoint)
    spec = generator.spec
    data = CityDataModule(
        spec.places, args.data, spec.size_px, spec.resolution_m, channels=spec.channels, scalars=spec.scalars,
        test_windows=2 * args.columns * len(spec.places), raster_format=spec.raster_format,
    )  # fmt: skip
    windows = data.windows("test")
    batch = data.batch("test", range(len(windows)))
    rows, titles = [], []
    for place in args.places or spec.places:
        mine = (batch.conditions.place == spec.places.index(place)).nonzero().flatten()[: args.columns]
        shown = batch._replace(layout=batch.layout[mine], conditions=batch.conditions[mine])
        scalars = {name: shown.conditions.scalars[:, i] for i, name in enumerate(spec.scalars)}
        asked = request(spec, shown, scalars, place=True)
        made = draw(generator, asked, range(args.seed, args.seed + len(mine)), attempts=args.attempts)
        rows += [shown.layout.numpy(), made.shares]
        titles += [[f"{place}, real"] * len(mine), [f"{place}, generated"] * len(mine)]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_figure(
        make_sheet(
            np.concatenate(rows),
            spec.channels,
            titles=list(chain(*titles)),
            columns=args.columns,
            resolution_m=spec.resolution_m,
        ),
        args.out,
    )


if __name__ == "__main__":
    main()
