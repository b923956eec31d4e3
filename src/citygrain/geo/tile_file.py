"""A file of vector tiles, `.mbtiles` in the OpenMapTiles schema: its index by sqlite, its layers by GDAL.

What the file's `metadata` says of its zooms, layers and fields may differ from what its tiles hold: where tiles were
cut out, merged or renamed it is left over. GDAL believes it. So the tiles are looked into, and where the two differ,
GDAL gets a file of the same tiles with true metadata.

References
----------
https://github.com/mapbox/mbtiles-spec, https://github.com/mapbox/vector-tile-spec/tree/master/2.1
"""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyogrio
import shapely
from pyproj import Transformer

from citygrain.errors import SourceError
from citygrain.geo.place import Place
from citygrain.geo.sources.files import BBox, check_file
from citygrain.geo.tile_rules import TILE_COLUMNS

WEB_MERCATOR = "EPSG:3857"
HALF_WORLD_M = math.pi * 6378137.0

BATCH = 65_536
"""Features handled at a time."""

LOOKED_INTO = 4
"""So many tiles of a place, the largest ones, are looked into for their layers and fields."""

GDAL_ERRORS = (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError)

GZIP = b"\x1f\x8b"
SCHEMA_LAYERS = {"transportation", "building"}

FORMATS = ("pbf", "mvt", "application/x-protobuf", "application/vnd.mapbox-vector-tile")
"""Formats that files of vector tiles name in their metadata; the first is the usual one."""


