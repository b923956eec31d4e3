"""Files appear whole or not at all, and values are written as JSON gives them back."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from citygrain.errors import DataError
from citygrain.support.files import to_plain, write_json, write_text


@dataclass(frozen=True)
class Inner:
    value: float
    names: tuple[str, ...]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Inner(math.nan, ("a", "b")), {"value": None, "names": ["a", "b"]}),
        ({"deep": [{"of": (1, 2.5, math.inf)}]}, {"deep": [{"of": [1, 2.5, None]}]}),
        ({1: True, "none": None}, {"1": True, "none": None}),
        ([np.int64(3), np.float32(0.5), np.float64("nan"), np.bool_(True)], [3, 0.5, None, True]),
        (Path("out") / "a", "out/a"),
    ],
)
def test_a_value_is_plain_when_json_gives_it_back_unchanged(value, expected, tmp_path):
    assert to_plain(value) == expected
    write_json(tmp_path / "value.json", value)
    assert json.loads((tmp_path / "value.json").read_text(encoding="utf-8")) == expected
    assert to_plain(expected) == expected


def test_what_cannot_be_written_leaves_what_was_there(tmp_path):
    write_text(tmp_path / "file", "before")
    with pytest.raises(DataError, match="cannot be written"):
        write_text(tmp_path / "file" / "below", "after")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "before"
