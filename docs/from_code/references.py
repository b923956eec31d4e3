"""What docstrings refer to: where names that a module only passes on are at home, and what may stand without a link."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeVar

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.domains.python import PythonDomain
from sphinx.environment import BuildEnvironment

from from_code import source


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element) -> nodes.Element | None:
    """Link what is there and has no entry of its own: to where it is at home, or to the page of its module.

    What is not there stays unresolved, so that the build tells of it.
    """
    name = str(node.get("reftarget", "")).removesuffix("()")
    if node.get("refdomain") != "py" or not name.startswith("citygrain."):
        return None
    domain = env.domains.python_domain
    for home, role in _homes(name):
        if home in domain.objects if role == "obj" else home in domain.modules:
            docname = str(node.get("refdoc", env.docname))
            found = PythonDomain.resolve_xref(domain, env, docname, app.builder, role, home, node, content)
            if found is not None:
                return found
    return None


def _homes(name: str) -> Iterator[tuple[str, str]]:
    """Return where a name that exists may be described: as what it is at home, then by its module."""
    if name in source.modules():
        yield name, "mod"
        return
    module = name
    while module and module not in source.modules():
        module = module.rpartition(".")[0]
    found: Any = source.module(module) if module else None
    for member in name.removeprefix(f"{module}.").split("."):
        found = getattr(found, member, None)
    if found is None:
        return
    if hasattr(found, "__qualname__"):
        yield f"{found.__module__}.{found.__qualname__}", "obj"
    yield module, "mod"


def leave_out(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """Leave out type variables, which are no classes and yet taken for such."""
    return True if isinstance(obj, TypeVar) else None


def quiet_headings(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Turn the headings in a module's docstring into rubrics: as sections, every page would have `References`."""
    if what == "module":
        whole = re.sub(r"(?m)^(\S.*)\n(-{3,}|={3,})$", r".. rubric:: \1\n", "\n".join(lines))
        lines[:] = whole.split("\n")
