"""Documents that must keep up with the code: the command reference, the glossary, the index of docs/."""

from typing import Annotated

import typer
from support.scripts import PROJECT, script

from collapse_cli.cli.app import app
from collapse_cli.cli.once import App

DOCS = PROJECT / "docs"


# --- docs/commands.md -------------------------------------------------------------------------------------------------


def test_the_command_reference_is_what_the_commands_say() -> None:
    made = script("docs/commands.py").page()
    there = (DOCS / "commands.md").read_text(encoding="utf-8")
    assert there == made, "a command has changed: .venv/bin/python docs/commands.py writes the page anew"


def test_every_command_and_option_stands_in_the_reference() -> None:
    reference = script("docs/commands.py")
    page = reference.page()
    found = list(reference.commands(typer.main.get_command(app), "collapse"))
    assert {"collapse run", "collapse view", "collapse theory ridge"} <= {name for name, _ in found}
    for name, command in found:
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert section, name
        for one in command.params:
            if one.name != "help":
                assert one.help.replace("|", "\\|") in section, f"{name}: {one.name}"
                assert not one.opts[0].startswith("-") or f"`{one.opts[0]}" in section, f"{name}: {one.opts[0]}"


def test_the_reference_says_what_an_option_takes_and_its_default() -> None:
    made = App(help="Things.")

    @made.command()
    def count(
        what: Annotated[str, typer.Argument(help="A | thing.", metavar="THING")],
        often: Annotated[int | None, typer.Option(help="How often.")] = 3,
        where: Annotated[list[str] | None, typer.Option(help="Where.")] = None,
        loud: Annotated[bool, typer.Option("--loud", help="Aloud.")] = False,
    ) -> None:
        """Count a thing.

        And say
        so.
        """

    @made.command()
    def other() -> None:
        """Another one, without which there would be no name of a command to type."""

    reference = script("docs/commands.py")
    name, command = next(iter(reference.commands(typer.main.get_command(made), "x")))
    assert reference.section(name, command) == (
        "## x count\n\n    x count THING [OPTIONS]\n\nCount a thing.\n\nAnd say so.\n\n"
        "| argument or option | meaning | default |\n|---|---|---|\n| `THING` | A \\| thing. |  |\n"
        "| `--often N` | How often. | `3` |\n| `--where TEXT` | Where. |  |\n| `--loud` | Aloud. |  |\n"
    )
