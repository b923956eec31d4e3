import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml

from citygrain import measures
from citygrain.data.datamodule import CityDataModule, EpochSampler
from citygrain.errors import ConditionError, DataError
from citygrain.measures import MEASURES, measure
from citygrain.spec import ALL_PLACES, LayoutSpec

PLACES = ["squareville", "wideham"]
SMALL = {"size_px": 32, "batch_size": 4, "batches_per_epoch": 3, "statistics_windows": 60, "val_windows": 10}


def module(cities, places=PLACES, **options):
    return CityDataModule(places, cities, **{**SMALL, **options})


@pytest.fixture
def writable(cities, tmp_path):
    """The cities under a root where no statistics are kept yet."""
    for name in PLACES:
        (tmp_path / name).symlink_to(cities / name)
    return tmp_path


def test_the_spec_says_what_batches_hold(cities):
    data = module(cities, maps=["street_density"], map_px=4)
    spec = data.prepare_spec()
    assert spec.channels == (
        *("building", "arterial", "street", "service", "cycle", "walk", "square", "green", "water"),
    )
    assert spec.scalars == tuple(n for n, m in MEASURES.items() if set(m.channels) <= set(spec.channels))
    assert spec.places == tuple(PLACES)
    assert LayoutSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    raw = next(iter(data.train_dataloader()))
    layout, asked = data.on_after_batch_transfer(raw, 0)
    assert layout.shape == (4, *spec.shape)
    values = measure(layout, spec.channels, spec.resolution_m)
    for column, name in enumerate(spec.scalars):
        torch.testing.assert_close(asked.scalars[:, column], values[name])
    assert asked.maps.shape == (4, 1, 4, 4)
    assert torch.equal(asked.place, raw.place)
    assert data.on_after_batch_transfer("anything else", 0) == "anything else"


def test_statistics_are_percentiles_of_train_windows_by_place_and_in_all(cities):
    data = module(cities, statistics_windows=300)
    statistics = data.prepare_spec().statistics
    for scalar, by_place in statistics.items():
        assert set(by_place) == {*PLACES, ALL_PLACES}
        for values in by_place.values():
            assert list(values) == sorted(values)
        assert by_place[ALL_PLACES][0] == min(by_place[p][0] for p in PLACES), scalar
        assert by_place[ALL_PLACES][-1] == max(by_place[p][-1] for p in PLACES), scalar
    fresh = module(cities, places=PLACES[:1], seed=9).batch("train", range(300)).conditions.scalars
    for column, scalar in enumerate(data.prepare_spec().scalars[:2]):
        assert statistics[scalar][PLACES[0]][50] == pytest.approx(float(fresh[:, column].median()), rel=0.1)


def test_statistics_of_all_weigh_places_as_training_does(cities):
    def median(balance):
        spec = module(cities, balance=balance, statistics_windows=200).prepare_spec()
        return {place: spec.quantile("street_density", 50, place) for place in (*PLACES, ALL_PLACES)}

    by_place, by_area = median("places"), median("area")
    assert by_place["wideham"] == by_area["wideham"] < by_place["squareville"]
    assert by_area[ALL_PLACES] < by_place[ALL_PLACES]


@pytest.mark.slow
def test_statistics_are_measured_once_and_again_when_anything_changes(writable, monkeypatch):
    measured = []
    original = CityDataModule._measured
    monkeypatch.setattr(CityDataModule, "_measured", lambda self, *a: measured.append(1) or original(self, *a))
    first = module(writable).prepare_spec()
    assert len(measured) == 2
    assert module(writable).prepare_spec() == first
    assert len(measured) == 2
    for change in (
        {"size_px": 40},
        {"min_built": 0.2},
        {"seed": 1},
        {"scalars": ["cycle"]},
        {"statistics_windows": 61},
        {"symmetries": False},
        {"zoom": 1.3},
        {"rotation": 10.0},
        {"noise": 0.1},
    ):
        before = len(measured)
        module(writable, **change).prepare_spec()
        assert len(measured) == before + 2, change
    kept = sorted((writable / ".cache").iterdir())
    assert len(kept) == 10
    for file in kept:
        file.write_text('{"coverage": ')
    assert module(writable).prepare_spec() == first


def test_windows_are_had_without_waiting_for_statistics(writable, monkeypatch):
    data = module(writable)
    monkeypatch.setattr(data, "_statistics", lambda _: pytest.fail("statistics were measured"))
    assert data.batch("test", range(2)).conditions.present.all()


def test_statistics_of_another_definition_are_not_taken(writable, monkeypatch, tmp_path_factory):
    module(writable).prepare_spec()
    changed = tmp_path_factory.mktemp("other") / "conditions.py"
    changed.write_text(Path(measures.__file__).read_text() + "\n")
    monkeypatch.setattr(measures, "__file__", str(changed))
    module(writable).prepare_spec()
    assert len(list((writable / ".cache").iterdir())) == 2


