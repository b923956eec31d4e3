"""`citygrain sample`: layouts for what is asked, their pictures, GeoTIFFs and measures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich
from rich.table import Table

from citygrain.errors import ConditionError
from citygrain.generation.georeference import Georeference
from citygrain.generation.given import Given
from citygrain.layouts import WINDOWS, Layouts
from citygrain.model import Model
from citygrain.support.console import make_map_table, make_table
from citygrain.support.options import Paths, parse


@dataclass(frozen=True)
class Options:
    """`conf/sample.yaml`."""

    checkpoint: str
    conditions: dict[str, Any]
    n: int | None
    seed: int
    attempts: int
    batch_size: int
    device: str
    precision: str
    out: Path
    extent_m: tuple[float, float] | None
    given: Given
    georeference: Georeference
    sampler: dict[str, Any]
    paths: Paths


def run(config: Mapping[str, Any]) -> Path:
    """Draw what the configuration asks for, write it and tell of it. Return the folder."""
    asked = parse(Options, config)
    model = Model(asked.checkpoint, device=asked.device)
    layouts = model.sample(
        asked.n,
        seed=asked.seed,
        attempts=asked.attempts,
        extent_m=asked.extent_m,
        given=asked.given,
        georeference=asked.georeference,
        sampler=asked.sampler,
        precision=asked.precision,
        batch_size=asked.batch_size,
        data=asked.paths.data,
        **asked.conditions,
    )
    layouts.save(asked.out)
    if layouts.given is not None:
        given = ", ".join(model.spec.given)
        rich.print(f"{given} are those of {layouts.given.source}; its windows: {asked.out / WINDOWS}")
    rich.print(_summary_table(layouts))
    if layouts.requested_maps is not None:
        rich.print(make_map_table(layouts.map_comparison()))
    corner = layouts.grids[0]
    where = f"{corner.crs}, from {corner.left:.0f} E, {corner.top:.0f} N"
    rich.print(f"pictures, GeoTIFFs and measures: {asked.out}  [dim](GeoTIFFs in {where})[/]")
    return asked.out


def _summary_table(layouts: Layouts) -> Table:
    """Return requested beside measured over all layouts, one row a condition, for the screen."""
    if not layouts.measured:
        raise ConditionError("Nothing can be measured on these layouts.", got=layouts.channels)
    shown = make_table(
        f"{len(layouts)} layouts: requested and measured",
        "condition", "unit", "requested", "measured", "10th to 90th percentile", "mean error", texts=2,
    )  # fmt: skip
    for name, row in layouts.comparison().iterrows():
        asked = math.isfinite(row["requested"])
        shown.add_row(
            str(name), row["unit"], f"{row['requested']:.4g}" if asked else "", f"{row['measured']:.4g}",
            f"{row['p10']:.4g} – {row['p90']:.4g}", f"{row['mean_error']:.4g}" if asked else "",
            style="bold" if asked else None,
        )  # fmt: skip
    return shown
