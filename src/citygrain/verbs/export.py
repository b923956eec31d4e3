"""`citygrain export`: a run, or the parts of a cascade, to a model that travels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich

from citygrain.checkpoint import CASCADE, export_checkpoint, join_parts
from citygrain.errors import ConfigError
from citygrain.model import Model
from citygrain.support.options import parse
from citygrain.support.targets import TARGET, Plain


@dataclass(frozen=True)
class Parts:
    """`conf/model/cascade.yaml`."""

    plan: str
    ground: str
    densities: str | None


@dataclass(frozen=True)
class Options:
    """`conf/export.yaml`."""

    checkpoint: str | None
    out: Path
    half: bool
    shard_mb: float | None
    evaluation: Path | None
    model: Plain | None = None


def run(config: Mapping[str, Any]) -> Path:
    """Write the averaged weights of a checkpoint, its configuration and its card into a folder, and return it."""
    options = parse(Options, config)
    folder = _export_run(options) if options.model is None else _export_parts(options, options.model)
    files = [path.stat().st_size / 1e6 for path in folder.glob("*.safetensors")]
    several = f" in {len(files)} files" if len(files) > 1 else ""
    rich.print(f"{folder}: {sum(files):.1f} MB of weights{several}, configuration, card")
    return folder


def _export_run(options: Options) -> Path:
    if options.checkpoint is None:
        raise ConfigError("What is exported?", expected="checkpoint=…, or model=cascade model.plan=… model.ground=…")
    return Model(options.checkpoint, device="cpu").export(
        options.out, half=options.half, shard_mb=options.shard_mb, evaluation=options.evaluation
    )


def _export_parts(options: Options, model: Plain) -> Path:
    if options.checkpoint is not None or options.evaluation is not None or model.get(TARGET) != CASCADE:
        raise ConfigError(
            "Only the parts of a cascade are joined, and what is joined has not been evaluated yet.",
            expected="model=cascade model.plan=… model.ground=…, without checkpoint and evaluation",
            got=f"{model.get(TARGET)}, checkpoint={options.checkpoint}, evaluation={options.evaluation}",
        )
    parts = parse(Parts, model)
    joined = join_parts(parts.plan, parts.ground, parts.densities)
    return export_checkpoint(joined, options.out, half=options.half, shard_mb=options.shard_mb)
