"""osmnx under settings of ours: polite, without files of its own, and as it was before when we are done."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from citygrain.version import __version__

HOMEPAGE = "https://github.com/citygrain/citygrain"


@contextmanager
def borrow_osmnx(**settings: Any) -> Iterator[Any]:
    """Lend osmnx, under `settings`; afterwards they, and the resolver that osmnx replaces, are as before."""
    import osmnx as ox  # noqa: PLC0415  (it takes a second to import, and much is done without it)

    settings = {
        "use_cache": False,
        # Without a network osmnx would ask a public name server over HTTPS, and wait for it.
        "doh_url_template": None,
        "http_user_agent": f"citygrain/{__version__} (+{HOMEPAGE}) OSMnx/{ox.__version__}",
        "http_referer": HOMEPAGE,
        **settings,
    }
    before = {name: getattr(ox.settings, name) for name in settings}
    resolver = socket.getaddrinfo
    try:
        for name, value in settings.items():
            setattr(ox.settings, name, value)
        yield ox
    finally:
        socket.getaddrinfo = resolver
        for name, value in before.items():
            setattr(ox.settings, name, value)
