"""Configurations: composed by Hydra from `conf/` and the command line, handed on as plain dicts.

This is the only module that knows Hydra. Everything behind it sees dicts, lists, strings and numbers, which travel in
checkpoints as they are and become objects in `citygrain.support.targets`.
"""

from __future__ import annotations

import hashlib
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import hydra.version
import yaml
from hydra import compose
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # the grammar of comma lists, as Hydra reads it
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathElement
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from citygrain.errors import ConfigError
from citygrain.support.targets import TARGET, check_signatures, instantiate

__all__ = [
    "check_signatures",
    "config_dir",
    "config_text",
    "folder_name",
    "group_defaults",
    "groups",
    "instantiate",
    "load_config",
    "quoted",
    "sweep",
]

LONGEST_NAME = 200
"""Bytes of a run's folder name in a sweep: file systems take 255, and temporary files have longer names."""


def config_dir() -> Path:
    """Folder of the shipped configurations: inside the installed package, or `conf/` of a checkout.

    Raises
    ------
    ConfigError
        When neither is there, which means a damaged installation.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parents[1] / "conf"):
        if folder.is_dir():
            return folder
    raise ConfigError(
        "citygrain's configurations are missing.",
        expected=f"{package / 'conf'}, or conf/ beside src/ in a checkout",
        remedy="install citygrain again",
    )


def load_config(verb: str, overrides: Sequence[str] = (), config_dirs: Iterable[str | Path] = ()) -> dict[str, Any]:
    """Compose the configuration of a verb.

    Parameters
    ----------
    verb
        `"prepare"`, `"train"`, `"sample"`: the root file in `conf/`.
    overrides
        What the command line says in Hydra's grammar: `model=diffusion`, `data.size_px=64`, `+new=1`, `~gone`.
    config_dirs
        Folders of the user's own groups and roots; what they hold goes before what ships.

    Returns
    -------
    dict
        Plain dicts, lists and scalars, every interpolation resolved.

    Raises
    ------
    ConfigError
        For an override that cannot be read, a group, option or key that does not exist, a mandatory value that is
        missing, or settings of a model beside `init_from`, which brings its own.
    """
    config = _compose(verb, overrides, config_dirs)
    missing = sorted(_missing(OmegaConf.to_container(config, resolve=False), ""))
    if missing:
        raise ConfigError(
            f"citygrain {verb} needs {' and '.join(missing)}.",
            remedy=f"give {'it' if len(missing) == 1 else 'them'}: citygrain {verb} "
            + " ".join(f"{key}=…" for key in missing),
        )
    try:
        plain: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        problem = str(error).splitlines()[0]
        raise ConfigError(f"The configuration of citygrain {verb} refers to what is not there.", got=problem) from error
    _refuse_gone(verb, overrides, config_dirs)
    if plain.get("init_from") is not None:
        _refuse_settled(map(_parse, overrides))
    # An experiment is a set of values, not of kinds: whoever writes 8 there means a number.
    chosen = [o for o in _choosing(map(_parse, overrides), groups(config_dirs)) if o.key_or_group != "experiment"]
    choices = tuple(str(o.input_line) for o in chosen)
    defaults = _shipped(verb, choices) if not [*config_dirs] else _plain(_compose(verb, choices, config_dirs))
    return typing.cast("dict[str, Any]", _of_kind(plain, defaults, ""))


def _refuse_gone(verb: str, overrides: Sequence[str], config_dirs: Iterable[str | Path]) -> None:
    """Refuse to go without what is read in any case: only one of several objects, or a part of one, can be left out."""
    gone = [override for override in map(_parse, overrides) if override.is_delete()]
    if not gone:
        return
    whole = _plain(_compose(verb, [text for text in overrides if not _parse(text).is_delete()], config_dirs))
    for override in gone:
        first, *more = override.key_or_group.rpartition("@")[2].replace("/", ".").split(".")
        node: Any = whole.get(first)
        objects: list[Any] = []
        for key in more:
            objects.append(node)
            node = node.get(key) if isinstance(node, Mapping) else None
        objects.append(node)
        if more and any(isinstance(one, Mapping) and TARGET in one for one in objects):
            continue
        options = groups(config_dirs).get(override.key_or_group)
        raise ConfigError(
            f"citygrain {verb} cannot go without {override.key_or_group}.",
            got=override.input_line,
            choices=options,
            remedy="leave that out to have the default"
            + (f", or choose another: {override.key_or_group}=…" if options else ""),
        )


def _refuse_settled(parsed: Iterable[Override]) -> None:
    """Refuse what would be ignored without a word, where a run takes its model over from another."""
    settled = [str(o.input_line) for o in parsed if re.split(r"[./@]", o.key_or_group)[0] in {"model", "codec"}]
    if settled:
        raise ConfigError(
            "A run that begins with another model's weights has that one's model and codec, with all their settings.",
            got=" ".join(settled),
            remedy="leave that out, or leave out init_from=… to train such a model from the beginning",
        )


@cache
def _shipped(verb: str, choices: tuple[str, ...]) -> Any:
    """Compose what ships, which does not change while a process runs; a sweep asks for it again and again."""
    return _plain(_compose(verb, choices, ()))


def _plain(config: DictConfig) -> Any:
    return OmegaConf.to_container(config, resolve=False)


KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    dict: "a group of keys",
    list: "a list, such as [a,b]",
}


def _of_kind(value: Any, default: Any, path: str) -> Any:
    """Return a composed value, when it is of the kind that its default has; a number is text where text is wanted.

    What stands under a `_target_` is left to `check_signatures`, which knows more. Null tells no kind.
    """
    placeholder = isinstance(default, str) and ("???" in default or "${" in default)
    if default is None or placeholder or (isinstance(default, list) and isinstance(value, list)):
        return value
    if isinstance(default, Mapping) and (TARGET in default or (isinstance(value, Mapping) and TARGET in value)):
        return value
    if isinstance(default, Mapping) and isinstance(value, Mapping):
        return {key: _of_kind(inner, default.get(key), f"{path}.{key}".lstrip(".")) for key, inner in value.items()}
    if isinstance(default, str) and type(value) in {int, float}:
        return str(value)
    if type(value) is type(default) or (isinstance(default, float) and type(value) is int):
        return value
    raise ConfigError(f"{path} is not of the right kind.", expected=KINDS[type(default)], got=repr(value))


def config_text(verb: str, overrides: Sequence[str] = (), config_dirs: Iterable[str | Path] = ()) -> str:
    """Return the composed configuration as YAML, for reading; `???` marks values that must still be given."""
    return OmegaConf.to_yaml(_compose(verb, overrides, config_dirs))


def sweep(overrides: Sequence[str]) -> list[tuple[list[str], list[str]]]:
    """Spread comma lists into runs, as `--multirun` does: every combination once, the last one fastest.

    Returns
    -------
    list of (varying, overrides)
        Of each run: those overrides that tell it from the others, none where nothing varies; and all of them.
    """
    parsed = [_parse(text) for text in overrides]
    varying = {o.get_key_element() for o in parsed if o.is_sweep_override()}
    try:
        jobs = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
    except HydraException as error:
        raise ConfigError(
            "This sweep is of a kind that citygrain does not run.", expected="comma lists: seed=0,1,2", got=str(error)
        ) from error
    return [
        ([text for text in job if text.split("=")[0] in varying], [*job]) for job in dict.fromkeys(map(tuple, jobs))
    ]


def folder_name(varying: Sequence[str]) -> str:
    """Name the folder of a run in a sweep by what tells it from the others: `model=vae,seed=1`.

    Other overrides have another name, on disks that take small letters for capitals too, and the same ones always the
    same. Where the overrides themselves are no such name (other signs, capitals, more than `LONGEST_NAME` bytes), it is
    made of what they say and of their fingerprint, a part without `=` that no override has. Empty for no overrides.
    """
    plain = ",".join(varying)
    if all(re.fullmatch(r"[a-z0-9_=.+@-]*", text) for text in varying) and len(plain) <= LONGEST_NAME:
        return plain
    told = ",".join(re.sub(r"[^\w=.+@-]+", "_", text) for text in varying)
    fingerprint = hashlib.sha256("\0".join(varying).encode(errors="surrogatepass")).hexdigest()[:12]
    short = told.encode()[: LONGEST_NAME - len(fingerprint) - 1].decode(errors="ignore")
    return f"{short},{fingerprint}"


def quoted(text: str) -> str:
    """Write a text as a value of an override, whatever signs are in it; an interpolation `${…}` stays one."""
    return "'" + re.sub(r"(\\*)('|$)", lambda end: 2 * end[1] + end[2].replace("'", r"\'"), text) + "'"


def groups(config_dirs: Iterable[str | Path] = ()) -> dict[str, list[str]]:
    """Return every config group and its options: `{"model": ["diffusion", "vae"], …}`."""
    found: dict[str, set[str]] = {}
    for folder in _folders(config_dirs):
        for file in folder.rglob("*.yaml"):
            if file.parent != folder:
                found.setdefault(file.parent.relative_to(folder).as_posix(), set()).add(file.stem)
    return {group: sorted(found[group]) for group in sorted(found)}


def group_defaults(verb: str, config_dirs: Iterable[str | Path] = (), overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return the groups that a verb takes, and the option (or options) each has; None for none.

    A group inside another has its place behind an `@`, as on the command line: `network@model.network`.
    """
    folders = list(config_dirs)
    told = dict(text.split("=", 1) for text in overrides if "=" in text)
    found: dict[str, Any] = {}

    def walk(name: str, package: str) -> None:
        for key, value in _defaults_of(name, folders):
            if not key:  # another file of the same group
                walk(f"{name.rpartition('/')[0]}/{value}", package)
                continue
            group, _, inner = key.removeprefix("override ").partition("@")
            group = (
                group.lstrip("/") if group.startswith("/") or not package else f"{package.replace('.', '/')}/{group}"
            )
            at = ".".join(filter(None, (package, inner)))
            full = f"{group}@{at}" if inner else group
            if key.startswith("override ") and full not in found:
                continue
            found[full] = told.get(full, value)
            for option in found[full] if isinstance(found[full], list) else [found[full]]:
                if option is not None:
                    own = "" if group == "experiment" else group.replace("/", ".")  # an experiment's package is global
                    walk(f"{group}/{option}", at if inner else own)

    walk(verb, "")
    return found


