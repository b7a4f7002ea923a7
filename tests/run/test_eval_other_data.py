"""`collapse eval RUN` on other data: the models of a run read it as they read their own, whatever their family."""

import itertools
import json
import math
import random
import shutil
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import e2e

FLOOR, BLOCK = 1e-9, 16
NGRAM = """
learner = "ngram"
loop = {{ generations = 1, policies = ["keep-0"] }}
data = {{ source = "{text}", rows = 40, block_size = 16 }}
model = {{ tokenizer = "{tokenizer}", vocab_size = 300 }}
ngram = {{ order = 2 }}
sample = {{ prompt_tokens = 4, new_tokens = 16, decode = {{ beams = 1, temperature = 1.0 }} }}
"""
NUMBERS = """
learner = "{learner}"
loop = {{ generations = 2, policies = ["keep-0"] }}
data = {{ source = "{source}", rows = 60 }}
"""


def write_other(folder: Path) -> Path:
    """Text of the same words in other shares, and of some more: its own tokenizer would be another one."""
    folder.mkdir()
    draw = random.Random(7)
    words = ("zebra", "quick", "jumps", "over", "the", "dog", "house", "sees", "likes", "bird")
    for split, lines in (("train", 200), ("valid", 20), ("test", 20)):
        text = "".join(" ".join(draw.choices(words, k=11)) + ".\n" for _ in range(lines))
        (folder / f"{split}.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module", params=["bpe", "words"])
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of n-grams whose tokenizer is made of its text, and other text."""
    folder = tmp_path_factory.mktemp(request.param)
    text = e2e.write_text(folder / "text")
    write_other(folder / "other")
    (folder / "grams.toml").write_text(NGRAM.format(text=text.as_posix(), tokenizer=request.param), encoding="utf-8")
    e2e.run(folder / "grams.toml", folder / "runs")
    return folder


def ids_of(home: Path, text: str) -> list[int]:
    """A text in the tokens of the run, by its tokenizer."""
    from tokenizers import Tokenizer

    (key,) = [stage["key"] for stage in e2e.plan(home / "runs", "grams") if stage["kind"] == "data"]
    file = e2e.folder_of(home / "runs", key) / "tokenizer" / "tokenizer.json"
    return Tokenizer.from_file(str(file)).encode(text, add_special_tokens=False).ids


def bigrams(corpus: list[list[int]], text: list[int], block: int = BLOCK) -> dict[str, float]:
    """Generation 0's scores of a text, counted by hand: bigrams, and unigrams behind what never had a follower."""
    pairs = Counter((a, b) for row in corpus for a, b in itertools.pairwise(row))
    after = Counter(a for row in corpus for a in row[:-1])
    alone = Counter(token for row in corpus for token in row)
    losses, unseen = [], 0
    for start in range(0, len(text) - block + 1, block):
        row = text[start : start + block]
        for a, b in itertools.pairwise(row):
            p = pairs[a, b] / after[a] if after[a] else alone[b] / alone.total()
            unseen += not p
            losses.append(-math.log(p or FLOOR))
    return {"nll": float(np.mean(losses)), "unseen_share": unseen / len(losses), "predicted_tokens": len(losses)}


def scored(home: Path, *arguments: str | Path) -> list[dict[str, Any]]:
    made = e2e.collapse("eval", "grams", "--runs-dir", home / "runs", "--json", *arguments)
    assert made.code == 0, made.err
    return made.json


def own_rows(home: Path) -> list[list[int]]:
    """The corpus that generation 0 was counted from."""
    rows: list[list[int]] = e2e.real_rows(home / "runs", "grams").arrays["tokens"].tolist()
    return rows


@pytest.mark.parametrize("named", ["--data", "--set"])
def test_ngrams_read_other_text_in_the_tokens_of_their_own(home: Path, named: str) -> None:
    """A tokenizer newly made of the other text has other numbers for its words."""
    wanted = bigrams(own_rows(home), ids_of(home, (home / "other/test.txt").read_text()))
    arguments = ("--data", home / "other") if named == "--data" else ("--set", f"data.source={home / 'other'}")
    first, second = scored(home, *arguments)
    assert {name: first[name] for name in wanted} == pytest.approx(wanted, rel=1e-9)
    assert first["perplexity"] == pytest.approx(math.exp(wanted["nll"]), rel=1e-9)
    assert first["logged"] is None
    assert (second["generation"], second["predicted_tokens"]) == (1, wanted["predicted_tokens"])


def test_another_split_is_other_text_too(home: Path) -> None:
    wanted = bigrams(own_rows(home), ids_of(home, (home / "text/valid.txt").read_text()))
    first, _ = scored(home, "--set", "data.test=valid.txt")
    assert {name: first[name] for name in wanted} == pytest.approx(wanted, rel=1e-9)


