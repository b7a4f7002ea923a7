"""`collapse report` into places that cannot be: one line, exit code 2, and nothing left behind."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from support.instrumented import write_run

from collapse_cli.__main__ import main


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_run(tmp_path / "runs", "base", policies=("keep-0",), generations=1)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "r-perplexity.png").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["base", "--out", "folder"], "--out folder is a folder; name a file in it"),
        (["base", "--md", "--out", "folder"], "--out folder is a folder; name a file in it"),
        (["base", "--out", ""], "--out is empty; is a shell variable unset?"),
        (["base", "--out", "/proc/x.html"], "--out: the folder /proc cannot be written to"),
        (["base", "--out", "/dev/null"], "--out /dev/null is no ordinary file"),
        (["base", "--out", "new/deep/" + "x" * 300], "cannot be written to (File name too long)"),
        (["base", "--out", "file/a/x.html"], "cannot be made (Not a directory"),
        (["base", "--md", "--out", "r.md"], "r-perplexity.png is a folder where a picture goes"),
        (["base", "--figures", "/proc/figs"], "--figures: the folder /proc/figs cannot be made"),
        (["base", "--figures", "file"], "--figures file is a file; name a folder"),
        (["base", "--figures", ""], "--figures is empty; is a shell variable unset?"),
        (["base", "--out", "a/b", "--figures", "a/b/c"], "needs a folder where --out a/b is a file"),
        (["base", "base"], "the run 'base' is named twice; name each run once"),
        (["base", "runs/base"], "the run 'base' is named twice; name each run once"),
        (["base", "nobody", "--out", "new/x.html"], "there is no run 'nobody'"),
    ],
)
def test_a_place_that_cannot_be_is_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: Sequence[str], said: str
) -> None:
    before = sorted(here.rglob("*"))
    assert main(["report", *arguments]) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""
    assert sorted(here.rglob("*")) == before
    assert (here / "file").read_text() == "mine"


def test_folders_that_are_not_there_are_made(here: Path) -> None:
    assert main(["report", "base", "--out", "a/b/x.html", "--figures", "c/d"]) == 0
    assert (here / "a" / "b" / "x.html").stat().st_size > 1e6
    assert {path.suffix for path in (here / "c" / "d").iterdir()} == {".png", ".svg"}
    assert not list(here.rglob(".*"))


def test_markdown_is_written_into_a_new_folder(here: Path) -> None:
    assert main(["report", "base", "--md", "--out", "new/r.md"]) == 0
    assert (here / "new" / "r-perplexity.png").is_file()
