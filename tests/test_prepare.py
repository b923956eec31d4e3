"""From a place and a source to a folder, whatever happens on the way."""

from __future__ import annotations

import errno
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import asdict, fields
from pathlib import Path

import pytest
from rich.console import Console

from citygrain.data.cityraster import CityRaster
from citygrain.data.inputs import choose_source
from citygrain.data.prepare import prepare
from citygrain.data.raster_folder import lock_folder
from citygrain.errors import ConfigError, DataError, PlaceError, SourceError
from citygrain.geo.layers import CHANNEL_NAMES
from citygrain.geo.place import Place
from citygrain.geo.sorting import Remainder
from citygrain.geo.sources import Features
from citygrain.geo.sources.osmfile import OsmFile
from citygrain.geo.sources.overpass import Overpass
from citygrain.geo.sources.overpass_json import OverpassJson
from citygrain.geo.sources.vectortiles import VectorTiles
from citygrain.support.config import instantiate, list_group_defaults, load_config
from citygrain.verbs.prepare import Options, Raster, Where, run, summary

ROOT = Path(__file__).resolve().parents[1]

PLACE = Place.from_bbox("town", (12.50, 55.60, 12.51, 55.606))


class Town:
    """A source without files: houses along streets over a whole place."""

    url = "memory:"

    def __init__(self, street_m=60.0, valid=None, remainder=None):
        self.street_m, self.valid, self.remainder = street_m, valid, remainder

    def features(self, place, progress=None):
        import geopandas as gpd
        import numpy as np
        import shapely

        left, bottom, right, top = place.bounds_utm
        x, y = (v.ravel() for v in np.meshgrid(np.arange(left, right, 40.0), np.arange(bottom, top, self.street_m)))
        houses = shapely.box(x + 8, y + 10, x + 20, y + 25)
        streets = [shapely.LineString([(left, v), (right, v)]) for v in np.arange(bottom, top, self.street_m)]
        layers = {}
        for name, geometries, width in (("building", houses, np.nan), ("street", streets, 8.0)):
            columns = {"kind": ["x"] * len(geometries), "width_m": [width] * len(geometries)}
            layers[name] = gpd.GeoDataFrame(columns, geometry=list(geometries), crs=place.crs)
        return Features(
            layers,
            place=place,
            valid=self.valid,
            provenance={"kind": "town"},
            unknown={"parking": "not seen"},
            partial={"cycle": "no lanes"},
            remainder=self.remainder,
        )


class Forbidden(Town):
    """Has the same request as `Town` and must not be read."""

    def features(self, place, progress=None):
        pytest.fail("the source was read")


Forbidden.__name__ = "Town"


