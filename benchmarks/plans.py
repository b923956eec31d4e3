"""How good the ways are that models draw: ways alone, at 8 m, beside held-out windows of the same places.

    python benchmarks/plans.py reference/cities_64 --places copenhagen los_angeles --n 384
    python benchmarks/plans.py reference/cities_64 runs/mine --n 1024 --picture out/plans.png
    python benchmarks/plans.py out/samples --places copenhagen --n 192

Takes checkpoints, and folders of layouts that `citygrain sample` wrote for a place. A model draws as many layouts of
each place, asked for the place; of a place that it does not know, for all measures that ways tell of one held-out
window each. Real windows lie at random in held-out blocks, and may overlap; *other real* ones lie so in training
blocks, and say how far real windows are from each other. Layouts of finer cells are averaged to 8 m.

Printed, and written to `plans.md` and `plans.csv` in `--out`, for each place with `--least` windows and for all
together: the figures of `citygrain.evaluation.ways.judge_ways`, and the table of Boeing (2019), which pools the streets
of all windows of a place.

The drive network is measured without and with service roads, if a source knows them. Models of format 1 know them as
streets, and their real windows are cut so, too. `--format 1` turns layouts of other models into such ones, so that the
two can be compared.

`--pair` names two of the places: how each measure separates them, among real windows and among layouts (Cliff's delta).

What was drawn and measured is kept in `--out`, batch by batch: repeat the command to go on where it stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from citygrain.checkpoint import load
from citygrain.data.cityraster import CityRaster
from citygrain.data.dataset import find_place
from citygrain.data.rules import Allowed, Rules, list_built_channels, list_common_channels
from citygrain.evaluation.comparison import read_generated
from citygrain.evaluation.form import FORM
from citygrain.evaluation.gather import PART, Cells, Gathered, coarsen, gather, keep_arrays
from citygrain.evaluation.key_points import KEY_POINTS, measure_ways
from citygrain.evaluation.sets import Drawing
from citygrain.evaluation.spatial_order import LEAST_SEGMENTS, pool_order
from citygrain.evaluation.ways import (
    DRAWN,
    OTHER,
    REAL,
    Figure,
    WaySets,
    contrast_places,
    judge_by_classifier,
    judge_ways,
)
from citygrain.geo.layers import PARTS, find_parts, select_channels
from citygrain.geo.vectorize import NETWORKS
from citygrain.measures import MEASURES, measure
from citygrain.plot import make_sheet, save_figure
from citygrain.spec import Conditions, LayoutSpec
from citygrain.support.config import load_config
from citygrain.support.devices import SINGLE
from citygrain.support.files import write_text
from citygrain.version import __version__

CELL_M = 8.0
WAYS = tuple(name for names in NETWORKS.values() for name in names)
CONTRASTS = 12
"""Measures that are shown of a pair of places."""
NOTHING = Figure(math.nan, math.nan, math.nan)
SERVICE = ("without", "with")
SEARCHED = "searched"
WHERE = {REAL: ("test", 2), OTHER: ("train", 1), SEARCHED: ("train", 3)}
"""Real windows → the split that they lie in, and the seed of where."""


@dataclass(frozen=True)
class Source:
    """What is judged: a model, or layouts that were drawn.

    Attributes
    ----------
    name
        For tables.
    known
        The channels that it has, in order.
    own_format
        Format of these channels.
    raster_format
        Format in which its ways are compared.
    channels
        Channels of ways in that format.
    extent_m, resolution_m
        Edge of a layout, and of its cells.
    made
        A model, or `(N, C, H, W)` layouts.
    """

    name: str
    known: tuple[str, ...]
    own_format: int
    raster_format: int
    channels: tuple[str, ...]
    extent_m: float
    resolution_m: float
    made: Drawing | Cells

    def find_parts(self, channels: Sequence[str]) -> tuple[str, ...]:
        """Return the channels of its own that channels in the format of the comparison are made of."""
        if self.raster_format == self.own_format:
            return tuple(channels)
        parts = {part for name in channels for part in find_parts(name, self.raster_format)}
        return tuple(name for name in self.known if name in parts)

    def select(self, cells: Cells, channels: Sequence[str]) -> Cells:
        """Return channels of layouts that have `find_parts(channels)`, in the format of the comparison."""
        if self.raster_format == self.own_format:
            return cells
        return select_bands(cells, self.find_parts(channels), channels, self.raster_format)


def select_bands(cells: Cells, known: Sequence[str], channels: Sequence[str], raster_format: int) -> Cells:
    """Return channels of layouts `(N, C, H, W)` of today, as models of a format know them."""
    return select_channels(cells.swapaxes(0, 1), known, channels, raster_format).swapaxes(0, 1)


def open_source(path: str, args: argparse.Namespace) -> Source:
    """Open a checkpoint or a folder of layouts."""
    made: Drawing | Cells
    if (Path(path) / "layouts.npz").is_file():
        if len(args.places or ()) != 1:
            raise SystemExit(f"{path} holds layouts of one place: say which by --places")
        layouts = read_generated(Path(path))
        known, own, resolution_m, made = layouts.channels, layouts.raster_format, layouts.resolution_m, layouts.cells
        extent_m = made.shape[-1] * resolution_m
    else:
        model = load(path)
        spec = model.spec
        known, own, resolution_m, extent_m = spec.channels, spec.raster_format, spec.resolution_m, spec.extent_m
        made = Drawing(model, None, SINGLE, args.batch)
    form = args.format or own
    wanted = [name for name in args.channels or WAYS if form > 1 or name not in PARTS]
    channels = tuple(name for name in wanted if name in known)
    return Source(Path(path).name, known, own, form, channels, extent_m, resolution_m, made)


def average(cells: Cells, resolution_m: float) -> Cells:
    """Average layouts to cells of 8 m."""
    n = round(CELL_M / resolution_m)
    parts = cells.reshape(*cells.shape[:2], cells.shape[2] // n, n, cells.shape[3] // n, n)
    averaged: Cells = np.rint(parts.mean((3, 5), dtype=np.float32)).astype(np.uint8)
    return averaged


def cut(
    raster: CityRaster, which: str, positions: range, source: Source, channels: Sequence[str],
    *, resolution_m: float = CELL_M, raster_format: int | None = None,
) -> Cells:  # fmt: skip
    """Cut real windows that lie at random, always the same ones, out of a place.

    Where channels are put together for a comparison, a part that the source does not know is no part of them.
    """
    split, seed = WHERE[which]
    size = round(source.extent_m / CELL_M)
    allowed = Allowed(raster, split, Rules(size, CELL_M), list_built_channels([raster]))
    words = np.random.default_rng(seed).integers(0, 2**63, size=(positions.stop, 3)).astype(np.uint64)
    rows, columns = allowed.draw(*words[positions.start :].T)
    level, n = raster.level(resolution_m).array, round(CELL_M / resolution_m)
    bands = [i for i, name in enumerate(raster.channels) if source.own_format == 1 or name in source.known]
    windows = [
        level[:, r * n : (r + size) * n, c * n : (c + size) * n][bands]
        for r, c in zip(rows.tolist(), columns.tolist(), strict=True)
    ]
    known = [raster.channels[i] for i in bands]
    return select_bands(np.stack(windows), known, channels, raster_format or source.raster_format)


def ask(spec: LayoutSpec, place: str, windows: Cells, channels: Sequence[str], more: Sequence[str]) -> Conditions:
    """Ask for a place; and for some measures of real windows, or for all if the model does not know the place."""
    measured = measure(windows / np.float32(255), channels, CELL_M)
    names = [name for name in spec.scalars if name in measured and (name in more or place not in spec.places)]
    asked = Conditions.request(spec, len(windows), {name: torch.from_numpy(measured[name]) for name in names})
    if place in spec.places:
        asked.place[:] = spec.places.index(place)
    return asked


@dataclass(frozen=True)
class Judging:
    """What stays the same over sources and places.

    Attributes
    ----------
    out
        Folder of what is kept.
    each
        Layouts of each place.
    searched
        Training windows of each place that are searched for copies.
    more
        Measures that layouts are asked for besides the place.
    attempts
        At each layout.
    service
        Whether service roads belong to the drive network.
    """

    out: Path
    each: int
    searched: int
    more: tuple[str, ...]
    attempts: int
    service: bool

    def keep(self, *depends: object) -> Path:
        """Return a folder that stands for all that decides what it holds."""
        text = json.dumps([__version__, *depends], sort_keys=True, default=str)
        return self.out / "parts" / hashlib.sha256(text.encode()).hexdigest()[:16]

    def draw(self, source: Source, raster: CityRaster, channels: Sequence[str], first_seed: int) -> Cells:
        """Draw the parts of some channels in the model's own cells and format, for a place, batch by batch."""
        drawing, parts = source.made, source.find_parts(channels)
        index = [source.known.index(name) for name in parts]
        if not isinstance(drawing, Drawing):
            return drawing[: self.each, index]
        depends = [drawing.digest(), source.own_format, parts, self.more, self.attempts, first_seed]
        folder = self.keep("drawn", *depends)

        def batch(positions: range) -> dict[str, Cells]:
            windows = cut(raster, REAL, positions, source, parts, raster_format=source.own_format)
            asked = ask(drawing.generator.spec, raster.name, windows, parts, self.more)
            seeds = range(first_seed + positions.start, first_seed + positions.stop)
            return {"layouts": drawing.draw(asked, seeds, self.attempts).cells[:, index]}

        drawn = []
        for start in range(0, self.each, drawing.batch_size):
            positions = range(start, min(start + drawing.batch_size, self.each))
            path = folder / f"{raster.name}_{start:06d}_{len(positions)}.npz"
            drawn.append(keep_arrays(path, partial(batch, positions))["layouts"])
            print(f"{source.name}: {positions.stop} of {self.each} layouts of {raster.name}", flush=True)
        return np.concatenate(drawn)

    def gather(self, name: str, cells: Cells, channels: Sequence[str]) -> Gathered:
        """Measure layouts, and keep what was measured."""
        folder = self.keep(digest(cells), channels, sorted(FORM), sorted(KEY_POINTS), self.service)
        return gather(
            name, len(cells), lambda at: cells[at.start : at.stop], folder, channels=channels, resolution_m=CELL_M,
            service=self.service, measure_one=measure_ways,
        )  # fmt: skip

    def collect(self, source: Source, raster: CityRaster, first_seed: int) -> WaySets:
        """Draw and measure the layouts of a place, and real windows of it."""
        known, _ = list_common_channels([raster], raster_format=source.raster_format)
        channels = tuple(name for name in source.channels if name in known)
        drawn = self.draw(source, raster, channels, first_seed)
        cells = {which: cut(raster, which, range(len(drawn)), source, channels) for which in (REAL, OTHER)}
        cells[DRAWN] = source.select(average(drawn, source.resolution_m), channels)
        measured = {which: self.gather(f"{raster.name}_{which}", part, channels) for which, part in cells.items()}
        searched = []
        for start in range(0, self.searched, PART):
            positions = range(start, min(start + PART, self.searched))
            windows = cut(raster, SEARCHED, positions, source, channels)
            searched.append(coarsen(torch.from_numpy(windows / np.float32(255))))
        return WaySets.of(raster.name, channels, cells, measured, np.concatenate(searched))

    def tell_apart(self, made: Cells, real: Cells) -> float:
        """Return how often it is found out which layouts are real, and keep it."""
        path = self.keep("told apart", digest(made), digest(real)) / "told_apart.npz"
        return float(keep_arrays(path, lambda: {"accuracy": np.array(judge_by_classifier(made, real))})["accuracy"])


