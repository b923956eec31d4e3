"""The table of the measures of urban form: name, unit, formula and source of each, and its bias.

Conditions (`citygrain.measures.MEASURES`) are read off the cells. These measures are taken on features, by
`citygrain.evaluation.morphology`.

References
----------
Alexander, C. et al. (1977). *A Pattern Language*.

Araldi, A. & Fusco, G. (2019). From the street to the metropolitan region: Pedestrian perspective in urban fabric
analysis. *Environment and Planning B* 46(7).

Boeing, G. (2019). Urban spatial order: street network orientation, configuration, and entropy. *Applied Network
Science* 4:67. — (2017). OSMnx. *Computers, Environment and Urban Systems* 65.

Crucitti, P., Latora, V. & Porta, S. (2006). Centrality measures in spatial networks of urban streets. *Physical Review
E* 73, 036125.

Fleischmann, M. (2019). momepy: Urban Morphology Measuring Toolkit. *Journal of Open Source Software* 4(43).

Louf, R. & Barthelemy, M. (2014). A typology of street patterns. *Journal of the Royal Society Interface* 11.

Peponis, J., Bafna, S. & Zhang, Z. (2008). The connectivity of streets: reach and directional distance. *Environment
and Planning B* 35(5).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from citygrain.geo.rasterize import Grid
from citygrain.geo.vectorize import NETWORKS

BINS = 36
"""Bins of bearings, 10° each, the first one about north (Boeing 2019)."""

ISLAND_M2 = 500.0
"""Smaller faces of the street network are traffic islands and the ground between carriageways, no blocks."""

JUNCTION_M = 10.0
"""Junctions are one where circles of this radius about them meet, as osmnx consolidates them."""

SIGHT_M = 25.0
"""How far to either side of a street a front is looked for."""

REACHES_M = (400.0, 800.0)
"""Five and ten minutes on foot."""


@dataclass(frozen=True)
class FormMeasure:
    """One measure of urban form: what it is called, what it means, where it comes from.

    Parameters
    ----------
    name
        The key in `Form.values`.
    label
        For axes and tables.
    unit
        `"–"` for pure numbers.
    formula
        In words or symbols.
    source
        Where the measure comes from.
    channels
        The channels it needs; it is left out where one of them is not known.
    group
        What it is about: buildings, blocks, drive, cycle, walk, street edge, open space, reach.
    """

    name: str
    label: str
    unit: str
    formula: str
    source: str
    channels: tuple[str, ...]
    group: str


@dataclass(frozen=True)
class Form:
    """The urban form of a layout.

    Attributes
    ----------
    values
        Measure → value in its unit; NaN where the layout has nothing to measure. Conditions are among them.
    samples
        What the medians are medians of, to be pooled over layouts: `footprint_area`, `compactness`, `elongation`,
        `nearest_building`, `setback`, `block_area`, `block_shape`; and for each network its `…_segment_length`;
        `…_bearing` in degrees from the grid's north, with `…_bearing_length` and `…_bearing_straight`, the length of
        the same ways and the distance between their ends in metres; and `…_degree`, how many ways meet at each node.
    """

    values: dict[str, float]
    samples: dict[str, NDArray[np.float64]] = field(repr=False)


DRIVE = NETWORKS["drive"]
"""Channels of the drive network."""

_MOMEPY = "momepy, Fleischmann (2019)"
_OSMNX = "osmnx, Boeing (2017)"
_BOEING = "Boeing (2019)"


def _of_network(network: str) -> tuple[FormMeasure, ...]:
    rows = (
        ("length_density", "length density", "km/km²", "length / ground", _OSMNX),
        (
            "intersection_density",
            "junction density",
            "1/km²",
            f"nodes where three or more ways meet, those within {2 * JUNCTION_M:g} m of each other one, / ground",
            _OSMNX,
        ),
        ("segment_length", "segment length", "m", "median length of a way between two nodes", _OSMNX),
        ("circuity", "circuity", "–", "Σ length / Σ distance between a way's ends", _OSMNX),
        ("mean_degree", "ways at a node", "–", "mean number of ways that meet at a node", _OSMNX),
        ("dead_ends", "dead ends", "–", "share of nodes with one way", _BOEING),
        ("three_way", "three-way junctions", "–", "share of nodes with three ways", _BOEING),
        ("four_way", "four-way junctions", "–", "share of nodes with four or more ways", _BOEING),
        (
            "orientation_entropy",
            "orientation entropy",
            "nat",
            f"H_o = −Σ p ln p over {BINS} bins of bearings, each way both ways, weighted by length",
            _BOEING,
        ),
        ("orientation_order", "orientation order", "–", "φ = 1 − ((H_o − ln 4) / (ln 36 − ln 4))²", _BOEING),
        (
            "betweenness_gini",
            "betweenness concentration",
            "–",
            "Gini coefficient of the nodes' betweenness, shortest paths by length",
            "Crucitti, Latora & Porta (2006)",
        ),
        ("largest_component", "in the largest component", "–", "share of the length", "networkx"),
    )
    channels = NETWORKS[network]
    return tuple(
        FormMeasure(f"{network}_{name}", f"{label}, {network}", unit, formula, source, channels, network)
        for name, label, unit, formula, source in rows
    )


FORM: Mapping[str, FormMeasure] = MappingProxyType(
    {
        m.name: m
        for m in (
            *(
                FormMeasure(*row, ("building",), "buildings")
                for row in (
                    ("building_count", "buildings", "1/ha", "buildings / ground", _MOMEPY),
                    ("footprint_area", "footprint", "m²", "median area of a building", _MOMEPY),
                    (
                        "compactness",
                        "compactness",
                        "–",
                        "median of area / area of the smallest circle around the building",
                        f"circular compactness, {_MOMEPY}",
                    ),
                    (
                        "elongation",
                        "elongation",
                        "–",
                        "median of width / length of the smallest rectangle around the building; 1 is a square",
                        _MOMEPY,
                    ),
                    (
                        "nearest_building",
                        "distance to the nearest building",
                        "m",
                        "median over the buildings",
                        f"neighbour distance, {_MOMEPY}",
                    ),
                    (
                        "courtyard_share",
                        "courtyards",
                        "–",
                        "Σ area of courtyards / Σ area of buildings with their courtyards",
                        f"courtyard area, {_MOMEPY}",
                    ),
                )
            ),
            *(
                FormMeasure(*row, DRIVE, "blocks")
                for row in (
                    (
                        "block_count",
                        "blocks",
                        "1/km²",
                        f"faces of the street network of at least {ISLAND_M2:g} m² / ground",
                        "Louf & Barthelemy (2014)",
                    ),
                    ("block_area", "block area", "m²", "median", "Louf & Barthelemy (2014)"),
                    ("block_perimeter", "block perimeter", "m", "median", "Louf & Barthelemy (2014)"),
                    (
                        "block_shape",
                        "block shape",
                        "–",
                        "median of area / area of the smallest circle around the block",
                        "Φ, Louf & Barthelemy (2014)",
                    ),
                )
            ),
            *(m for network in ("drive", "cycle", "walk") for m in _of_network(network)),
            *(
                FormMeasure(*row, ("building", *DRIVE), "street edge")
                for row in (
                    (
                        "setback",
                        "setback",
                        "m",
                        "median over the buildings of the distance to the nearest carriageway's edge",
                        "Alexander et al. (1977), pattern 122 Building Fronts",
                    ),
                    (
                        "street_width",
                        "width between fronts",
                        "m",
                        f"mean along the streets of how far one sees to both sides, up to {SIGHT_M:g} m each, added",
                        "street profile, Araldi & Fusco (2019)",
                    ),
                    (
                        "openness",
                        "openness of streets",
                        "–",
                        f"share of the streets' sides that have no building within {SIGHT_M:g} m",
                        "street profile, Araldi & Fusco (2019)",
                    ),
                )
            ),
            FormMeasure(
                "open_patch",
                "largest open patch",
                "ha",
                "area of the largest connected patch of cells that green and water cover by half or more",
                "Alexander et al. (1977), pattern 60 Accessible Green",
                ("green", "water"),
                "open space",
            ),
            *(
                FormMeasure(
                    f"reach_{metres:g}",
                    f"reach on foot within {metres:g} m",
                    "km",
                    "mean over the junctions of the length of streets and footways within that way, inside the layout",
                    "metric reach, Peponis, Bafna & Zhang (2008)",
                    (*DRIVE, *NETWORKS["walk"]),
                    "reach",
                )
                for metres in REACHES_M
            ),
        )
    }
)
"""Every measure of form by name, in the order in which they are listed; the conditions come before them."""


@cache
def read_round_trip() -> dict[str, dict[str, float]]:
    """Return what vectorising does to each measure on average, in its unit: resolution (`"2"`) → measure → bias.

    Measured on real windows against the source's own vectors, by `benchmarks/round_trip.py`.
    """
    text = files("citygrain.evaluation").joinpath("round_trip.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, float]] = json.loads(text)["bias"]
    return found


def find_bias(name: str, resolution_m: float) -> float | None:
    """Return what vectorising adds to a measure on average, in its unit; None where that has not been measured."""
    return read_round_trip().get(f"{resolution_m:g}", {}).get(name)


def ground_km2(grid: Grid) -> float:
    """Ground of a layout in km²."""
    return grid.width * grid.height * grid.resolution_m**2 / 1e6


def median(values: NDArray[np.float64]) -> float:
    """Median of some values; NaN where there are none."""
    return float(np.median(values)) if len(values) else math.nan


def share(part: float, whole: float) -> float:
    """Part of a whole; NaN where there is no whole."""
    return part / whole if whole > 0 else math.nan
