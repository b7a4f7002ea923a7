"""A process of ours that is talked to in lines of JSON."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

from collapse_cli.process import unheard_by_children


class ChildEndedError(Exception):
    """It is gone.

    Attributes:
        how: it ended, in words.
    """

    def __init__(self, code: int) -> None:
        self.how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        super().__init__(self.how)


class Child:
    """It ends when its input does, so it cannot outlive this process."""

    def __init__(self, command: Sequence[str], order: Mapping[str, Any] | None = None, **options: Any) -> None:
        """Start it.

        Args:
            order: the first line that it is sent; None: nothing yet.
            options: of `subprocess.Popen`.
        """
        with unheard_by_children():
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)  # noqa: S603
        self._half = b""  # of a line
        if order is not None:
            self.send(order)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.kill()  # as harmless as at any other time: a stage is in the store whole, or not at all
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(BrokenPipeError):
                pipe.close()

    def fileno(self) -> int:
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def messages(self) -> list[dict[str, Any]]:
        """What it said since the last time; at least one thing when its output is ready to be read, but for half a line.

        Raises:
            ChildEndedError: when it is gone.
        """
        more = os.read(self.fileno(), 1 << 16)
        if not more:
            raise ChildEndedError(self.process.wait())
        *lines, self._half = (self._half + more).split(b"\n")
        return [json.loads(line) for line in lines]

    def send(self, message: Mapping[str, Any]) -> None:
        """Write a line.

        Raises:
            ChildEndedError: when it is gone.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise ChildEndedError(self.process.wait()) from None
