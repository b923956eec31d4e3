"""What the command line makes is the same as before: layouts, measures, pictures, reports, vectors, weights.

`same_bytes/digests.json` holds a digest of all that the commands below write, `same_bytes/coarse.json.gz` a coarse copy
of it. Arithmetic differs in the last bits between processors and between versions of packages. So where both are those
of the recording, digests are compared. Elsewhere, coarse copies are: layouts and pictures as means over sixteenths of
their area, within `CLOSE` of the whole range; numbers within `SHARE`, of which one in ten may miss.

`same_bytes/run` and `same_bytes/latent` are a run folder and an exported model of an earlier citygrain. They are kept:
it is they that a newer one has to load, to sample and to go on with.

To record anew, where a result is meant to change, and only then:

    python tests/test_same_bytes.py

A model that is missing from `same_bytes/` is trained then; one that is there stays. To compare two versions by digests
on another machine than that of the recording, record with the older one, and test with the newer one.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import platform
import re
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio
import torch
from PIL import Image
from safetensors.numpy import load_file
from threadpoolctl import threadpool_limits

from citygrain.__main__ import main

ROOT = Path(__file__).resolve().parents[1]
KEPT = Path(__file__).resolve().parent / "same_bytes"
DIGESTS, COARSE = KEPT / "digests.json", KEPT / "coarse.json.gz"
RUN, LATENT = KEPT / "run", KEPT / "latent"

CLOSE = 0.01
"""Share of the range by which a layout's channel or a picture may differ on another machine, on average; between AVX2
and AVX-512, it was 0.0005 at most."""

SHARE, NEXT_TO_NOTHING, MISSES = 0.05, 0.02, 0.1
"""Numbers are within 5 % or 0.02 of what they were, but for one in ten."""

EXTENT = 0.25
"""Share by which lengths and areas of vectors may differ: a few cells join or part ways."""

SUMMED = 1.1e-3
"""Share by which four digits of a measured value may differ, where the last one was rounded the other way."""

PACKAGES = (
    "torch", "numpy", "scipy", "scikit-image", "scikit-learn", "networkx", "shapely", "rasterio", "geopandas", "pandas",
    "osmium", "osmnx", "momepy", "matplotlib", "pillow", "pytorch-lightning", "safetensors",
)  # fmt: skip

OTHERWISE = {
    "citygrain", "checkpoint", "file", "versions", "layout", "hardware", "revision", "train_s", "python", *PACKAGES,
}  # fmt: skip
"""Keys of JSON files whose values belong to a machine, a moment or a version, and are not compared."""

pytestmark = [
    pytest.mark.slow,
    # Lightning's own code, not what it is given.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:.*LeafSpec.*"),
]

ONE = ("threads=1",)
HERE = (*ONE, "device=cpu", "paths.data={cities}")
WINDOWS = (
    "data.places=[helsinki]", "data.resolution_m=4", "data.size_px=16", "data.batch_size=8", "data.batches_per_epoch=4",
    "data.val_windows=0", "data.statistics_windows=64", "data.channels=[building,street,walk,green]",
    "data.scalars=[coverage,green]", "trainer=cpu", "lr_schedule.warmup_steps=2", "callbacks.samples.every_n_epochs=0",
    "~callbacks.progress", "logger=none", "paths.data={cities}", "paths.runs={out}", *ONE,
)  # fmt: skip
SMALLEST = (
    "model=diffusion", "model.network.width=4", "model.network.widths=[1]", "model.network.blocks=1",
    "model.network.attention=[]", "model.network.head=4", "model.embedding=8", "model.sampler.steps=3",
)  # fmt: skip
CODEC = (
    "+model@codec.model=pca", "codec.model.code_channels=4", "codec.model.prior.components=2",
    "codec.model.prior.dimensions=4", "codes=64",
)  # fmt: skip
TRAIN = ("train", "name=run", *WINDOWS, *SMALLEST)
TRAIN_LATENT = ("train", "name=latent", *WINDOWS, *SMALLEST, *CODEC, "trainer.max_steps=8")
STEPS, MORE_STEPS = "trainer.max_steps=8", "trainer.max_steps=16"

COMMANDS = {
    "cities": (
        "prepare", "place=helsinki", "source=file", f"source.path={ROOT / 'data' / 'sample' / 'helsinki.osm.pbf'}",
        "raster.seed=0", "raster.workers=1", "paths.data={out}",
    ),
    "packed": ("pack", "places=[{cities}/helsinki]", "resolution_m=4", "paths.data={cities}", "out={out}"),
    "sample": (
        "sample", "checkpoint=reference/cities_64", "n=3", "seed=5", "conditions.coverage=0.25", "conditions.cycle=p90",
        "conditions.place=copenhagen", "out={out}", *HERE,
    ),
    "cells": (
        "sample", "checkpoint=reference/cities_64_cells", "n=2", "seed=1", "conditions.street_density=p75", "out={out}",
        *HERE,
    ),
    "given": (
        "sample", "checkpoint=reference/streets_to_buildings_256", "n=1", "given.place=helsinki", "given.split=train",
        "attempts=2", "conditions.coverage=[0.15,0.35]", "out={out}", *HERE,
    ),
    "area": (
        "sample", "checkpoint=reference/cities_64", "n=1", "seed=2", "extent_m=[800,600]", "conditions.place=paris",
        "conditions.green={{from:0,to:0.4,towards:east}}", "out={out}", *HERE,
    ),
    "edit": (
        "edit", "checkpoint=reference/cities_64", "place=helsinki", "at=[24.9414,60.1735]", "n=1", "keep=[arterial]",
        "conditions.coverage=0.4", "out={out}", *HERE,
    ),
    "of_run": (
        "sample", f"checkpoint={RUN}", "n=2", "conditions.coverage=[p10,p90]", "attempts=2", "out={out}", *HERE,
    ),
    "of_last": (
        "sample", f"checkpoint={RUN / 'checkpoints' / 'last.ckpt'}", "n=2", "conditions.green=p75", "sampler=euler",
        "sampler.steps=4", "out={out}", *HERE,
    ),
    "of_latent": ("sample", f"checkpoint={LATENT}", "n=2", "conditions.coverage=p50", "out={out}", *HERE),
    "exported": ("export", f"checkpoint={RUN}", "half=true", "out={out}"),
    "evaluated": (
        "evaluate", f"checkpoint={RUN}", "n=16", "batch_size=16", "workers=1", "bootstrap=5", "embedding.steps=2",
        "classifier.steps=2", "memorisation.windows=32", "obedience.levels=2", "obedience.each=2",
        "obedience.attempts=2", "disrupt=true", "disruption.windows=12", "out={out}", *HERE,
    ),
    "compared": (
        "compare", "places=[helsinki]", "generated=[{sample}]", "n=4", "workers=1", "paths.data={cities}", "out={out}",
        *ONE,
    ),
    "vectors": (
        "vectorize", "layouts={sample}", "formats=[gpkg,geojson,parquet,graphml]", "workers=1", "out={out}", *ONE,
    ),
    "trained": (*TRAIN, STEPS),
    "trained_latent": TRAIN_LATENT,
    "gone_on": (*TRAIN, MORE_STEPS),
}  # fmt: skip
"""Name → a command line. In braces stands the folder that the command of that name has written; `out` is its own."""


class Workshop:
    """A folder that commands are run in, each once, after those that it needs."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def made(self, name: str) -> Path:
        """Run a command unless it has been run; return the folder that it wrote."""
        out = self.root / name
        if not out.exists():
            command = [part.format_map(_Folders(self, out)) for part in COMMANDS[name]]
            if name == "gone_on":
                shutil.copytree(RUN, out / "run")
            run(command)
        return out


