"""What the instruments cost beside the generation they measure: seconds of both, from rates measured in turn.

    .venv/bin/python benchmarks/share.py                      # OPT-125m's shape, 37,354 samples of 64 tokens, five beams
    .venv/bin/python benchmarks/share.py --model quick --samples 1024 --epochs 6 --decode "temperature 1"

A generation is its training (all epochs), its sampling, and the plain scoring of the test text. Its instruments are what
scoring takes longer because each token is looked at, the scoring of its samples under generation 0, and what is computed
from samples and features. Generation 0 also scores real continuations, once.
"""

import argparse
import statistics
from collections.abc import Callable

import numpy as np
import ours
from common import DECODES, SHAPES, WIDTH, fresh_model, rows_of, timed

from collapse_cli.lm import score as scoring
from collapse_cli.metrics.features import ROWS
from collapse_cli.metrics.samples import mauve, sample_measures
from collapse_cli.metrics.tails import frequency_deciles


def examine(shape: str, dtype: str, rows: int) -> float:
    """Score `rows` continuations of 64 tokens given prompts of 64, with the state at the end of each."""
    model, ends = fresh_model(shape), np.full(rows, WIDTH, np.int64)
    prompts, new = (rows_of(rows, SHAPES[shape]["vocab_size"]) for _ in range(2))
    return timed(lambda: scoring.score_continuations(model, prompts, new, ends, dtype=dtype))


def look_at_tokens(shape: str, rows: int) -> float:
    """Score `rows` blocks and note what is found at each token."""
    model, data = fresh_model(shape), rows_of(rows, SHAPES[shape]["vocab_size"])
    return timed(lambda: scoring.score_blocks(model, data, details=scoring.Details()))


def words(count: int, vocabulary: int) -> np.ndarray:
    """(count, 64) tokens with the frequencies of Zipf's law."""
    odds = 1 / np.arange(1, vocabulary + 1)
    return np.random.default_rng(0).choice(vocabulary, (count, WIDTH), p=odds / odds.sum()).astype(np.int32)


def main() -> None:
    """Measure, extrapolate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SHAPES, default="opt125m")
    parser.add_argument("--samples", type=int, default=37354)
    parser.add_argument("--test-rows", type=int, default=4600)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--decode", choices=DECODES, default="beams 5")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--rows", type=int, default=128, help="rows a turn")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    shape, rows = given.model, given.rows
    turns: dict[str, tuple[Callable[[], float], int]] = {
        "training": (lambda: ours.train(shape, given.dtype, rows, rows), given.samples * given.epochs),
        "sampling": (lambda: ours.sample(shape, given.dtype, DECODES[given.decode], rows), given.samples),
        "test text": (lambda: ours.score_blocks(shape, rows), given.test_rows),
        "test text, every token": (lambda: look_at_tokens(shape, rows), given.test_rows),
        "samples under generation 0": (lambda: examine(shape, given.dtype, rows), given.samples),
    }
    for turn, _ in turns.values():
        turn()  # warm
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(given.rounds):
        for name, (turn, times) in turns.items():
            seconds[name].append(turn() / rows * times)
    found = {name: statistics.median(each) for name, each in seconds.items()}
    vocabulary = SHAPES[shape]["vocab_size"]
    tokens = words(given.samples, vocabulary)
    deciles = frequency_deciles(np.bincount(tokens.ravel(), minlength=vocabulary))
    lengths = np.full(given.samples, WIDTH, np.int32)
    width = fresh_model(shape).config.hidden_size
    draw = np.random.default_rng(1)
    real, made = (draw.standard_normal((min(ROWS, given.samples), width), np.float32) for _ in range(2))
    for name, work in (
        ("repetition, diversity, coverage", lambda: sample_measures(tokens, lengths, deciles)),
        ("MAUVE", lambda: mauve(real, made)),
    ):
        work()
        found[name] = statistics.median(timed(work) for _ in range(given.rounds))
    found["test text, every token"] -= found["test text"]
    generation = ("training", "sampling", "test text")
    whole = sum(found[name] for name in generation)
    print(f"{shape}, {given.samples:,} samples of {WIDTH} tokens, {given.epochs} epochs, {given.decode}, {given.dtype}")
    for name, value in found.items():
        print(f"{name:<34}{value:>12,.2f} s{value / whole:>9.2%} of the generation")
    instruments = sum(value for name, value in found.items() if name not in generation)
    first = found["samples under generation 0"] / given.samples * min(ROWS, given.samples)
    print(f"{'the generation':<34}{whole:>12,.2f} s")
    print(f"{'its instruments':<34}{instruments:>12,.2f} s{instruments / whole:>9.2%}")
    print(f"{'generation 0, with real text':<34}{instruments + first:>12,.2f} s{(instruments + first) / whole:>9.2%}")


if __name__ == "__main__":
    main()
