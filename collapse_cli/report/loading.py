"""Run folders as the report reads them: every field is looked at, and what cannot be read is left out and said."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from collapse_cli import families
from collapse_cli.engine import sealed
from collapse_cli.families import Description, headline
from collapse_cli.findings.diagnosis import counted
from collapse_cli.findings.expectations import COORDINATES, is_mixture, learner_of, planned_cells
from collapse_cli.metrics.intervals import Interval, normal, over_seeds
from collapse_cli.records.rundir import RunFolder
from collapse_cli.report.generated_images import Pictures
from collapse_cli.report.text import one_line

NUMBERS = families.NUMBERS | set(COORDINATES)  # fields of which anything but a finite number is damage
Row = dict[str, Any]
LISTS = {
    "nll_by_decile": 10,
    "tokens_by_decile": 10,
    "nll_change_by_decile": 10,
    "nll_change_by_decile_se": 10,
    "recall_by_decile": 10,
    "sample_log_perplexity_quantiles": 99,
}
WORDS = {"policy", "model_key", "model_dir"}
LARGEST = 1e300
BINS = 20_000  # of one histogram; more is damage
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
        if self.mixture:
            seeds = loop.get("seeds")
            return len(planned_cells(self.config)) * (len(seeds) if isinstance(seeds, list) else 1)
        generations = number(loop.get("generations"))
        each = [len(names) for name in ("policies", "seeds") if isinstance(names := loop.get(name), list)]
        return int(generations + 1) * math.prod(each) if generations is not None and len(each) == 2 else len(self.rows)

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
    """One policy of one run: what a line in a plot shows."""

    index: int
    run: Run
    policy: str
    run_index: int
    policy_index: int
    label: str
    rows: Sequence[Row]
    colour: int
    """Its policy's, in all runs; its run's, where all runs have one policy and it the same."""

    @cached_property
    def generations(self) -> list[int]:
        return sorted({row["generation"] for row in self.rows})

    @cached_property
    def seeds(self) -> list[int]:
        return sorted({row["seed"] for row in self.rows})

    @cached_property
    def counted(self) -> list[int]:
        """The seeds that means are over: as the diagnosis, those with generation 0 and the last one it looks at."""
        name = "nll" if self.run.text else headline(self.run.learner, "generational").name
        having: dict[int, set[int]] = {}
        for row in self.rows:
            if name in row:
                having.setdefault(row["generation"], set()).add(row["seed"])
        found = counted(dict(sorted(having.items())))
        return self.seeds if found is None else found[1]

    @cached_property
    def shown(self) -> set[int]:
        """The generations that lines are drawn through; the last one of every seed is among them."""
        ends = {max(row["generation"] for row in self.rows if row["seed"] == seed) for seed in self.seeds}
        return set(thinned(self.generations)) | ends

    @cached_property
    def _drawn(self) -> list[Row]:
        return [row for row in self.rows if row["generation"] in self.shown]

    def at(self, generation: int) -> list[Row]:
        """The rows of a generation, by seed."""
        return sorted((row for row in self.rows if row["generation"] == generation), key=lambda row: row["seed"])

    def by_seed(self, name: str, part: int | None = None) -> dict[int, dict[int, float]]:
        """Values of a field: seed -> generation (of those `shown`) -> value; `part` picks one of a field that is a list."""
        found: dict[int, dict[int, float]] = {}
        for row in self._drawn:
            value = row.get(name)
            if part is not None:
                value = value[part] if value is not None else None
            if value is not None:
                found.setdefault(row["seed"], {})[row["generation"]] = value
        return {seed: dict(sorted(found[seed].items())) for seed in sorted(found)}

    def means(self, name: str, part: int | None = None) -> dict[int, Interval]:
        """Generation -> mean over the `counted` seeds with its interval, where all that have the field at all have it."""
        found = {seed: values for seed, values in self.by_seed(name, part).items() if seed in self.counted}
        shared = [set(values) for values in found.values()]
        there = sorted(set.intersection(*shared)) if shared else []
        if len(found) == 1 and part is None:  # one seed: what its trials say, where it has several
            (seed,) = found
            errors = {row["generation"]: row.get(f"{name}_se") for row in self._drawn if row["seed"] == seed}
            if not self.run.text and any(errors.get(g) is not None for g in there):
                return {g: normal(found[seed][g], errors.get(g)) for g in there}
        return {g: over_seeds(name, [values[g] for values in found.values()]) for g in there}


def read(folders: Sequence[RunFolder]) -> list[Run]:
    """Runs as they are on disk now.

    Raises:
        ConfigError: for a run that does not exist or whose record is damaged.
    """
    runs: list[Run] = []
    for folder in folders:
        same = sum(run.name.split(" #")[0] == folder.name for run in runs)
        rows, notes = read_rows(folder.path / "metrics.jsonl")
        events, torn = sealed.of_file(folder.path / "events.jsonl")
        if torn:
            notes.append(f"events.jsonl: lines that could not be read: {torn}")
        name = f"{folder.name} #{same + 1}" if same else folder.name
        run = Run(name, folder.record(), rows, events, notes)
        order = {name: index for index, name in enumerate(_policies(run))}
        rows.sort(key=lambda row: (row["seed"], row["generation"], order[row["policy"]]))
        runs.append(run)
    return runs


def _policies(run: Run) -> list[str]:
    """Those planned, in the configuration's order, then others that rows have."""
    planned = [one_line(name, 60) for name in strings(table(run.config.get("loop")).get("policies"))]
    return list(dict.fromkeys([*planned, *(row["policy"] for row in run.rows)]))


