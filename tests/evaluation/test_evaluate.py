"""`citygrain evaluate` as a user runs it: a report, broken off and taken up, and refused in plain words."""

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from citygrain import load
from citygrain.data.dataset import CityWindows
from citygrain.data.rules import Rules
from citygrain.errors import ConfigError, DataError
from citygrain.evaluation import gather, sets
from citygrain.evaluation.distribution import Distance
from citygrain.evaluation.form import FORM, Form
from citygrain.evaluation.judge import list_seen_places
from citygrain.evaluation.realism import MeasureDistance, find_failures
from citygrain.support.config import load_config
from citygrain.verbs.evaluate import run
from citygrain.verbs.export import run as export
from citygrain.verbs.train import run as train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:.*LeafSpec.*"),
]
SMALL = [
    "n=24", "batch_size=16", "workers=1", "bootstrap=20", "embedding.steps=4", "classifier.steps=4",
    "memorisation.windows=64", "obedience.levels=3", "obedience.each=4", "obedience.conditions=[coverage,green]",
    "obedience.attempts=3",
]  # fmt: skip


@pytest.fixture(scope="module")
def model(cities, tmp_path_factory):
    """Principal components of Helsinki: fitted in seconds, blurred, and asked for what it was fitted to."""
    runs = tmp_path_factory.mktemp("runs")
    train(
        load_config(
            "train",
            [
                "model=pca", "name=pca", "data.places=[helsinki]", "data.resolution_m=4", "data.size_px=16",
                "data.batch_size=32", "data.batches_per_epoch=8", "data.val_windows=0", "data.statistics_windows=64",
                "trainer=cpu", "trainer.max_steps=8", "codes=256", "logger=none", "callbacks.samples.every_n_epochs=0",
                "~callbacks.progress", f"paths.data={cities}", f"paths.runs={runs}",
            ],
        )
    )  # fmt: skip
    return runs / "pca"


def evaluation(model, cities, out, *more):
    return load_config("evaluate", [f"checkpoint={model}", f"paths.data={cities}", f"out={out}", *SMALL, *more])


