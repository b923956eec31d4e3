"""The report of an evaluation: one HTML file with its pictures inside, that opens anywhere."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from citygrain.files import write_text
from citygrain.geo.sources import ATTRIBUTION


def write_report(report: Mapping[str, Any], folder: Path, template: str = "report.html.jinja") -> Path:
    """Write `report.html` into a folder, with the PNGs that lie there and that the template names.

    Parameters
    ----------
    report
        What `report.json` holds.
    folder
        Where the pictures are.
    template
        File beside this module.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(number=number, percent=percent)
    environment.globals["picture"] = lambda name: _inlined(folder / name)
    text = files("citygrain.evaluation").joinpath(template).read_text(encoding="utf-8")
    path = folder / "report.html"
    write_text(path, environment.from_string(text).render(report=report, attribution=ATTRIBUTION))
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
