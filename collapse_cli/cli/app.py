"""The commands. Each reads its options, calls the module that does the work, and prints."""

import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from collapse_cli.cli import check, housekeeping, repeated_options, theory_lineages, viewing
from collapse_cli.cli.housekeeping import Json, Runs, place, warn_of_damage
from collapse_cli.errors import how_many
from collapse_cli.process import BEGAN
from collapse_cli.terminal import text as terminal

if TYPE_CHECKING:
    from rich.console import Console

    from collapse_cli.findings.run_result import Results

app = repeated_options.App(
    help="What happens to a generative model when its training data are partly made by earlier models?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any option of the configuration; `collapse options` lists them. Give it once for each option.",
    ),
]


def _say_version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        print(f"collapse {metadata.version('collapse-cli')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What happens to a generative model when its training data are partly made by earlier models?"""


@app.command()
def run(
    config: Annotated[
        str | None,
        typer.Argument(help="A configuration file (TOML).", metavar="CONFIG", show_default=False, parser=place),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="A shipped configuration: `collapse presets`.")] = None,
    generations: Annotated[int | None, typer.Option(help="The last generation; 9 means 0..9.")] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="How real and synthetic rows are mixed: keep-P, keep-rows-N, fresh-P, accumulate, accumulate-fresh-P or accumulate-subsample; P may "
            "be one for each generation, as in keep-50-20-10. Give it once for each policy; those of the configuration do not count then. A run that exists also keeps its own."
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(help="One repetition for each, such as 0,1,2 or 0-9. A run that exists also keeps its own."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A Hub id, a folder with weights or a LoRA adapter, a .gguf file, or a config .json to start from scratch."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="wikitext2, pydoc, zipf, world, a Hub id, a file or a folder; for numbers and images: `collapse options data`."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The name of the run's folder; by default that of the preset or file.")
    ] = None,
    settings: Settings = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Time a few steps, and print the plan and what it will cost; run nothing.")
    ] = False,
    jobs: Annotated[
        int,
        typer.Option(min=0, help="How many stages to compute at the same time; 0: chosen by the size of the model."),
    ] = 0,
    executor: Annotated[
        Literal["local", "ray"],
        typer.Option(
            metavar="WHERE",
            help="What computes the stages: local, this machine, or ray, a Ray cluster (docs/cluster.md).",
        ),
    ] = "local",
    shards: Annotated[
        int,
        typer.Option(
            min=1,
            max=1000,
            help="In how many parts to compute long stages of language models (sampling, scoring, examining), so that workers or machines share them; the rows are the same.",
        ),
    ] = 1,
    devices: Annotated[
        int,
        typer.Option(
            min=1,
            max=1024,
            help="How many devices train one model together: GPUs of this machine, or processes on its CPU.",
        ),
    ] = 1,
    runs_dir: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Run an experiment; after an interruption the same command goes on where it stopped.

    Without a configuration: OPT-125m fine-tuned on WikiText-2, the experiment of Shumailov et al., Nature 2024.
    """
    from collapse_cli.cli import configuration
    from collapse_cli.records.rundir import RunFolder
    from collapse_cli.run import finished

    loop = {"generations": generations, "policies": policy}
    file = None if config is None else Path(config)
    asked = configuration.requested(file, preset, loop, seeds, model, data, name, settings or [])
    experiment, folder = asked.experiment, RunFolder(runs_dir, asked.name)
    console = terminal.console(stderr=as_json)
    there = finished.as_they_were(experiment, runs_dir, asked.name) if executor == "local" and not dry_run else None
    if there is not None:
        for note in configuration.notes(asked, folder):
            terminal.line(console, f"note: {note}")
        for run_name, notes in there.notes.items():
            if experiment.variants:
                console.print(f"{run_name}:", style="bold", highlight=False, markup=False)
            for note in notes:
                terminal.line(console, f"note: {note}")
        _tell(there.results, console, variants=bool(experiment.variants), as_json=as_json)
        return
    from collapse_cli.run import early_checks  # which takes longer to load than to say that a run is finished
    from collapse_cli.run.execution import Execution

    execution = Execution(jobs, executor, shards, devices)
    if not experiment.variants:  # those of variants are checked under their own names
        early_checks.check_experiment(experiment, folder)
    execution.check(experiment, given=settings or [])
    with console.status("loading the libraries") if console.is_interactive else nullcontext():
        from collapse_cli.run import runner
        from collapse_cli.terminal.plan import Total, print_plan, print_total

    for note in configuration.notes(asked, folder):
        terminal.line(console, f"note: {note}")
    if dry_run:
        loading = time.perf_counter() - BEGAN.get(time.perf_counter())
        plans = runner.plan_all(experiment, runs_dir, asked.name, console, execution, loading=loading)
        total = Total.of(plans)
        if as_json:
            records = [plan.record() for plan in plans]
            print(json.dumps({"runs": records, "total": total.record()} if experiment.variants else records[0]))
            return
        for plan in plans:
            print_plan(console, plan)
        print_total(console, total)
        return
    results = runner.run_all(experiment, runs_dir, asked.name, console, execution)
    _tell(results, console, variants=bool(experiment.variants), as_json=as_json)


def _tell(results: "Results", console: "Console", *, variants: bool, as_json: bool) -> None:
    """What a run, or each of its variants, came to."""
    from collapse_cli.terminal.run import print_run, print_variants

    if as_json:
        print(json.dumps(results.record() if variants else results.runs[0].record()))
        return
    for result in results.runs:
        print_run(console, result)
    if variants:
        print_variants(console, results)


@app.command("eval")
def evaluate(
    target: Annotated[
        str,
        typer.Argument(
            help="A run (name or folder), a model folder, a .gguf file, or a Hub id.", metavar="TARGET", parser=place
        ),
    ],
    data: Annotated[
        str | None, typer.Option(help="Other text: wikitext2, pydoc, zipf, world, a Hub id, a file or a folder.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="An option of data.… or eval.…, such as eval.protocol=sliding; for a model also model.base, model.revision and "
            "model.tokenizer.",
        ),
    ] = None,
    runs_dir: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Measure every generation of a run again, or any causal language model.

    A model is scored on the test split of `--data` (by default wikitext2), a run on that of its own data.
    """
    from collapse_cli.config import nearest, parse_settings
    from collapse_cli.engine.remote_addresses import shown
    from collapse_cli.errors import InputError
    from collapse_cli.findings.evaluated import disagreements
    from collapse_cli.process import quiet_libraries
    from collapse_cli.records.runs import made_by, names_of_runs
    from collapse_cli.run import evaluate as again
    from collapse_cli.terminal.evaluation import print_evaluation, print_model
    from collapse_cli.terminal.progress import ProgressBars

    console = terminal.console(stderr=as_json)
    tree = parse_settings(settings or [])
    folder = again.find_run(target, runs_dir)
    try:
        again.check_target(target, folder, data, tree)
        quiet_libraries()
        measured = again.evaluate_model(target, data, tree) if folder is None else None
    except InputError as error:
        if folder is not None or Path(target).is_dir() or Path(target).is_file():
            raise
        near = nearest(target, names_of_runs(runs_dir))
        near = near or made_by(target, runs_dir)
        raise InputError(f"there is no run {target!r} in {shown(runs_dir)}{near}; and as a model: {error}") from None
    if folder is None:
        assert measured is not None
        if as_json:
            print(json.dumps(measured))
            return
        print_model(console, measured)
        return
    with ProgressBars(console, 1) as bar:
        bar.started("eval", folder.name)
        evaluated = again.evaluate_run(
            folder, data, tree, lambda done, total: bar.progress("eval", folder.name, done, total, "models")
        )
    if as_json:
        print(json.dumps([model.record() for model in evaluated]))
    else:
        print_evaluation(console, evaluated, folder.name)
    if wrong := disagreements(evaluated):
        console.print(
            f"[red]of {how_many(len(evaluated), 'model')}, {len(wrong)} gave another perplexity than was logged[/]"
        )
        raise typer.Exit(1)


