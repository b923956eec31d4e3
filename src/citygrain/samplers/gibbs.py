"""The sampler of restricted Boltzmann machines: it draws two layers of bits in turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from citygrain.errors import ConfigError
from citygrain.protocols import Bipartite, Holds, Known, Noise, require
from citygrain.samplers.base import HandleSampler
from citygrain.spec import Conditions


@dataclass(frozen=True)
class Gibbs(HandleSampler[Bipartite]):
    """Block Gibbs sampling (Geman & Geman 1984): all hidden bits given the visible bits, and the other way round.

    Parameters
    ----------
    steps
        How often both layers are drawn.
    temperature
        Divides all logits: below 1 more typical, above 1 more diverse; 0 takes the likelier value of each bit.
    """

    needs: ClassVar[type] = Bipartite

    steps: int = 100
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.temperature >= 0:
            raise ConfigError(
                "These sampler settings cannot work.",
                expected="steps ≥ 1, temperature ≥ 0",
                got=f"steps={self.steps}, temperature={self.temperature}",
            )

    def draw(self, model: Bipartite, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw probabilities `(B, visible)` of the visible bits, given the hidden bits of the last step."""
        return self._walk(model, conditions, noise, lambda visible: visible)

    def complete(self, model: Bipartite, known: Known, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw probabilities of the visible bits, while the bits of the known part are held."""
        holds = require(model, Holds, "Keeping parts of a layout", ["boltzmann_machine"])
        coverage, settled = holds.read(known.layout), holds.settled(known.keep)
        bits = (noise.uniform(*coverage.shape[1:]) < coverage).to(coverage.dtype)
        return self._walk(model, conditions, noise, lambda visible: torch.where(settled, bits, visible))

    def _walk(self, model: Bipartite, conditions: Conditions, noise: Noise, hold: Callable[[Tensor], Tensor]) -> Tensor:
        biases = model.biases(conditions)
        visible = hold(self._draw_bits(biases.visible, noise))
        for _ in range(self.steps):
            hidden = self._draw_bits(model.hidden_logits(visible, biases), noise)
            logits = model.visible_logits(hidden, biases)
            visible = hold(self._draw_bits(logits, noise))
        return self._compute_probability(logits)

    def _compute_probability(self, logits: Tensor) -> Tensor:
        return (logits / self.temperature).sigmoid() if self.temperature else (logits > 0).to(logits.dtype)

    def _draw_bits(self, logits: Tensor, noise: Noise) -> Tensor:
        return (noise.uniform(*logits.shape[1:]) < self._compute_probability(logits)).to(logits.dtype)
