"""Diffusion of cells by a network that estimates probabilities."""

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
    """Diffusion of cells that are nearly full or nearly empty, learned by cross-entropy (Dieleman et al. 2022).

    A cell's coverage c is diffused as 2c − 1. The network returns log-odds, and the estimate of the clean cell is their
    expectation, tanh(log-odds / 2), which always lies in −1 … 1. Like the squared error, cross-entropy is smallest when
    the estimate is the mean; but it punishes confident mistakes at the edges of streets and houses more. The network's
    output is added to two terms: 2x / (1 + σ²), after the log-odds of ±1 under normal noise, and the log-odds of the
    mean coverage of the channel.

    Parameters
    ----------
    spec
        Layouts and conditions.
    network
        Makes the network from `in_channels`, `out_channels` and `embedding`.
    schedule
        Noise levels of training; EDM's by default. Only its input scaling is used: outputs are log-odds, and the loss
        has its own weights.
    sampler
        Used by `sample` unless another is given; `Heun` by default.
    embedding
        Size of the embedding of noise level and conditions.
    balance
        How much weight rare channels get, see `ReconstructionLoss`.
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
        """Measure the weight and the mean coverage of each channel on training layouts `(N, C, H, W)`."""
        self.error.measure_data(layouts)
        self.prior.copy_(layouts.mean((0, 2, 3)).logit(1e-3)[:, None, None])

    def logits(self, x: Tensor, sigma: Tensor, conditions: Conditions) -> Tensor:
        """Return the log-odds `(B, C, H, W)` of the clean cells behind `x` at noise levels `(B,)`."""
        scaling = self.schedule.scaling(sigma)
        told = 2 * broadcast(scaling.into).square() * x + self.prior
        return told + self.read_noisy(x, scaling, conditions).float()

    def denoise(self, x: Tensor, sigma: Tensor, conditions: Conditions) -> Tensor:
        """Return the expected clean `(B, C, H, W)`, in −1 … 1, given `x` at noise levels `(B,)`."""
        return (self.logits(x, sigma, conditions) / 2).tanh()

    def variance(self, clean: Tensor) -> Tensor:
        """Return the variance of cells that are full or empty, given their expectation in −1 … 1."""
        return (1 - clean.square()).clamp_min(0)

    def code_loss(self, code: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the weighted cross-entropy of layouts `(B, C, H, W)`, minus the entropy of the layouts themselves."""
        clean = self.standardise(code)
        sigma = self.schedule.draw(len(clean), clean.device)
        logits = self.logits(clean + broadcast(sigma) * torch.randn_like(clean), sigma, conditions)
        entropy = F.binary_cross_entropy(code, code, reduction="none")
        error = F.binary_cross_entropy_with_logits(logits, code, reduction="none") - entropy
        return {"loss": (broadcast(1 + 1 / sigma) * self.error.channel_weight * error).mean()}
