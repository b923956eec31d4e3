"""Incremental principal components are the principal components."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA, IncrementalPCA
from torch.nn import functional as F

import families
from citygrain.errors import ConfigError
from citygrain.models.pca import Pca
from citygrain.spec import Conditions

SPEC = families.spec()


def layouts(n, seed=0):
    coarse = torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, scale_factor=4, mode="bilinear")


def patches(x, edge):
    return F.pixel_unshuffle(x, edge).movedim(1, -1).flatten(0, -2).double().numpy()


def fitted(x, batches, **options):
    model = Pca(SPEC, **options).train()
    for part in x.chunk(batches):
        losses = model.loss(part, Conditions.empty(SPEC, len(part)))
    return model.eval(), losses


def test_with_all_components_batches_give_what_one_fit_gives():
    x = layouts(24)
    model, losses = fitted(x, 6, patch=4, code_channels=48)
    exact = PCA(48).fit(patches(x, 4))
    assert np.allclose(model.mean, exact.mean_, atol=1e-5)
    kept = exact.explained_variance_ > 1e-6
    shown = model.components.double().numpy() @ exact.components_.T
    assert np.allclose(np.abs(shown.diagonal())[:10], 1, atol=1e-2)
    variance = model.singular.double().square().numpy() / (len(patches(x, 4)) - 1)
    assert np.allclose(variance[kept], exact.explained_variance_[kept], rtol=1e-2, atol=1e-5)
    assert losses["explained"].item() == pytest.approx(1.0, abs=1e-4)
    assert torch.allclose(model.decode(model.encode(x)), x, atol=1e-3)


def test_few_components_agree_with_another_incremental_fit():
    x = layouts(40)
    model, _ = fitted(x, 5, patch=8, code_channels=6)
    other = IncrementalPCA(6)
    for part in x.chunk(5):
        other.partial_fit(patches(part, 8))
    assert np.allclose(np.abs(model.components.numpy() @ other.components_.T).diagonal(), 1, atol=1e-3)
    assert np.allclose(model.singular, other.singular_values_, rtol=1e-3)
    share = float(other.explained_variance_ratio_.sum())
    assert model.loss(x, Conditions.empty(SPEC, 40))["explained"].item() == pytest.approx(share, abs=2e-3)


def test_a_whole_layout_may_be_one_patch_and_more_components_reconstruct_better():
    x = layouts(32)
    errors = []
    for channels in (1, 4, 16):
        model, losses = fitted(x, 4, patch=None, code_channels=channels)
        assert model.code_shape == (channels, 1, 1)
        errors.append(model.loss(x, Conditions.empty(SPEC, 32))["loss"].item())
        assert 0 < losses["explained"] <= 1
    assert errors[0] > errors[1] > errors[2]


def test_balanced_components_see_a_rare_channel():
    x = layouts(40)
    x[:, 1] *= 0.05  # a channel that varies little, as cycle tracks do

    def explained(balance):
        model = Pca(SPEC, patch=4, code_channels=6, balance=balance).train()
        model.measure_data(x)
        for part in x.chunk(4):
            model.loss(part, Conditions.empty(SPEC, len(part)))
        rest = model.eval().decode(model.encode(x))[:, 1] - x[:, 1]
        return 1 - float(rest.var() / x[:, 1].var())

    assert explained(1.0) > 0.5 > explained(0.0) + 0.2


def test_evaluation_fits_nothing():
    model, _ = fitted(layouts(8), 1, patch=4)
    before = model.components.clone()
    model.loss(layouts(8, seed=1), Conditions.empty(SPEC, 8))
    assert torch.equal(model.components, before)


@pytest.mark.parametrize(
    "options", [{"patch": 5}, {"patch": 0}, {"code_channels": 0}, {"patch": 2, "code_channels": 13}]
)
def test_components_that_cannot_be_are_refused(options):
    with pytest.raises(ConfigError, match="no such principal components"):
        Pca(SPEC, **options)
