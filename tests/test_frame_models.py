"""Models of turned windows: what they draw lies at the bearing that is requested, or around real streets at theirs."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.enums import Resampling
from rasterio.warp import reproject

import citygrain
from citygrain.data.cityraster import CityRaster
from citygrain.errors import ConditionError, ConfigError
from citygrain.evaluation.obedience import list_sweepable
from citygrain.evaluation.options import Classifier, Embedding, Memorisation, Obedience
from citygrain.generation.given import read_given_windows
from citygrain.generation.site import find_bearing, locate_site
from citygrain.support.config import load_config
from citygrain.verbs.sample import run as sample
from citygrain.verbs.train import run as train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:.*LeafSpec.*"),
]
DATA = [
    "data.places=[helsinki]", "data.resolution_m=4", "data.size_px=16", "data.batch_size=8", "data.frame=streets",
    "data.min_built=0", "data.batches_per_epoch=2", "data.val_windows=0", "data.statistics_windows=64", "trainer=cpu",
    "trainer.max_steps=2", "logger=none", "callbacks.samples.every_n_epochs=0", "~callbacks.progress",
]  # fmt: skip
NARROW = ["model.network.width=16", "model.network.widths=[1,2]", "model.embedding=32", "model.network.attention=[]"]
PIX2PIX = ["model.given=[arterial,street]", "model.network.width=16", "model.network.widths=[1,2]"]


@pytest.fixture(scope="module")
def runs(cities, tmp_path_factory):
    """Two models of Helsinki that have learned nothing: one is given the streets."""
    folder = tmp_path_factory.mktemp("runs")
    paths = [f"paths.data={cities}", f"paths.runs={folder}"]
    train(load_config("train", ["model=diffusion", "name=diffusion", *NARROW, *DATA, *paths]))
    train(load_config("train", ["model=pix2pix", "name=pix2pix", *PIX2PIX, *DATA, *paths]))
    return folder


@pytest.fixture(scope="module")
def model(runs):
    return citygrain.Model(runs / "diffusion", device="cpu")


@pytest.fixture(scope="module")
def place(cities):
    return CityRaster.open(cities / "helsinki")


@pytest.fixture(scope="module")
def middle(place):
    left, bottom, right, top = place.grid.bounds
    point = gpd.GeoSeries([shapely.Point((left + right) / 2, (bottom + top) / 2)], crs=place.crs).to_crs("EPSG:4326")
    return point.x[0], point.y[0]


def warp(place, grid, channels):
    """Return the cells of a place on another grid, by GDAL."""
    level = place.level(2.0)
    bands = np.ascontiguousarray(level.array[[place.channels.index(name) for name in channels]]).astype(np.float32)
    found = np.zeros((len(channels), grid.height, grid.width), np.float32)
    reproject(
        bands, found, src_transform=level.transform, src_crs=place.crs, dst_transform=grid.transform,
        dst_crs=grid.crs, resampling=Resampling.average,
    )  # fmt: skip
    return found


def measure_alignment(layouts):
    """Tell how far the lines of streets follow the grids of their layouts, or cross them: 1 all, 0 as many as not."""
    along = total = 0.0
    for grid, features in zip(layouts.grids, layouts.features(), strict=True):
        for line in features.ways["drive"].lines:
            east, north = np.diff(shapely.get_coordinates(line), axis=0).T
            length = np.hypot(east, north)
            along += (length * np.cos(4 * (np.arctan2(east, north) - np.radians(grid.angle)))).sum()
            total += length.sum()
    return along / total


def test_the_model_knows_both_conditions_and_its_windows(model, cities):
    assert model.spec.scalars[-2:] == ("bearing", "order")
    assert model.provenance["data"]["frame"] == "streets"
    assert 0 <= model.spec.quantile("bearing", 0) <= model.spec.quantile("bearing", 100) < 90
    assert 0 < model.spec.quantile("order", 50) < 1
    assert model.spec.quantile("order", 100) > 0.6, "where one street runs through a window"


def test_the_command_line_draws_at_a_bearing(runs, cities, tmp_path):
    asked = ["conditions.bearing=[p10,30,p90]", "sampler.steps=2", "device=cpu", "seed=3"]
    out = sample(load_config("sample", [f"checkpoint={runs / 'diffusion'}", *asked, f"out={tmp_path}"]))
    made = citygrain.open_layout(out)
    spec = citygrain.Model(runs / "diffusion", device="cpu").spec
    levels = [spec.quantile("bearing", 10), 30, spec.quantile("bearing", 90)]
    assert made.requested["bearing"] == pytest.approx(levels, abs=1e-4)
    assert [grid.angle % 90 for grid in made.grids] == pytest.approx(levels, abs=1e-3)
    assert np.abs(made.measured["bearing"] - made.requested["bearing"]).max() <= 45
    assert np.isnan(made.requested["order"]).all()
    with rasterio.open(tmp_path / "layouts" / "layout_0001.tif") as tif:
        assert tif.transform.d == pytest.approx(-4 * np.sin(np.radians(30)))


@pytest.mark.filterwarnings("ignore::citygrain.spec.OutOfRangeWarning")
def test_cells_do_not_depend_on_where_a_layout_lies_but_on_what_the_network_is_told(model):
    quick = {"sampler": {"steps": 2}, "n": 2, "seed": 1}
    upright, order = model.sample(**quick), model.sample(**quick, order=0.7)
    assert [grid.angle for grid in (*upright.grids, *order.grids)] == [0, 0, 0, 0]
    assert order.measured["order"].shape == (2,)
    turned = model.sample(**quick, bearing=33.0)
    assert {grid.angle for grid in turned.grids} == {33}
    assert turned.comparison().loc["bearing", "requested"] == pytest.approx(33)


@pytest.mark.filterwarnings("ignore::citygrain.spec.OutOfRangeWarning")
def test_areas_lie_at_one_bearing(model):
    quick = {"sampler": {"steps": 2}, "n": 1, "extent_m": [200, 160]}
    area = model.sample(**quick, bearing=20.0, order=0.6)
    assert area.grids[0].angle == 20
    assert area.cells.shape[2:] == (40, 50)
    assert area.measured["bearing"].shape == area.measured["order"].shape == (1,)
    with pytest.raises(ConditionError, match="one bearing"):
        model.sample(**quick, bearing={"from": 0, "to": 20, "towards": "east"})


def test_attempts_follow_the_order_and_leave_the_bearing(model):
    asked = {"n": 4, "sampler": {"steps": 2}, "order": "p90", "bearing": "p50"}
    once, often = (model.sample(**asked, attempts=attempts) for attempts in (1, 3))
    errors = [np.abs(of.measured["order"] - of.requested["order"]) for of in (once, often)]
    assert (errors[1] <= errors[0] + 1e-6).all()
    assert often.requested["bearing"] == pytest.approx(once.requested["bearing"])
    assert list_sweepable(model.spec) == [name for name in list_sweepable(model.spec) if name != "bearing"]
    assert "order" in list_sweepable(model.spec)


def test_feedback_goes_through_the_order(model):
    plain, pulled = (
        model.sample(4, order="p95", sampler={"steps": 6, "tolerance": tolerance}) for tolerance in (np.inf, 0.02)
    )
    missed = [np.abs(of.measured["order"] - of.requested["order"]).mean() for of in (plain, pulled)]
    assert missed[1] < missed[0]


def test_given_streets_lie_where_they_do_in_the_city(runs, cities, place):
    model = citygrain.Model(runs / "pix2pix", device="cpu")
    windows = read_given_windows(model.generator, 3, data=cities)
    assert {grid.angle for grid in windows.grids} != {0}
    for cells, grid in zip(windows.cells, windows.grids, strict=True):
        there = warp(place, grid, windows.channels)
        assert np.corrcoef(cells.ravel(), there.ravel())[0, 1] > 0.98
    assert measure_alignment(read_given_windows(model.generator, 24, data=cities)) > 0.9
    drawn = model.sample(3, data=cities)
    assert drawn.grids == windows.grids
    street = drawn.channels.index("street")
    assert np.array_equal(drawn.cells[:, street], windows.cells[:, street])
    assert drawn.measured["bearing"].shape == (3,)
    with pytest.raises(ConfigError, match="where their given channels are"):
        model.sample(1, data=cities, bearing=20.0)


def test_a_site_is_redrawn_in_the_frame_of_the_streets_around_it(model, cities, place, middle):
    quick = {"at": middle, "size_m": 48, "context_m": 20, "n": 1, "sampler": {"steps": 2}, "data": cities}
    edit = model.edit("helsinki", **quick)
    grid = edit.layouts.grids[0]
    outline = locate_site(place.crs, at=middle, size_m=48)
    assert grid.angle % 90 == pytest.approx(find_bearing(place, model.spec, outline), abs=1e-3)
    assert grid.angle
    assert grid.outline.contains(outline.buffer(19))
    assert measure_alignment(edit.before) > 0.6
    there = warp(place, grid, edit.layouts.channels)
    assert np.corrcoef(edit.before.cells[0].ravel(), there.ravel())[0, 1] > 0.98
    free = edit.site.free
    assert free.sum() * 16 == pytest.approx(48**2, rel=0.1)
    assert np.array_equal(edit.after.cells[0][:, ~free], edit.before.cells[0][:, ~free])
    assert not np.array_equal(edit.after.cells[0][:, free], edit.before.cells[0][:, free])


@pytest.mark.filterwarnings("ignore::citygrain.spec.OutOfRangeWarning")
def test_a_site_is_redrawn_at_the_bearing_that_is_requested(model, cities, middle, tmp_path):
    quick = {"at": middle, "size_m": 48, "context_m": 20, "n": 1, "sampler": {"steps": 2}, "data": cities}
    edit = model.edit("helsinki", **quick, bearing=12.0, order=0.5)
    assert {grid.angle for grid in edit.layouts.grids} == {12}
    table = edit.table().set_index(["layout", "measure"])
    assert table.loc[("after_00", "bearing"), "asked"] == pytest.approx(12)
    assert table.loc[("after_00", "bearing"), "unit"] == "°"
    assert abs(table.loc[("after_00", "bearing"), "measured"] - 12) <= 45
    edit.save(tmp_path)
    assert citygrain.open_layout(tmp_path / "layouts" / "before.tif").grids[0] == edit.before.grids[0]


@pytest.mark.filterwarnings("ignore::citygrain.spec.OutOfRangeWarning")
def test_it_is_judged_against_turned_windows(cities, tmp_path):
    smaller = ["data.size_px=8", f"paths.data={cities}", f"paths.runs={tmp_path}"]
    train(load_config("train", ["model=diffusion", "name=smaller", *NARROW, *DATA, *smaller]))
    report = citygrain.Model(tmp_path / "smaller", device="cpu").evaluate(
        n=16, ask=["place", "order", "bearing"], out=tmp_path, bootstrap=5, workers=1, data=cities,
        sampler={"steps": 2}, embedding=Embedding(steps=2), classifier=Classifier(steps=2),
        memorisation=Memorisation(windows=16), obedience=Obedience(conditions=["order"], levels=2, each=2, attempts=2),
    )  # fmt: skip
    assert set(report.obedience) == {"order"}
    assert report.obedience["order"].label == "order of the streets"


def test_who_begins_from_a_model_of_turned_windows_has_turned_windows(runs, cities, tmp_path):
    chosen = [option for option in DATA if not option.startswith("data.frame")]
    begun = [f"init_from={runs / 'diffusion'}", f"paths.data={cities}", f"paths.runs={tmp_path}"]
    train(load_config("train", ["name=more", *chosen, *begun]))
    assert citygrain.Model(tmp_path / "more", device="cpu").provenance["data"]["frame"] == "streets"
