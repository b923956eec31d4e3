"""Samplers of models of tokens: one token after another, or all tokens at once in a few steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from citygrain.errors import ConfigError
from citygrain.protocols import Holds, HoleFiller, Known, NextTokenModel, Noise, require
from citygrain.samplers.base import Handle, HandleSampler
from citygrain.spec import Conditions


@dataclass(frozen=True)
class TokenSampler(HandleSampler[Handle]):
    """Settings that both samplers of tokens share: how logits become the probabilities that tokens are drawn with.

    Parameters
    ----------
    temperature
        Divides the logits: below 1 more typical, above 1 more diverse; 0 takes the likeliest token.
    top_k
        Number of the likeliest tokens to draw from; None draws from all tokens.
    top_p
        Draw from the likeliest tokens that together reach this probability (Holtzman et al. 2020); 1 draws from all.
    guidance
        Weight w of classifier-free guidance (Ho & Salimans 2022) on logits, absent + w · (asked − absent). 1 follows
        the conditions as learned; a larger number exaggerates them and costs diversity; 0 ignores them.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    guidance: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0 or (self.top_k is not None and self.top_k < 1) or not 0 < self.top_p <= 1:
            raise ConfigError(
                "These sampler settings cannot work.",
                expected="temperature ≥ 0, top_k ≥ 1 or null, 0 < top_p ≤ 1",
                got=f"temperature={self.temperature}, top_k={self.top_k}, top_p={self.top_p}",
            )

    def compute_shares(self, logits: Tensor) -> Tensor:
        """Return the shares, in the shape of the logits `(…, K)`, in proportion to which tokens are drawn."""
        if self.temperature == 0:
            return F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits)
        shares = (logits / self.temperature).softmax(-1)
        if self.top_k is None and self.top_p == 1:
            return shares
        likeliest, tokens = shares.sort(descending=True, stable=True)
        likelier = likeliest.cumsum(-1) - likeliest  # of all likelier tokens together
        kept = likelier < self.top_p
        if self.top_k is not None:
            kept[..., self.top_k :] = False
        return torch.zeros_like(shares).scatter(-1, tokens, likeliest * kept)

    def pick(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """Draw tokens `(…,)`. Each number `(…,)` from [0, 1) picks one by its place in the cumulated probabilities."""
        reached = self.compute_shares(logits).double().cumsum(-1)
        return torch.searchsorted(reached, uniform[..., None] * reached[..., -1:], right=True)[..., 0]

    @property
    def runs(self) -> int:
        """Runs of the model for one sample: 2 (with the request, and without it) or, where one of them is enough, 1."""
        return 1 if self.guidance in {0, 1} else 2

    def repeat_conditions(self, conditions: Conditions) -> Conditions:
        """Return the conditions of all runs, `runs · B`."""
        if self.guidance == 0:
            return conditions.absent()
        return conditions if self.guidance == 1 else Conditions.cat([conditions, conditions.absent()])

    def guide(self, logits: Tensor) -> Tensor:
        """Combine the logits of all runs `(runs · B, …)` into guided logits `(B, …)`."""
        if self.runs == 1:
            return logits
        asked, absent = logits.chunk(2)
        return torch.lerp(absent, asked, self.guidance)


@dataclass(frozen=True)
class NextToken(TokenSampler[NextTokenModel]):
    """Draw one token after another, row by row."""

    needs: ClassVar[type] = NextTokenModel

    def draw(self, model: NextTokenModel, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw tokens `(B, h, w)`."""
        uniform = noise.uniform(math.prod(model.token_shape))
        read = model.reader(self.repeat_conditions(conditions))
        tokens: list[Tensor] = []
        for number in uniform.unbind(1):
            last = tokens[-1].repeat(self.runs) if tokens else None
            tokens.append(self.pick(self.guide(read(last)), number))
        return torch.stack(tokens, 1).view(-1, *model.token_shape)


@dataclass(frozen=True)
class MaskedTokens(TokenSampler[HoleFiller]):
    """Draw all unknown tokens at once, keep some of them, and draw the others again given those (Chang et al. 2022).

    Tokens of the same step are drawn independently of each other, so more steps are more exact. A token is kept where
    the model is certain of its cell, whatever token was drawn there. (Chang et al. keep the likeliest of the drawn
    tokens, which favours common tokens.) So with one token per step the result is an exact draw from the model.

    Parameters
    ----------
    steps
        Number of runs of the model. The share of unknown tokens falls as a cosine, slowly at first.
    randomness
        Weight of Gumbel noise, in nats, against the entropies of the cells. 0 goes strictly from certain to uncertain
        cells, and so along edges; a larger number spreads the kept tokens of a step over the layout.
    """

    needs: ClassVar[type] = HoleFiller

    steps: int = 12
    randomness: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1 or self.randomness < 0:
            raise ConfigError(
                "These sampler settings cannot work.",
                expected="steps ≥ 1, randomness ≥ 0",
                got=f"steps={self.steps}, randomness={self.randomness}",
            )

    def draw(self, model: HoleFiller, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw tokens `(B, h, w)`."""
        nothing = torch.zeros(len(noise), *model.token_shape, dtype=torch.int64, device=noise.device)
        return self.fill(model, nothing, nothing.bool(), conditions, noise)

    def complete(self, model: HoleFiller, known: Known, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw tokens `(B, h, w)` around the known parts: tokens that stand for known cells only are kept."""
        holds = require(model, Holds, "Keeping parts of a layout", ["masked_transformer"])
        tokens = holds.read(known.layout * known.keep)
        return self.fill(model, tokens, holds.settled(known.keep), conditions, noise)

    def fill(self, model: HoleFiller, tokens: Tensor, known: Tensor, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw the tokens `(B, h, w)` where `known` `(B, h, w)` is false, and keep the others."""
        tokens, known, conditions = tokens.flatten(1), known.flatten(1), self.repeat_conditions(conditions)
        unknown = (~known).sum(1)
        for step in range(1, self.steps + 1):
            if known.all():
                break
            logits = self.guide(
                model.masked_logits(tokens.repeat(self.runs, 1), known.repeat(self.runs, 1), conditions)
            )
            drawn = self.pick(logits, noise.uniform(tokens.shape[1]))
            certainty = -torch.special.entr(logits.softmax(-1)).sum(-1)
            gumbel = -(-noise.uniform(tokens.shape[1]).clamp_min(1e-20).log()).log()
            score = (certainty + self.randomness * gumbel).masked_fill(known, -math.inf)
            still = 0.0 if step == self.steps else math.cos(math.pi / 2 * step / self.steps)
            keep = ((~known).sum(1) - (still * unknown).floor()).clamp_min(1)
            kept = ~known & (score.argsort(1, descending=True).argsort(1) < keep[:, None])
            tokens, known = torch.where(kept, drawn, tokens), known | kept
        return tokens.view(-1, *model.token_shape)
