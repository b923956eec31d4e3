"""What all samplers are: a frozen value that holds one family's knobs and runs that family's handle."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from citygrain.errors import CapabilityError
from citygrain.protocols import Noise
from citygrain.spec import Conditions


@dataclass(frozen=True)
class HandleSampler(ABC):
    """A sampler that says which handle it needs of a model, and refuses models without it.

    Attributes
    ----------
    needs
        The protocol of the handle.
    """

    needs: ClassVar[type]

    def __call__(self, model: Any, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw `(B, …)` in the space of the model's handle.

        Raises
        ------
        CapabilityError
            When the model has no such handle; it names the samplers that fit the model.
        """
        if not isinstance(model, self.needs):
            raise CapabilityError(
                f"{type(self).__name__} needs a model that is a {self.needs.__name__}.",
                got=type(model).__name__,
                choices=sorted(name for name, needs in _kinds(HandleSampler) if isinstance(model, needs)),
                remedy="choose one of these for this model",
            )
        return self.draw(model, conditions, noise)

    @abstractmethod
    def draw(self, model: Any, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw from a model that has the handle."""


def _kinds(kind: Any) -> list[tuple[str, type]]:
    """Name and handle of the samplers that can be used. A model has its own imported, so that they are among them."""
    children = kind.__subclasses__()
    public = [(child.__name__, child.needs) for child in children if not child.__name__.startswith("_")]
    return public + [found for child in children for found in _kinds(child)]
