"""What the fields of a row of `metrics.jsonl` may hold, by name: the one place that says so.

A row may come from a folder that nobody vouches for: a value that a field cannot have is damage, and reads as None.
"""

import base64
import binascii
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from collapse_cli import families
from collapse_cli.config.cell import AXES
from collapse_cli.config.pool import MOST_LINEAGES
from collapse_cli.families.beside import BY_LINEAGE

COORDINATES = ("rows", "real_rows", "synthetic_rows", "share", *AXES)  # of a cell of a mixture
SELECTION = tuple(  # of what was chosen for the corpus
    f"select_{name}"
    for name in (
        *("candidates", "candidates_real", "kept", "kept_real", "distinct", "most_repeats", "filled"),
        *("held_out", "false_rejects"),
    )
)
NUMBERS = families.NUMBERS | set(COORDINATES) | set(SELECTION)  # of which anything but a finite number is damage
SIZES = {  # of numbers by part of the text or of the samples: how many there are; others may have any number
    "nll_by_decile": 10,
    "tokens_by_decile": 10,
    "nll_change_by_decile": 10,
    "nll_change_by_decile_se": 10,
    "recall_by_decile": 10,
    "sample_log_perplexity_quantiles": 99,
    "facts_left_by_band": 5,
}
PARTS = SIZES.keys() | {measure.name for measure in (*families.INSTRUMENTS, *families.OWN) if measure.part is not None}
WORDS = {"model_key", "model_dir"}
LARGEST = 1e300  # the largest float stands for a perplexity beyond all floats: it is no figure, and no plot can hold it
BINS = 20_000  # of one histogram; more is damage
SIDE = 64  # pixels; larger images are damage
MOST_IMAGES = 16  # of a row
MOST_SOURCES = 64  # of text by other models
MOST_STEPS, MOST_JUDGED = 16, 10  # of a selection, and of the rows that it shows of each kind


@dataclass(frozen=True)
class Example:
    """A prompt and what the model made of it, for people.

    Attributes:
        row: which row of the corpus the prompt is of, in digits.
        sentences: of prompt and text, tables with what is to be said of each where the truth is known; for nobody vouched.
    """

    row: str
    prompt: str
    text: str
    sentences: Sequence[object] = ()


@dataclass(frozen=True)
class Phrase:
    """Tokens in a row that come again in the samples: how often, and in how many samples (None: not known)."""

    text: str
    count: float
    samples: float | None


@dataclass(frozen=True)
class Histogram:
    """Counts of per-sample log-perplexity; bin i spans low + i * width to low + (i + 1) * width, in nats/token."""

    low: float
    width: float
    counts: Sequence[float]


@dataclass(frozen=True)
class GeneratedImages:
    """A few generated grey images of one size: `height` × `width` bytes each, 0 black."""

    height: int
    width: int
    images: Sequence[bytes]


@dataclass(frozen=True)
class StepTaken:
    """One step of a selection.

    Attributes:
        name, rule, unit: the score (or the change of rows), the rule, and what the score is counted in; "" where there is none.
        rows, kept: how many it was given, and how many stayed.
        before, after: scores of these: the smallest, the nine deciles, the largest; empty where none is known.
        false_rejects: the share of held-out real rows that it would throw away.
        facts: what the score had to say of itself; for nobody vouched.
    """

    name: str
    rule: str
    unit: str
    rows: float | None
    kept: float | None
    before: Sequence[float]
    after: Sequence[float]
    false_rejects: float | None
    facts: Mapping[str, Any]

    @property
    def words(self) -> str:
        """What it does, in a few words."""
        return " ".join(part for part in (self.name, self.rule) if part)[:60]


@dataclass(frozen=True)
class JudgedRow:
    """A row that a selection judged, for people: its text, its score, and the step that threw it away (0: it stays).

    Attributes:
        origin: the generation whose corpus it was made for; 0 of a real row; None where that is not known.
    """

    text: str
    score: float | None
    origin: float | None
    step: int


@dataclass(frozen=True)
class ForeignRows:
    """How many rows of a corpus came from one source of text that another model wrote.

    Attributes:
        source: the file, folder or server, as the run named it.
        rows: how many.
        sha256: of a file's text; "" of a server.
        models: what a server said that it answered with.
    """

    source: str
    rows: float
    sha256: str = ""
    models: Sequence[str] = ()


@dataclass(frozen=True)
class Selection:
    """The field `selection`: the steps in order, and a few rows that stay and that were thrown away."""

    steps: Sequence[StepTaken] = ()
    kept: Sequence[JudgedRow] = ()
    thrown: Sequence[JudgedRow] = ()


