"""Place + source → city raster with measured blocks: the verb `prepare`."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, runtime_checkable

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import rich
import shapely
import torch
from numpy.typing import NDArray
from rasterio.windows import from_bounds
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import citygrain
from citygrain.conditions import measure
from citygrain.errors import CitygrainError, ConfigError, DataError, SourceError
from citygrain.files import sha256
from citygrain.geo import cityraster
from citygrain.geo.cityraster import COMPLETE, CityRaster
from citygrain.geo.geotiff import GeoTiffWriter
from citygrain.geo.layers import CHANNELS, RASTER_FORMAT
from citygrain.geo.place import Place, slug
from citygrain.geo.rasterize import Grid, rasterize, rasterize_area
from citygrain.geo.sources import Features, Source, declared, in_words
from citygrain.geo.sources import features as features_of
from citygrain.geo.sources._files import paths_of
from citygrain.geo.sources._identity import source_request
from citygrain.geo.sources.combined import Combined
from citygrain.geo.split import BLOCK_M, BUFFER_M, SPLITS, split_blocks

Report = Callable[[float, str], None]

READ, DRAWN = 0.5, 0.9
"""Where the progress bar stands when the features are read and when the strips are drawn."""

BUILT = ("building", "arterial", "street")

TOLD = 0.005
"""Share of all ways' length, or of the area, from which a tag that is drawn nowhere is told on screen."""

PACKAGES = ("numpy", "shapely", "geopandas", "rasterio", "pyogrio", "osmium", "osmnx", "matplotlib")


def prepare(
    place: Place,
    source: Source,
    out: str | Path,
    resolution_m: float = 2.0,
    block_m: float = BLOCK_M,
    buffer_m: float = BUFFER_M,
    seed: int = 0,
    workers: int | None = None,
    progress: Report | None = None,
    replace: bool = False,
    unknown: Sequence[str] | None = None,
) -> CityRaster:
    """Make the city raster of a place, in the folder `out/<place.name>`.

    When it is already there, made from the same request, it is opened and nothing is done. An interrupted run leaves
    nothing that looks whole; repeating it finishes the job.

    Parameters
    ----------
    place
        The place.
    source
        Where its features come from.
    out
        Folder of all city rasters.
    resolution_m
        Edge of a cell in metres; overviews have two and four times that.
    block_m, buffer_m, seed
        Blocks of the split, see `citygrain.geo.split.split_blocks`.
    workers
        Threads; all cores when None. The result does not depend on it.
    progress
        Called with the fraction done and what is being done.
    replace
        Make it anew even if it is there, whatever it was made from. The old one stays until the new one is whole.
    unknown
        Channels that the source lacks although the place has them, see `citygrain.geo.sources.features`.

    Raises
    ------
    PlaceError, SourceError, ConfigError
        When the place or source is at fault, or a channel has another name.
    DataError
        When the folder cannot be written, holds another city raster, or the place is too small to be split.

    Examples
    --------
    >>> place = Place.from_file("quarter.geojson")  # doctest: +SKIP
    >>> raster = prepare(place, OsmFile("city.osm.pbf"), "data/cities")  # doctest: +SKIP
    """
    report = progress or _silent
    folder = Path(out) / place.name
    unknown = declared(unknown)
    request = _plain(
        {
            "place": place.to_dict(),
            "source": source_request(source),
            "resolution_m": float(resolution_m),
            "block_m": float(block_m),
            "buffer_m": float(buffer_m),
            "seed": seed,
            "channels": [asdict(c) for c in CHANNELS],
            **({"unknown": unknown} if unknown else {}),
        }
    )
    with cityraster.locked(folder):
        recovered = cityraster.recover(folder)
        existing = None if replace else _existing(folder, request)
        if existing is not None:
            report(1.0, recovered or "already there, made from the same request")
            return existing
        existed = folder.exists()
        cityraster.refuse_strangers(folder)
        found = features_of(place, source, lambda done, what: report(done * READ, what), unknown=unknown)
        grid = Grid.covering(place.bounds_utm, place.crs, resolution_m)
        workers = workers or _cores()
        with cityraster.drafted(folder) as draft:
            layout = draft / cityraster.LAYOUT
            shares, valid_km2 = _draw(found, place, grid, layout, workers, report)
            report(DRAWN, "splitting and measuring blocks")
            known = [c.name for c in CHANNELS if c.name not in found.unknown]
            origin = in_words(found.provenance)
            if not any(shares.values()):
                origin += ", which holds no tag that makes a channel there"
            blocks, split = _blocks(layout, grid, known, block_m, buffer_m, seed, workers, origin)
            blocks.to_parquet(draft / cityraster.BLOCKS)
            manifest = {
                "format": RASTER_FORMAT,
                "attribution": found.provenance["attribution"],
                "place": place.to_dict(),
                "source": found.provenance,
                "crs": place.crs,
                "resolution_m": float(resolution_m),
                "grid": {"left_top": [grid.left, grid.top], "width_height": [grid.width, grid.height]},
                "channels": [c.name for c in CHANNELS],
                "unknown": found.unknown,
                "partial": found.partial,
                "counts": found.counts,
                "skipped": found.skipped,
                "remainder": {tag: asdict(rest) for tag, rest in found.remainder.items()},
                "valid_km2": round(valid_km2, 3),
                "shares": shares,
                "split": {**split, "seed": seed},
                "layout": {"bytes": layout.stat().st_size, "sha256": sha256(layout)},
                "request": request,
                "versions": _versions(),
            }
            report(0.99, "moving it into place")
            cityraster.write_manifest(draft, _plain(manifest))
        report(1.0, "; ".join(filter(None, [recovered, "replaced" if existed else "written"])))
        return CityRaster.open(folder)


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
    from citygrain.config import instantiate  # noqa: PLC0415  (the only module with Hydra; Python users need none)

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
    return in_words(source) + (f" ({str(day)[:10]})" if day else "")


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


