"""Areas of any extent: drawn from noise, drawn around what is known, or redrawn from a layout that is known.

One function, `draw_area`, does all three.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from citygrain.errors import CapabilityError, ConditionError, DataError
from citygrain.generation.fields import measure_fields
from citygrain.generation.turns import check_turns, compose, draw_in_turn
from citygrain.geo.painted_map import MOST_PAINTED
from citygrain.networks.frame import find_condition
from citygrain.protocols import (
    Denoiser,
    Generator,
    HasParts,
    Known,
    Noise,
    Sampler,
    ShowsLayouts,
    fork_seed,
    require,
)
from citygrain.samplers.areas import Area, Begin, Tiling
from citygrain.samplers.base import DIFFUSION
from citygrain.samplers.parts import DrawParts, find_channels, list_drawn_maps
from citygrain.spec import Conditions, LayoutSpec
from citygrain.support.devices import find_device, return_freed_memory

Fields = Mapping[str, float | Tensor]
"""Condition → its requested value: a number, or `(H, W)` over an area, with NaN where nothing is requested."""

CELLS_AT_ONCE = 2**16
"""Cells of windows that a diffusion model draws at once, at most: memory must not grow with the extent."""

_FIELD_CELLS_AT_ONCE = 2**20
"""Cells of windows over which a field is averaged at once, at most."""


def draw_area(
    generator: Generator,
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
    turn, each around what its neighbours have drawn. A cascade draws the area with its plan, and then with its ground.
    All other families draw a single window.

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
        For a diffusion model that is given channels: those of the area `(1, G, H, W)`, in [0, 1], or 0–255 as uint8;
        they stay unchanged.
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
    return_freed_memory()
    spec: LayoutSpec = generator.spec
    _check(spec, shape, known)
    _check_given(generator, shape, given)
    chosen = sampler or generator.sampler
    if isinstance(generator, HasParts):
        return _draw_parts(
            generator, shape, fields, chosen, known, place=place, seed=seed, strength=strength, begin=begin,
            overlap=overlap, batch_size=batch_size,
        )  # fmt: skip
    device = find_device(generator)
    if not isinstance(generator, Denoiser):
        tiling = Tiling.cover(*shape, spec.size_px, overlap)
        check_turns(generator, shape, known, chosen, strength)
        asked = make_requests(spec, tiling, fields, known, place)
        return draw_in_turn(generator, tiling, asked, known, seed, chosen, batch_size)
    factor = spec.size_px // generator.latent_shape[-1]
    padded = [-(-length // factor) * factor for length in shape]
    pad = (0, padded[1] - shape[1], 0, padded[0] - shape[0])
    tiling = Tiling.cover(padded[0] // factor, padded[1] // factor, generator.latent_shape[-1], overlap)
    cells = tiling.refine(factor)
    if known is not None:
        keep = F.pad(known.keep, pad, value=False)
        known = Known(_pad(known.layout, pad).to(device), keep.to(device))
    fields = {name: _pad(_over(name, field, shape)[None], pad)[0] for name, field in fields.items()}
    if given is not None:
        if given.dtype != torch.uint8 or any(pad):  # bytes cannot be repeated, and take a quarter of the memory
            given = _pad(_to_shares(given), pad)
        given = given.to(device)
    # The area has the given channels once, and not in each of its windows.
    asked = make_requests(replace(spec, given=()), cells, fields, known, place).to(device)
    del fields  # a map over the whole area takes as much as a channel of it in single precision
    batch_size = min(batch_size, max(1, CELLS_AT_ONCE // spec.size_px**2))
    area = Area(chosen, tiling, known, given, strength, begin, batch_size)  # type: ignore[arg-type]
    with torch.no_grad():
        clean = area(generator, asked, Noise([seed], device))
        seen = require(generator, ShowsLayouts, "An area larger than a window", DIFFUSION)
        drawn = cells.blend(lambda numbers: seen.to_layout(area.cut(generator, clean, numbers)), batch_size)
        layout = torch.cat([_to_bytes(rows[0]).cpu() for rows in drawn], 1)
    if given is not None:
        for name, channel in zip(spec.given, given[0], strict=True):
            layout[spec.channels.index(name)] = _to_bytes(channel).cpu()
    return compose(layout, known)[:, : shape[0], : shape[1]]


def _to_bytes(layout: Tensor) -> Tensor:
    return layout if layout.dtype == torch.uint8 else (layout * 255).round().to(torch.uint8)


def _to_shares(layout: Tensor) -> Tensor:
    return layout / 255 if layout.dtype == torch.uint8 else layout.float()


def _check_given(generator: Generator, shape: tuple[int, int], given: Tensor | None) -> None:
    """Check that an area has the given channels that a model needs, and no others."""
    wanted = generator.spec.given
    if wanted and (given is None or not isinstance(generator, Denoiser)):
        raise CapabilityError(
            "A model that is given channels draws windows around them.",
            got=type(generator).__name__,
            remedy="say where the area lies, for a diffusion model: given.at=[longitude,latitude]; or choose a model "
            "without given channels, and keep these channels instead",
        )
    if given is not None and tuple(given.shape) != (1, len(wanted), *shape):
        raise DataError(
            "What is given has another shape than the area.",
            expected=f"{(1, len(wanted), *shape)}: {', '.join(wanted) or 'no channel is given to this model'}",
            got=tuple(given.shape),
        )


def _draw_parts(
    cascade: HasParts,
    shape: tuple[int, int],
    fields: Fields,
    sampler: Sampler,
    known: Known | None,
    *,
    place: str | None,
    seed: int,
    strength: float,
    **how: Any,
) -> Tensor:
    """Draw an area with each part of a cascade in turn: the ways, the densities, the ground on both.

    What all cells know of a part, it does not draw: kept ways stay, and the ground is drawn on them. Densities are not
    drawn where drawing begins with a layout, which has its own.
    """
    spec = cascade.spec
    _check_names(spec, fields)
    if not isinstance(sampler, DrawParts):
        raise CapabilityError("A cascade draws with a sampler for each part.", got=type(sampler).__name__)
    whole = (1, len(spec.channels), *shape)
    layout = torch.zeros(whole, dtype=torch.uint8) if known is None else _to_bytes(known.layout)
    # Where nothing is known, one flag a channel stands for all cells.
    keep = torch.zeros(*whole[:2], 1, 1, dtype=torch.bool) if known is None else known.keep.clone()
    ways = None if known is None else known.ways

    def draw(number: int, part: Generator, own: Sampler | None) -> Tensor:
        at = find_channels(spec, part.spec)
        given = [spec.channels.index(name) for name in part.spec.given]
        made = [i for i in at if i not in given]
        return draw_area(
            part,
            shape,
            _take_fields(asked, part.spec, last=part is cascade.ground),
            known=Known(layout[:, at] / 255, keep[:, at], ways) if strength < 1 or keep[:, made].any() else None,
            given=layout[:, given] if given else None,
            place=place if place in part.spec.places else None,
            seed=fork_seed(seed, number),
            sampler=own,
            strength=strength,
            **how,
        )

    asked = dict(fields)
    plan, ground = (find_channels(spec, part.spec) for part in (cascade.plan, cascade.ground))
    if not keep[:, plan].all():
        layout[0, plan] = draw(0, cascade.plan, sampler.plan)
        keep[:, plan] = True
    if cascade.densities is not None and strength == 1:
        told = replace(cascade.densities.spec, maps=list_drawn_maps(cascade), map_px=cascade.ground.spec.map_px)
        _add_drawn(asked, measure_fields(draw(1, cascade.densities, sampler.densities) / 255, told))
    if not keep[:, ground].all():
        layout[0, ground] = draw(2, cascade.ground, sampler.ground)
    return compose(layout[0], known)


def _take_fields(asked: dict[str, float | Tensor], spec: LayoutSpec, *, last: bool) -> Fields:
    """Return what a part of a cascade knows of the requests. The last part takes it away, so that nobody holds it."""
    named = [name for name in asked if name in {*spec.scalars, *spec.maps}]
    return {name: asked.pop(name) if last else asked[name] for name in named}


def _add_drawn(asked: dict[str, float | Tensor], drawn: Mapping[str, Tensor]) -> None:
    """Add the maps that were drawn to the requests. What is painted goes before what is drawn."""
    for name, values in drawn.items():
        field = asked.get(name)
        if isinstance(field, Tensor) and field.ndim:
            values = torch.where(field.isfinite(), field, values)  # noqa: PLW2901
        asked[name] = values


def make_requests(
    spec: LayoutSpec, cells: Tiling, fields: Fields, known: Known | None = None, place: str | None = None
) -> Conditions:
    """Return the request of each window of an area.

    Parameters
    ----------
    spec
        Channels, conditions and places that the generator knows.
    cells
        The windows.
    fields, known, place
        See `draw_area`.

    Returns
    -------
    Conditions
        One request for each window. If the field of a condition is NaN on a free cell of a window, the window is not
        asked for this condition. It is asked for a map if half of each cell of the map, or more, is not NaN.

    Raises
    ------
    ConditionError
        For conditions that the model does not know, or fields of another shape.
    """
    shape = cells.height, cells.width
    _check_names(spec, fields)
    conditions = Conditions.request(spec, len(cells), {"place": place})
    free = torch.ones(1, *shape) if known is None else (~known.keep.all(1)).float().cpu()
    at_once = max(1, _FIELD_CELLS_AT_ONCE // spec.size_px**2)
    for name, field in fields.items():
        per_cell = _over(name, field, shape)[None, None]
        linear = find_condition(name).linear
        if known is not None and linear:
            weights = torch.tensor([find_condition(name).weights.get(channel, 0.0) for channel in spec.channels])
            there = torch.einsum("c,bchw->bhw", weights, known.layout.cpu().float())[:, None]
            per_cell = torch.where(free[:, None] > 0, per_cell, there)
        for start in range(0, len(cells), at_once):
            part = range(start, min(start + at_once, len(cells)))
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
                means, painted = average_map(values, spec.map_px)
                conditions.maps[index, column] = means
                conditions.maps_present[index, column] = painted.all(-1).all(-1)
    return conditions


def average_map(values: Tensor, map_px: int) -> tuple[Tensor, Tensor]:
    """Average windows `(B, H, W)`, with NaN, over the cells of a map, and tell which cells have enough of no NaN."""
    there = F.adaptive_avg_pool2d(values.isfinite().float()[:, None], map_px)[:, 0]
    means = F.adaptive_avg_pool2d(values.nan_to_num()[:, None], map_px)[:, 0] / there.clamp_min(MOST_PAINTED / 2)
    return means, there >= MOST_PAINTED


def _pad(area: Tensor, pad: tuple[int, int, int, int]) -> Tensor:
    """Return an area `(…, H, W)` with its last columns and rows repeated; the area itself if nothing is added."""
    return F.pad(area, pad, mode="replicate") if any(pad) else area


def _check_names(spec: LayoutSpec, fields: Fields) -> None:
    strange = [name for name in fields if name not in {*spec.scalars, *spec.maps}]
    if strange:
        raise ConditionError(
            "The generator does not know this condition.",
            got=strange[0],
            choices=dict.fromkeys([*spec.scalars, *spec.maps]),
        )


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
    shapes = [] if known is None else [tuple(of.shape) for of in (known.layout, known.keep)]
    if any(found != (1, len(spec.channels), *shape) for found in shapes):
        raise DataError(
            "What is known has another shape than the area.", expected=(1, len(spec.channels), *shape), got=shapes
        )
