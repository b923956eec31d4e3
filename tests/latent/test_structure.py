"""Maps, groups and classifiers of codes that lie as they were laid."""

import sys

import numpy as np
import pytest

from citygrain.errors import CapabilityError, ConfigError, DataError
from citygrain.latent import (
    classify_places,
    classify_unseen_places,
    cluster_codes,
    find_neighbours,
    measure_disentanglement,
    project_codes,
)
from toy_codecs import SPEC, codes_of, halves, with_places

RNG = np.random.default_rng(0)


def clouds(centres, each=80, spread=0.3):
    """Normal clouds of codes around some centres, and which is whose, shuffled."""
    of = RNG.permutation(np.repeat(np.arange(len(centres)), each))
    codes = np.asarray(centres, float)[of] + spread * RNG.normal(size=(len(of), *SPEC.shape))
    return codes, of


def far_apart(count):
    return RNG.normal(size=(count, *SPEC.shape))


@pytest.mark.parametrize("how", ["pca", pytest.param("umap", marks=pytest.mark.slow), "som"])
def test_a_map_keeps_apart_what_lies_apart(how):
    if how != "pca":
        pytest.importorskip({"umap": "umap", "som": "minisom"}[how], exc_type=ImportError)
    codes, of = clouds(far_apart(3))
    laid = project_codes(codes_of(codes), how)
    assert laid.points.shape == (240, 2)
    distance = np.linalg.norm(laid.points[:, None] - laid.points[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (of[distance.argmin(1)] == of).mean() > 0.95
    again = laid.transform(codes[:40])
    own, others = (
        np.linalg.norm(again[:, None] - np.array([laid.points[of == k].mean(0) for k in range(3)]), axis=2)[pick]
        for pick in ((np.arange(40), of[:40]), (np.arange(40), (of[:40] + 1) % 3))
    )
    assert (own < others).mean() > 0.9


def test_principal_components_keep_distances_of_flat_codes():
    plane = RNG.normal(size=(2, *SPEC.shape))
    at = RNG.normal(size=(100, 2))
    codes = np.tensordot(at, plane, 1)
    points = project_codes(codes_of(codes)).points
    wanted = np.linalg.norm((codes[:, None] - codes[None]).reshape(100, 100, -1), axis=2)
    assert np.allclose(np.linalg.norm(points[:, None] - points[None], axis=2), wanted, atol=1e-3)


def test_a_map_whose_library_is_missing_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "minisom", None)
    codes, _ = clouds(far_apart(2), each=10)
    with pytest.raises(CapabilityError, match=r"citygrain\[explore\]"):
        project_codes(codes_of(codes), "som")
    with pytest.raises(ConfigError, match="umap"):
        project_codes(codes_of(codes), "tsne")


@pytest.mark.parametrize("how", ["kmeans", "mixture"])
def test_groups_are_the_clouds(how):
    codes, of = clouds(far_apart(4))
    groups = cluster_codes(codes_of(codes), 4, how)
    pairs = {(a, b) for a, b in zip(groups, of, strict=True)}
    assert len(pairs) == 4
    with pytest.raises(ConfigError, match="1 … 320"):
        cluster_codes(codes_of(codes), 321, how)


def test_neighbours_are_the_nearest_ones():
    codes, _ = clouds(far_apart(3))
    index, distance = find_neighbours(codes_of(codes), codes[:5], 4)
    every = np.linalg.norm((codes[:5, None] - codes[None]).reshape(5, 240, -1), axis=2)
    assert np.array_equal(index, every.argsort(1)[:, :4])
    assert np.allclose(distance, np.sort(every, 1)[:, :4], atol=1e-3)


def test_places_that_lie_apart_are_told_and_others_are_not():
    codes, of = clouds(far_apart(2), each=150)
    apart = classify_places(*halves(codes_of(codes, of)))
    assert apart.accuracy == apart.balanced_accuracy == 1.0
    assert np.array_equal(apart.confusion.to_numpy(), np.diag(np.diag(apart.confusion)))
    assert apart.confusion.to_numpy().sum() == 100
    mixed = classify_places(*halves(codes_of(codes, RNG.permutation(of))))
    assert abs(mixed.accuracy - 0.5) < 0.2
    uneven = codes_of(codes, of).select((of == 0) | (np.arange(300) % 5 == 0))
    always_here = classify_places(halves(codes_of(codes, RNG.permutation(of)))[0], uneven)
    assert always_here.chance > 0.7
    assert abs(always_here.balanced_accuracy - 0.5) < 0.2
    with pytest.raises(DataError, match="two places"):
        classify_places(*halves(codes_of(codes)))


def test_a_place_is_taken_for_the_one_that_it_resembles():
    here, far = far_apart(2)
    codes, of = clouds([here, here + 0.2, far])
    seen = classify_unseen_places(codes_of(codes, of, with_places("here", "alike", "far")))
    assert np.isnan(np.diag(seen)).all()
    assert np.allclose(np.nansum(seen, 1), 1)
    assert seen.loc["here", "alike"] > 0.95
    assert seen.loc["alike", "here"] > 0.95
    with pytest.raises(DataError, match="three"):
        classify_unseen_places(codes_of(codes[of < 2], of[of < 2]))


def test_only_the_component_that_copies_a_measure_tells_it():
    n = 1200
    factors = RNG.normal(size=(n, 4)) * [4, 3, 2, 1]
    rotation, _ = np.linalg.qr(RNG.normal(size=(48, 48)))
    codes = factors @ rotation[:4] + 0.01 * RNG.normal(size=(n, 48))
    known = codes_of(
        codes.reshape(n, *SPEC.shape),
        coverage=factors[:, 1] ** 3,  # no matter how it is bent
        green=RNG.normal(size=n),
        walk=factors[:, 0] / 4 + factors[:, 2] / 2,
        water=np.zeros(n),
    )
    told = measure_disentanglement(known, 4)
    assert list(told.bits.index) == ["coverage", "green", "walk"]
    assert told.entropy["coverage"] == pytest.approx(np.log2(20), abs=0.01)
    assert told.bits.loc["coverage", "2"] > 0.7 * np.log2(20)
    assert told.bits.loc["coverage", ["1", "3", "4"]].max() < 0.1
    assert told.bits.loc["green"].max() < 0.1
    assert told.gap["coverage"] > 0.7
    assert told.gap["green"] < 0.03
    assert told.gap["walk"] < 0.1  # two components share it
    assert (told.bits.to_numpy() <= told.entropy.to_numpy()[:, None]).all()


def test_a_map_of_almost_no_codes_is_refused():
    with pytest.raises(DataError, match="3 or more"):
        project_codes(codes_of(np.zeros((2, *SPEC.shape))))
