"""What sparse and denoising autoencoders add to a plain one."""

from __future__ import annotations

import pytest
import torch

import families
from citygrain.errors import ConfigError
from citygrain.models.autoencoder import ActivityKL, ActivityL1
from citygrain.spec import Conditions


def test_the_divergence_from_a_rate_is_zero_at_the_rate_and_grows_either_way():
    sparsity = ActivityKL(weight=1.0, rate=0.2)
    at = {rate: sparsity.penalty(torch.full((2, 3, 4, 4), rate)).item() for rate in (0.05, 0.1, 0.2, 0.4, 0.8)}
    assert at[0.2] == pytest.approx(0, abs=1e-6)
    assert at[0.05] > at[0.1] > 0
    assert at[0.8] > at[0.4] > 0
    coin = 0.2 * torch.log(torch.tensor(0.2 / 0.4)) + 0.8 * torch.log(torch.tensor(0.8 / 0.6))
    assert at[0.4] == pytest.approx(3 * coin.item(), rel=1e-4)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        ActivityKL(rate=1.0)


def test_what_is_inactive_is_not_pushed_further_down():
    code = torch.tensor([[[[-1.0, 2.0]]]], requires_grad=True)
    sparsity = ActivityL1(weight=1.0)
    sparsity.penalty(sparsity.activate(code)).backward()
    assert code.grad.tolist() == [[[[0.0, 0.5]]]]


def test_what_is_inactive_can_come_back():
    code = torch.tensor([[[[-1.0, 2.0]]]], requires_grad=True)
    activity = ActivityL1().activate(code)
    assert activity.tolist() == [[[[0.0, 2.0]]]]
    activity.sum().backward()
    assert code.grad.flatten().tolist() == pytest.approx([0.1, 1.0])


@pytest.mark.slow
def test_the_penalty_makes_codes_sparse():
    x = torch.rand(16, 3, 16, 16, generator=torch.Generator().manual_seed(0)).round()
    active = {}
    for weight in (0.0, 3.0):
        model = families.make("sparse_autoencoder")
        model.sparsity = ActivityL1(weight)
        model.measure_data(x)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for _ in range(60):
            optimizer.zero_grad()
            losses = model.loss(x, Conditions.empty(model.spec, 16))
            losses["loss"].backward()
            optimizer.step()
        active[weight] = losses["active"].item()
    assert active[3.0] < 0.5 * active[0.0]


def test_corruption_erases_whole_cells_in_training_and_nothing_in_evaluation():
    model = families.make("denoising_autoencoder")
    model.noise, model.erased = 0.0, 0.25
    x = torch.rand(8, 3, 16, 16) + 0.1
    gone = model.corrupt(x) == 0
    assert torch.equal(gone.all(1), gone.any(1))
    assert gone.float().mean().item() == pytest.approx(0.25, abs=0.05)
    model.erased, model.noise = 0.0, 0.2
    assert (model.corrupt(x) - x).std().item() == pytest.approx(0.2, abs=0.01)
    model.eval()
    conditions = Conditions.empty(model.spec, 8)
    assert torch.equal(model.loss(x, conditions)["loss"], model.loss(x, conditions)["loss"])


@pytest.mark.parametrize("wrong", [{"noise": -0.1}, {"erased": 1.0}])
def test_corruption_that_leaves_nothing_is_refused(wrong):
    from citygrain.checkpoint import build_generator

    with pytest.raises(ConfigError, match="corrupted"):
        build_generator({**families.config("denoising_autoencoder"), **wrong}, families.spec())
