"""The vector-quantised autoencoder: it turns layouts into a few tokens, which transformers learn to generate."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from citygrain.models.code_space import compute_code_shape
from citygrain.models.latent_prior import FittedCodec, LatentPrior
from citygrain.models.reconstruction import ReconstructionLoss
from citygrain.networks.quantizer import Quantizer
from citygrain.protocols import Sampler
from citygrain.spec import Conditions, LayoutSpec


class VectorQuantized(FittedCodec):
    """A VQ-VAE: an autoencoder whose decoder only sees the nearest vectors of a book (van den Oord et al. 2017).

    `encode` returns the code before it is quantised, and `decode` quantises it first. So other families can work in the
    continuous code as in that of any codec. `tokens` and `from_tokens` give the discrete code. The code does not depend
    on conditions. They enter through the prior that is fitted to the codes after training, or through a transformer.

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
        Weight of the squared distance of the code from its nearest vectors. It pulls the encoder to the book.
    decay, patience
        How slowly the book follows the codes, and when an unused entry restarts, see `Quantizer`.
    warmup
        Number of training steps in which the decoder's input goes gradually from the code itself to the vectors of the
        book. In the first steps, the code changes faster than a book could follow. 0 quantises from the start.
    reconstruction
        Weights of the reconstruction errors, see `citygrain.models.reconstruction`; cross-entropy by default.
    balance
        How much weight rare channels get in the reconstruction: with 0 every cell counts alike, with 1 every channel.
    prior
        Makes the prior, which is fitted after training.
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
        super().__init__(spec, compute_code_shape(spec, encoder_network, code_channels), prior, sampler)
        self.encoder = encoder_network
        self.decoder = decoder(in_channels=code_channels, out_channels=channels)
        self.book_size = book_size
        self.quantizer = Quantizer(book_size, code_channels, decay=decay, patience=patience)
        self.commitment, self.warmup = commitment, warmup
        self.register_buffer("steps", torch.zeros(()))
        self.reconstruction = ReconstructionLoss(channels, reconstruction or {"bce": 1.0}, balance)

    @torch.no_grad()
    def measure_data(self, layouts: Tensor) -> None:
        """Measure the weight of each channel, and start the book, with training layouts `(N, C, H, W)`."""
        self.reconstruction.measure_data(layouts)
        self.quantizer.start(self.encode(layouts[:256]))

    def encode(self, layout: Tensor) -> Tensor:
        """Return the codes `(B, *code_shape)` of layouts, not yet quantised."""
        return self.encoder(layout * 2 - 1)

    def decode(self, code: Tensor) -> Tensor:
        """Return layouts `(B, C, H, W)` in [0, 1] of codes, which are quantised first."""
        return self.decoder(_pass_straight_through(code, self.quantizer.look_up(self.quantizer(code)))).sigmoid()

    def tokens(self, layout: Tensor) -> Tensor:
        """Return the tokens `(B, h, w)` int64 of layouts."""
        return self.quantizer(self.encode(layout))

    def from_tokens(self, tokens: Tensor) -> Tensor:
        """Return layouts `(B, C, H, W)` in [0, 1] of tokens `(B, h, w)`."""
        return self.decoder(self.quantizer.look_up(tokens)).sigmoid()

    def loss(self, layout: Tensor, conditions: Conditions) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the reconstruction error, the commitment loss, and how much of the book the batch uses.

        `perplexity` is the exponential of the entropy of the tokens: the effective number of used entries. `used` is
        the share of entries that are used at all.
        """
        code = self.encode(layout)
        tokens = self.quantizer(code)
        vectors = self.quantizer.look_up(tokens)
        quantised: Tensor | float = 1.0
        if self.training:
            self.quantizer.learn(code, tokens)
            self.steps += 1
            quantised = (self.steps / max(self.warmup, 1)).clamp_max(1)
        reconstruction = self.reconstruction(self.decoder(_pass_straight_through(code, vectors, quantised)), layout)
        commitment = F.mse_loss(code.float(), vectors)
        share = torch.bincount(tokens.flatten(), minlength=self.book_size) / tokens.numel()
        return {
            "loss": reconstruction + self.commitment * commitment,
            "reconstruction": reconstruction,
            "commitment": commitment,
            "perplexity": torch.special.entr(share).sum().exp(),
            "used": (share > 0).float().mean(),
        }


def _pass_straight_through(code: Tensor, vectors: Tensor, share: Tensor | float = 1.0) -> Tensor:
    """Move a code to its vectors, or a share of the way. Gradients pass straight through to the code."""
    return code + share * (vectors - code).detach()
