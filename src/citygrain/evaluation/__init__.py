"""Judging layouts: urban form first, then everything that generative models are judged by."""
