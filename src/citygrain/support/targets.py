"""From a plain configuration to objects: nothing is called but building blocks, of which there is a list.

A checkpoint is input, and so are the `_target_` names in it: `instantiate` calls what is in `BUILDING_BLOCKS` (models,
their parts and samplers, sources, callbacks, optimisers), and a checkpoint may name what is in `MODEL_PARTS`, of which
nothing acts on anything but its own numbers. Whatever else there is, in citygrain too, has no name here.
"""

from __future__ import annotations

import importlib
import inspect
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any

from citygrain.errors import ConfigError


@dataclass(frozen=True)
class Room:
    """A package or module that has building blocks, and which of the things in it they are.

    Never are names that begin with an underscore, what a citygrain module has imported, and classes that only say what
    others have to do (abstract ones, protocols).

    Parameters
    ----------
    name
        The package or module.
    kind
        Whether building blocks are its classes or its functions.
    base
        Of another package: the class in it that its building blocks descend from, which `name` itself hands out. None
        for citygrain's own, whose modules, at any depth, each hand out what they define.
    only
        The building blocks, as named behind `name`, where they are counted out; methods that make one are among them.
    """

    name: str
    kind: type[Any] = type
    base: str | None = None
    only: tuple[str, ...] = ()

    def covers(self, name: str) -> bool:
        """Whether a name is one that a building block of this room could have."""
        inner, module = name.removeprefix(f"{self.name}."), name.rpartition(".")[0]
        if self.only:
            return inner != name and inner in self.only
        return _is_inside(module, self.name) if self.base is None else module == self.name

    def find(self, name: str) -> Any:
        """Return the building block of a name that the room covers; None for something else of that name.

        Raises
        ------
        ConfigError
            When there is nothing of this name.
        """
        if self.only:
            found: Any = importlib.import_module(self.name)
            for part in name.removeprefix(f"{self.name}.").split("."):
                found = getattr(found, part)
            return found
        where, _, last = name.rpartition(".")
        module = self._module(where, name)
        if module is None:
            return None
        if not hasattr(module, last):
            raise _report_missing(name, last, [n for n in vars(module) if self._holds(module, n)])
        return getattr(module, last) if self._holds(module, last) else None

    def _module(self, where: str, name: str) -> Any:
        """Import the module of a building block's name; None where the way leads into something else than modules."""
        module = importlib.import_module(self.name)
        for part in where.split(".")[len(self.name.split(".")) :]:
            if not hasattr(module, "__path__"):
                return None
            inner = f"{module.__name__}.{part}"
            if find_spec(inner) is None:
                raise _report_missing(name, part, [m.name for m in iter_modules(module.__path__) if m.name[0] != "_"])
            module = importlib.import_module(inner)
        return module

    def _holds(self, module: Any, name: str) -> bool:
        """Whether what a module has under a name is a building block: of the kind, made here, and something to call."""
        found: Any = getattr(module, name)
        return (
            isinstance(found, self.kind)
            and not name.startswith("_")
            and (
                _is_inside(found.__module__, module.__name__)
                if self.base is None
                else issubclass(found, getattr(module, self.base))
            )
            and not inspect.isabstract(found)
            and not getattr(found, "_is_protocol", False)
        )


MODEL_PARTS = (
    Room("citygrain.models"),
    Room("citygrain.networks"),
    Room("citygrain.samplers"),
    Room("citygrain.spec", only=("LayoutSpec", "LayoutSpec.from_dict")),
    Room("torch.nn", base="Module"),
)
"""What a model consists of: all that a checkpoint may name."""

BUILDING_BLOCKS = (
    *MODEL_PARTS,
    Room("citygrain.geo.sources"),
    Room("citygrain.training.callbacks"),
    Room("citygrain.training.lr_schedules", types.FunctionType),
    Room("citygrain.training.optimizers", types.FunctionType),
    Room("torch.optim", base="Optimizer"),
    Room("torch.optim.lr_scheduler", base="LRScheduler"),
    Room("pytorch_lightning", only=("Trainer",)),
    Room("pytorch_lightning.callbacks", base="Callback"),
    # Those that take the run's folder; others begin to talk to a service as soon as they are made.
    Room("pytorch_lightning.loggers", only=("CSVLogger", "MLFlowLogger", "TensorBoardLogger", "WandbLogger")),
)
"""All that a configuration may name as `_target_`."""

