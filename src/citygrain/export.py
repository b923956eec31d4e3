"""`citygrain export`: a run to a model that travels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rich

from citygrain.checkpoint import WEIGHTS, export, read


def run(config: Mapping[str, Any]) -> Path:
    """Write the averaged weights of a checkpoint, its configuration and its card into a folder that `load` takes.

    Parameters
    ----------
    config
        `conf/export.yaml`, composed and plain.

    Raises
    ------
    CheckpointError
        When the checkpoint is missing or damaged.
    """
    folder = export(read(config["checkpoint"]), Path(config["out"]), half=config["half"])
    rich.print(f"{folder}: {(folder / WEIGHTS).stat().st_size / 2**20:.1f} MiB of weights, configuration, card")
    return folder
