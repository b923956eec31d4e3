"""Reading of checkpoints: from a run folder, an exported model or a `.ckpt` file to a generator.

Nothing in a checkpoint is executed. Tensors are read with `weights_only`, and the configuration may only name the parts
of models, see `citygrain.support.targets.MODEL_PARTS`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from citygrain.errors import CheckpointError, CitygrainError, DataError
from citygrain.protocols import Generator, Trained, as_module, require
from citygrain.spec import LayoutSpec
from citygrain.support.targets import MODEL_PARTS, check_targets, instantiate

FORMAT = 1
LAST = Path("checkpoints") / "last.ckpt"
EXPORT = Path("model")
REFERENCE = "reference"
SHIPPED = Path(__file__).parents[1] / "weights"
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
INDEX = WEIGHTS + ".index.json"
"""Lists which tensor is in which file, where weights are in several files. The format is that of Hugging Face."""
_PREFIX = "generator."


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint.

    Attributes
    ----------
    model
        Configuration of the generator, as a plain dict.
    spec
        Describes the layouts of the generator.
    weights
        Weights of the generator; the averaged ones if training averaged them.
    provenance
        Places, versions, revision, and how far training had come.
    path
        The file that it was read from.
    """

    model: dict[str, Any]
    spec: LayoutSpec
    weights: dict[str, Tensor]
    provenance: dict[str, Any] = field(default_factory=dict)
    path: Path = Path()


def build_generator(model: Mapping[str, Any], spec: LayoutSpec) -> Generator:
    """Make a generator with fresh weights from its plain configuration.

    Returns
    -------
    Generator
        A `torch.nn.Module`.

    Raises
    ------
    ConfigError
        When the configuration names something that is not a part of a model, or does not fit the signatures.
    CheckpointError
        When it describes something that is not a generator.
    """
    check_targets(model, MODEL_PARTS)
    generator = instantiate(model, spec=spec)
    if not isinstance(generator, Generator) or not isinstance(generator, nn.Module):
        raise CheckpointError("This configuration does not describe a generator.", got=model.get("_target_"))
    return generator


def load(path: str | Path, *, device: torch.device | str = "cpu") -> Trained:
    """Load a trained generator, ready to sample.

    Parameters
    ----------
    path
        A run folder, the folder of an exported model, a `.ckpt` file, or `reference/<name>` for a model that comes with
        citygrain.
    device
        Device that the generator is put on.

    Returns
    -------
    Generator
        A `torch.nn.Module` in evaluation mode, with the averaged weights, `spec` and `provenance`.

    Raises
    ------
    CheckpointError
        When there is no checkpoint, it is damaged, or its configuration names something that is not allowed.
    """
    checkpoint = read_checkpoint(path)
    try:
        generator = build_generator(checkpoint.model, checkpoint.spec)
        module = as_module(generator)
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


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint without building anything.

    Raises
    ------
    CheckpointError
        When there is no checkpoint, it is damaged, or it is not one of citygrain's.
    """
    found = _locate(Path(path).expanduser())
    try:
        if found.suffix == ".safetensors" or found.name == INDEX:
            written = json.loads((found.parent / CONFIG).read_text(encoding="utf-8"))
            model, spec, provenance = written["model"], written["spec"], written["provenance"]
            weights = {name: value for file in list_weight_files(found) for name, value in load_file(file).items()}
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
            f"The checkpoint {found} is damaged, or not one of citygrain's "
            f"({type(error).__name__}: {_first_line(error)}).",
            remedy="copy it again, or take another checkpoint of the run",
        ) from error
    except Exception as error:  # such as pickle.UnpicklingError, with which `weights_only` refuses
        raise CheckpointError(
            f"The checkpoint {found} was refused: {_first_line(error)}",
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
        if path.as_posix() in list_references():
            return _locate(SHIPPED / Path(*path.parts[1:]))
        raise CheckpointError("No such model comes with citygrain.", got=path, choices=list_references())
    beside = path if path.is_dir() else path.parent
    raise CheckpointError(
        "There is no checkpoint here.",
        expected=f"a run folder with {LAST.as_posix()}, an exported model with {WEIGHTS}, or a .ckpt file",
        got=path,
        choices=sorted({c.parent.parent.as_posix() for c in beside.glob(f"*/{LAST.as_posix()}")}) or None,
        remedy=f"train one: citygrain train experiment=demo; or take one that is there: {', '.join(list_references())}",
    )


def list_references() -> list[str]:
    """List the models that come with citygrain, by the names that `load` takes."""
    return sorted({f"{REFERENCE}/{weights.parent.name}" for weights in SHIPPED.glob(f"*/{WEIGHTS}*")})


def list_weight_files(found: Path) -> list[Path]:
    """List the files of a checkpoint's weights, given its single file or the index of its files."""
    if found.name != INDEX:
        return [found]
    parts = json.loads(found.read_text(encoding="utf-8"))["weight_map"].values()
    return [found.with_name(part) for part in sorted(set(parts))]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