def contents(folder):
    """Every file of a city raster but its cache, as bytes."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


def names(folder):
    return {p.name for p in folder.iterdir() if p.suffix != ".lock"}


@pytest.fixture
def said():
    """What prepare reports, and a function to give it."""
    lines = []

    def report(done, what):
        lines.append((done, what))

    report.lines = lines
    return report


def test_the_result_does_not_depend_on_the_number_of_workers(tmp_path):
    made = [contents(prepare(PLACE, Town(), tmp_path / str(n), workers=n).path) for n in (1, 2, 4)]
    assert made[0] == made[1] == made[2]


def test_unknown_is_not_zero(tmp_path):
    raster = prepare(PLACE, Town(), tmp_path)
    assert raster.unknown == {"parking": "not seen"}
    assert raster.partial == {"cycle": "no lanes"}
    assert not raster.level(8.0).array[CHANNEL_NAMES.index("parking")].any()
    assert "parking" not in raster.blocks
    assert "walk" in raster.blocks


def test_only_cells_of_the_place_that_the_source_covers_are_valid(tmp_path):
    left, bottom, right, top = PLACE.bounds_utm
    import shapely

    raster = prepare(PLACE, Town(valid=shapely.box(left - 500, bottom, (left + right) / 2, top)), tmp_path)
    level = raster.level(2.0)
    assert level.valid.sum() * 4 / 1e6 == pytest.approx(PLACE.area_km2 / 2, rel=0.02)
    assert raster.provenance["valid_km2"] == pytest.approx(PLACE.area_km2 / 2, rel=0.02)
    assert not level.array[:, :, raster.shape[1] // 2 + 20 :].any()
    with pytest.raises(SourceError, match="no data in town"):
        prepare(PLACE, Town(valid=shapely.box(0, 0, 1, 1)), tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere" / "town").exists()


def test_the_same_request_is_not_done_twice(tmp_path, said):
    first = prepare(PLACE, Town(), tmp_path)
    again = prepare(PLACE, Forbidden(), tmp_path, progress=said)
    assert again.provenance == first.provenance
    assert said.lines == [(1.0, "already there, made from the same request")]


def test_another_request_does_not_overwrite_unless_told(tmp_path, said):
    folder = prepare(PLACE, Town(), tmp_path).path
    before = contents(folder)
    with pytest.raises(DataError, match=r"(?s)another request.*4.0.*2.0.*raster.replace=true"):
        prepare(PLACE, Forbidden(), tmp_path, resolution_m=4.0)
    assert contents(folder) == before
    assert prepare(PLACE, Town(), tmp_path, resolution_m=4.0, replace=True, progress=said).resolution_m == 4.0
    assert said.lines[-1] == (1.0, "replaced")
    assert names(tmp_path) == {"town"}


def test_progress_goes_forward_from_reading_to_the_end(tmp_path, said):
    prepare(PLACE, Town(), tmp_path, progress=said)
    done = [d for d, _ in said.lines]
    assert done == sorted(done)
    assert said.lines[-1] == (1.0, "written")


def test_what_is_drawn_nowhere_is_counted_and_told_where_it_matters(tmp_path):
    left_out = {
        "highway=hoverway": Remainder(3, km=2.5, ha=0.0),
        "highway=zebra": Remainder(1, km=0.01, ha=0.0),
        "landuse=moss": Remainder(2, km=0.0, ha=4.0),
    }
    raster = prepare(PLACE, Town(remainder=left_out), tmp_path)
    assert raster.provenance["remainder"]["highway=zebra"] == {"features": 1, "km": 0.01, "ha": 0.0}
    console = Console(width=200, record=True)
    console.print(summary(raster, "written", 1.0))
    told = console.export_text()
    assert "highway=hoverway (2.5 km" in told
    assert "landuse=moss (4.0 ha" in told
    assert "zebra" not in told
    assert "nothing to speak of" not in told


def test_a_folder_of_format_1_must_be_prepared_again(tmp_path):
    folder = prepare(PLACE, Town(), tmp_path).path
    manifest = json.loads((folder / "place.json").read_text())
    (folder / "place.json").write_text(json.dumps({**manifest, "format": 1}))
    for wanted in (lambda: CityRaster.open(folder), lambda: prepare(PLACE, Town(), tmp_path)):
        with pytest.raises(DataError, match=r"must be prepared again[\s\S]*raster.replace=true"):
            wanted()
    assert prepare(PLACE, Town(), tmp_path, replace=True).provenance["format"] == 2


def test_a_damaged_raster_is_replaced_only_when_told(tmp_path):
    folder = prepare(PLACE, Town(), tmp_path).path
    (folder / "layout.tif").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"(?s)damaged.*raster.replace=true"):
        prepare(PLACE, Forbidden(), tmp_path)
    assert prepare(PLACE, Town(), tmp_path, replace=True).level(8.0).valid.any()


def test_what_is_no_city_raster_is_never_replaced(tmp_path):
    thesis = tmp_path / "town" / "thesis.tex"
    thesis.parent.mkdir()
    thesis.write_text("ten years of work")
    with pytest.raises(DataError, match=r"(?s)in the way.*thesis.tex"):
        prepare(PLACE, Forbidden(), tmp_path, replace=True)
    assert thesis.read_text() == "ten years of work"
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "town").write_text("a file")
    with pytest.raises(DataError, match=r"(?s)in the way.*a file"):
        prepare(PLACE, Forbidden(), tmp_path / "file")


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_a_folder_that_cannot_be_made(tmp_path, where):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"(?s)could not be written.*paths.data"):
        prepare(PLACE, Forbidden(), tmp_path / where)


def test_a_folder_that_may_not_be_written(tmp_path, monkeypatch):
    def refuse(self, *_args, **_kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DataError, match=r"(?s)could not be written.*Permission denied"):
        prepare(PLACE, Forbidden(), tmp_path / "cities")


@pytest.mark.parametrize("step", ["tile", "blocks", "manifest", "sync"])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, step):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = prepare(PLACE, Town(), tmp_path).path
    before = contents(folder)
    target = {
        "tile": "citygrain.geo.geotiff.GeoTiffWriter._store",
        "blocks": "geopandas.GeoDataFrame.to_parquet",
        "manifest": "pathlib.Path.write_text",
        "sync": "os.fsync",
    }[step]
    with monkeypatch.context() as patch:
        patch.setattr(target, full)
        with pytest.raises(DataError, match=r"(?s)could not be written; what was there before.*No space left.*GB free"):
            prepare(PLACE, Town(), tmp_path, replace=True)
    assert contents(folder) == before
    assert names(tmp_path) == {"town"}
    CityRaster.open(folder)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits on file size are of Unix")
def test_a_real_limit_on_file_size_is_an_error_too(tmp_path):
    code = f"""
        import resource, signal, sys
        sys.path[:0] = {[str(ROOT / "src"), str(ROOT / "tests")]!r}
        from test_prepare import PLACE, Town
        from citygrain.errors import DataError
        from citygrain.data.prepare import prepare
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            prepare(PLACE, Town(), {str(tmp_path)!r})
        except DataError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert "File too large" in done.stdout
    assert names(tmp_path) == set()


