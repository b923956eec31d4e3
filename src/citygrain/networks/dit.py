"""The diffusion transformer: patches are tokens that attend to each other; conditions steer the normalisation."""

from __future__ import annotations

from typing import Any

from einops import rearrange
from torch import Tensor, nn

from citygrain.errors import ConfigError
from citygrain.networks.blocks import zero_weights
from citygrain.networks.transformer import Adaptive, Block, encode_positions


class DiT(nn.Module):
    """A transformer over patches, modulated by an embedding (Peebles & Xie 2023, adaLN-Zero).

    Positions are fixed sines and cosines of row and column, so a trained network also accepts layouts of other sizes.

    Parameters
    ----------
    in_channels, out_channels, embedding
        Given by the family: channels in and out, and the size of the embedding.
    width
        Channels of a token; a multiple of 4.
    depth
        Number of blocks.
    head
        Channels per attention head. There is a single head where `width` is not a multiple of this.
    patch
        Edge of a patch in cells. With half the edge, attention costs 16 times as much.
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
        self.blocks: Any = nn.ModuleList(
            Block(width, embedding, head=head, inner=int(ratio * width), dropout=dropout, act=activation)
            for _ in range(depth)
        )
        self.norm = Adaptive(width, embedding, parts=2)
        self.cells = zero_weights(nn.Linear(width, out_channels * patch**2))

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
        h = rearrange(grid, "b c h w -> b (h w) c") + encode_positions(rows, columns, self.width, grid.device)
        for block in self.blocks:
            h = block(h, block.norm.compute_parts(embedding))
        patches = self.cells(self.norm(h, *self.norm.compute_parts(embedding)))
        return rearrange(patches, "b (h w) (c p q) -> b c (h p) (w q)", h=rows, w=columns, p=self.patch, q=self.patch)
