"""Keys: a hash of all that can change a result, and of nothing else. Seeds. The stages of a plan."""

from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.kinds import kind

from collapse_cli import config
from collapse_cli.engine.stage import Plan, Stage, canonical, digest, seed_for
from collapse_cli.experiment import kinds
from collapse_cli.experiment.kinds import KINDS
from collapse_cli.experiment.loop import plan
from collapse_cli.learners import Hints
from collapse_cli.where import Where

# --- canonical JSON ---------------------------------------------------------------------------------------------------


def test_canonical_json_is_sorted_compact_ascii() -> None:
    value = {"b": [1, 2.5, None, True], "a": {"ü": "x"}, "c": (1, 2)}
    assert canonical(value) == b'{"a":{"\\u00fc":"x"},"b":[1,2.5,null,true],"c":[1,2]}'


def test_the_order_of_keys_does_not_matter_and_the_order_of_items_does() -> None:
    assert canonical({"a": 1, "b": 2}) == canonical({"b": 2, "a": 1})
    assert canonical([1, 2]) != canonical([2, 1])


def test_values_of_different_types_are_different() -> None:
    assert len({canonical(value) for value in (1, 1.0, True, "1", "true", None, [1])}) == 7


@pytest.mark.parametrize(
    "unknown",
    [
        object(),
        {1, 2},
        frozenset("a"),
        b"bytes",
        bytearray(b"x"),
        float("nan"),
        float("inf"),
        float("-inf"),
        Path("folder"),
        1j,
        np.int64(1),
        np.int32(1),
        np.float32(1.0),
        np.bool_(True),
        np.float64("nan"),
        np.arange(2),
        range(3),
        iter([1]),
        test_canonical_json_is_sorted_compact_ascii,
    ],
    ids=lambda value: type(value).__name__ + "-" + str(value)[:12],
)
@pytest.mark.parametrize("nested", ["bare", "list", "dict"])
def test_unknown_types_are_refused_wherever_they_stand(unknown: object, nested: str) -> None:
    value = {"bare": unknown, "list": [1, [unknown]], "dict": {"a": {"b": unknown}}}[nested]
    with pytest.raises(TypeError, match="no place in a key"):
        canonical(value)


@pytest.mark.parametrize("key", [1, None, True, 1.5, ("a",), b"a"], ids=repr)
def test_keys_that_are_not_strings_are_refused(key: object) -> None:
    with pytest.raises(TypeError, match="not a string"):
        canonical({"a": {key: 1}})


