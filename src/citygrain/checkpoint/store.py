"""Checkpoints: from a run folder, an exported model or a file to a generator, and from a run to an exported model.

Nothing in a checkpoint is executed: tensors are read with `weights_only`, and the configuration may only name what a
model consists of, see `citygrain.support.targets.MODEL_PARTS`.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from citygrain.checkpoint.card import Figures, card
from citygrain.errors import CheckpointError, CitygrainError, ConfigError, DataError
from citygrain.protocols import Generator, Trained, module_of, require
from citygrain.spec import LayoutSpec
from citygrain.support.files import atomic_path, write_text
from citygrain.support.targets import MODEL_PARTS, check_targets, instantiate
from citygrain.version import __version__

FORMAT = 1
LAST = Path("checkpoints") / "last.ckpt"
EXPORT = Path("model")
REFERENCE = "reference"
SHIPPED = Path(__file__).parents[1] / "weights"
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
INDEX = WEIGHTS + ".index.json"
"""Where weights are in several files: which tensor is in which, as Hugging Face writes it."""
_PREFIX = "generator."


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes
    ----------
    model
        Configuration of the generator, plain.
    spec
        What its layouts are.
    weights
        Averaged weights, where training averaged them.
    provenance
        Places, versions, revision, and how far training had come.
    path
        Where it was read from.
    """

    model: dict[str, Any]
    spec: LayoutSpec
    weights: dict[str, Tensor]
    provenance: dict[str, Any] = field(default_factory=dict)
    path: Path = Path()


def build(model: Mapping[str, Any], spec: LayoutSpec) -> Generator:
    """Make a generator with fresh weights from its plain configuration.

    Returns
    -------
    Generator
        A `torch.nn.Module`.

    Raises
    ------
    ConfigError
        When the configuration names something that is no part of a model, or does not fit the signatures.
    CheckpointError
        When it describes something that is no generator.
    """
    check_targets(model, MODEL_PARTS)
    generator = instantiate(model, spec=spec)
    if not isinstance(generator, Generator) or not isinstance(generator, nn.Module):
        raise CheckpointError("This configuration describes no generator.", got=model.get("_target_"))
    return generator


def load(path: str | Path, *, device: torch.device | str = "cpu") -> Trained:
    """Load a trained generator, ready to sample.

    Parameters
    ----------
    path
        A run folder, an exported model's folder, a `.ckpt` file, or `reference/<name>` for one that comes with
        citygrain.
    device
        Where to put it.

    Returns
    -------
    Generator
        A `torch.nn.Module` in evaluation mode, on averaged weights, with `spec` and `provenance`.

    Raises
    ------
    CheckpointError
        When there is no checkpoint, it is damaged, or its configuration may not be executed.
    """
    checkpoint = read(path)
    try:
        generator = build(checkpoint.model, checkpoint.spec)
        module = module_of(generator)
        module.load_state_dict(checkpoint.weights)
    except (CitygrainError, RuntimeError, TypeError) as error:
        raise CheckpointError(
            f"The checkpoint {checkpoint.path} cannot be turned into a model.\n{error}",
            remedy="use the version of citygrain that made it"
            + (f" ({checkpoint.provenance['citygrain']})" if "citygrain" in checkpoint.provenance else ""),
        ) from error
    module.provenance = checkpoint.provenance  # type: ignore[assignment]  # a plain dict beside its tensors
    module.to(device).eval()
    return require(module, Trained, "Sampling", ())


def read(path: str | Path) -> Checkpoint:
    """Read a checkpoint without building anything.

    Raises
    ------
    CheckpointError
        When there is none, or it is damaged or not citygrain's.
    """
    found = _locate(Path(path).expanduser())
    try:
        if found.suffix == ".safetensors" or found.name == INDEX:
            written = json.loads((found.parent / CONFIG).read_text(encoding="utf-8"))
            model, spec, provenance = written["model"], written["spec"], written["provenance"]
            weights = {name: value for file in files_of(found) for name, value in load_file(file).items()}
        else:
            content = torch.load(found, map_location="cpu", weights_only=True)
            hyperparameters = content["hyper_parameters"]
            model, spec = hyperparameters["model"], hyperparameters["spec"]
            provenance = {**hyperparameters["provenance"], "step": content["global_step"], "epoch": content["epoch"]}
            if watch := content.get("callbacks", {}).get("Stopwatch"):
                provenance["train_s"] = round(watch["seconds"], 1)
            weights = {
                name.removeprefix(_PREFIX): value
                for name, value in content["state_dict"].items()
                if name.startswith(_PREFIX)
            }
        return Checkpoint(model, LayoutSpec.from_dict(spec), weights, provenance, found)
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, EOFError, SafetensorError, DataError) as error:
        raise CheckpointError(
            f"The checkpoint {found} is damaged, or not one of citygrain's ({type(error).__name__}: {_first(error)}).",
            remedy="copy it again, or take another checkpoint of the run",
        ) from error
    except Exception as error:  # what weights_only refuses arrives as pickle.UnpicklingError
        raise CheckpointError(
            f"The checkpoint {found} was refused: {_first(error)}",
            expected="tensors and plain values only",
            remedy="do not load it by other means unless you trust where it comes from",
        ) from error


