"""A style-based generative adversarial network of layouts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from citygrain.models.adversarial import Game, GanLoss, NonSaturating
from citygrain.networks.conditioner import ConditionEmbedding, ConditionPlanes
from citygrain.networks.style import Mapping, Normal
from citygrain.protocols import Noise, Sampler
from citygrain.samplers.implicit import Truncated
from citygrain.spec import Conditions, LayoutSpec

MIDDLE = 64
"""Number of random styles that are averaged to find the middle, for truncation."""

LEAK = 0.1
"""Slope of the output below 0 and above 1 in training. Most cells are empty or full, and would have no gradient."""


class StyleGan(nn.Module):
    """Noise and conditions become a style that modulates every level of a generator (Karras et al. 2019, 2020).

    Trained without conditions (`unconditional_share=1`, or `data.scalars=[]`), it is the unconditional network.

    Parameters
    ----------
    spec
        Layouts and conditions.
    synthesis
        Makes the generator from `out_channels`, `style`, `planes` and `size_px`.
    critic
        Makes the critic from `in_channels` and `embedding`.
    objective
        The losses of both players; `NonSaturating` by default.
    r1
        Weight of the penalty on the gradient of the critic, see `Game`.
    path_length
        Weight of the path-length penalty: it asks that equal steps of style change layouts by equal amounts.
    obedience
        Weight of the distance between measured and asked conditions, see `Game`.
    noise, style
        Sizes of the noise and of the style.
    mapping
        Number of layers from noise to style.
    sampler
        Used by `sample` unless another is given; `Truncated` by default.
    embedding
        Size of the embedding of the conditions.
    """

    share: Tensor
    path_mean: Tensor

    def __init__(
        self,
        spec: LayoutSpec,
        *,
        synthesis: Callable[..., nn.Module],
        critic: Callable[..., nn.Module],
        objective: GanLoss | None = None,
        r1: float = 5.0,
        path_length: float = 0.0,
        obedience: float = 1.0,
        noise: int = 64,
        style: int = 128,
        mapping: int = 4,
        sampler: Sampler | None = None,
        embedding: int = 128,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.sampler = sampler or Truncated()
        self.noise, self.path_length = noise, path_length
        self.conditioner = ConditionEmbedding(spec, embedding)
        self.planes = ConditionPlanes(spec)
        self.mapping = Mapping(noise=noise, embedding=embedding, style=style, depth=mapping)
        self.synthesis = synthesis(
            out_channels=len(spec.channels), style=style, planes=self.planes.channels, size_px=spec.size_px
        )
        self.game = Game(
            spec,
            critic=critic,
            objective=objective or NonSaturating(),
            r1=r1,
            obedience=obedience,
            embedding=embedding,
        )
        self.register_buffer("share", torch.full((len(spec.channels), 1, 1), 0.5))
        self.register_buffer("path_mean", torch.zeros(()))

    @torch.no_grad()
    def measure_data(self, layouts: Tensor) -> None:
        """Measure the mean coverage, where generation starts, and the critic's standardisation on `(N, C, H, W)`."""
        self.share.copy_(layouts.mean((0, 2, 3))[:, None, None])
        self.game.measure_data(layouts)

    def make_layouts(self, style: Tensor, conditions: Conditions, normal: Normal) -> Tensor:
        """Make layouts `(B, C, H, W)` of styles `(B, style)`. They lie in [0, 1], except for the leak (see `LEAK`)."""
        made = self.share + self.synthesis(style, partial(self.planes, conditions), normal)
        return torch.lerp(made.clamp(0, 1), made, LEAK)

    def loss(self, layout: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the losses of both players."""
        batch = len(layout)

        def normal(*shape: int) -> Tensor:
            return torch.randn(batch, *shape, device=layout.device)

        style = self.mapping(normal(self.noise), self.conditioner(conditions))
        made = self.make_layouts(style, conditions, normal)
        losses = self.game.compute_losses(layout, made, conditions)
        if self.path_length and self.training:
            losses["path_length"] = self.path_length * self._measure_path(made, style)
            losses["loss"] = losses["loss"] + losses["path_length"]
        return losses

    def _measure_path(self, made: Tensor, style: Tensor) -> Tensor:
        """Return the squared distance of the length of ∂layout/∂style, in random directions, from its running mean."""
        direction = torch.randn_like(made) / made[0].numel() ** 0.5
        (slope,) = torch.autograd.grad((made * direction).sum(), style, create_graph=True)
        length = slope.square().sum(1).sqrt()
        mean = torch.lerp(self.path_mean, length.mean().detach(), 0.01)
        self.path_mean.copy_(mean)
        return (length - mean).square().mean()

    def generate(self, conditions: Conditions, noise: Noise, truncation: float) -> Tensor:
        """Generate layouts `(B, C, H, W)` in [0, 1]. Truncation pulls styles to the mean style under the conditions."""
        embedding = self.conditioner(conditions)
        style = self.mapping(noise.normal(self.noise), embedding)
        if truncation != 1:
            many = Noise(range(MIDDLE), embedding.device).normal(self.noise)
            wide = embedding.repeat_interleave(MIDDLE, 0)
            middle = self.mapping(many.repeat(len(embedding), 1), wide).view(len(embedding), MIDDLE, -1).mean(1)
            style = torch.lerp(middle, style, truncation)
        return self.make_layouts(style, conditions, noise.normal).clamp(0, 1)

    @torch.no_grad()
    def sample(self, conditions: Conditions, *, noise: Noise, sampler: Sampler | None = None) -> Tensor:
        """Draw layouts `(B, C, H, W)` in [0, 1]."""
        return (sampler or self.sampler)(self, conditions, noise)