def series_of(runs: Sequence[Run]) -> list[Series]:
    """Every policy of every run; a policy has one colour in all of them, or a run has where there is one policy."""
    single = len(runs) > 1 and len({row["policy"] for run in runs if not run.mixture for row in run.rows}) == 1
    policies: dict[str, int] = {}
    found: list[Series] = []
    for run_index, run in enumerate(runs):
        if run.mixture:
            continue
        there = {row["policy"] for row in run.rows}
        for name in _policies(run):
            if name in there:
                said = name if len(runs) == 1 else f"{run.name} · {name}"
                rows = [row for row in run.rows if row["policy"] == name]
                index = policies.setdefault(name, len(policies))
                colour = run_index if single else index
                found.append(Series(len(found), run, name, run_index, index, one_line(said), rows, colour))
    return found


def thinned(generations: Sequence[int], most: int = GENERATIONS) -> list[int]:
    """At most about `most` of them: the ends, a third spaced evenly in logarithms, the rest evenly."""
    if len(generations) <= most:
        return list(generations)
    last = len(generations) - 1
    even = {round(last * index / (2 * most // 3)) for index in range(2 * most // 3 + 1)}
    steps = most - len(even)
    chosen = even | {round(math.expm1(math.log1p(last) * index / steps)) for index in range(steps)}
    return [generations[index] for index in sorted(chosen)]


def read_rows(file: Path) -> tuple[list[Row], list[str]]:
    """The rows of a metrics.jsonl that say which policy, seed and generation they are of, each field checked."""
    lines, torn = sealed.of_file(file)
    skipped: Counter[str] = Counter()
    rows: dict[tuple[str, int, int], Row] = {}
    lost = 0
    for line in lines:
        policy, seed, generation = line.get("policy"), _count(line.get("seed")), _count(line.get("generation"))
        if not isinstance(policy, str) or seed is None or generation is None or generation > LAST:
            lost += 1
            continue
        longest = 60 if "share" not in line else 160  # cells of a mixture have long names
        row: Row = {"policy": _name(policy, longest), "seed": seed, "generation": generation}
        for name, value in line.items():
            if name in row or value is None:
                continue
            if type(value) is float and name in NUMBERS and -LARGEST < value < LARGEST:
                row[name] = value  # nearly all fields of long runs
                continue
            if (clean := _field(name, value)) is None:
                skipped[name] += 1
            else:
                row[name] = clean
        if "nll" not in row and row.get("perplexity", 0.0) > 0:
            row["nll"] = math.log(row["perplexity"])
        rows.setdefault((row["policy"], seed, generation), row)
    notes = [f"metrics.jsonl: lines that could not be read: {torn}"] if torn else []
    if lost:
        notes.append(f"metrics.jsonl: rows without a possible policy, seed and generation: {lost}")
    notes += [
        f"metrics.jsonl: rows with a malformed {one_line(name)}, which is left out: {n}" for name, n in skipped.items()
    ]
    return list(rows.values()), notes


def number(value: object) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST:
        # the largest float stands for an overflowing perplexity; no plot can hold it
        return None
    return float(value)


def table(value: object) -> Mapping[str, Any]:
    """A JSON object, or an empty one."""
    return value if isinstance(value, dict) else {}


def strings(value: object) -> list[str]:
    """The texts of a list."""
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


@dataclass(frozen=True)
class Histogram:
    """Counts of per-sample log-perplexity; bin i spans low + i * width to low + (i + 1) * width, in nats/token."""

    low: float
    width: float
    counts: list[float] = field(default_factory=list)


def pooled(rows: Sequence[Row]) -> Histogram | None:
    """The histograms of several seeds as one; those with another bin width than the first are left out."""
    found = [row["sample_histogram"] for row in rows if "sample_histogram" in row]
    found = [one for one in found if math.isclose(one.width, found[0].width, rel_tol=1e-6)]
    if not found:
        return None
    width = found[0].width
    low = min(one.low for one in found)
    shifts = [round((one.low - low) / width) for one in found]
    size = max(shift + len(one.counts) for shift, one in zip(shifts, found, strict=True))
    if size > BINS:
        return None
    counts = [0.0] * size
    for shift, one in zip(shifts, found, strict=True):
        for index, count in enumerate(one.counts):
            counts[shift + index] += count
    return Histogram(low, width, counts)


def _field(name: str, value: Any) -> Any:
    """A field's value when it is what it should be, else None."""
    match name:
        case _ if name in WORDS:
            return value if isinstance(value, str) else None
        case _ if name in LISTS:
            return _numbers(value, LISTS[name])
        case "warnings":
            good = isinstance(value, list) and all(isinstance(one, str) for one in value)
            return value if good else None
        case "sample_histogram":
            return _histogram(value)
        case "examples" | "top_8grams":
            return list(_texts(name, value)) if isinstance(value, list) else None
        case "pictures":
            return Pictures.read(value)
        case "seconds":
            times = {_name(stage): number(taken) for stage, taken in table(value).items()}
            return {stage: taken for stage, taken in times.items() if taken is not None} or None
        case "protocol" | "epoch_losses":
            return value if isinstance(value, dict | list) else None
    return number(value) if name in NUMBERS else value  # a field this version does not know is not shown


@lru_cache(maxsize=4096)
def _name(text: str, longest: int = 120) -> str:
    """`one_line`, of names that come again in thousands of rows."""
    return one_line(text, longest)


def _numbers(value: Any, size: int) -> list[float | None] | None:
    if not isinstance(value, list) or len(value) != size:
        return None
    if any(one is not None and number(one) is None for one in value):
        return None
    return [number(one) for one in value]


def _histogram(value: Any) -> Histogram | None:
    said = table(value)
    low, width, counts = number(said.get("low")), number(said.get("width")), said.get("counts")
    if low is None or width is None or width <= 0 or not isinstance(counts, list) or len(counts) > BINS:
        return None
    clean = [number(count) for count in counts]
    if not clean or any(count is None or count < 0 for count in clean) or not any(clean):
        return None
    return Histogram(low, width, [count for count in clean if count is not None])


def _texts(name: str, value: list[Any]) -> Iterator[dict[str, Any]]:
    for one in value:
        said = table(one)
        if not isinstance(said.get("text"), str):
            continue
        if name == "examples":
            prompt = said.get("prompt")
            yield {"row": said.get("row"), "prompt": prompt if isinstance(prompt, str) else "", "text": said["text"]}
        elif (count := number(said.get("count"))) is not None:
            yield {"text": said["text"], "count": count, "samples": number(said.get("samples"))}


def _count(value: object) -> int | None:
    """A seed or a generation: a whole number that is not absurd."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None
