"""What the page does, without the page: plain values in; pictures, tables and files out."""

from __future__ import annotations

import math
import threading
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.errors import RasterioError
from rasterio.windows import Window

from citygrain.data.dataset import find_place
from citygrain.errors import CapabilityError, ConfigError, DataError
from citygrain.generation import edits
from citygrain.generation.edits import part_asked
from citygrain.generation.given import Given
from citygrain.generation.sampling import sample
from citygrain.generation.site import Site, locate_site, read_site
from citygrain.generation.windows import draw
from citygrain.geo.cityraster import MANIFEST, CityRaster
from citygrain.geo.layers import find_parts, select_channels
from citygrain.geo.layout_files import find_grid
from citygrain.geo.rasterize import Grid
from citygrain.geo.vector_files import write_layers
from citygrain.latent import CodePath, Codes, codec_of, decode, encode_places, follow, interpolate
from citygrain.layouts import Layouts
from citygrain.measures import MEASURES, measure, settled
from citygrain.plot import sheet, to_rgb
from citygrain.protocols import Completes, Denoiser, Holds, Sampler
from citygrain.samplers.base import fitting
from citygrain.spec import NO_PLACE, Conditions, LayoutSpec
from citygrain.support.devices import device_of
from citygrain.support.files import atomic_path

Picture = NDArray[np.uint8]
Row = list[str]

MOST_LAYOUTS, MOST_ATTEMPTS, MOST_STEPS = 8, 8, 25
LARGEST_SEED = 2**53 - 1000
"""A browser's numbers are exact up to 2⁵³."""

SHARE = "share"

EDITED = {"streets_going_on": "streets that go on across the edge", "stayed": "cover that stayed"}
"""What an edit is measured by besides the conditions."""

SHEET_PX = 768
"""About the width of a sheet on the page."""

CANVAS_PX = 512
"""About the width of what one paints on."""

LIKELY = 256
"""Layouts that say which codes are likely, for a walk along a measure."""

CODED = 64
"""Of them, as many are encoded at once."""


@dataclass(frozen=True)
class Range:
    """What a condition's slider can be asked for.

    Attributes
    ----------
    name, label
        Of the condition; the label has its unit.
    low, high
        Of the training windows, in the unit, rounded to whole steps within.
    middle
        The median.
    step
        Of the slider.
    """

    name: str
    label: str
    low: float
    high: float
    middle: float
    step: float


@dataclass(frozen=True)
class Knob:
    """A number that a sampler may have: its name, what it does, and how far it goes."""

    name: str
    does: str
    low: float
    high: float
    step: float


KNOBS = (
    Knob("steps", "more are finer and slower", 1, 200, 1),
    Knob("guidance", "1 follows the conditions as learned, more exaggerates them", 0, 5, 0.1),
    Knob(
        "tolerance",
        "of requests, in standard deviations: smaller pulls harder, empty does not",
        0,
        10,
        0.01,
    ),
    Knob("temperature", "below 1 more typical, above 1 more diverse", 0, 2, 0.05),
    Knob("truncation", "below 1 more typical, less diverse", 0, 1, 0.05),
)
"""Those of `citygrain.samplers` that the page turns; the others stay as the model has them."""


