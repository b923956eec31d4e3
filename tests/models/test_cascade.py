"""Laws of the cascade: what its parts are asked for, that the ground stands on the ways, and how parts are joined."""

from __future__ import annotations

import json
from dataclasses import replace
from threading import Lock

import numpy as np
import pytest
import torch

import families
from citygrain.app.studio import Studio, knobs_of, turn_knobs
from citygrain.checkpoint import (
    CASCADE,
    Checkpoint,
    build_generator,
    export_checkpoint,
    join_parts,
    load,
    read_checkpoint,
)
from citygrain.data.trained_on import TrainedOn
from citygrain.errors import CapabilityError, ConditionError, ConfigError
from citygrain.evaluation.judge import list_seen_places
from citygrain.generation.area import draw_area
from citygrain.generation.edits import redraw
from citygrain.generation.maps import add_maps
from citygrain.generation.requests import choose_sampler
from citygrain.generation.site import Site
from citygrain.generation.windows import draw
from citygrain.geo.rasterize import Grid
from citygrain.measures import measure_maps
from citygrain.models.cascade import Cascade
from citygrain.protocols import DrawsWays, HasParts, Known, Noise, fork_seed
from citygrain.samplers.areas import keeps_parts
from citygrain.samplers.diffusion import Heun
from citygrain.samplers.parts import DrawParts
from citygrain.samplers.strokes import DrawStrokes
from citygrain.spec import Conditions, LayoutSpec
from citygrain.support.config import load_config
from citygrain.verbs import export as verb
from citygrain.verbs import train as training

WAYS, MADE = ("street", "walk"), ("building", "green")
RAMP, STEEP = (tuple(k * i / 100 for i in range(101)) for k in (1, 2))
PLAN = LayoutSpec(
    WAYS, 32, 4.0, scalars=("street_density", "walk"), places=("houston", "here", "there"),
    statistics={"street_density": {"all": STEEP, "houston": RAMP, "here": STEEP}, "walk": {"all": RAMP}},
)  # fmt: skip
GROUND = LayoutSpec(
    ("building", "street", "walk", "green"), 32, 4.0, scalars=("coverage", "street_density", "green"),
    maps=("coverage", "green"), map_px=8, places=("there", "elsewhere", "here"),
    statistics={"coverage": {"all": RAMP}, "street_density": {"all": RAMP, "elsewhere": RAMP}, "green": {"all": RAMP}},
)  # fmt: skip
DATA = {
    "rules": {"size_px": 32, "resolution_m": 4.0, "min_valid": 0.5, "min_built": 0.0}, "balance": "places", "seed": 3,
    "channels": [], "left_out": {}, "limits": {},
}  # fmt: skip


def part_config(family, spec, **settings):
    config = families.config(family)
    if "steps" in config["sampler"]:
        config["sampler"] |= {"steps": 2, "tolerance": float("inf")}
    plain = {"_target_": "citygrain.spec.LayoutSpec.from_dict", "plain": spec.to_dict()}
    return {**config, **settings, "spec": plain}


def configure(plan=PLAN, ground=GROUND, densities=None, family="cell_diffusion", **settings):
    config = {
        "_target_": CASCADE,
        "plan": part_config("stroke_transformer", plan),
        "ground": part_config(family, ground, **{"given": list(WAYS), **settings}),
    }
    if densities is not None:
        config["densities"] = part_config("cell_diffusion", densities, given=list(WAYS))
    return config


def parts_of(config):
    torch.manual_seed(0)
    described = {name: dict(config[name]) for name in ("plan", "ground", "densities") if name in config}
    return {
        name: build_generator(one, LayoutSpec.from_dict(one.pop("spec")["plain"])) for name, one in described.items()
    }


def make(**settings):
    """A cascade all of whose weights matter."""
    config = configure(**settings)
    spec = Cascade.join_specs(parts_of(config))
    torch.manual_seed(0)
    model = build_generator(config, spec).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return model


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.fixture(scope="module")
def dense():
    return make(densities=replace(GROUND, channels=("building", *WAYS, "green"), maps=(), map_px=0))


def at(spec, names):
    return [spec.channels.index(name) for name in names]


