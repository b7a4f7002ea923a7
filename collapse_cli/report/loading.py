"""Run folders as the report reads them: every field is looked at, and what cannot be read is left out and said."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

from collapse_cli import families
from collapse_cli.engine import sealed
from collapse_cli.errors import InputError
from collapse_cli.families import Description, headline
from collapse_cli.findings.check import TwoTexts, compared
from collapse_cli.findings.diagnosis import counted
from collapse_cli.findings.expectations import is_mixture, learner_of, planned_cells
from collapse_cli.findings.shares import ShareVerdict, verdict_of
from collapse_cli.metrics.intervals import Interval, normal, over_seeds
from collapse_cli.records import checked, kept_texts
from collapse_cli.records.fields import BINS, Histogram, finite, table
from collapse_cli.records.kept_texts import KeptText
from collapse_cli.records.row import Row, by_arm, in_order, planned_arms
from collapse_cli.records.rundir import RunFolder
from collapse_cli.report.palette import Look, looks
from collapse_cli.report.text import one_line
from collapse_cli.where import Arm, Where

GENERATIONS = 200  # that a line is drawn through
LAST = 100_000  # generation; a later one is damage


@dataclass(frozen=True)
class Run:
    """A run folder, read: rows that make sense, and notes on what did not."""

    name: str
    record: Mapping[str, Any]
    rows: Sequence[Row]
    events: Sequence[Mapping[str, Any]]
    notes: Sequence[str]
    kept: Mapping[Where, Sequence[KeptText]] = field(default_factory=dict)
    """Texts that were kept for people to read, by model; older runs have none."""
    not_kept: int = 0
    """How many texts the file that keeps them had no room for."""
    compared: TwoTexts | None = None
    """Of a run of `collapse check`, what is known of its two texts without training."""
    verdict: ShareVerdict | None = None
    """Of a run of `collapse check`, what the models say that were trained on mixtures of both."""
    trained: bool = True
    """Whether there are models to be measured: a check may have none."""

    @property
    def config(self) -> Mapping[str, Any]:
        return table(self.record.get("config"))

    @property
    def status(self) -> str:
        return one_line(self.record.get("status", "unknown"))

    @property
    def learner(self) -> str:
        return one_line(learner_of(self.config), 60)

    @property
    def family(self) -> Description:
        """What is known of its learner's family."""
        return families.of(self.learner)

    @property
    def mixture(self) -> bool:
        """Whether it is of the kind `mixture`; else of generations."""
        return is_mixture(self.config)

    @property
    def text(self) -> bool:
        """Whether it is generations of language models, whose text there is to look at."""
        return self.family.text and not self.mixture

    @cached_property
    def planned(self) -> int:
        """Models the configuration asks for."""
        loop = table(self.config.get("loop"))
        seeds, generations = loop.get("seeds"), finite(loop.get("generations"))
        if not self.trained:
            return 0
        if self.mixture:
            return len(planned_cells(self.config)) * (len(seeds) if isinstance(seeds, list) else 1)
        if generations is None or not isinstance(seeds, list) or not isinstance(loop.get("policies"), list):
            return len(self.rows)
        return int(generations + 1) * len(planned_arms(self.config)) * len(seeds)

    @property
    def finished(self) -> bool:
        return self.status == "success" and len(self.rows) >= self.planned

    @property
    def lacking(self) -> str:
        """That rows are missing though the run ended well, and what to do; empty where none are."""
        if self.status != "success" or self.finished:
            return ""
        return f"{len(self.rows)} of {self.planned} measured, though the run ended well; give the run's command again"


