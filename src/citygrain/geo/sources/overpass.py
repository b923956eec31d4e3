"""Overpass: OpenStreetMap over the network, by osmnx, tile by tile, with every finished tile kept.

osmnx writes the query and builds the geometries. Four things that it leaves to chance are settled here:

- **Time.** A busy server (429, 502, 503, 504) is asked again after a growing pause or the one it names, a silent or
  trickling one is left, and all this ends at a deadline. (osmnx alone repeats a 429 or 504 without end, and sleeps for
  a minute when a server's ``/status`` is not worded as it expects.)
- **Replies.** A reply counts only when it is whole JSON without a run-time error. Overpass reports its own time-out in
  a ``remark`` beside a partial result: such a tile is cut in four and asked again.
- **Broken relations.** A ring that crosses itself or a way of one node makes osmnx raise, and one such relation would
  cost the city. They are taken out of the reply, counted and reported.
- **What is kept.** A tile is stored once it is whole, under a name that depends only on its outline and the tags asked
  for: another server, another time-out or a killed run lose none of it. (osmnx's cache is left off: its names contain
  the server and the time-out, and a run killed while writing leaves half a file there.)

Elements that lie partly in a tile come whole, with all their nodes and members: the query recurses (``._;>;``). What
lies in several tiles is taken once.

References
----------
https://wiki.openstreetmap.org/wiki/Overpass_API and https://dev.overpass-api.de/overpass-doc/en/preface/commons.html on
what a public server is for: up to 10,000 requests and 1 GB a day disturb nobody.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import requests
import shapely
import urllib3
from shapely.geometry import MultiPolygon, Polygon

from citygrain.errors import SourceError
from citygrain.geo._osmnx import borrowed
from citygrain.geo.coastline import sea
from citygrain.geo.layers import COASTLINE, OSM_KEYS, OSM_QUERY, layers_from_osm
from citygrain.geo.place import WGS84, Place
from citygrain.geo.sources import Features, Progress

SMALLEST_TILE_M = 500.0
"""A tile that a server cannot answer in time is cut in four down to this side. Beyond it, the server is at fault."""

LEAST_PAUSE_S = 0.01
"""Shortest pause before a busy server is asked again, whatever `pause_s` says."""

LONGEST_PAUSE_S = 60.0
"""Longest pause of our own before a busy server is asked again; a server may name a longer one."""

SERVER_SHARE = 0.9
"""Part of our patience that the server may compute for, so that its own "timed out" still reaches us."""

MARGIN_M = 10.0
"""Tiles overlap by this much: a straight edge in UTM leaves the straight one in degrees by under a metre."""

BUSY = frozenset({429, 500, 502, 503, 504})
BUSY_WORDS = ("too busy", "rate_limited", "Dispatcher_Client")
TOO_MUCH_WORDS = ("timed out", "out of memory")

LINE_KEYS = ("highway", "railway", "waterway")

FORMAT = 1
"""Raise it when stored tiles change their meaning: they are then asked for anew."""


@dataclass(frozen=True)
class Overpass:
    """OpenStreetMap as it is now, from an Overpass server.

    Parameters
    ----------
    url
        The server's interface, such as `https://overpass-api.de/api`; with or without `/interpreter`.
    cache
        Folder that keeps every finished tile. Nothing in it expires: delete it, and prepare with
        `raster.replace=true`, to see a newer OpenStreetMap.
    tile_km
        Side of the squares that are asked for one by one, kilometres. 25 km² of a dense city are about 60 MB, a tenth
        of that compressed, and well below a public server's default limits.
    timeout_s
        Longest silence of the server, seconds. It is told to give up itself a little earlier.
    deadline_s
        Longest time for one tile, seconds, all repetitions and pauses included.
    pause_s
        Pause before every request, seconds, and what the growing pauses for a busy server start from.

    Examples
    --------
    >>> Overpass(url="https://overpass.kumi.systems/api/interpreter").endpoint
    'https://overpass.kumi.systems/api'
    """

    url: str = "https://overpass-api.de/api"
    cache: str | Path = "data/overpass"
    tile_km: float = 5.0
    timeout_s: float = 200.0
    deadline_s: float = 900.0
    pause_s: float = 1.0

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise SourceError("This is no address of an Overpass server.", expected="https://…/api", got=self.url)
        for name, least in (("tile_km", 2e-3 * SMALLEST_TILE_M), ("timeout_s", 0.01), ("deadline_s", 0.01)):
            if not getattr(self, name) >= least:
                raise SourceError(
                    f"source.{name} is too small.", expected=f"at least {least:g}", got=getattr(self, name)
                )
        if not self.pause_s >= 0:
            raise SourceError("source.pause_s is a length of time.", expected="0 or more", got=self.pause_s)

    @property
    def endpoint(self) -> str:
        """The address without a trailing `/interpreter`, which osmnx adds."""
        return self.url.rstrip("/").removesuffix("/interpreter")

    def features(self, place: Place, progress: Progress | None = None) -> Features:
        """Download the features of a place, or read what an earlier run has kept.

        Raises
        ------
        SourceError
            When the server refuses, stays silent or busy, or answers with something else; when the cache folder cannot
            be written. All finished tiles are kept, and the same call goes on from there.
        """
        store = _Store(Path(self.cache).expanduser(), place)
        outlines = list(_grid(place.utm, place.bounds_utm, self.tile_km * 1e3))
        tiles: list[_Tile] = []
        for k, outline in enumerate(outlines):
            if progress:
                verb = "kept from before" if outline in store else f"asking {self.endpoint}"
                progress(k / len(outlines), f"tile {k + 1} of {len(outlines)}: {verb}")
            try:
                tiles.append(self._tile(outline, place, store))
            except _NoReplyError as error:
                kept = sum(o in store for o in outlines)
                raise self._failure(error, f"{kept} of {len(outlines)} tiles are in {store.folder}") from error
        if progress:
            progress(1.0, f"{len(outlines)} tiles")
        return _features(_joined(tiles), place, len(outlines))

    def _tile(self, outline: Polygon, place: Place, store: _Store) -> _Tile:
        """Return one tile: kept, asked for, or put together from its quarters."""
        kept = store.read(outline)
        if kept is not None:
            return kept
        left, bottom, right, top = outline.bounds
        half = max(right - left, top - bottom) / 2
        quarters = list(_grid(place.utm, outline.bounds, half)) if half >= SMALLEST_TILE_M else []
        # Quarters in the cache: an earlier run has learnt that the whole is too much for the server.
        if not any(quarter in store for quarter in quarters):
            try:
                return store.write(outline, self._reply(store.in_degrees(outline)))
            except _TooMuchError as error:
                if not quarters:
                    raise _NoReplyError(
                        f"cannot answer for {2 * half:,.0f} m of city, the smallest tile that is asked for: {error}"
                    ) from error
        return store.write(outline, _joined([self._tile(quarter, place, store) for quarter in quarters]))

    def _reply(self, outline: Polygon) -> _Tile:
        """Ask for one outline (degrees) until it is answered or the deadline is reached."""
        deadline = time.monotonic() + self.deadline_s
        pause_s = self.pause_s
        _sleep(pause_s)
        while True:
            try:
                return self._ask(outline, deadline)
            except _BusyError as error:
                pause_s = min(max(2 * pause_s, LEAST_PAUSE_S), LONGEST_PAUSE_S)
                wait_s = pause_s if error.wait_s is None else max(error.wait_s, self.pause_s)
                if time.monotonic() + wait_s >= deadline:
                    wish = f", and wants to be left alone for {error.wait_s:,.0f} s" if error.wait_s else ""
                    raise _NoReplyError(f"{error}{wish} (deadline: {self.deadline_s:g} s a tile)") from error
                _sleep(wait_s)

    def _ask(self, outline: Polygon, deadline: float) -> _Tile:
        """Ask once. Every way in which it can fail becomes one of the `_NoReplyError`s."""
        import osmnx as ox  # noqa: PLC0415  (it takes a second to import, and reading the cache does not need it)

        reader = _Reader(deadline)
        settings = {
            "overpass_url": self.endpoint,
            # The time that the server may take goes into the query, our own patience into the socket.
            "overpass_settings": f"[out:json][timeout:{max(1, int(SERVER_SHARE * self.timeout_s))}]{{maxsize}}",
            "requests_timeout": max(0.01, min(self.timeout_s, deadline - time.monotonic())),
            "requests_kwargs": {"hooks": {"response": reader}},
            "overpass_rate_limit": False,
        }
        try:
            with borrowed(**settings):
                frame = ox.features_from_polygon(outline, dict(OSM_QUERY))
        except ox._errors.InsufficientResponseError:  # noqa: SLF001
            # The reader has let the reply through: it is whole, and there is nothing here.
            frame = gpd.GeoDataFrame({"element": [], "id": []}, geometry=[], crs=WGS84).set_index(["element", "id"])
        except requests.Timeout as error:
            raise _BusyError(f"has sent nothing for {settings['requests_timeout']:.3g} s") from error
        except requests.ConnectionError as error:
            raise _unreachable(error) from error
        except requests.RequestException as error:
            raise _NoReplyError(f"cannot be asked: {error}") from error
        return reader.tile(_tidy(frame))

    def _failure(self, error: _NoReplyError, kept: str) -> SourceError:
        return SourceError(
            f"The Overpass server {self.endpoint} {error}.",
            got=f"{kept}, and stay there",
            remedy="repeat the same command to go on where it stopped; or take another server (source.url=…, listed at "
            "https://wiki.openstreetmap.org/wiki/Overpass_API#Public_Overpass_API_instances), a smaller place, or a "
            "regional extract from https://download.geofabrik.de (source=file source.path=….osm.pbf)",
        )


class _NoReplyError(Exception):
    """Why there is no usable reply, as the predicate of a sentence about the server."""


class _BusyError(_NoReplyError):
    """It may answer later: after `wait_s` seconds, if it has said so."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class _TooMuchError(_NoReplyError):
    """The server gave up on the query; half as much may do."""


