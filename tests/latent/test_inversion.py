"""Diffusion as a codec, against a denoiser whose flow is known in closed form."""

import numpy as np
import pytest
import torch

import families
from citygrain.errors import CapabilityError, ConfigError
from citygrain.latent import Inversion, find_codec
from citygrain.protocols import Codec
from citygrain.samplers.diffusion import Ancestral, DpmSolver, Euler, Heun
from toy_codecs import SPEC, Oracle

VARIANCE = torch.rand(SPEC.shape, generator=torch.Generator().manual_seed(0)) * 1.7 + 0.3


def clean(n=4):
    return torch.randn(n, *SPEC.shape, generator=torch.Generator().manual_seed(1)) * VARIANCE.sqrt()


@pytest.mark.parametrize("sampler", [Euler(steps=400), Heun(steps=48), DpmSolver(steps=100)])
def test_the_noise_is_where_the_flow_of_normal_data_leads(sampler):
    codec = Inversion(Oracle(VARIANCE), sampler)
    x, low, high = clean(), sampler.sigma_min, sampler.sigma_max
    noise = codec.to_noise(x)
    exact = x * ((VARIANCE + high**2) / (VARIANCE + low**2)).sqrt() / high
    assert torch.allclose(noise, exact, rtol=0.02, atol=1e-3)
    assert torch.allclose(codec.from_noise(exact), x, rtol=0.02, atol=1e-3)


def test_there_and_back_is_where_one_was():
    codec = Inversion(Oracle(VARIANCE), Heun(steps=48))
    noise = torch.randn(4, *SPEC.shape, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(codec.to_noise(codec.from_noise(noise)), noise, atol=5e-3)
    assert torch.allclose(codec.encode(codec.decode(noise)), noise, atol=5e-3)
    layouts = Oracle(VARIANCE).to_layout(clean())
    assert torch.allclose(codec.decode(codec.encode(layouts)), layouts, atol=1e-3)


def test_more_steps_come_nearer():
    def error(steps):
        codec = Inversion(Oracle(VARIANCE), Heun(steps=steps))
        return (codec.from_noise(codec.to_noise(clean())) - clean()).abs().mean()

    assert error(40) < 0.5 * error(20) < 0.25 * error(10)


def test_it_is_a_codec_of_the_model_and_of_models_in_a_code():
    for name in ("diffusion", "cell_diffusion", "diffusion in variational_autoencoder"):
        model = families.make(name).eval()
        codec = Inversion(model, Heun(steps=3))
        assert isinstance(codec, Codec)
        assert find_codec(codec) is codec
        layouts = torch.rand(2, *model.spec.shape)
        code = codec.encode(layouts)
        assert code.shape == (2, *codec.code_shape)
        assert codec.decode(code).shape == layouts.shape
        assert not code.requires_grad


def test_the_way_depends_on_what_is_asked_for():
    torch.manual_seed(0)
    model = families.make("diffusion").eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    layouts = torch.rand(2, *model.spec.shape)
    free, asked = (Inversion(model, Heun(steps=4), asked) for asked in (None, {"coverage": 0.4, "place": "here"}))
    assert not torch.allclose(free.encode(layouts), asked.encode(layouts), atol=1e-5)
    assert repr(free) != repr(asked)  # codes that were kept for one are none of the other's


def test_what_has_no_way_back_is_refused():
    with pytest.raises(ConfigError, match="Heun"):
        Inversion(Oracle(VARIANCE), Ancestral())
    with pytest.raises(ConfigError, match="tolerance"):
        Inversion(Oracle(VARIANCE), Heun(tolerance=0.1))
    with pytest.raises(ConfigError, match="steps"):
        Inversion(Oracle(VARIANCE), Heun(steps=1))
    with pytest.raises(CapabilityError, match="diffusion"):
        Inversion(families.make("pca"))
    with pytest.raises(CapabilityError, match="diffusion"):
        Inversion(families.make("normalizing_flow"))
    assert np.isfinite(Inversion(Oracle(VARIANCE)).encode(torch.rand(1, *SPEC.shape)).numpy()).all()
