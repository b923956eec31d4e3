"""Configurations: Hydra composes them from `conf/` and the command line, and they are returned as plain dicts.

Only this module uses Hydra. All others see dicts, lists, strings and numbers. These are stored in checkpoints as they
are, and `citygrain.support.targets` turns them into objects.
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
from citygrain.support.options import KINDS
from citygrain.support.targets import TARGET, check_signatures, instantiate

__all__ = [
    "check_signatures",
    "find_config_dir",
    "format_config",
    "instantiate",
    "list_group_defaults",
    "list_groups",
    "load_config",
    "name_folder",
    "quote_value",
    "split_sweep",
]

LONGEST_NAME = 200
"""Largest length in bytes of a run's folder name in a sweep. File systems allow 255; temporary names are longer."""


def find_config_dir() -> Path:
    """Find the folder of the shipped configurations: inside the installed package, or `conf/` of a checkout.

    Raises
    ------
    ConfigError
        When there is neither. Then the installation is damaged.
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
        `"prepare"`, `"train"`, `"sample"`, …: the name of a file in `conf/`.
    overrides
        Arguments of the command line in Hydra's grammar: `model=diffusion`, `data.size_px=64`, `+new=1`, `~gone`.
    config_dirs
        Folders with configurations of the user. Their files take precedence over the shipped ones.

    Returns
    -------
    dict
        Plain dicts, lists and values, with all interpolations resolved.

    Raises
    ------
    ConfigError
        When an override cannot be read; a group, option or key does not exist; a required value is missing; or there
        are settings of a model together with `init_from`, whose model has its own settings.
    """
    config = _compose(verb, overrides, config_dirs)
    missing = sorted(_find_missing(OmegaConf.to_container(config, resolve=False), ""))
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
    _check_deletions(verb, overrides, config_dirs)
    if plain.get("init_from") is not None:
        _refuse_model_settings(map(_parse, overrides))
    # An experiment sets values, but not their kinds: a whole number in an experiment does not forbid fractions.
    chosen = [
        o for o in _find_choices(map(_parse, overrides), list_groups(config_dirs)) if o.key_or_group != "experiment"
    ]
    choices = tuple(str(o.input_line) for o in chosen)
    defaults = (
        _compose_shipped(verb, choices) if not [*config_dirs] else _to_plain(_compose(verb, choices, config_dirs))
    )
    return typing.cast("dict[str, Any]", _check_kind(plain, defaults, ""))


def _check_deletions(verb: str, overrides: Sequence[str], config_dirs: Iterable[str | Path]) -> None:
    """Refuse to delete (`~key`) keys that are always read. Only one of several objects, or a part of one, may go."""
    gone = [override for override in map(_parse, overrides) if override.is_delete()]
    if not gone:
        return
    whole = _to_plain(_compose(verb, [text for text in overrides if not _parse(text).is_delete()], config_dirs))
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
        options = list_groups(config_dirs).get(override.key_or_group)
        raise ConfigError(
            f"citygrain {verb} cannot go without {override.key_or_group}.",
            got=override.input_line,
            choices=options,
            remedy="leave that out to get the default"
            + (f", or choose another: {override.key_or_group}=…" if options else ""),
        )


def _refuse_model_settings(parsed: Iterable[Override]) -> None:
    """Refuse settings of a model or codec that would be ignored, because the run starts from another run's model."""
    settled = [str(o.input_line) for o in parsed if re.split(r"[./@]", o.key_or_group)[0] in {"model", "codec"}]
    if settled:
        raise ConfigError(
            "A run that begins with another model's weights has that one's model and codec, with all their settings.",
            got=" ".join(settled),
            remedy="leave that out, or leave out init_from=… to train such a model from the beginning",
        )


@cache
def _compose_shipped(verb: str, choices: tuple[str, ...]) -> Any:
    """Compose a shipped configuration. It is cached: it cannot change in a process, and a sweep needs it often."""
    return _to_plain(_compose(verb, choices, ()))


def _to_plain(config: DictConfig) -> Any:
    return OmegaConf.to_container(config, resolve=False)


def _check_kind(value: Any, default: Any, path: str) -> Any:
    """Return a composed value if it is of the same kind as its default. Where text is expected, a number becomes text.

    The keys beside a `_target_` are left to `check_signatures`, which compares them with the signature. A default of
    null accepts every kind.
    """
    placeholder = isinstance(default, str) and ("???" in default or "${" in default)
    if default is None or placeholder or (isinstance(default, list) and isinstance(value, list)):
        return value
    if isinstance(default, Mapping) and (TARGET in default or (isinstance(value, Mapping) and TARGET in value)):
        return value
    if isinstance(default, Mapping) and isinstance(value, Mapping):
        return {key: _check_kind(inner, default.get(key), f"{path}.{key}".lstrip(".")) for key, inner in value.items()}
    if isinstance(default, str) and type(value) in {int, float}:
        return str(value)
    if type(value) is type(default) or (isinstance(default, float) and type(value) is int):
        return value
    raise ConfigError(
        f"{path} is not of the right kind.",
        expected=KINDS[tuple if isinstance(default, list) else type(default)],
        got=repr(value),
    )