def _unreachable(error: requests.ConnectionError) -> _NoReplyError:
    """Tell no network, nobody there and a broken connection apart."""
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    if isinstance(reason, urllib3.exceptions.NameResolutionError):
        return _NoReplyError("is not found: its name does not resolve. Is this machine online, and the address right?")
    if reason is not None:
        return _NoReplyError(f"refuses the connection or cannot be reached ({reason})")
    return _BusyError(f"breaks the connection ({error})")


@dataclass
class _Tile:
    """What a tile holds, and what is known about its origin."""

    frame: gpd.GeoDataFrame
    origin: dict[str, Any]


@dataclass
class _Reader:
    """Response hook: reads a reply against the deadline and lets only a whole, honest one through to osmnx."""

    deadline: float
    origin: dict[str, Any] = field(default_factory=dict)
    areas: set[int] = field(default_factory=set)

    def __call__(self, response: requests.Response, **_: Any) -> None:
        if response.is_redirect:
            return
        try:
            body = self._body(response)
        finally:
            response.raw.close()
        reply = self._checked(response, body)
        self.origin = {"url": response.url, "osm_date": reply.get("osm3s", {}).get("timestamp_osm_base")}
        self.areas = {e["id"] for e in reply["elements"] if _is_area(e) and _was_asked_for(e)}
        broken = _broken(reply["elements"])
        if broken:
            reply["elements"] = [e for e in reply["elements"] if not (_is_area(e) and e["id"] in broken)]
            body = json.dumps(reply).encode()
        # osmnx reads it again from here.
        response.raw = io.BytesIO(body)

    def _body(self, response: requests.Response) -> bytes:
        body = bytearray()
        try:
            # read1 returns what is there: a plain read waits for a full buffer, and a trickle never fills it.
            while chunk := response.raw.read1(1 << 20, decode_content=True):
                body += chunk
                if time.monotonic() > self.deadline:
                    raise _BusyError(f"trickles: {len(body):,} bytes and no end of it")
        except urllib3.exceptions.TimeoutError as error:
            raise _BusyError(f"has fallen silent after {len(body):,} bytes") from error
        except urllib3.exceptions.HTTPError as error:
            raise _BusyError(f"breaks off after {len(body):,} bytes ({error})") from error
        return bytes(body)

    @staticmethod
    def _checked(response: requests.Response, body: bytes) -> dict[str, Any]:
        said = f"HTTP {response.status_code} {response.reason}: {_first_words(body)}"
        if response.status_code in BUSY:
            raise _BusyError(f"is busy ({said})", _retry_after(response.headers.get("Retry-After")))
        if not response.ok:
            raise _NoReplyError(f"refuses the query ({said})")
        try:
            reply = json.loads(body)
        except ValueError:
            reply = None
        if not isinstance(reply, dict) or not isinstance(reply.get("elements"), list):
            if any(words.encode() in body for words in BUSY_WORDS):
                raise _BusyError(f"is busy ({said})")
            raise _NoReplyError(f"answers with something that is not map data ({said})")
        remark = str(reply.get("remark", ""))
        if any(words in remark for words in TOO_MUCH_WORDS):
            raise _TooMuchError(remark)
        if "error" in remark:
            raise _BusyError(f"reports an error of its own ({remark})")
        return reply

    def tile(self, frame: gpd.GeoDataFrame) -> _Tile:
        """Complete a reply's frame with its origin, and with the relations of which osmnx could make no area."""
        made = set(frame.loc[frame["element"] == "relation", "osmid"])
        return _Tile(frame, {**self.origin, "broken": sorted(self.areas - made)})


