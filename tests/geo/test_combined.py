"""Several sources: each channel from one of them, known only where all have data, and every owner named."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import osmium
import pytest
import rasterio
import shapely
from rich.console import Console

from citygrain.__main__ import main
from citygrain.data.cityraster import CityRaster
from citygrain.data.prepare import prepare
from citygrain.errors import CitygrainError, ConfigError, DataError, SourceError
from citygrain.geo.layers import CHANNEL_NAMES
from citygrain.geo.place import Place
from citygrain.geo.sources import ATTRIBUTION, Features
from citygrain.geo.sources.combined import Combined
from citygrain.geo.sources.layers_file import LayersFile
from citygrain.geo.sources.osmfile import OsmFile
from citygrain.geo.sources.overpass import Overpass
from citygrain.geo.sources.overpass_json import OverpassJson
from citygrain.support.config import load_config
from citygrain.support.targets import instantiate
from citygrain.verbs.prepare import run, summary
from geo.test_overpass_json import only, save, town

pytestmark = pytest.mark.filterwarnings("ignore::citygrain.geo.sources.EmptyLayerWarning")

PLACE = Place.from_bbox("quarter", (9.0, 50.0, 9.014, 50.009))


@dataclass(frozen=True)
class Invented:
    """Knows some channels, each with as many squares as is told, in the west, in the east or all over."""

    channels: dict[str, int]
    owner: str
    side: str = "all"
    partial: dict[str, str] = field(default_factory=dict)

    def features(self, place: Place, progress: Any = None) -> Features:
        left, bottom, right, top = place.bounds_utm
        middle = (left + right) / 2
        west, east = (
            (middle, right) if self.side == "east" else (left, middle) if self.side == "west" else (left, right)
        )
        progress(0.5, "inventing")

        def layer(n: int) -> gpd.GeoDataFrame:
            boxes = [shapely.box(west + 50 * i, bottom, west + 50 * i + 30, bottom + 30) for i in range(n)]
            return gpd.GeoDataFrame({"kind": ["x"] * n, "width_m": [np.nan] * n}, geometry=boxes, crs=place.crs)

        return Features(
            {name: layer(n) for name, n in self.channels.items()},
            place=place,
            provenance={"kind": "invented", "attribution": self.owner},
            valid=shapely.box(west, bottom, east, top),
            unknown={name: f"{self.owner} does not know" for name in CHANNEL_NAMES if name not in self.channels},
            partial=self.partial,
            skipped={"dragons": len(self.channels)},
        )


def combined(*parts: tuple[str, Any], base: Any = None, **channels: str) -> Features:
    base = base or Invented(dict.fromkeys(CHANNEL_NAMES, 1), "A", partial={"green": "no lawns", "water": "no wells"})
    return Combined(base, dict(parts), channels).features(PLACE, lambda *_: None)


def test_a_part_gives_what_it_knows_and_the_base_the_rest():
    found = combined(("houses", Invented({"building": 7}, "B")), ("parks", Invented({"green": 3, "water": 2}, "C")))
    assert found.counts == {**dict.fromkeys(CHANNEL_NAMES, 1), "building": 7, "green": 3, "water": 2}
    assert found.unknown == {}
    assert found.partial == {}, "what the base sees in part the parts see whole"
    assert found.skipped == {"dragons": len(CHANNEL_NAMES), "dragons (houses)": 1, "dragons (parks)": 2}
    made = found.provenance
    assert made["attribution"] == "A; B; C"
    assert made["parts"]["parks"]["channels"] == ["green", "water"]
    assert set(made["base"]["channels"]) == set(CHANNEL_NAMES) - {"building", "green", "water"}
    json.dumps(made)


def test_what_nobody_knows_stays_unknown_and_says_of_whom():
    base = Invented({"street": 2, "green": 1}, "A", partial={"green": "no lawns"})
    found = combined(("houses", Invented({"building": 7}, "B", partial={"building": "no sheds"})), base=base)
    assert set(CHANNEL_NAMES) - set(found.unknown) == {"street", "building", "green"}
    assert found.unknown["rail"] == "A does not know"
    assert found.partial == {"green": "no lawns", "building": "no sheds"}
    assert found.provenance["parts"]["houses"]["partial"] == {"building": "no sheds"}


def test_the_ground_is_what_all_have_in_common():
    found = combined(("houses", Invented({"building": 7}, "B", side="west")))
    assert found.valid.area == pytest.approx(PLACE.utm.area / 2, rel=0.02)
    with pytest.raises(SourceError, match="no ground in common"):
        combined(("east", Invented({"building": 7}, "B", "east")), ("west", Invented({"green": 7}, "C", "west")))


def test_a_part_that_knows_more_gives_what_it_is_told():
    whole = Invented(dict.fromkeys(CHANNEL_NAMES, 5), "B")
    found = combined(("other", whole), building="other", rail="other")
    assert {name for name, n in found.counts.items() if n == 5} == {"building", "rail"}
    assert combined(("other", whole)).counts == dict.fromkeys(CHANNEL_NAMES, 5)
    assert combined(("other", whole)).provenance["attribution"] == "B", "nothing is left of the base"
    with pytest.raises(ConfigError, match=r"(?s)Two parts know building.*houses and other.*source.channels"):
        combined(("houses", Invented({"building": 7}, "C")), ("other", whole))
    both = combined(("houses", Invented({"building": 7}, "C")), ("other", whole), building="houses")
    assert {name: n for name, n in both.counts.items() if n != 5} == {"building": 7}
    with pytest.raises(SourceError, match="Part houses gives nothing"):
        combined(("houses", Invented({"building": 7}, "C")), ("other", whole), building="other")


def test_a_part_that_does_not_know_what_it_is_told_to_give_is_at_fault():
    houses, lakes = Invented({"building": 7}, "C"), Invented({"water": 3}, "D")
    for channels in ({"green": "houses"}, {"building": "houses", "green": "houses"}):
        with pytest.raises(ConfigError, match=r"(?s)^Part houses is told to give green.*C does not know"):
            combined(("houses", houses), **channels)
    # Not that of the part which is left with nothing to give.
    with pytest.raises(ConfigError, match=r"(?s)^Part houses is told to give water.*choices: +lakes"):
        combined(("lakes", lakes), ("houses", houses), water="houses")


@dataclass(frozen=True)
class Failing:
    """A source at fault."""

    error: CitygrainError

    def features(self, place: Place, progress: Any = None) -> Features:
        raise self.error


def test_an_error_of_a_part_names_it_and_the_keys_within_it():
    good = Invented({"building": 1}, "A")
    error = SourceError("It has no CRS.", got="source.crs", remedy="source.crs=EPSG:…, or source=file source.rules=[…]")
    for name, source, where in (
        ("base", Combined(Failing(error), {"b": good}), "source.base."),
        ("b", Combined(good, {"a": good, "b": Failing(error)}), "source.parts.b."),
        ("c", Combined(good, {"c": Combined(good, {"d": Failing(error)})}), "source.parts.c.parts.d."),
    ):
        with pytest.raises(SourceError) as caught:
            source.features(PLACE)
        text = str(caught.value)
        assert text.startswith(f"{name} of the combined source: ")
        assert "It has no CRS." in text
        assert caught.value.problem == text.partition("\n")[0]
        assert caught.value.remedy == f"{where}crs=EPSG:…, or source=file {where}rules=[…]"
        assert caught.value.remedy in text
        assert "got:      source.crs\n" in text, "what is not set is no key"
    with pytest.raises(ConfigError, match="b of the combined source: no"):
        Combined(good, {"b": Failing(ConfigError("no"))}).features(PLACE)


def test_parameters_that_make_no_sense():
    part = Invented({"building": 1}, "B")
    for arguments, words in (
        ((part, {}), "at least one part"),
        ((part, None), "at least one part"),
        ((part, {"houses": "b.gpkg"}), "houses of a combined source is no source"),
        (({"path": "x"}, {"houses": part}), "base of a combined source is no source"),
        ((part, {"houses": part}, {"house": "houses"}), "no such channel"),
        ((part, {"houses": part}, {"building": "house"}), "(?s)no such part.*did you mean: houses"),
    ):
        with pytest.raises(ConfigError, match=words):
            Combined(*arguments)


def test_progress_goes_forward():
    said = []
    source = Combined(Invented({"street": 1}, "A"), {"houses": Invented({"building": 1}, "B")})
    source.features(PLACE, lambda done, what: said.append((done, what)))
    assert said == [(0.25, "base: inventing"), (0.75, "houses: inventing")]


# On the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def houses(tmp_path: Path) -> Path:
    """Houses all over the town of the replies."""
    west, south, _, _ = OverpassJson(save(tmp_path / "extent.json", town())).extent()
    place = Place.from_bbox("town", (west, south, west + 0.0276, south + 0.018))
    left, bottom, right, top = place.bounds_utm
    x, y = (v.ravel() for v in np.meshgrid(np.arange(left, right, 50), np.arange(bottom, top, 50)))
    frame = gpd.GeoDataFrame(geometry=list(shapely.box(x, y, x + 20, y + 20)), crs=place.crs)
    frame.to_file(tmp_path / "houses.gpkg")
    return tmp_path / "houses.gpkg"


def line(folder: Path, houses: Path, *more: str) -> list[str]:
    save(folder / "streets.json", only("highway"))
    save(folder / "water.json", only("natural", "railway"))
    return [
        "source=combined",
        "source@source.base=overpass_json",
        f"source.base.path=[{folder / 'streets.json'},{folder / 'water.json'}]",
        "+source@source.parts.houses=layers",
        f"source.parts.houses.path={houses}",
        "source.parts.houses.channel=building",
        "source.parts.houses.licence='© Town, CC BY'",
        "raster.workers=1",
        f"paths.data={folder / 'cities'}",
        *more,
    ]


def test_one_line_combines_streets_of_overpass_with_polygons(tmp_path: Path, houses: Path) -> None:
    assert main(["prepare", *line(tmp_path, houses)]) == 0
    raster = CityRaster.open(tmp_path / "cities" / "streets")
    assert set(raster.unknown) == {"parking", "green"}
    assert raster.provenance["shares"]["building"] == pytest.approx(400 / 2500, rel=0.05)
    assert raster.provenance["shares"]["street"] == pytest.approx(8 / 200, rel=0.1)
    owners = f"{ATTRIBUTION}; © Town, CC BY"
    assert raster.provenance["attribution"] == owners
    with rasterio.open(raster.path / "layout.tif") as tif:
        assert tif.tags()["TIFFTAG_COPYRIGHT"] == owners
    made = raster.provenance["source"]
    assert [file["file"] for file in made["base"]["files"]] == ["streets.json", "water.json"]
    assert made["osm_date"].startswith("2026-03-26")
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(summary(raster, "written", 1.0))
    text = console.export_text()
    for words in ("from houses", "base: streets.json, water.json (2026-03-26); houses: houses.gpkg", owners):
        assert words in text
    # Without a bbox the place is where the base is.
    assert raster.provenance["place"]["bbox"] == pytest.approx(made["base"]["extent"])


def test_inline_parts_are_the_same_source(tmp_path: Path, houses: Path) -> None:
    by_group = load_config("prepare", line(tmp_path, houses))["source"]
    target = "citygrain.geo.sources.layers_file.LayersFile"
    part = f"{{_target_:{target},path:{houses},channel:building,licence:'© Town, CC BY'}}"
    inline = load_config("prepare", [*line(tmp_path, houses)[:3], f"source.parts={{houses:{part}}}"])["source"]
    assert instantiate(inline).identity() == instantiate(by_group).identity()


@pytest.mark.parametrize("changed", ["streets.json", "water.json", "houses.gpkg"])
def test_a_request_changes_with_the_file_of_any_part(tmp_path: Path, houses: Path, changed: str) -> None:
    config = load_config("prepare", line(tmp_path, houses))
    first = run(config)
    assert run(config).provenance == first.provenance
    if changed.endswith(".json"):
        save(tmp_path / changed, only("highway", "leisure"))
    else:
        gpd.read_file(houses)[::2].to_file(houses)
    config["place"] |= {"name": "streets", "bbox": first.provenance["place"]["bbox"]}
    with pytest.raises(DataError, match="another request") as error:
        run(config)
    where = "source.parts.houses.sha256" if changed == "houses.gpkg" else "source.base.sha256"
    assert where in str(error.value)
    part = "houses" if changed == "houses.gpkg" else "base"
    assert f"{changed} ({part}) has changed since." in error.value.problem


def test_another_division_is_another_request(tmp_path: Path) -> None:
    base, part = Invented({"street": 90, "green": 3}, "A"), Invented({"building": 90, "green": 4}, "B")
    prepare(PLACE, Combined(base, {"b": part}), tmp_path, workers=1)
    with pytest.raises(DataError, match=r"(?s)another request.*source\.channels\.building"):
        prepare(PLACE, Combined(base, {"b": part}, {"building": "b"}), tmp_path, workers=1)


def test_what_is_wrong_with_a_part_is_said_plainly(tmp_path: Path, houses: Path, capsys: Any) -> None:
    for override, words in (
        ("source.parts.houses.path=absent.gpkg", "houses of the combined source: "),
        ("source.parts.houses.path=absent.gpkg", "source.parts.houses.path="),
        ("source.base.path=absent.json", "base of the combined source: "),
        ("source.parts.houses.path=absent.gpkg", "is not there"),
        ("source.parts.houses.channel=house", "no such channel"),
        ("source.parts.houses.kind=house", "kind"),
        ("source.channels={building:flats}", "no such part"),
        ("source@source.base=overpas", "overpass"),
    ):
        assert main(["prepare", *line(tmp_path, houses, override)]) == 2, override
        assert words in capsys.readouterr().err


def test_a_combined_place_on_overpass_is_looked_up_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Overpass has no extent of its own: the name alone says where, as without parts."""
    asked = []

    def look_up(query: str, name: str | None = None) -> Place:
        asked.append(query)
        raise ConfigError("stop here")

    monkeypatch.setattr(Place, "from_name", look_up)
    config = load_config("prepare", ["source=combined", "place.name=san_jose"])
    config["source"]["parts"] = {"houses": {"_target_": "citygrain.geo.sources.osmfile.OsmFile", "path": "x.osm"}}
    assert isinstance(instantiate(config["source"]).base, Overpass)
    with pytest.raises(CitygrainError, match="stop here"):
        run(config)
    assert asked == ["san jose"]


