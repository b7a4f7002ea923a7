"""The configuration of a check's trained part: which models, on which shares, with which seeds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from collapse_cli.config import Experiment, load, merge
from collapse_cli.config.cell import cells
from collapse_cli.config.command_line import refuse_unread

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
ADDED = (0.25, 1.0)  # times the real rows
SEEDS = (0, 1, 2)
MOST_ROWS = 8_000  # blocks of a corpus that models are trained on
LEAST_ROWS = 40
STEPS, PASSES = 500, 8  # optimizer steps at most, and passes over the corpus
OF_READING = (
    "text",
    "format",
    "prompt",
    "completion",
    "template",
)  # options of data that say how the given files are read
OWN_MODEL = {  # small enough for a laptop, and trained from scratch so that nothing but the texts has a say
    "model": {
        "tokenizer": "bpe",
        "vocab_size": 1024,
        "config": {
            "model_type": "opt", "hidden_size": 64, "word_embed_proj_dim": 64, "ffn_dim": 256, "num_hidden_layers": 2, "num_attention_heads": 2,
            "max_position_embeddings": 128, "dropout": 0.0,
        },
    },
    "data": {"block_size": 64, "eval_rows": 512},
    "train": {"lr": 5e-3, "batch_size": 32, "warmup": 0.05, "dtype": "float32"},
    "store": {"keep_models": "none"},
}  # fmt: skip
GIVEN_MODEL = {  # fine-tuned
    "data": {"block_size": 64, "eval_rows": 256},
    "train": {"lr": 5e-5, "batch_size": 16, "warmup": 0.05, "steps": 200},
    "store": {"keep_models": "none"},
}


@dataclass(frozen=True)
class TrainingAsked:
    """What a command line asks for of the trained part.

    Attributes:
        model: a Hub id or a folder; None: a small model from scratch.
        tree: options of the configuration that were given.
    """

    model: str | None
    seeds: tuple[int, ...] | None
    tree: Mapping[str, Any]


def base_tree(asked: TrainingAsked, real: str, synthetic: str) -> dict[str, Any]:
    """The configuration but for how many rows there are."""
    own: Mapping[str, Any] = (
        OWN_MODEL if asked.model is None else merge(GIVEN_MODEL, {"model": {"source": asked.model}})
    )
    tree = merge(
        own, {"kind": "mixture", "loop": {"seeds": list(asked.seeds or SEEDS)}, "mixture": {"synthetic": [synthetic]}}
    )
    return merge(tree, {"data": {"source": real}})


def check_options(asked: TrainingAsked, real: str, synthetic: str) -> Experiment:
    """Whether the options that were given are options of such a run.

    Raises:
        ConfigError: for the first that is none, or that nothing reads.
    """
    tree = merge(base_tree(asked, real, synthetic), {"mixture": {"rows": [LEAST_ROWS], "share": [0.0, 0.5]}})
    tree = whole(tree, given_of(asked))
    refuse_unread(given_of(asked), tree, "the command line")
    return load(tree, "the command line")


def whole(tree: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with what was given. Nothing is sampled, but a prompt that is longer than a row would be refused."""
    merged = merge(tree, dict(given))
    block = merged.get("data", {}).get("block_size", 64)
    return merge(merged, {"sample": {"prompt_tokens": min(64, block)}}) if isinstance(block, int) else merged


def given_of(asked: TrainingAsked) -> dict[str, Any]:
    """What was given, without what says which texts are read: these are written down anew."""
    tree = without_column(asked.tree)
    if isinstance(tree.get("data"), dict):
        for name in OF_READING:
            tree["data"].pop(name, None)
    return {name: value for name, value in tree.items() if value != {}}


def without_column(given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, without the column of the synthetic text (`foreign.text`)."""
    tree = {name: dict(value) if isinstance(value, Mapping) else value for name, value in given.items()}
    if isinstance(tree.get("foreign"), dict):
        tree["foreign"].pop("text", None)
    return {name: value for name, value in tree.items() if value != {}}


def facts(config: Experiment, parameters: int, left_out: tuple[int, int]) -> dict[str, Any]:
    """What the sentences on trained models need to know, as JSON."""
    grid = cells(config.mixture)
    return {
        "block": config.data.block_size,
        "steps": config.train.steps,
        "batch": config.train.batch_size,
        "parameters": parameters,
        "from_scratch": config.model.from_scratch,
        "model": "" if config.model.config else config.model.source,
        "rows": max(config.mixture.rows, default=0),
        "added_to": config.mixture.added_to or max(cell.real for cell in grid),
        "left_out": list(left_out),
    }
