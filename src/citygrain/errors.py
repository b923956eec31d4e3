"""The exceptions a user can meet. Each says what was expected, what came, the choices and the remedy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Self


class CitygrainError(Exception):
    """Base of every error that is the input's fault and not a bug: the command line prints it without a trace.

    Parameters
    ----------
    problem
        One sentence that says what is wrong.
    expected, got
        What would have been right, and what came.
    choices
        The valid values; the nearest to `got` is offered as "did you mean".
    remedy
        What to do about it.
    """

    def __init__(
        self,
        problem: str,
        *,
        expected: object = None,
        got: object = None,
        choices: Iterable[object] | None = None,
        remedy: str | None = None,
    ) -> None:
        lines = [problem]
        if expected is not None:
            lines.append(f"  expected: {expected}")
        if got is not None:
            lines.append(f"  got:      {got}")
        if choices is not None:
            names = [str(c) for c in choices]
            lines.append(f"  choices:  {', '.join(names) or '(none)'}")
            close = get_close_matches(str(got), names, n=1)
            if close:
                lines.append(f"  did you mean: {close[0]}")
        if remedy is not None:
            lines.append(f"  remedy:   {remedy}")
        super().__init__("\n".join(lines))
        self.problem = problem
        self.remedy = remedy

    def with_subject(self, name: str, keys: Mapping[str, str] | None = None) -> Self:
        """Return this error told of a named part of what was asked for.

        Parameters
        ----------
        name
            The part, which the problem then begins with.
        keys
            Beginning of a key of the configuration → what it is within the part: `source.` → `source.base.`.
        """

        def told(text: str) -> str:
            for before, after in (keys or {}).items():
                text = after.join(re.split(rf"(?<![\w.]){re.escape(before)}(?=\w[\w.]*=)", text))
            return text

        error = type(self)(f"{name}: {told(str(self))}")
        error.problem = f"{name}: {told(self.problem)}"
        error.remedy = None if self.remedy is None else told(self.remedy)
        return error


class PlaceError(CitygrainError):
    """A place that is no place: swapped or out-of-range coordinates, an unreadable polygon, an unknown name."""


class SourceError(CitygrainError):
    """A source of features that is missing, corrupt, refuses, stalls or does not cover the place."""


class DataError(CitygrainError):
    """A city raster or data set that is missing, half-written, damaged or does not fit its neighbours."""


class ConditionError(CitygrainError):
    """A condition that is unknown, malformed or impossible to satisfy."""


class ConfigError(CitygrainError):
    """A configuration that names something that does not exist or may not be called."""


class CheckpointError(CitygrainError):
    """A checkpoint that is missing, corrupt, unsafe or made for something else."""


class CapabilityError(CitygrainError):
    """A family was asked for something that its mathematics or its state does not allow."""


class TrainingError(CitygrainError):
    """Training that cannot go on: a loss that is not finite, a run folder that belongs to another configuration."""
