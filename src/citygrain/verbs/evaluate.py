"""`citygrain evaluate`: is a model realistic and obedient, or does it copy? In numbers, beside real layouts."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rich
import torch
from numpy.typing import NDArray
from rich.table import Table

from citygrain.checkpoint import files_of, load, read
from citygrain.data.datamodule import CityDataModule
from citygrain.data.dataset import STATISTICS, CityWindows
from citygrain.data.transforms import turn
from citygrain.errors import ConfigError, DataError
from citygrain.evaluation.adherence import Sweep, Values, levels, retrieved, sweep, sweepable
from citygrain.evaluation.curves import training_curves
from citygrain.evaluation.disruption import judge_metrics
from citygrain.evaluation.distribution import frechet, kernel, overlap, shuffled, wasserstein
from citygrain.evaluation.embedding import kept
from citygrain.evaluation.gather import PART, Arrays, Gathered, Layouts, coarse_of, gather, kept_arrays, processes
from citygrain.evaluation.memorisation import Nearest, nearest
from citygrain.evaluation.morphology import FORM, bias
from citygrain.evaluation.report import number, write_report
from citygrain.evaluation.two_sample import two_sample
from citygrain.generation.requests import chosen_sampler
from citygrain.generation.windows import check_attempts, draw
from citygrain.geo.split import WHOLE
from citygrain.geo.vectorize import NETWORKS
from citygrain.measures import MEASURES
from citygrain.plot import curves, distance_chart, histograms, requested_measured, sheet
from citygrain.protocols import Sampler
from citygrain.spec import Batch, Conditions, LayoutSpec
from citygrain.support.console import progress_bar
from citygrain.support.devices import SINGLE, check_precision, chosen_device
from citygrain.support.files import sha256, write_text
from citygrain.version import __version__

AGAINST = ("test", "val", WHOLE)
"""The windows that layouts can be compared with: held-out blocks, or all of places that were not trained on."""

SHOWN = 8
"""Layouts in a row of pictures."""

POOL = 2048
"""Training windows that retrieval answers with."""

WORST = 12
"""Measures that the screen shows; the report shows all."""

LEAST = 16
"""Fewer layouts than this say nothing."""

CLASSIFIED = 2**28
"""Bytes of each set that the classifier is shown at most: 8,192 layouts of 8 channels and 64 × 64 cells."""

PAIRS = 8
"""Closest pairs that are shown."""

FAILURES = 3
"""Measures that a model fails worst at, whose layouts are shown."""

COPY_PERCENTILE = 1.0
"""A generated layout that is nearer to a training window than all but this share of held-out windows is suspect."""


def run(config: Mapping[str, Any]) -> Path:
    """Evaluate what the configuration names, and write the report.

    Parameters
    ----------
    config
        `conf/evaluate.yaml`, composed and plain.

    Returns
    -------
    Path
        The folder, with `report.html`, `report.json`, the pictures, and the parts that a repeated command takes up.

    Raises
    ------
    CheckpointError
        When the checkpoint is missing or damaged.
    DataError
        When its places are not prepared.
    ConfigError, ConditionError
        For numbers or conditions that make no sense.
    """
    _check(config)
    elsewhere = config["places"] is not None
    generator = load(config["checkpoint"], device=chosen_device(config["device"]))
    sampler = chosen_sampler(generator, config["sampler"])
    spec: LayoutSpec = generator.spec
    if config["ask"] is None:
        config = {**config, "ask": list(spec.scalars) if elsewhere else ["place"]}
    _check_names(spec, config)
    data = windows_of(generator, config)
    other = windows_of(generator, config, config["places"]) if elsewhere else data
    places = tuple(raster.name for raster in other.rasters)
    split = config["against"]
    if split == WHOLE and (known := [name for name in places if name in learned_from(generator)]):
        raise ConfigError(
            "All windows are held out only of places that the model was not trained on.",
            got=f"against={WHOLE} of {', '.join(known)}",
            remedy="name other places: places=[…]; or compare with what was held out: against=test",
        )
    n = min(config["n"], len(other.windows(split)) // (2 if split == WHOLE else 1))
    if n < LEAST:
        raise DataError(
            f"There are too few {split} windows to compare with.",
            expected=f"at least {LEAST}" + (", and as many for the floor" if split == WHOLE else ""),
            got=f"{n} of {', '.join(places)}",
            remedy="a larger place, or other windows: against=val, or against=all of places that it never saw",
        )
    if n < config["n"]:
        rich.print(f"[yellow]n = {n}[/]: there are no more such windows of {', '.join(places)} to compare with")
    out = Path(config["out"])
    embedding, where = kept(
        data.root / STATISTICS,
        {key: value for key, value in data.provenance().items() if key != "limits"},
        lambda start, count: data.batch("train", range(start, start + count)).layout,
        size_px=spec.size_px,
        steps=config["embedding"]["steps"],
    )
    with processes(config["workers"] or os.cpu_count() or 1) as mapped:
        gathered = partial(
            gather, channels=spec.channels, resolution_m=spec.resolution_m, embedding=embedding, mapped=mapped
        )
        folder = out / "parts" / _digest(generator, sampler, (data, other), where.name, n, config)
        sets = _sets(generator, sampler, other, gathered, n, folder, config)
        disruption = None
        if config["disrupt"]:
            disruption = judge_metrics(
                sets["real"],
                sets["floor"],
                gathered,
                spec.channels,
                spec.resolution_m,
                windows=config["disruption"]["windows"],
                seed=config["seed"],
            )
    report: dict[str, Any] = {
        "citygrain": __version__,
        "checkpoint": str(config["checkpoint"]),
        "model": type(generator).__name__,
        "places": list(places),
        "trained_on": list(spec.places),
        "channels": list(spec.channels),
        "given": list(spec.given),
        "window_m": spec.size_px * spec.resolution_m,
        "resolution_m": spec.resolution_m,
        "n": n,
        "seed": config["seed"],
        "against": split,
        "asked": list(config["ask"]),
        "embedding": {"learned_from": "train windows of these places, without labels", "file": where.name},
        "realism": realism(sets, spec, config),
        "disruption": disruption,
    }
    shown = classified(spec, n)
    real = sets["real"].layouts(shown)
    report["two_sample"] = {
        name: asdict(
            two_sample(sets[name].layouts(shown), real, steps=config["classifier"]["steps"], seed=config["seed"])
        )
        for name in ("generated", "floor")
    }
    near = {name: nearest_of(sets[name], data, config) for name in ("generated", "real")}
    report["memorisation"] = _memorised(near, config)
    sweeps = _sweeps(generator, sampler, (data, other), folder, config)
    report["obedience"] = _obedience(sweeps, spec, config)
    report["failures"] = failures(sets, report["realism"]["measures"])
    report["curves"] = training_curves(config["checkpoint"])
    _pictures(sets, near, sweeps, data, report, out)
    write_text(out / "report.json", json.dumps(_plain(report), indent=1, ensure_ascii=False) + "\n")
    write_report({**report, **_summary(report)}, out, "evaluation")
    for table in tables(report):
        rich.print(table)
    rich.print(f"report: {out / 'report.html'}")
    return out


def _check(config: Mapping[str, Any]) -> None:
    if config["n"] < LEAST or config["batch_size"] < 1 or config["bootstrap"] < 0:
        raise ConfigError(
            "Too few layouts say nothing.",
            expected=f"n ≥ {LEAST}, batch_size ≥ 1, bootstrap ≥ 0",
            got={key: config[key] for key in ("n", "batch_size", "bootstrap")},
        )
    if config["against"] not in AGAINST:
        raise ConfigError("Layouts are compared with held-out windows.", got=config["against"], choices=AGAINST)
    asked = config["obedience"]
    if asked["levels"] < 2 or asked["each"] < 1:
        raise ConfigError("A sweep has two levels or more.", got=f"levels={asked['levels']}, each={asked['each']}")
    check_attempts(asked["attempts"])
    check_precision(config["precision"])
    low, high = asked["between"]
    if not 0 <= low < high <= 100:
        raise ConfigError("A sweep goes from one of the percentiles to a higher one.", got=asked["between"])


def _check_names(spec: LayoutSpec, config: Mapping[str, Any]) -> None:
    if config["places"] is not None and "place" in config["ask"]:
        raise ConfigError(
            "A model cannot be asked to be like places that it was not trained on.",
            got=f"ask={list(config['ask'])}, places={list(config['places'])}",
            remedy="ask for measures, or leave out ask: then it is asked for all of them",
        )
    for name in config["ask"]:
        if name not in ("place", *spec.scalars):
            raise ConfigError("This model cannot be asked for it.", got=name, choices=("place", *spec.scalars))
    possible = sweepable(spec)
    for name in config["obedience"]["conditions"] or ():
        if name not in possible:
            raise ConfigError("This condition cannot be swept.", got=name, choices=possible)


def learned_from(generator: Any) -> set[str]:
    """Return the names of all places that a generator, its codec, or a training that its own went on from has seen."""
    codec = getattr(generator, "codec", None)
    seen = {*generator.spec.places, *(() if codec is None else codec.spec.places)}
    made = generator.provenance
    while made := made.get("begun_from"):
        seen |= set(made.get("places", ()))
    return seen


def windows_of(generator: Any, config: Mapping[str, Any], places: Sequence[str] | None = None) -> CityDataModule:
    """Return the windows that a generator was trained on and those that were held out, by what its checkpoint says.

    With `places`, windows of the same kind of these.
    """
    spec, made_of = generator.spec, generator.provenance["data"]
    return CityDataModule(
        list(spec.places if places is None else places),
        config["paths"]["data"],
        **made_of["rules"],
        **made_of.get("augmentation", {}),
        channels=spec.channels,
        scalars=spec.scalars,
        maps=spec.maps,
        map_px=spec.map_px,
        balance=made_of["balance"],
        seed=made_of["seed"],
        val_windows=config["n"],
        test_windows=config["n"],
        raster_format=spec.raster_format,
    )


def _sets(
    generator: Any,
    sampler: Sampler | None,
    data: CityDataModule,
    gathered: Callable[..., Gathered],
    n: int,
    folder: Path,
    config: Mapping[str, Any],
) -> dict[str, Gathered]:
    """Gather generated layouts, held-out windows (real), as many others (floor), and these shuffled (ceiling).

    The floor is of train windows or, where all windows are held out, of some that chance keeps apart. Shuffled held-out
    windows would keep what is held out about them, and come nearer to it than the floor.
    """
    spec: LayoutSpec = generator.spec
    split, seed, ask = config["against"], config["seed"], config["ask"]
    held_out = others = data.windows(split)
    chosen = spare = list(range(n))
    if split == WHOLE:
        order = np.random.default_rng(seed).permutation(len(held_out)).tolist()
        chosen, spare = order[:n], order[-n:]
    else:
        others = CityWindows(
            data.rasters,
            "train",
            data.rules,
            augmentation=type(data.augmentation)(),
            channels=spec.channels,
            balance=data.balance,
            seed=seed + 1,
            raster_format=spec.raster_format,
        )

    def generated(positions: range) -> Layouts:
        windows = data.batch(split, chosen[positions.start : positions.stop])
        scalars = {name: windows.conditions.scalars[:, spec.scalars.index(name)] for name in ask if name != "place"}
        asked = request(spec, windows, scalars, place="place" in ask)
        seeds = range(seed + positions.start, seed + positions.stop)
        made = draw(
            generator, asked, seeds, sampler=sampler, precision=config["precision"], batch_size=config["batch_size"]
        )
        return made.cells

    def real(positions: range) -> Layouts:
        return held_out.__getitems__(chosen[positions.start : positions.stop]).layout.numpy()

    def floor(positions: range) -> Layouts:
        return others.__getitems__(spare[positions.start : positions.stop]).layout.numpy()

    def ceiling(positions: range) -> Layouts:
        return shuffled(floor(positions), seed=positions.start)

    makers = {"real": real, "floor": floor, "ceiling": ceiling, "generated": generated}
    return {name: gathered(name, n, layouts_of, folder) for name, layouts_of in makers.items()}


def _digest(
    generator: Any,
    sampler: Sampler | None,
    windows: Sequence[CityDataModule],
    embedding: str,
    n: int,
    config: Mapping[str, Any],
) -> str:
    """Stand for all that decides what the parts hold: parts of another evaluation are not taken up."""
    made_by = [
        __version__,
        "".join(sha256(file) for file in files_of(read(config["checkpoint"]).path)),
        repr(sampler or generator.sampler) + ("" if config["precision"] == SINGLE else config["precision"]),
        [data.provenance() for data in windows],
        embedding,
        [n, *(config[key] for key in ("against", "seed", "ask"))],
        sorted(FORM),
    ]
    return hashlib.sha256(json.dumps(made_by, sort_keys=True, default=str).encode()).hexdigest()[:16]


def request(
    spec: LayoutSpec, windows: Batch, scalars: Mapping[str, torch.Tensor], *, place: bool = False
) -> Conditions:
    """Ask for some scalars `(B,)`, on the given channels of real windows, and at their places if need be."""
    given = {name: windows.layout[:, spec.channels.index(name)] for name in spec.given}
    asked = Conditions.request(spec, len(windows.layout), scalars, given or None)
    if place:
        asked.place = windows.conditions.place
    return asked


def realism(sets: Mapping[str, Gathered], spec: LayoutSpec, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return how far sets of layouts are from real ones, in every measure and in the embedding."""
    real = sets["real"].values
    measures: dict[str, Any] = {}
    not_compared: dict[str, str] = {}
    for name in real:
        about = FORM.get(name) or MEASURES[name]
        if set(about.channels) <= set(spec.given):
            continue  # settled by what is given
        spread = float(np.nanstd(real[name])) if np.isfinite(real[name]).any() else math.nan
        if not spread > 0:
            not_compared[name] = "the same in all held-out windows" if spread == 0 else "in no held-out window"
            continue
        found = {
            key: wasserstein(sets[key].values[name], real[name], resamples=config["bootstrap"], seed=config["seed"])
            for key in ("generated", "floor", "ceiling")
        }
        measures[name] = {
            "label": about.label,
            "unit": about.unit,
            "group": getattr(about, "group", "conditions"),
            "spread": spread,
            "bias": bias(name, spec.resolution_m),
            **{key: asdict(distance) for key, distance in found.items()},
            "times_floor": found["generated"].value / found["floor"].value if found["floor"].value > 0 else math.nan,
        }
    points = sets["real"].points
    embedded = {
        key: {
            "frechet": frechet(sets[key].points, points),
            "kernel": kernel(sets[key].points, points, seed=config["seed"]),
            **overlap(sets[key].points, points),
        }
        for key in ("generated", "floor", "ceiling")
    }
    return {"measures": measures, "not_compared": not_compared, "embedding": embedded}


