"""Feedback: estimates of the clean data are moved until they measure what is asked for."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from citygrain.measures import maps_unchecked
from citygrain.networks.frame import find_condition, list_drawn, measure_conditions
from citygrain.protocols import Known, ShowsChannels, ShowsLayouts, TellsVariance, require
from citygrain.samplers.base import DIFFUSION
from citygrain.spec import Conditions, LayoutSpec


def move_to_request(
    model: object,
    clean: Tensor,
    sigma: float,
    conditions: Conditions,
    tolerance: float,
    known: Known | None = None,
    slack: float = 0.0,
) -> Tensor:
    """Move estimates `(B, …)` of the clean data until they measure what is asked for (ΠGDM, Song et al. 2023).

    The request is treated as an observation of the clean data x₀, with an error of `tolerance`. x₀ is taken to be
    normal around its estimate, with the variance R = σ² / (1 + σ²) + `slack`; where a model tells the variance of its
    estimates, that replaces the first term. J is the Jacobian of the measures; it goes through the codec, but not
    through the denoiser. The mean of x₀ then moves by R Jᵀ (J R Jᵀ + tolerance²)⁻¹ (asked − measured). This is the
    smallest change of the layout that fulfils the request; where the change would have to be large, it is smaller than
    that. Without slack, it is exact for data of unit covariance and linear measures. The place is left to the network;
    for maps, see `move_to_maps`. Each scalar condition that is asked for costs one backward pass through the codec.
    """
    visible = require(model, ShowsLayouts, "A finite tolerance", DIFFUSION)
    spec = visible.spec
    asked = conditions.present.any(0).tolist()
    # A model cannot change a measure that was the same in every training window.
    drawn = {spec.scalars.index(name): name for name in list_drawn(spec.scalars)}
    spreads = {i: spread for i, name in drawn.items() if asked[i] and (spread := spec.spread(name)) > 0}
    if not spreads:
        return clean
    columns = list(spreads)
    names = [spec.scalars[i] for i in columns]
    with torch.inference_mode(False), torch.enable_grad():
        unit = torch.tensor(list(spreads.values())).to(clean)
        x = clean.clone().requires_grad_()
        layout = _see(visible, x, known)
        values = measure_conditions(layout, spec.channels, spec.resolution_m, names)
        measured = torch.stack([values[name] for name in names], 1) / unit
        slopes = [torch.autograd.grad(column.sum(), x, retain_graph=True)[0] for column in measured.unbind(1)]
    here = conditions.present[:, columns]
    missing = (conditions.scalars[:, columns] / unit - measured.detach()) * here
    jacobian = torch.stack(slopes, 1).flatten(2).mul_(here[..., None])
    del x, layout, slopes  # over a window of 2 m each of them takes as much as all else
    variance = _find_variance(model, clean, sigma)
    if isinstance(variance, Tensor):
        variance = variance.flatten(1)[:, None]
    moves = (variance + slack) * jacobian
    # Only the unknown part of a layout can be wrong, so the error of the whole shrinks with the share of this part.
    error = tolerance * (torch.ones(1) if known is None else (~known.keep.all(1)).float().mean((1, 2))).to(unit)
    scatter = moves @ jacobian.mT + torch.diag_embed(error[:, None].square().expand(-1, len(names)))
    weights = torch.linalg.solve(scatter, missing)
    return clean + torch.einsum("bk,bkn->bn", weights, moves).view_as(clean)


def move_to_maps(
    model: object,
    clean: Tensor,
    sigma: float,
    conditions: Conditions,
    tolerance: float,
    known: Known | None = None,
    slack: float = 0.0,
) -> Tensor:
    """Move estimates `(B, …)` of the clean data until the cells of condition maps measure what is asked for.

    Each cell of a map is an observation of its own, with an error of `tolerance`; see `move_to_request` for the move.
    This is only possible if each element of the clean data lies in one cell of a map and belongs to one channel. In the
    code of a learned codec, maps are left to the network.
    """
    visible = require(model, ShowsLayouts, "A finite tolerance", DIFFUSION)
    spec = visible.spec
    apart = isinstance(visible, ShowsChannels) and visible.channelwise
    if not spec.maps or not apart or clean.shape[-1] % spec.map_px:
        return clean
    cell = clean.shape[-1] // spec.map_px
    for names in _group_maps(spec, conditions):
        with torch.inference_mode(False), torch.enable_grad():
            x = clean.clone().requires_grad_()
            measured = maps_unchecked(_see(visible, x, known), spec.channels, spec.map_px, list(names))
            scaled = {name: values / names[name] for name, values in measured.items()}
            (slopes,) = torch.autograd.grad(torch.stack(list(scaled.values())).sum(), x)
        variance = _find_variance(model, clean, sigma)
        clean = clean.clone()
        for name, values in scaled.items():
            column = spec.maps.index(name)
            at = [spec.channels.index(channel) for channel in find_condition(name).channels]
            slope = slopes[:, at]
            missing = conditions.maps[:, column] / names[name] - values.detach()
            missing = missing * conditions.maps_present[:, column, None, None]
            move = ((variance[:, at] if isinstance(variance, Tensor) else variance) + slack) * slope
            scatter = F.avg_pool2d((move * slope).sum(1), cell) * cell**2 + tolerance**2
            clean[:, at] += move * F.interpolate((missing / scatter)[:, None], scale_factor=cell, mode="nearest")
    return clean


def _group_maps(spec: LayoutSpec, conditions: Conditions) -> list[dict[str, float]]:
    """Return the maps that are asked for and their spreads, in groups of maps that are measured on different channels.

    The maps of one group can be met at once, for none of them moves what another one measures.
    """
    groups: list[dict[str, float]] = []
    taken: set[str] = set()
    for column, name in enumerate(spec.maps):
        spread = spec.spread(name) if name in spec.statistics else 0.0
        if spread <= 0 or not conditions.maps_present[:, column].any():
            continue
        channels = {*find_condition(name).channels}
        if not groups or taken & channels:
            groups.append({})
            taken = set()
        groups[-1][name] = spread
        taken |= channels
    return groups


def _see(model: ShowsLayouts, x: Tensor, known: Known | None) -> Tensor:
    """Return the layouts of clean `(B, …)`, in which given channels and known parts stay whatever becomes of `x`."""
    layout, spec = model.to_layout(x), model.spec
    if spec.given:
        fixed = torch.tensor([name in spec.given for name in spec.channels], device=layout.device)[:, None, None]
        layout = torch.where(fixed, layout.detach(), layout)
    return layout if known is None else torch.where(known.keep, known.layout, layout)


def _find_variance(model: object, clean: Tensor, sigma: float) -> Tensor | float:
    """Return the variance of the clean data around an estimate of it: of each element, `(B, …)`, or of all alike."""
    return model.variance(clean) if isinstance(model, TellsVariance) else sigma**2 / (1 + sigma**2)
