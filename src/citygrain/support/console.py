"""Progress bars and tables on the screen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

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
