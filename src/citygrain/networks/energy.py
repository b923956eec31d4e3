"""The energy network: it maps a tensor and an embedding to one number, smoothly in the tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from citygrain.errors import ConfigError
from citygrain.networks.blocks import make_activation, set_channels_last, zero_weights


class EnergyNetwork(nn.Module):
    """A residual network without normalisation, whose last feature map is summed (Du & Mordatch 2019).

    A normalisation would use statistics of a batch or a layout. Then the energy of a sample would depend on other
    samples, and the energy of one part of a layout on its other parts.

    Parameters
    ----------
    in_channels, embedding
        Given by the family: channels in, and the size of the conditions' embedding.
    stem
        Halvings by space-to-depth before the first convolution.
    width
        Channels at the finest level.
    widths
        Channels of each level as multiples of width; the resolution halves between levels.
    blocks
        Residual blocks per level.
    activation
        Name of the activation. It should be smooth, because samplers use the gradient of the energy.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        embedding: int,
        stem: int = 0,
        width: int = 48,
        widths: Sequence[int] = (1, 2, 2),
        blocks: int = 1,
        activation: str = "silu",
    ) -> None:
        super().__init__()
        self.factor = 2 ** (stem + len(widths) - 1)
        channels = width * widths[0]
        self.stem = nn.Sequential(nn.PixelUnshuffle(2**stem), nn.Conv2d(in_channels * 4**stem, channels, 3, padding=1))
        self.blocks = nn.ModuleList()
        for level, multiple in enumerate(widths):
            for i in range(blocks):
                out = width * multiple
                self.blocks.append(_Block(channels, out, embedding, activation, halves=level > 0 and i == 0))
                channels = out
        self.head = nn.Sequential(make_activation(activation), zero_weights(nn.Conv2d(channels, 1, 1)))
        set_channels_last(self)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map `(B, in, H, W)` and `(B, E)` to `(B,)`; H and W are multiples of `factor`."""
        if x.shape[-1] % self.factor or x.shape[-2] % self.factor:
            raise ConfigError(
                "The energy network has too many levels for this size.",
                expected=f"height and width that {self.factor} divides",
                got=tuple(x.shape[-2:]),
                remedy="take fewer landscape.widths or a smaller landscape.stem, or another data.size_px",
            )
        h = self.stem(x)
        for block in self.blocks:
            h = block(h, embedding)
        return self.head(h).sum((1, 2, 3))


class _Block(nn.Module):
    """Two 3 × 3 convolutions around a skip, the features between them scaled and shifted by an embedding."""

    def __init__(self, in_channels: int, out_channels: int, embedding: int, act: str, *, halves: bool) -> None:
        super().__init__()
        self.halves = halves
        self.act = make_activation(act)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * out_channels)
        self.conv2 = zero_weights(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        x = F.avg_pool2d(x, 2) if self.halves else x
        scale, shift = self.modulation(self.act(embedding))[:, :, None, None].chunk(2, 1)
        h = self.conv1(self.act(x)) * (1 + scale) + shift
        return self.skip(x) + self.conv2(self.act(h))
