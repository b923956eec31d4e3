"""Diffusion as a codec: a layout is carried along the probability flow to the noise that it would be drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from citygrain.errors import CapabilityError, ConfigError
from citygrain.models.code_space import CodeSpace
from citygrain.protocols import DenoisesLayouts, Noise, require
from citygrain.samplers.diffusion import DIFFUSION, DpmSolver, Euler, Heun, denoise_guided
from citygrain.spec import Conditions


class Inversion(nn.Module):
    """A diffusion model with its noise as the code (Song et al. 2021, DDIM inversion; Karras et al. 2022).

    The flow dx/dσ = (x − D(x, σ)) / σ is walked up from `sigma_min` to `sigma_max` to encode, and down again to decode.
    The code is x / `sigma_max`: standard normal noise, as far as the model has learned its data. Both ways are exact in
    the limit of many steps; a model that works in the code of another codec loses in addition what that codec loses.

    Parameters
    ----------
    model
        Diffusion or flow matching, in cells or in a code.
    sampler
        Gives steps, noise levels, guidance and the order of the error; `Heun(steps=24)` by default.
    asked
        Conditions under which both ways are walked, in physical units, see `Conditions.request`; none by default.

    Raises
    ------
    CapabilityError
        For a model that does not denoise.
    ConfigError
        For a sampler that draws or is pulled on its way: it has no way back.

    References
    ----------
    Song, J., Meng, C. & Ermon, S. (2021). Denoising diffusion implicit models. ICLR.
    """

    def __init__(
        self,
        model: nn.Module,
        sampler: Euler | Heun | DpmSolver | None = None,
        asked: Mapping[str, float | str] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(model, CodeSpace):
            raise CapabilityError("Inversion needs a diffusion model.", got=type(model).__name__, choices=DIFFUSION)
        self.model = require(model, DenoisesLayouts, "Inversion", DIFFUSION)
        self.sampler = sampler or Heun(steps=24)
        if not isinstance(self.sampler, Euler | Heun | DpmSolver) or self.sampler.tolerance < float("inf"):
            raise ConfigError(
                "This sampler has no way back.",
                expected="Euler, Heun or DpmSolver, without a tolerance",
                got=repr(self.sampler),
            )
        if self.sampler.steps < 2:
            raise ConfigError("There is nothing to walk between.", expected="steps ≥ 2", got=self.sampler.steps)
        self.asked = dict(asked or {})
        self.spec = model.spec
        self.code_shape = model.latent_shape

    def extra_repr(self) -> str:
        """Say what decides the code beside the weights."""
        return f"sampler={self.sampler!r}, asked={self.asked!r}"

    @torch.no_grad()
    def encode(self, layout: Tensor) -> Tensor:
        """Return the noise `(B, *code_shape)` that layouts `(B, C, H, W)` come from."""
        return self.to_noise(self.model.read(layout))

    @torch.no_grad()
    def decode(self, code: Tensor) -> Tensor:
        """Return the layouts `(B, C, H, W)` in [0, 1] that noise leads to."""
        return self.model.to_layout(self.from_noise(code))

    @torch.no_grad()
    def to_noise(self, clean: Tensor) -> Tensor:
        """Walk from standardised clean `(B, *code_shape)` up to noise of order one."""
        return self._walk(clean, ascending=True) / self.sampler.sigma_max

    @torch.no_grad()
    def from_noise(self, noise: Tensor) -> Tensor:
        """Walk from noise of order one down to standardised clean `(B, *code_shape)`."""
        return self._walk(noise * self.sampler.sigma_max, ascending=False)

    def _walk(self, x: Tensor, *, ascending: bool) -> Tensor:
        levels = self.sampler.sigmas()[:-1].tolist()  # both ways end at sigma_min: at 0 the flow has no slope to go by
        asked = Conditions.request(self.spec, len(x), self.asked).to(x.device)
        clean = partial(self._clean, asked)
        return self.sampler.walk(clean, x, levels[::-1] if ascending else levels, Noise(()))

    def _clean(self, asked: Conditions, x: Tensor, sigma: float) -> Tensor:
        return denoise_guided(self.model, x, sigma, asked, self.sampler.guidance)
