"""The masked transformer: guesses any tokens of a layout from any others, all at once."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from citygrain.errors import CapabilityError, DataError
from citygrain.models.token_space import TokenSpace
from citygrain.protocols import Noise, Sampler
from citygrain.samplers.tokens import MaskedTokens
from citygrain.spec import Conditions, LayoutSpec


class MaskedTransformer(TokenSpace):
    """MaskGIT: learns to guess tokens that were masked, and fills in all of them in a few steps (Chang et al. 2022).

    What is masked can be anything, so that the same model draws whole layouts and fills holes in given ones.

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
        """Logits `(B, L, book_size)` for tokens `(B, L)`, of which only those `known` `(B, L)` are looked at."""
        return self.network(torch.where(known, tokens, self.book_size), *self.asked(conditions))

    def code_loss(self, code: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the mean surprise, in nats a token, of those tokens of `(B, h, w)` that a random mask hides."""
        tokens = code.flatten(1)
        batch, length = tokens.shape
        # Every share of the tokens is masked at times, large ones most often; stratified over the batch.
        progress = (torch.arange(batch, device=code.device) + torch.rand(batch, device=code.device)) / batch
        count = (torch.cos(math.pi / 2 * progress) * length).ceil().clamp_min(1)
        masked = torch.rand(batch, length, device=code.device).argsort(1) < count[:, None]
        logits = self.masked_logits(tokens, ~masked, conditions)
        return {"loss": F.cross_entropy(logits[masked], tokens[masked])}

    @torch.no_grad()
    def fill(
        self,
        layout: Tensor,
        hole: Tensor,
        conditions: Conditions,
        *,
        noise: Noise,
        sampler: MaskedTokens | None = None,
    ) -> Tensor:
        """Draw what is in the holes of layouts anew, to fit what is around them.

        Parameters
        ----------
        layout
            `(B, C, H, W)` in [0, 1]; what it holds in the holes is not looked at.
        hole
            `(B, H, W)`, true for the cells to fill in. Tokens that touch them are drawn.
        conditions
            What the whole layouts are asked to be.
        noise
            One stream a layout.
        sampler
            Another than the model's own.

        Returns
        -------
        Tensor
            `(B, C, H, W)`, outside the holes exactly as it was.

        Raises
        ------
        DataError
            For holes of another shape than the layouts.
        CapabilityError
            For a sampler that draws whole layouts only.
        """
        if tuple(hole.shape) != (len(layout), *layout.shape[2:]) or hole.dtype != torch.bool:
            raise DataError(
                "These are no holes in these layouts.",
                expected=f"booleans {(len(layout), *layout.shape[2:])}",
                got=f"{hole.dtype} {tuple(hole.shape)}",
            )
        chosen = sampler or self.sampler
        if not isinstance(chosen, MaskedTokens):
            raise CapabilityError(
                "This sampler fills no holes.", got=type(chosen).__name__, choices=[MaskedTokens.__name__]
            )
        hole = hole[:, None]
        touched = F.adaptive_max_pool2d(hole.to(layout), self.token_shape)[:, 0] > 0
        tokens = self.to_code(layout.masked_fill(hole, 0.0))
        drawn = chosen.complete(self, tokens, ~touched, conditions, noise)
        return torch.where(hole, self.codec.from_tokens(drawn), layout)
