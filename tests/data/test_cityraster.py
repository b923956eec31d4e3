"""The folder on disk: what GDAL reads back, levels, and every way in which it can be broken."""

from __future__ import annotations

import json
import math
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from citygrain.data import cityraster
from citygrain.data.cityraster import CityRaster
from citygrain.data.layout_folder import open_layout
from citygrain.data.prepare import prepare
from citygrain.errors import DataError
from citygrain.geo import geotiff
from citygrain.geo.geotiff import GeoTiffWriter
from citygrain.geo.layers import CHANNEL_NAMES
from citygrain.geo.place import Place
from citygrain.geo.rasterize import Grid
from citygrain.geo.sources import Features

PLACE = Place.from_bbox("somewhere", (12.50, 55.60, 12.52, 55.612))


class Town:
    """A source without files: houses along streets over a whole place; the source sees no parking."""

    url = "memory:"

    def features(self, place, progress=None):
        left, bottom, right, top = place.bounds_utm
        x, y = np.meshgrid(np.arange(left, right, 40.0), np.arange(bottom, top, 60.0))
        x, y = x.ravel(), y.ravel()
        rng = np.random.default_rng(0)
        houses = shapely.box(x + 8, y + 10, x + 8 + rng.uniform(5, 20, len(x)), y + 10 + rng.uniform(5, 30, len(x)))
        streets = [shapely.LineString([(left, v), (right, v)]) for v in np.arange(bottom, top, 60.0)]
        layers = {"building": self._layer(houses, math.nan, place), "street": self._layer(streets, 8.0, place)}
        return Features(
            layers, place=place, provenance={"kind": "town"}, unknown={"parking": "not seen"}, skipped={"wrecks": 2}
        )

    @staticmethod
    def _layer(geometries, width, place):
        columns = {"kind": ["x"] * len(geometries), "width_m": [width] * len(geometries)}
        return gpd.GeoDataFrame(columns, geometry=list(geometries), crs=place.crs)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return prepare(PLACE, Town(), tmp_path_factory.mktemp("cities")).path


@pytest.fixture
def folder(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / made.name))


