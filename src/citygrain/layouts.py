"""Layouts: their cells, where they lie, what was requested of them, and what is measured on them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from PIL import Image
from pyproj import CRS
from torch import Tensor

from citygrain.errors import DataError
from citygrain.geo.coarse_maps import CoarseMaps
from citygrain.geo.drawn_ways import DrawnWays, find_vectors, write_ways
from citygrain.geo.layers import RASTER_FORMAT, find_parts, select_channels
from citygrain.geo.layout_files import write_geotiff
from citygrain.geo.rasterize import Grid
from citygrain.geo.vector_files import collect_layers
from citygrain.geo.vectorize import SMALLEST_M2, Vectors
from citygrain.measures import measure
from citygrain.networks.frame import BEARING, FRAME, find_condition, measure_conditions
from citygrain.plot import make_sheet, save_figure
from citygrain.plot.notebook import show_image, write_html
from citygrain.support.files import write_atomically, write_text

if TYPE_CHECKING:
    import geopandas as gpd
    import networkx as nx
    import xarray as xr

COLUMNS = 8
"""How many layouts stand in a row of a sheet, at most."""

SHOWN = 32
"""How many layouts a notebook shows, at most."""

ARRAYS, SHEET, WINDOWS, TABLE, MAPS = "layouts.npz", "sheet.png", "windows.png", "measured.csv", "maps.csv"
FOLDER = "layouts"
"""Files of a folder of layouts, and the folder of their GeoTIFFs in it."""


@dataclass(frozen=True, eq=False)
class Layouts:
    """N layouts with the same channels, resolution and extent.

    They are a sequence: `layouts[0]` and `layouts[2:4]` are `Layouts` again, and `+` joins two of them. A notebook
    shows them as a sheet with a table. Their cells cannot be written to, so that measured values stay right:
    `dataclasses.replace(layouts, cells=…)` has other cells.

    Parameters
    ----------
    cells
        `(N, C, H, W)` uint8: the share of each cell that each channel covers, 255 for all of it.
    channels
        Names of the C channels, in order.
    resolution_m
        Edge of a cell in metres.
    grids
        N grids: where each layout lies. Empty if the layouts have no place on Earth.
    names
        N different names; `layout_0000`, … by default.
    seeds
        N seeds that the layouts were drawn with. Empty if they were not drawn.
    requested
        Condition → its requested values `(N,)` in its unit; NaN if nothing was requested.
    raster_format
        Format of the city rasters whose channels these are, see `citygrain.geo.layers`.
    columns
        How many layouts stand in a row of the sheet.
    given
        If the layouts were drawn around given channels: the real windows that the channels were taken from.
    source
        Where the layouts come from, in words.
    ways
        N times the lines that the ways of a layout were drawn as, or None. Empty if none was drawn as lines. They are
        used where they belong to the cells; of other cells, ways are traced.
    requested_maps
        What was requested of each cell of a coarse map; None if nothing was.

    Raises
    ------
    DataError
        For cells of another type or shape; for channels, grids, names, seeds or requested values that do not fit the
        cells; or for a name that no file can have.

    Examples
    --------
    >>> grid = Grid("EPSG:32633", 386000.0, 6672000.0, 8.0, 64, 64)
    >>> empty = Layouts(np.zeros((2, 1, 64, 64), np.uint8), ("building",), 8.0, grids=(grid, grid))
    >>> len(empty), empty[0].names, float(empty.measured["coverage"][1])
    (2, ('layout_0000',), 0.0)
    """

    cells: NDArray[np.uint8]
    channels: tuple[str, ...]
    resolution_m: float
    grids: tuple[Grid, ...] = ()
    names: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    requested: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    raster_format: int = RASTER_FORMAT
    columns: int = COLUMNS
    given: Layouts | None = None
    source: str = ""
    ways: tuple[DrawnWays | None, ...] = ()
    requested_maps: CoarseMaps | None = None

    def __post_init__(self) -> None:
        shape: tuple[int, ...] = np.shape(self.cells)
        named: Any = self.channels  # one text would pass for the names of as many channels as it has letters
        channels = [named] if isinstance(named, str) else list(map(str, named))
        fits = len(shape) == 4 and shape[1] == len(channels) and not isinstance(named, str)
        if not fits or getattr(self.cells, "dtype", None) != np.uint8:
            raise DataError(
                "These are no layouts.",
                expected=f"(N, {len(channels)}, H, W) uint8, for the channels {', '.join(channels)}",
                got=f"{shape} {getattr(self.cells, 'dtype', type(self.cells).__name__)}",
            )
        if len(set(channels)) < len(channels):
            raise DataError("A channel is named twice.", got=channels)
        cells = self.cells.view()
        cells.flags.writeable = False
        object.__setattr__(self, "cells", cells)
        for name in ("channels", "grids", "names", "seeds", "ways"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.names:
            object.__setattr__(self, "names", tuple(f"layout_{i:04d}" for i in range(shape[0])))
        self._check_each()

    def _check_each(self) -> None:
        """Check what each layout has one of."""
        count, _, height, width = self.cells.shape
        for name in ("grids", "names", "seeds", "ways"):
            values = getattr(self, name)
            if (values and len(values) != count) or (name == "names" and len(set(values)) < len(values)):
                raise DataError(f"Each layout has one of the {name}.", expected=f"{count} different {name}", got=values)
        for name in self.names:
            if not isinstance(name, str) or name in {"", ".", ".."} or set(name) & {"/", "\0"}:
                raise DataError(
                    "The name of a layout is the name of its file.", expected="text without a slash", got=repr(name)
                )
        for grid in self.grids:
            if (grid.height, grid.width) != (height, width) or not math.isclose(grid.resolution_m, self.resolution_m):
                raise DataError(
                    "A grid does not fit the cells of its layout.",
                    expected=f"{height} × {width} cells of {self.resolution_m:g} m",
                    got=f"{grid.height} × {grid.width} cells of {grid.resolution_m:g} m",
                )
        for name, values in self.requested.items():
            if np.shape(values) != (count,):
                raise DataError(
                    f"Each layout has one requested value of {name}.", expected=f"{count} values", got=values
                )

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, index: int | slice | Sequence[int] | NDArray[Any]) -> Layouts:
        """Return some of the layouts: one by its index, or several by a slice, a list of indices or a mask.

        If one of them is taken twice, all get new names with numbers.
        """
        chosen = np.atleast_1d(np.arange(len(self))[index]).tolist()

        def some(values: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(values[i] for i in chosen) if values else ()

        requested = {name: np.asarray(values)[chosen] for name, values in self.requested.items()}
        names = some(self.names) if len(set(chosen)) == len(chosen) else ()
        return replace(
            self, cells=self.cells[chosen], grids=some(self.grids), names=names, seeds=some(self.seeds),
            requested=requested, given=None, ways=some(self.ways),
            requested_maps=self.requested_maps and self.requested_maps.take(chosen),
        )  # fmt: skip

    def __eq__(self, other: object) -> bool:
        """Return whether cells, names, places, seeds and requested values are the same."""
        if not isinstance(other, Layouts):
            return NotImplemented
        same = all(
            getattr(self, name) == getattr(other, name)
            for name in ("channels", "resolution_m", "grids", "names", "seeds", "raster_format")
        )
        return (
            same
            and np.array_equal(self.cells, other.cells)
            and self.requested.keys() == other.requested.keys()
            and all(np.array_equal(self.requested[k], other.requested[k], equal_nan=True) for k in self.requested)
        )

    __hash__ = None  # type: ignore[assignment]  # equal by their content, which is large

    def __add__(self, other: Layouts) -> Layouts:
        """Join layouts. If two have the same name, all get new names with numbers.

        Raises
        ------
        DataError
            For layouts of other channels, another resolution, size or format, or if only some have a place on Earth.
        """
        if not isinstance(other, Layouts):
            return NotImplemented
        if not len(self) or not len(other):
            return self if len(self) else other
        mine, theirs = (of.kind for of in (self, other))
        if mine != theirs:
            raise DataError("These layouts are not of the same kind.", expected=mine, got=theirs)
        names = (*self.names, *other.names)
        nan = [np.full(len(of), np.nan) for of in (self, other)]
        any_drawn = self.ways or other.ways
        return replace(
            self,
            cells=np.concatenate([self.cells, other.cells]),
            grids=self.grids + other.grids,
            names=names if len(set(names)) == len(names) else (),
            seeds=self.seeds + other.seeds if self.seeds and other.seeds else (),
            given=None,
            source=self.source if self.source == other.source else "",
            ways=tuple(one for of in (self, other) for one in of.ways or (None,) * len(of)) if any_drawn else (),
            requested_maps=self.requested_maps and self.requested_maps.join(other.requested_maps),
            requested={
                name: np.concatenate([self.requested.get(name, nan[0]), other.requested.get(name, nan[1])])
                for name in {**self.requested, **other.requested}
            },
        )

    @property
    def kind(self) -> str:
        """What layouts must have in common to be joined, in words."""
        height, width = self.cells.shape[2:]
        where = "with a place on Earth" if self.grids else "without a place on Earth"
        return (
            f"{height} × {width} cells of {self.resolution_m:g} m, format {self.raster_format}, {where}: "
            f"{', '.join(self.channels)}"
        )

    @property
    def shares(self) -> NDArray[np.float32]:
        """The cells as shares in [0, 1], `(N, C, H, W)` float32."""
        shares: NDArray[np.float32] = np.divide(self.cells, 255, dtype=np.float32)
        return shares

    @property
    def tensor(self) -> Tensor:
        """The cells as shares in [0, 1], as a tensor `(N, C, H, W)` float32."""
        return torch.from_numpy(self.shares)

    def select(self, channels: Sequence[str], raster_format: int = RASTER_FORMAT) -> Layouts:
        """Return the layouts with other channels, in another order, or as models of an earlier format know them.

        Parameters
        ----------
        channels
            Names of the channels to return, in order.
        raster_format
            Format that the channels are of. Those of format 1 are added up: streets and service roads to `street`,
            footways and squares to `walk`.

        Raises
        ------
        DataError
            When the layouts lack a channel, or are of an earlier format than the one wanted.

        Examples
        --------
        >>> raster.window((12.57, 55.68)).select(model.spec.channels, model.spec.raster_format)  # doctest: +SKIP
        """
        if (self.channels, self.raster_format) == (tuple(channels), raster_format):
            return self
        if self.raster_format < raster_format:
            raise DataError(
                "The channels of an earlier format cannot be taken apart.",
                expected=f"layouts of format {raster_format}",
                got=f"layouts of format {self.raster_format}",
            )
        for name in channels:
            known = [name] if self.raster_format == raster_format else find_parts(name, raster_format)
            if not set(known) & set(self.channels):
                raise DataError("The layouts have no such channel.", got=name, choices=self.channels)
        parted = raster_format if self.raster_format != raster_format else RASTER_FORMAT
        cells = [select_channels(layout, self.channels, channels, parted) for layout in self.cells]
        return replace(self, cells=np.stack(cells), channels=tuple(channels), raster_format=raster_format, given=None)

    @cached_property
    def measured(self) -> Mapping[str, NDArray[np.float64]]:
        """Measure → values `(N,)` in its unit, for each of `citygrain.measures.MEASURES` that the channels allow.

        Layouts of a model of turned windows have `bearing` and `order` of their streets, too. A measured bearing may be
        a little below 0 or above 90 degrees: it is that of the grid plus what the streets are off the grid.
        """
        found = measure(self.shares, self.channels, self.resolution_m)
        framed = [name for name, of in FRAME.items() if name in self.requested and {*of.channels} <= {*self.channels}]
        more = measure_conditions(self.tensor, self.channels, self.resolution_m, framed)
        if BEARING in more:
            at = [grid.angle % 90 for grid in self.grids] or np.nan_to_num(self.requested[BEARING])
            more[BEARING] = more[BEARING] + torch.as_tensor(at)
        return {name: np.asarray(values, float) for name, values in (found | more).items()}

    def measure(self) -> pd.DataFrame:
        """Return the measured values: one row for each layout, one column for each measure, in its unit."""
        return pd.DataFrame(dict(self.measured), index=pd.Index(self.names, name="layout"))

    def table(self) -> pd.DataFrame:
        """Return seed, requested and measured values, one row for each layout: the content of `measured.csv`."""
        columns: dict[str, Any] = {"seed": self.seeds} if self.seeds else {}
        columns |= {f"requested_{name}": values for name, values in self.requested.items()}
        columns |= {f"measured_{name}": values for name, values in self.measured.items()}
        return pd.DataFrame(columns, index=pd.Index(self.names, name="layout"))

    def comparison(self) -> pd.DataFrame:
        """Compare requested and measured values over all layouts: one row for each measure.

        The columns are the unit, the means of requested and measured values, the 10th and 90th percentiles of measured
        values, and the mean absolute error.
        """
        rows = {}
        for name, values in self.measured.items():
            asked = np.asarray(self.requested.get(name, np.full(len(self), np.nan)))
            known = np.isfinite(asked)
            values = values if len(self) else np.array([np.nan])  # noqa: PLW2901  (no layout has no mean)
            rows[name] = {
                "unit": find_condition(name).unit,
                "requested": asked[known].mean() if known.any() else np.nan,
                "measured": values.mean() if len(values) else np.nan,
                "p10": np.percentile(values, 10) if len(values) else np.nan,
                "p90": np.percentile(values, 90) if len(values) else np.nan,
                "mean_error": np.abs(values - asked)[known].mean() if known.any() else np.nan,
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("condition")

    def map_comparison(self, *, each: bool = False) -> pd.DataFrame:
        """Compare requested and measured maps, over the cells of all layouts or of `each`: one row for each map."""
        maps = self.requested_maps or CoarseMaps(1, {})
        return maps.compare(self.shares, self.channels, self.resolution_m, self.names if each else None)

    def picture(self, *, columns: int | None = None, scale: int | None = None) -> Image.Image:
        """Return the sheet of all layouts as an image, with captions; `scale` is the pixels of a cell."""
        return make_sheet(
            self.cells,
            self.channels,
            titles=[self._caption(i) for i in range(len(self))],
            columns=min(columns or self.columns, len(self)),
            scale=scale,
            resolution_m=self.resolution_m,
        )

    def show(self, *, columns: int | None = None, scale: int | None = None, ax: Axes | None = None) -> Axes:
        """Draw the sheet of all layouts with matplotlib.

        Parameters
        ----------
        columns
            How many layouts stand in a row.
        scale
            Pixels of a cell; None makes a layout about 200 pixels wide.
        ax
            Axes to draw into; None makes a figure in which each pixel of the sheet is one pixel of the screen.
        """
        return show_image(self.picture(columns=columns, scale=scale), ax)

    def _repr_html_(self) -> str:
        """Show the sheet in a notebook, with requested and measured values below it."""
        if not len(self):
            return f"<p>{escape(repr(self))}</p>"
        shown = self[:SHOWN]
        more = f"<p>{len(shown)} of {len(self)} layouts</p>" if len(self) > len(shown) else ""
        return write_html(shown.picture(), self.comparison(), more)

    def __repr__(self) -> str:
        """Say in one line what the layouts are, without their numbers."""
        _, _, height, width = self.cells.shape
        where = f", {self.grids[0].crs}" if self.grids else ""
        return (
            f"Layouts({len(self)} of {height} × {width} cells of {self.resolution_m:g} m{where}; "
            f"{', '.join(self.channels)})"
        )

    def _caption(self, i: int) -> str:
        parts = [
            f"{name} {values[i]:.3g} → {self.measured[name][i]:.3g}"
            for name, values in self.requested.items()
            if name in self.measured and math.isfinite(values[i])
        ]
        if parts:
            return "\n".join(parts[:3])
        return f"seed {self.seeds[i]}" if self.seeds else self.names[i]

    def save(self, folder: str | Path) -> Path:
        """Write `sheet.png`, `layouts.npz`, `measured.csv` and a GeoTIFF of each layout; each file whole or not at all.

        If maps were requested, `maps.csv` compares them with what is measured on their cells. If channels were given,
        `windows.png` shows the windows that they were taken from.

        Parameters
        ----------
        folder
            The folder; it is made if it is missing. GeoTIFFs of a larger set that was there before are removed.

        Returns
        -------
        Path
            The folder, which `open_layout`, `citygrain vectorize` and `citygrain compare` take.

        Raises
        ------
        DataError
            When there are no layouts, they have no place on Earth, a channel has no colour, or the folder cannot be
            written.
        """
        out, picture = Path(folder), self.picture()
        self.write_geotiffs(out)
        with write_atomically(out / ARRAYS) as temporary:
            arrays: dict[str, Any] = {f"requested_{k}": v for k, v in self.requested.items()}
            arrays |= {f"measured_{k}": v for k, v in self.measured.items()}
            if self.requested_maps is not None:
                found = self.requested_maps.measure(self.shares, self.channels)
                arrays |= {f"map_requested_{k}": v for k, v in self.requested_maps.requested.items()}
                arrays |= {f"map_measured_{k}": v for k, v in found.items()}
            np.savez_compressed(
                temporary,
                layouts=self.cells,
                channels=self.channels,
                resolution_m=self.resolution_m,
                raster_format=self.raster_format,
                seeds=self.seeds,
                **arrays,
            )
        write_text(out / TABLE, self._csv())
        self.write_maps(out)
        save_figure(picture, out / SHEET)
        if self.given is not None:
            columns = min(COLUMNS, len(self.given))
            windows = make_sheet(self.given.cells, self.channels, columns=columns, resolution_m=self.resolution_m)
            save_figure(windows, out / WINDOWS)
        return out

    def write_geotiffs(self, folder: str | Path) -> None:
        """Write a GeoTIFF of each layout into `layouts/` of a folder, and remove those of a larger set from there.

        Ways that were drawn as lines are written beside them: `open_layout` and `citygrain vectorize` read them.
        """
        home, grids = Path(folder) / FOLDER, self._located()
        numbered = {name.rpartition("_")[0] for name in self.names}
        for stale in home.glob("*_*.tif"):
            stem, _, number = stale.stem.rpartition("_")
            if stem in numbered and number.isdigit() and stale.stem not in self.names:
                stale.unlink()
        for name, layout, grid in zip(self.names, self.cells, grids, strict=True):
            with write_atomically(home / f"{name}.tif") as temporary:
                write_geotiff(temporary, layout, self.channels, grid)
        write_ways(home, self.names, self.ways or (None,) * len(self), grids)

    def write_maps(self, folder: Path) -> None:
        """Write `maps.csv`, requested and measured maps of each layout; if none was requested, remove it."""
        if self.requested_maps is None:
            (folder / MAPS).unlink(missing_ok=True)
        else:
            write_text(folder / MAPS, self.map_comparison(each=True).to_csv(float_format="%.6g", lineterminator="\n"))

    def _csv(self) -> str:
        """Return the table as text, numbers with six digits."""
        text = io.StringIO()
        writer = csv.writer(text)
        table = self.table()
        writer.writerow(["layout", *table.columns])
        for name, row in zip(self.names, table.itertuples(index=False), strict=True):
            writer.writerow([name, *(v if isinstance(v, int) else f"{v:.6g}" for v in row)])
        return text.getvalue()

    def _located(self) -> tuple[Grid, ...]:
        if not len(self):
            raise DataError("There is not one layout.", expected="one or more", got=repr(self))
        if not self.grids:
            raise DataError(
                "These layouts lie nowhere.",
                expected="a grid for each of them",
                remedy="dataclasses.replace(layouts, grids=…), with citygrain.geo.rasterize.Grid",
            )
        return self.grids

    def _one_crs(self) -> str | None:
        """Return the CRS of all layouts; None if they have no place on Earth."""
        found = sorted({grid.crs for grid in self.grids})
        if len(found) > 1:
            raise DataError(
                "These layouts lie in several CRSs, and one table or array has one.",
                expected="layouts in one CRS",
                got=", ".join(found),
                remedy="take them one by one: for layout in layouts",
            )
        return found[0] if found else None

    def features(self, *, service: bool = False, smallest_m2: Mapping[str, float] = SMALLEST_M2) -> tuple[Vectors, ...]:
        """Turn each layout into features in its CRS, see `citygrain.geo.vectorize.vectorize`.

        Ways are those that the layout was drawn as, if it was drawn as lines; else they are traced from the cells.
        """
        drawn = self.ways or (None,) * len(self)
        return tuple(
            find_vectors(layout, self.channels, grid, ways, smallest_m2=smallest_m2, service=service)
            for layout, grid, ways in zip(self.cells, self._located(), drawn, strict=True)
        )

    def vectors(
        self, *, service: bool = False, smallest_m2: Mapping[str, float] = SMALLEST_M2
    ) -> dict[str, gpd.GeoDataFrame]:
        """Return buildings, open spaces, ways and their nodes of all layouts, one table for each layer.

        Parameters
        ----------
        service
            Whether service roads belong to the drive network. If not, they are a network of their own.
        smallest_m2
            Channel → area in m²: smaller polygons, and smaller holes in polygons, count as noise.

        Returns
        -------
        dict
            Layer → features in the layouts' CRS, with the name of their `layout`; see
            `citygrain.geo.vectorize.Vectors.layers`.

        Raises
        ------
        DataError
            When the layouts have no place on Earth, or lie in several CRSs.
        """
        self._one_crs()
        found = self.features(service=service, smallest_m2=smallest_m2)
        return collect_layers(dict(zip(self.names, found, strict=True)))

    def graph(self, network: str = "drive", *, service: bool = False) -> nx.MultiDiGraph:
        """Return a network of one layout as a graph like those of osmnx, in its CRS; `"all"` joins all networks.

        Raises
        ------
        DataError
            For several layouts, a network whose channels the layout does not have, or a network without ways.
        """
        if len(self) != 1:
            raise DataError("A graph is made of one layout.", got=f"{len(self)} layouts", remedy="layouts[0].graph(…)")
        return self.features(service=service)[0].graph(network)

    def to_xarray(self) -> xr.DataArray:
        """Return the cells as a labelled array `(layout, channel, y, x)` of shares in [0, 1].

        `x` and `y` are the middles of the cells. For one upright layout they are in its CRS. For others they are in
        metres from the first corner of each, along its rows and columns; the corners are the coordinates `left` and
        `top`, and turned layouts have the coordinate `angle` in degrees, clockwise about the corner. The CRS is the
        coordinate `spatial_ref`, as in the CF conventions and rioxarray.

        Raises
        ------
        DataError
            When the layouts lie in several CRSs.
        """
        import xarray as xr  # noqa: PLC0415  (it takes 9 MB, which drawing does not need)

        _, _, height, width = self.cells.shape
        x = (np.arange(width) + 0.5) * self.resolution_m
        y = -(np.arange(height) + 0.5) * self.resolution_m
        coordinates: dict[str, Any] = {"layout": list(self.names), "channel": list(self.channels)}
        attributes: dict[str, Any] = {"long_name": "share of the cell that is covered", "units": "1"}
        crs = self._one_crs()
        if crs is not None:
            turned = any(grid.angle for grid in self.grids)
            if turned:
                coordinates["angle"] = ("layout", [grid.angle for grid in self.grids])
            elif len(self) == 1:
                x, y = x + self.grids[0].left, y + self.grids[0].top
            coordinates["left"] = ("layout", [grid.left for grid in self.grids])
            coordinates["top"] = ("layout", [grid.top for grid in self.grids])
            coordinates["spatial_ref"] = ((), 0, CRS.from_user_input(crs).to_cf())
            attributes["grid_mapping"] = "spatial_ref"
        coordinates |= {"y": ("y", y, {"units": "m"}), "x": ("x", x, {"units": "m"})}
        return xr.DataArray(
            self.shares, coords=coordinates, dims=("layout", "channel", "y", "x"), name="coverage", attrs=attributes
        )
