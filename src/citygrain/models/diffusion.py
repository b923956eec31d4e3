"""Diffusion, in cells or in the code of a codec."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from citygrain.models.schedules import Edm, Schedule
from citygrain.networks.blocks import FourierFeatures
from citygrain.networks.conditioner import ConditionEmbedding, ConditionPlanes
from citygrain.protocols import Codec, Noise, Sampler, require
from citygrain.samplers.diffusion import Heun
from citygrain.spec import Conditions, LayoutSpec


class Diffusion(nn.Module):
    """A denoiser of layouts, or of their codes, at every noise level (Karras et al. 2022; Rombach et al. 2022).

    What is diffused is standardised channel by channel with buffers measured on the training set: a channel that covers
    0.3 % of the cells, as cycle tracks do, has to weigh as much as one that covers 30 %.

    Parameters
    ----------
    spec
        Layouts and conditions.
    network
        Makes the network from `in_channels`, `out_channels` and `embedding`.
    schedule
        Noise levels and preconditioning; EDM's by default.
    sampler
        Used by `sample` unless another is given; `Heun` by default.
    codec
        A model with a code of such layouts; what it was told of conditions and places is its own affair. It is frozen,
        and its weights are part of this model's state. None diffuses cells.
    embedding
        Size of the embedding of noise level and conditions.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        spec: LayoutSpec,
        *,
        network: Callable[..., nn.Module],
        schedule: Schedule | None = None,
        sampler: Sampler | None = None,
        codec: nn.Module | None = None,
        embedding: int = 256,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.schedule = schedule or Edm()
        self.sampler = sampler or Heun()
        self.codec: Any = None
        if codec is not None:
            self.codec = require(codec, Codec, "latent diffusion", ["VariationalAutoencoder"])
            self.codec.requires_grad_(False).eval()
        shape: Any = spec.shape if self.codec is None else self.codec.code_shape
        self.latent_shape: tuple[int, int, int] = shape
        channels = self.latent_shape[0]
        self.conditioner = ConditionEmbedding(spec, embedding)
        self.planes = ConditionPlanes(spec)
        self.noise_features = FourierFeatures(6, period=8.0)
        self.noise_embedding = nn.Linear(self.noise_features.size, embedding)
        self.network = network(in_channels=channels + self.planes.channels, out_channels=channels, embedding=embedding)
        self.register_buffer("shift", torch.zeros(channels, 1, 1))
        self.register_buffer("scale", torch.ones(channels, 1, 1))

    def train(self, mode: bool = True) -> Diffusion:
        """Set the mode of everything but the codec, which stays as it was trained."""
        super().train(mode)
        if self.codec is not None:
            self.codec.eval()
        return self

    @torch.no_grad()
    def measure_data(self, layouts: Tensor) -> None:
        """Set shift and scale of each diffused channel from training layouts `(N, C, H, W)`."""
        codes = torch.cat([self.to_code(part) for part in torch.split(layouts, 256)])
        self.shift.copy_(codes.mean((0, 2, 3))[:, None, None])
        self.scale.copy_(codes.std((0, 2, 3))[:, None, None].clamp_min(1e-3))

    @torch.no_grad()
    def to_code(self, layout: Tensor) -> Tensor:
        """Return the codes of layouts, or the layouts themselves where there is no codec."""
        return layout if self.codec is None else self.codec.encode(layout)

    def denoise(self, x: Tensor, sigma: Tensor, conditions: Conditions) -> Tensor:
        """Expectation of the standardised clean `(B, *latent_shape)` given `x` at noise levels `(B,)`."""
        scaling = self.schedule.scaling(sigma)
        embedding = self.conditioner(conditions) + self.noise_embedding(self.noise_features(scaling.noise))
        planes = self.planes(conditions, x.shape[-1])
        inner = torch.cat([x * _broadcast(scaling.into), planes], 1)
        return _broadcast(scaling.skip) * x + _broadcast(scaling.out) * self.network(inner, embedding)

    def code_loss(self, code: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the weighted denoising error of codes `(B, *latent_shape)`."""
        clean = (code - self.shift) / self.scale
        sigma = self.schedule.draw(len(clean), clean.device)
        noisy = clean + _broadcast(sigma) * torch.randn_like(clean)
        error = (self.denoise(noisy, sigma, conditions) - clean) ** 2
        return {"loss": (_broadcast(self.schedule.weight(sigma)) * error).mean()}

    def loss(self, layout: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the weighted denoising error of layouts `(B, C, H, W)`."""
        return self.code_loss(self.to_code(layout), conditions)

    def to_layout(self, clean: Tensor) -> Tensor:
        """Return the layouts `(B, C, H, W)` in [0, 1] of standardised clean `(B, *latent_shape)`."""
        code = clean * self.scale + self.shift
        return code.clamp(0, 1) if self.codec is None else self.codec.decode(code)

    @torch.no_grad()
    def sample(self, conditions: Conditions, *, noise: Noise, sampler: Sampler | None = None) -> Tensor:
        """Draw layouts `(B, C, H, W)` in [0, 1]."""
        return self.to_layout((sampler or self.sampler)(self, conditions, noise))


def _broadcast(values: Tensor) -> Tensor:
    return values[:, None, None, None]
