"""Polygons of any origin: whatever the format and the CRS, the same ground; what is not told is unknown."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from citygrain.data.pack import pack_place
from citygrain.data.prepare import prepare
from citygrain.errors import ConfigError, DataError, SourceError
from citygrain.geo.layer_rules import NO_EXTENT, NO_GEOMETRY, NOT_DRAWN, OTHER_SHAPE, find_matches
from citygrain.geo.layers import CHANNEL_NAMES
from citygrain.geo.place import Place
from citygrain.geo.sources import EmptyLayerWarning, Features, read_features
from citygrain.geo.sources.combined import Combined
from citygrain.geo.sources.layers_file import LayersFile
from citygrain.verbs.prepare import run

pytestmark = pytest.mark.filterwarnings("ignore::citygrain.geo.sources.EmptyLayerWarning")

PLACE = Place.from_bbox("quarter", (9.0, 50.0, 9.014, 50.009))  # 1 km
LEFT, BOTTOM, _, _ = PLACE.bounds_utm
LICENCE = "© Town of Anywhere, CC BY 4.0"

WRITERS = {
    "gpkg": lambda frame, path: frame.to_file(path),
    "shp": lambda frame, path: frame.to_file(path),
    "geojson": lambda frame, path: frame.to_crs(4326).to_file(path),
    "gdb": lambda frame, path: frame.astype({"floors": "int32"}).to_file(path, driver="OpenFileGDB"),  # a folder
    "fgb": lambda frame, path: frame.to_file(path),
    "parquet": lambda frame, path: frame.to_parquet(path, write_covering_bbox=True),
    "geoparquet": lambda frame, path: frame.to_parquet(path),
}


def at(x: float, y: float, width: float, height: float) -> shapely.Polygon:
    """Rectangle in metres from the place's corner, in its CRS."""
    return shapely.box(LEFT + x, BOTTOM + y, LEFT + x + width, BOTTOM + y + height)


def houses() -> gpd.GeoDataFrame:
    """64 houses of 20 × 30 m all over the place, some beyond it, with what a register says of them."""
    x, y = (v.ravel() for v in np.meshgrid(np.arange(-100, 1300, 100), np.arange(-100, 1300, 100)))
    geometry = [at(a, b, 20, 30) for a, b in zip(x, y, strict=True)]
    use = np.resize(["flat", "shop", "shed"], len(geometry))
    floors = np.resize([1, 2, 3, 4], len(geometry))
    return gpd.GeoDataFrame({"use": use, "floors": floors}, geometry=geometry, crs=PLACE.crs)


def write(frame: gpd.GeoDataFrame, path: Path) -> Path:
    WRITERS[path.suffix[1:]](frame, path)
    return path


def read(path: Path, place: Place = PLACE, **options: Any) -> Features:
    if "rules" not in options:
        options.setdefault("channel", "building")
    return LayersFile(path, LICENCE, **options).features(place)


def town() -> dict[str, list[shapely.Geometry]]:
    """Points, lines, polygons and collections all over the place, and beyond it."""
    polygons = list(houses().geometry)
    lines = [shapely.LineString([shape.centroid, (shape.bounds[0], shape.bounds[1])]) for shape in polygons]
    points = [shape.centroid for shape in polygons]
    return {
        "points": points,
        "lines": lines,
        "polygons": polygons,
        "multipoints": [shapely.MultiPoint([point]) for point in points],
        "multilines": [shapely.MultiLineString([line]) for line in lines],
        "collections of points": [shapely.GeometryCollection([point]) for point in points],
    }


