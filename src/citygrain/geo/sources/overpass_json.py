"""Replies of Overpass that somebody saved: `.json` and `.json.gz`, one or several, joined.

Every form that has geometry is read: nodes as elements of their own (``out body; >; out skel qt``), geometries within
ways and members (``out geom``), the cache of osmnx, the tiles that `Overpass` keeps. Geometries are made by the engine
that reads extracts.

A reply does not say what was asked for. Two rules stand in for that:

- **A key was asked for when an element has it and no other of the keys that make channels.** A lake tagged as a marina
  too came for its water, and the street that is a member of a lake's shore came along with it. What no such element can
  make is unknown, not absent. `asked` says better where somebody knows better.
- **The replies cover the ground on which they have streets, and buildings.** Both are everywhere in a city. So streets
  of a quarter, joined with the water of its county, cover the quarter.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from citygrain.errors import ConfigError, SourceError
from citygrain.geo.layers import CHANNEL_NAMES
from citygrain.geo.osm.coverage import find_middle
from citygrain.geo.osm.elements import (
    KINDS,
    BadElementError,
    find_partial_remark,
    gather_elements,
    make_features,
    read_position,
)
from citygrain.geo.osm_rules import ANY, OSM_RULES, OSM_SELECTORS, Rule
from citygrain.geo.place import EDGE_DEG, Place
from citygrain.geo.sources import Features, Progress
from citygrain.geo.sources.files import BBox, check_file, list_paths, outside_error
from citygrain.support.files import hash_file

SUFFIXES = (".json", ".json.gz")

WHOLE_KEYS = frozenset({"building", "highway", "railway", "waterway"})
"""Keys that people ask for with all their values: one element shows that all channels of the key were asked for."""

EVERYWHERE = ("highway", "building")
"""Keys that a city has everywhere: the replies end where these end."""

MATTERS = 0.01
"""Share of a reply's elements that such a key must have made: a single street does not show where streets are known."""

READING = 0.4
"""Where the progress bar stands when all files are read."""


@dataclass(frozen=True)
class OverpassJson:
    """Features of a place from saved replies of an Overpass server.

    Parameters
    ----------
    path
        The file, or several: what they hold is joined, each element once.
    asked
        Keys that the queries asked for, such as `["highway", "railway"]`: channels made of them are known even where
        not one element has them, and all others are unknown. Found from the elements when None.

    Raises
    ------
    ConfigError
        When no file is named, or a key that makes no channel.
    """

    path: str | Path | Sequence[str | Path]
    asked: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for key in self.asked or ():
            if key not in OSM_SELECTORS:
                raise ConfigError("No channel is made of this key.", got=key, choices=OSM_SELECTORS)
        list_paths(self.path)

    def identity(self) -> dict[str, Any]:
        """Return what else tells it apart."""
        return {} if self.asked is None else {"asked": list(self.asked)}

    def extent(self) -> BBox:
        """`(west, south, east, north)` in degrees of what the replies cover: where 98 % of their nodes are.

        Raises
        ------
        SourceError
            When a file is missing, no reply, not a whole one, or one without geometry.
        """
        survey = _Survey()
        for path in list_paths(self.path):
            survey.add(_read_reply(path))
        return survey.extent(self.path)

    def features(self, place: Place, progress: Progress | None = None) -> Features:
        """Return the features of a place.

        Raises
        ------
        SourceError
            When a file is missing, no reply, not a whole one, one without geometry, or elsewhere.
        """
        report = progress or (lambda _fraction, _message: None)
        paths = list_paths(self.path)
        survey = _Survey()
        files: list[dict[str, Any]] = []
        with gather_elements() as elements:
            for k, path in enumerate(paths):
                report(READING * k / len(paths), f"reading {path.name}")
                reply = _read_reply(path)
                survey.add(reply)
                try:
                    elements.add(reply.elements, reply.osm_date)
                except BadElementError as error:
                    raise _no_element_error(path, error) from error
                files.append({"file": path.name, "sha256": hash_file(path), "osm_date": reply.osm_date})
            extent = survey.extent(self.path)
            covered = shapely.box(*extent)
            if not place.area.intersects(covered):
                raise outside_error(place, extent, paths[0])
            unknown = survey.find_unknown(self.asked)
            covered_utm = place.project(shapely.segmentize(covered, EDGE_DEG))
            found = make_features(
                elements, place, covered_utm, lambda done, what: report(READING + (1 - READING) * done, what)
            )
        provenance = {
            "kind": "overpass_json",
            "files": files,
            "osm_date": min((file["osm_date"] for file in files if file["osm_date"]), default=None),
            "extent": list(extent),
        }
        return Features(
            {name: layer for name, layer in found.layers.items() if name not in unknown},
            place=place,
            provenance=provenance,
            valid=found.valid,
            unknown=unknown,
            skipped=found.skipped,
            remainder=found.remainder,
        )


