"""`citygrain edit` as a user runs it: before and after at their place on Earth, and refused in plain words."""

import csv

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely

from citygrain.data.cityraster import CityRaster
from citygrain.errors import ConfigError, DataError, PlaceError
from citygrain.support.config import load_config
from citygrain.verbs.edit import run
from citygrain.verbs.sample import run as sample
from citygrain.verbs.train import run as train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:.*LeafSpec.*"),
]
DATA = [
    "data.places=[helsinki]", "data.resolution_m=4", "data.size_px=32", "data.batch_size=16",
    "data.batches_per_epoch=2", "data.val_windows=0", "data.statistics_windows=64", "trainer=cpu",
    "trainer.max_steps=2", "logger=none", "callbacks.samples.every_n_epochs=0", "~callbacks.progress",
]  # fmt: skip
NARROW = ["model.network.width=16", "model.network.widths=[1,2]", "model.embedding=32", "model.network.attention=[]"]


@pytest.fixture(scope="module")
def models(cities, tmp_path_factory):
    """Two models of Helsinki that have learned nothing: one that draws areas, one that draws windows only."""
    runs = tmp_path_factory.mktemp("runs")
    paths = [f"paths.data={cities}", f"paths.runs={runs}"]
    train(load_config("train", ["model=diffusion", "name=diffusion", *NARROW, *DATA, *paths]))
    train(load_config("train", ["model=boltzmann_machine", "name=boltzmann_machine", *DATA, *paths]))
    return runs


@pytest.fixture(scope="module")
def around_ways(cities, tmp_path_factory):
    """A model of Helsinki that draws around given ways, and has learned nothing."""
    runs = tmp_path_factory.mktemp("runs")
    small = ["model.network.width=16", "model.network.widths=[1,2]", "model.embedding=32", "model.crop_px=16"]
    paths = [f"paths.data={cities}", f"paths.runs={runs}"]
    train(load_config("train", ["model=ground_diffusion", "name=ground", *small, *DATA, *paths]))
    return runs


@pytest.fixture(scope="module")
def place(cities):
    return CityRaster.open(cities / "helsinki")


@pytest.fixture(scope="module")
def middle(place):
    """Longitude and latitude of a place with houses and streets."""
    left, bottom, right, top = place.grid.bounds
    point = gpd.GeoSeries([shapely.Point((left + right) / 2, (bottom + top) / 2)], crs=place.crs).to_crs("EPSG:4326")
    return point.x[0], point.y[0]


def config(models, cities, out, *more, model="diffusion"):
    return load_config(
        "edit",
        [
            f"checkpoint={models / model}", "place=helsinki", f"out={out}", "n=2", "size_m=48", "context_m=20",
            f"paths.data={cities}", *more,
        ],
    )  # fmt: skip


def bands(path):
    with rasterio.open(path) as tif:
        return tif.read(), tif.transform, tif.crs, tif.descriptions


@pytest.fixture(scope="module")
def edited(models, cities, middle, tmp_path_factory):
    out = tmp_path_factory.mktemp("edit")
    run(config(models, cities, out, f"at=[{middle[0]},{middle[1]}]", "conditions.coverage=0.4", "sampler.steps=2"))
    return out


def test_outside_the_site_all_is_what_it_was_at_its_place_on_earth(edited, place, middle):
    before, transform, crs, channels = bands(edited / "layouts" / "before.tif")
    assert crs.to_string() == place.crs
    row = round((place.grid.top - transform.f) / 4)
    column = round((transform.c - place.grid.left) / 4)
    level = place.level(4.0)
    there = level.array[:, row : row + before.shape[1], column : column + before.shape[2]]
    names = [place.channels.index(name) for name in channels]
    assert np.array_equal(before, there[names])
    site = gpd.GeoSeries([shapely.Point(middle)], crs="EPSG:4326").to_crs(crs)[0]
    for i in range(2):
        after, *same = bands(edited / "layouts" / f"after_{i:02d}.tif")
        assert same == [transform, crs, channels]
        rows, columns = np.nonzero((after != before).any(0))
        assert len(rows) > 100
        x, y = map(np.array, rasterio.transform.xy(transform, rows, columns))
        assert np.abs(x - site.x).max() <= 24
        assert np.abs(y - site.y).max() <= 24
    assert not list((edited / "layouts").glob("after_02*"))


