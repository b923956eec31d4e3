"""`citygrain export`: a run to a model that travels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich

from citygrain.model import Model
from citygrain.support.options import parse


@dataclass(frozen=True)
class Options:
    """`conf/export.yaml`."""

    checkpoint: str
    out: Path
    half: bool
    shard_mb: float | None
    evaluation: Path | None


def run(config: Mapping[str, Any]) -> Path:
    """Write the averaged weights of a checkpoint, its configuration and its card into a folder, and return it."""
    options = parse(Options, config)
    folder = Model(options.checkpoint, device="cpu").export(
        options.out, half=options.half, shard_mb=options.shard_mb, evaluation=options.evaluation
    )
    files = [path.stat().st_size / 1e6 for path in folder.glob("*.safetensors")]
    several = f" in {len(files)} files" if len(files) > 1 else ""
    rich.print(f"{folder}: {sum(files):.1f} MB of weights{several}, configuration, card")
    return folder
