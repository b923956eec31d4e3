"""Cut and paste: a bank of real windows, and layouts that are made of patches of them. The bar for all that learns."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from citygrain.errors import CapabilityError, ConfigError
from citygrain.networks.frame import list_drawn, measure_conditions
from citygrain.protocols import Noise, Sampler
from citygrain.samplers.patchwork import Patchwork
from citygrain.spec import Conditions, LayoutSpec

COARSE = 4
"""Cells a side of the coarse pictures by which windows are compared."""


class Quilting(nn.Module):
    """Layouts as patches of training windows that agree at their edges (Efros & Freeman 2001).

    Nothing is learned: in training, `loss` puts windows into the bank until it is full. Patches come from windows of
    the place that is asked for, and of these from the ones that come nearest in all measures that are asked for. With
    several processes, only the windows of the first are kept, and the others copy its buffers.

    What is drawn consists of copies, and so it sets the bar: a model that learns should be told apart from real
    layouts less often, or copy less, or obey better.

    Parameters
    ----------
    spec
        Layouts and conditions.
    windows
        How many windows of each place are kept, and as many of no place. A window of C channels and H × W cells weighs
        C · H · W bytes: 33 KB for 8 channels at 64 × 64 cells.
    sampler
        Used by `sample` unless another is given; `Patchwork` by default.
    """

    bank: Tensor
    coarse: Tensor
    scalars: Tensor
    place: Tensor
    filled: Tensor
    spread: Tensor

    def __init__(self, spec: LayoutSpec, *, windows: int = 128, sampler: Sampler | None = None) -> None:
        super().__init__()
        if windows < 1:
            raise ConfigError("A bank holds one window of each place or more.", expected="windows ≥ 1", got=windows)
        self.spec = spec
        self.sampler = sampler or Patchwork()
        self.windows = windows
        count = windows * (len(spec.places) + 1)
        self.register_buffer("bank", torch.zeros(count, *spec.shape, dtype=torch.uint8))
        self.register_buffer("coarse", torch.zeros(count, len(spec.channels) * COARSE**2))
        self.register_buffer("scalars", torch.zeros(count, len(spec.scalars)))
        self.register_buffer("place", torch.full((count,), -1))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self.register_buffer("spread", torch.ones(len(spec.channels), 1, 1))

    @torch.no_grad()
    def measure_data(self, layouts: Tensor) -> None:
        """Measure the standard deviation of each channel on training layouts `(N, C, H, W)`."""
        self.spread.copy_(layouts.std((0, 2, 3))[:, None, None].clamp_min(0.02))

    @torch.no_grad()
    def keep(self, layouts: Tensor, place: Tensor) -> None:
        """Put layouts `(B, C, H, W)` in [0, 1] into the bank, each until there are enough of its place `(B,)`."""
        filled = int(self.filled)
        count = torch.bincount(self.place[:filled] + 1, minlength=len(self.spec.places) + 1)
        rows = []
        for row, number in enumerate((place + 1).tolist()):
            if count[number] < self.windows:
                count[number] += 1
                rows.append(row)
        if not rows:
            return
        here, kept = slice(filled, filled + len(rows)), layouts[rows].float()
        self.bank[here] = (kept * 255).round().to(torch.uint8)
        self.coarse[here] = self._coarsen(kept)
        self.place[here] = place[rows]
        names = list_drawn(self.spec.scalars)
        found = measure_conditions(kept, self.spec.channels, self.spec.resolution_m, names)
        for name in names:
            self.scalars[here, self.spec.scalars.index(name)] = found[name].float()
        self.filled += len(rows)

    def loss(self, layout: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return how far layouts are from the nearest window of the bank, in variances, and how many windows it has."""
        filled = int(self.filled)
        seen = self._coarsen(layout.float())
        apart = torch.cdist(seen, self.coarse[:filled]).amin(1) if filled else seen.norm(dim=1)
        if self.training:
            self.keep(layout, conditions.place)
        return {"loss": apart.square().mean() / seen.shape[1], "kept": self.filled.float()}

    def sample(self, conditions: Conditions, *, noise: Noise, sampler: Sampler | None = None) -> Tensor:
        """Draw one layout for each condition, `(B, C, H, W)` in [0, 1]."""
        with torch.no_grad():
            return (sampler or self.sampler)(self, conditions, noise)

    def choose_windows(self, conditions: Conditions, count: int, noise: Noise) -> Tensor:
        """Return the rows `(B, count)` of the windows that come nearest to what is asked for, in their order.

        They are windows of the place that is asked for, if the bank has some of it. Where windows are equally near,
        chance decides. If there are fewer than `count`, they are repeated.

        Raises
        ------
        CapabilityError
            When the bank is empty.
        """
        filled = int(self.filled)
        if not filled:
            raise CapabilityError(
                "The bank of this model is empty.", got=type(self).__name__, remedy="citygrain train model=quilting …"
            )
        scalars, place = self.scalars[:filled], self.place[:filled]
        far = scalars.new_zeros(len(conditions), filled)
        for name in list_drawn(self.spec.scalars):
            i = self.spec.scalars.index(name)
            scale = scalars[:, i].std(correction=0).clamp_min(1e-6)
            off = (conditions.scalars[:, i : i + 1] - scalars[:, i]) / scale
            far += torch.where(conditions.present[:, i : i + 1], off.square(), 0)
        elsewhere = (conditions.place[:, None] >= 0) & (conditions.place[:, None] != place)
        far = torch.where(elsewhere & ~elsewhere.all(1, keepdim=True), torch.inf, far)
        shuffled = noise.uniform(filled).argsort(1)
        order = shuffled.gather(1, far.gather(1, shuffled).argsort(stable=True, dim=1))
        usable = far.isfinite().sum(1, keepdim=True)
        return order.gather(1, torch.arange(count, device=order.device) % usable)

    def read(self, layout: Tensor) -> Tensor:
        """Return the layouts: patches are compared with them as they are."""
        return layout

    def settled(self, keep: Tensor) -> Tensor:
        """Return the kept cells: each is held for itself."""
        return keep

    def _coarsen(self, layouts: Tensor) -> Tensor:
        """Return coarse pictures `(B, …)` of layouts, in standard deviations."""
        return (F.adaptive_avg_pool2d(layouts, COARSE) / self.spread).flatten(1)
