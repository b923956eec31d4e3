"""Export of checkpoints: weights, configuration and model card, without what only training needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from citygrain.checkpoint.card import Figures, card
from citygrain.checkpoint.store import CARD, CONFIG, FORMAT, INDEX, WEIGHTS, Checkpoint
from citygrain.errors import ConfigError
from citygrain.support.files import write_atomically, write_text


def export_checkpoint(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    half: bool = False,
    shard_mb: float | None = None,
    report: Mapping[str, Any] | Figures | None = None,
) -> Path:
    """Write a checkpoint as safetensors, configuration and model card. Each file appears whole or not at all.

    Parameters
    ----------
    checkpoint
        The checkpoint, as `read_checkpoint` returns it.
    folder
        Folder of the exported model.
    half
        Whether to store numbers in half precision, which takes half the space. `load` still computes in single
        precision.
    shard_mb
        Largest size of a file of weights, in megabytes (of 10⁶ bytes). Larger weights are split into several files with
        an index beside them; a single tensor that is larger gets its own file. None writes one file.
    report
        The report of `citygrain evaluate`, for the card.

    Returns
    -------
    Path
        The folder, which `load` takes.

    Raises
    ------
    ConfigError
        When `shard_mb` is not above 0.
    """
    if shard_mb is not None and not (isinstance(shard_mb, int | float) and shard_mb > 0):
        raise ConfigError("A file of weights cannot have this size.", expected="shard_mb > 0, or null", got=shard_mb)
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "format": FORMAT,
        "model": checkpoint.model,
        "spec": checkpoint.spec.to_dict(),
        "provenance": checkpoint.provenance,
    }
    write_text(folder / CONFIG, json.dumps(config, indent=1, ensure_ascii=False) + "\n")
    numbers = sum(value.numel() for value in checkpoint.weights.values())
    write_text(folder / CARD, card(checkpoint.model, checkpoint.spec, checkpoint.provenance, numbers, report))
    kept = {name: (_halve(value) if half else value).contiguous() for name, value in checkpoint.weights.items()}
    shards = _split_shards(kept, shard_mb)
    for name, weights in shards.items():
        with write_atomically(folder / name) as temporary:
            temporary.write_bytes(save(weights))  # `save_file` would leave the file unreadable to others
    if len(shards) > 1:
        where = {tensor: name for name, weights in shards.items() for tensor in weights}
        total = {"total_size": sum(value.nbytes for value in kept.values())}
        write_text(folder / INDEX, json.dumps({"metadata": total, "weight_map": where}, indent=1) + "\n")
    written = {*shards, INDEX} if len(shards) > 1 else {*shards}
    for stale in folder.glob(f"{Path(WEIGHTS).stem}*.safetensors*"):
        if stale.name not in written:
            stale.unlink()
    return folder


def _split_shards(weights: Mapping[str, Tensor], shard_mb: float | None) -> dict[str, dict[str, Tensor]]:
    """Split tensors into files, filled one after the other: file name → its tensors."""
    header = 150  # bytes that a tensor takes in addition to its numbers and its name
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, value in weights.items():
        needed = value.nbytes + len(name) + header
        if parts[-1] and shard_mb is not None and size + needed > shard_mb * 1e6:
            parts.append({})
            size = 0
        parts[-1][name] = value
        size += needed
    if len(parts) == 1:
        return {WEIGHTS: parts[0]}
    stem = Path(WEIGHTS).stem
    return {f"{stem}-{i:05d}-of-{len(parts):05d}.safetensors": part for i, part in enumerate(parts, 1)}


def _halve(value: Tensor) -> Tensor:
    """Return a tensor in half precision, if this does not change its numbers by more than rounding."""
    half = value.half() if value.is_floating_point() else value
    return half if torch.allclose(half.to(value.dtype), value, rtol=1e-3, atol=1e-6) else value
