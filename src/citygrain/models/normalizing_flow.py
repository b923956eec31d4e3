"""The normalizing flow, in cells or in the code of a codec: a generator that can compute likelihoods."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from citygrain.models.code_space import CodeSpace
from citygrain.networks.conditioner import ConditionEmbedding, ConditionPlanes
from citygrain.networks.flow import Context
from citygrain.protocols import Noise, Sampler
from citygrain.samplers.flow import Base
from citygrain.spec import Conditions, LayoutSpec

LEVELS = 256
"""Number of levels of coverage: it is stored in steps of 1/255."""


class NormalizingFlow(CodeSpace):
    """A bijection between layouts, or their codes, and normal noise (Dinh et al. 2017; Kingma & Dhariwal 2018).

    First, cells become standard normal, channel by channel: through the distribution function of their 256 levels of
    coverage over the training set (Gaussianisation, Chen & Gopinath 2000), with uniform noise within a level (Theis et
    al. 2016). Most cells are exactly empty or full. As plain numbers they would be spikes of the density, and couplings
    would make these higher without end. Here each level becomes an interval of the normal distribution, with its
    frequency as its probability. So the flow only has to learn how cells depend on each other.

    Parameters
    ----------
    spec
        Layouts and conditions.
    flow
        Makes the bijection from `shape`, `embedding` and `planes`, as `citygrain.networks.flow.Glow`.
    sampler
        Used by `sample` unless another is given; `Base` by default.
    codec
        A model with a code of such layouts, see `CodeSpace`. None works in cells.
    grain
        Width, in standard deviations, of the uniform noise on codes. Without it, the density of a flow would grow
        without limit at codes that it sees again.
    embedding
        Size of the embedding of the conditions.
    """

    def __init__(
        self,
        spec: LayoutSpec,
        *,
        flow: Callable[..., nn.Module],
        sampler: Sampler | None = None,
        codec: nn.Module | None = None,
        grain: float = 0.1,
        embedding: int = 128,
    ) -> None:
        super().__init__(spec, codec)
        self.sampler = sampler or Base()
        self.grain = grain
        self.marginals = Marginals(self.latent_shape[0]) if codec is None else None
        self.conditioner = ConditionEmbedding(spec, embedding)
        self.planes = ConditionPlanes(spec)
        self.flow: Any = flow(shape=self.latent_shape, embedding=embedding, planes=self.planes.channels)

    @torch.no_grad()
    def measure_data(self, layouts: Tensor) -> None:
        """Measure the distribution of cells or codes on layouts `(N, C, H, W)`, and initialise the flow."""
        if self.marginals is None:
            super().measure_data(layouts)
        else:
            self.marginals.measure_data(layouts)
        clean, _ = self.to_clean(self.to_code(layouts[:MEASURED]), torch.rand(self.latent_shape).to(layouts))
        nothing = Conditions.empty(self.spec, len(clean)).to(clean.device)
        self.flow.initialise(clean, self.to_context(nothing))

    def to_clean(self, code: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Return the clean tensors of codes, and the logarithm `(B,)` of the factor between their densities.

        Parameters
        ----------
        code
            `to_code` of layouts, `(B, *latent_shape)`.
        uniform
            Numbers from [0, 1) that broadcast to the shape of the code: the place of each cell within its level.
        """
        if self.marginals is not None:
            return self.marginals(code, uniform)
        volume = self.scale.log().sum() * math.prod(self.latent_shape[1:])
        return self.standardise(code) + self.grain * (uniform - 0.5), -volume.expand(len(code))

    def to_layout(self, clean: Tensor) -> Tensor:
        """Return the layouts `(B, C, H, W)` in [0, 1] of clean `(B, *latent_shape)`."""
        return super().to_layout(clean) if self.marginals is None else self.marginals.inverse(clean)

    def to_context(self, conditions: Conditions) -> Context:
        """Return the conditions as the flow sees them."""
        return Context(self.conditioner(conditions), self.planes(conditions, self.latent_shape[-1]))

    def inverse(self, z: Tensor, conditions: Conditions) -> Tensor:
        """Return the clean `(B, *latent_shape)` of noise of the same shape."""
        return self.flow.inverse(z, self.to_context(conditions))

    def log_density(self, code: Tensor, conditions: Conditions, uniform: Tensor) -> Tensor:
        """Return the log-density `(B,)` of codes in nats; `uniform` gives the place of cells within levels."""
        clean, entering = self.to_clean(code, uniform)
        z, within = self.flow(clean, self.to_context(conditions))
        normal = -0.5 * (z**2 + math.log(2 * math.pi)).sum((1, 2, 3))
        return normal + within + entering

    def log_likelihood(self, layout: Tensor, conditions: Conditions) -> Tensor:
        """Return the natural logarithm of the likelihood `(B,)` of layouts `(B, C, H, W)`.

        In cells, it is the log-probability of the coverage in 256 levels, estimated from below. The expectation over
        the noise within the levels is a lower bound of it (Theis et al. 2016, eq. 3), and one field of noise, the same
        for all layouts, estimates this expectation. In a code, it is the log-density of the code with its grain, which
        can be positive.
        """
        generator = torch.Generator().manual_seed(0)
        uniform = torch.rand(self.latent_shape, generator=generator).to(layout)
        return self.log_density(self.to_code(layout), conditions, uniform)

    def code_loss(self, code: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the negative log-likelihood of codes in nats per dimension, and in bits per cell of their layouts.

        The bits of a cell are summed over its channels. With a codec, they are the bits of the code's density, divided
        by the number of cells. This is not a probability of the layout, and only comparable under the same codec.
        """
        nats = -self.log_density(code, conditions, torch.rand_like(code)).mean()
        bits = nats.detach() / math.log(2)
        return {"loss": nats / math.prod(self.latent_shape), "bits_per_cell": bits / self.spec.size_px**2}

    def loss(self, layout: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the negative log-likelihood of layouts `(B, C, H, W)`, see `code_loss`."""
        return self.code_loss(self.to_code(layout), conditions)

    @torch.no_grad()
    def sample(self, conditions: Conditions, *, noise: Noise, sampler: Sampler | None = None) -> Tensor:
        """Draw layouts `(B, C, H, W)` in [0, 1]."""
        return self.to_layout((sampler or self.sampler)(self, conditions, noise))


class Marginals(nn.Module):
    """Turn coverage in 256 levels into standard normal numbers, and back, by the distribution function of each channel.

    Parameters
    ----------
    channels
        Number of channels. Before they are measured, all levels are equally frequent.
    """

    edges: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        # Double precision: a level may have one cell in millions, and near 1 single precision cannot tell this from 0.
        self.register_buffer("edges", torch.linspace(0, 1, LEVELS + 1, dtype=torch.float64).repeat(channels, 1))

    def measure_data(self, layouts: Tensor) -> None:
        """Measure the distribution function of each channel on training layouts `(N, C, H, W)`."""
        levels = (layouts * (LEVELS - 1)).round().long().movedim(1, 0).flatten(1)
        counts = torch.stack([channel.bincount(minlength=LEVELS) for channel in levels]).double()
        shares = counts + 1 / LEVELS  # a level that does not occur is rare, not impossible
        self.edges[:, 1:] = (shares / shares.sum(1, keepdim=True)).cumsum(1)
        self.edges[:, -1] = 1

    def forward(self, layout: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Return the normal numbers of layouts, and the log-probability of the layouts minus their normal log-density.

        The probability of a level is its share of cells, and `uniform` gives the place of a cell within its level. So
        −log-density of a model of these numbers, minus the second result, is a bound of −log-probability of the
        layouts.
        """
        level = (layout * (LEVELS - 1)).round().long()
        channel = torch.arange(len(self.edges), device=layout.device)[:, None, None]
        low, high = self.edges[channel, level], self.edges[channel, level + 1]
        normal = torch.special.ndtri((low + (high - low) * uniform).clamp(1e-12, 1 - 1e-12))
        entering = (high - low).log() + 0.5 * (normal**2 + math.log(2 * math.pi))
        return normal.to(layout.dtype), entering.sum((1, 2, 3)).to(layout.dtype)

    def inverse(self, normal: Tensor) -> Tensor:
        """Return layouts in [0, 1], continuous in `normal`. Rounded to 256 levels, they are the layouts of `forward`.

        Most cells lie deep in the first or the last level. There the gradient would be 0, and would not show the way to
        other levels. So the gradient is that of the expected coverage under a little noise on the number.
        """
        share = torch.special.ndtr(normal.double())
        rows = share.movedim(1, 0).flatten(1).contiguous()
        level = torch.searchsorted(self.edges[:, 1:-1].contiguous(), rows, right=True)
        low, high = self.edges.gather(1, level), self.edges.gather(1, level + 1)
        place = (level + (rows - low) / (high - low)).unflatten(1, (len(normal), *normal.shape[2:])).movedim(0, 1)
        layout = ((place - 0.5) / (LEVELS - 1)).clamp(0, 1).to(normal.dtype)
        if not normal.requires_grad:
            return layout
        around = self._expect_coverage(normal)
        return layout.detach() + around - around.detach()

    def _expect_coverage(self, normal: Tensor, reach: float = 6.0, knots: int = 121, shaken: float = 0.5) -> Tensor:
        """Return the expected coverage under noise of standard deviation `shaken`, interpolated between knots."""
        at = torch.linspace(-reach, reach, knots, device=normal.device, dtype=torch.float64)
        steps = torch.special.ndtri(self.edges[:, 1:-1].clamp(1e-12, 1 - 1e-12))
        table = torch.special.ndtr((at[:, None] - steps[:, None]) / shaken).mean(-1).to(normal.dtype)
        position = (normal + reach) * ((knots - 1) / (2 * reach))
        knot = position.detach().long().clamp(0, knots - 2)
        channel = torch.arange(len(table), device=normal.device)[:, None, None]
        below, above = table[channel, knot], table[channel, knot + 1]
        return below + (position - knot) * (above - below)


MEASURED = 256
"""Number of layouts that the flow is initialised with."""
