"""Polygons and lines of any origin: cadastres, footprints out of aerial pictures, land registers.

Any vector format of GDAL (GeoPackage, Shapefile, GeoJSON, FlatGeobuf, …) and GeoParquet, which GDAL's wheels cannot
read; of those with a spatial index or a `bbox` column only what meets the place is read.

OpenStreetMap's tags say what a feature is. Elsewhere the file's owner decides, so its user says which column and which
of its values make a channel. Everything else is unknown, not absent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyproj

from citygrain.errors import ConfigError, SourceError
from citygrain.geo.feature_file import CRS_REMEDY, FeatureFile, find_covered, open_feature_file, translate_errors
from citygrain.geo.layer_rules import (
    NO_GEOMETRY,
    LayerRule,
    check_rule,
    find_drawn,
    find_matches,
    keep_usable,
    sort_features,
)
from citygrain.geo.layers import CHANNEL_NAMES
from citygrain.geo.place import WGS84, Place
from citygrain.geo.sources import Features, Progress
from citygrain.geo.sources.files import BBox, outside_error, take_one_path
from citygrain.geo.sources.identity import fingerprint


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
                "Nothing says whose data these are.",
                expected="source.licence='\"whose data, which licence\"'",
                got="source.licence is empty",
                remedy="if they are your own, say so",
            )
        if (self.channel is None) == (not self.rules):
            raise ConfigError(
                "The features of a file make one channel, or the channels of its rules: say which.",
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
                    "This rule does not say which features make a channel.",
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
        with translate_errors(self.path):
            west, south, east, north = find_covered(open_feature_file(self.path, self.layer, self.crs)).bounds
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
        report(0.0, f"reading {take_one_path(self.path).name}")
        with translate_errors(self.path):
            file = open_feature_file(self.path, self.layer, self.crs)
            covered = find_covered(file)
            if not place.area.intersects(covered):
                raise outside_error(place, covered.bounds, file.path, _name_crs(self, file))
            columns = sorted({column for rule in rules for column in rule.where})
            for column in columns:
                if column not in file.columns:
                    raise SourceError(
                        f"{file.path.name} has no such column.", got=column, choices=[str(c) for c in file.columns]
                    )
            frame, missing = file.read(columns, _project_box(place, file.crs))
            report(0.5, f"{len(frame):,} features")
            skipped = Counter({NO_GEOMETRY: missing})
            frame = keep_usable(frame, place, file.crs, skipped)
            idle = [rule for rule in rules if not find_drawn(rule, frame).any()]
            if idle:
                whole, _ = file.read(columns, None)
                drawn = {rule.channel for rule in rules if find_matches(whole, rule.where).any()}
                for rule in idle:
                    check_rule(rule, whole, frame, rule.channel in drawn, file.path, place)
        layers = sort_features(frame, rules, place.crs, skipped)
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


def _name_crs(source: LayersFile, file: FeatureFile) -> str:
    """What to do where a file lies elsewhere than the place."""
    told = (
        f"source.crs={source.crs} puts it there" if source.crs else f"by the file's own word it is in {file.crs.name}"
    )
    return f"take a file that covers the place; if it should, its CRS is another ({told}): {CRS_REMEDY}"


def _project_box(place: Place, crs: pyproj.CRS) -> tuple[float, float, float, float]:
    """Bounds of a place in a file's CRS."""
    box: tuple[float, float, float, float] = pyproj.Transformer.from_crs(WGS84, crs, always_xy=True).transform_bounds(
        *place.bbox
    )
    return box
