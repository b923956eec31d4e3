"""How training went: the losses in the log of a run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

LOSSES = {"train/loss": "training", "val/loss": "held-out windows"}

Curve = dict[str, list[float]]


def read_curves(run: str | Path) -> dict[str, dict[str, Curve]]:
    """Return the losses that the CSV log of a run holds, and of the codec that was trained for it.

    Parameters
    ----------
    run
        Its folder; anything else, such as an exported model, has no log.

    Returns
    -------
    dict
        Stage (`codec`, `model`) → `training` or `held-out windows` → `step` and `loss`, in order.
    """
    found = {}
    for stage, folder in (("codec", Path(run) / "codec"), ("model", Path(run))):
        logs = [pd.read_csv(path) for path in sorted(folder.glob("logs/version_*/metrics.csv"), key=_version)]
        of = {}
        for column, name in LOSSES.items():
            parts = [log.dropna(subset=[column]) for log in logs if column in log]
            if parts:
                # A run that was resumed has done some steps twice: the second time counts.
                rows = pd.concat(parts).drop_duplicates("step", keep="last").sort_values("step")
                of[name] = {"step": rows["step"].tolist(), "loss": rows[column].tolist()}
        if of:
            found[stage] = of
    return found


def _version(path: Path) -> int:
    return int(path.parent.name.removeprefix("version_"))
