"""A run's folder belongs to one training: it is claimed at the first start, and compared at every other one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from citygrain.checkpoint import EXPORT, LAST, WEIGHTS, read_checkpoint
from citygrain.errors import TrainingError
from citygrain.support.files import write_text
from citygrain.training.options import Training

CONFIG = "config.json"
FREE = ("name", "paths", "threads", "trainer", "logger", "callbacks", "compile", "model.sampler")
"""Keys that may change from one start of a run to the next: they decide how it is trained, and not what."""

LATER = {"frame": "none"}
"""Keys of `data` that runs of before do not have, and the values that these stand for."""


def claim_folder(training: Training) -> None:
    """Write what decides the training into its folder; where a run has begun there, compare it.

    Raises
    ------
    TrainingError
        When the folder holds a run of another configuration; the differences are named.
    """
    folder, mine = training.folder, _fixed(vars(training))
    path = folder / CONFIG
    if not (path.is_file() and (folder / LAST).is_file()):
        write_text(path, json.dumps(mine, indent=1, ensure_ascii=False) + "\n")
        return
    theirs = _fixed(json.loads(path.read_text(encoding="utf-8")))
    changed = sorted(_differences(theirs, json.loads(json.dumps(mine))))
    if changed:
        raise TrainingError(
            f"The folder {folder} holds a run of another configuration.",
            got="; ".join(changed[:8]) + ("; …" if len(changed) > 8 else ""),
            remedy="choose another name=…, or remove the folder to start again",
        )


def is_finished(training: Training) -> bool:
    """Whether the run has come to its end, or has ended by itself on the way to the same end (early stopping)."""
    folder, until = training.folder, training.until
    if not (folder / LAST).is_file() or not (folder / EXPORT / WEIGHTS).is_file():
        return False
    made = read_checkpoint(folder / EXPORT).provenance
    return made.get("until") == until or 0 < (until["max_steps"] or 0) <= int(made["step"])


def _fixed(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the keys that are free, also those of a codec that is trained on the way."""

    def fixed_model(stage: Mapping[str, Any]) -> dict[str, Any]:
        model = {key: value for key, value in stage.get("model", {}).items() if f"model.{key}" not in FREE}
        return {**stage, "model": model}

    kept = fixed_model({key: value for key, value in keys.items() if key not in FREE})
    kept["data"] = {key: value for key, value in kept["data"].items() if LATER.get(key) != value}
    return {**kept, "codec": fixed_model(kept["codec"])} if isinstance(kept["codec"], Mapping) else kept


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))
    elif old != new:
        yield f"{path}: {old!r} there, {new!r} asked for"