def _is_area(element: dict[str, Any]) -> bool:
    """Whether an element is a relation of which osmnx makes an area."""
    return element["type"] == "relation" and element.get("tags", {}).get("type") in {"multipolygon", "boundary"}


def _was_asked_for(element: dict[str, Any]) -> bool:
    tags = element.get("tags", {})
    return any(
        key in tags and (tags[key] in values if isinstance(values, list) else values)
        for key, values in OSM_QUERY.items()
    )


def _broken(elements: list[dict[str, Any]]) -> set[int]:
    """Find the relations with a member way that crosses itself, or that lacks nodes: osmnx would raise on them."""
    relations = {e["id"]: {m["ref"] for m in e["members"] if m["type"] == "way"} for e in elements if _is_area(e)}
    members = set().union(*relations.values())
    if not members:
        return set()
    nodes = {e["id"]: (e["lon"], e["lat"]) for e in elements if e["type"] == "node"}
    faulty = {
        way["id"]
        for way in elements
        if way["type"] == "way" and way["id"] in members and not _is_sound([nodes.get(node) for node in way["nodes"]])
    }
    return {relation for relation, ways in relations.items() if ways & faulty}


def _is_sound(line: list[tuple[float, float] | None]) -> bool:
    """Whether a member way has all its nodes and, when closed, does not cross itself."""
    if len(line) < 2 or None in line:
        return False
    return len(line) < 4 or line[0] != line[-1] or bool(shapely.is_valid(Polygon(line)))


