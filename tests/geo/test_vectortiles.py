"""Vector tiles: every road once, cut nowhere visibly, and nothing claimed where there is no tile."""

from __future__ import annotations

import gzip
import json
import math
import shutil
import sqlite3
from pathlib import Path

import pyogrio
import pytest
import shapely

from citygrain.errors import SourceError
from citygrain.geo.layers import CHANNEL_NAMES, SCHEMA
from citygrain.geo.place import Place
from citygrain.geo.sources import Features, read_features
from citygrain.geo.sources.vectortiles import VectorTiles
from citygrain.geo.tile_file import open_tiles, project_to_mercator

AARHUS = (10.17, 56.13, 10.23, 56.17)


def aarhus() -> Place:
    return Place.from_bbox("aarhus", AARHUS)


@pytest.fixture(scope="module")
def tiles(shared_osm: Path) -> Path:
    return shared_osm / "aarhus" / "aarhus_z14.mbtiles"


@pytest.fixture(scope="module")
def found(tiles: Path) -> Features:
    return read_features(aarhus(), VectorTiles(tiles))


def made_by_hand(path: Path, metadata: dict[str, str], tiles: list[tuple[int, int, int, bytes]]) -> Path:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE metadata (name text, value text)")
        connection.execute("CREATE TABLE tiles (zoom_level int, tile_column int, tile_row int, tile_data blob)")
        connection.executemany("INSERT INTO metadata VALUES (?, ?)", metadata.items())
        connection.executemany("INSERT INTO tiles VALUES (?, ?, ?, ?)", tiles)
    connection.close()
    return path


def layers_json(*names: str) -> str:
    return json.dumps({"vector_layers": [{"id": name, "fields": {}} for name in names]})


def test_every_layer_but_parking_is_known(found: Features) -> None:
    assert set(found) == set(CHANNEL_NAMES)
    assert set(found.unknown) == {"parking"}
    assert set(found.partial) == {"cycle", "walk", "square"}
    assert all((found.counts[name] > 0) != (name == "parking") for name in CHANNEL_NAMES)
    assert all(set(SCHEMA) <= set(layer) and layer.crs == found.crs == "EPSG:32632" for layer in found.values())
    assert not found.skipped
    json.dumps(found.provenance)
    assert found["arterial"].width_m.eq(14.0).all()
    assert found["building"].width_m.isna().all()


@pytest.mark.slow
def test_no_road_is_lost_and_none_is_doubled(tiles: Path, found: Features) -> None:
    """Against the other layer of the same file, cut at tile edges by GDAL, class by class."""
    place = aarhus()
    box = (*project_to_mercator(*AARHUS[:2]), *project_to_mercator(*AARHUS[2:]))
    names = pyogrio.read_dataframe(tiles, layer="transportation_name", columns=["class", "subclass"], bbox=box)
    names = names.set_geometry(place.project(names.geometry.to_numpy(), "EPSG:3857"), crs=place.crs)
    inside = place.utm.buffer(-1000)
    names = names[names.intersects(inside)]
    of_channel = {
        "arterial": names["class"].isin(["motorway", "trunk", "primary", "secondary"]),
        "cycle": names["subclass"] == "cycleway",
        "walk": names["class"].isin(["path", "pedestrian"]),
    }
    for channel, mine in of_channel.items():
        expected = names[mine].union_all().intersection(inside)
        mine_too = found[channel].geometry
        got = shapely.union_all(mine_too[mine_too.intersects(inside)]).intersection(inside)
        # Tunnels are in the other layer and not in ours; the pieces that overlap across a tile's edge count once.
        assert got.difference(expected.buffer(0.5)).length < 0.002 * expected.length, channel
        assert expected.difference(got.buffer(0.5)).length < 0.06 * expected.length, channel


