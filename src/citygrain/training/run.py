"""`citygrain train`: from a plain configuration to a trained generator in `runs/<name>`.

A run's folder carries no time stamp: the same command finds it and goes on where it stopped. It holds

- `config.json`, what was asked for; the folder refuses another configuration;
- `checkpoints/last.ckpt`, written at the end of each epoch;
- `samples/`, the same layouts drawn as training goes on; `logs/`, the metrics;
- `codes/` and `codec/`, for latent models: windows encoded once, and the codec where the run trained it too;
- `model/`, at the end: safetensors, configuration and card, which is all that sampling needs.
"""

from __future__ import annotations

import copy
import json
import logging
import time
import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import rich
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.loggers import WandbLogger
from torch import nn

from citygrain.checkpoint import EXPORT, LAST, WEIGHTS, Checkpoint, environment, export, load, read
from citygrain.data.codes import fingerprint
from citygrain.data.datamodule import CityDataModule
from citygrain.errors import ConfigError, TrainingError
from citygrain.protocols import Codec, FitsPrior, LearnsFromCodes, MeasuresData, RestsWeights
from citygrain.spec import Conditions, LayoutSpec
from citygrain.support.console import progress_bar
from citygrain.support.devices import AUTO, MIXED, SINGLE, has_fast_bf16
from citygrain.support.files import write_text
from citygrain.support.targets import TARGET, instantiate
from citygrain.training.codes import CodeDataModule
from citygrain.training.finetune import adopt, check_alike, freeze, taken_over
from citygrain.training.task import GenerativeTask

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG = "config.json"
FREE = ("name", "paths", "threads", "trainer", "logger", "callbacks", "compile", "model.sampler")
"""Keys of the configuration that may change from one start of a run to the next: they decide how, not what."""


def run(config: Mapping[str, Any]) -> Path:
    """Train what the configuration describes, or go on with it.

    Parameters
    ----------
    config
        `conf/train.yaml`, composed and plain.

    Returns
    -------
    Path
        The exported model's folder.

    Raises
    ------
    TrainingError
        When the run's folder belongs to another configuration, or the loss is no number.
    DataError, ConfigError, CheckpointError
        When data, configuration or codec are not what they have to be.
    """
    folder = Path(config["paths"]["runs"]) / str(config["name"])
    _claim(folder, config)
    until = {key: config["trainer"].get(key) for key in ("max_steps", "max_epochs", "max_time")}
    until["callbacks"] = config["callbacks"]  # one of them may end a run early
    if _finished(folder, until):
        rich.print(f"[bold]{config['name']}[/] is already trained; its model is in {folder / EXPORT}")
        return _exported_again(folder, config["model"]) if config["init_from"] is None else folder / EXPORT
    _check_monitors(config)
    if config["codes"] < 1:
        raise ConfigError("codes is a number of windows.", expected="at least 1", got=config["codes"])
    source = _source(config, folder)
    codec = _codec(config, folder, source)
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    chosen = config["data"] if source is None else taken_over(config["data"], source)
    data = CityDataModule(root=config["paths"]["data"], seed=config["seed"], **chosen)
    spec = data.prepare_spec()
    if source is not None:
        check_alike(source, spec)
    model = copy.deepcopy(dict(config["model"] if source is None else source.model))
    if codec is not None:
        _check_codec(codec.spec, spec)
        model["codec"] = _part(codec)
    task = GenerativeTask(
        model=model,
        spec=spec.to_dict(),
        optimizer=config["optimizer"],
        lr_schedule=config["lr_schedule"],
        unconditional_share=config["unconditional_share"],
        l1=config["l1"],
        provenance={"name": config["name"], "data": data.provenance(), **_begun_from(source, folder), **environment()},
    )
    if isinstance(task.generator, FitsPrior):  # after training it would be too late to say so
        task.generator.check_enough(config["codes"])
    with _quiet():
        trainer = _trainer(config, folder, task.generator)
    resume = folder / LAST
    if resume.is_file():
        _check_begun(read(resume).spec, spec, folder)
    if codec is not None:
        task.generator.codec.load_state_dict(codec.weights)
    if source is not None and not resume.is_file():
        adopt(task.generator, source, spec)
        if trainer.is_global_zero:
            rich.print(f"[bold]{config['name']}[/] begins with the model and weights of {source.path}")
    elif not resume.is_file():
        _measure_data(task, data)
    elif trainer.is_global_zero:
        rich.print(f"[bold]{config['name']}[/] goes on at {resume}")
    freeze(task.generator, config["freeze"])
    if config["compile"]:
        for network in task.generator.children():
            network.compile()  # in place: `torch.compile(module)` would rename the weights
    windows: pl.LightningDataModule = data
    if isinstance(task.generator, LearnsFromCodes) and codec is not None:
        weights = fingerprint({k: v.double().sum().item() for k, v in codec.weights.items()})
        key = {"codec": weights, "spec": spec.to_dict()}
        windows = CodeDataModule(data, task.generator, folder / "codes", config["codes"], key)
    started = time.perf_counter()
    with _quiet():
        trainer.fit(task, windows, ckpt_path=resume if resume.is_file() else None, weights_only=True)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()  # or the next stage would go on in this one's run
    if trainer.interrupted:
        raise KeyboardInterrupt
    if trainer.is_global_zero:
        trained = _with_prior(resume, data, config["codes"])
        export(replace(trained, provenance={**trained.provenance, "until": until}), folder / EXPORT)
        _report(config["name"], trainer, time.perf_counter() - started, folder)
    trainer.strategy.barrier()  # the other processes may want to read it at once
    return folder / EXPORT


