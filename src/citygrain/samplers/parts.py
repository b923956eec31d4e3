"""The sampler of families that have parts, and the settings of samplers, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from citygrain.errors import CapabilityError, ConfigError
from citygrain.geo.drawn_ways import DrawnWays
from citygrain.measures import maps_unchecked
from citygrain.networks.frame import find_condition
from citygrain.protocols import DrawsWays, Generator, HasParts, Noise, Sampler, require
from citygrain.samplers.base import HandleSampler
from citygrain.spec import Conditions, LayoutSpec
from citygrain.support.targets import TARGET, check_signatures

PLAN, DENSITIES, GROUND = "plan", "densities", "ground"
"""The parts, in the order in which they draw."""

PARTS = (PLAN, DENSITIES, GROUND)

PLANS = ("stroke_transformer",)
"""Families that draw ways as lines."""


@dataclass(frozen=True)
class DrawParts(HandleSampler[HasParts]):
    """Draw with each part in turn, each with a sampler of its own and with noise of its own.

    Parameters
    ----------
    plan, ground
        The samplers of the plan and of the ground.
    densities
        The sampler of the densities; None where there is no such part.
    """

    needs: ClassVar[type] = HasParts

    plan: Sampler
    ground: Sampler
    densities: Sampler | None = None

    @property
    def parts(self) -> dict[str, Sampler]:
        """The samplers by the names of the parts, in the order in which they draw."""
        found = {PLAN: self.plan, DENSITIES: self.densities, GROUND: self.ground}
        return {name: sampler for name, sampler in found.items() if sampler is not None}

    def draw(self, model: HasParts, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw layouts `(B, C, H, W)`."""
        return self.draw_with_ways(model, conditions, noise)[0]

    def draw_with_ways(self, model: HasParts, conditions: Conditions, noise: Noise) -> tuple[Tensor, list[DrawnWays]]:
        """Draw layouts `(B, C, H, W)`, and return their ways as lines, too."""
        spec = model.spec
        layout = conditions.scalars.new_zeros(len(conditions), *spec.shape)
        plan = require(model.plan, DrawsWays, "The plan of a cascade", PLANS)
        asked = ask_part(model.plan, spec, conditions, layout)
        drawn, ways = plan.sample_with_ways(asked, noise=noise.fork(0), sampler=self.plan)
        layout[:, find_channels(spec, model.plan.spec)] = drawn.to(layout)
        asked = ask_part(model.ground, spec, conditions, layout)
        if model.densities is not None:
            before = ask_part(model.densities, spec, conditions, layout)
            drawn = model.densities.sample(before, noise=noise.fork(1), sampler=self.densities)
            names, of = list_drawn_maps(model), model.ground.spec
            maps = maps_unchecked(drawn, model.densities.spec.channels, of.map_px, names)
            asked = _add_maps(asked, of, maps, conditions.translate(spec, of))
        drawn = model.ground.sample(asked, noise=noise.fork(2), sampler=self.ground)
        layout[:, find_channels(spec, model.ground.spec)] = drawn.to(layout)
        return layout, ways


def find_channels(spec: LayoutSpec, part: LayoutSpec) -> list[int]:
    """Return where the channels of a part stand in whole layouts."""
    return [spec.channels.index(name) for name in part.channels]


def ask_part(part: Generator, spec: LayoutSpec, conditions: Conditions, layout: Tensor) -> Conditions:
    """Return what a part is asked for: what it knows of the requests, and the given channels of whole layouts.

    A part is asked for whole maps. Of a map with open cells (NaN) it is not asked.

    Parameters
    ----------
    part
        The part.
    spec, conditions
        Of the whole.
    layout
        `(B, C, H, W)`: what has been drawn of the whole layouts.
    """
    asked = conditions.translate(spec, part.spec)
    if asked.maps.numel():
        whole = asked.maps.isfinite().all(-1).all(-1)
        asked = replace(asked, maps=asked.maps.nan_to_num(), maps_present=asked.maps_present & whole)
    if not part.spec.given:
        return asked
    given = layout[:, [spec.channels.index(name) for name in part.spec.given]]
    return replace(asked, given=given, given_present=asked.given_present.new_ones(len(asked)))


def list_drawn_maps(model: HasParts) -> tuple[str, ...]:
    """Return the maps of the ground that the channels of the densities tell."""
    channels = set() if model.densities is None else {*model.densities.spec.channels}
    return tuple(name for name in model.ground.spec.maps if {*find_condition(name).channels} <= channels)


def _add_maps(conditions: Conditions, spec: LayoutSpec, drawn: Mapping[str, Tensor], asked: Conditions) -> Conditions:
    """Ask for the maps that were drawn, on the cells of which nothing was asked: without a map, and where it is NaN."""
    maps, present = conditions.maps.clone(), conditions.maps_present.clone()
    for name, values in drawn.items():
        column = spec.maps.index(name)
        painted = asked.maps[:, column].isfinite() & asked.maps_present[:, column, None, None]
        maps[:, column] = torch.where(painted, asked.maps[:, column], values.to(maps))
        present[:, column] = True
    return replace(conditions, maps=maps, maps_present=present)


def list_settings(sampler: Sampler) -> dict[str, Any]:
    """Return the settings of a sampler, by name. Of a sampler of parts they are those of its parts.

    Where several parts have a setting, its value is that of the part that draws last.
    """
    if isinstance(sampler, DrawParts):
        return {name: value for part in sampler.parts.values() for name, value in list_settings(part).items()}
    return {f.name: getattr(sampler, f.name) for f in fields(sampler)}


def change_settings(sampler: Sampler, changes: Mapping[str, Any]) -> Sampler:
    """Return a sampler with other settings.

    Of a sampler of parts, a setting is changed in every part that has it. `{"ground": {"steps": 8}}` changes the
    settings of one part.

    Raises
    ------
    CapabilityError
        For a setting that the sampler does not have.
    ConfigError
        For a value that a setting cannot have.
    """
    kind, own = type(sampler), list_settings(sampler)
    parts = sampler.parts if isinstance(sampler, DrawParts) else {}
    for name in changes:
        if name not in own and name not in parts:
            raise CapabilityError(
                f"{kind.__name__}, the sampler of this model, has no such setting.", got=name, choices=[*own, *parts]
            )
    if not isinstance(sampler, DrawParts):
        check_signatures({TARGET: f"{kind.__module__}.{kind.__qualname__}", **changes}, "sampler")
        return replace(sampler, **changes)
    changed = {}
    for name, part in parts.items():
        alone = changes.get(name, {})
        if not isinstance(alone, Mapping):
            raise ConfigError(
                "A part of the sampler has settings of its own.",
                expected=f"sampler.{name}={{setting:value}}, with settings among {', '.join(list_settings(part))}",
                got=alone,
            )
        shared = {key: value for key, value in changes.items() if key in list_settings(part)}
        changed[name] = change_settings(part, {**shared, **alone})
    return replace(sampler, **changed)
