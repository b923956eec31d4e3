"""A model in the hand does what the command line does, by the same names."""

from __future__ import annotations

import inspect
from dataclasses import replace

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely

import citygrain
from citygrain.data.cityraster import CityRaster
from citygrain.errors import CapabilityError, CitygrainError, ConditionError, ConfigError, DataError
from citygrain.generation.georeference import GAP_CELLS, Georeference, lay_side_by_side
from citygrain.generation.given import read_given_windows
from citygrain.samplers.diffusion import DpmSolver
from citygrain.support.config import load_config
from citygrain.support.options import parse
from citygrain.verbs.edit import run as run_edit
from citygrain.verbs.sample import run as run_sample

AROUND = {"checkpoint", "device", "threads", "out", "paths", "conditions"}
"""Keys of a verb that belong to the model, to the machine, or to what is written."""

QUICK = {"steps": 2, "tolerance": float("inf"), "guidance": 1.0}


@pytest.fixture(scope="module")
def model():
    return citygrain.Model("reference/cities_64", device="cpu")


def keywords(function):
    """Names and defaults of the keywords of a method; conditions are what is left over."""
    kept = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in kept if p.name not in {"self", "data"} and p.kind is not p.VAR_KEYWORD}


def keys(verb, *overrides):
    """Keys and defaults of a verb's configuration."""
    return {key: value for key, value in load_config(verb, overrides).items() if key not in AROUND}


def test_sample_has_the_keys_of_the_verb():
    mine, theirs = keywords(citygrain.Model.sample), keys("sample", "checkpoint=x")
    assert mine.keys() == theirs.keys()
    for name in mine.keys() - {"given", "georeference", "sampler"}:
        assert mine[name] == theirs[name], name
    assert mine["georeference"] == Georeference(**theirs["georeference"])
    assert not [value for value in theirs["sampler"].values() if value is not None]


def test_edit_has_the_keys_of_the_verb():
    mine, theirs = keywords(citygrain.Model.edit), keys("edit", "checkpoint=x")
    assert mine.keys() - {"like"} == theirs.keys()  # `place` of the conditions
    for name in mine.keys() - {"like", "place", "sampler"}:
        assert mine[name] == (tuple(theirs[name]) if isinstance(theirs[name], list) else theirs[name]), name


def test_evaluate_has_the_keys_and_defaults_of_the_verb():
    mine, theirs = keywords(citygrain.Model.evaluate), keys("evaluate", "checkpoint=x")
    assert mine.pop("out") == load_config("evaluate", ["checkpoint=x"])["out"]
    assert mine.keys() == theirs.keys()
    for name in mine.keys() - {"sampler"}:
        told = theirs[name]
        assert mine[name] == (parse(type(mine[name]), told) if isinstance(told, dict) else told), name


def test_export_has_the_keys_of_the_verb():
    whole = load_config("export", ["checkpoint=x", "out=y"])
    assert {**keywords(citygrain.Model.export), "out": "y", "checkpoint": "x"} == whole


def test_a_model_draws_what_the_command_line_writes(model, tmp_path):
    asked = ["n=2", "seed=4", "conditions.coverage=0.3", "conditions.cycle=p90", "conditions.place=copenhagen"]
    turned = [f"sampler.{name}={value}" for name, value in QUICK.items()]
    run_sample(
        load_config("sample", ["checkpoint=reference/cities_64", "device=cpu", *asked, *turned, f"out={tmp_path}"])
    )
    written = citygrain.open_layout(tmp_path)
    drawn = model.sample(2, seed=4, coverage=0.3, cycle="p90", place="copenhagen", sampler=QUICK)
    assert np.array_equal(drawn.cells, written.cells)
    assert drawn.grids == written.grids
    assert drawn.measure().equals(written.measure())
    assert {k: list(v) for k, v in drawn.requested.items()} == {k: list(v) for k, v in written.requested.items()}


def test_levels_are_combined_and_stand_in_rows(model):
    drawn = model.sample(coverage=[0.1, 0.2, 0.3], cycle=[0, 2], sampler=QUICK)
    assert len(drawn) == 6
    assert drawn.columns == 2
    assert drawn.requested["coverage"].tolist() == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.3, 0.3])
    assert set(drawn.seeds) == {0}


def test_a_sampler_is_an_object_or_settings_of_the_own_one(model):
    settings = model.sample(1, seed=2, sampler=QUICK)
    whole = model.sample(1, seed=2, sampler=replace(model.sampler, **QUICK))
    assert np.array_equal(settings.cells, whole.cells)
    with pytest.raises(CapabilityError, match="no such setting"):
        model.sample(1, sampler={"stepps": 3})
    with pytest.raises(ConfigError, match="no sampler"):
        model.sample(1, sampler="heun")


