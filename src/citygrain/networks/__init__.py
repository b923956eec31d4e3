"""Architectures: tensors in, tensors out. They know nothing of losses."""
