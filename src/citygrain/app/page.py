"""The page itself: components, what happens when they are used, and the server. All that is drawn is made elsewhere."""

from __future__ import annotations

import html
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from citygrain.app.drawing import (
    CANVAS_PX,
    EDIT_HEADINGS,
    HEADINGS,
    KNOBS,
    LARGEST_SEED,
    LIKELY,
    MOST_ATTEMPTS,
    MOST_LAYOUTS,
    PATH_HEADINGS,
    WALK_HEADINGS,
    Ground,
    Studio,
    Walk,
    asked,
    canvas,
    draw_layouts,
    draw_path,
    draw_walk,
    ground_at,
    ground_of,
    knobs_of,
    middle_of,
    painted_cells,
    prepared_places,
    redraw,
    show_step,
    show_walk,
    turned,
    walk_range,
)
from citygrain.errors import CapabilityError, CitygrainError, ConfigError
from citygrain.geo.sources import ATTRIBUTION
from citygrain.latent import CodePath, codec_of
from citygrain.protocols import Sampler
from citygrain.version import __version__

ANY_PLACE = "any"
NO_PLACE = "No place is prepared here; `citygrain prepare place=helsinki` prepares one."

TO_LAYOUT, TO_MEASURE = "to another layout", "along a measure"
OF_LAYOUT = "Two layouts are drawn. The path goes straight from the code of one to that of the other."

SYSTEM_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica", "Arial", "sans-serif")
MONO_FONTS = ("ui-monospace", "Menlo", "Consolas", "monospace")

STYLE = """
.citygrain-asks { gap: 4px !important; }
.citygrain-ask { align-items: center; gap: 10px !important; }
.citygrain-ask .block { padding: 5px 10px 2px !important; }
.citygrain-ask > :first-child { flex: 0 0 112px !important; min-width: 0 !important; border: none !important; }
.citygrain-ask > :first-child label { padding: 0; white-space: nowrap; }
.citygrain-table * { font-family: var(--font) !important; }
.citygrain-foot { opacity: .7; font-size: .85em; }
"""

POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; form-action 'self'; base-uri 'self'"
)
"""The browser may ask this server for things, and nobody else."""

PATH_STEPS = 9

SESSION_SECONDS = 4 * 3600
"""After so long without use, what a person drew is forgotten."""

CACHE_SECONDS = (600, 3600)
"""How often files are looked through that people were handed, and how old they get."""


class _OwnHostOnly:
    """Tell the browser with every answer that it may ask nobody else for anything."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer")]
                message["headers"] = [*message.get("headers", []), *own]
            await send(message)

        await self.app(scope, receive, with_policy)


def said(function: Callable[..., Any]) -> Callable[..., Any]:
    """Show citygrain's errors as what they say, with what was expected, what came and the remedy."""

    @wraps(function)
    def shown(*values: Any) -> Any:
        try:
            return function(*values)
        except CitygrainError as error:
            lines = (html.escape(line.strip()) for line in str(error).splitlines())
            problem, *details = (re.sub(r"`(.*?)`", r"<code>\1</code>", line) for line in lines)
            raise gr.Error(
                "<br>".join([problem, *details]), duration=None, title="This cannot be done", print_exception=False
            ) from error

    return shown


class Desk:
    """Folders for what single requests write, all below one."""

    def __init__(self, home: Path) -> None:
        self.home = home / "requests"
        self.home.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def request(self, before: Path | None) -> Iterator[Path]:
        """Hand out a folder for a request. That of the one before goes when all is well, else the new one does."""
        folder = Path(tempfile.mkdtemp(dir=self.home))
        try:
            yield folder
        except BaseException:
            cleared(folder)
            raise
        cleared(before)


