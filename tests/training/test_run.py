"""Training as a user runs it: resumed, interrupted, spread over processes, and sampled from afterwards."""

from __future__ import annotations

import copy
import csv
import inspect
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import rasterio
import torch

import citygrain
from citygrain import checkpoint
from citygrain.errors import CheckpointError, ConditionError, ConfigError, DataError, TrainingError
from citygrain.spec import LayoutSpec
from citygrain.support.config import load_config
from citygrain.support.options import parse
from citygrain.training.callbacks import ProgressBar, SampleGrid
from citygrain.training.claim import FREE
from citygrain.training.options import Training
from citygrain.training.stages import check_begun
from citygrain.training.train import train
from citygrain.verbs.sample import run as sample
from citygrain.verbs.train import run

ROOT = Path(__file__).resolve().parents[2]


def test_a_run_does_not_go_on_where_its_places_hold_something_else():
    spec = LayoutSpec(("building", "street"), 8, 8.0)
    check_begun(replace(spec, places=("a",)), spec, Path("runs/old"))
    for begun in (replace(spec, raster_format=1), replace(spec, channels=("building",))):
        with pytest.raises(TrainingError, match=r"prepared anew since[\s\S]*another name"):
            check_begun(begun, spec, Path("runs/old"))


def test_the_function_has_the_keywords_of_the_verb():
    keys = load_config("train", ["data.places=[]"])
    assert {f.name for f in fields(Training)} == set(keys)
    assert set(inspect.signature(train).parameters) - {"overrides", "config_dirs"} == {*keys, "experiment"}


def test_keywords_compose_what_the_command_line_composes(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("citygrain.training.train.run", asked.append)
    codec = {"model": {"beta": 0.5}, "trainer": {"max_steps": 8}}
    train(
        "it's mine", experiment="latent_diffusion", model="diffusion", optimizer="muon", seed=3, l1=1e-4, compile=True,
        data={"places": ["a", "b"], "size_px": 32, "channels": None}, trainer={"max_steps": 9, "precision": "32-true"},
        callbacks={"samples": {"columns": 2}, "progress": None}, codec=codec, freeze=["network.down"],
        paths={"data": tmp_path / "my cities"}, overrides=["+trainer.max_epochs=3", "model.network.width=16"],
    )  # fmt: skip
    told = [
        "name='it\\'s mine'", "experiment=latent_diffusion", "model=diffusion", "optimizer=muon", "seed=3", "l1=1e-4",
        "compile=true", "data.places=[a,b]", "data.size_px=32", "data.channels=null", "trainer.max_steps=9",
        "trainer.precision=32-true", "callbacks.samples.columns=2", "callbacks.progress=null",
        "codec={model:{beta:0.5},trainer:{max_steps:8}}", "freeze=[network.down]",
        f"paths.data='{tmp_path}/my cities'", "+trainer.max_epochs=3", "model.network.width=16",
    ]  # fmt: skip
    assert asked == [parse(Training, load_config("train", told))]
    assert asked[0].codec["model"]["beta"] == 0.5
    train("plain", data={"places": ["a"]}, init_from=tmp_path)
    assert asked[1] == parse(Training, load_config("train", ["name=plain", "data.places=[a]", f"init_from={tmp_path}"]))
    train("latent", data={"places": ["a"]}, codec={"freeze": ["a.b", "c"], "model": {"beta": None}})
    assert asked[2].codec == {"freeze": ["a.b", "c"], "model": {"beta": None}}


def test_keywords_are_checked_as_the_command_line_is(cities):
    places = {"places": ["helsinki"]}
    with pytest.raises(ConfigError, match="did you mean: diffusion"):
        train("mine", model="difusion", data=places)
    with pytest.raises(ConfigError, match="did you mean: size_px"):
        train("mine", data={**places, "sise_px": 32})
    with pytest.raises(ConfigError, match=r"needs data\.places"):
        train("mine")
    with pytest.raises(ConfigError, match="seed is not of the right kind"):
        train("mine", data=places, seed=0.5)
    with pytest.raises(ConfigError, match="no parameter of this name"):
        train("mine", data=places, overrides=["+optimizer.speed=3"])


SMALL = [
    "data.places=[helsinki]", "data.resolution_m=4", "data.size_px=16", "data.batch_size=8",
    "data.batches_per_epoch=4", "data.val_windows=8", "data.statistics_windows=64", "trainer=cpu",
    "lr_schedule.warmup_steps=2", "callbacks.samples.columns=2", "callbacks.samples.every_n_epochs=1",
    "~callbacks.progress",
]  # fmt: skip
TINY_VAE = [
    "model=variational_autoencoder", "model.encoder.widths=[16]", "model.decoder.widths=[16]", "model.encoder.depth=1",
    "model.decoder.depth=1", "model.decoder.fine_width=16", "model.code_channels=4", "model.embedding=32",
]  # fmt: skip
TINY_DIFFUSION = [
    "model=diffusion", "model.network.width=16", "model.network.widths=[1,2]", "model.network.blocks=1",
    "model.network.head=16", "model.embedding=32", "model.sampler.steps=3", "codes=64",
]  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    # Lightning's own code, not what it is given.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:.*LeafSpec.*"),
]