def test_an_error_of_the_source_leaves_nothing(tmp_path):
    class Broken(Town):
        def features(self, place, progress=None):
            raise SourceError("The tiles are corrupt.")

    with pytest.raises(SourceError, match="corrupt"):
        prepare(PLACE, Broken(), tmp_path)
    assert names(tmp_path) == set()


def test_two_processes_do_not_prepare_the_same_place_at_once(tmp_path):
    pytest.importorskip("fcntl")
    with lock_folder(tmp_path / "town"), pytest.raises(DataError, match="another process"):
        prepare(PLACE, Forbidden(), tmp_path)
    prepare(PLACE, Town(), tmp_path)


SURVIVE = """
import os, shutil, signal, sys
from pathlib import Path
sys.path[:0] = {paths!r}
from test_prepare import PLACE, Town, contents
from citygrain.errors import DataError
from citygrain.data.cityraster import CityRaster
from citygrain.data.prepare import prepare

CALLS = [(os, n) for n in ("fsync", "unlink", "rmdir", "mkdir", "rename", "replace")]
base, old = Path({base!r}), {old!r}


def child(action):
    pid = os.fork()
    if pid == 0:
        action()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def dying(n):
    left = [n]

    def wrap(call):
        def counted(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)
        return counted

    for module, name in CALLS:
        setattr(module, name, wrap(getattr(module, name)))
    prepare(PLACE, Town(50.0), out, workers=1, replace=old)


def finish():
    prepare(PLACE, Town(50.0), out, workers=1, replace=old)


out = base / "whole"
assert child(lambda: prepare(PLACE, Town(60.0), out, workers=1)) == 0
before = contents(out / "town")
out = base / "new"
assert child(finish) == 0
after = contents(out / "town")
for n in range(1, 200):
    out = base / str(n)
    if old:
        shutil.copytree(base / "whole", out)
    died = child(lambda: dying(n))
    folder = out / "town"
    try:
        CityRaster.open(folder)
    except DataError as error:
        assert "is not a city raster" in str(error) and "got:      nothing" in str(error), error
        assert died
    else:
        found = contents(folder)
        assert found == after or (old and found == before), n
        assert died or found == after
    assert child(finish) == 0
    assert contents(folder) == after, n
    assert {{p.name for p in out.iterdir() if p.suffix != ".lock"}} == {{"town"}}, (n, list(out.iterdir()))
    shutil.rmtree(out)
    if not died:
        print("survived", n - 1, "deaths")
        break
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("old", [False, True])
def test_killed_at_any_step_no_half_folder_is_taken_for_a_whole_one(tmp_path, old):
    """SIGKILL before each and every change of the file system in turn; the next run finishes the job."""
    code = SURVIVE.format(paths=[str(ROOT / "src"), str(ROOT / "tests")], base=str(tmp_path), old=old)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    deaths = int(done.stdout.split()[1])
    assert deaths >= (14 if old else 8)


@pytest.mark.slow
def test_killed_at_random_moments_the_next_run_finishes(tmp_path):
    code = f"""
        import sys
        sys.path[:0] = {[str(ROOT / "src"), str(ROOT / "tests")]!r}
        from test_prepare import Town
        from citygrain.geo.place import Place
        from citygrain.data.prepare import prepare
        print("go", flush=True)
        prepare(Place.from_bbox("city", (12.5, 55.6, 12.58, 55.64)), Town(), {str(tmp_path)!r})
        print("done", flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    for share in (0.2, 0.7, None):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        child.stdout.readline()
        if share is None:
            assert child.stdout.readline() == "done\n"
        else:
            time.sleep(share * 0.8)
            child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        if share is not None and not (tmp_path / "city" / "place.json").exists():
            with pytest.raises(DataError, match="is not a city raster"):
                CityRaster.open(tmp_path / "city")
    assert CityRaster.open(tmp_path / "city").level(8.0).valid.any()
    assert names(tmp_path) == {"city"}


def test_a_finished_draft_is_put_in_place_and_said_so(tmp_path, said):
    folder = prepare(PLACE, Town(), tmp_path).path
    folder.rename(tmp_path / ".town.partial")
    prepare(PLACE, Forbidden(), tmp_path, progress=said)
    assert said.lines == [(1.0, "finished what an interrupted run had all but completed")]
    (tmp_path / ".town.partial").mkdir()
    (tmp_path / ".town.partial" / "layout.tif").write_bytes(b"half")
    prepare(PLACE, Town(), tmp_path, replace=True, progress=said)
    assert said.lines[-1] == (1.0, "cleared what an interrupted run had left; replaced")
    before = contents(folder)
    folder.rename(tmp_path / ".town.old")
    assert contents(prepare(PLACE, Forbidden(), tmp_path).path) == before
    shutil.rmtree(folder)
    (tmp_path / ".town.partial").mkdir()
    prepare(PLACE, Town(), tmp_path, progress=said)
    assert said.lines[-1] == (1.0, "cleared what an interrupted run had left; written")


@pytest.fixture
def config(tmp_path, sample_pbf):
    return {
        "place": {"name": None, "bbox": None, "polygon": None, "query": None},
        "source": {"_target_": "citygrain.geo.sources.osmfile.OsmFile", "path": str(sample_pbf)},
        "raster": {"resolution_m": 4.0, "block_m": 2000.0, "buffer_m": 128.0, "seed": 0, "workers": 1},
        "paths": {"data": str(tmp_path)},
    }


def test_the_verb_prepares_a_real_extract_and_sums_it_up(config, capsys):
    raster = run(config)
    text = capsys.readouterr().out
    assert raster.name == "helsinki"
    assert raster.provenance["counts"]["building"] > 300
    assert 0.1 < raster.provenance["shares"]["building"] < 0.5
    for words in ("building", "km² with data", "written", "GB of memory", "© OpenStreetMap contributors, ODbL 1.0"):
        assert words in text
    assert len(raster.blocks) >= 12
    manifest = json.loads((raster.path / "place.json").read_text())
    assert manifest["versions"]["citygrain"]


def test_a_place_is_what_the_config_says_first(config, tmp_path):
    bbox = [24.938, 60.166, 24.950, 60.176]
    config["place"] |= {"name": "centre", "bbox": bbox}
    assert run(config).provenance["place"]["bbox"] == bbox
    outline = tmp_path / "quarter.geojson"
    outline.write_text(
        json.dumps(
            {"type": "Polygon", "coordinates": [[[24.938, 60.166], [24.95, 60.166], [24.95, 60.176], [24.938, 60.166]]]}
        )
    )
    config["place"] = {"polygon": str(outline)}
    raster = run(config)
    assert raster.name == "quarter"
    assert raster.level(4.0).valid.mean() < 0.6


def test_a_place_with_two_outlines_is_refused(config):
    config["place"] = {"name": "houston", "bbox": [0, 0, 1, 1], "polygon": "heights.geojson"}
    with pytest.raises(ConfigError, match="a bbox or a polygon") as error:
        run(config)
    assert "without place=houston" in str(error.value)


def test_a_file_is_known_by_its_content(config, tmp_path):
    moved = tmp_path / "elsewhere" / "helsinki.osm.pbf"
    moved.parent.mkdir()
    shutil.copyfile(config["source"]["path"], moved)  # another folder, another time
    first = run(config)
    config["source"] = {**config["source"], "path": str(moved)}
    assert run(config).provenance == first.provenance
    with moved.open("ab") as file:
        file.write(b"!")
    with pytest.raises(DataError, match="another request"):
        run(config)


def test_a_config_without_a_place_says_what_to_write(config):
    config["place"] = {}
    config["source"] = {"_target_": "citygrain.geo.sources.overpass.Overpass"}
    with pytest.raises(ConfigError, match=r"place\.bbox="):
        run(config)


def test_the_summary_tells_unknown_from_nothing(tmp_path):
    raster = prepare(PLACE, Town(), tmp_path)
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(summary(raster, "written", 1.0))
    text = console.export_text()
    assert "unknown" in next(line for line in text.splitlines() if "parking" in line)
    assert "0.00%" in next(line for line in text.splitlines() if "green" in line)
    assert "no lanes" in text


def test_the_function_has_the_keywords_and_defaults_of_the_verb():
    plain = load_config("prepare")
    source = list_group_defaults("prepare")["source"]
    assert instantiate(plain.pop("source")) == choose_source(source)
    written = {**plain["place"], "source": source, **plain["raster"], **plain["paths"]}
    parameters = inspect.signature(prepare).parameters
    taken = {name: p.default for name, p in parameters.items() if name not in {"place", "progress"}}
    assert taken == {**written, "unknown": ()}
    assert asdict(Where()) == plain["place"]
    assert asdict(Raster()) == {**plain["raster"], "unknown": ()}
    assert {f.name for f in fields(Options)} == {"source", *plain}


@pytest.mark.parametrize(
    ("source", "made"),
    [
        ("overpass", Overpass()),
        ("a/City.osm.pbf", OsmFile("a/City.osm.pbf")),
        (Path("city.osm.bz2"), OsmFile("city.osm.bz2")),
        ("city.MBTILES", VectorTiles("city.MBTILES")),
        ("streets.json.gz", OverpassJson("streets.json.gz")),
    ],
)
def test_a_source_is_known_by_its_name(source, made):
    assert choose_source(source) == made


def test_a_source_whose_name_tells_nothing_is_refused():
    for name in ("houses.gpkg", "houses.geojson", "layers"):
        with pytest.raises(SourceError, match=r"does not tell(?s:.)*LayersFile"):
            prepare(PLACE, name)
    town = Town()
    assert choose_source(town) is town


def test_a_shipped_place_is_known_by_its_name(tmp_path):
    raster = prepare("monaco", Town(), tmp_path, resolution_m=8.0, workers=1)
    assert raster.name == "monaco"
    assert raster.provenance["place"]["bbox"] == load_config("prepare", ["place=monaco"])["place"]["bbox"]
    assert prepare("monaco", Town(), tmp_path, name="mine", resolution_m=8.0, workers=1).name == "mine"
    with pytest.raises(ConfigError, match=r"no place of this name(?s:.)*did you mean: monaco"):
        prepare("monacco", Town(), tmp_path)
    with pytest.raises(ConfigError, match=r"no place of this name(?s:.)*query="):
        prepare("Houston, Texas", Town(), tmp_path)


def test_a_place_is_given_in_one_way(tmp_path):
    with pytest.raises(ConfigError, match=r"(?s)by itself where it is.*leave out bbox"):
        prepare(PLACE, Town(), tmp_path, bbox=PLACE.bbox)
    with pytest.raises(ConfigError, match="a bbox or a polygon"):
        prepare("monaco", Town(), tmp_path, polygon="quarter.geojson")
    with pytest.raises(ConfigError, match="Nothing says where"):
        prepare(source=Town(), data=tmp_path)
    with pytest.raises(PlaceError, match="does not exist"):
        prepare(source=Town(), data=tmp_path, polygon=tmp_path / "quarter.geojson")


def test_a_file_is_prepared_by_its_path_alone(tmp_path, sample_pbf):
    raster = prepare(source=sample_pbf, data=tmp_path, resolution_m=8.0, workers=1)
    assert raster.name == "helsinki"
    assert raster.provenance["place"]["bbox"] == pytest.approx(OsmFile(str(sample_pbf)).extent())
