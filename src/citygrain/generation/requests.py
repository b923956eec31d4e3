"""Read what a person asks for: the levels of conditions, and the sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import product
from typing import Any

from citygrain.errors import CapabilityError, ConfigError
from citygrain.layouts import COLUMNS
from citygrain.protocols import Generator, Sampler
from citygrain.support.targets import TARGET, check_signatures, instantiate

Level = float | str | Mapping[str, Any] | None
"""One requested value: a number in its unit, a percentile such as `"p90"`, a raster's path, how it varies, or None."""

Asked = Mapping[str, Level | Sequence[Level]]
"""Condition → its requested value, or a list of several values."""


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
        are changed. Settings with the value None stay as they are.

    Raises
    ------
    CapabilityError
        For a setting that the generator's own sampler does not have.
    ConfigError
        For a value that a setting cannot have, or for the name of a sampler.
    """
    if isinstance(wanted, str):
        raise ConfigError(
            "In Python a sampler is an object, not a name.",
            expected='settings of its own sampler, such as {"steps": 24}, or citygrain.samplers.diffusion.Heun()',
            got=wanted,
        )
    if not isinstance(wanted, Mapping):
        return wanted
    turned = {name: value for name, value in wanted.items() if value is not None}
    if TARGET in turned:
        described: Sampler = instantiate(turned)
        return described
    if not turned:
        return None
    kind = type(generator.sampler)
    settings = [f.name for f in fields(kind)]
    for name in turned:
        if name not in settings:
            raise CapabilityError(
                f"{kind.__name__}, the sampler of this model, has no such setting.", got=name, choices=settings
            )
    check_signatures({TARGET: f"{kind.__module__}.{kind.__qualname__}", **turned}, "sampler")
    return replace(generator.sampler, **turned)


def count_columns(asked: Asked, n: int) -> int:
    """Return how many layouts stand in a row of the sheet: one for each level of the last list, or `n` of one level."""
    levels = [value for value in asked.values() if isinstance(value, list | tuple)]
    return len(levels[-1]) if levels and n == 1 else min(COLUMNS, n)
