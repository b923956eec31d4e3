"""The contract of a generative family, and the small capabilities it may add.

A family is two verbs: `loss` and `sample`. Everything else is an optional, runtime-checkable capability; nobody
inherits a stub that raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from citygrain.errors import CapabilityError
from citygrain.spec import Conditions, LayoutSpec


class Noise:
    """One CPU random stream a sample, so that sample *i* is the same city whatever the batch, rank or device.

    Parameters
    ----------
    seeds
        One seed a sample.
    device
        Where the drawn numbers are delivered.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.seeds = tuple(int(s) for s in seeds)
        self.device = torch.device(device)
        self._generators = [torch.Generator("cpu").manual_seed(s) for s in self.seeds]

    def __len__(self) -> int:
        return len(self.seeds)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers `(B, *shape)`."""
        return torch.stack([torch.randn(shape, generator=g) for g in self._generators]).to(self.device)

    def uniform(self, *shape: int) -> Tensor:
        """Numbers from [0, 1), `(B, *shape)`."""
        return torch.stack([torch.rand(shape, generator=g) for g in self._generators]).to(self.device)


@runtime_checkable
class Sampler(Protocol):
    """A frozen dataclass that holds one family's sampling knobs and runs its handle."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __call__(self, model: object, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw `(B, …)` in the space of the model's handle."""
        ...


class Known(NamedTuple):
    """Layouts of which some parts are to stay as they are.

    Attributes
    ----------
    layout
        `(B, C, H, W)` in [0, 1].
    keep
        `(B, C, H, W)` bool: what stays. Where whole cells stay, all their channels do.
    """

    layout: Tensor
    keep: Tensor


@runtime_checkable
class Completes(Protocol):
    """A sampler that can draw the rest of layouts of which parts are known."""

    def complete(self, model: object, known: Known, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw `(B, …)` in the space of the model's handle, in agreement with what is known."""
        ...


@runtime_checkable
class Holds(Protocol):
    """A handle that can be held fast where layouts are known."""

    def read(self, layout: Tensor) -> Tensor:
        """Return the handle's tensors `(B, …)` of layouts `(B, C, H, W)`."""
        ...

    def settled(self, keep: Tensor) -> Tensor:
        """Return where the handle's tensors stand for nothing but what is kept `(B, C, H, W)`, as bool."""
        ...


