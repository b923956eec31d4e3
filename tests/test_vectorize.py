"""`citygrain vectorize`: files that other programs open, and plain words for what is no layout."""

import inspect
import json

import geopandas as gpd
import numpy as np
import osmnx as ox
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine

from citygrain.data.cityraster import CityRaster
from citygrain.errors import ConfigError, DataError
from citygrain.geo.layers import CHANNEL_NAMES
from citygrain.geo.layout_files import LARGEST_CELLS, read_layout, write_geotiff
from citygrain.geo.rasterize import Grid
from citygrain.geo.vector_files import vectorize_layouts
from citygrain.support.config import load_config
from citygrain.verbs.vectorize import run

CRS = "EPSG:32633"


def write(path, cells, *, channels=CHANNEL_NAMES, crs=CRS, left=500_000.0, cell=2.0, transform=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", dtype=cells.dtype, count=len(cells), width=cells.shape[2], height=cells.shape[1],
        crs=crs, transform=transform or Affine(cell, 0, left, 0, -cell, 6_000_128.0),
    ) as tif:  # fmt: skip
        tif.write(cells)
        tif.descriptions = tuple(channels)
    return path


def crossing():
    """Two streets that cross, and a house in each quarter."""
    cells = np.zeros((len(CHANNEL_NAMES), 64, 64), np.uint8)
    cells[2, 30:34] = cells[2, :, 30:34] = 255
    for row in (8, 44):
        for column in (8, 44):
            cells[0, row : row + 10, column : column + 12] = 255
    return cells


def vectorized(layouts, out, *more):
    run(load_config("vectorize", [f"layouts={layouts}", f"out={out}", *more]))
    return out


@pytest.fixture
def sampled(tmp_path):
    """A folder such as `citygrain sample` writes."""
    for i in range(3):
        write(tmp_path / "sample" / "layouts" / f"layout_{i:04d}.tif", crossing(), left=500_000.0 + 160 * i)
    return tmp_path / "sample"


def test_every_format_opens_and_holds_the_same(sampled, tmp_path):
    out = vectorized(sampled, tmp_path / "out", "formats=[gpkg,geojson,parquet,graphml]")
    names = set(gpd.list_layers(out / "layouts.gpkg").name)
    assert {"building", "drive", "drive_nodes", "walk"} <= names
    houses = gpd.read_file(out / "layouts.gpkg", layer="building")
    assert houses.crs == CRS
    assert houses.groupby("layout").area_m2.sum().tolist() == pytest.approx([4 * 480] * 3, rel=0.03)
    assert houses.total_bounds[2] > 500_000 + 320
    for name in ("building", "drive"):
        flat = gpd.read_file(out / "layouts.gpkg", layer=name)
        degrees = gpd.read_file(out / "geojson" / f"{name}.geojson")
        assert json.loads((out / "geojson" / f"{name}.geojson").read_text(encoding="utf-8"))["name"] == name
        columns = gpd.read_parquet(out / "parquet" / f"{name}.parquet")
        assert degrees.crs == "EPSG:4326"
        assert len(flat) == len(degrees) == len(columns)
        assert columns.crs == CRS
        back = degrees.to_crs(CRS).geometry
        assert shapely.hausdorff_distance(back.union_all(), flat.union_all()) < 0.01
    graph = ox.load_graphml(out / "graphs" / "layout_0001_drive.graphml")
    assert ox.basic_stats(graph)["intersection_count"] == 1
    assert len(ox.load_graphml(out / "graphs" / "layout_0001_all.graphml")) == len(graph)  # there are no footways
    assert not (out / "graphs" / "layout_0001_cycle.graphml").exists()
    assert (out / "vectors.png").stat().st_size > 2000
    assert not list(out.rglob(".*"))


def test_one_file_and_a_prepared_place_are_taken_too(cities, sampled, tmp_path):
    one = vectorized(sampled / "layouts" / "layout_0002.tif", tmp_path / "one")
    assert set(gpd.read_file(one / "layouts.gpkg", layer="drive").layout) == {"layout_0002"}
    raster = CityRaster.open(cities / "helsinki")
    left, _, _, top = raster.grid.bounds
    box = [left + 300, top - 900, left + 600, top - 600]
    part = vectorized(cities / "helsinki", tmp_path / "part", f"bounds={box}")
    houses = gpd.read_file(part / "layouts.gpkg", layer="building")
    assert set(houses.layout) == {"helsinki"}
    assert shapely.box(*box).buffer(1e-6).contains(shapely.box(*houses.total_bounds))


def test_a_prepared_place_of_an_earlier_format_is_refused(tmp_path):
    write(tmp_path / "town" / "layout.tif", crossing())
    (tmp_path / "town" / "place.json").write_text('{"format": 1}')
    for layouts in (tmp_path / "town", tmp_path / "town" / "layout.tif"):
        with pytest.raises(DataError, match="prepared again"):
            vectorized(layouts, tmp_path / "out")


