"""What a run folder says carries digests: what a disk or an editor changed in it is not taken for what was measured."""

import json
import os
import shutil
from pathlib import Path

import pytest
from support import e2e

from collapse_cli.engine import sealed
from collapse_cli.errors import InputError
from collapse_cli.records.rundir import OF_A_RUN, RunFolder

NUMBERS = """
learner = "gaussian"
loop = { generations = 3, policies = ["keep-0", "accumulate"], block = 2 }
data = { source = "blobs", rows = 50, blobs = { dimensions = 1 } }
gaussian = { trials = 5 }
"""
WORTH = {"name": "one", "number": 1.25, "list": ["a", None, {"b": "\u2028 \ud800 ü"}]}


def flipped(content: bytes) -> list[bytes]:
    """The content with one bit changed, at every byte."""
    return [content[:at] + bytes([content[at] ^ 1 << at % 7]) + content[at + 1 :] for at in range(len(content))]


def test_every_bit_of_a_record_counts(tmp_path: Path) -> None:
    """It is refused, or says what it said."""
    path = tmp_path / "a.json"
    path.write_text(sealed.sealed(WORTH))
    assert sealed.read(path) == WORTH
    refused = 0
    for content in flipped(path.read_bytes()):
        path.write_bytes(content)
        try:
            found = sealed.read(path)
        except InputError:
            refused += 1
        else:  # the name `digest` itself was hit, or a space
            assert {name: found[name] for name in WORTH} == WORTH
    assert refused > len(sealed.sealed(WORTH)) - 15


def test_every_bit_of_a_line_counts() -> None:
    content = "".join(map(sealed.line, (WORTH, {"name": "two"}))).encode()
    assert sealed.in_lines(content) == ([WORTH, {"name": "two"}], 0)
    for damaged in flipped(content):
        found, bad = sealed.in_lines(damaged)
        assert bad > 0 or len(found) == 2
        for one in found:
            expected = WORTH if one.get("name") == "one" else {"name": "two"}
            assert {name: one[name] for name in expected} == expected


def test_records_and_lines_of_earlier_versions_have_no_digest(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(WORTH))
    assert sealed.read(tmp_path / "a.json") == WORTH
    assert sealed.in_lines(json.dumps(WORTH).encode()) == ([WORTH], 0)
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(InputError, match=r"a\.json is damaged .it is no JSON object"):
        sealed.read(tmp_path / "a.json")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("records")
    (home / "numbers.toml").write_text(NUMBERS)
    e2e.run(home / "numbers.toml", home / "runs")
    return home


def digit_changed(path: Path, before: str) -> None:
    """One digit of a number after some words."""
    text = path.read_text()
    at = text.index(before) + len(before)
    while not text[at].isdigit():
        at += 1
    path.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])


@pytest.mark.parametrize("command", ["status", "report", "forecast", "compare"])
def test_a_changed_number_of_a_row_is_left_out_and_said(tmp_path: Path, home: Path, command: str) -> None:
    """Looking at a run reads no store: a row that is not what was written must not be shown."""
    shutil.copytree(home / "runs", tmp_path / "runs")
    file = tmp_path / "runs" / "numbers" / "metrics.jsonl"
    whole = RunFolder(tmp_path / "runs", "numbers").rows()
    digit_changed(file, '"variance": ')
    assert RunFolder(tmp_path / "runs", "numbers").rows() == whole[1:]
    result = e2e.collapse(command, "numbers", "--runs-dir", tmp_path / "runs")
    if command == "report":
        assert "metrics.jsonl: lines that could not be read: 1" in (file.parent / "report.html").read_text()
    elif command != "forecast":  # which is of language models
        assert "1 line is damaged and left out" in result.err
    made = e2e.run(tmp_path.parent / home.name / "numbers.toml", tmp_path / "runs")
    assert made["computed"] == 0
    assert sorted(map(json.dumps, made["rows"])) == sorted(json.dumps(row.record()) for row in whole)


