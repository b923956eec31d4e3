"""`citygrain train`: from a configuration to a trained generator in `runs/<name>`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from citygrain.training import run as training


def run(config: Mapping[str, Any]) -> Path:
    """Train what the configuration describes, or go on with it."""
    return training.run(config)
