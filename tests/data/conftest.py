"""Two small invented cities, prepared for real."""

from dataclasses import dataclass, field

import geopandas as gpd
import numpy as np
import pytest
import shapely
import torch

from citygrain.data.prepare import prepare
from citygrain.geo.place import Place
from citygrain.geo.sources import Features


@dataclass(frozen=True)
class Invented:
    """Streets every `spacing_m`, a building in each block, a park in the west, sea without data in the far east."""

    spacing_m: float
    unknown: dict = field(default_factory=dict)

    def features(self, place, progress=None):
        left, bottom, right, top = place.bounds_utm
        across, down = np.arange(left, right, self.spacing_m), np.arange(bottom, top, self.spacing_m)
        streets = [shapely.box(x, bottom, x + 8, top) for x in across]
        streets += [shapely.box(left, y, right, y + 8) for y in down]
        edge = self.spacing_m * 0.6
        x, y = (v.ravel() + self.spacing_m * 0.2 for v in np.meshgrid(across, down))
        houses = shapely.box(x, y, x + edge, y + edge)
        land = shapely.box(left, bottom, left + 0.8 * (right - left), top)
        park = shapely.box(left, bottom, left + 0.2 * (right - left), top)

        def layer(shapes):
            n = len(shapes)
            return gpd.GeoDataFrame({"kind": ["x"] * n, "width_m": [np.nan] * n}, geometry=list(shapes), crs=place.crs)

        return Features(
            {
                "building": layer(shapely.difference(houses, park)),
                "street": layer(streets),
                "square": layer([shapely.box(left, bottom, right, bottom + 300)]),
                "green": layer([park]),
            },
            place=place,
            provenance={"kind": "invented"},
            valid=land,
            unknown=self.unknown,
        )


PLACES = {
    "squareville": (Invented(96.0, {"parking": "nobody looked"}), 2.0, (12.5, 55.6, 12.56, 55.63)),
    "wideham": (Invented(160.0, {"rail": "no rails were drawn"}), 4.0, (24.9, 60.1, 24.97, 60.14)),
}


@pytest.fixture(scope="session")
def cities(tmp_path_factory):
    """Folder with both: squareville at 2 m without parking, wideham at 4 m without rail."""
    root = tmp_path_factory.mktemp("cities")
    for name, (source, resolution_m, bbox) in PLACES.items():
        place = Place.from_bbox(name, bbox)
        prepare(place, source, root, resolution_m=resolution_m, block_m=600, buffer_m=64, workers=1)
    return root


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small tensors: threads only wait for each other
    yield
    torch.set_num_threads(threads)
