"""What a codec keeps of layouts that go through its code and back."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray

from citygrain.errors import DataError
from citygrain.latent.codes import Codes, Floats
from citygrain.latent.encoding import BATCH, decode
from citygrain.measures import measure
from citygrain.models.pca import Pca
from citygrain.plot import r_squared
from citygrain.protocols import Codec
from citygrain.support.devices import find_device


def reconstruct(codec: Codec, layouts: ArrayLike, *, batch_size: int = BATCH) -> Floats:
    """Encode layouts `(N, C, H, W)` in [0, 1], decode the codes, and return the layouts in steps of 1/255."""
    where = find_device(codec)
    parts = torch.split(torch.as_tensor(np.asarray(layouts, np.float32)), batch_size)
    with torch.no_grad():
        return np.concatenate([decode(codec, codec.encode(part.to(where)).cpu()) for part in parts])


def score_decoded_measures(codec: Codec, codes: Codes) -> pd.Series:
    """Compare every condition on decoded layouts with the same condition on the windows.

    Returns
    -------
    pandas.Series
        Measure → R² around the line *decoded = real*, so that a bias lowers it; NaN where all windows are the same.
    """
    spec = codes.spec
    again = measure(decode(codec, codes.codes), spec.channels, spec.resolution_m)
    return pd.Series({name: r_squared(values, codes.measured[name]) for name, values in again.items()})


def compare_explained_variance(codec: Codec, train: Codes, held_out: Codes) -> pd.DataFrame:
    """Compare the variance that a code explains with the variance that as many principal components explain.

    The principal components are those of patches. A layout has one patch for each cell of the code, so that the linear
    codec (`citygrain.models.pca`) has a code of the same shape. It is fitted to the train windows. It has fewer
    components than the code has channels if a patch has fewer numbers, or if there are fewer patches.

    Parameters
    ----------
    codec
        The codec of the codes.
    train
        Windows that the principal components are fitted to.
    held_out
        Windows whose variance is to be explained.

    Returns
    -------
    pandas.DataFrame
        Rows: the channels, and `all`. Columns: `code` and `components`. Values: 1 − Σ(x − x̂)² / Σ(x − mean x)², where
        the mean is that of the channel over all held-out cells; NaN for a channel that does not vary. `.attrs` holds
        how many numbers a layout has in the `code` and in the `components`, and how many `windows` are held out.

    Raises
    ------
    DataError
        When layouts cannot be cut into as many patches as the code has cells.
    """
    spec = train.spec
    channels, side, _ = codec.code_shape
    if spec.size_px % side:
        raise DataError(
            "Layouts cannot be cut into a patch for each cell of this code.",
            expected=f"a code whose width divides {spec.size_px}",
            got=f"{side} × {side}",
        )
    patch = spec.size_px // side
    components = min(channels, len(spec.channels) * patch**2, len(train) * side**2)
    linear = Pca(spec, patch=patch, code_channels=components).train()
    for part in np.array_split(np.arange(len(train)), math.ceil(len(train) / BATCH)):
        linear.fit(torch.from_numpy(train.layouts(part)))
    layouts = held_out.layouts()
    spread = _sum_squares(layouts - layouts.mean((0, 2, 3), keepdims=True))
    columns = {}
    for name, by in (("code", codec), ("components", linear.eval())):
        lost = _sum_squares(reconstruct(by, layouts) - layouts)
        columns[name] = 1 - np.divide(lost, spread, out=np.full(len(lost), np.nan), where=spread > 0)
    table = pd.DataFrame(columns, index=[*spec.channels, "all"])
    table.attrs = {"code": channels * side**2, "components": components * side**2, "windows": len(held_out)}
    return table


def _sum_squares(differences: Floats) -> NDArray[np.float64]:
    """Return the sum of squares of each channel, and of all channels: `(C + 1,)`."""
    sums = [np.square(differences[:, i], dtype=np.float64).sum() for i in range(differences.shape[1])]
    return np.array([*sums, sum(sums)])
