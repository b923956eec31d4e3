"""What is shown while something works."""

import warnings

import rich
from rich.console import Console

from citygrain.support import console


def test_a_notebook_without_ipywidgets_is_not_warned_of_it(monkeypatch):
    monkeypatch.setattr(rich, "get_console", lambda: Console(force_jupyter=True))
    monkeypatch.setattr(console, "find_spec", lambda _name: None)
    with warnings.catch_warnings(), console.progress_bar("working", 2) as advance:
        warnings.simplefilter("error")
        advance(1)
        advance(1)


def test_a_table_has_its_texts_on_the_left_and_its_numbers_on_the_right():
    table = console.make_table("places", "measure", "unit", "value", texts=2)
    assert [str(column.header) for column in table.columns] == ["measure", "unit", "value"]
    assert [column.justify for column in table.columns] == ["left", "left", "right"]
    assert [column.justify for column in console.make_table("", "a", "b").columns] == ["left", "right"]
