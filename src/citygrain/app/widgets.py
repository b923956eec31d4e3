"""Parts that the tabs of the page are put together from, and how they answer a click."""

from __future__ import annotations

import html
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from citygrain.app.layouts import read_map
from citygrain.app.shown import label_of
from citygrain.app.studio import EMPTY, KNOBS, LARGEST_SEED, Range, Studio, keep_ticked, knobs_of, turn_knobs
from citygrain.errors import CitygrainError
from citygrain.geo.painted_map import PaintedMap
from citygrain.protocols import Sampler

ANY_PLACE = "any"
NO_PLACE = "No place is prepared here; `citygrain prepare place=helsinki` prepares one."

SESSION_SECONDS = 4 * 3600
"""After so long without use, what a person drew is forgotten."""

Values = Mapping[gr.components.Component, Any]
"""What stands in the components that a function of the page is given."""

Answer = Callable[[Values], Any]

PAINTED = ("of", "file", "black", "white")
"""Parts of `Painting`."""


class Desk:
    """Folders for what single requests write, all below one."""

    def __init__(self, home: Path) -> None:
        self.home = home / "requests"
        self.home.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def request(self, before: Path | None) -> Iterator[Path]:
        """Hand out a folder for a request. When all goes well, the folder of the request before is removed.

        When not, the new one is removed.
        """
        folder = Path(tempfile.mkdtemp(dir=self.home))
        try:
            yield folder
        except BaseException:
            remove_folder(folder)
            raise
        remove_folder(before)


def remove_folder(folder: Path | None) -> None:
    """Remove the folder of a request that nobody looks at any more."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def saying_errors(function: Answer) -> Answer:
    """Show citygrain's errors as what they say, with what was expected, what came and the remedy."""

    @wraps(function)
    def shown(values: Values) -> Any:
        try:
            return function(values)
        except CitygrainError as error:
            lines = (html.escape(line.strip()) for line in str(error).splitlines())
            problem, *details = (re.sub(r"`(.*?)`", r"<code>\1</code>", line) for line in lines)
            raise gr.Error(
                "<br>".join([problem, *details]), duration=None, title="This cannot be done", print_exception=False
            ) from error

    return shown


def answer_slowly(
    event: Callable[..., Any],
    function: Answer,
    inputs: set[gr.components.Component],
    outputs: Sequence[gr.components.Component],
    name: str,
    *,
    covers: gr.components.Component | None = None,
) -> None:
    """Answer an event by a function that takes long, one request after the other.

    Parameters
    ----------
    event
        Such as `button.click`.
    function
        It is given the values of the inputs, and returns those of the outputs.
    inputs, outputs
        Components.
    name
        Of the function, for programs that use the page.
    covers
        What a note of progress covers meanwhile.
    """
    event(
        saying_errors(function), inputs, list(outputs), concurrency_limit=1, concurrency_id="model", api_name=name,
        show_progress_on=covers, show_progress="full" if covers else "hidden",
    )  # fmt: skip


def answer_at_once(
    event: Callable[..., Any], function: Callable[..., Any] | None, inputs: Any, outputs: Any, **more: Any
) -> None:
    """Answer an event by a function that changes nothing but the page; None leaves all to the browser (`js`)."""
    event(function, inputs, outputs, show_progress="hidden", api_visibility="private", **{"queue": False, **more})


@dataclass(frozen=True)
class Asking:
    """A box and a slider for each condition of a model.

    Attributes
    ----------
    sliders, boxes
        Condition → its slider, and the box that is ticked where it is asked for.
    """

    sliders: Mapping[str, gr.components.Component]
    boxes: Mapping[str, gr.components.Component]

    @classmethod
    def lay_out(cls, ranges: Sequence[Range]) -> Asking:
        """Lay out sliders; one that is moved ticks its box."""
        sliders: dict[str, gr.components.Component] = {}
        boxes: dict[str, gr.components.Component] = {}
        if ranges:
            gr.Markdown(
                "**Ask for** what is ticked; a slider that is moved ticks its box. The model decides everything else."
            )
        with gr.Column(elem_classes="citygrain-asks"):
            for one in ranges:
                with gr.Row(elem_classes="citygrain-ask"):
                    box = gr.Checkbox(value=False, label="ask for it", container=False, scale=0, min_width=96)
                    slider = gr.Slider(one.low, one.high, value=one.middle, step=one.step, label=one.label)
                answer_at_once(slider.input, None, None, box, js="() => true")
                sliders[one.name], boxes[one.name] = slider, box
        return cls(sliders, boxes)

    @property
    def components(self) -> set[gr.components.Component]:
        """All of them."""
        return {*self.sliders.values(), *self.boxes.values()}

    def read(self, values: Values) -> dict[str, float]:
        """Return what is asked for: the values of those conditions whose box is ticked."""
        return keep_ticked(*({name: values[part] for name, part in of.items()} for of in (self.sliders, self.boxes)))


