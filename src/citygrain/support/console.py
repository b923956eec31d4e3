"""What citygrain shows while it works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import rich
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

Report = Callable[[float, str], None]
"""Called with the share that is done, 0 to 1, and what is being done."""


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar of `total` pieces of work that vanishes at the end; call what it hands out with each number done.

    A terminal shows it, and so does a notebook where ipywidgets is installed; a file does not.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with _vanishing(*columns) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, advance=done)


@contextmanager
def share_bar(what: str, also: Report | None = None) -> Iterator[Report]:
    """Show a bar for work that cannot be counted in pieces; it vanishes at the end.

    Call what it hands out with the share that is done and what is being done. `also` is told the same.
    """
    percent = TextColumn("{task.percentage:>3.0f}%")
    with _vanishing(BarColumn(), percent, TimeElapsedColumn(), TextColumn("{task.description}")) as bar:
        task = bar.add_task(what, total=1.0)

        def report(done: float, now: str) -> None:
            bar.update(task, completed=done, description=now)
            if also is not None:
                also(done, now)

        yield report


def _vanishing(*columns: ProgressColumn) -> Progress:
    console = rich.get_console()
    # Without ipywidgets rich would warn at every turn; in a file it would leave an empty line.
    hidden = find_spec("ipywidgets") is None if console.is_jupyter else not console.is_terminal
    return Progress(*columns, console=console, transient=True, disable=hidden)


def make_table(title: str, *headings: str, texts: int = 1) -> Table:
    """Make an empty table for the screen: its first columns hold text and stand left, the others hold numbers.

    Parameters
    ----------
    title
        What stands above it.
    headings
        One a column.
    texts
        How many of the columns hold text.
    """
    table = Table(title=title)
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="left" if i < texts else "right")
    return table
