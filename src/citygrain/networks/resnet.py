"""Convolutional encoder and decoder. The edge of a code is that of a layout divided by a power of two."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from citygrain.networks.blocks import ResidualBlock, make_activation, make_norm, set_channels_last


class ResNetEncoder(nn.Module):
    """Layout to code.

    Squares of `2 ** stem` × `2 ** stem` cells are folded into channels before the first convolution (space-to-depth),
    so no convolution runs at full resolution. Each further level halves the resolution.

    Parameters
    ----------
    in_channels, out_channels
        Given by the family.
    stem
        Number of halvings by space-to-depth.
    widths
        Channels of each level after the stem, finest first.
    depth
        Residual blocks per level.
    dropout, activation, norm
        As in `UNet`.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        stem: int = 2,
        widths: Sequence[int] = (128,),
        depth: int = 3,
        dropout: float = 0.0,
        activation: str = "silu",
        norm: str = "group",
    ) -> None:
        super().__init__()
        self.factor = 2 ** (stem + len(widths) - 1)
        block = partial(ResidualBlock, dropout=dropout, act=activation, normalisation=norm)
        layers: list[nn.Module] = [
            nn.PixelUnshuffle(2**stem),
            nn.Conv2d(in_channels * 4**stem, widths[0], 3, padding=1),
        ]
        for level, width in enumerate(widths):
            if level:
                layers.append(nn.Conv2d(widths[level - 1], width, 3, stride=2, padding=1))
            layers += [block(width, width) for _ in range(depth)]
        layers += [
            make_norm(norm, widths[-1]),
            make_activation(activation),
            nn.Conv2d(widths[-1], out_channels, 3, padding=1),
        ]
        self.layers = set_channels_last(nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in, H, W)` to `(B, out, H / factor, W / factor)`."""
        return self.layers(x.contiguous(memory_format=torch.channels_last))


class ResNetDecoder(nn.Module):
    """Code to layout logits: the mirror of `ResNetEncoder`.

    Sub-pixel convolutions undo the halvings of the stem one by one (Shi et al. 2016). After each of them except the
    last come `fine` residual blocks of `fine_width` channels, which draw thin streets.

    Parameters
    ----------
    in_channels, out_channels, stem, widths, depth, dropout, activation, norm
        As in `ResNetEncoder`. Here too, `widths` begin with the finest level.
    fine_width, fine
        Channels and number of the residual blocks between the doublings of the stem.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        stem: int = 2,
        widths: Sequence[int] = (128,),
        depth: int = 3,
        fine_width: int = 48,
        fine: int = 1,
        dropout: float = 0.0,
        activation: str = "silu",
        norm: str = "group",
    ) -> None:
        super().__init__()
        block = partial(ResidualBlock, dropout=dropout, act=activation, normalisation=norm)
        layers: list[nn.Module] = [nn.Conv2d(in_channels, widths[-1], 3, padding=1)]
        for level in reversed(range(len(widths))):
            layers += [block(widths[level], widths[level]) for _ in range(depth)]
            if level:
                layers += [nn.Upsample(scale_factor=2), nn.Conv2d(widths[level], widths[level - 1], 3, padding=1)]
        width = widths[0]
        for _ in range(stem - 1):
            layers += [nn.Conv2d(width, 4 * fine_width, 3, padding=1), nn.PixelShuffle(2)]
            width = fine_width
            layers += [block(width, width) for _ in range(fine)]
        layers += [
            make_norm(norm, width),
            make_activation(activation),
            nn.Conv2d(width, out_channels * (4 if stem else 1), 3, padding=1),
        ]
        if stem:
            layers.append(nn.PixelShuffle(2))
        self.layers = set_channels_last(nn.Sequential(*layers))

    def forward(self, z: Tensor) -> Tensor:
        """Map `(B, in, h, w)` to logits `(B, out, h · factor, w · factor)`."""
        return self.layers(z.contiguous(memory_format=torch.channels_last))
