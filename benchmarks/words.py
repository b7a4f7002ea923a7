"""How often the words of a verdict are wrong by chance, and how often the intervals hold the truth. docs/metrics.md.

    python benchmarks/words.py             every table, in Markdown (some minutes on one core)
    python benchmarks/words.py --each 200  fewer runs per line

A made-up run has generations 0..9. Each model's log-perplexity is off by chance, so that the log-ratios of seeds have the
standard deviation given; all of that is independent between generations, or inherited from generation to generation.
"""

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from collapse_cli.findings.diagnosis import arms_of
from collapse_cli.findings.diagnosis.mixtures import mixture_verdict
from collapse_cli.findings.forecast.fit import fit_law, steps_of
from collapse_cli.findings.forecast.history import History
from collapse_cli.findings.forecast.laws import LAWS
from collapse_cli.findings.forecast.resample import bootstrap
from collapse_cli.metrics.intervals import LEVEL, Interval, geometric, interval, log_ratio, scattered
from collapse_cli.records.row import Row
from collapse_cli.where import Where

RATIOS = (1.0, 1.1, 1.3, 2.0, 5.0, 20.0)
NOISES = (0.02, 0.1, 0.3)
SEEDS = (1, 2, 3, 5, 10)
LAST = 9
COLLAPSES, LOSES, HOLDS = "collapses", "loses quality", "holds"


def false_word(state: str, ratio: float) -> bool:
    """Whether a word says of a true ratio what is not so; "undecided" and "cannot be judged" never do."""
    return (state == COLLAPSES and ratio <= 2) or (state == LOSES and ratio <= 1) or (state == HOLDS and ratio > 1.2)


def made(
    random: np.random.Generator,
    seeds: int,
    ratio: float,
    noise: float,
    *,
    shape: str = "level",
    policy: str = "keep-0",
    inherited: bool = False,
    instruments: bool = False,
) -> list[Row]:
    """Rows of a run whose perplexity ends at `ratio` times generation 0's but for noise.

    Args:
        shape: `level`: there from generation 1 on; `line`: straight.
        instruments: tail and head losses and measures of samples as well, off by the same chance and nothing else.
    """
    grown = np.array([0.0, *[1.0] * LAST]) if shape == "level" else np.arange(LAST + 1) / LAST
    rows = []
    for seed in range(seeds):
        off = random.standard_normal(LAST + 1)
        off = off.cumsum() / math.sqrt(LAST) if inherited else off / math.sqrt(2)
        parts = random.standard_normal((LAST + 1, 2)) * 0.01
        shares = 1 + 0.05 * random.standard_normal((LAST + 1, 2))
        for g in range(LAST + 1):
            measured = {"nll": float(5 + math.log(ratio) * grown[g] + noise * off[g])}
            if instruments:
                measured |= {
                    "unigram_entropy": 5.5 * shares[g, 0],
                    "sample_log_perplexity_variance": 1.0 * shares[g, 1],
                }
                measured |= {"unigram_entropy_se": 0.02, "sample_log_perplexity_variance_se": 0.07}
                if g:
                    change = noise * (off[g] - off[0])
                    measured |= {"tail_change": change + parts[g, 0], "tail_change_se": 0.01}
                    measured |= {"head_change": change + parts[g, 1], "head_change_se": 0.01}
            rows.append(Row.at(Where(policy, seed, g), measured))
    return rows


