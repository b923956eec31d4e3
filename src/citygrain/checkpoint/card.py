"""The card of a model: what it is, what it learned from, how good it is, what it cannot."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping
from typing import Any, Protocol

import yaml

from citygrain.spec import LayoutSpec


class Figures(Protocol):
    """What an evaluation found, such as `citygrain.evaluation.report.Report`."""

    def to_dict(self) -> dict[str, Any]:
        """Return the content of its `report.json`."""
        ...


def card(
    model: Mapping[str, Any],
    spec: LayoutSpec,
    made: Mapping[str, Any],
    numbers: int,
    report: Mapping[str, Any] | Figures | None = None,
) -> str:
    """Return the model card, in Markdown, with the head in YAML that indexes of models read (`head`).

    Parameters
    ----------
    model, spec, made
        Configuration, layouts and provenance, as a checkpoint has them.
    numbers
        How many the weights are.
    report
        What `citygrain evaluate` found, as a report or as the content of its `report.json`; None leaves it out.
    """
    family = str(model["_target_"]).rsplit(".", 1)[-1]
    facts = {
        "Layouts": f"{spec.size_px} × {spec.size_px} cells of {spec.resolution_m:g} m; channels "
        + ", ".join(spec.channels)
        + ("; service roads are part of street, squares of walk" if spec.raster_format == 1 else ""),
        "Given": ", ".join(spec.given),
        "Conditions": ", ".join(spec.scalars) or "none",
        "Maps": ", ".join(spec.maps),
        "Places": ", ".join(spec.places),
        "Training": _describe_training(model, made),
        "Made with": ", ".join(f"{name} {made[name]}" for name in ("citygrain", "torch", "revision") if name in made),
    }
    lines = [
        head(model, spec, made),
        f"# {made.get('name', 'A citygrain model')}",
        "",
        f"A `{family}` of urban layouts with {numbers / 1e6:.1f} million numbers.",
        "",
        *(f"- {name}: {fact}." for name, fact in facts.items() if fact),
        *([] if report is None else _figures(report if isinstance(report, Mapping) else report.to_dict())),
        "",
        "## Limits",
        "",
        "Layouts say what covers the ground, as far as it was mapped: no heights, no uses, no law. The model knows the",
        "places above; a request beyond the range of their windows is met with a warning, and less well. Layouts are",
        "studies of form, and no plan to build from.",
        "",
        "## Licence",
        "",
        "Trained on data © OpenStreetMap contributors, available under the Open Database License (ODbL 1.0).",
        "",
        "```python",
        "import citygrain",
        "",
        'model = citygrain.Model("path/to/this/folder")',
        "```",
        "",
    ]
    return "\n".join(lines)


def head(model: Mapping[str, Any], spec: LayoutSpec, made: Mapping[str, Any]) -> str:
    """Return what indexes of models read of a card: the licence, tags, the library, the task and the data.

    The licence is that of the data that a model learned from: `odbl` where all of them are OpenStreetMap's, `other`
    where some are not, or where a model does not say.

    Parameters
    ----------
    model, spec, made
        As for `card`.
    """
    family = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", str(model["_target_"]).rsplit(".", 1)[-1]).lower()
    owners = {str(place.get("attribution")) for place in made.get("data", {}).get("places", {}).values()}
    openly = bool(owners) and all("OpenStreetMap" in owner and "ODbL" in owner for owner in owners)
    said = {
        "license": "odbl" if openly else "other",
        "library_name": "citygrain",
        "pipeline_tag": "image-to-image"
        if spec.given or model.get("given", []) != []
        else "unconditional-image-generation",
        "tags": ["citygrain", "urban-form", "urban-layout", family],
        "datasets": ["openstreetmap"] if openly else [],
    }
    kept = {key: value for key, value in said.items() if value}
    return f"---\n{yaml.safe_dump(kept, sort_keys=False)}---\n"


def _describe_training(model: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """Say how a model was trained; of a model of several parts, each of them."""
    if "parts" in made:
        told = {name: _describe_training(model[name], of) for name, of in made["parts"].items()}
        return "; ".join(f"the {name} {how}" for name, how in told.items())
    before = made.get("begun_from")
    return (
        f"{made.get('step')} steps"
        + (f" and {_duration(made['train_s'])}" if "train_s" in made else "")
        + (f" on {made['hardware']}" if "hardware" in made else "")
        + (", the codec apart" if model.get("codec") else "")
        + (f"; begun from {before.get('name')} after its {before.get('step')} steps" if before else "")
    )


def _duration(seconds: float) -> str:
    unit, size = next(((unit, size) for unit, size in (("h", 3600), ("min", 60)) if seconds >= 2 * size), ("s", 1))
    return f"{seconds / size:.3g} {unit}"


def _figures(report: Mapping[str, Any]) -> list[str]:
    """Lines of a card that say how good a model was found to be."""
    told, copies = report["two_sample"], report["memorisation"]
    far = report["realism"]["embedding"]
    times = sorted(m["times_floor"] for m in report["realism"]["measures"].values() if m["times_floor"] is not None)
    obeyed = list(report["obedience"].items())
    attempts = next((one["attempts"] for _, one in obeyed if "corrected" in one), None)
    return [
        "",
        "## How good it is",
        "",
        f"{report['n']} layouts against {report['against']} windows of {', '.join(report['places'])}",
        "(`citygrain evaluate`); in brackets what real windows have.",
        "",
        f"- Told from real ones by a network that has learned from {told['generated']['n'] // 2} of each:",
        f"  {told['generated']['accuracy']:.0%} ({told['floor']['accuracy']:.0%}).",
        f"- Fréchet distance {far['generated']['frechet']:.3g} ({far['floor']['frechet']:.3g}).",
        f"- Kernel distance {far['generated']['kernel']:.3g} ({far['floor']['kernel']:.3g}).",
        f"- Wasserstein distances of {len(times)} measures: {statistics.median(times):.1f} times real ones in the",
        f"  median, {sum(t <= 2 for t in times)} of them within twice.",
        f"- Nearer to a training window than 99 % of held-out ones: {copies['share_closer']:.1%} (1.0%).",
        "",
        "| asked for | unit | slope | R² | mean error | if ignored |"
        + (f" R², {attempts} attempts |" if attempts else ""),
        "|---|---|---:|---:|---:|---:|" + ("---:|" if attempts else ""),
        *(
            f"| {name} | {one['unit']} | {one['model']['slope']:.2f} | {one['model']['r2']:.2f} | "
            f"{one['model']['mae']:.3g} | {one['unconditional']['mae']:.3g} |"
            + (f" {one['corrected']['r2']:.2f} |" if attempts else "")
            for name, one in obeyed
        ),
    ]
