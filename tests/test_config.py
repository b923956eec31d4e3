"""Configurations: what composes is plain, what is misspelt is explained, what is not whitelisted is never called."""

import hashlib
import os
from functools import partial
from pathlib import Path

import pytest
import yaml
from hypothesis import example, settings
from hypothesis import given as given_from
from hypothesis import strategies as st

from citygrain.data.datamodule import CityDataModule
from citygrain.errors import ConfigError
from citygrain.support import config, targets
from citygrain.support.config import (
    find_config_dir,
    list_group_defaults,
    list_groups,
    load_config,
    name_folder,
    split_sweep,
)
from citygrain.support.targets import (
    MODEL_PARTS,
    check_arguments,
    check_signatures,
    check_targets,
    find_target,
    instantiate,
)

VERBS = sorted(file.stem for file in find_config_dir().glob("*.yaml"))
FILES = sorted(
    file.relative_to(find_config_dir()).with_suffix("").as_posix() for file in find_config_dir().rglob("*.yaml")
)


@pytest.fixture
def own(tmp_path):
    """A user's folder: a root with two groups, one of them mandatory."""
    files = {
        "paint": "defaults: [colour: blue, form: '???', _self_]\nsize: 3\nname: ???\nof: ${size}\nlist: [1, a]\n",
        "colour/blue": "hue: 240\nnested: {deep: 1}\n",
        "colour/red": "hue: 0.0\nnested: {deep: 2}\n",
        "form/round": "corners: 0\n",
    }
    for name, text in files.items():
        path = tmp_path / "it's mine" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return path.parents[1]


def explained(verb, overrides, folder):
    with pytest.raises(ConfigError) as caught:
        load_config(verb, overrides, [folder])
    return str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_comment_of_several_lines_stands_above_its_key(name):
    """Help and the site read one line behind a key, and lines above it; lines below it belong to the next key."""
    text = (find_config_dir() / f"{name}.yaml").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip()]
    depth = [len(line) - len(line.lstrip()) for line in lines]
    for i, line in enumerate(lines[:-1]):
        if line.lstrip().startswith("#"):
            assert depth[i] <= depth[i + 1], line


# Composing


def test_a_configuration_is_plain_and_resolved(own):
    plain = load_config("paint", ["form=round", "name=x", "colour=red", "+new.key=[1,2]", "colour.hue=1e-2"], [own])
    assert plain == {
        "colour": {"hue": 0.01, "nested": {"deep": 2}},
        "form": {"corners": 0},
        "size": 3,
        "name": "x",
        "of": 3,
        "list": [1, "a"],
        "new": {"key": [1, 2]},
    }
    assert {type(plain), type(plain["colour"]), type(plain["list"])} == {dict, list}


def test_numbers_are_text_where_text_is_wanted_and_experiments_set_no_kinds(own):
    assert load_config("train", ["name=2024", "data.places=[]", "paths.runs=7"])["name"] == "2024"
    assert load_config("train", ["experiment=demo", "data.resolution_m=2.5"])["data"]["resolution_m"] == 2.5
    (own / "experiment").mkdir()
    (own / "experiment" / "mine.yaml").write_text("# @package _global_\ndata: {places: [a], min_valid: 1}\n")
    assert load_config("train", ["experiment=mine"], [own])["data"]["min_valid"] == 1
    assert load_config("train", ["experiment=mine", "data.min_valid=0.5"], [own])["data"]["min_valid"] == 0.5


@pytest.mark.parametrize("override", ["batch_size=null", "conditions=3", "batch_size=[1]", "device=null", "seed=true"])
def test_what_is_of_another_kind_is_refused(override):
    with pytest.raises(ConfigError, match="not of the right kind"):
        load_config("sample", ["checkpoint=x", override])


@pytest.mark.parametrize("override", ["freeze=null", "freeze=encoder", "optimizer=null", "data=null"])
def test_lists_and_groups_are_asked_for_in_words(override):
    with pytest.raises(ConfigError, match=r"a list, such as|A group needs an option"):
        load_config("train", ["data.places=[a]", override])