@pytest.mark.slow
def test_two_halves_hold_what_the_whole_holds(tiles: Path) -> None:
    west, south, east, north = 10.19, 56.14, 10.22, 56.155
    middle = (west + east) / 2
    whole, *halves = (
        VectorTiles(tiles).features(Place.from_bbox("part", box))
        for box in ((west, south, east, north), (west, south, middle, north), (middle, south, east, north))
    )
    within = Place.from_bbox("part", (west, south, east, north)).utm
    for name in ("building", "street", "green", "water"):
        both = shapely.union_all([shapely.union_all(half[name].geometry.make_valid()) for half in halves]).buffer(0.01)
        shapely.prepare(both)
        assert whole.counts[name] > 10
        assert shapely.covers(both, whole[name].geometry.make_valid().intersection(within)).all(), name


@pytest.mark.slow
def test_the_number_of_threads_does_not_matter(tiles: Path, found: Features) -> None:
    alone = VectorTiles(tiles, threads=1).features(aarhus())
    assert alone.counts == found.counts
    for name in CHANNEL_NAMES:
        assert shapely.equals_exact(alone[name].geometry, found[name].geometry, tolerance=0).all()


def test_projection_is_that_of_the_place(tiles: Path, found: Features) -> None:
    town_hall = aarhus().project(shapely.Point(10.20295, 56.15265))
    assert found["building"].distance(town_hall).min() < 15
    assert found.valid.symmetric_difference(aarhus().utm).area < 1.0


def test_pieces_reach_over_their_tiles_edge(tiles: Path, found: Features) -> None:
    with open_tiles(tiles) as file:
        (west, *_), *_ = sorted(file.find_within(aarhus()), reverse=True)
        lon = 360.0 * west / 2**file.zoom - 180.0
    edge = aarhus().project(shapely.segmentize(shapely.LineString([(lon, AARHUS[1]), (lon, AARHUS[3])]), 1e-3))
    split = found["building"][found["building"].intersects(edge)].make_valid()
    left, right = (edge.buffer(side * 5.0, single_sided=True, cap_style="flat") for side in (1, -1))
    both_sides = (split.intersection(left).area > 1.0) & (split.intersection(right).area > 1.0)
    assert both_sides.sum() > 10


def test_absent_tiles_are_unknown_not_empty(shared_osm: Path) -> None:
    place = Place.from_bbox("copenhagen", (12.70, 55.66, 12.80, 55.70))
    source = VectorTiles(shared_osm / "copenhagen" / "copenhagen_z14.mbtiles")
    share = source.features(place).valid.area / place.utm.area
    west, south, east, north = source.extent()
    assert (west, south, east, north) == pytest.approx((12.2607, 55.5286, 12.7881, 55.826), abs=1e-4)
    assert 0.1 < share < 1 - (12.80 - east) / 0.1 + 1e-6


# Metadata that differ from the tiles

SOME = (8654, 11295)
TOWN: dict[str, dict[str, list[tuple[str, list[int]]]]] = {
    "building": {"": [("house", [100, 100, 600, 500]), ("house", [1500, 900, 2600, 1800])]},
    "transportation": {"minor": [("way", [0, 2000, 4096, 2100])], "primary": [("way", [0, 3000, 4096, 3050])]},
    "landcover": {"grass": [("house", [2700, 2200, 3900, 2900])]},
}


def varint(value: int) -> bytes:
    return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])


def part(number: int, content: bytes | str | int) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    content = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(content)) + content


def drawing(shape: str, box: list[int]) -> bytes:
    """A line between two corners, or a rectangle, in a tile's 4096 units."""
    left, top, right, bottom = box
    dx, dy = right - left, bottom - top
    moves = [9, left, top, *([10, dx, dy] if shape == "way" else [26, dx, 0, 0, dy, -dx, 0])]
    signed = {9, 10, 26}
    numbers, commands = [], {0, 3}
    for i, value in enumerate(moves):
        is_command = i in commands and value in signed
        numbers.append(value if is_command else (value << 1) ^ (value >> 63))
    return b"".join(map(varint, [*numbers, *([] if shape == "way" else [15])]))


