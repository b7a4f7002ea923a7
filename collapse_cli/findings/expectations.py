"""Measured against published numbers and against theory: the entries `[[expect]]` of a configuration, judged.

Pure: rows of `metrics.jsonl` and a configuration's plain tree in, judgements out. Both may come from a run folder that
nobody vouches for, so that every leaf is looked at before it is used, and sizes are bounded before theory is asked.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from collapse_cli import families
from collapse_cli.config.cell import SHORT, cells
from collapse_cli.config.families import MixtureConfig
from collapse_cli.findings import predictions
from collapse_cli.findings.arms import averaged
from collapse_cli.findings.predictions import EVERY, Tree
from collapse_cli.metrics.counting import counted
from collapse_cli.metrics.intervals import Interval, cut, logarithmic, normal, over_seeds
from collapse_cli.records.fields import COORDINATES, finite
from collapse_cli.records.row import Row, by_arm, planned_arms
from collapse_cli.where import Arm

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")
Coordinates = Mapping[str, Any]  # of a cell, by the names in `COORDINATES`
ERRORS = 4.0  # standard errors over seeds that a mean may be off by chance
MOST = 500  # entries that are looked at
LARGEST = 100_000  # points of a grid, dimensions and generations up to which theory is asked; more is damage
NOT_YET, NO_PART, NO_THEORY = "not yet measured", "not part of this run", "no theory says it"


@dataclass(frozen=True)
class Judged:
    """One expectation beside what was measured.

    Attributes:
        what: the field of `metrics.jsonl`.
        where: of which policy and generation, or of which cell: `keep-0, generation 4`, `p2=0.1, n=1000`.
        value: what was published, or what theory says; None where no theory says it.
        kind: whose value it is.
        ours: mean over seeds with its 95% interval; None where it was not run.
        error: its standard error over seeds (over trials where there is one seed with several); None for one seed.
        tolerance: relative, of the value. factor, within: a factor or an absolute difference that stands in its place.
        verdict: inside when |ours - value| is at most tolerance · |value|, or at most `ERRORS` standard errors.
        why: of what is not run: `NOT_YET`, `NO_PART` or `NO_THEORY`, or why theory could not be asked.
        source, note: as the configuration has them.
    """

    what: str
    where: str
    value: float | None
    kind: Literal["published", "theory"]
    ours: Interval | None
    error: float | None
    tolerance: float
    verdict: Literal["inside", "outside", "not run"]
    why: str
    source: str
    note: str
    factor: float | None = None
    within: float | None = None

    @property
    def room(self) -> tuple[float, float]:
        """How far below and above the value a measured one may lie, standard errors aside."""
        size = abs(self.value or 0.0)
        if self.factor is not None:
            return size * (1 - 1 / self.factor), size * (self.factor - 1)
        return (self.within, self.within) if self.within is not None else (self.tolerance * size, self.tolerance * size)

    @property
    def limits(self) -> str:
        """The room in words: `± 10%`, `× or ÷ 3`, `± 10% or 4 standard errors`, where those are the wider."""
        text = f"± {self.tolerance:.2g}" if self.tolerance < 0.001 else f"± {self.tolerance * 100:.3g}%"
        if self.factor is not None:
            text = f"× or ÷ {self.factor:.3g}"
        elif self.within is not None:
            text = f"± {self.within:.3g}"
        wider = self.value is not None and self.error and ERRORS * self.error > min(self.room)
        return f"{text} or {ERRORS:g} standard errors" if wider else text

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return vars(self) | {"ours": None if self.ours is None else self.ours.record()}


def judge(rows: Sequence[Row], tree: Tree) -> list[Judged]:
    """Every entry of `expect` that says what, how near and from where; others are left out.

    Args:
        rows: of one run's `metrics.jsonl`.
        tree: its configuration.
    """
    entries = tree.get("expect")
    judged_entries = []
    for entry in entries[:MOST] if isinstance(entries, list | tuple) else []:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("what"), str) or not entry["what"]:
            continue
        tolerance = finite(entry.get("tolerance", 0.1))
        wrong = entry.get("value") is not None and finite(entry["value"]) is None
        odd = [entry.get("factor"), entry.get("within")]
        wrong = (
            wrong
            or any(limit is not None and (finite(limit) or 0.0) <= 0 for limit in odd)
            or (finite(odd[0]) or 2.0) <= 1
        )
        if tolerance is None or tolerance < 0 or wrong:
            continue
        judged = _cell(entry, tolerance, rows, tree) if is_mixture(tree) else _loop(entry, tolerance, rows, tree)
        if judged is not None:
            judged_entries.append(judged)
    return judged_entries


def theory_at(tree: Tree, what: str, arm: Arm, generation: int) -> float | None:
    """What theory says of a field at a generation: `predictions.predict_loop`, or `predict_lineage`, where the configuration makes sense."""
    if generation > LARGEST:
        return None
    if arm.lineage:
        return finite(_asked(predictions.predict_lineage, tree, what, arm.policy, arm.lineage, generation)[0])
    return finite(_asked(predictions.predict_loop, tree, what, arm.policy, generation)[0])


def theory_of(tree: Tree, record: Coordinates) -> float | None:
    """What theory says of a cell's headline measure: `predictions.predict_cell`; `record` has the cell's coordinates."""
    return finite(
        _asked(predictions.predict_cell, tree, {name: record[name] for name in COORDINATES if name in record})[0]
    )


def law_of(tree: Tree, where: Mapping[str, float]) -> tuple[float | None, float | None]:
    """What theory says of the law of a mixture's error against rows: `predictions.known_law`."""
    known = _asked(predictions.known_law, tree, where)[0]
    return known or (None, None)