def test_a_mapping_that_is_no_dict_is_never_hashed_as_something_else() -> None:
    with pytest.raises(TypeError):
        canonical(MappingProxyType({"a": 1}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON)
def test_equal_bytes_mean_equal_values(first: object, second: object) -> None:
    import json

    assert json.loads(canonical(first)) == first
    if digest(first) == digest(second):
        assert first == second


# --- keys -------------------------------------------------------------------------------------------------------------

DATA = Stage(
    kinds.DATA,
    {"learner": "lm", "data": {"sha256": "0" * 64, "block_size": 64, "line_bos": False}, "tokenizer": {"bpe": 512}},
)
TRAIN = Stage(
    kinds.TRAIN,
    {"learner": "lm", "model": {"sha256": "1" * 64}, "train": {"epochs": 5, "lr": 2e-5}, "base": 7},
    {"data": DATA, "corpus": DATA},
    11,
)
SAMPLE = Stage(
    kinds.SAMPLE,
    {"learner": "lm", "sample": {"prompts": "real", "new_tokens": 64}, "policy": {"rule": "keep", "percent": 10.0}},
    {"model": TRAIN, "data": DATA, "prompts": DATA},
    13,
)
MIX = Stage(
    kinds.MIX,
    {"learner": "lm", "policy": {"rule": "keep", "percent": 10.0}, "growing": False, "generation": 1},
    {"data": DATA, "synthetic-00001": SAMPLE},
    17,
)
EVAL = Stage(
    kinds.EVAL,
    {"learner": "lm", "eval": {"protocol": "block", "context": 0, "stride": 0}},
    {"model": TRAIN, "data": DATA},
)
BLOCK = Stage(
    kinds.BLOCK,
    {"learner": "gaussian", "verbs": {"train": {"model": {"unbiased": False, "trials": 1}}}, "generations": [1, 250]},
    {"data": DATA, "first": DATA, "before": DATA},
    0,
)
DETECTOR = Stage(
    kinds.DETECTOR,
    {"learner": "lm", "features": "n-grams"},
    {"data": DATA, "synthetic-00001": SAMPLE},
    19,
)
SELECT = Stage(
    kinds.SELECT,
    {
        "learner": "lm",
        "policy": {"rule": "keep", "percent": 10.0},
        "generation": 1,
        "select": {"by": "surprise", "keep": "highest"},
    },
    {"data": DATA, "synthetic-00001": SAMPLE, "maker": TRAIN},
    23,
)
# A key changes only on purpose: with the version of its kind of stages, or because all stores are given up.
PUBLIC = Stage(kinds.PUBLIC, {"learner": "lm", "sha256": "2" * 64, "block_size": 64, "line_bos": False}, {"data": DATA})
TRANSLATED = Stage(kinds.TRANSLATE, {"learner": "lm", "most": 128}, {"rows": SAMPLE, "source": DATA, "data": DATA})
WRITTEN = Stage(kinds.WRITTEN, {"learner": "lm", "foreign": {"sha256": "3" * 64, "block_size": 64}}, {"data": DATA})
POOL = Stage(
    kinds.POOL,
    {"learner": "lm", "takers": [2, 2], "policy": {"rule": "keep", "percent": 10.0}, "growing": False, "generation": 1},
    {"data": DATA, "synthetic-00001": SAMPLE, "synthetic-00002": TRANSLATED},
)
ASKED = Stage(
    kinds.ASKED,
    {"learner": "lm", "asked": {"server": "a", "max_tokens": 64, "temperature": 1.0}, "prompt_tokens": 64},
    {"data": DATA},
    23,
)
BETWEEN = Stage(
    kinds.BETWEEN,
    {"learner": "lm", "lineages": {"a": {"most": 64}, "b": {"most": 64}}, "reserve": True},
    {"model-a": TRAIN, "data-a": DATA, "model-b": TRAIN, "data-b": DATA},
)
GOLDEN_KEYS: dict[str, tuple[Stage, str]] = {
    "data": (DATA, "c07f107c29b0720594ed3298442b3526b3c454ae07aef9d50658e5fdfb07ec5c"),
    "train": (TRAIN, "19ebcc9a8f00157a449a144e267951c0f9a4f3f331095d279bfc3d6e8740e57b"),
    "sample": (SAMPLE, "372ebdfeba80fb2f3bf0131d7d383845673184f37cd9c9f419ca2713b4e5df7c"),
    "mix": (MIX, "843393609eae8786f241eb60d756ee826ba6fada58abc2a00f897309e4a9f462"),
    "block": (BLOCK, "4a88a62b76b7b02043689e9f7998e596f08a1739972d36cb6077755ae8fef921"),
    "detector": (DETECTOR, "7cdd79723ca36fc68e8ab6b16206842c345d995cdca3c6557922693171e0a183"),
    "select": (SELECT, "13159b864fb4b5dfb17710ad38219fb8922b68bc489cf54fc68705bbf12ef04c"),
    "public": (PUBLIC, "17ba767203e88934c97b04b10970b31ab8f1616a08f97aec04e116b9daf1ba68"),
    "translate": (TRANSLATED, "e52b631d1b4d3a25c9e49d6e52ec783cfaf840a4941aa344d11991631591765d"),
    "foreign": (WRITTEN, "645c016d32318b85030f2658ecd175d4ec7b4a27160f928ae3957ddd9e085778"),
    "pool": (POOL, "b46fdc9ba22562ac841453f87197b22cd60d218cfc6354feeb818cbac9838349"),
    "answers": (ASKED, "46a6c7c7e4cad45bd531e46e26c590e13f65a60fcd8dd8103175e28dc2ff0bec"),
    "between": (BETWEEN, "27e5cc46e6c2ba0cf70478229411927c0a35a892293bf7be74d29e9d42240218"),
    "eval": (EVAL, "ecea775a01bb737d1c756f25c45edd0dc0b4b2fc1fb18c8d3439cc315d3892be"),
}


@pytest.mark.parametrize("word", sorted({one.kind for one in KINDS}))
def test_keys_are_the_golden_ones(word: str) -> None:
    stage, key = GOLDEN_KEYS[word]
    assert stage.key == key


def test_a_key_depends_on_all_that_can_change_the_result() -> None:
    other_data = Stage(kind("data"), {"learner": "lm"})
    params = dict(TRAIN.params)
    variants = [
        TRAIN,
        Stage(kind("eval", TRAIN.version), params, TRAIN.inputs, TRAIN.seed),
        Stage(kind("train", TRAIN.version + 1), params, TRAIN.inputs, TRAIN.seed),
        Stage(TRAIN.of, params | {"base": 8}, TRAIN.inputs, TRAIN.seed),
        Stage(TRAIN.of, params | {"extra": None}, TRAIN.inputs, TRAIN.seed),
        Stage(TRAIN.of, params, {"data": DATA, "corpus": other_data}, TRAIN.seed),
        Stage(TRAIN.of, params, {"data": DATA, "corpse": DATA}, TRAIN.seed),
        Stage(TRAIN.of, params, {"data": DATA}, TRAIN.seed),
        Stage(TRAIN.of, params, TRAIN.inputs, TRAIN.seed + 1),
    ]
    assert len({stage.key for stage in variants}) == len(variants)


def test_hints_are_not_in_the_key() -> None:
    here = Stage(DATA.of, DATA.params, hints={"text": "/home/a"})
    there = Stage(DATA.of, DATA.params, hints={"text": "/home/b", "more": object()})
    assert here.key == there.key == DATA.key


def test_a_stage_with_an_unknown_type_in_its_params_has_no_key() -> None:
    with pytest.raises(TypeError, match=r"params\.model\.path"):
        _ = Stage(kind("train"), {"model": {"path": Path("x")}}).key


# --- seeds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "seed"),
    [
        ((0, "train", 0), 7955725967969213211),
        ((0, "sample", 1), 3129876632612054921),
        ((7, "mix", 9), 6645417408938771412),
        ((0, "train", 0, "other"), 1859567663718446179),
    ],
)
def test_seeds_are_the_golden_ones(arguments: Any, seed: int) -> None:
    assert seed_for(*arguments) == seed


