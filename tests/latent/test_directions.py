"""Probes and directions on codes whose measures are planted, and paths along them."""

import numpy as np
import pytest

from citygrain.errors import ConfigError, DataError
from citygrain.evaluation.form import FORM
from citygrain.latent import find_place_direction, fit_probes, follow, interpolate, measure_changes, traverse
from citygrain.measures import measure
from toy_codecs import SPEC, Bent, Identity, codes_of, halves

RNG = np.random.default_rng(0)


def planted(n=3000, noise=0.5, dimensions=12):
    """Codes of known covariance, and a measure that is linear in them but for noise: `(codes, weights, covariance)`."""
    mixing = RNG.normal(size=(dimensions, dimensions)) * np.geomspace(1, 0.2, dimensions)
    x = RNG.normal(size=(n, dimensions)) @ mixing.T
    weights = RNG.normal(size=dimensions)
    signal = x @ weights
    y = 3 + signal / signal.std() + noise * RNG.normal(size=n)
    codes = codes_of(x.reshape(n, 3, 2, 2), coverage=y, green=RNG.normal(size=n), water=np.zeros(n))
    return codes, weights / signal.std(), mixing @ mixing.T


def cosine(a, b):
    return float(np.ravel(a) @ np.ravel(b) / np.linalg.norm(a) / np.linalg.norm(b))


def test_a_probe_tells_as_much_as_there_is_to_tell_and_no_more():
    noise = 0.5
    codes, _, _ = planted(noise=noise)
    found = fit_probes(*halves(codes))
    assert found.r_squared["coverage"] == pytest.approx(1 / (1 + noise**2), abs=0.03)
    assert abs(found.r_squared["green"]) < 0.03
    assert found.left_out == {"water": "the same in all windows"}
    assert list(found.table().index) == ["coverage", "green"]
    assert found.spread["coverage"] == pytest.approx(np.sqrt(1 + noise**2), rel=0.05)


def test_a_direction_is_the_activation_pattern_and_not_the_weights():
    codes, weights, covariance = planted()
    direction = fit_probes(*halves(codes)).directions["coverage"]
    pattern = covariance @ weights / (weights @ covariance @ weights)
    assert direction.shape == codes.codes.shape[1:]
    assert cosine(direction, pattern) > 0.995
    assert cosine(direction, weights) < 0.95
    assert direction.ravel() @ weights == pytest.approx(1, abs=0.05)  # one unit of the measure


def test_a_probe_is_judged_on_windows_it_did_not_see():
    n = 200  # hardly more windows than dimensions
    codes = codes_of(RNG.normal(size=(n, 3, 8, 8)), coverage=RNG.normal(size=n))
    found = fit_probes(*halves(codes))
    assert found.r_squared["coverage"] < 0.1


def test_where_a_measure_is_undefined_its_windows_are_left_out():
    codes, _, _ = planted()
    y = codes.measured["coverage"]
    holes = np.where(RNG.random(len(y)) < 0.4, np.nan, y)
    few = np.where(np.arange(len(y)) % 200 == 0, y, np.nan)
    gappy = codes_of(codes.codes, coverage=y, block_area=holes, setback=few)
    found = fit_probes(*halves(gappy))
    assert found.r_squared["block_area"] == pytest.approx(found.r_squared["coverage"], abs=0.04)
    assert cosine(found.directions["block_area"], found.directions["coverage"]) > 0.98
    assert "windows only" in found.left_out["setback"]


def test_a_measure_that_nobody_took_cannot_be_probed():
    codes, _, _ = planted()
    with pytest.raises(DataError, match="block_area"):
        fit_probes(*halves(codes), ["block_area"])


def built(n=1500):
    """Layouts whose channels vary as a whole and in detail, as codes of the identity."""
    layouts = np.clip(0.5 + 0.08 * RNG.normal(size=(n, 3, 1, 1)) + 0.04 * RNG.normal(size=(n, *SPEC.shape)), 0, 1)
    return codes_of(layouts - 0.5, **measure(layouts, SPEC.channels, SPEC.resolution_m))


def test_a_step_of_so_much_changes_the_measure_by_so_much():
    codes = built()
    found = fit_probes(*halves(codes))
    for name in ("coverage", "green"):
        steps = np.array([-0.1, 0, 0.05, 0.1])
        path = traverse(Identity(), codes.codes[:5] * 0.3, found.directions[name], steps, along=name)
        change = path.measured[name] - path.measured[name][1]
        assert np.allclose(change, steps[:, None], atol=0.005)
        moved = measure_changes(path, found.spread, name)
        assert moved.index[0] == name
        assert moved.loc[name, "change"] == pytest.approx(1, abs=0.05)
        assert abs(moved.loc["green" if name == "coverage" else "coverage", "change"]) < 0.1
        assert moved["target"].sum() == 1


