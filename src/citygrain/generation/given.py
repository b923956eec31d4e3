"""Read real windows, for models that are given channels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from citygrain.data.trained_on import TrainedOn
from citygrain.layouts import Layouts
from citygrain.protocols import Trained


@dataclass(frozen=True)
class Given:
    """Which windows of a prepared place the given channels are taken from.

    Parameters
    ----------
    place
        A prepared place; by default the place that layouts are asked to resemble, or else the first training place.
    split
        `test`, `val` or `train`.
    """

    place: str | None = None
    split: str = "test"


def read_given_windows(
    generator: Trained, n: int, given: Given = Given(), *, place: str | None = None, data: str | Path = "data/cities"
) -> Layouts:
    """Read `n` windows of a prepared place, evenly spread over it. If it has fewer windows, they are repeated in turn.

    Parameters
    ----------
    generator
        The windows have its channels, its size and its rules.
    n
        How many windows are read.
    given
        Where they are taken from.
    place
        The place that layouts are asked to resemble.
    data
        Folder of prepared places.

    Returns
    -------
    Layouts
        All channels of the windows, with the grid of each.

    Raises
    ------
    DataError
        When the place is not prepared, lacks a channel, or has no window in the split.
    """
    spec = generator.spec
    name = given.place or place or spec.places[0]
    windows = TrainedOn.of(generator).windows(given.split, data, [name], limit=n, seed=0)
    raster = windows.rasters[0]
    index = [i % len(windows) for i in range(n)] if given.split != "train" else list(range(n))
    raw = windows.__getitems__(index)
    size, cell, corner = spec.size_px, spec.resolution_m, raster.grid
    edge = (windows.reach - size) / 2  # a turned window lies in the middle of a square
    where = zip(raw.row.tolist(), raw.col.tolist(), raw.angle.rad2deg().tolist(), strict=True)
    grids = tuple(
        replace(
            corner, left=corner.left + (column + edge) * cell, top=corner.top - (row + edge) * cell, resolution_m=cell,
            width=size, height=size,
        ).turned(bearing)
        for row, column, bearing in where
    )  # fmt: skip
    cells = windows.read_cells(index)
    source = f"{given.split} windows of {name}"
    return Layouts(cells, spec.channels, cell, grids, raster_format=spec.raster_format, source=source)
