"""Form of real windows, measured on their cells, against the same measures of the source's own lines and polygons."""

import numpy as np
import pytest
import shapely

from citygrain.evaluation.form import FORM
from citygrain.evaluation.morphology import measure_form, measure_vectors
from citygrain.geo.layers import CHANNEL_NAMES
from citygrain.geo.vectorize import AREAS, node_features

pytestmark = pytest.mark.slow

SHARE = {"drive_length_density": 0.1, "drive_intersection_density": 0.2, "block_count": 0.2, "reach_400": 0.2}
"""Measure → how far the mean over a city's windows may be off, as a share of the source's."""

OFF = {"drive_circuity": 0.03, "openness": 0.05, "street_width": 3.0, "compactness": 0.05, "elongation": 0.05}
"""The same, in the measure's unit."""


def test_form_of_cells_is_that_of_the_source(city):
    features, windows = city
    shapes = {}
    for channel in CHANNEL_NAMES:
        found = np.asarray(features[channel].geometry, object)
        shapes[channel] = found[shapely.get_dimensions(found) == (2 if channel in AREAS else 1)]
    ours, source = [], []
    for grid, layout in windows:
        ours.append(measure_form(layout, CHANNEL_NAMES, grid).values)
        source.append(measure_vectors(node_features(shapes, grid)).values)
    assert set(FORM) <= set(ours[0])

    def mean(of, name):
        values = np.array([row[name] for row in of])
        return values[np.isfinite(values)].mean()

    for name, share in SHARE.items():
        assert mean(ours, name) == pytest.approx(mean(source, name), rel=share), name
    for name, off in OFF.items():
        assert mean(ours, name) == pytest.approx(mean(source, name), abs=off), name
