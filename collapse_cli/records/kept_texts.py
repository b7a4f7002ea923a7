"""Texts that models made, kept in the run folder for people to read: `samples.jsonl`, bounded in number and bytes.

They are in no key, and no number comes from them: a run folder without the file only has less to read.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collapse_cli import files
from collapse_cli.engine import sealed
from collapse_cli.errors import InputError
from collapse_cli.records.fields import finite, table
from collapse_cli.where import Where

FILE = "samples.jsonl"
EACH = 24  # texts of a model, besides those of the prompts that are shown of every model
LONGEST = 1_500  # characters of a text, and of a prompt
MOST_BYTES = 8_000_000  # of the file: models that come later have none
KINDS = ("right", "wrong", "odd")  # what a span can be
Span = tuple[int, int, str]


@dataclass(frozen=True)
class KeptText:
    """A prompt and what a model made of it.

    Attributes:
        row: of the corpus, that is continued, in digits; "" where that is not known.
        nll: under generation 0's model, nats per token; None where that was not measured.
        spans: statements in the text, from where to where, and what they are: `right`, `wrong` (not true in the known world),
            `odd` (no sentence of its language). Empty where nothing is known.
        shown: whether it continues one of the prompts that every model continues.
    """

    row: str
    prompt: str
    text: str
    nll: float | None = None
    spans: tuple[Span, ...] = ()
    shown: bool = False

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "row": self.row,
            "prompt": self.prompt[-LONGEST:],
            "text": self.text[:LONGEST],
            "nll": self.nll,
            "spans": [list(span) for span in self.spans if span[1] <= LONGEST],
            "shown": self.shown,
        }


VERDICTS = {"right": "right", "false": "wrong", "unknown": "wrong", "odd": "odd"}  # what is said of a sentence


def spans_of(prompt: str, text: str, sentences: object) -> tuple[Span, ...]:
    """Where the sentences of a prompt and its continuation that are judged stand in the continuation.

    Args:
        sentences: tables with `text` and `verdict`, in order; what is none, or cannot be found, is left out.
    """
    whole, end = prompt + text, 0
    spans: list[Span] = []
    for given in sentences if isinstance(sentences, list | tuple) else ():
        told, kind = table(given).get("text"), VERDICTS.get(str(table(given).get("verdict")))
        start = whole.find(told, end) if isinstance(told, str) and told else -1
        if start < 0 or kind is None:
            continue
        end = start + len(str(told))
        if end > len(prompt):
            spans.append((max(0, start - len(prompt)), end - len(prompt), kind))
    return tuple(spans)


def write(folder: Path, kept: Mapping[Where, Sequence[KeptText]]) -> None:
    """The file anew, whole or not at all; models beyond `MOST_BYTES` are left out."""
    lines, size = [], 0
    for where, texts in kept.items():
        place = {"policy": where.policy, "seed": where.seed, "generation": where.generation}
        line = sealed.line(place | {"texts": [text.record() for text in texts]})
        size += len(line)
        if size > MOST_BYTES:
            break
        lines.append(line)
    files.write_atomically(folder / FILE, "".join(lines))


def read(folder: Path) -> tuple[dict[Where, list[KeptText]], int]:
    """What there is, by model, and how many lines could not be read; nobody vouches for the file."""
    path = folder / FILE
    try:
        if path.stat().st_size > 2 * MOST_BYTES:
            return {}, 1
        lines, torn = sealed.of_file(path)
    except (OSError, InputError):
        return {}, 0
    kept: dict[Where, list[KeptText]] = {}
    for line in lines:
        policy, seed, generation = line.get("policy"), line.get("seed"), line.get("generation")
        if not isinstance(policy, str) or type(seed) is not int or type(generation) is not int:
            torn += 1
            continue
        kept[Where(policy, seed, generation)] = list(_texts(line.get("texts")))
    return kept, torn


def _texts(value: object) -> Iterable[KeptText]:
    for given in (value if isinstance(value, list) else [])[: 2 * EACH]:
        fields = table(given)
        text, prompt, row = fields.get("text"), fields.get("prompt"), fields.get("row")
        if isinstance(text, str):
            yield KeptText(
                row if isinstance(row, str) else "",
                prompt if isinstance(prompt, str) else "",
                text[:LONGEST],
                finite(fields.get("nll")),
                tuple(_spans(fields.get("spans"), len(text[:LONGEST]))),
                fields.get("shown") is True,
            )


def _spans(value: object, longest: int) -> Iterable[Span]:
    """Those that lie in the text, one behind another."""
    end = 0
    for span in value if isinstance(value, list) else ():
        if not (isinstance(span, list) and len(span) == 3 and type(span[0]) is int and type(span[1]) is int):
            continue
        start, stop, kind = span
        if end <= start < stop <= longest and kind in KINDS:
            yield start, stop, kind
            end = stop
