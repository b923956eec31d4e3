"""Codes of real windows, with everything that can be measured on those windows beside them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from citygrain import measures
from citygrain.checkpoint import load
from citygrain.data.codes import fingerprint
from citygrain.data.dataset import STATISTICS, CityWindows, find_place
from citygrain.data.rules import UNCHANGED, Rules
from citygrain.data.transforms import to_batch
from citygrain.errors import DataError
from citygrain.evaluation.form import FORM, FormMeasure
from citygrain.evaluation.gather import Arrays, Cells, Gathered, gather, keep_arrays, measure_window, start_processes
from citygrain.measures import MEASURES, Measure, measurable, measure
from citygrain.models.code_space import CODECS
from citygrain.models.pca import Pca
from citygrain.plot import r_squared
from citygrain.protocols import Codec, Trained, require
from citygrain.spec import LayoutSpec
from citygrain.support.console import show_progress_bar
from citygrain.support.devices import find_device
from citygrain.support.files import sha256
from citygrain.version import __version__

Floats = NDArray[np.float32]
Values = dict[str, NDArray[np.float64]]
"""Measure → one value a window, in its unit; NaN where there is nothing to measure."""

TRAIN_WINDOWS = 2048
"""Train windows that are encoded unless told otherwise: there is no end of them."""

BATCH = 128


@dataclass(frozen=True)
class Codes:
    """Codes of N windows, where these come from, and what was measured on them.

    Attributes
    ----------
    codes
        `(N, *code_shape)`.
    place
        `(N,)`, index into `spec.places`.
    measured
        Every condition, and every measure of urban form where that was asked for.
    spec
        Channels, size, resolution and places of the windows.
    read
        From numbers of windows to their layouts `(n, C, H, W)` in [0, 1].
    positions
        `(N,)`, the number of each window.
    """

    codes: Floats
    place: NDArray[np.int64]
    measured: Values
    spec: LayoutSpec
    read: Callable[[Sequence[int]], Floats] = field(repr=False)
    positions: NDArray[np.int64] = field(repr=False)

    def __len__(self) -> int:
        return len(self.codes)

    def __add__(self, other: Codes) -> Codes:
        """Put codes together, with the places of both and what was measured on both.

        Raises
        ------
        DataError
            For codes of another shape, or of windows that are not alike.
        """
        mine, theirs = (
            (of.codes.shape[1:], of.spec.channels, of.spec.size_px, of.spec.resolution_m) for of in (self, other)
        )
        if mine != theirs:
            raise DataError("These codes are not of the same kind.", expected=mine, got=theirs)
        places = tuple(dict.fromkeys((*self.spec.places, *other.spec.places)))
        parts, count = (self, other), len(self)

        def read(index: Sequence[int]) -> Floats:
            which = np.asarray(index, np.int64)
            layouts = np.empty((len(which), *self.spec.shape), np.float32)
            for part, mask, start in ((self, which < count, 0), (other, which >= count, count)):
                if mask.any():
                    layouts[mask] = part.layouts(which[mask] - start)
            return layouts

        return Codes(
            np.concatenate([part.codes for part in parts]),
            np.array([places.index(part.spec.places[i]) for part in parts for i in part.place], np.int64),
            {name: np.concatenate([part.measured[name] for part in parts]) for name in self.measured
             if name in other.measured},
            replace(self.spec, places=places),
            read,
            np.arange(count + len(other)),
        )  # fmt: skip

    @property
    def flat(self) -> Floats:
        """The codes as vectors `(N, D)`."""
        return self.codes.reshape(len(self), -1)

    def chosen(self, index: ArrayLike) -> Codes:
        """Return some of the windows, by their indices or by a mask `(N,)`."""
        which = np.asarray(index)
        return replace(
            self,
            codes=self.codes[which],
            place=self.place[which],
            measured={name: values[which] for name, values in self.measured.items()},
            positions=self.positions[which],
        )

    def of(self, place: str) -> Codes:
        """Return the windows of one place.

        Raises
        ------
        DataError
            When there is none.
        """
        here = np.array([self.spec.places[i] == place for i in self.place], bool)
        if not here.any():
            raise DataError("There are no codes of this place.", got=place, choices=self.spec.places)
        return self.chosen(here)

    def layouts(self, index: ArrayLike | None = None) -> Floats:
        """Return the layouts `(n, C, H, W)` in [0, 1] of some of the windows, or of all."""
        return self.read(self.positions[slice(None) if index is None else np.asarray(index)].tolist())


def codec_of(model: object) -> Codec:
    """Return the model itself where it has a code, or the frozen codec in whose code it works.

    Raises
    ------
    CapabilityError
        When there is neither.
    """
    inner = getattr(model, "codec", None)
    codec = model if isinstance(model, Codec) or inner is None else inner
    choices = (*CODECS, "any family in the code of one of these", "diffusion, by citygrain.latent.Inversion")
    return require(codec, Codec, "A look into the code", choices)


def about(name: str) -> Measure | FormMeasure:
    """Return what is known of a measure: its label, unit, formula and source."""
    return FORM.get(name) or MEASURES[name]


def titled(name: str) -> str:
    """Return the label of a measure with its unit."""
    known = about(name)
    return known.label if known.unit == "–" else f"{known.label} [{known.unit}]"


def encode(
    codec: Codec,
    windows: CityWindows,
    count: int | None = None,
    *,
    forms: bool = False,
    folder: str | Path | None = None,
    batch_size: int = BATCH,
    workers: int = 1,
) -> Codes:
    """Encode windows and measure them.

    Parameters
    ----------
    codec
        A model with a code of such windows.
    windows
        Of prepared places.
    count
        How many; None takes all of a fixed grid, and `TRAIN_WINDOWS` of the endless train windows.
    forms
        Measure their urban form too (`citygrain.evaluation.morphology`): about a tenth of a second a window.
    folder
        Keeps codes and measures; what is there for this codec and these windows is not made again.
    batch_size
        Windows that are encoded at once.
    workers
        Processes that measure urban form.

    Raises
    ------
    DataError
        When the windows are not what the codec encodes, or fewer than asked for.
    """
    spec = LayoutSpec(
        channels=windows.channels,
        size_px=windows.rules.size_px,
        resolution_m=windows.rules.resolution_m,
        scalars=measurable(windows.channels),
        places=tuple(raster.name for raster in windows.rasters),
    )
    _check(codec, spec)
    n = _count(windows, count)

    def read(index: Sequence[int]) -> Floats:
        return to_batch(windows.__getitems__(index), spec).layout.numpy()

    def made() -> Arrays:
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
    of_windows = fingerprint(_provenance(windows, n))[:24]
    if kept is None:
        arrays = made()
    else:
        arrays = keep_arrays(kept / f"codes-{fingerprint([of_windows, identity(codec)])[:24]}.npz", made)
    measured: Values = dict(zip(spec.scalars, arrays["measured"].T, strict=True))
    if forms:
        measured |= _forms(read, n, spec, None if kept is None else kept / f"forms-{of_windows}", workers)
    return Codes(arrays["codes"], arrays["place"], measured, spec, read, np.arange(n))


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
    """Encode windows of prepared places by a trained model, by the rules that it was trained by.

    Train windows are taken as they lie in the city, without the augmentation of training.

    Parameters
    ----------
    model
        From `citygrain.load`, or the path of a checkpoint.
    data
        Folder of prepared places.
    split
        `train`, `val`, `test`, or `all` for places that the model never saw.
    count
        How many windows, of all places together; see `encode`.
    places
        Names of places; None for those of the model.
    forms, batch_size, workers
        As for `encode`.
    folder
        Keeps codes and measures; None for a folder beside the places that may be deleted at any time.

    Raises
    ------
    CapabilityError
        For a model without a code.
    CheckpointError, DataError
        When the checkpoint or a place is missing.
    """
    generator = load(model) if isinstance(model, str | Path) else model
    codec = codec_of(generator)
    spec, made_of = generator.spec, generator.provenance["data"]
    windows = CityWindows(
        [find_place(Path(data), place) for place in places or spec.places],
        split,
        Rules(**made_of["rules"]),
        augmentation=UNCHANGED,
        channels=spec.channels,
        limit=count,
        seed=made_of["seed"],
        raster_format=spec.raster_format,
    )
    fixed = count if split == "train" else None
    home = Path(data) / STATISTICS if folder is None else folder
    return encode(codec, windows, fixed, forms=forms, folder=home, batch_size=batch_size, workers=workers)


def identity(codec: Codec) -> str:
    """Hash of a codec's structure and weights: of what decides its codes."""
    digest = hashlib.sha256(repr(codec).encode())
    for name, value in codec.state_dict().items() if isinstance(codec, nn.Module) else ():
        digest.update(name.encode())
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()


