"""A site redrawn inside its real surroundings, and what that changes."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from PIL import Image
from shapely.geometry.base import BaseGeometry

from citygrain.data.cityraster import CityRaster
from citygrain.data.dataset import find_place
from citygrain.errors import ConfigError
from citygrain.generation.area import Fields, draw_area
from citygrain.generation.continuity import count_street_ends
from citygrain.generation.fields import read_fields
from citygrain.generation.requests import Level, choose_sampler
from citygrain.generation.site import Site, locate_site, mark_kept_channels, read_site
from citygrain.geo.vector_files import write_layers
from citygrain.layouts import Layouts
from citygrain.measures import MEASURES, measure
from citygrain.plot import make_sheet, save_figure
from citygrain.plot.notebook import show_image, write_html
from citygrain.protocols import Denoiser, Known, Sampler, Trained
from citygrain.samplers.areas import Begin
from citygrain.support.console import show_progress_bar
from citygrain.support.files import write_text

COLUMNS = 4
"""Layouts that stand in a row of the sheet at most."""

BEFORE = "before"

Rows = dict[str, dict[str, dict[str, float]]]
"""Layout → `site` or `area` → measure → value in its unit."""


@dataclass(frozen=True)
class Edit:
    """A site before, and after each way of redrawing it.

    Parameters
    ----------
    layouts
        `before`, `after_00`, `after_01`, …: the whole area.
    site
        What was redrawn.
    requested
        Condition → what was asked for, in its unit; the mean over the area where it varies.
    kept
        Channels that were kept on the site as well.
    """

    layouts: Layouts
    site: Site
    requested: Mapping[str, float] = field(default_factory=dict)
    kept: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Say what was redrawn, and not every number."""
        ways, asked = len(self.after), ", ".join(f"{name} {value:.4g}" for name, value in self.requested.items())
        return (
            f"Edit({ways} way{'s' if ways > 1 else ''} of redrawing {int(self.site.free.sum())} cells of "
            f"{self.layouts.resolution_m:g} m in {self.site.grid.crs}; asked: {asked or 'nothing'}; "
            f"kept: {', '.join(self.kept) or 'nothing'})"
        )

    @property
    def before(self) -> Layouts:
        """The real layout."""
        return self.layouts[0]

    @property
    def after(self) -> Layouts:
        """The redrawn ones."""
        return self.layouts[1:]

    @cached_property
    def measured(self) -> Rows:
        """What is measured on the site and on the whole area, before and after.

        Whatever the shares of the cells tell is measured on the site alone; measures that look at where things are need
        the whole area. Of the site there are two more: `streets_going_on`, the share of the streets reaching its edge
        that go on across it, and `stayed`, Σ min / Σ max of the coverage before and after over its cells (Ružička
        1958), of all channels together and of each.
        """
        channels, free = self.layouts.channels, self.site.free
        rows: Rows = {}
        before = self.layouts.cells[0][:, free].astype(np.float64)
        for name, layout, shares in zip(self.layouts.names, self.layouts.cells, self.layouts.shares, strict=True):
            whole = measure(shares, channels, self.layouts.resolution_m)
            # The cells of the site in one row: nothing but their shares is measured there.
            inside = measure(shares[:, None, free], channels, self.layouts.resolution_m)
            going_on, ends = count_street_ends(shares, free, channels)
            rows[name] = {
                "site": {
                    **{key: float(value) for key, value in inside.items() if MEASURES[key].of is None},
                    "streets_going_on": going_on / ends if ends else math.nan,
                    "stayed": _overlap(before, layout[:, free]),
                    **{f"stayed_{c}": _overlap(before[i], layout[i, free]) for i, c in enumerate(channels)},
                },
                "area": {key: float(value) for key, value in whole.items()},
            }
        return rows

    def table(self) -> pd.DataFrame:
        """Return what is measured, one row for each layout, part (`site` or `area`) and measure, as in `measured.csv`.

        `asked` is what was asked for; NaN where nothing was, and before.
        """
        rows = [
            {
                "layout": name,
                "of": part,
                "measure": key,
                "unit": MEASURES[key].unit if key in MEASURES else "–",
                "asked": self.requested.get(key, math.nan)
                if name != BEFORE and part == find_part_asked(key)
                else math.nan,
                "measured": value,
            }
            for name, parts in self.measured.items()
            for part, values in parts.items()
            for key, value in values.items()
        ]
        return pd.DataFrame(rows)

    def _requested_of(self, part: str, name: str) -> float:
        """Return what was asked of the site or of the area; NaN where nothing was."""
        return self.requested.get(name, math.nan) if part == find_part_asked(name) else math.nan

    def picture(self) -> Image.Image:
        """Return the sheet, with a line around the site: an image that a notebook shows."""
        titles = [name.replace("_", " ") for name in self.layouts.names]
        return make_sheet(
            self.layouts.cells, self.layouts.channels, titles=titles, columns=min(COLUMNS, len(self.layouts)),
            resolution_m=self.layouts.resolution_m, outline=self.site.free,
        )  # fmt: skip

    def show(self, *, ax: Axes | None = None) -> Axes:
        """Draw the sheet with matplotlib, see `Layouts.show`."""
        return show_image(self.picture(), ax)

    def _repr_html_(self) -> str:
        """Show the sheet, and before beside after, in a notebook."""
        return write_html(self.picture(), self.comparison())

    def comparison(self) -> pd.DataFrame:
        """Return what was there beside what was asked for and what came, one row a measure of the site or the area.

        The columns `after`, `least` and `most` are mean and range over all ways of redrawing the site.
        """
        rows = []
        after = [self.measured[name] for name in self.after.names]
        for part in ("site", "area"):
            for name, was in self.measured[BEFORE][part].items():
                wanted = self._requested_of(part, name)
                # `stayed` of each channel is in the table; what the site tells need not be told of the area.
                if name.startswith("stayed_") or (
                    part == "area" and name in self.measured[BEFORE]["site"] and math.isnan(wanted)
                ):
                    continue
                values = [row[part][name] for row in after]
                rows.append(
                    {
                        "measure": name if name in MEASURES else name.replace("_", " "),
                        "unit": MEASURES[name].unit if name in MEASURES else "–",
                        "of": part,
                        "before": was,
                        "asked": wanted,
                        "after": float(np.mean(values)),
                        "least": min(values),
                        "most": max(values),
                    }
                )
        return pd.DataFrame(rows).set_index("measure")

    def save(self, folder: str | Path) -> Path:
        """Write GeoTIFFs, `layouts.gpkg`, `measured.csv` and `sheet.png` of the site before and after.

        Parameters
        ----------
        folder
            It is made where it is missing. GeoTIFFs of a larger set that this one replaces are removed.
        """
        out = Path(folder)
        self.layouts.write_geotiffs(out)
        write_layers(self.layouts.vectors(), "gpkg", out)
        text = io.StringIO()
        writer = csv.writer(text)
        table = self.table()
        writer.writerow(table.columns)
        for layout, part, key, unit, asked, value in table.itertuples(index=False):
            writer.writerow([layout, part, key, unit, f"{asked:.6g}" if math.isfinite(asked) else "", f"{value:.6g}"])
        write_text(out / "measured.csv", text.getvalue())
        save_figure(self.picture(), out / "sheet.png")
        return out