def overrides(cities, runs, *more, model=TINY_VAE):
    return [*SMALL, *model, f"paths.data={cities}", f"paths.runs={runs}", *more]


def config(cities, runs, *more, model=TINY_VAE):
    return load_config("train", overrides(cities, runs, *more, model=model))


def metrics(run_folder):
    return [row for file in sorted(run_folder.glob("logs/version_*/metrics.csv")) for row in read_csv(file)]


def read_csv(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def weights(folder):
    return checkpoint.read_checkpoint(folder).weights


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_same_command_goes_on_and_ends_where_one_long_run_ends(cities, tmp_path, optimizer):
    how = ["lr_schedule=constant", f"optimizer={optimizer}"]
    whole = run(config(cities, tmp_path, "name=whole", "trainer.max_steps=12", *how))
    run(config(cities, tmp_path, "name=parts", "trainer.max_steps=4", *how))
    first = checkpoint.read_checkpoint(tmp_path / "parts").provenance
    assert first["step"] == 4
    parts = run(config(cities, tmp_path, "name=parts", "trainer.max_steps=12", *how))
    for folder in (whole, parts):
        assert checkpoint.read_checkpoint(folder).provenance["step"] == 12
    assert checkpoint.read_checkpoint(parts).provenance["train_s"] > first["train_s"] > 0
    assert len(list((tmp_path / "parts" / "samples").glob("*.png"))) == 3
    assert {"train/loss", "val/loss"} <= set(metrics(tmp_path / "whole")[0]) | set(metrics(tmp_path / "whole")[1])
    before = weights(parts)
    assert run(config(cities, tmp_path, "name=parts", "trainer.max_steps=12", *how)) == parts
    assert all(torch.equal(before[k], v) for k, v in weights(parts).items())


def test_a_run_killed_in_the_middle_of_an_epoch_goes_on_at_its_last_checkpoint(cities, tmp_path):
    command = [
        sys.executable, "-m", "citygrain", "train",
        *overrides(cities, tmp_path, "name=killed", "trainer.max_steps=100000", "data.batches_per_epoch=8"),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    last = tmp_path / "killed" / checkpoint.LAST
    deadline = time.monotonic() + 100
    while not last.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert last.is_file(), errors.decode()
    reached = checkpoint.read_checkpoint(last).provenance["step"]
    assert reached % 8 == 0
    assert not (tmp_path / "killed" / checkpoint.EXPORT).exists()
    model = run(config(cities, tmp_path, "name=killed", f"trainer.max_steps={reached + 8}", "data.batches_per_epoch=8"))
    assert checkpoint.read_checkpoint(model).provenance["step"] == reached + 8
    citygrain.load(model)


def test_a_run_folder_refuses_another_configuration_and_names_the_difference(cities, tmp_path):
    run(config(cities, tmp_path, "name=mine", "trainer.max_steps=1"))
    before = (tmp_path / "mine" / checkpoint.LAST).read_bytes()
    with pytest.raises(TrainingError, match=r"model\.beta: 0\.001 there, 0\.5 asked for"):
        run(config(cities, tmp_path, "name=mine", "trainer.max_steps=2", "model.beta=0.5"))
    assert (tmp_path / "mine" / checkpoint.LAST).read_bytes() == before


def test_pictures_are_drawn_with_the_averaged_weights(cities, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(SampleGrid, "_draw", lambda _, __, task: drawn.append(copy.deepcopy(task.generator)))
    run(config(cities, tmp_path, "name=averaged", "trainer.max_steps=8"))
    averaged = checkpoint.read_checkpoint(tmp_path / "averaged" / checkpoint.LAST).weights
    assert all(torch.equal(value, averaged[name]) for name, value in drawn[-1].state_dict().items())


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"max_steps": 10}, "Epoch 2 of 3"),
        ({"max_steps": 10, "accumulate_grad_batches": 3}, "Epoch 2 of 5"),
        ({"max_steps": 10, "num_training_batches": 0}, "Epoch 2"),
        ({"max_steps": 100, "max_epochs": 7}, "Epoch 2 of 7"),
        ({"max_steps": -1, "max_epochs": -1}, "Epoch 2"),
    ],
)
def test_the_progress_bar_tells_how_many_epochs_there_will_be(limits, says):
    bar = ProgressBar()
    defaults = {"max_epochs": -1, "accumulate_grad_batches": 1, "num_training_batches": 4}
    bar._trainer = SimpleNamespace(**{**defaults, **limits})
    assert bar._get_train_description(1) == says