def _draw(
    found: Features, place: Place, grid: Grid, path: Path, workers: int, report: Report
) -> tuple[dict[str, float], float]:
    """Write the GeoTIFF; return each channel's share of the valid cells and their area in km²."""
    area = shapely.intersection(shapely.make_valid(place.utm), shapely.make_valid(found.valid))
    if shapely.is_empty(area) or shapely.area(area) == 0:
        raise SourceError(
            f"The source has no data in {place.name}.",
            expected=f"some within {list(place.bbox)}",
            remedy="check the place's bbox against what the file covers",
        )
    names = [c.name for c in CHANNELS]
    covered, cells = np.zeros(len(names)), 0
    row = 0
    with GeoTiffWriter(path, grid, names, cityraster.LEVELS, found.provenance["attribution"], workers) as writer:
        for strip, inside in zip(rasterize(found, grid, names), rasterize_area(area, grid), strict=True):
            valid = inside > COMPLETE // 2
            if not valid.all():
                np.multiply(strip, valid, out=strip)  # faster than writing through a mask
            writer.write(strip, valid)
            covered += [band.sum(dtype=np.int64) for band in strip]
            cells += int(np.count_nonzero(valid))
            row += len(valid)
            report(READ + (DRAWN - READ) * row / grid.height, "drawing")
    shares = covered / COMPLETE / max(cells, 1)
    return dict(zip(names, map(float, shares), strict=True)), cells * grid.resolution_m**2 / 1e6


