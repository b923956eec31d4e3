"""Painted maps: each cell gets the mean of what is painted on it, where it is painted, or a refusal in words."""

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from citygrain.errors import ConditionError, DataError
from citygrain.geo.painted_map import PaintedMap, is_painted, stretch
from citygrain.geo.rasterize import Grid

CRS = "EPSG:32633"
GRID = Grid(CRS, 386_000.0, 6_672_000.0, 4.0, 48, 32)
"""192 × 128 m: 6 × 4 cells of 32 m."""

CELL_PX = 8
LEVELS = np.random.default_rng(0).permutation(np.arange(10, 250, 10, dtype=np.uint8)).reshape(4, 6)
"""What is painted on cells of 32 m: no two cells are alike, so that a map that is turned or mirrored is another one."""

SHARES = LEVELS / 255


def save_tif(path, values, left=GRID.left, top=GRID.top, cell_m=32.0, crs=CRS, nodata=None):
    bands = values if values.ndim == 3 else values[None]
    with rasterio.open(
        path, "w", driver="GTiff", dtype=values.dtype, count=len(bands), width=bands.shape[2], height=bands.shape[1],
        crs=crs, transform=Affine(cell_m, 0, left, 0, -cell_m, top), nodata=nodata,
    ) as tif:  # fmt: skip
        tif.write(bands)
    return path


def save_png(path, levels, mode=None):
    Image.fromarray(levels).convert(mode).save(path) if mode else Image.fromarray(levels).save(path)
    return path


def squares(values, cell_m=32.0, grid=GRID, name="coverage", **columns):
    rows, cols = np.indices(values.shape).reshape(2, -1)
    cells = np.stack([cols, rows, cols + 1, rows + 1], 1) * cell_m / grid.resolution_m
    boxes = shapely.transform(shapely.box(*cells.T), grid.to_metres)
    return gpd.GeoDataFrame({name: values.ravel(), **columns}, geometry=list(boxes), crs=grid.crs)


def save_vectors(path, values, layer=None):
    frame = squares(values)
    frame = frame.to_crs("EPSG:4326") if path.suffix == ".geojson" else frame
    frame.to_file(path, layer=layer) if layer else frame.to_file(path)
    return path


def read(source, grid=GRID, measure="coverage", unit="–", free=None, **settings):
    return PaintedMap(source, **settings).read(measure, unit, grid, free)


def pool(values):
    height, width = values.shape
    return values.reshape(height // CELL_PX, CELL_PX, width // CELL_PX, CELL_PX).mean((1, 3))


KINDS = {
    "GeoTIFF": lambda folder: PaintedMap(save_tif(folder / "map.tif", SHARES.astype(np.float32))),
    "GeoTIFF of 8 bits": lambda folder: PaintedMap(save_tif(folder / "map.tif", LEVELS), black=0, white=1),
    "PNG": lambda folder: PaintedMap(str(save_png(folder / "map.png", LEVELS))),
    "PNG in colours": lambda folder: PaintedMap(save_png(folder / "map.png", LEVELS, "RGB")),
    "PNG of 16 bits": lambda folder: PaintedMap(save_png(folder / "map.png", LEVELS.astype(np.uint16) * 257)),
    "PNG, larger": lambda folder: PaintedMap(save_png(folder / "map.png", np.kron(LEVELS, np.ones((7, 5), np.uint8)))),
    "array": lambda folder: PaintedMap(SHARES),
    "array of 8 bits": lambda folder: PaintedMap(LEVELS, black=0.0, white=1.0),
    "GeoPackage": lambda folder: PaintedMap(save_vectors(folder / "map.gpkg", SHARES)),
    "GeoJSON": lambda folder: PaintedMap(save_vectors(folder / "map.geojson", SHARES)),
    "GeoParquet": lambda folder: PaintedMap(_parquet(folder / "map.parquet")),
    "table": lambda folder: PaintedMap(squares(SHARES)),
}


def _parquet(path):
    squares(SHARES).to_parquet(path)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_painted_is_what_is_read_to_the_cell_north_up(kind, tmp_path):
    values = KINDS[kind](tmp_path).read("coverage", "–", GRID)
    assert values.dtype == np.float32
    # The corner of a polygon that has been moved to degrees and back lies in a neighbouring cell, by micrometres.
    assert values == pytest.approx(
        np.kron(SHARES, np.ones((CELL_PX, CELL_PX))), abs=0.004 if kind == "GeoJSON" else 1e-6
    )


@pytest.mark.parametrize("kind", ["PNG", "array", "table"])
def test_an_area_that_lies_turned_is_painted_in_its_own_rows(kind, tmp_path):
    turned = GRID.turned(30)
    painted = PaintedMap(squares(SHARES, grid=turned)) if kind == "table" else KINDS[kind](tmp_path)
    assert pool(painted.read("coverage", "–", turned)) == pytest.approx(SHARES, abs=0.003)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31))
