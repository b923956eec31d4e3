"""The page: what it draws, on its own; the server; and the whole of it in a browser."""

import asyncio
import contextlib
import dataclasses
import importlib.util
import inspect
import math
import os
import re
import socket
import subprocess
import sys
import threading
import types
import urllib.request
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

import citygrain
import families
from browser import CHROMIUM, opened, seen
from citygrain.app import serve
from citygrain.app.layouts import HEADINGS, MOST_LAYOUTS, draw_layouts, read_map
from citygrain.app.paths import PATH_HEADINGS, WALK_HEADINGS, draw_path, draw_walk, show_step, show_walk, usual_ends
from citygrain.app.server import find_free_port, load_studios
from citygrain.app.sites import (
    EDIT_HEADINGS,
    make_canvas,
    middle_of,
    open_ground,
    painted_cells,
    read_ground,
    redraw_site,
)
from citygrain.app.studio import Studio, keep_ticked, knobs_of, prepared_places, range_of, turn_knobs
from citygrain.checkpoint import Checkpoint, export_checkpoint, list_references, load
from citygrain.data.cityraster import CityRaster
from citygrain.errors import CapabilityError, CheckpointError, CitygrainError, ConfigError, DataError
from citygrain.geo.layers import CHANNEL_NAMES
from citygrain.geo.layout_files import write_geotiff
from citygrain.geo.rasterize import Grid
from citygrain.geo.vectorize import vectorize
from citygrain.measures import measure
from citygrain.plot import make_sheet, save_figure
from citygrain.protocols import Noise
from citygrain.spec import Conditions
from citygrain.support.config import load_config
from citygrain.verbs.app import run

ROOT = Path(__file__).resolve().parents[1]
NAME = "reference/cities_64"
needs_gradio = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason='gradio is not installed: pip install "citygrain[explore]"'
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    return Studio(NAME, citygrain.load(NAME), tmp_path_factory.mktemp("nothing_prepared"), threading.Lock())


@pytest.fixture(scope="module")
def models(cities, tmp_path_factory):
    """Models of Helsinki that learned nothing: one is given streets, one has no code, one is a code, one draws ways."""
    folder = tmp_path_factory.mktemp("models")
    places = {"helsinki": dict(CityRaster.open(cities / "helsinki").provenance)}
    data = {"places": places, "rules": {"size_px": 16, "resolution_m": 8.0}, "seed": 0, "balance": "places"}
    for name in ("pix2pix", "diffusion", "variational_autoencoder", "stroke_transformer"):
        model = families.make(name)
        spec = dataclasses.replace(model.spec, places=("there", "helsinki"))
        made = Checkpoint(families.config(name), spec, dict(model.state_dict()), {"data": data})
        export_checkpoint(made, folder / name)
    return folder


@pytest.fixture
def small(models, cities):
    """Return a studio of one of them, with prepared places or without."""

    def studio(name, prepared=True):
        data = cities if prepared else models / "nothing_prepared"
        return Studio(name, citygrain.load(models / name), data, threading.Lock())

    return studio


@pytest.fixture(scope="module")
def quick(studio):
    return turn_knobs(studio, "DpmSolver", {"steps": 2, "tolerance": None})


@pytest.fixture(scope="module")
def drawn(studio, quick, tmp_path_factory):
    return draw_layouts(
        studio, {"coverage": 0.3}, tmp_path_factory.mktemp("drawn"), place="los_angeles", seed=5, n=2, sampler=quick
    )


def bands(path):
    with rasterio.open(path) as tif:
        return tif.read(), tif.transform, tif.crs, tif.descriptions


# Sliders and knobs


def test_what_given_channels_settle_has_no_slider():
    spec = load("reference/streets_to_buildings_256").spec
    shown = [name for name in spec.scalars if range_of(spec, name) is not None]
    assert shown == ["coverage", "frontage", "people_flow", "green"]


def test_a_slider_has_its_unit_and_goes_as_far_as_training_did(studio):
    spec = studio.spec
    assert [one.name for one in studio.ranges] == list(spec.scalars)
    for one in studio.ranges:
        seen = spec.statistics[one.name]["all"]
        assert seen[0] - 1e-6 <= one.low <= one.middle <= one.high <= seen[-1] + 1e-6
        assert one.high - one.low > 0.9 * (seen[-1] - seen[0])
        assert abs(round((one.high - one.low) / one.step) - (one.high - one.low) / one.step) < 1e-6
    assert next(one for one in studio.ranges if one.name == "cycle").label == "cycleway density [km/km²]"


