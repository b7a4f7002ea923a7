"""`samples.jsonl`: a few of the texts of each model, for people to read on the page. No key and no number knows of them."""

import logging
from collections.abc import Iterator, Sequence

import numpy as np

from collapse_cli import families
from collapse_cli.config import Experiment
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine.stage import Finished, Generation, Plan
from collapse_cli.engine.store import Store
from collapse_cli.errors import UserError
from collapse_cli.experiment.stages.base import CORPUS, ROWS, SHOWN
from collapse_cli.records import kept_texts
from collapse_cli.records.kept_texts import EACH, KeptText, KeptTexts, line_of
from collapse_cli.records.row import Row
from collapse_cli.records.rundir import RunFolder
from collapse_cli.where import Where

log = logging.getLogger(__name__)
IN_ALL = 20_000  # texts of a run; of many models there are fewer each


class KeepingTexts:
    """Picks texts of each model out of the store as soon as it is measured, so that a run at work, or stopped, has them, too.

    Several processes may work on the run: who looks at the file to write it, or writes it, holds the run's lock, and each
    model has one line. A disk that is full and stages that are damaged leave a warning, and the run goes on.
    """

    def __init__(self, folder: RunFolder, store: Store, config: Experiment, plan: Plan) -> None:
        self.folder, self.store, self.config = folder, store, config
        text = families.of(config.learner).text
        self._wanted = {made.where: made for made in plan.generations if text and made.samples is not None}
        self._each = max(2, min(EACH, IN_ALL // max(1, len(self._wanted))))
        self._room = kept_texts.room_for(len(self._wanted))
        self._there: set[Where] | None = None  # None: nobody has looked
        self._version: tuple[int, int, int] | None = None  # of the file that was looked at
        self._warned = False

    def written(self, rows: Sequence[Row], *, new: bool) -> None:
        """Those of the models of these rows that are not in the file."""
        try:
            for generation in (self._wanted[row.where] for row in rows if row.where in self._wanted):
                with self.folder.locked():
                    there = self._kept_by_now()
                if generation.where not in there and (texts := list(self._texts(generation))):  # which takes its time
                    self._keep(generation, texts)
        except (OSError, UserError) as error:
            self._warn(str(error))

    def _kept_by_now(self) -> set[Where]:
        """The models whose texts are there, under the run's lock.

        Where the file is another than it was, it is made whole: a line a model, none of a model that the run does not
        have (any more), and none longer than its part of the file, which is less where another process added policies.
        """
        if self._there is not None and self._version == kept_texts.version_of(self.folder.path):
            return self._there
        kept = kept_texts.read(self.folder.path)
        own = self._of_the_run(kept)
        self._room = kept_texts.room_for(len(self._wanted.keys() | own))
        lines = [
            line_of(where, kept.keys[where], kept.texts[where], self._room, kept.left_out[where])
            for where in kept.texts
            if where in own
        ]
        kept_texts.rewrite(self.folder.path, lines)
        self._there, self._version = own, kept_texts.version_of(self.folder.path)
        return own

    def _of_the_run(self, kept: KeptTexts) -> set[Where]:
        """The models whose lines are of this run: of this plan, or measured by a process that planned more."""
        own, others = set(), set()
        for where in kept.texts:
            made = self._wanted.get(where)
            if made is None:
                others.add(where)
            elif made.samples is not None and kept.keys[where] == kept_texts.short(made.samples.key):
                own.add(where)
        for row in self.folder.rows() if others else ():
            if row.where in others and kept.keys[row.where] in map(kept_texts.short, row.eval_keys):
                own.add(row.where)
        return own

    def _keep(self, generation: Generation, texts: Sequence[KeptText]) -> None:
        """Its line, unless another process has added it since."""
        assert generation.samples is not None
        with self.folder.locked():
            there = self._kept_by_now()
            if generation.where not in there:
                line = line_of(generation.where, generation.samples.key, texts, self._room)
                kept_texts.add(self.folder.path, line)
                there.add(generation.where)
                self._version = kept_texts.version_of(self.folder.path)

    def _warn(self, why: str) -> None:
        """Once a run: what befell one model befalls others."""
        if not self._warned:
            log.warning(
                "the page will lack texts of models, which could not be kept (%s); the run is not affected", why
            )
        self._warned = True

    def _texts(self, generation: Generation) -> Iterator[KeptText]:
        """Of one model: what it made of the prompts that all continue, and others from the likeliest to the oddest."""
        from collapse_cli.learners.text_measures import told

        assert generation.samples is not None
        inputs = generation.samples.inputs
        stages = (inputs["samples"], inputs["prompts"], inputs["data"], generation.samples)
        if not all(self.store.has(stage.key) for stage in stages):  # gone from the store
            return
        for stage in stages:
            if not self.store.sound(stage.key):
                self._warn(f"{self.store.place_of(stage.key)} is damaged: {self.store.fault(stage.key)}")
                return
        samples, prompts, data, examined = (self.store.get(stage.key) for stage in stages)
        if not samples.file(SHOWN).is_file():  # of a family that shows none
            return
        corpus = Dataset.load(prompts.file(CORPUS))
        rows, losses = Dataset.load(samples.file(ROWS)), _losses(examined)
        picked = _picked(losses, self._each)
        for some, nll, shown in (
            (Dataset.load(samples.file(SHOWN)), None, True),
            (rows.take(picked), losses[picked], False),
        ):
            for at, sample in enumerate(told(some, corpus, self.config.sample, data.folder, data.facts)):
                yield KeptText(
                    str(sample["row"]),
                    sample["prompt"],
                    sample["text"],
                    None if nll is None or not np.isfinite(nll[at]) else float(nll[at]),
                    kept_texts.spans_of(sample["prompt"], sample["text"], sample.get("sentences", ())),
                    shown,
                )


def _losses(examined: Finished) -> np.ndarray:
    """(samples,) nats per token under generation 0's model; infinite for samples of no token."""
    arrays = Dataset.load(examined.file(ROWS)).arrays
    tokens = arrays["tokens"].astype(float)
    return np.where(tokens > 0, arrays["nll"] / np.maximum(tokens, 1.0), np.inf)


def _picked(losses: np.ndarray, most: int) -> np.ndarray:
    """At most so many samples, evenly from the likeliest to the most surprising, the ends among them."""
    order = np.argsort(losses, kind="stable")
    if len(order) <= most:
        return order
    return order[np.linspace(0, len(order) - 1, most).round().astype(np.int64)]
