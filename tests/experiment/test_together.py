"""Several lineages in blocks: to the last bit what the plain loop gives, in blocks of any size, killed or not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.computed import numbers_of, run

from collapse_cli.config import Experiment, load, merge
from collapse_cli.data.dataset import Dataset
from collapse_cli.errors import InputError
from collapse_cli.experiment import kinds
from collapse_cli.experiment.stages import together
from collapse_cli.experiment.stages.base import CORPUS, TEST
from collapse_cli.learners import Hints, silent
from collapse_cli.learners.gaussian import Gaussian
from collapse_cli.run.observers.rows import ReadOnce, metrics_row

Rows = dict[tuple[str, str, int], dict[str, Any]]
POLICIES = ["keep-20", "accumulate"]
MORE = [*POLICIES, "fresh-20", "accumulate-subsample", "keep-60-0"]
TOGETHER_ALONE = ("distance_to_others", "distance_to_others_se", "mixture_variance", "mixture_variance_se")
FAMILIES: dict[str, dict[str, Any]] = {
    "gaussian": {
        "gaussian": {"trials": 3},
        "data": {"source": "blobs", "rows": 60, "eval_rows": 20, "reserve": 160, "blobs": {"dimensions": 2}},
    },
    "gmm": {"data": {"source": "blobs", "rows": 80, "eval_rows": 20, "reserve": 160}},
    "ridge": {
        "ridge": {"lam": 1e-3},
        "data": {"source": "regression", "rows": 60, "eval_rows": 20, "reserve": 160, "regression": {"dimensions": 5}},
    },
}


def experiment(learner: str, rule: str, **more: Any) -> Experiment:
    """Two lineages with halves of the real rows, the second one's truth moved; and a third with all of them."""
    moved = {"blobs": {"shift": 2.0}} if learner != "ridge" else {"regression": {"shift": 1.0}}
    lineages = {
        "one": {"data": {"segment": "1/2"}},
        "two": {"data": {"segment": "2/2", **moved}},
        "whole": {},
    }
    loop = {"generations": 3, "policies": POLICIES, "seeds": [3]}
    tree = {"learner": learner, "loop": loop, "lineages": lineages, "pool": {"rule": rule}, **FAMILIES[learner]}
    return load(merge(tree, more), "a test")


def without(rows: Rows) -> Rows:
    """Rows without what only lineages that are together have."""
    return {where: {n: value for n, value in row.items() if n not in TOGETHER_ALONE} for where, row in rows.items()}


CASES = [
    ("gaussian", "all", MORE, {}),
    ("gaussian", "segments", POLICIES, {"mix": {"weights": "2:1"}, "loop": {"init": "previous"}}),
    ("gmm", "others", POLICIES, {"gmm": {"start": "parent"}, "loop": {"init": "previous"}}),
    ("ridge", "all", POLICIES, {"sample": {"prompts": "previous"}, "data": {"regression": {"inputs": "same"}}}),
    (
        "ridge",
        "segments",
        ["keep-20"],
        {"select": {"by": "verifier", "signs": True, "phi": 0.9, "psi": 0.5, "oversample": 4.0}},
    ),
    ("ridge", "all", POLICIES, {"pool": {"weights": "1:0:2"}}),
    ("ridge", "own", ["accumulate-fresh-20"], {"mix": {"rows": 26}}),
]


@pytest.mark.parametrize(("learner", "rule", "policies", "more"), CASES)
def test_blocks_give_the_rows_of_the_plain_loop(
    learner: str, rule: str, policies: list[str], more: dict[str, Any], tmp_path: Path
) -> None:
    found = []
    for block in (1, 2, 50):
        given = merge(more, {"loop": {"policies": policies, "block": block}})
        planned, store = run(experiment(learner, rule, **given), tmp_path / str(block))
        found.append(numbers_of(planned, store))
    plain, two, whole = found
    assert {stage.kind for stage in planned.stages.values()} == {"data", "block"}
    assert len(planned.stages) == 3 + 3 + len(policies), "generation 0 is of all policies"
    assert len(plain) == 3 * len(policies) * 4
    assert two == whole
    assert without(two) == plain
    assert all(row["distance_to_others"] >= 0 for row in two.values())


def test_nothing_of_one_lineage_is_in_anothers_generation_0_and_the_pool_s_rule_is_in_the_others(
    tmp_path: Path,
) -> None:
    """Generation 0 of a lineage is that of an experiment of it alone; equal lineages share theirs; all later ones depend on the rule."""
    several = experiment("gaussian", "all")
    keys = kinds.plan(several, Hints()).stages.keys()
    for name in several.lineage_names:
        alone = kinds.plan(several.lineage(name).model_copy(update={"loop": several.loop}), Hints())
        first = alone.generations[0].train
        assert {first.key, first.inputs["data"].key} <= keys, name
        assert keys & alone.stages.keys() == {first.key, first.inputs["data"].key}
    other = kinds.plan(experiment("gaussian", "segments"), Hints()).stages.keys()
    assert len(keys & other) == 6
    alike = load({"learner": "gaussian", "pool": {"lineages": 3, "rule": "all"}, **FAMILIES["gaussian"]}, "a test")
    assert len(kinds.plan(alike, Hints()).stages) == 2 + 1 * len(alike.loop.policies)


class KillError(Exception):
    """A kill in the middle of a block."""