def theory_trouble(tree: Tree) -> str:
    """Why theory cannot be asked of an experiment that it has formulas for; "" where it can, or has none."""
    if is_mixture(tree):
        record = next(iter(planned_cells(tree)), None)
        return _asked(predictions.predict_cell, tree, record)[1] if record is not None else ""
    measure = families.headline(learner_of(tree), "generational", "blobs")
    return _asked(predictions.predict_loop, tree, measure.name, "keep-0", 0)[1]


def is_mixture(tree: Tree) -> bool:
    return tree.get("kind") == "mixture"


def learner_of(tree: Tree) -> str:
    """The learner's name; runs older than the choice are of language models."""
    name = tree.get("learner", families.DEFAULT)
    return name if isinstance(name, str) else families.DEFAULT


def family_of(tree: Tree) -> families.Description:
    """What is known of its model family."""
    return families.of(learner_of(tree))


def mean_of(rows: Sequence[Row], what: str) -> tuple[Interval, float | None] | None:
    """Mean over rows, one a seed, with its interval and standard error; None where none has the field.

    Perplexities are means of log-perplexities; ends are cut at what the field cannot be. A single row's error is that over
    trials, where it has one.
    """
    values = [value for row in rows if (value := row.measure(what)) is not None]
    if not values:
        return None
    if len(values) == 1:
        error = rows[0].measure(f"{what}_se") if len(rows) == 1 else None
        error = None if error is None or error < 0 else error
        return cut(what, normal(values[0], error), values), error
    mean = over_seeds(what, values)
    if logarithmic(what) and min(values) > 0:
        return mean, mean.mean * _error([math.log(value) for value in values])
    return mean, _error(values)


def planned_cells(tree: Tree) -> list[dict[str, Any]]:
    """The coordinates of the cells that a configuration asks for; none of one that makes no sense."""
    section = tree.get("mixture")
    if not isinstance(section, Mapping):
        return []
    lists = [entry for entry in section.values() if isinstance(entry, list | tuple)]
    if math.prod(max(1, len(values)) for values in lists) > LARGEST:
        return []
    if any(finite(value) is None or abs(value) > 1e12 for values in lists for value in values):
        return []
    try:
        return [cell.record() for cell in cells(MixtureConfig.model_validate(section))]
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
        return []


def at_cell(named: Mapping[str, Any], record: Coordinates) -> bool:
    """Whether a row, or a cell's coordinates, are of the cell that an expectation names.

    A share is met where it is rounded to whole rows.
    """
    for name, value in named.items():
        there, wanted = finite(record.get(str(name))), finite(value)
        if there is None or wanted is None:
            return False
        room = 0.5 / max(finite(record.get("rows")) or 1.0, 1.0) if name == "share" else 0.0
        if abs(there - wanted) > room * (1 + 1e-9) + 1e-9 * abs(wanted):
            return False
    return True


def _loop(entry: Mapping[str, Any], tolerance: float, rows: Sequence[Row], tree: Tree) -> Judged | None:
    what, generation = entry["what"], finite(entry.get("generation", 0))
    policy, lineage = (entry.get(name) or "" for name in ("policy", "lineage"))
    if generation is None or generation < 0 or not isinstance(policy, str) or not isinstance(lineage, str):
        return None
    loop, arms = tree.get("loop"), by_arm(rows)
    planned = planned_arms(tree)
    arm = next(
        (there for there in (*planned, *arms) if policy in ("", there.policy) and lineage in ("", there.lineage)),
        Arm(policy, lineage),
    )  # what an entry does not name is the first there is
    g = int(generation)
    own: Sequence[Row] = arms.get(arm, [])
    if lineage == EVERY:
        beside = [one for one in dict.fromkeys((*planned, *arms)) if policy in ("", one.policy)]
        every = [one for one in beside if one.policy == beside[0].policy]
        arm, own = (
            Arm(every[0].policy if every else policy, EVERY),
            averaged([arms.get(one, []) for one in every], what),
        )
    there = [row for row in own if row.where.generation == g]
    having: dict[int, set[int]] = {}
    for row in own:
        if row.measure(what) is not None:
            having.setdefault(row.where.generation, set()).add(row.where.seed)
    seeds = counted(having)
    among = [row for row in there if row.measure(what) is not None and (seeds is None or row.where.seed in seeds[1])]
    if seeds is not None and len(among) < len(seeds[1]):
        among = []  # some of the seeds that means are over lack it
    last = finite(loop.get("generations")) if isinstance(loop, Mapping) else None
    awaited = (
        (arm in planned or (lineage == EVERY and bool(planned)))
        and last is not None
        and g <= last
        and (not there or any(row.measure(what) is not None for row in there))
    )
    theory = partial(theory_at, tree, what, arm, g)
    of = f"{arm.policy}, mean over lineages" if lineage == EVERY else str(arm)
    return _judged(entry, f"{of}, generation {g}", tolerance, among, theory, NOT_YET if awaited else NO_PART, tree)


