"""The command line answers in plain words, with the choices, and hands each verb a plain configuration."""

import os
import re
import subprocess
import sys
import types
import warnings
from pathlib import Path

import pytest
import torch

import citygrain
from citygrain.__main__ import VERBS, main
from citygrain.errors import DataError
from citygrain.spec import OutOfRangeWarning
from citygrain.support.config import list_group_defaults

SRC = Path(citygrain.__file__).parents[1]


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def seen(monkeypatch):
    """Replace the verbs by one that notes what it is given."""
    given = []
    stand_in = types.ModuleType("stand_in")
    stand_in.run = given.append
    monkeypatch.setitem(sys.modules, "stand_in", stand_in)
    for name, verb in VERBS.items():
        monkeypatch.setitem(VERBS, name, type(verb)(**{**vars(verb), "module": "stand_in"}))
    return given


@pytest.fixture
def own(tmp_path):
    """A configuration folder with small roots in the place of the shipped ones."""
    for verb in VERBS:
        (tmp_path / f"{verb}.yaml").write_text(
            "# What it is.\nname: base   # of the run\nout: here\nseed: 0\nneeds: ???\nbox:\n  depth: 3   # in metres\n"
        )
    return ["--config-dir", str(tmp_path)]


def test_no_arguments_tell_what_there_is(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    for name, verb in VERBS.items():
        assert name in out
        assert verb.example in out


def test_the_version_is_the_packages(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"citygrain {citygrain.__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_keys_groups_and_examples(verb, capsys):
    assert main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    for word in ("Keys", "Flags", "--cfg", "Examples"):
        assert word in out
    known = {"vectorize": ("out=out/vectors", "folder that"), "export": ("half=false", "half precision")}
    for word in known.get(verb, ("paths.data=data/cities", "where prepared")):
        assert word in out
    for group, default in list_group_defaults(verb).items():
        assert group in out
        assert str(default or "") in out


def test_help_reads_the_users_own_folder_too(own, capsys):
    assert main(["train", "-h", *own]) == 0
    out = capsys.readouterr().out
    assert "name=base" in out
    assert "of the run" in out
    assert "box.depth=3" in out
    assert "in metres" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], ["does not know this verb", "prepare, pack, train, sample", "did you mean: train"]),
        (["seed=3"], ["write the verb first"]),
        (["train", "sede=3"], ["no key of this name", "did you mean: seed"]),
        (["train", "needs=1", "box.dept=3"], ["box has no key", "did you mean: depth"]),
        (["train", "--seed=3"], ["no such flag", "without dashes: seed=3"]),
        (["train", "--cgf", "job"], ["no such flag", "did you mean: --cfg"]),
        (["train", "--cfg", "hydra"], ["--cfg needs a value", "job"]),
        (["train", "--config-dir"], ["--config-dir needs a value"]),
        (["--cfg", "job"], ["There is no verb."]),
        (["train"], ["needs needs", "citygrain train needs=…"]),
    ],
)
def test_what_is_wrong_is_said_without_a_trace(arguments, words, own, seen, capsys):
    assert main([*own, *arguments] if arguments[-1] != "--config-dir" else arguments) == 2
    captured = capsys.readouterr()
    for word in words:
        assert word in captured.err
    assert "Traceback" not in captured.err
    assert not captured.out
    assert not seen


def test_a_verb_is_given_its_plain_configuration(own, seen):
    assert main(["sample", "needs=[a,1]", "box.depth=4", *own]) == 0
    assert seen == [{"name": "base", "out": "here", "seed": 0, "needs": ["a", 1], "box": {"depth": 4}}]


def test_cfg_job_prints_and_does_nothing(own, seen, capsys):
    assert main(["train", "--cfg", "job", "seed=7", *own]) == 0
    out = capsys.readouterr().out
    assert "seed: 7\n" in out
    assert "needs: ???\n" in out
    assert not seen


def test_a_wrong_target_is_refused_before_the_verb_starts(own, seen, capsys):
    assert main(["train", "needs={_target_: os.getcwd}", *own]) == 2
    assert "may not call" in capsys.readouterr().err
    assert not seen


