"""Windows in the frame of their streets: where streets run at an angle, the network sees rows and columns."""

import json
from dataclasses import dataclass, replace
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pytest
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from citygrain.data.datamodule import CityDataModule
from citygrain.data.dataset import CityWindows
from citygrain.data.prepare import prepare
from citygrain.data.rules import Augmentation, Rules
from citygrain.data.trained_on import TrainedOn
from citygrain.data.transforms import SYMMETRIES, cut_windows, to_batch, turn
from citygrain.errors import ConditionError, DataError
from citygrain.geo.place import Place
from citygrain.geo.rasterize import Grid, rasterize
from citygrain.geo.sources import Features
from citygrain.networks.frame import find_frames, list_conditions, measure_conditions
from citygrain.spec import Conditions, LayoutSpec

RULES = Rules(32, 8.0)
BEARING = 30.0


def draw_streets(bearing, spacing_m, bounds):
    """Return lines that run at a bearing, clockwise from north, and at right angles to it."""
    left, bottom, right, top = bounds
    middle, reach = ((left + right) / 2, (bottom + top) / 2), max(right - left, top - bottom)
    steps = np.arange(-reach, reach, spacing_m)
    lines = [
        shapely.LineString([(middle[0] + d, middle[1] - reach), (middle[0] + d, middle[1] + reach)]) for d in steps
    ]
    lines += [shapely.affinity.rotate(line, 90, origin=middle) for line in lines]
    return [shapely.affinity.rotate(line, -bearing, origin=middle) for line in lines]


@dataclass(frozen=True)
class Askew:
    """A city of streets that all run at one bearing or cross it."""

    def features(self, place, progress=None):
        def layer(shapes, width=np.nan):
            n = len(shapes)
            return gpd.GeoDataFrame({"kind": ["x"] * n, "width_m": [width] * n}, geometry=shapes, crs=place.crs)

        streets = draw_streets(BEARING, 96.0, place.bounds_utm)
        houses = [shapely.affinity.rotate(shapely.box(x, y, x + 24, y + 24), -BEARING) for x, y in self._middles(place)]
        return Features(
            {"street": layer(streets, 8.0), "building": layer(houses)},
            place=place,
            provenance={"kind": "invented"},
            valid=shapely.box(*place.bounds_utm),
            unknown={},
        )

    @staticmethod
    def _middles(place):
        left, bottom, right, top = place.bounds_utm
        return np.stack(np.meshgrid(np.arange(left, right, 96), np.arange(bottom, top, 96)), -1).reshape(-1, 2)


@pytest.fixture(scope="module")
def askew(tmp_path_factory):
    """Folder with one prepared place, `askew`."""
    folder = tmp_path_factory.mktemp("cities")
    prepare(Place.from_bbox("askew", (12.5, 55.6, 12.56, 55.63)), Askew(), folder, workers=1)
    return folder


def draw(bearing, size=64, resolution_m=8.0):
    """Return the coverage `(1, H, W)` of a window of streets at a bearing; of None, of ring roads."""
    grid = Grid("EPSG:32633", 500_000.0, 6_000_000.0, resolution_m, size, size)
    middle = shapely.box(*grid.bounds).centroid
    lines = draw_streets(bearing or 0.0, 110.0, grid.bounds)
    if bearing is None:
        lines = [middle.buffer(radius, quad_segs=64).exterior for radius in (60, 120, 180)]
    features = {"street": gpd.GeoDataFrame({"width_m": [8.0] * len(lines)}, geometry=lines, crs=grid.crs)}
    return torch.from_numpy(np.concatenate(list(rasterize(features, grid, ("street",))), 1)).float() / 255


def find_fullest(streets):
    """Return how much of two rows or two columns that lie side by side is street, at most, `(B,)`; 1 for one of two."""
    lines = torch.stack([streets.mean(1), streets.mean(2)], 1)
    return (lines[..., 1:] + lines[..., :-1]).amax((1, 2))


def off(one, other):
    """Degrees by which two bearings differ."""
    return abs((np.asarray(one) - np.asarray(other) + 45) % 90 - 45)


@settings(deadline=None)
@given(st.floats(0, 90), st.sampled_from([2.0, 4.0, 8.0]))
def test_streets_at_a_bearing_have_it(bearing, resolution_m):
    angle, order = find_frames(draw(bearing, resolution_m=resolution_m))
    # Of streets that are one cell wide, the corners at crossings are a large part.
    assert off(float(angle.rad2deg()), bearing) < (1.2 if resolution_m == 8 else 0.5)
    assert float(order) > (0.6 if resolution_m == 8 else 0.85)


def test_streets_in_all_directions_have_no_order_and_no_streets_neither():
    assert float(find_frames(draw(None))[1]) < 0.15
    angle, order = find_frames(torch.zeros(2, 16, 16))
    assert torch.equal(order, torch.zeros(2))
    assert torch.isfinite(angle).all()


@pytest.mark.parametrize("symmetry", range(SYMMETRIES))
def test_symmetries_commute_with_the_frame(symmetry):
    """Mirrors turn the other way round; quarter turns change nothing."""
    streets = torch.cat([draw(bearing, resolution_m=4.0) for bearing in (5.0, 20.0, 33.0, 71.0)])
    angle, order = find_frames(streets)
    mirrored = bool((symmetry & 4 > 0) ^ (symmetry & 2 > 0) ^ (symmetry & 1 > 0))
    turned_angle, turned_order = find_frames(turn(streets, symmetry))
    assert torch.allclose(turned_angle, -angle if mirrored else angle, atol=1e-4)
    assert torch.allclose(turned_order, order, atol=1e-5)


