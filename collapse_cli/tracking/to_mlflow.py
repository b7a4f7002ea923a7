"""MLflow: a local SQLite store, or a server."""

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from collapse_cli.config import Experiment
from collapse_cli.records.row import Row
from collapse_cli.tracking.mirrored import About, digest, metrics_of
from collapse_cli.where import Arm

BATCH = 100  # MLflow takes 100 parameters, or 1000 metrics, in one call
PENDING = "-"
Key = tuple[Arm, str]  # of a run of MLflow: policy and lineage, and the seed
PARENT: Key = (Arm(""), "")


class MLflow:
    """A run of MLflow for each policy, lineage and seed, below a parent that bears the run's name; steps are generations.

    Which rows a run of MLflow holds stands in its tags `collapse.rows.N` as `generation:hash`, written before the
    numbers as pending and after them as done. One whose rows are no longer those of the truth, or that was broken off
    within a row, is deleted (MLflow can restore it) and made again: MLflow cannot take a point back.
    """

    def __init__(self, about: About) -> None:
        # Read when mlflow is imported or asks a server: no reports home, errors said once and by us, no minutes of waiting.
        for key, value in {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_LOGGING_LEVEL": "CRITICAL",
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        }.items():
            os.environ.setdefault(key, value)
        from mlflow import MlflowClient

        self._about = about
        uri = store_uri(about.config, about.folder.parent)
        self._client = MlflowClient(tracking_uri=uri)
        project = about.config.tracking.project
        experiment = self._client.get_experiment_by_name(project)
        if experiment is None:
            # without a place for artifacts, of which there are none, MLflow would note the working directory
            local = (
                (about.folder.parent / "mlflow-artifacts").absolute().as_uri() if uri.startswith("sqlite:") else None
            )
            self._experiment = self._client.create_experiment(project, artifact_location=local)
        else:
            self._experiment = experiment.experiment_id
        self._runs: dict[Key, str] = {}  # MLflow's ids
        self._done: dict[Key, dict[int, str]] = {}  # generation -> hash of its numbers
        self._find()
        self._parent = self._run(PARENT)

    def add(self, row: Row) -> None:
        from mlflow.entities import Metric

        where, generation, values = (row.where.arm, str(row.where.seed)), row.where.generation, metrics_of(row)
        run = self._run(where)
        if self._done[where].get(generation) == digest(values):
            return
        self._mark(where, generation, PENDING)
        now = time.time_ns() // 1_000_000
        metrics = [Metric(key, value, now, generation) for key, value in values.items()]
        for start in range(0, len(metrics), BATCH * 5):
            self._client.log_batch(run, metrics=metrics[start : start + BATCH * 5])
        self._mark(where, generation, digest(values))

    def close(self, status: str) -> None:
        words = {"success": "FINISHED", "interrupted": "KILLED"}
        for run in reversed(self._runs.values()):
            self._client.set_terminated(run, words.get(status, "FAILED"))

    def _find(self) -> None:
        """The runs of MLflow that mirror this run already; what they hold must be what `metrics.jsonl` says."""
        truth: dict[Key, dict[int, str]] = {}
        for row in self._about.rows():
            hashes = truth.setdefault((row.where.arm, str(row.where.seed)), {})
            hashes[row.where.generation] = digest(metrics_of(row))
        for run in self._search():
            tags = run.data.tags
            arm = Arm(tags.get("collapse.policy", ""), tags.get("collapse.lineage", ""))
            where = (arm, tags.get("collapse.seed", ""))
            done: dict[int, str] = {}
            for key, text in tags.items():
                if key.startswith("collapse.rows."):
                    done |= {
                        int(generation_said): state
                        for generation_said, _, state in (part.partition(":") for part in text.split())
                    }
            if not done.items() <= truth.get(where, {}).items():
                self._client.delete_run(run.info.run_id)
            elif where not in self._runs:
                self._runs[where], self._done[where] = run.info.run_id, done
                self._describe(run.info.run_id, set(run.data.params))
                self._client.update_run(run.info.run_id, status="RUNNING")

    def _search(self) -> Iterator[Any]:
        token: str | None = None
        wanted = f"tags.`collapse.id` = '{self._about.identity}'"
        while True:
            page = self._client.search_runs([self._experiment], wanted, page_token=token)
            yield from list(page)
            token = page.token
            if not token:
                return

    def _run(self, where: Key) -> str:
        if where not in self._runs:
            about, (arm, seed) = self._about, where
            tags = {"collapse.id": about.identity, "collapse.run": about.name}
            own = {} if where == PARENT else {**arm.record(), "seed": seed}
            if own:
                tags |= {f"collapse.{name}": value for name, value in own.items()}
                tags["mlflow.parentRunId"] = self._parent
            name = f"{about.name} {arm} seed {seed}" if own else about.name
            run = self._client.create_run(self._experiment, tags=tags, run_name=name).info.run_id
            self._runs[where], self._done[where] = run, {}
            self._describe(run, set(), own)
        return self._runs[where]

    def _describe(self, run: str, there: set[str], more: Mapping[str, str] | None = None) -> None:
        """Parameters that MLflow does not have yet (it lets none be changed), and the tags as they are now."""
        from mlflow.entities import Param, RunTag

        params = {**(more or {}), **self._about.params}
        left = [Param(key, value) for key, value in params.items() if key not in there]
        for start in range(0, len(left), BATCH):
            self._client.log_batch(run, params=left[start : start + BATCH])
        tags = [RunTag(key, value) for key, value in self._about.tags.items() if value]
        for start in range(0, len(tags), BATCH):
            self._client.log_batch(run, tags=tags[start : start + BATCH])

    def _mark(self, where: Key, generation: int, mark: str) -> None:
        done, first = self._done[where], generation // 250 * 250  # a tag holds 5000 characters
        done[generation] = mark
        text = " ".join(
            f"{generation}:{done[generation]}" for generation in sorted(done) if first <= generation < first + 250
        )
        self._client.set_tag(self._runs[where], f"collapse.rows.{first // 250}", text)


def store_uri(config: Experiment, runs: Path) -> str:
    """Where MLflow's runs are kept."""
    given = config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    return given or f"sqlite:///{(runs / 'mlflow.db').absolute().as_posix()}"
