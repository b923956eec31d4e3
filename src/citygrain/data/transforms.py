"""From the bytes of windows to batches, and the 8 symmetries of the square."""

from __future__ import annotations

from typing import Any, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from citygrain.conditions import maps_unchecked, measure_unchecked
from citygrain.spec import Batch, Conditions, LayoutSpec

SYMMETRIES = 8
"""A square looks the same after 4 turns and their mirror images; 0 leaves it as it is."""


class RawBatch(NamedTuple):
    """Windows as they come from disk, and where they come from.

    Attributes
    ----------
    layout
        `(B, C, H, W)` uint8 coverage, 255 = covered.
    place
        `(B,)` int64, index of the place.
    row, col
        `(B,)` int64, first row and column in the place's raster at the resolution of the windows.
    symmetry
        `(B,)` int64, which of the 8 symmetries was applied, see `citygrain.data.transforms.turn`.
    """

    layout: Tensor
    place: Tensor
    row: Tensor
    col: Tensor
    symmetry: Tensor


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


def to_batch(raw: RawBatch, spec: LayoutSpec) -> Batch:
    """Turn windows into layouts in [0, 1] with all their conditions measured, on whatever device they are.

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
    return Batch(layout, conditions)
