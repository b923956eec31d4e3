"""`citygrain prepare`: OpenStreetMap to a city raster."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import rich
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from citygrain.data.prepare import prepare
from citygrain.errors import CitygrainError, ConfigError
from citygrain.geo.cityraster import CityRaster
from citygrain.geo.layers import CHANNELS
from citygrain.geo.place import Place, make_slug
from citygrain.geo.sources import Source, describe_origin
from citygrain.geo.sources.combined import Combined
from citygrain.geo.sources.files import list_paths
from citygrain.geo.split import SPLITS

TOLD = 0.005
"""Share of all ways' length, or of the area, from which a tag that is drawn nowhere is told on screen."""


def run(config: Mapping[str, Any]) -> CityRaster:
    """Do what `citygrain prepare` was asked for, with a progress bar and a closing table.

    Parameters
    ----------
    config
        Plain values: `place` (`name`, and `bbox`, `polygon` or `query`), `source` (with `_target_`), `raster`
        (keyword arguments of `prepare`), `paths.data`.

    Raises
    ------
    CitygrainError
        See `prepare`; `ConfigError` when nothing says where the place is.
    """
    from citygrain.support.config import instantiate  # noqa: PLC0415  (the only module with Hydra; Python users need none)

    started = time.perf_counter()
    source = instantiate(config["source"])
    place = _place(config["place"], source)
    console = rich.get_console()
    outcome = ""
    columns = (
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"preparing {place.name}", total=1.0)

        def report(done: float, what: str) -> None:
            nonlocal outcome
            bar.update(task, completed=done, description=what)
            outcome = what

        raster = prepare(place, source, config["paths"]["data"], progress=report, **config["raster"])
    console.print(summary(raster, outcome, time.perf_counter() - started))
    return raster


def summary(raster: CityRaster, outcome: str, seconds: float) -> Table:
    """Return the closing table: area, counts, shares, what was skipped, is unknown or partial, seconds and memory."""
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
        "sources": "; ".join(f"{name}: {_in_short(source)}" for name, source in {**base, **parts}.items())
        or _in_short(made["source"]),
        "area": f"{made['valid_km2']:,.1f} km² with data, of {made['place']['area_km2']:,.1f} km²",
        "raster": f"{width:,} × {height:,} cells of {raster.resolution_m:g} m, {raster.crs}, "
        f"{made['layout']['bytes'] / 1e6:,.1f} MB",
        "blocks": ", ".join(f"{counts.get(s, 0)} {s}" for s in SPLITS)
        + f", of {made['split']['block_m']:g} m, buffer {raster.buffer_m:g} m",
        "skipped": ", ".join(f"{n:,} {what}" for what, n in made["skipped"].items()) or "nothing",
        "drawn nowhere": _told(made) or "nothing to speak of",
        "took": f"{seconds:.1f} s, at most {_peak_memory_gb():.2f} GB of memory",
        "folder": str(raster.path),
    }
    table.add_section()
    for name, fact in facts.items():
        table.add_row(name, "", "", fact)
    return table


def _in_short(source: Mapping[str, Any]) -> str:
    """Where features came from, in a line: files, or a server, and the day they are of."""
    day = source.get("osm_date") or source.get("date")
    return describe_origin(source) + (f" ({str(day)[:10]})" if day else "")


def _told(made: Mapping[str, Any]) -> str:
    """Say which tags neither a rule nor a decision knows, of those that make up a share of the place."""
    area_ha = 100 * max(made["valid_km2"], 1e-9)
    lengths = (made["shares"][c.name] / c.width_m * 1e3 * made["valid_km2"] for c in CHANNELS if c.width_m)
    km = sum(lengths) + sum(rest["km"] for rest in made["remainder"].values())
    told = []
    for tag, rest in made["remainder"].items():
        if rest["km"] > TOLD * km:
            told.append(f"{tag} ({rest['km']:,.1f} km, {rest['km'] / km:.1%} of all ways)")
        elif rest["ha"] > TOLD * area_ha:
            told.append(f"{tag} ({rest['ha']:,.1f} ha, {rest['ha'] / area_ha:.1%} of the area)")
    return ", ".join(told)


def _place(config: Mapping[str, Any], source: Source) -> Place:
    """Build the place: a bbox, a polygon file, what the file of the source or its base covers, or a name to look up."""
    name, bbox, polygon, query = (config.get(key) for key in ("name", "bbox", "polygon", "query"))
    if bbox is not None and polygon is not None:
        raise ConfigError(
            "A place has a bbox or a polygon.",
            got=f"place.bbox={list(bbox)} and place.polygon={polygon}",
            remedy=f"leave out one; with a shipped place: place.name={name} place.polygon=… without place={name}",
        )
    if bbox is not None:
        return Place.from_bbox(name or "place", bbox)
    if polygon is not None:
        return Place.from_file(polygon, name)
    if query is not None:
        return Place.from_name(query, name)
    where = "source."
    while isinstance(source, Combined):
        source, where = source.base, f"{where}base."
    if isinstance(source, _File):
        first = list_paths(source.path)[0]
        try:
            extent = source.extent()
        except CitygrainError as error:
            if where == "source.":
                raise
            raise error.of("base of the combined source", {"source.": where}) from error
        return Place.from_bbox(name or make_slug(first.name.split(".", maxsplit=1)[0]), extent)
    if name is not None:
        return Place.from_name(name.replace("_", " "), make_slug(name))
    raise ConfigError(
        "Nothing says where the place is.",
        expected="place=<a shipped place>, or place.name with place.bbox=[west,south,east,north], "
        "place.polygon=<file> or place.query='City, Country'",
        remedy="for example: citygrain prepare place=copenhagen",
    )


@runtime_checkable
class _File(Protocol):
    """A source that is a file, or several, and so has an extent of its own."""

    path: Any

    def extent(self) -> tuple[float, float, float, float]: ...


def _peak_memory_gb() -> float:
    """Most memory this process has held so far; NaN where the system does not tell."""
    if sys.platform == "win32":
        return math.nan
    import resource  # noqa: PLC0415  (not on Windows)

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
