"""The sampler of strokes: one vertex after another, each where its operation can put it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from citygrain.errors import ConfigError
from citygrain.geo.stroke_code import BEARINGS, StrokeCode
from citygrain.networks.stroke_network import Steps
from citygrain.protocols import Known, Noise, require
from citygrain.samplers.stroke_pen import Pen
from citygrain.samplers.stroke_plan import Account, Plan
from citygrain.samplers.tokens import TokenSampler
from citygrain.spec import Conditions


class ReadsSteps(Protocol):
    """Reads texts step by step, and remembers what it has read."""

    def read(self, steps: Steps, drawn: Tensor) -> Tensor:
        """Read one step `(B, 1)` of each text; return what is known then, `(B, E)`.

        The state of a step holds the moves only; `drawn`, `(B, 1, K)` in km/km², is what has been drawn.
        """
        ...

    def select(self, rows: Tensor) -> None:
        """Forget all texts but some."""
        ...


@runtime_checkable
class StrokeModel(Protocol):
    """The handle of `DrawStrokes`: the distribution of each step of a text, given the steps before it."""

    code: StrokeCode
    shuffled: float

    def reader(self, conditions: Conditions, site: Tensor) -> ReadsSteps:
        """Return a reader of one text for each condition; sites `(B, 4)` are in half windows from the middle."""
        ...

    def list_known(self, conditions: Conditions) -> NDArray[np.bool_]:
        """Return which kinds the places that are asked for know, `(B, K)`: others are not drawn."""
        ...

    def list_lengths(self, conditions: Conditions) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the lengths that are asked for, `(B, S)` km/km² with NaN for others, and their weights `(S, K)`."""
        ...

    def draw_lengths(self, conditions: Conditions, numbers: Tensor) -> Conditions:
        """Ask for the lengths that are not asked for, too; uniform numbers `(B,)` choose which."""
        ...

    def choose_op(self, known: Tensor) -> Tensor:
        """Return logits `(B, ops)` of the next step."""
        ...

    def choose_x(self, known: Tensor, op: Tensor, pen: Tensor) -> Tensor:
        """Return logits `(B, positions)` of x, given the operation and where the pen is, `(B, 2)`."""
        ...

    def choose_y(self, known: Tensor, op: Tensor, x: Tensor, pen: Tensor) -> Tensor:
        """Return logits `(B, positions)` of y, given the operation, x and where the pen is."""
        ...


