"""How well a generator does what it is asked: sweeps of one condition at a time, re-measured on what was drawn.

    python benchmarks/adherence.py reference/cities_64 --out out/adherence

For each condition, `--levels` values spread evenly between two percentiles of the training windows are asked for on
`--samples` layouts each, nothing else being asked for. Reported: the measured mean of each level; R² of measured
against requested, about the line measured = requested (a bias costs); the same of the best straight line, with its
slope; the mean absolute error, and what it is when the request is ignored (*unconditional*).
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import rich
import torch
from rich.table import Table

from citygrain.checkpoint import load
from citygrain.generation.windows import draw
from citygrain.plot import make_sheet, r_squared, save_figure, show_requests
from citygrain.samplers.diffusion import Ancestral, DpmSolver, Euler, Heun
from citygrain.spec import Conditions, LayoutSpec
from citygrain.support.files import write_text

SAMPLERS = {kind.__name__: kind for kind in (Euler, Heun, DpmSolver, Ancestral)}


def levels_of(spec: LayoutSpec, name: str, levels: int, low: float, high: float) -> list[float]:
    """Evenly spread values between two percentiles of the training windows, in the condition's unit."""
    first, last = spec.quantile(name, low), spec.quantile(name, high)
    return np.linspace(first, last, levels).tolist()


def fit_line(asked: np.ndarray, got: np.ndarray) -> tuple[float, float]:
    """Slope and R² of the best straight line through measured against requested."""
    slope = float(np.polyfit(asked, got, 1)[0])
    return slope, float(np.corrcoef(asked, got)[0, 1] ** 2) if got.std() > 0 else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--conditions", nargs="+", default=["coverage", "street_density", "cycle", "green"])
    parser.add_argument("--levels", type=int, default=5)
    parser.add_argument("--samples", type=int, default=64, help="layouts a level")
    parser.add_argument("--between", type=float, nargs=2, default=(10.0, 90.0), help="percentiles")
    parser.add_argument("--guidance", type=float, help="instead of the model's own")
    parser.add_argument(
        "--tolerance", type=float, help="instead of the model's own; inf: no feedback from the measures"
    )
    parser.add_argument("--slack", type=float, help="instead of the model's own")
    parser.add_argument("--sampler", choices=SAMPLERS, help="instead of the model's own, with its knobs")
    parser.add_argument("--steps", type=int, help="instead of the model's own")
    parser.add_argument("--attempts", type=int, default=1, help="at each layout, as `citygrain sample` makes them")
    parser.add_argument("--place", help="ask for this place as well")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/adherence"))
    args = parser.parse_args()

    generator = load(args.checkpoint, device="cuda" if torch.cuda.is_available() else "cpu")
    spec = generator.spec
    knobs = {k: v for k in ("guidance", "tolerance", "slack", "steps") if (v := getattr(args, k)) is not None}
    kind = SAMPLERS[args.sampler] if args.sampler else type(generator.sampler)
    own = {k: v for k, v in vars(generator.sampler).items() if k in {field.name for field in fields(kind)}}
    sampler = kind(**{**own, **knobs})
    extra = {"place": args.place} if args.place else {}
    n = args.levels * args.samples
    seeds = range(args.seed, args.seed + n)
    started = time.perf_counter()
    free = draw(generator, Conditions.request(spec, n, extra), seeds, sampler=sampler, show_progress=True)
    rows, requested, measured, pictures, titles = {}, {}, {}, [], []
    for name in args.conditions:
        values = levels_of(spec, name, args.levels, *args.between)
        asked = np.repeat(values, args.samples)
        conditions = Conditions.request(spec, n, {name: torch.tensor(asked), **extra})
        samples = draw(generator, conditions, seeds, sampler=sampler, attempts=args.attempts, show_progress=True)
        got = samples.measured[name]
        slope, line = fit_line(asked, got)
        rows[name] = {
            "levels": values,
            "means": got.reshape(args.levels, -1).mean(1).tolist(),
            "in_order": bool((np.diff(got.reshape(args.levels, -1).mean(1)) > 0).all()),
            "r2": r_squared(asked, got),
            "r2_line": line,
            "slope": slope,
            "mae": float(np.abs(asked - got).mean()),
            "mae_unconditional": float(np.abs(asked - free.measured[name]).mean()),
        }
        requested[name], measured[name] = asked, got
        pictures.append(samples.shares.reshape(args.levels, args.samples, *spec.shape)[:, :2])
        titles += [
            f"{name} {v:.3g}\n→ {g:.3g}"
            for v, gs in zip(values, got.reshape(args.levels, -1), strict=True)
            for g in gs[:2]
        ]
    seconds = time.perf_counter() - started
    args.out.mkdir(parents=True, exist_ok=True)
    save_figure(show_requests(requested, measured), args.out / "requested_measured.png")
    layouts = np.concatenate([p.reshape(-1, *spec.shape) for p in pictures])
    save_figure(
        make_sheet(layouts, spec.channels, titles=titles, columns=2 * args.levels, resolution_m=spec.resolution_m),
        args.out / "levels.png",
    )
    report = {"checkpoint": args.checkpoint, "samples": args.samples, "seed": args.seed,
              "sampler": {"name": type(sampler).__name__, **vars(sampler)}, "attempts": args.attempts,
              "layouts_per_second": n * (len(rows) + 1) / seconds, "conditions": rows}  # fmt: skip
    write_text(args.out / "adherence.json", json.dumps(report, indent=1) + "\n")
    table = Table(
        title=f"{args.checkpoint}: {args.samples} layouts a level, {report['layouts_per_second']:.1f} layouts/s"
    )
    for heading in (
        "condition",
        "asked → measured mean",
        "R²",
        "R² of the line",
        "slope",
        "mean error",
        "unconditional",
    ):
        table.add_column(heading)
    for name, row in rows.items():
        pairs = ", ".join(f"{a:.3g} → {g:.3g}" for a, g in zip(row["levels"], row["means"], strict=True))
        table.add_row(name, pairs, *(f"{row[k]:.3g}" for k in ("r2", "r2_line", "slope", "mae", "mae_unconditional")))
    rich.print(table)


if __name__ == "__main__":
    main()
