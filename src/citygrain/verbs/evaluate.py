"""`citygrain evaluate`: is a model realistic and obedient, or does it copy? In numbers, beside real layouts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import rich
from rich.table import Table

from citygrain.evaluation.options import Classifier, Disruption, Embedding, Memorisation, Obedience
from citygrain.evaluation.report import PAGE, Report
from citygrain.model import Model
from citygrain.support.console import make_table
from citygrain.support.options import Paths, parse


@dataclass(frozen=True)
class Options:
    """`conf/evaluate.yaml`."""

    checkpoint: str
    n: int
    against: str
    places: tuple[str, ...] | None
    ask: tuple[str, ...] | None
    resolution_m: float | None
    channels: tuple[str, ...] | None
    raster_format: int | None
    seed: int
    batch_size: int
    device: str
    precision: str
    workers: int | None
    out: Path
    bootstrap: int
    embedding: Embedding
    classifier: Classifier
    memorisation: Memorisation
    obedience: Obedience
    disrupt: bool
    disruption: Disruption
    cut_and_paste: bool
    sampler: dict[str, Any]
    paths: Paths


def run(config: Mapping[str, Any]) -> Path:
    """Evaluate a model, write the report, print its main figures, and return its folder."""
    options = parse(Options, config)
    report = Model(options.checkpoint, device=options.device).evaluate(
        n=options.n,
        against=options.against,
        places=options.places,
        ask=options.ask,
        resolution_m=options.resolution_m,
        channels=options.channels,
        raster_format=options.raster_format,
        seed=options.seed,
        batch_size=options.batch_size,
        precision=options.precision,
        workers=options.workers,
        out=options.out,
        bootstrap=options.bootstrap,
        embedding=options.embedding,
        classifier=options.classifier,
        memorisation=options.memorisation,
        obedience=options.obedience,
        disrupt=options.disrupt,
        disruption=options.disruption,
        cut_and_paste=options.cut_and_paste,
        sampler=options.sampler,
        data=options.paths.data,
    )
    for table in make_screen_tables(report):
        rich.print(table)
    rich.print(f"report: {options.out / PAGE}")
    return options.out


def make_screen_tables(report: Report) -> list[Table]:
    """Return what the screen shows of a report."""
    worst, measures = report.worst_measures(), report.realism.measures
    view = f", {report.view}" if report.view else ""
    form = make_table(
        f"{report.n} layouts against {report.against} windows{view}: the {len(worst)} of {len(measures)} measures that "
        "are farthest from real against real",
        "measure", "unit", "distance", "floor", "× floor",
    )  # fmt: skip
    for m in worst:
        form.add_row(m.label, m.unit, f"{m.generated.value:.3g}", f"{m.floor.value:.3g}", f"{m.times_floor:.1f}")
    embedded = make_table("in the embedding", "", "generated", "floor", "ceiling")
    sets = asdict(report.realism.embedding)
    for name in sets["generated"]:
        embedded.add_row(name, *(f"{of[name]:.3g}" for of in sets.values()))
    corrected = [f"R², {report.attempts} attempts"] if report.attempts else []
    obeyed = make_table(
        "obedience", "condition", "slope", "R²", *corrected, "mean error", "if ignored", "drift", "drift, real"
    )
    for of in report.obedience.values():
        obeyed.add_row(
            of.label, f"{of.model.slope:.2f}", f"{of.model.r2:.2f}",
            *([] if of.corrected is None else [f"{of.corrected.r2:.2f}"]),
            f"{of.model.mae:.3g}", f"{of.unconditional.mae:.3g}", f"{of.model.drift:.2f}", f"{of.retrieval.drift:.2f}",
        )  # fmt: skip
    rest = make_table("copies and tells", "", "generated", "floor")
    rest.add_row(
        "nearer to a training window than 99 % of held-out ones", f"{report.memorisation.share_closer:.1%}", "1.0%"
    )
    rest.add_row(
        "told from held-out windows by a network (50 % is perfect)",
        *(
            f"{told.accuracy:.1%} ({told.low:.0%} – {told.high:.0%})"
            for told in (report.two_sample.generated, report.two_sample.floor)
        ),
    )
    return [form, embedded, obeyed, rest, *_make_bar(report)]


def _make_bar(report: Report) -> list[Table]:
    """Return the figures of cut and paste beside those of the model, where they are known."""
    if not report.bar:
        return []
    bar = make_table("the bar of cut and paste", "", "floor", "generated", "cut and paste")
    for row in report.bar:
        values = (row.real, row.generated, row.pasted)
        bar.add_row(row.label, *(f"{value:.1%}" if row.is_share else f"{value:.3g}" for value in values))
    return [bar]
