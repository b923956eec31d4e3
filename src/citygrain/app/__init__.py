"""A page in the browser on which a model is asked, looked at and steered."""

from citygrain.app.server import serve

__all__ = ["serve"]
