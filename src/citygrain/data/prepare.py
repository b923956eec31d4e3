"""From a place and a source to a city raster with measured blocks."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
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

from citygrain.data.cityraster import CityRaster
from citygrain.data.inputs import OVERPASS, choose_place, choose_source
from citygrain.data.raster_folder import draft_folder, lock_folder, recover_folder, refuse_strangers, write_manifest
from citygrain.errors import DataError, SourceError
from citygrain.geo import raster_files
from citygrain.geo.geotiff import GeoTiffWriter
from citygrain.geo.layers import BUILT, CHANNELS, RASTER_FORMAT, WIDTHS
from citygrain.geo.place import Place
from citygrain.geo.raster_files import COMPLETE
from citygrain.geo.rasterize import Grid, rasterize, rasterize_area
from citygrain.geo.sources import Features, Source, check_unknown, describe_origin
from citygrain.geo.sources import read_features as features_of
from citygrain.geo.sources.identity import identify_source
from citygrain.geo.split import BLOCK_M, BUFFER_M, split_blocks
from citygrain.measures import measure
from citygrain.support.console import Progress, show_share_bar
from citygrain.support.files import hash_file
from citygrain.version import __version__

READ, DRAWN = 0.5, 0.9
"""Where the progress bar stands when the features are read and when the strips are drawn."""

PACKAGES = ("numpy", "shapely", "geopandas", "rasterio", "pyogrio", "osmium", "osmnx", "matplotlib")


def prepare(
    place: str | Place | None = None,
    source: Source | str | Path = OVERPASS,
    data: str | Path = "data/cities",
    *,
    name: str | None = None,
    bbox: Sequence[float] | None = None,
    polygon: str | Path | None = None,
    query: str | None = None,
    resolution_m: float = 2.0,
    block_m: float = BLOCK_M,
    buffer_m: float = BUFFER_M,
    seed: int = 0,
    workers: int | None = None,
    unknown: Sequence[str] = (),
    replace: bool = False,
    progress: Progress | None = None,
) -> CityRaster:
    """Make the city raster of a place, in the folder `data/<name of the place>`.

    When it is already there, made from the same request, it is opened and nothing is done. An interrupted run leaves
    nothing that looks whole; repeating it finishes the job. A bar shows the progress.

    Parameters
    ----------
    place
        The name of a place that comes with citygrain, such as `"copenhagen"`, or a `Place`. If it is left out, the
        first that is given of `bbox`, `polygon` and `query` says where the place is; if none is, the place is all that
        the file of the source covers; if the source is no file, `name` is looked up in OpenStreetMap's geocoder.
    source
        Where its features come from: a source, `"overpass"` (which needs the internet), or the path of a file whose
        name tells its kind, see `citygrain.data.inputs.choose_source`.
    data
        Folder of all city rasters.
    name
        Name of the place, and so of its folder.
    bbox
        `(west, south, east, north)` in degrees.
    polygon
        A GeoJSON, GeoPackage or Shapefile with the outline of the place.
    query
        A name to look up, such as `"Houston, Texas"`.
    resolution_m
        Edge of a cell in metres; overviews have two and four times that.
    block_m, buffer_m, seed
        Blocks of the split, see `citygrain.geo.split.split_blocks`.
    workers
        Threads; all cores when None. The result does not depend on it.
    unknown
        Channels that the source lacks although the place has them, see `citygrain.geo.sources.read_features`.
    replace
        Make it anew even if it is there, whatever it was made from. The old one stays until the new one is whole.
    progress
        Called, beside the bar, with the share that is done and what is being done; last with what has been done.

    Raises
    ------
    PlaceError, SourceError, ConfigError
        When the place or source is at fault, or a channel has another name.
    DataError
        When the folder cannot be written, holds another city raster, or the place is too small to be split.

    Examples
    --------
    >>> raster = prepare("copenhagen")  # doctest: +SKIP
    >>> raster = prepare(source="city.osm.pbf", polygon="quarter.geojson")  # doctest: +SKIP
    """
    source = choose_source(source)
    place = choose_place(place, source, name=name, bbox=bbox, polygon=polygon, query=query)
    folder = Path(data) / place.name
    deal = _Deal(block_m, buffer_m, seed)
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
    with show_share_bar(f"preparing {place.name}", progress) as report, lock_folder(folder):
        recovered = recover_folder(folder)
        existing = None if replace else _existing(folder, request)
        if existing is not None:
            report(1.0, recovered or "already there, made from the same request")
            return existing
        existed = folder.exists()
        refuse_strangers(folder)
        found = features_of(place, source, lambda done, what: report(done * READ, what), unknown=unknown)
        grid = Grid.covering(place.bounds_utm, place.crs, resolution_m)
        with draft_folder(folder) as draft:
            manifest = _write(draft, found, place, grid, deal, workers or _cores(), report)
            report(0.99, "moving it into place")
            write_manifest(draft, _plain({**manifest, "request": request, "versions": _versions()}))
        report(1.0, "; ".join(filter(None, [recovered, "replaced" if existed else "written"])))
        return CityRaster.open(folder)


@dataclass(frozen=True)
class _Deal:
    """How the blocks are dealt out to train, val and test, see `citygrain.geo.split.split_blocks`."""

    block_m: float
    buffer_m: float
    seed: int


def _write(
    draft: Path, found: Features, place: Place, grid: Grid, deal: _Deal, workers: int, report: Progress
) -> dict[str, Any]:
    """Write the GeoTIFF and the table of blocks; return what `place.json` says of them."""
    layout = draft / raster_files.LAYOUT
    shares, valid_km2 = _draw(found, place, grid, layout, workers, report)
    report(DRAWN, "splitting and measuring blocks")
    known = [c.name for c in CHANNELS if c.name not in found.unknown]
    origin = describe_origin(found.provenance)
    if not any(shares.values()):
        origin += ", which holds no tag that makes a channel there"
    blocks, split = _blocks(layout, grid, known, deal, workers, origin)
    blocks.to_parquet(draft / raster_files.BLOCKS)
    _list_ways(found, place).to_parquet(draft / raster_files.WAYS)
    return {
        "format": RASTER_FORMAT,
        "attribution": found.provenance["attribution"],
        "place": place.to_dict(),
        "source": found.provenance,
        "crs": place.crs,
        "resolution_m": float(grid.resolution_m),
        "grid": {"left_top": [grid.left, grid.top], "width_height": [grid.width, grid.height]},
        "channels": [c.name for c in CHANNELS],
        "unknown": found.unknown,
        "partial": found.partial,
        "counts": found.counts,
        "skipped": found.skipped,
        "remainder": {tag: asdict(rest) for tag, rest in found.remainder.items()},
        "valid_km2": round(valid_km2, 3),
        "shares": shares,
        "split": {**split, "seed": deal.seed},
        "layout": {"bytes": layout.stat().st_size, "sha256": hash_file(layout)},
    }


def _find_area(found: Features, place: Place) -> shapely.Geometry:
    """Return the part of the place that the source covers, in the place's CRS."""
    return shapely.intersection(shapely.make_valid(place.utm), shapely.make_valid(found.valid))


