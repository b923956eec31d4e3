"""From windows and layouts to their codes, and from codes to layouts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from citygrain import measures
from citygrain.checkpoint import load
from citygrain.data.codes import fingerprint
from citygrain.data.dataset import STATISTICS, CityWindows
from citygrain.data.trained_on import TrainedOn
from citygrain.data.transforms import to_batch
from citygrain.errors import DataError
from citygrain.evaluation.gather import Arrays, keep_arrays
from citygrain.latent.codes import Codes, Floats, Values, find_codec
from citygrain.latent.measuring import measure_window_forms
from citygrain.layouts import Layouts
from citygrain.measures import measurable
from citygrain.protocols import Codec, Trained
from citygrain.spec import LayoutSpec
from citygrain.support.console import show_progress_bar
from citygrain.support.devices import find_device
from citygrain.support.files import hash_file
from citygrain.version import __version__

TRAIN_WINDOWS = 2048
"""How many train windows are encoded by default: there are endlessly many."""

BATCH = 128
"""How many windows, layouts or codes go through a codec at once."""


def encode_windows(
    codec: Codec,
    windows: CityWindows,
    count: int | None = None,
    *,
    forms: bool = False,
    folder: str | Path | None = None,
    batch_size: int = BATCH,
    workers: int = 1,
) -> Codes:
    """Encode windows, and measure them.

    Parameters
    ----------
    codec
        A model with a code of such windows.
    windows
        Windows of prepared places.
    count
        How many windows are encoded. By default all windows of a fixed grid, and `TRAIN_WINDOWS` of the train windows,
        which are endlessly many.
    forms
        Whether the urban form of the windows is measured, too (`citygrain.evaluation.morphology`). It takes about a
        tenth of a second for each window.
    folder
        Keeps codes and measured values. What the folder has for this codec and these windows is read from there.
    batch_size
        How many windows are encoded at once.
    workers
        How many processes measure urban form.

    Raises
    ------
    DataError
        When the codec encodes other windows than these, or there are fewer windows than `count`.
    """
    spec = LayoutSpec(
        channels=windows.channels,
        size_px=windows.rules.size_px,
        resolution_m=windows.rules.resolution_m,
        scalars=measurable(windows.channels),
        places=tuple(raster.name for raster in windows.rasters),
    )
    _check_windows(codec, spec)
    n = _count_windows(windows, count)

    def read_layouts(index: Sequence[int]) -> Floats:
        return to_batch(windows.__getitems__(index), spec).layout.numpy()

    def encode_all() -> Arrays:
        codes, scalars, places = [], [], []
        with show_progress_bar("encoding windows", n) as advance, torch.no_grad():
            for start in range(0, n, batch_size):
                batch = to_batch(windows.__getitems__(range(start, min(start + batch_size, n))), spec)
                codes.append(codec.encode(batch.layout.to(find_device(codec))).float().cpu().numpy())
                scalars.append(batch.conditions.scalars.double().numpy())
                places.append(batch.conditions.place.numpy())
                advance(len(batch.layout))
        return {"codes": np.concatenate(codes), "measured": np.concatenate(scalars), "place": np.concatenate(places)}

    kept = None if folder is None else Path(folder)
    of_windows = fingerprint(_describe_windows(windows, n))[:24]
    if kept is None:
        arrays = encode_all()
    else:
        arrays = keep_arrays(kept / f"codes-{fingerprint([of_windows, hash_codec(codec)])[:24]}.npz", encode_all)
    measured: Values = dict(zip(spec.scalars, arrays["measured"].T, strict=True))
    if forms:
        forms_folder = None if kept is None else kept / f"forms-{of_windows}"
        measured |= measure_window_forms(read_layouts, n, spec, forms_folder, workers)
    return Codes(arrays["codes"], arrays["place"], measured, spec, read_layouts, np.arange(n))


def encode_places(
    model: Trained | str | Path,
    data: str | Path = "data/cities",
    split: str = "train",
    *,
    count: int | None = None,
    places: Sequence[str] | None = None,
    forms: bool = False,
    folder: str | Path | None = None,
    batch_size: int = BATCH,
    workers: int = 1,
) -> Codes:
    """Encode windows of prepared places with a trained model. The windows follow the rules of its training.

    Train windows are taken as they lie in the city, without the augmentation of training. All places have about as many
    train windows, even if the model was trained on more windows of the larger places.

    Parameters
    ----------
    model
        From `citygrain.load`, or the path of a checkpoint.
    data
        Folder of prepared places.
    split
        `train`, `val`, `test`, or `all` for places that the model never saw.
    count
        How many windows are encoded, of all places together; see `encode_windows`.
    places
        Names of places; None for the places of the model.
    forms, batch_size, workers
        See `encode_windows`.
    folder
        Keeps codes and measured values. None takes a folder beside the places, which may be deleted at any time.

    Raises
    ------
    CapabilityError
        For a model without a code.
    CheckpointError, DataError
        When the checkpoint or a place is missing, or the checkpoint does not say how windows were taken.
    """
    generator = load(model) if isinstance(model, str | Path) else model
    codec = find_codec(generator)
    trained_on = replace(TrainedOn.of(generator), balance="places")  # places are compared here: they count alike
    windows = trained_on.windows(split, data, places or None, limit=count)
    fixed = count if split == "train" else None
    home = Path(data) / STATISTICS if folder is None else folder
    return encode_windows(codec, windows, fixed, forms=forms, folder=home, batch_size=batch_size, workers=workers)


def encode_layouts(model: object, layouts: Mapping[str, Layouts]) -> Codes:
    """Encode layouts, and keep what is measured on them beside their codes.

    Parameters
    ----------
    model
        A model that has a code, or that works in the code of a codec.
    layouts
        Name of a place → the layouts that stand for this place.

    Raises
    ------
    CapabilityError
        For a model without a code.
    DataError
        For layouts of other channels, another resolution or size.

    Examples
    --------
    >>> drawn = {place: model.sample(8, place=place) for place in ("paris", "tokyo")}  # doctest: +SKIP
    >>> codes = encode_layouts(model, drawn)  # doctest: +SKIP
    """
    codec = find_codec(model)
    codes = [encode_cells(codec, of) for of in layouts.values()]
    shares = np.concatenate([of.shares for of in layouts.values()])
    names = measurable(codec.spec.channels)
    return Codes(
        np.concatenate(codes),
        np.repeat(np.arange(len(layouts)), [len(of) for of in layouts.values()]),
        {name: np.concatenate([of.measured[name] for of in layouts.values()]) for name in names},
        replace(codec.spec, scalars=names, places=tuple(layouts), statistics={}),
        lambda index: shares[list(index)],
        np.arange(len(shares)),
    )


def encode_cells(codec: Codec, layouts: Layouts) -> Floats:
    """Return the codes `(N, *code_shape)` of layouts, of which the codec's channels are taken.

    Raises
    ------
    DataError
        For layouts that lack a channel, or have another resolution or size.
    """
    spec = codec.spec
    layouts = layouts.select(spec.channels, spec.raster_format)
    if layouts.resolution_m != spec.resolution_m or layouts.cells.shape[2:] != spec.shape[1:]:
        raise DataError(
            "The model has codes of other layouts.",
            expected=f"{spec.shape[1:]} cells of {spec.resolution_m:g} m: {', '.join(spec.channels)}",
            got=f"{layouts.cells.shape[2:]} cells of {layouts.resolution_m:g} m: {', '.join(layouts.channels)}",
        )
    if not len(layouts):
        return np.zeros((0, *codec.code_shape), np.float32)
    where = find_device(codec)
    with torch.no_grad():
        parts = [codec.encode(part.to(where)).float().cpu() for part in torch.split(layouts.tensor, BATCH)]
    codes: Floats = torch.cat(parts).numpy()
    return codes


def decode(codec: Codec, codes: ArrayLike, *, batch_size: int = BATCH) -> Floats:
    """Return the layouts `(N, C, H, W)` of codes `(N, *code_shape)`, in steps of 1/255 as in a city raster.

    Raises
    ------
    DataError
        For codes of another shape, or with values that are not finite.
    """
    numbers = np.asarray(codes, np.float32)
    if numbers.shape[1:] != tuple(codec.code_shape) or not np.isfinite(numbers).all():
        raise DataError(
            "These are no codes of this model.",
            expected=f"finite numbers in the shape (N, {', '.join(map(str, codec.code_shape))})",
            got=f"{numbers.shape}, {np.isfinite(numbers).mean():.0%} of them finite",
        )
    where = find_device(codec)
    with torch.no_grad():
        parts = [
            codec.decode(part.to(where)).float().cpu() for part in torch.split(torch.as_tensor(numbers), batch_size)
        ]
    layouts: Floats = ((torch.cat(parts) * 255).round() / 255).numpy()
    return layouts


def hash_codec(codec: Codec) -> str:
    """Return a hash of a codec's structure and weights, which together decide its codes."""
    digest = hashlib.sha256(repr(codec).encode())
    for name, value in codec.state_dict().items() if isinstance(codec, nn.Module) else ():
        digest.update(name.encode())
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()


