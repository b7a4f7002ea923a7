"""What is measured: token-weighted perplexity and its relatives, duplicates, guard rails."""

import math
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rows import changed, row_of

from collapse_cli.errors import InputError
from collapse_cli.findings.evaluated import Evaluated
from collapse_cli.metrics import duplicate_share, numbers, perplexity, share_with, text_measures, warnings
from collapse_cli.terminal.evaluation import evaluation_table
from collapse_cli.terminal.run_tables import perplexity_table


def test_perplexity_is_the_exponential_and_never_an_error() -> None:
    assert perplexity(0.0) == 1.0
    assert perplexity(math.log(42)) == pytest.approx(42)
    assert perplexity(1e6) == sys.float_info.max, "JSON has no infinity"
    assert math.isnan(perplexity(math.nan))


def test_measures_are_weighted_by_tokens_and_not_by_rows() -> None:
    """One row of 1 token at 4 nats and one of 9 tokens at 1 nat each: 1.3 nats per token, not (4 + 1) / 2."""
    found = text_measures(np.array([4.0, 9.0]), np.array([1, 9]), tokens=12, words=6, size=30)
    assert found["nll"] == pytest.approx(1.3)
    assert found["perplexity"] == pytest.approx(math.exp(1.3))
    assert found["predicted_tokens"] == 10
    assert type(found["predicted_tokens"]) is int


def test_words_and_bytes_are_those_of_the_text() -> None:
    """2 tokens a word and 0.4 tokens a byte: a word costs twice the nats of a token, a byte 0.4 of them."""
    found = text_measures(np.array([math.log(8) * 10]), np.array([10]), tokens=12, words=6, size=30)
    assert found["word_perplexity"] == pytest.approx(64)
    assert found["bits_per_byte"] == pytest.approx(3 * 0.4)


@pytest.mark.parametrize("words", [0, 1])
def test_where_no_word_ends_there_is_no_word_perplexity(words: int) -> None:
    """100 kB without a blank had one of 1.8e308, as if it had been measured; text of nothing but line ends none at all."""
    found = text_measures(np.array([8.0]), np.array([2]), tokens=40_000, words=words, size=100_000)
    assert found["word_perplexity"] is None
    assert found["bits_per_byte"] == pytest.approx(4 * 0.4 / math.log(2))
    assert (
        text_measures(np.array([8.0]), np.array([2]), 40_000, 2, 100_000)["word_perplexity"] is None
    )  # beyond all floats
    assert text_measures(np.array([8.0]), np.array([2]), 40, 2, 100)["word_perplexity"] == pytest.approx(math.exp(80))
    assert "not defined" in numbers.word_perplexity(None)
    row = row_of("keep-0", 0, 0, perplexity=54.0, word_perplexity=None, bits_per_byte=2.3)
    table = evaluation_table([Evaluated(row.where, "key", "perplexity", 54.0, row)], "run")
    assert list(table.columns[6].cells) == ["–"]
    assert "not defined: no white space" in str(table.caption)
    worded = Evaluated(row.where, "key", "perplexity", 54.0, changed(row, word_perplexity=90.0))
    assert evaluation_table([worded], "run").caption is None


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_an_error(loss: float) -> None:
    with pytest.raises(InputError, match=f"the model's loss on the test text is {loss}"):
        text_measures(np.array([1.0, loss]), np.array([1, 1]), 9, 3, 12)


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 30)), min_size=1, max_size=20), st.data())
def test_measures_do_not_depend_on_how_rows_are_grouped(rows: list[tuple[float, int]], data: st.DataObject) -> None:
    nll, predicted = np.array([loss * count for loss, count in rows]), np.array([count for _, count in rows])
    cut = data.draw(st.integers(0, len(rows)))
    grouped = text_measures(
        np.array([nll[:cut].sum(), nll[cut:].sum()]), np.array([predicted[:cut].sum(), predicted[cut:].sum()]), 9, 3, 12
    )
    assert grouped == pytest.approx(text_measures(nll, predicted, 9, 3, 12))


@given(st.lists(st.lists(st.integers(0, 1), min_size=2, max_size=2), max_size=12))
def test_the_share_of_duplicates_counts_repeats_of_earlier_rows(rows: list[list[int]]) -> None:
    repeats = sum(row in rows[:index] for index, row in enumerate(rows))
    tokens = np.array(rows, np.int32).reshape(-1, 2)
    assert duplicate_share(tokens) == pytest.approx(repeats / max(1, len(rows)))


def test_the_share_of_rows_with_certain_tokens_reads_only_their_used_part() -> None:
    tokens = np.array([[5, 1, 6], [5, 6, 1], [7, 7, 7], [9, 9, 1]])
    assert share_with(tokens, np.array([3, 2, 3, 3]), {1}) == 0.5
    assert share_with(tokens, np.array([3, 3, 3, 3]), {1, 7}) == 1.0
    assert share_with(tokens, np.array([1, 1, 1, 1]), {1}) == 0.0
    assert share_with(tokens, np.array([3, 3, 3, 3]), set()) == 0.0
    assert share_with(tokens[:0], np.array([], int), {1}) == 0.0


# --- guard rails ------------------------------------------------------------------------------------------------------

FINE = {"perplexity": 20.0, "real_rows": 10, "duplicate_share": 0.1, "special_token_share": 0.0}


def warned(row: dict[str, Any], before: dict[str, Any] | None = None, *, selects: bool = False) -> list[str]:
    return warnings(FINE | row, before, max_duplicates=0.2, selects=selects)


def test_nothing_is_said_of_a_row_that_is_fine() -> None:
    assert warned({}, {"perplexity": 19.0}) == []
    assert warned({"duplicate_share": 0.2}) == []
    assert warnings({"perplexity": 3.0, "real_rows": 1}, None, max_duplicates=0.0, selects=True) == []


@pytest.mark.parametrize(
    ("row", "before", "selects", "words"),
    [
        ({"duplicate_share": 0.35}, None, False, "35% of the synthetic rows repeat"),
        ({"special_token_share": 0.012}, None, False, "1.2% of the synthetic rows hold special tokens"),
        ({"perplexity": 20.001}, {"perplexity": 20.0}, False, "equals that of the generation before to 4 digits"),
        ({"real_rows": 0}, None, True, "real validation text chose the weights"),
    ],
)
def test_each_guard_rail_speaks_up(
    row: dict[str, Any], before: dict[str, Any] | None, selects: bool, words: str
) -> None:
    found = warned(row, before, selects=selects)
    assert len(found) == 1
    assert words in found[0]


def test_a_change_in_the_fourth_digit_is_a_change() -> None:
    assert warned({"perplexity": 20.01}, {"perplexity": 20.0}) == []
    assert warned({"perplexity": 12340.4}, {"perplexity": 12341.0}) != []


def test_a_perplexity_beyond_all_numbers_is_no_number_and_no_change() -> None:
    """Of weights that training blew up: 1.8e308 stood there as if measured, unchanged by +0%, "was it trained at all?"."""
    before, row = (
        row_of("keep-0", 0, g, **(FINE | {"perplexity": perplexity(loss), "nll": loss, "warnings": []}))
        for g, loss in enumerate((9e5, 8e5))
    )
    (said,) = warned(row.record(), before.record())
    assert said.startswith("the perplexity is larger than any number (a mean loss of 800,000 nats a token)")
    table = perplexity_table([before, row], "perplexity")
    shown = [str(cell) for column in table.columns for cell in column.cells]
    assert shown == ["0", "1", "above 1e308", "above 1e308"]
