"""The one type of a row: which model it is of, its numbers by name under one rule, and what else it holds."""

import json
import math
import sys
from typing import Any

import pytest
from support.rows import cell_of, changed, row_of, without

from collapse_cli.config.cell import Cell
from collapse_cli.records import fields
from collapse_cli.records.row import Row
from collapse_cli.where import Where


def test_a_row_says_of_which_model_it_is_and_is_written_as_it_was_read() -> None:
    line = {"policy": "keep-0", "seed": 1, "generation": 2, "perplexity": 30, "of a later version": {"x": [1]}}
    row = Row.of(line)
    assert row is not None
    assert row.where == Where("keep-0", 1, 2)
    assert json.dumps(row.record()) == json.dumps(line), "in its order, with what is not known here"
    assert Row.at(row.where, {"perplexity": 30, "of a later version": {"x": [1]}}) == row


def test_a_cell_s_label_stands_where_a_policy_would() -> None:
    cell = Cell(90, 10, quality=0.5)
    row = cell_of(cell.label, 3, **cell.record(), error=0.1)
    assert row.where == Where("", 3, 0, cell="n=100 p2=0.1 c2=0.5")
    assert row.fields["policy"] == row.where.name == cell.label
    assert Row.of(row.record()) == row
    assert row.coordinates == {"rows": 100, "real_rows": 90, "synthetic_rows": 10, "share": 0.1, "quality": 0.5}
    assert row_of("keep-0", 0, 0, error=0.1).coordinates == {}


def test_a_run_of_one_lineage_has_no_such_field() -> None:
    assert "lineage" not in row_of("keep-0", 0, 0).fields
    row = Row.at(Where("keep-0", 0, 1, lineage="b"), {"nll": 4.0})
    assert list(row.fields) == ["policy", "seed", "generation", "lineage", "nll"]
    assert Row.of(row.record()) == row
    assert str(row.where) == "b, seed 0, generation 1, keep-0"


@pytest.mark.parametrize(
    "line",
    [
        {}, {"policy": "keep-0", "seed": 0}, {"policy": "keep-0", "seed": True, "generation": 0},
        {"policy": "keep-0", "seed": 0, "generation": 1.0}, {"policy": ["keep-0"], "seed": 0, "generation": 0},
        {"policy": None, "seed": 0, "generation": 0}, {"policy": "keep-0", "seed": 0, "generation": 0, "lineage": 1},
    ],
)  # fmt: skip
def test_a_line_of_no_model_is_no_row(line: dict[str, Any]) -> None:
    assert Row.of(line) is None


@pytest.mark.parametrize(
    "bad", [None, math.nan, math.inf, -math.inf, sys.float_info.max, 10**400, "3", True, [3.0], {}, "absent"]
)
def test_what_is_no_finite_number_is_none(bad: Any) -> None:
    row = row_of("keep-0", 0, 0, distinct_2=bad)
    row = without(row, "distinct_2") if bad == "absent" else row
    assert row.measure("distinct_2") is None
    assert list(row.malformed()) == ([] if bad in (None, "absent") else ["distinct_2"])
    assert row_of("keep-0", 0, 0, distinct_2=3).measure("distinct_2") == 3.0


def test_numbers_by_part_are_all_there_or_none() -> None:
    deciles = [1.5, None, *[2.5] * 8]
    row = row_of("keep-0", 0, 1, nll_by_decile=deciles)
    assert row.parts("nll_by_decile") == tuple(deciles)
    assert (row.measure("nll_by_decile", 0), row.measure("nll_by_decile", 1)) == (1.5, None)
    for bad in (deciles[:9], [*deciles[:9], math.nan], [*deciles[:9], "2"], 3.0):
        spoiled = changed(row, nll_by_decile=bad)
        assert spoiled.parts("nll_by_decile") is None
        assert list(spoiled.malformed()) == ["nll_by_decile"]
    assert row.parts("no such field") is None


def test_numbers_by_lineage_are_those_that_are_known_or_none() -> None:
    row = row_of(
        "keep-0", 0, 0, nll_on={"a": 3.5, "b": None, "c": 4}, js_distance_to={"b": "far"}, cross_perplexity=[1.0]
    )
    assert row.by_lineage("nll_on") == {"a": 3.5, "c": 4.0}, "null: it cannot be had"
    assert (
        row.by_lineage("bits_per_byte_on")
        == row.by_lineage("js_distance_to")
        == row.by_lineage("cross_perplexity")
        == {}
    )
    assert sorted(row.malformed()) == ["cross_perplexity", "js_distance_to"]
    crowd = {f"model-{number}": 1.0 for number in range(65)}
    assert row_of("keep-0", 0, 0, nll_on=crowd).by_lineage("nll_on") == {}


def test_the_loss_of_an_old_row_is_the_logarithm_of_its_perplexity() -> None:
    assert row_of("keep-0", 0, 0, perplexity=math.exp(4)).nll == pytest.approx(4)
    assert row_of("keep-0", 0, 0, perplexity=math.exp(4), nll=3.0).nll == 3.0
    beyond = row_of("keep-0", 0, 0, perplexity=sys.float_info.max)
    assert (beyond.nll, beyond.measure("perplexity"), beyond.perplexity) == (None, None, sys.float_info.max)
    assert row_of("keep-0", 0, 0, perplexity=-1.0).nll is None
    assert row_of("keep-0", 0, 0, perplexity=math.inf).perplexity == sys.float_info.max
    assert row_of("keep-0", 0, 0).perplexity is None


def test_texts_are_those_that_are_texts() -> None:
    row = row_of(
        "keep-0", 0, 0, warnings=["odd"], protocol={"context": 64}, model_key="ab", eval_keys=["cd"],
        examples=[{"row": 7, "prompt": "a", "text": "b"}, {"row": 8, "text": 3}, "x"],
        top_8grams=[{"text": "c", "count": 2, "samples": None}, {"text": "d"}, {"count": 1}],
    )  # fmt: skip
    assert (row.warnings, row.protocol, row.model_key, row.eval_keys) == (["odd"], {"context": 64}, "ab", ["cd"])
    assert row.examples == [fields.Example("7", "a", "b")]
    assert row.phrases == [fields.Phrase("c", 2.0, None)]
    spoiled = changed(row, warnings=["odd", 3], protocol="block", model_key=3, examples="none", top_8grams={})
    assert (spoiled.warnings, spoiled.protocol, spoiled.model_key) == ([], {}, "")
    assert (spoiled.examples, spoiled.phrases) == ([], [])
    assert set(spoiled.malformed()) == {"warnings", "protocol", "model_key", "examples", "top_8grams"}


def test_every_measure_that_a_family_shows_is_known_as_a_number_or_as_parts() -> None:
    from collapse_cli import families

    shown = (*families.INSTRUMENTS, *(one for family in families.FAMILIES.values() for one in family.measures))
    assert len(shown) > 50
    for measure in shown:
        assert measure.name in (fields.NUMBERS if measure.part is None else fields.PARTS), measure.name


def test_a_new_measure_by_part_needs_no_place_in_records() -> None:
    """How many parts it has is its own affair; one that it does not have is None."""
    row = row_of("keep-0", 0, 1, facts_true_by_band=[0.9, 0.8, None])
    assert [row.measure("facts_true_by_band", part) for part in (0, 2, 4)] == [0.9, None, None]
    assert list(row.malformed()) == []
    assert list(changed(row, facts_true_by_band=[0.9, "most"]).malformed()) == ["facts_true_by_band"]