def test_every_purpose_has_a_seed_of_its_own() -> None:
    kinds = ("base", "train", "sample", "mix")
    seeds = {seed_for(run, kind, generation) for run in range(5) for kind in kinds for generation in range(10)}
    assert len(seeds) == 5 * 4 * 10
    assert all(0 <= seed < 2**63 for seed in seeds)


# --- the plan ---------------------------------------------------------------------------------------------------------


def smoke(**loop: Any) -> config.Experiment:
    """The preset `smoke` as it is once resolved, but for the hash of a text that does not depend on Python."""
    tree = config.read_toml(config.preset_path("smoke"))
    return config.load(config.merge(tree, {"data": {"sha256": "0" * 64}, "loop": loop}), "smoke")


def keys_of(planned: Plan) -> dict[str, str]:
    """The first 16 digits of each key, by work and the first generation it serves."""
    return {
        f"{stage.work} {planned.serves[key][0].name} {planned.serves[key][0].generation}": key[:16]
        for key, stage in planned.stages.items()
    }


def stages_of(planned: Plan, kind: str, policy: str, generation: int) -> list[Stage]:
    """The stages of a kind that serve a generation of a policy."""
    return [
        stage
        for key, stage in planned.stages.items()
        if stage.kind == kind and Where(policy, 0, generation) in planned.serves[key]
    ]


