"""What all samplers are: a frozen value that holds one family's knobs and runs that family's handle."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from inspect import isabstract
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor

from citygrain.errors import CapabilityError
from citygrain.protocols import Noise
from citygrain.spec import Conditions

Handle = TypeVar("Handle")
"""The protocol of the handle that a sampler needs of a model."""


@dataclass(frozen=True)
class HandleSampler(ABC, Generic[Handle]):
    """A sampler that says which handle it needs of a model, and refuses models without it.

    Attributes
    ----------
    needs
        The protocol of the handle.
    """

    needs: ClassVar[type[Any]]

    def __call__(self, model: object, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw `(B, …)` in the space of the model's handle.

        Raises
        ------
        CapabilityError
            When the model has no such handle, see `check`.
        """
        self.check(model)
        handle: Any = model  # it is one, as was just checked
        return self.draw(handle, conditions, noise)

    def check(self, model: object) -> None:
        """Refuse a model without the handle.

        Raises
        ------
        CapabilityError
            It names the samplers that fit the model.
        """
        if not isinstance(model, self.needs):
            raise CapabilityError(
                f"{type(self).__name__} needs a model that is a {self.needs.__name__}.",
                got=type(model).__name__,
                choices=fitting(model),
                remedy="choose one of these for this model",
            )

    @abstractmethod
    def draw(self, model: Handle, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw from a model that has the handle."""


def fitting(model: object) -> dict[str, type[HandleSampler[Any]]]:
    """Return the samplers that a model has the handle for, by name in alphabetical order.

    A model has its own imported, so that they are among them.
    """
    return {kind.__name__: kind for kind in sorted(_kinds(), key=lambda k: k.__name__) if isinstance(model, kind.needs)}


def _kinds() -> list[type[HandleSampler[Any]]]:
    """Return the samplers that can be used."""
    found, seen = [], list(HandleSampler.__subclasses__())
    while seen:
        kind = seen.pop()
        seen += kind.__subclasses__()
        found += [] if isabstract(kind) else [kind]
    return found
