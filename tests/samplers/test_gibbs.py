"""Gibbs sampling against all states of a machine small enough to count them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from citygrain.errors import CapabilityError, ConfigError
from citygrain.protocols import Biases, Noise
from citygrain.samplers.gibbs import Gibbs
from citygrain.spec import Conditions, LayoutSpec

SPEC = LayoutSpec(("building",), 2, 8.0)


class Machine:
    """Three visible and two hidden bits."""

    weight = torch.tensor([[1.5, -1.0], [-0.5, 2.0], [1.0, 0.5]])
    visible, hidden = torch.tensor([-0.3, 0.2, -0.8]), torch.tensor([0.4, -0.6])

    def biases(self, conditions):
        return Biases(self.visible.expand(len(conditions), -1), self.hidden)

    def hidden_logits(self, visible, biases):
        return visible @ self.weight + biases.hidden

    def visible_logits(self, hidden, biases):
        return hidden @ self.weight.T + biases.visible

    def marginals(self):
        """Probability of each visible bit, over all 32 states."""
        states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 5)
        v, h = states[:, :3], states[:, 3:]
        weights = ((v @ self.visible) + (h @ self.hidden) + torch.einsum("nv,vh,nh->n", v, self.weight, h)).softmax(0)
        return weights @ v


class _Seeded:
    """Noise of a whole batch from one generator."""

    def __init__(self, n):
        self.n, self.generator = n, torch.Generator().manual_seed(0)

    def uniform(self, *shape):
        return torch.rand(self.n, *shape, generator=self.generator)


def test_the_mean_of_what_is_drawn_is_the_marginal_over_all_states():
    n = 40000
    drawn = Gibbs(steps=30)(Machine(), Conditions.empty(SPEC, n), _Seeded(n))
    assert drawn.shape == (n, 3)
    assert torch.allclose(drawn.mean(0), Machine().marginals(), atol=0.01)


def test_what_is_drawn_are_probabilities_and_each_sample_has_its_own_noise():
    conditions = Conditions.empty(SPEC, 4)
    together = Gibbs(steps=3)(Machine(), conditions, Noise(range(4)))
    assert ((together > 0) & (together < 1)).all()
    assert torch.equal(together[2:3], Gibbs(steps=3)(Machine(), conditions[2:3], Noise([2])))


def test_cold_bits_take_their_likelier_value():
    cold = Gibbs(steps=5, temperature=0.0)(Machine(), Conditions.empty(SPEC, 3), Noise(range(3)))
    assert torch.equal(cold, cold.round())
    assert torch.equal(cold[0], cold[1])
    warm, cool = (
        Gibbs(steps=5, temperature=t)(Machine(), Conditions.empty(SPEC, 64), Noise(range(64))) for t in (1, 0.2)
    )
    assert (cool - 0.5).abs().mean() > (warm - 0.5).abs().mean() + 0.1


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"temperature": -1.0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match="cannot work"):
        replace(Gibbs(), **wrong)


def test_a_model_without_bits_is_refused():
    with pytest.raises(CapabilityError, match="Bipartite"):
        Gibbs()(object(), Conditions.empty(SPEC, 1), Noise([0]))
