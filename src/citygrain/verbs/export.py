"""`citygrain export`: a run to a model that travels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rich

from citygrain.checkpoint import Checkpoint, export, read
from citygrain.errors import DataError


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
    ConfigError
        For files of no size.
    DataError
        When the evaluation is missing, damaged, or one of another model.
    """
    found = read(config["checkpoint"])
    report = _report(config["evaluation"], found)
    folder = export(found, Path(config["out"]), half=config["half"], shard_mb=config["shard_mb"], report=report)
    files = [path.stat().st_size / 1e6 for path in folder.glob("*.safetensors")]
    several = f" in {len(files)} files" if len(files) > 1 else ""
    rich.print(f"{folder}: {sum(files):.1f} MB of weights{several}, configuration, card")
    return folder


def _report(folder: str | None, checkpoint: Checkpoint) -> dict[str, Any] | None:
    """Read what an evaluation found."""
    if folder is None:
        return None
    path = Path(folder) / "report.json"
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        judged = read(report["checkpoint"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"There is no evaluation in {path.parent}.",
            expected="the folder that `citygrain evaluate` wrote",
            got=f"{type(error).__name__}: {error}",
            remedy=f"citygrain evaluate checkpoint=… out={path.parent}",
        ) from error
    if judged.weights.keys() != checkpoint.weights.keys() or judged.provenance != checkpoint.provenance:
        raise DataError(
            "This is an evaluation of another model.",
            expected=str(checkpoint.path),
            got=report["checkpoint"],
            remedy=f"citygrain evaluate checkpoint={checkpoint.path} out=…",
        )
    return report