def _first_words(body: bytes) -> str:
    """Return what a page says to people, in one short line."""
    text = body[:20_000].decode("utf-8", errors="replace")
    if "<" in text:
        text = text[max(text.find("<body"), 0) :]
        text = "".join(part.rpartition(">")[2] for part in text.split("<"))
    text = " ".join(text.split())
    return f"{text[:160]}…" if len(text) > 160 else text or "(an empty page)"


def _retry_after(header: str | None) -> float | None:
    """Seconds to wait by a `Retry-After` header, which holds seconds or a date."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(tz=UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def _sleep(seconds: float) -> None:
    time.sleep(seconds)


def _grid(area: Polygon | MultiPolygon, bounds: Sequence[float], side_m: float) -> Iterator[Polygon]:
    """Cut bounds into equal rectangles no longer than a side, each shrunk to what it has of the area (UTM)."""
    left, bottom, right, top = bounds
    columns = max(1, int(np.ceil((right - left) / side_m - 1e-6)))
    rows = max(1, int(np.ceil((top - bottom) / side_m - 1e-6)))
    xs, ys = np.linspace(left, right, columns + 1), np.linspace(bottom, top, rows + 1)
    for row in range(rows):
        for column in range(columns):
            piece = area.intersection(shapely.box(xs[column], ys[row], xs[column + 1], ys[row + 1]))
            if piece.area > 0:
                yield shapely.box(*piece.bounds)


class _Store:
    """The folder of finished tiles of a place: GeoParquet, one file an outline, written in one step."""

    def __init__(self, folder: Path, place: Place) -> None:
        self.folder = folder
        self._place = place
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def in_degrees(self, outline: Polygon) -> Polygon:
        """Outline in longitude, latitude, a little larger, as it is asked for."""
        grown = outline.buffer(MARGIN_M, join_style="mitre")
        return self._place.to_degrees(grown)

    def _file(self, outline: Polygon) -> Path:
        asked = [FORMAT, shapely.to_wkt(self.in_degrees(outline), rounding_precision=6), OSM_QUERY, OSM_KEYS]
        return self.folder / f"{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:24]}.parquet"

    def __contains__(self, outline: Polygon) -> bool:
        return self._file(outline).is_file()

    def read(self, outline: Polygon) -> _Tile | None:
        """Return a kept tile; None where there is none, or what is left of it cannot be read."""
        try:
            table = pq.read_table(self._file(outline))
            return _Tile(gpd.GeoDataFrame.from_arrow(table), json.loads(table.schema.metadata[b"citygrain"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, outline: Polygon, tile: _Tile) -> _Tile:
        """Keep a tile: the file is there whole or not at all."""
        file = self._file(outline)
        half = file.with_name(f".{file.name}.{os.getpid()}")
        table = pa.table(tile.frame.to_arrow(index=False))
        table = table.replace_schema_metadata({b"citygrain": json.dumps(tile.origin).encode()})
        try:
            pq.write_table(table, half, compression="zstd")
            half.replace(file)
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            half.unlink(missing_ok=True)
        return tile

    def _unwritable(self, error: OSError) -> SourceError:
        return SourceError(
            f"The folder {self.folder}, which keeps what is downloaded, cannot be written.",
            got=error,
            remedy="free some space there, or name another folder: source.cache=…",
        )


def _tidy(frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Keep what layers are made of: ways and relations, the tags that rules look at, no mixed collections."""
    frame = frame.reset_index().rename(columns={"id": "osmid"})
    frame = frame.loc[
        frame["element"] != "node", ["element", "osmid", *(k for k in OSM_KEYS if k in frame), "geometry"]
    ].reset_index(drop=True)
    # Mending a spiked polygon leaves areas and lines in one collection; the areas are what was meant.
    mixed = frame.geom_type == "GeometryCollection"
    frame.loc[mixed, "geometry"] = [
        shapely.union_all([part for part in shapely.get_parts(g) if part.area > 0]) for g in frame.geometry[mixed]
    ]
    return frame


