"""What `prepare` begins with: a place and a source, from the words of a person."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from citygrain.errors import CitygrainError, ConfigError, SourceError
from citygrain.geo.osm.formats import CHANGES, HISTORIES
from citygrain.geo.osm.formats import SUFFIXES as OSM_SUFFIXES
from citygrain.geo.place import Place, make_slug
from citygrain.geo.sources import Source
from citygrain.geo.sources.combined import Combined
from citygrain.geo.sources.files import list_paths
from citygrain.geo.sources.osmfile import OsmFile
from citygrain.geo.sources.overpass import Overpass
from citygrain.geo.sources.overpass_json import SUFFIXES as REPLY_SUFFIXES
from citygrain.geo.sources.overpass_json import OverpassJson
from citygrain.geo.sources.vectortiles import VectorTiles

OVERPASS = "overpass"
"""The name of a source that is no file."""

KINDS = (
    (OsmFile, OSM_SUFFIXES + HISTORIES + CHANGES),
    (VectorTiles, (".mbtiles",)),
    (OverpassJson, REPLY_SUFFIXES),
)
"""Sources that need nothing but a file, and what its name ends in."""


@runtime_checkable
class _File(Protocol):
    """A source that is a file, or several, and so has an extent of its own."""

    @property
    def path(self) -> str | Path | Sequence[str | Path]:
        """The file, or the files."""
        ...

    def extent(self) -> tuple[float, float, float, float]:
        """Return `(west, south, east, north)` in degrees."""
        ...


def choose_source(source: Source | str | Path) -> Source:
    """Return a source: the one that is given, Overpass, or the file of a path.

    Parameters
    ----------
    source
        A source, `"overpass"`, or the path of a file whose name tells its kind: `.osm.pbf` and the other endings of
        OpenStreetMap extracts, `.mbtiles` of OpenMapTiles, `.json` and `.json.gz` of saved replies of Overpass.

    Raises
    ------
    SourceError
        When the name of a file does not tell its kind.
    """
    if not isinstance(source, str | Path):
        return source
    if source == OVERPASS:
        return Overpass()
    for kind, suffixes in KINDS:
        if str(source).lower().endswith(suffixes):
            return kind(str(source))
    raise SourceError(
        "The name of this source does not tell what it is.",
        expected=f"{OVERPASS}, or a file that ends in .osm.pbf, .osm, .mbtiles or .json",
        got=source,
        remedy="polygons and lines of any origin are a citygrain.geo.sources.layers_file.LayersFile(path, licence=…, "
        "channel=…); others are built in the same way",
    )


def choose_place(
    place: str | Place | None,
    source: Source,
    *,
    name: str | None = None,
    bbox: Sequence[float] | None = None,
    polygon: str | Path | None = None,
    query: str | None = None,
) -> Place:
    """Return a place: the one that is given, a shipped one, or the area that the first of the keywords describes.

    Parameters
    ----------
    place
        A place, or the name of one that comes with citygrain (`conf/place`). Its name and bbox give way to `name` and
        `bbox`.
    source
        Where its features come from. If it is a file, and nothing says where the place is, the place is what it covers.
    name, bbox, polygon, query
        As for `citygrain.data.prepare.prepare`.

    Raises
    ------
    ConfigError
        When nothing says where the place is, or two things do; for a name that no shipped place has.
    PlaceError
        When it is no area, or cannot be looked up.
    SourceError
        When the extent of the source is needed and cannot be read.
    """
    if isinstance(place, Place):
        _refuse_second_place(name=name, bbox=bbox, polygon=polygon, query=query)
        return place
    if place is not None:
        shipped = _shipped_place(place)
        name, bbox = name or shipped["name"], shipped["bbox"] if bbox is None else bbox
    if bbox is not None and polygon is not None:
        raise ConfigError(
            "A place has a bbox or a polygon.",
            got=f"place.bbox={list(bbox)} and place.polygon={polygon}",
            remedy=f"leave out one; with a shipped place: place.name={name} place.polygon=… without place={name}",
        )
    if bbox is not None:
        return Place.from_bbox(name or "place", bbox)
    if polygon is not None:
        return Place.from_file(polygon, name)
    if query is not None:
        return Place.from_name(query, name)
    covered = _covered_place(source, name)
    if covered is not None:
        return covered
    if name is not None:
        return Place.from_name(name.replace("_", " "), make_slug(name))
    raise ConfigError(
        "Nothing says where the place is.",
        expected="place=<a shipped place>, or place.name with place.bbox=[west,south,east,north], "
        "place.polygon=<file> or place.query='City, Country'",
        remedy="for example: citygrain prepare place=copenhagen",
    )


def _refuse_second_place(**described: Any) -> None:
    given = {key: value for key, value in described.items() if value is not None}
    if given:
        raise ConfigError(
            "A Place says by itself where it is.", got=given, remedy=f"leave out {', '.join(given)}, or the Place"
        )


def _shipped_place(name: str) -> dict[str, Any]:
    """Return the name and the bbox of a place that comes with citygrain."""
    from citygrain.support.config import list_groups, load_config  # noqa: PLC0415  (Hydra takes its time)

    choices = list_groups()["place"]
    if name not in choices:
        raise ConfigError(
            "There is no place of this name.",
            got=name,
            choices=choices,
            remedy="describe one of your own by bbox=[west,south,east,north], polygon=<file> or query='City, Country'",
        )
    shipped: dict[str, Any] = load_config("prepare", [f"place={name}"])["place"]
    return shipped


def _covered_place(source: Source, name: str | None) -> Place | None:
    """Return all that a file covers, or the file that is the base of a combined source; None for other sources."""
    where = "source."
    while isinstance(source, Combined):
        source, where = source.base, f"{where}base."
    if not isinstance(source, _File):
        return None
    first = list_paths(source.path)[0]
    try:
        extent = source.extent()
    except CitygrainError as error:
        if where == "source.":
            raise
        raise error.with_subject("base of the combined source", {"source.": where}) from error
    return Place.from_bbox(name or make_slug(first.name.split(".", maxsplit=1)[0]), extent)
