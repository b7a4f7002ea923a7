"""Early and late collapse, called by stated rules from rows of `metrics.jsonl`.

Each rule looks at a 95% interval, never at a number alone, and must hold at two successive generations: with up to
nine looks at a run, one look would be wrong too often. Formulas, reasons and error rates: docs/metrics.md, "Calls".

- early collapse (Shumailov et al., Nature 2024: the tails go first): the tail deciles' loss has risen by more than
  `MARGIN`, by more than the head deciles' has, and the head's is not shown to have risen by more than `MARGIN`;
- general loss: tail and head are both shown to have risen by more than `MARGIN`;
- late collapse (ibid.: a distribution unlike the original, often of much less variance): the entropy of the samples' tokens, or
  the variance of the samples' log-perplexity under generation 0, is below a stated share of generation 0's.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from collapse_cli.metrics.intervals import LEVEL, Interval, interval, scattered
from collapse_cli.records.row import Row

MARGIN = 0.05  # nats/token, 5% of perplexity: models trained on the same real text differ by as much by chance
ENTROPY_SHARE = 0.75  # at 5.5 nats: an effective vocabulary, exp(entropy), of 62 words instead of 245
VARIANCE_SHARE = 0.5
IN_A_ROW = 2  # generations at which a rule must hold
Generations = Mapping[int, Mapping[int, Row]]  # generation -> seed -> row
Estimate = tuple[float, float | None]  # with its standard error over rows


@dataclass(frozen=True)
class Evidence:
    """A statistic at a generation, against generation 0.

    Attributes:
        statistic: `tail_change`, `head_change`, `tail_minus_head` (nats/token), or `unigram_entropy`,
            `sample_log_perplexity_variance` (as a share of generation 0's).
        threshold: what the rule compares the interval with.
        units: what the interval is over: "3 seeds", or, of one seed, "test rows and generations of one seed" or
            "samples and generations of one seed".
    """

    generation: int
    statistic: str
    interval: Interval
    threshold: float
    units: str

    @property
    def above(self) -> bool:
        """Whether the whole interval is above the threshold."""
        return self.interval.low is not None and self.interval.low > self.threshold

    @property
    def below(self) -> bool:
        return self.interval.high is not None and self.interval.high < self.threshold

    def record(self) -> dict[str, Any]:
        record = {"generation": self.generation, "statistic": self.statistic, "units": self.units}
        return record | self.interval.record() | {"threshold": self.threshold}


@dataclass(frozen=True)
class Call:
    """Whether a rule holds.

    Attributes:
        kind: `early`, `general` or `late`.
        generation: the first of the generations in a row at which it holds; None when it is not called.
        suspected: the last generation, when the rule holds there and not yet long enough; else None.
        evidence: the statistics at `generation`; when it is not called, at the last generation measured.
        text: all of that in a line.
    """

    kind: str
    generation: int | None
    suspected: int | None
    evidence: tuple[Evidence, ...]
    text: str

    @property
    def called(self) -> bool:
        return self.generation is not None

    def record(self) -> dict[str, Any]:
        record = {"called": self.called, "generation": self.generation, "suspected": self.suspected, "text": self.text}
        return record | {"level": LEVEL, "evidence": [entry.record() for entry in self.evidence]}


def early(series: Generations, kind: str) -> Call:
    """Early collapse, or general loss, from the losses of head and tail deciles."""
    tails = _over(series, "tail_change", lambda row: _part(row, "tail"), MARGIN)
    heads = _over(series, "head_change", lambda row: _part(row, "head"), MARGIN)
    gaps = _over(series, "tail_minus_head", _gap, 0.0)
    evidence = {step: (tails[step], heads[step], gaps[step]) for step in gaps}
    names = {"early": "early collapse", "general": "general loss"}
    if not evidence:
        why = "the rows hold no losses by decile" if max(series) else "generation 0 is all there is"
        return Call(kind, None, None, (), f"{names[kind]} was not measured: {why}")
    holds = {
        step: tail.above and (head.above if kind == "general" else gap.above and not head.above)
        for step, (tail, head, gap) in evidence.items()
    }
    return _call(
        kind,
        names[kind],
        holds,
        evidence,
        lambda entries: f"tail deciles {_nats(entries[0])}, head {_nats(entries[1])}",
    )


def late(series: Generations) -> Call:
    """Late collapse, from the entropy of the samples' tokens and the variance of their log-perplexity."""
    rules = {"unigram_entropy": ENTROPY_SHARE, "sample_log_perplexity_variance": VARIANCE_SHARE}
    each = {}
    for name, threshold in rules.items():
        read = partial(_share, first=series[0], name=name)
        each[name] = _over(series, name, read, threshold, start=1.0, rows="samples")
    evidence = {
        step: tuple(entries[step] for entries in each.values() if step in entries)
        for step in sorted(set().union(*each.values()))
    }
    if not evidence:
        why = "the rows hold no measures of samples" if max(series) else "generation 0 is all there is"
        return Call("late", None, None, (), f"late collapse was not measured: {why}")
    calls = []
    for entries in each.values():  # the same statistic must hold in a row, not one and then the other
        holds = {step: step in entries and entries[step].below for step in evidence}
        calls.append(_call("late", "late collapse", holds, evidence, lambda entries: ", ".join(map(_shares, entries))))
    called = [call for call in calls if call.generation is not None]
    if called:
        return min(called, key=lambda call: call.generation or 0)
    return next((call for call in calls if call.suspected is not None), calls[0])


def _call(
    kind: str,
    name: str,
    holds: Mapping[int, bool],
    evidence: Mapping[int, tuple[Evidence, ...]],
    say: Callable[[tuple[Evidence, ...]], str],
) -> Call:
    """A rule over generations: called at the first from which it holds `IN_A_ROW` times."""
    steps = sorted(holds)
    last = steps[-1]
    runs = zip(*(steps[offset:] for offset in range(IN_A_ROW)), strict=False)
    first = next((run[0] for run in runs if all(holds[step] for step in run)), None)
    shown = evidence[last if first is None else first]
    over = f"over {shown[0].units}"
    if first is not None:
        return Call(kind, first, None, shown, f"{name} from generation {first}: {say(shown)}, {over}")
    if holds[last]:
        text = f"{name} is not called yet: its rule holds at generation {last}, the last; it must hold twice in a row"
        return Call(kind, None, last, shown, f"{text} ({say(shown)}, {over})")
    if all(entry.interval.low is None for entry in shown):
        return Call(kind, None, None, shown, f"{name} cannot be called: its statistics have no interval")
    return Call(kind, None, None, shown, f"no {name} by generation {last}: {say(shown)}, {over}")


# --- statistics -------------------------------------------------------------------------------------------------------


def _over(
    series: Generations,
    name: str,
    read: Callable[[Row], Estimate | None],
    threshold: float,
    *,
    start: float = 0.0,
    rows: str = "test rows",
) -> dict[int, Evidence]:
    """A statistic by generation: with several seeds their t interval, with one an interval from its standard error.

    Over rows alone that would be too narrow: models of the same corpus differ by the chance of their training, and what
    chance does to one is inherited by the next. So the scatter between one seed's generations is added, which grows with
    the square root of the generation.

    Args:
        start: the statistic's value at generation 0, where it compares a model with itself.
    """
    values = {
        step: [value for value in map(read, by_seed.values()) if value is not None]
        for step, by_seed in series.items()
        if step > 0
    }
    single = {step: estimates[0] for step, estimates in values.items() if len(estimates) == 1}
    scatter, freedom = _scatter([start, *(single[step][0] for step in sorted(single))])
    evidence = {}
    for step, estimates in values.items():
        if len(estimates) > 1:
            over, units = interval([value for value, _ in estimates]), f"{len(estimates)} seeds"
        elif estimates:
            over, units = (
                scattered(*estimates[0], scatter * math.sqrt(step), freedom),
                f"{rows} and generations of one seed",
            )
        else:
            continue
        evidence[step] = Evidence(step, name, over, threshold, units)
    return evidence


def _scatter(values: Sequence[float]) -> tuple[float, int]:
    """Standard deviation of what chance adds in a generation around a smooth course, and degrees of freedom.

    Chance is taken to be inherited, a random walk: second differences, which leave out any straight course, then have twice
    a step's variance, and a difference from generation 0 has as many times it as there are generations. Where each model is
    off by itself that is rather too large. Their median size is taken, over that of the normal distribution (0.6745), because
    a sudden step is a finding and no scatter. A course that bends throughout makes it too large: calls come later then.
    """
    bends = [
        abs(before - 2 * here + after) for before, here, after in zip(values, values[1:], values[2:], strict=False)
    ]
    return median(bends) / 0.6745 / math.sqrt(2) if bends else 0.0, len(bends)


def _part(row: Row, part: str) -> Estimate | None:
    change = row.measure(f"{part}_change")
    return None if change is None else (change, row.measure(f"{part}_change_se"))


def _gap(row: Row) -> Estimate | None:
    """How much more the tail has lost than the head.

    Its standard error is taken as if the two were independent; rows on which a model does worse raise both, so it is
    rather too large.
    """
    tail, head = _part(row, "tail"), _part(row, "head")
    if tail is None or head is None:
        return None
    errors = tail[1], head[1]
    return tail[0] - head[0], None if errors[0] is None or errors[1] is None else math.hypot(errors[0], errors[1])


def _share(row: Row, first: Mapping[int, Row], name: str) -> Estimate | None:
    """A measure as a share of generation 0's, and its standard error (delta method, independent samples)."""
    start = first[row.where.seed]
    now, before = row.measure(name), start.measure(name)
    if now is None or before is None or before <= 0:
        return None
    errors = row.measure(f"{name}_se"), start.measure(f"{name}_se")
    share = now / before
    if errors[0] is None or errors[1] is None:
        return share, None
    return share, math.hypot(errors[0], share * errors[1]) / before


# --- words ------------------------------------------------------------------------------------------------------------


def _nats(entry: Evidence) -> str:
    """`+0.36 nats/token (95% interval +0.32 to +0.40)`."""
    return _with_ends(f"{entry.interval.mean:+.3f} nats/token", entry.interval, "{:+.3f}")


def _shares(entry: Evidence) -> str:
    """`entropy of samples ×0.72 of generation 0's (95% interval ×0.70 to ×0.74; rule: below ×0.75)`."""
    names = {"unigram_entropy": "entropy", "sample_log_perplexity_variance": "variance of log-perplexity"}
    text = f"{names[entry.statistic]} of samples ×{entry.interval.mean:.2f}"
    return _with_ends(text, entry.interval, "×{:.2f}", f"; rule: below ×{entry.threshold:g}")


def _with_ends(text: str, over: Interval, form: str, rule: str = "") -> str:
    if over.low is None or over.high is None:
        return f"{text} (no interval{rule})"
    return f"{text} ({LEVEL:.0%} interval {form.format(over.low)} to {form.format(over.high)}{rule})"
