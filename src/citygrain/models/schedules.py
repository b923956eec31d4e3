"""Noise schedules of diffusion: which noise levels training visits, and how the network is scaled at each."""

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
    """What a diffusion model asks of its schedule."""

    def draw(self, batch: int, device: torch.device) -> Tensor:
        """Noise levels `(batch,)` for one training step."""
        ...

    def scaling(self, sigma: Tensor) -> Scaling:
        """Preconditioning at noise levels σ."""
        ...

    def weight(self, sigma: Tensor) -> Tensor:
        """Weight of the squared error of D at noise levels σ."""
        ...


@dataclass(frozen=True)
class Edm:
    """Preconditioning and noise distribution of EDM (Karras et al. 2022, table 1), for data of unit variance.

    Parameters
    ----------
    log_mean, log_std
        ln σ is normal with this mean and standard deviation in training. Theirs is −1.2 and 1.2 for data of standard
        deviation 0.5, which is −0.5 and 1.2 at unit variance. Ours are higher and wider: what conditions such as
        coverage ask for is the mean over a layout, which only large noise drowns, so that is where they are learned
        (Hoogeboom et al. 2023 shift the levels by the same argument).
    sigma_data
        Standard deviation of the data; 1, since the family standardises what it diffuses.
    """

    log_mean: float = 0.4
    log_std: float = 1.4
    sigma_data: float = 1.0

    def draw(self, batch: int, device: torch.device) -> Tensor:
        """Noise levels `(batch,)`: stratified over the batch, which lowers the variance of the loss."""
        uniform = (torch.arange(batch, device=device) + torch.rand(batch, device=device)) / batch
        return (self.log_mean + self.log_std * torch.special.ndtri(uniform.clamp(1e-6, 1 - 1e-6))).exp()

    def scaling(self, sigma: Tensor) -> Scaling:
        """Preconditioning at noise levels σ."""
        total = (sigma**2 + self.sigma_data**2).sqrt()
        return Scaling(
            skip=self.sigma_data**2 / total**2,
            out=sigma * self.sigma_data / total,
            into=1 / total,
            noise=sigma.log() / 4,
        )

    def weight(self, sigma: Tensor) -> Tensor:
        """Weight that makes every noise level's initial loss 1."""
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2
