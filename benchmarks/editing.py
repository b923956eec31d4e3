r"""Edits of held-out windows: whether streets go on across the edge, and whether areas larger than a window have seams.

    python benchmarks/editing.py reference/cities_64 copenhagen los_angeles

- In the middle of held-out windows a square is redrawn with nothing asked for. Of the streets that reach its edge, how
  many go on inside: in the real windows, in whole layouts of the model (what it could do at best), in windows whose
  middle is another window's (what chance does), and in the redrawn ones.
- An area of several windows is drawn; the steps between neighbouring cells where windows begin or end, as a multiple of
  those elsewhere; and beside it the same windows drawn one by one and laid side by side.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import citygrain
from citygrain.data.trained_on import TrainedOn
from citygrain.generation.area import draw_area
from citygrain.generation.continuity import count_street_ends, measure_seams
from citygrain.plot import make_sheet, save_figure
from citygrain.protocols import Known
from citygrain.samplers.areas import Tiling
from citygrain.support.console import show_progress_bar
from citygrain.support.files import write_text

SHOWN = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("places", nargs="+")
    parser.add_argument("--windows", type=int, default=16, help="of each place")
    parser.add_argument("--data", type=Path, default=Path("data/cities"))
    parser.add_argument("--out", type=Path, default=Path("out/editing"))
    args = parser.parse_args()
    model = citygrain.load(args.checkpoint)
    spec = model.spec
    size = spec.size_px
    trained_on = TrainedOn.of(model)
    windows = [trained_on.windows("test", args.data, [place], limit=args.windows) for place in args.places]
    real = torch.cat([of.__getitems__(range(len(of))).layout for of in windows])
    quarter = slice(size // 4, size - size // 4)
    free = np.zeros((size, size), bool)
    free[quarter, quarter] = True
    keep = torch.from_numpy(~free).expand(1, len(spec.channels), size, size)
    made: dict[str, list[NDArray[np.uint8]]] = {}
    seconds = 0.0
    with show_progress_bar("redrawing", len(real)) as advance:
        for i, layout in enumerate(real):
            known = Known(layout[None].float() / 255, keep)
            started = time.perf_counter()
            redrawn = draw_area(model, (size, size), {}, known=known, seed=i).numpy()
            seconds += time.perf_counter() - started
            other = torch.where(keep[0], layout, real[(i + len(real) // 2 + 1) % len(real)]).numpy()
            whole = draw_area(model, (size, size), {}, seed=i).numpy()
            for name, of in {
                "real": layout.numpy(),
                "redrawn": redrawn,
                "another window's middle": other,
                "whole layouts of the model": whole,
            }.items():
                made.setdefault(name, []).append(of)
            advance(1)
    report: dict[str, dict[str, float]] = {}
    for name, layouts in made.items():
        counts = np.array([count_street_ends(of / 255, free, spec.channels) for of in layouts]).sum(0)
        report[name] = {"going_on": float(counts[0] / counts[1]), "ends": int(counts[1])}
    report["redrawn"]["seconds"] = seconds / len(real)

    cells = Tiling.cover(2 * size, 3 * size, size)
    area = draw_area(model, (cells.height, cells.width), {}, seed=0).numpy() / 255
    apart = Tiling.cover(2 * size, 3 * size, size, overlap=0)
    drawn = [draw_area(model, (size, size), {}, seed=1 + i).numpy() / 255 for i in range(len(apart))]
    beside = np.concatenate([np.concatenate(drawn[3 * row : 3 * row + 3], 2) for row in range(2)], 1)
    report["seams"] = {
        "drawn jointly": measure_seams(area, *_seams(cells)),
        "side by side": measure_seams(beside, *_seams(apart)),
    }
    write_text(args.out / "editing.json", json.dumps(report, indent=1) + "\n")
    shown = [of for pair in zip(made["real"], made["redrawn"], strict=True) for of in pair]
    step = max(1, len(real) // SHOWN)
    picked = [layout for i in range(0, len(real), step) for layout in shown[2 * i : 2 * i + 2]]
    save_figure(
        make_sheet(
            np.stack(picked),
            spec.channels,
            columns=8,
            resolution_m=spec.resolution_m,
            titles=["real", "redrawn"] * (len(picked) // 2),
            outline=free,
        ),
        args.out / "editing.png",
    )
    save_figure(make_sheet(area[None], spec.channels, resolution_m=spec.resolution_m, scale=4), args.out / "area.png")
    table = Table(title=f"{len(real)} windows, squares of {free.sum() * spec.resolution_m**2 / 1e4:.1f} ha")
    for heading in ("", "streets going on", "of"):
        table.add_column(heading)
    for name in made:
        table.add_row(name, f"{report[name]['going_on']:.2f}", str(report[name]["ends"]))
    Console(width=100).print(table, report["seams"], f"{report['redrawn']['seconds']:.1f} s a window")


def _seams(cells: Tiling) -> tuple[list[int], list[int]]:
    """Rows and columns behind which a window begins, or the last one ended."""
    rows, columns = (
        sorted({edge for start in starts for edge in (start, start + cells.size) if 0 < edge < end})
        for starts, end in ((cells.rows, cells.height), (cells.columns, cells.width))
    )
    return rows, columns


if __name__ == "__main__":
    main()
