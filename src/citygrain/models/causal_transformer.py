"""The autoregressive transformer: a layout is a text of tokens, read row by row."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from citygrain.models.token_space import TokenSpace
from citygrain.protocols import Sampler
from citygrain.samplers.tokens import NextToken
from citygrain.spec import Conditions, LayoutSpec


class CausalTransformer(TokenSpace):
    """Predict each token of a layout from the tokens before it (van den Oord et al. 2017; Esser et al. 2021).

    Parameters
    ----------
    spec
        Layouts and conditions.
    codec
        A model with tokens for such layouts, see `TokenSpace`.
    network
        Makes the network, see `TokenSpace`.
    sampler
        Used by `sample` unless another is given; `NextToken` by default.
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
            spec, codec=codec, network=network, sampler=sampler or NextToken(), embedding=embedding, causal=True
        )

    def logits(self, tokens: Tensor, conditions: Conditions) -> Tensor:
        """Return logits `(B, L, book_size)` for all tokens `(B, L)` of layouts, each given the tokens before it."""
        start = tokens.new_full((len(tokens), 1), self.book_size)
        return self.network(torch.cat([start, tokens[:, :-1]], 1), *self.embed_conditions(conditions))

    def reader(self, conditions: Conditions) -> Callable[[Tensor | None], Tensor]:
        """Return a function that gives the logits of `logits` one token per call.

        It takes the tokens `(B,)` that were chosen last, or None at the start, and returns logits `(B, book_size)`. It
        computes each token once.
        """
        read: Callable[[Tensor], Tensor] = self.network.reader(*self.embed_conditions(conditions))
        start = conditions.place.new_full((len(conditions),), self.book_size)
        return lambda tokens: read(start if tokens is None else tokens)

    def code_loss(self, code: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the mean surprise of tokens `(B, h, w)`, in nats per token."""
        return {"loss": self._measure_surprise(code, conditions).mean()}

    @torch.no_grad()
    def log_likelihood(self, layout: Tensor, conditions: Conditions) -> Tensor:
        """Return the log-likelihood `(B,)`, in nats, of the tokens of layouts. It ignores what the codec loses."""
        return -self._measure_surprise(self.to_code(layout), conditions).sum(1)

    def _measure_surprise(self, code: Tensor, conditions: Conditions) -> Tensor:
        """Return the negative log-likelihood `(B, L)` of each token of `(B, h, w)`, in nats."""
        tokens = code.flatten(1)
        return F.cross_entropy(self.logits(tokens, conditions).mT, tokens, reduction="none")
