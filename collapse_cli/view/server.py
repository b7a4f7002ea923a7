"""The server: it answers this machine alone, only reads, and knows a handful of addresses (`addresses.py`)."""

import gzip
import json
import logging
import os
import re
import socketserver
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from collapse_cli.errors import ConfigError
from collapse_cli.records.rundir import RunFolder
from collapse_cli.view import frames
from collapse_cli.view.addresses import Asked, asked, is_ours, of_another_page
from collapse_cli.view.pages import Pages
from collapse_cli.view.runs import Runs

log = logging.getLogger(__name__)
HOST = "127.0.0.1"
GZIP = b"\x1f\x8b"  # how what gzip packs begins, and no text
PATIENCE = 20.0  # seconds that a browser may be silent while it asks, or take nothing of what it is sent
PIECE = 65_536  # bytes that are sent at once, each within PATIENCE
# of everything that is sent: nobody else's page may show it, read it, or learn where a reader came from
ALWAYS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
OWN = (  # of the list and the frame: their own style sheet and script, nothing else
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; frame-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# of a report, beside the policy that it carries itself; both hold
REPORT = "connect-src 'none'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"


class Server(ThreadingHTTPServer):
    """Answers with what `Runs` and `Pages` have, a thread for each request."""

    daemon_threads = True
    allow_reuse_address = os.name == "posix"  # elsewhere it would let two programs share a port

    def __init__(self, runs: Runs, pages: Pages, port: int) -> None:
        """Listen at a port; 0: one that is free.

        Raises:
            ConfigError: when the port cannot be had.
        """
        self.runs, self.pages = runs, pages
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            why = "is taken by another program" if not isinstance(error, PermissionError) else "needs more rights"
            raise ConfigError(
                f"--port {port} {why} ({error.strerror}); name another one, or leave --port out to take one that is free"
            ) from None

    def server_bind(self) -> None:
        """As its base does, without asking the network what this machine is called."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    @property
    def address(self) -> str:
        """Where the first page is: the list, or the one page about the runs that were named."""
        named = self.runs.chosen
        return f"http://{HOST}:{self.server_port}/{'run/' + ','.join(named) if named else ''}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is no error; what else goes wrong is said, and the others are answered further."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            log.exception("a request could not be answered")


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "collapse", ""
    timeout = PATIENCE

    def do_GET(self) -> None:
        if not is_ours(self.headers.get_all("Host")):
            self._send(HTTPStatus.MISDIRECTED_REQUEST, "ask for 127.0.0.1 or localhost\n")
            return
        if of_another_page(*(self.headers.get(f"Sec-Fetch-{name}") for name in ("Site", "Mode", "Dest"))):
            self._send(HTTPStatus.FORBIDDEN, "this is not for pages of others\n")
            return
        what = asked(self.path)
        try:
            answer = self._answer(what) if what else None
        except Exception:  # a mistake of ours: said here, so that it is mended, and the others are answered further
            log.exception("%s could not be answered", self.path)
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, "this could not be answered; the terminal says why\n")
            return
        if answer is None:
            self._send(HTTPStatus.NOT_FOUND, "there is no such page\n")
            return
        kind, content, policy = answer
        self._send(HTTPStatus.OK, content, kind, policy)

    def do_HEAD(self) -> None:
        self.do_GET()

    def __getattr__(self, name: str) -> Any:
        """Of any other method too: its base looks for `do_METHOD`."""
        if name.startswith("do_"):
            return self._refuse
        raise AttributeError(name)

    def _refuse(self) -> None:
        self._send(HTTPStatus.METHOD_NOT_ALLOWED, "this server is only for reading\n", allow="GET, HEAD")

    def _answer(self, what: Asked) -> tuple[str, str | bytes, str] | None:
        """Content type, content and policy; None where there is no such page."""
        runs, pages = self.server.runs, self.server.pages
        if what.kind == "look":
            (name,) = what.names
            return (frames.LOOK[name], frames.look(name), OWN) if name in frames.LOOK else None
        if what.kind == "list":
            return "text/html", frames.runs_list(*runs.states(), runs.folder, runs.chosen), OWN
        if what.kind == "lines":
            return "text/html", frames.lines(*runs.states(), runs.folder, runs.chosen), OWN
        folders = runs.find(what.names)
        if folders is None:
            return None
        if what.kind == "run":
            return "text/html", frames.frame(what.names), OWN
        if what.kind == "page":
            page = pages.page(folders)
            return "text/html", page if self._takes_gzip() else gzip.decompress(page), REPORT
        bar = frames.bar(what.names, [runs.state(name) for name in what.names])
        return "application/json", json.dumps(bar | {"version": pages.version(folders)}), OWN

    def _takes_gzip(self) -> bool:
        """Whether the browser unpacks; over `ssh -L` a page is then there three times as soon."""
        return re.search(r"\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))", self.headers.get("Accept-Encoding", "")) is not None

    def _send(
        self, status: HTTPStatus, content: str | bytes, kind: str = "text/plain", policy: str = OWN, allow: str = ""
    ) -> None:
        body = content.encode() if isinstance(content, str) else content
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        if body.startswith(GZIP):
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Security-Policy", policy)
        for name, value in ALWAYS.items():
            self.send_header(name, value)
        if allow:
            self.send_header("Allow", allow)
        self.end_headers()
        if self.command != "HEAD":
            for begin in range(
                0, len(body), PIECE
            ):  # the time of one `write` is limited as a whole, however slow the line
                self.wfile.write(body[begin : begin + PIECE])

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing: the terminal is for one line."""


@contextmanager
def server(folder: Path, named: Sequence[RunFolder] = (), port: int = 0) -> Iterator[Server]:
    """A server that listens, and answers once `serve_forever` is called.

    Args:
        folder: the folder of runs, all of which can be looked at.
        named: these alone can be.
        port: 0: one that is free.

    Raises:
        ConfigError: when the port cannot be had.
    """
    with (
        tempfile.TemporaryDirectory(prefix="collapse-view-", ignore_cleanup_errors=True) as scratch,
        Server(Runs(folder, named), Pages(Path(scratch)), port) as made,
    ):
        yield made
