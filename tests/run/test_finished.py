"""A finished run says so at once where everything is as it was, and is begun as ever where anything is not."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from support import e2e, small

from collapse_cli.config.experiment import Experiment
from collapse_cli.engine import sealed
from collapse_cli.errors import InputError
from collapse_cli.records import remembered
from collapse_cli.records.rundir import RunFolder
from collapse_cli.records.runs import store_of
from collapse_cli.run import finished, runner
from collapse_cli.run.finished import FILE, circumstances

VARIANTS = """
learner = "gaussian"
[loop]
generations = 2
[data]
source = "blobs"
rows = 10
eval_rows = 10
blobs = { dimensions = 1, centers = 1 }
[variants.a]
gaussian.trials = 2
[variants.b]
gaussian.trials = 3
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text, a configuration, and a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    e2e.write_text(folder / "text")
    (folder / "small.toml").write_text(small.NGRAM.format(source=folder / "text"))
    found = e2e.collapse("run", folder / "small.toml", "--runs-dir", folder / "runs")
    assert found.code == 0, found.err
    return folder


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    """A copy, finished where it is now."""
    home = Path(shutil.copytree(made, tmp_path / "home"))
    (home / "small.toml").write_text(small.NGRAM.format(source=home / "text"))
    found = run(home)
    assert found.code == 0, found.err
    # a run whose page cannot be written, or whose disk is full, is finished without this
    left = finished._left(RunFolder(home / "runs", "small"))
    assert sealed.read(home / "runs" / "small" / FILE)["left"] == left, f"it was not written down: {found.err}"
    return home


def run(home: Path, *words: str) -> e2e.Result:
    return e2e.collapse("run", home / "small.toml", "--runs-dir", home / "runs", *words)


class LibrariesWanted(Exception):  # noqa: N818
    """The run was begun as ever."""


def why(home: Path) -> dict[str, object]:
    """What is otherwise than it was when the run ended, should it be begun where nothing was changed."""
    folder, found = RunFolder(home / "runs", "small"), dict[str, object]()
    with suppress(InputError, OSError, KeyError):
        record = sealed.read(folder.path / FILE)
        found["then"], found["now"] = record["left"], finished._left(folder)
        found["unfinished"] = store_of(folder.runs).unfinished()
        found["unsound"] = [key for key in record["measured"] if not store_of(folder.runs).has(key)]
    found["text"] = remembered.stamp_of(home / "text", sorted(path.name for path in (home / "text").iterdir()))
    return found


