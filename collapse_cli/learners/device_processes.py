"""The processes in which the other devices of a training work: each with a learner, and a model, of its own.

They are sent a line of JSON a training (`order_of`), find all else in files, and then work in step with this process through
`lm.devices.Group`. Like a worker process they end with their input, so they cannot outlive whoever started them.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collapse_cli.data.dataset import MASK, WEIGHTS, Dataset
from collapse_cli.errors import UserError
from collapse_cli.learners.protocol import Hints
from collapse_cli.process import unheard_by_children

if TYPE_CHECKING:
    from collapse_cli.lm.devices import Group

START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from collapse_cli.learners.device import main; sys.exit(main())"
)
ROWS = "rows.safetensors"  # in scratch: what is trained on, as all devices have it
PATIENCE = 30.0  # seconds in which a device that is gone must have said why


class DeviceError(UserError):
    """A device's process failed in a way that the user can mend."""


def order_of(
    params: Mapping[str, Any], hints: Hints, start: Path | None, data: Dataset, seed: int, scratch: Path
) -> dict[str, Any]:
    """What another device needs for a training; the rows are written beside its checkpoint.

    Args:
        params, hints: of the learner.
        start: the folder of the model that it goes on from; None: the base model.
    """
    needed = {name: array for name, array in data.arrays.items() if name in ("tokens", "lengths", WEIGHTS, MASK)}
    Dataset(needed, data.origin).save(scratch / ROWS)
    return {
        "params": dict(params),
        "hints": hints.record(),
        "start": start and str(start),
        "rows": str(scratch / ROWS),
        "seed": seed,
        "scratch": str(scratch),
    }


class DeviceProcesses:
    """The processes of all devices but the first, which is this process. They start at once, and end with the `with` block."""

    def __init__(self, count: int) -> None:
        self.count, self._trainings = count, 0
        with ExitStack() as stack:
            # only this user can look into it
            self._meeting = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="collapse-devices-")))
            self._others = [stack.enter_context(_Process()) for _ in range(count - 1)]
            self._stack = stack.pop_all()

    def __enter__(self) -> "DeviceProcesses":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def join(self, order: Mapping[str, Any]) -> "Group":
        """Have the others begin a training, and wait until they are ready."""
        from collapse_cli.lm.devices import Group
        from collapse_cli.lm.model import device

        self._trainings += 1
        place, kind = self._meeting / f"training-{self._trainings}", device().type
        threads = _threads()
        for rank, other in enumerate(self._others, start=1):
            mine = {"rank": rank, "count": self.count, "place": str(place), "threads": threads}
            if not other.send({**order, **mine}):
                raise self.fault()
        for other in self._others:
            if not other.is_ready():
                raise self.fault()
        return Group(0, self.count, place, kind)

    def fault(self, said: str = "") -> Exception:
        """Why one of them is gone, as what there is to be raised; `said`: what the connection to it says."""
        until = time.monotonic() + PATIENCE
        while True:
            for rank, other in enumerate(self._others, start=2):
                if other.has_ended():
                    return (
                        other.reason() if other.said else DeviceError(self._last_words(rank, other.process.returncode))
                    )
            if time.monotonic() > until:
                return RuntimeError(
                    f"the {self.count} devices of a training lost each other, and none says why: {said}"
                )
            time.sleep(0.02)

    def _last_words(self, rank: int, code: int) -> str:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return (
            f"the process of device {rank} of {self.count} {how} while a model was trained, perhaps because memory ran out; what is "
            "finished is kept: run the same command again, with fewer --devices if it happens again"
        )


@contextmanager
def shared_threads(count: int) -> Iterator[None]:
    """Inside, this process has its part of the threads that it had; on a GPU all of them."""
    import torch

    from collapse_cli.lm.model import device

    before = torch.get_num_threads()
    if device().type == "cpu":
        torch.set_num_threads(max(1, before // count))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _threads() -> int:
    import torch

    return torch.get_num_threads()


class _Process:
    """One of them.

    Attributes:
        said: why it ended, as it said itself; empty as long as it has not.
    """

    def __init__(self) -> None:
        command = [sys.executable, "-P", "-c", START, json.dumps(sys.path)]
        # a group of its own: a terminal's Ctrl-C is for the first device
        with unheard_by_children():
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)  # noqa: S603
        self.said: dict[str, str] = {}

    def __enter__(self) -> "_Process":
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.kill()  # it leaves nothing behind
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(BrokenPipeError):
                pipe.close()

    def send(self, order: Mapping[str, Any]) -> bool:
        """Whether it could be told."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(order).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return False
        return True

    def is_ready(self) -> bool:
        """Waits until it is; it is not when it has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        message = json.loads(line) if line else {}
        if message.get("event") == "ready":
            return True
        self.said = message
        return False

    def has_ended(self) -> bool:
        assert self.process.stdout is not None
        if self.process.poll() is None:
            return False
        for line in self.process.stdout:
            self.said = json.loads(line)
        return True

    def reason(self) -> Exception:
        text = self.said["text"]
        return DeviceError(text) if self.said["event"] == "mistake" else RuntimeError(f"a device failed:\n{text}")
