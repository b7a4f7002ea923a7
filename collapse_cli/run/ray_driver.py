"""Ray's driver: a process that submits stages as Ray tasks, and passes on what they tell. `RayExecutor` starts it.

Read from standard input: the order, then a line per stage (`key`, `work`, `threads`, `gpus`). It ends with that input, and
whatever was started here with it. Written: what a worker process writes (`run/worker.py`), with the key of the stage in `at`.
"""

import asyncio
import json
import os
import re
import shutil
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from collapse_cli.errors import ConfigError, first_line
from collapse_cli.process import answers_alone, lines_of_input
from collapse_cli.run import worker
from collapse_cli.run.ray_task import computed

START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from collapse_cli.run.ray_driver import main; sys.exit(main())"
OBJECTS = 80 << 20  # bytes of Ray's object store, which holds nothing of ours; less than Ray's minimum is refused
LEAST_FREE = 1 << 20  # bytes of the disk of Ray's own files, of which it needs some hundred thousand to begin
MOST_DEATHS = 5  # of workers at one stage: what always ends its worker would be tried for ever
MOST_LOSSES = 50  # of nodes under one stage
MOST_TOLD = 100.0  # lines a second about progress, of all stages together
PAUSE = 0.5  # seconds before a stage is tried again, longer each time
MOST_HELD = 5.0  # seconds before what another run computes is asked for again, which takes a task
LOOK = 2.0  # seconds between two looks at whether the cluster is there
SILENCE = 30.0  # seconds without an answer after which it is lost
LOST = 3  # the exit code then
RETURN = 600.0  # seconds to wait for a cluster that was there
Say = Callable[..., None]


def command() -> list[str]:
    """What starts the driver: this Python, with this process's own paths to import from. Tasks on nodes have those of their node."""
    return [sys.executable, "-P", "-c", START, json.dumps([os.path.abspath(path) for path in sys.path])]  # noqa: PTH100


def main() -> int:
    """Work until the input ends."""
    answers = answers_alone()
    lines = lines_of_input()
    order = next(lines)

    def say(event: str, at: str = "", **what: Any) -> None:
        answers.write(json.dumps({"at": at, "event": event, **what}) + "\n")

    try:
        connect(order, say)
        asyncio.run(Driver(order, say, answers.write).serve(lines))
    except ConfigError as error:
        say("mistake", text=str(error))
    except Exception:
        say("failure", text=traceback.format_exc())
    answers.flush()
    os._exit(1)


def connect(order: Mapping[str, Any], say: Say) -> None:
    """Join the cluster of the order, or start one here.

    Raises:
        ConfigError: when it cannot be used.
    """
    import ray

    address = order["address"]
    quiet = {"log_to_driver": False, "logging_level": "CRITICAL"}
    if not address:
        size = {"num_cpus": order["cpus"], "object_store_memory": OBJECTS}
        try:
            ray.init("local", include_dashboard=False, _temp_dir=order["home"], **size, **quiet)
        except Exception as error:
            raise ConfigError(_why_not_here(order["home"], error)) from error
    else:
        if order["again"]:
            _wait_for(address)
        try:
            ray.init(address, **quiet)
        except Exception as error:
            if order["again"]:  # it is not up yet: whoever started us does so again
                raise SystemExit(LOST) from error
            raise ConfigError(_why(address, error)) from error
    if not order["again"]:
        _check_resources(ray.nodes(), order)
    say("connected")


def _why_not_here(home: str, error: Exception) -> str:
    """Why Ray could not be started on this machine, in a sentence. Of a full disk it says nothing but that it took too long."""
    free = shutil.disk_usage(home).free
    if free < LEAST_FREE:
        why = f"Ray could not be started here: the disk of {home}, where its own files go, has {free >> 10} kB free"
        return f"{why}; free some space there, or name another folder with TMPDIR=FOLDER: what is finished is kept"
    return f"Ray could not be started here ({first_line(error)}); what is finished is kept: run without --executor ray"


