"""Diffusion of cells whose estimates are probabilities."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from citygrain.models.diffusion import Diffusion, broadcast
from citygrain.models.reconstruction import ReconstructionLoss
from citygrain.models.schedules import Schedule
from citygrain.protocols import Sampler
from citygrain.spec import Conditions, LayoutSpec


class CellDiffusion(Diffusion):
    """Diffusion of cells, which are nearly full or nearly empty, learned by cross-entropy (Dieleman et al. 2022).

    A cell's coverage c is diffused as 2c − 1. What the network gives are log-odds, and the estimate of the clean cell
    is their expectation, tanh(log-odds / 2): it cannot leave −1 … 1, and cross-entropy is least where it is the mean,
    as the squared error is, but does not forgive confident mistakes at the edges of streets and houses. The network
    adds to what a cell tells by itself: 2x / (1 + σ²), after the log-odds of ±1 under normal noise, and those of its
    channel's mean share.

    Parameters
    ----------
    spec
        Layouts and conditions.
    network
        Makes the network from `in_channels`, `out_channels` and `embedding`.
    schedule
        Noise levels that training visits; EDM's by default. What it preconditions and weighs of outputs has no use.
    sampler
        Used by `sample` unless another is given; `Heun` by default.
    embedding
        Size of the embedding of noise level and conditions.
    balance
        How far rare channels are raised, see `ReconstructionLoss`.
    """

    prior: Tensor

    def __init__(
        self,
        spec: LayoutSpec,
        *,
        network: Callable[..., nn.Module],
        schedule: Schedule | None = None,
        sampler: Sampler | None = None,
        embedding: int = 256,
        balance: float = 0.5,
    ) -> None:
        super().__init__(spec, network=network, schedule=schedule, sampler=sampler, embedding=embedding)
        self.shift.fill_(0.5)
        self.scale.fill_(0.5)
        self.error = ReconstructionLoss(len(spec.channels), {"bce": 1.0}, balance)
        self.register_buffer("prior", torch.zeros_like(self.shift))

    @torch.no_grad()
    def measure_data(self, layouts: Tensor) -> None:
        """Set the weight and the mean share of each channel from training layouts `(N, C, H, W)`."""
        self.error.measure_data(layouts)
        self.prior.copy_(layouts.mean((0, 2, 3)).logit(1e-3)[:, None, None])

    def logits(self, x: Tensor, sigma: Tensor, conditions: Conditions) -> Tensor:
        """Log-odds `(B, C, H, W)` of the cells behind `x` at noise levels `(B,)`."""
        scaling = self.schedule.scaling(sigma)
        told = 2 * broadcast(scaling.into).square() * x + self.prior
        return told + self.read_noisy(x, scaling, conditions).float()

    def denoise(self, x: Tensor, sigma: Tensor, conditions: Conditions) -> Tensor:
        """Expectation of the clean `(B, C, H, W)`, in −1 … 1, given `x` at noise levels `(B,)`."""
        return (self.logits(x, sigma, conditions) / 2).tanh()

    def variance(self, clean: Tensor) -> Tensor:
        """Variance of cells that are full or empty, given their expectation in −1 … 1."""
        return (1 - clean.square()).clamp_min(0)

    def code_loss(self, code: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the weighted cross-entropy, above that of the layouts themselves, of layouts `(B, C, H, W)`."""
        clean = self.standardised(code)
        sigma = self.schedule.draw(len(clean), clean.device)
        logits = self.logits(clean + broadcast(sigma) * torch.randn_like(clean), sigma, conditions)
        entropy = F.binary_cross_entropy(code, code, reduction="none")
        error = F.binary_cross_entropy_with_logits(logits, code, reduction="none") - entropy
        return {"loss": (broadcast(1 + 1 / sigma) * self.error.channel_weight * error).mean()}