def decode(codec: Codec, codes: ArrayLike, *, batch_size: int = BATCH) -> Floats:
    """Return layouts `(N, C, H, W)` of codes `(N, *code_shape)`, in steps of 1/255 as in a city raster."""
    where = find_device(codec)
    with torch.no_grad():
        parts = [
            codec.decode(part.to(where)).float().cpu()
            for part in torch.split(torch.as_tensor(np.asarray(codes, np.float32)), batch_size)
        ]
    layouts: Floats = ((torch.cat(parts) * 255).round() / 255).numpy()
    return layouts


def reconstruct(codec: Codec, layouts: ArrayLike, *, batch_size: int = BATCH) -> Floats:
    """Return what is left of layouts `(N, C, H, W)` in [0, 1] once they went through the code, in steps of 1/255."""
    where = find_device(codec)
    parts = torch.split(torch.as_tensor(np.asarray(layouts, np.float32)), batch_size)
    with torch.no_grad():
        return np.concatenate([decode(codec, codec.encode(part.to(where)).cpu()) for part in parts])


def forms_of(layouts: Floats, spec: LayoutSpec) -> Values:
    """Measure the urban form of layouts `(N, C, H, W)` in [0, 1], the conditions included."""
    forms = [
        measure_window(layout, channels=spec.channels, resolution_m=spec.resolution_m)
        for layout in (layouts * 255).round().astype(np.uint8)
    ]
    values = pd.DataFrame([form.values for form in forms])  # noqa: PD011 - a form's own
    return {str(name): values[name].to_numpy(float) for name in values}


