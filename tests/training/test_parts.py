"""Learning rates, averaged weights and codes that were kept."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.optim import lr_scheduler as torch_schedules

from citygrain.data.codes import CodeBank, CodeBatch
from citygrain.errors import ConfigError, DataError
from citygrain.spec import Batch, Conditions, LayoutSpec
from citygrain.support.config import find_config_dir, load_config
from citygrain.support.files import write_atomically, write_text
from citygrain.support.targets import instantiate
from citygrain.training import lr_schedules
from citygrain.training.callbacks import ExponentialMovingAverage, StochasticWeightAverage, Stopwatch


def rates(schedule, steps, **knobs):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = schedule(optimizer=optimizer, total_steps=steps, **knobs)
    seen = []
    for _ in range(steps + 1):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_the_cosine_warms_up_peaks_and_ends_where_it_should():
    seen = rates(lr_schedules.cosine, 100, warmup_steps=10, final=0.1)
    assert seen[:11] == sorted(seen[:11])
    assert max(seen) == pytest.approx(2.0, rel=1e-2)
    assert seen[10:] == sorted(seen[10:], reverse=True)
    assert seen[100] == pytest.approx(0.2)
    assert seen[55] == pytest.approx(2.0 * 0.55)  # half way down


def test_a_constant_rate_stays_and_an_endless_cosine_too():
    assert rates(lr_schedules.constant, 20, warmup_steps=4)[4:] == [2.0] * 17
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    assert lr_schedules.cosine(optimizer=optimizer, total_steps=-1).get_last_lr() == [2.0]


def test_the_line_decays_evenly_to_what_is_left():
    seen = rates(lr_schedules.linear, 100, warmup_steps=20, final=0.5)
    assert seen[:21] == sorted(seen[:21])
    assert seen[20:] == pytest.approx(torch.linspace(2.0, 1.0, 81).tolist())


@pytest.mark.parametrize(
    ("ours", "knobs", "theirs"),
    [
        (lr_schedules.step, {"every": 7, "factor": 0.3}, lambda o: torch_schedules.StepLR(o, 7, 0.3)),
        (
            lr_schedules.cosine_restarts,
            {"period": 8, "growth": 2.0, "final": 0.1},
            lambda o: torch_schedules.CosineAnnealingWarmRestarts(o, 8, 2, eta_min=0.2),
        ),
        (
            lr_schedules.cyclic,
            {"half_period": 6, "lowest": 0.25},
            lambda o: torch_schedules.CyclicLR(o, 0.5, 2.0, 6, cycle_momentum=False),
        ),
        (
            lr_schedules.linear,
            {"final": 0.1},
            lambda o: torch_schedules.LinearLR(o, 1.0, 0.1, 60),
        ),
    ],
)
def test_rates_are_those_of_torch(ours, knobs, theirs):
    assert rates(ours, 60, **knobs) == pytest.approx(
        rates(lambda *, optimizer, total_steps: theirs(optimizer), 60), abs=1e-9
    )


def test_falls_begin_after_the_warm_up():
    for schedule in (lr_schedules.step, lr_schedules.cosine_restarts):
        seen = rates(schedule, 30, warmup_steps=10)
        assert seen[:11] == sorted(seen[:11])
        assert seen[10] == pytest.approx(2.0)


@pytest.mark.parametrize(
    "schedule",
    [
        lambda **k: lr_schedules.step(every=0, **k),
        lambda **k: lr_schedules.cosine_restarts(period=-1, **k),
        lambda **k: lr_schedules.cosine_restarts(growth=0.5, **k),
        lambda **k: lr_schedules.cyclic(half_period=0, **k),
    ],
)
def test_impossible_periods_are_refused(schedule):
    with pytest.raises(ConfigError, match=r"lr_schedule\."):
        rates(schedule, 3)


@pytest.mark.parametrize("name", [file.stem for file in sorted((find_config_dir() / "optimizer").glob("*.yaml"))])
def test_every_optimiser_goes_down_hill(name):
    make = instantiate(load_config("train", [f"optimizer={name}", "data.places=[]"])["optimizer"])
    point = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = make([point])
    before = height = (point**2).sum()
    for _ in range(50):
        optimizer.zero_grad()
        height = (point**2).sum()
        height.backward()
        optimizer.step()
    assert height < 0.98 * before


def test_the_stochastic_average_follows_and_then_weighs_all_alike():
    callback = StochasticWeightAverage(start=0.5)
    callback.on_train_start(SimpleNamespace(estimated_stepping_batches=10), None)
    model = torch.nn.Linear(1, 1, bias=False)
    averaged = torch.optim.swa_utils.AveragedModel(model, **callback._kwargs)
    seen = []
    for step in range(10):
        torch.nn.init.constant_(model.weight, step**2)
        averaged.update_parameters(model)
        seen.append(averaged.module.weight.item())
    assert seen[:6] == [step**2 for step in range(6)]
    assert seen[9] == pytest.approx(sum(step**2 for step in range(5, 10)) / 5)
    with pytest.raises(ConfigError, match="without an end"):
        callback.on_train_start(SimpleNamespace(estimated_stepping_batches=float("inf")), None)
    with pytest.raises(ConfigError, match="within the run"):
        StochasticWeightAverage(start=1.0)


def test_the_average_forgets_where_a_short_run_began():
    average = ExponentialMovingAverage(decay=0.999)._kwargs["avg_fn"]
    value = torch.tensor(100.0)
    for n in range(200):
        value = average(value, torch.tensor(1.0), torch.tensor(n))
    assert value < 1.001
    assert average(torch.tensor(1.0), torch.tensor(0.0), 10**6) == pytest.approx(0.999)


SPEC = LayoutSpec(("building",), 4, 8.0, scalars=("coverage",))


def batches(indices):
    values = torch.tensor(list(indices), dtype=torch.float32)
    conditions = Conditions.request(SPEC, len(values), {"coverage": values})
    return Batch(values[:, None, None, None].expand(-1, 1, 4, 4), conditions)


def test_a_stopwatch_adds_up_what_a_run_took_before_it_was_resumed(monkeypatch):
    now = iter([10.0, 15.0, 100.0, 107.0])
    monkeypatch.setattr("citygrain.training.callbacks.time.perf_counter", lambda: next(now))
    first, second = Stopwatch(), Stopwatch()
    first.on_train_start()
    kept = first.state_dict()
    assert kept == {"seconds": 5.0}
    second.load_state_dict(kept)
    assert second.state_dict() == kept, "not begun yet"
    second.on_train_start()
    assert second.state_dict() == {"seconds": 12.0}


def test_codes_are_kept_with_their_conditions_and_made_again_only_when_something_changed(tmp_path):
    encoded = []

    def encode(indices):
        batch = batches(indices)
        encoded.append(len(batch.layout))
        return CodeBatch(batch.layout[:, :, :2, :2] * 2, batch.conditions)

    def build(**key):
        CodeBank.build(tmp_path / "c.pt", key, 300, encode, lambda _: None)

    build(codec="a")
    bank = CodeBank.open(tmp_path / "c.pt")
    assert len(bank) == 300
    batch = bank.__getitems__([5, 299, 300])
    assert batch.code[:, 0, 0, 0].tolist() == [10, 598, 0]
    assert batch.conditions.scalars[:, 0].tolist() == [5, 299, 0]
    count = len(encoded)
    build(codec="a")
    assert len(encoded) == count
    build(codec="b")
    assert len(encoded) == 2 * count


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "first")
    with pytest.raises(RuntimeError), write_atomically(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "first"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]
    (tmp_path / "wall").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_text(tmp_path / "wall" / "file.txt", "no")
