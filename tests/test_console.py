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
