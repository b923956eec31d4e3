"""Polygons and lines of any origin: cadastres, footprints out of aerial pictures, land registers.

Any vector format of GDAL (GeoPackage, Shapefile, GeoJSON, FlatGeobuf, …) and GeoParquet, which GDAL's wheels cannot
read; of those with a spatial index or a `bbox` column only what meets the place is read.

OpenStreetMap's tags say what a feature is. Elsewhere the file's owner decides, so its user says which column and which
of its values make a channel. Everything else is unknown, not absent.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pyproj
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from citygrain.errors import ConfigError, SourceError
from citygrain.geo.layers import CHANNEL_NAMES, CHANNELS
from citygrain.geo.place import WGS84, Place
from citygrain.geo.sources import EmptyLayerWarning, Features, Progress
from citygrain.geo.sources._files import BBox, one_path, outside
from citygrain.geo.sources._identity import fingerprint

ANY_VALUE = "*"
PARQUET = (".parquet", ".geoparquet")

COLLECTION = 7
"""Type id of shapely."""

TOLD_VALUES = 30
"""Values of a column, the most frequent, that are told at most."""

SHAPES = ("points", "lines", "polygons")
"""Names of geometries by their dimension."""

EDGE_PIECES = 64
"""Pieces that each edge of the file's box is cut into before it is projected: it may be straight in no other CRS."""

NO_GEOMETRY = "features without geometry"
NO_EXTENT = "geometries without extent"
NOT_DRAWN = "features of no rule"
OTHER_SHAPE = "geometries of a shape that their channel does not draw"

CRS_REMEDY = "source.crs=EPSG:…"

WIDTHS = {channel.name: channel.width_m for channel in CHANNELS}


@dataclass(frozen=True)
class LayerRule:
    """Which features of a file make a channel.

    Parameters
    ----------
    channel
        The channel.
    where
        Column → its value, or values; `"*"` means any but missing ones. All columns must fit; none takes all features.
    width_m
        Width that lines are drawn with, in metres, where the channel has none of its own: rivers in `water`.
    """

    channel: str
    where: Mapping[str, Any] = field(default_factory=dict)
    width_m: float | None = None

    def __post_init__(self) -> None:
        if self.channel not in CHANNEL_NAMES:
            raise ConfigError("There is no such channel to draw.", got=self.channel, choices=CHANNEL_NAMES)
        if self.width_m is not None and WIDTHS[self.channel] is not None:
            raise ConfigError(
                f"All lines in {self.channel} have one width, so that their lengths can be measured.",
                expected=f"no width_m ({WIDTHS[self.channel]:g} m)",
                got=self.width_m,
            )
        if self.width_m is not None and not self.width_m > 0:
            raise ConfigError("Lines are drawn with a width.", expected="width_m above 0, in metres", got=self.width_m)