def test_a_cascade_has_all_channels_and_knows_all_that_its_parts_know(model):
    spec = model.spec
    assert isinstance(model, HasParts)
    assert isinstance(model, DrawsWays)
    assert spec.channels == ("building", "street", "walk", "green"), "in the order of the house"
    assert spec.given == ()
    assert spec.scalars == ("coverage", "street_density", "walk", "green")
    assert (spec.maps, spec.map_px) == (("coverage", "green"), 8)
    assert spec.places == ("here", "there", "houston", "elsewhere"), "what all know comes first"
    assert spec.quantile("street_density", 50) == 1.0, "the plan draws the streets"
    assert spec.quantile("street_density", 50, "elsewhere") == 0.5
    assert spec.quantile("coverage", 50) == 0.5


def test_a_request_goes_to_the_parts_that_know_it(model, monkeypatch):
    asked = {}
    for name, part in model.parts.items():
        kind, method = type(part), "sample_with_ways" if name == "plan" else "sample"
        plain = getattr(kind, method)

        def spy(self, conditions, *, noise, sampler=None, name=name, plain=plain):
            asked[name] = conditions
            return plain(self, conditions, noise=noise, sampler=sampler)

        monkeypatch.setattr(kind, method, spy)
    wanted = {"street_density": 1.5, "walk": 0.7, "green": 0.2, "place": "houston"}
    conditions = Conditions.request(model.spec, 1, {**wanted, "coverage": torch.full((8, 8), 0.3)})
    model.sample(conditions, noise=Noise([0]))
    plan, ground = asked["plan"], asked["ground"]
    assert plan.scalars.tolist() == [[1.5, pytest.approx(0.7)]]
    assert plan.present.all()
    assert PLAN.places[plan.place] == "houston"
    assert ground.present.tolist() == [[False, True, True]]
    assert ground.scalars[0, 1:].tolist() == pytest.approx([1.5, 0.2])
    assert ground.place.item() == -1, "nobody knows the buildings of houston"
    assert ground.maps_present.tolist() == [[True, False]]
    assert (ground.maps[0, 0] == torch.tensor(0.3)).all()
    model.sample(Conditions.request(model.spec, 1, {"place": "here"}), noise=Noise([0]))
    assert PLAN.places[asked["plan"].place] == GROUND.places[asked["ground"].place] == "here"


def test_the_ground_stands_on_the_ways_that_the_plan_draws_alone(model):
    spec, wanted = model.spec, {"street_density": 0.9, "coverage": 0.4, "place": "there"}
    whole, ways = model.sample_with_ways(Conditions.request(spec, 3, wanted), noise=Noise([4, 5, 6]))
    own = Conditions.request(PLAN, 3, {"street_density": 0.9, "place": "there"})
    alone, lines = model.plan.sample_with_ways(own, noise=Noise([4, 5, 6]))
    assert torch.equal(whole[:, at(spec, WAYS)], alone)
    assert alone.std() > 0.05
    for one, other in zip(ways, lines, strict=True):
        assert one.lines.tolist() == other.lines.tolist()
        assert (one.kind == other.kind).all()
    given = Conditions.request(model.ground.spec, 3, wanted, dict(zip(WAYS, alone.unbind(1), strict=True)))
    seeds = [fork_seed(seed, 2) for seed in (4, 5, 6)]
    assert torch.equal(whole, model.ground.sample(given, noise=Noise(seeds))), "the channels have the same order here"
    assert torch.equal(whole, model.sample(Conditions.request(spec, 3, wanted), noise=Noise([4, 5, 6])))


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_seed_is_a_layout_whatever_the_batch_and_knows_its_lines(model, attempts):
    asked = Conditions.request(model.spec, 4, {"coverage": 0.5, "walk": 0.5})
    grids = [Grid("EPSG:32633", 386000.0 + 200 * i, 6672000.0, 4.0, 32, 32) for i in range(4)]
    together = draw(model, asked, range(7, 11), attempts=attempts, grids=grids)
    alone = draw(model, asked, range(7, 11), attempts=attempts, grids=grids, batch_size=1)
    assert np.array_equal(together.cells[:, at(model.spec, WAYS)], alone.cells[:, at(model.spec, WAYS)])
    assert np.abs(together.cells.astype(int) - alone.cells).max() <= 1, "a network rounds otherwise in other batches"
    assert len({cells.tobytes() for cells in together.cells}) == 4
    for layout in together:
        (ways,) = layout.ways
        assert ways.cells == ways.drawn_as(layout.cells[0]).cells
        for kind, line in zip(ways.kind, ways.lines, strict=True):
            column, row = (min(int(part / 4), 31) for part in line.interpolate(0.5, normalized=True).coords[0])
            shown = layout.cells[0, model.spec.channels.index(kind), row, column]
            assert shown > 0, "the lines are those of the attempt that was kept"
    lines = model.plan.sample_with_ways(asked.translate(model.spec, PLAN), noise=Noise(range(7, 11)))[1]
    if attempts == 1:
        assert [w.lines.tolist() for w in together.ways] == [w.lines.tolist() for w in lines]
    drawn = next(layout for layout in together if "street" in layout.ways[0].kind)
    total = sum(length for *_, length in drawn.graph("drive").edges(data="length"))
    of = np.array([line.length for line in drawn.ways[0].lines])[drawn.ways[0].kind == "street"]
    assert 0 < total / 2 <= of.sum() + 0.1