def _source(config: Mapping[str, Any], folder: Path) -> Checkpoint | None:
    """Read what the run begins with; one that goes on has its model in its own checkpoint.

    It brings its model and codec along: those of a recipe are not needed.
    """
    if config["init_from"] is None:
        return None
    if (folder / LAST).is_file():
        return read(folder / LAST)
    load(str(config["init_from"]))  # refuses what this version cannot make a model of
    return read(str(config["init_from"]))


def _begun_from(source: Checkpoint | None, folder: Path) -> dict[str, Any]:
    """Name the training that a run goes on from, for its provenance."""
    if source is None:
        return {}
    made = source.provenance
    if (folder / LAST).is_file():  # it is this very run
        return {"begun_from": made["begun_from"]} if "begun_from" in made else {}
    told = {key: made[key] for key in ("name", "step", "train_s", "begun_from") if key in made}
    return {"begun_from": {**told, "places": list(source.spec.places)}}


def _codec(config: Mapping[str, Any], folder: Path, source: Checkpoint | None) -> Checkpoint | None:
    """Train the codec where the configuration describes one, or read it where it names a checkpoint.

    A run that goes on takes the one that its own checkpoint holds, whatever has become of the other.
    """
    if source is not None:
        return _learned_codec(source) if source.model.get("codec") else None
    codec = config["codec"]
    if codec is None:
        return None
    if (folder / LAST).is_file():
        return _learned_codec(read(folder / LAST))
    if isinstance(codec, Mapping):
        codec = run(
            _merged(config, {"codec": None, "freeze": [], "l1": 0.0, **codec, "name": f"{config['name']}/codec"})
        )
    if not isinstance(load(codec), Codec):
        raise ConfigError(
            "This checkpoint is no codec.",
            got=codec,
            expected="a family with a code, such as variational_autoencoder",
        )
    return read(codec)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one configuration over another; where the target changes, nothing of the old mapping stays."""
    merged = dict(base)
    for key, value in over.items():
        merged[key] = value
        old = base.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            same_target = value.get("_target_", old.get("_target_")) == old.get("_target_")
            merged[key] = _merged(old, value) if same_target else value
    return merged


def _claim(folder: Path, config: Mapping[str, Any]) -> None:
    """Write the configuration into the run's folder, or compare it with what is there."""
    mine = _fixed(config)
    path = folder / CONFIG
    if path.is_file() and (folder / LAST).is_file():
        theirs = _fixed(json.loads(path.read_text(encoding="utf-8")))
        changed = sorted(_differences(theirs, json.loads(json.dumps(mine))))
        if changed:
            raise TrainingError(
                f"The folder {folder} holds a run of another configuration.",
                got="; ".join(changed[:8]) + ("; …" if len(changed) > 8 else ""),
                remedy="choose another name=…, or remove the folder to start again",
            )
        return
    write_text(path, json.dumps(mine, indent=1, ensure_ascii=False) + "\n")


