"""Diffusion as a codec: the code of a layout is the noise that the model would draw it from."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from citygrain.errors import CapabilityError, ConfigError
from citygrain.models.code_space import CodeSpace
from citygrain.protocols import DenoisesLayouts, Noise, require
from citygrain.samplers.base import DIFFUSION
from citygrain.samplers.diffusion import DpmSolver, Euler, Heun, denoise_guided
from citygrain.spec import Conditions


class Inversion(nn.Module):
    """A codec made of a diffusion model: its noise is the code (Song et al. 2021, DDIM inversion; Karras et al. 2022).

    The flow is dx/dσ = (x − D(x, σ)) / σ. Encoding follows it from `sigma_min` up to `sigma_max`, and decoding follows
    it down again. The code is x / `sigma_max`: standard normal noise, if the model has learned its data well. With many
    steps, both ways become exact. A model that works in the code of another codec also loses what that codec loses.

    Parameters
    ----------
    model
        Diffusion or flow matching, in cells or in a code.
    sampler
        Decides steps, noise levels, guidance, and the order of the solver; `Heun(steps=24)` by default.
    asked
        Conditions that hold while encoding and decoding, in physical units, see `Conditions.request`; none by default.

    Raises
    ------
    CapabilityError
        For a model that does not denoise.
    ConfigError
        For a sampler that draws noise on its way, or that has a tolerance: neither can be inverted. For fewer than two
        steps.

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
                "This sampler cannot be inverted.",
                expected="Euler, Heun or DpmSolver, without a tolerance",
                got=repr(self.sampler),
            )
        if self.sampler.steps < 2:
            raise ConfigError("Inversion needs more steps.", expected="steps ≥ 2", got=self.sampler.steps)
        self.asked = dict(asked or {})
        self.spec = model.spec
        self.code_shape = model.latent_shape

    def extra_repr(self) -> str:
        """Say what decides the code, apart from the weights."""
        return f"sampler={self.sampler!r}, asked={self.asked!r}"

    @torch.no_grad()
    def encode(self, layout: Tensor) -> Tensor:
        """Return the noise `(B, *code_shape)` that layouts `(B, C, H, W)` are drawn from."""
        return self.to_noise(self.model.read(layout))

    @torch.no_grad()
    def decode(self, code: Tensor) -> Tensor:
        """Return the layouts `(B, C, H, W)` in [0, 1] that are drawn from noise `(B, *code_shape)`."""
        return self.model.to_layout(self.from_noise(code))

    @torch.no_grad()
    def to_noise(self, clean: Tensor) -> Tensor:
        """Return the noise of standardised data `(B, *code_shape)`, with a standard deviation near one."""
        return self._integrate(clean, ascending=True) / self.sampler.sigma_max

    @torch.no_grad()
    def from_noise(self, noise: Tensor) -> Tensor:
        """Return the standardised data of noise `(B, *code_shape)`, whose standard deviation is near one."""
        return self._integrate(noise * self.sampler.sigma_max, ascending=False)

    def _integrate(self, x: Tensor, *, ascending: bool) -> Tensor:
        levels = self.sampler.sigmas()[:-1].tolist()  # the flow is undefined at σ = 0, so both ways end at sigma_min
        asked = Conditions.request(self.spec, len(x), self.asked).to(x.device)
        clean = partial(self._clean, asked)
        return self.sampler.walk(clean, x, levels[::-1] if ascending else levels, Noise(()))

    def _clean(self, asked: Conditions, x: Tensor, sigma: float) -> Tensor:
        return denoise_guided(self.model, x, sigma, asked, self.sampler.guidance)
