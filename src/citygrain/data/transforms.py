"""From the bytes of windows to batches; the 8 symmetries of the square; windows cut out at any angle and extent."""

from __future__ import annotations

from typing import Any, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from citygrain.measures import maps_unchecked, measure_unchecked
from citygrain.spec import Batch, Conditions, LayoutSpec

SYMMETRIES = 8
"""A square looks the same after 4 turns and their mirror images; 0 leaves it as it is."""


class RawBatch(NamedTuple):
    """Windows as they come from disk, and where they come from.

    Attributes
    ----------
    layout
        `(B, C, H, H)` uint8 coverage, 255 = covered: the windows, or the squares around them that they are cut out of.
    place
        `(B,)` int64, index of the place.
    row, col
        `(B,)` int64, first row and column in the place's raster at the resolution of the windows.
    symmetry
        `(B,)` int64, which of the 8 symmetries was applied, see `citygrain.data.transforms.turn`.
    extent
        `(B,)` float32, edge of the window as a share of the edge of `layout`; 1 where that is the window.
    angle
        `(B,)` float32, angle in radians by which the window is turned on `layout`, see `cut_out`.
    noise
        `(B, C, size_px, size_px)` float32, what is added to the coverage; without channels for nothing.
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
"""The symmetry that undoes each: after a transposition, the mirrored axis is the other one."""


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
    """Draw windows from the middle of the squares around them, each with its own extent and angle, true to area.

    Every cell is the mean of a grid of points, which even in the widest window is about as dense as the square's cells,
    so that a thin street is neither lost nor doubled. Between the middles of cells coverage is interpolated.

    Parameters
    ----------
    squares
        `(B, C, H, H)` coverage.
    size_px
        Height and width of a window in cells.
    extent
        `(B,)` edge of each window as a share of its square's.
    angle
        `(B,)` in radians: the window's rows run along (cos, sin) in columns and rows of its square.

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
    return functional.avg_pool2d(drawn, density).clamp_(0, 1)  # weights add up to 1 but for rounding


def to_batch(raw: RawBatch, spec: LayoutSpec) -> Batch:
    """Turn windows into layouts in [0, 1] with all their conditions measured, on whatever device they are.

    Measured is the window as it was cut out, before noise is added to it.

    Parameters
    ----------
    raw
        Windows with the channels of `spec`; places numbered as in `spec`.
    spec
        Which conditions, in which order.

    Returns
    -------
    Batch
        Layouts `(B, C, H, W)` float; conditions in physical units, all present, place included.
    """
    layout = raw.layout.float().div_(255)
    if layout.shape[-1] != spec.size_px:
        layout = cut_out(layout, spec.size_px, raw.extent, raw.angle)
    batch = len(layout)
    conditions = Conditions.empty(spec, batch).to(layout.device)
    scalars = measure_unchecked(layout, spec.channels, spec.resolution_m, spec.scalars)
    for column, name in enumerate(spec.scalars):
        conditions.scalars[:, column] = scalars[name]
    if spec.maps:
        maps = maps_unchecked(layout, spec.channels, spec.map_px, spec.maps)
        conditions.maps = torch.stack([maps[name] for name in spec.maps], 1)
    conditions.present.fill_(True)
    conditions.maps_present.fill_(True)
    conditions.place.copy_(raw.place)
    if raw.noise.numel():
        layout = (layout + raw.noise).clamp_(0, 1)
    return Batch(layout, conditions)
