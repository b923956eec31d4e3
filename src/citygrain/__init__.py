"""citygrain: generative urban layouts from OpenStreetMap, steered and re-measured in physical units."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from citygrain.version import __version__

if TYPE_CHECKING:
    from citygrain.checkpoint import load
    from citygrain.data.cityraster import CityRaster
    from citygrain.data.layout_folder import open_layout
    from citygrain.data.prepare import prepare
    from citygrain.evaluation.comparison import compare
    from citygrain.generation.georeference import Georeference
    from citygrain.generation.given import Given
    from citygrain.geo.painted_map import PaintedMap
    from citygrain.geo.place import Place
    from citygrain.layouts import Layouts
    from citygrain.measures import measure
    from citygrain.model import Model
    from citygrain.spec import Conditions, LayoutSpec
    from citygrain.training.train import train

# torch's threads wait for each other many times in a layer, and by default on guard: each keeps its core from whatever
# would make the other one ready, so that beside another busy process a layout takes several times as long
# (`benchmarks/threads.py`). OpenMP reads this while torch is loaded; afterwards it comes too late, and nothing is set.
# Processes that are started from here inherit it. What a person has set stays.
if "torch" not in sys.modules:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__all__ = [
    "CityRaster",
    "Conditions",
    "Georeference",
    "Given",
    "LayoutSpec",
    "Layouts",
    "Model",
    "PaintedMap",
    "Place",
    "__version__",
    "compare",
    "load",
    "measure",
    "open_layout",
    "prepare",
    "train",
]

_HOMES = {
    "CityRaster": "citygrain.data.cityraster",
    "Conditions": "citygrain.spec",
    "Georeference": "citygrain.generation.georeference",
    "Given": "citygrain.generation.given",
    "LayoutSpec": "citygrain.spec",
    "Layouts": "citygrain.layouts",
    "Model": "citygrain.model",
    "PaintedMap": "citygrain.geo.painted_map",
    "Place": "citygrain.geo.place",
    "compare": "citygrain.evaluation.comparison",
    "load": "citygrain.checkpoint",
    "measure": "citygrain.measures",
    "open_layout": "citygrain.data.layout_folder",
    "prepare": "citygrain.data.prepare",
    "train": "citygrain.training.train",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `citygrain --help` does not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'citygrain' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names, so that tab completion and `help(citygrain)` know them before their first use."""
    return sorted({*globals(), *__all__})
