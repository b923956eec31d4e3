"""What a layout is and what can be asked of it: `LayoutSpec`, `Conditions`, `Batch`.

All three are plain values. A spec turns into a plain dict (it travels in checkpoints) and back; conditions are tensors
with their presence beside them, so that "not asked for" is never confused with zero.
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
"""Key of the statistics pooled over every place of the training set."""

NO_PLACE = -1
"""Index that stands for "no place asked for"."""

PERCENTILES = 101
"""Statistics hold the percentiles 0, 1, …, 100 of each condition over the training windows."""

_NAMES = ("channels", "scalars", "maps", "places", "given")
"""Fields of a spec that are lists of names."""


class OutOfRangeWarning(UserWarning):
    """A condition was asked for outside the range seen in training."""


@dataclass(frozen=True)
class LayoutSpec:
    """The layouts a generator makes and the conditions it understands.

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
        Names of the channels that are handed to the model as they are, in the order of `Conditions.given`; they are
        among `channels`, and a layout repeats them exactly. A family that takes some says so in its own spec.
    statistics
        For each scalar, for each place and for `"all"`: its 101 percentiles over the training windows, in its unit.
    raster_format
        Format of the city rasters whose channels these are: in 1, `street` held service roads and `walk` squares. A
        plain spec that does not say it is of 1.

    Raises
    ------
    DataError
        For sizes that are no sizes, channels named twice, given channels that are no channels, or statistics of the
        wrong length.
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
                "Layouts of this format are not known.",
                expected=f"raster_format 1 to {RASTER_FORMAT}",
                got=self.raster_format,
                remedy="use the version of citygrain that made them",
            )
        for name in self.given:
            if name not in self.channels:
                raise DataError("A given channel is no channel of the layouts.", got=name, choices=self.channels)
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
        """Return plain lists, dicts, numbers and strings: safe in YAML, JSON and `weights_only` checkpoints."""
        plain = asdict(self)
        for name in _NAMES:
            plain[name] = list(plain[name])
        plain["statistics"] = {s: {p: list(q) for p, q in by.items()} for s, by in self.statistics.items()}
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> LayoutSpec:
        """Rebuild a spec that `to_dict` wrote; unknown keys are refused."""
        names = {f.name for f in fields(cls)}
        unknown = set(plain) - names
        if unknown:
            raise DataError("Unknown keys in a layout spec.", got=sorted(unknown), choices=sorted(names))
        return cls(**{"raster_format": 1, **plain})

    def quantile(self, scalar: str, percentile: float, place: str = ALL_PLACES) -> float:
        """Value of `scalar`, in its unit, at a percentile (0–100) of a place's training windows."""
        try:
            values = self.statistics[scalar][place]
        except KeyError:
            raise ConditionError(
                f"No statistics of {scalar} for {place}, so a percentile of it means nothing.",
                choices=sorted(self.statistics.get(scalar, {})),
                remedy="ask for a value in physical units",
            ) from None
        position = min(max(percentile, 0.0), 100.0)
        low = min(int(position), PERCENTILES - 2)
        return values[low] + (position - low) * (values[low + 1] - values[low])

    def spread(self, scalar: str) -> float:
        """Standard deviation of `scalar`, in its unit, over the training windows of all places."""
        return pstdev(self.quantile(scalar, percentile + 0.5) for percentile in range(PERCENTILES - 1))


