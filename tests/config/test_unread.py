"""Options that nothing reads are refused: held against the keys of all stages, for every option and kind of experiment."""

from pathlib import Path
from typing import Any, get_args

import pytest
from support import e2e

from collapse_cli import config
from collapse_cli.config import Experiment, load, merge, parse_settings, presets, read_toml, refuse_unread
from collapse_cli.config.names import leaves
from collapse_cli.config.options import options
from collapse_cli.config.unread import CONDITIONS, unread, within
from collapse_cli.errors import ConfigError, InputError
from collapse_cli.experiment.kinds import plan
from collapse_cli.learners import Hints

SCRATCH = {"model_type": "opt", "hidden_size": 16}
LOOP = {"loop": {"generations": 2, "policies": ["keep-10", "fresh-10", "accumulate"], "seeds": [0]}}
DRAWS = {"sample": {"decode": {"beams": 1, "temperature": 1.0}}}
GRID = {"rows": [100, 200], "share": [0.1, 0.5]}
BASES: dict[str, dict[str, Any]] = {
    "lm from scratch": {"model": {"config": SCRATCH, "tokenizer": "bpe"}, "data": {"source": "pydoc"}, **LOOP},
    "lm of a folder": {"model": {"source": "some/model"}, "data": {"source": "some.txt"}, **LOOP, **DRAWS},
    "lm that slides": {"model": {"source": "some/model"}, "eval": {"protocol": "sliding"}, **LOOP},
    "lm on zipf": {"model": {"config": SCRATCH, "tokenizer": "words"}, "data": {"source": "zipf"}, **LOOP, **DRAWS},
    "lm on world": {
        "model": {"config": SCRATCH, "tokenizer": "words"},
        "data": {"source": "world"},
        "train": {"target": "full"},
        "sample": {"prompt_tokens": 2, "decode": {"beams": 1, "temperature": 1.0, "min_new_tokens": 0}},
        **LOOP,
    },
    "ngram": {"learner": "ngram", "model": {"tokenizer": "bpe"}, "data": {"source": "pydoc"}, **LOOP, **DRAWS},
    "ngram on zipf": {"learner": "ngram", "model": {"tokenizer": "words"}, "data": {"source": "zipf"}, **LOOP, **DRAWS},
    "gaussian": {"learner": "gaussian", "data": {"source": "blobs", "rows": 50}, **LOOP},
    "gmm": {"learner": "gmm", "data": {"source": "blobs", "rows": 50}, **LOOP},
    "vae": {"learner": "vae", "data": {"source": "digits"}, **LOOP},
    "mlp": {"learner": "mlp", "data": {"source": "digits"}, **LOOP},
    "ridge": {"learner": "ridge", "data": {"source": "regression", "rows": 50}, **LOOP},
    "projections": {"learner": "projections", "data": {"source": "regression", "rows": 50}, **LOOP},
    "mixture of lm": {
        "kind": "mixture",
        "model": {"config": SCRATCH, "tokenizer": "bpe"},
        "data": {"source": "pydoc"},
        "mixture": GRID,
    },
    "mixture of mlp": {"kind": "mixture", "learner": "mlp", "data": {"source": "digits"}, "mixture": GRID},
    "mixture of ridge": {"kind": "mixture", "learner": "ridge", "data": {"source": "regression"}, "mixture": GRID},
    "mixture of projections": {
        "kind": "mixture",
        "learner": "projections",
        "data": {"source": "regression"},
        "mixture": GRID,
    },
}
READ_ELSEWHERE = (  # than in a stage's parameters
    *("store", "tracking", "ray", "expect", "variants"),
    *("kind", "learner", "data.source"),  # decide on all else
    "sample.max_duplicates",  # a warning
    *("model.source", "model.base", "model.revision", "model.tokenizer", "model.tokenizer_sha256"),  # found by content
    *("data.train", "data.valid", "data.test", "data.text", "data.format", "data.prompt", "data.completion"),
    *("data.template", "data.template_sha256"),
    *("data.zipf.seed", "data.zipf.train_tokens", "data.zipf.test_tokens"),  # the text they make is known by its hash
    *("data.world.train_documents", "data.world.test_documents"),
    "loop.block",  # of learners whose generations have stages of their own it is an error of its own
    "mlp.select",  # of learners that put rows aside for it
    "gmm.start",
)
IN_KEYS_ONLY = (  # of blocks and of mixtures in memory, whose parameters hold more than is read
    *("loop.init", "sample.prompts", "sample.decode.beams"),
    *("data.rows", "data.eval_rows", "data.reserve"),
)
OTHER: dict[str, Any] = {
    "model.vocab_size": 300,
    "model.config": {"model_type": "opt", "hidden_size": 32},
    "loop.policies": ["keep-20"],
    "loop.seeds": [1],
    "mixture.rows": [100],
    "mixture.share": [0.2],
    "vae.channels": [8, 8],
    "data.source": "other",
    "data.eval_rows": 7,
    "eval.context": 32,
    "eval.stride": 8,
    "loop.block": 1,
    "pool.lineages": 2,
    "data.segment": "1/2",
    "pool.foreign": ["other.jsonl"],
    "mixture.synthetic": ["other.jsonl"],
}


