"""The site: what code knows stands on its pages, every page is to be found, and it builds without a warning."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest
import yaml

from from_code import MADE, channels, configuration, families, gallery, links, markdown, measures, source, write_pages

DOCS = source.ROOT / "docs"
NEEDED = ("sphinx", "myst_nb", "numpydoc", "pydata_sphinx_theme", "sphinx_design", "sphinx_copybutton")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """All pages as Sphinx would find them: those of the project, and those that are made from the code."""
    folder = tmp_path_factory.mktemp("docs")
    for file in DOCS.rglob("*.md"):
        path = file.relative_to(DOCS)
        if path.parts[0] not in {*MADE, "_build"}:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(file.read_bytes())
    write_pages(folder)
    return folder


def test_every_channel_stands_in_the_table_with_its_colour_and_its_rules():
    pages = channels.pages()
    for channel in source.CHANNELS:
        assert f"[{channel.name}](#channel-{channel.name})" in pages["made/channels.md"]
        assert channel.colour in pages["made/channels.md"]
        assert f"(channel-{channel.name})=" in pages["made/rules.md"]
    drawn = pages["made/rules.md"].count("* - the ")
    tiles = sum(rule.layer != source.COASTLINE for rules in source.TILE_RULES.values() for rule in rules)
    assert drawn == sum(rule.layer != source.COASTLINE for rule in source.OSM_RULES) + tiles
    assert "One width per network channel" in pages["made/why.md"]
    assert "==" not in pages["made/why.md"], "the table of the docstring stands above already"


def test_every_measure_stands_in_a_table_with_unit_formula_and_source():
    pages = measures.pages()
    for listed, page in (
        (source.MEASURES, "made/conditions.md"),
        (source.FRAME, "made/frame.md"),
        (source.FORM, "made/form.md"),
        (source.KEY_POINTS, "made/key_points.md"),
    ):
        for measure in listed.values():
            assert f"{{#measure-{measure.name.replace('_', '-')}}}" in pages[page]
            for said in (measure.unit, measure.formula, measure.source):
                assert markdown.text(said) in pages[page], measure.name


@pytest.mark.slow
def test_every_family_has_a_page_with_its_keys_recipes_and_samplers():
    pages = families.pages()
    for name, kind in source.families().items():
        page = pages[f"families/{name}.md"]
        assert f".. autoclass:: {kind.__module__}.{kind.__qualname__}" in page
        assert source.find_file(f"model/{name}").read_text(encoding="utf-8").strip() in page
        assert "`sampler" not in page.split("**Drawn by**")[1].splitlines()[0]
        drawn = "(#option-sampler-" if source.own_sampler(name) else "the samplers of its parts"
        assert drawn in page.split("**Drawn by**")[1].splitlines()[0]
    for experiment in source.list_groups()["experiment"]:
        page = pages[f"families/{source.family_of(experiment)}.md"]
        assert f"### {experiment}\n" in page
        assert markdown.text(source.recipe(experiment)["Cost"]) in page, experiment
    for _, path in source.shipped().values():
        assert any(path == f"{kind.__module__}.{kind.__qualname__}" for kind in source.families().values())


def test_every_sampler_finds_families_and_the_one_that_a_family_has_by_itself_goes_first():
    drawing = {family: families._drawn_by(family) for family in source.families()}
    assert set().union(*drawing.values()) == set(source.samplers())
    for family, names in drawing.items():
        assert (names[0] if names else None) == source.own_sampler(family)
    assert [family for family, names in drawing.items() if not names] == ["cascade"]


def test_every_key_of_every_file_of_the_configuration_stands_on_a_page():
    pages = configuration.pages()
    files = {f"configuration/{verb}.md": [verb] for verb in source.VERBS}
    for group, options in source.list_groups().items():
        files[f"configuration/group_{group.replace('/', '_')}.md"] = [f"{group}/{option}" for option in options]
    for page, names in files.items():
        for name in names:
            content = {key: value for key, value in source.yaml_of(name).items() if key not in {"defaults", "_target_"}}
            said = source.read_comments(source.find_file(name))[1]
            assert {key.split("=")[0].rstrip(":").split(".")[0] for key, _ in said} <= set(content)
            for key, value in content.items():
                if not isinstance(value, dict) and not key.startswith("_"):
                    assert f"`{key}`" in pages[page], (page, key)


def test_a_recipe_is_read_whole_from_the_head_of_its_file():
    said = source.recipe("reference_cities_64")
    assert [*said] == ["About", "Command", "Needs", "Does", "Cost", "Result"]
    assert said["Command"] == "citygrain train experiment=reference_cities_64"
    assert "@package" not in said["About"]


def test_every_picture_of_the_project_hangs_in_the_gallery():
    kept = {picture.name for picture in (source.ROOT / "benchmarks" / "results").glob("*.png")}
    assert {one.file for one in gallery.KEPT} == kept
    for one in gallery.KEPT:
        if one.command.startswith("python "):
            assert (source.ROOT / one.command.split()[1]).is_file(), one.command
    page = gallery.pages(None)["made/gallery_kept.md"]
    assert all(one.command in page for one in gallery.KEPT)


@pytest.mark.slow
def test_a_picture_that_a_command_makes_is_made_once_and_a_command_that_fails_is_told(tmp_path, monkeypatch):
    ran = []

    def runs(command, work):
        ran.append(command)
        work.mkdir(parents=True, exist_ok=True)
        (work / "picture.png").write_bytes(b"picture")

    with monkeypatch.context() as patched:
        patched.setattr(gallery, "_run", runs)
        one = gallery.Made("one", "One", "one", ("citygrain sample",), "picture.png")
        assert [gallery._picture(one, tmp_path) for _ in range(2)] == [b"picture"] * 2
        assert len(ran) == 1
        patched.setattr(source, "fingerprint", lambda: "other code")
        gallery._picture(one, tmp_path)
        assert len(ran) == 2
        assert len([*tmp_path.glob("one_*.png")]) == 1
    with pytest.raises(RuntimeError, match="atlantis"):
        gallery._run("citygrain sample checkpoint=reference/atlantis", tmp_path)
    with pytest.raises(ValueError, match="nothing else"):
        gallery._run("rm picture.png", tmp_path)


@pytest.mark.slow
def test_every_page_is_in_a_toctree_and_every_entry_is_a_page(written):
    pages = {file.relative_to(written).with_suffix("").as_posix() for file in written.rglob("*") if file.is_file()}
    pages = {page for page in pages if not page.startswith("made/")}
    listed = {"index"}
    for file in written.rglob("*.md"):
        inside = file.read_text(encoding="utf-8")
        folder = file.parent.relative_to(written)
        if folder.name == "made":
            folder = folder.parent  # what pages of the first level include
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", inside, re.DOTALL):
            for line in filter(None, tree.splitlines()):
                if not line.startswith(":"):
                    entry = re.sub(r".*<(.*)>", r"\1", line.strip())
                    found = {
                        f.relative_to(written).with_suffix("").as_posix() for f in written.glob(f"{folder / entry}.*")
                    }
                    assert found or "*" in entry, f"{file.relative_to(written)}: {entry}"
                    listed |= found
    # `citygrain.geo.*` would be found for the entry `citygrain.geo`, too: what counts is the entry itself.
    assert pages - listed == set()


@pytest.mark.slow
def test_what_is_gone_is_removed_and_what_has_not_changed_is_not_written_again(written):
    stale = written / "families" / "oracle.md"
    stale.write_text("# oracle\n")
    page = written / "families" / "pca.md"
    before = page.stat().st_mtime_ns
    write_pages(written)
    assert not stale.exists()
    assert page.stat().st_mtime_ns == before


def test_text_means_itself_and_code_stays_code():
    assert markdown.text("a_b *c* <d> `e_f` | $g$") == r"a\_b \*c\* \<d\> `e_f` \| \$g\$"
    found = next(markdown.tables("text\n\n| a | b |\n|---|---:|\n| `x` | 1 |\n| y | 2 |\n\nmore"))
    assert found.header == ["a", "b"]
    assert found.rows == {"x": ["`x`", "1"], "y": ["y", "2"]}


def test_the_check_of_links_sees_what_does_not_arrive_and_what_is_fetched(tmp_path):
    (tmp_path / "other.html").write_text('<p id="here">')
    (tmp_path / "index.html").write_text(
        '<a href="other.html#here"></a><a href="#gone"></a><a href="nowhere.html"></a><a href="other.html#gone"></a>'
        '<a href="https://elsewhere.org"></a><img src="picture.png"><script src="https://cdn.org/a.js"></script>'
    )
    assert len([*links.complaints(tmp_path)]) == 5
    assert not [*links.complaints(tmp_path / "nothing")]


def test_the_cards_of_data_and_models_have_heads_that_indexes_read():
    for folder in (source.ROOT / "data" / "sample", *(folder for folder, _ in source.shipped().values())):
        head = yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---\n")[1])
        assert head["license"] == "odbl"
        assert head["tags"]


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(find_spec, NEEDED)),
    reason="what builds the site is not installed: pip install --group docs, or make docs",
)
def test_the_site_builds_without_a_warning_and_all_its_links_arrive(tmp_path):
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-d",
        tmp_path / "trees",
        DOCS,
        tmp_path / "html",
    ]
    where = os.pathsep.join([str(source.PACKAGE.parent), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = {**os.environ, "NOTEBOOKS": "off", "GALLERY": "off", "PYTHONPATH": where}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert not [*links.complaints(tmp_path / "html")]
    assert (tmp_path / "html" / "families" / "pca.html").is_file()
