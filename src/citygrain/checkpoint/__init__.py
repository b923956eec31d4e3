"""Checkpoints: read them, turn them into generators, and export them with a model card."""

from citygrain.checkpoint.environment import describe_environment
from citygrain.checkpoint.export import export_checkpoint
from citygrain.checkpoint.parts import CASCADE, describe_part, join_parts
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
    "CASCADE",
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
    "describe_part",
    "export_checkpoint",
    "join_parts",
    "list_references",
    "list_weight_files",
    "load",
    "read_checkpoint",
]