@dataclass(frozen=True)
class Series:
    """One policy of one lineage of one run: what a line in a plot shows."""

    index: int
    run: Run
    arm: Arm
    run_index: int
    policy_index: int
    lineage_index: int
    label: str
    rows: Sequence[Row]
    look: Look
    """Its policy's colour, in all runs; its run's, or its lineage's, where all have one policy and it the same."""

    @cached_property
    def generations(self) -> list[int]:
        return sorted({row.where.generation for row in self.rows})

    @cached_property
    def seeds(self) -> list[int]:
        return sorted({row.where.seed for row in self.rows})

    @cached_property
    def counted(self) -> list[int]:
        """The seeds that means are over: as the diagnosis, those with generation 0 and the last one it looks at."""
        name = "nll" if self.run.text else headline(self.run.learner, "generational").name
        having: dict[int, set[int]] = {}
        for row in self.rows:
            if row.measure(name) is not None:
                having.setdefault(row.where.generation, set()).add(row.where.seed)
        end = counted(dict(sorted(having.items())))
        return self.seeds if end is None else end[1]

    @cached_property
    def shown(self) -> set[int]:
        """The generations that lines are drawn through; the last one of every seed is among them."""
        ends = {max(row.where.generation for row in self.rows if row.where.seed == seed) for seed in self.seeds}
        return set(thinned(self.generations)) | ends

    @cached_property
    def _drawn(self) -> list[Row]:
        return [row for row in self.rows if row.where.generation in self.shown]

    def at(self, generation: int) -> list[Row]:
        """The rows of a generation, by seed."""
        return sorted((row for row in self.rows if row.where.generation == generation), key=lambda row: row.where.seed)

    def by_seed(self, name: str, part: int | None = None) -> dict[int, dict[int, float]]:
        """Values of a field: seed -> generation (of those `shown`) -> value; `part` picks one of a field that is a list."""
        values: dict[int, dict[int, float]] = {}
        for row in self._drawn:
            if (value := row.measure(name, part)) is not None:
                values.setdefault(row.where.seed, {})[row.where.generation] = value
        return {seed: dict(sorted(values[seed].items())) for seed in sorted(values)}

    def means(self, name: str, part: int | None = None) -> dict[int, Interval]:
        """Generation -> mean over the `counted` seeds with its interval, where all that have the field at all have it."""
        values_of = {seed: values for seed, values in self.by_seed(name, part).items() if seed in self.counted}
        shared = [set(values) for values in values_of.values()]
        there = sorted(set.intersection(*shared)) if shared else []
        if len(values_of) == 1 and part is None:  # one seed: what its trials say, where it has several
            (seed,) = values_of
            errors = {row.where.generation: row.measure(f"{name}_se") for row in self._drawn if row.where.seed == seed}
            if not self.run.text and any(errors.get(g) is not None for g in there):
                return {g: normal(values_of[seed][g], errors.get(g)) for g in there}
        return {g: over_seeds(name, [values[g] for values in values_of.values()]) for g in there}


def read(folders: Sequence[RunFolder]) -> list[Run]:
    """Runs as they are on disk now.

    Raises:
        ConfigError: for a run that does not exist or whose record is damaged.
    """
    runs: list[Run] = []
    for folder in folders:
        same = sum(run.name.split(" #")[0] == folder.name for run in runs)
        rows, notes = rows_of(folder)
        events, torn = sealed.of_file(folder.path / "events.jsonl")
        if torn:
            notes.append(f"events.jsonl: lines that could not be read: {torn}")
        kept = kept_texts.read(folder.path)
        if kept.torn:
            notes.append(f"{kept_texts.FILE}: lines that could not be read: {kept.torn}")
        if kept.fault:
            notes.append(one_line(f"{kept.fault}; the page lacks the texts it would hold", 280))
        name = f"{folder.name} #{same + 1}" if same else folder.name
        texts, verdict, trained, fault = _checked(folder, rows)
        notes += fault
        run = Run(
            name, folder.record(), rows, events, notes, kept.texts, sum(kept.left_out.values()), texts, verdict, trained
        )
        rows[:] = in_order(rows, _arms(run))
        runs.append(run)
    return runs


def _checked(folder: RunFolder, rows: Sequence[Row]) -> tuple[TwoTexts | None, ShareVerdict | None, bool, list[str]]:
    """What `collapse check` found of two texts and of models trained on them, whether there are any, and what could not be read."""
    try:
        record = checked.read_checked(folder.path)
        if record is None:
            return None, None, True, []
        trained = record.get("trained") is not False
        texts = compared(table(record.get("texts")))
        return texts, verdict_of(rows, table(record.get("training"))) if trained else None, trained, []
    except (InputError, ArithmeticError, ValueError) as error:
        return None, None, True, [one_line(f"{checked.FILE}: {error}; the page lacks what the texts are", 280)]


