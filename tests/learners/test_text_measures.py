"""What is measured of a language model: the way from rows and folders to the fields of metrics.jsonl."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import VOCABULARY, random_rows, rows_of, tiny_model

from collapse_cli.config.tree import EvalConfig, SampleConfig
from collapse_cli.data import zipf
from collapse_cli.data.dataset import Dataset
from collapse_cli.learners import continuations
from collapse_cli.learners import text_measures as measures
from collapse_cli.learners.protocol import Hints, Outcome, silent
from collapse_cli.learners.truths import NextWords
from collapse_cli.lm.score import score_blocks, score_continuations
from collapse_cli.lm.text import join, train_bpe
from collapse_cli.metrics.features import ROWS

BLOCK, NEW = 6, 8
SETTINGS = SampleConfig(prompt_tokens=4, new_tokens=NEW, dtype="float32")
PROTOCOL = EvalConfig()
ABOUT: dict[str, Any] = {"line_bos": False, "splits": {"test": {"tokens": 240, "words": 100, "bytes": 500}}}


def stream(blocks: int, seed: int = 0) -> Dataset:
    tokens = np.random.default_rng(seed).integers(4, VOCABULARY, blocks * BLOCK)
    return rows_of(tokens.reshape(blocks, BLOCK))


@pytest.fixture
def encoded(tmp_path: Path) -> Path:
    """A data stage of 60 blocks, 40 of them the original corpus."""
    whole, chosen = stream(60), np.sort(np.random.default_rng(1).permutation(60)[:40])
    whole.take(chosen).save(tmp_path / "train.safetensors")
    continuations.following(whole, chosen).save(tmp_path / continuations.FOLLOWING)
    return tmp_path


def made(encoded: Path, rows: np.ndarray, seed: int, *, full: bool = False) -> tuple[Dataset, Dataset]:
    """The corpus, and rows sampled at random for some of its rows, of 1 to 8 tokens."""
    corpus = Dataset.load(encoded / "train.safetensors")
    new = random_rows(len(rows), NEW, seed=seed, ragged=True)
    new = Dataset({name: new.arrays[name] for name in ("tokens", "lengths")}, new.origin)
    start = np.zeros(len(rows), np.int32)
    if full:
        cut = continuations.cut_prompts(corpus.take(rows), SETTINGS, None)
        new, start = join(cut, new), cut.arrays["lengths"]
    return corpus, Dataset({**new.arrays, "start": start, "row": rows.astype(np.int32)}, new.origin)


def examine(encoded: Path, samples: Dataset, corpus: Dataset, first: Dataset | None) -> Outcome:
    tokenizer = train_bpe(["the old dog sees a red house under the tree\n"] * 20, 300)
    model = tiny_model("opt", seed=3)
    real = measures.real_features(model, tokenizer, SETTINGS, encoded, silent)
    shown = samples.take(np.arange(min(2, len(samples))))
    hints = Hints(encoded=encoded)
    found = measures.examine_part(model, tokenizer, samples, corpus, SETTINGS, hints, silent)
    return measures.examined(found, tokenizer, samples, shown, corpus, SETTINGS, hints, real, first, VOCABULARY)


def measure(model: Any, test: Dataset, first: Dataset | None, settings: EvalConfig, encoded: Path) -> Outcome:
    found = measures.score_part(model, test, settings, ABOUT, silent)
    return measures.measured(found, test, first, settings, encoded, ABOUT, VOCABULARY)


# --- real continuations -----------------------------------------------------------------------------------------------


def test_the_block_behind_each_row_is_the_one_that_follows_it_in_the_text() -> None:
    whole = stream(10)
    after = continuations.following(whole, np.array([0, 3, 9]))
    assert after.arrays["tokens"][:2].tolist() == whole.arrays["tokens"][[1, 4]].tolist()
    assert after.arrays["lengths"].tolist() == [BLOCK, BLOCK, 0]


@pytest.mark.parametrize("prompts", ["real", "none"])
def test_real_continuations_are_what_really_follows_the_prompt(encoded: Path, prompts: str) -> None:
    text = stream(60).arrays["tokens"].ravel().tolist()
    cut, real = continuations.real_continuations(encoded, SETTINGS.model_copy(update={"prompts": prompts}), 2, ROWS)
    assert len(cut) == len(real) >= 39
    for row in range(len(real)):
        before = cut.arrays["tokens"][row, : cut.arrays["lengths"][row]].tolist()
        after = real.arrays["tokens"][row, : real.arrays["lengths"][row]].tolist()
        assert len(after) == NEW
        wanted = after if prompts == "none" else before + after
        assert any(text[at : at + len(wanted)] == wanted for at in range(0, 60 * BLOCK, BLOCK))
        assert before == [2] if prompts == "none" else len(before) == 4


@pytest.mark.parametrize(("count", "most"), [(5, 10), (10, 10), (37354, 5000), (11, 10)])
def test_rows_to_compare_are_spread_evenly_and_none_twice(count: int, most: int) -> None:
    found = continuations.spaced(count, most)
    assert len(found) == len(set(found.tolist())) == min(count, most)
    assert (found[0], found[-1]) == (0, count - 1)


# --- a model on real text ---------------------------------------------------------------------------------------------


def test_the_losses_by_decile_and_of_unseen_tokens_make_up_the_whole(encoded: Path) -> None:
    model, test = tiny_model("opt"), random_rows(30, 8, seed=5)
    outcome = measure(model, test, None, PROTOCOL, encoded)
    facts, rows = outcome.facts, outcome.rows
    nll, predicted = score_blocks(model, test)
    assert facts["nll"] == pytest.approx(nll.sum() / predicted.sum(), rel=1e-5)
    known = sum(
        number * (loss or 0) for number, loss in zip(facts["tokens_by_decile"], facts["nll_by_decile"], strict=True)
    )
    unseen = facts["unseen_tokens"] * (facts["nll_unseen"] or 0)
    assert (known + unseen) / facts["predicted_tokens"] == pytest.approx(facts["nll"], rel=1e-5)
    assert sum(facts["tokens_by_decile"]) + facts["unseen_tokens"] == facts["predicted_tokens"]
    assert "tail_change" not in facts
    assert rows.arrays["nll"] == pytest.approx(nll, rel=1e-5)


def test_a_model_compared_with_itself_has_not_changed_and_with_another_by_its_losses(encoded: Path) -> None:
    test = random_rows(30, 8, seed=5)
    one, two = tiny_model("opt"), tiny_model("opt", seed=1)
    outcome = measure(one, test, None, PROTOCOL, encoded)
    before, rows = outcome.facts, outcome.rows
    same = measure(one, test, rows, PROTOCOL, encoded).facts
    other = measure(two, test, rows, PROTOCOL, encoded).facts
    assert same["head_change"] == same["tail_change"] == same["tail_change_se"] == 0
    for decile in range(10):
        change = other["nll_by_decile"][decile] - before["nll_by_decile"][decile]
        assert other["nll_change_by_decile"][decile] == pytest.approx(change)


def test_a_sliding_window_has_the_same_measures(encoded: Path) -> None:
    model, test = tiny_model("opt"), random_rows(30, 8, seed=5)
    sliding = EvalConfig(protocol="sliding", context=16, stride=8)
    facts = measure(model, test, None, sliding, encoded).facts
    assert facts["predicted_tokens"] == 239
    assert sum(facts["tokens_by_decile"]) + facts["unseen_tokens"] == 239
    assert facts["protocol"] == {
        "protocol": "sliding",
        "dtype": "float32",
        "line_bos": False,
        "context": 16,
        "stride": 8,
    }


def of_tokens(language: zipf.Language, tokens: Mapping[str, np.ndarray]) -> dict[str, Any]:
    nothing = np.zeros(0)
    return NextWords(language, 1).of_model(tokens, nothing, nothing, Dataset({}, np.zeros(0, np.int32)))


def test_the_truth_is_no_way_from_itself() -> None:
    language = zipf.Language(vocabulary=20)
    more = NextWords(language, 1).more
    contexts = torch.tensor([1, 5, 20, 0])  # the last is no word
    odds = torch.full((4, 21), -torch.inf, dtype=torch.float64)
    odds[:, 1:] = torch.from_numpy(language.logs[[0, 4, 19, 0]])
    found = {name: values.numpy() for name, values in more(odds, contexts).items()}
    assert found["kl"][:3] == pytest.approx(0, abs=1e-6)
    assert np.isnan(found["kl"][3])
    measured = of_tokens(language, found)
    assert measured["kl_truth"] == pytest.approx(0, abs=1e-6)
    assert measured["tail_mass_recall"] == pytest.approx(1)
    assert measured["entropy_rate"] == language.entropy_rate


def test_where_no_word_is_rare_there_is_no_tail_to_recall() -> None:
    language = zipf.Language(vocabulary=8, exponent=0.0)
    assert not language.tail.any()
    tokens = {"kl": np.ones(3), "model_tail": np.zeros(3), "true_tail": np.zeros(3)}
    assert of_tokens(language, tokens)["tail_mass_recall"] is None


# --- samples ----------------------------------------------------------------------------------------------------------


def test_samples_are_scored_under_the_reference_and_compared_with_generation_0(encoded: Path) -> None:
    corpus, samples = made(encoded, np.arange(40), seed=7)
    outcome = examine(encoded, samples, corpus, None)
    facts, rows = outcome.facts, outcome.rows
    cut = continuations.cut_prompts(corpus.take(samples.arrays["row"]), SETTINGS, None)
    nll, _ = score_continuations(tiny_model("opt", seed=3), cut, samples, np.zeros(40, np.int64))
    lengths = samples.arrays["lengths"]
    assert (facts["sample_rows"], facts["compared_rows"]) == (40, 20)
    assert facts["sample_perplexity"] == pytest.approx(np.exp(nll.sum() / lengths.sum()), rel=1e-4)
    assert facts["sample_log_perplexity_mean"] == pytest.approx((nll / lengths).mean(), rel=1e-4)
    assert 0 <= facts["low_share"] <= 0.1
    again = examine(encoded, samples, corpus, rows).facts
    assert again == facts
    repeated = samples.arrays["tokens"] * 0 + 5
    worse = Dataset({**samples.arrays, "tokens": repeated}, samples.origin)
    collapsed = examine(encoded, worse, corpus, rows).facts
    assert collapsed["unigram_entropy"] == pytest.approx(0, abs=1e-9)
    assert collapsed["low_share"] + collapsed["high_share"] != facts["low_share"] + facts["high_share"]


def test_what_samples_copy_from_their_prompts_is_measured(encoded: Path) -> None:
    corpus, samples = made(encoded, np.arange(40), seed=7)
    tokens = samples.arrays["tokens"].copy()
    tokens[:20, :4] = corpus.arrays["tokens"][:20, :4]  # half of the samples begin with their prompt again
    copied = examine(encoded, Dataset({**samples.arrays, "tokens": tokens}, samples.origin), corpus, None).facts
    places = samples.arrays["lengths"].astype(float) - 3  # of 4-grams: one is the prompt's, of 4 tokens
    enough = places > 0
    assert examine(encoded, samples, corpus, None).facts["prompt_overlap_4"] == 0
    assert copied["prompt_overlap_4"] == pytest.approx((1 / places[:20][enough[:20]]).sum() / enough.sum())


def test_policies_that_make_fewer_samples_are_compared_over_as_many(encoded: Path) -> None:
    """20 of 40 rows are always enough for both: entropies and coverage do not grow with the number of samples."""
    corpus, many = made(encoded, np.arange(40), seed=7)
    few = many.take(np.arange(36))
    one, two = (examine(encoded, samples, corpus, None).facts for samples in (many, few))
    assert (one["sample_rows"], two["sample_rows"]) == (40, 36)
    assert one["compared_rows"] == two["compared_rows"] == 20


def test_prompts_kept_in_the_rows_change_nothing(encoded: Path) -> None:
    corpus, samples = made(encoded, np.arange(30), seed=7)
    _, whole = made(encoded, np.arange(30), seed=7, full=True)
    assert (whole.arrays["start"] == 4).all()
    assert examine(encoded, whole, corpus, None).facts == examine(encoded, samples, corpus, None).facts


def test_real_text_given_as_samples_cannot_be_told_apart(tmp_path: Path) -> None:
    whole, chosen = stream(300), np.arange(300)
    whole.save(tmp_path / "train.safetensors")
    continuations.following(whole, chosen).save(tmp_path / continuations.FOLLOWING)
    _, real = continuations.real_continuations(tmp_path, SETTINGS, None, ROWS)
    zeros = np.zeros(len(real), np.int32)
    samples = Dataset({**real.arrays, "start": zeros, "row": np.arange(len(real), dtype=np.int32)}, zeros)
    _, other = made(tmp_path, np.arange(300), seed=9)
    same = examine(tmp_path, samples, whole, None).facts
    repeated = Dataset({**other.arrays, "tokens": other.arrays["tokens"] * 0 + 7}, other.origin)
    noise = examine(tmp_path, repeated, whole, None).facts
    assert same["mauve"] > 0.9 > noise["mauve"]


def test_no_sample_at_all_is_said(encoded: Path) -> None:
    corpus, samples = made(encoded, np.arange(3), seed=7)
    outcome = examine(encoded, samples.take(np.arange(0)), corpus, None)
    facts, rows = outcome.facts, outcome.rows
    assert facts == {"sample_rows": 0}
    assert len(rows) == 0
    assert examine(encoded, samples, corpus, rows).facts["low_share"] is None


def test_examples_are_the_text_of_the_shown_rows(encoded: Path) -> None:
    corpus, samples = made(encoded, np.array([3, 1, 2]), seed=7)
    facts = examine(encoded, samples, corpus, None).facts
    tokenizer = train_bpe(["the old dog sees a red house under the tree\n"] * 20, 300)
    assert [example["row"] for example in facts["examples"]] == [3, 1]
    for example in facts["examples"]:
        assert example["prompt"] == tokenizer.decode(corpus.arrays["tokens"][example["row"], :4].tolist())
    length = samples.arrays["lengths"][0]
    assert facts["examples"][0]["text"] == tokenizer.decode(samples.arrays["tokens"][0, :length].tolist())