@pytest.mark.parametrize(("start", "alike"), [(0.75, True), (0.25, False)])
def test_the_last_part_of_a_run_can_be_averaged(cities, tmp_path, start, alike):
    arguments = ("name=swa", "trainer.max_steps=4", "callbacks=swa", f"callbacks.stochastic_average.start={start}")
    made = weights(run(config(cities, tmp_path, *arguments)))
    trained = torch.load(tmp_path / "swa" / checkpoint.LAST, weights_only=True)["current_model_state"]
    # The last of four steps alone, or the last three.
    assert all(torch.equal(made[name], trained[f"generator.{name}"]) for name in made) == alike


def test_a_run_that_stopped_early_is_not_taken_up_again(cities, tmp_path):
    composed = config(
        cities, tmp_path, "name=patient", "trainer.max_steps=400", "callbacks=early_stopping",
        "callbacks.early_stopping.patience=1", "optimizer.lr=0.0",
    )  # fmt: skip
    run(composed)
    last = tmp_path / "patient" / checkpoint.LAST
    assert checkpoint.read_checkpoint(last).provenance["step"] < 400
    before = last.read_bytes()
    run(composed)
    assert last.read_bytes() == before
    run({**composed, "trainer": {**composed["trainer"], "max_steps": 404}})
    step = checkpoint.read_checkpoint(last).provenance["step"]
    assert last.read_bytes() != before
    longer = {**composed["callbacks"], "early_stopping": None}
    run({**composed, "callbacks": longer, "trainer": {**composed["trainer"], "max_steps": step + 4}})
    assert checkpoint.read_checkpoint(last).provenance["step"] == step + 4


def test_a_callback_that_waits_for_a_validation_that_never_comes_is_refused(cities, tmp_path):
    with pytest.raises(ConfigError, match=r"early_stopping watches the validation.*\n.*\n.*monitor=train/loss"):
        run(config(cities, tmp_path, "name=blind", "callbacks=early_stopping", "data.val_windows=0"))


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_batch(cities, tmp_path, monkeypatch):
    from citygrain.models.variational_autoencoder import VariationalAutoencoder

    honest = VariationalAutoencoder.loss
    calls = []

    def broken(self, layout, conditions):
        losses = honest(self, layout, conditions)
        calls.append(1)
        return {**losses, "loss": losses["loss"] * (float("nan") if len(calls) == 3 else 1.0)}

    monkeypatch.setattr(VariationalAutoencoder, "loss", broken)
    with pytest.raises(TrainingError, match=r"nan in batch 2 of epoch 0"):
        run(config(cities, tmp_path, "name=broken", "trainer.max_steps=8"))


