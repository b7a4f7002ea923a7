"""The command `check`: one's own text, and text that some model wrote."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from collapse_cli.cli.housekeeping import Json, Runs, place
from collapse_cli.terminal import text as terminal


def check(
    real: Annotated[str, typer.Argument(help="Real text: a file or a folder.", metavar="REAL", parser=place)],
    synthetic: Annotated[
        str, typer.Argument(help="Text that a model wrote: a file or a folder.", metavar="SYNTHETIC", parser=place)
    ],
    test: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Real text to test on, in neither of both; by default a part of REAL is put aside.",
            parser=place,
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Compare the texts in seconds; train nothing.")] = False,
    name: Annotated[str | None, typer.Option(help="The name of the run's folder; by default check-SYNTHETIC.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="An option of the configuration, such as data.text=COLUMN. Give it once for each option.",
        ),
    ] = None,
    runs_dir: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Compare real text with text that a model wrote: what is wrong with it, and what would training on it do?"""
    from collapse_cli.config import ConfigError, parse_settings
    from collapse_cli.run import check as checks
    from collapse_cli.terminal.check import print_compared

    for what, value in (("REAL", real), ("SYNTHETIC", synthetic), ("--test", test), ("--name", name)):
        if value is not None and not value.strip():
            raise ConfigError(f"{what} is empty; is a shell variable unset?")
    first, second = Path(real), Path(synthetic)
    asked = checks.CheckAsked(
        first,
        second,
        Path(test) if test else None,
        quick,
        name or checks.named(first, second),
        parse_settings(settings or []),
    )
    console = terminal.console(stderr=as_json)
    with console.status("comparing the texts") if console.is_terminal else nullcontext():
        result = checks.check(asked, runs_dir, console)
    if as_json:
        print(json.dumps(result.record()))
        return
    print_compared(console, result.compared, result.checked["notes"])
    if result.page is not None:
        console.print(f"report: {terminal.safe(result.page)}", highlight=False, soft_wrap=True)
