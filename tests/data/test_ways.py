"""The lines of a place's ways: kept when it is prepared, merged into strokes once, and cut into windows."""

import math
import shutil
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely

from citygrain.data import ways
from citygrain.data.cityraster import CityRaster
from citygrain.data.pack import pack_place
from citygrain.data.prepare import prepare
from citygrain.data.ways import SHORTEST_M, CityStrokes
from citygrain.errors import DataError
from citygrain.geo.layers import WIDTHS
from citygrain.geo.place import Place
from citygrain.geo.sources import Features
from citygrain.geo.stroke_code import KINDS
from citygrain.geo.stroke_drawing import draw_strokes

PLACE = Place.from_bbox("crossing", (12.50, 55.60, 12.52, 55.612))


class Crossing:
    """A street and an arterial that cross, mapped in pieces; a path with a square; no rails; the east is not seen."""

    def features(self, place, progress=None):
        left, bottom, right, top = place.bounds_utm
        x, y = (left + right) / 2, (bottom + top) / 2
        street = [[(left - 500, y), (x, y)], [(x, y), (right + 500, y)]]
        lines = {
            "street": [shapely.LineString(line) for line in street],
            "arterial": [shapely.MultiLineString([[(x, bottom), (x, y)], [(x, y), (x, top)]])],
            "walk": [shapely.LineString([(x + 50, y), (x + 50, y + 90)]), shapely.box(x + 60, y + 60, x + 99, y + 99)],
        }
        layers = {name: self._layer(name, shapes, place) for name, shapes in lines.items()}
        layers["building"] = self._layer("building", [shapely.box(x + 20, y + 20, x + 40, y + 40)], place)
        seen = shapely.box(left, bottom, right - 200, top)
        return Features(layers, place=place, provenance={"kind": "crossing"}, valid=seen, unknown={"rail": "not seen"})

    @staticmethod
    def _layer(name, shapes, place):
        width = [WIDTHS.get(name, math.nan) if shapely.get_dimensions(shape) == 1 else math.nan for shape in shapes]
        return gpd.GeoDataFrame({"kind": ["x"] * len(shapes), "width_m": width}, geometry=shapes, crs=place.crs)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return prepare(PLACE, Crossing(), tmp_path_factory.mktemp("cities"), block_m=400, buffer_m=32, workers=1).path


@pytest.fixture
def folder(made, tmp_path):
    shutil.copytree(made, tmp_path / "crossing", ignore=shutil.ignore_patterns(".cache"))
    return tmp_path / "crossing"


@pytest.fixture
def raster(folder):
    return CityRaster.open(folder)


def kept(folder):
    return sorted((folder / ".cache").glob("strokes-*.parquet"))


# What prepare keeps


def test_prepare_keeps_the_lines_of_ways_and_their_channels(made):
    table = gpd.read_parquet(made / "ways.parquet")
    assert table.crs == CityRaster.open(made).crs
    assert table.groupby("channel").size().to_dict() == {"arterial": 2, "street": 2, "walk": 1}
    assert set(table.geom_type) == {"LineString"}


def test_ways_end_where_the_data_do(made):
    left, bottom, right, top = PLACE.bounds_utm
    area = shapely.intersection(PLACE.utm, shapely.box(left, bottom, right - 200, top))
    lines = gpd.read_parquet(made / "ways.parquet").geometry.to_numpy()
    assert shapely.covered_by(lines, shapely.buffer(area, 1e-6)).all()
    assert (shapely.distance(shapely.union_all(lines), shapely.boundary(area))) == 0
    ends = shapely.bounds(lines)
    assert ends[:, 2].max() == pytest.approx(right - 200)


def test_a_place_whose_ways_are_areas_has_no_strokes(cities):
    raster = CityRaster.open(cities / "squareville")
    assert gpd.read_parquet(raster.path / "ways.parquet").empty
    assert len(CityStrokes(raster, KINDS).lines) == 0
    assert len(CityStrokes(raster, KINDS).cut(raster.grid.left, raster.grid.top, 512.0)) == 0


def test_the_file_is_known_and_goes_with_the_folder(made, tmp_path):
    again = prepare(PLACE, Crossing(), made.parent, block_m=400, buffer_m=32, workers=1)
    assert (again.path / "ways.parquet").is_file()
    replaced = prepare(PLACE, Crossing(), made.parent, block_m=401, buffer_m=32, workers=1, replace=True)
    assert CityStrokes(replaced, KINDS).known.tolist() == [kind != "rail" for kind in KINDS]


# Strokes of a place


def test_pieces_are_merged_and_kinds_kept_apart(raster):
    strokes = CityStrokes(raster, KINDS)
    assert [KINDS[k] for k in strokes.kind] == ["arterial", "street", "walk"]
    assert not strokes.apart.any()
    whole = gpd.read_parquet(raster.path / "ways.parquet").geometry.length.sum()
    assert shapely.length(strokes.lines).sum() == pytest.approx(whole)


