"""Devices, threads and numerical precision of computations."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

import torch

from citygrain.errors import ConfigError

SINGLE, MIXED, AUTO = "32-true", "bf16-mixed", "auto"
"""Precisions, by the names that Lightning gives them."""

OPENMP = "OMP_NUM_THREADS"

LARGE_BLOCK = 2**20
"""Bytes of a block of memory that is worth returning to the system at once."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers of glibc's settings


def choose_device(name: str) -> str:
    """Return the device of a name. `auto` is a GPU if there is one.

    Raises
    ------
    ConfigError
        When this machine does not have the device.
    """
    device = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch compiled without CUDA asserts
        raise ConfigError(
            "This machine does not have this device.",
            got=device,
            choices=["auto", "cpu", *(["cuda"] if torch.cuda.is_available() else [])],
        ) from error
    return device


def find_device(model: object) -> torch.device:
    """Return the device of a model, by its first parameter or buffer. A model without any is on the CPU."""
    tensors = chain(model.parameters(), model.buffers()) if isinstance(model, torch.nn.Module) else iter(())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def has_fast_bf16(accelerator: str = "auto") -> bool:
    """Whether this machine has native bfloat16. Emulated bfloat16 is several times slower than float32."""
    if accelerator in {"auto", "gpu", "cuda"} and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = ("avx512_bf16", "amx_bf16", "amx_bf16_supported")
    try:
        known = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return False
    return not known.isdisjoint(flags)


@contextmanager
def use_threads(count: int | None) -> Iterator[None]:
    """Compute with a number of threads within a block. Processes that are started in the block do the same.

    Parameters
    ----------
    count
        Number of threads of one process; the number of cores is the upper limit. None changes nothing: there is one
        thread per core, or `OMP_NUM_THREADS` sets the number.

    Raises
    ------
    ConfigError
        When the number is not 1, 2, ….
    """
    if count is None:
        yield
        return
    if type(count) is not int or count < 1:
        raise ConfigError(
            "threads is not a number of threads.", expected="a whole number above 0, or null", got=repr(count)
        )
    before, named = torch.get_num_threads(), os.environ.get(OPENMP)
    used = min(count, os.cpu_count() or 1)
    torch.set_num_threads(used)
    os.environ[OPENMP] = str(used)  # for new processes, and for libraries that are loaded later
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if named is None:
            del os.environ[OPENMP]
        else:
            os.environ[OPENMP] = named


@contextmanager
def use_precision(precision: str, device: torch.device) -> Iterator[None]:
    """Compute in single precision, or in mixed precision with bfloat16, within a block.

    Parameters
    ----------
    precision
        `32-true`, `bf16-mixed` or `auto`. `auto` means `bf16-mixed` if the device has native bfloat16, else `32-true`.
    device
        Device of the computation.

    Raises
    ------
    ConfigError
        When the precision has another name.
    """
    check_precision(precision)
    mixed = precision == MIXED or (precision == AUTO and has_fast_bf16(device.type))
    with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
        yield


def check_precision(precision: str) -> None:
    """Check the name of a precision.

    Raises
    ------
    ConfigError
        When it is not one of the known names, which the error lists.
    """
    if precision not in (SINGLE, MIXED, AUTO):
        raise ConfigError("There is no such precision.", got=precision, choices=(SINGLE, MIXED, AUTO))


def return_freed_memory() -> None:
    """Return freed memory to the system: all of it now, and blocks of `LARGE_BLOCK` bytes or more from now on.

    Without it, glibc keeps freed blocks of up to 32 MiB for later ones, and cannot use them where they lie between
    blocks that are still in use: an area of 2 × 2 km took 150 MB more than it held. Other C libraries stay as they are.
    """
    with suppress(OSError, AttributeError, TypeError):  # a C library without these functions, or a system without one
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, LARGE_BLOCK)
        library.mallopt(_TRIM_THRESHOLD, 16 * LARGE_BLOCK)
        library.malloc_trim(0)