def _defaults_of(name: str, config_dirs: Iterable[str | Path]) -> list[tuple[str, Any]]:
    """Return the groups that a file lists in its `defaults`, and the files of its own group under an empty name."""
    file = find_file(name, config_dirs)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) if file else None
    except yaml.YAMLError as error:
        raise _no_yaml(error) from error
    entries = content.get("defaults", []) if isinstance(content, Mapping) else []
    pairs = [next(iter(entry.items())) if isinstance(entry, Mapping) else ("", entry) for entry in entries]
    return [(str(key).removeprefix("optional "), value) for key, value in pairs if value != "_self_"]


def find_file(name: str, config_dirs: Iterable[str | Path] = ()) -> Path | None:
    """Return the file of a configuration, such as `train` or `model/vae`; the user's folders go first."""
    files = (folder / f"{name}.yaml" for folder in _folders(config_dirs))
    return next((file for file in files if file.is_file()), None)


def _folders(config_dirs: Iterable[str | Path]) -> list[Path]:
    own = [Path(folder).expanduser().resolve() for folder in config_dirs]
    for folder in own:
        if not folder.is_dir():
            raise ConfigError("The folder of your configurations is not there.", got=folder)
    return [*own, config_dir()]


def _compose(verb: str, overrides: Sequence[str], config_dirs: Iterable[str | Path]) -> DictConfig:
    folders = _folders(config_dirs)
    parsed = [_parse(text) for text in overrides]
    known = groups(config_dirs)
    for override in parsed:
        if override.value() is None and override.key_or_group in known and not override.is_delete():
            raise ConfigError(
                "A group is not nothing.",
                got=override.input_line,
                choices=known[override.key_or_group],
                remedy=f"leave {override.key_or_group} out to have the default",
            )
        if override.is_sweep_override():
            raise ConfigError(
                "A list with commas asks for several runs.",
                got=override.input_line,
                remedy="add --multirun to have them, or write key=[a,b] for one run with a list",
            )
    try:
        return _hydra(verb, overrides, folders)
    except yaml.YAMLError as error:
        raise _no_yaml(error) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise _explain(verb, parsed, folders, error) from error


