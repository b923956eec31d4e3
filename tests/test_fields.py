"""Conditions that vary over an area."""

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from citygrain.errors import ConditionError, DataError
from citygrain.generation.fields import read_fields, varies
from citygrain.geo.rasterize import Grid
from citygrain.spec import PERCENTILES, LayoutSpec

RAMP = tuple(i / (PERCENTILES - 1) for i in range(PERCENTILES))
SPEC = LayoutSpec(("building", "green"), 8, 8.0, scalars=("coverage", "green"), statistics={"coverage": {"all": RAMP}})
GRID = Grid("EPSG:32635", 385_000.0, 6_672_000.0, 8.0, 60, 40)


def field(asked, grid=GRID):
    return read_fields(SPEC, {"coverage": asked}, grid)["coverage"]


def test_numbers_and_percentiles_are_the_same_everywhere():
    assert read_fields(SPEC, {"coverage": "p30", "green": 0.2, "place": None}, GRID) == pytest.approx(
        {"coverage": 0.3, "green": 0.2}
    )
    assert not varies({"coverage": "p30", "green": 0.2, "place": "here"})
    assert varies({"coverage": {"from": 0}})
    assert varies({"coverage": "painted.tif"})


@pytest.mark.parametrize(
    ("towards", "last"),
    [("east", np.s_[:, -1]), ("west", np.s_[:, 0]), ("north", np.s_[0]), ("south", np.s_[-1])],
)
def test_a_gradient_goes_evenly_from_one_value_to_the_other(towards, last):
    values = field({"from": 0.1, "to": 0.5, "towards": towards}).numpy()
    assert values.shape == (40, 60)
    assert values.mean() == pytest.approx(0.3, abs=1e-6)
    assert values[last].mean() == pytest.approx(values.max(), abs=1e-6)
    along = values.mean(0 if towards in {"east", "west"} else 1)
    assert np.diff(along) == pytest.approx(np.diff(along)[0], abs=1e-6)
    assert abs(np.diff(along)[0]) == pytest.approx(0.4 / len(along), rel=1e-3)


def test_density_falls_from_the_centre_as_an_exponential():
    values = field({"from": "p10", "to": 0.8, "towards": "centre"}).numpy()
    middle = (values[19, 29:31] + values[20, 29:31]).mean() / 2
    assert middle == pytest.approx(0.8, rel=0.1)
    assert values[0, 29] == pytest.approx(0.1, rel=0.1), "the middle of the nearest edge"
    out = np.log(values[20, 30:])
    assert np.diff(out)[5:] == pytest.approx(np.diff(out)[5], rel=0.02)


def painted(path, crs, bounds, values):
    left, bottom, right, top = bounds
    height, width = values.shape
    transform = Affine((right - left) / width, 0, left, 0, (bottom - top) / height, top)
    with rasterio.open(
        path, "w", driver="GTiff", dtype="float32", count=1, width=width, height=height, crs=crs, transform=transform,
        nodata=-1,
    ) as tif:  # fmt: skip
        tif.write(values.astype(np.float32), 1)
    return str(path)


def test_a_painted_map_lies_where_it_says_in_whatever_crs(tmp_path):
    left, bottom, right, top = GRID.bounds
    halves = np.zeros((20, 30), np.float32)
    halves[:, 15:] = 0.6
    halves[:5] = -1  # nothing was painted there
    here = field(painted(tmp_path / "utm.tif", "EPSG:32635", (left, bottom, right, top), halves))
    assert here[:8].isnan().all()
    assert here[12:, :28].eq(0).all()
    assert here[12:, 32:].allclose(torch.tensor(0.6))
    from pyproj import Transformer

    degrees = Transformer.from_crs("EPSG:32635", "EPSG:4326", always_xy=True).transform_bounds(*GRID.bounds)
    there = field(painted(tmp_path / "degrees.tif", "EPSG:4326", degrees, np.full((50, 50), 0.3)))
    assert there.isfinite().float().mean() > 0.95
    assert there[there.isfinite()].allclose(torch.tensor(0.3))


def test_what_is_no_field_is_refused_in_words(tmp_path):
    with pytest.raises(ConditionError, match="towards one of east"):
        field({"from": 0.1, "to": 0.3, "towards": "heaven"})
    with pytest.raises(ConditionError, match="does not know"):
        read_fields(SPEC, {"cycle": {"from": 1, "to": 3, "towards": "east"}}, GRID)
    with pytest.raises(ConditionError, match="no number"):
        field("lots")
    with pytest.raises(DataError, match="percentile such as p90"):
        field("lots.tif")
    elsewhere = painted(tmp_path / "far.tif", "EPSG:32635", (0, 0, 100, 100), np.ones((4, 4)))
    with pytest.raises(DataError, match="nothing of the area"):
        field(elsewhere)
    nowhere = painted(tmp_path / "no.tif", None, (0, 0, 100, 100), np.ones((4, 4)))
    with pytest.raises(DataError, match="where it lies"):
        field(nowhere)