def _cell(entry: Mapping[str, Any], tolerance: float, rows: Sequence[Row], tree: Tree) -> Judged:
    what, named = entry["what"], entry.get("cell")
    coordinates = dict(named) if isinstance(named, Mapping) else {}
    there = [row for row in rows if at_cell(coordinates, row.coordinates)]
    records = [row.coordinates for row in there]
    ahead = [record for record in planned_cells(tree) if at_cell(coordinates, record)]
    distinct = {tuple(record.items()): record for record in (*records, *ahead)}
    where = ", ".join(
        f"{_short(str(name))}={value:g}" for name, value in coordinates.items() if finite(value) is not None
    )
    where = where or "the only cell"
    if len(distinct) > 1:
        return _judged(
            entry, where, tolerance, [], lambda: None, f"{len(distinct)} cells fit; `cell` must name one", tree
        )
    own = what == families.headline(learner_of(tree), "mixture").name
    record = next(iter(distinct.values()), None)

    def theory() -> float | None:
        return theory_of(tree, record) if own and record is not None else None

    awaited = bool(ahead) and not there
    return _judged(entry, where, tolerance, there, theory, NOT_YET if awaited else NO_PART, tree)


def _judged(
    entry: Mapping[str, Any],
    where: str,
    tolerance: float,
    rows: Sequence[Row],
    theory: Callable[[], float | None],
    without: str,
    tree: Tree,
) -> Judged:
    published = finite(entry.get("value"))
    value = theory() if published is None else published
    over = mean_of(rows, entry["what"])
    ours, error = over if over is not None else (None, None)
    kind: Literal["published", "theory"] = "theory" if published is None else "published"
    source, note = (str(entry.get(name) or "") for name in ("source", "note"))
    more = {name: finite(entry.get(name)) for name in ("factor", "within")}
    made = Judged(entry["what"], where, value, kind, ours, error, tolerance, "not run", "", source, note, **more)
    if ours is None or value is None:
        return replace(made, why=without if ours is None else theory_trouble(tree) or NO_THEORY)
    room = max(made.room[ours.mean > value], ERRORS * (error or 0.0))
    return replace(made, verdict="inside" if abs(ours.mean - value) <= room * (1 + 1e-12) else "outside")


def _asked(
    formula: Callable[Concatenate[Tree, Arguments], Answer],
    tree: Tree,
    *arguments: Arguments.args,
    **named: Arguments.kwargs,
) -> tuple[Answer | None, str]:
    """What theory says, and why it could not be asked: "" where it could, or where no learner of this kind has formulas.

    A configuration of another version, or a damaged one, is no reason to fail; but that is said, for it is something else
    than that no formula is known.
    """
    trouble = ""
    try:
        if _bounded(tree):
            return formula(tree, *arguments, **named), ""
        trouble = f"theory was not asked: data has dimensions or words beyond {LARGEST:,}"
    except LookupError as error:
        trouble = f"theory cannot read this configuration: it has no {str(error)[:60]}"
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
        trouble = f"theory cannot read this configuration: {str(error)[:100]}"
    return None, trouble if family_of(tree).theory else ""


def _bounded(tree: Tree) -> bool:
    """Whether sizes are such that theory can be worked out in no time; it asks for each dimension, and for each word."""
    data = tree.get("data")
    sources = [data.get(name) for name in ("blobs", "regression")] if isinstance(data, Mapping) else []
    sizes = [source.get("dimensions", 1) for source in sources if isinstance(source, Mapping)]
    words = data.get("zipf") if isinstance(data, Mapping) else None
    sizes += [words.get("vocabulary", 1)] if isinstance(words, Mapping) else []
    return all(finite(size) is not None and size <= LARGEST for size in sizes)


def _error(values: Sequence[float]) -> float:
    n = len(values)
    mean = sum(values) / n
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)


def _short(name: str) -> str:
    return {"rows": "n", "real_rows": "n1", "synthetic_rows": "n2", "share": "p2", **SHORT}.get(name, name[:60])
