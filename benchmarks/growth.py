"""How the cost of sampling grows with beams, new tokens, rows and vocabulary. Ours only."""

import math
import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any

import ours
from common import DECODES, OPT_VOCABULARY

from collapse_cli.config.tree import DecodeConfig

BEAMS = (1, 2, 4, 8)
NEW_TOKENS = (16, 32, 64, 128)
TIMES_ROWS = (1, 2, 4)
VOCABULARIES = (2048, 8192, 25136, OPT_VOCABULARY)
Entry = tuple[int, int, Callable[[], float]]  # what grows, rows, the work


def measure(shape: str, dtype: str, rows: int, rounds: int) -> list[dict[str, Any]]:
    """A row per entry: seconds a row, that against the first of its kind, and the exponent of seconds of the kind."""
    found = []
    for what, entries in _entries(shape, dtype, rows).items():
        print(f"growth: {what}", file=sys.stderr)
        for _, _, work in entries:
            work()  # warm
        times: list[list[float]] = [[] for _ in entries]
        for turn in range(rounds):  # all entries in turn, so that a noisy minute meets all of them
            order = range(len(entries))
            for index in order if turn % 2 == 0 else reversed(order):
                times[index].append(entries[index][2]())
        seconds = [statistics.median(each) for each in times]
        exponent = round(fit_exponent([entry[0] for entry in entries], seconds), 2)
        first = seconds[0] / entries[0][1]
        for (value, count, _), took in zip(entries, seconds, strict=True):
            row = {"what": what, "value": value, "rows": count, "seconds_per_row": took / count}
            found.append(row | {"against_first": round(took / count / first, 2), "exponent": exponent})
    return found


def _entries(shape: str, dtype: str, rows: int) -> dict[str, list[Entry]]:
    beams = DECODES["beams 5"]

    def work(decode: DecodeConfig, count: int = rows, **rest: int) -> Callable[[], float]:
        return lambda: ours.sample(shape, dtype, decode, count, **rest)

    return {
        "beams": [(n, rows, work(DecodeConfig(beams=n))) for n in BEAMS],
        "new tokens, 5 beams": [(n, rows, work(beams, new_tokens=n)) for n in NEW_TOKENS],
        "rows, 5 beams": [(n * rows, n * rows, work(beams, n * rows)) for n in TIMES_ROWS],
        "vocabulary, 5 beams": [(n, rows, work(beams, vocabulary=n)) for n in VOCABULARIES],
        "vocabulary, temperature 1": [(n, rows, work(DECODES["temperature 1"], vocabulary=n)) for n in VOCABULARIES],
    }


def fit_exponent(values: Sequence[float], seconds: Sequence[float]) -> float:
    """The slope of log seconds over log value: 1 is linear, less is better."""
    slope, _ = statistics.linear_regression([math.log(v) for v in values], [math.log(s) for s in seconds])
    return slope