def in_two_processes(folder, *arguments):
    """Train by the command line, in two processes on the processor."""
    command = [sys.executable, "-m", "citygrain", "train", *arguments, "trainer=ddp"]
    done = subprocess.run(
        [*command, "trainer.accelerator=cpu", "trainer.devices=2"],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_two_processes_share_one_run_and_agree_with_one(cities, tmp_path):
    """The same windows in the same global batches: the losses agree up to the noise of the loss itself."""
    steady = ["lr_schedule=constant", "optimizer.lr=1e-3", "trainer.max_steps=24", "data.batches_per_epoch=24"]
    run(config(cities, tmp_path, "name=one", "data.batch_size=16", *steady))
    in_two_processes(tmp_path, *overrides(cities, tmp_path, "name=two", "data.batch_size=8", *steady))
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["one", "two"]
    assert len(list((tmp_path / "two").glob("logs/version_*"))) == 1
    assert checkpoint.read_checkpoint(tmp_path / "two").provenance["step"] == 24

    def last(name, key):
        return [float(row[key]) for row in metrics(tmp_path / name) if row.get(key)][-1]

    for key in ("train/loss", "val/loss"):
        assert last("two", key) == pytest.approx(last("one", key), rel=0.03)


@pytest.mark.slow
def test_two_processes_train_a_codec_and_what_learns_from_it(cities, tmp_path):
    in_two_processes(
        tmp_path, "experiment=latent_diffusion", "name=two",
        f"paths.data={cities}", f"paths.runs={tmp_path}", "trainer.max_steps=2",
        "codec.trainer.max_steps=2", "data.places=[helsinki]",
        "data.size_px=16", "data.batch_size=4", "data.batches_per_epoch=2", "data.val_windows=8", "codes=16",
        "data.statistics_windows=16", "model.network.width=16", "model.network.head=16",
    )  # fmt: skip
    model = citygrain.load(tmp_path / "two")
    codec = citygrain.load(tmp_path / "two" / "codec")
    assert all(torch.equal(v, model.codec.state_dict()[k]) for k, v in codec.state_dict().items())


def test_two_processes_do_not_wait_for_a_critic_that_rests(cities, tmp_path):
    model = ["model=pix2pix", "model.warmup=2", "model.network.widths=[1,2]", "model.critic.layers=1"]
    in_two_processes(tmp_path, *overrides(cities, tmp_path, "name=two", "trainer.max_steps=4", model=model))
    rows = metrics(tmp_path / "two")
    assert any(row["train/critic"] for row in rows), "the game has begun"


def test_half_precision_trains_where_it_is_asked_for(cities, tmp_path):
    trained = run(config(cities, tmp_path, "name=half", "trainer.max_steps=2", "trainer.precision=bf16-mixed"))
    assert all(value.isfinite().all() for value in checkpoint.read_checkpoint(trained).weights.values())


@pytest.fixture(scope="module")
def latent(cities, tmp_path_factory):
    """A codec and a latent diffusion model trained by one command, for a moment."""
    runs = tmp_path_factory.mktemp("runs")
    stage = {"model": config(cities, runs)["model"], "trainer": {"max_steps": 8}}
    composed = config(cities, runs, "name=latent", "trainer.max_steps=8", model=TINY_DIFFUSION)
    return run({**composed, "codec": stage})


def test_one_command_trains_codec_and_diffusion_and_the_model_needs_neither_folder(latent, tmp_path):
    assert (latent.parent / "codec" / "model" / "model.safetensors").is_file()
    model = citygrain.load(latent)
    codec = citygrain.load(latent.parent / "codec")
    assert all(torch.equal(v, model.codec.state_dict()[k]) for k, v in codec.state_dict().items())
    assert model.scale.std() > 0
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in latent.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    assert citygrain.load(moved).spec == model.spec


def test_codes_that_were_lost_are_made_again_as_they_were(cities, latent, tmp_path):
    shutil.copytree(latent.parent, tmp_path / "latent")
    before = torch.load(tmp_path / "latent" / "codes" / "train.pt", weights_only=True)["code"]
    shutil.rmtree(tmp_path / "latent" / "codes")
    composed = config(cities, tmp_path, "name=latent", "trainer.max_steps=12", model=TINY_DIFFUSION)
    stage = {"model": config(cities, tmp_path)["model"], "trainer": {"max_steps": 8}}
    run({**composed, "codec": stage})
    assert torch.equal(torch.load(tmp_path / "latent" / "codes" / "train.pt", weights_only=True)["code"], before)


def test_a_codec_stays_as_it_is_when_what_learned_from_it_goes_on(cities, tmp_path):
    stage = {"model": config(cities, tmp_path)["model"]}  # trained as long as the run itself

    def trained(steps):
        composed = config(cities, tmp_path, "name=latent", f"trainer.max_steps={steps}", model=TINY_DIFFUSION)
        return run({**composed, "codec": stage})

    trained(4)
    codec = weights(tmp_path / "latent" / "codec")
    model = trained(8)
    assert checkpoint.read_checkpoint(model).provenance["step"] == 8
    assert checkpoint.read_checkpoint(tmp_path / "latent" / "codec").provenance["step"] == 4
    assert all(torch.equal(weights(model)[f"codec.{name}"], value) for name, value in codec.items())


def test_a_codec_may_be_changed_or_lost_once_a_run_has_learned_from_it(cities, latent, tmp_path):
    codec = run(config(cities, tmp_path, "name=codec", "trainer.max_steps=2", "data.scalars=[coverage]"))
    before = copy.deepcopy(weights(codec))  # or they would follow the file
    composed = config(cities, tmp_path, "name=latent", "trainer.max_steps=2", model=TINY_DIFFUSION)
    model = run({**composed, "codec": str(codec)})
    shutil.copytree(latent.parent / "codec" / "model", codec, dirs_exist_ok=True)
    run({**composed, "codec": str(codec)})
    citygrain.load(model)
    shutil.rmtree(codec)
    run({**composed, "codec": str(codec), "trainer": {**composed["trainer"], "max_steps": 4}})
    assert checkpoint.read_checkpoint(model).provenance["step"] == 4
    assert all(torch.equal(weights(model)[f"codec.{name}"], value) for name, value in before.items())


def test_training_on_codes_needs_no_validation(cities, latent, tmp_path):
    composed = config(cities, tmp_path, "name=blind", "data.val_windows=0", "trainer.max_steps=4", model=TINY_DIFFUSION)
    assert checkpoint.read_checkpoint(run({**composed, "codec": str(latent.parent / "codec")})).provenance["step"] == 4


def test_a_codec_for_other_layouts_is_refused(cities, latent, tmp_path):
    composed = config(cities, tmp_path, "name=other", "data.size_px=32", model=TINY_DIFFUSION)
    with pytest.raises(ConfigError, match="trained on other layouts"):
        run({**composed, "codec": str(latent.parent / "codec")})


def test_sampling_writes_what_it_says(latent, tmp_path):
    out = tmp_path / "out"
    composed = load_config(
        "sample",
        [f"checkpoint={latent}", "n=3", "seed=7", f"out={out}", "conditions.coverage=p50", "sampler.steps=2",
         "conditions.place=helsinki"],
    )  # fmt: skip
    sample(composed)
    layouts = np.load(out / "layouts.npz")
    assert layouts["layouts"].shape == (3, *citygrain.load(latent).spec.shape)
    assert layouts["seeds"].tolist() == [7, 8, 9]
    rows = read_csv(out / "measured.csv")
    spec = citygrain.load(latent).spec
    assert float(rows[0]["requested_coverage"]) == pytest.approx(spec.quantile("coverage", 50, "helsinki"), rel=1e-4)
    again = citygrain.measure(layouts["layouts"] / np.float32(255), spec.channels, spec.resolution_m)
    assert [float(r["measured_coverage"]) for r in rows] == pytest.approx(again["coverage"].tolist(), abs=1e-5)
    city = checkpoint.read_checkpoint(latent).provenance["data"]["places"]["helsinki"]
    for i, file in enumerate(sorted((out / "layouts").glob("*.tif"))):
        with rasterio.open(file) as tif:
            assert tif.descriptions == spec.channels
            assert tif.crs.to_string() == city["crs"]
            assert tif.res == (4.0, 4.0)
            assert tif.bounds.left == city["grid"]["left_top"][0] + i * (16 + 8) * 4
            assert tif.bounds.top == city["grid"]["left_top"][1]
            assert np.array_equal(tif.read(), layouts["layouts"][i])
    assert (out / "sheet.png").read_bytes()[:4] == b"\x89PNG"


def test_lists_of_levels_ask_for_every_combination_with_the_same_seeds(latent, tmp_path):
    out, levels = tmp_path / "out", {"coverage": [0.1, 0.4], "cycle": [0.0, 1.0, 2.0]}
    lists = [f"conditions.{name}=[{','.join(map(str, values))}]" for name, values in levels.items()]
    few = ["sampler.steps=2", "conditions.place=helsinki"]
    sample(load_config("sample", [f"checkpoint={latent}", "seed=5", f"out={out}", *lists, *few]))
    rows = read_csv(out / "measured.csv")
    asked = [tuple(float(row[f"requested_{name}"]) for name in levels) for row in rows]
    assert np.allclose(asked, [(a, b) for a in levels["coverage"] for b in levels["cycle"]])
    assert {row["seed"] for row in rows} == {"5"}
    with (
        rasterio.open(out / "layouts" / "layout_0003.tif") as below,
        rasterio.open(out / "layouts" / "layout_0000.tif") as first,
    ):  # three in a row, as on the sheet
        assert below.bounds.left == first.bounds.left
        assert below.bounds.top < first.bounds.bottom
    one = tmp_path / "one"
    sample(load_config("sample", [f"checkpoint={latent}", "seed=5", "n=1", f"out={one}", "conditions.coverage=0.4",
                                  "conditions.cycle=1.0", *few]))  # fmt: skip
    alone, among = (np.load(folder / "layouts.npz")["layouts"] for folder in (one, out))
    assert np.abs(alone[0].astype(int) - among[4]).max() <= 1


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        (["conditions.coverage=[]", "checkpoint={latent}"], ConfigError, "holds some"),
        (["conditions.coverage=[0.1,0.2]", "extent_m=[200,200]", "checkpoint={latent}"], ConfigError, "multirun"),
        (["conditions.parking=0.2", "checkpoint={nowhere}"], CheckpointError, "no checkpoint here"),
        (["conditions.place=atlantis", "checkpoint={latent}"], ConditionError, "helsinki"),
        (["conditions.coverage=dense", "checkpoint={latent}"], ConditionError, "not a number"),
        (["conditions.coverage=p101", "checkpoint={latent}"], ConditionError, "p0 … p100"),
        (["n=0", "checkpoint={latent}"], ConfigError, "at least 1"),
        (["n=[3]", "checkpoint={latent}"], ConfigError, "n is not of the right kind"),
        (["georeference.crs=EPSG:32635", "checkpoint={latent}"], ConfigError, "both"),
        (
            ["georeference.crs=EPSG:32635", "georeference.origin=[a,1]", "checkpoint={latent}"],
            ConfigError,
            "an easting",
        ),
        (
            ["georeference.crs=EPSG:32635", "georeference.origin=[.nan,1]", "checkpoint={latent}"],
            ConfigError,
            "an easting",
        ),
        (["georeference.crs=EPSG:4326", "georeference.origin=[1,1]", "checkpoint={latent}"], ConfigError, "in metres"),
        (["georeference.crs=EPSG:2263", "georeference.origin=[1,1]", "checkpoint={latent}"], ConfigError, "in metres"),
        (
            ["georeference.crs=EPSG:99", "georeference.origin=[1,1]", "checkpoint={latent}"],
            ConfigError,
            "no coordinate",
        ),
        (["device=tpu9", "checkpoint={latent}"], ConfigError, "does not have this device"),
    ],
)
def test_wrong_requests_are_told_in_words_before_anything_is_drawn(latent, tmp_path, asked, error, words):
    filled = [a.format(latent=latent, nowhere=tmp_path / "nowhere") for a in asked]
    with pytest.raises(error, match=words):
        sample(load_config("sample", [*filled, f"out={tmp_path / 'out'}"]))
    assert not (tmp_path / "out").exists()


