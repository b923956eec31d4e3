"""The reference of the code: a page for every public module, room by room."""

from __future__ import annotations

from from_code import source
from from_code.markdown import target

ROOMS = {
    "citygrain": "What a person holds",
    "model": "What a person holds",
    "layouts": "What a person holds",
    "spec": "The language",
    "measures": "The language",
    "protocols": "The language",
    "errors": "The language",
    "geo": "From OpenStreetMap to rasters and back",
    "data": "Windows to learn from",
    "networks": "Networks",
    "models": "Families",
    "samplers": "Samplers",
    "training": "Training",
    "generation": "Drawing",
    "evaluation": "Judging",
    "latent": "The latent space",
    "checkpoint": "Checkpoints",
    "plot": "Pictures",
}
"""Room → under which heading it stands, in the order of the page; what is not named stands under the last, `OTHERS`."""

OTHERS = "Everything else"


def pages() -> dict[str, str]:
    """Return a page for each module, and the list of all."""
    found = {f"api/{name}.md": _page(name) for name in source.modules()}
    return {**found, "made/api.md": _all()}


def _room(name: str) -> str:
    return name.split(".")[1] if "." in name else name


def _all() -> str:
    headings: dict[str, list[str]] = {heading: [] for heading in [*ROOMS.values(), OTHERS]}
    rooms = [name for name in source.modules() if name.count(".") < 2]
    for name in sorted(rooms, key=lambda name: ([*ROOMS, _room(name)].index(_room(name)), name)):
        headings[ROOMS.get(_room(name), OTHERS)].append(name)
    lines = []
    for heading, names in headings.items():
        if names:
            lines += [f"## {heading}\n", _list([inner for name in names for inner in (name, *_inside(name))])]
            lines.append(_toctree(names, "api/"))
    return "\n".join(lines)


def _inside(name: str) -> list[str]:
    """Return the modules right inside a room or a package of one; those of citygrain itself are the rooms."""
    if "." not in name:
        return []
    return [other for other in source.modules() if other.rpartition(".")[0] == name]


def _list(names: list[str]) -> str:
    listed = "\n".join(f"   {name}" for name in names)
    return f"```{{eval-rst}}\n.. py:currentmodule:: None\n\n.. autosummary::\n\n{listed}\n```\n"


def _toctree(names: list[str], folder: str = "") -> str:
    pages = "\n".join(f"{name} <{folder}{name}>" for name in names)
    return f"```{{toctree}}\n:hidden:\n\n{pages}\n```\n"


def _page(name: str) -> str:
    public = source.public_names(source.modules()[name])
    members = ":members:" if public else ":no-members:"
    lines = [target(f"api-{name.replace('.', '-')}"), f"# {name}\n"]
    lines.append(f"```{{eval-rst}}\n.. automodule:: {name}\n   {members}\n```\n")
    if inside := _inside(name):
        lines += ["## Modules\n", _list(inside), _toctree(inside)]
    if elsewhere := _elsewhere(name):
        lines.append("## Also to be had from here\n")
        lines += [f"- {{py:obj}}`{path}`" for path in elsewhere]
    return "\n".join(lines)


def _elsewhere(name: str) -> list[str]:
    """Return where what a module offers beside its own things is at home."""
    module = source.module(name)
    members = {member: getattr(module, member) for member in getattr(module, "__all__", ())}
    return sorted(
        f"{kind.__module__}.{kind.__qualname__}"
        for kind in members.values()
        if hasattr(kind, "__qualname__") and kind.__module__.startswith("citygrain.") and kind.__module__ != name
    )
