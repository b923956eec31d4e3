"""Overpass against a server of our own: what it answers, what it may do wrong, and that nothing downloaded is lost."""

from __future__ import annotations

import errno
import gzip
import json
import math
import socket
import warnings
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import numpy as np
import osmium
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import Polygon, box

from citygrain.errors import SourceError
from citygrain.geo.layers import CHANNEL_NAMES
from citygrain.geo.osm import overpass_server
from citygrain.geo.osm.elements import gather_elements, make_features
from citygrain.geo.osm.reader import BROKEN_RELATIONS, CUT_AREAS, OPEN_AREAS
from citygrain.geo.osm_rules import OSM_QUERY
from citygrain.geo.place import Place
from citygrain.geo.sources import EmptyLayerWarning, Features, read_features
from citygrain.geo.sources import overpass as module
from citygrain.geo.sources.osmfile import OsmFile
from citygrain.geo.sources.overpass import Overpass
from geo import overpass_server as server_does
from geo.overpass_server import OverpassServer, serve

WEST, SOUTH = 11.25, 49.5
METRE_EAST, METRE_NORTH = 1 / 72_400, 1 / 111_200  # degrees, at this latitude
SIDE_M = 4000
PLACE = Place.from_bbox("town", (WEST, SOUTH, WEST + SIDE_M * METRE_EAST, SOUTH + SIDE_M * METRE_NORTH))


class Town:
    """Elements of a made-up town, drawn in metres from its south-western corner."""

    def __init__(self) -> None:
        self.elements: list[dict] = []

    def _add(self, kind: str, **content: object) -> int:
        self.elements.append({"type": kind, "id": len(self.elements) + 1, **content})
        return len(self.elements)

    def way(self, points: list[tuple[float, float]], **tags: str) -> int:
        ids: dict[tuple[float, float], int] = {}
        for x, y in points:
            if (x, y) not in ids:
                ids[x, y] = self._add("node", lon=WEST + x * METRE_EAST, lat=SOUTH + y * METRE_NORTH)
        tagged = {"tags": {k.replace("__", ":"): v for k, v in tags.items()}} if tags else {}
        return self._add("way", nodes=[ids[p] for p in points], **tagged)

    def square(self, x: float, y: float, side: float, **tags: str) -> int:
        return self.way([(x, y), (x + side, y), (x + side, y + side), (x, y + side), (x, y)], **tags)

    def relation(self, outer: list[int], inner: list[int] = (), **tags: str) -> int:
        members = [{"type": "way", "ref": w, "role": r} for r, ws in (("outer", outer), ("inner", inner)) for w in ws]
        return self._add("relation", members=members, tags={"type": "multipolygon", **tags})


@pytest.fixture(scope="module")
def town() -> list[dict]:
    """A building and a street in every quarter, a palace over all four, a lake whose shore is made of several ways."""
    town = Town()
    for x in (500, 2500):
        for y in (500, 2500):
            town.square(x, y, 50, building="yes")
            town.way([(x, y + 100), (x + 700, y + 100)], highway="residential", cycleway__both="track")
    palace = town.square(1500, 1500, 1000)
    court = town.square(1700, 1700, 600)
    town.relation([palace], [court], building="palace")
    shore = [(100, 3000), (400, 3000), (400, 3500), (100, 3500)]
    town.relation([town.way(shore[:3]), town.way([*shore[2:], shore[0]])], natural="water")
    town.way([(0, 100), (4000, 100)], highway="primary")
    return town.elements


@pytest.fixture
def server(town: list[dict]) -> Iterator[OverpassServer]:
    with serve(town) as server:
        yield server


@pytest.fixture
def source(server: OverpassServer, tmp_path: Path) -> Overpass:
    """The town in four tiles, from a server that is given up after a third of a second."""
    return Overpass(server.url, tmp_path / "cache", tile_km=2.1, timeout_s=0.15, deadline_s=0.35, pause_s=0.001)


@pytest.fixture(scope="module")
def unbroken(town: list[dict], tmp_path_factory: pytest.TempPathFactory) -> Features:
    """The town as a server without faults tells it."""
    with serve(town) as server:
        return read_features(
            PLACE, Overpass(server.url, tmp_path_factory.mktemp("unbroken"), tile_km=10, pause_s=0.001)
        )