def _joined(tiles: Sequence[_Tile]) -> _Tile:
    """Put tiles together, each element once."""
    frames = [tile.frame for tile in tiles if len(tile.frame)] or [tiles[0].frame]
    frame = pd.concat(frames, ignore_index=True).drop_duplicates(["element", "osmid"], ignore_index=True)
    dates = sorted(tile.origin["osm_date"] for tile in tiles if tile.origin["osm_date"])
    return _Tile(
        frame,
        {
            "url": ", ".join(sorted({url for tile in tiles for url in tile.origin["url"].split(", ")})),
            # The oldest: no tile knows less than that.
            "osm_date": dates[0] if dates else None,
            "broken": sorted({relation for tile in tiles for relation in tile.origin["broken"]}),
        },
    )


def _features(tile: _Tile, place: Place, tiles: int) -> Features:
    """Sort everything of a place into layers."""
    frame = tile.frame.to_crs(place.crs)
    frame["osmid"] = frame["element"].astype("str") + "/" + frame["osmid"].astype("str")
    shapely.prepare(place.utm)
    frame = frame[shapely.intersects(place.utm, frame.geometry.to_numpy())]
    layers = layers_from_osm(_closed_ways_as_lines_too(frame))

    water = sea(layers.pop(COASTLINE).geometry, place.utm)
    if not water.is_empty:
        found = gpd.GeoDataFrame({"kind": ["sea"], "width_m": [np.nan]}, geometry=[water], crs=place.crs)
        layers["water"] = pd.concat([layers["water"], found], ignore_index=True)

    provenance = {
        "kind": "overpass",
        "url": tile.origin["url"],
        "osm_date": tile.origin["osm_date"],
        "query": OSM_QUERY,
        "tiles": tiles,
    }
    return Features(
        layers,
        place=place,
        provenance=provenance,
        skipped={"broken relations": len(tile.origin["broken"])},
    )


def _closed_ways_as_lines_too(frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Add the outline of every area that is one way and has a line's tags.

    osmnx decides for either. An islet (`place=islet`) becomes an area that way and its coastline would be lost.
    """
    keys = [key for key in LINE_KEYS if key in frame]
    both = (frame["element"] == "way") & (shapely.get_dimensions(frame.geometry.to_numpy()) == 2)
    both &= frame[keys].notna().any(axis=1) | (frame["natural"] == "coastline" if "natural" in frame else False)
    lines = frame[both].set_geometry(frame.geometry[both].boundary)
    return pd.concat([frame, lines], ignore_index=True)
