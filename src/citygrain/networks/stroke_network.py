"""A causal transformer that reads strokes vertex by vertex: its attention sees where vertices lie to each other."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from citygrain.errors import ConfigError
from citygrain.networks.blocks import FourierFeatures, Table
from citygrain.networks.stroke_rays import RAYS
from citygrain.networks.stroke_spread import SPREAD
from citygrain.networks.transformer import Adaptive, Past

WAVES = 32
"""Wavelengths by which a position is embedded."""

VERTICES, NUMBERS = 16, 96
"""Vertices of a stroke, and strokes of a section, that are told apart by their number."""


class Steps(NamedTuple):
    """Steps of reading or drawing strokes, each with what is known after it.

    Attributes
    ----------
    op
        `(B, L)` what was done.
    x, y
        `(B, L)` where the pen is: positions, counted from 0.
    placed
        `(B, L)` bool: whether the step put a vertex there.
    section
        `(B, L)` which section the next step is in.
    vertex, number
        `(B, L)` vertices of the stroke so far, and strokes of the section so far.
    rays
        `(B, L, RAYS)` what lies around a vertex, see `citygrain.networks.stroke_rays.cast_rays`.
    spread
        `(B, L, SPREAD)` where strokes lie so far, see `citygrain.networks.stroke_spread.describe_spread`.
    state
        `(B, L, S)` numbers of order one: how the pen moved, what has been drawn, and what remains of each request.
    """

    op: Tensor
    x: Tensor
    y: Tensor
    placed: Tensor
    section: Tensor
    vertex: Tensor
    number: Tensor
    rays: Tensor
    spread: Tensor
    state: Tensor


Modulation = list[tuple[Tensor, ...]]
"""What shifts, scales and gates each block and the last norm: tensors `(B, 1, width)`."""


class StrokeNetwork(nn.Module):
    """A causal transformer over the vertices of strokes.

    The attention turns queries and keys by angles in proportion to the position of the pen and to the number of the
    step (rotary embedding, Su et al. 2021, here in the plane). So a head can look at what lies near, in line, or at a
    certain distance, wherever in the window it is.

    Parameters
    ----------
    ops, positions, sections, state, embedding
        Given by the family: numbers of different operations, of positions along an axis, of sections and of numbers of
        a state, and the size of the conditions' embedding.
    width
        Channels of a step.
    depth
        Number of blocks.
    head
        Channels per attention head; `width` is a multiple of it, and 8 divides it.
    ratio
        Channels inside a block's perceptron as a multiple of `width`.
    dropout
        Share of activations dropped in each perceptron.
    spread
        Whether it is told how strokes are spread over the window so far.
    """

    def __init__(
        self,
        *,
        ops: int,
        positions: int,
        sections: int,
        state: int,
        embedding: int,
        width: int = 256,
        depth: int = 6,
        head: int = 64,
        ratio: float = 4.0,
        dropout: float = 0.0,
        spread: bool = False,
    ) -> None:
        super().__init__()
        if min(width, depth, head) < 1 or width % head or head % 8:
            raise ConfigError(
                "A network of strokes cannot be made like this.",
                expected="depth ≥ 1, and a width that is a multiple of head, which is a multiple of 8",
                got=f"width={width}, depth={depth}, head={head}",
            )
        self.ops, self.positions, self.width = ops, positions, width
        self.op = _table(ops, width)
        self.x, self.y = Places(positions, width), Places(positions, width)
        self.dx, self.dy = Places(2 * positions - 1, width), Places(2 * positions - 1, width)
        self.section, self.vertex, self.number = (
            _table(sections, width),
            _table(VERTICES, width),
            _table(NUMBERS, width),
        )
        self.waves = FourierFeatures(6, period=2.0)
        self.state = nn.Linear(state + 2 * self.waves.size, width)
        blocks = [_Block(width, embedding, head, int(ratio * width), dropout, positions) for _ in range(depth)]
        self.blocks: Any = nn.ModuleList(blocks)
        self.norm = Adaptive(width, embedding, parts=2)
        self.op_logits = nn.Linear(width, ops)
        self.op_logits.weight = Table(self.op_logits.weight)
        self.chosen = _table(ops, width)
        self.to_x, self.to_y = _perceptron(width), _perceptron(width)
        self.rays = nn.Linear(RAYS * (self.waves.size + 2), width, bias=False)
        nn.init.zeros_(self.rays.weight)
        self.spread = nn.Linear(SPREAD, width, bias=False) if spread else None
        if self.spread is not None:
            nn.init.zeros_(self.spread.weight)

    def modulate(self, embedding: Tensor) -> Modulation:
        """Return what shifts and scales the blocks and the last norm, given the conditions' embedding `(B, E)`."""
        return [norm.compute_parts(embedding) for norm in (*(block.norm for block in self.blocks), self.norm)]

    def forward(self, steps: Steps, modulation: Modulation, pasts: list[Past] | None = None) -> Tensor:
        """Return `(B, L, width)`: what the network knows after each step.

        With pasts, one for each block, the steps go on after those that were read before.
        """
        placed = steps.placed[..., None].to(self.op.weight.dtype)
        half = (self.positions - 1) / 2
        at = torch.stack([steps.x, steps.y], -1).to(self.op.weight.dtype) - half
        waves = self.waves(at / half).flatten(-2)
        h = (
            self.op(steps.op)
            + self.section(steps.section)
            + self.vertex(steps.vertex.clamp(max=VERTICES - 1))
            + self.number(steps.number.clamp(max=NUMBERS - 1))
            + placed * (self.x(steps.x) + self.y(steps.y))
            + self.state(torch.cat([steps.state, waves * placed], -1))
            + self.rays(self._describe_rays(steps.rays.to(at.dtype) / half))
        )
        if self.spread is not None:
            h = h + self.spread(steps.spread.to(at.dtype))
        read = pasts[0].read if pasts else 0
        count = torch.arange(read, read + h.shape[1], device=h.device, dtype=at.dtype).expand(h.shape[:2])
        where = torch.cat([at, count[..., None]], -1)
        for i, block in enumerate(self.blocks):
            h = block(h, where, modulation[i], pasts[i] if pasts else None)
        out: Tensor = self.norm(h, *modulation[-1])
        return out

    def _describe_rays(self, rays: Tensor) -> Tensor:
        """Return rays `(…, RAYS)` as numbers for a linear map: what each ray meets, and how far away."""
        met = torch.stack([rays > 0, rays < 0], -1).to(rays.dtype)
        return torch.cat([self.waves(rays.abs()) * met.sum(-1, keepdim=True), met], -1).flatten(-2)

    def choose_op(self, known: Tensor) -> Tensor:
        """Return logits `(…, ops)` of the next step."""
        logits: Tensor = self.op_logits(known)
        return logits

    def choose_x(self, known: Tensor, op: Tensor, pen: Tensor) -> Tensor:
        """Return logits `(N, positions)` of x, given the operation `(N,)` and where the pen is, `(N, 2)`."""
        return _score(self.to_x(known + self.chosen(op)), self.x, self.dx, pen[:, 0])

    def choose_y(self, known: Tensor, op: Tensor, x: Tensor, pen: Tensor) -> Tensor:
        """Return logits `(N, positions)` of y, given the operation, x and where the pen is."""
        across = x - pen[:, 0] + self.positions - 1
        told = known + self.chosen(op) + self.x(x) + self.dx(across)
        return _score(self.to_y(told), self.y, self.dy, pen[:, 1])