class TileFile:
    """An open `.mbtiles` file: its index by sqlite, its layers by GDAL."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self.metadata = _read_metadata(connection)
        (zoom,) = connection.execute("SELECT max(zoom_level) FROM tiles").fetchone()
        if zoom is None:
            raise SourceError(f"{path} holds no tiles.", remedy="download it again")
        self.zoom = int(zoom)
        pages, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
        if path.stat().st_size < pages * size:
            raise sqlite3.DatabaseError(f"{pages * size} bytes announced, {path.stat().st_size} there")
        self.layers = self._read_layers()
        """Fields and their types of each layer, by its name."""
        self._read_from = path

    def _read_layers(self) -> dict[str, dict[str, str]]:
        """Return what the metadata say of each layer; nothing where they say nothing that can be read."""
        if self.metadata.get("format", FORMATS[0]).lower() not in FORMATS:
            raise self._schema_error(f"{self.metadata['format']} pictures")
        try:
            listed = json.loads(self.metadata.get("json") or "{}").get("vector_layers") or []
            layers = {str(layer["id"]): dict(layer.get("fields") or {}) for layer in listed}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}
        if layers and not SCHEMA_LAYERS & set(layers):
            raise self._schema_error(f"layers {', '.join(sorted(layers))}")
        return layers

    @contextlib.contextmanager
    def follow_tiles(self, tiles: Sequence[tuple[int, int]]) -> Iterator[None]:
        """Let `layers` and `read` follow what these tiles hold, within this context, whatever the metadata say.

        Raises
        ------
        SourceError
            When they hold no layers of the OpenMapTiles schema.
        """
        length = "SELECT length(tile_data) FROM tiles WHERE zoom_level = ? AND tile_column = ? AND tile_row = ?"
        size = {tile: self._connection.execute(length, (self.zoom, *tile)).fetchone()[0] for tile in tiles}
        true = self._read_number("minzoom") <= self.zoom and self.metadata.get("format") == FORMATS[0]
        for tile in sorted(tiles, key=lambda tile: -size[tile])[:LOOKED_INTO]:
            for name, fields in _find_fields(self._read_tile(tile)).items():
                new = fields & set(TILE_COLUMNS.get(name, ())) - set(self.layers.get(name, {}))
                true = true and not new and (name in self.layers or name not in TILE_COLUMNS)
                self.layers.setdefault(name, {}).update(dict.fromkeys(sorted(new), "String"))
        if not set(self.layers) >= SCHEMA_LAYERS:
            raise self._schema_error(f"layers {', '.join(sorted(self.layers)) or '(none)'}")
        if true:
            yield
            return
        with tempfile.TemporaryDirectory(prefix="citygrain-") as folder:
            self._read_from = Path(folder) / "tiles.mbtiles"
            self._write(self._read_from, tiles)
            try:
                yield
            finally:
                self._read_from = self.path

    def _read_number(self, key: str) -> int:
        """Return a number of the metadata; 0 where there is none."""
        try:
            return int(self.metadata.get(key, 0))
        except ValueError:
            return 0

    def _write(self, path: Path, tiles: Sequence[tuple[int, int]]) -> None:
        """Write some tiles and their neighbours, whose overlap reaches into them, with true metadata."""
        layers = [{"id": name, "fields": fields} for name, fields in self.layers.items()]
        metadata = {
            "name": path.stem,
            "format": "pbf",
            "minzoom": str(self.zoom),
            "maxzoom": str(self.zoom),
            "json": json.dumps({"vector_layers": layers}),
        }
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("CREATE TABLE metadata (name text, value text)")
            connection.execute("CREATE TABLE tiles (zoom_level int, tile_column int, tile_row int, tile_data blob)")
            connection.executemany("INSERT INTO metadata VALUES (?, ?)", metadata.items())
            around = [edge for numbers in zip(*tiles, strict=True) for edge in (min(numbers) - 1, max(numbers) + 1)]
            query = (
                "SELECT zoom_level, tile_column, tile_row, tile_data FROM tiles WHERE zoom_level = ? "
                "AND tile_column BETWEEN ? AND ? AND tile_row BETWEEN ? AND ? AND tile_data IS NOT NULL"
            )
            rows = self._connection.execute(query, (self.zoom, *around))
            connection.executemany("INSERT INTO tiles VALUES (?, ?, ?, ?)", rows)
            connection.execute("CREATE UNIQUE INDEX place ON tiles (zoom_level, tile_column, tile_row)")

    def _read_tile(self, tile: tuple[int, int]) -> bytes:
        """Return the bytes of a tile of the largest zoom."""
        query = "SELECT tile_data FROM tiles WHERE zoom_level = ? AND tile_column = ? AND tile_row = ?"
        data: bytes = self._connection.execute(query, (self.zoom, *tile)).fetchone()[0]
        return data

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

    def find_within(self, place: Place) -> list[tuple[int, int]]:
        """Return the columns and rows (from the south) of the tiles that meet the place's bbox."""
        n = 2**self.zoom
        west, south, east, north = place.bbox
        columns = (math.floor((lon + 180.0) / 360.0 * n) for lon in (west, east))
        rows = (
            math.floor((math.asinh(math.tan(math.radians(lat))) / math.pi + 1.0) / 2.0 * n) for lat in (south, north)
        )
        query = (
            "SELECT tile_column, tile_row FROM tiles WHERE zoom_level = ? "
            "AND tile_column BETWEEN ? AND ? AND tile_row BETWEEN ? AND ? AND tile_data IS NOT NULL"
        )
        return self._connection.execute(query, (self.zoom, *columns, *rows)).fetchall()

    def find_readable(self, tiles: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], int]:
        """Return the tiles whose bytes unpack, and the number of the others, which GDAL leaves out silently."""
        good = [tile for tile in tiles if _unpacks(self._read_tile(tile))]
        return good, len(tiles) - len(good)

    def read(self, layer: str, place: Place) -> gpd.GeoDataFrame:
        """Read one layer within the place's bbox, in the place's CRS, with the columns that the rules look at."""
        columns = sorted(set(TILE_COLUMNS[layer]) & set(self.layers[layer]))
        # Without it GDAL takes the metadata's `maxzoom`, whatever tiles there are.
        options = {"CLIP": "NO", "ZOOM_LEVEL": self.zoom}
        west, south, east, north = place.bbox
        box = (*project_to_mercator(west, south), *project_to_mercator(east, north))
        project = Transformer.from_crs(WEB_MERCATOR, place.crs, always_xy=True).transform
        tags, geometries = [], []
        try:
            # Cutting each piece at its tile's edge takes GDAL a third of its time, and would leave seams. In batches,
            # so that a million buildings exist only once: not as bytes, as read and as projected.
            with pyogrio.raw.open_arrow(
                self._read_from, layer=layer, columns=columns, bbox=box, batch_size=BATCH, use_pyarrow=True, **options
            ) as (meta, batches):
                for batch in batches:
                    geometry = shapely.from_wkb(batch[meta["geometry_name"] or "wkb_geometry"].to_numpy(False))
                    xy = shapely.get_coordinates(geometry)
                    geometries.append(shapely.set_coordinates(geometry, np.column_stack(project(xy[:, 0], xy[:, 1]))))
                    tags.append(batch.select(columns))
        except (*GDAL_ERRORS, pa.ArrowException) as error:
            raise damaged_error(self.path, error) from error
        if not tags:
            return gpd.GeoDataFrame({column: [] for column in columns}, geometry=[], crs=place.crs)
        return gpd.GeoDataFrame(
            pa.Table.from_batches(tags).to_pandas(), geometry=np.concatenate(geometries), crs=place.crs
        )


