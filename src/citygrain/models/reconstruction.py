"""The error of a reconstruction: a mixture of errors, with a weight for each channel."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from citygrain.errors import ConfigError

KINDS = ("bce", "mse", "l1")
"""Cross-entropy (with the coverage of a cell as a probability), squared error and absolute error."""


class ReconstructionLoss(nn.Module):
    """A mixture of errors between logits and layouts, in which rare channels get more weight.

    Parameters
    ----------
    channels
        Number of channels.
    mixture
        Weight of each of `KINDS`. Weights that are left out are 0.
    balance
        How much weight rare channels get: the weight of a channel is the error of the best constant guess to the power
        −balance. With 0 every cell counts alike (cycle tracks have next to no weight), with 1 every channel.

    Raises
    ------
    ConfigError
        When a kind of error does not exist, a weight is negative, or all weights are 0.
    """

    channel_weight: Tensor

    def __init__(self, channels: int, mixture: Mapping[str, float], balance: float) -> None:
        super().__init__()
        unknown = [kind for kind in mixture if kind not in KINDS]
        if unknown:
            raise ConfigError("There is no such reconstruction error.", got=unknown[0], choices=KINDS)
        numbers = all(isinstance(weight, int | float) and weight >= 0 for weight in mixture.values())
        self.mixture = {kind: weight for kind, weight in mixture.items() if weight}
        if not self.mixture or not numbers:
            raise ConfigError(
                "A mixture of reconstruction errors has positive weights.",
                expected="such as bce=1.0",
                got=dict(mixture),
            )
        self.balance = balance
        self.register_buffer("channel_weight", torch.ones(channels, 1, 1))

    @torch.no_grad()
    def measure_data(self, layouts: Tensor) -> None:
        """Measure the weight of each channel on training layouts `(N, C, H, W)`."""
        share = layouts.mean((0, 2, 3)).clamp(1e-4, 1 - 1e-4)
        entropy = -(share * share.log() + (1 - share) * (1 - share).log())
        # Cells are nearly full or nearly empty, so these are the errors of the best constant guess.
        guesses = {"bce": entropy, "mse": share * (1 - share), "l1": torch.minimum(share, 1 - share)}
        constant = torch.stack([weight * guesses[kind] for kind, weight in self.mixture.items()]).sum(0)
        weight = constant**-self.balance
        # With this factor, the weighted errors of constant guesses have a mean of 1.
        self.channel_weight.copy_((weight / (weight * constant).mean())[:, None, None])

    def forward(self, logits: Tensor, layout: Tensor) -> Tensor:
        """Return the weighted error of logits and layouts, `(B, C, H, W)` each, as a scalar."""
        errors = []
        for kind, weight in self.mixture.items():
            if kind == "bce":
                error = F.binary_cross_entropy_with_logits(logits, layout, reduction="none")
            elif kind == "mse":
                error = (logits.sigmoid() - layout) ** 2
            else:
                error = (logits.sigmoid() - layout).abs()
            errors.append(weight * error)
        return (self.channel_weight * torch.stack(errors).sum(0)).mean()
