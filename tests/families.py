"""Every shipped family in a size that tests can afford, found by globbing `conf/model/`."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from citygrain.checkpoint import build
from citygrain.config import groups, load_config
from citygrain.spec import PERCENTILES, Conditions, LayoutSpec

SMALL: dict[str, Any] = {
    "width": 16,
    "widths": [1, 2],
    "blocks": 1,
    "head": 16,
    "depth": 1,
    "fine_width": 16,
    "embedding": 32,
    "code_channels": 4,
    "steps": 12,
}
SMALL_CODEC = {"encoder": {"widths": [24]}, "decoder": {"widths": [24]}}


def model_config(name: str) -> dict[str, Any]:
    """Return the plain configuration that ships, of a family or `<family> with <another part>`."""
    family, _, part = name.partition(" with ")
    chosen = [f"{group}@model.{group}={part}" for group in PARTS if part in groups()[group]]
    model: dict[str, Any] = load_config("train", [f"model={family}", *chosen, "data.places=[]"])["model"]
    return model


PARTS = ("network", "schedule")
FAMILIES = groups()["model"]
VARIANTS = [
    f"{family} with {option}"
    for family in FAMILIES
    for group in PARTS
    if group in model_config(family)
    for option in groups()[group]
    if model_config(f"{family} with {option}") != model_config(family)
]
LATENT = [f"{name} in a code" for name in FAMILIES if "codec" in model_config(name)]
ALL = [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS), *LATENT]


def spec(size_px: int = 16) -> LayoutSpec:
    """Three channels, two scalars, one map, two places."""
    ramp = tuple(i / (PERCENTILES - 1) for i in range(PERCENTILES))
    return LayoutSpec(
        channels=("building", "street", "green"),
        size_px=size_px,
        resolution_m=8.0,
        scalars=("coverage", "green"),
        maps=("coverage",),
        map_px=4,
        places=("here", "there"),
        statistics={"coverage": {"all": ramp, "here": ramp}, "green": {"all": ramp}},
    )


def config(name: str, size_px: int = 16) -> dict[str, Any]:
    """Return the plain configuration of a family, shrunk."""
    family = name.removesuffix(" in a code")
    model = model_config(family)
    shrink(model)
    if name != family:
        # Trained on other places, and without conditions.
        other = replace(spec(size_px), places=("elsewhere",), scalars=(), maps=(), map_px=0, statistics={})
        plain = {"_target_": "citygrain.spec.LayoutSpec.from_dict", "plain": other.to_dict()}
        model["codec"] = {**config("variational_autoencoder"), "spec": plain}
    return model


def shrink(node: dict[str, Any]) -> None:
    for key, value in node.items():
        if isinstance(value, dict):
            shrink(value)
            for inner, small in SMALL_CODEC.get(key, {}).items():
                value[inner] = deepcopy(small)
        elif key in SMALL:
            node[key] = deepcopy(SMALL[key])


def make(name: str, size_px: int = 16) -> Any:
    return build(config(name, size_px), spec(size_px))


def requests(batch: int, layout_spec: LayoutSpec, **asked: Any) -> Conditions:
    return Conditions.request(layout_spec, batch, asked)
