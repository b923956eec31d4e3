"""Sheets: layouts side by side, cell by cell, with captions, a legend and a scale bar. They are images, not figures.

On a sheet, a cell is a square of whole pixels. A figure that is scaled to fit a page would blur it.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
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

MARGIN, GAP, CAPTION, LINE, SWATCH = 18, 12, 15, 18, 10
"""Pixels: around a sheet, between layouts, a line of a caption, a line of the legend, a colour in the legend."""

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


class _Canvas:
    """A figure of this many pixels. Places on it are pixels from the left and from below, as matplotlib counts them."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.pictures: list[tuple[int, int, Picture]] = []
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")

    def write(self, left: float, under: float, text: str, size: float = FONT) -> None:
        x, y = left / self.width, under / self.height
        self.figure.text(x, y, text, va="baseline", color=INK, fontsize=size)

    def fill(self, left: float, under: float, wide: float, high: float, colour: str = INK) -> None:
        corner = left / self.width, under / self.height
        self.figure.add_artist(Rectangle(corner, wide / self.width, high / self.height, color=colour, linewidth=0))

    def paste(self, left: int, under: int, picture: Picture) -> None:
        self.pictures.append((left, self.height - under - len(picture), picture))

    def to_image(self) -> Image.Image:
        """Return the canvas as an image. Pictures are pasted into it: matplotlib would take 50 times their memory."""
        image = to_image(self.figure)
        for left, top, picture in self.pictures:
            image.paste(Image.fromarray(picture), (left, top))
        return image


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
    captions = [_wrap(title, wide) for title in titles or [""] * len(pictures)]
    above = CAPTION * max(map(len, captions)) + 6 if titles else 0
    width = 2 * MARGIN + columns * wide + (columns - 1) * GAP
    foot = _place_foot([n for n in reversed(PAINTED) if n in legend], width, _scale_bar(pixels_per_m, wide))
    top = MARGIN + (34 if heading else 0)
    bottom = MARGIN + (12 + LINE * (foot[-1].line + 1) if foot else 0)
    height = top + rows * (above + high) + (rows - 1) * GAP + bottom
    canvas = _Canvas(width, height)
    canvas.write(MARGIN, height - MARGIN - 14, heading, HEADING_FONT)
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        row, column = divmod(i, columns)
        left, under = MARGIN + column * (wide + GAP), height - top - row * (above + high + GAP) - above - high
        canvas.paste(left, under, picture)
        for line, text in enumerate(reversed(caption)):
            canvas.write(left, under + high + 6 + CAPTION * line, text)
    _draw_foot(canvas, foot, bottom - 12)
    return canvas.to_image()


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


def _draw_foot(canvas: _Canvas, foot: Sequence[_Entry], top: float) -> None:
    for entry in foot:
        left, under = entry.left, top - LINE * (entry.line + 1) + 4
        if entry.bar:
            canvas.fill(left, under, entry.bar, 2)
            for end in (left, left + entry.bar - 2):
                canvas.fill(end, under, 2, 7)
        else:
            canvas.fill(left, under - 1, SWATCH, SWATCH, COLOURS[entry.text])
        canvas.write(left + (entry.bar or SWATCH) + 5, under, entry.text)


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
