"""What a city raster should hold, counted without the product: pyosmium, shapely and pyproj, one object at a time.

It is written from the words of `citygrain.geo.layers`, not from its rules, and shares nothing with the product: rings
are put together here, lines beside a road are made of points here, and the sea is told by the coast around it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import osmium
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from shapely.geometry.base import BaseGeometry

BBox = tuple[float, float, float, float]
Tags = Mapping[str, str]
Line = NDArray[np.float64]

WIDTHS = {"arterial": 14.0, "street": 8.0, "service": 5.0, "cycle": 4.0, "walk": 3.0, "rail": 4.0}
"""Channel of lines → metres that they are drawn wide."""

WATERWAYS = {"river": 15.0, "canal": 10.0, "stream": 3.0, "tidal_channel": 3.0, "ditch": 2.0, "drain": 2.0}

STEP_M = 2.0
"""Distance of the points that a line beside a road is made of."""

ALONG = np.cos(np.radians(20.0))

TWIN_M = 8.0
"""Distance up to which a line beside a road is the same as a mapped one on that side of it."""

ROADS = {
    **dict.fromkeys(("motorway", "trunk", "primary", "secondary"), "arterial"),
    **dict.fromkeys(("motorway_link", "trunk_link", "primary_link", "secondary_link"), "arterial"),
    **dict.fromkeys(("tertiary", "tertiary_link", "unclassified", "residential", "living_street", "road"), "street"),
    **dict.fromkeys(("busway", "bus_guideway"), "street"),
    "service": "service",
}
ON_FOOT = ("footway", "pedestrian", "path", "steps")
RAILS = ("rail", "light_rail", "tram", "subway", "narrow_gauge", "funicular", "monorail", "preserved")
GONE = (
    *("proposed", "planned", "construction", "ruins", "collapsed", "demolished", "razed", "destroyed", "removed"),
    "dismantled",
)
GARAGES = ("multi-storey", "garage", "garages", "garage_boxes")
GREEN = {
    "leisure": ("park", "garden", "pitch", "playground", "golf_course", "dog_park", "common", "recreation_ground"),
    "landuse": (
        *("forest", "grass", "meadow", "orchard", "vineyard", "allotments", "cemetery", "village_green"),
        *("recreation_ground", "flowerbed", "greenery"),
    ),
    "natural": ("wood", "scrub", "grassland", "heath", "tree_group", "shrubbery"),
    "amenity": ("grave_yard",),
}
YES = ("yes", "true", "1")
ROOFS = ("roof", "canopy", "carport")
LANES = ("track", "lane", "opposite_track", "opposite_lane")
SIDES = ("left", "right")


@dataclass
class Count:
    """What was counted in a place.

    Attributes
    ----------
    km2
        Area of the place.
    length_km
        Channel of lines → length of its lines.
    drawn_km
        Channel of lines → area that its lines cover, each as wide as it is drawn, divided by that width.
    area_ha
        Channel of areas → area that it covers; `water` without the sea, `sea` alone.
    tagged_km
        Channel of lines → length of those among its lines that are tagged on a road, and not mapped.
    cycleway_km
        Length of the ways `highway=cycleway`, and of those among them that are in `walk`.
    """

    km2: float
    length_km: dict[str, float] = field(default_factory=dict)
    drawn_km: dict[str, float] = field(default_factory=dict)
    area_ha: dict[str, float] = field(default_factory=dict)
    tagged_km: dict[str, float] = field(default_factory=dict)
    cycleway_km: tuple[float, float] = (0.0, 0.0)

    def flat(self) -> dict[str, float]:
        """Channel → km that are drawn, or ha."""
        return {**self.drawn_km, **self.area_ha}


def count(path: Path, bbox: BBox, *, drive_on: str = "right") -> Count:
    """Count what each channel should hold.

    Parameters
    ----------
    path
        An extract that osmium reads.
    bbox
        `(west, south, east, north)` in degrees; everything is cut to it.
    drive_on
        The side of the road that traffic keeps to.
    """
    zone = int(((bbox[0] + bbox[2]) / 2 + 180) // 6) + 1
    metres = Transformer.from_crs("EPSG:4326", f"EPSG:{32600 + zone}", always_xy=True)  # all places are in the north
    place = shapely.Polygon(np.column_stack(metres.transform(*_around(bbox))))
    lines: dict[str, list[Line]] = defaultdict(list)
    beside: dict[str, list[tuple[Line, float, str]]] = defaultdict(list)
    water_lines: dict[float, list[Line]] = defaultdict(list)
    areas: dict[str, list[BaseGeometry]] = defaultdict(list)
    coast: list[Line] = []
    cycleways: dict[bool, list[Line]] = {False: [], True: []}
    for tags, runs in _ways(path, bbox):
        for lonlat in runs:
            xy = np.column_stack(metres.transform(*lonlat.T))
            channels = channels_of_line(tags)
            for channel in channels:
                lines[channel].append(xy)
            if "cycle" in channels and tags["highway"] == "cycleway":
                cycleways["walk" in channels].append(xy)
            for channel, side in sides_of_road(tags, drive_on):
                if channel not in channels:
                    beside[channel].append((xy, (_road_width(tags) + WIDTHS[channel]) / 2, side))
            is_line = tags.get("area") not in YES and tags.get("natural") != "water"
            if tags.get("waterway") in WATERWAYS and is_line and not is_below(tags, building_or_water=True):
                water_lines[WATERWAYS[tags["waterway"]]].append(xy)
            if tags.get("natural") == "coastline":
                coast.append(xy)
    for tags, is_relation, polygon in _polygons(path, bbox):
        for channel in channels_of_area(tags, is_relation):
            areas[channel].append(shapely.transform(polygon, lambda xy: np.column_stack(metres.transform(*xy.T))))
    counted = Count(place.area / 1e6)
    for channel, width in WIDTHS.items():
        aside = _beside_roads(beside[channel], lines[channel])
        every = np.array([*map(shapely.LineString, lines[channel]), *aside], object)
        counted.tagged_km[channel] = _length_km(aside, place)
        counted.length_km[channel] = _length_km(every, place)
        counted.drawn_km[channel] = _union_m2(shapely.buffer(every, width / 2), place) / width / 1e3
    for channel in ("building", "square", "parking", "green"):
        counted.area_ha[channel] = _union_m2(np.array(areas[channel], object), place) / 1e4
    wet = [shapely.buffer(shapely.LineString(xy), width / 2) for width, some in water_lines.items() for xy in some]
    counted.area_ha["water"] = _union_m2(np.array([*areas["water"], *wet], object), place) / 1e4
    counted.area_ha["sea"] = _sea_m2(coast, place) / 1e4
    alone, walked = (_length_km(list(map(shapely.LineString, cycleways[walked])), place) for walked in (False, True))
    counted.cycleway_km = alone + walked, walked
    return counted


def sorted_copy(path: Path, folder: Path) -> Path:
    """Copy an extract as every reader takes it: sorted, under a name that says what it is."""
    reader = osmium.MergeInputReader()
    reader.add_file(str(path))
    copy = folder / f"{path.name.split('.')[0]}.osm.pbf"
    with osmium.SimpleWriter(str(copy), header=osmium.FileProcessor(path).header) as writer:
        reader.apply(writer)
    return copy


def is_below(tags: Tags, *, building_or_water: bool = False, green: bool = False) -> bool:
    """Whether an object says that it is under the ground, or within a building."""
    if tags.get("tunnel", "no") not in ("no", "building_passage") or tags.get("location") in ("underground", "indoor"):
        return True
    if building_or_water:
        return False
    if tags.get("indoor", "no") != "no":
        return True
    return not green and is_negative(tags, "level")


def is_negative(tags: Tags, key: str) -> bool:
    """Whether all floors that an object names are below 0; who says `tunnel=no` is not below."""
    floors = _floors(tags, key)
    return bool(floors) and max(floors) < 0 and tags.get("tunnel") != "no"


def is_upstairs(tags: Tags) -> bool:
    """Whether all floors that an object names are above 0."""
    floors = _floors(tags, "level")
    return bool(floors) and min(floors) > 0 and tags.get("tunnel") != "no"


def _floors(tags: Tags, key: str) -> list[float]:
    return [float(number) for number in re.findall(r"(?<!\d)-?\d+(?:\.\d+)?", tags.get(key, ""))]


def is_one_of(tags: Tags, key: str, values: Sequence[str]) -> bool:
    """Whether a tag, or a part of its list, has one of the values."""
    return any(part.strip() in values for part in tags.get(key, "").split(";"))


def channels_of_line(tags: Tags) -> set[str]:
    """Name the channels in which a way is drawn along its own line, but for water."""
    if is_below(tags) or tags.get("area") in YES:
        return set()
    highway, found = tags.get("highway"), set()
    if tags.get("railway") in RAILS:
        found.add("rail")
    if highway in ROADS:
        found.add(ROADS[highway])
        aisle = highway == "service" and tags.get("service") == "parking_aisle"
        if aisle and (is_negative(tags, "layer") or is_upstairs(tags) or tags.get("parking") == "underground"):
            found.discard("service")
    if highway in (*ROADS, "track") and "yes" in (tags.get("bicycle_road"), tags.get("cyclestreet")):
        found.add("cycle")
    may_cycle = tags.get("bicycle") in ("designated", "official")
    may_not_walk = tags.get("foot") in ("no", "use_sidepath")
    if highway == "cycleway":
        found.add("cycle")
        if tags.get("foot") in ("yes", "designated", "official", "permissive", "destination"):
            found.add("walk")
        if tags.get("segregated") in ("yes", "no") and not may_not_walk:
            found.add("walk")
    if highway in ("path", "footway", "pedestrian", "track", "bridleway") and may_cycle:
        found.add("cycle")
    if highway in ON_FOOT and not may_not_walk and tags.get("place") != "square":
        found.add("walk")
    if highway in ("track", "bridleway") and tags.get("foot") in ("designated", "official"):
        found.add("walk")
    if highway in ("track", "bridleway") and may_cycle and not may_not_walk:
        found.add("walk")
    return found


def sides_of_road(tags: Tags, drive_on: str) -> set[tuple[str, str]]:
    """Name the channels that are tagged on a road, and on which side of its line."""
    highway = tags.get("highway")
    if highway not in (*ROADS, "cycleway") or is_below(tags) or tags.get("area") in YES:
        return set()
    found = set()
    for side in SIDES:
        said = _of_side(tags, "sidewalk", side)
        if "yes" in said or (not said and tags.get("sidewalk") in (side, "both", "yes")):
            found.add(("walk", side))
        if not _of_side(tags, "footway", side) and tags.get("footway") in (side, "both"):
            found.add(("walk", side))
        if highway == "cycleway":
            continue
        said = _of_side(tags, "cycleway", side)
        if any(value in LANES for value in said) or (not said and _plain_cycleway(tags, side, drive_on)):
            found.add(("cycle", side))
        if {tags.get(f"sidewalk:{where}:bicycle") for where in (side, "both")} & {"designated", "official"}:
            found.add(("cycle", side))
    return found


def _of_side(tags: Tags, key: str, side: str) -> list[str]:
    """Return what is said of one side: by itself, or else of both."""
    return [tags[f"{key}:{where}"] for where in (side, "both") if f"{key}:{where}" in tags][:1]


def _plain_cycleway(tags: Tags, side: str, drive_on: str) -> bool:
    """Whether `cycleway=…` without a side puts a lane on this one."""
    one_way = tags.get("oneway")
    if one_way is None and (tags.get("junction") in ("roundabout", "circular") or tags.get("highway") == "motorway"):
        one_way = "yes"
    kept = drive_on
    if one_way in ("-1", "reverse"):
        kept = "left" if drive_on == "right" else "right"
    value = tags.get("cycleway")
    if value in ("track", "lane"):
        return side == kept or one_way not in ("yes", "1", "true", "-1", "reverse")
    return value in ("opposite_track", "opposite_lane") and side != kept


def channels_of_area(tags: Tags, is_relation: bool) -> set[str]:
    """Name the channels in which an area is drawn."""
    found = set()
    building, parking = tags.get("building"), tags.get("parking")
    stands = building not in (None, "no", *ROOFS, *GONE)
    free = building in (None, "no", *ROOFS, *GONE) and building != "construction"
    is_parking = tags.get("amenity") in ("parking", "parking_space")
    if not is_below(tags, building_or_water=True):
        itself = parking == "underground" and building in ("yes", "garage", "garages", "parking", "underground")
        over_parking = is_parking and parking == "underground" and not itself
        if stands and tags.get("ruins") not in YES and (not is_parking or over_parking):
            found.add("building")
        if _is_water(tags, is_relation):
            found.add("water")
    if not is_below(tags):
        if is_parking and stands and tags.get("ruins") not in YES and parking != "underground":
            found.add("building")
        if is_parking and parking in GARAGES and building not in (*ROOFS, *GONE):
            found.add("building")
        if tags.get("highway") in ON_FOOT and (is_relation or tags.get("area") in YES):
            found.add("square")
        if tags.get("place") == "square" or (tags.get("amenity") == "marketplace" and free):
            found.add("square")
        on_the_ground = parking not in ("underground", "rooftop", *GARAGES) and not is_upstairs(tags)
        if is_parking and on_the_ground and free:
            found.add("parking")
    if not is_below(tags, green=True) and any(tags.get(key) in values for key, values in GREEN.items()):
        found.add("green")
    return found


def _is_water(tags: Tags, is_relation: bool) -> bool:
    """Whether an area holds water that one sees."""
    if tags.get("covered") in YES or tags.get("man_made") == "reservoir_covered":
        return False
    if tags.get("leisure") == "swimming_pool":
        return False
    if tags.get("waterway") in WATERWAYS and (is_relation or tags.get("area") in YES):
        return True
    dry = is_one_of(tags, "basin", ("detention", "infiltration"))
    now_and_then = tags.get("intermittent") == "yes"
    if tags.get("natural") == "water" and not dry and not (tags.get("water") == "basin" and now_and_then):
        return True
    if tags.get("landuse") == "basin" and not dry and not now_and_then:
        return True
    return tags.get("landuse") == "reservoir" or tags.get("waterway") in ("riverbank", "dock")


def _road_width(tags: Tags) -> float:
    return WIDTHS[ROADS.get(tags["highway"], "cycle")]


def _around(bbox: BBox) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Longitudes and latitudes of points along the edge of a bbox."""
    west, south, east, north = bbox
    t = np.linspace(0, 1, 50, endpoint=False)
    x, y = np.array([west, east, east, west, west]), np.array([south, south, north, north, south])
    at = np.concatenate([t + i for i in range(4)])
    return np.interp(at, range(5), x), np.interp(at, range(5), y)


