"""What is said of text of other models."""

from support.rows import row_of

from collapse_cli.findings.foreign_text import GivenBy, given_by_sources, sources_said


def test_of_many_names_of_one_server_few_are_said_and_the_others_counted() -> None:
    many = GivenBy("http://127.0.0.1:1/v1", 4, 4, "", [f"m{number}" for number in range(500)])
    (said,) = sources_said([many])
    assert "the server said m0, m1, m2 and 497 other models; its answers" in said
    (few,) = sources_said([GivenBy("http://127.0.0.1:1/v1", 4, 4, "", ["m0", "m1", "m2"])])
    assert "the server said m0, m1, m2; its answers" in few


def test_where_rows_are_chosen_a_source_gave_candidates() -> None:
    given = {"foreign_rows": [{"source": "other.jsonl", "rows": 40, "sha256": "ab" * 32}]}
    plain, chosen = (row_of("keep-0", 0, 1, **given, **more) for more in ({}, {"select_candidates": 80}))
    (said,) = sources_said(given_by_sources([plain]))
    assert "other.jsonl gave 40 rows to each corpus" in said
    (said,) = sources_said(given_by_sources([chosen]))
    assert "other.jsonl gave 40 candidates for each corpus" in said
