"""Layouts of one window each, drawn with a model and measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from citygrain.errors import CapabilityError, ConfigError
from citygrain.layouts import Samples
from citygrain.measures import measure, settled
from citygrain.protocols import Noise, Sampler, Trained
from citygrain.spec import Conditions, LayoutSpec
from citygrain.support.console import progress_bar
from citygrain.support.devices import SINGLE, computing_in, device_of
from citygrain.support.targets import check_signatures, instantiate

NEAR = 0.02
"""Standard deviations over the training windows: an error that no further attempt is made for."""


def draw(
    generator: Trained,
    conditions: Conditions,
    seeds: Sequence[int],
    *,
    sampler: Sampler | None = None,
    attempts: int = 1,
    precision: str = SINGLE,
    batch_size: int = 64,
    show_progress: bool = False,
) -> Samples:
    """Draw one layout a condition and measure it.

    With several attempts, a layout that misses its request is drawn again from the same seed, more being asked for
    where too little came and less where too much, and the nearest is kept: a control loop around any generator, where
    the feedback inside of a sampler (`tolerance`) takes one that is differentiable. Nearest is by the sum of squared
    errors in standard deviations over the training windows, so more attempts are never farther off.

    Parameters
    ----------
    generator
        From `citygrain.load`.
    conditions
        `N` of them.
    seeds
        `N` seeds; a layout depends on its own seed and conditions only.
    sampler
        Another than the generator's own.
    attempts
        How often a layout is drawn at most; one that comes within `NEAR` of all that it is asked is left as it is.
    precision
        Numbers that the generator computes in, see `citygrain.support.devices.computing_in`. In any, a layout is
        measured in single precision.
    batch_size
        How many are drawn at once.
    show_progress
        Show a bar.

    Returns
    -------
    Samples
        The layouts as they are written: in steps of 1/255, as in a city raster.
    """
    spec: LayoutSpec = generator.spec
    device = device_of(generator)
    layouts = []
    with progress_bar("drawing layouts", len(seeds) if show_progress else 0) as advance:
        for start in range(0, len(seeds), batch_size):
            part = slice(start, start + batch_size)

            def drawn(asked: Conditions, rows: Tensor, part: slice = part) -> Tensor:
                noise = Noise([seeds[part][i] for i in rows.tolist()], device)
                with computing_in(precision, device):
                    made = generator.sample(asked.to(device), noise=noise, sampler=sampler)
                return (made.float().cpu() * 255).round() / 255

            layouts.append(_nearest_attempt(spec, conditions[part], attempts, drawn))
            advance(len(layouts[-1]))
    joined = torch.cat(layouts)
    measured = measure(joined, spec.channels, spec.resolution_m)
    requested = {
        name: np.where(conditions.present[:, i], conditions.scalars[:, i].double(), np.nan)
        for i, name in enumerate(spec.scalars)
        if conditions.present[:, i].any()
    }
    return Samples(joined.numpy(), requested, {k: v.double().numpy() for k, v in measured.items()}, tuple(seeds), spec)


def _nearest_attempt(
    spec: LayoutSpec, conditions: Conditions, attempts: int, drawn: Callable[[Conditions, Tensor], Tensor]
) -> Tensor:
    """Draw layouts `(B, C, H, W)`, and those that miss their request again; `drawn` takes conditions and their rows."""
    rows = torch.arange(len(conditions))
    layouts = drawn(conditions, rows)
    if attempts == 1 or not spec.scalars:
        return layouts
    spread = torch.tensor([0.0 if settled(name, spec.given) else spec.spread(name) for name in spec.scalars])
    limits = torch.tensor([[spec.quantile(name, p) for name in spec.scalars] for p in (0, 100)])
    low, high = limits[0].minimum(conditions.scalars), limits[1].maximum(conditions.scalars)

    def missing(layouts: Tensor, rows: Tensor) -> Tensor:
        """What is asked for and did not come, `(B, S)` in standard deviations; none of what cannot be missed."""
        found = measure(layouts, spec.channels, spec.resolution_m)
        measured = torch.stack([found[name] for name in spec.scalars], 1)
        counts = conditions.present[rows] & (spread > 0)
        return torch.where(counts, (conditions.scalars[rows] - measured) / spread, 0.0)

    asked, off, step = conditions.scalars.clone(), missing(layouts, rows), torch.ones(len(conditions), 1)
    for _ in range(attempts - 1):
        rows = (off.abs() > NEAR).any(1).nonzero()[:, 0]
        if not len(rows):
            break
        tried = (asked[rows] + step[rows] * off[rows] * spread).clamp(low[rows], high[rows])
        again = drawn(replace(conditions[rows], scalars=tried), rows)
        still = missing(again, rows)
        nearer = still.square().sum(1) < off[rows].square().sum(1)
        kept = rows[nearer]
        layouts[kept], asked[kept], off[kept] = again[nearer], tried[nearer], still[nearer]
        step[rows[~nearer]] /= 2  # it went too far
    return layouts


def check_attempts(attempts: Any) -> None:
    """Refuse a number of attempts that is none.

    Raises
    ------
    ConfigError
        It says what would be one.
    """
    if not isinstance(attempts, int) or attempts < 1:
        raise ConfigError("A layout is drawn once at least.", expected="attempts ≥ 1, whole", got=attempts)


def combinations(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every combination of the conditions whose value is a list of levels: the last one varies fastest.

    Raises
    ------
    ConfigError
        For an empty list.
    """
    levels = {name: value for name, value in asked.items() if isinstance(value, list | tuple)}
    for name, value in levels.items():
        if not value:
            raise ConfigError(f"A list of levels holds some: {name}.", expected="such as [p10,p50,p90]", got=[])
    return [{**asked, **dict(zip(levels, chosen, strict=True))} for chosen in product(*levels.values())]


def chosen_sampler(generator: Trained, config: Mapping[str, Any]) -> Sampler | None:
    """Return the sampler that a configuration names or whose knobs it turns; None for the generator's own as it is.

    Raises
    ------
    CapabilityError
        For a knob that the generator's own sampler does not have.
    """
    given = {name: value for name, value in config.items() if value is not None}
    if "_target_" in given:
        chosen: Sampler = instantiate(given)
        return chosen
    if not given:
        return None
    knobs = [f.name for f in fields(generator.sampler)]
    for name in given:
        if name not in knobs:
            raise CapabilityError(
                f"{type(generator.sampler).__name__}, the sampler of this model, has no such knob.",
                got=name,
                choices=knobs,
            )
    kind = type(generator.sampler)
    check_signatures({"_target_": f"{kind.__module__}.{kind.__qualname__}", **given}, "sampler")
    own: Sampler = replace(generator.sampler, **given)
    return own
