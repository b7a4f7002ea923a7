"""What is said of text of other models."""

from collapse_cli.findings.foreign_text import GivenBy, sources_said


def test_of_many_names_of_one_server_few_are_said_and_the_others_counted() -> None:
    many = GivenBy("http://127.0.0.1:1/v1", 4, 4, "", [f"m{number}" for number in range(500)])
    (said,) = sources_said([many])
    assert "the server said m0, m1, m2 and 497 other models; its answers" in said
    (few,) = sources_said([GivenBy("http://127.0.0.1:1/v1", 4, 4, "", ["m0", "m1", "m2"])])
    assert "the server said m0, m1, m2; its answers" in few