@dataclass(frozen=True)
class Studio:
    """A model, and what it needs to draw for several people.

    Attributes
    ----------
    name
        The checkpoint.
    generator
        From `citygrain.load`. Nobody changes it.
    data
        Where prepared places are.
    turn
        Held while something is drawn: pictures and models take one request at a time.
    """

    name: str
    generator: Any
    data: Path
    turn: threading.Lock

    @property
    def spec(self) -> LayoutSpec:
        """What the layouts are."""
        return self.generator.spec

    @cached_property
    def ranges(self) -> tuple[Range, ...]:
        """A slider for each condition that the training windows vary in."""
        found = (range_of(self.spec, name) for name in self.spec.scalars)
        return tuple(one for one in found if one is not None)

    @cached_property
    def samplers(self) -> dict[str, Sampler]:
        """The samplers that fit, the model's own first; the others with its knobs where they have them."""
        own = self.generator.sampler
        kinds: dict[str, Any] = {type(own).__name__: type(own)} | fitting(self.generator)
        return {
            name: own
            if isinstance(own, kind) and type(own) is kind
            else kind(**{f.name: getattr(own, f.name) for f in fields(kind) if hasattr(own, f.name)})
            for name, kind in kinds.items()
        }

    @property
    def edits(self) -> bool:
        """Whether the model can keep a part of a layout."""
        completes = any(isinstance(sampler, Completes) for sampler in self.samplers.values())
        return completes and isinstance(self.generator, Holds)

    @property
    def varies(self) -> bool:
        """Whether the model can begin from a layout that is there."""
        return isinstance(self.generator, Denoiser)

    @property
    def at_hand(self) -> list[str]:
        """Those of the training places that are prepared here."""
        prepared = prepared_places(self.data)
        return [place for place in self.spec.places if place in prepared]

    @cached_property
    def likely(self) -> Codes:
        """Codes of `LIKELY` training windows, or of what the model draws where none of its places is prepared."""
        if self.at_hand:
            with TemporaryDirectory() as kept:
                return encode_places(self.generator, self.data, count=LIKELY, places=self.at_hand, folder=kept)
        codec, spec = codec_of(self.generator), self.spec
        # Where nothing is asked for, guidance and tolerance change nothing but the time it takes.
        quick = {"steps": 8, "guidance": 1, "tolerance": None}
        sampler = turned(self, "DpmSolver", quick) if "DpmSolver" in self.samplers else None
        with torch.no_grad():
            drawn = draw(self.generator, Conditions.empty(spec, LIKELY), range(LIKELY), sampler=sampler)
            parts = torch.split(drawn.tensor.to(device_of(codec)), CODED)
            codes = torch.cat([codec.encode(part).float().cpu() for part in parts]).numpy()
        nowhere, numbers = np.full(LIKELY, NO_PLACE), np.arange(LIKELY)
        return Codes(codes, nowhere, dict(drawn.measured), spec, lambda which: drawn.shares[list(which)], numbers)


def range_of(spec: LayoutSpec, name: str) -> Range | None:
    """Return how far a condition's slider goes; None where nothing would change, or nobody knows."""
    if name not in spec.statistics or name not in MEASURES or settled(name, spec.given):
        return None
    low, middle, high = (spec.quantile(name, p) for p in (0, 50, 100))
    if not high > low:
        return None
    rough = (high - low) / 100
    ten = 10.0 ** math.floor(math.log10(rough))
    step = next(m * ten for m in (1, 2, 5, 10) if m * ten >= rough * 0.999)
    digits = max(0, -math.floor(math.log10(step)))
    # Up to an ulp: a share of 1 was measured as 0.9999999.
    first, last = math.ceil(low / step - 1e-3), math.floor(high / step + 1e-3)
    rounded = [round(n * step, digits) for n in (first, last, min(max(round(middle / step), first), last))]
    label, unit = named(name)
    return Range(name, f"{label} [{unit}]", rounded[0], rounded[1], rounded[2], round(step, digits))


def named(name: str) -> tuple[str, str]:
    """Return label and unit of a measure as the page shows them; all those without a unit are shares."""
    about = MEASURES.get(name)
    label, unit = (about.label, about.unit) if about else (EDITED.get(name, name), "–")
    return label, SHARE if unit == "–" else unit


def number(value: float) -> str:
    """Return a measured number as the page shows it: nothing where there was nothing to measure."""
    return f"{value:.3g}" if math.isfinite(value) else ""


def asked(ranges: Sequence[Range], values: Sequence[float | None], ticked: Sequence[bool]) -> dict[str, float]:
    """Return what is asked for: the values of those conditions whose box is ticked, and nothing of the others."""
    return {
        one.name: float(value)
        for one, value, on in zip(ranges, values, ticked, strict=True)
        if on and value is not None
    }


def knobs_of(sampler: Sampler) -> dict[str, float | None]:
    """Return the knobs of a sampler that the page turns; None for an infinite one."""
    own = {f.name for f in fields(sampler)}  # samplers are dataclasses
    values = {knob.name: getattr(sampler, knob.name) for knob in KNOBS if knob.name in own}
    return {name: None if math.isinf(value) else value for name, value in values.items()}


