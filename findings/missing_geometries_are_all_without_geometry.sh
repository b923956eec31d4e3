#!/usr/bin/env bash
# Asked which features have no geometry, without reading geometries, a Shapefile names every feature (pyogrio, GDAL).
#
# Versions     pyogrio 0.13.0 with GDAL 3.12, geopandas 1.2.0, shapely 2.2.0
# Expected     `where="OGR_GEOMETRY IS NULL"` selects the features that have no geometry, whether or not geometries are
#              read: a filter is a matter of the file, not of what is returned.
# Seen         A Shapefile of three points, one of them missing: one feature with `read_geometry=True`, three with
#              `read_geometry=False`. Of GeoJSON it is one both times. (A GeoPackage knows no such column, and says so.)
# Matters      Counting what a file lacks is done without its geometries, because these are what takes time. The count
#              says that every building of a city is broken.
# Remedy       Read the geometries, and count the missing ones.
# Source       https://gdal.org/user/ogr_sql_dialect.html (special field OGR_GEOMETRY)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "pyogrio==0.13.0" "geopandas==1.2.0" "shapely==2.2.0"
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import geopandas
import pyogrio
import shapely

points = [shapely.Point(0, 0), None, shapely.Point(1, 1)]
frame = geopandas.GeoDataFrame({"kind": ["a", "b", "c"]}, geometry=points, crs=4326)
seen = {}
for path in ("points.shp", "points.geojson"):
    frame.to_file(path)
    for read in (True, False):
        seen[path, read] = len(pyogrio.read_dataframe(path, where="OGR_GEOMETRY IS NULL", read_geometry=read))
        print(f"{path}, read_geometry={read}: {seen[path, read]} of 3")
assert seen["points.shp", True] == seen["points.geojson", True] == seen["points.geojson", False] == 1
assert seen["points.shp", False] == 3, "the finding no longer holds"
print("as described")
PYTHON
