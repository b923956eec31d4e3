"""The variational autoencoder: it can generate by itself, and it is the codec of latent diffusion."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from citygrain.models.code_space import compute_code_shape
from citygrain.models.reconstruction import ReconstructionLoss
from citygrain.networks.conditioner import ConditionEmbedding
from citygrain.protocols import Noise, Sampler
from citygrain.samplers.prior import Normal
from citygrain.spec import Conditions, LayoutSpec


class VariationalAutoencoder(nn.Module):
    """A β-VAE whose prior, and not its decoder, sees the conditions (Kingma & Welling 2014; Sohn et al. 2015).

    Encoder and decoder do not see conditions. So the code depends on the layout only, and a diffusion model can replace
    the prior. The prior N(μ(c), σ(c)²) over the code is learned together with them.

    Parameters
    ----------
    spec
        Layouts and conditions.
    encoder, decoder
        Make the networks from `in_channels` and `out_channels`.
    code_channels
        Channels of the code.
    beta
        Weight of the Kullback–Leibler divergence from the prior, in nats per code element, against the reconstruction.
    reconstruction
        Weights of the reconstruction errors, see `citygrain.models.reconstruction`; cross-entropy by default.
    balance
        How much weight rare channels get in the reconstruction: with 0 every cell counts alike, with 1 every channel.
    sampler
        Used by `sample` unless another is given; `Normal` by default.
    embedding
        Size of the conditions' embedding.
    """

    def __init__(
        self,
        spec: LayoutSpec,
        *,
        encoder: Callable[..., nn.Module],
        decoder: Callable[..., nn.Module],
        code_channels: int = 8,
        beta: float = 1e-3,
        reconstruction: Mapping[str, float] | None = None,
        balance: float = 0.9,
        sampler: Sampler | None = None,
        embedding: int = 128,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.beta = beta
        self.sampler = sampler or Normal()
        channels = len(spec.channels)
        self.encoder = encoder(in_channels=channels, out_channels=2 * code_channels)
        self.decoder = decoder(in_channels=code_channels, out_channels=channels)
        self.code_shape = compute_code_shape(spec, self.encoder, code_channels)
        self.conditioner = ConditionEmbedding(spec, embedding)
        self.prior_network = _PriorNetwork(embedding, *self.code_shape[:2])
        self.reconstruction = ReconstructionLoss(
            channels, {"bce": 1.0} if reconstruction is None else reconstruction, balance
        )

    def measure_data(self, layouts: Tensor) -> None:
        """Measure the weight of each channel on training layouts `(N, C, H, W)`."""
        self.reconstruction.measure_data(layouts)

    def posterior(self, layout: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of the code, each `(B, *code_shape)`."""
        mean, log_variance = self.encoder(layout * 2 - 1).chunk(2, 1)
        return mean, log_variance.clamp(-12, 6)

    def prior(self, conditions: Conditions) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the code given conditions, each `(B, *code_shape)`."""
        mean, log_variance = self.prior_network(self.conditioner(conditions)).chunk(2, 1)
        return mean, (log_variance.clamp(-12, 6) / 2).exp()

    def encode(self, layout: Tensor) -> Tensor:
        """Return the mean code `(B, *code_shape)` of layouts."""
        return self.posterior(layout)[0]

    def decode(self, code: Tensor) -> Tensor:
        """Return layouts `(B, C, H, W)` in [0, 1] of codes."""
        return self.decoder(code).sigmoid()

    def loss(self, layout: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the negative evidence lower bound and its two parts, per cell and per code element."""
        mean, log_variance = self.posterior(layout)
        code = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        reconstruction = self.reconstruction(self.decoder(code), layout)
        prior_mean, prior_spread = self.prior(conditions)
        prior_variance = prior_spread**2
        divergence = 0.5 * (
            (log_variance.exp() + (mean - prior_mean) ** 2) / prior_variance - 1 - log_variance + prior_variance.log()
        )
        kl = divergence.mean()
        return {"loss": reconstruction + self.beta * kl, "reconstruction": reconstruction, "kl": kl}

    @torch.no_grad()
    def sample(self, conditions: Conditions, *, noise: Noise, sampler: Sampler | None = None) -> Tensor:
        """Draw layouts `(B, C, H, W)` in [0, 1]."""
        return self.decode((sampler or self.sampler)(self, conditions, noise))


class _PriorNetwork(nn.Module):
    """Map an embedding `(B, E)` to mean and log-variance of the code, `(B, 2 · channels, side, side)`."""

    def __init__(self, embedding: int, code_channels: int, side: int, width: int = 64, coarse: int = 4) -> None:
        super().__init__()
        self.coarse = min(coarse, side)
        self.start = nn.Linear(embedding, width * self.coarse**2)
        self.position = nn.Parameter(torch.zeros(1, width, side, side))
        self.refine = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * code_channels, 3, padding=1),
        )

    def forward(self, embedding: Tensor) -> Tensor:
        grid = self.start(embedding).unflatten(1, (-1, self.coarse, self.coarse))
        return self.refine(F.interpolate(grid, size=self.position.shape[-2:], mode="bilinear") + self.position)
