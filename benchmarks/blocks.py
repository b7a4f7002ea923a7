"""What the store and the run folder add to thousands of cheap generations: `collapse run` beside its bare verbs.

Both sides make the same generations with the same learner and seeds, in turn, in one process on one thread. The bare side
fits, samples and measures in memory and keeps nothing; the other is `runner.run`: blocks, store, metrics.jsonl, report.
"""

import argparse
import io
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from rich.console import Console
from threadpoolctl import threadpool_limits

from collapse_cli import report
from collapse_cli.config import Experiment, load, preset_path, read_toml, variant_experiments
from collapse_cli.engine import scheduler
from collapse_cli.engine.executors.local import LocalExecutor
from collapse_cli.engine.folder_store import FolderStore
from collapse_cli.experiment import kinds
from collapse_cli.experiment.stages import block
from collapse_cli.experiment.stages.base import hints_of
from collapse_cli.learners import learner_class
from collapse_cli.run import runner
from collapse_cli.run.execution import Execution
from collapse_cli.run.observers.computed import Computed


def bare(config: Experiment, root: Path) -> float:
    """CPU seconds of the generations alone: the chain of every block, without writing anything but the real data."""
    resolved = learner_class(config.learner).resolve(config)
    planned, store = kinds.plan(resolved.config, resolved.hints), FolderStore(root)
    root.mkdir(parents=True)
    scheduler.run([one for one in planned.stages.values() if one.kind == "data"], LocalExecutor(store), Computed())
    total = 0.0
    for stage in planned.stages.values():
        if stage.kind == "data":
            continue
        scheduler.run(
            [one for one in stage.inputs.values() if one.kind != "data"],
            LocalExecutor(store),
            Computed(),
        )
        inputs = {name: store.get(made.key) for name, made in stage.inputs.items()}
        made = block.Block.of(stage)
        first, last = made.generations
        with threadpool_limits(limits=1, user_api="blas"):
            start = time.process_time()
            chain = block.InMemory(made, stage.seed, inputs, hints_of(stage, inputs), root)
            for generation in range(first, last + 1):
                chain.step(generation)
            total += time.process_time() - start
    return total


def whole(config: Experiment, root: Path) -> tuple[float, float, int]:
    """CPU seconds of the same by `runner.run` in this process, those of its reports, and how many files it left."""
    reports, write = [0.0], report.write_report

    def timed(*arguments: Any, **named: Any) -> Path:
        begin = time.process_time()
        made = write(*arguments, **named)
        reports[0] += time.process_time() - begin
        return made

    start = time.process_time()
    with mock.patch.object(report, "write_report", timed):
        runner.run(config, root, "bench", Console(file=io.StringIO()), Execution(jobs=1))
    return time.process_time() - start, reports[0], sum(path.is_file() for path in root.rglob("*"))


def main() -> None:
    """Measure and print a JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="nature-gmm")
    parser.add_argument("--variant", default="n1000")
    parser.add_argument("--generations", type=int, default=2050)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    tree = read_toml(preset_path(options.preset))
    chosen = variant_experiments(tree, options.preset)[options.variant].model_dump(mode="json")
    chosen["loop"] |= {"generations": options.generations, "seeds": [0]}
    config = load(chosen, options.preset)
    rounds: list[dict[str, Any]] = []
    for turn in range(options.rounds):
        with tempfile.TemporaryDirectory() as place:
            found: dict[str, tuple[float, float, int]] = {}
            for side in ("bare", "whole") if turn % 2 == 0 else ("whole", "bare"):
                root = Path(place) / side
                found[side] = (bare(config, root), 0.0, 0) if side == "bare" else whole(config, root)
        rounds.append(
            {
                "bare_seconds": round(found["bare"][0], 2),
                "whole_seconds": round(found["whole"][0], 2),
                "report_seconds": round(found["whole"][1], 2),
                "added": round(found["whole"][0] / found["bare"][0] - 1, 3),
                "added_without_report": round((found["whole"][0] - found["whole"][1]) / found["bare"][0] - 1, 3),
                "files": found["whole"][2],
            }
        )
    print(
        json.dumps(
            {
                "preset": options.preset,
                "variant": options.variant,
                "generations": options.generations,
                "rounds": rounds,
                "added_median": statistics.median(one["added"] for one in rounds),
                "added_without_report_median": statistics.median(one["added_without_report"] for one in rounds),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
