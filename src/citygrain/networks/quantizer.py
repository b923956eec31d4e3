"""Vector quantisation: each vector is replaced by the nearest entry of a book."""

from __future__ import annotations

import torch
import torch.distributed as dist
from einops import rearrange
from torch import Tensor, nn

from citygrain.errors import ConfigError

SMOOTHING = 1e-5
"""Added to the count of every entry (Laplace smoothing), so that the mean of an unused entry is not 0 / 0."""

START_FROM = 16
"""Number of vectors per entry that `start` chooses the first entries from."""


class Quantizer(nn.Module):
    """Find the nearest entries of a book, and let the book follow the codes (van den Oord et al. 2017, appendix A.1).

    An entry is the running mean of the vectors that were nearest to it. It gets no gradient. An entry that was nearest
    to no vector for a while restarts at a vector of the batch (after Dhariwal et al. 2020); otherwise most of the book
    would never be used. Several processes share one book: they add up their counts and sums.

    Parameters
    ----------
    book_size
        Number of entries.
    channels
        Length of a vector.
    decay
        Share of the old running mean that remains after a batch.
    patience
        Number of batches that an entry may stay unused before it restarts.
    """

    book: Tensor
    counts: Tensor
    sums: Tensor
    idle: Tensor

    def __init__(self, book_size: int, channels: int, *, decay: float = 0.99, patience: int = 50) -> None:
        super().__init__()
        if book_size < 2 or patience < 1 or not 0 <= decay < 1:
            raise ConfigError(
                "A book cannot be kept like this.",
                expected="book_size ≥ 2, 0 ≤ decay < 1, patience ≥ 1",
                got=f"book_size={book_size}, decay={decay}, patience={patience}",
            )
        self.decay, self.patience = decay, patience
        self.register_buffer("book", torch.randn(book_size, channels))
        self.register_buffer("counts", torch.ones(book_size))
        self.register_buffer("sums", self.book.clone())
        self.register_buffer("idle", torch.zeros(book_size))

    def forward(self, code: Tensor) -> Tensor:
        """Return the tokens `(B, h, w)` of the entries nearest to the vectors of codes `(B, c, h, w)`."""
        with torch.autocast(code.device.type, enabled=False):  # in half precision, other entries could be nearest
            vectors = rearrange(code.detach().float(), "b c h w -> b h w c")
            # |v − e|² = |v|² − 2 v·e + |e|². The first term is the same for all entries.
            return (self.book.square().sum(1) - 2 * vectors @ self.book.T).argmin(-1)

    def look_up(self, tokens: Tensor) -> Tensor:
        """Return the entries `(B, c, h, w)` of tokens `(B, h, w)`."""
        return rearrange(self.book[tokens], "b h w c -> b c h w")

    @torch.no_grad()
    def start(self, code: Tensor) -> None:
        """Spread the book out over the vectors of codes `(N, c, h, w)`."""
        vectors = _flatten(code)
        vectors = vectors[torch.randperm(len(vectors), device=vectors.device)[: START_FROM * len(self.book)]]
        self._restart(torch.ones_like(self.idle, dtype=torch.bool), _choose_far_apart(vectors, len(self.book)))

    @torch.no_grad()
    def learn(self, code: Tensor, tokens: Tensor) -> None:
        """Move the entries towards the vectors of a batch of codes `(B, c, h, w)`, given their tokens `(B, h, w)`."""
        vectors, chosen = _flatten(code), tokens.flatten()
        counts = _sum_over_processes(torch.bincount(chosen, minlength=len(self.book)).to(vectors))
        sums = _sum_over_processes(torch.zeros_like(self.sums).index_add_(0, chosen, vectors))
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        total = self.counts.sum()
        smoothed = (self.counts + SMOOTHING) * total / (total + SMOOTHING * len(self.book))
        self.book.copy_(self.sums / smoothed[:, None])
        self.idle.copy_(torch.where(counts > 0, 0.0, self.idle + 1))
        gone = self.idle >= self.patience
        if gone.any():
            self._restart(gone, vectors[torch.randint(len(vectors), gone.shape, device=vectors.device)])

    def _restart(self, which: Tensor, vectors: Tensor) -> None:
        """Set the entries where `which` `(K,)` is true to their `vectors` `(K, c)`."""
        if _is_distributed():
            dist.broadcast(vectors, 0)  # every process has chosen other vectors; all take those of the first
        for buffer, value in (
            (self.book, vectors),
            (self.sums, vectors),
            (self.counts, torch.ones_like(self.counts)),
            (self.idle, torch.zeros_like(self.idle)),
        ):
            buffer[which] = value[which]


def _flatten(code: Tensor) -> Tensor:
    return rearrange(code.detach().float(), "b c h w -> (b h w) c")


def _choose_far_apart(vectors: Tensor, count: int) -> Tensor:
    """Choose `count` vectors of `(N, c)` by the seeding of k-means++ (Arthur & Vassilvitskii 2007).

    The odds of a vector are in proportion to its squared distance from the vectors chosen before.
    """
    chosen = [vectors[0]]
    distance = vectors.new_full((len(vectors),), torch.inf)
    for _ in range(count - 1):
        distance = torch.minimum(distance, (vectors - chosen[-1]).square().sum(1))
        odds = distance + 1e-12  # where there are fewer different vectors than `count`, some are chosen twice
        chosen.append(vectors[torch.multinomial(odds, 1)[0]])
    return torch.stack(chosen)


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _sum_over_processes(tensor: Tensor) -> Tensor:
    """Sum a tensor over all processes."""
    if _is_distributed():
        dist.all_reduce(tensor)
    return tensor