class Places(nn.Module):
    """Embed positions on a line, so that near ones are alike: waves of many lengths, mapped linearly, and a table.

    Parameters
    ----------
    count
        Number of positions.
    width
        Size of the embedding.
    """

    waves: Tensor

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        lengths = torch.logspace(math.log10(2.2), math.log10(2 * count), WAVES)
        angles = 2 * math.pi * torch.arange(count)[:, None] / lengths
        self.register_buffer("waves", torch.cat([angles.sin(), angles.cos()], -1), persistent=False)
        self.linear = nn.Linear(2 * WAVES, width, bias=False)
        nn.init.normal_(self.linear.weight, std=0.02)
        self.table = _table(count, width)
        nn.init.zeros_(self.table.weight)

    @property
    def weight(self) -> Tensor:
        """The embeddings of all positions, `(count, width)`."""
        embedded: Tensor = self.linear(self.waves) + self.table.weight
        return embedded

    def forward(self, index: Tensor) -> Tensor:
        """Embed positions `(…,)` as `(…, width)`."""
        return F.embedding(index, self.weight)


def _score(wanted: Tensor, there: Places, away: Places, pen: Tensor) -> Tensor:
    """Return logits `(N, positions)`: how well each position fits, where it lies and how far it is from the pen.

    `wanted` is `(N, 2 · width)`: what is wanted of the position, and of its distance.
    """
    of_place, of_distance = wanted.chunk(2, -1)
    count = len(there.waves)
    distance = torch.arange(count, device=pen.device) - pen[:, None] + count - 1
    logits: Tensor = of_place @ there.weight.T + (of_distance @ away.weight.T).gather(1, distance)
    return logits


class _Block(nn.Module):
    """Causal self-attention and a perceptron, each with a skip and a gate, modulated by an embedding."""

    frequencies: Tensor

    def __init__(self, width: int, embedding: int, head: int, inner: int, dropout: float, positions: int) -> None:
        super().__init__()
        self.heads = width // head
        self.norm = Adaptive(width, embedding, parts=6)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.inner = nn.Linear(width, inner)
        self.outer = nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)
        pairs = head // 2
        across = 3 * pairs // 8
        spatial = 2 * math.pi / torch.logspace(math.log10(6), math.log10(2 * positions), across)
        steps = 2 * math.pi / torch.logspace(math.log10(8), math.log10(2048), pairs - 2 * across)
        frequencies = torch.zeros(3, pairs)
        frequencies[0, :across] = spatial
        frequencies[1, across : 2 * across] = spatial
        frequencies[2, 2 * across :] = steps
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, x: Tensor, where: Tensor, parts: tuple[Tensor, ...], past: Past | None) -> Tensor:
        shift, scale, gate, shift_after, scale_after, gate_after = parts
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm(x, shift, scale)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        # Not a matrix product, which mixed precision would round: angles are large.
        angles = (where.float()[..., None] * self.frequencies).sum(-2)[:, None]
        cos, sin = angles.cos().to(q.dtype), angles.sin().to(q.dtype)
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        if past is not None:
            k, v = past.extend(k, v)
        h = F.scaled_dot_product_attention(q, k, v, is_causal=length > 1)
        x = x + (1 + gate) * self.out(h.transpose(1, 2).reshape(batch, length, width))
        h = self.outer(self.dropout(F.gelu(self.inner(self.norm(x, shift_after, scale_after)))))
        return x + (1 + gate_after) * h


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pairs of channels `(…, 2 C)` by angles whose cosine and sine `(…, C)` are given."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def _table(rows: int, width: int) -> nn.Embedding:
    table = nn.Embedding(rows, width)
    nn.init.normal_(table.weight, std=0.02)
    table.weight = Table(table.weight)
    return table


def _perceptron(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width), nn.Linear(width, 2 * width))