def test_a_condition_that_never_varied_has_no_slider(studio):
    plain = studio.spec.to_dict()
    plain["statistics"]["water"] = {"all": [0.0] * 101}
    assert range_of(type(studio.spec).from_dict(plain), "water") is None


def test_what_is_not_ticked_is_not_asked_for():
    values = {"coverage": 0.31, "green": 0.2, "cycle": None}
    assert keep_ticked(values, dict.fromkeys(values, False)) == {}
    assert keep_ticked(values, {"coverage": True, "green": False, "cycle": True}) == {"coverage": 0.31}


def test_the_samplers_fit_the_model_and_take_its_knobs(studio):
    own = studio.generator.sampler
    assert next(iter(studio.samplers)) == type(own).__name__
    assert set(studio.samplers) == {"Heun", "Euler", "Ancestral", "DpmSolver"}
    knobs = ("steps", "guidance", "tolerance")
    assert knobs_of(studio.samplers["Euler"]) == {name: getattr(own, name) for name in knobs}
    changed = turn_knobs(studio, "Euler", {"steps": 3.0, "guidance": 3.0, "tolerance": None, "temperature": 0.3})
    assert (type(changed).__name__, changed.steps, changed.guidance, changed.tolerance) == ("Euler", 3, 3.0, np.inf)
    assert changed.sigma_max == own.sigma_max
    with pytest.raises(ConfigError, match="DpmSolver"):
        turn_knobs(studio, "Gibbs", {})
    for wrong in ({"steps": 0}, {"steps": None}, {"guidance": float("nan")}, {"tolerance": 0}):
        with pytest.raises(ConfigError):
            turn_knobs(studio, "Heun", wrong)


def test_the_bearing_of_streets_is_a_knob_that_may_be_left_to_the_model(small, tmp_path):
    here = small("stroke_transformer")
    assert knobs_of(here.generator.sampler)["bearing"] is None
    asked = turn_knobs(here, "DrawStrokes", {"bearing": 30.0})
    assert (asked.bearing, knobs_of(asked)["bearing"]) == (30, 30)
    assert turn_knobs(here, "DrawStrokes", {"bearing": None}).bearing is None
    for wrong in (-1.0, 90.0, 91.0, math.nan):
        with pytest.raises(ConfigError, match="bearing"):
            turn_knobs(here, "DrawStrokes", {"bearing": wrong})
    drawn = draw_layouts(here, {}, tmp_path, n=1, seed=1, sampler=asked)
    assert drawn.layouts.grids[0].angle == 0, "the layout lies upright, and its streets do not"
    same = here.generator.sample(Conditions.empty(here.spec, 1), noise=Noise([1]), sampler=asked)
    assert np.array_equal(np.rint(same.numpy() * 255), drawn.layouts.cells)


def test_new_layouts_of_models_of_turned_windows_are_asked_for_a_bearing(studio):
    assert studio.ranges_of_layouts == studio.ranges
    scalars, degrees = (*studio.spec.scalars, "bearing"), {"all": [0.9 * p for p in range(100)] + [89.5]}
    statistics = {**studio.spec.statistics, "bearing": degrees}
    spec = dataclasses.replace(studio.spec, scalars=scalars, statistics=statistics)
    turned = Studio(NAME, types.SimpleNamespace(spec=spec), studio.data, studio.turn)
    assert turned.ranges == studio.ranges, "a site lies as what is around it, and on a path the grid stays"
    *others, last = turned.ranges_of_layouts
    assert tuple(others) == studio.ranges
    assert (last.label, last.low, last.high) == ("bearing of the streets [°]", 0, 89)
    given = Studio(NAME, types.SimpleNamespace(spec=dataclasses.replace(spec, given=("street",))), studio.data, None)
    assert "bearing" not in [one.name for one in given.ranges_of_layouts], "it is that of the given channels"


@pytest.mark.slow
@needs_gradio
def test_a_field_that_may_be_empty_holds_a_number_or_nothing(small):
    from citygrain.app.widgets import read_knob, write_knob

    for value in (None, 0.0, 30.0, 0.05):
        assert read_knob(write_knob(value)) == value
    assert read_knob(" ") is read_knob(None) is None
    assert math.isnan(read_knob("north"))
    with pytest.raises(ConfigError, match="bearing"):
        turn_knobs(small("stroke_transformer"), "DrawStrokes", {"bearing": read_knob("north")})


# Layouts


