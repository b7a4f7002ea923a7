"""Texts that models made, kept in the run folder for people to read: `samples.jsonl`, bounded in number and bytes.

Who writes it holds the run's lock. They are in no key, and no number comes from them: a run folder without the file only has less to read.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
MOST_BYTES = 8_000_000  # of the file, of which each model has an equal part
SHORT = 16  # hex digits of a key, and characters below which no text is cut
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


@dataclass(frozen=True)
class KeptTexts:
    """What the file holds.

    Attributes:
        texts: by model.
        keys: by model, of the stage that measured the samples these were taken from; "" where the line does not say.
        left_out: by model, how many texts there was no room for.
        torn: how many lines could not be read.
        fault: why nothing of the file could be read, in words; "" where it could, or there is none.
    """

    texts: Mapping[Where, Sequence[KeptText]] = field(default_factory=dict)
    keys: Mapping[Where, str] = field(default_factory=dict)
    left_out: Mapping[Where, int] = field(default_factory=dict)
    torn: int = 0
    fault: str = ""


def room_for(models: int) -> int:
    """Bytes of the line of each of so many models, so that every one has some and all are at most `MOST_BYTES`."""
    return MOST_BYTES // max(1, models)


def line_of(where: Where, key: str, texts: Sequence[KeptText], room: int, left_out: int = 0) -> str:
    """The line of a model: all its texts, or as many of them as there is room for, evenly chosen; the last one may be cut.

    Args:
        key: of the stage that measured the samples they were taken from.
        room: bytes, as `room_for` gives them.
        left_out: how many others there was no room for before.
    """
    place = {**where.arm.record(), "seed": where.seed, "generation": where.generation, "key": short(key)}
    line = ""
    for count in range(len(texts), -1, -1):
        some = [texts[round(at * (len(texts) - 1) / max(1, count - 1))] for at in range(count)]
        line = _line(place, some, left_out + len(texts) - count)
        while count == 1 and len(line) > room and max(len(some[0].prompt), len(some[0].text)) > SHORT:
            cut = max(len(some[0].prompt), len(some[0].text), 2) // 2
            some = [replace(some[0], prompt=some[0].prompt[-cut:], text=some[0].text[:cut])]
            line = _line(place, some, left_out + len(texts) - count)
        if len(line) <= room:
            break
    return line


def _line(place: Mapping[str, Any], texts: Sequence[KeptText], left_out: int) -> str:
    return sealed.line({**place, "left_out": left_out, "texts": [text.record() for text in texts]})


def short(key: str) -> str:
    """A key as lines have it."""
    return key[:SHORT]


def rewrite(folder: Path, lines: Iterable[str]) -> None:
    """The file with these lines and no others, whole or not at all; one that has them is left as it is."""
    path, content = folder / FILE, "".join(lines)
    if not (kind := files.what_is(path)):
        return
    larger = kind == "file" and path.stat().st_size > len(content.encode())  # of whatever size: it is not read
    if larger or files.read_bytes(path) != content.encode():
        files.write_atomically(path, content)


def version_of(folder: Path) -> tuple[int, int, int] | None:
    """What tells one content of the file from the next: which file, its size, its time; None where there is none."""
    try:
        now = (folder / FILE).stat()
    except OSError:
        return None
    return now.st_ino, now.st_size, now.st_mtime_ns


def add(folder: Path, line: str) -> None:
    """A line more; after one that a kill tore, on a line of its own."""
    sealed.append_lines(folder / FILE, [line])


def read(folder: Path) -> KeptTexts:
    """What there is; nobody vouches for the file."""
    path = folder / FILE
    try:
        if files.what_is(path) == "file" and path.stat().st_size > 2 * MOST_BYTES:
            return KeptTexts(fault=f"{FILE} has more than {2 * MOST_BYTES:,} bytes, which no run writes")
        lines, torn = sealed.of_file(path)
    except InputError as error:
        return KeptTexts(fault=str(error).replace(str(path), FILE))  # a page does not say where it was made
    except OSError:  # it went in this moment
        return KeptTexts()
    kept: dict[Where, list[KeptText]] = {}
    keys: dict[Where, str] = {}
    left_out: dict[Where, int] = {}
    for line in lines:
        policy, seed, generation = line.get("policy"), line.get("seed"), line.get("generation")
        lineage = line.get("lineage", "")
        if not (isinstance(policy, str) and isinstance(lineage, str) and type(seed) is type(generation) is int):
            torn += 1
            continue
        where, key, missing = Where(policy, seed, generation, lineage), line.get("key"), line.get("left_out")
        kept[where] = list(_texts(line.get("texts")))
        keys[where] = key if isinstance(key, str) else ""
        left_out[where] = missing if type(missing) is int and 0 <= missing <= 2 * EACH else 0
    return KeptTexts(kept, keys, left_out, torn)


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