@pytest.mark.parametrize(("file", "before"), [("run.json", '"seeds": ['), ("plan.json", '"key": "')])
def test_a_changed_record_or_plan_is_refused_by_all_that_trust_it(
    tmp_path: Path, home: Path, file: str, before: str
) -> None:
    """Of a changed seed the run would be another; of a changed key `gc` would remove a stage that is needed."""
    runs = tmp_path / "runs"
    shutil.copytree(home / "runs", runs)
    digit_changed(runs / "numbers" / file, before)
    for command in (("gc",), ("status", "numbers")):
        result = e2e.collapse(*command, "--runs-dir", runs)
        assert result.code == 2
        assert f"{file} is damaged (it is not what was written)" in result.err
    assert len(e2e.stages(runs)) == len(e2e.stages(home / "runs"))
    if file == "run.json":
        assert e2e.collapse("run", home / "numbers.toml", "--runs-dir", runs).code == 2
        (runs / "numbers" / file).unlink()
    assert e2e.run(home / "numbers.toml", runs)["computed"] == 0
    assert e2e.collapse("gc", "--runs-dir", runs).code == 0


def test_a_generation_that_is_said_twice_is_written_again(tmp_path: Path, home: Path) -> None:
    """Another row of the same generation, of an earlier version without a digest, in front of the right one."""
    runs = tmp_path / "runs"
    shutil.copytree(home / "runs", runs)
    file, whole = runs / "numbers" / "metrics.jsonl", RunFolder(home / "runs", "numbers").rows()
    file.write_text(json.dumps(whole[0].record() | {"variance": 77.0}) + "\n" + file.read_text())
    e2e.run(home / "numbers.toml", runs)
    assert RunFolder(runs, "numbers").rows() == whole


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_nowhere(path: Path) -> None:
    path.symlink_to("nowhere")


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("what", [pipe, link_to_nowhere, device, Path.mkdir], ids=lambda what: what.__name__)
@pytest.mark.parametrize("file", OF_A_RUN)
def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path: Path, home: Path, file: str, what: object) -> None:
    """A named pipe in the place of a run's file is not read for ever, and nothing is written into a device."""
    runs = tmp_path / "runs"
    shutil.copytree(home / "runs", runs)
    path = runs / "numbers" / file
    path.unlink()
    what(path)  # type: ignore[operator]
    for command in (("status", "numbers"), ("list",), ("report", "numbers"), ("gc", "--dry-run")):
        result = e2e.collapse(*command, "--runs-dir", runs)
        assert result.code in (0, 2), result.err
    result = e2e.collapse("run", home / "numbers.toml", "--runs-dir", runs)
    assert result.code == 2
    assert str(path) in result.err
    assert len(result.err.splitlines()) == 1
    path.rmdir() if path.is_dir() else path.unlink()
    assert e2e.run(home / "numbers.toml", runs)["computed"] == 0


@pytest.mark.parametrize("key", ["\0" * 64, "../" * 20, "x" * 5000, "", "AB" * 32, 5, None, ["a"]])
def test_keys_in_a_plan_become_no_paths(tmp_path: Path, home: Path, key: object) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(home / "runs", runs)
    path = runs / "numbers" / "plan.json"
    plan = json.loads(path.read_text())
    plan["stages"][0]["key"] = key
    path.write_text(json.dumps({"stages": plan["stages"]}))
    for command in (("status", "numbers"), ("gc",)):
        result = e2e.collapse(*command, "--runs-dir", runs)
        assert (result.code, "plan.json is damaged" in result.err) == (2, True)
    assert e2e.run(home / "numbers.toml", runs)["computed"] == 0


@pytest.mark.parametrize("end", ["", "\n", "\n" + "\0" * 5000, "\n" + "x" * 5000 + "\n", "\n" + "y" * 2000])
def test_a_line_too_long_for_a_record_is_not_held_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    file = tmp_path / "lines.jsonl"
    lines = [{"at": at, "text": "é" * at} for at in range(30)]
    file.write_text("".join(map(sealed.line, lines)) + end.removeprefix("\n"), encoding="utf-8")
    monkeypatch.setattr(sealed, "LONGEST", 1000)
    asked: list[int] = []
    plain = sealed.json.loads
    monkeypatch.setattr(sealed.json, "loads", lambda text: asked.append(len(text)) or plain(text))
    assert sealed.of_file(file) == (lines, 1 if end.strip("\n") else 0)
    assert max(asked) <= 1000
    assert sealed.in_lines(file.read_bytes()) == (lines, 1 if end.strip("\n") else 0)


def test_a_record_larger_than_is_reasonable_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(sealed.sealed({"name": "x" * 500}), encoding="utf-8")
    assert sealed.read(file, 1000)["name"] == "x" * 500
    with file.open("ab") as more:
        more.truncate(1 << 36)  # a hole: no byte of it is on the disk
    with pytest.raises(InputError, match="more than 1,000 bytes"):
        sealed.read(file, 1000)