def test_a_sliders_value_is_the_request_and_the_picture_is_measured(studio, drawn):
    spec = studio.spec
    assert set(drawn.layouts.requested) == {"coverage"}
    assert np.allclose(drawn.layouts.requested["coverage"], 0.3)
    again = measure(drawn.layouts.shares, spec.channels, spec.resolution_m)
    rows = {row[0]: row for row in drawn.rows}
    assert all(len(row) == len(HEADINGS) for row in drawn.rows)
    assert drawn.rows[0] == ["building coverage (GSI)", "share", "0.3", *drawn.rows[0][3:]]
    assert float(drawn.rows[0][3]) == pytest.approx(float(again["coverage"].mean()), rel=5e-3)
    assert rows["street density"][1:3] == ["km/km²", ""]
    assert drawn.picture.mode == "RGB"
    assert np.std(drawn.picture) > 5


def test_downloads_hold_what_is_shown_at_its_place_on_earth(studio, drawn, tmp_path):
    with zipfile.ZipFile(drawn.zipped) as archive:
        archive.extractall(tmp_path / "unpacked")
    files = sorted((tmp_path / "unpacked" / "layouts").glob("*.tif"))
    assert len(files) == 2
    place = studio.generator.provenance["data"]["places"]["los_angeles"]
    for i, file in enumerate(files):
        layout, transform, crs, channels = bands(file)
        assert np.array_equal(layout, np.rint(drawn.layouts.shares[i] * 255))
        assert channels == studio.spec.channels
        assert crs.to_string() == place["crs"]
        assert (transform.a, transform.f) == (8.0, place["grid"]["left_top"][1])
    houses = gpd.read_file(drawn.vectors, layer="building")
    assert houses.crs == crs
    assert set(houses.layout) == {"layout_0000", "layout_0001"}
    grid = Grid(crs.to_string(), transform.c, transform.f, 8.0, 64, 64)
    last = vectorize(layout, channels, grid).layers()["building"]
    assert houses[houses.layout == "layout_0001"].area.sum() == pytest.approx(last.area.sum())


@pytest.mark.slow
def test_two_people_at_once_get_their_own(studio, quick, tmp_path):
    def both(seed):
        folder = tmp_path / str(seed)
        folder.mkdir()
        return draw_layouts(studio, {"coverage": seed / 100}, folder, seed=seed, n=1, sampler=quick)

    with ThreadPoolExecutor(2) as people:
        at_once = list(people.map(both, (10, 40)))
    for seed, mine in zip((10, 40), at_once, strict=True):
        alone = draw_layouts(studio, {"coverage": seed / 100}, tmp_path / "alone" / str(seed), seed=seed, n=1,
                             sampler=quick)  # fmt: skip
        # Up to one level of 255: another thread may round the last bit of a sum another way.
        assert np.abs(mine.layouts.shares - alone.layouts.shares).max() < 1.5 / 255
        assert np.abs(np.asarray(mine.picture, float) - np.asarray(alone.picture)).mean() < 0.5
        assert np.allclose(mine.layouts.requested["coverage"], seed / 100)
        assert mine.zipped.parent == tmp_path / str(seed)
    first, second = (drawn.layouts.shares for drawn in at_once)
    assert np.abs(first - second).max() > 0.5


@pytest.mark.parametrize(
    "wrong",
    [{"n": 0}, {"n": MOST_LAYOUTS + 1}, {"n": 1.5}, {"n": math.nan}, {"seed": -1}, {"seed": None}, {"attempts": 0}],
)
def test_what_cannot_be_drawn_is_refused(studio, quick, tmp_path, wrong):
    with pytest.raises(ConfigError, match="whole number"):
        draw_layouts(studio, {}, tmp_path, **{"sampler": quick, **wrong})


# Paths and edits


def test_a_path_goes_from_one_layout_to_the_other_and_is_measured(studio, quick):
    path = draw_path(studio, (1, 2), ("copenhagen", "los_angeles"), 4, quick)
    spec = studio.spec
    first, rows = show_step(studio, path, 1)
    other, _ = show_step(studio, path, 2)
    assert not np.array_equal(first, other)
    again = measure(path.layouts[1], spec.channels, spec.resolution_m)
    assert all(len(row) == len(PATH_HEADINGS) for row in rows)
    assert float(rows[0][3]) == pytest.approx(float(again["coverage"][0]), rel=5e-3)
    with pytest.raises(ConfigError, match="steps"):
        draw_path(studio, (1, 2), (None, None), 1)


