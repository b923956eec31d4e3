"""The models that come with citygrain, and models made to travel."""

import json
import re

import pytest
import torch
import yaml

import citygrain
from citygrain.checkpoint import (
    INDEX,
    SHIPPED,
    WEIGHTS,
    Checkpoint,
    export_checkpoint,
    list_references,
    list_weight_files,
    read_checkpoint,
)
from citygrain.checkpoint.card import card, head
from citygrain.errors import CheckpointError, ConfigError
from citygrain.protocols import Noise
from citygrain.spec import Conditions
from citygrain.support.config import load_config
from citygrain.verbs.export import run

LARGEST_BYTES = 16_000_000


def test_there_are_some():
    assert list_references()
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*")) < 60_000_000


@pytest.mark.parametrize("name", list_references())
def test_a_shipped_model_is_small_tells_where_it_comes_from_and_draws(name):
    checkpoint = read_checkpoint(name)
    assert all(file.stat().st_size < LARGEST_BYTES for file in checkpoint.path.parent.iterdir())
    assert "ODbL" in (checkpoint.path.parent / "README.md").read_text(encoding="utf-8")
    config = (checkpoint.path.parent / "config.json").read_text(encoding="utf-8")
    assert not re.findall(r'": "(?:/|[A-Z]:|~)[^"]*"', config), "a path of the machine that made it"
    assert set(checkpoint.spec.places) == set(json.loads(config)["provenance"]["data"]["places"])
    model = citygrain.load(name)
    spec = model.spec
    given = {name: torch.rand(1, spec.size_px, spec.size_px) for name in spec.given}
    layout = model.sample(Conditions.request(spec, 1, {spec.scalars[0]: "p50"}, given or None), noise=Noise([0]))
    assert layout.shape == (1, *spec.shape)
    assert layout.isfinite().all()
    assert layout.std() > 0.05


@pytest.mark.parametrize("name", list_references())
def test_a_shipped_card_is_what_the_writer_writes_but_for_its_figures(name):
    checkpoint = read_checkpoint(name)
    numbers = sum(value.numel() for value in checkpoint.weights.values())
    written = card(checkpoint.model, checkpoint.spec, checkpoint.provenance, numbers)
    shipped = (checkpoint.path.parent / "README.md").read_text(encoding="utf-8")
    assert re.sub(r"\n## How good it is\n.*?(?=\n## Limits\n)", "", shipped, flags=re.DOTALL) == written


def test_the_head_of_a_card_is_yaml_and_names_the_licence_of_the_data():
    whole = read_checkpoint(list_references()[0])
    said = yaml.safe_load(head(whole.model, whole.spec, whole.provenance).strip("-\n"))
    assert said["license"] == "odbl"
    assert said["library_name"] == "citygrain"
    assert said["datasets"] == ["openstreetmap"]
    assert {"urban-form", "diffusion"} <= set(said["tags"])
    own = {"data": {"places": {"town": {"attribution": "© Town, CC BY 4.0"}}}}
    for made in (own, {}):
        said = yaml.safe_load(head(whole.model, whole.spec, made).strip("-\n"))
        assert said["license"] == "other"
        assert "datasets" not in said
    tasks = {
        name: yaml.safe_load((read_checkpoint(name).path.parent / "README.md").read_text().split("---")[1])
        for name in list_references()
    }
    assert {name for name, head in tasks.items() if head["pipeline_tag"] == "image-to-image"} == {
        "reference/streets_to_buildings_256"
    }


def test_a_name_that_does_not_ship_is_answered_with_those_that_do():
    with pytest.raises(CheckpointError, match=list_references()[0]):
        citygrain.load("reference/atlantis")


def test_half_precision_halves_the_file_and_keeps_what_it_cannot_hold(tmp_path):
    whole = read_checkpoint(list_references()[0])
    weights = {name: value.float() if value.is_floating_point() else value for name, value in whole.weights.items()}
    far = next(name for name, value in weights.items() if value.is_floating_point() and value.numel() > 3)
    weights[far] = weights[far] + 1e6  # beyond half precision
    checkpoint = Checkpoint(whole.model, whole.spec, weights, whole.provenance)
    sizes = [
        (export_checkpoint(checkpoint, tmp_path / str(half), half=half) / WEIGHTS).stat().st_size
        for half in (False, True)
    ]
    assert sizes[1] < 0.52 * sizes[0]
    halved = read_checkpoint(tmp_path / "True").weights
    assert torch.equal(halved[far], weights[far])
    assert all(
        torch.allclose(halved[name].to(value.dtype), value, rtol=1e-3, atol=1e-6) for name, value in weights.items()
    )


@pytest.mark.parametrize("shard_mb", [2, 4.5])
def test_weights_in_several_files_are_the_same_weights(tmp_path, shard_mb):
    whole = read_checkpoint(list_references()[0])
    folder = export_checkpoint(whole, tmp_path / "model", shard_mb=shard_mb)
    files = sorted(folder.glob("*.safetensors"))
    largest = max(value.nbytes for value in whole.weights.values())
    assert len(files) > 1
    assert all(file.stat().st_size <= max(shard_mb * 1e6, largest + 1000) for file in files)
    again = read_checkpoint(folder)
    assert again.path == folder / INDEX
    assert list_weight_files(again.path) == files
    assert again.weights.keys() == whole.weights.keys()
    assert all(torch.equal(again.weights[name], value) for name, value in whole.weights.items())
    assert citygrain.load(folder).spec == whole.spec


def test_what_an_export_replaces_does_not_stay_beside_it(tmp_path):
    whole = read_checkpoint(list_references()[0])
    for shard_mb in (None, 2, 4, None):
        export_checkpoint(whole, tmp_path, shard_mb=shard_mb)
        listed = json.loads((tmp_path / INDEX).read_text())["weight_map"].values() if shard_mb else [WEIGHTS]
        assert {file.name for file in tmp_path.glob("*.safetensors")} == set(listed)
        assert (tmp_path / INDEX).is_file() == bool(shard_mb)


def test_a_missing_part_and_files_of_no_size_are_answered_in_words(tmp_path):
    whole = read_checkpoint(list_references()[0])
    export_checkpoint(whole, tmp_path, shard_mb=2)
    next(tmp_path.glob("*-00002-*")).unlink()
    with pytest.raises(CheckpointError, match="damaged"):
        citygrain.load(tmp_path)
    for size in (0, -1, "small"):
        with pytest.raises(ConfigError, match="cannot have this size"):
            export_checkpoint(whole, tmp_path, shard_mb=size)


def test_the_verb_writes_what_load_takes(tmp_path):
    out = run(load_config("export", [f"checkpoint={list_references()[0]}", f"out={tmp_path / 'model'}", "half=true"]))
    assert citygrain.load(out).spec == citygrain.load(list_references()[0]).spec
    with pytest.raises(CheckpointError, match="no checkpoint"):
        run(load_config("export", [f"checkpoint={tmp_path / 'nothing'}", f"out={tmp_path / 'model'}"]))