class _Folders(dict):
    def __init__(self, workshop: Workshop, out: Path) -> None:
        super().__init__(out=out)
        self.workshop = workshop

    def __missing__(self, name: str) -> Path:
        return self.workshop.made(name)


def run(command):
    """Run a command line on one thread, whatever drew random numbers before it."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - what other packages draw from
    with threadpool_limits(1):
        assert main(command) == 0, " ".join(command)


def machine():
    """All that the last bits of a result depend on, beside the code."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.*)", info.read_text(encoding="utf-8")) if info.is_file() else None
    return {
        "processor": found[1] if found else platform.processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        **{name: version(name) for name in PACKAGES},
    }


def described(folder, root):
    """All that a command has written: what it is → `(bytes, coarse copy)`."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") or part in {"parts", "checkpoints"} for part in name.parts):
            for part, exact, coarse in READERS[path.suffix](path, root):
                found[f"{name.as_posix()}{part}"] = (exact, coarse)
    return found


def _array(part, array):
    exact = f"{array.dtype} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes()
    return part, exact, {"cells": _pooled(array)} if array.ndim > 1 else {"values": array.tolist()}


def _pooled(array):
    """Means over 4 × 4 parts of the last two axes, in steps of 1/255: 16 bytes for each channel of each layout."""
    planes = array.reshape(-1, *array.shape[-2:]).astype(float)
    parts = [part.mean((1, 2)) for rows in np.array_split(planes, 4, 1) for part in np.array_split(rows, 4, 2)]
    return [row.tobytes().hex() for row in np.stack(parts, 1).round().astype(np.uint8)]


def _npz(path, root):
    with np.load(path) as file:
        yield from (_array(f" {name}", file[name]) for name in sorted(file))


def _tif(path, root):
    with rasterio.open(path) as tif:
        facts = {
            "crs": str(tif.crs), "transform": list(tif.transform)[:6], "bands": tif.descriptions, "tags": tif.tags(),
            "nodata": tif.nodata, "type": tif.dtypes, "overviews": [tif.overviews(band) for band in tif.indexes],
        }  # fmt: skip
        yield _text(" facts", json.dumps(facts), facts)
        yield _array(" cells", tif.read())
        yield _array(" mask", tif.dataset_mask())
        levels = len(tif.overviews(1))
    for level in range(levels):
        with rasterio.open(path, overview_level=level) as tif:
            yield _array(f" overview {level}", tif.read())


def _png(path, root):
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    yield "", f"{pixels.shape} ".encode() + pixels.tobytes(), {"cells": _pooled(pixels.transpose(2, 0, 1))}


def _text(part, text, values=None):
    return part, text.encode(), {"values": values}


def _csv(path, root):
    text = path.read_text(encoding="utf-8")
    yield _text("", text, [[_number(cell) for cell in line.split(",")] for line in text.splitlines()])


def _number(cell):
    try:
        return float(cell)
    except ValueError:
        return cell


def _json(path, root):
    values = _kept(json.loads(path.read_text(encoding="utf-8")))
    coarse = values if path.name in {"place.json", "report.json"} else None  # weights are what a configuration decides
    yield _text("", json.dumps(values), coarse)


def _kept(value):
    if isinstance(value, dict):
        return {key: _kept(part) for key, part in value.items() if key not in OTHERWISE}
    return [_kept(part) for part in value] if isinstance(value, list) else value


def _graph(path, root):
    yield _text("", path.read_text(encoding="utf-8"))


def _weights(path, root):
    weights = load_file(path)
    exact = b"".join(f"{name} {w.dtype} {w.shape} ".encode() + w.tobytes() for name, w in sorted(weights.items()))
    yield "", exact, {"values": {name: float(np.linalg.norm(w.astype(float))) for name, w in sorted(weights.items())}}


def _table(part, table):
    shapes = table.geometry.dropna()
    exact = table.drop(columns=table.geometry.name).to_csv().encode() + b"".join(shapes.to_wkb())
    planar = shapes.set_crs(None, allow_override=True)  # degrees are as good for a comparison
    extent = [float(planar.length.sum()), float(planar.area.sum())]
    return part, exact, {"extent": extent, "columns": [table.crs.to_epsg(), *map(str, table.columns)]}


def _layers(path, root):
    for layer in sorted(pyogrio.list_layers(path)[:, 0]):
        yield _table(f" {layer}", gpd.read_file(path, layer=layer))


def _geojson(path, root):
    yield _table("", gpd.read_file(path))


def _parquet(path, root):
    yield _table("", gpd.read_parquet(path))


READERS = {
    ".npz": _npz, ".tif": _tif, ".png": _png, ".csv": _csv, ".json": _json, ".graphml": _graph,
    ".safetensors": _weights, ".gpkg": _layers, ".geojson": _geojson, ".parquet": _parquet,
    # A card names the machine, codes make a model, and a page is words around figures that other files hold.
    ".md": lambda path, root: (), ".pt": lambda path, root: (), ".html": lambda path, root: (),
}  # fmt: skip


def recorded(described):
    """What is kept of what a command has written: digests, and coarse copies."""
    digests = {name: hashlib.sha256(exact).hexdigest()[:32] for name, (exact, _) in described.items()}
    coarse = {name: _rounded(coarse) for name, (_, coarse) in described.items()}
    return digests, json.loads(json.dumps(coarse))


def _rounded(value):
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return float(f"{value:.4g}") if isinstance(value, float) and math.isfinite(value) else value


def differences(before, now, *, exactly):
    """Return what differs between two records of one command."""
    (digests, coarse), (digests_now, coarse_now) = before, now
    wrong = [f"{name}: not written" for name in sorted(digests.keys() - digests_now.keys())]
    wrong += [f"{name}: not written before" for name in sorted(digests_now.keys() - digests.keys())]
    for name in sorted(digests.keys() & digests_now.keys()):
        if digests[name] == digests_now[name]:
            continue
        if exactly and not ("measured" in name and _equal(coarse[name]["values"], coarse_now[name]["values"])):
            wrong.append(f"{name}: other bytes")
        elif exactly:
            pass
        elif "cells" in coarse[name]:
            off = _off(coarse[name]["cells"], coarse_now[name]["cells"])
            if off > CLOSE:
                wrong.append(f"{name}: a channel is off by {off:.3f} on average")
        elif "extent" in coarse[name]:
            old, new = coarse[name], coarse_now[name]
            if old["columns"] != new["columns"] or not np.allclose(new["extent"], old["extent"], rtol=EXTENT):
                wrong.append(f"{name}: {new} instead of {old}")
        else:
            leaves, others = _leaves(coarse[name]["values"]), _leaves(coarse_now[name]["values"])
            missed = [key for key in leaves.keys() | others.keys() if not _alike(leaves.get(key), others.get(key))]
            if len(missed) > MISSES * len(leaves):
                wrong.append(f"{name}: {len(missed)} of {len(leaves)} values differ, such as {sorted(missed)[:3]}")
    return wrong


def _equal(before, now):
    """Whether measured values are the same up to the order in which they were summed.

    A layout was measured as it came out of the network, in the memory order of that tensor; now it is measured by its
    cells, so that it measures the same when it is opened again.
    """
    mine, theirs = _leaves(before), _leaves(now)
    same = (
        np.isclose(theirs[key], value, rtol=SUMMED) if isinstance(value, float) else theirs[key] == value
        for key, value in mine.items()
    )
    return mine.keys() == theirs.keys() and all(same)


def _off(before, now):
    if len(before) != len(now):
        return 1.0
    planes = [np.array([list(bytes.fromhex(row)) for row in rows], float) for rows in (before, now)]
    return float(np.abs(planes[0] - planes[1]).mean(1).max() / 255)


def _leaves(value, key=""):
    if isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for name, part in parts for k, v in _leaves(part, f"{key}/{name}").items()}
    return {key: value}


def _alike(before, now):
    if isinstance(before, int | float) and isinstance(now, int | float):
        return bool(np.isclose(now, before, rtol=SHARE, atol=NEXT_TO_NOTHING, equal_nan=True))
    return before == now


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("same_bytes"))


@pytest.fixture(scope="module")
def expected():
    """Whether digests can be compared here, and what every command is to write."""
    kept = json.loads(DIGESTS.read_text(encoding="utf-8"))
    coarse = json.loads(gzip.decompress(COARSE.read_bytes()))
    return kept["machine"] == machine(), {name: (kept["commands"][name], coarse[name]) for name in COMMANDS}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_line_makes_the_same_as_before(name, workshop, expected):
    exactly, before = expected
    assert not differences(before[name], recorded(described(workshop.made(name), workshop.root)), exactly=exactly)


def test_a_run_of_before_is_known_as_trained_and_goes_on_where_it_stopped(workshop, tmp_path, capsys):
    shutil.copytree(RUN, tmp_path / "run")
    before = (tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes()
    folders = _Folders(workshop, tmp_path)
    run([part.format_map(folders) for part in (*TRAIN, STEPS)])
    assert "already trained" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes() == before
    run([part.format_map(folders) for part in (*TRAIN, MORE_STEPS)])
    assert "goes on at" in " ".join(capsys.readouterr().out.split())
    made = json.loads((tmp_path / "run" / "model" / "config.json").read_text(encoding="utf-8"))
    assert made["provenance"]["step"] == 16


def test_another_seed_is_found_out_by_digests_and_by_coarse_copies(workshop, expected, tmp_path):
    folders = _Folders(workshop, tmp_path)
    run([part.format_map(folders).replace("seed=5", "seed=6") for part in COMMANDS["sample"]])
    found = recorded(described(tmp_path, tmp_path))
    for exactly in (True, False):
        assert "layouts.npz layouts" in " ".join(differences(expected[1]["sample"], found, exactly=exactly))


def record():
    """Write what the tests expect, and train the kept models that are missing."""
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder))
        if not RUN.exists():
            made = workshop.made("trained") / "run"
            for file in ("config.json", "checkpoints/last.ckpt", "model/config.json", "model/model.safetensors"):
                _copy(made / file, RUN / file)
        if not LATENT.exists():
            made = workshop.made("trained_latent") / "latent" / "model"
            for file in ("config.json", "model.safetensors"):
                _copy(made / file, LATENT / file)
        commands = {name: recorded(described(workshop.made(name), workshop.root)) for name in COMMANDS}
    digests = {"machine": machine(), "commands": {name: of for name, (of, _) in commands.items()}}
    DIGESTS.write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")
    coarse = json.dumps({name: of for name, (_, of) in commands.items()}, separators=(",", ":"))
    COARSE.write_bytes(gzip.compress(coarse.encode(), mtime=0))


def _copy(file, to):
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, to)


if __name__ == "__main__":
    sys.exit(record())