@dataclass(frozen=True)
class LayersFile:
    """Features of a place from a file of polygons or lines.

    Parameters
    ----------
    path
        The file (an Esri geodatabase is a folder).
    licence
        Whose data it is and under which licence, in words: it goes wherever the data go.
    channel
        The channel that all features make.
    rules
        Or which features make which: mappings with the parameters of `LayerRule`. The first that fits in a channel
        draws a feature; it may be in several channels.
    layer
        Name of the layer, in files that hold several.
    crs
        The CRS of the coordinates, where the file does not say it, or wrongly.
    date
        What the data are of, such as `"2024-05-01"`.

    Raises
    ------
    ConfigError
        When both or neither of `channel` and `rules` are given, or they do not fit.
    """

    path: str | Path
    licence: str
    channel: str | None = None
    rules: Sequence[Mapping[str, Any]] | None = None
    layer: str | None = None
    crs: str | None = None
    date: str | None = None

    def __post_init__(self) -> None:
        if not self.licence.strip():
            raise ConfigError(
                "Data belong to somebody.",
                expected="source.licence='\"whose data, which licence\"'",
                got="source.licence is empty",
                remedy="if they are your own, say so",
            )
        if (self.channel is None) == (not self.rules):
            raise ConfigError(
                "A file of features needs to be told what they are.",
                expected="source.channel=building, or source.rules=[{channel:green,where:{landuse:[park,forest]}}]",
                got="neither" if self.channel is None else "both",
                choices=CHANNEL_NAMES,
            )
        _ = self.all_rules

    @property
    def all_rules(self) -> list[LayerRule]:
        """The rules, in order."""
        if self.channel is not None:
            return [LayerRule(self.channel)]
        rules = []
        for rule in self.rules or ():
            try:
                rules.append(LayerRule(**{**rule, "where": dict(rule.get("where") or {})}))
            except (AttributeError, TypeError, ValueError) as error:
                raise ConfigError(
                    "This is no rule of which features make a channel.",
                    expected="{channel: green, where: {landuse: [park, forest]}}, with width_m for lines in water",
                    got=rule,
                ) from error
        return rules

    def identity(self) -> dict[str, Any]:
        """Return what else tells it apart."""
        names = ("licence", "channel", "rules", "layer", "crs", "date")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def extent(self) -> BBox:
        """`(west, south, east, north)` in degrees of all that is in the file.

        Raises
        ------
        SourceError
            When the file is missing, damaged, empty, or does not say where it lies.
        """
        with _plain_errors(self.path):
            west, south, east, north = _to_degrees(_open(self)).bounds
        return west, south, east, north

    def features(self, place: Place, progress: Progress | None = None) -> Features:
        """Return the features of a place.

        Raises
        ------
        SourceError
            When the file is missing, damaged or elsewhere, lacks a layer or a column, holds nothing that the rules of a
            channel fit, or nothing of a shape that it draws.

        Warns
        -----
        EmptyLayerWarning
            When a rule fits nothing in the place.
        """
        report = progress or (lambda _fraction, _message: None)
        rules = self.all_rules
        report(0.0, f"reading {one_path(self.path).name}")
        with _plain_errors(self.path):
            file = _open(self)
            covered = _to_degrees(file)
            if not place.area.intersects(covered):
                raise outside(place, covered.bounds, file.path, _crs_remedy(self, file))
            columns = sorted({column for rule in rules for column in rule.where})
            for column in columns:
                if column not in file.columns:
                    raise SourceError(
                        f"{file.path.name} has no such column.", got=column, choices=[str(c) for c in file.columns]
                    )
            frame, missing = file.read(columns, _box_in(place, file.crs))
            report(0.5, f"{len(frame):,} features")
            skipped = Counter({NO_GEOMETRY: missing})
            frame = _sound(frame, place, file.crs, skipped)
            idle = [rule for rule in rules if not _drawn_by(rule, frame).any()]
            if idle:
                whole, _ = file.read(columns, None)
                drawn = {rule.channel for rule in rules if _matches(whole, rule.where).any()}
                for rule in idle:
                    _check_rule(rule, whole, frame, rule.channel in drawn, file.path, place)
        layers = _sorted(frame, rules, place.crs, skipped)
        provenance = {
            "kind": "layers",
            "file": file.path.name,
            "sha256": fingerprint(file.path),
            "layer": file.layer,
            "rules": [{"channel": rule.channel, "where": dict(rule.where), "width_m": rule.width_m} for rule in rules],
            "date": self.date,
            "attribution": self.licence.strip(),
        }
        report(1.0, f"{len(frame):,} features")
        return Features(
            layers,
            place=place,
            provenance=provenance,
            valid=place.utm.intersection(place.project(covered)),
            unknown={name: f"not in {file.path.name}" for name in CHANNEL_NAMES if name not in layers},
            skipped=skipped,
        )


