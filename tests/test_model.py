"""A model in the hand does what the command line does, by the same names."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest

import citygrain
from citygrain.data.cityraster import CityRaster
from citygrain.errors import CapabilityError, ConditionError, ConfigError, DataError
from citygrain.generation.georeference import Georeference
from citygrain.generation.given import read_given_windows
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
    with pytest.raises(ConfigError, match="an object, not a name"):
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
