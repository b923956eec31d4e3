import math

import numpy as np
import pytest
import torch

from citygrain.data.transforms import INVERSE, SYMMETRIES, RawBatch, cut_out, to_batch, turn
from citygrain.geo.layers import CHANNEL_NAMES
from citygrain.measures import mappable, measurable, measure, measure_maps
from citygrain.spec import LayoutSpec


def test_the_eight_symmetries_are_the_group_of_the_square():
    square = torch.arange(9).reshape(3, 3)
    turned = {tuple(turn(square, k).flatten().tolist()) for k in range(SYMMETRIES)}
    assert len(turned) == SYMMETRIES
    assert torch.equal(turn(square, 0), square)
    again = {tuple(turn(turn(square, a), b).flatten().tolist()) for a in range(SYMMETRIES) for b in range(SYMMETRIES)}
    assert again == turned
    assert all(turn(square, k)[1, 1] == 4 for k in range(SYMMETRIES))
    assert all(torch.equal(turn(turn(square, k), INVERSE[k]), square) for k in range(SYMMETRIES))
    assert {int(turn(square, k)[0, 0]) for k in range(SYMMETRIES)} == {0, 2, 6, 8}


def test_arrays_turn_as_tensors_do():
    layouts = np.random.default_rng(0).random((2, 3, 5, 5))
    for k in range(SYMMETRIES):
        np.testing.assert_array_equal(turn(layouts, k), turn(torch.from_numpy(layouts), k).numpy())


def raw_batch(batch=3, size=32):
    generator = torch.Generator().manual_seed(0)
    layout = torch.randint(0, 256, (batch, len(CHANNEL_NAMES), size, size), generator=generator, dtype=torch.uint8)
    zeros = torch.zeros(batch, dtype=torch.int64)
    noise = torch.empty(batch, 0, size, size)
    return RawBatch(layout, torch.arange(batch), zeros, zeros, zeros, torch.ones(batch), torch.zeros(batch), noise)


def test_a_batch_holds_layouts_and_their_own_measures_in_the_order_of_the_spec():
    raw = raw_batch()
    spec = LayoutSpec(
        CHANNEL_NAMES, 32, 8.0,
        scalars=tuple(reversed(measurable(CHANNEL_NAMES))),
        maps=tuple(reversed(mappable(CHANNEL_NAMES))), map_px=4, places=("a", "b", "c"),
    )  # fmt: skip
    layout, conditions = to_batch(raw, spec)
    assert layout.dtype == torch.float32
    assert torch.equal((layout * 255).round().to(torch.uint8), raw.layout)
    assert float(layout.min()) == 0
    assert float(layout.max()) == 1
    values, maps = measure(layout, CHANNEL_NAMES, 8.0), measure_maps(layout, CHANNEL_NAMES, 8.0, 4)
    for column, name in enumerate(spec.scalars):
        assert torch.equal(conditions.scalars[:, column], values[name]), name
    for column, name in enumerate(spec.maps):
        assert torch.equal(conditions.maps[:, column], maps[name]), name
    assert conditions.present.all()
    assert conditions.maps_present.all()
    assert conditions.place.tolist() == [0, 1, 2]


def test_a_spec_without_conditions_makes_batches_without():
    batch = to_batch(raw_batch(), LayoutSpec(CHANNEL_NAMES, 32, 8.0))
    assert batch.conditions.scalars.shape == (3, 0)
    assert batch.conditions.maps.shape == (3, 0, 0, 0)


def test_conditions_are_measured_before_noise_on_what_was_cut_out():
    raw = raw_batch(size=48)
    raw = raw._replace(
        extent=torch.tensor([0.4, 0.5, 0.6]),
        angle=torch.tensor([0.0, -0.3, 0.5]),
        noise=torch.randn(3, len(CHANNEL_NAMES), 32, 32),
    )
    spec = LayoutSpec(CHANNEL_NAMES, 32, 8.0, scalars=measurable(CHANNEL_NAMES), places=("a", "b", "c"))
    seen = cut_out(raw.layout / 255, 32, raw.extent, raw.angle)
    layout, conditions = to_batch(raw, spec)
    assert torch.equal(layout, (seen + raw.noise).clamp(0, 1))
    for column, (name, values) in enumerate(measure(seen, CHANNEL_NAMES, 8.0).items()):
        assert torch.equal(conditions.scalars[:, column], values), name


EXTENTS = torch.tensor([0.3, 0.45, 0.6, 0.7, 0.5])
ANGLES = torch.tensor([0.0, 0.3, -0.2, 0.05, math.pi / 4])


@pytest.mark.parametrize("size_px", [16, 32, 48])
def test_a_slope_is_cut_out_as_it_is(size_px):
    """Interpolation and means of a plane are exact, so every cell must hold the plane's height at its own middle."""
    middles = (torch.arange(48) + 0.5) / 48 - 0.5
    squares = torch.stack([middles.expand(48, 48), middles[:, None].expand(48, 48)]) + 0.5
    got = cut_out(squares.expand(len(EXTENTS), 2, 48, 48), size_px, EXTENTS, ANGLES)
    at = (torch.arange(size_px) + 0.5) / size_px - 0.5
    down, right = torch.meshgrid(at, at, indexing="ij")
    for window, extent, angle in zip(got, EXTENTS, ANGLES, strict=True):
        col = extent * (right * angle.cos() - down * angle.sin())
        row = extent * (right * angle.sin() + down * angle.cos())
        torch.testing.assert_close(window, torch.stack([col, row]) + 0.5, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size_px", [32, 64])
@pytest.mark.parametrize("width", [1, 2, 5])
def test_a_street_keeps_its_width_times_the_zoom(size_px, width):
    squares = torch.zeros(len(EXTENTS), 1, 128, 128)
    squares[..., 60 : 60 + width] = 1
    got = cut_out(squares, size_px, EXTENTS, ANGLES)[:, 0]
    for window, extent, angle in zip(got, EXTENTS, ANGLES, strict=True):
        cells = width * size_px / (128 * extent * angle.cos())  # a row crosses a turned street at that angle
        across = window[size_px // 4 : -size_px // 4].sum(1)
        assert across.mean() == pytest.approx(float(cells), rel=0.01)
        assert across == pytest.approx(float(cells), rel=0.2)


def test_nothing_turned_to_nothing_is_what_it_was():
    layout = raw_batch().layout / 255
    assert torch.equal(cut_out(layout, 32, torch.ones(3), torch.zeros(3)), layout)