def _hydra(verb: str, overrides: Sequence[str], folders: Sequence[Path]) -> DictConfig:
    # `initialize_config_dir` takes one folder, and searches others only for groups, not for the root file.
    path = create_config_search_path(str(folders[0]))
    path.get_path()[-1:-1] = [SearchPathElement("citygrain", f"file://{folder}") for folder in folders[1:]]
    hydra.version.setbase("1.3")
    GlobalHydra.instance().clear()
    try:
        Hydra.create_main_hydra2(task_name="citygrain", config_search_path=path)
        return compose(verb, list(overrides))
    finally:
        GlobalHydra.instance().clear()


def _try_hydra(verb: str, overrides: Sequence[str], folders: Sequence[Path]) -> DictConfig | None:
    try:
        return _hydra(verb, overrides, folders)
    except (HydraException, OmegaConfBaseException):
        return None


def _parse(text: str) -> Override:
    try:
        parsed: Override = OverridesParser.create().parse_overrides([text])[0]
    except OverrideParseException as error:
        raise ConfigError(
            "An override cannot be read.",
            expected="key=value, such as data.size_px=64, model=diffusion or place.bbox=[12.5,55.6,12.6,55.7]",
            got=text,
            remedy="put a value with spaces, commas, brackets or '=' in quotes: 'source.path=\"my city (1).osm.pbf\"'",
        ) from error
    return parsed


