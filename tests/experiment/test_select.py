"""Rows chosen between `sample` and `mix`: which candidates there are, which stay, and what is said of it, in real small runs."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import e2e
from support.kinds import change_bodies

from collapse_cli import config, learners
from collapse_cli.config import Experiment
from collapse_cli.config.policies import Policy
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine import scheduler
from collapse_cli.engine.executors.local import LocalExecutor
from collapse_cli.engine.folder_store import FolderStore
from collapse_cli.engine.stage import Body, Finished, Plan, Stage, Workplace
from collapse_cli.errors import InputError
from collapse_cli.experiment import kinds, mixing
from collapse_cli.experiment.stages.base import CORPUS, ROWS
from collapse_cli.learners import Hints
from collapse_cli.run.observers.computed import Computed
from collapse_cli.run.observers.rows import ReadOnce, metrics_row
from collapse_cli.where import Where

POLICIES = ["keep-0", "keep-10", "keep-50-0", "fresh-20", "accumulate", "accumulate-subsample"]
WORDS: dict[str, Any] = {
    "learner": "ngram",
    "loop": {"generations": 3, "policies": POLICIES, "seeds": [1], "block": 1},
    "data": {
        "source": "zipf",
        "block_size": 12,
        "rows": 40,
        "zipf": {"vocabulary": 16, "rank": 2, "train_tokens": 1200, "test_tokens": 240},
    },
    "sample": {"prompts": "none", "new_tokens": 12, "decode": {"beams": 1, "temperature": 1.0}},
}
NOT_NUMBERS = ("seconds", "model_key", "model_dir", "eval_keys")


def experiment(tree: dict[str, Any], **changes: Any) -> tuple[Experiment, Hints]:
    """A configuration with all that had to be looked up."""
    given = config.load(config.merge(tree, changes), "a test")
    resolved = learners.learner_class(given.learner).resolve(given)
    return resolved.config, resolved.hints


def run(store: FolderStore, tree: dict[str, Any], **changes: Any) -> Plan:
    """All stages of an experiment."""
    planned = kinds.plan(*experiment(tree, **changes))
    store.begin()
    scheduler.run(list(planned.stages.values()), LocalExecutor(store), Computed())
    return planned


def rows_of(planned: Plan, store: FolderStore) -> dict[tuple[str, int], dict[str, Any]]:
    """Rows of metrics.jsonl, without what is no number."""
    stages = ReadOnce(store)
    return {
        (one.where.policy, one.where.generation): {
            name: value for name, value in metrics_row(one, stages).fields.items() if name not in NOT_NUMBERS
        }
        for one in planned.generations
    }


def stages_of(planned: Plan, work: str) -> list[Stage]:
    return [stage for stage in planned.stages.values() if stage.work == work]


def stage_for(planned: Plan, work: str, policy: str, generation: int) -> Stage:
    """The stage of that work which serves a model."""
    where = Where(policy, 1, generation)
    return next(stage for stage in stages_of(planned, work) if where in planned.serves[stage.key])


def rows_in(store: FolderStore, stage: Stage, file: str = ROWS) -> Dataset:
    return Dataset.load(store.get(stage.key).file(file))


def chosen(by: str = "surprise", keep: str = "highest", oversample: float = 1.5, **more: Any) -> dict[str, Any]:
    return {"select": {"oversample": oversample, "by": by, "keep": keep, **more}}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FolderStore:
    """One for all n-gram runs, which share what they have in common."""
    return FolderStore(tmp_path_factory.mktemp("words") / "store")


def test_an_experiment_without_a_selection_has_no_such_stage_and_the_keys_of_before() -> None:
    plain = kinds.plan(*experiment(WORDS))
    assert not stages_of(plain, "select")
    assert all("select" not in stage.params and "oversample" not in stage.params for stage in plain.stages.values())
    on = kinds.plan(*experiment(WORDS, **chosen()))
    kept = plain.stages.keys() & on.stages.keys()
    assert {plain.stages[key].work for key in kept} == {"data", "train", "eval"}, "generation 0 is that of before"


@pytest.mark.parametrize("prompts", ["real", "previous"])
def test_candidates_are_as_many_as_it_says_and_the_first_are_those_of_before(tmp_path: Path, prompts: str) -> None:
    """Of generation 1, whose model is the same; of each place all candidates continue one prompt."""
    changes: dict[str, Any] = {"sample": {"prompts": prompts, "prompt_tokens": 3}, "loop": {"generations": 1}}
    own = FolderStore(tmp_path / "store")
    plain, more = run(own, WORDS, **changes), run(own, WORDS, **changes, **chosen(oversample=2.3))
    for name in POLICIES:
        before, after = (rows_in(own, stage_for(planned, "sample", name, 0)) for planned in (plain, more))
        assert len(after) == -(-23 * len(before) // 10)
        for field, array in before.arrays.items():
            assert (array == after.arrays[field][: len(before)]).all(), field
        assert (after.arrays["row"] == np.resize(before.arrays["row"], len(after))).all()
        again = after.arrays["tokens"][len(before) : 2 * len(before)]
        assert (again != before.arrays["tokens"]).any(axis=1).mean() > 0.9, "other draws"


def test_the_rows_that_stay_are_those_with_the_highest_scores(store: FolderStore) -> None:
    planned = run(store, WORDS, **chosen())
    selects = stages_of(planned, "select")
    assert selects
    for stage in selects:
        candidates, left = rows_in(store, stage.inputs["rows"]), rows_in(store, stage)
        model = learners.create("ngram", stage.params, Hints(), learners.silent)
        model.load(store.get(stage.inputs["maker"].key).folder)
        scores, stay = model.score(candidates), model.score(left)
        needed = len(left)
        assert len(candidates) == -(-3 * needed // 2)
        assert sorted(stay) == sorted(scores)[-needed:]
        facts = store.get(stage.key).facts
        assert (facts["select_candidates"], facts["select_kept"]) == (len(candidates), needed)
        assert facts["sample_tokens"] == candidates.arrays["lengths"].sum(), "what it cost to make them"
        cut = facts["selection"]["steps"][0]["after"][0]
        held = model.score(rows_in(store, stage.inputs["data"], "test.safetensors"))
        assert facts["select_false_rejects"] == pytest.approx((held < cut).mean(), abs=0.06)
        assert len(facts["selection"]["thrown"]) == 10 == len(facts["selection"]["kept"])
        assert max(one["score"] for one in facts["selection"]["thrown"]) <= cut
        assert min(one["score"] for one in facts["selection"]["kept"]) >= cut


SELECTIONS: dict[str, dict[str, Any]] = {
    "highest": chosen(),
    "of the pool": chosen(over="pool"),
    "of the pool, drawn": {
        "select": {"oversample": 2.0, "by": "repetition", "weight": "power", "max_repeats": 3, "over": "pool"}
    },
    "two steps": {
        "select": {
            "oversample": 3.0,
            "steps": [
                {"by": "duplicates", "keep": "threshold", "threshold": 0.0, "side": "below"},
                {"by": "perplexity", "keep": "middle"},
            ],
        }
    },
    "too few, filled up": chosen("perplexity", "threshold", 1.0, threshold=1.9, side="below", short="real"),
}


@pytest.mark.parametrize("name", sorted(SELECTIONS))
def test_blocks_give_the_rows_of_the_plain_loop(name: str, store: FolderStore) -> None:
    select = SELECTIONS[name]
    plain = rows_of(run(store, WORDS, **select), store)
    for size in (0, 2):
        planned = run(store, WORDS, **config.merge(select, {"loop": {"block": size}}))
        assert {stage.kind for stage in planned.stages.values()} == {"data", "block"}
        assert rows_of(planned, store) == plain
    policies = {policy for policy, generation in plain if generation == 3}
    assert policies == set(POLICIES)
    assert all("selection" in plain[policy, 3] for policy in POLICIES)
    assert all(plain[policy, 0].get("selection") is None for policy in POLICIES)


def test_in_a_pool_real_rows_compete(store: FolderStore) -> None:
    planned = run(store, WORDS, **SELECTIONS["of the pool"])
    rows = rows_of(planned, store)
    for policy in POLICIES:
        row = rows[policy, 3]
        real, synthetic = mixing.rows_in_corpus(Policy.parse(policy), 40, 3, growing=False)
        assert row["train_rows"] == real + synthetic == row["select_kept"]
        assert row["real_rows"] == row["select_kept_real"] <= row["select_candidates_real"]
        assert row["select_candidates_real"] == (40 if Policy.parse(policy).accumulates else real)
    kept = [rows[policy, 3]["select_kept_real"] for policy in ("accumulate", "fresh-20")]
    assert all(kept), "some of them stay"


def test_filled_up_with_real_rows_a_corpus_is_as_large_as_ever(store: FolderStore) -> None:
    planned = run(store, WORDS, **SELECTIONS["too few, filled up"])
    rows = rows_of(planned, store)
    assert rows["keep-10", 2]["select_filled"] > 0
    for policy, rows_there in (("keep-0", 40), ("keep-10", 40), ("accumulate", 120)):
        row = rows[policy, 2]
        assert row["train_rows"] == rows_there
        if policy == "keep-10":
            assert row["real_rows"] == 4 + row["select_filled"]
    mixed = stage_for(planned, "mix", "keep-10", 2)
    corpus, original = (rows_in(store, stage, CORPUS) for stage in (mixed, mixed.inputs["data"]))
    assert row_count(corpus.take(np.flatnonzero(corpus.origin == 0))) <= row_count(original), (
        "none twice that is there once"
    )


def row_count(rows: Dataset) -> int:
    """How often the most frequent row is there."""
    return int(np.unique(rows.arrays["tokens"], axis=0, return_counts=True)[1].max())


def test_with_fewer_rows_a_corpus_shrinks_where_that_is_said(store: FolderStore) -> None:
    select = chosen("perplexity", "threshold", 1.0, threshold=1.9, side="below", short="shrink")
    rows = rows_of(run(store, WORDS, **select), store)
    row = rows["keep-10", 1]
    assert row["train_rows"] == 4 + row["select_kept"] < 40


@pytest.mark.parametrize(
    ("threshold", "said"), [(1.9, r"\d+ of 40 candidates stay"), (-1.0, "0 of 40 candidates stay")]
)
def test_too_few_is_said_with_the_generation_and_what_to_do(tmp_path: Path, threshold: float, said: str) -> None:
    select = chosen("perplexity", "threshold", 1.0, threshold=threshold, side="below")
    with pytest.raises(InputError, match=said) as refused:
        run(FolderStore(tmp_path / "store"), WORDS, **select)
    message = str(refused.value)
    assert message.startswith("generation 1 of keep-0: ")
    assert all(words in message for words in ("40 are needed", "loosen the rule", "select.short"))
    assert ("select.oversample" in message) == (threshold > 0), "of none no number of candidates is enough"
    assert "\n" not in message


def test_none_left_is_an_error_even_where_a_corpus_may_shrink(tmp_path: Path) -> None:
    select = chosen("perplexity", "threshold", 1.0, threshold=-1.0, side="below", short="shrink")
    with pytest.raises(InputError, match="0 of 40 candidates stay"):
        run(FolderStore(tmp_path / "store"), WORDS, **select)


def test_killed_in_any_stage_a_run_goes_on_and_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = config.merge(chosen(over="pool"), {"loop": {"generations": 2, "policies": ["keep-10"]}})
    whole = FolderStore(tmp_path / "whole")
    planned = run(whole, WORDS, **changes)
    expected = rows_of(planned, whole)
    works = [stage.work for stage in planned.stages.values()]
    for number in np.flatnonzero([work == "select" for work in works]).tolist():
        own, begun = FolderStore(tmp_path / str(number)), list[str]()

        def killing(body: Body, n: int = number, begun: Any = begun) -> Body:
            def killed(stage: Stage, inputs: Any, place: Workplace) -> dict[str, Any]:
                facts = body(stage, inputs, place)
                begun.append(stage.work)
                if len(begun) == n + 1:
                    raise KeyboardInterrupt
                return facts

            return killed

        with monkeypatch.context() as patch:
            change_bodies("any", killing, patch)
            with pytest.raises(KeyboardInterrupt):
                run(own, WORDS, **changes)
        assert begun[-1] == "select"
        assert rows_of(run(own, WORDS, **changes), own) == expected


# --- a language model -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], FolderStore]:
    """The smallest language model, and a store for all of its runs."""
    home = tmp_path_factory.mktemp("lm")
    tree = config.read_toml(e2e.write_experiment(home))
    return config.merge(tree, {"loop": {"policies": ["keep-10"]}}), FolderStore(home / "store")


def test_a_named_model_judges_rows_with_its_own_tokenizer_and_its_name_is_in_no_key(
    tiny: tuple[dict[str, Any], FolderStore], tmp_path: Path
) -> None:
    """Held against transformers itself, row by row."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from collapse_cli.selection.resolve import resolve

    tree, store = tiny
    folder = e2e.write_model(tmp_path / "judge", tokens=280)
    select = chosen("perplexity", "lowest", model=str(folder))

    def planned_with(where: Path) -> Plan:
        given = config.load(config.merge(tree, config.merge(select, {"select": {"model": str(where)}})), "a test")
        found = resolve(learners.learner_class("lm").resolve(given))
        return kinds.plan(found.config, found.hints)

    planned = planned_with(folder)
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    assert planned_with(moved).stages.keys() == planned.stages.keys()
    scheduler.run(list(planned.stages.values()), LocalExecutor(store), Computed())
    (stage,) = stages_of(planned, "select")
    assert set(stage.inputs) == {"data", "rows"}, "generation 0 is not asked"
    model, tokenizer = (kind.from_pretrained(folder) for kind in (AutoModelForCausalLM, AutoTokenizer))
    own = AutoTokenizer.from_pretrained(store.get(stage.inputs["data"].key).file("tokenizer"))
    candidates, left = rows_in(store, stage.inputs["rows"]), rows_in(store, stage)

    def loss(rows: Dataset) -> list[float]:
        losses = []
        for ids, length in zip(rows.arrays["tokens"], rows.arrays["lengths"], strict=True):
            words = own.decode(ids[:length].tolist(), clean_up_tokenization_spaces=False)
            coded = torch.tensor([tokenizer(words, add_special_tokens=False)["input_ids"]])
            with torch.no_grad():
                losses.append(float(model(coded, labels=coded).loss))
        return losses

    every = sorted(loss(candidates))
    step = store.get(stage.key).facts["selection"]["steps"][0]
    assert step["before"] == pytest.approx(np.quantile(every, np.linspace(0, 1, 11)).tolist(), rel=1e-4)
    assert sorted(loss(left)) == pytest.approx(every[: len(left)], rel=1e-4)


