"""Muon: what a step does to matrices, kernels and vectors."""

import copy

import pytest
import torch
from torch import nn

from citygrain.networks.blocks import Table
from citygrain.networks.transformer import Transformer
from citygrain.training.optimizers import muon

LR = 0.1


def step_from_zeros(shape):
    """What the first step along a random gradient takes away from zeros."""
    weights = nn.Parameter(torch.zeros(shape))
    weights.grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    muon([weights], lr=LR, weight_decay=0.0).step()
    return -weights.detach()


@pytest.mark.parametrize("shape", [(24, 8), (8, 24), (16, 4, 3, 3)])
def test_a_step_is_nearly_orthogonal_and_as_large_as_one_of_adamw(shape):
    step = step_from_zeros(shape).flatten(1)
    singular = torch.linalg.svdvals(step) / (LR * 0.2 * max(step.shape) ** 0.5)
    assert singular.min() > 0.6
    assert singular.max() < 1.3
    assert (step**2).mean() ** 0.5 == pytest.approx(0.2 * LR, rel=0.25)  # AdamW's are about that, too (Liu et al. 2025)


def test_a_kernel_is_a_matrix_of_its_outputs():
    kernel, matrix = nn.Parameter(torch.zeros(16, 4, 3, 3)), nn.Parameter(torch.zeros(16, 36))
    gradient = torch.randn(16, 36, generator=torch.Generator().manual_seed(0))
    kernel.grad, matrix.grad = gradient.view_as(kernel).clone(), gradient.clone()
    for weights in (kernel, matrix):
        muon([weights], lr=LR).step()
    assert torch.allclose(kernel.flatten(1), matrix, atol=1e-6)


@pytest.mark.parametrize("weights", [nn.Parameter(torch.ones(7)), Table(torch.ones(7, 3))], ids=["bias", "table"])
def test_biases_gains_and_tables_move_as_under_adamw(weights):
    mine, theirs = copy.deepcopy(weights), copy.deepcopy(weights)
    optimizers = (
        muon([mine], lr=LR, betas=(0.8, 0.95), weight_decay=0.1),
        torch.optim.AdamW([theirs], lr=LR, betas=(0.8, 0.95), weight_decay=0.1),
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        mine.grad = torch.randn(weights.shape, generator=generator)
        theirs.grad = mine.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert torch.allclose(mine, theirs, atol=1e-5)


def test_what_belongs_to_symbols_and_heads_is_a_table():
    network = Transformer(symbols=9, out_channels=8, planes=2, embedding=8, causal=False, width=32, depth=2, head=16)
    tables = {name for name, p in network.named_parameters() if isinstance(p, Table)}
    assert tables == {"symbols.weight", "logits.weight", "spots"}


def test_it_goes_on_where_it_stopped():
    generator = torch.Generator().manual_seed(0)
    gradients = [[torch.randn(4, 3, generator=generator), torch.randn(4, generator=generator)] for _ in range(6)]

    def walk(weights, optimizer, steps):
        for step in steps:
            for p, gradient in zip(weights, gradients[step], strict=True):
                p.grad = gradient.clone()
            optimizer.step()

    def begin(values):
        weights = [nn.Parameter(v.detach().clone()) for v in values]
        return weights, muon(weights, lr=LR)

    straight, optimizer = begin([torch.ones(4, 3), torch.ones(4)])
    walk(straight, optimizer, range(6))
    first, before = begin([torch.ones(4, 3), torch.ones(4)])
    walk(first, before, range(3))
    second, after = begin(first)
    after.load_state_dict(before.state_dict())
    walk(second, after, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(straight, second, strict=True))