@pytest.mark.slow
def test_a_walk_brings_a_measure_where_it_was_asked_and_keeps_what_was_to_stay(studio, quick, monkeypatch):
    monkeypatch.setattr("citygrain.app.studio.LIKELY", 48)
    walk = draw_walk(studio, 1, "copenhagen", "street_density", (8, 16), ["coverage"], 3, quick)
    asked, found = walk.asked, walk.path.measured
    assert np.allclose(asked, [8, 12, 16])
    assert np.allclose(found["street_density"][1:, 0], asked, atol=0.2)
    assert np.allclose(found["coverage"], found["coverage"][0], atol=0.005)
    again = measure(walk.path.layouts[3], studio.spec.channels, studio.spec.resolution_m)
    picture, rows = show_walk(studio, walk, 2)
    assert all(len(row) == len(WALK_HEADINGS) for row in rows)
    assert rows[0][:3] == ["street density", "km/km²", "16"]
    assert float(rows[0][4]) == pytest.approx(float(again["street_density"][0]), rel=5e-3)
    assert rows[1][0] == "building coverage (GSI)"
    assert rows[1][2] == rows[1][3] == f"{found['coverage'][0, 0]:.3g}"
    first, second = (np.asarray(shown)[40:] for shown in (picture, show_walk(studio, walk, 1)[0]))  # below the titles
    assert not np.array_equal(first, second)


def test_what_no_training_window_was_like_is_not_walked_to(studio):
    assert usual_ends(studio, "cycle")[0] < usual_ends(studio, "cycle")[1]
    for ends in ((None, 1), (math.nan, 1), (0, 1e6)):
        with pytest.raises(ConfigError, match="cycleway"):
            draw_walk(studio, 0, None, "cycle", ends)
    with pytest.raises(ConfigError, match="cannot be moved"):
        draw_walk(studio, 0, None, "parking", (0, 1))


def test_what_is_likely_is_told_by_training_windows_where_these_are_at_hand(small, cities, monkeypatch):
    monkeypatch.setattr("citygrain.app.studio.LIKELY", 24)
    real, drawn = (small("variational_autoencoder", prepared).likely for prepared in (True, False))
    assert len(real) == len(drawn) == 24
    assert (real.spec.places, drawn.spec.places) == (("helsinki",), ("there", "helsinki"))
    assert real.codes.shape == drawn.codes.shape
    assert set(real.measured) == set(drawn.measured)
    assert abs(drawn.measured["coverage"].mean() - drawn.layouts().mean((0, 2, 3))[0]) < 1e-3


# What a model cannot


def test_a_model_without_a_code_has_no_path(small):
    here = small("diffusion")
    for way in (lambda: draw_path(here, (0, 1), (None, None)), lambda: draw_walk(here, 0, None, "green", (0.1, 0.5))):
        with pytest.raises(CapabilityError, match="code"):
            way()


def test_given_channels_are_those_of_a_prepared_place(small, cities, tmp_path):
    here = small("pix2pix")
    made = draw_layouts(here, {}, tmp_path / "made", given="helsinki", n=2)
    raster = CityRaster.open(cities / "helsinki")
    streets = raster.level(8.0).array[raster.channels.index("street")]
    with zipfile.ZipFile(made.zipped) as archive:
        archive.extractall(tmp_path)
    for number in range(2):
        layout, transform, crs, _ = bands(tmp_path / "layouts" / f"layout_000{number}.tif")
        row, column = round((raster.grid.top - transform.f) / 8), round((transform.c - raster.grid.left) / 8)
        assert crs.to_string() == raster.crs
        assert np.array_equal(layout[1], streets[row : row + 16, column : column + 16])
    with pytest.raises(DataError, match="not prepared"):
        draw_layouts(small("pix2pix", prepared=False), {}, tmp_path / "none")


def test_a_map_that_is_handed_over_is_asked_for_and_compared(small, tmp_path):
    levels = np.array([[0, 255], [255, 0]], np.uint8)
    Image.fromarray(levels).save(tmp_path / "map.png")
    painted = read_map(tmp_path / "map.png", None, 0.5)
    made = draw_layouts(small("diffusion"), {"coverage": painted}, tmp_path / "made", n=2)
    (row, *_) = made.rows
    assert row[:3] == ["map of building coverage (GSI)", "share", "0.25"]
    assert "R²" in row[-1]
    assert made.layouts.requested_maps.requested["coverage"][1, 0].tolist() == [0, 0, 0.5, 0.5]


