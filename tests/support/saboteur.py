"""A way to a server of S3 on which requests fail as they do on real networks: refused, cut, late, applied and not answered."""

import http.client
import itertools
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from support.objects import HOST

Fault = Literal[
    "",
    "500",  # answered so, and not passed on
    "503",
    "reset",  # the connection is reset, and nothing passed on
    "applied, 500",  # passed on, and the answer replaced
    "applied, reset",
    "twice",  # passed on twice; the second answer comes through, as where something between sends it again
    "cut answer",  # half of its body comes through
    "cut request",  # half of its body is taken, and nothing passed on
    "late",
]
FAULTS: tuple[Fault, ...] = (
    "500", "503", "reset", "applied, 500", "applied, reset", "twice", "cut answer", "cut request", "late",
)  # fmt: skip
LATE = 0.2  # seconds
ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
CODES = {
    "500": ("InternalError", "We encountered an internal error."),
    "503": ("SlowDown", "Reduce your request rate."),
}


@dataclass(frozen=True)
class Request:
    """What is known of a request before it is passed on."""

    method: str
    path: str
    conditional: bool  # a put that must not overwrite


class Saboteur:
    """Passes requests on to a server of this machine; `what` says which of them fail, and how.

    Attributes:
        port: where it listens.
        done: how often each fault was done.
    """

    def __init__(self, to: int, what: Callable[[Request], Fault]) -> None:
        self.done: Counter[str] = Counter()
        guard = threading.Lock()

        def chosen(request: Request) -> Fault:
            with guard:
                fault = what(request)
                self.done[fault] += 1
            return fault

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None: ...

            def do(self) -> None:
                conditional = self.headers.get("If-None-Match") == "*"
                fault = chosen(Request(self.command, self.path, conditional))
                length = int(self.headers.get("Content-Length") or 0)
                if fault == "cut request":
                    self.rfile.read(length // 2)
                body = b"" if fault == "cut request" else self._body(length)
                if fault in ("reset", "cut request"):
                    self._reset()
                    return
                if fault == "late":
                    time.sleep(LATE)
                if fault in CODES:
                    self._error(fault)
                    return
                answer = self._passed_on(body)
                if fault == "twice":
                    answer = self._passed_on(body)
                if fault == "applied, reset":
                    self._reset()
                elif fault == "applied, 500":
                    self._error("500")
                else:
                    self._answer(*answer, cut=fault == "cut answer")

            def __getattr__(self, name: str) -> Any:  # do_GET and all others
                if name.startswith("do_"):
                    return self.do
                raise AttributeError(name)

            def _body(self, length: int) -> bytes:
                if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                    return self.rfile.read(length)
                whole = b""
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    whole += self.rfile.read(size)
                    self.rfile.readline()
                while self.rfile.readline().strip():
                    pass
                return whole

            def _passed_on(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
                connection = http.client.HTTPConnection(HOST, to)
                passed = {
                    name: value
                    for name, value in self.headers.items()
                    if name.lower() not in ("connection", "transfer-encoding", "expect")
                }
                try:
                    connection.request(self.command, self.path, body or None, passed)
                    answer = connection.getresponse()
                    return answer.status, answer.getheaders(), answer.read()
                finally:
                    connection.close()

            def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, *, cut: bool = False) -> None:
                self.send_response_only(status)
                given = {name.lower() for name, _ in headers}
                for name, value in headers:
                    if name.lower() not in ("connection", "transfer-encoding"):
                        self.send_header(name, value)
                if "content-length" not in given and self.command != "HEAD" and status not in (204, 304):
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body[: len(body) // 2] if cut else body)
                if cut:
                    self.wfile.flush()
                    self.close_connection = True

            def _error(self, status: str) -> None:
                code, message = CODES[status]
                body = ERROR.format(code=code, message=message).encode()
                self._answer(int(status), [("Content-Type", "application/xml")], body)

            def _reset(self) -> None:
                self.close_connection = True
                with suppress(OSError):
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_: Any) -> None:
                """Who asks may be gone: it was killed, perhaps."""

            def shutdown_request(self, request: Any) -> None:
                self.close_request(request)  # no shutdown before it: a reset stays one

        self._server = Server((HOST, 0), Handler)
        self.port = self._server.server_address[1]

    def __enter__(self) -> "Saboteur":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def at_random(seed: int, share: float, faults: tuple[Fault, ...] = FAULTS) -> Callable[[Request], Fault]:
    """Each request fails with some probability, in a way drawn at random."""
    draw = random.Random(seed)

    def what(_: Request) -> Fault:
        return draw.choice(faults) if draw.random() < share else ""

    return what


def in_turn(every: int) -> Callable[[Request], Fault]:
    """Each so many requests one fails, in one way after another; of puts that must not overwrite, which are few, each third is done
    and not answered, or done twice.
    """
    others, puts = itertools.count(1), itertools.count(1)

    def what(request: Request) -> Fault:
        now = next(puts if request.conditional else others)
        if request.conditional:
            return ("applied, 500", "applied, reset", "twice")[now // 3 % 3] if now % 3 == 0 else ""
        return FAULTS[now // every % len(FAULTS)] if now % every == 0 else ""

    return what
