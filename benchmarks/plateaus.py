"""How often scaling laws are right: curves whose plateau is known, drawn and fitted many times. Prints docs/theory.md's table.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/plateaus.py --keep runs/plateaus.json          # all, about 40 minutes
    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/plateaus.py --each 20 --only "n^-1"            # a look

Every curve is drawn with 4, 6 and 9 sizes, each 2.2 times the one before, 1, 3, 5 and 10 seeds, and noise of 5% and 20% of
each value; a share of the error at the LARGEST size is the plateau. Counted is how often a plateau is claimed, and how often the
95% intervals hold the truth. Every combination has its own stream of random numbers, so that what is kept in a file need not
be drawn again and the order does not matter.
"""

import argparse
import json
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from collapse_cli.findings.scaling import fit
from collapse_cli.findings.scaling.profile import GAIN

SIZES, SEEDS, NOISE, RATIO = (4, 6, 9), (1, 3, 5, 10), (0.05, 0.2), 2.2
Curve = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Mechanism:
    """A curve and its noise.

    Attributes:
        falls: what more data takes away, of sizes in units of the smallest one; of `first` the smallest.
        plateau: share of the error at the largest size that is plateau.
        exponent: true one; None where the curve is no power law.
        noise: "lognormal"; "heavy", 3 degrees of freedom of Student's t; "shared", seeds differ in the plateau (all sizes of
            a seed alike) and apart from that.
    """

    name: str
    falls: Curve
    plateau: float = 0.0
    exponent: float | None = 1.0
    first: float = 1.0
    noise: str = "lognormal"


def power(b: float) -> Curve:
    return lambda n: np.asarray(n**-b)


def least_squares(n: np.ndarray) -> np.ndarray:
    """d/(n - d - 1), d = 100, with sizes in units of d."""
    return np.asarray(1 / (n - 1.01))


MECHANISMS = (
    *(Mechanism(f"n^-{b:g}", power(b), exponent=b) for b in (0.3, 0.5, 1.0, 1.5)),
    Mechanism("n^-1, heavy tails", power(1), noise="heavy"),
    Mechanism("d/(n - d - 1) from 2 d", least_squares, first=2.0),
    Mechanism("d/(n - d - 1) from 1.2 d", least_squares, first=1.2),
    Mechanism("n^-1 + 0.3 n^-0.5", lambda n: np.asarray(1 / n + 0.3 * n**-0.5), exponent=None),
    *(Mechanism(f"n^-1 + plateau, {share:.0%}", power(1), share) for share in (0.1, 0.5, 0.8, 0.95)),
    Mechanism("n^-1 + plateau, 80%, heavy tails", power(1), 0.8, noise="heavy"),
    Mechanism("n^-1 + plateau, 95%, seeds share it", power(1), 0.95, noise="shared"),
    Mechanism("n^-0.5 + plateau, 80%", power(0.5), 0.8, exponent=0.5),
    Mechanism("d/(n - d - 1) + plateau, 80%, from 2 d", least_squares, 0.8, first=2.0),
    Mechanism("d/(n - d - 1) + plateau, 80%, from 1.2 d", least_squares, 0.8, first=1.2),
    Mechanism("nothing but a plateau", np.zeros_like, 1.0, exponent=None),
)


def drawn(
    one: Mechanism, sizes: int, seeds: int, noise: float, random: np.random.Generator
) -> tuple[dict[float, dict[int, float]], float]:
    """Errors by size and seed, and the plateau."""
    n = one.first * RATIO ** np.arange(sizes)
    falls = one.falls(n)
    level = falls[-1] * one.plateau / (1 - one.plateau) if one.plateau < 1 else 1.0
    shape = (sizes, seeds)

    def factor(shape: tuple[int, int]) -> np.ndarray:
        if one.noise == "heavy":
            return np.asarray(np.maximum(0.1, 1 + noise * random.standard_t(3, shape) / math.sqrt(3)))
        return np.asarray(np.exp(noise * random.standard_normal(shape) - noise**2 / 2))

    if one.noise == "shared":
        values = level * factor((1, seeds)) + falls[:, None] * factor(shape)
    else:
        values = (level + falls)[:, None] * factor(shape)
    return {float(100 * at): dict(enumerate(row.tolist())) for at, row in zip(n, values, strict=True)}, float(level)


def true_knee(one: Mechanism, level: float) -> float:
    """From which size on doubling wins less than `GAIN`, of the curve without noise."""
    at = one.first * np.geomspace(1, 1e9, 200_001)
    error = level + one.falls(at)
    helps = error - level - one.falls(2 * at) > GAIN * error
    return float(100 * at[np.argmin(helps)]) if not helps.all() else math.inf


