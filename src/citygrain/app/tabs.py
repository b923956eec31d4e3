"""The three tabs of a model: layouts, paths through its code, and sites that are redrawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from citygrain.app.layouts import HEADINGS, MOST_ATTEMPTS, MOST_LAYOUTS, draw_layouts
from citygrain.app.paths import (
    PATH_HEADINGS,
    WALK_HEADINGS,
    Walk,
    draw_path,
    draw_walk,
    show_step,
    show_walk,
    usual_ends,
)
from citygrain.app.sites import (
    EDIT_HEADINGS,
    Ground,
    canvas_px,
    make_canvas,
    middle_of,
    open_ground,
    painted_cells,
    read_ground,
    redraw_site,
)
from citygrain.app.studio import LIKELY, Studio
from citygrain.app.widgets import (
    NO_PLACE,
    SESSION_SECONDS,
    Asking,
    Desk,
    Painting,
    Sampling,
    Values,
    answer_at_once,
    answer_slowly,
    download,
    number_table,
    offer,
    picture_frame,
    place_choice,
    read_place,
    remove_folder,
    seed_field,
)
from citygrain.errors import ConfigError
from citygrain.latent import CodePath

TO_LAYOUT, TO_MEASURE = "to another layout", "along a measure"
ABOUT_LAYOUT = "Two layouts are drawn. The path goes straight from the code of one to the code of the other."

NO_CODE = (
    "There is no path between layouts of this model: it has no code, but draws cells. "
    "A variational autoencoder has a code, and so has a diffusion model that works in it."
)

STEPS = 9
"""Of a path."""

BRUSH = "#d9572fb0"


@dataclass(frozen=True)
class Room:
    """What the tabs of one model share.

    Attributes
    ----------
    studio
        The model.
    desk
        Where requests write.
    seed
        That the page begins with.
    sampling
        How all tabs draw.
    """

    studio: Studio
    desk: Desk
    seed: int
    sampling: Sampling


def sample_tab(room: Room) -> None:
    """Lay out the tab that draws layouts."""
    studio = room.studio
    given_channels, prepared = ", ".join(studio.spec.given), studio.prepared
    if given_channels and not prepared:
        gr.Markdown(f"This model draws around given channels ({given_channels}) of a real place. {NO_PLACE}")
        return
    kept = gr.State(None, time_to_live=SESSION_SECONDS, delete_callback=remove_folder)
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=340):
            given = gr.Dropdown(
                prepared, value=prepared[0] if given_channels else None, visible=bool(given_channels), elem_id="given",
                label=f"given channels ({given_channels}) of the prepared place",
            )  # fmt: skip
            with gr.Row():
                place = place_choice(studio)
                seed = seed_field(room.seed)
                count = gr.Slider(1, MOST_LAYOUTS, value=4, step=1, label="layouts", elem_id="count")
            attempts = gr.Slider(
                1, MOST_ATTEMPTS, value=1, step=1, elem_id="attempts",
                label="attempts: a layout that misses its request is drawn again, with a corrected request",
            )  # fmt: skip
            button = gr.Button("Draw", variant="primary", elem_id="draw")
            painting = Painting.lay_out(studio)
            asking = Asking.lay_out(studio.ranges_of_layouts)
        with gr.Column(scale=6, min_width=420):
            picture = picture_frame("layouts")
            with gr.Row():
                tifs, vectors = download("GeoTIFFs (ZIP)", "tifs"), download("GeoPackage", "vectors")
            rows = number_table(HEADINGS, "requested and measured", "measured")

    def draw(values: Values) -> list[Any]:
        with room.desk.request(values[kept]) as folder:
            drawn = draw_layouts(
                studio,
                {**asking.read(values), **painting.read(values)},
                folder,
                place=read_place(values[place]),
                given=values[given],
                seed=values[seed],
                n=values[count],
                attempts=values[attempts],
                sampler=room.sampling.read(studio, values),
            )
        return [folder, drawn.picture, drawn.rows, offer(drawn.zipped), offer(drawn.vectors)]

    asked = {*asking.components, *painting.components, *room.sampling.components}
    inputs = {kept, given, place, seed, count, attempts, *asked}
    answer_slowly(button.click, draw, inputs, [kept, picture, rows, tifs, vectors], "draw", covers=picture)


def path_tab(room: Room) -> None:
    """Lay out the tab that goes through the code of a model."""
    studio = room.studio
    if not studio.encodes:
        gr.Markdown(NO_CODE)
        return
    kept = gr.State(None, time_to_live=SESSION_SECONDS)
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=300):
            ways = [TO_LAYOUT, TO_MEASURE] if studio.ranges else [TO_LAYOUT]
            way = gr.Radio(ways, value=TO_LAYOUT, label="where to", elem_id="way")
            with gr.Row():
                seed, place = seed_field(room.seed, "seed of the start"), place_choice(studio)
            with gr.Group() as to_layout, gr.Row():
                end_seed, end_place = seed_field(room.seed + 1, "seed of the end"), place_choice(studio)
            with gr.Group(visible=False) as to_measure:
                target, low, high, hold = _measure_choice(studio)
            button = gr.Button("Draw the path", variant="primary", elem_id="walk")
            about = gr.Markdown(ABOUT_LAYOUT)
        with gr.Column(scale=7, min_width=420):
            step = gr.Slider(0, STEPS - 1, value=STEPS // 2, step=1, label="step along the path", elem_id="step")
            picture = picture_frame("path")
            rows = number_table(PATH_HEADINGS, "measured", "path-measured")

    def turn(name: str) -> list[Any]:
        there = name == TO_LAYOUT
        words = ABOUT_LAYOUT if there else _about_measure(studio)
        return [gr.update(visible=there), gr.update(visible=not there), words]

    def draw(values: Values) -> list[Any]:
        sampler, like = room.sampling.read(studio, values), read_place(values[place])
        if values[way] == TO_MEASURE:
            ends = values[low], values[high]
            made: CodePath | Walk = draw_walk(
                studio, values[seed], like, values[target] or "", ends, values[hold], STEPS, sampler=sampler
            )
        else:
            seeds, places = (values[seed], values[end_seed]), (like, read_place(values[end_place]))
            made = draw_path(studio, seeds, places, STEPS, sampler)
        return [made, *_show_step(studio, made, values[step])]

    answer_at_once(way.change, turn, way, [to_layout, to_measure, about])
    inputs = {way, seed, place, end_seed, end_place, target, low, high, hold, step, *room.sampling.components}
    answer_slowly(button.click, draw, inputs, [kept, picture, rows], "path", covers=picture)
    answer_at_once(
        step.change, lambda made, at: _show_step(studio, made, at), [kept, step], [picture, rows], queue=True,
        trigger_mode="always_last",
    )  # fmt: skip


def _show_step(studio: Studio, made: CodePath | Walk | None, at: int) -> list[Any]:
    """Return the picture and the table of a step; nothing changes before there is a path."""
    if made is None:
        return [gr.skip(), gr.skip()]
    if isinstance(made, Walk):
        headings, (picture, rows) = WALK_HEADINGS, show_walk(studio, made, at)
    else:
        headings, (picture, rows) = PATH_HEADINGS, show_step(studio, made, at)
    return [picture, {"headers": list(headings), "data": rows}]


def _measure_choice(studio: Studio) -> tuple[gr.Dropdown, gr.Number, gr.Number, gr.Dropdown]:
    """Lay out which measure is moved, from where to where, and what stays."""
    choices = [(one.label, one.name) for one in studio.ranges]
    first = studio.ranges[0].name if studio.ranges else None
    start, end = usual_ends(studio, first) if first else (None, None)
    target = gr.Dropdown(choices, value=first, label="measure", elem_id="target")
    with gr.Row():
        low, high = gr.Number(start, label="from", elem_id="from"), gr.Number(end, label="to", elem_id="to")
    hold = gr.Dropdown(choices, value=[], multiselect=True, label="keep as drawn", elem_id="hold")
    answer_at_once(target.input, lambda name: list(usual_ends(studio, name)), target, [low, high])
    return target, low, high, hold


def _about_measure(studio: Studio) -> str:
    where = (
        f"{LIKELY} training windows of {', '.join(studio.at_hand)}"
        if studio.at_hand
        else f"{LIKELY} layouts that the model draws itself, as none of its places is prepared here"
    )
    return (
        "A layout is drawn. Then its code is changed, along the gradients of the decoder, until the decoded layout "
        "measures what is asked for. The change is kept as small as possible. What counts as small is learned from "
        f"{where}; the first path waits for them."
    )


def edit_tab(room: Room) -> None:
    """Lay out the tab that redraws a site."""
    studio = room.studio
    if not studio.edits:
        around = " around given channels" if studio.spec.given else ""
        gr.Markdown(f"This model cannot redraw a part of a layout: it draws whole ones{around}.")
        return
    kept = gr.State(None, time_to_live=SESSION_SECONDS, delete_callback=remove_folder)
    ground = gr.State(None, time_to_live=SESSION_SECONDS)
    editor = _canvas(studio)
    gr.Markdown(
        "**1** Show a real window of a place, or hand over a GeoTIFF. **2** Paint over the site. "
        "**3** Redraw it; all around it stays as it is."
    )
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=340):
            _ground_choice(studio, ground, editor)
            with gr.Row():
                place, seed = place_choice(studio), seed_field(room.seed)
            strength = gr.Slider(
                0.05, 1, value=1, step=0.05, label="strength: less than 1 begins from what is there",
                visible=studio.varies,
            )  # fmt: skip
            button = gr.Button("Redraw what is painted", variant="primary", elem_id="redraw")
            asking = Asking.lay_out(studio.ranges)
        with gr.Column(scale=6, min_width=540):
            editor.render()
            picture = picture_frame("edited")
            with gr.Row():
                tifs = download("GeoTIFFs and measures (ZIP)", "edit-tifs")
                vectors = download("GeoPackage", "edit-vectors")
            rows = number_table(EDIT_HEADINGS, "before and after", "edit-measured")

    def redraw(values: Values) -> list[Any]:
        if values[ground] is None:
            raise ConfigError("There is nothing to paint on.", remedy="show a real window, or hand over a GeoTIFF")
        layers = (values[editor] or {}).get("layers") or []
        with room.desk.request(values[kept]) as folder:
            made = redraw_site(
                studio,
                values[ground],
                painted_cells(layers, studio.spec.size_px),
                asking.read(values),
                folder,
                place=read_place(values[place]),
                seed=values[seed],
                strength=values[strength],
                sampler=room.sampling.read(studio, values),
            )
        return [folder, made.picture, made.rows, offer(made.zipped), offer(made.vectors)]

    inputs = {kept, ground, editor, place, seed, strength, *asking.components, *room.sampling.components}
    answer_slowly(button.click, redraw, inputs, [kept, picture, rows, tifs, vectors], "redraw", covers=picture)


def _ground_choice(studio: Studio, ground: gr.State, editor: gr.ImageEditor) -> None:
    """Lay out where the layout comes from that a site is painted on, and bring it onto the canvas."""

    def show(read: Ground) -> list[Any]:
        picture = make_canvas(studio, read)
        return [read, {"background": picture, "layers": [], "composite": picture}]

    if studio.prepared:
        first = studio.prepared[0]
        east, north = middle_of(studio, first)
        with gr.Row():
            place = gr.Dropdown(studio.prepared, value=first, label="prepared place")
            longitude, latitude = gr.Number(east, label="longitude [°]"), gr.Number(north, label="latitude [°]")
        fetch = gr.Button("Show the real window", elem_id="fetch")
        place.input(lambda name: middle_of(studio, name), place, [longitude, latitude], api_visibility="private")
        answer_slowly(
            fetch.click,
            lambda values: show(read_ground(studio, values[place], values[longitude], values[latitude])),
            {place, longitude, latitude},
            [ground, editor],
            "fetch",
        )
    else:
        gr.Markdown(NO_PLACE)
    upload = gr.File(label="or a GeoTIFF of a layout", file_count="single", height=130, elem_id="upload")
    answer_slowly(
        upload.upload, lambda values: show(open_ground(studio, values[upload])), {upload}, [ground, editor], "upload"
    )


def _canvas(studio: Studio) -> gr.ImageEditor:
    """Return the canvas that people paint on, for `render` to lay it out."""
    side = canvas_px(studio)
    return gr.ImageEditor(
        label="paint over what is to be redrawn", type="numpy", image_mode="RGBA", format="png", sources=(),
        transforms=(), layers=False, canvas_size=(side, side), fixed_canvas=True, height=side + 130,
        brush=gr.Brush(default_size=48, colors=[BRUSH], color_mode="fixed"), buttons=[], elem_id="site",
        placeholder=" ",  # its own asks to draw before there is a window
        render=False,
    )  # fmt: skip