def _check_begun(begun: LayoutSpec, spec: LayoutSpec, folder: Path) -> None:
    """Refuse to go on with a run on windows of other channels: its places have been prepared anew since."""
    if _decided(begun) != _decided(spec):
        raise TrainingError(
            f"The run in {folder} began on other layouts: its places have been prepared anew since.",
            expected=_layouts_of(begun),
            got=_layouts_of(spec),
            remedy="choose another name=…, or remove the folder to start again",
        )


def _fixed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what may change from one start to the next, of a codec that is trained on the way too."""

    def fixed_model(stage: Mapping[str, Any]) -> dict[str, Any]:
        model = {key: value for key, value in stage.get("model", {}).items() if f"model.{key}" not in FREE}
        return {**stage, "model": model}

    kept = fixed_model({key: value for key, value in config.items() if key not in FREE})
    return {**kept, "codec": fixed_model(kept["codec"])} if isinstance(kept["codec"], Mapping) else kept


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))
    elif old != new:
        yield f"{path}: {old!r} there, {new!r} asked for"


def _check_codec(codec: LayoutSpec, spec: LayoutSpec) -> None:
    """Refuse a codec of other layouts: it fixes channels, size and resolution."""
    if _decided(codec) != _decided(spec):
        raise ConfigError(
            "The codec was trained on other layouts.",
            expected=_layouts_of(spec),
            got=_layouts_of(codec),
            remedy="train the codec on the same data group, or change data.* to the codec's",
        )


def _decided(spec: LayoutSpec) -> tuple[Any, ...]:
    return spec.channels, spec.shape, spec.resolution_m, spec.raster_format


def _layouts_of(spec: LayoutSpec) -> str:
    names = ", ".join(spec.channels)
    return f"{spec.shape} at {spec.resolution_m:g} m: {names} (format {spec.raster_format})"


def _part(codec: Checkpoint) -> dict[str, Any]:
    """Describe a codec inside the model that learns from its codes: as it is, with a spec of its own."""
    plain = replace(codec.spec, statistics={}).to_dict()
    return {**codec.model, "spec": {TARGET: f"{LayoutSpec.__module__}.LayoutSpec.from_dict", "plain": plain}}


def _learned_codec(latent: Checkpoint) -> Checkpoint:
    """Take the codec out of the checkpoint of a model that learns from its codes."""
    model = dict(latent.model["codec"])
    spec = LayoutSpec.from_dict(model.pop("spec")["plain"])
    weights = {name.removeprefix("codec."): w for name, w in latent.weights.items() if name.startswith("codec.")}
    return replace(latent, model=model, spec=spec, weights=weights)


def _exported_again(folder: Path, model: Mapping[str, Any]) -> Path:
    """Export a trained model under another sampler, the one part of a model that may change without training."""
    done = read(folder / EXPORT)
    changed = {key: model[key] for key in ("sampler",) if key in model}
    return export(replace(done, model={**done.model, **changed}), folder / EXPORT)


def _check_monitors(config: Mapping[str, Any]) -> None:
    """Refuse callbacks that wait for a validation where there is none."""
    for name, callback in config["callbacks"].items():
        if (
            callback
            and str(callback.get("monitor", "")).startswith("val/")
            and not config["data"].get("val_windows", 1)
        ):
            raise ConfigError(
                f"callbacks.{name} watches the validation, and there is none.",
                got=f"callbacks.{name}.monitor={callback['monitor']}, data.val_windows=0",
                remedy=f"raise data.val_windows, or watch training: callbacks.{name}.monitor=train/loss "
                f"callbacks.{name}.check_on_train_epoch_end=true",
            )


def _measure_data(task: GenerativeTask, data: CityDataModule) -> None:
    generator = task.generator
    if isinstance(generator, MeasuresData):
        data.setup("fit")
        generator.measure_data(data.batch("train", range(1024), torch.device("cpu")).layout)


def _with_prior(path: Path, data: CityDataModule, windows: int) -> Checkpoint:
    """Read a trained checkpoint; where its family's prior is fitted, fit it to the codes of training windows."""
    trained = read(path)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = load(path, device=device)
    if not isinstance(generator, FitsPrior):
        return trained
    weights: Any = generator
    codes, conditions = [], []
    with progress_bar("encoding windows for the prior", windows) as advance, torch.no_grad():
        for start in range(0, windows, 256):
            batch = data.batch("train", range(start, min(start + 256, windows)), device)
            codes.append(generator.encode(batch.layout))
            conditions.append(batch.conditions)
            advance(len(codes[-1]))
        generator.fit_prior(torch.cat(codes), Conditions.cat(conditions))
    return replace(trained, weights={name: value.cpu() for name, value in weights.state_dict().items()})


