"""What waiting threads cost on a machine that has something else to do: seconds of `citygrain sample`, in turns.

    python benchmarks/threads.py

The same layouts are drawn by processes of their own, whose threads wait on guard for good (`OMP_WAIT_POLICY=ACTIVE`),
on guard for a while (what GNU's OpenMP does by itself), or asleep (what citygrain sets), and by a single thread
(`threads=1`). A round draws them in turns with the machine as it is, and again beside a process that keeps a core busy.
Reported: the least and the greatest of the rounds' seconds, which hold the start of a process too.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import rich
from rich.table import Table

WAYS: dict[str, tuple[dict[str, str], list[str]]] = {
    "on guard for good": ({"OMP_WAIT_POLICY": "ACTIVE"}, []),
    "on guard for a while": ({"GOMP_SPINCOUNT": "300000"}, []),
    "asleep": ({}, []),
    "one thread": ({}, ["threads=1"]),
}
BUSY = "import torch; torch.set_num_threads(1); x = torch.rand(256, 256)\nwhile True: x = (x @ x).clamp(0, 1)"
SAID = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", default="reference/cities_64")
    parser.add_argument("--layouts", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    kinds = ("machine as it is", "beside a busy process")
    seconds: dict[tuple[str, str], list[float]] = {(way, kind): [] for way in WAYS for kind in kinds}
    for _ in range(args.rounds):
        for way in WAYS:
            seconds[way, kinds[0]].append(drawn(way, args.checkpoint, args.layouts))
        with busy():
            for way in WAYS:
                seconds[way, kinds[1]].append(drawn(way, args.checkpoint, args.layouts))
    load = os.getloadavg()[2]
    table = Table(title=f"seconds for {args.layouts} layouts, {args.rounds} rounds; load of the last 15 min {load:.1f}")
    for heading in ("threads wait", *kinds):
        table.add_column(heading, justify="left" if heading == "threads wait" else "right")
    for way in WAYS:
        table.add_row(way, *(f"{min(s):.1f} … {max(s):.1f}" for s in (seconds[way, kind] for kind in kinds)))
    rich.print(table)


def drawn(way: str, checkpoint: str, layouts: int) -> float:
    """Draw layouts in a process of its own, and return the seconds it took."""
    told, overrides = WAYS[way]
    environment = {**{name: value for name, value in os.environ.items() if name not in SAID}, **told}
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "citygrain", "sample", f"checkpoint={checkpoint}", f"n={layouts}", f"out={folder}",
             *overrides],
            check=True, env=environment, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        return time.perf_counter() - started


@contextmanager
def busy() -> Iterator[None]:
    """Keep one core busy within a block."""
    process = subprocess.Popen([sys.executable, "-c", BUSY], env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        time.sleep(5)  # until it is
        yield
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
