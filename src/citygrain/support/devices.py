"""What a model computes on, by how many threads, and in which numbers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import torch

from citygrain.errors import ConfigError

SINGLE, MIXED, AUTO = "32-true", "bf16-mixed", "auto"
"""Numbers to compute in, by the names that Lightning has for them."""

OPENMP = "OMP_NUM_THREADS"


def chosen_device(name: str) -> str:
    """Return the device of a name, `auto` being a GPU where there is one.

    Raises
    ------
    ConfigError
        When it is not there.
    """
    device = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch compiled without CUDA asserts
        raise ConfigError("There is no such device here.", got=device, choices=["auto", "cpu", "cuda"]) from error
    return device


def device_of(model: object) -> torch.device:
    """Return where a model is; a fitted family has no parameters, and a plain codec may have nothing at all."""
    tensors = chain(model.parameters(), model.buffers()) if isinstance(model, torch.nn.Module) else iter(())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def has_fast_bf16(accelerator: str = "auto") -> bool:
    """Whether this machine computes in bfloat16 natively; emulated, it is several times slower than float32."""
    if accelerator in {"auto", "gpu", "cuda"} and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = ("avx512_bf16", "amx_bf16", "amx_bf16_supported")
    try:
        known = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return False
    return not known.isdisjoint(flags)


@contextmanager
def using_threads(count: int | None) -> Iterator[None]:
    """Compute by so many threads within a block, and let the processes that are started in it do the same.

    Parameters
    ----------
    count
        Threads of one process, no more than there are cores; None leaves them as they are: one a core, or as many as
        `OMP_NUM_THREADS` says.

    Raises
    ------
    ConfigError
        For another number than 1, 2, ….
    """
    if count is None:
        yield
        return
    if type(count) is not int or count < 1:
        raise ConfigError("threads is a number of cores.", expected="a whole number above 0, or null", got=repr(count))
    before, named = torch.get_num_threads(), os.environ.get(OPENMP)
    used = min(count, os.cpu_count() or 1)
    torch.set_num_threads(used)
    os.environ[OPENMP] = str(used)  # for processes, and for libraries that are loaded from now on
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if named is None:
            del os.environ[OPENMP]
        else:
            os.environ[OPENMP] = named


@contextmanager
def computing_in(precision: str, device: torch.device) -> Iterator[None]:
    """Compute in single precision, or where it does no harm in bfloat16, within a block.

    Parameters
    ----------
    precision
        `32-true`; `bf16-mixed`; or `auto`, which is the latter where the device computes in it natively.
    device
        Where it is computed.

    Raises
    ------
    ConfigError
        For another precision.
    """
    check_precision(precision)
    mixed = precision == MIXED or (precision == AUTO and has_fast_bf16(device.type))
    with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
        yield


def check_precision(precision: str) -> None:
    """Refuse numbers that nothing is computed in.

    Raises
    ------
    ConfigError
        It names those that there are.
    """
    if precision not in (SINGLE, MIXED, AUTO):
        raise ConfigError("Layouts are not computed in such numbers.", got=precision, choices=(SINGLE, MIXED, AUTO))
