"""Extracts: what is in the file is in the layers, once, whatever its format and wherever it was cut."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import osmium
import pytest
import shapely

from citygrain.data.prepare import prepare
from citygrain.errors import ConfigError, DataError, SourceError
from citygrain.geo.layers import CHANNEL_NAMES, SCHEMA
from citygrain.geo.osm import reader
from citygrain.geo.osm.reader import BROKEN_RELATIONS, CUT_AREAS, LOST_WAYS, OPEN_AREAS, FeatureReader
from citygrain.geo.osm_rules import ARTERIAL, TUNNEL
from citygrain.geo.place import Place
from citygrain.geo.sources import EmptyLayerWarning, Features, read_features
from citygrain.geo.sources.combined import Combined
from citygrain.geo.sources.osmfile import OsmFile

HELSINKI = (24.9352, 60.1642, 24.9534, 60.1791)
KEPT = ("highway", "building")


def helsinki() -> Place:
    return Place.from_bbox("helsinki", HELSINKI)


@pytest.fixture(scope="module")
def sample(sample_pbf: Path) -> Features:
    return read_features(helsinki(), OsmFile(sample_pbf))


def convert(source: Path, target: Path) -> Path:
    with osmium.SimpleWriter(str(target), header=osmium.FileProcessor(source).header) as writer:
        for thing in osmium.FileProcessor(source):
            writer.add(thing)
    return target


def xml(path: Path, body: str, bounds: bool = True) -> Path:
    """Write an extract of 0.02 degrees around (10, 50): nodes 1–9 lie on a 3 × 3 grid, ten per cent from the edges."""
    box = '<bounds minlat="49.99" minlon="9.99" maxlat="50.01" maxlon="10.01"/>' if bounds else ""
    lines = [
        f'<node id="{3 * row + column + 1}" version="1" lat="{49.992 + 0.008 * row}" lon="{9.992 + 0.008 * column}"/>'
        for row in range(3)
        for column in range(3)
    ]
    path.write_text(f'<osm version="0.6" generator="hand">{box}{"".join(lines)}{body}</osm>')
    return path


def way(number: int, nodes: list[int], **tags: str) -> str:
    refs = "".join(f'<nd ref="{n}"/>' for n in nodes)
    return f'<way id="{number}" version="1" timestamp="2020-05-0{number % 9 + 1}T00:00:00Z">{refs}{tagged(tags)}</way>'


def tagged(tags: dict[str, str]) -> str:
    return "".join(f'<tag k="{k}" v="{v}"/>' for k, v in tags.items())


def relation(number: int, ways: list[int], **tags: str) -> str:
    members = "".join(f'<member type="way" ref="{w}" role="outer"/>' for w in ways)
    return f'<relation id="{number}" version="1">{members}{tagged({"type": "multipolygon", **tags})}</relation>'


STREET = way(100, [1, 2, 3], highway="residential")
HOUSE = way(101, [5, 6, 9, 8, 5], building="yes")


def read(path: Path, bbox: tuple[float, float, float, float] = (9.99, 49.99, 10.01, 50.01)) -> Features:
    return OsmFile(path).features(Place.from_bbox("hand", bbox))


# The sample


def test_the_sample_fills_every_layer(sample: Features) -> None:
    assert set(sample) == set(CHANNEL_NAMES)
    assert all(sample.counts[name] > 0 for name in CHANNEL_NAMES)
    assert all(set(SCHEMA) <= set(layer) and layer.crs == sample.crs == "EPSG:32635" for layer in sample.values())
    assert not sample.unknown
    assert not sample.partial
    assert sample.provenance["osm_date"].startswith("2019-04-21")
    assert len(sample.provenance["sha256"]) == 64
    assert "OpenStreetMap contributors" in sample.provenance["attribution"]
    json.dumps(sample.provenance)
    assert sample.skipped == {LOST_WAYS: 83, CUT_AREAS: 99}


def test_the_sample_has_its_sea(sample: Features) -> None:
    sea = sample["water"][sample["water"].kind == "sea"].union_all()
    place = helsinki()
    bay, station = place.project(shapely.points([(24.9440, 60.1775), (24.9414, 60.1719)]))
    assert sea.contains(bay)
    assert not sea.contains(station)


@pytest.mark.parametrize("name", ["helsinki", pytest.param("porto", marks=pytest.mark.slow)])
def test_arterial_ways_are_those_that_an_independent_count_finds(name: str, request: pytest.FixtureRequest) -> None:
    if name == "helsinki":
        path = request.getfixturevalue("sample_pbf")
    else:
        path = request.getfixturevalue("shared_osm") / "porto" / "porto_vh.osm.pbf"
    ids = set()
    for thing in osmium.FileProcessor(path).with_locations().with_filter(osmium.filter.KeyFilter("highway")):
        if not thing.is_way() or thing.tags.get("highway") not in ARTERIAL or thing.tags.get("area") == "yes":
            continue
        valid = [node.location.valid() for node in thing.nodes]
        hidden = any(thing.tags.get(key) in values for key, values in TUNNEL.items()) or "indoor" in thing.tags
        if not hidden and any(a and b for a, b in pairwise(valid)):
            ids.add(f"way/{thing.id}")
    place = Place.from_bbox("wide", (-9.0, 40.8, -8.2, 41.4) if name == "porto" else (24.5, 60.0, 25.3, 60.4))
    arterial = OsmFile(path).features(place)["arterial"]
    assert set(arterial.osmid) == ids
    assert len(ids) > 100


@pytest.mark.parametrize(
    "suffix",
    [
        ".osm",
        pytest.param(".osm.gz", marks=pytest.mark.slow),
        pytest.param(".osm.bz2", marks=pytest.mark.slow),
        ".osm.pbf",
    ],
)
def test_the_format_does_not_matter(sample: Features, sample_pbf: Path, tmp_path: Path, suffix: str) -> None:
    other = OsmFile(convert(sample_pbf, tmp_path / f"same{suffix}")).features(helsinki())
    assert other.counts == sample.counts
    assert other.skipped == sample.skipped
    for name in CHANNEL_NAMES:
        assert shapely.equals_exact(other[name].geometry, sample[name].geometry, tolerance=1e-3).all()


def test_node_locations_on_disk_give_the_same(
    sample: Features, sample_pbf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "LARGE_BYTES", 0)
    again = OsmFile(sample_pbf).features(helsinki())
    assert again.counts == sample.counts
    assert again.skipped == sample.skipped


def test_two_halves_hold_what_the_whole_holds(sample: Features, sample_pbf: Path) -> None:
    west, south, east, north = HELSINKI
    middle = (west + east) / 2
    halves = [
        OsmFile(sample_pbf).features(Place.from_bbox("half", box))
        for box in ((west, south, middle, north), (middle, south, east, north))
    ]
    for name in set(CHANNEL_NAMES) - {"water"}:
        whole = set(sample[name].osmid)
        parts = [set(half[name].osmid) for half in halves]
        assert parts[0] | parts[1] == whole, name
        assert all(part < whole for part in parts), name
    sea = [half["water"][half["water"].kind == "sea"].union_all() for half in halves]
    whole_sea = sample["water"][sample["water"].kind == "sea"].union_all()
    assert shapely.union_all(sea).symmetric_difference(whole_sea).area < 1e-3 * whole_sea.area


def test_what_lies_elsewhere_is_not_kept(sample_pbf: Path) -> None:
    corner = Place.from_bbox("corner", (24.9352, 60.1642, 24.9380, 60.1660))
    reader = FeatureReader(sample_pbf, corner)
    reader.read(lambda _fraction, _message: None)
    frame = reader.frame()
    assert 0 < len(frame) < 700
    assert frame.intersects(shapely.box(*corner.bounds_utm).buffer(1)).sum() >= 0.8 * len(frame)


def test_progress_goes_up_to_one(sample_pbf: Path) -> None:
    seen: list[float] = []
    read_features(helsinki(), OsmFile(sample_pbf), lambda fraction, _message: seen.append(fraction))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::citygrain.geo.coastline.CoastlineWarning")  # the extract cuts Monaco's coast
@pytest.mark.parametrize(
    ("file", "place", "at_least"),
    [
        ("registry/quackosm_monaco.osm.pbf", (7.4105, 43.7253, 7.4388, 43.7511), {"building": 1100, "water": 5}),
        ("liechtenstein/liechtenstein_vh.osm.pbf", (9.50, 47.12, 9.54, 47.16), {"building": 1000, "cycle": 20}),
        ("lauf/lauf_gh.osm.pbf", (11.2497, 49.4998, 11.3056, 49.5295), {"building": 6000, "parking": 250}),
    ],
)
def test_other_cities(
    shared_osm: Path, file: str, place: tuple[float, float, float, float], at_least: dict[str, int]
) -> None:
    found = read_features(Place.from_bbox("city", place), OsmFile(shared_osm / file))
    for name, count in at_least.items():
        assert found.counts[name] >= count


# Extracts made by hand


def test_a_relation_that_is_broken_is_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    whole = way(102, [1, 2, 5], source="a") + way(103, [5, 4, 1], source="b")
    body = (
        STREET + HOUSE + whole
        + relation(1, [102, 103], landuse="forest")
        + relation(2, [102, 999], natural="water")  # a member outside the extract
        + relation(3, [102], leisure="park")  # a ring that does not close
        + relation(4, [102, 999], boundary="administrative")  # nothing that is drawn
    )  # fmt: skip
    found = read(xml(tmp_path / "broken.osm", body))
    assert found.skipped == {BROKEN_RELATIONS: 1, CUT_AREAS: 1}
    assert found.counts["green"] == found.counts["building"] == found.counts["street"] == 1
    assert found["green"].osmid.tolist() == ["relation/1"]
    assert found.provenance["osm_date"].startswith("2020-05-0")


def test_a_line_that_misses_nodes_is_drawn_as_far_as_it_goes(tmp_path: Path) -> None:
    body = (
        way(100, [1, 2, 77, 3, 6], highway="residential")
        + way(101, [1, 77, 2], highway="residential")
        + way(102, [5, 6, 9, 77, 5], building="yes")
        + way(103, [1, 6, 4, 3, 1], building="yes")  # crosses itself
    )
    found = read(xml(tmp_path / "cut.osm", body))
    assert found["street"].osmid.tolist() == ["way/100", "way/100"]
    assert found.skipped == {LOST_WAYS: 1, CUT_AREAS: 1, OPEN_AREAS: 1}


def test_a_closed_way_is_line_or_area_as_its_tags_say(tmp_path: Path) -> None:
    ring = [1, 2, 5, 4, 1]
    body = (
        way(100, ring, highway="residential")
        + way(101, ring, highway="pedestrian", area="yes")
        + way(102, ring, highway="footway", leisure="park")
    )
    found = read(xml(tmp_path / "closed.osm", body))
    dimension = {
        name: found[name].geometry.map(shapely.get_dimensions).tolist()
        for name in ("street", "walk", "square", "green")
    }
    assert dimension == {"street": [1], "walk": [1], "square": [2], "green": [2]}


@pytest.mark.parametrize(("nodes", "wet", "dry"), [([4, 5, 6], 50 - 0.005, 50.005), ([6, 5, 4], 50.005, 50 - 0.005)])
def test_the_sea_lies_right_of_the_coastline_up_to_the_edge_of_the_extract(
    tmp_path: Path, nodes: list[int], wet: float, dry: float
) -> None:
    found = read(xml(tmp_path / "coast.osm", STREET + way(105, nodes, natural="coastline")))
    place = Place.from_bbox("hand", (9.99, 49.99, 10.01, 50.01))
    sea = found["water"].union_all()
    assert sea.contains(place.project(shapely.Point(10.0, wet)))
    assert not sea.contains(place.project(shapely.Point(10.0, dry)))
    assert sea.area == pytest.approx(place.utm.area / 2, rel=0.02)


def test_outside_the_extract_nothing_is_known(tmp_path: Path) -> None:
    found = read(xml(tmp_path / "half.osm", STREET + HOUSE), bbox=(9.97, 49.99, 10.01, 50.01))
    place = Place.from_bbox("hand", (9.97, 49.99, 10.01, 50.01))
    assert found.valid.area == pytest.approx(place.utm.area / 2, rel=1e-3)


def test_a_place_without_buildings_or_streets_warns(tmp_path: Path) -> None:
    place = Place.from_bbox("hand", (9.99, 49.99, 10.01, 50.01))
    with pytest.warns(EmptyLayerWarning, match="no buildings"):
        read_features(place, OsmFile(xml(tmp_path / "streets.osm", STREET)))
    with pytest.warns(EmptyLayerWarning, match="no streets"):
        read_features(place, OsmFile(xml(tmp_path / "houses.osm", HOUSE)))


def test_a_file_that_makes_nothing_is_named_in_words(tmp_path: Path) -> None:
    place = Place.from_bbox("hand", (9.99, 49.99, 10.01, 50.01))
    streets, bare = xml(tmp_path / "streets.osm", STREET), xml(tmp_path / "bare.osm", way(101, [1, 2], source="x"))
    part = Combined(OsmFile(bare), {"roads": OsmFile(streets)}, {"street": "roads"})
    for source, origin in ((OsmFile(streets), "streets.osm"), (part, "base: bare.osm; roads: streets.osm")):
        with pytest.warns(EmptyLayerWarning, match=f"no buildings at all in this source. If .*, source {origin}. If"):
            read_features(place, source)
    with pytest.warns(EmptyLayerWarning, match=r"source\. bare\.osm holds no tag that makes a channel there\. If"):
        read_features(place, OsmFile(bare))


def test_a_place_too_empty_to_be_split_names_its_file(tmp_path: Path) -> None:
    place = Place.from_bbox("hand", (9.99, 49.99, 10.01, 50.01))
    for body, words in (
        (way(101, [1, 2], source="x"), r"0 such blocks in map\.osm, which holds no tag that makes a channel there\n"),
        (way(101, [1, 6, 4, 1], natural="water"), r"0 such blocks in map\.osm\n"),
    ):
        source = OsmFile(xml(tmp_path / "map.osm", body))
        with pytest.warns(EmptyLayerWarning), pytest.raises(DataError, match=f"too empty(.|\n)*{words}"):
            prepare(place, source, tmp_path / "cities", workers=1)


def test_extent_is_the_headers_or_else_that_of_the_nodes(tmp_path: Path, sample_pbf: Path) -> None:
    assert OsmFile(sample_pbf).extent() == pytest.approx(HELSINKI, abs=1e-4)
    bare = xml(tmp_path / "bare.osm", STREET, bounds=False)
    assert OsmFile(bare).extent() == pytest.approx((9.992, 49.992, 10.008, 50.008), abs=2e-3)
    empty = tmp_path / "empty.osm"
    empty.write_text('<osm version="0.6"></osm>')
    with pytest.raises(SourceError, match="holds no nodes"):
        OsmFile(empty).extent()


# Files that are none


def bad_files(folder: Path, sample_pbf: Path) -> Iterator[tuple[str, Path, str]]:
    whole = sample_pbf.read_bytes()
    contents: dict[str, tuple[bytes | None, str]] = {
        "missing.osm.pbf": (None, "is not there"),
        "empty.osm.pbf": (b"", "is empty"),
        "cut.osm.pbf": (whole[: len(whole) // 2], "damaged, cut short"),
        "noise.osm.pbf": (b"noise" * 1000, "damaged, cut short"),
        "flipped.osm.pbf": (whole[:200_000] + bytes(1000) + whole[201_000:], "damaged, cut short"),
        "cut.osm.gz": (gzip.compress(b'<osm version="0.6"><node id="1"/>' * 99)[:60], "damaged, cut short"),
        "cut.osm": (b'<osm version="0.6"><node id="1"', "damaged, cut short"),
        "page.osm": (b"<html><body>404</body></html>", "no OpenStreetMap extract, whatever its name"),
        "map.geojson": (b"{}", "not an OpenStreetMap extract by its name"),
    }
    for name, (content, says) in contents.items():
        if content is not None:
            (folder / name).write_bytes(content)
        yield name, folder / name, says


def test_a_file_that_is_none_says_so(tmp_path: Path, sample_pbf: Path) -> None:
    for name, path, says in bad_files(tmp_path, sample_pbf):
        with pytest.raises(SourceError, match=says) as caught:
            read_features(helsinki(), OsmFile(path))
        assert name in str(caught.value)


def test_a_place_outside_says_where_the_file_is(sample_pbf: Path) -> None:
    with pytest.raises(SourceError, match="outside") as caught:
        read_features(Place.from_bbox("houston", (-95.45, 29.69, -95.39, 29.75)), OsmFile(sample_pbf))
    assert "24.9352, 60.1642" in str(caught.value)
    with pytest.raises(SourceError, match="look swapped"):
        read_features(Place.from_bbox("helsinki", (60.1642, 24.9352, 60.1791, 24.9534)), OsmFile(sample_pbf))


def test_what_is_no_source_is_refused() -> None:
    nothing: Any = "helsinki.osm.pbf"
    with pytest.raises(SourceError, match="no source"):
        read_features(helsinki(), nothing)


def test_what_an_extract_lacks_is_unknown_and_not_warned_of(tmp_path: Path) -> None:
    place = Place.from_bbox("hand", (9.99, 49.99, 10.01, 50.01))
    source = OsmFile(xml(tmp_path / "both.osm", STREET + HOUSE))
    found = read_features(place, source, unknown=["building", "building"])
    assert found.counts["building"] == 0
    assert found.counts["street"] == 1
    assert "declared" in found.unknown["building"]
    assert read_features(place, source, unknown="building").unknown == found.unknown
    assert read_features(place, source, unknown=None).counts["building"] == 1
    with pytest.raises(ConfigError, match="choices:"):
        read_features(place, source, unknown=["buildings"])
    with pytest.raises(ConfigError, match="Nothing would be known"):
        read_features(place, source, unknown=CHANNEL_NAMES)
