"""Learning rates over the steps of a run, as factors of the optimiser's own rate."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def constant(*, optimizer: Optimizer, total_steps: int, warmup_steps: int = 0) -> LambdaLR:  # noqa: ARG001
    """Rise linearly over `warmup_steps`, then stay."""
    return LambdaLR(optimizer, _warmed(warmup_steps, lambda _: 1.0))


def cosine(*, optimizer: Optimizer, total_steps: int, warmup_steps: int = 0, final: float = 0.0) -> LambdaLR:
    """Rise linearly over `warmup_steps`, then fall to the share `final` along half a cosine (Loshchilov & Hutter 2017).

    A run without an end (`max_steps=-1` and no number of epochs) has no `total_steps` to fall over: the rate stays.
    """

    def factor(step: int) -> float:
        if not 0 < total_steps < math.inf:
            return 1.0
        along = min(1.0, max(0.0, (step - warmup_steps) / max(1, total_steps - warmup_steps)))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * along))

    return LambdaLR(optimizer, _warmed(warmup_steps, factor))


def _warmed(warmup_steps: int, factor: Callable[[int], float]) -> Callable[[int], float]:
    return lambda step: min(1.0, (step + 1) / (warmup_steps + 1)) * factor(step)