def same(a: Features, b: Features) -> bool:
    """Whether two runs found the same, in whatever order."""

    def content(found: Features) -> dict[str, list[tuple]]:
        return {n: sorted(zip(f["kind"], f.geometry.normalize().to_wkb(), strict=True)) for n, f in found.items()}

    return content(a) == content(b) and a.provenance["osm_date"] == b.provenance["osm_date"]


def calm(source: Overpass) -> Overpass:
    """The same source with time enough for a busy machine."""
    return replace(source, timeout_s=20, deadline_s=20)


# What it answers -----------------------------------------------------------------------------------------------------


def test_a_town_becomes_layers(server, source):
    found = read_features(PLACE, calm(source))
    assert found.counts == {
        **dict.fromkeys(CHANNEL_NAMES, 0),
        "building": 5,
        "arterial": 1,
        "street": 4,
        "cycle": 8,
        "water": 1,
    }
    assert found.crs == PLACE.crs == "EPSG:32632"
    assert found.skipped == {}
    assert found.provenance["kind"] == "overpass"
    assert found.provenance["osm_date"] == "2026-03-26T14:39:50Z"
    assert found.provenance["url"] == f"{server.url}/interpreter"
    assert "OpenStreetMap contributors" in found.provenance["attribution"]
    json.dumps(found.provenance)


def test_what_lies_in_several_tiles_is_whole_and_there_once(source, unbroken):
    """The palace has a quarter in each tile; the lake's shore is two open ways."""
    tiles = read_features(PLACE, calm(source))
    assert same(tiles, unbroken)
    palace = tiles["building"].set_index("kind").geometry["palace"]
    assert palace.area == pytest.approx(1000**2 - 600**2, rel=0.01)
    assert tiles["water"].area.sum() == pytest.approx(300 * 500, rel=0.01)


def test_the_query_is_one_that_public_servers_accept(server, source):
    read_features(PLACE, Overpass(source.url, source.cache, tile_km=2.1, pause_s=0.001))
    assert len(server.asked) == 4
    for query in server.asked:
        assert query.startswith("[out:json][timeout:180];")
        assert query.endswith(";);(._;>;);out body;"), "ways with their nodes, relations with their members"
        for key, values in OSM_QUERY.items():
            asked = f'["{key}"]' if values is True else f'["{key}"~"^({"|".join(values)})$"]'
            assert query.count(f"way{asked}(poly:") == 1
            assert query.count(f'relation["type"~"^(multipolygon|boundary)$"]{asked}(poly:') == 1
        assert query.count("(poly:") == 2 * len(OSM_QUERY)
        assert "node[" not in query, "trees and lamps are not asked for"
        (outline,) = set(server_does.POLYGON.findall(query))
        latlon = np.array(outline.split(), dtype=float).reshape(-1, 2)
        tile = PLACE.project(Polygon(latlon[:, ::-1]))
        assert tile.area < 2100**2
    agent = server.agents[0]
    assert "citygrain/" in agent
    assert "https://" in agent, "whoever runs the server must be able to find us"


def test_the_second_run_asks_nobody(server, source):
    first = read_features(PLACE, calm(source))
    server.asked.clear()
    messages = []
    again = read_features(PLACE, calm(source), lambda fraction, message: messages.append((fraction, message)))
    assert server.asked == []
    assert same(first, again)
    assert messages[0] == (0.0, "tile 1 of 4: kept from before")
    assert messages[-1][0] == 1.0
    assert [m[0] for m in messages] == sorted(m[0] for m in messages)


def test_another_server_and_other_timeouts_find_the_same_tiles(town, server, source):
    first = read_features(PLACE, calm(source))
    with serve(town, date="2027-01-01T00:00:00Z") as other:
        again = read_features(
            PLACE, Overpass(other.url + "/interpreter", source.cache, 2.1, timeout_s=3, pause_s=0.002)
        )
        assert other.asked == []
    assert same(first, again)
    assert again.provenance["url"] == f"{server.url}/interpreter"


def test_the_oldest_tile_dates_the_place(server, source):
    server.script += [server_does.answer, server_does.answer]
    server.script.append(server_does.status(403))
    with pytest.raises(SourceError):
        read_features(PLACE, calm(source))
    server.date = "2026-04-01T00:00:00Z"
    assert read_features(PLACE, calm(source)).provenance["osm_date"] == "2026-03-26T14:39:50Z"


