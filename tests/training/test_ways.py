"""Training on the ways of windows, which are written as strokes once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import citygrain
import families
from citygrain import checkpoint
from citygrain.checkpoint import build_generator
from citygrain.data.codes import CodeBank
from citygrain.data.datamodule import CityDataModule
from citygrain.errors import ConfigError
from citygrain.support.config import load_config
from citygrain.training.codes import WindowWriter
from citygrain.verbs.train import run

WAYS = ["arterial", "street", "service", "cycle", "walk", "rail"]

TINY = [
    "model=stroke_transformer", "data=ways", "data.places=[helsinki]", "data.resolution_m=2", "data.size_px=64",
    "data.batch_size=4", "data.batches_per_epoch=2", "data.val_windows=8", "data.statistics_windows=64", "codes=24",
    "trainer=cpu", "lr_schedule=constant", "callbacks.samples=null", "~callbacks.progress",
]  # fmt: skip

lightning = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:.*LeafSpec.*", "ignore:.*GPU available.*"
)


def trained(cities, runs, name, *more):
    config = load_config("train", [*TINY, f"name={name}", f"paths.data={cities}", f"paths.runs={runs}", *more])
    families.shrink(config["model"])
    return run(config)


def test_the_strokes_of_a_window_are_what_its_cells_show(cities):
    """Lines lie where the cells do, neither turned nor mirrored; the conditions are those of the cells."""
    data = CityDataModule(
        ["helsinki"], cities, resolution_m=2.0, size_px=128, channels=WAYS, batch_size=8, statistics_windows=64, seed=0
    )
    upright = CityDataModule(
        ["helsinki"], cities, resolution_m=2.0, size_px=128, channels=WAYS, symmetries=False, seed=0
    ).coarsest()
    data.setup("fit")
    config = families.config("stroke_transformer") | {"rows": 448}
    model = build_generator(config, data.prepare_spec())
    for split, count in (("train", 4), ("val", data.coarsest().val_size)):
        indices = range(count)
        written = WindowWriter(data, model, split)(indices)
        real = upright.batch(split, indices)
        fine = model.from_code(written.code)
        drawn, cells = (layouts.flatten(1).numpy() for layouts in (F.avg_pool2d(fine, 4), real.layout))
        same = np.corrcoef(drawn, cells)[:count, count:]
        assert (np.diag(same) > 0.8).all()
        if split == "train":
            assert (same - 2 * np.eye(4)).max() < 0.5
        assert torch.equal(written.conditions.present, real.conditions.present)
        assert torch.equal(written.conditions.scalars, real.conditions.scalars)


@pytest.mark.slow
@lightning
def test_a_run_goes_on_with_the_codes_it_has(cities, tmp_path):
    trained(cities, tmp_path, "parts", "trainer.max_steps=2")
    bank = tmp_path / "parts" / "codes" / "train.pt"
    code, written = CodeBank.open(bank).code, bank.stat().st_mtime_ns
    assert code.dtype == torch.int16
    assert code.shape == (24, 64, 8)
    assert len(CodeBank.open(tmp_path / "parts" / "codes" / "val.pt")) > 0
    made = trained(cities, tmp_path, "parts", "trainer.max_steps=6")
    assert bank.stat().st_mtime_ns == written
    assert checkpoint.read_checkpoint(made).provenance["step"] == 6
    assert torch.equal(
        CodeBank.open(trained(cities, tmp_path, "other", "trainer.max_steps=1").parent / "codes" / "train.pt").code,
        code,
    )
    model = citygrain.Model(made)
    layouts = model.sample(2, street_density="p50", seed=1)
    assert layouts.cells.shape == (2, 6, 64, 64)
    budget = model.generator.budget
    low, high = (torch.tensor([model.spec.quantile(name, q) for name in model.spec.scalars]) for q in (10, 90))
    assert budget.known.all()
    assert len(budget.examples[0].unique(dim=0)) > 100
    middle = budget.examples[0].median(0).values
    assert ((middle >= low) & (middle <= high)).all()


@lightning
@pytest.mark.parametrize("changed", ["data.zoom=1.25", "data.rotation=10", "data.frame=streets"])
def test_windows_of_lines_are_not_zoomed_or_turned_by_an_angle(cities, tmp_path, changed):
    with pytest.raises(ConfigError, match=r"as lines[\s\S]*data\.zoom=1 data\.rotation=0"):
        trained(cities, tmp_path, "turned", changed)


@lightning
def test_only_a_family_that_learns_from_lines_leaves_a_channel_out(cities, tmp_path):
    with pytest.raises(ConfigError, match="stroke_transformer"):
        trained(cities, tmp_path, "other", "model=variational_autoencoder")
