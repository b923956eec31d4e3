"""From a `Training` to a trained generator in `runs/<name>`.

A run's folder carries no time stamp: the same training finds it and goes on where it stopped. It holds

- `config.json`, what decides the training; the folder refuses another configuration;
- `checkpoints/last.ckpt`, written at the end of each epoch;
- `samples/`, the same layouts drawn as training goes on; `logs/`, the metrics;
- `codes/` and `codec/`, for latent models: windows encoded once, and the codec where the run trained it too;
- `model/`, at the end: safetensors, configuration and card, which is all that sampling needs.
"""

from __future__ import annotations

import copy
import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import rich
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.loggers import WandbLogger

from citygrain.checkpoint import EXPORT, LAST, Checkpoint, describe_environment, export_checkpoint, read_checkpoint
from citygrain.data.codes import fingerprint
from citygrain.data.datamodule import CityDataModule
from citygrain.errors import ConfigError
from citygrain.protocols import FitsPrior, Generator, LearnsFromCodes, LearnsFromWays, RestsWeights, as_module
from citygrain.spec import LayoutSpec
from citygrain.support.devices import AUTO, MIXED, SINGLE, has_fast_bf16, use_threads
from citygrain.support.targets import check_arguments, instantiate
from citygrain.training.claim import claim_folder, is_finished
from citygrain.training.codes import CodeDataModule
from citygrain.training.finetune import adopt, check_alike, freeze, take_over
from citygrain.training.options import Training
from citygrain.training.stages import (
    check_begun,
    check_codec,
    describe_codec,
    describe_source,
    find_codec,
    fit_prior,
    measure_data,
    read_source,
    refuse_cascade,
)
from citygrain.training.task import GenerativeTask


