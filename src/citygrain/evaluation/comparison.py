"""Places compared, real or generated: the windows of all are measured by the same code."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import rich
from numpy.typing import NDArray

from citygrain.data.cityraster import CityRaster
from citygrain.data.dataset import CityWindows, find_place
from citygrain.data.rules import MIN_BUILT, MIN_VALID, Rules, list_built_channels, list_common_channels
from citygrain.errors import ConfigError, DataError
from citygrain.evaluation.comparison_pictures import draw_pictures
from citygrain.evaluation.form import FORM, Form
from citygrain.evaluation.gather import PART, Cells, Gathered, gather, start_processes
from citygrain.evaluation.separation import ComparedPlace, Comparison, Least, pool_orientation, rank_measures
from citygrain.evaluation.view import convert_layouts
from citygrain.geo.layers import CHANNEL_NAMES, PARTS, RASTER_FORMAT, list_earlier_channels
from citygrain.geo.split import WHOLE
from citygrain.layouts import ARRAYS, Layouts
from citygrain.measures import MEASURES, measure

EARLIER = (
    "An earlier model drew layouts. As it knows them, service roads are streets and squares are footways, in all that "
    "is compared."
)


def compare(
    places: Sequence[str],
    *,
    generated: Sequence[str | Path] | Mapping[str, Layouts] = (),
    n: int = 256,
    window_m: float = 512.0,
    resolution_m: float | None = None,
    min_valid: float = MIN_VALID,
    min_built: float = MIN_BUILT,
    service: bool = False,
    workers: int | None = None,
    out: str | Path = "out/comparison",
    data: str | Path = "data/cities",
) -> Comparison:
    """Compare places, and generated layouts with them, and write the report; go on where it was broken off.

    Parameters
    ----------
    places
        Prepared places, by name or folder.
    generated
        Folders that `citygrain sample` wrote, each a place of its own; or name → layouts.
    n
        Windows of each place, evenly spread over all of it.
    window_m
        Their edge in metres; generated layouts, where there are any, set it.
    resolution_m
        Edge of a cell; None for the finest that all places have, or for that of generated layouts. Generated layouts of
        smaller cells are averaged to it.
    min_valid
        Share of a window that has data.
    min_built
        Share of a window that is building or street: no empty sea, no bare fields.
    service
        Whether service roads belong to the drive network, which the literature measures without them.
    workers
        Processes that measure urban form; None for one a core. A script that starts several has to call this below
        `if __name__ == "__main__":`.
    out
        Folder of `report.html`, `report.json`, `measures.csv`, the pictures, and the parts that a repeated comparison
        takes up.
    data
        Folder of all prepared places.

    Raises
    ------
    DataError
        When a place is not prepared, has no windows, or layouts are not those of `citygrain sample`.
    ConfigError
        For fewer than two places in all, or windows that do not fit.
    """
    names = [Path(place).name for place in (*places, *generated)]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ConfigError(
            "There is nothing to compare.",
            expected="two places or more, each with a name of its own",
            got=", ".join(names),
        )
    made = (
        {Path(name).name: layouts for name, layouts in generated.items()}
        if isinstance(generated, Mapping)
        else {Path(folder).name: read_generated(Path(folder)) for folder in generated}
    )
    rasters = [CityRaster.open(find_place(Path(data), place)) for place in places]
    raster_format = _choose_format([layouts.raster_format for layouts in made.values()])
    made = {name: _convert(layouts, resolution_m, raster_format) for name, layouts in made.items()}
    resolution_m, size_px = _choose_windows(window_m, resolution_m, rasters, made)
    built = list_built_channels(rasters)
    rules = Rules(size_px, resolution_m, min_valid, min_built)
    out = Path(out)
    with start_processes(workers or os.cpu_count() or 1) as mapped:
        measuring = Measuring(out / "parts", resolution_m, service, mapped)
        compared = [_measure_place(raster, measuring, rules, n, built, raster_format) for raster in rasters]
        compared += [_measure_layouts(name, layouts, measuring) for name, layouts in made.items()]
    comparison = Comparison(
        places=tuple(place.name for place in compared),
        generated=tuple(made),
        n={place.name: len(place.windows) for place in compared},
        missing={place.name: dict(place.missing) for place in compared if place.missing},
        resolution_m=resolution_m,
        window_m=size_px * resolution_m,
        orientation=pool_orientation(compared),
        measures=rank_measures(compared, resolution_m),
        note="" if raster_format == RASTER_FORMAT else EARLIER,
        least=Least(min_valid, min_built if built else 0.0, tuple(built)),
        folder=out,
    )
    draw_pictures(comparison, compared, out)
    comparison.write(out)
    return comparison


@dataclass(frozen=True)
class Measuring:
    """How the form of windows is measured, and where it is kept.

    Attributes
    ----------
    parts
        Folder of the parts.
    resolution_m
        Edge of a cell.
    service
        Whether service roads belong to the drive network.
    mapped
        A `map`, such as `start_processes` hands out.
    """

    parts: Path
    resolution_m: float
    service: bool
    mapped: Callable[..., Iterator[Form]]

    def gather(
        self, name: str, count: int, cells_of: Callable[[range], Cells], channels: Sequence[str], made_by: object
    ) -> Gathered:
        """Gather windows, whose parts lie in a folder that stands for all that decides what they hold."""
        depends = json.dumps([made_by, sorted(FORM), self.service], sort_keys=True, default=str)
        folder = self.parts / hashlib.sha256(depends.encode()).hexdigest()[:16]
        return gather(
            name, count, cells_of, folder, channels=channels, resolution_m=self.resolution_m, mapped=self.mapped,
            service=self.service,
        )  # fmt: skip


def _measure_place(
    raster: CityRaster, measuring: Measuring, rules: Rules, n: int, built: Sequence[str], raster_format: int
) -> ComparedPlace:
    """Measure `n` windows of a place, and the people flow all over it."""
    channels, _ = list_common_channels([raster], raster_format=raster_format)
    windows = CityWindows([raster], WHOLE, rules, channels=channels, limit=n, built=built, raster_format=raster_format)
    made_by = [dict(raster.provenance), vars(rules), n, built, raster_format]
    found = measuring.gather(raster.name, len(windows), partial(_cells, windows), channels, made_by)
    missing = {
        name: raster.unknown.get(name, "no such channel")
        for name in CHANNEL_NAMES
        if name not in channels and not (raster_format == 1 and name in PARTS)
    }
    flow = _measure_flow(raster, channels, rules.size_px * rules.resolution_m, raster_format)
    return ComparedPlace(raster.name, channels, missing, found, flow)


def _measure_layouts(name: str, layouts: Layouts, measuring: Measuring) -> ComparedPlace:
    made_by = [hashlib.sha256(layouts.cells.tobytes()).hexdigest()]
    found = measuring.gather(name, len(layouts), partial(_part, layouts.cells), layouts.channels, made_by)
    return ComparedPlace(name, layouts.channels, {}, found)


def _choose_format(formats: Sequence[int]) -> int:
    """Return the format in which all is compared: the earliest of the generated layouts."""
    raster_format = min(formats, default=RASTER_FORMAT)
    if raster_format < RASTER_FORMAT:
        rich.print(f"[yellow]format {raster_format}:[/] {EARLIER}")
    return raster_format


def _convert(layouts: Layouts, resolution_m: float | None, raster_format: int) -> Layouts:
    """Return generated layouts in the cells and in the channels in which they are compared."""
    same = layouts.raster_format == raster_format
    channels = layouts.channels if same else list_earlier_channels(layouts.channels, raster_format)
    return convert_layouts(layouts, resolution_m or layouts.resolution_m, channels, raster_format)


def _choose_windows(
    window_m: float, resolution_m: float | None, rasters: Sequence[CityRaster], made: Mapping[str, Layouts]
) -> tuple[float, int]:
    """Return resolution and size in cells of all windows: those of generated layouts, or as asked for.

    Raises
    ------
    ConfigError
        When generated layouts differ in them.
    """
    sizes = {(layouts.resolution_m, layouts.cells.shape[-1]) for layouts in made.values()}
    if len(sizes) > 1:
        cells = {cell for cell, _ in sizes}
        raise ConfigError(
            "Generated layouts of several sizes cannot be compared.",
            expected="layouts of one extent, in cells of one size",
            got=", ".join(f"{size_px} × {size_px} cells of {cell:g} m" for cell, size_px in sorted(sizes)),
            remedy=f"average the finer ones: resolution_m={max(cells):g}" if len(cells) > 1 else None,
        )
    if sizes:
        return sizes.pop()
    cell = float(resolution_m or max(min(raster.resolutions) for raster in rasters))
    return cell, round(window_m / cell)


def _cells(windows: CityWindows, positions: range) -> Cells:
    return windows.__getitems__(positions).layout.numpy()


def _part(cells: Cells, positions: range) -> Cells:
    return cells[positions.start : positions.stop]


def _measure_flow(
    raster: CityRaster, channels: Sequence[str], window_m: float, raster_format: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Measure people flow all over a place, at its coarsest resolution; None where it is not known."""
    if not set(MEASURES["people_flow"].channels) <= set(channels):
        return None
    cell = max(raster.resolutions)
    rules = Rules(round(window_m / cell), cell, min_built=0.0)
    windows = CityWindows([raster], WHOLE, rules, channels=channels, raster_format=raster_format)
    _, row, column, _ = windows.locate(range(len(windows)))
    half = rules.size_px / 2
    middles = np.stack([raster.grid.left + (column + half) * cell, raster.grid.top - (row + half) * cell], 1)
    parts = [
        measure(np.divide(_cells(windows, range(i, min(i + PART, len(windows)))), 255), channels, cell)["people_flow"]
        for i in range(0, len(windows), PART)
    ]
    return middles, np.concatenate(parts).astype(float)


def read_generated(folder: Path) -> Layouts:
    """Read the layouts that `citygrain sample` wrote."""
    try:
        with np.load(folder / ARRAYS) as file:
            return Layouts(
                file["layouts"],
                tuple(map(str, file["channels"])),
                float(file["resolution_m"]),
                raster_format=int(file["raster_format"]) if "raster_format" in file else 1,
            )
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise DataError(
            f"{folder} holds no generated layouts.",
            expected="a folder that `citygrain sample` wrote, with layouts.npz",
            got=error,
        ) from error