# What is read --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize(
    "crs",
    [
        *("EPSG:4326", "EPSG:31467"),
        *(pytest.param(f"EPSG:{code}", marks=pytest.mark.slow) for code in (32632, 25832, 3857, 3035)),
    ],
)
def test_neither_the_format_nor_the_crs_matters(tmp_path: Path, suffix: str, crs: str) -> None:
    found = read(write(houses().to_crs(crs), tmp_path / f"houses.{suffix}"))
    inside = houses()[houses().intersects(PLACE.utm)]
    assert found.counts["building"] == len(inside) > 80
    assert found["building"].crs == PLACE.crs
    # The Gauss-Krüger zones are shifted by a few metres where no grid of corrections is at hand; areas are not.
    assert found["building"].area.sum() == pytest.approx(inside.area.sum(), rel=1e-3)
    apart = found["building"].union_all().centroid.distance(inside.union_all().centroid)
    assert apart < (5 if crs == "EPSG:31467" else 0.01)
    assert set(found.unknown) == set(CHANNEL_NAMES) - {"building"}
    assert found.skipped == {}
    assert PLACE.utm.area == pytest.approx(found.valid.area)
    assert found.provenance["attribution"] == LICENCE
    assert found.provenance["file"] == f"houses.{suffix}"
    assert len(found.provenance["sha256"]) == 64
    json.dumps(found.provenance)


@pytest.mark.parametrize("suffix", WRITERS)
def test_only_what_the_file_covers_is_known(tmp_path: Path, suffix: str) -> None:
    west = houses()[houses().centroid.x < LEFT + 500]
    source = LayersFile(write(west, tmp_path / f"west.{suffix}"), LICENCE, "building")
    found = source.features(PLACE)
    assert found.valid.area == pytest.approx(420 / 1000 * PLACE.utm.area, rel=0.02)
    left, bottom, right, _ = source.extent()
    assert (left, bottom) < (9.0, 50.0)
    assert 9.0 < right < 9.014
    with pytest.raises(SourceError, match=r"far lies outside west"):
        source.features(Place.from_bbox("far", (10.0, 50.0, 10.01, 50.01)))


def test_rules_sort_features_by_their_columns(tmp_path: Path) -> None:
    ground = [at(0, 0, 400, 400), at(400, 0, 100, 100), at(0, 400, 100, 100), at(600, 600, 50, 50), at(700, 0, 9, 9)]
    stream = shapely.LineString([(LEFT, BOTTOM + 900), (LEFT + 1000, BOTTOM + 900)])
    frame = gpd.GeoDataFrame(
        {
            "cover": ["wood", "lawn", "lake", "roof", None, "stream"],
            "code": [1, 2, 3, 4, 5, 6],
            "public": [True, False, True, False, True, True],
        },
        geometry=[*ground, stream],
        crs=PLACE.crs,
    )
    path = write(frame, tmp_path / "ground.gpkg")
    rules = [
        {"channel": "green", "where": {"cover": ["wood", "lawn"], "public": True}},
        {"channel": "green", "where": {"code": [1, 2]}},
        {"channel": "water", "where": {"cover": "lake"}},
        {"channel": "water", "where": {"cover": "stream"}, "width_m": 3.0},
        {"channel": "building", "where": {"code": [4, 77]}},
        {"channel": "square", "where": {"cover": "*", "code": 4}},
    ]
    found = read(path, rules=rules)
    assert {name: n for name, n in found.counts.items() if n} == {"green": 2, "water": 2, "building": 1, "square": 1}
    assert list(found["green"]["kind"]) == ["wood", "2"]
    assert found["water"]["width_m"].tolist() == pytest.approx([np.nan, 3.0], nan_ok=True)
    assert set(found.unknown) == set(CHANNEL_NAMES) - {"green", "water", "building", "square"}
    assert found.skipped == {NOT_DRAWN: 1}
    assert found.provenance["rules"][0] == {
        "where": {"cover": ["wood", "lawn"], "public": True},
        "channel": "green",
        "width_m": None,
    }


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(
        st.one_of(st.none(), st.integers(-3, 3), st.booleans(), st.sampled_from(["a", "B", "1"])), min_size=1
    ),
    wanted=st.lists(st.one_of(st.integers(-3, 3), st.booleans(), st.sampled_from(["a", "b", "1"])), min_size=1),
)
def test_a_value_fits_however_a_file_writes_it(values: list[Any], wanted: list[Any]) -> None:
    """On the command line 1 is a number; in a column it may be a number or a word."""
    frame = gpd.GeoDataFrame({"c": np.array(values, object)}, geometry=[shapely.Point(0, 0)] * len(values))
    expected = [v is not None and str(v).lower() in {str(w).lower() for w in wanted} for v in values]
    assert find_matches(frame, {"c": wanted}).tolist() == expected
    assert find_matches(frame, {"c": "*"}).tolist() == [v is not None for v in values]


