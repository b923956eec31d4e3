"""The contract of a generative family, and its optional capabilities.

A family has two verbs: `loss` and `sample`. Everything else is an optional capability: a small protocol that can be
checked at runtime. No family inherits a method that only raises an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from citygrain.errors import CapabilityError
from citygrain.geo.drawn_ways import DrawnWays
from citygrain.geo.stroke_code import StrokeCode
from citygrain.geo.window_strokes import Strokes
from citygrain.spec import Conditions, LayoutSpec


class Noise:
    """One CPU random stream per sample, so that a sample does not depend on its batch, process or device.

    Parameters
    ----------
    seeds
        One seed for each sample.
    device
        Device that drawn numbers are moved to.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.seeds = tuple(int(s) for s in seeds)
        self.device = torch.device(device)
        self._generators = [torch.Generator("cpu").manual_seed(s) for s in self.seeds]

    def __len__(self) -> int:
        return len(self.seeds)

    def fork(self, number: int) -> Noise:
        """Return fresh noise for one of several generators that draw a layout together; 0 is this noise from its start.

        So what one of them draws does not depend on how many numbers those before it have taken.
        """
        return Noise([fork_seed(seed, number) for seed in self.seeds], self.device)

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal numbers `(B, *shape)`."""
        return torch.stack([torch.randn(shape, generator=g) for g in self._generators]).to(self.device)

    def uniform(self, *shape: int) -> Tensor:
        """Draw uniform numbers from [0, 1), `(B, *shape)`."""
        return torch.stack([torch.rand(shape, generator=g) for g in self._generators]).to(self.device)


def fork_seed(seed: int, number: int) -> int:
    """Return the seed of one of several generators that draw a layout together; 0 keeps the seed."""
    if not number:
        return seed
    return int(torch.randint(2**62, (number,), generator=torch.Generator().manual_seed(seed))[-1])


@runtime_checkable
class Sampler(Protocol):
    """A frozen dataclass that holds the settings of one way of drawing, and draws through a model's handle."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __call__(self, model: object, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw `(B, …)` in the space of the model's handle."""
        ...


class Known(NamedTuple):
    """Layouts, and which parts of them are known and stay.

    Attributes
    ----------
    layout
        `(B, C, H, W)` in [0, 1].
    keep
        `(B, C, H, W)` bool: what stays. A cell that stays completely is true in all channels.
    ways
        The ways of what stays as lines, one for each layout; None where only cells are known.
    """

    layout: Tensor
    keep: Tensor
    ways: Sequence[DrawnWays] | None = None


@runtime_checkable
class Completes(Protocol):
    """A sampler that can draw the unknown part of layouts whose other part is known."""

    def complete(self, model: object, known: Known, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw `(B, …)` in the space of the model's handle, in agreement with the known part."""
        ...


@runtime_checkable
class Holds(Protocol):
    """A handle whose tensors can be held fixed where layouts are known."""

    def read(self, layout: Tensor) -> Tensor:
        """Return the handle's tensors `(B, …)` of layouts `(B, C, H, W)`."""
        ...

    def settled(self, keep: Tensor) -> Tensor:
        """Return, as bool, which elements of the handle's tensors only stand for kept cells of `(B, C, H, W)`."""
        ...


