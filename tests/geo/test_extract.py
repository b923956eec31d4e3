"""Files that are untidy, or are not what their name says: the same map in whatever dress, or a refusal in words."""

from __future__ import annotations

import bz2
import gzip
import json
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import osmium
import pytest
import shapely

from citygrain.errors import SourceError
from citygrain.geo.osm import extract as module
from citygrain.geo.osm.extract import look_over
from citygrain.geo.osm.reader import BROKEN_RELATIONS, CUT_AREAS, OPEN_WAYS
from citygrain.geo.place import Place
from citygrain.geo.sources import Features
from citygrain.geo.sources.osmfile import OsmFile

WEST, SOUTH, EAST, NORTH = BBOX = (9.99, 49.99, 10.01, 50.01)
META = 'version="3" timestamp="2024-05-06T07:08:09Z"'


@dataclass
class Map:
    """A small map, to be written as XML in many ways."""

    nodes: dict[int, tuple[float, float]] = field(default_factory=dict)
    ways: dict[int, tuple[list[int], dict[str, str]]] = field(default_factory=dict)
    relations: dict[int, tuple[list[tuple[str, int, str]], dict[str, str]]] = field(default_factory=dict)

    def way(self, number: int, points: list[tuple[float, float]], closed: bool = False, **tags: str) -> int:
        """Add a way with nodes of its own, in cells of 1/100 of the bbox."""
        first = len(self.nodes) + 1
        for i, (x, y) in enumerate(points):
            self.nodes[first + i] = (round(WEST + x * 2e-4, 7), round(SOUTH + y * 2e-4, 7))
        refs = list(range(first, first + len(points)))
        self.ways[number] = (refs + refs[:1] * closed, tags)
        return number

    def block(self, number: int, x: float, y: float, size: float, **tags: str) -> int:
        return self.way(number, [(x, y), (x + size, y), (x + size, y + size), (x, y + size)], closed=True, **tags)


