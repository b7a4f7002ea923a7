"""Many generations in one stage, for families whose generations take milliseconds.

What a generation is made from, its seeds and its row of `metrics.jsonl` are exactly those of the loop's own stages, whose
functions do the work here too; only what lies between two generations stays in memory. How many make a block changes nothing.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

from collapse_cli import learners
from collapse_cli.config import Experiment
from collapse_cli.config.policies import Policy
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine import checkpoint
from collapse_cli.engine.stage import Cost, Finished, Product, Stage, StageKind, Workplace, seed_for
from collapse_cli.experiment import mixing
from collapse_cli.experiment.costs import Size
from collapse_cli.experiment.loop import Lineage, Verbs, step
from collapse_cli.experiment.stages.base import CORPUS, ROWS, first_measure, hints_of, on_one_thread, own
from collapse_cli.experiment.stages.mix import apart
from collapse_cli.experiment.stages.sample import continued, which_rows
from collapse_cli.experiment.stages.train import counted
from collapse_cli.learners.family import State
from collapse_cli.where import Where

MODELS = "models.safetensors"  # every generation's, by name "12.mean"
CARRIED = "carried.safetensors"  # what the next block needs besides the last model
MADE = "made.safetensors"  # the synthetic rows of the block, where a corpus accumulates as rows
LARGEST = 64_000_000  # bytes of models that a block keeps; of larger ones only the last
NONE = np.arange(0)


def block_stage(
    config: Experiment,
    hints: learners.Hints,
    policy: Policy | None,
    inputs: Mapping[str, Stage],
    seed: int,
    first: int,
    last: int,
) -> Stage:
    """Generations `first` to `last` of one policy (generation 0 is of all) in one stage; it is made as they would be.

    The run's seed itself is part of it: each generation's own follow from it.
    """
    params = {
        "verbs": {verb: own(config, verb) for verb in ("train", "sample", "eval")},
        "policy": policy.params() if policy else {},
        "growing": config.mix.size == "growing",
        "prompts": config.sample.prompts,
        "init": config.loop.init,
        "generations": [first, last],
        "learner": config.learner,
    } | (apart(config, policy) if policy else {})
    return Stage(BLOCK, params, inputs, seed, hints)


@on_one_thread
def body(stage: Stage, inputs: Mapping[str, Finished], place: Workplace) -> dict[str, Any]:
    """Generations one after the other. Facts: `generations`, those of each."""
    first, last = stage.params["generations"]
    block = InMemory(stage, inputs, place.scratch)
    written = time.monotonic()
    for generation in range(block.resume(), last + 1):
        block.step(generation)
        place.tell(generation - first + 1, last - first + 1, "generations")
        if time.monotonic() - written > checkpoint.seconds_between():
            block.write(place.scratch)
            written = time.monotonic()
    block.save(place.folder)
    return {"first": first, "generations": block.facts}


class InMemory(Verbs[State, Dataset, Dataset]):
    """One policy's generations, and what is carried from one to the next; and the verbs they are made by, in memory."""

    def __init__(self, stage: Stage, inputs: Mapping[str, Finished], scratch: Path) -> None:
        params = stage.params
        self.stage, self.scratch, self.params = stage, scratch, params
        self.first_generation = params["generations"][0]
        # generation 0 has no policy of its own: it is fitted on real rows whatever that is
        self.policy = Policy.of(params["policy"]) if params["policy"] else None
        data = inputs["data"]
        real, self.test, self.reserve = (
            Dataset.load(data.file(f"{name}.safetensors")) for name in ("train", "test", "reserve")
        )
        self.line = Lineage[State, Dataset, Dataset](self.policy or Policy("keep"), params["init"], real)
        self.learners = {verb: self._learner(verb, hints_of(stage, inputs)) for verb in params["verbs"]}
        summarises = learners.family_class(params["learner"]).summarises
        self.sums = summarises and (self.policy is None or self.policy.rule == "accumulate")
        self.keeps_rows = self.line.policy.accumulates and not self.sums
        self.continues_corpus = params["prompts"] == "previous" and (self.policy is None or not self.sums)
        self.earlier = 0  # how many of the samples are of the blocks before
        self.summary: State = {}  # sums over the corpus that accumulates
        self.facts: list[dict[str, Any]] = []
        self.models: list[State] = []
        self._facts: dict[str, Any] = {}  # of the generation that is being made
        if "first" in inputs:
            self._inherit(inputs)

    def step(self, generation: int) -> None:
        """One more generation."""
        self._facts = {"sample_tokens": 0, "seconds": {}} if generation > 0 else {"seconds": {}}
        model, _ = step(self.line, self, generation)
        self.models.append(model)
        self.facts.append(self._facts)

    def sample(self, model: State, corpus: Dataset, generation: int) -> Dataset:
        with self._timed("sample"):
            real = self.line.real
            which = which_rows(self.line.policy, self.stage.seed, generation, growing=self.params["growing"])
            learner = copy(self.learners["sample"])
            learner.restore(model)
            source, seed = corpus if self.continues_corpus else real, seed_for(self.stage.seed, "sample", generation)
            made, _, facts = continued(learner, source, len(real), which, seed=seed, scratch=self.scratch, shown=NONE)
        self._facts |= facts
        return made

    def mix(self, samples: list[Dataset], generation: int) -> Dataset:
        if self.sums:
            return samples.pop()  # sums stand for all rows before
        with self._timed("mix"):
            return mixing.mix(
                self.line.policy,
                self.line.real,
                self.reserve,
                samples,
                generation,
                seed_for(self.stage.seed, "mix", generation),
                growing=self.params["growing"],
                trials=self.params.get("trials", 1),
            )

    def fit(self, start: State | None, corpus: Dataset, generation: int) -> State:
        with self._timed("train"):
            learner = copy(self.learners["train"])
            if start is not None:
                learner.restore(start)
            if self.sums and generation > 0:
                real, synthetic = len(self.line.real), len(self.line.real) * generation
                self.summary = learner.merge(self.summary, learner.summarise(corpus))
                facts = learner.fit_summary(self.summary)
                rows = {"train_rows": real + synthetic, "real_rows": real, "synthetic_rows": synthetic}
            else:
                facts = learner.fit(corpus, seed=seed_for(self.stage.seed, "train", generation), scratch=self.scratch)
                rows = counted(corpus)
                if self.sums:
                    self.summary = learner.summary_of(corpus)
            model = learner.state()
        self._facts |= facts | rows
        return model

    def measure(self, model: State, corpus: Dataset, first: Dataset | None, generation: int) -> Dataset:
        with self._timed("eval"):
            learner = copy(self.learners["eval"])
            learner.restore(model)
            measured = learner.measure(self.test, first)
        self._facts |= measured.facts
        return measured.rows

    @contextmanager
    def _timed(self, verb: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._facts["seconds"][verb] = round(time.perf_counter() - start, 6)

    def _learner(self, verb: str, hints: learners.Hints) -> learners.Family:
        """One that has done nothing yet; each generation works with a copy, so that its settings are read once."""
        params = {"base": seed_for(self.stage.seed, "base", 0), **self.params["verbs"][verb]}
        return learners.family_class(self.params["learner"])(params, hints, learners.silent)

    # --- from block to block, and through a kill ----------------------------------------------------------------------

    def _inherit(self, inputs: Mapping[str, Finished]) -> None:
        first, before = inputs["first"], inputs["before"]
        line, models = self.line, models_of(before)
        line.measured, line.first = Dataset.load(first.file(ROWS)), models_of(first)[0]
        line.model = models[max(models)]
        carried, _ = checkpoint.read(before.file(CARRIED)) or ({}, None)
        self.summary = carried if self.sums else {}
        if self.params["prompts"] == "previous":
            line.corpus = Dataset.load(before.file(CORPUS))
        for name in sorted(name for name in inputs if name.startswith("made-")):
            rows = Dataset.load(inputs[name].file(MADE))
            line.samples += [rows.take(np.flatnonzero(rows.origin == one)) for one in np.unique(rows.origin)]
        self.earlier = len(line.samples)

    def save(self, folder: Path) -> None:
        """What other blocks, and `collapse eval`, want to know of this one."""
        line = self.line
        assert line.measured is not None
        size = sum(array.nbytes for state in self.models for array in state.values())
        kept = range(len(self.models)) if size <= LARGEST else [len(self.models) - 1]
        arrays = {f"{self.first_generation + i}.{name}": a for i in kept for name, a in self.models[i].items()}
        checkpoint.write(folder / MODELS, arrays, None)
        if self.first_generation == 0:
            line.measured.save(folder / ROWS)
        if self.summary:
            checkpoint.write(folder / CARRIED, self.summary, None)
        if self.params["prompts"] == "previous":
            (line.corpus if self.continues_corpus else line.real).save(folder / CORPUS)
        if self.keeps_rows:
            Dataset.concat(line.samples[self.earlier :]).save(folder / MADE)

    def write(self, scratch: Path) -> None:
        """A checkpoint of all that `step` changes."""
        arrays = {f"model.{i}.{name}": array for i, state in enumerate(self.models) for name, array in state.items()}
        arrays |= {f"summary.{name}": array for name, array in self.summary.items()}
        line, parts = self.line, dict[str, Dataset]()
        if self.keeps_rows:
            parts |= {f"made.{i}": rows for i, rows in enumerate(line.samples[self.earlier :])}
        if self.continues_corpus:
            parts["corpus."] = line.corpus
        if self.first_generation == 0 and line.measured is not None:
            parts["first."] = line.measured
        for key, rows in parts.items():
            arrays |= {f"{key}.{name}": array for name, array in rows.arrays.items()} | {f"{key}.origin": rows.origin}
        checkpoint.keep(scratch / "block.safetensors", arrays, {"facts": self.facts, "parts": list(parts)})

    def resume(self) -> int:
        """Take up the checkpoint, if there is one. Returns the generation to go on with."""
        found = checkpoint.take_up(self.scratch / "block.safetensors")
        if found is None:
            return int(self.first_generation)
        arrays, said = found
        self.facts = said["facts"]
        self.models = [_part(arrays, f"model.{i}.") for i in range(len(self.facts))]
        line = self.line
        line.model = self.models[-1]
        self.summary = _part(arrays, "summary.")
        for key in said["parts"]:
            part = _part(arrays, f"{key}.")
            rows = Dataset(part, part.pop("origin"))
            if key == "corpus.":
                line.corpus = rows
            elif key == "first.":
                line.measured, line.first = rows, self.models[0]
            else:
                line.samples.append(rows)
        return int(self.first_generation) + len(self.facts)


def models_of(block: Finished) -> dict[int, State]:
    """The models that a block keeps, by generation."""
    arrays, _ = checkpoint.read(block.file(MODELS)) or ({}, None)
    found: dict[int, State] = {}
    for name, array in arrays.items():
        generation, _, own = name.partition(".")
        found.setdefault(int(generation), {})[own] = array
    return found


def _part(arrays: Mapping[str, np.ndarray], prefix: str) -> State:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def cost(stage: Stage, size: Size) -> Cost:
    params = stage.params
    first, last = params["generations"]
    rows = [size.rows, size.rows]
    if first > 0:
        policy = Policy.of(params["policy"])
        rows = [
            sum(mixing.rows_in_corpus(policy, size.rows, generation, growing=params["growing"]))
            for generation in (first, last)
        ]
    fitted = sum(rows) // 2 * (last - first + 1)
    return Cost(flops=fitted * size.row_flops, disk=100 * size.row_bytes, efficiency=0.35)


def label(stage: Stage, where: Where) -> str:
    first, last = stage.params["generations"]
    which = f"generation {first}" if first == last else f"generations {first} to {last}"
    return f"seed {where.seed}, {which}, {where.name if first else 'all policies'}"


def note(stage: Stage, made: Finished) -> str:
    return first_measure(stage, made.facts["generations"][-1])


BLOCK = StageKind[Size](
    name="block",
    kind="block",
    version=1,
    product=Product.MEASURES,
    body=body,
    cost=cost,
    label=label,
    note=note,
    listed=True,
)
