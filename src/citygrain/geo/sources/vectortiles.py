"""OpenStreetMap as vector tiles: `.mbtiles` in the OpenMapTiles schema, read by GDAL.

This is how a whole planet is served offline (planetiler, tilemaker, OpenMapTiles). Features come cut into tiles, each
piece with a small overlap into the next tile. The overlap is kept: drawn as a union, it closes the seams that exact
cuts would leave. Whoever adds up lengths or areas of features must merge first.

Which layer holds what was compared on tilemaker's tiles of Copenhagen and Aarhus. `transportation` and its twin
`transportation_name` hold the same lines to 0.1 km a class, unnamed ones too. Only the first knows tunnels,
services and kinds of rail; only the second tells a cycle way from a farm track (`subclass`). So everything is drawn
from the first but those tracks, and nothing twice. Tiles of the later schema, whose `transportation` has a `subclass`
of its own, need no second layer.
"""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyogrio
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from shapely.geometry.base import BaseGeometry

from citygrain.errors import SourceError
from citygrain.files import sha256
from citygrain.geo.layers import TILE_COLUMNS, layers_from_openmaptiles, remainder_of_tiles
from citygrain.geo.place import Place
from citygrain.geo.sources import Features, Progress
from citygrain.geo.sources._files import BBox, existing_file, outside

WEB_MERCATOR = "EPSG:3857"
HALF_WORLD_M = math.pi * 6378137.0
EDGE_M = 500.0
"""Tile edges are curves in UTM; points this far apart follow them within a centimetre."""

BATCH = 65_536
"""Features handled at a time."""

GDAL_ERRORS = (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError)

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
        with _tiles(self.path) as tiles:
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
        with _tiles(self.path) as tiles:
            inside = tiles.within(place)
            if not inside:
                raise outside(place, tiles.extent(), tiles.path)
            readable, broken = tiles.readable(inside)
            frames = self._read(tiles, place, report)
            provenance = {
                "kind": "vectortiles",
                "file": Path(tiles.path).name,
                "sha256": sha256(tiles.path),
                "zoom": tiles.zoom,
                "description": tiles.metadata.get("description", ""),
                "tiles": len(readable),
            }
        valid = _area(readable, tiles.zoom, place)
        return Features(
            layers_from_openmaptiles(frames),
            place=place,
            provenance=provenance,
            valid=valid,
            unknown=UNKNOWN,
            partial=PARTIAL,
            skipped={"unreadable tiles": broken},
            remainder=remainder_of_tiles(frames, valid),
        )

    def _read(self, tiles: _Tiles, place: Place, report: Progress) -> dict[str, gpd.GeoDataFrame]:
        """Read what the rules need of every layer of the file, the largest first."""
        names = [name for name in TILE_COLUMNS if name in tiles.layers]
        frames: dict[str, gpd.GeoDataFrame] = {}
        with ThreadPoolExecutor(self.threads) as pool:
            for name, frame in zip(names, pool.map(lambda name: tiles.read(name, place), names), strict=True):
                frames[name] = frame
                report(len(frames) / len(names), f"read {name}")
        return frames


