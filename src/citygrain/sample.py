"""`citygrain sample`: from a checkpoint and a request to layouts, their pictures, GeoTIFFs and measures."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rich
import torch
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError
from rich.table import Table
from torch import Tensor

from citygrain.checkpoint import load
from citygrain.conditions import MEASURES, measure, settled
from citygrain.console import progress_bar
from citygrain.data.dataset import CityWindows, Rules, find_place
from citygrain.devices import SINGLE, check_precision, chosen_device, computing_in, device_of
from citygrain.editing import draw_area
from citygrain.errors import CapabilityError, ConditionError, ConfigError
from citygrain.fields import fields_of, varies
from citygrain.files import atomic_path, write_text
from citygrain.geo.cityraster import CityRaster
from citygrain.geo.rasterize import Grid
from citygrain.geo.sources import ATTRIBUTION
from citygrain.plot import sheet
from citygrain.protocols import Noise, Sampler
from citygrain.spec import Conditions, LayoutSpec
from citygrain.targets import check_signatures, instantiate

GAP_CELLS = 8
"""Cells between neighbouring layouts where they lie side by side on the map."""

COLUMNS = 8

NEAR = 0.02
"""Standard deviations over the training windows: an error that no further attempt is made for."""

N = 16
"""Layouts that are drawn unless a number is given, where no condition has levels."""


@dataclass(frozen=True)
class Samples:
    """Layouts and what they were asked to be.

    Attributes
    ----------
    layouts
        `(N, C, H, W)` float32 in [0, 1].
    requested
        Condition to `(N,)` in its unit, for what was asked for.
    measured
        Condition to `(N,)` in its unit, measured on the layouts, for all that can be measured on them.
    seeds
        The seed of each.
    spec
        Channels, size and resolution.
    """

    layouts: NDArray[np.float32]
    requested: dict[str, NDArray[np.float64]]
    measured: dict[str, NDArray[np.float64]]
    seeds: tuple[int, ...]
    spec: LayoutSpec


def draw(
    generator: Any,
    conditions: Conditions,
    seeds: Sequence[int],
    *,
    sampler: Sampler | None = None,
    attempts: int = 1,
    precision: str = SINGLE,
    batch_size: int = 64,
    show_progress: bool = False,
) -> Samples:
    """Draw one layout a condition and measure it.

    With several attempts, a layout that misses its request is drawn again from the same seed, more being asked for
    where too little came and less where too much, and the nearest is kept: a control loop around any generator, where
    the feedback inside of a sampler (`tolerance`) takes one that is differentiable. Nearest is by the sum of squared
    errors in standard deviations over the training windows, so more attempts are never farther off.

    Parameters
    ----------
    generator
        From `citygrain.load`.
    conditions
        `N` of them.
    seeds
        `N` seeds; a layout depends on its own seed and conditions only.
    sampler
        Another than the generator's own.
    attempts
        How often a layout is drawn at most; one that comes within `NEAR` of all that it is asked is left as it is.
    precision
        Numbers that the generator computes in, see `citygrain.devices.computing_in`. In any, a layout is measured in
        single precision.
    batch_size
        How many are drawn at once.
    show_progress
        Show a bar.

    Returns
    -------
    Samples
        The layouts as they are written: in steps of 1/255, as in a city raster.
    """
    spec: LayoutSpec = generator.spec
    device = device_of(generator)
    layouts = []
    with progress_bar("drawing layouts", len(seeds) if show_progress else 0) as advance:
        for start in range(0, len(seeds), batch_size):
            part = slice(start, start + batch_size)

            def drawn(asked: Conditions, rows: Tensor, part: slice = part) -> Tensor:
                noise = Noise([seeds[part][i] for i in rows.tolist()], device)
                with computing_in(precision, device):
                    made = generator.sample(asked.to(device), noise=noise, sampler=sampler)
                return (made.float().cpu() * 255).round() / 255

            layouts.append(_nearest_attempt(spec, conditions[part], attempts, drawn))
            advance(len(layouts[-1]))
    joined = torch.cat(layouts)
    measured = measure(joined, spec.channels, spec.resolution_m)
    requested = {
        name: np.where(conditions.present[:, i], conditions.scalars[:, i].double(), np.nan)
        for i, name in enumerate(spec.scalars)
        if conditions.present[:, i].any()
    }
    return Samples(joined.numpy(), requested, {k: v.double().numpy() for k, v in measured.items()}, tuple(seeds), spec)


def _nearest_attempt(
    spec: LayoutSpec, conditions: Conditions, attempts: int, drawn: Callable[[Conditions, Tensor], Tensor]
) -> Tensor:
    """Draw layouts `(B, C, H, W)`, and those that miss their request again; `drawn` takes conditions and their rows."""
    rows = torch.arange(len(conditions))
    layouts = drawn(conditions, rows)
    if attempts == 1 or not spec.scalars:
        return layouts
    spread = torch.tensor([0.0 if settled(name, spec.given) else spec.spread(name) for name in spec.scalars])
    limits = torch.tensor([[spec.quantile(name, p) for name in spec.scalars] for p in (0, 100)])
    low, high = limits[0].minimum(conditions.scalars), limits[1].maximum(conditions.scalars)

    def missing(layouts: Tensor, rows: Tensor) -> Tensor:
        """What is asked for and did not come, `(B, S)` in standard deviations; none of what cannot be missed."""
        found = measure(layouts, spec.channels, spec.resolution_m)
        measured = torch.stack([found[name] for name in spec.scalars], 1)
        counts = conditions.present[rows] & (spread > 0)
        return torch.where(counts, (conditions.scalars[rows] - measured) / spread, 0.0)

    asked, off, step = conditions.scalars.clone(), missing(layouts, rows), torch.ones(len(conditions), 1)
    for _ in range(attempts - 1):
        rows = (off.abs() > NEAR).any(1).nonzero()[:, 0]
        if not len(rows):
            break
        tried = (asked[rows] + step[rows] * off[rows] * spread).clamp(low[rows], high[rows])
        again = drawn(replace(conditions[rows], scalars=tried), rows)
        still = missing(again, rows)
        nearer = still.square().sum(1) < off[rows].square().sum(1)
        kept = rows[nearer]
        layouts[kept], asked[kept], off[kept] = again[nearer], tried[nearer], still[nearer]
        step[rows[~nearer]] /= 2  # it went too far
    return layouts


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
        corner = _corner(places, config["georeference"], config["conditions"].get("place"))
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


def check_attempts(attempts: Any) -> None:
    """Refuse a number of attempts that is none.

    Raises
    ------
    ConfigError
        It says what would be one.
    """
    if not isinstance(attempts, int) or attempts < 1:
        raise ConfigError("A layout is drawn once at least.", expected="attempts ≥ 1, whole", got=attempts)


def combinations(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every combination of the conditions whose value is a list of levels: the last one varies fastest.

    Raises
    ------
    ConfigError
        For an empty list.
    """
    levels = {name: value for name, value in asked.items() if isinstance(value, list | tuple)}
    for name, value in levels.items():
        if not value:
            raise ConfigError(f"A list of levels holds some: {name}.", expected="such as [p10,p50,p90]", got=[])
    return [{**asked, **dict(zip(levels, chosen, strict=True))} for chosen in product(*levels.values())]


