"""A model of several trained parts: their checkpoints become one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from citygrain.checkpoint.environment import describe_environment
from citygrain.checkpoint.store import Checkpoint, load, read_checkpoint
from citygrain.samplers.parts import GROUND, PARTS, PLAN
from citygrain.spec import LayoutSpec
from citygrain.support.targets import MODEL_PARTS, TARGET, find_target

CASCADE = "citygrain.models.cascade.Cascade"
"""What a configuration calls the family that has parts."""


def join_parts(plan: str | Path, ground: str | Path, densities: str | Path | None = None) -> Checkpoint:
    """Join the checkpoints of trained parts to that of a cascade, without training.

    The joined checkpoint holds the weights of the parts, and does not need their files any more.

    Parameters
    ----------
    plan, ground, densities
        The checkpoints of the parts, as `load` takes them; see `citygrain.models.cascade.Cascade`.

    Returns
    -------
    Checkpoint
        For `export_checkpoint`, which writes it to a folder that `load` takes.

    Raises
    ------
    CheckpointError
        When there is no checkpoint, or it is damaged.
    ConfigError, CapabilityError
        When the parts do not fit each other.
    """
    named = zip(PARTS, (plan, densities, ground), strict=True)
    paths = {name: path for name, path in named if path is not None}
    spec = find_target(CASCADE, MODEL_PARTS).join_specs({name: load(path) for name, path in paths.items()})
    parts = {name: read_checkpoint(path) for name, path in paths.items()}
    model = {TARGET: CASCADE, **{name: describe_part(part) for name, part in parts.items()}}
    weights = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.weights.items()}
    return Checkpoint(model, spec, weights, _join_provenance(parts, spec), parts[GROUND].path)


def describe_part(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the description of a model that is part of another one: as it is, with a spec of its own."""
    plain = checkpoint.spec.to_dict()
    return {**checkpoint.model, "spec": {TARGET: f"{LayoutSpec.__module__}.LayoutSpec.from_dict", "plain": plain}}


def _join_provenance(parts: Mapping[str, Checkpoint], spec: LayoutSpec) -> dict[str, Any]:
    """Return what the parts are made from. The windows of the whole are those of the ground, with all channels."""
    made = {name: dict(part.provenance) for name, part in parts.items()}
    data = {name: dict(of.pop("data", {})) for name, of in made.items()}
    places = {place: about for of in reversed(data.values()) for place, about in of.pop("places", {}).items()}
    whole = [place for place in spec.places if all(place in part.spec.places for part in parts.values())]
    unknown = {"allow_unknown": True} if any(of.get("allow_unknown") for of in data.values()) else {}
    return {
        "name": f"{made[GROUND].get('name', GROUND)} on {made[PLAN].get('name', PLAN)}",
        "data": {
            **data[GROUND],
            "places": {place: places[place] for place in spec.places if place in places},
            "known_to_all": whole,
            "channels": list(spec.channels),
            "left_out": {},
            **unknown,
        },
        "parts": {name: {**of, "data": data[name]} for name, of in made.items()},
        **describe_environment(),
    }