def test_a_folder_may_hold_no_more_than_a_group(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("_target_: torch.nn.Identity\n")
    (tmp_path / "model" / "diffusion.yaml").write_text("_target_: torch.nn.Flatten\n")
    for name, target in (("mine", "Identity"), ("diffusion", "Flatten")):
        model = load_config("train", [f"model={name}", "data.places=[]"], [tmp_path])["model"]
        assert model == {"_target_": f"torch.nn.{target}"}


def test_the_users_own_files_go_before_the_shipped_ones(own):
    (own / "sample.yaml").write_text("mine: true\n")
    assert load_config("sample", [], [own]) == {"mine": True}
    assert "mine" not in load_config("sample", ["checkpoint=x"])
    assert {"colour": ["blue", "red"], "form": ["round"]}.items() <= list_groups([own]).items()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("colour=bleu", ["There is no colour of this name", "choices:  blue, red", "did you mean: blue"]),
        ("colr=blue", ["paint has no key of this name", "did you mean: colour", "+colr=blue"]),
        ("colour.heu=3", ["colour has no key of this name", "choices:  hue, nested", "did you mean: hue"]),
        ("colour.nested.dep=3", ["colour.nested has no key", "did you mean: deep"]),
        ("siz=4", ["did you mean: size"]),
        ("size.x=4", ["size has no key of this name"]),
        ("~sizes", ["did you mean: size"]),
        ("size", ["cannot be read", "key=value"]),
        ("size=[1,2", ["cannot be read"]),
        ("size=2.5", ["size is not of the right kind", "a whole number", "2.5"]),
        ("colour.hue=dark", ["colour.hue is not of the right kind", "a whole number", "dark"]),
        ("size=1,2", ["several runs", "--multirun"]),
        ("size=${nothing}", ["what is not there", "nothing"]),
    ],
)
def test_a_misspelt_override_is_answered_with_the_choices(own, override, words):
    message = explained("paint", ["form=round", "name=x", override], own)
    for word in words:
        assert word in message


@pytest.mark.slow
@pytest.mark.parametrize("override", ["~optimizer", "~model", "~callbacks", "~seed", "~paths.runs", "~data.size_px"])
def test_what_is_read_in_any_case_cannot_be_left_out(override, tmp_path):
    message = explained("train", ["data.places=[helsinki]", override], tmp_path)
    assert f"cannot go without {override[1:]}" in message
    assert ("choices" in message) == (override in {"~optimizer", "~model", "~callbacks"})


def test_one_of_several_objects_and_a_part_of_one_can_be_left_out():
    plain = load_config("train", ["data.places=[helsinki]", "~callbacks.progress", "~optimizer.weight_decay"])
    assert "progress" not in plain["callbacks"]
    assert "weight_decay" not in plain["optimizer"]


def test_what_is_missing_is_named_all_at_once(own):
    assert "paint needs a form" in explained("paint", [], own)
    assert "form=…" in explained("paint", [], own)
    (own / "paint.yaml").write_text("a: ???\nb:\n  c: ???\nd: 1\n")
    assert "citygrain paint a=… b.c=…" in explained("paint", [], own)


def test_a_file_that_is_no_yaml_is_named_with_its_line(own):
    (own / "colour" / "red.yaml").write_text("a: 1\nb: {c\n")
    message = explained("paint", ["colour=red", "form=round"], own)
    assert "not valid YAML" in message
    assert "red.yaml, line" in message


def test_a_folder_that_is_not_there_is_named(tmp_path):
    assert "does not exist" in explained("train", [], tmp_path / "nowhere")


def test_a_group_that_a_verb_does_not_take_is_refused(own):
    assert "has no such group" in explained("sample", ["colour=red"], own)


def test_a_sweep_is_every_combination_and_names_tell_the_runs_apart():
    jobs = split_sweep(["seed=0,1", "fixed=3", "model=a,b c"])
    each = [(s, m) for s in (0, 1) for m in ("a", r"b\ c")]
    assert [job for _, job in jobs] == [[f"seed={s}", "fixed=3", f"model={m}"] for s, m in each]
    assert [varying for varying, _ in jobs] == [[f"seed={s}", f"model={m}"] for s, m in each]
    assert [name_folder(varying) for varying, _ in jobs][::2] == ["seed=0,model=a", "seed=1,model=a"]
    assert split_sweep(["seed=0"]) == [([], ["seed=0"])]
    assert split_sweep(["seed=1,1"]) == [(["seed=1"], ["seed=1"])], "the same run twice is one"
    assert name_folder([]) == ""


