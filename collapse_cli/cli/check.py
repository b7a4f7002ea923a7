"""The command `check`: one's own text, and text that some model wrote."""

import json
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
    model: Annotated[
        str | None,
        typer.Option(
            help="The model to fine-tune: a Hub id or a folder; by default a small one is trained from scratch."
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Compare the texts in seconds; train nothing.")] = False,
    seeds: Annotated[
        str | None, typer.Option(help="Repetitions of the training, such as 0,1,2 or 0-9; 0-2 by default.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The name of the run's folder; by default check-SYNTHETIC.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="An option of the configuration, such as data.text=COLUMN (foreign.text: of SYNTHETIC alone). Give it once for each option.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Try a few steps, and say what the training will cost; run nothing.")
    ] = False,
    jobs: Annotated[
        int,
        typer.Option(min=0, help="How many models to train at the same time; 0: chosen by the size of the model."),
    ] = 0,
    runs_dir: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Compare real text with text that a model wrote: what is wrong with it, and what would training on it do?"""
    from collapse_cli.config import ConfigError, parse_seeds, parse_settings
    from collapse_cli.config.foreign import ADDRESS
    from collapse_cli.run import check as checks
    from collapse_cli.run.execution import Execution
    from collapse_cli.terminal.check import print_check
    from collapse_cli.terminal.plan import print_plan

    for what, value in (("REAL", real), ("SYNTHETIC", synthetic), ("--test", test)):
        if value is not None and ADDRESS.match(value):
            raise ConfigError(
                f"{what} is an address, and texts are read from files here; save the text and name its file (a run can ask a server: "
                "collapse options mixture.synthetic)"
            )
    for option, given in (("--model", model), ("--seeds", seeds), ("--dry-run", dry_run), ("--jobs", jobs)):
        if quick and given:
            raise ConfigError(f"{option} has no effect with --quick, which trains nothing; leave one of them out")
    asked = checks.CheckAsked(
        Path(real),
        Path(synthetic),
        Path(test) if test else None,
        quick,
        name or checks.named(Path(synthetic)),
        model,
        None if seeds is None else tuple(parse_seeds(seeds)),
        parse_settings(settings or []),
    )
    console = terminal.console(stderr=as_json)
    if dry_run:
        plan = checks.plan_check(asked, runs_dir, console, Execution(jobs))
        if as_json:
            print(json.dumps(plan.record()))
        else:
            print_plan(console, plan)
        return
    result = checks.check(asked, runs_dir, console, Execution(jobs))
    if as_json:
        print(json.dumps(result.record()))
        return
    print_check(console, result.texts, result.verdict, result.checked["notes"])
    if result.page is not None:
        console.print(f"report: {terminal.safe(result.page)}", highlight=False, soft_wrap=True)
