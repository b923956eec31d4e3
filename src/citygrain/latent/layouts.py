"""Codes of layouts that are in the hand, such as drawn ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from citygrain.errors import DataError
from citygrain.latent.codes import BATCH, Codes, Floats, codec_of
from citygrain.layouts import Layouts
from citygrain.measures import measurable
from citygrain.protocols import Codec
from citygrain.support.devices import device_of


def encode_layouts(model: object, layouts: Mapping[str, Layouts]) -> Codes:
    """Encode layouts, with what is measured on them beside their codes.

    Parameters
    ----------
    model
        A model with a code, or that works in one.
    layouts
        Name of a place → the layouts that stand for it.

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
    codec = codec_of(model)
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
    """Return the codes `(N, *code_shape)` of layouts.

    Raises
    ------
    DataError
        For layouts of other channels, another resolution or size.
    """
    spec = codec.spec
    mine, theirs = ((of.channels, of.resolution_m) for of in (spec, layouts))
    if mine != theirs or layouts.cells.shape[2:] != spec.shape[1:]:
        raise DataError(
            "The model has codes of other layouts.",
            expected=f"{spec.shape[1:]} cells of {spec.resolution_m:g} m: {', '.join(spec.channels)}",
            got=f"{layouts.cells.shape[2:]} cells of {layouts.resolution_m:g} m: {', '.join(layouts.channels)}",
        )
    where = device_of(codec)
    with torch.no_grad():
        parts = [codec.encode(part.to(where)).float().cpu() for part in torch.split(layouts.tensor, BATCH)]
    codes: Floats = torch.cat(parts).numpy()
    return codes
