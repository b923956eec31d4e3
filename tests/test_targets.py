"""Every name there is, in citygrain and in what it stands on: which may be configured, and that those only build."""

import importlib
import inspect
import json
import pkgutil
import sys
import types
import warnings
from functools import cache

import pytest
import yaml

import citygrain
from citygrain.checkpoint import SHIPPED
from citygrain.errors import ConfigError
from citygrain.support.config import find_config_dir
from citygrain.support.targets import BUILDING_BLOCKS, MODEL_PARTS, check_targets, find_target

PARTS = ("citygrain.models", "citygrain.networks", "citygrain.samplers")
CLASSES = (*PARTS, "citygrain.geo.sources", "citygrain.training.callbacks")
FUNCTIONS = ("citygrain.training.lr_schedules", "citygrain.training.optimizers")
SPEC = {"citygrain.spec.LayoutSpec", "citygrain.spec.LayoutSpec.from_dict"}


@cache
def modules():
    """Every module of the package by its name. They are imported when a test asks, and not when tests are collected."""
    found = [module.name for module in pkgutil.walk_packages(citygrain.__path__, "citygrain.")]
    return {name: importlib.import_module(name) for name in found if name != "citygrain.__main__"}


def may_be_named(name, allowed=BUILDING_BLOCKS):
    try:
        find_target(name, allowed)
    except ConfigError:
        return False
    return True


def names():
    """Whatever can be reached by a dotted name: what each module has, and what each class in it has."""
    for where, module in modules().items():
        for name, value in list(vars(module).items()):
            yield f"{where}.{name}", value
            if isinstance(value, type):
                for inner in dir(value):
                    yield f"{where}.{name}.{inner}", getattr(value, inner, None)


def inside(where, packages):
    return any(where == package or where.startswith(f"{package}.") for package in packages)


def meant(name, value, classes=CLASSES, functions=FUNCTIONS):
    """Say by another way than the code's what is a building block: where it stands, and what it is."""
    where, _, last = name.rpartition(".")
    if name in SPEC:
        return True
    if "._" in name or where not in modules() or getattr(value, "__module__", None) != where:
        return False
    if isinstance(value, type) and inside(where, classes):
        return not getattr(value, "__abstractmethods__", None) and not getattr(value, "_is_protocol", False)
    return isinstance(value, types.FunctionType) and where in functions and value.__name__ == last


@cache
def named():
    """What may be named, by its name."""
    return {name: value for name, value in names() if may_be_named(name)}


def test_what_may_be_named_in_citygrain_is_a_rule_over_all_that_there_is():
    everything = dict(names())
    assert len(everything) > 5000, "the walk has lost its way"
    assert set(named()) == {name for name, value in everything.items() if meant(name, value)}
    models = {name for name in everything if may_be_named(name, MODEL_PARTS)}
    assert models == {name for name, value in everything.items() if meant(name, value, PARTS, ())}
    assert not {name for name in named() if not inside(name, PARTS) and name not in SPEC} & models


def test_of_torch_and_lightning_nothing_may_be_named_but_parts():
    """All that their packages hand out is looked at; what is refused is everything that reads, writes or fetches."""
    torch, lightning = (importlib.import_module(name) for name in ("torch", "pytorch_lightning"))
    allowed = {}
    for package in (torch, lightning):
        for name in [m.name for m in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")] + [
            package.__name__,
            "torch.nn.utils",
            "torch.nn.modules",
            "torch.nn.parallel",
            "torch.optim.lr_scheduler",
            "torch.optim.swa_utils",
            "pytorch_lightning.demos.transformer",
            "pytorch_lightning.loggers.csv_logs",
            "pytorch_lightning.callbacks.model_checkpoint",
        ]:
            module = sys.modules.get(name)
            for last in dir(module) if module else ():
                if may_be_named(f"{name}.{last}"):
                    allowed[f"{name}.{last}"] = getattr(module, last)
    kinds = {
        "torch.nn": torch.nn.Module,
        "torch.optim": torch.optim.Optimizer,
        "torch.optim.lr_scheduler": torch.optim.lr_scheduler.LRScheduler,
        "pytorch_lightning": lightning.Trainer,
        "pytorch_lightning.callbacks": lightning.Callback,
        "pytorch_lightning.loggers": lightning.loggers.Logger,
    }
    assert {name.rpartition(".")[0] for name in allowed} == set(kinds)
    others = {n for n, value in allowed.items() if not issubclass(value, kinds[n.rpartition(".")[0]])}
    assert not others
    assert not [name for name in allowed if may_be_named(name, MODEL_PARTS) and not name.startswith("torch.nn.")]


