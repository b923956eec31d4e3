"""What the page shows and hands out: sheets, rows of numbers, ZIP files."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from citygrain.measures import MEASURES
from citygrain.networks.frame import FRAME
from citygrain.plot import make_sheet
from citygrain.spec import LayoutSpec
from citygrain.support.files import write_atomically

Row = list[str]

SHARE = "share"
"""What the page calls the unit of measures that have none."""

OF_SITES = {"streets_going_on": "streets that go on across the edge", "stayed": "cover that stayed"}
"""Labels of what is measured on a site besides the conditions."""

SHEET_PX = 768
"""About the width of a sheet on the page."""

COLUMNS = {1: 1, 2: 2, 3: 2, 4: 2, 5: 3, 6: 3}
"""Number of layouts → how many of them stand in a row; four of more."""


def make_page_sheet(
    layouts: ArrayLike,
    spec: LayoutSpec,
    titles: Sequence[str],
    *,
    columns: int | None = None,
    outline: NDArray[np.bool_] | None = None,
) -> Image.Image:
    """Draw layouts `(N, C, H, W)` side by side, about as wide as the page has room."""
    columns = columns or COLUMNS.get(len(titles), 4)
    scale = max(1, SHEET_PX // columns // spec.size_px)
    return make_sheet(
        layouts, spec.channels, titles=titles, columns=columns, scale=scale, resolution_m=spec.resolution_m,
        outline=outline,
    )  # fmt: skip


def label_of(name: str) -> tuple[str, str]:
    """Return label and unit of a measure as the page shows them; measures without a unit are shares."""
    about = {**MEASURES, **FRAME}.get(name)
    label, unit = (about.label, about.unit) if about else (OF_SITES.get(name, name), "–")
    return label, SHARE if unit == "–" else unit


def format_number(value: float) -> str:
    """Return a number as the page shows it: nothing where there was nothing to measure."""
    return f"{value:.3g}" if math.isfinite(value) else ""


def zip_folder(folder: Path, path: Path) -> Path:
    """Put the files of a folder into a ZIP file."""
    with write_atomically(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
    return path