@dataclass(frozen=True)
class _File:
    """An open file: where it lies, and how to read a part of it."""

    path: Path
    layer: str | None
    columns: Sequence[str]
    crs: pyproj.CRS
    bounds: tuple[float, float, float, float]

    def read(self, columns: list[str], box: BBox | None) -> tuple[gpd.GeoDataFrame, int]:
        """Read some columns of what meets a box in the file's CRS, and count features without geometry anywhere."""
        info = pyogrio.read_info(self.path, layer=self.layer)
        nowhere = f'"{info["geometry_name"]}" IS NULL' if info["geometry_name"] else "OGR_GEOMETRY IS NULL"
        # With their geometries, which are none: without, GDAL takes all for missing.
        missing = pyogrio.read_dataframe(self.path, layer=self.layer, columns=[], where=nowhere)
        frame = pyogrio.read_dataframe(self.path, layer=self.layer, columns=columns, bbox=box)
        return frame[~shapely.is_missing(frame.geometry.to_numpy())], len(missing)


@dataclass(frozen=True)
class _Parquet(_File):
    """GeoParquet."""

    geometry: str
    indexed: bool

    def read(self, columns: list[str], box: BBox | None) -> tuple[gpd.GeoDataFrame, int]:
        """Read as `_File` does; without a column of boxes, all of it."""
        box_of = {"bbox": box} if self.indexed and box else {}
        frame = gpd.read_parquet(self.path, columns=[*columns, self.geometry], **box_of)
        batches = pq.ParquetFile(self.path).iter_batches(columns=[self.geometry])
        missing = sum(batch.column(0).null_count for batch in batches)
        frame = frame[~shapely.is_missing(frame.geometry.to_numpy())]
        return frame if self.indexed or not box else frame[frame.intersects(shapely.box(*box))], missing


def _open(source: LayersFile) -> _File:
    """Look into a file."""
    path = one_path(source.path)
    if not path.exists():
        raise SourceError("A file of polygons was to be read and is not there.", got=path, remedy="source.path=…")
    file = _open_parquet(source, path) if path.suffix.lower() in PARQUET else _open_gdal(source, path)
    if not np.isfinite(file.bounds).all():
        raise SourceError(f"{path} holds no geometry.", got=f"layer {file.layer}" if file.layer else "no features")
    return file


def _open_gdal(source: LayersFile, path: Path) -> _File:
    names = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
    layer = source.layer or (names[0] if len(names) == 1 else None)
    if layer not in names:
        raise SourceError(
            f"{path.name} has no such layer." if layer else f"{path.name} holds several layers, or none with geometry.",
            got=layer or f"{len(names)} layers",
            choices=names,
            remedy=None if layer else "name one: source.layer=…",
        )
    info = pyogrio.read_info(path, layer=layer, force_total_bounds=True)
    crs = _crs(source, path, info["crs"])
    bounds = info["total_bounds"] or (np.nan,) * 4
    return _File(path, layer, list(info["fields"]), crs, bounds)