def words_table(each: int) -> Iterator[str]:
    """Share of runs with a false word, and the commonest words, by true ratio, noise and number of seeds.

    Of chance that is independent between generations and chance that is inherited the worse one; words are of both.
    """
    yield "| true ratio | noise of seeds | " + " | ".join(f"{n} seed{'s' * (n > 1)}" for n in SEEDS) + " |"
    yield "|---|---|" + "---|" * len(SEEDS)
    random = np.random.Generator(np.random.Philox(12))
    short = {"cannot be judged from one seed": "not judged", "is undecided": "undecided", LOSES: "loses"}
    for ratio in RATIOS:
        for noise in NOISES:
            cells = []
            for seeds in SEEDS:
                found: list[str] = []
                wrong = 0.0
                for inherited in (False, True):
                    how: dict[str, Any] = {"inherited": inherited, "instruments": True}
                    states = [arms_of(made(random, seeds, ratio, noise, **how))[0].state for _ in range(each)]
                    wrong = max(wrong, sum(false_word(state, ratio) for state in states) / each)
                    found += states
                names = sorted(set(found), key=found.count, reverse=True)[:2]
                said = ", ".join(f"{short.get(name, name)} {found.count(name) / len(found):.0%}" for name in names)
                cells.append(f"**{wrong:.1%}** ({said})")
            yield f"| {ratio:g} | {noise:g} | " + " | ".join(cells) + " |"


def trends_table(each: int) -> Iterator[str]:
    """Share of runs that are said to rise, to be level, to fall, where the truth is known."""
    yield "| truth (×5) | noise | chance is | seeds | still rises | has levelled off | falls again | not shown |"
    yield "|---|---|---|---|---|---|---|---|"
    random = np.random.Generator(np.random.Philox(13))
    for shape in ("level", "line"):
        for noise in NOISES:
            for inherited in (False, True):
                for seeds in (1, 3):
                    runs = (made(random, seeds, 5.0, noise, shape=shape, inherited=inherited) for _ in range(each))
                    found = [arms_of(run)[0].trend for run in runs]
                    cells = [f"{found.count(name) / each:.1%}" for name in ("rises", "level", "falls", "")]
                    kind = "inherited" if inherited else "independent"
                    yield f"| {shape} | {noise:g} | {kind} | {seeds} | " + " | ".join(cells) + " |"


def runs_table(each: int) -> Iterator[str]:
    """Any false word, call or pair in a whole run in which nothing changes, chance inherited or not: the worse one each."""
    yield "| policies | noise | seeds | a false word | early, general or late called | two policies told apart | any of these |"
    yield "|---|---|---|---|---|---|---|"
    random = np.random.Generator(np.random.Philox(14))
    for policies in (1, 3, 5):
        for noise in NOISES:
            for seeds in (1, 2, 3, 5):
                counts = np.zeros((2, 4))
                for inherited in (False, True):
                    for _ in range(each):
                        how: dict[str, Any] = {"inherited": inherited, "instruments": True}
                        runs = [made(random, seeds, 1.0, noise, policy=f"keep-{p}", **how) for p in range(policies)]
                        counts[int(inherited)] += _false(runs)
                said = " | ".join(f"{count / each:.1%}" for count in counts.max(axis=0))
                yield f"| {policies} | {noise:g} | {seeds} | {said} |"


def _false(runs: Sequence[list[Row]]) -> tuple[bool, bool, bool, bool]:
    """Whether a word, a call, a pair or any of these is false of policies in which nothing changes."""
    found = arms_of([row for run in runs for row in run])
    word = any(one.state in (COLLAPSES, LOSES) for one in found)
    call = any(c.called for one in found for c in one.calls.values())
    several = len(found[0].seeds) > 1
    pair = several and any(told_apart(a, b, math.comb(len(runs), 2)) for a, b in combinations(runs, 2))
    return word, call, pair, word or call or pair


def told_apart(first: Sequence[Row], second: Sequence[Row], pairs: int) -> bool:
    """As `collapse compare` tells two policies apart at the last generation."""
    last = [(a.nll, b.nll) for a, b in zip(first, second, strict=True) if a.where.generation == LAST]
    logs = [a - b for a, b in last if a is not None and b is not None]
    over = log_ratio(logs, 1 - (1 - LEVEL) / pairs)
    return over.low is not None and over.high is not None and not over.low <= 0 <= over.high


