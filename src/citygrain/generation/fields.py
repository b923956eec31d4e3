"""Conditions that vary over an area: gradients, values that fall off from a centre, and maps drawn in a GIS."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.warp import reproject
from torch import Tensor

from citygrain.errors import ConditionError, DataError
from citygrain.geo.rasterize import Grid
from citygrain.networks.frame import find_condition
from citygrain.spec import Conditions, LayoutSpec

RASTERS = (".tif", ".tiff", ".vrt", ".asc", ".img")
"""Endings of raster files: a text with one of these endings is the path of a map of values."""

TOWARDS = ("east", "north", "west", "south", "centre")


def varies(asked: Mapping[str, Any]) -> bool:
    """Return whether a condition is requested with values that vary over the area."""
    return any(is_field(value) for name, value in asked.items() if name != "place")


def is_field(value: Any) -> bool:
    """Return whether a requested value varies over the area."""
    return isinstance(value, Mapping) or (isinstance(value, str | Path) and Path(value).suffix.lower() in RASTERS)


def read_fields(spec: LayoutSpec, asked: Mapping[str, Any], grid: Grid) -> dict[str, float | Tensor]:
    """Read what is requested over an area: a number if it is the same everywhere, or else `(H, W)`, in the unit.

    Parameters
    ----------
    spec
        Conditions and places that the generator knows.
    asked
        Condition → a number in its unit, a percentile `"p0"` … `"p100"`, None for no request, or how it varies.
        `{from, to, towards}` goes evenly from one value to the other, towards `east`, `north`, `west` or `south`.
        Towards the `centre` the value falls off exponentially with the distance from it, as densities of cities do
        (Clark 1951); `from` is then the value in the middle of the nearest edge. The path of a georeferenced raster
        gives the values of its first band; where the raster has no value, nothing is requested. `place` only decides
        what a percentile means.
    grid
        The area.

    Raises
    ------
    ConditionError
        For a condition that the model does not know, or a way of varying that does not exist.
    DataError
        For a raster that cannot be read, or that does not overlap the area.

    References
    ----------
    Clark, C. (1951). Urban population densities. Journal of the Royal Statistical Society A 114(4).
    """

    def number(name: str, value: Any) -> float:
        request = Conditions.request(spec, 1, {name: value, "place": asked.get("place")})
        return float(request.scalars[0, spec.scalars.index(name)])

    fields: dict[str, float | Tensor] = {}
    for name, value in asked.items():
        if name == "place" or value is None:
            continue
        if not is_field(value):
            fields[name] = number(name, value)
        elif isinstance(value, str | Path):
            number(name, "p50")  # refuses a condition that the generator does not know
            fields[name] = torch.from_numpy(_painted(Path(value), grid))
        elif set(value) == {"from", "to", "towards"} and value["towards"] in TOWARDS and None not in value.values():
            start, end = (number(name, value[key]) for key in ("from", "to"))
            fields[name] = torch.from_numpy(_varied(start, end, value["towards"], grid))
        else:
            raise ConditionError(
                f"It is not clear how {name} varies.",
                expected=f"{{from: …, to: …, towards: …}}, towards one of {', '.join(TOWARDS)}",
                got=dict(value),
            )
    return fields


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


def _painted(path: Path, grid: Grid) -> NDArray[np.float32]:
    """Resample the first band of a raster to a grid; NaN where the raster has no value."""
    values = np.full((grid.height, grid.width), np.nan, np.float32)
    try:
        with rasterio.open(path) as painted:
            if painted.crs is None:
                raise DataError(f"{path} does not say where it lies.", expected="a georeferenced raster", got="no CRS")
            band = painted.read(1, masked=True).astype(np.float32).filled(np.nan)
            reproject(
                band, values, src_transform=painted.transform, src_crs=painted.crs, src_nodata=np.nan,
                dst_transform=grid.transform, dst_crs=grid.crs, dst_nodata=np.nan, resampling=Resampling.bilinear,
            )  # fmt: skip
            bounds = [round(v, 6) for v in painted.bounds]
            crs = painted.crs.to_string()
    except RasterioError as error:
        raise DataError(
            f"{path} cannot be read as a raster of values.",
            expected="a number, a percentile such as p90, {from, to, towards}, or the path of a GeoTIFF",
            got=error,
        ) from error
    if not np.isfinite(values).any():
        raise DataError(
            f"{path} holds nothing of the area.",
            expected=f"values within {[round(v) for v in grid.bounds]} in {grid.crs}",
            got=f"{bounds} in {crs}",
        )
    return values
