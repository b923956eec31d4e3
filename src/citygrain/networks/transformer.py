"""A transformer over the tokens of a grid: whole grids at once, or token after token with what was read remembered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from citygrain.errors import ConfigError
from citygrain.networks.blocks import activation as blocks_activation
from citygrain.networks.blocks import zeroed
from citygrain.networks.dit import positions


class Transformer(nn.Module):
    """Symbols on a grid in, logits for every cell out, modulated by an embedding (adaLN-Zero, Peebles & Xie 2023).

    Cells are in the order of reading, row by row. Positions are fixed sines and cosines of row and column.

    Parameters
    ----------
    symbols, out_channels, planes, embedding, causal
        Given by the family: number of different symbols, of logits a cell and of condition planes, the size of the
        embedding, and whether a cell attends only to itself and those before it.
    width
        Channels of a cell; a multiple of 4.
    depth
        Number of blocks.
    head
        Channels an attention head; one head where `width` is no multiple of it.
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
        self.symbols = nn.Embedding(symbols, width)
        self.planes = nn.Linear(planes, width) if planes else None
        self.blocks: Any = nn.ModuleList(
            Block(
                width,
                embedding,
                head=head,
                inner=int(ratio * width),
                dropout=dropout,
                act=activation,
                causal=causal,
            )
            for _ in range(depth)
        )
        self.norm = Adaptive(width, embedding, parts=2)
        self.logits = nn.Linear(width, out_channels)

    def forward(self, symbols: Tensor, planes: Tensor, embedding: Tensor) -> Tensor:
        """Map symbols `(B, h · w)`, planes `(B, P, h, w)` and `(B, E)` to logits `(B, h · w, out)`."""
        x = self.symbols(symbols) + self._ground(planes)
        for block in self.blocks:
            x = block(x, block.norm.parts(embedding))
        return self.logits(self.norm(x, *self.norm.parts(embedding)))

    def reader(self, planes: Tensor, embedding: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what `forward` does one cell a call: it takes the next symbols `(B,)`, and returns logits `(B, out)`.

        Keys and values of the cells before are kept, so that a call costs as much as one cell of `forward`; it is for
        causal transformers.
        """
        ground = self._ground(planes).expand(len(embedding), -1, -1)
        cells = iter(ground.unbind(1))
        pasts = [Past(ground.shape[1]) for _ in self.blocks]
        parts = [block.norm.parts(embedding) for block in self.blocks]
        last = self.norm.parts(embedding)

        def read(symbols: Tensor) -> Tensor:
            x = (self.symbols(symbols) + next(cells))[:, None]
            for block, part, past in zip(self.blocks, parts, pasts, strict=True):
                x = block(x, part, past)
            return self.logits(self.norm(x, *last))[:, 0]

        return read

    def _ground(self, planes: Tensor) -> Tensor:
        """What a cell knows whatever its symbol: where it is, and what the condition maps say of it."""
        rows, columns = planes.shape[-2:]
        ground = positions(rows, columns, self.width, planes.device)[None]
        return ground if self.planes is None else ground + self.planes(rearrange(planes, "b p h w -> b (h w) p"))


class Adaptive(nn.Module):
    """Layer normalisation whose shift, scale and gates come from an embedding, and start at zero.

    Parameters
    ----------
    width, embedding
        Channels of a token, and size of the embedding.
    parts
        How many vectors of `width` the embedding gives.
    """

    def __init__(self, width: int, embedding: int, *, parts: int) -> None:
        super().__init__()
        self.modulation = zeroed(nn.Linear(embedding, parts * width))
        self.count = parts
        self.width = width

    def parts(self, embedding: Tensor) -> tuple[Tensor, ...]:
        """Return what an embedding `(B, E)` says, `parts` times `(B, 1, width)`."""
        return self.modulation(F.silu(embedding))[:, None].chunk(self.count, -1)

    def forward(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Normalise `(B, L, width)`, and scale and shift it."""
        return F.layer_norm(x, (self.width,)) * (1 + scale) + shift


class Past:
    """Keys and values `(B, heads, cells, C)` of the cells that a block has read, with room for all that may come."""

    def __init__(self, cells: int) -> None:
        self.cells = cells
        self.read = 0
        self.kept: tuple[Tensor, ...] = ()

    def extended(self, *new: Tensor) -> tuple[Tensor, ...]:
        """Add keys and values, and return all so far."""
        if not self.kept:
            self.kept = tuple(t.new_empty(*t.shape[:2], self.cells, t.shape[-1]) for t in new)
        until = self.read + new[0].shape[2]
        for kept, t in zip(self.kept, new, strict=True):
            kept[:, :, self.read : until] = t
        self.read = until
        return tuple(kept[:, :, :until] for kept in self.kept)


class Block(nn.Module):
    """Self-attention and a perceptron, each around a skip and behind a gate that starts closed (Peebles & Xie 2023).

    Parameters
    ----------
    width, embedding, head
        Channels of a token, size of the embedding, and channels an attention head.
    inner, dropout, act
        Of the perceptron: channels inside, share of them dropped, and name of the activation.
    causal
        Whether a token attends only to itself and those before it.
    """

    def __init__(
        self,
        width: int,
        embedding: int,
        *,
        head: int,
        inner: int,
        dropout: float,
        act: str,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.heads = width // head if width % head == 0 else 1
        self.causal = causal
        self.norm = Adaptive(width, embedding, parts=6)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, inner), blocks_activation(act), nn.Dropout(dropout), nn.Linear(inner, width)
        )

    def forward(self, x: Tensor, parts: tuple[Tensor, ...], past: Past | None = None) -> Tensor:
        """Map `(B, L, width)` to the same shape, given `norm.parts` of the embedding.

        With a past, `x` is one token, and attends to all that the past holds.
        """
        shift, scale, gate, shift_after, scale_after, gate_after = parts
        q, k, v = rearrange(self.qkv(self.norm(x, shift, scale)), "b l (t n c) -> t b n l c", t=3, n=self.heads)
        if past is not None:
            k, v = past.extended(k, v)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal and past is None)
        x = x + gate * self.out(rearrange(attended, "b n l c -> b l (n c)"))
        return x + gate_after * self.perceptron(self.norm(x, shift_after, scale_after))
