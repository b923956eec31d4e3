"""Samplers of tokens against models whose distribution is known exactly."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from citygrain.errors import CapabilityError, ConfigError
from citygrain.protocols import Noise
from citygrain.samplers.tokens import MaskedTokens, NextToken
from citygrain.spec import Conditions, LayoutSpec

SPEC = LayoutSpec(("building",), 2, 8.0, scalars=("coverage",))
BOTH = [NextToken(), MaskedTokens()]
N = 20000


class Independent:
    """Six tokens of four kinds that know nothing of each other; what is asked for moves their logits."""

    token_shape = (2, 3)
    book_size = 4

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.base = torch.randn(6, 4, generator=generator)
        self.shift = torch.randn(6, 4, generator=generator)
        self.seen: list[torch.Tensor] = []

    def _logits(self, conditions):
        asked = torch.where(conditions.present, conditions.scalars, 0.0)
        return self.base + asked[..., None] * self.shift

    def reader(self, conditions):
        rows = iter(self._logits(conditions).unbind(1))
        return lambda tokens: next(rows)

    def masked_logits(self, tokens, known, conditions):
        self.seen.append(known)
        return self._logits(conditions)


class Joint:
    """Three tokens of two kinds with a joint distribution that is a table."""

    token_shape = (1, 3)
    book_size = 2

    def __init__(self) -> None:
        shares = torch.rand(2, 2, 2, generator=torch.Generator().manual_seed(1)) ** 2
        self.table = shares / shares.sum()

    def masked_logits(self, tokens, known, conditions):
        every = torch.cartesian_prod(*[torch.arange(2)] * 3)
        fits = ((every[None] == tokens[:, None]) | ~known[:, None]).all(-1) * self.table.flatten()
        return torch.einsum("be,elk->blk", fits, torch.nn.functional.one_hot(every, 2).float()).log()

    def reader(self, conditions):
        read = []

        def more(tokens):
            read.extend([] if tokens is None else [tokens])
            blank = [torch.zeros(len(conditions), dtype=torch.int64)] * (3 - len(read))
            known = torch.arange(3) < len(read)
            logits = self.masked_logits(torch.stack(read + blank, 1), known.expand(len(conditions), -1), conditions)
            return logits[:, len(read)]

        return more

    def frequencies(self, tokens):
        index = (tokens.flatten(1) * torch.tensor([4, 2, 1])).sum(1)
        return (torch.bincount(index, minlength=8) / len(tokens)).view(2, 2, 2)


class Uniform:
    """Noise of a whole batch from one generator: new at every call."""

    device = torch.device("cpu")

    def __init__(self, n=N, seed=0):
        self.n, self.generator = n, torch.Generator().manual_seed(seed)

    def __len__(self):
        return self.n

    def uniform(self, *shape):
        return torch.rand(self.n, *shape, generator=self.generator)


def nothing(batch=N):
    return Conditions.empty(SPEC, batch)


def shares_of(tokens, kinds=4):
    return torch.nn.functional.one_hot(tokens.flatten(1), kinds).float().mean(0)


def near(frequencies, shares, n=N):
    """Within four standard errors."""
    return ((frequencies - shares).abs() <= 4 * (shares * (1 - shares) / n).sqrt() + 1e-6).all()


@pytest.mark.parametrize(
    "sampler", [*BOTH, MaskedTokens(steps=1), MaskedTokens(steps=50), MaskedTokens(steps=3, randomness=0.0)], ids=repr
)
def test_independent_tokens_have_their_frequencies(sampler):
    model = Independent()
    tokens = sampler(model, nothing(), Uniform())
    assert tokens.shape == (N, 2, 3)
    assert near(shares_of(tokens), model.base.softmax(-1))


@pytest.mark.parametrize(
    "sampler", [NextToken(), MaskedTokens(steps=3), MaskedTokens(steps=9, randomness=0.0)], ids=repr
)
def test_one_token_at_a_time_is_a_draw_from_the_joint_distribution(sampler):
    model = Joint()
    assert near(model.frequencies(sampler(model, nothing(), Uniform())), model.table)


def test_tokens_drawn_in_one_step_know_nothing_of_each_other():
    model = Joint()
    alone = [model.table.sum(axes) for axes in ((1, 2), (0, 2), (0, 1))]
    product = torch.einsum("i,j,k->ijk", *alone)
    assert not near(product, model.table)
    assert near(model.frequencies(MaskedTokens(steps=1)(model, nothing(), Uniform())), product)


@pytest.mark.parametrize("steps", [2, 9])
def test_what_is_known_stays_and_the_rest_is_drawn_given_it(steps):
    model = Joint()
    given = torch.tensor([0, 1, 0]).view(1, 1, 3).repeat(N, 1, 1)
    known = torch.tensor([False, True, False]).view(1, 1, 3).repeat(N, 1, 1)
    drawn = MaskedTokens(steps=steps).fill(model, given, known, nothing(), Uniform())
    assert (drawn[:, 0, 1] == 1).all()
    conditional = model.table * torch.tensor([0.0, 1.0])[None, :, None]
    assert near(model.frequencies(drawn), conditional / conditional.sum())
    everything = MaskedTokens(steps=steps).fill(model, given, torch.ones_like(known), nothing(), Uniform())
    assert torch.equal(everything, given)
    unlikely = Independent().base.argmin(-1).view(1, 2, 3)
    known = torch.tensor([[[True, False, True], [False, True, False]]])
    drawn = MaskedTokens(steps=steps, temperature=0.0).fill(Independent(), unlikely, known, nothing(1), Uniform(1))
    assert torch.equal(drawn == unlikely, known)


@pytest.mark.parametrize("steps", range(1, 10))
def test_the_unknown_share_falls_as_a_cosine_and_ends_at_none(steps):
    model = Independent()
    MaskedTokens(steps=steps)(model, nothing(3), Noise(range(3)))
    unknown = [(~known).sum(1).unique().tolist() for known in model.seen]
    assert all(len(count) == 1 for count in unknown)
    counts = [count[0] for count in unknown] + [0]
    assert counts[0] == 6
    assert len(counts) - 1 <= min(steps, 6)
    for step, (before, after) in enumerate(pairwise(counts), 1):
        planned = int(6 * torch.cos(torch.tensor(torch.pi / 2 * step / steps)) + 1e-4) if step < steps else 0
        assert after == min(planned, before - 1)


def test_the_certain_are_kept_first_unless_the_order_is_random():
    model = Independent()
    entropy = torch.special.entr(model.base.softmax(-1)).sum(-1)
    MaskedTokens(steps=6, randomness=0.0)(model, nothing(1), Noise([0]))
    order = torch.stack([known[0] for known in model.seen]).float().sum(0)  # the longer known, the earlier kept
    assert order.argsort(descending=True).tolist() == entropy.argsort().tolist()
    model.seen.clear()
    MaskedTokens(steps=6, randomness=100.0)(model, nothing(4000), Uniform(4000))
    first = model.seen[1].float().mean(0)
    assert torch.allclose(first, torch.full((6,), 1 / 6), atol=0.04)


@pytest.mark.parametrize("sampler", BOTH, ids=lambda s: type(s).__name__)
def test_without_temperature_and_with_one_candidate_the_likeliest_is_taken(sampler):
    model = Independent()
    likeliest = model.base.argmax(-1).view(1, 2, 3)
    for greedy in ({"temperature": 0.0}, {"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}):
        drawn = replace(sampler, **greedy)(model, nothing(50), Uniform(50))
        assert torch.equal(drawn, likeliest.expand(50, -1, -1))


@pytest.mark.parametrize("number", [0.0, 0.5, 1 - 2**-24])
def test_what_was_truncated_is_drawn_by_no_number(number):
    logits = torch.tensor([0.0, 5.0, 4.0, 1.0])
    assert NextToken(top_k=1).pick(logits, torch.tensor(number)) == 1
    assert NextToken(top_k=2).pick(logits, torch.tensor(number)).item() in {1, 2}


@pytest.mark.parametrize("sampler", BOTH, ids=lambda s: type(s).__name__)
def test_what_is_left_after_truncation_keeps_its_proportions(sampler):
    model = Independent()
    shares = model.base.softmax(-1)
    ranked, order = shares.sort(descending=True)
    two = torch.zeros_like(shares).scatter(-1, order[:, :2], ranked[:, :2])
    assert near(shares_of(replace(sampler, top_k=2)(model, nothing(), Uniform())), two / two.sum(-1, keepdim=True))
    inside = ranked.cumsum(-1) - ranked < 0.7  # the fewest that reach .7 together
    most = torch.zeros_like(shares).scatter(-1, order, ranked * inside)
    assert near(shares_of(replace(sampler, top_p=0.7)(model, nothing(), Uniform())), most / most.sum(-1, keepdim=True))
    warm = (model.base / 2.5).softmax(-1)
    assert near(shares_of(replace(sampler, temperature=2.5)(model, nothing(), Uniform())), warm)


@pytest.mark.parametrize("sampler", BOTH, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5])
def test_guidance_moves_the_logits_in_proportion(sampler, guidance):
    model = Independent()
    asked = Conditions.request(SPEC, N, {"coverage": 0.8})
    drawn = replace(sampler, guidance=guidance)(model, asked, Uniform())
    assert near(shares_of(drawn), (model.base + guidance * 0.8 * model.shift).softmax(-1))


@pytest.mark.parametrize("sampler", [NextToken(guidance=2.0), MaskedTokens(steps=3, guidance=2.0)], ids=repr)
def test_a_sample_depends_on_its_own_seed_alone(sampler):
    model, asked = Independent(), Conditions.request(SPEC, 9, {"coverage": torch.linspace(0, 1, 9)})
    together = sampler(model, asked, Noise(range(9)))
    assert len(together.flatten(1).unique(dim=0)) > 1
    for i in (0, 7):
        assert torch.equal(sampler(model, asked[i : i + 1], Noise([i])), together[i : i + 1])


@pytest.mark.parametrize("kind", [NextToken, MaskedTokens])
@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.1}])
def test_impossible_settings_are_refused(kind, wrong):
    with pytest.raises(ConfigError, match="cannot work"):
        kind(**wrong)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"randomness": -0.1}])
def test_impossible_orders_are_refused(wrong):
    with pytest.raises(ConfigError, match="cannot work"):
        MaskedTokens(**wrong)


def test_models_without_tokens_are_refused():
    for sampler in BOTH:
        with pytest.raises(CapabilityError, match="needs a model"):
            sampler(object(), nothing(1), Noise([0]))
