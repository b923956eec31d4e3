"""Overpass: OpenStreetMap over the network, tile by tile, with every finished tile kept.

- **Time.** A busy server (429, 502, 503, 504) is asked again after a growing pause or the one it names, a silent or
  trickling one is left, and all this ends at a deadline.
- **Replies.** A reply counts only when it is whole JSON without a run-time error. Overpass reports its own time-out in
  a ``remark`` beside a partial result: such a tile is cut in four and asked again.
- **What is asked for.** Ways, and relations that can be areas, by the tags of `OSM_QUERY`. They come whole, with all
  their nodes and members: the query recurses (``._;>;``). What lies in several tiles is taken once. Relations of other
  types (a river from its source to its mouth, a bus line) would bring along half a country.
- **What is kept.** A tile is stored once it is whole, as the server's own JSON, under a name that depends only on its
  outline and the tags asked for: another server, another time-out or a killed run lose none of it.

Geometries are made by the engine that reads extracts, see `citygrain.geo.osm.elements`.

References
----------
https://wiki.openstreetmap.org/wiki/Overpass_API and https://dev.overpass-api.de/overpass-doc/en/preface/commons.html on
what a public server is for: up to 10,000 requests and 1 GB a day disturb nobody.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Polygon

from citygrain.errors import SourceError
from citygrain.geo.osm.elements import (
    BadElementError,
    gather_elements,
    make_features,
)
from citygrain.geo.osm.overpass_server import NoReplyError, OverpassServer, Reply, TooMuchError
from citygrain.geo.osm_rules import OSM_QUERY
from citygrain.geo.place import Place
from citygrain.geo.sources import Features, Progress

SMALLEST_TILE_M = 500.0
"""A tile that a server cannot answer in time is cut in four, down to this side. A smaller tile is an error."""

MARGIN_M = 10.0
"""Tiles overlap by this much. An edge that is straight in UTM and one that is straight in degrees are less than a metre
apart."""

ASKED = 0.8
"""Where the progress bar stands when all tiles are there."""

COMPRESSION = 4
"""Level of gzip: it leaves a sixth of the size. The best level leaves a little less, in twenty times the time."""

AREAS = '["type"~"^(multipolygon|boundary)$"]'
"""Filter of the relations that can be areas."""

FORMAT = 2
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
        Side of the squares that are asked for one by one, kilometres. 25 km² of a dense city are about 60 MB, a sixth
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
        """The address without a trailing `/interpreter`."""
        return self.url.rstrip("/").removesuffix("/interpreter")

    def features(self, place: Place, progress: Progress | None = None) -> Features:
        """Download the features of a place, or read what an earlier run has kept.

        Raises
        ------
        SourceError
            When the server refuses, stays silent or busy, or answers with something else; when the cache folder cannot
            be written. All finished tiles are kept, and the same call goes on from there.
        """
        report = progress or (lambda _fraction, _message: None)
        store = _Store(Path(self.cache).expanduser(), place)
        server = OverpassServer(self.endpoint, self.timeout_s, self.deadline_s, self.pause_s)
        outlines = list(_cut_into_tiles(place.utm, place.bounds_utm, self.tile_km * 1e3))
        urls: set[str] = set()
        dates: set[str] = set()
        with gather_elements() as elements:
            for k, outline in enumerate(outlines):
                verb = "kept from before" if outline in store else f"asking {self.endpoint}"
                report(ASKED * k / len(outlines), f"tile {k + 1} of {len(outlines)}: {verb}")
                try:
                    reply = self._tile(outline, place, store, server)
                    elements.add(reply["elements"], _find_osm_date(reply))
                except NoReplyError as error:
                    kept = sum(o in store for o in outlines)
                    raise self._failure(error, f"{kept} of {len(outlines)} tiles are in {store.folder}") from error
                except BadElementError as error:
                    raise SourceError(
                        "A reply of an Overpass server holds something that is no element of a map.",
                        got=f"{error} ({', '.join(reply['urls'])})",
                        remedy=f"delete {store.folder} and ask another server: source.url=…",
                    ) from error
                urls |= set(reply["urls"])
                dates |= {date for date in [_find_osm_date(reply)] if date}
            found = make_features(
                elements, place, place.utm, lambda done, what: report(ASKED + (1 - ASKED) * done, what)
            )
        provenance = {
            "kind": "overpass",
            "url": ", ".join(sorted(urls)),
            "osm_date": min(dates, default=None),  # the oldest: no tile knows less than that
            "query": OSM_QUERY,
            "tiles": len(outlines),
        }
        return Features(
            found.layers, place=place, provenance=provenance, skipped=found.skipped, remainder=found.remainder
        )

    def _tile(self, outline: Polygon, place: Place, store: _Store, server: OverpassServer) -> Reply:
        """Return one tile: kept, asked for, or put together from its quarters."""
        kept = store.read(outline)
        if kept is not None:
            return kept
        left, bottom, right, top = outline.bounds
        half = max(right - left, top - bottom) / 2
        quarters = list(_cut_into_tiles(place.utm, outline.bounds, half)) if half >= SMALLEST_TILE_M else []
        # Quarters in the cache: an earlier run has learnt that the whole is too much for the server.
        if not any(quarter in store for quarter in quarters):
            try:
                return store.write(outline, server.answer(store.statements(outline)))
            except TooMuchError as error:
                if not quarters:
                    raise NoReplyError(
                        f"cannot answer for {2 * half:,.0f} m of city, the smallest tile that is asked for: {error}"
                    ) from error
        return store.write(outline, _join_replies([self._tile(quarter, place, store, server) for quarter in quarters]))

    def _failure(self, error: NoReplyError, kept: str) -> SourceError:
        return SourceError(
            f"The Overpass server {self.endpoint} {error}.",
            got=f"{kept}, and stay there",
            remedy="repeat the same command to go on where it stopped; or take another server (source.url=…, listed at "
            "https://wiki.openstreetmap.org/wiki/Overpass_API#Public_Overpass_API_instances), a smaller place, or a "
            "regional extract from https://download.geofabrik.de (source=file source.path=….osm.pbf)",
        )


def _cut_into_tiles(area: Polygon | MultiPolygon, bounds: Sequence[float], side_m: float) -> Iterator[Polygon]:
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
    """The folder of finished tiles of a place: replies as they came, compressed, one file an outline."""

    def __init__(self, folder: Path, place: Place) -> None:
        self.folder = folder
        self._place = place
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def statements(self, outline: Polygon) -> str:
        """Return what is asked of a server for an outline, which is taken a little larger than it is."""
        grown = self._place.to_degrees(outline.buffer(MARGIN_M, join_style="mitre"))
        corners = " ".join(f"{lat:.6f} {lon:.6f}" for lon, lat in grown.exterior.coords)
        asked = [f'{_write_filter(key, values)}(poly:"{corners}");' for key, values in OSM_QUERY.items()]
        return f"({''.join(f'way{a}relation{AREAS}{a}' for a in asked)});(._;>;);out body;"

    def _file(self, outline: Polygon) -> Path:
        asked = f"{FORMAT}{self.statements(outline)}"
        return self.folder / f"{hashlib.sha256(asked.encode()).hexdigest()[:24]}.json.gz"

    def __contains__(self, outline: Polygon) -> bool:
        return self._file(outline).is_file()

    def read(self, outline: Polygon) -> Reply | None:
        """Return a kept tile; None where there is none, or what is left of it cannot be read."""
        try:
            with gzip.open(self._file(outline)) as file:
                reply: Reply = json.loads(file.read())
        except (OSError, EOFError, ValueError, zlib.error):
            return None
        return reply

    def write(self, outline: Polygon, reply: Reply) -> Reply:
        """Keep a tile: the file is there whole or not at all."""
        file = self._file(outline)
        half = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            half.write_bytes(gzip.compress(json.dumps(reply).encode(), COMPRESSION, mtime=0))
            half.replace(file)
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            half.unlink(missing_ok=True)
        return reply

    def _unwritable(self, error: OSError) -> SourceError:
        return SourceError(
            f"The folder {self.folder}, which keeps what is downloaded, cannot be written.",
            got=error,
            remedy="free some space there, or name another folder: source.cache=…",
        )


def _write_filter(key: str, values: bool | list[str]) -> str:
    """Tag filter of the query language: one key, all its values or some."""
    return f'["{key}"]' if values is True else f'["{key}"~"^({"|".join(values)})$"]'  # type: ignore[arg-type]


def _find_osm_date(reply: Reply) -> str | None:
    date = reply.get("osm3s", {}).get("timestamp_osm_base")
    return str(date) if date else None


def _join_replies(replies: Sequence[Reply]) -> Reply:
    """Put the replies of quarters together, each element once."""
    elements = {(element["type"], element["id"]): element for reply in replies for element in reply["elements"]}
    dates = [date for date in map(_find_osm_date, replies) if date]
    return {
        "osm3s": {"timestamp_osm_base": min(dates, default=None)},
        "urls": sorted({url for reply in replies for url in reply["urls"]}),
        "elements": list(elements.values()),
    }
