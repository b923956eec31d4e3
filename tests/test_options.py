"""A verb's configuration becomes typed options, once."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from citygrain.errors import ConfigError
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


@pytest.mark.parametrize(
    ("plain", "key"),
    [
        ({"checkpoint": None}, "checkpoint"),
        ({"checkpoint": ["a"]}, "checkpoint"),
        ({"out": True}, "out"),
        ({"out": {"a": 1}}, "out"),
        ({"keep": "water"}, "keep"),
        ({"keep": None}, "keep"),
        ({"inner": 3}, "inner"),
        ({"inner": {"levels": 1.5}}, "inner.levels"),
        ({"inner": {"levels": True}}, "inner.levels"),
        ({"inner": {"levels": "many"}}, "inner.levels"),
        ({"inner": {"between": 3}}, "inner.between"),
        ({"asked": []}, "asked"),
    ],
)
def test_a_value_of_another_kind_is_refused_by_the_name_of_its_key(plain, key):
    with pytest.raises(ConfigError, match=rf"^{key} is not of the right kind") as refused:
        parse(Options, {"checkpoint": "a", **plain})
    assert "expected: " in str(refused.value)


def test_a_number_is_text_where_text_is_expected():
    assert parse(Options, {"checkpoint": 3, "out": 4, "keep": ["a", 5]}) == Options("3", Path("4"), ("a", "5"))
