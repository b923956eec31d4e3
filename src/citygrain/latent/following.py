"""Changing a condition by so much through a decoder that is not linear, without leaving what real codes are like."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from citygrain.errors import DataError
from citygrain.latent.codes import Codes, titled
from citygrain.latent.directions import CodePath, measured_path
from citygrain.measures import measurable, measure_unchecked
from citygrain.protocols import Codec
from citygrain.support.devices import find_device

NEWTON_STEPS = 8
"""Steps towards each position, at most."""

LONGEST = 6.0
"""The longest of them, in standard deviations of real codes."""

SHARES = (1.0, 0.5, 0.25, 0.125)
"""Of each step, that which leads nearest is taken: where a decoder saturates, gradients promise too much."""

ENOUGH = 0.97
"""None is taken that leaves more of the way than this share: what cannot be reached is not run after."""

CLOSE = 0.01
"""What may be left of the way, in standard deviations of a measure."""

RIDGE = 1e-3
"""What keeps measures that are nearly one and the same from being torn apart, as a share of their own."""


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
    """Walk from codes to where a condition has changed by so much, bending the direction on the way.

    Where a decoder is far from linear, one direction for all codes leads astray. This is the same step as that of
    `probe`, with the gradient of what is measured on the decoded layout for the probe's weights: at each code the
    smallest change, in terms of the covariance Σ of real codes, that brings the target to where it is to be and keeps
    what is held, Σ Jᵀ (J Σ Jᵀ)⁻¹ (wanted − measured) with J the gradients (Gauss and Newton), over and over.

    Parameters
    ----------
    codec
        What made the codes; it has to be differentiable.
    codes
        `(N, *code_shape)`.
    target
        The condition to change.
    steps
        `(S,)` changes of it, in its unit, from what is measured on the decoded codes. What a layout cannot be, such as
        less than nothing of a channel, is not reached.
    real
        Codes of real windows, some hundreds at least, that say which changes are likely.
    hold
        Conditions that are to stay as they are on the decoded codes.
    forms
        Measure the urban form of every layout too.

    Raises
    ------
    DataError
        For a measure that is no condition of these layouts: urban form has no gradient.
    """
    spec, where = codec.spec, find_device(codec)
    names, possible = [target, *hold], measurable(spec.channels)
    for name in names:
        if name not in possible or name not in real.measured:
            raise DataError("This cannot be followed.", got=name, choices=possible, remedy="probe and traverse")
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
                x, left = _nearer(measured, x, wanted, spread)
                if float(left.max()) < CLOSE:
                    break
            found[i] = x
    path = torch.stack(found).cpu().numpy()
    return measured_path(codec, path, positions, f"change of {titled(target)} asked for", forms=forms)


def _nearer(measured: Callable[[Tensor], Tensor], x: Tensor, wanted: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Bring codes `(N, …)` nearer to where they measure what is wanted `(N, K)`; tell what is left `(N,)`."""
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
