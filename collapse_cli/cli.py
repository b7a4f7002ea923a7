"""The commands. Each reads its options, calls the module that does the work, and prints."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from collapse_cli import terminal, theory_commands

if TYPE_CHECKING:
    from collections.abc import Sequence

    from collapse_cli.config import Experiment
    from collapse_cli.rundir import RunFolder

STATUS = {"started": "started: at work, or killed (the same command goes on)"}

app = typer.Typer(
    help="What happens to a generative model when its training data are partly made by earlier models?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(theory_commands.app, name="theory")

Runs = Annotated[Path, typer.Option("--runs-dir", help="Where runs and the store are.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any option of the configuration.")
]


@app.command()
def run(
    config: Annotated[Path | None, typer.Argument(help="A configuration file (TOML).", show_default=False)] = None,
    preset: Annotated[str | None, typer.Option(help="A shipped configuration: `collapse presets`.")] = None,
    generations: Annotated[int | None, typer.Option(help="The last generation; 9 means 0..9.")] = None,
    policy: Annotated[list[str] | None, typer.Option(help="keep-P, fresh-P, accumulate … (repeatable).")] = None,
    seeds: Annotated[str | None, typer.Option(help="Such as 0,1,2.")] = None,
    model: Annotated[str | None, typer.Option(help="A Hub id, a folder, or a config .json.")] = None,
    data: Annotated[str | None, typer.Option(help="wikitext2, pydoc, a Hub id, a file or a folder.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the run's folder; the preset's by default.")] = None,
    settings: Settings = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and what it costs; run nothing.")] = False,
    jobs: Annotated[int, typer.Option(min=0, help="Stages computed side by side; 0: as many as pay here.")] = 0,
    runs_dir: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Run an experiment; run the same command again to go on where it stopped.

    Without a configuration: OPT-125m fine-tuned on WikiText-2, the experiment of Shumailov et al., Nature 2024.
    """
    from collapse_cli import printing

    loop = {"generations": generations, "policies": policy}
    tree, given = _tree(config, preset, loop, seeds, model, data, name, settings)
    console = terminal.console(stderr=as_json)
    with console.status("loading torch and transformers") if console.is_terminal else nullcontext():
        from collapse_cli import runner

    results = runner.run_all(tree, runs_dir, name or given, console, jobs=jobs, dry_run=dry_run)
    if as_json:
        print(json.dumps(results if tree.variants else results["runs"][0]))
        return
    for result in results["runs"]:
        (printing.print_plan if dry_run else printing.print_run)(console, result)
    if tree.variants and not dry_run:
        printing.print_variants(console, results)


