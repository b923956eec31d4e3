"""The view in which layouts are judged: in larger cells than they are drawn in, and in some of their channels.

A model that draws cells of 2 m is judged in cells of 8 m beside models that draw these. A model of all channels is
judged by its ways beside one that draws nothing else. Real windows and drawn layouts are seen in the same view, so all
that judges them is as for a model that draws like this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from citygrain.data.trained_on import TrainedOn
from citygrain.errors import ConfigError
from citygrain.evaluation.gather import Cells
from citygrain.geo.layers import find_parts, list_earlier_channels
from citygrain.layouts import Layouts
from citygrain.networks.frame import find_condition
from citygrain.spec import LayoutSpec


@dataclass(frozen=True)
class View:
    """How judges see the layouts of a model.

    Attributes
    ----------
    drawn
        The layouts that the model draws.
    seen
        The layouts that judges see, with the conditions that these allow.
    """

    drawn: LayoutSpec
    seen: LayoutSpec

    @classmethod
    def of(
        cls,
        spec: LayoutSpec,
        resolution_m: float | None = None,
        channels: Sequence[str] | None = None,
        raster_format: int | None = None,
    ) -> View:
        """Choose a view of the layouts of a model.

        Parameters
        ----------
        spec
            Of the model.
        resolution_m
            Edge of a cell: a whole multiple of the model's. None for the model's own.
        channels
            Names of the channels, in order. None for all that the model draws.
        raster_format
            Format of the channels; in an earlier one, channels that were one channel then are added up. None for the
            model's own.

        Raises
        ------
        ConfigError
            For cells that are no whole number of the model's, or a view that shows nothing that the model draws.
        """
        cell = spec.resolution_m if resolution_m is None else float(resolution_m)
        factor = find_factor(spec.resolution_m, cell)
        if spec.size_px % factor:
            raise ConfigError(
                "The layouts are no whole number of such cells.",
                expected=f"a resolution that divides {spec.extent_m:g} m",
                got=f"resolution_m={cell:g}",
            )
        form = spec.raster_format if raster_format is None else raster_format
        if not 1 <= form <= spec.raster_format:
            raise ConfigError(
                "Layouts can be seen in the channels of their own format, or of an earlier one.",
                expected=f"raster_format 1 to {spec.raster_format}",
                got=form,
            )
        known = spec.channels if form == spec.raster_format else list_earlier_channels(spec.channels, form)
        chosen = known if channels is None else tuple(channels)
        if len(set(chosen)) < len(chosen) or not set(chosen) <= set(known):
            raise ConfigError(
                "Layouts are judged in some of the channels that they have.", got=list(chosen), choices=known
            )
        if set(chosen) <= set(spec.given):
            raise ConfigError(
                "There is nothing to judge: the model draws none of these channels.",
                got=list(chosen),
                choices=[name for name in known if name not in spec.given],
            )
        if (factor, chosen, form) == (1, spec.channels, spec.raster_format):
            return cls(spec, spec)
        scalars = tuple(name for name in spec.scalars if _is_the_same(name, chosen, form, spec.raster_format))
        seen = LayoutSpec(
            channels=chosen,
            size_px=spec.size_px // factor,
            resolution_m=cell,
            scalars=scalars,
            places=spec.places,
            given=tuple(name for name in spec.given if name in chosen),
            statistics={name: by for name, by in spec.statistics.items() if name in scalars},
            raster_format=form,
        )
        return cls(spec, seen)

    @property
    def is_own(self) -> bool:
        """Whether layouts are judged as they are drawn."""
        return self.drawn == self.seen

    def show(self, layouts: Layouts) -> Layouts:
        """Return the layouts of the model as judges see them."""
        return convert_layouts(layouts, self.seen.resolution_m, self.seen.channels, self.seen.raster_format)

    def show_cells(self, cells: Cells) -> Cells:
        """Return the cells `(N, C, H, W)` of layouts, or of real windows, as judges see them."""
        spec = self.drawn
        return self.show(Layouts(cells, spec.channels, spec.resolution_m, raster_format=spec.raster_format)).cells

    def show_windows(self, trained_on: TrainedOn) -> TrainedOn:
        """Return the windows of a model's training as a model knows them that draws what judges see.

        They are read in the cells of the view, which all places must have.
        """
        rules = replace(trained_on.rules, size_px=self.seen.size_px, resolution_m=self.seen.resolution_m)
        return trained_on if self.is_own else replace(trained_on, spec=self.seen, rules=rules)


def find_factor(finer_m: float, coarser_m: float) -> int:
    """Return how many cells lie along the edge of a larger one.

    Raises
    ------
    ConfigError
        When it is no whole number.
    """
    factor = round(coarser_m / finer_m)
    if factor < 1 or abs(factor * finer_m - coarser_m) > 1e-6 * coarser_m:
        raise ConfigError(
            "Layouts are judged in their own cells, or in larger ones that are a whole number of them.",
            expected=f"{finer_m:g} m, or a whole multiple of it",
            got=f"resolution_m={coarser_m:g}",
        )
    return factor


def convert_layouts(layouts: Layouts, resolution_m: float, channels: Sequence[str], raster_format: int) -> Layouts:
    """Return layouts with larger cells, each the mean of those that it is made of, in some of their channels.

    Raises
    ------
    ConfigError
        When a larger cell is no whole number of the layouts' cells, or a layout no whole number of larger ones.
    """
    factor = find_factor(layouts.resolution_m, resolution_m)
    if factor > 1:
        n, bands, height, width = layouts.cells.shape
        if height % factor or width % factor:
            raise ConfigError(
                "The layouts are no whole number of such cells.",
                expected=f"edges that {factor} divides",
                got=f"{height} × {width} cells of {layouts.resolution_m:g} m",
            )
        blocks = layouts.cells.reshape(n, bands, height // factor, factor, width // factor, factor)
        summed = blocks.sum((3, 5), dtype=np.uint32)
        layouts = replace(
            layouts,
            cells=((summed + factor**2 // 2) // factor**2).astype(np.uint8),
            resolution_m=resolution_m,
            grids=tuple(grid.coarser(factor) for grid in layouts.grids),
            given=None,
            ways=(),  # they are lines of the cells that they were drawn in
        )
    return layouts.select(channels, raster_format)


def _is_the_same(condition: str, channels: Sequence[str], raster_format: int, own_format: int) -> bool:
    """Whether some channels allow a condition, and mean the same by it as the model does."""
    needs = find_condition(condition).channels
    added_up = raster_format != own_format and any(len(find_parts(name, raster_format)) > 1 for name in needs)
    return set(needs) <= set(channels) and not added_up
