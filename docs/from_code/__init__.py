"""The pages of the site that are made from the code: `write_pages` writes them all."""

from __future__ import annotations

from pathlib import Path

from from_code import api, cards, channels, configuration, families, gallery, measures, notebooks

MADE = ("api", "cards", "configuration", "families", "made", "notebooks")
"""Folders of `docs/` that hold nothing but what is written here; git ignores them."""


def write_pages(docs: Path, gallery_folder: Path | None = None) -> None:
    """Write every page that is made from the code, and remove those of things that are gone.

    What has not changed is not written again, so that Sphinx reads only the pages that are new.

    Parameters
    ----------
    docs
        The folder of the site's sources.
    gallery_folder
        Where the commands of the gallery run and leave their pictures; None leaves these pictures out.
    """
    pages = {
        **channels.pages(),
        **measures.pages(),
        **families.pages(),
        **configuration.pages(),
        **api.pages(),
        **cards.pages(),
        **notebooks.pages(),
        **gallery.pages(gallery_folder),
    }
    for path, content in pages.items():
        file = docs / path
        data = content if isinstance(content, bytes) else content.encode()
        if not file.is_file() or file.read_bytes() != data:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
    for folder in MADE:
        for file in (docs / folder).rglob("*"):
            if file.is_file() and file.relative_to(docs).as_posix() not in pages:
                file.unlink()