def _arms(run: Run) -> list[Arm]:
    """Those planned, in the configuration's order, then others that rows have."""
    planned = [Arm(one_line(arm.policy, 60), one_line(arm.lineage, 60)) for arm in planned_arms(run.config)]
    return list(dict.fromkeys([*planned, *(row.where.arm for row in run.rows)]))


def series_of(runs: Sequence[Run]) -> list[Series]:
    """Every policy of every lineage of every run; how each is drawn says `palette.looks`."""
    there = [
        (index, arm, own)
        for index, run in enumerate(runs)
        if not run.mixture
        for arms in [by_arm(run.rows)]
        for arm in _arms(run)
        if (own := arms.get(arm))
    ]
    named = [(index, arm) for index, run in enumerate(runs) if not run.mixture for arm in _arms(run)]
    drawn = looks(named, [(index, arm) for index, arm, _ in there])
    policies: dict[str, int] = {}
    lineages: dict[str, int] = {}
    all_series: list[Series] = []
    for index, arm, rows in there:
        run = runs[index]
        label = str(arm) if len(runs) == 1 else f"{run.name} · {arm}"
        policy = policies.setdefault(arm.policy, len(policies))
        lineage = lineages.setdefault(arm.lineage, len(lineages))
        all_series.append(
            Series(len(all_series), run, arm, index, policy, lineage, one_line(label), rows, drawn[index, arm])
        )
    return all_series


def thinned(generations: Sequence[int], most: int = GENERATIONS) -> list[int]:
    """At most about `most` of them: the ends, a third spaced evenly in logarithms, the rest evenly."""
    if len(generations) <= most:
        return list(generations)
    last = len(generations) - 1
    even = {round(last * index / (2 * most // 3)) for index in range(2 * most // 3 + 1)}
    steps = most - len(even)
    chosen = even | {round(math.expm1(math.log1p(last) * index / steps)) for index in range(steps)}
    return [generations[index] for index in sorted(chosen)]


def rows_of(folder: RunFolder) -> tuple[list[Row], list[str]]:
    """The rows that say of which policy, seed and generation they are, and what in the file does not make sense."""
    rows: dict[Where, Row] = {}
    skipped: Counter[str] = Counter()
    there, torn, lost = folder.lines()
    for row in there:
        if row.where.seed < 0 or not 0 <= row.where.generation <= LAST:
            lost += 1
            continue
        skipped.update(row.malformed())
        named = _as_shown(row)
        rows.setdefault(named.where, named)
    notes = [f"metrics.jsonl: lines that could not be read: {torn}"] if torn else []
    if lost:
        notes.append(f"metrics.jsonl: rows without a possible policy, seed and generation: {lost}")
    notes += [
        f"metrics.jsonl: rows with a malformed {one_line(name)}, which is left out: {n}" for name, n in skipped.items()
    ]
    return list(rows.values()), notes


def _as_shown(row: Row) -> Row:
    """With the name of its policy, or cell, as it can be shown; cells have long names."""
    where = row.where
    shown = _name(where.cell, 160) if where.cell else _name(where.policy, 60)
    lineage = _name(where.lineage, 60) if where.lineage else ""
    if (shown, lineage) == (where.name, where.lineage):
        return row
    named = replace(where, cell=shown) if where.cell else replace(where, policy=shown)
    return Row(replace(named, lineage=lineage), row.fields)


def pooled(rows: Sequence[Row]) -> Histogram | None:
    """The histograms of several seeds as one; those with another bin width than the first are left out."""
    histograms = [histogram for row in rows if (histogram := row.histogram) is not None]
    histograms = [
        histogram for histogram in histograms if math.isclose(histogram.width, histograms[0].width, rel_tol=1e-6)
    ]
    if not histograms:
        return None
    width = histograms[0].width
    low = min(histogram.low for histogram in histograms)
    shifts = [round((histogram.low - low) / width) for histogram in histograms]
    size = max(shift + len(histogram.counts) for shift, histogram in zip(shifts, histograms, strict=True))
    if size > BINS:
        return None
    counts = [0.0] * size
    for shift, part in zip(shifts, histograms, strict=True):
        for index, count in enumerate(part.counts):
            counts[shift + index] += count
    return Histogram(low, width, counts)


@lru_cache(maxsize=4096)
def _name(text: str, longest: int) -> str:
    """`one_line`, of names that come again in thousands of rows."""
    return one_line(text, longest)
