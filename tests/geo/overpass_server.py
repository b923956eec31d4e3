"""An Overpass server on this machine: it answers from replies it was given, and can misbehave in every known way.

It understands as much of the query language as it takes to be honest: of all elements it returns the ways and relations
that meet the polygon asked for, whole, as `(._;>;)` does. Tags are not compared.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import numpy as np
import shapely

POLYGON = re.compile(r'\(poly:"([^"]+)"\)')

Behaviour = Callable[["_Handler", str], None]


class OverpassServer:
    """Local server; use it as `with serve(elements) as server`.

    Attributes
    ----------
    script
        What to do with the next requests, one each; when it is used up the server answers properly.
    asked
        The queries that came, in order.
    """

    def __init__(self, elements: list[dict], date: str) -> None:
        self.script: deque[Behaviour] = deque()
        self.asked: list[str] = []
        self.agents: list[str] = []
        self.release = threading.Event()
        self.date = date
        nodes = {e["id"]: e for e in elements if e["type"] == "node"}
        self.ways = {e["id"]: e for e in elements if e["type"] == "way"}
        self.nodes = nodes
        self.relations = [e for e in elements if e["type"] == "relation"]
        coordinates = [
            [(nodes[n]["lon"], nodes[n]["lat"]) for n in w["nodes"] if n in nodes] for w in self.ways.values()
        ]
        self.lines = shapely.STRtree([shapely.LineString(c if len(c) > 1 else c * 2) for c in coordinates])
        self.line_ids = np.array(list(self.ways), dtype=np.int64)
        server = self

        class Handler(_Handler):
            overpass = server

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/api"

    def reply(self, query: str) -> dict:
        """Answer a query: what meets its polygon, whole."""
        numbers = np.array(POLYGON.search(query).group(1).split(), dtype=float).reshape(-1, 2)
        hit = self.lines.query(shapely.Polygon(numbers[:, ::-1]), predicate="intersects")
        found = set(self.line_ids[hit].tolist())
        relations = [r for r in self.relations if any(m["ref"] in found for m in r["members"])]
        ways = found | {m["ref"] for r in relations for m in r["members"] if m["ref"] in self.ways}
        nodes = {n for w in ways for n in self.ways[w]["nodes"] if n in self.nodes}
        return {
            "version": 0.6,
            "generator": "a test",
            "osm3s": {"timestamp_osm_base": self.date, "copyright": "© OpenStreetMap contributors, ODbL"},
            "elements": [*(self.nodes[n] for n in sorted(nodes)), *(self.ways[w] for w in sorted(ways)), *relations],
        }


class _Handler(BaseHTTPRequestHandler):
    overpass: OverpassServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        query = parse_qs(body)["data"][0]
        assert self.path == "/api/interpreter", self.path
        self.overpass.asked.append(query)
        self.overpass.agents.append(self.headers["User-Agent"])
        script = self.overpass.script
        try:
            (script.popleft() if script else answer)(self, query)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def send(self, status: int, body: bytes, content_type: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def answer(handler: _Handler, query: str) -> None:
    """Answer as the real server does: compressed, in chunks."""
    body = gzip.compress(json.dumps(handler.overpass.reply(query)).encode(), compresslevel=1)
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Encoding", "gzip")
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for start in range(0, len(body), 1 << 16):
        piece = body[start : start + (1 << 16)]
        handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
    handler.wfile.write(b"0\r\n\r\n")


def status(
    code: int, text: str = "The server is probably too busy to handle your request.", **headers: str
) -> Behaviour:
    """Refuse with a status and a page such as Overpass writes."""
    page = f"<html><head><title>OSM3S Response</title></head><body><p><strong>Error</strong>: {text}</p></body></html>"
    return lambda handler, _: handler.send(code, page.encode(), "text/html", **headers)


def says(body: str, content_type: str = "application/json") -> Behaviour:
    """Say something else, with status 200."""
    return lambda handler, _: handler.send(200, body.encode(), content_type)


def remark(text: str) -> Behaviour:
    """Answer with half of the elements and a remark, as Overpass does when it runs out of time or memory."""

    def behave(handler: _Handler, query: str) -> None:
        reply = handler.overpass.reply(query)
        half = reply["elements"][: len(reply["elements"]) // 2]
        handler.send(200, json.dumps({**reply, "elements": half, "remark": text}).encode())

    return behave


def stall(handler: _Handler, _: str) -> None:
    """Accept the question and say nothing."""
    handler.overpass.release.wait(20)
    handler.close_connection = True


def stall_half_way(handler: _Handler, _: str) -> None:
    """Begin an answer and fall silent."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.wfile.write(b'{"elements": [')
    stall(handler, _)


def trickle(handler: _Handler, _: str) -> None:
    """Send one byte at a time: never silent, never done."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    while not handler.overpass.release.is_set():
        handler.wfile.write(b" ")
        time.sleep(0.01)
    handler.close_connection = True


def break_off(handler: _Handler, query: str) -> None:
    """Close the connection in the middle of the answer."""
    body = json.dumps(handler.overpass.reply(query)).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.close_connection = True


def hang_up(handler: _Handler, _: str) -> None:
    """Close the connection without a word."""
    handler.close_connection = True


@contextmanager
def serve(elements: list[dict], date: str = "2026-03-26T14:39:50Z") -> Iterator[OverpassServer]:
    """Run a server until the block ends."""
    server = OverpassServer(elements, date)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        server.http.shutdown()
        server.http.server_close()
        thread.join()
