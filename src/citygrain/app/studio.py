"""A model that several people may use in turn, and what its page lets them choose."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from citygrain.app.shown import label_of
from citygrain.errors import CapabilityError, ConfigError
from citygrain.generation.windows import draw
from citygrain.geo.raster_files import MANIFEST
from citygrain.latent import Codes, encode_places, find_codec
from citygrain.measures import MEASURES
from citygrain.networks.frame import BEARING, FRAME, is_settled
from citygrain.protocols import Denoiser, Sampler, Trained
from citygrain.samplers.areas import keeps_parts
from citygrain.samplers.base import find_fitting_samplers
from citygrain.samplers.parts import change_settings, list_settings
from citygrain.spec import NO_PLACE, Conditions, LayoutSpec
from citygrain.support.devices import find_device

LARGEST_SEED = 2**53 - 1000
"""A browser's numbers are exact up to 2⁵³."""

LIKELY = 256
"""Layouts that say which codes are likely, for a walk along a measure."""

AT_ONCE = 64
"""Layouts that are encoded at once."""


@dataclass(frozen=True)
class Range:
    """How far the slider of a condition goes.

    Attributes
    ----------
    name, label
        Of the condition; the label has its unit.
    low, high
        The least and the most of the training windows, in the unit, in whole steps.
    middle
        The median.
    step
        Of the slider.
    """

    name: str
    label: str
    low: float
    high: float
    middle: float
    step: float


@dataclass(frozen=True)
class Knob:
    """A number that a sampler may have: its name, what it does, and how far it goes."""

    name: str
    does: str
    low: float
    high: float
    step: float


KNOBS = (
    Knob("steps", "more steps draw finer and take longer", 1, 200, 1),
    Knob("guidance", "1 follows the conditions as learned, more exaggerates them", 0, 5, 0.1),
    Knob("tolerance", "how exactly requests are met, in standard deviations; empty: no correction", 0, 10, 0.01),
    Knob("temperature", "below 1 more typical, above 1 more diverse", 0, 2, 0.05),
    Knob("truncation", "below 1 more typical, less diverse", 0, 1, 0.05),
    Knob("bearing", "of most streets, in degrees from north, clockwise; empty: the model decides", 0, 90, 0.1),
)
"""The knobs of samplers that the page shows. The model's own values of all others are used."""

EMPTY: dict[str, float | None] = {"tolerance": math.inf, "bearing": None}
"""Knob whose field may be empty → its value then."""


@dataclass(frozen=True)
class Studio:
    """A model, and what it needs to draw for several people.

    Attributes
    ----------
    name
        The checkpoint.
    generator
        From `citygrain.load`. Nobody changes it.
    data
        Folder of prepared places.
    turn
        Held while something is drawn: one request after the other is answered.
    """

    name: str
    generator: Trained
    data: Path
    turn: threading.Lock

    @property
    def spec(self) -> LayoutSpec:
        """What the layouts are."""
        return self.generator.spec

    @cached_property
    def ranges(self) -> tuple[Range, ...]:
        """A slider for each condition that is measured on cells, and that the training windows vary in."""
        found = (range_of(self.spec, name) for name in self.spec.scalars if name != BEARING)
        return tuple(one for one in found if one is not None)

    @cached_property
    def ranges_of_layouts(self) -> tuple[Range, ...]:
        """The sliders of new layouts: models of turned windows know the bearing that a layout lies at, too."""
        bearing = range_of(self.spec, BEARING) if BEARING in self.spec.scalars else None
        return self.ranges if bearing is None else (*self.ranges, bearing)

    @cached_property
    def samplers(self) -> dict[str, Sampler]:
        """The samplers that fit: the model's own first, then others, with the same knobs where they have them."""
        own = self.generator.sampler
        kinds: dict[str, Any] = {**find_fitting_samplers(self.generator)}
        others = {
            name: kind(**{f.name: getattr(own, f.name) for f in fields(kind) if hasattr(own, f.name)})
            for name, kind in kinds.items()
            if kind is not type(own)
        }
        return {type(own).__name__: own, **others}

    @property
    def edits(self) -> bool:
        """Whether the model can keep a part of a layout."""
        return any(keeps_parts(self.generator, sampler) for sampler in self.samplers.values())

    @property
    def varies(self) -> bool:
        """Whether the model can begin from a layout that is there."""
        return isinstance(self.generator, Denoiser)

    @property
    def encodes(self) -> bool:
        """Whether the model has a code, or works in one."""
        try:
            find_codec(self.generator)
        except CapabilityError:
            return False
        return True

    @property
    def prepared(self) -> list[str]:
        """Names of the prepared places, those that the model was trained on first."""
        return self.at_hand + [place for place in prepared_places(self.data) if place not in self.spec.places]

    @property
    def at_hand(self) -> list[str]:
        """Those of the training places that are prepared here."""
        prepared = prepared_places(self.data)
        return [place for place in self.spec.places if place in prepared]

    @cached_property
    def likely(self) -> Codes:
        """Codes of `LIKELY` training windows or, where no training place is prepared, of layouts of the model."""
        if self.at_hand:
            with TemporaryDirectory() as kept:
                return encode_places(self.generator, self.data, count=LIKELY, places=self.at_hand, folder=kept)
        codec, spec = find_codec(self.generator), self.spec
        # Where nothing is asked for, guidance and tolerance change nothing but the time it takes.
        quick = {"steps": 8, "guidance": 1, "tolerance": None}
        sampler = turn_knobs(self, "DpmSolver", quick) if "DpmSolver" in self.samplers else None
        with torch.no_grad():
            drawn = draw(self.generator, Conditions.empty(spec, LIKELY), range(LIKELY), sampler=sampler)
            parts = torch.split(drawn.tensor.to(find_device(codec)), AT_ONCE)
            codes = torch.cat([codec.encode(part).float().cpu() for part in parts]).numpy()
        nowhere, numbers = np.full(LIKELY, NO_PLACE), np.arange(LIKELY)
        return Codes(codes, nowhere, dict(drawn.measured), spec, lambda which: drawn.shares[list(which)], numbers)


