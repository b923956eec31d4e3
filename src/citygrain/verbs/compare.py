"""`citygrain compare`: what separates places, measure by measure, in pictures and in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich
from rich.table import Table

from citygrain.evaluation.comparison import compare
from citygrain.evaluation.separation import PAGE, TABLE, WORTH, Comparison
from citygrain.support.console import make_table
from citygrain.support.options import Paths, parse


@dataclass(frozen=True)
class Options:
    """`conf/compare.yaml`."""

    places: tuple[str, ...]
    generated: tuple[str, ...]
    n: int
    window_m: float
    resolution_m: float | None
    min_valid: float
    min_built: float
    service: bool
    workers: int | None
    out: Path
    paths: Paths


def run(config: Mapping[str, Any]) -> Path:
    """Compare what the configuration names, write the report, print its head, and return its folder."""
    options = parse(Options, config)
    comparison = compare(
        options.places,
        generated=options.generated,
        n=options.n,
        window_m=options.window_m,
        resolution_m=options.resolution_m,
        min_valid=options.min_valid,
        min_built=options.min_built,
        service=options.service,
        workers=options.workers,
        out=options.out,
        data=options.paths.data,
    )
    rich.print(make_screen_table(comparison))
    rich.print(f"report: {options.out / PAGE}   table: {options.out / TABLE}")
    return options.out


def make_screen_table(comparison: Comparison) -> Table:
    """Return what the screen shows of a comparison."""
    places = comparison.places
    shown = make_table(
        f"what separates {', '.join(places)}", "measure", "unit", *places, "separation", texts=2
    )  # fmt: skip
    for m in comparison.measures[:WORTH]:
        medians = (f"{m.places[place].p50:.3g}" if place in m.places else "–" for place in places)
        shown.add_row(m.label, m.unit, *medians, "–" if m.separation is None else f"{m.separation:.2f}")
    return shown
