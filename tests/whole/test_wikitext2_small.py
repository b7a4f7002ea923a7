"""The preset on real data, shortened: WikiText-2's published splits and OPT's own tokenizer."""

import math
from pathlib import Path

import pytest
from support import e2e


@pytest.fixture(scope="module")
def runs(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two generations of two policies on 32 rows."""
    runs = tmp_path_factory.mktemp("wikitext")
    text, tokenizer = shared_data / "wikitext-2", shared_data / "opt-tokenizer"
    files = {"data__train": "valid.txt", "data__test": "test.txt", "model__tokenizer": tokenizer}
    small = {"data__rows": 32, "data__eval_rows": 16, "train__epochs": 1}
    arguments = ["--name", "small", "--generations", "1", "--data", str(text)]
    for policy in ("keep-0", "keep-10"):
        arguments += ["--policy", policy]
    e2e.run(e2e.ROOT / "configs" / "wikitext2-small.toml", runs, *arguments, **files, **small)
    return runs


def test_the_tokens_are_opts(runs: Path) -> None:
    """50,265 entries; a BOS token before every line; as many words and bytes as the files have."""
    (data,) = (record["facts"] for record in e2e.stages(runs).values() if record["kind"] == "data")
    assert data["vocab_size"] == 50_265
    assert data["line_bos"] is True
    train, test = data["splits"]["train"], data["splits"]["test"]
    assert (train["words"], train["bytes"]) == (213_886, 1_121_681)
    assert (test["words"], test["bytes"]) == (241_211, 1_256_449)
    assert (train["rows"], test["rows"]) == (32, 16)
    assert train["blocks"] == train["tokens"] // 64
    assert data["splits"]["reserve"]["rows"] == train["blocks"] - 32
    tokens = e2e.real_rows(runs, "small", "test.safetensors").arrays["tokens"]
    assert (tokens == 2).any(), "no </s> before a line"
    assert 3 < tokens.max() < 50_265


def test_the_numbers_are_sane(runs: Path) -> None:
    """Rows as the policies say; a perplexity far below a uniform guess over the vocabulary would be surprising."""
    rows = e2e.metrics(runs, "small")
    assert set(rows) == {(policy, 0, generation) for policy in ("keep-0", "keep-10") for generation in (0, 1)}
    for row in rows.values():
        assert row["train_rows"] == 32
        assert row["predicted_tokens"] == 16 * 63
        assert math.isfinite(row["perplexity"])
        assert 100 < row["perplexity"] < 60_000
        assert row["train_loss"] < math.log(50_272) + 0.5
        assert row["word_perplexity"] > row["perplexity"]
    assert [rows["keep-10", 0, g]["real_rows"] for g in (0, 1)] == [32, 3]
    assert [rows["keep-0", 0, g]["sample_tokens"] for g in (0, 1)] == [0, 32 * 64]
