"""Channels that are given to a model. The model makes the other channels for them, and repeats the given ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from citygrain.errors import ConditionError, ConfigError
from citygrain.spec import Conditions, LayoutSpec

WAYS = ("arterial", "street", "service", "cycle", "walk", "rail")
"""Channels of the networks of movement."""


def name_given(spec: LayoutSpec, names: Sequence[str] | None) -> LayoutSpec:
    """Return the spec of a model that is given the channels of these names; None stands for `WAYS`, as far as known.

    Raises
    ------
    ConfigError
        For no channel, all channels, or a channel that the layouts do not have.
    """
    names = tuple(name for name in WAYS if name in spec.channels) if names is None else tuple(names)
    unknown = [name for name in names if name not in spec.channels]
    if unknown or not 0 < len(set(names)) < len(spec.channels):
        raise ConfigError(
            "These channels cannot be given.",
            expected="at least one channel that the layouts have, and not all of them",
            got=", ".join(unknown or names) or "none",
            choices=spec.channels,
        )
    return replace(spec, given=names)


def find_given(spec: LayoutSpec) -> tuple[list[int], list[int]]:
    """Return the indices of the channels that are given, in the order of the spec, and of those that are made."""
    given = [spec.channels.index(name) for name in spec.given]
    return given, [i for i in range(len(spec.channels)) if i not in given]


def require_given(conditions: Conditions, spec: LayoutSpec) -> Tensor:
    """Return the given channels `(B, G, H, W)` of conditions.

    Raises
    ------
    ConditionError
        When no channels are given.
    """
    if not bool(conditions.given_present.all()):
        raise ConditionError(
            "This model makes some channels for others, and none are given.",
            expected=f"given channels: {', '.join(spec.given)}",
            remedy="citygrain sample takes them from a prepared place (given.place=…); in Python, "
            "Conditions.request(spec, n, asked, given={…})",
        )
    return conditions.given


def join_channels(given: Tensor, made: Tensor, spec: LayoutSpec) -> Tensor:
    """Return given channels `(B, G, H, W)` and made channels `(B, M, H, W)` together, in the order of the spec."""
    order = [i for part in find_given(spec) for i in part]
    planes = dict(zip(order, [*given.to(made.dtype).unbind(1), *made.unbind(1)], strict=True))
    return torch.stack([planes[i] for i in range(len(order))], 1)