def test_damaged_and_unsafe_checkpoints_are_refused(latent, tmp_path):
    last = latent.parent / checkpoint.LAST
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(last.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="damaged"):
        citygrain.load(cut)
    unsafe = tmp_path / "unsafe.ckpt"
    torch.save({"hyper_parameters": Evil(), "state_dict": {}}, unsafe)
    with pytest.raises(CheckpointError, match="refused"):
        citygrain.load(unsafe)
    content = torch.load(last, weights_only=True)
    content["hyper_parameters"]["model"] = {"_target_": "os.system", "command": "touch pwned"}
    torch.save(content, tmp_path / "target.ckpt")
    with pytest.raises(CheckpointError, match="may not call"):
        citygrain.load(tmp_path / "target.ckpt")


class Evil:
    def __reduce__(self):
        return (os.system, ("true",))


def twins(cities, folder):
    """Helsinki and the same windows under another name."""
    for name in ("helsinki", "twin"):
        shutil.copytree(cities / "helsinki", folder / name)
    manifest = folder / "twin" / "place.json"
    manifest.write_text(manifest.read_text().replace('"helsinki"', '"twin"'))


def test_a_model_learns_on_from_another_on_a_new_place(cities, latent, tmp_path):
    """The latent model knows Helsinki; it learns on on a twin as well, with all but its network frozen."""
    twins(cities, tmp_path / "cities")
    before = citygrain.load(latent)
    made = run(
        config(
            tmp_path / "cities", tmp_path, "name=tuned", "data.places=[twin,helsinki]", f"init_from={latent}",
            "freeze=[conditioner,noise_embedding]", "trainer.max_steps=4", model=(),
        )
    )  # fmt: skip
    after = citygrain.load(made)
    assert after.spec.places == ("twin", "helsinki")
    assert type(after) is type(before)
    rows = before.conditioner.place.weight
    assert torch.equal(after.conditioner.place.weight, rows[[0, 0, 1]])
    for name, value in before.state_dict().items():
        if not name.startswith("network.") and "place" not in name:
            assert torch.equal(after.state_dict()[name], value), name
    assert not torch.equal(after.network.stem.weight, before.network.stem.weight)
    again = config(
        tmp_path / "cities", tmp_path, "name=tuned", "data.places=[twin,helsinki]", f"init_from={latent}",
        "freeze=[conditioner,noise_embedding]", "trainer.max_steps=6", model=(),
    )  # fmt: skip
    assert checkpoint.read_checkpoint(run(again)).provenance["step"] == 6
    assert torch.equal(citygrain.load(made).conditioner.place.weight, rows[[0, 0, 1]])
    run(again)  # the configuration's own model, diffusion with other settings, has no part in it
    assert citygrain.load(made).sampler == before.sampler


