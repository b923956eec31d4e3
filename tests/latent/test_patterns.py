"""Pattern cards: what they claim can be measured, and what they show moves what they say."""

import re

import numpy as np
import pytest

from citygrain.errors import DataError
from citygrain.evaluation.form import FORM
from citygrain.latent.patterns import PATTERNS, make_pattern_card, write_pattern_cards
from citygrain.measures import MEASURES, measure
from toy_codecs import SPEC, Bent, codes_of, halves

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def codes():
    layouts = np.clip(
        0.4 + 0.1 * RNG.normal(size=(400, 3, 1, 1)) + 0.05 * RNG.normal(size=(400, *SPEC.shape)), 0.01, 0.99
    )
    measured = measure(layouts, SPEC.channels, SPEC.resolution_m)
    return codes_of(np.log(layouts / (1 - layouts)) / 4, **measured, building_count=RNG.normal(size=400))


def test_every_pattern_is_seen_by_a_measure_that_exists():
    known = {**MEASURES, **FORM}
    for pattern in PATTERNS:
        assert pattern.measure in known
        assert 1 <= pattern.number <= 253
        assert pattern.sees
        assert pattern.misses
    names = {}
    for pattern in PATTERNS:
        assert names.setdefault(pattern.number, pattern.name) == pattern.name
    assert [p.number for p in PATTERNS] == sorted(p.number for p in PATTERNS)


def test_patterns_that_the_measures_cite_are_called_the_same():
    cited = {}
    for about in (*MEASURES.values(), *FORM.values()):
        for number, name in re.findall(
            r"\b(\d+) ([A-Z][A-Za-z ]+?)(?: and \d|,|$)", about.source.split("pattern", 1)[-1]
        ):
            cited[int(number)] = name
    ours = {p.number: p.name for p in PATTERNS}
    shared = set(cited) & set(ours)
    assert {22, 52, 56, 60, 64} <= shared
    assert {n: cited[n] for n in shared} == {n: ours[n] for n in shared}


def test_a_card_moves_its_measure_between_the_extremes_of_real_windows(codes):
    train, held_out = halves(codes)
    card = make_pattern_card(Bent(), "coverage", train, held_out)
    values = card.path.measured["coverage"]
    low, high = np.quantile(held_out.measured["coverage"], [0.05, 0.95])
    assert values[0].mean() == pytest.approx(low, abs=0.01)
    assert values[-1].mean() == pytest.approx(high, abs=0.01)
    assert len(values) == 7
    assert 0 in card.path.positions
    assert card.changes.index[0] == "coverage"
    assert card.changes.loc["coverage", "change"] == pytest.approx(1, abs=0.05)
    assert card.r_squared > 0.9
    rows = [part.axes for part in card.figure.subfigs]
    assert [len(axes) for axes in rows[:3]] == [7, 7, 2 * 7]
    assert "building coverage" in card.figure.get_suptitle()


@pytest.mark.slow
def test_what_has_no_gradient_is_moved_along_its_probe(codes):
    card = make_pattern_card(Bent(), "building_count", *halves(codes))
    assert "building_count" in card.path.measured
    assert card.r_squared < 0.1


def test_a_measure_that_was_not_taken_has_no_card(codes):
    with pytest.raises(DataError, match="not measured"):
        make_pattern_card(Bent(), "cycle", *halves(codes))


def test_cards_are_one_page_with_everything_inside(codes, tmp_path):
    page = write_pattern_cards(Bent(), ["green"], *halves(codes), tmp_path)
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == 1
    assert "60 Accessible Green" in text
    assert "how far everybody has to it" in text
    assert not re.search(r'(?:src|href)="(?!data:)', text)
    assert {p.name for p in tmp_path.iterdir()} == {"patterns.html", "green.png"}
