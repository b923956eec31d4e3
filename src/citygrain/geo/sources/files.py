"""What all sources that read files need: they check the files, and say when a place lies outside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import shapely

from citygrain.errors import ConfigError, SourceError
from citygrain.geo.place import Place

BBox = tuple[float, float, float, float]


def list_paths(path: str | Path | Sequence[str | Path]) -> list[Path]:
    """Return one path or several as a list, each once.

    Raises
    ------
    ConfigError
        When there is none.
    """
    paths = list(path) if isinstance(path, list | tuple) else [path]
    if not paths:
        raise ConfigError("There is no file to read.", got="source.path=[]", remedy="source.path=FILE, or [FILE,FILE]")
    return list(dict.fromkeys(Path(str(one)).expanduser() for one in paths))


def take_one_path(path: str | Path | Sequence[str | Path]) -> Path:
    """Return the path of a source that reads one file.

    Raises
    ------
    ConfigError
        When there are several, or none.
    """
    paths = list_paths(path)
    if len(paths) > 1:
        raise ConfigError(
            "This source reads one file.",
            got=", ".join(map(str, paths)),
            remedy="source=overpass_json joins several replies, source=combined several sources",
        )
    return paths[0]


def check_file(path: str | Path, suffixes: tuple[str, ...], what: str, also: tuple[str, ...] = ()) -> Path:
    """Return the path of a file that can be read and whose name ends in one of the suffixes.

    Parameters
    ----------
    path
        The file.
    suffixes
        What its name ends in, as messages say.
    what
        What messages call it: "an OpenStreetMap extract".
    also
        Suffixes that pass too, since the content of such a file is refused later with better words.

    Raises
    ------
    SourceError
        When it is missing, a folder, empty, unreadable or of another kind.
    """
    path = take_one_path(path)
    if not path.name.lower().endswith(suffixes + also):
        raise SourceError(
            f"{path} is not {what} by its name.",
            expected=f"a name that ends in {' '.join(suffixes)}",
            got=path.name,
            remedy="source=file reads .osm.pbf, .osm (also as .gz or .bz2), .o5m and .opl; source=vectortiles reads "
            ".mbtiles; source=overpass_json reads replies of Overpass saved as .json; source=layers polygon files",
        )
    if not path.is_file():
        raise SourceError(
            f"{what[0].upper()}{what[1:]} was to be read and is not there.",
            got=path,
            remedy="give its path as source.path=…; regional extracts: https://download.geofabrik.de",
        )
    try:
        with path.open("rb") as file:
            start = file.read(1)
    except OSError as error:
        raise SourceError(f"{path} cannot be read.", got=error) from error
    if not start:
        raise SourceError(f"{path} is empty.", remedy="download it again")
    return path


def outside_error(place: Place, extent: BBox, path: Path, remedy: str | None = None) -> SourceError:
    """Return the error of a place that a file does not cover, with the hint that lies nearest."""
    south_first = shapely.box(place.bbox[1], place.bbox[0], place.bbox[3], place.bbox[2])
    swapped = south_first.intersects(shapely.box(*extent))
    return SourceError(
        f"{place.name} lies outside {path.name}.",
        expected=f"a place within [{', '.join(f'{v:.4f}' for v in extent)}] (west, south, east, north)",
        got=f"[{', '.join(f'{v:.4f}' for v in place.bbox)}]",
        remedy="latitude and longitude of the bbox look swapped"
        if swapped
        else remedy or "take an extract that covers the place, or leave the bbox out to take the file's own extent",
    )