def columns_of(asked: Mapping[str, Any], n: int) -> int:
    """Return how many layouts stand in a row of the sheet: the levels of the last list, or one level's layouts."""
    levels = [value for value in asked.values() if isinstance(value, list | tuple)]
    return len(levels[-1]) if levels and n == 1 else min(COLUMNS, n)


def _finish(samples: Samples, grids: Sequence[Grid], out: Path, columns: int = COLUMNS) -> None:
    write(samples, out, grids, columns)
    rich.print(table(samples))
    where = f"{grids[0].crs}, from {grids[0].left:.0f} E, {grids[0].top:.0f} N"
    rich.print(f"pictures, GeoTIFFs and measures: {out}  [dim](GeoTIFFs in {where})[/]")


def draw_areas(
    generator: Any, sampler: Sampler | None, corner: tuple[str, float, float], config: Mapping[str, Any]
) -> tuple[Samples, list[Grid]]:
    """Draw areas of any extent, under conditions that may vary over them, and measure them.

    Parameters
    ----------
    generator, sampler
        A diffusion model; another sampler than its own.
    corner
        CRS, easting and northing of the north-west corner of the first.
    config
        `conf/sample.yaml`.

    Returns
    -------
    samples, grids
        Requested is the mean of what is asked for over the area, where everywhere something is.

    Raises
    ------
    ConfigError
        For an extent that is none.
    CapabilityError, ConditionError, DataError
        See `citygrain.editing.draw_area` and `citygrain.fields.fields_of`.
    """
    spec: LayoutSpec = generator.spec
    shape = _cells(spec, config["extent_m"])
    grids = list(_side_by_side(shape, spec.resolution_m, config["n"], corner))
    fields = fields_of(spec, config["conditions"], grids[0])
    seeds = tuple(range(config["seed"], config["seed"] + config["n"]))
    layouts = []
    with progress_bar("drawing areas", len(seeds)) as advance:
        for seed in seeds:
            with computing_in(config["precision"], device_of(generator)):
                drawn = draw_area(
                    generator, shape, fields, place=config["conditions"].get("place"), seed=seed, sampler=sampler,
                    batch_size=config["batch_size"],
                )  # fmt: skip
            layouts.append(drawn.numpy())
            advance(1)
    shares = np.divide(np.stack(layouts), 255, dtype=np.float32)
    means = {name: float(torch.as_tensor(field).float().mean()) for name, field in fields.items()}
    requested = {name: np.full(len(seeds), mean) for name, mean in means.items() if math.isfinite(mean)}
    measured = {name: v.astype(float) for name, v in measure(shares, spec.channels, spec.resolution_m).items()}
    return Samples(shares, requested, measured, seeds, spec), grids