def coverage_table(each: int) -> Iterator[str]:
    """How often 95% intervals hold the truth, by number of seeds."""
    yield "| interval | noise | " + " | ".join(f"{n} seeds" for n in SEEDS[1:]) + " |"
    yield "|---|---|" + "---|" * (len(SEEDS) - 1)
    random = np.random.Generator(np.random.Philox(15))
    kinds: dict[str, tuple[Callable[[np.ndarray], Interval], float]] = {
        "t over seeds (`interval`)": (lambda x: interval(list(x)), 0.0),
        "perplexity (`geometric`), of its geometric mean": (lambda x: geometric([math.exp(v) for v in x]), 1.0),
        "ratio to generation 0, pair of policies (`log_ratio`)": (lambda x: log_ratio(list(x)), 0.0),
        "linear t over perplexities, as before": (lambda x: interval([math.exp(v) for v in x]), 1.0),
    }
    for name, (make, truth) in kinds.items():
        for noise in (*NOISES, 1.0):
            cells = []
            for seeds in SEEDS[1:]:
                middle = math.exp(noise**2 / 2) if "as before" in name else truth  # its mean is the arithmetic one
                overs = (make(noise * random.standard_normal(seeds)) for _ in range(10 * each))
                inside = [
                    over.low is not None and over.high is not None and over.low <= middle <= over.high for over in overs
                ]
                cells.append(f"{np.mean(inside):.1%}")
            yield f"| {name} | {noise:g} | " + " | ".join(cells) + " |"
    for freedom, inherited in ((3, False), (3, True), (8, False), (8, True)):  # as `rules._over` of one seed
        inside, last = [], freedom + 1
        for _ in range(10 * each):
            off = random.standard_normal(last + 1)
            values = 0.1 * (off.cumsum() / math.sqrt(last) if inherited else off / math.sqrt(2))
            step = float(np.median(np.abs(np.diff(values, 2)))) / 0.6745 / math.sqrt(2)
            over = scattered(float(values[-1] - values[0]), 0.01, step * math.sqrt(last), freedom)
            inside.append(over.low is not None and over.high is not None and over.low <= 0 <= over.high)
        chance = "inherited" if inherited else "independent"
        said = f"one seed's change (`scattered`), generation {last}, chance {chance}"
        yield f"| {said} | 0.1 | {np.mean(inside):.1%} (one seed) |" + " – |" * (len(SEEDS) - 2)


def parameters_table(each: int) -> Iterator[str]:
    """How often the 90% intervals of a forecast's a and of a line's b hold the truth: generations 0..9, inherited noise."""
    several = SEEDS[1:]
    yield "| interval of | " + " | ".join(f"{n} seeds" for n in several) + " |"
    yield "|---|" + "---|" * len(several)
    random = np.random.Generator(np.random.Philox(16))
    line = next(law for law in LAWS if law.name == "linear")
    held = np.zeros((2, len(several)))
    for column, seeds in enumerate(several):
        for _ in range(each):
            starts = 4 + 0.2 * random.standard_normal(seeds)
            walks = 0.05 * random.standard_normal((seeds, LAST)).cumsum(axis=1) + 0.1 * np.arange(1, LAST + 1)
            series = History({s: dict(enumerate([a, *(a + walks[s])])) for s, a in enumerate(starts)})
            slope = bootstrap(series, fit_law(line, steps_of(series), LAST), 500, random)["b"]
            low, high = np.quantile(slope, [0.05, 0.95])
            a = interval(list(starts), 0.9)
            held[:, column] += (a.low or 0) <= 4 <= (a.high or 0), low <= 0.1 <= high
    for name, cells in zip(("`a` (log-perplexity of generation 0)", "`b` of a line"), held / each, strict=True):
        yield f"| {name} | " + " | ".join(f"{cell:.1%}" for cell in cells) + " |"


