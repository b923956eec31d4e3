"""The report of an evaluation: all that was found out about a model, as typed values."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd

from citygrain.checkpoint import Checkpoint, read_checkpoint
from citygrain.errors import DataError
from citygrain.evaluation.curves import Curve
from citygrain.evaluation.cut_and_paste import CutAndPaste
from citygrain.evaluation.disruption import JudgedMetrics
from citygrain.evaluation.memorisation import Copies
from citygrain.evaluation.obedience import Obeyed
from citygrain.evaluation.pages import TEMPLATES, format_number, render, write_page
from citygrain.evaluation.realism import Failure, MeasureDistance, Realism
from citygrain.evaluation.two_sample import ToldApart
from citygrain.support.files import to_plain, write_json

REPORT, PAGE = "report.json", "report.html"
"""Files of an evaluation's folder: what other programs read, and what people read."""

WORST = 12
"""Measures that the screen and a notebook show; the report has all."""


@dataclass(frozen=True)
class UsedEmbedding:
    """The embedding in which layouts were compared.

    Attributes
    ----------
    learned_from
        In words.
    file
        Name of its file beside the places.
    """

    learned_from: str
    file: str


@dataclass(frozen=True)
class BarRow:
    """A figure of the model beside the same of other layouts.

    Attributes
    ----------
    label
        Of the figure.
    real, generated, pasted
        Its value for other real windows, for the model, and for patches of training windows.
    is_share
        Whether it is a share, which is shown as a percentage.
    """

    label: str
    real: float
    generated: float
    pasted: float
    is_share: bool = False


@dataclass(frozen=True)
class Drawn:
    """The layouts as the model draws them, if they are judged in other cells or channels.

    Attributes
    ----------
    resolution_m
        Edge of a cell in metres.
    channels
        Their channels.
    raster_format
        Format of these channels.
    """

    resolution_m: float
    channels: tuple[str, ...]
    raster_format: int


