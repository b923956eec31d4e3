r"""What the code of a model holds: places, measures, variance, and what walking in it moves.

    python benchmarks/latent.py reference/cities_64 --places copenhagen los_angeles

Train windows are the first `--count` of the places, by default those of the model; held out are all test windows.

- Which place is a window, by its code: accuracy of a linear classifier on held-out windows, balanced over places.
- For every condition: R² of a linear probe on held-out windows; R² of the condition measured on what is decoded; and
  how far it comes, in standard deviations, when one is asked for, along the probe's direction and by `follow`.
- The variance of held-out windows that the code explains, beside principal components of as many numbers.
- One step along the difference of two places' mean codes: what it moves.
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
    codec_of,
    encode_places,
    explained_variance,
    follow,
    measures_kept,
    moves,
    place_direction,
    probe,
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
    parser.add_argument("--walked", type=int, default=24, help="held-out windows that paths begin at")
    parser.add_argument("--data", type=Path, default=Path("data/cities"))
    parser.add_argument("--out", type=Path, default=Path("out/latent"))
    args = parser.parse_args()
    model = citygrain.load(args.checkpoint)
    codec = codec_of(model)
    train = encode_places(model, args.data, "train", count=args.count, places=args.places)
    held_out = encode_places(model, args.data, "test", places=args.places)
    told, probes, kept = classify_places(train, held_out), probe(train, held_out), measures_kept(codec, held_out)
    starts = held_out.codes[:: max(1, len(held_out) // args.walked)][: args.walked]
    rows = {}
    for name in measurable(train.spec.channels):
        if name in probes.directions:
            steps = probes.spread[name] * np.array([0.0, 0.5, 1.0])
            straight = traverse(codec, starts, probes.directions[name], steps)
            bent = follow(codec, starts, name, steps, train)
            rows[name] = {
                "probe": probes.r_squared[name],
                "decoded": float(kept[name]),
                "straight": float(moves(straight, probes.spread, name)["change"].iloc[0]),
                "followed": float(moves(bent, probes.spread, name)["change"].iloc[0]),
            }
    variance = explained_variance(codec, train, held_out)
    report = {
        "places": {"accuracy": told.accuracy, "balanced": told.balanced, "chance": told.chance},
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
        way = traverse(
            codec, held_out.of(start).codes[: args.walked], place_direction(train, start, end), np.linspace(0, 1, 7),
            along=f"share of the way from {start} to {end}",
        )  # fmt: skip
        moved = moves(way, probes.spread)
        report["place_direction"] = {"from": start, "to": end, "moved": moved["in its unit"].to_dict()}
        console.print(moved[["label", "unit", "change", "in its unit"]].round(3))
        save_figure(show_path(way, spread=probes.spread), args.out / "place_direction.png")
    save_figure(show_probes(probes, kept=kept), args.out / "probes.png")
    write_text(args.out / "latent.json", json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
