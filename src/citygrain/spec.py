"""The language of layouts and requests: `LayoutSpec`, `Conditions`, `Batch`.

All three are plain values. A spec can be turned into a plain dict, which checkpoints store, and back. Conditions are
tensors, with a mask that tells what is present. So "not asked for" is never confused with zero.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from statistics import pstdev
from typing import Any, NamedTuple

import torch
from torch import Tensor

from citygrain.errors import ConditionError, DataError
from citygrain.geo.layers import RASTER_FORMAT

ALL_PLACES = "all"
"""Key of the statistics over all places of the training set."""

NO_PLACE = -1
"""Index that stands for "no place asked for"."""

PERCENTILES = 101
"""Number of percentiles in statistics: 0, 1, …, 100, of each condition over the training windows."""

_NAMES = ("channels", "scalars", "maps", "places", "given")
"""Fields of a spec that are lists of names."""


class OutOfRangeWarning(UserWarning):
    """A condition was asked for outside its range in training."""


@dataclass(frozen=True)
class LayoutSpec:
    """The layouts that a generator makes, and the conditions that it understands.

    Parameters
    ----------
    channels
        Names of the channels, in order: a layout is `(C, H, W)` with values in [0, 1], the share of each cell covered.
    size_px
        Height and width of a layout in cells.
    resolution_m
        Edge of a cell in metres.
    scalars
        Names of the scalar conditions, in the order of `Conditions.scalars`.
    maps
        Names of the map conditions, in the order of `Conditions.maps`.
    map_px
        Height and width of a condition map in cells; 0 where there are none.
    places
        Names of the places, in the order of `Conditions.place`.
    given
        Names of the channels that are given to the model, in the order of `Conditions.given`. They are in `channels`,
        and a layout repeats them exactly. Families that need given channels name them in their own spec.
    statistics
        The 101 percentiles of each scalar over the training windows, in its unit, for each place and for `"all"`.
    raster_format
        Format of the city rasters with these channels. In format 1, `street` contained service roads, and `walk`
        contained squares. A plain spec without a format has format 1.

    Raises
    ------
    DataError
        When a size is not positive, a name occurs twice, a given channel is not among the channels, or statistics have
        the wrong length.
    """

    channels: tuple[str, ...]
    size_px: int
    resolution_m: float
    scalars: tuple[str, ...] = ()
    maps: tuple[str, ...] = ()
    map_px: int = 0
    places: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    statistics: Mapping[str, Mapping[str, tuple[float, ...]]] = field(default_factory=dict)
    raster_format: int = RASTER_FORMAT

    def __post_init__(self) -> None:
        for name in _NAMES:
            value = tuple(getattr(self, name))
            object.__setattr__(self, name, value)
            if len(set(value)) != len(value):
                raise DataError(f"A layout spec names some of its {name} twice.", got=list(value))
        if not self.channels or self.size_px < 1 or not self.resolution_m > 0:
            raise DataError(
                "A layout needs at least one channel, a positive size and a positive resolution.",
                got=f"channels={self.channels}, size_px={self.size_px}, resolution_m={self.resolution_m}",
            )
        if self.raster_format not in range(1, RASTER_FORMAT + 1):
            raise DataError(
                "This format of layouts is unknown.",
                expected=f"raster_format 1 to {RASTER_FORMAT}",
                got=self.raster_format,
                remedy="use the version of citygrain that made them",
            )
        for name in self.given:
            if name not in self.channels:
                raise DataError("A given channel is not a channel of the layouts.", got=name, choices=self.channels)
        if bool(self.maps) != bool(self.map_px):
            raise DataError("Map conditions and `map_px` go together.", got=f"maps={self.maps}, map_px={self.map_px}")
        plain = {s: {p: tuple(float(v) for v in q) for p, q in by.items()} for s, by in self.statistics.items()}
        object.__setattr__(self, "statistics", plain)
        for scalar, by in plain.items():
            for place, quantiles in by.items():
                if len(quantiles) != PERCENTILES:
                    raise DataError(
                        f"Statistics of {scalar} in {place} are damaged.",
                        expected=f"{PERCENTILES} percentiles",
                        got=len(quantiles),
                    )

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(C, H, W)` of one layout."""
        return len(self.channels), self.size_px, self.size_px

    @property
    def extent_m(self) -> float:
        """Edge of a layout in metres."""
        return self.size_px * self.resolution_m

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as plain lists, dicts, numbers and strings, for YAML, JSON and `weights_only` checkpoints."""
        plain = asdict(self)
        for name in _NAMES:
            plain[name] = list(plain[name])
        plain["statistics"] = {s: {p: list(q) for p, q in by.items()} for s, by in self.statistics.items()}
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> LayoutSpec:
        """Rebuild a spec from `to_dict`. Unknown keys are refused."""
        names = {f.name for f in fields(cls)}
        unknown = set(plain) - names
        if unknown:
            raise DataError("Unknown keys in a layout spec.", got=sorted(unknown), choices=sorted(names))
        return cls(**{"raster_format": 1, **plain})

    def quantile(self, scalar: str, percentile: float, place: str = ALL_PLACES) -> float:
        """Return the value of a scalar, in its unit, at a percentile (0–100) of the training windows of a place."""
        try:
            values = self.statistics[scalar][place]
        except KeyError:
            raise ConditionError(
                f"There are no statistics of {scalar} for {place}, so a percentile has no meaning.",
                choices=sorted(self.statistics.get(scalar, {})),
                remedy="ask for a value in physical units",
            ) from None
        position = min(max(percentile, 0.0), 100.0)
        low = min(int(position), PERCENTILES - 2)
        return values[low] + (position - low) * (values[low + 1] - values[low])

    def spread(self, scalar: str) -> float:
        """Return the standard deviation of a scalar, in its unit, over the training windows of all places."""
        return pstdev(self.quantile(scalar, percentile + 0.5) for percentile in range(PERCENTILES - 1))


@dataclass
class Conditions:
    """The conditions of a batch of layouts. Each condition can be absent.

    Attributes
    ----------
    scalars
        `(B, S)` float, in physical units, in the order of `LayoutSpec.scalars`.
    present
        `(B, S)` bool: which scalars are asked for. The others have any finite value, which must not have an effect.
    place
        `(B,)` int64: index into `LayoutSpec.places`, or -1 where no place is asked for.
    maps
        `(B, M, h, w)` float, in physical units, in the order of `LayoutSpec.maps`. NaN leaves a cell open, which only
        a cascade with densities can.
    maps_present
        `(B, M)` bool: which maps are asked for.
    given
        `(B, G, H, W)` float in [0, 1]: the given channels, in the order of `LayoutSpec.given`.
    given_present
        `(B,)` bool: whether channels are given.
    """

    scalars: Tensor
    present: Tensor
    place: Tensor
    maps: Tensor
    maps_present: Tensor
    given: Tensor
    given_present: Tensor

    def __len__(self) -> int:
        return len(self.scalars)

    def _apply(self, function: Any) -> Conditions:
        return Conditions(**{f.name: function(getattr(self, f.name)) for f in fields(self)})

    def __getitem__(self, index: slice | Tensor) -> Conditions:
        return self._apply(lambda t: t[index])

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Conditions:
        """Move every tensor to a device."""
        return self._apply(lambda t: t.to(device, non_blocking=non_blocking))

    def repeat(self, times: int) -> Conditions:
        """Repeat the whole batch a number of times, one copy after another."""
        return self._apply(lambda t: t.repeat(times, *[1] * (t.ndim - 1)))

    def absent(self) -> Conditions:
        """Return conditions of the same shape that ask for nothing. Given channels stay: they are no requests."""
        return replace(
            self,
            scalars=torch.zeros_like(self.scalars),
            present=torch.zeros_like(self.present),
            place=torch.full_like(self.place, NO_PLACE),
            maps=torch.zeros_like(self.maps),
            maps_present=torch.zeros_like(self.maps_present),
        )

    def drop(self, everything: float, generator: torch.Generator | None = None) -> Conditions:
        """Drop conditions at random. Training does this, so that any subset can be asked for later.

        Each sample first draws the share of conditions that it keeps, from none to all. So requests for a single
        condition are as common in training as requests for all. (If each condition were dropped with a fixed
        probability, small subsets would be exponentially rare, and these are what people ask for.)

        Parameters
        ----------
        everything
            Share of samples that lose all their conditions and the place. Classifier-free guidance needs them.
        generator
            A CPU generator. None takes the default one.
        """
        batch = len(self)
        device = self.scalars.device

        def uniform(*shape: int) -> Tensor:
            return torch.rand(batch, *shape, generator=generator).to(device)

        kept_share = torch.where(uniform(1) < everything, 0.0, uniform(1))
        kept_place = (uniform() < 0.5) & (kept_share[:, 0] > 0)
        return replace(
            self,
            present=self.present & (uniform(self.present.shape[1]) < kept_share),
            place=torch.where(kept_place, self.place, torch.full_like(self.place, NO_PLACE)),
            maps_present=self.maps_present & (uniform(self.maps_present.shape[1]) < kept_share),
        )

    def translate(self, spec: LayoutSpec, other: LayoutSpec) -> Conditions:
        """Return the requests as another generator understands them. No channels are given.

        Parameters
        ----------
        spec
            Of the generator that these are conditions of.
        other
            Of the other generator. What it does not know it is not asked for: conditions, maps and places.
        """
        scalars = [spec.scalars.index(name) if name in spec.scalars else -1 for name in other.scalars]
        maps = [spec.maps.index(name) if name in spec.maps else -1 for name in other.maps]
        places = [other.places.index(name) if name in other.places else NO_PLACE for name in spec.places]
        known = replace(
            Conditions.empty(other, len(self)).to(self.scalars.device),
            scalars=_take_columns(self.scalars, scalars),
            present=_take_columns(self.present, scalars),
            place=self.place.new_tensor([*places, NO_PLACE])[self.place],
        )
        if not set(maps) - {-1}:
            return known
        return replace(known, maps=_take_columns(self.maps, maps), maps_present=_take_columns(self.maps_present, maps))

    @staticmethod
    def cat(parts: Sequence[Conditions]) -> Conditions:
        """Join batches of conditions."""
        return Conditions(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Conditions)})

    @classmethod
    def empty(cls, spec: LayoutSpec, batch: int) -> Conditions:
        """Make conditions for a batch that ask for nothing."""
        return cls(
            scalars=torch.zeros(batch, len(spec.scalars)),
            present=torch.zeros(batch, len(spec.scalars), dtype=torch.bool),
            place=torch.full((batch,), NO_PLACE, dtype=torch.int64),
            maps=torch.zeros(batch, len(spec.maps), spec.map_px, spec.map_px),
            maps_present=torch.zeros(batch, len(spec.maps), dtype=torch.bool),
            given=torch.zeros(batch, len(spec.given), spec.size_px, spec.size_px),
            given_present=torch.zeros(batch, dtype=torch.bool),
        )

    @classmethod
    def request(
        cls,
        spec: LayoutSpec,
        batch: int,
        asked: Mapping[str, Any],
        given: Mapping[str, Tensor] | None = None,
    ) -> Conditions:
        """Make the conditions of a request, in physical units or percentiles, the same for the whole batch.

        Parameters
        ----------
        spec
            Spec of the generator, with the conditions it understands.
        batch
            Number of layouts.
        asked
            Name of a condition → value. A value is a number in the unit of the condition; `"p90"` for the 90th
            percentile of the training windows (of the requested place, if there is one); a `(B,)` tensor with one
            number for each layout; or, for a map, a `(h, w)` or `(B, h, w)` tensor. `place` has the name of a place.
            None means "not asked for".
        given
            Name of a channel → `(H, W)` or `(B, H, W)` in [0, 1], for exactly the channels of `spec.given`. None gives
            no channels.

        Raises
        ------
        ConditionError
            When the spec does not have a name, a value is not a number, a map or given channel has the wrong shape, or
            the given channels are not those of the spec.

        Warns
        -----
        OutOfRangeWarning
            When a value lies outside its range in training.
        """
        conditions = cls.empty(spec, batch)
        wanted = {name: value for name, value in asked.items() if value is not None}
        place = wanted.pop("place", None)
        statistics_of = ALL_PLACES
        if place is not None:
            if place not in spec.places:
                raise ConditionError("The generator does not know this place.", got=place, choices=spec.places)
            conditions.place[:] = spec.places.index(str(place))
            statistics_of = str(place)
        for name, value in wanted.items():
            if isinstance(value, Tensor) and value.ndim >= 2:
                conditions._set_map(spec, name, value)  # noqa: SLF001
                continue
            if name not in spec.scalars:
                raise ConditionError(
                    "The generator does not know this condition.",
                    got=name,
                    choices=[*spec.scalars, *(["place"] if spec.places else [])],
                    remedy="leave it out, or train with a data set whose places all know it",
                )
            column = spec.scalars.index(name)
            if isinstance(value, Tensor):
                _check_tensor(name, value, ((), (1,), (batch,)))
                number: float | Tensor = value
            else:
                number = _read_number(spec, name, value, statistics_of)
            conditions.scalars[:, column] = torch.as_tensor(number, dtype=torch.float32)
            conditions.present[:, column] = True
            _warn_out_of_range(spec, name, conditions.scalars[:, column])
        if given is not None:
            conditions._set_given(spec, given)  # noqa: SLF001
        return conditions

    def _set_given(self, spec: LayoutSpec, given: Mapping[str, Tensor]) -> None:
        if set(given) != set(spec.given):
            raise ConditionError(
                "These are not the given channels that the generator takes.",
                expected=", ".join(spec.given) or "none: this model makes all channels itself",
                got=", ".join(given),
            )
        for column, name in enumerate(spec.given):
            cells = (spec.size_px, spec.size_px)
            _check_tensor(name, given[name], (cells, (1, *cells), (len(self), *cells)))
            self.given[:, column] = given[name].to(self.given)
        self.given_present[:] = bool(spec.given)

    def _set_map(self, spec: LayoutSpec, name: str, value: Tensor) -> None:
        if name not in spec.maps:
            raise ConditionError("The generator does not know this map.", got=name, choices=spec.maps)
        cells = (spec.map_px, spec.map_px)
        _check_tensor(name, value, (cells, (1, *cells), (len(self), *cells)))
        column = spec.maps.index(name)
        self.maps[:, column] = value.to(self.maps)
        self.maps_present[:, column] = True


def _take_columns(values: Tensor, columns: Sequence[int]) -> Tensor:
    """Return some columns of `(B, N, …)`; -1 stands for a column of zeros."""
    return torch.cat([values, values.new_zeros(len(values), 1, *values.shape[2:])], 1)[:, list(columns)]


def _check_tensor(name: str, value: Tensor, shapes: Sequence[tuple[int, ...]]) -> None:
    if tuple(value.shape) not in shapes:
        expected = " or ".join(map(str, dict.fromkeys(shapes)))
        raise ConditionError(f"The condition {name} has the wrong shape.", expected=expected, got=tuple(value.shape))
    if not bool(value.isfinite().all()):
        raise ConditionError(f"The condition {name} has values that are not numbers.", expected="finite values")


def _read_number(spec: LayoutSpec, name: str, value: float | str, place: str) -> float:
    text = str(value).strip()
    is_percentile = text[:1] in {"p", "P"}
    try:
        number = float(text[1:] if is_percentile else text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or (is_percentile and not 0 <= number <= 100):
        raise ConditionError(
            f"The condition {name} is not a number.",
            expected="a number in its unit, such as 0.4, or a percentile of the training windows, p0 … p100",
            got=value,
        )
    return spec.quantile(name, number, place) if is_percentile else number


def _warn_out_of_range(spec: LayoutSpec, name: str, values: Tensor) -> None:
    seen = spec.statistics.get(name, {}).get(ALL_PLACES)
    if seen is None:
        return
    low, high = seen[0], seen[-1]
    slack = 1e-6 * max(abs(low), abs(high), 1e-9)
    if bool(((values < low - slack) | (values > high + slack)).any()):
        warnings.warn(
            f"{name} was asked for between {values.min():.4g} and {values.max():.4g}; training saw {low:.4g} to "
            f"{high:.4g}. Expect less of the layouts the further it is from that range.",
            OutOfRangeWarning,
            stacklevel=3,
        )


class Batch(NamedTuple):
    """A batch of a data loader: layouts `(B, C, H, W)` in [0, 1] and the conditions measured on them."""

    layout: Tensor
    conditions: Conditions
