"""Every shipped family in a size that tests can afford, found by globbing `conf/model/`."""

from __future__ import annotations

import inspect
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
import yaml

from citygrain.checkpoint import build_generator
from citygrain.models.code_space import CODECS
from citygrain.protocols import FitsPrior, Generator
from citygrain.spec import PERCENTILES, Conditions, LayoutSpec
from citygrain.support.config import find_file, format_config, list_group_defaults, list_groups
from citygrain.support.targets import find_target

PARTS = ("network", "schedule", "sparsity", "critic", "objective")

SMALL: dict[str, Any] = {
    "width": 16,
    "widths": [1, 2],
    "blocks": 1,
    "head": 16,
    "depth": 1,
    "fine_width": 16,
    "embedding": 32,
    "code_channels": 4,
    "book_size": 32,
    "warmup": 20,
    "components": 4,
    "style": 16,
    "noise_channels": 2,
    "widest": 16,
    "dimensions": 8,
    "steps": 12,
    "levels": 2,
    "features": 32,
    "capacity": 64,
    "walk": 4,
    "stem": 1,
    "attention": [-1, -2],
    "rows": 64,
    "cell_m": 16.0,
    "crop_px": 16,  # what is where in a window cannot be learned from parts of it
}
WAYS = "stroke_transformer"
"""The family that draws ways only."""
GROUND = "cell_diffusion"
"""The family of the ground in a cascade."""
CASCADE = "cascade"
"""The family that has parts: a plan of streets, and the ground for them."""
SMALL_CODEC = {"encoder": {"widths": [24]}, "decoder": {"widths": [24]}}


def model_config(name: str) -> dict[str, Any]:
    """Return the plain configuration that ships, of a family or `<family> with <another part>`."""
    return deepcopy(_composed(name))


@cache
def _composed(name: str) -> dict[str, Any]:
    family, _, part = name.partition(" with ")
    chosen = [f"{at}={part}" for group, at in _parts(family).items() if part in list_groups()[group]]
    model: dict[str, Any] = yaml.safe_load(format_config("train", [f"model={family}", *chosen]))["model"]
    return model


@cache
def _parts(family: str) -> dict[str, str]:
    """Return the groups whose choice makes another model of a family, and where each has its place."""
    taken = list_group_defaults("train", overrides=[f"model={family}"])
    return {at.partition("@")[0]: at for at, option in taken.items() if option and at.partition("@")[0] in PARTS}


def variants(family: str) -> list[str]:
    """Return the family with each other option of its parts than the one it has."""
    taken = list_group_defaults("train", overrides=[f"model={family}"])
    return [
        f"{family} with {option}"
        for group, at in _parts(family).items()
        for option in list_groups()[group]
        if option != taken[at]
    ]


def codec_of(family: str) -> inspect.Parameter | None:
    """Return a family's parameter `codec`, or None; nothing is composed, since every collection of tests asks."""
    file = find_file(f"model/{family}")
    content = yaml.safe_load(file.read_text(encoding="utf-8")) if file else {}
    if "_target_" not in content:
        return codec_of(next(entry for entry in content["defaults"] if isinstance(entry, str) and entry != "_self_"))
    return inspect.signature(find_target(content["_target_"])).parameters.get("codec")


def needs_codec(family: str) -> bool:
    codec = codec_of(family)
    return codec is not None and codec.default is inspect.Parameter.empty


def latent(family: str) -> list[str]:
    """Return the family in each code it can work in: a family that needs a codec needs tokens."""
    codecs = ("vector_quantized",) if needs_codec(family) else CODECS if codec_of(family) else ()
    return [f"{family} in {codec}" for codec in codecs]


def spec(size_px: int = 16, name: str = "") -> LayoutSpec:
    """Three channels, two scalars, one map, two places; the channels are ways where a family draws ways only."""
    ramp = tuple(i / (PERCENTILES - 1) for i in range(PERCENTILES))
    return LayoutSpec(
        channels=("arterial", "street", "walk") if name == WAYS else ("building", "street", "green"),
        size_px=size_px,
        resolution_m=8.0,
        scalars=("coverage", "green"),
        maps=("coverage",),
        map_px=4,
        places=("here", "there"),
        statistics={"coverage": {"all": ramp, "here": ramp}, "green": {"all": ramp}},
    )


def config(name: str, size_px: int = 16) -> dict[str, Any]:
    """Return the plain configuration of a family, shrunk; `<family> in <codec>` works in that codec's code."""
    family, _, codec = name.partition(" in ")
    model = model_config(family)
    shrink(model)
    if family == CASCADE:
        whole = spec(size_px)
        model["plan"] = part(WAYS, replace(whole, channels=("street",)))
        model["ground"] = {**part(GROUND, whole), "given": ["street"]}
    if codec:
        # Trained on other places, and without conditions.
        other = replace(spec(size_px), places=("elsewhere",), scalars=(), maps=(), map_px=0, statistics={})
        model["codec"] = part(codec, other)
    return model


