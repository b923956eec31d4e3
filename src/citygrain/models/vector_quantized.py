"""The vector-quantised autoencoder: layouts as a few tokens out of a book, which transformers learn to write."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from citygrain.models.code_space import code_shape
from citygrain.models.latent_prior import FittedCodec, LatentPrior
from citygrain.models.reconstruction import ReconstructionLoss
from citygrain.networks.quantizer import Quantizer
from citygrain.protocols import Sampler
from citygrain.spec import Conditions, LayoutSpec


class VectorQuantized(FittedCodec):
    """A VQ-VAE: an autoencoder whose decoder sees the nearest vectors of a book only (van den Oord et al. 2017).

    `encode` returns the code before it is quantised, and `decode` quantises first, so that other families can work in
    the continuous code as in any other; `tokens` and `from_tokens` are the discrete way. The code knows nothing of
    conditions; they enter through the prior that is fitted to the codes after training, or through a transformer.

    Parameters
    ----------
    spec
        Layouts and conditions.
    encoder, decoder
        Make the networks from `in_channels` and `out_channels`.
    code_channels
        Channels of the code.
    book_size
        Number of vectors in the book.
    commitment
        Weight of the squared distance of the code from its nearest vectors, which draws the encoder to the book.
    decay, patience
        How slowly the book follows the codes, and when an unused entry begins anew, see `Quantizer`.
    warmup
        Training steps over which the decoder goes from seeing the code itself to seeing the book's vectors: while the
        code still changes from step to step, no book could follow it. 0 quantises from the start.
    reconstruction
        Weights of the reconstruction errors, see `citygrain.models.reconstruction`; cross-entropy by default.
    balance
        How far rare channels are raised in the reconstruction: 0 treats every cell alike, 1 every channel alike.
    prior
        Makes the prior that is fitted after training.
    sampler
        Used by `sample` unless another is given; `FittedMixture` by default.
    """

    steps: Tensor

    def __init__(
        self,
        spec: LayoutSpec,
        *,
        encoder: Callable[..., nn.Module],
        decoder: Callable[..., nn.Module],
        code_channels: int = 8,
        book_size: int = 512,
        commitment: float = 0.25,
        decay: float = 0.99,
        patience: int = 50,
        warmup: int = 200,
        reconstruction: Mapping[str, float] | None = None,
        balance: float = 0.9,
        prior: Callable[..., LatentPrior] | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        channels = len(spec.channels)
        encoder_network = encoder(in_channels=channels, out_channels=code_channels)
        super().__init__(spec, code_shape(spec, encoder_network, code_channels), prior, sampler)
        self.encoder = encoder_network
        self.decoder = decoder(in_channels=code_channels, out_channels=channels)
        self.book_size = book_size
        self.quantizer = Quantizer(book_size, code_channels, decay=decay, patience=patience)
        self.commitment, self.warmup = commitment, warmup
        self.register_buffer("steps", torch.zeros(()))
        self.reconstruction = ReconstructionLoss(channels, reconstruction or {"bce": 1.0}, balance)

    @torch.no_grad()
    def measure_data(self, layouts: Tensor) -> None:
        """Set the weight of each channel, and start the book, from training layouts `(N, C, H, W)`."""
        self.reconstruction.measure_data(layouts)
        self.quantizer.start(self.encode(layouts[:256]))

    def encode(self, layout: Tensor) -> Tensor:
        """Return the codes `(B, *code_shape)` of layouts, not yet quantised."""
        return self.encoder(layout * 2 - 1)

    def decode(self, code: Tensor) -> Tensor:
        """Return layouts `(B, C, H, W)` in [0, 1] of codes, which are quantised on the way."""
        return self.decoder(_straight_through(code, self.quantizer.vectors(self.quantizer(code)))).sigmoid()

    def tokens(self, layout: Tensor) -> Tensor:
        """Return the tokens `(B, h, w)` int64 of layouts."""
        return self.quantizer(self.encode(layout))

    def from_tokens(self, tokens: Tensor) -> Tensor:
        """Return layouts `(B, C, H, W)` in [0, 1] of tokens `(B, h, w)`."""
        return self.decoder(self.quantizer.vectors(tokens)).sigmoid()

    def loss(self, layout: Tensor, conditions: Conditions) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the reconstruction error with the commitment, and how much of the book the batch uses.

        `perplexity` is the number of entries that, used equally often, would be as hard to guess; `used` is the share
        of entries that are used at all.
        """
        code = self.encode(layout)
        tokens = self.quantizer(code)
        vectors = self.quantizer.vectors(tokens)
        quantised: Tensor | float = 1.0
        if self.training:
            self.quantizer.learn(code, tokens)
            self.steps += 1
            quantised = (self.steps / max(self.warmup, 1)).clamp_max(1)
        reconstruction = self.reconstruction(self.decoder(_straight_through(code, vectors, quantised)), layout)
        commitment = F.mse_loss(code.float(), vectors)
        share = torch.bincount(tokens.flatten(), minlength=self.book_size) / tokens.numel()
        return {
            "loss": reconstruction + self.commitment * commitment,
            "reconstruction": reconstruction,
            "commitment": commitment,
            "perplexity": torch.special.entr(share).sum().exp(),
            "used": (share > 0).float().mean(),
        }


def _straight_through(code: Tensor, vectors: Tensor, share: Tensor | float = 1.0) -> Tensor:
    """Return the code moved by a share of the way to its vectors, all of it by default; gradients go to the code."""
    return code + share * (vectors - code).detach()
