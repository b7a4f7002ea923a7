"""A real server of completions (`transformers serve` with a tiny model), and a proxy before it that makes what goes wrong rarely."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from support.serving import at_work
from support.tiny import tiny_model
from support.waiting import PATIENCE

HOST = "127.0.0.1"
TEMPLATE = (  # of the served model's chats
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


def write_served_model(folder: Path) -> Path:
    """A tiny model that writes letters: most of its choices are bytes of text."""
    from collapse_cli.lm.text import train_bpe

    tokenizer = train_bpe(["the old dog sees a red house under the tree\n"] * 20, 290)
    model = tiny_model("gpt2", vocabulary=len(tokenizer))
    end = tokenizer.eos_token_id
    model.generation_config.update(eos_token_id=end, bos_token_id=end, pad_token_id=end)
    model.config.update({"eos_token_id": end, "bos_token_id": end, "pad_token_id": end})
    tokenizer.chat_template = TEMPLATE
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@dataclass
class Served:
    """`transformers serve` in a process of its own, on this machine alone."""

    model: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}/v1"

    def start(self) -> "Served":
        command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(self.model)]
        log = (self.model.parent / f"served-{self.port}.log").open("ab")
        self.process = subprocess.Popen(
            [*command, "--host", HOST, "--port", str(self.port), "--device", "cpu"],
            stdout=log,
            stderr=log,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )
        until = time.monotonic() + PATIENCE
        while not self.answers():
            assert self.process.poll() is None, Path(log.name).read_text()[-2000:]
            assert time.monotonic() < until, "the server does not come up"
            time.sleep(0.1)
        return self

    def answers(self) -> bool:
        link = http.client.HTTPConnection(HOST, self.port, timeout=5)
        try:
            link.request("GET", "/health")
            return link.getresponse().status == 200
        except OSError:
            return False
        finally:
            link.close()

    def kill(self) -> None:
        """As a machine that loses power would: nothing is said."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


@contextmanager
def served(folder: Path) -> Iterator[Served]:
    """A server, ended with the block."""
    one = Served(write_served_model(folder / "served"))
    try:
        yield one.start()
    finally:
        one.kill()
        shutil.rmtree(folder / "served", ignore_errors=True)


Fault = Callable[["_Passing"], bool]
"""Does something to a request in place of passing it on; True where it is dealt with."""


class Proxy(ThreadingHTTPServer):
    """Passes requests on to a real server, but for those that a fault is made for.

    Attributes:
        faults: for the next requests in turn; None: this one is passed on.
        always: for all requests behind those.
        seen: the headers and the body of each request that came.
        listing: for the question which models there are, which is none of those; None: it is passed on.
    """

    daemon_threads = True

    def __init__(self, behind: Served) -> None:
        super().__init__((HOST, 0), _Passing)
        self.behind = behind
        self.faults: list[Fault | None] = []
        self.always: Fault | None = None
        self.listing: Fault | None = None
        self.seen: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.passed = 0
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.server_port}/v1"

    def handle_error(self, *_: object) -> None:
        """Who asked may be gone."""


class _Passing(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.body = b""
        if self.server.listing is None or not self.server.listing(self):
            self.pass_on()

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("content-length", 0)))
        with self.server.lock:
            self.server.seen.append((dict(self.headers), json.loads(self.body or b"{}")))
            fault = self.server.faults.pop(0) if self.server.faults else self.server.always
        if fault is None or not fault(self):
            self.pass_on()

    def pass_on(self) -> None:
        link = http.client.HTTPConnection(HOST, self.server.behind.port, timeout=60)
        try:
            link.request(self.command, self.path, self.body, {"content-type": "application/json"})
            answer = link.getresponse()
            content = answer.read()
        except OSError:  # the server is gone: so is this line
            self.cut()
            return
        finally:
            link.close()
        with self.server.lock:
            self.server.passed += self.command == "POST"
        self.say(answer.status, content, answer.headers.get("content-type", ""))

    def say(self, status: int, content: bytes, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content-type": kind, "content-length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        """The tests' output is of the tests."""


@contextmanager
def proxy(behind: Served) -> Iterator[Proxy]:
    """A proxy at work, without faults."""
    with Proxy(behind) as made, at_work(made):
        yield made


# --- faults -----------------------------------------------------------------------------------------------------------


def says(status: int, content: bytes = b"", kind: str = "application/json", **headers: str) -> Fault:
    """Answer with that."""

    def fault(request: _Passing) -> bool:
        request.say(status, content, kind, **headers)
        return True

    return fault


def completion(text: str | None, reason: str | None = "stop", **more: Any) -> bytes:
    """What a server says that answers with that text."""
    return json.dumps({"model": "m", "choices": [{"text": text, "finish_reason": reason}], **more}).encode()


def cuts(request: _Passing) -> bool:
    """The connection ends in the middle of an answer."""
    request.send_response(200)
    request.send_header("content-type", "application/json")
    request.send_header("content-length", "1000")
    request.end_headers()
    request.wfile.write(b'{"choices": [{"text": "a begi')
    request.cut()
    return True


def hangs(request: _Passing) -> bool:
    """Nothing is said until whoever asked has gone."""
    with suppress(OSError):
        request.rfile.read(1)
    request.close_connection = True
    return True


def goes_on(pause: float, size: int) -> Fault:
    """An answer without an end: so many bytes after each pause."""

    def fault(request: _Passing) -> bool:
        request.send_response(200)
        request.send_header("content-type", "application/json")
        request.send_header("transfer-encoding", "chunked")
        request.end_headers()
        try:
            while True:
                request.wfile.write(f"{size:x}\r\n".encode() + b" " * size + b"\r\n")
                time.sleep(pause)
        except OSError:
            request.close_connection = True
        return True

    return fault


def never_begins(request: _Passing) -> bool:
    """Headers that go on and on: each time something comes, and never an answer."""
    try:
        while True:
            request.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            time.sleep(0.05)
    except OSError:
        request.close_connection = True
    return True


def needs_key(key: str) -> Fault:
    """Requests without that key are refused; in the words of OpenAI, which repeat a part of it."""

    def fault(request: _Passing) -> bool:
        given = request.headers.get("authorization", "")
        if given == f"Bearer {key}":
            return False
        request.say(401, json.dumps({"error": {"message": f"Incorrect API key provided: {given}"}}).encode())
        return True

    return fault
