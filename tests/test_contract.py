"""The laws that every generative family obeys, over all of `conf/model/`."""

from __future__ import annotations

import copy
import math
import shutil
from dataclasses import replace

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

import families
from citygrain.checkpoint import Checkpoint, build_generator, export_checkpoint, load
from citygrain.errors import CapabilityError, ConditionError
from citygrain.generation.area import draw_area
from citygrain.measures import measure
from citygrain.protocols import (
    Codec,
    FitsPrior,
    Generator,
    ImplicitGenerator,
    Known,
    LearnsFromCodes,
    MeasuresData,
    Noise,
    ShowsLayouts,
)
from citygrain.samplers.areas import KEEPERS
from citygrain.samplers.diffusion import Heun
from citygrain.samplers.implicit import Truncated
from citygrain.samplers.prior import FittedMixture, Normal
from citygrain.spec import Batch, Conditions
from citygrain.training.task import GenerativeTask

pytestmark = [
    pytest.mark.parametrize("name", families.ALL),
    # Lightning's own code, and its advice about toys.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:.*LeafSpec.*"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*number of training batches.*"),
    pytest.mark.filterwarnings("ignore:.*in eval mode at the start.*"),  # a codec on the way stays as it is
]


def layouts(batch, seed=0, size_px=16):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, size_px // 4, size_px // 4, generator=generator)
    return torch.nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear", align_corners=False)