def encoded(town: dict[str, dict[str, list[tuple[str, list[int]]]]], scale: float = 1.0) -> bytes:
    """A vector tile, packed."""
    layers = b""
    for name, classes in town.items():
        layer, values = part(1, name), b""
        for i, (kind, shapes) in enumerate(classes.items()):
            for shape, box in shapes:
                tags = part(2, varint(0) + varint(i)) if kind else b""
                drawn = part(4, drawing(shape, [int(v * scale) for v in box]))
                layer += part(2, tags + part(3, 2 if shape == "way" else 3) + drawn)
            values += part(4, part(1, kind)) if kind else b""
        layers += part(3, layer + (part(3, "class") if values else b"") + values + part(5, 4096) + part(15, 2))
    return gzip.compress(layers)


def town_layers(**changes: dict[str, str] | None) -> str:
    listed = {"building": {}, "transportation": {"class": "String"}, "landcover": {"class": "String"}, **changes}
    return json.dumps({"vector_layers": [{"id": n, "fields": f} for n, f in listed.items() if f is not None]})


def town_file(path: Path, zooms: dict[int, float], **changes: str | None) -> Path:
    """Tiles around one place at some zooms; below the last, everything is drawn larger, as a wrong zoom shows."""
    metadata = {"name": "town", "format": "pbf", "minzoom": "14", "maxzoom": "14", "json": town_layers(), **changes}
    tiles = []
    for zoom, scale in zooms.items():
        column, row = (v >> 14 - zoom if zoom <= 14 else v << zoom - 14 for v in SOME)
        tiles += [(zoom, column + i, row + j, encoded(TOWN, scale)) for i in range(-1, 2) for j in range(-1, 2)]
    return made_by_hand(path, {k: v for k, v in metadata.items() if v is not None}, tiles)


def in_the_middle(zoom: int = 14) -> Place:
    """Just within the middle tile."""
    n = 2**zoom
    column, row = (v << zoom - 14 if zoom > 14 else v >> 14 - zoom for v in SOME)
    lon = [360.0 * (column + t) / n - 180.0 for t in (0.001, 0.999)]
    lat = [math.degrees(math.atan(math.sinh(math.pi * (2.0 * (row + t) / n - 1.0)))) for t in (0.001, 0.999)]
    return Place.from_bbox("town", (lon[0], lat[0], lon[1], lat[1]))


def measured(found: Features) -> dict[str, float]:
    inside = found.valid.buffer(-20)
    return {
        name: round(part.length + part.area, 1)
        for name, layer in found.items()
        if len(layer) and (part := layer.geometry.make_valid().union_all().intersection(inside)).length
    }


SAYS: dict[str, dict[str, str | None]] = {
    "nothing of zooms": {"minzoom": None, "maxzoom": None},
    "less": {"minzoom": "0", "maxzoom": "13"},
    "much less": {"minzoom": "12", "maxzoom": "12"},
    "more": {"maxzoom": "15"},
    "all more": {"minzoom": "15", "maxzoom": "16"},
    "words": {"minzoom": "all", "maxzoom": "fourteen"},
    "no layers": {"json": None},
    "empty layers": {"json": '{"vector_layers": []}'},
    "null layers": {"json": '{"vector_layers": null}'},
    "no buildings": {"json": town_layers(building=None)},
    "no green": {"json": town_layers(landcover=None)},
    "no fields": {"json": town_layers(transportation={}, landcover={})},
    "layers of elsewhere": {"json": town_layers(poi={"name": "String"}, water={"class": "String"})},
    "no format": {"format": None},
    "another name of the format": {"format": "application/x-protobuf"},
    "bounds elsewhere": {"bounds": "0,0,1,1"},
    "broken layers": {"json": "{"},
    "layers cut short": {"json": town_layers()[:-9]},
    "layers that are none": {"json": '{"vector_layers": [1, {"fields": {}}]}'},
    "a list in place of layers": {"json": "[1]"},
    "nothing": {"format": None, "minzoom": None, "maxzoom": None, "json": None, "name": None},
}


