"""Real windows, for models that are given channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from citygrain.data.dataset import CityWindows, find_place
from citygrain.data.rules import Rules
from citygrain.errors import ConfigError
from citygrain.geo.cityraster import CityRaster
from citygrain.geo.rasterize import Grid
from citygrain.protocols import Trained


@dataclass(frozen=True)
class Windows:
    """Real windows that given channels are taken from.

    Attributes
    ----------
    layouts
        `(N, C, H, W)` in [0, 1].
    grids
        Where each lies.
    name
        Split and place.
    """

    layouts: Tensor
    grids: list[Grid]
    name: str


def given_windows(generator: Trained, config: Mapping[str, Any]) -> Windows:
    """Take `n` windows of a prepared place for a model that is given channels, evenly spread; in turn where fewer.

    Raises
    ------
    DataError
        When the place is not prepared, lacks a channel, or has no window in the split.
    ConfigError
        When the layouts are asked to lie somewhere else.
    """
    spec, wanted, n = generator.spec, config["given"], config["n"]
    if any(value is not None for value in config["georeference"].values()):
        raise ConfigError(
            "These layouts lie where their given channels are.",
            got={k: v for k, v in config["georeference"].items() if v is not None},
            remedy="leave out georeference.*, and choose where by given.place",
        )
    place = wanted["place"] or config["conditions"].get("place") or spec.places[0]
    raster = CityRaster.open(find_place(Path(config["paths"]["data"]), place))
    rules = Rules(**generator.provenance["data"]["rules"])
    windows = CityWindows(
        [raster], wanted["split"], rules, channels=spec.channels, limit=n, raster_format=spec.raster_format
    )
    index = [i % len(windows) for i in range(n)] if wanted["split"] != "train" else list(range(n))
    _, rows, columns, _ = windows.locate(index)
    size, cell, corner = spec.size_px, spec.resolution_m, raster.grid
    grids = [
        Grid(raster.crs, corner.left + column * cell, corner.top - row * cell, cell, size, size)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
    ]
    return Windows(windows.__getitems__(index).layout.float() / 255, grids, f"{wanted['split']} windows of {place}")
