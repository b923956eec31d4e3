"""Laws of the architectures and of what conditions become."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import families
from citygrain.errors import ConfigError
from citygrain.networks.blocks import ACTIVATIONS, NORMS, SelfAttention, make_activation, make_group_norm, make_norm
from citygrain.networks.conditioner import ConditionEmbedding, ConditionPlanes, Standardise
from citygrain.networks.dit import DiT
from citygrain.networks.resnet import ResNetDecoder, ResNetEncoder
from citygrain.networks.transformer import encode_positions
from citygrain.networks.unet import UNet
from citygrain.spec import Conditions, LayoutSpec


@pytest.mark.parametrize("stem", [0, 1, 2])
def test_a_new_unet_predicts_nothing_and_says_which_sizes_it_takes(stem):
    net = UNet(in_channels=3, out_channels=2, embedding=8, width=16, widths=(1, 2, 2), blocks=1, stem=stem)
    size = 2 * 2**stem
    assert torch.equal(
        net(torch.randn(2, 3, 4 * size, 2 * size), torch.randn(2, 8)), torch.zeros(2, 2, 4 * size, 2 * size)
    )
    with pytest.raises(ConfigError, match=f"that {2 * size} divides"):
        net(torch.randn(1, 3, 3 * size, 3 * size), torch.randn(1, 8))


def test_a_unet_with_a_stem_gives_cells_back_to_where_they_came_from():
    net = UNet(in_channels=1, out_channels=1, embedding=8, width=16, widths=(1,), blocks=1, attention=(), stem=1)
    nn.init.zeros_(net.head[-1].weight)
    with torch.no_grad():
        net.head[-1].bias.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert torch.equal(
        net(torch.randn(1, 1, 2, 4), torch.randn(1, 8))[0, 0], torch.tensor([[1.0, 2, 1, 2], [3, 4, 3, 4]])
    )


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
    plain = encode_positions(64, 48, 32)
    assert len(plain.unique(dim=0)) == 64 * 48
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encode_positions(64, 48, 32), plain)


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
    assert make_activation(name)(torch.linspace(-3, 3, 7)).isfinite().all()


def test_an_unknown_activation_is_refused_with_the_known_ones_named():
    with pytest.raises(ConfigError, match="did you mean: silu"):
        make_activation("sillu")


@pytest.mark.parametrize("channels", [1, 7, 16, 24, 96])
def test_group_norm_fits_any_number_of_channels(channels):
    out = make_group_norm(channels)(torch.randn(2, channels, 4, 4) * 5 + 3)
    assert out.mean().abs() < 1e-4


class Coder(nn.Module):
    """Encoder and decoder in a row."""

    def __init__(self, **options):
        super().__init__()
        self.encoder = ResNetEncoder(in_channels=3, out_channels=4, stem=1, widths=(8, 16), depth=1, **options)
        self.decoder = ResNetDecoder(
            in_channels=4, out_channels=3, stem=1, widths=(8, 16), depth=1, fine_width=8, **options
        )

    def forward(self, x, embedding):
        return self.decoder(self.encoder(x))


def small_unet(**options):
    return UNet(in_channels=3, out_channels=3, embedding=8, width=16, widths=(1, 2), blocks=1, head=16, **options)


@pytest.mark.parametrize("make", [small_unet, Coder])
@pytest.mark.parametrize("name", NORMS)
def test_every_normalisation_trains_and_samples_do_not_see_each_other_afterwards(make, name):
    torch.manual_seed(0)
    net = make(norm=name)
    optimizer = torch.optim.SGD(net.parameters(), 1e-2)
    x, embedding = torch.randn(4, 3, 8, 8) * 3 + 1, torch.randn(4, 8)
    losses = []
    for _ in range(8):
        losses.append((net(x, embedding) - x).square().mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    net.eval()
    together = net(x, embedding)
    apart = torch.cat([net(*one) for one in zip(x.split(1), embedding.split(1), strict=True)])
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("make", [small_unet, Coder])
def test_without_another_word_normalisation_is_by_groups_whose_weights_others_share(make):
    names = {name: list(make(norm=name).state_dict()) for name in NORMS}
    assert list(make().state_dict()) == names["group"] == names["layer"] == names["instance"]
    assert set(names["none"]) < set(names["group"]) < set(names["batch"])
    assert all(m.num_groups == m.num_channels for m in make(norm="instance").modules() if isinstance(m, nn.GroupNorm))
    assert not any(isinstance(m, nn.GroupNorm) for m in make(norm="batch").modules())


@pytest.mark.parametrize(
    ("name", "axes"), [("layer", (1, 2, 3)), ("instance", (2, 3)), ("batch", (0, 2, 3)), ("none", None)]
)
def test_normalisations_have_names_and_axes(name, axes):
    x = torch.randn(5, 6, 4, 4) * torch.rand(5, 6, 1, 1) + torch.randn(5, 6, 1, 1)
    normalised = make_norm(name, 6)(x).detach()
    if axes is None:
        assert torch.equal(normalised, x)
    else:
        assert normalised.mean(axes) == pytest.approx(0, abs=1e-5)
        assert normalised.var(axes, correction=0) == pytest.approx(1, abs=0.05)


def test_an_unknown_normalisation_is_refused_with_the_known_ones_named():
    with pytest.raises(ConfigError, match="did you mean: group"):
        small_unet(norm="groups")


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