def _trainer(config: Mapping[str, Any], folder: Path, generator: nn.Module) -> pl.Trainer:
    settings = dict(config["trainer"])
    if settings.get("precision") == AUTO:
        settings["precision"] = MIXED if has_fast_bf16(settings.get("accelerator", "auto")) else SINGLE
    if settings.get("strategy") == "ddp" and isinstance(generator, RestsWeights) and generator.rests:
        settings["strategy"] = "ddp_find_unused_parameters_true"
    checkpoints = pl.callbacks.ModelCheckpoint(
        dirpath=(folder / LAST).parent, filename=LAST.stem, enable_version_counter=False, save_on_train_epoch_end=True
    )
    callbacks = [instantiate(callback) for callback in config["callbacks"].values() if callback]
    loggers = [instantiate(logger, save_dir=str(folder)) for logger in config["logger"].values() if logger]
    if not loggers:  # it refuses to watch for nobody
        callbacks = [c for c in callbacks if not isinstance(c, pl.callbacks.LearningRateMonitor)]
    try:
        return instantiate(
            settings,
            callbacks=[*callbacks, checkpoints],
            logger=loggers or False,
            default_root_dir=str(folder),
            use_distributed_sampler=False,  # the data module deals windows to ranks itself
        )
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise ConfigError(
            "Lightning cannot make this trainer here.",
            got=error,
            remedy="trainer=cpu runs everywhere; trainer=auto takes the best device there is",
        ) from error


def _finished(folder: Path, until: Mapping[str, Any]) -> bool:
    """Whether training has come to its end, or has ended by itself on the way to the same end (early stopping)."""
    if not (folder / LAST).is_file() or not (folder / EXPORT / WEIGHTS).is_file():
        return False
    provenance = read(folder / EXPORT).provenance
    return provenance.get("until") == until or 0 < (until["max_steps"] or 0) <= int(provenance["step"])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what Lightning says about choices that were made on purpose off the screen."""
    chatter = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    level = chatter.level
    with warnings.catch_warnings():
        chatter.setLevel(logging.WARNING)
        for message in (
            "The 'train_dataloader' does not have many workers",  # windows are gathered by the batch from memory maps
            "The 'val_dataloader' does not have many workers",
            "Checkpoint directory .* exists and is not empty",  # a run that goes on
            "You're resuming from a checkpoint that ended before the epoch ended",
            "The number of training batches .* is smaller than the logging interval",  # epochs are what is logged
            "Found .* module.s. in eval mode at the start of training",  # the frozen codec
            ".*LeafSpec.* is deprecated",  # Lightning's own
            "Be aware that when using `ckpt_path`, callbacks",  # other callbacks are a choice
            "The dirpath has changed from",  # a run folder that was moved
            "Total length of `list` across ranks is zero",  # data.val_windows=0
        ):
            warnings.filterwarnings("ignore", message=message)
        try:
            yield
        finally:
            chatter.setLevel(level)


def _report(name: str, trainer: pl.Trainer, seconds: float, folder: Path) -> None:
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
    shown = ", ".join(f"{k} {v:.4g}" for k, v in sorted(metrics.items()))
    rich.print(
        f"[bold]{name}[/] was trained for {trainer.global_step:,} steps, {seconds:,.0f} s in this run: {shown}\n"
        f"model: {folder / EXPORT}\npictures: {folder / 'samples'}"
    )