def _overlap(before: NDArray[np.float64], after: NDArray[np.uint8]) -> float:
    most = float(np.maximum(before, after).sum())
    return float(np.minimum(before, after).sum()) / most if most else math.nan


def find_part_asked(name: str) -> str:
    """Return whether a condition is asked of the site or of the whole area."""
    return "site" if name in MEASURES and MEASURES[name].linear else "area"


def edit(
    generator: Trained,
    place: str | CityRaster,
    *,
    conditions: Mapping[str, Level],
    at: Sequence[float] | None = None,
    size_m: float = 200.0,
    site: str | Path | BaseGeometry | None = None,
    context_m: float = 128.0,
    keep: Sequence[str] = (),
    strength: float = 1.0,
    begin: Begin = "noise",
    n: int = 3,
    seed: int = 0,
    overlap: float = 0.5,
    sampler: Sampler | Mapping[str, Any] | None = None,
    batch_size: int = 16,
    data: str | Path = "data/cities",
) -> Edit:
    """Redraw a site inside its real surroundings, in several ways.

    Parameters
    ----------
    generator
        From `citygrain.load`.
    place
        The prepared place that the site lies in.
    conditions
        What is asked for, see `citygrain.generation.fields.read_fields`. Measures that are linear in the shares of the
        cells are asked of the site, all others of whole windows. `place` is a training place that it is to be like.
    at, size_m
        Longitude and latitude of the middle of a square site, and its edge in metres.
    site
        Or a file with the site's polygon, or a polygon in degrees.
    context_m
        How far around the site the model sees, at least.
    keep
        Channels that stay on the site as well.
    strength, begin
        1 redraws the site; less begins from what is there, see `citygrain.samplers.areas.Area`.
    n
        In how many ways it is redrawn.
    seed
        Way *i* is drawn with `seed + i`.
    overlap
        Share of a window that its neighbours share, where the site takes several.
    sampler
        Another than the generator's own, or knobs of it that are turned.
    batch_size
        Windows at once.
    data
        Folder of prepared places.

    Raises
    ------
    DataError
        When the place is not prepared, or the site lies outside it.
    ConfigError, ConditionError, CapabilityError
        For a site that is none, or what the model cannot do or does not know.
    """
    if n < 1 or batch_size < 1:
        raise ConfigError("n and batch_size are at least 1.", got=f"n={n}, batch_size={batch_size}")
    if not place:
        raise ConfigError("In which prepared place does the site lie?", remedy="name it: place=helsinki")
    chosen = choose_sampler(generator, sampler)
    raster = place if isinstance(place, CityRaster) else CityRaster.open(find_place(Path(data), place))
    outline = locate_site(raster.crs, at=at, size_m=size_m, site=site)
    spec = generator.spec
    found = read_site(raster, spec, outline, context_m, one_window=not isinstance(generator, Denoiser))
    fields = read_fields(spec, conditions, found.grid)
    like = conditions.get("place")
    return redraw(
        generator, found, fields, kept=keep, place=None if like is None else str(like), seeds=range(seed, seed + n),
        sampler=chosen, strength=strength, begin=begin, overlap=overlap, batch_size=batch_size,
    )  # fmt: skip


