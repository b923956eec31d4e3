"""`citygrain app`: a page in the browser on which a model is asked, looked at and steered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from citygrain import app


def run(config: Mapping[str, Any]) -> None:
    """Serve the page until it is interrupted."""
    app.run(config)
