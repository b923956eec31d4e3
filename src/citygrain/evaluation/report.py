"""Reports: one HTML file with its pictures inside, that opens anywhere."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from citygrain.files import write_text
from citygrain.geo.sources import ATTRIBUTION


def write_report(report: Mapping[str, Any], folder: Path, template: str) -> Path:
    """Write `report.html` into a folder, with the PNGs that lie there and that the template names.

    Parameters
    ----------
    report
        What the template shows.
    folder
        Where the pictures are.
    template
        `evaluation` or `comparison`.
    """
    environment = Environment(
        loader=PackageLoader("citygrain.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, percent=percent)
    environment.globals["picture"] = lambda name: _inlined(folder / name)
    path = folder / "report.html"
    page = environment.get_template(f"{template}.html.jinja")
    write_text(path, page.render(report=report, attribution=ATTRIBUTION))
    return path


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with so many significant digits; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def percent(value: float | None) -> str:
    """Return a share as a percentage."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.1%}"


def _inlined(path: Path) -> str:
    """Return a picture as a data URL; empty where there is none."""
    if not path.is_file():
        return ""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
