"""Read real windows, for models that are given channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import shapely

from citygrain.data.cityraster import CityRaster
from citygrain.data.dataset import find_place
from citygrain.data.trained_on import TrainedOn
from citygrain.generation.site import find_bearing, locate_site, read_site
from citygrain.geo.rasterize import Grid
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
    at
        Instead of a split: longitude and latitude of the middle of one window, or of an area of any extent.
    """

    place: str | None = None
    split: str = "test"
    at: tuple[float, ...] | None = None


def read_given_windows(
    generator: Trained, n: int, given: Given = Given(), *, place: str | None = None, data: str | Path = "data/cities"
) -> Layouts:
    """Read `n` windows of a prepared place, evenly spread over it. If it has fewer windows, they are repeated in turn.

    Where a point is given, all are the window around it.

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
    if given.at is not None:
        return read_given_area(generator, n, given.at, spec.shape[1:], name, data)
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


def read_given_area(
    generator: Trained, n: int, at: Sequence[float], shape: tuple[int, int], place: str, data: str | Path
) -> Layouts:
    """Read an area of a prepared place around a point, `n` times the same.

    Parameters
    ----------
    generator
        The area has its channels. It lies as windows of the model do: in the frame of its streets, or upright.
    n
        How often the area is returned.
    at
        Longitude and latitude of its middle.
    shape
        Height and width in cells.
    place, data
        The prepared place, and the folder of prepared places.

    Raises
    ------
    ConfigError, DataError
        For numbers that are no point, or an area that does not lie in the place.
    """
    spec, trained_on = generator.spec, TrainedOn.of(generator)
    raster, cell = CityRaster.open(find_place(Path(data), place)), generator.spec.resolution_m
    point = locate_site(raster.crs, at=at, size_m=cell)
    bearing = find_bearing(raster, spec, point) if trained_on.frame == "streets" else 0.0
    height, width = shape
    corner = raster.level(cell).transform
    left = corner.c + round((point.centroid.x - corner.c) / cell - width / 2) * cell
    top = corner.f - round((corner.f - point.centroid.y) / cell - height / 2) * cell
    grid = Grid(raster.crs, left, top, cell, width, height).turned(bearing)
    # A little smaller, so that it ends within the cells at its edges whatever rounding does to their corners.
    outline = shapely.buffer(grid.outline, -cell / 100, join_style="mitre")
    found = read_site(raster, spec, outline, 0.0, bearing=bearing, allow_unknown=trained_on.allow_unknown)
    source = f"{place} around {at[0]:g}, {at[1]:g}"
    return Layouts(
        np.stack([found.layout] * n), spec.channels, cell, (found.grid,) * n, raster_format=spec.raster_format,
        source=source,
    )  # fmt: skip