@pytest.fixture
def only_at_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who would load the libraries is told of instead."""
    before = why(home)

    def begun(*_: object, **__: object) -> None:
        raise LibrariesWanted(f"before: {before}, now: {why(home)}")

    monkeypatch.setattr(runner, "run_all", begun)


def _begun(*_: object, **__: object) -> None:
    raise LibrariesWanted


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_what_is_said_at_once_is_what_is_said_after_everything_was_looked_up(home: Path, form: tuple[str, ...]) -> None:
    before = {path: path.read_bytes() for path in (home / "runs" / "small").iterdir()}
    at_once = run(home, *form)
    assert {path: path.read_bytes() for path in (home / "runs" / "small").iterdir()} == before
    (home / "runs" / "small" / FILE).unlink()
    looked_up = run(home, *form)
    assert (at_once.code, at_once.out) == (0, looked_up.out)
    for line in looked_up.err.splitlines():
        if line.startswith("note:"):
            assert line in at_once.err
    assert (home / "runs" / "small" / FILE).exists(), "and is written down again"


def test_no_library_of_a_learner_is_imported(home: Path) -> None:
    script = (
        "import sys; from collapse_cli.__main__ import main; code = main(sys.argv[1:]); "
        "print(code, sorted({'torch', 'transformers', 'datasets', 'plotly'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", script, "run", str(home / "small.toml"), "--runs-dir", str(home / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr


def test_of_variants_all_must_be_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "two.toml"
    file.write_text(VARIANTS)
    command = ("run", file, "--runs-dir", tmp_path / "runs")
    assert e2e.collapse(*command).code == 0
    for path in (tmp_path / "runs").glob(f"*/{FILE}"):
        path.unlink()
    looked_up = e2e.collapse(*command)
    monkeypatch.setattr(runner, "run_all", _begun)
    assert e2e.collapse(*command).out == looked_up.out
    assert "all variants in one report" in looked_up.out
    assert e2e.collapse(*command, "--json").json["report"] == str(tmp_path / "runs" / "two.html")
    os.utime(tmp_path / "runs" / "two.html", (0, 0))
    with pytest.raises(LibrariesWanted):
        e2e.collapse(*command)
    os.utime(tmp_path / "runs" / "two.html")
    assert e2e.collapse(*command).code == 0
    (tmp_path / "runs" / "two-b" / FILE).unlink()
    with pytest.raises(LibrariesWanted):
        e2e.collapse(*command)


def change_text(home: Path) -> None:
    path = home / "text" / "train.txt"
    path.write_text(path.read_text() + "one line more\n")


def add_a_text(home: Path) -> None:
    (home / "text" / "more.txt").write_text("another file\n")


def lose_a_stage(home: Path) -> None:
    shutil.rmtree(_of_kind(home, "block"))


def _of_kind(home: Path, kind: str) -> Path:
    return next(
        path.parent
        for path in (home / "runs" / "store").glob(f"{e2e.HEX64}/stage.json")
        if f'"kind": "{kind}"' in path.read_text()
    )


def damage_a_record(home: Path) -> None:
    path = _of_kind(home, "block") / "stage.json"
    path.write_bytes(path.read_bytes().replace(b'"seconds"', b'"secends"', 1))


def tear_rows(home: Path) -> None:
    path = home / "runs" / "small" / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-20])


def lose_the_page(home: Path) -> None:
    (home / "runs" / "small" / "report.html").unlink()


def damage_what_it_left(home: Path) -> None:
    path = home / "runs" / "small" / FILE
    path.write_bytes(path.read_bytes().replace(b'"notes"', b'"nutes"'))


def leave_half_a_file(home: Path) -> None:
    (home / "runs" / "small" / "..finished.json.0123abcd").write_text("half")


def replace_the_lock(home: Path) -> None:
    lock = home / "runs" / "small" / ".lock"
    lock.unlink()
    lock.mkdir()


def leave_an_attempt(home: Path) -> None:
    (home / "runs" / "store" / ".attempts" / _of_kind(home, "block").name).mkdir(parents=True)


CHANGES: list[Callable[[Path], None]] = [
    change_text,
    add_a_text,
    lose_a_stage,
    damage_a_record,
    tear_rows,
    lose_the_page,
    damage_what_it_left,
    leave_half_a_file,
    leave_an_attempt,
]


@pytest.mark.usefixtures("only_at_once")
@pytest.mark.parametrize("change", CHANGES)
def test_after_any_change_the_run_is_begun_as_ever(home: Path, change: Callable[[Path], None]) -> None:
    assert run(home).code == 0
    change(home)
    with pytest.raises(LibrariesWanted):
        run(home)


@pytest.mark.usefixtures("only_at_once")
@pytest.mark.parametrize("words", [("--policy", "keep-0"), ("--seeds", "0,1"), ("--generations", "2")])
def test_another_command_is_not_what_was_finished(home: Path, words: tuple[str, ...]) -> None:
    with pytest.raises(LibrariesWanted):
        run(home, *words)
    assert run(home, "--set", "ngram.order=3").code == 2, "made with another order"


@pytest.mark.usefixtures("only_at_once")
@pytest.mark.parametrize("what", ["code", "machine"])
def test_other_code_or_another_machine_is_none_that_finished_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    if what == "code":
        monkeypatch.setattr(finished, "code", lambda: "another")
    else:
        monkeypatch.setattr("platform.node", lambda: "elsewhere")
    with pytest.raises(LibrariesWanted):
        run(home)


@pytest.mark.parametrize(
    ("tree", "known"),
    [
        ({}, False),  # OPT-125m and WikiText-2, of the Hub
        ({"learner": "gaussian", "data": {"source": "blobs"}}, True),  # reads neither
        ({"learner": "ngram", "data": {"source": "zipf"}}, True),
        ({"learner": "ngram", "data": {"source": "someone/text"}}, False),
        ({"model": {"config": {"model_type": "opt"}}, "data": {"source": "pydoc"}}, True),
        ({"model": {"config": {"model_type": "opt"}, "tokenizer": "gpt2"}, "data": {"source": "pydoc"}}, False),
        ({"learner": "ngram", "data": {"source": "pydoc"}, "tracking": {"to": ["mlflow"]}}, False),
        ({"learner": "ngram", "data": {"source": "pydoc"}, "store": {"keep_models": "ends"}}, False),
        ({"learner": "ngram", "data": {"source": "pydoc"}, "pool": {"foreign": ["http://127.0.0.1:1/v1"]}}, False),
        ({"learner": "ngram", "data": {"source": "pydoc"}, "pool": {"foreign": ["nowhere.txt"]}}, False),
        ({"learner": "ngram", "data": {"source": "pydoc"}, "pool": {"public": "someone/text"}}, False),
        ({"learner": "ngram", "data": {"source": "pydoc"}, "select": {"by": "mine:score", "keep": "highest", "oversample": 2}}, False),
        ({"learner": "ngram", "data": {"source": "pydoc"}, "select": {"by": "perplexity", "model": "gpt2", "keep": "lowest", "oversample": 2}}, False),
    ],
)  # fmt: skip
def test_what_only_others_know_is_not_known_at_once(tree: dict[str, object], known: bool) -> None:
    config = Experiment.model_validate(tree)
    assert (circumstances(config) is not None) == known


def test_an_adapter_names_another_model_and_a_folder_of_very_many_files_is_not_looked_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("{}")
    config = Experiment.model_validate({"model": {"source": str(tmp_path)}, "data": {"source": "pydoc"}})
    assert circumstances(config) is not None
    monkeypatch.setattr(finished, "MOST_FILES", 0)
    assert circumstances(config) is None
    monkeypatch.undo()
    (tmp_path / "adapter_config.json").write_text("{}")
    assert circumstances(config) is None


def test_the_code_is_other_code_when_a_file_of_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    code = remembered.code.__wrapped__
    first = code()
    assert code() == first
    own = os.stat
    changed = str(Path(finished.__file__))

    def later(path: str) -> object:
        now = own(path)
        return os.stat_result((*now[:6], now.st_size + 1, *now[7:])) if str(path) == changed else now

    monkeypatch.setattr(os, "stat", later)
    assert code() != first
