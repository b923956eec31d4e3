"""Samplers around other samplers: they keep known parts of a layout, or draw areas larger than a window."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

from citygrain.errors import CapabilityError, ConfigError
from citygrain.protocols import (
    Completes,
    Denoiser,
    DenoisesLayouts,
    HasParts,
    Holds,
    Known,
    Noise,
    Sampler,
    ShowsLayouts,
    require,
)
from citygrain.samplers.base import DIFFUSION, HandleSampler
from citygrain.samplers.diffusion import KEEPING, Clean, DiffusionSampler, Euler, denoise_guided
from citygrain.samplers.parts import DrawParts
from citygrain.samplers.strokes import PlansStrokes
from citygrain.spec import Conditions

KEEPERS = (
    *DIFFUSION,
    *("cascade", "masked_transformer", "stroke_transformer", "energy_based", "boltzmann_machine", "quilting"),
)
"""Families that can keep known parts of a layout."""

Begin = Literal["noise", "inversion"]


def keeps_parts(model: object, sampler: object) -> bool:
    """Tell whether a model can draw around what is known, with a sampler. All parts of a model with parts have to."""
    if isinstance(model, HasParts):
        return isinstance(sampler, DrawParts) and all(
            keeps_parts(getattr(model, name), part) for name, part in sampler.parts.items()
        )
    return isinstance(model, Holds | PlansStrokes) and isinstance(sampler, Completes)


@dataclass(frozen=True)
class Inpaint:
    """Draw the unknown part of layouts whose other part is known (inpainting).

    The result agrees with the known part as far as the model's code can express it. So the caller copies the known
    part over the layouts that are decoded from the result.

    Parameters
    ----------
    sampler
        The sampler that draws.
    known
        The known parts, one layout for each layout that is drawn.
    """

    sampler: Sampler
    known: Known

    def __call__(self, model: object, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw `(B, …)` in the space of the model's handle.

        Raises
        ------
        CapabilityError
            When the model or the sampler can only draw whole layouts.
        """
        if not isinstance(model, Holds | PlansStrokes) or not isinstance(self.sampler, Completes):
            raise CapabilityError(
                "This model can only draw whole layouts. It cannot keep a part of a layout.",
                got=f"{type(model).__name__} with {type(self.sampler).__name__}",
                choices=KEEPERS,
                remedy="choose one of these families",
            )
        if isinstance(self.sampler, HandleSampler):
            self.sampler.check(model)
        return self.sampler.complete(model, self.known, conditions, noise)