@needs_gradio
def test_only_models_that_take_maps_have_a_field_for_one(studio):
    from citygrain.app.widgets import PAINTED, Painting

    none = Painting.lay_out(studio)
    assert none.components == set()
    assert none.read({}) == {}
    some = Painting({name: name for name in PAINTED})
    values = {"of": "coverage", "file": "a.png", "black": None, "white": 0.4}
    (painted,) = some.read(values).values()
    assert (painted.black, painted.white) == (0, 0.4)
    assert some.read({**values, "file": None}) == {}


def test_only_models_that_keep_parts_of_a_layout_edit(studio, small):
    assert studio.edits
    assert small("diffusion").edits
    assert not small("pix2pix").edits
    assert not small("variational_autoencoder").edits


@pytest.fixture(scope="module")
def file(drawn):
    """A GeoTIFF of a layout, as it is downloaded."""
    return drawn.zipped.parent / "layouts" / "layouts" / "layout_0001.tif"


def test_a_painted_site_is_redrawn_and_nothing_around_it(studio, quick, drawn, file, tmp_path):
    ground = open_ground(studio, file)
    layout, transform, crs, _ = bands(file)
    assert np.array_equal(ground.layout, layout)
    brush = np.zeros((*make_canvas(studio, ground).size, 4), np.uint8)
    brush[160:320, 80:400, 3] = 176
    free = painted_cells([brush], 64)
    assert free.sum() == 20 * 40
    assert free[20:40, 10:50].all()
    made = redraw_site(studio, ground, free, {"coverage": 0.5}, tmp_path / "edit", seed=3, sampler=quick)
    redrawn = made.edit.layouts.cells[1]
    assert np.array_equal(redrawn[:, ~free], layout[:, ~free])
    assert not np.array_equal(redrawn[:, free], layout[:, free])
    row = next(row for row in made.rows if row[:3] == ["building coverage (GSI)", "share", "site"])
    assert len(row) == len(EDIT_HEADINGS)
    assert row[4] == "0.5"
    assert float(row[5]) == pytest.approx(redrawn[0][free].mean() / 255, rel=5e-3)
    with zipfile.ZipFile(made.zipped) as archive:
        archive.extractall(tmp_path / "unpacked")
    after, *where = bands(tmp_path / "unpacked" / "layouts" / "after_00.tif")
    assert np.array_equal(after, redrawn)
    assert where == [transform, crs, studio.spec.channels]
    assert set(gpd.read_file(made.vectors, layer="building").layout) <= {"before", "after_00"}
    with pytest.raises(ConfigError, match="painted"):
        redraw_site(studio, ground, painted_cells([], 64), {}, tmp_path)


def test_a_real_window_is_that_of_the_place(cities, studio):
    here = dataclasses.replace(studio, data=cities)
    assert prepared_places(cities) == ["helsinki"]
    longitude, latitude = middle_of(here, "helsinki")
    raster = CityRaster.open(cities / "helsinki")
    ground = read_ground(here, "helsinki", longitude, latitude)
    left, bottom, right, top = raster.grid.bounds
    assert ground.layout.shape == studio.spec.shape
    assert ground.grid.crs == raster.crs
    assert ground.grid.left + 256 == pytest.approx((left + right) / 2, abs=16)
    assert ground.grid.top - 256 == pytest.approx((bottom + top) / 2, abs=16)
    for wrong in (("helsinki", 12.0, 55.0), ("atlantis", longitude, latitude), ("helsinki", None, latitude)):
        with pytest.raises(CitygrainError):
            read_ground(here, *wrong)


def test_an_upload_is_seen_as_the_model_knows_its_channels(studio, tmp_path):
    """The model that ships knows service roads as streets, and squares as footways."""
    cells = np.random.default_rng(0).integers(0, 90, (len(CHANNEL_NAMES), 64, 64), np.uint8)
    path = tmp_path / "today.tif"
    write_geotiff(path, cells, CHANNEL_NAMES, Grid("EPSG:32635", 385_000, 6_672_000, 8.0, 64, 64))
    seen = dict(zip(studio.spec.channels, open_ground(studio, path).layout.astype(int), strict=True))
    band = dict(zip(CHANNEL_NAMES, cells.astype(int), strict=True))
    assert studio.spec.raster_format == 1
    assert np.array_equal(seen["walk"], band["walk"] + band["square"])
    assert np.array_equal(seen["street"], np.rint(band["street"] + 1.6 * band["service"]))
    assert np.array_equal(seen["building"], band["building"])


