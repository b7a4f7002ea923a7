"""What a comparison of a real with a synthetic text says, in sentences and figures; from its record alone.

Words that claim something stand only where an interval, or a count of all rows, allows them. A record comes from a folder that nobody vouches for:
what it holds is read once, here, and one that is not what `collapse check` writes is refused whole.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collapse_cli.errors import InputError, enumerated, how_many
from collapse_cli.metrics.intervals import LEVEL, Interval
from collapse_cli.metrics.numbers import percent, spread, value

ALIKE = 0.55  # the AUC below which the whole interval must lie for "cannot be told apart"
GRADES = ((0.99, "almost always"), (0.85, "mostly"), (0.65, "often"), (0.0, "sometimes"))  # told apart, by AUC
MENTIONED = 0.01  # share of rows from which on duplicates are spoken of
MOST = 0.999  # as good as all rows
NAMED = 3  # phrases in a sentence
TWINS = 2  # of two rows that are alike one repeats an earlier one, but both stand in another text of as many rows that has the like


@dataclass(frozen=True)
class MeasureWords:
    """How a measure of `collapse check` is spoken of.

    Attributes:
        title: in tables, with its unit.
        lower: what the synthetic text does where its value is the lower one: "The synthetic text …".
        higher: the same, where its value is the higher one.
        worse: the sign of a difference, synthetic minus real, that is a loss; 0 where neither is.
        share: whether values are shares, written in percent.
    """

    title: str
    lower: str
    higher: str
    worse: int
    share: bool = False


TITLES = {
    "distinct_1": MeasureWords(
        "different words per word", "uses fewer different words", "uses more different words", -1, share=True
    ),
    "distinct_2": MeasureWords(
        "different pairs of words per pair",
        "has fewer different pairs of words",
        "has more different pairs of words",
        -1,
        share=True,
    ),
    "unigram_entropy": MeasureWords("entropy of words, nats", "uses words less evenly", "uses words more evenly", -1),
    "compression": MeasureWords("compression ratio", "can be compressed less", "can be compressed more", 1),
    "self_bleu": MeasureWords(
        "self-BLEU, of rows to each other", "has rows less like each other", "has rows more like each other", 1
    ),
    "rep_4": MeasureWords(
        "4-word phrases repeated in a row",
        "repeats itself less within a row",
        "repeats itself more within a row",
        1,
        share=True,
    ),
    "length": MeasureWords("words in a row", "has shorter rows", "has longer rows", 0),
}


@dataclass(frozen=True)
class Remark:
    """A sentence.

    Attributes:
        tone: `bad`, `good`, or `plain` where it is neither.
        text: plain text, with words of the compared texts in it.
        weight: how much is concerned, 0 to 1, by which the worst comes first: a share of rows, or how far from chance to certainty.
    """

    tone: str
    text: str
    weight: float = 0.0

    def record(self) -> dict[str, str]:
        """As JSON."""
        return {"tone": self.tone, "text": self.text}


@dataclass(frozen=True)
class CheckTable:
    """A table: plain text.

    Attributes:
        misses: what its numbers do not say.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    misses: str = ""


@dataclass(frozen=True)
class TwoTexts:
    """What is known of two texts without training.

    Attributes:
        remarks: what matters, in sentences; the worst first.
        tables: figures behind them.
        examples: by title, texts to look at: each a few rows that belong together.
        notes: of the texts, and of what was left out.
    """

    real: str
    synthetic: str
    remarks: Sequence[Remark]
    tables: Sequence[CheckTable]
    examples: Mapping[str, Sequence[Sequence[str]]]
    notes: Sequence[str] = field(default_factory=tuple)


