"""Ways that were drawn as lines: their network is theirs, and need not be traced from cells."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import ArrayLike, NDArray

from citygrain.errors import DataError
from citygrain.geo.noding import Ways, node_lines
from citygrain.geo.rasterize import Grid
from citygrain.geo.vectorize import AREAS, NETWORKS, SMALLEST_M2, WITH_SERVICE, Vectors, vectorize
from citygrain.support.files import write_atomically

DRAWN = "drawn_ways.parquet"
"""The lines of drawn layouts, beside their GeoTIFFs."""

COLUMNS = {"channel": str, "apart": bool, "cells": str}

ON_M = 0.1
"""An end that is this near to a given line is on it."""

LEAD_M = 8.0
"""An end on a line that was given is led at most this far onto the line that was meant: a code rounds given lines."""

LINE = 1
"""Type id of shapely."""


@dataclass(frozen=True, eq=False)
class DrawnWays:
    """The ways of a layout as the lines that they were drawn as.

    Attributes
    ----------
    kind
        `(N,)` the channel of each.
    lines
        `(N,)` LineStrings in metres from the upper left corner of the layout: x to the right, y down.
    apart
        `(N,)` which lines cross others without meeting them.
    cells
        The fingerprint of the layout that they were drawn as; of another layout they are not the ways.
    given
        `(N,)` which lines were given, and not drawn; None for none.
    """

    kind: NDArray[np.str_]
    lines: NDArray[np.object_]
    apart: NDArray[np.bool_]
    cells: str = ""
    given: NDArray[np.bool_] | None = None

    @classmethod
    def none(cls) -> DrawnWays:
        """Return no ways."""
        return cls(np.empty(0, str), np.empty(0, object), np.empty(0, bool))

    def drawn_as(self, layout: NDArray[np.uint8]) -> DrawnWays:
        """Return the ways with the fingerprint of the layout `(C, H, W)` that shows them."""
        return replace(self, cells=_fingerprint(layout))

    def locate(self, grid: Grid) -> NDArray[np.object_]:
        """Return the lines in the CRS of a grid."""
        lines: NDArray[np.object_] = shapely.transform(self.lines, lambda xy: grid.to_metres(xy / grid.resolution_m))
        return lines

    def cut(self, left: float, top: float, extent_m: float) -> DrawnWays:
        """Return the ways of a window, given its upper left corner in metres from that of the layout."""
        box = left, top, left + extent_m, top + extent_m
        found = np.sort(shapely.STRtree(self.lines).query(shapely.box(*box)))
        parts, owner = shapely.get_parts(shapely.clip_by_rect(self.lines[found], *box), return_index=True)
        kept = (shapely.get_type_id(parts) == LINE) & (shapely.length(parts) > 0)
        of = found[owner[kept]]
        return DrawnWays(self.kind[of], shapely.transform(parts[kept], lambda xy: xy - (left, top)), self.apart[of])

    def extend(self, window: DrawnWays, left: float, top: float) -> DrawnWays:
        """Return these ways and those that were drawn in a window around them.

        A line that goes on from one of these is one line with it. Other ends on lines that were given are led onto the
        lines that these were cut from.

        Parameters
        ----------
        window
            The ways of a window, among them those that were given.
        left, top
            Its upper left corner in metres from that of the layout.
        """
        corner = np.array([left, top])
        given = np.zeros(len(window.kind), bool) if window.given is None else window.given
        around = shapely.STRtree(window.lines[given])
        xy, line = shapely.get_coordinates(window.lines[~given], return_index=True)
        count = len(given) - given.sum()
        for end in (np.searchsorted(line, np.arange(count)), np.searchsorted(line, np.arange(count), side="right") - 1):
            on, _ = around.query(shapely.points(xy[end]), predicate="dwithin", distance=ON_M)
            on = end[np.unique(on)]
            xy[on] = self._lead(xy[on] + corner) - corner
        fresh = shapely.linestrings(xy + corner, indices=line) if count else np.empty(0, object)
        some = shapely.length(fresh) > 0
        kind = np.concatenate([self.kind, window.kind[~given][some]])
        apart = np.concatenate([self.apart, window.apart[~given][some]])
        return _merge_pieces(kind, np.concatenate([self.lines, fresh[some]]), apart)

    def _lead(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Lead points `(N, 2)` to the nearest line, if it is near by: to its end, or onto it where its ends are far."""
        near, line = shapely.STRtree(self.lines).query_nearest(
            shapely.points(points), max_distance=LEAD_M, all_matches=False
        )
        tips = shapely.points(points[near])
        ends = np.stack([shapely.get_point(self.lines[line], i) for i in (0, -1)], 1)
        gaps = shapely.distance(ends, tips[:, None])
        end = ends[np.arange(len(ends)), gaps.argmin(1)]
        targets = np.where(gaps.min(1) <= LEAD_M, end, self.lines[line])
        led = points.copy()
        led[near] = shapely.get_coordinates(shapely.get_point(shapely.shortest_line(targets, tips), 0))
        return led

    def node(self, channels: Sequence[str], grid: Grid, *, service: bool = False) -> dict[str, Ways]:
        """Return the networks of the ways: lines meet where they cross, unless one of the two is apart.

        Parameters
        ----------
        channels
            Names of the channels that the layout has.
        grid
            Where the layout lies.
        service
            Whether service roads belong to the drive network; else they are a network of their own.
        """
        lines, networks = self.locate(grid), {}
        for network, kinds in (WITH_SERVICE if service else NETWORKS).items():
            if set(kinds) & set(channels):
                of = np.isin(self.kind, kinds)
                networks[network] = node_lines(lines[of], self.kind[of], grid, self.apart[of])
        return networks


