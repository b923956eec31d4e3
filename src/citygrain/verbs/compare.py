"""`citygrain compare`: what separates places, measure by measure, in pictures and in numbers."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rich
from numpy.typing import NDArray
from rich.table import Table
from scipy.stats import spearmanr

from citygrain.data.dataset import CityWindows, Rules, built_channels, common_channels, find_place
from citygrain.errors import ConfigError, DataError
from citygrain.evaluation.effect import cliffs_delta, separation
from citygrain.evaluation.gather import Gathered, Layouts, gather, processes
from citygrain.evaluation.morphology import FORM, FormMeasure, bias, orientation_entropy, orientation_order
from citygrain.evaluation.report import write_report
from citygrain.geo.cityraster import CityRaster
from citygrain.geo.layers import CHANNEL_NAMES, PARTS, RASTER_FORMAT
from citygrain.geo.split import WHOLE
from citygrain.measures import MEASURES, Measure, measure
from citygrain.plot import distributions, place_map, ranges, roses, sheet, stacked
from citygrain.support.files import write_text
from citygrain.version import __version__

SHARES = ("car_share", "cycle_share", "walk_share", "rail_share")
DISTRIBUTIONS = ("footprint_area", "nearest_building", "setback", "block_area", "drive_segment_length")
EXAMPLES, PERCENTILES = 4, (10, 50, 90)
"""Measures of which windows are shown, and at which percentiles of a place."""

ALIKE = 0.7
"""Measures whose ranks correlate by more than this say the same."""

SELDOM = 0.5
"""Share of a place's windows in which a measure may be undefined, until it comes after the others."""

CHARTED, SCREEN = 24, 12
"""Measures in the chart and on the screen: those that separate the places best."""


EARLIER = (
    "An earlier model drew the layouts. As it knows them, service roads are streets and squares are footways, in the "
    "places too."
)


@dataclass(frozen=True)
class Compared:
    """One place, real or generated, and all that is known of its windows.

    Attributes
    ----------
    name
        Of the place, or of the folder of generated layouts.
    channels
        That it knows.
    missing
        Channel → why it is not known.
    windows
        What was gathered.
    flow
        Eastings and northings `(M, 2)` of the middles of windows all over the place, and their people flow `(M,)`; None
        for generated layouts, and where it is not known.
    """

    name: str
    channels: tuple[str, ...]
    missing: Mapping[str, str]
    windows: Gathered
    flow: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None


