"""The masked transformer: it predicts any tokens of a layout from any others, all at once."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from citygrain.models.token_space import TokenSpace
from citygrain.protocols import Sampler
from citygrain.samplers.tokens import MaskedTokens
from citygrain.spec import Conditions, LayoutSpec


class MaskedTransformer(TokenSpace):
    """MaskGIT: predict masked tokens, and fill in all of them in a few steps (Chang et al. 2022).

    Any set of tokens can be masked, so the same model draws whole layouts and fills holes in known ones.

    Parameters
    ----------
    spec
        Layouts and conditions.
    codec
        A model with tokens for such layouts, see `TokenSpace`.
    network
        Makes the network, see `TokenSpace`.
    sampler
        Used by `sample` and `fill` unless another is given; `MaskedTokens` by default.
    embedding
        Size of the conditions' embedding.
    """

    def __init__(
        self,
        spec: LayoutSpec,
        *,
        codec: nn.Module | None,
        network: Callable[..., nn.Module],
        sampler: Sampler | None = None,
        embedding: int = 256,
    ) -> None:
        super().__init__(
            spec, codec=codec, network=network, sampler=sampler or MaskedTokens(), embedding=embedding, causal=False
        )

    def masked_logits(self, tokens: Tensor, known: Tensor, conditions: Conditions) -> Tensor:
        """Return logits `(B, L, book_size)` for tokens `(B, L)`. The model only sees the `known` ones, `(B, L)`."""
        return self.network(torch.where(known, tokens, self.book_size), *self.embed_conditions(conditions))

    def code_loss(self, code: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the mean surprise, in nats per token, of those tokens of `(B, h, w)` that a random mask hides."""
        tokens = code.flatten(1)
        batch, length = tokens.shape
        # The masked share is random, and most often large. It is stratified over the batch.
        progress = (torch.arange(batch, device=code.device) + torch.rand(batch, device=code.device)) / batch
        count = (torch.cos(math.pi / 2 * progress) * length).ceil().clamp_min(1)
        masked = torch.rand(batch, length, device=code.device).argsort(1) < count[:, None]
        logits = self.masked_logits(tokens, ~masked, conditions)
        return {"loss": F.cross_entropy(logits[masked], tokens[masked])}