@dataclass(frozen=True)
class Tiling:
    """Overlapping square windows that cover an area, in cells.

    Attributes
    ----------
    rows, columns
        Where the rows and the columns of windows begin, in order.
    size
        Edge of a window.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    size: int

    @classmethod
    def cover(cls, height: int, width: int, size: int, overlap: float = 0.5) -> Tiling:
        """Cover an area with as few windows as possible, evenly spaced.

        Neighbouring windows share at least the part `overlap` of their edge.

        Raises
        ------
        ConfigError
            When the area is smaller than a window, or `overlap` is not from 0 to below 1.
        """
        if min(height, width) < size or not 0 <= overlap < 1:
            raise ConfigError(
                "Windows cannot be laid over this area.",
                expected=f"{size} × {size} cells or more, and an overlap from 0 to below 1",
                got=f"{height} × {width} cells, overlap={overlap}",
            )
        stride = max(1, int(size * (1 - overlap)))

        def space(length: int) -> tuple[int, ...]:
            gaps = math.ceil((length - size) / stride)
            return tuple(round(i * (length - size) / max(1, gaps)) for i in range(gaps + 1))

        return cls(space(height), space(width), size)

    def list_turns(self) -> list[list[int]]:
        """Put the windows into turns: those of one turn do not overlap, and all before them on their ground are drawn.

        Windows that overlap have the order of their numbers, so each is drawn beside its neighbours above and before.
        """
        corners = [(row, column) for row in self.rows for column in self.columns]
        turn: list[int] = []
        for number, (row, column) in enumerate(corners):
            before = [
                turn[other]
                for other, (above, left) in enumerate(corners[:number])
                if row - above < self.size and abs(column - left) < self.size
            ]
            turn.append(max(before, default=-1) + 1)
        return [[number for number, mine in enumerate(turn) if mine == i] for i in range(max(turn) + 1)]

    def refine(self, factor: int) -> Tiling:
        """Return the same windows, counted in cells that are `factor` times finer."""
        return Tiling(tuple(factor * r for r in self.rows), tuple(factor * c for c in self.columns), factor * self.size)

    @property
    def height(self) -> int:
        """Height of the area."""
        return self.rows[-1] + self.size

    @property
    def width(self) -> int:
        """Width of the area."""
        return self.columns[-1] + self.size

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the area."""
        return self.height, self.width

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def __getitem__(self, number: int) -> tuple[slice, slice]:
        """Return the rows and columns of a window. Windows are numbered row after row."""
        row, column = self.rows[number // len(self.columns)], self.columns[number % len(self.columns)]
        return slice(row, row + self.size), slice(column, column + self.size)

    def cut(self, area: Tensor, numbers: Iterable[int]) -> Tensor:
        """Return windows `(n, C, size, size)` of an area `(1, C, height, width)`."""
        return torch.cat([area[:, :, rows, columns] for rows, columns in (self[n] for n in numbers)])

    def blend(self, windows: Callable[[range], Tensor], batch_size: int) -> Iterator[Tensor]:
        """Yield strips `(1, C, rows, width)` of the area from the top, each as soon as all windows on it are computed.

        Where windows overlap, they are averaged. A window has the largest weight in its middle and nearly none at its
        edge.

        Parameters
        ----------
        windows
            Computes the windows `(n, C, size, size)` of given numbers. Each window is computed once, in order.
        batch_size
            Number of windows in one call, at most one row of windows.
        """
        ramp = torch.arange(1, self.size + 1)
        ramp = torch.minimum(ramp, ramp.flip(0)) / self.size
        across = len(self.columns)
        total = mass = torch.zeros(())
        for i, (here, after) in enumerate(pairwise([*self.rows, self.height])):
            for start in range(i * across, (i + 1) * across, batch_size):
                part = range(start, min(start + batch_size, (i + 1) * across))
                found = windows(part)
                weight = (ramp[:, None] * ramp).to(found)
                if not total.ndim:
                    total = found.new_zeros(1, found.shape[1], self.size, self.width)
                    mass = found.new_zeros(self.size, self.width)
                for number, window in zip(part, found, strict=True):
                    total[:, :, :, self[number][1]] += weight * window
                    mass[:, self[number][1]] += weight
            done = after - here
            yield total[:, :, :done] / mass[:done]
            total = torch.cat([total[:, :, done:], torch.zeros_like(total[:, :, :done])], 2)
            mass = torch.cat([mass[done:], torch.zeros_like(mass[:done])])


@dataclass(frozen=True)
class Area:
    """Draw an area of any extent by denoising overlapping windows jointly. Parts of the area may be known.

    At every noise level, each window is denoised under the conditions of that window, and the estimates of the clean
    area are averaged where windows overlap (MultiDiffusion, Bar-Tal et al. 2023). One sampler walks the whole area, so
    there are no seams. Memory holds the code of the whole area, but only a few windows at a time. Of given channels, it
    holds no noise and no estimates.

    Parameters
    ----------
    sampler
        The sampler that draws.
    tiling
        The windows, in cells of the model's code.
    known
        `(1, C, H, W)`: a layout of the area, and the part of it that stays. None draws the whole area.
    given
        `(1, G, H, W)`: the given channels of the area, for a model that is given some; in [0, 1], or 0–255 as uint8.
    strength
        The noise level at which drawing begins: 1 begins with noise alone; a smaller number begins with the known
        layout plus noise, and keeps what noise of that size does not drown (SDEdit, Meng et al. 2022).
    begin
        How drawing begins when `strength` is below 1. `noise` adds noise to the known layout. `inversion` follows the
        flow from the known layout up to the noise level without any request (Song et al. 2021), so that the request
        then changes only as much of the layout as it has to.
    batch_size
        Number of windows that are denoised at once.
    """

    sampler: DiffusionSampler
    tiling: Tiling
    known: Known | None = None
    given: Tensor | None = None
    strength: float = 1.0
    begin: Begin = "noise"
    batch_size: int = 16

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1 or self.begin not in get_args(Begin) or self.batch_size < 1:
            raise ConfigError(
                "A layout cannot be changed like this.",
                expected=f"0 < strength ≤ 1, begin {' or '.join(get_args(Begin))}, batch_size ≥ 1",
                got=f"strength={self.strength}, begin={self.begin}, batch_size={self.batch_size}",
            )
        if self.known is None and self.strength < 1:
            raise ConfigError("There is no layout to begin from.", got=f"strength={self.strength}", expected="1")

    def __call__(self, model: object, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw the channels of a clean area that are made, `(1, c, h, w)`, under T conditions, one for each window.

        Raises
        ------
        CapabilityError
            When the model is not a diffusion model, or the sampler does not fit it.
        """
        self.sampler.check(model)
        denoiser = require(model, Denoiser, "An area larger than a window", DIFFUSION)
        sigmas = self.sampler.sigmas().tolist()
        estimate = partial(self._estimate, denoiser, conditions)
        if self.known is None:
            return self.sampler.walk(estimate, self._draw_noise(denoiser, noise).mul_(sigmas[0]), sigmas, noise)
        return self._walk_from_known(denoiser, estimate, conditions, sigmas, noise)

    def cut(self, model: Denoiser, clean: Tensor, numbers: range) -> Tensor:
        """Return windows `(n, C, h, w)` of an area. They have zeros in the place of given channels."""
        windows, made = self.tiling.cut(clean, numbers), self._find_made(model)
        if not made:
            return windows
        whole = windows.new_zeros(len(windows), model.latent_shape[0], *windows.shape[2:])
        whole[:, made] = windows
        return whole

    def _draw_noise(self, model: Denoiser, noise: Noise) -> Tensor:
        """Draw noise of variance 1 for the channels of the area that are made."""
        return self._take_made(model, noise.normal(model.latent_shape[0], *self.tiling.shape))

    def _walk_from_known(
        self, model: Denoiser, estimate: Clean, conditions: Conditions, sigmas: list[float], noise: Noise
    ) -> Tensor:
        """Draw the channels that are made around the part of the area that is known, or from a known layout."""
        assert self.known is not None
        fresh = self._draw_noise(model, noise)
        sigmas = sigmas[round((1 - self.strength) * (len(sigmas) - 2)) :]
        clean = self._read(require(model, DenoisesLayouts, KEEPING, DIFFUSION))
        start = clean + sigmas[0] * fresh
        if self.strength < 1 and self.begin == "inversion":
            free = partial(self._estimate, model, conditions.absent(), inverting=True)
            start = Euler().walk(free, clean, sigmas[-2::-1], noise)
        if not self.known.keep.any():
            return self.sampler.walk(estimate, start, sigmas, noise)
        return self.sampler.walk_in_rounds(estimate, start, sigmas, noise)

    def _estimate(
        self, model: Denoiser, conditions: Conditions, x: Tensor, sigma: float, *, inverting: bool = False
    ) -> Tensor:
        def denoise(numbers: range) -> Tensor:
            asked, here = self._ask(model, conditions, numbers), self.cut(model, x, numbers)
            if inverting:
                return self._take_made(model, denoise_guided(model, here, sigma, asked, 1.0))
            known = (
                None
                if self.known is None
                else self._cut_known(require(model, DenoisesLayouts, KEEPING, DIFFUSION), numbers)
            )
            return self._take_made(model, self.sampler.estimate(model, asked, here, sigma, known))

        return self._join(denoise)

    def _find_made(self, model: object) -> list[int]:
        """Return which channels of the area are made; none of them stands for all."""
        if self.given is None:
            return []
        spec = require(model, ShowsLayouts, "An area around given channels", DIFFUSION).spec
        return [i for i, name in enumerate(spec.channels) if name not in spec.given]

    def _take_made(self, model: object, x: Tensor) -> Tensor:
        """Return the channels of `x` that are made."""
        made = self._find_made(model)
        return x[:, made] if made else x

    def _ask(self, model: Denoiser, conditions: Conditions, numbers: range) -> Conditions:
        """Return the conditions of some windows, with their given channels."""
        asked = conditions[slice(numbers.start, numbers.stop)]
        if self.given is None:
            return asked
        cells = self._count_cells(require(model, ShowsLayouts, "An area around given channels", DIFFUSION))
        given = cells.cut(self.given, numbers)
        if given.dtype == torch.uint8:
            given = given / 255
        return replace(asked, given=given, given_present=torch.ones_like(asked.given_present))

    def _count_cells(self, model: ShowsLayouts) -> Tiling:
        """Return the tiling in cells of layouts."""
        return self.tiling.refine(model.spec.size_px // self.tiling.size)

    def _read(self, model: DenoisesLayouts) -> Tensor:
        """Return what is made of the clean area of the known layout; at full strength, of the part that stays."""

        def read(numbers: range) -> Tensor:
            here = self._cut_known(model, numbers)
            if self.strength < 1:
                return self._take_made(model, model.read(here.layout))
            stays = torch.where(model.settled(here.keep), model.read(here.layout * here.keep), 0)
            return self._take_made(model, stays)

        return self._join(read)

    def _cut_known(self, model: DenoisesLayouts, numbers: range) -> Known:
        """Return the known parts of some windows. The area must have a known part."""
        assert self.known is not None
        cells = self._count_cells(model)
        return Known(cells.cut(self.known.layout, numbers), cells.cut(self.known.keep, numbers))

    def _join(self, windows: Callable[[range], Tensor]) -> Tensor:
        """Blend all windows into the area `(1, c, h, w)`."""
        area, done = torch.zeros(()), 0
        for strip in self.tiling.blend(windows, self.batch_size):
            if not done:
                area = strip.new_empty(*strip.shape[:2], *self.tiling.shape)
            area[:, :, done : done + strip.shape[2]] = strip
            done += strip.shape[2]
        return area
