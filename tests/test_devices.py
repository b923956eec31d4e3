"""What a model computes on, and in which numbers."""

import pytest
import torch

import citygrain
from citygrain import devices
from citygrain.config import load_config
from citygrain.devices import chosen_device, computing_in, device_of
from citygrain.errors import ConfigError
from citygrain.sample import draw, run
from citygrain.spec import Conditions

CPU = torch.device("cpu")


def product(precision):
    with computing_in(precision, CPU):
        return (torch.ones(4, 4) @ torch.ones(4, 4)).dtype


def test_matrices_are_multiplied_in_what_is_chosen(monkeypatch):
    assert product("32-true") == torch.float32
    assert product("bf16-mixed") == torch.bfloat16
    for native in (True, False):
        monkeypatch.setattr(devices, "has_fast_bf16", lambda _, native=native: native)
        assert product("auto") == (torch.bfloat16 if native else torch.float32)


def test_in_half_precision_layouts_are_hardly_others_and_obey_as_exactly():
    model = citygrain.load("reference/cities_64")
    asked = Conditions.request(model.spec, 8, {"coverage": torch.linspace(0.05, 0.3, 8), "cycle": 2.0})
    whole, half = (draw(model, asked, range(8), precision=precision) for precision in ("32-true", "bf16-mixed"))
    moved = abs(whole.layouts - half.layouts).mean()
    assert 0 < moved < 0.1 * abs(whole.layouts - whole.layouts.mean(0)).mean()
    for name in ("coverage", "cycle"):
        error = abs(half.measured[name] - half.requested[name]).mean() / model.spec.spread(name)
        assert error < 0.05


@pytest.mark.parametrize("precision", ["16", "half", 32])
def test_other_numbers_are_refused_before_anything_is_drawn(precision, tmp_path):
    with pytest.raises(ConfigError, match="bf16-mixed"):
        run(load_config("sample", ["checkpoint=reference/cities_64", f"precision={precision}", f"out={tmp_path}"]))
    assert not list(tmp_path.iterdir())


def test_a_device_that_is_not_there_is_answered_with_those_that_may_be():
    assert chosen_device("cpu") == "cpu"
    assert chosen_device("auto") in {"cpu", "cuda"}
    with pytest.raises(ConfigError, match="auto, cpu, cuda"):
        chosen_device("abacus")


def test_what_has_no_numbers_is_computed_on_the_processor():
    assert device_of(object()) == CPU
    assert device_of(torch.nn.Linear(1, 1)) == CPU
    assert device_of(torch.nn.Identity()) == CPU
