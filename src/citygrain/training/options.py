"""What a training run is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from citygrain.support.options import Paths
from citygrain.support.targets import Plain


@dataclass(frozen=True)
class Training:
    """The keys of `conf/train.yaml`.

    What has a `_target_` is plain: it describes an object, and travels in checkpoints as it is.

    Parameters
    ----------
    data
        Keyword arguments of `citygrain.data.datamodule.CityDataModule`, but for `root` and `seed`.
    model
        Describes the generator.
    optimizer
        Describes a partial that takes the parameters.
    lr_schedule
        Describes a partial that takes `optimizer` and `total_steps`.
    trainer
        Describes the `pytorch_lightning.Trainer`.
    logger, callbacks
        Name → describes a logger or a callback; None for none.
    name
        The run's folder is `<paths.runs>/<name>`, and the same training goes on there.
    seed
        Seed of the weights, the train windows and the noise.
    threads
        Cores that one process computes on; None for all, or as many as `OMP_NUM_THREADS` says.
    unconditional_share
        Share of samples that lose all conditions in training; the others keep a random subset.
    init_from
        A run or checkpoint whose model and weights the run begins with.
    freeze
        Names of parts of the model that are not trained.
    l1
        Weight of the sum of absolute weights (lasso).
    codec
        A codec's run or checkpoint, or the keys in which the training of a codec differs from this one.
    codes
        Windows that are encoded once, for a latent model to train on or a prior to be fitted to.
    compile
        Whether the networks are compiled.
    paths
        Folders of the prepared places and of the runs.
    """

    data: Plain
    model: Plain
    optimizer: Plain
    lr_schedule: Plain
    trainer: Plain
    logger: Mapping[str, Plain | None]
    callbacks: Mapping[str, Plain | None]
    name: str
    seed: int
    threads: int | None
    unconditional_share: float
    init_from: str | None
    freeze: tuple[str, ...]
    l1: float
    codec: str | Plain | None
    codes: int
    compile: bool
    paths: Paths

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return (self.paths.runs or Path("runs")) / self.name

    @property
    def until(self) -> dict[str, Any]:
        """What decides where the training ends, plain."""
        limits = {key: self.trainer.get(key) for key in ("max_steps", "max_epochs", "max_time")}
        return {**limits, "callbacks": self.callbacks}  # a callback may end it early
