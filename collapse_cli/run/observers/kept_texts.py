"""`samples.jsonl`: a few of the texts of each model, for people to read on the page. They are in no key and in no number."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from collapse_cli import families
from collapse_cli.config import Experiment
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine.stage import Finished, Generation, Plan
from collapse_cli.engine.store import Store
from collapse_cli.experiment.stages.base import CORPUS, ROWS, SHOWN
from collapse_cli.records import kept_texts
from collapse_cli.records.kept_texts import EACH, FILE, KeptText
from collapse_cli.records.rundir import RunFolder

log = logging.getLogger(__name__)
IN_ALL = 20_000  # texts of a run; of many models there are fewer each


@dataclass(frozen=True)
class KeepingTexts:
    """Picks texts out of the store when a run has ended; whatever goes wrong with that, the run is done."""

    folder: RunFolder
    store: Store
    config: Experiment
    plan: Plan

    def keep(self, *, new: bool) -> None:
        """Write the file.

        Args:
            new: whether anything was computed; else a file that is there is left as it is.
        """
        wanted = [generation for generation in self.plan.generations if generation.samples is not None]
        if not families.of(self.config.learner).text or not wanted or (not new and (self.folder.path / FILE).is_file()):
            return
        try:
            each = max(2, min(EACH, IN_ALL // len(wanted)))
            kept = {generation.where: texts for generation in wanted if (texts := list(self._texts(generation, each)))}
            if kept:
                kept_texts.write(self.folder.path, kept)
        except Exception as error:
            log.warning(
                "no texts could be kept for the page (%s: %s); the run is not affected", type(error).__name__, error
            )

    def _texts(self, generation: Generation, each: int) -> Iterator[KeptText]:
        """Of one model: what it made of the prompts that all continue, and others from the likeliest to the oddest."""
        from collapse_cli.learners.text_measures import told

        assert generation.samples is not None
        inputs = generation.samples.inputs
        try:
            samples, prompts, data, examined = (
                self.store.get(stage.key)
                for stage in (inputs["samples"], inputs["prompts"], inputs["data"], generation.samples)
            )
        except FileNotFoundError:  # gone from the store
            return
        if not all(
            made.file(name).is_file()
            for made, name in ((samples, ROWS), (samples, SHOWN), (prompts, CORPUS), (examined, ROWS))
        ):
            return
        corpus = Dataset.load(prompts.file(CORPUS))
        rows, losses = Dataset.load(samples.file(ROWS)), _losses(examined)
        picked = _picked(losses, each)
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
