"""`measure`: the one definition of every condition, its unit, its formula and its source.

The same function labels training windows, says what may be asked of a generator, and re-measures what was generated.

Three kinds of measures, for a layout of `H × W` cells of edge *r* metres, *sₖ* being the mean share of channel *k*:

- **Linear** in the shares: `Σ weightₖ sₖ`. Network channels are drawn with one width *w* each
  (`citygrain.geo.layers.WIDTHS`), so the length density is `s / w × 1000` km/km². Averaging cells 2 m → 4 m → 8 m
  leaves them as they are, and they are what a condition map can hold.
- **Ratios** of linear ones (the modal shares).
- **Spatial** ones, which look at where things are: `frontage` and `people_flow`.

A layout that gives a ratio nothing to divide by (no network, no building edge, no walkable cell) measures 0. All of it
is differentiable almost everywhere, with finite gradients everywhere, and none of it depends on how the window is
turned or mirrored.

References
----------
Alexander, C. et al. (1977). *A Pattern Language*. Patterns 100 Pedestrian Street, 122 Building Fronts, 22 Nine Per
Cent Parking, 60 Accessible Green, 61 Small Public Squares, 64 Pools and Streams, 56 Bike Paths and Racks.

Berghauser Pont, M. & Haupt, P. (2010). *Spacematrix: Space, Density and Urban Form*. Ground space index, network
density.

Hansen, W. G. (1959). How Accessibility Shapes Land Use. *Journal of the American Institute of Planners* 25(2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from citygrain.errors import ConditionError, DataError
from citygrain.geo.layers import WIDTHS

FRONTAGE_REACH_M = 10.0
"""A public way within this distance of a building's edge makes it frontage."""

DECAY_M = 200.0
"""Distance over which accessibility falls to 1/e: about two and a half minutes on foot."""

REACH_CELL_M = 32.0
"""Accessibility is summed over cells of at most this edge, whatever the resolution of the layout."""

TOLERANCE = 1e-4
"""How far outside [0, 1] rounding may carry a value before it is an error."""

_TINY = 1e-6
_CACHED_CELLS = 2**17  # on a CPU, temporaries that fit its cache are several times faster than larger ones
_PUBLIC_WAYS = ("arterial", "street", "walk")
_WALKABLE = ("street", "walk")
_SQUARES = ("square",)
_MODES = {"car": ("arterial", "street"), "cycle": ("cycle",), "walk": ("walk",), "rail": ("rail",)}


@dataclass(frozen=True)
class Measure:
    """One condition: what it is called, what it means, where it comes from.

    Parameters
    ----------
    name
        The key in `measure`'s answer and in configurations.
    label
        For axes and tables.
    unit
        `"–"` for pure numbers.
    formula
        In terms of the mean shares *s* of the channels.
    source
        Where the measure comes from.
    channels
        The channels it needs; it is absent where one of them is unknown.
    weights
        Weight of each channel's mean share, for linear measures and the numerator of ratios; empty for spatial ones.
    per
        The same for the denominator of ratios; empty for the others.
    of
        For spatial measures: values `(B,)` of layouts `{channel: (B, H, W)}` at a resolution in metres.
    also
        Channels that a spatial measure looks at as well where they are known.
    """

    name: str
    label: str
    unit: str
    formula: str
    source: str
    channels: tuple[str, ...]
    weights: Mapping[str, float] = field(default_factory=dict)
    per: Mapping[str, float] = field(default_factory=dict)
    of: Callable[[Mapping[str, Tensor], float], Tensor] | None = None
    also: tuple[str, ...] = ()

    @property
    def linear(self) -> bool:
        """Whether it is linear in the shares, hence additive over areas and fit for a condition map."""
        return bool(self.weights) and not self.per


