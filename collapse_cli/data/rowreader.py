"""From the records of files and tables to rows, and what is said of those that are passed over."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from collapse_cli.data.dialogues import Unfit
from collapse_cli.data.forms import TEXT, Form, WantedForm, form_of
from collapse_cli.data.longtext import Spool, joined
from collapse_cli.data.textformats import WITH_COLUMNS, Lines, LongLines, Records
from collapse_cli.errors import InputError, how_many

MARK = "\ufeff"  # a byte order mark
NAMED = 3  # files or columns that a message names of many


class RowReader:
    """Reads the rows of several splits, which all are of one kind.

    Attributes:
        form: what rows are; None before any was read.
        notes: on what was passed over.
    """

    def __init__(self, asked: WantedForm) -> None:
        self.asked = asked
        self.form: Form | None = None
        self.notes: list[str] = []

    def read(self, names: str, parts: Iterable[Records]) -> Sequence[str]:
        """The rows of one split; `names`: of its files, for people."""
        texts, dialogues = Spool(), list[str]()
        before: list[Sequence[str]] = []  # texts of files whose rows stay there, and those between them
        unfit: Counter[str] = Counter()
        first_unfit: dict[str, str] = {}
        late = missing = marks = total = 0
        unused: Counter[str] = Counter()
        beside: dict[str, None] = {}
        for part in parts:
            form = self._form(part, names)
            if isinstance(part, LongLines):  # which has no row without text, and no mark
                before += [texts.rows(), part.rows]
                texts = Spool()
            elif form.kind == "text":
                for row in part.texts(form.columns[0]):
                    missing += row is None
                    marks += row is not None and MARK in row
                    texts.append(row or "")
            else:
                beside |= dict.fromkeys(form.beside(part.names))
                for where, cells in part.cells(form.columns):
                    total += 1
                    try:
                        dialogues.append(made := form.dialogue(cells, where))
                        marks += MARK in made
                        late += made.late > 0
                        unused.update(made.unused)
                    except Unfit as why:
                        unfit[str(why)] += 1
                        first_unfit.setdefault(str(why), where)
        rows = joined([*before, texts.rows(), dialogues])
        if missing:
            self.notes.append(
                f"{names}: rows without text (null): {missing:,} of {len(rows):,}; they are read as blank lines"
            )
        if marks:
            self.notes.append(
                f"{names}: rows with a byte order mark (U+FEFF), as when files were joined: {marks:,} of {len(rows):,}; it is "
                "read as text"
            )
        passed = [f"{count:,} {why} (the first: {Path(first_unfit[why]).name})" for why, count in unfit.most_common()]
        if total and not rows:
            raise InputError(
                f"{names}: none of {how_many(total, 'row')} has a prompt and an answer: {'; '.join(passed[:NAMED])}"
            )
        if passed:
            self.notes.append(f"{names}: rows passed over, of {total:,}: {'; '.join(passed)}")
        if beside:
            self.notes.append(
                f"{names}: nothing is made of the columns {', '.join(beside)}: models see and learn what is in {form} alone"
            )
        if unused:
            fields = [f"{name} (in {count:,} of {len(rows):,} rows)" for name, count in sorted(unused.items())]
            self.notes.append(
                f"{names}: nothing is made of what messages say besides role and content: {', '.join(fields)}; every turn of the assistant "
                "is learned, as it stands in its content"
            )
        if late:
            self.notes.append(
                f"{names}: chats that go on after the assistant's last turn: {late:,} of {len(rows):,}; what follows it is left out"
            )
        return rows

    def _form(self, part: Records, names: str) -> Form:
        """What the rows of a part are; all must be of one kind."""
        plain = isinstance(part, Lines)
        if plain and (self.asked.form in ("chat", "pairs") or self.asked.prompt or self.asked.completion):
            raise InputError(
                f"{names} is plain text, without columns; chats and pairs are read from files of {' '.join(WITH_COLUMNS)}"
            )
        form = Form("text", (TEXT,)) if plain else form_of(part.names, self.asked, names)
        if self.form is None:
            self.form = form
            if form.others:
                self.notes.append(
                    f"{names}: read as {form}, though there are {form.others}; for those, say data.format"
                )
        elif (self.form.kind == "text") != (form.kind == "text"):
            raise InputError(
                f"{names}: rows here are {form}, and elsewhere {self.form}; say data.format, or keep those of one kind"
            )
        return form
