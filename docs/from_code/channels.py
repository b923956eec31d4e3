"""The table of channels, the rules behind it, and the places that ship."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping

from from_code import source
from from_code.markdown import code, swatch, table, target, text

SPECIAL = {"*": "any value", "<0": "a number below 0", "!0": "a number that is not 0"}


def pages() -> dict[str, str]:
    """Return the pieces that `channels.md` and `data.md` include."""
    return {
        "made/channels.md": _channels(),
        "made/why.md": _why(),
        "made/rules.md": _rules(),
        "made/decided_against.md": _decided_against(),
        "made/places.md": _places(),
    }


def _channels() -> str:
    rows = []
    for i, channel in enumerate(source.CHANNELS):
        shapes = {rule.shape for rule in source.OSM_RULES if rule.layer == channel.name}
        kind = " and ".join(f"{shape}s" for shape in ("line", "area") if shape in shapes)
        width = f"{channel.width_m:g} m" if channel.width_m else "footprint" + (", class" if "line" in shapes else "")
        since = f"{source.RASTER_FORMAT}" if channel.name in source.PARTS else "1 and 2"
        if channel.name in source.PARTED:
            also = ", ".join(name for name in source.PARTED[channel.name] if name != channel.name)
            since += f"; in 1 with {also}"
        rows.append(
            [
                str(i),
                f"[{channel.name}](#channel-{channel.name})",
                f"{swatch(channel.colour)} {code(channel.colour)}",
                text(channel.description),
                kind,
                width,
                since,
            ]
        )
    return table(("band", "channel", "colour", "what it holds", "drawn from", "width", "format"), rows)


def _why() -> str:
    """Return the reasons that the docstring of the table gives, as they stand there."""
    docstring = inspect.cleandoc(source.module(source.LAYERS_MODULE).__doc__ or "")
    _, _, reasons = docstring.partition("The reasons:")
    return f"```{{eval-rst}}\n{reasons.partition('References' + chr(10))[0].strip()}\n```\n"


def _rules() -> str:
    lines = []
    for channel in source.CHANNELS:
        lines += [target(f"channel-{channel.name}"), f"### {channel.name}\n", f"{text(channel.description)}.\n"]
        rules = [rule for rule in source.OSM_RULES if rule.layer == channel.name]
        lines.append(table(("OpenStreetMap: drawn is", "with", "unless"), map(_rule, rules), (1, 4, 4)))
        tiles = [
            [f"{_drawn(rule)} of {code(layer)}", _tags(rule.when) or "all", _tags(rule.unless)]
            for layer, ruled in source.TILE_RULES.items()
            for rule in ruled
            if rule.layer == channel.name
        ]
        if tiles:
            lines.append(table(("Vector tiles: drawn is", "with", "unless"), tiles, (1, 4, 4)))
    return "\n".join(lines)


def _rule(rule: source.Rule) -> list[str]:
    return [_drawn(rule), _tags(rule.when), _tags(rule.unless)]


def _drawn(rule: source.Rule) -> str:
    beside = {"near": "the side that traffic keeps to", "far": "the side of the oncoming traffic"}
    side = f", on {beside.get(rule.side, f'the {rule.side} side')}" if rule.side else ""
    return f"the {rule.shape}{side}" + (f", {rule.width_m:g} m wide" if rule.width_m else "")


def _tags(tags: Mapping[str, Iterable[str]]) -> str:
    return "; ".join(
        f"{code(key)} = {', '.join(SPECIAL.get(value, text(value)) for value in values)}"
        for key, values in tags.items()
    )


def _decided_against() -> str:
    rows = [
        [code(key), text(why), ", ".join(map(code, values))]
        for key, reasons in source.DECIDED_AGAINST.items()
        for why, values in reasons.items()
    ]
    return table(("tag", "drawn nowhere, since it is", "values"), rows, (1, 3, 6))


def _places() -> str:
    learned = source.yaml_of("data/reference")["places"]
    rows = []
    for name in source.list_groups()["place"]:
        config = source.yaml_of(f"place/{name}")
        if "bbox" not in config:
            continue
        place = source.Place.from_bbox(config["name"], config["bbox"])
        rows.append(
            [
                code(name),
                f"{place.area_km2:,.0f}" if place.area_km2 >= 10 else f"{place.area_km2:.1f}",
                ", ".join(f"{edge:g}" for edge in config["bbox"]),
                code(place.crs),
                "yes" if name in learned else "",
            ]
        )
    return table(
        ("`place=`", "km²", "west, south, east, north", "projection", "in `data=reference`"), rows, (3, 1, 5, 2, 2)
    )