def _wait_for(address: str) -> None:
    """Until something answers at an address that did before."""
    host, _, port = address.rpartition(":")
    end = time.monotonic() + RETURN
    while host and time.monotonic() < end:
        try:
            socket.create_connection((host.strip("[]"), int(port)), 2).close()
        except OSError:
            time.sleep(0.5)
        else:
            return


def _end_when_lost(order: Mapping[str, Any], say: Say) -> None:
    """End this process when the cluster no longer knows the node that it is at: a head that began anew knows of no driver and of
    no task, and Ray would wait for ever. Where nodes are lost so that none is large enough, say what is waited for.
    """
    import ray

    own, heard = ray.get_runtime_context().get_node_id(), [time.monotonic()]

    def ask() -> None:
        while True:
            try:
                nodes = ray.nodes()
            except Exception:  # the cluster does not answer: who began this process says so
                nodes = []
            if not any(node["NodeID"] == own and node["Alive"] for node in nodes):
                os._exit(LOST)
            if (lacking := _lacking(nodes, order)) is not None:
                name, _, asked, most = lacking
                say(
                    "note",
                    text=f"no node that is left has {asked:g} {name}s for a stage (the largest has {most:g}): waiting for one",
                )
            heard[0] = time.monotonic()
            time.sleep(LOOK)

    threading.Thread(target=ask, daemon=True).start()
    while time.monotonic() - heard[0] < SILENCE:
        time.sleep(LOOK)
    os._exit(LOST)


def _why(address: str, error: Exception) -> str:
    """Why a cluster cannot be used, in a sentence."""
    whole = f"{type(error).__name__}: {error}\n{error.__cause__ or ''}"
    # Ray writes whole tracebacks into what it raises; the last line of one says what was wrong
    text = (
        whole.split("Traceback (most recent call last)")[-1].strip().splitlines()[-1 if "Traceback" in whole else 0 :]
    )
    said = " ".join(" ".join(text).split()).removeprefix(f"{type(error).__name__}: ")
    if "AuthenticationError" in whole:
        return (
            f"the cluster at {address} wants a token, and was given none or another one; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN "
            "(or RAY_AUTH_TOKEN_PATH) as on its nodes"
        )
    if "ersion mismatch" in whole:
        return (
            f"the cluster at {address} has another version of Ray or Python than this machine ({said[:300]}); install the same "
            "on all nodes"
        )
    if address == "auto":
        return (
            "no Ray runs on this machine (ray.address is auto); start one (ray start --head), or leave the address out"
        )
    return (
        f"the cluster at {address} cannot be used ({said[:300]}); is it Ray that answers there, and does a node of it run on this "
        f"machine (ray start --address={address})?"
    )


def _check_resources(nodes: list[dict[str, Any]], order: Mapping[str, Any]) -> None:
    """Whether some node has what the largest stage asks for.

    Raises:
        ConfigError: where none has.
    """
    if (lacking := _lacking(nodes, order)) is not None:
        name, option, asked, most = lacking
        raise ConfigError(
            f"a stage asks for {asked:g} {name}s ({option}), and no node of the cluster has more than {most:g}: "
            f"--set {option}={most:g}, or add a node"
        )


def _lacking(nodes: list[dict[str, Any]], order: Mapping[str, Any]) -> tuple[str, str, float, float] | None:
    """Of what no node has enough for the largest stage: name, option, how much it asks for, the most that one has."""
    there = [node["Resources"] for node in nodes if node["Alive"]]
    for name, key, option in (("CPU", "threads", "ray.threads"), ("GPU", "gpus", "ray.gpus")):
        most = max((node.get(name, 0.0) for node in there), default=0.0)
        if order[key] > most:
            return name, option, order[key], most
    return None


def _of_memory(said: str) -> str:
    """Of the pages that Ray writes when it ends a worker for the node's memory: how much was in use, and where its limit is."""
    found = re.search(
        r"IP: ([^,\s]+),.*? was (\S+) used / (\S+) limit .*? threshold of \d+B \((\S+%) of", said, re.DOTALL
    )
    if found is None:
        return "memory ran out"
    node, used, whole, limit = found.groups()
    return f"memory ran out ({used} of {whole} in use on the node {node}; Ray ends a worker above {limit}: RAY_memory_usage_threshold)"