def _cells(spec: LayoutSpec, extent_m: Any) -> tuple[int, int]:
    """Height and width in cells of `[width, height]` in metres; None is a window."""
    if extent_m is None:
        return spec.size_px, spec.size_px
    try:
        width, height = (round(float(length) / spec.resolution_m) for length in extent_m)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(
            "An extent is a width and a height in metres.", expected="[width,height], such as [2000,1500]", got=extent_m
        ) from None
    return height, width


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


def given_windows(generator: Any, config: Mapping[str, Any]) -> Windows:
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


def chosen_sampler(generator: Any, config: Mapping[str, Any]) -> Sampler | None:
    """Return the sampler that a configuration names or whose knobs it turns; None for the generator's own as it is.

    Raises
    ------
    CapabilityError
        For a knob that the generator's own sampler does not have.
    """
    given = {name: value for name, value in config.items() if value is not None}
    if "_target_" in given:
        chosen: Sampler = instantiate(given)
        return chosen
    if not given:
        return None
    knobs = [f.name for f in fields(generator.sampler)]
    for name in given:
        if name not in knobs:
            raise CapabilityError(
                f"{type(generator.sampler).__name__}, the sampler of this model, has no such knob.",
                got=name,
                choices=knobs,
            )
    kind = type(generator.sampler)
    check_signatures({"_target_": f"{kind.__module__}.{kind.__qualname__}", **given}, "sampler")
    own: Sampler = replace(generator.sampler, **given)
    return own


def grids_of(
    generator: Any, n: int, georeference: Mapping[str, Any], asked_place: str | None, columns: int = COLUMNS
) -> list[Grid]:
    """Return where `n` layouts lie: side by side, from the corner that `georeference` names or that of a place.

    Parameters
    ----------
    generator
        From `citygrain.load`.
    n
        How many.
    georeference
        As in `conf/sample.yaml`: `place`, `crs` and `origin`, each of which may be None.
    asked_place
        The place that the layouts were asked to be like; they lie there unless told otherwise.
    columns
        How many lie in a row from west to east.

    Raises
    ------
    ConfigError
        For a place on Earth that cannot be.
    """
    spec: LayoutSpec = generator.spec
    corner = _corner(generator.provenance["data"]["places"], georeference, asked_place)
    return list(_side_by_side(spec.shape[1:], spec.resolution_m, n, corner, columns))


def _corner(
    places: Mapping[str, Any], georeference: Mapping[str, Any], asked_place: str | None
) -> tuple[str, float, float]:
    """CRS, easting and northing of the first layout's north-west corner."""
    crs, origin = georeference["crs"], georeference["origin"]
    if (crs is None) != (origin is None) or (crs is not None and georeference["place"] is not None):
        raise ConfigError(
            "Where the layouts lie is not clear.",
            expected="georeference.place, or both georeference.crs and georeference.origin, or none",
            got={k: v for k, v in georeference.items() if v is not None},
        )
    if crs is not None:
        try:
            east, north = map(float, origin)
        except (TypeError, ValueError):
            east = north = math.nan
        if not math.isfinite(east + north):
            raise ConfigError("An origin is an easting and a northing in metres.", expected="[x,y]", got=origin)
        try:
            known = CRS.from_user_input(crs)
        except CRSError as error:
            raise ConfigError(
                "This is no coordinate reference system.", got=crs, expected="such as EPSG:32633"
            ) from error
        if not known.is_projected or any(axis.unit_conversion_factor != 1 for axis in known.axis_info[:2]):
            raise ConfigError(
                "Layouts are laid out in metres.", got=crs, expected="a projected CRS in metres, such as EPSG:32633"
            )
        return known.to_string(), east, north
    name = georeference["place"] or asked_place or next(iter(places), "")
    if name not in places:
        raise ConfigError("The checkpoint knows no such place to put the layouts at.", got=name, choices=places)
    left, top = places[name]["grid"]["left_top"]
    return str(places[name]["crs"]), float(left), float(top)


