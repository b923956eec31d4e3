"""Prepared places as a Lightning data module: windows with measured conditions, the spec, the statistics."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import rich
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from citygrain import measures
from citygrain.data.cityraster import CityRaster
from citygrain.data.codes import CodeBank
from citygrain.data.dataset import STATISTICS, CityWindows, collate_whole, find_place
from citygrain.data.rules import MIN_BUILT, MIN_VALID, SYMMETRIC, Augmentation, Balance, Rules, list_common_channels
from citygrain.data.transforms import RawBatch, to_batch
from citygrain.errors import ConditionError, DataError
from citygrain.geo.layers import RASTER_FORMAT, find_parts
from citygrain.geo.raster_files import LEVELS
from citygrain.geo.stroke_code import Frame
from citygrain.measures import MEASURES, mappable
from citygrain.networks.frame import FRAME, find_condition, list_conditions
from citygrain.spec import ALL_PLACES, PERCENTILES, Batch, LayoutSpec
from citygrain.support.files import write_text

MEASURED_AT_ONCE = 256

LARGE_PX = 128
"""Windows with a longer edge in cells are measured in coarser ones, if that is possible."""

Floats = NDArray[np.float64]


class CityDataModule(pl.LightningDataModule):
    """Windows of prepared places.

    Parameters
    ----------
    places
        Names of prepared places under `root`, or folders of city rasters.
    root
        Folder of all city rasters, `paths.data`.
    size_px
        Height and width of a window in cells.
    resolution_m
        Edge of a cell in metres: the one that every place was prepared at, or twice or four times that.
    batch_size
        Windows of one step on one device.
    batches_per_epoch
        Steps of an epoch; every epoch draws new windows.
    val_windows, test_windows
        At most this many windows of the held-out grids, evenly spread; 0 for none.
    min_valid
        Least share of a window that has data.
    min_built
        Least share of a window that is building, arterial or street.
    balance
        `places`: as many train windows of each place; `area`: in proportion to where windows may lie.
    symmetries
        Whether train windows are turned and mirrored to one of the 8 symmetries of the square.
    zoom
        The extent of a train window is drawn log-uniformly between 1 / zoom and zoom times `size_px`; 1 leaves it. All
        widths scale with it, those that are drawn in metres too.
    rotation
        Train windows are turned by an angle drawn uniformly from ± this many degrees, at most 45; 0 leaves them.
    noise
        Standard deviation of Gaussian noise on the coverage of train windows; their conditions are measured without it.
    frame
        `streets` turns all windows into the frame of their streets; conditions are `bearing` and `order`, too.
    channels
        Names of the channels; None for those that all places know.
    scalars
        Names of the scalar conditions; None for all that the channels and the frame allow.
    maps
        Names of condition maps; only linear measures have maps.
    map_px
        Height and width of condition maps in cells; must divide `size_px`.
    statistics_windows
        The percentiles in the spec are measured on this many train windows of each place.
    num_workers
        Processes that gather windows. With 0 the training process gathers them, which is fast enough unless the disk is
        slow.
    seed
        Seed of the train windows.
    raster_format
        Format of city rasters that the channels are of, for models that were trained on an earlier one.
    allow_unknown
        Whether places take part that do not know one of the channels: there it is no target, and what depends on it is
        no condition. Only families that learn from lines can leave a channel out.

    Raises
    ------
    DataError
        For a place that is not prepared, a channel that a place does not know, or a number out of its range.
    ConditionError
        For a condition that does not exist or that the channels do not allow.
    """

    def __init__(
        self,
        places: Sequence[str],
        root: str | Path = "data/cities",
        size_px: int = 64,
        resolution_m: float = 8.0,
        batch_size: int = 64,
        batches_per_epoch: int = 200,
        val_windows: int = 512,
        test_windows: int = 512,
        min_valid: float = MIN_VALID,
        min_built: float = MIN_BUILT,
        balance: Balance = "places",
        symmetries: bool = True,
        zoom: float = 1.0,
        rotation: float = 0.0,
        noise: float = 0.0,
        frame: Frame = "none",
        channels: Sequence[str] | None = None,
        scalars: Sequence[str] | None = None,
        maps: Sequence[str] = (),
        map_px: int = 0,
        statistics_windows: int = 2000,
        num_workers: int = 0,
        seed: int = 0,
        raster_format: int = RASTER_FORMAT,
        allow_unknown: bool = False,
    ) -> None:
        super().__init__()
        self.allow_unknown = allow_unknown
        self.raster_format = raster_format
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("batches_per_epoch", batches_per_epoch, 1),
            ("statistics_windows", statistics_windows, 1),
            ("val_windows", val_windows, 0),
            ("test_windows", test_windows, 0),
            ("num_workers", num_workers, 0),
        ):
            if value < least:
                raise DataError(f"data.{name} is too small.", expected=f"at least {least}", got=value)
        self.rules = Rules(size_px, float(resolution_m), min_valid, min_built)
        self.augmentation = Augmentation(symmetries, float(zoom), float(rotation), float(noise))
        self.frame: Frame = frame
        self.batch_size, self.batches_per_epoch = batch_size, batches_per_epoch
        self.limits = {"train": None, "val": val_windows, "test": test_windows}
        self.balance, self.seed = balance, seed
        self.statistics_windows, self.num_workers = statistics_windows, num_workers
        self.root = Path(root)
        self.rasters = [CityRaster.open(find_place(self.root, place)) for place in places]
        self.channels, self.left_out = list_common_channels(
            self.rasters, channels, raster_format, allow_unknown=allow_unknown
        )
        self._scalars = self._checked(scalars, list_conditions(self.channels, frame), "scalar")
        self._maps = self._checked(maps, mappable(self.channels), "map")
        if map_px and size_px % map_px:
            raise ConditionError(
                "Condition maps do not fit the windows.", expected=f"a divisor of {size_px}", got=map_px
            )
        self._map_px = map_px
        self._windows: dict[str, CityWindows] = {}

    def _checked(self, wanted: Sequence[str] | None, possible: Sequence[str], kind: str) -> tuple[str, ...]:
        """Return the wanted conditions, or all possible ones."""
        for name in wanted or ():
            if name in possible:
                continue
            missing = [c for c in MEASURES[name].channels if c not in self.channels] if name in MEASURES else []
            reasons = [f"{c} ({self.left_out.get(c, 'not among data.channels')})" for c in missing]
            reasons += ["data.frame=streets"] if name in FRAME and kind == "scalar" else []
            raise ConditionError(
                f"{name} cannot be a {kind} condition of these windows.",
                got=f"it needs {', '.join(reasons)}" if reasons else name,
                choices=possible,
            )
        return tuple(possible if wanted is None else wanted)

    def prepare_data(self) -> None:
        """Measure the statistics, once for all ranks, and say which channels are left out or not alike."""
        for name, reason in self.left_out.items():
            rich.print(f"[yellow]left out[/] the channel [bold]{name}[/], which is not known everywhere: {reason}")
        for name, reason in self._uneven.items():
            rich.print(f"[yellow]not alike[/] is the channel [bold]{name}[/], of which a part is not seen: {reason}")
        self.prepare_spec()

    @property
    def _uneven(self) -> dict[str, str]:
        """Channels that some places know in full and others in part: they may differ although the cities do not."""
        parts = {name: [r.partial.get(name) for r in self.rasters] for name in self.channels}
        return {
            name: "; ".join(f"{r.name}: {part}" for r, part in zip(self.rasters, known, strict=True) if part)
            for name, known in parts.items()
            if len(set(known)) > 1
        }

    def prepare_spec(self) -> LayoutSpec:
        """Return the spec of the windows, with the statistics of the train windows.

        Raises
        ------
        DataError
            When a place has no train window, with the reasons counted.
        """
        return self._measured_spec

    @cached_property
    def _measured_spec(self) -> LayoutSpec:
        return replace(self._spec, statistics=self._statistics(self._spec))

    @cached_property
    def _spec(self) -> LayoutSpec:
        """The spec that batches are made by. It has no statistics, which take minutes where windows are large."""
        return LayoutSpec(
            channels=self.channels,
            size_px=self.rules.size_px,
            resolution_m=self.rules.resolution_m,
            scalars=self._scalars,
            maps=self._maps,
            map_px=self._map_px,
            places=tuple(raster.name for raster in self.rasters),
            raster_format=self.raster_format,
        )

    def _measured_coarsely(self, spec: LayoutSpec) -> bool:
        """Whether statistics are measured in coarse cells: of large windows, where that makes no difference.

        Linear measures and their ratios are the same at every level, and the coarsest is read fastest.
        """
        linear = all(find_condition(name).weights for name in spec.scalars)
        return linear and self.rules.size_px > LARGE_PX

    @cached_property
    def _known(self) -> Tensor:
        """Which scalars each place knows, `(P, S)` bool."""
        rows = [
            [
                not any(
                    part in raster.unknown
                    for c in find_condition(name).channels
                    for part in find_parts(c, self.raster_format)
                )
                for name in self._scalars
            ]
            for raster in self.rasters
        ]
        return torch.tensor(rows, dtype=torch.bool).reshape(len(self.rasters), len(self._scalars))

    def coarsest(self) -> CityDataModule:
        """Return the windows of the same extent, in the coarsest cells that all places have."""
        sibling = copy.copy(self)
        for factor in reversed(LEVELS):
            size, cell = self.rules.size_px / factor, self.rules.resolution_m * factor
            fits = size == int(size) and not (self._map_px and size % self._map_px)
            if fits and all(any(math.isclose(cell, r) for r in raster.resolutions) for raster in self.rasters):
                sibling.rules = replace(self.rules, size_px=int(size), resolution_m=cell)
                break
        sibling._windows = {}  # noqa: SLF001
        for name in ("_spec", "_measured_spec"):
            sibling.__dict__.pop(name, None)
        return sibling

    def _statistics(self, spec: LayoutSpec) -> Mapping[str, Mapping[str, Any]]:
        """Read the statistics of the train windows from the folder beside the places, or measure and keep them."""
        depends = [self.provenance(), spec.scalars, self.statistics_windows, PERCENTILES]
        digest = hashlib.sha256(json.dumps(depends, sort_keys=True).encode())
        digest.update(
            Path(measures.__file__).read_bytes()
        )  # where a measure is defined anew, its percentiles are others
        path = self.root / STATISTICS / f"statistics-{digest.hexdigest()[:24]}.json"
        with suppress(OSError, ValueError):
            kept: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
            return kept
        coarse = self.coarsest() if self._measured_coarsely(spec) else self
        shares = coarse.windows("train").shares
        values = [coarse._measured(coarse._spec, place) for place in range(len(spec.places))]  # noqa: SLF001
        ranks = np.linspace(0, 1, PERCENTILES)

        def percentiles(column: Floats, weight: Floats) -> list[float]:
            found: list[float] = np.quantile(column, ranks, weights=weight, method="inverted_cdf").tolist()
            return found

        statistics = {}
        for s, scalar in enumerate(spec.scalars):
            knowing = np.flatnonzero(self._known[:, s])
            weights = np.repeat(shares[knowing], self.statistics_windows)
            statistics[scalar] = {
                **{spec.places[p]: percentiles(values[p][:, s], np.ones(len(values[p]))) for p in knowing},
                ALL_PLACES: percentiles(np.concatenate([values[p][:, s] for p in knowing]), weights),
            }
        with suppress(DataError, OSError):  # the folder may be read-only: the next run measures again
            write_text(path, json.dumps(statistics))
        return statistics

    def _measured(self, spec: LayoutSpec, place: int) -> Floats:
        """Measure the conditions `(N, S)` of train windows of one place."""
        windows = self._cut([self.rasters[place]], "train")
        starts = range(0, self.statistics_windows, MEASURED_AT_ONCE)
        parts = []
        for start in starts:
            raw = windows.__getitems__(range(start, min(start + MEASURED_AT_ONCE, self.statistics_windows)))
            parts.append(to_batch(raw, spec).conditions.scalars)
        return torch.cat(parts).double().numpy()

    def windows(self, split: str) -> CityWindows:
        """Return the windows of a split.

        Raises
        ------
        DataError
            When there are none.
        """
        if split not in self._windows:
            self._windows[split] = self._cut(self.rasters, split)
        return self._windows[split]

    def _cut(self, rasters: Sequence[CityRaster], split: str) -> CityWindows:
        """Cut the windows of a split out of some of the places."""
        return CityWindows(
            rasters,
            split,
            self.rules,
            augmentation=self.augmentation,
            frame=self.frame,
            channels=self.channels,
            balance=self.balance,
            limit=self.limits.get(split),
            seed=self.seed,
            raster_format=self.raster_format,
            allow_unknown=self.allow_unknown,
        )

    @property
    def val_size(self) -> int:
        """How many validation windows there are."""
        return len(self.windows("val")) if self.limits["val"] else 0

    def batch(self, split: str, indices: Sequence[int], device: torch.device | str = "cpu") -> Batch:
        """Return the windows of a split that `indices` stand for, as a batch."""
        raw = self.windows(split).__getitems__(indices)
        return to_batch(RawBatch(*(part.to(device) for part in raw)), self._spec, self._known)

    def setup(self, stage: str | None = None) -> None:
        """Find out where the windows of a stage may lie."""
        splits = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), None: ("train", "val", "test")}
        for split in splits.get(stage, ()):
            if self.limits[split] != 0:
                self.windows(split)

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of new windows in each epoch, the same ones in every run."""
        return self.training_loader(self.windows("train"))

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Batches of the validation grid; none where `val_windows` is 0."""
        return self.validation_loader(self.windows("val")) if self.limits["val"] else []

    def test_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Batches of the test grid; none where `test_windows` is 0."""
        return self.validation_loader(self.windows("test")) if self.limits["test"] else []

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ARG002 - Lightning's signature
        """Measure conditions on the device that trains."""
        return to_batch(batch, self._spec, self._known) if isinstance(batch, RawBatch) else batch

    def training_loader(self, dataset: Dataset[Any]) -> DataLoader[Any]:
        """Load this rank's part of a data set in the order of training.

        The data set gathers whole batches, and every index from 0 on is in it.
        """
        rank, world = self._rank()
        per_epoch = self.batches_per_epoch * self.batch_size * world
        return self._loader(dataset, EpochSampler(per_epoch, rank, world))

    def validation_loader(self, dataset: CityWindows | CodeBank) -> DataLoader[Any]:
        """Load this rank's part of a finite data set of whole batches, in order.

        Every rank loads as many windows: where they cannot be shared out evenly, the last ones are left out.
        """
        rank, world = self._rank()
        count = len(dataset)
        return self._loader(dataset, range(rank, max(count - count % world, 0), world))

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _loader(self, dataset: Dataset[Any], sampler: Sampler[int] | range) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=collate_whole,
        )

    def provenance(self) -> dict[str, Any]:
        """Return all that decides what the windows are, plain: each place's `place.json`, and the rules.

        The default augmentation and frame and the present format are left out: the first models do not name them
        either, and what was computed from their windows is kept under the hash of this.
        """
        return {
            "places": {raster.name: dict(raster.provenance) for raster in self.rasters},
            "channels": list(self.channels),
            "left_out": self.left_out,
            "rules": asdict(self.rules),
            "balance": self.balance,
            "limits": self.limits,
            "seed": self.seed,
            **({"allow_unknown": True} if self.allow_unknown else {}),
            **({} if self.raster_format == RASTER_FORMAT else {"raster_format": self.raster_format}),
            **({} if self.augmentation == SYMMETRIC else {"augmentation": asdict(self.augmentation)}),
            **({} if self.frame == "none" else {"frame": self.frame}),
        }


class EpochSampler(Sampler[int]):
    """Indices of one rank in one epoch. Every epoch has indices of its own, and the ranks take turns.

    At step *k* R ranks together have the indices that one process with R times the batch has at that step.

    Parameters
    ----------
    per_epoch
        Windows of an epoch, of all ranks together.
    rank, world
        The number of this rank, and how many ranks there are.
    """

    def __init__(self, per_epoch: int, rank: int = 0, world: int = 1) -> None:
        self.per_epoch, self.rank, self.world = per_epoch, rank, world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Move to an epoch; Lightning does so before each, and when it resumes."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * self.per_epoch
        return iter(range(first + self.rank, first + self.per_epoch, self.world))

    def __len__(self) -> int:
        return self.per_epoch // self.world
