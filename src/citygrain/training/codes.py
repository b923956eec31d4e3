"""Training on codes: windows that a frozen codec encodes once."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from citygrain.data.codes import CodeBank, CodeBatch
from citygrain.data.datamodule import CityDataModule
from citygrain.protocols import LearnsFromCodes, as_module
from citygrain.support.console import show_progress_bar


class CodeDataModule(pl.LightningDataModule):
    """Codes of a data module's windows. They are computed once, kept in the run's folder, and shared by all ranks.

    Parameters
    ----------
    windows
        The data module whose windows are encoded.
    generator
        A family that learns from codes.
    folder
        Where the codes are kept.
    count
        How many train windows are encoded; training goes through them as often as its steps take.
    key
        What identifies the codec and its weights, plain.
    """

    def __init__(
        self, windows: CityDataModule, generator: LearnsFromCodes, folder: Path, count: int, key: dict[str, Any]
    ) -> None:
        super().__init__()
        self.windows = windows
        self.generator = generator
        self.folder = folder
        self.count = count
        self.key = key

    def prepare_data(self) -> None:
        """Encode the windows in one process, while the others wait."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        as_module(self.generator).to(device)
        self.windows.prepare_data()
        self.windows.setup("fit")
        for stage, count in self._counts.items():
            with show_progress_bar(f"encoding {stage} windows", count) as advance:
                CodeBank.build(
                    self.folder / f"{stage}.pt",
                    {**self.key, "stage": stage, "count": count, "data": self.windows.provenance()},
                    count,
                    partial(self.windows.batch, stage, device=device),
                    self.generator.to_code,
                    advance,
                )

    def setup(self, stage: str | None = None) -> None:
        """Read the codes."""
        self.windows.trainer = self.trainer
        self.windows.setup(stage)
        self.banks = {name: CodeBank.open(self.folder / f"{name}.pt") for name in self._counts}

    def train_dataloader(self) -> DataLoader[CodeBatch]:
        """Batches of codes, in an order that is another in each epoch and the same in every run."""
        return self.windows.training_loader(self.banks["train"])

    def val_dataloader(self) -> DataLoader[CodeBatch] | list[Any]:
        """Batches of the validation windows' codes; none where there are no such windows."""
        return self.windows.validation_loader(self.banks["val"]) if "val" in self.banks else []

    @property
    def _counts(self) -> dict[str, int]:
        """How many windows of each split are encoded."""
        counts = {"train": self.count, "val": self.windows.val_size}
        return {name: count for name, count in counts.items() if count}
