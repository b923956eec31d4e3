"""Rules that say which features of a file make which channel, and features sorted into layers by them."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from citygrain.errors import ConfigError, SourceError
from citygrain.geo.layers import CHANNEL_NAMES, CHANNELS
from citygrain.geo.place import Place
from citygrain.geo.sources import EmptyLayerWarning

ANY_VALUE = "*"

COLLECTION = 7
"""Type id of shapely."""

TOLD_VALUES = 30
"""Values of a column, the most frequent ones, that a message names at most."""

SHAPES = ("points", "lines", "polygons")
"""Names of geometries, by their dimension."""

NO_GEOMETRY = "features without geometry"
NO_EXTENT = "geometries without extent"
NOT_DRAWN = "features of no rule"
OTHER_SHAPE = "geometries of a shape that their channel does not draw"

WIDTHS = {channel.name: channel.width_m for channel in CHANNELS}


@dataclass(frozen=True)
class LayerRule:
    """Which features of a file make a channel.

    Parameters
    ----------
    channel
        The channel.
    where
        Column → its value, or values; `"*"` means any but missing ones. All columns must fit; none takes all features.
    width_m
        Width that lines are drawn with, in metres, where the channel has none of its own: rivers in `water`.
    """

    channel: str
    where: Mapping[str, Any] = field(default_factory=dict)
    width_m: float | None = None

    def __post_init__(self) -> None:
        if self.channel not in CHANNEL_NAMES:
            raise ConfigError("There is no such channel to draw.", got=self.channel, choices=CHANNEL_NAMES)
        if self.width_m is not None and WIDTHS[self.channel] is not None:
            raise ConfigError(
                f"All lines in {self.channel} have one width, so that their lengths can be measured.",
                expected=f"no width_m ({WIDTHS[self.channel]:g} m)",
                got=self.width_m,
            )
        if self.width_m is not None and not self.width_m > 0:
            raise ConfigError(
                "A line cannot be drawn without a width.", expected="width_m above 0, in metres", got=self.width_m
            )


def keep_usable(frame: gpd.GeoDataFrame, place: Place, crs: pyproj.CRS, skipped: Counter[str]) -> gpd.GeoDataFrame:
    """Return features in the place's CRS that are valid and meet it; what cannot be used is counted."""
    geometry = shapely.force_2d(_flatten_collections(frame))
    mended = shapely.make_valid(geometry, method="structure", keep_collapsed=False)
    geometry = np.where(shapely.get_dimensions(geometry) == 2, mended, geometry)
    geometry = place.project(geometry, crs.to_wkt())
    usable = (
        ~shapely.is_empty(geometry) & (shapely.get_dimensions(geometry) > 0) & np.isfinite(shapely.length(geometry))
    )
    skipped[NO_EXTENT] += int((~usable).sum())
    shapely.prepare(place.utm)
    usable[usable] = shapely.intersects(place.utm, geometry[usable])
    return frame.set_geometry(gpd.GeoSeries(geometry, index=frame.index, crs=place.crs))[usable]


def _flatten_collections(frame: gpd.GeoDataFrame) -> NDArray[np.object_]:
    """Return the geometries of features; of a collection only its parts of the highest dimension."""
    geometry: NDArray[np.object_] = np.array(frame.geometry.to_numpy(), dtype=object)
    mixed = shapely.get_type_id(geometry) == COLLECTION
    geometry[mixed] = [_keep_highest(collection) for collection in geometry[mixed]]
    return geometry


def _keep_highest(collection: BaseGeometry) -> BaseGeometry:
    """Return the areas of a collection, or its lines where it has no areas."""
    parts = shapely.get_parts(shapely.get_parts(collection))
    dimensions = shapely.get_dimensions(parts)
    return shapely.union_all(parts[dimensions == dimensions.max(initial=0)])


