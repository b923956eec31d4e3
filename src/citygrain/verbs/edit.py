"""`citygrain edit`: a site redrawn inside its real surroundings, and what that changes, measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich
from rich.table import Table

from citygrain.generation.edits import Edit
from citygrain.model import Model
from citygrain.samplers.areas import Begin
from citygrain.support.console import make_map_table, make_table
from citygrain.support.options import Paths, parse


@dataclass(frozen=True)
class PlaceOptions:
    """The prepared place that the site lies in."""

    name: str | None


@dataclass(frozen=True)
class Options:
    """`conf/edit.yaml`."""

    checkpoint: str
    conditions: dict[str, Any]
    place: PlaceOptions
    at: tuple[float, ...] | None
    size_m: float
    site: Path | None
    context_m: float
    keep: tuple[str, ...]
    strength: float
    begin: Begin
    n: int
    seed: int
    overlap: float
    batch_size: int
    device: str
    out: Path
    sampler: dict[str, Any]
    paths: Paths


def run(config: Mapping[str, Any]) -> Path:
    """Redraw what the configuration names, write before and after, and tell of it. Return the folder."""
    asked = parse(Options, config)
    conditions = {**asked.conditions}
    like = conditions.pop("place", None)
    edit = Model(asked.checkpoint, device=asked.device).edit(
        asked.place.name or "",
        at=asked.at,
        size_m=asked.size_m,
        site=asked.site,
        context_m=asked.context_m,
        keep=asked.keep,
        strength=asked.strength,
        begin=asked.begin,
        n=asked.n,
        seed=asked.seed,
        overlap=asked.overlap,
        sampler=asked.sampler,
        batch_size=asked.batch_size,
        data=asked.paths.data,
        like=like,
        **conditions,
    )
    edit.save(asked.out)
    rich.print(_comparison_table(edit))
    if edit.after.requested_maps is not None:
        rich.print(make_map_table(edit.after.map_comparison()))
    grid = edit.site.grid
    redrawn_ha = edit.site.free.sum() * grid.resolution_m**2 / 1e4
    if edit.unknown:
        rich.print(f"not known there, and not drawn: {', '.join(edit.unknown)}")
    rich.print(f"pictures, GeoTIFFs and GeoPackage: {asked.out}  [dim](in {grid.crs}, {redrawn_ha:,.1f} ha redrawn)[/]")
    return asked.out


def _comparison_table(edit: Edit) -> Table:
    """Return before, asked and after, one row a measure, for the screen."""
    ways, kept = len(edit.after), f", {', '.join(edit.kept)} kept" if edit.kept else ""
    shown = make_table(
        f"before and after: {ways} way{'s' if ways > 1 else ''} of redrawing the site{kept}",
        "measure", "unit", "of", "before", "asked", "after", "from – to", texts=3,
    )  # fmt: skip
    for name, row in edit.comparison().iterrows():
        asked = math.isfinite(row["asked"])
        shown.add_row(
            str(name), row["unit"], row["of"], f"{row['before']:.4g}", f"{row['asked']:.4g}" if asked else "",
            f"{row['after']:.4g}", f"{row['least']:.4g} – {row['most']:.4g}", style="bold" if asked else None,
        )  # fmt: skip
    return shown