def town(seed, shape=(32, 32)):
    """Cells of every channel, bytes over 255."""
    generator = torch.Generator().manual_seed(seed)
    layout = (torch.rand(1, 4, *shape, generator=generator) * 255).round() / 255
    layout[:, 1:3] = 0.0
    layout[:, 1, 5 + 7 * seed : 8 + 7 * seed] = 1.0
    layout[:, 2, :, 20] = 1.0
    return layout


def test_a_plan_that_is_kept_stays_byte_for_byte_and_the_ground_is_drawn_on_it(model):
    keep = torch.zeros(1, 4, 32, 48, dtype=torch.bool)
    keep[:, 1:3] = True
    drawn = []
    for seed in (0, 1):
        known = Known(town(seed, (32, 48)), keep)
        layout = draw_area(model, (32, 48), {"coverage": 0.3, "walk": 0.5}, known=known, seed=1)
        assert torch.equal(layout[1:3], (known.layout[0, 1:3] * 255).round().byte())
        assert not torch.equal(layout[[0, 3]], (known.layout[0, [0, 3]] * 255).round().byte())
        drawn.append(layout)
    assert not torch.equal(drawn[0][0], drawn[1][0]), "the ground depends on the ways"


@pytest.mark.slow
def test_an_area_goes_on_with_what_is_there_in_both_parts(model):
    keep = torch.ones(1, 4, 40, 56, dtype=torch.bool)
    keep[:, :, 4:30, 10:50] = False
    drawn = []
    for seed in (0, 1):
        known = Known(town(seed, (40, 56)), keep)
        layout = draw_area(model, (40, 56), {"coverage": 0.3}, known=known, seed=2, place="here")
        assert torch.equal(layout[keep[0]], (known.layout * 255).round().byte()[keep])
        again = draw_area(model, (40, 56), {"coverage": 0.3}, known=known, seed=2, place="here", batch_size=1)
        assert torch.equal(layout[1:3], again[1:3])
        assert (layout.int() - again.int()).abs().max() <= 1
        drawn.append(layout[~keep[0]].view(4, -1))
    for channel in ([1, 2], [0, 3]):
        assert not torch.equal(drawn[0][channel], drawn[1][channel])
    ways = draw_area(model.plan, (40, 56), {}, seed=2, place="here")
    whole = draw_area(model, (40, 56), {"coverage": 0.3}, seed=2, place="here")
    assert torch.equal(whole[1:3], ways), "an area has the ways that the plan draws over it"


def test_an_edit_redraws_a_site(model):
    free = np.zeros((32, 32), bool)
    free[8:24, 8:24] = True
    cells = (town(1)[0] * 255).byte().numpy()
    edited = redraw(model, Site(cells, free, Grid("EPSG:32633", 386000.0, 6672000.0, 4.0, 32, 32)), {"green": 0.2})
    assert np.array_equal(edited.after.cells[0][:, ~free], cells[:, ~free])
    assert not np.array_equal(edited.after.cells[0][:, free], cells[:, free])