def test_a_place_that_is_no_rectangle_asks_only_where_it_is(server, source):
    angle = box(0, 0, 1900, 1900).difference(box(900, 900, 1900, 1900))
    place = Place("angle", shapely.transform(angle, lambda xy: [WEST, SOUTH] + xy * [METRE_EAST, METRE_NORTH]))
    found = read_features(place, Overpass(server.url, source.cache, tile_km=1, pause_s=0.001))
    assert len(server.asked) == 3
    assert found.counts["building"] == 1
    assert found.counts["street"] == 1
    assert found["building"].intersects(place.utm).all()


@settings(deadline=None)  # the machine may be busy
@given(seed=st.integers(0, 2**32 - 1), side=st.floats(300, 3000))
def test_tiles_cover_a_place_and_overlap_nowhere(seed, side):
    rng = np.random.default_rng(seed)
    area = shapely.convex_hull(shapely.multipoints(rng.uniform((5e5, 5e6), (5.05e5, 5.005e6), (6, 2))))
    tiles = list(module._cut_into_tiles(area, area.bounds, side))
    assert sum(t.area for t in tiles) == pytest.approx(shapely.union_all(tiles).area)
    assert area.difference(shapely.union_all(tiles).buffer(1e-6)).area < 1e-3
    assert max(max(t.bounds[2] - t.bounds[0], t.bounds[3] - t.bounds[1]) for t in tiles) <= side * (1 + 1e-5)


def test_what_does_not_touch_the_place_is_left_out(tmp_path):
    """Tiles are asked for with a margin; it must not leak into the place."""
    town = Town()
    town.square(SIDE_M + 3, 2000, 100, building="outside")
    town.square(SIDE_M - 50, 3000, 100, building="across")
    with serve(town.elements) as server, pytest.warns(EmptyLayerWarning, match="no streets"):
        found = read_features(PLACE, Overpass(server.url, tmp_path, pause_s=0.001))
    assert list(found["building"]["kind"]) == ["across"]


def test_the_sea_comes_from_the_coastline(tmp_path):
    """Closed coastlines come as areas where they are also tagged as a place, and must not be lost for that."""
    town = Town()
    town.way([(1000, -50), (1000, 4050)], natural="coastline")
    town.square(2000, 2000, 500, natural="coastline", place="islet")
    town.square(3000, 3000, 200, natural="coastline")
    town.square(100, 100, 10, building="yes")
    town.way([(100, 200), (300, 200)], highway="residential")
    with serve(town.elements) as server:
        found = read_features(PLACE, Overpass(server.url, tmp_path, pause_s=0.001))
    assert list(found["water"]["kind"]) == ["sea"]
    expected = PLACE.utm.area * 3 / 4 - 500**2 - 200**2
    assert found["water"].area.sum() == pytest.approx(expected, rel=0.01)


def test_a_broken_relation_is_skipped_and_counted(tmp_path):
    """A ring that crosses itself, one that does not close, and a sound one."""
    town = Town()
    bow_tie = town.way([(0, 0), (100, 100), (100, 0), (0, 100), (0, 0)], building="yes")
    hole = town.square(20, 20, 90, building="yes")
    town.relation([bow_tie], [hole], leisure="park")
    town.relation([town.way([(1000, 1000), (1500, 1500), (1000, 1500)])], leisure="park")
    town.relation([town.square(2000, 2000, 100)], leisure="park")
    with serve(town.elements) as server, pytest.warns(EmptyLayerWarning, match="no streets"):
        found = read_features(PLACE, Overpass(server.url, tmp_path, pause_s=0.001))
    assert found.counts["green"] == 1
    assert found.skipped == {BROKEN_RELATIONS: 2, OPEN_AREAS: 1}
    assert found.counts["building"] == 1


def test_members_without_roles_make_the_same_area(tmp_path):
    """Which ring lies within which is geometry; roles are a hint that many mappers leave out."""
    found = []
    for role in ("outer", ""):
        town = Town()
        for x, tags in ((0, {"building": "yes"}), (1000, {"natural": "water"}), (2000, {"leisure": "park"})):
            rings = [town.square(x, 0, 300), town.square(x + 100, 100, 100), town.square(x + 400, 0, 50)]
            town.relation(rings[::2], rings[1:2], **tags)
        for element in town.elements:
            for member in element.get("members", ()):
                member["role"] = role and member["role"]
        with serve(town.elements) as server, pytest.warns(EmptyLayerWarning, match="no streets"):
            found.append(read_features(PLACE, Overpass(server.url, tmp_path / f"_{role}", tile_km=10, pause_s=0.001)))
    for name in ("building", "water", "green"):
        assert found[0][name].area.sum() == pytest.approx(300**2 - 100**2 + 50**2, rel=0.01)
    assert same(*found)


