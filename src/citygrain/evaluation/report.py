"""Reports: one HTML file with its pictures inside, that opens anywhere."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from citygrain.geo.sources import ATTRIBUTION
from citygrain.support.files import write_text


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
    return write_page(folder / "report.html", "citygrain.evaluation", template, report=report)


def write_page(path: Path, package: str, template: str, **values: Any) -> Path:
    """Write one HTML file from a package's template, with the PNGs inside that lie beside it and that it names.

    Parameters
    ----------
    path
        The file.
    package, template
        Where `<template>.html.jinja` is.
    values
        What it shows; `picture`, `number`, `percent` and the `attribution` of the data are there anyway.
    """
    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, percent=percent)
    environment.globals["picture"] = lambda name: _inlined(path.parent / name)
    page = environment.get_template(f"{template}.html.jinja")
    write_text(path, page.render(**values, attribution=ATTRIBUTION))
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
