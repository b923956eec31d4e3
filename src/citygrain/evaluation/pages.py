"""Pages: one HTML file with its pictures inside, that opens anywhere."""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from citygrain.geo.sources import ATTRIBUTION
from citygrain.support.files import write_text

TEMPLATES = "citygrain.evaluation"
"""The package that has the templates of evaluations and comparisons."""


def write_page(path: Path, package: str, template: str, **values: Any) -> Path:
    """Write one HTML file from a package's template, with the PNGs inside that lie beside it and that it names.

    Parameters
    ----------
    path
        The file.
    package, template, values
        As for `render`.
    """
    write_text(path, render(package, template, folder=path.parent, **values))
    return path


def render(package: str, template: str, *, folder: Path = Path(), **values: Any) -> str:
    """Fill a template in and return the HTML.

    Parameters
    ----------
    package, template
        Where `<template>.html.jinja` is.
    folder
        Where the PNGs are that the template names.
    values
        What the template shows, by the names that it has for them. It has `picture`, `number`, `percent` and the
        `attribution` of the data as well.
    """
    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=format_number, percent=format_percent)
    environment.globals["picture"] = lambda name: _inlined(folder / name)
    return environment.get_template(f"{template}.html.jinja").render(**values, attribution=ATTRIBUTION)


def format_number(value: float | None, digits: int = 3) -> str:
    """Return a number with this many significant digits; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def format_percent(value: float | None) -> str:
    """Return a share as a percentage."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.1%}"


def _inlined(path: Path) -> str:
    """Return a picture as a data URL; empty where there is none."""
    if not path.is_file():
        return ""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
