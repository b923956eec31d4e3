"""What keeps the house one that people find their way in: few rooms, small files, values that travel typed."""

import ast
import re

import pytest

import test_imports
from test_imports import MODULES, PACKAGE, part

FILES = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.jinja")]


def lines(path):
    return path.read_text(encoding="utf-8").count("\n")


def test_there_are_few_rooms_and_each_stands_in_the_order():
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or any(path.glob("*.py"))}
    assert rooms - {"__init__"} == set(test_imports.ROOMS)
    assert len(rooms | {"weights"}) <= 24


def test_files_are_small():
    assert not [path.name for path in FILES if lines(path) > 600]
    assert len([path.name for path in FILES if lines(path) > 400]) <= 7


@pytest.mark.parametrize("module", [m for m in MODULES if part(m) != "support"])
def test_a_configuration_is_read_once_and_then_travels_typed(module):
    """Hydra's mapping ends in the dataclass that a verb parses; below the verbs nobody is handed one to look into."""
    text = MODULES[module].read_text(encoding="utf-8")
    assert not re.search(r"\bconfig\[|\bconfig\.get\(", text)
    if part(module) not in {"verbs", "__main__"}:
        assert not re.search(r"\bconfig: (?:Mapping|dict|Plain)", text)


@pytest.mark.parametrize("module", MODULES)
def test_a_model_is_handed_on_as_what_it_can_do(module):
    """Models, codecs, handles and samplers have the type of a capability, never `Any`."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    named = {"generator", "model", "codec", "sampler", "handle"}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.arg in named and node.annotation is not None:
            assert ast.unparse(node.annotation) != "Any", f"line {node.lineno}"
