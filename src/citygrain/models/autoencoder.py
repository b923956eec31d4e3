"""Autoencoders that are trained to reconstruct: undercomplete, sparse and denoising."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from citygrain.errors import ConfigError
from citygrain.models.code_space import compute_code_shape
from citygrain.models.latent_prior import FittedCodec, LatentPrior
from citygrain.models.reconstruction import ReconstructionLoss
from citygrain.protocols import Sampler
from citygrain.spec import Conditions, LayoutSpec


class Sparsity(Protocol):
    """A way to keep a code sparse."""

    def activate(self, code: Tensor) -> Tensor:
        """Return the activities `(B, c, h, w)`, at least 0, of the output of the encoder."""
        ...

    def penalty(self, activity: Tensor) -> Tensor:
        """Return the scalar that is added to the loss."""
        ...


@dataclass(frozen=True)
class ActivityL1:
    """Rectified activities with a penalty on their mean, so that most of them are exactly 0 (Glorot et al. 2011).

    Parameters
    ----------
    weight
        Weight of the mean activity in the loss. It needs weight decay, or the decoder makes up for small codes.
    """

    weight: float = 0.05

    def activate(self, code: Tensor) -> Tensor:
        """Rectify. Inactive elements keep a tenth of their gradient, so that they can become active again."""
        leak = 0.1 * code.clamp_max(0)
        return code.relu() + leak - leak.detach()

    def penalty(self, activity: Tensor) -> Tensor:
        """Return the weighted mean activity. Inactive elements get no gradient: it would push them down for ever."""
        return self.weight * activity.relu().mean()


@dataclass(frozen=True)
class ActivityKL:
    """Activities in (0, 1) whose mean in each channel is pulled to a target rate (Ng 2011, CS294A lecture notes).

    Parameters
    ----------
    weight
        Weight in the loss of the Kullback–Leibler divergence, summed over the channels.
    rate
        Target of the mean activity of each channel.
    """

    weight: float = 0.1
    rate: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ConfigError("A target rate lies between 0 and 1.", got=self.rate)

    def activate(self, code: Tensor) -> Tensor:
        """Squash into (0, 1)."""
        return code.sigmoid()

    def penalty(self, activity: Tensor) -> Tensor:
        """Return the weighted divergence of two Bernoulli distributions: target rate from mean activity."""
        mean = activity.float().mean((0, 2, 3)).clamp(1e-6, 1 - 1e-6)
        rate = torch.full_like(mean, self.rate)
        divergence = rate * (rate / mean).log() + (1 - rate) * ((1 - rate) / (1 - mean)).log()
        return self.weight * divergence.sum()


class Autoencoder(FittedCodec):
    """An encoder and a decoder, with a code smaller than the layout (Hinton & Salakhutdinov 2006).

    The code does not depend on conditions. They enter through the prior that is fitted to the codes after training.

    Parameters
    ----------
    spec
        Layouts and conditions.
    encoder, decoder
        Make the networks from `in_channels` and `out_channels`.
    code_channels
        Channels of the code.
    reconstruction
        Weights of the reconstruction errors, see `citygrain.models.reconstruction`; cross-entropy by default.
    balance
        How much weight rare channels get in the reconstruction: with 0 every cell counts alike, with 1 every channel.
    sparsity
        `ActivityL1` or `ActivityKL` keep most of the code inactive. None adds no such penalty.
    noise, erased
        Corruption of the layouts that the encoder sees in training; the decoder must still return the clean layout
        (Vincent et al. 2010). Standard deviation of Gaussian noise on the coverage, and share of cells that are set to
        zero in all channels.
    prior
        Makes the prior, which is fitted after training.
    sampler
        Used by `sample` unless another is given; `FittedMixture` by default.
    """

    def __init__(
        self,
        spec: LayoutSpec,
        *,
        encoder: Callable[..., nn.Module],
        decoder: Callable[..., nn.Module],
        code_channels: int = 8,
        reconstruction: Mapping[str, float] | None = None,
        balance: float = 0.9,
        sparsity: Sparsity | None = None,
        noise: float = 0.0,
        erased: float = 0.0,
        prior: Callable[..., LatentPrior] | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        if noise < 0 or not 0 <= erased < 1:
            raise ConfigError(
                "Layouts cannot be corrupted like this.",
                expected="noise ≥ 0 and 0 ≤ erased < 1",
                got=f"noise={noise}, erased={erased}",
            )
        channels = len(spec.channels)
        encoder_network = encoder(in_channels=channels, out_channels=code_channels)
        super().__init__(spec, compute_code_shape(spec, encoder_network, code_channels), prior, sampler)
        self.encoder = encoder_network
        self.decoder = decoder(in_channels=code_channels, out_channels=channels)
        self.reconstruction = ReconstructionLoss(channels, reconstruction or {"bce": 1.0}, balance)
        self.sparsity, self.noise, self.erased = sparsity, noise, erased

    def measure_data(self, layouts: Tensor) -> None:
        """Set the weight of each channel from training layouts `(N, C, H, W)`."""
        self.reconstruction.measure_data(layouts)

    def encode(self, layout: Tensor) -> Tensor:
        """Return the codes `(B, *code_shape)` of layouts."""
        code = self.encoder(layout * 2 - 1)
        return code if self.sparsity is None else self.sparsity.activate(code)

    def decode(self, code: Tensor) -> Tensor:
        """Return layouts `(B, C, H, W)` in [0, 1] of codes."""
        return self.decoder(code).sigmoid()

    def loss(self, layout: Tensor, conditions: Conditions) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the reconstruction error and, with sparsity, the penalty and the share of the code that is active."""
        code = self.encode(self.corrupt(layout) if self.training else layout)
        reconstruction = self.reconstruction(self.decoder(code), layout)
        if self.sparsity is None:
            return {"loss": reconstruction}
        penalty = self.sparsity.penalty(code)
        active = (code.detach() > ACTIVE).float().mean()
        return {
            "loss": reconstruction + penalty,
            "reconstruction": reconstruction,
            "sparsity": penalty,
            "active": active,
        }

    def corrupt(self, layout: Tensor) -> Tensor:
        """Corrupt layouts `(B, C, H, W)` as the encoder sees them in training."""
        if self.noise:
            layout = layout + self.noise * torch.randn_like(layout)
        if self.erased:
            layout = layout * (torch.rand_like(layout[:, :1]) >= self.erased)
        return layout


ACTIVE = 0.01
"""Activity above which an element of a sparse code counts as active."""
