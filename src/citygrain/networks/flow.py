"""The layers of normalizing flows: bijections that are easy to invert, with a known Jacobian.

`forward` maps data `(B, C, H, W)` towards noise of the same number of elements. It also returns the logarithm of the
absolute determinant of its Jacobian, `(B,)`. `inverse` maps noise back towards data, and needs no determinant.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from citygrain.errors import ConfigError
from citygrain.networks.blocks import set_channels_last, zero_weights


class Context(NamedTuple):
    """The conditions as the layers see them.

    Attributes
    ----------
    embedding
        `(B, E)`.
    planes
        `(B, P, h, w)`, at the resolution of the data. Deeper levels see averages of them.
    """

    embedding: Tensor
    planes: Tensor


class ActNorm(nn.Module):
    """Scale and shift of each channel. At first they standardise the data (Kingma & Dhariwal 2018, 3.1).

    Parameters
    ----------
    channels
        Channels in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(channels, 1, 1))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Set scale and shift so that each channel of `x` gets zero mean and unit standard deviation."""
        self.shift.copy_(-x.mean((0, 2, 3))[:, None, None])
        self.log_scale.copy_(-x.std((0, 2, 3)).clamp_min(1e-3).log()[:, None, None])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Shift, then scale."""
        return (x + self.shift) * self.log_scale.exp(), self.log_scale.sum() * _count_cells(x)

    def inverse(self, z: Tensor) -> Tensor:
        """Undo `forward`."""
        return z * (-self.log_scale).exp() - self.shift


class Mixing(nn.Module):
    """An invertible 1 × 1 convolution (Kingma & Dhariwal 2018, 3.2), W = exp(A), which begins as a random rotation.

    A matrix exponential is invertible for every A: its inverse is exp(−A), and its log-determinant is tr(A) (Hoogeboom
    et al. 2020). The LU factors of the paper are invertible too, but badly conditioned: after a change of 0.05 in each
    entry, the inverse for 128 channels has no correct digit left.

    Parameters
    ----------
    channels
        Channels in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        skew = torch.randn(channels, channels).triu(1) * math.pi / (2 * channels**0.5)  # angles within ± π
        self.exponent = nn.Parameter(skew - skew.mT)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mix the channels of each cell."""
        return _mix(x, self.exponent), self.exponent.trace() * _count_cells(x)

    def inverse(self, z: Tensor) -> Tensor:
        """Undo `forward`."""
        return _mix(z, -self.exponent)


