"""Areas and known parts, over the families that can."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import families
from citygrain.data.transforms import measure_condition_maps
from citygrain.errors import CapabilityError, ConditionError, DataError
from citygrain.generation.area import draw_area, make_requests
from citygrain.generation.fields import measure_fields
from citygrain.measures import measure, measure_maps
from citygrain.protocols import Known
from citygrain.samplers.areas import Tiling
from citygrain.samplers.diffusion import DpmSolver, Heun
from citygrain.samplers.gibbs import Gibbs
from citygrain.samplers.tokens import MaskedTokens
from citygrain.spec import LayoutSpec

SPEC = LayoutSpec(
    ("building", "walk", "green"), 8, 8.0, scalars=("coverage", "walk", "frontage"), maps=("coverage",),
    map_px=4,
)  # fmt: skip


def known_of(shape, free, seed=0, spec=SPEC):
    layout = torch.rand(1, len(spec.channels), *shape, generator=torch.Generator().manual_seed(seed))
    keep = torch.ones_like(layout, dtype=torch.bool)
    keep[:, :, free[0], free[1]] = False
    return Known(layout, keep)


def diffusion(codec=" in variational_autoencoder"):
    return families.make(f"diffusion{codec}").eval()


def test_windows_are_asked_for_what_makes_up_the_wish_with_what_is_kept():
    cells = Tiling.cover(12, 20, 8)
    known = known_of((12, 20), (slice(2, 9), slice(5, 18)))
    wished = {"coverage": 0.5, "walk": torch.rand(12, 20) * 10}
    asked = make_requests(SPEC, cells, wished, known)
    assert len(asked) == len(cells)
    assert asked.present[:, :2].all()
    assert not asked.present[:, 2].any()
    # A layout that fulfils the wish exactly on the free cells measures what is asked for, in every window.
    layout = known.layout.clone()
    free = ~known.keep[0, 0]
    layout[0, 0][free] = 0.5
    layout[0, 1][free] = wished["walk"][free] * 3 / 1000
    windows = cells.cut(layout, range(len(cells)))
    found = measure(windows, SPEC.channels, SPEC.resolution_m)
    assert asked.scalars[:, 0].allclose(found["coverage"], atol=1e-5)
    assert asked.scalars[:, 1].allclose(found["walk"], rtol=1e-4)
    pooled = torch.nn.functional.avg_pool2d(windows[:, 0], 2)
    assert asked.maps[:, 0].allclose(pooled, atol=1e-5)


def test_what_one_model_has_drawn_is_asked_of_another_as_its_maps():
    """By window, or over an area: both are the same request."""
    layout = torch.rand(1, 3, 12, 20)
    spec = replace(SPEC, maps=("coverage", "walk"))
    cells = Tiling.cover(12, 20, 8)
    asked = make_requests(spec, cells, measure_fields(layout[0], spec))
    windows = cells.cut(layout, range(len(cells)))
    assert asked.maps.allclose(measure_condition_maps(windows, spec), rtol=1e-4)
    assert asked.maps_present.all()
    assert asked.maps[2, 1].allclose(measure_maps(windows[2], spec.channels, 8.0, 4)["walk"], rtol=1e-4)
    assert measure_condition_maps(windows, replace(spec, maps=(), map_px=0)).shape == (len(cells), 0, 0, 0)


def test_what_is_not_linear_is_asked_of_whole_windows_and_nothing_where_nothing_is_painted():
    cells = Tiling.cover(8, 16, 8, overlap=0)
    painted = torch.full((8, 16), 0.4)
    painted[:, 12:] = torch.nan
    asked = make_requests(SPEC, cells, {"frontage": painted, "coverage": painted})
    assert asked.scalars[0].tolist() == pytest.approx([0.4, 0, 0.4])
    assert asked.present.tolist() == [[True, False, True], [False, False, False]]


@pytest.mark.parametrize("codec", [pytest.param(" in variational_autoencoder", marks=pytest.mark.slow), ""])
def test_an_area_is_what_is_known_of_it_bit_by_bit_and_does_not_look_at_the_rest(codec):
    model = diffusion(codec)
    shape, free = (24, 33), (slice(6, 19), slice(9, 30))  # no multiple of a code's cell
    known = known_of(shape, free, spec=model.spec)
    steps = {"sampler": DpmSolver(3), "seed": 4}
    drawn = draw_area(model, shape, {"coverage": 0.3}, known=known, **steps)
    assert drawn.shape == (3, *shape)
    as_bytes = (known.layout[0] * 255).round().byte()
    assert torch.equal(drawn[known.keep[0]], as_bytes[known.keep[0]])
    assert (drawn != as_bytes)[~known.keep[0]].float().mean() > 0.9
    other = Known(torch.where(known.keep, known.layout, 1 - known.layout), known.keep)
    again = draw_area(model, shape, {"coverage": 0.3}, known=other, **steps)
    # What is not kept is unknown; but for the cells of the code that lie across the edge nothing of it is seen.
    assert (again.int() - drawn.int()).abs().float().mean() < 1
    assert torch.equal(draw_area(model, shape, {"coverage": 0.3}, known=known, **steps), drawn)
    assert not torch.equal(draw_area(model, shape, {"coverage": 0.3}, known=known, **{**steps, "seed": 5}), drawn)


def test_channels_may_be_kept_on_their_own():
    model = diffusion()
    known = known_of((16, 16), (slice(0, 16), slice(0, 16)), spec=model.spec)
    known.keep[:, 1] = True
    drawn = draw_area(model, (16, 16), {}, known=known, sampler=Heun(2), strength=0.6)
    assert torch.equal(drawn[1], (known.layout[0, 1] * 255).round().byte())
    assert not torch.equal(drawn[0], (known.layout[0, 0] * 255).round().byte())


def test_a_window_of_an_area_is_a_window():
    model = diffusion("")
    sampler = DpmSolver(3)
    drawn = draw_area(model, (16, 16), {"coverage": 0.3}, seed=9, sampler=sampler)
    from citygrain.generation.windows import draw
    from citygrain.spec import Conditions

    window = draw(model, Conditions.request(model.spec, 1, {"coverage": 0.3}), [9], sampler=sampler).shares[0]
    assert (torch.from_numpy(window * 255).round() - drawn).abs().max() <= 1


def test_what_cannot_be_is_refused_in_words():
    model = diffusion("")
    with pytest.raises(DataError, match="smaller than a window"):
        draw_area(model, (12, 40), {})
    with pytest.raises(DataError, match="another shape"):
        draw_area(model, (16, 20), {}, known=known_of((16, 16), (slice(2), slice(2))))
    with pytest.raises(ConditionError, match="does not know"):
        draw_area(model, (16, 16), {"cycle": 3.0})
    with pytest.raises(ConditionError, match="shape"):
        draw_area(model, (16, 16), {"coverage": torch.zeros(4, 4)})
    with pytest.raises(CapabilityError, match="diffusion"):
        draw_area(families.make("variational_autoencoder").eval(), (16, 32), {})
    with pytest.raises(CapabilityError, match="diffusion"):
        draw_area(families.make("pix2pix").eval(), (16, 16), {})
    part = known_of((16, 16), (slice(4, 12), slice(4, 12)))
    with pytest.raises(CapabilityError, match="DpmSolver, Euler, Heun"):
        draw_area(model, (16, 16), {}, known=part, sampler=Gibbs())
    with pytest.raises(CapabilityError, match="Gibbs"):
        draw_area(families.make("boltzmann_machine").eval(), (16, 16), {}, known=part, sampler=MaskedTokens())
    whole_cells = known_of((16, 16), (slice(16), slice(16)))
    whole_cells.keep[:, 0] = True
    with pytest.raises(CapabilityError, match="whole cells"):
        draw_area(families.make("masked_transformer in vector_quantized").eval(), (16, 16), {}, known=whole_cells)


def test_turns_cover_all_windows_and_each_goes_before_the_windows_that_lie_on_it():
    tiling = Tiling.cover(72, 56, 16)
    turns = tiling.list_turns()
    assert sorted(number for turn in turns for number in turn) == list(range(len(tiling)))
    when = {number: i for i, turn in enumerate(turns) for number in turn}

    def ground(number):
        cells = torch.zeros(72, 56, dtype=torch.bool)
        cells[tiling[number]] = True
        return cells

    for one in range(len(tiling)):
        for other in range(one):
            if (ground(one) & ground(other)).any():
                assert when[other] < when[one]
    assert len(turns) < len(tiling) / 2, "many windows are drawn at once"


@pytest.mark.parametrize(
    "name",
    [
        "masked_transformer in vector_quantized",
        "boltzmann_machine",
        "quilting",
        pytest.param("stroke_transformer", marks=pytest.mark.slow),
    ],
)
def test_a_family_that_keeps_parts_draws_areas_in_turn(name):
    model = families.make(name).eval()
    drawn = draw_area(model, (24, 40), {"coverage": 0.4}, seed=1)
    assert drawn.shape == (3, 24, 40)
    assert torch.equal(drawn, draw_area(model, (24, 40), {"coverage": 0.4}, seed=1, batch_size=1))
    known = known_of((24, 40), (slice(4, 20), slice(4, 36)))
    redrawn = draw_area(model, (24, 40), {"coverage": 0.4}, known=known, seed=1)
    assert torch.equal(redrawn[known.keep[0]], (known.layout * 255).round().byte()[known.keep])
    assert not torch.equal(redrawn, drawn)
    with pytest.raises(CapabilityError, match="no variations"):
        draw_area(model, (24, 40), {}, known=known, strength=0.5)