def _find_drawable(rule: LayerRule, dimensions: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return a mask of the geometries that a rule's channel draws, `(n,)`.

    A channel of lines draws no areas, since they would be measured as lengths. Lines without a width are not drawn.
    """
    width = WIDTHS[rule.channel]
    lines = dimensions == 1 if width or rule.width_m else np.zeros(len(dimensions), bool)
    return lines if width else lines | (dimensions == 2)


def find_drawn(rule: LayerRule, frame: gpd.GeoDataFrame) -> NDArray[np.bool_]:
    """Return a mask of the features that a rule would draw if it were the only one, `(n,)`."""
    return find_matches(frame, rule.where) & _find_drawable(rule, shapely.get_dimensions(frame.geometry.to_numpy()))


def check_rule(
    rule: LayerRule, whole: gpd.GeoDataFrame, inside: gpd.GeoDataFrame, drawn: bool, path: Path, place: Place
) -> None:
    """Refuse a rule whose channel would be empty in the whole file; warn of a rule that fits nothing in the place.

    An empty channel would count as known: a wrong word in a rule would mean a city without houses.
    """
    fits = find_matches(whole, rule.where)
    words = " and ".join(f"{column}: {_list_values(wanted)}" for column, wanted in rule.where.items())
    if fits.any():
        dimensions = shapely.get_dimensions(_flatten_collections(whole[fits]))
        if not _find_drawable(rule, dimensions).any():
            raise _shape_error(rule, dimensions, path, words)
    elif not drawn:
        column, values = _find_misfit(rule.where, whole)
        raise SourceError(
            f"Nothing in {path.name} makes {rule.channel}: no feature has {words}.",
            expected=f"a value that {column} has",
            got=_list_values(rule.where[column]),
            choices=values,
            remedy=f"write one of these, or leave the rule out: {rule.channel} is unknown then",
        )
    if rule.where and not find_matches(inside, rule.where).any():
        column, values = _find_misfit(rule.where, inside)
        warnings.warn(
            f"Nothing of {path.name} within {place.name} makes {rule.channel} by the rule {words}. "
            f"There, {column} has the values: {', '.join(values) or 'none'}.",
            EmptyLayerWarning,
            stacklevel=3,
        )


def _list_values(wanted: Any) -> str:
    """Return one value of a rule, or several, in words."""
    return ", ".join(map(str, wanted)) if isinstance(wanted, list | tuple) else str(wanted)


def _find_misfit(where: Mapping[str, Any], frame: gpd.GeoDataFrame) -> tuple[str, list[str]]:
    """Return the first column of a rule after which no feature is left, and the values that the column has there."""
    column = ""
    for column in where:
        hit = find_matches(frame, {column: where[column]})
        if not hit.any():
            break
        frame = frame[hit]
    return column, frame[column].dropna().astype("str").value_counts().index[:TOLD_VALUES].tolist()


def _shape_error(rule: LayerRule, dimensions: NDArray[np.int64], path: Path, words: str) -> SourceError:
    counts = Counter(SHAPES[dimension] for dimension in dimensions[dimensions >= 0])
    areas = WIDTHS[rule.channel] is None
    wanted = ("polygons, or lines with width_m" if rule.channel == "water" else "polygons") if areas else "lines"
    held = " and ".join(counts) or "empty geometries"
    with_width = "a width makes lines areas: source.rules=[{channel:water,width_m:…}]; or "
    remedy = with_width if rule.channel == "water" and "lines" in counts else ""
    return SourceError(
        f"{path.name} holds {held} only{f' where {words}' if words else ''}, which {rule.channel} is not drawn from.",
        expected=wanted,
        got=", ".join(f"{n:,} {shape}" for shape, n in counts.items()) or f"{len(dimensions):,} empty geometries",
        remedy=f"{remedy}take a file of {wanted.partition(',')[0]} for {rule.channel}, or leave it out: "
        "it is unknown then",
    )


def sort_features(
    frame: gpd.GeoDataFrame, rules: Sequence[LayerRule], crs: str, skipped: Counter[str]
) -> dict[str, gpd.GeoDataFrame]:
    """Sort features into layers: in each channel, a feature belongs to the first rule that fits it."""
    dimensions = shapely.get_dimensions(frame.geometry.to_numpy())
    lines = dimensions == 1
    parts: dict[str, list[gpd.GeoDataFrame]] = {rule.channel: [] for rule in rules}
    seen = {name: np.zeros(len(frame), bool) for name in parts}
    for rule in rules:
        hit = find_matches(frame, rule.where) & ~seen[rule.channel]
        seen[rule.channel] |= hit
        width = WIDTHS[rule.channel] or rule.width_m
        drawn = hit & _find_drawable(rule, dimensions)
        skipped[OTHER_SHAPE] += int((hit & ~drawn).sum())
        first = next(iter(rule.where), None)
        kind = frame[first][drawn].astype("str") if first else rule.channel
        widths = np.where(lines[drawn], np.nan if width is None else width, np.nan)
        columns = pd.DataFrame({"kind": kind, "width_m": widths}, index=frame.index[drawn])
        columns["kind"] = columns["kind"].astype("str")
        parts[rule.channel].append(gpd.GeoDataFrame(columns, geometry=frame.geometry[drawn], crs=crs))
    skipped[NOT_DRAWN] += int((~np.logical_or.reduce(list(seen.values()))).sum())
    return {name: pd.concat(found, ignore_index=True) for name, found in parts.items()}


def find_matches(frame: gpd.GeoDataFrame, where: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Return a mask of the features whose columns have the values, `(n,)`.

    Values are compared as words, in lower case; numbers also as numbers.
    """
    hit = np.ones(len(frame), bool)
    for column, wanted in where.items():
        values = list(wanted) if isinstance(wanted, list | tuple) else [wanted]
        there = frame[column].notna().to_numpy()
        if ANY_VALUE not in values:
            words = frame[column].astype("str").str.lower().isin([str(value).lower() for value in values])
            there = there & (words.to_numpy() | _find_equal(frame[column], values))
        hit &= there
    return hit


def _find_equal(column: pd.Series[Any], values: Sequence[Any]) -> NDArray[np.bool_]:
    """Return a mask of the numbers that are among the values, `(n,)`.

    A column of whole numbers with gaps is read as fractions, so that `5` stands in it as `5.0`.
    """
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return np.zeros(len(column), bool)
    return column.isin([value for value in values if type(value) in {int, float}]).to_numpy()
