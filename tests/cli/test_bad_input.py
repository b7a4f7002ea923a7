"""What a user gets wrong: exit code 2, one line that says what to do, and nothing written into the runs folder."""

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import e2e
from support.kinds import change_bodies
from support.waiting import PATIENCE

from collapse_cli.__main__ import main


class Home:
    """A folder with a good configuration, a good model and an empty runs folder, to be spoilt."""

    def __init__(self, path: Path, config: Path, model: Path) -> None:
        self.path, self.config, self.model, self.runs = path, config, model, path / "runs"

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def spoilt_model(self, *missing: str) -> Path:
        folder = self.path / "model"
        shutil.copytree(self.model, folder)
        for name in missing:
            (folder / name).unlink()
        return folder

    def changed(self, old: str, new: str) -> Path:
        text = self.config.read_text()
        assert old in text
        return self.file("changed.toml", text.replace(old, new))

    def command(self, *arguments: str | Path) -> list[str]:
        return [str(part) for part in ("run", *arguments, "--runs-dir", self.runs)]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A configuration and a model folder that work."""
    folder = tmp_path_factory.mktemp("good")
    return e2e.write_experiment(folder), e2e.write_model(folder / "model")


@pytest.fixture
def home(good: tuple[Path, Path], tmp_path: Path) -> Home:
    return Home(tmp_path, *good)


def says(result: e2e.Result, *words: str) -> None:
    """Exit code 2 and one line on stderr that holds all `words`."""
    assert result.code == 2, result
    lines = result.err.splitlines()
    assert len(lines) == 1, result.err
    assert lines[0].startswith("collapse: ")
    for word in words:
        assert word in lines[0], f"{word!r} is not in: {lines[0]}"
    assert "Traceback" not in result.out


def nothing_written(runs: Path) -> None:
    """No run folder, and no stage that could be taken for a finished one."""
    assert [path.name for path in runs.glob("*") if path.name != "store"] == []
    assert list((runs / "store").glob("[0-9a-f][0-9a-f]")) == []


Case = Callable[[Home], list[str]]
CASES: dict[str, tuple[Case, tuple[str, ...]]] = {
    # --- the configuration
    "unknown key in a file": (lambda h: h.command(h.changed("epochs", "epoch")), ("train.epoch", "train.epochs")),
    "unknown key by --set": (
        lambda h: h.command(h.config, "--set", "train.learning_rate=1"),
        ("train.learning_rate", "train."),
    ),
    "key without its section": (lambda h: h.command(h.config, "--set", "lr=1"), ("'lr'", "train.lr")),
    "--set without a value": (lambda h: h.command(h.config, "--set", "train.lr"), ("train.lr", "key=value")),
    "a value of the wrong type": (
        lambda h: h.command(h.config, "--set", "train.epochs=many"),
        ("train.epochs", "many"),
    ),
    "unknown policy": (lambda h: h.command(h.config, "--policy", "kep-10"), ("kep-10", "keep-P", "accumulate")),
    "P above 100": (lambda h: h.command(h.config, "--policy", "keep-101"), ("keep-101", "0..100")),
    "P below 0": (lambda h: h.command(h.config, "--policy", "keep--1"), ("keep--1", "0..100")),
    "P no number": (lambda h: h.command(h.config, "--policy", "keep-x"), ("keep-x", "0..100")),
    "P not finite": (lambda h: h.command(h.config, "--policy", "keep-nan"), ("keep-nan", "0..100")),
    "the same policy twice": (
        lambda h: h.command(h.config, "--policy", "keep-0", "--policy", "keep-0"),
        ("twice", "keep-0"),
    ),
    "generations below 0": (lambda h: h.command(h.config, "--generations", "-1"), ("generations", "-1")),
    "generations no number": (
        lambda h: h.command(h.config, "--generations", "x"),
        ("--generations must be a whole number",),
    ),
    "seeds no numbers": (lambda h: h.command(h.config, "--seeds", "a,b"), ("--seeds", "0,1,2")),
    "unknown option": (lambda h: h.command(h.config, "--epochs", "3"), ("--epochs",)),
    "unknown command": (lambda h: ["rnu"], ("rnu",)),
    "preset and file": (lambda h: h.command(h.config, "--preset", "smoke"), ("preset", "file", "smoke")),
    "unknown preset": (lambda h: h.command("--preset", "smok"), ("smok", "'smoke'")),
    "missing file": (lambda h: h.command(h.path / "none.toml"), ("none.toml",)),
    "a folder as file": (lambda h: h.command(h.path), ("TOML",)),
    "invalid TOML": (lambda h: h.command(h.file("bad.toml", "[loop\n")), ("bad.toml", "TOML")),
    "TOML not in UTF-8": (lambda h: h.command(h.file("bad.toml", b"# \xff\n")), ("bad.toml", "UTF-8")),
    "run name with a slash": (lambda h: h.command(h.config, "--name", "a/b"), ("--name", "a/b")),
    "run name that climbs": (lambda h: h.command(h.config, "--name", ".."), ("--name",)),
    "run name of the store": (lambda h: h.command(h.config, "--name", "store"), ("--name", "store")),
    "empty run name": (lambda h: h.command(h.config, "--name=."), ("--name",)),
    "beams with temperature": (
        lambda h: h.command(h.config, "--set", "sample.decode.beams=3"),
        ("beams", "temperature"),
    ),
    # --- the data
    "missing data": (lambda h: h.command(h.config, "--data", h.path / "none.txt"), ("none.txt", "--data")),
    "empty data": (lambda h: h.command(h.config, "--data", h.file("empty.txt", "")), ("empty.txt", "empty")),
    "blank data": (lambda h: h.command(h.config, "--data", h.file("blank.txt", "\n \n" * 99)), ("blank.txt", "empty")),
    "data not in UTF-8": (
        lambda h: h.command(h.config, "--data", h.file("latin.txt", b"caf\xe9 au lait\n" * 99)),
        ("latin.txt", "UTF-8", "iconv"),
    ),
    "data of one line": (
        lambda h: h.command(h.config, "--data", h.file("one.txt", "a line\n")),
        ("one.txt", "folder"),
    ),
    "data shorter than a block": (
        lambda h: h.command(h.config, "--data", h.file("short.txt", "a\n" * 10)),
        ("less than one block", "16"),
    ),
    "an empty folder": (
        lambda h: h.command(h.config, "--data", h.file("folder/readme.md", "x").parent),
        ("holds no text files", ".txt"),
    ),
    "an unknown format": (lambda h: h.command(h.config, "--data", h.file("text.pdf", "x" * 99)), ("text.pdf", ".txt")),
    "a missing column": (
        lambda h: h.command(h.config, "--data", h.file("rows.jsonl", '{"body": "words"}\n' * 30)),
        ("'text'", "body", "data.text"),
    ),
    "broken JSON lines": (
        lambda h: h.command(h.config, "--data", h.file("rows.jsonl", '{"text": \n' * 9)),
        ("rows.jsonl",),
    ),
    "data that has changed": (lambda h: h.command(h.config, "--set", f"data.sha256={'0' * 64}"), ("data.sha256",)),
    "more rows than there are": (lambda h: h.command(h.config, "--set", "data.rows=99999"), ("data.rows", "99,999")),
    "select=valid without validation text": (
        lambda h: h.command(
            h.config,
            *("--data", h.file("two/train.txt", "a line of text\n" * 99).parent),
            *(
                "--set",
                f"data.test={h.file('two/test.txt', 'some other text ' * 30).name}",
                "--set",
                "train.select=valid",
            ),
        ),
        ("train.select", "data.valid"),
    ),
    # --- the model
    "no such model folder": (lambda h: h.command(h.config, "--model", "./none"), ("./none",)),
    "model without weights": (
        lambda h: h.command(h.config, "--model", h.spoilt_model("model.safetensors")),
        ("no weights", "config.json"),
    ),
    "model without config": (
        lambda h: h.command(h.config, "--model", h.spoilt_model("config.json")),
        ("config.json",),
    ),
    "model without tokenizer": (
        lambda h: h.command(h.config, "--model", h.spoilt_model("tokenizer.json", "tokenizer_config.json")),
        ("tokenizer", "model.tokenizer"),
    ),
    "a tokenizer larger than the model": (
        lambda h: h.command(h.config, "--model", e2e.write_model(h.path / "model", vocab_size=270)),
        ("the model has only 270", "model.tokenizer"),
    ),
    "a configured vocabulary smaller than the tokenizer's": (
        lambda h: h.command(h.config, "--set", "model.config.vocab_size=100"),
        ("290", "100"),
    ),
    "damaged weights": (lambda h: h.command(h.config, "--model", damaged(h)), ("model.safetensors", "damaged")),
    "a config that is no JSON": (
        lambda h: h.command(h.config, "--model", h.file("config.json", "{")),
        ("config.json",),
    ),
    "unknown model type": (lambda h: h.command(h.config, "--set", "model.config.model_type=optt"), ("optt",)),
    "misspelt model field": (lambda h: h.command(h.config, "--set", "model.config.hiden_size=16"), ("hiden_size",)),
    "block larger than the model takes": (
        lambda h: h.command(h.config, "--set", "data.block_size=64"),
        ("data.block_size", "64", "32"),
    ),
    "samples longer than the model takes": (
        lambda h: h.command(h.config, "--set", "sample.new_tokens=17"),
        ("sample.new_tokens", "33", "32"),
    ),
    "prompts longer than rows": (
        lambda h: h.command(h.config, "--set", "sample.prompt_tokens=17"),
        ("sample.prompt_tokens", "17", "16"),
    ),
    # --- the runs folder
    "a runs folder below a file": (
        lambda h: [*h.command(h.config)[:-1], str(h.file("file", "x") / "runs")],
        ("file", "--runs-dir"),
    ),
    "a file as runs folder": (lambda h: [*h.command(h.config)[:-1], str(h.file("file", "x"))], ("file", "--runs-dir")),
    # --- the other commands
    "status of no run": (lambda h: ["status", "none", "--runs-dir", str(h.runs)], ("none",)),
    "eval of a folder that is no model": (lambda h: ["eval", str(h.path), "--data", "pydoc"], ("config.json",)),
    "eval of nothing": (lambda h: ["eval", str(h.path / "none"), "--data", "pydoc"], ("none",)),
}


def damaged(home: Home) -> Path:
    """A model folder whose weights break off in the middle, as after a download that stopped."""
    folder = home.spoilt_model()
    weights = folder / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    return folder


@pytest.fixture(scope="module")
def ends(good: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[e2e.Result, Path]]:
    """How each case ended in a process of its own, with its runs folder."""
    folder = tmp_path_factory.mktemp("cases")
    homes = {name: Home(folder / str(number), *good) for number, name in enumerate(CASES)}
    jobs = []
    for name, home in homes.items():
        home.path.mkdir()
        files = {stream: str(home.path / f"said.{stream}") for stream in ("out", "err")}
        jobs.append({"argv": CASES[name][0](home), **files})
    first = {"argv": [*homes["missing file"].command(good[0])[:-1], str(folder / "first"), "--dry-run"], "here": True}
    codes = [codes[0] for codes in e2e.drive(first, *jobs)][1:]
    said = [[(home.path / f"said.{stream}").read_text() for stream in ("out", "err")] for home in homes.values()]
    results = [e2e.Result(code, *streams) for code, streams in zip(codes, said, strict=True)]
    return {name: (result, home.runs) for (name, home), result in zip(homes.items(), results, strict=True)}


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_said_in_one_line(name: str, ends: dict[str, tuple[e2e.Result, Path]]) -> None:
    """One line in all of stderr: no library adds warnings, progress bars or a traceback of its own."""
    result, runs = ends[name]
    says(result, *CASES[name][1])
    nothing_written(runs)


def test_fresh_without_a_reserve(home: Home) -> None:
    """Every row is in the original corpus, so none is left that was never seen. (The real text stays in the store.)"""
    result = e2e.collapse(*home.command(home.config, "--policy", "fresh-10", "--set", "data.rows=0"))
    says(result, "fresh-10", "reserve", "data.rows")
    assert [path.name for path in home.runs.iterdir()] == ["store"]


def test_keep_with_a_growing_corpus_runs_out_of_real_rows(home: Home) -> None:
    """keep-80 of a corpus twice as large asks for more real rows than there are."""
    result = e2e.collapse(*home.command(home.config, "--policy", "keep-80", "--set", "mix.size=growing"))
    says(result, "keep-80", "64", "40")
    assert [path.name for path in home.runs.iterdir()] == ["store"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_runs_folder_that_may_not_be_written(home: Home) -> None:
    """Permissions: says which folder and what to do."""
    home.runs.mkdir()
    home.runs.chmod(0o500)
    try:
        says(e2e.collapse(*home.command(home.config)), str(home.runs), "--runs-dir", "permissions")
    finally:
        home.runs.chmod(0o700)


def test_a_name_that_another_configuration_has(home: Home) -> None:
    """The old run stays as it is, and the line says in which setting the two differ."""
    e2e.run(home.config, home.runs, "--generations", "0")
    before = {name: value for name, value in e2e.snapshot(home.runs).items() if "/." not in name}
    result = e2e.collapse(*home.command(home.config, "--generations", "0", "--set", "train.lr=0.5"))
    says(result, "train.lr", "0.01", "0.5", "--name")
    assert {name: value for name, value in e2e.snapshot(home.runs).items() if "/." not in name} == before
    other = e2e.collapse(*home.command(home.config, "--generations", "0", "--set", "train.lr=0.5", "--name", "other"))
    assert other.code == 0


def test_a_folder_that_is_no_run(home: Home) -> None:
    """Somebody's own files are not mixed with a run's."""
    (home.runs / "tiny").mkdir(parents=True)
    (home.runs / "tiny" / "notes.txt").write_text("mine")
    says(e2e.collapse(*home.command(home.config)), "tiny", "--name")
    assert [path.name for path in (home.runs / "tiny").iterdir() if path.name != ".lock"] == ["notes.txt"]


def test_a_damaged_run_record(home: Home) -> None:
    """run.json broken by hand: named, with what to do."""
    e2e.run(home.config, home.runs, "--generations", "0")
    (home.runs / "tiny" / "run.json").write_text("{")
    says(e2e.collapse(*home.command(home.config)), "run.json", "damaged")
    says(e2e.collapse("status", "tiny", "--runs-dir", home.runs), "run.json", "damaged")


# --- disks ------------------------------------------------------------------------------------------------------------


def test_a_disk_too_small_for_the_plan(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before anything is trained, with what is needed and what is there."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6 - 1000, 1000))
    says(e2e.collapse(*home.command(home.config)), "needs about", "1 kB are free", "disk", "keep_models")
    assert not (home.runs / "tiny").exists()
    assert {record["kind"] for record in e2e.stages(home.runs).values()} <= {"data"}


@pytest.mark.parametrize("kind", ["data", "train", "sample", "mix", "eval"])
@pytest.mark.parametrize("wording", ["system", "library"])
def test_a_disk_that_fills_up_within_a_stage(
    home: Home, monkeypatch: pytest.MonkeyPatch, kind: str, wording: str
) -> None:
    """One line, whoever words it; no half-written stage is visible; with space the same command succeeds."""

    def full(stage: Any, inputs: Any, place: Any) -> Any:
        (place.folder / "half").write_text("half")
        if wording == "system":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place.folder / "half"))
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")

    command = home.command(home.config, "--policy", "keep-10")
    with monkeypatch.context() as patch:
        change_bodies(kind, lambda _: full, patch)
        result = e2e.collapse(*command)
    err = result.err.splitlines()
    says(e2e.Result(result.code, result.out, err[-1]), "No space left", "free some space", "same command")
    assert len(err) == 1
    assert all(record["kind"] != kind for record in e2e.stages(home.runs).values())
    assert e2e.collapse(*command).code == 0
    assert not list((home.runs / "store").rglob("half"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 8 MB that can be filled up; only root can have one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("only root can mount a small disk")
    made = subprocess.run([mount, "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_read_only(home: Home, small_disk: Path) -> None:
    """Even root cannot write there: one line, and what to do."""
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    says(e2e.collapse(*home.command(home.config)[:-1], small_disk / "runs"), "read-only", "--runs-dir")


@pytest.mark.parametrize("kind", ["train", "sample", "mix", "eval"])
def test_a_disk_that_is_really_full(home: Home, monkeypatch: pytest.MonkeyPatch, small_disk: Path, kind: str) -> None:
    """Another program fills the disk while a stage is at work: one line, and with space the same command succeeds."""
    filler = small_disk / "filler"

    def filling(body: Any) -> Any:
        def filled_up(stage: Any, inputs: Any, place: Any) -> Any:
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(b"x" * 4096):
                    pass
            return body(stage, inputs, place)

        return filled_up

    command = [*home.command(home.config)[:-1], str(small_disk / "runs")]
    with monkeypatch.context() as patch:
        change_bodies(kind, filling, patch)
        says(e2e.collapse(*command), "No space left", "free some space", "same command")
    assert filler.stat().st_size > 1 << 20
    assert all(record["kind"] != kind for record in e2e.stages(small_disk / "runs").values())
    filler.unlink()
    result = e2e.collapse(*command)
    assert result.code == 0, result.err
    assert json.loads((small_disk / "runs" / "tiny" / "run.json").read_text())["status"] == "success"


# --- what shows only in training --------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite(home: Home) -> None:
    """A learning rate out of all measure: named with the way out; no model is published, and the run says error."""
    says(e2e.collapse(*home.command(home.config, "--set", "train.lr=1e30")), "loss", "train.lr")
    assert {record["kind"] for record in e2e.stages(home.runs).values()} == {"data"}
    record = json.loads((home.runs / "tiny" / "run.json").read_text())
    assert record["status"] == "error"
    assert "loss" in record["error"]


def test_training_that_changes_nothing(home: Home) -> None:
    """A learning rate too small for float32: the weights stay as they were, which is an error."""
    says(e2e.collapse(*home.command(home.config, "--set", "train.lr=1e-60")), "weight", "train.lr")


@pytest.mark.parametrize("name", ["HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT", "COLLAPSE_LEASE_SECONDS"])
@pytest.mark.parametrize("value", ["soon", "-1", "nan", "inf", "1" + "0" * 400])
def test_an_environment_variable_that_is_no_number_is_said(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Libraries end in a traceback for it while they are imported."""
    monkeypatch.setenv(name, value)
    assert main(["presets"]) == 2
    said = capsys.readouterr().err
    assert (said.count("\n"), name in said, value in said) == (1, True, True)
    monkeypatch.setenv(name, "30")
    assert main(["presets"]) == 0


@pytest.mark.parametrize("width", ["wide", "-3", "", "100"])
def test_help_is_printed_whatever_the_width_of_the_terminal_is_said_to_be(width: str) -> None:
    environment = {**os.environ, "TERMINAL_WIDTH": width}
    command = [sys.executable, "-m", "collapse_cli", "run", "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, "--preset" in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EBUSY, errno.ENOTCONN]
)
def test_what_the_system_lacks_is_one_line(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def lacks(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(tmp_path))

    monkeypatch.setattr("collapse_cli.cli.configuration.requested", lacks)
    assert main(["run", "--preset", "smoke", "--runs-dir", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert (said.count("\n"), os.strerror(number) in said, "again" in said) == (1, True, True)


def test_a_machine_without_a_temporary_folder_is_told_to_name_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Torch needs one while it is imported; containers with a read-only root have none."""

    def none(*_: object, **__: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("collapse_cli.cli.configuration.requested", none)
    assert main(["run", "--preset", "smoke"]) == 2
    assert capsys.readouterr().err.strip().endswith("name a folder that can be written to with TMPDIR=FOLDER")


def test_a_backend_for_windows_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    assert main(["presets"]) == 0
    assert "MPLBACKEND" not in os.environ
