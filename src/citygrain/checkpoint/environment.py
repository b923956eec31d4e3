"""The environment of a run: versions, hardware, and the revision of the code."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from citygrain.version import __version__


@cache
def describe_environment() -> dict[str, str]:
    """Return the versions of citygrain, Python and the main packages, the hardware, and the git revision if any."""
    packages = ("torch", "pytorch-lightning", "numpy")
    found = {"citygrain": __version__, "python": platform.python_version(), **{p: version(p) for p in packages}}
    found["hardware"] = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"{os.cpu_count()} CPU cores ({torch.backends.cpu.get_cpu_capability()})"
    )
    try:
        revision = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True, text=True, timeout=5, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return found
    return {**found, "revision": revision}
