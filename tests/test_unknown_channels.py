"""A place need not know all that a model draws: what it does not know is empty there, not drawn, and that is said."""

import threading
from dataclasses import replace

import geopandas as gpd
import numpy as np
import pytest
import shapely
import torch

import families
from citygrain.app.sites import read_ground, redraw_site
from citygrain.app.studio import Studio
from citygrain.checkpoint import build_generator
from citygrain.data.cityraster import CityRaster
from citygrain.errors import ConditionError, ConfigError, DataError
from citygrain.generation.edits import edit
from citygrain.networks.stroke_steps import NEXT
from citygrain.spec import LayoutSpec
from citygrain.support.config import load_config
from citygrain.verbs import edit as verb

WAYS = ("arterial", "street", "walk")
SCALARS = ("street_density", "walk")
RAMP = {"all": tuple(range(101))}
SPEC = LayoutSpec(WAYS, 64, 4.0, scalars=SCALARS, places=("here",), statistics=dict.fromkeys(SCALARS, RAMP))


@pytest.fixture(scope="module")
def place(cities):
    """Helsinki, if nobody had looked at its footways."""
    raster = CityRaster.open(cities / "helsinki")
    return replace(raster, unknown={**raster.unknown, "walk": "nobody looked"})


@pytest.fixture(scope="module")
def at(place):
    left, bottom, right, top = place.grid.bounds
    middle = gpd.GeoSeries([shapely.Point((left + right) / 2, (bottom + top) / 2)], crs=place.crs).to_crs("EPSG:4326")
    return middle.x[0], middle.y[0]


@pytest.fixture(scope="module")
def model(place):
    """A model of ways that has learned nothing, and draws some of each kind."""

    def make(*, allow_unknown):
        torch.manual_seed(0)
        made = build_generator(families.config("stroke_transformer") | {"rows": 300}, SPEC).eval()
        with torch.no_grad():
            for p in made.parameters():
                p.add_(0.2 * torch.randn_like(p))
            made.network.op_logits.bias[NEXT] += 2  # few of the first kind, so that there is room for the others
        data = {
            "places": {"here": dict(place.provenance)}, "rules": {"size_px": 64, "resolution_m": 4.0}, "seed": 0,
            "balance": "places", "frame": "streets", "allow_unknown": allow_unknown,
        }  # fmt: skip
        made.provenance = {"data": data}
        return made

    return make


@pytest.fixture(scope="module")
def edited(model, place, at):
    return edit(model(allow_unknown=True), place, conditions={}, at=at, size_m=120, n=1)


def test_what_a_place_does_not_know_is_empty_and_not_drawn(edited, model, place, at):
    walk = WAYS.index("walk")
    assert edited.unknown == ("walk",)
    assert not edited.layouts.cells[:, walk].any()
    assert (edited.after.cells[:, :2, edited.site.free] != edited.before.cells[:, :2, edited.site.free]).any()
    known = edit(model(allow_unknown=True), replace(place, unknown={}), conditions={}, at=at, size_m=120, n=1)
    assert known.unknown == ()
    assert known.before.cells[0, walk].any(), "the place has footways"
    assert known.after.cells[0, walk][known.site.free].any(), "and the model draws some"


def test_it_is_said_and_nothing_is_measured_on_it(edited, monkeypatch, capsys):
    assert "not known there: walk" in repr(edited)
    measures = set(edited.table()["measure"])
    assert "street_density" in measures
    assert not {"walk", "stayed_walk"} & measures
    monkeypatch.setattr("citygrain.model.Model.__init__", lambda *_, **__: None)
    monkeypatch.setattr("citygrain.model.Model.edit", lambda *_, **__: edited)
    monkeypatch.setattr("citygrain.generation.edits.Edit.save", lambda *_: None)
    verb.run(load_config("edit", ["checkpoint=x", "place=here", "at=[0,0]"]))
    assert "not known there, and not drawn: walk" in capsys.readouterr().out


def test_what_it_does_not_know_cannot_be_asked_of_it(model, place, at):
    with pytest.raises(ConditionError, match=r"does not know what walk is measured on"):
        edit(model(allow_unknown=True), place, conditions={"walk": 5.0}, at=at)
    with pytest.raises(ConfigError, match="nothing is redrawn"):
        edit(model(allow_unknown=True), place, conditions={}, at=at, keep=["arterial", "street"])


def test_a_model_of_places_that_know_all_asks_for_a_place_that_does(model, place, at):
    with pytest.raises(DataError, match=r"channel walk is not known[\s\S]*nobody looked"):
        edit(model(allow_unknown=False), place, conditions={}, at=at)
    blind = replace(place, unknown=dict.fromkeys(WAYS, "nobody looked"))
    with pytest.raises(DataError, match=r"channel arterial is not known"):
        edit(model(allow_unknown=True), blind, conditions={}, at=at)


def test_the_page_takes_such_a_place_too(model, place, at, tmp_path, monkeypatch):
    monkeypatch.setattr(CityRaster, "open", lambda _: place)
    here = Studio("x", model(allow_unknown=True), place.path.parent, threading.Lock())
    ground = read_ground(here, "helsinki", *at)
    assert ground.unknown == ("walk",)
    free = np.zeros((64, 64), bool)
    free[20:40, 20:40] = True
    made = redraw_site(here, ground, free, {}, tmp_path)
    assert not made.edit.layouts.cells[:, WAYS.index("walk")].any()
    assert not [row for row in made.rows if "footway" in row[0]]
