"""Training on codes: windows that a frozen codec encodes once, or whose ways are written as strokes once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from citygrain.data.codes import CodeBank, CodeBatch
from citygrain.data.datamodule import CityDataModule
from citygrain.data.ways import CityStrokes
from citygrain.protocols import LearnsFromCodes, LearnsFromWays, as_module
from citygrain.support.console import show_progress_bar


class CodeDataModule(pl.LightningDataModule):
    """Codes of a data module's windows. They are computed once, kept in the run's folder, and shared by all ranks.

    Parameters
    ----------
    windows
        The data module whose windows are encoded.
    generator
        A family that learns from codes, or from ways.
    folder
        Where the codes are kept.
    count
        How many train windows are encoded; training goes through them as often as its steps take.
    key
        What identifies the codec and its weights, plain.
    """

    def __init__(
        self,
        windows: CityDataModule,
        generator: LearnsFromCodes | LearnsFromWays,
        folder: Path,
        count: int,
        key: dict[str, Any],
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
                    self._encoder(stage, device),
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

    def _encoder(self, stage: str, device: torch.device) -> Callable[[Sequence[int]], CodeBatch]:
        """Return a function that encodes windows of a split."""
        generator = self.generator
        if isinstance(generator, LearnsFromWays):
            return WindowWriter(self.windows, generator, stage)

        def encode(indices: Sequence[int]) -> CodeBatch:
            batch = self.windows.batch(stage, indices, device)
            return CodeBatch(generator.to_code(batch.layout), batch.conditions)

        return encode

    @property
    def _counts(self) -> dict[str, int]:
        """How many windows of each split are encoded."""
        written = isinstance(self.generator, LearnsFromWays)
        windows = self.windows.coarsest() if written else self.windows  # those of `WindowWriter` are not quite as many
        counts = {"train": self.count, "val": windows.val_size}
        return {name: count for name, count in counts.items() if count}


class WindowWriter:
    """Writes the ways of windows as strokes. The cells are only measured, at the coarsest level.

    Windows are written as they lie: a family that learns from ways turns and mirrors the lines itself.

    Parameters
    ----------
    windows
        The data module whose windows are written.
    generator
        The family that learns from them.
    split
        The split that the windows are of.
    """

    def __init__(self, windows: CityDataModule, generator: LearnsFromWays, split: str) -> None:
        self.data, self.generator, self.split = windows.coarsest(), generator, split
        self.data.augmentation = replace(self.data.augmentation, symmetries=False)

    @cached_property
    def strokes(self) -> list[CityStrokes]:
        """The strokes of each place; a run that has its codes does without them."""
        return [CityStrokes(raster, self.generator.code.kinds) for raster in self.data.rasters]

    def __call__(self, indices: Sequence[int]) -> CodeBatch:
        """Return codes and conditions of the windows of the given indices."""
        conditions = self.data.batch(self.split, indices).conditions
        cell, codes = self.data.rules.resolution_m, []
        located = self.data.windows(self.split).locate(indices)
        for place, row, col, _ in zip(*(part.tolist() for part in located), strict=True):
            grid = self.data.rasters[place].grid
            cut = self.strokes[place].cut(grid.left + col * cell, grid.top - row * cell, self.generator.code.extent_m)
            codes.append(self.generator.write_code(cut))
        return CodeBatch(torch.stack(codes), conditions)
