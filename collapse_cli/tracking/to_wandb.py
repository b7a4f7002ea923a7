"""Weights & Biases: offline folders below the run's folder, or what WANDB_MODE says."""

import hashlib
import os
import shutil
from typing import Any

from collapse_cli.records.row import Row
from collapse_cli.tracking.mirrored import About, histogram_of, metrics_of
from collapse_cli.where import Arm


class WandB:
    """A run of W&B for each policy, lineage and seed in a group of the run's name; offline unless WANDB_MODE says otherwise.

    Offline, each has one folder `wandb/offline-run-*`, written anew from the truth each time.
    """

    def __init__(self, about: About) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when wandb is imported
        import wandb

        self._wandb, self._about = wandb, about
        self._mode: Any = os.environ.get("WANDB_MODE") or "offline"
        if self._mode not in ("offline", "dryrun", "disabled") and not wandb.login(prompt=False):
            raise RuntimeError(
                f"WANDB_MODE is {self._mode}, but there is no API key; set WANDB_API_KEY or run `wandb login`"
            )
        self._runs: dict[tuple[Arm, int], Any] = {}

    def add(self, row: Row) -> None:
        where = (row.where.arm, row.where.seed)
        if where not in self._runs:
            self._runs[where] = self._begin(*where)
        run, generation = self._runs[where], row.where.generation
        there = list(run.summary.get("collapse_rows") or [])  # of a run online that was begun before
        if generation in there:
            return
        logged: dict[str, Any] = {"generation": generation, **metrics_of(row)}
        if (histogram := histogram_of(row)) is not None and len(histogram[1]) <= 512:
            logged["sample_histogram"] = self._wandb.Histogram(np_histogram=(histogram[1], histogram[0]))
        run.log(logged)
        run.summary["collapse_rows"] = sorted([*there, generation])

    def close(self, status: str) -> None:
        for run in self._runs.values():
            run.finish(exit_code=0 if status == "success" else 1)

    def _begin(self, arm: Arm, seed: int) -> Any:
        about = self._about
        run_id = hashlib.sha256(f"{about.identity}\n{arm}\n{seed}".encode()).hexdigest()[:16]
        for old in about.folder.glob(f"wandb/offline-run-*-{run_id}"):
            shutil.rmtree(old)
        (about.folder / "wandb").mkdir(exist_ok=True)
        offline = self._mode in ("offline", "dryrun")
        run = self._wandb.init(
            project=about.config.tracking.project,
            name=f"{about.name} {arm} seed {seed}",
            group=about.name,
            id=run_id,
            resume=None if offline else "allow",
            mode=self._mode,
            dir=str(about.folder),
            reinit="create_new",  # several at a time
            config={**arm.record(), "seed": seed, **about.params, **about.tags},
            # neither the console (it may show generated text) nor code, host and load belong to the rows
            settings=self._wandb.Settings(
                silent=True,
                host="",
                console="off",
                disable_git=True,
                disable_code=True,
                x_disable_meta=True,
                x_save_requirements=False,
                x_disable_stats=True,
                x_disable_machine_info=True,
            ),
        )
        run.define_metric("generation")
        run.define_metric("*", step_metric="generation")
        return run