def test_whole_numbers_with_gaps_come_as_fractions(tmp_path: Path) -> None:
    frame = gpd.GeoDataFrame({"code": [1, 2, None]}, geometry=[at(x, 0, 50, 50) for x in (0, 100, 200)], crs=PLACE.crs)
    found = read(write(frame, tmp_path / "codes.gpkg"), rules=[{"channel": "green", "where": {"code": 2}}])
    assert found.counts["green"] == 1


def test_lines_of_networks_have_the_width_of_their_channel(tmp_path: Path) -> None:
    lines = [shapely.LineString([(LEFT, BOTTOM + y), (LEFT + 1000, BOTTOM + y)]) for y in (100, 200, 300)]
    frame = gpd.GeoDataFrame({"a": [1, 2, 3, 4]}, geometry=[*lines, at(0, 500, 300, 8)], crs=PLACE.crs)
    found = read(write(frame, tmp_path / "roads.gpkg"), channel="street")
    assert found["street"]["width_m"].tolist() == [8.0] * 3
    assert found.skipped == {OTHER_SHAPE: 1}, "the area of a street is no length"
    # Lines in a channel of areas have no width of their own.
    assert read(write(frame, tmp_path / "lines.gpkg"), channel="water").skipped == {OTHER_SHAPE: 3}


WRONG_SHAPES = [
    ("points", "building", "holds points only.*polygons.*points.*take a file of polygons"),
    ("multipoints", "green", "holds points only.*polygons"),
    ("collections of points", "parking", "holds points only.*polygons"),
    ("points", "street", "holds points only.*expected: lines.*take a file of lines"),
    ("lines", "building", "holds lines only.*expected: polygons"),
    ("multilines", "square", "holds lines only.*expected: polygons"),
    ("lines", "water", r"holds lines only.*polygons, or lines with width_m.*width_m:…"),
    ("polygons", "street", "holds polygons only.*expected: lines.*unknown then"),
    ("polygons", "rail", "holds polygons only.*expected: lines"),
]


@pytest.mark.parametrize(("held", "channel", "words"), WRONG_SHAPES)
@pytest.mark.parametrize(
    "suffix",
    [pytest.param("gpkg", marks=pytest.mark.slow), pytest.param("geojson", marks=pytest.mark.slow), "parquet"],
)
def test_a_file_of_the_wrong_shape_is_no_empty_channel(
    tmp_path: Path, held: str, channel: str, words: str, suffix: str
) -> None:
    frame = gpd.GeoDataFrame({"use": ["x"] * 196}, geometry=town()[held], crs=PLACE.crs)
    path = write(frame, tmp_path / f"odd.{suffix}")
    good = write(houses(), tmp_path / "good.gpkg")
    part = LayersFile(path, LICENCE, channel)
    base = LayersFile(good, LICENCE, "green" if channel != "green" else "building")
    for source in (part, Combined(base, {"odd": part}), Combined(part, {"good": base})):
        with pytest.raises(SourceError, match=rf"(?s)odd\.{suffix} {words}") as error:
            source.features(PLACE)
        assert channel in str(error.value)
    # Elsewhere in the file there is nothing better.
    corner = Place.from_bbox("corner", (9.0003, 50.0003, 9.0006, 50.0006))
    with pytest.raises(SourceError, match=f"(?s){words}"):
        part.features(corner)


