"""Markov chains that carry on from batch to batch: what energies are trained against."""

from __future__ import annotations

import torch
from torch import Tensor

from citygrain.spec import Conditions


class Replay:
    """A pool of chains, each with the conditions that it runs under (Tieleman 2008; Du & Mordatch 2019).

    It is no part of a model's state, which it would bloat: a run that resumes fills it anew.

    Parameters
    ----------
    capacity
        How many chains the pool holds. Until it is full, all chains that are drawn begin afresh.
    restart
        Share of the chains that begin afresh ever after.
    """

    def __init__(self, capacity: int, restart: float) -> None:
        self.capacity = capacity
        self.restart = restart
        self.states: Tensor | None = None
        self.conditions: Conditions | None = None

    def __len__(self) -> int:
        return 0 if self.states is None else len(self.states)

    def draw(self, fresh: Tensor, conditions: Conditions) -> tuple[Tensor, Tensor, Conditions]:
        """Return chains to carry on: their slots `(B,)`, states and conditions.

        Parameters
        ----------
        fresh
            `(B, …)`, where chains begin.
        conditions
            Of those that begin afresh.
        """
        batch, size = len(fresh), len(self)
        if self.states is None or self.conditions is None or size < max(self.capacity, batch):
            return torch.arange(size, size + batch, device=fresh.device), fresh, conditions
        slots = torch.randperm(size)[:batch].to(fresh.device)
        begins = torch.rand(batch).to(fresh.device) < self.restart
        chosen = torch.arange(batch, device=fresh.device) + batch * begins
        states = torch.cat([self.states[slots], fresh])[chosen]
        return slots, states, Conditions.cat([self.conditions[slots], conditions])[chosen]

    def keep(self, slots: Tensor, states: Tensor, conditions: Conditions) -> None:
        """Put chains back where they were drawn, or where new ones have their place."""
        if self.states is None or self.conditions is None:
            self.states, self.conditions = states.clone(), conditions.repeat(1)  # its own, to be written over
        elif int(slots.max()) >= len(self):
            self.states = torch.cat([self.states, states])
            self.conditions = Conditions.cat([self.conditions, conditions])
        else:
            self.states[slots] = states
            for name, values in vars(self.conditions).items():
                values[slots] = getattr(conditions, name)
