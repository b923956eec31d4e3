"""An evaluation as a notebook runs it: a model in hand, a typed report, the same one from its folder again."""

import inspect
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from citygrain.checkpoint import Checkpoint
from citygrain.checkpoint.card import card
from citygrain.data.datamodule import CityDataModule
from citygrain.errors import ConfigError, DataError
from citygrain.evaluation import Classifier, Embedding, Memorisation, Obedience, gather
from citygrain.evaluation.judge import evaluate
from citygrain.evaluation.report import PAGE, REPORT, Report
from citygrain.support.config import load_config
from citygrain.verbs.evaluate import Options, make_screen_tables

SMALL = {
    "n": 16, "batch_size": 8, "workers": 1, "bootstrap": 5, "embedding": Embedding(2), "classifier": Classifier(2),
    "memorisation": Memorisation(64), "obedience": Obedience(("coverage",), levels=2, each=4, attempts=2),
}  # fmt: skip


class Speckled(torch.nn.Module):
    """Buildings where chance has it, as many as asked for, and nothing else."""

    sampler = None

    def __init__(self, data):
        super().__init__()
        self.spec, self.provenance = data.prepare_spec(), {"data": data.provenance(), "name": "speckled"}
        self.weight = torch.nn.Parameter(torch.ones(()))

    def sample(self, conditions, *, noise, sampler=None):
        index = self.spec.scalars.index("coverage")
        asked = torch.where(conditions.present[:, index], conditions.scalars[:, index], 0.3 * self.weight)
        layouts = torch.zeros(len(conditions), *self.spec.shape)
        layouts[:, 0] = (noise.uniform(*self.spec.shape[1:]) < asked[:, None, None]).float()
        return layouts


@pytest.fixture(scope="module")
def model(cities):
    return Speckled(CityDataModule(["helsinki"], cities, 16, 4.0, statistics_windows=64))


@pytest.fixture(scope="module")
def report(model, cities, tmp_path_factory):
    return evaluate(model, data=cities, out=tmp_path_factory.mktemp("evaluation"), **SMALL)


@pytest.mark.slow
def test_a_model_in_hand_is_judged_and_the_figures_are_values(report, model):
    assert (report.n, report.places, report.checkpoint, report.model) == (16, ("helsinki",), "speckled", "Speckled")
    assert report.realism.measures["coverage"].generated.value >= 0
    assert report.obedience["coverage"].model.slope == pytest.approx(1, abs=0.3)
    assert report.obedience["coverage"].unconditional.slope == pytest.approx(0, abs=0.1)
    assert report.obedience["coverage"].corrected.mae <= report.obedience["coverage"].model.mae
    assert report.attempts == 2
    assert report.two_sample.generated.n == 16
    assert report.memorisation.training_windows == 64
    assert report.disruption is None
    assert report.curves == {}
    for name in ("layouts", "distances", "failures", "closest", "nearest", "obedience"):
        assert (report.folder / f"{name}.png").is_file()


@pytest.mark.slow
def test_a_report_is_the_same_when_it_is_read_again(report):
    again = Report.read(report.folder)
    assert again == replace(report, realism=again.realism)  # NaN is equal to nothing, not even in a dataclass
    np.testing.assert_equal(asdict(again.realism), asdict(report.realism))
    assert again.to_dict() == json.loads((report.folder / REPORT).read_text(encoding="utf-8"))
    assert again.to_dict() == report.to_dict()
    with pytest.raises(DataError, match=r"no evaluation(.|\n)*citygrain evaluate"):
        Report.read(report.folder / "parts")


@pytest.mark.slow
def test_the_tables_hold_the_figures_of_the_report(report):
    tables = report.tables()
    assert list(tables) == ["realism", "embedding", "obedience", "two_sample", "memorisation"]
    assert tables["realism"].loc["coverage", "floor"] == report.realism.measures["coverage"].floor.value
    assert list(tables["realism"].index) == list(report.realism.measures)
    assert tables["embedding"].loc["frechet", "ceiling"] == report.realism.embedding.ceiling["frechet"]
    assert tables["obedience"].loc["coverage", "corrected_r2"] == report.obedience["coverage"].corrected.r2
    assert tables["two_sample"].loc["floor", "accuracy"] == report.two_sample.floor.accuracy
    assert tables["memorisation"].loc["generated", "share_closer"] == report.memorisation.share_closer


@pytest.mark.slow
def test_the_bar_of_cut_and_paste_stands_beside_the_model(report, model, cities, tmp_path):
    """Buildings without streets, at random: whoever pastes real windows together comes nearer than that."""
    rows = {row.label: row for row in report.bar}
    assert list(rows) == ["told apart", "Fréchet distance", "median × floor", "near copies"]
    assert rows["median × floor"].pasted < rows["median × floor"].generated == report.median_times_floor
    assert rows["near copies"].real == 0.01
    pasted = np.load(next(report.folder.glob("parts/*/pasted_*.npz")))["layouts"]
    assert pasted.shape == (16, *model.spec.shape)
    heading = "<th>cut and paste</th>"
    assert heading in (report.folder / PAGE).read_text(encoding="utf-8")
    assert heading in report._repr_html_()
    without = evaluate(model, data=cities, out=tmp_path, cut_and_paste=False, **SMALL)
    assert (without.cut_and_paste, without.bar) == (None, ())
    assert replace(without, cut_and_paste=report.cut_and_paste).to_dict() == report.to_dict()
    assert "cut and paste" not in (without.folder / PAGE).read_text(encoding="utf-8").lower()


