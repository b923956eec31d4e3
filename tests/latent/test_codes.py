"""Codes of windows: encoded once, measured rightly, and refused where there is no code."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import families
from citygrain.checkpoint import load
from citygrain.data.dataset import CityWindows
from citygrain.data.prepare import prepare
from citygrain.data.rules import UNCHANGED, Rules
from citygrain.errors import CapabilityError, DataError
from citygrain.evaluation.form import FORM
from citygrain.geo.place import Place
from citygrain.geo.sources.osmfile import OsmFile
from citygrain.latent import (
    compare_explained_variance,
    decode,
    encode_layouts,
    encode_places,
    encode_windows,
    find_codec,
    fit_probes,
    reconstruct,
    score_decoded_measures,
)
from citygrain.layouts import Layouts
from citygrain.measures import measure
from citygrain.spec import LayoutSpec
from toy_codecs import SPEC, Blind, Identity, codes_of

RULES = Rules(16, 8.0)
TRAINED_ON = {"rules": {"size_px": 16, "resolution_m": 8.0}, "seed": 0, "balance": "places", "places": {}}


@pytest.fixture
def windows(cities):
    return CityWindows([cities / "helsinki"], "train", RULES)


def identity_for(windows):
    return Identity(LayoutSpec(windows.channels, 16, 8.0))


def test_codes_come_with_the_layouts_and_what_is_measured_on_them(windows):
    codec = identity_for(windows)
    codes = encode_windows(codec, windows, 40, batch_size=16)
    layouts = codes.layouts()
    assert np.allclose(codes.codes, layouts - 0.5)
    assert np.array_equal(codes.layouts([7, 3]), layouts[[7, 3]])
    again = measure(layouts, windows.channels, 8.0)
    assert set(again) == set(codes.measured)
    for name, values in again.items():
        assert np.allclose(codes.measured[name], values, atol=1e-5), name
    some = codes.select(codes.measured["coverage"] > np.median(codes.measured["coverage"]))
    assert np.array_equal(some.layouts() - 0.5, some.codes)
    assert np.array_equal(codes.select_place("helsinki").codes, codes.codes)
    with pytest.raises(DataError, match="helsinki"):
        codes.select_place("atlantis")


def test_what_was_encoded_is_kept_until_codec_windows_or_place_are_others(windows, cities, tmp_path):
    codec = identity_for(windows)

    def encoded(by, of, count=20):
        before = by.encoded
        codes = encode_windows(by, of, count, folder=tmp_path / "kept")
        assert np.allclose(codes.codes, codes.layouts() - by.middle.item(), atol=1e-6)
        return by.encoded - before

    assert encoded(codec, windows) == 20
    assert encoded(codec, windows) == 0
    assert encoded(codec, windows, 21) == 21
    trained_on = identity_for(windows)
    trained_on.middle.fill_(0.25)
    assert encoded(trained_on, windows) == 20
    assert encoded(codec, CityWindows([cities / "helsinki"], "train", RULES, seed=1)) == 20
    shutil.copytree(cities / "helsinki", tmp_path / "helsinki")
    manifest = tmp_path / "helsinki" / "place.json"
    made_anew = json.loads(manifest.read_text()) | {"versions": {"citygrain": "another"}}
    manifest.write_text(json.dumps(made_anew))
    assert encoded(codec, CityWindows([tmp_path / "helsinki"], "train", RULES)) == 20
    assert encoded(codec, windows) == 0


def test_a_broken_file_of_codes_is_made_again(windows, tmp_path):
    codec = identity_for(windows)
    whole = encode_windows(codec, windows, 10, folder=tmp_path)
    (file,) = tmp_path.glob("codes-*.npz")
    file.write_bytes(file.read_bytes()[:-100])
    again = encode_windows(codec, windows, 10, folder=tmp_path)
    assert codec.encoded == 20
    assert np.array_equal(whole.codes, again.codes)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_windows_that_the_codec_does_not_encode_are_refused(windows):
    with pytest.raises(DataError, match="16 px at 8 m"):
        encode_windows(Identity(LayoutSpec(windows.channels, 32, 8.0)), windows, 4)
    with pytest.raises(DataError, match="building"):
        encode_windows(Identity(LayoutSpec(windows.channels[::-1], 16, 8.0)), windows, 4)
    with pytest.raises(DataError, match="0"):
        encode_windows(identity_for(windows), windows, 0)


def test_urban_form_is_measured_on_request_and_kept_apart_from_the_codec(windows, tmp_path):
    codes = encode_windows(identity_for(windows), windows, 6, forms=True, folder=tmp_path)
    assert set(FORM) & set(codes.measured)
    assert np.isfinite(codes.measured["building_count"]).all()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("forms-*/*")}
    other = identity_for(windows)
    other.middle.fill_(0.3)
    again = encode_windows(other, windows, 6, forms=True, folder=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("forms-*/*")} == kept
    assert np.array_equal(codes.measured["block_area"], again.measured["block_area"], equal_nan=True)


def test_a_model_without_a_code_is_refused_and_one_in_a_code_hands_over_its_codec():
    with pytest.raises(CapabilityError, match=r"variational_autoencoder.*\n.*Inversion|Inversion") as refused:
        find_codec(families.make("style_gan"))
    assert "pca" in str(refused.value)
    with pytest.raises(CapabilityError):
        find_codec(families.make("diffusion"))
    latent = families.make("diffusion in pca")
    assert find_codec(latent) is latent.codec
    assert find_codec(latent.codec) is latent.codec


def test_a_loaded_model_encodes_places_by_its_own_rules(cities, tmp_path):
    model = families.make("diffusion in variational_autoencoder").eval()
    model.provenance = {"data": TRAINED_ON}
    codes = {
        split: encode_places(model, cities, split, count=n, places=["helsinki"], folder=tmp_path)
        for split, n in (("train", 60), ("test", None))
    }
    train, held_out = codes["train"], codes["test"]
    assert train.codes.shape == (60, *model.codec.code_shape)
    with torch.no_grad():
        assert torch.allclose(
            torch.from_numpy(train.codes[:8]), model.codec.encode(torch.from_numpy(train.layouts(range(8)))), atol=1e-5
        )
    assert not set(map(bytes, train.layouts())) & set(map(bytes, held_out.layouts()))
    assert set(score_decoded_measures(find_codec(model), held_out).index) == set(held_out.measured)


def test_places_have_alike_many_train_windows_though_training_had_more_of_the_larger(cities, sample_pbf, tmp_path):
    source = OsmFile(str(sample_pbf))
    west, south, east, north = source.extent()
    third = Place.from_bbox("third", (west, south, west + (east - west) / 3, north))
    prepare(third, source, tmp_path, workers=1)
    (tmp_path / "helsinki").symlink_to(cities / "helsinki")
    places = ["helsinki", "third"]
    windows = CityWindows([tmp_path / place for place in places], "train", RULES, augmentation=UNCHANGED)
    model = identity_for(windows)
    model.spec = replace(model.spec, places=tuple(places))
    model.provenance = {"data": {**TRAINED_ON, "balance": "area"}}
    codes = encode_places(model, tmp_path, count=200)
    assert np.array_equal(codes.layouts(), encode_windows(model, windows, 200).layouts())
    assert 0.4 < codes.place.mean() < 0.6


def test_what_a_lossless_codec_keeps_is_everything_and_a_blind_one_nothing():
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 1, (300, *SPEC.shape)).round(2)
    codes = codes_of(values - 0.5, **measure(values, SPEC.channels, 8.0))
    kept = compare_explained_variance(Identity(), codes, codes)
    assert np.allclose(kept["code"], 1, atol=1e-4)
    assert np.allclose(kept["components"], 1, atol=1e-3)  # as many components as a patch has numbers
    assert kept.attrs["components"] == kept.attrs["code"] == 48
    assert np.allclose(compare_explained_variance(Blind(), codes, codes)["code"], 0, atol=0.01)
    assert np.allclose(score_decoded_measures(Identity(), codes), 1, atol=1e-3)
    assert (score_decoded_measures(Blind(), codes)[["coverage", "green"]] < 0.05).all()


def test_fewer_components_explain_what_the_spectrum_says():
    rng = np.random.default_rng(0)
    spread = np.array([0.12, 0.06, 0.03])
    layouts = (0.5 + rng.normal(size=(4000, 3, 4, 4)) * spread[:, None, None]).clip(0, 1)

    class OneOfThree(Identity):
        code_shape = (1, 4, 4)

        def encode(self, layout):
            return layout[:, :1]

        def decode(self, code):
            return torch.cat([code, torch.full_like(code, 0.5), torch.full_like(code, 0.5)], 1)

    codec = OneOfThree()
    codec.code_shape = (1, 4, 4)
    codes = codes_of(layouts - 0.5)
    kept = compare_explained_variance(codec, *(codes.select(part) for part in np.split(np.arange(4000), 2)))
    first = spread[0] ** 2 / (spread**2).sum()
    assert kept.loc["all"].to_numpy() == pytest.approx([first, first], abs=0.01)
    assert kept.loc["building", "components"] == pytest.approx(1, abs=0.01)
    assert kept.attrs == {"code": 16, "components": 16, "windows": 2000}


def test_decoding_gives_bytes_of_coverage_whatever_the_batch():
    code = np.random.default_rng(0).uniform(-0.7, 0.7, (10, *SPEC.shape))
    layouts = decode(Identity(), code)
    assert np.allclose(layouts * 255, np.rint(layouts * 255), atol=1e-4)
    assert np.array_equal(layouts, decode(Identity(), code, batch_size=3))
    assert np.array_equal(reconstruct(Identity(), layouts, batch_size=4), layouts)


@pytest.mark.slow
def test_a_trained_run_is_explored_from_its_path(cities, tmp_path):
    from citygrain.checkpoint import Checkpoint, export_checkpoint

    model = families.make("variational_autoencoder")
    provenance = {"data": TRAINED_ON}
    made = Checkpoint(families.config("variational_autoencoder"), model.spec, dict(model.state_dict()), provenance)
    export_checkpoint(made, tmp_path / "model")
    codes = encode_places(tmp_path / "model", cities, "train", count=120, places=["helsinki"], folder=tmp_path / "kept")
    held_out = encode_places(tmp_path / "model", cities, "all", places=["helsinki"], folder=tmp_path / "kept")
    found = fit_probes(codes, held_out, ["coverage"])
    assert found.r_squared["coverage"] > 0.5  # even an untrained encoder passes on how much is built
    assert load(tmp_path / "model").code_shape == found.directions["coverage"].shape


def layouts_of(count, seed):
    cells = np.random.default_rng(seed).integers(0, 256, (count, *SPEC.shape), np.uint8)
    return Layouts(cells, SPEC.channels, SPEC.resolution_m)


def test_layouts_in_the_hand_have_codes_of_the_place_that_they_stand_for():
    here, there = layouts_of(3, 0), layouts_of(2, 1)
    codes = encode_layouts(Identity(), {"there": there, "here": here})
    assert codes.spec.places == ("there", "here")
    assert np.array_equal(codes.select_place("here").layouts(), here.shares)
    assert np.allclose(codes.codes, codes.layouts() - 0.5)
    for name, values in here.measured.items():
        assert np.array_equal(codes.select_place("here").measured[name], values), name
    with pytest.raises(DataError, match="other layouts"):
        encode_layouts(Identity(), {"here": Layouts(here.cells, here.channels, 2.0)})


def test_codes_are_put_together_with_their_places_and_windows():
    city = encode_layouts(Identity(), {"here": layouts_of(4, 0), "there": layouts_of(3, 1)})
    other = encode_layouts(Identity(), {"elsewhere": layouts_of(3, 2), "here": layouts_of(2, 3)})
    parts = (city.select([5, 0]), city, other)
    whole = parts[0] + parts[1] + parts[2]
    assert whole.spec.places == ("here", "there", "elsewhere")
    assert [whole.spec.places[i] for i in whole.place] == [of.spec.places[i] for of in parts for i in of.place]
    assert np.array_equal(whole.codes, np.concatenate([of.codes for of in parts]))
    assert np.allclose(whole.codes, whole.layouts() - 0.5)
    assert np.array_equal(whole.layouts([9, 1, 4]), whole.layouts()[[9, 1, 4]])
    assert np.allclose(whole.measured["coverage"], measure(whole.layouts(), SPEC.channels, 8.0)["coverage"])
    some = codes_of(whole.codes, coverage=whole.measured["coverage"])
    assert (whole + some).measured.keys() == {"coverage"}
    with pytest.raises(DataError, match="same kind"):
        other + encode_layouts(Identity(LayoutSpec(("water",), 4, 8.0)), {"sea": water(2)})


def water(count):
    return Layouts(np.full((count, 1, 4, 4), 255, np.uint8), ("water",), 8.0)