def shaken(model):
    """Move every parameter, so that layers that start at zero pass gradients and conditions on."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))
    return model


def test_it_is_a_generator(name):
    model = families.make(name)
    assert isinstance(model, Generator)
    assert replace(model.spec, given=()) == families.spec(name=name)


def test_the_loss_is_finite_and_reaches_every_trained_parameter(name):
    torch.manual_seed(0)
    model = shaken(families.make(name)).train()
    if isinstance(model, MeasuresData):
        model.measure_data(layouts(16))
    conditions = families.some_conditions(16, model.spec)
    losses = model.loss(layouts(16), conditions)
    assert all(torch.isfinite(v) and v.ndim == 0 for v in losses.values())
    if not any(p.requires_grad for p in model.parameters()):
        pytest.skip(f"{name} has no parameters")
    losses["loss"].backward()
    without = [
        n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.abs().sum() > 0)
    ]
    assert without == []


def test_samples_are_layouts(name):
    model = families.make(name).eval()
    drawn = model.sample(families.some_conditions(3, model.spec), noise=Noise([0, 1, 2]))
    assert drawn.shape == (3, *model.spec.shape)
    assert torch.isfinite(drawn).all()
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert not drawn.requires_grad


def test_a_layout_depends_on_its_seed_and_conditions_and_not_on_the_batch(name):
    model = shaken(families.make(name)).eval()
    conditions = families.some_conditions(5, model.spec)
    together = model.sample(conditions, noise=Noise(range(5)))
    alone = model.sample(conditions[3:4], noise=Noise([3]))
    assert torch.allclose(together[3:4], alone, atol=1e-4)
    other = model.sample(conditions[3:4], noise=Noise([4]))
    assert not torch.allclose(alone, other, atol=1e-3)


def test_a_prior_that_is_not_fitted_refuses_and_says_how(name):
    fresh = build_generator(families.config(name), families.spec(name=name))
    if not isinstance(fresh, FitsPrior):
        pytest.skip(f"{name} has learned its prior")
    with pytest.raises(CapabilityError, match=r"not fitted yet(.|\n)*citygrain train"):
        fresh.sample(families.requests(1, fresh.spec), noise=Noise([0]))


def test_a_sampler_of_another_family_is_refused_and_the_right_ones_named(name):
    model = families.make(name)
    for strange in (Normal(), FittedMixture(), Heun(), Truncated()):
        if not isinstance(model, strange.needs):
            with pytest.raises(CapabilityError, match=type(model.sampler).__name__):
                model.sample(families.requests(1, model.spec), noise=Noise([0]), sampler=strange)


def test_given_channels_are_repeated_exactly_and_missed_where_they_are_needed(name):
    model = shaken(families.make(name)).eval()
    if not model.spec.given:
        pytest.skip(f"{name} is given no channels")
    conditions = families.some_conditions(3, model.spec)
    drawn = model.sample(conditions, noise=Noise([0, 1, 2]))
    assert torch.equal(drawn[:, [model.spec.channels.index(c) for c in model.spec.given]], conditions.given)
    with pytest.raises(ConditionError, match=", ".join(model.spec.given)):
        model.sample(Conditions.empty(model.spec, 1), noise=Noise([0]))


def test_the_value_of_an_absent_condition_does_not_matter_and_of_a_present_one_does(name):
    model = shaken(families.make(name)).eval()
    asked = families.requests(2, model.spec, coverage=0.2, place="here")
    hidden = asked.to("cpu")
    hidden.scalars = asked.scalars + ~asked.present * 7.0
    hidden.maps = asked.maps + 3.0
    seen = families.requests(2, model.spec, coverage=0.9, place="here")

    def draw(conditions):
        return model.sample(conditions, noise=Noise([0, 1]))

    assert torch.equal(draw(asked), draw(hidden))
    assert not torch.allclose(draw(asked), draw(seen), atol=1e-6)
    assert not torch.allclose(draw(asked), draw(asked.absent()), atol=1e-6)


def test_a_checkpoint_loads_elsewhere_with_nothing_beside_it(name, tmp_path):
    model = shaken(families.make(name)).eval()
    made = Checkpoint(families.config(name), model.spec, dict(model.state_dict()), {"citygrain": "0", "step": 1})
    export_checkpoint(made, tmp_path / "made")
    shutil.move(tmp_path / "made", tmp_path / "elsewhere")
    loaded = load(tmp_path / "elsewhere")
    conditions = families.some_conditions(2, model.spec)
    assert loaded.spec == model.spec
    assert torch.equal(model.sample(conditions, noise=Noise([0, 1])), loaded.sample(conditions, noise=Noise([0, 1])))


def test_codes_give_the_loss_that_layouts_give(name):
    model = families.make(name)
    if not isinstance(model, LearnsFromCodes):
        pytest.skip(f"{name} learns from layouts only")
    conditions = families.some_conditions(4, model.spec)
    torch.manual_seed(1)
    direct = model.loss(layouts(4), conditions)["loss"]
    torch.manual_seed(1)
    assert torch.equal(direct, model.code_loss(model.to_code(layouts(4)), conditions)["loss"])


def test_a_codec_keeps_shape_and_improves_with_training(name):
    model = families.make(name)
    if not isinstance(model, Codec):
        pytest.skip(f"{name} has no code")
    x = layouts(8)
    code = model.encode(x)
    assert code.shape == (8, *model.code_shape)
    assert model.decode(code).shape == x.shape
    before = (model.decode(code) - x).abs().mean()
    fit(model, x, Conditions.empty(model.spec, 8), steps=60)
    assert (model.decode(model.encode(x)) - x).abs().mean() < 0.7 * before


def test_a_tolerance_brings_what_is_measured_nearer_to_what_is_asked(name):
    torch.manual_seed(0)
    model = shaken(families.make(name))
    if not isinstance(model, ShowsLayouts):
        pytest.skip(f"{name} cannot be measured on the way")
    if isinstance(model, MeasuresData):
        model.measure_data(layouts(16))
    with torch.no_grad():
        possible = model.to_layout(Noise(range(10, 14)).normal(*model.latent_shape))
    asked = {k: v for k, v in measure(possible, model.spec.channels, 8.0).items() if k in model.spec.scalars}
    conditions = families.requests(4, model.spec, **asked)

    def error(tolerance):
        sampler = replace(model.sampler, tolerance=tolerance)
        drawn = model.sample(conditions, noise=Noise(range(4)), sampler=sampler)
        measured = measure(drawn, model.spec.channels, 8.0)
        return sum((measured[k] - v).abs().mean() for k, v in asked.items())

    assert error(0.001) < 0.3 * error(math.inf)


@pytest.mark.slow
def test_conditions_matter_after_two_windows_were_learned(name):
    torch.manual_seed(0)
    model = families.make(name)
    if isinstance(model, ImplicitGenerator) and " with " in name:
        pytest.skip("games take long; each family stands for its variants")
    torch.manual_seed(0)
    pair = families.two_windows(name)
    asked = families.requests(2, model.spec, coverage=torch.tensor([0.5, 0.0]), green=torch.tensor([0.0, 0.5]))
    asked = replace(asked, given=pair[:, [model.spec.channels.index(c) for c in model.spec.given]])
    index = torch.arange(16) % 2
    if isinstance(getattr(model, "codec", None), Generator):
        fit(model.codec.requires_grad_(True), pair[index], Conditions.empty(model.codec.spec, 16), steps=150)
        model.codec.requires_grad_(False)
    fit(model, pair[index], asked[index], steps=250)
    model.eval()
    drawn = model.sample(asked, noise=Noise([5, 6]))
    swapped = model.sample(asked[torch.tensor([1, 0])], noise=Noise([5, 6]))

    def nearest(x):
        return (x[:, None] - pair[None]).abs().mean((2, 3, 4)).argmin(1).tolist()

    assert nearest(drawn) == [0, 1]
    assert nearest(swapped) == [1, 0]
    if not isinstance(model, ImplicitGenerator):  # two players circle around what a single loss reaches
        assert (drawn - pair).abs().mean() < 0.12


class Windows(Dataset):
    """The same batches over and over, as a data module hands them on."""

    def __init__(self, model):
        self.batch = Batch(layouts(4), families.some_conditions(4, replace(model.spec, given=())))

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.batch


def test_it_trains_in_half_precision_with_accumulated_and_clipped_gradients(name, tmp_path):
    task = GenerativeTask(
        model=families.config(name),
        spec=families.spec(name=name).to_dict(),
        optimizer={"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 1e-3},
        lr_schedule={"_target_": "citygrain.training.lr_schedules.constant"},
    )
    before = copy.deepcopy(task.state_dict())
    trainer = pl.Trainer(
        accelerator="cpu", precision="bf16-mixed", accumulate_grad_batches=2, gradient_clip_val=1.0, max_steps=2,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path,
    )  # fmt: skip
    loader = DataLoader(Windows(task.generator), batch_size=None)
    trainer.fit(task, loader, loader)
    after = task.state_dict()
    assert trainer.global_step == 2
    assert all(value.isfinite().all() for value in after.values())
    assert any(not torch.equal(before[key], value) for key, value in after.items())
    assert all(after[key].dtype == value.dtype for key, value in before.items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_cpu_and_gpu_agree(name):
    model = shaken(families.make(name)).eval()
    conditions = families.some_conditions(3, model.spec)
    here = model.sample(conditions, noise=Noise(range(3)))
    there = model.to("cuda").sample(conditions.to("cuda"), noise=Noise(range(3), "cuda"))
    assert torch.allclose(here, there.cpu(), atol=5e-3)


def fit(model, x, conditions, steps):
    """Train as a run does, the prior at the end included."""
    model.train()
    if isinstance(model, MeasuresData):
        model.measure_data(x)
    trained = [p for p in model.parameters() if p.requires_grad]
    rate = 1e-3 if isinstance(model, ImplicitGenerator) else 3e-3
    optimizer = torch.optim.Adam(trained or [torch.zeros(1, requires_grad=True)], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model.loss(x, conditions)["loss"]
        if trained:
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
    if isinstance(model, FitsPrior):
        families.fit_prior(model, x, conditions)


def test_what_is_known_stays_and_the_rest_depends_on_it_or_the_family_says_which_can(name):
    model = shaken(families.make(name)).eval()
    keep = torch.ones(1, 3, 16, 16, dtype=torch.bool)
    keep[:, :, 4:12, 4:12] = False
    parts = [Known(layouts(1, seed), keep) for seed in (0, 1)]
    given = layouts(1)[:, [model.spec.channels.index(c) for c in model.spec.given]] if model.spec.given else None

    def drawn():
        few = replace(model.sampler, steps=2) if hasattr(model.sampler, "steps") else model.sampler
        return [
            draw_area(model, (16, 16), {"coverage": 0.4}, known=known, given=given, seed=3, sampler=few)
            for known in parts
        ]

    if not name.startswith(KEEPERS):
        with pytest.raises(CapabilityError, match="diffusion"):
            drawn()
        return
    one, other = drawn()
    if given is not None:
        keep[:, [model.spec.channels.index(c) for c in model.spec.given]] = False
        assert torch.equal(one[model.spec.channels.index(model.spec.given[0])], (given[0, 0] * 255).round().byte())
    for known, layout in zip(parts, (one, other), strict=True):
        assert torch.equal(layout[keep[0]], (known.layout * 255).round().byte()[keep])
    assert not torch.equal(one[~keep[0]], other[~keep[0]])
