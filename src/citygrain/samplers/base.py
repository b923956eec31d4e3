"""The base of all samplers: a frozen dataclass that holds the settings of one way of drawing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from inspect import isabstract
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor

from citygrain.errors import CapabilityError
from citygrain.protocols import Noise
from citygrain.spec import Conditions

DIFFUSION = ("diffusion", "cell_diffusion", "ground_diffusion", "density_diffusion")
"""Families that denoise."""

Handle = TypeVar("Handle")
"""The handle of a model: the protocol through which a sampler draws from it."""


@dataclass(frozen=True)
class HandleSampler(ABC, Generic[Handle]):
    """A sampler that names the handle it needs, and refuses models without this handle.

    Attributes
    ----------
    needs
        Protocol of the handle.
    """

    needs: ClassVar[type[Any]]

    def __call__(self, model: object, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw `(B, …)` in the space of the model's handle.

        Raises
        ------
        CapabilityError
            When the model does not have the handle, see `check`.
        """
        self.check(model)
        handle: Any = model  # `check` has found that it has the handle
        return self.draw(handle, conditions, noise)

    def check(self, model: object) -> None:
        """Refuse a model without the handle.

        Raises
        ------
        CapabilityError
            When the model does not have the handle. The error names the samplers that fit the model.
        """
        if not isinstance(model, self.needs):
            raise CapabilityError(
                f"{type(self).__name__} needs a model that is a {self.needs.__name__}.",
                got=type(model).__name__,
                choices=find_fitting_samplers(model),
                remedy="choose one of these for this model",
            )

    @abstractmethod
    def draw(self, model: Handle, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw from a model that has the handle."""


def find_fitting_samplers(model: object) -> dict[str, type[HandleSampler[Any]]]:
    """Return the samplers that fit a model, by name in alphabetical order.

    Only imported samplers are found. The module of a family imports the samplers of that family.
    """
    return {
        kind.__name__: kind
        for kind in sorted(_list_samplers(), key=lambda k: k.__name__)
        if isinstance(model, kind.needs)
    }


def _list_samplers() -> list[type[HandleSampler[Any]]]:
    """Return all imported sampler classes that are not abstract."""
    found, seen = [], list(HandleSampler.__subclasses__())
    while seen:
        kind = seen.pop()
        seen += kind.__subclasses__()
        found += [] if isabstract(kind) else [kind]
    return found
