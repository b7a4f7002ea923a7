"""The help of every command: whole words within 80 columns, each option and argument described, in sentences."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from support import e2e

from collapse_cli.cli.app import app

OWN = {"help"}  # which typer describes


def commands(command: Any, *names: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command and group of commands, with what is typed for it."""
    yield names, command
    for name, one in getattr(command, "commands", {}).items():
        yield from commands(one, *names, name)


ALL = list(commands(typer.main.get_command(app)))


def words(text: str) -> list[str]:
    """Without the frames around options, and without places where lines are broken."""
    return re.sub(r"[│╭╮╰╯─]", " ", text).split()


def test_all_commands_are_met() -> None:
    assert {" ".join(names) for names, _ in ALL} >= {"", "run", "eval", "theory", "theory accumulate", "gc"}


@pytest.mark.parametrize(("names", "command"), ALL, ids=[" ".join(names) or "collapse" for names, _ in ALL])
def test_a_page_of_help_is_whole(names: tuple[str, ...], command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    made = e2e.collapse(*names, "--help")
    assert (made.code, made.err) == (0, "")
    assert max(map(len, made.out.splitlines())) <= 80
    printed = " ".join(words(made.out))
    assert "[[" not in made.out, "an optional argument has one pair of brackets"
    about = command.help.replace("`", "") if "`" not in printed else command.help
    assert " ".join(about.split()).rstrip(".") in printed
    for parameter in command.params:
        if parameter.name in OWN:
            continue
        said = getattr(parameter, "help", None) or ""
        assert said.endswith("."), f"{parameter.name} is not described in a sentence"
        # beside it, the names of other columns may stand between the words of its lines
        missing = [word for word in said.split() if word not in printed]
        assert missing == [], f"words of {parameter.name} are cut"
    for name in getattr(command, "commands", {}):
        assert name in printed
