"""How many requests a store in S3 is asked for a stage, by what is done with it.

    .venv/bin/python benchmarks/requests_of_store.py            # 200 stages of one small file; some seconds

A server of S3 in this process (moto, as in the tests); counted are the calls of S3's interface that s3fs makes. Seconds are
not what a real server takes: multiply the requests by what one costs there (20 to 50 ms within a region of S3).

`made`: computed, sent and published, one after another. `found`: planned anew by another machine, nothing brought. `brought`:
the files of each on another machine, compared with their hashes. `waited for`: asked for the lock of one that another process
holds. `removed`: by `collapse gc`, beside `--runs` runs that need one stage, all requests of the command by the stages that go.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loop import ROOT
from report import Report, about_machine

sys.path.insert(0, str(ROOT / "tests"))
import pytest
from support import objects
from support.kinds import kind

from collapse_cli.config import Experiment
from collapse_cli.engine import scheduler
from collapse_cli.engine.executors.local import LocalExecutor
from collapse_cli.engine.object_store import ObjectStore
from collapse_cli.engine.observer import Observer
from collapse_cli.engine.stage import Stage
from collapse_cli.records import elsewhere
from collapse_cli.records.rundir import RunFolder
from collapse_cli.run.garbage import collect_garbage

CALLS: Counter[str] = Counter()


class Nobody(Observer):
    """Hears nothing."""


def body(stage: Stage, inputs: Any, place: Any) -> dict[str, Any]:
    (place.folder / "rows.npz").write_bytes(str(stage.params).encode() * 10)
    return {}


def counted(work: Callable[[], object]) -> tuple[Counter[str], float]:
    """Which requests some work makes, and its seconds."""
    CALLS.clear()
    begin = time.perf_counter()
    work()
    return Counter(CALLS), time.perf_counter() - begin


def count_calls() -> None:
    """Let each call of S3's interface count itself."""
    from s3fs import S3FileSystem

    call = S3FileSystem._call_s3

    async def counting(self: Any, method: str, *arguments: Any, **more: Any) -> Any:
        CALLS[method] += 1
        return await call(self, method, *arguments, **more)

    S3FileSystem._call_s3 = counting


def make_runs(server: objects.S3, folder: Path, count: int, stage: Stage) -> None:
    """Runs there that need a stage."""
    run = RunFolder(folder, "run")
    run.start(Experiment(), [{"kind": stage.kind, "key": stage.key, "inputs": {}, "for": []}], {})
    for number in range(count):
        for name in ("run.json", "plan.json"):
            server.write(f"runs/run-{number}/{name}", (run.path / name).read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--stages", type=int, default=200)
    parser.add_argument("--runs", type=int, default=20)
    asked = parser.parse_args()
    stages = [Stage(kind("train", body=body), {"number": number}) for number in range(asked.stages)]
    count_calls()
    with objects.serving() as server, tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        address = f"s3://{objects.BUCKET}/store"  # below no prefix: beside it lie the runs

        def machine(name: str) -> ObjectStore:
            objects.use(patch, server.port, Path(folder, name))
            return ObjectStore(address)

        one, two, three = machine("one"), machine("two"), machine("three")
        lines = list[list[str]]()

        def tell(what: str, work: Callable[[], object], of: int) -> None:
            calls, seconds = counted(work)
            told = ", ".join(f"{name} {number / of:.3g}" for name, number in calls.most_common())
            lines.append([what, f"{calls.total() / of:.3g}", told, f"{1000 * seconds / of:.3g}"])

        tell("made", lambda: scheduler.run(stages, LocalExecutor(one), Nobody()), len(stages))
        tell("found", lambda: scheduler.run(stages, LocalExecutor(two), Nobody()), len(stages))
        tell("brought", lambda: [two.get(stage.key).folder for stage in stages], len(stages))
        with one.locked("0" * 64):

            def wait() -> None:
                for _ in range(20):
                    three._leases._asked.clear()  # as if the time between two looks were over
                    with three.locked("0" * 64) as mine:
                        assert not mine

            tell("waited for", wait, 20)

        make_runs(server, Path(folder, "runs"), asked.runs, stages[0])
        objects.use(patch, server.port, Path(folder, "one"))
        runs = elsewhere.folder_of(f"s3://{objects.BUCKET}")
        tell("removed", lambda: collect_garbage(runs), len(stages) - 1)
        assert one.keys() == [stages[0].key]
        Report(None, about_machine()).table(
            f"Requests to the store, of {len(stages)} stages",
            ["what", "requests a stage", "of them", "ms a stage here"],
            lines,
        )


if __name__ == "__main__":
    main()