def _merge_pieces(kind: NDArray[np.str_], lines: NDArray[np.object_], apart: NDArray[np.bool_]) -> DrawnWays:
    """Join lines of one kind where two of them meet at their ends, and no third one does."""
    ways = DrawnWays.none()
    for name in np.unique(kind):
        for level in (False, True):
            pieces = lines[(kind == name) & (apart == level)]
            merged = shapely.get_parts(shapely.line_merge(shapely.multilinestrings(pieces)))
            ways = DrawnWays(
                np.append(ways.kind, np.full(len(merged), name)),
                np.append(ways.lines, merged),
                np.append(ways.apart, np.full(len(merged), level)),
            )
    return ways


def find_vectors(
    layout: NDArray[np.uint8],
    channels: Sequence[str],
    grid: Grid,
    ways: DrawnWays | None = None,
    *,
    smallest_m2: Mapping[str, float] = SMALLEST_M2,
    service: bool = False,
) -> Vectors:
    """Turn a layout into polygons and ways: those that it was drawn as, or else those that are traced.

    The parameters are those of `citygrain.geo.vectorize.vectorize`, and the ways that the layout may have been drawn
    as.
    """
    if ways is None or ways.cells != _fingerprint(layout):
        return vectorize(layout, channels, grid, smallest_m2=smallest_m2, service=service)
    areas = [name for name in channels if name in AREAS]
    found = vectorize(layout[[channels.index(name) for name in areas]], areas, grid, smallest_m2=smallest_m2)
    return replace(found, channels=tuple(channels), ways=ways.node(channels, grid, service=service))


def write_ways(folder: Path, names: Sequence[str], ways: Sequence[DrawnWays | None], grids: Sequence[Grid]) -> None:
    """Write the ways of layouts, in their CRS, beside their GeoTIFFs; without any, remove those of another set."""
    drawn = [(name, one, grid) for name, one, grid in zip(names, ways, grids, strict=True) if one is not None]
    if not drawn:
        (folder / DRAWN).unlink(missing_ok=True)
        return
    columns = {
        "layout": np.repeat([name for name, _, _ in drawn], [len(one.kind) for _, one, _ in drawn]),
        "channel": np.concatenate([one.kind for _, one, _ in drawn]),
        "apart": np.concatenate([one.apart for _, one, _ in drawn]),
        "cells": np.repeat([one.cells for _, one, _ in drawn], [len(one.kind) for _, one, _ in drawn]),
    }
    lines = np.concatenate([one.locate(grid) for _, one, grid in drawn])
    with write_atomically(folder / DRAWN) as temporary:
        gpd.GeoDataFrame(columns, geometry=lines, crs=drawn[0][2].crs).to_parquet(temporary)


def read_ways(folder: Path, name: str, grid: Grid) -> DrawnWays | None:
    """Read the ways of a layout from the folder that `write_ways` has written to; None where there are none.

    Raises
    ------
    DataError
        When the file is damaged.
    """
    path = folder / DRAWN
    if not path.is_file():
        return None
    try:
        table = gpd.read_parquet(path, filters=[("layout", "==", name)])
        lines = np.asarray(table.geometry.values, object)
        kind, apart, cells = (table[name].to_numpy(dtype) for name, dtype in COLUMNS.items())
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DataError(
            f"{path} is damaged.", got=error, remedy="remove it: then ways are traced from the cells"
        ) from error
    if not len(lines):
        return None
    local = shapely.transform(lines, lambda xy: grid.to_cells(xy) * grid.resolution_m)
    return DrawnWays(kind, local, apart, str(cells[0]))


def _fingerprint(layout: ArrayLike) -> str:
    return hashlib.blake2b(np.ascontiguousarray(layout).tobytes(), digest_size=16).hexdigest()