KEYS = st.sampled_from(["seed", "model", "model@codec.model", "+new", "data.places"])
TEXTS = st.text(min_size=0, max_size=30) | st.text("aA/_. ~-,=é'\"\\$", max_size=6) | st.text("x", max_size=900)
OVERRIDES = st.lists(st.builds("{}={}".format, KEYS, TEXTS), min_size=1, max_size=6)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given_from(OVERRIDES, OVERRIDES)
@example(["a=x/y"], ["a=x_y"])
@example(["a=x", "b=y"], ["a=x,b=y"])
@example(["a=VAE"], ["a=vae"])
@example(["a=" + "x" * 300 + "1"], ["a=" + "x" * 300 + "2"])
@example(["a=" + "é" * 150], ["a=" + "é" * 151])
@example(["a=x/"], [f"a=x_,{hashlib.sha256(b'a=x/').hexdigest()[:12]}"])
@example(["a=x/"], [f"a=x_-{hashlib.sha256(b'a=x/').hexdigest()[:12]}"])
def test_no_two_runs_have_one_folder_and_every_name_is_a_folders(one, other):
    names = name_folder(one), name_folder(other)
    assert (names[0].lower() == names[1].lower()) == (one == other)
    assert names == (name_folder([*one]), name_folder([*other]))
    for name in names:
        assert 0 < len(os.fsencode(name)) < 255
        assert not set(name) & set('/\\\0:*?"<>|\n')
        assert name == Path(name).name


def test_names_of_a_sweep_can_be_made_on_this_disk(tmp_path):
    lists = [["a=" + text] for text in ("x" * 999, "é" * 999, "\udcff", "..", "a b", "[1,2]", "runs/demo", "runs_demo")]
    for varying in lists:
        (tmp_path / name_folder(varying)).mkdir()
    assert len(list(tmp_path.iterdir())) == len(lists)


@settings(max_examples=300, deadline=None)
@given_from(st.text(st.characters(exclude_characters="$", exclude_categories=["Cs", "Cc"])) | st.text("\\'\"a ,"))
def test_a_quoted_text_is_read_as_it_was(text):
    assert config._parse(f"name={config.quote_value(text)}").value() == text


# Shipped configurations


def given(node):
    """What a file states itself, without mandatory blanks and references to other files."""
    if isinstance(node, dict):
        blank = {k for k, v in node.items() if isinstance(v, str) and ("${" in v or v == "???")}
        return {k: given(v) for k, v in node.items() if k not in blank and k != "defaults"}
    return [given(v) for v in node] if isinstance(node, list) else node


@pytest.mark.parametrize("name", FILES)
def test_every_shipped_file_fits_the_signatures_it_names(name):
    check_signatures(given(yaml.safe_load((find_config_dir() / f"{name}.yaml").read_text(encoding="utf-8"))), name)


@pytest.mark.parametrize(
    ("verb", "choice"),
    [(v, "") for v in VERBS]
    + [
        pytest.param(v, f"{g}={o}", marks=pytest.mark.slow)  # a second each, and there are over a hundred
        for v in VERBS
        for g in list_group_defaults(v)
        for o in list_groups().get(g.partition("@")[0], [])
    ],
)
def test_every_choice_of_every_verb_composes(verb, choice):
    chosen = [choice] if choice else []
    try:
        blanks = config._find_missing(yaml.safe_load(config.format_config(verb, chosen)), "")
    except ConfigError as error:  # a mandatory group
        assert f"citygrain {verb} needs a " in str(error)  # noqa: PT017
        return
    check_signatures(load_config(verb, [*chosen, *(f"{key}=x" for key in blanks)]))


