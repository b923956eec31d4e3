r"""What the code of a model holds: places, measures, variance, and what changes along directions in it.

    python benchmarks/latent.py reference/cities_64 --places copenhagen los_angeles

The first `--count` train windows of the places are encoded, and all test windows are held out. By default the places
are those of the model.

- Places: the accuracy of a linear classifier that reads the place of held-out windows off their codes.
- Conditions, each: R² of a linear probe on held-out windows; R² of the condition measured on decoded layouts; and the
  change, in standard deviations, where a change of one is requested, along the probe's direction and by `follow`.
- Variance: the share of held-out windows' variance that the code explains, and that as many principal components do.
- From place to place: how much every measure changes with one step along the difference of two places' mean codes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import citygrain
from citygrain.latent import (
    classify_places,
    compare_explained_variance,
    encode_places,
    find_codec,
    find_place_direction,
    fit_probes,
    follow,
    measure_changes,
    score_decoded_measures,
    traverse,
)
from citygrain.latent.figures import show_path, show_probes
from citygrain.measures import measurable
from citygrain.plot import save_figure
from citygrain.support.files import write_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--places", nargs="+", help="those of the model, by default")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--walked", type=int, default=24, help="held-out windows that paths start at")
    parser.add_argument("--data", type=Path, default=Path("data/cities"))
    parser.add_argument("--out", type=Path, default=Path("out/latent"))
    args = parser.parse_args()
    model = citygrain.load(args.checkpoint)
    codec = find_codec(model)
    train = encode_places(model, args.data, "train", count=args.count, places=args.places)
    held_out = encode_places(model, args.data, "test", places=args.places)
    places, probes = classify_places(train, held_out), fit_probes(train, held_out)
    decoded = score_decoded_measures(codec, held_out)
    starts = held_out.codes[:: max(1, len(held_out) // args.walked)][: args.walked]
    rows = {}
    for name in measurable(train.spec.channels):
        if name in probes.directions:
            steps = probes.spread[name] * np.array([0.0, 0.5, 1.0])
            straight = traverse(codec, starts, probes.directions[name], steps)
            bent = follow(codec, starts, name, steps, train)
            rows[name] = {
                "probe": probes.r_squared[name],
                "decoded": float(decoded[name]),
                "straight": float(measure_changes(straight, probes.spread, name)["change"].iloc[0]),
                "followed": float(measure_changes(bent, probes.spread, name)["change"].iloc[0]),
            }
    variance = compare_explained_variance(codec, train, held_out)
    report = {
        "places": {"accuracy": places.accuracy, "balanced": places.balanced_accuracy, "chance": places.chance},
        "measures": rows,
        "explained": variance.to_dict(),
    }
    shown = Table(title=f"{len(train)} train and {len(held_out)} held-out windows")
    for heading in ("measure", "probe R²", "decoded R²", "straight", "followed"):
        shown.add_column(heading, justify="left" if heading == "measure" else "right")
    for name, row in rows.items():
        shown.add_row(name, *(f"{value:.2f}" for value in row.values()))
    console = Console(width=100)
    console.print(shown, variance.round(2), report["places"])
    if len(train.spec.places) > 1:
        start, end = train.spec.places[-1], train.spec.places[0]
        path = traverse(
            codec,
            held_out.select_place(start).codes[: args.walked],
            find_place_direction(train, start, end),
            np.linspace(0, 1, 7),
            along=f"share of the way from {start} to {end}",
        )
        changes = measure_changes(path, probes.spread)
        report["place_direction"] = {"from": start, "to": end, "moved": changes["in its unit"].to_dict()}
        console.print(changes[["label", "unit", "change", "in its unit"]].round(3))
        save_figure(show_path(path, spread=probes.spread), args.out / "place_direction.png")
    save_figure(show_probes(probes, decoded=decoded), args.out / "probes.png")
    write_text(args.out / "latent.json", json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
