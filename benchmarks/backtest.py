"""Back-tests of `collapse forecast`: fit to generations 0..5, look whether 6..9 lie in the intervals. docs/forecast.md.

    python benchmarks/backtest.py RUN_FOLDER...      real runs: each (policy, seed) a series of its own, and seeds in threes
    python benchmarks/backtest.py --synthetic        series of known law; the smallest share with a known answer
    python benchmarks/backtest.py --mechanisms       jumps, rises that fall, steps and breakaways, slowing without end
    python benchmarks/backtest.py --far RUN_FOLDER   fit to generations 0..9, look at 10, 20, 50

Prints Markdown. Coverage is over points; width and score in nats of log-perplexity; the score of a 90% interval is its
width plus 20 times what a value lies outside (Gneiting and Raftery 2007), less is better.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from collapse_cli.findings.forecast import forecast_rows
from collapse_cli.findings.forecast.fit import fit_all, mixture, paths, weights
from collapse_cli.findings.forecast.history import History, collect
from collapse_cli.findings.forecast.laws import LAWS
from collapse_cli.findings.forecast.share import from_seeds, smallest_share
from collapse_cli.records.row import Row
from collapse_cli.records.rundir import RunFolder
from collapse_cli.where import Where

FITTED, MEASURED = 6, 10
DRAWS = 2000
Levels = np.ndarray  # (5, points): quantiles 5, 25, 50, 75, 95%
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
NORMAL = np.array([-1.6449, -0.6745, 0, 0.6745, 1.6449])


def of(values: np.ndarray) -> History:
    """A series of (seeds, generations)."""
    return History({s: {g: float(v) for g, v in enumerate(row) if not math.isnan(v)} for s, row in enumerate(values)})


def ours(values: np.ndarray, ahead: int, *, by: str = "aic", distrusted: float = 0.3, lasting: bool = True) -> Levels:
    """The forecast of the mean of (seeds, generations)."""
    series, rng = of(values), np.random.Generator(np.random.Philox(1))
    fits = fit_all(series)
    share = mixture(fits) if by == "aic" else weights([fit.aicc for fit in fits])
    made = paths(series, fits, share, ahead, DRAWS, rng, distrusted=distrusted, lasting=lasting)
    found: np.ndarray = np.quantile(made, QUANTILES, axis=0)
    return found


def last_value(values: np.ndarray, ahead: int) -> Levels:
    """As the last generation, with the random walk of the steps seen."""
    mean = values.mean(0)
    size = math.sqrt(float((np.diff(mean) ** 2).mean()))
    found: np.ndarray = mean[-1] + NORMAL[:, None] * size * np.sqrt(np.arange(1, ahead + 1))
    return found


def straight_line(values: np.ndarray, ahead: int) -> Levels:
    """Ordinary least squares on the generation, with its prediction interval (t)."""
    from scipy import stats

    mean, g, new = values.mean(0), np.arange(values.shape[1]), values.shape[1] + np.arange(ahead)
    line = stats.linregress(g, mean)
    left = mean - line.intercept - line.slope * g
    size = math.sqrt(float((left**2).sum()) / (len(g) - 2))
    off = size * np.sqrt(1 + 1 / len(g) + (new - g.mean()) ** 2 / ((g - g.mean()) ** 2).sum())
    middle = line.intercept + line.slope * new
    found: np.ndarray = middle + stats.t.ppf(QUANTILES, len(g) - 2)[:, None] * off
    return found


METHODS: dict[str, Callable[[np.ndarray, int], Levels]] = {
    "forecast": ours,
    "without distrust of laws": lambda values, ahead: ours(values, ahead, distrusted=0.0),
    "laws that hold for ever": lambda values, ahead: ours(values, ahead, lasting=False),
    "weights by AICc": lambda values, ahead: ours(values, ahead, by="aicc"),
    "last value": last_value,
    "straight line": straight_line,
}


def judge(levels: Levels, truth: np.ndarray) -> np.ndarray:
    """(5, points): inside 90%, inside 50%, width of 90%, score, error of the median."""
    low, low50, middle, high50, high = levels
    score = high - low + 20 * np.maximum(low - truth, 0) + 20 * np.maximum(truth - high, 0)
    inside = (low <= truth) & (truth <= high)
    return np.array([inside, (low50 <= truth) & (truth <= high50), high - low, score, np.abs(middle - truth)])


def judged(series: Sequence[np.ndarray], method: Callable[[np.ndarray, int], Levels]) -> np.ndarray:
    """(series, 5, points) of series (seeds, generations) cut after `FITTED`."""
    ahead = MEASURED - FITTED
    return np.array([judge(method(one[:, :FITTED], ahead), one.mean(0)[FITTED:MEASURED]) for one in series])


def row(name: str, found: np.ndarray) -> str:
    """A line of a table: name, series, points, inside 90%, inside 50%, median width, mean score, mean error."""
    inside, half, _, score, error = found.mean((0, 2))
    return (
        f"| {name} | {len(found)} | {found.shape[0] * found.shape[2]} | {inside:.0%} | {half:.0%} "
        f"| {np.median(found[:, 2]):.2f} | {score:.2f} | {error:.3f} |"
    )


HEAD = (
    "| | series | points | inside 90% | inside 50% | median width | mean score | mean error |\n"
    "|---|---|---|---|---|---|---|---|"
)


def real(folders: Sequence[Path], seeds: Sequence[int] | None) -> dict[str, list[np.ndarray]]:
    """`run policy` -> (1, 10) of every seed that has generations 0..9."""
    found: dict[str, list[np.ndarray]] = {}
    for path in folders:
        measured, notes = collect(RunFolder(path.resolve().parent, path.resolve().name).rows())
        for note in notes:
            print(f"{path.name}: {note}", file=sys.stderr)
        for policy, series in measured.items():
            for seed, by in series.values.items():
                if all(g in by for g in range(MEASURED)) and (seeds is None or seed in seeds):
                    row = np.array([[by[g] for g in range(MEASURED)]])
                    found.setdefault(f"{path.name} {policy}", []).append(row)
    return found


def print_real(folders: Sequence[Path], seeds: Sequence[int] | None) -> None:
    found = real(folders, seeds)
    alone = [one for ones in found.values() for one in ones]
    threes = [np.concatenate(ones[i : i + 3]) for ones in found.values() for i in range(0, len(ones) - 2, 3)]
    for title, series in (("one seed each", alone), ("means of three seeds", threes)):
        if series:
            print(f"\nReal runs, {title}\n\n{HEAD}")
            for name, method in METHODS.items():
                print(row(name, judged(series, method)), flush=True)
    print(f"\nThe forecast by run and policy, one seed each\n\n{HEAD}")
    for name, ones in found.items():
        print(row(name, judged(ones, ours)))
    every = judged(alone, ours)[:, 0].mean(0)
    print("\ninside 90% by generation: " + ", ".join(f"{FITTED + i}: {share:.0%}" for i, share in enumerate(every)))


def synthetic(law: str, seeds: int, noise: float, inherited: bool, rng: np.random.Generator) -> np.ndarray:
    """(seeds, MEASURED) of a known law: total change 0.2 to 2 nats by the last generation."""
    low, high = {"saturating": (1.5, 6.0), "power": (0.4, 1.8), "exponential": (3.0, 10.0)}.get(law, (1.0, 1.0))
    known = next(one for one in LAWS if one.name == law)
    grown = known.grows(np.arange(MEASURED), np.array([rng.uniform(low, high)]))[0]
    grown = rng.uniform(0.2, 2.0) * grown / max(grown[-1], 1e-9)
    off = noise * rng.standard_normal((seeds, MEASURED))
    found: np.ndarray = 4 + 0.1 * rng.standard_normal((seeds, 1)) + grown + (off.cumsum(1) if inherited else off)
    return found


def print_synthetic(each: int) -> None:
    print(f"\nSeries of known law, {each} of each kind: noise 0.01 and 0.05 nats, independent and inherited\n\n{HEAD}")
    rng = np.random.Generator(np.random.Philox(7))
    groups: dict[tuple[int, str], list[np.ndarray]] = {}
    for seeds in (1, 3):
        for law in LAWS:
            if law.name in ("overshoot", "jump"):
                continue  # of --mechanisms
            for noise in (0.01, 0.05):
                for inherited in (False, True):
                    made = [synthetic(law.name, seeds, noise, inherited, rng) for _ in range(each)]
                    groups.setdefault((seeds, law.name), []).extend(made)
    for (seeds, name), series in groups.items():
        print(row(f"{name}, {seeds} seed{'s' * (seeds > 1)}", judged(series, ours)), flush=True)
    for seeds in (1, 3):
        series = [one for (count, _), ones in groups.items() if count == seeds for one in ones]
        for name, method in METHODS.items():
            print(row(f"all laws, {seeds} seed{'s' * (seeds > 1)}: {name}", judged(series, method)), flush=True)


MECHANISMS: dict[
    str, tuple[Callable[[np.ndarray, np.random.Generator], np.ndarray], bool]
] = {  # of x = generation / 9: the change of log-perplexity from generation 0, and whether the laws claim it
    "level": (lambda g, r: 0.0 * g, True),
    "straight": (lambda g, r: r.uniform(0.2, 2) * g / 9, True),
    "towards a plateau": (lambda g, r: r.uniform(0.2, 2) * -np.expm1(-g / r.uniform(1.5, 5)), True),
    "accelerating": (lambda g, r: r.uniform(0.2, 2) * np.expm1(g / (t := r.uniform(3, 10))) / math.expm1(9 / t), True),
    "jump, then level": (lambda g, r: r.uniform(0.2, 1) * (g > 0), True),
    "jump, then relaxes": (
        lambda g, r: r.uniform(0.3, 1) * (g > 0) * (1 - r.uniform(0.1, 0.5) * -np.expm1(-(g - 1) / r.uniform(0.5, 4))),
        True,
    ),
    "rises, then falls": (lambda g, r: r.uniform(0.3, 1.5) * g / (t := r.uniform(2, 4)) * np.exp(1 - g / t), True),
    "random walk": (lambda g, r: np.append(0, (0.1 * r.standard_normal(len(g) - 1)).cumsum()), True),
    "late S-curve": (lambda g, r: r.uniform(0.5, 2) / (1 + np.exp(-(g - r.uniform(5, 7)) / 0.8)), False),
    "step at generation 7": (lambda g, r: r.uniform(0.3, 1.5) * (g >= 7), False),
    "breaks away at generation 6": (lambda g, r: 0.05 * g + r.uniform(0.3, 1) * np.maximum(0, g - 5), False),
}


def mechanism(name: str, noise: float, rng: np.random.Generator) -> np.ndarray:
    """(1, MEASURED) of one seed: the mechanism with parameters drawn at random, and independent noise."""
    grown = np.asarray(MECHANISMS[name][0](np.arange(MEASURED, dtype=float), rng))
    found: np.ndarray = (4 + grown - grown[0] + noise * rng.standard_normal(MEASURED))[None, :]
    return found


def print_mechanisms(each: int) -> None:
    """Coverage by what is at work, of claimed mechanisms and of those that generations 0..5 cannot show."""
    print(f"\nBy mechanism, one seed, noise 0.02 nats, {each} of each\n\n{HEAD}")
    rng = np.random.Generator(np.random.Philox(18))
    for name, (_, claimed) in MECHANISMS.items():
        series = [mechanism(name, 0.02, rng) for _ in range(each)]
        print(row(name if claimed else f"*{name}* (not claimed)", judged(series, ours)), flush=True)


def print_slowing(each: int) -> None:
    """Growth that slows down and never levels off, b ln(1 + g): far ahead, and where hardly any noise hides its form."""
    print(f"\nSlowing without end, b ln(1 + g), b from 0.1 to 0.5; {each} of each, inside the 90% interval\n")
    print(
        "| seeds | noise | generations given | generation 10 | generation 20 | generation 50 |\n|---|---|---|---|---|---|"
    )
    rng = np.random.Generator(np.random.Philox(19))
    for seeds in (1, 3):
        for noise in (0.005, 0.02, 0.05):
            for last in (5, 9):
                held = np.zeros(3)
                for _ in range(each):
                    b, rows = rng.uniform(0.1, 0.5), []
                    for seed in range(seeds):
                        off = noise * rng.standard_normal(last + 1)
                        values = 4 + b * np.log1p(np.arange(last + 1)) + off
                        rows += [Row.at(Where("keep-0", seed, g), {"nll": float(y)}) for g, y in enumerate(values)]
                    ahead = forecast_rows(rows)["policies"][0]["expected"]
                    truth = [4 + b * math.log1p(at["generation"]) for at in ahead]
                    held += [
                        at["log_perplexity_low90"] <= true <= at["log_perplexity_high90"]
                        for at, true in zip(ahead, truth, strict=True)
                    ]
                said = " | ".join(f"{share:.0%}" for share in held / each)
                print(f"| {seeds} | {noise:g} | 0..{last} | {said} |", flush=True)


def print_share(each: int) -> None:
    """R falls as A / (P + P0), the smallest share is known; is it in the 90% interval?"""
    print("\nThe smallest share of real data, known answer")
    print(
        "\n| shares run | seeds | cases | inside 90% | inside 50% | median width of 90%, points | error of the median |"
    )
    print("|---|---|---|---|---|---|---|")
    rng = np.random.Generator(np.random.Philox(8))
    for percents in ((0, 20), (0, 10, 20), (0, 5, 10, 20, 50)):
        for seeds in (2, 3, 5):
            found = np.array([case for _ in range(each) for case in _share_case(percents, seeds, rng)])
            said = ", ".join(map(str, percents))
            inside, half = found[:, :2].mean(0)
            width, error = np.median(found[:, 2:], axis=0)
            print(f"| {said} | {seeds} | {each} | {inside:.0%} | {half:.0%} | {width:.1f} | {error:.1f} |", flush=True)
    rng = np.random.Generator(np.random.Philox(16))
    for between in (0.02, 0.1, 0.3):
        found = np.array([one_seed_case(between, rng) for _ in range(each)])
        (inside, half), (width, error) = found[:, :2].mean(0), np.median(found[:, 2:], axis=0)
        name = f"0, 10, 20; {between:g} nats between seeds"
        print(f"| {name} | 1 | {each} | {inside:.0%} | {half:.0%} | {width:.1f} | {error:.1f} |", flush=True)


def one_seed_case(between: float, rng: np.random.Generator) -> tuple[float, ...]:
    """As `_share_case`, of one seed's series of ten generations; `between`: how far seeds' log-ratios differ."""
    percents = (0, 10, 20)
    top, offset, noise = rng.uniform(0.8, 3), rng.uniform(2, 15), 0.02
    truth = rng.uniform(1, percents[-1] - 1)
    rows = []
    for p in percents:
        seed = between * rng.standard_normal()
        for g in range(MEASURED):
            grown = 1 - math.exp(-g / 2)
            nll = 4 + (top * offset / (p + offset) + seed) * grown + (noise * rng.standard_normal() if g else 0.0)
            rows.append(Row.at(Where(f"keep-{p}", 0, g), {"nll": nll}))
    factor = math.exp(top * offset / (truth + offset) * (1 - math.exp(-(MEASURED - 1) / 2)))
    said = forecast_rows(rows, factor=factor)["share"]
    return _judged_share(said, truth, percents)


def _share_case(percents: Sequence[int], seeds: int, rng: np.random.Generator) -> Iterator[tuple[float, ...]]:
    top, offset, noise = rng.uniform(0.8, 3), rng.uniform(2, 15), rng.uniform(0.02, 0.1)
    truth = rng.uniform(1, percents[-1] - 1)
    level = top * offset / (truth + offset)  # R at the share that is asked for
    common = noise / 2 * rng.standard_normal(seeds)
    measured = {
        float(p): {
            s: float(top * offset / (p + offset) + common[s] + noise * rng.standard_normal()) for s in range(seeds)
        }
        for p in percents
    }
    ratios = from_seeds(measured, DRAWS, rng)
    assert ratios is not None
    said = smallest_share(ratios, math.exp(level), rng, candidates=False)
    yield _judged_share(said, truth, percents)


def _judged_share(said: dict[str, Any], truth: float, percents: Sequence[int]) -> tuple[float, ...]:
    """Inside 90%, inside 50%, width of the 90% interval, error of the median."""
    ends = {name: _number(said[name]) for name in ("low90", "low50", "share", "high50", "high90")}
    within = {k: (percents[0] if v == -math.inf else percents[-1] if v == math.inf else v) for k, v in ends.items()}
    return (
        float(ends["low90"] - 0.05 <= truth <= ends["high90"] + 0.05),  # shares are looked at in steps of 0.1
        float(ends["low50"] - 0.05 <= truth <= ends["high50"] + 0.05),
        within["high90"] - within["low90"],
        abs(within["share"] - truth),
    )


def print_real_share(folders: Sequence[Path]) -> None:
    """Three seeds forecast the share that other seeds need: the factor is what keep-P gave on average with those.

    With P among the shares the three seeds ran, and without it, so that it lies where nothing was measured.
    """
    cases: dict[str, list[tuple[float, float]]] = {}
    for path in folders:
        measured = collect(RunFolder(path.resolve().parent, path.resolve().name).rows())[0]
        ratio = {
            float(arm.policy.removeprefix("keep-")): {
                seed: by[MEASURED - 1] - by[0] for seed, by in one.values.items() if MEASURED - 1 in by
            }
            for arm, one in measured.items()
            if arm.policy.startswith("keep-")
        }
        seeds = sorted(set.intersection(*(set(by) for by in ratio.values())))
        for first in range(0, len(seeds) - 5, 3):
            three, others = seeds[first : first + 3], [*seeds[:first], *seeds[first + 3 :]]
            for inner in sorted(ratio)[1:-1]:
                factor = math.exp(float(np.mean([ratio[inner][seed] for seed in others])))
                for kept in (list(ratio), [p for p in ratio if p != inner]):
                    rng = np.random.Generator(np.random.Philox(9))
                    known = from_seeds({p: {s: ratio[p][s] for s in three} for p in kept}, DRAWS, rng)
                    assert known is not None
                    said = smallest_share(known, factor, rng, candidates=False)
                    low, high = _number(said["low90"]), _number(said["high90"])
                    inside = float(low - 0.05 <= inner <= high + 0.05)
                    ends = max(low, min(kept)), min(high, max(kept))
                    name = f"{path.name}, {inner:g}% {'among the shares run' if inner in kept else 'not run'}"
                    cases.setdefault(name, []).append((inside, ends[1] - ends[0]))
    if cases:
        print("\nThe smallest share of real data, three seeds against the others\n")
        print("| run, share | cases | inside 90% | median width, points |\n|---|---|---|---|")
        for name, found in cases.items():
            inside, width = np.mean(found, axis=0)[0], np.median(found, axis=0)[1]
            print(f"| {name} | {len(found)} | {inside:.0%} | {width:.1f} |")


def _number(end: dict[str, Any]) -> float:
    return {"below": -math.inf, "above": math.inf}.get(end["bound"], float(end["value"]))


def print_far(folders: Sequence[Path]) -> None:
    print(
        "\nFitted to generations 0..9\n\n| series | generation | median (90% interval) | measured | inside |\n|---|---|---|---|---|"
    )
    for path in folders:
        for policy, series in collect(RunFolder(path.resolve().parent, path.resolve().name).rows())[0].items():
            for seed, by in series.values.items():
                if not all(g in by for g in range(MEASURED)):
                    continue
                levels = np.exp(np.minimum(ours(np.array([[by[g] for g in range(MEASURED)]]), 50 - MEASURED + 1), 700))
                for g in (10, 20, 30, 40, 50):
                    if g in by:
                        low, _, middle, _, high = levels[:, g - MEASURED]
                        truth = math.exp(by[g])
                        said = f"{middle:,.4g} ({low:,.4g} – {high:,.4g}) | {truth:,.4g}"
                        inside = "yes" if low <= truth <= high else "no"
                        print(f"| {path.name} {policy}, seed {seed} | {g} | {said} | {inside} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="run folders")
    parser.add_argument("--seeds", type=lambda text: [int(s) for s in text.split(",")], help="only these seeds")
    parser.add_argument("--synthetic", action="store_true")
    parser.add_argument("--mechanisms", action="store_true", help="coverage by what is at work, 20 times --each series")
    parser.add_argument("--far", action="store_true")
    parser.add_argument("--each", type=int, default=10, help="series of each kind of --synthetic")
    given = parser.parse_args()
    if given.far:
        print_far(given.runs)
    elif given.runs:
        print_real(given.runs, given.seeds)
        print_real_share(given.runs)
    if given.mechanisms:
        print_mechanisms(20 * given.each)
        print_slowing(5 * given.each)
    if given.synthetic:
        print_synthetic(given.each)
        print_share(20 * given.each)


if __name__ == "__main__":
    main()
