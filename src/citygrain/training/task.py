"""The LightningModule: one for all families, since each has one loss to minimise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from citygrain.checkpoint import build_generator
from citygrain.data.codes import CodeBatch
from citygrain.errors import TrainingError
from citygrain.protocols import Generator, LearnsFromCodes, as_module
from citygrain.spec import Batch, LayoutSpec
from citygrain.support.targets import instantiate


class GenerativeTask(pl.LightningModule):
    """Minimise a generator's loss on windows, under random subsets of their measured conditions.

    All parameters are plain, so that a checkpoint loads again under `weights_only`.

    Parameters
    ----------
    model
        Describes the generator.
    spec
        `LayoutSpec.to_dict()` of its layouts.
    optimizer
        Describes a partial that takes the parameters.
    lr_schedule
        Describes a partial that takes `optimizer` and `total_steps`.
    unconditional_share
        Share of samples that lose all conditions in training; the others keep a random subset.
    l1
        Weight of the sum of absolute weights (lasso) in the loss of training; biases and gains are left out. For the
        sum of squares (L2), see the optimisers' `weight_decay`.
    provenance
        What the model is made from; it travels in the checkpoint.
    """

    def __init__(
        self,
        *,
        model: dict[str, Any],
        spec: dict[str, Any],
        optimizer: dict[str, Any],  # noqa: ARG002  (the unused are read back from hparams)
        lr_schedule: dict[str, Any],  # noqa: ARG002
        unconditional_share: float = 0.1,  # noqa: ARG002
        l1: float = 0.0,  # noqa: ARG002
        provenance: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.generator: Generator = build_generator(model, LayoutSpec.from_dict(spec))
        if not any(p.requires_grad for p in as_module(self.generator).parameters()):
            # A family that is fitted has no gradient, and yet the trainer counts the steps of an optimiser.
            self.clock = nn.Parameter(torch.zeros(()))

    def losses(self, batch: Batch | CodeBatch) -> dict[str, Tensor]:
        """Return the losses of a batch of layouts, or of codes that were computed before."""
        if isinstance(batch, CodeBatch):
            if not isinstance(self.generator, LearnsFromCodes):
                raise TrainingError("Codes were given to a model that does not learn from codes.")
            return self.generator.code_loss(batch.code, batch.conditions)
        return self.generator.loss(batch.layout, batch.conditions)

    def training_step(self, batch: Batch | CodeBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch under random subsets of its conditions."""
        dropped = batch.conditions.drop(self.hparams["unconditional_share"])
        losses = self.losses(batch._replace(conditions=dropped))
        if self.hparams["l1"]:
            matrices = (p for p in as_module(self.generator).parameters() if p.requires_grad and p.ndim > 1)
            absolute = self.hparams["l1"] * torch.stack([p.abs().sum() for p in matrices]).sum()
            losses = {**losses, "loss": losses["loss"] + absolute, "l1": absolute}
        self._log("train", losses, len(batch.conditions))
        if not torch.isfinite(losses["loss"]):
            raise TrainingError(
                f"The loss is {losses['loss'].item()} in batch {batch_idx} of epoch {self.current_epoch} "
                f"(step {self.global_step}).",
                got=", ".join(f"{name}={value.item():.4g}" for name, value in losses.items()),
                remedy="lower optimizer.lr or trainer.gradient_clip_val, or set trainer.precision=32-true; the same "
                "epoch and batch hold the same windows in every run",
            )
        return losses["loss"] + 0 * self.clock if hasattr(self, "clock") else losses["loss"]

    def validation_step(self, batch: Batch | CodeBatch, batch_idx: int) -> None:
        """Log the losses of one batch under all its conditions, with the same noise every time."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(batch_idx)
            losses = self.losses(batch)
        self._log("val", losses, len(batch.conditions))

    def _log(self, stage: str, losses: Mapping[str, Tensor], size: int) -> None:
        for name, value in losses.items():
            self.log(
                f"{stage}/{name}",
                value.detach(),
                prog_bar=name == "loss",
                batch_size=size,
                on_step=False,
                on_epoch=True,
                sync_dist=True,
            )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimiser of all that is trained, and the schedule of its learning rate."""
        trained = [p for p in self.parameters() if p.requires_grad]
        optimizer = instantiate(self.hparams["optimizer"])(trained)
        steps = self.trainer.estimated_stepping_batches
        total = int(steps) if math.isfinite(steps) else -1
        schedule = instantiate(self.hparams["lr_schedule"], optimizer=optimizer, total_steps=total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
