"""A tidy copy of an untidy OpenStreetMap file: sorted, each object once, without what an editor has deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import osmium

from citygrain.geo.osm.formats import NODES_WAYS_RELATIONS, map_content, translate_errors, unpack_copy

# A tidy copy


@dataclass
class _Record:
    """One version of an object."""

    rank: int
    number: int
    version: int
    visible: bool
    timestamp: datetime
    tags: dict[str, str]
    parts: Any
    """Location of a node, numbers of a way's nodes, members of a relation."""

    @classmethod
    def of(cls, thing: Any) -> _Record:
        parts: Any
        if thing.is_node():
            rank, parts = 0, (thing.lon, thing.lat) if thing.location.valid() else ()
        elif thing.is_way():
            rank, parts = 1, [node.ref for node in thing.nodes]
        else:
            rank, parts = 2, [(member.type, member.ref, member.role) for member in thing.members]
        tags = {tag.k: tag.v for tag in thing.tags}
        return cls(rank, thing.id, thing.version, thing.visible, thing.timestamp, tags, parts)


def _merge_versions(versions: Iterable[_Record]) -> _Record:
    """Return the newest version of an object, merged from all its records of that version.

    Overpass writes an object once with its tags and once without, and may leave out a way's nodes.
    """
    known = list(versions)
    last = max(record.version for record in known)
    known = [record for record in known if record.version == last]
    newest = known[-1]
    newest.visible = all(record.visible for record in known)
    newest.tags = max((record.tags for record in known), key=len)
    newest.parts = max((record.parts for record in known), key=len)
    newest.timestamp = max(record.timestamp for record in known)
    return newest


def write_tidy_copy(path: Path, kind: str, deleted: Mapping[str, set[int]], folder: Path) -> Path:
    """Write a tidy copy of a file into a folder: sorted, each object once, none that was deleted, no negative nodes.

    Parameters
    ----------
    path, kind
        The file, and the format of its content.
    deleted
        `n`, `w` or `r` → numbers of the objects that an editor has deleted.
    folder
        The folder.
    """
    with translate_errors(path):
        ordered, tidy = folder / "sorted.osm.pbf", folder / "tidy.osm.pbf"
        reader = osmium.MergeInputReader()
        # Of packed bytes in memory osmium reads the first stream alone.
        with unpack_copy(path, kind) as (plain, plain_kind), map_content(plain) as content:
            reader.add_buffer(content, plain_kind)
        # Only the form of a history has room for the mark of what is deleted.
        with osmium.SimpleWriter(osmium.io.File(str(ordered), "pbf,locations_on_ways=true,history=true")) as writer:
            reader.apply(writer, simplify=False)
        del reader
        on_ways = _read_locations_on_ways(ordered)
        things = osmium.FileProcessor(ordered, NODES_WAYS_RELATIONS)
        each = groupby(map(_Record.of, things), key=lambda record: (record.rank, record.number))
        newest = (_merge_versions(versions) for _, versions in each)
        with osmium.SimpleWriter(str(tidy)) as writer:
            _Copier(writer, deleted, on_ways).copy(newest)
    return tidy


def _read_locations_on_ways(path: Path) -> dict[int, tuple[float, float]]:
    """Return the locations of nodes that are written in ways."""
    ways: Iterator[Any] = iter(osmium.FileProcessor(path, osmium.osm.WAY))
    return {n.ref: (n.location.lon, n.location.lat) for way in ways for n in way.nodes if n.location.valid()}


class _Copier:
    """Writes the newest versions of sorted objects, without deleted objects and without references to them."""

    def __init__(
        self, writer: osmium.SimpleWriter, deleted: Mapping[str, set[int]], on_ways: dict[int, tuple[float, float]]
    ) -> None:
        self._writer = writer
        self._deleted = {kind: set(numbers) for kind, numbers in deleted.items()}
        self._on_ways = on_ways
        # osmium looks up no node with a negative number; they get those beyond the largest.
        self._new: list[_Record] = []
        self._largest = max(on_ways, default=0)
        self._wrote_nodes = False

    def copy(self, records: Iterable[_Record]) -> None:
        """Write records that come as nodes, ways and relations."""
        for record in records:
            kind = "nwr"[record.rank]
            if not record.visible:
                self._deleted[kind].add(record.number)
            if record.number in self._deleted[kind]:
                continue
            if record.rank == 0:
                self._node(record)
            else:
                self._finish_nodes()
                (self._way if record.rank == 1 else self._relation)(record)
        self._finish_nodes()

    def _node(self, record: _Record) -> None:
        self._on_ways.pop(record.number, None)
        if record.number < 0:
            self._new.append(record)
            return
        self._largest = max(self._largest, record.number)
        self._write(self._writer.add_node, osmium.osm.mutable.Node, record, location=record.parts or None)

    def _finish_nodes(self) -> None:
        """Write the nodes that editors made, and those that only ways know."""
        if self._wrote_nodes:
            return
        self._wrote_nodes = True
        for record in self._new:
            record.number = self._numbered(record.number)
            self._write(self._writer.add_node, osmium.osm.mutable.Node, record, location=record.parts or None)
        for number, location in self._on_ways.items():
            if number not in self._deleted["n"]:
                self._writer.add_node(osmium.osm.mutable.Node(id=self._numbered(number), location=location))

    def _way(self, record: _Record) -> None:
        nodes = [number for number in record.parts if number not in self._deleted["n"]]
        if nodes and record.parts[0] == record.parts[-1] != nodes[0]:
            nodes.append(nodes[0])  # it was closed where a node is gone, and stays so
        nodes = [self._numbered(number) for number in nodes]
        self._write(self._writer.add_way, osmium.osm.mutable.Way, record, nodes=nodes)

    def _relation(self, record: _Record) -> None:
        # A deleted way of the outline stays among the members, so that the area stays open; a deleted hole goes.
        members = [
            member
            for member in record.parts
            if member[1] not in self._deleted[member[0]] or (member[0] == "w" and member[2] != "inner")
        ]
        self._write(self._writer.add_relation, osmium.osm.mutable.Relation, record, members=members)

    def _numbered(self, node: int) -> int:
        return node if node >= 0 else self._largest - node

    @staticmethod
    def _write(add: Callable[[Any], None], make: Any, record: _Record, **parts: Any) -> None:
        add(make(id=record.number, version=record.version, timestamp=record.timestamp, tags=record.tags, **parts))