def city() -> Map:
    """Four streets, houses, a park and a house around a court; everything well inside the bbox."""
    made = Map()
    for i in range(4):
        made.way(100 + i, [(10, 20 + 15 * i), (50, 21 + 15 * i), (90, 20 + 15 * i)], highway="residential")
    for i in range(30):
        made.block(200 + i, 12 + 5 * (i % 15), 24 + 15 * (i // 15), 3, building="yes")
    made.block(300, 30, 68, 12, leisure="park")
    made.way(400, [(60, 70), (80, 70), (80, 90)])
    made.ways[401] = ([made.ways[400][0][2], len(made.nodes) + 1, made.ways[400][0][0]], {})
    made.nodes[len(made.nodes) + 1] = (WEST + 60 * 2e-4, SOUTH + 90 * 2e-4)
    made.block(402, 65, 75, 8)
    members = [("way", 400, "outer"), ("way", 401, "outer"), ("way", 402, "inner")]
    made.relations[500] = (members, {"type": "multipolygon", "building": "yes"})
    return made


def tagged(tags: dict[str, str]) -> str:
    return "".join(f'<tag k="{k}" v="{v}"/>' for k, v in tags.items())


def nodes_of(made: Map, meta: str = META) -> list[str]:
    return [f'<node id="{i}" {meta} lat="{lat}" lon="{lon}"/>' for i, (lon, lat) in made.nodes.items()]


def ways_of(made: Map, meta: str = META, located: bool = False) -> list[str]:
    def nd(number: int) -> str:
        if not located:
            return f'<nd ref="{number}"/>'
        lon, lat = made.nodes[number]
        return f'<nd ref="{number}" lat="{lat}" lon="{lon}"/>'

    return [
        f'<way id="{i}" {meta}>{"".join(map(nd, refs))}{tagged(tags)}</way>' for i, (refs, tags) in made.ways.items()
    ]


def relations_of(made: Map, meta: str = META) -> list[str]:
    return [
        f'<relation id="{i}" {meta}>'
        + "".join(f'<member type="{kind}" ref="{ref}" role="{role}"/>' for kind, ref, role in members)
        + f"{tagged(tags)}</relation>"
        for i, (members, tags) in made.relations.items()
    ]


def bounds(west: float, south: float, east: float, north: float) -> str:
    return f'<bounds minlat="{south}" minlon="{west}" maxlat="{north}" maxlon="{east}"/>'


def xml(*parts: list[str] | str, head: str = bounds(*BBOX), root: str = 'osm version="0.6"') -> str:
    body = "".join("".join(part) for part in parts)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{root}>{head}{body}</{root.split(maxsplit=1)[0]}>'


def everything(made: Map, meta: str = META) -> list[str]:
    return [*nodes_of(made, meta), *ways_of(made, meta), *relations_of(made, meta)]


def negative(made: Map) -> Map:
    """The map as an editor has it before it is uploaded."""
    return Map(
        {-i: xy for i, xy in made.nodes.items()},
        {-i: ([-n for n in refs], tags) for i, (refs, tags) in made.ways.items()},
        {-i: ([(k, -n, role) for k, n, role in members], tags) for i, (members, tags) in made.relations.items()},
    )


def save(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path, bbox: tuple[float, float, float, float] = BBOX) -> Features:
    return OsmFile(path).features(Place.from_bbox("hand", bbox))


def drawn(found: Features) -> dict[str, list[str]]:
    """Everything that is drawn, whatever its number."""
    return {
        name: sorted(shapely.to_wkt(shapely.normalize(layer.geometry.to_numpy()), rounding_precision=2))
        for name, layer in found.items()
        if len(layer)
    }


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Features:
    return read(save(tmp_path_factory.mktemp("plain") / "plain.osm", xml(everything(city()))))


# One map in many dresses


def history(made: Map) -> list[str]:
    """Earlier versions that lie elsewhere, and an object that is gone."""
    moved = replace(made, nodes={i: (lon + 0.001, lat) for i, (lon, lat) in made.nodes.items()})
    gone = (
        '<way id="900" version="1"><nd ref="1"/><nd ref="2"/><tag k="highway" v="primary"/></way>'
        '<way id="900" version="2" visible="false"/>'
    )
    return [*nodes_of(moved, 'version="2" timestamp="2020-01-01T00:00:00Z"'), gone]


def skeletons(made: Map) -> list[str]:
    """What `out skel` repeats: neither tags nor versions."""
    bare = Map(made.nodes, {i: (refs, {}) for i, (refs, _) in made.ways.items()})
    return [*nodes_of(bare, ""), *ways_of(bare, "")]


def deleted(made: Map) -> list[str]:
    """What an editor keeps of deleted objects."""
    more = Map(dict(made.nodes))
    more.block(800, 5, 5, 40, building="yes")
    new = {i: xy for i, xy in more.nodes.items() if i not in made.nodes}
    meta = 'action="delete" visible="true" version="1"'
    return [*nodes_of(Map(new), meta), *ways_of(more, meta)]


def with_a_deleted_corner(made: Map) -> str:
    """The first node of a house, and a hole of the court, were deleted while their users were not touched."""
    number = len(made.nodes) + 1
    ways = dict(made.ways)
    refs, tags = ways[200]
    ways[200] = ([number, *refs[:-1], number], tags)
    members, relation_tags = made.relations[500]
    extra = f'<way id="899" action="delete"><nd ref="{number}"/><nd ref="1"/><nd ref="2"/></way>'
    new = Map(made.nodes, ways, {500: ([*members, ("way", 899, "inner")], relation_tags)})
    lon, lat = WEST, SOUTH
    corner = f'<node id="{number}" action="delete" lat="{lat}" lon="{lon}"/>'
    shown = Map({**made.nodes, number: (lon, lat)}, ways)
    return xml(corner, nodes_of(made), ways_of(shown), extra, relations_of(new))


def hidden(made: Map) -> list[str]:
    """What a server says of deleted objects, some older than the objects that came back under their numbers."""
    more = Map(dict(made.nodes))
    more.block(800, 5, 5, 40, building="yes")
    new = {i: xy for i, xy in more.nodes.items() if i not in made.nodes}
    meta = 'visible="false" version="1"'
    return [*nodes_of(Map(new), meta), *ways_of(more, meta), *ways_of(made, meta), *relations_of(made, meta)]


def needed(made: Map, ways: set[int]) -> Map:
    """Only the nodes of some ways."""
    used = {ref for way in ways for ref in made.ways[way][0]}
    return Map({number: made.nodes[number] for number in sorted(used)})


DRESSES: dict[str, Callable[[Map], str]] = {
    "ways, relations, nodes": lambda m: xml(ways_of(m), relations_of(m), nodes_of(m)),
    "relations, nodes, ways": lambda m: xml(relations_of(m), nodes_of(m), ways_of(m)),
    "backwards": lambda m: xml(everything(m)[::-1]),
    "by the object": lambda m: xml(sorted(everything(m), key=lambda line: zlib.crc32(line.encode()) % 7)),
    "everything twice": lambda m: xml(everything(m), everything(m)),
    "every object twice in a row": lambda m: xml([line * 2 for line in everything(m)]),
    "out body; >; out skel": lambda m: xml(ways_of(m, ""), relations_of(m, ""), nodes_of(m, ""), skeletons(m)),
    "out skel before out body": lambda m: xml(skeletons(m), everything(m, "")),
    "out skel in order": lambda m: xml(
        everything(m), ways_of(Map(m.nodes, {i: (r, {}) for i, (r, _) in m.ways.items()}))
    ),
    "out tags apart": lambda m: xml(everything(m), ways_of(Map(m.nodes, {i: ([], t) for i, (_, t) in m.ways.items()}))),
    "older versions first": lambda m: xml(history(m), everything(m)),
    "older versions last": lambda m: xml(everything(m), history(m)),
    "negative numbers": lambda m: xml(everything(negative(m), "")),
    "negative numbers, relations first": lambda m: xml(everything(negative(m), "")[::-1]),
    "deleted objects": lambda m: xml(everything(m), deleted(m)),
    "hidden objects": lambda m: xml(everything(m), hidden(m)),
    "hidden objects first": lambda m: xml(hidden(m), everything(m)),
    "a planet's bounds too": lambda m: xml(everything(m), head=bounds(-180, -90, 180, 90) + bounds(*BBOX)),
    "bounds of an empty place": lambda m: xml(everything(m), head=bounds(*BBOX) + bounds(20, 20, 20.1, 20.1)),
    "a country's and empty bounds": lambda m: xml(
        everything(m), head=bounds(20, 20, 21, 21) + bounds(5.8, 47.2, 15.1, 55.1) + bounds(*BBOX) + bounds(0, 0, 1, 1)
    ),
    "deleted corner and member": with_a_deleted_corner,
    "locations on ways": lambda m: xml(nodes_of(m), ways_of(m, located=True), relations_of(m)),
    "locations on ways, no nodes": lambda m: xml(ways_of(m, located=True), relations_of(m)),
    "locations on some ways": lambda m: xml(
        nodes_of(needed(m, {i for i in m.ways if not i % 2})),
        ways_of(Map(m.nodes, {i: w for i, w in m.ways.items() if i % 2}), located=True),
        ways_of(Map(m.nodes, {i: w for i, w in m.ways.items() if not i % 2})),
        relations_of(m),
    ),
    "single quotes": lambda m: xml(everything(m)).replace('"', "'"),
    "four bounds": lambda m: xml(everything(m), head=quarters()),
    "the bounds twice": lambda m: xml(everything(m), head=bounds(*BBOX) * 2),
    "bound": lambda m: xml(everything(m), head=f'<bound box="{SOUTH},{WEST},{NORTH},{EAST}" origin="x"/>'),
    "a note and a date": lambda m: xml("<note>x</note><meta osm_base='2024-01-01T00:00:00Z'/>", everything(m)),
    "bounds of ways": lambda m: xml([x.replace("<nd", bounds(9, 49, 9.1, 49.1) + "<nd", 1) for x in everything(m)]),
}


def quarters() -> str:
    x, y = (WEST + EAST) / 2, (SOUTH + NORTH) / 2
    boxes = [(WEST, SOUTH, x, y), (x, SOUTH, EAST, y), (WEST, y, x, NORTH), (x, y, EAST, NORTH)]
    return "".join(bounds(*box) for box in boxes)


@pytest.mark.parametrize("dress", DRESSES)
def test_the_same_map_in_another_dress_is_the_same(plain: Features, tmp_path: Path, dress: str) -> None:
    found = read(save(tmp_path / "dressed.osm", DRESSES[dress](city())))
    assert drawn(found) == drawn(plain)
    assert not found.skipped
    assert found.valid.symmetric_difference(plain.valid).area < 1.0
    assert found.provenance["extent"] == pytest.approx(BBOX)


def test_a_map_that_is_half_new_keeps_both_halves(plain: Features, tmp_path: Path) -> None:
    """Old nodes with their numbers, new ways on old and on new nodes."""
    made = city()
    new = {i for i in made.nodes if i % 3 == 0}
    renumbered = Map(
        {-i if i in new else i: xy for i, xy in made.nodes.items()},
        {-i: ([-n if n in new else n for n in refs], tags) for i, (refs, tags) in made.ways.items()},
        {-i: ([(k, -n, role) for k, n, role in members], tags) for i, (members, tags) in made.relations.items()},
    )
    found = read(save(tmp_path / "half.osm", xml(everything(renumbered))))
    assert drawn(found) == drawn(plain)
    assert "way/-200" in set(found["building"].osmid)


GONE = ['action="delete"', 'visible="false"', "visible='false' version='4'", 'action="delete" visible="true"']


@pytest.mark.parametrize("order", [1, pytest.param(-1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("mark", GONE)
@pytest.mark.parametrize("gone", ["node", "way", "relation", "node without a place"])
def test_what_is_marked_as_deleted_is_gone(tmp_path: Path, plain: Features, mark: str, gone: str, order: int) -> None:
    made = city()
    number = {"way": 100, "relation": 500}.get(gone, made.ways[100][0][0])
    kind = gone.partition(" ")[0]
    start = f'<{kind} id="{number}" '
    before = start + META.partition(" ")[0] * ("version" in mark)
    lines = [line.replace(before, f"{start}{mark} ") for line in everything(made)]
    if "without" in gone:
        lines = [line.partition(" lat=")[0] + "/>" if line.startswith(start) else line for line in lines]
    found = read(save(tmp_path / "gone.osm", xml(lines[::order])))
    counts = {name: found.counts[name] - n for name, n in plain.counts.items() if found.counts[name] != n}
    if kind == "node":  # of three, the line keeps two
        assert counts == {}
        assert found["street"].length.sum() < plain["street"].length.sum() - 500
    else:
        assert counts == {"street": -1} if kind == "way" else {"building": -1}
    assert found.skipped == {}


@pytest.mark.parametrize("mark", GONE[:2])
@pytest.mark.parametrize("role", ["outer", ""])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_area_that_lost_a_part_of_its_outline_is_counted_and_not_drawn(
    tmp_path: Path, plain: Features, mark: str, role: str, sign: int
) -> None:
    made = city()
    made.block(403, 40, 70, 8)
    members = [("way", 400, role), ("way", 401, role), ("way", 402, "inner"), ("way", 403, role)]
    for lost in ({403}, {400, 401, 403}):
        dressed = replace(made, relations={500: (members, {"type": "multipolygon", "building": "yes"})})
        dressed = dressed if sign > 0 else negative(dressed)
        lines = everything(dressed)
        for way in lost:
            lines = [line.replace(f'<way id="{sign * way}"', f'<way id="{sign * way}" {mark}') for line in lines]
        found = read(save(tmp_path / "lost.osm", xml(lines)))
        assert found.counts["building"] == plain.counts["building"] - 1
        assert found.skipped == {CUT_AREAS: 1}


def test_an_area_that_lost_a_hole_is_whole(tmp_path: Path, plain: Features) -> None:
    lines = [line.replace('<way id="402"', '<way id="402" action="delete"') for line in everything(city())]
    found = read(save(tmp_path / "whole.osm", xml(lines)))
    assert found.counts == plain.counts
    more = found["building"].area.sum() - plain["building"].area.sum()
    hole = shapely.box(*(v * 2e-4 for v in (0, 0, 8, 8))).area / shapely.box(*(v * 2e-4 for v in (0, 0, 3, 3))).area
    assert more == pytest.approx(hole * plain["building"].area.min(), rel=0.01)


def pieces(content: bytes, size: int) -> list[bytes]:
    return [content[i : i + size] for i in range(0, len(content), size)]


@pytest.mark.parametrize("size", [300, 4000, 10**7])
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("pack", [bz2.compress, gzip.compress], ids=["bz2", "gz"])
def test_a_file_packed_in_pieces_is_read_to_its_end(
    tmp_path: Path, plain: Features, pack: Callable[[bytes], bytes], size: int, order: int
) -> None:
    text = xml(everything(city())[::order]).encode()
    for name, parts in (("pieces", pieces(text, size)), ("empty", [b"", *pieces(text, size), b"", b""])):
        path = save(tmp_path / f"{name}.osm.{'bz2' if pack is bz2.compress else 'gz'}", b"".join(map(pack, parts)))
        found = read(path)
        assert drawn(found) == drawn(plain)
        assert found.provenance["file"] == path.name


def test_other_formats_packed_in_pieces(tmp_path: Path) -> None:
    source = save(tmp_path / "plain.osm", xml(everything(city()), head=""))
    with osmium.SimpleWriter(str(tmp_path / "city.opl")) as writer:
        for thing in osmium.FileProcessor(source):
            writer.add(thing)
    for content in ((tmp_path / "city.opl").read_bytes(), o5m(city())):
        path = save(tmp_path / "pieces.osm.bz2", b"".join(map(bz2.compress, pieces(content, 500))))
        assert drawn(read(path)) == drawn(read(source))


@pytest.mark.parametrize("cut", [40, 300, 900])
def test_a_file_packed_in_pieces_and_cut_is_refused(tmp_path: Path, cut: int) -> None:
    content = b"".join(map(bz2.compress, pieces(xml(everything(city())).encode(), 500)))
    with pytest.raises(SourceError, match="cut short"):
        read(save(tmp_path / "cut.osm.bz2", content[:-cut]))


def formats(folder: Path, text: str) -> Iterator[Path]:
    """The same objects in every format, under the right and under wrong names."""
    source = save(folder / "source.osm", text)
    for name, kind in {"pbf": "pbf", "opl": "opl", "dense": "pbf,pbf_dense_nodes=false"}.items():
        with osmium.SimpleWriter(osmium.io.File(str(folder / name), kind)) as writer:
            for thing in osmium.FileProcessor(source):
                writer.add(thing)
    pbf, opl, plain = ((folder / name).read_bytes() for name in ("pbf", "opl", "dense"))
    contents = {
        "pbf": pbf, "opl": opl, "xml": text.encode(), "gz": gzip.compress(text.encode()),
        "bz2": bz2.compress(text.encode()), "opl_gz": gzip.compress(opl), "dense": plain,
    }  # fmt: skip
    for what, content in contents.items():
        for suffix in (".osm.pbf", ".osm", ".osm.gz", ".osm.xml.gz", ".OSM"):
            yield save(folder / f"{what}{suffix}", content)


@pytest.mark.slow
def test_the_content_says_what_a_file_is_not_its_name(tmp_path: Path) -> None:
    text = xml(everything(city()), head="")
    expected = drawn(read(save(tmp_path / "plain.osm", text)))
    for path in formats(tmp_path, text):
        assert drawn(read(path)) == expected, path.name


def o5m(made: Map) -> bytes:
    """The map in a format that osmium reads and does not write: differences of numbers, seven bits a byte."""

    def unsigned(value: int) -> bytes:
        return bytes([value & 127 | 128]) + unsigned(value >> 7) if value > 127 else bytes([value])

    last: dict[str, int] = {}

    def step(kind: str, value: int) -> bytes:
        difference, last[kind] = value - last.get(kind, 0), value
        return unsigned(difference << 1 if difference >= 0 else (-difference << 1) - 1)

    def record(kind: int, content: bytes) -> bytes:
        return bytes([kind]) + unsigned(len(content)) + content

    def texts(tags: dict[str, str]) -> bytes:
        return b"".join(b"\0" + f"{key}\0{value}\0".encode() for key, value in tags.items())

    content = b"\xff\xe0\x04o5m2"
    for number, lonlat in made.nodes.items():
        x, y = (round(v * 1e7) for v in lonlat)
        content += record(0x10, step("node", number) + b"\0" + step("x", x) + step("y", y))
    content += b"\xff"
    last.clear()
    for number, (refs, tags) in made.ways.items():
        start, nodes = step("way", number), b"".join(step("ref", ref) for ref in refs)
        content += record(0x11, start + b"\0" + unsigned(len(nodes)) + nodes + texts(tags))
    content += b"\xff"
    last.clear()
    for number, (members, tags) in made.relations.items():
        start = step("relation", number)
        parts = b"".join(step("member", ref) + b"\0" + f"1{role}\0".encode() for _, ref, role in members)
        content += record(0x12, start + b"\0" + unsigned(len(parts)) + parts + texts(tags))
    return content + b"\xfe"


@pytest.mark.parametrize("name", ["city.o5m", "city.osm", "city.osm.pbf"])
def test_o5m_is_read(tmp_path: Path, name: str) -> None:
    expected = drawn(read(save(tmp_path / "plain.osm", xml(everything(city()), head=""))))
    assert drawn(read(save(tmp_path / name, o5m(city())))) == expected


def test_locations_on_the_ways_of_a_pbf(tmp_path: Path) -> None:
    source = save(tmp_path / "plain.osm", xml(everything(city()), head=""))
    expected = drawn(read(source))
    for keep_nodes in (True, False):
        path = tmp_path / f"located_{keep_nodes}.osm.pbf"
        with osmium.SimpleWriter(osmium.io.File(str(path), "pbf,locations_on_ways=true")) as writer:
            for thing in osmium.FileProcessor(source).with_locations():
                if keep_nodes or not thing.is_node():
                    writer.add(thing)
        found = read(path)
        assert look_over(path).tidy
        assert drawn(found) == expected
        assert not found.skipped


def test_a_tidy_file_is_read_as_it_is_and_an_untidy_one_too_large_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tidy, untidy = everything(city()), everything(city())[::-1]
    monkeypatch.setattr(module, "MAX_UNTIDY", len(tidy) - 1)
    assert read(save(tmp_path / "tidy.osm", xml(tidy))).counts["building"] == 31
    with pytest.raises(SourceError, match=r"osmium sort untidy\.osm"):
        read(save(tmp_path / "untidy.osm", xml(untidy)))


# Broken, or cut by the edge


def many(houses: int) -> Map:
    """The city with its court first, and plain houses after it."""
    made = city()
    for i in range(houses):
        made.block(1000 + i, 1 + 0.9 * (i % 100), 1 + i % 97, 0.05, building="yes")
    return made


def test_a_relation_made_before_it_goes_by_is_not_broken(tmp_path: Path) -> None:
    """osmium hands out areas in batches: in a larger file that of a relation comes before the relation."""
    found = read(save(tmp_path / "large.osm", xml(everything(many(6000)))))
    assert found.counts["building"] == 6031
    assert "relation/500" in set(found["building"].osmid)
    assert not found.skipped


@pytest.mark.parametrize("houses", [0, pytest.param(6000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["multipolygon", "boundary"])
def test_what_is_cut_is_not_broken_and_what_is_broken_is(tmp_path: Path, houses: int, kind: str) -> None:
    made = many(houses)
    (members, _) = made.relations[500]
    tags = {"type": kind, "landuse": "forest"}
    made.ways[403] = ([*made.ways[400][0][:2], 10**7], {})  # misses a node
    made.relations |= {
        501: (members[:1], tags),  # open, with all its members there
        502: ([*members[:1], ("way", 10**7, "outer")], tags),  # a member is missing
        503: ([("way", 403, "outer"), *members[1:]], tags),  # a node of a member is missing
        504: ([], tags),  # holds nothing at all
        505: (members[:1], {"type": kind, "place": "suburb"}),
    }
    found = read(save(tmp_path / "broken.osm", xml(everything(made))))
    assert found.skipped == {BROKEN_RELATIONS: 2, CUT_AREAS: 2}


def test_an_open_way_that_should_be_an_area_is_counted(tmp_path: Path) -> None:
    made = city()
    (members, tags) = made.relations[500]
    corners = [(2, 2), (4, 2), (4, 4)]
    made.way(600, corners, building="yes")
    made.way(601, corners, leisure="park")
    made.way(602, corners[:2], closed=True, natural="water")  # there and back
    made.way(603, corners, highway="footway", area="yes")  # drawn as the line that it is
    made.way(604, corners, building="no")
    made.way(605, corners, waterway="river", natural="water")
    made.way(606, corners, natural="tree_row")
    made.way(607, [*corners, corners[0]], building="yes")  # closed by a node of its own
    made.ways[401] = (made.ways[401][0], {"building": "yes"})  # part of a court that is drawn
    made.relations[500] = (members, tags)
    found = read(save(tmp_path / "open.osm", xml(everything(made))))
    assert found.counts["building"] == 32
    assert found.skipped == {OPEN_WAYS: 3}


@pytest.mark.slow
def test_real_extracts_have_few_broken_relations(shared_osm: Path) -> None:
    west, south, east, north = OsmFile(path := shared_osm / "porto" / "porto_vh.osm.pbf").extent()
    found = read(path, (west, south, east, north))
    assert BROKEN_RELATIONS not in found.skipped


# Where a file is


def test_two_bounds_apart_cover_two_places_and_nothing_between(tmp_path: Path) -> None:
    left, right = (WEST, SOUTH, WEST + 0.005, NORTH), (EAST - 0.005, SOUTH, EAST, NORTH)
    path = save(tmp_path / "apart.osm", xml(everything(city()), head=bounds(*right) + bounds(*left)))
    place = Place.from_bbox("hand", BBOX)
    assert OsmFile(path).extent() == pytest.approx(BBOX)
    assert read(path).valid.area == pytest.approx(place.utm.area / 2, rel=0.01)


def test_a_planets_bounds_say_nothing_beside_those_of_two_places_far_apart(tmp_path: Path) -> None:
    here = many(300)
    far = replace(here, nodes={i: (lon - 130, lat - 85) for i, (lon, lat) in here.nodes.items()})
    both = [
        line.replace('id="', 'id="9').replace('ref="', 'ref="9') if part is far else line
        for part in (here, far)
        for line in everything(part)
    ]
    near, away = BBOX, (WEST - 130, SOUTH - 85, EAST - 130, NORTH - 85)
    path = save(tmp_path / "both.osm", xml(both, head=bounds(-180, -90, 180, 90) + bounds(*near) + bounds(*away)))
    covered = look_over(path).covered
    assert covered.equals(shapely.union_all([shapely.box(*near), shapely.box(*away)]))


def test_a_village_among_many_nodes_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only some of the nodes of a large file are kept, and none of them may lie in the village."""
    made = many(300)
    made.way(9000, [(500, 500), (501, 501)], highway="residential")
    village = (WEST + 0.098, SOUTH + 0.098, WEST + 0.102, SOUTH + 0.102)
    head = bounds(*BBOX) + bounds(*village) + bounds(20, 20, 20.1, 20.1)
    monkeypatch.setattr(module, "SAMPLE", 16)
    covered = look_over(save(tmp_path / "village.osm", xml(everything(made), head=head))).covered
    assert covered.equals(shapely.union_all([shapely.box(*BBOX), shapely.box(*village)]))


def box_of(made: Map) -> list[float]:
    return list(shapely.MultiPoint(list(made.nodes.values())).bounds)


@pytest.mark.parametrize(
    ("box", "houses"), [((-180, -90, 180, 90), 0), ((5.8, 47.2, 15.1, 55.1), 0), ((9.9, 49.9, 10.2, 50.2), 300)]
)
def test_the_box_of_the_file_that_it_was_filtered_from_says_nothing(
    tmp_path: Path, box: tuple[float, float, float, float], houses: int
) -> None:
    made = many(houses)
    path = save(tmp_path / "filtered.osm", xml(everything(made), head=bounds(*box)))
    extent = OsmFile(path).extent()
    assert extent == pytest.approx(box_of(made), abs=1e-3)
    found = read(path)
    assert drawn(found) == drawn(read(save(tmp_path / "plain.osm", xml(everything(made)))))
    within = Place.from_bbox("within", extent)
    assert read(path, extent).valid.area == pytest.approx(within.utm.area, rel=1e-3)
    with pytest.raises(SourceError, match="outside"):
        read(path, (9.92, 49.92, 9.93, 49.93))


def test_a_box_smaller_than_the_data_is_the_cut(tmp_path: Path) -> None:
    made = city()
    made.way(110, [(50, 50), (5000, 4000), (5000, 50)], highway="primary")
    inner = (9.995, 49.995, 10.005, 50.005)
    path = save(tmp_path / "complete_ways.osm", xml(everything(made), head=bounds(*inner)))
    assert OsmFile(path).extent() == pytest.approx(inner)
    assert read(path).valid.area == pytest.approx(Place.from_bbox("inner", inner).utm.area, rel=1e-3)


def test_a_box_that_holds_more_sea_than_land_is_believed(tmp_path: Path) -> None:
    box = (WEST, SOUTH, EAST + 0.03, NORTH)
    path = save(tmp_path / "sea.osm", xml(everything(many(300)), head=bounds(*box)))
    assert OsmFile(path).extent() == pytest.approx(box)


def test_a_file_that_was_written_anew_is_looked_over_anew(tmp_path: Path) -> None:
    path = save(tmp_path / "city.osm", xml(everything(city())))
    before = OsmFile(path).extent()
    save(path, xml(everything(city()), head=bounds(WEST, SOUTH, EAST, NORTH - 0.001)))
    assert OsmFile(path).extent() != before


def test_a_box_of_which_few_nodes_fill_a_corner_is_believed(tmp_path: Path) -> None:
    made = Map()
    made.way(100, [(50, 50), (60, 50)], highway="residential")
    path = save(tmp_path / "corner.osm", xml(everything(made)))
    assert OsmFile(path).extent() == pytest.approx(BBOX)
    made.block(200, 50, 50, 1, building="yes")
    assert OsmFile(save(tmp_path / "house.osm", xml(everything(made)))).extent() == pytest.approx(BBOX)


@pytest.mark.parametrize(
    "head", ["", bounds(20, 51, 20.02, 51.02), bounds(10, 51, 9, 50), '<bound box="1,2"/>', "<bounds/>"]
)
def test_without_a_box_it_is_where_the_nodes_are(tmp_path: Path, head: str) -> None:
    path = save(tmp_path / "bare.osm", xml(everything(city()), head=head))
    assert OsmFile(path).extent() == pytest.approx(box_of(city()), abs=1e-3)


@pytest.mark.parametrize("head", ["", bounds(-180, -90, 180, 90), bounds(179.99, -17.01, -179.99, -16.99)])
def test_a_file_on_both_sides_of_the_180th_meridian(tmp_path: Path, head: str) -> None:
    made = city()
    nodes = {i: (180 + (lon - 10.0), lat - 67.0) for i, (lon, lat) in made.nodes.items()}
    nodes = {i: (lon - 360 if lon > 180 else lon, lat) for i, (lon, lat) in nodes.items()}
    path = save(tmp_path / "fiji.osm", xml(everything(replace(made, nodes=nodes)), head=head))
    with pytest.raises(SourceError, match="both sides of the 180th meridian") as caught:
        OsmFile(path).extent()
    assert "180.0000,-16.9" in str(caught.value)
    assert "place.bbox=[-180.0000,-17.0" in str(caught.value)
    west = read(path, (179.99, -17.01, 180.0, -16.99))
    east = read(path, (-180.0, -17.01, -179.99, -16.99))
    whole = read(save(tmp_path / "plain.osm", xml(everything(city()))))
    area = [
        sum(part["building"].geometry.clip(part.valid).area.sum() for part in parts)
        for parts in ([west, east], [whole])
    ]
    assert area[0] == pytest.approx(area[1] * math.cos(math.radians(17)) / math.cos(math.radians(50)), rel=0.01)
    assert all(area > 5e5 for area in (west.valid.area, east.valid.area))


# When it was true


@pytest.mark.parametrize(
    ("meta", "head", "date"),
    [
        ("", "", None),
        ('version="1"', "", None),
        ('timestamp="1970-01-01T00:00:00Z"', "", None),
        (META, "", "2024-05-06T07:08:09"),
        ("", "<meta osm_base='2025-01-02T03:04:05Z'/>", "2025-01-02T03:04:05"),
        (META, "<meta osm_base='2025-01-02T03:04:05Z'/>", "2025-01-02T03:04:05"),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_the_date_is_what_the_file_says_or_unknown(
    tmp_path: Path, meta: str, head: str, date: str | None, order: int
) -> None:
    found = read(save(tmp_path / "dated.osm", xml(everything(city(), meta)[::order], head=bounds(*BBOX) + head)))
    said = found.provenance["osm_date"]
    assert said is None if date is None else said.startswith(date)


# What is no map


def changes() -> str:
    return xml("<modify>", everything(city()), "</modify>", head="", root='osmChange version="0.6"')


def with_geometry(inside: str) -> str:
    relation = f'<relation id="1"><member type="way" ref="5" role="outer">{inside}</member></relation>'
    return xml(everything(city()), relation)


REPLY: dict[str, Any] = {"version": 0.6, "osm3s": {}, "elements": [{"type": "node", "id": 1, "lat": 50, "lon": 10}]}
WHOLE = xml(everything(city()))
STRANGERS: dict[str, tuple[str | bytes, str]] = {
    "changes.osm": (changes(), r"osmium apply-changes"),
    "changes.osc": (changes(), r"osmium apply-changes"),
    "changes.osc.gz": (gzip.compress(changes().encode()), r"osmium apply-changes"),
    "changes.osm.pbf": (b"\xff\xe0\x04o5c2", r"osmium apply-changes"),
    "page.osm": ("<!DOCTYPE html><html><body>504 Gateway Timeout</body></html>", "web page"),
    "page.osm.pbf": ("\n<HTML><head></head></HTML>", "web page"),
    "page.osm.gz": (gzip.compress(b"<html></html>"), "web page"),
    "track.osm": ('<gpx version="1.1"/>', "another kind"),
    "reply.osm": (json.dumps(REPLY), "source=overpass_json"),
    "reply.osm.pbf": (json.dumps(REPLY, indent=2), "source=overpass_json"),
    "shapes.osm": ('{"type": "FeatureCollection", "features": []}', "JSON"),
    "zipped.osm": (b"PK\x03\x04....", "unpack it"),
    "tiles.osm": (b"SQLite format 3\x00", "source=vectortiles"),
    "packed.osm.pbf": (b"\x28\xb5\x2f\xfd...", "unzstd"),
    "nothing.osm": (xml(head=""), "holds no nodes, nor anything else"),
    "lines.osm": (xml(ways_of(city()), head=""), "holds no nodes"),
    "unfinished.osm": (xml(nodes_of(city()), "<remark>runtime error: Query timed out</remark>"), "could not finish"),
    "geometry.osm": (with_geometry('<nd lat="1" lon="1"/>'), r"out geom"),
    "centres.osm": (xml('<way id="1"><center lat="1" lon="1"/><nd ref="1"/></way>'), r"out skel"),
    "cut.osm": (WHOLE[:-500], "cut short"),
    "cut.osm.gz": (gzip.compress(WHOLE.encode())[:-200], "cut short"),
    "cut.osm.bz2": (bz2.compress(WHOLE.encode())[:-200], "cut short"),
    "head.osm.gz": (gzip.compress(WHOLE.encode())[:12], "cut short"),
    "torn.osm.bz2": (b"BZh9" + bytes(500), "damaged"),
    "torn.osm.gz": (b"\x1f\x8b" + bytes(500), "damaged"),
    "noise.osm": (bytes(range(256)) * 20, "damaged"),
    "words.osm": ("no such file\n", "damaged"),
    "old.osm": (xml(everything(city()), root='osm version="0.5"'), "version 0.5"),
    "time.osm": (xml(everything(city(), 'timestamp="yesterday"')), "yesterday"),
    "box.osm": (xml(everything(city()), head='<bounds minlat="x"/>'), "damaged"),
    "number.osm": (xml('<node id="one" lat="1" lon="1"/>'), "damaged"),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_what_is_no_map_is_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    content, says = STRANGERS[name]
    path = save(tmp_path / name, content)
    for ask in (lambda: OsmFile(path).extent(), lambda: read(path)):
        with pytest.raises(SourceError, match=says) as caught:
            ask()
        assert name in str(caught.value)
        assert caught.value.remedy


@pytest.mark.parametrize("name", ["andorra.osh.pbf", "andorra.osm.pbf"])
def test_a_history_is_told_how_to_become_one_day(tmp_path: Path, name: str) -> None:
    source = save(tmp_path / "plain.osm", xml(everything(city())))
    path = tmp_path / name
    header = osmium.io.Header()
    header.has_multiple_object_versions = True
    with osmium.SimpleWriter(osmium.io.File(str(path), "pbf,history=true"), header=header) as writer:
        for thing in osmium.FileProcessor(source):
            writer.add(thing)
    with pytest.raises(SourceError, match=rf"osmium time-filter {name}"):
        read(path)


@pytest.mark.parametrize("name", ["city.osh", "city.osh.gz", "city.osh.bz2"])
def test_a_history_in_xml_is_told_by_its_name(tmp_path: Path, name: str) -> None:
    text = xml(history(city()), everything(city())).encode()
    content = {"gz": gzip.compress, "bz2": bz2.compress}.get(name.rpartition(".")[2], bytes)(text)
    with pytest.raises(SourceError, match=rf"osmium time-filter {name}"):
        read(save(tmp_path / name, content))


def test_the_name_of_another_kind_of_file_is_told_what_is_read(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"by its name") as caught:
        read(save(tmp_path / "reply.json", "{}"))
    assert "source=overpass_json" in str(caught.value)
    assert ".osh" not in str(caught.value)


def test_the_histories_at_hand_are_told(shared_osm: Path) -> None:
    with pytest.raises(SourceError, match="osmium time-filter"):
        OsmFile(shared_osm / "history_faroe" / "faroe-islands.osh.pbf").extent()
