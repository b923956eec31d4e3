"""A transformer over the tokens of a grid. It reads whole grids at once, or token by token with a memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from citygrain.errors import ConfigError
from citygrain.networks.blocks import Table, make_activation, zero_weights

AROUND = ((-1, 0), (0, 1), (1, 0), (0, -1), (-1, 1), (1, 1), (1, -1), (-1, -1))
"""Offsets, in rows and columns, of the neighbours of a cell."""

BEFORE = ((0, 0), (-1, 1), (-1, 0), (-1, -1))
"""Offsets of a cell and of the neighbours read before it. The input at a cell is the symbol of the cell before."""


class Transformer(nn.Module):
    """Symbols on a grid in, logits for every cell out, modulated by an embedding (adaLN-Zero, Peebles & Xie 2023).

    Cells are read row by row. Positions are fixed sines and cosines of row and column. In addition, every head prefers
    to look at a spot at some distance from the cell. At first this is one of the neighbours, so the network does not
    have to discover them (d'Ascoli et al. 2021). The spot and the strength of the preference are learned.

    Parameters
    ----------
    symbols, out_channels, planes, embedding, causal
        Given by the family: number of different symbols, of logits per cell and of condition planes, size of the
        embedding, and whether a cell attends only to itself and to the cells before it.
    width
        Channels of a cell; a multiple of 4.
    depth
        Number of blocks.
    head
        Channels per attention head. There is a single head where `width` is not a multiple of this.
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
        symbols: int,
        out_channels: int,
        planes: int,
        embedding: int,
        causal: bool,
        width: int = 192,
        depth: int = 4,
        head: int = 48,
        ratio: float = 4.0,
        dropout: float = 0.0,
        activation: str = "gelu",
    ) -> None:
        super().__init__()
        if width % 4 or min(width, depth, head) < 1:
            raise ConfigError(
                "A transformer cannot be made like this.",
                expected="a width that 4 divides, and depth and head of at least 1",
                got=f"width={width}, depth={depth}, head={head}",
            )
        self.width = width
        self.causal = causal
        self.symbols = nn.Embedding(symbols, width)
        self.symbols.weight = Table(self.symbols.weight)
        self.planes = nn.Linear(planes, width) if planes else None
        blocks = [
            Block(width, embedding, head=head, inner=int(ratio * width), dropout=dropout, act=activation)
            for _ in range(depth)
        ]
        self.blocks: Any = nn.ModuleList(blocks)
        heads = blocks[0].heads
        spots = BEFORE if causal else AROUND
        first = torch.tensor([spots[i % len(spots)] for i in range(heads)])
        # The preference is −|Δ − spot|². These are its coefficients of |Δ|² and of the rows and columns of Δ.
        self.spots = Table(torch.cat([-torch.ones(len(first), 1), 2.0 * first], 1).repeat(depth, 1, 1))
        self.norm = Adaptive(width, embedding, parts=2)
        self.logits = nn.Linear(width, out_channels)
        self.logits.weight = Table(self.logits.weight)

    def forward(self, symbols: Tensor, planes: Tensor, embedding: Tensor) -> Tensor:
        """Map symbols `(B, h · w)`, planes `(B, P, h, w)` and `(B, E)` to logits `(B, h · w, out)`."""
        x = self.symbols(symbols) + self._embed_ground(planes)
        for block, bias in zip(self.blocks, self._compute_preferences(planes), strict=True):
            x = block(x, block.norm.compute_parts(embedding), bias)
        return self.logits(self.norm(x, *self.norm.compute_parts(embedding)))

    def reader(self, planes: Tensor, embedding: Tensor) -> Callable[[Tensor], Tensor]:
        """Return a function that does what `forward` does, one cell per call, for causal transformers.

        It takes the symbols `(B,)` of the next cell, and returns its logits `(B, out)`. It keeps the keys and values of
        the cells before, so a call costs as much as one cell of `forward`.
        """
        ground = self._embed_ground(planes).expand(len(embedding), -1, -1)
        preferences = self._compute_preferences(planes)
        pasts = [Past(ground.shape[1]) for _ in self.blocks]
        parts = [block.norm.compute_parts(embedding) for block in self.blocks]
        last = self.norm.compute_parts(embedding)
        cells = iter(range(ground.shape[1]))

        def read(symbols: Tensor) -> Tensor:
            i = next(cells)
            x = (self.symbols(symbols) + ground[:, i])[:, None]
            for block, part, bias, past in zip(self.blocks, parts, preferences, pasts, strict=True):
                x = block(x, part, bias[:, i : i + 1, : i + 1], past)
            return self.logits(self.norm(x, *last))[:, 0]

        return read

    def _embed_ground(self, planes: Tensor) -> Tensor:
        """Embed what does not depend on symbols: the position of each cell, and the condition planes."""
        rows, columns = planes.shape[-2:]
        ground = encode_positions(rows, columns, self.width, planes.device)[None]
        return ground if self.planes is None else ground + self.planes(rearrange(planes, "b p h w -> b (h w) p"))

    def _compute_preferences(self, planes: Tensor) -> Tensor:
        """Return how much each head of each block prefers each cell to look at, `(depth, heads, h · w, h · w)`."""
        cells = torch.cartesian_prod(*(torch.arange(n, device=planes.device) for n in planes.shape[-2:])).float()
        away = cells[None] - cells[:, None]
        shape = torch.cat([away.square().sum(-1, keepdim=True), away], -1)
        preferences = torch.einsum("dhk,qck->dhqc", self.spots, shape)
        if not self.causal:
            return preferences
        later = torch.ones(len(cells), len(cells), dtype=torch.bool, device=planes.device).triu(1)
        return preferences.masked_fill(later, -torch.inf)


