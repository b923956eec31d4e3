"""Memory and seconds that a cascade takes for an area, and seconds for each of its parts in one window.

    python benchmarks/cascade.py reference/cities --extent_m 2000

The area is drawn by `citygrain sample` in a process of its own; the peak of its resident memory is reported, imports
and files included. `--steps 2` gives the same peak in less time. Windows are drawn here, after one that is left out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

import torch

from citygrain.checkpoint import load
from citygrain.protocols import HasParts, Noise, require
from citygrain.samplers.parts import ask_part
from citygrain.spec import Conditions


def measure_area(checkpoint: str, extent_m: float, steps: int | None, more: list[str]) -> tuple[float, float]:
    """Draw one area by the command line. Return its peak memory in MB (of 10⁶ bytes) and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "citygrain", "sample", f"checkpoint={checkpoint}", "n=1"]
        command += [f"extent_m=[{extent_m},{extent_m}]", f"out={folder}/out", *more]
        command += [] if steps is None else [f"sampler.steps={steps}"]
        began = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(child.pid, 0)
        if status:
            raise SystemExit(f"{' '.join(command)} has failed.")
    return used.ru_maxrss * 1024 / 1e6, time.perf_counter() - began


def time_window(checkpoint: str, rounds: int) -> dict[str, float]:
    """Return the median seconds of a window: of all, and of each part for the same request without maps."""
    generator = load(checkpoint)
    model = require(generator, HasParts, "This benchmark", ("cascade",))
    asked = Conditions.request(model.spec, 1, {"coverage": 0.3})
    seconds: dict[str, list[float]] = {"whole": []}
    for seed in range(rounds + 1):
        began = time.perf_counter()
        layout = generator.sample(asked, noise=Noise([seed]))
        seconds["whole"].append(time.perf_counter() - began)
        for name in ("plan", "densities", "ground"):
            if (part := getattr(model, name)) is not None:
                began = time.perf_counter()
                part.sample(ask_part(part, model.spec, asked, layout), noise=Noise([seed]))
                seconds.setdefault(name, []).append(time.perf_counter() - began)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--extent_m", type=float, default=2000, help="edge of the area")
    parser.add_argument("--steps", type=int, help="of all samplers, in the area; by default their own")
    parser.add_argument("--rounds", type=int, default=5, help="windows that are timed")
    parser.add_argument("more", nargs="*", help="other keys of the area: conditions.place=copenhagen")
    args = parser.parse_intermixed_args()
    if args.rounds:
        parts = ", ".join(f"{name} {value:.2f} s" for name, value in time_window(args.checkpoint, args.rounds).items())
        print(f"a window on {torch.get_num_threads()} threads: {parts}", flush=True)
    megabytes, seconds = measure_area(args.checkpoint, args.extent_m, args.steps, args.more)
    print(f"an area of {args.extent_m / 1000:g} × {args.extent_m / 1000:g} km: {megabytes:.0f} MB, {seconds:.0f} s")


if __name__ == "__main__":
    main()
