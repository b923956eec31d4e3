"""The cascade: a plan of ways, maybe densities, then the ground, as one generator."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from citygrain.errors import CapabilityError, ConfigError
from citygrain.geo.drawn_ways import DrawnWays
from citygrain.geo.layers import CHANNEL_NAMES
from citygrain.measures import MEASURES
from citygrain.networks.frame import FRAME, find_condition
from citygrain.protocols import DrawsWays, Generator, MeasuresData, Noise, Sampler, require
from citygrain.samplers.parts import DENSITIES, GROUND, PLAN, PLANS, DrawParts, ask_part, find_channels
from citygrain.spec import Conditions, LayoutSpec


class Cascade(nn.Module):
    """Draw ways as lines, then the ground on them, with parts that were trained on their own.

    A request goes to the parts that know it: lengths to the plan, coverage to the ground, a place to all that know it.
    What a part does not know, it is not asked for.

    Parameters
    ----------
    spec
        Layouts and conditions of the whole, see `Cascade.join_specs`.
    plan
        A generator of ways that knows them as lines.
    ground
        A generator that is given these ways, and makes the other channels.
    densities
        A generator of coarse densities that is given these ways, too. What it draws becomes maps that the ground is
        asked for, where no map is asked for. None leaves the ground to the other requests.
    sampler
        Used by `sample` unless another is given; by default each part draws with its own.

    Raises
    ------
    ConfigError
        When the parts do not fit each other, or the spec.
    """

    def __init__(
        self,
        spec: LayoutSpec,
        *,
        plan: nn.Module,
        ground: nn.Module,
        densities: nn.Module | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        super().__init__()
        for name, part in ((PLAN, plan), (DENSITIES, densities), (GROUND, ground)):
            if part is not None and not isinstance(part, Generator):
                raise ConfigError(f"The {name} of a cascade is a generator.", got=type(part).__name__)
        self.spec = spec
        self.plan: Generator = plan  # type: ignore[assignment]  # a module that is a generator
        self.ground: Generator = ground  # type: ignore[assignment]
        self.densities: Generator | None = densities  # type: ignore[assignment]
        _check_whole(spec, self.parts)
        self.sampler: Sampler = sampler or DrawParts(
            self.plan.sampler, self.ground.sampler, None if self.densities is None else self.densities.sampler
        )

    @property
    def parts(self) -> dict[str, Generator]:
        """The parts by name, in the order in which they draw."""
        found = {PLAN: self.plan, DENSITIES: self.densities, GROUND: self.ground}
        return {name: part for name, part in found.items() if part is not None}

    @staticmethod
    def join_specs(parts: Mapping[str, Generator]) -> LayoutSpec:
        """Return the spec of a cascade: all channels of its parts, and all that one of them knows.

        Places that all parts know come first. A place that only one part knows can be asked for, too: this part draws
        it, and the others draw no place in particular. So ways of a place can be drawn whose buildings nobody knows.

        Parameters
        ----------
        parts
            `plan`, `ground` and maybe `densities` → the part.

        Raises
        ------
        ConfigError, CapabilityError
            When the parts do not fit each other.
        """
        _check_parts(parts)
        plan, ground = parts[PLAN].spec, parts[GROUND].spec
        specs = [plan, ground, *(part.spec for name, part in parts.items() if name == DENSITIES)]
        channels = {name for spec in (plan, ground) for name in spec.channels}
        scalars = {name for spec in specs for name in spec.scalars}
        places = list(dict.fromkeys(place for spec in specs for place in spec.places))
        maps = list(dict.fromkeys(name for spec in specs for name in spec.maps))
        statistics: dict[str, dict[str, tuple[float, ...]]] = {}
        for spec in specs:  # the plan draws the ways, so that it tells how dense they were
            for scalar, by_place in spec.statistics.items():
                statistics[scalar] = {**by_place, **statistics.get(scalar, {})}
        return LayoutSpec(
            channels=tuple(sorted(channels, key=CHANNEL_NAMES.index)),
            size_px=ground.size_px,
            resolution_m=ground.resolution_m,
            scalars=tuple(name for name in MEASURES if name in scalars),
            maps=tuple(maps),
            map_px=max(spec.map_px for spec in specs),
            places=tuple(sorted(places, key=lambda place: any(place not in spec.places for spec in specs))),
            statistics=statistics,
            raster_format=ground.raster_format,
        )

    def measure_data(self, layouts: Tensor) -> None:
        """Set the statistics of the parts that have some, from training layouts `(N, C, H, W)`."""
        for part in self.parts.values():
            if isinstance(part, MeasuresData):
                part.measure_data(layouts[:, find_channels(self.spec, part.spec)])

    def loss(self, layout: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the losses of all parts, named by their part, and the sum of what each minimises."""
        losses = {}
        for name, part in self.parts.items():
            asked = ask_part(part, self.spec, conditions, layout)
            for key, value in part.loss(layout[:, find_channels(self.spec, part.spec)], asked).items():
                losses[f"{name}_{key}"] = value
        total = torch.stack([losses[f"{name}_loss"] for name in self.parts]).sum()
        return {"loss": total, **losses}

    @torch.no_grad()
    def sample(self, conditions: Conditions, *, noise: Noise, sampler: Sampler | None = None) -> Tensor:
        """Draw layouts `(B, C, H, W)` in [0, 1]."""
        return (sampler or self.sampler)(self, conditions, noise)

    @torch.no_grad()
    def sample_with_ways(
        self, conditions: Conditions, *, noise: Noise, sampler: Sampler | None = None
    ) -> tuple[Tensor, list[DrawnWays]]:
        """Draw layouts, as `sample` does, and return their ways as lines, too."""
        chosen = sampler or self.sampler
        if not isinstance(chosen, DrawParts):
            raise CapabilityError(
                "A cascade draws with a sampler for each part.",
                expected="DrawParts",
                got=type(chosen).__name__,
                remedy="change the settings of its parts: sampler.steps=…, sampler.ground={steps:…}",
            )
        return chosen.draw_with_ways(self, conditions, noise)