def test_the_groups_of_a_verb_are_those_of_the_files_it_takes_and_inherits(own):
    assert list_group_defaults("paint", [own]) == {"colour": "blue", "form": "???"}
    assert list_group_defaults("paint", [own], ["colour=red", "size=4"])["colour"] == "red"
    plain = list_group_defaults("train", overrides=["model=autoencoder"])
    sparse = list_group_defaults("train", overrides=["model=sparse_autoencoder"])
    assert sparse == plain | {"model": "sparse_autoencoder", "sparsity@model.sparsity": "activity_l1"}
    latent = list_group_defaults("train", overrides=["experiment=latent_diffusion"])
    assert latent["model"] == "diffusion"
    assert latent["model@codec.model"] == "variational_autoencoder"


def test_every_shipped_file_can_be_chosen():
    roots = [Path(find_config_dir() / f"{v}.yaml").read_text(encoding="utf-8") for v in VERBS]
    nested = [f.read_text(encoding="utf-8") for f in find_config_dir().rglob("*/*.yaml")]
    for group in list_groups():
        assert any(f" {group}" in text or f"/{group}" in text for text in roots + nested), f"nothing takes {group}"


# Targets

ATTACKS = [
    "os.system",
    "builtins.eval",
    "subprocess.Popen",
    "torch.load",
    "torch.hub.load",
    "torch.jit.load",
    "torch.serialization.load",
    "torch.utils.cpp_extension.load_inline",
    "torch.package.PackageImporter",
    "torch.nn.functional.relu",
    "torch.nn.modules.module.torch.load",
    "torch.nn.Module.load_state_dict",
    "torch.optim.optimizer.functools.partial",
    "pytorch_lightning.LightningModule.load_from_checkpoint",
    "pytorch_lightning.cli.LightningCLI",
    "pytorch_lightning.trainer.trainer.os.system",
    "citygrain.spec.torch.load",
    "citygrain.spec.math.sqrt",
    "citygrain.spec.__builtins__.eval",
    "citygrain.spec.LayoutSpec.__class__",
    "citygrain.errors.get_close_matches",
    "citygrain.support.config.load_config",
    "citygrain.support.targets.instantiate",
    "citygrain.__main__.main",
    "citygrain.verbs.prepare.run",
    "citygrain.verbs.prepare.shutil.rmtree",
    "citygrain.support.files.write_text",
    "citygrain.checkpoint.card.write_text",
    "citygrain.verbs.export.run",
    "citygrain.checkpoint.export_checkpoint",
    "citygrain.geo.place.Place.from_name",
    "citygrain.geo.sources.read_features",
    "citygrain.geo.sources.files.check_file",
    "citygrain.geo.sources.osmfile.OsmFile.features",
    "citygrain.models.pca.Pca.fit",
    "citygrain.models.latent_prior.FittedMixture",
    "citygrain.training.callbacks.RichProgressBar",
    "citygrain.training.optimizers.Muon",
    "citygrain.training.task.GenerativeTask",
    "pytorch_lightning.demos.transformer.WikiText2",
    "pytorch_lightning.loggers.csv_logs.ExperimentWriter",
    "pytorch_lightning.loggers.NeptuneLogger",
    "torch.nn.Parameter",
    "torch.nn.parallel.DistributedDataParallel",
    "torch.nn.utils.prune.Identity",
    "citygrain",
    "citygrain.spec",
    "citygrainevil.Thing",
    "torch.nnevil",
    "citygrain.models.",
    "citygrain.models..pca.Pca",
    "citygrain.models./etc/passwd.x",
    "torch.nn",
    "",
    None,
    3,
    ["torch.nn.Linear"],
]


@pytest.mark.parametrize("name", ATTACKS, ids=str)
def test_what_is_no_building_block_is_never_called(name):
    with pytest.raises(ConfigError):
        find_target(name)
    with pytest.raises(ConfigError):
        instantiate({"_target_": "torch.nn.Sequential", "hidden": [{"deep": {"_target_": name, "x": 1}}]})


def test_nothing_is_called_before_everything_is_checked(monkeypatch):
    monkeypatch.setattr(targets, "_build", lambda *_: pytest.fail("something was built"))
    with pytest.raises(ConfigError, match="may not call"):
        instantiate({"_target_": "torch.nn.ReLU", "inplace": {"_target_": "os.getcwd"}})


