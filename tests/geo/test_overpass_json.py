"""Saved replies: every form with geometry makes the same city, and what nobody asked for is unknown, not absent."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import osmium
import pytest
import shapely

from citygrain.data.prepare import prepare
from citygrain.errors import ConfigError, DataError, SourceError
from citygrain.geo.layers import CHANNEL_NAMES
from citygrain.geo.osm.reader import CUT_AREAS, LOST_WAYS
from citygrain.geo.place import Place
from citygrain.geo.sources import Features, read_features
from citygrain.geo.sources.osmfile import OsmFile
from citygrain.geo.sources.overpass import Overpass
from citygrain.geo.sources.overpass_json import OverpassJson
from geo.overpass_server import serve
from geo.test_overpass import METRE_EAST, METRE_NORTH, SOUTH, WEST, Town

pytestmark = pytest.mark.filterwarnings("ignore::citygrain.geo.sources.EmptyLayerWarning")

Elements = list[dict[str, Any]]

PLACE = Place.from_bbox("town", (WEST, SOUTH, WEST + 2000 * METRE_EAST, SOUTH + 2000 * METRE_NORTH))
DATE = "2026-03-26T14:39:50Z"
ROADS = ("arterial", "street", "service", "cycle", "walk", "square")


def town() -> Elements:
    """Streets all over 2 km, a building with a court whose ring is two ways, a lake of two open shores, a railway."""
    town = Town()
    for at in range(0, 2001, 200):
        town.way([(0, at), (1000, at), (2000, at)], highway="residential")
        town.way([(at, 0), (at, 2000)], highway="service")
    outer = town.way([(500, 500), (800, 500), (800, 800)]), town.way([(800, 800), (500, 800), (500, 500)])
    town.relation([*outer, town.square(600, 600, 100)], building="yes")
    town.square(1300, 1300, 50, building="house")
    shore = [(1500, 500), (1900, 500), (1900, 700), (1500, 700)]
    town.relation([town.way(shore[:3], highway="footway"), town.way([*shore[2:], shore[0]])], natural="water")
    town.way([(0, 50), (2000, 60)], railway="rail")
    town.square(100, 1500, 90, leisure="park")
    town.square(300, 1500, 90, amenity="parking")
    # Two ways that end at one place meet there only if they share the node.
    return joined(town.elements)


def joined(elements: Elements) -> Elements:
    """Give nodes at one place one number, as a map has it."""
    at: dict[tuple[float, float], int] = {}
    number = {e["id"]: at.setdefault((e["lon"], e["lat"]), e["id"]) for e in elements if e["type"] == "node"}
    kept = [e for e in elements if e["type"] != "node" or number[e["id"]] == e["id"]]
    return [{**e, "nodes": [number[n] for n in e["nodes"]]} if e["type"] == "way" else e for e in kept]


def reply(elements: Elements, date: str | None = DATE, **more: Any) -> dict[str, Any]:
    header = {"timestamp_osm_base": date} if date else {}
    return {"version": 0.6, "generator": "Overpass API", "osm3s": header, "elements": elements, **more}


def save(path: Path, elements: Elements, date: str | None = DATE, **more: Any) -> Path:
    text = json.dumps(reply(elements, date, **more)).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def with_geometry(elements: Elements, numbers: bool = True) -> Elements:
    """Return what `out geom` says of elements: no nodes, but positions within ways and members.

    Without `numbers` as `out tags geom` says it of ways, and without the ways that are mere members.
    """
    at = {e["id"]: {"lat": e["lat"], "lon": e["lon"]} for e in elements if e["type"] == "node"}
    lines = {e["id"]: [at.get(n) for n in e["nodes"]] for e in elements if e["type"] == "way"}
    found = []
    for element in elements:
        if element["type"] == "way" and (numbers or "tags" in element):
            way = {k: v for k, v in element.items() if numbers or k != "nodes"}
            found.append({**way, "bounds": {}, "geometry": lines[element["id"]]})
        elif element["type"] == "relation":
            members = [
                {**m, "geometry": lines[m["ref"]]} if m["type"] == "way" and m["ref"] in lines else m
                for m in element["members"]
            ]
            found.append({**element, "bounds": {}, "members": members})
    return found


def without_tags_first(elements: Elements) -> Elements:
    """Members of relations come twice, once without their tags; everything in an order of its own."""
    members = {m["ref"] for e in elements if e["type"] == "relation" for m in e["members"]}
    twice = [{k: v for k, v in e.items() if k != "tags"} for e in elements if e["id"] in members]
    return [*twice, *elements[::-1], *twice[::2]]


def negative(elements: Elements) -> Elements:
    """The elements as an editor has them before they are uploaded."""
    found = []
    for element in elements:
        turned = {**element, "id": -element["id"]}
        if "nodes" in element:
            turned["nodes"] = [-number for number in element["nodes"]]
        if "members" in element:
            turned["members"] = [{**member, "ref": -member["ref"]} for member in element["members"]]
        found.append(turned)
    return found


def half_negative(elements: Elements) -> Elements:
    """New nodes in old ways."""
    new = {e["id"] for e in elements if e["type"] == "node" and e["id"] % 2}
    return [
        {**e, "id": -e["id"]}
        if e["type"] == "node" and e["id"] in new
        else {**e, "nodes": [-n if n in new else n for n in e["nodes"]]}
        if e["type"] == "way"
        else e
        for e in elements
    ]


def with_nothing(elements: Elements) -> Elements:
    """Keys that are there and hold nothing."""
    return [
        {
            "tags": None,
            **{key: value for key, value in element.items() if value != {}},
            **(
                {"members": [{**member, "role": member.get("role") or None} for member in element["members"]]}
                if "members" in element
                else {}
            ),
        }
        for element in elements
    ]


def among_others(elements: Elements) -> Elements:
    """What `out count`, `is_in`, `make` and `convert` add."""
    count = {"type": "count", "id": 0, "tags": {"nodes": "3", "ways": "2", "total": "5"}}
    area = {"type": "area", "id": 3600000001, "tags": {"name": "Town", "landuse": "residential"}}
    made = [{"type": "stat", "id": 1, "tags": {"building": "7"}}, {"type": "timeline", "tags": {"highway": "x"}}]
    return [count, area, *elements, *made, count]


FORMS: dict[str, Callable[[Elements], Elements]] = {
    "as asked by Overpass": lambda e: e,
    "out body; >; out skel qt": without_tags_first,
    "out geom": with_geometry,
    "out tags geom": lambda e: with_geometry(e, numbers=False),
    "nodes and geometry": lambda e: [*e, *with_geometry(e)],
    "negative numbers": negative,
    "negative numbers, geometry": lambda e: with_geometry(negative(e)),
    "some negative numbers": half_negative,
    "null": with_nothing,
    "null, geometry": lambda e: with_nothing(with_geometry(e)),
    "counts and areas": among_others,
    "counts and areas, geometry": lambda e: among_others(with_geometry(e)),
    "no roles": lambda e: [
        {**x, "members": [{**m, "role": ""} for m in x["members"]]} if "members" in x else x for x in e
    ],
}


def read(path: Any, place: Place = PLACE, **options: Any) -> Features:
    return OverpassJson(path, **options).features(place)


def content(found: Features) -> dict[str, list[tuple[str, float, float]]]:
    return {
        name: sorted(
            (kind, round(g.area, 1), round(g.length, 1)) for kind, g in zip(layer["kind"], layer.geometry, strict=True)
        )
        for name, layer in found.items()
    }


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Features:
    """The town as a server tells it."""
    with serve(town(), DATE) as server:
        source = Overpass(server.url, tmp_path_factory.mktemp("cache"), tile_km=10, pause_s=0.001)
        return read_features(PLACE, source)


# What is read --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suffix", [".json", pytest.param(".json.gz", marks=pytest.mark.slow)])
def test_every_form_of_a_reply_makes_the_city_that_a_server_makes(
    tmp_path: Path, expected: Features, form: str, suffix: str
) -> None:
    found = read(save(tmp_path / f"town{suffix}", FORMS[form](town())))
    assert content(found) == content(expected)
    assert found.skipped == {}
    assert found.unknown == {}
    assert found.provenance["osm_date"] == DATE
    assert found["building"].area.max() == pytest.approx(300**2 - 100**2, rel=0.01)
    assert found["water"].area.sum() == pytest.approx(400 * 200, rel=0.01)


def test_the_tiles_that_overpass_keeps_are_replies(tmp_path: Path, expected: Features) -> None:
    with serve(town(), DATE) as server:
        read_features(PLACE, Overpass(server.url, tmp_path, tile_km=1.1, pause_s=0.001))
    tiles = sorted(tmp_path.iterdir())
    assert len(tiles) == 4
    assert content(read(tiles)) == content(expected)


@pytest.mark.parametrize("seed", range(5))
def test_however_a_city_is_dealt_out_to_files_each_element_is_there_once(
    tmp_path: Path, expected: Features, seed: int
) -> None:
    """Each way with its nodes goes to one file or to several, in any order."""
    rng = np.random.default_rng(seed)
    elements = town()
    nodes = {e["id"]: e for e in elements if e["type"] == "node"}
    ways = {e["id"]: e for e in elements if e["type"] == "way"}
    files: list[Elements] = [[], [], []]
    for element in elements:
        if element["type"] == "node" or (element["type"] == "way" and "tags" not in element):
            continue
        parts = [ways[m["ref"]] for m in element.get("members", ())] or [element]
        whole = [element, *parts, *(nodes[n] for part in parts for n in part["nodes"])]
        for k in rng.choice(3, rng.integers(1, 4), replace=False):
            files[k] += [whole[i] for i in rng.permutation(len(whole))]
    forms = [with_geometry, lambda e: e, without_tags_first]
    paths = [save(tmp_path / f"{k}.json", form(file)) for k, (file, form) in enumerate(zip(files, forms, strict=True))]
    assert content(read(paths)) == content(expected)


def test_of_two_dates_the_newer_one_holds_and_the_older_one_is_told(tmp_path: Path) -> None:
    old, new = town(), town()
    moved = next(e for e in new if e.get("tags") == {"building": "house"})
    moved["tags"] = {"building": "tower"}
    before, after = "2024-01-01T00:00:00Z", "2026-01-01T00:00:00Z"
    paths = [save(tmp_path / "old.json", old, before), save(tmp_path / "new.json", new, after)]
    for order in (paths, paths[::-1]):
        found = read(order)
        assert set(found["building"]["kind"]) == {"yes", "tower"}
        assert found.provenance["osm_date"] == before
        assert [file["osm_date"] for file in found.provenance["files"]] == [
            before if path.name == "old.json" else after for path in order
        ]
        assert all(len(file["sha256"]) == 64 for file in found.provenance["files"])
    assert read(save(tmp_path / "undated.json", old, None)).provenance["osm_date"] is None


@pytest.mark.parametrize("numbers", [True, False])
def test_a_clipped_geometry_is_drawn_as_far_as_it_goes(tmp_path: Path, numbers: bool) -> None:
    """`out geom(bbox)` leaves out the points beyond; a ring without all its points encloses nothing."""
    lone = Town()
    lone.elements = town()
    lone.elements += [{}] * (max(e["id"] for e in lone.elements) - len(lone.elements))  # numbers go on from there
    lone.way([(0, 77), (1000, 77), (2000, 77)], highway="tertiary")
    complete = [e for e in lone.elements if e]
    elements = with_geometry(complete, numbers)
    street = next(e for e in elements if e.get("tags") == {"highway": "tertiary"})
    street["geometry"][0] = None
    house = next(e for e in elements if e.get("tags") == {"building": "house"})
    house["geometry"][1] = None
    lake = next(e for e in elements if e.get("tags", {}).get("natural") == "water")
    lake["members"][0]["geometry"] = [None, None, *lake["members"][0]["geometry"][2:]]
    for element in elements:
        if element["id"] == lake["members"][0]["ref"]:
            element["geometry"] = lake["members"][0]["geometry"]
    elements.append(next(e for e in complete if e["id"] == 1))  # what is left out is no other node
    found = read(save(tmp_path / "clipped.json", elements))
    whole = read(save(tmp_path / "whole.json", complete))
    assert found["street"].length.sum() == pytest.approx(whole["street"].length.sum() - 1000, abs=2)
    assert list(found["building"]["kind"]) == ["yes"]
    assert found.counts["water"] == 0
    assert found.skipped == {CUT_AREAS: 2, LOST_WAYS: 1}, "of the shore, which is a footway too, one point is left"


@pytest.mark.slow
def test_a_real_extract_as_a_reply_is_the_same_city(sample_pbf: Path, tmp_path: Path) -> None:
    kinds = {"n": "node", "w": "way", "r": "relation"}
    elements: Elements = []
    for thing in osmium.FileProcessor(sample_pbf):
        element = {"id": thing.id, "tags": dict(thing.tags)}
        if thing.is_node():
            elements.append({"type": "node", "lon": thing.lon, "lat": thing.lat, **element})
        elif thing.is_way():
            elements.append({"type": "way", "nodes": [n.ref for n in thing.nodes], **element})
        else:
            members = [{"type": kinds[m.type], "ref": m.ref, "role": m.role} for m in thing.members]
            elements.append({"type": "relation", "members": members, **element})
    place = Place.from_bbox("helsinki", (24.94, 60.166, 24.95, 60.174))
    expected = OsmFile(sample_pbf).features(place)
    for name, form in (("body", elements), ("geom", with_geometry(elements))):
        found = read(save(tmp_path / f"{name}.json.gz", form), place)
        assert found.counts == expected.counts, name
        for channel in CHANNEL_NAMES:
            assert found[channel].area.sum() == pytest.approx(expected[channel].area.sum())
            assert found[channel].length.sum() == pytest.approx(expected[channel].length.sum())


# What is unknown -----------------------------------------------------------------------------------------------------


def only(*keys: str, elements: Elements | None = None) -> Elements:
    """Return what a query for some keys gives: the members of relations come along, whatever they are."""
    elements = elements or town()
    asked = [e for e in elements if e["type"] != "node" and any(key in e.get("tags", {}) for key in keys)]
    refs = {m["ref"] for e in asked for m in e.get("members", ())}
    ways = [e for e in elements if e["type"] == "way" and (e in asked or e["id"] in refs)]
    nodes = {n for e in ways for n in e["nodes"]}
    relations = [e for e in asked if e["type"] == "relation"]
    return [*(e for e in elements if e["type"] == "node" and e["id"] in nodes), *ways, *relations]


@pytest.mark.parametrize(
    ("keys", "known"),
    [
        (("highway",), ROADS),
        (("building",), ("building",)),
        (("railway",), ("rail",)),
        (("leisure",), ("green",)),
        (("amenity",), ("parking",)),
        (("natural",), ("water",)),  # a shore is a footway, and came as a member
        (("highway", "building", "natural"), (*ROADS, "building", "water")),
        (("highway", "building", "natural", "leisure", "amenity", "railway"), CHANNEL_NAMES),
    ],
)
def test_what_was_not_asked_for_is_unknown(tmp_path: Path, keys: tuple[str, ...], known: tuple[str, ...]) -> None:
    found = read(save(tmp_path / "part.json", only(*keys)))
    assert set(CHANNEL_NAMES) - set(found.unknown) == set(known)
    assert all(found.counts[name] == 0 for name in found.unknown)


def test_a_tag_beside_the_one_that_was_asked_for_tells_nothing(tmp_path: Path) -> None:
    town = Town()
    town.square(0, 0, 300, natural="water", leisure="park", landuse="forest")
    town.way([(0, 500), (1000, 500)], highway="residential", railway="tram")
    town.way([(0, 600), (1000, 600)], highway="residential")
    town.square(500, 0, 300, natural="water")
    found = read(save(tmp_path / "lake.json", town.elements))
    assert set(found.unknown) == {"building", "rail", "parking", "green"}


def test_who_knows_what_was_asked_for_says_so(tmp_path: Path) -> None:
    path = save(tmp_path / "streets.json", only("highway"))
    found = read(path, asked=["highway", "building", "railway"])
    assert set(found.unknown) == {"parking", "green", "water"}
    assert "source.asked" in found.unknown["green"]
    with pytest.raises(ConfigError, match=r"(?s)No channel is made of this key.*buildings.*did you mean: building"):
        OverpassJson(path, asked=["buildings"])


def test_nothing_that_a_channel_is_made_of(tmp_path: Path) -> None:
    town = Town()
    town.way([(0, 0), (100, 100)], barrier="fence")
    with pytest.raises(SourceError, match="nothing that a channel is made of"):
        read(save(tmp_path / "fences.json", town.elements))


def test_the_ground_ends_where_the_streets_or_the_buildings_end(tmp_path: Path) -> None:
    """Water of the county, streets of the town, buildings of a quarter: known is the quarter."""
    county = Town()
    for at in range(-20_000, 20_001, 200):
        county.way([(-20_000, at), (0, at), (20_000, at)], waterway="stream")
    county.way([(19_000, 19_000), (19_100, 19_000)], highway="footway")  # a stray one
    quarter = Town()
    for x in range(0, 1000, 100):
        for y in range(0, 1000, 100):
            quarter.square(x, y, 90, building="yes")
    shifted = [
        [
            {**e, "id": e["id"] + k * 10**6, **({"nodes": [n + k * 10**6 for n in e["nodes"]]} if "nodes" in e else {})}
            for e in part
        ]
        for k, part in enumerate((only("highway"), county.elements, quarter.elements))
    ]
    streets, water, houses = (
        save(tmp_path / f"{name}.json", part)
        for name, part in zip(("streets", "water", "houses"), shifted, strict=True)
    )

    def side_m(*paths: Path) -> tuple[float, float]:
        west, south, east, north = OverpassJson(list(paths)).extent()
        return (east - west) / METRE_EAST, (north - south) / METRE_NORTH

    assert side_m(water) == pytest.approx((40_000, 40_000), rel=0.03)
    assert side_m(streets) == side_m(streets, water) == pytest.approx((2000, 2000), rel=0.03)
    assert side_m(water, houses) == side_m(streets, water, houses) == pytest.approx((990, 990), rel=0.03)
    found = read([water, streets, houses])
    assert found.valid.area == pytest.approx(990**2, rel=0.06)
    assert set(found.unknown) == {"rail", "parking", "green"}


def test_streets_and_buildings_of_different_towns(tmp_path: Path) -> None:
    elsewhere = Town()
    for x in range(10_000, 12_000, 100):
        elsewhere.square(x, 10_000 + x, 90, building="yes")
    moved = [
        {**e, "id": e["id"] + 10**6, **({"nodes": [n + 10**6 for n in e["nodes"]]} if "nodes" in e else {})}
        for e in elsewhere.elements
    ]
    paths = [save(tmp_path / "a.json", only("highway")), save(tmp_path / "b.json", moved)]
    with pytest.raises(SourceError, match="streets in one place and their buildings in another"):
        read(paths)
    with pytest.raises(SourceError, match="lies outside"):
        read(paths[0], Place.from_bbox("far", (0.0, 50.0, 0.1, 50.1)))


# What is refused -----------------------------------------------------------------------------------------------------

WAY = {"type": "way", "id": 1, "tags": {"building": "yes"}}
REFUSED: dict[str, tuple[bytes, str]] = {
    "out tags": (json.dumps(reply([WAY])).encode(), "but not where"),
    "out ids": (json.dumps(reply([{"type": "way", "id": 1}])).encode(), "but not where"),
    "out center": (
        json.dumps(reply([{**WAY, "nodes": [1, 2, 3, 1], "center": {"lat": 1.0, "lon": 1.0}}])).encode(),
        "but not where",
    ),
    "out body without the nodes": (json.dumps(reply([{**WAY, "nodes": [1, 2, 3, 1]}])).encode(), "but not where"),
    "out count": (json.dumps(reply([{"type": "count", "id": 0, "tags": {"ways": "7"}}])).encode(), "no ways"),
    "nodes only": (json.dumps(reply([{"type": "node", "id": 1, "lat": 1, "lon": 1}])).encode(), "no ways"),
    "empty": (json.dumps(reply([])).encode(), "(?s)no ways.*an empty reply"),
    "timed out": (
        json.dumps(
            reply([WAY], remark='runtime error: Query timed out in "query" at line 3 after 181 seconds.')
        ).encode(),
        "(?s)not a whole reply.*timed out.*timeout:",
    ),
    "out of memory": (
        json.dumps(reply([WAY], remark="runtime error: Query ran out of memory in …")).encode(),
        "not a whole reply",
    ),
    "no JSON": (b"hello", "is no JSON"),
    "cut": (json.dumps(reply([WAY])).encode()[:-20], "is no JSON, or cut short"),
    "nothing but blanks": (b"   ", "is no JSON"),
    "too deep": (b"[" * 100_000, "is no JSON"),
    "binary": (b"\xff\xfe\x00", "is no JSON"),
    "a page": (b"<html><body>busy</body></html>", "(?s)a web page, not map data.*busy.*browser"),
    "a page that says what it is": (
        b'\xef\xbb\xbf\n<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 4.01//EN"><HTML lang="en"><HEAD></HEAD></HTML>',
        "a web page, not map data",
    ),
    "a page in XML": (
        b'<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE html><html xmlns="x"><p>Error: runtime error</p></html>',
        "(?s)a web page, not map data.*runtime error",
    ),
    "XML": (b"<?xml version='1.0'?><osm version='0.6'></osm>", "(?s)is no JSON.*source=file"),
    "GeoJSON": (b'{"type": "FeatureCollection", "features": []}', "(?s)is GeoJSON.*source=layers"),
    "a geometry": (b'{"type": "Polygon", "coordinates": []}', "(?s)is GeoJSON.*source=layers"),
    "other JSON": (b'{"a": 1}', "no reply of Overpass"),
    "a list": (b"[1, 2]", "no reply of Overpass"),
    "elements of another kind": (b'{"elements": {"a": 1}}', "no reply of Overpass"),
    "a way without a number": (
        json.dumps(reply([{**WAY, "id": None, "geometry": [{"lat": 1, "lon": 1}, {"lat": 2, "lon": 2}]}])).encode(),
        "no element of a map",
    ),
    "words among the elements": (
        json.dumps(reply(["way", {**WAY, "geometry": [{"lat": 1, "lon": 1}, {"lat": 2, "lon": 2}]}])).encode(),
        "no element of a map",
    ),
    "a way with the number 0": (
        json.dumps(reply([{**WAY, "id": 0, "geometry": [{"lat": 1, "lon": 1}, {"lat": 2, "lon": 2}]}])).encode(),
        "no element of a map",
    ),
    "a node off the Earth": (
        json.dumps(reply([{"type": "node", "id": 1, "lat": 91, "lon": 0}, {**WAY, "nodes": [1]}])).encode(),
        "no element of a map",
    ),
    "a node of words": (
        json.dumps(reply([{"type": "node", "id": 1, "lat": "north", "lon": 0}, {**WAY, "nodes": [1]}])).encode(),
        "no element of a map",
    ),
    "numbers as text": (
        json.dumps(reply([{"type": "node", "id": "1", "lat": 1, "lon": 0}, {**WAY, "nodes": ["1"]}])).encode(),
        "no element of a map",
    ),
    "members of nothing": (
        json.dumps(
            reply(
                [
                    {"type": "node", "id": 1, "lat": 1, "lon": 0},
                    {**WAY, "nodes": [1]},
                    {"type": "relation", "id": 1, "members": [3]},
                ]
            )
        ).encode(),
        "no element of a map",
    ),
}


@pytest.mark.parametrize(("data", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_usable_reply_is_refused_in_words(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "saved.json"
    path.write_bytes(data)
    with pytest.raises(SourceError, match=words) as error:
        read(path)
    assert str(path) in str(error.value)
    zipped = tmp_path / "saved.json.gz"
    zipped.write_bytes(gzip.compress(data))
    with pytest.raises(SourceError, match=words):
        OverpassJson(zipped).features(PLACE)


def test_files_that_are_none(tmp_path: Path) -> None:
    good = save(tmp_path / "town.json", town())
    with pytest.raises(SourceError, match="is not there"):
        read([good, tmp_path / "absent.json"])
    with pytest.raises(SourceError, match=r"(?s)by its name.*\.json"):
        read(tmp_path / "town.osm.pbf")
    broken = tmp_path / "broken.json.gz"
    broken.write_bytes(gzip.compress(good.read_bytes())[:-100])
    with pytest.raises(SourceError, match="damaged or cut short"):
        read(broken)
    with pytest.raises(ConfigError, match="no file to read"):
        OverpassJson([])


# From the command line on --------------------------------------------------------------------------------------------


def test_a_request_changes_with_any_of_its_files(tmp_path: Path) -> None:
    one, two = save(tmp_path / "one.json", only("highway")), save(tmp_path / "two.json", only("building", "natural"))
    source = OverpassJson([str(one), str(two)])
    raster = prepare(PLACE, source, tmp_path / "cities", resolution_m=4.0, workers=1)
    assert set(raster.unknown) == {"rail", "parking", "green"}
    assert prepare(PLACE, source, tmp_path / "cities", resolution_m=4.0, workers=1).provenance == raster.provenance
    save(two, only("building", "natural", "railway"))
    with pytest.raises(DataError, match=r"another request: two\.json has changed since\.\n.*source\.sha256"):
        prepare(PLACE, source, tmp_path / "cities", resolution_m=4.0, workers=1)
    with pytest.raises(DataError, match=r"another request.*\n.*source\.asked"):
        prepare(PLACE, OverpassJson([one, two], ["highway"]), tmp_path / "cities", resolution_m=4.0, workers=1)


@pytest.mark.slow
def test_houston_as_it_was_saved(shared_osm: Path, tmp_path: Path) -> None:
    """Streets of 17 km², and the water of two counties: buildings are unknown, and it ends where its streets do."""
    files = [
        shared_osm / "houston" / f"houston_{name}_overpass{part}.json"
        for name, part in (("streets", ""), ("water", "_a"), ("water", "_b"))
    ]
    place = Place.from_bbox("houston", (-95.47, 29.68, -95.30, 29.82))
    raster = prepare(place, OverpassJson(files), tmp_path, resolution_m=4.0, workers=1)
    assert set(raster.unknown) == {"building", "rail", "parking", "green"}
    assert raster.provenance["valid_km2"] == pytest.approx(17, abs=1)
    # Counted without any of the code above.
    elements = json.loads(files[0].read_text(encoding="utf-8"))["elements"]
    nodes = {e["id"]: (e["lon"], e["lat"]) for e in elements if e["type"] == "node"}
    ground = place.project(shapely.box(*raster.provenance["source"]["extent"]))
    lines = [
        [nodes[n] for n in e["nodes"]]
        for e in elements
        if e["type"] == "way" and e["tags"]["highway"] in {"residential", "tertiary", "unclassified", "living_street"}
    ]
    km = shapely.length(shapely.intersection(place.project(shapely.MultiLineString(lines)), ground)) / 1e3
    share = raster.provenance["shares"]["street"]
    assert share / 8 * 1e3 * raster.provenance["valid_km2"] == pytest.approx(km, rel=0.1)
