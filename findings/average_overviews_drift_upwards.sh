#!/usr/bin/env bash
# Overviews by average grow brighter from level to level (GDAL, through rasterio).
#
# Versions     rasterio 1.4.4 with GDAL 3.10.3
# Expected     An overview that is built with resampling=average has the mean of the raster it stands for, at every level,
#              but for rounding that goes up as often as down.
# Seen         Of whole numbers (uint8, uint16), each level is 1/8 higher on average than the level below it: +0.125 at
#              2, +0.25 at 4, +0.375 at 8, +0.5 at 16. A level is the average of the level below it, which is already
#              rounded, and an average that ends in .5 is always rounded up. Averages of four whole numbers end in .5 one
#              time in four. Floats do not drift. Read from the full raster in one step, the average at 16 is off by
#              less than 0.01.
# Matters      Shares and densities are stored as bytes, and coarse levels of a pyramid are read because they are averages.
#              Half a step of 255 is 0.2 % of a cell: a fifth of a channel that covers 1 % of every cell. Windows that
#              are cut from two levels of one raster do not have the same mean.
# Remedy       Average from the full resolution, build overviews of floats, or write levels that round halves to even.
# Source       seen with the library; https://gdal.org/en/stable/programs/gdaladdo.html describes resampling by average.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "rasterio==1.4.4" "numpy==2.3.4"
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import from_origin

SIZE, LEVELS = 1024, (2, 4, 8, 16)
cells = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
profile = {"driver": "GTiff", "width": SIZE, "height": SIZE, "count": 1, "crs": "EPSG:32633"}


def drift(kind: str) -> list[float]:
    """How much higher each overview is than the raster, on average."""
    with rasterio.open("a.tif", "w", **profile, dtype=kind, transform=from_origin(500_000, 6_000_000, 2, 2)) as tif:
        tif.write(cells.astype(kind), 1)
    with rasterio.open("a.tif") as tif:
        once = tif.read(1, out_shape=(SIZE // 16,) * 2, resampling=Resampling.average)
    with rasterio.open("a.tif", "r+") as tif:
        tif.build_overviews(LEVELS, Resampling.average)
    found = []
    for level in range(len(LEVELS)):
        with rasterio.open("a.tif", overview_level=level) as tif:
            found.append(round(float(tif.read(1).mean() - cells.mean()), 3))
    assert abs(float(once.mean() - cells.mean())) < 0.01, "the finding no longer holds"
    print(f"{kind:8} overviews {found}, at 16 in one step {float(once.mean() - cells.mean()):+.4f}")
    return found


for kind in ("uint8", "uint16"):
    assert np.allclose(drift(kind), [1 / 8, 2 / 8, 3 / 8, 4 / 8], atol=0.01), "the finding no longer holds"
assert np.allclose(drift("float32"), 0, atol=1e-3), "the finding no longer holds"
print("as described")
PYTHON
