"""Sheets: layouts side by side, cell by cell, with captions, a legend and a scale bar. They are images, not figures.

On a sheet, a cell is a square of whole pixels. A figure that is scaled to fit a page would blur it.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextPath
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from citygrain.errors import DataError
from citygrain.geo.vectorize import Vectors
from citygrain.plot.maps import PAINTED, coverage_of, show_vectors, to_rgb
from citygrain.plot.style import COLOURS, DPI, INK, PAPER, to_image

FONT, HEADING_FONT = 8.5, 13

MARGIN, GAP, LINE, SWATCH = 18, 12, 18, 10
"""Pixels: around a sheet, between layouts, a line of the legend, a colour in the legend."""

LAYOUT_PX = 192
"""About the width of a layout whose scale nobody chose."""

BAR_M = (1000, 500, 200, 100, 50, 20, 10, 5, 2, 1)
"""Metres that a scale bar may stand for."""

Picture = NDArray[np.uint8]


def make_sheet(
    layouts: ArrayLike,
    channels: Sequence[str],
    *,
    titles: Sequence[str] | None = None,
    heading: str = "",
    columns: int | None = None,
    scale: int | None = None,
    resolution_m: float | None = None,
    outline: NDArray[np.bool_] | None = None,
) -> Image.Image:
    """Draw layouts side by side in map colours.

    Parameters
    ----------
    layouts
        `(N, C, H, W)`, coverage in [0, 1] or uint8.
    channels
        Names of the C channels, in order.
    titles
        A caption for each layout.
    heading
        One line above everything.
    columns
        How many layouts stand in a row; None for a nearly square sheet.
    scale
        Pixels per cell, so that cells can be seen; None makes a layout about 200 pixels wide.
    resolution_m
        Edge of a cell in metres; draws a scale bar.
    outline
        `(H, W)`: cells around whose edge a line is drawn on every layout.

    Returns
    -------
    PIL.Image.Image
        RGB. `save_figure` writes it; `numpy.asarray` turns it into `(height, width, 3)` uint8.

    Raises
    ------
    DataError
        For no layouts at all, or titles that do not match them.
    """
    pictures = [to_rgb(layout, channels) for layout in np.asarray(layouts)]
    scale = scale or _scale_for(pictures)
    return _compose(
        [_enlarge(picture, scale, outline) for picture in pictures],
        titles=titles,
        heading=heading,
        columns=columns,
        legend=channels,
        pixels_per_m=scale / resolution_m if resolution_m else None,
    )


def make_channel_sheet(
    layout: ArrayLike,
    channels: Sequence[str],
    *,
    heading: str = "",
    scale: int | None = None,
    resolution_m: float | None = None,
) -> Image.Image:
    """Draw a layout as a map, and each of its channels alone, captioned with the share that it covers.

    Parameters
    ----------
    layout
        `(C, H, W)`, coverage in [0, 1] or uint8.
    channels, heading, scale, resolution_m
        As for `make_sheet`.

    Returns
    -------
    PIL.Image.Image
        As `make_sheet` returns it.

    Raises
    ------
    DataError
        For another shape, or a channel that has no colour.
    """
    coverage = coverage_of(layout, channels)
    bands = list(zip(channels, coverage, strict=True))
    pictures = [to_rgb(coverage, channels), *(to_rgb(band[None], [name]) for name, band in bands)]
    scale = scale or _scale_for(pictures)
    return _compose(
        [_enlarge(picture, scale) for picture in pictures],
        titles=["all channels", *(f"{name} {band.mean():.1%}" for name, band in bands)],
        heading=heading,
        columns=min(len(pictures), 5),
        legend=(),
        pixels_per_m=scale / resolution_m if resolution_m else None,
    )


def make_vector_sheet(
    layouts: Sequence[Vectors], *, titles: Sequence[str] | None = None, pixels: int = 480
) -> Image.Image:
    """Draw the features of layouts as maps, side by side, all to one scale.

    Parameters
    ----------
    layouts
        As `citygrain.geo.vectorize.vectorize` makes them.
    titles
        A caption for each layout.
    pixels
        Width of a layout.

    Returns
    -------
    PIL.Image.Image
        As `make_sheet` returns it.

    Raises
    ------
    DataError
        For no layouts at all, or titles that do not match them.
    """
    drawn = {name for v in layouts for name in (*v.areas, *(kind for ways in v.ways.values() for kind in ways.kind))}
    sizes = np.array([(v.grid.width * v.grid.resolution_m, v.grid.height * v.grid.resolution_m) for v in layouts])
    wide, high = sizes.max(0, initial=1.0)
    figsize = pixels / DPI, max(1, round(pixels * high / wide)) / DPI
    pictures = []
    for vectors in layouts:
        ax = Figure(figsize=figsize, dpi=DPI, facecolor=PAPER).add_axes((0, 0, 1, 1))
        pictures.append(np.asarray(to_image(show_vectors(vectors, ax, size_m=(wide, high)))))
    return _compose(pictures, titles=titles, heading="", columns=None, legend=sorted(drawn), pixels_per_m=pixels / wide)


def _scale_for(pictures: Sequence[Picture]) -> int:
    return max(1, math.ceil(LAYOUT_PX / pictures[0].shape[1])) if pictures else 1


def _enlarge(picture: Picture, scale: int, outline: NDArray[np.bool_] | None = None) -> Picture:
    """Make every cell a square of pixels, and draw a black line along the inner edge of the outline."""
    enlarged = picture.repeat(scale, 0).repeat(scale, 1)
    if outline is not None:
        inside = np.pad(outline.repeat(scale, 0).repeat(scale, 1), 1)
        around = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
        enlarged[inside[1:-1, 1:-1] & ~around] = 0
    return enlarged


@dataclass(frozen=True)
class _Page:
    """Sizes of a sheet in pixels. Places on it are pixels from the left and from below, as matplotlib counts them."""

    wide: int
    high: int
    caption: int
    columns: int
    width: int
    height: int
    top: int
    bottom: int

    def corner(self, i: int) -> tuple[int, int]:
        """Return the lower left corner of the i-th layout."""
        row, column = divmod(i, self.columns)
        down = self.top + row * (self.high + self.caption + GAP) + self.high + self.caption
        return MARGIN + column * (self.wide + GAP), self.height - down


def _compose(
    pictures: Sequence[Picture],
    *,
    titles: Sequence[str] | None,
    heading: str,
    columns: int | None,
    legend: Sequence[str],
    pixels_per_m: float | None,
) -> Image.Image:
    """Put pictures of one size on a sheet, captions above them, the scale bar and the legend at its foot."""
    if not pictures or (titles is not None and len(titles) != len(pictures)):
        raise DataError(
            "A sheet needs layouts, and a title for each or none.",
            got=f"{len(pictures)} layouts, {0 if titles is None else len(titles)} titles",
        )
    columns = columns or math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    high, wide = pictures[0].shape[:2]
    captions = [_wrap(title, wide) for title in titles or ()]
    caption = 15 * max(map(len, captions)) + 6 if captions else 0
    width = 2 * MARGIN + columns * wide + (columns - 1) * GAP
    foot = _place_foot([n for n in reversed(PAINTED) if n in legend], width, _scale_bar(pixels_per_m, wide))
    top = MARGIN + (34 if heading else 0)
    bottom = MARGIN + (12 + LINE * (foot[-1].line + 1) if foot else 0)
    height = top + rows * (high + caption) + (rows - 1) * GAP + bottom
    page = _Page(wide, high, caption, columns, width, height, top, bottom)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")

    def write(left: float, under: float, text: str, size: float = FONT) -> None:
        figure.text(left / width, under / height, text, va="baseline", color=INK, fontsize=size)

    write(MARGIN, height - MARGIN - 14, heading, HEADING_FONT)
    for i, picture in enumerate(pictures):
        left, under = page.corner(i)
        figure.figimage(picture, left, under, origin="upper")
        for line, text in enumerate(reversed(captions[i] if captions else ())):
            write(left, under + high + 6 + 15 * line, text)
    _draw_foot(figure, page, foot, write)
    return to_image(figure)


@dataclass(frozen=True)
class _Entry:
    """What stands at the foot of a sheet: a text, and before it a colour or, where it has a length, the scale bar."""

    text: str
    left: float
    line: int
    bar: float


def _place_foot(legend: Sequence[str], width: int, scale_bar: tuple[str, float] | None) -> list[_Entry]:
    """Break the scale bar and the legend into lines that fit."""
    items = [*([scale_bar] if scale_bar else []), *((name, 0.0) for name in legend)]
    placed: list[_Entry] = []
    left, line = float(MARGIN), 0
    for text, bar in items:
        needs = (bar or SWATCH) + 5 + _text_width(text)
        if left > MARGIN and left + needs > width - MARGIN:
            left, line = float(MARGIN), line + 1
        placed.append(_Entry(text, left, line, bar))
        left += needs + 14
    return placed


def _draw_foot(figure: Figure, page: _Page, foot: Sequence[_Entry], write: Callable[[float, float, str], None]) -> None:
    def box(left: float, under: float, wide: float, high: float, colour: str = INK) -> None:
        corner = left / page.width, under / page.height
        figure.add_artist(Rectangle(corner, wide / page.width, high / page.height, color=colour, linewidth=0))

    for entry in foot:
        left, under = entry.left, page.bottom - 12 - LINE * (entry.line + 1) + 4
        if entry.bar:
            box(left, under, entry.bar, 2)
            box(left, under, 2, 7)
            box(left + entry.bar - 2, under, 2, 7)
        else:
            box(left, under - 1, SWATCH, SWATCH, COLOURS[entry.text])
        write(left + (entry.bar or SWATCH) + 5, under, entry.text)


def _scale_bar(pixels_per_m: float | None, wide: int) -> tuple[str, float] | None:
    """Return the text and length in pixels of a round number of metres that is up to 0.6 of a layout's width."""
    if pixels_per_m is None:
        return None
    metres = next((m for m in BAR_M if m * pixels_per_m <= 0.6 * wide), BAR_M[-1])
    return f"{metres} m", metres * pixels_per_m


def _text_width(text: str) -> float:
    return float(TextPath((0, 0), text, size=FONT * DPI / 72).get_extents().width) if text.strip() else 0.0


def _wrap(text: str, wide: int) -> list[str]:
    """Break a caption into lines that fit above a layout; its own line breaks stay."""
    letters = max(6, int(wide / _text_width("coverage 0.25") * 13))
    return [part for line in text.splitlines() for part in textwrap.wrap(line, letters) or [""]]
