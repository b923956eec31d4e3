"""Prepared places as windows to learn from."""