@pytest.mark.slow
def test_windows_that_are_pasted_are_asked_for_what_the_layouts_are_asked_for(model, cities, tmp_path):
    folders = {}
    for ask in ([], ["coverage"]):
        folders[len(ask)] = evaluate(model, data=cities, out=tmp_path / str(len(ask)), ask=ask, **SMALL).folder
    errors = []
    for folder in folders.values():
        real, pasted = (np.load(next(folder.glob(f"parts/*/{name}_*.npz"))) for name in ("real", "pasted"))
        errors.append(np.abs(real["measured_coverage"] - pasted["measured_coverage"]).mean())
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.slow
def test_a_notebook_shows_the_head_of_the_report(report):
    html = report._repr_html_()
    worst = report.worst_measures(1)[0]
    assert f"<td>{worst.label}</td>" in html
    assert html.index(worst.label) < html.index(report.worst_measures()[-1].label)
    assert str(report.folder / PAGE) in html
    assert "nan" not in html.lower()
    assert repr(report).startswith("Report(speckled: 16 layouts against test windows of helsinki; ")


@pytest.mark.slow
def test_the_card_takes_a_report_as_it_is_or_as_its_file_has_it(report, model):
    checkpoint = Checkpoint({"_target_": "citygrain.models.pca.Pca"}, model.spec, {}, model.provenance)
    cards = [
        card(checkpoint.model, checkpoint.spec, checkpoint.provenance, 1, found) for found in (report, report.to_dict())
    ]
    assert cards[0] == cards[1]
    assert "| coverage |" in cards[0]


@pytest.mark.slow
def test_an_evaluation_is_taken_up_by_the_same_weights_and_by_no_others(report, model, cities, monkeypatch):
    monkeypatch.setattr(gather, "measure_window", lambda *_, **__: pytest.fail("it is measured again"))
    again = evaluate(model, data=cities, out=report.folder, **SMALL)
    assert again.to_dict() == report.to_dict()
    with torch.no_grad():
        model.weight.mul_(2)
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        evaluate(model, data=cities, out=report.folder, **SMALL)
    with torch.no_grad():
        model.weight.div_(2)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"n": 4}, "Too few"),
        ({"against": "train"}, "held-out"),
        ({"precision": "16"}, "no such precision"),
        ({"ask": ["hills"]}, "cannot be asked"),
        ({"places": ["atlantis"], "ask": ["place"]}, "not trained on"),
        ({"against": "all"}, "not trained on"),
        ({"obedience": Obedience(levels=1)}, "two levels"),
        ({"obedience": Obedience(attempts=0)}, "attempts"),
        ({"obedience": Obedience(("hills",))}, "cannot be swept"),
        ({"obedience": Obedience(between=(90, 10))}, "percentiles"),
    ],
)
def test_a_notebook_is_refused_what_the_command_line_is(more, words, model, cities, tmp_path):
    with pytest.raises(ConfigError, match=words):
        evaluate(model, data=cities, out=tmp_path, **SMALL | more)
    assert not any(tmp_path.iterdir()), "refused before anything is drawn"


def test_the_function_has_the_keywords_and_the_defaults_of_the_command_line():
    config = load_config("evaluate", ["checkpoint=runs/demo"])
    parameters = inspect.signature(evaluate).parameters
    keywords = {name for name in parameters if name != "generator"}
    assert keywords == config.keys() - {"device", "threads", "paths"} | {"data"}
    defaults = {name: parameters[name].default for name in keywords - {"sampler", "checkpoint", "data"}}
    for name, default in defaults.items():
        plain = asdict(default) if hasattr(default, "__dataclass_fields__") else default
        assert json.loads(json.dumps(plain)) == config[name], name
    assert parameters["data"].default == config["paths"]["data"]
    assert set(Options.__dataclass_fields__) == config.keys() - {"threads"}


@pytest.mark.slow
def test_the_page_the_screen_and_the_card_have_one_name_for_each_figure(report, model):
    page = (report.folder / PAGE).read_text(encoding="utf-8")
    text = card({"_target_": "citygrain.models.pca.Pca"}, model.spec, model.provenance, 1, report)
    row = next(line for line in text.splitlines() if line.startswith("| asked for"))
    headings = [heading.strip() for heading in row.strip("| ").split("|")][1:]
    assert headings[:2] == ["unit", "slope"]
    assert not [heading for heading in headings if f"<th>{heading}</th>" not in page]
    screen = {str(column.header) for table in make_screen_tables(report) for column in table.columns} - {"", "distance"}
    assert not [heading for heading in screen if f"<th>{heading}</th>" not in page]
