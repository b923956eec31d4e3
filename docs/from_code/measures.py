"""Every measure with its unit, formula and source: conditions, urban form by what it is about, key points."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

from from_code import source
from from_code.markdown import code, table, text

GROUPS = {
    "buildings": "Buildings",
    "blocks": "Blocks",
    "drive": "The drive network: arterials and streets",
    "cycle": "The cycle network",
    "walk": "The walk network",
    "street edge": "The street's edge",
    "open space": "Open space",
    "reach": "Reach on foot",
}


def pages() -> dict[str, str]:
    """Return the pieces that `measures.md` includes."""
    form = [
        f"### {GROUPS.get(group, group.capitalize())}\n{_table(measures)}"
        for group, measures in groupby(source.FORM.values(), key=lambda measure: measure.group)
    ]
    return {
        "made/conditions.md": _table(source.MEASURES.values(), asked=True),
        "made/frame.md": _table(source.FRAME.values()),
        "made/form.md": "\n".join(form),
        "made/key_points.md": _table(source.KEY_POINTS.values()),
    }


def _table(measures: Iterable[Any], *, asked: bool = False) -> str:
    rows = []
    for measure in measures:
        row = [
            f"[{code(measure.name)}]{{#measure-{measure.name.replace('_', '-')}}} {text(measure.label)}",
            text(measure.unit),
            text(measure.formula),
            text(measure.source),
            ", ".join(measure.channels),
        ]
        rows.append([*row, "yes" if measure.linear else ""] if asked else row)
    header = ("measure", "unit", "formula", "source", "channels")
    return table((*header, "as a map"), rows, (4, 2, 6, 5, 3, 1)) if asked else table(header, rows, (4, 2, 6, 5, 3))
