"""Colours, fonts and frames that all pictures share, and the step from a figure to an image or a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from PIL import Image

from citygrain.geo.layers import CHANNELS
from citygrain.support.files import write_atomically

PAPER, INK, FAINT = "#f8f5ee", "#33313a", "#c9c4b8"
"""Colours of empty ground, of text, and of lines that are only there to guide the eye."""

COLOURS: Mapping[str, str] = {channel.name: channel.colour for channel in CHANNELS}
"""Channel → its colour on a map."""

HUES = ("#d9572f", "#3f7fb5", "#5c8f4e", "#8a5a9e", "#b98b2d", "#555560")
"""Colours of places, in turn."""

DPI = 100
"""Pixels per inch of a figure that citygrain makes itself."""


def hue(i: int) -> str:
    """Return the colour of the i-th place."""
    return HUES[i % len(HUES)]


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this many inches. It is drawn without a display, and pyplot does not know of it."""
    return Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER, layout="constrained")


def new_axes(width: float, height: float) -> Axes:
    """Return axes that are alone in a new figure of this many inches."""
    axes: Axes = new_figure(width, height).subplots()
    return axes


def style_axes(ax: Axes, *, title: str = "", xlabel: str = "", ylabel: str = "") -> Axes:
    """Give axes the look of citygrain: white, with faint edges, and words in ink. Returns the axes.

    Words that are not given stay as they are.
    """
    ax.tick_params(colors=INK, labelsize=8, length=3)
    ax.set_facecolor("white")
    for side in ax.spines.values():
        side.set_color(FAINT)
    if title:
        ax.set_title(title, color=INK, fontsize=11, loc="left")
    if xlabel:
        ax.set_xlabel(xlabel, color=INK, fontsize=9)
    if ylabel:
        ax.set_ylabel(ylabel, color=INK, fontsize=9)
    return ax


def add_legend(ax: Axes, handles: Sequence[Any], labels: Sequence[str], *, alone: bool) -> None:
    """Explain colours in one line above axes. `alone` says that the axes are all that a figure of ours holds."""
    line = {"ncols": max(len(labels), 1), "fontsize": 8, "frameon": False, "labelcolor": INK}
    if alone:
        figure_of(ax).legend(handles, labels, loc="outside upper right", **line)
    else:
        ax.legend(handles, labels, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2, **line)


def figure_of(drawn: Axes | Figure) -> Figure:
    """Return the whole figure that axes are in, or the figure itself."""
    figure: Any = drawn.figure if isinstance(drawn, Axes) else drawn
    while isinstance(figure, SubFigure):
        figure = figure.figure
    whole: Figure = figure
    return whole


def to_image(drawn: Axes | Figure) -> Image.Image:
    """Return the picture of a figure, or of the figure that axes are in, as an RGB image.

    A notebook shows an image; `numpy.asarray` turns it into `(height, width, 3)` uint8.
    """
    file = BytesIO()
    _settled(drawn).savefig(file, format="png", dpi="figure", pil_kwargs={"compress_level": 1})
    return Image.open(file).convert("RGB")


def _settled(drawn: Axes | Figure) -> Figure:
    """Return the figure once its axes are where they stay: beside a bar of colours, it takes two rounds."""
    figure = figure_of(drawn)
    figure.draw_without_rendering()
    return figure


def save_figure(drawn: Axes | Figure | Image.Image, path: str | Path) -> None:
    """Write a figure, the figure that axes are in, or an image. The file appears whole or not at all.

    Parameters
    ----------
    drawn
        What a function of `citygrain.plot` returned.
    path
        Its ending says the format: `.png` for all, `.pdf` or `.svg` for figures and axes. The folder is made where it
        is missing.

    Raises
    ------
    DataError
        When the file cannot be written.
    """
    with write_atomically(Path(path)) as temporary:
        if isinstance(drawn, Image.Image):
            drawn.save(temporary, dpi=(DPI, DPI))
        else:
            _settled(drawn).savefig(temporary, dpi="figure")