def test_a_rule_of_the_wrong_shape_is_told_with_what_it_fits(tmp_path: Path) -> None:
    shapes = town()
    frame = gpd.GeoDataFrame(
        {"cover": ["lake"] * 196 + ["stream"] * 196 + ["well"] * 196},
        geometry=[*shapes["polygons"], *shapes["lines"], *shapes["points"]],
        crs=PLACE.crs,
    )
    path = write(frame, tmp_path / "mixed.gpkg")
    lakes = {"channel": "water", "where": {"cover": "lake"}}
    for wrong, words in (
        ({"channel": "water", "where": {"cover": "stream"}}, "holds lines only where cover: stream.*width_m"),
        ({"channel": "water", "where": {"cover": ["well"]}, "width_m": 2.0}, "holds points only where cover: well"),
        ({"channel": "street", "where": {"cover": ["lake", "well"]}}, "polygons and points only where"),
    ):
        with pytest.raises(SourceError, match=f"(?s){words}"):
            read(path, rules=[lakes, wrong])
    found = read(path, rules=[lakes, {"channel": "water", "where": {"cover": "stream"}, "width_m": 2.0}])
    assert found.counts["water"] > 160
    # A shape that is wrong here and right elsewhere in the file is a feature that is counted, and no mistake.
    frame = gpd.GeoDataFrame(geometry=[shapes["lines"][60], *shapes["polygons"][:14]], crs=PLACE.crs)
    found = read(write(frame, tmp_path / "line.gpkg"))
    assert found.counts["building"] == 0
    assert found.skipped == {OTHER_SHAPE: 1}


@pytest.mark.slow
@pytest.mark.parametrize("suffix", WRITERS)
def test_values_that_nothing_has_are_told_with_those_that_there_are(tmp_path: Path, suffix: str) -> None:
    path = write(houses(), tmp_path / f"houses.{suffix}")
    for where, words in (
        ({"use": "flats"}, "use: flats.*choices:.*flat.*did you mean: flat"),
        ({"use": ["house", "barn"]}, "use: house, barn.*got: +house, barn.*choices:.*shed"),
        ({"floors": 9}, "floors: 9.*choices:.*4"),
        ({"floors": [1, 2], "use": "church"}, "floors: 1, 2 and use: church.*got: +church.*choices:.*shop"),
    ):
        rules = [{"channel": "building", "where": where}]
        source = LayersFile(path, LICENCE, rules=rules)
        with pytest.raises(SourceError, match=rf"(?s)Nothing in houses\.{suffix} makes building.*{words}"):
            source.features(PLACE)
        both = Combined(LayersFile(path, LICENCE, "green"), {"houses": source})
        with pytest.raises(SourceError, match="makes building"):
            both.features(PLACE)
        # Where another rule makes the channel it is a word too many.
        with pytest.warns(EmptyLayerWarning, match=r"houses.* within quarter makes building.*has the values: "):
            found = read(path, rules=[{"channel": "building", "where": {"use": "flat"}}, *rules])
        assert found.counts["building"] > 0


def test_values_that_only_the_rest_of_a_file_has_are_told(tmp_path: Path) -> None:
    frame = houses().assign(use=np.where(houses().intersects(PLACE.utm), "flat", "church"))
    path = write(frame, tmp_path / "houses.gpkg")
    with pytest.warns(EmptyLayerWarning, match=r"houses.gpkg within quarter makes square.*use has the values: flat\."):
        found = read(path, rules=[{"channel": "square", "where": {"use": "church"}}, {"channel": "building"}])
    assert found.counts["square"] == 0
    assert "square" not in found.unknown