def _locate(path: Path) -> Path:
    if path.is_file():
        return path
    for folder in (path, path / EXPORT):
        for candidate in (folder / WEIGHTS, folder / INDEX):
            if candidate.is_file():
                return candidate
    if (path / LAST).is_file():
        return path / LAST
    if path.parts[:1] == (REFERENCE,):
        if path.as_posix() in references():
            return _locate(SHIPPED / Path(*path.parts[1:]))
        raise CheckpointError("No such model comes with citygrain.", got=path, choices=references())
    beside = path if path.is_dir() else path.parent
    raise CheckpointError(
        "There is no checkpoint here.",
        expected=f"a run folder with {LAST.as_posix()}, an exported model with {WEIGHTS}, or a .ckpt file",
        got=path,
        choices=sorted({c.parent.parent.as_posix() for c in beside.glob(f"*/{LAST.as_posix()}")}) or None,
        remedy=f"train one: citygrain train experiment=demo; or take one that is there: {', '.join(references())}",
    )


def references() -> list[str]:
    """Return the names of the models that come with citygrain, as `load` takes them."""
    return sorted({f"{REFERENCE}/{weights.parent.name}" for weights in SHIPPED.glob(f"*/{WEIGHTS}*")})


def files_of(found: Path) -> list[Path]:
    """Files that the weights of a checkpoint are in, of its one file or of the index of several."""
    if found.name != INDEX:
        return [found]
    parts = json.loads(found.read_text(encoding="utf-8"))["weight_map"].values()
    return [found.with_name(part) for part in sorted(set(parts))]


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]


def export(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    half: bool = False,
    shard_mb: float | None = None,
    report: Mapping[str, Any] | Figures | None = None,
) -> Path:
    """Write a checkpoint as safetensors, configuration and model card; each file appears whole or not at all.

    Parameters
    ----------
    checkpoint
        What `read` returns.
    folder
        Where to.
    half
        Whether numbers are kept in half precision, in half the space. `load` computes in single precision all the same.
    shard_mb
        Megabytes (of 10⁶ bytes) from which weights are written in several files of at most that, with an index beside
        them; a tensor that is larger has a file for itself. None writes one file.
    report
        What `citygrain evaluate` found, for the card.

    Returns
    -------
    Path
        The folder, which `load` accepts.

    Raises
    ------
    ConfigError
        For files of no size.
    """
    if shard_mb is not None and not (isinstance(shard_mb, int | float) and shard_mb > 0):
        raise ConfigError("Weights are split into files of some size.", expected="shard_mb > 0, or null", got=shard_mb)
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
    kept = {name: (_halved(value) if half else value).contiguous() for name, value in checkpoint.weights.items()}
    shards = _shards(kept, shard_mb)
    for name, weights in shards.items():
        with atomic_path(folder / name) as temporary:
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


def _shards(weights: Mapping[str, Tensor], shard_mb: float | None) -> dict[str, dict[str, Tensor]]:
    """File → its tensors, filled one after the other."""
    header = 150  # bytes that a tensor takes beside its numbers and its name
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


def _halved(value: Tensor) -> Tensor:
    """Return numbers in half precision, where it holds them all."""
    half = value.half() if value.is_floating_point() else value
    return half if torch.allclose(half.to(value.dtype), value, rtol=1e-3, atol=1e-6) else value


@cache
def environment() -> dict[str, str]:
    """Versions of what makes results, the hardware, and the revision of the working tree where there is one."""
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