def another(key: str) -> Any:
    """A value of an option that is not its default."""
    if key in OTHER:
        return OTHER[key]
    section: Any = Experiment
    *parents, name = key.split(".")
    for part in parents:
        section = section.model_fields[part].annotation
    field = section.model_fields[name]
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, bool):
        return not value
    if str(getattr(field.annotation, "__origin__", "")) == "typing.Literal":
        return next(one for one in get_args(field.annotation) if one != value)
    if isinstance(value, int):
        return value + 1
    return value / 2 + 0.1 if isinstance(value, float) else "a" * 64


def tree_with(base: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    over: Any = value
    for part in reversed(key.split(".")):
        over = {part: over}
    return merge(base, over)


def keys_of(tree: dict[str, Any]) -> set[str] | None:
    """The keys of all stages; None where the experiment contradicts itself."""
    if tree.get("pool", {}).get("foreign") or tree.get("mixture", {}).get("synthetic"):
        tree = merge(tree, {"foreign": {"sha256": ["0" * 64]}})  # as it is filled in when the text is looked up
    try:
        return set(plan(load(tree, "x"), Hints()).stages)
    except (ConfigError, InputError, KeyError):
        return None


@pytest.mark.parametrize("name", BASES)
def test_every_option_is_read_or_refused(name: str) -> None:
    """Both ways: what changes no stage is refused, and what is refused for the learner's sake changes none."""
    base = BASES[name]
    before, looked_at, wrong = keys_of(base), 0, list[str]()
    assert before
    for one in (option.key for option in options()):
        tree = tree_with(base, one, another(one))
        after = keys_of(tree)
        if after is None or within(one, READ_ELSEWHERE) or load(tree, "x") == load(base, "x"):
            continue
        if base.get("learner") == "ngram" and within(one, ("sample.decode", "eval.protocol")):
            continue  # each has an error of its own
        looked_at += 1
        why = unread(one, load(tree, "x"))
        if after == before:
            wrong += [] if why else [f"{one} changes nothing, and is not refused"]
        elif why and not within(one, IN_KEYS_ONLY) and not any(one in keys for keys, _, _ in CONDITIONS):
            wrong.append(f"{one} changes stages, and is refused: {why}")
    assert wrong == []
    assert looked_at > 40


@pytest.mark.parametrize("name", sorted(presets()))
def test_every_option_of_a_preset_is_read(name: str) -> None:
    tree = read_toml(presets()[name])
    refuse_unread(tree, tree, name)


def refused(base: dict[str, Any], *settings: str) -> str:
    over = parse_settings(settings)
    with pytest.raises(ConfigError) as caught:
        refuse_unread(over, merge(base, over), "the command line")
    return str(caught.value)


def passes(base: dict[str, Any], *settings: str) -> None:
    over = parse_settings(settings)
    refuse_unread(over, merge(base, over), "the command line")


LM, MIXED = BASES["lm from scratch"], BASES["mixture of ridge"]
DRAWN = {**LM, **DRAWS}
SWITCHED_OFF = [  # an experiment, an option that another switches off, that other, and what makes it read
    (LM, "model.source=x", "model.config", None),
    (LM, "model.sha256=x", "model.config", None),
    (BASES["lm of a folder"], "model.vocab_size=300", "tokenizer", "model.tokenizer=bpe"),
    (BASES["lm on zipf"], "model.vocab_size=300", "data.zipf.vocabulary", "model.tokenizer=bpe"),
    (LM, "model.tokenizer_sha256=x", "tokenizer", "model.tokenizer=x/y"),
    (LM | {"sample": {"prompts": "none"}}, "sample.prompt_tokens=3", "sample.prompts", "sample.prompts=real"),
    (DRAWN, "sample.decode.length_penalty=2", "sample.decode.beams", None),
    (LM, "eval.context=9", "eval.protocol", "eval.protocol=sliding"),
    (LM, "eval.stride=9", "eval.protocol", "eval.protocol=sliding"),
    (BASES["lm that slides"], "eval.block_size=9", "eval.protocol", "eval.protocol=block"),
    (LM, "train.min_lr=1e-6", None, None),
    (LM | {"train": {"schedule": "constant"}}, "train.min_lr=1e-6", "train.schedule", "train.schedule=linear"),
    (LM, "train.truncate=0.8", "train.loss = truncated", "train.loss=truncated"),
    (LM, "train.focusing=1", "train.loss = focal", "train.loss=focal"),
    (LM | {"train": {"loss": "focal"}}, "train.smoothing=0.2", "train.loss = smoothed", "train.loss=smoothed"),
    (BASES["mixture of lm"], "train.replay=0.5", "generation 0", None),
    (LM | {"loop": {"generations": 0}}, "train.replay=0.5", "there are none", "loop.generations=1"),
    (LM | {"loop": {"generations": 0}}, "mix.weights=2:1", "no later one", "loop.generations=1"),
    (
        LM | {"loop": {"generations": 0}, "select": {"keep": "lowest", "oversample": 2}},
        "select.by=surprise",
        "no later one",
        "loop.generations=1",
    ),
    (BASES["mixture of lm"], "eval.samples=false", "mixture", None),
    (LM | {"loop": {"policies": ["accumulate"]}}, "mix.size=growing", "keep-P", 'loop.policies=["keep-1"]'),
    (BASES["gaussian"] | {"loop": {}}, "data.reserve=5", "fresh-P", 'loop.policies=["fresh-1"]'),
    (MIXED, "data.rows=5", "mixture.rows", None),
    (BASES["gmm"], "data.blobs.separation=2", "centers", "data.blobs.centers=2"),
    (BASES["ridge"], "data.regression.beta=2", "spectrum", "data.regression.spectrum=pow"),
    (BASES["gmm"], "loop.init=previous", "fitted anew", "gmm.start=parent"),
    (BASES["ridge"], "loop.init=previous", "fitted anew", None),
    (BASES["ridge"], "sample.prompts=previous", "data.regression.inputs", "data.regression.inputs=same"),
    (BASES["mlp"], "mlp.epochs=3", None, None),
    (BASES["mlp"] | {"mlp": {"steps": 9}}, "mlp.epochs=3", "mlp.steps", "mlp.steps=0"),
    (MIXED, "ridge.lam=3", None, None),
    (MIXED, "mixture.real_data=fixed", "mixture.iterations", "mixture.iterations=[1,2]"),
    (MIXED, "store.keep_models=none", "never written", None),
    (LM, "tracking.uri=x", "MLflow", "tracking.to=mlflow"),
    (LM, "tracking.project=x", "MLflow", "tracking.to=wandb"),
]


@pytest.mark.parametrize(("base", "option", "because", "unless"), SWITCHED_OFF, ids=lambda value: str(value)[:40])
def test_what_another_option_switches_off_is_refused(
    base: dict[str, Any], option: str, because: str | None, unless: str | None
) -> None:
    if because is None:
        passes(base, option)
        return
    said = refused(base, option)
    assert f"{option.partition('=')[0]} means nothing here: " in said
    assert because in said
    if unless is not None:
        passes(base, option, unless)


def test_what_is_written_down_as_off_is_let_pass() -> None:
    """A file may hold an option at its default that another one switches off; one of another learner never."""
    passes(LM, "eval.stride=0", "train.min_lr=0")
    assert "gmm" in refused(LM, "gmm.components=2")


def test_a_variant_s_own_options_are_looked_at_and_one_reader_is_enough() -> None:
    base = LM | {"variants": {"a": {"train": {"schedule": "constant"}}, "b": {}}}
    passes(base, "train.min_lr=1e-6")
    assert "min_lr" in refused(base, "variants.a.train.min_lr=1e-6")
    assert "ridge" in refused(base, "variants.b.ridge.lam=1")


def test_a_preset_s_options_are_not_the_user_s(tmp_path: Path) -> None:
    """Another learner on a preset: what the preset says of the old one is passed over; a file's own is not."""
    asked = ("--set", "learner=ngram", "--runs-dir", tmp_path / "runs", "--dry-run")
    assert e2e.collapse("run", "--preset", "smoke", *asked).code == 0
    file = tmp_path / "my.toml"
    file.write_text('learner = "gaussian"\n[data]\nsource = "blobs"\nrows = 9\n[train]\nlr = 1e-3\n')
    result = e2e.collapse("run", file, "--runs-dir", tmp_path / "runs", "--dry-run")
    assert result.code == 2
    assert "my.toml: train.lr means nothing here" in result.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--preset", "nature-gaussian", "--set", "train.lr=0.1"), ("train.lr", "gaussian")),
        (("--preset", "nature-gaussian", "--set", "train.loss=truncated"), ("train.loss", "gaussian", "lm")),
        (("--preset", "smoke", "--set", "gmm.components=3"), ("gmm.components", "lm")),
        (("--preset", "ngram-zipf", "--model", "gpt2"), ("--model", "ngram")),
        (("--preset", "smoke", "--set", "mixture.rows=[3]"), ("mixture.rows", "generations")),
        (("--preset", "strong-ridge", "--set", "loop.generations=3"), ("loop.generations", "mixture")),
        (("--preset", "smoke", "--set", "data.blobs.spread=3"), ("data.blobs.spread", "pydoc")),
    ],
)
def test_the_command_line_says_so(tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    result = e2e.collapse("run", *arguments, "--runs-dir", tmp_path / "runs")
    assert result.code == 2
    assert result.err.count("\n") == 1
    for word in words:
        assert word in result.err, result.err
    assert not (tmp_path / "runs").exists()


def test_a_resolved_tree_of_an_old_run_loads() -> None:
    """run.json holds a value for every option; only what was given is looked at."""
    for path in presets().values():
        one = load(read_toml(path), path.name)
        assert load(one.model_dump(mode="json"), "run.json") == one


def test_the_rules_name_options_that_there_are() -> None:
    known = [one.key for one in options()]
    for keys, _, why in CONDITIONS:
        for key in keys:
            assert within(key, known) or any(within(one, (key,)) for one in known), key
        assert why[0].islower()
    rules = [*config.unread.ALWAYS, *(key for group in config.unread.KINDS.values() for key in group)]
    rules += [key for table in (config.unread.READS, config.unread.SOURCES) for keys in table.values() for key in keys]
    for rule in rules:
        assert any(within(one, (rule,)) for one in known), rule
    assert dict(leaves({"a": {"b": 1}, "c": {}})) == {"a.b": 1, "c": {}}
