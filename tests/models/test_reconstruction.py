"""Reconstruction errors: known by hand, and even between channels."""

from __future__ import annotations

import pytest
import torch

from citygrain.errors import ConfigError
from citygrain.models.reconstruction import KINDS, ReconstructionLoss


def test_each_error_is_what_it_is_called():
    logits = torch.tensor([0.0, 2.0]).reshape(1, 2, 1, 1)
    layout = torch.tensor([1.0, 0.25]).reshape(1, 2, 1, 1)
    guess = logits.sigmoid()
    by_hand = {
        "bce": -(layout * guess.log() + (1 - layout) * (1 - guess).log()).mean(),
        "mse": ((guess - layout) ** 2).mean(),
        "l1": (guess - layout).abs().mean(),
    }
    for kind in KINDS:
        assert torch.allclose(ReconstructionLoss(2, {kind: 1.0}, 0.0)(logits, layout), by_hand[kind])
    mixed = ReconstructionLoss(2, {"bce": 0.5, "mse": 2.0, "l1": 0.0}, 0.0)(logits, layout)
    assert torch.allclose(mixed, 0.5 * by_hand["bce"] + 2 * by_hand["mse"])


@pytest.mark.parametrize("mixture", [{"bce": 1.0}, {"mse": 1.0}, {"l1": 3.0}, {"bce": 0.2, "l1": 1.0}])
def test_a_constant_guess_costs_one_and_full_balance_treats_channels_alike(mixture):
    torch.manual_seed(0)
    shares = torch.tensor([0.003, 0.05, 0.3])
    layouts = (torch.rand(64, 3, 32, 32) < shares[:, None, None]).float()
    share = layouts.mean((0, 2, 3))
    guess = share if "l1" not in mixture else torch.zeros_like(share)  # the best constant under absolute error
    logits = torch.logit(guess.clamp(1e-6, 1 - 1e-6))[:, None, None].expand_as(layouts)
    for balance in (0.0, 0.7, 1.0):
        loss = ReconstructionLoss(3, mixture, balance)
        loss.measure_data(layouts)
        if len(mixture) == 1:
            assert loss(logits, layouts) == pytest.approx(1.0, rel=0.01)
        right = (layouts - 0.5) * 60
        only = torch.eye(3, dtype=torch.bool)[:, None, :, None, None]  # one channel guessed, the others right
        costs = torch.stack([loss(torch.where(mine, logits, right), layouts) for mine in only])
        assert float(costs.sum()) == pytest.approx(float(loss(logits, layouts)), rel=0.01)
        if balance == 1.0 and len(mixture) == 1:
            assert torch.allclose(costs, torch.full((3,), 1 / 3), rtol=0.02)
        elif balance < 1:
            assert costs[0] < costs[1] < costs[2]


@pytest.mark.parametrize(
    "mixture", [{}, {"bce": 0.0}, {"bce": -1.0}, {"huber": 1.0}, {"mse": "a"}, {"l1": float("nan")}]
)
def test_impossible_mixtures_are_refused(mixture):
    with pytest.raises(ConfigError, match="reconstruction error"):
        ReconstructionLoss(3, mixture, 0.5)