def prepared_places(data: Path) -> list[str]:
    """Return the names of the places that are prepared in a folder."""
    return sorted(manifest.parent.name for manifest in data.glob(f"*/{MANIFEST}"))


def range_of(spec: LayoutSpec, name: str) -> Range | None:
    """Return how far a condition's slider goes; None where it would change nothing, or nobody knows how far."""
    settled = bool(spec.given) if name == BEARING else is_settled(name, spec.given)
    if name not in spec.statistics or name not in {*MEASURES, *FRAME} or settled:
        return None
    low, middle, high = (spec.quantile(name, p) for p in (0, 50, 100))
    if not high > low:
        return None
    rough = (high - low) / 100
    ten = 10.0 ** math.floor(math.log10(rough))
    step = next(m * ten for m in (1, 2, 5, 10) if m * ten >= rough * 0.999)
    digits = max(0, -math.floor(math.log10(step)))
    # Up to a thousandth of a step outside: a share of 1 was measured as 0.9999999.
    first, last = math.ceil(low / step - 1e-3), math.floor(high / step + 1e-3)
    rounded = [round(n * step, digits) for n in (first, last, min(max(round(middle / step), first), last))]
    label, unit = label_of(name)
    return Range(name, f"{label} [{unit}]", rounded[0], rounded[1], rounded[2], round(step, digits))


def keep_ticked(values: Mapping[str, float | None], boxes: Mapping[str, bool]) -> dict[str, float]:
    """Return the values of the conditions whose box is ticked; a box beside an empty slider counts for nothing."""
    return {name: float(value) for name, value in values.items() if boxes[name] and value is not None}


def knobs_of(sampler: Sampler) -> dict[str, float | None]:
    """Return those knobs of a sampler that the page shows; None for one whose field is empty."""
    own = list_settings(sampler)
    values = {knob.name: own[knob.name] for knob in KNOBS if knob.name in own}
    return {name: None if name in EMPTY and value == EMPTY[name] else value for name, value in values.items()}


def turn_knobs(studio: Studio, name: str, knobs: Mapping[str, float | None]) -> Sampler:
    """Return a sampler of the studio with other knobs; those that it does not have are left aside.

    Raises
    ------
    ConfigError
        For a sampler that does not fit the model, or values that cannot work.
    """
    if name not in studio.samplers:
        raise ConfigError("This sampler does not fit the model.", got=name, choices=studio.samplers)
    sampler = studio.samplers[name]
    own = list_settings(sampler)
    values: dict[str, float | None] = {}
    for knob in KNOBS:
        if knob.name not in knobs_of(sampler):
            continue
        value = knobs.get(knob.name, own[knob.name])
        if value is None and knob.name in EMPTY:
            values[knob.name] = EMPTY[knob.name]
        elif value is None or not knob.low <= value <= knob.high:
            raise ConfigError(
                f"{name} cannot work with this value of {knob.name}.",
                expected=f"{knob.low:g} to {knob.high:g}",
                got="nothing" if value is None else value,
            )
        else:
            values[knob.name] = round(value) if knob.name == "steps" else float(value)
    # A knob that nobody has turned shows the value of one part, and leaves those of the other parts as they are.
    return change_settings(sampler, {name: value for name, value in values.items() if value != own[name]})


def check_whole(value: object, what: str, low: int, high: int) -> int:
    """Return a whole number within limits.

    Raises
    ------
    ConfigError
        When it is none.
    """
    if not isinstance(value, int | float) or value != value // 1 or not low <= value <= high:
        raise ConfigError(f"This is not {what}.", expected=f"a whole number from {low} to {high}", got=value)
    return int(value)


def check_seed(seed: object) -> int:
    """Return a seed that can be drawn with, and that a browser shows exactly.

    Raises
    ------
    ConfigError
        When it is none.
    """
    return check_whole(seed, "a seed", 0, LARGEST_SEED)
