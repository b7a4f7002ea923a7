"""Text from outside on its way to the terminal, and tables that cut no word."""

import io
import json
import logging
import os
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from support import e2e

from collapse_cli.engine import sealed
from collapse_cli.terminal import text as terminal
from collapse_cli.terminal.progress import ProgressBars
from collapse_cli.terminal.run import protocol
from collapse_cli.terminal.text import facts_table

HOSTILE = (
    "\x1b[31mred",
    "\x1b]0;title\x07",
    "\x9b31m",
    "\u202eevil",
    "\u2066x\u2069",
    "two\nlines",
    "a\rb",
    "zero\u200bwidth",
    "half\ud800",
    "\u2028",
    "tag\U000e0041",
)


def shown(*things: Any, width: int = 80) -> str:
    """What a terminal of that width receives."""
    out = io.StringIO()
    one = terminal.Terminal(file=out, width=width, force_terminal=True, color_system=None, highlight=False, emoji=False)
    for thing in things:
        one.print(thing)
    return out.getvalue()


def tame(text: str) -> bool:
    """Whether nothing in it commands a terminal or hides."""
    kinds = {unicodedata.category(letter) for letter in text.replace("\n", "")}
    return not kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_text_from_outside_is_one_line_without_control_characters(text: str) -> None:
    for said in (terminal.plain(text), terminal.safe(text), terminal.short(text)):
        assert tame(said)
        assert "\n" not in said
    for printed in (shown(text), shown(terminal.safe(text)), shown(facts_table({text: text}, text))):
        assert tame(printed), ascii(printed)


def test_what_was_hidden_is_shown() -> None:
    assert terminal.plain("a\x1b[0mb") == "a\\x1b[0mb"
    assert terminal.plain("a\u202eb") == "a\\u202eb"
    assert terminal.plain(" two\n\tlines ") == "two lines"
    assert terminal.plain("Ünïcödé 日本語 👩‍💻") == "Ünïcödé 日本語 👩‍💻"


def test_length_is_bounded_and_what_is_left_out_is_said() -> None:
    said = terminal.plain("x" * 10**6)
    assert len(said) < 2100
    assert "(998,000 more characters)" in said
    assert len(terminal.plain("\x1b" * 10**6)) < 4100
    assert len(terminal.short("y" * 300)) < 150
    assert terminal.plain("z" * 2000) == "z" * 2000


def test_markup_in_names_shows_as_it_stands() -> None:
    table = facts_table({"[bold]name[/]": "[red]x[/red] [/]"}, "run [link=http://x]y[/link]")
    for words in ("[bold]name[/]", "[red]x[/red] [/]", "run [link=http://x]y[/link]"):
        assert words in shown(table)


def test_an_error_message_is_one_tame_line(tmp_path: Path) -> None:
    for word in ("\x1b[31mred", "[bold]x[/]", "two\nlines", "\u202eevil"):
        result = e2e.collapse("run", f"{tmp_path}/{word}.toml")
        assert result.code == 2
        assert len(result.err.splitlines()) == 1
        assert tame(result.err), ascii(result.err)
        assert "[bold]x[/]" in result.err or "[bold]" not in word
    assert len(e2e.collapse("run", "x" * 10**5).err) < 2500
    assert len(e2e.collapse("run", "--preset", "p" * 10**5).err) < 2500


def test_a_run_folder_cannot_command_the_terminal(tmp_path: Path) -> None:
    """Its error message and its rows come from whoever wrote them."""
    folder = tmp_path / "one"
    folder.mkdir()
    config = e2e.write_experiment(tmp_path)
    e2e.run(config, tmp_path / "made", "--generations", "0")
    record = sealed.read(tmp_path / "made" / "tiny" / "run.json")
    record |= {"status": "error", "error": "\x1b[2J" + "gone \u202e[bold]" + "e" * 10**5, "created": "\x9bnow"}
    (folder / "run.json").write_text(json.dumps(record))
    rows = e2e.read_lines(tmp_path / "made" / "tiny" / "metrics.jsonl")
    spoilt = rows[0] | {"policy": "[red]keep[/]", "warnings": ["\x1b]0;x\x07 warning \u202e"]}
    (folder / "metrics.jsonl").write_text(json.dumps(spoilt) + "\n")
    result = e2e.collapse("status", str(folder))
    assert result.code == 0
    assert tame(result.out), ascii(result.out)
    assert "[red]keep[/]" in result.out
    assert len(result.out) < 6000