def write(samples: Samples, out: Path, grids: Sequence[Grid], columns: int = COLUMNS) -> None:
    """Write `sheet.png`, `layouts.npz`, `measured.csv` and one GeoTIFF a layout; each file whole or not at all.

    Parameters
    ----------
    samples
        What to write.
    out
        The folder; it is made where it is missing.
    grids
        Where each lies.
    columns
        How many stand in a row of the sheet.
    """
    spec = samples.spec
    layouts = (samples.layouts * 255).round().astype(np.uint8)
    for stale in sorted((out / "layouts").glob("layout_*.tif"))[len(layouts) :]:
        stale.unlink()  # of a larger sample that this one replaces
    for i, (grid, layout) in enumerate(zip(grids, layouts, strict=True)):
        with atomic_path(out / "layouts" / f"layout_{i:04d}.tif") as temporary:
            write_geotiff(temporary, layout, spec.channels, grid)
    with atomic_path(out / "layouts.npz") as temporary:
        arrays: dict[str, Any] = {f"requested_{k}": v for k, v in samples.requested.items()}
        arrays |= {f"measured_{k}": v for k, v in samples.measured.items()}
        np.savez_compressed(
            temporary,
            layouts=layouts,
            channels=spec.channels,
            resolution_m=spec.resolution_m,
            raster_format=spec.raster_format,
            seeds=samples.seeds,
            **arrays,
        )
    rows = io.StringIO()
    measured = list(samples.measured)
    requested = list(samples.requested)
    writer_ = csv.writer(rows)
    writer_.writerow(["layout", "seed", *(f"requested_{k}" for k in requested), *(f"measured_{k}" for k in measured)])
    for i, seed in enumerate(samples.seeds):
        values = [samples.requested[k][i] for k in requested] + [samples.measured[k][i] for k in measured]
        writer_.writerow([f"layout_{i:04d}", seed, *(f"{v:.6g}" for v in values)])
    write_text(out / "measured.csv", rows.getvalue())
    titles = [_title(samples, i) for i in range(len(layouts))]
    sheet(
        layouts,
        spec.channels,
        out / "sheet.png",
        titles=titles,
        columns=min(columns, len(layouts)),
        resolution_m=spec.resolution_m,
    )


def write_geotiff(path: Path, layout: NDArray[np.uint8], channels: Sequence[str], grid: Grid) -> None:
    """Write coverage 0–255, one named band a channel."""
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint8", count=len(layout), width=grid.width, height=grid.height,
        crs=grid.crs, transform=grid.transform, compress="deflate", photometric="minisblack",
    ) as tif:  # fmt: skip
        tif.write(layout)
        tif.descriptions = tuple(channels)
        tif.update_tags(TIFFTAG_COPYRIGHT=ATTRIBUTION)


def _side_by_side(
    shape: tuple[int, int], cell: float, n: int, corner: tuple[str, float, float], columns: int = COLUMNS
) -> Iterator[Grid]:
    """Places for layouts from a north-west corner to the east and, row by row, to the south, as on the sheet."""
    (height, width), (crs, left, top) = shape, corner
    for i in range(n):
        row, column = divmod(i, columns)
        east, south = column * (width + GAP_CELLS) * cell, row * (height + GAP_CELLS) * cell
        yield Grid(crs, left + east, top - south, cell, width, height)


def _title(samples: Samples, i: int) -> str:
    parts = [f"{k} {samples.requested[k][i]:.3g} → {samples.measured[k][i]:.3g}" for k in samples.requested]
    return "\n".join(parts[:3]) if parts else f"seed {samples.seeds[i]}"


def table(samples: Samples) -> Table:
    """Requested against measured over all layouts, one row a condition."""
    if not samples.measured:
        raise ConditionError("Nothing can be measured on these layouts.", got=samples.spec.channels)
    shown = Table(title=f"{len(samples.layouts)} layouts: requested and measured")
    for heading in ("condition", "unit", "requested", "measured", "10th to 90th percentile", "mean error"):
        shown.add_column(heading, justify="left" if heading in {"condition", "unit"} else "right")
    for name, values in samples.measured.items():
        asked = samples.requested.get(name)
        low, high = np.percentile(values, [10, 90])
        shown.add_row(
            name,
            MEASURES[name].unit,
            "" if asked is None else f"{np.nanmean(asked):.4g}",
            f"{values.mean():.4g}",
            f"{low:.4g} – {high:.4g}",
            "" if asked is None else f"{np.nanmean(np.abs(values - asked)):.4g}",
            style=None if asked is None else "bold",
        )
    return shown
