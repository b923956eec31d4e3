"""A pack is a folder of prepared places as any other, and smaller."""

import inspect
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from citygrain.data.cityraster import CityRaster
from citygrain.data.dataset import CityWindows
from citygrain.data.pack import pack
from citygrain.data.rules import Rules
from citygrain.errors import ConfigError, DataError
from citygrain.support.config import load_config
from citygrain.verbs.pack import Options, run


def packed(cities, out, *more):
    run(load_config("pack", [f"paths.data={cities}", f"out={out}", *more]))
    return CityRaster.open(out / "helsinki")


def test_without_a_limit_it_is_the_level_itself_in_steps(cities, tmp_path):
    raster, step = CityRaster.open(cities / "helsinki"), 15
    small = packed(cities, tmp_path, f"step={step}")
    assert small.resolutions == (4.0, 8.0, 16.0)
    was, now = raster.level(4.0), small.level(4.0)
    height, width = was.valid.shape
    assert np.array_equal(now.valid[:height, :width], was.valid)
    assert not now.valid[height:].any()
    assert not now.valid[:, width:].any()
    assert now.transform == was.transform
    got = now.array[:, :height, :width].astype(int)
    assert np.abs(got - was.array).max() <= step // 2
    assert set(np.unique(got)) <= set(range(0, 256, step))
    assert (got[was.array == 255] == 255).all()
    assert (got[was.array == 0] == 0).all()
    assert small.provenance["layout"]["bytes"] < raster.provenance["layout"]["bytes"]
    assert small.blocks["split"].tolist() == raster.blocks["split"].tolist()


def test_its_windows_are_windows_of_the_place(cities, tmp_path):
    small = packed(cities, tmp_path, "step=1")
    windows = CityWindows([small], "test", Rules(16, 4.0))
    _, rows, columns, _ = windows.locate(range(len(windows)))
    place = CityRaster.open(cities / "helsinki")
    channels = [place.channels.index(name) for name in windows.channels]
    for i, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        there = place.read(row, column, 16, 4.0)[channels]
        assert np.array_equal(windows[i].layout[0], there)


def test_within_a_limit_whole_blocks_go_and_no_window_looks_into_them(cities, tmp_path):
    whole = packed(cities, tmp_path / "whole").provenance["layout"]["bytes"]
    limit = 0.6 * whole / 1e6
    small = packed(cities, tmp_path / "small", f"limit_mb={limit}")
    assert 0.2 * whole < small.provenance["layout"]["bytes"] <= 0.6 * whole
    blocks = small.blocks
    gone = blocks[blocks["valid"] == 0]
    assert 0 < len(gone) < len(blocks)
    assert small.provenance["packed"]["blocks"] == len(blocks) - len(gone)
    assert {"train", "val", "test"} <= set(blocks[blocks["valid"] > 0]["split"])
    windows = CityWindows([small], "train", Rules(16, 4.0))
    _, rows, columns, _ = windows.locate(range(500))
    valid = small.level(4.0).valid
    shares = [valid[r : r + 16, c : c + 16].mean() for r, c in zip(rows.tolist(), columns.tolist(), strict=True)]
    assert min(shares) > 0.8  # what is allowed is judged on coarse cells
    assert np.mean(shares) > 0.98


def test_a_pack_is_replaced_as_a_whole_and_is_nothing_that_prepare_would_take_for_its_own(cities, tmp_path):
    first = packed(cities, tmp_path, "step=51")
    again = packed(cities, tmp_path, "step=1")
    assert again.provenance["packed"]["step"] == 1
    assert again.provenance["layout"] != first.provenance["layout"]
    assert "request" not in again.provenance


@pytest.mark.parametrize(
    ("override", "error", "words"),
    [
        ("step=16", ConfigError, "divide 255"),
        ("step=0", ConfigError, "divide 255"),
        ("limit_mb=0", ConfigError, "megabytes"),
        ("limit_mb=all", ConfigError, "a number or null"),
        ("limit_mb=0.0001", DataError, "fits"),
        ("resolution_m=3", DataError, "no level"),
        ("places=[atlantis]", DataError, "not prepared"),
    ],
)
def test_what_cannot_be_packed_is_refused(override, error, words, cities, tmp_path):
    with pytest.raises(error, match=words):
        packed(cities, tmp_path, override)
    assert not any(tmp_path.glob("*/layout.tif"))


def test_a_pack_does_not_overwrite_what_it_is_made_of(cities):
    with pytest.raises(ConfigError, match="another folder"):
        packed(cities, cities)


def test_the_function_has_the_keywords_and_defaults_of_the_verb_and_does_the_same(cities, tmp_path):
    plain = load_config("pack")
    defaults = {name: p.default for name, p in inspect.signature(pack).parameters.items()}
    assert defaults == {
        **{key: value for key, value in plain.items() if key != "paths"},
        "data": plain["paths"]["data"],
    }
    assert {f.name for f in fields(Options)} == set(plain)
    (ours,) = pack(["helsinki"], step=51, limit_mb=0.05, seed=3, out=tmp_path / "ours", data=str(cities))
    theirs = packed(cities, tmp_path / "theirs", "places=[helsinki]", "step=51", "limit_mb=0.05", "seed=3")
    for name in ("layout.tif", "blocks.parquet", "place.json"):
        assert (Path(ours.path) / name).read_bytes() == (theirs.path / name).read_bytes()
