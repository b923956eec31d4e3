"""Codecs and codes that are known exactly."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from citygrain.latent import Codes
from citygrain.measures import measurable
from citygrain.models.code_space import CodeSpace
from citygrain.spec import LayoutSpec

CHANNELS = ("building", "street", "green")
SPEC = LayoutSpec(CHANNELS, size_px=4, resolution_m=8.0, scalars=measurable(CHANNELS), places=("here", "there"))


class Identity(nn.Module):
    """The code is the layout, a half less: every linear measure is linear in it."""

    def __init__(self, spec=SPEC):
        super().__init__()
        self.spec, self.code_shape = spec, spec.shape
        self.register_buffer("middle", torch.tensor(0.5))
        self.encoded = 0

    def encode(self, layout):
        self.encoded += len(layout)
        return layout - self.middle

    def decode(self, code):
        return (code + self.middle).clamp(0, 1)


class Blind(Identity):
    """Everything is decoded to the same layout."""

    def decode(self, code):
        return torch.full_like(code, 0.5)


class Bent(Identity):
    """Decoded through a steep curve, as networks do with rare channels: a straight step hardly moves anything."""

    def encode(self, layout):
        return layout.clamp(1e-3, 1 - 1e-3).logit() / 4

    def decode(self, code):
        return (4 * code).sigmoid()


class Oracle(CodeSpace):
    """The exact denoiser of independent normal cells with known variances."""

    def __init__(self, variance, spec=SPEC):
        super().__init__(spec, None)
        self.shift.fill_(0.5)
        self.scale.fill_(0.05)
        self.variance = variance

    def denoise(self, x, sigma, conditions):
        return self.variance / (self.variance + sigma[:, None, None, None] ** 2) * x


def codes_of(codes, place=None, spec=SPEC, **measured):
    """Codes `(N, …)` as they would come from windows; the layouts are a half more."""
    codes = np.asarray(codes, np.float32)
    n = len(codes)
    place = np.zeros(n, np.int64) if place is None else np.asarray(place)
    values = {name: np.asarray(value, float) for name, value in measured.items()}
    return Codes(codes, place, values, spec, lambda index: (codes[index] + 0.5).clip(0, 1), np.arange(n))


def halves(codes):
    """The first two thirds, to learn from, and the rest, to judge on."""
    cut = 2 * len(codes) // 3
    return codes.select(np.arange(cut)), codes.select(np.arange(cut, len(codes)))


def with_places(*names):
    return replace(SPEC, places=names)
