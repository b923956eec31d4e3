"""Judges of layouts, on sets about which the answer is known: copies, wider stripes, an obedient model."""

import numpy as np
import pytest
import torch

from citygrain.data.transforms import SYMMETRIES, turn
from citygrain.errors import DataError
from citygrain.evaluation.distribution import frechet
from citygrain.evaluation.embedding import LayoutEmbedding, _crops, keep_embedding, train_embedding
from citygrain.evaluation.gather import coarsen
from citygrain.evaluation.memorisation import find_nearest
from citygrain.evaluation.obedience import Sweep, ask_levels, list_sweepable, retrieve_windows, space_levels
from citygrain.evaluation.two_sample import judge_samples
from citygrain.spec import ALL_PLACES, LayoutSpec


def stripes(n, seed, step=4):
    """Layouts of two channels: stripes of a period, either way, at a random phase, and noise."""
    rng = np.random.default_rng(seed)
    at = np.arange(32)
    layouts = np.empty((n, 2, 32, 32), np.float32)
    for layout in layouts:
        band = ((at + rng.integers(step)) % step < step / 2).astype(np.float32)
        layout[0] = band if rng.random() < 0.5 else band[:, None]
        layout[1] = rng.random((32, 32)) < 0.2
    return layouts


def as_bytes(layouts):
    return (layouts * 255).astype(np.uint8)


# Copies


@pytest.mark.parametrize("symmetry", range(SYMMETRIES))
def test_a_copy_is_found_however_it_is_turned(symmetry):
    training = np.random.default_rng(0).random((40, 3, 16, 16), np.float32)
    copies = turn(training[[7, 31]], symmetry).copy()
    found = find_nearest(copies, [training[:25], training[25:]])
    assert found.index.tolist() == [7, 31]
    assert found.distance == pytest.approx(0, abs=1e-3)
    for copy, back, i in zip(copies, found.symmetry, found.index, strict=True):
        assert turn(copy, int(back)) == pytest.approx(training[i])


def test_distance_is_in_standard_deviations_and_parts_do_not_matter():
    training = np.random.default_rng(0).random((64, 2, 16, 16), np.float32)
    layouts = np.random.default_rng(1).random((5, 2, 16, 16), np.float32)
    found = find_nearest(layouts, [training])
    spread = training.std((0, 2, 3))[:, None, None]
    brute = min(
        np.sqrt(np.mean(((turn(layouts[0], s) - window) / spread) ** 2))
        for s in range(SYMMETRIES)
        for window in training
    )
    assert found.distance[0] == pytest.approx(brute, rel=1e-3)


def test_coarse_pictures_keep_the_mean():
    layouts = torch.rand(3, 2, 48, 48)
    assert coarsen(layouts).mean((2, 3)) == pytest.approx(layouts.mean((2, 3)).numpy(), abs=1e-6)


# Telling apart


@pytest.mark.slow
def test_different_sets_are_told_apart_and_equal_ones_are_not():
    real = as_bytes(stripes(96, 0))
    apart = judge_samples(as_bytes(stripes(96, 1, step=8)), real, steps=60)
    assert apart.accuracy > 0.9
    alike = judge_samples(as_bytes(stripes(96, 2)), real, steps=60)
    assert alike.low < 0.6
    assert alike.n == 96
    assert alike.low < alike.accuracy < alike.high
    with pytest.raises(DataError, match="too few"):
        judge_samples(real[:8], real)


# The embedding


@pytest.mark.slow
def test_an_embedding_learns_what_tells_layouts_apart_and_is_kept(tmp_path):
    pool = torch.from_numpy(
        np.concatenate([stripes(400, 0), stripes(400, 1, step=8)])[np.random.default_rng(0).permutation(800)]
    )

    def batches(start, n):
        return pool[torch.arange(start, start + n) % len(pool)]

    embedding, path = keep_embedding(tmp_path, {"of": "stripes"}, batches, size_px=32, steps=40)
    again, same = keep_embedding(
        tmp_path, {"of": "stripes"}, lambda *_: pytest.fail("it is kept"), size_px=32, steps=40
    )
    assert same == path
    points = embedding.points(stripes(64, 2))
    assert again.points(stripes(64, 2)) == pytest.approx(points)
    alike = frechet(embedding.points(stripes(64, 3)), points)
    assert frechet(embedding.points(stripes(64, 4, step=8)), points) > 5 * alike
    path.write_bytes(b"half a fi")
    mended, _ = keep_embedding(tmp_path, {"of": "stripes"}, batches, size_px=32, steps=40)
    assert mended.points(stripes(64, 2)) == pytest.approx(points, abs=1e-4)