def test_a_variation_of_the_ground_keeps_its_ways_and_begins_with_what_is_there(dense):
    known = Known(town(1), torch.zeros(1, 4, 32, 32, dtype=torch.bool))
    with pytest.raises(CapabilityError, match="no variations"):
        draw_area(dense, (32, 32), {}, known=known, strength=0.5)
    known.keep[:, 1:3] = True
    sampler = choose_sampler(dense, {"steps": 12})
    little, much, whole = (
        draw_area(dense, (32, 32), {}, known=known, strength=strength, sampler=sampler).float() / 255
        for strength in (0.1, 0.6, 1.0)
    )
    near, far = ((layout - known.layout[0]).abs().mean() for layout in (little, much))
    assert 0 < near < far
    assert torch.equal(whole[1:3], known.layout[0, 1:3])


def test_what_no_part_knows_is_refused_with_the_choices_of_all(model):
    with pytest.raises(ConditionError, match=r"rail[\s\S]*coverage, street_density, walk, green, place"):
        Conditions.request(model.spec, 1, {"rail": 2.0})
    with pytest.raises(ConditionError, match=r"rail[\s\S]*coverage, street_density, walk, green"):
        draw_area(model, (32, 32), {"rail": 2.0})


def test_a_setting_goes_to_every_part_that_has_it_or_to_the_one_that_is_named(model):
    both = choose_sampler(model, {"guidance": 2.0, "steps": 3, "temperature": None})
    assert (both.plan.guidance, both.ground.guidance, both.ground.steps) == (2.0, 2.0, 3)
    assert both.plan == replace(DrawStrokes(), guidance=2.0)
    one = choose_sampler(model, {"ground": {"guidance": 3.0}, "guidance": 0.5})
    assert (one.plan.guidance, one.ground.guidance) == (0.5, 3.0)
    with pytest.raises(CapabilityError, match=r"truncation[\s\S]*temperature[\s\S]*steps[\s\S]*plan, ground"):
        choose_sampler(model, {"truncation": 0.5})
    with pytest.raises(CapabilityError, match=r"temperature[\s\S]*steps"):
        choose_sampler(model, {"ground": {"temperature": 0.5}})
    with pytest.raises(ConfigError, match=r"settings of its own[\s\S]*sampler.plan=\{setting:value\}"):
        choose_sampler(model, {"plan": 0.5})
    with pytest.raises(ConfigError, match="steps"):
        choose_sampler(model, {"ground": {"steps": "many"}})
    for way in (model.sample, model.sample_with_ways):
        with pytest.raises(CapabilityError, match="DrawParts"):
            way(Conditions.empty(model.spec, 1), noise=Noise([0]), sampler=Heun())
    with pytest.raises(CapabilityError, match="a sampler for each part"):
        draw_area(model, (32, 32), {}, sampler=Heun())


def test_it_keeps_parts_where_all_its_parts_do(model):
    assert keeps_parts(model, model.sampler)
    assert not keeps_parts(model, Heun())
    flat = make(family="pix2pix", ground=replace(GROUND, maps=(), map_px=0))
    assert not keeps_parts(flat, flat.sampler)
    with pytest.raises(CapabilityError, match="diffusion"):
        draw_area(flat, (32, 48), {})
    assert flat.sample(Conditions.empty(flat.spec, 2), noise=Noise([0, 1])).shape == (2, 4, 32, 32)


def test_densities_that_are_drawn_become_what_the_ground_is_asked_for(dense, monkeypatch):
    seen = {}
    plain = type(dense.ground).sample

    def spy(self, conditions, *, noise, sampler=None):
        drawn = plain(self, conditions, noise=noise, sampler=sampler)
        seen["ground" if self is dense.ground else "densities"] = conditions, drawn
        return drawn

    monkeypatch.setattr(type(dense.ground), "sample", spy)
    painted = torch.rand(8, 8)
    dense.sample(Conditions.request(dense.spec, 2, {"green": painted, "coverage": 0.4}), noise=Noise([0, 1]))
    (before, drawn), (asked, _) = seen["densities"], seen["ground"]
    assert before.scalars[0, 0].item() == pytest.approx(0.4)
    assert before.given_present.all()
    assert asked.maps_present.all()
    told = measure_maps(drawn, dense.densities.spec.channels, 4.0, 8)
    assert torch.allclose(asked.maps[:, 0], told["coverage"])
    assert torch.equal(asked.maps[:, 1], painted.expand(2, -1, -1)), "what a person paints stays"
    assert asked.present[:, 0].all()