def test_a_site_is_redrawn_as_the_command_line_does_it(model, cities, tmp_path):
    where = ["place=helsinki", "at=[24.9414,60.1735]", f"paths.data={cities}", "n=1", "keep=[arterial]"]
    asked = ["conditions.coverage=0.4", "conditions.place=copenhagen", "sampler.steps=2"]
    run_edit(load_config("edit", ["checkpoint=reference/cities_64", "device=cpu", *where, *asked, f"out={tmp_path}"]))
    edit = model.edit(
        "helsinki", at=(24.9414, 60.1735), data=cities, n=1, keep=["arterial"], coverage=0.4, like="copenhagen",
        sampler={"steps": 2},
    )  # fmt: skip
    assert edit.layouts.names == ("before", "after_00")
    for name, cells in zip(edit.layouts.names, edit.layouts.cells, strict=True):
        assert np.array_equal(citygrain.open_layout(tmp_path / "layouts" / f"{name}.tif").cells[0], cells)
    outside = ~edit.site.free
    assert np.array_equal(edit.before.cells[0][:, outside], edit.after.cells[0][:, outside])
    table = edit.table()
    assert table[table["layout"] == "before"]["asked"].isna().all()
    wanted = table.query("layout == 'after_00' and of == 'site' and measure == 'coverage'")
    assert wanted["asked"].item() == pytest.approx(0.4)
    assert edit.comparison().loc["coverage", "after"] == pytest.approx(wanted["measured"].item())
    assert "<img" in edit._repr_html_()
    cells = int(edit.site.free.sum())
    assert f" of redrawing {cells} cells of 8 m in {edit.site.grid.crs}; asked: coverage 0.4; kept: " in repr(edit)


def test_given_channels_are_named_by_a_place(cities):
    model = citygrain.Model("reference/streets_to_buildings_256", device="cpu")
    drawn = model.sample(1, given=citygrain.Given("helsinki", "train"), data=cities, coverage=0.2)
    street = model.spec.channels.index("street")
    assert np.array_equal(drawn.cells[0, street], drawn.given.cells[0, street])
    assert drawn.grids == drawn.given.grids
    assert drawn.given.source == "train windows of helsinki"
    with pytest.raises(ConfigError, match="where their given channels are"):
        model.sample(1, given="helsinki", data=cities, georeference=Georeference(place="helsinki"))


@pytest.mark.parametrize("split", ["train", "all"])
def test_given_channels_lie_where_they_are_in_the_city(cities, split):
    model = citygrain.Model("reference/streets_to_buildings_256", device="cpu")
    given = read_given_windows(model.generator, 3, citygrain.Given("helsinki", split), data=cities)
    raster = CityRaster.open(cities / "helsinki")
    for layout, grid in zip(given.cells, given.grids, strict=True):
        there = raster.window(bounds=grid.bounds, resolution_m=grid.resolution_m)
        houses = (of.index("building") for of in (given.channels, there.channels))
        assert np.array_equal(layout[next(houses)], there.cells[0, next(houses)])


def test_a_layout_goes_through_the_code_and_back(model):
    drawn = model.sample(2, sampler=QUICK)
    codes = model.encode(drawn)
    assert codes.shape == (2, *model.codec.code_shape)
    back = model.decode(codes)
    assert back.channels == drawn.channels
    assert abs(back.shares - drawn.shares).mean() < 0.05
    with pytest.raises(DataError, match="other layouts"):
        model.encode(replace(drawn, resolution_m=4.0, grids=()))


def test_what_a_family_cannot_do_it_says(model):
    with pytest.raises(ConditionError, match="does not know this condition"):
        model.sample(1, attemps=4)
    with pytest.raises(ConfigError, match="attempts"):
        model.sample(1, attempts=0)
    flat = citygrain.Model("reference/streets_to_buildings_256", device="cpu")
    with pytest.raises(CapabilityError):
        flat.encode(model.sample(1, sampler=QUICK))
    with pytest.raises(CapabilityError):
        _ = flat.codec


def test_a_model_tells_what_it_is(model):
    told = repr(model)
    assert "reference/cities_64" in told
    assert "Diffusion" in told
    assert all(place in told for place in model.spec.places)


def test_values_of_numpy_are_as_good_as_those_of_python(model):
    drawn = model.sample(np.int64(1), seed=np.int32(2), attempts=np.int64(1), batch_size=np.int16(2), sampler=QUICK)
    assert drawn == model.sample(1, seed=2, sampler={**QUICK, "steps": np.int64(QUICK["steps"])})
    assert all(type(seed) is int for seed in drawn.seeds)
    levels = model.sample(coverage=np.array([0.1, 0.2]), sampler=QUICK)
    assert levels == model.sample(coverage=[0.1, 0.2], sampler=QUICK)


