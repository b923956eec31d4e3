"""The only Houston with buildings: 0.05 km² of the Fourth Ward, from the map through windows to vectors."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import osmium
import pytest
import shapely

from citygrain.__main__ import main
from citygrain.data.cityraster import CityRaster
from citygrain.data.dataset import CityWindows
from citygrain.data.prepare import prepare
from citygrain.data.rules import Rules
from citygrain.errors import DataError
from citygrain.geo.place import Place
from citygrain.geo.sources.osmfile import OsmFile


@pytest.fixture(scope="module")
def extract(shared_osm: Path) -> Path:
    return shared_osm / "houston_fourth_ward" / "map.osm"


@pytest.fixture(scope="module")
def cities(extract: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared by one line, at the resolution that so small a place needs."""
    folder = tmp_path_factory.mktemp("cities")
    told = ["source=file", f"source.path={extract}", "place.name=fourth_ward", "raster.resolution_m=1"]
    assert main(["prepare", *told, "raster.workers=1", f"paths.data={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def raster(cities: Path) -> CityRaster:
    return CityRaster.open(cities / "fourth_ward")


@pytest.fixture(scope="module")
def buildings(extract: Path, raster: CityRaster) -> np.ndarray:
    """Its buildings in UTM, within its bounds, read without any of our code but the projection."""
    make = osmium.geom.WKBFactory()
    areas = osmium.FileProcessor(extract).with_areas()
    shapes = [
        shapely.from_wkb(make.create_multipolygon(area)) for area in areas if area.is_area() and "building" in area.tags
    ]
    place = Place.from_bbox("fourth_ward", (-95.3815, 29.7545, -95.3790, 29.7565))
    assert raster.crs == place.crs == "EPSG:32615"
    return shapely.intersection(place.project(np.array(shapes, object)), place.utm)


def test_its_raster_holds_its_buildings_and_streets(raster: CityRaster, buildings: np.ndarray) -> None:
    assert raster.provenance["counts"]["building"] == 120
    assert raster.provenance["valid_km2"] == pytest.approx(0.0536, rel=0.01)
    built_m2 = raster.provenance["shares"]["building"] * raster.provenance["valid_km2"] * 1e6
    assert built_m2 == pytest.approx(shapely.area(buildings).sum(), rel=0.02)
    assert raster.provenance["shares"]["street"] > 0.15
    assert raster.provenance["source"]["osm_date"].startswith("2022")
    assert set(raster.blocks["split"]) == {"train", "val", "test"}
    assert len(raster.blocks) >= 12
    assert (raster.blocks["coverage"] > 0).any()


def test_windows_can_be_cut_from_it(raster: CityRaster) -> None:
    """A block is some 70 m: windows of 32 m fit in each split."""
    for split in ("train", "val", "test"):
        windows = CityWindows([raster], split, Rules(32, 1.0))
        assert len(windows) > 0, split
        layout = windows.__getitems__([0]).layout
        assert layout.shape == (1, len(windows.channels), 32, 32)
    assert "building" in windows.channels


@pytest.mark.slow
def test_its_buildings_come_back_as_polygons(cities: Path, buildings: np.ndarray, tmp_path: Path) -> None:
    assert main(["vectorize", f"layouts={cities / 'fourth_ward'}", f"out={tmp_path}", "workers=1"]) == 0
    (file,) = tmp_path.glob("*.gpkg")
    found = gpd.read_file(file, layer="building")
    assert len(found) == pytest.approx(120, abs=25), "houses that touch are one"
    before, after = shapely.union_all(buildings), found.union_all()
    assert before.intersection(after).area / before.union(after).area > 0.9
    streets = gpd.read_file(file, layer="drive")
    assert 500 < streets.length.sum() < 3000


def test_a_place_too_small_for_blocks_says_what_to_do(extract: Path, tmp_path: Path) -> None:
    corner = Place.from_bbox("corner", (-95.3806, 29.7550, -95.3802, 29.7553))
    with pytest.raises(DataError, match=r"(?s)too small.*at least 3 blocks.*larger place, a finer resolution"):
        prepare(corner, OsmFile(extract), tmp_path, workers=1)
    assert len(prepare(corner, OsmFile(extract), tmp_path, resolution_m=0.25, workers=1).blocks) >= 3
