"""What is shown while something works."""

import io
import warnings

import pytest
import rich
from rich.console import Console

from citygrain.support import console


def test_a_notebook_without_ipywidgets_is_not_warned_of_it(monkeypatch):
    monkeypatch.setattr(rich, "get_console", lambda: Console(force_jupyter=True))
    monkeypatch.setattr(console, "find_spec", lambda _name: None)
    with warnings.catch_warnings(), console.show_progress_bar("working", 2) as advance:
        warnings.simplefilter("error")
        advance(1)
        advance(1)


@pytest.mark.parametrize(
    "bar", [lambda: console.show_progress_bar("working", 2), lambda: console.show_share_bar("working")]
)
def test_a_bar_leaves_nothing_in_a_file_and_moves_on_a_terminal(monkeypatch, bar):
    written = {}
    for terminal in (False, True):
        file = io.StringIO()
        shown = Console(file=file, force_terminal=terminal, width=80)
        monkeypatch.setattr(rich, "get_console", lambda shown=shown: shown)
        with bar():
            pass
        written[terminal] = file.getvalue()
    assert written[False] == ""
    assert "working" in written[True]


def test_whoever_listens_beside_a_bar_is_told_the_same():
    told = []
    with console.show_share_bar("working", lambda done, now: told.append((done, now))) as report:
        report(0.5, "half")
    assert told == [(0.5, "half")]


def test_a_table_has_its_texts_on_the_left_and_its_numbers_on_the_right():
    table = console.make_table("places", "measure", "unit", "value", texts=2)
    assert [str(column.header) for column in table.columns] == ["measure", "unit", "value"]
    assert [column.justify for column in table.columns] == ["left", "left", "right"]
    assert [column.justify for column in console.make_table("", "a", "b").columns] == ["left", "right"]
