"""The errors that a user can meet. Each says what was expected, what came, the valid choices, and a remedy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Self


class CitygrainError(Exception):
    """Base of all errors that come from the input and not from a bug. The command line prints them without a trace.

    Parameters
    ----------
    problem
        A sentence that says what is wrong.
    expected, got
        What would be right, and what came instead.
    choices
        The valid values. The one nearest to `got` is suggested as "did you mean".
    remedy
        What to do.
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
        """Return the same error about a named part of a request.

        Parameters
        ----------
        name
            Name of the part. The new problem begins with it.
        keys
            Prefix of configuration keys in the texts → prefix of the same keys in the part: `source.` →
            `source.base.`.
        """

        def rename_keys(text: str) -> str:
            for before, after in (keys or {}).items():
                text = after.join(re.split(rf"(?<![\w.]){re.escape(before)}(?=\w[\w.]*=)", text))
            return text

        error = type(self)(f"{name}: {rename_keys(str(self))}")
        error.problem = f"{name}: {rename_keys(self.problem)}"
        error.remedy = None if self.remedy is None else rename_keys(self.remedy)
        return error


class PlaceError(CitygrainError):
    """A place that cannot be used: swapped or out-of-range coordinates, an unreadable polygon, an unknown name."""


class SourceError(CitygrainError):
    """A source of features that is missing or damaged, refuses, stalls, or does not cover the place."""


class DataError(CitygrainError):
    """A city raster or data set that is missing, incomplete or damaged, or does not fit others."""


class ConditionError(CitygrainError):
    """A condition that is unknown, malformed or cannot be fulfilled."""


class ConfigError(CitygrainError):
    """A configuration that names something that does not exist, is not allowed, or does not fit."""


class CheckpointError(CitygrainError):
    """A checkpoint that is missing, damaged, unsafe or made for something else."""


class CapabilityError(CitygrainError):
    """A family was asked for something that it cannot do, or cannot do yet."""


class TrainingError(CitygrainError):
    """Training that cannot continue: the loss is not finite, or the run folder belongs to another configuration."""