def test_the_share_of_types_left_is_of_the_corpus_that_the_models_were_made_of(home: Path) -> None:
    """Of other text, or of other rows of the same, it would be no share."""
    logged = [row["vocabulary_share"] for row in e2e.read_lines(home / "runs/grams/metrics.jsonl")]
    assert logged[0] == 1 > logged[1]
    for arguments in (("--data", home / "other"), ("--set", "data.block_size=8")):
        assert [row["vocabulary_share"] for row in scored(home, *arguments)] == logged


def test_without_the_tokenizer_of_the_run_nothing_is_scored(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "runs", tmp_path / "runs")
    (key,) = [stage["key"] for stage in e2e.plan(tmp_path / "runs", "grams") if stage["kind"] == "data"]
    shutil.rmtree(e2e.folder_of(tmp_path / "runs", key))
    made = e2e.collapse("eval", "grams", "--runs-dir", tmp_path / "runs", "--data", home / "other")
    assert made.code == 2
    assert "the tokenizer that this run made from its text is no longer in the store" in made.err


# --- families of numbers ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each family that is fitted in milliseconds."""
    folder = tmp_path_factory.mktemp("numbers")
    for learner, source in (
        ("gaussian", "blobs"),
        ("gmm", "blobs"),
        ("ridge", "regression"),
        ("projections", "regression"),
    ):
        path = folder / f"{learner}.toml"
        path.write_text(NUMBERS.format(learner=learner, source=source), encoding="utf-8")
        e2e.run(path, folder / "runs")
    (folder / "mlp.toml").write_text(
        'learner = "mlp"\nloop = { generations = 0, policies = ["keep-0"] }\ndata = { source = "digits", rows = 60 }\n'
        "mlp = { epochs = 1 }\n",
        encoding="utf-8",
    )
    e2e.run(folder / "mlp.toml", folder / "runs")
    return folder


@pytest.mark.parametrize("learner", ["gaussian", "gmm", "ridge", "projections"])
def test_the_source_that_a_run_has_is_drawn_as_the_run_drew_it(numbers: Path, learner: str) -> None:
    """`--data` alone cannot say how many rows; what it leaves out is the run's."""
    source = "blobs" if learner in ("gaussian", "gmm") else "regression"
    made = e2e.collapse("eval", learner, "--runs-dir", numbers / "runs", "--data", source, "--json")
    assert made.code == 0, made.err
    rows = e2e.read_lines(numbers / "runs" / learner / "metrics.jsonl")
    assert [row["test_loss"] for row in made.json] == [row["test_loss"] for row in rows]


@pytest.mark.parametrize("learner", ["gaussian", "gmm", "ridge", "projections"])
def test_rows_of_another_width_are_refused_in_a_sentence(numbers: Path, learner: str) -> None:
    section = "blobs" if learner in ("gaussian", "gmm") else "regression"
    shapes = {"gaussian": ("1 x 7", "1 x 2"), "gmm": ("7", "2")}
    there, own = shapes.get(learner, ("7", "100"))
    made = e2e.collapse("eval", learner, "--runs-dir", numbers / "runs", "--set", f"data.{section}.dimensions=7")
    assert made.code == 2
    assert made.err == (
        f"collapse: the rows to score hold {there} numbers each, but the model was made of rows of {own}; give it such rows\n"
    )


def test_images_of_another_size_are_refused_in_a_sentence(numbers: Path, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for stem, count in (("train", 30), ("t10k", 20)):
        for name, array in (
            ("images-idx3", draw.integers(0, 256, (count, 12, 12), dtype=np.uint8)),
            ("labels-idx1", np.arange(count, dtype=np.uint8) % 10),
        ):
            head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
            (tmp_path / f"{stem}-{name}-ubyte").write_bytes(head + array.tobytes())
    made = e2e.collapse("eval", "mlp", "--runs-dir", numbers / "runs", "--data", tmp_path)
    assert made.code == 2
    assert "the rows to score hold 144 numbers each, but the model was made of rows of 64" in made.err


def test_a_gaussian_meets_the_other_truth_that_is_asked_for(numbers: Path) -> None:
    """`variance` is in units of the truth's, so a spread of 2 makes a quarter of it."""
    made = e2e.collapse("eval", "gaussian", "--runs-dir", numbers / "runs", "--set", "data.blobs.spread=2", "--json")
    rows = e2e.read_lines(numbers / "runs" / "gaussian" / "metrics.jsonl")
    assert [4 * row["variance"] for row in made.json] == pytest.approx([row["variance"] for row in rows])
    assert json.loads(made.out)[0]["logged"] is None
