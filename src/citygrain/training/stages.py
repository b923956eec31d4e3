"""The stages of a run before and after the training itself: another model's weights, a codec, statistics, a prior."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from citygrain.checkpoint import CASCADE, LAST, Checkpoint, describe_part, load, read_checkpoint
from citygrain.data.datamodule import CityDataModule
from citygrain.errors import ConfigError, TrainingError
from citygrain.protocols import Codec, FitsPrior, Generator, MeasuresConditions, MeasuresData, as_module
from citygrain.spec import Conditions, LayoutSpec
from citygrain.support.console import show_progress_bar
from citygrain.support.options import parse
from citygrain.support.targets import TARGET, Plain
from citygrain.training.options import Training

MEASURED_WINDOWS = 1024
"""Train windows that a family measures its statistics on."""

CONDITIONS_OF_PLACE = 160
"""Train windows of each place whose conditions are measured for a family that keeps some of them."""

ENCODED_AT_ONCE = 256


def read_source(training: Training) -> Checkpoint | None:
    """Read the model that the run begins with, if any; it brings its own codec along.

    A run that goes on reads its own checkpoint.
    """
    if training.init_from is None:
        return None
    if (training.folder / LAST).is_file():
        return read_checkpoint(training.folder / LAST)
    load(training.init_from)  # refuses what this version cannot make a model of
    source = read_checkpoint(training.init_from)
    refuse_cascade(source.model, f"init_from={training.init_from}")
    return source


def refuse_cascade(model: Plain, told: str) -> None:
    """Refuse to train a cascade: its parts are trained on their own.

    Parameters
    ----------
    model
        Describes the generator.
    told
        How the configuration names it.

    Raises
    ------
    ConfigError
        When it is a cascade.
    """
    if model.get(TARGET) == CASCADE:
        raise ConfigError(
            "A cascade is not trained: its parts are, each on its own.",
            got=told,
            remedy="train a plan and a ground, and join them: citygrain export model=cascade model.plan=runs/… "
            "model.ground=runs/… out=…",
        )


def describe_source(source: Checkpoint | None, folder: Path) -> dict[str, Any]:
    """Return the provenance of the training that the run began with."""
    if source is None:
        return {}
    made = source.provenance
    if (folder / LAST).is_file():  # it is this very run
        return {"begun_from": made["begun_from"]} if "begun_from" in made else {}
    told = {key: made[key] for key in ("name", "step", "train_s", "begun_from") if key in made}
    return {"begun_from": {**told, "places": list(source.spec.places)}}


def find_codec(training: Training, source: Checkpoint | None, train: Callable[[Training], Path]) -> Checkpoint | None:
    """Return the codec in whose code the model learns, if any.

    It is that of `source`, or that of the run's own checkpoint if the run goes on, or the one that the configuration
    names, or one that is trained now.

    Parameters
    ----------
    training
        Of the model.
    source
        What the run begins with.
    train
        Trains a codec and returns its folder.

    Raises
    ------
    ConfigError
        When the checkpoint that the configuration names is no codec.
    """
    if source is not None:
        return _codec_within(source) if source.model.get("codec") else None
    if training.codec is None:
        return None
    if (training.folder / LAST).is_file():
        return _codec_within(read_checkpoint(training.folder / LAST))
    path = training.codec if isinstance(training.codec, str) else train(_codec_training(training, training.codec))
    if not isinstance(load(path), Codec):
        raise ConfigError(
            "This checkpoint is no codec.",
            got=path,
            expected="a family with a code, such as variational_autoencoder",
        )
    return read_checkpoint(path)


def _codec_training(training: Training, changes: Mapping[str, Any]) -> Training:
    """Return the training of a codec: that of the model, with the changes, in a folder inside."""
    own = {"codec": None, "freeze": (), "l1": 0.0, **changes, "name": f"{training.name}/codec"}
    return parse(Training, _merged(vars(training), own))


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one configuration over another; where the target changes, nothing of the old mapping stays."""
    merged = dict(base)
    for key, value in over.items():
        merged[key] = value
        old = base.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            same_target = value.get(TARGET, old.get(TARGET)) == old.get(TARGET)
            merged[key] = _merged(old, value) if same_target else value
    return merged


