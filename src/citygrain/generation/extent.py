"""Areas of an extent in metres, side by side on Earth: the library behind `citygrain sample extent_m=[…]`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from citygrain.errors import ConditionError, ConfigError
from citygrain.generation.area import draw_area
from citygrain.generation.fields import is_field, read_fields
from citygrain.generation.georeference import Georeference, find_corner, lay_side_by_side, read_bearings
from citygrain.generation.maps import describe_maps, warn_of_open_cells
from citygrain.generation.requests import Level
from citygrain.layouts import Layouts
from citygrain.networks.frame import BEARING
from citygrain.protocols import Sampler, Trained
from citygrain.spec import Conditions, LayoutSpec
from citygrain.support.console import show_progress_bar
from citygrain.support.devices import SINGLE, find_device, return_freed_memory, use_precision


def draw_areas(
    generator: Trained,
    seeds: Sequence[int],
    conditions: Mapping[str, Level],
    *,
    extent_m: Sequence[float] | None = None,
    given: Callable[[tuple[int, int]], Layouts] | None = None,
    georeference: Georeference = Georeference(),
    sampler: Sampler | None = None,
    precision: str = SINGLE,
    batch_size: int = 64,
) -> Layouts:
    """Draw areas of any extent, under conditions that may vary over them.

    Parameters
    ----------
    generator
        A diffusion model, or another one that can keep parts of layouts.
    seeds
        One seed for each area.
    conditions
        What is requested, see `citygrain.generation.fields.read_fields`.
    extent_m
        Width and height of an area in metres; by default those of a window.
    given
        For a model that is given channels: reads the areas of a height and width in cells that the channels are taken
        from, one for each seed. The areas lie there.
    georeference
        Where the first area lies.
    sampler
        None takes the generator's own sampler.
    precision, batch_size
        See `citygrain.generation.windows.draw`.

    Returns
    -------
    Layouts
        The areas. Their requested value of a condition is the mean over the area. If the condition is requested of only
        a part of the area, they have no requested value of it.

    Raises
    ------
    ConfigError
        For an extent that is not a width and a height, or a georeference that does not say where areas lie.
    CapabilityError, ConditionError, DataError
        See `draw_area` and `citygrain.generation.fields.read_fields`.
    """
    spec = generator.spec
    place = conditions.get("place")
    asked_place = None if place is None else str(place)
    shape = _cells(spec, extent_m)
    known = None if given is None else given(shape)
    if known is None:
        corner = find_corner(generator, georeference, asked_place)
        bearings = [read_bearing(spec, conditions)] * len(seeds)
        grids = tuple(lay_side_by_side(shape, spec.resolution_m, len(seeds), corner, bearings=bearings))
        channels = None
    else:
        grids, channels = known.grids, known.tensor[:1, [spec.channels.index(name) for name in spec.given]]
    fields = read_fields(spec, conditions, grids[0])
    warn_of_open_cells(generator, fields)
    areas = []
    with show_progress_bar("drawing areas", len(seeds)) as advance:
        for seed in seeds:
            with use_precision(precision, find_device(generator)):
                drawn = draw_area(
                    generator, shape, fields, given=channels, place=asked_place, seed=seed, sampler=sampler,
                    batch_size=batch_size,
                )  # fmt: skip
            areas.append(drawn.numpy())
            advance(1)
    return_freed_memory()
    means = {name: float(torch.as_tensor(field).float().mean()) for name, field in fields.items()}
    requested = {name: np.full(len(seeds), mean) for name, mean in means.items() if math.isfinite(mean)}
    return Layouts(
        np.stack(areas),
        spec.channels,
        spec.resolution_m,
        grids,
        seeds=tuple(seeds),
        requested=requested,
        raster_format=spec.raster_format,
        given=known,
        requested_maps=describe_maps(spec, conditions, [fields] * len(seeds)),
    )


def read_bearing(spec: LayoutSpec, conditions: Mapping[str, Level]) -> float:
    """Return the one bearing that an area is requested to lie at; 0 if none is requested.

    Raises
    ------
    ConditionError
        For a bearing that varies, or a model that does not know bearings.
    """
    bearing = conditions.get(BEARING)
    if is_field(bearing):
        raise ConditionError("An area lies at one bearing.", expected="degrees, from 0 to 90", got=bearing)
    request = Conditions.request(spec, 1, {BEARING: bearing, "place": conditions.get("place")})
    return float(read_bearings(spec, request)[0])


def _cells(spec: LayoutSpec, extent_m: Sequence[float] | None) -> tuple[int, int]:
    """Turn an extent, width and height in metres, into height and width in cells; None is the extent of a window."""
    if extent_m is None:
        return spec.size_px, spec.size_px
    try:
        width, height = (round(float(length) / spec.resolution_m) for length in extent_m)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(
            "An extent is a width and a height in metres.", expected="[width,height], such as [2000,1500]", got=extent_m
        ) from None
    return height, width