def test_a_map_of_values_is_named_by_text_or_a_path(model, tmp_path):
    grid = model.sample(1, sampler=QUICK).grids[0]
    path = tmp_path / "green.tif"
    with rasterio.open(
        path, "w", driver="GTiff", dtype="float32", count=1, width=grid.width, height=grid.height, crs=grid.crs,
        transform=grid.transform,
    ) as tif:  # fmt: skip
        tif.write(np.full((1, grid.height, grid.width), 0.25, np.float32))
    drawn = model.sample(1, green=path, sampler=QUICK)
    assert drawn.requested["green"].tolist() == [0.25]
    assert drawn == model.sample(1, green=str(path), sampler=QUICK)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        *(({"n": n}, "at least 1") for n in (0, True, 1.0, "2", [1], 2**70)),
        *(({"batch_size": of}, "at least 1") for of in (0, 1.5, "2", None)),
        *(({"seed": seed}, "no seed") for seed in (1.5, "1", None, True, 2**64, -(2**63) - 1)),
        *(({"attempts": of}, "drawn once at least") for of in (0, True, 1.5, None)),
        *(({"sampler": of}, "no sampler") for of in ("heun", 5, [], DpmSolver)),
        ({"georeference": "nowhere"}, "no such place"),
        ({"georeference": {"place": "paris"}}, "no such place"),
        ({"georeference": Georeference(crs="EPSG:32633", origin=5)}, "easting and a northing"),
        ({"coverage": {"from": 0, "to": None, "towards": "east"}}, "not clear how coverage varies"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_words(model, wrong, says):
    with pytest.raises(CitygrainError, match=says):
        model.sample(**{"n": 1, "sampler": QUICK, **wrong})


def test_layouts_lie_at_the_place_that_is_named(model):
    drawn = model.sample(1, georeference="paris", sampler=QUICK)
    assert drawn.grids == model.sample(1, georeference=Georeference("paris"), sampler=QUICK).grids


@pytest.mark.slow
def test_a_site_is_a_polygon_or_a_table_of_them(model, cities):
    outline = shapely.box(24.940, 60.172, 24.943, 60.174)
    table = gpd.GeoDataFrame(geometry=[outline], crs="EPSG:4326")
    freed = [
        model.edit(CityRaster.open(cities / "helsinki"), site=site, n=1, keep="rail", sampler=QUICK)
        for site in (outline, table, table.geometry, table.to_crs("EPSG:32635"))
    ]
    assert all(np.array_equal(edit.site.free, freed[0].site.free) for edit in freed)
    assert freed[0].kept == ("rail",)
    assert freed[0].layouts == freed[1].layouts


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        *(({"at": at}, "no site") for at in (24.9, (24.9,), (np.nan, 60.0), np.array([24.94, 60.17, 3.0]))),
        ({"size_m": float("inf")}, "no site"),
        *(({"at": None, "site": site}, "holds no ground") for site in (
            shapely.Polygon(), shapely.Point(24.941, 60.173), shapely.box(386_000, 6_672_000, 386_200, 6_672_200)
        )),
        ({"at": None, "site": gpd.GeoSeries([shapely.box(24.940, 60.172, 24.943, 60.174)])}, "where it lies"),
        *(({"context_m": of}, "context_m ≥ 0") for of in (-1.0, float("nan"), float("inf"))),
        *(({"n": n}, "at least 1") for n in (0, 1.5, None)),
        ({"seed": 2**64}, "no seed"),
        ({"sampler": "heun"}, "no sampler"),
        ({"place": 5}, "In which prepared place"),
    ],
)  # fmt: skip
def test_a_site_that_is_none_is_refused_in_words(model, cities, wrong, says):
    with pytest.raises(CitygrainError, match=says):
        model.edit(**{"place": "helsinki", "at": (24.9414, 60.1735), "data": cities, "sampler": QUICK, **wrong})


def test_codes_of_another_shape_are_refused(model):
    none = model.encode(model.sample(1, sampler=QUICK)[:0])
    assert none.shape == (0, *model.codec.code_shape)
    assert len(model.decode(none)) == 0
    code = np.zeros(model.codec.code_shape, np.float32)
    for wrong in (code, code[None, :1], code[None] * np.nan, code.reshape(1, -1)):
        with pytest.raises(DataError, match="no codes of this model"):
            model.decode(wrong)


def test_layouts_lie_from_west_to_east_and_row_by_row_to_the_south():
    grids = [*lay_side_by_side((32, 64), 8.0, 5, ("EPSG:32633", 1000.0, 9000.0), columns=2)]
    east, south = (64 + GAP_CELLS) * 8.0, (32 + GAP_CELLS) * 8.0
    corners = [(grid.left - 1000.0, 9000.0 - grid.top) for grid in grids]
    assert corners == [(0, 0), (east, 0), (0, south), (east, south), (0, 2 * south)]
    assert {(grid.width, grid.height) for grid in grids} == {(64, 32)}


@pytest.mark.parametrize("extent_m", [None, (600, 512)])
def test_a_precision_is_the_one_that_is_drawn_in(model, extent_m):
    single, half = (model.sample(1, extent_m=extent_m, sampler=QUICK, precision=of) for of in ("32-true", "bf16-mixed"))
    assert not np.array_equal(single.cells, half.cells)
