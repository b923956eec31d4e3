"""Laws of the transformer of strokes: its text, its likelihood, what its sampler may draw, and what it is given."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import shapely
import torch

import families
from citygrain.checkpoint import build_generator
from citygrain.data.transforms import turn
from citygrain.errors import CapabilityError, ConfigError
from citygrain.generation.area import draw_area
from citygrain.generation.continuity import count_street_ends
from citygrain.generation.windows import draw as windows_of
from citygrain.geo.layers import WIDTHS
from citygrain.geo.rasterize import Grid
from citygrain.geo.stroke_code import to_angle, turn_points
from citygrain.geo.stroke_drawing import draw_strokes
from citygrain.geo.window_strokes import AT_EDGE, EDGE, LOOSE, ON, OPEN, Strokes, split_at_site
from citygrain.models import given_strokes, stroke_transformer
from citygrain.models.given_strokes import Varied
from citygrain.networks.stroke_network import Steps
from citygrain.networks.stroke_steps import APART, FIRST, FRAME, INNER, LAST, NEXT, collate_texts, write_text
from citygrain.protocols import HasLikelihood, Known, LearnsFromCodes, LearnsFromWays, Noise
from citygrain.samplers import strokes as sampler_of_strokes
from citygrain.samplers.areas import Inpaint
from citygrain.samplers.stroke_pen import Pen
from citygrain.samplers.stroke_plan import Plan, _find_cuts
from citygrain.samplers.strokes import DrawStrokes, PlansStrokes, StrokeModel
from citygrain.samplers.tokens import NextToken
from citygrain.spec import Conditions, LayoutSpec

WAYS = ("arterial", "street", "walk")
SCALARS = ("arterial", "street_density", "walk")
RAMP = {"all": tuple(range(101))}
SPEC = LayoutSpec(WAYS, 64, 4.0, scalars=SCALARS, places=("here", "there"), statistics=dict.fromkeys(SCALARS, RAMP))


def make(spec=SPEC, shake=0.2, **settings):
    """A model all of whose weights matter."""
    torch.manual_seed(0)
    config = families.config("stroke_transformer") | {"rows": 96} | settings
    model = build_generator(config, spec).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(shake * torch.randn_like(p))
    return model


def town(seed, kinds=3, extent_m=256.0):
    """Streets of a window: a grid that is bent and turned, with walks across it that stop on the way."""
    random = np.random.default_rng(seed)
    half, lines, kind = extent_m / 2, [], []
    for number, at in enumerate(np.arange(-100, 101, 50.0)):
        offset = random.uniform(-8, 8)
        lines += [[[-300, at + offset], [300, at - offset]], [[at + offset, -300], [at - offset, 300]]]
        kind += [int(number == 2), 1]
        x, y = random.uniform(-half, half, 2)
        lines.append([[x, y], [x + 30, y + 20], [x + 40, y + 60]])
        kind.append(min(2, kinds - 1))
    turned = turn_points(np.array([p for line in lines for p in line]), random.uniform(0, 1.5))
    drawn = shapely.linestrings(turned, indices=np.repeat(np.arange(len(lines)), [len(line) for line in lines]))
    cut, owner = shapely.get_parts(shapely.clip_by_rect(drawn, -half, -half, half, half), return_index=True)
    long = shapely.length(cut) > 4
    return Strokes.of_lines(np.array(kind)[owner[long]], cut[long], np.ones(kinds, bool))


def windows(model, count=4, sites=False):
    """Windows as they are written, half of them with a part that is given when there are sites."""
    made = []
    for seed in range(count):
        strokes = town(seed)
        if sites and seed % 2:
            strokes = split_at_site(strokes, (-60.0, -128.0, 70.0, 40.0), [0] if seed == 3 else [])
        made.append(model.code.write(strokes))
    return made


def asked(count, spec=SPEC):
    """Some conditions; lengths of up to 30 km/km²."""
    conditions = families.some_conditions(count, spec)
    return replace(conditions, scalars=30 * conditions.scalars)


def draw(model, count=4, sampler=None, known=None, conditions=None):
    """Draw codes, and return the strokes as they are written."""
    sampler = sampler or DrawStrokes()
    conditions, noise = conditions or asked(count), Noise(range(count))
    code = sampler(model, conditions, noise) if known is None else Inpaint(sampler, known)(model, conditions, noise)
    return [model.code.from_code(one) for one in code.numpy()]


def test_it_has_what_its_sampler_needs_and_draws_ways_only():
    model = make()
    for capability in (StrokeModel, PlansStrokes, HasLikelihood, LearnsFromCodes, LearnsFromWays):
        assert isinstance(model, capability)
    with pytest.raises(CapabilityError, match="DrawStrokes"):
        model.sample(asked(1), noise=Noise([0]), sampler=NextToken())
    with pytest.raises(ConfigError, match=r"ways only[\s\S]*green"):
        make(replace(SPEC, channels=("street", "green")))


@pytest.mark.parametrize("sites", [False, True])
def test_reading_step_by_step_gives_what_is_known_of_the_whole(sites):
    model = make()
    texts = [write_text(one, model.code) for one in windows(model, sites=sites)]
    steps, drawn, _ = collate_texts(texts)
    conditions, site = asked(4), torch.rand(4, 4)
    with torch.no_grad():
        modulation = model.network.modulate(model.embed_conditions(conditions, site))
        whole = model.network(model.add_account(steps, drawn, conditions), modulation)
        reader = model.reader(conditions, site)
        count = min(len(text.op) for text in texts)
        parts = [reader.read(Steps(*(part[:, i : i + 1] for part in steps)), drawn[:, i : i + 1]) for i in range(count)]
    assert torch.allclose(torch.stack(parts, 1), whole[:, :count], atol=1e-4)


def test_a_step_knows_the_steps_before_it_and_no_others():
    model = make()
    steps, drawn, _ = collate_texts([write_text(one, model.code) for one in windows(model, 1)])
    modulation = model.network.modulate(model.embed_conditions(asked(1), torch.zeros(1, 4)))
    steps = model.add_account(steps, drawn, asked(1))
    with torch.no_grad():
        known = model.network(steps, modulation)
        for place in range(0, known.shape[1], 7):
            other = steps._replace(state=steps.state.clone())
            other.state[:, place] += 1
            moved = (model.network(other, modulation) - known).abs().amax(-1)[0] > 1e-6
            assert not moved[:place].any()
            assert moved[place]
        torch.nn.init.normal_(model.network.rays.weight)  # it learns from nothing what rays tell
        without = model.network(steps._replace(rays=torch.zeros_like(steps.rays)), modulation)
        seen = (model.network(steps, modulation) - without).abs().amax(-1)[0] > 1e-6
        first = int((steps.rays[0] != 0).any(-1).nonzero()[0])
        assert not seen[:first].any()
        assert seen[first]


@pytest.mark.parametrize("sites", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("shuffled", [pytest.param(0.0, marks=pytest.mark.slow), 0.5])
def test_what_the_sampler_tells_the_network_is_what_the_text_of_its_strokes_tells(monkeypatch, sites, shuffled):
    """So the network reads in sampling what it reads in training: positions, moves, and what has been drawn."""
    model, told = make(rows=200, shuffled=shuffled), []
    known = _known_around(model, 4) if sites else None

    def collect(pens, device):
        steps, drawn = plain(pens, device)
        told.append((*steps, drawn))
        return steps, drawn

    plain = sampler_of_strokes._collect_steps
    monkeypatch.setattr(sampler_of_strokes, "_collect_steps", collect)
    for row in range(4):
        told.clear()
        one = None if known is None else Known(*(part[row : row + 1] for part in known[:2]))
        written = draw(model, 1, known=one, conditions=asked(4)[row : row + 1])[0]
        assert len(written) > 3
        text = write_text(written, model.code, shuffled=shuffled > 0)
        made = [torch.cat(parts, 1)[0].numpy() for parts in zip(*told, strict=True)]
        names = ("op", "x", "y", "placed", "section", "vertex", "number", "rays", "spread", "moves", "drawn")
        assert len(made[0]) == len(text.op) - 1, "the last step is not read"
        own = text.section[:-2] < len(WAYS)  # given steps are read from a text that knows which ends go on
        for name, values in zip(names, made, strict=True):
            pair = [values, getattr(text, name)[:-1]]
            if name == "op":  # an end that waits in vain is loose afterwards
                pair = [
                    np.where(np.isin(ops, [OPEN, APART + OPEN, LAST + OPEN]), ops - OPEN, ops)[1:][own] for ops in pair
                ]
            assert np.allclose(*pair, atol=1e-4), name


def test_the_likelihood_of_a_layout_is_the_sum_of_its_steps():
    model, conditions = make(), asked(3)
    layouts = torch.stack([model.from_code(model.write_code(town(seed))[None])[0] for seed in range(3)])
    likelihood = model.log_likelihood(layouts, conditions)
    for row, code in enumerate(model.to_code(layouts)):
        text = write_text(model.code.from_code(code.numpy()), model.code)
        reader = model.reader(conditions[row : row + 1], torch.tensor([[-1.0, -1.0, 1.0, 1.0]]))
        steps, drawn, _ = collate_texts([text])
        total = 0.0
        with torch.no_grad():
            for i in range(len(text.op) - 1):
                known = reader.read(Steps(*(part[:, i : i + 1] for part in steps)), drawn[:, i : i + 1])
                op, x, y = (part[:, i + 1] for part in (steps.op, steps.x, steps.y))
                total += model.choose_op(known).log_softmax(-1)[0, op].item()
                if op.item() != NEXT:
                    pen = torch.stack([steps.x[:, i], steps.y[:, i]], -1)
                    total += model.choose_x(known, op, pen).log_softmax(-1)[0, x].item()
                    total += model.choose_y(known, op, x, pen).log_softmax(-1)[0, y].item()
        assert likelihood[row].item() == pytest.approx(total, rel=1e-4)


def test_the_loss_is_the_likelihood_of_a_step_where_nothing_is_given(monkeypatch):
    model, conditions = make(), asked(3)
    monkeypatch.setattr("citygrain.models.given_strokes.SITE_SHARE", 0.0)
    monkeypatch.setattr(torch, "randint", lambda high, size: torch.zeros(size, dtype=torch.long))  # no symmetry
    code = torch.stack([model.write_code(town(seed)) for seed in range(3)])
    texts = [write_text(model.code.from_code(one.numpy()), model.code) for one in code]
    losses = model.code_loss(code, conditions)
    written = [model.code.from_code(one.numpy()) for one in code]
    nll, _, count = model._measure_surprise(Varied.whole(written), conditions, [True] * 3)
    assert count.tolist() == [len(text.op) - 1 for text in texts]
    assert losses["loss"].item() == pytest.approx((nll.sum() / count.sum()).item(), rel=1e-5)
    assert losses["window"].item() == pytest.approx(nll.mean().item(), rel=1e-5)
    assert losses["loss"].item() == pytest.approx(sum(losses[part].item() for part in ("op", "x", "y")), rel=1e-5)


def test_the_account_says_what_remains_of_what_is_asked_and_hides_the_rest():
    model = make()
    text = write_text(windows(model, 1)[0], model.code)
    steps, drawn, _ = collate_texts([text])
    assert drawn[0, -1].tolist() == pytest.approx(
        [sum(shapely.length(town(0).lines[town(0).kind == kind])) / 0.256**2 / 1000 for kind in range(3)],
        rel=0.05,
    )
    conditions = replace(
        Conditions.empty(SPEC, 1), scalars=torch.tensor([[3.0, 20.0, 7.0]]), present=torch.tensor([[False, True, True]])
    )
    state = model.add_account(steps, drawn, conditions).state[0, :, -9:]
    remains, there = state[:, 3:6] * 5, state[:, 6:]
    assert torch.allclose(state[:, :3] * 5, drawn[0])
    assert torch.allclose(remains[:, 1], 20 - drawn[0, :, 0] - drawn[0, :, 1], atol=1e-4)
    assert torch.allclose(remains[:, 2], 7 - drawn[0, :, 2], atol=1e-4)
    assert (remains[:, 0] == 0).all()
    assert there.tolist() == [[0, 1, 1]] * len(text.op)
    silent = make(account=False).add_account(steps, drawn, conditions).state[0, :, -6:]
    assert (silent == 0).all()


def test_a_code_holds_only_what_can_be_done():
    model = make()
    seen = set()
    for written in draw(model, 6):
        stands = written.find_standing(model.code.kinds)
        seen |= set(stands.flatten().tolist())
        assert len(written.xy) < model.code.rows
        assert (np.bincount(written.stroke) >= 2).all()
        assert (np.diff(written.kind) >= 0).all()
        out = np.abs(turn_points(written.xy * model.code.grid_m, to_angle(written.bearing))).max(1) - 128
        assert (out <= 0.8 * model.code.grid_m + 1e-6).all()
        ends = np.stack([written.xy[written.first], written.xy[written.last]], 1)
        at_edge = np.abs(turn_points(ends.reshape(-1, 2) * 4.0, to_angle(written.bearing))).max(1).reshape(-1, 2) - 128
        assert (np.abs(at_edge[stands == AT_EDGE]) <= 0.8 * model.code.grid_m + 1e-6).all()
        for number, end in zip(*np.nonzero(stands == ON), strict=True):
            partner = written.partners[number, end, 0]
            assert partner <= number
            line = written.xy[written.stroke == partner]
            near = shapely.distance(shapely.Point(ends[number, end]), shapely.LineString(line))
            assert near <= 1.6 * math.sqrt(2) + 0.5
    assert seen >= {LOOSE, AT_EDGE, ON}


def test_a_stroke_may_end_on_its_own_line_before_its_last_pieces():
    code = make().code
    pen = Pen(code, Plan(np.ones(3, bool)))
    middle = code.reach
    pen.make(FRAME, 0, 0)
    pen.make(NEXT, 0, 0)  # no arterials
    corners = [(-30, 0), (0, 0), (12, 0), (12, 12)]
    for number, (x, y) in enumerate(corners):
        assert not pen.list_ops()[LAST + ON] or number > 2, "there is nothing to end on"
        pen.make(INNER if number else FIRST + LOOSE, middle + x, middle + y)
    assert pen.list_ops()[LAST + ON]
    columns = pen.list_x(LAST + ON)
    allowed = np.array([(x, y) for x in np.flatnonzero(columns) for y in np.flatnonzero(pen.list_y(x))]) - middle
    line = shapely.LineString(corners[:-1])
    assert shapely.distance(line, shapely.points(allowed)).max() < 1.6 * math.sqrt(2) + 0.5
    assert {(-30, 0), (-10, 0), (0, 0)} <= set(map(tuple, allowed.tolist()))
    pen.make(LAST + ON, middle - 10, middle + 1)
    written = pen.finish()
    assert written.find_standing(code.kinds).tolist() == [[LOOSE, ON]]
    assert written.partners[0, 1].tolist() == [0, -1]
    (back,) = code.read(written).lines
    assert back.coords[-1] == pytest.approx((-40, 0))
    assert write_text(written, code).op[2:9].tolist() == [NEXT, FIRST + LOOSE, INNER, INNER, INNER, LAST + ON, NEXT]


def test_a_stroke_moves_on_with_each_vertex():
    for written in draw(make(), 6):
        same = written.stroke[1:] == written.stroke[:-1]
        assert (written.xy[1:] != written.xy[:-1]).any(1)[same].all()


def test_a_shortfall_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="shortfall"):
        DrawStrokes(shortfall=0.0)


def test_strokes_fill_no_more_rows_than_there_are():
    model = make(rows=24)
    with torch.no_grad():
        model.network.op_logits.bias[NEXT] -= 8  # it never wants to end
    for written in draw(model, 4):
        assert 12 < len(written.xy) < 24


@pytest.mark.parametrize("batch", [1, pytest.param(2, marks=pytest.mark.slow), 5])
def test_a_seed_gives_the_same_strokes_in_any_batch(batch):
    model, conditions = make(), asked(5)
    sampler = DrawStrokes(guidance=1.5)
    whole = sampler(model, conditions, Noise(range(5)))
    parts = [sampler(model, conditions[i : i + batch], Noise(range(5)[i : i + batch])) for i in range(0, 5, batch)]
    assert torch.equal(torch.cat(parts), whole)


def test_guidance_of_one_is_none_and_of_zero_hides_the_request():
    model, conditions = make(), asked(3)

    def drawn(guidance, asked_for=conditions):
        return DrawStrokes(guidance=guidance)(model, asked_for, Noise(range(3)))

    assert torch.equal(drawn(1.0), DrawStrokes()(model, conditions, Noise(range(3))))
    assert torch.equal(drawn(1.0 + 1e-6), drawn(1.0)), "two runs that are joined are one"
    assert torch.equal(drawn(0.0), drawn(1.0, conditions.absent()))
    assert not torch.equal(drawn(3.0), drawn(1.0))


@pytest.mark.parametrize("asked", [{"street_density": 9.0, "walk": 5.0}, {"arterial": 4.0}, {}])
def test_a_kind_goes_on_until_no_more_than_its_mean_stroke_is_missing_of_what_is_asked(asked):
    """The model is not trained: it would end anywhere. Arterials count as streets; rows are enough."""
    model = make(shake=0.1, rows=400)
    conditions = Conditions.request(SPEC, 6, asked)
    drawn = {}
    for shortfall in (0.5, None):
        sampler = DrawStrokes(shortfall=shortfall, budget=False)
        drawn[shortfall] = model.sample_code(conditions, noise=Noise(range(6)), sampler=sampler)
        lengths, weights = model.list_lengths(conditions)
        for code, wanted in zip(drawn[shortfall].numpy(), lengths, strict=True):
            written = model.code.from_code(code)
            assert len(written.xy) < 390
            run = np.hypot(*np.diff(written.xy, axis=0).T) * (np.diff(written.stroke) == 0)
            length = np.bincount(written.kind[written.stroke[1:]], run, 3) * model.code.grid_m
            of, count = 1000 * length / model.code.extent_m**2, np.bincount(written.kind, minlength=3)
            missing, usual = wanted - weights @ of, np.where(count > 0, of / np.maximum(count, 1), np.inf)
            for name, short in zip(SCALARS, missing, strict=True):
                last = WAYS.index({"street_density": "street"}.get(name, name))
                assert shortfall is None or not short > max(0.5, usual[last]) + 1e-4
    assert drawn[0.5].equal(drawn[None]) == (not asked)


def test_what_is_not_asked_for_is_drawn_as_training_windows_have_it():
    """Each window of `here` has 2 km/km² of arterials and 6 of walks."""
    model = make(shake=0.1, rows=400)
    known = Conditions.request(SPEC, 8, {"arterial": 2.0, "street_density": 7.0, "walk": 6.0, "place": "here"})
    model.measure_conditions(known)
    asked, told = Conditions.request(SPEC, 3, {"place": "here"}), known[:3]
    with_budget, without = DrawStrokes(), DrawStrokes(budget=False)
    drawn = model.sample_code(asked, noise=Noise(range(3)), sampler=with_budget)
    numbers = Noise(range(3))
    numbers.uniform(1)
    assert drawn.equal(model.sample_code(told, noise=numbers, sampler=without))
    assert not drawn.equal(model.sample_code(asked, noise=Noise(range(3)), sampler=without))


def test_a_kind_that_is_not_known_has_no_section_and_is_no_target():
    model = make()
    strokes = town(0)
    kept = strokes.kind != 2
    unknown = Strokes.of_lines(strokes.kind[kept], strokes.lines[kept], np.array([True, True, False]))
    code = model.write_code(unknown)
    assert model.code.from_code(code.numpy()).known.tolist() == [True, True, False]
    text = write_text(model.code.from_code(code.numpy()), model.code)
    assert set(text.section.tolist()) == {7, 0, 1, 6}
    every = write_text(model.code.write(replace(unknown, known=np.ones(3, bool))), model.code)
    assert set(every.section.tolist()) == {7, 0, 1, 2, 6}
    assert len(every.op) == len(text.op) + 1
    assert torch.isfinite(model.code_loss(code[None], Conditions.empty(SPEC, 1))["loss"])


def _known_around(model, count, site=(16, 16, 48, 48)):
    """Layouts of towns, of which a square is not known."""
    layouts = torch.cat([model.from_code(model.write_code(town(seed))[None]) for seed in range(count)])
    left, top, right, bottom = site
    keep = torch.ones(layouts.shape, dtype=torch.bool)
    keep[:, :, top:bottom, left:right] = False
    return Known(layouts, keep)


def test_kinds_that_are_kept_are_never_drawn():
    model = make(rows=200)
    known = _known_around(model, 3, (0, 0, 64, 64))
    known.keep[:, [0, 2]] = True
    every = draw(model, 3, known=known)
    assert [set(written.kind[written.given].tolist()) for written in every] == [{0, 2}] * 3
    assert {kind for written in every for kind in written.kind[~written.given].tolist()} == {1}


def test_nothing_is_drawn_where_all_is_kept():
    model = make()
    known = _known_around(model, 2, (0, 0, 0, 0))
    for written in draw(model, 2, known=known):
        assert written.given.all()


def test_lines_lead_onto_the_site_and_not_along_it():
    """Beside the site nothing is seen: a line that begins there, at what it goes on from, is soon on the site."""
    model = make(rows=300)
    size, deep, beside = model.code.grid_m, [], 0
    for written in draw(model, 6, known=_known_around(model, 6)):
        xy = turn_points(written.xy * size, to_angle(written.bearing))
        inside = np.abs(xy).max(1) <= 64 + 1e-6
        ends = np.zeros(len(xy), bool)
        ends[np.concatenate([written.first, written.last])] = True
        fresh = ~written.given[written.stroke]
        assert inside[fresh & ~ends].all()
        for number in np.flatnonzero(~written.given):
            points = xy[written.stroke == number]
            for line in (points, points[::-1]):
                if np.abs(line[0]).max() > 64 + 1e-6:
                    beside += 1
                    ahead = line[1] - line[0]
                    there = line[0] + ahead * min(1, 3 * size / np.hypot(*ahead))
                    deep.append(np.abs(there).max() <= 64 + size / 2)
    assert beside > 40
    assert np.mean(deep) > 0.97  # an end that was moved to what waits near by


def test_an_end_near_to_what_waits_is_there():
    model = make()
    code, middle = model.code, model.code.reach
    pen = Pen(code, Plan(np.ones(3, bool), entries={1: np.array([[middle + 10, middle], [middle - 10, middle]])}))
    for op, x, y in ((FRAME, 0, 0), (NEXT, 0, 0), (FIRST + LOOSE, middle + 8, middle + 2)):
        pen.make(op, x, y)
    assert (pen.x, pen.y) == (middle + 10, middle)
    assert pen.waiting[1] == [(middle - 10, middle)]
    pen.make(INNER, middle - 8, middle)
    assert pen.waiting[1] == [(middle - 10, middle)], "it waits for an end"
    pen.make(LAST + LOOSE, middle - 7, middle)
    assert pen.waiting[1] == [(middle - 10, middle)], "three positions away it is another place"
    assert pen.settle_op(NEXT) == FIRST + ON


def test_a_site_between_the_positions_is_drawn_on():
    code = make().code
    every = np.ones((2 * code.reach + 1,) * 2, bool)
    pen = Pen(code, Plan(np.ones(3, bool), find_free=lambda _: (~every, every)))
    pen.make(FRAME, 0, 0)
    assert pen.list_x(FIRST + LOOSE).any()


@pytest.mark.parametrize(("cross", "count"), [("right", 1), ("low", 1), ("broad", 1), ("along", 0)])
def test_streets_that_are_cut_off_are_found_however_they_cross(cross, count):
    """In cells of 2 m, at the edge of a site of 100 cells in a window of 256."""
    lines = {
        "right": [[(0, -256), (0, -90)]],
        "low": [[(-250, -190), (0, -98)]],  # 20 degrees
        "broad": [[(x, -256), (x, -90)] for x in (-8.4, 0, 8.4)],
        "along": [[(-80, -104.5), (80, -104.5)]],
    }[cross]
    strokes = Strokes.of_lines(np.ones(len(lines), int), shapely.linestrings(lines), np.ones(3, bool))
    cells = draw_strokes(strokes, WAYS, WAYS, 256, 2.0)[1] / 255
    free = np.zeros((256, 256), bool)
    free[78:178, 78:178] = True
    found = _find_cuts(np.where(free, 0, cells).astype(np.float32), free, WIDTHS["street"] / 2)
    assert len(found) == count
    for x, y in found:
        assert abs(y - 77.5) < 1
        assert 100 < x < 130


@pytest.mark.slow
def test_what_is_drawn_lies_in_the_site_also_where_nothing_is_given():
    model = make(rows=200)
    with torch.no_grad():
        model.network.op_logits.bias[NEXT] -= 4
    around = _known_around(model, 3)
    for known in (around, around._replace(layout=torch.zeros(3, *SPEC.shape))):
        fresh = [
            turn_points(written.xy[~written.given[written.stroke]] * 4.0, to_angle(written.bearing))
            for written in draw(model, 3, known=known)
        ]
        at = np.concatenate(fresh)
        assert len(at) > 20
        assert (np.abs(at).max(1) <= 64 + 2 * model.code.grid_m).all()


def test_every_street_that_ends_at_the_edge_of_a_site_goes_on_inside():
    model = make(rows=300)
    known = _known_around(model, 6)
    plans = model.plan(known, np.ones((6, 3), bool))
    assert sum(len(points) for plan in plans for points in plan.entries.values()) > 20
    for plan, written in zip(plans, draw(model, 6, known=known), strict=True):
        ends = np.concatenate([written.xy[written.first], written.xy[written.last]])
        kind, fresh = np.tile(written.kind, 2), np.tile(~written.given, 2)
        for number, points in plan.entries.items():
            begun = ends[fresh & (kind == number)] + model.code.reach
            for point in points:
                assert np.abs(begun - point).max(1).min() <= 1


@pytest.mark.slow
def test_some_windows_are_learned_and_come_back():
    torch.manual_seed(0)
    model = make(shake=0.0, frame="none")
    block = [[[-130, -60], [130, -60]], [[-130, 60], [130, 60]], [[-60, -130], [-60, 130]], [[60, -130], [60, 130]]]
    cut = shapely.clip_by_rect(shapely.linestrings(block), -128, -128, 128, 128)
    code = model.write_code(Strokes.of_lines(np.ones(4, int), cut, np.ones(3, bool)))[None].repeat(8, 1, 1)
    conditions = Conditions.empty(SPEC, 8)
    before = model.code_loss(code, conditions)["loss"].item()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(250):
        optimizer.zero_grad()
        loss = model.code_loss(code, conditions)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert loss.item() < 0.15 * before
    written = draw(model, 2, DrawStrokes(temperature=0), conditions=conditions[:2])[0]
    lines = model.code.read(written).lines
    assert sorted(shapely.length(lines).round().tolist()) == [256.0] * 4
    assert (written.how == EDGE).all()


@pytest.mark.slow
def test_an_area_goes_on_from_what_is_known_of_it_window_by_window():
    model = make(rows=300)
    layout, keep = torch.zeros(1, 3, 96, 96), torch.zeros(1, 3, 96, 96, dtype=torch.bool)
    layout[0, :, :64, :64] = torch.from_numpy(draw_strokes(town(0), WAYS, WAYS, 64, 4.0)) / 255
    keep[:, :, :64, :64] = True
    area = draw_area(model, (96, 96), {"walk": 5.0}, known=Known(layout, keep), seed=1)
    going_on, ends = count_street_ends(area.numpy() / 255, ~keep[0, 0].numpy(), WAYS)
    assert ends > 6
    assert going_on / ends > 0.8
    assert torch.equal(area, draw_area(model, (96, 96), {"walk": 5.0}, known=Known(layout, keep), seed=1, batch_size=1))


@pytest.mark.slow
def test_a_site_larger_than_a_window_is_redrawn_and_kinds_are_kept_there():
    model = make(rows=300)
    with torch.no_grad():
        model.network.op_logits.bias[NEXT] += 3  # it draws little, so that all entries have room
    ways = torch.from_numpy(draw_strokes(town(0), WAYS, WAYS, 64, 4.0))
    layout = ways.repeat(1, 2, 2)[None] / 255
    keep = torch.ones(layout.shape, dtype=torch.bool)
    keep[:, 1:, 20:100, 20:110] = False
    drawn = draw_area(model, (128, 128), {}, known=Known(layout, keep), seed=1)
    assert torch.equal(drawn[keep[0]], (layout * 255).round().byte()[keep])
    assert not torch.equal(drawn, (layout[0] * 255).round().byte())
    going_on, ends = count_street_ends(drawn.numpy() / 255, ~keep[0, 1].numpy(), WAYS, ("street",))
    assert ends > 5
    assert going_on / ends > 0.75  # a network that has learned nothing may turn back at once


@pytest.mark.parametrize("attempts", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_drawn_layouts_have_the_network_of_their_strokes(attempts):
    model = make()
    conditions = Conditions.request(SPEC, 4, {"walk": 20.0})
    grids = [Grid("EPSG:32633", 386000.0 + 256 * i, 6672000.0, 4.0, 64, 64) for i in range(4)]
    drawn = windows_of(model, conditions, range(4), attempts=attempts, batch_size=2, grids=grids)
    for grid, layout, code in zip(grids, drawn, model.sample_code(conditions, noise=Noise(range(4))), strict=True):
        (ways,) = layout.ways
        assert np.array_equal(model.from_code(code[None])[0] * 255, layout.cells[0]) or attempts > 1
        assert ways.cells == ways.drawn_as(layout.cells[0]).cells
        vectors = layout.vectors()
        for network, kinds in (("drive", ("arterial", "street")), ("walk", ("walk",))):
            lines = ways.locate(grid)[np.isin(ways.kind, kinds)]
            if len(lines):
                assert vectors[network].length.sum() <= shapely.length(lines).sum() + 0.1
                found = shapely.buffer(vectors[network].union_all(), 0.1)
                missed = shapely.difference(shapely.union_all(lines), found)
                assert missed.length < 0.1


def test_streets_have_the_bearing_that_is_asked_for():
    model = make()
    code = DrawStrokes(bearing=30.0)(model, asked(3), Noise(range(3)))
    assert code[:, 0, 1].tolist() == [30, 30, 30]
    free = DrawStrokes()(model, asked(3), Noise(range(3)))
    assert free[:, 0, 1].tolist() != [30, 30, 30]
    for wrong in (-1.0, 90.0, math.nan):
        with pytest.raises(ConfigError, match="quarter of a turn"):
            DrawStrokes(bearing=wrong)


def test_a_bearing_is_that_of_the_streets_on_the_map():
    """A street that runs from south-south-west to north-north-east has the bearing 30."""
    line = shapely.LineString([(0, 0), (200 * math.sin(math.radians(30)), -200 * math.cos(math.radians(30)))])
    strokes = Strokes.of_lines(np.array([1]), np.array([line]), np.ones(3, bool))
    assert make().code.write(strokes).bearing == 30


def test_the_frame_is_learned_from_windows_that_are_not_mirrored_and_weighs_more(monkeypatch):
    model, conditions = make(), asked(1)
    monkeypatch.setattr(given_strokes, "SITE_SHARE", 0.0)
    code = model.write_code(town(1))[None]
    steps = len(write_text(model.code.from_code(code[0].numpy()), model.code).op) - 1
    losses = {}
    for symmetry in range(8):
        monkeypatch.setattr(torch, "randint", lambda *_, turned=symmetry, **__: torch.tensor([turned]))
        losses[symmetry] = model.code_loss(code, conditions)["frame"].item()
    assert [symmetry for symmetry, frame in losses.items() if frame == 0] == [1, 2, 4, 7]
    monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.tensor([0]))
    plain, learned = model.eval().code_loss(code, conditions), model.train().code_loss(code, conditions)
    more = (stroke_transformer.FRAME_WEIGHT - 1) * plain["frame"].item() / steps
    assert learned["loss"].item() == pytest.approx(plain["loss"].item() + more, rel=1e-5)


def test_what_a_place_does_not_know_is_not_drawn_for_it():
    percentiles = {"here": tuple(range(101)), "all": tuple(range(101))}
    spec = replace(SPEC, statistics={"walk": percentiles, "arterial": {**percentiles, "there": tuple(range(101))}})
    model, conditions = make(spec), Conditions.empty(spec, 3)
    conditions.place[:] = torch.tensor([0, 1, -1])
    assert model.list_known(conditions).tolist() == [[True, True, True], [True, True, False], [True, True, True]]
    code = DrawStrokes()(model, conditions, Noise(range(3)))
    walks = [(one[:, 0] == WAYS.index("walk")).any().item() for one in code]
    assert walks[0]
    assert not walks[1]


def test_maps_are_conditions_and_turn_with_their_windows(monkeypatch):
    """A window and its map, both turned, surprise as much as before; an absent map has no effect."""
    spec = replace(SPEC, maps=("street_density",), map_px=4)
    model = make(spec)
    conditions = Conditions.empty(spec, 1)
    conditions.maps[:] = torch.arange(16.0).view(1, 1, 4, 4)
    code = model.write_code(town(1))[None]
    monkeypatch.setattr(given_strokes, "SITE_SHARE", 0.0)

    def surprise(symmetry, *, present):
        monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.tensor([symmetry]))
        there = replace(conditions, maps_present=torch.full((1, 1), present))
        return model.code_loss(code, there)["loss"].item()

    turned = model.code.to_code(model.code.from_code(code[0].numpy()).turned(5, model.code.grid_m))
    upside = replace(conditions, maps=turn(conditions.maps, 5), maps_present=torch.ones(1, 1, dtype=torch.bool))
    monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.tensor([0]))
    expected = model.code_loss(torch.from_numpy(turned)[None], upside)["loss"].item()
    assert surprise(5, present=True) == pytest.approx(expected, rel=1e-5)
    assert surprise(5, present=False) != pytest.approx(expected, rel=1e-5)
    before = surprise(0, present=False)
    conditions.maps[:] = 7.0
    assert surprise(0, present=False) == before
