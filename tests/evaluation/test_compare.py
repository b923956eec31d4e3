"""`citygrain compare`: effect sizes against their definitions, and a real place against generated layouts."""

import csv
import inspect
import json

import numpy as np
import pandas as pd
import pytest

from citygrain.data.cityraster import CityRaster
from citygrain.data.prepare import prepare
from citygrain.errors import ConfigError, DataError
from citygrain.evaluation.comparison import _choose_format, _convert, compare
from citygrain.evaluation.effect import cliffs_delta, separation
from citygrain.evaluation.form import FORM
from citygrain.evaluation.gather import Gathered
from citygrain.evaluation.separation import ComparedPlace, rank_measures
from citygrain.evaluation.view import convert_layouts
from citygrain.geo.layers import RASTER_FORMAT
from citygrain.geo.place import Place
from citygrain.geo.sources.overpass import Overpass
from citygrain.layouts import Layouts
from citygrain.measures import MEASURES
from citygrain.support.config import load_config
from citygrain.verbs.compare import Options, run
from geo.overpass_server import serve

# Effect sizes


def test_cliffs_delta_is_a_count_of_pairs():
    rng = np.random.default_rng(0)
    one, two = rng.integers(0, 9, 30).astype(float), rng.integers(3, 12, 40).astype(float)
    pairs = np.sign(two[None] - one[:, None])
    assert cliffs_delta(one, two) == pytest.approx(pairs.mean())
    assert cliffs_delta(one, one + 100) == 1
    assert cliffs_delta(one, one) == pytest.approx(0)


def test_separation_goes_from_nothing_to_all():
    rng = np.random.default_rng(0)
    alike = separation([rng.normal(size=300) for _ in range(3)])
    apart = separation([rng.normal(i * 0.5, 1, 300) for i in range(3)])
    assert 0 <= alike < 0.02 < apart < 0.3
    assert separation([np.zeros(50), np.ones(50)]) == pytest.approx(1, abs=0.02)
    assert separation([np.zeros(5), np.zeros(5)]) == 0


def test_separation_does_not_mind_the_unit():
    rng = np.random.default_rng(0)
    samples = [rng.lognormal(i, 1, 80) for i in range(3)]
    assert separation([np.log(s) for s in samples]) == pytest.approx(separation(samples))


def test_what_few_windows_have_comes_after_what_most_have():
    """Circuity of cycle tracks tells one place's only two tracks from another's; coverage tells the places apart."""

    def place(name, coverage, circuity):
        values = {"coverage": np.array(coverage), "cycle_circuity": np.array(circuity), "rail": np.full(4, np.nan)}
        empty = np.empty((4, 0), np.float32)
        return ComparedPlace(name, ("building", "cycle"), {}, Gathered(values, {}, empty, empty, ()))

    nan = np.nan
    places = [
        place("a", [0.1, 0.2, 0.3, 0.4], [1.0, nan, nan, nan]),
        place("b", [0.2, 0.3, 0.4, 0.5], [1.5, 1.6, 1.7, 1.8]),
    ]
    found = rank_measures(places, 2.0)
    assert [m.name for m in found] == ["coverage", "cycle_circuity"]
    assert found[1].separation > found[0].separation


# The verb


@pytest.fixture(scope="module")
def generated(cities, tmp_path_factory):
    """Windows without any buildings, in the format of `citygrain sample`; parking is not among their channels."""
    raster = CityRaster.open(cities / "helsinki")
    channels = [name for name in raster.channels if name != "parking"]
    level = raster.level(4.0)
    part = level.array[[raster.channels.index(name) for name in channels], :192, :192]
    layouts = (
        part.reshape(len(channels), 6, 32, 6, 32).transpose(1, 3, 0, 2, 4).reshape(36, len(channels), 32, 32).copy()
    )
    layouts[:, channels.index("building")] = 0
    folder = tmp_path_factory.mktemp("made") / "empty_streets"
    folder.mkdir()
    np.savez_compressed(folder / "layouts.npz", layouts=layouts, channels=channels, resolution_m=4.0, raster_format=2)
    return folder


def comparison(cities, out, *more):
    return load_config("compare", [f"paths.data={cities}", f"out={out}", "workers=1", "n=30", *more])


@pytest.fixture(scope="module")
def report(cities, generated, tmp_path_factory):
    out = tmp_path_factory.mktemp("comparison")
    run(comparison(cities, out, "places=[helsinki]", f"generated=[{generated}]"))
    return out


