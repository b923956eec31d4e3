"""Reading texts of strokes step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from citygrain.networks.stroke_network import Steps
from citygrain.networks.transformer import Past
from citygrain.spec import Conditions

if TYPE_CHECKING:
    from citygrain.models.stroke_transformer import StrokeTransformer


class StepReader:
    """Reads texts step by step, and remembers keys and values of the steps it has read.

    Parameters
    ----------
    model
        The model.
    conditions, site
        One for each text, see `StrokeTransformer.embed_conditions`.
    """

    def __init__(self, model: StrokeTransformer, conditions: Conditions, site: Tensor) -> None:
        self.model, self.conditions = model, conditions
        self.modulation = model.network.modulate(model.embed_conditions(conditions, site))
        steps = 2 + model.code.rows + 2 * len(model.code.kinds)
        self.pasts = [Past(steps) for _ in model.network.blocks]

    def read(self, steps: Steps, drawn: Tensor) -> Tensor:
        """Read one step `(B, 1)` of each text, without its account; return what is known then, `(B, width)`."""
        whole = self.model.add_account(steps, drawn, self.conditions)
        known: Tensor = self.model.network(whole, self.modulation, self.pasts)[:, 0]
        return known

    def select(self, rows: Tensor) -> None:
        """Forget all texts but some."""
        self.conditions = self.conditions[rows]
        self.modulation = [tuple(part[rows] for part in parts) for parts in self.modulation]
        for past in self.pasts:
            past.select(rows)
