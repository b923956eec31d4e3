"""Redraw a site inside its real surroundings, and measure what this changes."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from PIL import Image

from citygrain.data.cityraster import CityRaster
from citygrain.data.dataset import find_place
from citygrain.data.trained_on import TrainedOn
from citygrain.errors import ConfigError
from citygrain.generation.area import Fields, draw_area
from citygrain.generation.continuity import count_street_ends
from citygrain.generation.extent import read_bearing
from citygrain.generation.fields import read_fields
from citygrain.generation.maps import describe_site_maps, warn_of_open_cells
from citygrain.generation.requests import Level, check_counts, choose_sampler, list_seeds, read_levels
from citygrain.generation.site import (
    Ground,
    Site,
    check_requests,
    find_bearing,
    locate_site,
    mark_kept_channels,
    read_site,
    takes_one_window,
)
from citygrain.geo.vector_files import write_layers
from citygrain.layouts import Layouts
from citygrain.measures import MEASURES, measure
from citygrain.networks.frame import BEARING, FRAME
from citygrain.plot import make_sheet, save_figure
from citygrain.plot.notebook import show_image, write_html
from citygrain.protocols import DrawsWays, Known, Sampler, Trained
from citygrain.samplers.areas import Begin
from citygrain.support.console import show_progress_bar
from citygrain.support.files import write_text

COLUMNS = 4
"""How many layouts stand in a row of the sheet, at most."""

BEFORE = "before"

Rows = dict[str, dict[str, dict[str, float]]]
"""Layout → `site` or `area` → measure → value in its unit."""


@dataclass(frozen=True)
class Edit:
    """A site before, and after each way of redrawing it.

    Parameters
    ----------
    layouts
        Layouts of the whole area, named `before`, `after_00`, `after_01`, …
    site
        The site that was redrawn.
    requested
        Condition → its requested value, in its unit; if it varies, the mean over the site.
    kept
        Channels that were kept on the site, too.
    """

    layouts: Layouts
    site: Site
    requested: Mapping[str, float] = field(default_factory=dict)
    kept: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Say what was redrawn, and not every number."""
        ways, asked = len(self.after), ", ".join(f"{name} {value:.4g}" for name, value in self.requested.items())
        unknown = f"; not known there: {', '.join(self.unknown)}" if self.unknown else ""
        return (
            f"Edit({ways} way{'s' if ways > 1 else ''} of redrawing {int(self.site.free.sum())} cells of "
            f"{self.layouts.resolution_m:g} m in {self.site.grid.crs}; asked: {asked or 'nothing'}; "
            f"kept: {', '.join(self.kept) or 'nothing'}{unknown})"
        )

    @property
    def unknown(self) -> tuple[str, ...]:
        """The channels that the place does not know: they are empty, were not drawn, and are not measured."""
        return self.site.unknown

    @property
    def before(self) -> Layouts:
        """The real layout."""
        return self.layouts[0]

    @property
    def after(self) -> Layouts:
        """The redrawn layouts."""
        return self.layouts[1:]

    @cached_property
    def measured(self) -> Rows:
        """What is measured on the site and on the whole area, before and after.

        Measures that need only the shares of the cells are measured on the site alone, too. Measures that depend on
        where things lie need the whole area. Those of a channel that the place does not know are left out. The site has
        two more. `streets_going_on` is the share of the streets at the edge of the site that go on inside it. `stayed`
        is Σ min / Σ max of the coverage before and after, over the cells of the site (Ružička 1958), for all channels
        together and for each channel.
        """
        channels = tuple(name for name in self.layouts.channels if name not in self.unknown)
        known, free = self.layouts.select(channels, self.layouts.raster_format), self.site.free
        rows: Rows = {}
        before = known.cells[0][:, free].astype(np.float64)
        framed = {name: np.array([value]) for name, value in self.requested.items() if name in FRAME}
        for i, (name, layout, shares) in enumerate(zip(known.names, known.cells, known.shares, strict=True)):
            whole = replace(known[i], requested=framed).measured
            # The cells of the site stand in one row, so only measures of their shares make sense.
            inside = measure(shares[:, None, free], channels, self.layouts.resolution_m)
            going_on, ends = count_street_ends(shares, free, channels)
            rows[name] = {
                "site": {
                    **{key: float(value) for key, value in inside.items() if MEASURES[key].of is None},
                    "streets_going_on": going_on / ends if ends else math.nan,
                    "stayed": _overlap(before, layout[:, free]),
                    **{f"stayed_{c}": _overlap(before[i], layout[i, free]) for i, c in enumerate(channels)},
                },
                "area": {key: float(values[0]) for key, values in whole.items()},
            }
        return rows

    def table(self) -> pd.DataFrame:
        """Return what is measured, one row for each layout, part (`site` or `area`) and measure, as in `measured.csv`.

        `asked` is the requested value; NaN if nothing was requested, and for the layout before.
        """
        rows = [
            {
                "layout": name,
                "of": part,
                "measure": key,
                "unit": _find_unit(key),
                "asked": math.nan if name == BEFORE else self._requested_of(part, key),
                "measured": value,
            }
            for name, parts in self.measured.items()
            for part, values in parts.items()
            for key, value in values.items()
        ]
        return pd.DataFrame(rows)

    def _requested_of(self, part: str, name: str) -> float:
        """Return the value that was requested of the site or of the area; NaN if nothing was requested."""
        return self.requested.get(name, math.nan) if part == find_part_asked(name) else math.nan

    def picture(self) -> Image.Image:
        """Return the sheet of all layouts as an image, with a line around the site."""
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
        """Compare before, requested and after: one row for each measure of the site or of the area.

        The columns `after`, `least` and `most` are mean and range over all ways of redrawing the site.
        """
        rows = []
        after = [self.measured[name] for name in self.after.names]
        for part in ("site", "area"):
            for name, was in self.measured[BEFORE][part].items():
                wanted = self._requested_of(part, name)
                # `stayed` of each channel is in `table` only. A measure of the site is not repeated for the area.
                if name.startswith("stayed_") or (
                    part == "area" and name in self.measured[BEFORE]["site"] and math.isnan(wanted)
                ):
                    continue
                values = [row[part][name] for row in after]
                rows.append(
                    {
                        "measure": name if name in MEASURES else name.replace("_", " "),
                        "unit": _find_unit(name),
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
            The folder; it is made if it is missing. GeoTIFFs of a larger set that was there before are removed.
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
        self.after.write_maps(out)
        save_figure(self.picture(), out / "sheet.png")
        return out


def _find_unit(name: str) -> str:
    about = {**MEASURES, **FRAME}.get(name)
    return "–" if about is None else about.unit


def _overlap(before: NDArray[np.float64], after: NDArray[np.uint8]) -> float:
    most = float(np.maximum(before, after).sum())
    return float(np.minimum(before, after).sum()) / most if most else math.nan


def find_part_asked(name: str) -> str:
    """Return `site` or `area`: which of the two a condition is requested of."""
    return "site" if name in MEASURES and MEASURES[name].linear else "area"


def edit(
    generator: Trained,
    place: str | Path | CityRaster,
    *,
    conditions: Mapping[str, Level],
    at: Sequence[float] | None = None,
    size_m: float = 200.0,
    site: Ground | None = None,
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
        The prepared place that the site lies in. If places took part in the training that did not know all channels,
        this place need not know all of them either: those that it does not know are empty, and are not drawn.
    conditions
        What is requested, see `citygrain.generation.fields.read_fields`. Measures that are linear in the shares of the
        cells are requested of the site, all others of whole windows. `place` is the training place that the site should
        resemble. A model of turned windows redraws the site in the frame of the streets around it, or at the bearing
        that is requested; then the layouts lie turned, before and after.
    at, size_m
        A square site: longitude and latitude of its middle, and its edge in metres.
    site
        Instead of `at`: a file with the polygon of the site, a polygon in degrees, or a table of polygons in any CRS.
    context_m
        How many metres around the site the model sees, at least.
    keep
        Channels that are kept on the site, too.
    strength, begin
        1 redraws the site; less begins from what is there, see `citygrain.samplers.areas.Area`.
    n
        How often the site is redrawn, each time differently.
    seed
        Redrawn layout *i* has the seed `seed + i`.
    overlap
        Share of a window that it has in common with the next window, if the site takes several windows.
    sampler
        A sampler, or settings of the generator's own sampler that are changed; None takes the generator's own.
    batch_size
        How many windows are drawn at once.
    data
        Folder of prepared places.

    Raises
    ------
    DataError
        When the place is not prepared, or the site lies outside it.
    ConfigError, ConditionError, CapabilityError
        When it is not clear where the site is, or for what the model cannot do or does not know.
    """
    n, batch_size = check_counts(n, batch_size)
    seeds = list_seeds(seed, n)
    if not isinstance(place, str | Path | CityRaster) or not str(place):
        raise ConfigError("In which prepared place does the site lie?", remedy="name it: place=helsinki")
    chosen = choose_sampler(generator, sampler)
    raster = place if isinstance(place, CityRaster) else CityRaster.open(find_place(Path(data), str(place)))
    outline = locate_site(raster.crs, at=at, size_m=size_m, site=site)
    spec, trained_on = generator.spec, TrainedOn.of(generator)
    bearing = read_bearing(spec, conditions)
    if conditions.get(BEARING) is None and trained_on.frame == "streets":
        bearing = find_bearing(raster, spec, outline)
    one_window = takes_one_window(generator, chosen or generator.sampler, outline)
    found = read_site(
        raster, spec, outline, context_m, one_window=one_window, bearing=bearing,
        allow_unknown=trained_on.allow_unknown, with_ways=isinstance(generator, DrawsWays),
    )  # fmt: skip
    levels = read_levels(conditions)
    fields = read_fields(spec, levels, found.grid, found.free)
    warn_of_open_cells(generator, fields, found.free)
    like = conditions.get("place")
    redrawn = redraw(
        generator, found, fields, kept=keep, place=None if like is None else str(like), seeds=seeds,
        sampler=chosen, strength=strength, begin=begin, overlap=overlap, batch_size=batch_size,
    )  # fmt: skip
    maps = describe_site_maps(spec, levels, fields, found.free, len(seeds))
    return replace(redrawn, layouts=replace(redrawn.layouts, requested_maps=maps))


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
    """Redraw a site, once with each seed. A model that is given channels is given those of the site: they stay.

    Parameters
    ----------
    generator
        From `citygrain.load`.
    site
        The cells of the site, and the layout around them.
    fields
        What is requested, and where, see `citygrain.generation.area.draw_area`.
    kept
        Channels that are kept on the site, too.
    place, sampler, strength, begin, overlap, batch_size
        See `draw_area`.
    seeds
        One seed for each redrawn layout.

    Raises
    ------
    ConfigError, ConditionError, CapabilityError
        For what the model cannot do or does not know, or what is requested of channels that the place does not know.
    """
    spec = generator.spec
    stays = mark_kept_channels(spec, [*([kept] if isinstance(kept, str) else kept), *site.unknown])
    check_requests(fields, site.unknown)
    keep = torch.from_numpy(~site.free | stays[:, None, None])[None]
    ways = site.list_known_ways(np.array(spec.channels)[stays].tolist())
    known = Known(torch.from_numpy(site.layout)[None].float() / 255, keep, None if ways is None else [ways])
    given = known.layout[:, [spec.channels.index(name) for name in spec.given]] if spec.given else None
    cells, names = [site.layout], [BEFORE]
    with show_progress_bar("redrawing the site", len(seeds)) as advance:
        for i, seed in enumerate(seeds):
            drawn = draw_area(
                generator, site.free.shape, fields, known=known, given=given, place=place, seed=seed, sampler=sampler,
                strength=strength, begin=begin, overlap=overlap, batch_size=batch_size,
            )  # fmt: skip
            cells.append(drawn.numpy())
            names.append(f"after_{i:02d}")
            advance(1)
    layouts = Layouts(
        np.stack(cells), spec.channels, spec.resolution_m, (site.grid,) * len(cells), tuple(names),
        raster_format=spec.raster_format,
    )  # fmt: skip
    free = torch.from_numpy(site.free)
    requested = {
        name: float(field[free].nanmean()) if isinstance(field, torch.Tensor) and field.ndim else float(field)
        for name, field in fields.items()
    }
    return Edit(layouts, site, requested, (kept,) if isinstance(kept, str) else tuple(kept))
