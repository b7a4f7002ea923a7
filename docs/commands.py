"""The command reference, made from the commands themselves: .venv/bin/python docs/commands.py

Writes `docs/commands.md`; a test says when a command has changed and the page has not.
"""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import typer

from collapse_cli.cli.app import app

PAGE = Path(__file__).with_suffix(".md")
KINDS = {int: "N", float: "NUMBER", str: "TEXT", Path: "PATH"}
INTRODUCTION = """# Commands

Made from the commands themselves by `docs/commands.py`; `collapse COMMAND --help` says the same.

- Runs are kept in the folder `runs`; `--runs-dir FOLDER` names another one. A run is named by its name, or by its folder's path.
- What has no option of its own is set by `--set KEY=VALUE`, as often as needed; `collapse options` lists all keys.
- `--json` prints for other programs what is otherwise printed for people. With it, notes, warnings and progress go to the standard error output.
- A run that was interrupted goes on where it stopped when the same command is given again.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | something that is no mistake of the user's went wrong, such as a bug |
| 2 | what was asked for or given cannot be used; one line says what, where, and what to do |
| 130 | interrupted, as by Ctrl-C; `collapse view` ends with 0, for that is how it is ended |
| 141 | nobody reads the output any more, as after `collapse list \\| head -1` |
"""


def commands(group: Any, *names: str) -> Iterator[tuple[str, Any]]:
    """Every command with what is typed for it, those of a group after the group."""
    for name, command in group.commands.items():
        yield " ".join((*names, name)), command
        if hasattr(command, "commands"):
            yield from commands(command, *names, name)


def page() -> str:
    """The whole reference, as Markdown."""
    found = list(commands(typer.main.get_command(app), "collapse"))
    rows = "\n".join(f"| [`{name}`](#{anchor(name)}) | {cell(first_line(command))} |" for name, command in found)
    parts = [INTRODUCTION, f"| command | what it does |\n|---|---|\n{rows}\n"]
    return "\n".join([*parts, *(section(name, command) for name, command in found)])


def section(name: str, command: Any) -> str:
    """A command: how it is typed, what it does, its arguments and options."""
    given = [one for one in command.params if one.name != "help"]
    arguments = [one for one in given if not one.opts[0].startswith("-")]
    typed = [f"[{placeholder(one, command)}]" if not one.required else placeholder(one, command) for one in arguments]
    typed = [f"{one}..." if many(given) else one for one, given in zip(typed, arguments, strict=True)]
    if hasattr(command, "commands"):
        typed = ["COMMAND"]
    options = ["[OPTIONS]"] if len(given) > len(arguments) else []
    lines = [f"## {name}\n", f"    {' '.join([name, *typed, *options])}\n", f"{paragraphs(command.help)}\n"]
    if given:
        rows = [f"| {one} | {cell(what)} | {default} |" for one, what, default in map(described(command), given)]
        lines.append("| argument or option | meaning | default |\n|---|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(lines)


def described(command: Any) -> Any:
    """A function from a parameter to how it is typed, what it means, and its default."""

    def describe(one: Any) -> tuple[str, str, str]:
        if not one.opts[0].startswith("-"):
            return f"`{placeholder(one, command)}`", meaning(one, command), ""
        flag = getattr(one, "is_flag", False)
        typed = one.opts[0] if flag else f"{one.opts[0]} {placeholder(one, command)}"
        said = one.default if not (flag or one.show_default is False or many(one)) else None
        return f"`{typed}`", meaning(one, command), "" if said is None else f"`{said}`"

    return describe


def meaning(one: Any, command: Any) -> str:
    """What a parameter's help says, from where it was written: some versions of click and typer lose an argument's together."""
    written = inspect.signature(command.callback).parameters[one.name].annotation
    return str(written.__metadata__[0].help)


def placeholder(one: Any, command: Any) -> str:
    """What stands for a value: the word of the help, or that of its type."""
    if one.metavar:
        return str(one.metavar)
    kinds = kinds_of(inspect.signature(command.callback).parameters[one.name].annotation)
    return KINDS[next(kind for kind in kinds if kind in KINDS)]


def kinds_of(annotation: Any) -> list[Any]:
    """The types within an annotation: `int` of `Annotated[int | None, …]`."""
    inner = get_args(annotation)
    if not inner:
        return [annotation]
    inner = inner[:1] if get_origin(annotation) is None or hasattr(annotation, "__metadata__") else inner
    return [kind for one in inner for kind in kinds_of(one)]


def many(one: Any) -> bool:
    """Whether it may be given several times."""
    return bool(getattr(one, "multiple", False)) or one.nargs == -1


def anchor(name: str) -> str:
    """How a page's own link names the heading."""
    return name.replace(" ", "-")


def first_line(command: Any) -> str:
    """What a command does, in its first sentence."""
    return paragraphs(command.help).partition("\n\n")[0]


def paragraphs(text: str) -> str:
    """A docstring without its indents, a paragraph a line."""
    return "\n\n".join(" ".join(one.split()) for one in re.split(r"\n\s*\n", inspect.cleandoc(text)))


def cell(text: str) -> str:
    """A text for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