@dataclass
class _Reply:
    """What a file holds."""

    path: Path
    elements: list[dict[str, Any]]
    osm_date: str | None


def _read_reply(path: Path) -> _Reply:
    """Read a whole reply.

    Raises
    ------
    SourceError
        When it is none: no JSON, other JSON, a partial or an empty reply.
    """
    path = check_file(path, SUFFIXES, "a saved reply of Overpass")
    try:
        data = gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{path} is damaged or cut short.", got=error, remedy="save it again") from error
    try:
        reply = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise _no_json_error(path, data[:2000], error) from error
    found = reply.get("type") if isinstance(reply, dict) else type(reply).__name__
    if not isinstance(reply, dict) or not isinstance(reply.get("elements"), list):
        geojson = isinstance(reply, dict) and ("features" in reply or "coordinates" in reply or found == "Feature")
        raise SourceError(
            f"{path} is GeoJSON, and no reply of Overpass."
            if geojson
            else f"{path} is JSON, but no reply of Overpass.",
            expected="an object with the list `elements`",
            got=f"type {found}" if geojson else f"{found or 'an object'} with {list(reply)[:8]}",
            remedy="source=layers reads polygons of any origin" if geojson else None,
        )
    remark = find_partial_remark(reply)
    if remark:
        raise SourceError(
            f"{path} is not a whole reply: the server gave up on the query.",
            got=remark,
            remedy="ask for a smaller area or with a longer [timeout:…], or let source=overpass do it tile by tile",
        )
    elements: list[Any] = reply["elements"]
    kinds = Counter(str(element.get("type")) if isinstance(element, dict) else "no element" for element in elements)
    elements = [element for element in elements if not _makes_nothing(element)]
    if not kinds.keys() & {"way", "relation"}:
        raise SourceError(
            f"{path} holds no ways and no relations.",
            got=", ".join(f"{n} {kind}" for kind, n in kinds.items()) or "an empty reply",
            remedy="ask for ways and relations: (way[building](…);relation[building](…););(._;>;);out body;",
        )
    header = reply.get("osm3s")
    date = header.get("timestamp_osm_base") if isinstance(header, dict) else None
    return _Reply(path, elements, str(date) if date else None)


def _makes_nothing(element: Any) -> bool:
    """Tell whether an element is a count, an area or another that Overpass derives from the map."""
    return isinstance(element, dict) and element.get("type", "node") not in KINDS


def _no_json_error(path: Path, start: bytes, error: Exception) -> SourceError:
    """Return the error of a file that is not even JSON."""
    expected = "what an Overpass server says to a query that begins with [out:json]"
    markup = start.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<")
    if markup and re.search(rb"<(html|head|body)\b", start, re.IGNORECASE):
        return SourceError(
            f"{path} is a web page, not map data: what a server says in place of it.",
            expected=expected,
            got=" ".join(re.sub(r"<[^>]*>", " ", start.decode(errors="replace")).split())[:120]
            or "a page without words",
            remedy="open it in a browser to see what it says, wait until the server is free, and save the reply again",
        )
    return SourceError(
        f"{path} is no JSON, or cut short.",
        expected=expected,
        got=error,
        remedy="as .osm it is read by source=file" if markup and b"<osm" in start else "save the reply again",
    )


def _no_element_error(path: Path, error: Exception) -> SourceError:
    return SourceError(
        f"{path} holds something that is no element of a map.",
        got=f"{type(error).__name__}: {error}",
        remedy="save the reply again",
    )


