"""The typed tree: what is refused and how it is said, presets, --set, and when two experiments are one run."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from collapse_cli import config
from collapse_cli.config import Experiment, load, merge, parse_settings, preset_path, read_toml, variant_experiments
from collapse_cli.config.cell import cells
from collapse_cli.config.policies import Policy
from collapse_cli.errors import ConfigError
from collapse_cli.experiment.kinds import plan
from collapse_cli.learners import Hints

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").rglob("*.toml"))


def fault(tree: dict[str, Any]) -> str:
    """What is said of a tree that is refused."""
    with pytest.raises(ConfigError) as caught:
        load(tree, "the file")
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- unknown keys -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"train": {"epoch": 3}}, "the file: unknown key 'train.epoch' (did you mean 'train.epochs'?)"),
        ({"train": {"learning_rate": 3}}, "unknown key 'train.learning_rate'"),
        ({"trian": {"lr": 3}}, "unknown key 'trian' (did you mean 'train'?)"),
        ({"lr": 3}, "unknown key 'lr' (did you mean 'train.lr'?)"),
        ({"sample": {"beams": 3}}, "unknown key 'sample.beams' (did you mean 'sample.decode.beams'?)"),
        ({"data": {"batch_size": 3}}, "unknown key 'data.batch_size' (did you mean 'train.batch_size'?)"),
        ({"sample": {"decode": {"beam": 3}}}, "did you mean 'sample.decode.beams'?"),
        ({"loop": {"polices": []}}, "did you mean 'loop.policies'?"),
        ({"zzz": 3}, "unknown key 'zzz'"),
    ],
)
def test_an_unknown_key_is_refused_and_the_nearest_known_one_named(tree: dict[str, Any], words: str) -> None:
    assert words in fault(tree)


def test_every_key_of_the_tree_is_known_and_a_misspelling_of_it_finds_it() -> None:
    for key in config.reading._known_keys():
        *parents, last = key.split(".")
        tree: dict[str, Any] = {f"{last}x": 1}
        for parent in reversed(parents):
            tree = {parent: tree}
        said = fault(tree)
        assert "did you mean" in said, said


# --- presets and files ------------------------------------------------------------------------------------------------


def policies(*names: str) -> tuple[Policy, ...]:
    return tuple(map(Policy.parse, names))


def test_there_are_presets_and_the_default_is_among_them() -> None:
    assert {path.stem for path in CONFIGS} == set(config.presets())
    assert "opt125m-wikitext2" in config.presets()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_file_loads_plans_and_says_what_it_is(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# "), "`collapse presets` shows the first comment"
    experiment = load(read_toml(path), path.name)
    for one in variant_experiments(read_toml(path), path.name).values() or [experiment]:
        models = len(one.loop.policies) * (one.loop.generations + 1)
        if one.kind == "mixture":
            models = len(cells(one.mixture))
        else:  # of a chain whose models are each of one of the lineages, all have generation 0
            chain = one.pool.rule == "random"
            several = len(one.lineage_names)
            models = len(one.loop.policies) * (several + one.loop.generations) if chain else models * several
        assert len(plan(one, Hints()).generations) == models * len(one.loop.seeds)
    assert load(experiment.model_dump(mode="json"), "again") == experiment


def test_an_unknown_preset_is_refused_and_the_nearest_known_one_named() -> None:
    with pytest.raises(ConfigError, match=r"there is no preset 'smok' \(did you mean 'smoke'\?\)"):
        preset_path("smok")
    assert preset_path("smoke").name == "smoke.toml"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no configuration file"),
        (b"a = ", "is not TOML"),
        (b"\xff\xfe", "not a TOML file in UTF-8"),
        (b"[train]\nlr = 1\n[train]\n", "is not TOML"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "my.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        read_toml(path)
    assert str(path) in str(caught.value)


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a TOML file"):
        read_toml(tmp_path)


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"train": {"lr": "fast"}}, "train.lr must be "),
        ({"train": {"lr": 0}}, "train.lr must be above 0, it is 0"),
        ({"train": {"lr": float("nan")}}, "train.lr must be "),
        ({"train": {"lr": float("inf")}}, "train.lr must be "),
        ({"train": {"epochs": 1.5}}, "train.epochs must be "),
        ({"train": {"epochs": 0}}, "train.epochs must be "),
        ({"train": {"batch_size": 0}}, "train.batch_size must be "),
        ({"train": {"weight_decay": -0.1}}, "train.weight_decay must be "),
        ({"train": {"weight_decay": float("inf")}}, "train.weight_decay must be "),
        ({"train": {"schedule": "cos"}}, "train.schedule must be "),
        ({"train": {"warmup": 1.0}}, "train.warmup must be "),
        ({"train": {"dtype": "float16"}}, "train.dtype must be "),
        ({"train": 3}, "train must be a table, it is 3"),
        ({"loop": {"policies": "keep-0"}}, "loop.policies must "),
        ({"loop": {"policies": []}}, "loop.policies must "),
        ({"loop": {"policies": ["keep-0", "keep-0"]}}, "loop.policies names one twice: keep-0, keep-0"),
        ({"loop": {"seeds": [1, 2, 1]}}, "loop.seeds names one twice: 1, 2, 1"),
        ({"loop": {"seeds": []}}, "loop.seeds must "),
        ({"loop": {"generations": -1}}, "loop.generations must be "),
        ({"loop": {"init": "gen1"}}, "loop.init must be "),
        ({"data": {"block_size": 1}}, "data.block_size must be "),
        ({"data": {"rows": -1}}, "data.rows must be "),
        ({"data": {"world": {"train_documents": 10**12}}}, "data.world.train_documents must be at most 1e+07, it is "),
        ({"data": {"world": {"test_documents": 0}}}, "data.world.test_documents must be at least 1, it is 0"),
        ({"model": {"vocab_size": 100}}, "model.vocab_size must be "),
        ({"eval": {"protocol": "blocks"}}, "eval.protocol must be "),
        ({"store": {"keep_models": "some"}}, "store.keep_models must be "),
        ({"kind": "mixtures"}, "kind must be "),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_and_its_place_named(tree: dict[str, Any], words: str) -> None:
    assert words in fault(tree)


@pytest.mark.parametrize(
    ("decode", "words"),
    [
        ({"beams": 5, "temperature": 0.9}, "set beams = 1 to sample"),
        ({"temperature": 1.0}, "exclude each other"),  # the default is 5 beams
        ({"beams": 1, "top_k": 5}, "set temperature"),
        ({"beams": 1, "top_p": 0.9}, "set temperature"),
        ({"beams": 0}, "sample.decode.beams must be "),
        ({"beams": 1, "temperature": -1}, "sample.decode.temperature must be "),
        ({"beams": 1, "temperature": float("inf")}, "sample.decode.temperature must be "),
        ({"beams": 1, "temperature": 1.0, "top_p": 0}, "sample.decode.top_p must be "),
        ({"beams": 1, "temperature": 1.0, "top_p": 1.1}, "sample.decode.top_p must be "),
        ({"repetition_penalty": 0}, "sample.decode.repetition_penalty must be "),
        ({"repetition_penalty": float("inf")}, "sample.decode.repetition_penalty must be "),
        ({"min_new_tokens": -2}, "sample.decode.min_new_tokens must be "),
        ({"min_new_tokens": 65}, "min_new_tokens is above sample.new_tokens"),
    ],
    ids=str,
)
def test_decode_settings_that_contradict_each_other_are_refused(decode: dict[str, Any], words: str) -> None:
    assert words in fault({"sample": {"decode": decode}})


@pytest.mark.parametrize(
    "decode",
    [
        {"beams": 1},
        {"beams": 1, "temperature": 0.9, "top_k": 5, "top_p": 0.5},
        {"beams": 5, "repetition_penalty": 2.0, "min_new_tokens": 64},
        {"min_new_tokens": 0},
    ],
    ids=str,
)
def test_decode_settings_that_fit_are_taken(decode: dict[str, Any]) -> None:
    assert load({"sample": {"decode": decode}}, "x").sample.decode.model_dump(include=decode.keys()) == decode


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"data": {"block_size": 32}}, "sample.prompt_tokens = 64 is more than a row holds (data.block_size = 32)"),
        ({"eval": {"protocol": "sliding"}, "data": {"eval_rows": 10}}, "set data.eval_rows = 0"),
        ({"eval": {"block_size": 1}}, "eval.block_size"),
        ({"eval": {"protocol": "sliding", "context": 1}}, "eval.context"),
        ({"eval": {"protocol": "sliding", "context": 64, "stride": 64}}, "eval.stride"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_each_other_are_refused(tree: dict[str, Any], words: str) -> None:
    """Nothing can be predicted in a row of one token, and a window must overlap the one before it."""
    assert words in fault(tree)


def test_prompts_of_nothing_need_no_room_in_a_row() -> None:
    assert load({"data": {"block_size": 32}, "sample": {"prompts": "none"}}, "x").data.block_size == 32


def test_the_defaults_are_those_of_the_design() -> None:
    one = Experiment()
    assert (one.loop.generations, one.loop.policies, one.loop.init) == (
        9,
        policies("keep-0", "keep-10", "keep-20"),
        "base",
    )
    assert (one.sample.prompts, one.sample.prompt_tokens, one.sample.new_tokens) == ("real", 64, 64)
    assert (one.train.target, one.mix.size, one.eval.protocol) == ("continuation", "constant", "block")
    assert (one.sample.decode.beams, one.sample.decode.repetition_penalty) == (5, 1.0)


def test_every_key_says_what_it_is_or_has_a_name_that_does() -> None:
    tree = config.tree
    for section in (
        tree.DataConfig,
        tree.DecodeConfig,
        tree.ModelConfig,
        tree.EvalConfig,
        tree.LoopConfig,
        tree.Expectation,
    ):
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"


def test_the_tree_is_frozen() -> None:
    one = Experiment()
    for section, name, value in ((one, "learner", "x"), (one.train, "lr", 1.0), (one.sample.decode, "beams", 1)):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, name, value)


# --- --set ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "tree"),
    [
        ([], {}),
        (["train.lr=1e-4"], {"train": {"lr": 1e-4}}),
        (["train.epochs=3", "train.lr=2"], {"train": {"epochs": 3, "lr": 2}}),
        (["data.line_bos=true"], {"data": {"line_bos": True}}),
        (["data.train=valid.txt"], {"data": {"train": "valid.txt"}}),
        (['data.train="valid.txt"'], {"data": {"train": "valid.txt"}}),
        (["data.train=a=b.txt"], {"data": {"train": "a=b.txt"}}),
        (["data.test="], {"data": {"test": ""}}),
        ([" train.lr = 3 "], {"train": {"lr": 3}}),
        (['loop.policies=["keep-0", "keep-5"]'], {"loop": {"policies": ["keep-0", "keep-5"]}}),
        (["sample.decode={ beams = 1 }"], {"sample": {"decode": {"beams": 1}}}),
        (["sample.decode.beams=1"], {"sample": {"decode": {"beams": 1}}}),
        (["train.lr=1", "train.lr=1"], {"train": {"lr": 1}}),
        (
            ["train.lr=.001", "train.min_lr=5.", "train.clip=-.5e1"],
            {"train": {"lr": 0.001, "min_lr": 5.0, "clip": -5.0}},
        ),
        (["data.train=.5x", "data.test=5..", "data.valid=."], {"data": {"train": ".5x", "test": "5..", "valid": "."}}),
        (["learner=lm"], {"learner": "lm"}),
        (["model.source=/a/b c"], {"model": {"source": "/a/b c"}}),
    ],
    ids=str,
)
def test_settings_are_read_as_toml_or_as_plain_text(settings: list[str], tree: dict[str, Any]) -> None:
    assert parse_settings(settings) == tree


@pytest.mark.parametrize("setting", ["train.lr", "", "=3", "  =3"])
def test_a_setting_without_key_or_value_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="write key=value"):
        parse_settings([setting])


def test_a_key_cannot_be_a_value_and_a_table() -> None:
    with pytest.raises(ConfigError, match="train was given a value before"):
        parse_settings(["train=3", "train.lr=1"])


def test_merging_replaces_leaves_and_keeps_the_rest() -> None:
    base = {"a": {"x": 1, "y": {"z": 2}}, "b": 3}
    assert merge(base, {"a": {"y": {"w": 4}}, "c": 5}) == {"a": {"x": 1, "y": {"z": 2, "w": 4}}, "b": 3, "c": 5}
    assert merge(base, {"a": 7, "b": {"n": 1}}) == {"a": 7, "b": {"n": 1}}
    assert base == {"a": {"x": 1, "y": {"z": 2}}, "b": 3}


# --- one run ----------------------------------------------------------------------------------------------------------


def test_how_far_a_run_goes_is_not_its_identity_and_all_else_is() -> None:
    one = Experiment()
    further = load({"loop": {"generations": 2, "policies": ["accumulate"], "seeds": [5]}}, "x")
    kept = load({"store": {"keep_models": "none"}}, "x")
    assert one.identity() == further.identity() == kept.identity()
    for other in (
        {"train": {"lr": 1}},
        {"loop": {"init": "gen0"}},
        {"data": {"sha256": "a"}},
        {"mix": {"size": "growing"}},
    ):
        assert load(other, "x").identity() != one.identity()


def test_extending_keeps_what_either_experiment_has() -> None:
    new = load({"loop": {"generations": 2, "policies": ["fresh-1", "keep-0"], "seeds": [5, 0]}}, "x")
    old = load({"loop": {"generations": 4, "policies": ["keep-0", "keep-9"], "seeds": [0, 1]}}, "x")
    both = new.extended(old)
    assert both.loop.generations == 4
    assert both.loop.policies == policies("keep-0", "keep-9", "fresh-1")
    assert both.loop.seeds == (0, 1, 5)
    assert both.model_copy(update={"loop": new.loop}) == new
    assert old.extended(new).loop.generations == 4
    assert both.extended(new).loop.generations == 4
