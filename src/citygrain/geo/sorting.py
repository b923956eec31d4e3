"""Features sorted into layers, by the rules of `osm_rules` and `tile_rules`.

A source asks `is_of_interest` which objects to keep. It sorts what it kept into layers, and counts the remainder: what
no rule draws although nobody decided so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from citygrain.geo.layers import CHANNEL_NAMES, COASTLINE, WIDTHS, make_empty_layer
from citygrain.geo.osm_rules import (
    AGAINST_LINE,
    ANY,
    ARTERIAL,
    BELOW,
    COUNTED,
    KNOWN,
    OFF_GROUND,
    ONEWAY,
    OSM_RULES,
    RULED,
    STREET,
    Rule,
    Shape,
    Side,
)
from citygrain.geo.roadsides import move_beside, remove_mapped
from citygrain.geo.tile_rules import TILE_DECIDED_AGAINST, TILE_RULES


class Tags(Protocol):
    """Tags of an object: a mapping, or what osmium has in its place."""

    def get(self, key: str, /) -> str | None:
        """Return the value of a key, None where the object has no such tag."""
        ...


def is_ruled(tags: Tags, shape: Shape) -> bool:
    """Tell whether some rule may draw an object with these tags in this shape."""
    for key, values in RULED[shape].items():
        value = tags.get(key)
        if value is not None and (value in values or ANY[0] in values):
            return True
    return False


def is_of_interest(tags: Tags, shape: Shape) -> bool:
    """Tell whether an object is to be kept: a rule may draw it, or neither a rule nor a decision knows one tag."""
    return is_ruled(tags, shape) or any(_is_unknown(key, tags.get(key)) for key in COUNTED[shape])


def _is_unknown(key: str, value: object) -> bool:
    """Tell whether a value of a key that is counted is unknown to rules and decisions."""
    return isinstance(value, str) and value not in KNOWN[key] and ANY[0] not in KNOWN[key]


def layers_from_osm(frame: gpd.GeoDataFrame, *, driving_side: Side = "right") -> dict[str, gpd.GeoDataFrame]:
    """Sort OpenStreetMap features into layers.

    Parameters
    ----------
    frame
        Features in a projected CRS (metres), one column per tag key in `OSM_KEYS` (missing values are None or NaN,
        missing columns are missing tags). A column `element` (`"node"`, `"way"`, `"relation"`) tells areas made of
        relations, a column `osmid` is handed on. A closed way that is both a line and an area comes twice.
    driving_side
        The side of the road that traffic keeps to.

    Returns
    -------
    dict
        Channel name, and `COASTLINE`, to its features.

    Raises
    ------
    ValueError
        When the frame is in degrees: cycle lanes and sidewalks are moved beside their road in metres.
    """
    if frame.crs is None or frame.crs.is_geographic:
        raise ValueError(f"layers_from_osm needs a frame in metres (a projected CRS), got {frame.crs}")
    return _sort(_add_traffic(frame), OSM_RULES, (*CHANNEL_NAMES, COASTLINE), driving_side)


def layers_from_openmaptiles(frames: Mapping[str, gpd.GeoDataFrame]) -> dict[str, gpd.GeoDataFrame]:
    """Sort features of vector tiles into layers.

    Parameters
    ----------
    frames
        Name of the tiles' layer to its features in a projected CRS, with the columns of `TILE_COLUMNS` that the tiles
        have. `transportation_name` is needed only where `transportation` has no column `subclass`.

    Returns
    -------
    dict
        Channel name to its features.
    """
    roads = _add_squares(frames["transportation"])
    frames = {**frames, "transportation": roads}
    found: dict[str, list[gpd.GeoDataFrame]] = {name: [] for name in CHANNEL_NAMES}
    for tile_layer, rules in TILE_RULES.items():
        if tile_layer not in frames or (tile_layer == "transportation_name" and "subclass" in roads):
            continue
        for name, layer in _sort(frames[tile_layer], rules, {rule.layer for rule in rules}).items():
            found[name].append(_remove_tunnels(layer, roads) if tile_layer == "transportation_name" else layer)
    return {
        name: pd.concat(parts, ignore_index=True) if parts else make_empty_layer(roads.crs)
        for name, parts in found.items()
    }


@dataclass(frozen=True)
class Remainder:
    """What has one tag and is not drawn, although no decision says so.

    Attributes
    ----------
    features
        How many features have it.
    km
        Length of the lines among them.
    ha
        Area of the areas among them.
    """

    features: int
    km: float
    ha: float


def count_remainder(
    frame: gpd.GeoDataFrame, within: BaseGeometry, *, driving_side: Side = "right"
) -> dict[str, Remainder]:
    """Count what no rule draws and no decision leaves out, by tag (`highway=…`), the most frequent first.

    Parameters
    ----------
    frame, driving_side
        As for `layers_from_osm`. A feature that is drawn by another of its tags is not counted.
    within
        Area in the frame's CRS to which lengths and areas are cut.
    """
    dimension = shapely.get_dimensions(frame.geometry.to_numpy())
    found = []
    for shape, of_shape in (("line", dimension == 1), ("area", dimension == 2)):
        for key in COUNTED[shape]:  # type: ignore[index]  # mypy widens the literals
            if key in frame:
                values = frame[key].to_numpy()
                strange = np.array([_is_unknown(key, value) for value in values], dtype=bool)
                found += [(i, f"{key}={values[i]}") for i in np.flatnonzero(strange & of_shape)]
    left = frame.iloc[[i for i, _ in found]].assign(osmid=np.arange(len(found)))
    layers = layers_from_osm(left, driving_side=driving_side).values()
    drawn = {int(number) for layer in layers if "osmid" in layer for number in layer["osmid"]}
    geometry = left.geometry.to_numpy()
    return _add_up([(tag, geometry[n]) for n, (_, tag) in enumerate(found) if n not in drawn], within)


def count_tile_remainder(frames: Mapping[str, gpd.GeoDataFrame], within: BaseGeometry) -> dict[str, Remainder]:
    """Count the lines of vector tiles whose class is unknown to rules and decisions, as `count_remainder` does."""
    found = []
    for name, against in TILE_DECIDED_AGAINST.items():
        if name in frames and "class" in frames[name]:
            known = {value for rule in TILE_RULES[name] for value in rule.when.get("class", ())} | against
            geometry, classes = frames[name].geometry.to_numpy(), frames[name]["class"]
            strange = (shapely.get_dimensions(geometry) == 1) & classes.notna().to_numpy() & ~classes.isin(known)
            found += [(f"{name}.class={classes.iloc[i]}", geometry[i]) for i in np.flatnonzero(strange)]
    return _add_up(found, within)


def _add_up(found: Sequence[tuple[str, BaseGeometry]], within: BaseGeometry) -> dict[str, Remainder]:
    """Add up features by tag, the most frequent first."""
    by_tag: dict[str, list[BaseGeometry]] = {}
    for tag, geometry in found:
        by_tag.setdefault(tag, []).append(geometry)
    counted = {}
    for tag, geometries in sorted(by_tag.items(), key=lambda item: (-len(item[1]), item[0])):
        inside = shapely.intersection(shapely.make_valid(np.array(geometries, object)), within)
        areas = shapely.area(inside)
        km = float(shapely.length(inside[areas == 0]).sum()) / 1e3
        counted[tag] = Remainder(len(geometries), round(km, 3), round(float(areas.sum()) / 1e4, 3))
    return counted


def _remove_tunnels(lines: gpd.GeoDataFrame, roads: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Cut out of `lines` what is in a tunnel by `roads`, which hold the same lines."""
    tunnels = roads.geometry[
        _find_matches(roads, "brunnel", ("tunnel",)) & _find_matches(roads, "class", ("path", "track"))
    ]
    geometry = lines.geometry.to_numpy(copy=True)
    near = lines.sindex.query(tunnels.to_numpy(), predicate="intersects")[1]
    near = np.unique(near)
    geometry[near] = shapely.difference(geometry[near], shapely.union_all(tunnels.to_numpy()))
    lines = lines.set_geometry(gpd.GeoSeries(geometry, index=lines.index, crs=lines.crs))
    return lines[~lines.is_empty]