def test_a_root_that_cannot_be_written_is_no_hindrance(writable):
    (writable / ".cache").write_text("a file where a folder should be")
    assert module(writable).prepare_spec().statistics


def test_conditions_can_be_chosen_and_impossible_ones_say_why(cities):
    assert module(cities, scalars=["green", "coverage"]).prepare_spec().scalars == ("green", "coverage")
    assert module(cities, scalars=[]).prepare_spec().scalars == ()
    with pytest.raises(ConditionError, match=r"parking.*nobody looked"):
        module(cities, scalars=["parking"])
    with pytest.raises(ConditionError, match=r"rail .wideham"):
        module(cities, scalars=["cycle_share"])
    with pytest.raises(ConditionError, match="did you mean: coverage"):
        module(cities, scalars=["coverag"])
    with pytest.raises(ConditionError, match="choices:  coverage, street_density, arterial"):
        module(cities, maps=["frontage"], map_px=4)
    with pytest.raises(ConditionError, match="divisor of 32"):
        module(cities, maps=["green"], map_px=5)
    with pytest.raises(ConditionError, match=r"not among data\.channels"):
        module(cities, channels=["street"], scalars=["coverage"])


def test_what_is_left_out_is_said(cities, capsys):
    module(cities).prepare_data()
    said = " ".join(capsys.readouterr().out.split())
    assert "left out the channel parking" in said
    assert "wideham: no rails were drawn" in said


def test_what_one_place_knows_in_part_is_said(cities, capsys):
    both = module(cities)
    both.rasters[0] = replace(both.rasters[0], partial={"street": "only those with a name"})
    both.prepare_data()
    said = " ".join(capsys.readouterr().out.split())
    assert f"not alike is the channel street, of which a part is not seen: {both.rasters[0].name}: only those" in said


def test_a_place_that_is_not_prepared_says_how_to_prepare_it(cities):
    with pytest.raises(DataError, match=r"citygrain prepare place=squarevile paths\.data=") as error:
        module(cities, places=["squarevile"])
    assert "did you mean: squareville" in str(error.value)
    assert module(cities, places=[str(cities / "wideham")]).prepare_spec().places == ("wideham",)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"batches_per_epoch": 0},
        {"val_windows": -1},
        {"statistics_windows": 0},
        {"places": []},
        {"zoom": 0.9},
    ],
)
def test_numbers_that_make_no_sense_are_refused(cities, wrong):
    with pytest.raises(DataError):
        module(cities, **wrong)


class Standing:
    """A trainer, as far as the data module looks at one."""

    def __init__(self, rank, world):
        self.global_rank, self.world_size = rank, world


def windows_of(loader, epoch):
    loader.sampler.set_epoch(epoch)
    return [torch.stack([part.double() for part in batch[1:7]], 1) for batch in loader]


@pytest.mark.parametrize("epoch", [0, 3])
def test_two_ranks_together_see_what_one_process_with_twice_the_batch_sees(cities, epoch):
    varied = {"zoom": 1.2, "rotation": 10.0}
    single = windows_of(module(cities, batch_size=8, **varied).train_dataloader(), epoch)
    ranks = []
    for rank in (0, 1):
        data = module(cities, batch_size=4, **varied)
        data.trainer = Standing(rank, 2)
        ranks.append(windows_of(data.train_dataloader(), epoch))
    assert len(single) == len(ranks[0]) == len(ranks[1]) == 3
    for step, whole in enumerate(single):
        first, second = (r[step] for r in ranks)
        assert not torch.equal(first, second)
        assert torch.equal(torch.stack([first, second], 1).reshape(8, -1), whole)


def test_resuming_at_an_epoch_gives_the_windows_of_an_uninterrupted_run(cities):
    loader = module(cities).train_dataloader()
    epochs = [windows_of(loader, e) for e in range(3)]
    resumed = windows_of(module(cities).train_dataloader(), 2)
    assert all(torch.equal(a, b) for a, b in zip(epochs[2], resumed, strict=True))
    assert not torch.equal(epochs[0][0], epochs[1][0])


def test_epochs_do_not_share_indices():
    sampler = EpochSampler(12, 1, 2)
    seen = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        seen += sampler
        assert len(sampler) == 6
    assert seen == list(range(1, 36, 2))


