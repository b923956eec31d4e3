"""Laws of the lengths that are drawn before the ways."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from citygrain.measures import MEASURES
from citygrain.models.length_budget import LengthBudget, meet_requests
from citygrain.spec import Conditions, LayoutSpec

LENGTHS = ("street_density", "arterial", "service", "cycle", "walk", "rail")
SHARES = ("car_share", "cycle_share", "walk_share", "rail_share")
OF_MODE = dict(zip(SHARES, ("street_density", "cycle", "walk", "rail"), strict=True))
CHANNELS = ("arterial", "street", "service", "rail", "cycle", "walk")
SPEC = LayoutSpec(CHANNELS, 64, 8.0, scalars=LENGTHS + SHARES, places=("here", "there", "nowhere"))


def windows(count=40, seed=0):
    """Conditions of windows: those of `there` are twice as dense, and know no rails; nobody knows `nowhere`."""
    random = np.random.default_rng(seed)
    values = random.uniform(0.5, 10, (count, 6))
    place = np.arange(count) % 2
    values *= 1 + place[:, None]
    values[:, 0] += values[:, 1]
    modes = values[:, [0, 3, 4, 5]]
    asked = Conditions.request(SPEC, count, {})
    scalars = torch.from_numpy(np.column_stack([values, modes / modes.sum(1, keepdims=True)])).float()
    present = torch.ones(count, len(SPEC.scalars), dtype=torch.bool)
    present[torch.from_numpy(place == 1)] &= torch.tensor([name not in {"rail", *SHARES} for name in SPEC.scalars])
    asked.scalars[:], asked.present[:], asked.place[:] = scalars, present, torch.from_numpy(place)
    return asked


@pytest.fixture(scope="module")
def budget():
    made = LengthBudget(SPEC, LENGTHS)
    made.measure_conditions(windows())
    return made


def ask(count, **asked):
    return Conditions.request(SPEC, count, asked)


def column(conditions, name):
    return conditions.scalars[:, SPEC.scalars.index(name)].numpy()


def test_all_lengths_that_a_place_knows_are_asked_for_and_no_more(budget):
    drawn = budget.draw_lengths(ask(3, place="here"), torch.rand(3))
    assert drawn.present.tolist() == [[True] * 6 + [False] * 4] * 3
    drawn = budget.draw_lengths(ask(3, place="there"), torch.rand(3))
    assert drawn.present.tolist() == [[True] * 5 + [False] * 5] * 3
    asked = ask(3, place="nowhere")
    assert budget.draw_lengths(asked, torch.rand(3)).present.equal(asked.present)


def test_a_length_that_no_window_knows_stays_open_and_says_nothing(recwarn):
    none = windows()
    none.present[:, SPEC.scalars.index("rail")] = False
    made = LengthBudget(SPEC, LENGTHS)
    assert made.draw_lengths(ask(2, walk=3.0), torch.rand(2)).present.sum() == 2, "nothing was measured yet"
    made.measure_conditions(none)
    drawn = made.draw_lengths(ask(2, place="here", walk=3.0), torch.rand(2))
    assert drawn.present[:, :6].tolist() == [[True] * 5 + [False]] * 2
    assert not recwarn.list


def test_lengths_go_together_as_in_one_window_of_the_place_and_each_window_is_as_likely(budget):
    numbers = (torch.arange(60) + 0.5) / 60
    drawn = budget.draw_lengths(ask(60, place="here"), numbers)
    of_place = windows().scalars[::2, :6].numpy()
    found = [np.flatnonzero((np.abs(of_place - row) < 1e-5).all(1)) for row in drawn.scalars[:, :6].numpy()]
    assert all(len(rows) == 1 for rows in found)
    assert np.bincount(np.concatenate(found), minlength=20).tolist() == [3] * 20


def test_without_a_place_windows_of_all_places_are_drawn(budget):
    drawn = budget.draw_lengths(ask(40), (torch.arange(40) + 0.5) / 40)
    assert drawn.present[:, :5].all()
    assert drawn.present[:, 5].sum() == 20


def test_what_is_asked_for_stays_and_the_rest_is_that_of_windows_like_it(budget):
    like = windows().scalars[4]
    asked = ask(100, place="here", street_density=float(like[0]), walk=float(like[4]))
    drawn = budget.draw_lengths(asked, (torch.arange(100) + 0.5) / 100)
    assert column(drawn, "street_density") == pytest.approx(float(like[0]))
    assert column(drawn, "walk") == pytest.approx(float(like[4]))
    near = np.abs(column(drawn, "service") - float(like[2])) < 1e-4
    assert near.mean() > 0.25  # one window of twenty


lengths = st.fixed_dictionaries({name: st.floats(0.01, 30) for name in LENGTHS})


@given(lengths, st.dictionaries(st.sampled_from(SHARES), st.floats(0, 0.24), min_size=1))
def test_shares_of_modes_are_met_whatever_lengths_were_drawn(drawn, shares):
    drawn["street_density"] += drawn["arterial"]
    if len(shares) == 4:
        shares[SHARES[0]] = 1 - sum(shares[name] for name in SHARES[1:])
    met = meet_requests(drawn, shares)
    total = sum(met[length] for length in OF_MODE.values())
    assert {name: met[OF_MODE[name]] / total for name in shares} == pytest.approx(shares, abs=1e-9)
    assert met["arterial"] <= met["street_density"]
    if len(shares) < 4:
        assert total == pytest.approx(sum(drawn[length] for length in OF_MODE.values()))


@given(lengths, st.sampled_from(SHARES), st.floats(0.05, 0.9), st.sampled_from(LENGTHS), st.floats(0.5, 20))
def test_a_share_is_met_beside_a_length_that_is_asked_for(drawn, share, wanted, name, length):
    drawn["street_density"] += drawn["arterial"]
    met = meet_requests(drawn, {share: wanted, name: length})
    assert met[name] == length
    assert met["arterial"] <= met["street_density"]
    if name != "arterial":  # arterials longer than all streets lengthen these
        assert met[OF_MODE[share]] / sum(met[of] for of in OF_MODE.values()) == pytest.approx(wanted)


@given(lengths, st.dictionaries(st.sampled_from(("street_density", "arterial")), st.floats(0.1, 20)))
def test_no_length_is_smaller_than_a_part_of_it_unless_both_are_asked_for(drawn, asked):
    met = meet_requests(drawn, asked)
    assert {name: met[name] for name in asked} == asked
    assert len(asked) == 2 or met["arterial"] <= met["street_density"]


def test_modes_are_measured_as_they_are_here():
    """The test above takes car, cycle, walk and rail to be all modes."""
    assert {name for name, of in MEASURES.items() if of.per} == set(SHARES)
