"""Change a condition by a given amount, through a decoder that is not linear, and stay near codes of real windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from citygrain.errors import DataError
from citygrain.latent.codes import Codes
from citygrain.latent.directions import CodePath, measure_path
from citygrain.latent.measuring import label_measure
from citygrain.measures import measurable, measure_unchecked
from citygrain.protocols import Codec
from citygrain.support.devices import find_device

NEWTON_STEPS = 8
"""How many Gauss-Newton steps lead to each position, at most."""

LONGEST = 6.0
"""The length of a Gauss-Newton step, at most, in standard deviations of real codes."""

SHARES = (1.0, 0.5, 0.25, 0.125)
"""Shares of a step that are tried. The best one is taken: where a decoder saturates, a whole step leads too far."""

ENOUGH = 0.97
"""A step is taken only if it shortens the rest of the way to less than this share. Otherwise the codes stay."""

CLOSE = 0.01
"""The rest of the way at which the position counts as reached, in standard deviations of a measure."""

RIDGE = 1e-3
"""Share of the mean diagonal that is added to J Σ Jᵀ, which nearly equal measures would make singular."""


def follow(
    codec: Codec,
    codes: ArrayLike,
    target: str,
    steps: ArrayLike,
    real: Codes,
    *,
    hold: Sequence[str] = (),
    forms: bool = False,
) -> CodePath:
    """Change a condition by given amounts; every code goes its own way, and the direction is renewed after each step.

    Where a decoder is far from linear, one direction is wrong for many codes. So the direction is computed anew at each
    code, from the gradients J of what is measured on the decoded layout. A step is the likeliest change of the code
    that gives the target its wanted value and keeps the held conditions: Σ Jᵀ (J Σ Jᵀ)⁻¹ (wanted − measured), where Σ
    is the covariance of real codes (a Gauss-Newton step). Steps are repeated until the wanted values are reached. The
    directions of `fit_probes` come from the same formula, with the weights of the probe as J.

    Parameters
    ----------
    codec
        The codec of the codes; it has to be differentiable.
    codes
        Where the path starts, `(N, *code_shape)`.
    target
        The condition to change.
    steps
        `(S,)` changes of the target, in its unit, relative to its value on the decoded start. A value that no layout
        has, such as a negative share, is not reached.
    real
        Codes of real windows, at least some hundred. Their covariance says which changes are likely.
    hold
        Conditions that keep their value on the decoded start.
    forms
        Whether the urban form of every layout is measured, too.

    Raises
    ------
    DataError
        For a measure that is not a condition of these layouts. Urban form has no gradient.
    """
    spec, where = codec.spec, find_device(codec)
    names, possible = [target, *hold], measurable(spec.channels)
    for name in names:
        if name not in possible or name not in real.measured:
            raise DataError(
                "This condition cannot be followed.", got=name, choices=possible, remedy="fit_probes and traverse"
            )
    unit = torch.tensor([max(float(real.measured[name].std()), 1e-9) for name in names], device=where)
    spread = torch.as_tensor((real.flat - real.flat.mean(0)) / math.sqrt(len(real))).to(where)  # Σ = spreadᵀ spread
    start = torch.as_tensor(np.asarray(codes, np.float32)).to(where)

    def measured(x: Tensor) -> Tensor:
        values = measure_unchecked(codec.decode(x), spec.channels, spec.resolution_m, names)
        return torch.stack([values[name] for name in names], 1) / unit

    positions = np.asarray(steps, float)
    found: list[Tensor] = [start] * len(positions)
    with torch.no_grad():
        base = measured(start)
    for side in (np.flatnonzero(positions >= 0), np.flatnonzero(positions < 0)):
        x = start
        for i in side[np.argsort(np.abs(positions[side]))]:
            wanted = base.clone()
            wanted[:, 0] += float(positions[i]) / unit[0]
            for _ in range(NEWTON_STEPS):
                x, left = _step_nearer(measured, x, wanted, spread)
                if float(left.max()) < CLOSE:
                    break
            found[i] = x
    path = torch.stack(found).cpu().numpy()
    return measure_path(codec, path, positions, f"requested change of {label_measure(target)}", forms=forms)


def _step_nearer(
    measured: Callable[[Tensor], Tensor], x: Tensor, wanted: Tensor, spread: Tensor
) -> tuple[Tensor, Tensor]:
    """Move codes `(N, …)` one step towards the wanted values `(N, K)`; return them, and the distance left `(N,)`."""
    x = x.detach().requires_grad_()
    now = measured(x)
    slopes = [torch.autograd.grad(column.sum(), x, retain_graph=True)[0] for column in now.unbind(1)]
    jacobian = torch.stack(slopes, 1).flatten(2) @ spread.T
    scatter = jacobian @ jacobian.mT
    ridge = RIDGE * scatter.diagonal(0, 1, 2).mean(1)[:, None, None] + 1e-12
    scatter = scatter + ridge * torch.eye(wanted.shape[1]).to(x)
    step = torch.linalg.solve(scatter, (wanted - now.detach())[..., None]).mT @ jacobian
    step = step * (LONGEST / step.norm(dim=2, keepdim=True).clamp_min(LONGEST))
    by = (step @ spread).reshape(x.shape)
    with torch.no_grad():
        tried = torch.stack([x, *(x + share * by for share in SHARES)])
        left = torch.stack([(wanted - measured(there)).norm(dim=1) for there in tried])
        best = torch.cat([left[:1] * ENOUGH, left[1:]]).argmin(0)
        each = torch.arange(len(x))
        return tried[best, each], left[best, each]