@dataclass(frozen=True)
class DrawStrokes(TokenSampler[StrokeModel]):
    """Draw one vertex after another.

    Operations and positions are drawn from those that are possible: an end at the edge lies there, an end on another
    stroke lies near one that has been drawn, and a stroke ends before the next begins.

    Parameters
    ----------
    bearing
        Bearing that most streets follow or cross, in degrees from north, clockwise, from 0 to below 90. None leaves
        it to the model. Where streets are given, the bearing is theirs.
    budget
        Whether lengths of ways that are not asked for are drawn first, as they go together in training windows, where
        nothing is given. The network then has an account of each length.
    shortfall
        How much may be missing of a length that is asked for, in km/km², or one mean stroke: until then, its last kind
        of way has no end. None leaves it to the model. Where streets are given, it always is.
    """

    needs: ClassVar[type] = StrokeModel

    bearing: float | None = None
    budget: bool = True
    shortfall: float | None = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shortfall is not None and not self.shortfall > 0:
            raise ConfigError(
                "A window can't meet a length to the metre.",
                expected="sampler.shortfall > 0 km/km²",
                got=self.shortfall,
            )
        if self.bearing is not None and not 0 <= self.bearing < 90:
            raise ConfigError(
                "Streets that cross at right angles have one bearing within a quarter of a turn.",
                expected="sampler.bearing from 0 to below 90 degrees",
                got=self.bearing,
            )

    def draw(self, model: StrokeModel, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw codes `(B, rows, 8)`."""
        if self.guidance == 0:
            return replace(self, guidance=1.0).draw(model, conditions.absent(), noise)
        asked = None if self.bearing is None else round(self.bearing * BEARINGS / 90) % BEARINGS
        plans = [Plan(known, bearing=asked, shuffled=model.shuffled > 0) for known in model.list_known(conditions)]
        if self.budget:
            conditions = model.draw_lengths(conditions, noise.uniform(1)[:, 0])
        if self.shortfall is not None:
            lengths, weights = model.list_lengths(conditions)
            plans = [
                replace(plan, account=Account(one, weights, self.shortfall))
                for plan, one in zip(plans, lengths, strict=True)
            ]
        return self.draw_plans(model, plans, conditions, noise)

    def complete(self, model: StrokeModel, known: Known, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw codes `(B, rows, 8)` around what is known; the known ways are in them."""
        planner = require(model, PlansStrokes, "Keeping parts of a layout", ["stroke_transformer"])
        plans = planner.plan(known, model.list_known(conditions))
        return self.draw_plans(model, plans, conditions, noise)

    def draw_plans(self, model: StrokeModel, plans: Sequence[Plan], conditions: Conditions, noise: Noise) -> Tensor:
        """Draw what is missing of each plan; return codes `(B, rows, 8)`."""
        code = model.code
        steps = code.rows + 2 * len(code.kinds)
        numbers = noise.uniform(steps, 3)
        sites = torch.tensor([plan.site for plan in plans], dtype=torch.float32, device=noise.device)
        reader = model.reader(self.repeat_conditions(conditions), sites.repeat(self.runs, 1))
        pens = [Pen(code, plan) for plan in plans]
        alive = np.arange(len(pens))
        for step in range(steps):
            active = [pens[i] for i in alive]
            batch, drawn = _collect_steps(active, noise.device)
            known = reader.read(_repeat(batch, self.runs), drawn.repeat(self.runs, 1, 1))
            self._choose(model, active, known, numbers[alive, step])
            still = np.array([not pen.done for pen in active])
            if not still.any():
                break
            if still.mean() < 0.75:
                rows = torch.from_numpy(np.flatnonzero(still)).to(noise.device)
                reader.select(torch.cat([rows + run * len(alive) for run in range(self.runs)]))
                alive = alive[still]
        codes = [code.to_code(pen.finish()) for pen in pens]
        return torch.from_numpy(np.stack(codes)).to(noise.device)

    def _choose(self, model: StrokeModel, pens: Sequence[Pen], known: Tensor, numbers: Tensor) -> None:
        """Choose the next step of each pen that has a choice, and make it."""
        device = known.device
        allowed = torch.from_numpy(np.stack([pen.list_ops() for pen in pens])).to(device)
        op = self.pick(_mask(self.guide(model.choose_op(known)), allowed), numbers[:, 0])
        ops = [pen.settle_op(chosen) for pen, chosen in zip(pens, op.tolist(), strict=True)]
        op = torch.tensor(ops, device=device)
        where = torch.tensor([[pen.x, pen.y] for pen in pens], device=device).repeat(self.runs, 1)
        columns = torch.from_numpy(np.stack([pen.list_x(o) for pen, o in zip(pens, ops, strict=True)])).to(device)
        x = self.pick(_mask(self.guide(model.choose_x(known, op.repeat(self.runs), where)), columns), numbers[:, 1])
        xs = x.tolist()
        rows = np.stack([pen.list_y(at) for pen, at in zip(pens, xs, strict=True)])
        of_y = self.guide(model.choose_y(known, op.repeat(self.runs), x.repeat(self.runs), where))
        y = self.pick(_mask(of_y, torch.from_numpy(rows).to(device)), numbers[:, 2])
        for pen, *made in zip(pens, ops, xs, y.tolist(), strict=True):
            pen.make(*made)


@runtime_checkable
class PlansStrokes(Protocol):
    """A handle that can tell which strokes are given where layouts are known."""

    def plan(self, known: Known, kinds: NDArray[np.bool_]) -> list[Plan]:
        """Return what is given of each layout, and what is drawn of the kinds that its place knows, `(B, K)`."""
        ...


def _collect_steps(pens: Sequence[Pen], device: torch.device) -> tuple[Steps, Tensor]:
    names = ("op", "x", "y", "placed", "section", "vertex", "number")
    op, x, y, placed, section, vertex, number = (
        torch.tensor([[getattr(pen, name)] for pen in pens], device=device) for name in names
    )
    rays, spread, moves, drawn = (
        torch.from_numpy(np.stack([getattr(pen, name) for pen in pens])).to(device)[:, None]
        for name in ("rays", "spread", "moves", "drawn")
    )
    return Steps(op, x, y, placed, section, vertex, number, rays, spread, moves), drawn


def _repeat(steps: Steps, times: int) -> Steps:
    return steps if times == 1 else Steps(*(part.repeat(times, *[1] * (part.ndim - 1)) for part in steps))


def _mask(logits: Tensor, allowed: Tensor) -> Tensor:
    return logits.float().masked_fill(~allowed, -1e9)