@pytest.mark.parametrize("size_px", [16, 30, 64, 96, 128, 130, 192, 256, 512])
def test_windows_of_every_size_are_embedded_and_large_ones_no_finer_than_there_is_time_for(size_px):
    """The finest level has at most twice the cells a side of that of a window of 64, and the coarsest about as many."""
    embedding, windows = LayoutEmbedding(2, size_px), torch.rand(2, 2, size_px, size_px)
    sides = []
    for layer in embedding.body:
        layer.register_forward_hook(lambda _, __, out: sides.append(out.shape[-1]))
    assert embedding(windows).shape == embedding(_crops(windows, embedding.fold)).shape
    sides = sides[: len(embedding.body)]
    assert max(sides) <= 65 or size_px > 256
    assert 1 <= sides[-1] <= 9


def test_learning_an_embedding_leaves_the_random_numbers_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    windows = torch.from_numpy(stripes(32, 0))
    train_embedding(lambda start, n: windows[:n], steps=2, batch=8)
    assert torch.rand(1) == expected


# Obedience


def spec():
    ramp = np.linspace(0, 1, 101).tolist()
    flat = [0.0] * 101
    return LayoutSpec(
        channels=("building", "green", "water"),
        size_px=16,
        resolution_m=8.0,
        scalars=("coverage", "green", "water"),
        places=("somewhere",),
        statistics={"coverage": {ALL_PLACES: ramp}, "green": {ALL_PLACES: ramp}, "water": {ALL_PLACES: flat}},
    )


def test_levels_lie_evenly_between_two_percentiles():
    assert space_levels(spec(), "coverage", 5) == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])


def test_conditions_that_never_differ_are_not_swept():
    assert list_sweepable(spec()) == ["coverage", "green"]
    assert list_sweepable(spec(), ["green"]) == ["green"]


def test_a_model_that_obeys_has_slope_one_and_one_that_does_not_has_none():
    rng = np.random.default_rng(0)

    def obedient(asked):
        values = asked["coverage"]
        return {"coverage": values + rng.normal(0, 0.01, len(values)), "green": np.full(len(values), 0.2)}

    good = ask_levels("coverage", [0.1, 0.5, 0.9], 20, obedient)
    assert good.slope == pytest.approx(1, abs=0.02)
    assert good.r_squared > 0.99
    assert good.mae == pytest.approx(0.01 * np.sqrt(2 / np.pi), rel=0.3)
    assert good.drift(spec()) == pytest.approx(0)
    deaf = Sweep("coverage", good.asked, {"coverage": rng.normal(0.5, 0.1, 60), "green": good.measured["green"]})
    assert abs(deaf.slope) < 0.15
    assert deaf.r_squared < 0


def test_drift_is_in_standard_deviations():
    asked = np.repeat([0.0, 1.0], 10)
    drifting = Sweep("coverage", asked, {"coverage": asked, "green": 0.5 - 0.3 * asked})
    assert drifting.drift(spec()) == pytest.approx(0.3 / spec().spread("green"))


def test_retrieval_answers_with_the_nearest_real_windows():
    pool = {"coverage": np.linspace(0, 1, 101), "green": np.linspace(1, 0, 101)}
    found = retrieve_windows("coverage", [0.2, 0.8], 5, pool)
    assert sorted(found.measured["coverage"][:5]) == pytest.approx([0.18, 0.19, 0.2, 0.21, 0.22])
    assert found.measured["green"] == pytest.approx(1 - found.measured["coverage"])
    assert found.slope == pytest.approx(1, abs=0.01)
