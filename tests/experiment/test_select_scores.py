"""Scores that are made of more than a row, and steps that change rows, in real small runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import e2e
from support.selected import LABELS, WORDS, experiment, rows_in, rows_of, run, stages_of

from collapse_cli import config
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine.folder_store import FolderStore
from collapse_cli.errors import ConfigError, InputError
from collapse_cli.experiment import kinds
from collapse_cli.experiment.stages.base import CORPUS
from collapse_cli.selection.scores import detector

DETECTOR = {"by": "detector", "weight": "power", "bias": 2.0, "max_repeats": 3, "oversample": 2.0}


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


# --- the detector -----------------------------------------------------------------------------------------------------


def test_one_detector_serves_all_generations_and_says_what_it_is_worth(store: FolderStore) -> None:
    planned = run(store, WORDS, select=DETECTOR)
    (stage,) = stages_of(planned, "detector")
    selects = stages_of(planned, "select")
    assert len(selects) == 2
    assert all(select.inputs["detector"] is stage for select in selects)
    assert set(stage.inputs) == {"data", "rows"}
    facts = store.get(stage.key).facts
    candidates, real = rows_in(store, stage.inputs["rows"]), rows_in(store, stage.inputs["data"], CORPUS)
    assert facts["judged_real"] + facts["judged_synthetic"] + facts["fitted_rows"] == 2 * len(real)
    for row in rows_of(planned, store)[1:]:
        (step,) = row["selection"]["steps"]
        assert (step["facts"], step["unit"]) == (facts, "probability")
    fitted = detector.Detector.load(store.get(stage.key).folder)
    (first,) = (select for select in selects if select.inputs["rows"] is stage.inputs["rows"])
    q, stay = fitted.probabilities(candidates), fitted.probabilities(rows_in(store, first))
    assert stay.mean() < q.mean(), "rows that look real are drawn more often"


def test_a_plan_with_a_detector_has_stages_of_its_own_where_blocks_would_be() -> None:
    planned = kinds.plan(*experiment(LABELS, select=DETECTOR))
    assert not stages_of(planned, "block")
    assert len(stages_of(planned, "detector")) == 4, "one for each seed"
    with pytest.raises(InputError, match=r"leave loop\.block at 0 or 1"):
        kinds.plan(*experiment(LABELS, select=DETECTOR, loop={"block": 5}))


def test_numbers_are_detected_as_numbers(store: FolderStore) -> None:
    planned = run(store, LABELS, select=DETECTOR, loop={"seeds": [0]}, data={"rows": 200})
    (stage,) = stages_of(planned, "detector")
    facts = store.get(stage.key).facts
    assert facts["features"] == "numbers"
    assert abs(facts["auc"] - 0.5) <= 4 * facts["auc_se"], "labels of the right weights are as real ones"


def test_without_rows_enough_a_detector_is_refused(store: FolderStore) -> None:
    with pytest.raises(InputError, match="at least 40 real and 40 synthetic rows"):
        run(store, WORDS, select=DETECTOR, data={"rows": 20})


# --- verifiers --------------------------------------------------------------------------------------------------------


def test_signs_are_verified_at_the_stated_rates(store: FolderStore) -> None:
    select = {"by": "verifier", "phi": 0.9, "psi": 0.6, "signs": True, "short": "shrink"}
    wrong, regression = 0.55, {"dimensions": 20, "noise": 0.0, "flipped": 0.55}
    planned = run(store, LABELS, select=select, data={"regression": regression})
    for row in (row for row in rows_of(planned, store) if row["generation"] == 1):
        facts = row["selection"]["steps"][0]["facts"]
        assert facts["threshold"] == pytest.approx(0.6)
        for rate, name, share in ((0.9, "right_kept_share", 1 - wrong), (0.6, "wrong_kept_share", wrong)):
            assert abs(facts[name] - rate) <= 4 * np.sqrt(rate * (1 - rate) / (2000 * share))
        assert abs(facts["wrong_share"] - wrong) <= 4 * np.sqrt(wrong * (1 - wrong) / 2000)


def test_a_verifier_of_images_knows_their_labels(store: FolderStore) -> None:
    tree = {
        "learner": "mlp",
        "loop": {"generations": 2, "policies": ["keep-0"], "seeds": [0]},
        "data": {"source": "digits", "rows": 200},
        "mlp": {"width": 8, "epochs": 3, "labels": "hard"},
    }
    select = {"by": "verifier", "phi": 1.0, "psi": 0.0, "short": "shrink"}
    planned = run(store, tree, select=select)
    stage = next(stage for stage in stages_of(planned, "select"))
    real = rows_in(store, stage.inputs["data"], CORPUS).arrays
    true = {x.tobytes(): y.argmax() for x, y in zip(real["x"], real["y"], strict=True)}
    candidates, left = rows_in(store, stage.inputs["rows"]).arrays, rows_in(store, stage).arrays
    right = [true[x.tobytes()] == y.argmax() for x, y in zip(candidates["x"], candidates["y"], strict=True)]
    assert 0 < sum(right) < 200
    assert len(left["x"]) == sum(right)
    assert all(true[x.tobytes()] == y.argmax() for x, y in zip(left["x"], left["y"], strict=True))


def test_a_verifier_of_points_keeps_those_of_the_blobs(store: FolderStore) -> None:
    tree = {
        "learner": "gmm",
        "loop": {"generations": 1, "policies": ["keep-0"], "seeds": [0]},
        "data": {"source": "blobs", "rows": 300, "blobs": {"centers": 3, "separation": 6.0, "spread": 1.0}},
        "gmm": {"components": 2},
    }
    select = {"by": "verifier", "phi": 1.0, "psi": 0.0, "oversample": 2.0, "short": "shrink"}
    planned = run(store, tree, select=select)
    facts = rows_of(planned, store)[1]["selection"]["steps"][0]["facts"]
    assert facts["wrong_share"] > 0.05, "two components for three blobs"
    assert facts["wrong_share_kept"] == 0
    assert rows_of(planned, store)[1]["select_false_rejects"] < 0.05


@pytest.mark.parametrize("by", ["verifier", "biased-verifier"])
def test_where_the_truth_is_not_known_a_verifier_is_refused(by: str) -> None:
    own: dict[str, Any] = {"phi": 0.9, "psi": 0.5} if by == "verifier" else {"theta": [1.0], "slack": 1.0}
    with pytest.raises(ConfigError, match=f"by = {by} needs data whose truth is known"):
        experiment(WORDS, select={"by": by, "oversample": 2.0, **own})


# --- a choice by reward, and functions of the user's own ---------------------------------------------------------------


def test_of_the_candidates_of_a_place_one_is_taken(store: FolderStore, tmp_path: Path, monkeypatch: Any) -> None:
    file = (tmp_path / "my_rewards").with_suffix(".py")
    file.write_text("def words(rows): return [-30.0 * len(set(row.split())) for row in rows]\n")
    monkeypatch.syspath_prepend(tmp_path)
    select = {"by": "my_rewards:words", "keep": "choice", "oversample": 3.0}
    planned = run(store, WORDS, select=select)
    for stage in stages_of(planned, "select"):
        candidates, left = rows_in(store, stage.inputs["rows"]).arrays["tokens"], rows_in(store, stage).arrays["tokens"]
        distinct = np.array([len(set(row)) for row in candidates.tolist()]).reshape(3, -1)
        assert len(left) == 60
        kept = np.array([len(set(row)) for row in left.tolist()])
        assert sorted(kept) == sorted(distinct.min(axis=0)), "a reward that is so steep takes the best of each place"
    changed = kinds.plan(*experiment(WORDS, select=select))
    assert changed.stages.keys() == planned.stages.keys()
    file.write_text("def words(rows): return [0.0 for row in rows]\n")
    changed = kinds.plan(*experiment(WORDS, select=select))
    kept_keys = {stage.work for key, stage in planned.stages.items() if key in changed.stages}
    assert "select" not in kept_keys, "its content is in the key"
    assert "sample" in kept_keys


# --- steps that change rows --------------------------------------------------------------------------------------------


def test_near_duplicates_go_and_the_largest_clusters_are_shown(store: FolderStore) -> None:
    select = {"by": "near-duplicates", "keep": "threshold", "threshold": 0.0, "side": "below", "short": "shrink"}
    planned = run(
        store, WORDS, select=select, data={"block_size": 3, "zipf": {"vocabulary": 8}}, sample={"new_tokens": 3}
    )
    row = rows_of(planned, store)[2]
    (step,) = row["selection"]["steps"]
    assert step["facts"]["removed_share"] == pytest.approx(1 - row["select_kept"] / 60)
    assert 0 < row["select_kept"] < 60
    assert step["facts"]["largest_cluster"] == step["facts"]["shown"][0]["rows"] > 1
    assert all(text for shown in step["facts"]["shown"] for text in shown["texts"])


@pytest.mark.parametrize("block", [1, 0])
def test_corrected_towards_real_rows_a_corpus_has_its_share_of_them(store: FolderStore, block: int) -> None:
    planned = run(store, WORDS, select={"do": "correct", "gamma": 1.0}, loop={"block": block})
    for row in rows_of(planned, store)[1:]:
        facts = row["selection"]["steps"][0]["facts"]
        assert facts["changed_rows"] == facts["real_rows"] == row["real_rows"]
        assert abs(row["real_rows"] / 60 - 0.5) < 4 * np.sqrt(0.25 / 60)


def test_corrected_towards_generation_0_no_real_row_is_used(store: FolderStore) -> None:
    planned = run(store, WORDS, select={"do": "correct", "gamma": 3.0, "toward": "gen0"}, loop={"block": 0})
    assert not stages_of(planned, "block")
    first, second = stages_of(planned, "select")
    assert first.inputs["first"] is second.inputs["first"] is first.inputs["rows"]
    there = {row.tobytes() for row in rows_in(store, first.inputs["first"]).arrays["tokens"]}
    rows = rows_in(store, second)
    of_first = np.array([row.tobytes() in there for row in rows.arrays["tokens"]])
    assert of_first.mean() > 0.5
    assert all(row["real_rows"] == 0 for row in rows_of(planned, store)[1:])


# --- a language model --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], FolderStore]:
    home = tmp_path_factory.mktemp("lm")
    tree = config.read_toml(e2e.write_experiment(home))
    return config.merge(tree, {"loop": {"policies": ["keep-0"]}}), FolderStore(home / "store")


def test_tokens_that_generation_0_is_sure_of_are_drawn_anew(tiny: tuple[dict[str, Any], FolderStore]) -> None:
    tree, store = tiny
    planned = run(store, tree, select={"do": "edit", "above": 0.0035, "top": 4})
    (stage,) = stages_of(planned, "select")
    assert set(stage.inputs) == {"data", "rows", "reference"}
    before, after = rows_in(store, stage.inputs["rows"]), rows_in(store, stage)
    facts = rows_of(planned, store)[1]["selection"]["steps"][0]["facts"]
    changed = before.arrays["tokens"] != after.arrays["tokens"]
    assert facts["tokens_changed"] == changed.sum() > 0
    assert facts["changed_rows"] == changed.any(axis=1).sum()
    assert facts["tokens_changed"] <= facts["tokens_drawn_anew"] <= facts["tokens"]
    with pytest.raises(ConfigError, match="cannot be done by the learner ngram"):
        experiment(WORDS, select={"do": "edit"})


def test_a_detector_made_elsewhere_is_used_as_it_is(tiny: tuple[dict[str, Any], FolderStore], tmp_path: Path) -> None:
    from support.classifiers import saved

    tree, store = tiny
    folder = saved(tmp_path / "other")
    select = {"by": "detector", "detector": str(folder), "keep": "lowest", "oversample": 2.0}
    planned = run(store, tree, select=select)
    (stage,) = stages_of(planned, "detector")
    facts = store.get(stage.key).facts
    assert facts["judged_real"] + facts["judged_synthetic"] + facts["fitted_rows"] == 80
    assert str(folder) not in json.dumps([one.params for one in planned.stages.values()]), (
        "no key has a machine's paths"
    )
    moved = folder.rename(tmp_path / "moved")
    again = kinds.plan(*experiment(tree, select={**select, "detector": str(moved)}))
    assert again.stages.keys() == planned.stages.keys()
    with pytest.raises(ConfigError, match="names a model that reads text"):
        experiment(LABELS, select={**select, "detector": str(moved)})


def test_real_rows_that_were_chosen_are_a_dataset(store: FolderStore) -> None:
    """What a change leaves can be mixed, saved and read as any rows."""
    planned = run(store, WORDS, select={"do": "correct", "gamma": 1.0}, loop={"policies": ["keep-10", "accumulate"]})
    for stage in stages_of(planned, "mix"):
        corpus = rows_in(store, stage, CORPUS)
        assert isinstance(corpus, Dataset)
        assert set(corpus.arrays) == {"tokens", "lengths"}
