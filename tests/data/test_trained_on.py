"""What a checkpoint says of its windows is enough to have the same windows again."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from citygrain.data.cityraster import CityRaster
from citygrain.data.datamodule import CityDataModule
from citygrain.data.dataset import find_place
from citygrain.data.rules import UNCHANGED
from citygrain.data.trained_on import TrainedOn
from citygrain.errors import CheckpointError

PLACES = ["squareville", "wideham"]


@pytest.fixture(scope="module", params=[{}, {"zoom": 1.2, "balance": "area", "seed": 7, "min_built": 0.1}])
def module(cities, request):
    return CityDataModule(
        PLACES, cities, size_px=32, batch_size=4, statistics_windows=20, val_windows=6, test_windows=6, **request.param
    )


def model_of(module, **changed):
    """Stand in for a trained generator."""
    provenance = json.loads(json.dumps({"name": "mine", "data": {**module.provenance(), **changed}}))
    return SimpleNamespace(spec=module.prepare_spec(), provenance=provenance)


def test_the_data_module_is_that_of_training_again(cities, module):
    again = TrainedOn.of(model_of(module)).data(cities, val_windows=6, test_windows=6)
    assert again.provenance() == {**module.provenance(), "left_out": {}}
    for split in ("train", "val", "test"):
        for ours, theirs in zip(again.batch(split, range(4)), module.batch(split, range(4)), strict=True):
            assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours.place.equal(theirs.place)


def test_windows_are_those_of_training_as_they_lie_in_the_city(cities, module):
    trained_on = TrainedOn.of(model_of(module))
    assert trained_on.places == tuple(PLACES)
    windows = trained_on.windows("train", cities, augmentation=trained_on.augmentation)
    assert torch.equal(windows.__getitems__(range(8)).layout, module.windows("train").__getitems__(range(8)).layout)
    plain = trained_on.windows("train", cities)
    assert (plain.augmentation, plain.seed, plain.channels) == (UNCHANGED, module.seed, module.channels)
    rows = [windows.locate(range(50))[1] for windows in (plain, trained_on.windows("train", cities, seed=3))]
    assert not np.array_equal(*rows)
    opened = CityRaster.open(find_place(cities, "wideham"))
    held_out = trained_on.windows("val", cities, [opened], limit=3)
    assert len(held_out) == 3
    assert [raster.name for raster in held_out.rasters] == ["wideham"]


def test_places_lie_where_their_rasters_do(cities, module):
    grids = TrainedOn.of(model_of(module)).grids
    assert grids == {name: CityRaster.open(cities / name).grid for name in PLACES}


@pytest.mark.parametrize("made", [{}, {"data": {"rules": {"size_px": 32, "resolution_m": 8.0}}}])
def test_a_model_of_unknown_windows_is_refused(module, made):
    with pytest.raises(CheckpointError, match="does not say which windows"):
        TrainedOn.of(SimpleNamespace(spec=module.prepare_spec(), provenance=made))
