"""The gallery: pictures that are kept with the project, and pictures that are made while the site is built.

Under each stands the command that makes it. What is made here is made by the very commands that are shown, in a folder
of their own beside the sample extract; it stays there until the commands or the code change.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from from_code import source
from from_code.markdown import block

LONGEST_S = 600
"""A command that takes longer is given up."""


@dataclass(frozen=True)
class Kept:
    """A picture that is kept with the project.

    Parameters
    ----------
    file
        Its name in benchmarks/results.
    title, shows
        What it is, and what there is to see.
    command
        What made it.
    """

    file: str
    title: str
    shows: str
    command: str


@dataclass(frozen=True)
class Made:
    """A picture that is made while the site is built, by models and data that ship.

    Parameters
    ----------
    name
        Of the picture on the site.
    title, shows
        What it is, and what there is to see.
    commands
        What makes it, one after another.
    file
        Where the last command leaves it.
    """

    name: str
    title: str
    shows: str
    commands: tuple[str, ...]
    file: str


PREPARE = "citygrain prepare place=helsinki source=file source.path=data/sample/helsinki.osm.pbf raster.replace=true"

LEVELS = (
    "citygrain sample checkpoint=reference/cities_64 conditions.coverage=[0.05,0.12,0.19,0.26,0.33]"
    " conditions.cycle=[0,2,4] conditions.place=copenhagen out=out/levels"
)
CITIES = "citygrain sample checkpoint=reference/cities_64_cells n=8 conditions.place=los_angeles out=out/cities"
AREA = (
    "citygrain sample checkpoint=reference/cities_64 n=1 extent_m=[1800,1000] conditions.place=copenhagen"
    " 'conditions.coverage={from:0.05,to:0.4,towards:east}' out=out/area"
)
PLANS = "citygrain sample checkpoint=reference/plans n=5 conditions.place=[houston,copenhagen] out=out/plans"
STREETS = (
    "citygrain sample checkpoint=reference/streets_to_buildings_256 given.place=helsinki given.split=train n=2"
    " attempts=4 conditions.coverage=[0.1,0.2,0.3] out=out/streets"
)
EDIT = (
    "citygrain edit checkpoint=reference/cities_64 place=helsinki at=[24.9466,60.1664] size_m=240"
    " conditions.coverage=0.4 out=out/edit"
)

MADE = (
    Made(
        "levels",
        "Two conditions at once",
        "Each row asks for a higher building coverage, each column for more cycle tracks; requested → measured.",
        (LEVELS,),
        "out/levels/sheet.png",
    ),
    Made(
        "cities",
        "In the manner of a city",
        "Eight layouts that are asked for nothing but Los Angeles.",
        (CITIES,),
        "out/cities/sheet.png",
    ),
    Made(
        "plans",
        "Networks of ways, as lines",
        "Ten layouts of ways that are asked for nothing but Houston (first row) and Copenhagen (second row).",
        (PLANS,),
        "out/plans/sheet.png",
    ),
    Made(
        "area",
        "Larger than a window",
        "An area of 1.8 × 1 km whose density rises towards the east. It is drawn without seams.",
        (AREA,),
        "out/area/sheet.png",
    ),
    Made(
        "streets",
        "Buildings for given streets",
        "Streets, tracks, rails and water of Helsinki are given. The model adds buildings and green, more and more.",
        (PREPARE, STREETS),
        "out/streets/sheet.png",
    ),
    Made(
        "edit",
        "A site redrawn in its surroundings",
        "A square of 240 m in the centre of Helsinki is drawn anew. What is around it stays as it is.",
        (PREPARE, EDIT),
        "out/edit/sheet.png",
    ),
)

ADHERENCE = "python benchmarks/adherence.py reference/cities_64"
EVALUATION = "citygrain evaluate checkpoint=reference/cities_64 disrupt=true"
BESIDE = "--places copenhagen los_angeles tokyo"

KEPT = (
    Kept(
        "side_by_side.png",
        "Real windows and drawn ones",
        "Held-out windows, and below each a layout that was asked for the place and the measures of the window.",
        f"python benchmarks/side_by_side.py reference/cities_64 {BESIDE} --columns 8",
    ),
    Kept(
        "side_by_side_cells.png",
        "The same without a codec",
        "The same windows, drawn by `reference/cities_64_cells`, which diffuses the cells themselves.",
        f"python benchmarks/side_by_side.py reference/cities_64_cells {BESIDE} --columns 8",
    ),
    Kept(
        "streets_to_buildings.png",
        "Streets to buildings",
        "Held-out windows, and below each what `reference/streets_to_buildings_256` builds along their streets.",
        f"python benchmarks/side_by_side.py reference/streets_to_buildings_256 {BESIDE} --columns 5",
    ),
    Kept(
        "levels.png",
        "One condition at a time",
        "Every row asks for one condition, which rises from left to right. There are two layouts a level.",
        ADHERENCE,
    ),
    Kept(
        "requested_measured.png",
        "Requested against measured",
        "A dot is a layout, the line is what was asked for. There are 320 layouts a condition.",
        ADHERENCE,
    ),
    Kept(
        "families.png",
        "Every family after five minutes",
        "Held-out windows, and what each family draws when it is asked for the same, after five minutes of training.",
        "python benchmarks/families.py",
    ),
    Kept(
        "distances.png",
        "How far from real",
        "Distance of drawn layouts from real ones, measure by measure, beside real from real and shuffled tiles.",
        EVALUATION,
    ),
    Kept(
        "failures.png",
        "Where it fails",
        "The three measures that are worst: four held-out windows that are typical, and four generated ones.",
        EVALUATION,
    ),
    Kept(
        "editing.png",
        "Redrawn middles",
        "Held-out windows, and what their middle was redrawn as when nothing was asked for.",
        "python benchmarks/editing.py reference/cities_64 copenhagen los_angeles --windows 8",
    ),
    Kept(
        "vectors.png",
        "From cells back to features",
        "Windows drawn at 2 m, and the buildings, open spaces and ways that they were turned back into.",
        "python benchmarks/vectorize.py data/cities/copenhagen data/cities/los_angeles --windows 100 --picture",
    ),
)


def pages(folder: Path | None) -> dict[str, str | bytes]:
    """Return the two parts of the gallery and the pictures that were made; without a folder none is made."""
    kept = [_entry(one.title, one.shows, one.command, f"/../benchmarks/results/{one.file}") for one in KEPT]
    if folder is None:
        nothing = "The pictures of this part are made while the whole site is built, by `make docs`.\n"
        return {"made/gallery_kept.md": "\n".join(kept), "made/gallery_made.md": nothing}
    pictures = {f"made/gallery/{one.name}.png": _picture(one, folder) for one in MADE}
    made = [_entry(one.title, one.shows, "\n".join(one.commands), f"/made/gallery/{one.name}.png") for one in MADE]
    return {"made/gallery_kept.md": "\n".join(kept), "made/gallery_made.md": "\n".join(made), **pictures}


def _entry(title: str, shows: str, command: str, picture: str) -> str:
    return f"### {title}\n\n```{{figure}} {picture}\n:alt: {title}\n\n{shows}\n```\n{block('sh', command)}"


def _picture(one: Made, folder: Path) -> bytes:
    """Make a picture by its commands, or take the one that the same commands of the same code have made."""
    said = sha256("\0".join((source.fingerprint(), *one.commands)).encode()).hexdigest()[:12]
    kept = folder / f"{one.name}_{said}.png"
    if not kept.is_file():
        work = folder / "work"
        sample = work / "data" / "sample"
        if not sample.is_dir():
            shutil.copytree(source.ROOT / "data" / "sample", sample)
        for command in one.commands:
            _run(command, work)
        for stale in folder.glob(f"{one.name}_*.png"):
            stale.unlink()
        shutil.copyfile(work / one.file, kept)
    return kept.read_bytes()


def _run(command: str, work: Path) -> None:
    words = shlex.split(command)
    if words[0] != "citygrain":
        raise ValueError(f"the gallery runs citygrain and nothing else: {command}")
    where = os.pathsep.join([str(source.PACKAGE.parent), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=work,
        env={**os.environ, "PYTHONPATH": where},
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"this command of the gallery failed: {command}\n{done.stdout}\n{done.stderr}")
