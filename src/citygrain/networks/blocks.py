"""Building blocks shared by the architectures: tensors in, tensors out, no losses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from citygrain.errors import ConfigError

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def make_activation(name: str) -> nn.Module:
    """Make the activation of a name.

    Raises
    ------
    ConfigError
        For a name that is not in `ACTIVATIONS`.
    """
    if name not in ACTIVATIONS:
        raise ConfigError("There is no such activation.", got=name, choices=ACTIVATIONS)
    return ACTIVATIONS[name]()


def make_group_norm(channels: int, group_size: int = 16) -> nn.GroupNorm:
    """Make a group normalisation with groups of about `group_size` channels."""
    groups = max(1, channels // group_size)
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels)


class CellNorm(nn.LayerNorm):
    """Normalise each cell of feature maps `(B, C, H, W)` over its channels, whatever the other cells hold."""

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape. Where `x` is stored channels-last, the result is, too."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "group": make_group_norm,
    "cell": CellNorm,
    "layer": lambda channels: nn.GroupNorm(1, channels),
    "instance": lambda channels: nn.GroupNorm(channels, channels),
    "batch": nn.BatchNorm2d,
    "none": lambda _: nn.Identity(),
}
"""Make normalisations of a number of channels. Only `batch` uses statistics of the batch, and only in training."""


def make_norm(name: str, channels: int) -> nn.Module:
    """Make the normalisation of a name for a number of channels.

    Raises
    ------
    ConfigError
        For a name that is not in `NORMS`.
    """
    if name not in NORMS:
        raise ConfigError("There is no such normalisation.", got=name, choices=NORMS)
    return NORMS[name](channels)


def set_channels_last(module: nn.Module) -> nn.Module:
    """Store a module's weights channels-last: this makes convolutions faster on CPUs and on tensor cores."""
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def zero_weights(layer: Layer) -> Layer:
    """Set a layer's weights to zero, so that the block around it starts as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Table(nn.Parameter):
    """Weights of which each row belongs to one thing, such as a symbol. They are not a linear map between two spaces.

    Optimisers that orthogonalise the updates of linear maps leave tables alone, see
    `citygrain.training.optimizers.muon`.
    """


class FourierFeatures(nn.Module):
    """Embed numbers `(…,)` by sines and cosines of octaves, `(…, 2 · octaves + 1)`.

    Parameters
    ----------
    octaves
        Number of frequencies 1, 2, 4, … cycles per `period`.
    period
        Longest wavelength. The number itself is kept too, so numbers beyond half of this stay distinct.
    """

    frequencies: Tensor

    def __init__(self, octaves: int, period: float = 8.0) -> None:
        super().__init__()
        self.size = 2 * octaves + 1
        self.register_buffer("frequencies", 2 * math.pi / period * 2.0 ** torch.arange(octaves), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Embed `(…,)` as `(…, size)`."""
        angles = x[..., None] * self.frequencies
        return torch.cat([x[..., None], angles.sin(), angles.cos()], -1)


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions around a skip, modulated by an embedding where there is one.

    The second normalisation is scaled and shifted by the embedding (adaptive normalisation, Dhariwal & Nichol 2021);
    the last convolution starts at zero, so that a new block is the identity.

    Parameters
    ----------
    in_channels, out_channels
        Channels in and out. Where they differ, the skip is a 1 × 1 convolution.
    embedding
        Size of the embedding, 0 for none.
    dropout
        Share of activations dropped before the second convolution.
    act, normalisation
        Names of the activation and of the normalisation, see `ACTIVATIONS` and `NORMS`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        embedding: int = 0,
        dropout: float = 0.0,
        act: str = "silu",
        normalisation: str = "group",
    ) -> None:
        super().__init__()
        self.act = make_activation(act)
        self.norm1 = make_norm(normalisation, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = make_norm(normalisation, out_channels)
        self.conv2 = zero_weights(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.dropout = nn.Dropout(dropout)
        self.modulation = nn.Linear(embedding, 2 * out_channels) if embedding else None
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Map `(B, in, H, W)`, with an embedding `(B, E)`, to `(B, out, H, W)`."""
        h = self.norm2(self.conv1(self.act(self.norm1(x))))
        if self.modulation is not None:
            scale, shift = self.modulation(self.act(embedding))[:, :, None, None].chunk(2, 1)
            h = h * (1 + scale) + shift
        return self.skip(x) + self.conv2(self.dropout(self.act(h)))


class SelfAttention(nn.Module):
    """Multi-head self-attention over all cells of a feature map, around a skip.

    Parameters
    ----------
    channels
        Channels in and out.
    head
        Channels per head. There is a single head where `channels` is not a multiple of this.
    normalisation
        Name of the normalisation, see `NORMS`.
    """

    def __init__(self, channels: int, *, head: int = 64, normalisation: str = "group") -> None:
        super().__init__()
        self.heads = channels // head if channels % head == 0 else 1
        self.norm = make_norm(normalisation, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero_weights(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        height = x.shape[-2]
        q, k, v = rearrange(self.qkv(self.norm(x)), "b (t n c) h w -> t b n (h w) c", t=3, n=self.heads)
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(rearrange(h, "b n (h w) c -> b (n c) h w", h=height))