def test_stretching_keeps_the_mean_and_the_range(h, w, height, width, seed):
    values = np.random.default_rng(seed).random((h, w))
    found = stretch(values, height, width)
    assert found.shape == (height, width)
    assert found.mean() == pytest.approx(values.mean(), abs=1e-9)
    assert found.min() >= values.min() - 1e-9
    assert found.max() <= values.max() + 1e-9
    north, there = found[: height // 2], values[: h // 2]
    if not height % 2 and not h % 2:
        assert north.mean() == pytest.approx(there.mean(), abs=1e-9), "the north of one is the north of the other"


@settings(max_examples=25, deadline=None)
@given(st.floats(1.3, 90), st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**31))
def test_a_raster_of_any_cells_keeps_its_mean(tmp_path_factory, cell_m, right, down, seed):
    """However its cells lie, the mean over the area is that of the raster over the area."""
    n = int(200 / cell_m) + 3
    values = np.random.default_rng(seed).random((n, n)).astype(np.float32)
    left, top = GRID.left - right * cell_m, GRID.top + down * cell_m
    file = save_tif(tmp_path_factory.mktemp("maps") / "map.tif", values, left, top, cell_m)
    found = read(file)

    def lengths(offset, length_m):
        cuts = np.clip(np.arange(n + 1) * cell_m - offset, 0, length_m)
        return np.diff(cuts) / length_m

    mean = lengths(down * cell_m, 128.0) @ values @ lengths(right * cell_m, 192.0)
    assert np.isfinite(found).all()
    assert found.mean() == pytest.approx(mean, abs=2e-4)


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 30), st.integers(0, 2**31))
def test_polygons_that_share_out_the_area_keep_the_mean(n, seed):
    """Whatever the polygons are that the area is cut into."""
    generator = np.random.default_rng(seed)
    left, bottom, right, top = GRID.bounds
    points = generator.uniform((left, bottom), (right, top), (n, 2))
    cells = shapely.get_parts(shapely.voronoi_polygons(shapely.multipoints(points), extend_to=GRID.outline))
    shapes = shapely.intersection(cells, GRID.outline)
    values = generator.random(n)
    mean = (shapely.area(shapes) * values).sum() / GRID.outline.area
    found = read(gpd.GeoDataFrame({"coverage": values}, geometry=list(shapes), crs=CRS))
    assert np.isfinite(found).all()
    assert found.mean() == pytest.approx(mean, abs=2e-3)


def test_a_map_in_degrees_lies_where_it_says(tmp_path):
    wide = GRID.part(-200, -200, 500, 500)
    halves = squares(np.array([[0.2, 0.8]]), 2000.0, wide).to_crs("EPSG:4326")
    left, bottom, right, top = halves.total_bounds
    values = np.where(np.arange(400) < 200, 0.2, 0.8)[None].repeat(300, 0).astype(np.float32)
    with rasterio.open(
        tmp_path / "map.tif", "w", driver="GTiff", dtype="float32", count=1, width=400, height=300, crs="EPSG:4326",
        transform=Affine((right - left) / 400, 0, left, 0, (bottom - top) / 300, top),
    ) as tif:  # fmt: skip
        tif.write(values, 1)
    drawn, warped = read(halves), read(tmp_path / "map.tif")
    assert drawn.mean() == pytest.approx(warped.mean(), abs=0.02)