@pytest.mark.slow
def test_what_separates_comes_first_and_what_is_missing_is_said(report):
    found = json.loads((report / "report.json").read_text(encoding="utf-8"))
    assert found["places"] == ["helsinki", "empty_streets"]
    assert found["generated"] == ["empty_streets"]
    measures = {m["name"]: m for m in found["measures"]}
    assert set(measures) <= {*MEASURES, *FORM}
    assert measures["coverage"]["delta"] < -0.9, "no generated window has a building"
    assert measures["coverage"]["separation"] > 0.5 > measures["drive_circuity"]["separation"]
    ranks = [
        (m["separation"] is None, any(of["undefined"] > 0.5 for of in m["places"].values()), -(m["separation"] or 0))
        for m in found["measures"]
    ]
    assert ranks == sorted(ranks)
    assert list(measures["parking"]["places"]) == ["helsinki"]
    assert measures["parking"]["separation"] is None
    assert "empty_streets" not in measures["compactness"]["places"], "no building, no shape"
    assert set(found["orientation"]) == {"helsinki", "empty_streets"}


@pytest.mark.slow
@pytest.mark.filterwarnings("error::citygrain.geo.sources.EmptyLayerWarning")
def test_houston_is_compared_on_its_streets(cities, houston, tmp_path):
    """Its buildings are declared to be missing, so that they are neither warned of nor taken for none."""
    lacking = ("building", "green", "parking", "rail")
    place = Place.from_bbox("houston", (-95.43, 29.70, -95.41, 29.72))
    with serve(houston) as server:
        source = Overpass(server.url, tmp_path / "cache", tile_km=4, pause_s=0.001)
        raster = prepare(place, source, tmp_path / "places", block_m=500, buffer_m=56, unknown=lacking)
        assert prepare(place, source, tmp_path / "places", block_m=500, buffer_m=56, unknown=lacking[::-1]).unknown
    assert set(raster.unknown) == set(lacking)
    with pytest.raises(DataError, match=r"another request(.|\n)*unknown(.|\n)*rail"):
        prepare(place, source, tmp_path / "places", block_m=500, buffer_m=56)
    out = run(comparison(cities, tmp_path / "out", f"places=[{raster.path},helsinki]"))
    found = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert set(found["missing"]["houston"]) == set(lacking)
    for m in found["measures"]:
        needs = (FORM.get(m["name"]) or MEASURES[m["name"]]).channels
        assert ("houston" in m["places"]) <= set(needs).isdisjoint(lacking)
    separating = [m["name"] for m in found["measures"] if m["separation"] is not None]
    assert {"street_density", "drive_intersection_density", "reach_400"} < set(separating)
    assert not any(name.endswith("_share") or name in {"coverage", "setback", "open_patch"} for name in separating)
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "building (declared to be missing from this source)" in html
    assert found["least"]["of"] == ["arterial", "street"], "windows of both places are chosen by what both know"


@pytest.mark.slow
def test_the_table_and_the_page_say_the_same(report):
    rows = list(csv.DictReader((report / "measures.csv").read_text().splitlines()))
    found = json.loads((report / "report.json").read_text(encoding="utf-8"))
    assert [row["measure"] for row in rows] == [m["name"] for m in found["measures"]]
    coverage = next(row for row in rows if row["measure"] == "coverage")
    expected = next(m for m in found["measures"] if m["name"] == "coverage")["places"]["helsinki"]["p50"]
    assert float(coverage["helsinki_p50"]) == pytest.approx(expected, rel=1e-5)
    html = (report / "report.html").read_text(encoding="utf-8")
    for words in ("helsinki", "empty_streets", "(generated)", "Orientation", "OpenStreetMap"):
        assert words in html
    assert html.count("data:image/png;base64,") == 7


@pytest.mark.parametrize(
    ("overrides", "error", "words"),
    [
        (["places=[helsinki]"], ConfigError, "nothing to compare"),
        (["places=[helsinki,helsinki]"], ConfigError, "nothing to compare"),
        (["places=[helsinki,atlantis]"], DataError, "not prepared"),
        (["places=[helsinki]", "generated=[nowhere]"], DataError, "no generated layouts"),
    ],
)
def test_what_cannot_be_compared_is_refused(overrides, error, words, cities, tmp_path):
    with pytest.raises(error, match=words):
        run(comparison(cities, tmp_path, *overrides))


@pytest.mark.slow
def test_generated_layouts_set_the_resolution(generated, cities, tmp_path):
    with pytest.raises(ConfigError, match="whole multiple"):
        run(comparison(cities, tmp_path, "places=[helsinki]", f"generated=[{generated}]", "resolution_m=2"))


