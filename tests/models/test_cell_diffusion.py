"""Laws of estimates that are probabilities."""

from __future__ import annotations

from functools import partial

import pytest
import torch

import families
from citygrain.models.cell_diffusion import CellDiffusion
from citygrain.networks.unet import UNet
from citygrain.spec import Conditions

SPEC = families.spec()


def model(**settings):
    torch.manual_seed(0)
    network = partial(UNet, width=16, widths=[1], blocks=1, attention=[])
    return CellDiffusion(SPEC, network=network, embedding=32, **settings)


def speckled(count, shares=(0.5, 0.1, 0.02)):
    """Cells that are full or empty, each channel with its own share of full ones."""
    return (torch.rand(count, *SPEC.shape) < torch.tensor(shares)[:, None, None]).float()


def nothing(count):
    return Conditions.empty(SPEC, count)


def test_where_nothing_can_be_seen_nothing_is_known_but_each_channels_share():
    fresh, layouts = model(), speckled(32)
    fresh.measure_data(layouts)
    drowned = fresh.denoise(1e6 * torch.randn(4, *SPEC.shape), torch.full((4,), 1e6), nothing(4))
    expected = layouts.mean((0, 2, 3))[:, None, None].expand(SPEC.shape)
    assert torch.allclose(fresh.to_layout(drowned), expected, atol=1e-4)


def test_an_estimate_is_a_probability_whatever_the_weights():
    wild = model()
    with torch.no_grad():
        for weight in wild.parameters():
            weight.normal_(std=0.3)
    for sigma in (0.01, 1.0, 80.0):
        x = 2 * speckled(4) - 1 + sigma * torch.randn(4, *SPEC.shape)
        clean = wild.denoise(x, torch.full((4,), sigma), nothing(4))
        assert clean.abs().max() <= 1
        assert clean.std() > 0.1


@pytest.mark.parametrize("balance", [0.0, 0.5])
def test_the_loss_is_the_divergence_of_cells_from_their_estimates(balance, monkeypatch):
    cells, told = model(balance=balance), torch.tensor([0.4, 0.2, 0.1])[:, None, None]
    cells.measure_data(speckled(32))
    layouts = 0.02 + 0.9 * torch.rand(8, *SPEC.shape)
    sigma = torch.linspace(0.5, 4, 8)
    monkeypatch.setattr(type(cells.schedule), "draw", lambda self, batch, device: sigma)
    monkeypatch.setattr(cells, "logits", lambda x, sigma, conditions: told.logit().expand_as(x))
    divergence = layouts * (layouts / told).log() + (1 - layouts) * ((1 - layouts) / (1 - told)).log()
    weight = (1 + 1 / sigma)[:, None, None, None] * cells.error.channel_weight
    found = cells.loss(layouts, nothing(8))["loss"].item()
    assert found == pytest.approx((weight * divergence).mean().item(), rel=1e-5)


def test_what_an_estimate_leaves_open_is_the_variance_of_full_and_empty_cells():
    clean = torch.linspace(-1, 1, 9)
    full = torch.rand(20_000, 9) < (clean + 1) / 2
    assert torch.allclose((2.0 * full - 1).var(0), model().variance(clean), atol=0.03)
    assert model().variance(torch.tensor([-1.4, 1.2])).tolist() == [0, 0]  # guidance may lead out of the range


@pytest.mark.slow
def test_independent_cells_are_denoised_as_bayes_does_it():
    """Learned on cells of which each is full by its channel's share alone, whatever stands beside it."""
    cells, sigma = model(balance=0.0), 1.0
    cells.measure_data(speckled(64))
    cells.schedule = type(cells.schedule)(log_mean=0.0, log_std=1e-3)
    optimizer = torch.optim.Adam(cells.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        cells.loss(speckled(16), nothing(16))["loss"].backward()
        optimizer.step()
    layouts = speckled(64)
    x = 2 * layouts - 1 + sigma * torch.randn_like(layouts)
    share = torch.tensor([0.5, 0.1, 0.02])[:, None, None]
    exact = (x / sigma**2 + share.logit() / 2).tanh()
    with torch.no_grad():
        found = cells.denoise(x, torch.full((64,), sigma), nothing(64))
    before = ((x / 2 + share.logit() / 2).tanh() - exact).square().mean()  # what the network adds to
    assert (found - exact).square().mean() < 0.15 * before
