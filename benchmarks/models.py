"""The table of the models: each judged on held-out blocks, and on places that it was not trained on.

    python benchmarks/models.py reference/cities_64

Evaluates each model (`citygrain evaluate`) twice, against held-out windows of the places that it was trained on and
against windows from all over those of `--unseen`, which it is asked to be like in all measures. Writes the tables of
docs/models.md to `models.md` in `--out`, beside the reports. Repeat the command to go on where it stopped.

`per layout` is the time that one layout takes of a batch of 16 on the processor, asked for a coverage and measured.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from citygrain.checkpoint import list_references, load
from citygrain.data.trained_on import TrainedOn
from citygrain.evaluation.obedience import Obeyed
from citygrain.evaluation.report import Report
from citygrain.evaluation.sets import request
from citygrain.generation.windows import draw
from citygrain.support.config import load_config
from citygrain.support.files import write_text
from citygrain.verbs.evaluate import run

BATCH = 16


def seconds_per_layout(checkpoint: str, config: Mapping[str, Any], rounds: int = 3) -> float:
    """Median over some batches of the time that a layout takes, the first batch left out."""
    generator = load(checkpoint)
    spec = generator.spec
    data = TrainedOn.of(generator).data(config["paths"]["data"], test_windows=BATCH)
    windows = data.batch("test", range(BATCH))
    scalars = {"coverage": windows.conditions.scalars[:, spec.scalars.index("coverage")]}
    asked = request(spec, windows, scalars)
    taken = []
    for i in range(rounds + 1):
        started = time.perf_counter()
        with torch.no_grad():
            seeds = range(i * BATCH, (i + 1) * BATCH)
            draw(generator, asked, seeds, precision=config["precision"], batch_size=BATCH)
        taken.append((time.perf_counter() - started) / BATCH)
    return statistics.median(taken[1:])


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; the first column to the left, the others to the right."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def realism(name: str, of: str, report: Report, seconds: float | None) -> list[str]:
    """A row of the first table."""
    times = [m.times_floor for m in report.realism.measures.values() if math.isfinite(m.times_floor)]
    inside, told = report.realism.embedding, report.two_sample

    def beside(key: str) -> str:
        return " / ".join(f"{metrics[key]:.3g}" for metrics in (inside.generated, inside.floor, inside.ceiling))

    return [
        name,
        of,
        str(report.n),
        f"{told.generated.accuracy:.0%} / {told.floor.accuracy:.0%}",
        f"{statistics.median(times):.1f}",
        f"{sum(t <= 2 for t in times)} of {len(times)}",
        beside("frechet"),
        beside("kernel"),
        f"{report.memorisation.share_closer:.1%}",
        "" if seconds is None else f"{seconds:.2f} s",
    ]


def obedience(name: str, report: Report, conditions: Sequence[str]) -> list[list[str]]:
    """Rows of the second: of a first draw, and of the nearest of several attempts where these were made."""

    def r2(of: Obeyed | None, *, corrected: bool = False) -> str:
        fit = None if of is None else of.corrected if corrected else of.model
        return "–" if fit is None else f"{fit.r2:.2f}"

    found = [report.obedience.get(condition) for condition in conditions]
    rows = [[name, *map(r2, found)]]
    if report.attempts:
        rows.append([f"{name}, {report.attempts} attempts", *(r2(of, corrected=True) for of in found)])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", default=list_references(), help="those that ship, by default")
    parser.add_argument("--unseen", nargs="*", default=["ghent", "auckland"], help="prepared places; none with nothing")
    parser.add_argument("--out", type=Path, default=Path("out/models"))
    parser.add_argument("--set", nargs="+", default=[], help="settings of `citygrain evaluate`, such as n=512")
    args = parser.parse_args()
    first, second = [], []
    conditions: list[str] = []
    for checkpoint in args.checkpoints:
        name = Path(checkpoint).name
        for of, places in (("held-out blocks", ()), (", ".join(args.unseen), args.unseen)):
            if of != "held-out blocks" and not places:
                continue
            out = args.out / name / ("unseen" if places else "held_out")
            more = [f"places=[{','.join(places)}]", "against=all", "obedience.conditions=[]"] if places else []
            config = load_config("evaluate", [f"checkpoint={checkpoint}", f"out={out}", *more, *args.set])
            report = Report.read(run(config))
            seconds = None if places else seconds_per_layout(checkpoint, config)
            first.append(realism(name, of, report, seconds))
            if not places:
                conditions += [c for c in report.obedience if c not in conditions]
                second.append((name, report))
    text = "\n\n".join(
        [
            table(
                ["model", "against", "n", "told apart", "median × floor", "within twice", "Fréchet", "kernel",
                 "near copies", "per layout"],
                first,
            ),
            table(["R²", *conditions], [row for of in second for row in obedience(*of, conditions)]),
        ]
    )  # fmt: skip
    write_text(args.out / "models.md", text + "\n")
    print(text)


if __name__ == "__main__":
    main()
