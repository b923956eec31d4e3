#!/usr/bin/env bash
# A file whose ways come before its nodes gives ways without locations, no areas, and no error (pyosmium).
#
# Versions     osmium (pyosmium) 4.3.2
# Expected     `with_locations()` and `with_areas()` need nodes before ways. A file in another order is refused, as ways
#              out of order among themselves are ("Way IDs out of order").
# Seen         The same square house and street, nodes first: two ways with all their locations, and one area. Ways
#              first: two ways without a single location, no area, and no exception: only the order within a type is
#              checked, not the order of the types.
# Matters      Overpass writes ways before nodes for `out body; >; out skel;`, the query most people save as .osm. A
#              reader that skips ways without locations, as clipped extracts make one do, reads an empty city.
# Remedy       Look at the order of the types first, and sort with `osmium.MergeInputReader`.
# Source       seen with the library; https://docs.osmcode.org/osmium/latest/osmium-sort.html has the order that is meant.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "osmium==4.3.2"
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from pathlib import Path

import osmium

corners = [(9.000, 50.000), (9.001, 50.000), (9.001, 50.001), (9.000, 50.001)]
nodes = "".join(f'<node id="{i}" version="1" lon="{x}" lat="{y}"/>' for i, (x, y) in enumerate(corners, 1))


def way(number: int, refs: list[int], key: str, value: str) -> str:
    inside = "".join(f'<nd ref="{ref}"/>' for ref in refs)
    return f'<way id="{number}" version="1">{inside}<tag k="{key}" v="{value}"/></way>'


ways = way(7, [1, 2, 3, 4, 1], "building", "yes") + way(8, [1, 3], "highway", "residential")


def read(body: str) -> tuple[list[bool], int]:
    path = Path("map.osm")
    path.write_text(f'<?xml version="1.0"?><osm version="0.6">{body}</osm>')
    located, areas = [], 0
    for thing in osmium.FileProcessor(str(path)).with_locations().with_areas():
        if thing.is_area():
            areas += 1
        elif thing.is_way():
            located.append(all(node.location.valid() for node in thing.nodes))
    return located, areas


print("nodes first:", read(nodes + ways))
print("ways first: ", read(ways + nodes))
assert read(nodes + ways) == ([True, True], 1)
assert read(ways + nodes) == ([False, False], 0), "told or read right now: the finding no longer holds"
print("as described")
PYTHON
