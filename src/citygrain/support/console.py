"""What citygrain shows while it works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import rich
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar of `total` pieces of work that vanishes at the end; call what it hands out with each number done.

    A notebook shows it where ipywidgets is installed, and nothing otherwise.
    """
    console = rich.get_console()
    hidden = console.is_jupyter and find_spec("ipywidgets") is None  # rich would warn at every turn
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, advance=done)


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
