"""What texts name is there: dotted names of citygrain, scripts, commands, public names, the version."""

import importlib
import re
import shlex
import subprocess
import sys

import pytest
import yaml

import citygrain
from citygrain.support.config import load_config
from from_code.source import ROOT

EXAMPLES = ("models.coarse_normal", "samplers.midpoint", "geo.sources.tree_register")
"""Modules that the pages on extending citygrain write."""

NAME = re.compile(r"(?<![\w./-])citygrain(?:\.[A-Za-z_]\w*)+")
SCRIPT = re.compile(r"(?<![\w./-])(?:benchmarks|findings|docs|tests)/[\w/]+\.py\b")

TEXTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile", "pyproject.toml")),
    *sorted((ROOT / "src").rglob("*.py")),
    *sorted((ROOT / "conf").rglob("*.yaml")),
    *sorted((ROOT / "notebooks").glob("*.ipynb")),
    *(file for name in ("docs", "benchmarks", "data", "findings") for file in sorted((ROOT / name).rglob("*.md"))),
    *(file for name in ("docs", "benchmarks", "findings") for file in sorted((ROOT / name).rglob("*.py"))),
]
MADE = {"_build", "api", "cards", "configuration", "families", "made", "notebooks"}
"""Folders of docs/ that a build of the site writes."""

BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))


def found_in_texts(pattern):
    """Return what matches, each with one file that it stands in; names of earlier versions do not count."""
    found = {}
    for file in TEXTS:
        parts = file.relative_to(ROOT).parts
        if parts[0] == "docs" and parts[1] in MADE:
            continue
        text = file.read_text(encoding="utf-8")
        if file.name == "CHANGELOG.md":
            text = re.sub(r"^\| `[^|]*\|", "", text, flags=re.MULTILINE)
        found |= dict.fromkeys(pattern.findall(text), "/".join(parts))
    return found


def is_there(name):
    """Whether a dotted name is a module, or what a module holds."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            held = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            held = getattr(held, part, None)
        return held is not None
    return False


def test_the_names_that_are_gone_would_be_noticed():
    assert is_there("citygrain.geo.layers.CHANNEL_NAMES")
    assert is_there("citygrain.Model.sample")
    assert not is_there("citygrain.sample.draw")
    assert not is_there("citygrain.Model.smaple")


def test_every_name_of_citygrain_in_a_text_is_there():
    names = {
        name: file
        for name, file in found_in_texts(NAME).items()
        if not name.removeprefix("citygrain.").startswith(EXAMPLES)
    }
    assert len(names) > 200
    assert {name: file for name, file in names.items() if not is_there(name)} == {}


def test_every_script_in_a_text_is_there():
    assert {script: file for script, file in found_in_texts(SCRIPT).items() if not (ROOT / script).is_file()} == {}


def test_public_names_are_listed_before_they_are_imported():
    code = "import citygrain, sys; print(*dir(citygrain)); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(citygrain.__all__) <= set(done.stdout.split())
    assert all(getattr(citygrain, name) is not None for name in citygrain.__all__)


@pytest.mark.parametrize("file", BENCHMARKS, ids=lambda file: file.stem)
def test_a_benchmark_can_be_imported(file, monkeypatch):
    monkeypatch.syspath_prepend(str(file.parent))
    spec = importlib.util.spec_from_file_location(f"benchmark_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    assert callable(module.main)


PAGES = [file for file in TEXTS if file.suffix == ".md" and "weights" not in file.parts]
SPEAKS_OF_OTHERS = re.compile("coarse_normal|midpoint|tree_register|…|<|--multirun")
"""Commands with parts that a reader writes, or with something left out."""


def commands(file):
    """Return the commands of citygrain that a page shows, as words."""
    found, inside, text = [], "", file.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if line.startswith("```"):
            inside = "" if inside else line.strip("`") or "text"
        elif inside == "sh":
            found.append(line)
        elif not inside:
            found += re.findall(r"`(citygrain [^`]*)`", line)
    lines = [line for line in found if line.startswith("citygrain ") and not SPEAKS_OF_OTHERS.search(line)]
    words = [shlex.split(line, comments=True)[1:] for line in lines]
    return [one for one in words if len(one) > 1 and not one[1].startswith("-")]


SHOWN = [
    pytest.param(
        words,
        id=f"{file.stem}: {' '.join(words)}",
        marks=() if file.stem in {"README", "start", "sampling"} else pytest.mark.slow,
    )
    for file in PAGES
    for words in commands(file)
]


def test_the_commands_of_pages_are_found():
    assert len(SHOWN) > 40


@pytest.mark.parametrize("words", SHOWN)
def test_a_command_of_a_page_is_one_that_citygrain_takes(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    verb, *overrides = words
    load_config(verb, overrides)


def test_the_citation_names_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == citygrain.__version__