def part(name: str, layout_spec: LayoutSpec) -> dict[str, Any]:
    """Return the configuration of a family that is part of another one, with a spec of its own."""
    plain = {"_target_": "citygrain.spec.LayoutSpec.from_dict", "plain": layout_spec.to_dict()}
    return {**config(name), "spec": plain}


def shrink(node: dict[str, Any]) -> None:
    for key, value in node.items():
        if isinstance(value, dict):
            shrink(value)
            for inner, small in SMALL_CODEC.get(key, {}).items():
                value[inner] = deepcopy(small)
        elif key in SMALL and not (key == "warmup" and not value):  # what begins at once still does
            node[key] = deepcopy(SMALL[key])


def make(name: str, size_px: int = 16) -> Any:
    """Build a family, ready to sample: what has to be fitted is fitted to noise."""
    torch.manual_seed(0)
    model = build_generator(config(name, size_px), spec(size_px, name))
    noise, conditions = torch.rand(64, *model.spec.shape), some_conditions(64, model.spec)
    for part in (getattr(model, "codec", None), model):
        if isinstance(part, Generator) and not [*part.parameters()]:
            part.train().loss(noise, conditions)  # a family without parameters is nothing before it was fitted
            part.eval()
    if isinstance(model, FitsPrior):
        fit_prior(model, noise, conditions)
    return model.train()


def fit_prior(model: Any, layouts: torch.Tensor, conditions: Conditions) -> None:
    training = model.training
    model.eval()
    with torch.no_grad():
        model.fit_prior(model.encode(layouts), conditions)
    model.train(training)


def two_windows(name: str) -> torch.Tensor:
    """Return two windows `(2, C, 16, 16)` that differ in channels and form; ways look the same when they are turned."""
    pair = torch.zeros(2, 3, 16, 16)
    if name == WAYS:  # a cross, and a ring
        pair[0, 0, 7:9] = pair[0, 0, :, 7:9] = 1.0
        pair[1, 2, 3:13, 3:13] = 1.0
        pair[1, 2, 4:12, 4:12] = 0.0
        return pair
    pair[0, 0, :, :8] = 1.0
    pair[1, 2, 8:] = 1.0
    return pair


def requests(batch: int, layout_spec: LayoutSpec, **asked: Any) -> Conditions:
    """Ask for scalars and place; what has to be given is the same noise for all."""
    return replace(Conditions.request(layout_spec, batch, asked), **_given(batch, layout_spec))


def some_conditions(batch: int, layout_spec: LayoutSpec, seed: int = 0) -> Conditions:
    """Ask for a random subset of everything."""
    generator = torch.Generator().manual_seed(seed)
    shape = len(layout_spec.maps), layout_spec.map_px, layout_spec.map_px
    return Conditions(
        scalars=torch.rand(batch, len(layout_spec.scalars), generator=generator),
        present=torch.rand(batch, len(layout_spec.scalars), generator=generator) < 0.6,
        place=torch.randint(-1, len(layout_spec.places), (batch,), generator=generator),
        maps=torch.rand(batch, *shape, generator=generator),
        maps_present=torch.rand(batch, len(layout_spec.maps), generator=generator) < 0.6,
        **_given(batch, layout_spec),
    )


def _given(batch: int, layout_spec: LayoutSpec) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    layout = torch.rand(1, len(layout_spec.given), layout_spec.size_px, layout_spec.size_px, generator=generator)
    return {
        "given": layout.repeat(batch, 1, 1, 1),
        "given_present": torch.full((batch,), bool(layout_spec.given)),
    }


FAMILIES = list_groups()["model"]
LIKE_OTHERS = ("ground_diffusion", "density_diffusion")
"""Families whose parts are those of another, which stands for their variants."""
VARIANTS = [
    name for family in FAMILIES if not needs_codec(family) and family not in LIKE_OTHERS for name in variants(family)
]
LATENT = {family: latent(family) for family in FAMILIES}
EVERY = [
    *(family for family in FAMILIES if not needs_codec(family)),
    *(names[0] for names in LATENT.values() if names),
    *VARIANTS,
    *LATENT["diffusion"][1:],  # one family for all codecs
]
QUICK = ("pca", "pix2pix", "variational_autoencoder", "diffusion in variational_autoencoder")
"""What the edit loop holds to the contract; one of each way to train."""
ALL = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in EVERY]