def digest(cells: Cells) -> str:
    return hashlib.sha256(np.ascontiguousarray(cells).tobytes()).hexdigest()


def write_number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; the first column to the left, the others to the right."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


Judged = dict[str, dict[str, dict[str, Figure]]]
"""Place → source → its figures by name."""


def compare(judged: Judged) -> str:
    """Return the figures of places and sources side by side, those of layouts with their share of the real ones."""

    def write_drawn(figure: Figure) -> str:
        share = "" if math.isnan(figure.share) else f" ({write_number(figure.share)})"
        return write_number(figure.drawn) + share

    of_places = list(judged.values())
    headings = [f"{place}: {what}" for place, of in judged.items() for what in ("real", "other real", *of)]
    rows = []
    for label in dict.fromkeys(label for of in of_places for figures in of.values() for label in figures):
        row = [label]
        for of in of_places:
            found = [figures.get(label, NOTHING) for figures in of.values()]
            row += [write_number(found[0].real), write_number(found[0].other), *map(write_drawn, found)]
        rows.append(row)
    return table(["", *headings], rows)


def compare_order(groups: Mapping[str, Sequence[WaySets]]) -> str:
    """Return Boeing's table: for each place the real windows, then the layouts of each source."""
    rows = []
    for of_place in zip(*groups.values(), strict=True):
        sets = [("real", of_place[0], REAL), *((name, of, DRAWN) for name, of in zip(groups, of_place, strict=True))]
        found = {name: pool_order(of.samples[which]) for name, of, which in sets}
        if min(order.segments for order in found.values()) >= LEAST_SEGMENTS:
            for name, order in found.items():
                of = [order.order, order.entropy, order.segment_length, order.circuity, order.mean_degree]
                shares = [order.dead_ends, order.four_way]
                label = f"{of_place[0].name}, {name}"
                rows.append([label, str(order.segments), *map(write_number, of + shares)])
    return table(
        ["", "segments", "φ", "H_o", "median segment [m]", "circuity", "degree", "dead ends", "four-way"], rows
    )


