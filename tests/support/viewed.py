"""Runs that are looked at through `collapse view`'s server, and requests to it as a browser or an attacker makes them."""

import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.instrumented import write_run
from support.serving import at_work
from support.waiting import PATIENCE

from collapse_cli.records.rundir import RunFolder
from collapse_cli.view.server import HOST, Server, server

POLICIES = ("keep-0", "keep-10")


@dataclass(frozen=True)
class Answer:
    """What a server said."""

    code: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@contextmanager
def serving(folder: Path, named: Sequence[RunFolder] = ()) -> Iterator[Server]:
    """The server at work, on a port that is free."""
    with server(folder, named) as made, at_work(made):
        yield made


def ask(made: Server, target: str, method: str = "GET", hosts: Sequence[str] | None = None, **headers: str) -> Answer:
    """A request whose target is sent as it stands, with these Host headers; by default the one of its address.

    Args:
        headers: others, with _ for -.
    """
    connection = http.client.HTTPConnection(HOST, made.server_port, timeout=PATIENCE)
    # the server has to look at it, not the client
    connection._validate_path = lambda url: None  # type: ignore[attr-defined]
    connection._encode_request = lambda request: request.encode("latin-1")  # type: ignore[attr-defined]
    connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
    for host in [f"{HOST}:{made.server_port}"] if hosts is None else hosts:
        connection.putheader("Host", host)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    response = connection.getresponse()
    answer = Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    connection.close()
    return answer


class Live:
    """A run of which generations 0..2 of 0..4 are measured, and the others can be added."""

    def __init__(self, runs: Path, name: str = "live") -> None:
        later = [(policy, 0, generation) for policy in POLICIES for generation in (3, 4)]
        self.path = write_run(runs, name, policies=POLICIES, generations=4, missing=later, status="started")
        whole = write_run(runs / "whole", name, policies=POLICIES, generations=4)
        self._later = (whole / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[6:]

    def measure(self) -> None:
        """Both policies' next generation."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write("\n".join(self._later[:2]) + "\n")
        del self._later[:2]

    def finish(self) -> None:
        """Say in its record that it ended well."""
        RunFolder(self.path.parent, self.path.name).finish("success")