def test_an_area_is_asked_for_the_densities_that_are_drawn_over_it(dense, monkeypatch):
    seen = []

    def spy(generator, shape, fields, **how):
        layout = plain(generator, shape, fields, **how)
        seen.append((generator, fields, layout))
        return layout

    area = "citygrain.generation.area.draw_area"
    plain = draw_area
    monkeypatch.setattr(area, spy)
    painted = torch.rand(40, 48)
    draw_area(dense, (40, 48), {"green": painted, "coverage": 0.4}, seed=1)
    (plan, *_), (densities, before, drawn), (ground, asked, _) = seen
    assert [plan, densities, ground] == [dense.plan, dense.densities, dense.ground]
    assert before["coverage"] == 0.4
    assert torch.allclose(asked["coverage"], drawn[0] / 255, atol=1e-6)
    assert torch.equal(asked["green"], painted)


def test_what_a_map_leaves_open_is_drawn_by_the_densities(dense, monkeypatch):
    """Of windows and of areas; no part is asked for a map with holes."""
    grounds, halves = [], torch.full((32, 32), torch.nan)
    halves[:, :16] = 0.3
    plain = type(dense.ground).sample

    def spy(self, conditions, *, noise, sampler=None):
        drawn = plain(self, conditions, noise=noise, sampler=sampler)
        assert conditions.maps.isfinite().all()
        grounds.append((conditions, drawn))
        return drawn

    monkeypatch.setattr(type(dense.ground), "sample", spy)
    asked = add_maps(dense, Conditions.empty(dense.spec, 1), [{"coverage": halves}])
    dense.sample(asked, noise=Noise([0]))
    (_, drawn), (asked, _) = grounds
    told = measure_maps(drawn, dense.densities.spec.channels, 4.0, 8)["coverage"]
    assert asked.maps_present[0, 0]
    assert asked.maps[0, 0, :, :4].allclose(torch.tensor(0.3))
    assert torch.allclose(asked.maps[0, 0, :, 4:], told[0, :, 4:])

    fields, area = [], draw_area

    def watch(generator, shape, asked, **how):
        layout = area(generator, shape, asked, **how)
        fields.append((asked, layout))
        return layout

    monkeypatch.setattr("citygrain.generation.area.draw_area", watch)
    draw_area(dense, (32, 32), {"coverage": halves}, seed=1)
    _, (_, drawn), (asked, _) = fields
    assert asked["coverage"][:, :16].eq(0.3).all()
    assert torch.allclose(asked["coverage"][:, 16:], drawn[0, :, 16:] / 255, atol=1e-6)


