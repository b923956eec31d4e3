"""A prior over codes that is fitted after training. It can be conditioned on any subset of the conditions.

It is a mixture of normal distributions over codes *and* conditions together. A normal distribution can be conditioned
on any of its variables in closed form. So one fitted model serves requests for a density alone, for a density and
cycling, and for nothing.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from citygrain.errors import CapabilityError, ConfigError, DataError
from citygrain.networks.conditioner import ConditionPlanes, Standardise
from citygrain.protocols import Mixture, Noise, Sampler
from citygrain.samplers.prior import FittedMixture
from citygrain.spec import Conditions, LayoutSpec


class LatentPrior(nn.Module):
    """A mixture of K normal distributions over a code's D main directions, and over all conditions.

    The rest of a code, outside the main directions, is modelled as independent noise, equal in every direction, as in
    probabilistic principal components (Tipping & Bishop 1999). Each component also has a distribution over places.

    Parameters
    ----------
    spec
        Which conditions there are.
    code_shape
        `(c, h, w)` of a code.
    components
        K, the number of normal distributions in the mixture.
    dimensions
        D, the number of main directions (principal components of the codes). All directions if a code has fewer.

    Raises
    ------
    ConfigError
        When components or dimensions are below 1.
    """

    centre: Tensor
    directions: Tensor
    spread: Tensor
    rest: Tensor
    weights: Tensor
    means: Tensor
    covariances: Tensor
    places: Tensor
    ready: Tensor

    def __init__(
        self, spec: LayoutSpec, code_shape: tuple[int, int, int], *, components: int = 24, dimensions: int = 48
    ) -> None:
        super().__init__()
        if components < 1 or dimensions < 1:
            raise ConfigError(
                "A prior cannot be fitted like this.",
                expected="components ≥ 1, dimensions ≥ 1",
                got=f"components={components}, dimensions={dimensions}",
            )
        self.code_shape = code_shape
        self.scalars = Standardise(spec)
        self.planes = ConditionPlanes(spec)
        size = int(np.prod(code_shape))
        self.components, self.dimensions = components, min(dimensions, size)
        joint = self.dimensions + len(spec.scalars) + len(spec.maps) * spec.map_px**2
        for name, shape in (
            ("centre", (size,)),
            ("directions", (size, self.dimensions)),
            ("spread", (self.dimensions,)),
            ("rest", ()),
            ("weights", (components,)),
            ("means", (components, joint)),
            ("covariances", (components, joint, joint)),
            ("places", (components, len(spec.places))),
        ):
            self.register_buffer(name, torch.zeros(shape))
        self.register_buffer("ready", torch.tensor(False))

    def check_enough(self, codes: int) -> None:
        """Check that there are enough codes for a fit.

        Raises
        ------
        DataError
            For fewer codes than components or dimensions.
        """
        fewest = max(self.components, self.dimensions, 2)
        if codes < fewest:
            raise DataError(
                "There are too few codes to fit a prior to.",
                expected=f"at least {fewest}, for {self.components} components over {self.dimensions} dimensions",
                got=codes,
                remedy=f"encode more windows, codes={fewest} or better many times that; or give the prior fewer "
                "model.prior.components and model.prior.dimensions",
            )

    @torch.no_grad()
    def fit(self, code: Tensor, conditions: Conditions) -> None:
        """Fit the mixture to codes `(N, *code_shape)` and to the conditions measured on their layouts, all present.

        Raises
        ------
        DataError
            For fewer codes than components or dimensions.
        """
        self.check_enough(len(code))
        flat = code.flatten(1).float()
        self.centre.copy_(flat.mean(0))
        flat = flat - self.centre
        with torch.random.fork_rng(devices=[flat.device] if flat.is_cuda else []):
            torch.manual_seed(0)  # the projection uses random numbers
            _, values, directions = torch.pca_lowrank(flat, q=self.dimensions, center=False, niter=4)
        variance = values**2 / len(flat)
        self.directions.copy_(directions)
        self.spread.copy_(variance.sqrt().clamp_min(1e-6))
        left_out = (flat.var(0, correction=0).sum() - variance.sum()).clamp_min(0)
        self.rest.copy_((left_out / max(1, flat.shape[1] - self.dimensions)).sqrt())
        asked, _ = self._join_conditions(conditions)
        joint = torch.cat([flat @ self.directions / self.spread, asked], 1).double().cpu().numpy()
        mixture = GaussianMixture(self.components, reg_covar=1e-3, max_iter=60, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a fit that has not converged is still a usable prior
            mixture.fit(joint)
        self.weights.copy_(torch.from_numpy(mixture.weights_))
        self.means.copy_(torch.from_numpy(mixture.means_))
        self.covariances.copy_(torch.from_numpy(mixture.covariances_))
        shares = torch.from_numpy(mixture.predict_proba(joint)).to(flat)
        known = F.one_hot(conditions.place + 1, self.places.shape[1] + 1)[:, 1:].to(flat)
        counts = shares.T @ known + 1e-3
        self.places.copy_(counts / counts.sum(1, keepdim=True))
        self.ready.fill_(True)

    def mixture(self, conditions: Conditions) -> Mixture:
        """Return the mixture of points `(B, D)`, in units of their spread, given conditions.

        Raises
        ------
        CapabilityError
            When nothing has been fitted yet.
        """
        if not self.ready:
            raise CapabilityError(
                "The prior over codes is not fitted yet, so that there is nothing to sample from.",
                remedy="let training come to its end, where `citygrain train` fits it; in Python, encode windows and "
                "call fit_prior(codes, conditions)",
            )
        asked, present = (part.double() for part in self._join_conditions(conditions))
        d, means, covariances = self.dimensions, self.means.double(), self.covariances.double()
        # Absent conditions take no part: their rows and columns of the covariance become those of the identity.
        pairs = present[:, :, None] * present[:, None, :]
        within = covariances[:, d:, d:] * pairs[:, None] + torch.diag_embed(1 - present)[:, None]
        across = covariances[:, :d, d:] * present[:, None, None, :]
        missing = (asked[:, None] - means[:, d:]) * present[:, None]
        factor = torch.linalg.cholesky(within)
        white = torch.linalg.solve_triangular(factor, missing[..., None], upper=False)
        gain = torch.cholesky_solve(across.mT, factor).mT
        centres = means[:, :d] + (gain @ missing[..., None])[..., 0]
        spreads = covariances[:, :d, :d] - gain @ across.mT
        jitter = 1e-6 * torch.eye(d, dtype=torch.float64, device=spreads.device)
        logs = (
            self.weights.double().log()
            - 0.5 * white.square().sum((-2, -1))
            - factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
            + self._weigh_places(conditions)
        )
        parts = (logs.softmax(1), centres, torch.linalg.cholesky(spreads + jitter))
        return Mixture(*(part.float() for part in parts))

    def code_at(self, point: Tensor, rest: Tensor) -> Tensor:
        """Return codes at points `(B, D)`. `rest`, `(B, *code_shape)` standard normal, fills all other directions."""
        beyond = rest.flatten(1)
        beyond = beyond - beyond @ self.directions @ self.directions.T
        flat = self.centre + (point * self.spread) @ self.directions.T + self.rest * beyond
        return flat.view(-1, *self.code_shape)

    def _join_conditions(self, conditions: Conditions) -> tuple[Tensor, Tensor]:
        """Return the standardised scalars and map cells, `(B, S)`, and whether each is present, as 0 and 1."""
        cells = conditions.maps.shape[-1] ** 2
        present = torch.cat([conditions.present, conditions.maps_present.repeat_interleave(cells, 1)], 1)
        values = torch.cat([self.scalars(conditions.scalars), self.planes.scale_maps(conditions).flatten(1)], 1)
        return torch.where(present, values, 0.0), present.to(values)

    def _weigh_places(self, conditions: Conditions) -> Tensor:
        """Return the log-weight `(B, K)` of the requested place in each component; 0 without a place."""
        nowhere = self.places.new_ones(len(self.places), 1)
        return torch.cat([nowhere, self.places], 1).T[conditions.place + 1].double().log()


class FittedCodec(nn.Module, ABC):
    """A codec that samples from a prior, which is fitted to its codes after training.

    Parameters
    ----------
    spec
        Layouts and conditions.
    code_shape
        `(c, h, w)` of a code.
    prior
        Makes the `LatentPrior` from `spec` and `code_shape`.
    sampler
        Used by `sample` unless another is given; `FittedMixture` by default.
    """

    def __init__(
        self,
        spec: LayoutSpec,
        code_shape: tuple[int, int, int],
        prior: Callable[..., LatentPrior] | None,
        sampler: Sampler | None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.code_shape = code_shape
        self.latent_prior = (prior or LatentPrior)(spec=spec, code_shape=code_shape)
        self.sampler = sampler or FittedMixture()

    @abstractmethod
    def decode(self, code: Tensor) -> Tensor:
        """Return layouts `(B, C, H, W)` in [0, 1] of codes."""

    @property
    def fitted(self) -> bool:
        """Whether there is a prior to sample from."""
        return bool(self.latent_prior.ready)

    def check_enough(self, codes: int) -> None:
        """Check that there are enough codes to fit the prior."""
        self.latent_prior.check_enough(codes)

    def fit_prior(self, code: Tensor, conditions: Conditions) -> None:
        """Fit the prior to codes `(N, *code_shape)` and the conditions measured on their layouts."""
        self.latent_prior.fit(code, conditions)

    def mixture(self, conditions: Conditions) -> Mixture:
        """Return the prior given conditions."""
        return self.latent_prior.mixture(conditions)

    def code_at(self, point: Tensor, rest: Tensor) -> Tensor:
        """Return codes at points of the mixture."""
        return self.latent_prior.code_at(point, rest)

    @torch.no_grad()
    def sample(self, conditions: Conditions, *, noise: Noise, sampler: Sampler | None = None) -> Tensor:
        """Draw layouts `(B, C, H, W)` in [0, 1]."""
        return self.decode((sampler or self.sampler)(self, conditions, noise))
