"""The page: its models, each with its tabs, and how it is served."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from citygrain.app.studio import Studio
from citygrain.app.tabs import Room, edit_tab, path_tab, sample_tab
from citygrain.app.widgets import Desk, Sampling, answer_at_once
from citygrain.geo.sources import ATTRIBUTION
from citygrain.version import __version__

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

CACHE_SECONDS = (600, 3600)
"""How often files that people were handed are looked through, and how old they get."""


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


def build_page(studios: Sequence[Studio], home: Path, seed: int = 0) -> gr.Blocks:
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
        columns = []
        for i, studio in enumerate(studios):
            with gr.Column(visible=i == 0) as column:
                _lay_out_model(studio, desk, seed)
            columns.append(column)
        answer_at_once(chosen.change, lambda name: [gr.update(visible=name == one) for one in names], chosen, columns)
        gr.Markdown(f"citygrain {__version__}. Models learn from data {ATTRIBUTION}.", elem_classes="citygrain-foot")
    return page


def _lay_out_model(studio: Studio, desk: Desk, seed: int) -> None:
    spec, family = studio.spec, type(studio.generator).__name__
    gr.Markdown(
        f"**{studio.name}** ({family}): {spec.size_px} × {spec.size_px} cells of {spec.resolution_m:g} m, "
        f"{spec.extent_m:g} × {spec.extent_m:g} m; learned from {', '.join(spec.places)}."
    )
    room = Room(studio, desk, seed, Sampling.lay_out(studio))
    for name, lay_out in (("Sample", sample_tab), ("Latent path", path_tab), ("Edit", edit_tab)):
        with gr.Tab(name):
            lay_out(room)


def launch_page(page: gr.Blocks, host: str, port: int, *, open_browser: bool = False) -> None:
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
