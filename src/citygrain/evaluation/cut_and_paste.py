"""The bar of cut and paste: layouts made of patches of training windows, asked for the same thing as the model.

They need no training, and no checkpoint. A model that is told apart more often than these is worse than copying.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from citygrain.data.datamodule import CityDataModule
from citygrain.evaluation.distribution import wasserstein
from citygrain.evaluation.gather import PART, Cells, Gathered
from citygrain.evaluation.memorisation import Copies, Nearest
from citygrain.evaluation.realism import Metrics, Realism, compare_points
from citygrain.evaluation.two_sample import TwoSample, count_shown, judge_samples
from citygrain.evaluation.view import View
from citygrain.models.quilting import Quilting
from citygrain.protocols import Noise
from citygrain.spec import Conditions, LayoutSpec

WINDOWS = 128
"""Windows of each place that patches are taken from."""

BANK_BYTES = 2**28
"""Bytes of all windows that patches are taken from: where windows are large, there are fewer of each place."""


@dataclass(frozen=True)
class CutAndPaste:
    """How near patches of training windows come to held-out windows, asked for the same thing as the model.

    Attributes
    ----------
    two_sample
        How well they can be told from held-out windows.
    embedding
        Their metrics in the embedding.
    times_floor
        Measure → their distance in multiples of the floor, where both are known.
    share_closer
        Share of them that are nearer to a training window than 99 % of the held-out windows are.
    """

    two_sample: TwoSample
    embedding: Metrics
    times_floor: Mapping[str, float]
    share_closer: float


def paste_layouts(
    real: Gathered,
    training: CityDataModule,
    places: Sequence[int] | None,
    gathered: Callable[..., Gathered],
    folder: Path,
    view: View,
    *,
    ask: Sequence[str],
    seed: int,
) -> Gathered:
    """Gather layouts of cut and paste; layout *i* is asked to be what held-out window *i* is, as the model's is.

    Parameters
    ----------
    real
        The held-out windows.
    training
        Where the train windows lie that patches are taken from.
    places
        The place of each held-out window, as a number of `spec.places`; None asks for no place.
    gathered
        Gathers layouts: `citygrain.evaluation.gather.gather` of the channels that judges see.
    folder
        Where parts are kept.
    view
        How judges see layouts. Patches are cut and laid in this view.
    ask
        Conditions that are asked for; those that judges do not see are left out.
    seed
        Layout *i* is drawn with `seed` + *i*.
    """
    asks = tuple(name for name in ask if name in view.seen.scalars and name in real.values)
    spec = replace(view.seen, scalars=asks, statistics={})
    bank = cache(lambda: fill_bank(training, view, spec))  # parts that are there need none

    def pasted(positions: range) -> Cells:
        here = slice(positions.start, positions.stop)
        scalars = {name: torch.from_numpy(real.values[name][here]) for name in asks}
        windows = real.chosen(positions) if spec.given else np.empty((len(positions), 0))
        given = {
            name: torch.from_numpy(windows[:, view.seen.channels.index(name)]).float() / 255 for name in spec.given
        }
        asked = Conditions.request(spec, len(positions), scalars, given or None)
        if places is not None:
            asked.place = torch.tensor(places[here])
        drawn = bank().sample(asked, noise=Noise(range(seed + positions.start, seed + positions.stop)))
        cells: Cells = (drawn * 255).round().to(torch.uint8).numpy()
        return cells

    return gathered("pasted", len(real), pasted, folder)


def fill_bank(training: CityDataModule, view: View, spec: LayoutSpec) -> Quilting:
    """Return a bank of train windows as judges see them: the first that the model saw."""
    weight = max(1, len(spec.places)) * math.prod(spec.shape)
    each = min(WINDOWS, max(1, BANK_BYTES // weight))
    bank, windows = Quilting(spec, windows=each).eval(), training.windows("train")
    for start in range(0, each * len(spec.places), PART):
        positions = range(start, min(start + PART, each * len(spec.places)))
        layouts = torch.tensor(view.show_cells(windows.read_cells(positions))).float() / 255
        if start == 0:
            bank.measure_data(layouts)
        bank.keep(layouts, torch.from_numpy(windows.locate(positions)[0]))
    return bank


def judge_pasted(
    pasted: Gathered,
    real: Gathered,
    near: Nearest,
    realism: Realism,
    copies: Copies,
    spec: LayoutSpec,
    *,
    steps: int,
    seed: int,
) -> CutAndPaste:
    """Judge layouts of cut and paste as those of the model were judged.

    Parameters
    ----------
    pasted, real
        The layouts, and the held-out windows.
    near
        The nearest training window of each of the layouts.
    realism, copies
        What was found out about the model.
    spec
        Of what judges see.
    steps, seed
        As for `citygrain.evaluation.two_sample.judge_samples`.
    """
    shown = count_shown(spec, len(real))
    apart = {name: wasserstein(pasted.values[name], real.values[name], resamples=0).value for name in realism.measures}
    floors = {name: of.floor.value for name, of in realism.measures.items()}
    times_floor = {name: apart[name] / floors[name] for name in apart if floors[name] > 0 and apart[name] >= 0}
    return CutAndPaste(
        two_sample=judge_samples(pasted.layouts(shown), real.layouts(shown), steps=steps, seed=seed),
        embedding=compare_points(pasted, real, seed),
        times_floor=times_floor,
        share_closer=float((near.distance < copies.limit).mean()),
    )
