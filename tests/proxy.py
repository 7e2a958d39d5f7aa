"""A proxy before an object store, which can be told to misbehave."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Proxy(ThreadingHTTPServer):
    """Forwards to ``target``; ``mode`` says how: "well", "403", "500", "drop" or "away"."""

    daemon_threads = True

    def __init__(self, target: tuple[str, int]) -> None:
        self.target, self.mode, self.refused = target, "well", dict[str, int]()
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, *_) -> None:
        """Clients that go away are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def _forward(self) -> None:
        mode = self.server.mode
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if mode == "away" or (mode == "drop" and self.command == "PUT"):
            self._count(mode)
            self.close_connection = True
            self.connection.close()
            return
        if mode in ("403", "500") and self.command == "PUT":
            self._count(mode)
            self._answer(int(mode), [], b"<Error><Code>No</Code></Error>")
            return
        upstream = http.client.HTTPConnection(*self.server.target, timeout=30)
        try:
            upstream.request(self.command, self.path, body, dict(self.headers))
            answer = upstream.getresponse()
            self._answer(answer.status, answer.getheaders(), answer.read())
        finally:
            upstream.close()

    def _count(self, mode: str) -> None:
        self.server.refused[mode] = self.server.refused.get(mode, 0) + 1

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        known = {n.lower(): v for n, v in headers}.get("content-length")
        # the length of what a HEAD would have brought
        self.send_header(
            "Content-Length", known if self.command == "HEAD" and known else str(len(body))
        )
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _forward

    def log_message(self, *_) -> None:
        pass


@contextmanager
def proxy(target: tuple[str, int]) -> Iterator[Proxy]:
    server = Proxy(target)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def misbehave(server: Proxy, script: list[tuple[str, float]], stop: threading.Event) -> None:
    """Change the mode as a script of (mode, seconds) says, again and again, until told to stop."""
    while not stop.is_set():
        for mode, seconds in script:
            server.mode = mode
            until = time.monotonic() + seconds
            while time.monotonic() < until and not stop.is_set():
                time.sleep(0.05)
    server.mode = "well"