def rare():
    """Layouts of which a third has some green in one half, as codes that are decoded through a curve."""
    n = 900
    layouts = np.clip(0.3 + 0.05 * RNG.normal(size=(n, 3, 1, 1)) + 0.02 * RNG.normal(size=(n, *SPEC.shape)), 0, 1)
    layouts[:, 2] = 0.01
    layouts[: n // 3, 2, :2] = RNG.uniform(0.3, 0.9, (n // 3, 1, 1))
    layouts[: n // 3, 0] -= 0.1  # where there is green, less is built
    layouts = RNG.permutation(layouts).clip(0.001)
    codes = np.log(layouts / (1 - layouts)) / 4
    return codes_of(codes, **measure(layouts, SPEC.channels, SPEC.resolution_m))


def test_a_measure_is_followed_through_a_decoder_that_bends():
    codes = rare()
    without = codes.codes[codes.measured["green"] < 0.05][:6]
    steps = np.array([0, 0.1, 0.2])
    path = follow(Bent(), without, "green", steps, codes)
    assert np.allclose(path.measured["green"] - path.measured["green"][0], steps[:, None], atol=0.01)
    straight = traverse(Bent(), without, fit_probes(*halves(codes)).directions["green"], steps)
    assert (straight.measured["green"][-1] - straight.measured["green"][0]).max() < 0.15
    assert np.array_equal(path.codes[0], without)
    lower, upper = path.layouts[-1, :, 2].reshape(6, 2, 8).mean(2).T[::-1]
    assert (upper > 3 * lower).all()  # where real layouts have it


def test_what_is_held_stays():
    codes = rare()
    without = codes.codes[codes.measured["green"] < 0.05][:6]
    free = follow(Bent(), without, "green", [0, 0.2], codes).measured["coverage"]
    held = follow(Bent(), without, "green", [0, 0.2], codes, hold=["coverage"])
    assert (free[1] < free[0] - 0.02).all()
    assert np.allclose(held.measured["coverage"][1], held.measured["coverage"][0], atol=0.005)
    assert np.allclose(held.measured["green"][1] - held.measured["green"][0], 0.2, atol=0.01)


def test_what_cannot_be_reached_is_not_run_after():
    codes = rare()
    path = follow(Bent(), codes.codes[:6], "coverage", [-0.9, -0.1, 0], codes)
    away = np.abs(path.codes - path.codes[2]).reshape(3, 6, -1).max(2)
    assert np.isfinite(path.codes).all()
    assert np.allclose(path.measured["coverage"][1] - path.measured["coverage"][2], -0.1, atol=0.01)
    assert (path.measured["coverage"][0] < 0.1).all()
    assert (away[0] < 8).all()  # on and on it would be 17; real codes lie within 2
    with pytest.raises(DataError, match="block_area"):
        follow(Bent(), codes.codes[:6], "block_area", [0, 1], codes)


def test_the_table_of_a_path_says_what_its_pictures_measure():
    codes = built()
    path = traverse(Identity(), codes.codes[:3], np.ones(SPEC.shape) * 0.01, [0, 1, 2], forms=True)
    table = path.table()
    assert len(table) == 9
    again = measure(path.layouts.reshape(-1, *SPEC.shape), SPEC.channels, SPEC.resolution_m)
    assert np.allclose(table["coverage"], again["coverage"])
    assert table["position"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert table.attrs["units"]["building_count"] == "1/ha"
    assert set(FORM) & set(table.columns)


def test_one_place_leads_to_the_other():
    place = np.arange(200) % 2
    shift = RNG.normal(size=SPEC.shape)
    codes = codes_of(RNG.normal(size=(200, *SPEC.shape)) + place[:, None, None, None] * shift, place)
    there = find_place_direction(codes, "here", "there")
    assert np.allclose(there, -find_place_direction(codes, "there", "here"))
    assert np.allclose(
        codes.select_place("here").codes.mean(0) + there, codes.select_place("there").codes.mean(0), atol=1e-5
    )
    assert cosine(there, shift) > 0.95


@pytest.mark.parametrize("how", ["linear", "spherical"])
def test_an_interpolation_begins_and_ends_where_it_should(how):
    a, b = RNG.normal(size=(2, 4, *SPEC.shape)).astype(np.float32)
    path = interpolate(Identity(), a, b, 5, how)
    assert np.array_equal(path.codes[0], a)
    assert np.array_equal(path.codes[-1], b)
    assert path.positions.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert np.array_equal(interpolate(Identity(), a, a, 3, how).codes[1], a)


def test_the_spherical_way_keeps_the_norm_and_goes_evenly():
    a, b = RNG.normal(size=(2, 6, *SPEC.shape))
    a, b = (x / np.linalg.norm(x.reshape(6, -1), axis=1)[:, None, None, None] * 7 for x in (a, b))
    codes = interpolate(Identity(), a, b, 9, "spherical").codes.reshape(9, 6, -1).astype(float)
    assert np.allclose(np.linalg.norm(codes, axis=2), 7, atol=1e-4)
    between = np.arccos((codes[1:] * codes[:-1]).sum(2) / 49)
    assert np.allclose(between, between[0], atol=1e-3)
    straight = interpolate(Identity(), a, b, 9).codes.reshape(9, 6, -1)
    assert np.linalg.norm(straight[4], axis=1).max() < 6.5


def test_paths_that_are_none_are_refused():
    a = np.zeros((2, *SPEC.shape))
    with pytest.raises(DataError, match="1 steps"):
        interpolate(Identity(), a, a, 1)
    with pytest.raises(ConfigError, match="spherical"):
        interpolate(Identity(), a, a, 3, "curved")
    with pytest.raises(DataError, match="at least one step"):
        traverse(Identity(), a, np.zeros(SPEC.shape), [])
    path = traverse(Identity(), a, np.zeros(SPEC.shape), [0, 1])
    with pytest.raises(DataError, match="cycle"):
        measure_changes(path, {"coverage": 0.1}, "cycle")


def test_what_cannot_be_measured_on_a_step_does_not_spoil_the_slope():
    path = traverse(Identity(), np.zeros((2, *SPEC.shape)), np.zeros(SPEC.shape), [0, 1, 2, 3])
    path.measured["coverage"][:] = 2.0 * path.positions[:, None] + [[0, 5]]
    path.measured["coverage"][1, 0] = path.measured["coverage"][3, 1] = np.nan
    path.measured["green"][:] = np.nan
    moved = measure_changes(path, {"coverage": 0.5, "green": 1.0})
    assert moved.loc["coverage", "change"] == pytest.approx(4)
    assert np.isnan(moved.loc["green", "change"])