@pytest.fixture(scope="module")
def true_town(tmp_path_factory: pytest.TempPathFactory) -> tuple[VectorTiles, Features, dict[str, float]]:
    """A file that says what it holds, what is read of it, and what is measured on that."""
    source = VectorTiles(town_file(tmp_path_factory.mktemp("town") / "true.mbtiles", {14: 1.0}))
    found = source.features(in_the_middle())
    return source, found, measured(found)


@pytest.mark.parametrize(
    "zooms",
    [
        pytest.param({14: 1.0}, marks=pytest.mark.slow),
        pytest.param({13: 1.5, 14: 1.0}, marks=pytest.mark.slow),
        {0: 0.3, 12: 0.4, 13: 1.5, 14: 1.0},
    ],
)
@pytest.mark.parametrize("says", SAYS)
def test_what_the_metadata_say_does_not_matter(
    tmp_path: Path, true_town: tuple[VectorTiles, Features, dict[str, float]], says: str, zooms: dict[int, float]
) -> None:
    truth, true, expected = true_town
    source = VectorTiles(town_file(tmp_path / "says.mbtiles", zooms, **SAYS[says]))
    found = source.features(in_the_middle())
    assert set(expected) == {"building", "street", "arterial", "green"}
    assert measured(found) == expected
    assert found.counts == true.counts
    assert found.provenance["zoom"] == 14
    assert found.provenance["tiles"] == 1
    assert source.extent() == pytest.approx(truth.extent())
    assert found.partial == true.partial


@pytest.mark.parametrize("said", ["DROP TABLE metadata", "UPDATE metadata SET value = NULL", "DELETE FROM metadata"])
def test_tiles_that_nothing_is_said_of_tell_their_layers(tmp_path: Path, said: str) -> None:
    true = VectorTiles(town_file(tmp_path / "true.mbtiles", {14: 1.0})).features(in_the_middle())
    path = town_file(tmp_path / "bare.mbtiles", {13: 1.5, 14: 1.0})
    with sqlite3.connect(path) as connection:
        connection.execute(said)
    connection.close()
    found = VectorTiles(path).features(in_the_middle())
    assert measured(found) == measured(true)
    assert found.provenance["zoom"] == 14
    made_by_hand(tmp_path / "pictures.mbtiles", {}, [(14, *SOME, b"\x89PNG\r\n\x1a\n")])
    with sqlite3.connect(tmp_path / "pictures.mbtiles") as connection:
        connection.execute(said)
    connection.close()
    with pytest.raises(SourceError, match=r"(?s)not in the OpenMapTiles schema.*\(none\)"):
        VectorTiles(tmp_path / "pictures.mbtiles").features(in_the_middle())


@pytest.mark.parametrize("zoom", [12, 13, 15])
def test_it_is_the_largest_zoom_of_the_tiles_that_is_read_and_told(tmp_path: Path, zoom: int) -> None:
    alone = VectorTiles(town_file(tmp_path / "alone.mbtiles", {zoom: 1.0}, minzoom=str(zoom), maxzoom=str(zoom)))
    mixed = VectorTiles(town_file(tmp_path / "mixed.mbtiles", {11: 0.5, zoom: 1.0}))
    found = [source.features(in_the_middle(zoom)) for source in (alone, mixed)]
    assert measured(found[0]) == measured(found[1])
    assert [each.provenance["zoom"] for each in found] == [zoom, zoom]
    assert all(("building" in each.partial) == (zoom < 14) for each in found)


@pytest.mark.slow
def test_a_real_file_with_the_wrong_zoom(tiles: Path, found: Features, tmp_path: Path) -> None:
    copy = tmp_path / "renamed.mbtiles"
    shutil.copyfile(tiles, copy)
    with sqlite3.connect(copy) as connection:
        connection.execute("UPDATE metadata SET value = '12' WHERE name IN ('minzoom', 'maxzoom')")
    connection.close()
    assert VectorTiles(copy).features(aarhus()).counts == found.counts
    with sqlite3.connect(copy) as connection:
        connection.execute("DELETE FROM metadata WHERE name != 'format'")
    connection.close()
    assert VectorTiles(copy).features(aarhus()).counts == found.counts


