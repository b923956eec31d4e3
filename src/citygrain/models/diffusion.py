"""Diffusion, in cells or in the code of a codec."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from citygrain.models.code_space import CodeSpace
from citygrain.models.schedules import Edm, Scaling, Schedule
from citygrain.networks.blocks import FourierFeatures
from citygrain.networks.conditioner import ConditionEmbedding, ConditionPlanes
from citygrain.protocols import Noise, Sampler
from citygrain.samplers.diffusion import Heun
from citygrain.spec import Conditions, LayoutSpec


class Diffusion(CodeSpace):
    """A denoiser of layouts, or of their codes, at every noise level (Karras et al. 2022; Rombach et al. 2022).

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
        A model with a code of such layouts, see `CodeSpace`. None diffuses cells.
    embedding
        Size of the embedding of noise level and conditions.
    """

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
        super().__init__(spec, codec)
        self.schedule = schedule or Edm()
        self.sampler = sampler or Heun()
        channels = self.latent_shape[0]
        self.conditioner = ConditionEmbedding(spec, embedding)
        self.planes = ConditionPlanes(spec)
        self.noise_features = FourierFeatures(6, period=8.0)
        self.noise_embedding = nn.Linear(self.noise_features.size, embedding)
        self.network = network(in_channels=channels + self.planes.channels, out_channels=channels, embedding=embedding)

    def denoise(self, x: Tensor, sigma: Tensor, conditions: Conditions) -> Tensor:
        """Return the expected standardised clean `(B, *latent_shape)` given `x` at noise levels `(B,)`."""
        scaling = self.schedule.scaling(sigma)
        return broadcast(scaling.skip) * x + broadcast(scaling.out) * self.read_noisy(x, scaling, conditions)

    def read_noisy(self, x: Tensor, scaling: Scaling, conditions: Conditions) -> Tensor:
        """Return the output of the network for noisy `(B, *latent_shape)`, in the same shape."""
        embedding = self.conditioner(conditions) + self.noise_embedding(self.noise_features(scaling.noise))
        planes = self.planes(conditions, x.shape[-1])
        return self.network(torch.cat([x * broadcast(scaling.into), planes], 1), embedding)

    def code_loss(self, code: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the weighted denoising error of codes `(B, *latent_shape)`."""
        clean = self.standardise(code)
        sigma = self.schedule.draw(len(clean), clean.device)
        noisy = clean + broadcast(sigma) * torch.randn_like(clean)
        error = (self.denoise(noisy, sigma, conditions) - clean) ** 2
        return {"loss": (broadcast(self.schedule.weight(sigma)) * error).mean()}

    def loss(self, layout: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the weighted denoising error of layouts `(B, C, H, W)`."""
        return self.code_loss(self.to_code(layout), conditions)

    @torch.no_grad()
    def sample(self, conditions: Conditions, *, noise: Noise, sampler: Sampler | None = None) -> Tensor:
        """Draw layouts `(B, C, H, W)` in [0, 1]."""
        return self.to_layout((sampler or self.sampler)(self, conditions, noise))


def broadcast(values: Tensor) -> Tensor:
    """Return values `(B,)` as `(B, 1, 1, 1)`."""
    return values[:, None, None, None]
