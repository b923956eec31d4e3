"""Copenhagen as it cycles: what raw OpenStreetMap and vector tiles know of the cycle network of one area.

    python benchmarks/cycling.py kbh.osm.pbf copenhagen_z14.mbtiles

Prints, for the area that both cover, km of cycle lines by how they are mapped, what the channel of the city raster
reads at 2 m, and both per km². Beside it stands what BikeDNA (Vierø, Vybornova & Szell 2023) publishes of OpenStreetMap
of 2023 in the municipalities of Copenhagen and Frederiksberg: 811.5 km of lines, where a road that is tagged on both
sides is one, and 1,055.6 km where each side and each direction counts, on 181.4 km².
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import shapely

from citygrain.geo.layers import WIDTHS
from citygrain.geo.place import Place
from citygrain.geo.rasterize import Grid, rasterize
from citygrain.geo.sources import Features
from citygrain.geo.sources.osmfile import OsmFile
from citygrain.geo.sources.vectortiles import VectorTiles

BIKEDNA_KM, BIKEDNA_BOTH_SIDES_KM, BIKEDNA_KM2 = 811.5, 1055.6, 181.4


def main() -> None:
    """Read both, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path, help="an OpenStreetMap extract")
    parser.add_argument("tiles", type=Path, help="OpenMapTiles of the same city")
    args = parser.parse_args()
    boxes = np.array([OsmFile(args.raw).extent(), VectorTiles(args.tiles).extent()])
    place = Place.from_bbox("both", [*boxes[:, :2].max(0), *boxes[:, 2:].min(0)])
    print(f"{place.area_km2:.1f} km²: {', '.join(f'{v:.4f}' for v in place.bbox)}\n")
    print(
        "| source | mapped on its own [km] | tagged on a road [km] | raster [km] | km/km² |\n|---|---:|---:|---:|---:|"
    )
    for name, source in ((args.raw.name, OsmFile(args.raw)), (args.tiles.name, VectorTiles(args.tiles))):
        own, tagged, drawn = measure_cycling(source.features(place), place)
        print(f"| {name} | {own:.1f} | {tagged:.1f} | {drawn:.1f} | {drawn / place.area_km2:.2f} |")
    print(f"| BikeDNA, lines | {BIKEDNA_KM} in all | | | {BIKEDNA_KM / BIKEDNA_KM2:.2f} |")
    print(f"| BikeDNA, each side | {BIKEDNA_BOTH_SIDES_KM} in all | | | {BIKEDNA_BOTH_SIDES_KM / BIKEDNA_KM2:.2f} |")


def measure_cycling(found: Features, place: Place) -> tuple[float, float, float]:
    """Return km of cycle lines mapped on their own and tagged on roads, and what the raster reads at 2 m."""
    roads = {i for name in ("arterial", "street", "service") if "osmid" in found[name] for i in found[name]["osmid"]}
    cycle = found["cycle"]
    on_road = cycle["osmid"].isin(roads).to_numpy() if "osmid" in cycle else np.zeros(len(cycle), bool)
    # Pieces of tiles overlap: what lies twice counts once.
    own, tagged = (
        float(shapely.length(shapely.intersection(shapely.union_all(cycle.geometry[mask].to_numpy()), place.utm))) / 1e3
        for mask in (~on_road, on_road)
    )
    grid = Grid.covering(place.bounds_utm, place.crs, 2.0)
    covered = sum(float(strip.sum(dtype=np.int64)) for strip in rasterize(found, grid, ("cycle",)))
    return own, tagged, covered / 255 * grid.resolution_m**2 / WIDTHS["cycle"] / 1e3


if __name__ == "__main__":
    main()