def _frontage(layout: Mapping[str, Tensor], resolution_m: float) -> Tensor:
    """Share of building edge with public way within `FRONTAGE_REACH_M`.

    Building edge is the gradient of coverage at the corners between cells; its integral is the perimeter. A cell is
    within reach of a corner when its nearest point is, and is public way in full from half of what the narrowest way (a
    footway) covers of a cell that it crosses: a way that straddles two cells is still a way. Edge nearer to the
    window's border than the reach is left out, since what faces it is not seen.
    """
    b = layout["building"]
    way = sum((layout[name] for name in (*_PUBLIC_WAYS, *_SQUARES) if name in layout), torch.zeros_like(b))
    near = _greatest_within((way / min(1.0, WIDTHS["walk"] / 2 / resolution_m)).clamp(max=1), resolution_m)
    if near.numel() == 0:  # smaller than the reach
        return b.new_zeros(len(b))
    right = b[:, :, 1:] - b[:, :, :-1]
    down = b[:, 1:] - b[:, :-1]
    right, down = (right[:, 1:] + right[:, :-1]) / 2, (down[:, :, 1:] + down[:, :, :-1]) / 2
    square = right.square() + down.square()
    edge = square / (square + 1e-8).sqrt()  # the root, with a finite gradient where nothing changes
    far = (edge.shape[1] - near.shape[1]) // 2
    edge = edge[:, far : far + near.shape[1], far : far + near.shape[2]]
    return (edge * near).sum((1, 2)) / (edge.sum((1, 2)) + _TINY)


def _greatest_within(values: Tensor, resolution_m: float) -> Tensor:
    """Greatest of `(B, H, W)` within `FRONTAGE_REACH_M` of each corner of cells that is as far from the border.

    The disc is the union over its rows of runs of cells that grow towards its middle, hence one pass outside in.
    """
    reach = FRONTAGE_REACH_M / resolution_m
    far = int(reach)
    height, width = (max(0, n - 1 - 2 * far) for n in values.shape[1:])

    def rows(x: Tensor, first: int) -> Tensor:
        return x[:, first : first + height]

    def columns(first: int) -> Tensor:
        return values[:, :, first : first + width]

    half = 0
    run = torch.maximum(columns(far), columns(far + 1))
    greatest = torch.zeros_like(rows(run, 0))
    for row in range(far, -1, -1):
        while half < int(math.sqrt(reach**2 - row**2) + 1e-9):
            half += 1
            run = torch.maximum(run, torch.maximum(columns(far - half), columns(far + 1 + half)))
        greatest = torch.maximum(greatest, torch.maximum(rows(run, far - row), rows(run, far + 1 + row)))
    return greatest


def _people_flow(layout: Mapping[str, Tensor], resolution_m: float) -> Tensor:
    """Built mass within reach of the mean walkable cell, in hectares of footprint.

    `2πL² · Σᵢ wᵢ Aᵢ / Σᵢ wᵢ` with `Aᵢ = Σⱼ exp(−dᵢⱼ / L) bⱼ / Σⱼ exp(−dᵢⱼ / L)`, `L = DECAY_M`. `2πL²` is the
    kernel's integral over the plane: beyond the window's edge the city is taken to be as it is within reach inside.
    """
    built = layout["building"]
    walkable = sum((layout[name] for name in (*_WALKABLE, *_SQUARES) if name in layout), torch.zeros_like(built))
    factor = _pooling(built.shape[-2:], resolution_m)
    if factor > 1:
        built, walkable = (functional.avg_pool2d(x.unsqueeze(1), factor).squeeze(1) for x in (built, walkable))
    if built.dtype in {torch.float16, torch.bfloat16}:
        built, walkable = built.float(), walkable.float()
    height, width = built.shape[-2:]
    spectrum, inside = _kernel(height, width, resolution_m * factor, built.dtype, built.device)
    padded = (2 * height, 2 * width)
    reached = torch.fft.irfft2(torch.fft.rfft2(built, s=padded) * spectrum, s=padded)[:, :height, :width] / inside
    mean = (walkable * reached).sum((1, 2)) / (walkable.sum((1, 2)) + _TINY)
    return (mean * (2 * math.pi * DECAY_M**2 / 1e4)).to(layout["building"].dtype)


def _pooling(shape: Sequence[int], resolution_m: float) -> int:
    """Largest number of cells that divides both edges and stays within `REACH_CELL_M`."""
    common = math.gcd(*shape)
    limit = max(1, int(REACH_CELL_M / resolution_m + 1e-9))
    return max(n for n in range(1, min(limit, common) + 1) if common % n == 0)


