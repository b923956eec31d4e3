"""`citygrain edit`: a site redrawn inside its real surroundings, and what that changes, measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich

from citygrain.generation.edits import comparison_table
from citygrain.model import Model
from citygrain.samplers.areas import Begin
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
    rich.print(comparison_table(edit))
    grid = edit.site.grid
    redrawn_ha = edit.site.free.sum() * grid.resolution_m**2 / 1e4
    rich.print(f"pictures, GeoTIFFs and GeoPackage: {asked.out}  [dim](in {grid.crs}, {redrawn_ha:,.1f} ha redrawn)[/]")
    return asked.out
