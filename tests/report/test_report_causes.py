"""The table of causes on a page of variants."""

from pathlib import Path

import pytest
from support.instrumented import write_run

from collapse_cli.findings.causes import shares
from collapse_cli.metrics.numbers import value
from collapse_cli.records.rundir import RunFolder
from collapse_cli.report import write_report
from collapse_cli.report.causes import causes_table
from collapse_cli.report.loading import read

VARIANTS = {"baseline": 0.01, "statistical": 0.05, "expressivity": 0.1, "all": 0.2}


def written(runs: Path, names: dict[str, float], *, truth: bool = True) -> list[RunFolder]:
    for name, rate in names.items():
        write_run(runs, f"x-{name}", policies=("keep-0",), seeds=(0, 1), collapse={"keep-0": rate}, truth=truth)
    return [RunFolder(runs, f"x-{name}") for name in names]


def test_a_page_of_variants_says_what_each_cause_adds(tmp_path: Path) -> None:
    folders = written(tmp_path, VARIANTS)
    found = shares({folder.name.removeprefix("x-"): folder.rows() for folder in folders})
    assert found is not None
    table = causes_table(read(folders))
    for name, cause in found.variants.items():
        assert f">{name}<" in table
        assert value(cause.error.mean) in table
    page = write_report(folders, tmp_path / "all.html", forecast=False).read_text(encoding="utf-8")
    assert "Which error it is" in page
    assert "2 seeds, 95% intervals" in page


@pytest.mark.parametrize("names", [{"one": 0.1, "two": 0.1, "three": 0.1}, {"baseline": 0.1, "all": 0.1}])
def test_other_runs_have_no_such_table(tmp_path: Path, names: dict[str, float]) -> None:
    assert causes_table(read(written(tmp_path, names))) == ""


def test_without_a_known_truth_there_is_none(tmp_path: Path) -> None:
    assert causes_table(read(written(tmp_path, VARIANTS, truth=False))) == ""