def pattern(height, width, seed=0):
    """Coverage as cities have it, runs and edges, with a hole in what is valid."""
    rng = np.random.default_rng(seed)
    array = np.repeat(np.repeat(rng.choice([0, 0, 0, 90, 255], (3, height // 8, width // 8)), 8, 1), 8, 2)
    array = np.clip(array + rng.integers(-9, 9, array.shape), 0, 255).astype(np.uint8)
    array[2] = 0
    valid = np.ones((height, width), bool)
    valid[101:303, 57:600] = False
    array[:, ~valid] = 0
    return array, valid


def write(path, array, valid, workers=1):
    grid = Grid("EPSG:32615", 300_000.0, 3_300_000.0, 2.0, array.shape[2], array.shape[1])
    with GeoTiffWriter(path, grid, ("a", "öl", "d"), (1, 2, 4), "© someone", workers) as writer:
        for row in range(0, len(valid), 512):
            writer.write(array[:, row : row + 512], valid[row : row + 512])
    return grid


@pytest.mark.parametrize(("big", "shape"), [(False, (1304, 1112)), (True, (1304, 1112)), (False, (16, 8))])
def test_gdal_reads_back_what_was_written(tmp_path, monkeypatch, big, shape):
    if big:
        monkeypatch.setattr(geotiff, "CLASSIC_LIMIT", 0)
    array, valid = pattern(*shape)
    grid = write(tmp_path / "x.tif", array, valid, workers=2)
    with rasterio.open(tmp_path / "x.tif") as tif:
        np.testing.assert_array_equal(tif.read(), array)
        np.testing.assert_array_equal(tif.dataset_mask() > 0, valid)
        assert tif.crs == "EPSG:32615"
        assert tif.transform == grid.transform
        assert tif.descriptions == ("a", "öl", "d")
        assert tif.overviews(1) == [2, 4]
        assert (tif.profile["compress"], tif.profile["interleave"], tif.block_shapes[0]) == (
            "deflate",
            "band",
            (512, 512),
        )
        assert tif.tags()["TIFFTAG_COPYRIGHT"] == "© someone"
    assert (tmp_path / "x.tif").read_bytes()[2] == (43 if big else 42)


@pytest.mark.parametrize(("level", "factor"), [(0, 2), (1, 4)])
def test_overviews_are_averages_of_the_valid_cells(tmp_path, level, factor):
    array, valid = pattern(1304, 1112)
    write(tmp_path / "x.tif", array, valid)
    with rasterio.open(tmp_path / "x.tif", overview_level=level) as tif:
        got, mask = tif.read(), tif.dataset_mask() > 0
    shape = (len(valid) // factor, factor, -1, factor)
    count = valid.reshape(shape).sum((1, 3))
    sums = array.reshape(3, *shape).sum((2, 4), dtype=int)
    np.testing.assert_array_equal(mask, 2 * count >= factor**2)
    np.testing.assert_array_equal(got, np.where(mask, np.rint(sums / np.maximum(count, 1)), 0))
    whole = count == factor**2
    assert abs((got - sums / factor**2)[:, whole].mean()) < 0.01  # rounding favours neither side


def test_the_file_does_not_depend_on_the_number_of_threads(tmp_path):
    array, valid = pattern(1304, 1112)
    for n in (1, 2, 5):
        write(tmp_path / f"{n}.tif", array, valid, workers=n)
    assert (tmp_path / "1.tif").read_bytes() == (tmp_path / "2.tif").read_bytes() == (tmp_path / "5.tif").read_bytes()


def test_a_city_raster_says_what_it_is(made):
    raster = CityRaster.open(made)
    assert (raster.name, raster.crs, raster.channels) == ("somewhere", "EPSG:32633", CHANNEL_NAMES)
    assert raster.resolutions == (2.0, 4.0, 8.0)
    assert raster.unknown == {"parking": "not seen"}
    assert raster.provenance["attribution"] == "© OpenStreetMap contributors, ODbL 1.0"
    assert raster.provenance["skipped"] == {"wrecks": 2}
    assert set(raster.blocks["split"]) == {"train", "val", "test"}
    assert raster.blocks.crs == raster.crs
    assert {"valid", "coverage", "street_density"} <= set(raster.blocks.columns)
    assert "parking" not in raster.blocks.columns
    shares = raster.provenance["shares"]
    whole = raster.blocks[raster.blocks["valid"] > 0.999]
    assert whole["coverage"].mean() == pytest.approx(shares["building"], rel=0.1)
    assert shares["street"] == pytest.approx(8 / 60, rel=0.03)


def test_levels_are_what_the_geotiff_holds(folder):
    raster = CityRaster.open(folder)
    for factor, resolution in zip((1, 2, 4), raster.resolutions, strict=True):
        level = raster.level(resolution)
        assert isinstance(level.array, np.memmap)
        assert level.array.shape == (len(CHANNEL_NAMES), raster.shape[0] // factor, raster.shape[1] // factor)
        assert level.transform.a == resolution
        np.testing.assert_array_equal(raster.read(17, 40, 64, resolution), level.array[:, 17:81, 40:104])
        assert not level.array[:, ~level.valid].any()
    assert raster.level(2.0).valid.mean() == pytest.approx(
        PLACE.area_km2 * 1e6 / 4 / math.prod(raster.shape), rel=0.001
    )


def test_a_level_is_decoded_once_and_again_when_the_geotiff_changes(folder, monkeypatch):
    raster = CityRaster.open(folder)
    first = raster.level(8.0).array.copy()
    with monkeypatch.context() as patch:
        patch.setattr(cityraster, "read_strips", pytest.fail)
        np.testing.assert_array_equal(raster.level(8.0).array, first)
    for file in (folder / ".cache").iterdir():
        file.write_bytes(file.read_bytes()[:-100])  # a cache cut short is no cache
    np.testing.assert_array_equal(raster.level(8.0).array, first)
    names = {p.name for p in (folder / ".cache").iterdir()}
    layout = folder / "layout.tif"
    layout.write_bytes(layout.read_bytes())
    np.testing.assert_array_equal(raster.level(8.0).array, first)
    assert names.isdisjoint(p.name for p in (folder / ".cache").iterdir())


def test_several_may_decode_a_level_at_once(folder):
    with ThreadPoolExecutor(4) as pool:
        levels = list(pool.map(lambda _: CityRaster.open(folder).level(2.0).array, range(4)))
    for array in levels[1:]:
        np.testing.assert_array_equal(array, levels[0])
    assert len(list((folder / ".cache").iterdir())) == 2


def test_a_read_only_folder_is_decoded_into_memory(folder, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    expected = CityRaster.open(folder).read(0, 0, 64, 8.0)
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.warns(UserWarning, match="decoded into memory"):
        level = CityRaster.open(folder).level(8.0)
    np.testing.assert_array_equal(level.array[:, :64, :64], expected)


def test_windows_and_levels_that_are_not_there(made):
    raster = CityRaster.open(made)
    with pytest.raises(DataError, match=r"choices:  2, 4, 8"):
        raster.level(3.0)
    with pytest.raises(DataError, match="reaches out"):
        raster.read(0, 100_000, 64, 2.0)
    with pytest.raises(DataError, match="no such split"):
        raster.split_mask(8.0, "everything")


def _truncate(folder):
    layout = folder / "layout.tif"
    layout.write_bytes(layout.read_bytes()[:-1000])


def _drop_a_band(folder):
    manifest = json.loads((folder / "place.json").read_text())
    manifest["channels"].append("gold")
    (folder / "place.json").write_text(json.dumps(manifest))


def _garble(name):
    def damage(folder):
        (folder / name).write_bytes(b"\x00garbage" * 40)

    return damage


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (shutil.rmtree, "got:      nothing"),
        (lambda f: (f / "place.json").unlink(), "is not a city raster"),
        (_garble("place.json"), "place.json is damaged"),
        (lambda f: (f / "place.json").write_text("[1]"), "expected: format 2"),
        (lambda f: (f / "place.json").write_text('{"format": 2}'), "place.json is damaged"),
        (lambda f: (f / "place.json").write_text('{"format": 3}'), "got:      format 3"),
        (lambda f: (f / "layout.tif").unlink(), "no file"),
        (_truncate, "layout.tif is damaged"),
        (_drop_a_band, "gold"),
        (lambda f: (f / "blocks.parquet").unlink(), "blocks.parquet is damaged"),
    ],
)
def test_a_broken_folder_is_refused_in_plain_words(folder, damage, words):
    damage(folder)
    with pytest.raises(DataError, match=r"remedy: +(make it|prepare the place again)") as error:
        CityRaster.open(folder)
    assert words in str(error.value)


def test_damage_within_the_files_shows_when_they_are_read(folder):
    layout = folder / "layout.tif"
    data = bytearray(layout.read_bytes())
    data[16:40_000] = bytes(40_000 - 16)
    layout.write_bytes(data)
    with pytest.raises(DataError, match=r"layout.tif is damaged"):
        CityRaster.open(folder).level(2.0)
    assert not list((folder / ".cache").iterdir())
    _garble("blocks.parquet")(folder)
    with pytest.raises(DataError, match=r"blocks.parquet is damaged"):
        CityRaster.open(folder).split_mask(8.0, "train")


def test_train_cells_keep_their_distance(made):
    raster = CityRaster.open(made)
    held_out = shapely.union_all(raster.blocks[raster.blocks["split"] != "train"].geometry)
    for resolution in raster.resolutions:
        mask = raster.split_mask(resolution, "train")
        assert mask.shape == tuple(n // round(resolution / 2) for n in raster.shape)
        rows, cols = np.nonzero(mask)
        chosen = np.random.default_rng(0).choice(len(rows), 500)
        left, top = raster.transform.c, raster.transform.f
        x, y = left + (cols[chosen] + 0.5) * resolution, top - (rows[chosen] + 0.5) * resolution
        assert shapely.distance(shapely.points(x, y), held_out).min() > raster.buffer_m
        assert raster.split_mask(resolution, "val").any()


@pytest.fixture(scope="module")
def town(made):
    return CityRaster.open(made)


def degrees(raster, x, y):
    return Transformer.from_crs(raster.crs, "EPSG:4326", always_xy=True).transform(x, y)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_a_window_is_that_part_of_the_level_where_it_lies(town, data):
    cell = data.draw(st.sampled_from(town.resolutions))
    level = town.level(cell)
    height, width = level.valid.shape
    edge = data.draw(st.integers(8, min(height, width) // 2))
    row, column = data.draw(st.integers(0, height - edge)), data.draw(st.integers(0, width - edge))
    left, top = town.grid.left + column * cell, town.grid.top - row * cell
    bounds = (left, top - edge * cell, left + edge * cell, top)
    assume(level.valid[row : row + edge, column : column + edge].any())
    layout = town.window(bounds=bounds, resolution_m=cell)
    known = [i for i, name in enumerate(town.channels) if name not in town.unknown]
    assert layout.channels == tuple(town.channels[i] for i in known)
    assert np.array_equal(layout.cells[0], level.array[known, row : row + edge, column : column + edge])
    assert layout.grids[0].bounds == pytest.approx(bounds)
    around = town.window(
        degrees(town, left + edge * cell / 2, top - edge * cell / 2), size_m=edge * cell, resolution_m=cell
    )
    assert np.array_equal(around.cells, layout.cells)
    assert around.grids == layout.grids


def test_a_window_has_the_channels_that_open_layout_gives(town):
    left, _, _, top = town.grid.bounds
    bounds = (left, top - 400, left + 400, top)
    opened = open_layout(town.path, bounds=bounds)
    assert opened.channels == town.window(bounds=bounds).channels
    assert np.array_equal(opened.cells, town.window(bounds=bounds).cells)
    assert not set(town.unknown) & set(opened.channels)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({}, "Which part"),
        ({"at": (12.51, 55.606), "bounds": (0, 0, 1, 1)}, "Which part"),
        ({"at": (0.0, 0.0)}, "reaches out"),
        ({"at": (12.51, 55.606), "size_m": 1e6}, "reaches out"),
        ({"at": (12.51, 55.606), "resolution_m": 3.0}, "no level"),
    ],
)
def test_a_window_that_cannot_be_is_refused_in_words(town, wrong, says):
    with pytest.raises(DataError, match=says):
        town.window(**wrong)
