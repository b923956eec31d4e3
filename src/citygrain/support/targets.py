"""Turn a plain configuration into objects. Only listed building blocks can be called.

A checkpoint may come from a stranger, and so may the `_target_` names in it. `instantiate` only calls what
`BUILDING_BLOCKS` lists: models, their parts and samplers, sources, callbacks and optimisers. A checkpoint may only name
what `MODEL_PARTS` lists; these classes compute, and do nothing else. Everything else is refused, in citygrain too.
"""

from __future__ import annotations

import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any

from citygrain.errors import ConfigError


@dataclass(frozen=True)
class Allowed:
    """A package or module, and which names in it are building blocks.

    Never allowed are names with a leading underscore, names that a citygrain module has only imported, abstract classes
    and protocols.

    Parameters
    ----------
    name
        The package or module.
    kind
        Kind of its building blocks: `type` for classes, `FunctionType` for functions.
    base
        For a package that is not citygrain's: a class in it. Only subclasses of this class are allowed, and only as
        attributes of `name` itself. None for citygrain's packages: everything that their modules define, at any depth.
    only
        The allowed names behind `name`, if they are listed one by one. A class method can be among them.
    """

    name: str
    kind: type[Any] = type
    base: str | None = None
    only: tuple[str, ...] = ()

    def covers(self, name: str) -> bool:
        """Whether this entry decides about a name."""
        inner, module = name.removeprefix(f"{self.name}."), name.rpartition(".")[0]
        if self.only:
            return inner != name and inner in self.only
        return _is_inside(module, self.name) if self.base is None else module == self.name

    def find(self, name: str) -> Any:
        """Return the building block of a name that this entry covers, or None if the name is not allowed.

        Raises
        ------
        ConfigError
            When the name does not exist.
        """
        if self.only:
            found: Any = importlib.import_module(self.name)
            for part in name.removeprefix(f"{self.name}.").split("."):
                found = getattr(found, part)
            return found
        where, _, last = name.rpartition(".")
        module = self._import_module(where, name)
        if module is None:
            return None
        if not hasattr(module, last):
            raise _report_missing(name, last, [n for n in vars(module) if self._holds(module, n)])
        return getattr(module, last) if self._holds(module, last) else None

    def _import_module(self, where: str, name: str) -> Any:
        """Import the module that a name lies in. None if a part of its path is not a module."""
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
        """Whether a name in a module is a building block: of the right kind, defined there, public and not abstract."""
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
    Allowed("citygrain.models"),
    Allowed("citygrain.networks"),
    Allowed("citygrain.samplers"),
    Allowed("citygrain.spec", only=("LayoutSpec", "LayoutSpec.from_dict")),
    Allowed("torch.nn", base="Module"),
)
"""The parts of models: all that a checkpoint may name."""

BUILDING_BLOCKS = (
    *MODEL_PARTS,
    Allowed("citygrain.geo.sources"),
    Allowed("citygrain.training.callbacks"),
    Allowed("citygrain.training.lr_schedules", types.FunctionType),
    Allowed("citygrain.training.optimizers", types.FunctionType),
    Allowed("torch.optim", base="Optimizer"),
    Allowed("torch.optim.lr_scheduler", base="LRScheduler"),
    Allowed("pytorch_lightning", only=("Trainer",)),
    Allowed("pytorch_lightning.callbacks", base="Callback"),
    # Loggers that write to the folder of the run. The others contact a service as soon as they are made.
    Allowed("pytorch_lightning.loggers", only=("CSVLogger", "MLFlowLogger", "TensorBoardLogger", "WandbLogger")),
)
"""All that a configuration may name as `_target_`."""

TARGET, PARTIAL = "_target_", "_partial_"

Plain = Mapping[str, Any]
"""Plain dicts, lists and values. A dict with a `_target_` describes an object."""


def instantiate(plain: Mapping[str, Any], /, **runtime: Any) -> Any:
    """Build the object that a configuration describes.

    A mapping with `_target_` becomes the result of calling the target with the other keys, which are built first. With
    `_partial_: true`, it becomes a `functools.partial` that waits for further arguments. Other mappings and lists are
    built item by item.

    Parameters
    ----------
    plain
        A plain mapping with `_target_`, as `load_config` returns it.
    runtime
        Arguments of the outermost target that a file cannot contain. They take precedence over configured ones.

    Raises
    ------
    ConfigError
        When a target is not in `BUILDING_BLOCKS` or does not exist, or arguments do not fit it.
    """
    if TARGET not in plain:
        raise ConfigError(f"There is nothing to build: the configuration has no {TARGET}.", got=sorted(plain))
    check_targets(plain)  # before anything is called
    return _build(plain, "", runtime)