@app.command("eval")
def evaluate(
    target: Annotated[str, typer.Argument(help="A run (name or folder), a model folder, or a Hub id.")],
    data: Annotated[str | None, typer.Option(help="Other text: wikitext2, pydoc, a Hub id, a file, a folder.")] = None,
    settings: Settings = None,
    runs_dir: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Evaluate every generation of a run again, or any causal language model.

    A model is scored on the test split of `--data` (default wikitext2); a run on its own, unless another is named.
    """
    from collapse_cli import console as show
    from collapse_cli import evaluate as again
    from collapse_cli.config import parse_settings
    from collapse_cli.data import InputError
    from collapse_cli.process import quiet_libraries

    quiet_libraries()
    console = terminal.console(stderr=as_json)
    tree = parse_settings(settings or [])
    folder = again.find_run(target, runs_dir)
    if folder is None:
        try:
            measured = again.evaluate_model(target, data, tree)
        except InputError as error:
            if Path(target).is_dir():
                raise
            raise InputError(f"there is no run {target!r} in {runs_dir}; taken for a model: {error}") from None
        if as_json:
            print(json.dumps(measured))
            return
        for note in measured["notes"]:
            console.print(f"note: {terminal.plain(note)}", highlight=False, markup=False)
        said = show.protocol(measured["protocol"], measured["predicted_tokens"])
        facts = {
            "perplexity": show.perplexity(measured["perplexity"]),
            "word perplexity": show.perplexity(measured["word_perplexity"]),
            "bits per byte": f"{measured['bits_per_byte']:.4f}",
            "protocol": said,
        }
        console.print(show.facts_table(facts, f"{measured['model']} on the test text of {measured['data']}"))
        return
    with show.Progressing(console, 1) as bar:
        bar.started("eval", folder.name)
        rows = again.evaluate_run(
            folder, data, tree, lambda done, total: bar.progress("eval", folder.name, done, total, "models")
        )
    if as_json:
        print(json.dumps(rows))
    else:
        console.print(show.evaluation_table(rows, folder.name))
        for said in show.protocols([row for row in rows if not row["pruned"]]):
            console.print(said, style="dim", highlight=False)
    if wrong := again.disagreements(rows):
        console.print(f"[red]{len(wrong)} of {len(rows)} models do not give the perplexity that was logged[/]")
        raise typer.Exit(1)


@app.command()
def report(
    targets: Annotated[list[str], typer.Argument(help="Runs, by name or folder.", metavar="RUN...")],
    out: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="What to write; report.html in the folder of the (first) run by default."),
    ] = None,
    markdown: Annotated[bool, typer.Option("--md", help="Write Markdown with pictures beside it instead.")] = False,
    figures: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Also write PNG and SVG figures for papers there.")
    ] = None,
    runs_dir: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Write one self-contained page about a run, or about several side by side."""
    from collapse_cli import report as reports
    from collapse_cli.report import places
    from collapse_cli.rundir import run_of

    folders = [run_of(target, runs_dir) for target in targets]
    folders[0].record()
    place = places.named("--out", out, "file") or folders[0].path / ("report.md" if markdown else "report.html")
    beside = places.named("--figures", figures, "folder")
    places.check(folders, place, beside, markdown=markdown)
    write = reports.write_markdown if markdown else reports.write_report
    written = [write(folders, place), *(reports.write_figures(folders, beside) if beside else [])]
    if as_json:
        print(json.dumps({"written": [str(path) for path in written]}))
        return
    for path in written:
        terminal.console().print(str(path), highlight=False, markup=False, soft_wrap=True)


@app.command()
def compare(
    targets: Annotated[list[str], typer.Argument(help="Runs, by name or folder.", metavar="RUN RUN...")],
    runs_dir: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Lay runs side by side: how far each is from generation 0, and paired differences between policies."""
    from collapse_cli import compare as side_by_side
    from collapse_cli import compare_families, printing
    from collapse_cli.rundir import run_of

    folders = [run_of(target, runs_dir) for target in targets]
    if compare_families.of_text([folder.record()["config"] for folder in folders]):
        found: Any = side_by_side.compare(folders)
    else:
        found = compare_families.compare_families(folders)
    _warn_of_damage(folders)
    if as_json:
        print(json.dumps(found.record()))
        return
    printing.print_comparison(terminal.console(), found)


@app.command()
def forecast(
    target: Annotated[str, typer.Argument(help="A run's name or folder.", metavar="RUN")],
    factor: Annotated[float, typer.Option(help="Times generation 0's perplexity that is still near.")] = 1.5,
    generation: Annotated[
        int | None, typer.Option(help="The generation that is to stay near; the last one measured by default.")
    ] = None,
    runs_dir: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Where a run is heading, and how much real data would stop it."""
    from collapse_cli import forecast as ahead
    from collapse_cli.rundir import run_of

    folder = run_of(target, runs_dir)
    found = ahead.forecast(folder, factor=factor, generation=generation)
    _warn_of_damage([folder])
    if as_json:
        print(json.dumps(found))
        return
    console = terminal.console()
    for table in ahead.tables(found):
        console.print(table)
    commands = {option.get("command") for option in found["share"].get("next", [])}
    for sentence in ahead.sentences(found):  # a command stays on one line, to be pasted
        console.print(sentence, highlight=False, markup=False, emoji=False, soft_wrap=sentence in commands)


@app.command()
def status(
    target: Annotated[str, typer.Argument(help="A run's name or folder.", metavar="RUN")],
    runs_dir: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """How far a run is: its status, its stages, its perplexities."""
    from collapse_cli import console as show
    from collapse_cli import printing
    from collapse_cli.rundir import STORE, run_of
    from collapse_cli.store import Store

    folder = run_of(target, runs_dir)
    record, rows, store = folder.record(), folder.rows(), Store(folder.runs / STORE)
    _warn_of_damage([folder])
    stages: dict[str, list[int]] = {}
    for stage in folder.plan():
        entry = stages.setdefault(stage["kind"], [0, 0])
        entry[0] += store.has(stage["key"], whole=False)
        entry[1] += 1
    if as_json:
        done = {kind: {"done": entry[0], "planned": entry[1]} for kind, entry in stages.items()}
        print(json.dumps({"status": record["status"], "error": record.get("error"), "stages": done, "rows": rows}))
        return
    console = terminal.console()
    facts = {
        "status": STATUS.get(record["status"], record["status"])
        + (f": {record['error']}" if "error" in record else ""),
        "started": record["created"],
        "updated": record["updated"],
        "stages": ", ".join(f"{kind} {entry[0]}/{entry[1]}" for kind, entry in stages.items()),
        "folder": str(folder.path),
    }
    console.print(show.facts_table(facts, folder.name))
    if rows:
        printing.print_rows(console, rows, record["config"])


@app.command()
def presets(as_json: Json = False) -> None:
    """The shipped configurations."""
    from collapse_cli import config
    from collapse_cli import console as show

    found = {name: _first_comment(path) for name, path in config.presets().items()}
    if as_json:
        print(json.dumps(found))
    else:
        terminal.console().print(show.facts_table(found, "presets, for --preset NAME"))


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    runs_dir: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Remove from the store what no run's plan reaches, and what killed runs left behind."""
    from collapse_cli import console as show
    from collapse_cli.rundir import collect_garbage

    removed = collect_garbage(runs_dir, dry_run=dry_run)
    if as_json:
        print(json.dumps(removed))
        return
    verb = "would remove" if dry_run else "removed"
    terminal.console().print(
        f"{verb} {removed['stages']} stages that no run needs and {removed['leftovers']} leftovers of killed ones, "
        f"{show.size(removed['bytes'])}; {removed['kept']} stages stay",
        highlight=False,
    )


@app.command()
def doctor(runs_dir: Runs = Path("runs"), as_json: Json = False) -> None:
    """What this machine has: Python, torch, threads, GPU, bfloat16, disk, the Hub."""
    from collapse_cli import console as show
    from collapse_cli.doctor import examine

    facts = examine(runs_dir)
    if as_json:
        print(json.dumps(facts))
    else:
        terminal.console().print(show.facts_table(facts, "this machine"))


def _tree(
    file: Path | None,
    preset: str | None,
    loop: dict[str, Any],
    seeds: str | None,
    model: str | None,
    data: str | None,
    name: str | None,
    settings: list[str] | None,
) -> tuple["Experiment", str]:
    """The configuration of a command line, and the name it gives a run."""
    from collapse_cli import config

    if file is not None and preset is not None:
        raise config.ConfigError(f"both a file ({file}) and a preset ({preset}) are named; name one of them")
    chosen = preset or config.DEFAULT_PRESET
    path = file or config.preset_path(chosen)
    tree = config.read_toml(path)
    config.load(tree, str(file) if file else f"preset {chosen}")  # its own mistakes under its name
    given: dict[str, Any] = {key: value for key, value in loop.items() if value is not None}
    if seeds is not None:
        try:
            given["seeds"] = [int(seed) for seed in seeds.split(",")]
        except ValueError:
            raise config.ConfigError(f"--seeds {seeds!r}: write whole numbers, such as 0,1,2") from None
    tree = config.merge(tree, {"loop": given} if given else {})
    for option, value in (("--model", model), ("--data", data), ("--name", name)):
        if value == "":
            raise config.ConfigError(f"{option} is empty; is a shell variable unset?")
    config.refuse_options(tree, loop, model)
    if model is not None:
        tree["model"] = {"source": model}
    if data is not None:
        names = dict.fromkeys(("train", "valid", "test", "sha256"), "")
        tree = config.merge(tree, {"data": {"source": data, **names}})
    over = config.merge({"loop": given} if given else {}, config.parse_settings(settings or []))
    config.refuse_conflicts(tree.get("variants", {}), over)
    return config.load(config.merge(tree, over), "the command line"), path.stem


def _warn_of_damage(folders: "Sequence[RunFolder]") -> None:
    for folder in folders:
        if lines := folder.damaged():
            said = "line is" if lines == 1 else "lines are"
            file = folder.path / "metrics.jsonl"
            terminal.say(f"{file}: {lines} {said} damaged and left out; the run's command writes them again")


def _first_comment(path: Path) -> str:
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return " ".join(lines).partition(". ")[0]
