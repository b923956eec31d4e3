"""Every shipped recipe trains on real windows, in a size that tests can afford, and can be sampled from."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import rasterio
import torch

import citygrain
import families
from citygrain.data.dataset import CityWindows
from citygrain.data.rules import Rules
from citygrain.support.config import list_groups, load_config
from citygrain.verbs.sample import run as sample
from citygrain.verbs.train import run

pytestmark = [
    pytest.mark.slow,
    # Lightning's own code, not what it is given.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:.*LeafSpec.*"),
]

TINY = [
    "data.places=[helsinki]", "data.resolution_m=4", "data.size_px=16", "data.batch_size=4", "data.batches_per_epoch=2",
    "data.val_windows=8", "data.statistics_windows=64", "trainer=cpu", "trainer.max_steps=2", "codes=64",
    "callbacks.samples.columns=2", "callbacks.samples.every_n_epochs=1", "~callbacks.progress",
]  # fmt: skip


def trained(recipe, cities, runs, *more):
    config = load_config("train", [f"experiment={recipe}", *TINY, *more, f"paths.data={cities}", f"paths.runs={runs}"])
    families.shrink(config["model"])
    if config["codec"] is not None:
        families.shrink(config["codec"]["model"])
        config["codec"]["trainer"] = {"max_steps": 2}
    if str(config["init_from"]).startswith("reference/"):  # of other layouts than these
        config["init_from"] = str(trained("latent_diffusion", cities, runs))
    return run(config)


@pytest.mark.parametrize("recipe", list_groups()["experiment"])
def test_a_recipe_trains_and_is_sampled(recipe, cities, tmp_path):
    made = trained(recipe, cities, tmp_path / "runs")
    generator = citygrain.load(made)
    wanted = "coverage" if "building" in generator.spec.channels else "street_density"
    asked = [f"checkpoint={made}", "n=3", f"conditions.{wanted}=p50", f"paths.data={cities}", f"out={tmp_path / 'out'}"]
    sample(load_config("sample", asked))
    layouts = np.load(tmp_path / "out" / "layouts.npz")["layouts"]
    assert layouts.shape == (3, *generator.spec.shape)
    assert list(csv.DictReader((tmp_path / "out" / "measured.csv").read_text().splitlines()))[2][f"measured_{wanted}"]
    pictures = {path.parent.name for path in (tmp_path / "runs" / recipe).rglob("step_*.png")}
    assert pictures, "a run shows what it does"


def test_a_recipe_goes_on_from_its_own_model_with_the_codec_that_this_has(cities, tmp_path):
    first = trained("latent_diffusion", cities, tmp_path)
    longer = trained("latent_diffusion", cities, tmp_path, "name=longer", f"init_from={first}")
    assert not (tmp_path / "longer" / "codec").exists(), "none is trained"
    assert "begun from latent_diffusion after its 2 steps" in (longer / "README.md").read_text(encoding="utf-8")
    assert citygrain.load(longer).provenance["begun_from"]["places"] == ["helsinki"]
    before, after = (citygrain.load(model).state_dict() for model in (first, longer))
    assert all(torch.equal(after[name], value) for name, value in before.items() if name.startswith("codec."))
    assert any(not torch.equal(after[name], value) for name, value in before.items() if name.startswith("network."))


@pytest.mark.parametrize("recipe", ["pix2pix", "reference_ground", "reference_densities"])
def test_given_channels_come_from_real_windows_and_layouts_lie_where_these_are(recipe, cities, tmp_path):
    made = trained(recipe, cities, tmp_path / "runs", "model.given=[building,street]")
    spec = citygrain.load(made).spec
    assert spec.given == ("building", "street")
    out = tmp_path / "out"
    sample(
        load_config("sample", [f"checkpoint={made}", "n=4", "given.split=val", f"paths.data={cities}", f"out={out}"])
    )
    windows = CityWindows([cities / "helsinki"], "val", Rules(16, 4.0), channels=spec.channels, limit=4)
    real = windows.__getitems__([i % len(windows) for i in range(4)]).layout.numpy()
    layouts = np.load(out / "layouts.npz")["layouts"]
    index = [spec.channels.index(name) for name in spec.given]
    assert np.array_equal(layouts[:, index], real[:, index])
    assert not np.array_equal(layouts, real)
    with rasterio.open(cities / "helsinki" / "layout.tif") as city:
        building = city.descriptions.index("building") + 1
        for i, file in enumerate(sorted((out / "layouts").glob("*.tif"))):
            with rasterio.open(file) as tif:
                assert tif.crs == city.crs
                fine = city.read(building, window=rasterio.windows.from_bounds(*tif.bounds, city.transform))
            mean = fine.reshape(16, 2, 16, 2).mean((1, 3))
            assert np.abs(mean - layouts[i, spec.channels.index("building")]).max() <= 1
    assert (out / "windows.png").is_file()


def test_given_channels_and_a_place_of_ones_own_choice_exclude_each_other(cities, tmp_path):
    made = trained("pix2pix", cities, tmp_path / "runs")
    asked = [f"checkpoint={made}", "n=1", f"paths.data={cities}", f"out={tmp_path / 'out'}"]
    with pytest.raises(citygrain.errors.ConfigError, match="lie where their given channels are"):
        sample(load_config("sample", [*asked, "georeference.crs=EPSG:32635", "georeference.origin=[0,0]"]))
    with pytest.raises(citygrain.errors.DataError, match="atlantis is not prepared"):
        sample(load_config("sample", [*asked, "given.place=atlantis"]))