def compared(record: Mapping[str, Any]) -> TwoTexts:
    """From the record that `collapse check` writes.

    Raises:
        InputError: when it is none.
    """
    worst_first = {"bad": 0, "plain": 1, "good": 2}
    try:
        texts = {name: _Source.of(record["texts"][name]) for name in ("real", "synthetic")}
        return TwoTexts(
            texts["real"].name,
            texts["synthetic"].name,
            sorted(
                [
                    *_copies(record),
                    *_repeats(record),
                    *_telling(record),
                    *_missing(record),
                    *_measures(record),
                    *_test(record),
                ],
                key=lambda remark: (worst_first[remark.tone], -remark.weight),
            ),
            _tables(record, texts),
            _examples(record),
            _notes(record),
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise InputError(f"it is not what `collapse check` writes ({type(error).__name__})") from None


@dataclass(frozen=True)
class _Source:
    name: str
    rows: int
    distinct: int
    characters: int
    notes: Sequence[str]

    @staticmethod
    def of(record: Mapping[str, Any]) -> "_Source":
        name, notes = Path(str(record["source"])).name[:100], [str(note)[:500] for note in record["notes"][:20]]
        return _Source(name, int(record["rows"]), int(record["distinct_rows"]), int(record["characters"]), notes)


def _copies(record: Mapping[str, Any]) -> list[Remark]:
    """Rows of one text that stand in the other."""
    found = record["between"]
    share, rows = float(found["copied_share"]), int(record["texts"]["synthetic"]["rows"])
    said = []
    own = TWINS * float(record["repeats"]["real"]["share"])  # rows of one source are alike now and then
    if share >= MOST:
        said.append(
            Remark(
                "bad",
                f"Every row of the synthetic text stands in the real one, word for word ({rows:,} rows): it is a copy, with nothing new in it.",
                1.0,
            )
        )
    elif share >= MENTIONED:
        said.append(
            Remark(
                "bad" if _more(int(found["copies"]), rows, own) else "plain",
                f"{percent(share)} of the synthetic rows ({int(found['copies']):,} of {rows:,}) stand in the real text, word for word.",
                share,
            )
        )
    close, looked_at = float(found["near_share"]), found["compared"]
    if close >= MENTIONED:
        said.append(
            Remark(
                "bad"
                if _more(int(found["near"]), int(looked_at[1]), TWINS * float(record["near"]["real"]["removed_share"]))
                else "plain",
                f"A further {percent(close)} of the synthetic rows that differ ({int(found['near']):,} of {int(looked_at[1]):,}) are near copies of a real row "
                "(at least 80% of their three-word phrases are the same).",
                close,
            )
        )
    if not said:
        said.append(Remark("good", "Next to no synthetic row is a copy of a real one, or near one."))
    return said


def _repeats(record: Mapping[str, Any]) -> list[Remark]:
    """Rows that stand more than once in one text."""
    said = []
    ours, theirs = (record["repeats"][name] for name in ("real", "synthetic"))
    for name, mine, others in (("synthetic", theirs, ours), ("real", ours, theirs)):
        share, largest = float(mine["share"]), int(mine["largest"])
        if share < MENTIONED and largest < 10:
            continue
        other = "real" if name == "synthetic" else "synthetic"
        beside = f"; of the {other} text it is {percent(float(others['share']))}" if name == "synthetic" else ""
        said.append(
            Remark(
                "bad" if _more(int(mine["repeats"]), int(mine["rows"]), float(others["share"])) else "plain",
                f"{percent(share)} of the {name} rows repeat an earlier one ({int(mine['repeats']):,} of {int(mine['rows']):,}); "
                f"{how_many(int(mine['repeated_rows']), 'row')} stand{'s' if mine['repeated_rows'] == 1 else ''} more than once, the most frequent {largest:,} times{beside}. "
                "Leave one of each, or a model learns these by heart.",
                share if name == "synthetic" else share / 2,
            )
        )
    near = record["near"]["synthetic"]
    gone, most, unlike = float(near["removed_share"]), int(near["largest_cluster"]), near["largest_unlike_share"]
    if gone >= MENTIONED:
        own = float(record["near"]["real"]["removed_share"])
        merged = ""
        if unlike is not None and float(unlike) > 0:
            merged = f", {percent(float(unlike))} of whose rows are not near the one that would be kept: removing near duplicates would merge too much here"
        said.append(
            Remark(
                "bad" if gone > 2 * own + 0.01 else "plain",
                f"Of the synthetic rows that differ, {percent(gone)} are near an earlier one (of the real ones {percent(own)}); the largest cluster has "
                f"{how_many(most, 'row')}{merged}.",
                gone,
            )
        )
    return said


def _telling(record: Mapping[str, Any]) -> list[Remark]:
    found, halves = record["telling"], record["halves"]
    auc, low, high = (float(found[name]) for name in ("auc", "low", "high"))
    beside = f"AUC {auc:.2f}, {low:.2f} to {high:.2f}; two parts of the real text against each other {float(halves['auc']):.2f}, {float(halves['low']):.2f} to {float(halves['high']):.2f}"
    likeness = _likeness(found)
    grouped = (
        ""
        if likeness is not None
        else " Near duplicates are too many to keep them out of the rows that it was judged on, so it may know some by heart."
    )
    if low > 0.5:
        word = next(word for least, word in GRADES if auc >= least)
        length = found["length"]
        by_length = (
            f" By the length of rows alone: AUC {max(float(length['auc']), 1 - float(length['auc'])):.2f}."
            if float(length["low"]) > 0.5 or float(length["high"]) < 0.5
            else ""
        )
        topics = (
            " Two parts of the real text can be told apart as well, so some of that is what they are about."
            if float(halves["low"]) > 0.5
            else ""
        )
        tone = "bad" if auc >= 0.65 else "plain"
        return [
            Remark(
                tone,
                f"A small classifier can {word} tell synthetic rows from real ones ({beside}).{by_length}{topics}{grouped}",
                2 * auc - 1,
            )
        ]
    if high <= ALIKE:
        return [
            Remark(
                "good", f"They cannot be told apart: a small classifier does no better than chance ({beside}).{grouped}"
            )
        ]
    return [
        Remark(
            "plain",
            f"A small classifier is not shown to tell them apart, but {how_many(int(found['rows']), 'row')} of each are too few to say that nothing could ({beside}).{grouped}",
        )
    ]


def _likeness(found: Mapping[str, Any]) -> float | None:
    """From how like on rows were judged together; None where only rows that are the same were. Records before version 4 say whether near ones were."""
    if "likeness" not in found:
        return 0.8 if found["grouped"] else None
    return None if found["likeness"] is None else float(found["likeness"])


def _missing(record: Mapping[str, Any]) -> list[Remark]:
    found = record["missing"]
    if found is None:
        return []
    said = []
    parts = record.get("missing_halves")  # of a text whose rows hang together as much is missing in more of the same
    own = [int(parts[name]["count"]) for name in ("of_real", "of_synthetic")] if parts else [0]
    expected = 2 * max(own)  # the parts are half as large
    for name, of, other in (("of_real", "real", "synthetic"), ("of_synthetic", "synthetic", "real")):
        count, shown = int(found[name]["count"]), found[name]["shown"]
        if count:
            few = ", ".join(
                f"“{str(one['phrase'])[:40]}” (expected in {int(one['expected']):,} rows, stands in {int(one['seen']):,})"
                for one in shown[:NAMED]
            )
            beside = (
                f" Of two parts of the real text, one lacks {max(own):,} of the other's as well: rows hang together (by topic or author), so chance is more than is allowed for here."
                if max(own)
                else ""
            )
            said.append(
                Remark(
                    "bad" if of == "real" and (not max(own) or count > expected + 3 * math.sqrt(expected)) else "plain",
                    f"{how_many(count, 'word or phrase') if count == 1 else f'{count:,} words and phrases'} of the {of} text {'is' if count == 1 else 'are'} missing or rare in the {other} one, "
                    f"beyond {'the chance of rows that are drawn one by one' if max(own) else 'chance'}: {few}.{beside}",
                    max((int(one["expected"]) - int(one["seen"]) for one in shown), default=0)
                    / max(1, int(record["counted"][of])),
                )
            )
        elif of == "real":
            said.append(
                Remark(
                    "good",
                    "No frequent word or phrase of the real text is missing in the synthetic one, beyond chance.",
                )
            )
    return said


def _measures(record: Mapping[str, Any]) -> list[Remark]:
    worse: list[str] = []
    better: list[str] = []
    other: list[str] = []
    most = 0.0
    for one in record["measures"]:
        if one["name"] not in TITLES:
            continue
        difference = _interval(one["difference"])
        if difference.low is None or difference.high is None or difference.low <= 0 <= difference.high:
            continue
        words = TITLES[one["name"]]
        number = percent if words.share else value
        found = words.lower if difference.mean < 0 else words.higher
        at = worse if words.worse * difference.mean > 0 else better if words.worse else other
        at.append(f"{found} ({number(float(one['synthetic']['mean']))} against {number(float(one['real']['mean']))})")
        if at is worse:
            least, largest = sorted(abs(float(one[name]["mean"])) for name in ("real", "synthetic"))
            most = max(most, largest - least if words.share else 1 - least / largest)
    said = [
        Remark(tone, f"The synthetic text {enumerated(parts)}.", weight)
        for tone, parts, weight in (("bad", worse, most / 2), ("plain", better, 0.0), ("plain", other, 0.0))
        if parts
    ]
    if record["measures"] and not said:
        said.append(
            Remark(
                "good",
                f"Neither diversity nor repetition nor length is shown to differ, over {int(record['equal_words']):,} {record['unit']!s:.20} of each.",
            )
        )
    return said


def _test(record: Mapping[str, Any]) -> list[Remark]:
    found = record["test"]
    rows, copies = int(found["long_rows"]), int(found["copies"])
    which = "rows put aside of the real text" if found["held_out"] else "test rows"
    said = []
    if copies:
        said.append(
            Remark(
                "bad" if _more(copies, rows, TWINS * float(record["repeats"]["real"]["share"])) else "plain",
                f"{copies:,} of {rows:,} {which} {'stands' if copies == 1 else 'stand'} in the synthetic text, word for word: a model trained on it has seen "
                f"{'it' if copies == 1 else 'them'}. Training here leaves {'it' if copies == 1 else 'them'} out.",
                copies / max(1, rows),
            )
        )
    passages, long = int(found["passages"]), int(found["passage_rows"])
    alike, few = found["alike"], int(found["alike_rows"])
    if passages > copies and long:
        ours, theirs = int(alike["real"]), int(alike["synthetic"])
        beside = f"of {few:,} rows of each, the synthetic text shares one with {theirs:,} of them and the real text with {ours:,}"
        if _beyond(theirs - copies, ours):
            said.append(
                Remark(
                    "bad",
                    f"{passages:,} of {long:,} {which} share a passage of {int(found['passage_words'])} words with the synthetic text ({beside}).",
                    (passages - copies) / long / 2,
                )
            )
    if not said and rows:
        said.append(Remark("good", f"None of {rows:,} {which} with 8 words or more stands in the synthetic text."))
    return said


def _beyond(more: int, less: int) -> bool:
    """Whether one count of rows is above another beyond chance: of both together binomial with one half, 2.5% on this side."""
    from scipy.special import bdtrc  # scipy.stats gives the same number and takes a second to import

    return more > less and bool(bdtrc(more - 1, more + less, 0.5) <= (1 - LEVEL) / 2)


def _tables(record: Mapping[str, Any], texts: Mapping[str, _Source]) -> list[CheckTable]:
    unit = str(record["unit"])[:20]
    rows = [
        ["rows", *(f"{texts[name].rows:,}" for name in texts)],
        ["rows that differ", *(f"{texts[name].distinct:,}" for name in texts)],
        ["characters", *(f"{texts[name].characters:,}" for name in texts)],
        ["rows that repeat an earlier one", *(percent(float(record["repeats"][name]["share"])) for name in texts)],
        [
            "of the others, near an earlier one",
            *(percent(float(record["near"][name]["removed_share"])) for name in texts),
        ],
        [
            "largest cluster of near ones, rows",
            *(f"{int(record['near'][name]['largest_cluster']):,}" for name in texts),
        ],
    ]
    quantiles = [record["lengths"][name]["quantiles"] for name in texts]
    rows += [
        [f"{unit} in a row, {said}", *(f"{float(q[at]):,.0f}" for q in quantiles)]
        for at, said in (
            ("0.05", "5% have fewer than"),
            ("0.5", "half have fewer than"),
            ("0.95", "95% have fewer than"),
        )
    ]
    tables = [CheckTable("The two texts", ["", "real", "synthetic"], rows)]
    if record["measures"]:
        body = []
        for one in record["measures"]:
            if one["name"] in TITLES:
                words = TITLES[one["name"]]
                change = _interval(one["difference"])
                sign = f"{change.mean * 100:+.2g} points" if words.share else f"{change.mean:+.3g}"
                sure = change.low is not None and change.high is not None and not change.low <= 0 <= change.high
                body.append(
                    [
                        words.title,
                        *(_mean(_interval(one[name]), share=words.share) for name in ("real", "synthetic")),
                        sign if sure else "not shown",
                    ]
                )
        tables.append(
            CheckTable(
                f"Diversity, repetition, length, over {int(record['equal_words']):,} {unit} of each",
                ["", "real", "synthetic", "difference"],
                body,
                "Rows count once. Means over ten groups of rows with 95% intervals; a difference is said where its interval, with allowance for "
                f"{len(record['measures'])} measures, leaves out 0.",
            )
        )
    missing = record["missing"]
    if missing is not None:
        for name, title in (
            ("of_real", "Of the real text, missing or rare in the synthetic one"),
            ("of_synthetic", "Of the synthetic text, missing or rare in the real one"),
        ):
            body = [
                [f"“{str(one['phrase'])[:100]}”", f"{int(one['expected']):,}", f"{int(one['seen']):,}"]
                for one in missing[name]["shown"]
            ]
            if body:
                more = int(missing[name]["count"])
                tables.append(
                    CheckTable(
                        f"{title}: {more:,} words and phrases",
                        ["phrase", "expected in rows", "stands in rows"],
                        body,
                        f"Chance alone would name a phrase in one of 20 comparisons: {int(missing['tested']):,} phrases were tested, and the level is 5% divided by that. "
                        "Parts of a phrase that is named are left out.",
                    )
                )
    return tables


def _examples(record: Mapping[str, Any]) -> dict[str, list[list[str]]]:
    """Rows to look at, by title."""
    shown: dict[str, list[list[str]]] = {}
    for name in ("synthetic", "real"):
        shown[f"Rows that stand more than once in the {name} text"] = [
            [f"{int(one['rows']):,} times: {_text(one['text'])}"] for one in record["repeats"][name]["shown"]
        ]
        shown[f"Rows of the {name} text near each other"] = [
            [_text(text) for text in one["texts"][:3]] for one in record["near"][name]["shown"]
        ]
    shown["Synthetic rows that are real ones"] = [[_text(text)] for text in record["between"]["copied"]]
    shown["A synthetic row, and the real one that it is near"] = [
        [_text(one["synthetic"]), _text(one["real"])] for one in record["between"]["shown"]
    ]
    shown["Test rows that stand in the synthetic text, whole or by a passage"] = [
        [_text(text)] for text in record["test"]["shown"]
    ]
    return {title: groups[:3] for title, groups in shown.items() if groups}


def _notes(record: Mapping[str, Any]) -> list[str]:
    notes = []
    for name in ("real", "synthetic", "test"):
        if name in record["texts"]:
            notes += [f"{name} text: {note}" for note in _Source.of(record["texts"][name]).notes]
    for name in ("real", "synthetic"):
        counted, source = int(record["counted"][name]), int(record["texts"][name]["distinct_rows"])
        if counted < source:
            notes.append(
                f"of {source:,} rows of the {name} text that differ, {counted:,} drawn at random are compared; near duplicates are looked for among these, so there may be more"
            )
        cut = float(record["lengths"][name]["cut_share"])
        if cut > 0:
            notes.append(
                f"{percent(cut)} of the {name} rows have more than {int(record['counted']['width']):,} {record['unit']!s:.20}; of these only the first are compared"
            )
    likeness = _likeness(record["telling"])
    if likeness is not None and "likeness" in record["telling"]:
        notes.append(
            f"the classifier is judged on stretches of neighbouring rows; rows that share {percent(likeness)} of their three-word phrases are judged together. "
            "Rows about one thing that are neither neighbours nor as alike count as if they were drawn one by one, and can make two texts of one source seem to differ"
        )
    if record["unit"] == "characters":
        notes.append("no white space parts these texts into words, so characters are compared in place of words")
    if not record["measures"]:
        notes.append(
            "there is too little text for groups of rows, so diversity, repetition and what is missing are not compared; give more rows"
        )
    return notes


def _interval(record: Mapping[str, Any]) -> Interval:
    low, high = (None if record[end] is None else float(record[end]) for end in ("low", "high"))
    return Interval(float(record["mean"]), low, high, int(record["n"]))


def _more(count: int, rows: int, own: float) -> bool:
    """Whether there are more than as many as the real text repeats itself: three standard deviations of such a count, and one for none at all."""
    expected = own * rows
    return count > expected + 3 * math.sqrt(expected + 1)


def _mean(over: Interval, *, share: bool) -> str:
    """A mean over groups; what has no width, or none that can be seen, stands alone."""
    if over.low is None or over.high is None or over.low == over.high:
        return (percent if share else value)(over.mean)
    return spread(over, share=share)


def _text(text: object) -> str:
    return str(text)[:300]
