"""Windows of an area in turn, each around what those before it have drawn: for families that do not denoise."""

from __future__ import annotations

import torch
from torch import Tensor

from citygrain.errors import CapabilityError
from citygrain.geo.drawn_ways import DrawnWays
from citygrain.geo.stroke_drawing import trace_ways
from citygrain.protocols import DrawsWays, Generator, Known, Noise, Sampler
from citygrain.samplers.areas import Inpaint, Tiling, keeps_parts
from citygrain.samplers.strokes import PlansStrokes
from citygrain.spec import Conditions, LayoutSpec
from citygrain.support.devices import find_device


def check_turns(
    generator: Generator, shape: tuple[int, int], known: Known | None, sampler: Sampler, strength: float
) -> None:
    """Check what a family that is no diffusion model can draw."""
    size = generator.spec.size_px
    if strength < 1 or (shape != (size, size) and not keeps_parts(generator, sampler)):
        raise CapabilityError(
            "This family draws windows from nothing, and no areas or variations of layouts."
            if strength == 1
            else "This family draws from nothing, and no variations of layouts.",
            expected=f"{size} × {size} cells, strength=1" if strength == 1 else "strength=1",
            got=f"{type(generator).__name__}, {shape[0]} × {shape[1]} cells, strength={strength}",
            remedy="choose a diffusion model",
        )
    if isinstance(generator, PlansStrokes) or known is None:
        return
    if (known.keep.any(1) != known.keep.all(1)).any():
        raise CapabilityError(
            "This family can keep whole cells only.",
            got=f"{type(generator).__name__}, some channels kept",
            remedy="choose a diffusion model to keep channels",
        )


def draw_in_turn(
    generator: Generator,
    tiling: Tiling,
    asked: Conditions,
    known: Known | None,
    seed: int,
    sampler: Sampler,
    batch_size: int,
) -> Tensor:
    """Draw the windows of an area in turn, each around what is known and what those before it have drawn.

    Ways that are known or were drawn as lines are handed on as lines. Those of which only cells are known are traced
    once, so that all windows see the same lines.
    """
    device = find_device(generator)
    shape = (1, len(generator.spec.channels), tiling.height, tiling.width)
    layout = torch.zeros(shape) if known is None else known.layout.clone()
    keep = torch.zeros(shape, dtype=torch.bool) if known is None else known.keep.clone()
    seeds = [seed]
    if len(tiling) > 1:
        seeds = torch.randint(2**62, (len(tiling),), generator=torch.Generator().manual_seed(seed)).tolist()
    lines = None
    if isinstance(generator, DrawsWays):
        ways = known.ways[0] if known is not None and known.ways else _trace_known(generator.spec, layout * keep)
        lines = _AreaWays(generator.spec, tiling, ways)
    for turn in tiling.list_turns():
        missing = [number for number in turn if not tiling.cut(keep, [number]).all()]
        made: list[DrawnWays] = []
        for start in range(0, len(missing), batch_size):
            numbers = missing[start : start + batch_size]
            given = None if lines is None else [lines.cut(number) for number in numbers]
            here = Known(tiling.cut(layout, numbers).to(device), tiling.cut(keep, numbers).to(device), given)
            around = sampler if known is None and not here.keep.any() else Inpaint(sampler, here)
            noise = Noise([seeds[number] for number in numbers], device)
            conditions = asked[torch.tensor(numbers)].to(device)
            with torch.no_grad():
                if isinstance(generator, DrawsWays):
                    drawn, found = generator.sample_with_ways(conditions, noise=noise, sampler=around)
                    made += found
                else:
                    drawn = generator.sample(conditions, noise=noise, sampler=around)
            whole = torch.where(here.keep, here.layout, (drawn.float() * 255).round() / 255).cpu()
            for number, window in zip(numbers, whole, strict=True):
                rows, columns = tiling[number]
                layout[0, :, rows, columns], keep[0, :, rows, columns] = window, True
        if lines is not None:
            for number, window in zip(missing, made, strict=True):
                lines.add(number, window)
    return compose((layout[0] * 255).round().to(torch.uint8), known)


def _trace_known(spec: LayoutSpec, layout: Tensor) -> DrawnWays:
    """Trace the ways of what is known of an area, `(1, C, H, W)`."""
    return trace_ways(layout[0].float().cpu().numpy(), spec.channels, spec.resolution_m, spec.channels)


class _AreaWays:
    """The ways of an area as lines: those that are known, and those of the windows that have been drawn.

    Parameters
    ----------
    spec
        Of the generator.
    tiling
        The windows.
    ways
        Those that are known.
    """

    def __init__(self, spec: LayoutSpec, tiling: Tiling, ways: DrawnWays) -> None:
        self.spec, self.tiling, self.ways = spec, tiling, ways

    def cut(self, number: int) -> DrawnWays:
        """Return the ways of a window."""
        return self.ways.cut(*self._find_corner(number), self.spec.extent_m)

    def add(self, number: int, window: DrawnWays) -> None:
        """Add the ways that were drawn in a window."""
        self.ways = self.ways.extend(window, *self._find_corner(number))

    def _find_corner(self, number: int) -> tuple[float, float]:
        """Return x and y of the upper left corner of a window, in metres from that of the area."""
        rows, columns = self.tiling[number]
        return columns.start * self.spec.resolution_m, rows.start * self.spec.resolution_m


def compose(drawn: Tensor, known: Known | None) -> Tensor:
    """Replace the known cells and channels of a layout `(C, H, W)` uint8 by their known values."""
    if known is None:
        return drawn
    layout, keep = known.layout[0].cpu(), known.keep[0].cpu()
    return torch.where(keep, (layout * 255).round().to(torch.uint8), drawn)
