"""One question to an Overpass server, asked until it is answered or a deadline is reached.

A busy server (429, 502, 503, 504) is asked again after a growing pause or the one it names, a silent or trickling one
is left, and all this ends at a deadline. A reply counts only when it is whole JSON without a run-time error.

References
----------
https://wiki.openstreetmap.org/wiki/Overpass_API and https://dev.overpass-api.de/overpass-doc/en/preface/commons.html on
what a public server is for: up to 10,000 requests and 1 GB a day disturb nobody.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import requests
import urllib3

from citygrain.geo.osm.elements import (
    TOO_MUCH_WORDS,
    find_partial_remark,
)
from citygrain.geo.osmnx_session import HOMEPAGE
from citygrain.version import __version__

LEAST_PAUSE_S = 0.01
"""Shortest pause before a busy server is asked again, whatever `pause_s` says."""

LONGEST_PAUSE_S = 60.0
"""Longest pause of our own before a busy server is asked again; a server may name a longer one."""

SERVER_SHARE = 0.9
"""Share of our own time-out that the server may compute for, so that its own "timed out" still reaches us."""

BUSY = frozenset({429, 500, 502, 503, 504})
BUSY_WORDS = ("too busy", "rate_limited", "Dispatcher_Client")

HEADERS = {"User-Agent": f"citygrain/{__version__} (+{HOMEPAGE})", "Referer": HOMEPAGE}

Reply = dict[str, Any]
"""What a server said, as Overpass words it, and `urls`: who said it."""


class NoReplyError(Exception):
    """There is no usable reply. The message is the predicate of a sentence: "The Overpass server … is busy"."""


class _BusyError(NoReplyError):
    """It may answer later: after `wait_s` seconds, if it has said so."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class TooMuchError(NoReplyError):
    """The server gave up on the query; half as much may do."""


@dataclass(frozen=True)
class OverpassServer:
    """A server, and how long it is waited for.

    Parameters
    ----------
    endpoint
        Its address, without `/interpreter`.
    timeout_s
        Longest silence, seconds.
    deadline_s
        Longest time for one answer, seconds, all repetitions and pauses included.
    pause_s
        Pause before every request, seconds, and what the growing pauses for a busy server start from.
    """

    endpoint: str
    timeout_s: float
    deadline_s: float
    pause_s: float

    def answer(self, statements: str) -> Reply:
        """Ask for one outline until it is answered or the deadline is reached."""
        deadline = time.monotonic() + self.deadline_s
        pause_s = self.pause_s
        _sleep(pause_s)
        while True:
            try:
                return self._ask(statements, deadline)
            except _BusyError as error:
                pause_s = min(max(2 * pause_s, LEAST_PAUSE_S), LONGEST_PAUSE_S)
                wait_s = pause_s if error.wait_s is None else max(error.wait_s, self.pause_s)
                if time.monotonic() + wait_s >= deadline:
                    wish = f", and asks for a pause of {error.wait_s:,.0f} s" if error.wait_s else ""
                    raise NoReplyError(f"{error}{wish} (deadline: {self.deadline_s:g} s a tile)") from error
                _sleep(wait_s)

    def _ask(self, statements: str, deadline: float) -> Reply:
        """Ask once. Every way in which it can fail becomes one of the `NoReplyError`s."""
        # The time that the server may take goes into the query, our own patience into the socket.
        query = f"[out:json][timeout:{max(1, int(SERVER_SHARE * self.timeout_s))}];{statements}"
        patience_s = max(0.01, min(self.timeout_s, deadline - time.monotonic()))
        try:
            with requests.post(
                f"{self.endpoint}/interpreter",
                {"data": query},
                headers=HEADERS,
                timeout=patience_s,
                stream=True,
                allow_redirects=False,  # a query would get lost on the way
            ) as response:
                reply = _check_reply(response, _read_body(response, deadline))
        except requests.Timeout as error:
            raise _BusyError(f"has sent nothing for {patience_s:.3g} s") from error
        except requests.ConnectionError as error:
            raise _connection_error(error) from error
        except requests.RequestException as error:
            raise NoReplyError(f"cannot be asked: {error}") from error
        return {**reply, "urls": [response.url]}


def _connection_error(error: requests.ConnectionError) -> NoReplyError:
    """Tell no network, nobody there and a broken connection apart."""
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    if isinstance(reason, urllib3.exceptions.NameResolutionError):
        return NoReplyError("is not found: its name does not resolve. Is this machine online, and the address right?")
    if reason is not None:
        return NoReplyError(f"refuses the connection or cannot be reached ({reason})")
    return _BusyError(f"breaks the connection ({error})")


def _read_body(response: requests.Response, deadline: float) -> bytes:
    """Read a reply against the deadline."""
    body = bytearray()
    try:
        # read1 returns what is there: a plain read waits for a full buffer, and a trickle never fills it.
        while chunk := response.raw.read1(1 << 20, decode_content=True):
            body += chunk
            if time.monotonic() > deadline:
                raise _BusyError(f"sends too slowly: {len(body):,} bytes, and not the end")
    except urllib3.exceptions.TimeoutError as error:
        raise _BusyError(f"has sent nothing more after {len(body):,} bytes") from error
    except urllib3.exceptions.HTTPError as error:
        raise _BusyError(f"breaks off after {len(body):,} bytes ({error})") from error
    return bytes(body)


def _check_reply(response: requests.Response, body: bytes) -> Reply:
    """Return a reply that is whole; raise what the server says otherwise."""
    said = f"HTTP {response.status_code} {response.reason}: {_shorten_page(body)}"
    if response.is_redirect:
        raise NoReplyError(f"has moved to {response.headers['Location']}: name that address in source.url")
    if response.status_code in BUSY:
        raise _BusyError(f"is busy ({said})", _read_retry_after(response.headers.get("Retry-After")))
    if not response.ok:
        raise NoReplyError(f"refuses the query ({said})")
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        reply = None
    if not isinstance(reply, dict) or not isinstance(reply.get("elements"), list):
        if any(words.encode() in body for words in BUSY_WORDS):
            raise _BusyError(f"is busy ({said})")
        raise NoReplyError(f"answers with something that is not map data ({said})")
    remark = find_partial_remark(reply)
    if remark and any(words in remark for words in TOO_MUCH_WORDS):
        raise TooMuchError(remark)
    if remark:
        raise _BusyError(f"reports an error of its own ({remark})")
    return reply


def _shorten_page(body: bytes) -> str:
    """Return what a page says to people, in one short line."""
    text = body[:20_000].decode("utf-8", errors="replace")
    if "<" in text:
        text = text[max(text.find("<body"), 0) :]
        text = "".join(part.rpartition(">")[2] for part in text.split("<"))
    text = " ".join(text.split())
    return f"{text[:160]}…" if len(text) > 160 else text or "(an empty page)"


def _read_retry_after(header: str | None) -> float | None:
    """Seconds to wait by a `Retry-After` header, which holds seconds or a date."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(tz=UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def _sleep(seconds: float) -> None:
    time.sleep(seconds)