def run(config: Mapping[str, Any]) -> Path:
    """Compare what the configuration names, and write the report.

    Parameters
    ----------
    config
        `conf/compare.yaml`, composed and plain.

    Returns
    -------
    Path
        The folder, with `report.html`, `measures.csv` and the pictures.

    Raises
    ------
    DataError
        When a place is not prepared, has no windows, or layouts are not those of `citygrain sample`.
    ConfigError
        For fewer than two places in all, or windows that do not fit.
    """
    names = [Path(place).name for place in (*config["places"], *config["generated"])]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ConfigError(
            "There is nothing to compare.",
            expected="two places or more, each with a name of its own",
            got=", ".join(names),
        )
    made = {Path(folder).name: _generated(Path(folder)) for folder in config["generated"]}
    rasters = [CityRaster.open(find_place(Path(config["paths"]["data"]), place)) for place in config["places"]]
    resolution_m, size_px = _windows(config, rasters, made)
    raster_format = _format_of({name: form for name, (_, _, _, form) in made.items()})
    out = Path(config["out"])
    compared = []
    with processes(config["workers"] or os.cpu_count() or 1) as mapped:

        def gathered(name: str, channels: Sequence[str], count: int, layouts_of: Any, made_by: Any) -> Gathered:
            made_by = [made_by, sorted(FORM), config["service"]]
            digest = hashlib.sha256(json.dumps(made_by, sort_keys=True, default=str).encode())
            folder = out / "parts" / digest.hexdigest()[:16]
            of = {"channels": channels, "resolution_m": resolution_m, "service": config["service"]}
            return gather(name, count, layouts_of, folder, **of, mapped=mapped)

        rules = Rules(size_px, resolution_m, config["min_valid"], config["min_built"])
        built = built_channels(rasters)
        for raster in rasters:
            channels, _ = common_channels([raster], raster_format=raster_format)
            missing = {
                name: raster.unknown.get(name, "no such channel")
                for name in CHANNEL_NAMES
                if name not in channels and not (raster_format == 1 and name in PARTS)
            }
            windows = CityWindows(
                [raster], WHOLE, rules, channels=channels, limit=config["n"], built=built, raster_format=raster_format
            )
            made_by = [dict(raster.provenance), vars(rules), config["n"], built, raster_format]
            found = gathered(raster.name, channels, len(windows), partial(_bytes, windows), made_by)
            flow = _flow(raster, channels, size_px * resolution_m, raster_format)
            compared.append(Compared(raster.name, channels, missing, found, flow))
        for name, (layouts, channels, _, _) in made.items():
            made_by = [hashlib.sha256(layouts.tobytes()).hexdigest()]
            found = gathered(name, channels, len(layouts), partial(_part, layouts), made_by)
            compared.append(Compared(name, channels, {}, found))
    report = compare(compared, resolution_m=resolution_m, window_m=size_px * resolution_m, generated=list(made))
    report["note"] = "" if raster_format == RASTER_FORMAT else EARLIER
    report["least"] = {"data": config["min_valid"], "built": config["min_built"] if built else 0.0, "of": list(built)}
    _pictures(compared, report, out, resolution_m)
    write_text(out / "measures.csv", _csv(report))
    write_text(out / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    write_report({**report, "citygrain": __version__}, out, "comparison")
    rich.print(_table(report))
    rich.print(f"report: {out / 'report.html'}   table: {out / 'measures.csv'}")
    return out


def _format_of(formats: Mapping[str, int]) -> int:
    """Return the format in which places are cut: that of the generated layouts which they are compared with.

    Raises
    ------
    ConfigError
        When these are of several formats, whose channels hold different things.
    """
    if len(set(formats.values())) > 1:
        raise ConfigError(
            "Layouts of models that know other channels cannot be compared with each other.",
            expected="layouts of one format",
            got=", ".join(f"{name}: format {form}" for name, form in formats.items()),
            remedy="compare each of them with the places",
        )
    raster_format = min(formats.values(), default=RASTER_FORMAT)
    if raster_format < RASTER_FORMAT:
        rich.print(f"[yellow]format {raster_format}:[/] {EARLIER}")
    return raster_format


def _bytes(windows: CityWindows, positions: range) -> Layouts:
    return windows.__getitems__(positions).layout.numpy()


def _part(layouts: Layouts, positions: range) -> Layouts:
    return layouts[positions.start : positions.stop]


def _flow(
    raster: CityRaster, channels: Sequence[str], window_m: float, raster_format: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Measure people flow all over a place, at its coarsest resolution."""
    if not set(MEASURES["people_flow"].channels) <= set(channels):
        return None
    cell = max(raster.resolutions)
    rules = Rules(round(window_m / cell), cell, min_built=0.0)
    windows = CityWindows([raster], WHOLE, rules, channels=channels, raster_format=raster_format)
    _, row, column, _ = windows.locate(range(len(windows)))
    half = rules.size_px / 2
    middles = np.stack([raster.grid.left + (column + half) * cell, raster.grid.top - (row + half) * cell], 1)
    parts = [
        measure(np.divide(_bytes(windows, range(i, min(i + 256, len(windows)))), 255), channels, cell)["people_flow"]
        for i in range(0, len(windows), 256)
    ]
    return middles, np.concatenate(parts).astype(float)


def _generated(folder: Path) -> tuple[Layouts, tuple[str, ...], float, int]:
    """Read the layouts that `citygrain sample` wrote, with their channels, resolution and format."""
    path = folder / "layouts.npz"
    try:
        with np.load(path) as file:
            raster_format = int(file["raster_format"]) if "raster_format" in file else 1
            return file["layouts"], tuple(map(str, file["channels"])), float(file["resolution_m"]), raster_format
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{folder} holds no generated layouts.",
            expected="a folder that `citygrain sample` wrote, with layouts.npz",
            got=error,
        ) from error


def _windows(
    config: Mapping[str, Any],
    rasters: Sequence[CityRaster],
    made: Mapping[str, tuple[Layouts, tuple[str, ...], float, int]],
) -> tuple[float, int]:
    """Return resolution and size in cells of all windows: those of generated layouts, or as asked for."""
    sizes = {(resolution_m, layouts.shape[-1]) for layouts, _, resolution_m, _ in made.values()}
    if len(sizes) > 1:
        raise ConfigError("Generated layouts of several sizes cannot be compared.", got=sorted(sizes))
    if sizes:
        resolution_m, size_px = sizes.pop()
        asked = config["resolution_m"]
        if asked not in {None, resolution_m}:
            raise ConfigError(
                "The generated layouts have another resolution.", expected=resolution_m, got=f"resolution_m={asked}"
            )
        return resolution_m, size_px
    resolution_m = config["resolution_m"] or max(min(raster.resolutions) for raster in rasters)
    return float(resolution_m), round(config["window_m"] / resolution_m)


def compare(
    places: Sequence[Compared], *, resolution_m: float, window_m: float, generated: Sequence[str] = ()
) -> dict[str, Any]:
    """Return what separates places: every measure that any of them has, those that separate best first.

    Measures that more than half of a place's windows have nothing of (circuity, where there is no cycle track) compare
    its odd windows with others' usual ones, and come after the rest; those that only one place has come last.

    Parameters
    ----------
    places
        With their windows.
    resolution_m, window_m
        Of the windows.
    generated
        Names of those that are no real places.
    """
    measures = []
    known_measures: dict[str, Measure | FormMeasure] = {**MEASURES, **FORM}
    for name, about in known_measures.items():
        values = {p.name: p.windows.values[name] for p in places if name in p.windows.values}
        defined = {place: v[np.isfinite(v)] for place, v in values.items()}
        known = {place: v for place, v in defined.items() if len(v)}
        row: dict[str, Any] = {
            "name": name,
            "label": about.label,
            "unit": about.unit,
            "formula": about.formula,
            "bias": bias(name, resolution_m),
            "separation": separation(list(known.values())) if len(known) > 1 else None,
            "delta": cliffs_delta(*known.values()) if len(known) == len(places) == 2 else None,
            "places": {
                place: {
                    "n": len(v),
                    "undefined": float(1 - len(v) / len(values[place])),
                    **{f"p{q}": float(np.percentile(v, q)) for q in PERCENTILES},
                }
                for place, v in known.items()
            },
        }
        if known:
            measures.append(row)
    measures.sort(key=lambda row: (row["separation"] is None, _seldom(row), -(row["separation"] or 0.0)))
    orientation = {}
    for p in places:
        if "drive_bearing" in p.windows.samples and len(p.windows.samples["drive_bearing"]):
            bearing, length = (p.windows.samples[f"drive_{part}"] for part in ("bearing", "bearing_length"))
            entropy = orientation_entropy(bearing, length, corrected=True)
            orientation[p.name] = {"entropy": entropy, "order": orientation_order(entropy), "ways": len(bearing)}
    return {
        "places": [p.name for p in places],
        "generated": list(generated),
        "n": {p.name: len(p.windows) for p in places},
        "missing": {p.name: dict(p.missing) for p in places if p.missing},
        "resolution_m": resolution_m,
        "window_m": window_m,
        "orientation": orientation,
        "measures": measures,
    }


def _seldom(row: Mapping[str, Any]) -> bool:
    return any(of["undefined"] > SELDOM for of in row["places"].values())


def _pictures(places: Sequence[Compared], report: Mapping[str, Any], out: Path, resolution_m: float) -> None:
    turned = {
        p.name: (p.windows.samples["drive_bearing"], p.windows.samples["drive_bearing_length"])
        for p in places
        if p.name in report["orientation"]
    }
    if turned:
        titles = [f"{name}\nφ = {of['order']:.2f}" for name, of in report["orientation"].items()]
        roses(list(turned.values()), titles, out / "orientation.png")
    best = [m for m in report["measures"] if m["separation"] is not None]
    ranges(
        [
            (m["label"], {name: (of["p10"], of["p50"], of["p90"]) for name, of in m["places"].items()})
            for m in best[:CHARTED]
        ],
        report["places"],
        out / "measures.png",
    )
    pooled = {
        FORM[name].label + f" [{FORM[name].unit}]": {
            p.name: p.windows.samples[name] for p in places if len(p.windows.samples.get(name, ()))
        }
        for name in DISTRIBUTIONS
        if name in FORM
    }
    distributions({label: of for label, of in pooled.items() if of}, report["places"], out / "distributions.png")
    mixes = {
        p.name: [float(np.mean(p.windows.values[name])) for name in SHARES]
        for p in places
        if all(name in p.windows.values for name in SHARES)
    }
    if mixes:
        stacked(mixes, [MEASURES[name].label for name in SHARES], out / "modes.png")
    flows = {p.name: p.flow for p in places if p.flow is not None}
    highest = max((float(of.max()) for _, of in flows.values()), default=0.0)
    for name, (where, of) in flows.items():
        label = "built mass within reach on foot [ha]"
        place_map(
            where, of, report["window_m"], out / f"people_flow_{name}.png", label=label, heading=name, top=highest
        )
    shown = _distinct(places, [m["name"] for m in best])
    for p in places:
        index, titles = [], []
        for name in shown:
            values = p.windows.values.get(name, np.empty(0))
            about = FORM.get(name) or MEASURES[name]
            for q in PERCENTILES if np.isfinite(values).any() else ():
                index.append(int(np.nanargmin(np.abs(values - np.nanpercentile(values, q)))))
                titles.append(f"{about.label}, {q} %: {values[index[-1]]:.3g}")
        if index:
            sheet(
                p.windows.chosen(index), p.channels, out / f"examples_{p.name}.png", titles=titles,
                columns=len(PERCENTILES) * 2, resolution_m=resolution_m, heading=p.name,
            )  # fmt: skip


def _distinct(places: Sequence[Compared], names: Sequence[str]) -> list[str]:
    """Return the first measures that do not say what one before them says, by rank correlation over all windows."""
    chosen: list[str] = []
    for name in names:
        if len(chosen) == EXAMPLES:
            break
        of = [p.windows.values for p in places if all(key in p.windows.values for key in (name, *chosen))]
        columns = {key: np.concatenate([values[key] for values in of]) for key in (name, *chosen)} if of else {}
        alike = [abs(spearmanr(columns[name], columns[key], nan_policy="omit").statistic) for key in chosen if columns]
        if not any(rho > ALIKE for rho in alike):
            chosen.append(name)
    return chosen


def _csv(report: Mapping[str, Any]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    columns = [f"{place}_{part}" for place in report["places"] for part in ("n", "undefined", "p10", "p50", "p90")]
    writer.writerow(["measure", "label", "unit", "separation", "cliffs_delta", "bias", *columns])
    for m in report["measures"]:
        cells = [
            m["places"].get(place, {}).get(part)
            for place in report["places"]
            for part in ("n", "undefined", "p10", "p50", "p90")
        ]
        values = ["" if v is None else f"{v:.6g}" for v in (m["separation"], m["delta"], m["bias"], *cells)]
        writer.writerow([m["name"], m["label"], m["unit"], *values])
    return text.getvalue()


def _table(report: Mapping[str, Any]) -> Table:
    shown = Table(title=f"what separates {', '.join(report['places'])}")
    for heading in ("measure", "unit", *report["places"], "separation"):
        shown.add_column(heading, justify="left" if heading in {"measure", "unit"} else "right")
    for m in report["measures"][:SCREEN]:
        medians = (f"{m['places'][p]['p50']:.3g}" if p in m["places"] else "–" for p in report["places"])
        shown.add_row(m["label"], m["unit"], *medians, "–" if m["separation"] is None else f"{m['separation']:.2f}")
    return shown
