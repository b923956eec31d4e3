"""Maps that are requested: of single windows, with cells that are left open, and as they are reported."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from citygrain.errors import ConditionError
from citygrain.generation.area import average_map
from citygrain.generation.fields import is_field, read_painted
from citygrain.geo.coarse_maps import CoarseMaps, average_blocks
from citygrain.networks.frame import find_condition
from citygrain.protocols import Generator, HasParts
from citygrain.samplers.parts import list_drawn_maps
from citygrain.spec import Conditions, LayoutSpec


class OpenCellsWarning(UserWarning):
    """A map does not say what is asked for on all cells."""


def takes_maps(spec: LayoutSpec, asked: Mapping[str, Any]) -> bool:
    """Return whether all that varies is what a generator takes as maps of single windows."""
    varying = [name for name, value in asked.items() if name != "place" and is_varied(value)]
    return bool(varying) and set(varying) <= set(spec.maps)


def is_varied(value: Any) -> bool:
    """Return whether a requested value varies, or one of its levels does."""
    return any(map(is_field, value)) if isinstance(value, list | tuple) else is_field(value)


def add_maps(generator: Generator, asked: Conditions, fields: Sequence[Mapping[str, float | Tensor]]) -> Conditions:
    """Return requests for N windows to which maps are added, and their means where a map leaves nothing open.

    Parameters
    ----------
    generator
        Of the windows. It takes maps of all that `fields` have.
    asked
        The other requests.
    fields
        Condition → `(H, W)`, NaN where nothing is requested, for each window.

    Raises
    ------
    ConditionError
        Where a map leaves cells open, and the generator cannot.
    """
    spec = generator.spec
    asked = replace(
        asked, scalars=asked.scalars.clone(), present=asked.present.clone(), maps=asked.maps.clone(),
        maps_present=asked.maps_present.clone(),
    )  # fmt: skip
    for row, of in enumerate(fields):
        for name, field in of.items():
            values = torch.as_tensor(field)[None]
            means, painted = average_map(values, spec.map_px)
            if not painted.all() and not fills_open_cells(generator, name):
                raise ConditionError(
                    f"The map of {name} leaves cells open, and this model takes whole maps.",
                    expected=f"something painted on all {spec.map_px} × {spec.map_px} cells of a window",
                    got=f"{int(painted.sum())} painted cells",
                    remedy=f"paint them, or give the value of all others: {{map: …, elsewhere: 0}} for {name}",
                )
            column = spec.maps.index(name)
            asked.maps[row, column] = means[0].where(painted[0], torch.nan)
            asked.maps_present[row, column] = True
            if name in spec.scalars and values.isfinite().all():
                scalar = spec.scalars.index(name)
                asked.scalars[row, scalar], asked.present[row, scalar] = values.mean(), True
    return asked


def fills_open_cells(generator: Generator, name: str) -> bool:
    """Return whether a model draws by itself what a map of a condition leaves open: a cascade with densities does."""
    return isinstance(generator, HasParts) and name in list_drawn_maps(generator)


def warn_of_open_cells(
    generator: Generator, fields: Mapping[str, float | Tensor], free: NDArray[np.bool_] | None = None
) -> None:
    """Warn of maps of an area that leave cells open, of those cells that are free."""
    for name, field in fields.items():
        values = torch.as_tensor(field)
        if not values.ndim or fills_open_cells(generator, name):
            continue
        painted = float((values if free is None else values[torch.from_numpy(free)]).isfinite().float().mean())
        if painted < 1:
            warnings.warn(
                f"{name} is painted on {painted:.0%} of the cells. A window is asked for it where all of it is "
                "painted, and nowhere else; {map: …, elsewhere: 0} gives the other cells a value.",
                OpenCellsWarning,
                stacklevel=3,
            )


def describe_maps(
    spec: LayoutSpec, asked: Mapping[str, Any], areas: Sequence[Mapping[str, float | Tensor]]
) -> CoarseMaps | None:
    """Return what was requested of N layouts on the cells of maps; None if no map was requested.

    Parameters
    ----------
    spec
        Of the generator. If it takes no maps, the cells are as large as its windows: they are what it is asked for.
    asked
        What a person requested. Maps are what was painted, and what varies and the generator takes as a map.
    areas
        What `read_fields` has read of it for each layout; at least one of them has a map.
    """
    names = [name for name, value in asked.items() if _is_map(spec, name, value) and find_condition(name).linear]
    if not names:
        return None
    cell_px = spec.size_px // (spec.map_px or 1)
    shape = next(np.shape(area[name]) for area in areas for name in names if name in area)

    def average(name: str) -> NDArray[np.float64]:
        return np.stack([average_blocks(np.broadcast_to(area.get(name, np.nan), shape), cell_px) for area in areas])

    about = {name: find_condition(name) for name in names}
    return CoarseMaps(
        cell_px,
        {name: average(name) for name in names},
        {name: of.weights for name, of in about.items()},
        {name: of.unit for name, of in about.items()},
    )


def _is_map(spec: LayoutSpec, name: str, value: Any) -> bool:
    """Return whether a requested value, or one of its levels, is a map: painted, or taken as a map by the generator."""
    levels = value if isinstance(value, list | tuple) else [value]
    return name != "place" and any(
        is_field(level) and (name in spec.maps or read_painted(name, level) is not None) for level in levels
    )


def describe_site_maps(
    spec: LayoutSpec, asked: Mapping[str, Any], fields: Mapping[str, float | Tensor], free: NDArray[np.bool_], n: int
) -> CoarseMaps | None:
    """Return what was requested of a site on the cells of maps: nothing before, and the same of each of `n` answers.

    Cells of a map count where all of their cells are free.
    """

    def mask(where: NDArray[np.bool_]) -> dict[str, Tensor]:
        there = torch.from_numpy(where)
        return {k: torch.where(there, torch.as_tensor(v).expand(where.shape), torch.nan) for k, v in fields.items()}

    return describe_maps(spec, asked, [mask(np.zeros_like(free)), *[mask(free)] * n])