def _choosing(parsed: Iterable[Override], known: Mapping[str, list[str]]) -> list[Override]:
    """Return the overrides that choose an option of a group, and so change what the defaults are."""
    return [o for o in parsed if o.key_or_group in known and not isinstance(o.value(), dict)]


def _explain(verb: str, parsed: Sequence[Override], folders: Sequence[Path], error: Exception) -> ConfigError:
    """Turn Hydra's complaint into plain words by looking for the override that caused it."""
    known = groups(folders[:-1])
    taken = group_defaults(verb, folders[:-1], [str(o.input_line) for o in parsed])
    choosing = _choosing(parsed, known)
    for override in choosing:
        options = known[override.key_or_group]
        chosen: Any = override.value()
        for value in chosen if isinstance(chosen, list) else [None if override.is_delete() else chosen]:
            if value is not None and value not in options:
                return ConfigError(f"There is no {override.key_or_group} of this name.", got=value, choices=options)
        if override.get_key_element().lstrip("+~") not in taken and not override.is_add():
            return ConfigError(f"citygrain {verb} has no such group.", got=override.key_or_group, choices=taken)
    lines = str(error.__cause__ if not str(error) and error.__cause__ else error).strip().splitlines()
    specify = re.match(r"You must specify '([^']+)'", lines[0]) if lines else None
    if specify:
        group = specify[1]
        return ConfigError(
            f"citygrain {verb} needs a {group}.",
            choices=known.get(group, []),
            remedy=f"name one: citygrain {verb} {group}=…",
        )
    base = _try_hydra(verb, [str(o.input_line) for o in choosing], folders)
    for override in [o for o in parsed if o not in choosing and not o.is_add() and not o.is_force_add()]:
        unknown = _unknown_key(override.get_key_element().lstrip("~"), base) if base is not None else None
        if unknown is not None:
            where, key, choices = unknown
            return ConfigError(
                f"{where or f'citygrain {verb}'} has no key of this name.",
                got=key,
                choices=choices if where else sorted({*choices, *taken}),
                remedy=None if override.is_delete() else f"to add it on purpose, write +{override.input_line}",
            )
    return ConfigError(
        f"The configuration of citygrain {verb} cannot be composed: {lines[0] if lines else type(error).__name__}",
        got=getattr(error, "missing_cfg_file", None),
        choices=getattr(error, "options", None) or None,
    )


def _no_yaml(error: yaml.YAMLError) -> ConfigError:
    where = getattr(error, "problem_mark", None)
    return ConfigError(
        "A configuration file is not written in YAML.",
        got=f"{getattr(error, 'problem', error)}" + (f" in {where.name}, line {where.line + 1}" if where else ""),
    )


def _missing(node: Any, path: str) -> Iterator[str]:
    if node == "???":
        yield path
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from _missing(value, f"{path}.{key}".lstrip("."))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from _missing(value, f"{path}[{i}]")


def _unknown_key(dotted: str, config: DictConfig) -> tuple[str, str, list[str]] | None:
    """Return where a dotted key leaves the configuration: (parent, missing key, keys of the parent)."""
    node: Any = OmegaConf.to_container(config, resolve=False)
    walked: list[str] = []
    for key in dotted.split("."):
        if isinstance(node, list) and key.isdigit() and int(key) < len(node):
            node = node[int(key)]
        elif isinstance(node, Mapping) and key in node:
            node = node[key]
        else:
            return ".".join(walked), key, [str(k) for k in node] if isinstance(node, Mapping) else []
        walked.append(key)
    return None
