"""Turn conditions into an embedding (scalars and place) and into planes (maps). Both tell what is absent."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from citygrain.networks.blocks import FourierFeatures
from citygrain.spec import ALL_PLACES, Conditions, LayoutSpec


class Standardise(nn.Module):
    """Bring scalar conditions from physical units to zero mean and unit spread, by buffers from the training windows.

    Urban measures are skewed: most windows have almost no cycle tracks, and a few have a lot. So a value v becomes
    log(1 + v / mean) before it is standardised. This resolves the range of most windows, and does not saturate beyond.

    Parameters
    ----------
    spec
        Has the percentiles of each scalar. A scalar without percentiles only becomes log(1 + v).
    """

    unit: Tensor
    mean: Tensor
    spread: Tensor

    def __init__(self, spec: LayoutSpec) -> None:
        super().__init__()
        units, means, spreads = [], [], []
        for scalar in spec.scalars:
            seen = torch.tensor(spec.statistics.get(scalar, {}).get(ALL_PLACES, (0.0, 1.0, 2.0)))
            unit = seen.mean().clamp_min(1e-9)
            scaled = torch.log1p(seen.clamp_min(0) / unit)
            units.append(unit)
            means.append(scaled.mean())
            spreads.append(scaled.std().clamp_min(1e-3))
        for name, values in (("unit", units), ("mean", means), ("spread", spreads)):
            self.register_buffer(name, torch.stack(values) if values else torch.zeros(0))

    def forward(self, scalars: Tensor) -> Tensor:
        """Map `(B, S)` in physical units to `(B, S)` of order one."""
        return (torch.log1p(scalars.clamp_min(0) / self.unit) - self.mean) / self.spread


class ConditionEmbedding(nn.Module):
    """Embed scalars and place, and whether each is present, as one vector.

    An absent scalar adds a learned vector instead of its value. So "not asked for" differs from zero, and the number
    that stands in place of an absent condition has no effect.

    Parameters
    ----------
    spec
        What can be asked for.
    size
        Length of the embedding.
    octaves
        Frequencies of the Fourier features of each scalar.
    """

    def __init__(self, spec: LayoutSpec, size: int, *, octaves: int = 4) -> None:
        super().__init__()
        scalars = len(spec.scalars)
        self.standardise = Standardise(spec)
        self.features = FourierFeatures(octaves)
        self.weight = nn.Parameter(
            torch.randn(scalars, self.features.size, size) / (self.features.size * max(scalars, 1)) ** 0.5
        )
        self.absent = nn.Parameter(torch.randn(scalars, size) / max(scalars, 1) ** 0.5)
        self.place = nn.Embedding(len(spec.places) + 1, size)
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(size, size), nn.SiLU(), nn.Linear(size, size))

    def forward(self, conditions: Conditions) -> Tensor:
        """Embed `B` conditions as `(B, size)`."""
        present = conditions.present[..., None].to(self.weight.dtype)
        values = self.standardise(torch.where(conditions.present, conditions.scalars, 0.0))
        features = self.features(values) * present
        h = torch.einsum("bsf,sfd->bd", features, self.weight) + ((1 - present) * self.absent).sum(1)
        return self.mlp(h + self.place(conditions.place + 1))


class ConditionPlanes(nn.Module):
    """Resample condition maps to the size of a network's input. Each map gives two planes: its values and its presence.

    Parameters
    ----------
    spec
        Names the maps. Each map is standardised like the scalar of the same name.
    """

    def __init__(self, spec: LayoutSpec) -> None:
        super().__init__()
        self.standardise = Standardise(
            LayoutSpec(
                channels=spec.channels,
                size_px=spec.size_px,
                resolution_m=spec.resolution_m,
                scalars=spec.maps,
                statistics={m: spec.statistics[m] for m in spec.maps if m in spec.statistics},
            )
        )
        self.channels = 2 * len(spec.maps)

    def scale_maps(self, conditions: Conditions) -> Tensor:
        """Return the maps `(B, M, h, w)`, standardised. The values of absent maps mean nothing."""
        return self.standardise(conditions.maps.movedim(1, -1)).movedim(-1, 1)

    def forward(self, conditions: Conditions, size_px: int) -> Tensor:
        """Return `(B, 2M, size_px, size_px)`."""
        maps, present = conditions.maps, conditions.maps_present
        if not self.channels:
            return maps.new_zeros(len(maps), 0, size_px, size_px)
        scaled = self.scale_maps(conditions)
        shown = present[:, :, None, None].to(maps.dtype)
        planes = torch.cat([scaled * shown, shown.expand_as(scaled)], 1)
        return F.interpolate(planes, size=(size_px, size_px), mode="nearest")