def redraw(
    generator: Trained,
    site: Site,
    fields: Fields,
    *,
    kept: Sequence[str] = (),
    place: str | None = None,
    seeds: Sequence[int] = (0,),
    sampler: Sampler | None = None,
    strength: float = 1.0,
    begin: Begin = "noise",
    overlap: float = 0.5,
    batch_size: int = 16,
) -> Edit:
    """Redraw a site, once with each seed.

    Parameters
    ----------
    generator
        From `citygrain.load`.
    site
        The cells that are free, and the layout around them.
    fields
        What is asked for, and where, see `citygrain.generation.area.draw_area`.
    kept
        Channels that stay on the site as well.
    place, sampler, strength, begin, overlap, batch_size
        As for `draw_area`.
    seeds
        One for each way of redrawing it.

    Raises
    ------
    ConfigError, ConditionError, CapabilityError
        For what the model cannot do or does not know.
    """
    spec, stays = generator.spec, mark_kept_channels(generator.spec, kept)
    keep = torch.from_numpy(~site.free | stays[:, None, None])[None]
    known = Known(torch.from_numpy(site.layout)[None].float() / 255, keep)
    cells, names = [site.layout], [BEFORE]
    with show_progress_bar("redrawing the site", len(seeds)) as advance:
        for i, seed in enumerate(seeds):
            drawn = draw_area(
                generator, site.free.shape, fields, known=known, place=place, seed=seed, sampler=sampler,
                strength=strength, begin=begin, overlap=overlap, batch_size=batch_size,
            )  # fmt: skip
            cells.append(drawn.numpy())
            names.append(f"after_{i:02d}")
            advance(1)
    layouts = Layouts(
        np.stack(cells), spec.channels, spec.resolution_m, (site.grid,) * len(cells), tuple(names),
        raster_format=spec.raster_format,
    )  # fmt: skip
    requested = {name: float(torch.as_tensor(field)[...].float().mean()) for name, field in fields.items()}
    return Edit(layouts, site, requested, tuple(kept))
