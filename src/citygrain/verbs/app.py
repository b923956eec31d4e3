"""`citygrain app`: a page in the browser on which a model is asked, looked at and steered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from citygrain.app import serve
from citygrain.support.options import Paths, parse


@dataclass(frozen=True)
class Options:
    """`conf/app.yaml`."""

    checkpoint: str | tuple[str, ...] | None
    host: str
    port: int
    device: str
    seed: int
    open_browser: bool
    paths: Paths


def run(config: Mapping[str, Any]) -> None:
    """Serve the page until it is interrupted."""
    asked = parse(Options, config)
    serve(
        asked.checkpoint,
        host=asked.host,
        port=asked.port,
        device=asked.device,
        seed=asked.seed,
        open_browser=asked.open_browser,
        data=asked.paths.data,
    )
