"""The strokes of a prepared place, and those of its windows."""

from __future__ import annotations

from collections.abc import Sequence

import geopandas as gpd
import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from citygrain.data.cityraster import CityRaster
from citygrain.errors import DataError
from citygrain.geo.raster_files import WAYS, damaged_error
from citygrain.geo.strokes import find_apart, merge_strokes
from citygrain.geo.vectorize import WITH_SERVICE
from citygrain.geo.window_strokes import Strokes

SHORTEST_M = 4.0
"""Pieces of strokes that the edge of a window leaves are left out when they are shorter."""


class CityStrokes:
    """The natural streets of a prepared place, merged once and kept beside it.

    Parameters
    ----------
    raster
        The place.
    kinds
        Channels of ways, in order.

    Raises
    ------
    DataError
        When the place was prepared by a citygrain that did not keep the lines of ways, or they are damaged.
    """

    def __init__(self, raster: CityRaster, kinds: Sequence[str]) -> None:
        self.kinds = tuple(kinds)
        ways = _read_ways(raster, self.kinds)
        strokes = merge_strokes(ways)
        self.lines: NDArray[np.object_] = np.concatenate([strokes[name] for name in self.kinds])
        self.kind = np.repeat(np.arange(len(self.kinds)), [len(strokes[name]) for name in self.kinds])
        self.apart = np.zeros(len(self.lines), bool)
        for names in {WITH_SERVICE["drive"], *((name,) for name in self.kinds if name not in WITH_SERVICE["drive"])}:
            network = np.isin(self.kind, [self.kinds.index(name) for name in names if name in self.kinds])
            if network.any():
                whole = np.concatenate([ways[name] for name in names if name in self.kinds])
                self.apart[network] = find_apart(self.lines[network], whole)
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


def _read_ways(raster: CityRaster, kinds: Sequence[str]) -> dict[str, NDArray[np.object_]]:
    path = raster.path / WAYS
    if not path.is_file():
        raise DataError(
            f"{raster.path} does not hold the lines of its ways: it was prepared by an earlier citygrain.",
            expected=WAYS,
            remedy=f"prepare the place again: citygrain prepare place={raster.name} … raster.replace=true",
        )
    try:
        table = gpd.read_parquet(path)
        channel, lines = table["channel"].to_numpy(str), np.asarray(table.geometry.values, object)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise damaged_error(path, error) from error
    return {name: lines[channel == name] for name in kinds}
