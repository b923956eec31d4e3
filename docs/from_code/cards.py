"""The cards of the models and of the data that ship, as pages."""

from __future__ import annotations

import re
from pathlib import Path

from from_code import source
from from_code.markdown import block, table, text


def pages() -> dict[str, str]:
    """Return a page for each card, and the table of the models."""
    models = {name: folder / "README.md" for name, (folder, _) in source.shipped().items()}
    cards = {f"cards/{name}.md": _page(file, f"reference/{name}") for name, file in models.items()}
    rows = [[f"[`reference/{name}`](cards/{name}.md)", text(_about(file))] for name, file in models.items()]
    return {
        **cards,
        "cards/data_sample.md": _page(source.ROOT / "data" / "sample" / "README.md", None),
        "made/models.md": table(("checkpoint=", "what it is"), rows, (1, 3)),
    }


def _parted(file: Path) -> tuple[str, str]:
    """Return the head of a card, which is YAML and may be missing, and its body."""
    whole = file.read_text(encoding="utf-8")
    found = re.match(r"---\n(.*?)\n---\n", whole, re.DOTALL)
    return (found[1], whole[found.end() :]) if found else ("", whole)


def _about(file: Path) -> str:
    return _parted(file)[1].strip().split("\n\n")[1]


def _page(file: Path, title: str | None) -> str:
    head, body = _parted(file)
    title_line, _, rest = body.strip().partition("\n")
    heading = f"# {title}\n" if title else title_line
    shown = "\nWhat indexes of models and data read of it:\n" + block("yaml", head) if head else ""
    return f"{heading}\n{rest}\n{shown}"