@runtime_checkable
class Generator(Protocol):
    """A generative model of layouts given conditions.

    Attributes
    ----------
    spec
        Describes its layouts, and what can be asked of them.
    sampler
        The sampler that `sample` uses by default.
    """

    spec: LayoutSpec
    sampler: Sampler

    def loss(self, layout: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return named scalars for layouts `(B, C, H, W)` in [0, 1]. `"loss"` is minimised, and all are logged."""
        ...

    def sample(self, conditions: Conditions, *, noise: Noise, sampler: Sampler | None = None) -> Tensor:
        """Draw one layout for each condition, `(B, C, H, W)` in [0, 1]."""
        ...


@runtime_checkable
class Trained(Generator, Protocol):
    """A generator that `citygrain.load` has loaded. It knows how it was trained.

    Attributes
    ----------
    provenance
        Places, windows, versions, and the progress of training, from the checkpoint.
    """

    provenance: Mapping[str, Any]


@runtime_checkable
class Codec(Protocol):
    """A family with a code: it turns layouts into smaller tensors and back.

    Attributes
    ----------
    spec
        Describes its layouts.
    code_shape
        Shape of the code of one layout.
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
    """A family whose loss only sees the frozen codes of layouts. So each code is computed once, and stored."""

    def to_code(self, layout: Tensor) -> Tensor:
        """Return the codes of layouts `(B, C, H, W)` that the loss sees."""
        ...

    def code_loss(self, code: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return what `loss` returns, for codes made by `to_code`."""
        ...


@runtime_checkable
class LearnsFromWays(Protocol):
    """A family whose loss only sees the ways of windows, as lines. So no cells are read, and a code is kept of each."""

    code: StrokeCode

    def write_code(self, strokes: Strokes) -> Tensor:
        """Return the code of the strokes of a window."""
        ...

    def code_loss(self, code: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return what `loss` returns, for codes made by `write_code`."""
        ...


@runtime_checkable
class DrawsWays(Protocol):
    """A family whose layouts show ways that it knows as lines."""

    def sample_with_ways(
        self, conditions: Conditions, *, noise: Noise, sampler: Sampler | None = None
    ) -> tuple[Tensor, list[DrawnWays]]:
        """Draw what `sample` draws; return the layouts `(B, C, H, W)`, and the ways of each as lines."""
        ...


@runtime_checkable
class MeasuresData(Protocol):
    """A family with statistics of the data, which are measured once before training."""

    def measure_data(self, layouts: Tensor) -> None:
        """Set the statistics from a sample of training layouts `(N, C, H, W)`."""
        ...


@runtime_checkable
class MeasuresConditions(Protocol):
    """A family that keeps conditions of training windows, which are measured once before training."""

    def measure_conditions(self, conditions: Conditions) -> None:
        """Keep conditions of training windows."""
        ...


@runtime_checkable
class RestsWeights(Protocol):
    """A family in which some weights take no part in some batches.

    When several processes train together, they must not wait for the gradients of these weights.
    """

    @property
    def rests(self) -> bool:
        """Whether some weights take no part in some batches."""
        ...


@runtime_checkable
class HasParts(Protocol):
    """A family whose layouts are drawn by several generators in turn, each given what those before it have drawn.

    Attributes
    ----------
    spec
        Describes the whole layouts, and all that one of the parts can be asked for.
    plan
        Draws the ways.
    densities
        Draws densities for given ways, on coarse cells; None where there is no such part.
    ground
        Draws the other channels for given ways.
    """

    spec: LayoutSpec
    plan: Generator
    densities: Generator | None
    ground: Generator

    @property
    def parts(self) -> Mapping[str, Generator]:
        """The parts by name, in the order in which they draw."""
        ...


@runtime_checkable
class Denoiser(Protocol):
    """The handle of diffusion samplers."""

    latent_shape: tuple[int, int, int]

    def denoise(self, x: Tensor, sigma: Tensor, conditions: Conditions) -> Tensor:
        """Return the expected clean `(B, *latent_shape)` given `x = clean + sigma · noise`; `sigma` is `(B,)`."""
        ...


@runtime_checkable
class TellsVariance(Denoiser, Protocol):
    """A denoiser that knows the uncertainty of its estimates."""

    def variance(self, clean: Tensor) -> Tensor:
        """Return the variance of the clean data around an estimate of it, both `(B, *latent_shape)`."""
        ...


@runtime_checkable
class ShowsLayouts(Protocol):
    """A handle whose clean tensors can be turned into layouts, and so be measured while drawing."""

    spec: LayoutSpec

    def to_layout(self, clean: Tensor) -> Tensor:
        """Return the layouts `(B, C, H, W)` in [0, 1] of clean `(B, …)`. This is differentiable."""
        ...


@runtime_checkable
class ShowsChannels(ShowsLayouts, Protocol):
    """A handle that knows whether its clean tensors keep the channels of layouts apart.

    Attributes
    ----------
    channelwise
        Whether each channel of a clean tensor `(B, C, h, w)` stands for the channel of the layout with the same index.
    """

    @property
    def channelwise(self) -> bool:
        """Whether the channels are kept apart."""
        ...


@runtime_checkable
class ReadsLayouts(ShowsLayouts, Holds, Protocol):
    """A handle whose clean tensors can be read from layouts, and turned into layouts."""


@runtime_checkable
class DenoisesLayouts(Denoiser, ReadsLayouts, Protocol):
    """A denoiser whose clean tensors can be read from layouts, and turned into layouts."""


@runtime_checkable
class CodePrior(Protocol):
    """The handle of `Normal`: a normal distribution of codes given conditions."""

    code_shape: tuple[int, int, int]

    def prior(self, conditions: Conditions) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the code, each `(B, *code_shape)`."""
        ...


@runtime_checkable
class FitsPrior(Codec, Protocol):
    """A codec whose prior is not learned, but fitted to the codes of the training windows after training.

    Attributes
    ----------
    latent_prior
        The prior. A model that is trained on from this one does not take it over.
    """

    latent_prior: nn.Module

    @property
    def fitted(self) -> bool:
        """Whether there is a prior to sample from."""
        ...

    def check_enough(self, codes: int) -> None:
        """Check, before training, that there will be enough codes to fit the prior."""
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
    """The handle of `FittedMixture`: a mixture in a few dimensions, and the way from points in it to codes."""

    code_shape: tuple[int, int, int]

    def mixture(self, conditions: Conditions) -> Mixture:
        """Return the mixture given conditions."""
        ...

    def code_at(self, point: Tensor, rest: Tensor) -> Tensor:
        """Return codes at points `(B, D)`. `rest`, `(B, *code_shape)` standard normal, fills all other directions."""
        ...


@runtime_checkable
class Quantized(Codec, Protocol):
    """A codec whose codes consist of the vectors of a book."""

    book_size: int

    def tokens(self, layout: Tensor) -> Tensor:
        """Return the tokens `(B, h, w)` int64, below `book_size`, of layouts `(B, C, H, W)`."""
        ...

    def from_tokens(self, tokens: Tensor) -> Tensor:
        """Return layouts `(B, C, H, W)` in [0, 1] of tokens `(B, h, w)`."""
        ...


@runtime_checkable
class NextTokenModel(Protocol):
    """The handle of `NextToken`: the distribution of each token given the tokens before it, row by row."""

    token_shape: tuple[int, int]
    book_size: int

    def reader(self, conditions: Conditions) -> Callable[[Tensor | None], Tensor]:
        """Return a function that reads one token after another, and returns the logits of the next.

        It takes the tokens `(B,)`, or None at first, and returns logits `(B, book_size)`. It remembers all tokens that
        it has read.
        """
        ...


@runtime_checkable
class HoleFiller(Protocol):
    """The handle of `MaskedTokens`: the distribution of every unknown token, given the known tokens."""

    token_shape: tuple[int, int]
    book_size: int

    def masked_logits(self, tokens: Tensor, known: Tensor, conditions: Conditions) -> Tensor:
        """Return logits `(B, L, book_size)` for tokens `(B, L)`. The model only sees the `known` ones, `(B, L)`."""
        ...


@runtime_checkable
class ImplicitGenerator(Protocol):
    """The handle of `Truncated`: a network that turns noise into layouts in a single pass."""

    def generate(self, conditions: Conditions, noise: Noise, truncation: float) -> Tensor:
        """Generate layouts `(B, C, H, W)` in [0, 1]. A `truncation` below 1 gives more typical ones."""
        ...


@runtime_checkable
class Invertible(Protocol):
    """The handle of `Base`: a bijection between normal noise and clean tensors."""

    latent_shape: tuple[int, int, int]

    def inverse(self, z: Tensor, conditions: Conditions) -> Tensor:
        """Return the clean `(B, *latent_shape)` of noise of the same shape."""
        ...


@runtime_checkable
class InvertsLayouts(Invertible, ShowsLayouts, Protocol):
    """A bijection whose clean tensors can be turned into layouts."""


@runtime_checkable
class EnergyModel(Protocol):
    """The handle of `Langevin`: an energy that is low at clean tensors plus noise of standard deviation `smoothing`."""

    latent_shape: tuple[int, int, int]
    smoothing: float

    def energy(self, x: Tensor, conditions: Conditions) -> Tensor:
        """Return the energy `(B,)` of noisy tensors `(B, *latent_shape)`. It is differentiable in `x`."""
        ...


@runtime_checkable
class HoldsWindows(Protocol):
    """The handle of `Patchwork`: a bank of real windows.

    Attributes
    ----------
    bank
        `(M, C, H, W)` uint8: the windows, 255 where a channel covers the whole cell.
    spread
        `(C, 1, 1)`: the standard deviation of each channel, in which patches of windows are compared.
    """

    spec: LayoutSpec
    bank: Tensor
    spread: Tensor

    def choose_windows(self, conditions: Conditions, count: int, noise: Noise) -> Tensor:
        """Return the rows `(B, count)` of the windows that come nearest to what is asked for."""
        ...


class Biases(NamedTuple):
    """Biases of the visible bits, `(B, *visible)`, and of the hidden bits, which broadcast to `(B, *hidden)`."""

    visible: Tensor
    hidden: Tensor


@runtime_checkable
class Bipartite(Protocol):
    """The handle of `Gibbs`: visible and hidden bits. The bits of a layer are independent given the other layer."""

    def biases(self, conditions: Conditions) -> Biases:
        """Return the biases of all bits under conditions: their logits without the other layer."""
        ...

    def hidden_logits(self, visible: Tensor, biases: Biases) -> Tensor:
        """Return the logits `(B, *hidden)` of the hidden bits given the visible bits."""
        ...

    def visible_logits(self, hidden: Tensor, biases: Biases) -> Tensor:
        """Return the logits `(B, *visible)` of the visible bits given the hidden bits."""
        ...


@runtime_checkable
class HasLikelihood(Protocol):
    """A family that can compute the likelihood of a layout."""

    def log_likelihood(self, layout: Tensor, conditions: Conditions) -> Tensor:
        """Return the natural logarithm of the likelihood `(B,)` of layouts; the family defines of what exactly."""
        ...


def as_module(model: object) -> nn.Module:
    """Return a model typed as the `torch.nn.Module` that it also is.

    Raises
    ------
    CapabilityError
        When it is not a module.
    """
    if not isinstance(model, nn.Module):
        raise CapabilityError("A model is a torch.nn.Module.", got=type(model).__name__)
    return model


Capability = TypeVar("Capability")


def require(model: object, capability: type[Capability], wanted_by: str, works_with: Sequence[str]) -> Capability:
    """Return a model typed as a capability. A model without it is refused, and the error names families with it.

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
