"""`collapse check`: from two texts to a run folder: what both are without training, then what training on them does."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from collapse_cli import report
from collapse_cli.check import documents, side_by_side
from collapse_cli.check.documents import Documents, ReadingOptions
from collapse_cli.check.training_texts import TrainingTexts, training_texts
from collapse_cli.config import Experiment, load
from collapse_cli.config.command_line import refuse_unread
from collapse_cli.errors import ConfigError, InputError, how_many
from collapse_cli.findings.check import Remark, TwoTexts, compared
from collapse_cli.findings.shares import ShareVerdict, verdict_of
from collapse_cli.foreign.written import ADVICE
from collapse_cli.metrics import numbers
from collapse_cli.process import BEGAN, interruptible
from collapse_cli.records.at_work import working
from collapse_cli.records.checked import TEXTS, read_checked, write_checked
from collapse_cli.records.names import can_be_named
from collapse_cli.records.rundir import RunFolder
from collapse_cli.run import check_options
from collapse_cli.run.execution import DEFAULT, Execution
from collapse_cli.terminal import text as terminal
from collapse_cli.terminal.plan import PlanCosts

if TYPE_CHECKING:  # it imports torch
    from collapse_cli.run.preparation import Prepared

SEED = 0  # of what is drawn at random before any training


@dataclass(frozen=True)
class CheckAsked:
    """What a command line asks for.

    Attributes:
        test: the test text; None: a part of the real one is put aside.
        quick: whether nothing is trained.
        model: a Hub id or a folder to start from; None: a small model from scratch.
        seeds: of the trained models; None: three.
        tree: options of the configuration that were given, as `--set` has them.
    """

    real: Path
    synthetic: Path
    test: Path | None
    quick: bool
    name: str
    model: str | None = None
    seeds: tuple[int, ...] | None = None
    tree: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reading(self) -> ReadingOptions:
        """How the given files are read."""
        data, foreign = (
            given if isinstance(given := self.tree.get(name), Mapping) else {} for name in ("data", "foreign")
        )
        known = {option.name for option in fields(ReadingOptions)} - {"synthetic"}
        said = {name: str(value) for name, value in data.items() if name in known}
        return ReadingOptions(**said, synthetic=str(foreign.get("text", "")))


@dataclass(frozen=True)
class CheckTexts:
    """The texts of a check, read."""

    real: Documents
    synthetic: Documents
    test: Documents | None
    notes: Sequence[str]

    def inputs(self) -> dict[str, Any]:
        """What tells one check from another."""
        return {
            "real": self.real.sha256,
            "synthetic": self.synthetic.sha256,
            "test": self.test.sha256 if self.test else "",
            "version": side_by_side.VERSION,
        }


@dataclass(frozen=True)
class CheckResult:
    """What a check came to.

    Attributes:
        verdict: what trained models say; None where none were trained.
        checked: the record, as `check.json` has it.
    """

    run: str
    folder: Path
    page: Path | None
    texts: TwoTexts
    verdict: ShareVerdict | None
    checked: Mapping[str, Any]

    @property
    def remarks(self) -> list[Remark]:
        """All sentences: first those on trained models."""
        return [*(self.verdict.remarks if self.verdict else ()), *self.texts.remarks]

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "run": self.run,
            "folder": str(self.folder),
            "report": None if self.page is None else str(self.page),
            "remarks": [remark.record() for remark in self.remarks],
            "trained": None if self.verdict is None else self.verdict.record(),
            "checked": dict(self.checked),
        }


def named(synthetic: Path) -> str:
    """What a check is called where nobody names it: `check-`, and the name of the synthetic text."""
    name = f"check-{synthetic.name.split('.')[0]}"
    return name if can_be_named(name) else "check"


def read_texts(asked: CheckAsked) -> CheckTexts:
    """The texts, each read once and whole.

    Raises:
        InputError: for one that is not there, is no text, or has too few rows.
    """
    real, own_test = documents.read_real(asked.real, asked.reading)
    synthetic = documents.read_synthetic(asked.synthetic, asked.reading)
    test = documents.read_test(asked.test, asked.reading) if asked.test else own_test
    notes = []
    if real.dialogues != synthetic.dialogues:
        odd = "real" if real.dialogues else "synthetic"
        notes.append(
            f"only the {odd} text is of chats or prompts with answers: of it the last answers are measured, of the other one whole rows"
        )
    elif real.dialogues:
        notes.append(
            "rows are chats, or prompts with answers: the last answers are measured; models are trained on whole rows, as plain text"
        )
    if asked.real.resolve() == asked.synthetic.resolve():
        notes.append(
            "both texts are the same file: what is said of it shows how `collapse check` speaks of texts that do not differ"
        )
    elif real.sha256 == synthetic.sha256:
        notes.append("both texts hold the same rows")
    if own_test is not None and asked.test is None:
        notes.append(f"the test text is that of {asked.real}")
    if test is not None:
        there = set(real.contents.tolist())
        stands = sum(content in there for content in test.contents.tolist())
        if stands:
            notes.append(
                f"{stands:,} of {len(test.rows):,} test rows also stand in the real text; they are left out of training"
            )
    return CheckTexts(real, synthetic, test, notes)


def check(asked: CheckAsked, runs: Path, console: Console, execution: Execution = DEFAULT) -> CheckResult:
    """Compare two texts, then train models on them unless that was not wanted.

    Raises:
        ConfigError, InputError: for what the user has to mend; nothing has been written then.
    """
    folder = RunFolder(runs, asked.name)
    if asked.quick:
        quick = without_training(asked)
    else:
        check_options.check_options(_training(asked), str(asked.real), str(asked.synthetic))
    with interruptible():
        texts = read_texts(asked)
        checked = _same(folder, texts)
        trained = None if asked.quick else training_texts(texts.real, texts.synthetic, texts.test, SEED)
        with working(folder.path):
            if checked is None:
                with console.status("comparing the texts") if console.is_interactive else nullcontext():
                    found = side_by_side.examine(texts.real, texts.synthetic, texts.test, seed=SEED)
                checked = {"inputs": texts.inputs(), "notes": list(texts.notes), "trained": False, "texts": found}
                write_checked(folder.path, checked)
            if trained is None:
                if not folder.exists():
                    folder.start(quick, [], {})
                    folder.finish("success")
                page: Path | None = report.write_report([folder], folder.path / "report.html", forecast=False)
            else:
                checked, page = _train(asked, folder, checked, trained, console, execution)
    return CheckResult(folder.name, folder.path, page, compared(checked["texts"]), _verdict(folder, checked), checked)


def plan_check(asked: CheckAsked, runs: Path, console: Console, execution: Execution = DEFAULT) -> PlanCosts:
    """What a check would cost, as `collapse run --dry-run` says it of a run; nothing is left behind."""
    from collapse_cli.engine.store import store_at
    from collapse_cli.process import quiet_libraries
    from collapse_cli.records.runs import store_of
    from collapse_cli.run import check_training
    from collapse_cli.run.costs import CostsAsked, describe
    from collapse_cli.run.preparation import prepare

    began = BEGAN.get(time.perf_counter())
    quiet_libraries()
    check_options.check_options(_training(asked), str(asked.real), str(asked.synthetic))
    texts, folder = read_texts(asked), RunFolder(runs, asked.name)
    compared_before = _same(folder, texts) is not None
    with interruptible(), tempfile.TemporaryDirectory(prefix="collapse-") as temporary:
        place = Path(temporary)
        written = training_texts(texts.real, texts.synthetic, texts.test, SEED).write(place / TEXTS)
        aside = store_at(place / "store")
        aside.begin()
        with console.status("timing the comparison, and a few steps") if console.is_interactive else nullcontext():
            if not compared_before:  # for the time that it takes
                side_by_side.examine(texts.real, texts.synthetic, texts.test, seed=SEED)
            config = check_training.experiment(_training(asked), *written, aside, execution)
            prepared = prepare(config, RunFolder(place, asked.name), store_of(runs), place / "store", execution)
            costs = CostsAsked(place / "timed", loading=time.perf_counter() - began)
            with closing(costs.places):
                described = describe(prepared, store_of(runs), folder, costs)
        found = [_worded(asked, written)(note) for note in described.notes]
        notes = [f"{_said(prepared, described)}; nothing was run, and nothing is left behind", *found]
        return replace(described, notes=notes)


def _train(
    asked: CheckAsked,
    folder: RunFolder,
    checked: dict[str, Any],
    texts: TrainingTexts,
    console: Console,
    execution: Execution,
) -> tuple[dict[str, Any], Path | None]:
    """Train and score models; after an interruption the same command goes on.

    Returns:
        The record, and the page.
    """
    from collapse_cli.process import quiet_libraries
    from collapse_cli.records.runs import store_of
    from collapse_cli.run import check_training, runner
    from collapse_cli.run.costs import CostsAsked, describe
    from collapse_cli.run.preparation import prepare

    quiet_libraries()
    store = store_of(folder.runs)
    store.begin()
    _forget_quick(folder, checked)
    written = texts.write(folder.path / TEXTS)
    with (
        console.status("timing a few steps") if console.is_interactive else nullcontext(),
        tempfile.TemporaryDirectory(prefix="collapse-") as temporary,
    ):
        config = check_training.experiment(_training(asked), *written, store, execution)
        prepared = prepare(config, folder, store, None, execution)
        costs = CostsAsked(Path(temporary))
        with closing(costs.places):
            described = describe(prepared, store, folder, costs)
    about = check_options.facts(prepared.config, prepared.size.parameters, texts.left_out)
    if checked.get("training") != about or not checked["trained"]:
        checked = {**checked, "trained": True, "training": about}
        write_checked(folder.path, checked)
    if described.cached < described.stages:
        terminal.line(console, f"note: {_said(prepared, described)}")
    done = runner.run(config, folder.runs, folder.name, console, execution, worded=_worded(asked, written))
    page = (
        report.write_report([folder], folder.path / "report.html", forecast=False)
        if done.report is None
        else done.report
    )
    return checked, page


def _worded(asked: CheckAsked, written: tuple[Path, Path]) -> Callable[[str], str]:
    """Notes on the texts that were written down to train on, said of those that were given; without the advice to do what is being done."""

    def worded(note: str) -> str:
        for file, given in zip(written, (asked.real, asked.synthetic), strict=True):
            note = note.replace(str(file), f"what is trained on of {given}")
        return note.replace(ADVICE, "")

    return worded


def _said(prepared: "Prepared", described: PlanCosts) -> str:
    """How many models there are to train, and how long all takes that is to be done."""
    trainings = described.kinds["train"]
    return (
        f"{how_many(trainings.stages - trainings.cached, 'model')} to train, {prepared.config.train.steps:,} steps each: about "
        f"{numbers.duration(described.seconds)} (from short trainings that were timed just now)"
    )


def _training(asked: CheckAsked) -> check_options.TrainingAsked:
    return check_options.TrainingAsked(asked.model, asked.seeds, asked.tree)


def _forget_quick(folder: RunFolder, checked: Mapping[str, Any]) -> None:
    """A run in which nothing was trained has the configuration of none; it makes room for one that trains."""
    if folder.exists() and not checked["trained"] and not folder.rows():
        with folder.locked():
            for name in ("report.html", "report.md", "run.json", "plan.json"):
                (folder.path / name).unlink(missing_ok=True)


def _verdict(folder: RunFolder, checked: Mapping[str, Any]) -> ShareVerdict | None:
    return verdict_of(folder.rows(), checked["training"]) if checked["trained"] else None


def _same(folder: RunFolder, texts: CheckTexts) -> dict[str, Any] | None:
    """What the folder holds already of these texts; None where that is nothing.

    Raises:
        ConfigError: when it holds something else.
    """
    if not folder.exists():
        folder.joined_with(load({}, "defaults"))  # refuses a folder that holds other things
    try:
        there = read_checked(folder.path)
    except InputError as error:
        raise ConfigError(f"{error}; {_begin_again(folder)}") from None
    if there is None:
        if folder.exists():
            raise ConfigError(
                f"{folder.place()} is a run that `collapse check` did not make; give this one a --name of its own"
            )
        return None
    before, now = there.get("inputs"), texts.inputs()
    if not isinstance(before, Mapping) or type(there.get("trained")) is not bool:
        raise ConfigError(f"{folder.place('check.json')} is damaged; {_begin_again(folder)}")
    for name in ("real", "synthetic", "test"):
        if before.get(name) != now[name]:
            raise ConfigError(
                f"the run {folder.name!r} compared another {name} text; give this one a --name of its own, or remove the folder {folder.place()}"
            )
    return there if before.get("version") == now["version"] else None


def _begin_again(folder: RunFolder) -> str:
    """What to do where the record is no good: without it, nothing tells the folder from one of another command."""
    return f"remove the folder {folder.place()} and give the command again (models that were trained are in the store)"


def without_training(asked: CheckAsked) -> Experiment:
    """The configuration of a run in which nothing is trained.

    Raises:
        ConfigError: for an option that is none, or that nothing reads.
    """
    tree = {"kind": "mixture", "data": {"source": str(asked.real)}, "mixture": {"rows": [1], "share": [0.0]}}
    given = check_options.without_column(asked.tree)
    tree = check_options.whole(tree, given)
    refuse_unread(given, tree, "the command line")
    return load(tree, "the command line")
