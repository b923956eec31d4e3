"""Laws of diffusion around given channels, of learning on crops, and of densities."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

import families
from citygrain.errors import CapabilityError, ConditionError, ConfigError, DataError
from citygrain.generation.area import draw_area
from citygrain.measures import measure, measure_maps
from citygrain.models.cell_diffusion import CellDiffusion
from citygrain.models.density_diffusion import DensityDiffusion
from citygrain.models.diffusion import Diffusion
from citygrain.networks.unet import UNet
from citygrain.protocols import Known, Noise
from citygrain.samplers.diffusion import DpmSolver, Heun
from citygrain.samplers.feedback import _group_maps, move_to_maps, move_to_request
from citygrain.spec import Conditions, LayoutSpec

SPEC = families.spec()
KINDS = [CellDiffusion, Diffusion]
GIVEN, MADE = [2, 1], [0]


def model(kind=CellDiffusion, **settings):
    torch.manual_seed(0)
    network = partial(UNet, width=16, widths=[1, 2], blocks=1, attention=[])
    made = kind(SPEC, network=network, embedding=32, given=["green", "street"], **settings)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    made.measure_data(torch.rand(16, *SPEC.shape))
    return made.eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "sampler", [Heun(3), DpmSolver(4, guidance=1.7, tolerance=0.01, slack=0.3)], ids=["net", "all"]
)
def test_what_is_given_comes_back_exactly_whatever_draws_and_moves_the_rest(kind, sampler):
    drawing = model(kind)
    asked = families.requests(3, drawing.spec, coverage=0.7, green=0.9, place="here")
    drawn = drawing.sample(asked, noise=Noise(range(3)), sampler=sampler)
    assert torch.equal(drawn[:, GIVEN], asked.given)
    assert drawn[:, MADE].std() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_moves_nothing_that_is_given(kind):
    drawing = model(kind)
    clean = drawing.read(0.2 + 0.6 * torch.rand(2, *SPEC.shape))
    asked = families.requests(2, drawing.spec, coverage=0.6, green=0.9)
    moved = move_to_request(drawing, clean, 1.0, asked, 1e-3, slack=0.5)
    assert torch.equal(moved[:, GIVEN], clean[:, GIVEN])
    found = measure(drawing.to_layout(moved), SPEC.channels, SPEC.resolution_m)["coverage"]
    assert found.sub(0.6).abs().max() < 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_an_estimate_shows_what_is_given_and_sees_it_without_noise(kind):
    drawing = model(kind)
    asked = families.requests(2, drawing.spec, coverage=0.6)
    x, level = torch.randn(2, *drawing.latent_shape), torch.full((2,), 3.0)
    clean = drawing.denoise(x, level, asked)
    layout = drawing.to_layout(clean)
    assert layout[:, GIVEN].allclose(asked.given, atol=1e-6)
    noisier = x.clone()
    noisier[:, GIVEN] += 50 * torch.randn(2, 2, 16, 16)
    assert torch.equal(drawing.denoise(noisier, level, asked), clean)
    other = replace(asked, given=asked.given.flip(-1))
    assert not torch.allclose(drawing.denoise(x, level, other)[:, MADE], clean[:, MADE], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_counts_what_is_made_and_gives_no_noise_to_what_is_given(kind, monkeypatch):
    drawing, layouts = model(kind), torch.rand(4, *SPEC.shape)
    nothing = Conditions.empty(drawing.spec, 4)

    def loss(louder, lost=0.0):
        def drowned(like):
            torch.manual_seed(2)
            noise = torch.randn(like.shape)
            noise[:, GIVEN] *= louder
            return noise

        torch.manual_seed(1)
        estimate = drawing.estimate

        def wrong(x, sigma, conditions):
            clean = estimate(x, sigma, conditions)
            clean[:, GIVEN] += lost
            return clean

        with monkeypatch.context() as patched:
            patched.setattr(torch, "randn_like", drowned)
            patched.setattr(drawing, "estimate", wrong)
            return drawing.loss(layouts, nothing)["loss"].item()

    assert loss(1.0) == loss(30.0)
    assert loss(1.0) == loss(1.0, lost=5.0)


def test_cells_that_are_given_are_known_for_certain():
    variance = model().variance(torch.zeros(2, *SPEC.shape))
    assert variance[:, GIVEN].eq(0).all()
    assert variance[:, MADE].eq(1).all()


@pytest.mark.parametrize("given", [["building", "street", "green"], ["metro"]])
def test_channels_that_cannot_be_given_are_refused(given):
    with pytest.raises(ConfigError, match="cannot be given"):
        CellDiffusion(SPEC, network=partial(UNet, width=16), given=given)


def test_the_code_of_a_codec_does_not_keep_channels_apart():
    codec = families.make("variational_autoencoder")
    with pytest.raises(ConfigError, match="cannot be told from made ones"):
        Diffusion(SPEC, network=partial(UNet, width=16), codec=codec, given=["street"])


@pytest.mark.parametrize("kind", KINDS)
def test_an_area_is_drawn_around_what_is_given_of_it(kind):
    drawing, shape = model(kind), (21, 34)
    streets = torch.rand(1, 2, *shape)
    drawn = draw_area(drawing, shape, {"coverage": 0.4}, given=streets, seed=3, sampler=DpmSolver(3))
    assert torch.equal(drawn[GIVEN], (streets[0] * 255).round().byte())
    other = draw_area(drawing, shape, {"coverage": 0.4}, given=streets.flip(-1), seed=3, sampler=DpmSolver(3))
    assert not torch.equal(other[MADE], drawn[MADE])
    window = streets[:, :, :16, :16]
    alone = draw_area(drawing, (16, 16), {"green": 0.4}, given=window, seed=3, sampler=DpmSolver(3))
    channels = dict(zip(drawing.spec.given, window.unbind(1), strict=True))
    asked = Conditions.request(drawing.spec, 1, {"green": 0.4}, channels)
    same = drawing.sample(asked, noise=Noise([3]), sampler=DpmSolver(3))
    assert (alone.int() - (same[0] * 255).round().int()).abs().max() <= 1, "a window of an area is a window"


def test_an_area_holds_noise_and_estimates_of_what_is_made_only(monkeypatch):
    drawing, held = model(), []
    plain = DpmSolver.walk

    def walk(self, clean, x, sigmas, noise):
        def seen(*args):
            held.append((args[0].shape[1], clean(*args)))
            return held[-1][1]

        return plain(self, seen, x, sigmas, noise)

    monkeypatch.setattr(DpmSolver, "walk", walk)
    streets = (torch.rand(1, 2, 24, 40) * 255).to(torch.uint8)
    drawn = draw_area(drawing, (24, 40), {"coverage": 0.4}, given=streets, sampler=DpmSolver(3))
    assert {(before, after.shape[1]) for before, after in held} == {(len(MADE), len(MADE))}
    assert torch.equal(drawn[GIVEN], streets[0])
    assert torch.equal(
        drawn, draw_area(drawing, (24, 40), {"coverage": 0.4}, given=streets / 255, sampler=DpmSolver(3))
    )


def test_an_area_needs_what_is_given_of_all_of_it():
    drawing = model()
    with pytest.raises(CapabilityError, match="draws windows around them"):
        draw_area(drawing, (16, 32), {})
    with pytest.raises(DataError, match=r"green, street"):
        draw_area(drawing, (16, 32), {}, given=torch.rand(1, 2, 16, 16))
    with pytest.raises(DataError, match="no channel is given"):
        draw_area(families.make("diffusion"), (16, 32), {}, given=torch.rand(1, 2, 16, 32))
    with pytest.raises(CapabilityError, match="draws windows around them"):
        draw_area(families.make("pix2pix"), (16, 16), {}, given=torch.rand(1, 1, 16, 16))
    with pytest.raises(ConditionError, match="none are given"):
        drawing.sample(Conditions.empty(drawing.spec, 1), noise=Noise([0]))


def numbered(count):
    """Layouts whose first channel counts the map cells of 4 × 4 cells, and maps that say the same."""
    number = torch.arange(16.0).view(4, 4) / 16
    layouts = torch.zeros(count, *SPEC.shape)
    layouts[:, 0] = number.repeat_interleave(4, 0).repeat_interleave(4, 1)
    asked = Conditions.request(SPEC, count, {"coverage": number, "green": torch.arange(count) / count})
    return layouts, asked


def test_crops_begin_with_cells_of_maps_and_keep_what_belongs_to_them():
    learning = model(crop_px=8, crops=20)
    layouts, asked = numbered(3)
    code, conditions = learning.crop(layouts, asked)
    assert code.shape == (60, 3, 8, 8)
    assert torch.equal(torch.nn.functional.avg_pool2d(code[:, :1], 4), conditions.maps)
    assert torch.equal(conditions.scalars, asked.scalars.repeat_interleave(20, 0))
    assert {*conditions.maps[:, 0, 0, 0].mul(16).tolist()} == {0, 1, 2, 4, 5, 6, 8, 9, 10}, "every corner occurs"
    whole, same = model().crop(layouts, asked)
    assert whole is layouts
    assert same is asked


class Alone(torch.nn.Module):
    """A network that looks at each cell by itself."""

    def __init__(self, in_channels, out_channels, embedding):
        super().__init__()
        self.cell = torch.nn.Conv2d(in_channels, out_channels, 1)
        self.all = torch.nn.Linear(embedding, out_channels)

    def forward(self, x, embedding):
        return self.cell(x) + self.all(embedding)[:, :, None, None]


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_of_crops_is_that_of_the_same_cells_in_their_windows(kind, monkeypatch):
    """For a network that sees no neighbours, and crops that together are the window."""
    torch.manual_seed(0)
    learning = kind(SPEC, network=Alone, embedding=8, given=["street"], crop_px=8, crops=4)
    layouts, asked = torch.rand(2, *SPEC.shape), families.some_conditions(2, learning.spec)
    monkeypatch.setattr(type(learning.schedule), "draw", lambda self, batch, device: torch.full((batch,), 0.7))
    monkeypatch.setattr(torch, "randn_like", lambda like: torch.full_like(like, 0.3))
    corners = torch.tensor([[0, 0], [0, 2], [2, 0], [2, 2]]).repeat(2, 1)
    monkeypatch.setattr(torch, "randint", lambda *_: corners)
    cropped = learning.loss(layouts, asked)["loss"]
    learning.crop_px = None
    assert cropped.item() == pytest.approx(learning.loss(layouts, asked)["loss"].item(), rel=1e-5)


@pytest.mark.parametrize("settings", [{"crop_px": 6}, {"crop_px": 20}, {"crop_px": 0}, {"crop_px": 8, "crops": 0}])
def test_crops_that_do_not_fit_are_refused(settings):
    with pytest.raises(ConfigError, match="16 that 4 divides"):
        model(**settings)


def densities(**settings):
    torch.manual_seed(0)
    network = partial(UNet, width=16, widths=[1, 2], blocks=1, attention=[])
    return DensityDiffusion(SPEC, network=network, embedding=32, **settings).eval()


def test_the_code_of_densities_is_the_mean_of_coarse_cells():
    drawing, layouts = densities(), torch.rand(2, *SPEC.shape)
    code = drawing.to_code(layouts)
    assert code.shape == (2, *drawing.latent_shape) == (2, 3, 4, 4)
    assert code[1, 2, 0, 3].item() == pytest.approx(layouts[1, 2, :4, 12:].mean().item(), rel=1e-5)
    coarse = drawing.to_layout(drawing.read(layouts))
    assert coarse.shape == layouts.shape
    for name, map_of in measure_maps(layouts, SPEC.channels, SPEC.resolution_m, 4).items():
        assert measure_maps(coarse, SPEC.channels, SPEC.resolution_m, 4)[name].allclose(map_of, atol=1e-5)
    drawn = drawing.sample(families.some_conditions(2, SPEC), noise=Noise([0, 1]))
    assert drawn.view(2, 3, 4, 4, 4, 4).std((3, 5)).max() < 1e-6, "the cells of a coarse cell are alike"


def test_densities_are_drawn_around_ways_that_keep_their_cells():
    drawing = densities(given=None)
    assert drawing.spec.given == ("street",), "all ways, as far as they are known"
    drawing.measure_data(torch.rand(16, *SPEC.shape))
    asked = families.requests(2, drawing.spec, coverage=0.4)
    drawn = drawing.sample(asked, noise=Noise([0, 1]), sampler=replace(drawing.sampler, tolerance=0.001))
    assert torch.equal(drawn[:, 1], asked.given[:, 0])
    assert measure(drawn, SPEC.channels, SPEC.resolution_m)["coverage"].sub(0.4).abs().max() < 0.01


def test_an_element_of_a_density_is_settled_when_its_cells_of_its_channel_are():
    keep = torch.zeros(1, *SPEC.shape, dtype=torch.bool)
    keep[:, 1, :6] = True
    assert densities().settled(keep)[0].sum((1, 2)).tolist() == [0, 4, 0]


@pytest.mark.parametrize("cell_m", [20.0, 4.0, 48.0])
def test_coarse_cells_that_do_not_fit_are_refused(cell_m):
    with pytest.raises(ConfigError, match=r"part of 128 m, and a multiple of 8 m"):
        densities(cell_m=cell_m)


def wished(seed=5):
    return 0.2 + 0.6 * torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(seed))


def off(layouts, wish):
    return measure_maps(layouts, SPEC.channels, SPEC.resolution_m, 4)["coverage"].sub(wish).abs()


@pytest.mark.parametrize("kind", [*KINDS, DensityDiffusion])
def test_every_cell_of_a_map_measures_what_is_asked_of_it(kind):
    drawing = model(kind)
    asked = families.requests(2, drawing.spec, coverage=wished())
    sampler = DpmSolver(12)
    free = drawing.sample(asked, noise=Noise([0, 1]), sampler=sampler)
    led = drawing.sample(asked, noise=Noise([0, 1]), sampler=replace(sampler, tolerance=0.01, slack=0.01))
    assert off(led, wished()).max() < 0.02 < off(free, wished()).mean()
    assert torch.equal(led[:, GIVEN], asked.given)


def test_a_map_moves_its_own_channel_and_where_it_is_not_asked_for_nothing():
    drawing = model()
    clean = drawing.read(0.2 + 0.6 * torch.rand(2, *SPEC.shape))
    asked = families.requests(2, drawing.spec, coverage=wished())
    asked.maps_present[1] = False
    moved = move_to_maps(drawing, clean, 1.0, asked, 0.01)
    assert off(drawing.to_layout(moved[:1]), wished()[:1]).max() < 0.01
    assert torch.equal(moved[1], clean[1])
    assert torch.equal(moved[:, GIVEN], clean[:, GIVEN])


def test_a_cell_of_a_map_counts_what_is_known_in_it():
    drawing = model()
    layouts = 0.2 + 0.6 * torch.rand(2, *SPEC.shape)
    keep = torch.zeros(2, *SPEC.shape, dtype=torch.bool)
    keep[:, :, :, ::2] = True
    known = Known(torch.rand(2, *SPEC.shape).mul(0.3).add(0.4), keep)
    asked = families.requests(2, drawing.spec, coverage=torch.full((4, 4), 0.5))
    moved = move_to_maps(drawing, drawing.read(layouts), 1.0, asked, 0.01, known)
    assert off(torch.where(keep, known.layout, drawing.to_layout(moved)), 0.5).max() < 0.01


def test_maps_of_different_channels_are_met_at_once_and_others_one_after_the_other():
    spec = replace(SPEC, maps=("coverage", "green"))
    statistics = dict.fromkeys(spec.maps, SPEC.statistics["coverage"])
    drawing = model()
    drawing.spec = replace(spec, given=("street",), statistics={**SPEC.statistics, **statistics})
    clean = drawing.read(0.2 + 0.6 * torch.rand(2, *SPEC.shape))
    maps = torch.stack([wished(), wished(6)], 1)

    def moved(clean, *names):
        asked = families.requests(2, drawing.spec)
        present = torch.tensor([[name in names for name in spec.maps]] * 2)
        return move_to_maps(drawing, clean, 1.0, replace(asked, maps=maps, maps_present=present), 0.01)

    together = moved(clean, "coverage", "green")
    assert torch.allclose(together, moved(moved(clean, "coverage"), "green"), atol=1e-5)
    assert not torch.allclose(together, moved(clean, "coverage"), atol=1e-2)
    asked = replace(families.requests(2, drawing.spec), maps=maps, maps_present=torch.ones(2, 2, dtype=torch.bool))
    assert [list(group) for group in _group_maps(drawing.spec, asked)] == [["coverage", "green"]]
    ways = dict.fromkeys(("street_density", "arterial"), SPEC.statistics["coverage"])
    overlapping = LayoutSpec(("arterial", "street"), 16, 8.0, maps=tuple(ways), map_px=4, statistics=ways)
    assert [list(group) for group in _group_maps(overlapping, asked)] == [["street_density"], ["arterial"]]


def test_the_whole_is_met_beside_maps_and_where_they_disagree_it_decides():
    drawing = model()
    asked = families.requests(2, drawing.spec, coverage=wished())
    whole = wished().mean((1, 2)) + 0.04
    asked.scalars[:, 0], asked.present[:, 0] = whole, True
    drawn = drawing.sample(asked, noise=Noise([0, 1]), sampler=DpmSolver(12, tolerance=0.01, slack=0.01))
    assert measure(drawn, SPEC.channels, SPEC.resolution_m)["coverage"].sub(whole).abs().max() < 0.005
    assert off(drawn, wished() + 0.04).max() < 0.05


def test_the_code_of_a_learned_codec_leaves_maps_to_the_network():
    latent = families.make("diffusion in variational_autoencoder")
    clean, asked = torch.randn(2, *latent.latent_shape), families.requests(2, latent.spec, coverage=wished())
    assert torch.equal(move_to_maps(latent, clean, 1.0, asked, 0.01), clean)
