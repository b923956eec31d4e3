"""Read what a person asks for: the levels of conditions, and the sampler."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from citygrain.errors import ConfigError
from citygrain.geo.painted_map import PaintedMap
from citygrain.layouts import COLUMNS
from citygrain.protocols import Generator, Sampler
from citygrain.samplers.base import find_fitting_samplers
from citygrain.samplers.parts import change_settings
from citygrain.support.targets import TARGET, instantiate

MOST = 2**31 - 1
"""More than anybody draws, and what still fits into an index."""

SEEDS = range(-(2**63), 2**64)
"""The seeds that torch takes."""

Level = float | str | Path | Mapping[str, Any] | PaintedMap | None
"""One requested value: a number in its unit, a percentile (`"p90"`), a map or its path, how it varies, or None."""

Asked = Mapping[str, Level | Sequence[Level]]
"""Condition → its requested value, or a list of several values."""


def is_whole(value: object) -> bool:
    """Return whether a value is a whole number, of Python or of numpy."""
    return hasattr(value, "__index__") and not isinstance(value, bool) and np.ndim(value) == 0  # type: ignore[arg-type]


def check_counts(n: int, batch_size: int) -> tuple[int, int]:
    """Return how many layouts are drawn, and how many at once, as whole numbers of Python.

    Raises
    ------
    ConfigError
        For other values, or values below 1.
    """
    if not all(is_whole(value) and 1 <= value <= MOST for value in (n, batch_size)):
        raise ConfigError(
            "n and batch_size are at least 1.", expected="whole numbers", got=f"n={n}, batch_size={batch_size}"
        )
    return operator.index(n), operator.index(batch_size)


def list_seeds(seed: int, n: int) -> range:
    """Return the seeds of `n` layouts.

    Raises
    ------
    ConfigError
        For a seed that is no whole number, or that the random numbers cannot begin from.
    """
    first = operator.index(seed) if is_whole(seed) else None
    if first is None or first not in SEEDS or first + n - 1 not in SEEDS:
        raise ConfigError(
            "This is no seed.", expected=f"a whole number from {SEEDS[0]} to {SEEDS[-1]}", got=f"seed={seed}, n={n}"
        )
    return range(first, first + n)


def read_levels(asked: Asked) -> Asked:
    """Return what is asked for with arrays as lists, and their numbers as those of Python."""
    return {name: _to_plain(value) for name, value in asked.items()}


def _to_plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def combine_levels(asked: Asked) -> list[dict[str, Level]]:
    """Return every combination of the levels of conditions; the levels of the last condition vary fastest.

    Raises
    ------
    ConfigError
        For an empty list.
    """
    levels = {name: value for name, value in asked.items() if isinstance(value, list | tuple)}
    for name, value in levels.items():
        if not value:
            raise ConfigError(f"A list of levels holds some: {name}.", expected="such as [p10,p50,p90]", got=[])
    single: dict[str, Any] = {name: value for name, value in asked.items() if not isinstance(value, list | tuple)}
    varied: list[dict[str, Any]] = [dict(zip(levels, chosen, strict=True)) for chosen in product(*levels.values())]
    return [{name: one[name] if name in one else single[name] for name in asked} for one in varied]


def choose_sampler(generator: Generator, wanted: Sampler | Mapping[str, Any] | None) -> Sampler | None:
    """Return the sampler that is wanted; None stands for the generator's own, unchanged.

    Parameters
    ----------
    generator
        The generator that draws with the sampler.
    wanted
        A sampler; a mapping with `_target_` that describes a sampler; or settings of the generator's own sampler that
        are changed. Settings with the value None stay as they are. Of a model with parts, a setting is changed in every
        part that has it; `{"ground": {"steps": 8}}` changes it in one part.

    Raises
    ------
    CapabilityError
        For a setting that the generator's own sampler does not have.
    ConfigError
        For something else, or a value that a setting cannot have.
    """
    if wanted is None:
        return None
    if not isinstance(wanted, Mapping):
        if isinstance(wanted, type) or not isinstance(wanted, Sampler):
            raise ConfigError(
                "This is no sampler.",
                expected=f"settings of {type(generator.sampler).__name__}, such as {{'guidance': 2.0}}, or a sampler",
                got=repr(wanted),
                choices=find_fitting_samplers(generator),
            )
        return wanted
    turned = {name: _to_plain(value) for name, value in wanted.items() if value is not None}
    if TARGET in turned:
        described: Sampler = instantiate(turned)
        return described
    if not turned:
        return None
    return change_settings(generator.sampler, turned)


def count_columns(asked: Asked, n: int) -> int:
    """Return how many layouts stand in a row of the sheet: one for each level of the last list, or `n` of one level."""
    levels = [value for value in asked.values() if isinstance(value, list | tuple)]
    return len(levels[-1]) if levels and n == 1 else min(COLUMNS, n)