def cleared(folder: Path | None) -> None:
    """Remove the folder of a request that nobody looks at any more."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def build(studios: Sequence[Studio], home: Path, seed: int = 0) -> gr.Blocks:
    """Lay out the page.

    Parameters
    ----------
    studios
        The models; with several, one is chosen at the top.
    home
        Folder that files are written below.
    seed
        That the page begins with.
    """
    desk = Desk(home)
    with gr.Blocks(title="citygrain", analytics_enabled=False, delete_cache=CACHE_SECONDS, fill_width=True) as page:
        gr.Markdown("# citygrain\nUrban layouts, asked for and measured in physical units.")
        names = [studio.name for studio in studios]
        chosen = gr.Dropdown(names, value=names[0], label="model", visible=len(studios) > 1, elem_id="model")
        rooms = []
        for i, studio in enumerate(studios):
            with gr.Column(visible=i == 0) as room:
                gr.Markdown(_about(studio))
                sampling = _sampling(studio)
                with gr.Tab("Sample"):
                    _sample_tab(studio, desk, seed, sampling)
                with gr.Tab("Latent path"):
                    _path_tab(studio, seed, sampling)
                with gr.Tab("Edit"):
                    _edit_tab(studio, desk, seed, sampling)
            rooms.append(room)
        chosen.change(
            lambda name: [gr.update(visible=name == one) for one in names], chosen, rooms, queue=False,
            api_visibility="private",
        )  # fmt: skip
        gr.Markdown(f"citygrain {__version__}. Models learn from data {ATTRIBUTION}.", elem_classes="citygrain-foot")
    return page


def serve(page: gr.Blocks, host: str, port: int, *, open_browser: bool = False) -> None:
    """Serve the page, in a thread of its own: `page.block_thread()` waits until it is interrupted."""
    page.queue(default_concurrency_limit=1).launch(
        server_name=host,
        server_port=port,
        share=False,
        inbrowser=open_browser,
        prevent_thread_lock=True,
        quiet=True,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        strict_cors=True,
        max_file_size="64mb",
        app_kwargs={"middleware": [Middleware(_OwnHostOnly)]},
        theme=gr.themes.Base(
            primary_hue="teal", neutral_hue="stone", font=SYSTEM_FONTS, font_mono=MONO_FONTS, radius_size="sm"
        ),
        css=STYLE,
    )


def _about(studio: Studio) -> str:
    spec = studio.spec
    family = type(studio.generator).__name__
    return (
        f"**{studio.name}** ({family}): {spec.size_px} × {spec.size_px} cells of {spec.resolution_m:g} m, "
        f"{spec.extent_m:g} × {spec.extent_m:g} m; learned from {', '.join(spec.places)}."
    )


def _sliders(studio: Studio) -> tuple[list[gr.Component], list[gr.Component]]:
    """Lay out a box and a slider for each condition; a slider that is moved ticks its box."""
    values: list[gr.Component] = []
    ticks: list[gr.Component] = []
    if studio.ranges:
        gr.Markdown("**Ask for** what is ticked; moving a slider ticks it. The rest is left to the model.")
    with gr.Column(elem_classes="citygrain-asks"):
        for one in studio.ranges:
            with gr.Row(elem_classes="citygrain-ask"):
                tick = gr.Checkbox(value=False, label="ask for it", container=False, scale=0, min_width=96)
                value = gr.Slider(one.low, one.high, value=one.middle, step=one.step, label=one.label)
            value.input(
                None, None, tick, js="() => true", queue=False, show_progress="hidden", api_visibility="private"
            )
            values.append(value)
            ticks.append(tick)
    return values, ticks


def _sampling(studio: Studio) -> list[gr.Component]:
    """Lay out the choice of a sampler and its knobs, which all tabs draw by; only the knobs that it has are seen."""
    first = next(iter(studio.samplers))
    with gr.Accordion("Sampler: how all three tabs draw", open=False):
        choice = gr.Dropdown(list(studio.samplers), value=first, label="sampler", elem_id="sampler")
        knobs: list[gr.Component] = []
        for knob in KNOBS:
            values = knobs_of(studio.samplers[first])
            label, value, seen = f"{knob.name}: {knob.does}", values.get(knob.name), knob.name in values
            if knob.name == "tolerance":  # it may be infinite
                knobs.append(gr.Number(value, label=label, visible=seen))
            else:
                known = knob.low if value is None else value
                knobs.append(
                    gr.Slider(
                        knob.low, knob.high, value=known, step=knob.step, label=label, visible=seen, elem_id=knob.name
                    )
                )

    def changed(name: str) -> list[Any]:
        values = knobs_of(studio.samplers[name])
        return [
            gr.update(visible=True, value=values[knob.name]) if knob.name in values else gr.update(visible=False)
            for knob in KNOBS
        ]

    choice.input(changed, choice, knobs, queue=False, show_progress="hidden", api_visibility="private")
    return [choice, *knobs]


def _sampler(studio: Studio, name: str, *knobs: float | None) -> Sampler:
    return turned(studio, name, dict(zip((knob.name for knob in KNOBS), knobs, strict=True)))


def _place(studio: Studio) -> gr.Dropdown:
    return gr.Dropdown([ANY_PLACE, *studio.spec.places], value=ANY_PLACE, label="like the place")


def _known_places(studio: Studio) -> list[str]:
    """Return the prepared places, those that the model was trained on first."""
    return studio.at_hand + [place for place in prepared_places(studio.data) if place not in studio.spec.places]


def _seed(value: int, label: str = "seed") -> gr.Number:
    return gr.Number(value, label=label, precision=0, minimum=0, maximum=LARGEST_SEED)


def _place_of(value: str | None) -> str | None:
    return None if value in {None, ANY_PLACE} else value


def _sample_tab(studio: Studio, desk: Desk, seed: int, sampling: list[gr.Component]) -> None:
    taken, known = ", ".join(studio.spec.given), _known_places(studio)
    if taken and not known:
        gr.Markdown(f"This model draws around given channels ({taken}) of a real place. {NO_PLACE}")
        return
    kept = gr.State(None, time_to_live=SESSION_SECONDS, delete_callback=cleared)
    conditions = len(studio.ranges)
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=340):
            given = gr.Dropdown(
                known, value=known[0] if taken else None, visible=bool(taken), elem_id="given",
                label=f"given channels ({taken}) of the prepared place",
            )  # fmt: skip
            with gr.Row():
                place = _place(studio)
                first = _seed(seed)
                count = gr.Slider(1, MOST_LAYOUTS, value=4, step=1, label="layouts", elem_id="count")
            attempts = gr.Slider(
                1, MOST_ATTEMPTS, value=1, step=1, elem_id="attempts",
                label="attempts: a layout that misses its request is drawn again with a corrected one",
            )  # fmt: skip
            button = gr.Button("Draw", variant="primary", elem_id="draw")
            values, ticks = _sliders(studio)
        with gr.Column(scale=6, min_width=420):
            picture = _picture("layouts")
            with gr.Row():
                tifs = gr.DownloadButton("GeoTIFFs (ZIP)", interactive=False, elem_id="tifs")
                vectors = gr.DownloadButton("GeoPackage", interactive=False, elem_id="vectors")
            rows = _table(HEADINGS, "requested and measured", "measured")

    @said
    def drawn(
        before: Path | None, around: str | None, where: str, of: int, n: int, times: int, *rest: Any
    ) -> list[Any]:
        wanted = asked(studio.ranges, rest[:conditions], rest[conditions : 2 * conditions])
        sampler = _sampler(studio, *rest[2 * conditions :])
        with desk.request(before) as folder:
            made = draw_layouts(
                studio, wanted, folder, place=_place_of(where), given=around, seed=of, n=n, attempts=times,
                sampler=sampler,
            )  # fmt: skip
        return [folder, made.picture, made.rows, _ready(made.zipped), _ready(made.vectors)]

    _on(
        button.click,
        drawn,
        [kept, given, place, first, count, attempts, *values, *ticks, *sampling],
        [kept, picture, rows, tifs, vectors],
        "draw",
        picture,
    )


def _on(
    event: Any, function: Callable[..., Any], takes: list[Any], gives: list[Any], name: str, waits: Any = None
) -> None:
    """Do something that takes long: one request after the other. What waits for it is hidden meanwhile."""
    event(
        function, takes, gives, concurrency_limit=1, concurrency_id="model", api_name=name, show_progress_on=waits,
        show_progress="full" if waits else "hidden",
    )  # fmt: skip


def _ready(file: Path) -> Any:
    return gr.update(value=str(file), interactive=True)


def _picture(name: str) -> gr.Image:
    return gr.Image(show_label=False, format="png", buttons=["download", "fullscreen"], interactive=False, elem_id=name)


def _table(headings: Sequence[str], label: str, elem_id: str) -> gr.Dataframe:
    return gr.Dataframe(
        headers=list(headings), interactive=False, wrap=True, label=label, buttons=["copy"], max_height=700,
        elem_id=elem_id, elem_classes="citygrain-table",
    )  # fmt: skip


def _path_tab(studio: Studio, seed: int, sampling: list[gr.Component]) -> None:
    try:
        codec_of(studio.generator)
    except CapabilityError:
        gr.Markdown(
            "There is no path between layouts of this model: it has no code, but draws cells. "
            "A variational autoencoder has one, and so has a diffusion model that works in it."
        )
        return
    kept = gr.State(None, time_to_live=SESSION_SECONDS)
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=300):
            way = gr.Radio(
                [TO_LAYOUT, TO_MEASURE] if studio.ranges else [TO_LAYOUT],
                value=TO_LAYOUT,
                label="where to",
                elem_id="way",
            )
            with gr.Row():
                start = [_seed(seed, "seed of the start"), _place(studio)]
            with gr.Group() as to_layout, gr.Row():
                end = [_seed(seed + 1, "seed of the end"), _place(studio)]
            with gr.Group(visible=False) as to_measure:
                towards = _towards(studio)
            button = gr.Button("Draw the path", variant="primary", elem_id="walk")
            said_of = gr.Markdown(OF_LAYOUT)
        with gr.Column(scale=7, min_width=420):
            step = gr.Slider(
                0, PATH_STEPS - 1, value=PATH_STEPS // 2, step=1, label="step along the path", elem_id="step"
            )
            picture = _picture("path")
            rows = _table(PATH_HEADINGS, "measured", "path-measured")

    def turned_to(name: str) -> list[Any]:
        there = name == TO_LAYOUT
        return [gr.update(visible=there), gr.update(visible=not there), OF_LAYOUT if there else _of_measure(studio)]

    @said
    def walked(
        name: str, a: int, place_a: str, b: int, place_b: str, target: str | None, low: float | None,
        high: float | None, hold: list[str], at: int, *how: Any,
    ) -> list[Any]:  # fmt: skip
        sampler, where = _sampler(studio, *how), _place_of(place_a)
        if name == TO_MEASURE:
            made: CodePath | Walk = draw_walk(
                studio, a, where, target or "", (low, high), hold, PATH_STEPS, sampler=sampler
            )
        else:
            made = draw_path(studio, (a, b), (where, _place_of(place_b)), PATH_STEPS, sampler)
        return [made, *stepped(made, at)]

    def stepped(made: CodePath | Walk | None, at: int) -> list[Any]:
        if made is None:
            return [gr.skip(), gr.skip()]
        walk = isinstance(made, Walk)
        shown, told = show_walk(studio, made, at) if isinstance(made, Walk) else show_step(studio, made, at)
        return [shown, {"headers": list(WALK_HEADINGS if walk else PATH_HEADINGS), "data": told}]

    way.change(
        turned_to, way, [to_layout, to_measure, said_of], queue=False, show_progress="hidden", api_visibility="private"
    )
    _on(button.click, walked, [way, *start, *end, *towards, step, *sampling], [kept, picture, rows], "path", picture)
    step.change(stepped, [kept, step], [picture, rows], show_progress="hidden", trigger_mode="always_last",
                api_visibility="private")  # fmt: skip


def _towards(studio: Studio) -> list[gr.Component]:
    """Lay out which measure is moved, from where to where, and what stays."""
    names = [one.name for one in studio.ranges]
    choices = [(one.label, one.name) for one in studio.ranges]
    first = next(iter(names), None)
    low, high = walk_range(studio, first) if first else (None, None)
    target = gr.Dropdown(choices, value=first, label="measure", elem_id="target")
    with gr.Row():
        ends = [gr.Number(low, label="from", elem_id="from"), gr.Number(high, label="to", elem_id="to")]
    hold = gr.Dropdown(choices, value=[], multiselect=True, label="keep as drawn", elem_id="hold")
    target.input(
        lambda name: list(walk_range(studio, name)), target, ends, queue=False, show_progress="hidden",
        api_visibility="private",
    )  # fmt: skip
    return [target, *ends, hold]


def _of_measure(studio: Studio) -> str:
    where = (
        f"{LIKELY} training windows of {', '.join(studio.at_hand)}"
        if studio.at_hand
        else f"{LIKELY} layouts that the model draws itself, as none of its places is prepared here"
    )
    return (
        "A layout is drawn. Its code is changed, by the decoder's own gradients and as little as it takes, until the "
        f"decoded layout measures what is asked. What is little is told by {where}; the first walk waits for them."
    )


def _edit_tab(studio: Studio, desk: Desk, seed: int, sampling: list[gr.Component]) -> None:
    if not studio.edits:
        gr.Markdown(
            "This model cannot redraw a part of a layout: it draws whole ones"
            + (" around given channels." if studio.spec.given else ".")
        )
        return
    kept = gr.State(None, time_to_live=SESSION_SECONDS, delete_callback=cleared)
    ground = gr.State(None, time_to_live=SESSION_SECONDS)
    size, conditions = studio.spec.size_px, len(studio.ranges)
    side = max(1, CANVAS_PX // size) * size
    known = _known_places(studio)
    longitude, latitude = middle_of(studio, known[0]) if known else (None, None)
    gr.Markdown(
        "**1** Show a real window of a place, or hand over a GeoTIFF. **2** Paint over the site. "
        "**3** Redraw it; all around it stays as it is."
    )
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=340):
            if known:
                with gr.Row():
                    where = gr.Dropdown(known, value=known[0], label="prepared place")
                    lon = gr.Number(longitude, label="longitude [°]")
                    lat = gr.Number(latitude, label="latitude [°]")
                fetch = gr.Button("Show the real window", elem_id="fetch")
            else:
                gr.Markdown(NO_PLACE)
            upload = gr.File(label="or a GeoTIFF of a layout", file_count="single", height=130, elem_id="upload")
            with gr.Row():
                like = _place(studio)
                first = _seed(seed)
            strength = gr.Slider(
                0.05, 1, value=1, step=0.05, label="strength: less than 1 begins from what is there",
                visible=studio.varies,
            )  # fmt: skip
            button = gr.Button("Redraw what is painted", variant="primary", elem_id="redraw")
            values, ticks = _sliders(studio)
        with gr.Column(scale=6, min_width=540):
            editor = gr.ImageEditor(
                label="paint over what is to be redrawn", type="numpy", image_mode="RGBA", format="png", sources=(),
                transforms=(), layers=False, canvas_size=(side, side), fixed_canvas=True, height=side + 130,
                brush=gr.Brush(default_size=48, colors=["#d9572fb0"], color_mode="fixed"), buttons=[], elem_id="site",
                placeholder=" ",  # its own asks to draw before there is a window
            )  # fmt: skip
            picture = _picture("edited")
            with gr.Row():
                zipped = gr.DownloadButton("GeoTIFFs and measures (ZIP)", interactive=False, elem_id="edit-tifs")
                vectors = gr.DownloadButton("GeoPackage", interactive=False, elem_id="edit-vectors")
            rows = _table(EDIT_HEADINGS, "before and after", "edit-measured")

    def laid(read: Ground) -> list[Any]:
        shown = canvas(studio, read)
        return [read, {"background": shown, "layers": [], "composite": shown}]

    @said
    def fetched(name: str, x: float | None, y: float | None) -> list[Any]:
        return laid(ground_at(studio, name, x, y))

    @said
    def uploaded(path: str | None) -> list[Any]:
        return laid(ground_of(studio, path))

    @said
    def edited(before: Path | None, on: Ground | None, site: Any, where: str, of: int, much: float, *rest: Any) -> Any:
        if on is None:
            raise ConfigError("There is nothing to paint on.", remedy="show a real window, or hand over a GeoTIFF")
        wanted = asked(studio.ranges, rest[:conditions], rest[conditions : 2 * conditions])
        sampler = _sampler(studio, *rest[2 * conditions :])
        free = painted_cells((site or {}).get("layers") or [], size)
        with desk.request(before) as folder:
            made = redraw(
                studio, on, free, wanted, folder, place=_place_of(where), seed=of, strength=much, sampler=sampler
            )
        return [folder, made.picture, made.rows, _ready(made.zipped), _ready(made.vectors)]

    if known:
        where.input(lambda name: middle_of(studio, name), where, [lon, lat], api_visibility="private")
        _on(fetch.click, fetched, [where, lon, lat], [ground, editor], "fetch")
    _on(upload.upload, uploaded, [upload], [ground, editor], "upload")
    _on(
        button.click,
        edited,
        [kept, ground, editor, like, first, strength, *values, *ticks, *sampling],
        [kept, picture, rows, zipped, vectors],
        "redraw",
        picture,
    )