def _check_windows(codec: Codec, spec: LayoutSpec) -> None:
    made_for = codec.spec
    ours, theirs = ((s.channels, s.size_px, s.resolution_m) for s in (spec, made_for))
    if ours != theirs:
        raise DataError(
            "These windows are not what the codec encodes.",
            expected=f"{made_for.size_px} px at {made_for.resolution_m:g} m of {', '.join(made_for.channels)}",
            got=f"{spec.size_px} px at {spec.resolution_m:g} m of {', '.join(spec.channels)}",
            remedy="encode_places takes the model's own rules",
        )


def _count_windows(windows: CityWindows, count: int | None) -> int:
    endless = windows.split == "train"
    if count is None:
        return TRAIN_WINDOWS if endless else len(windows)
    if count < 1 or (count > len(windows) and not endless):
        raise DataError(
            f"Not this many {windows.split} windows can be encoded.", expected=f"1 … {len(windows)}", got=count
        )
    return count


def _describe_windows(windows: CityWindows, count: int) -> list[Any]:
    """Return all that decides what the windows are, and how they are measured."""
    return [
        __version__,
        hash_file(Path(measures.__file__)),
        {raster.name: dict(raster.provenance) for raster in windows.rasters},
        windows.split,
        list(windows.channels),
        asdict(windows.rules),
        asdict(windows.augmentation),
        *([] if windows.frame == "none" else [windows.frame]),
        windows.seed,
        np.stack(windows.locate(range(count))).tolist(),
    ]