@dataclass(frozen=True)
class Painting:
    """The upload of a map that a person has painted, where a model takes maps.

    Attributes
    ----------
    parts
        `of`, `file`, `black` and `white` → the component; empty where a model takes none.
    """

    parts: Mapping[str, gr.components.Component]

    @classmethod
    def lay_out(cls, studio: Studio) -> Painting:
        """Lay out the file, and what it is a map of."""
        choices = [
            (" ".join([label, f"[{unit}]"]), name) for name in studio.spec.maps for label, unit in [label_of(name)]
        ]
        if not choices:
            return cls({})
        with gr.Accordion("A painted map: where there is how much", open=False):
            of = gr.Dropdown(choices, value=choices[0][1], label="map of", elem_id="map-of")
            with gr.Row():
                black = gr.Number(None, label="black is, in a picture (empty: 0)", elem_id="map-black")
                white = gr.Number(None, label="white is (empty: 1)", elem_id="map-white")
            file = gr.File(
                label="a GeoTIFF, a grey picture, or polygons with a column of this name", file_count="single",
                height=130, elem_id="map",
            )  # fmt: skip
        return cls({"of": of, "file": file, "black": black, "white": white})

    @property
    def components(self) -> set[gr.components.Component]:
        """All of them."""
        return {*self.parts.values()}

    def read(self, values: Values) -> dict[str, PaintedMap]:
        """Return the map that is asked for, by its name; nothing where no file was handed over."""
        of, file, black, white = (values[self.parts[name]] if self.parts else None for name in PAINTED)
        if file is None:
            return {}
        return {str(of): read_map(Path(file), black, white)}


@dataclass(frozen=True)
class Sampling:
    """The choice of a sampler and its knobs, by which all tabs of a model draw.

    Attributes
    ----------
    choice
        The sampler's name.
    knobs
        Knob → its slider.
    """

    choice: gr.components.Component
    knobs: Mapping[str, gr.components.Component]

    @classmethod
    def lay_out(cls, studio: Studio) -> Sampling:
        """Lay out the choice and all knobs; those that the chosen sampler does not have are hidden."""
        first = next(iter(studio.samplers))
        own = knobs_of(studio.samplers[first])
        knobs: dict[str, gr.components.Component] = {}
        with gr.Accordion("Sampler: how all three tabs draw", open=False):
            choice = gr.Dropdown(list(studio.samplers), value=first, label="sampler", elem_id="sampler")
            for knob in KNOBS:
                label, value, seen = f"{knob.name}: {knob.does}", own.get(knob.name), knob.name in own
                if knob.name in EMPTY:  # a field for numbers cannot be empty when the page opens: it shows 0
                    knobs[knob.name] = gr.Textbox(
                        write_knob(value), label=label, visible=seen, max_lines=1, elem_id=knob.name
                    )
                else:
                    knobs[knob.name] = gr.Slider(
                        knob.low, knob.high, value=knob.low if value is None else value, step=knob.step, label=label,
                        visible=seen, elem_id=knob.name,
                    )  # fmt: skip

        def choose(name: str) -> list[Any]:
            values = knobs_of(studio.samplers[name])
            return [
                gr.update(visible=True, value=write_knob(values[name]) if name in EMPTY else values[name])
                if name in values
                else gr.update(visible=False)
                for name in knobs
            ]

        answer_at_once(choice.input, choose, choice, list(knobs.values()))
        return cls(choice, knobs)

    @property
    def components(self) -> set[gr.components.Component]:
        """All of them."""
        return {self.choice, *self.knobs.values()}

    def read(self, studio: Studio, values: Values) -> Sampler:
        """Return the sampler as it is chosen and turned."""
        knobs = {
            name: read_knob(values[component]) if name in EMPTY else values[component]
            for name, component in self.knobs.items()
        }
        return turn_knobs(studio, values[self.choice], knobs)


def write_knob(value: float | None) -> str:
    """Return what the field of a knob shows that may be empty."""
    return "" if value is None else f"{value:g}"


def read_knob(text: str | None) -> float | None:
    """Return the number in the field of a knob: None of an empty one, NaN of what is no number."""
    try:
        return float(text) if text and text.strip() else None
    except ValueError:
        return math.nan


def place_choice(studio: Studio) -> gr.Dropdown:
    """Lay out the choice of a training place that layouts are to be like; `read_place` reads it."""
    return gr.Dropdown([ANY_PLACE, *studio.spec.places], value=ANY_PLACE, label="like the place")


def read_place(value: str | None) -> str | None:
    """Return the name of the chosen place; None for any."""
    return None if value in {None, ANY_PLACE} else value


def seed_field(value: int, label: str = "seed") -> gr.Number:
    """Lay out a field for a seed."""
    return gr.Number(value, label=label, precision=0, minimum=0, maximum=LARGEST_SEED)


def picture_frame(name: str) -> gr.Image:
    """Lay out where a picture is shown, and can be downloaded and enlarged."""
    return gr.Image(show_label=False, format="png", buttons=["download", "fullscreen"], interactive=False, elem_id=name)


def number_table(headings: Sequence[str], label: str, name: str) -> gr.Dataframe:
    """Lay out a table that can be copied."""
    return gr.Dataframe(
        headers=list(headings), interactive=False, wrap=True, label=label, buttons=["copy"], max_height=700,
        elem_id=name, elem_classes="citygrain-table",
    )  # fmt: skip


def download(label: str, name: str) -> gr.DownloadButton:
    """Lay out a button that hands out a file, once there is one; `offer` brings it."""
    return gr.DownloadButton(label, interactive=False, elem_id=name)


def offer(file: Path) -> dict[str, Any]:
    """Return what lets a download button hand out a file."""
    offered: dict[str, Any] = gr.update(value=str(file), interactive=True)
    return offered
