"""The view in which layouts are judged: larger cells, some of the channels, the channels of an earlier format."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from citygrain.data.cityraster import CityRaster
from citygrain.data.datamodule import CityDataModule
from citygrain.data.dataset import CityWindows
from citygrain.data.rules import Rules
from citygrain.data.trained_on import TrainedOn
from citygrain.errors import ConfigError, DataError
from citygrain.evaluation import Classifier, Embedding, Memorisation, Obedience
from citygrain.evaluation.judge import evaluate
from citygrain.evaluation.report import PAGE, Report
from citygrain.evaluation.view import View, convert_layouts
from citygrain.geo.layers import CHANNEL_NAMES
from citygrain.layouts import Layouts
from citygrain.spec import LayoutSpec
from citygrain.verbs.evaluate import make_screen_tables

SPEC = LayoutSpec(
    channels=("building", "street", "service", "walk", "square"),
    size_px=16,
    resolution_m=2.0,
    scalars=("coverage", "walk", "people_flow"),
    statistics={"coverage": {"all": tuple(range(101))}, "walk": {"all": tuple(range(101))}},
    places=("here",),
)


@pytest.mark.parametrize("factor", [2, 4])
def test_cells_that_are_averaged_are_those_of_the_coarser_level_of_a_place(factor, cities):
    raster = CityRaster.open(cities / "helsinki")
    fine = raster.resolution_m
    here = {"size_m": 512.0, "at": (24.9414, 60.1735)}
    layouts = raster.window(resolution_m=fine * factor, **here)
    left, bottom, right, top = layouts.grids[0].bounds
    finest = raster.window(bounds=(left, bottom, right, top), resolution_m=fine)
    seen = convert_layouts(finest, fine * factor, layouts.channels, 2)
    assert seen.grids == layouts.grids
    apart = np.abs(seen.cells.astype(int) - layouts.cells)
    assert apart.max() <= 2, "bytes are rounded once here, and at each level there"
    assert (apart > 0).mean() < 0.05


def test_a_model_that_is_judged_as_it_draws_is_shown_as_it_is():
    view = View.of(SPEC)
    assert view.is_own
    assert view.seen is SPEC
    layouts = Layouts(np.zeros((1, 5, 16, 16), np.uint8), SPEC.channels, 2.0)
    assert view.show(layouts) is layouts


def test_a_view_has_the_conditions_that_its_channels_allow_and_mean_the_same_in_them():
    coarse = View.of(SPEC, resolution_m=8).seen
    assert (coarse.size_px, coarse.resolution_m, coarse.extent_m) == (4, 8.0, SPEC.extent_m)
    assert coarse.scalars == SPEC.scalars
    assert View.of(SPEC, channels=["walk", "street"]).seen.channels == ("walk", "street")
    assert View.of(SPEC, channels=["walk", "street"]).seen.scalars == ("walk",)
    earlier = View.of(SPEC, raster_format=1).seen
    assert earlier.channels == ("building", "street", "walk")
    assert earlier.scalars == ("coverage",), "a density of walks that has squares in it is another condition"
    assert set(earlier.statistics) == {"coverage"}


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"resolution_m": 3}, "whole multiple"),
        ({"resolution_m": 1}, "whole multiple"),
        ({"resolution_m": 6}, "whole number of such cells"),
        ({"channels": ["hills"]}, "channels that they have"),
        ({"channels": ["walk", "walk"]}, "channels that they have"),
        ({"channels": ["parking"]}, "channels that they have"),
        ({"channels": ["service"], "raster_format": 1}, "channels that they have"),
        ({"raster_format": 3}, "earlier one"),
        ({"channels": []}, "nothing to judge"),
    ],
)
def test_what_cannot_be_seen_is_refused(wanted, words):
    with pytest.raises(ConfigError, match=words):
        View.of(SPEC, **wanted)


def test_channels_that_a_model_is_given_are_nothing_to_judge():
    given = replace(SPEC, given=("street", "walk"))
    assert View.of(given, channels=["street", "building"]).seen.given == ("street",)
    with pytest.raises(ConfigError, match=r"nothing to judge(.|\n)*building"):
        View.of(given, channels=["street", "walk"])


def test_windows_are_seen_in_an_earlier_format_as_a_model_of_that_format_knows_them(cities):
    raster, rules = CityRaster.open(cities / "helsinki"), Rules(16, 4.0)
    channels = [name for name in CHANNEL_NAMES if name in raster.channels]
    new = CityWindows([raster], "all", rules, channels=channels)
    view = View.of(LayoutSpec(tuple(channels), 16, 4.0), raster_format=1)
    old = CityWindows([raster], "all", rules, channels=view.seen.channels, raster_format=1)

    def find_corners(windows):
        _, row, column, _ = windows.locate(range(len(windows)))
        return {corner: i for i, corner in enumerate(zip(row.tolist(), column.tolist(), strict=True))}

    theirs, mine = find_corners(old), find_corners(new)
    both = sorted(theirs.keys() & mine.keys())[:8]
    assert len(both) == 8
    seen = view.show_cells(new.read_cells([mine[corner] for corner in both]))
    assert (seen == old.read_cells([theirs[corner] for corner in both])).all()


# In an evaluation


class Speckled(torch.nn.Module):
    """Buildings and streets where chance has them."""

    sampler = None

    def __init__(self, data):
        super().__init__()
        self.spec, self.provenance = data.prepare_spec(), {"data": data.provenance(), "name": "speckled"}
        self.weight = torch.nn.Parameter(torch.ones(()))

    def sample(self, conditions, *, noise, sampler=None):
        layouts = torch.zeros(len(conditions), *self.spec.shape)
        layouts[:, :3] = (noise.uniform(3, *self.spec.shape[1:]) < 0.3 * self.weight).float()
        return layouts


def make_model(cities, size_px, resolution_m):
    return Speckled(CityDataModule(["helsinki"], cities, size_px, resolution_m, statistics_windows=64))


@pytest.fixture(scope="module")
def fine(cities):
    return make_model(cities, 16, 4.0)


SMALL = {
    "n": 16, "batch_size": 8, "workers": 1, "bootstrap": 0, "embedding": Embedding(2), "classifier": Classifier(2),
    "memorisation": Memorisation(64), "obedience": Obedience(("coverage",), levels=2, each=4),
}  # fmt: skip


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def coarsely(fine, cities, out):
    return evaluate(fine, data=cities, out=out / "fine", resolution_m=8, **SMALL)


@pytest.mark.slow
def test_a_model_of_4_m_that_is_judged_at_8_m_stands_beside_one_of_8_m(coarsely, cities, out):
    """The same held-out windows, the same embedding: what differs is what the models draw."""
    coarse = evaluate(make_model(cities, 8, 8.0), data=cities, out=out / "coarse", **SMALL)
    assert (coarsely.resolution_m, coarsely.window_m) == (coarse.resolution_m, coarse.window_m) == (8.0, 64.0)
    assert (coarsely.drawn.resolution_m, coarse.drawn) == (4.0, None)
    assert coarsely.embedding == coarse.embedding
    assert coarsely.obedience.keys() == coarse.obedience.keys()
    real = [np.load(next((out / name).glob("parts/*/real_*.npz")))["layouts"] for name in ("fine", "coarse")]
    assert np.abs(real[0].astype(int) - real[1]).max() <= 1
    made = np.load(next((out / "fine").glob("parts/*/generated_*.npz")))["layouts"]
    assert made.shape == real[0].shape
    assert len(np.unique(made[:, 0])) > 2, "speckles of 4 m are averaged"


@pytest.mark.slow
def test_a_report_names_both_resolutions(coarsely):
    assert Report.read(coarsely.folder).drawn == coarsely.drawn
    words = "judged in cells of 8 m, drawn in cells of 4 m"
    assert words in (coarsely.folder / PAGE).read_text(encoding="utf-8")
    assert words in coarsely._repr_html_()
    assert words in make_screen_tables(coarsely)[0].title


@pytest.mark.slow
def test_ways_alone_are_judged_and_are_parts_of_their_own(fine, coarsely, cities, out):
    ways = evaluate(
        fine, data=cities, out=out / "fine", resolution_m=8, channels=["street", "arterial"],
        **SMALL | {"obedience": Obedience(levels=2, each=4)},
    )  # fmt: skip
    assert ways.channels == ("street", "arterial")
    assert not {"coverage", "green"} & (set(ways.realism.measures) | set(ways.obedience))
    assert "street_density" in ways.realism.measures
    assert "judged in the channels street, arterial" in (ways.folder / PAGE).read_text(encoding="utf-8")
    assert len(list((out / "fine" / "parts").iterdir())) == 2
    assert ways.embedding != coarsely.embedding


@pytest.mark.slow
def test_a_resolution_that_the_places_do_not_have_is_refused_before_anything_is_drawn(fine, cities, tmp_path):
    with pytest.raises(DataError, match=r"no level of this resolution(.|\n)*16"):
        evaluate(fine, data=cities, out=tmp_path, resolution_m=16, **SMALL)
    assert not any(tmp_path.iterdir())


def test_windows_of_the_view_are_those_of_training_in_larger_cells(fine):
    trained_on = TrainedOn.of(fine)
    assert View.of(fine.spec).show_windows(trained_on) is trained_on
    seen = View.of(fine.spec, resolution_m=8).show_windows(trained_on)
    assert (seen.rules.size_px, seen.rules.resolution_m, seen.spec.size_px) == (8, 8.0, 8)
    assert seen.seed == trained_on.seed
