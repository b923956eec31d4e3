"""Bijections with a known Jacobian, made of layers that are easy to invert: what normalizing flows are built from.

Every layer maps `(B, C, H, W)` to the same number of elements, `forward` on the way from data to noise, together with
the logarithm of the absolute determinant of its Jacobian, `(B,)`; `inverse` is the way back, which needs none.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from citygrain.errors import ConfigError
from citygrain.networks.blocks import channels_last, zeroed


class Context(NamedTuple):
    """What the layers are told beside the tensor.

    Attributes
    ----------
    embedding
        `(B, E)`.
    planes
        `(B, P, h, w)`, at the resolution of the whole; deeper levels see them averaged.
    """

    embedding: Tensor
    planes: Tensor


class ActNorm(nn.Module):
    """Scale and shift of each channel, learned from where they standardise the data (Kingma & Dhariwal 2018, 3.1).

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
    def standardise(self, x: Tensor) -> None:
        """Begin with what brings each channel of `x` to zero mean and unit spread."""
        self.shift.copy_(-x.mean((0, 2, 3))[:, None, None])
        self.log_scale.copy_(-x.std((0, 2, 3)).clamp_min(1e-3).log()[:, None, None])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Shift, then scale."""
        return (x + self.shift) * self.log_scale.exp(), self.log_scale.sum() * _cells(x)

    def inverse(self, z: Tensor) -> Tensor:
        """Undo `forward`."""
        return z * (-self.log_scale).exp() - self.shift


class Mixing(nn.Module):
    """An invertible 1 × 1 convolution (Kingma & Dhariwal 2018, 3.2), W = exp(A), which begins as a random rotation.

    A matrix exponential is invertible whatever A is, by exp(−A), with log-determinant tr(A) (Hoogeboom et al. 2020).
    The LU factors of the paper are invertible too, but badly conditioned: moved by 0.05 an entry, those of 128 channels
    lose every digit on the way back.

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
        return _mixed(x, self.exponent), self.exponent.trace() * _cells(x)

    def inverse(self, z: Tensor) -> Tensor:
        """Undo `forward`."""
        return _mixed(z, -self.exponent)


