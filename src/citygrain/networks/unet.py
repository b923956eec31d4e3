"""The U-Net of diffusion models: residual blocks at falling resolutions, attention at the coarse ones, and skips."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from citygrain.errors import ConfigError
from citygrain.networks.blocks import (
    ResidualBlock,
    SelfAttention,
    make_activation,
    make_norm,
    set_channels_last,
    zero_weights,
)


class _Stage(nn.Module):
    """A residual block, and attention after it at the levels that attend."""

    def __init__(self, block: ResidualBlock, attention: SelfAttention | None) -> None:
        super().__init__()
        self.block = block
        self.attention = attention

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.block(x, embedding)
        return h if self.attention is None else self.attention(h)


class _Resample(nn.Module):
    """A change of resolution. It ignores the embedding."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:  # noqa: ARG002
        return self.layer(x)


class UNet(nn.Module):
    """A convolutional U-Net modulated by an embedding (Ronneberger et al. 2015; Dhariwal & Nichol 2021).

    Parameters
    ----------
    in_channels, out_channels, embedding
        Given by the family: channels in and out, and the size of the embedding.
    width
        Channels at the finest level.
    widths
        Channels of each level as multiples of `width`. The resolution halves from one level to the next.
    blocks
        Residual blocks per level.
    stem
        Halvings by space-to-depth before the first level. Sub-pixel convolutions undo them after the last level (Shi et
        al. 2016). So no convolution has to run at the full resolution of large windows.
    attention
        Levels with attention over all cells. 0 is the finest level; negative numbers count from the coarsest.
    head
        Channels per attention head.
    dropout
        Share of activations dropped in each residual block.
    activation
        Name of the activation, one of `citygrain.networks.blocks.ACTIVATIONS`.
    norm
        Name of the normalisation, one of `citygrain.networks.blocks.NORMS`.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        embedding: int,
        width: int = 64,
        widths: Sequence[int] = (1, 2, 4),
        blocks: int = 2,
        stem: int = 0,
        attention: Sequence[int] = (-1, -2),
        head: int = 64,
        dropout: float = 0.0,
        activation: str = "silu",
        norm: str = "group",
    ) -> None:
        super().__init__()
        levels = len(widths)
        attends = {level % levels for level in attention if -levels <= level < levels}
        if len(attends) != len(attention):
            raise ConfigError(
                "The U-Net has no such levels to attend at.",
                expected=f"numbers from {-levels} to {levels - 1}, each once",
                got=list(attention),
            )
        self.folded = 2**stem
        self.factor = self.folded * 2 ** (levels - 1)

        def stage(cin: int, cout: int, level: int) -> _Stage:
            block = ResidualBlock(cin, cout, embedding=embedding, dropout=dropout, act=activation, normalisation=norm)
            return _Stage(block, SelfAttention(cout, head=head, normalisation=norm) if level in attends else None)

        channels = width * widths[0]
        self.stem = nn.Conv2d(in_channels * self.folded**2, channels, 3, padding=1)
        skips = [channels]
        self.down = nn.ModuleList()
        for level, multiple in enumerate(widths):
            for _ in range(blocks):
                self.down.append(stage(channels, width * multiple, level))
                channels = width * multiple
                skips.append(channels)
            if level < levels - 1:
                self.down.append(_Resample(nn.Conv2d(channels, channels, 3, stride=2, padding=1)))
                skips.append(channels)
        self.middle = nn.ModuleList([stage(channels, channels, levels - 1), stage(channels, channels, levels)])
        self.up = nn.ModuleList()
        for level in reversed(range(levels)):
            for _ in range(blocks + 1):
                self.up.append(stage(channels + skips.pop(), width * widths[level], level))
                channels = width * widths[level]
            if level:
                grow = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(channels, channels, 3, padding=1))
                self.up.append(_Resample(grow))
        self.head = nn.Sequential(
            make_norm(norm, channels),
            make_activation(activation),
            zero_weights(nn.Conv2d(channels, out_channels * self.folded**2, 3, padding=1)),
        )
        set_channels_last(self)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map `(B, in, H, W)` and `(B, E)` to `(B, out, H, W)`; H and W are multiples of `factor`."""
        if x.shape[-1] % self.factor or x.shape[-2] % self.factor:
            raise ConfigError(
                "The U-Net has too many levels for this size.",
                expected=f"height and width that {self.factor} divides",
                got=tuple(x.shape[-2:]),
                remedy="take fewer network.widths, less network.stem, or another data.size_px",
            )
        h = self.stem(F.pixel_unshuffle(x, self.folded).contiguous(memory_format=torch.channels_last))
        skips = [h]
        for layer in self.down:
            h = layer(h, embedding)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, embedding)
        for layer in self.up:
            h = layer(h if isinstance(layer, _Resample) else torch.cat([h, skips.pop()], 1), embedding)
        return F.pixel_shuffle(self.head(h), self.folded)