def test_a_turned_layout_can_be_painted_on_and_stays_where_it_lies(studio, file, tmp_path):
    layout, _, crs, channels = bands(file)
    grid = Grid(crs.to_string(), 385_000, 6_672_000, 8.0, 64, 64).turned(30)
    path = tmp_path / "turned.tif"
    write_geotiff(path, layout, channels, grid)
    assert open_ground(studio, path).grid == grid


def test_wrong_uploads_are_refused_in_a_sentence(studio, file, tmp_path):
    text = tmp_path / "layout.tif"
    text.write_text("no picture")
    photo = tmp_path / "photo.png"
    save_figure(make_sheet(np.zeros((1, 1, 8, 8)), ["water"]), photo)
    other = tmp_path / "coarse.tif"
    layout, _, crs, channels = bands(file)
    write_geotiff(other, layout, channels, Grid(crs.to_string(), 0, 0, 4.0, 64, 64))
    fewer = tmp_path / "fewer.tif"
    write_geotiff(fewer, layout[:2], channels[:2], Grid(crs.to_string(), 0, 0, 8.0, 64, 64))
    sheared, feet = tmp_path / "sheared.tif", tmp_path / "feet.tif"
    for path, where, transform in (
        (sheared, crs, Affine(8, 2, 5e5, 0, -8, 6e6)),
        (feet, "EPSG:2263", Affine(8, 0, 980_000, 0, -8, 200_000)),
    ):
        with rasterio.open(path, "w", driver="GTiff", dtype="uint8", count=len(layout), width=64, height=64,
                           crs=where, transform=transform) as tif:  # fmt: skip
            tif.write(layout)
            tif.descriptions = channels
    for wrong, says in (
        (text, "GeoTIFF"), (photo, "lacks"), (other, "cells"), (fewer, "lacks"), (None, "no file"),
        (sheared, "sheared"), (feet, "foot"),
    ):  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with pytest.raises(DataError, match=says):
                open_ground(studio, wrong)


# The verb


def test_a_port_that_is_taken_is_left_alone():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert find_free_port("127.0.0.1", port) > port
    with pytest.raises(ConfigError, match="host"):
        find_free_port("203.0.113.7")
    with pytest.raises(ConfigError, match="free port"):
        find_free_port("127.0.0.1", 2**16)


def test_a_list_of_checkpoints_is_a_choice():
    assert [s.name for s in load_studios([NAME, NAME])] == [NAME]
    assert [s.name for s in load_studios(NAME)] == [NAME]
    assert [s.name for s in load_studios()] == list_references()
    with pytest.raises(CheckpointError):
        load_studios("nowhere")
    with pytest.raises(ConfigError, match="needs a model"):
        load_studios([])


def test_without_gradio_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(CapabilityError, match=re.escape('pip install "citygrain[explore]"')):
        serve()


def test_the_command_line_hands_over_what_the_configuration_says(monkeypatch):
    handed = []
    monkeypatch.setattr("citygrain.verbs.app.serve", lambda *named, **words: handed.append((named, words)))
    run(load_config("app"))
    run(load_config("app", ["checkpoint=[a,b]", "port=8000", "paths.data=there"]))
    defaults = {name: default.default for name, default in inspect.signature(serve).parameters.items()}
    checkpoints = defaults.pop("checkpoints")
    assert handed[0] == ((checkpoints,), {**defaults, "data": Path(defaults["data"])})
    assert handed[1] == ((("a", "b"),), {**defaults, "port": 8000, "data": Path("there")})


