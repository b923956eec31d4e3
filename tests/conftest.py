"""What every test may ask for: the sample extract that ships, and the real extracts where they are at hand."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    import geopandas as gpd
    from numpy.typing import NDArray

    from citygrain.geo.rasterize import Grid

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def sample_pbf() -> Path:
    """Helsinki's centre, the extract that ships with the project."""
    return ROOT / "data" / "sample" / "helsinki.osm.pbf"


@pytest.fixture(scope="session")
def shared_osm() -> Path:
    """Folder of real extracts beside the checkout; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("CITYGRAIN_SHARED", ROOT.parent / "shared")) / "osm"
    if not (folder / "MANIFEST.md").is_file():
        pytest.skip(f"the real extracts are not at hand ({folder.name}/ beside the checkout, or CITYGRAIN_SHARED)")
    return folder


@pytest.fixture(scope="session")
def cities(sample_pbf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of prepared places that holds one, `helsinki`, prepared once a test process from the sample extract."""
    from citygrain.data.prepare import prepare
    from citygrain.geo.place import Place
    from citygrain.geo.sources.osmfile import OsmFile

    folder = tmp_path_factory.mktemp("cities")
    source = OsmFile(str(sample_pbf))
    prepare(Place.from_bbox("helsinki", source.extent()), source, folder, workers=1)
    return folder


@pytest.fixture(scope="session")
def houston(shared_osm: Path) -> list[dict[str, Any]]:
    """Elements of real replies of Overpass for Houston: streets, and the water of the county."""
    elements: dict[tuple[str, int], dict[str, Any]] = {}
    for name in ("houston_streets_overpass", "houston_water_overpass_a"):
        reply = json.loads((shared_osm / "houston" / f"{name}.json").read_text(encoding="utf-8"))
        elements |= {(e["type"], e["id"]): e for e in reply["elements"]}
    return list(elements.values())


BOXES = {
    "copenhagen": (12.545, 55.665, 12.575, 55.68),
    "los_angeles": (-118.29, 34.04, -118.265, 34.055),
    "amsterdam": (4.875, 52.365, 4.905, 52.38),
    "edmonton": (-113.52, 53.525, -113.49, 53.54),
}


@pytest.fixture(scope="module", params=["helsinki", *BOXES])
def city(
    request: pytest.FixtureRequest, sample_pbf: Path
) -> tuple[dict[str, gpd.GeoDataFrame], list[tuple[Grid, NDArray[np.uint8]]]]:
    """Features of a part of a real city in its CRS, and windows of 512 m of them: `(features, [(grid, layout)])`."""
    from citygrain.geo.place import Place
    from citygrain.geo.rasterize import Grid, rasterize
    from citygrain.geo.sources import read_features
    from citygrain.geo.sources.osmfile import OsmFile
    from citygrain.geo.sources.vectortiles import VectorTiles

    if request.param == "helsinki":
        source = OsmFile(str(sample_pbf))
        place = Place.from_bbox("helsinki", source.extent())
    else:
        tiles = request.getfixturevalue("shared_osm") / request.param / f"{request.param}_z14.mbtiles"
        source, place = VectorTiles(tiles), Place.from_bbox(request.param, BOXES[request.param])
    found = read_features(place, source)
    left, bottom, right, top = place.bounds_utm
    windows = []
    for x in np.arange(left + 50, right - 562, 512):
        for y in np.arange(bottom + 50, top - 562, 512):
            grid = Grid(place.crs, float(x), float(y) + 512, 2.0, 256, 256)
            windows.append((grid, np.concatenate(list(rasterize(found, grid)), 1)))
    return found, windows