@dataclass
class Conditions:
    """What a batch of layouts is asked to be; every part may be absent.

    Attributes
    ----------
    scalars
        `(B, S)` float, in physical units, in the order of `LayoutSpec.scalars`.
    present
        `(B, S)` bool: which of them are asked for. The others hold any finite number and must not matter.
    place
        `(B,)` int64, index into `LayoutSpec.places`, or -1 where no place is asked for.
    maps
        `(B, M, h, w)` float, in physical units, in the order of `LayoutSpec.maps`.
    maps_present
        `(B, M)` bool.
    given
        `(B, G, H, W)` float in [0, 1]: channels that are handed over as they are, in the order of `LayoutSpec.given`.
    given_present
        `(B,)` bool: whether they are.
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
        """Repeat the whole batch `times` times, in order."""
        return self._apply(lambda t: t.repeat(times, *[1] * (t.ndim - 1)))

    def absent(self) -> Conditions:
        """Return the null condition of the same shape: nothing is asked for. What is given stays, it is no request."""
        return replace(
            self,
            scalars=torch.zeros_like(self.scalars),
            present=torch.zeros_like(self.present),
            place=torch.full_like(self.place, NO_PLACE),
            maps=torch.zeros_like(self.maps),
            maps_present=torch.zeros_like(self.maps_present),
        )

    def drop(self, everything: float, generator: torch.Generator | None = None) -> Conditions:
        """Forget conditions at random, as training does so that any subset can be asked for later.

        Each sample draws how many of its conditions it keeps, from none to all: a user who asks for one thing only is
        as much part of training as one who asks for all. (Dropping each with a fixed probability makes the small
        subsets, which are what people ask for, exponentially rare.)

        Parameters
        ----------
        everything
            Share of samples that lose all their conditions, place included (what classifier-free guidance needs).
        generator
            A CPU generator; the default one when None.
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

    @staticmethod
    def cat(parts: Sequence[Conditions]) -> Conditions:
        """Join batches of conditions."""
        return Conditions(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Conditions)})

    @classmethod
    def empty(cls, spec: LayoutSpec, batch: int) -> Conditions:
        """Ask for nothing, `batch` times."""
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
        """Ask for named conditions in physical units or percentiles, the same for the whole batch.

        Parameters
        ----------
        spec
            What the generator understands.
        batch
            How many layouts.
        asked
            Condition name to value: a number in its unit; `"p90"` for the 90th percentile of the training windows (of
            the asked place, where one is asked for); a `(h, w)` or `(B, h, w)` tensor for a map; a `(B,)` tensor for
            one number a layout; `place` to a place's name. None means "not asked for".
        given
            Channel name to `(H, W)` or `(B, H, W)` in [0, 1], for exactly the channels of `spec.given`; None: none.

        Raises
        ------
        ConditionError
            For a name the spec does not hold, a value that is no number, a map or given channel of the wrong shape, or
            other channels given than the generator takes.

        Warns
        -----
        OutOfRangeWarning
            For a value outside the range seen in training.
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
                "The generator is given other channels.",
                expected=", ".join(spec.given) or "none: a model of pix2pix takes some",
                got=", ".join(given),
            )
        for column, name in enumerate(spec.given):
            cells = (spec.size_px, spec.size_px)
            _check_tensor(name, given[name], (cells, (1, *cells), (len(self), *cells)))
            self.given[:, column] = given[name].to(self.given)
        self.given_present[:] = bool(spec.given)

    def _set_map(self, spec: LayoutSpec, name: str, value: Tensor) -> None:
        if name not in spec.maps:
            raise ConditionError("The generator takes no such map.", got=name, choices=spec.maps)
        cells = (spec.map_px, spec.map_px)
        _check_tensor(name, value, (cells, (1, *cells), (len(self), *cells)))
        column = spec.maps.index(name)
        self.maps[:, column] = value.to(self.maps)
        self.maps_present[:, column] = True


def _check_tensor(name: str, value: Tensor, shapes: Sequence[tuple[int, ...]]) -> None:
    if tuple(value.shape) not in shapes:
        expected = " or ".join(map(str, dict.fromkeys(shapes)))
        raise ConditionError(f"The condition {name} has the wrong shape.", expected=expected, got=tuple(value.shape))
    if not bool(value.isfinite().all()):
        raise ConditionError(f"The condition {name} holds values that are no numbers.", expected="finite values")


def _read_number(spec: LayoutSpec, name: str, value: float | str, place: str) -> float:
    text = str(value).strip()
    is_percentile = text[:1] in {"p", "P"}
    try:
        number = float(text[1:] if is_percentile else text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or (is_percentile and not 0 <= number <= 100):
        raise ConditionError(
            f"The condition {name} is no number.",
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
    """What a data loader yields: layouts `(B, C, H, W)` in [0, 1] and their measured conditions."""

    layout: Tensor
    conditions: Conditions
