"""The loop with a learner of a few lines: which rows are in which corpus, and that a killed loop goes on unharmed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.kinds import change_bodies

from collapse_cli import config, learners
from collapse_cli.config import Experiment
from collapse_cli.config.policies import Policy
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine import scheduler
from collapse_cli.engine.executors.local import LocalExecutor
from collapse_cli.engine.folder_store import FolderStore
from collapse_cli.engine.record import RECORD
from collapse_cli.engine.stage import Body, Finished, Plan, Stage, Workplace
from collapse_cli.experiment import mixing
from collapse_cli.experiment.loop import plan
from collapse_cli.experiment.stages.base import CORPUS, ROWS
from collapse_cli.families.section import for_key
from collapse_cli.learners import Facts, Hints, Outcome, Tell, Verb

REAL, RESERVE, WIDTH = 20, 40, 4


class Shifter:
    """A learner whose model is one number: what it was fitted on. It continues a row by adding to it."""

    def __init__(self, params: Mapping[str, Any], hints: Hints, tell: Tell) -> None:
        self.model = 0

    examines = True
    block = 1

    @classmethod
    def trials(cls, config: Experiment) -> int:
        return 1

    @classmethod
    def drawn(cls, config: Experiment) -> bool:
        return False

    @classmethod
    def params(cls, config: Experiment, verb: Verb) -> dict[str, Any]:
        if verb == "data":
            return {"data": config.data.sha256}
        return {"kind": verb, "train": for_key(config.train), "sample": for_key(config.sample)}

    def encode(self, folder: Path, *, seed: int) -> Facts:
        tokens = np.arange((REAL + RESERVE) * WIDTH, dtype=np.int32).reshape(-1, WIDTH)
        lengths, origin = np.full(len(tokens), WIDTH, np.int32), np.zeros(len(tokens), np.int32)
        every = Dataset({"tokens": tokens, "lengths": lengths}, origin)
        for name, rows in (("train", (0, REAL)), ("reserve", (REAL, REAL + RESERVE)), ("test", (0, 5))):
            every.take(np.arange(*rows)).save(folder / f"{name}.safetensors")
        rows_of = {"train": REAL, "reserve": RESERVE, "test": 5}
        return {"splits": {name: {"rows": rows} for name, rows in rows_of.items()}, "notes": []}

    def fit(self, data: Dataset, *, seed: int, scratch: Path) -> Facts:
        self.model += int(data.arrays["tokens"].sum() + seed) % 1009
        return {"train_loss": float(self.model)}

    def sample(self, prompts: Dataset, *, seed: int, scratch: Path) -> Outcome:
        shift = (self.model + seed + prompts.arrays["stream"]) % 1009 + 1000
        tokens = (prompts.arrays["tokens"] + shift[:, None]).astype(np.int32)
        facts = {"sample_tokens": int((~prompts.arrays["extra"]).sum()) * WIDTH}
        rows = Dataset({"tokens": tokens, "lengths": np.full(len(tokens), WIDTH, np.int32)}, prompts.origin)
        return Outcome(rows, facts)

    def measure(self, test: Dataset, first: Dataset | None = None) -> Outcome:
        return Outcome(test, {"perplexity": float(self.model), "compared": first is not None})

    def look_at_real(self, folder: Path) -> Facts:
        (folder / "real.txt").write_text(str(self.model))
        return {"rows": REAL}

    def examine(
        self, samples: Dataset, shown: Dataset, prompts: Dataset, *, real: Path, first: Dataset | None
    ) -> Outcome:
        assert (real / "real.txt").read_text() == str(self.model)
        facts = {
            "sample_rows": len(samples),
            "shown": shown.arrays["row"].tolist(),
            "reference": self.model,
            "compared_samples": first is not None,
        }
        assert (samples.arrays["tokens"] - prompts.arrays["tokens"][samples.arrays["row"]] >= 1000).all()
        return Outcome(samples, facts)

    def save(self, folder: Path) -> None:
        (folder / "model.safetensors").write_text(str(self.model))

    def load(self, folder: Path) -> None:
        self.model = int((folder / "model.safetensors").read_text())


class Counting:
    """A listener that counts what was computed."""

    def __init__(self) -> None:
        self.computed: list[str] = []

    def started(self, stage: Stage) -> None:
        self.computed.append(stage.key)

    def progress(self, stage: Stage, done: int, total: int, unit: str) -> None: ...
    def finished(self, stage: Stage, made: Finished, *, cached: bool, memory_mb: int = 0) -> None: ...
    def waiting(self, stage: Stage) -> None: ...


@pytest.fixture(autouse=True)
def shifter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(learners.LEARNERS, "shifter", f"{__name__}:Shifter")
    monkeypatch.setattr("os.fsync", lambda _: None)  # what is synced is tested with the store


def planned(names: list[str], generations: int = 3, **changes: Any) -> Plan:
    tree: dict[str, Any] = {"learner": "shifter", "loop": {"policies": names, "generations": generations}}
    return plan(config.load(config.merge(tree, changes), "the test"), Hints())


def run(one: Plan, store: FolderStore) -> list[str]:
    """Bring a plan into the store. Returns the keys of what was computed."""
    heard = Counting()
    scheduler.run(list(one.stages.values()), LocalExecutor(store), heard)
    return heard.computed


def corpora(one: Plan, store: FolderStore, policy: str) -> list[Dataset]:
    """The corpus that each generation of a policy was fitted on."""
    chosen = [generation for generation in one.generations if generation.where.policy == policy]
    return [Dataset.load(store.folder(generation.train.inputs["corpus"].key) / CORPUS) for generation in chosen]


NAMES = ["keep-0", "keep-10", "keep-25", "keep-99", "keep-100", "accumulate", "accumulate-subsample", "fresh-10"]


@pytest.mark.parametrize("prompts", ["real", "previous"])
@pytest.mark.parametrize("size", ["constant", "growing"])
def test_every_corpus_has_the_rows_that_its_policy_says(tmp_path: Path, size: str, prompts: str) -> None:
    growing = size == "growing"
    names = [name for name in NAMES if not (growing and name in ("keep-99", "keep-100"))]
    one = planned(names, mix={"size": size}, sample={"prompts": prompts})
    store = FolderStore(tmp_path)
    run(one, store)
    for name in names:
        policy = Policy.parse(name)
        for generation, corpus in enumerate(corpora(one, store, name)):
            real, synthetic = mixing.rows_in_corpus(policy, REAL, generation, growing=growing)
            if generation == 0:
                real, synthetic = REAL, 0
            where = f"{name}, generation {generation}"
            assert len(corpus) == real + synthetic, where
            if policy.rule != "accumulate-subsample":
                assert int((corpus.origin == 0).sum()) == real, where
            made = corpus.origin > 0
            assert (corpus.arrays["tokens"][made] >= 1000).all(), where
            assert (corpus.arrays["tokens"][~made] < 1000).all(), where
            allowed = set(range(1, generation + 1)) if policy.accumulates else {generation}
            assert set(corpus.origin[made]) <= allowed, where


def test_the_facts_of_an_evaluation_tell_the_rows_and_all_seconds(tmp_path: Path) -> None:
    one, store = planned(["keep-25"]), FolderStore(tmp_path)
    run(one, store)
    for generation in one.generations:
        facts = store.get(generation.eval.key).facts
        real = REAL if generation.where.generation == 0 else 5
        assert (facts["train_rows"], facts["real_rows"], facts["synthetic_rows"]) == (REAL, real, REAL - real)
        wanted = {"data", "train"} if generation.where.generation == 0 else {"sample", "mix", "train"}
        assert wanted <= facts["seconds"].keys()
        assert facts.get("sample_tokens", 0) == (REAL - real) * WIDTH
        assert "train_loss" in facts
        assert "perplexity" in facts


def test_synthetic_rows_continue_real_rows_or_those_of_the_corpus_before(tmp_path: Path) -> None:
    """What is real is below 1,000; every continuation adds 1,000 to 2,008."""
    for prompts, least in (("real", 1000), ("previous", 3000)):
        one, store = planned(["keep-0"], sample={"prompts": prompts}), FolderStore(tmp_path / prompts)
        run(one, store)
        last = corpora(one, store, "keep-0")[-1].arrays["tokens"]
        assert last.min() >= least
        assert prompts == "previous" or last.max() < 2009 + 80


def test_a_finished_plan_computes_nothing(tmp_path: Path) -> None:
    one, store = planned(NAMES), FolderStore(tmp_path)
    assert sorted(run(one, store)) == sorted(one.stages)
    assert run(one, store) == []
    assert sorted(run(planned([*NAMES, "keep-50"]), store)) == sorted(
        planned([*NAMES, "keep-50"]).stages.keys() - one.stages.keys()
    )


def contents(store: FolderStore) -> dict[str, Any]:
    """The hashes of all files of all stages."""
    return {key: json.loads((store.folder(key) / RECORD).read_text())["files"] for key in store.keys()}  # noqa: SIM118


def test_killed_in_any_stage_the_loop_goes_on_with_what_is_missing_and_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = planned(["keep-10", "accumulate"], generations=2)
    run(one, FolderStore(tmp_path / "whole"))
    whole = contents(FolderStore(tmp_path / "whole"))
    assert any(ROWS in files for files in whole.values())
    for number in range(len(one.stages)):
        store, begun = FolderStore(tmp_path / str(number)), []

        def killing(body: Body, n: int = number, begun: Any = begun) -> Body:
            def killed(stage: Stage, inputs: Any, place: Workplace) -> dict[str, Any]:
                facts = body(stage, inputs, place)
                begun.append(stage.key)
                if len(begun) == n + 1:
                    (place.folder / "half a file").write_text("junk")
                    raise KeyboardInterrupt
                return facts

            return killed

        with monkeypatch.context() as patch:
            change_bodies("any", killing, patch)
            with pytest.raises(KeyboardInterrupt):
                run(one, store)
        assert sorted(run(one, store)) == sorted(one.stages.keys() - set(begun[:-1]))
        assert contents(store) == whole
        assert store.unfinished() == []