def turned(studio: Studio, name: str, knobs: Mapping[str, float | None]) -> Sampler:
    """Return a sampler of the studio with other knobs; those that it does not have are left aside.

    Raises
    ------
    ConfigError
        For a sampler that does not fit the model, or values that cannot work.
    """
    if name not in studio.samplers:
        raise ConfigError("This sampler does not fit the model.", got=name, choices=studio.samplers)
    sampler = studio.samplers[name]
    values: dict[str, float] = {}
    for knob in KNOBS:
        if knob.name not in knobs_of(sampler):
            continue
        value = knobs.get(knob.name, getattr(sampler, knob.name))
        if value is None and knob.name == "tolerance":
            values[knob.name] = math.inf
        elif value is None or not knob.low <= value <= knob.high:
            raise ConfigError(
                f"{name} cannot work with this value of {knob.name}.",
                expected=f"{knob.low:g} to {knob.high:g}",
                got="nothing" if value is None else value,
            )
        else:
            values[knob.name] = round(value) if knob.name == "steps" else float(value)
    unchanged = {f.name: getattr(sampler, f.name) for f in fields(sampler)}
    kind: Any = type(sampler)
    made: Sampler = kind(**(unchanged | values))
    return made


@dataclass(frozen=True)
class Drawn:
    """Layouts as the page shows them.

    Attributes
    ----------
    picture
        All of them in map colours.
    rows
        `HEADINGS`: what was asked for and what was measured.
    zipped, vectors
        GeoTIFFs, and the same as GeoPackage, where they lie on Earth.
    samples
        The layouts.
    """

    picture: Picture
    rows: list[Row]
    zipped: Path
    vectors: Path
    samples: Layouts


HEADINGS = ("condition", "unit", "requested", "measured", "lowest – highest")


def draw_layouts(
    studio: Studio,
    wanted: Mapping[str, float],
    folder: Path,
    *,
    place: str | None = None,
    given: str | None = None,
    seed: int = 0,
    n: int = 4,
    attempts: int = 1,
    sampler: Sampler | None = None,
) -> Drawn:
    """Draw layouts, measure them, and write them as `citygrain sample` does.

    Parameters
    ----------
    studio
        The model.
    wanted
        Condition → value in its unit; what is not in it is not asked for.
    folder
        An empty one of this request alone, that the files are written to.
    place
        A training place that they are to be like; None for no matter which.
    given
        The prepared place that a model's given channels are taken from; None for the first that it was trained on.
    seed
        Layout i is drawn with seed + i.
    n
        How many.
    attempts
        How often one that misses its request is drawn, see `citygrain.generation.windows.draw`.
    sampler
        Another than the model's own.

    Raises
    ------
    ConfigError
        For another number of layouts or attempts than there may be, or a seed that is none.
    ConditionError, CapabilityError, DataError
        For what the model does not know, cannot do, or is not given.
    """
    spec = studio.spec
    first = checked_seed(seed)
    count = whole(n, "the number of layouts", 1, MOST_LAYOUTS)
    times = whole(attempts, "the number of attempts", 1, MOST_ATTEMPTS)
    where = given or place or spec.places[0]
    with studio.turn, torch.no_grad():
        samples = sample(
            studio.generator,
            count,
            conditions={**wanted, "place": place},
            seed=first,
            attempts=times,
            sampler=sampler,
            given=Given(where, "test" if where in spec.places else "all"),
            data=studio.data,
            show_progress=False,
        )
        samples.save(folder / "layouts")
        write_layers(samples.vectors(), "gpkg", folder)
        picture = _sheet(samples.cells, spec, [f"seed {s}" for s in samples.seeds])
    zipped = packed(folder / "layouts", folder / "layouts.zip")
    return Drawn(picture, table(samples), zipped, folder / "layouts.gpkg", samples)


