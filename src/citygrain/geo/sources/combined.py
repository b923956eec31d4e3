"""A source made of several: streets of one, buildings of another.

One is the base. Each part gives the channels that it knows, or those that it is told to give; the base gives the rest.
Known is what the base and all parts know: the place ends where the first of them does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from citygrain.errors import CitygrainError, ConfigError, SourceError
from citygrain.geo.layers import CHANNEL_NAMES
from citygrain.geo.place import Place
from citygrain.geo.sources import Features, Progress, Source
from citygrain.geo.sources.identity import identify_source


@dataclass(frozen=True)
class Combined:
    """Features of a place, each channel from a source of its own.

    Parameters
    ----------
    base
        Gives every channel that no part gives. A place without a bbox is where it is.
    parts
        Name → source.
    channels
        Channel → name of the part that gives it. A part that is not named here gives all channels that it knows.

    Raises
    ------
    ConfigError
        When there are no parts, or `channels` names a channel or a part that does not exist.
    """

    base: Source
    parts: Mapping[str, Source]
    channels: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if not self.parts:
            raise ConfigError(
                "A combined source needs at least one part.",
                expected="+source@source.parts.buildings=layers source.parts.buildings.path=… and so on",
                got="source.parts is empty",
            )
        for name, source in [("base", self.base), *self.parts.items()]:
            if not isinstance(source, Source):
                raise ConfigError(
                    f"{name} of a combined source is no source.",
                    got=source,
                    remedy=f"choose one: source@source.{name}=…, or +source@source.parts.{name}=…",
                )
        for channel, name in (self.channels or {}).items():
            if channel not in CHANNEL_NAMES:
                raise ConfigError("There is no such channel to combine.", got=channel, choices=CHANNEL_NAMES)
            if name not in self.parts:
                raise ConfigError(f"There is no such part to give {channel}.", got=name, choices=self.parts)

    def identity(self) -> dict[str, Any]:
        """Return what tells it apart: all that its sources are known by."""
        return {
            "base": identify_source(self.base),
            "parts": {name: identify_source(source) for name, source in self.parts.items()},
            "channels": dict(self.channels or {}),
        }

    def features(self, place: Place, progress: Progress | None = None) -> Features:
        """Return the features of a place.

        Raises
        ------
        SourceError
            When one of the sources is at fault, has nothing in common with the others, or gives nothing.
        ConfigError
            When two parts know the same channel and none is told to give it, or one is told to give what it does not
            know.
        """
        report = progress or (lambda _fraction, _message: None)
        sources = {"base": self.base, **self.parts}
        found: dict[str, Features] = {}
        for k, (name, source) in enumerate(sources.items()):

            def part(done: float, what: str, k: int = k, name: str = name) -> None:
                report((k + done) / len(sources), f"{name}: {what}")

            try:
                found[name] = source.features(place, part)
            except CitygrainError as error:
                where = "base" if name == "base" else f"parts.{name}"
                raise error.with_subject(f"{name} of the combined source", {"source.": f"source.{where}."}) from error
        giver = self._givers(found)
        valid = place.utm
        for name, features in found.items():
            valid = valid.intersection(features.valid)
            if valid.area == 0:
                raise SourceError(
                    f"The sources of {place.name} have no ground in common.",
                    expected="all of them with data in the same place",
                    got=f"none where {name} and those before it ({', '.join(sources)}) have data",
                    remedy="check what each file covers against the place's bbox",
                )
        given = {name: [c for c in CHANNEL_NAMES if giver[c] == name] for name in sources}
        told = {
            name: {
                **features.provenance,
                "channels": given[name],
                "unknown": {c: why for c, why in features.unknown.items() if c in given[name]},
                "partial": {c: what for c, what in features.partial.items() if c in given[name]},
                "skipped": features.skipped,
            }
            for name, features in found.items()
        }
        base, parts = told["base"], {name: told[name] for name in self.parts}
        return Features(
            {channel: found[name][channel] for channel, name in giver.items()},
            place=place,
            provenance={
                "kind": "combined",
                "osm_date": base.get("osm_date"),
                "base": base,
                "parts": parts,
                "attribution": "; ".join(
                    dict.fromkeys(str(told[name]["attribution"]) for name in sources if given[name])
                ),
            },
            valid=valid,
            unknown={c: why for part in told.values() for c, why in part["unknown"].items()},
            partial={c: what for part in told.values() for c, what in part["partial"].items()},
            skipped={
                (reason if name == "base" else f"{reason} ({name})"): n
                for name, features in found.items()
                for reason, n in features.skipped.items()
            },
            remainder=found["base"].remainder,
        )

    def _givers(self, found: Mapping[str, Features]) -> dict[str, str]:
        """Channel → name of the source that gives it."""
        giver, channels = dict.fromkeys(CHANNEL_NAMES, "base"), self.channels or {}
        for channel, name in channels.items():
            if channel in found[name].unknown:
                raise ConfigError(
                    f"Part {name} is told to give {channel}, and does not know it.",
                    expected=f"a part that knows {channel}",
                    got=f"source.channels={{{channel}:{name}}}: {found[name].unknown[channel]}",
                    choices=[part for part in self.parts if channel not in found[part].unknown],
                    remedy=f"leave {channel} out of source.channels, or give {name} a source that knows it",
                )
        for name in self.parts:
            told = [channel for channel, part in channels.items() if part == name]
            given = told or [c for c in CHANNEL_NAMES if c not in found[name].unknown and c not in channels]
            if not given:
                raise SourceError(
                    f"Part {name} gives nothing.",
                    got="it knows no channel that another part is not told to give",
                    remedy=f"leave it out, or say what it gives: source.channels={{building:{name}}}",
                )
            for channel in given:
                if giver[channel] != "base":
                    raise ConfigError(
                        f"Two parts know {channel}.",
                        got=f"{giver[channel]} and {name}",
                        remedy=f"say which gives it: source.channels={{{channel}:{name}}}",
                    )
                giver[channel] = name
        return giver
