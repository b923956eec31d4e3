"""Draw layouts of one window each, and draw those again that miss their request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from citygrain.errors import ConfigError
from citygrain.generation.requests import is_whole
from citygrain.geo.drawn_ways import DrawnWays
from citygrain.geo.rasterize import Grid
from citygrain.layouts import COLUMNS, Layouts
from citygrain.networks.frame import FRAME, is_settled, measure_conditions
from citygrain.protocols import DrawsWays, Noise, Sampler, Trained
from citygrain.spec import Conditions, LayoutSpec
from citygrain.support.console import show_progress_bar
from citygrain.support.devices import SINGLE, check_precision, find_device, use_precision

NEAR = 0.02
"""The error below which no further attempt is made, in standard deviations over the training windows."""

Drawn = tuple[Tensor, list[DrawnWays | None]]
"""Layouts `(B, C, H, W)`, and the ways of each as lines, or None."""


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
    grids: Sequence[Grid] = (),
    columns: int = COLUMNS,
) -> Layouts:
    """Draw one layout for each condition.

    With several attempts, layouts are measured, and a layout that misses its request is drawn again from the same seed.
    The new request is higher if the layout had too little, and lower if it had too much. Of all attempts the nearest is
    kept: the layout with the smallest sum of squared errors, in standard deviations over the training windows. So more
    attempts never make a layout worse. This works with every generator. The feedback of a sampler (`tolerance`) needs a
    differentiable generator.

    Parameters
    ----------
    generator
        From `citygrain.load`.
    conditions
        `N` requests, one for each layout.
    seeds
        `N` seeds; a layout depends on its own seed and conditions only.
    sampler
        None takes the generator's own sampler.
    attempts
        How often a layout is drawn, at most. A layout whose errors are all below `NEAR` is not drawn again.
    precision
        Numbers that the generator computes in, see `citygrain.support.devices.use_precision`. Layouts are always
        measured in single precision.
    batch_size
        How many layouts are drawn at once.
    show_progress
        Whether a progress bar is shown.
    grids, columns
        Where the layouts lie, and how many stand in a row, see `Layouts`.

    Raises
    ------
    ConfigError
        For attempts or a batch size below 1, or a precision that does not exist.
    """
    check_attempts(attempts)
    check_precision(precision)
    if batch_size < 1:
        raise ConfigError("A batch holds one layout or more.", expected="batch_size ≥ 1", got=batch_size)
    spec = generator.spec
    device = find_device(generator)
    layouts: list[Tensor] = []
    ways: list[DrawnWays | None] = []
    with show_progress_bar("drawing layouts", len(seeds) if show_progress else 0) as advance:
        for start in range(0, len(seeds), batch_size):
            part = slice(start, start + batch_size)

            def drawn(asked: Conditions, rows: Tensor, part: slice = part) -> Drawn:
                noise = Noise([seeds[part][i] for i in rows.tolist()], device)
                with use_precision(precision, device):
                    made, lines = _sample(generator, asked.to(device), noise, sampler)
                return (made.float().cpu() * 255).round() / 255, lines

            found, lines = _nearest_attempt(spec, conditions[part], attempts, drawn)
            layouts.append(found)
            ways += lines
            advance(len(found))
    cells = (torch.cat(layouts) * 255).round().to(torch.uint8).numpy()
    requested = {
        name: np.where(conditions.present[:, i], conditions.scalars[:, i].double(), np.nan)
        for i, name in enumerate(spec.scalars)
        if conditions.present[:, i].any() or name in FRAME
    }
    return Layouts(
        cells,
        spec.channels,
        spec.resolution_m,
        tuple(grids),
        seeds=tuple(seeds),
        requested=requested,
        raster_format=spec.raster_format,
        columns=columns,
        ways=tuple(one.drawn_as(layout) for one, layout in zip(ways, cells, strict=True) if one is not None),
    )


def _sample(generator: Trained, asked: Conditions, noise: Noise, sampler: Sampler | None) -> Drawn:
    """Draw layouts `(B, C, H, W)`, and the ways of each as the lines that they were drawn as, if they were."""
    if isinstance(generator, DrawsWays):
        made, ways = generator.sample_with_ways(asked, noise=noise, sampler=sampler)
        return made, list(ways)
    return generator.sample(asked, noise=noise, sampler=sampler), [None] * len(asked)


def _nearest_attempt(
    spec: LayoutSpec,
    conditions: Conditions,
    attempts: int,
    drawn: Callable[[Conditions, Tensor], Drawn],
) -> Drawn:
    """Draw layouts `(B, C, H, W)` and their ways, and draw those again that miss.

    `drawn` takes requests and their rows.
    """
    rows = torch.arange(len(conditions))
    layouts, ways = drawn(conditions, rows)
    if attempts == 1 or not spec.scalars:
        return layouts, ways
    spread = torch.tensor([0.0 if is_settled(name, spec.given) else spec.spread(name) for name in spec.scalars])
    limits = torch.tensor([[spec.quantile(name, p) for name in spec.scalars] for p in (0, 100)])
    low, high = limits[0].minimum(conditions.scalars), limits[1].maximum(conditions.scalars)

    def missing(layouts: Tensor, rows: Tensor) -> Tensor:
        """Return requested minus measured values, `(B, S)` in standard deviations; 0 if nothing can be missed."""
        found = measure_conditions(layouts, spec.channels, spec.resolution_m, spec.scalars)
        measured = torch.stack([found[name] for name in spec.scalars], 1)
        counts = conditions.present[rows] & (spread > 0)
        return torch.where(counts, (conditions.scalars[rows] - measured) / spread, 0.0)

    asked, off, step = conditions.scalars.clone(), missing(layouts, rows), torch.ones(len(conditions), 1)
    for _ in range(attempts - 1):
        rows = (off.abs() > NEAR).any(1).nonzero()[:, 0]
        if not len(rows):
            break
        tried = (asked[rows] + step[rows] * off[rows] * spread).clamp(low[rows], high[rows])
        again, lines = drawn(replace(conditions[rows], scalars=tried), rows)
        still = missing(again, rows)
        nearer = still.square().sum(1) < off[rows].square().sum(1)
        kept = rows[nearer]
        layouts[kept], asked[kept], off[kept] = again[nearer], tried[nearer], still[nearer]
        for row, better in zip(kept.tolist(), nearer.nonzero()[:, 0].tolist(), strict=True):
            ways[row] = lines[better]
        step[rows[~nearer]] /= 2  # the last step went too far
    return layouts, ways


def check_attempts(attempts: Any) -> None:
    """Refuse a number of attempts that is not a whole number from 1 on.

    Raises
    ------
    ConfigError
        For another value.
    """
    if not is_whole(attempts) or attempts < 1:
        raise ConfigError("A layout is drawn once at least.", expected="attempts ≥ 1, whole", got=attempts)
