"""From the bytes of windows to batches: the 8 symmetries, windows cut out at any angle, measured conditions."""

from __future__ import annotations

from typing import Any, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from citygrain.measures import maps_unchecked
from citygrain.networks.frame import BEARING, measure_conditions, to_bearing
from citygrain.spec import Batch, Conditions, LayoutSpec

SYMMETRIES = 8
"""A square looks the same after 4 turns and their mirror images; 0 leaves it as it is."""


class RawBatch(NamedTuple):
    """Windows as they are read from disk, and where they lie.

    Attributes
    ----------
    layout
        `(B, C, H, H)` uint8 coverage, 255 = covered: the windows, or the squares that they are cut out of.
    place
        `(B,)` int64, index of the place.
    row, col
        `(B,)` int64, first row and column in the place's raster at the resolution of the windows.
    symmetry
        `(B,)` int64, which of the 8 symmetries was applied, see `turn`.
    extent
        `(B,)` float32, edge of the window as a share of the edge of `layout`; 1 where that is the window.
    angle
        `(B,)` float32, angle in radians by which the window is turned in `layout`, see `cut_out`. In the frame of its
        streets, it is their bearing.
    noise
        `(B, C, size_px, size_px)` float32, what is added to the coverage; C is 0 where nothing is added.
    """

    layout: Tensor
    place: Tensor
    row: Tensor
    col: Tensor
    symmetry: Tensor
    extent: Tensor
    angle: Tensor
    noise: Tensor


INVERSE = (0, 1, 2, 3, 4, 6, 5, 7)
"""The symmetry that undoes each one: 5 and 6 undo each other, since a transposition swaps the mirrored axes."""


@overload
def turn(layouts: Tensor, symmetry: int) -> Tensor: ...
@overload
def turn(layouts: NDArray[Any], symmetry: int) -> NDArray[Any]: ...


def turn(layouts: Tensor | NDArray[Any], symmetry: int) -> Tensor | NDArray[Any]:
    """Apply one of the 8 symmetries to `(…, H, H)`: bit 4 transposes, then bit 2 mirrors rows, bit 1 columns.

    An array comes back as a view.
    """
    if symmetry & 4:
        layouts = layouts.swapaxes(-2, -1)
    axes = tuple(axis for bit, axis in ((2, -2), (1, -1)) if symmetry & bit)
    if not axes:
        return layouts
    return layouts.flip(axes) if isinstance(layouts, Tensor) else np.flip(layouts, axes)


def cut_out(squares: Tensor, size_px: int, extent: Tensor, angle: Tensor) -> Tensor:
    """Cut windows out of the middle of squares, each with its own extent and angle; areas are kept.

    A cell of a window is the mean of a grid of points in the square. Even in the widest window the points lie about as
    dense as the square's cells, so that no thin street is lost or counted twice. Between the middles of cells, coverage
    is interpolated.

    Parameters
    ----------
    squares
        `(B, C, H, H)` coverage.
    size_px
        Height and width of a window in cells.
    extent
        `(B,)` edge of each window as a share of the edge of its square.
    angle
        `(B,)` in radians: a window's rows run along (cos, sin), counted in columns and rows of its square.

    Returns
    -------
    Tensor
        `(B, C, size_px, size_px)`.
    """
    density = round(squares.shape[-1] / size_px)
    cos, sin, shift = extent * angle.cos(), extent * angle.sin(), torch.zeros_like(extent)
    onto_square = torch.stack([cos, -sin, shift, sin, cos, shift], -1).reshape(-1, 2, 3)
    shape = [*squares.shape[:2], density * size_px, density * size_px]
    points = functional.affine_grid(onto_square, shape, align_corners=False)
    drawn = functional.grid_sample(squares, points, align_corners=False)
    return functional.avg_pool2d(drawn, density).clamp_(0, 1)  # rounding may lead just beyond 0 and 1


def cut_windows(raw: RawBatch, size_px: int) -> Tensor:
    """Return the windows of a raw batch without noise, `(B, C, size_px, size_px)` in [0, 1]."""
    layout = raw.layout.float().div_(255)
    return layout if layout.shape[-1] == size_px else cut_out(layout, size_px, raw.extent, raw.angle)


def to_batch(raw: RawBatch, spec: LayoutSpec, known: Tensor | None = None) -> Batch:
    """Turn windows into layouts in [0, 1] and measure all their conditions, on the device where the windows are.

    Conditions are measured on the window as it was cut out, before noise is added.

    Parameters
    ----------
    raw
        Windows with the channels of `spec`; their places are numbered as in `spec`.
    spec
        Says which conditions are measured, in which order.
    known
        `(P, S)` bool: which scalars are known in each place of the spec; None for all.

    Returns
    -------
    Batch
        Layouts `(B, C, H, W)` float; conditions in physical units, all that are known present, place included.
    """
    layout = cut_windows(raw, spec.size_px)
    batch = len(layout)
    conditions = Conditions.empty(spec, batch).to(layout.device)
    scalars = measure_conditions(layout, spec.channels, spec.resolution_m, spec.scalars)
    if BEARING in scalars:  # of the frame that the window lies in, exactly
        scalars[BEARING] = to_bearing(raw.angle)
    for column, name in enumerate(spec.scalars):
        conditions.scalars[:, column] = scalars[name]
    conditions.maps = measure_condition_maps(layout, spec)
    conditions.present.copy_(torch.tensor(True) if known is None else known.to(raw.place.device)[raw.place])
    conditions.maps_present.fill_(True)
    conditions.place.copy_(raw.place)
    if raw.noise.numel():
        layout = (layout + raw.noise).clamp_(0, 1)
    return Batch(layout, conditions)


def measure_condition_maps(layout: Tensor, spec: LayoutSpec) -> Tensor:
    """Measure layouts `(B, C, H, W)` of the channels of a spec as its condition maps, `(B, M, map_px, map_px)`.

    So the densities that one model has drawn become the request of another: `Conditions.maps` of the other model, in
    the unit of each map.
    """
    if not spec.maps:
        return layout.new_zeros(len(layout), 0, 0, 0)
    maps = maps_unchecked(layout, spec.channels, spec.map_px, spec.maps)
    return torch.stack([maps[name] for name in spec.maps], 1)
