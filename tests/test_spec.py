import json
import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from citygrain.errors import ConditionError, DataError
from citygrain.geo.layers import RASTER_FORMAT
from citygrain.spec import ALL_PLACES, NO_PLACE, PERCENTILES, Conditions, LayoutSpec, OutOfRangeWarning

RAMP = tuple(float(p) for p in range(PERCENTILES))  # percentile p has the value p


def make_spec(**changes):
    return LayoutSpec(
        **{
            "channels": ("building", "street"),
            "size_px": 16,
            "resolution_m": 8.0,
            "scalars": ("coverage", "cycle"),
            "maps": ("green",),
            "map_px": 4,
            "places": ("here", "there"),
            "statistics": {
                "coverage": {ALL_PLACES: RAMP, "there": tuple(2 * v for v in RAMP)},
                "cycle": {ALL_PLACES: tuple(v / 100 for v in RAMP)},
            },
            **changes,
        }
    )


SPEC = make_spec()


def test_a_spec_goes_through_json_and_back():
    assert LayoutSpec.from_dict(json.loads(json.dumps(SPEC.to_dict()))) == SPEC
    assert SPEC.shape == (2, 16, 16)
    assert SPEC.extent_m == 128


def test_given_channels_travel_with_the_spec_and_older_specs_have_none():
    taking = make_spec(given=("street",))
    assert LayoutSpec.from_dict(json.loads(json.dumps(taking.to_dict()))) == taking
    older = SPEC.to_dict()
    older.pop("given")
    assert LayoutSpec.from_dict(older).given == ()


def test_a_plain_spec_shares_nothing_with_the_spec():
    plain = SPEC.to_dict()
    plain["statistics"]["coverage"][ALL_PLACES][0] = 7.0
    plain["channels"].append("moss")
    assert make_spec() == SPEC


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"channels": ()}, "at least one channel"),
        ({"size_px": 0}, "positive size"),
        ({"resolution_m": 0.0}, "positive resolution"),
        ({"resolution_m": math.nan}, "positive resolution"),
        ({"channels": ("street", "street")}, "channels twice"),
        ({"scalars": ("cycle", "cycle")}, "scalars twice"),
        ({"places": ("here", "here")}, "places twice"),
        ({"given": ("street", "street")}, "given twice"),
        ({"given": ("metro",)}, "given channel is not a channel"),
        ({"maps": ()}, "go together"),
        ({"map_px": 0}, "go together"),
        ({"statistics": {"cycle": {ALL_PLACES: RAMP[:-1]}}}, "damaged"),
    ],
)
def test_specs_that_make_no_sense_are_refused(changes, words):
    with pytest.raises(DataError, match=words):
        make_spec(**changes)


def test_unknown_keys_of_a_plain_spec_are_refused_with_the_nearest():
    with pytest.raises(DataError, match="size_px"):
        LayoutSpec.from_dict({**SPEC.to_dict(), "size": 3})


@given(st.floats(0, 100))
def test_percentiles_are_interpolated(percentile):
    assert SPEC.quantile("coverage", percentile) == pytest.approx(percentile)
    assert SPEC.quantile("coverage", percentile, "there") == pytest.approx(2 * percentile)


def test_percentiles_without_statistics_are_refused_with_the_places_that_have_some():
    with pytest.raises(ConditionError, match="choices:  all\n"):
        SPEC.quantile("cycle", 50, "here")
    with pytest.raises(ConditionError, match="physical units"):
        SPEC.quantile("green", 50)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(40, 40.0), (0.4, 0.4), ("40", 40.0), (" 4e1 ", 40.0), ("p40", 40.0), ("P40", 40.0), ("p 2.5", 2.5), ("p0", 0.0)],
)
def test_a_condition_is_a_number_or_a_percentile(value, expected):
    asked = Conditions.request(SPEC, 3, {"coverage": value})
    assert asked.scalars[:, 0].tolist() == pytest.approx([expected] * 3)
    assert asked.present.tolist() == [[True, False]] * 3


def test_percentiles_are_of_the_place_that_is_asked_for():
    asked = Conditions.request(SPEC, 1, {"coverage": "p40", "place": "there"})
    assert asked.scalars[0, 0] == 80
    assert asked.place.tolist() == [1]


@pytest.mark.parametrize(
    "value", ["much", "p", "p101", "p-1", "pnan", "nan", "inf", math.nan, math.inf, "", "10%", True]
)
def test_what_is_no_number_is_refused(value):
    with pytest.raises(ConditionError, match="not a number"):
        Conditions.request(SPEC, 1, {"coverage": value})


@pytest.mark.parametrize("value", [[math.nan, 1.0], [math.inf, 1.0]])
def test_tensors_of_no_numbers_are_refused(value):
    with pytest.raises(ConditionError):
        Conditions.request(SPEC, 2, {"coverage": torch.tensor(value)})
    with pytest.raises(ConditionError):
        Conditions.request(SPEC, 2, {"green": torch.full((4, 4), value[0])})


def test_what_is_not_asked_for_is_absent_and_not_zero():
    asked = Conditions.request(SPEC, 2, {"coverage": None, "cycle": 0.0})
    assert asked.present.tolist() == [[False, True]] * 2
    assert asked.place.tolist() == [NO_PLACE] * 2
    assert not asked.maps_present.any()
    nothing = Conditions.request(SPEC, 2, {})
    assert not nothing.present.any()