GOLDEN_PLAN: dict[str, str] = {
    "data keep-0 0": "97b35ca63ded2925",
    "train keep-0 0": "bf0c66f02bed6a52",
    "eval keep-0 0": "1b6a73b34163f10e",
    "sample keep-0 0": "4ca8f10a7c2addf1",
    "real keep-0 0": "9297dea77532bf09",
    "examine keep-0 0": "2b17626fd598629b",
    "sample keep-10 0": "e86e833e1b4dfa95",
    "examine keep-10 0": "0003428e282e95df",
    "mix keep-0 1": "a2b73453ad26cfd9",
    "train keep-0 1": "15ef6d60185bb563",
    "eval keep-0 1": "cbce31489ae44500",
    "sample keep-0 1": "2760e3ce8700af18",
    "examine keep-0 1": "7b347853d7c8167a",
    "mix keep-10 1": "72bab5e942f43b82",
    "train keep-10 1": "19a967905563b8b7",
    "eval keep-10 1": "1a83bee30df09a8e",
    "sample keep-10 1": "bef2d7602901f06e",
    "examine keep-10 1": "ad9447f5616742b4",
    "mix keep-0 2": "3edb218d9e30760b",
    "train keep-0 2": "35f06dc89ad569da",
    "eval keep-0 2": "e10b7eb942c16d93",
    "sample keep-0 2": "4d0524da9596a7b9",
    "examine keep-0 2": "a4728a4b6bee1572",
    "mix keep-10 2": "41179524fd1a56c8",
    "train keep-10 2": "b578129c69588171",
    "eval keep-10 2": "f0ed31452582e8b3",
    "sample keep-10 2": "e9a0d8a4a842e9a9",
    "examine keep-10 2": "ac5a8805f5d3a3bd",
}


def test_the_plan_of_smoke_has_the_golden_keys() -> None:
    assert keys_of(plan(smoke(), Hints())) == GOLDEN_PLAN


def test_a_plan_does_not_depend_on_where_its_inputs_are() -> None:
    here, there = plan(smoke(), Hints(text={"source": "a"})), plan(smoke(), Hints(text={"source": "b"}, model="c"))
    assert list(here.stages) == list(there.stages)


def test_generation_0_is_one_model_for_all_policies_of_a_seed() -> None:
    policies_ = ["keep-0", "keep-10", "accumulate", "accumulate-subsample", "fresh-5"]
    planned = plan(smoke(policies=policies_, seeds=[0, 1]), Hints())
    for seed in (0, 1):
        first = [one for one in planned.generations if one.where.generation == 0 and one.where.seed == seed]
        assert len(first) == len(policies_)
        assert len({one.train.key for one in first}) == len({one.eval.key for one in first}) == 1
    assert len({one.train.key for one in planned.generations if one.where.generation == 0}) == 2


def test_the_name_of_a_policy_is_not_in_a_key() -> None:
    short, long = plan(smoke(policies=["keep-10"]), Hints()), plan(smoke(policies=["keep-10.0"]), Hints())
    assert list(short.stages) == list(long.stages)


def test_what_the_first_model_makes_is_shared_by_accumulate_and_keep_0() -> None:
    planned = plan(smoke(policies=["keep-0", "accumulate", "accumulate-subsample"]), Hints())
    first = [stages_of(planned, "sample", name, 0)[0].key for name in ("keep-0", "accumulate", "accumulate-subsample")]
    second = [stages_of(planned, "sample", name, 1)[0].key for name in ("keep-0", "accumulate")]
    assert first[0] == first[1] == first[2]
    assert second[0] != second[1]


def test_more_generations_policies_and_seeds_keep_the_keys_there_are() -> None:
    small = plan(smoke(), Hints())
    large = plan(smoke(generations=4, policies=["accumulate", "keep-10", "keep-0"], seeds=[3, 0]), Hints())
    assert small.stages.keys() < large.stages.keys()


def test_what_is_only_shown_or_kept_is_not_in_a_key() -> None:
    tree = smoke().model_dump(mode="json")
    changed = config.merge(tree, {"store": {"keep_models": "none"}, "sample": {"max_duplicates": 0.9}})
    assert list(plan(config.load(changed, "x"), Hints()).stages) == list(plan(smoke(), Hints()).stages)


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        ({"train": {"lr": 1e-4}}, {"train", "eval", "sample", "mix"}),
        ({"sample": {"decode": {"repetition_penalty": 3.0}}}, {"train", "eval", "sample", "mix"}),
        ({"eval": {"stride": 4}}, {"eval"}),
        ({"data": {"block_size": 64}}, {"data", "train", "eval", "sample", "mix"}),
        ({"data": {"sha256": "1" * 64}}, {"data", "train", "eval", "sample", "mix"}),
        ({"model": {"config": {"hidden_size": 64}}}, {"train", "eval", "sample", "mix"}),
        ({"mix": {"size": "growing"}}, {"train", "eval", "sample", "mix"}),
        ({"train": {"target": "full"}}, {"train", "eval", "sample", "mix"}),
        ({"loop": {"init": "previous"}}, {"train", "eval", "sample", "mix"}),
    ],
    ids=lambda value: str(
        sorted(value) if isinstance(value, set) else value
    ),  # a set has another order in each process
)
def test_a_setting_changes_the_keys_of_the_kinds_it_matters_to(change: dict[str, Any], kinds: set[str]) -> None:
    before = plan(smoke(), Hints()).stages
    after = plan(config.load(config.merge(smoke().model_dump(mode="json"), change), "x"), Hints()).stages
    assert {stage.kind for key, stage in after.items() if key not in before} == kinds


