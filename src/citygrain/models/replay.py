"""Markov chains that continue from batch to batch. Energies are trained with them."""

from __future__ import annotations

import torch
from torch import Tensor

from citygrain.spec import Conditions


class Replay:
    """A pool of chains, each with its own conditions (Tieleman 2008; Du & Mordatch 2019).

    The pool is not part of a model's state, because it is large. A run that is resumed fills it again.

    Parameters
    ----------
    capacity
        Number of chains in the pool. Until it is full, all drawn chains are new.
    restart
        Share of the drawn chains that are new after that.
    """

    def __init__(self, capacity: int, restart: float) -> None:
        self.capacity = capacity
        self.restart = restart
        self.states: Tensor | None = None
        self.conditions: Conditions | None = None

    def __len__(self) -> int:
        return 0 if self.states is None else len(self.states)

    def draw(self, fresh: Tensor, conditions: Conditions) -> tuple[Tensor, Tensor, Conditions]:
        """Draw chains to continue: their slots `(B,)`, states and conditions.

        Parameters
        ----------
        fresh
            `(B, …)`, the states of new chains.
        conditions
            The conditions of new chains.
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
        """Put chains back into their slots."""
        if self.states is None or self.conditions is None:
            self.states, self.conditions = states.clone(), conditions.repeat(1)  # copies, which are overwritten later
        elif int(slots.max()) >= len(self):
            self.states = torch.cat([self.states, states])
            self.conditions = Conditions.cat([self.conditions, conditions])
        else:
            self.states[slots] = states
            for name, values in vars(self.conditions).items():
                values[slots] = getattr(conditions, name)