TARGET, PARTIAL = "_target_", "_partial_"

Plain = Mapping[str, Any]
"""Plain dicts, lists and values, of which those with a `_target_` describe an object."""


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
        For a target that is none of `BUILDING_BLOCKS`, one that does not exist, or arguments that do not fit it.
    """
    if TARGET not in plain:
        raise ConfigError(f"There is nothing to build: the configuration has no {TARGET}.", got=sorted(plain))
    check_targets(plain)  # before anything is called
    return _build(plain, "", runtime)


def check_targets(plain: Any, rooms: Sequence[Room] = BUILDING_BLOCKS) -> None:
    """Refuse a configuration that names anything but building blocks, at any depth, before anything is called.

    Parameters
    ----------
    plain
        Plain dicts and lists.
    rooms
        What may be named; a checkpoint's loader passes `MODEL_PARTS`.

    Raises
    ------
    ConfigError
        For the first target that is not allowed or does not exist.
    """
    for _, node in _find_targets(plain, ""):
        find_target(node[TARGET], rooms)


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
    for where, node in _find_targets(plain, path):
        target = find_target(node[TARGET])
        try:
            parameters = inspect.signature(target).parameters
        except ValueError:  # a class written in C may have none
            continue
        by_name = [n for n, p in parameters.items() if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}]
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        hints = _read_hints(target) if _is_inside(target.__module__, "citygrain") else {}
        for key, value in node.items():
            if key in {TARGET, PARTIAL}:
                continue
            if key not in by_name and not takes_any:
                raise ConfigError(
                    f"{_name_node(where, node)} has no parameter of this name.", got=key, choices=sorted(by_name)
                )
            _check_type(f"{where}.{key}".lstrip("."), value, hints.get(key, Any))


def find_target(name: Any, rooms: Sequence[Room] = BUILDING_BLOCKS) -> Any:
    """Return the class or function that a `_target_` names.

    Raises
    ------
    ConfigError
        When it is not allowed or does not exist.
    """
    found = None
    if isinstance(name, str) and all(part.isidentifier() and part[0] != "_" for part in name.split(".")):
        room = next((room for room in rooms if room.covers(name)), None)
        found = room.find(name) if room else None
    if found is None:
        raise ConfigError(
            "A configuration may not call this.",
            expected=_describe_rooms(rooms),
            got=name,
            remedy="name a building block where it is defined; do not trust a checkpoint that names anything else",
        )
    return found


def _describe_rooms(rooms: Sequence[Room]) -> str:
    """Say in words what may be named."""
    kinds = {"a class of ": type, "a function of ": types.FunctionType}
    told = [
        words + ", ".join(places)
        for words, kind in kinds.items()
        if (places := [room.name for room in rooms if room.kind is kind and not room.only])
    ]
    return "; ".join([*told, ", ".join(f"{room.name}.{name}" for room in rooms for name in room.only)])


def _report_missing(name: str, part: str, choices: Iterable[str]) -> ConfigError:
    return ConfigError(f"There is no {name}.", got=part, choices=sorted(choices))


def _is_inside(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _find_targets(plain: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(plain, Mapping):
        if TARGET in plain:
            yield path, plain
        for key, value in plain.items():
            yield from _find_targets(value, f"{path}.{key}".lstrip("."))
    elif isinstance(plain, list | tuple):
        for i, value in enumerate(plain):
            yield from _find_targets(value, f"{path}[{i}]")


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
                f"{_name_node(path, plain)} does not fit its arguments: {error}.",
                got=sorted(arguments),
                choices=sorted(signature.parameters),
            ) from error
        except ValueError:  # no signature to compare with
            pass
        return partial(target, **arguments) if waits else target(**arguments)
    if isinstance(plain, list | tuple):
        return [_build(value, f"{path}[{i}]", {}) for i, value in enumerate(plain)]
    return plain


def _name_node(path: str, node: Mapping[str, Any]) -> str:
    return f"{path} ({node[TARGET]})" if path else str(node[TARGET])


def _read_hints(target: Any) -> Mapping[str, Any]:
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