def test_what_is_written_is_read_again_whole_or_in_part(tmp_path):
    grid = Grid(CRS, 500_000.0, 6_000_128.0, 2.0, 64, 64)
    write_geotiff(tmp_path / "x.tif", crossing(), CHANNEL_NAMES, grid)
    cells, channels, found = read_layout(tmp_path / "x.tif")
    assert (channels, found) == (CHANNEL_NAMES, grid)
    assert cells.dtype == np.uint8
    np.testing.assert_array_equal(cells, crossing())
    part, _, where = read_layout(tmp_path / "x.tif", (500_020.0, 6_000_100.0, 500_060.0, 6_000_120.0))
    assert where == Grid(CRS, 500_020.0, 6_000_120.0, 2.0, 20, 10)
    np.testing.assert_array_equal(part, crossing()[:, 4:14, 10:30])


@pytest.mark.slow
def test_a_notebook_gets_what_the_command_line_writes(sampled, tmp_path):
    vectors = vectorize_layouts(sampled, tmp_path / "mine", formats=["parquet"])
    theirs = vectorized(sampled, tmp_path / "theirs", "formats=[parquet]")
    assert list(vectors) == ["layout_0000", "layout_0001", "layout_0002"]
    assert sum(len(found.areas["building"]) for found in vectors.values()) == 12
    files = sorted(path.relative_to(theirs) for path in theirs.rglob("*.parquet"))
    assert files == sorted(path.relative_to(tmp_path / "mine") for path in (tmp_path / "mine").rglob("*.*"))
    for file in files:
        one, other = (gpd.read_parquet(folder / file) for folder in (tmp_path / "mine", theirs))
        assert one.equals(other)


def test_a_notebook_has_the_defaults_of_the_command_line():
    config = load_config("vectorize", ["layouts=x"])
    parameters = inspect.signature(vectorize_layouts).parameters
    defaults = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
    assert {**defaults, "formats": list(defaults["formats"])} == {name: config[name] for name in defaults}
    assert set(config) - set(parameters) == {"threads"}


@pytest.mark.slow
def test_processes_make_what_one_makes(tmp_path):
    for i in range(12):
        cells = np.roll(crossing(), i, axis=2)
        write(tmp_path / "many" / f"{i:02d}.tif", cells)
    frames = [
        gpd.read_file(
            vectorized(tmp_path / "many", tmp_path / str(n), f"workers={n}") / "layouts.gpkg", layer="building"
        )
        for n in (1, 2)
    ]
    assert frames[0].geom_equals(frames[1]).all()
    assert frames[0].layout.tolist() == frames[1].layout.tolist()


def test_service_roads_join_the_drive_network_when_asked(tmp_path):
    cells = crossing()
    cells[CHANNEL_NAMES.index("service"), 34:60, 20:22] = 255
    cells[CHANNEL_NAMES.index("service"), 34:60, 22] = 128
    file = write(tmp_path / "x.tif", cells)
    names = [set(gpd.list_layers(vectorized(file, tmp_path / word, f"service={word}") / "layouts.gpkg").name)
             for word in ("false", "true")]  # fmt: skip
    assert names[0] - names[1] == {"service", "service_nodes"}
    drive = gpd.read_file(tmp_path / "true" / "layouts.gpkg", layer="drive")
    assert set(drive.highway) == {"residential", "service"}


def test_floats_are_coverage_as_well(tmp_path):
    file = write(tmp_path / "f.tif", crossing().astype(np.float32) / 255)
    houses = gpd.read_file(vectorized(file, tmp_path / "out") / "layouts.gpkg", layer="building")
    assert len(houses) == 4


@pytest.mark.parametrize(
    ("made", "more", "error", "words"),
    [
        (None, [], DataError, "There are no layouts at"),
        ({}, ["formats=[shp]"], ConfigError, "choices:  gpkg, geojson, parquet, graphml"),
        ({}, ["formats=[]"], ConfigError, "Nothing would be written"),
        ({}, ["bounds=[1,2,3,4]"], DataError, "bounds"),
        ({"crs": "EPSG:4326", "cell": 1e-5}, [], DataError, "square grid in metres"),
        ({"channels": [""] * len(CHANNEL_NAMES)}, [], DataError, "have no names"),
        ({"channels": ["castle", *CHANNEL_NAMES[1:]]}, [], DataError, "castle"),
        ("text", [], DataError, "cannot be read as a GeoTIFF"),
    ],
)
def test_what_is_no_layout_is_told_in_words(tmp_path, made, more, error, words):
    file = tmp_path / "x.tif"
    if made == "text":
        file.write_text("no picture")
    elif made is not None:
        write(file, crossing(), **made)
    with pytest.raises(error, match=words):
        vectorized(file, tmp_path / "out", *more)
    assert not list((tmp_path / "out").rglob("*.gpkg"))


