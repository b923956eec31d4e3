"""Is a model realistic and obedient, or does it copy? Answered in numbers, beside those of real layouts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import rich

from citygrain.data.datamodule import CityDataModule
from citygrain.data.trained_on import TrainedOn
from citygrain.errors import ConfigError, DataError
from citygrain.evaluation.curves import read_curves
from citygrain.evaluation.cut_and_paste import judge_pasted, paste_layouts
from citygrain.evaluation.disruption import judge_metrics
from citygrain.evaluation.gather import gather, start_processes
from citygrain.evaluation.memorisation import judge_copies, search_training
from citygrain.evaluation.obedience import judge_obedience, list_sweepable, sweep_conditions
from citygrain.evaluation.options import Classifier, Disruption, Embedding, Memorisation, Obedience
from citygrain.evaluation.pictures import draw_pictures
from citygrain.evaluation.realism import compare_sets, find_failures
from citygrain.evaluation.report import Drawn, Report, UsedEmbedding
from citygrain.evaluation.sets import Drawing, find_embedding, gather_sets, name_parts_folder
from citygrain.evaluation.two_sample import tell_apart
from citygrain.evaluation.view import View
from citygrain.generation.requests import choose_sampler
from citygrain.generation.windows import check_attempts
from citygrain.geo.split import WHOLE
from citygrain.protocols import HasParts, Sampler, Trained
from citygrain.spec import LayoutSpec
from citygrain.support.devices import SINGLE, check_precision
from citygrain.version import __version__

AGAINST = ("test", "val", WHOLE)
"""Windows to compare with: those of held-out blocks, or all windows of places that the model was not trained on."""

LEAST = 16
"""Fewer layouts than this say nothing."""


def evaluate(
    generator: Trained,
    *,
    n: int = 1024,
    against: str = "test",
    places: Sequence[str] | None = None,
    ask: Sequence[str] | None = None,
    resolution_m: float | None = None,
    channels: Sequence[str] | None = None,
    raster_format: int | None = None,
    seed: int = 0,
    batch_size: int = 64,
    precision: str = SINGLE,
    workers: int | None = None,
    out: str | Path = "out/evaluation",
    bootstrap: int = 200,
    embedding: Embedding = Embedding(),
    classifier: Classifier = Classifier(),
    memorisation: Memorisation = Memorisation(),
    obedience: Obedience = Obedience(),
    disrupt: bool = False,
    disruption: Disruption = Disruption(),
    cut_and_paste: bool = True,
    sampler: Sampler | Mapping[str, Any] | None = None,
    data: str | Path = "data/cities",
    checkpoint: str | Path | None = None,
) -> Report:
    """Evaluate a model and write the report; go on where an equal evaluation was broken off.

    Parameters
    ----------
    generator
        From `citygrain.load`.
    n
        Layouts that are drawn, at most as many as there are held-out windows.
    against
        The held-out windows that they are compared with: `test` or `val`. For places that the model never saw also
        `all`: half of their windows are then the floor.
    places
        Prepared places whose held-out windows they are compared with, by name or folder; None for those of training.
    ask
        What each layout is asked to be, as its held-out window is: `place`, and names of conditions. None asks for the
        place, or for all conditions where `places` are given.
    resolution_m
        Edge of the cells that layouts are judged in: the model's own, or larger ones that drawn layouts and real
        windows are averaged to, if the places of training have them. None for the model's own.
    channels
        Channels that layouts are judged in, some of the model's. None for all.
    raster_format
        Format of these channels: an earlier one stands beside models of that format. None for the model's own.
    seed
        Layout *i* is drawn with `seed` + *i*, whatever the batch size.
    batch_size
        Layouts that are drawn at once.
    precision
        Numbers that the model computes in, see `citygrain.support.devices.use_precision`.
    workers
        Processes that measure urban form; None for one a core. A script that starts several has to call this below
        `if __name__ == "__main__":`.
    out
        Folder of `report.html`, `report.json`, the pictures, and the parts that a repeated evaluation takes up.
    bootstrap
        Resamples behind each interval.
    embedding, classifier, memorisation, obedience
        How each of the judges works.
    disrupt, disruption
        Whether the metrics themselves are tested on disrupted real windows, and on how many. Metrics that fail are left
        out of the summary.
    cut_and_paste
        Whether patches of training windows are judged beside the model: the bar of cut and paste.
    sampler
        Another sampler, or settings of the generator's own sampler that are changed, such as `{"steps": 24}`.
    data
        Folder of all prepared places.
    checkpoint
        Where the generator was loaded from. The report names it, and shows the losses of its training. Without one the
        report names the run that the model was made by.

    Raises
    ------
    DataError
        When places are not prepared, have no cells of that size, or have too few held-out windows.
    ConfigError, ConditionError
        For numbers or conditions that make no sense.
    """
    if n < LEAST or batch_size < 1 or bootstrap < 0:
        raise ConfigError(
            "Too few layouts say nothing.",
            expected=f"n ≥ {LEAST}, batch_size ≥ 1, bootstrap ≥ 0",
            got={"n": n, "batch_size": batch_size, "bootstrap": bootstrap},
        )
    if against not in AGAINST:
        raise ConfigError("Layouts are compared with held-out windows.", got=against, choices=AGAINST)
    check_precision(precision)
    spec, out = generator.spec, Path(out)
    view = View.of(spec, resolution_m, channels, raster_format)
    seen = view.seen
    _check_obedience(obedience, seen)
    drawing = Drawing(generator, choose_sampler(generator, sampler), precision, batch_size)
    asked = tuple(ask) if ask is not None else ("place",) if places is None else spec.scalars
    _check_asked(asked, spec, places)
    home, windows, n = _find_windows(generator, data, places, against, n)
    learned, file = find_embedding(view.show_windows(TrainedOn.of(generator)).data(data), embedding.steps)
    told = [n, against, seed, asked, *([] if view.is_own else [seen.to_dict()])]
    folder = name_parts_folder(out, drawing, (home, windows), file.name, told)
    judged_metrics = None
    with start_processes(workers or os.cpu_count() or 1) as mapped:
        gathered = partial(
            gather, channels=seen.channels, resolution_m=seen.resolution_m, embedding=learned, mapped=mapped
        )
        sets = gather_sets(drawing, windows, gathered, folder, view, n=n, against=against, ask=asked, seed=seed)
        if disrupt:
            judged_metrics = judge_metrics(
                sets.real, sets.floor, gathered, seen.channels, seen.resolution_m, windows=disruption.windows, seed=seed
            )
        searched = [sets.generated, sets.real]
        if cut_and_paste:
            among = windows.windows(against).locate(range(n))[0].tolist() if "place" in asked else None
            searched.append(paste_layouts(sets.real, home, among, gathered, folder, view, ask=asked, seed=seed))
    near, near_real, *near_pasted = search_training(searched, home, view, memorisation.windows)
    answers = sweep_conditions(drawing, home, windows, folder, obedience, view, against=against, seed=seed)
    realism = compare_sets(sets, seen, bootstrap=bootstrap, seed=seed)
    two_sample = tell_apart(sets, seen, steps=classifier.steps, seed=seed)
    copies = judge_copies(near, near_real, memorisation.windows)
    pasted = None
    for found, closest in zip(searched[2:], near_pasted, strict=True):
        pasted = judge_pasted(found, sets.real, closest, realism, copies, seen, steps=classifier.steps, seed=seed)
    report = Report(
        citygrain=__version__,
        checkpoint=str(checkpoint or generator.provenance.get("name", type(generator).__name__)),
        model=type(generator).__name__,
        places=tuple(raster.name for raster in windows.rasters),
        trained_on=spec.places,
        channels=seen.channels,
        given=seen.given,
        window_m=seen.extent_m,
        resolution_m=seen.resolution_m,
        raster_format=seen.raster_format,
        drawn=None if view.is_own else Drawn(spec.resolution_m, spec.channels, spec.raster_format),
        n=n,
        seed=seed,
        against=against,
        asked=asked,
        embedding=UsedEmbedding("train windows of these places, without labels", file.name),
        realism=realism,
        disruption=judged_metrics,
        two_sample=two_sample,
        memorisation=copies,
        cut_and_paste=pasted,
        obedience=judge_obedience(answers, seen, attempts=obedience.attempts, seed=seed),
        failures=find_failures(sets, realism.measures),
        curves={} if checkpoint is None else read_curves(checkpoint),
        folder=out,
    )
    draw_pictures(report, sets, near, near_real, answers, home, view, out)
    report.write(out)
    return report


def _find_windows(
    generator: Trained, data: str | Path, places: Sequence[str] | None, against: str, n: int
) -> tuple[CityDataModule, CityDataModule, int]:
    """Return the windows of training, the windows to compare with, which may be the same, and how many are compared."""
    trained_on = TrainedOn.of(generator)
    home = trained_on.data(data, val_windows=n, test_windows=n)
    windows = home if places is None else trained_on.data(data, places, val_windows=n, test_windows=n)
    names = [raster.name for raster in windows.rasters]
    if against == WHOLE and (known := [name for name in names if name in list_seen_places(generator)]):
        raise ConfigError(
            "All windows are held out only of places that the model was not trained on.",
            got=f"against={WHOLE} of {', '.join(known)}",
            remedy="name other places: places=[…]; or compare with what was held out: against=test",
        )
    found = min(n, len(windows.windows(against)) // (2 if against == WHOLE else 1))
    if found < LEAST:
        raise DataError(
            f"There are too few {against} windows to compare with.",
            expected=f"at least {LEAST}" + (", and as many for the floor" if against == WHOLE else ""),
            got=f"{found} of {', '.join(names)}",
            remedy="a larger place, or other windows: against=val, or against=all of places that it never saw",
        )
    if found < n:
        rich.print(f"[yellow]n = {found}[/]: there are no more such windows of {', '.join(names)} to compare with")
    return home, windows, found


def _check_obedience(obedience: Obedience, spec: LayoutSpec) -> None:
    if obedience.levels < 2 or obedience.each < 1:
        raise ConfigError("A sweep has two levels or more.", got=f"levels={obedience.levels}, each={obedience.each}")
    check_attempts(obedience.attempts)
    low, high = obedience.between
    if not 0 <= low < high <= 100:
        raise ConfigError("A sweep goes from one of the percentiles to a higher one.", got=list(obedience.between))
    possible = list_sweepable(spec)
    for name in obedience.conditions or ():
        if name not in possible:
            raise ConfigError("This condition cannot be swept.", got=name, choices=possible)


def _check_asked(asked: Sequence[str], spec: LayoutSpec, places: Sequence[str] | None) -> None:
    if places is not None and "place" in asked:
        raise ConfigError(
            "A model cannot be asked to be like places that it was not trained on.",
            got=f"ask={list(asked)}, places={list(places)}",
            remedy="ask for measures, or leave out ask: then it is asked for all of them",
        )
    for name in asked:
        if name not in ("place", *spec.scalars):
            raise ConfigError("This model cannot be asked for it.", got=name, choices=("place", *spec.scalars))


def list_seen_places(generator: Trained) -> set[str]:
    """Return the names of all places that a model has seen: in its training, its codec's, and those before its own."""
    parts = generator.parts.values() if isinstance(generator, HasParts) else ()
    codecs = [codec for one in (generator, *parts) if (codec := getattr(one, "codec", None)) is not None]
    seen = {place for one in (generator, *codecs) for place in one.spec.places}
    for begun in (generator.provenance, *generator.provenance.get("parts", {}).values()):
        made = begun.get("begun_from")
        while made:
            seen |= set(made.get("places", ()))
            made = made.get("begun_from")
    return seen