def failures(sets: Mapping[str, Gathered], measures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the measures that are farthest off, in multiples of the floor, one of each group, and typical layouts.

    The networks are one group, for one that is in pieces is so in every measure. Typical of a set are those whose value
    is nearest to its median: they show what is wrong, not what may go wrong.
    """
    far = {name: m["times_floor"] for name, m in measures.items() if m["times_floor"] > 1}  # NaN is not
    worst: dict[str, str] = {}
    for name in sorted(far, key=lambda name: -far[name]):
        group = measures[name]["group"]
        worst.setdefault("networks" if group in NETWORKS else group, name)
    found = []
    for name in list(worst.values())[:FAILURES]:
        failure: dict[str, Any] = {"measure": name, **{key: measures[name][key] for key in ("label", "unit")}}
        failure["times_floor"] = far[name]
        for key in ("real", "generated"):
            values = sets[key].values[name]
            middle = float(np.nanmedian(values))
            failure[key] = {"median": middle, "typical": np.argsort(np.abs(values - middle))[: SHOWN // 2].tolist()}
        found.append(failure)
    return found


def classified(spec: LayoutSpec, n: int) -> int:
    """Return how many of `n` layouts the classifier is shown."""
    return min(n, CLASSIFIED // (len(spec.channels) * spec.size_px**2))


def nearest_of(of: Gathered, data: CityDataModule, config: Mapping[str, Any]) -> Nearest:
    """Return the nearest training window of each layout."""
    count = config["memorisation"]["windows"]

    def training() -> Iterator[NDArray[np.float32]]:
        with progress_bar("looking for copies", count) as advance:
            for start in range(0, count, PART):
                positions = range(start, min(start + PART, count))
                yield coarse_of(data.batch("train", positions).layout)
                advance(len(positions))

    return nearest(of.coarse, training())


def _memorised(near: Mapping[str, Nearest], config: Mapping[str, Any]) -> dict[str, Any]:
    limit = float(np.percentile(near["real"].distance, COPY_PERCENTILE))
    closer = near["generated"].distance < limit
    return {
        "training_windows": config["memorisation"]["windows"],
        "limit": limit,
        "share_closer": float(closer.mean()),
        "expected": COPY_PERCENTILE / 100,
        "median_distance": {name: float(np.median(found.distance)) for name, found in near.items()},
        "n": len(closer),
    }


def _sweeps(
    generator: Any,
    sampler: Sampler | None,
    both: tuple[CityDataModule, CityDataModule],
    folder: Path,
    config: Mapping[str, Any],
) -> dict[str, dict[str, Sweep]]:
    """Sweep every condition, and answer the same requests with real windows, and without listening."""
    data, other = both
    spec: LayoutSpec = generator.spec
    wanted, split = config["obedience"], config["against"]
    scalars = np.concatenate(
        [data.batch("train", range(i, i + PART)).conditions.scalars.double().numpy() for i in range(0, POOL, PART)]
    )
    pool = {name: scalars[:, i] for i, name in enumerate(spec.scalars)}
    n = wanted["levels"] * wanted["each"]
    seeds = range(config["seed"], config["seed"] + n)
    windows = other.batch(split, [i % len(other.windows(split)) for i in range(n)])

    def measured(asked: Values, attempts: int) -> Arrays:
        conditions = request(spec, windows, {name: torch.from_numpy(values) for name, values in asked.items()})
        made = draw(
            generator, conditions, seeds, sampler=sampler, attempts=attempts, precision=config["precision"],
            batch_size=config["batch_size"],
        )  # fmt: skip
        return {name: made.measured[name] for name in spec.scalars}

    def drawn(asked: Values, attempts: int = 1) -> Arrays:
        of = "_".join(
            [*asked, *(f"{wanted[key]}" for key in ("levels", "each")), *(f"{p:g}" for p in wanted["between"])]
            + ([f"attempts_{attempts}"] if attempts > 1 else [])
        )
        return kept_arrays(folder / f"sweep_{of}.npz", partial(measured, asked, attempts))

    names = sweepable(spec, wanted["conditions"])
    deaf = drawn({}) if names else {}
    found = {}
    with progress_bar("sweeping conditions", len(names)) as advance:
        for name in names:
            asked = levels(spec, name, wanted["levels"], *wanted["between"])
            found[name] = {
                "model": sweep(name, asked, wanted["each"], drawn),
                "retrieval": retrieved(name, asked, wanted["each"], pool),
                "unconditional": Sweep(name, np.repeat(asked, wanted["each"]), deaf),
            }
            if wanted["attempts"] > 1:
                again = partial(drawn, attempts=wanted["attempts"])
                found[name]["corrected"] = sweep(name, asked, wanted["each"], again)
            advance(1)
    return found


def _obedience(
    sweeps: Mapping[str, Mapping[str, Sweep]], spec: LayoutSpec, config: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        name: {
            "unit": MEASURES[name].unit,
            "label": MEASURES[name].label,
            "n": len(of["model"].asked),
            "seed": config["seed"],
            "attempts": config["obedience"]["attempts"],
            **{
                key: {"slope": s.slope, "r2": s.r_squared, "mae": s.mae, "drift": s.drift(spec)}
                for key, s in of.items()
            },
        }
        for name, of in sweeps.items()
    }


def _summary(report: Mapping[str, Any]) -> dict[str, Any]:
    """What stands at the head of the report, and the measures by what they are about."""
    groups: dict[str, list[Any]] = {}
    for measure in report["realism"]["measures"].values():
        groups.setdefault(measure["group"], []).append(measure)
    left_out = (report["disruption"] or {"left_out": {}})["left_out"]
    times = [m["times_floor"] for name, m in report["realism"]["measures"].items() if name not in left_out]
    slopes = [condition["model"]["slope"] for condition in report["obedience"].values()]
    return {
        "groups": groups,
        "median_times_floor": float(np.nanmedian(times)) if times else math.nan,
        "median_slope": float(np.median(slopes)) if slopes else math.nan,
    }


def _pictures(
    sets: Mapping[str, Gathered],
    near: Mapping[str, Nearest],
    sweeps: Mapping[str, Mapping[str, Sweep]],
    data: CityDataModule,
    report: Mapping[str, Any],
    out: Path,
) -> None:
    channels, resolution_m = report["channels"], report["resolution_m"]
    rows = [sets[name].layouts(2 * SHOWN) for name in ("real", "generated")]
    titles = [title if i == 0 else "" for title in ("held-out windows", "generated") for i in range(len(rows[0]))]
    sheet(np.concatenate(rows), channels, out / "layouts.png", titles=titles, columns=SHOWN, resolution_m=resolution_m)
    charted = [
        (m["label"], *(m[key]["value"] / m["spread"] for key in ("generated", "floor", "ceiling")))
        for m in report["realism"]["measures"].values()
    ]
    distance_chart(charted, out / "distances.png")
    if report["failures"]:
        shown = [(failure, key) for failure in report["failures"] for key in ("real", "generated")]
        typical = [sets[key].chosen(failure[key]["typical"]) for failure, key in shown]
        values = [[sets[key].values[f["measure"]][i] for i in f[key]["typical"]] for f, key in shown]
        titles = [
            f"{'generated' if key == 'generated' else 'held out'} {number(value, 2)}"
            for (_, key), row in zip(shown, values, strict=True)
            for value in row
        ]
        sheet(
            np.concatenate(typical), channels, out / "failures.png", titles=titles, columns=SHOWN,
            resolution_m=resolution_m,
        )  # fmt: skip
    if report["curves"]:
        curves(report["curves"], out / "curves.png")
    found = near["generated"]
    closest = np.argsort(found.distance)[:PAIRS]
    originals = (data.batch("train", found.index[closest].tolist()).layout.numpy() * 255).round().astype(np.uint8)
    alike = sets["generated"].chosen(closest.tolist())
    turned = np.stack([turn(layout, int(found.symmetry[i])) for i, layout in zip(closest, alike, strict=True)])
    titles = [f"{found.distance[i]:.2f}" for i in closest] + ["nearest training window", *[""] * (len(closest) - 1)]
    sheet(
        np.concatenate([turned, originals]),
        channels,
        out / "closest.png",
        titles=titles,
        columns=len(closest),
        resolution_m=resolution_m,
    )
    histograms(
        {"generated": found.distance, "held-out windows": near["real"].distance},
        out / "nearest.png",
        label="distance to the nearest training window, in standard deviations",
        mark=report["memorisation"]["limit"],
    )
    if sweeps:
        requested_measured(
            {name: of["model"].asked for name, of in sweeps.items()},
            {name: of["model"].measured[name] for name, of in sweeps.items()},
            out / "obedience.png",
        )


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: what is not a number is null."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def tables(report: Mapping[str, Any]) -> list[Table]:
    """Return what the screen shows of a report."""
    measures = report["realism"]["measures"].values()
    worst = sorted((m for m in measures if math.isfinite(m["times_floor"])), key=lambda m: -m["times_floor"])[:WORST]
    form = _table(
        f"{report['n']} layouts against {report['against']} windows: the {len(worst)} of {len(measures)} measures that "
        "are farthest from real against real",
        "measure", "unit", "distance", "floor", "× floor",
    )  # fmt: skip
    for m in worst:
        distances = (f"{m[key]['value']:.3g}" for key in ("generated", "floor"))
        form.add_row(m["label"], m["unit"], *distances, f"{m['times_floor']:.1f}")
    embedded = _table("in the embedding", "", "generated", "floor", "ceiling")
    for name in report["realism"]["embedding"]["generated"]:
        values = [report["realism"]["embedding"][key][name] for key in ("generated", "floor", "ceiling")]
        embedded.add_row(name, *(f"{value:.3g}" for value in values))
    conditions = list(report["obedience"].values())
    times = next((c["attempts"] for c in conditions if "corrected" in c), None)
    corrected = [f"R², {times} attempts"] if times else []
    obeyed = _table(
        "obedience", "condition", "slope", "R²", *corrected, "mean error", "if ignored", "drift", "drift, real"
    )
    for condition in conditions:
        model = condition["model"]
        obeyed.add_row(
            condition["label"], f"{model['slope']:.2f}", f"{model['r2']:.2f}",
            *([f"{condition['corrected']['r2']:.2f}"] if times else []),
            f"{model['mae']:.3g}", f"{condition['unconditional']['mae']:.3g}", f"{model['drift']:.2f}",
            f"{condition['retrieval']['drift']:.2f}",
        )  # fmt: skip
    rest = _table("copies and tells", "", "generated", "floor")
    copies, told = report["memorisation"], report["two_sample"]
    rest.add_row("nearer to a training window than 99 % of held-out ones", f"{copies['share_closer']:.1%}", "1.0%")
    rest.add_row(
        "told from held-out windows by a network (50 % is perfect)",
        *(f"{told[key]['accuracy']:.1%} ({told[key]['low']:.0%} – {told[key]['high']:.0%})" for key in told),
    )
    return [form, embedded, obeyed, rest]


def _table(title: str, *headings: str) -> Table:
    shown = Table(title=title)
    for i, heading in enumerate(headings):
        shown.add_column(heading, justify="right" if i else "left")
    return shown