@pytest.fixture(scope="module")
def report(model, cities, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluation")
    run(evaluation(model, cities, out, "disrupt=true", "disruption.windows=12"))
    return out


def test_the_report_holds_every_judgement(report):
    found = json.loads((report / "report.json").read_text(encoding="utf-8"))
    assert (found["n"], found["seed"], found["places"]) == (24, 0, ["helsinki"])
    measures = found["realism"]["measures"]
    for name in ("coverage", "drive_length_density", "walk_circuity", "reach_400", "openness"):
        measure = measures[name]
        assert measure["generated"]["value"] >= 0
        assert measure["floor"]["value"] >= 0
        assert measure["unit"]
    coverage = measures["coverage"]
    assert coverage["ceiling"]["value"] == pytest.approx(coverage["floor"]["value"], rel=1e-3), "the same ground"
    assert set(measures) | set(found["realism"]["not_compared"]) >= set(FORM)
    assert set(found["realism"]["embedding"]) == {"generated", "floor", "ceiling"}
    assert list(found["obedience"]) == ["coverage", "green"]
    assert found["obedience"]["coverage"]["retrieval"]["slope"] == pytest.approx(1, abs=0.2)
    assert found["obedience"]["coverage"]["n"] == 12
    for condition in found["obedience"].values():
        assert condition["corrected"]["mae"] <= condition["model"]["mae"]
        assert condition["attempts"] == 3
    assert "drawn up to 3 times" in (report / "report.html").read_text(encoding="utf-8")
    assert 0 <= found["two_sample"]["generated"]["accuracy"] <= 1
    assert found["memorisation"]["n"] == 24
    assert set(found["disruption"]["metrics"]["frechet"]) == {
        "buildings moved", "buildings deleted", "streets cut", "blocks turned", "salt noise", "blur",
    }  # fmt: skip
    assert len(found["disruption"]["metrics"]["coverage"]["blur"]) == 5


def test_its_figures_go_onto_the_card_of_that_model_and_of_no_other(report, model, tmp_path):
    folder = export(load_config("export", [f"checkpoint={model}", f"out={tmp_path / 'out'}", f"evaluation={report}"]))
    found = json.loads((report / "report.json").read_text(encoding="utf-8"))
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"{found['two_sample']['generated']['accuracy']:.0%}" in card
    assert f"| coverage | – | {found['obedience']['coverage']['model']['slope']:.2f} |" in card
    assert "R², 3 attempts" in card
    assert "## Limits" in card
    assert re.search(r"8 steps and \d[\d.]* (s|min) on .*\w", card)
    for folder_of, words in ((report, "another model"), (tmp_path / "nothing", "no evaluation")):
        with pytest.raises(DataError, match=words):
            export(
                load_config(
                    "export",
                    ["checkpoint=reference/cities_64", f"out={tmp_path / 'two'}", f"evaluation={folder_of}"],
                )
            )


def test_the_worst_failures_are_shown_and_are_not_the_same_thrice(report):
    found = json.loads((report / "report.json").read_text(encoding="utf-8"))
    measures, failures = found["realism"]["measures"], found["failures"]
    groups = {measures[f["measure"]]["group"] for f in failures}
    assert len(groups) == len(failures) == 3
    assert len(groups & {"drive", "cycle", "walk"}) <= 1, "a network in pieces is so in every measure"
    times = [f["times_floor"] for f in failures]
    assert times == sorted(times, reverse=True)
    assert times[0] == max(m["times_floor"] for m in measures.values() if m["times_floor"] is not None)
    assert (report / "failures.png").is_file()
    assert found["curves"] == {}, "it has kept no log"


def test_what_is_typical_lies_about_the_median():
    values = np.array([9.0, np.nan, 1.0, 2.0, 3.0, 0.0, 2.5])
    of = {"cycle": values, "rail": np.zeros(7)}
    two = SimpleNamespace(real=SimpleNamespace(values=of), generated=SimpleNamespace(values=of))
    apart = Distance(1.0, 0.9, 1.1, (0.0, 0.0))
    measures = {
        name: MeasureDistance("cycle tracks", "km/km²", group, 1.0, None, apart, apart, apart, times_floor)
        for name, group, times_floor in (
            ("cycle", "conditions", 3.0), ("rail", "conditions", 2.0), ("reach", "reach", np.nan),
            ("setback", "street edge", 0.9),
        )
    }  # fmt: skip
    (found,) = find_failures(two, measures)
    assert found.measure == "cycle"
    assert found.real.median == 2.25
    assert sorted(found.real.typical) == [2, 3, 4, 6]


def test_the_html_stands_alone(report):
    html = (report / "report.html").read_text(encoding="utf-8")
    assert html.count("data:image/png;base64,") == 6
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", html)
    assert "nan" not in re.sub(r"base64,[^\"]*", "", html)
    assert "OpenStreetMap" in html


def test_a_repeated_command_makes_nothing_again_and_says_the_same(report, model, cities, monkeypatch):
    before = (report / "report.json").read_text(encoding="utf-8")
    monkeypatch.setattr(gather, "measure_window", lambda *_, **__: pytest.fail("it has been measured"))
    monkeypatch.setattr(sets, "draw", lambda *_, **__: pytest.fail("it has been drawn"))
    run(evaluation(model, cities, report, "disrupt=true", "disruption.windows=12"))
    assert (report / "report.json").read_text(encoding="utf-8") == before


def test_a_damaged_part_is_made_again(report, model, cities):
    before = json.loads((report / "report.json").read_text(encoding="utf-8"))
    part = next(report.glob("parts/*/generated_*.npz"))
    with np.load(part) as file:
        layouts = file["layouts"]
    part.write_bytes(part.read_bytes()[:1000])
    run(evaluation(model, cities, report))
    with np.load(part) as file:
        assert (file["layouts"] == layouts).all()
    after = json.loads((report / "report.json").read_text(encoding="utf-8"))
    assert after["realism"] == before["realism"]
    assert after["disruption"] is None


def test_where_no_attempts_are_made_the_report_speaks_of_none(report, model, cities, tmp_path):
    out = shutil.copytree(report, tmp_path / "out")
    run(evaluation(model, cities, out, "obedience.attempts=1"))
    found = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert not any("corrected" in condition for condition in found["obedience"].values())
    html = (out / "report.html").read_text(encoding="utf-8")
    assert ">Obedience<" in html
    assert "attempts" not in html


@pytest.fixture(scope="module")
def twin(cities, tmp_path_factory):
    """The same place by another name, which the model has not heard of."""
    folder = tmp_path_factory.mktemp("elsewhere") / "twin"
    shutil.copytree(cities / "helsinki", folder)
    manifest = json.loads((folder / "place.json").read_text(encoding="utf-8"))
    manifest["place"]["name"] = "twin"
    (folder / "place.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


@pytest.mark.filterwarnings("ignore::citygrain.spec.OutOfRangeWarning")
def test_a_place_it_was_not_trained_on_is_compared_with_and_asked_for_by_its_measures(
    report, model, cities, twin, tmp_path
):
    run(evaluation(model, cities, tmp_path / "out", f"places=[{twin}]", "obedience.conditions=[]"))
    found = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    at_home = json.loads((report / "report.json").read_text(encoding="utf-8"))
    assert (found["places"], found["trained_on"]) == (["twin"], ["helsinki"])
    assert set(found["asked"]) == set(load(model).spec.scalars)
    for name, measure in found["realism"]["measures"].items():
        assert measure["floor"] == at_home["realism"]["measures"][name]["floor"], "the same ground"
    assert found["memorisation"]["limit"] == at_home["memorisation"]["limit"]
    with pytest.raises(ConfigError, match="not trained on"):
        run(evaluation(model, cities, tmp_path / "out", f"places=[{twin}]", "ask=[place]"))


@pytest.mark.filterwarnings("ignore::citygrain.spec.OutOfRangeWarning")
def test_all_of_an_unseen_place_are_two_halves_one_to_compare_with_and_one_for_the_floor(
    model, cities, twin, tmp_path, monkeypatch
):
    def coverage_alone(layout, **_):
        return Form({"coverage": float(layout[0].mean() / 255)}, {})

    monkeypatch.setattr(gather, "measure_window", coverage_alone)  # that of a whole city takes a minute
    every = evaluation(
        model, cities, tmp_path / "out", f"places=[{twin}]", "ask=[coverage]", "batch_size=128",
        "obedience.conditions=[]", "against=all",
    )  # fmt: skip
    run({**every, "n": 10_000})
    found = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    halves = {}
    for name in ("real", "floor"):
        parts = [np.load(part)["layouts"] for part in tmp_path.glob(f"out/parts/*/{name}_*.npz")]
        halves[name] = {layout.tobytes() for layout in np.concatenate(parts)}
        assert len(halves[name]) == found["n"]
    assert not halves["real"] & halves["floor"]
    windows = CityWindows([twin], "all", Rules(16, 4.0), channels=load(model).spec.channels)
    assert found["n"] == len(windows) // 2
    assert halves["real"] | halves["floor"] <= {windows[i].layout.numpy().tobytes() for i in range(len(windows))}
    with pytest.raises(ConfigError, match="not trained on"):
        run({**every, "places": ["helsinki"]})
    with pytest.raises(ConfigError, match="not trained on"):
        run({**every, "places": None})


def test_what_the_codec_and_what_a_training_went_on_from_learned_has_been_seen_as_well():
    def of(*places):
        return SimpleNamespace(places=places)

    before = {"places": ["tokyo"], "begun_from": {"places": ["paris"]}}
    codec = SimpleNamespace(spec=of("helsinki", "vienna"))
    generator = SimpleNamespace(spec=of("helsinki"), provenance={"begun_from": before}, codec=codec)
    assert list_seen_places(generator) == {"helsinki", "vienna", "tokyo", "paris"}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("n=4", "Too few"),
        ("against=train", "held-out"),
        ("ask=[hills]", "cannot be asked"),
        ("obedience.levels=1", "two levels"),
        ("obedience.attempts=0", "attempts"),
        ("obedience.conditions=[hills]", "cannot be swept"),
        ("obedience.between=[90,10]", "percentiles"),
    ],
)
def test_what_makes_no_sense_is_refused(override, words, model, cities, tmp_path):
    with pytest.raises(ConfigError, match=words):
        run(evaluation(model, cities, tmp_path, override))
    assert not (tmp_path / "report.json").exists()
