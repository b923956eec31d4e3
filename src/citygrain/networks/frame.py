"""The frame of a layout: the bearing that most of its streets follow or cross, read off its cells.

A street that runs off the axes is a staircase of cells, which a network has to learn for every angle. With
`data.frame=streets`, windows are turned into the frame of their streets before a network sees them. Then most streets
run along rows and columns. Two conditions say what the turn takes away: `bearing` and `order`.

They are conditions of the frame, and no measures like those of `citygrain.measures`: the bearing of a layout is the
bearing of its grid plus what the cells are off it, and only models of turned windows know the two. All that a model can
be asked for, of both kinds, is found and measured by the functions of this module.

References
----------
Mardia, K. V. & Jupp, P. E. (2000). *Directional Statistics*. Wiley.

Scharr, H. (2000). *Optimale Operatoren in der Digitalen Bildverarbeitung*. Dissertation, Heidelberg.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from citygrain.geo.stroke_code import FRAMED, Frame
from citygrain.measures import MEASURES, Measure, measurable, measure_unchecked, settled

BEARING, ORDER = "bearing", "order"

FRAME: Mapping[str, Measure] = MappingProxyType(
    {
        BEARING: Measure(
            BEARING,
            "bearing of the streets",
            "°",
            "¼ arg Σ |∇s|² e^{4iα}, clockwise from the north of the grid, 0 to 90; s: arterial + street, α: direction "
            "of ∇s",
            "mean direction of angles times four, since streets cross at right angles, Mardia & Jupp (2000)",
            FRAMED,
        ),
        ORDER: Measure(
            ORDER,
            "order of the streets",
            "–",
            "|Σ |∇s|² e^{4iα}| / Σ |∇s|²: near 1 where all streets follow or cross the bearing, 0 where they run in "
            "all directions; less with smaller blocks, since crossings have corners",
            "mean resultant length of angles times four, Mardia & Jupp (2000)",
            FRAMED,
        ),
    }
)
"""Conditions of models of turned windows."""

SCHARR = ((-3.0, 0.0, 3.0), (-10.0, 0.0, 10.0), (-3.0, 0.0, 3.0))
"""Of the 3 × 3 filters for a gradient, the one whose directions are off by least (Scharr 2000)."""

_CACHED_CELLS = 2**17  # on a CPU, temporaries that fit its cache are several times faster than larger ones
_TINY = 1e-8


def find_frames(streets: Tensor, extent: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Find the angle and the order of the streets of windows.

    Only the largest ellipse in a window counts (in a square, a circle), so that a turned window has the same streets.

    Parameters
    ----------
    streets
        `(B, H, W)` coverage by arterials and streets, in [0, 1].
    extent
        `(B,)` edge of each window as a share of the edge of its square, in whose middle it lies; None for all of it.

    Returns
    -------
    angle
        `(B,)` in radians, from −π/4 to π/4: how far the streets are turned clockwise from the rows and columns.
    order
        `(B,)` from 0 to 1; 0 for a window without streets.
    """
    few = max(1, _CACHED_CELLS // max(1, streets.shape[1] * streets.shape[2]))
    if streets.device.type == "cpu" and len(streets) > few:
        starts = range(0, len(streets), few)
        parts = [find_frames(streets[i : i + few], None if extent is None else extent[i : i + few]) for i in starts]
        angles, orders = zip(*parts, strict=True)
        return torch.cat(angles), torch.cat(orders)
    kernel = streets.new_tensor(SCHARR) / 32
    padded = F.pad(streets[:, None], (1, 1, 1, 1), mode="replicate")
    right, down = F.conv2d(padded, torch.stack([kernel, kernel.T])[:, None]).unbind(1)
    # With g = right + i·down, |g|² e^{4iα} is g⁴ / |g|².
    square = right.square() + down.square()
    real, imaginary = right.square() - down.square(), 2 * right * down
    y, x = (torch.linspace(-1 + 1 / n, 1 - 1 / n, n).to(streets) for n in streets.shape[1:])
    reach = 1.0 if extent is None else extent[:, None, None].square()
    weight = (y[:, None].square() + x.square() <= reach) / (square + _TINY)
    cos = (weight * (real.square() - imaginary.square())).sum((1, 2))
    sin = (weight * 2 * real * imaginary).sum((1, 2))
    total = (weight * square.square()).sum((1, 2))
    length = cos.square() + sin.square()
    # The root of the length, with a finite gradient where there are no streets.
    return torch.atan2(sin, cos) / 4, length / (length + _TINY**2).sqrt() / (total + _TINY)


def to_bearing(angle: Tensor) -> Tensor:
    """Return the bearing of an angle in radians, clockwise from north, in degrees from 0 to below 90."""
    return angle.rad2deg().remainder(90).remainder(90)  # a tiny angle below 0 is rounded to 90 the first time


def list_conditions(channels: Sequence[str], frame: Frame = "none") -> tuple[str, ...]:
    """Return the scalar conditions that channels allow, those of the frame last."""
    framed = [name for name, of in FRAME.items() if set(of.channels) <= set(channels)]
    return (*measurable(channels), *(framed if frame == "streets" else ()))


def find_condition(name: str) -> Measure:
    """Return what a condition is: its label, unit, formula and channels."""
    return FRAME.get(name) or MEASURES[name]


def is_settled(name: str, given: Sequence[str]) -> bool:
    """Whether what is drawn changes nothing of a condition: given channels say all of it, or the grid does."""
    return name == BEARING or (set(FRAMED) <= set(given) if name == ORDER else settled(name, given))


def list_drawn(names: Sequence[str]) -> list[str]:
    """Return the conditions that depend on what is drawn, and not only on where it lies."""
    return [name for name in names if name != BEARING]


def measure_conditions(
    layout: Tensor, channels: Sequence[str], resolution_m: float, names: Sequence[str]
) -> dict[str, Tensor]:
    """Measure the conditions `names` of layouts `(B, C, H, W)` that are known to be sound (bytes over 255).

    Returns
    -------
    dict
        Condition → `(B,)` in its unit. The bearing is counted from the top of the layout, from −45 to 45 degrees; where
        the layout lies turned, the bearing of its grid is to be added.
    """
    plain = [name for name in names if name not in FRAME]
    values = measure_unchecked(layout, channels, resolution_m, plain)
    if len(plain) < len(names):
        streets = layout[:, [channels.index(name) for name in FRAMED]].sum(1).clamp(max=1)
        angle, order = find_frames(streets)
        values |= {BEARING: angle.rad2deg(), ORDER: order}
    return {name: values[name] for name in names}
