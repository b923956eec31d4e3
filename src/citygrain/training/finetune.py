"""Begin with the weights of another model: on new places, with parts of it frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from citygrain.checkpoint import Checkpoint
from citygrain.errors import ConfigError
from citygrain.networks.conditioner import ConditionEmbedding
from citygrain.protocols import FitsPrior
from citygrain.spec import LayoutSpec

WHAT = ("channels", "raster_format", "size_px", "resolution_m", "scalars", "maps", "map_px")
"""What in a spec decides the shape and meaning of a model; places and their statistics may change."""


def take_over(data: Mapping[str, Any], source: Checkpoint) -> dict[str, Any]:
    """Return the keys of `conf/data`, with channels, conditions and frame of a checkpoint where they are left open."""
    filled = {"raster_format": source.spec.raster_format, **data}
    if filled["channels"] is None:
        filled["channels"] = source.spec.channels
    if filled["scalars"] is None and tuple(filled["channels"]) == source.spec.channels:
        filled["scalars"] = source.spec.scalars
    if filled.get("frame", "none") == "none":
        filled["frame"] = source.provenance.get("data", {}).get("frame", "none")
    if not filled["maps"]:
        filled |= {"maps": source.spec.maps, "map_px": source.spec.map_px}
    return filled


def check_alike(source: Checkpoint, spec: LayoutSpec) -> None:
    """Refuse layouts or conditions that are not those of a checkpoint.

    Raises
    ------
    ConfigError
        Names every difference.
    """
    differing = [name for name in WHAT if getattr(source.spec, name) != getattr(spec, name)]
    if differing:
        raise ConfigError(
            f"{source.path} was trained on other layouts or conditions, so that nothing can begin from it here.",
            expected="; ".join(f"data.{name}={_told(getattr(source.spec, name))}" for name in differing),
            got="; ".join(_difference(name, getattr(source.spec, name), getattr(spec, name)) for name in differing),
            remedy="ask for data.* as expected; a channel that a new place does not know cannot be learned there",
        )


def adopt(generator: nn.Module, source: Checkpoint, spec: LayoutSpec) -> None:
    """Load the weights of a checkpoint into a generator of other places.

    A place that the checkpoint knows keeps its embedding; a new place begins with the embedding of no place. Conditions
    are standardised as before, since the weights were learned with that. A prior that was fitted to codes of the other
    places is not taken over: it is fitted again after training.
    """
    weights = dict(source.weights)
    for name, module in generator.named_modules():
        if isinstance(module, ConditionEmbedding) and not name.startswith("codec."):
            rows = weights[f"{name}.place.weight"]
            known = [source.spec.places.index(p) + 1 if p in source.spec.places else 0 for p in spec.places]
            weights[f"{name}.place.weight"] = rows[torch.tensor([0, *known])]
    if isinstance(generator, FitsPrior):
        weights |= generator.latent_prior.state_dict(prefix="latent_prior.")
    generator.load_state_dict(weights)


def freeze(generator: nn.Module, names: Sequence[str]) -> None:
    """Keep parts of a generator from being trained.

    Parameters
    ----------
    generator
        The model.
    names
        Names of modules or parameters, such as `conditioner` or `network.down`.

    Raises
    ------
    ConfigError
        For a name without parameters, or when nothing is left to train.
    """
    for name in names:
        frozen = [p for n, p in generator.named_parameters() if n == name or n.startswith(f"{name}.")]
        if not frozen:
            raise ConfigError(
                "There is nothing of this name to freeze.",
                got=name,
                choices=[n for n, part in generator.named_children() if next(part.parameters(), None) is not None],
            )
        for parameter in frozen:
            parameter.requires_grad_(False)
    if names and not any(p.requires_grad for p in generator.parameters()):
        raise ConfigError("Everything is frozen: nothing is left to train.", got=list(names))


def _told(value: object) -> str:
    return "[" + ",".join(value) + "]" if isinstance(value, tuple) else str(value)


def _difference(name: str, there: object, here: object) -> str:
    if not (isinstance(there, tuple) and isinstance(here, tuple)):
        return f"data.{name}={here}"
    missing, added = [v for v in there if v not in here], [v for v in here if v not in there]
    parts = [f"without {', '.join(missing)}" if missing else "", f"with {', '.join(added)}" if added else ""]
    return f"{name} {' and '.join(filter(None, parts)) or 'in another order'}"
