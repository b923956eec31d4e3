#!/usr/bin/env bash
# Multipolygons whose members have no role are dropped, or their holes filled (osmnx), where osmium closes them rightly.
#
# Versions     osmnx 2.1.1, osmium 4.3.2, shapely 2.2.0
# Expected     Which ring of a multipolygon lies in which is a matter of geometry; roles only say it once more. Many
#              relations, older ones above all, have members with an empty role.
# Seen         A forest of 16 units with a clearing of 4 in it. Roles outer, inner: 12 in both. Outer, none: osmnx gives
#              16, the clearing is forest. None, none, and none, inner: osmnx has no such feature at all, without a word
#              of the relation (alone in its file, the error says that nothing matches). osmium gives 12 four times.
# Matters      Parks, woods, lakes and courtyard buildings are the relations of a city. Two people who take the same area,
#              one from a file by osmium and one from Overpass by osmnx, measure different green.
# Remedy       Put what Overpass answers through osmium: write its elements to a file, and let it assemble the areas.
# Source       https://wiki.openstreetmap.org/wiki/Osmium/Multipolygon on what osmium does without roles; osmnx as seen.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "osmnx==2.1.1" "osmium==4.3.2" "shapely==2.2.0"
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from pathlib import Path

import osmium
import osmnx
import shapely

at = [(0, 0), (4, 0), (4, 4), (0, 4), (1, 1), (3, 1), (3, 3), (1, 3)]
nodes = "".join(
    f'<node id="{i}" version="1" lon="{9 + x / 1000}" lat="{50 + y / 1000}"/>' for i, (x, y) in enumerate(at, 1)
)
rings = {10: (1, 2, 3, 4, 1), 11: (5, 6, 7, 8, 5)}
inside = {i: "".join(f'<nd ref="{ref}"/>' for ref in refs) for i, refs in rings.items()}
ways = "".join(f'<way id="{i}" version="1">{refs}</way>' for i, refs in inside.items())
factory = osmium.geom.WKBFactory()
expected = {("outer", "inner"): 12, ("outer", ""): 16, ("", ""): None, ("", "inner"): None}
for roles, by_osmnx in expected.items():
    members = "".join(f'<member type="way" ref="{ref}" role="{role}"/>' for ref, role in zip(rings, roles, strict=True))
    tags = '<tag k="type" v="multipolygon"/><tag k="landuse" v="forest"/>'
    relation = f'<relation id="20" version="1">{members}{tags}</relation>'
    Path("map.osm").write_text(f'<?xml version="1.0"?><osm version="0.6">{nodes}{ways}{relation}</osm>')
    try:
        (found,) = osmnx.features_from_xml("map.osm", tags={"landuse": True}).geometry
        seen = round(found.area * 1e6)
    except osmnx._errors.InsufficientResponseError:
        seen = None
    by_osmium = None
    for thing in osmium.FileProcessor("map.osm").with_areas():
        if thing.is_area() and not thing.from_way():
            by_osmium = round(shapely.from_wkb(factory.create_multipolygon(thing)).area * 1e6)
    print(f"roles {roles}: osmnx {seen}, osmium {by_osmium}")
    assert by_osmium == 12
    assert seen == by_osmnx, "the finding no longer holds"
print("as described")
PYTHON