@runtime_checkable
class Generator(Protocol):
    """A generative model of layouts given conditions.

    Attributes
    ----------
    spec
        What its layouts are, and what can be asked of them.
    sampler
        The one that `sample` uses unless another is given.
    """

    spec: LayoutSpec
    sampler: Sampler

    def loss(self, layout: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return scalars to log for layouts `(B, C, H, W)` in [0, 1]; `"loss"` is the one to minimise."""
        ...

    def sample(self, conditions: Conditions, *, noise: Noise, sampler: Sampler | None = None) -> Tensor:
        """Draw one layout a condition, `(B, C, H, W)` in [0, 1]."""
        ...


@runtime_checkable
class Trained(Generator, Protocol):
    """A generator that `citygrain.load` has read: it knows what it was made of.

    Attributes
    ----------
    provenance
        Places, windows, versions, and how far training had come, as the checkpoint says.
    """

    provenance: Mapping[str, Any]


@runtime_checkable
class Codec(Protocol):
    """A family with a code: it turns layouts into smaller tensors and back.

    Attributes
    ----------
    spec
        What its layouts are.
    code_shape
        Of the code of one layout.
    """

    spec: LayoutSpec
    code_shape: tuple[int, int, int]

    def encode(self, layout: Tensor) -> Tensor:
        """Return the (deterministic) codes `(B, *code_shape)` of layouts `(B, C, H, W)`."""
        ...

    def decode(self, code: Tensor) -> Tensor:
        """Return layouts `(B, C, H, W)` in [0, 1] of codes."""
        ...


@runtime_checkable
class LearnsFromCodes(Protocol):
    """A family whose loss sees a layout only through a frozen code, which can therefore be computed once and kept."""

    def to_code(self, layout: Tensor) -> Tensor:
        """Return what the loss sees of layouts `(B, C, H, W)`."""
        ...

    def code_loss(self, code: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return what `loss` returns, from `to_code` of the layouts."""
        ...


@runtime_checkable
class MeasuresData(Protocol):
    """A family that standardises by statistics of the data, measured once before training."""

    def measure_data(self, layouts: Tensor) -> None:
        """Set the buffers from a sample of training layouts `(N, C, H, W)`."""
        ...


@runtime_checkable
class RestsWeights(Protocol):
    """A family in which some weights take no part in some batches.

    Several processes that train together must not wait for the gradients of those weights.
    """

    @property
    def rests(self) -> bool:
        """Whether some weights take no part in some batches."""
        ...


@runtime_checkable
class Denoiser(Protocol):
    """The handle of diffusion samplers."""

    latent_shape: tuple[int, int, int]

    def denoise(self, x: Tensor, sigma: Tensor, conditions: Conditions) -> Tensor:
        """Expectation of the clean `(B, *latent_shape)` given `x = clean + sigma · noise`; `sigma` is `(B,)`."""
        ...


@runtime_checkable
class TellsVariance(Denoiser, Protocol):
    """A denoiser that knows how much its estimates leave open."""

    def variance(self, clean: Tensor) -> Tensor:
        """Variance of each element of the clean data around an estimate of it, `(B, *latent_shape)` both."""
        ...


@runtime_checkable
class ShowsLayouts(Protocol):
    """A handle whose clean tensors can be seen as layouts, and so be measured on the way."""

    spec: LayoutSpec

    def to_layout(self, clean: Tensor) -> Tensor:
        """Return the layouts `(B, C, H, W)` in [0, 1] of clean `(B, …)`, differentiably."""
        ...


@runtime_checkable
class ReadsLayouts(ShowsLayouts, Holds, Protocol):
    """A handle whose clean tensors can be made of layouts, and seen as them."""


@runtime_checkable
class DenoisesLayouts(Denoiser, ReadsLayouts, Protocol):
    """A denoiser whose clean tensors can be made of layouts, and seen as them."""


@runtime_checkable
class CodePrior(Protocol):
    """The handle of `Normal`: a normal distribution of codes given conditions."""

    code_shape: tuple[int, int, int]

    def prior(self, conditions: Conditions) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the code, each `(B, *code_shape)`."""
        ...


@runtime_checkable
class FitsPrior(Codec, Protocol):
    """A codec whose prior is fitted to the training windows' codes after training, and not learned.

    Attributes
    ----------
    latent_prior
        What is fitted; a model that learns on from this one begins without it.
    """

    latent_prior: nn.Module

    @property
    def fitted(self) -> bool:
        """Whether there is a prior to sample from."""
        ...

    def check_enough(self, codes: int) -> None:
        """Refuse, before training, so few codes that the prior could not be fitted to them after it."""
        ...

    def fit_prior(self, code: Tensor, conditions: Conditions) -> None:
        """Fit the prior to codes `(N, *code_shape)` and the conditions measured on their layouts."""
        ...


class Mixture(NamedTuple):
    """A mixture of K normal distributions in D dimensions for each of B conditions.

    Attributes
    ----------
    weights
        `(B, K)`, summing to one.
    means
        `(B, K, D)`.
    factors
        `(B, K, D, D)`, lower-triangular Cholesky factors of the covariances.
    """

    weights: Tensor
    means: Tensor
    factors: Tensor


@runtime_checkable
class MixturePrior(Protocol):
    """The handle of `FittedMixture`: a mixture in few dimensions, and the way from there to codes."""

    code_shape: tuple[int, int, int]

    def mixture(self, conditions: Conditions) -> Mixture:
        """Return the mixture given conditions."""
        ...

    def code_at(self, point: Tensor, rest: Tensor) -> Tensor:
        """Return codes at points `(B, D)`; `rest`, `(B, *code_shape)` standard normal, is for what they leave out."""
        ...


@runtime_checkable
class Quantized(Codec, Protocol):
    """A codec whose codes are drawn from a book of finitely many vectors."""

    book_size: int

    def tokens(self, layout: Tensor) -> Tensor:
        """Return the tokens `(B, h, w)` int64, below `book_size`, of layouts `(B, C, H, W)`."""
        ...

    def from_tokens(self, tokens: Tensor) -> Tensor:
        """Return layouts `(B, C, H, W)` in [0, 1] of tokens `(B, h, w)`."""
        ...


@runtime_checkable
class NextTokenModel(Protocol):
    """The handle of `NextToken`: one distribution after another, in the order of reading."""

    token_shape: tuple[int, int]
    book_size: int

    def reader(self, conditions: Conditions) -> Callable[[Tensor | None], Tensor]:
        """Return what reads the tokens `(B,)` it is given, None at first, and tells the logits of the next.

        Logits are `(B, book_size)`. It remembers all that it has read.
        """
        ...


@runtime_checkable
class HoleFiller(Protocol):
    """The handle of `MaskedTokens`: a distribution for every token that is not yet known, given those that are."""

    token_shape: tuple[int, int]
    book_size: int

    def masked_logits(self, tokens: Tensor, known: Tensor, conditions: Conditions) -> Tensor:
        """Logits `(B, L, book_size)` for tokens `(B, L)`, of which only those `known` `(B, L)` are looked at."""
        ...


@runtime_checkable
class ImplicitGenerator(Protocol):
    """The handle of `Truncated`: a network that turns noise into layouts in one go."""

    def generate(self, conditions: Conditions, noise: Noise, truncation: float) -> Tensor:
        """Layouts `(B, C, H, W)` in [0, 1]; `truncation` below 1 draws nearer to the middle."""
        ...


@runtime_checkable
class Invertible(Protocol):
    """The handle of `Base`: a bijection between normal noise and clean tensors."""

    latent_shape: tuple[int, int, int]

    def inverse(self, z: Tensor, conditions: Conditions) -> Tensor:
        """Clean `(B, *latent_shape)` of noise of the same shape."""
        ...


@runtime_checkable
class InvertsLayouts(Invertible, ShowsLayouts, Protocol):
    """A bijection whose clean tensors can be seen as layouts."""


@runtime_checkable
class EnergyModel(Protocol):
    """The handle of `Langevin`: an energy whose low places are clean tensors with noise of a known size in them."""

    latent_shape: tuple[int, int, int]
    smoothing: float

    def energy(self, x: Tensor, conditions: Conditions) -> Tensor:
        """Energy `(B,)` of noisy tensors `(B, *latent_shape)`, differentiable in `x`."""
        ...


class Biases(NamedTuple):
    """Biases of visible and of hidden bits, `(B, *visible)` and of a shape that broadcasts to `(B, *hidden)`."""

    visible: Tensor
    hidden: Tensor


@runtime_checkable
class Bipartite(Protocol):
    """The handle of `Gibbs`: visible and hidden bits, each layer's independent given the other's."""

    def biases(self, conditions: Conditions) -> Biases:
        """Logits that the conditions give each bit before it is told of the other layer."""
        ...

    def hidden_logits(self, visible: Tensor, biases: Biases) -> Tensor:
        """Logits `(B, *hidden)` of the hidden bits given the visible ones."""
        ...

    def visible_logits(self, hidden: Tensor, biases: Biases) -> Tensor:
        """Logits `(B, *visible)` of the visible bits given the hidden ones."""
        ...


@runtime_checkable
class HasLikelihood(Protocol):
    """A family that knows how likely a layout is."""

    def log_likelihood(self, layout: Tensor, conditions: Conditions) -> Tensor:
        """Natural logarithm of the likelihood `(B,)` of layouts `(B, C, H, W)`; the family says of what exactly."""
        ...


def as_module(model: object) -> nn.Module:
    """Return a model as the torch module that it is as well.

    Raises
    ------
    CapabilityError
        When it is none.
    """
    if not isinstance(model, nn.Module):
        raise CapabilityError("A model is a torch.nn.Module.", got=type(model).__name__)
    return model


Capability = TypeVar("Capability")


def require(model: object, capability: type[Capability], wanted_by: str, works_with: Sequence[str]) -> Capability:
    """Return the model, or refuse it when it lacks a capability, naming the families that have it.

    Raises
    ------
    CapabilityError
        When `model` does not implement `capability`.
    """
    if not isinstance(model, capability):
        raise CapabilityError(
            f"{wanted_by} needs a model that is a {capability.__name__}.",
            got=type(model).__name__,
            choices=works_with,
            remedy="choose one of these families",
        )
    return model
