"""The command line: `citygrain <verb> [group=option] [key=value] …`.

Every verb is a configuration (`conf/<verb>.yaml`, its groups, and what the command line overrides) and a function that
takes this configuration as a plain dict. Heavy packages are only imported when they are needed, so that help is fast.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

import citygrain
from citygrain.errors import CitygrainError, ConfigError

WRONG_INPUT, INTERRUPTED = 2, 130


@dataclass(frozen=True)
class Verb:
    """What the command line knows about a verb without importing it."""

    module: str
    does: str
    example: str
    more: tuple[str, ...] = ()
    run_key: str | None = None
    """Key of the folder that results go to. In a sweep, each run gets its own folder inside."""

    def run(self, config: dict[str, Any]) -> None:
        """Run the verb with a composed configuration."""
        importlib.import_module(self.module).run(config)


VERBS = {
    "prepare": Verb(
        "citygrain.verbs.prepare",
        "turn OpenStreetMap into a city raster: one GeoTIFF in metres, split into blocks and measured",
        "citygrain prepare place=copenhagen",
        (
            "citygrain prepare place=helsinki source=file source.path=data/sample/helsinki.osm.pbf",
            "citygrain prepare place=los_angeles source=vectortiles source.path=los_angeles.mbtiles",
            "citygrain prepare place.name=heights place.bbox=[-95.42,29.78,-95.38,29.81]",
            "citygrain prepare --multirun place=houston,copenhagen",
        ),
    ),
    "pack": Verb(
        "citygrain.verbs.pack",
        "pack prepared places into a small folder that is easy to copy: coarser cells, fewer levels, as much as fits",
        "citygrain pack places=[copenhagen,los_angeles] resolution_m=4 limit_mb=60",
        ("citygrain train data.places=[copenhagen,los_angeles] data.resolution_m=4 paths.data=out/packed",),
        run_key="out",
    ),
    "train": Verb(
        "citygrain.verbs.train",
        "train a generator on city rasters, so that it can be asked for a density, a mobility or a place",
        "citygrain train experiment=demo",
        (
            "citygrain train name=mine data.places=[copenhagen,los_angeles] model=diffusion trainer=gpu",
            "citygrain train --multirun name=seeds seed=0,1,2",
        ),
        run_key="name",
    ),
    "sample": Verb(
        "citygrain.verbs.sample",
        "draw layouts with a generator: PNG, GeoTIFF, and a table of requested and measured values",
        "citygrain sample checkpoint=runs/demo n=16 conditions.coverage=0.4",
        (
            "citygrain sample checkpoint=runs/demo conditions.cycle=p90 conditions.place=helsinki",
            "citygrain sample --multirun checkpoint=runs/demo conditions.coverage=p10,p50,p90",
            "citygrain sample checkpoint=runs/demo extent_m=[2000,900] 'conditions.green={from:0,to:0.4,towards:east}'",
        ),
        run_key="out",
    ),
    "evaluate": Verb(
        "citygrain.verbs.evaluate",
        "compare a generator with held-out windows: realism, obedience, copies; a report as HTML and as JSON",
        "citygrain evaluate checkpoint=runs/demo n=256",
        (
            "citygrain evaluate checkpoint=runs/demo against=val obedience.conditions=[coverage,cycle]",
            "citygrain evaluate checkpoint=runs/demo places=[amsterdam] against=all",
            "citygrain evaluate --multirun checkpoint=runs/demo,runs/mine",
        ),
        run_key="out",
    ),
    "compare": Verb(
        "citygrain.verbs.compare",
        "compare places, real or generated, measure by measure: a report as HTML, PNG and CSV",
        "citygrain compare places=[copenhagen,los_angeles]",
        ("citygrain compare places=[copenhagen,los_angeles] generated=[out/sample]",),
        run_key="out",
    ),
    "edit": Verb(
        "citygrain.verbs.edit",
        "redraw a site inside its real surroundings, under conditions: before and after, measured and georeferenced",
        "citygrain edit checkpoint=runs/demo place=helsinki at=[24.9414,60.1735] conditions.coverage=0.4",
        (
            "citygrain edit checkpoint=runs/demo place=helsinki site=site.geojson keep=[arterial,water] strength=0.7",
            "citygrain edit checkpoint=runs/demo place=helsinki site=site.geojson conditions.green=painted.tif",
        ),
        run_key="out",
    ),
    "app": Verb(
        "citygrain.verbs.app",
        "open a page in the browser, served by this machine: ask a model with sliders, look, measure, download",
        "citygrain app",
        ("citygrain app checkpoint=[reference/cities_64,runs/demo] port=8000 open_browser=true",),
    ),
    "export": Verb(
        "citygrain.verbs.export",
        "export a run as a model to share: weights, configuration and model card, without the state of training",
        "citygrain export checkpoint=runs/demo out=out/model half=true",
        ("citygrain export model=cascade model.plan=runs/plan model.ground=runs/ground out=out/city",),
        run_key="out",
    ),
    "vectorize": Verb(
        "citygrain.verbs.vectorize",
        "turn layouts into buildings, open spaces and street graphs: GeoPackage, GeoJSON, GeoParquet, GraphML",
        "citygrain vectorize layouts=out/sample out=out/vectors",
        (
            "citygrain vectorize layouts=out/sample formats=[gpkg,graphml]",
            "citygrain vectorize layouts=data/cities/helsinki bounds=[385600,6671600,386600,6672600]",
        ),
        run_key="out",
    ),
}

FLAGS = {
    "--help": "show what a verb does, its groups and its keys (-h)",
    "--cfg": "`--cfg job` only prints the composed configuration",
    "--config-dir": "a folder with your own configurations, which are read before the shipped ones; may be repeated",
    "--multirun": "one run for every combination of the values in comma lists: seed=0,1,2 (-m)",
    "--traceback": "show where in the code an error came from",
    "--version": "show the version of citygrain",
}


@dataclass
class Request:
    """A parsed command line."""

    verb: str | None = None
    overrides: list[str] = field(default_factory=list)
    config_dirs: list[str] = field(default_factory=list)
    flags: set[str] = field(default_factory=set)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 0, 2 for wrong input, 130 when interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    out, err = Console(), Console(stderr=True)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning(err, warnings.showwarning)
        try:
            return _dispatch(_parse_arguments(arguments), out, err)
        except CitygrainError as error:
            return _print_error(err, error, trace="--traceback" in arguments)
        except KeyboardInterrupt:
            err.print("\nInterrupted. Repeat the same command to go on.", style="yellow")
            return INTERRUPTED


def _dispatch(request: Request, out: Console, err: Console) -> int:
    if "--version" in request.flags:
        out.print(f"citygrain {citygrain.__version__}", highlight=False)
        return 0
    if request.verb is None:
        _print_overview(out)
        return 0
    if "--help" in request.flags:
        _print_help(out, request)
        return 0
    config = importlib.import_module("citygrain.support.config")
    if "--cfg" in request.flags:
        out.print(
            Text(config.format_config(request.verb, request.overrides, request.config_dirs).rstrip()), soft_wrap=True
        )
        return 0
    if "--multirun" in request.flags:
        return _run_sweep(request, out, err)
    _run(request.verb, request.overrides, request.config_dirs)
    return 0


def _run(verb: str, overrides: Sequence[str], config_dirs: Sequence[str]) -> None:
    config = importlib.import_module("citygrain.support.config")
    plain = config.load_config(verb, overrides, config_dirs)
    config.check_signatures(plain)
    with importlib.import_module("citygrain.support.devices").use_threads(plain.get("threads")):
        VERBS[verb].run(plain)


def _run_sweep(request: Request, out: Console, err: Console) -> int:
    """Run all combinations, one after another. A run that fails does not stop the others."""
    verb = str(request.verb)
    config = importlib.import_module("citygrain.support.config")
    jobs = config.split_sweep(request.overrides)
    taken: dict[str, Sequence[str]] = {}
    failed = 0
    for i, (varying, overrides) in enumerate(jobs, 1):
        title = ",".join(varying)
        out.rule(Text(f"{verb} {i} of {len(jobs)}: {title}"), align="left")
        try:
            if (key := VERBS[verb].run_key) and varying:
                folder = _name_run_folder(config, request, key, varying, overrides)
                if (other := taken.setdefault(os.path.normpath(folder), varying)) is not varying:
                    raise ConfigError(
                        "Two runs of this sweep would have the same folder.",
                        got=f"{','.join(other)} and {title}, both in {folder}",
                        remedy=f"give {key}= values that are different folders, or leave it out",
                    )
                overrides = [*overrides, f"{key}={config.quote_value(folder)}"]  # noqa: PLW2901 - the same run in its own folder
            _run(verb, overrides, request.config_dirs)
        except CitygrainError as error:
            failed = _print_error(err, error, trace="--traceback" in request.flags)
    return failed


def _name_run_folder(config: Any, request: Request, key: str, varying: Sequence[str], overrides: Sequence[str]) -> str:
    """Name the folder of a run in a sweep: inside the folder of the key, by the other overrides that vary."""
    base = str(config.load_config(str(request.verb), overrides, request.config_dirs)[key])
    name = config.name_folder([text for text in varying if text.partition("=")[0] != key])
    return f"{base}/{name}" if name else base


def _parse_arguments(arguments: Sequence[str]) -> Request:
    request, rest = Request(), iter(arguments)
    for argument in rest:
        flag, equals, value = argument.partition("=")
        flag = {"-h": "--help", "-m": "--multirun"}.get(flag, flag)
        if not flag.startswith("-"):
            if request.verb is None:
                request.verb = _check_verb(argument)
            else:
                request.overrides.append(argument)
        elif flag not in FLAGS:
            raise ConfigError(
                "There is no such flag.",
                got=argument,
                choices=FLAGS,
                remedy=f"write values without dashes: {argument.lstrip('-')}" if equals else None,
            )
        elif flag in {"--cfg", "--config-dir"}:
            value = value if equals else next(rest, "")
            if not value or (flag == "--cfg" and value != "job"):
                raise ConfigError(
                    f"{flag} needs a value.", expected="job" if flag == "--cfg" else "a folder", got=value
                )
            request.flags.add(flag)
            if flag == "--config-dir":
                request.config_dirs.append(value)
        else:
            request.flags.add(flag)
    if request.verb is None and request.flags - {"--help", "--version", "--traceback"}:
        raise ConfigError("There is no verb.", choices=VERBS, remedy="write the verb first: citygrain train --cfg job")
    return request


def _check_verb(name: str) -> str:
    if name in VERBS:
        return name
    raise ConfigError(
        "citygrain does not know this verb.",
        got=name,
        choices=VERBS,
        remedy="write the verb first: citygrain train " + name
        if "=" in name
        else "run citygrain without arguments to list verbs",
    )


def _print_overview(out: Console) -> None:
    out.print(f"[bold]citygrain[/] {citygrain.__version__}: generates city layouts that can be requested and measured")
    for name, verb in VERBS.items():
        out.print(f"\n  [bold]{name:9}[/] {escape(verb.does)}", highlight=False, soft_wrap=True)
        out.print(f"            [cyan]{escape(verb.example)}[/]", highlight=False, soft_wrap=True)
    out.print("\ncitygrain <verb> --help   shows the groups and keys of a verb", highlight=False)


def _print_help(out: Console, request: Request) -> None:
    verb, dirs = str(request.verb), request.config_dirs
    config = importlib.import_module("citygrain.support.config")
    about = VERBS[verb]
    out.print(f"[bold]citygrain {verb}[/] \\[group=option] \\[key=value] …", highlight=False)
    out.print(f"{about.does[0].upper()}{about.does[1:]}.", highlight=False, markup=False)
    every, taken = config.list_groups(dirs), config.list_group_defaults(verb, dirs, request.overrides)
    chosen = {group: option if isinstance(option, list) else [option] for group, option in taken.items()}
    if taken:
        out.print("\n[bold]Groups[/]   group=option; the bold option is the default")
        options = {group: every.get(group.split("@")[0], []) for group in taken}
        rows = [(g, Text("  ").join(Text(o, "bold" if o in chosen[g] else "") for o in options[g])) for g in taken]
        _print_table(out, rows)
    _print_keys(out, "", config.find_file(verb, dirs))
    for group, names in chosen.items():
        for name in names:
            _print_keys(out, f"{group}={name}", config.find_file(f"{group.split('@')[0]}/{name}", dirs))
    out.print("\n[bold]Flags[/]")
    _print_table(out, FLAGS.items())
    out.print("\n[bold]Examples[/]")
    for example in (about.example, *about.more):
        out.print(Text(f"  {example}"), soft_wrap=True)


def _print_table(out: Console, rows: Iterable[tuple[str, str | Text]]) -> None:
    table = Table.grid(padding=(0, 2))
    for left, right in rows:
        table.add_row(Text(left, "cyan"), right if isinstance(right, Text) else Text(right))
    out.print(Padding(table, (0, 2)))


def _print_keys(out: Console, choice: str, file: Path | None) -> None:
    about, keys = read_comments(file) if file else ("", [])
    if keys:
        group = choice.partition("=")[0].split("@")[-1].replace("/", ".")
        prefix = f"{group}." if group else ""
        out.print(f"\n[bold]Keys[/]   {choice and f'of {choice}: {about}'}".rstrip(" :"), highlight=False)
        _print_table(out, [(f"{prefix}{key}", comment) for key, comment in keys])


def read_comments(file: Path) -> tuple[str, list[tuple[str, str]]]:
    """Read the comments of a configuration: its head comment, and each key with its default and its comment.

    The comment of a key stands behind it or above it. The head comment is at the beginning of the file.
    """
    about = ""
    keys: list[tuple[str, str]] = []
    above: list[str] = []
    parents: list[tuple[int, str]] = []
    for i, line in enumerate(file.read_text(encoding="utf-8").splitlines()):
        comment = re.match(r"\s*#\s*(.*)", line)
        entry = re.match(r"(\s*)([\w.]+):(?:\s+([^#\s].*?))?(?:\s+#\s*(.*))?$", line)
        if comment:
            above.append(comment[1])
            if len(above) == i + 1:
                about = " ".join(a for a in above if not a.startswith("@package"))
            continue
        if entry:
            depth, key, value, behind = len(entry[1]), entry[2], entry[3], entry[4]
            parents = [*[p for p in parents if p[0] < depth], (depth, key)]
            says = behind or (" ".join(above) if len(above) < i else "")
            dotted = ".".join(name for _, name in parents)
            if (value or says) and not key.startswith("_") and parents[0][1] != "defaults":
                keys.append((f"{dotted}={value}" if value else f"{dotted}:", says))
        above = []
    return about, keys


def _print_error(err: Console, error: CitygrainError, *, trace: bool) -> int:
    if trace:
        err.print(Text("".join(traceback.format_exception(error))), soft_wrap=True)
        return WRONG_INPUT
    problem, *details = str(error).splitlines()
    err.print(Text("error: ", style="bold red") + Text(problem, style="bold"), soft_wrap=True)
    for line in details:
        err.print(Text(line), soft_wrap=True)
    return WRONG_INPUT


def _show_warning(err: Console, usual: Callable[..., None]) -> Callable[..., None]:
    """Print citygrain's own warnings as a sentence, and those of other packages as usual."""

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if category.__module__.startswith("citygrain"):
            err.print(Text("warning: ", style="bold yellow") + Text(str(message)), soft_wrap=True)
        else:
            usual(message, category, *where, **more)

    return show


if __name__ == "__main__":
    sys.exit(main())
