"""Lengths of ways that are drawn before the ways: what is not asked for is taken from training windows like it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from citygrain.measures import MEASURES
from citygrain.spec import NO_PLACE, Conditions, LayoutSpec

EXAMPLES = 128
"""Training windows of each place whose conditions are kept."""

REACH = 0.2
"""How far from what is asked for an example is still likely, in standard deviations of each condition."""

Floats = NDArray[np.float64]


class LengthBudget(nn.Module):
    """Draw the lengths of ways that are not asked for, as they go together in training windows.

    A window of the place is drawn, the likelier the nearer its conditions are to those that are asked for (*hot deck
    imputation*, Andridge & Little 2010), and its lengths are asked for, too. Where the share of a mode is asked for,
    the lengths are changed so that it is met.

    Parameters
    ----------
    spec
        Layouts and conditions.
    lengths
        The conditions that are lengths of ways.

    References
    ----------
    Andridge, R. R. & Little, R. J. A. (2010). A review of hot deck imputation for survey non-response. International
    Statistical Review 78(1).
    """

    examples: Tensor
    known: Tensor

    def __init__(self, spec: LayoutSpec, lengths: Sequence[str]) -> None:
        super().__init__()
        self.spec, self.lengths = spec, tuple(lengths)
        shape = (max(1, len(spec.places)), EXAMPLES, len(spec.scalars))
        self.register_buffer("examples", torch.zeros(shape))
        self.register_buffer("known", torch.zeros(shape, dtype=torch.bool))

    def measure_conditions(self, conditions: Conditions) -> None:
        """Keep conditions of the first windows of each place, of training windows."""
        for place, (kept, known) in enumerate(zip(self.examples, self.known, strict=True)):
            of = conditions[conditions.place == place] if self.spec.places else conditions
            count = min(len(of), EXAMPLES)
            known.fill_(False)
            known[:count] = of.present[:count]
            kept[:count] = of.scalars[:count].masked_fill(~of.present[:count], 0)

    def draw_lengths(self, conditions: Conditions, numbers: Tensor) -> Conditions:
        """Return the requests, with all lengths asked for that the place knows; uniform numbers `(B,)` choose them."""
        values, present = (part.cpu().numpy().copy() for part in (conditions.scalars.double(), conditions.present))
        examples = torch.where(self.known, self.examples.double(), torch.nan).cpu().numpy()
        spread = np.ma.masked_invalid(examples).std((0, 1)).filled(1.0).clip(1e-6)
        columns = np.array([self.spec.scalars.index(name) for name in self.lengths], int)
        for row, (place, number) in enumerate(zip(conditions.place.tolist(), numbers.tolist(), strict=True)):
            of = examples.reshape(-1, examples.shape[2]) if place == NO_PLACE else examples[place]
            asked = np.flatnonzero(present[row])
            known = np.isfinite(of[:, asked]).all(1) & np.isfinite(of).any(1)
            missing = columns[~present[row, columns]]
            if not known.any() or not len(missing):
                continue
            far = (((of[known][:, asked] - values[row, asked]) / spread[asked] / REACH) ** 2).sum(1) / 2
            chances = np.exp(far.min() - far).cumsum()
            drawn = of[known][np.searchsorted(chances, number * chances[-1], side="right").clip(max=len(chances) - 1)]
            missing = missing[np.isfinite(drawn[missing])]
            budget = {name: drawn[self.spec.scalars.index(name)] for name in self.lengths}
            fixed = {name: values[row, self.spec.scalars.index(name)] for name in self._list_asked(present[row])}
            met = meet_requests({name: value for name, value in budget.items() if np.isfinite(value)}, fixed)
            values[row, missing] = [met[self.spec.scalars[column]] for column in missing]
            present[row, missing] = True
        return replace(
            conditions,
            scalars=torch.from_numpy(values).to(conditions.scalars),
            present=torch.from_numpy(present).to(conditions.present.device),
        )

    def _list_asked(self, present: NDArray[np.bool_]) -> list[str]:
        """Return the names of what is asked for."""
        return [name for name, asked in zip(self.spec.scalars, present.tolist(), strict=True) if asked]


def meet_requests(lengths: dict[str, float], asked: dict[str, float]) -> dict[str, float]:
    """Return lengths in km/km² that are as asked for, and of which modes have the shares that are asked for.

    A length is never smaller than another one that is a part of it: street density is no smaller than arterials.

    Parameters
    ----------
    lengths
        Lengths that go together.
    asked
        Lengths and shares that are asked for.
    """
    met = {**lengths, **{name: value for name, value in asked.items() if name in lengths}}
    modes = {
        share: length
        for share, of in MEASURES.items()
        if of.per
        for length in lengths
        if MEASURES[length].weights.keys() == of.weights.keys()
    }
    shares = {modes[name]: min(max(value, 0.0), 1.0) for name, value in asked.items() if name in modes}
    whole = {channel for of in MEASURES.values() for channel in of.per}
    if shares and whole == {channel for length in modes.values() for channel in MEASURES[length].weights}:
        _meet_shares(met, shares, [length for length in modes.values() if length in asked], list(modes.values()))
    for name, part in permutations(met, 2):
        if MEASURES[part].weights.items() < MEASURES[name].weights.items() and met[part] > met[name]:
            if part not in asked:
                met[part] = met[name]
            elif name not in asked:
                met[name] = met[part]
    return met


def _meet_shares(met: dict[str, float], shares: dict[str, float], fixed: list[str], modes: list[str]) -> None:
    """Change lengths of modes so that some of them have given shares of all; fixed ones stay as they are."""
    both = [met[name] / shares[name] for name in shares if name in fixed and shares[name] > 0]
    free = [name for name in modes if name not in shares and name not in fixed]
    rest = max(1 - sum(shares.values()), 0.0)
    stays = sum(met[name] for name in fixed if name not in shares)
    if both:
        total = sum(both) / len(both)
    elif not free and stays > 0 and rest > 0:
        total = stays / rest
    else:
        total = max(sum(met[name] for name in modes), stays / rest if rest else 0.0)
    for name, share in shares.items():
        if name not in fixed:
            met[name] = share * total
    left, now = max(rest * total - stays, 0.0), sum(met[name] for name in free)
    for name in free:
        met[name] = left * (met[name] / now if now > 0 else 1 / len(free))