def _open_parquet(source: LayersFile, path: Path) -> _File:
    if source.layer is not None:
        raise SourceError("GeoParquet has no layers.", got=source.layer, remedy="leave out source.layer")
    schema = pq.read_schema(path)
    try:
        geo = json.loads((schema.metadata or {})[b"geo"])
        name = geo["primary_column"]
        about = geo["columns"][name]
    except (KeyError, ValueError) as error:
        raise SourceError(
            f"{path} is Parquet, but does not say where its geometries are.",
            expected="GeoParquet, with the metadata `geo`",
            got=f"columns {', '.join(schema.names[:12])}",
            remedy="write it with geopandas' to_parquet, or GDAL",
        ) from error
    crs = _crs(source, path, about.get("crs", "OGC:CRS84"))
    bounds = about.get("bbox")
    if bounds is None:
        bounds = gpd.read_parquet(path, columns=[name]).total_bounds.tolist()
    bounds = (*bounds[:2], *bounds[len(bounds) // 2 :][:2])  # three dimensions have six numbers
    columns = [column for column in schema.names if column != name]
    return _Parquet(path, None, columns, crs, bounds, name, "bbox" in about.get("covering", {}))


def _crs(source: LayersFile, path: Path, told: Any) -> pyproj.CRS:
    """The CRS of a file."""
    try:
        if told is not None or source.crs is not None:
            return pyproj.CRS.from_user_input(told if source.crs is None else source.crs)
    except pyproj.exceptions.CRSError as error:
        raise SourceError(
            f"The CRS of {path.name} is none.", got=error, remedy="such as source.crs=EPSG:25832"
        ) from error
    raise SourceError(
        f"{path} does not say in which CRS its coordinates are.",
        remedy=f"{CRS_REMEDY}, a .prj beside a Shapefile, or GeoJSON in longitude, latitude",
    )


def _to_degrees(file: _File) -> BaseGeometry:
    """Box of a file, longitude and latitude, its edges followed."""
    left, bottom, right, top = file.bounds
    if file.crs.is_geographic and (max(abs(bottom), abs(top)) > 90.01 or max(abs(left), abs(right)) > 360.01):
        swapped = max(map(abs, file.bounds)) <= 180 and max(abs(left), abs(right)) <= 90
        raise SourceError(
            f"The coordinates of {file.path} are no degrees, and {file.crs.name} has degrees.",
            expected="longitudes within ±180 and latitudes within ±90",
            got=f"{left:g} to {right:g}, and {bottom:g} to {top:g}",
            remedy="its latitudes come first, and longitudes must"
            if swapped
            else f"say in which CRS they are: {CRS_REMEDY}; GeoJSON itself says nothing but degrees",
        )
    box = shapely.box(left, bottom, right, top)
    edge = max(right - left, top - bottom)
    if not edge > 0:
        raise SourceError(f"{file.path} covers no area.", got=f"all of it at {left:g}, {bottom:g}")
    project = pyproj.Transformer.from_crs(file.crs, WGS84, always_xy=True).transform
    found: BaseGeometry = shapely.transform(
        shapely.segmentize(box, edge / EDGE_PIECES), lambda xy: np.column_stack(project(xy[:, 0], xy[:, 1]))
    )
    if not np.isfinite(found.bounds).all():
        raise SourceError(
            f"The coordinates of {file.path} are nowhere on the Earth in {file.crs.name}.",
            got=f"{left:g} to {right:g}, and {bottom:g} to {top:g}",
            remedy=f"say in which CRS they are: {CRS_REMEDY}",
        )
    return found


def _crs_remedy(source: LayersFile, file: _File) -> str:
    """What to do where a file lies elsewhere than the place."""
    told = (
        f"source.crs={source.crs} puts it there" if source.crs else f"by the file's own word it is in {file.crs.name}"
    )
    return f"take a file that covers the place; if it should, its CRS is another ({told}): {CRS_REMEDY}"


def _box_in(place: Place, crs: pyproj.CRS) -> tuple[float, float, float, float]:
    """Bounds of a place in a file's CRS."""
    box: tuple[float, float, float, float] = pyproj.Transformer.from_crs(WGS84, crs, always_xy=True).transform_bounds(
        *place.bbox
    )
    return box


def _sound(frame: gpd.GeoDataFrame, place: Place, crs: pyproj.CRS, skipped: Counter[str]) -> gpd.GeoDataFrame:
    """Return features in the place's CRS that are valid and meet it; what cannot be used is counted."""
    geometry = shapely.force_2d(_of_one_dimension(frame))
    mended = shapely.make_valid(geometry, method="structure", keep_collapsed=False)
    geometry = np.where(shapely.get_dimensions(geometry) == 2, mended, geometry)
    geometry = place.project(geometry, crs.to_wkt())
    usable = (
        ~shapely.is_empty(geometry) & (shapely.get_dimensions(geometry) > 0) & np.isfinite(shapely.length(geometry))
    )
    skipped[NO_EXTENT] += int((~usable).sum())
    shapely.prepare(place.utm)
    usable[usable] = shapely.intersects(place.utm, geometry[usable])
    return frame.set_geometry(gpd.GeoSeries(geometry, index=frame.index, crs=place.crs))[usable]


def _of_one_dimension(frame: gpd.GeoDataFrame) -> NDArray[np.object_]:
    """Geometries of features, of a collection those parts that count."""
    geometry: NDArray[np.object_] = np.array(frame.geometry.to_numpy(), dtype=object)
    mixed = shapely.get_type_id(geometry) == COLLECTION
    geometry[mixed] = [_of_one_kind(collection) for collection in geometry[mixed]]
    return geometry


def _of_one_kind(collection: BaseGeometry) -> BaseGeometry:
    """Return the areas of a collection, its lines where there are none."""
    parts = shapely.get_parts(shapely.get_parts(collection))
    dimensions = shapely.get_dimensions(parts)
    return shapely.union_all(parts[dimensions == dimensions.max(initial=0)])


def _draws(rule: LayerRule, dimensions: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mask of the geometries that a rule's channel draws, `(n,)`.

    Areas in a channel of lines would be taken for lengths; lines without a width cannot be drawn.
    """
    width = WIDTHS[rule.channel]
    lines = dimensions == 1 if width or rule.width_m else np.zeros(len(dimensions), bool)
    return lines if width else lines | (dimensions == 2)


def _drawn_by(rule: LayerRule, frame: gpd.GeoDataFrame) -> NDArray[np.bool_]:
    """Mask of the features that a rule would draw if it were the only one, `(n,)`."""
    return _matches(frame, rule.where) & _draws(rule, shapely.get_dimensions(frame.geometry.to_numpy()))


def _check_rule(
    rule: LayerRule, whole: gpd.GeoDataFrame, inside: gpd.GeoDataFrame, drawn: bool, path: Path, place: Place
) -> None:
    """Refuse a rule whose channel nothing of a whole file fits, though of the right shape; warn of one without use.

    An empty channel would count as known: there would be no houses, where there was but a wrong word.
    """
    fits = _matches(whole, rule.where)
    words = " and ".join(f"{column}: {_listed(wanted)}" for column, wanted in rule.where.items())
    if fits.any():
        dimensions = shapely.get_dimensions(_of_one_dimension(whole[fits]))
        if not _draws(rule, dimensions).any():
            raise _wrong_shape(rule, dimensions, path, words)
    elif not drawn:
        column, values = _misfit(rule.where, whole)
        raise SourceError(
            f"Nothing in {path.name} makes {rule.channel}: no feature has {words}.",
            expected=f"a value that {column} has",
            got=_listed(rule.where[column]),
            choices=values,
            remedy=f"write one of these, or leave the rule out: {rule.channel} is unknown then",
        )
    if rule.where and not _matches(inside, rule.where).any():
        column, values = _misfit(rule.where, inside)
        warnings.warn(
            f"Nothing of {path.name} within {place.name} makes {rule.channel} by the rule {words}. "
            f"There, {column} has the values: {', '.join(values) or 'none'}.",
            EmptyLayerWarning,
            stacklevel=3,
        )


def _listed(wanted: Any) -> str:
    """One value of a rule, or several, in words."""
    return ", ".join(map(str, wanted)) if isinstance(wanted, list | tuple) else str(wanted)


def _misfit(where: Mapping[str, Any], frame: gpd.GeoDataFrame) -> tuple[str, list[str]]:
    """Return the first column that leaves nothing of what the columns before it fit, and the values that it has."""
    column = ""
    for column in where:
        hit = _matches(frame, {column: where[column]})
        if not hit.any():
            break
        frame = frame[hit]
    return column, frame[column].dropna().astype("str").value_counts().index[:TOLD_VALUES].tolist()


def _wrong_shape(rule: LayerRule, dimensions: NDArray[np.int64], path: Path, words: str) -> SourceError:
    counts = Counter(SHAPES[dimension] for dimension in dimensions[dimensions >= 0])
    areas = WIDTHS[rule.channel] is None
    wanted = ("polygons, or lines with width_m" if rule.channel == "water" else "polygons") if areas else "lines"
    held = " and ".join(counts) or "empty geometries"
    with_width = "a width makes lines areas: source.rules=[{channel:water,width_m:…}]; or "
    remedy = with_width if rule.channel == "water" and "lines" in counts else ""
    return SourceError(
        f"{path.name} holds {held} only{f' where {words}' if words else ''}, and {rule.channel} is not drawn of such.",
        expected=wanted,
        got=", ".join(f"{n:,} {shape}" for shape, n in counts.items()) or f"{len(dimensions):,} empty geometries",
        remedy=f"{remedy}take a file of {wanted.partition(',')[0]} for {rule.channel}, or leave it out: "
        "it is unknown then",
    )


def _sorted(
    frame: gpd.GeoDataFrame, rules: Sequence[LayerRule], crs: str, skipped: Counter[str]
) -> dict[str, gpd.GeoDataFrame]:
    """Sort features into layers by the rules: in each channel by the first that fits."""
    dimensions = shapely.get_dimensions(frame.geometry.to_numpy())
    lines = dimensions == 1
    parts: dict[str, list[gpd.GeoDataFrame]] = {rule.channel: [] for rule in rules}
    seen = {name: np.zeros(len(frame), bool) for name in parts}
    for rule in rules:
        hit = _matches(frame, rule.where) & ~seen[rule.channel]
        seen[rule.channel] |= hit
        width = WIDTHS[rule.channel] or rule.width_m
        drawn = hit & _draws(rule, dimensions)
        skipped[OTHER_SHAPE] += int((hit & ~drawn).sum())
        first = next(iter(rule.where), None)
        kind = frame[first][drawn].astype("str") if first else rule.channel
        widths = np.where(lines[drawn], np.nan if width is None else width, np.nan)
        columns = pd.DataFrame({"kind": kind, "width_m": widths}, index=frame.index[drawn])
        columns["kind"] = columns["kind"].astype("str")
        parts[rule.channel].append(gpd.GeoDataFrame(columns, geometry=frame.geometry[drawn], crs=crs))
    skipped[NOT_DRAWN] += int((~np.logical_or.reduce(list(seen.values()))).sum())
    return {name: pd.concat(found, ignore_index=True) for name, found in parts.items()}


def _matches(frame: gpd.GeoDataFrame, where: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Mask of the features whose columns have the values, `(n,)`; numbers and true or false also as words."""
    hit = np.ones(len(frame), bool)
    for column, wanted in where.items():
        values = list(wanted) if isinstance(wanted, list | tuple) else [wanted]
        there = frame[column].notna().to_numpy()
        if ANY_VALUE not in values:
            words = frame[column].astype("str").str.lower().isin([str(value).lower() for value in values])
            there = there & (words.to_numpy() | _equal(frame[column], values))
        hit &= there
    return hit


def _equal(column: pd.Series[Any], values: Sequence[Any]) -> NDArray[np.bool_]:
    """Mask of the numbers that are among the values, `(n,)`: whole ones with gaps between them come as fractions."""
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return np.zeros(len(column), bool)
    return column.isin([value for value in values if type(value) in {int, float}]).to_numpy()


@contextmanager
def _plain_errors(path: str | Path) -> Iterator[None]:
    """Turn the readers' errors into ours."""
    try:
        yield
    except (
        pyogrio.errors.DataSourceError,
        pyogrio.errors.DataLayerError,
        pyogrio.errors.FeatureError,
        pyogrio.errors.GeometryError,
        pa.ArrowException,
        shapely.errors.GEOSException,
        OSError,
        ValueError,
    ) as error:
        raise SourceError(
            f"{path} cannot be read as a file of polygons or lines.",
            expected="GeoPackage, Shapefile, GeoJSON, FlatGeobuf, GeoParquet or another vector format of GDAL",
            got=error,
        ) from error
