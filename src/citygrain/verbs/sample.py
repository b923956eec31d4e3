"""`citygrain sample`: from a checkpoint and a request to layouts, their pictures, GeoTIFFs and measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rich

from citygrain.checkpoint import load
from citygrain.errors import ConfigError
from citygrain.generation.area import draw_areas
from citygrain.generation.fields import varies
from citygrain.generation.georeference import corner_of, grids_of
from citygrain.generation.given import given_windows
from citygrain.generation.windows import check_attempts, chosen_sampler, combinations, draw
from citygrain.geo.rasterize import Grid
from citygrain.layouts import COLUMNS, Samples, columns_of, table, write
from citygrain.plot import sheet
from citygrain.spec import Conditions
from citygrain.support.devices import check_precision, chosen_device

N = 16
"""Layouts that are drawn unless a number is given, where no condition has levels."""


def run(config: Mapping[str, Any]) -> Path:
    """Sample what the configuration asks for and write it.

    Parameters
    ----------
    config
        `conf/sample.yaml`, composed and plain.

    Returns
    -------
    Path
        The folder, with `sheet.png`, `layouts.npz`, `measured.csv` and `layouts/*.tif`.

    Raises
    ------
    CheckpointError
        When the checkpoint is missing or damaged.
    ConditionError
        For a condition that the checkpoint does not know.
    ConfigError, CapabilityError
        For a sampler that does not fit, or a place on Earth that cannot be.
    """
    check_attempts(config["attempts"])
    check_precision(config["precision"])
    combined = combinations(config["conditions"])
    n = config["n"] if config["n"] is not None else N if len(combined) == 1 else 1
    if not isinstance(n, int) or n < 1 or config["batch_size"] < 1:
        raise ConfigError("n and batch_size are at least 1.", got=f"n={n}, batch_size={config['batch_size']}")
    config = {**config, "n": n}
    generator = load(config["checkpoint"], device=chosen_device(config["device"]))
    sampler = chosen_sampler(generator, config["sampler"])
    spec, places = generator.spec, generator.provenance["data"]["places"]
    out = Path(config["out"])
    if config["extent_m"] is not None or varies(config["conditions"]):
        if len(combined) > 1:
            raise ConfigError(
                "Areas are drawn for one value of each condition at a time.",
                got={name: value for name, value in config["conditions"].items() if isinstance(value, list | tuple)},
                remedy="citygrain sample --multirun with a comma list",
            )
        if config["attempts"] > 1:
            raise ConfigError(
                "Areas are drawn once: the feedback of their sampler makes them what is asked for.",
                got=f"attempts={config['attempts']}",
                remedy="attempts=1, and a smaller sampler.tolerance",
            )
        corner = corner_of(places, config["georeference"], config["conditions"].get("place"))
        samples, grids = draw_areas(generator, sampler, corner, config)
        _finish(samples, grids, out)
        return out
    windows = given_windows(generator, {**config, "conditions": combined[0]}) if spec.given else None
    given = {name: windows.layouts[:, spec.channels.index(name)] for name in spec.given} if windows else None
    asked = Conditions.cat([Conditions.request(spec, n, one, given) for one in combined])
    columns = columns_of(config["conditions"], n)
    if windows is None:
        grids = grids_of(generator, len(asked), config["georeference"], combined[0].get("place"), columns)
    else:
        grids = windows.grids * len(combined)
    # The same seeds for every combination: what differs is what was asked for.
    seeds = [*range(config["seed"], config["seed"] + n)] * len(combined)
    samples = draw(
        generator, asked, seeds, sampler=sampler, attempts=config["attempts"], precision=config["precision"],
        batch_size=config["batch_size"], show_progress=True,
    )  # fmt: skip
    if windows is not None:
        sheet(
            windows.layouts.numpy(),
            spec.channels,
            out / "windows.png",
            columns=min(COLUMNS, n),
            resolution_m=spec.resolution_m,
        )
        rich.print(f"{', '.join(spec.given)} are those of {windows.name}; its windows: {out / 'windows.png'}")
    _finish(samples, grids, out, columns)
    return out


def _finish(samples: Samples, grids: Sequence[Grid], out: Path, columns: int = COLUMNS) -> None:
    write(samples, out, grids, columns)
    rich.print(table(samples))
    where = f"{grids[0].crs}, from {grids[0].left:.0f} E, {grids[0].top:.0f} N"
    rich.print(f"pictures, GeoTIFFs and measures: {out}  [dim](GeoTIFFs in {where})[/]")
