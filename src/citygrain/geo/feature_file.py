"""A file of polygons or lines in any vector format: where it lies, and how to read a part of it.

GDAL reads GeoPackage, Shapefile, GeoJSON, FlatGeobuf and many more; GeoParquet, which GDAL's wheels cannot read, is
read by geopandas. Of files with a spatial index or a `bbox` column only what meets the place is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pyproj
import shapely
from shapely.geometry.base import BaseGeometry

from citygrain.errors import SourceError
from citygrain.geo.place import WGS84
from citygrain.geo.sources.files import BBox, take_one_path

PARQUET = (".parquet", ".geoparquet")

EDGE_PIECES = 64
"""Pieces that each edge of the file's box is cut into before it is projected: in another CRS it is a curve."""

CRS_REMEDY = "source.crs=EPSG:…"


@dataclass(frozen=True)
class FeatureFile:
    """An open file: where it lies, and how to read a part of it."""

    path: Path
    layer: str | None
    columns: Sequence[str]
    crs: pyproj.CRS
    bounds: tuple[float, float, float, float]

    def read(self, columns: list[str], box: BBox | None) -> tuple[gpd.GeoDataFrame, int]:
        """Read some columns of what meets a box in the file's CRS; count all features that have no geometry."""
        info = pyogrio.read_info(self.path, layer=self.layer)
        nowhere = f'"{info["geometry_name"]}" IS NULL' if info["geometry_name"] else "OGR_GEOMETRY IS NULL"
        # They are read with their geometries, which are missing: without, GDAL says that all are missing.
        missing = pyogrio.read_dataframe(self.path, layer=self.layer, columns=[], where=nowhere)
        frame = pyogrio.read_dataframe(self.path, layer=self.layer, columns=columns, bbox=box)
        return frame[~shapely.is_missing(frame.geometry.to_numpy())], len(missing)


@dataclass(frozen=True)
class _ParquetFile(FeatureFile):
    """GeoParquet."""

    geometry: str
    indexed: bool

    def read(self, columns: list[str], box: BBox | None) -> tuple[gpd.GeoDataFrame, int]:
        """Read as `FeatureFile` does; a file without a column of boxes is read as a whole."""
        box_of = {"bbox": box} if self.indexed and box else {}
        frame = gpd.read_parquet(self.path, columns=[*columns, self.geometry], **box_of)
        batches = pq.ParquetFile(self.path).iter_batches(columns=[self.geometry])
        missing = sum(batch.column(0).null_count for batch in batches)
        frame = frame[~shapely.is_missing(frame.geometry.to_numpy())]
        return frame if self.indexed or not box else frame[frame.intersects(shapely.box(*box))], missing


def open_feature_file(path: str | Path, layer: str | None = None, crs: str | None = None) -> FeatureFile:
    """Look into a file.

    Parameters
    ----------
    path
        The file.
    layer
        Name of the layer, in files that hold several.
    crs
        The CRS of the coordinates, where the file does not say it, or wrongly.

    Raises
    ------
    SourceError
        When the file or the layer is missing, holds no geometry, or does not say in which CRS it is.
    """
    path = take_one_path(path)
    if not path.exists():
        raise SourceError("A file of polygons was to be read and is not there.", got=path, remedy="source.path=…")
    file = _open_parquet(path, layer, crs) if path.suffix.lower() in PARQUET else _open_gdal(path, layer, crs)
    if not np.isfinite(file.bounds).all():
        raise SourceError(f"{path} holds no geometry.", got=f"layer {file.layer}" if file.layer else "no features")
    return file


def _open_gdal(path: Path, wanted: str | None, crs: str | None) -> FeatureFile:
    names = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
    layer = wanted or (names[0] if len(names) == 1 else None)
    if layer not in names:
        raise SourceError(
            f"{path.name} has no such layer." if layer else f"{path.name} holds several layers, or none with geometry.",
            got=layer or f"{len(names)} layers",
            choices=names,
            remedy=None if layer else "name one: source.layer=…",
        )
    info = pyogrio.read_info(path, layer=layer, force_total_bounds=True)
    found = _find_crs(path, crs, info["crs"])
    bounds = info["total_bounds"] or (np.nan,) * 4
    return FeatureFile(path, layer, list(info["fields"]), found, bounds)


def _open_parquet(path: Path, wanted: str | None, crs: str | None) -> FeatureFile:
    if wanted is not None:
        raise SourceError("GeoParquet has no layers.", got=wanted, remedy="leave out source.layer")
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
    found = _find_crs(path, crs, about.get("crs", "OGC:CRS84"))
    bounds = about.get("bbox")
    if bounds is None:
        bounds = gpd.read_parquet(path, columns=[name]).total_bounds.tolist()
    bounds = (*bounds[:2], *bounds[len(bounds) // 2 :][:2])  # three dimensions have six numbers
    columns = [column for column in schema.names if column != name]
    return _ParquetFile(path, None, columns, found, bounds, name, "bbox" in about.get("covering", {}))


def _find_crs(path: Path, wanted: str | None, told: Any) -> pyproj.CRS:
    """Return the CRS of a file: the one that its user wants, or else the one that the file tells."""
    try:
        if told is not None or wanted is not None:
            return pyproj.CRS.from_user_input(told if wanted is None else wanted)
    except pyproj.exceptions.CRSError as error:
        raise SourceError(
            f"PROJ does not know the CRS of {path.name}.", got=error, remedy="such as source.crs=EPSG:25832"
        ) from error
    raise SourceError(
        f"{path} does not say in which CRS its coordinates are.",
        remedy=f"{CRS_REMEDY}, a .prj beside a Shapefile, or GeoJSON in longitude, latitude",
    )


def find_covered(file: FeatureFile) -> BaseGeometry:
    """Return the box of a file as a polygon in longitude and latitude, which follows the box's edges."""
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


@contextmanager
def translate_errors(path: str | Path) -> Iterator[None]:
    """Turn the errors of the readers into a `SourceError`."""
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
