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
from citygrain.data.trained_on import TrainedOn
from citygrain.evaluation.gather import PART, Cells, gather
from citygrain.evaluation.memorisation import search_training
from citygrain.evaluation.options import Classifier, Embedding, Memorisation
from citygrain.evaluation.realism import compare_sets
from citygrain.evaluation.sets import Sets, find_embedding
from citygrain.evaluation.two_sample import tell_apart
from citygrain.evaluation.view import View


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--layouts", type=int, default=10_000)
    parser.add_argument("--data", default="data/cities", help="folder of prepared places")
    args = parser.parse_args()

    generator = load(args.checkpoint)
    spec = generator.spec
    data = TrainedOn.of(generator).data(args.data, val_windows=args.layouts, test_windows=args.layouts)
    embedding, _ = find_embedding(data, Embedding().steps)

    def layouts_of(positions: range) -> Cells:
        windows = data.batch("train", range(len(positions))).layout
        return (windows.numpy() * 255).round().astype(np.uint8)

    names = ("real", "floor", "ceiling", "generated")
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder) / "first"
        collect = partial(gather, channels=spec.channels, resolution_m=spec.resolution_m, embedding=embedding)
        collect("windows", PART, layouts_of, first)
        found = {}
        for name in names:
            for start in range(0, args.layouts, PART):
                count = min(PART, args.layouts - start)
                part = first / f"windows_000000_{count}.npz"
                if not part.is_file():
                    collect("windows", count, layouts_of, first)
                Path(folder, f"{name}_{start:06d}_{count}.npz").hardlink_to(part)
            found[name] = collect(name, args.layouts, layouts_of, Path(folder))
        sets = Sets(**found)
        realism = compare_sets(sets, spec, bootstrap=200, seed=0)
        tell_apart(sets, spec, steps=Classifier().steps)
        search_training((sets.generated, sets.real), data, View.of(spec), Memorisation().windows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{args.layouts:,} layouts, {len(realism.measures)} measures: at most {peak:.2f} GiB")


if __name__ == "__main__":
    main()
