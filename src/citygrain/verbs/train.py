"""`citygrain train`: from a configuration to a trained generator in `runs/<name>`."""

from __future__ import annotations

from pathlib import Path

from citygrain.support.options import parse
from citygrain.support.targets import Plain
from citygrain.training.options import Training
from citygrain.training.run import run as train


def run(config: Plain) -> Path:
    """Train what the configuration describes, or go on with it.

    Parameters
    ----------
    config
        `conf/train.yaml`, composed and plain.

    Returns
    -------
    Path
        The exported model's folder.

    Raises
    ------
    CitygrainError
        See `citygrain.training.run.run`.
    """
    return train(parse(Training, config))
