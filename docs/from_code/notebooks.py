"""The notebooks of the project, as pages; MyST-NB runs them while it builds."""

from __future__ import annotations

from from_code import source


def pages() -> dict[str, bytes]:
    """Return the notebooks as they are."""
    return {f"notebooks/{file.name}": file.read_bytes() for file in sorted((source.ROOT / "notebooks").glob("*.ipynb"))}