def _codec_within(latent: Checkpoint) -> Checkpoint:
    """Return the codec in the checkpoint of a model that learns from its codes."""
    model = dict(latent.model["codec"])
    spec = LayoutSpec.from_dict(model.pop("spec")["plain"])
    weights = {name.removeprefix("codec."): w for name, w in latent.weights.items() if name.startswith("codec.")}
    return replace(latent, model=model, spec=spec, weights=weights)


def describe_codec(codec: Checkpoint) -> dict[str, Any]:
    """Return the description of a codec for the model that learns from its codes: as it is, with a spec of its own."""
    return describe_part(replace(codec, spec=replace(codec.spec, statistics={})))


def check_codec(codec: LayoutSpec, spec: LayoutSpec) -> None:
    """Refuse a codec of other layouts: it fixes channels, size and resolution.

    Raises
    ------
    ConfigError
        Tells both.
    """
    if _decided(codec) != _decided(spec):
        raise ConfigError(
            "The codec was trained on other layouts.",
            expected=_layouts_of(spec),
            got=_layouts_of(codec),
            remedy="train the codec on the same data group, or change data.* to the codec's",
        )


def check_begun(begun: LayoutSpec, spec: LayoutSpec, folder: Path) -> None:
    """Refuse to go on with a run on windows of other channels: its places have been prepared anew since.

    Raises
    ------
    TrainingError
        Tells both.
    """
    if _decided(begun) != _decided(spec):
        raise TrainingError(
            f"The run in {folder} began on other layouts: its places have been prepared anew since.",
            expected=_layouts_of(begun),
            got=_layouts_of(spec),
            remedy="choose another name=…, or remove the folder to start again",
        )


def _decided(spec: LayoutSpec) -> tuple[Any, ...]:
    return spec.channels, spec.shape, spec.resolution_m, spec.raster_format


def _layouts_of(spec: LayoutSpec) -> str:
    names = ", ".join(spec.channels)
    return f"{spec.shape} at {spec.resolution_m:g} m: {names} (format {spec.raster_format})"


def measure_data(generator: Generator, data: CityDataModule) -> None:
    """Measure the statistics by which a family standardises its data, and conditions that it keeps, if it does."""
    if isinstance(generator, MeasuresData):
        data.setup("fit")
        generator.measure_data(data.batch("train", range(MEASURED_WINDOWS)).layout)
    if isinstance(generator, MeasuresConditions):
        coarse, count = data.coarsest(), CONDITIONS_OF_PLACE * max(1, len(generator.spec.places))
        parts = [range(start, min(start + ENCODED_AT_ONCE, count)) for start in range(0, count, ENCODED_AT_ONCE)]
        generator.measure_conditions(Conditions.cat([coarse.batch("train", part).conditions for part in parts]))


def fit_prior(path: Path, data: CityDataModule, windows: int) -> Checkpoint:
    """Read a trained checkpoint, and fit its prior to the codes of train windows if its family fits one.

    Parameters
    ----------
    path
        The checkpoint.
    data
        Has the windows.
    windows
        How many are encoded.
    """
    trained = read_checkpoint(path)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = load(path, device=device)
    if not isinstance(generator, FitsPrior):
        return trained
    codes, conditions = [], []
    with show_progress_bar("encoding windows for the prior", windows) as advance, torch.no_grad():
        for start in range(0, windows, ENCODED_AT_ONCE):
            batch = data.batch("train", range(start, min(start + ENCODED_AT_ONCE, windows)), device)
            codes.append(generator.encode(batch.layout))
            conditions.append(batch.conditions)
            advance(len(codes[-1]))
        generator.fit_prior(torch.cat(codes), Conditions.cat(conditions))
    weights = {name: value.cpu() for name, value in as_module(generator).state_dict().items()}
    return replace(trained, weights=weights)
