"""From checkpoints to a page in the browser."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import rich

from citygrain.app.studio import Studio
from citygrain.checkpoint import list_references, load
from citygrain.errors import CapabilityError, ConfigError
from citygrain.support.devices import choose_device

PORT, TRIED = 7860, 100
"""The first port that is tried, and how many are tried after it."""


def serve(
    checkpoints: str | Path | Sequence[str | Path] | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = PORT,
    device: str = "auto",
    seed: int = 0,
    open_browser: bool = False,
    data: str | Path = "data/cities",
) -> None:
    """Serve the page until it is interrupted.

    Parameters
    ----------
    checkpoints
        A run folder, an exported model or a `.ckpt` file, or several; None for all that come with citygrain.
    host
        Who may see the page: `127.0.0.1` is this machine alone, `0.0.0.0` everybody who reaches it.
    port
        Where it is served; the next free port where this one is taken.
    device
        `auto` (a GPU where there is one), `cpu`, `cuda`.
    seed
        That the page begins with.
    open_browser
        Whether the page is opened at once.
    data
        Folder of prepared places.

    Raises
    ------
    CapabilityError
        Where gradio is not installed.
    CheckpointError
        When a checkpoint is missing or damaged.
    ConfigError
        For no checkpoint, or a host or port that cannot be had.
    """
    with TemporaryDirectory(prefix="citygrain_app_") as home, _ending_in_order():
        page = _import_page(Path(home))
        studios = load_studios(checkpoints, device=device, data=data)
        free = find_free_port(host, port)
        if port != free:
            rich.print(f"Port {port} is taken; this is the next free one.")
        built = page.build_page(studios, Path(home), seed)
        page.launch_page(built, host, free, open_browser=open_browser)
        rich.print(f"The page: [bold]http://{_address(host)}:{free}[/]   [dim](Ctrl+C ends it)[/]")
        built.block_thread()


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Let a service manager's SIGTERM end the program as an exit does, so that its files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _address(host: str) -> str:
    return "127.0.0.1" if host == "0.0.0.0" else f"[{host}]" if ":" in host else host  # noqa: S104 - compared, not bound


def _import_page(home: Path) -> Any:
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


def load_studios(
    checkpoints: str | Path | Sequence[str | Path] | None = None,
    *,
    device: str = "auto",
    data: str | Path = "data/cities",
) -> list[Studio]:
    """Load checkpoints, or all that come with citygrain. The models take turns at the machine.

    Raises
    ------
    CheckpointError
        When one is missing or damaged.
    ConfigError
        When there is none.
    """
    named = list_references() if checkpoints is None else checkpoints
    paths = [named] if isinstance(named, str | Path) else named
    if not paths:
        raise ConfigError("The page needs a model.", remedy="name a checkpoint, such as checkpoint=reference/cities_64")
    where, turn = choose_device(device), threading.Lock()
    return [Studio(path, load(path, device=where), Path(data), turn) for path in dict.fromkeys(map(str, paths))]


def find_free_port(host: str, wanted: int = PORT) -> int:
    """Return a port that nobody listens at: the one that is wanted, else the next free one.

    Raises
    ------
    ConfigError
        For a host that is not this machine, or where no port is free.
    """
    for port in range(wanted, min(wanted + TRIED, 2**16)):
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
    raise ConfigError("There is no free port.", expected=f"one from {wanted} on, below 65536", got=wanted)