def _list_ways(found: Features, place: Place) -> gpd.GeoDataFrame:
    """List the lines of the channels of ways, cut at the edge of what is drawn: one row a line, with its `channel`."""
    area = _find_area(found, place)
    shapely.prepare(area)
    parts, channels = [], []
    for name in WIDTHS:
        lines = shapely.get_parts(found[name].geometry.to_numpy())
        lines = lines[(shapely.get_dimensions(lines) == 1) & shapely.intersects(area, lines)]
        within = shapely.covers(area, lines)
        rest = shapely.get_parts(shapely.intersection(lines[~within], area))
        lines = np.concatenate([lines[within], rest[shapely.get_dimensions(rest) == 1]])
        parts.append(lines)
        channels += [name] * len(lines)
    return gpd.GeoDataFrame(
        {"channel": pd.Series(channels, dtype="str")}, geometry=np.concatenate(parts), crs=place.crs
    )


def _draw(
    found: Features, place: Place, grid: Grid, path: Path, workers: int, report: Progress
) -> tuple[dict[str, float], float]:
    """Write the GeoTIFF; return the share of each channel in the valid cells, and the area of these in km²."""
    area = _find_area(found, place)
    if shapely.is_empty(area) or shapely.area(area) == 0:
        raise SourceError(
            f"The source has no data in {place.name}.",
            expected=f"some within {list(place.bbox)}",
            remedy="check the place's bbox against what the file covers",
        )
    names = [c.name for c in CHANNELS]
    covered, cells = np.zeros(len(names)), 0
    row = 0
    with GeoTiffWriter(path, grid, names, raster_files.LEVELS, found.provenance["attribution"], workers) as writer:
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
    layout: Path, grid: Grid, known: Sequence[str], deal: _Deal, workers: int, origin: str
) -> tuple[gpd.GeoDataFrame, dict[str, float]]:
    """Split the place into blocks and measure the conditions of each, at the coarsest level."""
    factor = raster_files.LEVELS[-1]
    coarse = grid.coarser(factor)
    channels = [c.name for c in CHANNELS]
    built, valid = (np.zeros((coarse.height, coarse.width), np.float32) for _ in range(2))
    public = [channels.index(name) for name in BUILT if name in known]
    for rows, inside, strip in raster_files.read_strips(layout, factor):
        # A source that knows no building and no street, such as one of parks: all its ground counts as built.
        share = strip[public].sum(0, dtype=np.uint16) if public else COMPLETE * inside.astype(np.uint16)
        built[rows] = np.minimum(share, COMPLETE) / np.float32(COMPLETE)
        valid[rows] = inside
    split = split_blocks(valid, built, coarse, deal.block_m, deal.buffer_m, deal.seed, origin)
    bands = [channels.index(name) for name in known]
    reading = Lock()
    with raster_files.open_level(layout, factor) as tif, _one_thread_each(), ThreadPoolExecutor(workers) as pool:

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
    """Let torch use one thread in each of our threads: small blocks are faster, and sums the same on every machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _existing(folder: Path, request: Mapping[str, Any]) -> CityRaster | None:
    """Open the city raster that is there, if there is one; refuse one that was made from another request."""
    manifest = raster_files.read_manifest(folder)
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
    """Say which files of a request have another content than before. A file of another name is not compared."""
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
    """Return every value of a request under its dotted key."""
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
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