def test_a_part_whose_channels_are_all_kept_does_not_draw(model, monkeypatch):
    drawn, plain = [], draw_area

    def spy(generator, shape, fields, **how):
        drawn.append(generator)
        return plain(generator, shape, fields, **how)

    monkeypatch.setattr("citygrain.generation.area.draw_area", spy)
    for names, part in ((MADE, model.plan), (WAYS, model.ground)):
        keep = torch.zeros(1, 4, 32, 32, dtype=torch.bool)
        keep[:, at(model.spec, names)] = True
        plain(model, (32, 32), {}, known=Known(town(1), keep))
        assert drawn == [part]
        drawn.clear()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"ground": replace(GROUND, size_px=16, map_px=4)}, r"same windows[\s\S]*16 × 16 cells[\s\S]*32 × 32"),
        ({"ground": replace(GROUND, resolution_m=2.0)}, r"cells of 2 m[\s\S]*cells of 4 m[\s\S]*data.resolution_m"),
        ({"ground": replace(GROUND, raster_format=1)}, r"format 1[\s\S]*format 2[\s\S]*same format"),
        ({"given": ["street", "building"]}, r"given ways that its plan draws[\s\S]*street, walk[\s\S]*building"),
        ({"given": []}, r"given ways[\s\S]*got:\s+none[\s\S]*model.given=\[street,walk\]"),
        ({"given": ["street"]}, r"draw the same channels[\s\S]*got:\s+walk"),
        ({"ground": replace(GROUND, scalars=("bearing",))}, r"upright[\s\S]*bearing[\s\S]*frame=none"),
        ({"plan": replace(PLAN, maps=("walk",), map_px=4)}, r"one size[\s\S]*map_px=4[\s\S]*map_px=8"),
        ({"densities": replace(GROUND, size_px=64)}, r"densities and the ground do not[\s\S]*64 × 64"),
        ({"densities": replace(GROUND, channels=(*WAYS, "water"))}, r"draw what the ground draws[\s\S]*water"),
        (
            {"densities": GROUND, "ground": replace(GROUND, maps=(), map_px=0)},
            r"takes no map[\s\S]*got:\s+none[\s\S]*data.maps",
        ),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused(changed, says):
    with pytest.raises(ConfigError, match=says):
        make(**changed)


def test_a_plan_that_knows_no_lines_and_a_spec_that_nobody_knows_are_refused(model):
    config = configure()
    with pytest.raises(CapabilityError, match=r"plan of a cascade[\s\S]*DrawsWays[\s\S]*stroke_transformer"):
        build_generator({**config, "plan": config["ground"]}, model.spec)
    with pytest.raises(ConfigError, match=r"No part of the cascade knows these scalars[\s\S]*rail"):
        build_generator(config, replace(model.spec, scalars=("coverage", "rail")))
    with pytest.raises(ConfigError, match="draw other layouts"):
        build_generator(config, replace(model.spec, channels=("street", "walk")))
    with pytest.raises(ConfigError, match="The plan of a cascade is a generator"):
        build_generator({**config, "plan": "runs/plan"}, model.spec)


def test_the_loss_is_the_sum_of_what_each_part_minimises(model):
    losses = model.loss(town(0).repeat(2, 1, 1, 1), Conditions.empty(model.spec, 2))
    assert {"loss", "plan_loss", "plan_op", "ground_loss"} <= {*losses}
    assert losses["loss"].item() == pytest.approx((losses["plan_loss"] + losses["ground_loss"]).item())


def export(part, config, folder, places, **made):
    """Write a part as a run does."""
    described = {name: value for name, value in config.items() if name != "spec"}
    about = {"crs": "EPSG:32633", "resolution_m": 2.0, "grid": {"left_top": [0, 0], "width_height": [99, 99]}}
    data = {**DATA, "places": dict.fromkeys(places, about)}
    provenance = {"name": folder.name, "step": 7, "data": data, **made}
    plain = LayoutSpec.from_dict(config["spec"]["plain"])
    return export_checkpoint(Checkpoint(described, plain, part.state_dict(), provenance), folder)


def test_parts_are_joined_to_one_folder_that_draws_what_they_draw(tmp_path):
    config = configure()
    parts = parts_of(config)
    before = {"name": "old", "step": 3, "places": ["oldtown"]}
    plan = export(parts["plan"], config["plan"], tmp_path / "ways", PLAN.places, begun_from=before)
    ground = export(parts["ground"], config["ground"], tmp_path / "houses", GROUND.places)
    joined = join_parts(plan, ground)
    export_checkpoint(joined, tmp_path / "whole")
    for folder in (plan, ground):
        folder.rename(folder.with_name(f"{folder.name}_elsewhere"))
    model = load(tmp_path / "whole")
    assert model.spec == Cascade.join_specs(parts)
    assert str(tmp_path) not in (tmp_path / "whole" / "config.json").read_text(encoding="utf-8")
    torch.manual_seed(0)
    own = build_generator(config, model.spec).eval()
    own.load_state_dict(
        {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}
    )
    asked = Conditions.request(model.spec, 2, {"coverage": 0.3, "place": "houston"})
    assert torch.equal(model.sample(asked, noise=Noise([0, 1])), own.sample(asked, noise=Noise([0, 1])))
    trained_on = TrainedOn.of(model)
    assert trained_on.places == ("here", "there"), "windows come from places whose channels are all known"
    assert {*trained_on.grids} == {"here", "there", "houston", "elsewhere"}, "layouts may lie in any of them"
    assert list_seen_places(model) == {"here", "there", "houston", "elsewhere", "oldtown"}
    card = (tmp_path / "whole" / "README.md").read_text(encoding="utf-8")
    assert "# houses on ways" in card
    assert "Training: the plan 7 steps; begun from old after its 3 steps; the ground 7 steps." in card
    assert "A `Cascade`" in card
    again = read_checkpoint(tmp_path / "whole")
    assert (again.model, again.provenance) == (json.loads(json.dumps(joined.model)), joined.provenance)


