"""The laws of the adversarial game, its players' networks and what is given to them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import families
from citygrain.errors import ConditionError, ConfigError
from citygrain.measures import measure
from citygrain.models.adversarial import Hinge, LeastSquares, NonSaturating
from citygrain.models.pix2pix import Pix2Pix
from citygrain.networks.critic import PatchCritic, ResidualCritic
from citygrain.networks.style import Mapping, ModulatedConv, Synthesis
from citygrain.protocols import Noise
from citygrain.samplers.implicit import Truncated
from citygrain.spec import Conditions

SPEC = families.spec()


@pytest.mark.parametrize("objective", [NonSaturating(), Hinge(), LeastSquares()])
def test_both_players_gain_where_they_should(objective):
    low, high = torch.tensor([-0.5]), torch.tensor([0.8])
    assert objective.critic(real=high, made=low) < objective.critic(real=low, made=high)
    assert objective.generator(high) < objective.generator(low)


def test_smoothed_labels_move_the_best_logit():
    logits = torch.linspace(-6, 6, 2401)
    for smoothing in (0.0, 0.1, 0.3):
        losses = torch.stack([NonSaturating(smoothing).critic(x[None], torch.tensor([-9.0])) for x in logits])
        best = logits[losses.argmin()]
        if smoothing:
            assert best.sigmoid().item() == pytest.approx(1 - smoothing, abs=0.01)
        else:
            assert best == logits[-1]
        assert LeastSquares(smoothing).critic(torch.tensor([1 - smoothing]), torch.zeros(1)) == pytest.approx(
            0, abs=1e-9
        )
    with pytest.raises(ConfigError, match="less than a half"):
        LeastSquares(0.5)


@pytest.mark.parametrize("name", ["style_gan", "pix2pix"])
def test_each_player_feels_its_own_loss_only(name):
    model = families.make(name)
    model.game.obedience = model.game.r1 = 0.0
    model.fidelity, model.warmup = 0.0, 0
    layout, conditions = torch.rand(4, 3, 16, 16), families.some_conditions(4, SPEC)

    def felt(part):
        model.zero_grad()
        torch.manual_seed(0)
        model.loss(layout, conditions)[part].backward()
        return {n: p.grad for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}

    generator, critic, both = felt("generator"), felt("critic"), felt("loss")
    assert generator
    assert critic
    assert not [n for n in generator if n.startswith("game.")]
    assert not [n for n in critic if not n.startswith("game.")]
    assert all(torch.allclose(both[n], g, atol=1e-6) for n, g in {**generator, **critic}.items())


def test_the_gradient_penalty_is_that_of_a_linear_critic():
    model = families.make("style_gan")
    game = model.game
    slope = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0))
    game.judge = lambda layout, _: (layout * slope).sum((1, 2, 3), keepdim=True)
    real = torch.rand(5, 3, 16, 16)
    assert game._measure_gradient(real, None).item() == pytest.approx(slope.square().sum().item(), rel=1e-5)


@pytest.mark.parametrize("size", [16, 32, 64])
def test_a_larger_layout_is_penalised_like_the_patches_it_has(size):
    game = families.make("style_gan").game
    slope = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    game.judge = lambda layout, _: F.conv2d(layout, slope, stride=8)
    penalty = game._measure_gradient(torch.rand(2, 3, size, size), None)
    assert penalty.item() == pytest.approx(slope.square().sum().item(), rel=1e-5)


def test_disobedience_is_zero_where_layouts_measure_what_is_asked_and_ignores_what_is_not():
    game = families.make("style_gan").game
    layout = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    values = measure(layout, SPEC.channels, SPEC.resolution_m)
    asked = families.requests(4, SPEC, coverage=values["coverage"])
    assert game.measure_disobedience(layout, asked).item() == pytest.approx(0, abs=1e-8)
    asked.scalars[:, 1] = 55.0
    assert game.measure_disobedience(layout, asked).item() == pytest.approx(0, abs=1e-8)
    asked.scalars[:, 0] += 0.1
    assert game.measure_disobedience(layout, asked) > 0.01
    assert game.measure_disobedience(layout, asked.absent()) == 0


def test_a_patch_critic_judges_seventy_cells():
    critic = PatchCritic(in_channels=2, embedding=4, width=8)
    x = torch.randn(1, 2, 160, 160, requires_grad=True)
    verdict = critic(x, torch.zeros(1, 4))
    middle = verdict.shape[-1] // 2
    verdict[0, 0, middle, middle].backward()
    seen = x.grad.abs().sum((0, 1)).nonzero()
    assert (seen.amax(0) - seen.amin(0) + 1).tolist() == [70, 70]


def test_a_critic_of_whole_layouts_notices_when_all_are_the_same():
    torch.manual_seed(0)
    critic = ResidualCritic(in_channels=1, embedding=4, widths=(8, 8), stem=0)
    one, embedding = torch.randn(1, 1, 16, 16), torch.zeros(4, 4)
    alike = critic(one.repeat(4, 1, 1, 1), embedding)
    among_others = critic(torch.cat([one, torch.randn(3, 1, 16, 16)]), embedding)
    assert torch.allclose(alike, alike[:1].expand_as(alike), atol=1e-6)
    assert not torch.allclose(alike[0], among_others[0], atol=1e-4)


def test_modulation_scales_weights_as_published():
    """Karras et al. (2020), eq. 1 and 3, with one set of weights a sample."""
    torch.manual_seed(0)
    layer = ModulatedConv(5, 7, 4)
    x, style = torch.randn(3, 5, 8, 8), torch.randn(3, 4)
    made = layer(x, style)
    for i in range(3):
        weight = layer.weight * layer.scale(style)[i][None, :, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        assert torch.allclose(made[i], F.conv2d(x[i : i + 1], weight, layer.bias, padding=1)[0], atol=1e-5)


@pytest.mark.parametrize(("size", "grids"), [(64, [4, 8, 16, 32, 64]), (48, [6, 12, 24, 48]), (15, [15])])
def test_a_synthesis_grows_from_what_halving_leaves(size, grids):
    synthesis = Synthesis(out_channels=2, style=4, planes=0, size_px=size, width=4, widest=8)
    assert synthesis.sizes == grids
    made = synthesis(torch.randn(3, 4), lambda px: torch.zeros(3, 0, px, px), lambda *s: torch.zeros(3, *s))
    assert made.shape == (3, 2, size, size)


def test_truncation_draws_towards_the_middle_of_what_is_asked_for():
    model = families.make("style_gan").eval()
    conditions = families.requests(64, model.spec, coverage=0.4)

    def spread(truncation):
        drawn = model.sample(conditions, noise=Noise(range(64)), sampler=Truncated(truncation))
        return drawn.std(0).mean().item()

    for p in model.synthesis.parameters():
        if p.ndim == 3:
            torch.nn.init.zeros_(p)  # the noise of the levels, which no truncation touches
    assert spread(0.0) == pytest.approx(0, abs=1e-6)
    assert spread(0.5) < spread(1.0)
    with pytest.raises(ConfigError, match="not negative"):
        Truncated(-1.0)


def test_the_mapping_forgets_how_long_its_inputs_are():
    mapping = Mapping(noise=4, embedding=3, style=5)
    z, embedding = torch.randn(2, 4), torch.randn(2, 3)
    assert torch.allclose(mapping(z, embedding), mapping(7 * z, 0.2 * embedding), atol=1e-5)


def pix2pix(**options):
    from functools import partial

    from citygrain.networks.unet import UNet

    return Pix2Pix(
        SPEC,
        network=partial(UNet, width=16, widths=(1, 2), blocks=1, head=16),
        critic=partial(PatchCritic, width=8, layers=1),
        embedding=16,
        **options,
    )


def test_any_channels_may_be_given_and_come_back_in_their_place():
    model = pix2pix(given=["green", "building"])
    assert model.spec.given == ("green", "building")
    given = {"green": torch.rand(2, 16, 16), "building": torch.rand(16, 16)}
    asked = Conditions.request(model.spec, 2, {"coverage": 0.3}, given)
    made = model.sample(asked, noise=Noise([0, 1]))
    assert torch.equal(made[:, 2], given["green"])
    assert torch.equal(made[:, 0], given["building"].expand(2, -1, -1))


def test_noise_makes_other_layouts_for_the_same_streets():
    model = pix2pix()
    assert model.spec.given == ("street",), "streets are given unless something else is said"
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    asked = families.requests(2, model.spec, coverage=0.4)
    made = model.sample(asked, noise=Noise([0, 1]))
    assert not torch.allclose(made[0, 0], made[1, 0], atol=1e-3)
    still = model.sample(asked, noise=Noise([0, 1]), sampler=Truncated(0.0))
    assert torch.allclose(still[0], still[1], atol=1e-5)


def test_a_generator_learns_alone_before_it_joins_the_game_and_goes_on_where_it_stopped():
    def felt(model):
        model.zero_grad()
        model.loss(torch.rand(2, 3, 16, 16), families.some_conditions(2, model.spec))["loss"].backward()
        pulled = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        return tuple(any(n.startswith("game.") == critic for n in pulled) for critic in (False, True))

    model = pix2pix(warmup=2)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    assert felt(model) == (True, False)
    model.eval()
    assert felt(model) == felt(model) == (True, True), "only batches of training count"
    again = pix2pix(warmup=2)
    again.load_state_dict(model.state_dict())
    assert [felt(again) for _ in range(2)] == [(True, False), (True, True)]


def test_a_generator_begins_with_cross_entropy_whatever_it_is_to_lose_later():
    """A confident error has no gradient in the square, and would not be unlearned."""
    model = pix2pix(warmup=1, reconstruction={"mse": 1.0}, obedience=0.0)
    model.logits = lambda *_: logits
    layout, conditions = torch.ones(2, 3, 16, 16), families.some_conditions(2, model.spec)
    steep = []
    for _ in range(2):
        logits = torch.full((2, len(model.made), 16, 16), -12.0, requires_grad=True)
        losses = model.loss(layout, conditions)
        (slope,) = torch.autograd.grad(losses["reconstruction"], logits)
        steep.append(slope.abs().mean().item())
    assert steep[0] > 1000 * steep[1]


@pytest.mark.parametrize("given", [[], ["building", "street", "green"], ["metro"]])
def test_channels_that_cannot_be_given_are_refused(given):
    with pytest.raises(ConfigError, match="cannot be given"):
        pix2pix(given=given)


def test_other_channels_than_the_model_takes_are_refused():
    model = pix2pix()
    with pytest.raises(ConditionError, match="expected: street"):
        Conditions.request(model.spec, 1, {}, {"green": torch.zeros(16, 16)})
    with pytest.raises(ConditionError, match="none: this model makes all channels"):
        Conditions.request(SPEC, 1, {}, {"green": torch.zeros(16, 16)})
    with pytest.raises(ConditionError, match="wrong shape"):
        Conditions.request(model.spec, 1, {}, {"street": torch.zeros(8, 8)})
    kept = Conditions.request(model.spec, 2, {"coverage": 0.2}, {"street": torch.ones(16, 16)}).absent()
    assert bool(kept.given_present.all()), "what is given is no request"
    assert torch.equal(replace(kept, given=kept.given * 0).given, torch.zeros(2, 1, 16, 16))