@lru_cache(maxsize=32)
def _kernel(height: int, width: int, cell_m: float, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Spectrum of `exp(−d/L)` on the doubled grid, and its sum over the cells of the window, `(height, width)`.

    The distance between two cells is the root mean square distance between their points, hence not 0 to itself.
    """
    with torch.inference_mode(mode=False), torch.no_grad():  # what is kept must serve training too
        down = torch.fft.fftfreq(2 * height, 1 / (2 * height * cell_m), dtype=torch.float64)
        right = torch.fft.fftfreq(2 * width, 1 / (2 * width * cell_m), dtype=torch.float64)
        distance = (down[:, None] ** 2 + right**2 + cell_m**2 / 3).sqrt()
        spectrum = torch.fft.rfft2(torch.exp(-distance / DECAY_M)).real
        ones = torch.fft.rfft2(torch.ones(height, width, dtype=torch.float64), s=(2 * height, 2 * width))
        inside = torch.fft.irfft2(ones * spectrum, s=(2 * height, 2 * width))[:height, :width]
        return spectrum.to(device, dtype), inside.to(device, dtype)


def _length(name: str) -> float:
    """Kilometres per square kilometre of a network channel that covers everything."""
    return 1000 / WIDTHS[name]


def _area(name: str, channel: str, label: str, source: str) -> Measure:
    return Measure(name, label, "–", f"s({channel})", source, (channel,), {channel: 1.0})


def _density(name: str, channels: tuple[str, ...], label: str, source: str) -> Measure:
    formula = " + ".join(f"s({c}) / {WIDTHS[c]:g} m × 1000" for c in channels)
    return Measure(name, label, "km/km²", formula, source, channels, {c: _length(c) for c in channels})


def _share(mode: str) -> Measure:
    network = {c: _length(c) for names in _MODES.values() for c in names}
    part = {c: network[c] for c in _MODES[mode]}
    formula = f"length({' + '.join(part)}) / length({' + '.join(network)})"
    source = "share of the network's length by mode of transport, the supply side of the modal split"
    return Measure(f"{mode}_share", f"network for {mode}", "–", formula, source, tuple(network), part, network)


_SPACEMATRIX = "Berghauser Pont & Haupt (2010)"

MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        m.name: m
        for m in (
            _area("coverage", "building", "building coverage (GSI)", f"ground space index, {_SPACEMATRIX}"),
            _density("street_density", ("arterial", "street"), "street density", f"network density, {_SPACEMATRIX}"),
            Measure(
                "frontage",
                "street frontage",
                "–",
                "∫ |∇ building| [public way within 10 m] / ∫ |∇ building|; public ways: arterial, street, walk, square",
                "Alexander et al. (1977), patterns 122 Building Fronts and 100 Pedestrian Street",
                ("building", *_PUBLIC_WAYS),
                of=_frontage,
                also=_SQUARES,
            ),
            _density("arterial", ("arterial",), "arterial density", f"network density of main roads, {_SPACEMATRIX}"),
            _density(
                "service", ("service",), "service road density", "what osmnx's drive network leaves out, Boeing (2017)"
            ),
            _area("parking", "parking", "parking", "Alexander et al. (1977), pattern 22 Nine Per Cent Parking"),
            _density(
                "cycle", ("cycle",), "cycleway density", "Alexander et al. (1977), pattern 56 Bike Paths and Racks"
            ),
            _density(
                "walk", ("walk",), "footway density", "Alexander et al. (1977), pattern 52 Network of Paths and Cars"
            ),
            _area("square", "square", "squares", "Alexander et al. (1977), pattern 61 Small Public Squares"),
            _density("rail", ("rail",), "rail density", f"network density of rails, {_SPACEMATRIX}"),
            Measure(
                "people_flow",
                "built mass within reach on foot",
                "ha",
                "2πL² · mean over walkable cells (weight s(street) + s(walk) + s(square)) of "
                "Σ exp(−d/L) building / Σ exp(−d/L), L = 200 m",
                "accessibility, Hansen (1959): a potential, not a count of people",
                ("building", *_WALKABLE),
                of=_people_flow,
                also=_SQUARES,
            ),
            _area("green", "green", "green", "Alexander et al. (1977), pattern 60 Accessible Green"),
            _area("water", "water", "water", "Alexander et al. (1977), pattern 64 Pools and Streams"),
            *(_share(mode) for mode in _MODES),
        )
    }
)
"""Every measure by name, in the order in which conditions are listed."""


def settled(name: str, given: Sequence[str]) -> bool:
    """Whether given channels say all of a measure, so that whatever is drawn beside them changes nothing."""
    return {*MEASURES[name].channels, *MEASURES[name].also} <= set(given)


def measurable(channels: Sequence[str]) -> tuple[str, ...]:
    """Names of the measures whose channels are all among `channels`, in the order of `MEASURES`."""
    known = set(channels)
    return tuple(name for name, m in MEASURES.items() if known.issuperset(m.channels))


def mappable(channels: Sequence[str]) -> tuple[str, ...]:
    """Names of the linear measures among `measurable(channels)`: those that `measure_maps` gives."""
    return tuple(name for name in measurable(channels) if MEASURES[name].linear)


@overload
def measure(layout: Tensor, channels: Sequence[str], resolution_m: float) -> dict[str, Tensor]: ...
@overload
def measure(layout: NDArray[Any], channels: Sequence[str], resolution_m: float) -> dict[str, NDArray[Any]]: ...


def measure(
    layout: Tensor | NDArray[Any], channels: Sequence[str], resolution_m: float
) -> dict[str, Tensor] | dict[str, NDArray[Any]]:
    """Measure layouts: everything in `MEASURES` whose channels are there.

    Parameters
    ----------
    layout
        `(C, H, W)` or `(B, C, H, W)`, the share of each cell that each channel covers, in [0, 1].
    channels
        Names of the C channels, in order. Channels that no measure uses are fine.
    resolution_m
        Edge of a cell in metres.

    Returns
    -------
    dict
        Measure name to values `(B,)`, or `()` for one layout, in the unit of `MEASURES[name]`; arrays for an array,
        tensors (that gradients flow through) for a tensor.

    Raises
    ------
    ConditionError
        For a resolution that is none.
    DataError
        For another shape, another number of channels, NaN, or values outside [0, 1].
    """
    if not isinstance(layout, Tensor):
        return {name: value.numpy() for name, value in measure(_tensor(layout), channels, resolution_m).items()}
    single = layout.ndim == 3
    layout = _checked(layout, channels, resolution_m)
    values = measure_unchecked(layout, channels, resolution_m, measurable(channels))
    return {name: value[0] if single else value for name, value in values.items()}


def measure_unchecked(
    layout: Tensor, channels: Sequence[str], resolution_m: float, names: Sequence[str]
) -> dict[str, Tensor]:
    """`measure` of the measures `names`, for layouts `(B, C, H, W)` that are known to be sound (bytes over 255)."""
    if len(layout) == 0:  # which some Fourier transforms refuse
        return {name: layout.new_zeros(0) for name in names}
    few = max(1, _CACHED_CELLS // (layout.shape[2] * layout.shape[3]))
    if layout.device.type == "cpu" and len(layout) > few:
        parts = [measure_unchecked(part, channels, resolution_m, names) for part in torch.split(layout, few)]
        return {name: torch.cat([part[name] for part in parts]) for name in names}
    means = layout.mean((2, 3))
    by_channel = dict(zip(channels, layout.unbind(1), strict=True))

    def total(weights: Mapping[str, float]) -> Tensor:
        return (means * _row(weights, channels, layout)).sum(1)  # autocast would round a matrix product to bfloat16

    values = {}
    for name in names:
        m = MEASURES[name]
        if m.of is not None:
            values[name] = m.of(by_channel, resolution_m)
        elif m.per:
            values[name] = total(m.weights) / (total(m.per) + _TINY)
        else:
            values[name] = total(m.weights)
    return values


def _row(weights: Mapping[str, float], channels: Sequence[str], like: Tensor) -> Tensor:
    return like.new_tensor([weights.get(channel, 0.0) for channel in channels])


@overload
def measure_maps(layout: Tensor, channels: Sequence[str], resolution_m: float, cells: int) -> dict[str, Tensor]: ...
@overload
def measure_maps(
    layout: NDArray[Any], channels: Sequence[str], resolution_m: float, cells: int
) -> dict[str, NDArray[Any]]: ...


def measure_maps(
    layout: Tensor | NDArray[Any], channels: Sequence[str], resolution_m: float, cells: int
) -> dict[str, Tensor] | dict[str, NDArray[Any]]:
    """Measure layouts on a coarse grid: each linear measure of each of `cells` × `cells` squares.

    Parameters
    ----------
    layout, channels, resolution_m
        As for `measure`.
    cells
        Height and width of the maps; must divide those of the layouts.

    Returns
    -------
    dict
        Measure name to maps `(B, cells, cells)`, or `(cells, cells)`; the mean of a map is the measure of the layout.

    Raises
    ------
    ConditionError, DataError
        As for `measure`; and where the layouts do not fall into that many squares.
    """
    if not isinstance(layout, Tensor):
        maps = measure_maps(_tensor(layout), channels, resolution_m, cells)
        return {name: value.numpy() for name, value in maps.items()}
    single = layout.ndim == 3
    layout = _checked(layout, channels, resolution_m)
    height, width = layout.shape[-2:]
    if cells < 1 or height % cells or width % cells:
        raise ConditionError(
            "The layout does not fall into that many map cells.",
            expected=f"a divisor of {math.gcd(height, width)}",
            got=cells,
        )
    maps = maps_unchecked(layout, channels, cells, mappable(channels))
    return {name: value[0] if single else value for name, value in maps.items()}


def maps_unchecked(layout: Tensor, channels: Sequence[str], cells: int, names: Sequence[str]) -> dict[str, Tensor]:
    """`measure_maps` of the linear measures `names`, for sound layouts `(B, C, H, W)` that fall into the cells."""
    shares = functional.avg_pool2d(layout, (layout.shape[-2] // cells, layout.shape[-1] // cells))
    return {name: (shares * _row(MEASURES[name].weights, channels, layout)[:, None, None]).sum(1) for name in names}


def _tensor(layout: NDArray[Any]) -> Tensor:
    array = np.ascontiguousarray(layout)
    if array.dtype.kind not in "biuf":
        raise DataError("A layout is an array of numbers.", expected="floating-point values in [0, 1]", got=array.dtype)
    return torch.from_numpy(array if array.dtype in (np.float32, np.float64) else array.astype(np.float32))


def _checked(layout: Tensor, channels: Sequence[str], resolution_m: float) -> Tensor:
    """Return the layouts as `(B, C, H, W)` floats, or say what is wrong with them."""
    if not (resolution_m > 0 and math.isfinite(resolution_m)):
        raise ConditionError("A resolution is the edge of a cell in metres.", expected="> 0", got=resolution_m)
    if layout.ndim not in {3, 4} or layout.shape[-3] != len(channels) or 0 in layout.shape[-3:]:
        raise DataError(
            "The layouts do not have the shape that the channels call for.",
            expected=f"({len(channels)}, H, W) or (B, {len(channels)}, H, W)",
            got=tuple(layout.shape),
            remedy=f"name the channels in order; these were named: {', '.join(channels)}",
        )
    if len(set(channels)) != len(channels):
        raise DataError("A channel is named twice.", got=list(channels))
    if not layout.is_floating_point():
        layout = layout.float()
    if layout.numel():
        low, high = (float(v) for v in torch.aminmax(layout.detach()))
        if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
            raise DataError(
                "A layout holds values that are no shares of a cell.",
                expected="finite values in [0, 1]",
                got=f"{low:g} to {high:g}",
                remedy="divide coverage bytes by 255; clamp what a network put out",
            )
    return layout.unsqueeze(0) if layout.ndim == 3 else layout
