"""The diffusion transformer: patches as tokens, every token attending to all, conditions as adaptive normalisation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from citygrain.errors import ConfigError
from citygrain.networks.blocks import activation as blocks_activation
from citygrain.networks.blocks import zeroed


class DiT(nn.Module):
    """A transformer over patches, modulated by an embedding (Peebles & Xie 2023, adaLN-Zero).

    Positions are fixed sines and cosines of row and column, so that a trained network takes other sizes, too.

    Parameters
    ----------
    in_channels, out_channels, embedding
        Given by the family: channels in and out, and the size of the embedding.
    width
        Channels of a token; a multiple of 4.
    depth
        Number of blocks.
    head
        Channels an attention head; one head where `width` is no multiple of it.
    patch
        Edge of a patch in cells. Attention costs the fourth power of its inverse.
    ratio
        Channels inside a block's multilayer perceptron as a multiple of `width`.
    dropout
        Share of activations dropped in each perceptron.
    activation
        Name of the activation, one of `citygrain.networks.blocks.ACTIVATIONS`.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        embedding: int,
        width: int = 256,
        depth: int = 8,
        head: int = 64,
        patch: int = 2,
        ratio: float = 4.0,
        dropout: float = 0.0,
        activation: str = "gelu",
    ) -> None:
        super().__init__()
        if width % 4 or min(width, patch, depth, head) < 1:
            raise ConfigError(
                "A transformer cannot be made like this.",
                expected="a width that 4 divides, and patch, depth and head of at least 1",
                got=f"width={width}, patch={patch}, depth={depth}, head={head}",
            )
        self.patch = patch
        self.width = width
        self.tokens = nn.Conv2d(in_channels, width, patch, stride=patch)
        self.blocks = nn.ModuleList(
            _Block(width, embedding, head=head, inner=int(ratio * width), dropout=dropout, act=activation)
            for _ in range(depth)
        )
        self.norm = _Adaptive(width, embedding, parts=2)
        self.cells = zeroed(nn.Linear(width, out_channels * patch**2))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map `(B, in, H, W)` and `(B, E)` to `(B, out, H, W)`; H and W are multiples of `patch`."""
        height, width = x.shape[-2:]
        if height % self.patch or width % self.patch:
            raise ConfigError(
                "The patches do not fit this size.",
                expected=f"height and width that {self.patch} divides",
                got=(height, width),
                remedy="take another network.patch or data.size_px",
            )
        grid = self.tokens(x)
        rows, columns = grid.shape[-2:]
        h = rearrange(grid, "b c h w -> b (h w) c") + positions(rows, columns, self.width, grid.device)
        for block in self.blocks:
            h = block(h, embedding)
        shift, scale = self.norm.parts(embedding)
        patches = self.cells(self.norm(h, shift, scale))
        return rearrange(patches, "b (h w) (c p q) -> b c (h p) (w q)", h=rows, w=columns, p=self.patch, q=self.patch)


class _Adaptive(nn.Module):
    """Layer normalisation whose shift, scale and gates come from an embedding, and start at zero."""

    def __init__(self, width: int, embedding: int, *, parts: int) -> None:
        super().__init__()
        self.modulation = zeroed(nn.Linear(embedding, parts * width))
        self.count = parts
        self.width = width

    def parts(self, embedding: Tensor) -> tuple[Tensor, ...]:
        return self.modulation(F.silu(embedding))[:, None].chunk(self.count, -1)

    def forward(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return F.layer_norm(x, (self.width,)) * (1 + scale) + shift


class _Block(nn.Module):
    """Self-attention and a perceptron, each around a skip and behind a gate that starts closed."""

    def __init__(self, width: int, embedding: int, *, head: int, inner: int, dropout: float, act: str) -> None:
        super().__init__()
        self.heads = width // head if width % head == 0 else 1
        self.norm = _Adaptive(width, embedding, parts=6)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, inner), blocks_activation(act), nn.Dropout(dropout), nn.Linear(inner, width)
        )

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        shift, scale, gate, shift_after, scale_after, gate_after = self.norm.parts(embedding)
        q, k, v = rearrange(self.qkv(self.norm(x, shift, scale)), "b l (t n c) -> t b n l c", t=3, n=self.heads)
        attended = rearrange(F.scaled_dot_product_attention(q, k, v), "b n l c -> b l (n c)")
        x = x + gate * self.out(attended)
        return x + gate_after * self.perceptron(self.norm(x, shift_after, scale_after))


def positions(rows: int, columns: int, width: int, device: torch.device | None = None) -> Tensor:
    """Sines and cosines of row and column `(rows · columns, width)` at wavelengths from 2π to some 20,000π cells.

    Vaswani et al. (2017), half of the channels for each axis. In single precision, whatever the network computes in:
    rounded to bfloat16, the angles of far cells would be others than where a trained network is sampled from.
    """
    quarter = width // 4
    frequencies = torch.exp(-math.log(1e4) / quarter * torch.arange(quarter, device=device, dtype=torch.float32))

    def waves(count: int) -> Tensor:
        angles = torch.arange(count, device=device, dtype=torch.float32)[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], -1)

    down = waves(rows)[:, None].expand(-1, columns, -1)
    along = waves(columns)[None].expand(rows, -1, -1)
    return torch.cat([down, along], -1).flatten(0, 1)
