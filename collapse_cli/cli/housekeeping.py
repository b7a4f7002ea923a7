"""The commands that only look, and the one that tidies up: list, status, presets, options, gc, doctor."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from collapse_cli import files
from collapse_cli.engine.remote_addresses import address_of, check_path, is_address, runs_option, shown
from collapse_cli.errors import ConfigError, InputError, how_many
from collapse_cli.terminal import text as terminal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from collapse_cli.records.rundir import RunFolder

MOST_LISTED = 200  # runs of a list, unless asked for more
GOES_ON = " (give the same command again to go on)"


def place(text: str | Path) -> str:
    """Where an argument or an option points to that may be a path."""
    return files.at_home(str(text))


def _folder(text: str | Path) -> Path:
    if not files.is_utf8(text):
        raise typer.BadParameter(f"{str(text)!r} is not UTF-8; {files.NOT_UTF8}")
    try:
        if is_address(str(text)):
            from collapse_cli.records import elsewhere

            return elsewhere.folder_of(str(text))
        check_path(str(text))
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None
    path = Path(place(text))
    try:
        kind = files.what_is(path)
        above = next((parent for parent in path.parents if not kind and files.what_is(parent)), path.parent)
        if not kind and files.what_is(above) not in ("folder", ""):
            raise typer.BadParameter(f"{above} is a file or a device, and {path} would be in it; name another folder")
    except InputError as error:
        raise typer.BadParameter(f"{error}; name a folder that can be made or read") from None
    if kind not in ("", "folder"):
        raise typer.BadParameter(f"{path} is {'a file' if kind == 'file' else 'a pipe or a device'}; name a folder")
    return path


Runs = Annotated[
    Path,
    typer.Option(
        "--runs-dir",
        parser=_folder,
        metavar="FOLDER",
        help="The folder of the runs and their store; or s3://BUCKET/PREFIX, or file:///FOLDER for one without locks.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]


def add_to(app: typer.Typer) -> None:
    """Make them commands of `collapse`."""
    app.command("list")(list_runs)
    for command in (status, presets, options, gc, doctor):
        app.command()(command)


def list_runs(
    limit: Annotated[
        int,
        typer.Option(min=0, help="Of more runs, show those that changed last; 0: all of them. JSON always has all."),
    ] = MOST_LISTED,
    runs_dir: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """All runs: how far each is, its policies and seeds."""
    from collapse_cli.cli import listing
    from collapse_cli.records.listing import runs_in

    runs, there = runs_in(runs_dir, 0 if as_json else limit)
    if as_json:
        print(json.dumps([run.record() for run in runs]))
        return
    console = terminal.console()
    if not runs:
        missing = "" if runs_dir.is_dir() or address_of(runs_dir) else ", a folder that does not exist"
        where = f"{terminal.plain(shown(runs_dir))}{missing}"
        console.print(
            f"no runs in {where}; `collapse run --preset smoke{runs_option(runs_dir)}` makes one", markup=False
        )
        return
    console.print(listing.table(runs, runs_dir))
    if len(runs) < there:
        terminal.line(
            console,
            f"these changed last, or cannot be read; {how_many(there - len(runs), 'more run')}: `collapse list --limit 0{runs_option(runs_dir)}` shows all",
        )
    for run in runs:
        if run.error:
            terminal.line(console, f"{run.name}: {terminal.plain(run.error, 300)}")


def status(
    target: Annotated[
        str | None,
        typer.Argument(
            help="A run's name or folder; all runs without it.", metavar="RUN", show_default=False, parser=place
        ),
    ] = None,
    runs_dir: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """How far a run is: its status, its stages, its perplexities."""
    if target is None:
        list_runs(runs_dir=runs_dir, as_json=as_json)
        return
    from collapse_cli.records.at_work import SAID, at_work
    from collapse_cli.records.elsewhere import said
    from collapse_cli.records.rundir import run_of
    from collapse_cli.records.runs import store_of
    from collapse_cli.terminal.plan import SHARDS
    from collapse_cli.terminal.run import print_rows
    from collapse_cli.terminal.text import facts_table

    folder = run_of(target, runs_dir)
    record, tree, rows, store = folder.record(), folder.tree(), folder.rows(), store_of(folder.runs)
    warn_of_damage([folder])
    stages: dict[str, list[int]] = {}
    for stage in folder.plan():
        if stage.shard_of and store.has(stage.shard_of, whole=False):
            continue
        entry = stages.setdefault(f"{stage.kind}{SHARDS if stage.shard_of else ''}", [0, 0])
        entry[0] += store.has(stage.key, whole=False)
        entry[1] += 1
    working = at_work(folder.path) if record["status"] == "started" else None
    if as_json:
        done = {kind: {"done": entry[0], "planned": entry[1]} for kind, entry in stages.items()}
        state = {"status": record["status"], "at_work": working, "error": record.get("error")}
        print(json.dumps({**state, "stages": done, "rows": [row.record() for row in rows]}))
        return
    console = terminal.console()
    started = f"started: {SAID[working]}{'' if working else GOES_ON}"
    facts = {
        "status": (started if record["status"] == "started" else record["status"])
        + (f": {record['error']}" if "error" in record else ""),
        "started": record["created"],
        "updated": record["updated"],
        "stages": _stages_said(stages, folder, measured=bool(rows)),
        "folder": said(folder.path),
    }
    console.print(facts_table(facts, folder.name))
    if rows:
        print_rows(console, rows, tree)


def _stages_said(stages: "Mapping[str, Sequence[int]]", folder: "RunFolder", *, measured: bool) -> str:
    """How many of each kind are in the store; of a run with measurements that has none there, that its store is elsewhere."""
    from collapse_cli.records.names import STORE

    planned = sum(entry[1] for entry in stages.values())
    if measured and planned and not any(entry[0] for entry in stages.values()):
        store = folder.runs / STORE
        there = "is not there" if not store.exists() else "has none of them"
        return (
            f"{planned} planned; the store {store} {there} (it does not come along when a run is copied); "
            "what was measured is below"
        )
    return ", ".join(f"{kind} {entry[0]}/{entry[1]}" for kind, entry in stages.items())


def presets(as_json: Json = False) -> None:
    """The shipped configurations."""
    from collapse_cli import config
    from collapse_cli.terminal.text import facts_table

    described = {name: _first_comment(path) for name, path in config.presets().items()}
    if as_json:
        print(json.dumps(described))
    else:
        terminal.console().print(facts_table(described, "presets, for --preset NAME"))


def options(
    word: Annotated[
        str | None,
        typer.Argument(
            help="A section, a part of a name, or a word of the meaning; all options without it.",
            metavar="WORD",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Every option of a configuration: its type, default and meaning. Each is --set KEY=VALUE, or a line of a file."""
    from dataclasses import asdict

    from collapse_cli.config import options as known

    chosen = known.options() if word is None else known.matching(word)
    if not chosen:
        near = known.near(word or "")
        hint = f"; the nearest: {', '.join(near)}" if near else "; `collapse options` lists all"
        raise ConfigError(f"no option has {word!r} in its name or meaning{hint}")
    if as_json:
        print(json.dumps([asdict(option) for option in chosen]))
        return
    table = terminal.Table("options, for --set KEY=VALUE", "option", "default", "what it is")
    for option in chosen:
        of = f" [dim](learners: {', '.join(option.learners)})[/]" if option.learners else ""
        table.add_row(
            terminal.safe(option.key),
            terminal.safe(option.default),
            f"{terminal.safe(option.meaning)} [dim]{option.type}.[/]{of}",
        )
    terminal.console().print(table)


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted; delete nothing.")] = False,
    without: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUN",
            show_default=False,
            help="A run whose plan cannot be read: what it alone needs is deleted, too. May be repeated.",
        ),
    ] = None,
    runs_dir: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Delete from the store what no run needs any more, and what killed runs left behind."""
    from collapse_cli.metrics import numbers
    from collapse_cli.run.garbage import collect_garbage

    if not (runs_dir.is_dir() or address_of(runs_dir)):
        raise ConfigError(f"there is no folder {str(runs_dir)!r} (--runs-dir)")
    removed = collect_garbage(runs_dir, dry_run=dry_run, without=without or ())
    if as_json:
        print(json.dumps(removed))
        return
    verb, kept = "would delete" if dry_run else "deleted", how_many(removed["kept"], "stage")
    terminal.console().print(
        f"{verb} {how_many(removed['stages'], 'stage')} that no run needs and what {how_many(removed['leftovers'], 'killed stage')} "
        f"left behind ({numbers.size(removed['bytes'])}); {kept} {'would stay' if dry_run else 'stayed'}",
        highlight=False,
    )


def doctor(runs_dir: Runs = Path("runs"), as_json: Json = False) -> None:
    """What this machine has: Python, torch, processor, threads, GPU, bfloat16, disk, the Hub."""
    from collapse_cli.cli.doctor import examine
    from collapse_cli.terminal.text import facts_table

    facts = examine(runs_dir)
    if as_json:
        print(json.dumps(facts))
    else:
        terminal.console().print(facts_table(facts, "this machine"))


def warn_of_damage(folders: "Sequence[RunFolder]") -> None:
    for folder in folders:
        if lines := folder.damaged():
            what = "line is" if lines == 1 else "lines are"
            file = folder.path / "metrics.jsonl"
            terminal.say(f"{file}: {lines} {what} damaged and left out; the run's command writes them again")


def _first_comment(path: Path) -> str:
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return " ".join(lines).partition(". ")[0]
