#!/usr/bin/env bash
# Of an .osm file with several <bounds>, only the first one is told as its box (pyosmium).
#
# Versions     osmium (pyosmium) 4.3.2
# Expected     The header's box is what the file covers: all of its bounds.
# Seen         With two bounds side by side, `FileProcessor(path).header.box()` is the first; the second cannot be had.
# Matters      Editors write a <bounds> for each area that was downloaded into one layer. Whoever takes the box for the
#              covered ground throws half of a map away, and calls the rest empty.
# Remedy       Read the <bounds> before the first element of the XML, and take their union.
# Source       seen with the library, on a file as an editor saves it after two downloads into one layer.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "osmium==4.3.2"
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from pathlib import Path

import osmium

west = '<bounds minlat="50" minlon="9" maxlat="50.001" maxlon="9.0005"/>'
east = '<bounds minlat="50" minlon="9.0005" maxlat="50.001" maxlon="9.001"/>'
nodes = '<node id="1" version="1" lon="9.0002" lat="50.0005"/><node id="2" version="1" lon="9.0008" lat="50.0005"/>'
for name, bounds in (("west, east", west + east), ("east, west", east + west)):
    Path("map.osm").write_text(f'<?xml version="1.0"?><osm version="0.6">{bounds}{nodes}</osm>')
    box = osmium.FileProcessor("map.osm").header.box()
    print(f"{name}: {box}")
    assert round(box.top_right.lon - box.bottom_left.lon, 7) == 0.0005, "the finding no longer holds"
print("as described")
PYTHON
