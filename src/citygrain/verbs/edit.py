"""`citygrain edit`: a site redrawn inside its real surroundings, and what that changes, measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich
import torch
from rich.table import Table

from citygrain.checkpoint import load
from citygrain.data.dataset import find_place
from citygrain.errors import ConfigError
from citygrain.generation.area import draw_area
from citygrain.generation.fields import fields_of
from citygrain.generation.site import Rows, asked_of, kept_channels, measured, site_in, site_of, write_edit
from citygrain.generation.windows import chosen_sampler
from citygrain.geo.cityraster import CityRaster
from citygrain.measures import MEASURES
from citygrain.protocols import Denoiser, Known
from citygrain.spec import LayoutSpec
from citygrain.support.console import progress_bar
from citygrain.support.devices import chosen_device


def run(config: Mapping[str, Any]) -> Path:
    """Redraw what the configuration names, and write before and after.

    Parameters
    ----------
    config
        `conf/edit.yaml`, composed and plain.

    Returns
    -------
    Path
        The folder, with `sheet.png`, `layouts/before.tif`, `layouts/after_….tif`, `layouts.gpkg` and `measured.csv`.

    Raises
    ------
    CheckpointError
        When the checkpoint is missing or damaged.
    DataError
        When the place is not prepared, or the site lies outside it.
    ConfigError, ConditionError, CapabilityError
        For a site that is none, or what the model cannot do or does not know.
    """
    if config["n"] < 1 or config["batch_size"] < 1:
        raise ConfigError("n and batch_size are at least 1.", got=f"n={config['n']}, batch_size={config['batch_size']}")
    if not config["place"]["name"]:
        raise ConfigError("In which prepared place does the site lie?", remedy="name it: place=helsinki")
    generator = load(config["checkpoint"], device=chosen_device(config["device"]))
    sampler = chosen_sampler(generator, config["sampler"])
    spec: LayoutSpec = generator.spec
    raster = CityRaster.open(find_place(Path(config["paths"]["data"]), config["place"]["name"]))
    one_window = not isinstance(generator, Denoiser)
    site = site_in(raster, spec, site_of(config, raster.crs), config["context_m"], one_window=one_window)
    stays = kept_channels(spec, config["keep"])
    known = Known(
        torch.from_numpy(site.layout)[None].float() / 255, torch.from_numpy(~site.free | stays[:, None, None])[None]
    )
    fields = fields_of(spec, config["conditions"], site.grid)
    layouts = {"before": site.layout}
    with progress_bar("redrawing the site", config["n"]) as advance:
        for i in range(config["n"]):
            layouts[f"after_{i:02d}"] = draw_area(
                generator,
                site.free.shape,
                fields,
                known=known,
                place=config["conditions"].get("place"),
                seed=config["seed"] + i,
                sampler=sampler,
                strength=config["strength"],
                begin=config["begin"],
                overlap=config["overlap"],
                batch_size=config["batch_size"],
            ).numpy()
            advance(1)
    out = Path(config["out"])
    rows = measured(layouts, site, spec)
    asked = {name: float(torch.as_tensor(field)[...].float().mean()) for name, field in fields.items()}
    write_edit(layouts, rows, asked, site, spec, out)
    rich.print(_table(rows, asked, config["keep"]))
    rich.print(
        f"pictures, GeoTIFFs and GeoPackage: {out}  [dim](in {site.grid.crs}, "
        f"{site.free.sum() * spec.resolution_m**2 / 1e4:,.1f} ha redrawn)[/]"
    )
    return out


def _table(rows: Rows, asked: Mapping[str, float], kept: Sequence[str]) -> Table:
    after = [rows[name] for name in rows if name != "before"]
    stays = f", {', '.join(kept)} kept" if kept else ""
    shown = Table(
        title=f"before and after: {len(after)} way{'s' if len(after) > 1 else ''} of redrawing the site{stays}"
    )
    for heading in ("measure", "unit", "of", "before", "asked", "after", "from – to"):
        shown.add_column(heading, justify="left" if heading in {"measure", "unit", "of"} else "right")
    for part in ("site", "area"):
        for name, before in rows["before"][part].items():
            values = [row[part][name] for row in after]
            wanted = asked.get(name) if name in asked and part == asked_of(name) else None
            if name.startswith("stayed_"):
                continue  # the file has them
            if part == "area" and name in rows["before"]["site"] and wanted is None:
                continue  # the site says it
            shown.add_row(
                name.replace("_", " ") if name not in MEASURES else name,
                MEASURES[name].unit if name in MEASURES else "–",
                part,
                f"{before:.4g}",
                "" if wanted is None else f"{wanted:.4g}",
                f"{np.mean(values):.4g}",
                f"{min(values):.4g} – {max(values):.4g}",
                style=None if wanted is None else "bold",
            )
    return shown