def test_one_number_a_layout_and_maps():
    green = torch.rand(4, 4)
    asked = Conditions.request(SPEC, 3, {"coverage": torch.tensor([1.0, 2.0, 3.0]), "green": green})
    assert asked.scalars[:, 0].tolist() == [1, 2, 3]
    assert torch.equal(asked.maps, green.expand(3, 1, 4, 4))
    assert asked.maps_present.all()
    each = torch.rand(3, 4, 4)
    assert torch.equal(Conditions.request(SPEC, 3, {"green": each}).maps[:, 0], each)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"coverag": 1}, "did you mean: coverage"),
        ({"place": "her"}, "did you mean: here"),
        ({"gren": torch.zeros(4, 4)}, "did you mean: green"),
        ({"green": torch.zeros(5, 4)}, "wrong shape"),
        ({"green": torch.zeros(3, 4, 4)}, "wrong shape"),
        ({"green": torch.zeros(1, 1, 4, 4)}, "wrong shape"),
        ({"coverage": torch.zeros(3)}, "wrong shape"),
    ],
)
def test_unknown_names_and_wrong_shapes_are_refused(asked, words):
    with pytest.raises(ConditionError, match=words):
        Conditions.request(SPEC, 2, asked)


@pytest.mark.parametrize("value", [-0.1, 100.1, torch.tensor([50.0, 101.0])])
def test_values_outside_the_range_seen_warn_with_the_range(value):
    with pytest.warns(OutOfRangeWarning, match="training saw 0 to 100"):
        Conditions.request(SPEC, 2, {"coverage": value})


@pytest.mark.parametrize("value", [0, 100, "p100", "p0"])
def test_values_at_the_ends_of_the_range_do_not_warn(value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Conditions.request(SPEC, 1, {"coverage": value})
        Conditions.request(make_spec(statistics={}), 1, {"coverage": 1e9})


def full(batch):
    return Conditions(
        scalars=torch.ones(batch, 2),
        present=torch.ones(batch, 2, dtype=torch.bool),
        place=torch.ones(batch, dtype=torch.int64),
        maps=torch.ones(batch, 1, 4, 4),
        maps_present=torch.ones(batch, 1, dtype=torch.bool),
        given=torch.ones(batch, 1, 2, 2),
        given_present=torch.ones(batch, dtype=torch.bool),
    )


def test_dropping_has_the_stated_probabilities():
    n, everything = 40_000, 0.2
    dropped = full(n).drop(everything, torch.Generator().manual_seed(0))
    kept = torch.cat([dropped.present, dropped.maps_present, (dropped.place != NO_PLACE)[:, None]], 1)
    assert kept.float().mean(0).tolist() == pytest.approx([(1 - everything) / 2] * 4, abs=0.01)
    measures = kept[:, :3].sum(1)  # none to all of them equally often, among samples that keep anything
    counts = torch.bincount(measures, minlength=4) / n
    assert counts.tolist() == pytest.approx([everything + (1 - everything) / 4, *[(1 - everything) / 4] * 3], abs=0.01)
    nothing = (~kept).all(1).float().mean()
    assert float(nothing) == pytest.approx(everything + (1 - everything) / 4 / 2, abs=0.01)


def test_dropping_never_brings_back_and_leaves_values_alone():
    partly = full(50)
    partly.present[::2] = False
    partly.place[::2] = NO_PLACE
    dropped = partly.drop(0.0)
    assert not (dropped.present & ~partly.present).any()
    assert (dropped.place[::2] == NO_PLACE).all()
    gone = partly.drop(1.0)
    assert not gone.present.any()
    assert not gone.maps_present.any()
    assert (gone.place == NO_PLACE).all()
    assert torch.equal(gone.scalars, partly.scalars)
    assert torch.equal(gone.given, partly.given)
    assert gone.given_present.all()
    assert partly.present.any()


def test_dropping_repeats_with_the_generator():
    first, second = (full(20).drop(0.2, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first.present, second.present)


def test_absent_repeat_cat_and_index():
    asked = Conditions.request(SPEC, 2, {"coverage": torch.tensor([1.0, 2.0]), "place": "here"})
    absent = asked.absent()
    assert len(absent) == 2
    assert not absent.present.any()
    assert (absent.place == NO_PLACE).all()
    assert absent.maps.shape == asked.maps.shape
    repeated = asked.repeat(2)
    assert repeated.scalars[:, 0].tolist() == [1, 2, 1, 2]
    joined = Conditions.cat([asked, absent])
    assert joined.present[:, 0].tolist() == [True, True, False, False]
    assert joined[1:3].scalars[:, 0].tolist() == [2, 0]
    assert joined[torch.tensor([3, 0])].place.tolist() == [NO_PLACE, 0]
    moved = asked.to("meta")
    assert moved.scalars.device.type == moved.maps_present.device.type == "meta"


def test_a_plain_spec_that_does_not_say_its_format_is_of_the_first():
    spec = LayoutSpec(("building", "street"), 8, 8.0)
    assert spec.raster_format == RASTER_FORMAT
    plain = spec.to_dict()
    assert LayoutSpec.from_dict(plain) == spec
    del plain["raster_format"]
    assert LayoutSpec.from_dict(plain).raster_format == 1
    with pytest.raises(DataError, match="raster_format 1 to"):
        LayoutSpec(("building",), 8, 8.0, raster_format=RASTER_FORMAT + 1)
