"""What only the text of an OpenStreetMap XML file tells: all its boxes, its date, and the marks of editors.

References
----------
https://wiki.openstreetmap.org/wiki/OSM_XML, https://wiki.openstreetmap.org/wiki/JOSM_file_format
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from citygrain.errors import SourceError
from citygrain.geo.osm.coverage import Box
from citygrain.geo.osm.formats import changes_error, open_unpacked, stranger_error

GEOMETRY_REMEDY = "end the query with `out body; >; out skel qt;`, without geom and center, and save its reply"


@dataclass
class Markup:
    """What only the text of an XML file tells: osmium keeps one of its `<bounds>`, and no marks of editors."""

    boxes: list[Box] = field(default_factory=list)
    date: str | None = None
    deleted: dict[str, set[int]] = field(default_factory=lambda: {"n": set(), "w": set(), "r": set()})
    located: bool = False
    """Whether ways hold the locations of their nodes."""

    @classmethod
    def of(cls, path: Path, kind: str) -> Markup:
        """Read through a file of XML."""
        markup = cls()
        parser = expat.ParserCreate()
        parents: list[str] = []
        remark: list[str] = []

        def start(name: str, attributes: dict[str, str]) -> None:
            depth = len(parents)
            parents.append(name)
            if depth == 0:
                _check_root(path, name)
            elif depth == 1:
                markup._element(name, attributes)
                if name == "remark":
                    parser.CharacterDataHandler = remark.append
            elif name == "nd" and depth == 2:
                if "lat" in attributes:
                    markup.located = True
            elif name == "center" or (depth == 3 and parents[-2] == "member"):
                raise SourceError(
                    f"{path} holds the geometry of its relations, or their centres, in place of their ways and nodes.",
                    got=f"<{name}> in a <{parents[-2]}>, as Overpass writes it for `out geom` and `out center`",
                    remedy=GEOMETRY_REMEDY,
                )

        def end(_name: str) -> None:
            parents.pop()
            parser.CharacterDataHandler = None

        parser.StartElementHandler = start
        parser.EndElementHandler = end
        with open_unpacked(path, kind.removeprefix("osm")) as file:
            parser.ParseFile(file)
        if "error" in "".join(remark):
            raise SourceError(
                f"{path} is a reply that Overpass could not finish: the rest of the data is missing.",
                got="".join(remark).strip(),
                remedy="ask for a smaller area, or with a longer [timeout:…], and save the reply again",
            )
        return markup

    def _element(self, name: str, attributes: dict[str, str]) -> None:
        """Note what a top-level element says."""
        if name in ("node", "way", "relation"):
            if attributes.get("action") == "delete":
                self.deleted[name[0]].add(int(attributes.get("id", 0)))
        elif name == "meta":
            self.date = attributes.get("osm_base")
        elif name == "bounds":
            self._box([attributes.get(key, "") for key in ("minlon", "minlat", "maxlon", "maxlat")])
        elif name == "bound":  # as osmosis wrote it
            south, west, north, east, *_ = [*attributes.get("box", "").split(","), "", "", "", ""]
            self._box([west, south, east, north])

    def _box(self, numbers: list[str]) -> None:
        """Note a box, or two for a box across the 180th meridian; leave out what is no box."""
        try:
            west, south, east, north = map(float, numbers)
        except ValueError:
            return
        if not (-90 <= south < north <= 90 and -180 <= west <= 180 and -180 <= east <= 180 and west != east):
            return
        self.boxes += (
            [(west, south, east, north)] if west < east else [(west, south, 180.0, north), (-180.0, south, east, north)]
        )


# Files that are none


def _check_root(path: Path, name: str) -> None:
    """Refuse XML that holds something else."""
    if name == "osm":
        return
    if name == "osmChange":
        raise changes_error(path)
    if name.lower() in ("html", "head", "body"):
        raise stranger_error(
            path,
            "a web page: what a server says in place of the data",
            "open it in a browser to see what it says, and download it again",
        )
    remedy = "export it as .osm, or take an extract: https://download.geofabrik.de"
    raise stranger_error(path, f"XML of another kind (<{name}>)", remedy)
