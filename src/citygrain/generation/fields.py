"""Conditions that vary over an area: gradients, values that fall off from a centre, and maps drawn in a GIS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from citygrain.errors import ConditionError
from citygrain.geo.painted_map import PaintedMap, is_painted
from citygrain.geo.rasterize import Grid
from citygrain.networks.frame import find_condition
from citygrain.spec import Conditions, LayoutSpec

TOWARDS = ("east", "north", "west", "south", "centre")


def varies(asked: Mapping[str, Any]) -> bool:
    """Return whether a condition is requested with values that vary over the area."""
    return any(is_field(value) for name, value in asked.items() if name != "place")


def is_field(value: Any) -> bool:
    """Return whether a requested value varies over the area."""
    return isinstance(value, Mapping) or is_painted(value)


def read_painted(name: str, value: Any) -> PaintedMap | None:
    """Return the painted map that a requested value stands for: the path of one, `{map: path, …}`, or the map itself.

    Raises
    ------
    ConditionError
        For a setting that painted maps do not have.
    """
    if isinstance(value, PaintedMap):
        return value
    if is_painted(value):
        return PaintedMap(value)
    if not isinstance(value, Mapping) or "map" not in value:
        return None
    settings = {key: setting for key, setting in value.items() if key != "map"}
    choices = [of.name for of in fields(PaintedMap) if of.name != "source"]
    for key in settings:
        if key not in choices:
            raise ConditionError(f"The map of {name} has no such setting.", got=key, choices=choices)
    if not is_painted(value["map"]):
        raise ConditionError(
            f"The map of {name} is no file that is known.",
            expected="a GeoTIFF, a grey picture (PNG), or polygons (GeoPackage, GeoJSON)",
            got=value["map"],
        )
    return PaintedMap(value["map"], **settings)


def read_fields(
    spec: LayoutSpec, asked: Mapping[str, Any], grid: Grid, free: NDArray[np.bool_] | None = None
) -> dict[str, float | Tensor]:
    """Read what is requested over an area: a number if it is the same everywhere, or else `(H, W)`, in the unit.

    Parameters
    ----------
    spec
        Conditions and places that the generator knows.
    asked
        Condition → a number in its unit, a percentile `"p0"` … `"p100"`, None for no request, or how it varies.
        `{from, to, towards}` goes evenly from one value to the other, towards `east`, `north`, `west` or `south`.
        Towards the `centre` the value falls off exponentially with the distance from it, as densities of cities do
        (Clark 1951); `from` is then the value in the middle of the nearest edge. A `PaintedMap`, its path or
        `{map: path, …}` gives the value of each cell; where nothing is painted, nothing is requested. `place` only
        decides what a percentile means.
    grid
        The area.
    free
        `(H, W)`: the cells of a site, see `PaintedMap.read`.

    Raises
    ------
    ConditionError
        For a condition that the model does not know, a way of varying that does not exist, or values that the
        condition cannot have.
    DataError
        For a map that cannot be read, or that does not overlap the area.

    References
    ----------
    Clark, C. (1951). Urban population densities. Journal of the Royal Statistical Society A 114(4).
    """
    # What the model knows as a map only, it is asked for in numbers, too.
    known = replace(spec, scalars=tuple(dict.fromkeys([*spec.scalars, *spec.maps])))

    def number(name: str, value: Any) -> float:
        request = Conditions.request(known, 1, {name: value, "place": asked.get("place")})
        return float(request.scalars[0, known.scalars.index(name)])

    found: dict[str, float | Tensor] = {}
    for name, value in asked.items():
        if name == "place" or value is None:
            continue
        painted = read_painted(name, value)
        if painted is not None:
            number(name, 0)  # refuses a condition that the generator does not know
            found[name] = torch.from_numpy(painted.read(name, find_condition(name).unit, grid, free))
        elif not is_field(value):
            found[name] = number(name, value)
        elif set(value) == {"from", "to", "towards"} and value["towards"] in TOWARDS and None not in value.values():
            start, end = (number(name, value[key]) for key in ("from", "to"))
            found[name] = torch.from_numpy(_varied(start, end, value["towards"], grid))
        else:
            raise ConditionError(
                f"It is not clear how {name} varies.",
                expected=f"{{from: …, to: …, towards: …}}, towards one of {', '.join(TOWARDS)}; or {{map: path, …}}",
                got=dict(value),
            )
    return found


def measure_fields(layout: Tensor, spec: LayoutSpec) -> dict[str, Tensor]:
    """Measure each cell of an area as the condition maps of a spec measure it: condition → `(H, W)` in its unit.

    So the densities that one model has drawn over an area become what `citygrain.generation.area.draw_area` requests of
    another model there. For single windows see `citygrain.data.transforms.measure_condition_maps`.

    Parameters
    ----------
    layout
        `(C, H, W)` in [0, 1], with the channels of the spec.
    spec
        Names the maps.
    """
    weights = [[find_condition(name).weights.get(channel, 0.0) for channel in spec.channels] for name in spec.maps]
    return dict(zip(spec.maps, torch.einsum("mc,chw->mhw", layout.new_tensor(weights), layout), strict=True))


def _varied(start: float, end: float, towards: str, grid: Grid) -> NDArray[np.float32]:
    y, x = np.meshgrid(
        (np.arange(grid.height) + 0.5) / grid.height, (np.arange(grid.width) + 0.5) / grid.width, indexing="ij"
    )
    if grid.angle and towards != "centre":  # the sides of the area point elsewhere
        left, bottom, right, top = grid.bounds
        middles = np.stack([x.ravel() * grid.width, y.ravel() * grid.height], 1)
        east, north = grid.to_metres(middles).T.reshape(2, *x.shape)
        x, y = (east - left) / (right - left), (top - north) / (top - bottom)
    if towards == "centre":
        distance = np.hypot((x - 0.5) * grid.width, (y - 0.5) * grid.height) / (min(grid.width, grid.height) / 2)
        small = 0.01 * max(start, end, 1e-9)  # an exponential never gets to 0
        values = np.exp(np.log(max(end, small)) + distance * (np.log(max(start, small)) - np.log(max(end, small))))
    else:
        share = {"east": x, "west": 1 - x, "north": 1 - y, "south": y}[towards]
        values = start + share * (end - start)
    result: NDArray[np.float32] = values.astype(np.float32)
    return result
