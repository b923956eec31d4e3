"""How each of the judges of an evaluation works: what `evaluate` may be told of them.

What is not given is as `citygrain evaluate` has it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Embedding:
    """The embedding of layouts, in which sets of layouts are compared.

    Attributes
    ----------
    steps
        Training steps on real windows. The embedding is kept beside the places, for the next model.
    """

    steps: int = 600


@dataclass(frozen=True)
class Classifier:
    """The network that is to tell generated layouts from real ones.

    Attributes
    ----------
    steps
        Training steps.
    """

    steps: int = 300


@dataclass(frozen=True)
class Memorisation:
    """The search for copies of training windows.

    Attributes
    ----------
    windows
        Training windows that are searched: the first ones that the model saw.
    """

    windows: int = 10_000


@dataclass(frozen=True)
class Obedience:
    """The test of how well layouts are what they were asked to be.

    Attributes
    ----------
    conditions
        Conditions that are tested, one after another; None for all in which training windows differ.
    levels
        Values of a condition that are asked for.
    each
        Layouts that are drawn at each value.
    attempts
        With more than one, layouts are also drawn with these attempts each, see `citygrain.generation.windows.draw`.
    between
        Percentiles of the training windows: the lowest and the highest value that are asked for.
    """

    conditions: tuple[str, ...] | None = None
    levels: int = 10
    each: int = 16
    attempts: int = 1
    between: tuple[float, float] = (10, 90)


@dataclass(frozen=True)
class Disruption:
    """The test of the metrics themselves, on real windows that are disrupted.

    Attributes
    ----------
    windows
        Real windows that are disrupted, at each degree of each disruption.
    """

    windows: int = 128