def test_relations_within_relations_and_members_that_are_missing(tmp_path):
    """A relation whose ring is not all there is cut; one with a strange member beside a whole ring is sound."""
    town = Town()
    park = town.relation([town.square(0, 0, 100)], leisure="park")
    town.elements[park - 1]["members"] += [{"type": "relation", "ref": 77, "role": "subarea"}]
    town.elements[park - 1]["members"] += [{"type": "node", "ref": 1, "role": "label"}]
    lake = town.relation([town.way([(500, 0), (600, 0), (600, 100)])], natural="water")
    town.elements[lake - 1]["members"] += [{"type": "way", "ref": 10**6, "role": "outer"}]
    with serve(town.elements) as server, pytest.warns(EmptyLayerWarning):
        found = read_features(PLACE, Overpass(server.url, tmp_path, tile_km=10, pause_s=0.001))
    assert (found.counts["green"], found.counts["water"]) == (1, 0)
    assert found.skipped == {CUT_AREAS: 1}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::citygrain.geo.sources.EmptyLayerWarning")  # what is looked at here is green
@settings(deadline=None, max_examples=50)  # the machine may be busy
@given(seed=st.integers(0, 2**32 - 1))
def test_no_relation_however_broken_ends_a_download(seed):
    """Rings of few and coarse points cross themselves and each other in every way, and some are no rings."""
    rng = np.random.default_rng(seed)
    town = Town()

    def ring() -> int:
        points = [tuple(p) for p in (1000 + 10 * rng.integers(0, 6, (rng.integers(1, 8), 2))).tolist()]
        tags = {"building": "yes"} if rng.random() < 0.5 else {}
        way = town.way(points if rng.random() < 0.2 else [*points, points[0]], **tags)
        if rng.random() < 0.1:
            town.elements[-1]["nodes"].append(10**6)
        return way

    town.relation(
        [ring() for _ in range(rng.integers(1, 4))], [ring() for _ in range(rng.integers(0, 4))], leisure="park"
    )
    town.elements = json.loads(json.dumps(town.elements))
    with gather_elements() as elements:
        elements.add(town.elements, None)
        found = make_features(elements, PLACE, PLACE.utm, lambda *_: None)
    unmade = found.skipped[BROKEN_RELATIONS] + found.skipped[CUT_AREAS]
    green = found.layers["green"].geometry
    assert len(green) + unmade >= 1
    assert shapely.is_valid(green).all()


# Real replies --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_houston_from_real_replies(houston, tmp_path):
    """Streets, and the water of the county."""
    place = Place.from_bbox("houston", (-95.4481, 29.6911, -95.3926, 29.7482))
    with serve(houston) as server:
        source = Overpass(server.url, tmp_path, tile_km=4, pause_s=0.001)
        with pytest.warns(EmptyLayerWarning, match="houston has no buildings at all"):
            found = read_features(place, source)
        assert len(server.asked) == 4
        with pytest.warns(EmptyLayerWarning):
            again = read_features(place, source)
        assert len(server.asked) == 4
    assert same(found, again)

    # Counted here without any of the code above.
    nodes = {e["id"]: (e["lon"], e["lat"]) for e in houston if e["type"] == "node"}
    streets = {"tertiary", "tertiary_link", "unclassified", "residential", "living_street", "road"}
    inside = box(*place.bbox)
    count = {"street": 0, "service": 0, "arterial": 0}
    for way in houston:
        tags = way.get("tags", {})
        if way["type"] != "way" or "highway" not in tags or tags.get("area") == "yes" or "indoor" in tags:
            continue
        if tags.get("tunnel") in {"yes", "culvert", "covered"} or not inside.intersects(
            shapely.linestrings([nodes[n] for n in way["nodes"]])
        ):
            continue
        kind = tags["highway"].removesuffix("_link")
        count["service"] += tags["highway"] == "service"
        count["street"] += tags["highway"] in streets
        count["arterial"] += kind in {"motorway", "trunk", "primary", "secondary"}
    assert found.counts["street"] == count["street"] > 500
    assert found.counts["arterial"] == count["arterial"] > 300
    assert found.counts["service"] == count["service"] > 1500
    assert found.counts["water"] > 10
    assert found["street"].length.sum() > 50_000


