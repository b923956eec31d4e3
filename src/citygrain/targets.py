"""From a plain configuration to objects: nothing is called but what a whitelist holds.

A checkpoint is input, and so are the `_target_` names in it: `instantiate` calls citygrain's own building blocks and
the classes of `torch.nn`, `torch.optim` and `pytorch_lightning`, and nothing else, however the name gets there.
"""

from __future__ import annotations

import importlib
import inspect
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

from citygrain.errors import ConfigError

BUILDING_BLOCKS = ("citygrain", "torch.nn", "torch.optim", "pytorch_lightning")
"""Packages whose classes a configuration may name as `_target_`; of citygrain, functions and class methods too."""

NOT_BUILDING_BLOCKS = (
    "citygrain.__main__",
    "citygrain.config",
    "citygrain.prepare",
    "citygrain.sample",
    "citygrain.targets",
    "citygrain.training.run",
    "pytorch_lightning.cli",
)
"""Modules inside `BUILDING_BLOCKS` that act (read the command line, write files) instead of being part of something."""

TARGET, PARTIAL = "_target_", "_partial_"


def instantiate(plain: Mapping[str, Any], /, **runtime: Any) -> Any:
    """Build what a configuration describes.

    A mapping with `_target_` becomes the result of calling it with the other keys, built first; with `_partial_: true`
    it becomes a `functools.partial` that waits for the rest. Other mappings and lists are built item by item.

    Parameters
    ----------
    plain
        A plain mapping with `_target_`, as `load_config` returns.
    runtime
        Arguments of the outermost target that no file can hold; they go before the configured ones.

    Raises
    ------
    ConfigError
        For a target outside `BUILDING_BLOCKS`, one that does not exist, or arguments that do not fit it.
    """
    if TARGET not in plain:
        raise ConfigError(f"There is nothing to build: the configuration has no {TARGET}.", got=sorted(plain))
    check_targets(plain)  # before anything is called
    return _build(plain, "", runtime)


def check_targets(plain: Any, packages: Sequence[str] = BUILDING_BLOCKS) -> None:
    """Refuse a configuration that names anything but building blocks, at any depth, before anything is called.

    Parameters
    ----------
    plain
        Plain dicts and lists.
    packages
        What may be named; a checkpoint's loader passes fewer than `BUILDING_BLOCKS`.

    Raises
    ------
    ConfigError
        For the first target that is not allowed or does not exist.
    """
    for _, node in _targets(plain, ""):
        find_target(node[TARGET], packages)


def check_signatures(plain: Any, path: str = "") -> None:
    """Compare every `_target_` with its signature: each key is a parameter, and plain values have its type.

    Types are compared for citygrain's own targets only: those of other packages say less than they take.

    Parameters
    ----------
    plain
        Plain dicts and lists, at any depth.
    path
        Name of the outermost node in messages.

    Raises
    ------
    ConfigError
        For a target that is not allowed or does not exist, a key that it has no parameter for, or a value of another
        type than the parameter's.
    """
    for where, node in _targets(plain, path):
        target = find_target(node[TARGET])
        try:
            parameters = inspect.signature(target).parameters
        except ValueError:  # a class written in C may have none
            continue
        by_name = [n for n, p in parameters.items() if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}]
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        hints = _hints(target) if _inside(target.__module__, ("citygrain",)) else {}
        for key, value in node.items():
            if key in {TARGET, PARTIAL}:
                continue
            if key not in by_name and not takes_any:
                raise ConfigError(
                    f"{_called(where, node)} has no parameter of this name.", got=key, choices=sorted(by_name)
                )
            _check_type(f"{where}.{key}".lstrip("."), value, hints.get(key, Any))