def targets_in(plain):
    if isinstance(plain, dict):
        yield from ([plain["_target_"]] if "_target_" in plain else [])
        for value in plain.values():
            yield from targets_in(value)
    elif isinstance(plain, list):
        for value in plain:
            yield from targets_in(value)


def test_all_that_ships_is_named_by_the_rule():
    shipped = {
        name
        for file in find_config_dir().rglob("*.yaml")
        for name in targets_in(yaml.safe_load(file.read_text(encoding="utf-8")))
    }
    assert len(shipped) > 50
    assert not {name for name in shipped if not may_be_named(name)}
    for file in SHIPPED.glob("*/config.json"):
        check_targets(json.loads(file.read_text(encoding="utf-8"))["model"], MODEL_PARTS)


WATCHED = {
    *("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "os.link", "os.symlink", "os.chmod"),
    *("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "shutil.rmtree", "shutil.move"),
    *("socket.connect", "socket.getaddrinfo", "urllib.Request", "tempfile.mkstemp", "tempfile.mkdtemp"),
}
acts: list = []
hooked: list = []
watching = False


def watch(event, arguments):
    """Note what acts on the world outside; once hooked it stays for good, so that it looks only when asked to."""
    if not watching:
        return
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if (writes and str(arguments[0]) != "/dev/null") or event in WATCHED:
        acts.append((event, arguments))


def plain_values(folder):
    (folder / "file").write_text("x")
    return ["x", str(folder / "new"), str(folder / "file"), 1, 0.5, True, None, [], {}, [1, 2], {"a": 1}, ["a", "b"]]


@pytest.fixture
def noting(monkeypatch):
    if not hooked:
        sys.addaudithook(watch)
        hooked.append(watch)
    acts.clear()
    monkeypatch.setitem(globals(), "watching", True)
    return acts


def call_with(target, value):
    """Call with one value for what has no default, and for everything; whether it fits does not matter."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return
    named = [p for p in parameters if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}]
    for chosen in ([p for p in named if p.default is p.empty], named):
        try:
            target(**{p.name: value for p in chosen})
        except Exception:  # noqa: BLE001 - most values make no sense
            continue


def test_the_watch_sees_what_acts(tmp_path, noting):
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").mkdir()
    (tmp_path / "a").unlink()
    assert {event for event, _ in noting} >= {"open", "os.mkdir", "os.remove"}


@pytest.mark.parametrize("room", [*CLASSES, *FUNCTIONS, "citygrain.spec"])
def test_nothing_that_may_be_named_acts_when_it_is_called(room, tmp_path, monkeypatch, noting):
    monkeypatch.chdir(tmp_path)
    values = plain_values(tmp_path)
    called = [target for name, target in named().items() if inside(name.rpartition(".")[0], [room, *SPEC])]
    noting.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for target in called:
            for value in values:
                call_with(target, value)
    assert called
    assert not noting


def test_a_users_own_family_is_named_where_it_stands(tmp_path, monkeypatch):
    """A module put into `citygrain/models`, as docs/extend/family.md says; a package of another name has none."""
    lines = ("from pathlib import Path", "from citygrain.models.pca import Pca", "class Mine(Pca): ...", "def f(): ...")
    (tmp_path / "mine.py").write_text("\n".join(lines))
    monkeypatch.setattr(sys.modules["citygrain.models"], "__path__", [*citygrain.models.__path__, str(tmp_path)])
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert find_target("citygrain.models.mine.Mine", MODEL_PARTS).__name__ == "Mine"
        for other in ("Pca", "Path", "f"):
            with pytest.raises(ConfigError, match="may not call"):
                find_target(f"citygrain.models.mine.{other}")
        with pytest.raises(ConfigError, match="may not call"):
            find_target("mine.Mine")
        with pytest.raises(ConfigError, match="did you mean: Mine"):
            find_target("citygrain.models.mine.Mime")
    finally:
        sys.modules.pop("citygrain.models.mine", None)
        vars(sys.modules["citygrain.models"]).pop("mine", None)


def test_who_names_something_else_learns_what_may_be_named():
    with pytest.raises(ConfigError) as caught:
        find_target("citygrain.support.files.write_text")
    said = str(caught.value)
    for word in (
        "write_text",
        "a class of citygrain.models",
        "a function of citygrain.training.lr_schedules",
        "Trainer",
    ):
        assert word in said
    with pytest.raises(ConfigError, match="did you mean: diffusion"):
        find_target("citygrain.models.difusion.Diffusion")
