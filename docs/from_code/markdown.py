"""Markdown as MyST reads it: plain texts, tables, targets of links; and the tables that a Markdown file holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple


def text(plain: object) -> str:
    """Return a text whose signs mean themselves, on one line; what stands between backticks stays code."""
    parts = re.split(r"(`[^`]+`)", " ".join(str(plain).split()))
    return "".join(part if i % 2 else re.sub(r"([\\*_{}\[\]<>#|$~^&`])", r"\\\1", part) for i, part in enumerate(parts))


def code(plain: object) -> str:
    """Return a text as code, on one line; nothing for nothing."""
    inner = " ".join(str(plain).split())
    return f"`{inner}`" if inner and "`" not in inner else text(inner)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], widths: Sequence[int] = ()) -> str:
    """Return a table of cells that are Markdown, each of one paragraph.

    Parameters
    ----------
    header, rows
        The cells; all rows have as many.
    widths
        Of the columns, in proportion; as their content wants it when left out.
    """
    lines = [
        "",
        "````{list-table}",
        ":header-rows: 1",
        *([f":widths: {' '.join(map(str, widths))}"] if widths else []),
        "",
    ]
    for row in (header, *rows):
        lines += [f"{'  -' if i else '* -'} {cell}".rstrip() for i, cell in enumerate(row)]
    return "\n".join([*lines, "````", ""])


def block(language: str, content: str) -> str:
    """Return a block of code."""
    return f"\n```{language}\n{content.strip()}\n```\n"


def target(name: str) -> str:
    """Return a target before a heading, which links from any page find by its name."""
    return f"\n({name.replace('_', '-')})=\n"


def option_target(group: str, option: str) -> str:
    """Return the target of an option of a group, such as `model=pca`."""
    return f"option-{group}-{option}".replace("/", "-").replace("_", "-")


def swatch(colour: str) -> str:
    """Return a small square of a colour `#rrggbb`."""
    return f'<span class="swatch" style="background:{colour}"></span>'


def first_paragraph(docstring: str | None) -> str:
    """Return the first paragraph of a docstring, on one line."""
    return " ".join((docstring or "").strip().split("\n\n")[0].split())


class Table(NamedTuple):
    """A table of a Markdown file: its header, and its rows by their first cell without marks."""

    header: list[str]
    rows: dict[str, list[str]]


def tables(markdown: str) -> Iterator[Table]:
    """Find the tables with pipes of a Markdown text, in order."""
    for found in re.finditer(r"(?m)^\|.*\|\n\|[-: |]+\|\n(?:\|.*\|(?:\n|\Z))+", markdown):
        header, _, *rows = ([cell.strip() for cell in line.strip("| \n").split("|")] for line in found[0].splitlines())
        yield Table(header, {row[0].strip("`"): row for row in rows})