def contrast(pair: Sequence[str] | None, groups: Mapping[str, Sequence[WaySets]]) -> list[str]:
    """Return the measures that separate two places best, and how well all of them agree, for each source."""
    if not pair:
        return []
    found = {
        name: contrast_places(*(next(one for one in sets if one.name == place) for place in pair))
        for name, sets in groups.items()
    }
    by_label = [{one.label: one.drawn for one in of} for of in found.values()]
    lines = [
        [f"{one.label} [{one.unit}]", f"{one.real:+.2f}", *(f"{of.get(one.label, math.nan):+.2f}" for of in by_label)]
        for one in next(iter(found.values()))[:CONTRASTS]
    ]
    agreement = [float(np.corrcoef([one.real for one in of], [one.drawn for one in of])[0, 1]) for of in found.values()]
    lines.append(["correlation over all measures", "–", *(f"{value:.2f}" for value in agreement)])
    return [table([f"larger in {pair[1]} than in {pair[0]}", "real", *found], lines)]


def draw_picture(source: Source, rasters: Sequence[CityRaster], judging: Judging, columns: int, path: Path) -> None:
    """Draw the first windows of each place, and below them the first layouts, in the layouts' own cells."""
    rows, titles = [], []
    for i, raster in enumerate(rasters):
        known, _ = list_common_channels([raster], raster_format=source.raster_format)
        mine = tuple(name for name in source.channels if name in known)
        drawn = source.select(judging.draw(source, raster, mine, i * judging.each)[:columns], mine)
        real = cut(raster, REAL, range(len(drawn)), source, mine, resolution_m=source.resolution_m)
        for what, cells in (("real", real), ("drawn", drawn)):
            whole = np.zeros((len(cells), len(source.channels), *cells.shape[2:]), np.uint8)
            whole[:, [source.channels.index(name) for name in mine]] = cells
            rows.append(whole)
            titles += [f"{raster.name.replace('_', ' ')}, {what}", *[""] * (len(cells) - 1)]
    sheet = make_sheet(
        np.concatenate(rows), source.channels, titles=titles, columns=len(rows[0]), resolution_m=source.resolution_m
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(sheet, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", help="checkpoints, and folders of layouts")
    parser.add_argument("--n", type=int, default=1024, help="layouts in all, as many of each place")
    parser.add_argument("--places", nargs="+", help="prepared places; by default those of conf/data/reference.yaml")
    parser.add_argument("--data", type=Path, default=Path("data/cities"), help="folder of prepared places")
    parser.add_argument("--channels", nargs="+", choices=WAYS, help="of ways; by default all that a source knows")
    parser.add_argument("--ask", nargs="+", choices=tuple(MEASURES), default=[], help="asked for besides the place")
    parser.add_argument("--attempts", type=int, default=1, help="at each layout, as `citygrain sample` makes them")
    parser.add_argument("--service", nargs="+", choices=SERVICE, default=SERVICE, help="roads in the drive network")
    parser.add_argument("--format", type=int, choices=(1,), help="compare ways as models of format 1 know them")
    parser.add_argument("--searched", type=int, default=10_000, help="training windows that are searched for copies")
    parser.add_argument("--pair", nargs=2, help="two of the places, to be told apart by their measures")
    parser.add_argument("--least", type=int, default=128, help="windows of a place that has figures of its own")
    parser.add_argument("--batch", type=int, default=32, help="layouts that are drawn at once")
    parser.add_argument("--columns", type=int, default=8, help="of the picture")
    parser.add_argument("--out", type=Path, default=Path("out/plans"))
    parser.add_argument(
        "--picture", type=Path, help="a PNG of real windows and layouts; one for each of several sources"
    )
    args = parser.parse_args()
    if args.pair and not set(args.pair) <= set(args.places or ()):
        parser.error("--pair names two of --places")
    names = args.places or load_config("train", ["experiment=pca", "data=reference"])["data"]["places"]
    rasters = [CityRaster.open(find_place(args.data, name)) for name in names]
    each = math.ceil(args.n / len(rasters))
    searched = math.ceil(args.searched / len(rasters))
    judged: dict[str, Judged] = {}
    groups: dict[str, dict[str, list[WaySets]]] = {}
    for path in args.sources:
        source = open_source(path, args)
        for service in args.service if "service" in source.channels else SERVICE[:1]:
            judging = Judging(args.out, each, searched, tuple(args.ask), args.attempts, service == "with")
            sets = [judging.collect(source, raster, i * each) for i, raster in enumerate(rasters)]
            whole = [WaySets.join("all", sets)] if len(sets) > 1 else []
            network = f"{service} service roads" if source.raster_format > 1 else "service roads are streets"
            network = f"{len(sets[0].cells[DRAWN])} layouts of each place, {network}"
            groups.setdefault(network, {})[source.name] = [*sets, *whole]
            for one in (*(one for one in sets if each >= args.least), *(whole or sets)):
                of = judged.setdefault(network, {}).setdefault(one.name, {})
                of[source.name] = judge_ways(one, judging.tell_apart)
        if args.picture:
            several = len(args.sources) > 1
            name = args.picture.with_stem(f"{args.picture.stem}_{source.name}") if several else args.picture
            draw_picture(source, rasters, judging, args.columns, name)
    text = "\n\n".join(
        "\n\n".join([f"**{name}**", compare(of), compare_order(groups[name]), *contrast(args.pair, groups[name])])
        for name, of in judged.items()
    )
    lines = [
        [name, network, place, label, f.real, f.other, f.drawn, f.share]
        for network, places in judged.items()
        for place, of in places.items()
        for name, figures in of.items()
        for label, f in figures.items()
    ]
    print(text)
    write_text(args.out / "plans.md", text + "\n")
    columns = ["source", "network", "windows", "figure", "real", "other_real", "drawn", "share"]
    write_text(args.out / "plans.csv", pd.DataFrame(lines, columns=columns).to_csv(index=False, float_format="%.6g"))


if __name__ == "__main__":
    main()
