"""Critics: networks that tell real layouts from generated ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from citygrain.networks.blocks import make_activation, set_channels_last


class PatchCritic(nn.Module):
    """Judge every patch of a layout by itself (Isola et al. 2017): 70 × 70 cells with three strided layers.

    It has no normalisation: the gradient penalty already limits its slope, and it must not compare the layouts of a
    batch.

    Parameters
    ----------
    in_channels, embedding
        Given by the family.
    width
        Channels of the first layer; they double in each strided layer, up to eight times as many.
    layers
        Strided layers: the patch is 16, 34, 70, 142 … cells wide with 1, 2, 3, 4 … of them.
    activation
        Name of the activation.
    """

    def __init__(
        self, *, in_channels: int, embedding: int, width: int = 32, layers: int = 3, activation: str = "leaky_relu"
    ) -> None:
        super().__init__()
        widths = [width * min(2**i, 8) for i in range(layers + 1)]
        strides = [2] * layers + [1]
        body: list[nn.Module] = []
        for cin, cout, stride in zip([in_channels, *widths], widths, strides, strict=False):
            body += [
                nn.Conv2d(cin, cout, 4, stride=stride, padding=1 if stride == 2 else 2),
                make_activation(activation),
            ]
        self.body = set_channels_last(nn.Sequential(*body))
        self.verdict = Verdict(widths[-1], embedding, kernel=4)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map `(B, in, H, W)` and `(B, E)` to a logit for each patch, `(B, 1, h, w)`: the larger, the more real."""
        return self.verdict(self.body(x.contiguous(memory_format=torch.channels_last)), embedding)


class ResidualCritic(nn.Module):
    """Judge a layout as a whole, by residual blocks down to a few cells (Karras et al. 2020).

    Before the verdict, it sees how much the layouts of the batch differ. So it recognises a generator that makes the
    same layout again and again (minibatch standard deviation, Karras et al. 2018).

    Parameters
    ----------
    in_channels, embedding
        Given by the family.
    widths
        Channels of each level, finest first; the resolution halves from one to the next.
    stem
        Halvings by space-to-depth before the first convolution.
    activation
        Name of the activation.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        embedding: int,
        widths: Sequence[int] = (64, 128, 128),
        stem: int = 1,
        activation: str = "leaky_relu",
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.PixelUnshuffle(2**stem),
            nn.Conv2d(in_channels * 4**stem, widths[0], 3, padding=1),
        ]
        for cin, cout in pairwise(widths):
            layers.append(_Down(cin, cout, activation))
        self.body = set_channels_last(nn.Sequential(*layers))
        self.joined = nn.Sequential(nn.Conv2d(widths[-1] + 1, widths[-1], 3, padding=1), make_activation(activation))
        self.verdict = Verdict(widths[-1], embedding, kernel=None)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map `(B, in, H, W)` and `(B, E)` to a logit for each layout, `(B, 1, 1, 1)`: the larger, the more real."""
        h = self.body(x.contiguous(memory_format=torch.channels_last))
        differing = h.float().var(0, correction=0).add(1e-8).sqrt().mean().to(h.dtype)
        h = self.joined(torch.cat([h, differing.expand(len(h), 1, *h.shape[2:])], 1))
        return self.verdict(h, embedding)


class _Down(nn.Module):
    def __init__(self, cin: int, cout: int, act: str) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            make_activation(act),
            nn.Conv2d(cin, cin, 3, padding=1),
            make_activation(act),
            nn.AvgPool2d(2),
            nn.Conv2d(cin, cout, 3, padding=1),
        )
        self.skip = nn.Conv2d(cin, cout, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.inner(x) + self.skip(F.avg_pool2d(x, 2))) * 0.5**0.5


class Verdict(nn.Module):
    """Turn features into logits: how real a layout is, and how well it fits the request (Miyato & Koyama 2018).

    Parameters
    ----------
    channels, embedding
        Channels of the features, and size of the embedding.
    kernel
        Edge of the last convolution. None averages over all cells instead.
    """

    def __init__(self, channels: int, embedding: int, *, kernel: int | None) -> None:
        super().__init__()
        self.kernel = kernel
        self.real = nn.Conv2d(channels, 1, kernel or 1, padding=(kernel or 1) // 2, bias=False)
        self.asked = nn.Linear(embedding, channels, bias=False)

    def forward(self, features: Tensor, embedding: Tensor) -> Tensor:
        """Map `(B, C, h, w)` and `(B, E)` to `(B, 1, h', w')`."""
        if self.kernel is None:
            features = features.mean((2, 3), keepdim=True)
        weight = self.asked(embedding)[:, :, None, None] / features.shape[1] ** 0.5
        fit = (features * weight).sum(1, keepdim=True)
        real = self.real(features)
        return real + (fit if fit.shape == real.shape else F.interpolate(fit, real.shape[2:], mode="nearest"))
