"""Diffusion, in cells or in the code of a codec."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from citygrain.errors import ConfigError
from citygrain.models.code_space import CodeSpace
from citygrain.models.given_channels import find_given, join_channels, name_given, require_given
from citygrain.models.schedules import Edm, Scaling, Schedule
from citygrain.networks.blocks import FourierFeatures
from citygrain.networks.conditioner import ConditionEmbedding, ConditionPlanes
from citygrain.protocols import Noise, Sampler
from citygrain.samplers.diffusion import Heun
from citygrain.spec import Conditions, LayoutSpec


class Diffusion(CodeSpace):
    """A denoiser of layouts, or of their codes, at every noise level (Karras et al. 2022; Rombach et al. 2022).

    Parameters
    ----------
    spec
        Layouts and conditions.
    network
        Makes the network from `in_channels`, `out_channels` and `embedding`.
    schedule
        Noise levels and preconditioning; EDM's by default.
    sampler
        Used by `sample` unless another is given; `Heun` by default.
    codec
        A model with a code of such layouts, see `CodeSpace`. None diffuses cells.
    embedding
        Size of the embedding of noise level and conditions.
    given
        Channels that are given. The network sees them without noise, and makes the other channels. None stands for all
        ways that the layouts have. By default no channels are given.
    crop_px
        Edge in cells of the crops of windows that the model learns from; None for whole windows. A network without
        attention can draw whole windows after it. Crops begin where cells of condition maps begin. A crop has the
        scalar conditions of its window, and its own part of the condition maps.
    crops
        Number of crops that are taken from each window.

    Raises
    ------
    ConfigError
        When the channels cannot be given, the code of the codec mixes channels, or crops do not fit the layouts.
    """

    def __init__(
        self,
        spec: LayoutSpec,
        *,
        network: Callable[..., nn.Module],
        schedule: Schedule | None = None,
        sampler: Sampler | None = None,
        codec: nn.Module | None = None,
        embedding: int = 256,
        given: Sequence[str] | None = (),
        crop_px: int | None = None,
        crops: int = 4,
    ) -> None:
        super().__init__(spec if given is not None and not given else name_given(spec, given), codec)
        if self.spec.given and not self.channelwise:
            raise ConfigError(
                "In the code of this codec, given channels cannot be told from made ones.",
                got=f"given: {', '.join(self.spec.given)}; codec: {type(codec).__name__}",
                remedy="model=ground_diffusion, which works without a codec",
            )
        self.crop_px, self.crops = crop_px, crops
        self._check_crops()
        self.schedule = schedule or Edm()
        self.sampler = sampler or Heun()
        self.conditioner = ConditionEmbedding(spec, embedding)
        self.planes = ConditionPlanes(spec)
        self.noise_features = FourierFeatures(6, period=8.0)
        self.noise_embedding = nn.Linear(self.noise_features.size, embedding)
        self.given, self.made = find_given(self.spec) if self.spec.given else ([], list(range(self.latent_shape[0])))
        self.network = network(
            in_channels=self.latent_shape[0] + self.planes.channels, out_channels=len(self.made), embedding=embedding
        )

    def denoise(self, x: Tensor, sigma: Tensor, conditions: Conditions) -> Tensor:
        """Return the expected standardised clean `(B, *latent_shape)` given `x` at noise levels `(B,)`.

        Raises
        ------
        ConditionError
            When the model needs given channels, and none are given.
        """
        return self.estimate(self.show_given(x, conditions), sigma, conditions)

    def estimate(self, x: Tensor, sigma: Tensor, conditions: Conditions) -> Tensor:
        """Return what `denoise` returns, for an `x` whose given channels have no noise."""
        scaling = self.schedule.scaling(sigma)
        made = broadcast(scaling.out) * self.read_noisy(x, scaling, conditions)
        return self.put_made(x, broadcast(scaling.skip) * self.take_made(x) + made)

    def read_noisy(self, x: Tensor, scaling: Scaling, conditions: Conditions) -> Tensor:
        """Return the output of the network for `x` whose given channels have no noise: `(B, made channels, h, w)`."""
        embedding = self.conditioner(conditions) + self.noise_embedding(self.noise_features(scaling.noise))
        made = self.take_made(x) * broadcast(scaling.into)
        seen = torch.cat([self.put_made(x, made), self.planes(conditions, x.shape[-1])], 1)
        return self.network(seen, embedding)

    def show_given(self, x: Tensor, conditions: Conditions) -> Tensor:
        """Return `x` with the given channels of the conditions, standardised and without noise, in their place."""
        if not self.given:
            return x
        code = self.to_code(require_given(conditions, self.spec))
        clean = (code - self.shift[self.given]) / self.scale[self.given]
        return join_channels(clean, x[:, self.made], self.spec)

    def take_made(self, x: Tensor) -> Tensor:
        """Return the channels of `x` that are made."""
        return x[:, self.made] if self.given else x

    def put_made(self, x: Tensor, made: Tensor) -> Tensor:
        """Return `x` with other made channels."""
        return join_channels(x[:, self.given], made, self.spec) if self.given else made

    def add_noise(self, clean: Tensor, sigma: Tensor) -> Tensor:
        """Return `clean` with noise of levels `(B,)` on the channels that are made."""
        noisy = clean + broadcast(sigma) * torch.randn_like(clean)
        return self.put_made(clean, self.take_made(noisy))

    def crop(self, code: Tensor, conditions: Conditions) -> tuple[Tensor, Conditions]:
        """Return random crops of codes `(B, *latent_shape)` and their conditions; whole ones if `crop_px` is None."""
        crop_px = self.crop_px
        if crop_px is None:
            return code, conditions
        factor, step = self.spec.size_px // code.shape[-1], self.crop_step
        index = torch.arange(len(code)).repeat_interleave(self.crops)
        corners = torch.randint((self.spec.size_px - crop_px) // step + 1, (len(index), 2)) * step

        def cut(values: Tensor, cell_px: int) -> Tensor:
            edge, places = crop_px // cell_px, (corners // cell_px).tolist()
            parts = zip(index.tolist(), places, strict=True)
            return torch.stack([values[i, :, row : row + edge, column : column + edge] for i, (row, column) in parts])

        asked = conditions[index.to(code.device)]
        if self.spec.maps:
            asked = replace(asked, maps=cut(conditions.maps, self.spec.size_px // self.spec.map_px))
        return cut(code, factor), asked

    @property
    def crop_step(self) -> int:
        """Number of layout cells from one possible corner of a crop to the next."""
        size = self.spec.size_px
        return math.lcm(size // self.latent_shape[-1], size // self.spec.map_px if self.spec.maps else 1)

    def _check_crops(self) -> None:
        step, size = self.crop_step, self.spec.size_px
        if self.crops < 1 or (self.crop_px is not None and (self.crop_px % step or not 0 < self.crop_px <= size)):
            raise ConfigError(
                "Crops of this size cannot be taken from the windows.",
                expected=f"crops ≥ 1; a crop_px up to {size} that {step} divides, or null",
                got=f"crops={self.crops}, crop_px={self.crop_px}",
            )

    def code_loss(self, code: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the weighted denoising error of codes `(B, *latent_shape)`."""
        code, conditions = self.crop(code, conditions)
        clean = self.standardise(code)
        sigma = self.schedule.draw(len(clean), clean.device)
        error = self.take_made(self.estimate(self.add_noise(clean, sigma), sigma, conditions) - clean) ** 2
        return {"loss": (broadcast(self.schedule.weight(sigma)) * error).mean()}

    def loss(self, layout: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the weighted denoising error of layouts `(B, C, H, W)`."""
        return self.code_loss(self.to_code(layout), conditions)

    @torch.no_grad()
    def sample(self, conditions: Conditions, *, noise: Noise, sampler: Sampler | None = None) -> Tensor:
        """Draw layouts `(B, C, H, W)` in [0, 1]. The given channels stay exactly as they are.

        Raises
        ------
        ConditionError
            When the model needs given channels, and none are given.
        """
        layout = self.to_layout((sampler or self.sampler)(self, conditions, noise))
        return join_channels(conditions.given, layout[:, self.made], self.spec) if self.given else layout


def broadcast(values: Tensor) -> Tensor:
    """Return values `(B,)` as `(B, 1, 1, 1)`."""
    return values[:, None, None, None]
