"""Samplers that wrap samplers: layouts of which parts are known, and areas larger than a window."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
    Holds,
    Known,
    Noise,
    Sampler,
    require,
)
from citygrain.samplers.base import HandleSampler
from citygrain.samplers.diffusion import DIFFUSION, KEEPING, DiffusionSampler, Euler, guided
from citygrain.spec import Conditions

KEEPERS = (*DIFFUSION, "masked_transformer", "energy_based", "boltzmann_machine")
"""Families that can keep parts of a layout."""

Begin = Literal["noise", "inversion"]


@dataclass(frozen=True)
class Inpaint:
    """Draw the rest of layouts of which parts are known.

    What it returns agrees with what is known as far as the model's code allows; draw what is known over the layouts
    that come of it.

    Parameters
    ----------
    sampler
        Whose knobs are used.
    known
        One layout for each that is drawn.
    """

    sampler: Sampler
    known: Known

    def __call__(self, model: object, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw `(B, …)` in the space of the model's handle.

        Raises
        ------
        CapabilityError
            When the model or its sampler can draw whole layouts only.
        """
        if not isinstance(model, Holds) or not isinstance(self.sampler, Completes):
            raise CapabilityError(
                "This model draws whole layouts, and cannot keep a part of one.",
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
        Where rows and columns of windows begin, in order.
    size
        Edge of a window.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    size: int

    @classmethod
    def over(cls, height: int, width: int, size: int, overlap: float = 0.5) -> Tiling:
        """Lay as few windows as it takes over an area, evenly; neighbours share `overlap` of their edge or more.

        Raises
        ------
        ConfigError
            For an area smaller than a window, or windows that would never end.
        """
        if min(height, width) < size or not 0 <= overlap < 1:
            raise ConfigError(
                "Windows cannot be laid over this area.",
                expected=f"{size} × {size} cells or more, and an overlap from 0 to below 1",
                got=f"{height} × {width} cells, overlap={overlap}",
            )
        stride = max(1, int(size * (1 - overlap)))

        def beginnings(length: int) -> tuple[int, ...]:
            gaps = math.ceil((length - size) / stride)
            return tuple(round(i * (length - size) / max(1, gaps)) for i in range(gaps + 1))

        return cls(beginnings(height), beginnings(width), size)

    def finer(self, factor: int) -> Tiling:
        """Return the same windows in cells that are so many times finer."""
        return Tiling(tuple(factor * r for r in self.rows), tuple(factor * c for c in self.columns), factor * self.size)

    @property
    def height(self) -> int:
        """Of the area."""
        return self.rows[-1] + self.size

    @property
    def width(self) -> int:
        """Of the area."""
        return self.columns[-1] + self.size

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def __getitem__(self, number: int) -> tuple[slice, slice]:
        """Rows and columns of a window; they are numbered row after row."""
        row, column = self.rows[number // len(self.columns)], self.columns[number % len(self.columns)]
        return slice(row, row + self.size), slice(column, column + self.size)

    def cut(self, area: Tensor, numbers: range) -> Tensor:
        """Return windows `(n, C, size, size)` of an area `(1, C, height, width)`."""
        return torch.cat([area[:, :, rows, columns] for rows, columns in (self[n] for n in numbers)])

    def blended(self, windows: Callable[[range], Tensor], batch_size: int) -> Iterator[Tensor]:
        """Yield rows `(1, C, rows, width)` of the area from the top, each when all windows on it have come.

        Where windows overlap they are averaged, each weighing most in its middle and nearly nothing at its edge.

        Parameters
        ----------
        windows
            Windows `(n, C, size, size)` by their numbers. Each is asked for once, in order.
        batch_size
            How many are asked for at once, at most a row of them.
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
    """Draw an area of any extent, of which parts may be known: overlapping windows are denoised jointly.

    At every noise level each window of the area is denoised under conditions of its own, and their estimates of the
    clean area are averaged where they overlap (Bar-Tal et al. 2023): one sampler walks the whole area, so that there
    are no seams. The area's code is held in memory, its windows a few at a time.

    Parameters
    ----------
    sampler
        Whose knobs are used.
    tiling
        The windows, in cells of the model's code.
    known
        `(1, C, H, W)`: a layout of the area, and what stays of it. None draws all.
    strength
        How far up the noise levels it begins: 1 from noise alone, less from the known layout with noise on it, which
        keeps what noise of that size does not drown (SDEdit, Meng et al. 2022).
    begin
        How it begins below a strength of 1: `noise` is drawn and added; `inversion` walks the flow up from the known
        layout with nothing asked for (Song et al. 2021), so that what is then asked for changes no more than it takes.
    batch_size
        Windows that are denoised at once.
    """

    sampler: DiffusionSampler
    tiling: Tiling
    known: Known | None = None
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
        """Draw one clean area `(1, c, h, w)` for T conditions, one a window.

        Raises
        ------
        CapabilityError
            When the model is no diffusion model, or the sampler none of one.
        """
        self.sampler.check(model)
        denoiser = require(model, Denoiser, "An area larger than a window", DIFFUSION)
        sigmas = self.sampler.sigmas().tolist()
        estimate = partial(self._estimate, denoiser, conditions)
        fresh = noise.normal(denoiser.latent_shape[0], self.tiling.height, self.tiling.width)
        if self.known is None:
            return self.sampler.walk(estimate, sigmas[0] * fresh, sigmas, noise)
        sigmas = sigmas[round((1 - self.strength) * (len(sigmas) - 2)) :]
        clean = self._read(require(model, DenoisesLayouts, KEEPING, DIFFUSION))
        start = clean + sigmas[0] * fresh
        if self.strength < 1 and self.begin == "inversion":
            free = partial(self._estimate, denoiser, conditions.absent(), inverting=True)
            start = Euler().walk(free, clean, sigmas[-2::-1], noise)
        if not self.known.keep.any():
            return self.sampler.walk(estimate, start, sigmas, noise)
        return self.sampler.rounds(estimate, start, sigmas, noise)

    def _estimate(
        self, model: Denoiser, conditions: Conditions, x: Tensor, sigma: float, *, inverting: bool = False
    ) -> Tensor:
        def windows(numbers: range) -> Tensor:
            asked, here = conditions[slice(numbers.start, numbers.stop)], self.tiling.cut(x, numbers)
            if inverting:
                return guided(model, here, sigma, asked, 1.0)
            known = (
                None
                if self.known is None
                else self._known(require(model, DenoisesLayouts, KEEPING, DIFFUSION), numbers)
            )
            return self.sampler.estimate(model, asked, here, sigma, known)

        return self._joined(windows)

    def _read(self, model: DenoisesLayouts) -> Tensor:
        """Return the clean area `(1, c, h, w)`: of the whole layout below full strength, else of what is kept."""

        def windows(numbers: range) -> Tensor:
            here = self._known(model, numbers)
            if self.strength < 1:
                return model.read(here.layout)
            return torch.where(model.settled(here.keep), model.read(here.layout * here.keep), 0)

        return self._joined(windows)

    def _known(self, model: DenoisesLayouts, numbers: range) -> Known:
        """Return what is known of some windows; there is something."""
        assert self.known is not None
        cells = self.tiling.finer(model.spec.size_px // model.latent_shape[-1])
        return Known(*(cells.cut(of, numbers) for of in self.known))

    def _joined(self, windows: Callable[[range], Tensor]) -> Tensor:
        return torch.cat(list(self.tiling.blended(windows, self.batch_size)), 2)
