"""`collapse check` from the command line: what is written and printed, what is refused, and what a page shows of hostile text."""

import json
import shutil
from pathlib import Path

import pytest
from support.checked_texts import shuffled, world, write

from collapse_cli.__main__ import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "real.jsonl", world())
    write(tmp_path / "synthetic.jsonl", shuffled(world()))
    return tmp_path


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two texts, and the run of a quick check of them, `check-synthetic`; none is changed."""
    folder = tmp_path_factory.mktemp("once")
    write(folder / "real.jsonl", world())
    write(folder / "synthetic.jsonl", shuffled(world()))
    assert run(folder, str(folder / "real.jsonl"), str(folder / "synthetic.jsonl"), "--quick") == 0
    return folder


@pytest.fixture
def checked(once: Path, tmp_path: Path) -> Path:
    """A folder of one's own with the run of `once`."""
    shutil.copytree(once / "runs", tmp_path / "runs")
    return tmp_path


def run(folder: Path, *arguments: str) -> int:
    return main(["check", *arguments, "--runs-dir", str(folder / "runs")])


def test_a_quick_check_leaves_a_run_that_all_commands_know(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [str(folder / "real.jsonl"), str(folder / "synthetic.jsonl")]
    assert run(folder, *texts, "--quick") == 0
    printed = capsys.readouterr().out
    assert "can almost always tell synthetic rows from real ones" in printed
    made = folder / "runs" / "check-synthetic"
    page = (made / "report.html").read_text(encoding="utf-8")
    assert "can almost always tell synthetic rows from real ones" in page
    assert "is not finished" not in page
    before = (made / "check.json").read_bytes()
    assert run(folder, *texts, "--quick", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["run"] == "check-synthetic"
    assert {"bad", "plain"} <= {remark["tone"] for remark in record["remarks"]}
    assert (made / "check.json").read_bytes() == before, "the same again computes nothing"
    for command in (
        ["list"],
        ["status", "check-synthetic"],
        ["report", "check-synthetic"],
        ["report", "--md", "check-synthetic"],
    ):
        assert main([*command, "--runs-dir", str(folder / "runs")]) == 0
    assert "almost always" in (made / "report.md").read_text(encoding="utf-8")


def test_other_texts_under_the_same_name_are_refused(
    once: Path, checked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (checked / "runs" / "check-synthetic" / "check.json").read_bytes()
    other = write(checked / "synthetic.jsonl", world()[:200])
    capsys.readouterr()
    assert run(checked, str(once / "real.jsonl"), str(other), "--quick") == 2
    assert "compared another synthetic text" in capsys.readouterr().err
    assert (checked / "runs" / "check-synthetic" / "check.json").read_bytes() == before


LONG = "It belongs to a teacher who lives in the town by the river, and so on and on. "
BAD = {
    "no file": (["missing.jsonl", "real.jsonl"], "there is no file or folder"),
    "no second file": (["real.jsonl", "missing.jsonl"], "the synthetic text: there is no file or folder"),
    "empty": (["real.jsonl", "empty.txt"], "is empty"),
    "blank": (["real.jsonl", "blank.txt"], "has 0 distinct rows"),
    "three rows": (["real.jsonl", "three.txt"], "has 3 distinct rows"),
    "one row often": (["often.txt", "real.jsonl"], "has 1 distinct row ("),
    "binary": (["real.jsonl", "binary.txt"], "is no UTF-8 text"),
    "zip": (["real.jsonl", "zip.txt"], "is a zip archive"),
    "latin": (["real.jsonl", "latin.txt"], "is not UTF-8"),
    "no column": (["real.jsonl", "column.jsonl"], "has no column 'text'"),
    "a list of numbers": (["real.jsonl", "numbers.jsonl"], "cannot be read as json: line 2"),
    "not json": (["real.jsonl", "broken.jsonl"], "cannot be read as json"),
    "unknown format": (["real.jsonl", "text.docx"], "the format is not known"),
    "empty folder": (["real.jsonl", "nothing"], "holds no text files"),
    "no test": (["real.jsonl", "synthetic.jsonl", "--test", "missing.txt"], "the test text (--test): there is no file"),
    "empty test": (["real.jsonl", "synthetic.jsonl", "--test", "blank.txt"], "is empty"),
    "no name": (["real.jsonl", "synthetic.jsonl", "--name", ""], "--name is empty"),
    "a path for a name": (["real.jsonl", "synthetic.jsonl", "--name", "../x"], "a run's name is at most 100 letters"),
    "empty argument": (["real.jsonl", ""], "SYNTHETIC is empty"),
    "unknown option": (["real.jsonl", "synthetic.jsonl", "--set", "data.txt=x"], "data.txt"),
    "a file misspelt": (["real.jsonl", "sinthetic.jsonl"], "did you mean 'synthetic.jsonl'?"),
    "a server": (["real.jsonl", "http://127.0.0.1:8000/v1#m"], "SYNTHETIC is an address"),
    "its column": (["real.jsonl", "column.jsonl"], "say --set foreign.text=COLUMN"),
    "jobs of nothing": (["real.jsonl", "synthetic.jsonl", "--jobs", "2"], "--jobs has no effect with --quick"),
    "one text alone": (["real.jsonl"], "SYNTHETIC is missing"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for file, content in {
        "empty.txt": b"",
        "blank.txt": b"\n \n\t\n",
        "three.txt": LONG.encode() + b"\nTwo.\nThree.\n",
        "often.txt": (LONG + "\n").encode() * 300,
        "binary.txt": bytes(range(256)) * 3 + b"\0" * 500,
        "zip.txt": b"PK\x03\x04" + b"x" * 100,
        "latin.txt": b"caf\xe9\n" * 100,
        "column.jsonl": b'{"body": "words"}\n' * 100,
        "numbers.jsonl": b"[1, 2]\n" * 2,
        "broken.jsonl": b'{"text": "a\n',
        "text.docx": b"words\n" * 100,
    }.items():
        (folder / file).write_bytes(content)
    (folder / "nothing").mkdir()
    arguments, said = BAD[name]
    assert run(folder, *arguments, "--quick") == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert said in lines[0]
    assert not (folder / "runs").exists() or not any((folder / "runs").iterdir())


def test_the_same_file_twice_is_said_and_not_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, str(folder / "real.jsonl"), str(folder / "real.jsonl"), "--quick") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "both texts are the same file" in printed
    assert "They cannot be told apart" in printed


def test_the_synthetic_text_may_stand_in_another_column(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(json.dumps({"id": number, "body": row}) + "\n" for number, row in enumerate(shuffled(world()[300:])))
    (folder / "column.jsonl").write_text(rows, encoding="utf-8")
    texts = str(folder / "real.jsonl"), str(folder / "column.jsonl"), "--quick", "--json"
    assert run(folder, *texts, "--set", "foreign.text=body") == 0
    assert json.loads(capsys.readouterr().out)["checked"]["texts"]["texts"]["synthetic"]["rows"] == len(world()[300:])


def test_test_text_within_the_real_text_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "test.jsonl", world()[:30])
    assert (
        run(
            folder,
            str(folder / "real.jsonl"),
            str(folder / "synthetic.jsonl"),
            "--test",
            str(folder / "test.jsonl"),
            "--quick",
        )
        == 0
    )
    assert "30 of 30 test rows also stand in the real text" in " ".join(capsys.readouterr().out.split())


def test_hostile_text_is_only_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = "<script>alert(1)</script>\x1b[31m <img src=x onerror=alert(1)> and some more words to make it long enough \u202e"
    rows = [f"{script} {row}" for row in world()[:150]] + [script] * 50
    write(folder / "hostile.jsonl", rows)
    assert run(folder, str(folder / "real.jsonl"), str(folder / "hostile.jsonl"), "--quick", "--name", "hostile") == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    page = (folder / "runs" / "hostile" / "report.html").read_text(encoding="utf-8")
    body = page[page.index("<body>") :]
    assert "<img src=x" not in body
    assert "<script>alert" not in body
    assert "&lt;script&gt;alert" in body


def test_what_is_advised_of_a_damaged_record_works(
    once: Path, checked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = (str(once / "real.jsonl"), str(once / "synthetic.jsonl"), "--quick")
    made = checked / "runs" / "check-synthetic"
    for spoilt in ("{}", "[1]", "\x00"):
        (made / "check.json").write_text(spoilt, encoding="utf-8")
        capsys.readouterr()
        assert run(checked, *texts) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert f"remove the folder {made} and give the command again" in said
    shutil.rmtree(made)
    assert run(checked, *texts) == 0


def test_a_damaged_record_leaves_the_rest_of_the_page(checked: Path) -> None:
    made = checked / "runs" / "check-synthetic"
    for spoilt in ("{}", '{"texts": 3}', '{"texts": {"texts": {"real": [], "synthetic": null}}}', "[1]", "\x00"):
        (made / "check.json").write_text(spoilt, encoding="utf-8")
        assert main(["report", "--md", "check-synthetic", "--runs-dir", str(checked / "runs")]) == 0
        assert "the page lacks what the texts are" in (made / "report.md").read_text(encoding="utf-8")
        assert main(["list", "--runs-dir", str(checked / "runs")]) == 0


def test_of_chats_the_answers_are_compared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The prompts are the same in both texts: by whole rows they would be near copies of each other."""
    prompt = (
        "Please tell me all that you know of the dogs in the town by the river, in a few sentences, as well as you can."
    )
    for name, rows in (("asked", world()[:150]), ("answered", shuffled(world()[150:300]))):
        chats = [[{"role": "user", "content": prompt}, {"role": "assistant", "content": row}] for row in rows]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    assert run(folder, str(folder / "asked.jsonl"), str(folder / "answered.jsonl"), "--quick", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    texts = record["checked"]["texts"]
    assert texts["texts"]["real"]["answers"]
    assert texts["between"]["near"] == 0
    assert not any(prompt[:20] in one["phrase"] for one in texts["missing"]["of_real"]["shown"])
    assert "the last answers are measured" in " ".join(record["checked"]["notes"])


def test_a_folder_with_a_test_text_is_tested_on_that(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "split").mkdir()
    write(folder / "split" / "train.jsonl", world()[:300])
    write(folder / "split" / "test.jsonl", world()[300:360])
    assert run(folder, str(folder / "split"), str(folder / "synthetic.jsonl"), "--quick", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert not record["checked"]["texts"]["test"]["held_out"]
    assert record["checked"]["texts"]["test"]["rows"] == 60