def test_vectors_and_measures_stand_beside_the_pictures(edited):
    houses = gpd.read_file(edited / "layouts.gpkg", layer="building")
    assert set(houses.layout) <= {"before", "after_00", "after_01"}
    assert houses.crs.to_epsg() == 32635
    assert (edited / "sheet.png").stat().st_size > 2000
    with (edited / "measured.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    site = {r["layout"]: r for r in rows if r["of"] == "site" and r["measure"] == "coverage"}
    assert site["before"]["asked"] == ""
    assert float(site["after_00"]["asked"]) == 0.4
    layout, *_ = bands(edited / "layouts" / "before.tif")
    whole = next(r for r in rows if (r["layout"], r["of"], r["measure"]) == ("before", "area", "coverage"))
    assert float(whole["measured"]) == pytest.approx(layout[0].mean() / 255, rel=1e-4)
    stayed = {(r["layout"], r["measure"]): float(r["measured"]) for r in rows if r["measure"].startswith("stayed")}
    assert stayed["before", "stayed"] == stayed["before", "stayed_building"] == 1
    assert 0 < stayed["after_00", "stayed"] < 1
    ends = [float(r["measured"]) for r in rows if r["measure"] == "streets_going_on"]
    assert len(ends) == 3
    assert all(0 <= share <= 1 for share in ends)


def test_a_polygon_and_channels_that_stay(models, cities, place, middle, tmp_path):
    left, bottom = place.grid.left + 300, place.grid.bounds[1] + 300
    triangle = shapely.Polygon([(left, bottom), (left + 200, bottom), (left, bottom + 150)])
    gpd.GeoSeries([triangle], crs=place.crs).to_crs("EPSG:4326").to_file(tmp_path / "site.geojson")
    out = run(
        config(
            models, cities, tmp_path / "out", f"site={tmp_path / 'site.geojson'}", "keep=[street]", "strength=0.6",
            "n=1", "sampler.steps=2", "begin=inversion",
        )
    )  # fmt: skip
    before, transform, _, channels = bands(out / "layouts" / "before.tif")
    after, *_ = bands(out / "layouts" / "after_00.tif")
    changed = (after != before).any(0)
    x, y = map(np.array, rasterio.transform.xy(transform, *np.nonzero(changed)))
    assert shapely.contains_xy(triangle.buffer(0.5), x, y).all()
    assert changed.sum() > 0.5 * triangle.area / 16
    street = channels.index("street")
    assert np.array_equal(after[street], before[street])
    with (out / "measured.csv").open(encoding="utf-8") as stream:
        stayed = {(r["layout"], r["measure"]): r["measured"] for r in csv.DictReader(stream)}
    assert float(stayed["after_00", "stayed_street"]) == 1
    assert before.shape[1] > 32, "several windows"


def test_a_family_of_windows_redraws_what_fits_into_one_and_more_in_turn(models, cities, middle, tmp_path):
    at = f"at=[{middle[0]},{middle[1]}]"
    out = run(config(models, cities, tmp_path, at, "n=1", "sampler.steps=3", model="boltzmann_machine"))
    before, *_ = bands(out / "layouts" / "before.tif")
    assert before.shape[1:] == (32, 32)
    assert (bands(out / "layouts" / "after_00.tif")[0] != before).any()
    settings = ["n=1", "size_m=200", "sampler.steps=1"]
    larger = run(config(models, cities, tmp_path / "larger", at, *settings, model="boltzmann_machine"))
    before, after = (bands(larger / "layouts" / f"{name}.tif")[0] for name in ("before", "after_00"))
    assert min(before.shape[1:]) >= 60, "several windows"
    changed = (after != before).any(0)
    assert changed[7:53, 7:53].any(0).all()
    changed[4:57, 4:57] = False
    assert not changed.any()


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ([], ConfigError, "Where is the site"),
        (["at=[24.94,60.17]", "site=a.geojson"], ConfigError, "Where is the site"),
        (["at=[somewhere]"], ConfigError, "longitude,latitude"),
        (["at=[10,50]"], DataError, "does not lie in helsinki"),
        (["at=[60.1735,24.9414]"], DataError, "longitude, then its latitude"),
        (["site=nothing.geojson"], PlaceError, "does not exist"),
        (["AT", "keep=[gold]"], ConfigError, "no such channel"),
        (["AT", "size_m=0"], ConfigError, "size_m > 0"),
        (["AT", "strength=2"], ConfigError, "0 < strength"),
        (["AT", "n=0"], ConfigError, "at least 1"),
    ],
)
def test_what_is_no_site_is_refused_in_words(wrong, error, words, models, cities, middle, tmp_path):
    wrong = [f"at=[{middle[0]},{middle[1]}]" if part == "AT" else part for part in wrong]
    with pytest.raises(error, match=words):
        run(config(models, cities, tmp_path, *wrong))
    assert not list(tmp_path.iterdir())


def test_an_area_of_any_extent_is_sampled_and_lies_where_it_should(models, cities, tmp_path):
    out = sample(
        load_config(
            "sample",
            [
                f"checkpoint={models / 'diffusion'}", f"out={tmp_path}", "n=2", "extent_m=[230,150]", "sampler.steps=2",
                "conditions.coverage={from:0.1,to:0.5,towards:east}", "georeference.crs=EPSG:32635",
                "georeference.origin=[385000,6672000]",
            ],
        )
    )  # fmt: skip
    first, transform, *_ = bands(out / "layouts" / "layout_0000.tif")
    _, second, *_ = bands(out / "layouts" / "layout_0001.tif")
    assert first.shape[1:] == (38, 58)
    assert (transform.c, transform.f) == (385_000, 6_672_000)
    assert second.c > 385_000 + 58 * 4
    with (out / "measured.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert float(rows[0]["requested_coverage"]) == pytest.approx(0.3, abs=1e-3)
    assert float(rows[0]["measured_coverage"]) == pytest.approx(first[0].mean() / 255, abs=1e-4)
    with pytest.raises(ConfigError, match="width and a height"):
        sample(load_config("sample", [f"checkpoint={models / 'diffusion'}", "extent_m=[5]", f"out={tmp_path}"]))
    twice = [f"checkpoint={models / 'diffusion'}", "extent_m=[230,150]", "attempts=2", f"out={tmp_path}"]
    with pytest.raises(ConfigError, match="Areas are drawn once"):
        sample(load_config("sample", twice))


def test_a_model_that_is_given_ways_redraws_what_stands_along_those_of_the_site(around_ways, cities, middle, tmp_path):
    at = f"at=[{middle[0]},{middle[1]}]"
    run(config(around_ways, cities, tmp_path, at, "conditions.coverage=0.4", "sampler.steps=2", model="ground"))
    before, _, _, channels = bands(tmp_path / "layouts" / "before.tif")
    after = bands(tmp_path / "layouts" / "after_00.tif")[0]
    same = {name for name, old, new in zip(channels, before, after, strict=True) if np.array_equal(old, new)}
    assert same >= {"arterial", "street", "service", "cycle", "walk", "rail"}
    assert not same & {"building", "green"}