def test_of_some_kinds_only_these_are_merged(raster):
    strokes = CityStrokes(raster, ("walk", "rail"))
    assert strokes.kind.tolist() == [0]
    assert strokes.known.tolist() == [True, False]


def test_they_are_merged_once_and_again_when_the_ways_change(folder, raster, monkeypatch):
    first = CityStrokes(raster, KINDS)
    with monkeypatch.context() as patch:
        patch.setattr(ways, "merge_strokes", pytest.fail)
        second = CityStrokes(raster, KINDS)
    assert shapely.equals_exact(first.lines, second.lines, 0).all()
    for name in ("kind", "apart", "known"):
        np.testing.assert_array_equal(getattr(second, name), getattr(first, name))
    CityStrokes(raster, ("street",))
    assert len(kept(folder)) == 2  # each choice of kinds has its own
    names = kept(folder)
    table = gpd.read_parquet(folder / "ways.parquet")
    table[table["channel"] != "walk"].to_parquet(folder / "ways.parquet")
    assert 5 not in CityStrokes(raster, KINDS).kind
    assert len(kept(folder)) == 1
    assert kept(folder)[0] not in names


def test_they_are_merged_again_when_merging_changes(folder, raster, monkeypatch):
    CityStrokes(raster, KINDS)
    (before,) = kept(folder)
    monkeypatch.setitem(ways.MERGED, "way", "another")
    CityStrokes(raster, KINDS)
    assert kept(folder) != [before]
    assert len(kept(folder)) == 1


def test_a_file_that_is_cut_short_is_made_again(folder, raster):
    first = CityStrokes(raster, KINDS)
    (file,) = kept(folder)
    file.write_bytes(file.read_bytes()[:-50])
    assert shapely.equals_exact(CityStrokes(raster, KINDS).lines, first.lines, 0).all()
    assert len(gpd.read_parquet(file)) == len(first.lines)


def test_in_a_read_only_folder_they_are_merged_in_memory(folder, raster, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.warns(UserWarning, match="merged in memory"):
        strokes = CityStrokes(raster, KINDS)
    assert len(strokes.lines) == 3
    assert not kept(folder)


def test_a_place_without_lines_says_what_to_do(folder, raster):
    (folder / "ways.parquet").unlink()
    with pytest.raises(DataError, match=r"does not hold the lines(?s:.)*citygrain prepare place=crossing"):
        CityStrokes(raster, KINDS)


def test_a_pack_has_no_lines_and_says_so(made, tmp_path):
    packed = pack_place(CityRaster.open(made), tmp_path / "packed", 8.0, 15)
    with pytest.raises(DataError, match=r"a pack has cells only"):
        CityStrokes(packed, KINDS)


@pytest.mark.parametrize("damage", ["cut", "table"])
def test_damaged_lines_are_told(folder, raster, damage):
    file = folder / "ways.parquet"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-50])
    else:
        gpd.read_parquet(file).drop(columns="channel").to_parquet(file)
    with pytest.raises(DataError, match=r"ways\.parquet"):
        CityStrokes(raster, KINDS)


# Windows


def test_a_window_has_its_middle_at_zero_and_y_down(raster):
    left, bottom, right, top = PLACE.bounds_utm
    x, y = (left + right) / 2, (bottom + top) / 2
    cut = CityStrokes(raster, KINDS).cut(x - 100, y + 130, 200.0)
    assert [KINDS[k] for k in cut.kind] == ["arterial", "street", "walk"]
    np.testing.assert_allclose(
        np.sort(shapely.bounds(cut.lines)[0]), [-100, 0, 0, 100], atol=0.01
    )  # coordinates are rounded to centimetres
    np.testing.assert_allclose(shapely.bounds(cut.lines)[1], [-100, 30, 100, 30], atol=0.01)
    np.testing.assert_allclose(shapely.bounds(cut.lines)[2], [50, -60, 50, 30], atol=0.01)
    assert not cut.given.any()


def test_a_window_is_drawn_as_the_place_is(raster):
    row, col = 40, 60
    grid = raster.grid
    cut = CityStrokes(raster, KINDS).cut(grid.left + 8 * col, grid.top - 8 * row, 256.0)
    cells = raster.level(8.0).array[:, row : row + 32, col : col + 32]
    channels = [name for name in KINDS if name != "walk"]  # the square is no way
    drawn = draw_strokes(cut, KINDS, channels, 32, 8.0)
    off = np.abs(drawn.astype(int) - cells[[raster.channels.index(name) for name in channels]])
    assert off[:, 1:-1, 1:-1].max() <= 2


def test_what_the_edge_leaves_of_a_stroke_is_not_too_short(raster):
    x, y = (PLACE.bounds_utm[0] + PLACE.bounds_utm[2]) / 2, (PLACE.bounds_utm[1] + PLACE.bounds_utm[3]) / 2
    for beyond, expected in ((SHORTEST_M - 1, 0), (SHORTEST_M + 1, 1)):
        cut = CityStrokes(raster, KINDS).cut(x + 10, y + 90 - beyond + 100, 100.0)
        assert len(cut) == expected  # the tip of the path