@dataclass
class _Survey:
    """What replies came for, and where they have it."""

    keys: list[Counter[str]] = field(default_factory=list)
    """Of each reply, the number of elements that came for a key."""
    positions: list[NDArray[np.float64]] = field(default_factory=list)
    """Of each reply, its nodes, `(n, 2)` in degrees."""
    values: set[tuple[str, str]] = field(default_factory=set)
    """Tags that the replies were asked for."""

    def add(self, reply: _Reply) -> None:
        """Look at a reply.

        Raises
        ------
        SourceError
            When it has no geometry, or something that is no element.
        """
        try:
            found = _read_positions(reply.elements)
            members = {
                member["ref"]
                for element in reply.elements
                if element["type"] == "relation"
                for member in element.get("members") or ()
                if member["type"] == "way"
            }
            came_for = [_find_tag(element, members) for element in reply.elements]
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise _no_element_error(reply.path, error) from error
        if not len(found):
            raise SourceError(
                f"{reply.path} says what is there, but not where.",
                expected="ways with their nodes, or with a geometry",
                got="a reply such as `out tags`, `out ids`, `out center` or `out body` without the nodes",
                remedy="end the query with (._;>;);out body; or with out geom;",
            )
        pairs = [pair for pair in came_for if pair]
        self.keys.append(Counter(key for key, _ in pairs))
        self.values |= set(pairs)
        self.positions.append(found)

    def find_unknown(self, asked: Sequence[str] | None) -> dict[str, str]:
        """Return the channels that nothing was asked for, and why each cannot be known.

        Raises
        ------
        SourceError
            When that is every channel.
        """
        unknown: dict[str, str] = {}
        for channel in CHANNEL_NAMES:
            tags = [(key, rule.when[key]) for rule in OSM_RULES if rule.layer == channel for key in _find_key(rule)]
            keys = ", ".join(sorted({key for key, _ in tags}))
            if asked is not None:
                if not any(key in asked for key, _ in tags):
                    unknown[channel] = f"not asked for: source.asked names none of {keys}"
            elif not any(self._was_asked_for(key, values) for key, values in tags):
                unknown[channel] = f"nothing in the saved reply came for it ({keys})"
        if len(unknown) == len(CHANNEL_NAMES):
            raise SourceError(
                "The saved reply holds nothing that a channel is made of.",
                got=", ".join(sorted(f"{key}={value}" for key, value in self.values)[:8]) or "no such tags",
                choices=OSM_SELECTORS,
            )
        return unknown

    def _was_asked_for(self, key: str, values: tuple[str, ...]) -> bool:
        """Tell whether something came for one of these values, or for a key that is asked for as a whole."""
        return any(key == k and (k in WHOLE_KEYS or values == ANY or value in values) for k, value in self.values)

    def extent(self, path: str | Path | Sequence[str | Path]) -> BBox:
        """Return the box in which all of `EVERYWHERE` is known.

        Raises
        ------
        SourceError
            When streets and buildings lie apart.
        """
        boxes = []
        for key in EVERYWHERE:
            about = [
                positions
                for positions, keys in zip(self.positions, self.keys, strict=True)
                if keys[key] > MATTERS * keys.total()
            ]
            if about:
                boxes.append(find_middle(np.concatenate(about)))
        west, south, east, north = np.transpose(boxes or [find_middle(np.concatenate(self.positions))])
        box = (float(west.max()), float(south.max()), float(east.min()), float(north.min()))
        if box[0] >= box[2] or box[1] >= box[3]:
            raise SourceError(
                "The replies have their streets in one place and their buildings in another.",
                got=f"{path}: {[[round(v, 4) for v in b] for b in boxes]}",
                remedy="leave out what is not of this place",
            )
        return box


def _find_key(rule: Rule) -> list[str]:
    """Return the key by which a rule's features are asked for, in a list; an empty list where the rule refines another.

    Garages of many floors are buildings too, but nobody who asks for parking has asked for buildings.
    """
    keys = [key for key in OSM_SELECTORS if key in rule.when]
    return keys if len(keys) == 1 and (keys[0] in WHOLE_KEYS or len(rule.when) == 1) else []


def _read_positions(elements: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    """Return the positions of the nodes of ways, `(n, 2)` in degrees; empty where no way has a node with a place."""
    nodes = {e["id"]: read_position(e) for e in elements if e["type"] == "node" and "lat" in e}
    found: dict[Any, tuple[float, float]] = {}
    for element in elements:
        parts = [element] if element["type"] == "way" else element.get("members") or ()
        for part in parts:
            geometry = part.get("geometry")
            if geometry is not None:
                found |= {xy: xy for xy in (read_position(point) for point in geometry if point is not None)}
            elif part is element:
                found |= {number: nodes[number] for number in element.get("nodes") or () if number in nodes}
    return np.array(list(found.values()), np.float64).reshape(-1, 2)


def _find_tag(element: Mapping[str, Any], members: set[int]) -> tuple[str, str] | None:
    """Return the tag that an element was asked for by; None for several such tags, or a member of a relation."""
    tags = element.get("tags") or {}
    keys = [key for key in OSM_SELECTORS if key in tags]
    if element["type"] == "node" or len(keys) != 1 or (element["type"] == "way" and element["id"] in members):
        return None
    return keys[0], str(tags[keys[0]])