class Coupling(nn.Module):
    """Shift and scale half of the channels by numbers that a network computes from the others (Dinh et al. 2017).

    Parameters
    ----------
    channels
        Channels in and out.
    embedding, planes
        Size of the context's embedding, and its number of planes.
    width
        Channels inside the network.
    bound
        The logarithm of a scale stays between ± this, so that the inverse of a layer cannot explode.
    """

    def __init__(self, channels: int, *, embedding: int, planes: int, width: int, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.kept = channels // 2
        changed = channels - self.kept
        self.into = set_channels_last(nn.Conv2d(self.kept + planes, width, 3, padding=1))
        self.modulation = nn.Linear(embedding, 2 * width)
        self.middle = set_channels_last(nn.Conv2d(width, width, 1))
        self.out = set_channels_last(zero_weights(nn.Conv2d(width, 2 * changed, 3, padding=1)))

    def compute_coefficients(self, kept: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Return shift and log-scale of the second half, `(B, changed, H, W)` each, given the first half."""
        planes = F.adaptive_avg_pool2d(context.planes, (kept.shape[-2], kept.shape[-1]))
        h = F.silu(self.into(torch.cat([kept, planes], 1)))
        scale, shift = self.modulation(F.silu(context.embedding))[:, :, None, None].chunk(2, 1)
        h = F.silu(self.middle(h) * (1 + scale) + shift)
        shift, log_scale = self.out(h).to(kept.dtype).chunk(2, 1)
        return shift, squash(log_scale, self.bound)

    def forward(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Shift and scale the second half."""
        kept, changed = x[:, : self.kept], x[:, self.kept :]
        shift, log_scale = self.compute_coefficients(kept, context)
        return torch.cat([kept, (changed + shift) * log_scale.exp()], 1), log_scale.sum((1, 2, 3))

    def inverse(self, z: Tensor, context: Context) -> Tensor:
        """Undo `forward`. The first half did not change, so the network gives the same numbers."""
        kept, changed = z[:, : self.kept], z[:, self.kept :]
        shift, log_scale = self.compute_coefficients(kept, context)
        return torch.cat([kept, changed * (-log_scale).exp() - shift], 1)


class ConditionedNoise(nn.Module):
    """Bring noise of N(μ(c), σ(c)²) to N(0, 1). The context c alone gives the shift and scale of every number.

    Parameters
    ----------
    shape
        `(C, H, W)`.
    factor
        Edge in cells of the patches whose shifts and scales are computed at once. It divides H and W.
    embedding, planes
        Size of the context's embedding, and its number of planes.
    width
        Channels inside.
    bound
        Log-scales stay between ± this.
    """

    def __init__(
        self, shape: tuple[int, int, int], *, factor: int, embedding: int, planes: int, width: int, bound: float
    ) -> None:
        super().__init__()
        self.bound = bound
        self.start = nn.Linear(embedding, width)
        self.position = nn.Parameter(torch.zeros(width, shape[1] // factor, shape[2] // factor))
        self.middle = nn.Conv2d(width + planes, width, 3, padding=1)
        self.out = zero_weights(nn.Conv2d(width, 2 * shape[0] * factor**2, 1))
        self.patches = nn.PixelShuffle(factor)

    def compute_coefficients(self, context: Context) -> tuple[Tensor, Tensor]:
        """Return shift and log-scale, `(B, C, H, W)` each."""
        grid = F.silu(self.start(F.silu(context.embedding))[:, :, None, None] + self.position)
        planes = F.adaptive_avg_pool2d(context.planes, (grid.shape[-2], grid.shape[-1]))
        drawn = self.patches(self.out(F.silu(self.middle(torch.cat([grid, planes], 1)))))
        shift, log_scale = drawn.to(context.planes.dtype).chunk(2, 1)
        return shift, squash(log_scale, self.bound)

    def forward(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Shift and scale to standard normal."""
        shift, log_scale = self.compute_coefficients(context)
        return (x + shift) * log_scale.exp(), log_scale.sum((1, 2, 3))

    def inverse(self, z: Tensor, context: Context) -> Tensor:
        """Undo `forward`."""
        shift, log_scale = self.compute_coefficients(context)
        return z * (-log_scale).exp() - shift


class _Step(nn.Module):
    """Activation normalisation, 1 × 1 convolution and coupling."""

    def __init__(self, channels: int, **coupling: Any) -> None:
        super().__init__()
        self.norm = ActNorm(channels)
        self.mixing = Mixing(channels)
        self.coupling = Coupling(channels, **coupling)

    def forward(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        h, of_norm = self.norm(x)
        h, of_mixing = self.mixing(h)
        h, of_coupling = self.coupling(h, context)
        return h, of_norm + of_mixing + of_coupling

    def inverse(self, z: Tensor, context: Context) -> Tensor:
        return self.norm.inverse(self.mixing.inverse(self.coupling.inverse(z, context)))


class _Level(nn.Module):
    """Fold 2 × 2 cells into channels, transform the channels, pass half of them through the next level, and unfold.

    The other half stays as it is. It is the half that the last coupling transformed given the first, so it is already
    noise, and further levels would only cost time (Dinh et al. 2017, 3.6).
    """

    def __init__(self, channels: int, levels: int, depth: int, **coupling: Any) -> None:
        super().__init__()
        inner = 4 * channels
        self.steps: Any = nn.ModuleList(_Step(inner, **coupling) for _ in range(depth))
        self.deeper = _Level(inner // 2, levels - 1, depth, **coupling) if levels > 1 else None

    def forward(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        h = F.pixel_unshuffle(x, 2)
        total = x.new_zeros(len(x))
        for step in self.steps:
            h, of_step = step(h, context)
            total = total + of_step
        if self.deeper is not None:
            kept, done = h.chunk(2, 1)
            kept, below = self.deeper(kept, context)
            h, total = torch.cat([kept, done], 1), total + below
        return F.pixel_shuffle(h, 2), total

    def inverse(self, z: Tensor, context: Context) -> Tensor:
        h = F.pixel_unshuffle(z, 2)
        if self.deeper is not None:
            kept, done = h.chunk(2, 1)
            h = torch.cat([self.deeper.inverse(kept, context), done], 1)
        for step in reversed(self.steps):
            h = step.inverse(h, context)
        return F.pixel_shuffle(h, 2)


class Glow(nn.Module):
    """A multi-scale flow of affine couplings between 1 × 1 convolutions (Kingma & Dhariwal 2018), given a context.

    Noise has the shape of the data: the part that a level leaves as it is stays at the place of its cells.

    Parameters
    ----------
    shape
        `(C, H, W)` of the data; given by the family.
    embedding, planes
        Size of the context's embedding and its number of planes; given by the family.
    levels
        How often 2 × 2 cells are folded. 2^levels divides H and W.
    depth
        Steps per level. A step is an activation normalisation, a 1 × 1 convolution and a coupling.
    width
        Channels inside the couplings' networks.
    bound
        The logarithm of a coupling's scale stays between ± this.

    Raises
    ------
    ConfigError
        When the size of the data cannot be halved `levels` times.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, int, int],
        embedding: int,
        planes: int,
        levels: int = 3,
        depth: int = 6,
        width: int = 96,
        bound: float = 2.0,
    ) -> None:
        super().__init__()
        factor = 2**levels
        if levels < 1 or depth < 1 or shape[1] % factor or shape[2] % factor:
            raise ConfigError(
                "The flow cannot fold data of this size so often.",
                expected=f"at least one level and step, and a height and width that {factor} divides",
                got=f"levels={levels}, depth={depth}, {shape[1]} × {shape[2]} cells",
                remedy="take fewer levels, or another data.size_px",
            )
        told: dict[str, Any] = {"embedding": embedding, "planes": planes, "width": width, "bound": bound}
        self.levels = _Level(shape[0], levels, depth, **told)
        self.base = ConditionedNoise(shape, factor=factor, **told)

    def forward(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Return the noise `(B, C, H, W)` of data, and the log-determinant `(B,)` in nats."""
        h, total = self.levels(x, context)
        z, last = self.base(h, context)
        return z, total + last

    def inverse(self, z: Tensor, context: Context) -> Tensor:
        """Return the data `(B, C, H, W)` of noise."""
        return self.levels.inverse(self.base.inverse(z, context), context)

    @torch.no_grad()
    def initialise(self, x: Tensor, context: Context) -> None:
        """Set all activation normalisations so that data `x` has zero mean and unit standard deviation after each."""
        norms = [module for module in self.modules() if isinstance(module, ActNorm)]
        hooks = [norm.register_forward_pre_hook(lambda norm, given: norm.initialise(given[0])) for norm in norms]
        self(x, context)
        for hook in hooks:
            hook.remove()


def squash(x: Tensor, bound: float) -> Tensor:
    """Squash numbers to ± `bound`. Small numbers hardly change."""
    return bound * torch.tanh(x / bound)


def _mix(x: Tensor, exponent: Tensor) -> Tensor:
    # In half precision the inverse would not undo `forward`. In single precision, exp has errors in the fifth digit.
    with torch.autocast(x.device.type, enabled=False):
        return F.conv2d(x, torch.linalg.matrix_exp(exponent.double()).to(x)[:, :, None, None])


def _count_cells(x: Tensor) -> int:
    return x.shape[-2] * x.shape[-1]