def test_a_named_model_that_has_changed_is_not_taken_for_the_one_that_was_planned(tmp_path: Path) -> None:
    from collapse_cli.selection.scores.named_model import NamedModel, find

    folder = e2e.write_model(tmp_path / "judge", tokens=280)
    _, sha256 = find(str(folder))
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(InputError, match=r"select\.model .* changed after this run was planned"):
        NamedModel(str(folder), sha256, lambda rows: [], learners.silent)


LIGHT: dict[str, dict[str, Any]] = {
    "perplexity": chosen("perplexity", "lowest"),
    "surprise": chosen("surprise", "highest"),
    "repetition": {"select": {"oversample": 2.0, "by": "repetition", "weight": "power", "bias": 2.0, "gram": 2}},
    "length": chosen("length", "threshold", threshold=2.0, side="above"),
    "duplicates": chosen("duplicates", "threshold", threshold=0.0, side="below"),
}


@pytest.mark.parametrize("score", sorted(LIGHT))
def test_a_language_model_is_trained_on_the_rows_that_stay(
    score: str, tiny: tuple[dict[str, Any], FolderStore]
) -> None:
    tree, store = tiny
    planned = run(store, tree, **LIGHT[score])
    (stage,) = stages_of(planned, "select")
    assert set(stage.inputs) - {"data", "rows"} == {"perplexity": {"reference"}, "surprise": {"maker"}}.get(
        score, set()
    )
    made: Finished = store.get(stage.key)
    candidates, left = rows_in(store, stage.inputs["rows"]), rows_in(store, stage)
    row = rows_of(planned, store)["keep-10", 1]
    assert (len(left), row["select_kept"], row["train_rows"]) == (36, 36, 40)
    assert row["select_candidates"] == len(candidates) == (72 if score == "repetition" else 54)
    there = {ids.tobytes() for ids in candidates.arrays["tokens"]}
    assert all(ids.tobytes() in there for ids in left.arrays["tokens"])
    (step,) = row["selection"]["steps"]
    before, after = step["before"], step["after"]
    assert (step["name"], len(before), len(after)) == (score, 11, 11)
    assert row["select_held_out"] == 12
    assert 0 <= row["select_false_rejects"] <= 1
    assert all(one["origin"] == 1 and len(one["text"]) <= 300 for one in row["selection"]["kept"])
    assert any(one["text"] for one in row["selection"]["kept"])
    if score == "perplexity":
        assert (after[0], after[-1] < before[-1]) == (before[0], True)
    if score == "surprise":
        assert (after[0] > before[0], after[-1]) == (True, before[-1])
    assert made.facts["seconds"]["sample"] >= 0