def test_a_codec_that_learns_on_gets_a_prior_of_its_new_places(cities, tmp_path):
    twins(cities, tmp_path / "cities")
    autoencoder = [o.replace("variational_", "") for o in TINY_VAE if "embedding" not in o]
    source = run(config(cities, tmp_path, "name=source", "trainer.max_steps=4", "codes=64", model=autoencoder))
    made = run(
        config(
            tmp_path / "cities", tmp_path, "name=tuned", "data.places=[twin,helsinki]", f"init_from={source}",
            "trainer.max_steps=2", "codes=64", model=(),
        )
    )  # fmt: skip
    model = citygrain.load(made)
    assert model.fitted
    assert model.latent_prior.places.shape[-1] > citygrain.load(source).latent_prior.places.shape[-1]
    assert model.latent_prior.places.sum(1).allclose(torch.ones(1))


@pytest.mark.parametrize(
    ("family", "more", "error", "words"),
    [
        ("autoencoder", ["codes=40"], DataError, "at least 48, for 24 components over 48 dimensions"),
        ("autoencoder", ["codes=20", "model.prior.dimensions=4"], DataError, "at least 24"),
        ("vector_quantized", ["codes=40"], DataError, "at least 48"),
        ("pca", ["codes=1", "model.prior.components=1", "model.prior.dimensions=1"], DataError, "at least 2"),
        ("pca", ["model.prior.components=0"], ConfigError, "components ≥ 1"),
        ("pca", ["codes=0"], ConfigError, "codes is a number of windows"),
        ("diffusion", ["codes=-1"], ConfigError, "codes is a number of windows"),
    ],
)
def test_too_few_windows_for_what_follows_are_told_before_training(
    cities, tmp_path, monkeypatch, family, more, error, words
):
    monkeypatch.setattr(pl.Trainer, "fit", lambda *_, **__: pytest.fail("it was trained before it was told"))
    with pytest.raises(error, match=words):
        run(config(cities, tmp_path, "name=few", *more, model=[f"model={family}"]))


