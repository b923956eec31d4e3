"""What each channel of real places holds: before a change, now, and by a count that shares no code with the product.

    python benchmarks/channels.py extracts --before ../before

`--before` is a checkout of another revision, which draws by its own code in a process of its own. Extracts are drawn
whole, at 2 m. Lines are told in kilometres, the area of their cells divided by their width; areas in hectares. The
count is that of `tests/geo/independent_count.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import shapely

from citygrain.geo.layers import CHANNELS
from citygrain.geo.place import Place
from citygrain.geo.rasterize import Grid, rasterize, rasterize_area
from citygrain.geo.sources import read_features
from citygrain.geo.sources.osmfile import OsmFile

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests" / "geo"))
import independent_count  # type: ignore[import-not-found]  # noqa: E402

RESOLUTION_M = 2.0
TOLD = 0.01
"""Share by which a channel must have changed for both values to be told."""

BBox = tuple[float, float, float, float]

PLACES: dict[str, tuple[str, BBox, str]] = {
    "Porto": ("porto/porto_vh.osm.pbf", (-8.62123, 41.12474, -8.59369, 41.15607), "right"),
    "Liechtenstein": ("liechtenstein/liechtenstein_vh.osm.pbf", (9.47108, 47.04775, 9.63621, 47.27127), "right"),
    "Reisterstown": ("reisterstown_md/reisterstown_r5.osm.pbf", (-76.815, 39.3685, -76.6417, 39.4355), "right"),
    "Lauf": ("lauf/lauf_gh.osm.pbf", (11.24741, 49.49947, 11.30793, 49.53044), "right"),
    "Helsinki": ("registry/helsinki_centre.osm.pbf", (24.93518, 60.16416, 24.95341, 60.17911), "right"),
    "Monaco": ("registry/quackosm_monaco.osm.pbf", (7.40921, 43.72336, 7.44863, 43.75168), "right"),
    "Munich": ("munich_centre/munchen.osm.pbf", (11.56566, 48.13144, 11.58612, 48.14339), "right"),
    "London": ("london_clerkenwell/london.osm.pbf", (-0.11416, 51.51073, -0.09317, 51.52325), "left"),
    "Vienna": ("vienna_innere_stadt/osm_bbox.osm.xml.gz", (16.3624, 48.2032, 16.3788, 48.2135), "right"),
}
"""Place → extract, bbox in degrees, and the side of the road that people drive on."""


def drawn(path: Path, bbox: BBox) -> dict[str, float]:
    """Return channel → km or ha that its cells cover within the place."""
    place = Place.from_bbox("place", bbox)
    found = read_features(place, OsmFile(path))
    area = shapely.intersection(place.utm, found.valid)
    grid = Grid.covering(place.bounds_utm, place.crs, RESOLUTION_M)
    cells = np.zeros(len(found))
    for strip, inside in zip(rasterize(found, grid), rasterize_area(area, grid), strict=True):
        cells += (strip.astype(np.float64) / 255 * (inside / 255)).sum(axis=(1, 2))
    units_m2 = [channel.width_m * 1e3 if channel.width_m else 1e4 for channel in CHANNELS]
    return dict(zip(found, (cells * RESOLUTION_M**2 / units_m2).tolist(), strict=True))


def drawn_by(checkout: Path, path: Path, bbox: BBox) -> dict[str, float]:
    """Return what the code of a checkout draws."""
    request = json.dumps([str(path), bbox])
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, "--draw", request],
        env=environment, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    held: dict[str, float] = json.loads(done.stdout)
    return held


def cell(before: float | None, now: float) -> str:
    """Tell what a channel held and holds; once where it has hardly changed."""
    told = f"{now:,.1f}"
    if before is None or abs(now - before) <= TOLD * before or told == f"{before:,.1f}":
        return told
    return f"{before:,.1f} → {told}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("extracts", type=Path, nargs="?", help="folder that holds the extracts of PLACES")
    parser.add_argument("--before", type=Path, help="checkout of the revision to compare with")
    parser.add_argument("--places", nargs="+", choices=PLACES, default=list(PLACES))
    parser.add_argument("--draw", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.draw:
        path, bbox = json.loads(args.draw)
        print(json.dumps(drawn(Path(path), tuple(bbox))))
        return
    if args.extracts is None:
        parser.error("where are the extracts?")
    rows: dict[str, list[str]] = {c.name: [f"{c.name} [{'km' if c.width_m else 'ha'}]"] for c in CHANNELS}
    rows["off"] = ["most off the count"]
    rows["tagged"] = ["walk, cycle tagged on a road [km]"]
    rows["shared"] = ["cycle ways that are in walk"]
    with tempfile.TemporaryDirectory() as folder:
        for name in args.places:
            file, bbox, drive_on = PLACES[name]
            path = independent_count.sorted_copy(args.extracts / file, Path(folder))
            count = independent_count.count(path, bbox, drive_on=drive_on)
            truth: dict[str, float] = count.flat()
            truth["water"] += truth.pop("sea")
            now = drawn_by(ROOT, path, bbox)
            before = drawn_by(args.before, path, bbox) if args.before else now
            off = {c: (now[c] - held) / held for c, held in truth.items() if held > TOLD}
            worst = max(off, key=lambda c: abs(off[c]))
            for channel in now:
                rows[channel].append(cell(before.get(channel), now[channel]))
            rows["off"].append(f"{off[worst]:+.1%} ({worst})")
            rows["tagged"].append(f"{count.tagged_km['walk']:.1f}, {count.tagged_km['cycle']:.1f}")
            cycleway_km, walked_km = count.cycleway_km
            rows["shared"].append(f"{walked_km / cycleway_km:.0%}" if cycleway_km else "–")
            print(name, json.dumps({"before": before, "now": now, "counted": truth}), file=sys.stderr, flush=True)
    print("| |", " | ".join(args.places), "|")
    print("|---|" + "---:|" * len(args.places))
    for row in rows.values():
        print("|", " | ".join(row), "|")


if __name__ == "__main__":
    main()
