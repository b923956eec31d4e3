"""How far a reconstruction is from its layout: errors that can be mixed, and channels weighed against each other."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from citygrain.errors import ConfigError

KINDS = ("bce", "mse", "l1")
"""Cross-entropy (the coverage of a cell as a probability), squared and absolute error."""


class ReconstructionLoss(nn.Module):
    """A mixture of errors between logits and layouts, in which rare channels are raised.

    Parameters
    ----------
    channels
        Number of channels.
    mixture
        Weight of each of `KINDS`; those left out are 0.
    balance
        How far rare channels are raised: each is weighted by the error of the best constant guess to the power
        −balance. 0 treats every cell alike (cycle tracks drown), 1 every channel alike.

    Raises
    ------
    ConfigError
        For an error that does not exist, negative weights, or none.
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
        """Set the weight of each channel from training layouts `(N, C, H, W)`."""
        share = layouts.mean((0, 2, 3)).clamp(1e-4, 1 - 1e-4)
        entropy = -(share * share.log() + (1 - share) * (1 - share).log())
        # Cells are nearly full or nearly empty, so these are the errors of the best constant guess.
        guesses = {"bce": entropy, "mse": share * (1 - share), "l1": torch.minimum(share, 1 - share)}
        constant = torch.stack([weight * guesses[kind] for kind, weight in self.mixture.items()]).sum(0)
        weight = constant**-self.balance
        # The weighted errors of constant guesses average to one.
        self.channel_weight.copy_((weight / (weight * constant).mean())[:, None, None])

    def forward(self, logits: Tensor, layout: Tensor) -> Tensor:
        """Return the weighted error of logits against layouts, `(B, C, H, W)` each, as a scalar."""
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
