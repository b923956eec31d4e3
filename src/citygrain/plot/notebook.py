"""Images as a notebook and matplotlib show them."""

from __future__ import annotations

import base64
import io

import pandas as pd
from matplotlib.axes import Axes
from PIL import Image


def show_image(image: Image.Image, ax: Axes | None = None) -> Axes:
    """Draw an image with matplotlib; without axes on a new figure of as many pixels."""
    if ax is None:
        from matplotlib import pyplot as plt  # noqa: PLC0415  (it looks for a screen, which nothing else here needs)

        width, height = image.size
        figure = plt.figure(figsize=(width / 100, height / 100), dpi=100)
        ax = figure.add_axes((0, 0, 1, 1))
    ax.imshow(image)
    ax.set_axis_off()
    return ax


def write_html(image: Image.Image, table: pd.DataFrame, between: str = "") -> str:
    """Return the HTML of an image and a table under it; `between` is HTML that stands between the two."""
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    source = base64.b64encode(buffer.getvalue()).decode()
    rows: str = table.to_html(float_format="{:.4g}".format, na_rep="")
    return f'<img src="data:image/png;base64,{source}" alt="layouts"/>{between}{rows}'