# Houston -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_houstons_saved_streets_and_a_file_of_buildings(shared_osm: Path, tmp_path: Path) -> None:
    """The 120 buildings of a fourth of a ward, set up again and again on the streets that were saved without any."""
    make = osmium.geom.WKBFactory()
    areas = osmium.FileProcessor(shared_osm / "houston_fourth_ward" / "map.osm").with_areas()
    ward = [
        shapely.from_wkb(make.create_multipolygon(area)) for area in areas if area.is_area() and "building" in area.tags
    ]
    assert len(ward) >= 119
    frame = gpd.GeoDataFrame(geometry=ward, crs=4326).to_crs("EPSG:32615")
    copies = [frame.translate(x, y) for x in range(-6500, -1500, 300) for y in range(-5500, -1000, 300)]
    city = gpd.GeoDataFrame(geometry=[g for copy in copies for g in copy], crs="EPSG:32615")
    city.to_parquet(tmp_path / "buildings.parquet", write_covering_bbox=True)
    houston = shared_osm / "houston"
    told = [
        "place=houston",
        "source=combined",
        "source@source.base=overpass_json",
        f"source.base.path=[{houston / 'houston_streets_overpass.json'},{houston / 'houston_water_overpass_a.json'}]",
        "+source@source.parts.buildings=layers",
        f"source.parts.buildings.path={tmp_path / 'buildings.parquet'}",
        "source.parts.buildings.channel=building",
        "source.parts.buildings.licence='invented'",
        "raster.resolution_m=4",
        "raster.workers=1",
        f"paths.data={tmp_path / 'cities'}",
    ]
    assert main(["prepare", *told]) == 0
    raster = CityRaster.open(tmp_path / "cities" / "houston")
    assert set(raster.unknown) == {"rail", "parking", "green"}
    density = frame.area.sum() / 300**2
    assert raster.provenance["shares"]["building"] == pytest.approx(density, rel=0.05)
    assert raster.provenance["valid_km2"] == pytest.approx(17, abs=1)
    assert {"coverage", "street_density", "frontage"} <= set(raster.blocks)
    assert len(raster.blocks) >= 12


def test_an_extract_may_be_a_part(sample_pbf: Path) -> None:
    """Two readings of one file: its own channels come back, each from where it was told."""
    place = Place.from_bbox("helsinki", (24.94, 60.166, 24.95, 60.174))
    whole = OsmFile(sample_pbf).features(place)
    source = Combined(OsmFile(sample_pbf), {"again": OsmFile(sample_pbf)}, {"building": "again", "rail": "again"})
    found = source.features(place)
    assert found.counts == whole.counts
    assert found.provenance["attribution"] == ATTRIBUTION
    assert found.remainder == whole.remainder


def test_a_file_of_polygons_may_be_the_base(tmp_path: Path, houses: Path) -> None:
    streets = save(tmp_path / "streets.json", only("highway"))
    base = LayersFile(houses, "mine", "building")
    place = Place.from_bbox("town", base.extent())
    found = Combined(base, {"streets": OverpassJson(streets)}).features(place, None)
    assert set(CHANNEL_NAMES) - set(found.unknown) == {
        "building",
        "arterial",
        "street",
        "service",
        "cycle",
        "walk",
        "square",
    }
    assert found.provenance["attribution"] == f"mine; {ATTRIBUTION}"