class Adaptive(nn.Module):
    """A layer normalisation whose shift, scale and gates are computed from an embedding. All of them start at zero.

    Parameters
    ----------
    width, embedding
        Channels of a token, and size of the embedding.
    parts
        Number of vectors of length `width` that are computed from the embedding.
    """

    def __init__(self, width: int, embedding: int, *, parts: int) -> None:
        super().__init__()
        self.modulation = zero_weights(nn.Linear(embedding, parts * width))
        self.count = parts
        self.width = width

    def compute_parts(self, embedding: Tensor) -> tuple[Tensor, ...]:
        """Compute the vectors of an embedding `(B, E)`: `parts` times `(B, 1, width)`."""
        return self.modulation(F.silu(embedding))[:, None].chunk(self.count, -1)

    def forward(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Normalise `(B, L, width)`, and scale and shift it."""
        return F.layer_norm(x, (self.width,)) * (1 + scale) + shift


class Past:
    """Memory of a block: keys and values `(B, heads, cells, C)` of the cells it has read, with room for all."""

    def __init__(self, cells: int) -> None:
        self.cells = cells
        self.read = 0
        self.kept: tuple[Tensor, ...] = ()

    def extend(self, *new: Tensor) -> tuple[Tensor, ...]:
        """Add keys and values, and return all of them so far."""
        if not self.kept:
            self.kept = tuple(t.new_empty(*t.shape[:2], self.cells, t.shape[-1]) for t in new)
        until = self.read + new[0].shape[2]
        for kept, t in zip(self.kept, new, strict=True):
            kept[:, :, self.read : until] = t
        self.read = until
        return tuple(kept[:, :, :until] for kept in self.kept)

    def select(self, rows: Tensor) -> None:
        """Forget the keys and values of all sequences but some."""
        self.kept = tuple(kept[rows] for kept in self.kept)


class Block(nn.Module):
    """Self-attention and a perceptron, each with a skip and a gate that starts closed (Peebles & Xie 2023).

    Parameters
    ----------
    width, embedding, head
        Channels of a token, size of the embedding, and channels per attention head.
    inner, dropout, act
        Channels inside the perceptron, share of them that is dropped, and name of the activation.
    """

    def __init__(self, width: int, embedding: int, *, head: int, inner: int, dropout: float, act: str) -> None:
        super().__init__()
        self.heads = width // head if width % head == 0 else 1
        self.norm = Adaptive(width, embedding, parts=6)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, inner), make_activation(act), nn.Dropout(dropout), nn.Linear(inner, width)
        )

    def forward(
        self, x: Tensor, parts: tuple[Tensor, ...], bias: Tensor | None = None, past: Past | None = None
    ) -> Tensor:
        """Map `(B, L, width)` to the same shape, given the `norm.compute_parts` of the embedding.

        `bias`, `(heads, L, L)`, is added to the attention scores. With a past, `x` is a single token, which attends to
        itself and to all tokens of the past.
        """
        shift, scale, gate, shift_after, scale_after, gate_after = parts
        q, k, v = rearrange(self.qkv(self.norm(x, shift, scale)), "b l (t n c) -> t b n l c", t=3, n=self.heads)
        if past is not None:
            k, v = past.extend(k, v)
        bias = None if bias is None else bias.to(q.dtype)[None]  # the fused kernels need four axes
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = x + gate * self.out(rearrange(attended, "b n l c -> b l (n c)"))
        return x + gate_after * self.perceptron(self.norm(x, shift_after, scale_after))


def encode_positions(rows: int, columns: int, width: int, device: torch.device | None = None) -> Tensor:
    """Encode rows and columns as sines and cosines `(rows · columns, width)` of wavelengths from 2π to 20,000π cells.

    As in Vaswani et al. (2017), with half of the channels for each axis. They are always computed in single precision.
    A network may be trained in bfloat16 and sampled in single precision, and in bfloat16 the angles of far cells would
    be rounded to other numbers.
    """
    quarter = width // 4
    frequencies = torch.exp(-math.log(1e4) / quarter * torch.arange(quarter, device=device, dtype=torch.float32))

    def waves(count: int) -> Tensor:
        angles = torch.arange(count, device=device, dtype=torch.float32)[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], -1)

    down = waves(rows)[:, None].expand(-1, columns, -1)
    along = waves(columns)[None].expand(rows, -1, -1)
    return torch.cat([down, along], -1).flatten(0, 1)