def check_targets(plain: Any, allowed: Sequence[Allowed] = BUILDING_BLOCKS) -> None:
    """Check all targets of a configuration, at any depth, before anything is called.

    Parameters
    ----------
    plain
        Plain dicts and lists.
    allowed
        What may be named. For checkpoints this is `MODEL_PARTS`.

    Raises
    ------
    ConfigError
        For the first target that is not allowed or does not exist.
    """
    for _, node in _find_targets(plain, ""):
        find_target(node[TARGET], allowed)


def check_signatures(plain: Any, path: str = "") -> None:
    """Check that every key beside a `_target_` is a parameter of the target, and that plain values have its type.

    Types are only checked for targets of citygrain, because type hints of other packages can be narrower than what
    these packages accept.

    Parameters
    ----------
    plain
        Plain dicts and lists, at any depth.
    path
        Name of the outermost node in messages.

    Raises
    ------
    ConfigError
        When a target is not allowed or does not exist, a key is not one of its parameters, or a value does not have
        the type of its parameter.
    """
    for where, node in _find_targets(plain, path):
        arguments = {key: value for key, value in node.items() if key not in {TARGET, PARTIAL}}
        check_arguments(find_target(node[TARGET]), arguments, where, _name_node(where, node))


def check_arguments(target: Callable[..., Any], arguments: Plain, path: str, name: str) -> None:
    """Compare plain arguments with the signature of what is called with them, see `check_signatures`.

    Parameters
    ----------
    target
        What is called.
    arguments
        Parameter → plain value.
    path, name
        Where the arguments stand in the configuration, and what messages call the target.

    Raises
    ------
    ConfigError
        For an argument that the target has no parameter for, or a value of another type than the parameter's.
    """
    try:
        parameters = inspect.signature(target).parameters
    except ValueError:  # a class written in C may have none
        return
    by_name = [n for n, p in parameters.items() if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    hints = _read_hints(target) if _is_inside(target.__module__, "citygrain") else {}
    for key, value in arguments.items():
        if key not in by_name and not takes_any:
            raise ConfigError(f"{name} has no parameter of this name.", got=key, choices=sorted(by_name))
        _check_type(f"{path}.{key}".lstrip("."), value, hints.get(key, Any))


def find_target(name: Any, allowed: Sequence[Allowed] = BUILDING_BLOCKS) -> Any:
    """Return the class or function of a `_target_`.

    Raises
    ------
    ConfigError
        When it is not allowed or does not exist.
    """
    found = None
    if isinstance(name, str) and all(part.isidentifier() and part[0] != "_" for part in name.split(".")):
        entry = next((entry for entry in allowed if entry.covers(name)), None)
        found = entry.find(name) if entry else None
    if found is None:
        raise ConfigError(
            "A configuration may not call this.",
            expected=_describe_allowed(allowed),
            got=name,
            remedy="name a building block where it is defined; do not trust a checkpoint that names anything else",
        )
    return found


def _describe_allowed(allowed: Sequence[Allowed]) -> str:
    """Say in words which names are allowed."""
    kinds = {"a class of ": type, "a function of ": types.FunctionType}
    told = [
        words + ", ".join(places)
        for words, kind in kinds.items()
        if (places := [entry.name for entry in allowed if entry.kind is kind and not entry.only])
    ]
    return "; ".join([*told, ", ".join(f"{entry.name}.{name}" for entry in allowed for name in entry.only)])


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
        except ValueError:  # there is no signature to compare with
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
    except Exception:  # noqa: BLE001 - hints of other packages may name what cannot be imported
        return {}


def _check_type(where: str, value: Any, hint: Any) -> None:
    """Compare a plain value with a hint of plain types, lists of them and literals. Other hints are not checked."""
    if isinstance(value, Mapping) and TARGET in value:
        return  # its type is only known once it is built
    members = typing.get_args(hint) if typing.get_origin(hint) in {typing.Union, types.UnionType} else (hint,)
    allowed: set[type] = set()
    literals: list[Any] = []
    for member in members:
        if typing.get_origin(member) is typing.Literal:
            literals += typing.get_args(member)
        elif member in {bool, int, float, str, type(None)}:
            allowed |= {float, int} if member is float else {member}
        elif typing.get_origin(member) in {Sequence, list, tuple}:
            allowed |= {list, tuple}
            of = next(iter(typing.get_args(member)), Any)
            for i, one in enumerate(value if isinstance(value, list | tuple) else ()):
                _check_type(f"{where}[{i}]", one, of)
        else:
            return
    if type(value) not in allowed and value not in literals:
        raise ConfigError(
            f"{where} is not of the right kind.",
            expected=" or ".join(
                "null" if m is type(None) else "list" if typing.get_origin(m) else m.__name__
                for m in members
                if typing.get_origin(m) is not typing.Literal
            )
            or None,
            got=repr(value),
            choices=literals or None,
        )