def test_a_rule_behind_another_is_no_mistake(tmp_path: Path) -> None:
    path = write(houses(), tmp_path / "houses.gpkg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read(path, rules=[{"channel": "building"}, {"channel": "building", "where": {"use": "flat"}}])
    assert set(found["building"]["kind"]) == {"building"}


def test_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    def x(a: float, b: float) -> tuple[float, float]:
        return LEFT + a, BOTTOM + b + 300

    bow_tie = shapely.Polygon([x(0, 0), x(100, 100), x(100, 0), x(0, 100)])
    twice = shapely.MultiPolygon([at(200, 300, 100, 100), at(250, 300, 100, 100)])
    flat = shapely.Polygon([x(400, 0), x(500, 0), x(400, 0)])
    high = shapely.force_3d(at(600, 300, 50, 50), 7.0)
    rest = [None, None, shapely.Polygon(), shapely.Point(x(700, 0))]
    frame = gpd.GeoDataFrame({"n": range(8)}, geometry=[bow_tie, twice, flat, high, *rest], crs=PLACE.crs)
    for path, nowhere in ((tmp_path / "odd.gpkg", 2), (tmp_path / "odd.geoparquet", 2), (tmp_path / "odd.geojson", 2)):
        found = read(write(frame, path), PLACE)
        assert found.skipped[NO_GEOMETRY] == nowhere, path.suffix
        assert found.skipped[NO_EXTENT] >= 2, "the flat one and the point; an empty one lies nowhere"
        areas = found["building"]
        assert shapely.is_valid(areas.geometry).all()
        assert not shapely.has_z(areas.geometry).any()
        assert areas.area.sum() == pytest.approx(100**2 / 2 + 150 * 100 + 50**2, rel=1e-3)


def test_collections_are_their_areas_or_their_lines(tmp_path: Path) -> None:
    line = shapely.LineString([(LEFT + 10, BOTTOM + 500), (LEFT + 300, BOTTOM + 500)])
    areas = shapely.GeometryCollection([at(100, 100, 50, 50), line, shapely.Point(LEFT + 9, BOTTOM + 9)])
    nested = shapely.GeometryCollection([shapely.MultiPolygon([at(300, 100, 50, 50), at(400, 100, 50, 50)]), line])
    lines = shapely.GeometryCollection([line, shapely.Point(LEFT + 500, BOTTOM + 500)])
    frame = gpd.GeoDataFrame(geometry=[areas, nested, lines, shapely.GeometryCollection()], crs=PLACE.crs)
    path = write(frame, tmp_path / "mixed.geoparquet")
    found = read(path, rules=[{"channel": "green"}, {"channel": "street"}])
    assert set(found["green"].geom_type) == {"Polygon", "MultiPolygon"}
    assert found["green"].area.sum() == pytest.approx(3 * 50**2, rel=1e-3)
    assert found["street"].geom_type.tolist() == ["LineString"]
    raster = prepare(PLACE, LayersFile(path, LICENCE, rules=[{"channel": "green"}]), tmp_path / "cities", workers=1)
    area_m2 = raster.provenance["shares"]["green"] * raster.provenance["valid_km2"] * 1e6
    assert area_m2 == pytest.approx(3 * 50**2, rel=0.02)
    assert len(raster.blocks) >= 12, "a place of parks alone is split as well"


def test_several_layers_need_a_name(tmp_path: Path) -> None:
    path = tmp_path / "town.gpkg"
    houses().to_file(path, layer="houses")
    houses()[60:].to_file(path, layer="sheds")
    with pytest.raises(SourceError, match=r"(?s)several layers.*choices:.*houses, sheds.*source\.layer"):
        read(path)
    with pytest.raises(SourceError, match=r"(?s)no such layer.*house.*choices.*did you mean: houses"):
        read(path, layer="house")
    assert read(path, layer="sheds").provenance["layer"] == "sheds"
    with pytest.raises(SourceError, match="GeoParquet has no layers"):
        read(write(houses(), tmp_path / "town.parquet"), layer="houses")


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_column_that_is_not_there(tmp_path: Path, suffix: str) -> None:
    path = write(houses(), tmp_path / f"houses.{suffix}")
    with pytest.raises(SourceError, match=r"(?s)no such column.*usee.*choices:.*use.*did you mean: use"):
        read(path, rules=[{"channel": "building", "where": {"usee": "flat"}}])


def test_a_crs_that_is_not_said(tmp_path: Path) -> None:
    path = write(houses(), tmp_path / "bare.shp")
    path.with_suffix(".prj").unlink()
    with pytest.raises(SourceError, match=r"(?s)in which CRS.*source\.crs=EPSG"):
        read(path)
    assert read(path, crs=PLACE.crs).counts["building"] > 80
    wrong = write(houses().set_crs("EPSG:3035", allow_override=True), tmp_path / "wrong.gpkg")
    with pytest.raises(SourceError, match="lies outside"):
        read(wrong)
    assert read(wrong, crs=PLACE.crs).counts["building"] > 80, "who knows better says so"
    with pytest.raises(SourceError, match="the CRS of bare"):
        read(path, crs="EPSG:1")


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:3857", "EPSG:31467", "EPSG:3035"])
def test_metres_that_pass_for_degrees_are_told(tmp_path: Path, crs: str) -> None:
    path = tmp_path / "metres.geojson"
    path.write_text(houses().to_crs(crs).to_json(drop_id=True, to_wgs84=False).replace('"crs"', '"was"'))
    for ask in (LayersFile(path, LICENCE, "building").extent, lambda: read(path)):
        with pytest.raises(SourceError, match=r"(?s)metres.geojson are no degrees.*source\.crs=EPSG:…"):
            ask()
    assert read(path, crs=crs).counts["building"] > 80
    named = write(houses().to_crs(crs).set_crs(4326, allow_override=True), tmp_path / "named.gpkg")
    with pytest.raises(SourceError, match=r"(?s)named.gpkg are no degrees.*source\.crs=EPSG:…"):
        read(named)


@pytest.mark.parametrize("told", ["EPSG:32633", "EPSG:4326", "EPSG:3857", "EPSG:32756", "EPSG:2154"])
@pytest.mark.parametrize("true", ["EPSG:32632", "EPSG:4326"])
def test_a_crs_that_puts_a_file_elsewhere_is_named(tmp_path: Path, told: str, true: str) -> None:
    if told == true:
        return
    path = write(houses().to_crs(true), tmp_path / "houses.gpkg")
    with pytest.raises(SourceError, match=r"(?s)houses\.gpkg.*source\.crs=EPSG:…"):
        read(path, crs=told)
    named = write(houses().to_crs(true).set_crs(told, allow_override=True), tmp_path / "named.gpkg")
    with pytest.raises(SourceError, match=r"(?s)named\.gpkg.*source\.crs=EPSG:…"):
        read(named)


def test_latitudes_that_come_first_are_told(tmp_path: Path) -> None:
    for lon, place in ((9.0, PLACE), (139.0, Place.from_bbox("far", (139.0, 50.0, 139.014, 50.009)))):
        frame = houses().to_crs(4326)
        moved = frame.translate(lon - 9.0)
        frame["geometry"] = [shapely.transform(shape, lambda xy: xy[:, ::-1]) for shape in moved]
        with pytest.raises(SourceError, match=r"latitude.* swapped|latitudes come first"):
            read(write(frame, tmp_path / f"swapped_{lon:g}.gpkg"), place)


WRONG: dict[str, bytes] = {
    "words.gpkg": b"hello",
    "words.parquet": b"hello",
    "empty.geojson": b"",
    "nothing.geojson": b'{"type": "FeatureCollection", "features": []}',
    "cut.geojson": b'{"type": "FeatureCollection", "features": [{"type": "Feat',
    "points.csv": b"a,b\n1,2\n",
    "one.geojson": b'{"type": "Feature", "properties": {}, "geometry": {"type": "Point", "coordinates": [9, 50]}}',
}


@pytest.mark.parametrize(("name", "data"), WRONG.items(), ids=WRONG)
def test_files_that_are_none(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(SourceError) as error:
        read(path)
    assert name in str(error.value)
    with pytest.raises(SourceError, match="is not there"):
        read(tmp_path / "absent.gpkg")


def test_parquet_without_geometries(tmp_path: Path) -> None:
    houses().drop(columns="geometry").to_parquet(tmp_path / "table.parquet")
    with pytest.raises(SourceError, match=r"(?s)does not say where its geometries are.*use, floors"):
        read(tmp_path / "table.parquet")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "say which"),
        ({"channel": "building", "rules": [{"channel": "green"}]}, "say which"),
        ({"channel": "house"}, "no such channel"),
        ({"rules": [{"where": {"a": 1}}]}, "does not say which features"),
        ({"rules": ["green"]}, "does not say which features"),
        ({"rules": [{"channel": "green", "when": {"a": 1}}]}, "does not say which features"),
        ({"rules": [{"channel": "green", "where": "park"}]}, "does not say which features"),
        ({"rules": [{"channel": "street", "width_m": 5.0}]}, "have one width"),
        ({"rules": [{"channel": "water", "width_m": -5.0}]}, "without a width"),
    ],
)
def test_parameters_that_make_no_sense(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        LayersFile("x.gpkg", LICENCE, **options)
    with pytest.raises(ConfigError, match=r"(?s)reads one file.*a\.gpkg, b\.gpkg.*source=combined"):
        LayersFile(["a.gpkg", "b.gpkg"], LICENCE, "building").features(PLACE)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="whose data these are"):
        LayersFile("x.gpkg", " ", "building")


