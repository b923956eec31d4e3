"""Checkpoints: read, turned into generators, exported with a card."""

from citygrain.checkpoint.store import (
    CARD,
    CONFIG,
    EXPORT,
    INDEX,
    LAST,
    REFERENCE,
    SHIPPED,
    WEIGHTS,
    Checkpoint,
    build,
    environment,
    export,
    files_of,
    load,
    read,
    references,
)

__all__ = [
    "CARD",
    "CONFIG",
    "EXPORT",
    "INDEX",
    "LAST",
    "REFERENCE",
    "SHIPPED",
    "WEIGHTS",
    "Checkpoint",
    "build",
    "environment",
    "export",
    "files_of",
    "load",
    "read",
    "references",
]
