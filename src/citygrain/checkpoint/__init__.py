"""Checkpoints: read them, turn them into generators, and export them with a model card."""

from citygrain.checkpoint.environment import describe_environment
from citygrain.checkpoint.export import export_checkpoint
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
    build_generator,
    list_references,
    list_weight_files,
    load,
    read_checkpoint,
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
    "build_generator",
    "describe_environment",
    "export_checkpoint",
    "list_references",
    "list_weight_files",
    "load",
    "read_checkpoint",
]
