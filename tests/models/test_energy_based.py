"""Laws of energies that are learned against their own chains, and of the pool that the chains are kept in."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch

import families
from citygrain.errors import ConfigError
from citygrain.models.energy_based import EnergyBased
from citygrain.models.replay import Replay
from citygrain.networks.energy import EnergyNetwork
from citygrain.protocols import Noise
from citygrain.spec import Conditions

SPEC = families.spec()


def numbered(*values):
    """Chains `(B, 1)` that are told apart by a number, under conditions that repeat it."""
    conditions = Conditions.empty(SPEC, len(values))
    conditions.scalars[:, 0] = torch.tensor(values, dtype=torch.float32)
    return torch.tensor(values, dtype=torch.float32)[:, None], conditions


def filled(capacity=8, restart=0.0):
    pool = Replay(capacity, restart)
    for start in range(0, capacity, 4):
        pool.keep(*pool.draw(*numbered(*range(start, start + 4))))
    return pool


def test_a_pool_takes_fresh_chains_until_it_is_full():
    pool = Replay(8, restart=0.0)
    for start in (0, 4):
        fresh, conditions = numbered(*range(start, start + 4))
        slots, states, theirs = pool.draw(fresh, conditions)
        assert torch.equal(states, fresh)
        assert theirs is conditions
        pool.keep(slots, states, theirs)
    assert len(pool) == 8
    fresh, conditions = numbered(90, 91, 92, 93)
    for _ in range(20):
        slots, states, theirs = pool.draw(fresh, conditions)
        assert states.max() < 8
        assert len(slots.unique()) == 4
        pool.keep(slots, states, theirs)
    assert len(pool) == 8


def test_chains_carry_on_where_they_were_and_under_their_own_conditions():
    torch.manual_seed(0)
    pool = filled()
    fresh, conditions = numbered(90, 91, 92, 93)
    for _ in range(20):
        slots, states, theirs = pool.draw(fresh, conditions)
        pool.keep(slots, states + 100, theirs)
        assert torch.equal(states[:, 0] % 100, theirs.scalars[:, 0])
    assert torch.equal(pool.states[:, 0] % 100, torch.arange(8.0))
    assert (pool.states >= 100).any()


def test_the_share_that_begins_afresh_is_as_asked_and_takes_its_conditions_along():
    torch.manual_seed(0)
    pool, begun = filled(restart=0.25), 0
    fresh, conditions = numbered(90, 91, 92, 93)
    for _ in range(500):
        _, states, theirs = pool.draw(fresh, conditions)
        assert torch.equal(states[:, 0], theirs.scalars[:, 0])
        begun += int((states >= 90).sum())
    assert begun / 2000 == pytest.approx(0.25, abs=0.03)


def test_a_pool_never_writes_into_the_batches_that_it_was_filled_with():
    pool = Replay(4, restart=0.0)
    states, conditions = numbered(0, 1, 2, 3)
    pool.keep(*pool.draw(states, conditions))
    slots, taken, theirs = pool.draw(states, conditions)
    pool.keep(slots, taken + 100, theirs)
    assert torch.equal(states[:, 0], torch.arange(4.0))


def test_a_batch_larger_than_the_pool_is_taken_whole():
    pool = filled(capacity=4)
    fresh, conditions = numbered(*range(50, 60))
    slots, states, theirs = pool.draw(fresh, conditions)
    assert len(states) == 10
    pool.keep(slots, states, theirs)


def batch(n=4):
    return torch.rand(n, *SPEC.shape), families.some_conditions(n, SPEC)


@pytest.mark.parametrize("name", ["energy_based", "boltzmann_machine"])
def test_chains_are_no_part_of_a_checkpoint(name):
    model = families.make(name).train()
    before = {key: value.shape for key, value in model.state_dict().items()}
    model.loss(*batch())
    assert len(model.replay) == 4
    assert {key: value.shape for key, value in model.state_dict().items()} == before


@pytest.mark.parametrize("name", ["energy_based", "boltzmann_machine"])
def test_validation_leaves_the_chains_alone_and_repeats_itself(name):
    model = families.make(name).train()
    model.loss(*batch())
    kept, layouts_and_conditions = copy.deepcopy(model.replay), batch()
    model.eval()
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        with torch.inference_mode():
            layouts, conditions = layouts_and_conditions
            losses.append(model.loss(layouts * 1, conditions.repeat(1))["loss"])
    assert losses[0].isfinite()
    assert torch.equal(*losses)
    assert torch.equal(model.replay.states, kept.states)
    assert torch.equal(model.replay.conditions.scalars, kept.conditions.scalars)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["energy_based", "boltzmann_machine"])
def test_chains_move_while_training(name):
    model = families.make(name).train()
    model.loss(*batch())
    before = model.replay.states.clone()
    for _ in range(40):
        model.loss(*batch(16))
    assert len(model.replay) == 68
    assert not torch.equal(model.replay.states[:4], before)


def test_a_new_energy_is_that_of_a_normal_distribution():
    model = families.make("energy_based").eval()
    x = torch.randn(3, *model.latent_shape)
    energy = model.energy(x, families.some_conditions(3, SPEC))
    assert torch.allclose(energy - energy[0], 0.5 * ((x**2).sum((1, 2, 3)) - (x[0] ** 2).sum()), atol=1e-3)


@pytest.mark.slow
def test_an_energy_learns_to_lead_back_to_data():
    torch.manual_seed(0)
    model = families.make("energy_based").train()
    layouts = torch.full((8, *SPEC.shape), 0.6)
    model.shift.fill_(0.5)
    model.scale.fill_(0.1)  # so that data are 1
    conditions = families.requests(8, SPEC)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    first = last = 0.0
    for step in range(120):
        optimizer.zero_grad()
        losses = model.loss(layouts, conditions)
        losses["loss"].backward()
        optimizer.step()
        first, last = (losses["denoising"].item(), last) if step == 0 else (first, losses["denoising"].item())
    assert last < 0.7 * first
    clean = model.sampler.jump(model, 1 + 0.3 * torch.randn(8, *model.latent_shape), conditions)
    assert clean.mean().item() == pytest.approx(1, abs=0.15)


@pytest.mark.slow
def test_training_stays_finite():
    torch.manual_seed(0)
    model = families.make("energy_based").train()
    layouts, conditions = batch(8)
    model.measure_data(layouts)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(300):
        optimizer.zero_grad()
        loss = model.loss(layouts, conditions)["loss"]
        assert loss.isfinite()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert model.replay.states.abs().max() < 100
    assert model.sample(conditions, noise=Noise(range(8))).isfinite().all()


@pytest.mark.parametrize("smoothing", [0.0, -1.0, 1.5])
def test_a_smoothing_that_is_none_is_refused(smoothing):
    with pytest.raises(ConfigError, match="smoothing"):
        EnergyBased(SPEC, landscape=partial(EnergyNetwork, width=8), smoothing=smoothing)


def test_an_energy_network_says_which_sizes_it_takes():
    net = EnergyNetwork(in_channels=2, embedding=4, stem=1, width=8, widths=(1, 2))
    assert net(torch.randn(3, 2, 8, 12), torch.randn(3, 4)).shape == (3,)
    with pytest.raises(ConfigError, match="that 4 divides"):
        net(torch.randn(3, 2, 6, 8), torch.randn(3, 4))
