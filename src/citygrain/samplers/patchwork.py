"""The sampler of models that hold real windows: overlapping patches of them, cut where they differ least."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

from citygrain.errors import ConfigError
from citygrain.measures import MEASURES
from citygrain.protocols import HoldsWindows, Known, Noise, require
from citygrain.samplers.areas import Tiling
from citygrain.samplers.base import HandleSampler
from citygrain.spec import Conditions

Part = tuple[EllipsisType, slice, slice]
"""A square of rows and columns of layouts."""

DRAWN = ("quilting",)
"""Families that are drawn like this."""


@dataclass(frozen=True)
class Patchwork(HandleSampler[HoldsWindows]):
    """Lay overlapping patches of real windows, row by row (image quilting, Efros & Freeman 2001).

    Each patch is one of those that agree best with what lies already where they overlap, and with a guide: a real
    window, one of the nearest to the request, which says how much of each channel there is where. Without a guide,
    patches would soon be empty, for empty ground fits everywhere. No patch is taken from the guide itself. A patch is
    cut along the line on which it differs least from what lies already.

    A patch that is as large as the layout is a whole window: this is retrieval.

    Parameters
    ----------
    patch
        Edge of a patch, as a share of the layout's; 1 takes whole windows.
    overlap
        Share of a patch that it has in common with the next patch.
    near
        Number of windows that come nearest to the request; one of these is the guide.
    sources
        Number of windows that come nearest to the request; patches are taken from these.
    tries
        Number of patches that are compared.
    best
        Number of patches that agree best; one of them is chosen at random.
    guide
        Weight of the guide against what lies already; 0 leaves it out. A condition map weighs more than the guide.
    """

    needs: ClassVar[type] = HoldsWindows

    patch: float = 0.375
    overlap: float = 0.25
    near: int = 8
    sources: int = 64
    tries: int = 256
    best: int = 4
    guide: float = 8.0

    def __post_init__(self) -> None:
        shares = 0 < self.patch <= 1 and 0 <= self.overlap < 1 and self.guide >= 0
        if not shares or min(self.near, self.sources, self.tries, self.best) < 1:
            raise ConfigError(
                "These sampler settings cannot work.",
                expected="0 < patch ≤ 1, 0 ≤ overlap < 1, guide ≥ 0; near, sources, tries and best ≥ 1",
                got=f"patch={self.patch}, overlap={self.overlap}, guide={self.guide}, near={self.near}, "
                f"sources={self.sources}, tries={self.tries}, best={self.best}",
            )

    def draw(self, model: HoldsWindows, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw layouts `(B, C, H, W)`."""
        blank = torch.zeros(len(conditions), *model.spec.shape, device=model.bank.device)
        return self.complete(model, Known(blank, blank.bool()), conditions, noise)

    def complete(self, model: object, known: Known, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw layouts around the known parts: each patch is one of those that agree best with them, too."""
        holds = require(model, HoldsWindows, "A patchwork", DRAWN)
        spec = holds.spec
        layout, held = known.layout * known.keep, known.keep.clone()
        for given, name in zip(conditions.given.unbind(1), spec.given, strict=True):
            layout[:, spec.channels.index(name)] = given
            held[:, spec.channels.index(name)] = True
        fixed, settled = layout.clone(), held.clone()
        edge = max(1, round(self.patch * spec.size_px))
        tiling = Tiling.cover(spec.size_px, spec.size_px, edge, self.overlap)
        windows = holds.choose_windows(conditions, max(self.near, self.sources), noise)
        guides, windows = self._choose_guides(windows, noise)
        patches = sliding_window_view(holds.bank.cpu().numpy(), (edge, edge), (2, 3))
        for i, top in enumerate(tiling.rows):
            for j, left in enumerate(tiling.columns):
                here = np.s_[..., top : top + edge, left : left + edge]
                places, chance = noise.uniform(self.tries, 3), noise.uniform(1)[:, 0]
                wanted = _average_maps(conditions, here, spec.size_px)
                laid = []
                for b in range(len(layout)):
                    tried = _take(patches, windows[b], places[b]).to(layout.device)
                    error = self.guide * _compare_shares(tried, holds.bank[guides[b]][here])
                    error = error + _compare_cells(tried, layout[b][here], settled[b][here], holds.spread)
                    for name, value in zip(spec.maps, wanted[b], strict=True):
                        if value.isfinite():
                            error = error + (1 + self.guide) * _compare_measures(tried, spec.channels, name, value)
                    fitting = error.argsort(stable=True)[: self.best]
                    laid.append(tried[fitting[(chance[b] * len(fitting)).long()]].float() / 255)
                patch = torch.stack(laid)
                apart = ((patch - layout[here]) / holds.spread).square().sum(1)
                mine = torch.ones_like(apart, dtype=torch.bool)
                if j and (lap := tiling.columns[j - 1] + edge - left) > 0:
                    mine[:, :, :lap] &= cut_boundary(apart[:, :, :lap])
                if i and (lap := tiling.rows[i - 1] + edge - top) > 0:
                    mine[:, :lap] &= cut_boundary(apart[:, :lap].mT).mT
                new = torch.where(mine[:, None], patch, layout[here])
                layout[here] = torch.where(held[here], fixed[here], new)
                settled[here] = True
        return layout

    def _choose_guides(self, windows: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Choose a guide `(B,)` among the nearest of the windows `(B, K)`, and return it and the sources of patches."""
        near = min(self.near, windows.shape[1])
        chosen = (noise.uniform(1) * near).long()
        guides, windows = windows.gather(1, chosen), windows[:, : self.sources]
        if windows.shape[1] == 1:
            return guides[:, 0], windows
        others = (windows != guides).to(torch.uint8).argsort(dim=1, descending=True, stable=True)
        kept = windows.gather(1, others)  # the guide comes last, if it is among them
        return guides[:, 0], kept[:, :-1]


def cut_boundary(apart: Tensor) -> Tensor:
    """Return which cells lie beyond the line from the first row to the last on which two patches differ least.

    Parameters
    ----------
    apart
        `(B, H, W)`: how far two patches differ in each cell of their overlap.

    Returns
    -------
    Tensor
        `(B, H, W)` bool: in each row, the cell of the line and all cells to the right of it.
    """
    totals = [apart[:, 0]]
    for row in apart[:, 1:].unbind(1):
        beside = F.pad(totals[-1], (1, 1), value=torch.inf)
        least = torch.minimum(torch.minimum(beside[:, :-2], beside[:, 1:-1]), beside[:, 2:])
        totals.append(row + least)
    at = totals[-1].argmin(1, keepdim=True)
    line = [at]
    for total in totals[-2::-1]:
        steps = (at + torch.arange(-1, 2, device=at.device)).clamp(0, apart.shape[2] - 1)
        at = steps.gather(1, total.gather(1, steps).argmin(1, keepdim=True))
        line.append(at)
    return torch.arange(apart.shape[2], device=apart.device) >= torch.stack(line[::-1], 1)


def _take(patches: NDArray[np.uint8], windows: Tensor, numbers: Tensor) -> Tensor:
    """Take patches `(T, C, e, e)` from windows, each where its three numbers `(T, 3)` from [0, 1) say.

    `patches` is `(M, C, h, w, e, e)`: the patch that begins at each cell of each window.
    """
    steps = torch.tensor([len(windows), *patches.shape[2:4]], device=numbers.device)
    which, top, left = (numbers * steps).long().unbind(1)
    return torch.from_numpy(patches[windows[which].cpu().numpy(), :, top.cpu().numpy(), left.cpu().numpy()])


def _compare_shares(patches: Tensor, guide: Tensor) -> Tensor:
    """Return how far the shares of channels in patches are from those in the guide `(C, e, e)`."""
    shares = patches.float().mean((2, 3))
    off = (shares - guide.float().mean((1, 2))) / shares.std(0, correction=0).clamp_min(1.0)
    return _scale(off.square().mean(1))


def _compare_cells(patches: Tensor, layout: Tensor, settled: Tensor, spread: Tensor) -> Tensor:
    """Return how far patches are from a layout `(C, e, e)` where it is settled."""
    cells = settled.any(0)
    apart = (patches[..., cells].float() / 255 - layout[:, cells]) / spread[:, :, 0]
    return _scale((apart.square() * settled[:, cells]).sum((1, 2)))


def _compare_measures(patches: Tensor, channels: Sequence[str], name: str, value: Tensor) -> Tensor:
    """Return how far a measure of patches, which is linear in the shares of channels, is from a value."""
    shares, weights = patches.float().mean((2, 3)) / 255, MEASURES[name].weights
    found = torch.stack([weight * shares[:, channels.index(c)] for c, weight in weights.items()]).sum(0)
    return _scale((found - value).square())


def _scale(error: Tensor) -> Tensor:
    """Return errors `(T,)` in multiples of their mean, so that errors of several kinds weigh alike."""
    return error / error.mean().clamp_min(1e-12)


def _average_maps(conditions: Conditions, here: Part, size_px: int) -> Tensor:
    """Return the means `(B, M)` of condition maps over a part of the layouts; NaN where a map is absent."""
    if not conditions.maps.shape[1]:
        return conditions.maps.new_zeros(len(conditions), 0)
    cells = F.interpolate(conditions.maps, size=(size_px, size_px), mode="nearest")
    return torch.where(conditions.maps_present, cells[here].mean((2, 3)), torch.nan)
