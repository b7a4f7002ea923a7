"""A server of S3 on this machine alone (moto), made-up keys, and folders of copies that stand for machines."""

import logging
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

HOST = "127.0.0.1"
BUCKET = "runs-of-tests"
KEYS = {
    "AWS_ACCESS_KEY_ID": "made-up",
    "AWS_SECRET_ACCESS_KEY": "made-up, too",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",  # nothing is asked for keys over a network
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}


@dataclass
class S3:
    """The server; `objects` asks it past all of our own code."""

    port: int
    server: Any = field(repr=False)

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def client(self) -> Any:
        import boto3

        keys = {"aws_access_key_id": "made-up", "aws_secret_access_key": "made-up, too"}
        return boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", **keys)

    def names(self, prefix: str) -> list[str]:
        """All objects below a prefix of the bucket, without it."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/")
        return [each["Key"].removeprefix(f"{prefix}/") for page in pages for each in page.get("Contents", [])]

    def read(self, name: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
        return content

    def write(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=name, Body=content)

    def check_keys(self, wanted: bool) -> None:
        """Whether each request must be signed by a user that the server knows; it knows none."""
        requests = b"0" if wanted else b"inf"  # that still go unchecked
        plain = {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/moto-api/reset-auth", requests, plain)).close()

    def copy(self, prefix: str, to: str) -> None:
        for name in self.names(prefix):
            self.client.copy_object(
                Bucket=BUCKET, Key=f"{to}/{name}", CopySource={"Bucket": BUCKET, "Key": f"{prefix}/{name}"}
            )


@contextmanager
def serving() -> Iterator[S3]:
    """A server with one empty bucket."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it tells of each request
    server.start()
    try:
        one = S3(server.get_host_and_port()[1], server)
        one.client.create_bucket(Bucket=BUCKET)
        yield one
    finally:
        server.stop()


@dataclass
class Cut:
    """A way to a server that can be cut: everything is passed on, until `after` requests were; and `seconds` later again."""

    to: int
    after: int
    seconds: float = float("inf")
    seen: int = 0
    since: float = float("inf")  # when it was cut

    def __enter__(self) -> "Cut":
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                one, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(one,), daemon=True).start()

    def _pass_on(self, one: socket.socket) -> None:
        """Both ways; a part of a request that is one too many is the last thing that comes through."""
        with one, socket.create_connection((HOST, self.to)) as other:

            def back() -> None:
                try:
                    while more := other.recv(1 << 16):
                        one.sendall(more)
                except OSError:
                    pass

            threading.Thread(target=back, daemon=True).start()
            try:
                while more := one.recv(1 << 16):
                    self.seen += more.count(b" HTTP/1.1\r\n")
                    self.since = min(self.since, time.monotonic()) if self.seen > self.after else self.since
                    if self.since <= time.monotonic() < self.since + self.seconds:
                        other.sendall(more[: len(more) // 2])
                        return
                    other.sendall(more)
            except OSError:
                pass


def use(monkeypatch: pytest.MonkeyPatch, port: int, copies: Path, **others: str) -> None:
    """What a command, here or in a process of its own, knows of a server; `copies`: the folder of one machine."""
    given = {**KEYS, "AWS_ENDPOINT_URL": f"http://{HOST}:{port}", "COLLAPSE_CACHE": str(copies), **others}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
