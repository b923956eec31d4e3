"""The four sets of layouts that an evaluation compares, and how generated layouts are drawn for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from citygrain.data.datamodule import CityDataModule
from citygrain.data.dataset import STATISTICS
from citygrain.data.rules import Augmentation
from citygrain.data.trained_on import TrainedOn
from citygrain.evaluation.distribution import shuffle_tiles
from citygrain.evaluation.embedding import LayoutEmbedding, keep_embedding
from citygrain.evaluation.form import FORM
from citygrain.evaluation.gather import Cells, Gathered
from citygrain.evaluation.view import View
from citygrain.generation.windows import draw
from citygrain.geo.split import WHOLE
from citygrain.layouts import Layouts
from citygrain.protocols import Sampler, Trained, as_module
from citygrain.spec import Batch, Conditions, LayoutSpec
from citygrain.support.devices import SINGLE
from citygrain.version import __version__


@dataclass(frozen=True)
class Sets:
    """Four sets with the same number of layouts.

    Attributes
    ----------
    real
        Held-out windows, which the other sets are compared with.
    floor
        Other real windows, which say how far real layouts are from each other. They are train windows. Where all
        windows are held out, half of them are the floor, chosen at random.
    ceiling
        The windows of the floor, each with its tiles shuffled: the same shares without any form. They are not made from
        the held-out windows: those would keep their shares when shuffled, and might come nearer than the floor.
    generated
        Layouts of the model. Layout *i* is asked to be what held-out window *i* is.
    """

    real: Gathered
    floor: Gathered
    ceiling: Gathered
    generated: Gathered


@dataclass(frozen=True)
class Drawing:
    """A generator, and how layouts are drawn with it.

    Attributes
    ----------
    generator
        From `citygrain.load`.
    sampler
        Another than the generator's own.
    precision, batch_size
        As for `citygrain.generation.windows.draw`.
    """

    generator: Trained
    sampler: Sampler | None
    precision: str
    batch_size: int

    def draw(self, asked: Conditions, seeds: Sequence[int], attempts: int = 1) -> Layouts:
        """Draw one layout for each condition."""
        return draw(
            self.generator, asked, seeds, sampler=self.sampler, attempts=attempts, precision=self.precision,
            batch_size=self.batch_size,
        )  # fmt: skip

    def digest(self) -> list[object]:
        """Return what decides which layouts are drawn, plain."""
        weights = hashlib.sha256()
        for name, value in as_module(self.generator).state_dict().items():
            weights.update(name.encode())
            weights.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return [
            type(self.generator).__name__,
            self.generator.spec.to_dict(),
            weights.hexdigest(),
            repr(self.sampler or self.generator.sampler),
            *([] if self.precision == SINGLE else [self.precision]),
        ]


def request(spec: LayoutSpec, windows: Batch, scalars: Mapping[str, Tensor], *, place: bool = False) -> Conditions:
    """Ask for some scalars `(B,)`, around the given channels of real windows, and for their places if need be."""
    given = {name: windows.layout[:, spec.channels.index(name)] for name in spec.given}
    asked = Conditions.request(spec, len(windows.layout), scalars, given or None)
    if place:
        asked.place = windows.conditions.place
    return asked


def gather_sets(
    drawing: Drawing,
    data: CityDataModule,
    gathered: Callable[..., Gathered],
    folder: Path,
    view: View,
    *,
    n: int,
    against: str,
    ask: Sequence[str],
    seed: int,
) -> Sets:
    """Gather the four sets.

    Parameters
    ----------
    drawing
        Draws the generated layouts.
    data
        Where real windows come from.
    gathered
        Gathers layouts: `citygrain.evaluation.gather.gather` of the channels that judges see.
    folder
        Where parts are kept.
    view
        How judges see the layouts.
    n
        Layouts of each set.
    against
        The held-out windows: `val`, `test`, or `all` of places that the model never saw.
    ask
        What a generated layout is asked to be, as its held-out window is: conditions, and `place`.
    seed
        Generated layout *i* is drawn with `seed` + *i*.
    """
    spec = drawing.generator.spec
    held_out = others = data.windows(against)
    chosen = spare = list(range(n))
    if against == WHOLE:
        order = np.random.default_rng(seed).permutation(len(held_out)).tolist()
        chosen, spare = order[:n], order[-n:]
    else:
        others = TrainedOn.of(drawing.generator).windows(
            "train", places=data.rasters, augmentation=Augmentation(), seed=seed + 1
        )

    def generated(positions: range) -> Cells:
        windows = data.batch(against, chosen[positions.start : positions.stop])
        scalars = {name: windows.conditions.scalars[:, spec.scalars.index(name)] for name in ask if name != "place"}
        asked = request(spec, windows, scalars, place="place" in ask)
        return view.show(drawing.draw(asked, range(seed + positions.start, seed + positions.stop))).cells

    def real(positions: range) -> Cells:
        return view.show_cells(held_out.read_cells(chosen[positions.start : positions.stop]))

    def floor(positions: range) -> Cells:
        return view.show_cells(others.read_cells(spare[positions.start : positions.stop]))

    def ceiling(positions: range) -> Cells:
        return shuffle_tiles(floor(positions), seed=positions.start)

    return Sets(
        real=gathered("real", n, real, folder),
        floor=gathered("floor", n, floor, folder),
        ceiling=gathered("ceiling", n, ceiling, folder),
        generated=gathered("generated", n, generated, folder),
    )


def find_embedding(training: CityDataModule, steps: int) -> tuple[LayoutEmbedding, Path]:
    """Return an embedding of the windows that a model was trained on, and its file, which is kept beside the places."""
    return keep_embedding(
        training.root / STATISTICS,
        {key: value for key, value in training.provenance().items() if key != "limits"},
        lambda start, count: training.batch("train", range(start, start + count)).layout,
        size_px=training.rules.size_px,
        steps=steps,
    )


def name_parts_folder(
    out: Path, drawing: Drawing, windows: Sequence[CityDataModule], embedding: str, told: Sequence[object]
) -> Path:
    """Return the folder of the parts, whose name stands for all that decides what they hold.

    Parts of another evaluation are in another folder, and so are never taken up.

    Parameters
    ----------
    out
        Folder of the evaluation.
    drawing
        Draws the generated layouts.
    windows
        Where real windows come from.
    embedding
        Name of the embedding's file, which stands for what it learned from.
    told
        What else the sets depend on, plain.
    """
    made_by = [
        __version__, drawing.digest(), [data.provenance() for data in windows], embedding, list(told), sorted(FORM),
    ]  # fmt: skip
    digest = hashlib.sha256(json.dumps(made_by, sort_keys=True, default=str).encode())
    return out / "parts" / digest.hexdigest()[:16]
