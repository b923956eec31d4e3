import numpy as np
import torch

from citygrain.conditions import mappable, measurable, measure, measure_maps
from citygrain.data.transforms import SYMMETRIES, RawBatch, to_batch, turn
from citygrain.geo.layers import CHANNEL_NAMES
from citygrain.spec import LayoutSpec


def test_the_eight_symmetries_are_the_group_of_the_square():
    square = torch.arange(9).reshape(3, 3)
    turned = {tuple(turn(square, k).flatten().tolist()) for k in range(SYMMETRIES)}
    assert len(turned) == SYMMETRIES
    assert torch.equal(turn(square, 0), square)
    again = {tuple(turn(turn(square, a), b).flatten().tolist()) for a in range(SYMMETRIES) for b in range(SYMMETRIES)}
    assert again == turned
    assert all(turn(square, k)[1, 1] == 4 for k in range(SYMMETRIES))
    assert {int(turn(square, k)[0, 0]) for k in range(SYMMETRIES)} == {0, 2, 6, 8}


def test_arrays_turn_as_tensors_do():
    layouts = np.random.default_rng(0).random((2, 3, 5, 5))
    for k in range(SYMMETRIES):
        np.testing.assert_array_equal(turn(layouts, k), turn(torch.from_numpy(layouts), k).numpy())


def raw_batch(batch=3, size=32):
    generator = torch.Generator().manual_seed(0)
    layout = torch.randint(0, 256, (batch, len(CHANNEL_NAMES), size, size), generator=generator, dtype=torch.uint8)
    zeros = torch.zeros(batch, dtype=torch.int64)
    return RawBatch(layout, torch.arange(batch), zeros, zeros, zeros)


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
