"""Draw layouts for what a person asks for, as `citygrain sample` and `citygrain.Model.sample` do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from citygrain.errors import ConfigError
from citygrain.generation.extent import draw_areas
from citygrain.generation.fields import is_field, read_fields, varies
from citygrain.generation.georeference import Georeference, lay_grids, read_bearings
from citygrain.generation.given import Given, read_given_area, read_given_windows
from citygrain.generation.maps import add_maps, describe_maps, takes_maps
from citygrain.generation.requests import (
    Asked,
    check_counts,
    choose_sampler,
    combine_levels,
    count_columns,
    list_seeds,
    read_levels,
)
from citygrain.generation.windows import check_attempts, draw
from citygrain.layouts import Layouts
from citygrain.networks.frame import BEARING
from citygrain.protocols import Sampler, Trained
from citygrain.spec import Conditions
from citygrain.support.devices import SINGLE, check_precision

N = 16
"""How many layouts are drawn by default, if no condition has several levels."""


def sample(
    generator: Trained,
    n: int | None = None,
    *,
    conditions: Asked,
    seed: int = 0,
    attempts: int = 1,
    extent_m: Sequence[float] | None = None,
    given: Given = Given(),
    georeference: Georeference = Georeference(),
    sampler: Sampler | Mapping[str, Any] | None = None,
    precision: str = SINGLE,
    batch_size: int = 64,
    data: str | Path = "data/cities",
    show_progress: bool = True,
) -> Layouts:
    """Draw layouts: windows, windows around given channels, or areas of any extent.

    Parameters
    ----------
    generator
        From `citygrain.load`.
    n
        How many layouts are drawn; 16 by default. If conditions have lists of levels: how many of each combination; 1
        by default.
    conditions
        Condition → a number in its unit, a percentile of the training windows (`"p0"` … `"p100"`), how it varies over
        an area, a list of levels, or None for no request. `place` is the name of a training place.
    seed
        Layout *i* is drawn with the seed `seed + i`, whatever the batch size. All combinations have the same seeds.
    attempts
        How often a layout that misses its request is drawn, see `citygrain.generation.windows.draw`.
    extent_m
        Width and height in metres of areas that are larger than a window, drawn without seams.
    given
        For a model that is given channels: the windows that the channels are taken from.
    georeference
        Where the first layout lies.
    sampler
        A sampler, or settings of the generator's own sampler that are changed; None takes the generator's own.
    precision, batch_size
        See `citygrain.generation.windows.draw`.
    data
        Folder of prepared places.
    show_progress
        Whether a progress bar is shown.

    Raises
    ------
    ConditionError
        For a condition that the generator does not know.
    ConfigError, CapabilityError
        For a number below 1, a sampler that does not fit the model, a georeference that does not say where layouts lie,
        or areas of a model that draws windows only.
    DataError
        When the place of given channels is not prepared, or an area is smaller than a window.
    """
    check_attempts(attempts)
    check_precision(precision)
    conditions = read_levels(conditions)
    combined = combine_levels(conditions)
    if n is None:
        n = N if len(combined) == 1 else 1
    n, batch_size = check_counts(n, batch_size)
    seeds = list_seeds(seed, n)
    spec, chosen = generator.spec, choose_sampler(generator, sampler)
    place = combined[0].get("place")
    asked_place = None if place is None else str(place)
    if spec.given:
        _check_place(conditions, georeference)
    mapped = extent_m is None and takes_maps(spec, conditions)
    if extent_m is not None or (varies(conditions) and not mapped):
        _check_areas(conditions, len(combined), attempts)
        around = None
        if spec.given and given.at is not None:
            where = given.place or asked_place or spec.places[0]
            around = partial(read_given_area, generator, n, given.at, place=where, data=data)
        return draw_areas(
            generator, seeds, combined[0], extent_m=extent_m, given=around, georeference=georeference,
            sampler=chosen, precision=precision, batch_size=batch_size,
        )  # fmt: skip
    columns = count_columns(conditions, n)
    windows, known = None, None
    if spec.given:
        windows = read_given_windows(generator, n, given, place=asked_place, data=data)
        channels = windows.tensor
        known = {name: channels[:, spec.channels.index(name)] for name in spec.given}
    plain = [{name: value for name, value in one.items() if not is_field(value)} for one in combined]
    asked = Conditions.cat([Conditions.request(spec, n, one, known) for one in plain])
    if windows is None:
        grids = lay_grids(
            generator, len(asked), georeference, place=asked_place, columns=columns,
            bearings=read_bearings(spec, asked).tolist(),
        )  # fmt: skip
    else:
        grids = windows.grids * len(combined)
    maps = None
    if mapped:
        varied = [
            {name: value for name, value in one.items() if name == "place" or is_field(value)} for one in combined
        ]
        # Layouts that lie side by side have the same map, where the first of them lies.
        wheres = [grids[0]] if windows is None else windows.grids
        fields = [read_fields(spec, one, where) for one in varied for where in wheres]
        if windows is None:
            fields = [one for one in fields for _ in range(n)]
        asked, maps = add_maps(generator, asked, fields), describe_maps(spec, conditions, fields)
    # Every combination has the same seeds, so that layouts differ by what is requested only.
    drawn = draw(
        generator, asked, [*seeds] * len(combined), sampler=chosen, attempts=attempts, precision=precision,
        batch_size=batch_size, show_progress=show_progress, grids=grids, columns=columns,
    )  # fmt: skip
    return replace(drawn, given=windows, requested_maps=maps)


def _check_place(conditions: Asked, georeference: Georeference) -> None:
    """Refuse to say where layouts lie that lie where their given channels are."""
    if conditions.get(BEARING) is not None:
        raise ConfigError(
            "These layouts lie where their given channels are.",
            got={BEARING: conditions[BEARING]},
            remedy=f"leave out {BEARING}: it is that of the given streets",
        )
    if georeference.said:
        raise ConfigError(
            "These layouts lie where their given channels are.",
            got=georeference.said,
            remedy="leave out georeference.*, and choose where by given.place",
        )


def _check_areas(conditions: Asked, combined: int, attempts: int) -> None:
    """Refuse lists of levels and several attempts, which areas do not have."""
    if combined > 1:
        raise ConfigError(
            "Areas are drawn for one value of each condition at a time.",
            got={name: value for name, value in conditions.items() if isinstance(value, list | tuple)},
            remedy="citygrain sample --multirun with a comma list",
        )
    if attempts > 1:
        raise ConfigError(
            "Areas are drawn once: the feedback of their sampler makes them what is asked for.",
            got=f"attempts={attempts}",
            remedy="attempts=1, and a smaller sampler.tolerance",
        )
