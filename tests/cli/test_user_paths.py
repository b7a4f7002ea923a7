"""`~` and `~name` at the beginning of any path from the user, quoted from the shell, are home folders."""

from pathlib import Path

import pytest
from support import e2e

from collapse_cli import files
from collapse_cli.config import load, parse_settings

TINY = """
learner = "gaussian"
loop = { generations = 1, policies = ["keep-0"] }
data = { source = "blobs", rows = 20, blobs = { dimensions = 1 } }
gaussian = { trials = 2 }
"""
OF_USERS = ("model.source", "model.tokenizer", "data.source", "data.train", "data.valid", "data.test", "tracking.uri")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of its own, and another folder to stand in."""
    made, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    made.mkdir()
    elsewhere.mkdir()
    monkeypatch.setenv("HOME", str(made))
    monkeypatch.chdir(elsewhere)
    (made / "tiny.toml").write_text(TINY)
    return made


def test_a_home_folder_as_a_shell_finds_it(home: Path) -> None:
    assert files.at_home("~/a b") == f"{home}/a b"
    assert files.at_home("~") == str(home)
    assert files.at_home("~root") == str(Path("~root").expanduser()) == "/root"
    for as_it_is in ("~nobody-of-this-name/x", "./~", "a/~/b", "", "a~", "~\0"):
        assert files.at_home(as_it_is) == as_it_is


@pytest.mark.parametrize("key", OF_USERS)
def test_an_option_that_can_be_a_path(home: Path, key: str) -> None:
    """By --set, and the same in a file."""
    section, _, name = key.partition(".")
    assert getattr(getattr(load(parse_settings([f"{key}=~/x"]), "here"), section), name) == f"{home}/x"
    assert getattr(getattr(load({section: {name: "~/x"}}, "here"), section), name) == f"{home}/x"
    assert getattr(getattr(load({section: {name: "./~"}}, "here"), section), name) == "./~"


def test_every_command_finds_what_is_at_home(home: Path) -> None:
    """The configuration, the runs folder, runs by their folder, and what a report is written to."""
    made = e2e.collapse("run", "~/tiny.toml", "--runs-dir", "~/runs")
    assert made.code == 0, made.err
    assert (home / "runs" / "tiny" / "report.html").is_file()
    run = ["~/runs/tiny"]
    for arguments in (
        ["status", *run],
        ["eval", *run],
        ["forecast", *run],
        ["compare", *run],
        ["report", *run, "--out", "~/page.html", "--figures", "~/figures"],
        ["list", "--runs-dir", "~/runs"],
        ["gc", "--runs-dir=~/runs"],
    ):
        found = e2e.collapse(*arguments)
        if arguments[0] == "forecast":  # a Gaussian has no perplexity to forecast: it is found, and that is said
            assert "has no perplexity" in found.err
        else:
            assert found.code == 0, (arguments, found.err)
    assert "tiny" in e2e.collapse("list", "--runs-dir", "~/runs").out
    assert (home / "page.html").is_file()
    assert (home / "figures").is_dir()
    assert list(Path.cwd().iterdir()) == [], "nothing is called ~ here"


def test_text_and_models_at_home(home: Path) -> None:
    """As far as the mistake that is said next: each was found."""
    e2e.write_text(home / "text")
    (home / "config.json").write_text("{")
    (home / "one.txt").write_text("a line")
    text = ["--data", "~/text"]
    for arguments, said in (
        (["--data", "~/one.txt"], f"{home}/one.txt has no test text"),
        (
            [*text, "--set", "data.train=~/none.txt"],
            f"data.train = '{home}/none.txt': there is no such file in {home}/text",
        ),
        ([*text, "--model", "~/config.json"], f"{home}/config.json is not"),
        ([*text, "--model", "~"], f"{home} has no weights"),
        ([*text, "--set", "model.tokenizer=~/none"], f"'{home}/none' is not a folder"),
    ):
        found = e2e.collapse("run", "--preset", "smoke", *arguments, "--runs-dir", "~/runs")
        assert found.code == 2
        assert said in found.err, arguments
