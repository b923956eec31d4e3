"""Muon for matrices and for kernels of convolutions; torch's own takes matrices only."""

from __future__ import annotations

from collections.abc import Iterable

from pytorch_optimizer import Muon
from torch import nn

from citygrain.networks.blocks import Table


def muon(
    params: Iterable[nn.Parameter],
    *,
    lr: float = 3e-3,
    momentum: float = 0.95,
    betas: tuple[float, float] = (0.9, 0.99),
    weight_decay: float = 0.01,
) -> Muon:
    """Muon (Jordan et al. 2024) for matrices and kernels, AdamW for biases, gains and tables.

    The step of a matrix is the momentum of its gradient, with all singular values set to about one. A kernel
    `(out, in, k, k)` is taken as a matrix `(out, in·k·k)`. The step is scaled by 0.2 √(longer side) (Liu et al. 2025):
    so it is as large as a step of AdamW, and both have one learning rate.

    Parameters
    ----------
    params
        The parameters that are trained.
    lr
        Learning rate of Muon and of AdamW.
    momentum
        Nesterov momentum of the gradients of matrices.
    betas
        Decay rates of AdamW's averages of gradients and of their squares.
    weight_decay
        Share of the weights that each step takes off, times the learning rate.
    """
    params = list(params)
    matrices = [p for p in params if p.ndim > 1 and not isinstance(p, Table)]
    others = [p for p in params if p.ndim <= 1 or isinstance(p, Table)]
    shared = {"lr": lr, "weight_decay": weight_decay}
    groups = [
        {"params": matrices, "use_muon": True, "momentum": momentum, "use_adjusted_lr": True, **shared},
        {"params": others, "use_muon": False, "betas": tuple(betas), **shared},
    ]
    return Muon([group for group in groups if group["params"]])