def test_every_stage_comes_after_its_inputs() -> None:
    seen: set[str] = set()
    for key, stage in plan(smoke(policies=["keep-0", "accumulate", "fresh-5", "keep-100"]), Hints()).stages.items():
        assert {made.key for made in stage.inputs.values()} <= seen
        seen.add(key)


@pytest.mark.parametrize("init", ["base", "gen0", "previous"])
def test_training_starts_from_the_weights_that_init_names(init: str) -> None:
    planned = plan(smoke(init=init, policies=["keep-0"]), Hints())
    trained = [one.train for one in planned.generations]
    starts = [stage.inputs.get("init") for stage in trained]
    wanted = {"base": [None] * 3, "gen0": [None, trained[0], trained[0]], "previous": [None, *trained[:2]]}[init]
    assert starts == wanted


def test_prompts_come_from_the_corpus_that_the_setting_names() -> None:
    tree = config.merge(smoke().model_dump(mode="json"), {"sample": {"prompts": "previous"}})
    real, previous = plan(smoke(), Hints()), plan(config.load(tree, "x"), Hints())
    assert {stage.inputs["prompts"].kind for stage in real.stages.values() if stage.kind == "sample"} == {"data"}
    second = stages_of(previous, "sample", "keep-0", 1)[0]
    assert second.inputs["prompts"] is stages_of(previous, "mix", "keep-0", 1)[0]
    for generation in previous.generations:
        assert generation.samples is not None
        assert generation.samples.inputs["prompts"] is generation.samples.inputs["samples"].inputs["prompts"]


def test_policies_without_synthetic_rows_sample_nothing() -> None:
    tree = config.merge(smoke(policies=["keep-100", "fresh-100"]).model_dump(mode="json"), {"eval": {"samples": False}})
    planned = plan(config.load(tree, "x"), Hints())
    assert "sample" not in {stage.kind for stage in planned.stages.values()}


def test_every_generation_is_sampled_and_its_samples_measured_under_generation_0() -> None:
    planned = plan(smoke(policies=["keep-0", "keep-100", "accumulate"], seeds=[0, 1]), Hints())
    firsts = {(one.where.policy, one.where.seed): one for one in planned.generations if one.where.generation == 0}
    for one in planned.generations:
        first = firsts[one.where.policy, one.where.seed]
        assert first.samples is not None
        assert one.samples is not None
        assert one.samples.inputs["samples"].inputs["model"] is one.train
        assert one.samples.inputs["reference"] is first.train
        assert one.samples.inputs["real"].inputs["reference"] is first.train
        assert one.samples.inputs.get("first") is (first.samples if one.where.generation else None)
        assert one.eval.inputs.get("first") is (first.eval if one.where.generation else None)
        assert (one.eval.work, one.samples.work, one.samples.inputs["real"].work) == ("eval", "examine", "real")
    assert sum(stage.work == "real" for stage in planned.stages.values()) == 2, "one a seed"


def test_without_measures_of_samples_the_last_generation_makes_none() -> None:
    tree = config.merge(smoke().model_dump(mode="json"), {"eval": {"samples": False}})
    planned = plan(config.load(tree, "x"), Hints())
    made = {
        where.generation
        for key, stage in planned.stages.items()
        if stage.kind == "sample"
        for where in planned.serves[key]
    }
    assert made == {0, 1}
    assert {one.samples for one in planned.generations} == {None}
