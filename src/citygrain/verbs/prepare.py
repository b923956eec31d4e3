"""`citygrain prepare`: OpenStreetMap to a city raster."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import rich
from rich.table import Table

from citygrain.data.cityraster import CityRaster
from citygrain.data.prepare import prepare
from citygrain.geo.layers import CHANNELS
from citygrain.geo.sources import describe_origin
from citygrain.geo.split import BLOCK_M, BUFFER_M, SPLITS
from citygrain.support.options import Paths, parse
from citygrain.support.targets import Plain, instantiate

TOLD = 0.005
"""Least share of the length of all ways, or of the area, that a tag must have to be shown as drawn nowhere."""


@dataclass(frozen=True)
class Where:
    """Where the place is, as `conf/prepare.yaml` has it."""

    name: str | None = None
    bbox: Sequence[float] | None = None
    polygon: str | None = None
    query: str | None = None


@dataclass(frozen=True)
class Raster:
    """How the city raster is made, as `conf/prepare.yaml` has it."""

    resolution_m: float = 2.0
    block_m: float = BLOCK_M
    buffer_m: float = BUFFER_M
    seed: int = 0
    workers: int | None = None
    unknown: Sequence[str] = ()
    replace: bool = False


@dataclass(frozen=True)
class Options:
    """What `citygrain prepare` is told."""

    source: Plain
    place: Where
    raster: Raster
    paths: Paths


def run(config: Plain) -> CityRaster:
    """Prepare a place, and print a closing table.

    Parameters
    ----------
    config
        `conf/prepare.yaml`, composed and plain.

    Raises
    ------
    CitygrainError
        See `citygrain.data.prepare.prepare`.
    """
    started = time.perf_counter()
    options = parse(Options, config)
    said = [""]
    raster = prepare(
        source=instantiate(options.source),
        data=options.paths.data,
        progress=lambda _done, what: said.append(what),
        **vars(options.place),
        **vars(options.raster),
    )
    rich.print(summary(raster, said[-1], time.perf_counter() - started))
    return raster


def summary(raster: CityRaster, outcome: str, seconds: float) -> Table:
    """Return the closing table: what each channel holds, and facts about the place and the run."""
    made = raster.provenance
    table = Table(title=f"{raster.name}: {outcome}", caption=made["attribution"])
    for heading, justify in (("channel", "left"), ("features", "right"), ("covers", "right"), ("note", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    parts = made["source"].get("parts", {})
    giver = {channel: f"from {name}" for name, part in parts.items() for channel in part["channels"]}
    for name in raster.channels:
        unknown = raster.unknown.get(name)
        share = "unknown" if unknown else f"{made['shares'][name]:.2%}"
        notes = filter(None, [giver.get(name), unknown or raster.partial.get(name)])
        table.add_row(name, f"{made['counts'].get(name, 0):,}", share, "; ".join(notes))
    counts = raster.blocks["split"].value_counts()
    height, width = raster.shape
    base = {"base": made["source"]["base"]} if parts else {}
    facts = {
        "sources": "; ".join(f"{name}: {_source_line(source)}" for name, source in {**base, **parts}.items())
        or _source_line(made["source"]),
        "area": f"{made['valid_km2']:,.1f} km² with data, of {made['place']['area_km2']:,.1f} km²",
        "raster": f"{width:,} × {height:,} cells of {raster.resolution_m:g} m, {raster.crs}, "
        f"{made['layout']['bytes'] / 1e6:,.1f} MB",
        "blocks": ", ".join(f"{counts.get(s, 0)} {s}" for s in SPLITS)
        + f", of {made['split']['block_m']:g} m, buffer {raster.buffer_m:g} m",
        "skipped": ", ".join(f"{n:,} {what}" for what, n in made["skipped"].items()) or "nothing",
        "drawn nowhere": _drawn_nowhere(made) or "nothing to speak of",
        "took": f"{seconds:.1f} s, at most {_peak_memory_gb():.2f} GB of memory",
        "folder": str(raster.path),
    }
    table.add_section()
    for name, fact in facts.items():
        table.add_row(name, "", "", fact)
    return table


def _source_line(source: Mapping[str, Any]) -> str:
    """Return where features came from, in a line: files, or a server, and the day they are of."""
    day = source.get("osm_date") or source.get("date")
    return describe_origin(source) + (f" ({str(day)[:10]})" if day else "")


def _drawn_nowhere(made: Mapping[str, Any]) -> str:
    """Return the tags that no rule draws and no decision leaves out, where they have a share of `TOLD` or more."""
    area_ha = 100 * max(made["valid_km2"], 1e-9)
    lengths = (made["shares"][c.name] / c.width_m * 1e3 * made["valid_km2"] for c in CHANNELS if c.width_m)
    km = sum(lengths) + sum(rest["km"] for rest in made["remainder"].values())
    lines = []
    for tag, rest in made["remainder"].items():
        if rest["km"] > TOLD * km:
            lines.append(f"{tag} ({rest['km']:,.1f} km, {rest['km'] / km:.1%} of all ways)")
        elif rest["ha"] > TOLD * area_ha:
            lines.append(f"{tag} ({rest['ha']:,.1f} ha, {rest['ha'] / area_ha:.1%} of the area)")
    return ", ".join(lines)


def _peak_memory_gb() -> float:
    """Return the most memory that this process has held so far; NaN where the system does not tell."""
    if sys.platform == "win32":
        return math.nan
    import resource  # noqa: PLC0415  (not on Windows)

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