def measure(one: Mechanism, sizes: int, seeds: int, noise: float, each: int) -> dict[str, float]:
    """Counts of what is said, of `each` draws."""
    key = f"{one.name}/{sizes}/{seeds}/{noise}"
    random = np.random.Generator(np.random.Philox(zlib.crc32(key.encode())))
    counts = dict.fromkeys(
        ("draws", "claimed", "covered", "covered_claimed", "exponent", "told", "knee", "extrapolated"), 0.0
    )
    for _ in range(each):
        table, level = drawn(one, sizes, seeds, noise, random)
        law = fit(table)
        counts["draws"] += 1
        counts["claimed"] += law.claimed
        counts["extrapolated"] += law.claimed and law.extrapolated
        if "plateau" in law.intervals:
            low, high = law.intervals["plateau"]
            counts["told"] += 1
            counts["covered"] += low <= level <= high
            counts["covered_claimed"] += law.claimed and low <= level <= high
        if one.exponent is not None and "exponent" in law.intervals:
            low, high = law.intervals["exponent"]
            counts["exponent"] += low <= one.exponent <= high
        if law.claimed and "knee" in law.intervals:
            low, high = law.intervals["knee"]
            counts["knee"] += low <= max(true_knee(one, level), law.sizes[0]) * (1 + 1e-4) and true_knee(
                one, level
            ) <= high * (1 + 1e-4)
    return counts


def lines(found: dict[str, dict[str, float]]) -> list[str]:
    """The table: of the two noises the worse one each."""
    head = "| curve | sizes | plateau claimed: 1, 3, 5, 10 seeds | interval holds it: 3, 5, 10 | interval holds the exponent: 3, 5, 10 | where claimed, plateau held | knee held |"
    made = [head, "|---|---:|---|---|---|---:|---:|"]

    def percent(top: float, bottom: float) -> str:
        return f"{100 * top / bottom:.0f}" if bottom else "–"

    for one in MECHANISMS:
        for sizes in SIZES:
            cells = {seeds: [found.get(f"{one.name}/{sizes}/{seeds}/{noise}") for noise in NOISE] for seeds in SEEDS}
            if any(each is None for pair in cells.values() for each in pair):
                continue
            whole = {seeds: [each for each in pair if each is not None] for seeds, pair in cells.items()}
            pick = max if one.plateau == 0 else (lambda values: f"{min(values):.0f} to {max(values):.0f}")
            claimed = [pick([100 * each["claimed"] / each["draws"] for each in whole[seeds]]) for seeds in SEEDS]
            covered = [
                min(100 * each["covered"] / max(1, each["told"]) for each in whole[seeds]) for seeds in SEEDS[1:]
            ]
            exponent = [
                min(100 * each["exponent"] / max(1, each["told"]) for each in whole[seeds]) for seeds in SEEDS[1:]
            ]
            every = [each for pair in whole.values() for each in pair]
            total = sum(each["claimed"] for each in every)
            told = [f"{value:.0f}" if isinstance(value, float) else str(value) for value in claimed]
            made.append(
                f"| {one.name if sizes == SIZES[0] else ''} | {sizes} | {', '.join(told)} | {', '.join(f'{v:.0f}' for v in covered)} | "
                f"{', '.join(f'{v:.0f}' for v in exponent) if one.exponent else '–'} | "
                f"{percent(sum(e['covered_claimed'] for e in every), total) if total >= 20 else '–'} | "
                f"{percent(sum(e['knee'] for e in every), total) if total >= 20 else '–'} |"
            )
    return made


def main() -> None:
    """Draw what is not kept yet, and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=200, help="draws of a combination; default: %(default)s")
    parser.add_argument("--only", default="", help="curves whose name begins so")
    parser.add_argument("--keep", type=Path, help="a file that keeps what was drawn, and is gone on with")
    given = parser.parse_args()
    kept: dict[str, dict[str, float]] = {}
    if given.keep is not None and given.keep.exists():
        kept = json.loads(given.keep.read_text(encoding="utf-8"))
    for one in MECHANISMS:
        if not one.name.startswith(given.only):
            continue
        for sizes in SIZES:
            for seeds in SEEDS:
                for noise in NOISE:
                    key = f"{one.name}/{sizes}/{seeds}/{noise}"
                    if kept.get(key, {}).get("draws") != given.each:
                        kept[key] = measure(one, sizes, seeds, noise, given.each if seeds > 1 else min(given.each, 20))
                        kept[key]["draws"] = given.each if seeds == 1 else kept[key]["draws"]
            if given.keep is not None:
                given.keep.write_text(json.dumps(kept), encoding="utf-8")
    print("\n".join(lines(kept)))


if __name__ == "__main__":
    main()