def _ways(path: Path, bbox: BBox) -> Iterator[tuple[dict[str, str], list[Line]]]:
    """Yield tags and lines of the ways that meet a bbox; a way is in pieces where nodes are missing."""
    for way in osmium.FileProcessor(path, osmium.osm.NODE | osmium.osm.WAY).with_locations():
        if way.is_way() and (
            "highway" in way.tags or "railway" in way.tags or "waterway" in way.tags or "natural" in way.tags
        ):
            runs = [run for run in _runs(way) if len(run) > 1 and _meets(run, bbox)]
            if runs:
                yield dict(way.tags), runs


def _runs(way: osmium.osm.Way) -> list[Line]:
    """Coordinates of a way in degrees, in as many pieces as its missing nodes leave."""
    runs: list[list[tuple[float, float]]] = [[]]
    for node in way.nodes:
        if not node.location.valid():
            runs.append([])
        elif not runs[-1] or runs[-1][-1] != (node.lon, node.lat):
            runs[-1].append((node.lon, node.lat))
    return [np.array(run) for run in runs if run]


def _meets(lonlat: Line, bbox: BBox) -> bool:
    (left, bottom), (right, top) = lonlat.min(axis=0), lonlat.max(axis=0)
    return bool(left <= bbox[2] and right >= bbox[0] and bottom <= bbox[3] and top >= bbox[1])


