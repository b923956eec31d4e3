"""`citygrain app`: a page in the browser on which a model is asked, looked at and steered."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import rich

from citygrain.app.drawing import Studio
from citygrain.checkpoint import load, references
from citygrain.errors import CapabilityError, ConfigError
from citygrain.support.devices import chosen_device

PORT, TRIED = 7860, 100
"""Where a free port is looked for, and how far."""


def run(config: Mapping[str, Any]) -> None:
    """Serve the page until it is interrupted.

    Parameters
    ----------
    config
        `conf/app.yaml`, composed and plain.

    Raises
    ------
    CapabilityError
        Where gradio is not installed.
    CheckpointError
        When a checkpoint is missing or damaged.
    ConfigError
        For no checkpoint, or a host or port that cannot be had.
    """
    with TemporaryDirectory(prefix="citygrain_app_") as home, _ended_in_order():
        page = _page(Path(home))
        studios = studios_of(config)
        port = free_port(config["host"], config["port"])
        if config["port"] not in {None, port}:
            rich.print(f"Port {config['port']} is taken; this is the next free one.")
        built = page.build(studios, Path(home), config["seed"])
        page.serve(built, config["host"], port, open_browser=config["open_browser"])
        rich.print(f"The page: [bold]http://{_shown(config['host'])}:{port}[/]   [dim](Ctrl+C ends it)[/]")
        built.block_thread()


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let a service manager's SIGTERM end the program as an exit does, so that its files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _shown(host: str) -> str:
    return "127.0.0.1" if host == "0.0.0.0" else f"[{host}]" if ":" in host else host  # noqa: S104 - compared, not bound


def _page(home: Path) -> Any:
    """Import what needs gradio, once it has been told to call nobody and to keep its files in `home`."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(home / "cache")
    try:
        importlib.import_module("gradio")
    except ImportError as error:
        raise CapabilityError(
            "The page needs gradio, which is not installed.", got=error, remedy='pip install "citygrain[explore]"'
        ) from error
    return importlib.import_module("citygrain.app.page")


def studios_of(config: Mapping[str, Any]) -> list[Studio]:
    """Load the checkpoints that a configuration names, or all that come with citygrain; they take turns at the machine.

    Raises
    ------
    CheckpointError
        When one is missing or damaged.
    ConfigError
        When there is none.
    """
    named = references() if config["checkpoint"] is None else config["checkpoint"]
    checkpoints = list(dict.fromkeys([named] if isinstance(named, str) else named))
    if not checkpoints:
        raise ConfigError("The page needs a model.", remedy="name a checkpoint, such as checkpoint=reference/cities_64")
    device, turn = chosen_device(config["device"]), threading.Lock()
    data = Path(config["paths"]["data"])
    return [Studio(str(path), load(path, device=device), data, turn) for path in checkpoints]


def free_port(host: str, wanted: int | None) -> int:
    """Return a port that nobody listens at: the one wanted, else the next free one.

    Raises
    ------
    ConfigError
        For a host that is not this machine, or where no port is free.
    """
    first = PORT if wanted is None else wanted
    for port in range(first, min(first + TRIED, 2**16)):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.socket(family) as tried:
                if os.name == "posix":  # as the server does: a port that was just left is free
                    tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind((host, port))
        except PermissionError:
            continue
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            raise ConfigError(
                "The page cannot be served at this host.", expected="an address of this machine", got=host
            ) from error
        except OverflowError:
            break
        else:
            return port
    raise ConfigError("There is no free port.", expected=f"one from {first} on, below 65536", got=wanted)
