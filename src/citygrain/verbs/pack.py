"""`citygrain pack`: prepared places in a folder small enough to travel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich
from rich.table import Table

from citygrain.data.dataset import find_place
from citygrain.data.pack import MB, Place, estimated, pack, share_within
from citygrain.errors import ConfigError, DataError
from citygrain.geo import cityraster
from citygrain.geo.cityraster import COMPLETE, CityRaster
from citygrain.geo.sources import ATTRIBUTION
from citygrain.support.console import progress_bar

TRIES = 4
"""Times that a pack is written, at most, until it is within its limit."""


def run(config: Mapping[str, Any]) -> Path:
    """Write places into a folder of city rasters, coarser, with fewer steps of coverage and, if need be, fewer blocks.

    What comes out is a folder of prepared places as any other: `paths.data` names it.

    Parameters
    ----------
    config
        `conf/pack.yaml`, composed and plain.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ConfigError
        For a step or limit that is none, or the folder that the places are in.
    DataError
        When a place is not prepared, has no such resolution, or the limit leaves nothing.
    """
    step, limit, root, out = config["step"], config["limit_mb"], Path(config["paths"]["data"]), Path(config["out"])
    if COMPLETE % step if step > 0 else True:
        raise ConfigError("Steps of coverage divide 255.", expected="1, 3, 5, 15, 17, 51, 85", got=step)
    if limit is not None and not (isinstance(limit, int | float) and limit > 0):
        raise ConfigError("A limit is a number of megabytes.", expected="above 0, or null", got=limit)
    if out.resolve() == root.resolve():
        raise ConfigError("A pack is another folder than that of the places.", got=out, remedy="another out=…")
    names = config["places"] or sorted(path.parent.name for path in root.glob(f"*/{cityraster.MANIFEST}"))
    rasters = [CityRaster.open(find_place(root, name)) for name in names]
    if not rasters:
        raise DataError("There is nothing to pack.", got=f"no prepared place in {root}", remedy="citygrain prepare")
    resolution = float(config["resolution_m"])
    if limit is None:
        places = [Place(r, np.zeros(len(r.blocks), np.int64), np.zeros(len(r.blocks))) for r in rasters]
    else:
        with progress_bar("estimating sizes", len(rasters)) as advance:
            places = []
            for raster in rasters:
                places.append(estimated(raster, resolution, step, config["seed"]))
                advance(1)
    budget = float("inf") if limit is None else limit * MB
    for _ in range(TRIES):
        share = share_within(places, budget)
        with progress_bar("packing", len(places)) as advance:
            packed = []
            for place in places:
                packed.append(pack(place.raster, out / place.raster.name, resolution, step, place.rank <= share))
                advance(1)
        total = sum(raster.provenance["layout"]["bytes"] for raster in packed)
        if limit is None or total <= limit * MB:
            break
        budget *= 0.98 * limit * MB / total
    else:
        rich.print(
            f"[yellow]over the limit[/]: {total / MB:.1f} MB after {TRIES} tries; a lower limit_mb comes below it"
        )
    rich.print(_table(packed, out))
    return out


def _table(packed: Sequence[CityRaster], out: Path) -> Table:
    total = sum(raster.provenance["layout"]["bytes"] for raster in packed)
    shown = Table(title=f"{out}: {total / MB:.1f} MB", caption=ATTRIBUTION)
    for heading in ("place", "km² with data", "blocks", "MB"):
        shown.add_column(heading, justify="left" if heading == "place" else "right")
    for raster in packed:
        of = raster.provenance["packed"]
        size = raster.provenance["layout"]["bytes"] / MB
        shown.add_row(
            raster.name, f"{raster.provenance['valid_km2']:,.0f}", f"{of['blocks']} of {of['of']}", f"{size:.1f}"
        )
    return shown
