"""Diffusion of densities: how much of each coarse cell every channel covers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from citygrain.errors import ConfigError
from citygrain.models.diffusion import Diffusion
from citygrain.models.schedules import Schedule
from citygrain.protocols import Sampler
from citygrain.spec import LayoutSpec


class Pooling(nn.Module):
    """A code that is computed, and not learned: the mean of every channel over coarse cells.

    Parameters
    ----------
    spec
        Layouts.
    cell_m
        Edge of a coarse cell in metres.

    Raises
    ------
    ConfigError
        When a window does not fall into whole coarse cells.
    """

    def __init__(self, spec: LayoutSpec, cell_m: float) -> None:
        super().__init__()
        self.spec = spec
        self.factor = round(cell_m / spec.resolution_m)
        if self.factor < 1 or self.factor * spec.resolution_m != cell_m or spec.size_px % self.factor:
            raise ConfigError(
                "The windows do not fall into coarse cells of this size.",
                expected=f"a part of {spec.extent_m:g} m, and a multiple of {spec.resolution_m:g} m",
                got=f"cell_m={cell_m:g}",
            )
        edge = spec.size_px // self.factor
        self.code_shape = (len(spec.channels), edge, edge)

    def encode(self, layout: Tensor) -> Tensor:
        """Return the means `(B, C, h, w)` of layouts, or of some channels of them, `(B, C, H, W)`."""
        return F.avg_pool2d(layout, self.factor)

    def decode(self, code: Tensor) -> Tensor:
        """Return layouts `(B, C, H, W)` in [0, 1] in which all cells of a coarse cell are alike."""
        return F.interpolate(code.clamp(0, 1), scale_factor=self.factor, mode="nearest")


class DensityDiffusion(Diffusion):
    """Diffusion of the mean coverage of coarse cells, by each channel.

    It draws what comes between a plan of ways and the ground on it: where it is dense and where it is green. Its
    layouts have cells of the resolution of all layouts, alike within each coarse cell. Given channels are repeated cell
    by cell, and the network sees their means.

    Parameters
    ----------
    spec
        Layouts and conditions.
    network
        Makes the network from `in_channels`, `out_channels` and `embedding`.
    cell_m
        Edge of a coarse cell in metres.
    schedule, sampler, embedding, given
        See `Diffusion`.
    """

    def __init__(
        self,
        spec: LayoutSpec,
        *,
        network: Callable[..., nn.Module],
        cell_m: float = 32.0,
        schedule: Schedule | None = None,
        sampler: Sampler | None = None,
        embedding: int = 256,
        given: Sequence[str] | None = (),
    ) -> None:
        super().__init__(
            spec, network=network, schedule=schedule, sampler=sampler, codec=Pooling(spec, cell_m),
            embedding=embedding, given=given,
        )  # fmt: skip

    @property
    def channelwise(self) -> bool:
        """Whether each channel of a clean tensor stands for one channel of the layout, which it does."""
        return True
