"""A page for every family: what it is, what it can, how it is configured, trained and drawn, and what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from io import BytesIO

import numpy as np
from PIL import Image

from from_code import source
from from_code.markdown import Table, block, code, first_paragraph, option_target, table, tables, target, text

MEASURED = "benchmarks/README.md"
"""Where tables of measured figures stand."""

PICTURE = "benchmarks/results/families.png"
ROW_PX = 100
"""Bands of the picture that are at least so high are layouts, lower ones are titles."""


def pages() -> dict[str, str | bytes]:
    """Return a page for each family with its pictures, and the table of all."""
    pictures = {f"made/families/{name}.png": data for name, data in _pictures().items()}
    return {
        **pictures,
        "made/families.md": _all(),
        **{f"families/{name}.md": _page(name) for name in source.families()},
    }


def _about(family: str) -> str:
    file = source.find_file(f"model/{family}")
    return source.read_comments(file)[0] if file else ""


def _all() -> str:
    rows = [
        [f"[{code(family)}](families/{family}.md)", text(_about(family)), ", ".join(map(_sampler, _drawn_by(family)))]
        for family in source.families()
    ]
    return table(("`model=`", "what it is", "`sampler=`"), rows, (2, 5, 3))


def _sampler(name: str) -> str:
    return f"[{code(name)}](#{option_target('sampler', name)})"


def _drawn_by(family: str) -> list[str]:
    """Return the samplers that find the handle they need in a family; the one that it has by itself goes first.

    A family whose parts have samplers has none of its own.
    """
    can = source.capabilities(source.families()[family])
    own = source.own_sampler(family)
    fitting = [name for name, sampler in source.samplers().items() if source.handle_of(sampler) in can]
    return sorted(fitting, key=lambda name: name != own)


def _page(family: str) -> str:
    kind = source.families()[family]
    own, *others = _drawn_by(family) or [""]
    drawn = f"{_sampler(own)} unless told otherwise" if own else "the samplers of its parts"
    drawn += f", or {', '.join(map(_sampler, others))}" if others else ""
    command = "train model={} …" if own else "export model={} model.plan=runs/… model.ground=runs/… out=…"
    can = [
        [f"{{py:class}}`~{protocol.__module__}.{name}`", text(first_paragraph(protocol.__doc__))]
        for name, protocol in source.capabilities(kind).items()
    ]
    lines = [
        target(f"family-{family}"),
        f"# {family}\n",
        f"{text(_about(family))}\n",
        *_shown(family),
        f"- **Choose it**: {code(f'citygrain {command.format(family)}')}.",
        f"- **Set it up** by [its keys](#{option_target('model', family)}).",
        f"- **Drawn by** {drawn}.\n",
        "## What it is\n",
        "```{eval-rst}",
        f".. autoclass:: {kind.__module__}.{kind.__qualname__}",
        "   :no-index:",
        "   :no-members:",
        "```\n",
        "## What it can\n",
        "Beside the two verbs of the contract, `loss` and `sample`:\n",
        table(("capability", "what that is"), can, (1, 3)),
        "## Configuration\n",
        block("yaml", _yaml(family)),
        *_recipes(family),
        *_figures(family),
    ]
    return "\n".join(lines)


def _yaml(family: str) -> str:
    file = source.find_file(f"model/{family}")
    return file.read_text(encoding="utf-8") if file else ""


def _experiments(family: str) -> list[str]:
    return [name for name in source.list_groups()["experiment"] if source.family_of(name) == family]


def _recipes(family: str) -> Iterator[str]:
    """Lines on the experiments that train a family."""
    experiments = _experiments(family)
    if experiments:
        yield "## Recipes\n"
    for name in experiments:
        said = source.recipe(name)
        yield f"### {name}\n"
        yield f"{text(said.pop('About', ''))}\n"
        yield block("sh", said.pop("Command", f"citygrain train experiment={name}").split(", or: ")[-1])
        yield "\n".join(f"- **{key}**: {text(what)}" for key, what in said.items()) + "\n"


@cache
def _measured() -> tuple[Table, ...]:
    return tuple(tables((source.ROOT / MEASURED).read_text(encoding="utf-8")))


def _figures(family: str) -> Iterator[str]:
    """Lines of what was measured: of the recipes after five minutes, of the models that ship as they are."""
    recipes = [*_experiments(family)]
    trained = [found for found in _measured() if found.header[0] == "recipe" and any(r in found.rows for r in recipes)]
    own = source.families()[family]
    models = [name for name, (_, path) in source.shipped().items() if path == f"{own.__module__}.{own.__qualname__}"]
    if trained:
        yield "## After five minutes\n"
        yield "What each recipe had learned after five minutes on two virtual cores, from windows of Copenhagen and"
        yield "Los Angeles. The last row is of real windows. [Benchmarks](/benchmarks.md) tells what the columns are.\n"
    for found in trained:
        rows = [row for name, row in found.rows.items() if name in {*recipes, "other training windows"}]
        yield table(found.header, rows)
    if models:
        yield "## Models that ship\n"
        for name in models:
            yield f"- [`reference/{name}`](/cards/{name}.md), with all figures."


@cache
def _pictures() -> dict[str, bytes]:
    """Cut the picture of all families into its rows, by the recipe; the held-out windows are the first."""
    with Image.open(source.ROOT / PICTURE) as image:
        picture = image.convert("RGB")
    cells = np.asarray(picture).astype(int)
    blank = (np.abs(cells - cells[0, 0]).max(2) <= 2).all(1)
    edges = np.flatnonzero(np.diff(np.concatenate([[True], blank, [True]])))
    bands = [(top, end) for top, end in zip(edges[::2], edges[1::2], strict=True) if end - top >= ROW_PX]
    names = next(list(found.rows) for found in _measured() if found.header[0] == "recipe")
    rows = ["held_out", *(name for name in names if name in source.list_groups()["experiment"])]
    if len(bands) != len(rows):
        raise LookupError(f"{PICTURE} has {len(bands)} rows of layouts, and {len(rows)} are looked for: {rows}")
    found = {}
    for name, (top, end) in zip(rows, bands, strict=True):
        buffer = BytesIO()
        picture.crop((0, int(top), picture.width, int(end))).save(buffer, "PNG")
        found[name] = buffer.getvalue()
    return found


def _shown(family: str) -> Iterator[str]:
    """Lines with the rows of the picture that are of a family."""
    recipes = [name for name in _experiments(family) if name in _pictures()]
    if not recipes:
        return
    yield "```{figure} /made/families/held_out.png\n:alt: Eight held-out windows\n"
    yield "Eight held-out windows. Below: what was drawn after five minutes of training, when it was asked for the"
    yield "place and the measures of each window.\n```\n"
    for name in recipes:
        yield f"```{{figure}} /made/families/{name}.png\n:alt: Layouts of {name}\n\n{code(name)}\n```\n"
