"""`citygrain.train`: the command line's configuration, composed from keywords."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from citygrain.support.options import parse
from citygrain.support.targets import Plain
from citygrain.training.options import Training
from citygrain.training.run import run

Group = str | Plain
"""An option of a group by its name, or values of some of the group's keys."""


def train(
    name: str,
    *,
    experiment: str | None = None,
    data: Group | None = None,
    model: Group | None = None,
    optimizer: Group | None = None,
    lr_schedule: Group | None = None,
    trainer: Group | None = None,
    logger: Group | None = None,
    callbacks: Group | None = None,
    seed: int | None = None,
    threads: int | None = None,
    unconditional_share: float | None = None,
    init_from: str | Path | None = None,
    freeze: Sequence[str] | None = None,
    l1: float | None = None,
    codec: str | Path | Plain | None = None,
    codes: int | None = None,
    compile: bool | None = None,  # noqa: A002  (the name of the key)
    paths: Mapping[str, str | Path] | None = None,
    overrides: Sequence[str] = (),
    config_dirs: Sequence[str | Path] = (),
) -> Path:
    """Train a generator as `citygrain train` does, or go on with it.

    The keywords are the keys of `conf/train.yaml`; `citygrain train --help` lists them with their choices. A key that
    is left out, or None, has the value that the recipe or else the shipped configuration gives it.

    Parameters
    ----------
    name
        The run's folder is `runs/<name>`; the same call goes on there.
    experiment
        A recipe, such as `"demo"`.
    data, model, optimizer, lr_schedule, trainer, logger, callbacks
        The name of a shipped option (`model="diffusion"`), or values of some keys
        (`data={"places": ["copenhagen"], "size_px": 64}`).
    seed, threads, unconditional_share, init_from, freeze, l1, codes, compile
        See `citygrain.training.options.Training`.
    codec
        A codec's run or checkpoint, or the keys in which the training of a codec differs from this one.
    paths
        `data`, the folder of prepared places, and `runs`, the folder of runs.
    overrides
        What else the command line would say: `("model.network.width=64", "+trainer.max_epochs=3")`.
    config_dirs
        Folders of your own configurations, which go before the shipped ones.

    Returns
    -------
    Path
        The exported model's folder, for `citygrain.Model` and `citygrain.load`.

    Raises
    ------
    ConfigError
        For an option, a key or a value that does not exist.
    CitygrainError
        See `citygrain.training.run.run`.

    Examples
    --------
    >>> model = train("mine", model="diffusion", data={"places": ["copenhagen"]})  # doctest: +SKIP
    """
    from citygrain.support.config import check_signatures, load_config  # noqa: PLC0415  (Hydra takes its time)

    groups = {
        "data": data, "model": model, "optimizer": optimizer, "lr_schedule": lr_schedule, "trainer": trainer,
        "logger": logger, "callbacks": callbacks, "paths": paths,
    }  # fmt: skip
    values = {
        "name": name, "seed": seed, "threads": threads, "unconditional_share": unconditional_share,
        "init_from": init_from, "freeze": freeze, "l1": l1, "codec": codec, "codes": codes, "compile": compile,
    }  # fmt: skip
    told = [f"experiment={experiment}"] if experiment is not None else []
    for key, group in groups.items():
        if isinstance(group, str):
            told.append(f"{key}={group}")
        elif group is not None:
            told += _keys(key, group)
    told += [f"{key}={_literal(value)}" for key, value in values.items() if value is not None]
    plain = load_config("train", [*told, *overrides], config_dirs)
    check_signatures(plain)
    return run(parse(Training, plain))


def _keys(path: str, value: Any) -> Iterator[str]:
    """Return overrides for all values in a mapping, at any depth."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _keys(f"{path}.{key}", inner)
    else:
        yield f"{path}={_literal(value)}"


def _literal(value: Any) -> str:
    """Write a value as the command line does."""
    from citygrain.support.config import quote_value  # noqa: PLC0415

    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str | Path):
        return quote_value(str(value))
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_literal(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(map(_literal, value)) + "]"
    return str(value)
