"""How often a network that learned to tell real layouts from generated ones is right about layouts it has not seen.

References
----------
Lopez-Paz, D. & Oquab, M. (2017). Revisiting classifier two-sample tests. ICLR.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from citygrain.data.transforms import SYMMETRIES, turn
from citygrain.errors import DataError
from citygrain.evaluation.embedding import LayoutEmbedding
from citygrain.evaluation.gather import Cells
from citygrain.evaluation.sets import Sets
from citygrain.spec import LayoutSpec
from citygrain.support.console import show_progress_bar

STEPS, BATCH = 300, 32
MEASURED = 1024
"""Layouts of each kind whose channels give the shift and scale of the network."""

LEAST = 16
"""Fewer layouts of a kind are too few to learn from and to test on."""

SHOWN_BYTES = 2**28
"""Bytes of each set that the network is shown at most: 8,192 layouts of 8 channels and 64 × 64 cells."""


@dataclass(frozen=True)
class TwoSample:
    """How well two sets of layouts can be told apart.

    Attributes
    ----------
    accuracy
        Share of the held-out layouts that the network was right about; 0.5 where the sets are alike.
    low, high
        95 % interval for it (Wilson), of the held-out layouts alone.
    n
        Held-out layouts, half of each set.
    """

    accuracy: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class ToldApart:
    """How well generated layouts, and the other real windows of the floor, can be told from held-out windows."""

    generated: TwoSample
    floor: TwoSample


def tell_apart(sets: Sets, spec: LayoutSpec, *, steps: int = STEPS, seed: int = 0) -> ToldApart:
    """Train a network to tell generated layouts from held-out windows, and another to tell the floor from them.

    Parameters
    ----------
    sets
        The layouts, of which no more are shown than memory can hold.
    spec
        Of the generator.
    steps, seed
        As for `judge_samples`.
    """
    shown = count_shown(spec, len(sets.real))
    real = sets.real.layouts(shown)
    return ToldApart(
        generated=judge_samples(sets.generated.layouts(shown), real, steps=steps, seed=seed),
        floor=judge_samples(sets.floor.layouts(shown), real, steps=steps, seed=seed),
    )


def count_shown(spec: LayoutSpec, n: int) -> int:
    """Return how many of `n` layouts a network is shown."""
    return min(n, SHOWN_BYTES // (len(spec.channels) * spec.size_px**2))


def judge_samples(made: Cells, real: Cells, *, steps: int = STEPS, seed: int = 0) -> TwoSample:
    """Train a small network to tell apart two sets of layouts `(N, C, H, W)`, `(M, C, H, W)`, 0–255, and test it.

    Of each set as many layouts are taken as the smaller one has. The network learns from half of them, turned at
    random, and is tested on the other half. It is small and its training is short, so it finds what is easily seen; a
    larger one may tell more.

    Raises
    ------
    DataError
        For fewer than `LEAST` layouts of one of the sets.
    """
    n = min(len(made), len(real))
    if n < LEAST:
        raise DataError("There are too few layouts to learn to tell them apart.", expected=f"≥ {LEAST}", got=n)
    rng = np.random.default_rng(seed)
    sets = [torch.from_numpy(layouts[rng.permutation(len(layouts))[:n]]) for layouts in (real, made)]
    half = n // 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _learned([layouts[:half] for layouts in sets], steps)
    told_real, told_made = (_logits(network, layouts[half:]) <= 0 for layouts in sets)
    right = int(told_real.sum() + (~told_made).sum())
    tested = 2 * (n - half)
    return TwoSample(right / tested, *_wilson(right, tested), tested)


def _learned(sets: list[Tensor], steps: int) -> nn.Module:
    embedding = LayoutEmbedding(*sets[0].shape[1:3])
    embedding.measure_data(_shares(torch.cat([layouts[:MEASURED] for layouts in sets])))
    network = nn.Sequential(embedding, nn.SiLU(), nn.Linear(embedding.head.out_features, 1))
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=steps)
    labels = torch.tensor([0.0, 1.0]).repeat_interleave(BATCH // 2)
    with show_progress_bar("learning to tell generated from real", steps) as advance:
        for _ in range(steps):
            drawn = torch.cat([layouts[torch.randint(len(layouts), (BATCH // 2,))] for layouts in sets])
            turned = turn(drawn, int(torch.randint(SYMMETRIES, ())))
            optimiser.zero_grad()
            F.binary_cross_entropy_with_logits(network(_shares(turned)).squeeze(1), labels).backward()
            optimiser.step()
            schedule.step()
            advance(1)
    return network.eval()


@torch.no_grad()
def _logits(network: nn.Module, layouts: Tensor) -> Tensor:
    """Return the mean over the symmetries of the square, because how a layout is turned says nothing."""
    parts = [
        torch.stack([network(_shares(turn(part, symmetry))).squeeze(1) for symmetry in range(SYMMETRIES)]).mean(0)
        for part in torch.split(layouts, 64)
    ]
    return torch.cat(parts)


def _shares(layouts: Tensor) -> Tensor:
    return layouts.float() / 255


def _wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share."""
    share = right / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return middle - half, middle + half
