"""Raw OpenStreetMap extracts as a source, streamed by osmium.

Extracts are `.osm.pbf`, `.osm`, `.osm.gz`, `.osm.bz2`, `.o5m` or `.opl`. A file is looked over first
(`citygrain.geo.osm.extract`), then read in one pass (`citygrain.geo.osm.reader`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import shapely

from citygrain.errors import SourceError
from citygrain.geo.coastline import add_sea
from citygrain.geo.layers import COASTLINE
from citygrain.geo.osm.extract import Extract, look_over
from citygrain.geo.osm.formats import CHANGES, HISTORIES, SUFFIXES, translate_errors
from citygrain.geo.osm.reader import FeatureReader
from citygrain.geo.place import EDGE_DEG, Place
from citygrain.geo.sorting import count_remainder, layers_from_osm
from citygrain.geo.sources import Features, Progress
from citygrain.geo.sources.files import BBox, check_file, outside_error
from citygrain.support.files import hash_file

AROUND_DEG = 0.5
"""What a file covers farther than this from a place does not matter."""


@dataclass(frozen=True)
class OsmFile:
    """Features of a place from a raw OpenStreetMap extract.

    Parameters
    ----------
    path
        The file.
    """

    path: str | Path

    def extent(self) -> BBox:
        """`(west, south, east, north)` in degrees: what the file's header says, else where 98 % of its nodes are.

        `osmium extract --set-bounds` writes it. Without it the edge is a guess, and what lies beyond counts as no data;
        so it is where the header speaks of the far larger file that this one was filtered from.

        Raises
        ------
        SourceError
            When the file is missing, damaged, holds nothing, or lies on both sides of the 180th meridian.
        """
        extract = self._look_over()
        west, south, east, north = extract.covered.bounds
        if east - west > 180.0:
            sides = [side.bounds for side in shapely.get_parts(extract.covered)]
            raise SourceError(
                f"{extract.path.name} lies on both sides of the 180th meridian, and a place must not.",
                got=f"[{west:.4f}, {south:.4f}, {east:.4f}, {north:.4f}]",
                remedy="prepare each side as a place of its own: "
                + ", ".join(f"place.bbox=[{','.join(f'{v:.4f}' for v in side)}]" for side in sides),
            )
        return west, south, east, north

    def features(self, place: Place, progress: Progress | None = None) -> Features:
        """Return the features of a place.

        Raises
        ------
        SourceError
            When the file is missing, damaged, of another kind or elsewhere.
        """
        report = progress or (lambda _fraction, _message: None)
        report(0.0, "looking over the file")
        extract = self._look_over()
        west, south, east, north = extract.covered.bounds
        if not place.area.intersects(extract.covered):
            raise outside_error(place, (west, south, east, north), extract.path)
        if not extract.tidy:
            report(0.0, f"putting {extract.objects:,} objects in order")
        with translate_errors(extract.path), extract.open_tidy() as path:
            reader = FeatureReader(path, place)
            reader.read(report)
        frame = reader.frame()
        frame = frame[frame.intersects(place.utm)]
        layers = layers_from_osm(frame, driving_side=place.driving_side)
        # A header may speak of the whole Earth, and that projects to nothing.
        around = shapely.box(*place.bbox).buffer(AROUND_DEG, join_style="mitre")
        covered = place.project(shapely.segmentize(extract.covered.intersection(around), EDGE_DEG))
        valid = place.utm.intersection(covered)
        layers["water"] = add_sea(layers["water"], layers.pop(COASTLINE), covered, valid)
        provenance = {
            "kind": "file",
            "file": extract.path.name,
            "sha256": hash_file(extract.path),
            "osm_date": extract.date or reader.newest,
            "extent": [west, south, east, north],
        }
        return Features(
            layers,
            place=place,
            provenance=provenance,
            valid=valid,
            skipped=reader.skipped,
            remainder=count_remainder(frame, valid, driving_side=place.driving_side),
        )

    def _look_over(self) -> Extract:
        return look_over(check_file(self.path, SUFFIXES, "an OpenStreetMap extract", also=HISTORIES + CHANGES))
