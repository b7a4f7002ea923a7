"""Dialogues as rows of tokens of bounded length, and what became of those that are longer."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from collapse_cli.data.dataset import MASK, PROMPT, Dataset
from collapse_cli.data.dialogues import Dialogue
from collapse_cli.errors import InputError, how_many
from collapse_cli.lm.chats import ChatTemplate, Coded, Filled, RefusedError
from collapse_cli.lm.text import CHARACTERS_AT_ONCE


@dataclass
class DialogueRows:
    """Dialogues as rows of tokens, and what became of them.

    Attributes:
        what: the text that they are, for people.
        total: how many dialogues it has.
        most: tokens that a row may have.
        rows: `tokens` (rows, width) and `lengths` (rows,), with `MASK` and `PROMPT`.
        kept: (rows,) which dialogue each is.
        answers: (rows,) how many answers of it each has.
        said: of each, what is counted of it as text.
        counts: why others were passed over, and how often.
        shortened, cut: rows whose last turns were left out, and rows whose answer was cut, to make them short enough.
        longest: tokens of the longest dialogue.
    """

    what: str
    total: int
    most: int
    rows: Dataset
    kept: np.ndarray
    answers: np.ndarray
    said: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    shortened: int = 0
    cut: int = 0
    longest: int = 0

    @property
    def passed_over(self) -> str:
        """A note on the dialogues that are no rows; "" where all are."""
        reasons = "; ".join(f"{count:,} {why}" for why, count in self.counts.most_common())
        return f"the {self.what} text: rows passed over, of {self.total:,}: {reasons}" if reasons else ""

    @property
    def notes(self) -> list[str]:
        """What the user should know of them."""
        said = [self.passed_over] if self.passed_over else []
        long = [
            *([f"{self.shortened:,} without their last turns"] if self.shortened else []),
            *([f"{self.cut:,} cut in the answer, which then does not end"] if self.cut else []),
        ]
        if long:
            said.append(
                f"the {self.what} text: rows of more than data.block_size = {self.most} tokens, of {self.total:,}: {'; '.join(long)}; the longest has "
                f"{self.longest:,}"
            )
        return said


def coded_rows(template: ChatTemplate, dialogues: Sequence[Dialogue], most: int, what: str) -> DialogueRows:
    """Dialogues as rows of at most `most` tokens.

    One that is longer loses its last turns, up to an answer that fits; where not even the first does, that is cut; where not even its
    prompt does, the dialogue is passed over.

    Args:
        what: the text, for messages.

    Raises:
        InputError: when nothing is left.
    """
    counts: Counter[str] = Counter()
    kept: list[int] = []
    rows: list[Coded] = []
    none = np.zeros(0, np.int32)
    made = DialogueRows(what, len(dialogues), most, Dataset({}, none), none, none, counts=counts)
    for portion in _portions(template, dialogues, counts):
        for (number, _), row in zip(portion, template.coded([filled for _, filled in portion]), strict=True):
            made.longest = max(made.longest, len(row.ids))
            fitting = [answer for answer in row.answers if answer[1] <= most]
            if len(row.ids) > most and fitting:
                made.shortened += 1
                row = Coded(row.ids[: fitting[-1][1]], fitting, row.said[: len(fitting)])
            elif len(row.ids) > most:
                start = row.answers[0][0]
                if start >= most:
                    counts[f"whose prompt alone has more than data.block_size = {most} tokens"] += 1
                    continue
                made.cut += 1
                said: str = template.tokenizer.decode(row.ids[start:most], clean_up_tokenization_spaces=False)
                row = Coded(row.ids[:most], [(start, most)], [said])
            if row.answers[-1][0] == 0:
                counts["whose answer has nothing before it"] += 1
                continue
            kept.append(number)
            made.said.append("".join(row.said))
            rows.append(row)
    if not rows:
        reasons = "; ".join(f"{count:,} {why}" for why, count in counts.most_common()) or "there is none"
        long = f"; the longest has {made.longest:,} tokens: raise data.block_size" if made.longest > most else ""
        raise InputError(f"the {what} text: none of {how_many(len(dialogues), 'row')} can be used: {reasons}{long}")
    made.rows, made.kept = _dataset(rows), np.array(kept, np.int64)
    made.answers = np.array([len(row.answers) for row in rows], np.int32)
    return made


def _portions(
    template: ChatTemplate, dialogues: Sequence[Dialogue], counts: "Counter[str]"
) -> Iterator[list[tuple[int, Filled]]]:
    """Dialogues as the template writes them, with their numbers, as many together as make `CHARACTERS_AT_ONCE`."""
    some: list[tuple[int, Filled]] = []
    size = 0
    for number, dialogue in enumerate(dialogues):
        try:
            filled = template.written(dialogue)
        except RefusedError as why:
            counts[str(why)] += 1
            continue
        some.append((number, filled))
        size += len(filled.text)
        if size > CHARACTERS_AT_ONCE:
            yield some
            some, size = [], 0
    if some:
        yield some


def _dataset(rows: Sequence[Coded]) -> Dataset:
    made = Dataset.of_tokens([row.ids for row in rows])
    mask = np.zeros(made.arrays["tokens"].shape, bool)
    for number, row in enumerate(rows):
        for first, last in row.answers:
            mask[number, first:last] = True
    prompt = np.array([row.answers[-1][0] for row in rows], np.int32)
    return Dataset({**made.arrays, MASK: mask, PROMPT: prompt}, made.origin)
