"""Callbacks: averaged weights, a clock, a progress bar, and pictures while the training goes on."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, RichProgressBar, WeightAveraging
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from citygrain.data.datamodule import CityDataModule
from citygrain.errors import ConfigError
from citygrain.plot import make_sheet, save_figure
from citygrain.protocols import Codec, FitsPrior, Generator, Noise, require
from citygrain.spec import Conditions, LayoutSpec


class _Averaging(WeightAveraging):
    """Average weights, and keep the averages in place during the whole validation, its end included."""

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the averaged weights in place for whatever else happens at the end of validation."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go back to the weights that are trained."""
        super().on_validation_epoch_end(trainer, pl_module)


class ExponentialMovingAverage(_Averaging):
    """Average weights exponentially; the later the step, the more steps count.

    Parameters
    ----------
    decay
        Decay of a step in a long run. At step n it is at most (1 + n) / (10 + n), so that the weights that a short run
        started with have no part in its average.
    """

    def __init__(self, decay: float = 0.999) -> None:
        def average(averaged: Tensor, current: Tensor, steps: Tensor | int) -> Tensor:
            n = float(steps)
            return torch.lerp(current, averaged, min(decay, (1 + n) / (10 + n)))

        super().__init__(use_buffers=False, avg_fn=average)


class StochasticWeightAverage(_Averaging):
    """Average weights equally over the last part of a run (Izmailov et al. 2018); before it, follow them.

    Parameters
    ----------
    start
        Share of the run after which the average begins.
    """

    def __init__(self, start: float = 0.75) -> None:
        if not 0 <= start < 1:
            raise ConfigError("An average begins within the run.", expected="0 ≤ start < 1", got=start)
        self.start = start
        self.first = 0

        def average(averaged: Tensor, current: Tensor, steps: Tensor | int) -> Tensor:
            return torch.lerp(averaged, current, 1 / (max(0, int(steps) - self.first) + 1))

        super().__init__(use_buffers=False, avg_fn=average)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Find the step at which the average begins."""
        total = trainer.estimated_stepping_batches
        if not math.isfinite(total):
            raise ConfigError("A run without an end has no last part.", remedy="set trainer.max_steps")
        self.first = int(self.start * total)


class Stopwatch(Callback):
    """The time that a run takes, over all its starts. Unlike Lightning's `Timer` it leaves `trainer.max_time` alone."""

    def __init__(self) -> None:
        self.before = 0.0
        self.started: float | None = None

    def on_train_start(self, *_: object) -> None:
        """Start."""
        self.started = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """Return the seconds so far."""
        since = 0.0 if self.started is None else time.perf_counter() - self.started
        return {"seconds": self.before + since}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what a checkpoint holds."""
        self.before = state_dict["seconds"]


class ProgressBar(RichProgressBar):
    """Lightning's bar of an epoch, with the number of epochs that the steps make up."""

    def _get_train_description(self, current_epoch: int) -> str:
        trainer = self.trainer
        ends = [epochs] if (epochs := trainer.max_epochs or -1) > 0 else []
        batches = trainer.num_training_batches
        if trainer.max_steps > 0 and 0 < batches < math.inf:
            steps = math.ceil(batches / trainer.accumulate_grad_batches)  # the last ones of an epoch are a step, too
            ends.append(math.ceil(trainer.max_steps / steps))
        return f"Epoch {current_epoch + 1}" + (f" of {min(ends)}" if ends else "")


class SampleGrid(Callback):
    """Draw the same layouts every few epochs: each column has its seed and its request, so that only the model changes.

    They are drawn at the end of a validation, with the weights that were validated. For a codec, reconstructions of
    held-out windows are drawn as well, each below its window; as long as its prior is not fitted, they are all that is
    drawn. Given channels are those of held-out windows; where there are too few windows, no layouts are drawn.

    Parameters
    ----------
    every_n_epochs
        A picture is drawn after every `every_n_epochs` epochs; 0 draws none.
    columns
        Layouts in a row. The first row asks for nothing; each other row asks for one of `conditions`, at percentiles
        that rise from left to right.
    conditions
        Names of scalar conditions; those that the model does not know are left out.
    """

    def __init__(
        self, every_n_epochs: int = 1, columns: int = 8, conditions: tuple[str, ...] | list[str] = ("coverage", "cycle")
    ) -> None:
        self.every_n_epochs = every_n_epochs
        self.columns = columns
        self.conditions = tuple(conditions)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw with the averaged weights, which are in place during validation."""
        last = bool(trainer.max_steps > 0 and trainer.global_step >= trainer.max_steps)
        due = self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if trainer.sanity_checking or not (due or (last and self.every_n_epochs)):
            return
        self._draw(trainer, pl_module)

    @rank_zero_only
    def _draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        generator = require(pl_module.generator, Generator, "A picture", ())
        spec = generator.spec
        if isinstance(generator, Codec):
            windows = self._held_out(trainer)
            if len(windows):
                code = generator.encode(windows.to(pl_module.device))
                pairs = torch.cat([windows, generator.decode(code).float().cpu()])
                self._save(pairs, spec, trainer, "reconstructions")
        if isinstance(generator, FitsPrior) and not generator.fitted:
            return
        known = [c for c in self.conditions if c in spec.scalars and spec.statistics.get(c)]
        given = None
        if spec.given:
            windows = self._held_out(trainer)
            if len(windows) < self.columns:
                return
            given = {name: windows[:, spec.channels.index(name)] for name in spec.given}
        requests = Conditions.cat([self._row(spec, name, given) for name in (None, *known)])
        noise = Noise(list(range(self.columns)) * (len(known) + 1), pl_module.device)
        layouts = generator.sample(requests.to(pl_module.device), noise=noise)
        self._save(layouts.float().cpu(), spec, trainer, "samples")

    def _held_out(self, trainer: pl.Trainer) -> Tensor:
        """Return the first `columns` of the validation windows `(N, C, H, W)`; none where there are none."""
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, CityDataModule) or not data.val_size:
            return torch.empty(0)
        return data.batch("val", range(min(self.columns, data.val_size))).layout

    def _save(self, layouts: Tensor, spec: LayoutSpec, trainer: pl.Trainer, folder: str) -> None:
        path = Path(trainer.default_root_dir) / folder / f"step_{trainer.global_step:06d}.png"
        save_figure(make_sheet(layouts.numpy(), spec.channels, columns=self.columns), path)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image(folder, [str(path)], step=trainer.global_step)

    def _row(self, spec: LayoutSpec, name: str | None, given: dict[str, Tensor] | None) -> Conditions:
        """Return the requests of one row."""
        if name is None:
            return Conditions.request(spec, self.columns, {}, given)
        levels = [spec.quantile(name, 5 + 90 * i / max(1, self.columns - 1)) for i in range(self.columns)]
        return Conditions.request(spec, self.columns, {name: torch.tensor(levels)}, given)
