"""OpenStreetMap as vector tiles: `.mbtiles` in the OpenMapTiles schema, read by GDAL.

This is how a whole planet is served offline (planetiler, tilemaker, OpenMapTiles). Features come cut into tiles, each
piece with a small overlap into the next tile. The overlap is kept: drawn as a union, it closes the seams that exact
cuts would leave. Whoever adds up lengths or areas of features must merge them first.

Which layer holds what was compared on tilemaker's tiles of Copenhagen and Aarhus. `transportation` and its twin
`transportation_name` hold the same lines to 0.1 km a class, unnamed ones too. Only the first knows tunnels, services
and kinds of rail; only the second tells a cycle way from a farm track (`subclass`). So everything is drawn from the
first but those tracks, and nothing twice. Tiles of the later schema, whose `transportation` has a `subclass` of its
own, need no second layer.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from citygrain.geo.layers import CHANNEL_NAMES
from citygrain.geo.place import Place
from citygrain.geo.sorting import count_tile_remainder, layers_from_openmaptiles
from citygrain.geo.sources import Features, Progress
from citygrain.geo.sources.files import BBox, outside_error
from citygrain.geo.tile_file import HALF_WORLD_M, WEB_MERCATOR, TileFile, damaged_error, open_tiles
from citygrain.geo.tile_rules import TILE_COLUMNS
from citygrain.support.files import hash_file

EDGE_M = 500.0
"""The edges of tiles are curves in UTM: points this far apart follow them within a centimetre."""

FULL_ZOOM = 14
"""Zoom from which OpenMapTiles holds everything; below it buildings are merged and small ways left out."""

UNKNOWN = {"parking": "OpenMapTiles tiles hold no parking surfaces"}
PARTIAL = {
    "cycle": "OpenMapTiles tiles keep cycle ways mapped on their own, not tracks and lanes tagged on a street, which "
    "were four fifths of central Copenhagen's in 2011",
    "walk": "OpenMapTiles tiles keep footways mapped on their own, not sidewalks tagged on a street",
    "square": "OpenMapTiles tiles keep pedestrian areas, not those of footways nor places named a square",
}


@dataclass(frozen=True)
class VectorTiles:
    """Features of a place from an OpenMapTiles `.mbtiles` file.

    Parameters
    ----------
    path
        The file.
    threads
        Layers read at the same time.
    """

    path: str | Path
    threads: int = 2

    def extent(self) -> BBox:
        """`(west, south, east, north)` in degrees of the tiles that the file holds.

        Raises
        ------
        SourceError
            When the file is no OpenMapTiles file.
        """
        with open_tiles(self.path) as tiles:
            return tiles.extent()

    def features(self, place: Place, progress: Progress | None = None) -> Features:
        """Return the features of a place; where the file has no tile, nothing is known (`Features.valid`).

        Raises
        ------
        SourceError
            When the file is missing, damaged, of another schema or elsewhere.
        """
        report = progress or (lambda _fraction, _message: None)
        report(0.0, "looking for tiles")
        with open_tiles(self.path) as tiles:
            inside = tiles.find_within(place)
            if not inside:
                raise outside_error(place, tiles.extent(), tiles.path)
            readable, broken = tiles.find_readable(inside)
            if not readable:
                raise damaged_error(tiles.path, f"none of the {broken} tiles of {place.name} unpacks")
            with tiles.follow_tiles(readable):
                frames = self._read(tiles, place, report)
            provenance = {
                "kind": "vectortiles",
                "file": Path(tiles.path).name,
                "sha256": hash_file(tiles.path),
                "zoom": tiles.zoom,
                "description": tiles.metadata.get("description", ""),
                "tiles": len(readable),
            }
        valid = _find_covered(readable, tiles.zoom, place)
        return Features(
            layers_from_openmaptiles(frames),
            place=place,
            provenance=provenance,
            valid=valid,
            unknown=UNKNOWN,
            partial=PARTIAL if tiles.zoom >= FULL_ZOOM else _describe_coarse(tiles.zoom),
            skipped={"unreadable tiles": broken},
            remainder=count_tile_remainder(frames, valid),
        )

    def _read(self, tiles: TileFile, place: Place, report: Progress) -> dict[str, gpd.GeoDataFrame]:
        """Read what the rules need of every layer of the file, the largest first."""
        names = [name for name in TILE_COLUMNS if name in tiles.layers]
        frames: dict[str, gpd.GeoDataFrame] = {}
        with ThreadPoolExecutor(self.threads) as pool:
            for name, frame in zip(names, pool.map(lambda name: tiles.read(name, place), names), strict=True):
                frames[name] = frame
                report(len(frames) / len(names), f"read {name}")
        return frames


def _describe_coarse(zoom: int) -> dict[str, str]:
    """Return what tiles of a small zoom do not hold, by channel."""
    told = f"tiles of zoom {zoom} simplify and leave out; all is there from zoom {FULL_ZOOM}"
    return {name: told for name in CHANNEL_NAMES if name not in UNKNOWN}


def _find_covered(tiles: list[tuple[int, int]], zoom: int, place: Place) -> BaseGeometry:
    """Return the part of the place that the tiles cover, in the place's CRS."""
    size = 2.0 * HALF_WORLD_M / 2**zoom
    corner: NDArray[np.float64] = np.array(tiles, dtype=float).reshape(-1, 2) * size - HALF_WORLD_M
    covered = shapely.union_all(shapely.box(corner[:, 0], corner[:, 1], corner[:, 0] + size, corner[:, 1] + size))
    return place.utm.intersection(place.project(shapely.segmentize(covered, EDGE_M), WEB_MERCATOR))