@app.command()
def report(
    targets: Annotated[list[str], typer.Argument(help="Runs, by name or folder.", metavar="RUN", parser=place)],
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="The file to write; by default report.html (report.md with --md) in the folder of the first run.",
            parser=place,
        ),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--md", help="Write Markdown, with pictures beside it, instead of HTML.")
    ] = False,
    figures: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="Also write PNG and SVG figures for papers into this folder.", parser=place
        ),
    ] = None,
    runs_dir: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Write a page about a run, or one page about several; it needs no network and no other file."""
    from collapse_cli import report as reports
    from collapse_cli.records.rundir import run_of
    from collapse_cli.report import destination

    folders = [run_of(target, runs_dir) for target in targets]
    folders[0].record()
    place = Path(out) if out else folders[0].path / ("report.md" if markdown else "report.html")
    beside = Path(figures) if figures else None
    destination.check_writable(folders, place, beside, markdown=markdown)
    write = reports.write_markdown if markdown else reports.write_report
    written = [write(folders, place), *(reports.write_figures(folders, beside) if beside else [])]
    if as_json:
        print(json.dumps({"written": [str(path) for path in written]}))
        return
    for path in written:
        terminal.console().print(str(path), highlight=False, markup=False, soft_wrap=True)


@app.command()
def compare(
    targets: Annotated[list[str], typer.Argument(help="Runs, by name or folder.", metavar="RUN", parser=place)],
    runs_dir: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Compare runs: how far each is from generation 0, and paired differences between policies."""
    from collapse_cli.findings.compare import compare as compared
    from collapse_cli.records.rundir import run_of
    from collapse_cli.terminal.comparison import print_comparison

    folders = [run_of(target, runs_dir) for target in targets]
    comparison = compared(folders)
    warn_of_damage(folders)
    if as_json:
        print(json.dumps(comparison.record()))
        return
    print_comparison(terminal.console(), comparison)


@app.command()
def forecast(
    target: Annotated[str, typer.Argument(help="A run's name or folder.", metavar="RUN", parser=place)],
    factor: Annotated[float, typer.Option(help="How many times generation 0's perplexity is still acceptable.")] = 1.5,
    generation: Annotated[
        int | None, typer.Option(help="The generation for which that is asked; by default the last one measured.")
    ] = None,
    runs_dir: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Where a run is heading, and how much real data would stop it."""
    from collapse_cli.findings.forecast import forecast as worked_out
    from collapse_cli.records.rundir import run_of
    from collapse_cli.terminal.forecast import print_forecast

    folder = run_of(target, runs_dir)
    record = worked_out(folder, factor=factor, generation=generation)
    warn_of_damage([folder])
    if as_json:
        print(json.dumps(record))
        return
    print_forecast(terminal.console(), record)


app.command()(check.check)
app.command()(viewing.view)
app.add_typer(theory_lineages.app, name="theory")
housekeeping.add_to(app)