class Recorder(pl.LightningModule):
    """Writes down what it is given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, index):
        self.seen.append(batch.layout.sum().item())
        return (self.weight * batch.layout.mean()).sum()

    def validation_step(self, batch, index):
        self.seen.append(-batch.conditions.scalars.sum().item())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")  # gathering needs none
@pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero")  # it was our intention
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # Lightning's use of torch, not ours
def test_lightning_moves_the_epochs_on_and_validates_on_the_same_windows(cities, tmp_path):
    def fit(data):
        task = Recorder()
        pl.Trainer(
            max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, use_distributed_sampler=False, num_sanity_val_steps=0,
            default_root_dir=tmp_path,
        ).fit(task, datamodule=data)  # fmt: skip
        return task.seen

    seen = fit(module(cities))
    assert seen == fit(module(cities))
    train, val = [s for s in seen if s > 0], [s for s in seen if s < 0]
    assert len(set(train)) == 6
    assert val[:3] == val[3:]
    assert len(fit(module(cities, val_windows=0))) == 6


@pytest.mark.parametrize(("windows", "world"), [(10, 1), (10, 3), (9, 2)])
def test_ranks_share_the_validation_grid_evenly(cities, windows, world):
    seen = []
    for rank in range(world):
        data = module(cities, val_windows=windows)
        data.trainer = Standing(rank, world)
        seen.append(list(data.val_dataloader().sampler))
    assert {len(s) for s in seen} == {windows // world}
    assert sorted(index for part in seen for index in part) == list(range(windows - windows % world))


def test_batches_by_index_are_those_of_the_loader(cities):
    data = module(cities)
    data.setup("fit")
    assert data.val_size == 10
    from_loader = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    by_index = data.batch("val", range(4))
    assert torch.equal(from_loader.layout, by_index.layout)
    assert torch.equal(from_loader.conditions.scalars, by_index.conditions.scalars)
    assert module(cities, val_windows=0).val_size == 0
    assert module(cities, val_windows=0).val_dataloader() == []
    assert next(iter(data.test_dataloader())).layout.shape == (4, 9, 32, 32)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")  # Python 3.12 warns where threads run
def test_workers_gather_the_same_windows(cities):
    without, with_workers = (list(islice(module(cities, num_workers=n).train_dataloader(), 3)) for n in (0, 1))
    for a, b in zip(without, with_workers, strict=True):
        assert torch.equal(a.layout, b.layout)


def test_provenance_is_plain_and_complete(cities):
    provenance = json.loads(json.dumps(module(cities).provenance()))
    assert provenance["places"]["squareville"]["source"]["kind"] == "invented"
    assert provenance["left_out"]["parking"] == "squareville: nobody looked"
    assert provenance["rules"]["size_px"] == 32
    assert module(cities, balance="area").provenance() != module(cities).provenance()


def test_augmentation_is_told_only_where_there_is_another(cities):
    plain = module(cities).provenance()
    assert "augmentation" not in plain
    varied = module(cities, zoom=1.2, noise=0.05).provenance()
    assert json.loads(json.dumps(varied.pop("augmentation"))) == {
        "symmetries": True,
        "zoom": 1.2,
        "rotation": 0.0,
        "noise": 0.05,
    }
    assert varied == plain


def test_statistics_describe_the_windows_that_training_sees(cities):
    varied = module(cities, places=PLACES[:1], zoom=1.5, rotation=20.0, noise=0.1, statistics_windows=50)
    spec = varied.prepare_spec()
    seen = varied.batch("train", range(50)).conditions.scalars
    for column, scalar in enumerate(spec.scalars):
        assert spec.quantile(scalar, 0) == pytest.approx(float(seen[:, column].min()), abs=1e-6)
        assert spec.quantile(scalar, 100) == pytest.approx(float(seen[:, column].max()), abs=1e-6)


def test_varied_windows_reach_training_at_the_size_of_the_spec_with_noise_and_validation_without(cities):
    data = module(cities, zoom=1.2, rotation=15.0, noise=0.1)
    spec = data.prepare_spec()
    raw = next(iter(data.train_dataloader()))
    layout, asked = data.on_after_batch_transfer(raw, 0)
    assert layout.shape == (4, *spec.shape)
    assert 0 <= layout.min() < layout.max() <= 1
    clean = data.on_after_batch_transfer(raw._replace(noise=raw.noise[:, :0]), 0)
    assert (layout - clean.layout).std() > 0.03  # most cells are empty or covered, where half of it is cut off
    assert torch.equal(asked.scalars, clean.conditions.scalars)
    assert torch.equal(data.batch("val", range(4)).layout, module(cities).batch("val", range(4)).layout)


def test_the_default_configuration_fits_the_signature(cities):
    file = Path(__file__).parents[2] / "conf" / "data" / "default.yaml"
    config = {**yaml.safe_load(file.read_text(encoding="utf-8")), "places": PLACES, "statistics_windows": 20}
    data = CityDataModule(root=cities, seed=0, **{**config, "size_px": 32})
    assert torch.isfinite(data.batch("train", range(2)).conditions.scalars).all()
