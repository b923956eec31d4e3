"""What the pages are made from. This is the only file of the site that imports citygrain, and says where things are."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

import citygrain
from citygrain import protocols
from citygrain.__main__ import FLAGS, VERBS, read_comments
from citygrain.evaluation.form import FORM
from citygrain.evaluation.key_points import KEY_POINTS
from citygrain.geo import layers
from citygrain.geo.layers import CHANNELS, COASTLINE, PARTED, PARTS, RASTER_FORMAT
from citygrain.geo.osm_rules import DECIDED_AGAINST, OSM_RULES, Rule
from citygrain.geo.place import Place
from citygrain.geo.tile_rules import TILE_RULES
from citygrain.measures import MEASURES
from citygrain.networks.frame import FRAME
from citygrain.support.config import find_file, list_group_defaults, list_groups
from citygrain.support.targets import find_target

__all__ = [
    "CHANNELS",
    "COASTLINE",
    "DECIDED_AGAINST",
    "FLAGS",
    "FORM",
    "FRAME",
    "KEY_POINTS",
    "LAYERS_MODULE",
    "MEASURES",
    "OSM_RULES",
    "PACKAGE",
    "PARTED",
    "PARTS",
    "RASTER_FORMAT",
    "ROOT",
    "TILE_RULES",
    "VERBS",
    "VERSION",
    "Place",
    "Rule",
    "capabilities",
    "families",
    "family_of",
    "find_file",
    "find_target",
    "fingerprint",
    "handle_of",
    "list_group_defaults",
    "list_groups",
    "module",
    "modules",
    "own_sampler",
    "public_names",
    "read_comments",
    "recipe",
    "samplers",
    "shipped",
    "yaml_of",
]

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(citygrain.__file__).resolve().parent
VERSION = citygrain.__version__

LAYERS_MODULE = layers.__name__
"""The module whose docstring says why the table of channels is as it is."""

INSIDE = frozenset({"__main__", "app", "verbs"})
"""Rooms that stand behind the command line and the page; nobody imports them."""


@cache
def fingerprint() -> str:
    """Return what tells this code, its configurations, weights and sample from any others."""
    told = sha256()
    for file in sorted(
        path for folder in (PACKAGE, ROOT / "conf", ROOT / "data" / "sample") for path in folder.rglob("*")
    ):
        if file.is_file() and "__pycache__" not in file.parts:
            told.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes())
    return told.hexdigest()[:12]


def yaml_of(option: str) -> Mapping[str, Any]:
    """Return the content of a file of conf/, such as `model/pca`, without what it takes from others."""
    file = find_file(option)
    content = yaml.safe_load(file.read_text(encoding="utf-8")) if file else None
    return content if isinstance(content, Mapping) else {}


@cache
def families() -> dict[str, type]:
    """Return the class of every family of conf/model."""
    return {name: find_target(_target(f"model/{name}")) for name in list_groups()["model"]}


def _target(option: str) -> str:
    """Return the path of the class that a file of conf/ builds; it may take it over from another of its group."""
    content = yaml_of(option)
    if "_target_" in content:
        return str(content["_target_"])
    other = next(entry for entry in content["defaults"] if isinstance(entry, str) and entry != "_self_")
    return _target(f"{option.rpartition('/')[0]}/{other}")


def own_sampler(family: str) -> str | None:
    """Return the sampler that a family is drawn by unless told otherwise; None for a family whose parts have theirs."""
    own = list_group_defaults("train", overrides=[f"model={family}"]).get("sampler@model.sampler")
    return None if own is None else str(own)


def samplers() -> dict[str, type]:
    """Return the class of every sampler of conf/sampler."""
    found = {name: yaml_of(f"sampler/{name}").get("_target_") for name in list_groups()["sampler"]}
    return {name: find_target(path) for name, path in found.items() if path}


def capabilities(kind: type) -> dict[str, type]:
    """Return the protocols of which a class has all methods, but for the contract itself."""
    every = {
        name: protocol
        for name, protocol in vars(protocols).items()
        if inspect.isclass(protocol)
        and getattr(protocol, "_is_protocol", False)
        and protocol.__module__ == protocols.__name__
    }
    every |= {handle_of(sampler): getattr(sampler, "needs") for sampler in samplers().values()}  # noqa: B009
    return {
        name: protocol
        for name, protocol in every.items()
        if name not in {"Generator", "Sampler"} and (wanted := _methods(protocol)) and wanted <= set(dir(kind))
    }


def _methods(protocol: type) -> set[str]:
    return {
        name
        for base in protocol.__mro__
        if getattr(base, "_is_protocol", False)
        for name, member in vars(base).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }


def handle_of(sampler: type) -> str:
    """Return the protocol of the handle that a sampler needs of a model."""
    needs: type = getattr(sampler, "needs")  # noqa: B009 - a class of samplers has it, of which no more is known here
    return needs.__name__


def recipe(experiment: str) -> dict[str, str]:
    """Return what the head of an experiment says: `About`, and its `Command`, `Needs`, `Does`, `Cost` and `Result`."""
    file = find_file(f"experiment/{experiment}")
    head = re.match(r"(?:#.*\n)+", file.read_text(encoding="utf-8") if file else "")
    said: dict[str, str] = {}
    key = "About"
    for line in head[0].splitlines() if head else ():
        content = line.removeprefix("#").rstrip()
        if content.strip().startswith("@package"):
            continue
        begins = re.match(r" ([A-Z]\w+) {2,}(.*)", content)
        key, content = (begins[1], begins[2]) if begins else (key, content)
        said[key] = f"{said.get(key, '')} {content.strip()}".strip()
    return said


@cache
def family_of(experiment: str) -> str:
    """Return the family that an experiment trains."""
    return str(list_group_defaults("train", overrides=[f"experiment={experiment}"])["model"])


def shipped() -> dict[str, tuple[Path, str]]:
    """Return of every model that ships the folder of its weights and the path of its class."""
    configs = sorted((PACKAGE / "weights").glob("*/config.json"))
    return {
        file.parent.name: (file.parent, json.loads(file.read_text(encoding="utf-8"))["model"]["_target_"])
        for file in configs
    }


def modules() -> dict[str, Path]:
    """Return the public modules and their files; names that begin with an underscore are nobody's business."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        if not any(part.startswith("_") for part in parts) and not INSIDE & {*parts[:1]}:
            found[".".join((citygrain.__name__, *parts))] = file
    return found


def module(name: str) -> ModuleType:
    """Import a module of citygrain."""
    return importlib.import_module(name)


def public_names(file: Path) -> list[str]:
    """Return the public classes and functions that a module defines, in the order of the file; nothing is imported."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    names = [node.name for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    return [*dict.fromkeys(name for name in names if not name.startswith("_"))]
