"""Areas of any extent: drawn from noise, drawn around what is known, or redrawn from a layout that is known.

One function, `draw_area`, does all three. `draw_areas` is the library behind `citygrain sample extent_m=[…]`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from citygrain.errors import CapabilityError, ConditionError, ConfigError, DataError
from citygrain.generation.fields import is_field, read_fields
from citygrain.generation.georeference import Georeference, find_corner, lay_side_by_side, read_bearings
from citygrain.generation.requests import Level
from citygrain.layouts import Layouts
from citygrain.networks.frame import BEARING, find_condition
from citygrain.protocols import Denoiser, Known, Noise, Sampler, ShowsLayouts, Trained, require
from citygrain.samplers.areas import Area, Begin, Inpaint, Tiling, keeps_parts
from citygrain.samplers.diffusion import DIFFUSION
from citygrain.samplers.strokes import PlansStrokes
from citygrain.spec import Conditions, LayoutSpec
from citygrain.support.console import show_progress_bar
from citygrain.support.devices import SINGLE, find_device, use_precision

Fields = Mapping[str, float | Tensor]
"""Condition → its requested value: a number, or `(H, W)` over an area, with NaN where nothing is requested."""

_AT_ONCE = 256


def draw_area(
    generator: Trained,
    shape: tuple[int, int],
    fields: Fields,
    *,
    known: Known | None = None,
    given: Tensor | None = None,
    place: str | None = None,
    seed: int = 0,
    sampler: Sampler | None = None,
    strength: float = 1.0,
    begin: Begin = "noise",
    overlap: float = 0.5,
    batch_size: int = 16,
) -> Tensor:
    """Draw an area of any extent. Some of its cells or channels may be known; they stay as they are.

    Diffusion models draw all windows of an area together. Other families that can keep parts of a layout draw them in
    turn, each around what its neighbours have drawn. All other families draw a single window.

    Parameters
    ----------
    generator
        From `citygrain.load`.
    shape
        Height and width of the area in cells, a window or more.
    fields
        What is requested, and where. Coverage, densities and all other measures that are linear in the shares of the
        cells are requested of the free cells. If a window has known cells, too, it is asked for the mean over all its
        cells, of the requested values on free cells and the real values on known cells. Other measures are requested of
        whole windows: the mean of the values that are requested on the free cells.
    known
        A layout of the area `(1, C, H, W)`, and a mask of the cells and channels that are kept; they stay unchanged.
    given
        For a diffusion model that is given channels: those of the area `(1, G, H, W)`, in [0, 1]; they stay unchanged.
    place
        The training place that the area should resemble.
    seed
        Seed of the noise.
    sampler
        None takes the generator's own sampler.
    strength, begin
        Where drawing begins, see `citygrain.samplers.areas.Area`.
    overlap
        Share of a window that it has in common with the next window. With more overlap, seams are smoother, and drawing
        takes longer.
    batch_size
        How many windows are drawn at once.

    Returns
    -------
    Tensor
        `(C, H, W)` uint8, coverage 0–255.

    Raises
    ------
    CapabilityError
        When the family cannot draw areas, or cannot keep parts of layouts, or needs given channels and has none.
    ConditionError
        For conditions that the model does not know, or fields of another shape.
    DataError
        For an area smaller than a window, or a layout or given channels of another shape.
    """
    spec: LayoutSpec = generator.spec
    _check(spec, shape, known)
    _check_given(generator, shape, given)
    chosen = sampler or generator.sampler
    device = find_device(generator)
    if not isinstance(generator, Denoiser):
        tiling = Tiling.cover(*shape, spec.size_px, overlap)
        _check_turns(generator, shape, known, chosen, strength)
        asked = make_requests(spec, tiling, fields, known, place)
        return _draw_in_turn(generator, tiling, asked, known, seed, chosen, batch_size)
    factor = spec.size_px // generator.latent_shape[-1]
    padded = [-(-length // factor) * factor for length in shape]
    pad = (0, padded[1] - shape[1], 0, padded[0] - shape[0])
    tiling = Tiling.cover(padded[0] // factor, padded[1] // factor, generator.latent_shape[-1], overlap)
    cells = tiling.refine(factor)
    if known is not None:
        keep = F.pad(known.keep, pad, value=False)
        known = Known(F.pad(known.layout, pad, mode="replicate").to(device), keep.to(device))
    padded_fields = {
        name: F.pad(_over(name, field, shape)[None], pad, mode="replicate")[0] for name, field in fields.items()
    }
    if given is not None:
        given = F.pad(given.cpu().float(), pad, mode="replicate")
    asked = make_requests(spec, cells, padded_fields, known, place, given).to(device)
    area = Area(chosen, tiling, known, strength, begin, batch_size)  # type: ignore[arg-type]
    with torch.no_grad():
        clean = area(generator, asked, Noise([seed], device))
        seen = require(generator, ShowsLayouts, "An area larger than a window", DIFFUSION)
        drawn = cells.blend(lambda numbers: seen.to_layout(tiling.cut(clean, numbers)), batch_size)
        layout = torch.cat([(rows[0] * 255).round().to(torch.uint8).cpu() for rows in drawn], 1)
    if given is not None:
        layout[[spec.channels.index(name) for name in spec.given]] = (given[0] * 255).round().to(torch.uint8)
    return _composed(layout, known)[:, : shape[0], : shape[1]]


def _check_given(generator: Trained, shape: tuple[int, int], given: Tensor | None) -> None:
    """Check that an area has the given channels that a model needs, and no others."""
    wanted = generator.spec.given
    if wanted and (given is None or not isinstance(generator, Denoiser)):
        raise CapabilityError(
            "A model that is given channels draws windows around them.",
            got=type(generator).__name__,
            remedy="choose a diffusion model without given channels, and keep these channels instead; in Python, "
            "draw_area(…, given=…) gives a diffusion model the channels of the whole area",
        )
    if given is not None and tuple(given.shape) != (1, len(wanted), *shape):
        raise DataError(
            "What is given has another shape than the area.",
            expected=f"{(1, len(wanted), *shape)}: {', '.join(wanted) or 'no channel is given to this model'}",
            got=tuple(given.shape),
        )


def _check_turns(
    generator: Trained, shape: tuple[int, int], known: Known | None, sampler: Sampler, strength: float
) -> None:
    """Check what a family that is no diffusion model can draw."""
    size = generator.spec.size_px
    if strength < 1 or (shape != (size, size) and not keeps_parts(generator, sampler)):
        raise CapabilityError(
            "This family draws windows from nothing, and no areas or variations of layouts."
            if strength == 1
            else "This family draws from nothing, and no variations of layouts.",
            expected=f"{size} × {size} cells, strength=1" if strength == 1 else "strength=1",
            got=f"{type(generator).__name__}, {shape[0]} × {shape[1]} cells, strength={strength}",
            remedy="choose a diffusion model",
        )
    if isinstance(generator, PlansStrokes) or known is None:
        return
    if (known.keep.any(1) != known.keep.all(1)).any():
        raise CapabilityError(
            "This family can keep whole cells only.",
            got=f"{type(generator).__name__}, some channels kept",
            remedy="choose a diffusion model to keep channels",
        )


def _draw_in_turn(
    generator: Trained,
    tiling: Tiling,
    asked: Conditions,
    known: Known | None,
    seed: int,
    sampler: Sampler,
    batch_size: int,
) -> Tensor:
    """Draw the windows of an area in turn, each around what is known and what those before it have drawn."""
    device = find_device(generator)
    shape = (1, len(generator.spec.channels), tiling.height, tiling.width)
    layout = torch.zeros(shape) if known is None else known.layout.clone()
    keep = torch.zeros(shape, dtype=torch.bool) if known is None else known.keep.clone()
    seeds = [seed]
    if len(tiling) > 1:
        seeds = torch.randint(2**62, (len(tiling),), generator=torch.Generator().manual_seed(seed)).tolist()
    for turn in tiling.list_turns():
        missing = [number for number in turn if not tiling.cut(keep, [number]).all()]
        for start in range(0, len(missing), batch_size):
            numbers = missing[start : start + batch_size]
            here = Known(tiling.cut(layout, numbers).to(device), tiling.cut(keep, numbers).to(device))
            around = sampler if known is None and not here.keep.any() else Inpaint(sampler, here)
            noise = Noise([seeds[number] for number in numbers], device)
            with torch.no_grad():
                drawn = generator.sample(asked[torch.tensor(numbers)].to(device), noise=noise, sampler=around)
            whole = torch.where(here.keep, here.layout, (drawn.float() * 255).round() / 255).cpu()
            for number, window in zip(numbers, whole, strict=True):
                rows, columns = tiling[number]
                layout[0, :, rows, columns], keep[0, :, rows, columns] = window, True
    return _composed((layout[0] * 255).round().to(torch.uint8), known)


def make_requests(
    spec: LayoutSpec, cells: Tiling, fields: Fields, known: Known | None = None, place: str | None = None,
    given: Tensor | None = None,
) -> Conditions:  # fmt: skip
    """Return the request of each window of an area.

    Parameters
    ----------
    spec
        Channels, conditions and places that the generator knows.
    cells
        The windows.
    fields, known, place, given
        See `draw_area`.

    Returns
    -------
    Conditions
        One request for each window. If the field of a condition is NaN on a free cell of a window, the window is not
        asked for this condition.

    Raises
    ------
    ConditionError
        For conditions that the model does not know, or fields of another shape.
    """
    shape = cells.height, cells.width
    strange = [name for name in fields if name not in {*spec.scalars, *spec.maps}]
    if strange:
        raise ConditionError("The generator does not know this condition.", got=strange[0], choices=spec.scalars)
    conditions = Conditions.request(spec, len(cells), {"place": place})
    if given is not None:
        conditions.given, conditions.given_present[:] = cells.cut(given, range(len(cells))), True
    free = torch.ones(1, *shape) if known is None else (~known.keep.all(1)).float().cpu()
    for name, field in fields.items():
        per_cell = _over(name, field, shape)[None, None]
        linear = find_condition(name).linear
        if known is not None and linear:
            weights = torch.tensor([find_condition(name).weights.get(channel, 0.0) for channel in spec.channels])
            there = torch.einsum("c,bchw->bhw", weights, known.layout.cpu().float())[:, None]
            per_cell = torch.where(free[:, None] > 0, per_cell, there)
        for start in range(0, len(cells), _AT_ONCE):
            part = range(start, min(start + _AT_ONCE, len(cells)))
            values = cells.cut(per_cell, part)[:, 0]
            weight = torch.ones_like(values) if linear else cells.cut(free[:, None], part)[:, 0]
            value = (values * weight).sum((1, 2)) / weight.sum((1, 2)).clamp_min(1e-9)
            asked = value.isfinite() & (weight.sum((1, 2)) > 0)
            index = slice(part.start, part.stop)
            if name in spec.scalars:
                column = spec.scalars.index(name)
                conditions.scalars[index, column] = value.nan_to_num()
                conditions.present[index, column] = asked
            if name in spec.maps:
                column = spec.maps.index(name)
                conditions.maps[index, column] = F.adaptive_avg_pool2d(values.nan_to_num()[:, None], spec.map_px)[:, 0]
                conditions.maps_present[index, column] = asked
    return conditions


def _over(name: str, field: float | Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the requested value of each cell of an area, `(H, W)`."""
    wanted = torch.as_tensor(field, dtype=torch.float32)
    if wanted.ndim and wanted.shape != shape:
        raise ConditionError(f"The field of {name} has another shape.", expected=shape, got=tuple(wanted.shape))
    return wanted.expand(shape)