def run(training: Training) -> Path:
    """Train a generator, or go on with it.

    Parameters
    ----------
    training
        What to train, on what, and how.

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
    with use_threads(training.threads):
        return _run(training)


def _run(training: Training) -> Path:
    folder = training.folder
    refuse_cascade(training.model, "model=cascade")
    claim_folder(training)
    if is_finished(training):
        rich.print(f"[bold]{training.name}[/] is already trained; its model is in {folder / EXPORT}")
        return _export_again(folder, training.model) if training.init_from is None else folder / EXPORT
    _check_monitors(training)
    if training.codes < 1:
        raise ConfigError("codes is a number of windows.", expected="at least 1", got=training.codes)
    source = read_source(training)
    codec = find_codec(training, source, _run)
    pl.seed_everything(training.seed, workers=True, verbose=False)
    data = _data(training, source)
    spec = data.prepare_spec()
    task = _task(training, spec, data, source, codec)
    generator = task.generator
    if isinstance(generator, FitsPrior):  # after training it would be too late to say so
        generator.check_enough(training.codes)
    with _quiet():
        trainer = _trainer(training, generator)
    last = folder / LAST
    resume = last if last.is_file() else None
    if resume is not None:
        check_begun(read_checkpoint(resume).spec, spec, folder)
    if codec is not None:
        as_module(generator).get_submodule("codec").load_state_dict(codec.weights)
    begins = ""
    if resume is not None:
        begins = f"goes on at {resume}"
    elif source is not None:
        adopt(as_module(generator), source, spec)
        begins = f"begins with the model and weights of {source.path}"
    else:
        measure_data(generator, data)
    if begins and trainer.is_global_zero:
        rich.print(f"[bold]{training.name}[/] {begins}")
    freeze(as_module(generator), training.freeze)
    if training.compile:
        for network in as_module(generator).children():
            network.compile()  # in place: `torch.compile(module)` would rename the weights
    started = time.perf_counter()
    with _quiet():
        trainer.fit(task, _windows(training, spec, data, generator, codec), ckpt_path=resume, weights_only=True)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()  # or the next stage would go on in this one's run
    if trainer.interrupted:
        raise KeyboardInterrupt
    if trainer.is_global_zero:
        trained = fit_prior(last, data, training.codes)
        export_checkpoint(replace(trained, provenance={**trained.provenance, "until": training.until}), folder / EXPORT)
        _report(training, trainer, time.perf_counter() - started)
    trainer.strategy.barrier()  # the other processes may want to read it at once
    return folder / EXPORT


def _data(training: Training, source: Checkpoint | None) -> CityDataModule:
    """Return the data module; what the configuration leaves open is that of the model that the run begins with."""
    chosen = training.data if source is None else take_over(training.data, source)
    check_arguments(CityDataModule, chosen, "data", "data")
    return CityDataModule(root=training.paths.data, seed=training.seed, **chosen)


def _task(
    training: Training, spec: LayoutSpec, data: CityDataModule, source: Checkpoint | None, codec: Checkpoint | None
) -> GenerativeTask:
    """Build the model and its task, once the layouts are known to be what `source` and `codec` were trained on."""
    if source is not None:
        check_alike(source, spec)
    model = copy.deepcopy(dict(training.model if source is None else source.model))
    if codec is not None:
        check_codec(codec.spec, spec)
        model["codec"] = describe_codec(codec)
    made = {
        "name": training.name,
        "data": data.provenance(),
        **describe_source(source, training.folder),
        **describe_environment(),
    }
    return GenerativeTask(
        model=model,
        spec=spec.to_dict(),
        optimizer=dict(training.optimizer),
        lr_schedule=dict(training.lr_schedule),
        unconditional_share=training.unconditional_share,
        l1=training.l1,
        provenance=made,
    )


def _windows(
    training: Training, spec: LayoutSpec, data: CityDataModule, generator: Generator, codec: Checkpoint | None
) -> pl.LightningDataModule:
    """Return what is trained on: windows, or their codes where the model sees no more of them."""
    if isinstance(generator, LearnsFromWays):
        changed = data.augmentation
        if changed.zoom != 1 or changed.rotation or data.frame != "none":
            raise ConfigError(
                "Windows that are written as lines are only turned by quarters and mirrored.",
                got=f"data.zoom={changed.zoom:g} data.rotation={changed.rotation:g} data.frame={data.frame}",
                remedy="data.zoom=1 data.rotation=0 data.frame=none; model.frame=streets turns lines",
            )
        written = {"written": asdict(generator.code), "spec": spec.to_dict()}
        return CodeDataModule(data, generator, training.folder / "codes", training.codes, written)
    if data.allow_unknown:
        raise ConfigError(
            "Only families that learn from lines can leave out a channel where it is not known.",
            got="data.allow_unknown=true",
            remedy="model=stroke_transformer, or data.allow_unknown=false",
        )
    if not isinstance(generator, LearnsFromCodes) or codec is None:
        return data
    weights = fingerprint({k: v.double().sum().item() for k, v in codec.weights.items()})
    key = {"codec": weights, "spec": spec.to_dict()}
    return CodeDataModule(data, generator, training.folder / "codes", training.codes, key)


def _export_again(folder: Path, model: Mapping[str, Any]) -> Path:
    """Export a trained model under another sampler, the one part of a model that may change without training."""
    done = read_checkpoint(folder / EXPORT)
    changed = {key: model[key] for key in ("sampler",) if key in model}
    return export_checkpoint(replace(done, model={**done.model, **changed}), folder / EXPORT)


def _check_monitors(training: Training) -> None:
    """Refuse callbacks that wait for a validation where there is none."""
    if training.data.get("val_windows", 1):
        return
    for name, callback in training.callbacks.items():
        if callback and str(callback.get("monitor", "")).startswith("val/"):
            raise ConfigError(
                f"callbacks.{name} watches the validation, and there is none.",
                got=f"callbacks.{name}.monitor={callback['monitor']}, data.val_windows=0",
                remedy=f"raise data.val_windows, or watch training: callbacks.{name}.monitor=train/loss "
                f"callbacks.{name}.check_on_train_epoch_end=true",
            )


def _trainer(training: Training, generator: Generator) -> pl.Trainer:
    folder, settings = training.folder, dict(training.trainer)
    if settings.get("precision") == AUTO:
        settings["precision"] = MIXED if has_fast_bf16(settings.get("accelerator", "auto")) else SINGLE
    if settings.get("strategy") == "ddp" and isinstance(generator, RestsWeights) and generator.rests:
        settings["strategy"] = "ddp_find_unused_parameters_true"
    checkpoints = pl.callbacks.ModelCheckpoint(
        dirpath=(folder / LAST).parent, filename=LAST.stem, enable_version_counter=False, save_on_train_epoch_end=True
    )
    callbacks = [instantiate(callback) for callback in training.callbacks.values() if callback]
    loggers = [instantiate(logger, save_dir=str(folder)) for logger in training.logger.values() if logger]
    if not loggers:  # which the monitor of the learning rate needs
        callbacks = [c for c in callbacks if not isinstance(c, pl.callbacks.LearningRateMonitor)]
    try:
        trainer: pl.Trainer = instantiate(
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
    return trainer


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep off the screen what Lightning says about choices that were made on purpose."""
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


def _report(training: Training, trainer: pl.Trainer, seconds: float) -> None:
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
    shown = ", ".join(f"{k} {v:.4g}" for k, v in sorted(metrics.items()))
    name, folder = training.name, training.folder
    rich.print(
        f"[bold]{name}[/] was trained for {trainer.global_step:,} steps, {seconds:,.0f} s in this run: {shown}\n"
        f"model: {folder / EXPORT}\npictures: {folder / 'samples'}"
    )
