"""What models trained on real text, on synthetic text and on mixtures of both say: where synthetic text helps, where it hurts, the best share.

Two questions are kept apart. *Replacing*: of a fixed number of tokens a share is synthetic. *Adding*: synthetic text stands beside all the real text
that there is. All models take equally many optimizer steps, so that nothing is better for having been trained longer.

Cells share random numbers, so they are compared within seeds: log-perplexity = cell + seed + noise (a randomised block design). The noise is
estimated from all cells; a difference whose own scatter over seeds is larger has that instead, and where it is so much larger that it can hardly be the
same noise, with the few degrees of freedom of its own. Intervals hold for all comparisons with real text
alone together (Bonferroni), at 95%.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from collapse_cli.errors import enumerated, how_many
from collapse_cli.findings.check import CheckTable, Remark
from collapse_cli.metrics.intervals import LEVEL, Interval, interval, t_quantile
from collapse_cli.metrics.numbers import factors, percent, prefixed, spread
from collapse_cli.records.fields import finite
from collapse_cli.records.row import Row

NEARLY = 1.05  # times real text alone: where no interval reaches further, no share does much harm
UNLIKE = 0.9  # of the variances of a difference and of all others, the quantile of F from which on they are not pooled
Place = tuple[int, int]  # real and synthetic rows of a cell


@dataclass(frozen=True)
class Effect:
    """Real text with synthetic text against real text alone.

    Attributes:
        amount: the synthetic share of the tokens; or, of what is added, synthetic over real tokens.
        place: of the cell.
        perplexity: over seeds, with its own 95% interval.
        ratio: of the perplexity over that of real text alone, with the interval that holds for all comparisons together; None of real text alone.
    """

    amount: float
    place: Place
    perplexity: Interval
    ratio: Interval | None

    @property
    def sign(self) -> int:
        """1: worse beyond chance; -1: better; 0: not told."""
        if self.ratio is None or self.ratio.low is None or self.ratio.high is None:
            return 0
        return 1 if self.ratio.low > 1 else -1 if self.ratio.high < 1 else 0

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "amount": self.amount,
            "real_rows": self.place[0],
            "synthetic_rows": self.place[1],
            "perplexity": self.perplexity.record(),
            "ratio": None if self.ratio is None else self.ratio.record(),
            "told": self.sign,
        }


@dataclass(frozen=True)
class ShareVerdict:
    """What trained models say.

    Attributes:
        replaced: by share, from 0 on.
        added: by how much is added, from 0 on.
        best: the shares that may be the best one: no other is better beyond chance. Empty where the seeds say nothing.
        seeds: over how many all is.
        comparisons: for how many intervals hold together.
        remarks: in sentences, what can be acted on first.
    """

    replaced: Sequence[Effect]
    added: Sequence[Effect]
    best: Sequence[float]
    seeds: int
    comparisons: int
    remarks: Sequence[Remark]
    tables: Sequence[CheckTable]

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "replaced": [effect.record() for effect in self.replaced],
            "added": [effect.record() for effect in self.added],
            "best": list(self.best),
            "seeds": self.seeds,
            "comparisons": self.comparisons,
        }


def verdict_of(rows: Sequence[Row], about: Mapping[str, Any]) -> ShareVerdict | None:
    """What rows of a check's run say; None where not even real text alone has been measured beside something else.

    Args:
        about: the record of the trained part, as `check.json` has it.
    """
    fixed, base = (number if (number := finite(about.get(name))) is not None else 0.0 for name in ("rows", "added_to"))
    values: dict[Place, dict[int, float]] = {}
    for row in rows:
        real, made, nll = (row.measure(name) for name in ("real_rows", "synthetic_rows", "nll"))
        if real is not None and made is not None and nll is not None:
            values.setdefault((int(real), int(made)), {})[row.where.seed] = nll
    replacing = sorted((place for place in values if sum(place) == fixed), key=lambda place: place[1])
    adding = sorted((place for place in values if place[0] == base), key=lambda place: place[1])
    blocks = _Blocks.of({place: values[place] for place in {*replacing, *adding}})
    if blocks is None:
        return None
    pairs = [(place, line[0]) for line in (replacing, adding) for place in line[1:] if line[0][1] == 0]
    level = 1 - (1 - LEVEL) / max(1, len(pairs))
    replaced = _effects(replacing, blocks, level, of_all=True)
    added = _effects(adding, blocks, level, of_all=False)
    if not replaced and not added:
        return None
    best = _best(blocks, replaced)
    found = ShareVerdict(replaced, added, best, blocks.seeds, len(pairs), (), ())
    return replace(found, remarks=_remarks(found, about), tables=_tables(found, about))


def _effects(line: Sequence[Place], blocks: "_Blocks", level: float, *, of_all: bool) -> list[Effect]:
    """The cells of a question against the first of them, which has no synthetic rows; none where that, or all others, are not measured."""
    if len(line) < 2 or line[0][1]:
        return []
    made = []
    for place in line:
        amount = place[1] / max(1, sum(place) if of_all else place[0])
        ratio = blocks.ratio(place, line[0], level) if place[1] else None
        made.append(Effect(amount, place, blocks.alone(place), ratio))
    return made


@dataclass(frozen=True)
class _Blocks:
    """Log-perplexities of cells, measured at the same seeds.

    Attributes:
        values: by place, the values of the seeds in their order.
        noise: the standard deviation of one value when cell and seed are known; None of one seed, or one cell.
        freedom: of its estimate.
    """

    values: Mapping[Place, Sequence[float]]
    noise: float | None
    freedom: int

    @property
    def seeds(self) -> int:
        return len(next(iter(self.values.values())))

    @staticmethod
    def of(values: Mapping[Place, Mapping[int, float]]) -> "_Blocks | None":
        """Of the seeds at which all cells were measured; None without one."""
        common = sorted(set.intersection(*(set(by_seed) for by_seed in values.values()))) if values else []
        if not common or len(values) < 2:
            return None
        table = {place: [by_seed[seed] for seed in common] for place, by_seed in values.items()}
        if len(common) < 2:
            return _Blocks(table, None, 0)
        return _Blocks(table, *_noise(table))

    def alone(self, place: Place) -> Interval:
        """The perplexity of a cell, with an interval of its own."""
        return interval(self.values[place]).within(_exp)

    def difference(self, first: Place, second: Place, level: float) -> Interval:
        """Of log-perplexities, the first minus the second."""
        each = [a - b for a, b in zip(self.values[first], self.values[second], strict=True)]
        mean, n = math.fsum(each) / len(each), len(each)
        if self.noise is None:
            return Interval(mean, None, None, n)
        own = math.fsum((value - mean) ** 2 for value in each) / (n - 1)
        others, freedom = _noise({place: line for place, line in self.values.items() if place not in (first, second)})
        if freedom and own > 2 * others**2 * _f_quantile(
            n - 1, freedom, UNLIKE
        ):  # these two scatter more than the others do
            half = t_quantile(n - 1, (1 + level) / 2) * math.sqrt(own / n)
        else:
            half = t_quantile(self.freedom, (1 + level) / 2) * math.sqrt(max(own, 2 * self.noise**2) / n)
        return Interval(mean, mean - half, mean + half, n)

    def ratio(self, first: Place, second: Place, level: float) -> Interval:
        return self.difference(first, second, level).within(_exp)


def _noise(table: Mapping[Place, Sequence[float]]) -> tuple[float, int]:
    """The standard deviation of a value when its cell and its seed are known, and the degrees of freedom of that; 0 of them: it is not known."""
    m = len(table)
    if m < 2:
        return 0.0, 0
    n = len(next(iter(table.values())))
    cell = {place: math.fsum(line) / n for place, line in table.items()}
    seed = [math.fsum(line[at] for line in table.values()) / m for at in range(n)]
    whole = math.fsum(seed) / n
    squares = math.fsum(
        (line[at] - cell[place] - seed[at] + whole) ** 2 for place, line in table.items() for at in range(n)
    )
    return math.sqrt(squares / ((n - 1) * (m - 1))), (n - 1) * (m - 1)


def _f_quantile(first: float, second: float, probability: float) -> float:
    from scipy.special import fdtri

    return float(fdtri(first, second, probability))


def _best(blocks: _Blocks, replaced: Sequence[Effect]) -> list[float]:
    """The shares that no other is better than, beyond chance; all pairs together are allowed one error in twenty."""
    if blocks.noise is None or len(replaced) < 2:
        return []
    level = 1 - (1 - LEVEL) / len(list(combinations(replaced, 2)))
    kept = []
    for one in replaced:
        others = (blocks.difference(one.place, other.place, level) for other in replaced if other is not one)
        if not any(over.low is not None and over.low > 0 for over in others):
            kept.append(one.amount)
    return kept


def _remarks(found: ShareVerdict, about: Mapping[str, Any]) -> list[Remark]:
    if found.seeds < 2:
        return _of_one_seed(found)
    return [*_replaced(found), *_best_said(found), *_added(found), _how(found, about)]


def _of_one_seed(found: ShareVerdict) -> list[Remark]:
    parts = [
        f"{factors(effect.ratio)[0]} at {percent(effect.amount)}"
        for effect in found.replaced
        if effect.ratio is not None
    ]
    parts += [
        f"{factors(effect.ratio)[0]} with {percent(effect.amount)} added"
        for effect in found.added
        if effect.ratio is not None
    ]
    return [
        Remark(
            "plain",
            f"One seed allows no verdict: what differs may be chance. Perplexity on held-out real text, against real text alone: {', '.join(parts)}.",
        )
    ]


def _replaced(found: ShareVerdict) -> list[Remark]:
    tried = [effect for effect in found.replaced if effect.ratio is not None]
    if not tried:
        return []
    worse, better = ([effect for effect in tried if effect.sign == sign] for sign in (1, -1))
    said = []
    if len(worse) == len(tried):
        first, last = worse[0], worse[-1]
        more = f", and by {_change(last)} at {percent(last.amount)}" if last is not first else ""
        said.append(
            Remark(
                "bad",
                f"At equal tokens, replacing real text by this synthetic text hurts at every share that was tried: perplexity on held-out real text rises by "
                f"{_change(first)} at {percent(first.amount)}{more}.",
            )
        )
        return said
    if worse:
        first, last = worse[0], worse[-1]
        more = f"; replacing {percent(last.amount)} raises it by {_change(last)}" if last is not first else ""
        said.append(
            Remark(
                "bad",
                f"At equal tokens, replacing {percent(first.amount)} of the real text by this synthetic text raises perplexity on held-out real text by {_change(first)}{more}.",
            )
        )
    if better:
        best = min(better, key=lambda effect: effect.ratio.mean if effect.ratio else 1.0)
        shares = _shares([effect.amount for effect in better])
        said.append(
            Remark(
                "good",
                f"At equal tokens, replacing real text by this synthetic text helps at {shares}: perplexity on held-out real text falls by {_change(best)} at {percent(best.amount)}.",
            )
        )
    open_ones = [effect for effect in tried if effect.sign == 0]
    if open_ones:
        low = min(effect.ratio.low for effect in open_ones if effect.ratio and effect.ratio.low is not None)
        high = max(effect.ratio.high for effect in open_ones if effect.ratio and effect.ratio.high is not None)
        everything = len(open_ones) == len(tried)
        where = (
            "At equal tokens, replacing real text by this synthetic text is not shown to help or to hurt at any share that was tried"
            if everything
            else (f"Replacing {_shares([effect.amount for effect in open_ones])} is not shown to help or to hurt")
        )
        said.append(
            Remark(
                "good" if everything and high <= NEARLY else "plain",
                f"{where}: the change of perplexity lies between {_signed(low)} and {_signed(high)}.",
            )
        )
    return said


def _best_said(found: ShareVerdict) -> list[Remark]:
    shares = [effect.amount for effect in found.replaced]
    if len(shares) < 2:
        return []
    if len(found.best) == len(shares):
        return [
            Remark(
                "plain",
                f"Which share of synthetic text is best, {how_many(found.seeds, 'seed')} do not allow to say: no share that was tried is worse than another beyond chance.",
            )
        ]
    places = [shares.index(share) for share in found.best]
    together = places == list(range(places[0], places[0] + len(places))) if places else False
    if len(places) == 1:
        return [Remark("plain", f"Best share of synthetic text, of those that were tried: {percent(found.best[0])}.")]
    said = f"{percent(found.best[0])} to {percent(found.best[-1])}" if together else _shares(found.best)
    return [
        Remark(
            "plain",
            f"Best share of synthetic text: {said}; between these, {found.seeds} seeds do not allow to choose, and the other shares that were tried are worse than one of them.",
        )
    ]


def _added(found: ShareVerdict) -> list[Remark]:
    said = []
    for effect in found.added:
        if effect.ratio is None:
            continue
        how = (
            f"Adding {percent(effect.amount)} as much synthetic text to the real text"
            if effect.amount != 1
            else "Adding as much synthetic text as there is real text"
        )
        if effect.sign:
            verb, tone = ("raises", "bad") if effect.sign > 0 else ("lowers", "good")
            said.append(
                Remark(
                    tone, f"{how} {verb} perplexity on held-out real text by {_change(effect)}, at equally many steps."
                )
            )
        else:
            _, ends = factors(effect.ratio)
            said.append(
                Remark(
                    "plain",
                    f"{how} is not shown to help or to hurt, at equally many steps: {factors(effect.ratio)[0]} ({ends}).",
                )
            )
    return said


def _how(found: ShareVerdict, about: Mapping[str, Any]) -> Remark:
    rows, block, steps, batch = (finite(about.get(name)) or 0.0 for name in ("rows", "block", "steps", "batch"))
    parameters = prefixed(finite(about.get("parameters")) or 0.0)
    model = (
        f"a model of {parameters} parameters, trained from scratch"
        if about.get("from_scratch")
        else f"{str(about.get('model'))[:100]}, fine-tuned"
    )
    return Remark(
        "plain",
        f"All of this is of {model}: {rows * block:,.0f} tokens to replace, {steps:,.0f} steps of {batch * block:,.0f} tokens, {how_many(found.seeds, 'seed')}; "
        f"95% intervals that hold for all {found.comparisons} comparisons together where all models scatter alike over seeds. They are over seeds, which share these rows: other rows of the same sources can differ by more, most of all where texts are short. Another model may take other amounts: --model trains the one you use.",
    )


def _tables(found: ShareVerdict, about: Mapping[str, Any]) -> list[CheckTable]:
    tables = []
    base = finite(about.get("added_to")) or 0.0
    block = finite(about.get("block")) or 0.0
    for effects, title, head in (
        (found.replaced, "Replacing real text, at equal tokens", "synthetic share"),
        (found.added, f"Adding to {base * block:,.0f} tokens of real text, at equally many steps", "synthetic to real"),
    ):
        rows = []
        for effect in effects:
            change, told = "–", ""
            if effect.ratio is not None:
                mean, ends = factors(effect.ratio)
                change, told = (
                    f"{mean} ({ends})" if ends else mean,
                    {1: "hurts", -1: "helps", 0: "not told"}[effect.sign],
                )
            rows.append([percent(effect.amount), spread(effect.perplexity), change, told])
        if rows:
            tables.append(
                CheckTable(
                    title,
                    [head, "perplexity", "against real text alone", ""],
                    rows,
                    f"Means over {how_many(found.seeds, 'seed')}; perplexities with 95% intervals of their own, changes with intervals that hold for all "
                    f"{found.comparisons} comparisons together. All models take equally many steps.",
                )
            )
    return tables


def _change(effect: Effect) -> str:
    """By how much perplexity rises or falls, with the interval: `3% (2% to 5%)`, or from twice on `a factor of 2.4 (2.1 to 2.7)`."""
    assert effect.ratio is not None
    mean, ends = factors(effect.ratio)
    if mean.startswith("×"):
        return f"a factor of {mean.removeprefix('×')} ({ends.replace('×', '')})"
    plain = mean.lstrip("+-")
    low, _, high = ends.partition(" to ")
    if effect.ratio.mean < 1:  # a fall: both ends turned round
        low, high = high, low
    return f"{plain} ({low.lstrip('+-')} to {high.lstrip('+-')})" if high else plain


def _signed(ratio: float) -> str:
    return factors(Interval(ratio, None, None, 1))[0] if abs(ratio - 1) >= 0.005 else f"{ratio - 1:+.1%}"


def _shares(shares: Sequence[float]) -> str:
    return enumerated([percent(share) for share in shares])


def _exp(value: float) -> float:
    return math.exp(min(max(value, -700.0), 700.0))
