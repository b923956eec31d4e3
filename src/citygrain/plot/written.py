"""Former names, with the path of a PNG among their parameters. They go when nobody calls them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from citygrain.plot.charts import show_distances, show_histograms, show_requests, show_stages
from citygrain.plot.comparison import show_distributions, show_orientations, show_ranges, show_shares
from citygrain.plot.maps import show_place_map
from citygrain.plot.sheets import make_sheet, make_vector_sheet
from citygrain.plot.style import save_figure


def sheet(layouts: Any, channels: Any, path: str | Path | None = None, **style: Any) -> Image.Image:  # noqa: D103
    picture = make_sheet(layouts, channels, **style)
    _write(picture, path)
    return picture


def vector_sheet(layouts: Any, path: str | Path | None = None, **style: Any) -> Image.Image:  # noqa: D103
    picture = make_vector_sheet(layouts, **style)
    _write(picture, path)
    return picture


def requested_measured(requested: Any, measured: Any, path: str | Path | None = None, *, heading: str = "") -> None:  # noqa: D103
    _write(show_requests(requested, measured, title=heading), path)


def distance_chart(rows: Any, path: str | Path | None = None) -> None:  # noqa: D103
    _write(show_distances(rows), path)


def histograms(samples: Any, path: str | Path | None = None, **style: Any) -> None:  # noqa: D103
    _write(show_histograms(samples, **style), path)


def curves(stages: Any, path: str | Path | None = None) -> None:  # noqa: D103
    _write(show_stages(stages), path)


def roses(bearings: Any, titles: Any, path: str | Path | None = None) -> None:  # noqa: D103
    _write(show_orientations(bearings, titles), path)


def ranges(rows: Any, places: Any, path: str | Path | None = None) -> None:  # noqa: D103
    _write(show_ranges(rows, places), path)


def distributions(samples: Any, places: Any, path: str | Path | None = None) -> None:  # noqa: D103
    _write(show_distributions(samples, places), path)


def stacked(shares: Any, labels: Any, path: str | Path | None = None) -> None:  # noqa: D103
    _write(show_shares(shares, labels), path)


def place_map(  # noqa: D103
    where: Any, values: Any, window_m: float, path: str | Path | None = None, *, heading: str = "", **style: Any
) -> None:
    _write(show_place_map(where, values, window_m, title=heading, **style), path)


def _write(drawn: Axes | Figure | Image.Image, path: str | Path | None) -> None:
    if path is not None:
        save_figure(drawn, path)
