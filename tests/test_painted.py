"""Maps that a person paints: what models get of them, what is reported, and what is refused."""

from dataclasses import replace

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from affine import Affine
from PIL import Image

import citygrain
import families
from citygrain.data.cityraster import CityRaster
from citygrain.errors import ConditionError, DataError
from citygrain.generation.fields import read_fields
from citygrain.generation.maps import OpenCellsWarning, add_maps, describe_maps, describe_site_maps, takes_maps
from citygrain.geo.coarse_maps import average_blocks, compare_maps
from citygrain.geo.painted_map import PaintedMap
from citygrain.geo.rasterize import Grid
from citygrain.layouts import Layouts
from citygrain.measures import measure_maps
from citygrain.spec import Conditions
from citygrain.support.config import load_config
from citygrain.verbs.edit import run as edit
from citygrain.verbs.sample import run as sample
from citygrain.verbs.train import run as train

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore:.*LeafSpec.*",
    "ignore::citygrain.spec.OutOfRangeWarning",
)

SPEC = families.spec(32)
GRID = Grid("EPSG:32635", 385_000.0, 6_672_000.0, 8.0, 32, 32)
PAINTED = np.arange(16).reshape(4, 4) / 16


def fields(source, spec=SPEC, **more):
    return read_fields(spec, {"coverage": PaintedMap(source), **more}, GRID)


@pytest.fixture(scope="module")
def model():
    return families.make("cell_diffusion", 32).eval()


def test_a_window_is_asked_for_what_is_painted_to_the_cell(model):
    asked = add_maps(model, Conditions.request(SPEC, 2, {"green": 0.3}), [fields(PAINTED), fields(PAINTED[::-1])])
    assert asked.maps_present.all()
    assert asked.maps[0, 0].numpy() == pytest.approx(PAINTED)
    assert asked.maps[1, 0].numpy() == pytest.approx(PAINTED[::-1]), "each window has a map of its own"
    assert asked.scalars.numpy() == pytest.approx(np.array([[PAINTED.mean(), 0.3]] * 2))
    assert asked.present.all()


def test_a_window_that_is_not_painted_wholly_is_refused(model):
    holes = np.where(PAINTED > 0.2, PAINTED, np.nan)
    with pytest.raises(ConditionError, match=r"leaves cells open(?s:.*)12 painted cells(?s:.*)elsewhere: 0"):
        add_maps(model, Conditions.empty(SPEC, 1), [fields(holes)])


def test_only_what_a_model_takes_as_a_map_is_one():
    assert takes_maps(SPEC, {"coverage": "a.png", "green": 0.3, "place": "here"})
    assert takes_maps(SPEC, {"coverage": [0.1, {"from": 0, "to": 1, "towards": "east"}]})
    assert not takes_maps(SPEC, {"coverage": "a.png", "green": "b.png"})
    assert not takes_maps(SPEC, {"coverage": 0.3})


def test_a_map_of_a_condition_that_nobody_knows_is_refused_with_the_choices():
    with pytest.raises(ConditionError, match=r"does not know(?s:.*)coverage, green"):
        read_fields(SPEC, {"covrage": PaintedMap(PAINTED)}, GRID)
    with pytest.raises(ConditionError, match=r"no such setting(?s:.*)did you mean: white"):
        read_fields(SPEC, {"coverage": {"map": "a.png", "whit": 1}}, GRID)
    with pytest.raises(ConditionError, match="grey picture"):
        read_fields(SPEC, {"coverage": {"map": "a.docx"}}, GRID)


def test_what_is_known_as_a_map_alone_can_be_painted_and_be_a_number():
    spec = replace(SPEC, scalars=("green",))
    found = fields(PAINTED, spec, green=0.5)
    assert average_blocks(found["coverage"].numpy(), 8) == pytest.approx(PAINTED)
    assert read_fields(spec, {"coverage": 0.3}, GRID) == {"coverage": pytest.approx(0.3)}


