"""Vector quantisation: a book of vectors that stand for all others."""

from __future__ import annotations

import torch
import torch.distributed as dist
from einops import rearrange
from torch import Tensor, nn

from citygrain.errors import ConfigError

SMOOTHING = 1e-5
"""Vectors that every entry is taken to have beside its own (Laplace), which keeps the mean of none from being 0 / 0."""

START_FROM = 16
"""Vectors an entry that the book is spread out over at the start."""


class Quantizer(nn.Module):
    """The nearest vector of a book that follows what it is shown (van den Oord et al. 2017, appendix A.1).

    An entry is the running mean of the vectors that were nearest to it; no gradient reaches it. One that none was
    nearest to for a while begins anew at a vector of the batch (after Dhariwal et al. 2020), or most of the book would
    never be used. Several processes keep one book: they add up what each has seen.

    Parameters
    ----------
    book_size
        Number of entries.
    channels
        Length of a vector.
    decay
        Share of an entry's running mean that a batch leaves.
    patience
        Batches that an entry may go unused before it begins anew.
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
        with torch.autocast(code.device.type, enabled=False):  # in half precision other entries would be nearest
            vectors = rearrange(code.detach().float(), "b c h w -> b h w c")
            # |v − e|² = |v|² − 2 v·e + |e|², of which the first is the same for all entries.
            return (self.book.square().sum(1) - 2 * vectors @ self.book.T).argmin(-1)

    def vectors(self, tokens: Tensor) -> Tensor:
        """Return the entries `(B, c, h, w)` of tokens `(B, h, w)`."""
        return rearrange(self.book[tokens], "b h w c -> b c h w")

    @torch.no_grad()
    def start(self, code: Tensor) -> None:
        """Spread the book out over the vectors of codes `(N, c, h, w)`."""
        vectors = _flat(code)
        vectors = vectors[torch.randperm(len(vectors), device=vectors.device)[: START_FROM * len(self.book)]]
        self._restart(torch.ones_like(self.idle, dtype=torch.bool), _far_apart(vectors, len(self.book)))

    @torch.no_grad()
    def learn(self, code: Tensor, tokens: Tensor) -> None:
        """Move the entries towards the vectors of a batch of codes `(B, c, h, w)`, given their tokens `(B, h, w)`."""
        vectors, chosen = _flat(code), tokens.flatten()
        counts = _over_processes(torch.bincount(chosen, minlength=len(self.book)).to(vectors))
        sums = _over_processes(torch.zeros_like(self.sums).index_add_(0, chosen, vectors))
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
        """Set those of the entries for which `which` `(K,)` is true to `vectors` `(K, c)`."""
        if _distributed():
            dist.broadcast(vectors, 0)  # every process has picked its own
        for buffer, value in (
            (self.book, vectors),
            (self.sums, vectors),
            (self.counts, torch.ones_like(self.counts)),
            (self.idle, torch.zeros_like(self.idle)),
        ):
            buffer[which] = value[which]


def _flat(code: Tensor) -> Tensor:
    return rearrange(code.detach().float(), "b c h w -> (b h w) c")


def _far_apart(vectors: Tensor, count: int) -> Tensor:
    """Choose `count` of vectors `(N, c)` by the seeding of k-means++ (Arthur & Vassilvitskii 2007).

    The odds of each are in proportion to its squared distance from those chosen before.
    """
    chosen = [vectors[0]]
    distance = vectors.new_full((len(vectors),), torch.inf)
    for _ in range(count - 1):
        distance = torch.minimum(distance, (vectors - chosen[-1]).square().sum(1))
        odds = distance + 1e-12  # where fewer vectors differ than are asked for, some are chosen twice
        chosen.append(vectors[torch.multinomial(odds, 1)[0]])
    return torch.stack(chosen)


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _over_processes(tensor: Tensor) -> Tensor:
    """Sum over all processes, where there are several."""
    if _distributed():
        dist.all_reduce(tensor)
    return tensor
