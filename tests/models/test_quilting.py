"""Cut and paste: what is drawn are pieces of real windows, of the place and the measures that are asked for."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

import families
from citygrain.errors import CapabilityError, ConfigError
from citygrain.evaluation.gather import coarsen
from citygrain.evaluation.memorisation import find_nearest, judge_copies
from citygrain.models.quilting import Quilting
from citygrain.protocols import Known, Noise
from citygrain.samplers.areas import Inpaint
from citygrain.samplers.patchwork import Patchwork, cut_boundary
from citygrain.spec import Conditions

RETRIEVAL = Patchwork(patch=1.0, near=1, sources=1)


def stripes(n, seed=0):
    """Layouts with stripes of buildings along the columns, from none to half of them full, and green at random."""
    rng = np.random.default_rng(seed)
    layouts = torch.zeros(n, 3, 16, 16)
    for i, layout in enumerate(layouts):
        layout[0, :, int(rng.integers(4)) :: 4] = i / n
        layout[2] = torch.from_numpy((rng.random((16, 16)) < 0.2).astype(np.float32))
    return (layouts * 255).round() / 255


@pytest.fixture(scope="module")
def model():
    """A bank of forty windows of each of two places; those of the second have green only."""
    here, there = stripes(40), stripes(40, 1) * torch.tensor([0.0, 0.0, 1.0])[:, None, None]
    found = Quilting(families.spec(), windows=40).eval()
    found.measure_data(torch.cat([here, there]))
    found.keep(torch.cat([here, there]), torch.arange(2).repeat_interleave(40))
    return found


# The cut


def test_a_cut_is_the_cheapest_of_all():
    apart = torch.rand(5, 4, 3, generator=torch.Generator().manual_seed(0))
    for cost, beyond in zip(apart, cut_boundary(apart), strict=True):
        lines = [
            line for line in itertools.product(range(3), repeat=4)
            if all(abs(a - b) <= 1 for a, b in itertools.pairwise(line))
        ]  # fmt: skip
        cheapest = min(lines, key=lambda line: sum(float(cost[row, at]) for row, at in enumerate(line)))
        assert beyond.tolist() == [[column >= at for column in range(3)] for at in cheapest]


# Retrieval


def test_a_patch_as_large_as_the_layout_is_the_nearest_window_of_the_place(model):
    asked = families.requests(3, model.spec, coverage=torch.tensor([0.02, 0.1, 0.2]), place="here")
    drawn = model.sample(asked, noise=Noise(range(3)), sampler=RETRIEVAL)
    coverage = model.bank[:40, 0].float().mean((1, 2)) / 255
    for layout, wanted in zip(drawn, (0.02, 0.1, 0.2), strict=True):
        assert torch.equal((layout * 255).byte(), model.bank[int((coverage - wanted).abs().argmin())])


def test_retrieved_windows_are_copies_to_the_judge_and_other_windows_are_not(model):
    drawn = model.sample(Conditions.empty(model.spec, 12), noise=Noise(range(12)), sampler=RETRIEVAL)
    training = coarsen(model.bank[:80].float() / 255)
    near, others = (find_nearest(coarsen(of), [training]) for of in (drawn, stripes(40, 7)))
    assert judge_copies(near, others, 80).share_closer == 1.0


def test_without_a_request_chance_decides_and_each_seed_by_itself(model):
    empty = Conditions.empty(model.spec, 30)
    chosen = model.choose_windows(empty, 4, Noise(range(30)))
    assert len(chosen.unique()) > 40
    assert torch.equal(chosen[7:8], model.choose_windows(empty[:1], 4, Noise([7])))
    asked = families.requests(30, model.spec, place="there")
    assert (model.place[model.choose_windows(asked, 4, Noise(range(30)))] == 1).all()


# Quilts


def test_every_patch_is_a_piece_of_a_real_window(model):
    sampler = Patchwork(patch=0.25, overlap=0.0)
    (drawn,) = model.sample(families.requests(1, model.spec, place="here"), noise=Noise([3]), sampler=sampler)
    pieces = model.bank[:40].unfold(2, 4, 1).unfold(3, 4, 1).movedim(1, 3).reshape(-1, 3, 4, 4)
    patches = (drawn * 255).byte().unfold(1, 4, 4).unfold(2, 4, 4).movedim(0, 2).reshape(-1, 3, 4, 4)
    for patch in patches:
        assert (pieces == patch).flatten(1).all(1).any()


def test_there_is_as_much_as_is_asked_for_and_no_more_empty_ground_than_in_the_guides(model):
    levels = torch.tensor([0.02, 0.08, 0.16, 0.22]).repeat_interleave(16)
    asked = families.requests(64, model.spec, coverage=levels, place="here")

    def measure(sampler):
        return model.sample(asked, noise=Noise(range(64)), sampler=sampler)[:, 0].mean((1, 2)).view(4, 16).mean(1)

    assert measure(Patchwork()) == pytest.approx(levels.view(4, 16)[:, 0], abs=0.03)


def test_the_guide_keeps_ground_from_emptying():
    """Empty ground fits empty ground best of all, so that without a guide there is ever more of it."""
    speckles = (torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    speckles[20:] = 0.0
    bank = Quilting(families.spec(), windows=40).eval()
    bank.measure_data(speckles)
    bank.keep(speckles, torch.zeros(40, dtype=torch.int64))
    guided, unguided = (
        bank.sample(Conditions.empty(bank.spec, 32), noise=Noise(range(32)), sampler=sampler).mean()
        for sampler in (Patchwork(), Patchwork(guide=0.0))
    )
    assert unguided < 0.7 * speckles.mean()
    assert guided > 0.8 * speckles.mean()


def test_a_map_says_where(model):
    asked = families.requests(16, model.spec, place="here")
    asked.maps[:, 0, :, :2], asked.maps_present[:, 0] = 0.25, True
    drawn = model.sample(asked, noise=Noise(range(16)))[:, 0].mean((0, 1))
    assert drawn[:8].mean() > 2 * drawn[8:].mean()


def test_patches_go_on_with_what_is_known(model):
    known = torch.zeros(8, 3, 16, 16)
    known[:, 0, :, 1::4] = 0.5
    keep = torch.zeros(8, 3, 16, 16, dtype=torch.bool)
    keep[:, :, :8] = True
    asked = families.requests(8, model.spec, place="here")
    drawn = model.sample(
        asked, noise=Noise(range(8)), sampler=Inpaint(Patchwork(patch=0.25, guide=1.0), Known(known, keep))
    )
    assert torch.equal(drawn[keep], known[keep])
    phases = drawn[:, 0, 8:].mean((0, 1)).view(4, 4).mean(0)
    assert phases[1] > 1.5 * phases.mean(), "stripes keep their phase"


def test_given_channels_are_kept_and_looked_at(model):
    spec = replace(model.spec, given=("green",))
    around = Quilting(spec, windows=40).eval()
    around.load_state_dict(model.state_dict())
    given = {"green": model.bank[:4, 2].float() / 255}
    asked = Conditions.request(spec, 4, {"place": "here"}, given)
    drawn = around.sample(asked, noise=Noise(range(4)), sampler=Patchwork(guide=0.0, best=1, tries=2000))
    assert torch.equal(drawn[:, 2], given["green"])


# The bank


def test_a_bank_takes_windows_of_each_place_until_it_has_enough_of_them():
    model = Quilting(families.spec(), windows=5)
    conditions = families.requests(16, model.spec, place="there")
    first = model.eval().loss(stripes(16), conditions)
    assert int(model.filled) == 0, "validation fills no bank"
    model.train().loss(stripes(16), conditions)
    model.loss(stripes(16), families.requests(16, model.spec))
    assert int(model.filled) == 10
    assert sorted(model.place[:10].tolist()) == [-1] * 5 + [1] * 5
    assert model.eval().loss(stripes(16), conditions)["loss"] < first["loss"]
    assert model.bank.nbytes == 3 * 5 * 3 * 16 * 16


def test_an_empty_bank_refuses_and_says_how_it_is_filled():
    with pytest.raises(CapabilityError, match=r"empty(.|\n)*citygrain train"):
        Quilting(families.spec()).sample(families.requests(1, families.spec()), noise=Noise([0]))
    with pytest.raises(ConfigError, match="one window"):
        Quilting(families.spec(), windows=0)


@pytest.mark.parametrize("wrong", [{"patch": 0.0}, {"patch": 1.5}, {"overlap": 1.0}, {"near": 0}, {"guide": -1.0}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match="cannot work"):
        Patchwork(**wrong)
