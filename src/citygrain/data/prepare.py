"""Place + source → city raster with measured blocks: the verb `prepare`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import shapely
import torch
from numpy.typing import NDArray
from rasterio.windows import from_bounds

from citygrain.errors import DataError, SourceError
from citygrain.geo import cityraster
from citygrain.geo.cityraster import COMPLETE, CityRaster
from citygrain.geo.geotiff import GeoTiffWriter
from citygrain.geo.layers import CHANNELS, RASTER_FORMAT
from citygrain.geo.place import Place
from citygrain.geo.raster_folder import draft_folder, lock_folder, recover_folder, refuse_strangers, write_manifest
from citygrain.geo.rasterize import Grid, rasterize, rasterize_area
from citygrain.geo.sources import Features, Source, check_unknown, describe_origin
from citygrain.geo.sources import read_features as features_of
from citygrain.geo.sources.identity import identify_source
from citygrain.geo.split import BLOCK_M, BUFFER_M, split_blocks
from citygrain.measures import measure
from citygrain.support.files import sha256
from citygrain.version import __version__

Report = Callable[[float, str], None]

READ, DRAWN = 0.5, 0.9
"""Where the progress bar stands when the features are read and when the strips are drawn."""

BUILT = ("building", "arterial", "street")


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
        Channels that the source lacks although the place has them, see `citygrain.geo.sources.read_features`.

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
    unknown = check_unknown(unknown)
    request = _plain(
        {
            "place": place.to_dict(),
            "source": identify_source(source),
            "resolution_m": float(resolution_m),
            "block_m": float(block_m),
            "buffer_m": float(buffer_m),
            "seed": seed,
            "channels": [asdict(c) for c in CHANNELS],
            **({"unknown": unknown} if unknown else {}),
        }
    )
    with lock_folder(folder):
        recovered = recover_folder(folder)
        existing = None if replace else _existing(folder, request)
        if existing is not None:
            report(1.0, recovered or "already there, made from the same request")
            return existing
        existed = folder.exists()
        refuse_strangers(folder)
        found = features_of(place, source, lambda done, what: report(done * READ, what), unknown=unknown)
        grid = Grid.covering(place.bounds_utm, place.crs, resolution_m)
        workers = workers or _cores()
        with draft_folder(folder) as draft:
            layout = draft / cityraster.LAYOUT
            shares, valid_km2 = _draw(found, place, grid, layout, workers, report)
            report(DRAWN, "splitting and measuring blocks")
            known = [c.name for c in CHANNELS if c.name not in found.unknown]
            origin = describe_origin(found.provenance)
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
            write_manifest(draft, _plain(manifest))
        report(1.0, "; ".join(filter(None, [recovered, "replaced" if existed else "written"])))
        return CityRaster.open(folder)


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
    with cityraster.open_level(layout, factor) as tif, _one_thread_each(), ThreadPoolExecutor(workers) as pool:

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
        "citygrain": __version__,
        "gdal": rasterio.__gdal_version__,
        "geos": ".".join(map(str, shapely.geos_version)),
        **{name: version(name) for name in PACKAGES},
    }


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _silent(_done: float, _what: str) -> None:
    pass
