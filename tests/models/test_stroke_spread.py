"""Laws of what the network is told about how strokes are spread over a window."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from citygrain.geo.stroke_code import StrokeCode
from citygrain.networks.stroke_network import StrokeNetwork
from citygrain.networks.stroke_spread import CELLS, SPREAD, add_up_lengths, describe_spread

CODE = StrokeCode()
SIZE = 2 * CODE.reach + 1
EDGE = SIZE / CELLS
positions = arrays.arrays(np.int64, st.tuples(st.integers(1, 20), st.just(2)), elements=st.integers(0, SIZE - 1))


@given(positions, st.integers(1, 5), st.integers(0, 5))
def test_all_lengths_are_somewhere_and_those_of_each_group_in_its_own_map(xy, each, kind):
    stroke = np.arange(len(xy)) // each
    kinds = (stroke + kind) % len(CODE.kinds)
    lengths = add_up_lengths(CODE, xy, stroke, kinds)
    run = np.hypot(*np.diff(xy, axis=0, prepend=xy[:1]).T) * (np.diff(stroke, prepend=0) == 0)
    driven = np.isin(kinds, [CODE.kinds.index(name) for name in ("arterial", "street", "service")])
    for number, of in enumerate((driven, ~driven)):
        found = lengths[:, number * CELLS**2 : (number + 1) * CELLS**2].sum(1) * EDGE
        assert found == pytest.approx((run * of).cumsum(), rel=1e-4, abs=1e-3)


def test_a_line_lies_on_the_cells_that_it_crosses_by_x_then_y():
    line = np.array([[round(2.5 * EDGE), round(7.5 * EDGE)], [round(5.5 * EDGE), round(7.5 * EDGE)]])
    cells = add_up_lengths(CODE, line, np.zeros(2, int), np.zeros(2, int))[1][: CELLS**2].reshape(CELLS, CELLS)
    assert cells[2:6, 7] == pytest.approx([0.5, 1, 1, 0.5], abs=0.1)
    cells[2:6, 7] = 0
    assert not cells.any()


@pytest.mark.parametrize("bearing", [0, 17, 45])
def test_the_window_has_its_area_at_every_bearing(bearing):
    told = describe_spread(CODE, bearing, np.zeros((1, 2 * CELLS**2), np.float32))[0]
    assert told.shape == (SPREAD,)
    assert not told[: 2 * CELLS**2].any()
    inside = told[2 * CELLS**2 :].sum() * (EDGE * CODE.grid_m) ** 2
    assert inside == pytest.approx(CODE.extent_m**2, rel=0.03)


def test_a_network_hears_it_only_if_it_is_made_so():
    torch.manual_seed(0)
    shape = {"ops": 5, "positions": 9, "sections": 3, "state": 4, "embedding": 8, "width": 16, "depth": 1, "head": 8}
    assert StrokeNetwork(**shape).spread is None
    network = StrokeNetwork(**shape, spread=True)
    assert network.spread.in_features == SPREAD
