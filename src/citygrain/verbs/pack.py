"""`citygrain pack`: prepared places in a folder small enough to travel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import rich
from rich.table import Table

from citygrain.data.cityraster import CityRaster
from citygrain.data.pack import MB, count_bytes, pack
from citygrain.geo.sources import ATTRIBUTION
from citygrain.support.console import make_table
from citygrain.support.options import Paths, parse
from citygrain.support.targets import Plain


@dataclass(frozen=True)
class Options:
    """What `citygrain pack` is told."""

    places: Sequence[str] | None
    resolution_m: float
    step: int
    limit_mb: float | None
    seed: int
    out: Path
    paths: Paths


def run(config: Plain) -> Path:
    """Pack prepared places, and print a closing table.

    Parameters
    ----------
    config
        `conf/pack.yaml`, composed and plain.

    Returns
    -------
    Path
        The folder of the packed places.

    Raises
    ------
    ConfigError, DataError
        See `citygrain.data.pack.pack`.
    """
    options = parse(Options, config)
    packed = pack(
        options.places,
        resolution_m=float(options.resolution_m),
        step=options.step,
        limit_mb=options.limit_mb,
        seed=options.seed,
        out=options.out,
        data=options.paths.data,
    )
    rich.print(_table(packed, options.out))
    return options.out


def _table(packed: Sequence[CityRaster], out: Path) -> Table:
    shown = make_table(f"{out}: {count_bytes(packed) / MB:.1f} MB", "place", "km² with data", "blocks", "MB")
    shown.caption = ATTRIBUTION
    for raster in packed:
        of = raster.provenance["packed"]
        size = count_bytes([raster]) / MB
        shown.add_row(
            raster.name, f"{raster.provenance['valid_km2']:,.0f}", f"{of['blocks']} of {of['of']}", f"{size:.1f}"
        )
    return shown
