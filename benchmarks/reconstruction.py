"""What a codec keeps of real windows: variance and edges of every channel, and the form of what is decoded.

    python benchmarks/reconstruction.py reference/cities_64 copenhagen los_angeles --windows 40

The first test windows of prepared places go through the code of a model and back. A mean error says little about
thin streets, edges say more (F-score within a cell, see citygrain.evaluation.boundary), and a drive network that falls
to pieces in its own codec cannot come out whole of a model that draws codes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from citygrain.checkpoint import load
from citygrain.data.dataset import CityWindows, find_place
from citygrain.data.rules import Rules
from citygrain.evaluation.boundary import score_boundaries
from citygrain.evaluation.form import FORM
from citygrain.evaluation.morphology import measure_form
from citygrain.geo.rasterize import Grid
from citygrain.latent import find_codec

SHOWN = (
    "building_count", "drive_length_density", "drive_intersection_density", "drive_dead_ends", "drive_four_way",
    "drive_largest_component", "cycle_largest_component",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("places", nargs="+")
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--data", type=Path, default=Path("data/cities"))
    args = parser.parse_args()

    codec = find_codec(load(args.checkpoint))
    spec = codec.spec
    rules = Rules(spec.size_px, spec.resolution_m)
    folders = [find_place(args.data, place) for place in args.places]
    windows = CityWindows(folders, "test", rules, channels=spec.channels, raster_format=spec.raster_format)
    real = windows.__getitems__(range(min(args.windows, len(windows)))).layout.float() / 255
    with torch.no_grad():
        decoded = codec.decode(codec.encode(real))
    edges = score_boundaries(decoded, real, spec.channels, spec.resolution_m)
    for i, name in enumerate(spec.channels):
        rest = (decoded[:, i] - real[:, i]).square().mean() / real[:, i].var()
        print(f"{name:30} variance explained {1 - float(rest):6.2f}  edges met {edges[name].f:6.2f}")
    grid = Grid("EPSG:32632", 500_000, 6_000_000, spec.resolution_m, spec.size_px, spec.size_px)
    forms = [
        [
            measure_form((layout.numpy() * 255).round().astype(np.uint8), spec.channels, grid).values
            for layout in layouts
        ]
        for layouts in (real, decoded)
    ]
    for name in SHOWN:
        before, after = (np.nanmean([values[name] for values in form]) for form in forms)
        print(f"{FORM[name].label:30} real {before:8.2f}  decoded {after:8.2f}  {FORM[name].unit}")


if __name__ == "__main__":
    main()
