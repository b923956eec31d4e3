"""The autoregressive transformer: layouts as a text of tokens, read row by row."""

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
    """Predicts each token of a layout from those before it (van den Oord et al. 2017; Esser et al. 2021).

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
        """Logits `(B, L, book_size)` of each of the tokens `(B, L)` of whole layouts, given those before it."""
        start = tokens.new_full((len(tokens), 1), self.book_size)
        return self.network(torch.cat([start, tokens[:, :-1]], 1), *self.asked(conditions))

    def reader(self, conditions: Conditions) -> Callable[[Tensor | None], Tensor]:
        """Return what `logits` gives one token a call, at a cost that does not grow with those before it.

        It takes the tokens `(B,)` that were chosen last, None at the start, and returns logits `(B, book_size)`.
        """
        read: Callable[[Tensor], Tensor] = self.network.reader(*self.asked(conditions))
        start = conditions.place.new_full((len(conditions),), self.book_size)
        return lambda tokens: read(start if tokens is None else tokens)

    def code_loss(self, code: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the mean surprise of tokens `(B, h, w)`, in nats a token."""
        return {"loss": self._surprise(code, conditions).mean()}

    @torch.no_grad()
    def log_likelihood(self, layout: Tensor, conditions: Conditions) -> Tensor:
        """Logarithm `(B,)`, in nats, of the likelihood of the tokens of layouts: of what the codec keeps of them."""
        return -self._surprise(self.to_code(layout), conditions).sum(1)

    def _surprise(self, code: Tensor, conditions: Conditions) -> Tensor:
        """Negative log-likelihood `(B, L)` of each token of `(B, h, w)`, in nats."""
        tokens = code.flatten(1)
        return F.cross_entropy(self.logits(tokens, conditions).mT, tokens, reduction="none")
