"""How long a run takes besides its stages: its folder, a row for each model, and at its end the report and what is printed.

Timed on the stages of a short version, in a folder of its own. The page is made of as many models as the run will have, or of as many as there
is time for; rows of models that were not made say what those that were made say.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from collapse_cli import report
from collapse_cli.config import Experiment
from collapse_cli.engine.stage import Generation, Plan
from collapse_cli.engine.store import Store
from collapse_cli.findings.run_result import RunResult
from collapse_cli.records import kept_texts
from collapse_cli.records.row import Row
from collapse_cli.records.rundir import RunFolder
from collapse_cli.run.observers.events import Events
from collapse_cli.run.observers.kept_texts import KeepingTexts
from collapse_cli.run.observers.rows import Rows
from collapse_cli.run.rates import Rate, TimeTaken, rate_of
from collapse_cli.terminal.run import print_run
from collapse_cli.where import Where

LEAST, MORE = 16, 4  # models on the first page, and how many times as many on the next
FEW_OF_A_KIND = 2  # models of each kind, on the largest page, up to which pages are said to grow with the kinds alone
SECONDS = 8.0  # that the last page may take, by what the one before it took: pages of many models take less for each


@dataclass(frozen=True)
class Ending:
    """How long a run takes besides its stages.

    Attributes:
        folder: seconds until its folder says what will be run.
        row: seconds for each model that is measured, while other stages may be at work.
        page: from how many models there are, of how many kinds (`arms_of`), to the seconds from the last stage to the end of the command.
        libraries: seconds of these that it takes longer the first time in a process.
        models: of how many the largest page was, that was timed.
    """

    folder: float = 0.0
    row: float = 0.0
    page: Rate = field(default_factory=lambda: Rate(0.0, 0.0, 0.0))
    libraries: float = 0.0
    models: int = 0

    def of(self, planned: Plan) -> float:
        """Seconds from the last stage to the end of the command, the libraries loaded."""
        return self.page.of(len(planned.generations), arms_of(planned.generations))


def arms_of(models: Iterable[Generation]) -> int:
    """How many kinds of models there are, seeds and generations aside: pages have a line or a row for each."""
    return len({made.where.arm for made in models})


def time_ending(
    config: Experiment, planned: Plan, version: Plan, store: Store, place: Path, now: Callable[[], float]
) -> Ending | None:
    """Time what a run does besides its stages; None where no model of the short version is measured.

    Args:
        config, planned: the whole experiment, looked up, and its plan.
        version: the plan of the short version.
        store: where its stages are.
        place: a folder for two run folders.
    """
    small, whole = RunFolder(place / "small", "short"), RunFolder(place / "whole", "run")
    small.start(config, version.record(), _measured(version))
    began = now()
    whole.start(config, planned.record(), _measured(planned))
    folder, began = now() - began, now()
    rows = Rows(small, store, config, version, readers=[KeepingTexts(small, store, config, version)])
    events = Events(small, version)
    for stage in version.stages.values():
        if store.has(stage.key):
            made = store.get(stage.key)
            events.started(stage)
            events.finished(stage, made, cached=False)
            rows.finished(stage, made, cached=False)
    written = small.rows()
    if not written:
        return None
    row = (now() - began) / len(written)
    stand_ins = _StandIns(planned, written, small, whole)
    taken, first = list[TimeTaken](), 0.0
    for models in _sizes(len(planned.generations), arms_of(planned.generations)):
        if taken and taken[-1].seconds * models / taken[-1].work > SECONDS:
            break
        stand_ins.upto(models)
        if not taken:
            first = _end(config, whole, now)
        taken.append(TimeTaken(models, arms_of(stand_ins.models(models)), _end(config, whole, now)))
    page = rate_of(taken) if len(taken) > 1 else Rate(0.0, 0.0, taken[0].seconds)
    if (
        len(taken) > 1 and taken[-1].work < FEW_OF_A_KIND * taken[-1].parts
    ):  # what their number takes cannot be told from what their kinds do
        kinds = rate_of([TimeTaken(one.parts, 1, one.seconds) for one in taken])
        page = Rate(0.0, kinds.unit, kinds.stage + kinds.part)
    return Ending(folder, row, page, max(0.0, first - taken[0].seconds), int(taken[-1].work))


def _measured(planned: Plan) -> dict[Where, list[str]]:
    return {made.where: [stage.key for stage in made.measured] for made in planned.generations}


def _sizes(models: int, kinds: int) -> Iterator[int]:
    """How many models pages are made of, up to all: among others as many as there are kinds, and twice as many, so that what a kind takes is told
    from what a model does.
    """
    size, told = min(LEAST, models), kinds <= LEAST
    while size < models:
        yield size
        if told:
            size *= MORE
        elif size < kinds:
            size = min(size * MORE, kinds)
        else:
            size, told = 2 * kinds, True
    yield models


def _end(config: Experiment, folder: RunFolder, now: Callable[[], float]) -> float:
    """Seconds from the last stage to the end of the command."""
    began = now()
    page = report.write_report([folder], folder.path / "report.html")
    result = RunResult.of(folder.path, config, folder.rows(), page, computed=1, cached=0)
    print_run(Console(file=io.StringIO()), result)
    return now() - began


class _StandIns:
    """Rows and texts of models that were not made: those of models that were."""

    def __init__(self, planned: Plan, written: Sequence[Row], small: RunFolder, whole: RunFolder) -> None:
        self.whole, self._written = whole, written
        self._texts = kept_texts.read(small.path).texts
        # all models of one seed, then of the next, as whole seeds are what pages compare
        self._todo = sorted(planned.generations, key=lambda made: (made.where.seed, made.where.generation))
        self._room = kept_texts.room_for(len(self._todo))

    def models(self, count: int) -> Sequence[Generation]:
        """The first so many."""
        return self._todo[:count]

    def upto(self, models: int) -> None:
        """So many models are in the run folder."""
        there = len(self.whole.rows())
        some = self._todo[there:models]
        alike = [self._written[at % len(self._written)] for at in range(there, there + len(some))]
        self.whole.add_rows([_row_of(made, row) for made, row in zip(some, alike, strict=True)])
        for made, row in zip(some, alike, strict=True):
            if made.samples is not None and (texts := self._texts.get(row.where)):
                kept_texts.add(self.whole.path, kept_texts.line_of(made.where, made.samples.key, texts, self._room))


def _row_of(made: Generation, row: Row) -> Row:
    measured = {"eval_keys": [stage.key for stage in made.measured], "model_key": made.train.key, **made.about}
    return Row.at(made.where, {**row.fields, **Row.at(made.where, measured).fields})
