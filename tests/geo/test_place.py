"""A place projects truly, and a bad one says what is wrong with it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import geopandas as gpd
import numpy as np
import osmnx
import pytest
import requests
import shapely
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from pyproj import Geod

from citygrain.errors import PlaceError
from citygrain.geo.place import Place, make_slug

CONF = Path(__file__).resolve().parents[2] / "conf" / "place"
COPENHAGEN = (12.26, 55.53, 12.79, 55.83)


@given(lon=st.floats(-179, 179), lat=st.floats(-79, 83), width=st.floats(0.01, 0.5), height=st.floats(0.01, 0.5))
def test_area_in_utm_is_the_area_on_the_ellipsoid(lon: float, lat: float, width: float, height: float) -> None:
    place = Place.from_bbox("somewhere", (lon, lat, lon + width, lat + height))
    true_m2, _ = Geod(ellps="WGS84").geometry_area_perimeter(shapely.segmentize(place.area, 0.01))
    assert place.area_km2 == pytest.approx(abs(true_m2) / 1e6, rel=0.005)
    assert place.bbox == pytest.approx((lon, lat, lon + width, lat + height))


def test_a_place_across_two_zones_takes_that_of_its_centre() -> None:
    assert Place.from_bbox("edge", (11.5, 55.0, 12.2, 55.2)).crs == "EPSG:32632"
    assert Place.from_bbox("edge", (11.8, 55.0, 12.5, 55.2)).crs == "EPSG:32633"
    assert Place.from_bbox("south", (174.6, -36.9, 174.9, -36.7)).crs == "EPSG:32760"


def test_parallels_are_drawn_as_the_curves_they_are() -> None:
    place = Place.from_bbox("copenhagen", COPENHAGEN)
    along = shapely.points(np.linspace(COPENHAGEN[0], COPENHAGEN[2], 41), COPENHAGEN[1])
    assert place.utm.boundary.distance(shapely.MultiPoint(place.project(along))) < 0.05
    assert max(place.utm.boundary.distance(p) for p in place.project(along)) < 0.05


@pytest.mark.parametrize(
    ("bbox", "says"),
    [
        ((29.69, -95.45, 29.75, -95.39), "look swapped: try [-95.45, 29.69, -95.39, 29.75]"),
        ((-95.39, 29.69, -95.45, 29.75), "try [-95.45, 29.69, -95.39, 29.75]"),
        ((12.0, 55.0, 12.0, 55.5), "not in order"),
        ((12.0, 55.0, 12.5), "not four numbers"),
        ((12.0, 55.0, 12.5, "north"), "not four numbers"),
        ((12.0, 55.0, 12.5, float("nan")), "not four numbers"),
        (None, "not four numbers"),
        ((12.0, 55.0, 500.0, 55.5), "not on the Earth"),
        ((12.0, 85.0, 12.5, 86.0), "reach of UTM"),
        ((-10.0, 40.0, 20.0, 60.0), "larger than a UTM zone"),
        (
            (179.5, -17.0, -179.5, -16.0),
            "place.bbox=[179.5,-17.0,180.0,-16.0] and place.bbox=[-180.0,-17.0,-179.5,-16.0]",
        ),
        (
            (177.0, -19.0, -178.0, -16.0),
            "place.bbox=[177.0,-19.0,180.0,-16.0] and place.bbox=[-180.0,-19.0,-178.0,-16.0]",
        ),
        (
            (179.5, -17.0, 180.5, -16.0),
            "place.bbox=[179.5,-17.0,180.0,-16.0] and place.bbox=[-180.0,-17.0,-179.5,-16.0]",
        ),
        ((-180.5, -17.0, -179.5, -16.0), "at the 180th meridian"),
        (
            (-179.5, -17.0, 179.5, -16.0),
            "place.bbox=[179.5,-17.0,180.0,-16.0] and place.bbox=[-180.0,-17.0,-179.5,-16.0]",
        ),
        ((-17.0, 179.5, -16.0, -179.5), "look swapped: try [179.5, -17.0, -179.5, -16.0]"),
        ((179.9, -17.0, -180.0, -16.0), "try [179.9, -17.0, 180.0, -16.0]"),
        ((180.0, -17.0, -179.5, -16.0), "try [-180.0, -17.0, -179.5, -16.0]"),
        ((190.0, 65.0, 191.0, 66.0), "try [-170.0, 65.0, -169.0, 66.0]"),
        ((359.5, 51.0, 360.5, 52.0), "try [-0.5, 51.0, 0.5, 52.0]"),
        ((179.5, -16.0, -179.5, -17.0), "not in order"),
    ],
)
def test_a_bad_bbox_says_what_is_wrong(bbox: object, says: str) -> None:
    with pytest.raises(PlaceError, match=re.escape(says)):
        Place.from_bbox("somewhere", bbox)  # type: ignore[arg-type]


# The 180th meridian: Taveuni, and Chukotka


@given(
    west=st.floats(174, 179.9),
    width=st.floats(0.2, 12),
    south=st.floats(-75, 75),
    beyond=st.sampled_from([-360, 0, 360]),
)
def test_a_bbox_across_the_180th_meridian_is_given_the_two_to_use(
    west: float, width: float, south: float, beyond: int
) -> None:
    west, width, south = (round(v, 4) for v in (west, width, south))
    assume(180.001 < west + width < 185.9 and 180 - west < 6)
    east = west + width
    written = (west, south, east - 360, south + 1) if beyond == 0 else (west + beyond, south, east + beyond, south + 1)
    with pytest.raises(PlaceError, match="180th meridian") as caught:
        Place.from_bbox("across", written)
    boxes = [json.loads(text) for text in re.findall(r"place\.bbox=(\[.*?\])", str(caught.value))]
    places = [Place.from_bbox("half", box) for box in boxes]
    assert [place.bbox for place in places] == [
        pytest.approx((west, south, 180, south + 1)),
        pytest.approx((-180, south, east - 360, south + 1)),
    ]
    assert [place.crs[-2:] for place in places] == ["60", "01"]


TWO_PARTS = [shapely.box(179.8, -17, 180, -16.5), shapely.box(-180, -17, -179.8, -16.5)]


@pytest.mark.parametrize(
    "area",
    [
        shapely.MultiPolygon(TWO_PARTS),
        shapely.MultiPolygon([shapely.box(179.8, -17, 179.9, -16.5), shapely.box(-179.9, -17, -179.8, -16.5)]),
        shapely.Polygon([(179.8, -17), (-179.8, -17), (-179.8, -16.5), (179.8, -16.5)]),
        shapely.box(179.8, -17, 180.2, -16.5),
        shapely.box(-180.2, -17, -179.8, -16.5),
    ],
)
def test_a_polygon_on_both_sides_of_the_180th_meridian_is_given_the_two_bboxes(
    tmp_path: Path, area: shapely.Geometry, monkeypatch: pytest.MonkeyPatch
) -> None:
    says = "place.bbox=[179.8,-17.0,180.0,-16.5] and place.bbox=[-180.0,-17.0,-179.8,-16.5]"
    gpd.GeoDataFrame(geometry=[area], crs="EPSG:4326").to_file(tmp_path / "taveuni.gpkg")
    frame = gpd.GeoDataFrame(geometry=[area], crs="EPSG:4326")
    monkeypatch.setattr(osmnx, "geocode_to_gdf", lambda _query: frame)
    for make in (
        lambda: Place.from_file(tmp_path / "taveuni.gpkg"),
        lambda: Place.from_name("Taveuni"),
        lambda: Place("taveuni", area),
    ):
        with pytest.raises(PlaceError, match=re.escape(says)):
            make()


def test_a_polygon_in_metres_across_the_180th_meridian_is_given_the_two_bboxes(tmp_path: Path) -> None:
    frame = gpd.GeoDataFrame(geometry=[shapely.box(800_000, 8_130_000, 830_000, 8_150_000)], crs="EPSG:32760")
    frame.to_file(tmp_path / "across.gpkg")
    with pytest.raises(PlaceError, match="both sides of the 180th meridian") as caught:
        Place.from_file(tmp_path / "across.gpkg")
    assert len(re.findall(r"place\.bbox=\[", str(caught.value))) == 2


@pytest.mark.parametrize("zone", [32760, 32701])
def test_what_ends_at_the_180th_meridian_is_a_place(tmp_path: Path, zone: int) -> None:
    """Also as a polygon in metres, whose edge falls on either side of it in degrees."""
    west, east = (179.8, 180.0) if zone == 32760 else (-180.0, -179.8)
    box = Place.from_bbox("ends", (west, -17.0, east, -16.5))
    true_m2, _ = Geod(ellps="WGS84").geometry_area_perimeter(shapely.segmentize(box.area, 0.01))
    assert box.crs == f"EPSG:{zone}"
    assert box.area_km2 == pytest.approx(abs(true_m2) / 1e6, rel=0.005)
    metres = gpd.GeoDataFrame(geometry=[box.utm], crs=f"EPSG:{zone}")
    metres.to_file(tmp_path / "ends.gpkg")
    again = Place.from_file(tmp_path / "ends.gpkg")
    assert again.bbox == pytest.approx(box.bbox, abs=1e-6)
    assert again.area_km2 == pytest.approx(box.area_km2, rel=1e-6)


@pytest.mark.parametrize("west", [-180.0, 179.8, 12.0])
def test_metres_become_degrees_on_the_same_side(west: float) -> None:
    place = Place.from_bbox("ends", (west, 65.0, west + 0.2, 65.1))
    wide = place.to_degrees(shapely.box(*place.bounds_utm).buffer(1000))
    assert wide.bounds[2] - wide.bounds[0] < 0.4
    assert place.area.within(wide.buffer(1e-9))
    assert shapely.box(-180, -90, 180, 90).covers(wide)
    back = place.to_degrees(place.utm)
    assert back.symmetric_difference(place.area).area < 1e-6 * place.area.area


@pytest.mark.parametrize("name", ["", "a/b", "../up", ".hidden", "two words"])
def test_a_name_that_is_no_folder_is_refused_with_one_that_is(name: str) -> None:
    with pytest.raises(PlaceError, match=f"place.name={make_slug(name)}"):
        Place.from_bbox(name, COPENHAGEN)


def test_a_polygon_file_in_any_crs_gives_its_area(tmp_path: Path) -> None:
    quarter = shapely.box(725_000, 6_175_000, 727_000, 6_176_000)
    file = tmp_path / "My quarter.gpkg"
    gpd.GeoDataFrame({"n": [1, 2]}, geometry=[quarter, shapely.Point(725_000, 6_175_000)], crs="EPSG:25832").to_file(
        file
    )
    place = Place.from_file(file)
    assert place.name == "my_quarter"
    assert place.area_km2 == pytest.approx(2.0, rel=2e-3)
    assert place.to_dict()["crs"] == place.crs
    assert shapely.from_wkt(place.to_dict()["area"]).equals_exact(place.area, 1e-6)


def test_polygon_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(PlaceError, match="does not exist"):
        Place.from_file(tmp_path / "missing.geojson")
    (tmp_path / "text.geojson").write_text("not a polygon")
    with pytest.raises(PlaceError, match="cannot be read"):
        Place.from_file(tmp_path / "text.geojson")
    gpd.GeoDataFrame(geometry=[shapely.Point(1, 2)], crs="EPSG:4326").to_file(tmp_path / "point.geojson")
    with pytest.raises(PlaceError, match="no polygon"):
        Place.from_file(tmp_path / "point.geojson")
    gpd.GeoDataFrame({"n": [1]}, geometry=[shapely.box(1, 2, 3, 4)], crs="EPSG:4326").to_file(tmp_path / "bare.shp")
    (tmp_path / "bare.prj").unlink()
    with pytest.raises(PlaceError, match="which CRS"):
        Place.from_file(tmp_path / "bare.shp")


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (osmnx._errors.InsufficientResponseError("nothing"), "knows no area"),
        (TypeError("a point"), "knows no area"),
        (requests.exceptions.ConnectionError("refused"), "did not answer"),
        (osmnx._errors.ResponseStatusCodeError("503"), "did not answer"),
    ],
)
def test_a_geocoder_that_fails_is_told_in_plain_words(
    monkeypatch: pytest.MonkeyPatch, fault: Exception, says: str
) -> None:
    def geocode(_query: str) -> gpd.GeoDataFrame:
        raise fault

    monkeypatch.setattr(osmnx, "geocode_to_gdf", geocode)
    with pytest.raises(PlaceError, match=says) as caught:
        Place.from_name("Atlantis")
    assert "place.bbox=" in str(caught.value)


def test_a_geocoded_name_is_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    found = gpd.GeoDataFrame(geometry=[shapely.box(*COPENHAGEN)], crs="EPSG:4326")
    monkeypatch.setattr(osmnx, "geocode_to_gdf", lambda _query: found)
    assert Place.from_name("København, Danmark").name == "københavn"
    assert Place.from_name("København, Danmark", "copenhagen").bbox == COPENHAGEN


@pytest.mark.parametrize("file", sorted(CONF.glob("*.yaml")), ids=lambda f: f.stem)
def test_every_place_config_is_a_city(file: Path) -> None:
    config = yaml.safe_load(file.read_text())
    place = Place.from_bbox(**config)
    assert place.name == file.stem
    assert 1 < place.area_km2 < 2000


def test_houston_holds_the_streets_at_hand() -> None:
    west, south, east, north = yaml.safe_load((CONF / "houston.yaml").read_text())["bbox"]
    assert shapely.box(west, south, east, north).contains(shapely.box(-95.4481, 29.6911, -95.3926, 29.7482))
