"""How many buildings a hectare cells of 2 m can tell apart, with and without a channel of the walls between them.

    python benchmarks/party_walls.py amsterdam.mbtiles=4.86,52.36,4.90,52.38 london.osm.pbf=-0.114,51.511,-0.094,51.523

Houses of a row touch, and are one area in cells. For each box (west, south, east, north) of an extract it counts, in
windows of 256 m: the buildings of the source; what is left of them where those that touch are one; connected cells of
which half is built; polygons of `citygrain.geo.vectorize`; and polygons of the same cells where a channel of party
walls, drawn as wide as a cell with the rasteriser of all channels, was taken away from the buildings. *Found* is the
share of the source's buildings that have a polygon of their own (intersection over union from 0.5 on).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from citygrain.geo.place import Place
from citygrain.geo.rasterize import Grid, rasterize
from citygrain.geo.sources import read_features
from citygrain.geo.sources.osmfile import OsmFile
from citygrain.geo.sources.vectortiles import VectorTiles
from citygrain.geo.vectorize import SMALLEST_M2, vectorize

CELL_M, CELLS = 2.0, 128
TOUCHING_M = 0.3
SHORTEST_WALL_M = 2.0

Shapes = NDArray[np.object_]


def read_buildings(file: Path, box: tuple[float, ...]) -> tuple[Shapes, str]:
    """Return the buildings of a box, without pieces that tiles have cut them into, and their CRS."""
    place = Place.from_bbox(file.name.split("_")[0].split(".")[0], box)
    source = VectorTiles(file) if file.suffix == ".mbtiles" else OsmFile(str(file))
    found = shapely.make_valid(np.asarray(read_features(place, source)["building"].geometry, object))
    parts = shapely.get_parts(found)
    parts = parts[(shapely.get_type_id(parts) == 3) & (shapely.area(parts) > 0)]
    return _join_pieces(parts), place.crs


def _join_pieces(parts: Shapes) -> Shapes:
    """Join pieces of one building: tiles overlap at their edges, so that its pieces do."""
    one, other = shapely.STRtree(parts).query(parts, predicate="intersects")
    smaller = np.minimum(shapely.area(parts)[one], shapely.area(parts)[other])
    over = shapely.area(shapely.intersection(parts[one], parts[other])) > 0.3 * smaller
    return _union(parts, one[over], other[over])


def _union(parts: Shapes, one: NDArray[np.int64], other: NDArray[np.int64]) -> Shapes:
    """Unite the shapes that pairs connect."""
    graph = coo_array((np.ones(len(one)), (one, other)), (len(parts), len(parts)))
    _, group = connected_components(graph, directed=False)
    order = np.argsort(group, kind="stable")
    cuts = np.flatnonzero(np.diff(group[order])) + 1
    groups = np.split(order, cuts)
    return np.array([shapely.union_all(parts[of]) if len(of) > 1 else parts[of[0]] for of in groups], object)


def find_walls(buildings: Shapes) -> tuple[Shapes, Shapes]:
    """Return the walls that buildings share, and the buildings where those that touch are one."""
    near = shapely.buffer(buildings, TOUCHING_M)
    one, other = shapely.STRtree(buildings).query(near, predicate="intersects")
    pairs = one < other
    one, other = one[pairs], other[pairs]
    walls = shapely.intersection(shapely.boundary(buildings[other]), near[one])
    long = shapely.length(walls) >= SHORTEST_WALL_M
    return walls[long], _union(buildings, one[long], other[long])


def draw(shapes: Shapes, grid: Grid, width_m: float = np.nan) -> NDArray[np.uint8]:
    """Draw shapes as one channel, lines as wide as said."""
    frame = gpd.GeoDataFrame({"width_m": np.full(len(shapes), width_m)}, geometry=list(shapes), crs=grid.crs)
    return np.concatenate(list(rasterize({"building": frame}, grid, ("building",))), 1)[0]


def find_share(buildings: Shapes, polygons: Shapes) -> float:
    """Return the share of buildings that a polygon stands for."""
    if not len(polygons):
        return 0.0
    one, other = shapely.STRtree(polygons).query(buildings, predicate="intersects")
    both = shapely.area(shapely.intersection(buildings[one], polygons[other]))
    either = shapely.area(buildings)[one] + shapely.area(polygons)[other] - both
    return len(np.unique(one[both >= 0.5 * either])) / len(buildings)


def count(buildings: Shapes, walls: Shapes, joined: Shapes, grid: Grid) -> dict[str, float] | None:
    """Count the buildings of a window; None where there are few."""
    inside = grid.outline

    def here(shapes: Shapes) -> Shapes:
        cut = shapely.intersection(shapes[shapely.intersects(shapes, inside)], inside)
        return cut[shapely.area(cut) >= SMALLEST_M2["building"]]

    own = here(buildings)
    if len(own) < 10:
        return None
    built = draw(own, grid)
    wall = draw(walls[shapely.intersects(walls, inside)], grid, CELL_M)
    apart = np.where(wall > built, 0, built - np.minimum(wall, built)).astype(np.uint8)
    plain, parted = (vectorize(cells[None], ("building",), grid).areas["building"] for cells in (built, apart))
    grown = shapely.buffer(parted, CELL_M / 2, join_style="mitre")  # half of a wall belongs to either house
    return {
        "source": len(own),
        "touching are one": len(here(joined)),
        "connected cells": int(ndimage.label(built >= 128)[1]),
        "vectorize": len(plain),
        "with walls": len(parted),
        "found": len(own) * find_share(own, plain),
        "found with walls": len(own) * find_share(own, grown),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("boxes", nargs="+", help="<extract>=<west>,<south>,<east>,<north>")
    rows = {}
    for text in parser.parse_args().boxes:
        file, _, box = text.rpartition("=")
        buildings, crs = read_buildings(Path(file), tuple(map(float, box.split(","))))
        walls, joined = find_walls(buildings)
        left, bottom, right, top = shapely.total_bounds(buildings)
        edge = CELL_M * CELLS
        grids = [
            Grid(crs, float(x), float(y) + edge, CELL_M, CELLS, CELLS)
            for x in np.arange(left, right - edge, edge)
            for y in np.arange(bottom, top - edge, edge)
        ]
        found = pd.DataFrame([row for grid in grids if (row := count(buildings, walls, joined, grid)) is not None])
        hectares = len(found) * edge**2 / 1e4
        sums = found.sum()
        shares = {name: sums.pop(name) / sums["source"] for name in ("found", "found with walls")}
        rows[Path(file).name] = {"windows": len(found), **(sums / hectares).round(2), **shares}
        print(pd.DataFrame.from_dict(rows, orient="index").round(3).T.to_string(), flush=True)


if __name__ == "__main__":
    main()
