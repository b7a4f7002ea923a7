"""`collapse check`: from two texts to a run folder: what both are without training, then what training on them does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from collapse_cli import report
from collapse_cli.check import documents, side_by_side
from collapse_cli.check.documents import Documents
from collapse_cli.config import Experiment, load, merge
from collapse_cli.config.command_line import refuse_unread
from collapse_cli.errors import ConfigError
from collapse_cli.findings.check import TwoTexts, compared
from collapse_cli.process import interruptible
from collapse_cli.records.at_work import working
from collapse_cli.records.checked import read_checked, write_checked
from collapse_cli.records.rundir import RunFolder
from collapse_cli.records.runs import can_be_named

SEED = 0  # of what is drawn at random before any training


@dataclass(frozen=True)
class CheckAsked:
    """What a command line asks for.

    Attributes:
        test: the test text; None: a part of the real one is put aside.
        quick: whether nothing is trained.
        tree: options of the configuration that were given, as `--set` has them.
    """

    real: Path
    synthetic: Path
    test: Path | None
    quick: bool
    name: str
    tree: Mapping[str, Any] = field(default_factory=dict)

    @property
    def column(self) -> str:
        """Where formats have columns, the one that holds the text."""
        data = self.tree.get("data")
        return str(data.get("text", "text")) if isinstance(data, Mapping) else "text"


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
    """What a check came to."""

    run: str
    folder: Path
    page: Path | None
    compared: TwoTexts
    checked: Mapping[str, Any]

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "run": self.run,
            "folder": str(self.folder),
            "report": None if self.page is None else str(self.page),
            "remarks": [remark.record() for remark in self.compared.remarks],
            "checked": dict(self.checked),
        }


def named(real: Path, synthetic: Path) -> str:
    """What a check is called where nobody names it: `check-`, and the name of the synthetic text."""
    name = f"check-{synthetic.name.split('.')[0]}"
    return name if can_be_named(name) else "check"


def read_texts(asked: CheckAsked) -> CheckTexts:
    """The texts, each read once and whole.

    Raises:
        InputError: for one that is not there, is no text, or has too few rows.
    """
    real, own_test = documents.read(asked.real, "the real text", asked.column)
    synthetic, _ = documents.read(asked.synthetic, "the synthetic text", asked.column)
    test = documents.read_test(asked.test, asked.column) if asked.test else own_test
    notes = []
    if asked.real.resolve() == asked.synthetic.resolve():
        notes.append(
            "both texts are the same file: what is said of it shows how `collapse check` speaks of texts that do not differ"
        )
    elif real.sha256 == synthetic.sha256:
        notes.append("both texts hold the same rows")
    if own_test is not None and asked.test is None:
        notes.append(f"the test text is that of {asked.real}")
    if test is not None:
        stands = int(sum(content in set(real.contents.tolist()) for content in test.contents))
        if stands:
            notes.append(
                f"{stands:,} of {len(test.rows):,} test rows also stand in the real text; they are left out of training"
            )
    return CheckTexts(real, synthetic, test, notes)


def check(asked: CheckAsked, runs: Path, console: Console) -> CheckResult:
    """Compare two texts.

    Raises:
        ConfigError, InputError: for what the user has to mend; nothing has been written then.
    """
    folder, config = RunFolder(runs, asked.name), without_training(asked)
    with interruptible():
        texts = read_texts(asked)
        checked = _same(folder, texts)
        with working(folder.path):
            if checked is None:
                with console.status("comparing the texts"):
                    found = side_by_side.examine(texts.real, texts.synthetic, texts.test, seed=SEED)
                checked = {"inputs": texts.inputs(), "notes": list(texts.notes), "trained": False, "texts": found}
                write_checked(folder.path, checked)
                if not folder.exists():
                    folder.start(config, [], {})
                folder.finish("success")
            page = report.write_report([folder], folder.path / "report.html", forecast=False)
    return CheckResult(folder.name, folder.path, page, compared(checked["texts"]), checked)


def _same(folder: RunFolder, texts: CheckTexts) -> dict[str, Any] | None:
    """What the folder holds already of these texts; None where that is nothing.

    Raises:
        ConfigError: when it holds something else.
    """
    if not folder.exists():
        folder.joined_with(load({}, "defaults"))  # refuses a folder that holds other things
        return None
    there = read_checked(folder.path)
    if there is None:
        raise ConfigError(
            f"{folder.path} is a run that `collapse check` did not make; give this one a --name of its own"
        )
    before, now = there.get("inputs"), texts.inputs()
    if not isinstance(before, Mapping):
        raise ConfigError(f"{folder.path / 'check.json'} is damaged; remove the folder and give the command again")
    for name in ("real", "synthetic", "test"):
        if before.get(name) != now[name]:
            raise ConfigError(
                f"the run {folder.name!r} compared another {name} text; give this one a --name of its own, or remove the folder {folder.path}"
            )
    return there if before.get("version") == now["version"] else None


def without_training(asked: CheckAsked) -> Experiment:
    """The configuration of a run in which nothing is trained.

    Raises:
        ConfigError: for an option that is none, or that nothing reads.
    """
    tree = {"kind": "mixture", "data": {"source": str(asked.real)}, "mixture": {"rows": [1], "share": [0.0]}}
    tree = merge(tree, dict(asked.tree))
    refuse_unread(asked.tree, tree, "the command line")
    return load(tree, "the command line")
