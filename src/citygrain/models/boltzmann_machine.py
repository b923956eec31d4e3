"""The restricted Boltzmann machine: two layers of bits, with an energy that is bilinear in them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from citygrain.errors import ConfigError
from citygrain.models.code_space import find_settled
from citygrain.models.replay import Replay
from citygrain.networks.conditioner import ConditionEmbedding, ConditionPlanes
from citygrain.protocols import Biases, Noise, Sampler
from citygrain.samplers.gibbs import Gibbs
from citygrain.spec import Conditions, LayoutSpec


class BoltzmannMachine(nn.Module):
    """A restricted Boltzmann machine over bits of coverage, with biases that depend on conditions (Smolensky 1986).

    With visible bits v and hidden bits h, p(v, h | c) ∝ exp(b(c)·v + a(c)·h + h·Wv). Conditions move the biases (Taylor
    et al. 2007). W is a convolution (Lee et al. 2009), because a window can lie anywhere in a city. A convolution that
    reaches over the whole window gives the plain machine, in which every hidden bit sees every visible bit.

    Parameters
    ----------
    spec
        Layouts and conditions.
    sampler
        Used by `sample` unless another is given; `Gibbs` by default.
    pool
        Edge in cells of the squares that share one visible bit per channel.
    features
        Number of hidden bits at each position.
    reach
        Edge, in squares, of the part of the window that a hidden bit sees. None takes the whole window.
    stride
        Number of squares from one position to the next.
    gibbs
        How often both layers are drawn in one training step.
    capacity, restart
        Settings of the pool of chains that training uses, see `citygrain.models.replay.Replay`.
    embedding
        Size of the embedding of the conditions.
    """

    def __init__(
        self,
        spec: LayoutSpec,
        *,
        sampler: Sampler | None = None,
        pool: int = 2,
        features: int = 128,
        reach: int | None = 8,
        stride: int = 4,
        gibbs: int = 5,
        capacity: int = 256,
        restart: float = 0.5,
        embedding: int = 128,
    ) -> None:
        super().__init__()
        if spec.size_px % pool:
            raise ConfigError("Squares do not fill the layout.", expected=f"a divisor of {spec.size_px}", got=pool)
        self.spec = spec
        self.sampler = sampler or Gibbs()
        self.pool = pool
        self.gibbs = gibbs
        channels, side = len(spec.channels), spec.size_px // pool
        reach, self.stride = (side, side) if reach is None else (reach, stride)
        if reach > side or side % self.stride or (reach - self.stride) % 2 or reach < self.stride:
            raise ConfigError(
                "Hidden bits cannot be laid over the layout like this.",
                expected=f"a stride that divides {side}, and a reach from there to {side} by an even number of squares",
                got=f"reach={reach}, stride={self.stride}",
            )
        self.padding = (reach - self.stride) // 2
        self.replay = Replay(capacity, restart)
        self.weight = nn.Parameter(0.01 * torch.randn(features, channels, reach, reach))
        self.visible_bias = nn.Parameter(torch.zeros(channels, 1, 1))
        self.hidden_bias = nn.Parameter(torch.zeros(features, 1, 1))
        self.conditioner = ConditionEmbedding(spec, embedding)
        self.planes = ConditionPlanes(spec)
        self.visible_shift = nn.Linear(embedding, channels)
        self.hidden_shift = nn.Linear(embedding, features)
        self.map_weight = nn.Parameter(torch.zeros(channels, self.planes.channels))
        self.visible_shape = (channels, side, side)

    @torch.no_grad()
    def measure_data(self, layouts: Tensor) -> None:
        """Set biases that give each channel its mean coverage in training layouts `(N, C, H, W)` (Hinton 2012, 8.1)."""
        share = layouts.mean((0, 2, 3)).clamp(1e-4, 1 - 1e-4)
        self.visible_bias.copy_(share.logit()[:, None, None])

    def biases(self, conditions: Conditions) -> Biases:
        """Return the biases of visible and hidden bits under conditions."""
        embedding = self.conditioner(conditions)
        planes = self.planes(conditions, self.visible_shape[-1])
        visible = (
            self.visible_bias
            + self.visible_shift(embedding)[:, :, None, None]
            + torch.einsum("cp,bphw->bchw", self.map_weight, planes)
        )
        return Biases(
            visible.expand(-1, *self.visible_shape), self.hidden_bias + self.hidden_shift(embedding)[:, :, None, None]
        )

    def hidden_logits(self, visible: Tensor, biases: Biases) -> Tensor:
        """Return the logits `(B, features, h', w')` of the hidden bits given the visible bits."""
        return F.conv2d(visible, self.weight, stride=self.stride, padding=self.padding) + biases.hidden

    def visible_logits(self, hidden: Tensor, biases: Biases) -> Tensor:
        """Return the logits `(B, C, h, w)` of the visible bits given the hidden bits."""
        return F.conv_transpose2d(hidden, self.weight, stride=self.stride, padding=self.padding) + biases.visible

    def read(self, layout: Tensor) -> Tensor:
        """Return the coverage `(B, C, h, w)` of the squares of the visible bits."""
        return F.avg_pool2d(layout, self.pool)

    def settled(self, keep: Tensor) -> Tensor:
        """Return, as bool `(B, C, h, w)`, which visible bits stand for squares that are kept completely."""
        return find_settled(keep, self.visible_shape, channelwise=True)

    def free_energy(self, visible: Tensor, conditions: Conditions) -> Tensor:
        """Return −ln Σₕ exp(b·v + a·h + h·Wv), `(B,)`, of visible bits."""
        biases = self.biases(conditions)
        hidden = F.softplus(self.hidden_logits(visible, biases)).sum((1, 2, 3))
        return -(biases.visible * visible).sum((1, 2, 3)) - hidden

    def loss(self, layout: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the difference of the free energies of data and chains, per bit, and the reconstruction error.

        Each bit is drawn with the coverage of its square as its probability. If the chains have converged, the gradient
        of the difference is the gradient of the negative log-likelihood (contrastive divergence, Hinton 2002; with a
        pool of chains, Tieleman 2008). The value of the difference has no meaning. Outside training, chains begin at
        the data, and are not stored.
        """
        bits = torch.bernoulli(self.read(layout).clamp(0, 1))
        drawn, theirs = self._walk_chains(bits, conditions)
        contrast = (self.free_energy(bits, conditions) - self.free_energy(drawn, theirs)).mean()
        return {
            "loss": contrast / math.prod(self.visible_shape),
            "reconstruction": self._measure_error(bits, conditions),
        }

    @torch.no_grad()
    def _walk_chains(self, bits: Tensor, conditions: Conditions) -> tuple[Tensor, Conditions]:
        """Return the visible bits of chains after some steps, and the conditions of each chain."""
        if not self.training:
            return self._move_chains(bits, conditions), conditions
        slots, begun, theirs = self.replay.draw(bits, conditions)
        moved = self._move_chains(begun, theirs)
        self.replay.keep(slots, moved, theirs)
        return moved, theirs

    def _move_chains(self, visible: Tensor, conditions: Conditions) -> Tensor:
        biases = self.biases(conditions)
        for _ in range(self.gibbs):
            hidden = torch.bernoulli(self.hidden_logits(visible, biases).sigmoid())
            visible = torch.bernoulli(self.visible_logits(hidden, biases).sigmoid())
        return visible

    @torch.no_grad()
    def _measure_error(self, bits: Tensor, conditions: Conditions) -> Tensor:
        """Return the cross-entropy, in nats, of bits and their reconstruction from the expected hidden bits."""
        biases = self.biases(conditions)
        again = self.visible_logits(self.hidden_logits(bits, biases).sigmoid(), biases)
        return F.binary_cross_entropy_with_logits(again, bits)

    @torch.no_grad()
    def sample(self, conditions: Conditions, *, noise: Noise, sampler: Sampler | None = None) -> Tensor:
        """Draw layouts `(B, C, H, W)` in [0, 1]."""
        share = (sampler or self.sampler)(self, conditions, noise)
        return F.interpolate(share, scale_factor=self.pool, mode="nearest")
