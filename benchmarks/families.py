"""Every family on the same windows for the same time, then asked for the same things.

    python benchmarks/families.py --minutes 5

Each recipe of `RECIPES` (conf/experiment/) is trained on Copenhagen and Los Angeles, 64 × 64 cells of 8 m: its speed is
measured over a few steps first, and then as many are trained as fit into `--minutes`. Families that work in a code take
that of the variational autoencoder, or of the vector-quantised one, trained in the same way; their minutes come on top.
A family that is done is not done again (`runs/families/<recipe>`, `<out>/<recipe>.json`), so that the command goes on
where it stopped. First the speeds of all are measured, then all are trained, then all are asked: the machine should do
nothing else in the first and the last part.

Reported, in `<out>/families.json` and, as a table, in `<out>/families.md`:

- parameters that are trained; windows a second in training, without the start and what follows it; layouts a second
  in sampling, in batches of 64;
- codecs: share of each channel's variance on held-out windows that a reconstruction explains, on average;
- likelihood models: bits per cell (all its channels together) of held-out windows. A flow of cells bounds those of the
  coverage itself, a causal transformer counts those of the tokens, a flow in a code the density of the code: compare
  like with like only;
- adherence: R² of measured about requested, five levels of one condition at a time, between the 10th and the 90th
  percentile of the training windows; below 0 it is worse than the mean of what was measured, "< −1" far worse;
- Wasserstein distance of each measure between held-out windows and layouts that were asked for the place and four
  measures of one held-out window each, in standard deviations over the training windows; on average over all measures
  that are not given, and beside it what as many training windows have instead of layouts: the floor.

`<out>/families.png` shows eight held-out windows and, below them, what each family makes of the same eight requests.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import wasserstein_distance

from adherence import levels_of
from citygrain.checkpoint import load
from citygrain.data.datamodule import CityDataModule
from citygrain.generation.windows import draw
from citygrain.measures import MEASURES, measure
from citygrain.plot import make_sheet, r_squared, save_figure
from citygrain.protocols import Codec, HasLikelihood
from citygrain.spec import Batch, Conditions, LayoutSpec
from citygrain.support.config import load_config
from citygrain.support.files import write_text
from citygrain.training.train import train as train_model

VAE, VQ = "variational_autoencoder", "vector_quantized"
RECIPES: dict[str, str | None] = {
    "pca": None,
    "autoencoder": None,
    "sparse_autoencoder": None,
    "denoising_autoencoder": None,
    "variational_autoencoder": None,
    "vector_quantized": None,
    "pix2pix": None,
    "style_gan": None,
    "latent_diffusion": VAE,
    "latent_flow_matching": VAE,
    "causal_transformer": VQ,
    "masked_transformer": VQ,
    "normalizing_flow": None,
    "latent_flow": VAE,
    "energy_based": VAE,
    "boltzmann_machine": None,
}
"""Recipe → the recipe in whose code it works."""

ASKED = ("coverage", "street_density", "cycle", "green")
PROBE, LONG_ENOUGH_S = 15, 4.0


def keywords(recipe: str, steps: int, args: argparse.Namespace) -> dict[str, Any]:
    """Return what is trained and for how long."""
    codec = RECIPES[recipe]
    return {
        "experiment": recipe,
        "trainer": {"max_steps": steps},
        "paths": {"data": args.data, "runs": args.runs},
        "codec": args.runs / codec if codec else None,
    }


def plan(recipe: str, args: argparse.Namespace) -> dict[str, float]:
    """Return how long a step takes and how many there are time for, measured unless that has been done."""
    file = args.out / f"{recipe}.plan.json"
    if not file.is_file():
        quiet: dict[str, Any] = {
            "logger": "none", "data": {"val_windows": 0}, "callbacks": {"samples": {"every_n_epochs": 0}}, "codes": 500,
        }  # fmt: skip

        def took(steps: int) -> float:
            shutil.rmtree(args.runs / "probe", ignore_errors=True)  # half a probe would be taken up
            started = time.perf_counter()
            train_model(f"probe/{recipe}", **keywords(recipe, steps, args), **quiet)
            return time.perf_counter() - started

        took(1)  # what only the first one waits for
        steps = PROBE
        while (
            seconds := took(3 * steps) - took(steps)
        ) < LONG_ENOUGH_S:  # the difference leaves out what a start costs
            steps *= 3
        a_step = seconds / (2 * steps)
        steps = min(max(100, int(60 * args.minutes / a_step)), 20_000)
        write_text(file, json.dumps({"minutes": args.minutes, "seconds_a_step": a_step, "steps": steps}))
    planned: dict[str, float] = json.loads(file.read_text())
    if planned["minutes"] != args.minutes:
        raise SystemExit(f"{file} was made for --minutes {planned['minutes']:g}: choose another --out and --runs")
    return planned


def train(recipe: str, args: argparse.Namespace) -> None:
    """Train for the time there is, unless that has been done."""
    train_model(recipe, **keywords(recipe, int(plan(recipe, args)["steps"]), args))


def evaluate(recipe: str, args: argparse.Namespace, held_out: Batch) -> dict[str, Any]:
    """Return the row of a trained recipe; its eight layouts go to `<recipe>.npy`."""
    generator = load(args.runs / recipe)
    spec: LayoutSpec = generator.spec
    batch = load_config("train", [f"experiment={recipe}"])["data"]["batch_size"]
    row: dict[str, Any] = {
        "parameters": sum(p.numel() for p in trained(generator)),
        "windows_per_second": batch / plan(recipe, args)["seconds_a_step"],
    }
    if isinstance(generator, Codec):
        row["explained"] = explained(generator, held_out.layout)
    if isinstance(generator, HasLikelihood):
        with torch.no_grad():
            nats = [
                generator.log_likelihood(held_out.layout[i : i + 64], held_out.conditions[i : i + 64])
                for i in range(0, len(held_out.layout), 64)
            ]
        row["bits_per_cell"] = -torch.cat(nats).mean().item() / math.log(2) / spec.size_px**2
    started, count = time.perf_counter(), 0
    row["adherence"] = {}
    for name in ASKED:
        if is_given(name, spec):
            continue  # what is given is no request
        asked = np.repeat(levels_of(spec, name, 5, 10, 90), args.samples)
        conditions = request(generator, {name: torch.tensor(asked)}, held_out)
        made = draw(generator, conditions, range(len(asked)), show_progress=True)
        row["adherence"][name] = r_squared(asked, made.measured[name])
        count += len(asked)
    wanted = {name: held_out.conditions.scalars[:, spec.scalars.index(name)] for name in ASKED}
    alike = request(generator, wanted, held_out)
    alike.place = held_out.conditions.place
    made = draw(generator, alike, range(len(alike)), show_progress=True)
    count += len(alike)
    row["layouts_per_second"] = count / (time.perf_counter() - started)
    row["wasserstein"] = distances(made.shares, held_out.layout.numpy(), spec)
    np.save(args.out / f"{recipe}.npy", (made.shares[: args.columns] * 255).astype(np.uint8))
    return row


def trained(generator: Any) -> list[torch.Tensor]:
    return [p for name, p in generator.named_parameters() if not name.startswith("codec.")]


def request(generator: Any, asked: Mapping[str, torch.Tensor], held_out: Batch) -> Conditions:
    """Ask for scalars, one a layout; channels that are given are those of held-out windows, in turn."""
    spec, n = generator.spec, len(next(iter(asked.values())))
    turn = torch.arange(n) % len(held_out.layout)
    given = {name: held_out.layout[turn, spec.channels.index(name)] for name in spec.given}
    return Conditions.request(spec, n, asked, given or None)


@torch.no_grad()
def explained(codec: Any, layouts: torch.Tensor) -> float:
    """Share of the variance that reconstructions explain, averaged over the channels."""
    made = torch.cat([codec.decode(codec.encode(part)) for part in torch.split(layouts, 64)])
    error = (made - layouts).square().mean((0, 2, 3))
    return (1 - error / layouts.var((0, 2, 3)).clamp_min(1e-9)).mean().item()


def distances(made: np.ndarray, real: np.ndarray, spec: LayoutSpec) -> dict[str, float]:
    """Wasserstein distance of every measure, in standard deviations over the training windows."""
    ours, theirs = (measure(x, spec.channels, spec.resolution_m) for x in (made, real))
    return {
        name: float(wasserstein_distance(ours[name], theirs[name]) / max(spec.spread(name), 1e-9))
        for name in spec.scalars
        if not is_given(name, spec)
    }


def is_given(name: str, spec: LayoutSpec) -> bool:
    """Whether a measure is settled by channels that the model is given."""
    return set(MEASURES[name].channels) <= set(spec.given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--minutes", type=float, default=5.0, help="of training for each")
    parser.add_argument("--samples", type=int, default=16, help="layouts a level")
    parser.add_argument("--windows", type=int, default=256, help="held-out windows")
    parser.add_argument("--columns", type=int, default=8, help="of the picture")
    parser.add_argument("--data", type=Path, default=Path("data/cities"))
    parser.add_argument("--runs", type=Path, default=Path("runs/families"))
    parser.add_argument("--out", type=Path, default=Path("out/families"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    windows = load_config("train", ["experiment=pca"])["data"]
    data = CityDataModule(root=args.data, **{**windows, "test_windows": args.windows})
    spec = data.prepare_spec()
    held_out = data.batch("test", range(len(data.windows("test"))))
    others = data.batch("train", range(len(held_out.layout)))
    floor = distances(others.layout.numpy(), held_out.layout.numpy(), spec)

    def of(recipe: str) -> Path:
        folder: Path = args.out
        return folder / f"{recipe}.json"

    left = [recipe for recipe in args.recipes if not of(recipe).is_file()]
    for recipe in left:  # speeds come first, so that nothing else need rest while the training goes on
        if codec := RECIPES[recipe]:
            train(codec, args)
        plan(recipe, args)
    for recipe in left:
        train(recipe, args)
    for recipe in left:
        write_text(of(recipe), json.dumps(evaluate(recipe, args, held_out), indent=1) + "\n")
    rows = {recipe: json.loads(of(recipe).read_text()) for recipe in args.recipes}
    report = {"minutes": args.minutes, "held_out": len(held_out.layout), "floor": floor, "families": rows}
    write_text(args.out / "families.json", json.dumps(report, indent=1) + "\n")
    write_text(args.out / "families.md", table(report))
    print(table(report))
    picture = [held_out.layout[: args.columns].numpy()]
    titles = ["held-out windows", *[""] * (args.columns - 1)]
    for recipe in rows:
        picture.append(np.load(args.out / f"{recipe}.npy") / np.float32(255))
        titles += [recipe.replace("_", " "), *[""] * (args.columns - 1)]
    save_figure(
        make_sheet(
            np.concatenate(picture), spec.channels, titles=titles, columns=args.columns, resolution_m=spec.resolution_m
        ),
        args.out / "families.png",
    )


def table(report: Mapping[str, Any]) -> str:
    """Return the report as a table in Markdown."""

    def number(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    def adhered(value: float | None) -> str:
        return "< −1" if value is not None and value < -1 else number(value, ".2f")

    headings = ("recipe", "parameters", "windows/s", "layouts/s", "explained", "bits/cell", *ASKED, "Wasserstein")
    lines = ["| " + " | ".join(headings) + " |", "|---" + "|---:" * (len(headings) - 1) + "|"]
    for recipe, row in report["families"].items():
        cells = [
            f"`{recipe}`",
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['windows_per_second']:.0f}",
            f"{row['layouts_per_second']:.1f}",
            number(row.get("explained"), ".2f"),
            number(row.get("bits_per_cell"), ".2f"),
            *(adhered(row["adherence"].get(name)) for name in ASKED),
            f"{np.mean(list(row['wasserstein'].values())):.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    floor = f"{np.mean(list(report['floor'].values())):.2f}"
    lines.append("| " + " | ".join(["other training windows", *["–"] * 9, floor]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