def test_what_is_not_painted_is_not_asked_for_unless_a_value_is_given_for_it(tmp_path):
    shares = SHARES.astype(np.float32).copy()
    shares[:2] = -1
    file = save_tif(tmp_path / "map.tif", shares, nodata=-1)
    holes = SHARES.copy()
    holes[:2] = np.nan
    seen = np.where(np.isfinite(holes), 255, 0).astype(np.uint8)
    clear = np.dstack([LEVELS, LEVELS, LEVELS, seen])
    Image.fromarray(clear).save(tmp_path / "map.png")
    some = squares(SHARES)[12:]
    nulls = squares(np.where(np.isfinite(holes), holes, np.nan))
    for source in (file, tmp_path / "map.png", holes, some, nulls):
        found = read(source)
        assert np.isnan(found[:16]).all()
        assert pool(found[16:]) == pytest.approx(SHARES[2:], abs=0.003)
        assert (read(source, elsewhere=0.5)[:16] == 0.5).all()


def test_cells_count_as_painted_from_a_half_on():
    more, less = (read(squares(np.array([[0.4]]), length_m)) for length_m in (31.0, 29.0))  # 7.75 and 7.25 cells
    assert more[3, 7] == pytest.approx(0.4), "the mean of what is painted on it"
    assert np.isnan(less[3, 7])


def test_polygons_that_overlap_are_averaged():
    both = gpd.GeoDataFrame(
        {"coverage": [0.2, 0.6], "kind": ["a", "b"]}, geometry=[GRID.outline, GRID.outline], crs=CRS
    )
    assert read(both) == pytest.approx(0.4, abs=1e-6)


def test_grey_levels_stand_for_what_is_said(tmp_path):
    file = save_png(tmp_path / "map.png", LEVELS)
    assert pool(read(file, black=0.5, white=0.1)) == pytest.approx(0.5 - 0.4 * SHARES, abs=1e-6)
    lengths = read(file, measure="street_density", unit="km/km²", black=5, white=25)
    assert pool(lengths) == pytest.approx(5 + 20 * SHARES, abs=1e-5)


def test_the_band_the_layer_and_the_column_can_be_named(tmp_path):
    two = save_tif(tmp_path / "two.tif", np.stack([0 * SHARES, SHARES]).astype(np.float32))
    assert pool(read(two, band=2)) == pytest.approx(SHARES, abs=1e-6)
    file = tmp_path / "plan.gpkg"
    squares(SHARES, name="gsi", coverage=0.1).to_file(file, layer="wished")
    squares(SHARES, name="height").to_file(file, layer="heights")
    assert read(file) == pytest.approx(0.1, abs=1e-6), "the only layer with a column of the measure"
    assert pool(read(file, layer="wished", column="gsi")) == pytest.approx(SHARES, abs=1e-6)


def test_a_picture_of_a_site_is_stretched_over_the_site_alone(tmp_path):
    free = np.zeros((32, 48), bool)
    free[8:24, 12:36] = True
    free[20:24, 30:36] = False
    for source in (save_png(tmp_path / "map.png", LEVELS), SHARES):
        found = read(source, free=free)
        assert found[8:24, 12:36] == pytest.approx(np.kron(SHARES, np.ones((4, 4))), abs=1e-6)
        assert np.isnan(found).sum() == free.size - 16 * 24
    everywhere = read(save_tif(tmp_path / "map.tif", SHARES.astype(np.float32)), free=free)
    assert np.isfinite(everywhere).all(), "what lies on Earth lies where it does"


def elsewhere(folder):
    return save_tif(folder / "far.tif", SHARES.astype(np.float32), left=GRID.left + 5000)


def wrong_crs(folder):
    return save_tif(folder / "wrong.tif", SHARES.astype(np.float32), crs="EPSG:4326")


def other_zone(folder):
    return save_tif(folder / "zone.tif", SHARES.astype(np.float32), crs="EPSG:32632")


def coloured(folder):
    red = np.dstack([LEVELS, 0 * LEVELS, 0 * LEVELS])
    Image.fromarray(red).save(folder / "red.png")
    return folder / "red.png"


