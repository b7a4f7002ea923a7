"""`collapse view`: runs in the browser, followed while they are at work."""

import json
from pathlib import Path
from typing import Annotated

import typer

from collapse_cli.cli.housekeeping import Json, Runs, place
from collapse_cli.terminal import text as terminal


def view(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            help="Runs, by name or folder, on one page; without one, a list of all runs.",
            metavar="RUN",
            show_default=False,
            parser=place,
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port of the address; 0: one that is free.", show_default=False)
    ] = 0,
    runs_dir: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Look at runs in the browser while they are at work; Ctrl-C ends it.

    The page of `collapse report` on 127.0.0.1, which follows its runs, and a list of all runs. It only reads. Whoever is logged
    in on this machine can open it.
    """
    from collapse_cli.process import interruptible
    from collapse_cli.records.elsewhere import following
    from collapse_cli.records.rundir import run_of
    from collapse_cli.view.server import server

    named = [run_of(target, runs_dir) for target in targets or []]
    for run in named:
        if not run.exists():
            run.record()  # says what may have been meant
    try:
        here = [run.name for run in named if run.path.parent == runs_dir]
        with following(runs_dir, here), server(runs_dir, named, port) as made, interruptible():
            if as_json:
                print(json.dumps({"address": made.address}), flush=True)
            else:
                terminal.console().print(
                    f"{made.address}  (Ctrl-C ends it)", highlight=False, markup=False, soft_wrap=True
                )
            made.serve_forever()
    except KeyboardInterrupt:  # how it ends: nothing is left undone
        terminal.say("ended")