def _blocks(
    layout: Path,
    grid: Grid,
    known: Sequence[str],
    block_m: float,
    buffer_m: float,
    seed: int,
    workers: int,
    origin: str,
) -> tuple[gpd.GeoDataFrame, dict[str, float]]:
    """Split the place at its coarsest level and measure the conditions of every block there."""
    factor = cityraster.LEVELS[-1]
    coarse = grid.coarser(factor)
    channels = [c.name for c in CHANNELS]
    built, valid = (np.zeros((coarse.height, coarse.width), np.float32) for _ in range(2))
    public = [channels.index(name) for name in BUILT if name in known]
    for rows, inside, strip in cityraster.read_strips(layout, factor):
        # Where a source knows parks only, all its ground is as good.
        share = strip[public].sum(0, dtype=np.uint16) if public else COMPLETE * inside.astype(np.uint16)
        built[rows] = np.minimum(share, COMPLETE) / np.float32(COMPLETE)
        valid[rows] = inside
    split = split_blocks(valid, built, coarse, block_m, buffer_m, seed, origin)
    bands = [channels.index(name) for name in known]
    reading = Lock()
    with cityraster.opened(layout, factor) as tif, _one_thread_each(), ThreadPoolExecutor(workers) as pool:

        def conditions(box: NDArray[np.float64]) -> dict[str, Any]:
            window = from_bounds(*box, coarse.transform).round_lengths().round_offsets()
            with reading:
                block = tif.read([b + 1 for b in bands], window=window)
            return measure(block / np.float32(COMPLETE), known, coarse.resolution_m)

        rows_of = list(pool.map(conditions, split.blocks.geometry.bounds.to_numpy()))
    measured = pd.DataFrame(rows_of, index=split.blocks.index, dtype=float)
    return split.blocks.join(measured), {"block_m": split.block_m, "buffer_m": split.buffer_m}


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let torch use one thread within each of ours: faster on small blocks, and sums come out the same everywhere."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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
        first = paths_of(source.path)[0]
        try:
            extent = source.extent()
        except CitygrainError as error:
            if where == "source.":
                raise
            raise error.of("base of the combined source", {"source.": where}) from error
        return Place.from_bbox(name or slug(first.name.split(".", maxsplit=1)[0]), extent)
    if name is not None:
        return Place.from_name(name.replace("_", " "), slug(name))
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


def _existing(folder: Path, request: Mapping[str, Any]) -> CityRaster | None:
    """Open the city raster that is there, None when there is none; refuse one made from another request."""
    manifest = cityraster.read_manifest(folder)
    if manifest is None:
        return None
    made = manifest.get("request", {})
    if made == request:
        return CityRaster.open(folder)
    if made.get("channels") != request["channels"]:
        made, request = {**made, "channels": "an older table"}, {**request, "channels": "the present table"}
    before, now = _flat(made), _flat(request)
    differing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    changed = _changed(before, now)
    raise DataError(
        f"{folder} is already there, made from another request{f': {changed}' if changed else '.'}",
        expected={key: now.get(key) for key in differing},
        got={key: before.get(key) for key in differing},
        remedy="raster.replace=true makes it anew; another paths.data or place.name keeps both",
    )


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say which files of a request are no longer what they were; nothing of those that have another name."""
    told = []
    for key, value in now.items():
        source = key.removesuffix(".sha256")
        names = now.get(f"{source}.path")
        if source == key or key not in before or names != before.get(f"{source}.path"):
            continue
        each = zip(*(v if isinstance(v, list) else [v] for v in (names, before[key], value)), strict=False)
        part = source.removeprefix("source").removeprefix(".").removeprefix("parts.")
        told += [f"{name}{f' ({part})' if part else ''}" for name, was, is_now in each if was != is_now]
    return f"{', '.join(told)} {'has' if len(told) == 1 else 'have'} changed since." if told else ""


def _flat(request: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Every value of a request under its dotted key."""
    flat: dict[str, Any] = {}
    for key, value in request.items():
        flat |= _flat(value, f"{path}{key}.") if isinstance(value, Mapping) else {f"{path}{key}": value}
    return flat


def _plain(value: Any) -> Any:
    """Turn paths, tuples and numpy numbers into what JSON gives back."""
    return json.loads(json.dumps(value, default=lambda v: v.item() if isinstance(v, np.generic) else str(v)))


def _versions() -> dict[str, str]:
    return {
        "citygrain": citygrain.__version__,
        "gdal": rasterio.__gdal_version__,
        "geos": ".".join(map(str, shapely.geos_version)),
        **{name: version(name) for name in PACKAGES},
    }


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _peak_memory_gb() -> float:
    """Most memory this process has held so far; NaN where the system does not tell."""
    if sys.platform == "win32":
        return math.nan
    import resource  # noqa: PLC0415  (not on Windows)

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def _silent(_done: float, _what: str) -> None:
    pass