def test_requested_and_measured_maps_are_compared_on_their_cells():
    wanted = np.array([0.1, 0.2, 0.3, np.nan])
    found = compare_maps(wanted, np.array([0.1, 0.2, 0.6, 9]))
    assert found == pytest.approx({"cells": 3, "requested": 0.2, "measured": 0.3, "mean_error": 0.1, "r2": -3.5})
    assert np.isnan(compare_maps(wanted[:1], wanted[:1])["r2"]), "one value cannot be followed"
    assert compare_maps(wanted[3:], wanted[3:])["cells"] == 0


def test_layouts_tell_what_was_requested_on_a_map(tmp_path):
    cells = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), np.uint8)
    maps = describe_maps(SPEC, {"coverage": PaintedMap(PAINTED), "green": 0.1}, [fields(PAINTED, green=0.1)] * 3)
    grids = tuple(replace(GRID, left=GRID.left + 300 * i) for i in range(3))
    layouts = Layouts(cells, SPEC.channels, 8.0, grids, requested_maps=maps)
    told = layouts.map_comparison()
    assert list(told.index) == ["coverage"]
    row = told.loc["coverage"]
    assert (row.unit, row.cell_m, row.cells) == ("–", 64, 48)
    measured = measure_maps(layouts.shares, SPEC.channels, 8.0, 4)["coverage"]
    error = measured - PAINTED
    assert row.measured == pytest.approx(measured.mean())
    assert row.mean_error == pytest.approx(np.abs(error).mean())
    assert row.r2 == pytest.approx(1 - (error**2).sum() / (3 * ((PAINTED - PAINTED.mean()) ** 2).sum()), rel=1e-4)
    layouts.save(tmp_path)
    table = pd.read_csv(tmp_path / "maps.csv")
    assert list(table.layout) == list(layouts.names)
    assert table.mean_error.mean() == pytest.approx(row.mean_error, rel=1e-4)
    with np.load(tmp_path / "layouts.npz") as file:
        assert file["map_requested_coverage"][1] == pytest.approx(PAINTED)
        assert file["map_measured_coverage"] == pytest.approx(measured)
    again = layouts[2:] + layouts[:1]
    assert again.map_comparison(each=True).mean_error.tolist() == pytest.approx(np.abs(error).mean((1, 2))[[2, 0]])
    assert (layouts + replace(layouts, requested_maps=None)).requested_maps is None
    assert citygrain.open_layout(tmp_path).requested == {}, "maps are no requested values of layouts"
    replace(layouts, requested_maps=None).save(tmp_path)
    assert not (tmp_path / "maps.csv").exists()


def test_of_a_site_those_cells_of_a_map_count_that_are_free():
    free = np.zeros((32, 32), bool)
    free[8:25, 8:24] = True
    maps = describe_site_maps(SPEC, {"coverage": PaintedMap(PAINTED)}, fields(PAINTED), free, 2)
    before, *after = maps.requested["coverage"]
    assert np.isnan(before).all()
    there = np.full((4, 4), np.nan)
    there[1:3, 1:3] = PAINTED[1:3, 1:3]
    for one in after:
        assert one == pytest.approx(there, nan_ok=True)


