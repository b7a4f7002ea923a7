"""`events.jsonl`: when each stage began, and that it was finished or was there."""

from typing import Any

from collapse_cli.engine.observer import Observer
from collapse_cli.engine.stage import Finished, Plan, Stage
from collapse_cli.records.rundir import RunFolder


class Events(Observer):
    """Writes a line of `events.jsonl` for each stage that begins or is finished."""

    def __init__(self, folder: RunFolder, plan: Plan) -> None:
        self.folder, self.plan, self._parts = folder, plan, plan.shard_of

    def started(self, stage: Stage) -> None:
        self.folder.add_event({"event": "started", **self._about(stage)})

    def finished(self, stage: Stage, made: Finished, *, cached: bool, memory_mb: int = 0) -> None:
        if cached:
            self.folder.add_event({"event": "cached", **self._about(stage)})
            return
        tokens = stage.tokens(made)
        self.folder.add_event(
            {
                "event": "finished",
                **self._about(stage),
                "seconds": made.seconds,
                "tokens": tokens,
                "tokens_per_second": round(tokens / max(made.seconds, 1e-3), 1),
                "peak_memory_mb": memory_mb,
            }
        )

    def _about(self, stage: Stage) -> dict[str, Any]:
        return {
            "kind": stage.kind,
            "work": stage.work,
            "key": stage.key,
            "for": self.plan.serves[stage.key][0].record(),
            **({"shard_of": self._parts[stage.key].key} if stage.key in self._parts else {}),
        }
