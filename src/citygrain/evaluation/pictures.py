"""The pictures of an evaluation's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from citygrain.data.datamodule import CityDataModule
from citygrain.data.transforms import turn
from citygrain.evaluation.memorisation import Nearest
from citygrain.evaluation.obedience import Answers
from citygrain.evaluation.pages import format_number
from citygrain.evaluation.report import Report
from citygrain.evaluation.sets import Sets
from citygrain.evaluation.view import View
from citygrain.plot import make_sheet, save_figure, show_distances, show_histograms, show_requests, show_stages

SHOWN = 8
"""Layouts in a row of pictures."""

PAIRS = 8
"""Closest pairs that are shown."""


def draw_pictures(
    report: Report,
    sets: Sets,
    near: Nearest,
    near_real: Nearest,
    answers: Mapping[str, Answers],
    training: CityDataModule,
    view: View,
    out: Path,
) -> None:
    """Draw what the page of a report shows.

    Parameters
    ----------
    report
        The figures.
    sets
        The layouts.
    near, near_real
        The nearest training window of each generated layout, and of each held-out window.
    answers
        Condition → answers to its sweep.
    training
        Where the training windows lie.
    view
        How judges see them.
    out
        Where the pictures go.
    """
    _draw_layouts(report, sets, out / "layouts.png")
    charted = [
        (m.label, m.generated.value / m.spread, m.floor.value / m.spread, m.ceiling.value / m.spread)
        for m in report.realism.measures.values()
    ]
    save_figure(show_distances(charted), out / "distances.png")
    if report.failures:
        _draw_failures(report, sets, out / "failures.png")
    if report.curves:
        save_figure(show_stages(report.curves), out / "curves.png")
    _draw_closest(report, sets, near, training, view, out / "closest.png")
    nearest = show_histograms(
        {"generated": near.distance, "held-out windows": near_real.distance},
        label="distance to the nearest training window, in standard deviations",
        mark=report.memorisation.limit,
    )
    save_figure(nearest, out / "nearest.png")
    if answers:
        asked = {name: of.model.asked for name, of in answers.items()}
        measured = {name: of.model.measured[name] for name, of in answers.items()}
        save_figure(show_requests(asked, measured), out / "obedience.png")


def _draw_layouts(report: Report, sets: Sets, path: Path) -> None:
    rows = [of.layouts(2 * SHOWN) for of in (sets.real, sets.generated)]
    titles = [title if i == 0 else "" for title in ("held-out windows", "generated") for i in range(len(rows[0]))]
    _save_sheet(report, np.concatenate(rows), titles, SHOWN, path)


def _draw_failures(report: Report, sets: Sets, path: Path) -> None:
    layouts, titles = [], []
    for failure in report.failures:
        for title, of, found in (
            ("held out", sets.real, failure.real),
            ("generated", sets.generated, failure.generated),
        ):
            layouts.append(of.chosen(found.typical))
            titles += [f"{title} {format_number(of.values[failure.measure][i], 2)}" for i in found.typical]
    _save_sheet(report, np.concatenate(layouts), titles, SHOWN, path)


def _draw_closest(report: Report, sets: Sets, near: Nearest, training: CityDataModule, view: View, path: Path) -> None:
    closest = np.argsort(near.distance)[:PAIRS]
    originals = view.show_cells(training.windows("train").read_cells(near.index[closest].tolist()))
    alike = sets.generated.chosen(closest.tolist())
    turned = np.stack([turn(layout, int(near.symmetry[i])) for i, layout in zip(closest, alike, strict=True)])
    titles = [f"{near.distance[i]:.2f}" for i in closest] + ["nearest training window", *[""] * (len(closest) - 1)]
    _save_sheet(report, np.concatenate([turned, originals]), titles, len(closest), path)


def _save_sheet(report: Report, layouts: NDArray[np.uint8], titles: Sequence[str], columns: int, path: Path) -> None:
    drawn = make_sheet(layouts, report.channels, titles=titles, columns=columns, resolution_m=report.resolution_m)
    save_figure(drawn, path)