def _check_parts(parts: Mapping[str, Generator]) -> None:
    """Refuse parts that do not fit each other.

    Raises
    ------
    CapabilityError
        When the plan does not know its ways as lines.
    ConfigError
        Tells what each part has.
    """
    require(parts[PLAN], DrawsWays, "The plan of a cascade", PLANS)
    plan, ground = parts[PLAN].spec, parts[GROUND].spec
    specs = {name: part.spec for name, part in parts.items()}
    for name, spec in specs.items():
        if _cells(spec) != _cells(ground):
            raise ConfigError(
                f"The parts of a cascade draw the same windows, and the {name} and the ground do not.",
                expected=f"ground: {_windows_of(ground)}",
                got=f"{name}: {_windows_of(spec)}",
                remedy="train them with the same data.size_px and data.resolution_m, on places of the same format",
            )
        if framed := [condition for condition in spec.scalars if condition in FRAME]:
            raise ConfigError(
                "A cascade draws upright windows.",
                got=f"{name}: conditions {', '.join(framed)}",
                remedy=f"train the {name} with data.frame=none",
            )
    if not ground.given or not set(ground.given) <= set(plan.channels):
        raise ConfigError(
            "The ground of a cascade is given ways that its plan draws, and nothing else.",
            expected=f"given channels among {', '.join(plan.channels)}",
            got=", ".join(ground.given) or "none",
            remedy=f"train the ground with model.given=[{','.join(plan.channels)}]",
        )
    if both := [name for name in plan.channels if name in ground.channels and name not in ground.given]:
        raise ConfigError(
            "Two parts of a cascade draw the same channels.",
            expected="each way of the plan given to the ground, or unknown to it",
            got=", ".join(both),
            remedy=f"train the ground with model.given=[{','.join(plan.channels)}]",
        )
    if len({spec.map_px for spec in specs.values() if spec.maps}) > 1:
        raise ConfigError(
            "The maps of the parts of a cascade have one size.",
            got=", ".join(f"{name}: map_px={spec.map_px}" for name, spec in specs.items() if spec.maps),
        )
    if DENSITIES in specs:
        _check_densities(specs[DENSITIES], plan, ground)


def _check_densities(densities: LayoutSpec, plan: LayoutSpec, ground: LayoutSpec) -> None:
    """Refuse densities that are not drawn on the ways, or that the ground cannot be asked for."""
    strange = [name for name in densities.channels if name not in {*plan.channels, *ground.channels}]
    if strange or not densities.given or not set(densities.given) <= set(plan.channels):
        raise ConfigError(
            "The densities of a cascade are given ways that its plan draws, and draw what the ground draws.",
            expected=f"given channels among {', '.join(plan.channels)}; others among {', '.join(ground.channels)}",
            got=f"given: {', '.join(densities.given) or 'none'}; channels: {', '.join(densities.channels)}",
        )
    if not any(set(find_condition(name).channels) <= set(densities.channels) for name in ground.maps):
        raise ConfigError(
            "The ground of this cascade takes no map that the densities tell.",
            expected=f"maps of what is measured on {', '.join(densities.channels)}",
            got=", ".join(ground.maps) or "none",
            remedy="train the ground with data.maps=[coverage,green] data.map_px=…",
        )


def _check_whole(spec: LayoutSpec, parts: Mapping[str, Generator]) -> None:
    """Refuse a spec that the parts do not make up."""
    _check_parts(parts)
    plan, ground = parts[PLAN].spec, parts[GROUND].spec
    if set(spec.channels) != {*plan.channels, *ground.channels} or _cells(spec) != _cells(ground):
        raise ConfigError(
            "These parts draw other layouts.",
            expected=f"{', '.join(spec.channels)}; {_windows_of(spec)}",
            got=f"{', '.join(dict.fromkeys([*plan.channels, *ground.channels]))}; {_windows_of(ground)}",
        )
    for what in ("scalars", "maps", "places"):
        known = {name for part in parts.values() for name in getattr(part.spec, what)}
        if strange := [name for name in getattr(spec, what) if name not in known]:
            raise ConfigError(
                f"No part of the cascade knows these {what}.", got=", ".join(strange), choices=sorted(known)
            )


def _cells(spec: LayoutSpec) -> tuple[int, float, int]:
    return spec.size_px, spec.resolution_m, spec.raster_format


def _windows_of(spec: LayoutSpec) -> str:
    return f"{spec.size_px} × {spec.size_px} cells of {spec.resolution_m:g} m, format {spec.raster_format}"
