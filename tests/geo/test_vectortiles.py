"""Vector tiles: every road once, cut nowhere visibly, and nothing claimed where there is no tile."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pyogrio
import pytest
import shapely

from citygrain.errors import SourceError
from citygrain.geo.layers import CHANNEL_NAMES, SCHEMA
from citygrain.geo.place import Place
from citygrain.geo.sources import Features, features
from citygrain.geo.sources.vectortiles import VectorTiles, _mercator, _tiles

AARHUS = (10.17, 56.13, 10.23, 56.17)


def aarhus() -> Place:
    return Place.from_bbox("aarhus", AARHUS)


@pytest.fixture(scope="module")
def tiles(shared_osm: Path) -> Path:
    return shared_osm / "aarhus" / "aarhus_z14.mbtiles"


@pytest.fixture(scope="module")
def found(tiles: Path) -> Features:
    return features(aarhus(), VectorTiles(tiles))


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
    box = (*_mercator(*AARHUS[:2]), *_mercator(*AARHUS[2:]))
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
    with _tiles(tiles) as file:
        (west, *_), *_ = sorted(file.within(aarhus()), reverse=True)
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


def test_a_tile_that_does_not_unpack_is_counted_and_unknown(tiles: Path, found: Features, tmp_path: Path) -> None:
    copy = tmp_path / "hurt.mbtiles"
    shutil.copyfile(tiles, copy)
    with _tiles(tiles) as whole:
        (tile,) = whole.within(Place.from_bbox("point", (10.2029, 56.1526, 10.2030, 56.1527)))
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
    made_by_hand(tmp_path / "badjson.mbtiles", {"format": "pbf", "json": "{"}, tile)
    for name, says in {
        "missing.mbtiles": "is not there",
        "empty.mbtiles": "is empty",
        "tiles.zip": "by its name",
        "noise.mbtiles": r"damaged, or no \.mbtiles",
        "other.mbtiles": r"damaged, or no \.mbtiles",
        "badjson.mbtiles": r"damaged, or no \.mbtiles",
        "pictures.mbtiles": "not in the OpenMapTiles schema",
        "shortbread.mbtiles": "not in the OpenMapTiles schema",
        "bare.mbtiles": "holds no tiles",
    }.items():
        with pytest.raises(SourceError, match=says) as caught:
            VectorTiles(tmp_path / name).features(aarhus())
        assert name in str(caught.value)
