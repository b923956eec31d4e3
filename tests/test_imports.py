"""Imports point one way, and the heavy packages stay where they belong. Read from the source, nothing is imported."""

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "citygrain"

ROOMS = (
    *("errors", "version", "support"),
    *("geo", "spec", "measures", "protocols"),
    *("networks", "plot", "layouts"),
    *("data", "samplers", "models", "checkpoint"),
    *("generation", "evaluation", "latent", "training"),
    *("model", "app", "verbs", "__main__"),
)
"""Every room of the package; one imports from itself and from those before it."""

MODULES = {
    ".".join(("citygrain", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


@cache
def imports(path, *, at_start_only=False):
    """Return the names of the modules that a file imports; with `at_start_only` those that importing it imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if at_start_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports name the whole path"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in MODULES else str(node.module))
    return frozenset(found)


def part(module):
    return module.split(".")[1] if "." in module else "citygrain"


def users(package):
    return {name for name, path in MODULES.items() if any(i.split(".")[0] == package for i in imports(path))}


def test_the_reader_of_imports_sees_them():
    assert "torch" in imports(MODULES["citygrain.spec"])
    assert "citygrain.errors" in imports(MODULES["citygrain.spec"])
    assert "citygrain.support.config" in users("hydra")


@pytest.mark.parametrize("module", [m for m in MODULES if m != "citygrain"])
def test_imports_point_one_way(module):
    assert part(module) in ROOMS, f"{module} has no room: say in ROOMS where it belongs"
    for imported in imports(MODULES[module]):
        if imported.startswith("citygrain."):
            assert ROOMS.index(part(imported)) <= ROOMS.index(part(module)), f"{module} imports {imported}"


def test_only_the_command_line_knows_the_verbs():
    assert not [
        m for m in MODULES if part(m) not in {"verbs", "__main__"} and any("verbs" in i for i in imports(MODULES[m]))
    ]


def test_no_module_needs_itself():
    graph = {
        name: {i for i in imports(path, at_start_only=True) if i in MODULES and i not in {name, "citygrain"}}
        for name, path in MODULES.items()
        if name != "citygrain"
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"imports go in a circle: {' -> '.join(error.args[1])}")


def test_geo_knows_no_torch():
    assert not [m for m in users("torch") | users("pytorch_lightning") if part(m) == "geo"]


def test_hydra_is_known_to_config_alone():
    assert users("hydra") | users("omegaconf") == {"citygrain.support.config"}


def test_lightning_stays_in_the_datamodule_and_in_training():
    assert {m for m in users("pytorch_lightning") if part(m) != "training"} <= {"citygrain.data.datamodule"}
    assert not users("lightning"), "the package is imported as pytorch_lightning, everywhere"


def loaded_with(module):
    """Names of our modules that importing one of them imports."""
    found, left = set(), {module}
    while left:
        module = left.pop()
        found.add(module)
        left |= imports(MODULES[module], at_start_only=True) & set(MODULES) - found
    return found


def test_codes_are_looked_into_without_lightning():
    assert "citygrain.latent.codes" in loaded_with("citygrain.latent")
    assert not loaded_with("citygrain.latent") & users("pytorch_lightning")


def test_who_only_draws_does_not_wait_for_what_judges():
    assert "citygrain.generation.sampling" in loaded_with("citygrain.model")
    for heavy in ("pytorch_lightning", "momepy", "sklearn"):
        assert not loaded_with("citygrain.verbs.sample") & users(heavy), heavy


@pytest.mark.parametrize("module", [m for m in MODULES if part(m) in {"checkpoint", "training"}])
def test_families_are_reached_by_target_and_never_by_import(module):
    assert not [i for i in imports(MODULES[module]) if i.startswith("citygrain.models")]