@pytest.mark.slow
def test_it_finds_what_a_file_holds(sample_pbf, tmp_path):
    """Of the same elements a server and a file make the same city."""
    elements: list[dict] = []
    for thing in osmium.FileProcessor(sample_pbf):
        element = {"id": thing.id, "tags": dict(thing.tags)}
        if thing.is_node():
            elements.append({"type": "node", "lon": thing.lon, "lat": thing.lat, **element})
        elif thing.is_way():
            elements.append({"type": "way", "nodes": [n.ref for n in thing.nodes], **element})
        else:
            members = [{"type": MEMBER[m.type], "ref": m.ref, "role": m.role} for m in thing.members]
            elements.append({"type": "relation", "members": members, **element})
    place = Place.from_bbox("helsinki", (24.94, 60.166, 24.95, 60.174))
    with serve(elements) as server:
        over_network = read_features(place, Overpass(server.url, tmp_path, pause_s=0.001))
    from_file = read_features(place, OsmFile(sample_pbf))
    assert over_network.counts["building"] > 100
    for name, layer in over_network.items():
        expected = from_file[name]
        assert sorted(layer.get("osmid", [])) == sorted(expected.get("osmid", [])), name
        assert layer.area.sum() == pytest.approx(expected.area.sum())
        assert layer.length.sum() == pytest.approx(expected.length.sum())
    assert over_network.skipped.keys() <= from_file.skipped.keys()


MEMBER = {"n": "node", "w": "way", "r": "relation"}


# What may go wrong ---------------------------------------------------------------------------------------------------

HTML = server_does.says("<!DOCTYPE html><html><body><h1>Welcome to Hotel Wi-Fi</h1></body></html>", "text/html")
FATAL = {
    "stalled": (server_does.stall, r"sent nothing for 0\.\d+ s"),
    "stalled half-way": (
        server_does.stall_half_way,
        "sent nothing more after 14 bytes|sent nothing|sends too slowly: 14 bytes",
    ),
    "trickling": (server_does.trickle, "sends too slowly|sent nothing"),
    "HTML": (HTML, r"not map data \(HTTP 200 OK: Welcome to Hotel Wi-Fi\)"),
    "other JSON": (server_does.says("[1, 2]"), "not map data"),
    "no elements": (server_does.says('{"elements": 3}'), "not map data"),
    "nothing at all": (server_does.says(""), r"not map data \(HTTP 200 OK: \(an empty page\)\)"),
    "cut JSON": (server_does.says('{"elements": ['), "not map data"),
    "unknown to it": (server_does.status(404, "not found"), "refuses the query .HTTP 404"),
    "moved": (
        server_does.status(301, "moved", Location="https://elsewhere.example/api/interpreter"),
        "has moved to https://elsewhere.example/api/interpreter",
    ),
    "too deep": (server_does.says("[" * 100_000), "not map data"),
    "forbidden": (server_does.status(403, "blocked"), "refuses the query .HTTP 403 Forbidden: Error: blocked"),
    "busy for hours": (server_does.status(429, Retry_After="9999"), "is busy .HTTP 429.*a pause of 9,999 s"),
    "hanging up for ever": (server_does.hang_up, "breaks the connection|sent nothing"),
}
ENDLESS = (server_does.stall, server_does.stall_half_way, server_does.trickle, server_does.hang_up)
"""What only time ends."""


@pytest.mark.parametrize(("behaviour", "words"), FATAL.values(), ids=FATAL)
def test_a_bad_server_ends_in_plain_words_and_keeps_what_there_is(town, server, source, unbroken, behaviour, words):
    server.script += [server_does.answer, server_does.status(403)]
    with pytest.raises(SourceError, match="1 of 4 tiles are in"):
        read_features(PLACE, calm(source))
    server.script += [behaviour] * 100
    with pytest.raises(SourceError, match=words) as failure:
        read_features(PLACE, source if behaviour in ENDLESS else calm(source))
    assert server.url in str(failure.value)
    assert "1 of 4 tiles are in" in str(failure.value)
    assert str(source.cache) in str(failure.value)
    for way_out in ("repeat the same command", "source.url=", "smaller place", "source=file"):
        assert way_out in failure.value.remedy
    (kept,) = Path(source.cache).glob("*.json.gz")

    # Repeating the command asks for what is missing, and nothing else.
    with serve(town) as sound:
        assert same(read_features(PLACE, calm(replace(source, url=sound.url))), unbroken)
        assert len(sound.asked) == 3
        assert server.asked[0] not in sound.asked
    assert kept in Path(source.cache).iterdir()