CORNER = Affine.translation(500_000, 6_000_128)
CELLS = Affine.scale(2, -2)


@pytest.mark.parametrize(
    ("crs", "transform", "words"),
    [
        (CRS, CORNER @ Affine(2, 0.2, 0, 0, -2, 0), "sheared"),
        (CRS, CORNER @ Affine.rotation(30) @ Affine.scale(2, -3), "cells of 2 by 3 m"),
        (CRS, CORNER @ Affine.rotation(30) @ Affine.scale(2, 2), "from south to north"),
        (CRS, CORNER @ Affine.rotation(180) @ CELLS, "from east to west"),
        (CRS, CORNER @ Affine.scale(2, -3), "cells of 2 by 3 m"),
        (CRS, CORNER @ Affine.scale(2, 2), "from south to north"),
        (CRS, CORNER @ Affine.scale(-2, -2), "from east to west"),
        ("EPSG:2263", Affine(6.56, 0, 980_000, 0, -6.56, 200_000), r"foot\) of 0.3048"),
        ("EPSG:3857", Affine(2, 0, 1_500_000, 0, -2, 7_200_000), "a metre on the ground is 1.7"),
        ("EPSG:4326", Affine(1e-5, 0, 15, 0, -1e-5, 54), "not projected"),
        (None, CORNER @ CELLS, "no CRS"),
    ],
)
def test_cells_that_are_no_squares_in_metres_are_refused_with_a_remedy(tmp_path, crs, transform, words):
    file = write(tmp_path / "x.tif", crossing(), crs=crs, transform=transform)
    for more in ([], ["bounds=[500000,6000000,500100,6000100]"]):
        with pytest.raises(DataError, match=words) as error:
            vectorized(file, tmp_path / "out", *more)
        assert "gdalwarp" in str(error.value)


@pytest.mark.parametrize(
    "crs", [CRS, "EPSG:3035", *(pytest.param(f"EPSG:{code}", marks=pytest.mark.slow) for code in (25832, 2154))]
)
def test_national_grids_in_metres_are_taken_and_what_rounding_leaves_is_overlooked(tmp_path, crs):
    left, top = {"EPSG:3035": (4_300_000, 3_200_000), "EPSG:2154": (650_000, 6_860_000)}.get(crs, (500_000, 6_000_128))
    file = write(tmp_path / "x.tif", crossing(), crs=crs, transform=Affine(2 + 1e-9, 1e-12, left, 0, -2, top))
    houses = gpd.read_file(vectorized(file, tmp_path / "out") / "layouts.gpkg", layer="building")
    assert houses.area_m2.sum() == pytest.approx(4 * 480, rel=0.03)


@pytest.mark.slow
def test_layers_without_features_keep_their_types(tmp_path):
    """A GIS that adds the first railway to an empty layer must find a layer of lines."""
    file = write(tmp_path / "x.tif", np.zeros_like(crossing()))
    out = vectorized(file, tmp_path / "out", "formats=[gpkg,parquet]")
    full = vectorized(write(tmp_path / "y.tif", crossing()), tmp_path / "full", "formats=[gpkg,parquet]")
    ways = {"u": "Integer64", "v": "Integer64", "kind": "String", "highway": "String", "width_m": "Real"}
    wanted = {
        "rail": ("LineString", {**ways, "length_m": "Real", "layout": "String"}),
        "drive": ("LineString", {**ways, "length_m": "Real", "layout": "String"}),
        "building": ("Polygon", {"area_m2": "Real", "layout": "String"}),
        "square": ("Polygon", {"area_m2": "Real", "layout": "String"}),
        "walk_nodes": (
            "Point", {"node": "Integer64", "street_count": "Integer64", "at_edge": "Integer", "layout": "String"}
        ),
    }  # fmt: skip
    for folder in (out, full):
        for name, (geometry, columns) in wanted.items():
            about = pyogrio.read_info(folder / "layouts.gpkg", layer=name)
            assert about["geometry_type"] == geometry
            types = [kind.removeprefix("OFT") for kind in about["ogr_types"]]
            assert dict(zip(about["fields"], types, strict=True)) == columns
            assert about["features"] == (0 if folder == out else {"drive": 4, "building": 4}.get(name, 0))
    for name in wanted:
        empty, other = (gpd.read_parquet(folder / "parquet" / f"{name}.parquet") for folder in (out, full))
        assert empty.dtypes.equals(other.dtypes)


def test_a_whole_city_is_to_be_named_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("citygrain.geo.layout_files.LARGEST_CELLS", 64)
    assert LARGEST_CELLS > 64
    with pytest.raises(DataError, match=r"bounds=\[left,bottom,right,top\]"):
        vectorized(write(tmp_path / "x.tif", crossing()), tmp_path / "out")
