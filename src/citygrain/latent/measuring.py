"""Measures of the windows behind codes, and of the layouts that codes are decoded to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from citygrain.evaluation.form import FORM, FormMeasure
from citygrain.evaluation.gather import Cells, Gathered, gather, measure_window, start_processes
from citygrain.latent.codes import Floats, Values
from citygrain.measures import Measure
from citygrain.networks.frame import find_condition
from citygrain.spec import LayoutSpec


def find_measure(name: str) -> Measure | FormMeasure:
    """Return the measure of this name, with its label, unit, formula and source."""
    return FORM.get(name) or find_condition(name)


def label_measure(name: str) -> str:
    """Return the label of a measure, and its unit in brackets."""
    measure = find_measure(name)
    return measure.label if measure.unit == "–" else f"{measure.label} [{measure.unit}]"


def measure_forms(layouts: Floats, spec: LayoutSpec) -> Values:
    """Measure the urban form of layouts `(N, C, H, W)` in [0, 1]; the values of the conditions are included."""
    forms = [
        measure_window(layout, channels=spec.channels, resolution_m=spec.resolution_m)
        for layout in (layouts * 255).round().astype(np.uint8)
    ]
    values = pd.DataFrame([form.values for form in forms])  # noqa: PD011 - a form's own
    return {str(name): values[name].to_numpy(float) for name in values}


def measure_window_forms(
    read_layouts: Callable[[Sequence[int]], Floats], count: int, spec: LayoutSpec, folder: Path | None, workers: int
) -> Values:
    """Measure the urban form of the first windows.

    Parameters
    ----------
    read_layouts
        Takes indices of windows, and returns their layouts `(n, C, H, W)` in [0, 1].
    count
        How many windows are measured.
    spec
        Channels and resolution of the windows.
    folder
        Keeps the measured values, which do not depend on a codec. None keeps nothing.
    workers
        Processes that measure.
    """

    def layouts_of(indices: range) -> Cells:
        return (read_layouts(indices) * 255).round().astype(np.uint8)

    with start_processes(workers) as mapped:
        gathered = partial(
            gather, "real", count, layouts_of, channels=spec.channels, resolution_m=spec.resolution_m, mapped=mapped
        )
        if folder is not None:
            found: Gathered = gathered(folder=folder)
        else:
            with TemporaryDirectory() as nowhere:
                found = gathered(folder=Path(nowhere))
    return found.values  # noqa: PD011 - no data frame
