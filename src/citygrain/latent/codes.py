"""Codes of windows, with what was measured on the windows beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from citygrain.errors import DataError
from citygrain.models.code_space import CODECS
from citygrain.protocols import Codec, require
from citygrain.spec import LayoutSpec

Floats = NDArray[np.float32]
Values = dict[str, NDArray[np.float64]]
"""Measure → one value for each window, in the measure's unit; NaN where there is nothing to measure."""


@dataclass(frozen=True)
class Codes:
    """Codes of N windows, the places of the windows, and what was measured on them.

    Attributes
    ----------
    codes
        `(N, *code_shape)`.
    place
        `(N,)`, the place of each window, as an index into `spec.places`.
    measured
        Values of every condition. Values of the measures of urban form, too, if they were measured.
    spec
        Channels, size, resolution and places of the windows.
    read_layouts
        Takes indices of windows, and returns the layouts of these windows, `(n, C, H, W)` in [0, 1].
    indices
        `(N,)`, the index by which `read_layouts` knows each window.
    """

    codes: Floats
    place: NDArray[np.int64]
    measured: Values
    spec: LayoutSpec
    read_layouts: Callable[[Sequence[int]], Floats] = field(repr=False)
    indices: NDArray[np.int64] = field(repr=False)

    def __len__(self) -> int:
        return len(self.codes)

    def __add__(self, other: Codes) -> Codes:
        """Join two sets of codes. The result has the places of both, and the measures that both have.

        Raises
        ------
        DataError
            When the codes differ in shape, or the windows in channels, size or resolution.
        """
        mine, theirs = (
            (of.codes.shape[1:], of.spec.channels, of.spec.size_px, of.spec.resolution_m) for of in (self, other)
        )
        if mine != theirs:
            raise DataError("These codes are not of the same kind.", expected=mine, got=theirs)
        places = tuple(dict.fromkeys((*self.spec.places, *other.spec.places)))
        parts, count = (self, other), len(self)

        def read_layouts(index: Sequence[int]) -> Floats:
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
            read_layouts,
            np.arange(count + len(other)),
        )  # fmt: skip

    @property
    def flat(self) -> Floats:
        """The codes as vectors `(N, D)`."""
        return self.codes.reshape(len(self), -1)

    def select(self, index: ArrayLike) -> Codes:
        """Return the codes of some windows, which are given by their indices or by a mask `(N,)`."""
        which = np.asarray(index)
        return replace(
            self,
            codes=self.codes[which],
            place=self.place[which],
            measured={name: values[which] for name, values in self.measured.items()},
            indices=self.indices[which],
        )

    def select_place(self, place: str) -> Codes:
        """Return the codes of the windows of one place.

        Raises
        ------
        DataError
            When no window lies in this place.
        """
        here = np.array([self.spec.places[i] == place for i in self.place], bool)
        if not here.any():
            raise DataError("There are no codes of this place.", got=place, choices=self.spec.places)
        return self.select(here)

    def layouts(self, index: ArrayLike | None = None) -> Floats:
        """Return the layouts `(n, C, H, W)` in [0, 1] of some windows, or of all windows."""
        return self.read_layouts(self.indices[slice(None) if index is None else np.asarray(index)].tolist())


def find_codec(model: object) -> Codec:
    """Return the model itself if it has a code, or else the frozen codec in whose code it works.

    Raises
    ------
    CapabilityError
        When the model has no code and no codec.
    """
    inner = getattr(model, "codec", None)
    codec = model if isinstance(model, Codec) or inner is None else inner
    choices = (*CODECS, "any family in the code of one of these", "diffusion, by citygrain.latent.Inversion")
    return require(codec, Codec, "A look into the code", choices)