def _sheet(
    layouts: NDArray[Any], spec: LayoutSpec, titles: Sequence[str], columns: int | None = None, **more: Any
) -> Picture:
    columns = columns or {1: 1, 2: 2, 3: 2, 4: 2, 5: 3, 6: 3}.get(len(layouts), 4)
    scale = max(1, SHEET_PX // columns // layouts.shape[-1])
    return sheet(
        layouts, spec.channels, titles=titles, columns=columns, scale=scale, resolution_m=spec.resolution_m, **more
    )


def table(samples: Layouts) -> list[Row]:
    """Return what was asked for and what was measured, in the columns of `HEADINGS`; what was asked for comes first."""
    rows = []
    for name in sorted(samples.measured, key=lambda name: name not in samples.requested):
        values, wanted = samples.measured[name], samples.requested.get(name)
        spread = f"{values.min():.3g} – {values.max():.3g}" if len(values) > 1 else ""
        rows.append([*named(name), "" if wanted is None else number(wanted[0]), number(values.mean()), spread])
    return rows


def packed(folder: Path, path: Path) -> Path:
    """Put the files of a folder into a ZIP."""
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
    return path


def whole(value: Any, what: str, low: int, high: int) -> int:
    """Return a whole number within limits.

    Raises
    ------
    ConfigError
        When it is none.
    """
    if not isinstance(value, int | float) or value != value // 1 or not low <= value <= high:
        raise ConfigError(f"This is not {what}.", expected=f"a whole number from {low} to {high}", got=value)
    return int(value)


def checked_seed(seed: Any) -> int:
    """Return a seed that can be drawn with, and exactly said in a browser."""
    return whole(seed, "a seed", 0, LARGEST_SEED)


PATH_HEADINGS = ("measure", "unit", "start", "here", "end")


def draw_path(
    studio: Studio,
    seeds: tuple[int, int],
    places: tuple[str | None, str | None],
    steps: int = 9,
    sampler: Sampler | None = None,
) -> CodePath:
    """Draw two layouts, and walk from the code of one to that of the other.

    Parameters
    ----------
    studio
        The model; it has a code, or works in one.
    seeds, places
        Of both ends; no place is no matter which.
    steps
        How many, both ends among them.
    sampler
        Another than the model's own.

    Raises
    ------
    CapabilityError
        For a model without a code, or one that is given channels.
    ConfigError
        For seeds or steps that are none.
    """
    codec, spec = codec_of(studio.generator), studio.spec
    _without_given(spec)
    ends = [checked_seed(seed) for seed in seeds]
    count = whole(steps, "the number of steps", 2, MOST_STEPS)
    with studio.turn, torch.no_grad():
        asked_of = Conditions.cat([Conditions.request(spec, 1, {"place": place}) for place in places])
        layouts = draw(studio.generator, asked_of, ends, sampler=sampler).tensor
        start, end = codec.encode(layouts.to(device_of(codec))).float().cpu().numpy()
        return interpolate(codec, start[None], end[None], count)


def show_step(studio: Studio, path: CodePath, step: int) -> tuple[Picture, list[Row]]:
    """Return the picture of a step between those of both ends, and `PATH_HEADINGS`."""
    last = len(path.positions) - 1
    here = min(max(int(step), 0), last)
    titles = ["start", f"{path.positions[here]:.0%} of the way", "end"]
    with studio.turn:
        picture = _sheet(path.layouts[[0, here, last], 0], path.spec, titles, columns=3)
    rows = [[*named(name), *(number(values[i, 0]) for i in (0, here, last))] for name, values in path.measured.items()]
    return picture, rows


WALK_HEADINGS = ("measure", "unit", "asked", "as drawn", "here")


@dataclass(frozen=True)
class Walk:
    """A layout that is changed until a measure is what it is to be, step by step.

    Attributes
    ----------
    path
        Step 0 is the layout as it was drawn, the others are the way.
    target
        The measure that is moved.
    asked
        `(S,)` in its unit, one for each step of the way.
    hold
        Measures that were to stay as they were.
    """

    path: CodePath
    target: str
    asked: NDArray[np.float64]
    hold: tuple[str, ...]


def walk_range(studio: Studio, name: str) -> tuple[float, float]:
    """Return from where to where a measure is moved unless told otherwise: percentiles 5 to 95 of the training."""
    about = next(one for one in studio.ranges if one.name == name)
    digits = max(0, -math.floor(math.log10(about.step)))
    low, high = (round(studio.spec.quantile(name, p), digits) for p in (5, 95))
    return (low, high) if high > low else (about.low, about.high)


def draw_walk(
    studio: Studio,
    seed: int,
    place: str | None,
    target: str,
    ends: tuple[float | None, float | None],
    hold: Sequence[str] = (),
    steps: int = 9,
    sampler: Sampler | None = None,
) -> Walk:
    """Draw a layout, and change it until a measure is what it is to be: see `citygrain.latent.follow`.

    Parameters
    ----------
    studio
        The model; it has a code, or works in one.
    seed, place
        Of the layout; no place is no matter which.
    target
        The measure to move.
    ends
        From and to, in its unit.
    hold
        Measures that are to stay as they are.
    steps
        How many, both ends among them.
    sampler
        Another than the model's own.

    Raises
    ------
    CapabilityError
        For a model without a code, or one that is given channels.
    ConfigError
        For a seed, steps or ends that are none, or a measure of which nobody knows how far it goes.
    """
    codec, spec = codec_of(studio.generator), studio.spec
    _without_given(spec)
    about = next((one for one in studio.ranges if one.name == target), None)
    if about is None:
        raise ConfigError("This measure cannot be moved.", got=target, choices=[one.name for one in studio.ranges])
    for end in ends:
        if end is None or not about.low <= end <= about.high:
            raise ConfigError(
                f"Training has seen no such {about.label}.",
                expected=f"{about.low:g} to {about.high:g}",
                got="nothing" if end is None else f"{end:g}",
            )
    first, count = checked_seed(seed), whole(steps, "the number of steps", 2, MOST_STEPS)
    keep = tuple(name for name in hold if name != target)
    with studio.turn:
        request = Conditions.request(spec, 1, {"place": place})
        with torch.no_grad():
            layout = draw(studio.generator, request, [first], sampler=sampler).tensor
            start = codec.encode(layout.to(device_of(codec))).float().cpu().numpy()
        now = float(measure(decode(codec, start), spec.channels, spec.resolution_m)[target][0])
        wanted = np.linspace(*ends, count)  # both are numbers
        path = follow(codec, start, target, [0, *(wanted - now)], studio.likely, hold=keep)
    return Walk(path, target, wanted, keep)


def show_walk(studio: Studio, walk: Walk, step: int) -> tuple[Picture, list[Row]]:
    """Return the picture of a step beside the layout as it was drawn, and `WALK_HEADINGS`, the moved measure first."""
    here = min(max(int(step), 0), len(walk.asked) - 1)
    label, unit = named(walk.target)
    titles = ["as drawn", f"{label}: {walk.asked[here]:.3g}{'' if unit == SHARE else f' {unit}'} asked"]
    with studio.turn:
        picture = _sheet(walk.path.layouts[[0, here + 1], 0], walk.path.spec, titles)
    rows = []
    for name in sorted(walk.path.measured, key=lambda name: (name != walk.target, name not in walk.hold)):
        drawn, now = walk.path.measured[name][[0, here + 1], 0]
        asked = number(walk.asked[here]) if name == walk.target else number(drawn) if name in walk.hold else ""
        rows.append([*named(name), asked, number(drawn), number(now)])
    return picture, rows


def _without_given(spec: LayoutSpec) -> None:
    if spec.given:
        raise CapabilityError(
            "Layouts around given channels are no ends of a path.", remedy="choose a model that draws from nothing"
        )


# Editing


@dataclass(frozen=True)
class Ground:
    """A layout that a site is painted on.

    Attributes
    ----------
    layout
        `(C, H, W)` uint8, one window of the model.
    grid
        Where it lies.
    """

    layout: NDArray[np.uint8]
    grid: Grid


def prepared_places(data: Path) -> list[str]:
    """Return the names of the places that are prepared in a folder."""
    return sorted(manifest.parent.name for manifest in data.glob(f"*/{MANIFEST}"))


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


def ground_at(studio: Studio, place: str | None, longitude: float | None, latitude: float | None) -> Ground:
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
    found = read_site(raster, studio.spec, outline, 0, one_window=True)
    return Ground(found.layout, found.grid)


def ground_of(studio: Studio, path: str | Path | None) -> Ground:
    """Read a layout from a GeoTIFF with the channels of the model; of a larger one, the window in its middle.

    Raises
    ------
    DataError
        For a file that is no such GeoTIFF.
    """
    spec = studio.spec
    if path is None:
        raise DataError("There is no file.", expected="a GeoTIFF as `citygrain sample` writes them")
    try:
        with rasterio.open(path) as tif:
            names = list(tif.descriptions)
            missing = [name for name in spec.channels if name not in names]
            if missing:
                raise DataError(
                    "This file lacks channels of the model.",
                    expected=f"bands named {', '.join(spec.channels)}",
                    got=", ".join(filter(None, names)) or f"{tif.count} bands without names",
                )
            whole = find_grid(tif, "This file")
            if abs(tif.transform.a - spec.resolution_m) > 1e-6 or min(tif.shape) < spec.size_px:
                raise DataError(
                    "This file has other cells than the model, or too few.",
                    expected=f"{spec.size_px} × {spec.size_px} cells of {spec.resolution_m:g} m or more",
                    got=f"{tif.height} × {tif.width} cells of {tif.transform.a:g} m",
                )
            row, column = ((length - spec.size_px) // 2 for length in tif.shape)
            window = Window(column, row, spec.size_px, spec.size_px)
            parts = {part for name in spec.channels for part in find_parts(name, spec.raster_format)}
            there = [name for name in names if name in parts]
            cells = tif.read([names.index(name) + 1 for name in there], window=window)
            left, top = whole.transform @ (column, row)
            grid = Grid(whole.crs, left, top, spec.resolution_m, spec.size_px, spec.size_px)
    except RasterioError as error:
        raise DataError(
            "This file cannot be read as a GeoTIFF.", expected="a GeoTIFF as `citygrain sample` writes them"
        ) from error
    if cells.dtype != np.uint8:
        if not (np.isfinite(cells).all() and cells.min() >= 0 and cells.max() <= 1):
            raise DataError("These are no shares of cells.", expected="0 to 255 as bytes, or numbers from 0 to 1")
        cells = np.rint(cells * 255)
    return Ground(select_channels(cells.astype(np.uint8), there, spec.channels, spec.raster_format), grid)


def canvas(studio: Studio, ground: Ground) -> Picture:
    """Paint a layout so large that one can paint on it."""
    with studio.turn:
        picture = to_rgb(ground.layout, studio.spec.channels)
    scale = max(1, CANVAS_PX // studio.spec.size_px)
    return picture.repeat(scale, 0).repeat(scale, 1)


def painted_cells(layers: Sequence[NDArray[np.uint8]], size: int) -> NDArray[np.bool_]:
    """Return the cells of which half or more is painted over, of RGBA layers of any size, as `(size, size)`."""
    cells = np.zeros((size, size), bool)
    for layer in layers:
        opaque = np.asarray(layer)[..., 3] > 0
        edges = [np.linspace(0, length, size + 1).round().astype(int)[:-1] for length in opaque.shape]
        if min(opaque.shape) < size:
            continue
        sums, counts = (
            np.add.reduceat(np.add.reduceat(of.astype(int), edges[0], 0), edges[1], 1)
            for of in (opaque, np.ones_like(opaque))
        )
        cells |= 2 * sums >= counts
    return cells


@dataclass(frozen=True)
class Edited:
    """A site before and after.

    Attributes
    ----------
    picture
        Both in map colours, the site outlined.
    rows
        `EDIT_HEADINGS`.
    zipped, vectors
        GeoTIFFs and measures, and the same as GeoPackage, where they lie on Earth.
    after
        `(C, H, W)` uint8.
    """

    picture: Picture
    rows: list[Row]
    zipped: Path
    vectors: Path
    after: NDArray[np.uint8]


EDIT_HEADINGS = ("measure", "unit", "of", "before", "asked", "after")


def redraw(
    studio: Studio,
    ground: Ground,
    free: NDArray[np.bool_],
    wanted: Mapping[str, float],
    folder: Path,
    *,
    place: str | None = None,
    seed: int = 0,
    strength: float = 1.0,
    sampler: Sampler | None = None,
) -> Edited:
    """Redraw a site under conditions, and write it as `citygrain edit` does.

    Parameters
    ----------
    studio, ground
        The model, and the layout that the site lies on.
    free
        `(H, W)`: the cells of the site. All others stay as they are.
    wanted
        Condition → value in its unit, of the site.
    folder
        An empty one of this request alone.
    place
        A training place that it is to be like.
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
    spec, first = studio.spec, checked_seed(seed)
    site = Site(ground.layout, free, ground.grid)
    with studio.turn:
        edit = edits.redraw(
            studio.generator, site, wanted, place=place, seeds=[first], sampler=sampler, strength=strength
        )
        edit.save(folder / "edit")
        picture = _sheet(edit.layouts.cells, spec, ["before", "after"], outline=free)
    told, after = edit.measured, edit.layouts.cells[1]
    rows = [
        _edit_row(name, part, told["before"][part][name], told["after_00"][part][name], wanted)
        for part in ("site", "area")
        for name in told["before"][part]
        if not name.startswith("stayed_") and (part == "site" or name not in told["before"]["site"])
    ]
    return Edited(picture, rows, packed(folder / "edit", folder / "edit.zip"), folder / "edit" / "layouts.gpkg", after)


def _edit_row(name: str, part: str, before: float, after: float, wanted: Mapping[str, float]) -> Row:
    said = number(wanted[name]) if name in wanted and part_asked(name) == part else ""
    return [*named(name), part, number(before), said, number(after)]