@dataclass(frozen=True)
class Report:
    """All that an evaluation found out about a model.

    Attributes
    ----------
    citygrain
        Version that evaluated it.
    checkpoint
        Where the model came from.
    model
        Its family.
    places, trained_on
        Places whose windows it was compared with, and places that it was trained on.
    channels, given
        Channels in which its layouts are judged, and those among them that it is given.
    window_m, resolution_m
        Edge of a layout, and of a cell in which it is judged, in metres.
    n
        Layouts of each set.
    seed
        Generated layout *i* was drawn with `seed` + *i*.
    against
        Which windows were held out: `val`, `test`, or `all` of places that the model never saw.
    asked
        What each generated layout was asked to be, as its held-out window is.
    embedding
        The embedding in which layouts were compared.
    realism
        How far generated layouts are from real ones.
    disruption
        Which metrics can be trusted; None where that was not tested.
    two_sample
        How well a network tells generated layouts from real ones.
    memorisation
        Whether the model copies its training windows.
    obedience
        Condition → how well it is obeyed.
    failures
        Measures in which generated layouts are farthest from real ones.
    curves
        Losses of the training, see `citygrain.evaluation.curves`.
    cut_and_paste
        How near patches of training windows come, asked for the same thing; None where that was left out.
    raster_format
        Format of the channels in which layouts are judged; None in reports of earlier versions.
    drawn
        The layouts as the model draws them; None where they are judged as they are drawn.
    folder
        Where the report and its pictures lie; no part of what it says.
    """

    citygrain: str
    checkpoint: str
    model: str
    places: tuple[str, ...]
    trained_on: tuple[str, ...]
    channels: tuple[str, ...]
    given: tuple[str, ...]
    window_m: float
    resolution_m: float
    n: int
    seed: int
    against: str
    asked: tuple[str, ...]
    embedding: UsedEmbedding
    realism: Realism
    disruption: JudgedMetrics | None
    two_sample: ToldApart
    memorisation: Copies
    obedience: Mapping[str, Obeyed]
    failures: tuple[Failure, ...] = ()
    curves: Mapping[str, Mapping[str, Curve]] = field(default_factory=dict)
    cut_and_paste: CutAndPaste | None = None
    raster_format: int | None = None
    drawn: Drawn | None = None
    folder: Path | None = field(default=None, compare=False)

    @classmethod
    def read(cls, folder: str | Path) -> Report:
        """Read the report that `citygrain evaluate` wrote into a folder.

        Raises
        ------
        DataError
            When there is none.
        """
        path = Path(folder) / REPORT
        try:
            report: Report = _typed(cls, {**json.loads(path.read_text(encoding="utf-8")), "folder": path.parent})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"There is no evaluation in {path.parent}.",
                expected="the folder that `citygrain evaluate` wrote",
                got=f"{type(error).__name__}: {error}",
                remedy=f"citygrain evaluate checkpoint=… out={path.parent}",
            ) from error
        return report

    def check_model(self, checkpoint: Checkpoint) -> None:
        """Refuse a report that is of another model.

        Raises
        ------
        DataError
            When it is.
        CheckpointError
            When the model that it is of is no longer there.
        """
        judged = read_checkpoint(self.checkpoint)
        if judged.weights.keys() != checkpoint.weights.keys() or judged.provenance != checkpoint.provenance:
            raise DataError(
                "This is an evaluation of another model.",
                expected=str(checkpoint.path),
                got=self.checkpoint,
                remedy=f"citygrain evaluate checkpoint={checkpoint.path} out=…",
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `report.json`: dicts, lists, texts and numbers, None for what is no number."""
        found: dict[str, Any] = to_plain(self)
        del found["folder"]
        for condition in found["obedience"].values():
            if condition["corrected"] is None:
                del condition["corrected"]
        return found

    def write(self, folder: Path) -> None:
        """Write `report.json`, and `report.html` with the pictures that lie in the folder."""
        write_json(folder / REPORT, self.to_dict())
        write_page(folder / PAGE, TEMPLATES, "evaluation", report=self)

    @property
    def groups(self) -> dict[str, dict[str, MeasureDistance]]:
        """What the measures are about → measure → its distances."""
        groups: dict[str, dict[str, MeasureDistance]] = {}
        for name, measure in self.realism.measures.items():
            groups.setdefault(measure.group, {})[name] = measure
        return groups

    @property
    def median_times_floor(self) -> float:
        """Median over the measures of the distance in multiples of the floor, without metrics that were left out."""
        return self._median({name: of.times_floor for name, of in self.realism.measures.items()})

    def _median(self, times_floor: Mapping[str, float]) -> float:
        left_out = {} if self.disruption is None else self.disruption.left_out
        times = [times for name, times in times_floor.items() if name not in left_out]
        return float(np.nanmedian(times)) if times else math.nan

    @property
    def bar(self) -> tuple[BarRow, ...]:
        """The figures of the model beside those of real windows and of cut and paste; none where that was left out."""
        pasted, told, inside = self.cut_and_paste, self.two_sample, self.realism.embedding
        if pasted is None:
            return ()
        copies, median = self.memorisation, self._median(pasted.times_floor)
        accuracy = pasted.two_sample.accuracy
        return (
            BarRow("told apart", told.floor.accuracy, told.generated.accuracy, accuracy, is_share=True),
            BarRow(
                "Fréchet distance", inside.floor["frechet"], inside.generated["frechet"], pasted.embedding["frechet"]
            ),
            BarRow("median × floor", 1.0, self.median_times_floor, median),
            BarRow("near copies", copies.expected, copies.share_closer, pasted.share_closer, is_share=True),
        )

    @property
    def median_slope(self) -> float:
        """Median over the conditions of the slope of measured about asked; NaN where none was tested."""
        slopes = [condition.model.slope for condition in self.obedience.values()]
        return float(np.median(slopes)) if slopes else math.nan

    @property
    def attempts(self) -> int:
        """How many attempts were made at each corrected layout; 0 where layouts were not corrected."""
        return next((of.attempts for of in self.obedience.values() if of.corrected is not None), 0)

    @property
    def view(self) -> str:
        """In words, what layouts were judged in and what they are drawn in; empty where that is the same."""
        if self.drawn is None:
            return ""
        parts = []
        if self.drawn.resolution_m != self.resolution_m:
            parts.append(f"judged in cells of {self.resolution_m:g} m, drawn in cells of {self.drawn.resolution_m:g} m")
        if self.drawn.channels != self.channels:
            earlier = "" if self.drawn.raster_format == self.raster_format else f" of format {self.raster_format}"
            parts.append(f"judged in the channels{earlier} {', '.join(self.channels)}")
        return "; ".join(parts)

    def worst_measures(self, count: int = WORST) -> list[MeasureDistance]:
        """Return the measures that are farthest from held-out windows, in multiples of the floor."""
        known = [measure for measure in self.realism.measures.values() if math.isfinite(measure.times_floor)]
        return sorted(known, key=lambda measure: -measure.times_floor)[:count]

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return the figures as tables.

        Returns
        -------
        dict
            `realism`, a row a measure; `embedding`, a row a metric; `obedience`, a row a condition; `two_sample` and
            `memorisation`, a row a set of layouts.
        """
        realism = {
            name: {
                **{key: getattr(measure, key) for key in ("label", "unit", "group")},
                **{key: getattr(measure.generated, key) for key in ("value", "low", "high")},
                "floor": measure.floor.value,
                "ceiling": measure.ceiling.value,
                "times_floor": measure.times_floor,
                "bias": math.nan if measure.bias is None else measure.bias,
            }
            for name, measure in self.realism.measures.items()
        }
        obedience = {
            name: {
                "label": of.label,
                "unit": of.unit,
                **asdict(of.model),
                **(
                    {} if of.corrected is None else {"corrected_r2": of.corrected.r2, "corrected_mae": of.corrected.mae}
                ),
                "retrieval_mae": of.retrieval.mae,
                "retrieval_drift": of.retrieval.drift,
                "unconditional_mae": of.unconditional.mae,
            }
            for name, of in self.obedience.items()
        }
        copies = self.memorisation
        return {
            "realism": pd.DataFrame.from_dict(realism, orient="index").rename(columns={"value": "generated"}),
            "embedding": pd.DataFrame(asdict(self.realism.embedding)),
            "obedience": pd.DataFrame.from_dict(obedience, orient="index"),
            "two_sample": pd.DataFrame.from_dict(asdict(self.two_sample), orient="index"),
            "memorisation": pd.DataFrame(
                {
                    "share_closer": {"generated": copies.share_closer, "real": copies.expected},
                    "median_distance": dict(copies.median_distance),
                }
            ),
        }

    def __repr__(self) -> str:
        """Say what it is of, and not every number."""
        return (
            f"Report({self.checkpoint}: {self.n} layouts against {self.against} windows of {', '.join(self.places)}; "
            f"{format_number(self.median_times_floor, 2)} × floor)"
        )

    def _repr_html_(self) -> str:
        """Show the head of the report in a notebook, its worst measures, and how conditions are obeyed."""
        return render(TEMPLATES, "notebook", report=self)


def _typed(kind: Any, value: Any) -> Any:
    """Turn what JSON gives back into the type that it was of before `plain`."""
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        return kind(**{f.name: _typed(hints[f.name], value[f.name]) for f in fields(kind) if f.name in value})
    origin, parts = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return None if value is None else _typed(parts[0], value)
    if origin is tuple:
        return tuple(_typed(parts[0], part) for part in value)
    if origin is Mapping:
        return {key: _typed(parts[1], part) for key, part in dict(value).items()}
    return math.nan if kind is float and value is None else value