def test_a_checkpoint_may_allow_less():
    node = {"a": [{"_target_": "torch.optim.SGD"}]}
    check_targets(node)
    with pytest.raises(ConfigError, match=r"a class of citygrain\.models, .*torch\.nn; citygrain\.spec"):
        check_targets(node, MODEL_PARTS)


@pytest.mark.parametrize(
    "name",
    [
        "torch.nn.Linear",
        "torch.optim.AdamW",
        "torch.optim.lr_scheduler.CosineAnnealingLR",
        "pytorch_lightning.Trainer",
        "pytorch_lightning.callbacks.EarlyStopping",
        "citygrain.spec.LayoutSpec",
        "citygrain.geo.sources.osmfile.OsmFile",
        "citygrain.training.lr_schedules.cosine",
        "citygrain.spec.LayoutSpec.from_dict",
    ],
)
def test_building_blocks_are_found(name):
    assert find_target(name).__name__ == name.rpartition(".")[2]


def test_a_name_that_does_not_exist_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean: Linear"):
        find_target("torch.nn.Linea")


def test_objects_are_built_inside_out_and_partials_wait():
    node = {
        "_target_": "citygrain.spec.LayoutSpec",
        "channels": ["building", "water"],
        "size_px": 8,
        "resolution_m": 2.0,
        "statistics": {"coverage": {"all": [0.5] * 101}},
    }
    spec = instantiate(node, size_px=16)
    assert (spec.channels, spec.size_px) == (("building", "water"), 16)
    waiting = instantiate({"_target_": "torch.nn.Linear", "_partial_": True, "bias": False})
    assert isinstance(waiting, partial)
    assert waiting(2, 3).bias is None
    kept = instantiate({"_target_": "torch.nn.Sequential", "_partial_": True})
    assert kept.func.__name__ == "Sequential"
    assert "_target_" in node, "the configuration is left as it was"


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"size": 3}, ["spec (citygrain.spec.LayoutSpec)", "did you mean: size_px"]),
        ({"size_px": "64"}, ["spec.size_px is not of the right kind", "expected: int", "got:      '64'"]),
        ({"size_px": True}, ["expected: int"]),
        ({"size_px": [3]}, ["expected: int"]),
        ({"resolution_m": None}, ["expected: float"]),
    ],
)
def test_a_key_that_does_not_fit_is_found_before_anything_runs(node, words):
    with pytest.raises(ConfigError) as caught:
        check_signatures({"_target_": "citygrain.spec.LayoutSpec", **node}, "spec")
    for word in words:
        assert word in str(caught.value)
    check_signatures({"_target_": "citygrain.spec.LayoutSpec", "channels": ["a"], "resolution_m": 2, "_partial_": True})


def test_missing_arguments_are_named():
    with pytest.raises(ConfigError, match="missing a required argument: 'out_features'"):
        instantiate({"_target_": "torch.nn.Linear", "in_features": 3})
    with pytest.raises(ConfigError, match="nothing to build"):
        instantiate({"in_features": 3})


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"places": None}, "data.places"),
        ({"places": "helsinki"}, "data.places"),
        ({"places": 1.5}, "data.places"),
        ({"places": ["helsinki", 2]}, r"data.places\[1\]"),
        ({"channels": "building"}, "data.channels"),
        ({"size_px": True}, "data.size_px"),
    ],
)
def test_settings_of_the_data_have_the_types_of_its_parameters(arguments, key):
    with pytest.raises(ConfigError, match=rf"^{key} is not of the right kind"):
        check_arguments(CityDataModule, arguments, "data", "data")
    check_arguments(CityDataModule, {"places": ["helsinki"], "channels": None, "maps": []}, "data", "data")


@pytest.mark.parametrize("value", ["-1", "1.5", "true", "[1,2]"])
def test_a_group_needs_the_name_of_an_option(value):
    with pytest.raises(ConfigError, match="A group needs"):
        load_config("sample", ["checkpoint=x", f"sampler={value}"])
