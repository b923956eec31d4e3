"""The base of families that generate layouts as tokens of a frozen quantised codec."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from citygrain.errors import ConfigError
from citygrain.models.code_space import find_settled
from citygrain.networks.conditioner import ConditionEmbedding, ConditionPlanes
from citygrain.protocols import Noise, Quantized, Sampler, as_module, require
from citygrain.spec import Conditions, LayoutSpec

QUANTIZED = ("vector_quantized",)
"""Families whose codes are tokens."""


class TokenSpace(nn.Module, ABC):
    """A family that models the tokens of layouts.

    Parameters
    ----------
    spec
        Layouts and conditions.
    codec
        A model with tokens for such layouts. It is frozen, and its weights are part of this model's state.
    network
        Makes the network from `symbols`, `out_channels`, `planes`, `embedding` and `causal`. There is one symbol more
        than there are tokens: the start, or the mask.
    sampler
        Used by `sample` unless another is given.
    embedding
        Size of the conditions' embedding.
    causal
        Whether a token may only depend on the tokens before it.

    Attributes
    ----------
    token_shape
        `(h, w)` of the tokens of one layout.
    book_size
        Number of different tokens.

    Raises
    ------
    ConfigError
        When there is no codec, or the network does not read tokens.
    CapabilityError
        When the codec has no tokens.
    """

    def __init__(
        self,
        spec: LayoutSpec,
        *,
        codec: nn.Module | None,
        network: Callable[..., nn.Module],
        sampler: Sampler,
        embedding: int,
        causal: bool,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if codec is None:
            raise ConfigError(
                f"{name} writes layouts in the tokens of a codec, and has none.",
                expected=f"a trained {' or '.join(QUANTIZED)}",
                remedy="codec=runs/<name of such a run>",
            )
        self.spec = spec
        self.codec = require(codec, Quantized, f"The code for {name}", QUANTIZED)
        codec.requires_grad_(False).eval()
        self.token_shape: tuple[int, int] = self.codec.code_shape[1:]
        self.book_size = self.codec.book_size
        self.sampler = sampler
        self.conditioner = ConditionEmbedding(spec, embedding)
        self.planes = ConditionPlanes(spec)
        sizes = {
            "symbols": self.book_size + 1,
            "out_channels": self.book_size,
            "planes": self.planes.channels,
            "embedding": embedding,
            "causal": causal,
        }
        try:
            inspect.signature(network).bind(**sizes)
        except TypeError as error:
            raise ConfigError(
                f"This is no network for {name}, which reads tokens.",
                expected=f"one that takes {', '.join(sizes)}, such as citygrain.networks.transformer.Transformer",
                got=getattr(network, "func", network),
            ) from error
        self.network: Any = network(**sizes)

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode. The codec always stays in evaluation mode."""
        super().train(mode)
        as_module(self.codec).eval()
        return self

    @torch.no_grad()
    def to_code(self, layout: Tensor) -> Tensor:
        """Return the tokens `(B, h, w)` of layouts."""
        return self.codec.tokens(layout)

    def read(self, layout: Tensor) -> Tensor:
        """Return the tokens `(B, h, w)` of layouts."""
        return self.to_code(layout)

    def settled(self, keep: Tensor) -> Tensor:
        """Return, as bool `(B, h, w)`, which tokens stand for kept cells only."""
        return find_settled(keep, self.token_shape)[:, 0]

    @abstractmethod
    def code_loss(self, code: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the mean surprise of tokens `(B, h, w)`, in nats per token."""

    def loss(self, layout: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the mean surprise of the tokens of layouts `(B, C, H, W)`, in nats per token."""
        return self.code_loss(self.to_code(layout), conditions)

    @torch.no_grad()
    def sample(self, conditions: Conditions, *, noise: Noise, sampler: Sampler | None = None) -> Tensor:
        """Draw layouts `(B, C, H, W)` in [0, 1]."""
        return self.codec.from_tokens((sampler or self.sampler)(self, conditions, noise))

    def embed_conditions(self, conditions: Conditions) -> tuple[Tensor, Tensor]:
        """Return the conditions as the network sees them: planes `(B, P, h, w)` and embedding `(B, E)`."""
        return self.planes(conditions, self.token_shape[0]), self.conditioner(conditions)
