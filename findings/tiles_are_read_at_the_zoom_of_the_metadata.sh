#!/usr/bin/env bash
# Vector tiles are read at the zoom that the metadata claim, not at that of the tiles: other shapes, or none (GDAL).
#
# Versions     pyogrio 0.13.0 with GDAL 3.12, geopandas 1.2.0, shapely 2.2.0
# Expected     The driver's page says of ZOOM_LEVEL that by default the largest zoom is taken of which at least one tile
#              is in the table `tiles`.
# Seen         One file with tiles of the zooms 12 to 14, and `maxzoom` in its table `metadata` changed to 12, 13 and 15.
#              With 14 and the truth, the pieces of two squares of 100 m and 40 m come; with 13 and 12 those of coarser
#              tiles, with their larger overlaps; with 15 no feature and no error. ZOOM_LEVEL=14 gives the same pieces
#              four times.
# Matters      Tools that cut or merge tiles leave the metadata as they were. Where pieces are drawn, a coarser zoom
#              gives rounder houses and wider overlaps; where maxzoom is too high, a whole city is empty without a word.
# Remedy       Ask the table `tiles` for its largest zoom, and open with ZOOM_LEVEL set to it.
# Source       https://gdal.org/drivers/raster/mbtiles.html (open options)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "pyogrio==0.13.0" "geopandas==1.2.0" "shapely==2.2.0"
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import shutil
import sqlite3

import geopandas
import pyogrio
import shapely

print("GDAL", ".".join(map(str, pyogrio.__gdal_version__)))
squares = [shapely.box(0, 0, 100, 100), shapely.box(300, 0, 340, 40)]
frame = geopandas.GeoDataFrame({"kind": ["a", "b"]}, geometry=squares, crs=3857)
frame.to_file("tiles.mbtiles", driver="MBTiles", layer="building", MINZOOM=12, MAXZOOM=14)


def pieces(claimed: int, **options: int) -> list[int]:
    path = f"claims_{claimed}.mbtiles"
    shutil.copy("tiles.mbtiles", path)
    table = sqlite3.connect(path)
    assert table.execute("SELECT max(zoom_level) FROM tiles").fetchone() == (14,)
    table.execute("UPDATE metadata SET value = ? WHERE name = 'maxzoom'", (str(claimed),))
    table.commit()
    table.close()
    return [round(area) for area in pyogrio.read_dataframe(path, layer="building", CLIP="NO", **options).area]


truth = pieces(14)
for claimed in (14, 13, 12, 15):
    print(f"maxzoom {claimed}: {pieces(claimed)} m², with ZOOM_LEVEL=14 {pieces(claimed, ZOOM_LEVEL=14)}")
    assert pieces(claimed, ZOOM_LEVEL=14) == truth
assert pieces(15) == [], "the finding no longer holds"
assert pieces(13) != truth, "the finding no longer holds"
assert pieces(12) != truth, "the finding no longer holds"
print("as described")
PYTHON
