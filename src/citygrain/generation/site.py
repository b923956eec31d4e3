"""Sites inside their real surroundings."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.features import geometry_mask
from shapely.geometry.base import BaseGeometry

from citygrain.data.rules import common_channels
from citygrain.errors import CapabilityError, ConfigError, DataError
from citygrain.generation.continuity import street_ends
from citygrain.geo.cityraster import CityRaster
from citygrain.geo.layers import select_channels
from citygrain.geo.layout_files import collected, write_geotiff, write_layers
from citygrain.geo.place import Place
from citygrain.geo.rasterize import Grid
from citygrain.geo.vectorize import vectorize
from citygrain.measures import MEASURES, measure
from citygrain.plot import sheet
from citygrain.spec import LayoutSpec
from citygrain.support.files import atomic_path, write_text

Rows = dict[str, dict[str, dict[str, float]]]
"""Layout → `site` or `area` → measure → value in its unit."""


@dataclass(frozen=True)
class Site:
    """What is to be redrawn, and what is around it.

    Attributes
    ----------
    layout
        `(C, H, W)` uint8: the real layout, with the channels of the model.
    free
        `(H, W)` bool: the cells of the site.
    grid
        Where it lies.
    """

    layout: NDArray[np.uint8]
    free: NDArray[np.bool_]
    grid: Grid


def site_of(config: Mapping[str, Any], crs: str) -> BaseGeometry:
    """Return the site that a configuration names, in a CRS in metres.

    Raises
    ------
    ConfigError
        When it is named in no way or in two, or is no place on Earth.
    PlaceError
        For a file without a polygon.
    """
    if (config["at"] is None) == (config["site"] is None):
        raise ConfigError(
            "Where is the site?",
            expected="at=[longitude,latitude], or site=<file with a polygon>",
            got={key: config[key] for key in ("at", "site")},
        )
    to_metres = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    if config["site"] is not None:
        area = Place.from_file(config["site"]).area
        projected: BaseGeometry = shapely.transform(area, lambda xy: np.column_stack(to_metres.transform(*xy.T)))
        return projected
    try:
        longitude, latitude = map(float, config["at"])
        x, y = to_metres.transform(longitude, latitude)
    except (TypeError, ValueError):
        x = y = math.inf
    if not math.isfinite(x + y) or not config["size_m"] > 0:
        raise ConfigError(
            "This is no site.",
            expected="at=[longitude,latitude] in degrees, size_m > 0",
            got=f"at={config['at']}, size_m={config['size_m']}",
        )
    half = config["size_m"] / 2
    return shapely.box(x - half, y - half, x + half, y + half)


def site_in(
    raster: CityRaster, spec: LayoutSpec, site: BaseGeometry, context_m: float, *, one_window: bool = False
) -> Site:
    """Read a site and what is around it from a prepared place.

    Parameters
    ----------
    raster
        The place.
    spec
        Channels, resolution, and size of the windows: the area is at least one window.
    site
        In the raster's CRS. Cells whose middle is in it are redrawn.
    context_m
        How far around the site the area goes at least, where the place goes that far.
    one_window
        Read just a window, for models that draw nothing larger.

    Raises
    ------
    DataError
        When the site is not in the place, has no data, is smaller than a cell, or the place lacks a channel.
    CapabilityError
        When it should fit into one window and does not.
    """
    channels, _ = common_channels([raster], spec.channels, spec.raster_format)
    level = raster.level(spec.resolution_m)
    cell, (height, width) = spec.resolution_m, level.valid.shape
    left, bottom, right, top = site.bounds
    west, north = level.transform.c, level.transform.f
    x0, y0, x1, y1 = left - west, north - top, right - west, north - bottom
    if not (x0 >= 0 and y0 >= 0 and x1 <= width * cell and y1 <= height * cell):
        raise DataError(
            f"The site does not lie in {raster.name}.",
            expected=f"within {[round(v) for v in raster.grid.bounds]} in {raster.crs}",
            got=[round(v) for v in site.bounds],
        )
    rows, columns = (
        _span(low / cell, high / cell, context_m / cell, spec.size_px, length, one_window=one_window)
        for low, high, length in ((y0, y1, height), (x0, x1, width))
    )
    grid = Grid(
        raster.crs, west + columns.start * cell, north - rows.start * cell, cell,
        columns.stop - columns.start, rows.stop - rows.start,
    )  # fmt: skip
    free: NDArray[np.bool_] = geometry_mask([site], (grid.height, grid.width), grid.transform, invert=True)
    if not free.any():
        raise DataError(
            "The site holds the middle of no cell.", expected=f"more than {cell:g} m across", got=f"{site.area:.3g} m²"
        )
    if not level.valid[rows, columns][free].any():
        raise DataError(f"The source of {raster.name} has no data at this site.", got=[round(v) for v in site.bounds])
    there = level.array[:, rows, columns]
    return Site(select_channels(there, raster.channels, channels, spec.raster_format), free, grid)


def _span(low: float, high: float, around: float, size: int, length: int, *, one_window: bool) -> slice:
    """Return the cells from `low` to `high` and around them: a window or more, within `length`."""
    if length < size:
        raise DataError("The place is smaller than a window of this model.", expected=f"{size} cells", got=length)
    wanted = math.ceil(high) - math.floor(low) + 2 * around
    if one_window and high - low > size:
        raise CapabilityError(
            "The site is larger than a window, and this family draws windows only.",
            expected=f"at most {size} cells",
            got=math.ceil(high - low),
            remedy="choose a diffusion model, or a smaller site",
        )
    count = size if one_window else min(max(size, math.ceil(wanted)), length)
    start = min(max(0, round((low + high - count) / 2)), length - count)
    return slice(start, start + count)


def kept_channels(spec: LayoutSpec, names: Sequence[str]) -> NDArray[np.bool_]:
    """Return which channels are kept, `(C,)` bool.

    Raises
    ------
    ConfigError
        For a channel that the model does not draw.
    """
    for name in names:
        if name not in spec.channels:
            raise ConfigError("The layouts have no such channel to keep.", got=name, choices=spec.channels)
    if len(set(names)) == len(spec.channels):
        raise ConfigError("All channels are kept, so that nothing is redrawn.", got=", ".join(names))
    return np.array([name in names for name in spec.channels])


def measured(layouts: Mapping[str, NDArray[np.uint8]], site: Site, spec: LayoutSpec) -> Rows:
    """Measure layouts, on the site and on the whole area, and how they go together with what was there before.

    Of the site stands what the shares of its cells tell; what looks at where things are needs the whole area. Besides,
    of the site: the share of the streets that go on across its edge, and what `stayed`, Σ min / Σ max of the coverage
    before and after over its cells (Ružička 1958), of everything and of each channel.
    """
    rows: Rows = {}
    before = layouts["before"][:, site.free].astype(np.float64)
    for name, layout in layouts.items():
        shares = layout.astype(np.float32) / 255
        whole = measure(shares, spec.channels, spec.resolution_m)
        # The cells of the site in one row: nothing but their shares is measured there.
        inside = measure(shares[:, None, site.free], spec.channels, spec.resolution_m)
        going_on, ends = street_ends(shares, site.free, spec.channels)
        rows[name] = {
            "site": {
                **{key: float(value) for key, value in inside.items() if MEASURES[key].of is None},
                "streets_going_on": going_on / ends if ends else math.nan,
                "stayed": _alike(before, layout[:, site.free]),
                **{
                    f"stayed_{channel}": _alike(before[i], layout[i, site.free])
                    for i, channel in enumerate(spec.channels)
                },
            },
            "area": {key: float(value) for key, value in whole.items()},
        }
    return rows


def _alike(before: NDArray[np.float64], after: NDArray[np.uint8]) -> float:
    most = float(np.maximum(before, after).sum())
    return float(np.minimum(before, after).sum()) / most if most else math.nan


def asked_of(name: str) -> str:
    """Return whether a condition is asked of the site or of the whole area."""
    return "site" if MEASURES[name].linear else "area"


COLUMNS = 4


def write_edit(
    layouts: Mapping[str, NDArray[np.uint8]],
    rows: Rows,
    asked: Mapping[str, float],
    site: Site,
    spec: LayoutSpec,
    out: Path,
) -> None:
    """Write GeoTIFFs, `layouts.gpkg`, `measured.csv` and `sheet.png` of a site before and after.

    Parameters
    ----------
    layouts
        `before`, and each `after_…`.
    rows
        What `measured` tells of them.
    asked
        Condition → what was asked for, in its unit.
    site, spec
        Where they lie, and what they are.
    out
        The folder; it is made where it is missing.
    """
    for stale in sorted((out / "layouts").glob("after_*.tif")):
        if stale.stem not in layouts:
            stale.unlink()  # of a larger set that this one replaces
    for name, layout in layouts.items():
        with atomic_path(out / "layouts" / f"{name}.tif") as temporary:
            write_geotiff(temporary, layout, spec.channels, site.grid)
    named = {name: vectorize(layout, spec.channels, site.grid) for name, layout in layouts.items()}
    write_layers(collected(named), "gpkg", out)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["layout", "of", "measure", "unit", "asked", "measured"])
    for name, parts in rows.items():
        for part, values in parts.items():
            for key, value in values.items():
                unit = MEASURES[key].unit if key in MEASURES else "–"
                wanted = f"{asked[key]:.6g}" if key in asked and name != "before" and part == asked_of(key) else ""
                writer.writerow([name, part, key, unit, wanted, f"{value:.6g}"])
    write_text(out / "measured.csv", text.getvalue())
    titles = [name.replace("_", " ") for name in layouts]
    sheet(
        np.stack(list(layouts.values())), spec.channels, out / "sheet.png", titles=titles,
        columns=min(COLUMNS, len(layouts)), resolution_m=spec.resolution_m, outline=site.free,
    )  # fmt: skip