def test_nobody_there(source, server):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/api"
    with pytest.raises(SourceError, match=r"refuses the connection.*\n.*0 of 4 tiles"):
        read_features(PLACE, Overpass(url, source.cache, source.tile_km))


def test_no_network(source, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "gethostbyname", fail)
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr("requests.get", lambda *_, **__: pytest.fail("nobody else is asked for the address"))
    with pytest.raises(SourceError, match="Is this machine online"):
        read_features(PLACE, Overpass("https://overpass.example/api", source.cache, source.tile_km))


PASSING = {
    "429": server_does.status(429),
    "503": server_does.status(503),
    "504": server_does.status(504),
    "page that says busy": server_does.says("<p>Dispatcher_Client::request_read_and_idx::timeout</p>", "text/html"),
    "error of its own": server_does.remark("runtime error: open64: 0 Success /osm3s_v0.7.54_osm_base"),
    "hanging up": server_does.hang_up,
    "breaking off": server_does.break_off,
}


@pytest.mark.parametrize("behaviour", PASSING.values(), ids=PASSING)
def test_a_passing_trouble_passes(server, source, behaviour):
    server.script += [behaviour, behaviour]
    found = read_features(PLACE, Overpass(server.url, source.cache, tile_km=10, pause_s=0.001))
    assert found.counts["building"] == 5
    assert len(server.asked) == 3
    assert len(list(Path(source.cache).iterdir())) == 1


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(overpass_server, "time", clock)
    return clock


def patient(source: Overpass, **more: float) -> Overpass:
    return replace(source, **{"tile_km": 10, "pause_s": 1, "timeout_s": 200, "deadline_s": 900, **more})


def test_pauses_grow_to_a_limit_and_end_at_the_deadline(server, source, clock):
    server.script += [server_does.status(504)] * 100
    with pytest.raises(SourceError, match=r"deadline: 300 s a tile"):
        read_features(PLACE, patient(source, deadline_s=300))
    assert clock.slept == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert len(server.asked) == len(clock.slept)


def test_a_busy_server_is_left_alone_for_as_long_as_it_says(server, source, clock):
    in_a_minute = format_datetime(datetime.now(tz=UTC) + timedelta(seconds=60), usegmt=True)
    server.script += [server_does.status(429, Retry_After=wish) for wish in ("7", in_a_minute, "0", "soon")]
    read_features(PLACE, patient(source))
    polite, seven, minute, at_once, unsaid = clock.slept
    assert (polite, seven, at_once, unsaid) == (1, 7, 1, 16)
    assert 50 < minute <= 60


def test_a_server_that_wants_longer_than_we_have_is_left_at_once(server, source, clock):
    server.script.append(server_does.status(429, Retry_After="4000"))
    with pytest.raises(SourceError, match="asks for a pause of 4,000 s"):
        read_features(PLACE, patient(source))
    assert clock.slept == [1]


TIMED_OUT = server_does.remark('runtime error: Query timed out in "query" at line 1 after 181 seconds.')
OUT_OF_MEMORY = server_does.remark('runtime error: Query run out of memory in "recurse" using about 512 MB of RAM.')


@pytest.mark.parametrize("too_much", [TIMED_OUT, OUT_OF_MEMORY])
def test_a_tile_that_is_too_much_is_cut_in_four(server, source, unbroken, too_much):
    finer = Overpass(source.url, source.cache, tile_km=10, pause_s=0.001)
    # The place, and then its second quarter, are too much.
    server.script += [too_much, server_does.answer, too_much]
    assert same(read_features(PLACE, finer), unbroken)
    assert len(server.asked) == 1 + 4 + 4
    messages = []
    read_features(PLACE, finer, lambda _, message: messages.append(message))
    assert len(server.asked) == 9
    assert messages[0] == "tile 1 of 1: kept from before"


