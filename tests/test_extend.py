"""The pages on extending citygrain: their code is taken from the page as it stands, and does what the page says."""

import importlib
import re
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml

import families
import test_contract as contract
from citygrain import measures
from citygrain.errors import SourceError
from citygrain.geo.place import Place
from citygrain.measures import measure
from citygrain.support.config import load_config
from citygrain.support.targets import instantiate
from samplers import test_diffusion_samplers as oracle

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 60


def blocks(page, language):
    """Return the code blocks of a page in a language, in order."""
    text = (ROOT / "docs" / "extend" / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def own_path(code):
    """Return the path that a block names in its first line, or None."""
    named = re.match(r"# ((?:src|conf)/\S+)\n", code)
    return Path(named[1]) if named else None


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Put the files of a page where it says they belong: modules into citygrain, configurations into a folder."""
    added = []

    def put(page):
        for language in ("python", "yaml"):
            for code in blocks(page, language):
                path = own_path(code)
                if path is None:
                    continue
                file = tmp_path / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(code, encoding="utf-8")
                if language == "python":
                    package = importlib.import_module(".".join(path.parent.relative_to("src").parts))
                    monkeypatch.setattr(package, "__path__", [*package.__path__, str(file.parent)])
                    added.append((package, path.stem))
        return tmp_path / "conf"

    yield put
    for package, name in added:
        sys.modules.pop(f"{package.__name__}.{name}", None)
        vars(package).pop(name, None)


@pytest.mark.parametrize("page", ["family", "measure", "sampler", "source"])
def test_each_page_has_an_example_that_is_short(page):
    python = blocks(page, "python")
    assert python
    assert all(len(code.splitlines()) <= LONGEST for code in python)


@pytest.mark.parametrize("page", ["family", "sampler", "source"])
def test_configurations_describe_what_the_page_writes(page, put):
    conf = put(page)
    (code,) = blocks(page, "yaml")
    group, option = own_path(code).parts[1], own_path(code).stem
    verb = {"model": "train", "sampler": "sample", "source": "prepare"}[group]
    overrides = {
        "model": ["data.places=[helsinki]"],
        "sampler": ["checkpoint=reference/cities_64"],
        "source": ["source.path=trees.csv", "source.licence=ours"],
    }[group]
    config = load_config(verb, [f"{group}={option}", *overrides], [conf])
    assert config[group]["_target_"] == yaml.safe_load(code)["_target_"]


LAWS = [
    contract.test_it_is_a_generator,
    contract.test_the_loss_is_finite_and_reaches_every_trained_parameter,
    contract.test_samples_are_layouts,
    contract.test_a_layout_depends_on_its_seed_and_conditions_and_not_on_the_batch,
    contract.test_a_sampler_of_another_family_is_refused_and_the_right_ones_named,
    contract.test_the_value_of_an_absent_condition_does_not_matter_and_of_a_present_one_does,
    contract.test_conditions_matter_after_two_windows_were_learned,
    contract.test_what_is_known_stays_and_the_rest_depends_on_it_or_the_family_says_which_can,
]


@pytest.fixture
def family(put, monkeypatch):
    """Let the contract's tests find the page's family, as they find those of `conf/model/`."""
    conf = put("family")
    model = load_config("train", ["model=coarse_normal", "data.places=[helsinki]"], [conf])["model"]
    monkeypatch.setattr(families, "model_config", lambda name: {"coarse_normal": model}[name].copy())
    return "coarse_normal"


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__.removeprefix("test_"))
def test_the_family_obeys_the_contract(law, family):
    law(family)


def test_checkpoints_of_the_family_load_elsewhere(family, tmp_path):
    contract.test_a_checkpoint_loads_elsewhere_with_nothing_beside_it(family, tmp_path)


def test_the_measure_can_be_measured_beside_the_others(monkeypatch):
    written = {}
    for code in blocks("measure", "python"):
        exec(compile(code, "measure.md", "exec"), written)
    rows = {m.name: m for m in (written["BUILDING_EDGE"], written["QUIET"])}
    monkeypatch.setattr(measures, "MEASURES", {**measures.MEASURES, **rows})
    channels = ("building", "cycle", "walk")
    layout = torch.rand(2, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    values = measure(layout, channels, 8.0)
    assert set(rows) <= set(values)
    turned = measure(layout.rot90(1, (2, 3)), channels, 8.0)
    both = (values["cycle"] + values["walk"]).detach()
    assert torch.allclose(values["quiet_ways"].detach(), both)
    assert torch.allclose(values["building_edge"], turned["building_edge"], rtol=0.1)
    values["building_edge"].sum().backward()
    assert layout.grad.isfinite().all()
    empty = measure(torch.zeros(3, 16, 16), channels, 8.0)
    assert float(empty["building_edge"]) == 0


def test_the_sampler_has_an_error_of_second_order(put):
    put("sampler")
    sampler = instantiate({"_target_": "citygrain.samplers.midpoint.Midpoint"})
    model = oracle.GaussianDenoiser()
    start = torch.randn(64, 1, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    errors = []
    for steps in (64, 128, 256):
        run = replace(sampler, steps=steps, sigma_max=20.0, sigma_min=1e-4)
        end = run(model, oracle.conditions(64), oracle._Fixed(start)).flatten(1)
        errors.append((end - model.exact(start, run)).square().mean().sqrt().item())
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(4, rel=0.2)


def test_the_sampler_is_handed_to_a_model_as_the_page_does(put):
    put("sampler")
    (code,) = (code for code in blocks("sampler", "python") if own_path(code) is None)
    written = {}
    exec(compile(code, "sampler.md", "exec"), written)
    assert len(written["layouts"]) == 2


@pytest.mark.filterwarnings("ignore::citygrain.geo.sources.EmptyLayerWarning")
def test_the_source_adds_its_trees_to_another_source(put, tmp_path, monkeypatch):
    put("source")
    place = Place.from_bbox("centre", (24.935, 60.165, 24.945, 60.17))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(ROOT / "data")
    (tmp_path / "trees.csv").write_text("lon,lat,crown_m\n24.94,60.167,8\n24.9401,60.167,6\n11.0,50.0,8\n")
    (code,) = (code for code in blocks("source", "python") if own_path(code) is None)
    written = {"place": place}
    exec(compile(code, "source.md", "exec"), written)
    found = written["found"]
    assert found.counts["green"] == 2
    assert found["green"].area.tolist() == pytest.approx([50.2, 28.2], rel=0.02)
    assert found.counts["building"] > 0
    assert found.unknown == {}
    assert "City" in found.provenance["attribution"]
    alone = written["trees"].features(place)
    assert "street" in alone.unknown
    assert alone.skipped == {"trees outside the place": 1}
    (tmp_path / "trees.csv").write_text("x,y\n1,2\n")
    with pytest.raises(SourceError, match="no register of trees"):
        written["trees"].features(place)
