"""A Boltzmann machine small enough to count all its states."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import families
from citygrain.errors import ConfigError
from citygrain.models.boltzmann_machine import BoltzmannMachine
from citygrain.protocols import Noise

SPEC = replace(families.spec(), channels=("building",), size_px=4)
CHANNELS = families.spec()


def machine(**settings):
    """Four visible bits, and one hidden bit at each of the positions."""
    torch.manual_seed(0)
    model = BoltzmannMachine(SPEC, **{"features": 3, "pool": 2, "reach": None, "embedding": 8, **settings}).double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.7 * torch.randn_like(p))
        # Conditions move biases, but not so far that one state is all there is.
        for shift in (model.visible_shift, model.hidden_shift):
            shift.weight.mul_(0.1)
            shift.bias.zero_()
    return model


def conditions(batch):
    wanted = families.some_conditions(batch, SPEC, seed=2)
    for name in ("scalars", "maps", "given"):
        setattr(wanted, name, getattr(wanted, name).double())
    return wanted


def states(count):
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * count)


def joint(model, visible, hidden, wanted):
    """b·v + a·h + h·Wv, by the definition."""
    biases = model.biases(wanted)
    linear = (biases.visible * visible).sum((1, 2, 3)) + (biases.hidden * hidden).sum((1, 2, 3))
    zero = without(biases)
    return linear + (model.hidden_logits(visible, zero) * hidden).sum((1, 2, 3))


def without(biases):
    return type(biases)(torch.zeros_like(biases.visible), torch.zeros_like(biases.hidden))


def test_the_free_energy_is_the_sum_over_all_hidden_states():
    model, wanted = machine(), conditions(1)
    for visible in states(4).view(-1, 1, 1, 2, 2):
        hidden = states(3).view(-1, 3, 1, 1)
        energies = joint(model, visible.expand(8, -1, -1, -1), hidden, wanted.repeat(8))
        assert torch.allclose(model.free_energy(visible, wanted)[0], -energies.logsumexp(0))


@pytest.mark.parametrize(("reach", "stride"), [(None, 1), (4, 2), (2, 2), (1, 1)])
def test_both_layers_see_the_same_weights(reach, stride):
    model = machine(pool=1, reach=reach, stride=stride)
    wanted = conditions(2)
    zero = without(model.biases(wanted))
    visible = torch.rand(2, *model.visible_shape, dtype=torch.float64)
    hidden = torch.rand_like(model.hidden_logits(visible, zero))
    up = (model.hidden_logits(visible, zero) * hidden).sum((1, 2, 3))
    down = (model.visible_logits(hidden, zero) * visible).sum((1, 2, 3))
    assert torch.allclose(up, down)


def test_the_gradient_against_chains_that_have_settled_is_that_of_the_likelihood():
    model, wanted = machine(), conditions(1)
    data = states(4)[[1, 6, 6, 15]].view(-1, 1, 2, 2)
    every = states(4).view(-1, 1, 2, 2)

    def free(visible):
        return model.free_energy(visible, wanted.repeat(len(visible)))

    likelihood = (-free(data) - (-free(every)).logsumexp(0)).mean()
    exact = torch.autograd.grad(-likelihood, model.weight)[0]
    settled = every[torch.multinomial((-free(every)).softmax(0).detach(), 200000, replacement=True)]
    contrast = free(data).mean() - free(settled).mean()
    assert torch.allclose(torch.autograd.grad(contrast, model.weight)[0], exact, atol=0.01)


@pytest.mark.slow
def test_chains_settle_at_the_distribution_over_all_states():
    model, n = machine(), 20000
    wanted = conditions(1)
    every = states(4).view(-1, 1, 2, 2)
    expected = (-model.free_energy(every, wanted.repeat(16))).softmax(0)
    torch.manual_seed(1)
    with torch.no_grad():
        moved = torch.zeros(n, 1, 2, 2, dtype=torch.float64)
        for _ in range(10):
            moved = model._move_chains(moved, wanted.repeat(n))
    index = (moved.flatten(1) @ torch.tensor([8.0, 4.0, 2.0, 1.0], dtype=torch.float64)).long()
    assert torch.allclose(index.bincount(minlength=16).double() / n, expected, atol=0.015)


def test_bits_are_drawn_with_the_coverage_as_their_probability():
    model = families.make("boltzmann_machine").eval()
    seen = []
    model._measure_error = lambda bits, _: seen.append(bits) or bits.mean()
    torch.manual_seed(0)
    for _ in range(50):
        model.loss(torch.full((4, *CHANNELS.shape), 0.3), families.requests(4, CHANNELS))
    drawn = torch.stack(seen)
    assert torch.equal(drawn, drawn.round())
    assert drawn.mean().item() == pytest.approx(0.3, abs=0.01)


def test_it_begins_with_each_channels_share():
    model = families.make("boltzmann_machine")
    layouts = torch.rand(8, *CHANNELS.shape) * torch.tensor([0.2, 1.0, 0.6])[:, None, None]
    model.measure_data(layouts)
    assert torch.allclose(model.visible_bias.flatten().sigmoid(), layouts.mean((0, 2, 3)), atol=1e-5)


def test_layouts_are_squares_of_one_coverage_each():
    model = families.make("boltzmann_machine").eval()
    drawn = model.sample(families.requests(2, CHANNELS), noise=Noise([0, 1]))
    assert torch.equal(drawn[..., ::2, ::2], drawn[..., 1::2, 1::2])


def test_maps_move_the_bits_of_the_squares_below_them():
    model = families.make("boltzmann_machine")
    torch.nn.init.ones_(model.map_weight)
    asked = families.requests(1, CHANNELS, coverage=torch.eye(4))
    bias = model.biases(asked).visible[0, 0]
    assert bias[0, 0] > bias[0, 7]
    assert torch.equal(bias[:2, :2], bias[:2, :2].mean().expand(2, 2))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"pool": 3}, "divisor of 4"),
        ({"pool": 1, "reach": 8}, "stride that divides 4"),
        ({"pool": 1, "reach": 3, "stride": 3}, "stride that divides 4"),
        ({"pool": 1, "reach": 3, "stride": 2}, "even number"),
        ({"pool": 1, "reach": 1, "stride": 2}, "reach from there"),
    ],
)
def test_a_machine_that_does_not_fit_its_layouts_is_refused(wrong, words):
    with pytest.raises(ConfigError, match=words):
        machine(**wrong)