def _check(spec: LayoutSpec, shape: tuple[int, int], known: Known | None) -> None:
    if min(shape) < spec.size_px:
        size_m = spec.size_px * spec.resolution_m
        raise DataError(
            "The area is smaller than a window of this model.",
            expected=f"{spec.size_px} × {spec.size_px} cells ({size_m:g} m) or more",
            got=f"{shape[0]} × {shape[1]} cells",
        )
    if known is not None and any(tuple(of.shape) != (1, len(spec.channels), *shape) for of in known):
        raise DataError(
            "What is known has another shape than the area.",
            expected=(1, len(spec.channels), *shape),
            got=[tuple(of.shape) for of in known],
        )


def _composed(drawn: Tensor, known: Known | None) -> Tensor:
    """Replace the known cells and channels of a layout `(C, H, W)` uint8 by their known values."""
    if known is None:
        return drawn
    layout, keep = known.layout[0].cpu(), known.keep[0].cpu()
    return torch.where(keep, (layout * 255).round().to(torch.uint8), drawn)


def draw_areas(
    generator: Trained,
    seeds: Sequence[int],
    conditions: Mapping[str, Level],
    *,
    extent_m: Sequence[float] | None = None,
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
    corner = find_corner(generator, georeference, asked_place)
    shape = _cells(spec, extent_m)
    bearings = [read_bearing(spec, conditions)] * len(seeds)
    grids = tuple(lay_side_by_side(shape, spec.resolution_m, len(seeds), corner, bearings=bearings))
    fields = read_fields(spec, conditions, grids[0])
    areas = []
    with show_progress_bar("drawing areas", len(seeds)) as advance:
        for seed in seeds:
            with use_precision(precision, find_device(generator)):
                drawn = draw_area(
                    generator, shape, fields, place=asked_place, seed=seed, sampler=sampler, batch_size=batch_size
                )
            areas.append(drawn.numpy())
            advance(1)
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