class _Tiles:
    """An open `.mbtiles` file: its index by sqlite, its layers by GDAL."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self.metadata: dict[str, str] = dict(connection.execute("SELECT name, value FROM metadata"))
        (zoom,) = connection.execute("SELECT max(zoom_level) FROM tiles").fetchone()
        if zoom is None:
            raise SourceError(f"{path} holds no tiles.", remedy="download it again")
        self.zoom = int(zoom)
        pages, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
        if path.stat().st_size < pages * size:
            raise sqlite3.DatabaseError(f"{pages * size} bytes announced, {path.stat().st_size} there")
        self.layers = self._layers()

    def _layers(self) -> dict[str, set[str]]:
        """Fields of each layer, by its name."""
        if self.metadata.get("format", "pbf") != "pbf":
            raise self._schema_error(f"{self.metadata['format']} pictures")
        try:
            listed = json.loads(self.metadata.get("json", "{}")).get("vector_layers", [])
            layers = {str(layer["id"]): set(layer["fields"]) for layer in listed}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _damaged(self.path, error) from error
        if not {"transportation", "building"} <= set(layers):
            raise self._schema_error(f"layers {', '.join(sorted(layers)) or '(none)'}")
        return layers

    def _schema_error(self, got: str) -> SourceError:
        return SourceError(
            f"{self.path} is not in the OpenMapTiles schema.",
            expected="vector tiles with the layers transportation, building, landcover, water, …",
            got=got,
            remedy="make tiles with tilemaker's or planetiler's OpenMapTiles profile, or use source=file",
        )

    def extent(self) -> BBox:
        """`(west, south, east, north)` in degrees of all tiles of the largest zoom."""
        query = (
            "SELECT min(tile_column), min(tile_row), max(tile_column) + 1, max(tile_row) + 1 "
            "FROM tiles WHERE zoom_level = ?"
        )
        left, bottom, right, top = self._connection.execute(query, (self.zoom,)).fetchone()
        n = 2**self.zoom
        west, east = (360.0 * c / n - 180.0 for c in (left, right))
        south, north = (math.degrees(math.atan(math.sinh(math.pi * (2.0 * r / n - 1.0)))) for r in (bottom, top))
        return west, south, east, north

    def within(self, place: Place) -> list[tuple[int, int]]:
        """Columns and rows (from the south) of the tiles that meet the place's bbox."""
        n = 2**self.zoom
        west, south, east, north = place.bbox
        columns = (math.floor((lon + 180.0) / 360.0 * n) for lon in (west, east))
        rows = (
            math.floor((math.asinh(math.tan(math.radians(lat))) / math.pi + 1.0) / 2.0 * n) for lat in (south, north)
        )
        query = (
            "SELECT tile_column, tile_row FROM tiles WHERE zoom_level = ? "
            "AND tile_column BETWEEN ? AND ? AND tile_row BETWEEN ? AND ?"
        )
        return self._connection.execute(query, (self.zoom, *columns, *rows)).fetchall()

    def readable(self, tiles: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], int]:
        """Tiles whose bytes unpack, and the number of the others: GDAL passes over those without a word."""
        query = "SELECT tile_data FROM tiles WHERE zoom_level = ? AND tile_column = ? AND tile_row = ?"
        good = [t for t in tiles if _unpacks(self._connection.execute(query, (self.zoom, *t)).fetchone()[0])]
        return good, len(tiles) - len(good)

    def read(self, layer: str, place: Place) -> gpd.GeoDataFrame:
        """Read one layer within the place's bbox, in the place's CRS, with the columns that the rules look at."""
        columns = sorted(set(TILE_COLUMNS[layer]) & self.layers[layer])
        west, south, east, north = place.bbox
        box = (*_mercator(west, south), *_mercator(east, north))
        project = Transformer.from_crs(WEB_MERCATOR, place.crs, always_xy=True).transform
        tags, geometries = [], []
        try:
            # Cutting each piece at its tile's edge takes GDAL a third of its time, and would leave seams. In batches,
            # so that a million buildings exist only once: not as bytes, as read and as projected.
            with pyogrio.raw.open_arrow(
                self.path, layer=layer, columns=columns, bbox=box, batch_size=BATCH, use_pyarrow=True, CLIP="NO"
            ) as (meta, batches):
                for batch in batches:
                    geometry = shapely.from_wkb(batch[meta["geometry_name"] or "wkb_geometry"].to_numpy(False))
                    xy = shapely.get_coordinates(geometry)
                    geometries.append(shapely.set_coordinates(geometry, np.column_stack(project(xy[:, 0], xy[:, 1]))))
                    tags.append(batch.select(columns))
        except (*GDAL_ERRORS, pa.ArrowException) as error:
            raise _damaged(self.path, error) from error
        if not tags:
            return gpd.GeoDataFrame({column: [] for column in columns}, geometry=[], crs=place.crs)
        return gpd.GeoDataFrame(
            pa.Table.from_batches(tags).to_pandas(), geometry=np.concatenate(geometries), crs=place.crs
        )


@contextlib.contextmanager
def _tiles(path: str | Path) -> Iterator[_Tiles]:
    """Open a file of tiles for reading; whatever sqlite complains of becomes a `SourceError`."""
    path = existing_file(path, (".mbtiles",), "a file of vector tiles")
    with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        try:
            yield _Tiles(path, connection)
        except sqlite3.DatabaseError as error:
            raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> SourceError:
    return SourceError(
        f"{path} is damaged, or no .mbtiles file.",
        expected="an sqlite database with the tables tiles and metadata",
        got=error,
        remedy="download it again, and compare its size and hash with what the server says",
    )


def _unpacks(data: bytes) -> bool:
    """Whether a tile's bytes are whole; gzip carries a checksum."""
    if not data.startswith(b"\x1f\x8b"):
        return True
    try:
        zlib.decompress(data, wbits=31)
    except zlib.error:
        return False
    return True


def _mercator(lon: float, lat: float) -> tuple[float, float]:
    """Web Mercator of a point in degrees, metres."""
    return HALF_WORLD_M * lon / 180.0, HALF_WORLD_M * math.asinh(math.tan(math.radians(lat))) / math.pi


def _area(tiles: list[tuple[int, int]], zoom: int, place: Place) -> BaseGeometry:
    """Part of the place, in its CRS, that the tiles cover."""
    size = 2.0 * HALF_WORLD_M / 2**zoom
    corner: NDArray[np.float64] = np.array(tiles, dtype=float).reshape(-1, 2) * size - HALF_WORLD_M
    covered = shapely.union_all(shapely.box(corner[:, 0], corner[:, 1], corner[:, 0] + size, corner[:, 1] + size))
    return place.utm.intersection(place.project(shapely.segmentize(covered, EDGE_M), WEB_MERCATOR))