@pytest.mark.slow
def test_a_sweep_runs_every_combination_in_a_folder_of_its_own(own, seen, capsys):
    assert main(["train", "-m", "needs=x", "seed=1,2", "box.depth=4,5", *own]) == 0
    assert [(c["name"], c["seed"], c["box"]["depth"]) for c in seen] == [
        (f"base/seed={s},box.depth={d}", s, d) for s in (1, 2) for d in (4, 5)
    ]
    assert "train 3 of 4: seed=2,box.depth=4" in capsys.readouterr().out
    seen.clear()
    assert main(["train", "-m", "needs=x", "name=a,b", *own]) == 0
    assert [c["name"] for c in seen] == ["a", "b"]
    seen.clear()
    assert main(["train", "-m", "needs=x", "name=a,b", "seed=1,2", *own]) == 0
    assert [c["name"] for c in seen] == ["a/seed=1", "a/seed=2", "b/seed=1", "b/seed=2"]
    seen.clear()
    assert main(["train", "-m", "needs=x/y,x_y,'it\\'s'", "name='who\\'s'", *own]) == 0
    assert len({c["name"] for c in seen}) == 3
    assert all(c["name"].startswith("who's/needs=") for c in seen)


def test_runs_of_a_sweep_that_would_share_a_folder_are_told(own, seen, capsys):
    assert main(["train", "-m", "needs=x", "name=a,b/../a,c", *own]) == 2
    assert [c["name"] for c in seen] == ["a", "c"]
    said = capsys.readouterr().err
    assert "Two runs of this sweep would have the same folder" in said
    assert "name=a and name=b/../a" in said


def test_a_run_that_fails_does_not_stop_a_sweep(own, seen, monkeypatch, capsys):
    def run(config):
        seen.append(config["seed"])
        if config["seed"] == 1:
            raise DataError("One is no number.", got=1)

    monkeypatch.setattr(sys.modules["stand_in"], "run", run)
    assert main(["train", "-m", "needs=x", "seed=0,1,2", *own]) == 2
    assert seen == [0, 1, 2]
    assert "One is no number." in capsys.readouterr().err


def test_a_verb_runs_on_as_many_threads_as_it_is_told(own, seen, monkeypatch, capsys):
    monkeypatch.setattr(sys.modules["stand_in"], "run", lambda _: seen.append(torch.get_num_threads()))
    usual = torch.get_num_threads()
    assert main(["train", "needs=x", *own]) == 0  # a root without the key
    assert main(["train", "-m", "needs=x", "+threads=1,2", *own]) == 0
    assert seen == [usual, 1, min(2, os.cpu_count())]
    assert torch.get_num_threads() == usual
    assert main(["train", "needs=x", "+threads=none_such", *own]) == 2
    assert "threads is not a number of threads" in capsys.readouterr().err
    assert len(seen) == 3


@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"prepare", "pack", "export"}))
def test_the_verbs_that_compute_say_how_many_threads_they_take(verb, capsys):
    assert main([verb, "--help"]) == 0
    assert re.search(r"threads=null +cores", capsys.readouterr().out)


def raising(error):
    def run(_config):
        raise error

    return run


def test_errors_of_the_input_are_two_and_interruptions_130(own, seen, monkeypatch, capsys):
    monkeypatch.setattr(
        sys.modules["stand_in"], "run", raising(DataError("No [bold]such[/] folder.", remedy="make it"))
    )
    assert main(["train", "needs=x", *own]) == 2
    err = capsys.readouterr().err
    assert err == "error: No [bold]such[/] folder.\n  remedy:   make it\n"
    assert main(["train", "needs=x", "--traceback", *own]) == 2
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setattr(sys.modules["stand_in"], "run", raising(KeyboardInterrupt()))
    assert main(["train", "needs=x", *own]) == 130
    assert "Repeat the same command to go on" in capsys.readouterr().err
    monkeypatch.setattr(sys.modules["stand_in"], "run", raising(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError):
        main(["train", "needs=x", *own])


def test_warnings_of_citygrain_are_sentences(own, seen, monkeypatch, capsys):
    def run(_config):
        warnings.simplefilter("always")
        warnings.warn("coverage=3 is far out.", OutOfRangeWarning, stacklevel=1)

    monkeypatch.setattr(sys.modules["stand_in"], "run", run)
    assert main(["train", "needs=x", *own]) == 0
    assert capsys.readouterr().err == "warning: coverage=3 is far out.\n"


@pytest.mark.parametrize("arguments", [[], ["train", "--help"], ["train", "--cfg", "job"]], ids=" ".join)
def test_help_loads_nothing_heavy(arguments, tmp_path):
    code = """
import sys
from citygrain.__main__ import main
code = main(sys.argv[1:])
sys.exit(code or len({"torch", "geopandas", "matplotlib", "pytorch_lightning"} & set(sys.modules)))
"""
    environment = {"PYTHONPATH": str(SRC), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", code, *arguments]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
