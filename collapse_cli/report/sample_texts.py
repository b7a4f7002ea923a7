"""Texts of models for people: the same prompts in columns, and a browser of all that were kept, bounded in number and bytes."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from collapse_cli.records.kept_texts import KeptText, spans_of
from collapse_cli.records.row import Row
from collapse_cli.report.loading import Series
from collapse_cli.report.text import SPACES, escaped, marked, visible, white

MOST, BYTES = 6_000, 3_000_000  # texts in a page, and their characters
LONGEST = 1_200  # characters of a text in the browser
PROMPT = 400  # characters of a prompt that are shown
REPEATS = 0.1  # share of words in repeated phrases from which a text is said to repeat itself
START = re.compile(r"(?:[.!?][\"')\]]*\s+|\n\s*)(?=\S)")  # of a sentence, or of a line
LATEST_START = 0.7  # of a prompt: what comes before its first start is left out where that leaves enough to read


def begun(prompt: str) -> str:
    """A prompt from its first start of a sentence or line on; one that has none is shown whole."""
    shown = prompt[-PROMPT:]
    cut = len(shown) < len(prompt)
    if not cut and (not shown or shown[0].isupper() or not shown[0].isalnum()):
        return shown
    there = START.search(shown)
    if there is None or there.end() > LATEST_START * len(shown):
        return f"…{shown}"
    return f"… {shown[there.end() :]}"


def continued(text: str, spans: Sequence[tuple[int, int, str]] = ()) -> tuple[str, float]:
    """A continuation as HTML with white space to be seen and what is wrong marked, and its share of repeated phrases.

    Args:
        spans: statements of the text, with what is to be said of them; () where nothing is known.
    """
    shown, share = marked(text)
    if spans and visible(text) == text:
        parts, end = [], 0
        for start, stop, kind in spans:
            parts.append(escaped(text[end:start]))
            parts.append(f'<span class="{kind}">{escaped(text[start:stop])}</span>')
            end = stop
        shown = "".join([*parts, escaped(text[end:])])
    return white(shown), share


def browsed(series: Sequence[Series]) -> dict[str, Any]:
    """What the browser of samples reads: texts with their prompts once each, thinned evenly where they are too many."""
    samples = [(line, row, text) for line in series for row in line.rows for text in texts_of(line, row)]
    size = sum(min(len(text.text), LONGEST) for *_, text in samples)
    step = max(1.0, len(samples) / MOST, size / BYTES)
    chosen = [samples[int(index * step)] for index in range(int(len(samples) / step))]
    prompts: dict[str, int] = {}
    limits = {line.index: _limits(line) for line in series}
    texts = []
    for line, row, text in chosen:
        prompt = visible(begun(text.prompt), PROMPT)
        shown = visible(text.text, LONGEST)
        spans = text.spans if text.text == shown else ()
        texts.append(
            [
                line.index,
                row.where.seed,
                row.where.generation,
                prompts.setdefault(prompt, len(prompts)),
                shown,
                None if text.nll is None else float(f"{text.nll:.4g}"),
                [list(span) for span in spans],
                list(_flags(text, row, limits[line.index])),
            ]
        )
    return {"texts": texts, "prompts": list(prompts), "of": len(samples), "spaces": SPACES} if texts else {}


def texts_of(line: Series, row: Row) -> Sequence[KeptText]:
    """The texts that were kept of a model; of older runs those of its row."""
    return line.run.kept.get(row.where) or _examples(row)


def shown_texts(line: Series, row: Row) -> list[KeptText]:
    """What a model made of the prompts that every model continues, with what was kept of them beside."""
    kept = {text.row: text for text in line.run.kept.get(row.where, ()) if text.shown}
    return [kept.get(text.row, text) for text in _examples(row)] or list(kept.values())


def _examples(row: Row) -> list[KeptText]:
    """Those that stand in the row itself."""
    return [
        KeptText(
            example.row, example.prompt, example.text, None,
            spans_of(example.prompt, example.text, example.sentences), shown=True,
        )
        for example in row.examples
    ]  # fmt: skip


def _limits(line: Series) -> Mapping[int, tuple[float, float]]:
    """By seed, the 5% and 99% quantiles of generation 0's samples, in nats per token."""
    limits = {}
    for row in line.at(0):
        quantiles = row.parts("sample_log_perplexity_quantiles")
        if quantiles is not None and quantiles[4] is not None and quantiles[98] is not None:
            limits[row.where.seed] = (quantiles[4], quantiles[98])
    return limits


def _flags(text: KeptText, row: Row, limits: Mapping[int, tuple[float, float]]) -> Iterator[str]:
    """What is to be said of a text."""
    if any(kind == "wrong" for *_, kind in text.spans):
        yield "says what is not true"
    if marked(text.text, LONGEST)[1] >= REPEATS:
        yield "repeats itself"
    low, high = limits.get(row.where.seed, (None, None))
    if text.nll is not None and low is not None and high is not None:
        if text.nll < low:
            yield "piled up: below 95% of generation 0"
        elif text.nll > high:
            yield "long tail: above 99% of generation 0"
    if row.warnings:
        yield "its model has a guard-rail warning"
