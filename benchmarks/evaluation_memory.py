"""How much memory an evaluation of many layouts takes, at most.

    python benchmarks/evaluation_memory.py runs/copenhagen_los_angeles_64 --layouts 10000

Four sets of so many layouts (real, floor, ceiling, generated) are gathered and judged as `citygrain evaluate` does,
with the windows and the settings of a trained model. To spare the hours that drawing and measuring take, which go
part by part and need no more memory than one part, the four sets are the same few hundred windows over and over:
numbers mean nothing here but for the last one, the peak of the resident memory of the process. Processes that measure
form come on top, with about half a gigabyte each.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from citygrain.checkpoint import load
from citygrain.data.dataset import STATISTICS
from citygrain.evaluation.embedding import kept
from citygrain.evaluation.gather import PART, Layouts, gather
from citygrain.evaluation.two_sample import two_sample
from citygrain.support.config import load_config
from citygrain.verbs.evaluate import classified, nearest_of, realism, windows_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--layouts", type=int, default=10_000)
    args = parser.parse_args()

    config = load_config("evaluate", [f"checkpoint={args.checkpoint}", f"n={args.layouts}"])
    generator = load(args.checkpoint)
    spec = generator.spec
    data = windows_of(generator, config)
    embedding, _ = kept(
        data.root / STATISTICS,
        {key: value for key, value in data.provenance().items() if key != "limits"},
        lambda start, count: data.batch("train", range(start, start + count)).layout,
        size_px=spec.size_px,
        steps=config["embedding"]["steps"],
    )

    def layouts_of(positions: range) -> Layouts:
        windows = data.batch("train", range(len(positions))).layout
        return (windows.numpy() * 255).round().astype(np.uint8)

    names = ("real", "floor", "ceiling", "generated")
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder) / "first"
        collect = partial(gather, channels=spec.channels, resolution_m=spec.resolution_m, embedding=embedding)
        collect("windows", PART, layouts_of, first)
        sets = {}
        for name in names:
            for start in range(0, args.layouts, PART):
                count = min(PART, args.layouts - start)
                part = first / f"windows_000000_{count}.npz"
                if not part.is_file():
                    collect("windows", count, layouts_of, first)
                Path(folder, f"{name}_{start:06d}_{count}.npz").hardlink_to(part)
            sets[name] = collect(name, args.layouts, layouts_of, Path(folder))
        found = realism(sets, spec, config)
        shown = classified(spec, args.layouts)
        real = sets["real"].layouts(shown)
        two_sample(sets["generated"].layouts(shown), real, steps=config["classifier"]["steps"])
        for name in ("generated", "real"):
            nearest_of(sets[name], data, config)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{args.layouts:,} layouts, {len(found['measures'])} measures: at most {peak:.2f} GiB")


if __name__ == "__main__":
    main()
