#!/usr/bin/env bash
# Asking for node locations takes away those that a file holds on its ways (pyosmium).
#
# Versions     osmium (pyosmium) 4.3.2
# Expected     A .osm.pbf made by `osmium add-locations-to-ways` holds the locations in its ways and, by default, no
#              untagged nodes. `with_locations()` fills in what is missing, and leaves what is there.
# Seen         Read plainly, the way has both locations. Read `with_locations()`, it has none: each is looked up in the
#              index of nodes, which is empty, and what is not found there is set to "no location".
# Matters      Planet files with locations on ways are how large extracts are kept small and quick. The usual reader,
#              which asks for locations to be safe, gets ways without geometry from the one file that has them all.
# Remedy       Look for the optional feature LocationsOnWays in the header, and do not ask for locations then.
# Source       seen with the library; https://docs.osmcode.org/osmium/latest/osmium-add-locations-to-ways.html has the format.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "osmium==4.3.2"
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from pathlib import Path

import osmium

Path("plain.osm").write_text(
    '<?xml version="1.0"?><osm version="0.6"><node id="1" version="1" lon="9" lat="50"/>'
    '<node id="2" version="1" lon="9.001" lat="50"/><way id="8" version="1"><nd ref="1"/><nd ref="2"/>'
    '<tag k="highway" v="residential"/></way></osm>'
)
with osmium.SimpleWriter(osmium.io.File("ways.osm.pbf", "pbf,locations_on_ways=true")) as writer:
    for thing in osmium.FileProcessor("plain.osm").with_locations():
        if thing.is_way():
            writer.add(thing)


def located(processor: osmium.FileProcessor) -> list[bool]:
    return [node.location.valid() for way in processor if way.is_way() for node in way.nodes]


print("as it is:        ", located(osmium.FileProcessor("ways.osm.pbf")))
print("with_locations():", located(osmium.FileProcessor("ways.osm.pbf").with_locations()))
assert located(osmium.FileProcessor("ways.osm.pbf")) == [True, True]
assert located(osmium.FileProcessor("ways.osm.pbf").with_locations()) == [False, False], "the finding no longer holds"
print("as described")
PYTHON
