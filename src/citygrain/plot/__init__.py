"""Pictures of layouts, of what was measured on them, and of places beside each other.

Functions that begin with `show` draw into matplotlib axes, `ax`, and return them; without `ax` they make a figure.
Where a picture takes several axes, they return the figure. Functions that begin with `make` return images of layouts in
which every cell is a square of pixels. Nothing is written: `save_figure` writes what any of them returned, and
`to_image` turns axes and figures into images.

Everything takes arrays or CPU tensors, and draws without a display.
"""

from citygrain.plot.charts import (
    r_squared,
    show_distances,
    show_histograms,
    show_losses,
    show_request,
    show_requests,
    show_stages,
)
from citygrain.plot.comparison import (
    show_distribution,
    show_distributions,
    show_orientation,
    show_orientations,
    show_ranges,
    show_shares,
)
from citygrain.plot.maps import show_layout, show_place_map, show_vectors, to_rgb
from citygrain.plot.sheets import make_channel_sheet, make_sheet, make_vector_sheet
from citygrain.plot.style import COLOURS, FAINT, INK, PAPER, hue, save_figure, style_axes, to_image

__all__ = [
    "COLOURS",
    "FAINT",
    "INK",
    "PAPER",
    "hue",
    "make_channel_sheet",
    "make_sheet",
    "make_vector_sheet",
    "r_squared",
    "save_figure",
    "show_distances",
    "show_distribution",
    "show_distributions",
    "show_histograms",
    "show_layout",
    "show_losses",
    "show_orientation",
    "show_orientations",
    "show_place_map",
    "show_ranges",
    "show_request",
    "show_requests",
    "show_shares",
    "show_stages",
    "show_vectors",
    "style_axes",
    "to_image",
    "to_rgb",
]