def test_codes_are_counted_before_the_codec_is_trained(cities, tmp_path, monkeypatch):
    monkeypatch.setattr(pl.Trainer, "fit", lambda *_, **__: pytest.fail("the codec was trained"))
    stage = {"model": config(cities, tmp_path)["model"]}
    composed = config(cities, tmp_path, "name=few", "codes=0", model=[o for o in TINY_DIFFUSION if o != "codes=64"])
    with pytest.raises(ConfigError, match="codes is a number of windows"):
        run({**composed, "codec": {**stage, "codes": 64}})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data.channels=[building,street]"], "channels without arterial"),
        (["data.scalars=[coverage]"], "scalars without street_density"),
        (["data.size_px=32"], "data.size_px=32"),
        (["data.resolution_m=2"], "data.resolution_m=2"),
        (["data.scalars=[]"], "scalars without coverage"),
        (["codec={latent}"], "that one's model and codec"),
        (["model=variational_autoencoder"], "that one's model and codec"),
        (["model.network.width=16", "model.embedding=64"], "model.network.width=16 model.embedding=64"),
        (["freeze=[netwrk]"], "did you mean: network"),
        (["freeze=[conditioner,network,noise_embedding]"], "nothing is left to train"),
    ],
)
def test_what_cannot_learn_on_is_refused_with_the_difference(cities, latent, tmp_path, arguments, words):
    filled = [argument.format(latent=latent) for argument in arguments]
    with pytest.raises(ConfigError, match=words):
        run(config(cities, tmp_path, "name=tuned", f"init_from={latent}", "trainer.max_steps=2", *filled, model=()))