def test_a_sampler_of_parts_names_its_parts_in_the_order_in_which_they_draw(dense):
    assert [*DrawParts(DrawStrokes(), Heun()).parts] == ["plan", "ground"]
    assert [*dense.sampler.parts] == [*dense.parts] == ["plan", "densities", "ground"]


def test_the_verb_joins_parts_and_says_what_it_exports(tmp_path):
    config = configure()
    parts = parts_of(config)
    plan = export(parts["plan"], config["plan"], tmp_path / "plan", PLAN.places)
    ground = export(parts["ground"], config["ground"], tmp_path / "ground", GROUND.places)
    named = ["model=cascade", f"model.plan={plan}", f"model.ground={ground}", f"out={tmp_path / 'whole'}"]
    folder = verb.run(load_config("export", [*named, "half=true"]))
    assert load(folder).spec == Cascade.join_specs(parts)
    assert verb.run(load_config("export", [f"checkpoint={folder}", f"out={tmp_path / 'again'}"])).is_dir()
    for wrong in (["checkpoint=runs/demo"], ["evaluation=out/evaluation"], ["model._target_=torch.nn.Identity"]):
        with pytest.raises(ConfigError, match="Only the parts of a cascade are joined"):
            verb.run(load_config("export", [*named, *wrong]))
    with pytest.raises(ConfigError, match=r"What is exported\?[\s\S]*model=cascade model.plan"):
        verb.run(load_config("export", [f"out={tmp_path}"]))


def test_a_cascade_is_not_trained_and_leaves_no_run(tmp_path):
    told = ["model=cascade", "model.plan=a", "model.ground=b", "data.places=[here]", "name=x", f"paths.runs={tmp_path}"]
    with pytest.raises(ConfigError, match=r"its parts are, each on its own[\s\S]*citygrain export model=cascade"):
        training.run(load_config("train", told))
    assert not [*tmp_path.iterdir()]
    config = configure()
    parts = parts_of(config)
    paths = [export(part, config[name], tmp_path / name, ["here"]) for name, part in parts.items()]
    whole = export_checkpoint(join_parts(*paths), tmp_path / "whole")
    with pytest.raises(ConfigError, match=r"its parts are[\s\S]*init_from=.*whole"):
        training.run(load_config("train", [f"init_from={whole}", *told[3:]]))


def test_the_page_turns_the_knobs_of_all_parts(model, tmp_path):
    studio = Studio("out/city", model, tmp_path, Lock())
    assert [*studio.samplers] == ["DrawParts"]
    assert (studio.edits, studio.varies, studio.encodes) == (True, False, False)
    guided = model.sampler.ground.guidance
    assert guided != model.sampler.plan.guidance, "else the test says nothing"
    shown = {"steps": 2, "guidance": guided, "tolerance": None, "temperature": 1.0, "bearing": None}
    assert knobs_of(model.sampler) == shown
    turned = turn_knobs(studio, "DrawParts", {**shown, "steps": 5, "temperature": 0.5, "tolerance": 0.1})
    assert turned == DrawParts(
        replace(model.sampler.plan, temperature=0.5), replace(model.sampler.ground, steps=5, tolerance=0.1)
    )
    both = turn_knobs(studio, "DrawParts", {**shown, "guidance": 2.0})
    assert (both.plan.guidance, both.ground.guidance) == (2.0, 2.0)
