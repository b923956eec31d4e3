"""Samplers of models over tokens: one token after another, or all at once in a few steps."""

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
class _TokenSampler(HandleSampler[Handle]):
    """Knobs shared by the samplers of tokens: what becomes of logits before a token is drawn.

    Parameters
    ----------
    temperature
        Divides the logits: below 1 more typical, above 1 more diverse, 0 takes the likeliest token.
    top_k
        Draw from so many of the likeliest tokens only; None for all.
    top_p
        Draw from the likeliest tokens that together reach this probability (Holtzman et al. 2020); 1 for all.
    guidance
        Weight w of classifier-free guidance (Ho & Salimans 2022) on logits, absent + w · (asked − absent): 1 follows
        the conditions as learned, more exaggerates them at the cost of diversity, 0 keeps them from the network.
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

    def shares(self, logits: Tensor) -> Tensor:
        """Return the probabilities, shaped like logits `(…, K)`, that tokens are drawn with."""
        if self.temperature == 0:
            return F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits)
        shares = (logits / self.temperature).softmax(-1)
        if self.top_k is None and self.top_p == 1:
            return shares
        likeliest, tokens = shares.sort(descending=True, stable=True)
        likelier = likeliest.cumsum(-1) - likeliest  # together, than each
        kept = likelier < self.top_p
        if self.top_k is not None:
            kept[..., self.top_k :] = False
        return torch.zeros_like(shares).scatter(-1, tokens, likeliest * kept)

    def pick(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """Draw tokens `(…,)` by numbers `(…,)` from [0, 1): where each falls in the cumulated probabilities."""
        reached = self.shares(logits).double().cumsum(-1)
        return torch.searchsorted(reached, uniform[..., None] * reached[..., -1:], right=True)[..., 0]

    @property
    def runs(self) -> int:
        """How often the model is run for a sample: as asked and with nothing asked for, or either."""
        return 1 if self.guidance in {0, 1} else 2

    def run_under(self, conditions: Conditions) -> Conditions:
        """Return the conditions of all runs, `runs · B` of them."""
        if self.guidance == 0:
            return conditions.absent()
        return conditions if self.guidance == 1 else Conditions.cat([conditions, conditions.absent()])

    def guided(self, logits: Tensor) -> Tensor:
        """Join the logits of all runs `(runs · B, …)` to those that are drawn from, `(B, …)`."""
        if self.runs == 1:
            return logits
        asked, absent = logits.chunk(2)
        return torch.lerp(absent, asked, self.guidance)


@dataclass(frozen=True)
class NextToken(_TokenSampler[NextTokenModel]):
    """Draw one token after another, in the order of reading."""

    needs: ClassVar[type] = NextTokenModel

    def draw(self, model: NextTokenModel, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw tokens `(B, h, w)`."""
        uniform = noise.uniform(math.prod(model.token_shape))
        read = model.reader(self.run_under(conditions))
        tokens: list[Tensor] = []
        for number in uniform.unbind(1):
            last = tokens[-1].repeat(self.runs) if tokens else None
            tokens.append(self.pick(self.guided(read(last)), number))
        return torch.stack(tokens, 1).view(-1, *model.token_shape)


@dataclass(frozen=True)
class MaskedTokens(_TokenSampler[HoleFiller]):
    """Draw all unknown tokens at once, keep some, and draw the others again knowing those (Chang et al. 2022).

    The more steps, the fewer tokens are drawn side by side without knowing of each other. Which are kept depends on how
    certain the model is of a cell, before anything is drawn there: Chang et al. keep the likeliest of the drawn tokens,
    which favours the commonest ones. So, one token a step, this is a draw from the model, whatever the order.

    Parameters
    ----------
    steps
        Number of runs of the model. The share that stays unknown falls as a cosine, slowly at first.
    randomness
        Weight of Gumbel noise, in nats, against the cells' entropies: 0 goes strictly from certain to uncertain, and
        so along edges; more spreads what is kept in one step over the layout.
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
        """Draw the tokens `(B, h, w)` that do not stand for cells that are known whole."""
        holds = require(model, Holds, "Keeping parts of a layout", ["masked_transformer"])
        tokens = holds.read(known.layout * known.keep)
        return self.fill(model, tokens, holds.settled(known.keep), conditions, noise)

    def fill(self, model: HoleFiller, tokens: Tensor, known: Tensor, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw those of tokens `(B, h, w)` that are not `known` `(B, h, w)`."""
        tokens, known, conditions = tokens.flatten(1), known.flatten(1), self.run_under(conditions)
        unknown = (~known).sum(1)
        for step in range(1, self.steps + 1):
            if known.all():
                break
            logits = self.guided(
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
