"""Learning rates over the steps of a run, as factors of the optimiser's own rate."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from citygrain.errors import ConfigError


def constant(*, optimizer: Optimizer, total_steps: int, warmup_steps: int = 0) -> LambdaLR:  # noqa: ARG001
    """Rise linearly over `warmup_steps`, then stay."""
    return LambdaLR(optimizer, _warmed(warmup_steps, lambda _: 1.0))


def linear(*, optimizer: Optimizer, total_steps: int, warmup_steps: int = 0, final: float = 0.0) -> LambdaLR:
    """Rise linearly over `warmup_steps`, then decay linearly to the share `final` at the end of the run."""
    return LambdaLR(
        optimizer, _warmed(warmup_steps, lambda step: _mix(final, 1 - _along(step, warmup_steps, total_steps)))
    )


def cosine(*, optimizer: Optimizer, total_steps: int, warmup_steps: int = 0, final: float = 0.0) -> LambdaLR:
    """Rise linearly over `warmup_steps`, then fall along half a cosine to `final` (Loshchilov & Hutter 2017)."""
    return LambdaLR(
        optimizer, _warmed(warmup_steps, lambda step: _mix(final, _bell(_along(step, warmup_steps, total_steps))))
    )


def step(
    *,
    optimizer: Optimizer,
    total_steps: int,  # noqa: ARG001
    warmup_steps: int = 0,
    every: int = 2000,
    factor: float = 0.5,
) -> LambdaLR:
    """Rise linearly over `warmup_steps`, then multiply by `factor` every `every` steps."""
    _positive(every=every)
    return LambdaLR(optimizer, _warmed(warmup_steps, lambda step: factor ** (max(0, step - warmup_steps) // every)))


def cosine_restarts(
    *,
    optimizer: Optimizer,
    total_steps: int,  # noqa: ARG001
    warmup_steps: int = 0,
    period: int = 1000,
    growth: float = 2.0,
    final: float = 0.0,
) -> LambdaLR:
    """Rise linearly over `warmup_steps`, then fall along half a cosine, again and again (Loshchilov & Hutter 2017).

    The first fall takes `period` steps, and each one `growth` times as many as the one before.
    """
    _positive(period=period)
    if growth < 1:
        raise ConfigError("lr_schedule.growth lengthens the periods.", expected="at least 1", got=growth)

    def factor(step: int) -> float:
        left, length = float(max(0, step - warmup_steps)), float(period)
        while left >= length:
            left, length = left - length, length * growth
        return _mix(final, _bell(left / length))

    return LambdaLR(optimizer, _warmed(warmup_steps, factor))


def cyclic(
    *,
    optimizer: Optimizer,
    total_steps: int,  # noqa: ARG001
    half_period: int = 500,
    lowest: float = 0.1,
) -> LambdaLR:
    """Rise linearly from the share `lowest` over `half_period` steps and fall back, again and again (Smith 2017)."""
    _positive(half_period=half_period)
    return LambdaLR(optimizer, lambda step: _mix(lowest, 1 - abs(step / half_period % 2 - 1)))


def _mix(final: float, share: float) -> float:
    return final + (1 - final) * share


def _bell(along: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * along))


def _along(step: int, warmup_steps: int, total_steps: float) -> float:
    """Return the share of the run after the warm-up that has passed; 0 in a run without an end (`max_steps=-1`)."""
    if not 0 < total_steps < math.inf:
        return 0.0
    return min(1.0, max(0.0, (step - warmup_steps) / max(1, total_steps - warmup_steps)))


def _positive(**knobs: float) -> None:
    for name, value in knobs.items():
        if not value > 0:
            raise ConfigError(f"lr_schedule.{name} has to be above 0.", got=value)


def _warmed(warmup_steps: int, factor: Callable[[int], float]) -> Callable[[int], float]:
    return lambda step: min(1.0, (step + 1) / (warmup_steps + 1)) * factor(step)