def format_config(verb: str, overrides: Sequence[str] = (), config_dirs: Iterable[str | Path] = ()) -> str:
    """Return the composed configuration as YAML for people to read. `???` marks values that are still missing."""
    return OmegaConf.to_yaml(_compose(verb, overrides, config_dirs))


def split_sweep(overrides: Sequence[str]) -> list[tuple[list[str], list[str]]]:
    """Split comma lists into runs for `--multirun`: every combination once. The last list varies fastest.

    Returns
    -------
    list of (varying, overrides)
        For each run: the overrides that differ between runs (an empty list if nothing varies), and all overrides.
    """
    parsed = [_parse(text) for text in overrides]
    varying = {o.get_key_element() for o in parsed if o.is_sweep_override()}
    try:
        jobs = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
    except HydraException as error:
        raise ConfigError(
            "citygrain does not run this kind of sweep.", expected="comma lists: seed=0,1,2", got=str(error)
        ) from error
    return [
        ([text for text in job if text.split("=")[0] in varying], [*job]) for job in dict.fromkeys(map(tuple, jobs))
    ]


def name_folder(varying: Sequence[str]) -> str:
    """Name the folder of a run in a sweep by the overrides that vary: `model=vae,seed=1`.

    The same overrides always give the same name. Different overrides give different names, even on disks that do not
    distinguish capital letters. Where overrides have other characters, capital letters or more than `LONGEST_NAME`
    bytes, the name is a readable form of them plus their fingerprint. The fingerprint has no `=`, so it cannot be
    confused with an override. No overrides give an empty name.
    """
    plain = ",".join(varying)
    if all(re.fullmatch(r"[a-z0-9_=.+@-]*", text) for text in varying) and len(plain) <= LONGEST_NAME:
        return plain
    told = ",".join(re.sub(r"[^\w=.+@-]+", "_", text) for text in varying)
    fingerprint = hashlib.sha256("\0".join(varying).encode(errors="surrogatepass")).hexdigest()[:12]
    short = told.encode()[: LONGEST_NAME - len(fingerprint) - 1].decode(errors="ignore")
    return f"{short},{fingerprint}"


def quote_value(text: str) -> str:
    """Quote a text as the value of an override, whatever characters it has. An interpolation `${…}` still works."""
    return "'" + re.sub(r"(\\*)('|$)", lambda end: 2 * end[1] + end[2].replace("'", r"\'"), text) + "'"


def list_groups(config_dirs: Iterable[str | Path] = ()) -> dict[str, list[str]]:
    """List all groups of configurations and their options: `{"model": ["diffusion", "vae"], …}`."""
    found: dict[str, set[str]] = {}
    for folder in _list_folders(config_dirs):
        for file in folder.rglob("*.yaml"):
            if file.parent != folder:
                found.setdefault(file.parent.relative_to(folder).as_posix(), set()).add(file.stem)
    return {group: sorted(found[group]) for group in sorted(found)}


def list_group_defaults(
    verb: str, config_dirs: Iterable[str | Path] = (), overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """List the groups of a verb, and the option (or options) that each group has by default. None means no option.

    A group inside another group is named with its place behind an `@`, as on the command line: `network@model.network`.
    """
    folders = list(config_dirs)
    told = dict(text.split("=", 1) for text in overrides if "=" in text)
    found: dict[str, Any] = {}

    def walk(name: str, package: str) -> None:
        for key, value in _read_defaults(name, folders):
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
                    own = (
                        "" if group == "experiment" else group.replace("/", ".")
                    )  # the package of an experiment is global
                    walk(f"{group}/{option}", at if inner else own)

    walk(verb, "")
    return found


def _read_defaults(name: str, config_dirs: Iterable[str | Path]) -> list[tuple[str, Any]]:
    """Read the `defaults` of a file: pairs of group and option. The group is empty for a file of the same group."""
    file = find_file(name, config_dirs)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) if file else None
    except yaml.YAMLError as error:
        raise _explain_yaml(error) from error
    entries = content.get("defaults", []) if isinstance(content, Mapping) else []
    pairs = [next(iter(entry.items())) if isinstance(entry, Mapping) else ("", entry) for entry in entries]
    return [(str(key).removeprefix("optional "), value) for key, value in pairs if value != "_self_"]


