"""A layout back to the city: buildings and open spaces as polygons, ways as a routable graph, in a CRS.

What a layout does not hold cannot come back: houses that share a wall are one polygon, two carriageways nearer than a
cell are one line, ways cross on one level, and every way may be gone both ways.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import geopandas as gpd
import networkx as nx
import numpy as np
import pandas as pd
import shapely
from numpy.typing import ArrayLike, NDArray

from citygrain.errors import ConfigError, DataError
from citygrain.geo.centrelines import trace_centrelines
from citygrain.geo.layers import WIDTHS
from citygrain.geo.noding import SAME_M, Ways, node_lines
from citygrain.geo.polygons import cut_to_window, keep_valid, restore_corners, trace_outlines
from citygrain.geo.rasterize import Grid

AREAS = ("building", "square", "green", "water", "parking")
"""Channels that become polygons."""

NETWORKS: Mapping[str, tuple[str, ...]] = {
    "drive": ("arterial", "street"),
    "service": ("service",),
    "cycle": ("cycle",),
    "walk": ("walk",),
    "rail": ("rail",),
}
"""Network → the channels that become its lines, the more important one first."""

WITH_SERVICE: Mapping[str, tuple[str, ...]] = {
    "drive": (*NETWORKS["drive"], *NETWORKS["service"]),
    **{name: kinds for name, kinds in NETWORKS.items() if name not in {"drive", "service"}},
}
"""The same where service roads belong to the drive network."""

HIGHWAY: Mapping[str, str] = {
    "arterial": "primary",
    "street": "residential",
    "service": "service",
    "cycle": "cycleway",
    "walk": "footway",
    "rail": "rail",
}
"""Channel → the value of OpenStreetMap's `highway` that stands for it in a graph."""

TOGETHER = ("drive", "service", "cycle", "walk")
"""Networks that somebody on foot or on a bicycle may use, and that `together` puts into one."""

JOIN_M = 12.0
"""A way that ends within this distance of the middle of another network's way is led onto it."""

SMALLEST_M2: Mapping[str, float] = {
    "building": 12.0,
    "square": 40.0,
    "green": 40.0,
    "water": 40.0,
    "parking": 40.0,
}
"""Smaller polygons, and smaller holes in them, are taken for noise."""