def shares_table(each: int) -> Iterator[str]:
    """Which synthetic share the verdict on a mixture names: p2 = 0.01, 0.05, 0.1, 0.5 beside real rows alone.

    Errors differ by `own` from cell to cell and by `shared` from seed to seed (standard deviations of their logarithms).
    """
    yield "| error with any share is | own | shared | seeds | a share below 0.5 named | told apart from real rows |"
    yield "|---|---|---|---|---|---|"
    random = np.random.Generator(np.random.Philox(17))
    shares = (0.0, 0.01, 0.05, 0.1, 0.5)
    tree = {"kind": "mixture", "learner": "ridge", "mixture": {"rows": [1000], "share": list(shares)}, "data": {}}
    for ratio, own, shared in ((1.0, 0.05, 0.0), (1.0, 0.2, 0.0), (1.0, 0.2, 0.3), (1.3, 0.05, 0.3), (1.3, 0.2, 0.3)):
        for seeds in SEEDS:
            named = apart = 0
            for _ in range(each):
                common = np.exp(shared * random.standard_normal(seeds))
                rows = [
                    Row.at(
                        Where("", s, 0, cell=f"p2={p}"),
                        {
                            "rows": 1000,
                            "share": p,
                            "real_rows": round(1000 * (1 - p)),
                            "synthetic_rows": round(1000 * p),
                        }
                        | {"error": float(common[s] * (ratio if p else 1.0) * np.exp(own * random.standard_normal()))},
                    )
                    for s in range(seeds)
                    for p in shares
                ]
                said = mixture_verdict(rows, tree)
                named += "p2 = 0.5 " not in said
                apart += seeds > 1 and "not told apart" not in said
            yield f"| ×{ratio:g} | {own:g} | {shared:g} | {seeds} | {named / each:.1%} | {apart / each:.1%} |"


def _lowered(row: Row, by: float) -> Row:
    """A row whose losses are lower; that of generation 0 as it is."""
    names = ("nll", "tail_change", "head_change") if row.where.generation else ()
    return Row(row.where, {**row.fields, **{name: row.fields[name] - by for name in names}})


def first_table(each: int) -> Iterator[str]:
    """False words of one and of several seeds where generation 0 alone is off by chance and nothing else ever changes."""
    yield "| generation 0 is off by | last generation | " + " | ".join(f"{n} seed{'s' * (n > 1)}" for n in SEEDS) + " |"
    yield "|---|---|" + "---|" * len(SEEDS)
    random = np.random.Generator(np.random.Philox(18))
    for noise in (0.05, 0.15, 0.3):
        for last in (3, 5, 9):
            cells = []
            for seeds in SEEDS:
                wrong = 0
                for _ in range(each):
                    rows = made(random, seeds, 1.0, 0.0, instruments=True)
                    off = noise * random.standard_normal(seeds)
                    rows = [_lowered(row, off[row.where.seed]) for row in rows if row.where.generation <= last]
                    wrong += false_word(arms_of(rows)[0].state, 1.0)
                cells.append(f"{wrong / each:.1%}")
            yield f"| {noise:g} | {last} | " + " | ".join(cells) + " |"


TABLES = {
    "False words, and the two commonest words": words_table,
    "Where it is going": trends_table,
    "Any false word, call or pair in a run in which nothing changes": runs_table,
    "How often 95% intervals hold the truth": coverage_table,
    "How often the forecast's 90% intervals of parameters hold the truth": parameters_table,
    "Which share of a mixture is named": shares_table,
    "Generation 0 alone is off by chance": first_table,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=1000, help="runs per line, of each kind of chance")
    parser.add_argument("--only", default="", help="tables whose title begins so")
    given = parser.parse_args()
    for title, table in TABLES.items():
        if not title.startswith(given.only):
            continue
        print(f"\n{title} ({given.each} runs per line)\n")
        for line in table(given.each):
            print(line, flush=True)


if __name__ == "__main__":
    main()
