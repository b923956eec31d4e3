"""Polygons and lines of any origin: cadastres, footprints out of aerial pictures, land registers.

Any vector format of GDAL (GeoPackage, Shapefile, GeoJSON, FlatGeobuf, …) and GeoParquet, which GDAL's wheels cannot
read; of those with a spatial index or a `bbox` column only what meets the place is read.

OpenStreetMap's tags say what a feature is. Elsewhere the file's owner decides, so its user says which column and which
of its values make a channel. Everything else is unknown, not absent.
"""

from __future__ import annotations

import json
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
from citygrain.geo.sources import Features, Progress
from citygrain.geo.sources._files import BBox, one_path, outside
from citygrain.geo.sources._identity import fingerprint

ANY_VALUE = "*"
PARQUET = (".parquet", ".geoparquet")

COLLECTION = 7
"""Type id of shapely."""

EDGE_PIECES = 64
"""Pieces that each edge of the file's box is cut into before it is projected: it may be straight in no other CRS."""

NO_GEOMETRY = "features without geometry"
NO_EXTENT = "geometries without extent"
NOT_DRAWN = "features of no rule"
OTHER_SHAPE = "geometries of a shape that their channel does not draw"

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
            When the file is missing, damaged or elsewhere, or lacks a layer or a column.
        """
        report = progress or (lambda _fraction, _message: None)
        rules = self.all_rules
        report(0.0, f"reading {one_path(self.path).name}")
        with _plain_errors(self.path):
            file = _open(self)
            covered = _to_degrees(file)
            if not place.area.intersects(covered):
                raise outside(place, covered.bounds, file.path)
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

    def read(self, columns: list[str], box: tuple[float, float, float, float]) -> tuple[gpd.GeoDataFrame, int]:
        """Read some columns of what meets a box in the file's CRS, and count features without geometry anywhere."""
        info = pyogrio.read_info(self.path, layer=self.layer)
        nowhere = f'"{info["geometry_name"]}" IS NULL' if info["geometry_name"] else "OGR_GEOMETRY IS NULL"
        # With their geometries, which are none: without, GDAL takes all for missing.
        missing = pyogrio.read_dataframe(self.path, layer=self.layer, columns=[], where=nowhere)
        return pyogrio.read_dataframe(self.path, layer=self.layer, columns=columns, bbox=box), len(missing)


@dataclass(frozen=True)
class _Parquet(_File):
    """GeoParquet."""

    geometry: str
    indexed: bool

    def read(self, columns: list[str], box: tuple[float, float, float, float]) -> tuple[gpd.GeoDataFrame, int]:
        """Read as `_File` does; without a column of boxes, all of it."""
        box_of = {"bbox": box} if self.indexed else {}
        frame = gpd.read_parquet(self.path, columns=[*columns, self.geometry], **box_of)
        batches = pq.ParquetFile(self.path).iter_batches(columns=[self.geometry])
        missing = sum(batch.column(0).null_count for batch in batches)
        frame = frame[~shapely.is_missing(frame.geometry.to_numpy())]
        return frame if self.indexed else frame[frame.intersects(shapely.box(*box))], missing


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
        remedy="source.crs=EPSG:…, a .prj beside a Shapefile, or GeoJSON in longitude, latitude",
    )


def _to_degrees(file: _File) -> BaseGeometry:
    """Box of a file, longitude and latitude, its edges followed."""
    left, bottom, right, top = file.bounds
    box = shapely.box(left, bottom, right, top)
    edge = max(right - left, top - bottom)
    if not edge > 0:
        raise SourceError(f"{file.path} covers no area.", got=f"all of it at {left:g}, {bottom:g}")
    project = pyproj.Transformer.from_crs(file.crs, WGS84, always_xy=True).transform
    found: BaseGeometry = shapely.transform(
        shapely.segmentize(box, edge / EDGE_PIECES), lambda xy: np.column_stack(project(xy[:, 0], xy[:, 1]))
    )
    return found


def _box_in(place: Place, crs: pyproj.CRS) -> tuple[float, float, float, float]:
    """Bounds of a place in a file's CRS."""
    box: tuple[float, float, float, float] = pyproj.Transformer.from_crs(WGS84, crs, always_xy=True).transform_bounds(
        *place.bbox
    )
    return box


def _sound(frame: gpd.GeoDataFrame, place: Place, crs: pyproj.CRS, skipped: Counter[str]) -> gpd.GeoDataFrame:
    """Return features in the place's CRS that are valid and meet it; what cannot be used is counted."""
    geometry = shapely.force_2d(frame.geometry.to_numpy())
    mixed = shapely.get_type_id(geometry) == COLLECTION
    geometry[mixed] = [_of_one_kind(collection) for collection in geometry[mixed]]
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


def _of_one_kind(collection: BaseGeometry) -> BaseGeometry:
    """Return the areas of a collection, its lines where there are none."""
    parts = shapely.get_parts(shapely.get_parts(collection))
    dimensions = shapely.get_dimensions(parts)
    return shapely.union_all(parts[dimensions == dimensions.max(initial=0)])


def _sorted(
    frame: gpd.GeoDataFrame, rules: Sequence[LayerRule], crs: str, skipped: Counter[str]
) -> dict[str, gpd.GeoDataFrame]:
    """Sort features into layers by the rules: in each channel by the first that fits."""
    lines = (shapely.get_dimensions(frame.geometry.to_numpy()) == 1).astype(bool)
    parts: dict[str, list[gpd.GeoDataFrame]] = {rule.channel: [] for rule in rules}
    seen = {name: np.zeros(len(frame), bool) for name in parts}
    for rule in rules:
        hit = _matches(frame, rule.where) & ~seen[rule.channel]
        seen[rule.channel] |= hit
        width = WIDTHS[rule.channel] or rule.width_m
        # Areas in a channel of lines would be taken for lengths; lines without a width cannot be drawn.
        drawn = hit & np.where(lines, width is not None, WIDTHS[rule.channel] is None)
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