@pytest.fixture(scope="module")
def server(cities, models, tmp_path_factory):
    """The address of a page that serves the shipped model, and small ones."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path]), "NO_COLOR": "1"}
    home = tmp_path_factory.mktemp("home")
    environment["TMPDIR"] = str(home)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [
            sys.executable, "-m", "citygrain", "app", f"port={port}", f"paths.data={cities}",
            f"checkpoint=[{NAME},{','.join(str(path) for path in sorted(models.iterdir()))}]",
        ],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=cities,
    )  # fmt: skip
    try:
        lines, found = [], None
        for line in process.stdout:
            lines.append(line)
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            if found:
                break
        assert found, "".join(lines)
        yield found[0]
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.stdout.close()
        process.wait()
    assert not list(home.iterdir()), "files of the page are left"


def get(url):
    with urllib.request.urlopen(url, timeout=10) as reply:
        return reply.read().decode(), reply.headers


@pytest.mark.slow
@needs_gradio
def test_the_page_is_for_this_machine_and_lets_the_browser_ask_nobody_else(server):
    text, headers = get(server)
    assert "citygrain" in text
    assert headers["content-security-policy"].startswith("default-src 'self'")
    assert "fonts.googleapis" not in text + get(f"{server}/theme.css")[0]
    port = int(server.rsplit(":", 1)[1])
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    assert {at[1] for at in listening if at[3] == "0A" and at[1].endswith(f":{port:04X}")} == {f"0100007F:{port:04X}"}


@pytest.mark.slow
@needs_gradio
@needs_chromium
def test_in_a_browser_layouts_are_drawn_walked_between_and_edited_by_each_model(server, tmp_path):
    async def visit():
        async with opened(server, tmp_path) as page:
            await sampled(page, tmp_path)
            await switched_to_one_that_is_given_streets(page)
            await walked(page)
            await edited(page, tmp_path)
            await drawn_at_a_bearing(page)
            return page.requests, page.errors

    requests, errors = asyncio.run(visit())
    assert not [u for u in requests if not re.match(rf"(http|ws)://{re.escape(server[7:])}/|data:|blob:", f"{u}/")]
    assert not errors


async def turn(page, slider, value):
    await page.box(slider)
    await page.js(
        f"(() => {{ const s = {slider}; s.value = {value}; s.dispatchEvent(new Event('input', {{bubbles: true}})) }})()"
    )
    await page.until(f"{slider}.value === '{value}'")


async def choose(page, dropdown, option):
    await page.click(seen(f"{dropdown} input"))
    await page.click(seen("[role=option]", option))


async def switch(page, model, tab):
    await choose(page, "#model", model)
    await page.until(seen(".prose", f"{model} ("))
    await page.click(seen("button[role=tab]", tab))


async def picture_after(page, doing, where):
    """Return the address of a picture, once it is another than before something was done."""
    image = seen(f"{where} img")
    before = await page.js(f"{image}?.src ?? ''")
    await doing
    await page.until(f"{image}?.naturalWidth > 200 && {image}.src !== {before!r}", 40)
    return await page.js(f"{image}.src")


async def table(page, where, heading):
    """Return the rows of a table as they are shown, once it has a heading."""
    await page.until(seen(f"{where} th", heading))
    cells = ".map(row => [...row.querySelectorAll('[role=gridcell]')].map(cell => cell.innerText.trim()))"
    return await page.js(f"[...{seen(where)}.querySelectorAll('[role=row]')]{cells}.filter(row => row.length)")


async def downloaded(page, folder, buttons):
    for button, file in buttons.items():
        await page.click(seen(button))
        for _ in range(100):
            if (folder / file).is_file():
                break
            await asyncio.sleep(0.1)
        if file.endswith("zip"):
            with zipfile.ZipFile(folder / file) as archive:
                archive.extractall(folder)


async def sampled(page, folder):
    """Layouts of the shipped model appear as a slider asks for, and come down as files."""
    await page.until(seen(".citygrain-ask"))
    await page.click(seen("button", "Sampler"))
    await turn(page, seen("#steps input[type=range]"), 2)
    await turn(page, seen("#count input[type=range]"), 1)
    row = seen(".citygrain-ask", "building coverage")
    assert await page.js(f"{row}.querySelector('input[type=checkbox]').checked") is False
    await turn(page, f"{row}.querySelector('input[type=range]')", 0.31)
    await page.until(f"{row}.querySelector('input[type=checkbox]').checked")
    await picture_after(page, page.click(seen("#draw")), "#layouts")
    rows = await table(page, "#measured", "requested")
    assert rows[0][:3] == ["building coverage (GSI)", "share", "0.31"]
    assert len(rows) == 14
    await downloaded(page, folder, {"#tifs": "layouts.zip", "#vectors": "layouts.gpkg"})
    layout, *_ = bands(folder / "layouts" / "layout_0000.tif")
    assert layout.shape == (8, 64, 64)
    assert abs(layout[0].mean() / 255 - 0.31) < 0.15
    assert len(gpd.read_file(folder / "layouts.gpkg", layer="building"))


async def switched_to_one_that_is_given_streets(page):
    """Another model brings its own sliders, samplers and places, and says what it cannot."""
    await switch(page, "pix2pix", "Sample")
    await page.until(seen("#given"))
    assert await page.js("[...document.querySelectorAll('.citygrain-ask')].filter(e => e.offsetParent).length") == 2
    await page.until(f"{seen('#given input')}?.value === 'helsinki'")
    await page.click(seen("button", "Sampler"))
    await page.until(f"{seen('#sampler input')}?.value === 'Truncated'")
    await picture_after(page, page.click(seen("#draw")), "#layouts")
    assert {row[0] for row in await table(page, "#measured", "requested")} == {"building coverage (GSI)", "green"}
    for tab, says in (("Latent path", "it has no code"), ("Edit", "around given channels")):
        await page.click(seen("button[role=tab]", tab))
        await page.until(seen(".prose", says))


async def walked(page):
    """A path is looked at step by step, to another layout and along a measure."""
    await switch(page, "variational_autoencoder", "Latent path")
    await picture_after(page, page.click(seen("#walk")), "#path")
    *_, start, here, end = (await table(page, "#path-measured", "here"))[0]
    await picture_after(page, turn(page, seen("#step input[type=range]"), 8), "#path")
    rows = await table(page, "#path-measured", "here")
    assert rows[0][2:] == [start, end, end]
    assert here not in {start, end}
    await page.click(seen("#way label", "along a measure"))
    await choose(page, "#target", "green")
    await picture_after(page, page.click(seen("#walk")), "#path")
    rows = await table(page, "#path-measured", "as drawn")
    assert rows[0][:3] == ["green", "share", "0.95"]
    assert rows[1][2] == ""
    await picture_after(page, turn(page, seen("#step input[type=range]"), 0), "#path")
    assert (await table(page, "#path-measured", "as drawn"))[0][2] == "0.05"


async def edited(page, folder):
    """A site that is painted over is redrawn by the sampler that is chosen; what is no layout is refused in words."""
    await switch(page, "diffusion", "Edit")
    await page.click(seen("button", "Sampler"))
    await turn(page, seen("#steps input[type=range]"), 2)
    await page.click(seen("#redraw"))
    await page.until(seen(".toast-body", "nothing to paint on"))
    await page.click(seen(".toast-close"))
    (folder / "notes.tif").write_text("no picture")
    await page.upload("#upload input[type=file]", folder / "notes.tif")
    await page.until(seen(".toast-body", "cannot be read as a GeoTIFF"))
    await page.click(seen(".toast-close"))
    tools = f"{seen('#site')}.querySelectorAll('button').length"
    before = await page.js(tools)
    await page.click(seen("#fetch"))
    await page.until(f"{tools} > {before}")  # the brush is at hand once there is a window
    await asyncio.sleep(0.5)
    await page.mouse(seen("#site canvas"), (0.4, 0.5), (0.5, 0.5), (0.6, 0.5))
    first = await picture_after(page, page.click(seen("#redraw")), "#edited")
    assert {row[2] for row in await table(page, "#edit-measured", "after")} == {"site"}
    await downloaded(page, folder, {"#edit-tifs": "edit.zip", "#edit-vectors": "layouts.gpkg"})
    before, after = (bands(folder / "layouts" / f"{name}.tif")[0] for name in ("before", "after_00"))
    changed = (before != after).any(0)
    assert 4 <= changed.sum() < 128
    await turn(page, seen("#steps input[type=range]"), 3)
    assert await picture_after(page, page.click(seen("#redraw")), "#edited") != first


async def drawn_at_a_bearing(page):
    """A model of ways may be told the bearing of its streets; what is no bearing is refused in words."""
    await switch(page, "stroke_transformer", "Sample")
    field = "[...document.querySelectorAll('#bearing input, #bearing textarea')].find(e => e.offsetParent)"
    for _ in range(5):  # what is still being laid out may take a click and forget it
        await page.click(seen("button", "Sampler"))
        await asyncio.sleep(1)
        if await page.js(f"Boolean({field})"):
            break
    await page.until(f"{field}?.value === ''")
    await type_in(page, field, 120)
    await page.click(seen("#draw"))
    await page.until(seen(".toast-body", "bearing"))
    await page.click(seen(".toast-close"))
    first = await picture_after(page, bring(page, field, 30), "#layouts")
    assert await picture_after(page, bring(page, field, 60), "#layouts") != first


async def bring(page, field, value):
    await type_in(page, field, value)
    await page.click(seen("#draw"))


async def type_in(page, field, value):
    await page.box(field)
    await page.js(
        f"(() => {{ const f = {field}; f.focus(); f.value = '{value}';"
        " f.dispatchEvent(new Event('input', {bubbles: true})); f.blur() })()"
    )
