"""The space in which a family works: cells, or the code of a frozen codec. Both are standardised per channel."""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from citygrain.errors import ConfigError
from citygrain.protocols import Codec, as_module, require
from citygrain.spec import LayoutSpec

CODECS = ("variational_autoencoder", "autoencoder", "vector_quantized", "pca")
"""Families with a code."""


class CodeSpace(nn.Module):
    """A family that models standardised cells, or standardised codes (Rombach et al. 2022).

    Buffers that are measured on the training set give every channel zero mean and unit standard deviation. So a channel
    that covers 0.3 % of the cells, such as cycle tracks, has the same weight as a channel that covers 30 %.

    Parameters
    ----------
    spec
        Layouts and conditions.
    codec
        A model with a code of such layouts; it may have other conditions and places. It is frozen, and its weights are
        part of this model's state. None works in cells.

    Attributes
    ----------
    latent_shape
        `(C, H, W)` of the standardised cells or codes.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, spec: LayoutSpec, codec: nn.Module | None) -> None:
        super().__init__()
        self.spec = spec
        self.codec: Codec | None = None
        if codec is not None:
            self.codec = require(codec, Codec, f"A code for {type(self).__name__}", CODECS)
            codec.requires_grad_(False).eval()
        shape = spec.shape if self.codec is None else self.codec.code_shape
        self.latent_shape: tuple[int, int, int] = shape
        self.register_buffer("shift", torch.zeros(shape[0], 1, 1))
        self.register_buffer("scale", torch.ones(shape[0], 1, 1))

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode. The codec always stays in evaluation mode."""
        super().train(mode)
        if self.codec is not None:
            as_module(self.codec).eval()
        return self

    @property
    def channelwise(self) -> bool:
        """Whether each channel of a clean tensor stands for the channel of the layout with the same index."""
        return self.codec is None

    @torch.no_grad()
    def measure_data(self, layouts: Tensor) -> None:
        """Measure shift and scale of each channel on training layouts `(N, C, H, W)`."""
        codes = torch.cat([self.to_code(part) for part in torch.split(layouts, 256)])
        self.shift.copy_(codes.mean((0, 2, 3))[:, None, None])
        self.scale.copy_(codes.std((0, 2, 3))[:, None, None].clamp_min(1e-3))

    @torch.no_grad()
    def to_code(self, layout: Tensor) -> Tensor:
        """Return the codes of layouts, or the layouts themselves if there is no codec."""
        return layout if self.codec is None else self.codec.encode(layout)

    def standardise(self, code: Tensor) -> Tensor:
        """Return the standardised clean tensors `(B, *latent_shape)` of codes."""
        return (code - self.shift) / self.scale

    def read(self, layout: Tensor) -> Tensor:
        """Return the standardised clean tensors `(B, *latent_shape)` of layouts `(B, C, H, W)`."""
        return self.standardise(self.to_code(layout))

    def settled(self, keep: Tensor) -> Tensor:
        """Return which elements of clean tensors stand for kept cells only, see `find_settled`."""
        return find_settled(keep, self.latent_shape, channelwise=self.channelwise)

    def to_layout(self, clean: Tensor) -> Tensor:
        """Return the layouts `(B, C, H, W)` in [0, 1] of standardised clean `(B, *latent_shape)`."""
        code = clean * self.scale + self.shift
        return code.clamp(0, 1) if self.codec is None else self.codec.decode(code)


def find_settled(keep: Tensor, shape: tuple[int, ...], *, channelwise: bool = False) -> Tensor:
    """Find the settled elements of codes. An element is settled when all cells that it stands for are kept.

    Parameters
    ----------
    keep
        `(B, C, H, W)` bool: which cells are kept.
    shape
        `(…, h, w)` of a code; h and w divide H and W.
    channelwise
        Whether each channel of the code stands for one channel of the layout. Else an element stands for all channels.

    Returns
    -------
    Tensor
        `(B, C or 1, h, w)` bool.
    """
    kept = keep if channelwise else keep.all(1, keepdim=True)
    factor = keep.shape[-1] // shape[-1]
    return F.max_pool2d((~kept).float(), factor) == 0


def compute_code_shape(spec: LayoutSpec, encoder: nn.Module, channels: int) -> tuple[int, int, int]:
    """Compute the shape of an encoder's codes.

    Raises
    ------
    ConfigError
        When the size of a layout cannot be halved as often as the encoder does.
    """
    factor = int(getattr(encoder, "factor", 1))
    if spec.size_px % factor:
        raise ConfigError(
            "The encoder halves the layout more often than its size allows.",
            expected=f"a size_px that {factor} divides",
            got=spec.size_px,
            remedy="take a smaller stem or fewer widths in encoder and decoder, or another data.size_px",
        )
    return channels, spec.size_px // factor, spec.size_px // factor
