"""A verb's configuration becomes typed options, once."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from citygrain.support.options import parse


@dataclass(frozen=True)
class Inner:
    levels: int = 10
    between: tuple[float, float] = (10, 90)


@dataclass(frozen=True)
class Options:
    checkpoint: str
    out: Path | None = None
    keep: tuple[str, ...] = ()
    inner: Inner = Inner()
    asked: dict[str, float | None] = field(default_factory=dict)


def test_each_value_has_the_type_of_its_field():
    plain = {"checkpoint": "runs/a", "out": "out/a", "keep": ["water"], "inner": {"levels": 3, "between": [0, 50]}}
    assert parse(Options, plain) == Options("runs/a", Path("out/a"), ("water",), Inner(3, (0, 50)))


def test_what_is_not_given_has_its_default_and_null_stays_null():
    assert parse(Options, {"checkpoint": "runs/a", "out": None, "asked": {"green": None}}) == Options(
        "runs/a", asked={"green": None}
    )


def test_keys_of_others_are_left_alone():
    assert parse(Options, {"checkpoint": "a", "threads": 2, "inner": {"levels": 2, "more": 1}}).inner == Inner(2)


def test_what_must_be_given_is_missed():
    with pytest.raises(TypeError, match="checkpoint"):
        parse(Options, {"out": "b"})
