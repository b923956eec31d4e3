"""Sources of map features behind one function, `read_features`: Overpass, OSM files, vector tiles.

Whatever the source, a place comes back as the same eleven layers in the same schema, in the place's UTM zone, with what
the source cannot know, what it skipped and where it came from.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import geopandas as gpd
from shapely.geometry.base import BaseGeometry

from citygrain.errors import ConfigError, SourceError
from citygrain.geo.layers import CHANNEL_NAMES, SCHEMA, make_empty_layer
from citygrain.geo.place import Place
from citygrain.geo.sorting import Remainder
from citygrain.support.console import Progress as Progress

ATTRIBUTION = "© OpenStreetMap contributors, ODbL 1.0"


class EmptyLayerWarning(UserWarning):
    """A place came back without a single street or without a single building."""


class Features(Mapping[str, gpd.GeoDataFrame]):
    """Map features of a place: channel name → layer.

    Every channel of `CHANNEL_NAMES` has its layer, empty where nothing was found. Layers are in the place's UTM CRS
    with the columns `geometry`, `kind` (the value of the tag that made the feature) and `width_m` (drawn width of a
    line, NaN for areas); a layer may hold lines and areas.

    Parameters
    ----------
    layers
        Channel name to its features; channels left out are empty. Features may reach beyond the place.
    place
        The place they are of.
    provenance
        Plain JSON: `kind` of source, path or url, hash or query, `osm_date` where known. The attribution is
        OpenStreetMap's unless `attribution` says another.
    valid
        Where the source has data, in UTM; the whole area of the place when None.
    unknown
        Channel → why this source cannot know it. Its layer is empty, and that means nothing.
    partial
        Channel → what part of it this source does not see.
    skipped
        What could not be used, counted: broken relations, geometries that are no geometries.
    remainder
        Tag → what has it, is drawn nowhere, and was not decided against (`citygrain.geo.layers`).

    Attributes
    ----------
    counts : dict
        Channel → number of features.

    Raises
    ------
    ValueError
        When a layer has an unknown name, lacks a column or is in another CRS: a bug in a source.
    """

    def __init__(
        self,
        layers: Mapping[str, gpd.GeoDataFrame],
        *,
        place: Place,
        provenance: Mapping[str, Any],
        valid: BaseGeometry | None = None,
        unknown: Mapping[str, str] | None = None,
        partial: Mapping[str, str] | None = None,
        skipped: Mapping[str, int] | None = None,
        remainder: Mapping[str, Remainder] | None = None,
    ) -> None:
        strangers = set(layers) - set(CHANNEL_NAMES)
        if strangers:
            raise ValueError(f"no such channels: {sorted(strangers)}; choices: {CHANNEL_NAMES}")
        for name, layer in layers.items():
            missing = [c for c in SCHEMA if c not in layer]
            if missing or layer.crs != place.crs:
                raise ValueError(f"layer {name}: missing columns {missing}, CRS {layer.crs}, expected {place.crs}")
        self._layers = {n: layers[n] if n in layers else make_empty_layer(place.crs) for n in CHANNEL_NAMES}
        self.crs = place.crs
        self.valid: BaseGeometry = place.utm if valid is None else valid
        self.provenance: dict[str, Any] = {"attribution": ATTRIBUTION, **provenance}
        self.unknown = dict(unknown or {})
        self.partial = dict(partial or {})
        self.skipped = {reason: int(n) for reason, n in (skipped or {}).items() if n}
        self.remainder = dict(remainder or {})
        self.counts = {name: len(layer) for name, layer in self._layers.items()}

    def __getitem__(self, name: str) -> gpd.GeoDataFrame:
        return self._layers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __repr__(self) -> str:
        return f"Features({', '.join(f'{name}={n}' for name, n in self.counts.items())}, crs={self.crs})"


def check_unknown(unknown: Sequence[str] | None) -> list[str]:
    """Return the channels that are said to be unknown, each once, in order.

    Raises
    ------
    ConfigError
        For the name of no channel, or for all channels.
    """
    names = [unknown] if isinstance(unknown, str) else sorted(set(unknown or ()))
    for name in names:
        if name not in CHANNEL_NAMES:
            raise ConfigError("There is no such channel to declare unknown.", got=name, choices=CHANNEL_NAMES)
    if len(names) == len(CHANNEL_NAMES):
        raise ConfigError("Nothing would be known of the place.", got="all channels declared unknown")
    return names


def describe_origin(provenance: Mapping[str, Any]) -> str:
    """Return where features came from, in one line: the files or the server, of all parts."""
    parts = provenance.get("parts")
    if parts:
        each = {"base": provenance["base"], **parts}
        return "; ".join(f"{name}: {describe_origin(part)}" for name, part in each.items())
    files = [file["file"] for file in provenance.get("files", [provenance]) if "file" in file]
    return ", ".join(files) or str(provenance.get("url", provenance.get("kind", "this source")))


@runtime_checkable
class Source(Protocol):
    """Where features come from; a frozen value that holds its own parameters."""

    def features(self, place: Place, progress: Progress | None = None) -> Features:
        """Return the features of a place."""
        ...


def read_features(
    place: Place, source: Source, progress: Progress | None = None, *, unknown: Sequence[str] | None = None
) -> Features:
    """Return the map features of a place from any source, in one schema.

    Parameters
    ----------
    place
        The place.
    source
        `Overpass`, `OsmFile`, `VectorTiles` or anything that has their one method.
    progress
        Called now and then with the fraction done and a message.
    unknown
        Channels that this source lacks although the place has them, such as the buildings in an extract of streets.
        They are unknown then, and not taken for empty.

    Raises
    ------
    SourceError
        When the source is missing, damaged, does not answer or does not cover the place.
    ConfigError
        For the name of no channel, or for all channels.

    Warns
    -----
    EmptyLayerWarning
        When there is not one street or not one building: seldom a real city, more often a wrong extract.
    """
    if not isinstance(source, Source):
        raise SourceError(
            "This is no source of features.",
            expected="overpass, overpass_json, file, vectortiles, layers or combined",
            got=source,
        )
    unknown = check_unknown(unknown)
    found = source.features(place, progress)
    if unknown:
        found = Features(
            {name: layer for name, layer in found.items() if name not in unknown},
            place=place,
            provenance=found.provenance,
            valid=found.valid,
            unknown={**dict.fromkeys(unknown, "declared to be missing from this source"), **found.unknown},
            partial={name: what for name, what in found.partial.items() if name not in unknown},
            skipped=found.skipped,
            remainder=found.remainder,
        )
    origin = describe_origin(found.provenance)
    nothing = "" if any(found.counts.values()) else f" {origin} holds no tag that makes a channel there."
    for what, names in (("streets", ("arterial", "street")), ("buildings", ("building",))):
        if not any(found.counts[n] for n in names) and not all(n in found.unknown for n in names):
            warnings.warn(
                f"{place.name} has no {what} at all in this source.{nothing} If that is not so in reality, the extract "
                f"or the bbox is wrong: bbox {list(place.bbox)}, source {origin}. If the source holds none although "
                f"there are some, say so, and they are not taken for nothing: raster.unknown=[{','.join(names)}]",
                EmptyLayerWarning,
                stacklevel=2,
            )
    return found