@dataclass(frozen=True)
class Vectors:
    """What a layout holds, as features in its CRS.

    Attributes
    ----------
    grid
        The cells it came from.
    channels
        The channels that it had, whether there is anything of them or not.
    areas
        Channel → `(K,)` polygons. Those of one channel are valid and do not overlap.
    ways
        Network → its lines and nodes.
    """

    grid: Grid
    channels: tuple[str, ...]
    areas: dict[str, NDArray[np.object_]]
    ways: dict[str, Ways]

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks that `graph` knows."""
        return (*self.ways, "all") if set(TOGETHER) & set(self.ways) else tuple(self.ways)

    def turn_upright(self) -> Vectors:
        """Return the features of a turned layout as they would lie if its grid were upright."""
        if not self.grid.angle:
            return self
        upright = self.grid.upright

        def back(xy: NDArray[np.float64]) -> NDArray[np.float64]:
            return upright.to_metres(self.grid.to_cells(xy))

        areas = {name: shapely.transform(shapes, back) for name, shapes in self.areas.items()}
        ways = {
            name: replace(of, lines=shapely.transform(of.lines, back), nodes=back(of.nodes))
            for name, of in self.ways.items()
        }
        return Vectors(upright, self.channels, areas, ways)

    def layers(self) -> dict[str, gpd.GeoDataFrame]:
        """Return all features as tables with a CRS.

        Layers are the areas' channels, with `area_m2`; the networks, with the nodes `u` and `v` at which a way begins
        and ends, its channel (`kind`), `highway`, `width_m` and `length_m`; and for each network its `…_nodes`, with
        their number (`node`), how many ways meet there (`street_count`) and whether the edge cut them (`at_edge`).
        """
        crs = self.grid.crs
        layers = {
            name: gpd.GeoDataFrame({"area_m2": shapely.area(shapes)}, geometry=list(shapes), crs=crs)
            for name, shapes in self.areas.items()
        }
        for name, ways in self.ways.items():
            columns = {
                "u": ways.ends[:, 0],
                "v": ways.ends[:, 1],
                "kind": pd.Series(ways.kind, dtype="str"),
                "highway": pd.Series([HIGHWAY[kind] for kind in ways.kind], dtype="str"),
                "width_m": np.array([WIDTHS[kind] for kind in ways.kind], float),
                "length_m": shapely.length(ways.lines),
            }
            layers[name] = gpd.GeoDataFrame(columns, geometry=list(ways.lines), crs=crs)
        for name, ways in self.ways.items():
            columns = {"node": np.arange(len(ways.nodes)), "street_count": ways.street_count, "at_edge": ways.at_edge}
            layers[f"{name}_nodes"] = gpd.GeoDataFrame(columns, geometry=list(shapely.points(ways.nodes)), crs=crs)
        return layers

    def together(self, networks: Sequence[str] = TOGETHER) -> Ways:
        """Return several networks as one, noded wherever their ways cross, unless one of the two is apart.

        A way that ends within `JOIN_M` of a way of the networks before its own is led on to it, unless it ends at the
        edge: paths are drawn up to the edge of a carriageway, whose line is its middle. A way that changes its kind
        between two nodes has the kind of its middle. Networks that the layout does not have are left out.

        Raises
        ------
        DataError
            For the name of no network.
        """
        for network in networks:
            if network not in NETWORKS:
                raise DataError("There is no such network.", got=network, choices=NETWORKS)
        found: dict[str, list[tuple[shapely.LineString, bool]]] = {}  # with whether a line is apart
        before = np.empty(0, object)
        for ways in (self.ways[network] for network in networks if network in self.ways):
            leads, kinds = _find_leads(ways, before)
            apart = np.zeros(len(ways.lines), bool) if ways.apart is None else ways.apart
            lines = [*zip(ways.lines, apart, strict=True), *((lead, False) for lead in leads)]
            for kind, line in zip([*ways.kind, *kinds], lines, strict=True):
                found.setdefault(str(kind), []).append(line)
            before = np.concatenate([before, ways.lines])
        parts = [line for of_kind in found.values() for line in of_kind]
        return node_lines(
            np.array([line for line, _ in parts], object),
            np.repeat(list(found), [len(of_kind) for of_kind in found.values()]),
            self.grid,
            np.array([apart for _, apart in parts], bool),
        )

    def graph(self, network: str = "drive") -> nx.MultiDiGraph:
        """Return a network as a graph like osmnx's, or `"all"`: streets, service roads, tracks and footways `together`.

        Nodes have `x`, `y` and `street_count`; edges, one each way, have `osmid`, `length` in metres, `highway`,
        `oneway`, `reversed`, `width` and `geometry`. The graph knows its CRS. `osmnx.basic_stats`, its routing and
        `momepy`, to which it is a primal graph, take it as it is; bearings want
        `osmnx.project_graph(graph, to_latlong=True)` first.

        Raises
        ------
        DataError
            For a network that the layout has no channel of, or no way.
        """
        if network not in self.networks:
            raise DataError("The layout has no channel of this network.", got=network, choices=self.networks)
        ways = self.together() if network == "all" else self.ways[network]
        if not len(ways.lines):
            raise DataError(f"There are no ways of the network {network} on this layout.")
        graph = nx.MultiDiGraph(crs=self.grid.crs, simplified=True, approach="primal")
        for node, ((x, y), count) in enumerate(zip(ways.nodes.tolist(), ways.street_count.tolist(), strict=True)):
            graph.add_node(node, x=x, y=y, street_count=count)
        back = shapely.reverse(ways.lines)
        for i, (u, v) in enumerate(ways.ends.tolist()):
            kind, line = str(ways.kind[i]), ways.lines[i]
            shared = {
                "osmid": i,
                "length": line.length,
                "highway": HIGHWAY[kind],
                "oneway": False,
                "width": WIDTHS[kind],
            }
            graph.add_edge(u, v, **shared, reversed=False, geometry=line)
            graph.add_edge(v, u, **shared, reversed=True, geometry=back[i])
        return graph


def vectorize(
    layout: ArrayLike,
    channels: Sequence[str],
    grid: Grid,
    *,
    smallest_m2: Mapping[str, float] = SMALLEST_M2,
    service: bool = False,
) -> Vectors:
    """Turn a layout into polygons and noded centrelines.

    Parameters
    ----------
    layout
        `(C, H, W)`, coverage in [0, 1], or 0–255 as uint8.
    channels
        Names of the C channels, in order. Those that are missing have no features.
    grid
        Where the cells lie.
    smallest_m2
        Channel → area in m² from which a polygon, or a hole in one, is kept; `SMALLEST_M2` for those left out.
    service
        Whether service roads belong to the drive network; else they are a network of their own.

    Raises
    ------
    DataError
        For another shape, values that are no coverage, or channels of which nothing is known.
    ConfigError
        For a smallest area that is none, or of a channel that has no areas.
    """
    cells = _check_layout(layout, channels, grid)
    smallest = {**SMALLEST_M2, **smallest_m2}
    for name, area in smallest.items():
        if name not in SMALLEST_M2:
            raise ConfigError("There are no areas of this kind.", got=name, choices=SMALLEST_M2)
        if not (isinstance(area, int | float | np.number) and area >= 0):
            raise ConfigError(
                f"The smallest area of {name} is no area.", expected="square metres, from 0 on", got=repr(area)
            )
    areas = {
        name: _find_areas(name, cells[list(channels).index(name)], grid, smallest[name])
        for name in AREAS
        if name in channels
    }
    ways = {}
    for network, kinds in (WITH_SERVICE if service else NETWORKS).items():
        present = [kind for kind in kinds if kind in channels]
        if present:
            ways[network] = _find_ways(present, cells, channels, grid)
    return Vectors(grid, tuple(channels), areas, ways)


def _check_layout(layout: ArrayLike, channels: Sequence[str], grid: Grid) -> NDArray[np.float32]:
    given = np.asarray(layout)
    cells: NDArray[np.float32] = given.astype(np.float32)
    if given.dtype == np.uint8:
        cells /= np.float32(255)
    if cells.shape != (len(channels), grid.height, grid.width):
        raise DataError(
            "The layout does not have the shape of its channels and grid.",
            expected=(len(channels), grid.height, grid.width),
            got=cells.shape,
        )
    known = {*AREAS, *(kind for kinds in NETWORKS.values() for kind in kinds)}
    strange = [name for name in channels if name not in known]
    if strange:
        raise DataError("These channels cannot be turned into features.", got=", ".join(strange), choices=sorted(known))
    low, high = float(np.min(cells, initial=0)), float(np.max(cells, initial=0))
    if not (math.isfinite(low + high) and low >= -1e-3 and high <= 1 + 1e-3):
        raise DataError("These values are no coverage.", expected="values from 0 to 1", got=f"{low:g} to {high:g}")
    return cells


def _move_to_earth(shapes: NDArray[np.object_], grid: Grid) -> NDArray[np.object_]:
    """Move shapes from cells (x to the right, y down) to metres in the CRS."""
    moved: NDArray[np.object_] = shapely.transform(shapes, grid.to_metres)
    return moved


def _find_areas(name: str, cells: NDArray[np.float32], grid: Grid, smallest_m2: float) -> NDArray[np.object_]:
    shapes = trace_outlines(cells, smallest_m2 / grid.resolution_m**2)
    if name == "building":
        shapes = cut_to_window(restore_corners(shapes), grid.width, grid.height)
    # Metres in UTM are large numbers, with fewer digits behind the point: shapes that just touched may now cross.
    return keep_valid(_move_to_earth(shapes, grid), smallest_m2)


def _find_ways(kinds: Sequence[str], cells: NDArray[np.float32], channels: Sequence[str], grid: Grid) -> Ways:
    found = trace_centrelines([(cells[list(channels).index(k)], WIDTHS[k] / grid.resolution_m) for k in kinds])
    # On specks of a few cells, a way that is led on to another may leave the layout.
    limits = np.array([grid.width, grid.height])
    lines = shapely.transform(found.lines, lambda xy: np.clip(xy, 0, limits))
    inside = np.clip(found.nodes, 0, limits)
    at_edge = np.any((inside < 1e-6) | (inside > limits - 1e-6), axis=1)
    return Ways(_move_to_earth(lines, grid), np.array(kinds)[found.band], found.ends, grid.to_metres(inside), at_edge)


def node_features(features: Mapping[str, ArrayLike], grid: Grid, *, service: bool = False) -> Vectors:
    """Turn the features of a source into vectors like those of layouts, to compare the two.

    Parameters
    ----------
    features
        Channel → shapes in the CRS of the grid, LineStrings of networks and polygons of areas. They are cut at its
        edges, ways are noded wherever those of one network cross, and polygons of one channel that touch become one.
    grid
        The area.
    service
        Whether service roads belong to the drive network; else they are a network of their own.
    """
    box = grid.outline if grid.angle else shapely.box(*grid.bounds)
    cut = {
        name: shapely.get_parts(shapely.intersection(shapely.make_valid(np.asarray(shapes, object)), box))
        for name, shapes in features.items()
    }
    areas = {}
    for name in AREAS:
        if name in cut:
            parts = shapely.get_parts(shapely.union_all(cut[name]))
            areas[name] = parts[shapely.area(parts) > 0]
    ways = {}
    for network, kinds in (WITH_SERVICE if service else NETWORKS).items():
        present = [kind for kind in kinds if kind in cut]
        if present:
            ways[network] = _node_lines({kind: cut[kind][shapely.length(cut[kind]) > 0] for kind in present}, grid)
    return Vectors(grid, tuple(features), areas, ways)


def _find_leads(ways: Ways, onto: NDArray[np.object_]) -> tuple[NDArray[np.object_], NDArray[np.str_]]:
    """Return lines from the loose ends of ways to other ways near by, and the kinds of the ways that end there."""
    loose = np.flatnonzero((ways.street_count == 1) & ~ways.at_edge)
    ends = shapely.points(ways.nodes[loose])
    end, other = shapely.STRtree(onto).query_nearest(ends, max_distance=JOIN_M, all_matches=False)
    leads: NDArray[np.object_] = shapely.shortest_line(ends[end], onto[other])
    way_at = np.zeros(len(ways.nodes), np.int64)
    way_at[ways.ends.T] = np.arange(len(ways.lines))
    far = shapely.length(leads) > SAME_M
    return leads[far], ways.kind[way_at[loose[end]]][far]


def _node_lines(lines: Mapping[str, NDArray[np.object_]], grid: Grid) -> Ways:
    whole = np.concatenate([np.empty(0, object), *lines.values()])
    return node_lines(whole, np.repeat(list(lines), [len(part) for part in lines.values()]), grid)
