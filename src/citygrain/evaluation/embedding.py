"""An embedding of layouts, learned from real ones without labels, in which sets of layouts are compared.

Networks that were trained on ImageNet know photographs in three colours, which say little about channels of coverage.
This network learns from real windows of the places at hand, by VICReg: two crops of one window, turned at random, have
to lie close together, while the dimensions have to vary and must not repeat each other. It knows neither conditions nor
measures, so that it can judge models that are steered by them.

References
----------
Bardes, A., Ponce, J. & LeCun, Y. (2022). VICReg: Variance-invariance-covariance regularization for self-supervised
learning. ICLR.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from citygrain.data.transforms import SYMMETRIES, turn
from citygrain.networks.blocks import set_channels_last
from citygrain.support.console import show_progress_bar
from citygrain.support.files import write_atomically

FEATURES = 64
"""Dimensions of the embedding."""

CROP = 0.75
"""Edge of a crop, as a share of the window's."""

STEPS, BATCH = 600, 64

FINEST_PX = 32
"""Cells a side, or a little more, at the finest level that has the time to be learned, whatever the window's size."""


class LayoutEmbedding(nn.Module):
    """A network that turns layouts into points.

    Parameters
    ----------
    channels
        Number of channels of a layout.
    size_px
        Edge of the layouts. Large ones are folded into more channels, and halved more often, so that they take hardly
        more time than small ones.
    width
        Channels at the finest level; they double with each of the last two halvings.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, channels: int, size_px: int, width: int = 32) -> None:
        super().__init__()
        self.fold = 4 if size_px >= 4 * FINEST_PX and size_px % 4 == 0 else 2
        more = max(0, int(math.log2(size_px / self.fold / FINEST_PX)))
        widths = [width] * more + [width, width * 2, width * 4]
        layers: list[nn.Module] = [
            nn.PixelUnshuffle(self.fold),
            nn.Conv2d(channels * self.fold**2, width, 3, padding=1),
        ]
        for cin, cout in zip([width, *widths[:-1]], widths, strict=True):
            layers += [nn.GroupNorm(8, cin), nn.SiLU(), nn.Conv2d(cin, cout, 3, stride=2, padding=1)]
        self.body = set_channels_last(nn.Sequential(*layers, nn.SiLU()))
        self.head = nn.Linear(2 * widths[-1], FEATURES)
        self.register_buffer("shift", torch.zeros(channels, 1, 1))
        self.register_buffer("scale", torch.ones(channels, 1, 1))

    @torch.no_grad()
    def measure_data(self, layouts: Tensor) -> None:
        """Set how channels are standardised, from real layouts `(N, C, H, W)`."""
        self.shift.copy_(layouts.mean((0, 2, 3))[:, None, None])
        self.scale.copy_(layouts.std((0, 2, 3))[:, None, None].clamp_min(0.02))

    def forward(self, layouts: Tensor) -> Tensor:
        """Map `(B, C, H, W)` in [0, 1] to `(B, FEATURES)`, by how much of each pattern there is, and how unevenly."""
        seen = ((layouts - self.shift) / self.scale).contiguous(memory_format=torch.channels_last)
        found = self.body(seen).flatten(2)
        uneven = found.var(2, correction=0).add(1e-6).sqrt()
        return self.head(torch.cat([found.mean(2), uneven], 1))

    @torch.no_grad()
    def points(self, layouts: NDArray[np.float32], batch_size: int = 64) -> NDArray[np.float32]:
        """Embed layouts `(N, C, H, W)`: `(N, FEATURES)`."""
        parts = [self(torch.from_numpy(layouts[i : i + batch_size])) for i in range(0, len(layouts), batch_size)]
        found: NDArray[np.float32] = torch.cat(parts).numpy()
        return found


def train_embedding(
    batches: Callable[[int, int], Tensor], *, steps: int = STEPS, batch: int = BATCH, seed: int = 0
) -> LayoutEmbedding:
    """Train an embedding on real layouts.

    Parameters
    ----------
    batches
        Real layouts `(n, C, H, W)` in [0, 1] from a position on: `batches(start, n)`.
    steps, batch
        Training steps, and windows of each step.
    seed
        Seed of weights and crops.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first = batches(0, 4 * batch)
        embedding = LayoutEmbedding(*first.shape[1:3])
        embedding.measure_data(first)
        expander = nn.Sequential(nn.Linear(FEATURES, 4 * FEATURES), nn.SiLU(), nn.Linear(4 * FEATURES, 4 * FEATURES))
        weights = [*embedding.parameters(), *expander.parameters()]
        optimiser = torch.optim.AdamW(weights, lr=2e-3, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
        with show_progress_bar("learning an embedding of real windows", steps) as advance:
            for step in range(steps):
                windows = batches(step * batch, batch)
                one, two = (expander(embedding(_crops(windows, embedding.fold))) for _ in range(2))
                optimiser.zero_grad()
                _vicreg(one, two).backward()
                optimiser.step()
                schedule.step()
                advance(1)
    return embedding.eval().requires_grad_(False)


def keep_embedding(
    folder: Path, depends: object, batches: Callable[[int, int], Tensor], *, size_px: int, steps: int = STEPS
) -> tuple[LayoutEmbedding, Path]:
    """Read the embedding that was trained on the same data before; where there is none, train it and keep it.

    Parameters
    ----------
    folder
        Where embeddings are kept.
    depends
        All that decides what the windows are, plain.
    batches, steps
        As for `train_embedding`.
    size_px
        Edge of the windows.
    """
    says = json.dumps([depends, steps, BATCH, FEATURES, CROP], sort_keys=True).encode()
    path = folder / f"embedding-{hashlib.sha256(says).hexdigest()[:24]}.safetensors"
    if path.is_file():
        try:
            weights = load_file(path)
            embedding = LayoutEmbedding(len(weights["shift"]), size_px)
            embedding.load_state_dict(weights)
            return embedding.eval().requires_grad_(False), path
        except (SafetensorError, RuntimeError, KeyError):
            pass  # a damaged file, or one of another version: it is learned again
    embedding = train_embedding(batches, steps=steps)
    with write_atomically(path) as temporary:
        save_file({name: value.contiguous() for name, value in embedding.state_dict().items()}, temporary)
    return embedding, path


def _crops(windows: Tensor, fold: int) -> Tensor:
    """A crop of each window, all at one place and turned in one way, which differs from call to call."""
    size = int(windows.shape[-1] * CROP) // fold * fold
    top, left = (int(torch.randint(windows.shape[-1] - size + 1, ())) for _ in range(2))
    return turn(windows[..., top : top + size, left : left + size], int(torch.randint(SYMMETRIES, ())))


def _vicreg(one: Tensor, two: Tensor) -> Tensor:
    """25 · invariance + 25 · variance + covariance, as in the paper."""
    loss = 25 * F.mse_loss(one, two)
    for points in (one, two):
        centred = points - points.mean(0)
        spread = (centred.square().sum(0) / (len(points) - 1) + 1e-4).sqrt()
        together = centred.T @ centred / (len(points) - 1)
        apart = together.square().sum() - together.diagonal().square().sum()
        loss = loss + 12.5 * F.relu(1 - spread).mean() + apart / points.shape[1]
    return loss