class Driver:
    """Follows each stage that it is given from its submission to its end."""

    def __init__(self, order: Mapping[str, Any], say: Say, write: Callable[[str], Any]) -> None:
        import ray

        self._asked, self._say, self._write = order, say, write
        self._order = json.dumps(order["plan"])
        self._task = ray.remote(num_returns="streaming", max_retries=0)(computed)
        self._at_work: set[asyncio.Task[None]] = set()
        self._cpus = 1.0
        self._held: dict[str, int] = {}  # by key: how often another process had it

    async def serve(self, lines: Any) -> None:
        """Take stages from the input for as long as there is one."""
        import ray

        self._cpus = ray.cluster_resources().get("CPU", 1.0)
        loop = asyncio.get_running_loop()

        def read() -> None:
            for stage in lines:
                loop.call_soon_threadsafe(self._begin, stage)

        threading.Thread(target=_end_when_lost, args=(self._asked, self._say), daemon=True).start()
        threading.Thread(target=read, daemon=True).start()
        await asyncio.Event().wait()

    def _begin(self, stage: Mapping[str, Any]) -> None:
        task = asyncio.get_running_loop().create_task(self.follow(stage))
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)

    async def follow(self, stage: Mapping[str, Any]) -> None:
        """Have a stage computed, again where its worker or its node dies."""
        import ray

        at, deaths, losses = stage["key"], 0, 0
        while True:
            try:
                await self.once(stage)
                return
            except ray.exceptions.RayTaskError as error:  # ours tells of its own errors: so it did not begin
                self._did_not_begin(at, error)
                return
            except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
                deaths += 1
                if deaths >= MOST_DEATHS:
                    why = (
                        _of_memory(str(error))
                        if isinstance(error, ray.exceptions.OutOfMemoryError)
                        else "perhaps memory ran out"
                    )
                    text = (
                        f"at a {stage['work']} stage the worker died {deaths} times: {why}; what is finished is kept: run the same "
                        "command again with fewer stages on a node (ray.threads)"
                    )
                    self._say("mistake", at, text=text)
                    return
            except ray.exceptions.RayError as error:
                losses += 1
                if losses >= MOST_LOSSES:
                    text = f"at a {stage['work']} stage nodes were lost {losses} times ({first_line(error)}); what is finished is kept"
                    self._say("mistake", at, text=text)
                    return
            except Exception:
                self._say("failure", at, text=traceback.format_exc())
                return
            self._say(
                "note",
                at,
                text=f"a worker or a node of the cluster was lost at a {stage['work']} stage, which is tried again",
            )
            await asyncio.sleep(PAUSE * (deaths + min(losses, 10)))

    async def once(self, stage: Mapping[str, Any]) -> None:
        """Submit a stage, and pass on what it tells.

        Raises:
            RayError: when its worker or node died before it was at its end.
        """
        import ray

        task = self._task.options(
            num_cpus=stage["threads"], num_gpus=stage["gpus"], name=f"{stage['work']} {stage['key'][:12]}"
        )
        ended = False
        at_work = min(len(self._at_work), self._cpus / stage["threads"])
        every = max(worker.TELL_SECONDS, at_work / MOST_TOLD)
        async for line in task.remote(self._order, stage["key"], stage["threads"], every):
            message = json.loads(await line)
            ended = message["event"] in worker.LAST
            if message["event"] == "held":
                asked = self._held[stage["key"]] = self._held.get(stage["key"], 0) + 1
                await asyncio.sleep(min(PAUSE * (asked - 1), MOST_HELD))
            self._write(json.dumps({"at": stage["key"], **message}) + "\n")
        if not ended:
            raise ray.exceptions.WorkerCrashedError

    def _did_not_begin(self, at: str, error: Exception) -> None:
        """A task raised an error, which ours do not: they tell of it."""
        said = str(error).strip()
        if "ModuleNotFoundError" in said:
            text = f"a node of the cluster cannot import what it needs ({said.splitlines()[-1][:200]}); install the same on all nodes"
            self._say("mistake", at, text=text)
        else:
            self._say("failure", at, text=said)
