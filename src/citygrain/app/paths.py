"""Paths through the code of a model: from one layout to another, or along a measure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from citygrain.app.shown import SHARE, Row, format_number, label_of, make_page_sheet
from citygrain.app.studio import Range, Studio, check_seed, check_whole
from citygrain.errors import CapabilityError, ConfigError
from citygrain.generation.windows import draw
from citygrain.latent import CodePath, decode, find_codec, follow, interpolate
from citygrain.measures import measure
from citygrain.protocols import Codec, Sampler
from citygrain.spec import Conditions, LayoutSpec
from citygrain.support.devices import find_device

MOST_STEPS = 25

PATH_HEADINGS = ("measure", "unit", "start", "here", "end")
WALK_HEADINGS = ("measure", "unit", "asked", "as drawn", "here")


def draw_path(
    studio: Studio,
    seeds: tuple[object, object],
    places: tuple[str | None, str | None],
    steps: object = 9,
    sampler: Sampler | None = None,
) -> CodePath:
    """Draw two layouts, and go from the code of one to the code of the other.

    Parameters
    ----------
    studio
        The model; it has a code, or works in one.
    seeds, places
        Of both ends. The places are training places that the ends are to be like; None for any.
    steps
        How many, both ends among them.
    sampler
        Another than the model's own.

    Raises
    ------
    CapabilityError
        For a model without a code, or one that is given channels.
    ConfigError
        For seeds or steps that are none.
    """
    codec = _codec_without_given(studio)
    ends = [check_seed(seed) for seed in seeds]
    count = check_whole(steps, "the number of steps", 2, MOST_STEPS)
    with studio.turn, torch.no_grad():
        start, end = _draw_codes(studio, codec, ends, places, sampler)
        return interpolate(codec, start[None], end[None], count)


def show_step(studio: Studio, path: CodePath, step: int) -> tuple[Image.Image, list[Row]]:
    """Return the picture of a step between both ends, and rows in the columns of `PATH_HEADINGS`."""
    last = len(path.positions) - 1
    here = min(max(int(step), 0), last)
    titles = ["start", f"{path.positions[here]:.0%} of the way", "end"]
    with studio.turn:
        picture = make_page_sheet(path.layouts[[0, here, last], 0], path.spec, titles, columns=3)
    rows = [
        [*label_of(name), *(format_number(values[i, 0]) for i in (0, here, last))]
        for name, values in path.measured.items()
    ]
    return picture, rows


@dataclass(frozen=True)
class Walk:
    """A layout that is changed step by step until a measure has the value that was asked for.

    Attributes
    ----------
    path
        Step 0 is the layout as it was drawn; the others are the steps of the walk.
    target
        The measure that is moved.
    asked
        `(S,)` in its unit, one for each step of the walk.
    hold
        Measures that were to stay as they were.
    """

    path: CodePath
    target: str
    asked: NDArray[np.float64]
    hold: tuple[str, ...]


def usual_ends(studio: Studio, name: str) -> tuple[float, float]:
    """Return from where to where a measure is moved unless told otherwise: percentiles 5 to 95 of the training."""
    about = next(one for one in studio.ranges if one.name == name)
    digits = max(0, -math.floor(math.log10(about.step)))
    low, high = (round(studio.spec.quantile(name, p), digits) for p in (5, 95))
    return (low, high) if high > low else (about.low, about.high)


def draw_walk(
    studio: Studio,
    seed: object,
    place: str | None,
    target: str,
    ends: tuple[float | None, float | None],
    hold: Sequence[str] = (),
    steps: object = 9,
    sampler: Sampler | None = None,
) -> Walk:
    """Draw a layout, and change it until a measure has the value that is asked for: see `citygrain.latent.follow`.

    Parameters
    ----------
    studio
        The model; it has a code, or works in one.
    seed, place
        Of the layout. The place is a training place that it is to be like; None for any.
    target
        The measure to move.
    ends
        From and to, in its unit.
    hold
        Measures that are to stay as they are.
    steps
        How many, both ends among them.
    sampler
        Another than the model's own.

    Raises
    ------
    CapabilityError
        For a model without a code, or one that is given channels.
    ConfigError
        For a seed, steps or ends that are none, or a measure of which nobody knows how far it goes.
    """
    codec, spec = _codec_without_given(studio), studio.spec
    from_to = _check_ends(studio, target, ends)
    first, count = check_seed(seed), check_whole(steps, "the number of steps", 2, MOST_STEPS)
    keep = tuple(name for name in hold if name != target)
    with studio.turn:
        with torch.no_grad():
            start = _draw_codes(studio, codec, [first], [place], sampler)
        now = float(measure(decode(codec, start), spec.channels, spec.resolution_m)[target][0])
        asked = np.linspace(*from_to, count)
        path = follow(codec, start, target, [0, *(asked - now)], studio.likely, hold=keep)
    return Walk(path, target, asked, keep)


def show_walk(studio: Studio, walk: Walk, step: int) -> tuple[Image.Image, list[Row]]:
    """Return the picture of a step beside the layout as it was drawn, and rows in the columns of `WALK_HEADINGS`.

    The measure that is moved is in the first row, those that were to stay follow.
    """
    here = min(max(int(step), 0), len(walk.asked) - 1)
    label, unit = label_of(walk.target)
    titles = ["as drawn", f"{label}: {walk.asked[here]:.3g}{'' if unit == SHARE else f' {unit}'} asked"]
    with studio.turn:
        picture = make_page_sheet(walk.path.layouts[[0, here + 1], 0], walk.path.spec, titles)
    rows = []
    for name in sorted(walk.path.measured, key=lambda name: (name != walk.target, name not in walk.hold)):
        drawn, now = (format_number(value) for value in walk.path.measured[name][[0, here + 1], 0])
        asked = format_number(walk.asked[here]) if name == walk.target else drawn if name in walk.hold else ""
        rows.append([*label_of(name), asked, drawn, now])
    return picture, rows


def _codec_without_given(studio: Studio) -> Codec:
    codec = find_codec(studio.generator)
    if studio.spec.given:
        raise CapabilityError(
            "Layouts around given channels are no ends of a path.", remedy="choose a model that draws from nothing"
        )
    return codec


def _draw_codes(
    studio: Studio, codec: Codec, seeds: Sequence[int], places: Sequence[str | None], sampler: Sampler | None
) -> NDArray[np.float32]:
    """Draw a layout for each seed and place, and return their codes."""
    spec: LayoutSpec = studio.spec
    requests = Conditions.cat([Conditions.request(spec, 1, {"place": place}) for place in places])
    layouts = draw(studio.generator, requests, seeds, sampler=sampler).tensor
    codes: NDArray[np.float32] = codec.encode(layouts.to(find_device(codec))).float().cpu().numpy()
    return codes


def _check_ends(studio: Studio, target: str, ends: tuple[float | None, float | None]) -> tuple[float, float]:
    about: Range | None = next((one for one in studio.ranges if one.name == target), None)
    if about is None:
        raise ConfigError("This measure cannot be moved.", got=target, choices=[one.name for one in studio.ranges])
    checked = []
    for end in ends:
        if end is None or not about.low <= end <= about.high:
            raise ConfigError(
                f"Training has seen no such {about.label}.",
                expected=f"{about.low:g} to {about.high:g}",
                got="nothing" if end is None else f"{end:g}",
            )
        checked.append(end)
    return checked[0], checked[1]
