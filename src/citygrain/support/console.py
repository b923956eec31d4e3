"""Progress bars and tables on the screen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

import rich
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[float, str], None]
"""Called with the share of the work that is done, from 0 to 1, and a text on the current step."""


@contextmanager
def show_progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar for `total` pieces of work. It vanishes at the end.

    The block gets a function, to be called with the number of pieces that were just done. Terminals show the bar, and
    notebooks do if ipywidgets is installed. Nothing is written to files.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with _make_bar(*columns) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, advance=done)


@contextmanager
def show_share_bar(what: str, also: Progress | None = None) -> Iterator[Progress]:
    """Show a progress bar for work that cannot be counted in pieces. It vanishes at the end.

    The block gets a function, to be called with the share of the work that is done and a text on the current step. The
    function `also` gets the same.
    """
    percent = TextColumn("{task.percentage:>3.0f}%")
    with _make_bar(BarColumn(), percent, TimeElapsedColumn(), TextColumn("{task.description}")) as bar:
        task = bar.add_task(what, total=1.0)

        def report(done: float, now: str) -> None:
            bar.update(task, completed=done, description=now)
            if also is not None:
                also(done, now)

        yield report


def _make_bar(*columns: ProgressColumn) -> Bars:
    console = rich.get_console()
    # Without ipywidgets, rich warns at every update. In a file, it writes an empty line.
    hidden = find_spec("ipywidgets") is None if console.is_jupyter else not console.is_terminal
    return Bars(*columns, console=console, transient=True, disable=hidden)


def make_table(title: str, *headings: str, texts: int = 1) -> Table:
    """Make an empty table for the screen. The first columns are for texts (left-aligned), the others for numbers.

    Parameters
    ----------
    title
        Title above the table.
    headings
        One for each column.
    texts
        Number of columns for texts.
    """
    table = Table(title=title)
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="left" if i < texts else "right")
    return table


def make_map_table(compared: pd.DataFrame) -> Table:
    """Return requested and measured maps as a table for the screen: one row for each map, over all of its cells.

    Parameters
    ----------
    compared
        In the columns of `citygrain.geo.coarse_maps.COLUMNS`.
    """
    shown = make_table(
        "maps: requested and measured on their cells",
        "map", "unit", "cells", "edge, m", "requested", "measured", "mean error", "R²", texts=2,
    )  # fmt: skip
    for name, row in compared.iterrows():
        numbers = [
            f"{row[key]:.4g}" if math.isfinite(row[key]) else "" for key in ("requested", "measured", "mean_error")
        ]
        fit = f"{row['r2']:.3f}" if math.isfinite(row["r2"]) else ""
        shown.add_row(str(name), row["unit"], f"{row['cells']}", f"{row['cell_m']:g}", *numbers, fit)
    return shown
