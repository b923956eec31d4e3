"""The style-based generator: noise and conditions become a style, which modulates the synthesis of a layout."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from citygrain.networks.blocks import make_activation, set_channels_last

Normal = Callable[..., Tensor]
"""Draws standard normal numbers `(B, *shape)` of a given shape."""


class Mapping(nn.Module):
    """Map noise and an embedding of the conditions to a style (Karras et al. 2019).

    Parameters
    ----------
    noise, embedding
        Sizes of the noise and of the embedding.
    style
        Size of the style.
    depth
        Layers.
    """

    def __init__(self, *, noise: int, embedding: int, style: int, depth: int = 4) -> None:
        super().__init__()
        sizes = [noise + embedding, *[style] * depth]
        self.layers = nn.Sequential(
            *(layer for cin, cout in pairwise(sizes) for layer in (nn.Linear(cin, cout), nn.LeakyReLU(0.2)))
        )

    def forward(self, z: Tensor, embedding: Tensor) -> Tensor:
        """Map `(B, Z)` and `(B, E)` to `(B, style)`. First, each of the two is scaled to a root mean square of 1."""
        return self.layers(torch.cat([F.rms_norm(z, z.shape[-1:]), F.rms_norm(embedding, embedding.shape[-1:])], 1))


class ModulatedConv(nn.Module):
    """A convolution whose input channels are scaled by the style, and whose output is scaled back to unit spread.

    Karras et al. (2020) scale the weights. Here the input and the output are scaled instead. In exact arithmetic this
    gives the same result, and it needs only one convolution for the whole batch.

    Parameters
    ----------
    in_channels, out_channels, style
        Channels in and out, and size of the style.
    kernel
        Edge in cells.
    demodulate
        Whether the output is scaled back.
    """

    def __init__(
        self, in_channels: int, out_channels: int, style: int, *, kernel: int = 3, demodulate: bool = True
    ) -> None:
        super().__init__()
        self.demodulate = demodulate
        self.scale = nn.Linear(style, in_channels)
        nn.init.ones_(self.scale.bias)
        self.weight = nn.Parameter(
            torch.randn(out_channels, in_channels, kernel, kernel) / (in_channels * kernel**2) ** 0.5
        )
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Map `(B, in, H, W)` and `(B, style)` to `(B, out, H, W)`."""
        scale = self.scale(style)
        out = F.conv2d(x * scale[:, :, None, None], self.weight, padding=self.weight.shape[-1] // 2)
        if self.demodulate:
            power = scale.square() @ self.weight.square().sum((2, 3)).T
            out = out * power.add(1e-8).rsqrt()[:, :, None, None].to(out.dtype)
        return out + self.bias[:, None, None]


class Synthesis(nn.Module):
    """Turn a style into coverage around zero, level by level from a learned coarse grid (Karras et al. 2020).

    Parameters
    ----------
    out_channels, style, planes
        Given by the family: channels of a layout, size of the style, planes of condition maps.
    size_px
        Height and width of a layout. The edge of the coarse grid is this halved as often as possible, but at least 4.
    width, widest
        Channels at the finest level. They double with each coarser level, up to `widest`.
    activation
        Name of the activation.
    """

    def __init__(
        self,
        *,
        out_channels: int,
        style: int,
        planes: int,
        size_px: int,
        width: int = 24,
        widest: int = 128,
        activation: str = "leaky_relu",
    ) -> None:
        super().__init__()
        sizes = [size_px]
        while sizes[0] % 2 == 0 and sizes[0] // 2 >= 4:
            sizes.insert(0, sizes[0] // 2)
        widths = [min(widest, width * size_px // size) for size in sizes]
        self.sizes = sizes
        self.start = nn.Parameter(torch.randn(1, widths[0], sizes[0], sizes[0]))
        self.levels = nn.ModuleList(
            _Level(cin, cout, style, planes, out_channels, activation)
            for cin, cout in zip([widths[0], *widths[:-1]], widths, strict=True)
        )
        set_channels_last(self)

    def forward(self, style: Tensor, planes: Callable[[int], Tensor], normal: Normal) -> Tensor:
        """Map styles `(B, style)` to `(B, out, H, W)`.

        Parameters
        ----------
        style
            One for each layout.
        planes
            Returns the condition planes `(B, P, size, size)` of a given size.
        normal
            Draws the noise of each level.
        """
        h = self.start.expand(len(style), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        layout = h.new_zeros(())
        for i, (size, level) in enumerate(zip(self.sizes, self.levels, strict=True)):
            if i:
                h, layout = (F.interpolate(t, scale_factor=2, mode="bilinear") for t in (h, layout))
            h, made = level(h, style, planes(size), normal)
            layout = layout + made
        return layout


class _Level(nn.Module):
    """Two modulated convolutions, each followed by noise. Their result is added to the layout."""

    def __init__(self, cin: int, cout: int, style: int, planes: int, out_channels: int, act: str) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList([ModulatedConv(cin, cout, style), ModulatedConv(cout, cout, style)])
        self.noise = nn.ParameterList([nn.Parameter(torch.full((cout, 1, 1), 0.1)) for _ in range(2)])
        self.planes = nn.Conv2d(planes, cin, 1, bias=False) if planes else None
        self.act = make_activation(act)
        self.layout = ModulatedConv(cout, out_channels, style, kernel=1, demodulate=False)
        with torch.no_grad():
            self.layout.weight.mul_(0.1)  # a new generator stays near the middle

    def forward(self, x: Tensor, style: Tensor, planes: Tensor, normal: Normal) -> tuple[Tensor, Tensor]:
        if self.planes is not None:
            x = x + self.planes(planes)
        for convolution, strength in zip(self.convolutions, self.noise, strict=True):
            x = convolution(x, style)
            x = self.act(x + strength * normal(1, *x.shape[2:]).to(x.dtype)) * 2**0.5
        return x, self.layout(x, style)