def test_a_run_without_a_log_leaves_none_and_makes_its_model(cities, tmp_path):
    made = run(config(cities, tmp_path, "name=mute", "trainer.max_steps=2", "logger=none"))
    assert citygrain.load(made)
    assert not list(tmp_path.rglob("metrics.csv"))


def test_a_run_may_end_by_the_clock(cities, tmp_path):
    arguments = ("name=timed", "trainer.max_steps=-1", "+trainer.max_epochs=-1", "+trainer.max_time='00:00:00:03'")
    assert checkpoint.read_checkpoint(run(config(cities, tmp_path, *arguments))).provenance["step"] > 0
    with pytest.raises(ConfigError, match="without an end"):
        run(config(cities, tmp_path, *arguments, "name=swa", "callbacks=swa"))


def test_what_an_older_version_made_is_refused_in_words(cities, latent, tmp_path):
    old = checkpoint.read_checkpoint(latent)
    stale = {name.replace("network.stem", "network.root"): value for name, value in old.weights.items()}
    checkpoint.export_checkpoint(replace(old, weights=stale), tmp_path / "old")
    with pytest.raises(CheckpointError, match="use the version of citygrain that made it"):
        run(config(cities, tmp_path, "name=tuned", f"init_from={tmp_path / 'old'}", "trainer.max_steps=2", model=()))


def test_lasso_joins_the_loss_of_training_and_shrinks_weights(cities, tmp_path):
    arguments = ("trainer.max_steps=8", "optimizer=sgd", "optimizer.lr=1e-2", "lr_schedule=constant")
    sums = {}
    for l1 in (0.0, 1e-2):
        made = run(config(cities, tmp_path, f"name=l{l1}", f"l1={l1}", *arguments))
        sums[l1] = sum(float(v.abs().sum()) for v in weights(made).values() if v.ndim > 1)
        rows = [row for row in metrics(tmp_path / f"l{l1}") if row.get("train/loss")]
        assert ("train/l1" in rows[-1]) == (l1 > 0)
    assert float(rows[-1]["train/l1"]) == pytest.approx(1e-2 * sums[1e-2], rel=0.05)
    assert sums[1e-2] < 0.998 * sums[0.0]


def test_what_may_change_between_starts_are_keys_of_the_configuration():
    config = load_config("train", ["data.places=[]"])
    assert set(FREE) <= set(config) | {f"model.{key}" for key in config["model"]}


def test_a_trained_model_takes_another_sampler_without_training(cities, tmp_path):
    arguments = ("name=resampled", "trainer.max_steps=2")
    first = citygrain.load(run(config(cities, tmp_path, *arguments)))
    again = citygrain.load(run(config(cities, tmp_path, *arguments, "model.sampler.temperature=0.5")))
    assert (first.sampler.temperature, again.sampler.temperature) == (1.0, 0.5)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src"), "WANDB_MODE": "offline"}


def test_wandb_works_without_an_account_and_keeps_the_pictures(cities, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    stage = {"model": config(cities, tmp_path)["model"], "trainer": {"max_steps": 4}}
    composed = config(cities, tmp_path, "name=tracked", "trainer.max_steps=4", "logger=wandb", model=TINY_DIFFUSION)
    run({**composed, "codec": stage})
    for folder in (tmp_path / "tracked" / "codec", tmp_path / "tracked"):
        kept = list((folder / "wandb").glob("offline-run-*"))
        assert len(kept) == 1, "each stage is a run of its own"
        assert len(list(kept[0].glob("files/media/images/samples*.png"))) == 1