def test_a_tile_that_does_not_unpack_is_counted_and_unknown(tiles: Path, found: Features, tmp_path: Path) -> None:
    copy = tmp_path / "hurt.mbtiles"
    shutil.copyfile(tiles, copy)
    with open_tiles(tiles) as whole:
        (tile,) = whole.find_within(Place.from_bbox("point", (10.2029, 56.1526, 10.2030, 56.1527)))
    where = "WHERE tile_column = ? AND tile_row = ?"
    with sqlite3.connect(copy) as connection:
        (data,) = connection.execute(f"SELECT tile_data FROM tiles {where}", tile).fetchone()
        broken = data[: len(data) // 2] + bytes(len(data) - len(data) // 2)
        connection.execute(f"UPDATE tiles SET tile_data = ? {where}", (broken, *tile))
    connection.close()
    hurt = VectorTiles(copy).features(aarhus())
    assert hurt.skipped == {"unreadable tiles": 1}
    assert found.valid.area - hurt.valid.area == pytest.approx(1.36e3**2, rel=0.05)
    assert hurt.counts["building"] < found.counts["building"]


def test_a_place_of_which_no_tile_unpacks_is_no_empty_place(tmp_path: Path) -> None:
    path = town_file(tmp_path / "torn.mbtiles", {14: 1.0}, json=None)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE tiles SET tile_data = substr(tile_data, 1, 20)")
    connection.close()
    with pytest.raises(SourceError, match="damaged"):
        VectorTiles(path).features(in_the_middle())


def test_a_place_outside_says_where_the_file_is(tiles: Path) -> None:
    with pytest.raises(SourceError, match=r"lies outside aarhus_z14\.mbtiles"):
        VectorTiles(tiles).features(Place.from_bbox("houston", (-95.45, 29.69, -95.39, 29.75)))
    with pytest.raises(SourceError, match="look swapped"):
        VectorTiles(tiles).features(Place.from_bbox("aarhus", (56.13, 10.17, 56.17, 10.23)))


def test_a_file_that_is_cut_short_says_so(tiles: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mbtiles"
    cut.write_bytes(tiles.read_bytes()[:1_000_000])
    with pytest.raises(SourceError, match=r"damaged, or no \.mbtiles"):
        VectorTiles(cut).features(aarhus())


def test_files_that_are_none(tmp_path: Path) -> None:
    tile = [(14, 8656, 11300, b"")]
    (tmp_path / "noise.mbtiles").write_bytes(b"noise" * 1000)
    (tmp_path / "empty.mbtiles").write_bytes(b"")
    (tmp_path / "tiles.zip").write_bytes(b"PK")
    with sqlite3.connect(tmp_path / "other.mbtiles") as connection:
        connection.execute("CREATE TABLE cities (name text)")
    connection.close()
    openmaptiles = layers_json("transportation", "building")
    made_by_hand(tmp_path / "pictures.mbtiles", {"format": "png"}, tile)
    made_by_hand(tmp_path / "shortbread.mbtiles", {"format": "pbf", "json": layers_json("streets", "buildings")}, tile)
    made_by_hand(tmp_path / "bare.mbtiles", {"format": "pbf", "json": openmaptiles}, [])
    for name, says in {
        "missing.mbtiles": "is not there",
        "empty.mbtiles": "is empty",
        "tiles.zip": "by its name",
        "noise.mbtiles": r"damaged, or no \.mbtiles",
        "other.mbtiles": r"damaged, or no \.mbtiles",
        "pictures.mbtiles": "not in the OpenMapTiles schema",
        "shortbread.mbtiles": "not in the OpenMapTiles schema",
        "bare.mbtiles": "holds no tiles",
    }.items():
        with pytest.raises(SourceError, match=says) as caught:
            VectorTiles(tmp_path / name).features(aarhus())
        assert name in str(caught.value)