def _polygons(path: Path, bbox: BBox) -> Iterator[tuple[dict[str, str], bool, BaseGeometry]]:
    """Yield tags, whether it is a relation, and polygon of the areas that meet a bbox, in degrees."""
    relations = [
        (dict(thing.tags), [member.ref for member in thing.members if member.type == "w"])
        for thing in osmium.FileProcessor(path, osmium.osm.RELATION)
        if thing.tags.get("type") in ("multipolygon", "boundary") and channels_of_area(dict(thing.tags), True)
    ]
    wanted = {ref for _, refs in relations for ref in refs}
    members: dict[int, Line] = {}
    for way in osmium.FileProcessor(path, osmium.osm.NODE | osmium.osm.WAY).with_locations():
        if not way.is_way():
            continue
        drawn = way.is_closed() and way.tags.get("area") != "no" and channels_of_area(dict(way.tags), False)
        if not drawn and way.id not in wanted:
            continue
        if not all(node.location.valid() for node in way.nodes):  # nobody knows how it is closed
            continue
        ring = np.array([(node.lon, node.lat) for node in way.nodes])
        if way.id in wanted:
            members[way.id] = ring
        if drawn and len(ring) > 3 and _meets(ring, bbox):
            yield dict(way.tags), False, shapely.make_valid(shapely.Polygon(ring))
    for tags, refs in relations:
        if refs and all(ref in members for ref in refs):
            polygon = _filled(members[ref] for ref in set(refs))
            if not polygon.is_empty and _meets(shapely.get_coordinates(polygon), bbox):
                yield tags, True, polygon


