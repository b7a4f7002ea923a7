"""The processes in which the other devices of a training work: each with a learner, and a model, of its own.

They are sent a line of JSON a training (`order_of`), find all else in files, and then work in step with this process through
`lm.devices.Group`. Like a worker process they end with their input, so they cannot outlive whoever started them.
"""

import json
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collapse_cli.data.dataset import MASK, WEIGHTS, Dataset
from collapse_cli.engine.child import Child, ChildEndedError
from collapse_cli.errors import UserError
from collapse_cli.learners.protocol import Hints

if TYPE_CHECKING:
    from collapse_cli.lm.devices import Group

START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from collapse_cli.learners.device import main; sys.exit(main())"
)
ROWS = "rows.safetensors"  # in scratch: what is trained on, as all devices have it
PATIENCE = 30.0  # seconds in which a device that is gone must have said why
_IDLE: ContextVar["list[_Process] | None"] = ContextVar("_IDLE", default=None)  # where they stay; None: they end


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


@contextmanager
def devices_stay() -> Iterator[None]:
    """Inside, processes that have done their part of a training take part in the next one: to start one takes seconds."""
    with ExitStack() as stack:
        idle: list[_Process] = []
        token = _IDLE.set(idle)
        stack.callback(_end, idle)
        stack.callback(_IDLE.reset, token)
        yield


class DeviceProcesses:
    """The processes of all devices but the first, which is this process, for one training.

    They start at once, and end with the `with` block; within `devices_stay` they stay, unless the training failed.
    """

    def __init__(self, count: int) -> None:
        self.count, self._joined, there = count, False, _IDLE.get() or []
        with ExitStack() as stack:
            self._others: list[_Process] = []
            stack.callback(_end, self._others)
            for _ in range(count - 1):
                self._others.append(_one_of(there) or _Process())
            self._stack = stack.pop_all()

    def __enter__(self) -> "DeviceProcesses":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        there = _IDLE.get()
        with self._stack:
            if error is None and there is not None:
                # only then is the place where they met no longer theirs
                done = [other for other in self._others if not self._joined or other.says("done")]
                there += done
                self._others[:] = [other for other in self._others if other not in done]

    def join(self, order: Mapping[str, Any]) -> "Group":
        """Have the others begin the training, and wait until they are ready."""
        from collapse_cli.lm.devices import Group
        from collapse_cli.lm.model import device

        # Only this user can look into it. It goes with the checkpoint where a kill leaves it there, or NFS, where one of them is about to leave
        # and has a file of it open; and it needs no room or right elsewhere.
        meeting = tempfile.TemporaryDirectory(prefix="devices-", dir=order["scratch"], ignore_cleanup_errors=True)
        place, kind = Path(self._stack.enter_context(meeting)) / "training", device().type
        threads = _threads()
        for rank, other in enumerate(self._others, start=1):
            mine = {"rank": rank, "count": self.count, "place": str(place), "threads": threads}
            if not other.tell({**order, **mine}):
                raise self.fault()
        for other in self._others:
            if not other.says("ready"):
                raise self.fault()
        self._joined = True
        return Group(0, self.count, place, kind)

    def fault(self, said: str = "") -> Exception:
        """Why one of them is gone, as what there is to be raised; `said`: what the connection to it says."""
        until = time.monotonic() + PATIENCE
        while True:
            for rank, other in enumerate(self._others, start=2):
                if other.has_ended():
                    return other.reason() if other.said else DeviceError(self._last_words(rank, other.how))
            if time.monotonic() > until:
                return RuntimeError(
                    f"the {self.count} devices of a training lost each other, and none says why: {said}"
                )
            time.sleep(0.02)

    def _last_words(self, rank: int, how: str) -> str:
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


class _Process(Child):
    """One of them.

    Attributes:
        said: why it ended, as it said itself; empty as long as it has not.
        how: it ended, in words; of one that has.
    """

    def __init__(self) -> None:
        command = [sys.executable, "-P", "-c", START, json.dumps(sys.path)]
        # gradients are summed in threads that end with a training, and what they freed glibc would keep, a heap for each
        environment = {"MALLOC_ARENA_MAX": "1", **os.environ}
        # a group of its own: a terminal's Ctrl-C is for the first device
        super().__init__(command, process_group=0, env=environment)
        self.said: dict[str, str] = {}
        self.how = ""
        self._heard: deque[dict[str, str]] = deque()

    def tell(self, order: Mapping[str, Any]) -> bool:
        """Whether it could be told."""
        try:
            self.send(order)
        except ChildEndedError:
            return False
        return True

    def says(self, event: str) -> bool:
        """Waits until it says something; whether that is this. It is not when it has ended."""
        while not self._heard:
            try:
                self._heard += self.messages()
            except ChildEndedError:
                return False
        message = self._heard.popleft()
        if message["event"] == event:
            return True
        self.said = message
        return False

    def has_ended(self) -> bool:
        """Whether it has; then what it said of that is known."""
        if self.process.poll() is None:
            return False
        try:
            while True:
                self._heard += self.messages()
        except ChildEndedError as ended:
            self.how = ended.how
        self.said = next((message for message in reversed(self._heard) if "text" in message), self.said)
        return True

    def reason(self) -> Exception:
        text = self.said["text"]
        return DeviceError(text) if self.said["event"] == "mistake" else RuntimeError(f"a device failed:\n{text}")


def _one_of(there: list[_Process]) -> _Process | None:
    """One that is alive; None where none is."""
    while there:
        other = there.pop()
        if other.process.poll() is None:
            return other
        _end([other])
    return None


def _end(processes: list[_Process]) -> None:
    while processes:
        processes.pop().__exit__()