def measures_kept(codec: Codec, codes: Codes) -> pd.Series:
    """Return R² of every condition measured on what is decoded against the window itself: what is in the code at all.

    The line is *decoded = real*, so that a bias costs; NaN where the windows do not vary.
    """
    spec = codes.spec
    again = measure(decode(codec, codes.codes), spec.channels, spec.resolution_m)
    return pd.Series({name: r_squared(values, codes.measured[name]) for name, values in again.items()})


def explained_variance(codec: Codec, train: Codes, held_out: Codes) -> pd.DataFrame:
    """Compare what a code keeps of held-out windows with principal components of as many numbers.

    The components are those of patches, one for each place in the code, which is the linear codec of the same shape
    (`citygrain.models.pca`). They are fitted to the train windows. Where a patch has fewer numbers than its code, or
    there are fewer patches than components, there are only so many of them.

    Parameters
    ----------
    codec
        What made the codes.
    train
        Windows that the components are fitted to.
    held_out
        Windows on which both are judged.

    Returns
    -------
    pandas.DataFrame
        Channels and `all` × `code`, `components`: 1 − Σ(x − x̂)² / Σ(x − mean x)², where the mean is the channel's over
        all held-out cells; NaN for a channel that does not vary. `.attrs` holds how many numbers each has, and how many
        windows were judged.
    """
    spec = train.spec
    channels, side, _ = codec.code_shape
    if spec.size_px % side:
        raise DataError(
            "Principal components cannot be laid out as this code is.",
            expected=f"a divisor of {spec.size_px}",
            got=f"{side} × {side}",
        )
    patch = spec.size_px // side
    components = min(channels, len(spec.channels) * patch**2, len(train) * side**2)
    linear = Pca(spec, patch=patch, code_channels=components).train()
    for part in np.array_split(np.arange(len(train)), math.ceil(len(train) / BATCH)):
        linear.fit(torch.from_numpy(train.layouts(part)))
    layouts = held_out.layouts()
    spread = _squares(layouts - layouts.mean((0, 2, 3), keepdims=True))
    columns = {}
    for name, by in (("code", codec), ("components", linear.eval())):
        lost = _squares(reconstruct(by, layouts) - layouts)
        columns[name] = 1 - np.divide(lost, spread, out=np.full(len(lost), np.nan), where=spread > 0)
    table = pd.DataFrame(columns, index=[*spec.channels, "all"])
    table.attrs = {"code": channels * side**2, "components": components * side**2, "windows": len(held_out)}
    return table


def _squares(differences: Floats) -> NDArray[np.float64]:
    """Sum of squares of each channel, and of all: `(C + 1,)`."""
    sums = [np.square(differences[:, i], dtype=np.float64).sum() for i in range(differences.shape[1])]
    return np.array([*sums, sum(sums)])


def _check(codec: Codec, spec: LayoutSpec) -> None:
    made_for = codec.spec
    ours, theirs = ((s.channels, s.size_px, s.resolution_m) for s in (spec, made_for))
    if ours != theirs:
        raise DataError(
            "These windows are not what the codec encodes.",
            expected=f"{made_for.size_px} px at {made_for.resolution_m:g} m of {', '.join(made_for.channels)}",
            got=f"{spec.size_px} px at {spec.resolution_m:g} m of {', '.join(spec.channels)}",
            remedy="encode_places takes the model's own rules",
        )


def _count(windows: CityWindows, count: int | None) -> int:
    endless = windows.split == "train"
    if count is None:
        return TRAIN_WINDOWS if endless else len(windows)
    if count < 1 or (count > len(windows) and not endless):
        raise DataError(f"There are not so many {windows.split} windows.", expected=f"1 … {len(windows)}", got=count)
    return count


def _provenance(windows: CityWindows, count: int) -> list[Any]:
    """Return all that decides what the windows are, and how they are measured."""
    return [
        __version__,
        sha256(Path(measures.__file__)),
        {raster.name: dict(raster.provenance) for raster in windows.rasters},
        windows.split,
        list(windows.channels),
        asdict(windows.rules),
        asdict(windows.augmentation),
        windows.seed,
        np.stack(windows.locate(range(count))).tolist(),
    ]


def _forms(
    read: Callable[[Sequence[int]], Floats], count: int, spec: LayoutSpec, folder: Path | None, workers: int
) -> Values:
    """Measure the urban form of windows; what is kept does not depend on the codec."""

    def layouts_of(positions: range) -> Cells:
        return (read(positions) * 255).round().astype(np.uint8)

    with start_processes(workers) as mapped:
        gathered = partial(
            gather, "real", count, layouts_of, channels=spec.channels, resolution_m=spec.resolution_m, mapped=mapped
        )
        if folder is not None:
            found: Gathered = gathered(folder=folder)
        else:
            with TemporaryDirectory() as nowhere:
                found = gathered(folder=Path(nowhere))
    return found.values  # noqa: PD011 - no data frame
