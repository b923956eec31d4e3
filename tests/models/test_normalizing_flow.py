"""Laws of flows: bijections whose Jacobian is known, and likelihoods that add up to one."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

import families
from citygrain.errors import ConfigError
from citygrain.models.normalizing_flow import LEVELS, Marginals, NormalizingFlow
from citygrain.networks.flow import ActNorm, Context, Coupling, Glow, Mixing
from citygrain.protocols import HasLikelihood, Noise
from citygrain.spec import LayoutSpec

LATENT = ["normalizing_flow", "normalizing_flow in variational_autoencoder"]


def tiny(*, planes=2, shape=(2, 4, 4), levels=2):
    """A flow in double precision, moved away from where it begins."""
    torch.manual_seed(0)
    flow = Glow(shape=shape, embedding=3, planes=planes, levels=levels, depth=2, width=8).double()
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return flow


def told(batch, *, planes=2, side=4):
    generator = torch.Generator().manual_seed(1)
    return Context(
        torch.randn(batch, 3, generator=generator, dtype=torch.float64),
        torch.randn(batch, planes, side, side, generator=generator, dtype=torch.float64),
    )


def jacobian_of(function, x):
    """Log-determinant, by autograd, of a map of one tensor `(1, …)`."""
    matrix = torch.func.jacrev(lambda flat: function(flat.view_as(x)).flatten())(x.flatten())
    return torch.linalg.slogdet(matrix).logabsdet


@pytest.mark.parametrize("planes", [0, 2])
@pytest.mark.parametrize("levels", [1, 2])
def test_the_log_determinant_is_that_of_the_jacobian(planes, levels):
    flow, context = tiny(planes=planes, levels=levels), told(1, planes=planes)
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    _, total = flow(x, context)
    assert total.item() == pytest.approx(jacobian_of(lambda x: flow(x, context)[0], x).item(), abs=1e-9)
    assert abs(total.item()) > 0.1


@pytest.mark.parametrize("layer", [ActNorm(5), Mixing(5)], ids=lambda layer: type(layer).__name__)
def test_each_plain_layer_has_its_jacobian_and_inverse(layer):
    layer = layer.double()
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.3 * torch.randn_like(p))
    x = torch.randn(1, 5, 2, 3, dtype=torch.float64)
    z, total = layer(x)
    assert total.item() == pytest.approx(jacobian_of(lambda x: layer(x)[0], x).item(), abs=1e-9)
    assert torch.allclose(layer.inverse(z), x, atol=1e-12)


def test_a_flow_is_undone_whatever_it_is_told():
    flow, context = tiny(), told(3)
    x = 3 * torch.randn(3, 2, 4, 4, dtype=torch.float64)
    z, _ = flow(x, context)
    assert torch.allclose(flow.inverse(z, context), x, atol=1e-10)
    assert torch.allclose(flow(flow.inverse(x, context), context)[0], x, atol=1e-10)
    other = Context(context.embedding + 1, context.planes)
    assert not torch.allclose(flow.inverse(z, other), x, atol=1e-3)
    elsewhere = Context(context.embedding, context.planes + 1)
    assert not torch.allclose(flow.inverse(z, elsewhere), x, atol=1e-3)


def test_many_channels_are_mixed_and_unmixed_without_losing_digits():
    torch.manual_seed(0)
    mixing = Mixing(128)
    with torch.no_grad():
        mixing.exponent.add_(0.05 * torch.randn(128, 128))
    x = torch.randn(2, 128, 4, 4)
    assert torch.allclose(mixing.inverse(mixing(x)[0]), x, atol=1e-3)


def test_a_new_mixing_is_a_rotation():
    matrix = torch.linalg.matrix_exp(Mixing(32).exponent.detach().double())
    assert torch.allclose(matrix @ matrix.T, torch.eye(32, dtype=torch.float64), atol=1e-10)


def test_no_coupling_scales_by_more_than_its_bound():
    coupling = Coupling(4, embedding=3, planes=2, width=8, bound=1.5).double()
    with torch.no_grad():
        coupling.out.weight.fill_(100.0)
    _, log_scale = coupling.compute_coefficients(torch.randn(2, 2, 4, 4, dtype=torch.float64), told(2))
    assert log_scale.abs().max() <= 1.5
    assert log_scale.abs().max() > 1.4


def test_measured_activations_are_standard_in_every_layer():
    flow = tiny()
    x = 5 + 3 * torch.randn(64, 2, 4, 4, dtype=torch.float64)
    flow.initialise(x, told(64))
    seen = []
    for module in flow.modules():
        if isinstance(module, ActNorm):
            module.register_forward_hook(lambda _, __, out: seen.append(out[0]))
    flow(x, told(64))
    assert len(seen) == 4
    for out in seen:
        assert out.mean((0, 2, 3)).abs().max() < 1e-9
        assert (out.std((0, 2, 3)) - 1).abs().max() < 1e-9


@pytest.mark.parametrize("wrong", [{"levels": 3}, {"levels": 0}, {"depth": 0}])
def test_a_flow_refuses_what_it_cannot_fold(wrong):
    with pytest.raises(ConfigError, match="fold"):
        Glow(**{"shape": (2, 4, 4), "embedding": 3, "planes": 0, "levels": 2, **wrong})


def coverage(n=64, seed=0):
    """Layouts of two channels as cities are: many cells empty, some full; the second channel nearly always empty."""
    generator = torch.Generator().manual_seed(seed)
    raw = torch.rand(n, 2, 16, 16, generator=generator) * torch.tensor([3.0, 1.0])[:, None, None]
    return (raw - torch.tensor([1.0, 0.97])[:, None, None]).clamp(0, 1).mul(255).round() / 255


def measured():
    marginals = Marginals(2)
    marginals.measure_data(coverage())
    return marginals


def test_cells_become_standard_normal():
    normal, _ = measured()(coverage(seed=1), torch.rand(64, 2, 16, 16))
    for channel in normal.movedim(1, 0).flatten(1):
        points = torch.special.ndtr(channel.sort().values)
        even = torch.linspace(0, 1, len(points))
        assert (points - even).abs().max() < 0.02


def test_normal_numbers_become_the_very_levels_they_came_from():
    layouts = coverage(seed=1).double()  # in single precision a level's very edge may be rounded into the next
    within = torch.rand(layouts.shape, generator=torch.Generator().manual_seed(0))
    back = measured().inverse(measured()(layouts, within)[0])
    assert torch.equal((back * 255).round(), (layouts * 255).round())


def test_under_independent_cells_the_likelihood_is_the_shares_of_the_levels():
    marginals, layouts = measured(), coverage(seed=1)
    normal, entering = marginals(layouts, torch.rand_like(layouts))
    independent = -0.5 * (normal**2 + math.log(2 * math.pi)).sum((1, 2, 3))
    level = (layouts * 255).round().long()
    shares = marginals.edges.diff(dim=1)[torch.arange(2)[:, None, None], level]
    assert torch.allclose(independent + entering, shares.log().sum((1, 2, 3)).float(), rtol=1e-4)


def test_what_was_never_seen_is_rare_and_not_impossible():
    shares = measured().edges.diff(dim=1)
    assert (shares > 0).all()
    assert torch.allclose(shares.sum(1), torch.ones(2, dtype=torch.float64))


def test_the_gradient_of_layouts_points_to_more_coverage_where_the_next_level_is_near():
    marginals = measured()
    normal = torch.linspace(-4, 4, 81).view(1, 1, 9, 9).repeat(1, 2, 1, 1).requires_grad_()
    layout = marginals.inverse(normal)
    (gradient,) = torch.autograd.grad(layout.sum(), normal)
    assert (gradient >= 0).all()
    assert (gradient[layout == 0] > 1e-3).any()
    # The table is the expectation that it stands for.
    shaken = normal.detach() + 0.5 * torch.randn(20000, *normal.shape[1:], generator=torch.Generator().manual_seed(0))
    expected = marginals.inverse(shaken).mean(0, keepdim=True)
    assert torch.allclose(marginals._expect_coverage(normal.detach()), expected, atol=0.02)


def test_all_layouts_of_four_cells_have_probability_one_together():
    spec = LayoutSpec(("building",), 2, 8.0)
    torch.manual_seed(0)
    model = NormalizingFlow(spec, flow=partial(Glow, levels=1, depth=2, width=8), embedding=8).eval()
    with torch.no_grad():
        for p in model.flow.parameters():
            p.add_(0.1 * torch.randn_like(p))
    model.marginals.measure_data(torch.randint(0, 2, (64, 1, 2, 2)).float())
    levels = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4).view(-1, 1, 2, 2)
    # The expectation over the noise of the density is the probability itself, not a bound of it.
    many = families.requests(500 * len(levels), spec)
    with torch.no_grad():
        draws = model.log_density(levels.repeat(500, 1, 1, 1), many, torch.rand(500 * len(levels), 1, 2, 2))
    assert (draws.double().exp().sum() / 500).item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("name", LATENT)
def test_likelihoods_are_the_same_every_time_and_whatever_the_batch(name):
    model = families.make(name).eval()
    assert isinstance(model, HasLikelihood)
    layouts, conditions = torch.rand(3, *model.spec.shape), families.some_conditions(3, model.spec)
    together = model.log_likelihood(layouts, conditions)
    assert together.shape == (3,)
    assert torch.equal(together, model.log_likelihood(layouts, conditions))
    assert torch.allclose(together[1:2], model.log_likelihood(layouts[1:2], conditions[1:2]), rtol=1e-4)


def test_codes_have_the_density_of_their_own_units():
    model = families.make("normalizing_flow in variational_autoencoder").eval()
    layouts, conditions = torch.rand(2, *model.spec.shape), families.some_conditions(2, model.spec)
    code, uniform = model.to_code(layouts), torch.full(model.latent_shape, 0.5)
    before = model.log_density(code, conditions, uniform)
    model.scale.mul_(2.0)
    after = model.log_density(2 * (code - model.shift) + model.shift, conditions, uniform)
    assert torch.allclose(before - after, torch.full((2,), math.prod(model.latent_shape) * math.log(2)), rtol=1e-4)


@pytest.mark.parametrize("name", LATENT)
def test_bits_count_all_channels_of_a_cell(name):
    model = families.make(name)
    losses = model.loss(torch.rand(4, *model.spec.shape), families.some_conditions(4, model.spec))
    nats = losses["loss"] * math.prod(model.latent_shape)
    assert losses["bits_per_cell"].item() == pytest.approx(nats.item() / math.log(2) / model.spec.size_px**2, rel=1e-5)


def test_all_levels_alike_cost_eight_bits_a_channel():
    model = families.make("normalizing_flow")
    layouts = torch.randint(0, LEVELS, (8, *model.spec.shape)) / 255
    model.marginals.measure_data(torch.arange(LEVELS).repeat(3, 3).view(1, 3, 16, 48).float() / 255)
    with torch.no_grad():
        for p in model.flow.parameters():
            p.zero_()
    losses = model.loss(layouts, families.requests(8, model.spec))
    assert losses["bits_per_cell"].item() == pytest.approx(3 * 8, rel=1e-3)


@pytest.mark.parametrize("name", LATENT)
def test_cold_noise_is_the_middle_and_every_seed_draws_it(name):
    model = families.make(name).eval()
    conditions = families.requests(2, model.spec)
    cold = replace(model.sampler, temperature=0.0)
    drawn = model.sample(conditions, noise=Noise([0, 1]), sampler=cold)
    assert torch.allclose(drawn[0], drawn[1], atol=1e-6)
    middle = model.to_layout(model.inverse(torch.zeros(1, *model.latent_shape), conditions[:1]))
    assert torch.allclose(drawn[:1], middle, atol=1e-5)
