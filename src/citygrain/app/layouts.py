"""Layouts drawn on the page, with what was requested and measured, and as files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from PIL import Image

from citygrain.app.shown import Row, format_number, label_of, make_page_sheet, zip_folder
from citygrain.app.studio import Studio, check_seed, check_whole
from citygrain.generation.given import Given
from citygrain.generation.sampling import sample
from citygrain.geo.painted_map import PaintedMap
from citygrain.geo.vector_files import write_layers
from citygrain.layouts import Layouts
from citygrain.protocols import Sampler

MOST_LAYOUTS, MOST_ATTEMPTS = 8, 8

HEADINGS = ("condition", "unit", "requested", "measured", "lowest – highest")


@dataclass(frozen=True)
class Drawn:
    """Layouts as the page shows them.

    Attributes
    ----------
    picture
        All of them in map colours.
    rows
        In the columns of `HEADINGS`: what was requested and what was measured.
    zipped, vectors
        GeoTIFFs, and the same as GeoPackage.
    layouts
        The layouts.
    """

    picture: Image.Image
    rows: list[Row]
    zipped: Path
    vectors: Path
    layouts: Layouts


def draw_layouts(
    studio: Studio,
    requested: Mapping[str, float | PaintedMap],
    folder: Path,
    *,
    place: str | None = None,
    given: str | None = None,
    seed: object = 0,
    n: object = 4,
    attempts: object = 1,
    sampler: Sampler | None = None,
) -> Drawn:
    """Draw layouts, measure them, and write them as `citygrain sample` does.

    Parameters
    ----------
    studio
        The model.
    requested
        Condition → value in its unit, or a map; conditions that are not in it are left to the model.
    folder
        An empty folder of this request alone, that the files are written to.
    place
        A training place that they are to be like; None for any.
    given
        The prepared place that a model's given channels are taken from; None for the first training place.
    seed
        Layout i is drawn with seed + i.
    n
        How many.
    attempts
        How often a layout that misses its request is drawn, see `citygrain.generation.windows.draw`.
    sampler
        Another than the model's own.

    Raises
    ------
    ConfigError
        For another number of layouts or attempts than there may be, or a seed that is none.
    ConditionError, CapabilityError, DataError
        For what the model does not know, cannot do, or is not given.
    """
    spec = studio.spec
    first = check_seed(seed)
    count = check_whole(n, "the number of layouts", 1, MOST_LAYOUTS)
    times = check_whole(attempts, "the number of attempts", 1, MOST_ATTEMPTS)
    where = given or place or spec.places[0]
    with studio.turn, torch.no_grad():
        layouts = sample(
            studio.generator,
            count,
            conditions={**requested, "place": place},
            seed=first,
            attempts=times,
            sampler=sampler,
            given=Given(where, "test" if where in spec.places else "all"),
            data=studio.data,
            show_progress=False,
        )
        layouts.save(folder / "layouts")
        write_layers(layouts.vectors(), "gpkg", folder)
        picture = make_page_sheet(layouts.cells, spec, [f"seed {s}" for s in layouts.seeds])
    zipped = zip_folder(folder / "layouts", folder / "layouts.zip")
    return Drawn(picture, rows_of(layouts), zipped, folder / "layouts.gpkg", layouts)


def rows_of(layouts: Layouts) -> list[Row]:
    """Return what was requested and measured, in the columns of `HEADINGS`; requested conditions come first."""
    rows = []
    for name in sorted(layouts.measured, key=lambda name: name not in layouts.requested):
        values, requested = layouts.measured[name], layouts.requested.get(name)
        said = "" if requested is None else format_number(requested[0])
        spread = f"{values.min():.3g} – {values.max():.3g}" if len(values) > 1 else ""
        rows.append([*label_of(name), said, format_number(values.mean()), spread])
    if layouts.requested_maps is None:
        return rows
    maps = [_row_of_map(str(name), row) for name, row in layouts.map_comparison().iterrows()]
    return maps + rows


def _row_of_map(name: str, row: pd.Series[Any]) -> Row:
    """Return what was requested and measured on the cells of a map."""
    label, unit = label_of(name)
    means = [format_number(row[key]) for key in ("requested", "measured")]
    return [f"map of {label}", unit, *means, f"mean error {format_number(row['mean_error'])}, R² {row['r2']:.2f}"]


def read_map(file: Path, black: float | None, white: float | None) -> PaintedMap:
    """Return an uploaded map. Of a picture, one of black and white may be left out: black is 0 then, white 1."""
    if black is None and white is None:
        return PaintedMap(file)
    return PaintedMap(file, black=0.0 if black is None else black, white=1.0 if white is None else white)