def test_order_can_be_learned_from():
    streets = torch.cat([draw(20.0), torch.zeros(1, 64, 64)]).requires_grad_()
    layout = torch.stack([torch.zeros_like(streets), streets], 1)
    measure_conditions(layout, ("arterial", "street"), 8.0, ["order"])["order"].sum().backward()
    assert torch.isfinite(streets.grad).all()
    assert streets.grad.abs().max() > 0


@pytest.mark.parametrize(("split", "limit"), [("train", None), ("val", 4), ("test", 4)])
def test_windows_are_turned_to_their_streets_and_say_by_how_much(askew, split, limit):
    windows = CityWindows([askew / "askew"], split, RULES, frame="streets", limit=limit)
    spec = LayoutSpec(windows.channels, 32, 8.0, scalars=("street_density", "bearing", "order"), places=("askew",))
    raw = windows.__getitems__(range(4 if limit else 40))
    layout, conditions = to_batch(raw, spec)
    assert layout.shape[-1] == 32
    density, bearing, order = conditions.scalars.T
    mirrored = np.isin(raw.symmetry.numpy(), (1, 2, 4, 7))
    assert off(bearing, np.where(mirrored, 90 - BEARING, BEARING)).max() < 1
    assert ((bearing >= 0) & (bearing < 90)).all()
    assert (order > 0.5).all()
    residual = measure_conditions(layout, spec.channels, 8.0, ["bearing"])["bearing"]
    assert residual.abs().max() < 1, "a turned window runs along its rows and columns"
    assert find_fullest(layout[:, spec.channels.index("street")]).min() > 0.95, "a street fills two rows by half"
    upright = CityWindows([askew / "askew"], split, RULES, limit=limit, augmentation=Augmentation(symmetries=False))
    across = to_batch(upright.__getitems__(range(4)), replace(spec, scalars=())).layout
    assert find_fullest(across[:, spec.channels.index("street")]).max() < 0.75
    assert density.mean() == pytest.approx(2e3 / 96, rel=0.1)


def test_a_number_stands_for_the_same_window_in_every_batch(askew):
    windows = CityWindows([askew / "askew"], "train", RULES, frame="streets", seed=3)
    together = windows.__getitems__([7, 0, 19])
    alone = CityWindows([askew / "askew"], "train", RULES, frame="streets", seed=3).__getitems__([19])
    for one, part in zip(alone, together, strict=True):
        assert torch.equal(one, part[2:])


def test_cells_are_what_a_batch_holds_in_bytes(askew):
    windows = CityWindows([askew / "askew"], "test", RULES, frame="streets", limit=3)
    cells = windows.read_cells(range(3))
    batch = cut_windows(windows.__getitems__(range(3)), 32)
    assert cells.dtype == np.uint8
    assert np.abs(cells / 255 - batch.numpy()).max() < 0.5 / 255 + 1e-6
    upright = CityWindows([askew / "askew"], "test", RULES, limit=3)
    assert np.array_equal(upright.read_cells(range(3)), upright.__getitems__(range(3)).layout.numpy())


def module(askew, **options):
    small = {"size_px": 32, "batch_size": 4, "statistics_windows": 40, "val_windows": 3, "test_windows": 3}
    return CityDataModule(["askew"], askew, **{**small, **options})


def test_bearing_and_order_are_conditions_of_turned_windows_only(askew):
    turned, upright = module(askew, frame="streets"), module(askew)
    spec = turned.prepare_spec()
    assert spec.scalars == (*upright.prepare_spec().scalars, "bearing", "order")
    assert spec.scalars == list_conditions(spec.channels, "streets")
    assert spec.quantile("order", 50) > 0.6
    assert off(spec.quantile("bearing", 10), BEARING) < 1
    asked = Conditions.request(spec, 2, {"bearing": "p10", "order": None})
    assert asked.present.sum(0).tolist() == [2 * (name == "bearing") for name in spec.scalars]
    assert module(askew, frame="streets", scalars=["order"]).prepare_spec().scalars == ("order",)
    with pytest.raises(ConditionError, match="frame=streets"):
        module(askew, scalars=["order"])


def test_the_frame_is_told_only_where_there_is_one_and_is_enough_to_have_the_windows_again(askew):
    upright, turned = module(askew), module(askew, frame="streets")
    assert turned.provenance() == {**upright.provenance(), "frame": "streets"}
    provenance = json.loads(json.dumps({"data": turned.provenance()}))
    trained_on = TrainedOn.of(SimpleNamespace(spec=turned.prepare_spec(), provenance=provenance))
    assert trained_on.frame == "streets"
    again = trained_on.data(askew, val_windows=3, test_windows=3)
    for split in ("train", "val", "test"):
        assert torch.equal(again.batch(split, range(3)).layout, turned.batch(split, range(3)).layout)
    assert trained_on.windows("test", askew).frame == "streets"


def test_a_frame_needs_streets_and_no_other_turn(askew):
    for wrong, says in (
        ({"frame": "streets", "channels": ["building"]}, "that of its streets"),
        ({"frame": "streets", "rotation": 10.0}, "another angle"),
        ({"frame": "square"}, "no such frame"),
    ):
        with pytest.raises(DataError, match=says):
            module(askew, **wrong).windows("train")