def test_layouts_of_models_that_know_other_channels_are_compared_in_those_of_the_earliest(cities):
    assert _choose_format([]) == RASTER_FORMAT
    assert _choose_format([2, 1]) == 1
    new = CityRaster.open(cities / "helsinki").window(size_m=256, at=(24.9414, 60.1735), resolution_m=4.0)
    old = _convert(new, None, 1)
    assert old.raster_format == 1
    assert set(new.channels) - set(old.channels) == {"service", "square"}
    street, service = (new.cells[0, new.channels.index(name)].astype(float) for name in ("street", "service"))
    assert old.cells[0, old.channels.index("street")] == pytest.approx(np.minimum(street + 1.6 * service, 255), abs=0.5)
    without = new.select([name for name in new.channels if name != "service"])
    assert "street" not in _convert(without, None, 1).channels, "half of a channel is not the channel"


# In a notebook


@pytest.fixture(scope="module")
def layouts(generated):
    """The same layouts in hand."""
    with np.load(generated / "layouts.npz") as file:
        return Layouts(file["layouts"], tuple(map(str, file["channels"])), 4.0)


@pytest.fixture(scope="module")
def compared(cities, layouts, tmp_path_factory):
    """Few windows of a place, and as many layouts in hand."""
    return compare(
        ["helsinki"], generated={"mine": layouts[:6]}, n=6, workers=1, data=cities, out=tmp_path_factory.mktemp("out")
    )


@pytest.mark.slow
def test_a_model_of_smaller_cells_stands_beside_one_of_larger_cells(layouts, cities, tmp_path):
    two = {"fine": layouts, "coarse": convert_layouts(layouts, 8.0, layouts.channels, 2)}
    with pytest.raises(ConfigError, match=r"several sizes(.|\n)*resolution_m=8"):
        compare([], generated=two, workers=1, data=cities, out=tmp_path)
    found = compare(["helsinki"], generated=two, resolution_m=8, n=8, workers=1, data=cities, out=tmp_path)
    assert (found.resolution_m, found.window_m) == (8.0, 128.0)
    places = [m.places for m in found.measures if "fine" in m.places]
    assert len(places) > 20
    assert all(repr(of["fine"]) == repr(of["coarse"]) for of in places), "repr, since NaN is equal to nothing"


@pytest.mark.slow
def test_layouts_in_hand_are_compared_as_those_of_a_folder_are(compared, generated, cities, tmp_path):
    with np.load(generated / "layouts.npz") as file:
        few = {name: file[name][:6] if name == "layouts" else file[name] for name in file.files}
    (tmp_path / "mine").mkdir()
    np.savez_compressed(tmp_path / "mine" / "layouts.npz", **few)
    again = compare(
        ["helsinki"], generated=[tmp_path / "mine"], n=6, workers=1, data=cities, out=tmp_path / "out"
    )  # fmt: skip
    assert again == compared
    assert compared.n == {"helsinki": 6, "mine": 6}
    assert (compared.resolution_m, compared.window_m) == (4.0, 128.0)


def test_the_table_is_that_of_the_file(compared):
    table = compared.table()
    written = pd.read_csv(compared.folder / "measures.csv", index_col="measure")
    assert list(written.columns) == list(table.columns)
    pd.testing.assert_frame_equal(written, table, rtol=1e-5, check_dtype=False)
    assert table.index[0] == compared.measures[0].name
    assert table.loc["coverage", "mine_p50"] == 0
    assert np.isnan(table.loc["parking", "mine_p50"])


def test_a_notebook_shows_what_separates_best(compared):
    html = compared._repr_html_()
    assert [html.index(f"<td>{m.label}</td>") for m in compared.measures[:12]]
    assert f"<td>{compared.measures[12].label}</td>" not in html
    assert str(compared.folder) in html
    assert repr(compared) == "Comparison(6 windows of helsinki, 6 windows of mine)"


def test_the_function_has_the_keywords_and_the_defaults_of_the_command_line():
    config = load_config("compare", ["places=[helsinki]"])
    parameters = dict(inspect.signature(compare).parameters)
    assert parameters.keys() == config.keys() - {"threads", "paths"} | {"data"}
    for name, parameter in parameters.items():
        if name == "data":
            assert parameter.default == config["paths"]["data"]
        elif name != "places":
            assert json.loads(json.dumps(parameter.default)) == config[name], name
    assert set(Options.__dataclass_fields__) == config.keys() - {"threads"}
