"""What a model computes on, by how many threads, and in which numbers."""

import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import citygrain
from citygrain.errors import ConfigError
from citygrain.generation.windows import draw
from citygrain.spec import Conditions
from citygrain.support import devices
from citygrain.support.config import load_config
from citygrain.support.devices import choose_device, find_device, return_freed_memory, use_precision, use_threads
from citygrain.verbs.sample import run

CPU = torch.device("cpu")


def product(precision):
    with use_precision(precision, CPU):
        return (torch.ones(4, 4) @ torch.ones(4, 4)).dtype


def test_matrices_are_multiplied_in_what_is_chosen(monkeypatch):
    assert product("32-true") == torch.float32
    assert product("bf16-mixed") == torch.bfloat16
    for native in (True, False):
        monkeypatch.setattr(devices, "has_fast_bf16", lambda _, native=native: native)
        assert product("auto") == (torch.bfloat16 if native else torch.float32)


@pytest.mark.slow
def test_in_half_precision_layouts_are_hardly_others_and_obey_as_exactly():
    model = citygrain.load("reference/cities_64")
    asked = Conditions.request(model.spec, 8, {"coverage": torch.linspace(0.05, 0.3, 8), "cycle": 2.0})
    whole, half = (draw(model, asked, range(8), precision=precision) for precision in ("32-true", "bf16-mixed"))
    moved = abs(whole.shares - half.shares).mean()
    assert 0 < moved < 0.1 * abs(whole.shares - whole.shares.mean(0)).mean()
    for name in ("coverage", "cycle"):
        error = abs(half.measured[name] - half.requested[name]).mean() / model.spec.spread(name)
        assert error < 0.05


@pytest.mark.parametrize("precision", ["16", "half", 32])
def test_other_numbers_are_refused_before_anything_is_drawn(precision, tmp_path):
    with pytest.raises(ConfigError, match="bf16-mixed"):
        run(load_config("sample", ["checkpoint=reference/cities_64", f"precision={precision}", f"out={tmp_path}"]))
    assert not list(tmp_path.iterdir())


def test_a_device_that_is_not_there_is_answered_with_those_that_may_be():
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") in {"cpu", "cuda"}
    there = "auto, cpu, cuda" if torch.cuda.is_available() else "auto, cpu$"
    with pytest.raises(ConfigError, match=there):
        choose_device("abacus")


def test_what_has_no_numbers_is_computed_on_the_processor():
    assert find_device(object()) == CPU
    assert find_device(torch.nn.Linear(1, 1)) == CPU
    assert find_device(torch.nn.Identity()) == CPU


SRC = Path(citygrain.__file__).parents[1]


def threads_now():
    """Of this thread, of another one, and what a process that is started now is told."""
    with ThreadPoolExecutor(1) as pool:
        return torch.get_num_threads(), pool.submit(torch.get_num_threads).result(), os.environ.get("OMP_NUM_THREADS")


@pytest.mark.parametrize("told", [None, "7"])
def test_threads_hold_within_a_block_for_all_that_is_started_there(told, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "0")  # put back at the end, whatever it was
    monkeypatch.delenv("OMP_NUM_THREADS") if told is None else monkeypatch.setenv("OMP_NUM_THREADS", told)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    usual = torch.get_num_threads()
    for count, used in ((1, 1), (2, 2), (10**15, 3)):
        with use_threads(count):
            assert threads_now() == (used, used, str(used))
        assert threads_now() == (usual, usual, told)
    with use_threads(None):
        assert threads_now() == (usual, usual, told)
    with pytest.raises(ZeroDivisionError), use_threads(2):
        raise ZeroDivisionError
    assert threads_now() == (usual, usual, told)


@pytest.mark.parametrize("count", [0, -1, 1.0, True, "2", [2]], ids=repr)
def test_no_number_of_threads_is_refused(count):
    with pytest.raises(ConfigError, match="a whole number above 0, or null"), use_threads(count):
        pytest.fail("something ran")


def waiting(code, **environment):
    """Run code in a process of its own; how it says that threads wait, and how OpenMP does."""
    command = [sys.executable, "-c", f"import os; {code}; print(os.environ.get('OMP_WAIT_POLICY'))"]
    told = {"PYTHONPATH": str(SRC), "PATH": os.environ["PATH"], "OMP_DISPLAY_ENV": "VERBOSE", **environment}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=told)
    spins = {line.split("'")[1] for line in done.stderr.splitlines() if "GOMP_SPINCOUNT" in line}
    return done.stdout.strip(), spins


@pytest.mark.slow
def test_threads_sleep_while_they_wait_unless_told_otherwise():
    said, spins = waiting("import citygrain; citygrain.load")
    assert said == "PASSIVE"
    assert spins in (set(), {"0"})  # none where OpenMP is not GNU's: it is read when torch is loaded
    assert waiting("import citygrain; citygrain.load", OMP_WAIT_POLICY="ACTIVE")[0] == "ACTIVE"
    assert waiting("import citygrain; citygrain.load", GOMP_SPINCOUNT="77")[1] in (set(), {"77"})


def test_after_torch_nothing_is_said_that_would_come_too_late():
    assert waiting("import torch; import citygrain")[0] == "None"


@pytest.mark.skipif("glibc" not in platform.libc_ver(), reason="other C libraries stay as they are")
def test_freed_blocks_between_kept_ones_go_back_to_the_system():
    def held():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    torch.ones(6 * 2**20)  # once it has seen a block of 24 MiB freed, glibc keeps others of up to this size
    return_freed_memory()
    before = held()
    blocks = [torch.ones(2 * 2**20) for _ in range(32)]  # 8 MiB each
    full = held()
    kept = blocks[::2]
    del blocks
    assert full - before > 240
    assert held() - before < 160
    assert len(kept) == 16
