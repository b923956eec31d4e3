"""The strokes of a prepared place, and those of its windows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from citygrain.data.cityraster import CityRaster
from citygrain.data.codes import fingerprint
from citygrain.errors import DataError
from citygrain.geo.raster_files import CACHE, WAYS, damaged_error
from citygrain.geo.strokes import AHEAD_M, DEFLECTION_DEG, SAME_M, SHARED_M, find_apart, merge_strokes
from citygrain.geo.vectorize import WITH_SERVICE
from citygrain.geo.window_strokes import Strokes
from citygrain.support.files import write_atomically

SHORTEST_M = 4.0
"""Pieces of strokes that the edge of a window leaves are left out when they are shorter."""

MERGED = {"way": 1, "constants": (DEFLECTION_DEG, AHEAD_M, SAME_M, SHARED_M)}
"""How strokes are merged. Whoever changes it counts `way` up: strokes that were merged in another way are not read."""


class CityStrokes:
    """The natural streets of a prepared place: merged once, and kept in its folder's `.cache/`.

    Several processes may merge at once. Where the folder is read-only, strokes are merged in memory.

    Parameters
    ----------
    raster
        The place.
    kinds
        Channels of ways, in order.

    Attributes
    ----------
    lines
        `(N,)` the strokes as LineStrings, in metres in the CRS of the place.
    kind
        `(N,)` index into the kinds.
    apart
        `(N,)` which strokes cross others without meeting them.
    known
        `(K,)` which kinds the source of the place knows.

    Raises
    ------
    DataError
        When the place holds no lines of ways, or they are damaged.
    """

    def __init__(self, raster: CityRaster, kinds: Sequence[str]) -> None:
        self.kinds = tuple(kinds)
        table = _open_strokes(raster, self.kinds)
        self.lines: NDArray[np.object_] = np.asarray(table.geometry.values, object)
        self.kind = table["kind"].to_numpy(np.int64)
        self.apart = table["apart"].to_numpy(bool)
        self.known = np.array([name in raster.channels and name not in raster.unknown for name in self.kinds])
        self._tree = shapely.STRtree(self.lines)

    def cut(self, left: float, top: float, extent_m: float) -> Strokes:
        """Return the strokes of a window, given its upper left corner in metres in the CRS of the place."""
        box = left, top - extent_m, left + extent_m, top
        found = np.sort(self._tree.query(shapely.box(*box)))
        parts, owner = shapely.get_parts(shapely.clip_by_rect(self.lines[found], *box), return_index=True)
        kept = (shapely.get_type_id(parts) == 1) & (shapely.length(parts) > SHORTEST_M)
        parts, owner = parts[kept], found[owner[kept]]
        kind = self.kind[owner]
        middle = np.array([left + extent_m / 2, top - extent_m / 2])
        xy, stroke = shapely.get_coordinates(parts, return_index=True)
        return Strokes(kind, (xy - middle) * (1, -1), stroke, self.known, np.zeros(len(kind), bool), self.apart[owner])


def _open_strokes(raster: CityRaster, kinds: tuple[str, ...]) -> gpd.GeoDataFrame:
    """Read the strokes of a place from its cache. If they are not there, or not whole, merge and keep them."""
    path = raster.path / WAYS
    if not path.is_file():
        raise DataError(
            f"{raster.path} does not hold the lines of its ways.",
            expected=f"{WAYS}, which `prepare` writes",
            got="a place that an earlier citygrain prepared, or one that was packed: a pack has cells only",
            remedy=f"prepare the place again: citygrain prepare place={raster.name} … raster.replace=true",
        )
    stamp = path.stat()
    version = f"{fingerprint(MERGED)[:8]}-{stamp.st_size:x}-{stamp.st_mtime_ns:x}.parquet"
    kept = raster.path / CACHE / f"strokes-{'+'.join(kinds)}-{version}"
    try:
        return gpd.read_parquet(kept)
    except (OSError, ValueError, KeyError, pa.ArrowException):
        table = _merge_ways(path, kinds, raster.crs)
    try:
        with write_atomically(kept) as draft:
            table.to_parquet(draft)
    except DataError as error:
        warnings.warn(
            f"{kept.parent} cannot be written ({error}); strokes are merged in memory every time", stacklevel=3
        )
        return table
    for old in kept.parent.glob("strokes-*.parquet"):
        if not old.name.endswith(version):
            old.unlink(missing_ok=True)
    return table


def _merge_ways(path: Path, kinds: Sequence[str], crs: str) -> gpd.GeoDataFrame:
    """Merge the ways of a place: one row a stroke, with its `kind` and whether it is `apart`."""
    try:
        table = gpd.read_parquet(path)
        channel, lines = table["channel"].to_numpy(str), np.asarray(table.geometry.values, object)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise damaged_error(path, error) from error
    merged = merge_strokes({name: lines[channel == name] for name in kinds})
    strokes = np.concatenate([merged[name] for name in kinds])
    kind = np.repeat(np.arange(len(kinds)), [len(merged[name]) for name in kinds])
    apart = np.zeros(len(strokes), bool)
    drive = WITH_SERVICE["drive"]
    for names in {drive, *((name,) for name in kinds if name not in drive)}:
        network = np.isin(kind, [kinds.index(name) for name in names if name in kinds])
        if network.any():
            apart[network] = find_apart(strokes[network], lines[np.isin(channel, [n for n in names if n in kinds])])
    return gpd.GeoDataFrame({"kind": kind, "apart": apart}, geometry=strokes, crs=crs)
