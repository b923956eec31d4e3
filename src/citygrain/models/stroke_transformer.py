"""The transformer of strokes: ways drawn as lines, vertex by vertex."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import shapely
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from citygrain.data.transforms import turn
from citygrain.errors import ConfigError
from citygrain.geo.drawn_ways import DrawnWays
from citygrain.geo.layers import WIDTHS
from citygrain.geo.stroke_code import KINDS, Frame, StrokeCode
from citygrain.geo.stroke_drawing import draw_strokes, trace_strokes
from citygrain.geo.window_strokes import Strokes
from citygrain.measures import MEASURES
from citygrain.models.given_strokes import Varied, vary_windows
from citygrain.models.length_budget import LengthBudget
from citygrain.models.stroke_reader import StepReader
from citygrain.networks.blocks import FourierFeatures
from citygrain.networks.conditioner import ConditionEmbedding, ConditionPlanes
from citygrain.networks.stroke_network import Steps
from citygrain.networks.stroke_steps import (
    DENSITY,
    FRAME,
    MOVES,
    OPS,
    collate_texts,
    count_sections,
    write_text,
)
from citygrain.protocols import Known, Noise, Sampler
from citygrain.samplers.stroke_plan import Plan, plan_window
from citygrain.samplers.strokes import DrawStrokes
from citygrain.spec import Conditions, LayoutSpec

TOGETHER = 8
"""Windows that are read together in training."""

FRAME_WEIGHT = 10.0
"""Weight of the frame in training. It is one step of some two hundred, and all others depend on it."""

Floats = NDArray[np.float64]


class StrokeTransformer(nn.Module):
    """Draw ways as natural streets, vertex by vertex, each given all before it.

    A layout is a text of steps: a stroke begins, goes on, ends; a kind of way has no more strokes. Each step has an
    operation, then x, then y, given what was drawn before, what lies around the last vertex, and what remains of each
    length that is asked for. Lines are straight because they are lines; an end that lies on another stroke is led onto
    it. Lengths that are not asked for are drawn before the text, see `citygrain.models.length_budget`.

    Parameters
    ----------
    spec
        Layouts and conditions. All channels are ways.
    network
        Makes the network from `ops`, `positions`, `sections`, `state` and `embedding`.
    sampler
        Used by `sample` unless another is given; `DrawStrokes` by default.
    embedding
        Size of the conditions' embedding.
    grid_m, tolerance_m, frame, rows
        How ways are written, see `citygrain.geo.stroke_code.StrokeCode`.
    account
        Whether the network is told what remains of each length that is asked for.
    shuffled
        Share of the training windows whose strokes stand in a random order within their kind and length class. Above
        0, strokes are drawn in such an order, too.

    Attributes
    ----------
    code
        How ways are written.

    Raises
    ------
    ConfigError
        For channels that are no ways.
    """

    def __init__(
        self,
        spec: LayoutSpec,
        *,
        network: Callable[..., nn.Module],
        sampler: Sampler | None = None,
        embedding: int = 192,
        grid_m: float = 4.0,
        tolerance_m: float = 2.5,
        frame: Frame = "streets",
        rows: int = 448,
        account: bool = True,
        shuffled: float = 0.0,
    ) -> None:
        super().__init__()
        strange = [name for name in spec.channels if name not in KINDS]
        if strange:
            raise ConfigError(
                "A stroke_transformer draws ways only.",
                expected=f"channels among {', '.join(KINDS)}",
                got=", ".join(strange),
                remedy=f"data.channels=[{','.join(KINDS)}]",
            )
        self.spec = spec
        self.sampler: Sampler = sampler or DrawStrokes()
        kinds = tuple(kind for kind in KINDS if kind in spec.channels)
        self.code = StrokeCode(kinds, spec.extent_m, grid_m, tolerance_m, frame, rows)
        self.account = account
        self.shuffled = shuffled
        self.budget = LengthBudget(spec, self.lengths)
        self.conditioner = ConditionEmbedding(spec, embedding)
        self.planes = ConditionPlanes(spec) if spec.maps else None
        self.maps = nn.Linear(2 * len(spec.maps) * spec.map_px**2, embedding) if spec.maps else None
        self.waves = FourierFeatures(4, period=2.0)
        self.site = nn.Linear(4 * self.waves.size, embedding)
        self.network: Any = network(
            ops=OPS,
            positions=2 * self.code.reach + 1,
            sections=count_sections(len(kinds)),
            state=MOVES + len(kinds) + 2 * len(self.lengths),
            embedding=embedding,
        )

    @cached_property
    def lengths(self) -> tuple[str, ...]:
        """The conditions that are lengths of ways: what remains of them is told."""
        return tuple(
            name
            for name in self.spec.scalars
            if name in MEASURES and MEASURES[name].linear and set(MEASURES[name].weights) <= set(self.code.kinds)
        )

    @cached_property
    def _weights(self) -> Floats:
        """How much of each kind counts as a length, `(S, K)`."""
        rows = [
            [MEASURES[name].weights.get(kind, 0.0) * WIDTHS[kind] / 1000 for kind in self.code.kinds]
            for name in self.lengths
        ]
        return np.array(rows).reshape(len(rows), len(self.code.kinds))

    def measure_conditions(self, conditions: Conditions) -> None:
        """Keep conditions of training windows: what is not asked for is drawn as they have it."""
        self.budget.measure_conditions(conditions)

    # Codes ------------------------------------------------------------------------------------------------------

    def write_code(self, strokes: Strokes) -> Tensor:
        """Return the code `(rows, 8)` of the strokes of a window."""
        return torch.from_numpy(self.code.to_code(self.code.write(strokes)))

    def to_code(self, layout: Tensor) -> Tensor:
        """Return the codes `(B, rows, 8)` of the ways that are traced in layouts `(B, C, H, W)`."""
        cells = layout.detach().float().cpu().numpy()
        strokes = [trace_strokes(one, self.spec.channels, self.spec.resolution_m, self.code.kinds) for one in cells]
        return torch.stack([self.write_code(one) for one in strokes]).to(layout.device)

    def from_code(self, code: Tensor) -> Tensor:
        """Return the layouts `(B, C, H, W)` in [0, 1] of codes `(B, rows, 8)`."""
        spec, cells = self.spec, []
        for one in code.cpu().numpy():
            strokes = self.code.read(self.code.from_code(one))
            cells.append(draw_strokes(strokes, self.code.kinds, spec.channels, spec.size_px, spec.resolution_m))
        return torch.from_numpy(np.stack(cells)).to(code.device).float() / 255

    # The text ---------------------------------------------------------------------------------------------------

    def embed_conditions(self, conditions: Conditions, site: Tensor) -> Tensor:
        """Return the embedding `(B, E)` of conditions and sites `(B, 4)`, in half windows from the middle."""
        embedding: Tensor = self.conditioner(conditions) + self.site(self.waves(site).flatten(1))
        if self.planes is not None and self.maps is not None:
            embedding = embedding + self.maps(self.planes(conditions, self.spec.map_px).flatten(1))
        return embedding

    def add_account(self, steps: Steps, drawn: Tensor, conditions: Conditions) -> Steps:
        """Add to the state what has been drawn of each kind, `(B, L, K)` km/km², and what remains of each request."""
        parts = [steps.state, drawn / DENSITY]
        if self.lengths:
            columns = [self.spec.scalars.index(name) for name in self.lengths]
            weights = drawn.new_tensor(self._weights)
            present = conditions.present[:, None, columns].to(drawn.dtype) * float(self.account)
            asked = conditions.scalars[:, None, columns]
            parts += [(asked - drawn @ weights.T) / DENSITY * present, present.expand(-1, drawn.shape[1], -1)]
        return steps._replace(state=torch.cat(parts, -1))

    # The contract -----------------------------------------------------------------------------------------------

    def loss(self, layout: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the surprise of the ways traced in layouts, see `code_loss`."""
        return self.code_loss(self.to_code(layout), conditions)

    def code_loss(self, code: Tensor, conditions: Conditions) -> dict[str, Tensor]:
        """Return the mean surprise of the steps of codes `(B, rows, 8)` in nats a step, and its parts.

        Each window is turned to one of the 8 symmetries, and of some of them a part is given. The frame of a window has
        a weight of its own in training. It is not learned from mirrored windows: their bearing is not one of the place.
        """
        symmetry = torch.randint(8, (len(code),)).tolist()
        windows = [self.code.from_code(one) for one in code.cpu().numpy()]
        varied = vary_windows(self.code, windows, symmetry, reorder=self.training, shuffled=self.shuffled)
        if self.spec.maps:
            maps = torch.stack([turn(one, s) for one, s in zip(conditions.maps, symmetry, strict=True)])
            conditions = replace(conditions, maps=maps)
        framed = [one.bit_count() % 2 == 0 for one in symmetry]
        nll, parts, count = self._measure_surprise(varied, conditions, framed)
        total = count.sum().clamp_min(1)
        frame, frames = parts.pop("frame"), parts.pop("frames").clamp_min(1)
        means = {name: part / total for name, part in parts.items()}
        whole = torch.tensor([not one.given.any() for one in varied.windows], device=nll.device)
        window = (nll * whole).sum() / whole.sum().clamp_min(1)
        more = (FRAME_WEIGHT - 1) * frame if self.training else 0.0
        means["frame"] = frame.detach() / frames
        return {"loss": (nll.sum() + more) / total, "window": window.detach(), **means}

    @torch.no_grad()
    def log_likelihood(self, layout: Tensor, conditions: Conditions) -> Tensor:
        """Return the log-likelihood `(B,)`, in nats, of the strokes that are traced in layouts."""
        written = [self.code.from_code(one) for one in self.to_code(layout).cpu().numpy()]
        nll, _, _ = self._measure_surprise(Varied.whole(written), conditions, [True] * len(written))
        return -nll

    @torch.no_grad()
    def sample(self, conditions: Conditions, *, noise: Noise, sampler: Sampler | None = None) -> Tensor:
        """Draw layouts `(B, C, H, W)` in [0, 1]."""
        return self.from_code(self.sample_code(conditions, noise=noise, sampler=sampler))

    @torch.no_grad()
    def sample_code(self, conditions: Conditions, *, noise: Noise, sampler: Sampler | None = None) -> Tensor:
        """Draw codes `(B, rows, 8)`."""
        return (sampler or self.sampler)(self, conditions, noise)

    @torch.no_grad()
    def sample_with_ways(
        self, conditions: Conditions, *, noise: Noise, sampler: Sampler | None = None
    ) -> tuple[Tensor, list[DrawnWays]]:
        """Draw layouts, as `sample` does, and return their ways as lines, too."""
        code = self.sample_code(conditions, noise=noise, sampler=sampler)
        return self.from_code(code), self.read_ways(code)

    def read_ways(self, code: Tensor) -> list[DrawnWays]:
        """Return the ways of codes `(B, rows, 8)` as lines."""
        found = []
        for one in code.cpu().numpy():
            strokes = self.code.read(self.code.from_code(one))
            lines = shapely.transform(strokes.lines, lambda xy: xy + self.code.extent_m / 2)
            found.append(DrawnWays(np.array(self.code.kinds)[strokes.kind], lines, strokes.apart, given=strokes.given))
        return found

    # The handle of samplers --------------------------------------------------------------------------------------

    def reader(self, conditions: Conditions, site: Tensor) -> StepReader:
        """Return a reader of one text for each condition, see `StepReader`."""
        return StepReader(self, conditions, site)

    def plan(self, known: Known, kinds: NDArray[np.bool_]) -> list[Plan]:
        """Return what is given where layouts are known; only `kinds` that their places know, `(B, K)`, are drawn."""
        cells = (known.layout * known.keep).float().cpu().numpy()
        kept = known.keep.cpu().numpy()
        ways: Sequence[DrawnWays | None] = known.ways or [None] * len(cells)
        return [
            plan_window(self.code, self.spec, *one, shuffled=self.shuffled > 0)
            for one in zip(cells, kept, kinds, ways, strict=True)
        ]

    def list_known(self, conditions: Conditions) -> NDArray[np.bool_]:
        """Return which kinds the places that are asked for know, `(B, K)`.

        A place that does not know a channel has no statistics of what is measured on it alone.
        """
        known = np.ones((len(conditions), len(self.code.kinds)), bool)
        for scalar, by_place in self.spec.statistics.items():
            channels = MEASURES[scalar].channels if scalar in MEASURES else ()
            ignorant = [i for i, place in enumerate(self.spec.places) if place not in by_place]
            some = len(ignorant) < len(self.spec.places)
            if some and len(channels) == 1 and channels[0] in self.code.kinds:
                asked = np.isin(conditions.place.cpu().numpy(), ignorant)
                known[asked, self.code.kinds.index(channels[0])] = False
        return known

    def draw_lengths(self, conditions: Conditions, numbers: Tensor) -> Conditions:
        """Ask for the lengths that are not asked for, too; uniform numbers `(B,)` choose which."""
        return self.budget.draw_lengths(conditions, numbers)

    def list_lengths(self, conditions: Conditions) -> tuple[Floats, Floats]:
        """Return the lengths that are asked for, `(B, S)` km/km² with NaN for others, and their weights `(S, K)`."""
        columns = [self.spec.scalars.index(name) for name in self.lengths]
        asked = torch.where(conditions.present, conditions.scalars.double(), torch.nan)[:, columns]
        return asked.cpu().numpy(), self._weights

    def choose_op(self, known: Tensor) -> Tensor:
        """Return logits `(B, ops)` of the next step."""
        logits: Tensor = self.network.choose_op(known)
        return logits

    def choose_x(self, known: Tensor, op: Tensor, pen: Tensor) -> Tensor:
        """Return logits `(B, positions)` of x, given the operation `(B,)` and where the pen is, `(B, 2)`."""
        logits: Tensor = self.network.choose_x(known, op, pen)
        return logits

    def choose_y(self, known: Tensor, op: Tensor, x: Tensor, pen: Tensor) -> Tensor:
        """Return logits `(B, positions)` of y, given the operation, x and where the pen is."""
        logits: Tensor = self.network.choose_y(known, op, x, pen)
        return logits

    def _measure_surprise(
        self, varied: Varied, conditions: Conditions, framed: Sequence[bool]
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Return the surprise of windows `(B,)` in nats, its parts summed, and how many steps they are of `(B,)`.

        Windows with as many steps are read together: the time for one grows with the longest.
        """
        texts = [
            write_text(one, self.code, kept, framed=drawn, shuffled=shuffled)
            for one, kept, shuffled, drawn in zip(varied.windows, varied.kept, varied.shuffled, framed, strict=True)
        ]
        order = sorted(range(len(texts)), key=lambda i: len(texts[i].op))
        device = conditions.scalars.device
        surprise, count = torch.zeros(len(texts), device=device), torch.zeros(len(texts), device=device)
        parts = {name: torch.zeros((), device=device) for name in ("op", "x", "y", "frame", "frames")}
        for start in range(0, len(order), TOGETHER):
            rows = order[start : start + TOGETHER]
            index = torch.tensor(rows, device=device)
            steps, drawn, target = collate_texts([texts[i] for i in rows])
            steps, target = Steps(*(part.to(device) for part in steps)), target.to(device)
            asked = conditions[index]
            steps = self.add_account(steps, drawn.to(device), asked)
            site = torch.as_tensor(varied.sites[rows], dtype=torch.float32, device=device)
            modulation = self.network.modulate(self.embed_conditions(asked, site))
            known = self.network(Steps(*(part[:, :-1] for part in steps)), modulation)
            target = target[:, :-1]
            op, x, y = (part[:, 1:][target] for part in (steps.op, steps.x, steps.y))
            located = (steps.placed[:, 1:] | (steps.op[:, 1:] == FRAME))[target]
            h = known[target]
            of_op = F.cross_entropy(self.network.choose_op(h).float(), op, reduction="none")
            pen = torch.stack([steps.x, steps.y], -1)[:, :-1][target][located]
            h, op, x, y = h[located], op[located], x[located], y[located]
            of_x = F.cross_entropy(self.network.choose_x(h, op, pen).float(), x, reduction="none")
            of_y = F.cross_entropy(self.network.choose_y(h, op, x, pen).float(), y, reduction="none")
            row = index[:, None].expand_as(target)[target]
            surprise = surprise.index_add(0, row, of_op).index_add(0, row[located], of_x + of_y)
            count = count.index_add(0, row, torch.ones_like(of_op))
            for name, part in (("op", of_op), ("x", of_x), ("y", of_y)):
                parts[name] = parts[name] + part.sum().detach()
            parts["frame"] = parts["frame"] + (of_x + of_y)[op == FRAME].sum()
            parts["frames"] = parts["frames"] + (op == FRAME).sum()
        return surprise, parts, count