def find_target(name: Any, packages: Sequence[str] = BUILDING_BLOCKS) -> Any:
    """Return the class or function that a `_target_` names.

    Raises
    ------
    ConfigError
        When it is not allowed or does not exist.
    """
    refused = ConfigError(
        "A configuration may not call this.",
        expected=f"a class of {', '.join(packages)}",
        got=name,
        remedy="if the configuration came with a checkpoint, do not trust the checkpoint",
    )
    if not isinstance(name, str) or not _inside(name, packages) or any(p.startswith("_") for p in name.split(".")):
        raise refused
    parts = name.split(".")
    found: Any = importlib.import_module(parts[0])
    for i, part in enumerate(parts[1:], 1):
        if not hasattr(found, part) and hasattr(found, "__path__"):  # a package: perhaps a module not yet imported
            module = ".".join(parts[: i + 1])
            if find_spec(module):
                importlib.import_module(module)
        if not hasattr(found, part):
            raise ConfigError(f"There is no {name}.", got=part, choices=[n for n in dir(found) if n[0] != "_"])
        found = getattr(found, part)
    # The name is only the way there: what counts is where the thing at its end was defined.
    home = str(getattr(found, "__module__", None))
    own = isinstance(found, types.FunctionType | types.MethodType) and _inside(home, ("citygrain",))
    if not (isinstance(found, type) or own) or not _inside(home, packages) or _inside(home, NOT_BUILDING_BLOCKS):
        raise refused
    return found


def _inside(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _targets(plain: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(plain, Mapping):
        if TARGET in plain:
            yield path, plain
        for key, value in plain.items():
            yield from _targets(value, f"{path}.{key}".lstrip("."))
    elif isinstance(plain, list | tuple):
        for i, value in enumerate(plain):
            yield from _targets(value, f"{path}[{i}]")


def _build(plain: Any, path: str, runtime: Mapping[str, Any]) -> Any:
    if isinstance(plain, Mapping):
        built = {key: _build(value, f"{path}.{key}".lstrip("."), {}) for key, value in plain.items()}
        if TARGET not in plain:
            return built
        target, waits = find_target(built.pop(TARGET)), built.pop(PARTIAL, False)
        arguments = {**built, **runtime}
        try:
            signature = inspect.signature(target)
            signature.bind_partial(**arguments) if waits else signature.bind(**arguments)
        except TypeError as error:
            raise ConfigError(
                f"{_called(path, plain)} does not fit its arguments: {error}.",
                got=sorted(arguments),
                choices=sorted(signature.parameters),
            ) from error
        except ValueError:  # no signature to compare with
            pass
        return partial(target, **arguments) if waits else target(**arguments)
    if isinstance(plain, list | tuple):
        return [_build(value, f"{path}[{i}]", {}) for i, value in enumerate(plain)]
    return plain


def _called(path: str, node: Mapping[str, Any]) -> str:
    return f"{path} ({node[TARGET]})" if path else str(node[TARGET])


def _hints(target: Any) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(vars(target).get("__init__", {}) if isinstance(target, type) else target)
    except Exception:  # noqa: BLE001 - hints of foreign classes may name what is not importable
        return {}


def _check_type(where: str, value: Any, hint: Any) -> None:
    """Compare a plain value with a hint made of plain types and literals only; anything richer is left alone."""
    if isinstance(value, Mapping) and TARGET in value:
        return  # what it will be is known only when it is built
    members = typing.get_args(hint) if typing.get_origin(hint) in {typing.Union, types.UnionType} else (hint,)
    allowed: set[type] = set()
    literals: list[Any] = []
    for member in members:
        if typing.get_origin(member) is typing.Literal:
            literals += typing.get_args(member)
        elif member in {bool, int, float, str, type(None)}:
            allowed |= {float, int} if member is float else {member}
        else:
            return
    if type(value) not in allowed and value not in literals:
        raise ConfigError(
            f"{where} is not of the right kind.",
            expected=" or ".join("null" if m is type(None) else m.__name__ for m in members if isinstance(m, type))
            or None,
            got=repr(value),
            choices=literals or None,
        )