@pytest.mark.parametrize(("learner", "rule"), [("gaussian", "segments"), ("ridge", "all")])
def test_killed_in_the_middle_all_lineages_go_on_from_one_generation(
    learner: str, rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLLAPSE_CHECKPOINT_SECONDS", "0")
    config = experiment(learner, rule, loop={"generations": 5, "policies": ["accumulate-subsample", "accumulate"]})
    expected = numbers_of(*run(config, tmp_path / "whole"))
    step, worked = together._step, list[int]()

    def until(last: int | None) -> Any:
        def counted(made: Any, generation: int) -> None:
            if generation == last:
                raise KillError
            worked.append(generation)
            step(made, generation)

        return counted

    found: Rows = {}
    for last in (3, 5, 0, 1, None):
        monkeypatch.setattr(together, "_step", until(last))
        try:
            found = numbers_of(*run(config, tmp_path / "killed"))
        except KillError:
            continue
    assert found == expected
    assert len(worked) == 2 * 6, "no generation was computed twice"


def test_how_far_models_are_from_each_other(tmp_path: Path) -> None:
    """The field is the mean squared distance to the models of the others, at generation 0 too; a common pool alone makes all alike."""
    config = experiment("gaussian", "all", loop={"policies": ["keep-0"]}, data={"segment": "1/1"})
    planned, store = run(config, tmp_path / "store")
    rows = numbers_of(planned, store)
    last = [one for one in planned.generations if one.where.generation == 0]
    means = [np.asarray(together.kept_model(one, store.get(one.train.key))["mean"]) for one in last]  # type: ignore[index]
    for number, one in enumerate(last):
        off = [
            np.square(other - means[number]).sum(axis=1).mean() for place, other in enumerate(means) if place != number
        ]
        found = rows[one.where.lineage, "keep-0", 0]["distance_to_others"]
        assert found == pytest.approx(float(np.mean(off)))
    assert rows["two", "keep-0", 0]["distance_to_others"] > 3
    # the first two take as many rows, the same ones; the third twice as many
    assert rows["one", "keep-0", 3]["mean_shift_squared"] != rows["whole", "keep-0", 3]["mean_shift_squared"]
    one, two = (
        together.kept_model(g, store.get(g.train.key))
        for g in planned.generations
        if g.where.generation == 3 and g.where.lineage != "whole"
    )
    assert one is not None
    assert two is not None
    assert np.array_equal(one["mean"], two["mean"])


def test_public_rows_are_the_same_for_all_of_the_truth_that_none_has_moved_and_of_no_lineage(tmp_path: Path) -> None:
    config = experiment("ridge", "all", pool={"public_rows": 40, "weights": "1:1:2"}, loop={"policies": ["keep-50"]})
    planned, store = run(config, tmp_path / "store")
    public, *own = (stage for stage in planned.stages.values() if stage.kind == "data" and "behind" in stage.params)
    assert own == []
    assert all(stage.inputs["public"] is public for stage in planned.stages.values() if stage.kind == "block")
    shared = Dataset.load(store.get(public.key).file(CORPUS))
    assert len(shared) == 40
    assert np.linalg.lstsq(shared.arrays["x"], shared.arrays["y"])[0].sum() < 2, "not moved"
    taken = {tuple(row) for row in shared.arrays["x"]}
    for stage in planned.stages.values():
        if stage.kind == "data" and stage is not public:
            assert not taken & {tuple(row) for row in Dataset.load(store.get(stage.key).file(CORPUS)).arrays["x"]}
    for (lineage, _, generation), row in numbers_of(planned, store).items():
        rows = 60 if lineage == "whole" else 30
        private, pooled = (rows // 2, rows // 2) if generation else (rows, 0)
        assert (row["real_rows"], row["public_rows"], row["synthetic_rows"]) == (private + 40, 40, pooled)
        assert row["real_weight"] == pytest.approx(0.5 if generation else 1.0)


def test_public_rows_are_not_in_the_plain_loop() -> None:
    config = experiment("ridge", "all", pool={"public_rows": 40}, loop={"block": 1})
    with pytest.raises(InputError, match=r"pool.public_rows = 40: they are of generations that are computed in blocks"):
        kinds.plan(config, Hints())


def test_one_lineage_alone_may_have_public_rows_and_shares(tmp_path: Path) -> None:
    config = experiment("ridge", "own", loop={"policies": ["keep-50"]}, pool={"public_rows": 40, "weights": "1:1:2"})
    alone = config.model_copy(update={"lineages": {}})
    rows = numbers_of(*run(alone, tmp_path / "store"))
    assert [where[0] for where in rows] == [""] * 4
    assert all("distance_to_others" not in row for row in rows.values())


def test_a_part_of_rows_that_are_drawn_is_disjoint_from_the_others_and_too_many_parts_are_refused(
    tmp_path: Path,
) -> None:
    planned, store = run(experiment("ridge", "own", loop={"generations": 0}), tmp_path / "store")
    data = [stage for stage in planned.stages.values() if stage.kind == "data"]
    first, second, whole = (Dataset.load(store.get(stage.key).file(CORPUS)).arrays["x"] for stage in data)
    assert np.array_equal(first, whole[:30])
    assert np.array_equal(second, whole[30:])
    with pytest.raises(
        InputError, match=r"data.segment = 1/50: the original corpus has fewer rows than parts; raise data.rows"
    ):
        run(experiment("ridge", "own", lineages={"one": {"data": {"segment": "1/50", "rows": 7}}}), tmp_path / "few")


def test_an_evaluation_finds_the_models_of_each_lineage(tmp_path: Path) -> None:
    planned, store = run(experiment("gaussian", "all", loop={"policies": ["keep-20"]}), tmp_path / "store")
    for one in planned.generations:
        row = metrics_row(one, ReadOnce(store)).record()
        inputs, model = together.inputs_of(one), together.kept_model(one, store.get(one.train.key))
        assert model is not None
        data = store.get(inputs["data"].key)
        learner = Gaussian(together.block_of(one).verbs["eval"], Hints(encoded=data.folder), silent)
        learner.restore(model)
        assert learner.measure(Dataset.load(data.file(TEST))).facts["variance"] == row["variance"]
