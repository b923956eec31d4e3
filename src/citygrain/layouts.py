"""Layouts in your hand: their cells, where they lie, what was asked for and what was measured."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from citygrain.errors import ConditionError
from citygrain.geo.layout_files import write_geotiff
from citygrain.geo.rasterize import Grid
from citygrain.measures import MEASURES
from citygrain.plot import sheet
from citygrain.spec import LayoutSpec
from citygrain.support.files import atomic_path, write_text

COLUMNS = 8
"""Layouts that stand in a row of a sheet at most."""


@dataclass(frozen=True)
class Samples:
    """Layouts and what they were asked to be.

    Attributes
    ----------
    layouts
        `(N, C, H, W)` float32 in [0, 1].
    requested
        Condition to `(N,)` in its unit, for what was asked for.
    measured
        Condition to `(N,)` in its unit, measured on the layouts, for all that can be measured on them.
    seeds
        The seed of each.
    spec
        Channels, size and resolution.
    """

    layouts: NDArray[np.float32]
    requested: dict[str, NDArray[np.float64]]
    measured: dict[str, NDArray[np.float64]]
    seeds: tuple[int, ...]
    spec: LayoutSpec


def columns_of(asked: Mapping[str, Any], n: int) -> int:
    """Return how many layouts stand in a row of the sheet: the levels of the last list, or one level's layouts."""
    levels = [value for value in asked.values() if isinstance(value, list | tuple)]
    return len(levels[-1]) if levels and n == 1 else min(COLUMNS, n)


def write(samples: Samples, out: Path, grids: Sequence[Grid], columns: int = COLUMNS) -> None:
    """Write `sheet.png`, `layouts.npz`, `measured.csv` and one GeoTIFF a layout; each file whole or not at all.

    Parameters
    ----------
    samples
        What to write.
    out
        The folder; it is made where it is missing.
    grids
        Where each lies.
    columns
        How many stand in a row of the sheet.
    """
    spec = samples.spec
    layouts = (samples.layouts * 255).round().astype(np.uint8)
    for stale in sorted((out / "layouts").glob("layout_*.tif"))[len(layouts) :]:
        stale.unlink()  # of a larger sample that this one replaces
    for i, (grid, layout) in enumerate(zip(grids, layouts, strict=True)):
        with atomic_path(out / "layouts" / f"layout_{i:04d}.tif") as temporary:
            write_geotiff(temporary, layout, spec.channels, grid)
    with atomic_path(out / "layouts.npz") as temporary:
        arrays: dict[str, Any] = {f"requested_{k}": v for k, v in samples.requested.items()}
        arrays |= {f"measured_{k}": v for k, v in samples.measured.items()}
        np.savez_compressed(
            temporary,
            layouts=layouts,
            channels=spec.channels,
            resolution_m=spec.resolution_m,
            raster_format=spec.raster_format,
            seeds=samples.seeds,
            **arrays,
        )
    rows = io.StringIO()
    measured = list(samples.measured)
    requested = list(samples.requested)
    writer_ = csv.writer(rows)
    writer_.writerow(["layout", "seed", *(f"requested_{k}" for k in requested), *(f"measured_{k}" for k in measured)])
    for i, seed in enumerate(samples.seeds):
        values = [samples.requested[k][i] for k in requested] + [samples.measured[k][i] for k in measured]
        writer_.writerow([f"layout_{i:04d}", seed, *(f"{v:.6g}" for v in values)])
    write_text(out / "measured.csv", rows.getvalue())
    titles = [_title(samples, i) for i in range(len(layouts))]
    sheet(
        layouts,
        spec.channels,
        out / "sheet.png",
        titles=titles,
        columns=min(columns, len(layouts)),
        resolution_m=spec.resolution_m,
    )


def _title(samples: Samples, i: int) -> str:
    parts = [f"{k} {samples.requested[k][i]:.3g} → {samples.measured[k][i]:.3g}" for k in samples.requested]
    return "\n".join(parts[:3]) if parts else f"seed {samples.seeds[i]}"


def table(samples: Samples) -> Table:
    """Requested against measured over all layouts, one row a condition."""
    if not samples.measured:
        raise ConditionError("Nothing can be measured on these layouts.", got=samples.spec.channels)
    shown = Table(title=f"{len(samples.layouts)} layouts: requested and measured")
    for heading in ("condition", "unit", "requested", "measured", "10th to 90th percentile", "mean error"):
        shown.add_column(heading, justify="left" if heading in {"condition", "unit"} else "right")
    for name, values in samples.measured.items():
        asked = samples.requested.get(name)
        low, high = np.percentile(values, [10, 90])
        shown.add_row(
            name,
            MEASURES[name].unit,
            "" if asked is None else f"{np.nanmean(asked):.4g}",
            f"{values.mean():.4g}",
            f"{low:.4g} – {high:.4g}",
            "" if asked is None else f"{np.nanmean(np.abs(values - asked)):.4g}",
            style=None if asked is None else "bold",
        )
    return shown