class Coupling(nn.Module):
    """Shift and scale the second half of the channels by what a network makes of the first (Dinh et al. 2017).

    Parameters
    ----------
    channels
        Channels in and out.
    embedding, planes
        Size of the context's embedding, and its number of planes.
    width
        Channels inside the network.
    bound
        The logarithm of a scale stays between ± this, so that no layer can blow up on the way back.
    """

    def __init__(self, channels: int, *, embedding: int, planes: int, width: int, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.kept = channels // 2
        changed = channels - self.kept
        self.into = channels_last(nn.Conv2d(self.kept + planes, width, 3, padding=1))
        self.modulation = nn.Linear(embedding, 2 * width)
        self.middle = channels_last(nn.Conv2d(width, width, 1))
        self.out = channels_last(zeroed(nn.Conv2d(width, 2 * changed, 3, padding=1)))

    def coefficients(self, kept: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Shift and log-scale of the second half, `(B, changed, H, W)` each, given the first."""
        planes = F.adaptive_avg_pool2d(context.planes, (kept.shape[-2], kept.shape[-1]))
        h = F.silu(self.into(torch.cat([kept, planes], 1)))
        scale, shift = self.modulation(F.silu(context.embedding))[:, :, None, None].chunk(2, 1)
        h = F.silu(self.middle(h) * (1 + scale) + shift)
        shift, log_scale = self.out(h).to(kept.dtype).chunk(2, 1)
        return shift, bounded(log_scale, self.bound)

    def forward(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Shift and scale the second half."""
        kept, changed = x[:, : self.kept], x[:, self.kept :]
        shift, log_scale = self.coefficients(kept, context)
        return torch.cat([kept, (changed + shift) * log_scale.exp()], 1), log_scale.sum((1, 2, 3))

    def inverse(self, z: Tensor, context: Context) -> Tensor:
        """Undo `forward`: the first half is as it was, so the network says the same."""
        kept, changed = z[:, : self.kept], z[:, self.kept :]
        shift, log_scale = self.coefficients(kept, context)
        return torch.cat([kept, changed * (-log_scale).exp() - shift], 1)


class ConditionedNoise(nn.Module):
    """Shift and scale of every number by the context alone: noise N(μ(c), σ(c)²) brought to N(0, 1).

    Parameters
    ----------
    shape
        `(C, H, W)`.
    factor
        Edge in cells of the patches that are drawn at once; divides H and W.
    embedding, planes
        Size of the context's embedding, and its number of planes.
    width
        Channels inside.
    bound
        Of the log-scales.
    """

    def __init__(
        self, shape: tuple[int, int, int], *, factor: int, embedding: int, planes: int, width: int, bound: float
    ) -> None:
        super().__init__()
        self.bound = bound
        self.start = nn.Linear(embedding, width)
        self.position = nn.Parameter(torch.zeros(width, shape[1] // factor, shape[2] // factor))
        self.middle = nn.Conv2d(width + planes, width, 3, padding=1)
        self.out = zeroed(nn.Conv2d(width, 2 * shape[0] * factor**2, 1))
        self.patches = nn.PixelShuffle(factor)

    def coefficients(self, context: Context) -> tuple[Tensor, Tensor]:
        """Shift and log-scale, `(B, C, H, W)` each."""
        grid = F.silu(self.start(F.silu(context.embedding))[:, :, None, None] + self.position)
        planes = F.adaptive_avg_pool2d(context.planes, (grid.shape[-2], grid.shape[-1]))
        drawn = self.patches(self.out(F.silu(self.middle(torch.cat([grid, planes], 1)))))
        shift, log_scale = drawn.to(context.planes.dtype).chunk(2, 1)
        return shift, bounded(log_scale, self.bound)

    def forward(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Shift and scale to standard normal."""
        shift, log_scale = self.coefficients(context)
        return (x + shift) * log_scale.exp(), log_scale.sum((1, 2, 3))

    def inverse(self, z: Tensor, context: Context) -> Tensor:
        """Undo `forward`."""
        shift, log_scale = self.coefficients(context)
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
    """Fold 2 × 2 cells into channels, transform them, go on with half of them at the next level, and unfold.

    The half that does not go on is the one that the last coupling transformed, given the half that does: it is noise
    from here on, and costs nothing more (Dinh et al. 2017, 3.6).
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

    Noise has the shape of the data: what a level is done with stays where its cells are.

    Parameters
    ----------
    shape
        `(C, H, W)` of the data; given by the family.
    embedding, planes
        Size of the context's embedding and its number of planes; given by the family.
    levels
        How often 2 × 2 cells are folded; 2^levels divides H and W.
    depth
        Activation normalisation, 1 × 1 convolution and coupling, so many times a level.
    width
        Channels inside the couplings' networks.
    bound
        The logarithm of a coupling's scale stays between ± this.

    Raises
    ------
    ConfigError
        When the data cannot be folded that often.
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
                "The flow cannot fold what it is given so often.",
                expected=f"at least one level and step, and a height and width that {factor} divides",
                got=f"levels={levels}, depth={depth}, {shape[1]} × {shape[2]} cells",
                remedy="take fewer levels, or another data.size_px",
            )
        told: dict[str, Any] = {"embedding": embedding, "planes": planes, "width": width, "bound": bound}
        self.levels = _Level(shape[0], levels, depth, **told)
        self.base = ConditionedNoise(shape, factor=factor, **told)

    def forward(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Noise `(B, C, H, W)` of data, and the log-determinant `(B,)` in nats."""
        h, total = self.levels(x, context)
        z, last = self.base(h, context)
        return z, total + last

    def inverse(self, z: Tensor, context: Context) -> Tensor:
        """Data `(B, C, H, W)` of noise."""
        return self.levels.inverse(self.base.inverse(z, context), context)

    @torch.no_grad()
    def standardise(self, x: Tensor, context: Context) -> None:
        """Begin with activations of zero mean and unit spread in every layer, for data `x`."""
        norms = [module for module in self.modules() if isinstance(module, ActNorm)]
        hooks = [norm.register_forward_pre_hook(lambda norm, given: norm.standardise(given[0])) for norm in norms]
        self(x, context)
        for hook in hooks:
            hook.remove()


def bounded(x: Tensor, bound: float) -> Tensor:
    """Squash numbers to ± `bound`; small ones stay as they are."""
    return bound * torch.tanh(x / bound)


def _mixed(x: Tensor, exponent: Tensor) -> Tensor:
    # In half precision one way would not undo the other; in single precision exp itself is off in the fifth digit.
    with torch.autocast(x.device.type, enabled=False):
        return F.conv2d(x, torch.linalg.matrix_exp(exponent.double()).to(x)[:, :, None, None])


def _cells(x: Tensor) -> int:
    return x.shape[-2] * x.shape[-1]