def test_what_is_known_to_be_too_much_is_not_asked_again(server, source):
    place = Overpass(source.url, source.cache, tile_km=10, pause_s=0.001)
    server.script += [TIMED_OUT, server_does.answer, server_does.answer, HTML]
    with pytest.raises(SourceError, match="0 of 1 tiles"):
        read_features(PLACE, place)
    assert len(server.asked) == 4
    found = read_features(PLACE, place)
    assert len(server.asked) == 4 + 2, "the two quarters that were missing"
    assert found.counts["building"] == 5


def test_cutting_ends_at_the_smallest_tile(server, source):
    server.script += [TIMED_OUT] * 1000
    with pytest.raises(SourceError, match=r"cannot answer for 5\d\d m of city.*timed out"):
        read_features(PLACE, Overpass(source.url, source.cache, tile_km=10, pause_s=0.001))
    assert len(server.asked) == 4, "4, 2, 1 and ½ km"
    assert list(Path(source.cache).iterdir()) == []


def test_nothing_there_is_an_answer(tmp_path):
    """A tile without elements is kept like any other; a place without any warns."""
    with serve([]) as server:
        source = Overpass(server.url, tmp_path, tile_km=2.1, pause_s=0.001)
        for _ in range(2):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                found = read_features(PLACE, source)
            assert sum(issubclass(w.category, EmptyLayerWarning) for w in caught) == 2, "no streets, and no buildings"
            assert sum(found.counts.values()) == 0
            assert len(server.asked) == 4


def test_an_empty_tile_among_others(tmp_path):
    town = Town()
    town.square(500, 500, 50, building="yes")
    town.way([(500, 600), (700, 600)], highway="residential")
    with serve(town.elements) as server:
        found = read_features(PLACE, Overpass(server.url, tmp_path, tile_km=2.1, pause_s=0.001))
        assert len(server.asked) == 4
    assert (found.counts["building"], found.counts["street"]) == (1, 1)


# What is kept --------------------------------------------------------------------------------------------------------


def test_a_damaged_tile_is_asked_for_again(server, source):
    first = read_features(PLACE, calm(source))
    one, other, *_ = Path(source.cache).iterdir()
    one.write_bytes(one.read_bytes()[:-100])
    other.write_bytes(b"")
    server.asked.clear()
    assert same(read_features(PLACE, calm(source)), first)
    assert len(server.asked) == 2


def test_a_full_disk_leaves_no_half_tile(source, monkeypatch):
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        write(path, data[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SourceError, match="No space left on device") as failure:
        read_features(PLACE, calm(source))
    assert "source.cache=" in failure.value.remedy
    assert list(Path(source.cache).iterdir()) == []


def test_a_cache_that_cannot_be_a_folder(server, source, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SourceError, match="cannot be written"):
        read_features(PLACE, Overpass(server.url, tmp_path / "file", pause_s=0.001))
    assert server.asked == [], "nobody is bothered for what cannot be kept"


@pytest.mark.parametrize(
    "element",
    [
        {"type": "node", "id": 1, "lon": 200.0, "lat": 0.0},
        {"type": "way", "id": 1, "nodes": [1, None]},
        {"type": "way", "id": "one", "nodes": [1, 2]},
        {"id": 1},
        "node",
    ],
)
def test_a_reply_with_what_is_no_element(tmp_path, element):
    reply = {"osm3s": {}, "elements": [element]}
    with serve([]) as server:
        server.script.append(server_does.says(json.dumps(reply)))
        with pytest.raises(SourceError, match="no element of a map") as failure:
            read_features(PLACE, Overpass(server.url, tmp_path, tile_km=10, pause_s=0.001))
    assert str(tmp_path) in failure.value.remedy


def test_a_kept_tile_is_the_reply_itself(server, source):
    """Whoever wants it reads it as JSON, and so can another program."""
    read_features(PLACE, replace(calm(source), tile_km=10))
    (tile,) = Path(source.cache).iterdir()
    kept = json.loads(gzip.decompress(tile.read_bytes()))
    assert kept.pop("urls") == [f"{server.url}/interpreter"]
    assert kept == server.reply(server.asked[0])


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("url", "overpass-api.de"), ("tile_km", 0.1), ("timeout_s", 0), ("deadline_s", -1), ("pause_s", math.nan)],
)
def test_parameters_that_make_no_sense(parameter, value):
    with pytest.raises(SourceError, match=r"(?s)expected.*got"):
        Overpass(**{parameter: value})