def _filled(rings: Iterator[Line]) -> BaseGeometry:
    """Put the members of a multipolygon together, whatever their roles: what lies within an odd number of its rings."""
    edges = [shapely.linestrings(np.stack([xy[:-1], xy[1:]], 1)) for xy in rings if len(xy) > 1]
    faces, _, dangles, _ = shapely.polygonize_full(np.concatenate(edges))
    if not dangles.is_empty:
        return shapely.Polygon()
    faces, all_edges = shapely.get_parts(faces), np.concatenate(edges)
    inside = shapely.get_coordinates(shapely.point_on_surface(faces))
    ends = shapely.get_coordinates(all_edges).reshape(-1, 2, 2)
    odd = [face for face, point in zip(faces, inside, strict=True) if _crossings(ends, point) % 2]
    return shapely.union_all(odd)


def _crossings(edges: NDArray[np.float64], point: NDArray[np.float64]) -> int:
    """How many edges, `(N, 2, 2)`, a ray from a point towards the east crosses."""
    (x0, y0), (x1, y1) = edges[:, 0].T, edges[:, 1].T
    across = (y0 > point[1]) != (y1 > point[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        at = x0 + (point[1] - y0) / (y1 - y0) * (x1 - x0)
    return int(np.count_nonzero(across & (at > point[0])))


def _beside_roads(roads: list[tuple[Line, float, str]], mapped: list[Line]) -> list[BaseGeometry]:
    """Lines beside roads, but for the parts along which one is mapped near by, on the same side of the road."""
    edges = [edge for xy in mapped for edge in np.stack([xy[:-1], xy[1:]], 1)]
    ways = np.array(edges).reshape(-1, 2, 2)
    tree = shapely.STRtree(shapely.linestrings(ways))
    found = []
    for road, offset_m, side in roads:
        line = _parallel(road, offset_m, side)
        run: list[Line] = []
        for a, b in pairwise(line):
            near = tree.query(shapely.Point((a + b) / 2), predicate="dwithin", distance=TWIN_M)
            along = [ways[i] for i in near if _cosine(b - a, ways[i, 1] - ways[i, 0]) >= ALONG]
            if any(_on_this_side(way, (a + b) / 2, road, offset_m) for way in along):
                found += [shapely.LineString(run)] if len(run) > 1 else []
                run = []
            else:
                run = [*run, b] if run else [a, b]
        found += [shapely.LineString(run)] if len(run) > 1 else []
    return found


def _on_this_side(way: Line, point: Line, road: Line, offset_m: float) -> bool:
    """Whether the part of a mapped way that is nearest to a point beside a road lies on the same side of the road."""
    line = shapely.LineString(way)
    there = line.interpolate(line.project(shapely.Point(point)))
    return there.distance(shapely.Point(point)) < offset_m + there.distance(shapely.LineString(road)) / 2


def _cosine(a: Line, b: Line) -> float:
    """Cosine of the angle between two lines that have no direction."""
    return float(abs(a @ b) / max(np.hypot(*a) * np.hypot(*b), 1e-9))


def _parallel(road: Line, offset_m: float, side: str) -> Line:
    """Points at a distance to one side of a road, `(N, 2)`: those nearer to another part of it are left out."""
    steps = np.diff(road, axis=0)
    lengths = np.hypot(*steps.T)
    normals = np.column_stack([-steps[:, 1], steps[:, 0]]) / lengths[:, None] * (1 if side == "left" else -1)
    points = []
    for i, (start, step, length, normal) in enumerate(zip(road, steps, lengths, normals, strict=False)):
        share = np.linspace(0, 1, int(np.ceil(length / STEP_M)) + 1)[:, None]
        points.append(start + share * step + offset_m * normal)
        if i + 1 < len(steps):  # the middle of the bend; on its inner side it is left out below
            middle = normal + normals[i + 1]
            points.append((road[i + 1] + offset_m * middle / max(np.hypot(*middle), 1e-9))[None])
    line = np.concatenate(points)
    line = line[shapely.distance(shapely.points(line), shapely.LineString(road)) > (1 - 1e-6) * offset_m]
    return np.concatenate([line, line[:1]]) if (road[0] == road[-1]).all() else line


def _length_km(lines: Sequence[BaseGeometry] | NDArray[np.object_], place: BaseGeometry) -> float:
    """Length of lines within a place."""
    return float(shapely.length(shapely.intersection(np.array(lines, object), place)).sum()) / 1e3


def _union_m2(areas: NDArray[np.object_], place: BaseGeometry) -> float:
    """Area in square metres that areas cover together within a place."""
    return float(shapely.union_all(shapely.make_valid(areas)).intersection(place).area)


def _lengthened(line: BaseGeometry) -> BaseGeometry:
    """Draw a line a centimetre further, so that it crosses what it leads to."""
    a, b = shapely.get_coordinates(line)
    return shapely.LineString([a, b + 0.01 * (b - a) / np.hypot(*(b - a))])


def _sea_m2(coast: list[Line], place: BaseGeometry) -> float:
    """Area of the sea: each part between the coastlines is what the coastline that it has most of says."""
    if not coast:
        return 0.0
    ends = Counter(tuple(end) for xy in coast for end in (xy[0], xy[-1]))
    loose = [shapely.Point(end) for end, times in ends.items() if times == 1]  # where the extract cut the coast
    to_the_edge = [_lengthened(shapely.shortest_line(end, place.boundary)) for end in loose if end.within(place)]
    faces = shapely.get_parts(
        shapely.polygonize([shapely.union_all([place.boundary, *map(shapely.LineString, coast), *to_the_edge])])
    )
    faces = faces[shapely.contains(place, shapely.point_on_surface(faces))]
    at_sea = np.zeros(len(faces))
    tree = shapely.STRtree(faces)
    for xy in coast:
        for a, b in pairwise(xy):
            right = np.array([b[1] - a[1], a[0] - b[0]])
            for sign in (1, -1):  # the sea is to the right of the coastline
                beside = shapely.Point((a + b) / 2 + sign * 0.01 * right / np.hypot(*right))
                at_sea[tree.query(beside, predicate="within")] += sign * np.hypot(*(b - a))
    return float(shapely.area(faces[at_sea > 0]).sum())