@contextlib.contextmanager
def open_tiles(path: str | Path) -> Iterator[TileFile]:
    """Open a file of tiles for reading; errors of sqlite become a `SourceError`."""
    path = check_file(path, (".mbtiles",), "a file of vector tiles")
    with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        try:
            yield TileFile(path, connection)
        except sqlite3.DatabaseError as error:
            raise damaged_error(path, error) from error


def _read_metadata(connection: sqlite3.Connection) -> dict[str, str]:
    """Return the metadata of a file; nothing where it has no table of them."""
    there = connection.execute("SELECT count(*) FROM sqlite_master WHERE lower(name) = 'metadata'").fetchone()[0]
    rows = connection.execute("SELECT name, value FROM metadata") if there else ()
    return {str(name): str(value) for name, value in rows if value is not None}


def damaged_error(path: Path, error: object) -> SourceError:
    """Return the error of a file that cannot be read."""
    return SourceError(
        f"{path} is damaged, or no .mbtiles file.",
        expected="an sqlite database with the tables tiles and, as a rule, metadata",
        got=error,
        remedy="download it again, and compare its size and hash with what the server says",
    )


def _unpacks(data: bytes) -> bool:
    """Tell whether a tile's bytes are whole; gzip carries a checksum."""
    if not data.startswith(GZIP):
        return True
    try:
        zlib.decompress(data, wbits=31)
    except zlib.error:
        return False
    return True


def _find_fields(data: bytes) -> dict[str, set[str]]:
    """Return the fields of each layer of a tile, by the layer's name; nothing for bytes that are no vector tile.

    References
    ----------
    https://github.com/mapbox/vector-tile-spec/tree/master/2.1
    """
    found: dict[str, set[str]] = {}
    try:
        tile = memoryview(zlib.decompress(data, wbits=31) if data.startswith(GZIP) else data)
        for number, layer in _read_messages(tile):
            if number == 3:
                texts = [(part, bytes(text).decode()) for part, text in _read_messages(layer) if part in (1, 3)]
                (name,) = (text for part, text in texts if part == 1)
                found.setdefault(name, set()).update(text for part, text in texts if part == 3)
    except (IndexError, ValueError, zlib.error):
        return {}
    return found


def _read_messages(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the number and content of each part of a protocol buffer that has a length."""
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        if key & 7 == 2:
            size, at = _read_varint(data, at)
            yield key >> 3, data[at : at + size]
            at += size
        elif key & 7 == 0:
            _, at = _read_varint(data, at)
        else:
            raise ValueError(f"a part of kind {key & 7}")


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    """Read a number of 7 bits a byte; return it and where the next thing begins."""
    value, shift = 0, 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def project_to_mercator(lon: float, lat: float) -> tuple[float, float]:
    """Return a point in degrees as metres in Web Mercator."""
    return HALF_WORLD_M * lon / 180.0, HALF_WORLD_M * math.asinh(math.tan(math.radians(lat))) / math.pi