# From there to a city raster -----------------------------------------------------------------------------------------


def test_a_city_raster_says_whose_data_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(houses(), tmp_path / "houses.gpkg")
    config = {
        "place": {"name": None, "bbox": list(PLACE.bbox)},
        "source": {
            "_target_": "citygrain.geo.sources.layers_file.LayersFile",
            "path": str(path),
            "licence": LICENCE,
            "channel": "building",
        },
        "raster": {"resolution_m": 2.0, "workers": 1},
        "paths": {"data": str(tmp_path / "cities")},
    }
    config["place"]["name"] = "quarter"
    raster = run(config)
    assert LICENCE in capsys.readouterr().out
    assert raster.provenance["attribution"] == LICENCE
    with rasterio.open(raster.path / "layout.tif") as tif:
        assert tif.tags()["TIFFTAG_COPYRIGHT"] == LICENCE
    assert raster.provenance["shares"]["building"] == pytest.approx(0.06, rel=0.05)
    with rasterio.open(pack_place(raster, tmp_path / "packed" / "quarter", 4.0, 15).path / "layout.tif") as tif:
        assert tif.tags()["TIFFTAG_COPYRIGHT"] == LICENCE, "and so does what travels"
    assert set(raster.unknown) == set(CHANNEL_NAMES) - {"building"}
    config["place"] = {}
    assert run(config).name == "houses", "without a bbox the place is what the file covers"


