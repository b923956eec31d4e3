"""Laws of the architectures and of what conditions become."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import families
from citygrain.errors import ConfigError
from citygrain.networks.blocks import ACTIVATIONS, SelfAttention, activation, group_norm
from citygrain.networks.conditioner import ConditionEmbedding, ConditionPlanes, Standardise
from citygrain.networks.dit import DiT, positions
from citygrain.networks.resnet import ResNetDecoder, ResNetEncoder
from citygrain.networks.unet import UNet
from citygrain.spec import Conditions, LayoutSpec


def test_a_new_unet_predicts_nothing_and_says_which_sizes_it_takes():
    net = UNet(in_channels=3, out_channels=2, embedding=8, width=16, widths=(1, 2, 2), blocks=1)
    assert torch.equal(net(torch.randn(2, 3, 8, 12), torch.randn(2, 8)), torch.zeros(2, 2, 8, 12))
    with pytest.raises(ConfigError, match="that 4 divides"):
        net(torch.randn(1, 3, 6, 6), torch.randn(1, 8))


@pytest.mark.parametrize("attention", [(3,), (-4,), (0, 0), (2, -1)])
def test_a_unet_refuses_levels_that_it_does_not_have(attention):
    with pytest.raises(ConfigError, match="levels to attend"):
        UNet(in_channels=3, out_channels=2, embedding=8, width=16, widths=(1, 2, 2), attention=attention)


def test_a_new_transformer_predicts_nothing_and_says_which_sizes_it_takes():
    net = DiT(in_channels=3, out_channels=2, embedding=8, width=16, depth=2, patch=2, head=8)
    assert torch.equal(net(torch.randn(2, 3, 8, 12), torch.randn(2, 8)), torch.zeros(2, 2, 8, 12))
    with pytest.raises(ConfigError, match="that 2 divides"):
        net(torch.randn(1, 3, 7, 8), torch.randn(1, 8))
    for wrong in ({"width": 18}, {"patch": 0}, {"depth": 0}, {"head": 0}):
        with pytest.raises(ConfigError, match="cannot be made"):
            DiT(in_channels=3, out_channels=2, embedding=8, **wrong)


def test_every_patch_of_a_transformer_sees_all_and_knows_where_it_is():
    net = DiT(in_channels=1, out_channels=1, embedding=4, width=16, depth=1, patch=2, head=8)
    torch.manual_seed(0)
    for p in net.parameters():
        nn.init.normal_(p, std=0.3)
    embedding = torch.randn(1, 4)
    x = torch.randn(1, 1, 8, 12, requires_grad=True)
    net(x, embedding)[0, 0, 0, 0].backward()
    assert (x.grad != 0).all()
    alike = net(torch.ones(1, 1, 8, 12), embedding)[0, 0, ::2, ::2].flatten()
    assert len(alike.unique()) == len(alike)
    # A patch's cells come out where they went in: the upper left of each, from the first of the channels.
    nn.init.zeros_(net.cells.weight)
    with torch.no_grad():
        net.cells.bias.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert torch.equal(net(x, embedding)[0, 0, :2, :4], torch.tensor([[1.0, 2.0, 1.0, 2.0], [3.0, 4.0, 3.0, 4.0]]))


def test_positions_of_a_transformer_are_the_same_in_half_precision():
    plain = positions(64, 48, 32)
    assert len(plain.unique(dim=0)) == 64 * 48
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(positions(64, 48, 32), plain)


def test_every_cell_attends_to_every_other():
    attend = SelfAttention(32, head=16)
    nn.init.normal_(attend.out.weight)
    x = torch.randn(1, 32, 4, 4, requires_grad=True)
    attend(x)[0, :, 0, 0].sum().backward()
    assert (x.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize(("stem", "widths"), [(0, (8,)), (1, (8, 8)), (2, (16,)), (3, (8, 16))])
def test_decoder_and_encoder_mirror_each_other(stem, widths):
    encoder = ResNetEncoder(in_channels=3, out_channels=4, stem=stem, widths=widths, depth=1)
    decoder = ResNetDecoder(in_channels=4, out_channels=3, stem=stem, widths=widths, depth=1, fine_width=8)
    x = torch.randn(2, 3, 16, 16)
    code = encoder(x)
    assert code.shape == (2, 4, 16 // encoder.factor, 16 // encoder.factor)
    assert decoder(code).shape == x.shape


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_have_names(name):
    assert activation(name)(torch.linspace(-3, 3, 7)).isfinite().all()


def test_an_unknown_activation_is_refused_with_the_known_ones_named():
    with pytest.raises(ConfigError, match="did you mean: silu"):
        activation("sillu")


@pytest.mark.parametrize("channels", [1, 7, 16, 24, 96])
def test_group_norm_fits_any_number_of_channels(channels):
    out = group_norm(channels)(torch.randn(2, channels, 4, 4) * 5 + 3)
    assert out.mean().abs() < 1e-4


def test_scalars_are_standardised_by_what_training_saw():
    skewed = tuple((i / 100) ** 4 * 12 for i in range(101))
    spec = LayoutSpec(("street",), 8, 8.0, scalars=("cycle",), statistics={"cycle": {"all": skewed}})
    values = Standardise(spec)(torch.tensor(skewed)[:, None])
    assert values.mean().abs() < 1e-3
    assert values.std() == pytest.approx(1, abs=1e-3)
    assert (values.diff(dim=0) > 0).all()


def test_zero_and_absent_are_told_apart():
    spec = families.spec()
    embed = ConditionEmbedding(spec, 16)
    zero = Conditions.request(spec, 1, {"coverage": 0.0})
    assert not torch.allclose(embed(zero), embed(zero.absent()), atol=1e-3)
    here, there = (Conditions.request(spec, 1, {"place": p}) for p in spec.places)
    assert not torch.allclose(embed(here), embed(there), atol=1e-3)


def test_maps_become_planes_of_value_and_presence():
    spec = families.spec()
    planes = ConditionPlanes(spec)
    asked = Conditions.request(spec, 2, {"coverage": torch.rand(4, 4)})
    drawn = planes(asked, 16)
    assert drawn.shape == (2, 2, 16, 16)
    assert (drawn[:, 1] == 1).all()
    assert torch.equal(drawn[:, :, ::4, ::4], drawn[:, :, 3::4, 3::4])
    assert (planes(asked.absent(), 16) == 0).all()