def test_a_note_of_the_engine_is_one_tame_line(capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    screen = terminal.Terminal(file=out, width=80)
    with ProgressBars(screen, 1):
        logging.getLogger("collapse_cli.x").warning("a file \x1b[31m%s", "n\u202e\nn")
    assert tame(out.getvalue())
    assert out.getvalue() == "note: a file \\x1b[31mn\\u202e n\n"


# --- tables -----------------------------------------------------------------------------------------------------------


def check_table(table: terminal.Table, words: set[str], width: int = 80) -> str:
    """No line is wider than the terminal, and every word of the table is there uncut."""
    printed = shown(table, width=width)
    assert max(cell_len(line) for line in printed.splitlines()) <= width, printed
    there = set(printed.split())
    assert words <= there, words - there
    return printed


@pytest.mark.parametrize("columns", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("width", [80, 60, 40])
def test_a_table_that_is_too_wide_falls_apart_between_words(columns: int, width: int) -> None:
    table = terminal.Table("perplexity on real test text, and a title that is longer than the table below it is wide")
    table.add_column("generation", justify="right")
    for number in range(columns):
        table.add_column(f"accumulate-subsample-{number}", justify="right")
    for row in range(3):
        table.add_row(f"{row}", *(f"1,0{row}{number} ×÷12.5 ×1{number}" for number in range(columns)))
    words = {f"accumulate-subsample-{number}" for number in range(columns)}
    words |= {f"1,0{row}{number}" for row in range(3) for number in range(columns)}
    printed = check_table(table, words, width)
    assert "…" not in printed


def test_rows_become_lists_where_not_even_one_column_fits() -> None:
    table = terminal.Table("title", "policy", "what it is")
    table.add_row("p" * 60, "q" * 60)
    check_table(table, {"p" * 60, "q" * 60})


def test_a_path_may_be_folded_but_not_cut() -> None:
    table = facts_table({"folder": "/a" * 100}, "a run")
    printed = shown(table)
    assert max(map(len, printed.splitlines())) <= 80
    assert "".join(letter for letter in printed if letter in "/a").count("/a") >= 100


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("command", ["presets", "options"])
def test_what_an_encoding_lacks_is_printed_by_characters_like_it(command: str, encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "collapse_cli", command], env=environment, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode(encoding)
    assert (">=" in text) == (command == "options")


@pytest.mark.parametrize("columns", ["0", "1", "x"])
def test_a_screen_without_columns_has_eighty(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert terminal.console(file=io.StringIO()).width == 80


def test_paths_that_are_not_utf8_are_refused_at_once(tmp_path: Path) -> None:
    odd = str(tmp_path / "b\udcff")
    for arguments in (
        ["run", "--preset", "smoke", "--runs-dir", odd],
        ["run", "--preset", "smoke", "--model", odd],
        ["eval", odd, "--data", "pydoc"],
        ["list", "--runs-dir", odd],
    ):
        done = e2e.collapse(*arguments)
        assert done.code == 2, arguments
        assert "UTF-8" in done.err
        assert "Traceback" not in done.err


def test_a_protocol_says_whether_blocks_are_whole_documents() -> None:
    how = {"protocol": "block", "dtype": "float32", "line_bos": False, "context": 55, "stride": 55}
    assert protocol(how, 881) == (
        "token-weighted over 881 predicted tokens; blocks of 55 tokens, the first of each not predicted; no BOS tokens"
    )
    said = protocol(how, 881, documents=True)
    assert "each block is a document; a BOS token before each, which is not predicted" in said
    assert "55" not in said, "how long the longest of them is"
    assert "no BOS" not in said
    assert protocol(how | {"protocol": "sliding"}, 881, documents=True) == protocol(how | {"protocol": "sliding"}, 881)


def test_colours_that_are_forced_into_a_log_bring_no_bars(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """FORCE_COLOR, as CI systems set it: a log would be full of bars and of commands that move the cursor."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    screen = terminal.console()
    with ProgressBars(screen, 1) as bars:
        bars.started("train", "seed 0")
        bars.progress("train", "seed 0", 1, 2, "tokens")
        bars.finished("train", "seed 0", seconds=1.0, cached=False, note="", listed=True)
    screen.print("done", style="red")
    out = capsys.readouterr().out
    assert "train" in out
    assert "\x1b[31mdone" in out
    assert not any(code in out for code in ("\x1b[?25l", "\x1b[2K", "\x1b[1A"))