def text(folder, name, content=b"no map"):
    (folder / name).write_bytes(content)
    return folder / name


def points(folder):
    frame = squares(SHARES)
    frame.geometry = frame.centroid
    return frame


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        (lambda f: save_tif(f / "a.tif", LEVELS), ConditionError, r"did you mean grey levels.*\{map: a.tif, black: 0"),
        (lambda f: LEVELS * 1.0, ConditionError, "did you mean grey levels from 0 to 255. Then divide them by 255"),
        (lambda f: squares(SHARES * 60), ConditionError, "did you mean per cent"),
        (lambda f: squares(SHARES * 9000), ConditionError, "shares from 0 to 1"),
        (lambda f: SHARES - 0.5, ConditionError, "that coverage cannot have"),
        (elsewhere, DataError, "holds nothing of the area"),
        (wrong_crs, DataError, "its numbers fit EPSG:32633"),
        (other_zone, DataError, "its numbers fit EPSG:32633"),
        (lambda f: squares(SHARES).set_crs("EPSG:4326", allow_override=True), DataError, "its numbers fit"),
        (lambda f: squares(SHARES).set_crs(None, allow_override=True), DataError, "in which CRS"),
        (lambda f: save_tif(f / "no.tif", LEVELS, crs=None), DataError, "does not say where it lies(?s:.*)PNG"),
        (lambda f: squares(SHARES, name="gsi"), DataError, "no column of values of coverage(?s:.*)choices:  gsi"),
        (lambda f: squares(SHARES.astype(str)), DataError, "has no numbers"),
        (points, DataError, "got:      Point"),
        (lambda f: squares(SHARES * np.nan), DataError, "no polygon with a value"),
        (coloured, DataError, "colours have no order"),
        (lambda f: text(f, "a.png"), DataError, "cannot be read as a picture"),
        (lambda f: text(f, "a.tif"), DataError, "cannot be read as a raster"),
        (lambda f: text(f, "a.gpkg"), DataError, "cannot be read as a file of polygons"),
        (lambda f: f / "missing.geojson", DataError, "There is no file"),
        (lambda f: f / "missing.png", DataError, "cannot be read as a picture"),
        (lambda f: SHARES[0], DataError, "numbers in rows and columns"),
        (lambda f: SHARES * np.nan, DataError, "nothing painted"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_in_words(source, error, words, tmp_path):
    with pytest.raises(error, match=words):
        read(source(tmp_path))


def test_settings_that_do_not_belong_are_refused(tmp_path):
    picture = save_png(tmp_path / "map.png", LEVELS)
    with pytest.raises(ConditionError, match="both values"):
        read(picture, black=0)
    with pytest.raises(ConditionError, match="a number"):
        read(picture, black="dark", white=1)
    with pytest.raises(ConditionError, match="two values of street_density"):
        read(picture, measure="street_density", unit="km/km²")
    with pytest.raises(ConditionError, match="8 or 16 bits"):
        read(SHARES, black=0, white=1)
    with pytest.raises(ConditionError, match="no levels"):
        read(squares(SHARES), black=0, white=1)
    with pytest.raises(DataError, match="choices:  1"):
        read(save_tif(tmp_path / "map.tif", SHARES), band=3)
    with pytest.raises(ConditionError, match="cannot have"):
        read(np.where(SHARES > 0.5, SHARES, np.nan), elsewhere=3)
    squares(SHARES).to_file(tmp_path / "two.gpkg", layer="one")
    squares(SHARES).to_file(tmp_path / "two.gpkg", layer="other")
    with pytest.raises(DataError, match="choices:  one, other"):
        read(tmp_path / "two.gpkg")
    with pytest.raises(DataError, match="did you mean: other"):
        read(tmp_path / "two.gpkg", layer="othr")


def test_files_are_known_by_their_endings():
    assert all(map(is_painted, ("a.TIF", "a.png", "a.geojson", PaintedMap(SHARES))))
    assert not any(map(is_painted, ("p90", 0.3, None, "copenhagen", {"from": 0})))