def finite(value: object) -> float | None:
    """A finite number, or None: the one rule for what is absent, null, or not finite, in rows and in configurations."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST:
        return None
    return float(value)


def table(value: object) -> Mapping[str, Any]:
    """A JSON object, or an empty one."""
    return value if isinstance(value, Mapping) else {}


def strings(value: object) -> list[str]:
    """The texts of a list."""
    return [text for text in value if isinstance(text, str)] if isinstance(value, list | tuple) else []


def parts(name: str, value: object) -> tuple[float | None, ...] | None:
    """The numbers of a field that has several, None where there is nothing to measure (a decile without tokens)."""
    if not isinstance(value, list | tuple) or len(value) != SIZES.get(name, len(value)):
        return None
    numbers = tuple(map(finite, value))
    if any(number is None and given is not None for number, given in zip(numbers, value, strict=True)):
        return None
    return numbers


def by_lineage(value: object) -> dict[str, float] | None:
    """The numbers of a field that has one for each lineage, by name; without those that could not be had. None of damage."""
    if not isinstance(value, Mapping) or len(value) > MOST_LINEAGES:
        return None
    numbers = {name: finite(number) for name, number in value.items() if number is not None}
    known = {name: number for name, number in numbers.items() if number is not None and isinstance(name, str)}
    return known if len(known) == len(numbers) else None


def histogram(value: object) -> Histogram | None:
    """The field `sample_histogram`."""
    given = table(value)
    low, width, counts = finite(given.get("low")), finite(given.get("width")), given.get("counts")
    if low is None or width is None or width <= 0 or not isinstance(counts, list) or len(counts) > BINS:
        return None
    numbers = [number for count in counts if (number := finite(count)) is not None and number >= 0]
    return Histogram(low, width, numbers) if len(numbers) == len(counts) and any(numbers) else None


def examples(value: object) -> list[Example]:
    """The field `examples`: those that have a text."""
    return [
        Example(
            str(given.get("row")),
            prompt if isinstance(prompt := given.get("prompt"), str) else "",
            given["text"],
            sentences if isinstance(sentences := given.get("sentences"), list) else (),
        )
        for given in _with_text(value)
    ]


def phrases(value: object) -> list[Phrase]:
    """The field `top_8grams`: those that have a text and a count."""
    return [
        Phrase(given["text"], count, finite(given.get("samples")))
        for given in _with_text(value)
        if (count := finite(given.get("count"))) is not None
    ]


def selection(value: object) -> Selection:
    """The field `selection`; what is damaged in it is left out."""
    given = table(value)
    steps = given.get("steps")
    taken = [_step(table(step)) for step in (steps if isinstance(steps, list) else [])[:MOST_STEPS]]
    return Selection(taken, _judged(given.get("kept")), _judged(given.get("thrown")))


def foreign_rows(value: object) -> list[ForeignRows]:
    """The field `foreign_rows`; what is damaged in it is left out."""
    return [
        ForeignRows(
            source if isinstance(source := given.get("source"), str) else "",
            rows,
            sha256 if isinstance(sha256 := given.get("sha256"), str) else "",
            strings(given.get("models")),
        )
        for given in map(table, value if isinstance(value, list) else [])
        if (rows := finite(given.get("rows"))) is not None
    ][:MOST_SOURCES]


def _step(given: Mapping[str, Any]) -> StepTaken:
    name, rule, unit = (word if isinstance(word := given.get(key), str) else "" for key in ("name", "rule", "unit"))
    before, after = (
        [number for value in values if (number := finite(value)) is not None]
        if isinstance(values := given.get(key), list) and len(values) <= 11
        else []
        for key in ("before", "after")
    )
    rows, kept, rejects = (finite(given.get(key)) for key in ("rows", "kept", "false_rejects"))
    return StepTaken(name, rule, unit, rows, kept, before, after, rejects, table(given.get("facts")))


def _judged(value: object) -> list[JudgedRow]:
    return [
        JudgedRow(
            given["text"], finite(given.get("score")), finite(given.get("origin")), int(finite(given.get("step")) or 0)
        )
        for given in _with_text(value)
    ][:MOST_JUDGED]


def images(value: object) -> GeneratedImages | None:
    """The field `pictures`; of more than `MOST_IMAGES` the first."""
    given = table(value)
    height, width, rows = given.get("height"), given.get("width"), given.get("rows")
    if not _side(height) or not _side(width) or not isinstance(rows, list) or not rows:
        return None
    decoded = []
    for row in rows[:MOST_IMAGES]:
        if not isinstance(row, str) or len(row) > 4 * (SIDE * SIDE // 3 + 2):
            return None
        try:
            image = base64.b64decode(row, validate=True)
        except (binascii.Error, ValueError):
            return None
        if len(image) != height * width:
            return None
        decoded.append(image)
    return GeneratedImages(height, width, tuple(decoded))


def makes_sense(name: str, value: object) -> bool:
    """Whether a field holds what it should; True of fields that this version does not know."""
    match name:
        case _ if name in NUMBERS:
            return finite(value) is not None
        case _ if name in PARTS:
            return parts(name, value) is not None
        case _ if name in BY_LINEAGE:
            return by_lineage(value) is not None
        case _ if name in WORDS:
            return isinstance(value, str)
        case "warnings":
            return isinstance(value, list) and all(isinstance(text, str) for text in value)
        case "sample_histogram":
            return histogram(value) is not None
        case "examples" | "top_8grams":
            return isinstance(value, list)
        case "foreign_rows":
            return isinstance(value, list) and len(foreign_rows(value)) == len(value)
        case "selection":
            return isinstance(value, dict) and isinstance(value.get("steps"), list)
        case "pictures":
            return images(value) is not None
        case "seconds":
            return any(finite(taken) is not None for taken in table(value).values())
        case "protocol" | "between" | "epoch_losses":
            return isinstance(value, dict | list)
    return True


def log_perplexity(perplexity: object) -> float | None:
    """Nats per token, of rows older than the field `nll`; None where the perplexity is none, or beyond all floats."""
    number = finite(perplexity)
    return math.log(number) if number is not None and number > 0 else None


def _with_text(value: object) -> Iterator[Mapping[str, Any]]:
    for given in value if isinstance(value, list) else ():
        if isinstance(table(given).get("text"), str):
            yield given


def _side(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= SIDE
