"""`metrics.jsonl`: a row for each generation, as soon as all of its stages that measure are done."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from collapse_cli import families, metrics
from collapse_cli.config import Experiment
from collapse_cli.config.foreign import identity_of
from collapse_cli.engine.observer import Observer
from collapse_cli.engine.stage import Finished, Generation, Plan, Stage
from collapse_cli.engine.store import Store
from collapse_cli.experiment.kinds import facts_of
from collapse_cli.records.row import Row
from collapse_cli.records.rundir import RunFolder


class Reader(Protocol):
    """Hears of the rows of generations that are measured."""

    def written(self, rows: Sequence[Row], *, new: bool) -> None:
        """`new`: whether any of them was not in `metrics.jsonl` before, or said something else."""


class Rows(Observer):
    """Writes the rows, with their warnings, and tells each reader of them."""

    def __init__(
        self, folder: RunFolder, store: Store, config: Experiment, plan: Plan, readers: Sequence[Reader]
    ) -> None:
        self.folder, self.store, self.config, self.readers = folder, store, config, readers
        self._there: set[str] = set()
        self._generations = {generation.where: generation for generation in plan.generations}
        self._measured_by: dict[str, list[Generation]] = {}
        for generation in plan.generations:
            for stage in generation.measured:
                self._measured_by.setdefault(stage.key, []).append(generation)

    def finished(self, stage: Stage, made: Finished, *, cached: bool, memory_mb: int = 0) -> None:
        self._there.add(stage.key)
        complete = [
            generation
            for generation in self._measured_by.get(stage.key, [])
            if all(measured.key in self._there for measured in generation.measured)
        ]
        if not complete:
            return
        stages = ReadOnce(self.store)
        rows = [self._row(generation, stages) for generation in complete]
        new = self.folder.add_rows(rows)
        for reader in self.readers:
            reader.written(rows, new=new)

    def _row(self, generation: Generation, stages: "ReadOnce") -> Row:
        row, before = metrics_row(generation, stages), self._before(generation, stages)
        row = with_sources(row, self.config)
        warnings = metrics.warnings(
            row.fields,
            before,
            max_duplicates=self.config.sample.max_duplicates,
            selects=self.config.train.select == "valid",
        )
        return Row(row.where, {**row.fields, "warnings": warnings})

    def _before(self, generation: Generation, stages: "ReadOnce") -> Mapping[str, Any] | None:
        """What was measured of the model before: from the store, for its row may be written later than this one."""
        before = self._generations.get(replace(generation.where, generation=generation.where.generation - 1))
        if before is None or families.of(self.config.learner).may_stand_still:
            return None
        try:
            return facts_of(before, stages.of(before.eval.key))
        except FileNotFoundError:
            return None


class ReadOnce:
    """Finished stages, each read once: a block's record holds many generations."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._read: dict[str, Finished] = {}

    def of(self, key: str) -> Finished:
        if key not in self._read:
            self._read[key] = self.store.get(key)
        return self._read[key]


def metrics_row(generation: Generation, stages: ReadOnce) -> Row:
    """A row but for its warnings, all of it from the eval stages: that of its model may be pruned by now."""
    key, made, store = generation.train.key, stages.of(generation.eval.key), stages.store
    facts = facts_of(generation, made)
    examined = stages.of(generation.samples.key) if generation.samples else None
    seconds = facts["seconds"] if generation.part is not None else {**facts["seconds"], "eval": made.seconds}
    if examined:
        seconds["examine"] = examined.seconds
    beside: Mapping[str, Any] = {}
    if generation.between:
        compared = stages.of(generation.between.key)
        beside = compared.facts["lineages"][generation.where.lineage]
        seconds["between"] = compared.seconds / len(compared.facts["lineages"])  # its part of what all took
    measured = {
        "model_key": key,
        "eval_keys": [stage.key for stage in generation.measured],
        "model_dir": store.name_of(key),
        "sample_tokens": 0,
        **facts,
        **(examined.facts if examined else {}),
        **beside,
        **generation.about,
        "seconds": seconds,
    }
    return Row.at(generation.where, measured | _realised_share(facts))


def with_sources(row: Row, config: Experiment) -> Row:
    """A row whose `foreign_rows` say which source they came from, as the run names it: stages know its content alone."""
    if "foreign_rows" not in row.fields:
        return row
    names = dict(zip(config.foreign_sources, config.foreign.sha256, strict=True))
    by_content = {sha256 or identity_of(name): name for name, sha256 in names.items()}
    named = [
        {"source": by_content.get(given.get("sha256") or given.get("server"), ""), **given}
        for given in row.fields["foreign_rows"]
    ]
    return Row(row.where, {**row.fields, "foreign_rows": named})


def _realised_share(facts: Mapping[str, Any]) -> dict[str, float]:
    """`real_share`: what part of the rows of a corpus is real, as it came out."""
    rows = facts.get("train_rows")
    return {"real_share": facts["real_rows"] / rows} if rows and "real_rows" in facts else {}
