"""Check a built site: every link inside it arrives, and nothing that a page needs is fetched from elsewhere.

Sphinx tells of references that it does not find; this also sees links in HTML, pictures, and what a theme brings along.
`python docs/from_code/links.py docs/_build/html` prints what is wrong, and fails where anything is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "link": "href"}
"""Tag → its attribute that a browser loads without being asked."""


class Page(HTMLParser):
    """What a page offers and needs: targets, links, and what a browser loads with it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag says."""
        said = {name: value for name, value in attrs if value is not None}
        self.targets |= {said[name] for name in ("id", "name") if name in said}
        if tag == "a" and "href" in said:
            self.links.append(said["href"])
        if (
            tag in LOADED
            and LOADED[tag] in said
            and said.get("rel") not in {"canonical", "search", "index", "next", "prev"}
        ):
            self.loaded.append(said[LOADED[tag]])


def complaints(site: Path) -> Iterator[str]:
    """Say what is wrong with a built site.

    Parameters
    ----------
    site
        The folder with its `index.html`.
    """
    pages = {file: Page(file) for file in sorted(site.rglob("*.html")) if "_static" not in file.parts}
    for file, page in pages.items():
        name = file.relative_to(site)
        for address in page.loaded:
            if urlsplit(address).netloc:
                yield f"{name} loads {address} from elsewhere"
        for address in [*page.links, *page.loaded]:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            aim = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            if not aim.is_file():
                yield f"{name} links to {address}, which is not there"
            elif parts.fragment and aim in pages and unquote(parts.fragment) not in pages[aim].targets:
                yield f"{name} links to {address}, and there is no such place on that page"


def main() -> int:
    """Print what is wrong; 1 where anything is, or where there is no site."""
    site = Path(sys.argv[1]).resolve()
    if not (site / "index.html").is_file():
        print(f"{site} holds no site", file=sys.stderr)
        return 1
    wrong = [*complaints(site)]
    for complaint in wrong:
        print(complaint, file=sys.stderr)
    print(f"{len([*site.rglob('*.html')])} pages, {len(wrong)} links that do not arrive")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
