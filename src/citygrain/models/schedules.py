"""Noise schedules of diffusion: the noise levels of training, and the scaling of the network at each level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Scaling(NamedTuple):
    """Coefficients of D(x, σ) = skip · x + out · F(in · x, noise), each shaped like `σ`."""

    skip: Tensor
    out: Tensor
    into: Tensor
    noise: Tensor


class Schedule(Protocol):
    """The noise schedule of a diffusion model."""

    def draw(self, batch: int, device: torch.device) -> Tensor:
        """Draw noise levels `(batch,)` for one training step."""
        ...

    def scaling(self, sigma: Tensor) -> Scaling:
        """Preconditioning at noise levels σ."""
        ...

    def weight(self, sigma: Tensor) -> Tensor:
        """Return the weight of the squared error of D at noise levels σ."""
        ...


@dataclass(frozen=True)
class _LogNormal:
    """Noise levels with a normal logarithm, for data of unit variance (a family standardises its data).

    Parameters
    ----------
    log_mean, log_std
        Mean and standard deviation of ln σ in training. EDM has −1.2 and 1.2, for data of standard deviation 0.5. The
        same signal-to-noise ratios at unit variance have a mean of −0.5. Ours are higher and wider, for this reason:
        conditions such as coverage ask for the mean over a layout. Only large noise hides this mean, so the network
        learns these conditions at high noise levels (Hoogeboom et al. 2023 shift the levels by the same argument).
    """

    log_mean: float = 0.4
    log_std: float = 1.4

    def draw(self, batch: int, device: torch.device) -> Tensor:
        """Draw noise levels `(batch,)`. They are stratified over the batch, which lowers the variance of the loss."""
        uniform = (torch.arange(batch, device=device) + torch.rand(batch, device=device)) / batch
        return (self.log_mean + self.log_std * torch.special.ndtri(uniform.clamp(1e-6, 1 - 1e-6))).exp()


@dataclass(frozen=True)
class Edm(_LogNormal):
    """Preconditioning of EDM (Karras et al. 2022, table 1): input and target of the network have unit variance."""

    def scaling(self, sigma: Tensor) -> Scaling:
        """Preconditioning at noise levels σ."""
        total = (sigma**2 + 1).sqrt()
        return Scaling(skip=1 / total**2, out=sigma / total, into=1 / total, noise=sigma.log() / 4)

    def weight(self, sigma: Tensor) -> Tensor:
        """Return the weight with which the loss of a new network is 1 at every noise level."""
        return 1 + 1 / sigma**2


@dataclass(frozen=True)
class FlowMatching(_LogNormal):
    """Rectified flow (Liu et al. 2023; Lipman et al. 2023): straight lines xₜ = (1 − t) x + t ε from data to noise.

    The network sees xₜ and learns the velocity ε − x. In terms of diffusion, t is σ / (1 + σ). So a normal ln σ is a
    logit-normal t (Esser et al. 2024), and every sampler of diffusion models follows this flow too.
    """

    def scaling(self, sigma: Tensor) -> Scaling:
        """Turn the velocity into an estimate of the clean data: D = xₜ − t · F."""
        rest = 1 / (1 + sigma)
        return Scaling(skip=rest, out=-sigma * rest, into=rest, noise=sigma.log() / 4)

    def weight(self, sigma: Tensor) -> Tensor:
        """Return the weight with which the error of D equals the error of the velocity."""
        return (1 + 1 / sigma) ** 2
