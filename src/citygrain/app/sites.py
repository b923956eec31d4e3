"""Sites that are painted on a layout and redrawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from pyproj import Transformer
from rasterio.errors import RasterioError
from rasterio.windows import Window

from citygrain.app.shown import Row, format_number, label_of, make_page_sheet, zip_folder
from citygrain.app.studio import Studio, check_seed, prepared_places
from citygrain.data.cityraster import CityRaster
from citygrain.data.dataset import find_place
from citygrain.data.trained_on import TrainedOn
from citygrain.errors import ConfigError, DataError
from citygrain.generation import edits
from citygrain.generation.site import Site, find_bearing, locate_site, read_site
from citygrain.geo.layers import find_parts, select_channels
from citygrain.geo.layout_files import find_grid
from citygrain.geo.rasterize import Grid
from citygrain.plot import to_rgb
from citygrain.protocols import Sampler
from citygrain.spec import LayoutSpec

CANVAS_PX = 512
"""About the width of the picture that people paint on."""

GEOTIFF = "a GeoTIFF as `citygrain sample` writes them"

EDIT_HEADINGS = ("measure", "unit", "of", "before", "asked", "after")


@dataclass(frozen=True)
class Ground:
    """A layout that a site is painted on.

    Attributes
    ----------
    layout
        `(C, H, W)` uint8, one window of the model.
    grid
        Where it lies.
    unknown
        The channels that the place does not know. They are empty, and are not drawn.
    """

    layout: NDArray[np.uint8]
    grid: Grid
    unknown: tuple[str, ...] = ()


def middle_of(studio: Studio, place: str) -> tuple[float, float]:
    """Return longitude and latitude of a prepared place's middle.

    Raises
    ------
    DataError
        When it is not prepared.
    """
    raster = CityRaster.open(find_place(studio.data, place))
    left, bottom, right, top = raster.grid.bounds
    to_degrees = Transformer.from_crs(raster.crs, "EPSG:4326", always_xy=True)
    longitude, latitude = to_degrees.transform((left + right) / 2, (bottom + top) / 2)
    return round(longitude, 5), round(latitude, 5)


def read_ground(studio: Studio, place: str | None, longitude: float | None, latitude: float | None) -> Ground:
    """Read the real window around a point of a prepared place.

    Raises
    ------
    ConfigError
        For a point that is none.
    DataError
        When the place is not prepared, lacks a channel of the model, or does not hold the point.
    """
    if place not in prepared_places(studio.data):
        raise DataError(
            "This place is not prepared.",
            got=place,
            choices=prepared_places(studio.data),
            remedy="citygrain prepare place=helsinki",
        )
    raster = CityRaster.open(studio.data / str(place))
    point = (math.nan if longitude is None else longitude, math.nan if latitude is None else latitude)
    outline = locate_site(raster.crs, at=point, size_m=2 * studio.spec.resolution_m)
    trained_on = TrainedOn.of(studio.generator)
    bearing = find_bearing(raster, studio.spec, outline) if trained_on.frame == "streets" else 0.0
    found = read_site(
        raster, studio.spec, outline, 0, one_window=True, bearing=bearing, allow_unknown=trained_on.allow_unknown
    )
    return Ground(found.layout, found.grid, found.unknown)


def open_ground(studio: Studio, path: str | Path | None) -> Ground:
    """Read a layout from a GeoTIFF with the channels of the model; of a larger one, the window in its middle.

    Raises
    ------
    DataError
        For a file that is no such GeoTIFF.
    """
    spec = studio.spec
    if path is None:
        raise DataError("There is no file.", expected=GEOTIFF)
    try:
        with rasterio.open(path) as tif:
            grid = _window_grid(tif, spec)
            parts = {part for name in spec.channels for part in find_parts(name, spec.raster_format)}
            bands = {name: number for number, name in enumerate(tif.descriptions, 1) if name in parts}
            corner = ((length - spec.size_px) // 2 for length in (tif.width, tif.height))
            cells = tif.read(list(bands.values()), window=Window(*corner, spec.size_px, spec.size_px))
    except RasterioError as error:
        raise DataError("This file cannot be read as a GeoTIFF.", expected=GEOTIFF) from error
    if cells.dtype != np.uint8:
        if not (np.isfinite(cells).all() and cells.min() >= 0 and cells.max() <= 1):
            raise DataError("These are no shares of cells.", expected="0 to 255 as bytes, or numbers from 0 to 1")
        cells = np.rint(cells * 255)
    return Ground(select_channels(cells.astype(np.uint8), list(bands), spec.channels, spec.raster_format), grid)


def _window_grid(tif: rasterio.DatasetReader, spec: LayoutSpec) -> Grid:
    """Return where the window in the middle of an open file lies; refuse a file that has other layouts."""
    names = tif.descriptions
    if not set(spec.channels) <= set(names):
        raise DataError(
            "This file lacks channels of the model.",
            expected=f"bands named {', '.join(spec.channels)}",
            got=", ".join(filter(None, names)) or f"{tif.count} bands without names",
        )
    whole = find_grid(tif, "This file")
    if abs(whole.resolution_m - spec.resolution_m) > 1e-6 or min(tif.shape) < spec.size_px:
        raise DataError(
            "This file has other cells than the model, or too few.",
            expected=f"{spec.size_px} × {spec.size_px} cells of {spec.resolution_m:g} m or more",
            got=f"{tif.height} × {tif.width} cells of {whole.resolution_m:g} m",
        )
    row, column = ((length - spec.size_px) // 2 for length in tif.shape)
    return replace(whole.part(column, row, spec.size_px, spec.size_px), resolution_m=spec.resolution_m)


def make_canvas(studio: Studio, ground: Ground) -> Image.Image:
    """Draw a layout so large that people can paint on it."""
    with studio.turn:
        picture = Image.fromarray(to_rgb(ground.layout, studio.spec.channels))
    return picture.resize((canvas_px(studio),) * 2, Image.Resampling.NEAREST)


def canvas_px(studio: Studio) -> int:
    """Return the width of the picture that people paint on: a whole number of pixels a cell."""
    size = studio.spec.size_px
    return max(1, CANVAS_PX // size) * size


def painted_cells(layers: Sequence[NDArray[np.uint8]], size: int) -> NDArray[np.bool_]:
    """Return the cells of which half or more is painted over, of RGBA layers of any size, as `(size, size)`."""
    cells = np.zeros((size, size), bool)
    for layer in layers:
        opaque = np.asarray(layer)[..., 3] > 0
        if min(opaque.shape) < size:
            continue
        edges = [np.linspace(0, length, size + 1).round().astype(int)[:-1] for length in opaque.shape]
        sums, counts = (
            np.add.reduceat(np.add.reduceat(of.astype(int), edges[0], 0), edges[1], 1)
            for of in (opaque, np.ones_like(opaque))
        )
        cells |= 2 * sums >= counts
    return cells


@dataclass(frozen=True)
class Redrawn:
    """A site before and after.

    Attributes
    ----------
    picture
        Both in map colours, the site outlined.
    rows
        In the columns of `EDIT_HEADINGS`.
    zipped, vectors
        GeoTIFFs and measures, and the same as GeoPackage.
    edit
        The layouts before and after, and what is measured on them.
    """

    picture: Image.Image
    rows: list[Row]
    zipped: Path
    vectors: Path
    edit: edits.Edit


def redraw_site(
    studio: Studio,
    ground: Ground,
    free: NDArray[np.bool_],
    requested: Mapping[str, float],
    folder: Path,
    *,
    place: str | None = None,
    seed: object = 0,
    strength: float = 1.0,
    sampler: Sampler | None = None,
) -> Redrawn:
    """Redraw a site under conditions, and write it as `citygrain edit` does.

    Parameters
    ----------
    studio, ground
        The model, and the layout that the site lies on.
    free
        `(H, W)`: the cells of the site. All others stay as they are.
    requested
        Condition → value in its unit, of the site.
    folder
        An empty folder of this request alone.
    place
        A training place that the site is to be like; None for any.
    seed
        Of the noise.
    strength
        1 redraws the site; less begins from what is there.
    sampler
        Another than the model's own.

    Raises
    ------
    ConfigError
        When nothing is painted, or for a seed or strength that is none.
    CapabilityError
        For a family that cannot keep what is around the site.
    """
    if not free.any():
        raise ConfigError("No site is painted.", remedy="paint over what is to be redrawn")
    spec, first = studio.spec, check_seed(seed)
    site = Site(ground.layout, free, ground.grid, ground.unknown)
    with studio.turn:
        edit = edits.redraw(
            studio.generator, site, requested, place=place, seeds=[first], sampler=sampler, strength=strength
        )
        edit.save(folder / "edit")
        picture = make_page_sheet(edit.layouts.cells, spec, ["before", "after"], outline=free)
    zipped = zip_folder(folder / "edit", folder / "edit.zip")
    return Redrawn(picture, rows_of(edit), zipped, folder / "edit" / "layouts.gpkg", edit)


def rows_of(edit: edits.Edit) -> list[Row]:
    """Return what was there, what was asked for and what came, in the columns of `EDIT_HEADINGS`.

    What is measured on the site is left out for the whole area, and so is what stayed of single channels.
    """
    before, after = (edit.measured[name] for name in edit.layouts.names)
    rows = []
    for part in ("site", "area"):
        for name in before[part]:
            if name.startswith("stayed_") or (part == "area" and name in before["site"]):
                continue
            asked = edits.find_part_asked(name) == part and name in edit.requested
            said = format_number(edit.requested[name]) if asked else ""
            was, came = (format_number(of[part][name]) for of in (before, after))
            rows.append([*label_of(name), part, was, said, came])
    return rows