def _add_squares(roads: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Turn closed lines of the class `pedestrian` into the areas that they go around."""
    geometry = roads.geometry.to_numpy()
    pedestrian = np.flatnonzero(
        _find_matches(roads, "class", ("pedestrian",)) & (shapely.get_dimensions(geometry) == 1)
    )
    parts, owner = shapely.get_parts(geometry[pedestrian], return_index=True)
    closed = shapely.is_closed(parts) & (shapely.get_num_coordinates(parts) > 3)
    if not closed.any():
        return roads
    lines = geometry.copy()
    for i in np.unique(owner[closed]):
        lines[pedestrian[i]] = shapely.multilinestrings(parts[(owner == i) & ~closed])
    squares = roads.iloc[pedestrian[owner[closed]]]
    rings = [shapely.Polygon(ring.coords) for ring in parts[closed]]
    areas = shapely.make_valid(rings, method="structure", keep_collapsed=False)
    whole = pd.concat([roads.set_geometry(lines), squares.set_geometry(areas)], ignore_index=True)
    return gpd.GeoDataFrame(whole, crs=roads.crs)[~whole.is_empty]


def _add_traffic(frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Add the column `one-way`: `with` or `against` where all traffic runs so along the line; else it is missing."""
    says = frame["oneway"] if "oneway" in frame else pd.Series(None, index=frame.index, dtype="object")
    implied = _find_matches(frame, "junction", ("roundabout", "circular")) | _find_matches(
        frame, "highway", ("motorway",)
    )
    one_way = np.full(len(frame), None, dtype=object)
    one_way[says.isin(ONEWAY).to_numpy() | (implied & says.isna().to_numpy())] = "with"
    one_way[says.isin(AGAINST_LINE).to_numpy()] = "against"
    return frame.assign(**{"one-way": one_way})


def _sort(
    frame: gpd.GeoDataFrame, rules: Iterable[Rule], names: Iterable[str], driving_side: Side = "right"
) -> dict[str, gpd.GeoDataFrame]:
    """Apply the rules in order: on each side, a feature is drawn once in a layer, by the first rule that matches."""
    dimension = shapely.get_dimensions(frame.geometry.to_numpy())
    of_shape = {"line": dimension == 1, "area": dimension == 2}
    drawn: dict[tuple[str, Side | None], NDArray[np.bool_]] = {}
    on_line: dict[str, list[gpd.GeoDataFrame]] = {name: [] for name in names}
    beside: dict[str, list[gpd.GeoDataFrame]] = {name: [] for name in on_line}
    for rule in rules:
        hit = of_shape[rule.shape].copy()
        for key, values in rule.when.items():
            if not hit.any():
                break
            hit &= _find_matches(frame, key, values)
        if not hit.any():
            continue
        for key, values in rule.unless.items():
            hit &= ~_find_matches(frame, key, values)
        for side, there in _find_sides(frame, rule, hit, driving_side):
            if side is not None and (rule.layer, None) in drawn:
                there = there & ~drawn[rule.layer, None]  # noqa: PLW2901
            seen = drawn.setdefault((rule.layer, side), np.zeros(len(frame), dtype=bool))
            new = there & ~seen
            seen |= new
            if new.any():
                (on_line if side is None else beside)[rule.layer].append(_draw_features(frame[new], rule, side))
    layers = {}
    for name, found in on_line.items():
        found += [remove_mapped(part, found) for part in beside[name]]
        layers[name] = pd.concat(found, ignore_index=True) if found else make_empty_layer(frame.crs)
    return layers


def _find_sides(
    frame: gpd.GeoDataFrame, rule: Rule, hit: NDArray[np.bool_], driving_side: Side
) -> list[tuple[Side | None, NDArray[np.bool_]]]:
    """Return the sides on which a rule draws, each with a mask of the features: on the line (None), left or right."""
    if rule.side is None:
        return [(None, hit)]
    if rule.side in {"left", "right"}:
        to_the_left = np.full(len(frame), rule.side == "left")
    else:
        kept_left = np.full(len(frame), driving_side == "left") ^ _find_matches(frame, "one-way", ("against",))
        to_the_left = kept_left if rule.side == "near" else ~kept_left
    sides: list[tuple[Side | None, NDArray[np.bool_]]] = []
    for side, there in (("left", hit & to_the_left), ("right", hit & ~to_the_left)):
        for tag in (f"{rule.plain}:{side}", f"{rule.plain}:both") if rule.plain else ():
            if tag in frame and tag not in rule.when:
                there = there & frame[tag].isna().to_numpy()  # noqa: PLW2901
        sides.append((side, there))  # type: ignore[arg-type]
    return sides


_NUMBER = re.compile(r"(?<!\d)-?\d+(?:\.\d+)?")


def _find_matches(frame: gpd.GeoDataFrame, key: str, values: tuple[str, ...]) -> NDArray[np.bool_]:
    """Mask of the features whose tag has one of the values, `(N,)`."""
    if key not in frame:
        return np.zeros(len(frame), dtype=bool)
    column = frame[key]
    if values == ANY:
        hit = column.notna() & (column != "no")
    elif values in {BELOW, OFF_GROUND}:
        far = [value for value in column.dropna().unique() if _is_off_ground(str(value), above=values == OFF_GROUND)]
        hit = column.isin(far) & ~pd.Series(_find_matches(frame, "tunnel", ("no",)), index=frame.index)
    else:
        lists = [value for value in column.dropna().unique() if ";" in str(value)]
        fitting = [value for value in lists if any(part.strip() in values for part in str(value).split(";"))]
        hit = column.isin([*values, *fitting])
    return hit.to_numpy(dtype=bool)


def _is_off_ground(levels: str, *, above: bool) -> bool:
    """Tell whether all numbers of a tag such as `-1`, `-2;-1` or `-3--1` are below 0; with `above`, or all above it.

    >>> [_is_off_ground(text, above=False) for text in ("-1", "-2;-1", "-3--1", "-1;0", "0", "1-3", "ground")]
    [True, True, True, False, False, False, False]
    >>> [_is_off_ground(text, above=True) for text in ("-1", "1;2", "-1;1", "0", "")]
    [True, True, False, False, False]
    """
    numbers = [float(number) for number in _NUMBER.findall(levels)]
    return bool(numbers) and (max(numbers) < 0 or (above and min(numbers) > 0))


def _draw_features(frame: gpd.GeoDataFrame, rule: Rule, side: Side | None) -> gpd.GeoDataFrame:
    """Return features that matched a rule in the schema of a layer; those beside it with their `road`."""
    geometry = frame.geometry.to_numpy()
    width = np.nan if rule.shape == "area" else rule.width_m or WIDTHS.get(rule.layer, np.nan)
    kind = frame[next(iter(rule.when))].astype("str") if rule.when else rule.layer
    columns = {"kind": kind, "width_m": width}
    if "osmid" in frame:
        columns["osmid"] = frame["osmid"].astype("str")
    if side is not None:
        offset_m = (frame["highway"].map(_ROAD_WIDTHS).to_numpy(float) + WIDTHS[rule.layer]) / 2
        geometry = move_beside(geometry, offset_m, side)
        columns |= {"offset_m": offset_m, "road": frame.geometry.to_numpy()}
    drawn = gpd.GeoDataFrame(pd.DataFrame(columns, index=frame.index), geometry=geometry, crs=frame.crs)
    return drawn[~shapely.is_missing(geometry)]


_ROAD_WIDTHS = {
    **dict.fromkeys(ARTERIAL, WIDTHS["arterial"]),
    **dict.fromkeys(STREET, WIDTHS["street"]),
    "service": WIDTHS["service"],
    "cycleway": WIDTHS["cycle"],
}
"""Value of `highway` → the width in metres that its line is drawn with."""
