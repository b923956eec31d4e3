"""Principal components: the linear codec. Every other codec should beat it at the same size of code."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from citygrain.errors import ConfigError
from citygrain.models.latent_prior import FittedCodec, LatentPrior
from citygrain.protocols import Sampler
from citygrain.spec import Conditions, LayoutSpec


class Pca(FittedCodec):
    """Principal components of square patches, fitted incrementally, batch by batch (Ross et al. 2008).

    There is no gradient descent: in training, `loss` adds its batch to the fit and returns the squared error. With
    several processes, only the windows of the first are fitted, and the others copy its buffers.

    Parameters
    ----------
    spec
        Layouts and conditions.
    patch
        Edge of a patch in cells. None takes the whole layout as one patch; then the code has a single cell.
    code_channels
        Number of components that are kept of each patch.
    balance
        How much weight rare channels get in the fit: each channel is divided by its standard deviation to this power.
        With 0, buildings and green take all components; with 1, cycle tracks weigh as much as they do.
    prior
        Makes the prior, which is fitted after training.
    sampler
        Used by `sample` unless another is given; `FittedMixture` by default.

    Raises
    ------
    ConfigError
        When the patch does not divide the layout, or there are more components than numbers in a patch.
    """

    seen: Tensor
    mean: Tensor
    components: Tensor
    singular: Tensor
    variance: Tensor
    unit: Tensor

    def __init__(
        self,
        spec: LayoutSpec,
        *,
        patch: int | None = 4,
        code_channels: int = 8,
        balance: float = 0.0,
        prior: Callable[..., LatentPrior] | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        edge = spec.size_px if patch is None else patch
        numbers = len(spec.channels) * edge**2
        if edge < 1 or spec.size_px % edge or not 0 < code_channels <= numbers:
            raise ConfigError(
                "Layouts have no such principal components.",
                expected=f"a patch that divides {spec.size_px}, and 1 to {numbers} components of such a patch",
                got=f"patch={patch}, code_channels={code_channels}",
            )
        side = spec.size_px // edge
        super().__init__(spec, (code_channels, side, side), prior, sampler)
        self.patch, self.balance = edge, balance
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(numbers))
        self.register_buffer("components", torch.zeros(code_channels, numbers))
        self.register_buffer("singular", torch.zeros(code_channels))
        self.register_buffer("variance", torch.zeros(()))
        self.register_buffer("unit", torch.ones(len(spec.channels), 1, 1))

    @torch.no_grad()
    def measure_data(self, layouts: Tensor) -> None:
        """Measure the divisor of each channel on training layouts `(N, C, H, W)`."""
        self.unit.copy_(layouts.std((0, 2, 3))[:, None, None].clamp_min(1e-2) ** self.balance)

    def encode(self, layout: Tensor) -> Tensor:
        """Return the components `(B, *code_shape)` of layouts."""
        patches = F.pixel_unshuffle(layout / self.unit, self.patch) - self.mean[:, None, None]
        return torch.einsum("bdhw,cd->bchw", patches, self.components)

    def decode(self, code: Tensor) -> Tensor:
        """Return layouts `(B, C, H, W)` in [0, 1] of codes."""
        patches = torch.einsum("bchw,cd->bdhw", code, self.components) + self.mean[:, None, None]
        return (F.pixel_shuffle(patches, self.patch) * self.unit).clamp(0, 1)

    def loss(self, layout: Tensor, conditions: Conditions) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the mean squared error, and the share of the variance of patches that the components explain."""
        if self.training:
            self.fit(layout)
        error = (self.decode(self.encode(layout)) - layout).square().mean()
        explained = self.singular.square().sum() / (self.seen * self.variance).clamp_min(1e-12)
        return {"loss": error, "explained": explained.float()}

    @torch.no_grad()
    def fit(self, layout: Tensor) -> None:
        """Add layouts `(B, C, H, W)` to the fit. It is exact, except for the components that are dropped each time."""
        patches = F.pixel_unshuffle((layout / self.unit).double(), self.patch).movedim(1, -1).flatten(0, -2)
        new, old = len(patches), self.seen
        middle, total = patches.mean(0), self.seen + len(patches)
        apart = middle - self.mean
        rows = (
            self.singular[:, None] * self.components.double(),
            patches - middle,
            (apart * (old * new / total).sqrt())[None],
        )
        _, singular, components = torch.linalg.svd(torch.cat(rows), full_matrices=False)
        kept = min(len(self.singular), len(singular))
        self.singular[:kept] = singular[:kept].float()
        self.components[:kept] = components[:kept].float()
        spread = (patches - middle).square().sum() + old * self.variance + apart.square().sum() * old * new / total
        self.variance.copy_(spread / total)
        self.mean += (apart * new / total).float()
        self.seen += new