def find_file(name: str, config_dirs: Iterable[str | Path] = ()) -> Path | None:
    """Return the file of a configuration, such as `train` or `model/vae`. The folders of the user come first."""
    files = (folder / f"{name}.yaml" for folder in _list_folders(config_dirs))
    return next((file for file in files if file.is_file()), None)


def _list_folders(config_dirs: Iterable[str | Path]) -> list[Path]:
    own = [Path(folder).expanduser().resolve() for folder in config_dirs]
    for folder in own:
        if not folder.is_dir():
            raise ConfigError("The folder of your configurations does not exist.", got=folder)
    return [*own, find_config_dir()]


def _compose(verb: str, overrides: Sequence[str], config_dirs: Iterable[str | Path]) -> DictConfig:
    folders = _list_folders(config_dirs)
    parsed = [_parse(text) for text in overrides]
    known = list_groups(config_dirs)
    for override in parsed:
        if override.key_or_group in known and not override.is_delete() and not _names_options(override.value()):
            raise ConfigError(
                "A group needs an option, and cannot be null."
                if override.value() is None
                else "A group needs the name of an option.",
                got=override.input_line,
                choices=known[override.key_or_group],
                remedy=f"leave {override.key_or_group} out to get the default",
            )
        if override.is_sweep_override():
            raise ConfigError(
                "A list with commas asks for several runs.",
                got=override.input_line,
                remedy="add --multirun to have them, or write key=[a,b] for one run with a list",
            )
    try:
        return _compose_by_hydra(verb, overrides, folders)
    except yaml.YAMLError as error:
        raise _explain_yaml(error) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise _explain(verb, parsed, folders, error) from error


def _compose_by_hydra(verb: str, overrides: Sequence[str], folders: Sequence[Path]) -> DictConfig:
    # Hydra's `initialize_config_dir` looks for the root file in one folder only; here it can be in several.
    path = create_config_search_path(str(folders[0]))
    path.get_path()[-1:-1] = [SearchPathElement("citygrain", f"file://{folder}") for folder in folders[1:]]
    hydra.version.setbase("1.3")
    GlobalHydra.instance().clear()
    try:
        Hydra.create_main_hydra2(task_name="citygrain", config_search_path=path)
        return compose(verb, list(overrides))
    finally:
        GlobalHydra.instance().clear()


def _try_composing(verb: str, overrides: Sequence[str], folders: Sequence[Path]) -> DictConfig | None:
    try:
        return _compose_by_hydra(verb, overrides, folders)
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


def _names_options(value: Any) -> bool:
    """Return whether the value of an override is a name, a list of names, settings, or a list with commas."""
    return not isinstance(value, int | float | None) and not (
        isinstance(value, list) and any(isinstance(one, int | float | None) for one in value)
    )


def _find_choices(parsed: Iterable[Override], known: Mapping[str, list[str]]) -> list[Override]:
    """Return the overrides that choose an option of a group, and thereby other defaults."""
    return [o for o in parsed if o.key_or_group in known and not isinstance(o.value(), dict)]


def _explain(verb: str, parsed: Sequence[Override], folders: Sequence[Path], error: Exception) -> ConfigError:
    """Explain an error of Hydra in plain words, by finding the override that caused it."""
    known = list_groups(folders[:-1])
    taken = list_group_defaults(verb, folders[:-1], [str(o.input_line) for o in parsed])
    choosing = _find_choices(parsed, known)
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
    base = _try_composing(verb, [str(o.input_line) for o in choosing], folders)
    for override in [o for o in parsed if o not in choosing and not o.is_add() and not o.is_force_add()]:
        unknown = _find_unknown_key(override.get_key_element().lstrip("~"), base) if base is not None else None
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


def _explain_yaml(error: yaml.YAMLError) -> ConfigError:
    where = getattr(error, "problem_mark", None)
    return ConfigError(
        "A configuration file is not valid YAML.",
        got=f"{getattr(error, 'problem', error)}" + (f" in {where.name}, line {where.line + 1}" if where else ""),
    )


def _find_missing(node: Any, path: str) -> Iterator[str]:
    if node == "???":
        yield path
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from _find_missing(value, f"{path}.{key}".lstrip("."))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from _find_missing(value, f"{path}[{i}]")


def _find_unknown_key(dotted: str, config: DictConfig) -> tuple[str, str, list[str]] | None:
    """Return the first unknown part of a dotted key: (parent, unknown key, keys of the parent)."""
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