DATA = [
    "data.places=[helsinki]", "data.resolution_m=4", "data.size_px=32", "data.batch_size=16", "data.val_windows=0",
    "data.maps=[coverage,green]", "data.map_px=4", "data.batches_per_epoch=2", "data.statistics_windows=64",
    "trainer=cpu", "trainer.max_steps=2", "logger=none", "callbacks.samples.every_n_epochs=0", "~callbacks.progress",
    "model.network.width=16", "model.network.widths=[1,2]", "model.embedding=32",
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(cities, tmp_path_factory):
    """A ground that is given ways, and a model of cells; both take maps, and have learned nothing."""
    folder = tmp_path_factory.mktemp("runs")
    paths = [f"paths.data={cities}", f"paths.runs={folder}"]
    train(load_config("train", ["model=ground_diffusion", "name=ground", "model.crop_px=16", *DATA, *paths]))
    train(load_config("train", ["model=cell_diffusion", "name=cells", "model.network.attention=[]", *DATA, *paths]))
    return folder


LEVELS = np.array([[0, 50, 100, 50], [10, 60, 120, 60], [20, 70, 0, 70], [30, 80, 160, 80]], np.uint8)


@pytest.fixture(scope="module")
def paint(tmp_path_factory):
    file = tmp_path_factory.mktemp("paint") / "paint.png"
    Image.fromarray(LEVELS).save(file)
    return file


def draw(runs, name, cities, out, *more):
    settings = [f"checkpoint={runs / name}", f"out={out}", "sampler.steps=2", f"paths.data={cities}"]
    sample(load_config("sample", [*settings, *more]))
    return pd.read_csv(out / "maps.csv"), np.load(out / "layouts.npz")


@pytest.mark.slow
def test_windows_around_given_ways_get_a_picture(runs, cities, paint, tmp_path, capsys):
    table, saved = draw(
        runs, "ground", cities, tmp_path, "n=2", "given.place=helsinki", "given.split=train",
        f"conditions.coverage={{map:{paint},black:0.1,white:0.6}}", "conditions.green=0.1",
    )  # fmt: skip
    assert len(table) == 2
    assert set(table["map"]) == {"coverage"}
    wanted = 0.1 + LEVELS / 255 * 0.5
    assert saved["map_requested_coverage"] == pytest.approx(np.stack([wanted] * 2), abs=1e-6)
    assert saved["requested_coverage"] == pytest.approx(wanted.mean(), abs=1e-6)
    told = measure_maps(saved["layouts"] / np.float32(255), list(saved["channels"]), 4.0, 4)["coverage"]
    assert saved["map_measured_coverage"] == pytest.approx(told, abs=1e-6)
    shown = capsys.readouterr().out
    assert "requested and measured on their cells" in shown
    assert "1.000" in shown, "feedback meets a map, whatever the network has learned"


@pytest.mark.slow
def test_a_geotiff_paints_an_area_where_it_lies(runs, cities, tmp_path):
    values = np.random.default_rng(0).random((3, 6)).astype(np.float32) / 2
    with rasterio.open(
        tmp_path / "map.tif", "w", driver="GTiff", dtype="float32", count=1, width=6, height=3, crs="EPSG:32635",
        transform=Affine(32, 0, 385_000, 0, -32, 6_672_000), nodata=-1,
    ) as tif:  # fmt: skip
        tif.write(values, 1)
    where = ["georeference.crs=EPSG:32635", "georeference.origin=[385000,6672000]"]
    out = tmp_path / "whole"
    _, saved = draw(
        runs, "cells", cities, out, "n=1", "extent_m=[192,128]", *where,
        f"conditions.coverage={{map:{tmp_path / 'map.tif'},elsewhere:0.25}}",
    )  # fmt: skip
    assert saved["map_requested_coverage"][0] == pytest.approx(
        np.concatenate([values, np.full((1, 6), 0.25)]), abs=1e-6
    )
    with pytest.warns(OpenCellsWarning, match="painted on 75% of the cells"):
        _, saved = draw(
            runs, "cells", cities, tmp_path / "open", "n=1", "extent_m=[192,128]", *where,
            f"conditions.coverage={tmp_path / 'map.tif'}",
        )  # fmt: skip
    assert np.isnan(saved["map_requested_coverage"][0, 3]).all()
    with pytest.raises(DataError, match="nothing of the area"):
        draw(runs, "cells", cities, tmp_path, "n=1", f"conditions.coverage={tmp_path / 'map.tif'}")


@pytest.mark.slow
def test_a_site_gets_polygons_or_a_picture(runs, cities, paint, tmp_path):
    grid = CityRaster.open(cities / "helsinki").grid
    left, bottom, right, top = grid.bounds
    x, y = (left + right) // 8 * 4, (bottom + top) // 8 * 4
    west, east = shapely.box(x - 64, y - 64, x, y + 64), shapely.box(x, y - 64, x + 64, y + 64)
    plan = gpd.GeoDataFrame({"coverage": [0.1, 0.5], "green": [0.4, 0.0]}, geometry=[west, east], crs=grid.crs)
    plan.to_file(tmp_path / "plan.gpkg")
    (at,) = gpd.GeoSeries([shapely.Point(x, y)], crs=grid.crs).to_crs("EPSG:4326")
    site = [f"at=[{at.x},{at.y}]", "size_m=128", "context_m=32", "place=helsinki", f"paths.data={cities}", "n=2"]
    both = [f"conditions.{name}={tmp_path / 'plan.gpkg'}" for name in ("coverage", "green")]
    out = edit(
        load_config(
            "edit", [f"checkpoint={runs / 'ground'}", f"out={tmp_path / 'out'}", *site, *both, "sampler.steps=2"]
        )
    )
    table = pd.read_csv(out / "maps.csv")
    assert list(table.layout) == ["after_00", "after_00", "after_01", "after_01"]
    assert set(table["map"]) == {"coverage", "green"}
    assert table.cells.min() >= 9, "of 4 × 4 cells of a site, those that lie in it"
    wanted = table.set_index("map").requested
    assert wanted["coverage"].to_numpy() == pytest.approx(0.3, abs=0.07)
    assert wanted["green"].to_numpy() == pytest.approx(0.2, abs=0.07)
    measured = pd.read_csv(out / "measured.csv").set_index(["layout", "of", "measure"]).asked
    assert measured["after_00", "site", "coverage"] == pytest.approx(0.3, abs=0.01)
    model = citygrain.Model(runs / "ground")
    edited = model.edit(
        cities / "helsinki", at=(at.x, at.y), size_m=128, context_m=32, coverage=PaintedMap(paint),
        sampler={"steps": 2},
    )  # fmt: skip
    assert edited.requested["coverage"] == pytest.approx((LEVELS / 255).mean(), abs=0.01)
    assert edited.after.map_comparison().loc["coverage", "cells"] >= 27


@pytest.mark.slow
def test_levels_of_maps_and_numbers_are_combined(runs, cities):
    model = citygrain.Model(runs / "cells")
    layouts = model.sample(2, coverage=[PaintedMap(PAINTED / 2), 0.2], sampler={"steps": 2}, data=cities)
    assert len(layouts) == 4
    wanted = layouts.requested_maps.requested["coverage"]
    assert wanted[:2] == pytest.approx(np.stack([PAINTED / 2] * 2), abs=1e-6)
    assert np.isnan(wanted[2:]).all()
    assert layouts.requested["coverage"] == pytest.approx([PAINTED.mean() / 2] * 2 + [0.2] * 2)
    area = model.sample(1, extent_m=(128, 160), coverage=PaintedMap(PAINTED / 2), sampler={"steps": 2}, data=cities)
    assert area.requested_maps.requested["coverage"].shape == (1, 5, 4)


@pytest.mark.slow
@pytest.mark.parametrize("extent", [None, (192, 160)])
def test_real_ways_around_a_point_get_a_map_that_lies_there(runs, cities, extent):
    """Of one window, and of an area of several."""
    place = CityRaster.open(cities / "helsinki")
    left, bottom, right, top = place.grid.bounds
    (point,) = gpd.GeoSeries([shapely.Point((left + right) / 2, (bottom + top) / 2)], crs=place.crs).to_crs("EPSG:4326")
    width, height = extent or (128, 128)
    model = citygrain.Model(runs / "ground")
    given = citygrain.Given("helsinki", at=(point.x, point.y))
    plain = model.sample(2, given=given, extent_m=extent, sampler={"steps": 2}, data=cities)
    assert plain.cells.shape[2:] == (height // 4, width // 4)
    assert plain.grids[0] == plain.grids[1]
    x, y = plain.grids[0].outline.centroid.coords[0]
    assert np.hypot(x - (left + right) / 2, y - (bottom + top) / 2) < 4
    ways = [i for i, name in enumerate(plain.channels) if name in model.spec.given]
    real = place.window(bounds=plain.grids[0].bounds, resolution_m=4.0).select(model.spec.given)
    assert np.array_equal(plain.cells[0, ways], real.cells[0]), "the ways of the place itself"
    half = gpd.GeoDataFrame({"green": [0.4]}, geometry=[shapely.box(x, bottom, right, top)], crs=place.crs)
    painted = PaintedMap(half, elsewhere=0.1)
    drawn = model.sample(1, given=given, extent_m=extent, green=painted, sampler={"steps": 2}, data=cities)
    wanted = drawn.requested_maps.requested["green"][0]
    assert wanted[:, 0] == pytest.approx(0.1)
    assert wanted[:, -1] == pytest.approx(0.4)
    assert drawn.map_comparison().loc["green", "cells"] == wanted.size
