"""Laws of the transformers over tokens; the codec is a stand-in whose tokens are its layouts' cells."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

import families
from citygrain.errors import CapabilityError, ConfigError
from citygrain.models.causal_transformer import CausalTransformer
from citygrain.models.masked_transformer import MaskedTransformer
from citygrain.networks.transformer import AROUND, BEFORE, Transformer
from citygrain.networks.unet import UNet
from citygrain.protocols import HasLikelihood, HoleFiller, Known, LearnsFromCodes, NextTokenModel, Noise, Quantized
from citygrain.samplers.areas import Inpaint
from citygrain.samplers.tokens import MaskedTokens, NextToken
from citygrain.spec import Conditions, LayoutSpec

FAMILIES = [CausalTransformer, MaskedTransformer]


class Cells(nn.Module):
    """A codec whose tokens say of each square of `factor` cells in how many steps it is covered."""

    def __init__(self, side, book_size=2, factor=1):
        super().__init__()
        self.code_shape, self.book_size, self.factor = (1, side, side), book_size, factor
        self.spec = spec(side * factor)

    def encode(self, layout):
        return nn.functional.avg_pool2d(layout[:, :1], self.factor)

    def decode(self, code):
        return code.repeat_interleave(self.factor, 2).repeat_interleave(self.factor, 3)

    def tokens(self, layout):
        return (self.encode(layout)[:, 0] * (self.book_size - 1)).round().long()

    def from_tokens(self, tokens):
        return self.decode(tokens[:, None].float() / (self.book_size - 1))


def spec(size_px):
    return LayoutSpec(("building",), size_px, 8.0, scalars=("coverage",), maps=("coverage",), map_px=2)


def network(**sizes):
    return Transformer(**sizes, width=16, depth=2, head=8)


def make(family, side=4, **codec):
    """A model all of whose weights matter."""
    torch.manual_seed(0)
    stand_in = Cells(side, **codec)
    model = family(spec(side * stand_in.factor), codec=stand_in, network=network, embedding=16).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return model


def asked(model, batch):
    return families.some_conditions(batch, model.spec)


def some_tokens(model, batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.book_size, (batch, math.prod(model.token_shape)), generator=generator)


def test_the_families_have_what_their_samplers_need():
    causal, masked = make(CausalTransformer), make(MaskedTransformer)
    assert isinstance(causal.codec, Quantized)
    assert all(isinstance(causal, kind) for kind in (NextTokenModel, HasLikelihood, LearnsFromCodes))
    assert all(isinstance(masked, kind) for kind in (HoleFiller, LearnsFromCodes))
    with pytest.raises(CapabilityError, match="NextToken"):
        causal.sample(asked(causal, 1), noise=Noise([0]), sampler=MaskedTokens())
    with pytest.raises(CapabilityError, match="MaskedTokens"):
        masked.sample(asked(masked, 1), noise=Noise([0]), sampler=NextToken())


def test_a_logit_knows_the_tokens_before_it_and_no_others():
    model = make(CausalTransformer, book_size=5)
    tokens, conditions = some_tokens(model, 2), asked(model, 2)
    logits = model.logits(tokens, conditions)
    for place in range(16):
        other = tokens.clone()
        other[:, place] = (other[:, place] + 1) % 5
        moved = (model.logits(other, conditions) != logits).any(-1)
        assert not moved[:, : place + 1].any()
        assert moved[:, place + 1 :].all()


def test_reading_token_by_token_gives_the_logits_of_the_whole():
    model = make(CausalTransformer, book_size=5)
    tokens, conditions = some_tokens(model, 3), asked(model, 3)
    read = model.reader(conditions)
    one_by_one = [read(None if i == 0 else tokens[:, i - 1]) for i in range(16)]
    assert torch.allclose(torch.stack(one_by_one, 1), model.logits(tokens, conditions), atol=1e-5)


def test_sampling_runs_every_token_through_the_network_once():
    model = make(CausalTransformer)
    cells = []
    model.network.blocks[0].register_forward_hook(lambda block, given, out: cells.append(out.shape[1]))
    model.sample(asked(model, 2), noise=Noise([0, 1]))
    assert cells == [1] * 16


def test_the_likelihood_of_all_layouts_sums_to_one():
    model = make(CausalTransformer, side=2)
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4).view(16, 1, 2, 2)
    for seed in range(3):
        one = families.some_conditions(1, model.spec, seed)
        likelihood = model.log_likelihood(every, one.repeat(16)).exp()
        assert likelihood.sum().item() == pytest.approx(1, abs=1e-5)
        assert likelihood.std() > 0.01
    drawn = model.sample(one.repeat(4000), noise=Noise(range(4000)), sampler=NextToken())
    index = (drawn.flatten(1) * torch.tensor([8, 4, 2, 1])).sum(1).long()
    assert torch.allclose(torch.bincount(index, minlength=16) / 4000, likelihood, atol=0.03)


def test_the_loss_is_the_likelihood_of_a_token():
    model = make(CausalTransformer, book_size=5)
    tokens = some_tokens(model, 6)
    layouts, conditions = model.codec.from_tokens(tokens.view(6, 4, 4)), asked(model, 6)
    likelihood = model.log_likelihood(layouts, conditions)
    assert torch.allclose(model.loss(layouts, conditions)["loss"], -likelihood.mean() / 16)


def test_a_masked_model_looks_at_all_that_is_known_and_at_nothing_else():
    model = make(MaskedTransformer, book_size=5)
    tokens, conditions = some_tokens(model, 2), asked(model, 2)
    known = torch.rand(2, 16, generator=torch.Generator().manual_seed(1)) < 0.5
    logits = model.masked_logits(tokens, known, conditions)
    anything = torch.where(known, tokens, (tokens + 2) % 5)
    assert torch.equal(model.masked_logits(anything, known, conditions), logits)
    for place in known[0].nonzero()[:, 0]:
        other = tokens.clone()
        other[0, place] = (other[0, place] + 1) % 5
        moved = (model.masked_logits(other, known, conditions) != logits).any(-1)
        assert moved[0].all()
        assert not moved[1].any()


def test_every_share_of_the_tokens_is_masked_in_training():
    model = make(MaskedTransformer, side=8)
    tokens = some_tokens(model, 500).view(-1, 8, 8)
    seen = []
    inner = model.masked_logits
    model.masked_logits = lambda tokens, known, conditions: seen.append(known) or inner(tokens, known, conditions)
    model.code_loss(tokens, asked(model, 500))
    share = (~seen[0]).float().mean(1)
    assert share.min() > 0
    assert share.max() == 1
    # The share is the cosine of a uniform angle, rounded up to tokens.
    assert share.mean().item() == pytest.approx(2 / math.pi + 0.5 / 64, abs=0.01)
    assert share.median().item() == pytest.approx(math.cos(math.pi / 4), abs=0.02)
    assert (~seen[0]).float().mean(0).std() < 0.04  # no cell more often than another


@pytest.mark.parametrize("family", FAMILIES)
def test_a_map_says_what_is_wanted_where(family):
    model = make(family)
    tokens, none = some_tokens(model, 1), Conditions.empty(model.spec, 1)
    wanted = replace(none, maps_present=torch.ones(1, 1, dtype=torch.bool))
    more = replace(wanted, maps=torch.tensor([[[[0.0, 0.0], [0.0, 3.0]]]]))

    def logits(conditions):
        if family is CausalTransformer:
            return model.logits(tokens, conditions)
        return model.masked_logits(tokens, torch.zeros(1, 16, dtype=torch.bool), conditions)

    moved = (logits(more) != logits(wanted)).any(-1).view(4, 4)
    assert moved[2:, 2:].all()
    if family is CausalTransformer:  # what was read before that corner cannot know of it
        assert not moved[:2].any()


def holes(size_px=8):
    hole = torch.zeros(3, size_px, size_px, dtype=torch.bool)
    hole[0, 2:5, 3:7] = True
    hole[2] = True
    return hole


@pytest.fixture
def filler():
    return make(MaskedTransformer, factor=2, book_size=5)


def filled_in(model, layout, hole, conditions, noise, sampler=None):
    known = Known(layout, (~hole)[:, None].expand_as(layout))
    drawn = model.sample(conditions, noise=noise, sampler=Inpaint(sampler or model.sampler, known))
    return torch.where(known.keep, layout, drawn)


def test_filling_leaves_everything_outside_the_hole_as_it_was(filler):
    layout = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    hole, conditions = holes(), asked(filler, 3)
    filled = filled_in(filler, layout, hole, conditions, Noise(range(3)))
    assert torch.equal(filled[~hole[:, None]], layout[~hole[:, None]])
    assert (filled != layout)[hole[:, None]].all()
    assert torch.equal(filled[1], layout[1])
    # A hole that is everything is a sample, and a hole's content is not looked at.
    assert torch.equal(filled[2], filler.sample(conditions, noise=Noise(range(3)))[2])
    blank = layout.masked_fill(hole[:, None], 0.5)
    assert torch.equal(filled_in(filler, blank, hole, conditions, Noise(range(3))), filled)
    again = filled_in(filler, layout, hole, conditions, Noise([7, 8, 9]))
    assert not torch.equal(again[0], filled[0])


def test_what_was_in_a_hole_is_not_seen_through_the_codec_either():
    model = families.make("masked_transformer in vector_quantized").eval()
    layout = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    model.codec.measure_data(layout)
    with torch.no_grad():
        for p in model.network.parameters():
            p.add_(0.2 * torch.randn_like(p))
    hole = torch.zeros(4, 16, 16, dtype=torch.bool)
    hole[:, 4:8, 8:12] = True
    other = torch.where(hole[:, None], 1 - layout, layout)
    beside = torch.nn.functional.adaptive_max_pool2d(hole.float(), model.token_shape) == 0
    assert (model.to_code(other) != model.to_code(layout))[beside].any()  # the encoder sees further than a token
    conditions, seeds = asked(model, 4), range(4)
    filled = filled_in(model, layout, hole, conditions, Noise(seeds))
    assert torch.equal(
        filled_in(model, other, hole, conditions, Noise(seeds)), torch.where(hole[:, None], filled, other)
    )


def test_filling_draws_the_tokens_that_touch_the_hole(filler):
    seen = []
    inner = filler.masked_logits
    filler.masked_logits = lambda tokens, known, conditions: (
        seen.append((tokens, known)) or inner(tokens, known, conditions)
    )
    layout = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    filled_in(filler, layout, holes(), asked(filler, 3), Noise(range(3)), MaskedTokens(steps=1))
    tokens, known = seen[0]
    touched = torch.zeros(4, 4, dtype=torch.bool)
    touched[1:3, 1:4] = True
    assert torch.equal(known[0].view(4, 4), ~touched)
    assert known[1].all()
    assert not known[2].any()
    assert torch.equal(tokens[0][known[0]], filler.codec.tokens(layout)[0].flatten()[known[0]])


def test_a_sampler_that_fills_no_holes_is_refused(filler):
    with pytest.raises(CapabilityError, match="masked_transformer"):
        filled_in(filler, torch.rand(3, 1, 8, 8), holes(), asked(filler, 3), Noise(range(3)), NextToken())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_without_tokens_is_refused_in_words(family):
    with pytest.raises(ConfigError, match="codec=runs/"):
        family(spec(4), codec=None, network=network)
    with pytest.raises(CapabilityError, match="vector_quantized"):
        family(families.spec(), codec=families.make("variational_autoencoder"), network=network)
    with pytest.raises(ConfigError, match="reads tokens"):
        family(spec(4), codec=Cells(4), network=partial(UNet, width=16))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_codec_stays_as_it_was_trained(family):
    name = "causal_transformer" if family is CausalTransformer else "masked_transformer"
    model = families.make(f"{name} in vector_quantized").train()
    assert not model.codec.training
    assert not any(p.requires_grad for p in model.codec.parameters())
    before = {name: value.clone() for name, value in model.codec.state_dict().items()}
    model.loss(torch.rand(4, 3, 16, 16), families.some_conditions(4, model.spec))["loss"].backward()
    assert all(torch.equal(value, before[name]) for name, value in model.codec.state_dict().items())


@pytest.mark.parametrize(("causal", "spots"), [(True, BEFORE), (False, AROUND)])
def test_every_head_begins_with_a_look_at_a_neighbour_of_its_own(causal, spots):
    net = Transformer(
        symbols=3, out_channels=2, planes=0, embedding=8, causal=causal, width=8 * len(spots), depth=2, head=8
    )
    preferences = net._compute_preferences(torch.zeros(1, 0, 5, 7))
    looked_at = preferences.view(2, len(spots), 5, 7, 35)[:, :, 2, 3].argmax(-1)
    expected = torch.tensor([(2 + row) * 7 + 3 + column for row, column in spots])
    assert torch.equal(looked_at, expected.expand(2, -1))
    cells = torch.arange(35)
    assert (preferences.isinf() == (causal & (cells[None] > cells[:, None]))).all()


@pytest.mark.parametrize("wrong", [{"width": 18}, {"depth": 0}, {"head": 0}])
def test_impossible_transformers_are_refused(wrong):
    with pytest.raises(ConfigError, match="cannot be made"):
        Transformer(symbols=3, out_channels=2, planes=0, embedding=8, causal=True, **wrong)
