"""Diffusion of cells by a network that estimates probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    given, crop_px, crops
        See `Diffusion`.
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
        given: Sequence[str] | None = (),
        crop_px: int | None = None,
        crops: int = 4,
    ) -> None:
        super().__init__(
            spec, network=network, schedule=schedule, sampler=sampler, embedding=embedding, given=given,
            crop_px=crop_px, crops=crops,
        )  # fmt: skip
        self.shift.fill_(0.5)
        self.scale.fill_(0.5)
        self.error = ReconstructionLoss(len(self.made), {"bce": 1.0}, balance)
        self.register_buffer("prior", torch.zeros_like(self.error.channel_weight))

    @torch.no_grad()
    def measure_data(self, layouts: Tensor) -> None:
        """Measure the weight and the mean coverage of each made channel on training layouts `(N, C, H, W)`."""
        made = self.take_made(layouts)
        self.error.measure_data(made)
        self.prior.copy_(made.mean((0, 2, 3)).logit(1e-3)[:, None, None])

    def logits(self, x: Tensor, sigma: Tensor, conditions: Conditions) -> Tensor:
        """Return the log-odds of the clean cells behind `x` at noise levels `(B,)`, for the channels that are made.

        The given channels of `x` have no noise.
        """
        scaling = self.schedule.scaling(sigma)
        told = 2 * broadcast(scaling.into).square() * self.take_made(x) + self.prior
        return told + self.read_noisy(x, scaling, conditions).float()

    def estimate(self, x: Tensor, sigma: Tensor, conditions: Conditions) -> Tensor:
        """Return the expected clean `(B, C, H, W)`, in −1 … 1, for an `x` whose given channels have no noise."""
        return self.put_made(x, (self.logits(x, sigma, conditions) / 2).tanh())

    def variance(self, clean: Tensor) -> Tensor:
        """Return the variance of cells that are full or empty, given their expectation in −1 … 1; 0 if it is given."""
        made = (1 - self.take_made(clean).square()).clamp_min(0)
        return self.put_made(torch.zeros_like(clean), made)

    def code_loss(self, code: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the weighted cross-entropy of layouts `(B, C, H, W)`, minus the entropy of the layouts themselves."""
        code, conditions = self.crop(code, conditions)
        clean = self.standardise(code)
        sigma = self.schedule.draw(len(clean), clean.device)
        logits = self.logits(self.add_noise(clean, sigma), sigma, conditions)
        made = self.take_made(code)
        entropy = F.binary_cross_entropy(made, made, reduction="none")
        error = F.binary_cross_entropy_with_logits(logits, made, reduction="none") - entropy
        return {"loss": (broadcast(1 + 1 / sigma) * self.error.channel_weight * error).mean()}