@pytest.mark.parametrize(
    "change",
    [
        {"licence": "mine"},
        {"rules": [{"channel": "building", "where": {"use": "flat"}}], "channel": None},
        {"date": "2020"},
    ],
)
def test_another_reading_of_a_file_is_another_request(tmp_path: Path, change: dict[str, Any]) -> None:
    first = {"path": write(houses(), tmp_path / "houses.gpkg"), "licence": LICENCE, "channel": "building"}
    raster = prepare(PLACE, LayersFile(**first), tmp_path / "cities", workers=1)
    assert prepare(PLACE, LayersFile(**first), tmp_path / "cities", workers=1).provenance == raster.provenance
    with pytest.raises(DataError, match="another request"):
        prepare(PLACE, LayersFile(**{**first, **change}), tmp_path / "cities", workers=1)


def test_the_columns_of_a_shapefile_belong_to_it(tmp_path: Path) -> None:
    rules = [{"channel": "building", "where": {"use": "flat"}}]
    source = LayersFile(write(houses(), tmp_path / "houses.shp"), LICENCE, rules=rules)
    prepare(PLACE, source, tmp_path / "cities", workers=1)
    outlines = (tmp_path / "houses.shp").read_bytes()
    write(houses().assign(use="flat"), tmp_path / "houses.shp")
    assert (tmp_path / "houses.shp").read_bytes() == outlines
    with pytest.raises(DataError, match=r"(?s)another request.*sha256"):
        prepare(PLACE, source, tmp_path / "cities", workers=1)


def test_features_warn_of_nothing_where_all_is_unknown_but_buildings(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_features(PLACE, LayersFile(write(houses(), tmp_path / "h.gpkg"), LICENCE, "building"))
    assert found.counts["building"] > 0
