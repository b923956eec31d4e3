"""Whether a transformer of strokes copies: how many strokes of a layout occur together in one training window.

    python benchmarks/stroke_copies.py runs/reference_plans --n 1024

Takes a run that still has its codes. Its model draws layouts, asked for the places of validation windows. A stroke is
known by its kind, its length, and how far its ends are apart along and across the frame, in bins of 8 m: wherever it
lies, and however the window is turned. Strokes shorter than 60 m are left out. The likeness of a layout and a training
window is the share of the layout's strokes that the window has, each weighed by −log of how many training windows have
it. Printed: how like the likeliest training window is, for layouts and for validation windows, whose blocks the model
has not seen; and how many layouts are liker than all but 1 % of the validation windows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import rich
import torch
from numpy.typing import NDArray
from scipy import sparse

from citygrain.checkpoint import load
from citygrain.data.codes import CodeBank
from citygrain.geo.stroke_code import StrokeCode
from citygrain.geo.window_strokes import sum_lengths
from citygrain.models.stroke_transformer import StrokeTransformer
from citygrain.protocols import Noise
from citygrain.spec import Conditions
from citygrain.support.console import make_table, show_progress_bar

BIN_M, LEAST_M = 8.0, 60.0
LEAST_STROKES = 4
"""Layouts with fewer strokes say nothing of copies."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--checkpoint", help="another checkpoint than the run's last")
    parser.add_argument("--n", type=int, default=512, help="layouts")
    parser.add_argument("--batch", type=int, default=64)
    args = parser.parse_args()
    model = load(args.checkpoint or str(args.run))
    if not isinstance(model, StrokeTransformer):
        raise SystemExit(f"{args.run} draws no strokes")
    training, real = (CodeBank.open(args.run / "codes" / f"{split}.pt") for split in ("train", "val"))
    places = real.conditions.place
    drawn = []
    with show_progress_bar("drawing", args.n) as advance:
        for start in range(0, args.n, args.batch):
            seeds = range(start, min(start + args.batch, args.n))
            asked = Conditions.request(model.spec, len(seeds), {})
            asked.place[:] = places[torch.tensor(list(seeds)) % len(places)]
            drawn.append(model.sample_code(asked, noise=Noise(seeds)))
            advance(len(seeds))
    known, index = list_signatures(training.code, model.code, {})
    weight = -np.log(np.bincount(known.indices, minlength=known.shape[1]).clip(1) / known.shape[0])
    table = make_table("likest training window", "layouts", "mean", "median", "99th percentile", "beyond 99 % of real")
    found = {
        name: find_likest(list_signatures(code, model.code, index)[0], known, weight)
        for name, code in (("validation windows", real.code), ("drawn", torch.cat(drawn)))
    }
    limit = np.quantile(found["validation windows"], 0.99)
    for name, likeness in found.items():
        figures = (likeness.mean(), np.median(likeness), np.quantile(likeness, 0.99), (likeness > limit).mean())
        table.add_row(name, str(len(likeness)), *(f"{figure:.3f}" for figure in figures))
    rich.print(table)


def list_signatures(
    codes: torch.Tensor, code: StrokeCode, index: dict[tuple[int, ...], int]
) -> tuple[sparse.csr_matrix, dict[tuple[int, ...], int]]:
    """Return which signatures each window has, `(N, signatures)` of 0 and 1, and the numbers of signatures.

    Signatures that are not in the index yet are added to it, behind those that are.
    """
    rows, columns = [], []
    for row, one in enumerate(codes.numpy()):
        written = code.from_code(one)
        if not len(written):
            continue
        across = np.sort(np.abs(written.xy[written.last] - written.xy[written.first]), axis=1)
        length = sum_lengths(written.xy, written.stroke, len(written))
        long = length * code.grid_m >= LEAST_M
        parts = np.column_stack([across, length])[long] * code.grid_m // BIN_M
        for kind, signature in zip(written.kind[long].tolist(), parts.astype(int).tolist(), strict=True):
            rows.append(row)
            columns.append(index.setdefault((kind, *signature), len(index)))
    matrix = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), (len(codes), len(index)))
    matrix.data[:] = 1
    return matrix, index


def find_likest(
    layouts: sparse.csr_matrix, training: sparse.csr_matrix, weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return how like the likest training window of each layout is, from 0 to 1."""
    new = np.full(layouts.shape[1] - len(weight), np.log(training.shape[0]))  # no training window has these
    weighed = layouts.multiply(np.concatenate([weight, new])).tocsr()
    enough = np.diff(layouts.indptr) >= LEAST_STROKES
    total = np.asarray(weighed.sum(1)).ravel()[enough]
    shared = weighed[enough][:, : len(weight)] @ training.T
    likest: NDArray[np.float64] = shared.max(1).toarray().ravel() / total
    return likest


if __name__ == "__main__":
    main()
